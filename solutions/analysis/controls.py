"""Controls: other directions than an SAE's, and how pure each one is."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from solutions.analysis.shapes import check_axes, same_length
from solutions.errors import InputError


def random_directions(n: int, d: int, seed: int = 0) -> Tensor:
    """Directions drawn evenly from the unit sphere.

    Args:
        n: how many.
        d: dimensions.
        seed: the same seed gives the same result.

    Returns:
        [n, d], each of length 1.

    Raises:
        InputError: a number below 1.
    """
    if n < 1 or d < 1:
        raise InputError(f"Expected n and d of 1 or more, got n={n}, d={d}.")
    drawn = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    return drawn / drawn.norm(dim=1, keepdim=True)


def pca_directions(x: Tensor, n: int | None = None) -> Tensor:
    """The unit directions along which the activations vary most, largest variance first.

    Args:
        x: [tokens, d] activations.
        n: how many; all d by default.

    Returns:
        [n, d].

    Raises:
        InputError: no [tokens, d], or more directions than there are.
    """
    check_axes("x", x, "tokens", "d")
    n = min(x.shape) if n is None else n
    if not 1 <= n <= min(x.shape):
        raise InputError(f"n: expected 1 to {min(x.shape)} for x of shape {list(x.shape)}, got {n}.")
    centred = (x - x.mean(0)).double()
    _, vectors = torch.linalg.eigh(centred.T @ centred)  # ascending eigenvalues
    return vectors.flip(1).T[:n].to(x.dtype)


def project(x: Tensor, directions: Tensor, two_sided: bool = False, keep: int | None = None) -> Tensor:
    """Read directions as if they were latents: how far each token lies along each.

    The mean is taken off and negative values are cut to zero, as an SAE's ReLU does.

    Args:
        x: [tokens, d].
        directions: [n, d].
        two_sided: each direction gives two columns, one a side: the sign of a principal component means
            nothing.
        keep: only so many columns of each token, the strongest, stay; the rest is set to zero: directions
            made as sparse as an SAE.

    Returns:
        [tokens, n], with `two_sided` [tokens, 2n], none negative.

    Raises:
        InputError: another width, or more columns to keep than there are.

    Example:
        >>> project(torch.tensor([[1.0], [3.0]]), torch.tensor([[1.0]]), two_sided=True)
        tensor([[0., 1.],
                [1., 0.]])
    """
    check_axes("x", x, "tokens", "d")
    check_axes("directions", directions, "n", "d")
    if x.shape[1] != directions.shape[1]:
        raise InputError(f"x has d {x.shape[1]}, directions have {directions.shape[1]}: they must agree.")
    along = (x - x.mean(0)) @ directions.T
    along = torch.relu(torch.cat([along, -along], dim=1) if two_sided else along)
    if keep is None:
        return along
    if not 1 <= keep <= along.shape[1]:
        raise InputError(f"keep: expected 1 to {along.shape[1]} (the number of columns), got {keep}.")
    strongest = along.topk(keep, dim=1)
    return torch.zeros_like(along).scatter_(1, strongest.indices, strongest.values)


class Purity(NamedTuple):
    """How pure each latent is, and for what."""
    score: Tensor     #: [live latents] 1 when everything counted has the concept, 0 when no more than chance
    concept: Tensor   #: [live latents], index of the concept that scores best
    live: Tensor      #: [live latents], which latents these are


def beyond_chance(share: Tensor, base: Tensor) -> Tensor:
    """Shares [latents, concepts] beside the concepts' base rates [concepts]: 1 is everything, 0 no more than chance."""
    base = base.clamp(max=1 - 1e-6)
    return (share - base) / (1 - base)


def top_share(features: Tensor, labels: Tensor, k: int) -> Tensor:
    """Of the k tokens on which each latent is strongest, the share with each concept, [latents, concepts].

    features: [tokens, latents]; labels: [tokens, concepts] float. Tokens on which a latent is not active do not count.
    """
    values, strongest = features.topk(k, dim=0)  # [k, latents]
    counted = (values > 0).to(labels)
    share = torch.stack([c @ labels[rows] for c, rows in zip(counted.T, strongest.T, strict=True)])
    return share / counted.sum(0).clamp(min=1)[:, None]


def mass_share(features: Tensor, labels: Tensor) -> Tensor:
    """Of all of each latent's activation, the share that falls on tokens with each concept, [latents, concepts]."""
    return (features.T @ labels) / features.sum(0).clamp(min=1e-9)[:, None]


def _purity(share: Tensor, base: Tensor, live: Tensor) -> Purity:
    """Correct shares [latents, concepts] for chance and keep each live latent's best concept."""
    score, concept = beyond_chance(share, base).max(dim=1)
    return Purity(score[live], concept[live], live.nonzero().flatten())


def _purity_inputs(features: Tensor, labels: Tensor, min_active: int) -> tuple[Tensor, Tensor, Tensor]:
    check_axes("features", features, "tokens", "latents")
    check_axes("labels", labels, "tokens", "concepts")
    same_length(features=features, labels=labels)
    labels = labels.float()
    return labels, labels.mean(0), (features > 0).sum(0) >= min_active


def top_k_purity(features: Tensor, labels: Tensor, k: int = 50, min_active: int = 20) -> Purity:
    """Of the k tokens on which a latent is strongest, how many share one concept?

    Each latent is scored with its best concept, corrected for how common that concept is: (share - base rate)
    / (1 - base rate). This looks at the strongest tokens only, which flatters any direction at all.

    Args:
        features: [tokens, latents].
        labels: [tokens, concepts] bool.
        k: how many tokens. A latent active on fewer is judged on those.
        min_active: latents active on fewer tokens are left out.

    Returns:
        Purity and concept of each latent that is left.

    Raises:
        InputError: tensors that do not fit together, or more tokens than there are.
    """
    labels, base, live = _purity_inputs(features, labels, min_active)
    if not 1 <= k <= len(features):
        raise InputError(f"k: expected 1 to {len(features)} (the number of tokens), got {k}.")
    return _purity(top_share(features, labels, k), base, live)


def mass_purity(features: Tensor, labels: Tensor, min_active: int = 20) -> Purity:
    """Of all the activation a latent ever has, how much falls on tokens that share one concept?

    As `top_k_purity`, but every token counts by how strongly the latent is active there, so weak
    activations on unrelated tokens are no longer hidden.

    Args:
        features: [tokens, latents].
        labels: [tokens, concepts] bool.
        min_active: latents active on fewer tokens are left out.

    Returns:
        Purity and concept of each latent that is left.

    Raises:
        InputError: tensors that do not fit together.

    Example:
        >>> features, labels = torch.tensor([[3.0], [1.0], [0.0], [0.0]]), torch.tensor([[1], [0], [0], [0]])
        >>> mass_purity(features, labels.bool(), min_active=1)
        Purity(score=tensor([0.6667]), concept=tensor([0]), live=tensor([0]))
    """
    labels, base, live = _purity_inputs(features, labels, min_active)
    return _purity(mass_share(features, labels), base, live)
