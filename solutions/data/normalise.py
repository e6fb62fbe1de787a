"""Mean, variance and length of activations in one pass, and the scaling SAEs are trained with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from solutions.errors import InputError, check_tensor


class Normalisation(NamedTuple):
    """What activations look like, and how to bring them to a size that does not depend on the model.

    SAEs for several models share their hyperparameters when every model's vectors are scaled by one number,
    `scale`, to the mean length sqrt(d) (SAELens calls this `expected_average_only_in`).
    """

    mean: Tensor      #: [d] float32 mean of each dimension
    variance: Tensor  #: [d] float32 variance of each dimension, divided by n as in `x.var(0, correction=0)`
    mean_norm: float  #: mean length of a token's vector
    n: int            #: how many tokens were counted

    @property
    def scale(self) -> float:
        """The number c for which c·x has the mean length sqrt(d).

        Raises:
            InputError: all activations are zero.
        """
        if not self.mean_norm > 0:
            raise InputError("these activations are all zero: no scale gives them a length.")
        return len(self.mean) ** 0.5 / self.mean_norm

    def apply(self, x: Tensor) -> Tensor:
        """Activations [..., d] as the model gives them → scaled.

        Args:
            x: [..., d].

        Returns:
            [..., d], as long as before times `scale`.

        Raises:
            InputError: another width.
        """
        return check_tensor(x, "x", last=len(self.mean)) * self.scale

    def undo(self, x: Tensor) -> Tensor:
        """Scaled activations [..., d] → as the model gives them.

        Args:
            x: [..., d].

        Returns:
            [..., d], as long as before divided by `scale`.

        Raises:
            InputError: another width.
        """
        return check_tensor(x, "x", last=len(self.mean)) / self.scale

    def fold_into(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of an SAE that was trained on scaled activations, for activations as they are.

        Args:
            weights: the SAE's `W_enc` [d, d_sae], `b_enc` [d_sae], `W_dec` [d_sae, d], `b_dec` [d], and
                whatever else it has (`threshold`, ...).

        Returns:
            New weights. With them `encode(x)` gives what `encode(apply(x))` gave. Latents keep their size, so
            `b_enc` and thresholds stay. `decode` gives `undo` of what it gave.

        Raises:
            InputError: a weight is missing, or of another width.
        """
        missing = [name for name in ("W_enc", "b_enc", "W_dec", "b_dec") if name not in weights]
        if missing:
            raise InputError(f"the SAE's weights lack {', '.join(missing)}: found {', '.join(weights)}.")
        if weights["W_dec"].shape[-1] != len(self.mean):
            raise InputError(
                f"the SAE reads {weights['W_dec'].shape[-1]} dimensions, these activations have {len(self.mean)}."
            )
        c = self.scale
        folded = {"W_enc": weights["W_enc"] * c, "W_dec": weights["W_dec"] / c, "b_dec": weights["b_dec"] / c}
        return {name: folded.get(name, w.clone()) for name, w in weights.items()}


def measure_normalisation(batches: Iterable[Tensor]) -> Normalisation:
    """Mean, variance and mean length over batches [n, d], seen once and not kept.

    Summing squares loses all digits when the mean is large against the spread. Here each batch has its own
    mean and its own squared deviations, and two counts are put together as they should be (Chan, Golub and
    LeVeque 1983, "Algorithms for computing the sample variance", equation 2.1).

    Args:
        batches: [n, d] each, n may differ.

    Returns:
        What they look like together.

    Raises:
        InputError: there is no batch, or one of another shape.

    Example:
        >>> one, two = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 6.0], [5.0, 10.0]])
        >>> measured = measure_normalisation([one, two])
        >>> measured.mean, measured.n
        (tensor([3., 6.]), 3)
        >>> round(measured.apply(torch.tensor([[3.0, 6.0]])).norm().item(), 2)
        1.41
    """
    n, mean, squares, norms = 0, torch.zeros(()), torch.zeros(()), 0.0
    for x in batches:
        x = check_tensor(x, "a batch", shape="n d").double()
        m, own = len(x), x.mean(dim=0)
        step = own - mean
        mean = mean + step * (m / (n + m))
        squares = squares + (x - own).square().sum(dim=0) + step.square() * (n * m / (n + m))
        norms += x.norm(dim=1).sum().item()
        n += m
    if not n:
        raise InputError("there is no token to measure: every one is BOS, or belongs to the other split.")
    return Normalisation(mean.float(), (squares / n).float(), norms / n, n)  # summed in float64
