"""How well a set of latents knows the concepts of a text: the best latent for each, on text that did not choose it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from solutions.analysis.index.concepts import ConceptTable, Scores, token_lookup
from solutions.analysis.shapes import check_axes, same_length
from solutions.errors import InputError, check_count

#: Tokens whose features are turned into zeros and ones at a time.
AT_ONCE = 8192


def score_concepts(
    features: Tensor, labels: Tensor, concepts: Sequence[str], ids: Tensor, test: Tensor
) -> ConceptTable:
    """Score every latent as a detector of every concept, from plain tensors, without a feature index.

    The same table as `concept_table` gives: what is chosen is chosen on the other tokens, what is reported is
    measured on the test tokens. To compare SAEs, use the same labels, ids and split for all of them.

    Args:
        features: [tokens, latents]; active is what is above zero.
        labels: [tokens, concepts] bool.
        concepts: their names.
        ids: [tokens] int, for the baseline that reads the token alone.
        test: [tokens] bool, the tokens to measure on; `split_documents` draws whole documents.

    Returns:
        The scores; `.table()`, `.best(latent)` and `.latents_for(concept)` read them.

    Raises:
        InputError: tensors that do not fit together, or nothing on one side of the split.
    """
    check_axes("features", features, "tokens", "latents")
    check_axes("labels", labels, "tokens", "concepts")
    same_length(features=features, labels=labels, ids=ids, test=test)
    if len(concepts) != labels.shape[1]:
        raise InputError(f"concepts: expected {labels.shape[1]} names, one per label, got {len(concepts)}.")
    if not test.any() or test.all():
        raise InputError("test: expected some tokens on each side of the split.")
    train, held_out = (_scores(features, labels, split) for split in (~test, test))
    lookup, size = token_lookup(ids.numpy(), labels.numpy(), (~test).numpy(), test.numpy())
    return ConceptTable(tuple(concepts), train, held_out, lookup, size)


def _scores(features: Tensor, labels: Tensor, split: Tensor) -> Scores:
    """Counts on the tokens of one split: hits [latents, concepts], fired [latents, 1], wanted [1, concepts]."""
    hits = torch.zeros(features.shape[1], labels.shape[1])
    fired = torch.zeros(features.shape[1])
    for rows in split.nonzero().flatten().split(AT_ONCE):
        active = (features[rows] > 0).float()
        hits += active.T @ labels[rows].float()  # sums of ones: exact in float32 up to 16.7 million tokens
        fired += active.sum(0)
    as_counts = (x.round().long().numpy() for x in (hits, fired[:, None], labels[split].sum(0)[None]))
    return Scores(*as_counts)


def mean_concept_f1(table: ConceptTable, least: int = 30) -> float:
    """The mean F1 of the best latent over all concepts with at least `least` test tokens: one number for an SAE.

    A mean over very different concepts. Two SAEs with the same mean may know different things: see `table.table()`.

    Args:
        table: from `concept_table` or `score_concepts`.
        least: concepts with fewer test tokens are left out.

    Returns:
        From 0 to 1.

    Raises:
        InputError: no concept has so many test tokens.

    Example:
        >>> mean_concept_f1(concepts) > 0.2
        True
    """
    seen = _common(table, check_count(least, "least"))
    best = table.train.f1.argmax(0)
    found = Scores(table.test.hits[best, np.arange(len(best))], table.test.fired[best, 0], table.test.wanted[0])
    return float(found.f1[seen].mean())


def mean_lookup_f1(table: ConceptTable, least: int = 30) -> float:
    """The same mean for the baseline that reads the token and nothing else.

    Args:
        table: from `concept_table` or `score_concepts`.
        least: concepts with fewer test tokens are left out.

    Returns:
        From 0 to 1.

    Raises:
        InputError: no concept has so many test tokens.
    """
    return float(table.lookup.f1[_common(table, check_count(least, "least"))].mean())


def _common(table: ConceptTable, least: int) -> np.ndarray:
    """Which concepts have enough test tokens, and were to be seen in the train split: [concepts] bool."""
    seen = (table.test.wanted[0] >= least) & (table.train.wanted[0] > 0)
    if not seen.any():
        raise InputError(f"no concept has {least} test tokens; the most is {int(table.test.wanted.max())}. "
                         "Read more texts, or ask for fewer tokens.")
    return seen
