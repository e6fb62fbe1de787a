"""Exercise 7.7: a smallest set by greedy removal, and random sets of its size."""

from __future__ import annotations

from collections.abc import Callable

import torch

from labs.checks.compare import agree
from labs.checks.exercise import Exercise, Property, Wrong, whole
from labs.checks.lab02.random_state import moves_global_state
from labs.checks.lab07.kept import Kept, some_latents


def draw_search(generator) -> dict:
    """Latents of a stand-in to search through, and how faithful the set has to be."""
    latents = some_latents(generator, whole(generator, 7, 10))
    measure = Kept(latents, generator)
    return {
        "measure": measure,
        "latents": sorted(latents),
        "goal": (0.9, 0.75, 0.6)[generator.initial_seed() % 3],
        "n_random": whole(generator, 4, 6),
        "seed": whole(generator, 0, 99),
    }


def smallest(
    measure: Callable, latents: list[int], goal: float, n_random: int, seed: int
) -> tuple[list[int], list[list[int]]]:
    return _smallest(measure, latents, goal, n_random, seed)


def _share_of(measure: Callable, latents: list[int]) -> Callable:
    nothing, everything = measure([]), measure(latents)
    return lambda kept: (measure(kept) - nothing) / (everything - nothing)


def _without(kept: list[int], j: int) -> list[int]:
    return [i for i in kept if i != j]


def _removal(share: Callable, latents: list[int], goal: float, best=max, too_far: bool = False) -> list[int]:
    kept = list(latents)
    while kept:
        fewer = best((_without(kept, j) for j in kept), key=share)
        if share(fewer) < goal:
            return fewer if too_far else kept
        kept = fewer
    return kept


def _ranked_once(share: Callable, latents: list[int], goal: float) -> list[int]:
    """Drops in the order of what each costs alone, until the goal is missed."""
    kept = list(latents)
    for j in sorted(latents, key=lambda j: -share(_without(latents, j))):
        if share(_without(kept, j)) < goal:
            break
        kept = _without(kept, j)
    return kept


def _alone(share: Callable, latents: list[int], goal: float) -> list[int]:
    """Drops those that do least when they are the only one kept."""
    kept = sorted(latents, key=lambda j: -share([j]))
    while kept and share(kept[:-1]) >= goal:
        kept = kept[:-1]
    return kept


def _as_they_come(share: Callable, latents: list[int], goal: float) -> list[int]:
    kept = list(latents)
    for j in latents:
        if share(_without(kept, j)) >= goal:
            kept = _without(kept, j)
    return kept


def _built_up(share: Callable, latents: list[int], goal: float) -> list[int]:
    kept: list[int] = []
    while share(kept) < goal:
        kept.append(max((j for j in latents if j not in kept), key=lambda j: share([*kept, j])))
    return kept


