"""Merging: one latent for two concepts that exclude each other, such as "she" and "he".

A latent that fires on "she" and on "he" may mean "a pronoun for a person", which is one concept, only not one
of those that were asked for. So every merged pair is shown beside the single concept that describes the latent best.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from solutions.analysis.families.truth import (
    check_common,
    column_of,
    names_of,
    tokens_with,
    train_and_test,
)
from solutions.analysis.index.concepts import ConceptTable, Scores, concept_table
from solutions.analysis.residue import roc_auc
from solutions.errors import InputError, check_count

if TYPE_CHECKING:
    from solutions.analysis.index import FeatureIndex

COLUMNS = ["latent", "n_active", "share_first", "share_second", "recall_first", "recall_second", "f1_either",
           "f1_first", "f1_second", "strength_tells"]


def merged(
    index: FeatureIndex, labels: Tensor, first: str | int, second: str | int, k: int = 5, *,
    concepts: Sequence[str] | None = None,
) -> pd.DataFrame:
    """The latents that serve two concepts which exclude each other, best first.

    Chosen on the train split by the F1 of "first or second", measured on the test split. Look at the two shares: a
    latent of one concept alone has one of them near 0.

    Args:
        index: a feature index.
        labels: which tokens have a concept, see `truth.tokens_with`.
        first: a concept.
        second: another, which never holds on the same token.
        k: how many rows at most.
        concepts: the labels' names; by default those of the embedded world.

    Returns:
        latent, n_active (test tokens), share_first and share_second (of the tokens on which it is active),
        recall_first and recall_second, f1_either (for "first or second"), f1_first, f1_second (for each alone), and
        strength_tells: on the tokens of either on which it is active, how well its activation tells the two apart
        (area under the ROC curve, the larger of both ways round: 0.5 not at all, 1 always; NaN if there is only one).

    Raises:
        InputError: the concepts hold together on some token, or do not occur in both splits.
    """
    names = names_of(labels.shape[1], concepts) if labels.ndim == 2 else None
    one, other = (tokens_with(index, labels, concept, names) for concept in (first, second))
    train, test = train_and_test(index)
    for concept, holds in ((first, one), (second, other)):
        check_common(holds, concept, train, test)
    if (both := int((one & other).sum())):
        raise InputError(f"{first!r} and {second!r} do not exclude each other: both hold on {both} tokens.")
    table = concept_table(index, torch.from_numpy(np.stack([one, other, one | other], axis=1)),
                          ["first", "second", "either"])
    chosen = np.argsort(-table.train.f1[:, 2], kind="stable")[:check_count(k, "k")]
    hits, fired, wanted = table.test.hits[chosen], table.test.fired[chosen], table.test.wanted[0]
    f1 = Scores(hits, fired, wanted[None]).f1
    tells = [_strength_tells(index, j, one & test, other & test) for j in chosen.tolist()]
    share, recall = hits / np.maximum(fired, 1), hits / np.maximum(wanted, 1)
    columns = (chosen, fired[:, 0], share[:, 0], share[:, 1], recall[:, 0], recall[:, 1], f1[:, 2], f1[:, 0], f1[:, 1],
               tells)
    return pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)))


def _strength_tells(index: FeatureIndex, j: int, one: np.ndarray, other: np.ndarray) -> float:
    where, values = index.latent(j)
    where = where.numpy()
    kept = one[where] | other[where]
    positive = torch.from_numpy(one[where][kept])
    if not positive.any() or positive.all():
        return float("nan")
    auc = float(roc_auc(values[torch.from_numpy(kept)], positive))
    return max(auc, 1 - auc)


def merged_pairs(
    table: ConceptTable, labels: Tensor, *, at: float = 0.5, better: float = 0.1, balance: float = 0.2, least: int = 30,
    among: Sequence[str] | None = None,
) -> pd.DataFrame:
    """All pairs of exclusive concepts that some latent serves together better than any one concept describes it.

    For each pair the latent is taken that has the best F1 for "first or second" on the train split, of those with at
    least `balance` of their hits on either. The pair is kept if its F1 is at least `at`, and at least `better` above
    that of the single concept which describes the latent best. All F1 are of the test split.

    With a hundred concepts there are thousands of pairs, and a latent of some broad kind that has no name among the
    concepts shows up with several. Read what the latent fires on before you call it merged.

    Args:
        table: from `concept_table`.
        labels: [n_tokens, concepts] bool, what the table was made from.
        at, better, balance: see above.
        least: concepts with fewer test tokens are left out.
        among: only pairs of these concepts; by default all.

    Returns:
        first, second, latent, share_first, share_second (of its test tokens with one of the two), f1_either, concept,
        concept_f1 (the single concept that describes the latent best), best_first, best_second (the F1 of the best
        latent for each of the two alone); best f1_either first. Empty when there is none.

    Raises:
        InputError: labels that the table was not made from.
    """
    if labels.ndim != 2 or labels.shape[1] != len(table.concepts):
        raise InputError(f"labels: expected [n_tokens, {len(table.concepts)}], as the table was made from.")
    chosen = [column_of(c, len(table.concepts), table.concepts) for c in (among or table.concepts)]
    kept = np.array([c for c in chosen if table.test.wanted[0, c] >= least and table.train.wanted[0, c] > 0], int)
    together = _together(labels[:, kept])
    f1 = table.test.f1
    best_f1 = f1[table.train.f1.argmax(0), np.arange(len(table.concepts))]  # of each concept's best latent
    own = table.train.f1.argmax(1)                                          # the concept of each latent
    rows = []
    for i, a in enumerate(kept.tolist()):
        others = kept[i + 1:][together[i, i + 1:] == 0]
        for b, j in zip(others.tolist(), _best_latents(table.train, a, others, balance), strict=True):
            hits = table.test.hits[j, [a, b]]
            either = float(Scores(hits.sum(), table.test.fired[j, 0], table.test.wanted[0, [a, b]].sum()).f1)
            if j >= 0 and either >= max(at, f1[j, own[j]] + better):
                rows.append((table.concepts[a], table.concepts[b], j, *(hits / hits.sum()), either,
                             table.concepts[own[j]], f1[j, own[j]], best_f1[a], best_f1[b]))
    columns = ["first", "second", "latent", "share_first", "share_second", "f1_either", "concept", "concept_f1",
               "best_first", "best_second"]
    found = pd.DataFrame(rows, columns=columns)
    return found.sort_values("f1_either", ascending=False, kind="stable").reset_index(drop=True)


def _together(labels: Tensor) -> np.ndarray:
    """[concepts, concepts]: on how many tokens two concepts hold together."""
    return sum(part.float().T @ part.float() for part in labels.split(1 << 16)).numpy()


def _best_latents(train: Scores, a: int, others: np.ndarray, balance: float) -> list[int]:
    """For concept a with each of the others, the latent that serves both best; -1 where none serves both.

    The two exclude each other, so the hits, and the tokens, of "first or second" are sums.
    """
    first, second = train.hits[:, [a]], train.hits[:, others]
    total = first + second
    f1 = Scores(total, train.fired, train.wanted[0, a] + train.wanted[:, others]).f1
    f1[np.minimum(first, second) < balance * np.maximum(total, 1)] = 0.0
    return np.where(f1.max(0, initial=0.0) > 0, f1.argmax(0), -1).tolist() if len(others) else []
