"""Exercises 4.4 and 4.5: a step that keeps the decoder at unit norm, and the schedules."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from labs.checks.compare import agree
from labs.checks.exercise import Exercise, Property, Wrong, normal, whole
from labs.checks.lab04.small_sae import sizes

# --- 4.4 ------------------------------------------------------------


def draw_step(generator) -> dict:
    """Decoder rows of length one and a gradient with a large part along them."""
    _, d_in, d_sae = sizes(generator)
    rows = normalize(normal(generator, d_sae, d_in), dim=1)
    return {
        "W_dec": rows,
        "grad": normal(generator, d_sae, d_in) + normal(generator, d_sae, 1) * 2 * rows,
        "lr": 0.1 + 0.3 * float(torch.rand((), generator=generator)),
    }


def unit_norm_step(W_dec: Tensor, grad: Tensor, lr: float) -> tuple[Tensor, Tensor]:
    return _stepped(W_dec, _across(W_dec, grad), lr)


def _across(W_dec: Tensor, grad: Tensor) -> Tensor:
    return grad - _along(W_dec, grad)


def _along(W_dec: Tensor, grad: Tensor) -> Tensor:
    return (grad * W_dec).sum(1, keepdim=True) * W_dec


def _stepped(W_dec: Tensor, grad: Tensor, lr: float) -> tuple[Tensor, Tensor]:
    return grad, normalize(W_dec - lr * grad, dim=1)


def _across_the_columns(W_dec: Tensor, grad: Tensor) -> Tensor:
    return grad - (grad * W_dec).sum(0, keepdim=True) * W_dec


def _gradient_is_across(answer, args, output) -> str | None:
    along = (output[0] * args["W_dec"]).sum(1).abs()
    worst = int(along.argmax())
    return (
        None
        if along[worst] < 1e-3
        else f"Row {worst} of yours has a part of {float(along[worst]):.3g} along it."
    )


def _rows_have_unit_norm(answer, args, output) -> str | None:
    lengths = output[1].norm(dim=1)
    worst = int((lengths - 1).abs().argmax())
    return (
        None
        if abs(lengths[worst] - 1) < 1e-3
        else f"Row {worst} of yours is {float(lengths[worst]):.4g} long."
    )


UNIT_NORM = Exercise(
    number="4.4",
    name="unit_norm_step",
    returns='tuple[Float[Tensor, "d_sae d_in"], Float[Tensor, "d_sae d_in"]]',
    draw=draw_step,
    reference=unit_norm_step,
    wrong=(
        Wrong(
            "only renormalised",
            lambda W_dec, grad, lr: _stepped(W_dec, grad, lr),
            "You scaled the rows back to length 1, and left the gradient as it was. The part along the "
            "row is undone by the scaling anyway, but it shortens or lengthens the row first, and so "
            "changes how far the rest of the gradient turns it; and Adam would remember it. Take it out "
            "before the step.",
        ),
        Wrong(
            "only projected",
            lambda W_dec, grad, lr: (_across(W_dec, grad), W_dec - lr * _across(W_dec, grad)),
            "You took the parallel part out of the gradient, and did not scale the rows back. A step "
            "along a tangent leaves the circle: each step makes every row a little longer. Divide by the "
            "new lengths.",
        ),
        Wrong(
            "the parallel part kept",
            lambda W_dec, grad, lr: _stepped(W_dec, _along(W_dec, grad), lr),
            "You kept the part *along* the row and threw the rest away. That part only changes the "
            "length; what turns the row is `grad` minus it.",
        ),
        Wrong(
            "parallel part added",
            lambda W_dec, grad, lr: _stepped(W_dec, grad + _along(W_dec, grad), lr),
            "You added the parallel part, so there is twice as much of it. Subtract it.",
        ),
        Wrong(
            "columns",
            lambda W_dec, grad, lr: _stepped(W_dec, _across_the_columns(W_dec, grad), lr),
            "Your dot products run down the columns. A latent's direction is a *row* of `W_dec`: multiply "
            "and sum over `dim=1`, with `keepdim=True`.",
        ),
        Wrong(
            "one number for all",
            lambda W_dec, grad, lr: _stepped(W_dec, grad - (grad * W_dec).sum() * W_dec, lr),
            "You took one dot product over the whole matrix. Every row has its own: sum over `dim=1` only.",
        ),
        Wrong(
            "dot product taken off",
            lambda W_dec, grad, lr: _stepped(W_dec, grad - (grad * W_dec).sum(1, keepdim=True), lr),
            "You subtracted the dot product itself, the same number from every entry of the row. The "
            "parallel part is a vector: the dot product times the row.",
        ),
        Wrong(
            "along all rows",
            lambda W_dec, grad, lr: _stepped(W_dec, grad - grad @ W_dec.T @ W_dec, lr),
            "From each gradient you took what lies along *every* row. `grad @ W_dec.T` has the dot products of "
            "all pairs; a latent's gradient meets only its own row: `(grad * W_dec).sum(1, keepdim=True)`.",
        ),
        Wrong(
            "gradient scaled to one",
            lambda W_dec, grad, lr: _stepped(W_dec, normalize(_across(W_dec, grad), dim=1), lr),
            "You scaled the *gradient* to length 1. Then a row that is nearly right moves as far as one that "
            "is quite wrong. Only the rows are scaled, after the step.",
        ),
        Wrong(
            "uphill",
            lambda W_dec, grad, lr: _stepped(W_dec, _across(W_dec, grad), -lr),
            "You stepped along the gradient, which is uphill. A loss goes down against it: `W_dec - lr * "
            "grad`.",
        ),
        Wrong(
            "columns renormalised",
            lambda W_dec, grad, lr: (
                _across(W_dec, grad),
                normalize(W_dec - lr * _across(W_dec, grad), dim=0),
            ),
            "You scaled the *columns* to length 1. A latent's direction is a row: `dim=1`.",
        ),
        Wrong(
            "stepped with the whole gradient",
            lambda W_dec, grad, lr: (_across(W_dec, grad), _stepped(W_dec, grad, lr)[1]),
            "The gradient you return is right, and you stepped with the other one. Step with what you "
            "return.",
        ),
        Wrong(
            "whole matrix to norm one",
            lambda W_dec, grad, lr: (
                _across(W_dec, grad),
                (W_dec - lr * _across(W_dec, grad)) / (W_dec - lr * _across(W_dec, grad)).norm(),
            ),
            "You divided by the norm of the whole matrix. Each row is to have length 1: `.norm(dim=1, "
            "keepdim=True)`.",
        ),
    ),
    properties=(
        Property("The gradient you return must have no part along any row.", _gradient_is_across),
        Property("After the step every row must have length 1.", _rows_have_unit_norm),
    ),
    look_at="the shapes: a dot product for each row is [d_sae, 1] with `keepdim=True`, and then fits "
    "beside a row.",
    saw="a step on the sphere. Length is taken out of the game, so that the L1 penalty cannot be cheated "
    "by long rows.",
)

# --- 4.5 ------------------------------------------------------------


def draw_schedule(generator) -> dict:
    """All kinds of moments: the first step, inside the warm-ups, between, inside the decay, the last step."""
    n_steps = whole(generator, 40, 90)
    warm, decay = whole(generator, 5, 12), whole(generator, 9, 15)
    moments = (
        0,
        whole(generator, 1, warm - 2),
        n_steps // 2,
        n_steps - whole(generator, 2, decay - 2),
        n_steps - 1,
    )
    return {
        "step": moments[whole(generator, 0, 4)],
        "n_steps": n_steps,
        "warm": warm,
        "decay": decay,
        "l1_warm": whole(generator, warm + 3, n_steps // 2 - 1),
    }


def schedule(step: int, n_steps: int, warm: int, decay: int, l1_warm: int) -> tuple[float, float]:
    return _lr(step, n_steps, warm, decay), min(1.0, step / l1_warm)


def _lr(step: int, n_steps: int, warm: int, decay: int) -> float:
    return min(1.0, (step + 1) / warm, (n_steps - step) / decay)


def _never_zero(answer, args, output) -> str | None:
    run = {name: args[name] for name in ("n_steps", "warm", "decay", "l1_warm")}
    idle = [step for step in range(args["n_steps"]) if answer(step, *run.values())[0] <= 0]
    return None if not idle else f"With yours step {idle[0]} of {args['n_steps']} moves nothing."


def _curve(answer: Callable, part: int) -> list[float]:
    """One of the two factors over a whole run."""
    return [float(answer(step, 40, 5, 9, 12)[part]) for step in range(40)]


def _drawn_like(mistake: Callable, part: int) -> Callable:
    """Recognise a mistake by one of the two curves: the other may have a mistake of its own."""
    return lambda answer, args, output: agree(_curve(answer, part), _curve(mistake, part))


SCHEDULE = Exercise(
    number="4.5",
    name="schedule",
    returns="tuple[float, float]",
    draw=draw_schedule,
    reference=schedule,
    wrong=(
        Wrong(
            "first step at zero",
            lambda step, n_steps, warm, decay, l1_warm: (
                min(1.0, step / warm, (n_steps - step) / decay),
                min(1.0, step / l1_warm),
            ),
            "Your learning rate is 0 at step 0, so the first batch is read for nothing. Steps count from "
            "0: the first one gets 1/warm.",
            recognise=_drawn_like(
                lambda step, n_steps, warm, decay, l1_warm: (
                    min(1.0, step / warm, (n_steps - step) / decay),
                    min(1.0, step / l1_warm),
                ),
                0,
            ),
        ),
        Wrong(
            "last step at zero",
            lambda step, n_steps, warm, decay, l1_warm: (
                min(1.0, (step + 1) / warm, (n_steps - 1 - step) / decay),
                min(1.0, step / l1_warm),
            ),
            "Your learning rate is 0 at the last step, `n_steps - 1`, so the last batch is read for "
            "nothing. It gets 1/decay.",
            recognise=_drawn_like(
                lambda step, n_steps, warm, decay, l1_warm: (
                    min(1.0, (step + 1) / warm, (n_steps - 1 - step) / decay),
                    min(1.0, step / l1_warm),
                ),
                0,
            ),
        ),
        Wrong(
            "no warm-up",
            lambda step, n_steps, warm, decay, l1_warm: (
                min(1.0, (n_steps - step) / decay),
                min(1.0, step / l1_warm),
            ),
            "Your learning rate has no warm-up. Adam's first steps are all of full size, whatever the "
            "gradient, and many latents die of them.",
            recognise=_drawn_like(
                lambda step, n_steps, warm, decay, l1_warm: (
                    min(1.0, (n_steps - step) / decay),
                    min(1.0, step / l1_warm),
                ),
                0,
            ),
        ),
        Wrong(
            "no decay",
            lambda step, n_steps, warm, decay, l1_warm: (
                min(1.0, (step + 1) / warm),
                min(1.0, step / l1_warm),
            ),
            "Your learning rate stays at 1 to the end. In the last `decay` steps it falls in a line, so "
            "that the weights can settle.",
            recognise=_drawn_like(
                lambda step, n_steps, warm, decay, l1_warm: (
                    min(1.0, (step + 1) / warm),
                    min(1.0, step / l1_warm),
                ),
                0,
            ),
        ),
        Wrong(
            "decays from the start",
            lambda step, n_steps, warm, decay, l1_warm: (
                min(1.0, (step + 1) / warm, (n_steps - step) / n_steps),
                min(1.0, step / l1_warm),
            ),
            "Your learning rate falls over the whole run. It stays at 1 until `decay` steps are left.",
            recognise=_drawn_like(
                lambda step, n_steps, warm, decay, l1_warm: (
                    min(1.0, (step + 1) / warm, (n_steps - step) / n_steps),
                    min(1.0, step / l1_warm),
                ),
                0,
            ),
        ),
        Wrong(
            "brackets left out",
            lambda step, n_steps, warm, decay, l1_warm: (
                min(1.0, step + 1 / warm, n_steps - step / decay),
                min(1.0, step / l1_warm),
            ),
            "`step + 1 / warm` is `step` plus a small number: division comes first. Put brackets around the "
            "sum, and around the difference.",
            recognise=_drawn_like(
                lambda step, n_steps, warm, decay, l1_warm: (
                    min(1.0, step + 1 / warm, n_steps - step / decay),
                    min(1.0, step / l1_warm),
                ),
                0,
            ),
        ),
        Wrong(
            "L1 as the learning rate",
            lambda step, n_steps, warm, decay, l1_warm: (_lr(step, n_steps, warm, decay),) * 2,
            "Both of your factors are the same. L1 has a warm-up of its own, `l1_warm`, and no decay: it "
            "stays at 1.",
        ),
        Wrong(
            "L1 decays too",
            lambda step, n_steps, warm, decay, l1_warm: (
                _lr(step, n_steps, warm, decay),
                min(1.0, step / l1_warm, (n_steps - step) / decay),
            ),
            "Your L1 factor falls at the end. Then latents come back to life just before you stop. L1 "
            "stays at 1.",
            recognise=_drawn_like(
                lambda step, n_steps, warm, decay, l1_warm: (
                    _lr(step, n_steps, warm, decay),
                    min(1.0, step / l1_warm, (n_steps - step) / decay),
                ),
                1,
            ),
        ),
        Wrong(
            "L1 starts above zero",
            lambda step, n_steps, warm, decay, l1_warm: (
                _lr(step, n_steps, warm, decay),
                min(1.0, (step + 1) / l1_warm),
            ),
            "Your L1 factor begins at 1/l1_warm. A first step without any penalty does no harm, so it "
            "begins at 0: step/l1_warm.",
            recognise=_drawn_like(
                lambda step, n_steps, warm, decay, l1_warm: (
                    _lr(step, n_steps, warm, decay),
                    min(1.0, (step + 1) / l1_warm),
                ),
                1,
            ),
        ),
        Wrong(
            "above one",
            lambda step, n_steps, warm, decay, l1_warm: (
                min((step + 1) / warm, (n_steps - step) / decay),
                step / l1_warm,
            ),
            "A factor of yours goes above 1. A warm-up stops at 1: take the smaller one, with `min(1.0, ...)`.",
            recognise=lambda answer, args, output: max(output) > 1 + 1e-6,
        ),
        Wrong(
            "the two multiplied",
            lambda step, n_steps, warm, decay, l1_warm: (
                _lr(step, n_steps, warm, decay) * min(1.0, step / l1_warm),
                min(1.0, step / l1_warm),
            ),
            "You multiplied the learning rate by the L1 factor. They are two knobs: the learning rate is "
            "warm long before the penalty is.",
        ),
        Wrong(
            "in the other order",
            lambda step, n_steps, warm, decay, l1_warm: schedule(step, n_steps, warm, decay, l1_warm)[::-1],
            "The two factors are in the other order: the learning rate's comes first.",
        ),
    ),
    properties=(
        Property("No step may have a learning rate of zero: its batch would be wasted.", _never_zero),
    ),
    look_at="the numbers by hand for a run of 10 steps: what must come out at step 0, and at step 9?",
    saw="a gentle start and a soft landing. The penalty comes later than the learning rate: first latents "
    "find something to say, then they learn to say it briefly.",
    cases=14,
)

EXERCISES = (UNIT_NORM, SCHEDULE)
