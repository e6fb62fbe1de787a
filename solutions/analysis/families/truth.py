"""What all questions about families need: the tokens of a concept, the two splits, and latents counted on places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from solutions.analysis.latents.blocks import split_of_index
from solutions.errors import InputError, unknown_name

if TYPE_CHECKING:
    from solutions.analysis.index import FeatureIndex

#: Places whose latents are looked up at a time.
AT_ONCE = 1 << 16


def tokens_with(
    index: FeatureIndex, labels: Tensor, concept: str | int, concepts: Sequence[str] | None = None
) -> np.ndarray:
    """[n_tokens] bool: where a concept holds, BOS left out.

    Args:
        index: a feature index.
        labels: [n_tokens, concepts] bool (`place_labels`), or [n_tokens] bool for a concept of your own.
        concept: its name, or the number of its column; for labels with one axis, whatever you call it.
        concepts: the columns' names; by default those of the embedded world.
    """
    shape = "[n_tokens, concepts] or [n_tokens]"
    if not isinstance(labels, Tensor) or labels.dtype != torch.bool or labels.ndim not in (1, 2):
        raise InputError(f"labels: expected a torch.bool tensor of shape {shape}.")
    if len(labels) != index.n_tokens:
        raise InputError(f"labels: expected a row for each of the index's {index.n_tokens} places, got {len(labels)}. "
                         "place_labels makes them.")
    if labels.ndim == 2:
        labels = labels[:, column_of(concept, labels.shape[1], concepts)]
    return (labels & ~index.is_bos).numpy()


def column_of(concept: str | int, n_columns: int, concepts: Sequence[str] | None) -> int:
    """The column of a concept in labels with so many columns."""
    names = names_of(n_columns, concepts)
    if concept in names:
        return names.index(concept)
    if isinstance(concept, int) and not isinstance(concept, bool) and 0 <= concept < n_columns:
        return concept
    raise unknown_name("concept", concept, names)


def names_of(n_columns: int, concepts: Sequence[str] | None) -> list[str]:
    """The columns' names, by default those of the embedded world."""
    if concepts is None:
        from solutions.smallworld.concepts import CONCEPTS

        concepts = [concept.name for concept in CONCEPTS]
    if len(concepts) != n_columns:
        raise InputError(f"concepts: expected {n_columns} names, one for each column of labels, got {len(concepts)}.")
    return list(concepts)


def train_and_test(index: FeatureIndex) -> tuple[np.ndarray, np.ndarray]:
    """[n_tokens] bool twice, BOS left out: what may be chosen on, and what is reported on."""
    split = split_of_index(index)
    if split.whole:
        raise InputError("this chooses on the train split and measures on the test split, but one of the two is "
                         "empty. Harvest with a test_share between 0 and 1.")
    return split.train, split.test


def check_common(holds: np.ndarray, concept: object, *splits: np.ndarray) -> None:
    """Refuse a concept that does not occur on both splits."""
    counts = [int((holds & split).sum()) for split in splits]
    if not all(counts):
        raise InputError(f"the concept {concept!r} holds on {' and '.join(map(str, counts))} tokens of the train and "
                         "the test split; it has to occur in both. Read more texts, or take another concept.")


def count_on(index: FeatureIndex, places: np.ndarray) -> np.ndarray:
    """[n_latents]: on how many of the places each latent is active."""
    counts = np.zeros(index.n_latents, np.int64)
    for first in range(0, len(places), AT_ONCE):
        latents, _ = index.entries(places[first:first + AT_ONCE], values=False)
        counts += np.bincount(latents, minlength=index.n_latents)
    return counts


def active_on(index: FeatureIndex, latents: Sequence[int]) -> np.ndarray:
    """[n_tokens] bool: where any of the latents is active."""
    active = np.zeros(index.n_tokens, bool)
    for j in latents:
        active[index._latent(j)[0]] = True
    return active
