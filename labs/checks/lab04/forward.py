"""Exercises 4.1 to 4.3: the encoder, the whole forward pass, and the loss with its convention."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from labs.checks.compare import agree
from labs.checks.exercise import Exercise, Property, Wrong, normal
from labs.checks.lab04.small_sae import decoded, draw_params, encoded, sizes, unmoved

# --- 4.1 ------------------------------------------------------------


def draw_encoder(generator) -> dict:
    """An SAE with biases that matter, tied half of the time, and a batch of tokens."""
    batch, d_in, d_sae = sizes(generator)
    return {
        "params": draw_params(generator, d_in, d_sae),
        "x": normal(generator, batch, d_in) + 0.5,
        "tied": bool(torch.rand((), generator=generator) < 0.5),
    }


def encode(params: dict, x: Tensor, tied: bool) -> Tensor:
    return _pre(params, x, tied).relu()


def _pre(params: dict, x: Tensor, tied: bool, bias: bool = True) -> Tensor:
    weights = params["W_dec"].T if tied else params["W_enc"]
    return (x - params["b_dec"]) @ weights + (params["b_enc"] if bias else 0)


def _another(name: str) -> Callable[[dict], dict]:
    """The same arguments with another tensor in one place of `params`."""
    return lambda args: {"params": args["params"] | {name: args["params"][name] + 1.0}}


def _only_if(tied: bool, recognise: Callable) -> Callable:
    return lambda answer, args, output: args["tied"] is tied and recognise(answer, args, output)


def _never_negative(answer, args, output) -> str | None:
    return None if (output >= 0).all() else f"The smallest of yours is {output.min().item():.3g}."


ENCODE = Exercise(
    number="4.1",
    name="encode",
    returns='Float[Tensor, "batch d_sae"]',
    draw=draw_encoder,
    reference=encode,
    wrong=(
        Wrong(
            "b_dec left out",
            lambda params, x, tied: encode(params | {"b_dec": torch.zeros_like(params["b_dec"])}, x, tied),
            "You encoded `x` as it is. The decoder adds `b_dec` to everything, so the latents have to "
            "explain only what is left without it, tied or not: encode `x - b_dec`.",
            recognise=unmoved(_another("b_dec")),
        ),
        Wrong(
            "b_dec added",
            lambda params, x, tied: encode(params | {"b_dec": -params["b_dec"]}, x, tied),
            "You added `b_dec` where it has to be taken off. Adding it is the decoder's part.",
        ),
        Wrong(
            "b_enc left out",
            lambda params, x, tied: _pre(params, x, tied, bias=False).relu(),
            "You left out `b_enc`. It sets how much evidence a latent wants before it fires, tied or not.",
            recognise=unmoved(_another("b_enc")),
        ),
        Wrong(
            "ReLU before the bias",
            lambda params, x, tied: _pre(params, x, tied, bias=False).relu() + params["b_enc"],
            "You applied the ReLU before adding `b_enc`. Then the bias shifts what was already cut off, "
            "and nothing is ever exactly zero. Add it first, cut afterwards.",
        ),
        Wrong(
            "no ReLU",
            _pre,
            "There is no ReLU: some of your latents are negative. Without it the whole SAE is one linear "
            "map, and nothing is sparse.",
        ),
        Wrong(
            "absolute value",
            lambda params, x, tied: _pre(params, x, tied).abs(),
            "You took the absolute value. A latent that sees the opposite of its feature has to stay "
            "silent: use `.relu()`.",
        ),
        Wrong(
            "tied ignored",
            lambda params, x, tied: encode(params, x, False),
            "You never used `tied`. With tied weights the encoder has no matrix of its own: it is the "
            "decoder's, transposed.",
            recognise=_only_if(True, unmoved(_another("W_dec"))),
        ),
        Wrong(
            "always tied",
            lambda params, x, tied: encode(params, x, True),
            "You always encode with the decoder's transpose. Without `tied` the encoder has its own "
            "matrix, `W_enc`.",
            recognise=_only_if(False, unmoved(_another("W_enc"))),
        ),
        Wrong(
            "sigmoid",
            lambda params, x, tied: _pre(params, x, tied).sigmoid(),
            "You used a sigmoid. It is never exactly zero, so every latent would be on at every token; "
            "use `.relu()`.",
        ),
    ),
    properties=(Property("No latent may be negative.", _never_negative),),
    look_at="the shapes: `x` is [batch, d_in], `W_enc` is [d_in, d_sae], `W_dec` is [d_sae, d_in].",
    saw="half of an SAE: take the bias off, one product, one bias, one cut. Tied or not decides who owns "
    "the matrix.",
    cases=8,
)

# --- 4.2 ------------------------------------------------------------


def draw_forward(generator) -> dict:
    batch, d_in, d_sae = sizes(generator)
    return {"params": draw_params(generator, d_in, d_sae), "x": normal(generator, batch, d_in) + 0.5}


def forward(params: dict, x: Tensor) -> tuple[Tensor, Tensor]:
    z = encoded(params, x)
    return z, decoded(params, z)


def _zero_latents_give_the_bias(answer, args, output) -> str | None:
    """With an encoder that never fires, the reconstruction is the decoder bias."""
    silent = args["params"] | {"b_enc": torch.full_like(args["params"]["b_enc"], -1e4)}
    found = answer(silent, args["x"])[1]
    gap = float((found - silent["b_dec"]).abs().max())
    return None if gap < 1e-4 else f"Yours is off by {gap:.3g}."


FORWARD = Exercise(
    number="4.2",
    name="forward",
    returns='tuple[Float[Tensor, "batch d_sae"], Float[Tensor, "batch d_in"]]',
    draw=draw_forward,
    reference=forward,
    wrong=(
        Wrong(
            "no bias anywhere",
            lambda params, x: forward(params | {"b_dec": torch.zeros_like(params["b_dec"])}, x),
            "You never used `b_dec`. The encoder takes it off, and the decoder puts it back.",
            recognise=unmoved(_another("b_dec")),
        ),
        Wrong(
            "tied",
            lambda params, x: forward(params | {"W_enc": params["W_dec"].T}, x),
            "Your latents come from the decoder's transpose, as with tied weights. Here the encoder has its "
            "own matrix: `tied=False`.",
        ),
        Wrong(
            "in the other order",
            lambda params, x: forward(params, x)[::-1],
            "The two are in the other order: the latents come first, `(z, x_hat)`.",
        ),
        Wrong(
            "bias not put back",
            lambda params, x: (encoded(params, x), encoded(params, x) @ params["W_dec"]),
            "Your reconstruction lacks `b_dec`. The encoder took it off; the decoder has to put it back.",
        ),
        Wrong(
            "encoded without taking the bias off",
            lambda params, x: (
                (x @ params["W_enc"] + params["b_enc"]).relu(),
                decoded(params, (x @ params["W_enc"] + params["b_enc"]).relu()),
            ),
            "Your encoder does not take `b_dec` off, though the decoder adds it. Then the latents have to "
            "explain the mean token again and again.",
        ),
        Wrong(
            "no ReLU",
            lambda params, x: _linear(params, x),
            "You decoded without a ReLU in between. Two linear maps in a row are one linear map: that is "
            "a PCA at best, and nothing in it is sparse.",
        ),
        Wrong(
            "skip connection",
            lambda params, x: (encoded(params, x), decoded(params, encoded(params, x)) + x),
            "You added `x` itself to the reconstruction. Then silence would be a perfect copy: the SAE "
            "has to rebuild x from its latents alone.",
        ),
        Wrong(
            "decoded with the encoder",
            lambda params, x: (encoded(params, x), encoded(params, x) @ params["W_enc"].T + params["b_dec"]),
            "You decoded with the encoder's matrix, transposed. Only with tied weights is that the same; "
            "here the decoder is `W_dec`.",
        ),
        Wrong(
            "cut twice",
            lambda params, x: (encoded(params, x), decoded(params, encoded(params, x)).relu()),
            "You put a ReLU on the reconstruction, too. Activations have both signs; only the latents are "
            "cut.",
        ),
        Wrong(
            "centred reconstruction",
            lambda params, x: (
                encoded(params, x),
                encoded(params, x) @ params["W_dec"] - params["b_dec"],
            ),
            "You took `b_dec` off a second time. The encoder takes it off, and the decoder puts it back: "
            "add it.",
        ),
    ),
    properties=(
        Property("Where no latent fires, the reconstruction must be `b_dec`.", _zero_latents_give_the_bias),
    ),
    look_at="the shapes: z is [batch, d_sae] and `W_dec` is [d_sae, d_in].",
    saw="the whole SAE: a sum of a few decoder rows, each as strong as its latent, on top of one bias.",
)


def _linear(params: dict, x: Tensor) -> tuple[Tensor, Tensor]:
    pre = (x - params["b_dec"]) @ params["W_enc"] + params["b_enc"]
    return pre, decoded(params, pre)


# --- 4.3 ------------------------------------------------------------


def draw_loss(generator) -> dict:
    """A batch, a poor copy of it, sparse latents, and decoder rows of unequal length."""
    batch, d_in, d_sae = sizes(generator)
    x = normal(generator, batch, d_in)
    return {
        "x": x,
        "x_hat": x + 0.3 * normal(generator, batch, d_in),
        "z": (2 * normal(generator, batch, d_sae) - 1).relu(),
        "W_dec": draw_params(generator, d_in, d_sae)["W_dec"],
        "l1": 0.05 + float(torch.rand((), generator=generator)),
    }


def sae_loss(x: Tensor, x_hat: Tensor, z: Tensor, W_dec: Tensor, l1: float) -> dict[str, Tensor]:
    return _losses(_squares(x, x_hat), _strengths(z, W_dec), l1)


def _squares(x: Tensor, x_hat: Tensor) -> Tensor:
    return (x_hat - x).pow(2).sum(1).mean()


def _strengths(z: Tensor, W_dec: Tensor) -> Tensor:
    return (z * W_dec.norm(dim=1)).sum(1).mean()


def _losses(reconstruction: Tensor, strengths: Tensor, l1: float) -> dict[str, Tensor]:
    sparsity = l1 * strengths
    return {"reconstruction": reconstruction, "sparsity": sparsity, "total": reconstruction + sparsity}


def _cannot_learn(answer, args, output) -> bool:
    x_hat, z = args["x_hat"].clone().requires_grad_(), args["z"].clone().requires_grad_()
    total = answer(args["x"], x_hat, z, args["W_dec"], args["l1"])["total"]
    return not isinstance(total, Tensor) or not total.requires_grad


def _detached(x, x_hat, z, W_dec, l1) -> dict:
    return {name: value.item() for name, value in sae_loss(x, x_hat, z, W_dec, l1).items()}


def _adds_up(answer, args, output) -> str | None:
    total, parts = float(output["total"]), float(output["reconstruction"]) + float(output["sparsity"])
    return (
        None if abs(total - parts) < 1e-3 * max(1, abs(total)) else f"Yours are {total:.4g} and {parts:.4g}."
    )


def _batch_twice(answer, args, output) -> str | None:
    twice = {name: torch.cat([args[name], args[name]]) for name in ("x", "x_hat", "z")}
    found = float(answer(twice["x"], twice["x_hat"], twice["z"], args["W_dec"], args["l1"])["total"])
    total = float(output["total"])
    return (
        None
        if abs(found - total) < 1e-3 * max(1, abs(total))
        else f"Yours goes from {total:.4g} to {found:.4g}."
    )


def _entry(name: str, mistake: Callable) -> Callable:
    """Recognise a mistake by one entry alone: the others may have mistakes of their own."""

    def recognise(answer, args, output) -> bool:
        found, right = output[name], sae_loss(*args.values())[name].item()
        return agree(found, float(mistake(**args))) and not agree(found, right)

    return recognise


def _error_entry(mistake: Callable) -> Callable:
    return _entry("reconstruction", lambda x, x_hat, z, W_dec, l1: mistake(x, x_hat))


def _sparsity_entry(mistake: Callable) -> Callable:
    return _entry("sparsity", lambda x, x_hat, z, W_dec, l1: mistake(z, W_dec.norm(dim=1), l1))


LOSS = Exercise(
    number="4.3",
    name="sae_loss",
    returns='dict with "total", "reconstruction", "sparsity" (each Float[Tensor, ""])',
    draw=draw_loss,
    reference=sae_loss,
    wrong=(
        Wrong(
            "mean over d_in",
            lambda x, x_hat, z, W_dec, l1: _losses((x_hat - x).pow(2).mean(), _strengths(z, W_dec), l1),
            "You averaged the squared error over the dimensions as well, as `mse_loss` does. That makes "
            "the error d_in times smaller beside the same `l1`. Sum over the dimensions, then average "
            "over the batch.",
            recognise=_error_entry(lambda x, x_hat: (x_hat - x).pow(2).mean()),
        ),
        Wrong(
            "summed over the batch",
            lambda x, x_hat, z, W_dec, l1: _losses(
                len(x) * _squares(x, x_hat), len(x) * _strengths(z, W_dec), l1
            ),
            "You summed over the batch. Then twice the batch gives twice the gradient, and the learning "
            "rate means something else. Average over the batch.",
        ),
        Wrong(
            "axes swapped",
            lambda x, x_hat, z, W_dec, l1: _losses(
                (x_hat - x).pow(2).sum(0).mean(), _strengths(z, W_dec), l1
            ),
            "You summed the squared error over the batch and averaged over the dimensions: the axes are "
            "swapped. The batch comes first, so it is `.sum(1).mean()`.",
            recognise=_error_entry(lambda x, x_hat: (x_hat - x).pow(2).sum(0).mean()),
        ),
        Wrong(
            "strengths summed over the batch",
            lambda x, x_hat, z, W_dec, l1: _losses(_squares(x, x_hat), len(x) * _strengths(z, W_dec), l1),
            "The sparsity is summed over the batch. Average it over the batch, as the error is.",
            recognise=_sparsity_entry(lambda z, norms, l1: l1 * (z * norms).sum()),
        ),
        Wrong(
            "error summed over the batch",
            lambda x, x_hat, z, W_dec, l1: _losses(len(x) * _squares(x, x_hat), _strengths(z, W_dec), l1),
            "The squared error is summed over the batch, and the sparsity averaged. The balance of the "
            "two then depends on the batch size. Average both.",
            recognise=_error_entry(lambda x, x_hat: (x_hat - x).pow(2).sum()),
        ),
        Wrong(
            "mean over latents",
            lambda x, x_hat, z, W_dec, l1: _losses(_squares(x, x_hat), (z * W_dec.norm(dim=1)).mean(), l1),
            "You averaged the strengths over the latents. A wider SAE would then be punished less for the "
            "same code. Sum over the latents, then average over the batch.",
            recognise=_sparsity_entry(lambda z, norms, l1: l1 * (z * norms).mean()),
        ),
        Wrong(
            "decoder norms left out",
            lambda x, x_hat, z, W_dec, l1: _losses(_squares(x, x_hat), z.sum(1).mean(), l1),
            "You left out the length of the decoder rows. Then the SAE can cheat: halve every latent, "
            "double its row, and the penalty is halved for the same reconstruction. Weigh each latent "
            "with `W_dec.norm(dim=1)`.",
            recognise=_sparsity_entry(lambda z, norms, l1: l1 * z.sum(1).mean()),
        ),
        Wrong(
            "norms of the columns",
            lambda x, x_hat, z, W_dec, l1: _losses(_squares(x, x_hat), (z * W_dec.norm()).sum(1).mean(), l1),
            "You multiplied by the length of the whole matrix. Each latent has a row of its own: "
            "`W_dec.norm(dim=1)`, [d_sae].",
        ),
        Wrong(
            "l1 left out",
            lambda x, x_hat, z, W_dec, l1: _losses(_squares(x, x_hat), _strengths(z, W_dec), 1.0),
            "You never used `l1`. It says how much sparsity is worth beside reconstruction: it belongs into "
            '`"sparsity"`.',
        ),
        Wrong(
            "l1 in the total only",
            lambda x, x_hat, z, W_dec, l1: (
                sae_loss(x, x_hat, z, W_dec, l1) | {"sparsity": _strengths(z, W_dec)}
            ),
            '`"sparsity"` lacks its `l1`, so the two parts do not add up to the total.',
        ),
        Wrong(
            "l1 twice",
            lambda x, x_hat, z, W_dec, l1: (
                _losses(_squares(x, x_hat), _strengths(z, W_dec), l1)
                | {"total": _squares(x, x_hat) + l1 * l1 * _strengths(z, W_dec)}
            ),
            "You multiplied by `l1` twice: it is in `sparsity` already.",
        ),
        Wrong(
            "squared strengths",
            lambda x, x_hat, z, W_dec, l1: _losses(
                _squares(x, x_hat), (z * W_dec.norm(dim=1)).pow(2).sum(1).mean(), l1
            ),
            "You squared the strengths: an L2 penalty. It makes strong latents weaker and leaves weak "
            "ones alone, so nothing becomes exactly zero. L1 is the plain sum.",
            recognise=_sparsity_entry(lambda z, norms, l1: l1 * (z * norms).pow(2).sum(1).mean()),
        ),
        Wrong(
            "L0",
            lambda x, x_hat, z, W_dec, l1: _losses(_squares(x, x_hat), (z > 0).float().sum(1).mean(), l1),
            "You counted active latents: that is L0. It is what one wants, but a count has no gradient, "
            "so nothing can be learned from it. L1 stands in for it.",
            recognise=_sparsity_entry(lambda z, norms, l1: l1 * (z > 0).float().sum(1).mean()),
        ),
        Wrong(
            "distance",
            lambda x, x_hat, z, W_dec, l1: _losses((x_hat - x).norm(dim=1).mean(), _strengths(z, W_dec), l1),
            "You averaged distances. The reconstruction loss is the *squared* distance: leave out the root.",
            recognise=_error_entry(lambda x, x_hat: (x_hat - x).norm(dim=1).mean()),
        ),
        Wrong(
            "cannot learn",
            _detached,
            "The numbers are right, but they are cut off from what they were computed from: with "
            "`.item()`, `float()` or `.detach()` no gradient can flow back. Return the tensors as they "
            "are.",
            recognise=_cannot_learn,
        ),
    ),
    properties=(
        Property("The total must be the sum of the two parts.", _adds_up),
        Property("The same batch twice over must give the same loss.", _batch_twice),
    ),
    look_at="the axes: the batch comes first. Sum over the last axis, and then take the mean.",
    saw="a loss with its convention. An `l1` from a paper means nothing until you know what was summed "
    "and what was averaged.",
)

EXERCISES = (ENCODE, FORWARD, LOSS)
