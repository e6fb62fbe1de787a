"""Exercise 6.3: a property that holds for every batch, and encoders in which it does not."""

from __future__ import annotations

from collections.abc import Callable

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from labs.checks.exercise import Exercise, Property, Wrong, whole
from labs.checks.lab06.judging import Implementation, Judged, accepts, judge, misses

D_SAE = 6


def weights(d_in: int) -> Tensor:
    """[d_in, D_SAE] an encoder, always the same for a width."""
    return torch.randn(d_in, D_SAE, generator=torch.Generator().manual_seed(d_in))


def relu(x: Tensor) -> Tensor:
    return torch.relu(x @ weights(x.shape[1]))


def _topk(x):
    z = relu(x)
    least = z.topk(2, dim=1).values[:, -1:]
    return torch.where(z >= least, z, 0.0)


def _rounded(x):
    """Rounds a little differently in a larger batch, as matrix products do."""
    return relu(x) * (1 + 3e-6 * (len(x) % 3))


def _centred(x):
    return relu(x - x.mean(0))


def fast_topk(x: Tensor) -> Tensor:
    """Two latents a row on average: one threshold for all rows saves a sort of each."""
    z = relu(x)
    least = z.flatten().topk(2 * len(x)).values[-1]
    return torch.where(z >= least, z, 0.0)


def _scaled(x):
    return relu(x / (1 + x.abs().max()))


def _leaks(x):
    return relu(x + 0.25 * torch.cat([torch.zeros(1, x.shape[1]), x[:-1]]))


def _in_fours(x):
    full = len(x) // 4 * 4
    return torch.cat([relu(x[:full]), relu(x[full:]) if not full else 0.5 * relu(x[full:])])


def _sorted(x):
    return relu(x[x[:, 0].argsort(descending=True)])


RELU = Implementation("relu", relu, True)
RIGHT = (RELU, Implementation("topk", _topk, True), Implementation("rounded", _rounded, True))
BROKEN = (
    Implementation("centred", _centred, False, "subtracts the mean of the batch"),
    Implementation("one threshold", fast_topk, False, "takes one threshold for the whole batch"),
    Implementation("scaled", _scaled, False, "divides by the largest number of the batch"),
    Implementation("leaks", _leaks, False, "lets each row leak into the next"),
    Implementation("sorted", _sorted, False, "gives the rows back in another order"),
    Implementation("in fours", _in_fours, False, "takes four rows at a time and spoils the rest"),
)
ALL = (*RIGHT, *BROKEN)


def draw_encoder(generator) -> dict:
    """One encoder after the other, of several widths."""
    case = generator.initial_seed() % len(ALL)
    return {"encode": ALL[case], "d_in": 2 + case % 4 if case < 4 else whole(generator, 2, 5)}


def try_it(answer: Callable, args: dict):
    return judge(answer, *args.values())


def _batches(d_in: int, least: int, most: int):
    """Batches from a seed and a length: quicker than number by number, but they do not shrink as far."""

    def batch(n: int, seed: int) -> Tensor:
        return torch.randn(n, d_in, generator=torch.Generator().manual_seed(seed))

    return st.builds(batch, st.integers(least, most), st.integers(0, 10_000))


def test_rows(encode: Callable, d_in: int) -> None:
    _property(encode, d_in)


def _property(encode, d_in, least=1, most=9, rows=slice(None), gap=1e-3, alone=True, scale=1.0) -> None:
    @given(_batches(d_in, least, most))
    def independent(x):
        x = x * scale
        together = encode(x)
        for i in range(len(x))[rows]:
            found = encode(x[i : i + 1])[0] if alone else encode(x)[i]
            assert (found - together[i]).abs().max() <= gap

    independent()


def _never_run(encode, d_in) -> None:
    @given(_batches(d_in, 2, 9))
    def independent(x):
        assert torch.allclose(encode(x)[:1], encode(x[:1]), atol=1e-4)


