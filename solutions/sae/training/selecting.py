"""The largest entries of a large matrix, found quickly on a CPU.

`torch.topk` carries every entry's place along with its value, and takes longer than the encoder's product when the
rows are short. Most entries need not be looked at twice: put them into small groups, and note each group's largest.
The k largest entries of a row lie in the k groups whose largest are largest. For were one of them in another group,
each of those k groups would hold an entry at least as large. So k groups are left to search instead of a row, and the
result is exact (of entries that tie at the k-th place some are taken, as `torch.topk` does).

For a whole batch it is the same with one threshold, for which a guess from some of the rows is checked, not trusted.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


def positions(mask: Tensor) -> Tensor:
    """Where a mask is true, as positions in the flattened mask, rising."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))  # several times faster than torch's
    return mask.view(-1).nonzero().view(-1)


def largest_of_each(pre: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The positive ones among the `k` largest entries of each row.

    Args:
        pre: [rows, columns], contiguous.
        k: how many of each row.

    Returns:
        [n] positions in the flattened `pre`, row by row; and the [n] values there.
    """
    size = _group_size(pre, k)
    if size == 1:
        values, columns = (part.view(-1) for part in pre.topk(k, dim=-1, sorted=False))
        where = columns + torch.arange(0, pre.numel(), pre.shape[1], device=pre.device).repeat_interleave(k)
    else:
        n_groups = pre.shape[1] // size
        best = pre.view(len(pre), size, n_groups).amax(dim=1)
        inside = members(_top_of_each(best, k), size, n_groups)
        among = pre.view(-1).index_select(0, inside)
        top = _top_of_each(among.view(len(pre), k * size), k)
        where, values = inside.index_select(0, top), among.index_select(0, top)
    positive = values > 0
    return (where, values) if bool(positive.all()) else (where[positive], values[positive])


def _top_of_each(matrix: Tensor, k: int) -> Tensor:
    """[rows * k] positions in the flattened `matrix` [rows, columns] of the `k` largest of each row."""
    values, place = matrix.numpy(), matrix.shape[1] - k
    top = np.flatnonzero(values >= np.partition(values, place, axis=1)[:, place, None])
    if len(top) != len(values) * k:  # a tie at the k-th place: slower, but exact
        columns = np.argpartition(values, place, axis=1)[:, place:]
        top = (columns + np.arange(0, values.size, values.shape[1])[:, None]).ravel()
    return torch.from_numpy(top)


def largest_of_all(pre: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """The `n` largest positive entries of a whole matrix.

    Entries equal to the smallest of them are all taken. Where fewer than `n` are positive, those are, and the
    smallest counts as 0.

    Args:
        pre: [rows, columns], contiguous.
        n: how many.

    Returns:
        [m] positions in the flattened `pre`, rising by rows; the [m] values there; and the smallest, 0-d.
    """
    size = _group_size(pre, n / len(pre))
    if size > 1:
        found = _largest_of_all_by_groups(pre, n, size)
        if found is not None:
            return found
    flat = pre.reshape(-1)
    smallest = flat.kthvalue(len(flat) - n + 1).values.clamp_min(0)
    where = positions((pre >= smallest) & (pre > 0))
    return where, flat[where], smallest


def _largest_of_all_by_groups(pre: Tensor, n: int, size: int) -> tuple[Tensor, Tensor, Tensor] | None:
    """The same by groups; None if the guess was too high, or if it meets zeros."""
    rows, columns = pre.shape
    n_groups = columns // size
    best = pre.view(rows, size, n_groups).amax(dim=1)
    # A bound that n groups reach is a bound that n entries reach. Guess it from some of the rows.
    some = best[:: max(1, rows // 256)].reshape(-1)
    guess = max(0.0, _kth(some, math.ceil(1.2 * n * len(some) / best.numel())))
    groups = positions(best >= guess)
    if len(groups) < n:
        return None
    inside = members(groups, size, n_groups)
    among = pre.view(-1).index_select(0, inside)
    kept = positions(among >= guess)
    inside, among = inside.index_select(0, kept), among.index_select(0, kept)
    smallest = _kth(among, n)
    if smallest <= 0:
        return None
    kept = positions(among >= smallest)
    return inside.index_select(0, kept), among.index_select(0, kept), pre.new_tensor(smallest)


def _kth(values: Tensor, k: int) -> float:
    """The `k`-th largest of `values` [n]; minus infinity if there are fewer."""
    place = len(values) - k
    return float(np.partition(values.numpy(), place)[place]) if place >= 0 else -math.inf


def _group_size(pre: Tensor, k: float) -> int:
    """`group_size`, where numpy can search the groups; 1 elsewhere."""
    return group_size(pre.shape[1], k) if pre.device.type == "cpu" and pre.dtype == torch.float32 else 1


def group_size(columns: int, k: float) -> int:
    """How many columns make a group: the power of two near sqrt(columns / k), which balances the two searches.

    1 where the groups would not come out even, or be fewer than `k`.
    """
    size = 2 ** round(math.log2(max(1.0, columns / k)) / 2)
    return size if columns % size == 0 and columns // size >= k else 1


def members(groups: Tensor, size: int, n_groups: int) -> Tensor:
    """[n * size] positions in the flattened matrix of the members of [n] groups, given as row * n_groups + group.

    A group's members are n_groups apart: so the largest of many groups are found at a time, as fast as memory is.
    """
    first = groups + groups.div(n_groups, rounding_mode="floor") * (n_groups * (size - 1))
    return (first[:, None] + torch.arange(0, n_groups * size, n_groups, device=groups.device)).view(-1)
