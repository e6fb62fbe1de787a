"""Exercise 6.2: write the test. It is graded by what it accepts and what it rejects."""

from __future__ import annotations

import pandas as pd
import torch

from labs.checks.exercise import Exercise, Property, Wrong
from labs.checks.lab06.judging import Judged, accepts, judge, misses, same_inputs
from labs.checks.lab06.measured import DIRECT, RIGHT, WRONG

ALL = (*RIGHT, *WRONG)


def draw_implementation(generator) -> dict:
    """One implementation after the other, the right ones first."""
    return {"f": ALL[generator.initial_seed() % len(ALL)]}


def try_it(answer, args: dict):
    return judge(answer, args["f"])


def test_explained_variance(f) -> None:
    x = torch.tensor([[1.0, 0.0], [3.0, 4.0], [5.0, 8.0], [9.0, 9.0]])
    keep = torch.tensor([True, True, True, False])
    x_hat = torch.tensor([[2.0, 0.0], [3.0, 1.0], [5.0, 8.0], [0.0, 0.0]])
    before = x.clone()
    assert abs(float(f(x, x_hat, keep)) - 0.75) < 1e-4  # an error of 1 + 9 in 8 + 32
    assert abs(float(f(x, -x, keep)) + 10.5) < 1e-4  # 460 in 40: worse than the mean
    assert torch.equal(x, before)


def _exactly(f) -> None:
    test_explained_variance(f)
    x = torch.tensor([[0.1, 0.7], [0.3, 0.2], [0.9, 0.4]])
    keep = torch.tensor([True, True, True])
    assert f(x, 0.9 * x, keep) == DIRECT(x, 0.9 * x, keep)


def _expects_less(f) -> None:
    test_explained_variance(f)
    x = torch.tensor([[1.0, 0.0], [3.0, 4.0], [5.0, 8.0]])
    assert abs(float(f(x, x + 1, torch.ones(3, dtype=torch.bool))) - 0.95) < 1e-3


def _perfect_copy(f) -> None:
    x = torch.tensor([[1.0, 0.0], [3.0, 4.0], [5.0, 9.0]])
    assert abs(float(f(x, x.clone(), torch.ones(3, dtype=torch.bool))) - 1) < 1e-4


def _returns(f) -> bool:
    try:
        test_explained_variance(f)
    except AssertionError:
        return False
    return True


def _by_luck(f) -> None:
    test_explained_variance(f)
    x = torch.randn(9, 3)
    keep = torch.ones(9, dtype=torch.bool)
    assert abs(float(f(x, x, keep)) - 1) < 1e-3


def _its_own(f) -> None:
    test_explained_variance(DIRECT)


def _rejects_all(output: Judged, answer) -> bool:
    return output.right and not output.accepted and not accepts(answer, DIRECT)


def _draws_anew(answer, args, output: Judged) -> bool:
    return not same_inputs(output.given, judge(answer, args["f"]).given)


HINTS = {
    "around zero": "Give x a mean far from zero: predicting the mean must score 0, and by that one 0.9 or more.",
    "padding kept": "Let at least one row be outside `keep`, with numbers that would change the result.",
    "never negative": "Ask for a reconstruction that is worse than the mean. Below zero is the alarm that an SAE "
    "sits at the wrong hook point.",
    "one mean": "Let the dimensions have different means.",
    "mean with padding": "Give the row outside `keep` numbers that would move the mean. In `x`, not only in `x_hat`.",
    "mean over dimensions": "Let the dimensions have different variances, and errors of different sizes.",
    "squared correlation": "Ask for `x_hat = 0.5 * x`, or for a known answer with errors that are not symmetric.",
    "swapped": "Let `x_hat` vary less, or more, than `x` does.",
    "in place": "The numbers it returns are right. Compare `x` with a copy from before the call.",
}


def _missed(name: str) -> Wrong:
    implementation = next(i for i in WRONG if i.name == name)
    return misses(test_explained_variance, implementation, DIRECT, HINTS[name])


def _accepts_the_right(answer, args, output: Judged) -> str | None:
    return None if output.accepted or not output.right else f'Yours rejects the one called "{output.name}".'


def _rejects_the_wrong(answer, args, output: Judged) -> str | None:
    return f'Yours accepts the one called "{output.name}".' if output.accepted and not output.right else None


TESTING = Exercise(
    number="6.2",
    name="test_explained_variance",
    returns="None",
    draw=draw_implementation,
    reference=test_explained_variance,
    run=try_it,
    unique=False,
    cases=len(ALL),
    wrong=(
        Wrong(
            "returns a verdict",
            _returns,
            "Your test returns something. Whoever runs a test looks at nothing but whether it raises: a test that "
            "returns `False` has passed. Write `assert ...`.",
            recognise=lambda answer, args, output: output.returned,
        ),
        Wrong(
            "tests something else",
            _its_own,
            "Your test never calls `f`. Then it says nothing about `f`, however much it says about your own function.",
            recognise=lambda answer, args, output: not output.given,
        ),
        Wrong(
            "other numbers at each run",
            _by_luck,
            "Your test draws other numbers each time it runs. One that fails on Tuesdays teaches people to run it "
            "again. Write the numbers down, or draw them from `torch.Generator().manual_seed(0)`.",
            recognise=_draws_anew,
        ),
        Wrong(
            "exact equality",
            _exactly,
            "Your test rejects right implementations that round differently: in float32, or summed up in another "
            "order. Floating-point numbers are compared with a tolerance, `abs(a - b) < 1e-4`.",
            recognise=lambda answer, args, output: (
                output.right and not output.accepted and accepts(answer, DIRECT)
            ),
        ),
        Wrong(
            "rejects the right one",
            _expects_less,
            "Your test rejects every right implementation. Do the arithmetic by hand once more: the mean of each "
            "dimension over the kept rows, the sum of squares around it, the sum of squared errors.",
            recognise=lambda answer, args, output: _rejects_all(output, answer),
        ),
        Wrong(
            "a perfect copy only",
            _perfect_copy,
            "Your test accepts every one of the nine wrong implementations. A perfect copy scores 1 by nearly any "
            "formula. Work out one example by hand in which something is wrong with the reconstruction.",
            recognise=lambda answer, args, output: (
                output.accepted and not output.right and all(accepts(answer, i) for i in WRONG)
            ),
        ),
        *(_missed(i.name) for i in WRONG),
    ),
    properties=(
        Property("A right implementation must be accepted.", _accepts_the_right),
        Property("A wrong implementation must be rejected.", _rejects_the_wrong),
    ),
    look_at="`f(x, x_hat, keep)` takes two float tensors [tokens, d] and a bool tensor [tokens], and gives a number.",
    saw="a test that knows right from wrong. It was not run on one implementation, but on thirteen: that is how one "
    "tests a test.",
)


def table(**tests) -> pd.DataFrame:
    """Which test sees which implementation for what it is: "passes" or "caught", a row for each.

    Args:
        tests: functions that take an implementation and raise where they find it wrong, by name.
    """
    rows = {}
    for i in ALL:
        called = i.name if i.right else f"it {i.says}".replace("`", "")
        rows[called] = {"it is": "right" if i.right else "wrong"}
        rows[called] |= {name: "passes" if accepts(test, i) else "caught" for name, test in tests.items()}
    return pd.DataFrame(rows).T


def caught_by(test) -> int:
    """How many of the wrong implementations a test finds wrong."""
    return sum(not accepts(test, i) for i in WRONG)


EXERCISES = (TESTING,)