def _fresh(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _draws(
    latents: list[int], kept: list[int], n: int, seed: int, dice: Callable = _fresh
) -> list[list[int]]:
    dice = dice(seed)
    return [[latents[i] for i in torch.randperm(len(latents), generator=dice)[: len(kept)]] for _ in range(n)]


def _smallest(
    measure, latents, goal, n_random, seed, share=_share_of, search=_removal, draws=_draws
) -> tuple[list[int], list[list[int]]]:
    """The right answer, with a part done differently."""
    kept = search(share(measure, latents), latents, goal)
    return kept, draws(latents, kept, n_random, seed)


def _with(**changes) -> Callable:
    return lambda *args: _smallest(*args, **changes)


def _raw(measure: Callable, latents: list[int]) -> Callable:
    everything = measure(latents)
    return lambda kept: measure(kept) / everything


def _dropping(best=max, too_far: bool = False) -> Callable:
    return lambda share, latents, goal: _removal(share, latents, goal, best, too_far)


def _chooses(**changes) -> Callable:
    """Recognise a mistaken search: on every input the set is the one that it finds."""

    def found(answer, args, output) -> bool:
        if args["latents"] != SMALLEST.inputs(0)["latents"]:
            return False  # once is enough
        told_apart = False
        for case in range(SMALLEST.cases):
            inputs = SMALLEST.inputs(case).values()
            kept, mistaken = set(answer(*inputs)[0]), set(_smallest(*inputs, **changes)[0])
            if kept != mistaken:
                return False
            told_apart |= mistaken != set(smallest(*inputs)[0])
        return told_apart

    return found


def _random_sets(test: Callable) -> Callable:
    """Recognise something about the random sets, where the set itself is right and not all latents."""

    def found(answer, args, output) -> bool:
        kept, sets = output
        return set(kept) == set(smallest(*args.values())[0]) and bool(test(args, kept, sets))

    return found


def _with_repeats(latents, kept, n, seed) -> list[list[int]]:
    rows = torch.randint(len(latents), (n, len(kept)), generator=_fresh(seed)).tolist()
    return [[latents[i] for i in row] for row in rows]


def _right_set(answer, args, output) -> str | None:
    right = smallest(*args.values())[0]
    if set(map(int, output[0])) == set(right) and len(output[0]) == len(right):
        return None
    share = _share_of(args["measure"], args["latents"])
    return (
        f"Yours keeps {len(output[0])} latents, with a faithfulness of {share(output[0]):.3g}; the search keeps "
        f"{len(right)}, with {share(right):.3g}."
    )


def _right_controls(answer, args, output) -> str | None:
    kept, sets = output
    sizes = {len(set(s)) for s in sets}
    if sizes != {len(kept)}:
        return f"The set has {len(kept)} members; yours have {sorted(sizes)}."
    return None if all(j in args["latents"] for s in sets for j in s) else "Yours have others in them."


SMALLEST = Exercise(
    number="7.7",
    name="smallest",
    returns="tuple[list[int], list[list[int]]]",
    draw=draw_search,
    reference=smallest,
    unique=False,
    wrong=(
        Wrong(
            "ranked once",
            _with(search=_ranked_once),
            "You ranked the latents once, by what each costs *alone*, and dropped them in that order. Of "
            "two that say the same each alone costs nothing, so both go, and with them the answer. After "
            "each removal measure all others again.",
            recognise=_chooses(search=_ranked_once),
        ),
        Wrong(
            "ranked by what each does alone",
            _with(search=_alone),
            "You ranked the latents by what each does when it is the *only* one kept, and dropped them from the end. "
            "Two that work only together do nothing alone. Ask what is lost *without* a latent, and after each removal "
            "ask again.",
            recognise=_chooses(search=_alone),
        ),
        Wrong(
            "as they come",
            _with(search=_as_they_come),
            "You drop each latent that can go as it comes. The set then depends on how the latents are "
            "numbered. Try all of them, and drop the one that is missed least.",
            recognise=_chooses(search=_as_they_come),
        ),
        Wrong(
            "built up",
            _with(search=_built_up),
            "You start with nothing and add the latent that helps most. Two that only work together do "
            "nothing when added one by one, so such a search misses them or takes others instead. Start "
            "with all, and remove.",
            recognise=_chooses(search=_built_up),
        ),
        Wrong(
            "the most important first",
            _with(search=_dropping(min)),
            "You drop the latent that is missed *most*. Keep that one: drop the one whose removal leaves "
            "the most.",
            recognise=_chooses(search=_dropping(min)),
        ),
        Wrong(
            "one too far",
            _with(search=_dropping(too_far=True)),
            "Your set is one removal too far: it misses the goal. Look whether the goal still holds "
            "*before* you let the latent go.",
            recognise=_chooses(search=_dropping(too_far=True)),
        ),
        Wrong(
            "nothing not taken off",
            _with(share=_raw),
            "You hold the goal against `measure(kept) / measure(latents)`. What no latent reaches is in "
            "both, so the goal is met too easily. Take `measure([])` off, above and below the line.",
            recognise=_chooses(share=_raw),
        ),
        Wrong(
            "the goal in logits",
            _with(share=lambda measure, latents: measure),
            "You hold `goal` against a logit difference. It is a faithfulness: the share of the way from `measure([])` "
            "to `measure(latents)`.",
            recognise=_chooses(share=lambda measure, latents: measure),
        ),
        Wrong(
            "the global seed",
            _with(
                draws=lambda latents, kept, n, seed: _draws(
                    latents, kept, n, seed, lambda s: torch.manual_seed(s)
                )
            ),
            "You seed, or draw from, PyTorch's global generator. Whoever draws after you gets other "
            "numbers. `torch.Generator().manual_seed(seed)`, handed to `torch.randperm` as `generator=`.",
            recognise=lambda answer, args, output: moves_global_state(lambda: answer(*args.values())),
        ),
        Wrong(
            "not seeded",
            _with(
                draws=lambda latents, kept, n, seed: _draws(
                    latents, kept, n, int(torch.randint(0, 2**31, (), generator=_FRESH))
                )
            ),
            "The same seed gives other random sets each time. Make a generator inside the function, from "
            "`seed`.",
            recognise=lambda answer, args, output: not agree(answer(*args.values()), answer(*args.values())),
        ),
        Wrong(
            "the set itself",
            _with(draws=lambda latents, kept, n, seed: _draws(kept, kept, n, seed)),
            "Your random sets are the set itself, in another order: they were drawn from it. Draw them from "
            "all of `latents`.",
            recognise=_random_sets(lambda args, kept, sets: all(set(s) == set(kept) for s in sets)),
        ),
        Wrong(
            "places in the list",
            _with(draws=lambda latents, kept, n, seed: _draws(list(range(len(latents))), kept, n, seed)),
            "Your random sets hold *places* in the list, not the latents that stand there: `latents[i]`.",
            recognise=_random_sets(
                lambda args, kept, sets: {j for s in sets for j in s} <= set(range(len(args["latents"])))
            ),
        ),
        Wrong(
            "another size",
            _with(
                draws=lambda latents, kept, n, seed: [
                    s[: 1 + i % len(latents)] for i, s in enumerate(_draws(latents, latents, n, seed))
                ]
            ),
            "Your random sets are of another size than the set. A larger set does more, whatever is in it. "
            "Draw as many latents as the set has.",
            recognise=_random_sets(lambda args, kept, sets: any(len(s) != len(kept) for s in sets)),
        ),
        Wrong(
            "drawn twice",
            _with(draws=_with_repeats),
            "Some latents stand twice in a random set: drawn with putting back, it is smaller than it "
            "looks. `torch.randperm(len(latents))` names each once; take the first ones.",
            recognise=_random_sets(lambda args, kept, sets: any(len(set(s)) < len(s) for s in sets)),
        ),
        Wrong(
            "one draw",
            _with(draws=lambda latents, kept, n, seed: _draws(latents, kept, 1, seed) * n),
            "All your random sets are the same one. Do you make the generator anew for each? Make it once, "
            "before the loop. One draw can be lucky, or unlucky.",
            recognise=_random_sets(
                lambda args, kept, sets: (
                    len({frozenset(s) for s in sets}) == 1 and len(kept) < len(args["latents"]) - 1
                )
            ),
        ),
    ),
    properties=(
        Property("As long as the goal holds, the latent that is missed least goes.", _right_set),
        Property(
            "Each random set has as many different latents as the set, all from `latents`.", _right_controls
        ),
    ),
    look_at="`max((kept without j, for each j in kept), key=share)`, where share(kept) is the faithfulness "
    "of exercise 7.6.",
    saw="a set from which nothing can be spared, beside sets of its size. It is *a* smallest set: another "
    "search may end with another one.",
    cases=8,
)

_FRESH = torch.Generator().manual_seed(0)  # never the same twice, and not PyTorch's own

EXERCISES = (SMALLEST,)
