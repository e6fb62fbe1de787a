"""Exercise 6.1: from a cell that reads the notebook to a function that says what it cannot take."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from labs.checks.compare import agree, plain
from labs.checks.errors import one_line
from labs.checks.exercise import Exercise, Property, Wrong, normal, whole
from labs.checks.grading import borrowed
from labs.checks.lab06 import measured

acts = normal(torch.Generator().manual_seed(0), 12, 3) + 4  # what a cell would leave in a notebook
recon = 0.9 * acts


@dataclass
class Tried:
    """The number for good input, and what came of each bad one: a value, or the exception."""

    value: float
    bad: dict[str, Any]

    described = "a number"


def draw_tokens(generator) -> dict:
    """Activations with a mean away from zero, their reconstruction, and padding with numbers of its own."""
    n, d = whole(generator, 8, 14), whole(generator, 2, 6)
    x = normal(generator, n, d) * (1 + torch.arange(d)) + torch.linspace(3, 6, d)
    keep = torch.rand(n, generator=generator) < 0.7
    keep[:4] = torch.tensor([True, True, True, False])
    return {"x": x, "x_hat": x + 0.6 * normal(generator, n, d), "keep": keep}


def bad_inputs(x: Tensor, x_hat: Tensor, keep: Tensor) -> dict[str, tuple]:
    """Four calls that have no answer, and to which the cell gives one, or a nan."""
    broken = x_hat.clone()
    broken[keep.nonzero()[1, 0], 0] = math.nan
    return {
        "shapes": (x, x_hat[:1], keep),
        "whole numbers": (x, x_hat, keep.long()),
        "nothing": (x, x_hat, torch.zeros_like(keep)),
        "nan": (x, broken, keep),
    }


def try_it(answer: Callable, args: dict):
    value = plain(answer(*args.values()))
    if not isinstance(value, int | float):
        return value
    bad = {}
    for name, given in bad_inputs(*(tensor.clone() for tensor in args.values())).items():
        try:
            bad[name] = plain(answer(*given))
        except Exception as error:
            bad[name] = error
    return Tried(float(value), bad)


def explained_variance(x: Tensor, x_hat: Tensor, keep: Tensor) -> float:
    return _guarded(x, x_hat, keep)


def _guarded(
    x, x_hat, keep, formula=measured.explained_variance, error=ValueError, without=(), words=True
) -> float:
    """The right function, with other sums or with a guard missing."""
    faults = {
        "shapes": (
            x.shape != x_hat.shape,
            f"x has shape {list(x.shape)} and x_hat {list(x_hat.shape)}: they must be the same."
            if words
            else "bad",
        ),
        "whole numbers": (
            keep.dtype != torch.bool or keep.shape != x.shape[:1],
            f"keep must be {len(x)} truth values, got {keep.dtype} of shape {list(keep.shape)}.",
        ),
    }
    for name, (found, message) in faults.items():
        if found and name not in without:
            raise error(message)
    if "nothing" not in without and not keep.bool().any():
        raise error("keep picks no token at all: there is nothing to explain.")
    if "nan" not in without and not (x.isfinite().all() and x_hat.isfinite().all()):
        raise error("x or x_hat holds nan or infinity.")
    if "whole numbers" in without and keep.dtype != torch.bool:
        return formula(x[keep], x_hat[keep], torch.ones(len(keep), dtype=torch.bool))
    if "nothing" in without and not keep.any():
        return math.nan
    return formula(x, x_hat.expand_as(x), keep)


def _from_the_notebook(x, x_hat, keep):
    return 1 - float(((acts - recon) ** 2).sum() / ((acts - acts.mean(0)) ** 2).sum())


def _nan_instead(x, x_hat, keep):
    try:
        return _guarded(x, x_hat, keep)
    except ValueError:
        return math.nan


def _with(**changes) -> Callable:
    return lambda x, x_hat, keep: _guarded(x, x_hat, keep, **changes)


def _gives(formula: Callable) -> Callable:
    """Recognise a number that comes from another formula."""

    def gives(answer, args, output: Tried) -> bool:
        mistaken = formula(*args.values())
        return agree(output.value, mistaken) and not agree(
            mistaken, measured.explained_variance(*args.values())
        )

    return gives


def _answers(name: str) -> Callable:
    """Recognise that bad input was answered."""
    return lambda answer, args, output: not isinstance(output.bad[name], Exception)


def _raised(output: Tried) -> list[Exception]:
    return [found for found in output.bad.values() if isinstance(found, Exception)]


def _own_words(answer, args, output: Tried) -> bool:
    shape = output.bad["shapes"]
    return isinstance(shape, ValueError) and not _says_both(shape, args)


def _says_both(error: Exception, args: dict) -> bool:
    """Whether an error about shapes names what it found in both."""
    x, x_hat, _ = bad_inputs(*args.values())["shapes"]
    return str(list(x.shape))[1:-1] in str(error) and str(list(x_hat.shape))[1:-1] in str(error)


def _right_number(answer, args, output: Tried) -> str | None:
    right = measured.explained_variance(*args.values())
    return (
        None
        if agree(output.value, right)
        else f"Yours gives {output.value:.4g}; the right value is {right:.4g}."
    )


def _refuses(answer, args, output: Tried) -> str | None:
    for name, found in output.bad.items():
        if not isinstance(found, Exception):
            return f"With {NAMES[name]} yours returned {found!r}."
        if not isinstance(found, ValueError):
            return f"With {NAMES[name]} yours raised {one_line(found)}."
    return None


NAMES = {
    "shapes": "an `x_hat` of another shape",
    "whole numbers": "a `keep` of whole numbers",
    "nothing": "a `keep` that keeps nothing",
    "nan": "a nan in `x_hat`",
}

CELL = Exercise(
    number="6.1",
    name="explained_variance",
    returns="float",
    draw=draw_tokens,
    reference=explained_variance,
    run=try_it,
    unique=False,
    wrong=(
        Wrong(
            "reads the notebook",
            _from_the_notebook,
            "Your function reads data that nobody gave it: it takes them from the notebook. It works today, in this "
            "notebook, with the cells run in this order. Use the names in its `def` line.",
            recognise=lambda answer, args, output: bool(borrowed(answer)),
        ),
        Wrong(
            "around zero",
            _with(formula=measured._around_zero),
            "Your variance is measured around zero. Then predicting the mean scores well above 0. Subtract the mean "
            "of the kept tokens, one for each dimension.",
            recognise=_gives(measured._around_zero),
        ),
        Wrong(
            "padding kept",
            _with(formula=measured._padding_kept),
            "You never use `keep`: padding and BOS are in your sums.",
            recognise=_gives(measured._padding_kept),
        ),
        Wrong(
            "mean with padding",
            _with(formula=measured._mean_with_padding),
            "Padding is out of your sums, but still in the mean. Cut both down to the kept tokens first: `x[keep]`.",
            recognise=_gives(measured._mean_with_padding),
        ),
        Wrong(
            "one mean",
            _with(formula=measured._one_mean),
            "You took one mean over all numbers. Each dimension has its own: `.mean(0)`.",
            recognise=_gives(measured._one_mean),
        ),
        Wrong(
            "nan instead of an error",
            _nan_instead,
            "On bad input yours returns nan, None or another stand-in. It will be averaged with the rest, and found "
            "in a figure three days later. Raise `ValueError` where the trouble begins.",
            recognise=lambda answer, args, output: (
                not isinstance(output.bad["shapes"], Exception)
                and (output.bad["shapes"] is None or math.isnan(output.bad["shapes"]))
            ),
        ),
        Wrong(
            "assert",
            _with(error=AssertionError),
            "You check with `assert`. `python -O` leaves all of those out, and callers cannot tell your complaint "
            "from a bug of yours. `assert` is for tests; here: `raise ValueError(...)`.",
            recognise=lambda answer, args, output: any(
                isinstance(e, AssertionError) for e in _raised(output)
            ),
        ),
        Wrong(
            "Exception",
            _with(error=Exception),
            "You raise a plain `Exception`. Whoever wants to catch it must catch every other mistake with it. A value "
            "that does not do is a `ValueError`.",
            recognise=lambda answer, args, output: any(type(e) is Exception for e in _raised(output)),
        ),
        Wrong(
            "the library's words",
            _with(error=IndexError),
            "Some bad input ends in PyTorch's own error (an IndexError or a RuntimeError), which speaks of masks and "
            "sizes and not of `x` and `x_hat`. Compare the shapes before you compute, and raise `ValueError`.",
            recognise=lambda answer, args, output: any(
                isinstance(e, IndexError | RuntimeError) for e in _raised(output)
            ),
        ),
        Wrong(
            "shapes not compared",
            _with(without=("shapes",)),
            "An `x_hat` with one row goes through: PyTorch spreads it over all rows (broadcasting), and you get a "
            "number that means nothing. Compare `x.shape` with `x_hat.shape`.",
            recognise=_answers("shapes"),
        ),
        Wrong(
            "a mask of whole numbers",
            _with(without=("whole numbers",)),
            "A `keep` of zeros and ones goes through. With whole numbers `x[keep]` does not mask: it takes row 0 and "
            "row 1 again and again. Ask for `keep.dtype == torch.bool`.",
            recognise=_answers("whole numbers"),
        ),
        Wrong(
            "nothing kept",
            _with(without=("nothing",)),
            "Where `keep` keeps nothing, yours divides zero by zero and returns nan. Say so instead: `if not "
            "keep.any()`.",
            recognise=_answers("nothing"),
        ),
        Wrong(
            "nan goes through",
            _with(without=("nan",)),
            "A nan in `x_hat` goes in, and a nan comes out. One broken token spoils the whole run, and nobody knows "
            "which. Look before you compute: `x.isfinite().all()`, and the same for `x_hat`.",
            recognise=_answers("nan"),
        ),
        Wrong(
            "says nothing",
            _with(words=False),
            "Your error for different shapes does not name both of them. What was expected, what was found: "
            '`f"x has shape {list(x.shape)}, x_hat {list(x_hat.shape)}"`.',
            recognise=_own_words,
        ),
    ),
    properties=(
        Property("On good input the number must be right.", _right_number),
        Property("Bad input must be refused with a ValueError.", _refuses),
    ),
    look_at="the shapes: `x` and `x_hat` are [tokens, d], `keep` is [tokens] and holds truth values.",
    saw="the same arithmetic as in the cell, and a function that others can call: it reads what it is given, and "
    "says what it cannot take.",
)

EXERCISES = (CELL,)
