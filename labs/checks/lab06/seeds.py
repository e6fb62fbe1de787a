"""Exercise 6.6: random, and the same whatever the order, the batch size and the company."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

from labs.checks.exercise import Exercise, Property, Wrong, whole
from labs.checks.lab02.random_state import moves_global_state
from labs.checks.lab06.inside import uses

WORDS = ("Paris", "Rome", "is", "red", "the", "month", "not", "code", "noun", "verb", "said", "very")


def draw_names(generator) -> dict:
    """Some names in any order."""
    order = torch.randperm(len(WORDS), generator=generator).tolist()
    names = [WORDS[i] for i in order[: whole(generator, 5, 10)]]
    return {
        "names": names,
        "width": whole(generator, 3, 9),
        "seed": whole(generator, 0, 50),
        "batch_size": whole(generator, 2, 3),
    }


def controls(names: list[str], width: int, seed: int, batch_size: int) -> Tensor:
    return _batched(
        names, batch_size, lambda batch: torch.stack([_own(f"{seed}/{name}", width) for name in batch])
    )


def _batched(names: list[str], batch_size: int, make: Callable[[list[str]], Tensor]) -> Tensor:
    return torch.cat([make(names[i : i + batch_size]) for i in range(0, len(names), batch_size)])


def _unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x, dim=-1)


def _generator(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def _own(text: str, width: int) -> Tensor:
    """A unit vector that belongs to a text."""
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
    return _unit(torch.randn(width, generator=_generator(number)))


def _from_one_generator(names, width, seed, batch_size):
    source = _generator(seed)
    return _unit(torch.randn(len(names), width, generator=source))


def _seeded_by_batch(names, width, seed, batch_size):
    return _batched(
        names, batch_size, lambda batch: _unit(torch.randn(len(batch), width, generator=_generator(seed)))
    )


def _in_order_of_names(names, width, seed, batch_size):
    drawn = dict(zip(sorted(names), _from_one_generator(names, width, seed, batch_size), strict=True))
    return torch.stack([drawn[name] for name in names])


def _by_hash(names, width, seed, batch_size):
    return torch.stack(
        [_unit(torch.randn(width, generator=_generator(abs(hash((seed, n))) % 2**31))) for n in names]
    )


def _same_for_all(names, width, seed, batch_size):
    return torch.stack([_unit(torch.randn(width, generator=_generator(seed))) for _ in names])


def _unseeded(names, width, seed, batch_size):
    return _unit(torch.randn(len(names), width))


def _globally_seeded(names, width, seed, batch_size):
    torch.manual_seed(seed)
    return _unit(torch.randn(len(names), width))


def _letters_added(names, width, seed, batch_size):
    return torch.stack([_own(f"{seed}/{sum(map(ord, name))}", width) for name in names])


def _seed_forgotten(names, width, seed, batch_size):
    return torch.stack([_own(name, width) for name in names])


def _run_together(names, width, seed, batch_size):
    return torch.stack([_own(f"{seed}{name}", width) for name in names])


def _not_unit(names, width, seed, batch_size):
    return 2.0 * controls(names, width, seed, batch_size)


def _again(answer: Callable, args: dict, **changes) -> Tensor:
    return answer(*(args | changes).values())


def _differ(a: Tensor, b: Tensor) -> bool:
    return not torch.allclose(a, b, atol=1e-6)


def _at_luck(answer, args, output) -> bool:
    return _differ(_again(answer, args), _again(answer, args))


def _global_state(answer, args, output) -> bool:
    return moves_global_state(lambda: _again(answer, args))


def _all_equal(answer, args, output) -> bool:
    return not _differ(output, output[:1].expand_as(output))


def _seed_does_nothing(answer, args, output) -> bool:
    return not _differ(output, _again(answer, args, seed=args["seed"] + 1))


def _batch_matters(answer, args, output) -> bool:
    return any(_differ(output, _again(answer, args, batch_size=n)) for n in (1, len(args["names"])))


def _order_matters(answer, args, output) -> bool:
    return _differ(output, _again(answer, args, names=args["names"][::-1]).flip(0))


def _company_matters(answer, args, output) -> bool:
    return _differ(output[1::2], _again(answer, args, names=args["names"][1::2]))


def _letters_only(answer, args, output) -> bool:
    a, b = _again(answer, args, names=["stone", "notes"])
    return not _differ(a, b)


def _collides(answer, args, output) -> bool:
    pairs = (((1, "2a"), (12, "a")), ((2, "a1"), (12, "a")))
    return any(
        not _differ(*(_again(answer, args, names=[name], seed=seed) for seed, name in pair)) for pair in pairs
    )


def _length(answer, args, output) -> str | None:
    lengths = output.norm(dim=1)
    worst = int((lengths - 1).abs().argmax())
    return (
        None
        if abs(lengths[worst] - 1) < 1e-4
        else f"Row {worst} of yours is {float(lengths[worst]):.4g} long."
    )


def _fault(test: Callable, says: str) -> Callable:
    return lambda answer, args, output: says if test(answer, args, output) else None


SEEDS = Exercise(
    number="6.6",
    name="controls",
    returns='Float[Tensor, "names width"]',
    draw=draw_names,
    reference=controls,
    unique=False,
    wrong=(
        Wrong(
            "hash()",
            _by_hash,
            "You seed with Python's `hash`. For texts it is another number in every process, so tomorrow's controls "
            "are others. `hashlib.sha256` gives the same bytes everywhere.",
            recognise=lambda answer, args, output: uses(answer, "hash"),
        ),
        Wrong(
            "no seed",
            _unseeded,
            "Two calls with the same arguments give different vectors: your numbers come from a generator that "
            "nobody has seeded. Make one with `torch.Generator().manual_seed(...)`.",
            recognise=_at_luck,
        ),
        Wrong(
            "the global seed",
            _globally_seeded,
            "You seed PyTorch's *global* generator. Whoever draws a random number after your call gets another one "
            "than before. Give each name a generator of its own.",
            recognise=_global_state,
        ),
        Wrong(
            "the same for all",
            _same_for_all,
            "Every name has got the same vector: you make a generator with the same seed for each. The name has to "
            "come into the seed.",
            recognise=_all_equal,
        ),
        Wrong(
            "the seed forgotten",
            _seed_forgotten,
            "`seed` changes nothing. One control could be a lucky one; with another seed you want others.",
            recognise=_seed_does_nothing,
        ),
        Wrong(
            "depends on the batch size",
            _seeded_by_batch,
            "With another `batch_size` yours gives other vectors. The size of a batch is a matter of memory, not of "
            "the experiment. What a name gets must not depend on where its batch begins.",
            recognise=_batch_matters,
        ),
        Wrong(
            "depends on who else is there",
            _in_order_of_names,
            "The order of the names does not matter in yours, but the others do: leave some out, and those that "
            "remain get other vectors. Seed each name by itself.",
            recognise=lambda answer, args, output: (
                _company_matters(answer, args, output) and not _order_matters(answer, args, output)
            ),
        ),
        Wrong(
            "depends on the order",
            _from_one_generator,
            "Turn the list round, and every name has another vector: yours belongs to the *place* in the list, not "
            "to the name. Make a generator for each name, seeded with the seed and the name.",
            recognise=_order_matters,
        ),
        Wrong(
            "letters added up",
            _letters_added,
            "Names of the same letters, such as `stone` and `notes`, get the same vector. A sum forgets the order. "
            "`hashlib.sha256(text.encode()).digest()` does not.",
            recognise=_letters_only,
        ),
        Wrong(
            "seed and name run together",
            _run_together,
            "Seed 1 with the name `2a` and seed 12 with the name `a` give the same vector: written one after the "
            "other, they are the same text. Put something between them.",
            recognise=_collides,
        ),
        Wrong(
            "not of length one",
            _not_unit,
            "The vectors are not one long. A control has to have the length of what it is a control for, so it "
            "begins at 1: divide each row by its length.",
            recognise=lambda answer, args, output: _length(answer, args, output) is not None,
        ),
    ),
    properties=(
        Property("Equal arguments must give equal vectors.", _fault(_at_luck, "Yours differ.")),
        Property("The batch size must not matter.", _fault(_batch_matters, "In yours it does.")),
        Property("The order must not matter.", _fault(_order_matters, "In yours it does.")),
        Property("It must not matter which others there are.", _fault(_company_matters, "In yours it does.")),
        Property("Every vector must be one long.", _length),
    ),
    look_at="`hashlib.sha256(text.encode()).digest()` gives bytes, `int.from_bytes(some_bytes[:7], 'big')` a number, "
    "`torch.Generator().manual_seed(number)` a generator.",
    saw="numbers that are random and belong to a name. They can be made in any order, in any batch, on any machine.",
)

EXERCISES = (SEEDS,)
