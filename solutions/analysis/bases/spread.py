"""Over how many concepts a unit's activation is spread, in bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from solutions.analysis.latents import truth
from solutions.analysis.shapes import check_axes, same_length
from solutions.errors import InputError

if TYPE_CHECKING:
    from solutions.analysis.index.read import FeatureIndex

#: Entries of an index that are added up at a time.
AT_ONCE = 4_000_000


def concept_groups() -> dict[str, str]:
    """The group of each concept of the embedded world: {"french_word": "French", …}."""
    from solutions.smallworld.concepts import CONCEPTS

    return {concept.name: concept.group for concept in CONCEPTS}


def rarest_concept(labels: Tensor) -> Tensor:
    """For each token the rarest of its concepts, [tokens] int64; the number of concepts where it has none.

    labels: [tokens, concepts] bool. Concepts overlap: "Paris" is a noun, a city, and the word "Paris". To spread a
    token over all of them would call every latent for Paris a mixture. The rarest says most, and each token is in one
    class.
    """
    check_axes("labels", labels, "tokens", "concepts")
    return torch.from_numpy(truth.rarest_concept(labels.numpy()))


def entropy(mass: Tensor) -> Tensor:
    """The entropy in bits of each row of non-negative numbers [..., classes]; NaN for a row of zeros."""
    share = mass.double() / mass.double().sum(-1, keepdim=True)
    return torch.special.entr(share).sum(-1) / np.log(2)


def concept_entropy(features: Tensor | FeatureIndex, labels: Tensor) -> Tensor:
    """How a unit's activation is spread over concepts: the entropy of its mass, in bits, [units].

    0 means that all of it falls on one concept, 3 that it is spread as over 2^3 = 8 concepts. Each token counts for the
    rarest of its concepts. Read it beside the entropy of the text itself, which a unit that is active everywhere has,
    and beside that of random directions. A unit that is never active has NaN.

    Args:
        features: [tokens, units], or a feature index.
        labels: [tokens, concepts] bool; for an index a row for every place (`place_labels`).
    """
    if isinstance(features, Tensor):
        check_axes("features", features, "tokens", "units")
        same_length(features=features, labels=labels)
        classes = torch.nn.functional.one_hot(rarest_concept(labels), labels.shape[1] + 1).to(features.dtype)
        return entropy(features.T @ classes)
    if len(labels) != features.n_tokens:
        raise InputError(f"labels: expected a row for each of the index's {features.n_tokens} places, got "
                         f"{len(labels)}.")
    return entropy(torch.from_numpy(_mass(features, rarest_concept(labels).numpy(), labels.shape[1] + 1)))


def _mass(index: FeatureIndex, classes: np.ndarray, n_classes: int) -> np.ndarray:
    """The sum of each latent's activation over the tokens of each class, [n_latents, n_classes]."""
    columns = index._by_latent
    mass = np.zeros(index.n_latents * n_classes)
    for begin in range(0, index.nnz, AT_ONCE):
        here = slice(begin, min(begin + AT_ONCE, index.nnz))
        latent = np.searchsorted(columns["starts"], np.arange(here.start, here.stop), side="right") - 1
        cell = latent * n_classes + classes[columns["tokens"][here]]
        mass += np.bincount(cell, columns["values"][here], minlength=len(mass))
    return mass.reshape(index.n_latents, n_classes)
