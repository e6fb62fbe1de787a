"""Shrinkage: how much too short the reconstructions of an SAE are."""

from __future__ import annotations

from torch import Tensor

from solutions.errors import InputError


def reconstruction_bias(x: Tensor, x_hat: Tensor) -> float:
    """How long the reconstructions are beside their best length: 1 is unbiased, below 1 they are too short.

    It is the γ for which x_hat / γ has the smallest squared error (Rajamanoharan et al. 2024, "Improving Dictionary
    Learning with Gated Sparse Autoencoders", section on relative reconstruction bias), here around the mean of x:
    what all tokens share is in `b_dec`, which no penalty shrinks, and would hide what happens to the latents.

    Args:
        x: [tokens, d] activations, BOS and padding left out.
        x_hat: [tokens, d] their reconstructions.

    Returns:
        γ, no unit.

    Raises:
        InputError: not two tensors of one shape, or reconstructions that have nothing in common with the
            activations.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [3.0, 2.0]])
        >>> round(reconstruction_bias(x, x.mean(0) + 0.5 * (x - x.mean(0))), 3)
        0.5
    """
    if x.shape != x_hat.shape or x.ndim != 2:
        raise InputError(f"expected two tensors of one shape [tokens, d], got {list(x.shape)} and {list(x_hat.shape)}.")
    middle = x.mean(0)
    x, x_hat = (x - middle).double(), (x_hat - middle).double()
    along = (x * x_hat).sum().item()
    if along <= 0:
        raise InputError("the reconstructions have nothing in common with the activations: no length would be right.")
    return x_hat.square().sum().item() / along
