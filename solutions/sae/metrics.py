"""How good is an SAE? Every measure is defined once, here, on plain tensors.

Three questions, three groups: how well it reconstructs (`mse`, `fvu`, `explained_variance`, `cosine`), how
sparse it is (`l0`, `l1`), how its latents share the work (`density`, `dead_latents`, `dense_latents`,
`density_histogram`). `solutions.sae.evaluate` takes them over a whole text, and asks the fourth question: what
the language model loses.

All of them expect activations of real tokens: leave BOS and padding out first (`tokens.content`). The norm of
BOS is tens of times that of a token, so that one vector a text would decide the result alone.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from solutions.errors import InputError, check_count, check_tensor

#: A latent that fires on more than this share of the tokens counts as dense.
DENSE = 0.1

# ---- how well it reconstructs


def mse(x: Tensor, x_hat: Tensor) -> float:
    """Mean squared error of a token: the squared distance from `x` to `x_hat`, averaged over tokens.

    Summed over the d numbers of a vector, not averaged over them. Papers and libraries differ by that factor
    d; this is the convention of SAELens's evaluation.

    Args:
        x: [..., d] activations.
        x_hat: their reconstruction, same shape.

    Returns:
        In squared units of the activations.

    Raises:
        InputError: the two have different shapes, or are no floating-point tensors.
    """
    x, x_hat = _pair(x, x_hat)
    return (x - x_hat).double().square().sum(dim=-1).mean().item()


def variance(x: Tensor) -> float:
    """Total variance of activations [..., d]: mean squared distance from their mean, summed over the d numbers.

    Args:
        x: [..., d] activations.

    Returns:
        In squared units of the activations.

    Raises:
        InputError: no floating-point tensor.
    """
    check_tensor(x, "x")
    x = x.reshape(-1, x.shape[-1])
    return (x - x.mean(dim=0)).double().square().sum(dim=-1).mean().item()


def fvu(x: Tensor, x_hat: Tensor) -> float:
    """Fraction of variance unexplained: `mse` over `variance`, that is 1 - `explained_variance`.

    Args:
        x: [..., d] activations.
        x_hat: their reconstruction, same shape.

    Returns:
        0 for a perfect reconstruction, exactly 1 for always predicting the mean, more for anything worse.

    Raises:
        InputError: different shapes, or no variance: a single token, or the same one again and again.
    """
    x, x_hat = _pair(x, x_hat)
    if x.shape[0] < 2:
        raise InputError("explained variance needs at least two tokens: one token has no variance.")
    # Asked of the rows: the mean of equal numbers may be off by a rounding, and then their variance is not zero.
    total = 0.0 if bool((x == x[0]).all()) else variance(x)
    return _unexplained(mse(x, x_hat), total)


def _unexplained(error: float, total: float) -> float:
    """The ratio behind `fvu`; `error` and `total` may come from one tensor or from a stream of them."""
    if total == 0:
        raise InputError("every row of x is the same, so there is no variance to explain.")
    return error / total


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

    Raises:
        InputError: different shapes, or no variance: a single token, or the same one again and again.

    Example:
        >>> x = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
        >>> explained_variance(x, x), explained_variance(x, x.mean(0).expand(2, 2))
        (1.0, 0.0)
    """
    return 1 - fvu(x, x_hat)


def cosine(x: Tensor, x_hat: Tensor) -> float:
    """Mean over tokens of the cosine between an activation and its reconstruction.

    It sees directions only: a reconstruction that is too short everywhere ("shrinkage") still scores 1. It is
    taken around the origin, so on activations with a large mean it is high for almost anything: compare it
    with that of the mean. A vector of zeros has no direction and counts as 0.

    Args:
        x: [..., d] activations.
        x_hat: their reconstruction, same shape.

    Returns:
        From -1 to 1.

    Raises:
        InputError: the two have different shapes, or are no floating-point tensors.
    """
    x, x_hat = _pair(x, x_hat)
    return torch.nn.functional.cosine_similarity(x.double(), x_hat.double(), dim=-1).mean().item()


def _pair(x: Tensor, x_hat: Tensor) -> tuple[Tensor, Tensor]:
    """Both as [n, d], after checking that they belong together."""
    check_tensor(x, "x")
    check_tensor(x_hat, "x_hat", device=x.device)
    if x.shape != x_hat.shape:
        raise InputError(
            f"x and x_hat must have the same shape, got {list(x.shape)} and {list(x_hat.shape)}."
        )
    return x.reshape(-1, x.shape[-1]), x_hat.reshape(-1, x.shape[-1])


