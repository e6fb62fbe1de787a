"""What activations look like before any SAE sees them: sizes, shapes of distributions, dimensions, neighbours.

Everything takes plain tensors. `x` is always [tokens, d] with padding left out, and BOS left out as well
unless a function says otherwise; lengths and variances are in the model's own units.
"""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor

from solutions.analysis.shapes import check_axes, same_length
from solutions.errors import InputError, check_count

# ---- single dimensions


def kurtosis(x: Tensor) -> Tensor:
    """How heavy each dimension's tails are, [d]: the fourth moment about the mean over the squared variance.

    3 for a Gaussian, more when a dimension is mostly quiet and now and then very large. A dimension that
    never changes has none: it gives NaN. Source: Elhage et al. 2023, who use it to find privileged bases.

    Args:
        x: [tokens, d].

    Returns:
        [d].

    Raises:
        InputError: no [tokens, d].
    """
    centred = check_axes("x", x, "tokens", "d").double()
    centred = centred - centred.mean(0)
    variance = centred.square().mean(0)
    still = variance <= 1e-12 * centred.square().amax(0).clamp(min=1)
    return (centred.pow(4).mean(0) / variance.square()).masked_fill(still, torch.nan).to(x.dtype)


def random_rotation(d: int, seed: int = 0) -> Tensor:
    """A rotation (or reflection) of d dimensions, drawn evenly from all of them.

    `x @ random_rotation(d)` has the same lengths and angles as x, but its axes are arbitrary. What differs
    between the two is due to the axes. The signs make the draw even (Mezzadri 2007, section 5).

    Args:
        d: dimensions.
        seed: the same seed gives the same result.

    Returns:
        [d, d], orthogonal.

    Raises:
        InputError: a number below 1.
    """
    check_count(d, "d")
    drawn = torch.randn(d, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    q, r = torch.linalg.qr(drawn)
    return (q * r.diagonal().sign()).float()


def outlier_dimensions(x: Tensor, k: int = 5) -> pd.DataFrame:
    """The largest dimensions, and how far they stand out.

    Args:
        x: [tokens, d].
        k: how many.

    Returns:
        dimension, size (root mean square, model units), times_median (size over the median dimension's size),
        share (of the squared length of all tokens together) and constant (the part of that dimension's square
        that is its mean: near 1, it says the same on every token).

    Raises:
        InputError: no [tokens, d], or more dimensions than there are.
    """
    check_axes("x", x, "tokens", "d")
    if not 1 <= k <= x.shape[1]:
        raise InputError(f"k: expected 1 to {x.shape[1]} (the number of dimensions), got {k}.")
    square = x.double().square().mean(0)
    size = square.sqrt()
    largest = size.topk(k).indices
    return pd.DataFrame({
        "dimension": largest.tolist(),
        "size": size[largest].tolist(),
        "times_median": (size[largest] / size.median().clamp(min=1e-12)).tolist(),
        "share": (square[largest] / square.sum().clamp(min=1e-12)).tolist(),
        "constant": (x.double().mean(0).square() / square.clamp(min=1e-12))[largest].tolist(),
    })


# ---- lengths


def norms_by_position(x: Tensor, position: Tensor) -> pd.DataFrame:
    """Length of the activation vector at each position of a text; BOS, at position 0, belongs in here.

    Args:
        x: [tokens, d].
        position: [tokens] int, counted from 0.

    Returns:
        A row for each position that occurs, with position, n (tokens), mean, low and high (10th and 90th
        percentile), in model units.

    Raises:
        InputError: tensors that do not fit together.
    """
    check_axes("x", x, "tokens", "d")
    check_axes("position", position, "tokens")
    same_length(x=x, position=position)
    groups = pd.Series(x.float().norm(dim=1).tolist()).groupby(position.tolist())
    table = pd.DataFrame({
        "n": groups.size(), "mean": groups.mean(), "low": groups.quantile(0.1), "high": groups.quantile(0.9),
    })
    return table.rename_axis("position").reset_index()


def mean_cosine(x: Tensor, pairs: int = 10_000, seed: int = 0) -> float:
    """Mean cosine between two tokens drawn at random: 0 when all directions are equally used.

    Far above 0, tokens point into one narrow cone ("anisotropy", Ethayarajh 2019).

    Args:
        x: [tokens, d].
        pairs: how many are drawn.
        seed: of the draw.

    Returns:
        From -1 to 1.

    Raises:
        InputError: no [tokens, d], or a single token.
    """
    check_axes("x", x, "tokens", "d")
    if len(x) < 2:
        raise InputError(f"x: expected at least two tokens, got {len(x)}.")
    dice = torch.Generator().manual_seed(seed)
    first = torch.randint(len(x), (check_count(pairs, "pairs"),), generator=dice)
    step = torch.randint(1, len(x), (pairs,), generator=dice)     # never the token itself
    other = (first + step) % len(x)
    return torch.cosine_similarity(x[first].float(), x[other].float()).mean().item()


# ---- how many dimensions are used


def covariance_spectrum(x: Tensor) -> Tensor:
    """Variance along each principal direction, largest first, [d], in squared model units.

    The eigenvalues of the covariance matrix; their sum is the total variance.

    Args:
        x: [tokens, d] activations.

    Returns:
        [d].

    Raises:
        InputError: no [tokens, d], or a single token.
    """
    check_axes("x", x, "tokens", "d")
    if len(x) < 2:
        raise InputError(f"x: expected at least two tokens, one has no variance; got {len(x)}.")
    centred = x.double() - x.double().mean(0)
    return torch.linalg.eigvalsh(centred.T @ centred / len(x)).flip(0).clamp(min=0).to(x.dtype)


def effective_dimension(spectrum: Tensor) -> float:
    """How many dimensions the variance is spread over: the participation ratio (sum of λ)² / sum of λ².

    Args:
        spectrum: [d] from `covariance_spectrum`.

    Returns:
        d when all directions vary alike, 1 when a single one does.

    Raises:
        InputError: a negative variance, or none above zero.

    Example:
        >>> effective_dimension(torch.tensor([1.0, 1.0, 0.0]))
        2.0
    """
    values = check_axes("spectrum", spectrum, "d").double()
    if (values < 0).any() or values.sum() <= 0:
        raise InputError("spectrum: expected variances, none negative and not all zero.")
    return (values.sum().square() / values.square().sum()).item()


def dimensions_for(spectrum: Tensor, share: float = 0.9) -> int:
    """The smallest number of principal directions that holds this share of the variance.

    Args:
        spectrum: [d] from `covariance_spectrum`.
        share: above 0 and up to 1.

    Returns:
        From 1 to d.

    Raises:
        InputError: no spectrum, or no such share.
    """
    check_axes("spectrum", spectrum, "d")
    if not 0 < share <= 1:
        raise InputError(f"share: expected a number above 0 and up to 1, got {share}.")
    held = spectrum.double().cumsum(0) / spectrum.double().sum()
    return int((held < share - 1e-9).sum()) + 1


def shuffle_dimensions(x: Tensor, seed: int = 0) -> Tensor:
    """A control for spectra: each dimension keeps its values and forgets which token they belong to.

    What dimensions have to do with one another is destroyed; their single distributions stay as they were.

    Args:
        x: [tokens, d].
        seed: of the shuffle.

    Returns:
        [tokens, d].

    Raises:
        InputError: no [tokens, d].
    """
    check_axes("x", x, "tokens", "d")
    order = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)).argsort(0)
    return x.gather(0, order.to(x.device))


