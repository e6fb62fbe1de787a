"""Running an SAE, and the two numbers that come first: L0 and explained variance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from solutions.errors import InputError, check_tensor

if TYPE_CHECKING:
    from sae_lens import SAE


@torch.no_grad()
def encode(sae: SAE, acts: Tensor) -> Tensor:
    """Latent activations of every token.

    Args:
        sae: the SAE.
        acts: [..., d_in] activations, one vector per token. An SAE is a function of one token: never
            average first.

    Returns:
        [..., d_sae] latent activations, most of them exactly zero.
    """
    check_sae(sae)
    return sae.encode(check_tensor(acts, "acts", last=sae.cfg.d_in, device=_device(sae)).float())


@torch.no_grad()
def decode(sae: SAE, features: Tensor) -> Tensor:
    """Activations rebuilt from latent activations: [..., d_sae] to [..., d_in]."""
    check_sae(sae)
    return sae.decode(check_tensor(features, "features", last=sae.cfg.d_sae, device=_device(sae)).float())


def check_sae(sae: object) -> None:
    """Refuse anything that is not a SAELens SAE."""
    if not all(hasattr(sae, name) for name in ("encode", "decode", "cfg")):
        raise InputError(f"sae must be an SAE from load_sae, got {type(sae).__name__}.")


def _device(sae: SAE) -> torch.device:
    return next(sae.parameters()).device


def l0(features: Tensor) -> Tensor:
    """How many latents are active on each token: [..., d_sae] to [...]."""
    return (check_tensor(features, "features") != 0).sum(dim=-1)


def explained_variance(x: Tensor, x_hat: Tensor) -> float:
    """The share of the variance of `x` that `x_hat` accounts for.

    Variance is measured around the mean over tokens: always predicting the mean scores exactly 0, a perfect
    reconstruction 1, and anything worse than the mean is negative. (Around zero instead, the mean alone
    would look like an achievement: activations are far from the origin.)

    Args:
        x: [..., d] activations. Leave BOS out: its norm is so large that it would decide the result alone.
        x_hat: their reconstruction, same shape.

    Returns:
        ``1 - sum |x - x_hat|^2 / sum |x - mean(x)|^2``
    """
    check_tensor(x, "x")
    check_tensor(x_hat, "x_hat", device=x.device)
    if x.shape != x_hat.shape:
        raise InputError(
            f"x and x_hat must have the same shape, got {list(x.shape)} and {list(x_hat.shape)}."
        )
    x, x_hat = x.reshape(-1, x.shape[-1]), x_hat.reshape(-1, x.shape[-1])
    if len(x) < 2:
        raise InputError("explained variance needs at least two tokens: one token has no variance.")
    left = (x - x_hat).double().square().sum()
    total = (x - x.mean(dim=0)).double().square().sum()
    if total == 0:
        raise InputError("every row of x is the same, so there is no variance to explain.")
    return (1 - left / total).item()
