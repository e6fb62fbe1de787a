"""Exercises 4.9 and 4.11: TopK with its backward by hand, BatchTopK and its threshold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from operator import itemgetter

import torch
from torch import Tensor

from labs.checks.compare import agree, plain
from labs.checks.exercise import Exercise, Property, Wrong, normal, whole
from labs.checks.lab04.small_sae import draw_params, keep_top, seen_in

# --- 4.9 ------------------------------------------------------------


def draw_topk(generator) -> dict:
    """Pre-activations of which some rows have fewer than k positive ones, a decoder, and the tokens."""
    batch, d_in, d_sae = whole(generator, 9, 14), whole(generator, 4, 7), whole(generator, 16, 24)
    pre = normal(generator, batch, d_sae)
    pre[: batch // 3] -= 1.6  # few positive ones there
    pre[-1, 0] = -9.0  # large, and negative
    params = draw_params(generator, d_in, d_sae)
    return {
        "pre": pre,
        "x": normal(generator, batch, d_in),
        "W_dec": params["W_dec"],
        "b_dec": params["b_dec"],
        "k": whole(generator, 3, 5),
    }


def topk_step(pre, x, W_dec, b_dec, k) -> dict[str, Tensor]:
    z = keep_top(pre.relu(), k)
    return _backward(z, z > 0, x, W_dec, b_dec)


def _backward(
    z, passes, x, W_dec, b_dec, factor: float = 2.0, over: float | None = None
) -> dict[str, Tensor]:
    """Latents and gradients, if the gradient of z reaches `pre` wherever `passes`."""
    g = factor * (z @ W_dec + b_dec - x) / (len(x) if over is None else over)
    return {"z": z, "grad_W_dec": z.T @ g, "grad_b_dec": g.sum(0), "grad_pre": (g @ W_dec.T) * passes}


def _z_and(z: Tensor, pre, x, W_dec, b_dec, k, **changes) -> dict[str, Tensor]:
    return _backward(z, z > 0, x, W_dec, b_dec, **changes)


def _by_size(pre: Tensor, k: int) -> Tensor:
    where = pre.abs().topk(k, dim=-1).indices
    return torch.zeros_like(pre).scatter(-1, where, pre.relu().gather(-1, where))


def _without_relu(pre, x, W_dec, b_dec, k):
    kept = torch.zeros_like(pre).scatter(-1, pre.topk(k, dim=-1).indices, 1.0)
    return _backward(pre * kept, kept, x, W_dec, b_dec)


def _through_the_cut(pre, x, W_dec, b_dec, k):
    """The gradient goes to all k selected ones, also where the ReLU has cut them to zero."""
    kept = torch.zeros_like(pre).scatter(-1, pre.topk(k, dim=-1).indices, 1.0)
    return _backward(pre.relu() * kept, kept, x, W_dec, b_dec)


def by_autograd(pre, x, W_dec, b_dec, k) -> dict[str, Tensor]:
    """What autograd gives: the yardstick of this exercise."""
    with torch.enable_grad():
        pre, W_dec, b_dec = (t.detach().clone().requires_grad_() for t in (pre, W_dec, b_dec))
        z = keep_top(pre.relu(), k)
        (z @ W_dec + b_dec - x).pow(2).sum(1).mean().backward()
    return {"z": z.detach(), "grad_W_dec": W_dec.grad, "grad_b_dec": b_dec.grad, "grad_pre": pre.grad}


def _not_by_hand(answer, args, output) -> bool:
    """Whether the answer leans on autograd: it breaks, or differs, where no tensor may ask for gradients."""
    calls = []
    backward, grad = torch.autograd.backward, torch.autograd.grad

    def noted(function):
        return lambda *args, **kwargs: (calls.append(1), function(*args, **kwargs))[1]

    torch.autograd.backward, torch.autograd.grad = noted(backward), noted(grad)
    try:
        answer(*args.values())
    finally:
        torch.autograd.backward, torch.autograd.grad = backward, grad
    return bool(calls)


def _told_apart(wrongs: tuple[Wrong, ...]) -> tuple[Wrong, ...]:
    """Recognise each by the part where it shows first, so that two mistakes are told one after the other."""
    parts = {
        "z": ("no ReLU", "k over the batch", "k of each latent", "largest by size"),
        "grad_b_dec": (
            *("factor two", "neither two nor mean", "batch mean", "mean over everything", "sign"),
            *("decoder bias forgotten", "bias gradient averaged"),
        ),
        "grad_pre": (
            "gradient to everybody",
            "gradient to all positive ones",
            "gradient through the cut",
            "times z",
        ),
    }
    where = {name: part for part, names in parts.items() for name in names}
    return tuple(
        replace(wrong, recognise=seen_in(itemgetter(where[wrong.name]), wrong.answer, topk_step))
        if wrong.name in where
        else wrong
        for wrong in wrongs
    )


def _agrees_with_autograd(answer, args, output) -> str | None:
    right = by_autograd(**args)
    for name, wanted in right.items():
        gap = (output[name] - wanted).norm() / wanted.norm()
        if gap > 1e-3:
            return f"Your `{name}` is off by {float(gap):.1%} of its length."
    return None


TOPK = Exercise(
    number="4.9",
    name="topk_step",
    returns='dict with "z" and "grad_pre" (Float[Tensor, "batch d_sae"]), "grad_W_dec" (Float[Tensor, "d_sae d_in"]), '
    '"grad_b_dec" (Float[Tensor, "d_in"])',
    draw=draw_topk,
    reference=topk_step,
    wrong=_told_apart(
        (
            Wrong(
                "by autograd",
                by_autograd,
                "The numbers are autograd's own, and so they are right; but nothing was done by hand. Write "
                "the products: the point is to see which of them touch only k latents.",
                recognise=_not_by_hand,
            ),
            Wrong(
                "gradient to everybody",
                lambda pre, x, W_dec, b_dec, k: _backward(
                    keep_top(pre.relu(), k), torch.ones_like(pre), x, W_dec, b_dec
                ),
                "`grad_pre` is filled everywhere. A latent that was not chosen took no part in the "
                "reconstruction, so it has no gradient: multiply by `z > 0`.",
            ),
            Wrong(
                "gradient to all positive ones",
                lambda pre, x, W_dec, b_dec, k: _backward(keep_top(pre.relu(), k), pre > 0, x, W_dec, b_dec),
                "`grad_pre` reaches every latent with a positive pre-activation: that is the mask of a ReLU. "
                "Here only the k chosen ones took part.",
            ),
            Wrong(
                "gradient through the cut",
                _through_the_cut,
                "Where fewer than k pre-activations are positive, `topk` picks negative ones too. The ReLU "
                "has cut them to 0, and no gradient passes there: the mask is `z > 0`.",
            ),
            Wrong(
                "no ReLU",
                _without_relu,
                "There is no ReLU: where fewer than k pre-activations are positive, negative latents get in. "
                "Cut first, then choose.",
            ),
            Wrong(
                "times z",
                lambda pre, x, W_dec, b_dec, k: _backward(
                    keep_top(pre.relu(), k), keep_top(pre.relu(), k), x, W_dec, b_dec
                ),
                "You multiplied the gradient by z itself. Only *whether* a latent is on decides if the gradient "
                "passes: multiply by `z > 0`.",
            ),
            Wrong(
                "factor two",
                lambda pre, x, W_dec, b_dec, k: _z_and(
                    keep_top(pre.relu(), k), pre, x, W_dec, b_dec, k, factor=1.0
                ),
                "Your gradients are half as large as they should be. The derivative of a square is *twice* "
                "the difference.",
            ),
            Wrong(
                "neither two nor mean",
                lambda pre, x, W_dec, b_dec, k: _z_and(
                    keep_top(pre.relu(), k), pre, x, W_dec, b_dec, k, factor=1.0, over=1.0
                ),
                "Your `g` is only the difference, `x_hat - x`. The derivative of a square is *twice* the "
                "difference, and the loss is a *mean* over the batch: 2/n times it.",
            ),
            Wrong(
                "batch mean",
                lambda pre, x, W_dec, b_dec, k: _z_and(
                    keep_top(pre.relu(), k), pre, x, W_dec, b_dec, k, over=1.0
                ),
                "You forgot that the loss is a *mean* over the batch: divide the gradient by the number of "
                "tokens.",
            ),
            Wrong(
                "mean over everything",
                lambda pre, x, W_dec, b_dec, k: _z_and(
                    keep_top(pre.relu(), k), pre, x, W_dec, b_dec, k, over=float(x.numel())
                ),
                "You divided by the number of all entries. The loss sums over d_in and averages over the "
                "batch alone.",
            ),
            Wrong(
                "sign",
                lambda pre, x, W_dec, b_dec, k: _z_and(
                    keep_top(pre.relu(), k), pre, x, W_dec, b_dec, k, factor=-2.0
                ),
                "Your gradients have the wrong sign. A gradient points uphill: `x_hat - x`, not `x - x_hat`.",
            ),
            Wrong(
                "k over the batch",
                lambda pre, x, W_dec, b_dec, k: _z_and(
                    keep_top(pre.relu().flatten()[None], k * len(pre)).view_as(pre), pre, x, W_dec, b_dec, k
                ),
                "You chose the largest of the whole batch. That is BatchTopK, and comes later; here every "
                "token keeps its own k: `dim=-1`.",
            ),
            Wrong(
                "k of each latent",
                lambda pre, x, W_dec, b_dec, k: _z_and(keep_top(pre.relu().T, k).T, pre, x, W_dec, b_dec, k),
                "You chose k *tokens* for each latent. It is k latents for each token: `dim=-1`.",
            ),
            Wrong(
                "largest by size",
                lambda pre, x, W_dec, b_dec, k: _z_and(_by_size(pre, k), pre, x, W_dec, b_dec, k),
                "You chose by absolute value, so strongly negative ones took places and were cut to zero. Cut "
                "first, then choose.",
            ),
            Wrong(
                "decoder bias forgotten",
                lambda pre, x, W_dec, b_dec, k: _z_and(
                    keep_top(pre.relu(), k), pre, x, W_dec, torch.zeros_like(b_dec), k
                ),
                "Your reconstruction lacks `b_dec`, and so every gradient is off.",
            ),
            Wrong(
                "bias gradient averaged",
                lambda pre, x, W_dec, b_dec, k: (
                    topk_step(pre, x, W_dec, b_dec, k)
                    | {"grad_b_dec": topk_step(pre, x, W_dec, b_dec, k)["grad_b_dec"] / len(x)}
                ),
                "`grad_b_dec` is averaged twice: the 1/batch is already in the gradient of x_hat. Sum over "
                "the batch.",
            ),
        )
    ),
    properties=(Property("Autograd must give the same.", _agrees_with_autograd),),
    look_at="the shapes. With g = dL/dx_hat [batch, d_in]: `z.T @ g` is [d_sae, d_in], `g @ W_dec.T` is "
    "[batch, d_sae].",
    saw="all of backpropagation through an SAE. And `grad_W_dec` has rows for chosen latents only: with k "
    "of them a token, nearly all of these products are multiplications by zero. Skipping them is what "
    "makes a sparse step fast.",
    cases=8,
)

# --- 4.11 -----------------------------------------------------------


def draw_batch(generator) -> dict:
    """Pre-activations of rich and poor tokens, and a threshold from earlier batches, too low or too high.

    In some batches fewer than k * batch are positive.
    """
    batch, d_sae = whole(generator, 6, 12), whole(generator, 16, 24)
    few = 1.2 * whole(generator, 0, 1)
    pre = normal(generator, batch, d_sae) + 1.2 * normal(generator, batch, 1) - 0.3 - few
    return {
        "pre": pre,
        "k": whole(generator, 2, 4),
        "threshold": float(pre.max()) * (0.1 + 0.5 * float(torch.rand((), generator=generator))),
        "rate": 0.05 + 0.3 * float(torch.rand((), generator=generator)),
    }


def batch_topk(pre, k, threshold, rate) -> tuple[Tensor, float]:
    return _with_threshold(_of_the_batch(pre.relu(), k * len(pre)), threshold, rate)


def _of_the_batch(values: Tensor, n: int) -> Tensor:
    return keep_top(values.flatten()[None], n).view_as(values)


def _with_threshold(z: Tensor, threshold: float, rate: float, least=lambda z: z[z > 0].min()):
    return z, (1 - rate) * threshold + rate * float(least(z))


def _without_the_smallest(values: Tensor, k: int) -> Tensor:
    z = _of_the_batch(values, k * len(values))
    return z * (z > z[z > 0].min())


def _cut_again(pre, k, threshold, rate) -> tuple[Tensor, float]:
    z, new = batch_topk(pre, k, threshold, rate)
    return z * (z > new), new


def _threshold_decides(answer, args, output) -> bool:
    """Whether all positive latents are on where the threshold lets them through, however few places there are."""
    found = answer(*(args | {"k": 1, "threshold": 1e-6}).values())[0]
    return agree(plain(found), args["pre"].relu()) and int((found > 0).sum()) > len(found)


def _threshold_pulled_to_zero(answer, args, output) -> bool:
    """Whether the new value that went into the average was 0, whichever way round the average is."""
    return any(agree(output[1], part * args["threshold"]) for part in (args["rate"], 1 - args["rate"]))


def _count_is_k_a_token(answer, args, output) -> str | None:
    most = min(args["k"] * len(args["pre"]), int((args["pre"] > 0).sum()))
    found = int((output[0] > 0).sum())
    return None if found == most else f"{most} latents should be on in this batch; of yours {found} are."


def _kept_are(mistake: Callable) -> Callable:
    """Recognise a mistake by the latents alone: the threshold may have one of its own."""

    def recognise(answer, args, output) -> bool:
        right = batch_topk(**args)[0]
        return agree(output[0], mistake(args["pre"].relu(), args["k"])) and not agree(output[0], right)

    return recognise


BATCH_TOPK = Exercise(
    number="4.11",
    name="batch_topk",
    returns='tuple[Float[Tensor, "batch d_sae"], float]',
    draw=draw_batch,
    reference=batch_topk,
    wrong=(
        Wrong(
            "k for each token",
            lambda pre, k, threshold, rate: _with_threshold(keep_top(pre.relu(), k), threshold, rate),
            "Every token keeps k: that is plain TopK. Here the whole batch shares `k * batch` places, and "
            "a rich token may take them from a poor one.",
            recognise=_kept_are(keep_top),
        ),
        Wrong(
            "k for the whole batch",
            lambda pre, k, threshold, rate: _with_threshold(_of_the_batch(pre.relu(), k), threshold, rate),
            "You kept k latents in the whole batch. k is the mean for *one* token: `k * len(pre)` places "
            "in all.",
            recognise=_kept_are(_of_the_batch),
        ),
        Wrong(
            "k for each latent",
            lambda pre, k, threshold, rate: _with_threshold(
                _of_the_batch(pre.relu(), k * pre.shape[1]), threshold, rate
            ),
            "You gave out k places for each *latent*. It is k for each token: `k * len(pre)` in all.",
            recognise=_kept_are(lambda values, k: _of_the_batch(values, k * values.shape[1])),
        ),
        Wrong(
            "no ReLU",
            lambda pre, k, threshold, rate: _with_threshold(
                _of_the_batch(pre, k * len(pre)), threshold, rate
            ),
            "Negative pre-activations get in, where a batch has too few positive ones: apply the ReLU before "
            "you choose.",
            recognise=lambda answer, args, output: bool((output[0] < 0).any()),
        ),
        Wrong(
            "largest of the kept",
            lambda pre, k, threshold, rate: _with_threshold(
                _of_the_batch(pre.relu(), k * len(pre)), threshold, rate, torch.max
            ),
            "You took the largest kept value. What a latent had to beat is the *smallest* one that was kept.",
        ),
        Wrong(
            "first one left out",
            lambda pre, k, threshold, rate: _with_threshold(
                _of_the_batch(pre.relu(), k * len(pre)), threshold, rate, lambda z: _first_left_out(pre, z)
            ),
            "You took the largest value that was *not* kept. The convention here (SAELens's too) is the "
            "smallest one that was.",
            recognise=lambda answer, args, output: agree(
                output, (batch_topk(**args)[0], _first_left_out_threshold(**args))
            ),
        ),
        Wrong(
            "zeros counted",
            lambda pre, k, threshold, rate: (
                _of_the_batch(pre.relu(), k * len(pre)),
                (1 - rate) * threshold,
            ),
            "Your smallest value is 0: latents that are off are counted, too, or places that no positive "
            "value was left for. Take it over those above zero: `z[z > 0].min()`.",
            recognise=_threshold_pulled_to_zero,
        ),
        Wrong(
            "mean of the kept",
            lambda pre, k, threshold, rate: _with_threshold(
                _of_the_batch(pre.relu(), k * len(pre)), threshold, rate, lambda z: z[z > 0].mean()
            ),
            "You took the mean of the kept values; half of them would not pass it. The border is their "
            "smallest one.",
        ),
        Wrong(
            "no average",
            lambda pre, k, threshold, rate: _with_threshold(
                _of_the_batch(pre.relu(), k * len(pre)), 0.0, 1.0
            ),
            "You return this batch's own border. One batch is a noisy sample: move the old threshold a "
            "little towards it, by `rate`.",
        ),
        Wrong(
            "average turned round",
            lambda pre, k, threshold, rate: _with_threshold(
                _of_the_batch(pre.relu(), k * len(pre)), threshold, 1 - rate
            ),
            "Your average is the wrong way round: `rate` is the weight of the *new* value, and `1 - rate` "
            "of the old.",
        ),
        Wrong(
            "threshold applied",
            lambda pre, k, threshold, rate: _with_threshold(pre.relu() * (pre > threshold), threshold, rate),
            "You cut at `threshold`. That is how the SAE is used *after* training; in training the batch "
            "decides, and the threshold only listens.",
            recognise=_threshold_decides,
        ),
        Wrong(
            "threshold applied as well",
            _cut_again,
            "The batch has chosen, and then you cut at the threshold as well. That is for *after* training; in "
            "training the batch alone decides, and the threshold only listens.",
        ),
        Wrong(
            "the border left out",
            lambda pre, k, threshold, rate: _with_threshold(
                _without_the_smallest(pre.relu(), k), threshold, rate
            ),
            "Yours keeps one latent too few: the smallest of the chosen ones is lost. It is kept, too: `>=`, not "
            "`>`, if you compare with it.",
        ),
        Wrong(
            "threshold as it was",
            lambda pre, k, threshold, rate: (_of_the_batch(pre.relu(), k * len(pre)), threshold),
            "You return the threshold as it was. It moves towards this batch's smallest kept value.",
        ),
    ),
    properties=(
        Property("In all, k latents a token may be on, shared among the batch.", _count_is_k_a_token),
    ),
    look_at="`pre.relu().flatten()`: one long row, from which `topk` picks; `view_as` gives it its shape "
    "back.",
    saw="a budget shared by the batch, and the memory of its price. After training the price alone "
    "decides, so that a token's code no longer depends on its neighbours: BatchTopK is then a JumpReLU.",
    cases=8,
)


def _first_left_out_threshold(pre: Tensor, k: int, threshold: float, rate: float) -> float | None:
    """The threshold by way of the first value left out; None where no positive one was."""
    z = batch_topk(pre, k, threshold, rate)[0]
    left = float(_first_left_out(pre, z))
    return (1 - rate) * threshold + rate * left if left > 0 else None


def _first_left_out(pre: Tensor, z: Tensor) -> Tensor:
    left = torch.where(z > 0, torch.zeros_like(pre), pre.relu())
    return left.max()


EXERCISES_TOPK, EXERCISES_BATCH = (TOPK,), (BATCH_TOPK,)
