"""Exercise 7.9: integrated gradients, on functions that bend, from baselines that are not zero."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from labs.checks.exercise import Exercise, Property, Wrong, normal, whole


class Bent:
    """A function of many numbers that bends: a small random network. From [n, pos, d] to [n]."""

    described = "a function from [n, pos, d] to [n]"

    def __init__(self, pos: int, d: int, generator: torch.Generator):
        self.inside = normal(generator, pos * d, 6) / (pos * d) ** 0.5
        self.outside = 2 * normal(generator, 6)

    def __call__(self, points: Tensor) -> Tensor:
        if points.ndim != 3:
            raise ValueError(
                f"`run` takes points of shape [n, pos, d_sae], and was given {list(points.shape)}"
            )
        seen = points.flatten(1) @ self.inside
        return torch.tanh(seen + 0.5) @ self.outside + (seen[:, 0] * seen[:, 1]).sin()


def draw_path(generator) -> dict:
    """A bent function, a point and a baseline: some numbers are at their baseline already."""
    pos, d = whole(generator, 2, 5), whole(generator, 3, 7)
    run = Bent(pos, d, generator)
    baseline = 0.5 * normal(generator, pos, d)
    latents = 1.5 * normal(generator, pos, d).abs()
    still = torch.rand(pos, d, generator=generator) < 0.2
    latents = torch.where(still, baseline, latents)
    return {"run": run, "latents": latents, "baseline": baseline, "steps": whole(generator, 16, 24)}


def try_it(answer: Callable, args: dict):
    """As in the lab, where gradients are off until somebody switches them on."""
    with torch.no_grad():
        return answer(*args.values())


def integrated_gradients(run, latents: Tensor, baseline: Tensor, steps: int) -> Tensor:
    return (latents - baseline) * _mean_slope(run, latents, baseline, _middles(steps))


def _middles(steps: int) -> Tensor:
    return (torch.arange(steps) + 0.5) / steps


def _mean_slope(run, latents, baseline, where: Tensor) -> Tensor:
    return _slopes(run, baseline + where[:, None, None] * (latents - baseline)).mean(0)


def _slopes(run, points: Tensor) -> Tensor:
    with torch.enable_grad():
        points = points.detach().clone().requires_grad_()
        return torch.autograd.grad(run(points).sum(), points)[0]


def _at(where: Callable[[int], Tensor]) -> Callable:
    """The right answer, with the slopes taken at other places of the way."""
    return lambda run, latents, baseline, steps: (
        (latents - baseline) * _mean_slope(run, latents, baseline, where(steps))
    )


def _trapezoids(run, latents, baseline, steps) -> Tensor:
    at = torch.linspace(0, 1, steps + 1)[:, None, None]
    slopes = _slopes(run, baseline + at * (latents - baseline))
    return (latents - baseline) * (slopes[:-1] + slopes[1:]).mean(0) / 2


def _ignoring_the_baseline(run, latents, baseline, steps) -> Tensor:
    return integrated_gradients(run, latents, torch.zeros_like(latents), steps)


def _path_from_zero(run, latents, baseline, steps) -> Tensor:
    return (latents - baseline) * _mean_slope(run, latents, torch.zeros_like(latents), _middles(steps))


def _times_latents(run, latents, baseline, steps) -> Tensor:
    return latents * _mean_slope(run, latents, baseline, _middles(steps))


def _forced(run, latents, baseline, steps) -> Tensor:
    """One slope, scaled so that the sum comes out."""
    raw = (latents - baseline) * _slopes(run, latents[None])[0]
    ends = run(torch.stack([baseline, latents]))
    return raw * (ends[1] - ends[0]) / raw.sum()


def _each_alone(run, latents, baseline, steps) -> Tensor:
    """Every number walks by itself, while all others stay where they are."""
    n = latents.numel()
    moves = torch.eye(n).view(n, 1, *latents.shape) * (1 - _middles(steps)).view(1, -1, 1, 1)
    points = latents - moves * (latents - baseline)  # [n, steps, pos, d]
    slopes = _slopes(run, points.flatten(0, 1)).view(n, steps, n).mean(1)
    return (latents - baseline) * slopes.diagonal().view_as(latents)


def _switched_on(*args) -> Tensor:
    found = integrated_gradients(*args)
    torch.set_grad_enabled(True)
    return found


def _leaves_gradients_on(answer, args, output) -> bool:
    with torch.no_grad():
        answer(*args.values())
        return torch.is_grad_enabled()


def _complete(answer, args, output: Tensor) -> str | None:
    """With many steps the shares must add up to what the function gains on the way."""
    with torch.no_grad():
        found = answer(*(args | {"steps": 400}).values()).sum().item()
        start, end = args["run"](torch.stack([args["baseline"], args["latents"]])).tolist()
    if abs(found - (end - start)) < 5e-3 + 1e-3 * abs(end - start):
        return None
    return f"The function goes from {start:.3f} to {end:.3f}, and with 400 steps your shares add up to {found:.3f}."


def _nothing_moved(answer, args, output: Tensor) -> str | None:
    still = args["latents"] == args["baseline"]
    if not still.any() or output[still].abs().max() < 1e-6:
        return None
    return f"Yours gives one of them {output[still].abs().max():.3g}."


INTEGRATED = Exercise(
    number="7.9",
    name="integrated_gradients",
    returns='Float[Tensor, "pos d_sae"]',
    draw=draw_path,
    reference=integrated_gradients,
    run=try_it,
    wrong=(
        Wrong(
            "gradients left on",
            _switched_on,
            "After your function gradients are switched on for everybody, and every later cell keeps what it "
            "computes. `with torch.enable_grad():` switches them off again at its end.",
            recognise=_leaves_gradients_on,
        ),
        Wrong(
            "one slope",
            _at(lambda steps: torch.ones(1)),
            "You took one slope, at the latents as they are. That is gradient × activation again, exact for a "
            "straight line and for nothing else. Walk the whole way, and average the slopes on it.",
        ),
        Wrong(
            "the slope at the baseline",
            _at(lambda steps: torch.zeros(1)),
            "You took one slope, at the baseline. It says how the first step goes. Take slopes on the whole way to "
            "`latents`, and average them.",
        ),
        Wrong(
            "forced to add up",
            _forced,
            "Your shares add up because you scaled them until they did. They are in the same proportions as one "
            "slope would have them, and just as wrong. The sum must come out by itself: average over the way.",
        ),
        Wrong(
            "the baseline ignored",
            _ignoring_the_baseline,
            "You start from zero, whatever `baseline` says. Zero is one baseline among others. The way goes from "
            "`baseline` to `latents`.",
        ),
        Wrong(
            "a way from zero",
            _path_from_zero,
            "Your slopes are taken between zero and the latents, and then multiplied by the distance from the "
            "baseline. Both must belong to one way: points `baseline + a * (latents - baseline)`.",
        ),
        Wrong(
            "times the latents",
            _times_latents,
            "You multiply by the latents. What was travelled is `latents - baseline`: one that is at its baseline "
            "has moved nothing, and gets nothing.",
        ),
        Wrong(
            "slopes only",
            lambda run, latents, baseline, steps: _mean_slope(run, latents, baseline, _middles(steps)),
            "You return the mean slope, in logits per unit. A share is in logits: multiply it by `latents - "
            "baseline`.",
        ),
        Wrong(
            "summed, not averaged",
            lambda run, latents, baseline, steps: steps * integrated_gradients(run, latents, baseline, steps),
            "Your shares grow with the number of steps. Each slope stands for one piece of the way, a `steps`-th of "
            "it: average them.",
        ),
        Wrong(
            "left ends",
            _at(lambda steps: torch.arange(steps) / steps),
            "You take each slope where its piece begins: the baseline counts, and the latents as they are never do. "
            "Take the middle of each piece, `(k + 0.5) / steps`. The error shrinks with the square of the steps then.",
        ),
        Wrong(
            "right ends",
            _at(lambda steps: (torch.arange(steps) + 1) / steps),
            "You take each slope where its piece ends, as the paper's formula does. With few steps that misses more "
            "than need be. Take the middle of each piece, `(k + 0.5) / steps`.",
        ),
        Wrong(
            "both ends",
            _at(lambda steps: torch.linspace(0, 1, steps)),
            "`linspace(0, 1, steps)` has both ends in it, and a plain mean counts each of them as a whole piece. "
            "Take the middles: `(torch.arange(steps) + 0.5) / steps`.",
        ),
        Wrong(
            "both ends, and one more",
            _at(lambda steps: torch.linspace(0, 1, steps + 1)),
            "Your points are the ends of the pieces, one more than there are pieces, and a plain mean counts both ends "
            "of the way as a whole piece. Take the middles: `(torch.arange(steps) + 0.5) / steps`.",
        ),
        Wrong(
            "inner ends only",
            _at(lambda steps: torch.arange(1, steps) / steps),
            "You take slopes where two pieces meet, and none in the first and the last half piece. Take the middle of "
            "every piece: `(torch.arange(steps) + 0.5) / steps`.",
        ),
        Wrong(
            "half a piece early",
            _at(lambda steps: (torch.arange(steps) - 0.5) / steps),
            "Your first point lies half a piece *before* the baseline. `torch.arange` begins with 0, so the middles "
            "are `(torch.arange(steps) + 0.5) / steps`.",
        ),
        Wrong(
            "a piece too few",
            _at(lambda steps: (torch.arange(steps) + 0.5) / (steps - 1)),
            "You divide the way into one piece too few: your last point lies beyond `latents`. `(torch.arange(steps) "
            "+ 0.5) / steps`.",
        ),
        Wrong(
            "trapezoids",
            _trapezoids,
            "You average the slopes at both *ends* of each piece (the trapezoid rule). The sum comes out nearly as "
            "well. Asked for is the slope in the *middle* of each piece: a point less, and half the error.",
        ),
        Wrong(
            "sizes",
            lambda *args: integrated_gradients(*args).abs(),
            "You took the absolute value. Some latents pull the number down, and without their sign nothing adds up.",
        ),
        Wrong(
            "each by itself",
            _each_alone,
            "In yours each latent walks by itself, while the others stay. What two of them do together is then "
            "counted twice, or not at all, and the sum is off. All of them travel at once, on one straight way.",
        ),
        Wrong(
            "sign",
            lambda *args: -integrated_gradients(*args),
            "Your signs are the wrong way round: the shares add up to minus the difference. The way goes *from* the "
            "baseline: `latents - baseline`.",
        ),
    ),
    properties=(
        Property("The shares must add up to run(latents) - run(baseline).", _complete),
        Property("A latent that is at its baseline gets nothing.", _nothing_moved),
    ),
    look_at="`run` takes several points at once, [n, pos, d_sae], and gives a number for each. "
    "`torch.autograd.grad(run(points).sum(), points)` gives the slope at every one.",
    saw="shares that nobody forced to add up, and they do. Completeness says that nothing was lost on the way. It does "
    "not say that a share is what an ablation would show.",
)

EXERCISES = (INTEGRATED,)