# ---- tokens of one text resemble one another


def neighbour_correlation(x: Tensor, document: Tensor, lags: list[int]) -> pd.DataFrame:
    """How alike two tokens of one document are, by their distance in tokens.

    Args:
        x: [tokens, d] in reading order.
        document: [tokens] int, the document each token belongs to.
        lags: the distances.

    Returns:
        lag, correlation and n (pairs). The correlation is the mean inner product of the two centred vectors
        over the variance: 1 for copies, 0 for strangers. Lags without any pair are left out.

    Raises:
        InputError: tensors that do not fit together, or a distance below 1.
    """
    check_axes("x", x, "tokens", "d")
    check_axes("document", document, "tokens")
    same_length(x=x, document=document)
    centred = x.float() - x.float().mean(0)
    variance = centred.square().sum(1).mean()
    rows = []
    for lag in lags:
        same = document[check_count(lag, "lag"):] == document[:-lag]
        if same.any():
            products = (centred[lag:][same] * centred[:-lag][same]).sum(1)
            rows.append((lag, (products.mean() / variance).item(), int(same.sum())))
    return pd.DataFrame(rows, columns=["lag", "correlation", "n"])


def effective_batch(x: Tensor, batch_size: int, order: Tensor | None = None) -> float:
    """How many independent tokens one batch is worth, judged by how much the batch means scatter.

    Batches are taken one after another, an incomplete last one is left out. Shuffled tokens are worth about
    `batch_size`. If neighbours resemble one another, a batch in reading order is worth less: variance of a
    token / variance of a batch mean, the usual effective sample size.

    Args:
        x: [tokens, d], activations or per-token gradients, in the order in which they are read.
        batch_size: tokens in a batch.
        order: [tokens] int, another order to read them in.

    Returns:
        Tokens.

    Raises:
        InputError: fewer than two batches.
    """
    check_axes("x", x, "tokens", "d")
    n_batches = len(x) // check_count(batch_size, "batch_size")
    if n_batches < 2:
        raise InputError(f"batch_size: expected at most half of the {len(x)} tokens, got {batch_size}.")
    x = x if order is None else x[order]
    x = x[: n_batches * batch_size].double()
    x = x - x.mean(0)
    means = x.view(n_batches, batch_size, -1).mean(1)
    variance = x.square().sum() / (len(x) - 1)
    scatter = means.square().sum() / (n_batches - 1)
    return (variance / scatter.clamp(min=1e-300)).item()