# ---- how sparse it is


def l0(features: Tensor) -> Tensor:
    """How many latents are active on each token: [..., d_sae] to [...].

    Args:
        features: [..., d_sae] latent activations.

    Returns:
        [...] whole numbers.

    Raises:
        InputError: no floating-point tensor.

    Example:
        >>> l0(torch.tensor([[0.0, 2.0, 0.0], [0.0, 1.0, 3.0]]))
        tensor([1, 2])
    """
    return (check_tensor(features, "features") != 0).sum(dim=-1)


def l1(features: Tensor) -> Tensor:
    """Sum of the sizes of the latent activations of each token: [..., d_sae] to [...].

    Decoder norms are left out. SAEs whose decoder rows are not of length 1 can only be compared after scaling
    the activations by them.

    Args:
        features: [..., d_sae] latent activations.

    Returns:
        [...].

    Raises:
        InputError: no floating-point tensor.
    """
    return check_tensor(features, "features").abs().sum(dim=-1)


# ---- how its latents share the work


def density(features: Tensor) -> Tensor:
    """The share of tokens each latent is active on: [..., d_sae] to [d_sae] float64, from 0 to 1.

    Args:
        features: [..., n, d_sae] latent activations.

    Returns:
        [d_sae] float64.

    Raises:
        InputError: no floating-point tensor, or one without an axis of tokens.

    Example:
        >>> density(torch.tensor([[0.0, 2.0, 0.0], [0.0, 1.0, 3.0]]))
        tensor([0.0000, 1.0000, 0.5000], dtype=torch.float64)
    """
    check_tensor(features, "features")
    if features.ndim < 2:
        raise InputError(f"features must have shape [n, d_sae], got {list(features.shape)}.")
    rows = features.reshape(-1, features.shape[-1])
    return (rows != 0).sum(dim=0).double() / len(rows)


def _as_density(given: Tensor, name: str) -> Tensor:
    """Latent activations [..., n, d_sae] or a density [d_sae] that has been measured already, to a density."""
    check_tensor(given, name)
    if given.ndim > 1:
        return density(given)
    if not ((given >= 0) & (given <= 1)).all():  # also refuses nan
        raise InputError(
            f"{name} of shape {list(given.shape)} must be a density: shares of tokens from 0 to 1. "
            "Latent activations have shape [n, d_sae]."
        )
    return given.double()


def dead_latents(features: Tensor) -> Tensor:
    """The latents that fire on no token.

    Dead means: not on these tokens. On a handful of texts most latents of a good SAE are silent; say how many
    tokens were read whenever you quote the number.

    Args:
        features: [..., n, d_sae] latent activations, or a density [d_sae] from `density`.

    Returns:
        [n_dead] their numbers, ascending.

    Raises:
        InputError: no floating-point tensor.

    Example:
        >>> features = torch.tensor([[0.0, 2.0, 0.0], [0.0, 1.0, 3.0]])
        >>> dead_latents(features)
        tensor([0])
    """
    return (_as_density(features, "features") == 0).nonzero().flatten()


def dense_latents(features: Tensor, above: float = DENSE) -> Tensor:
    """The latents that fire on more than the share `above` of the tokens.

    Args:
        features: [..., n, d_sae] latent activations, or a density [d_sae] from `density`.
        above: the limit, from 0 to 1.

    Returns:
        [n_dense] their numbers, ascending.

    Raises:
        InputError: `above` is no share of tokens.
    """
    if not isinstance(above, int | float) or not 0 <= above < 1:
        raise InputError(f"above must be a share of tokens, from 0 up to but not including 1, got {above!r}.")
    return (_as_density(features, "features") > above).nonzero().flatten()


class DensityHistogram(NamedTuple):
    """How many latents are how dense, on a logarithmic scale."""

    counts: Tensor
    """[bins] int64: latents with log10(density) in [edge, next edge); the last bin includes its upper end, 0."""
    edges: Tensor
    """[bins + 1] float64: ends of the bins as log10 of the density; -2 means one token in a hundred."""
    n_dead: int
    """Latents that never fire. log10(0) is no number, so they stand in no bin."""


