"""Over how many concepts a unit's activation is spread, in bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from solutions.analysis.latents import truth
from solutions.analysis.latents.blocks import blocks
from solutions.analysis.shapes import check_axes, same_length
from solutions.errors import InputError

if TYPE_CHECKING:
    from solutions.analysis.index.read import FeatureIndex


def concept_groups() -> dict[str, str]:
    """The group of each concept of the embedded world: {"french_word": "French", …}.

    Returns:
        Concept to group.
    """
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

    Returns:
        [units] bits.

    Raises:
        InputError: labels that are not a row for each token.
    """
    if isinstance(features, Tensor):
        check_axes("features", features, "tokens", "units")
        same_length(features=features, labels=labels)
        classes = torch.nn.functional.one_hot(rarest_concept(labels), labels.shape[1] + 1).to(features.dtype)
        return entropy(features.T @ classes)
    if len(labels) != features.n_tokens:
        raise InputError(f"labels: expected a row for each of the index's {features.n_tokens} places, got "
                         f"{len(labels)}.")
    classes = rarest_concept(labels).numpy()
    mass = [truth.mass_on_classes(block, classes, labels.shape[1] + 1) for block in blocks(features)]
    return entropy(torch.from_numpy(np.concatenate(mass)))
