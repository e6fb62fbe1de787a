"""Dead latents given new directions, where the SAE does worst (Bricken et al. 2023, appendix on resampling)."""

from __future__ import annotations

import torch
from torch import Tensor

from solutions.errors import InputError, check_tensor
from solutions.sae.architectures.base import TrainableSAE, unit_rows

#: A new latent's encoder is this long, compared with the living ones': it begins quietly and disturbs little.
QUIET = 0.2


@torch.no_grad()
def resample(
    sae: TrainableSAE,
    optimiser: torch.optim.Optimizer,
    dead: Tensor,
    x: Tensor,
    losses: Tensor,
    *,
    target: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> int:
    """Give every dead latent the direction of an input that the SAE rebuilds badly.

    An input is drawn for each dead latent, with a probability that grows with the square of its loss. Its
    direction becomes the latent's decoder row, and, a fifth as long as the living latents' are on average, its
    encoder column. Biases and thresholds start again, and so do the optimiser's averages for all of these:
    Adam would otherwise go on in a direction that meant something to the old latent. Bricken et al. take the
    input itself; since the encoder sees the input minus `b_dec`, so do we here.

    Args:
        sae: the SAE, in the middle of its training.
        optimiser: the one that trains it.
        dead: [d_sae] bool, the latents to replace.
        x: [n, d_in] inputs to draw from, scaled as in training: better many thousands than one batch.
        losses: [n] squared error of each.
        target: [n, d_out] what a transcoder is to predict for them.
        generator: of the draw, on the device of `losses`; torch's own by default.

    Returns:
        How many latents were replaced.

    Raises:
        InputError: shapes that do not fit, or losses that are negative or not finite.
    """
    check_tensor(x, "x", shape="n d_in", last=sae.d_in)
    check_tensor(losses, "losses", shape="n", last=len(x))
    if not isinstance(dead, Tensor) or dead.dtype != torch.bool or dead.shape != (sae.d_sae,):
        raise InputError(f"dead must be a bool tensor of shape [{sae.d_sae}], one entry per latent.")
    if not torch.isfinite(losses).all() or (losses < 0).any():
        raise InputError("losses must be finite and not negative: the squared error of each input.")
    if sae.transcoder and target is None:
        raise InputError("a transcoder needs target [n, d_out] too: it writes in another space than it reads.")
    which = dead.nonzero().squeeze(1)
    if len(which) == 0:
        return 0

    weights = losses.float().pow(2) + 1e-30  # so that a perfect SAE can be drawn from too
    drawn = torch.multinomial(weights, len(which), replacement=True, generator=generator)
    read = x[drawn] - sae.b_dec if sae.subtract_b_dec else x[drawn]
    write = target[drawn] - sae.b_dec if sae.transcoder else read
    sae.W_dec[which] = unit_rows(write).to(sae.W_dec)
    if not sae.tied:
        alive = sae.W_enc[:, ~dead].norm(dim=0)
        length = QUIET * (alive.mean() if len(alive) else 1.0)
        sae.W_enc[:, which] = (unit_rows(read) * length).T.to(sae.W_enc)
    sae.reset_latents(which)
    forget(sae, optimiser, which)
    return len(which)


def forget(sae: TrainableSAE, optimiser: torch.optim.Optimizer, which: Tensor) -> None:
    """Set the optimiser's running averages to zero for the latents `which` (indices), and only for them."""
    for name, axis in sae.latent_axes().items():
        parameter = getattr(sae, name)
        for average in optimiser.state.get(parameter, {}).values():
            if isinstance(average, Tensor) and average.shape == parameter.shape:
                average.index_fill_(axis, which, 0.0)
