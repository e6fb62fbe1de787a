"""Exercise 4.12: the straight-through estimator of a JumpReLU's threshold."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from labs.checks.compare import agree
from labs.checks.exercise import Exercise, Property, Wrong, normal, whole
from labs.checks.lab04.small_sae import unmoved


def draw_jump(generator) -> dict:
    """Pre-activations crowded around thresholds of unequal size, and what the loss says about every latent."""
    batch, d_sae = whole(generator, 30, 50), whole(generator, 5, 9)
    threshold = 0.5 + torch.rand(d_sae, generator=generator)
    return {
        "pre": threshold + 0.6 * normal(generator, batch, d_sae),
        "threshold": threshold,
        "grad_z": normal(generator, batch, d_sae) / batch,
        "l0_weight": 0.5 + float(torch.rand((), generator=generator)),
        "bandwidth": 0.3 + 0.3 * float(torch.rand((), generator=generator)),
    }


def jumprelu_step(pre, threshold, grad_z, l0_weight, bandwidth) -> dict[str, Tensor]:
    return _step(pre, threshold, grad_z, l0_weight, bandwidth)


def _window(pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    """The rectangle kernel: 1 within half a bandwidth of the threshold."""
    return ((pre - threshold).abs() < bandwidth / 2).float()


def _step(pre, threshold, grad_z, l0_weight, bandwidth, **changes) -> dict[str, Tensor]:
    """The right answer, with each of the usual slips to be had by a change."""
    window = changes.get("window", _window(pre, threshold, bandwidth)) / changes.get("over", bandwidth)
    from_z = grad_z * changes.get("height", threshold)
    from_l0 = changes.get("l0", l0_weight / len(pre))
    on = pre > threshold
    return {
        "z": pre * on,
        "grad_pre": grad_z * on,
        "grad_threshold": changes.get("sign", -1.0) * ((from_z + from_l0) * window).sum(0),
    }


def _averaged(pre, threshold, grad_z, l0_weight, bandwidth) -> Tensor:
    window = _window(pre, threshold, bandwidth) / bandwidth
    return -((grad_z * threshold + l0_weight) * window).mean(0)


def _penalty(pre: Tensor, threshold: Tensor, l0_weight: float) -> Tensor:
    """What the L0 penalty charges each latent, on the average token."""
    return l0_weight * (pre > threshold).float().mean(0)


def _finite_differences(answer, args, output) -> str | None:
    """With no other loss, one bandwidth across the threshold: the estimator is this difference, exactly."""
    pre, threshold = args["pre"], args["threshold"]
    half = args["bandwidth"] / 2
    above, below = (_penalty(pre, threshold + step, args["l0_weight"]) for step in (half, -half))
    wanted = (above - below) / args["bandwidth"]
    alone = answer(*(args | {"grad_z": torch.zeros_like(args["grad_z"])}).values())["grad_threshold"]
    worst = int((alone - wanted).abs().argmax())
    if torch.allclose(alone, wanted, rtol=1e-3, atol=1e-4):
        return None
    return f"For latent {worst} the difference is {float(wanted[worst]):.4g}, and yours {float(alone[worst]):.4g}."


#: Slips in the gradient of the threshold that people combine: name to the change of `_step`.
SLIPS = {
    "sign": lambda args: {"sign": 1.0},
    "bandwidth left out": lambda args: {"over": 1.0},
    "window twice as wide": lambda args: {
        "window": _window(args["pre"], args["threshold"], 2 * args["bandwidth"])
    },
    "jump height left out": lambda args: {"height": 1.0},
    "L0 summed over the batch": lambda args: {"l0": args["l0_weight"]},
}


def _slip(name: str) -> Callable:
    """Recognise a slip alone, or together with one or two others."""

    def recognise(answer, args, output) -> bool:
        found = output["grad_threshold"]
        for names in (names for n in range(4) for names in itertools.combinations(SLIPS, n)):
            changes = {key: value for one in names for key, value in SLIPS[one](args).items()}
            if agree(found, _step(*args.values(), **changes)["grad_threshold"]):
                return name in names
        return False

    return recognise


def _thresholds(output: dict) -> Tensor:
    return output["grad_threshold"]


JUMPRELU = Exercise(
    number="4.12",
    name="jumprelu_step",
    returns='dict with "z", "grad_pre" (Float[Tensor, "batch d_sae"]), "grad_threshold" (Float[Tensor, "d_sae"])',
    draw=draw_jump,
    reference=jumprelu_step,
    wrong=(
        Wrong(
            "no gradient",
            lambda *args: _step(*args) | {"grad_threshold": torch.zeros_like(args[1])},
            "Your threshold has no gradient: that is what autograd gives, too. A step is flat nearly "
            "everywhere. The estimator asks what lies *near* the step.",
        ),
        Wrong(
            "sign",
            lambda *args: _step(*args, sign=1.0),
            "`grad_threshold` has the wrong sign. Raising a threshold switches latents *off*: z falls, "
            "and so does L0. Both parts carry a minus.",
            recognise=_slip("sign"),
        ),
        Wrong(
            "bandwidth left out",
            lambda *args: _step(*args, over=1.0),
            "You did not divide by the bandwidth. The kernel has to have area 1, or a wider window would "
            "mean a larger gradient.",
            recognise=_slip("bandwidth left out"),
        ),
        Wrong(
            "window twice as wide",
            lambda pre, threshold, grad_z, l0_weight, bandwidth: _step(
                pre, threshold, grad_z, l0_weight, bandwidth, window=_window(pre, threshold, 2 * bandwidth)
            ),
            "Your window reaches a whole bandwidth to either side. The rectangle is one bandwidth wide in "
            "all: half of it to each side.",
            recognise=_slip("window twice as wide"),
        ),
        Wrong(
            "one-sided window",
            lambda pre, threshold, grad_z, l0_weight, bandwidth: _step(
                pre,
                threshold,
                grad_z,
                l0_weight,
                bandwidth,
                window=_window(pre, threshold, bandwidth) * (pre > threshold),
            ),
            "Your window holds only what is above the threshold. What is just below it would be switched "
            "on by a lower one: take both sides.",
        ),
        Wrong(
            "jump height left out",
            lambda *args: _step(*args, height=1.0),
            "In the part from `grad_z` you left out the threshold. z jumps from 0 to *threshold* there, "
            "and that height is what the loss feels. The count jumps by 1.",
            recognise=_slip("jump height left out"),
        ),
        Wrong(
            "pre as the height",
            lambda *args: _step(*args, height=args[0]),
            "Nearly: you took `pre` for the height of the jump. At the step itself it equals the "
            "threshold, and that is what the estimator uses (Rajamanoharan et al. 2024).",
        ),
        Wrong(
            "height on both",
            lambda *args: _step(*args, l0=args[3] / len(args[0]) * args[1]),
            "You multiplied the L0 part by the threshold as well. L0 jumps by 1, not by the threshold.",
        ),
        Wrong(
            "L0 summed over the batch",
            lambda *args: _step(*args, l0=args[3]),
            "Your L0 part is summed over the batch. The penalty is an average over the tokens: `l0_weight "
            "/ batch` for each. Only `grad_z` has its 1/batch already.",
            recognise=_slip("L0 summed over the batch"),
        ),
        Wrong(
            "mean over the batch",
            lambda *args: _step(*args) | {"grad_threshold": _averaged(*args)},
            "You took the mean over the batch. That is right for the L0 part, but `grad_z` has its "
            "1/batch already: sum, with `l0_weight / batch`.",
        ),
        Wrong(
            "estimator for the input, too",
            lambda *args: (
                _step(*args)
                | {
                    "grad_pre": args[2] * (args[0] > args[1])
                    + args[2] * args[1] * _window(args[0], args[1], args[4]) / args[4]
                }
            ),
            "You sent the estimator's gradient to `pre` as well, with the other sign. Some do that; the "
            "recipe here (Rajamanoharan et al. 2024) keeps it for the thresholds, and `grad_pre` is a "
            "plain ReLU's with the threshold in place of 0.",
        ),
        Wrong(
            "penalty for the input, too",
            lambda *args: (
                _step(*args) | {"grad_pre": (args[2] + args[3] / len(args[0])) * (args[0] > args[1])}
            ),
            "You sent the L0 penalty's gradient to `pre` as well. An active latent that gets a little stronger "
            "is still one active latent: the count does not change.",
        ),
        Wrong(
            "L0 forgotten",
            lambda *args: _step(*args, l0=0.0),
            "`grad_threshold` has only the part from `grad_z`. The L0 penalty depends on the threshold, "
            "too; without it nothing makes the SAE sparse.",
            recognise=unmoved(lambda args: {"l0_weight": 2 * args["l0_weight"]}, _thresholds),
        ),
        Wrong(
            "only L0",
            lambda *args: _step(*args, height=0.0),
            "`grad_z` plays no part in your `grad_threshold`, so the reconstruction has no say in it. By the "
            "chain rule, `grad_z` times the formula for z, summed over the batch.",
            recognise=unmoved(lambda args: {"grad_z": 2 * args["grad_z"]}, _thresholds),
        ),
        Wrong(
            "gradient at zero",
            lambda *args: _step(*args) | {"grad_pre": args[2] * (args[0] > 0)},
            "`grad_pre` passes wherever `pre` is positive, as for a ReLU. Between 0 and the threshold z "
            "is 0, and so is its gradient: the mask is `pre > threshold`.",
        ),
        Wrong(
            "plain ReLU",
            lambda *args: _step(*args) | {"z": args[0].relu()},
            "`z` is a plain ReLU. A JumpReLU is 0 up to the threshold, and `pre` above it.",
        ),
        Wrong(
            "threshold taken off",
            lambda *args: _step(*args) | {"z": (args[0] - args[1]).relu()},
            "You took the threshold off: then strong latents shrink, which is what a JumpReLU avoids. "
            "Above the threshold z is `pre` itself: it jumps.",
        ),
    ),
    properties=(
        Property(
            "For the L0 penalty alone the estimator must equal the change of the penalty from half a "
            "bandwidth below to half a bandwidth above, over the bandwidth.",
            _finite_differences,
        ),
    ),
    look_at="the shapes: `(pre - threshold)` is [batch, d_sae]; `grad_threshold` sums it over the batch, "
    "`.sum(0)`.",
    saw="a gradient where there is none: a count of what lies near the step. The bandwidth decides how "
    "near: too wide, and it is somebody else's gradient; too narrow, and hardly any token has a say.",
    cases=8,
)

EXERCISES = (JUMPRELU,)
