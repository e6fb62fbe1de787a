"""What a predicate may look at: the tokens of some documents in reading order, and labels if there are any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from solutions.analysis.index.concepts import place_labels
from solutions.errors import InputError

if TYPE_CHECKING:
    from solutions.analysis.index.read import FeatureIndex
    from solutions.analysis.texts import LabelledTexts


class Reading(NamedTuple):
    """Documents one after the other; every array has one entry for each token, BOS included."""

    ids: np.ndarray                  # int
    document: np.ndarray             # int: a change means that a new document begins
    is_bos: np.ndarray               # bool
    vocabulary: Sequence[str]        # every token id as text
    labels: Mapping[str, np.ndarray] = {}  # concept → bool: where it holds

    @classmethod
    def of(cls, index: FeatureIndex, labels: LabelledTexts | Mapping[str, Tensor] | None = None) -> Reading:
        """The tokens of an index. labels: see `named_labels`."""
        holds = {} if labels is None else {c: x.numpy() for c, x in named_labels(index, labels).items()}
        return cls(index.ids.numpy(), index._places["document"], index.is_bos.numpy(), index.vocabulary, holds)

    def starts(self) -> np.ndarray:
        """For each token, where its document begins."""
        begins = np.flatnonzero(np.diff(self.document, prepend=self.document[0] - 1))
        return np.repeat(begins, np.diff(begins, append=len(self.document)))

    def texts_so_far(self) -> list[tuple[str, np.ndarray, np.ndarray]]:
        """For each document its text without BOS, its tokens' places, and where in the text each of them ends."""
        begins = np.unique(self.starts())
        found = []
        for start, stop in zip(begins, [*begins[1:], len(self.ids)], strict=True):
            places = np.arange(start, stop)[~self.is_bos[start:stop]]
            words = [self.vocabulary[i] for i in self.ids[places]]
            found.append(("".join(words), places, np.cumsum([len(word) for word in words], dtype=int)))
        return found


def named_labels(index: FeatureIndex, labels: LabelledTexts | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Labels as columns with names, {concept: [n_tokens] bool}, whichever way they are given.

    labels: the `LabelledTexts` that the index's store was harvested from, or the columns themselves: with labels of
    your own all of this works on any model.

    Raises:
        InputError: they are something else, or do not fit the index.
    """
    if hasattr(labels, "concepts") and hasattr(labels, "labels"):
        return dict(zip(labels.concepts, place_labels(index, labels).T, strict=True))
    if not isinstance(labels, Mapping):
        raise InputError("labels: expected the LabelledTexts that the store was harvested from, or a mapping from "
                         f"concept to a torch.bool tensor [n_tokens], got {type(labels).__name__}.")
    for name, column in labels.items():
        is_column = isinstance(column, Tensor) and column.dtype == torch.bool
        if not is_column or tuple(column.shape) != (index.n_tokens,):
            found = f"{column.dtype} {list(column.shape)}" if isinstance(column, Tensor) else type(column).__name__
            raise InputError(f"labels[{name!r}]: expected torch.bool of shape [{index.n_tokens}], one for each of the "
                             f"index's places, got {found}.")
    return dict(labels)
