"""Comparing two dictionaries: which direction of one is which direction of the other, and how many have none.

Two SAEs number their latents differently, so they can only be compared after their latents have been matched.
The functions take directions, [n, d] each, for example two decoders `W_dec`: they serve as well for an SAE and
the true features of a toy. Lengths do not matter, signs do: a latent writes its direction, never the opposite.
"""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from solutions.analysis.controls import random_directions
from solutions.analysis.shapes import check_axes
from solutions.errors import InputError

#: Two directions count as the same from this cosine on (Paulo and Belrose 2025, section 3).
SHARED = 0.7

#: Pairs of directions for which an optimal matching is looked for: 16,384 against 16,384 take 3 GB and some minutes.
LARGEST = 1 << 28

#: Keeps the random directions of a control apart from those that an SAE of the same seed started from. (It has to fit
#: into 32 bits: of a larger seed torch's generator on a CPU takes the lower ones only.)
OWN_DICE = 0x5EED_0000


class Matching(NamedTuple):
    """One-to-one pairs of directions of a and b, as many as the smaller of the two has."""
    a: Tensor        #: [pairs] int64, ascending; the direction of a
    b: Tensor        #: [pairs] int64: its partner in b
    cosine: Tensor   #: [pairs]: the cosine of the two

    @property
    def mean(self) -> float:
        """The mean cosine of the pairs: 1 for two dictionaries that are the same but for the order.

        Called the mean correlation coefficient, MCC, by Song et al. 2025 (arXiv 2505.20254), who propose it as
        a measure of consistency. They take absolute values; here an opposite direction is another direction.
        """
        return self.cosine.mean().item()

    def share(self, at: float = SHARED) -> float:
        """The share of pairs with a cosine of at least `at`: the latents that both dictionaries have.

        Args:
            at: the cosine from which on two latents count as the same.
        """
        return (self.cosine >= at).float().mean().item()

    def table(self) -> pd.DataFrame:
        """One row per pair, the most alike first: a, b, cosine."""
        table = pd.DataFrame({"a": self.a.tolist(), "b": self.b.tolist(), "cosine": self.cosine.tolist()})
        return table.sort_values("cosine", ascending=False, kind="stable").reset_index(drop=True)


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of every direction of a with every direction of b.

    A direction of length zero has no direction: its cosines are 0.

    Args:
        a: [n_a, d].
        b: [n_b, d].

    Returns:
        [n_a, n_b], from -1 to 1.

    Raises:
        InputError: not two matrices of one width.
    """
    a, b = _pair(a, b)
    return _unit(a) @ _unit(b).T


def match_latents(a: Tensor, b: Tensor) -> Matching:
    """The one-to-one matching of two dictionaries with the largest sum of cosines.

    Found by the Hungarian algorithm (Kuhn 1955; here SciPy's `linear_sum_assignment`), which is exact and takes
    time that grows with the third power of the size. Each direction is used once: two latents that have both moved
    onto one feature cannot both be counted as having found it, as they would if each took its nearest neighbour.

    Args:
        a: [n_a, d] directions, for example `W_dec` of an SAE.
        b: [n_b, d] directions in the same space.

    Returns:
        The pairs and their cosines.

    Raises:
        InputError: not two matrices of one width, or too large; then draw a sample of a, or use
            `max_cosines`, which needs no matching.

    Example:
        >>> a = torch.eye(3)
        >>> match_latents(a, a[[2, 0, 1]]).mean
        1.0
    """
    a, b = _pair(a, b)
    if len(a) * len(b) > LARGEST:
        raise InputError(f"{len(a)} against {len(b)} directions are too many for an optimal matching. Draw a sample "
                         "of a, or use max_cosines, which compares each with its nearest and needs little memory.")
    return one_to_one(cosines(a, b))


def one_to_one(along: Tensor) -> Matching:
    """The one-to-one matching with the largest sum of any likeness: of directions, or of when latents are active.

    Args:
        along: [n_a, n_b] how alike each pair is, on the CPU.

    Returns:
        The pairs; `cosine` holds their likeness.

    Raises:
        InputError: not a matrix.
    """
    from scipy.optimize import linear_sum_assignment

    check_axes("along", along, "n_a", "n_b")
    rows, columns = (torch.from_numpy(i) for i in linear_sum_assignment(along.numpy(), maximize=True))
    return Matching(rows, columns, along[rows, columns])


def max_cosines(a: Tensor, b: Tensor, at_once: int = 2048) -> Tensor:
    """For every direction of a the cosine with its nearest direction of b, [n_a]; partners may be shared.

    Its mean is the mean max cosine similarity, MMCS (Sharkey et al. 2022). It is not symmetric: with the truth as
    a it asks how much of the truth was found, with the truth as b how much of what was found is true.

    Args:
        a: [n_a, d].
        b: [n_b, d].
        at_once: rows of `a` compared at a time.

    Returns:
        [n_a], from -1 to 1.

    Raises:
        InputError: not two matrices of one width.
    """
    a, b = _pair(a, b)
    b = _unit(b)
    return torch.cat([(_unit(part) @ b.T).amax(1) for part in a.split(at_once)])


def chance_of_match(a: Tensor, b: Tensor, seed: int = 0) -> Matching:
    """What matching gives for nothing: a against as many random directions as b has.

    In few dimensions, or among many directions, the best partner of even a random direction is not far. Subtract it
    in your mind from every cosine that you read.

    Args:
        a: [n_a, d] directions.
        b: [n_b, d] directions, of which only the number counts.
        seed: of the random directions.

    Returns:
        The matching.

    Raises:
        InputError: as for `match_latents`.
    """
    a, b = _pair(a, b)
    # The dice of this course's SAEs, thrown with a small seed for a decoder of the same shape, would give the very
    # directions that training began with: a "chance" that knows the answer.
    return match_latents(a, random_directions(len(b), b.shape[1], OWN_DICE + seed))


def recovered(found: Tensor, truth: Tensor, at: float = 0.9) -> float:
    """The share of true directions with a partner of cosine `at` or more in a one-to-one matching.

    Where there are fewer found than true directions, the rest count as missed.

    Args:
        found: [n, d].
        truth: [features, d].
        at: the cosine from which on a direction counts as found.

    Returns:
        From 0 to 1.

    Raises:
        InputError: as for `match_latents`.
    """
    matched = match_latents(truth, found)
    return (matched.cosine >= at).sum().item() / len(truth)


def arrange(found: Tensor, truth: Tensor) -> Tensor:
    """Which direction of `found` belongs to which true one, [n] int64: an order that puts partners on the diagonal.

    `cosines(truth, found[arrange(found, truth)])` shows a dictionary that found everything as a bright diagonal.
    First come the partners of truth 0, 1, 2, …, then those without a partner, in their old order.

    Args:
        found: [n, d] directions.
        truth: [features, d] directions.

    Returns:
        [n] int64, rows of `found` in their new order.

    Raises:
        InputError: as for `match_latents`.
    """
    partners = match_latents(truth, found).b
    rest = torch.ones(len(found), dtype=torch.bool)
    rest[partners] = False
    return torch.cat([partners, rest.nonzero().flatten()])


def _pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both as float32 on the CPU, once they are known to live in one space."""
    check_axes("a", a, "n", "d")
    check_axes("b", b, "n", "d")
    if a.shape[1] != b.shape[1]:
        raise InputError(f"a has d {a.shape[1]}, b has {b.shape[1]}: directions of different spaces have no cosine.")
    a, b = (x.detach().float().cpu() for x in (a, b))
    for name, x in (("a", a), ("b", b)):
        if not x.isfinite().all():
            raise InputError(f"{name}: expected finite numbers, found NaN or infinity. Did the training diverge?")
    return a, b


def _unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=1, keepdim=True).clamp(min=1e-12)
