"""Running an SAE: into latents, back out of them, and what gets lost on the way."""

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

    Raises:
        InputError: another width, another device, or something that is no SAE.

    Example:
        >>> features = encode(sae, acts)
        >>> features.shape, (features > 0).sum(-1)
        (torch.Size([7, 1024]), tensor([16, 16, 16, 16, 16, 16, 16]))
    """
    check_sae(sae)
    return sae.encode(check_tensor(acts, "acts", last=sae.cfg.d_in, device=_device(sae)).float())


@torch.no_grad()
def decode(sae: SAE, features: Tensor) -> Tensor:
    """Activations rebuilt from latent activations: [..., d_sae] to [..., d_in].

    Args:
        sae: the SAE.
        features: [..., d_sae] latent activations, on the SAE's device.

    Returns:
        [..., d_in].

    Raises:
        InputError: another width, another device, or something that is no SAE.

    Example:
        >>> features = encode(sae, acts)
        >>> decode(sae, features).shape == acts.shape
        True
    """
    check_sae(sae)
    return sae.decode(check_tensor(features, "features", last=sae.cfg.d_sae, device=_device(sae)).float())


def reconstruct(sae: SAE, acts: Tensor) -> Tensor:
    """Activations as the SAE gives them back, `decode(encode(acts))`: [..., d_in] to the same shape.

    Args:
        sae: the SAE.
        acts: [..., d_in] activations, one vector per token, on the SAE's device.

    Returns:
        [..., d_in].

    Raises:
        InputError: as for `encode`.

    Example:
        >>> round(explained_variance(acts, reconstruct(sae, acts)), 2)
        0.89
    """
    return decode(sae, encode(sae, acts))


def reconstruction_error(sae: SAE, acts: Tensor) -> Tensor:
    """What the SAE leaves out: `acts - reconstruct(sae, acts)`, [..., d_in].

    Put back on top of a reconstruction, it restores the model exactly. So an edit of the latents that leaves
    it in place changes nothing but what was edited; and whatever a model still knows when it is given the
    error alone, no latent holds (Marks et al. 2024 treat it as one more feature).

    Args:
        sae: the SAE.
        acts: [..., d_in] activations, one vector per token, on the SAE's device.

    Returns:
        [..., d_in].

    Raises:
        InputError: as for `encode`.
    """
    return acts.float() - reconstruct(sae, acts)


def check_sae(sae: object) -> None:
    """Refuse anything that is not a SAELens SAE."""
    if not all(hasattr(sae, name) for name in ("encode", "decode", "cfg")):
        hint = " `as_sae_lens(sae)` makes one of it." if hasattr(sae, "to_sae_lens") else ""
        raise InputError(f"sae must be an SAE from load_sae, got {type(sae).__name__}.{hint}")


def _device(sae: SAE) -> torch.device:
    return next(sae.parameters()).device
