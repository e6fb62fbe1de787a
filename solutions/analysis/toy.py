"""Toy models of superposition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from solutions.analysis.shapes import check_axes
from solutions.errors import InputError


class ToyModels(NamedTuple):
    """Small models trained to carry n features through fewer dimensions, one per probability."""
    probability: list[float]   #: how often each feature is present
    W: Tensor                  #: [models, hidden, features]: column i is where feature i is put
    bias: Tensor               #: [models, features]
    loss: list[float]          #: mean squared error per feature at the end


def toy_superposition(
    probabilities: Sequence[float] = (1.0, 0.3, 0.05),
    n_features: int = 5,
    n_hidden: int = 2,
    steps: int = 1200,
    batch: int = 256,
    seed: int = 0,
) -> ToyModels:
    """Train x' = ReLU(Wᵀ W x + b) to give its input back through a bottleneck, once per probability.

    Each feature is absent (0) or, with the given probability, present with a strength drawn from 0 to 1. All
    features matter equally but for a slight order (0.9 to the power of the index) that settles ties. Source:
    Elhage et al. 2022, "Toy Models of Superposition", section "Demonstrating superposition".

    Args:
        probabilities: of a feature's being there, one for each model.
        n_features: how many features each model has to carry.
        n_hidden: through so many dimensions.
        steps: of training.
        batch: inputs in a step.
        seed: of the weights and the inputs.

    Returns:
        The models and their losses.

    Raises:
        InputError: probabilities that are none.
    """
    if not probabilities or not all(0 < p <= 1 for p in probabilities):
        raise InputError(f"probabilities: expected numbers above 0 and up to 1, got {list(probabilities)}.")
    generator = torch.Generator().manual_seed(seed)
    present = torch.tensor(probabilities)[:, None, None]
    n = len(probabilities)
    W = (torch.randn(n, n_hidden, n_features, generator=generator) * 0.3).requires_grad_()
    bias = torch.zeros(n, n_features, requires_grad=True)
    importance = 0.9 ** torch.arange(n_features)
    optimiser = torch.optim.Adam([W, bias], lr=0.02)
    for _ in range(steps):
        draw = torch.rand(2, n, batch, n_features, generator=generator)
        x = draw[0] * (draw[1] < present)
        hidden = torch.einsum("mhf,mbf->mbh", W, x)
        out = torch.relu(torch.einsum("mhf,mbh->mbf", W, hidden) + bias[:, None])
        loss = (importance * (out - x) ** 2).mean(dim=(1, 2))
        optimiser.zero_grad()
        (loss / present.flatten()).sum().backward()  # rare features give small losses: weigh the models alike
        optimiser.step()
    return ToyModels(list(probabilities), W.detach(), bias.detach(), loss.detach().tolist())


def interference(directions: Tensor) -> Tensor:
    """Cosine of every direction with every other, the diagonal set to zero.

    Args:
        directions: [n, d].

    Returns:
        [n, n], from -1 to 1.

    Raises:
        InputError: no [n, d].
    """
    check_axes("directions", directions, "n", "d")
    unit = directions / directions.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return (unit @ unit.T).fill_diagonal_(0.0)
