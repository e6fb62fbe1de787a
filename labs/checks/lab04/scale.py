"""Exercise 4.6: one scale for every model, folded into the weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from labs.checks.compare import agree
from labs.checks.exercise import Exercise, Property, Wrong, normal, whole
from labs.checks.lab04.small_sae import decoded, draw_params, encoded, seen_in, sizes


def draw_scale(generator) -> dict:
    """An SAE trained on scaled activations, and activations as they come, far from the length it knows."""
    batch, d_in, d_sae = sizes(generator)
    size = (0.2, 5.0, 20.0)[whole(generator, 0, 2)]
    lengths = 0.3 + 1.4 * torch.rand(
        batch, 1, generator=generator
    )  # so that the mean norm is not the root of a mean
    return {
        "params": draw_params(generator, d_in, d_sae, unit=True),
        "sample": size * lengths * (normal(generator, batch, d_in) + 0.5),
    }


def fold_scale(params: dict, sample: Tensor) -> tuple[float, dict]:
    return _folded(params, scale_of(sample))


def scale_of(sample: Tensor) -> float:
    return sample.shape[1] ** 0.5 / sample.norm(dim=1).mean().item()


def _folded(params: dict, scale: float, **changes) -> tuple[float, dict]:
    right = params | {"b_enc": params["b_enc"] / scale, "b_dec": params["b_dec"] / scale}
    return scale, right | {name: change(params[name], scale) for name, change in changes.items()}


def _with_scale(params: dict, scale: float) -> tuple[float, dict]:
    return _folded(params, scale)


def _scale_is(mistake: Callable) -> Callable:
    """Recognise a wrong scale by itself, whatever was then done with it."""
    return lambda answer, args, output: agree(output[0], float(mistake(args["sample"])))


def _weights_like(mistake: Callable, *names: str) -> Callable:
    """Recognise a mistake by some of the four tensors."""
    return seen_in(lambda output: [output[1][name] for name in names], mistake, fold_scale)


def _enlarged_encoder(params: dict, sample: Tensor) -> tuple[float, dict]:
    return _folded(params, scale_of(sample), W_enc=lambda w, s: w * s)


def _old_encoder_bias(params: dict, sample: Tensor) -> tuple[float, dict]:
    return _folded(params, scale_of(sample), b_enc=lambda b, s: b)


def _old_decoder_bias(params: dict, sample: Tensor) -> tuple[float, dict]:
    return _folded(params, scale_of(sample), b_dec=lambda b, s: b)


def _same_function(answer, args, output) -> str | None:
    scale, folded = output
    x, before = args["sample"], args["params"]
    wanted = decoded(before, encoded(before, x * scale)) / scale
    gap = float((decoded(folded, encoded(folded, x)) - wanted).norm() / wanted.norm())
    return None if gap < 1e-3 else f"Yours is off by {gap:.1%} of its length."


def _rows_as_before(answer, args, output) -> str | None:
    lengths = output[1]["W_dec"].norm(dim=1)
    worst = int((lengths - 1).abs().argmax())
    return (
        None
        if abs(lengths[worst] - 1) < 1e-3
        else f"Row {worst} of yours is {float(lengths[worst]):.4g} long."
    )


FOLD = Exercise(
    number="4.6",
    name="fold_scale",
    returns="tuple[float, dict[str, Tensor]]",
    draw=draw_scale,
    reference=fold_scale,
    wrong=(
        Wrong(
            "not folded",
            lambda params, sample: (scale_of(sample), dict(params)),
            "The scale is right, and the weights are as they were. They still want scaled activations; "
            "whoever uses them on x as it is gets nonsense.",
        ),
        Wrong(
            "folded the other way",
            lambda params, sample: (scale_of(sample), _folded(params, 1 / scale_of(sample))[1]),
            "You folded the wrong way round: the biases must shrink when x was blown up. A bias is a "
            "length in the units of the activations: divide by `scale`.",
        ),
        Wrong(
            "weights folded, rows not unit",
            lambda params, sample: _folded(
                params,
                scale_of(sample),
                W_enc=lambda w, s: w * s,
                b_enc=lambda b, s: b,
                W_dec=lambda w, s: w / s,
            ),
            "That is a right way to fold, and not this one: your decoder rows no longer have length 1. "
            "Here the rows stay, so the latents have to change their units, and `W_enc` stays as well.",
        ),
        Wrong(
            "everything divided",
            lambda params, sample: (
                scale_of(sample),
                {name: weight / scale_of(sample) for name, weight in params.items()},
            ),
            "You divided all four by `scale`. Try it on paper: with z in new units (divided by scale), "
            "which of the four still need a change?",
        ),
        Wrong(
            "encoder scaled, too",
            _enlarged_encoder,
            "You scaled `W_enc` as well. A latent is to come out in the units of x; with this matrix it stays "
            "in those of `x * scale`, and the rows, of length 1, write too much. `W_enc` stays.",
            recognise=_weights_like(_enlarged_encoder, "W_enc", "W_dec"),
        ),
        Wrong(
            "encoder bias forgotten",
            _old_encoder_bias,
            "`b_enc` is as it was. The product beside it is in the units of x now, and the bias still in those "
            "of `x * scale`: divide it by `scale`.",
            recognise=_weights_like(_old_encoder_bias, "b_enc", "W_dec"),
        ),
        Wrong(
            "decoder bias forgotten",
            _old_decoder_bias,
            "`b_dec` is as it was. It is the mean token in scaled units; the mean token of x itself is "
            "`b_dec / scale`.",
            recognise=_weights_like(_old_decoder_bias, "b_dec"),
        ),
        Wrong(
            "scale turned round",
            lambda params, sample: _with_scale(params, 1 / scale_of(sample)),
            "Your scale is the wrong way round. `x * scale` is to have length sqrt(d_in) on average: "
            "sqrt(d_in) over the mean length.",
            recognise=_scale_is(lambda x: 1 / scale_of(x)),
        ),
        Wrong(
            "mean of the scales",
            lambda params, sample: _with_scale(
                params, (sample.shape[1] ** 0.5 / sample.norm(dim=1)).mean().item()
            ),
            "You took one scale for each token and averaged those. Then a few short tokens decide. Average the "
            "lengths first: sqrt(d_in) over the *mean length*.",
            recognise=_scale_is(lambda x: (x.shape[1] ** 0.5 / x.norm(dim=1)).mean()),
        ),
        Wrong(
            "length one",
            lambda params, sample: _with_scale(params, 1 / sample.norm(dim=1).mean().item()),
            "You scaled to a mean length of 1. The convention here is sqrt(d_in), so that one entry is "
            "about 1, whatever the width.",
            recognise=_scale_is(lambda x: 1 / x.norm(dim=1).mean()),
        ),
        Wrong(
            "root of the mean square",
            lambda params, sample: _with_scale(
                params, sample.shape[1] ** 0.5 / sample.pow(2).sum(1).mean().sqrt().item()
            ),
            "You took the root of the mean squared length. The convention here is the mean of the lengths, "
            "`.norm(dim=1).mean()`, where a few long tokens count for less.",
            recognise=_scale_is(lambda x: (x.shape[1] / x.pow(2).sum(1).mean()).sqrt()),
        ),
        Wrong(
            "norm of the whole sample",
            lambda params, sample: _with_scale(params, sample.shape[1] ** 0.5 / sample.norm().item()),
            "You took the norm of the whole sample. It grows with the number of tokens: take each token's, "
            "`norm(dim=1)`, and then the mean.",
            recognise=_scale_is(lambda x: x.shape[1] ** 0.5 / x.norm()),
        ),
        Wrong(
            "lengths of the columns",
            lambda params, sample: _with_scale(
                params, sample.shape[1] ** 0.5 / sample.norm(dim=0).mean().item()
            ),
            "You took the lengths of the columns, one for each dimension. A token is a *row*: `norm(dim=1)`.",
            recognise=_scale_is(lambda x: x.shape[1] ** 0.5 / x.norm(dim=0).mean()),
        ),
        Wrong(
            "number of tokens",
            lambda params, sample: _with_scale(params, len(sample) ** 0.5 / sample.norm(dim=1).mean().item()),
            "You took the root of the number of *tokens*. d_in is the number of dimensions: "
            "`sample.shape[1]`.",
            recognise=_scale_is(lambda x: len(x) ** 0.5 / x.norm(dim=1).mean()),
        ),
        Wrong(
            "length of the mean token",
            lambda params, sample: _with_scale(params, sample.shape[1] ** 0.5 / sample.mean(0).norm().item()),
            "You took the length of the mean token. Tokens point in many directions, and in the mean they "
            "cancel: take the lengths first.",
            recognise=_scale_is(lambda x: x.shape[1] ** 0.5 / x.mean(0).norm()),
        ),
    ),
    properties=(
        Property(
            "On x as it is, the folded SAE must give what the old one gave on x * scale, over scale.",
            _same_function,
        ),
        Property("The decoder rows must keep their length of 1.", _rows_as_before),
    ),
    look_at="the units: every length measured in activations (biases, latents) is divided by `scale`; "
    "directions stay.",
    saw="one learning rate for every layer, and an SAE that nobody can feed wrongly: the scale is gone "
    "into the biases.",
)

EXERCISES = (FOLD,)