def _one_example(encode, d_in) -> None:
    x = torch.randn(9, d_in, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(encode(x), torch.cat([encode(row[None]) for row in x]), atol=1e-4)


def _returns(encode, d_in) -> bool:
    try:
        _property(encode, d_in)
    except AssertionError:
        return False
    return True


def _rows_given(output: Judged) -> set[int]:
    return {len(args[0]) for args in output.given}


def _one_batch(answer, args, output: Judged) -> bool:
    """Whether a test that lets a right encoder pass has tried but a few batches of several rows (or of any)."""
    batches = {str(x.tolist()) for x, *_ in output.given if len(x) > 1}
    few = len(batches) < 10 if batches else len(output.given) < 10
    return output.right and output.accepted and few


def _accepts_all(answer, args, output: Judged) -> bool:
    if not output.accepted or output.right:
        return False
    return all(accepts(answer, i, args["d_in"]) for i in BROKEN)


HINTS = {
    "centred": "Compare the code of a row in the batch with its code alone, `encode(x[i : i + 1])`.",
    "one threshold": "Compare with the row *alone*: its neighbours decided whether its latents are on.",
    "scaled": "Compare with the row alone, and with a tolerance well below the size of the codes.",
    "leaks": "The first row has none before it. Compare every row, not only the first.",
    "sorted": "Compare row i with row i. The right codes at the wrong tokens are wrong.",
    "in fours": "It is right up to four rows. Let batches be longer: small examples are fine, *only* small ones "
    "are not.",
}


def _missed(name: str) -> Wrong:
    return misses(test_rows, next(i for i in BROKEN if i.name == name), RELU, HINTS[name])


def _accepts_the_right(answer, args, output: Judged) -> str | None:
    return None if output.accepted or not output.right else f'Yours fails for the one called "{output.name}".'


def _rejects_the_broken(answer, args, output: Judged) -> str | None:
    return (
        f'Yours passes for the one called "{output.name}".' if output.accepted and not output.right else None
    )


ROWS = Exercise(
    number="6.3",
    name="test_rows",
    returns="None",
    draw=draw_encoder,
    reference=test_rows,
    run=try_it,
    unique=False,
    cases=len(ALL),
    wrong=(
        Wrong(
            "returns a verdict",
            _returns,
            "Your check returns something. A property that does not hold is said by an exception: let the "
            "`assert` inside it go through, and return nothing.",
            recognise=lambda answer, args, output: output.returned,
        ),
        Wrong(
            "never run",
            _never_run,
            "Your property is defined and never called, so `encode` never ran. `@given` makes a function without "
            "arguments: call it, `independent()`, at the end.",
            recognise=lambda answer, args, output: not output.given,
        ),
        Wrong(
            "one example",
            _one_example,
            "Your check looks at one batch, or a few. It happens to find these bugs, but an example is no property: "
            "let Hypothesis choose the batch, `@given(batches)`.",
            recognise=_one_batch,
        ),
        Wrong(
            "batches of one row",
            lambda encode, d_in: _property(encode, d_in, 1, 1),
            "All your batches have one row. A row alone cannot depend on others: let there be several.",
            recognise=lambda answer, args, output: output.accepted and _rows_given(output) == {1},
        ),
        Wrong(
            "with itself",
            lambda encode, d_in: _property(encode, d_in, alone=False),
            "Your property holds for every encoder that was broken on purpose. What does it compare? A batch with "
            "itself comes out equal in any encoder. The row has to be encoded *alone*, too.",
            recognise=_accepts_all,
        ),
        Wrong(
            "exact equality",
            lambda encode, d_in: _property(encode, d_in, gap=0.0),
            "Your property fails for a right encoder that rounds a little differently in a larger batch, as matrix "
            "products do. Compare with a tolerance: `torch.allclose(a, b, atol=1e-4)`.",
            recognise=lambda answer, args, output: (
                output.name == "rounded" and not output.accepted and accepts(answer, RELU, args["d_in"])
            ),
        ),
        Wrong(
            "any float at all",
            lambda encode, d_in: _property(encode, d_in, scale=torch.inf),
            "Your property fails for right encoders, on batches with nan, infinity or 1e38 in them. Hypothesis tries "
            "those first, and with them nothing can be compared. Say which numbers you mean: "
            "`elements=st.floats(-4, 4, width=32)`.",
            recognise=lambda answer, args, output: (
                output.right and not output.accepted and not bool((output.given[-1][0].abs() < 1e6).all())
            ),
        ),
        Wrong(
            "first row only",
            lambda encode, d_in: _property(encode, d_in, 2, 9, slice(0, 1)),
            "You compare the first row only. What comes from the row before never reaches it. Compare all rows.",
            recognise=lambda answer, args, output: (
                output.name == "leaks"
                and output.accepted
                and not accepts(answer, BROKEN[0], args["d_in"])
                and len(_rows_given(output)) > 1
                and _never_past_the_first(output)
            ),
        ),
        *(_missed(i.name) for i in BROKEN),
    ),
    properties=(
        Property("The property holds for every right encoder.", _accepts_the_right),
        Property(
            "The property must fail for every encoder in which rows depend on each other.",
            _rejects_the_broken,
        ),
    ),
    look_at="`arrays(np.float32, shape, elements=st.floats(-4, 4, width=32))`, where shape is "
    "`st.tuples(st.integers(1, 9), st.just(d_in))`; inside, `torch.from_numpy(batch)`.",
    saw="a sentence about *all* batches, and a machine that looks for one that breaks it. It shrinks what it finds: "
    "see below.",
)


def _never_past_the_first(output: Judged) -> bool:
    """Whether every row that was encoded alone was the first of the batch before it."""
    first = None
    for x, *_ in output.given:
        if len(x) > 1:
            first = x[0]
        elif first is not None and not torch.equal(x[0], first):
            return False
    return True


EXERCISES = (ROWS,)
