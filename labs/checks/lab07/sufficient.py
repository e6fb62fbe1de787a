"""Exercise 7.6: what a set of latents does alone, and what is left without it."""

from __future__ import annotations

from collections.abc import Callable

import torch

from labs.checks.exercise import Exercise, Wrong, whole
from labs.checks.lab07.kept import Kept, some_latents


def draw_set(generator) -> dict:
    """Latents of a stand-in, and some of them."""
    latents = some_latents(generator, whole(generator, 7, 12))
    measure = Kept(latents, generator)
    case = generator.initial_seed() % 4
    if case == 0:  # more than the whole model does
        chosen = [j for j in latents if measure.weights.get(j, 1) > 0]
    elif case == 1:  # less than nothing
        chosen = [j for j in latents if measure.weights.get(j, 0) < 0]
    else:
        chosen = [latents[i] for i in torch.randperm(len(latents), generator=generator)[: len(latents) // 2]]
    return {"measure": measure, "latents": sorted(latents), "chosen": sorted(chosen)}


def shares(measure: Callable, latents: list[int], chosen: list[int]) -> dict[str, float]:
    nothing, everything, alone, rest = _runs(measure, latents, chosen)
    reach = everything - nothing
    return _named((alone - nothing) / reach, (rest - nothing) / reach)


def _runs(measure: Callable, latents: list[int], chosen: list[int]) -> tuple[float, float, float, float]:
    """With none, all, the chosen, and the rest of the latents."""
    rest = [j for j in latents if j not in chosen]
    return measure([]), measure(latents), measure(chosen), measure(rest)


def _named(faithfulness: float, completeness: float) -> dict[str, float]:
    return {"faithfulness": faithfulness, "completeness": completeness}


def _formula(formula: Callable) -> Callable:
    """An answer from a formula for both numbers, in the terms of `_runs`."""
    return lambda measure, latents, chosen: _named(*formula(*_runs(measure, latents, chosen)))


def _of_right(change: Callable) -> Callable:
    """An answer that spoils the right one."""

    def answer(measure, latents, chosen):
        found = shares(measure, latents, chosen)
        return _named(*change(found["faithfulness"], found["completeness"]))

    return answer


def _one_at_a_time(measure, latents, chosen) -> dict[str, float]:
    nothing, everything = measure([]), measure(latents)
    gains = {j: (measure([j]) - nothing) / (everything - nothing) for j in latents}
    return _named(sum(gains[j] for j in chosen), sum(gains[j] for j in latents if j not in chosen))


SHARES = Exercise(
    number="7.6",
    name="shares",
    returns="dict[str, float]",
    draw=draw_set,
    reference=shares,
    wrong=(
        Wrong(
            "nothing not taken off",
            _formula(lambda none, all_, alone, rest: (alone / all_, rest / all_)),
            "You divide by what all latents reach, and do not take off what *no* latent reaches. That part "
            "is the SAE's error: no set of latents has earned it. Subtract `measure([])`, above and below "
            "the line.",
        ),
        Wrong(
            "taken off above only",
            _formula(lambda none, all_, alone, rest: ((alone - none) / all_, (rest - none) / all_)),
            "You take `measure([])` off above the line, not below it. All latents together then do not come "
            "to 1.",
        ),
        Wrong(
            "not divided",
            _formula(lambda none, all_, alone, rest: (alone - none, rest - none)),
            "You return logits, not shares. Divide by what all latents do together: `measure(latents) - "
            "measure([])`.",
        ),
        Wrong(
            "one minus the other",
            _of_right(lambda alone, rest: (alone, 1 - alone)),
            "Your completeness is 1 minus the faithfulness. Latents that say the same thing twice do not "
            "add up like that: a set can do everything, and the rest can do everything, too. Run the rest: "
            "`measure([j for j in latents if j not in chosen])`.",
        ),
        Wrong(
            "upside down",
            _of_right(lambda alone, rest: (alone, 1 - rest)),
            "Your completeness is 1 minus what the rest does. It is a fair number, and not the one of the "
            "paper: there it is what is *left* without the set, and a low one is good. Return it as it is.",
        ),
        Wrong(
            "names changed",
            _of_right(lambda alone, rest: (rest, alone)),
            "The two are interchanged. Faithfulness: only the chosen are kept. Completeness: all but the "
            "chosen are.",
        ),
        Wrong(
            "cut off at 0 and 1",
            _of_right(lambda alone, rest: (min(max(alone, 0), 1), min(max(rest, 0), 1))),
            "You cut the shares off at 0 and 1. A share above 1 is no accident to be tidied up: it says "
            "that you left out latents that speak *against* the answer. Show it.",
        ),
        Wrong(
            "without a sign",
            _of_right(lambda alone, rest: (abs(alone), abs(rest))),
            "You drop the sign. A negative share says that the set speaks against the answer: the opposite "
            "of help.",
        ),
        Wrong(
            "from all to none",
            _of_right(lambda alone, rest: (-alone, -rest)),
            "Both signs are the wrong way round. The way goes from none to all: divide by `measure(latents) - "
            "measure([])`, in this order.",
        ),
        Wrong(
            "in percent",
            _of_right(lambda alone, rest: (100 * alone, 100 * rest)),
            "These are percentages. Give shares: 1 for what all latents do.",
        ),
        Wrong(
            "rounded",
            _of_right(lambda alone, rest: (round(alone, 2), round(rest, 2))),
            "You rounded. Return the numbers as they are; rounding is for the table.",
        ),
        Wrong(
            "one at a time",
            _one_at_a_time,
            "You kept each latent alone and added up. Latents that say the same are then counted twice, and two that "
            "work only together not at all. Keep the whole set in *one* run: `measure(chosen)`.",
        ),
        Wrong(
            "between the rest and all",
            _formula(
                lambda none, all_, alone, rest: (
                    (alone - rest) / (all_ - rest),
                    (rest - none) / (all_ - none),
                )
            ),
            "Your faithfulness starts at what the *rest* does. 0 is the run with no latent kept: "
            "`measure([])`.",
        ),
    ),
    look_at="four runs: `measure([])`, `measure(latents)`, `measure(chosen)`, and one with the other "
    "latents.",
    saw="two numbers that belong together. The first says what the set can do, the second whether others "
    "can do it, too.",
    cases=8,
)

EXERCISES = (SHARES,)