def density_histogram(features: Tensor, bins_per_decade: int = 4) -> DensityHistogram:
    """How many latents are how dense, in bins of log10(density) (the plot of Bricken et al. 2023).

    The bins reach from the decade of the rarest latent that fires up to 0 (every token). No latent is lost:
    the counts and `n_dead` add up to d_sae.

    Args:
        features: [..., n, d_sae] latent activations, or a density [d_sae] from `density`.
        bins_per_decade: how many bins between 0.001 and 0.01, between 0.01 and 0.1, and so on.

    Returns:
        Edges and counts of the bins, and the number of dead latents.

    Raises:
        InputError: `bins_per_decade` is no whole number above 0.
    """
    shares = _as_density(features, "features")
    per_decade = check_count(bins_per_decade, "bins_per_decade")
    # A density measured in float32 can lie a hair below the power of ten it stands for: 0.01 is 0.0099999998.
    logs = shares[shares > 0].log10().mul(1e6).round().div(1e6)
    decades = max(1, math.ceil(-logs.min().item())) if len(logs) else 1
    n_bins = decades * per_decade
    place = ((logs + decades) * per_decade + 1e-9).long().clamp(0, n_bins - 1)
    edges = torch.arange(n_bins + 1, dtype=torch.float64) / per_decade - decades
    return DensityHistogram(
        torch.bincount(place.cpu(), minlength=n_bins), edges, int((shares == 0).sum())
    )


# ---- over a stream


class Running:
    """The measures above over a stream of batches, without keeping the batches.

    All but the variance are means over tokens, so batches are averaged by their number of tokens. The variance
    of a whole is more than the mean variance of its parts: what the means of the parts are apart comes on top
    (Chan, Golub & LeVeque 1983). Sums are kept in float64.
    """

    def __init__(self) -> None:
        self.n = 0
        self.mean: Tensor | float = 0.0  # [d_in], of x
        self._spread = 0.0  # summed squared distance of x from its mean
        self._only: Tensor | None = None  # [d_in], the row that all rows so far are; None once they differ
        self._sums = dict.fromkeys(("mse", "cosine", "l0", "l1"), 0.0)
        self._fired: Tensor | int = 0  # [d_sae]

    def add(self, x: Tensor, x_hat: Tensor, features: Tensor) -> None:
        """Take in one batch: x and x_hat [n, d_in], features [n, d_sae].

        Args:
            x: [n, d_in] activations.
            x_hat: [n, d_in] their reconstructions.
            features: [n, d_sae] their latents.

        Raises:
            InputError: the three do not fit together.
        """
        x, x_hat = _pair(x, x_hat)
        if features.ndim != 2 or len(features) != len(x):
            raise InputError(f"features must be [{len(x)}, d_sae], a row for each of x, got {list(features.shape)}.")
        n = len(x)
        only = x[0].clone() if self.n == 0 else self._only
        self._only = only if only is not None and bool((x == only).all()) else None
        apart = x.mean(dim=0).double() - self.mean
        self._spread += n * variance(x) + apart.square().sum().item() * self.n * n / (self.n + n)
        self.mean = self.mean + apart * n / (self.n + n)
        self.n += n
        batch = (mse(x, x_hat), cosine(x, x_hat), l0(features).double().mean().item(), l1(features).mean().item())
        for name, value in zip(self._sums, batch, strict=True):
            self._sums[name] += n * value
        self._fired = self._fired + (features != 0).sum(dim=0)

    def density(self) -> Tensor:
        """[d_sae] float64: the share of tokens each latent fired on.

        Raises:
            InputError: nothing has been added yet.
        """
        self._check()
        return self._fired.double() / self.n

    def means(self) -> dict[str, float]:
        """mse, cosine, l0, l1, fvu and explained_variance over everything so far.

        Raises:
            InputError: nothing has been added yet.
        """
        self._check()
        means = {name: total / self.n for name, total in self._sums.items()}
        unexplained = _unexplained(means["mse"], self._spread / self.n if self._only is None else 0.0)
        return means | {"fvu": unexplained, "explained_variance": 1 - unexplained}

    def _check(self) -> None:
        if self.n < 2:
            raise InputError(f"explained variance needs at least two tokens, and {self.n} have been read.")
