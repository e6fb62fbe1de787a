"""A mean, and how sure it is: what it would have been with other latents, or with other tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from solutions.errors import check_count


class Mean(NamedTuple):
    """A mean of several values, and the ends of its 95 % bootstrap interval."""

    value: float  #: the mean
    low: float    #: 2.5 % of resampled means lie below it
    high: float   #: 2.5 % of resampled means lie above it
    n: int        #: values


def bootstrap_mean(values: Sequence[float] | np.ndarray, n_draws: int = 2000, seed: int = 0) -> Mean:
    """A mean and its 95 % interval, by drawing as many values again with replacement (Efron 1979).

    Args:
        values: [n] one for each thing that was sampled, a latent or a task; those that are NaN are left out.
        n_draws: how often.
        seed: of the draws.

    Returns:
        The mean and its interval; NaN without values.

    Raises:
        InputError: `n_draws` is below 1.

    Example:
        >>> bootstrap_mean([1.0, 1.0, 1.0])
        Mean(value=1.0, low=1.0, high=1.0, n=3)
    """
    values = np.asarray(values, float)
    values = values[~np.isnan(values)]
    if not len(values):
        return Mean(np.nan, np.nan, np.nan, 0)
    draws = np.random.default_rng(seed).choice(values, (check_count(n_draws, "n_draws"), len(values)))
    low, high = np.quantile(draws.mean(axis=1), (0.025, 0.975))
    return Mean(float(values.mean()), float(low), float(high), len(values))
