"""Implementations of explained variance: four that are right, and nine that are wrong in ways people are wrong."""

from __future__ import annotations

import torch
from torch import Tensor

from labs.checks.lab06.judging import Implementation


def explained_variance(x: Tensor, x_hat: Tensor, keep: Tensor) -> float:
    """The share of the variance of the kept tokens that a reconstruction explains: 0 for their mean, 1 for a copy."""
    x, x_hat = x[keep].double(), x_hat[keep].double()
    return 1 - ((x - x_hat) ** 2).sum().item() / ((x - x.mean(0)) ** 2).sum().item()


def _in_float32(x, x_hat, keep):
    error = torch.nn.functional.mse_loss(x_hat[keep].float(), x[keep].float())
    return 1 - error / x[keep].float().var(0, unbiased=False).mean()  # a tensor: a fair answer, too


def _token_by_token(x, x_hat, keep):
    rows = [i for i, kept in enumerate(keep.tolist()) if kept]
    mean = sum(x[i].float() for i in rows) / len(rows)
    error = sum(float((x[i] - x_hat[i]).float() @ (x[i] - x_hat[i]).float()) for i in rows)
    return 1 - error / sum(float((x[i] - mean).float().pow(2).sum()) for i in rows)


def _by_moments(x, x_hat, keep):
    x, x_hat = x[keep].double(), x_hat[keep].double()
    spread = x.pow(2).mean(0) - x.mean(0).pow(2)
    return float(1 - (x - x_hat).pow(2).mean(0).sum() / spread.sum())


def _ratio(error: Tensor, spread: Tensor) -> float:
    return 1 - float(error.double().pow(2).sum() / spread.double().pow(2).sum())


def _around_zero(x, x_hat, keep):
    return _ratio((x - x_hat)[keep], x[keep])


def _padding_kept(x, x_hat, keep):
    return _ratio(x - x_hat, x - x.mean(0))


def _mean_with_padding(x, x_hat, keep):
    return _ratio((x - x_hat)[keep], (x - x.mean(0))[keep])


def _one_mean(x, x_hat, keep):
    return _ratio((x - x_hat)[keep], x[keep] - x[keep].mean())


def _mean_over_dimensions(x, x_hat, keep):
    error, spread = (x - x_hat)[keep].pow(2).sum(0), (x[keep] - x[keep].mean(0)).pow(2).sum(0)
    return float((1 - error / spread).mean())


def _squared_correlation(x, x_hat, keep):
    a, b = x[keep] - x[keep].mean(0), x_hat[keep] - x_hat[keep].mean(0)
    return float((a * b).sum() ** 2 / (a.pow(2).sum() * b.pow(2).sum()))


def _never_negative(x, x_hat, keep):
    return max(0.0, explained_variance(x, x_hat, keep))


def _swapped(x, x_hat, keep):
    return explained_variance(x_hat, x, keep)


def _in_place(x, x_hat, keep):
    found = explained_variance(x, x_hat, keep)
    x -= x[keep].mean(0)
    return found


DIRECT = Implementation("direct", explained_variance, True)
RIGHT = (
    DIRECT,
    Implementation("in float32", _in_float32, True),
    Implementation("token by token", _token_by_token, True),
    Implementation("by moments", _by_moments, True),
)
WRONG = (
    Implementation(
        "around zero", _around_zero, False, "measures the variance around zero, not around the mean"
    ),
    Implementation("padding kept", _padding_kept, False, "ignores `keep`"),
    Implementation("never negative", _never_negative, False, "never returns less than 0"),
    Implementation(
        "one mean", _one_mean, False, "takes one mean over all numbers, not one for each dimension"
    ),
    Implementation(
        "mean with padding",
        _mean_with_padding,
        False,
        "leaves padding out of the sums but not out of the mean",
    ),
    Implementation(
        "mean over dimensions",
        _mean_over_dimensions,
        False,
        "works out a value for each dimension and averages those",
    ),
    Implementation(
        "squared correlation",
        _squared_correlation,
        False,
        "returns a squared correlation, which does not mind a reconstruction of half the size",
    ),
    Implementation("swapped", _swapped, False, "divides by the variance of the reconstruction"),
    Implementation("in place", _in_place, False, "subtracts the mean from the caller's own `x`"),
)
