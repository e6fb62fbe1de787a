"""Exercise 4.7: the training loop, a few steps of which are compared weight by weight."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from labs.checks.compare import agree, plain
from labs.checks.exercise import Exercise, Property, Wrong, normal, whole
from labs.checks.lab04.small_sae import decoded, draw_params, encoded, learning


class Factors:
    """A schedule: (factor of the learning rate, factor of l1) for every step."""

    def __init__(self, n_steps: int):
        self.n_steps = n_steps

    def __call__(self, step: int) -> tuple[float, float]:
        if not 0 <= step < self.n_steps:
            raise ValueError(f"steps count from 0 to {self.n_steps - 1}, got {step}")
        return min(1.0, (step + 1) / 3, (self.n_steps - step) / 2), min(1.0, step / 3)


def _loss(params: dict, x: Tensor, l1_factor: float) -> Tensor:
    z = encoded(params, x)
    error = (decoded(params, z) - x).pow(2).sum(1).mean()
    return error + 0.4 * l1_factor * (z * params["W_dec"].norm(dim=1)).sum(1).mean()


def draw_run(generator) -> dict:
    """A few batches of unequal size, an SAE with unit decoder rows, a loss and a schedule that starts and ends low."""
    d_in, d_sae, n_steps = whole(generator, 4, 7), whole(generator, 12, 18), whole(generator, 6, 8)
    return {
        "params": draw_params(generator, d_in, d_sae, unit=True),
        "batches": [normal(generator, whole(generator, 10, 16), d_in) for _ in range(n_steps)],
        "loss_of": _loss,
        "lr": 0.02 + 0.03 * float(torch.rand((), generator=generator)),
        "factors": Factors(n_steps),
    }


def train(params: dict, batches: list[Tensor], loss_of: Callable, lr: float, factors: Callable):
    return _trained(params, batches, loss_of, lr, factors)


def _trained(
    params,
    batches,
    loss_of,
    lr,
    factors,
    *,
    zero_grad=True,
    project=True,
    renormalise="after",
    optimiser=torch.optim.Adam,
    fresh_optimiser=False,
    compound=False,
):
    """Training, with each of the usual slips to be had by a switch."""
    params, losses = learning(params), []
    adam = optimiser(params.values(), lr=lr)
    for step, x in enumerate(batches):
        if fresh_optimiser:
            adam = optimiser(params.values(), lr=lr)
        lr_factor, l1_factor = factors(step)
        for group in adam.param_groups:
            group["lr"] = (group["lr"] if compound else lr) * lr_factor
        loss = loss_of(params, x, l1_factor)
        if zero_grad:
            adam.zero_grad()
        loss.backward()
        rows = params["W_dec"]
        if project:
            rows.grad -= (rows.grad * rows.detach()).sum(1, keepdim=True) * rows.detach()
        if renormalise == "before":
            rows.data = normalize(rows.data, dim=1)
        adam.step()
        if renormalise == "after":
            rows.data = normalize(rows.data, dim=1)
        losses.append(loss.item())
    return {name: tensor.detach() for name, tensor in params.items()}, losses


#: The slips that people combine, by name: the switches of `_trained`, and what becomes of the schedule.
SLIPS = {
    "gradients pile up": {"zero_grad": False},
    "parallel gradient left in": {"project": False},
    "rows not scaled back": {"renormalise": "never"},
    "scaled back too early": {"renormalise": "before"},
    "learning rate fixed": lambda both: (1.0, both[1]),
    "l1 factor fixed": lambda both: (both[0], 1.0),
    "plain gradient descent": {"optimiser": torch.optim.SGD},
}
_found: dict[tuple, frozenset[str]] = {}


def _with_slips(names: tuple[str, ...], params, batches, loss_of, lr, factors):
    """Training with several slips at once."""
    switches: dict = {}
    turned = []
    for name in names:
        slip = SLIPS[name]
        turned.append(slip) if callable(slip) else switches.update(slip)

    def other_factors(step: int) -> tuple[float, float]:
        both = factors(step)
        for turn in turned:
            both = turn(both)
        return both

    return _trained(params, batches, loss_of, lr, other_factors, **switches)


def _slips_in(args: dict, output) -> frozenset[str]:
    """The smallest set of slips that explains an answer; empty if none does, or none is needed."""
    key = (args["lr"], float(output[0]["W_enc"].sum()), float(output[0]["W_dec"].sum()))
    if key not in _found:
        _found[key] = frozenset()
        for names in (names for n in range(4) for names in itertools.combinations(SLIPS, n)):
            if agree(output[0], plain(_with_slips(names, *args.values())[0])):
                _found[key] = frozenset(names)
                break
    return _found[key]


def _slip(name: str) -> Callable:
    return lambda answer, args, output: name in _slips_in(args, output)


def _left_behind(params, batches, loss_of, lr, factors):
    """The decoder is replaced in the dict by another tensor, which the optimiser does not know."""
    params, losses = learning(params), []
    adam = torch.optim.Adam(params.values(), lr=lr)
    for step, x in enumerate(batches):
        lr_factor, l1_factor = factors(step)
        adam.param_groups[0]["lr"] = lr * lr_factor
        loss = loss_of(params, x, l1_factor)
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            params["W_dec"] = normalize(params["W_dec"], dim=1)
        losses.append(loss.item())
    return {name: tensor.detach() for name, tensor in params.items()}, losses


def _decoder_stands_still(answer, args, output) -> bool:
    """Whether the decoder moves in the first step and then no more."""
    first = answer(*(args | {"batches": args["batches"][:1]}).values())[0]["W_dec"]
    return agree(plain(first), output[0]["W_dec"]) and not torch.equal(
        output[0]["W_dec"], args["params"]["W_dec"]
    )


def _rows_are_one_long(answer, args, output) -> str | None:
    lengths = output[0]["W_dec"].norm(dim=1)
    worst = int((lengths - 1).abs().argmax())
    return (
        None
        if abs(lengths[worst] - 1) < 1e-3
        else f"Row {worst} of yours is {float(lengths[worst]):.4g} long."
    )


def _untouched(answer, args, output) -> bool:
    return all(torch.equal(output[0][name], tensor) for name, tensor in args["params"].items())


TRAIN = Exercise(
    number="4.7",
    name="train",
    returns="tuple[dict[str, Tensor], list[float]]",
    draw=draw_run,
    reference=train,
    wrong=(
        Wrong(
            "nothing learned",
            lambda params, batches, loss_of, lr, factors: (
                dict(params),
                _trained(params, batches, loss_of, lr, factors)[1],
            ),
            "The parameters you return are those you were given. Do you return the old dict? Does the optimiser "
            "have the very tensors that the loss is computed from? Or are the gradients set to zero between "
            "`backward()` and `step()`?",
            recognise=_untouched,
        ),
        Wrong(
            "another tensor",
            _left_behind,
            'Your decoder moves in the first step and then no more. With `params["W_dec"] = ...` you '
            "put a *new* tensor into the dict, and the optimiser goes on with the old one. Change the "
            "tensor in place: `rows /= ...`.",
            recognise=_decoder_stands_still,
        ),
        Wrong(
            "neither",
            lambda *args: _trained(*args, project=False, renormalise="never"),
            "Nothing holds your decoder rows at length one, neither before the step (the parallel "
            "gradient) nor after it (the scaling back). The L1 penalty is then cheated, or the rows run "
            "away.",
        ),
        Wrong(
            "schedule ignored",
            lambda params, batches, loss_of, lr, factors: _trained(
                params, batches, loss_of, lr, lambda step: (1.0, 1.0)
            ),
            "You never asked `factors(step)`: neither the learning rate nor the penalty is warmed up.",
        ),
        Wrong(
            "learning rate compounds",
            lambda *args: _trained(*args, compound=True),
            "You multiply the learning rate that is already there, so the factors pile up and the run "
            "comes to a stop. It is the *base* rate that is multiplied: `lr * lr_factor`.",
        ),
        Wrong(
            "the factors swapped",
            lambda params, batches, loss_of, lr, factors: _trained(
                params, batches, loss_of, lr, lambda step: factors(step)[::-1]
            ),
            "You swapped the two factors. The first is for the learning rate, the second for l1.",
        ),
        Wrong(
            "optimiser made anew",
            lambda *args: _trained(*args, fresh_optimiser=True),
            "You make a new optimiser at every step, and with it Adam forgets its averages. Make it once, "
            "before the loop.",
        ),
        Wrong(
            "AdamW",
            lambda *args: _trained(*args, optimiser=torch.optim.AdamW),
            "You used AdamW, which also shrinks every weight a little at each step. An SAE has its own "
            "penalty: plain `torch.optim.Adam`.",
        ),
        Wrong(
            "always the first batch",
            lambda params, batches, loss_of, lr, factors: _trained(
                params, [batches[0]] * len(batches), loss_of, lr, factors
            ),
            "Every step of yours uses the first batch. Go through them: `for step, x in enumerate(batches)`.",
        ),
        Wrong(
            "plain gradient descent",
            lambda *args: _trained(*args, optimiser=torch.optim.SGD),
            "You used plain gradient descent. Adam is asked for: the gradients of rare latents are tiny, "
            "and only relative to their own size do they amount to anything.",
            recognise=_slip("plain gradient descent"),
        ),
        Wrong(
            "gradients pile up",
            lambda *args: _trained(*args, zero_grad=False),
            "You never set the gradients back to zero. `backward()` *adds* to what is in `.grad`, so each "
            "step goes along the sum of all gradients so far. Call `optimiser.zero_grad()` before every "
            "`backward()`.",
            recognise=_slip("gradients pile up"),
        ),
        Wrong(
            "parallel gradient left in",
            lambda *args: _trained(*args, project=False),
            "You left the gradient along the decoder rows in. The renormalisation undoes its effect on "
            "the row, but Adam divides by the size of all it remembers, so the rest of the step shrinks. "
            "Take it out of `.grad` between `backward()` and `step()`.",
            recognise=_slip("parallel gradient left in"),
        ),
        Wrong(
            "rows not scaled back",
            lambda *args: _trained(*args, renormalise="never"),
            "Your decoder rows no longer have length 1. After every step divide each by its length, "
            "without gradient.",
            recognise=_slip("rows not scaled back"),
        ),
        Wrong(
            "scaled back too early",
            lambda *args: _trained(*args, renormalise="before"),
            "You scale the rows back *before* the step, so after the last one their length is not 1. The "
            "order is: backward, take the parallel gradient out, step, scale back.",
            recognise=_slip("scaled back too early"),
        ),
        Wrong(
            "learning rate fixed",
            lambda params, batches, loss_of, lr, factors: _trained(
                params, batches, loss_of, lr, lambda step: (1.0, factors(step)[1])
            ),
            "Your learning rate never changes. Before each step set it: `group['lr'] = lr * lr_factor` "
            "for every group in `optimiser.param_groups`.",
            recognise=_slip("learning rate fixed"),
        ),
        Wrong(
            "l1 factor fixed",
            lambda params, batches, loss_of, lr, factors: _trained(
                params, batches, loss_of, lr, lambda step: (factors(step)[0], 1.0)
            ),
            "The penalty is at full strength from the first step on. Hand the second factor of the "
            "schedule to `loss_of(params, x, l1_factor)`.",
            recognise=_slip("l1 factor fixed"),
        ),
    ),
    properties=(Property("At the end every decoder row must have length 1.", _rows_are_one_long),),
    look_at="the order of a step: factors, loss, `zero_grad()`, `backward()`, the parallel gradient out, "
    "`step()`, scale back. Weights are changed in place under `torch.no_grad()`.",
    saw="a training loop in fifteen lines. What frameworks add is bookkeeping: streaming, checkpoints, a "
    "log.",
)

EXERCISES = (TRAIN,)
