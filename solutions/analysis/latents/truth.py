"""What concept labels say of every latent: how purely, how completely and how exclusively it follows one.

A latent's concept is chosen on the train split; what is reported of it is measured on the test split.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from torch import Tensor

from solutions.analysis.index.concepts import Scores
from solutions.analysis.latents.blocks import Block, blocks, split_of_index, strongest_first
from solutions.errors import InputError

if TYPE_CHECKING:
    from solutions.analysis.index import ConceptTable, FeatureIndex

#: How many of a latent's strongest tokens `purity_top` looks at, on each split.
TOP = 50


def best_concepts(concepts: ConceptTable, groups: Mapping[str, str] | None = None) -> pd.DataFrame:
    """For every latent the concept it follows best: `ConceptTable.best` for all latents at once.

    Args:
        concepts: from `concept_table`.
        groups: concept to the name of its group.

    Returns:
        concept (missing if it never meets one on the train split), group (if `groups` says to which each
        belongs), precision, recall, f1 on the test split, lookup_f1 (of the same concept, by token look-up).
    """
    c = concepts.train.f1.argmax(1)
    rows = np.arange(len(c))
    follows = concepts.train.hits[rows, c] > 0
    found = Scores(concepts.test.hits[rows, c], concepts.test.fired[:, 0], concepts.test.wanted[0, c])
    names = np.array([*concepts.concepts, None], dtype=object)[np.where(follows, c, -1)]
    columns = {"concept": names}
    if groups is not None:
        columns["group"] = np.array([groups.get(name, "") if name else None for name in names], dtype=object)
    scores = {"precision": found.precision, "recall": found.recall, "f1": found.f1,
              "lookup_f1": concepts.lookup.f1[c]}
    return pd.DataFrame(columns | {name: np.where(follows, x, np.nan) for name, x in scores.items()})


def average_precision(
    index: FeatureIndex, concepts: ConceptTable, labels: Tensor, *, seed: int = 0, progress: bool = False
) -> pd.DataFrame:
    """How well the strength of each latent ranks the test tokens by its best concept.

    Average precision goes down the ranking and takes the mean precision at every token that has the concept.
    It asks more than F1: the latent must be strong where the concept is, not just active. Tokens with equal
    activation, and all tokens on which the latent is silent, count as one step (as scikit-learn's
    `average_precision_score` does).

    Args:
        index: a feature index with a test split.
        concepts: from `concept_table`, which chose each latent's concept on the train split.
        labels: [n_tokens, concepts] bool, those that the table was made from.
        seed: of the shuffled control.
        progress: whether to show a bar.

    Returns:
        latent, concept, average_precision; lookup (of the baseline that ranks tokens by how often they have
        the concept in the train split); shuffled (of the latent, when the labels are moved along the text);
        base (share of test tokens with the concept: what any ranking without knowledge gets). NaN for latents
        that follow no concept.

    Raises:
        InputError: an index without a test split, or labels of other tokens.
    """
    truth = Truth(index, concepts, labels, seed)
    parts = [truth.of(block) for block in blocks(index, progress)]
    found, shuffled = (np.concatenate([part[name] for part in parts]) for name in ("average_precision", "shuffled"))
    lookup = lookup_average_precision(index.ids.numpy(), truth.holds, truth.split.train, truth.split.test)
    best = best_concepts(concepts)
    known = best["concept"].notna().to_numpy()
    return pd.DataFrame({
        "latent": np.arange(index.n_latents), "concept": best["concept"], "average_precision": found,
        "lookup": np.where(known, lookup[truth.concept], np.nan), "shuffled": shuffled,
        "base": np.where(known, truth.base_test[truth.concept], np.nan),
    })


class Truth:
    """Purity, entropy and average precision of all latents, block by block.

    Labels are kept as a sparse matrix: of a hundred concepts a handful hold on a token.
    """

    columns = ("average_precision", "purity_mass", "purity_top", "entropy")

    def __init__(self, index: FeatureIndex, concepts: ConceptTable, labels: Tensor, seed: int = 0):
        self.split = split_of_index(index)
        self.holds = _checked(index, concepts, labels)
        held = sparse.csr_array(self.holds)
        # BOS may carry labels here: no latent is ever active on it, so they meet nothing.
        self.held = sparse.csr_array((np.ones(held.nnz, np.float32), held.indices, held.indptr), shape=held.shape)
        self.kind = rarest_concept(self.holds)
        n_train, self.n_test = int(self.split.train.sum()), int(self.split.test.sum())
        self.wanted = self.held.T @ self.split.test.astype(np.float64)
        if not np.array_equal(self.wanted, concepts.test.wanted[0]):
            raise InputError("labels: these are not the labels that the concept table was made from: the concepts "
                             "hold on another number of test tokens.")
        self.base_train, self.base_test = concepts.train.wanted[0] / n_train, self.wanted / self.n_test
        self.concept = concepts.train.f1.argmax(1)
        self.follows = concepts.train.hits[np.arange(index.n_latents), self.concept] > 0
        self.elsewhere = _moved_along(np.flatnonzero(self.split.test), index.n_tokens, seed)

    def of(self, block: Block) -> dict[str, np.ndarray]:
        """The four columns for a block's latents, and `shuffled` (see `average_precision`)."""
        n = block.last - block.first
        on_test = self.split.test[block.places]
        row = 2 * block.latents() + on_test  # two rows a latent: its train tokens, its test tokens
        order = strongest_first(row, block.values)
        row, places, values = row[order], block.places[order], block.values[order]
        starts = np.append(0, np.cumsum(np.bincount(row, minlength=2 * n)))
        rank = np.arange(len(row)) - starts[row]
        mass = self._shares(places, values, starts)
        top = self._shares(places, (rank < TOP).astype(np.float32), starts)
        test = row % 2 == 1
        row, places, values = row[test] // 2, places[test], values[test]
        concept, follows = self.concept[block.first:block.last], self.follows[block.first:block.last]
        wanted = self.wanted[concept]

        def ap(at: np.ndarray) -> np.ndarray:
            hit = self.holds[at, concept[row]]
            found = ranked_precision(row, values, hit, wanted, self.n_test, n)
            return np.where(follows, found, np.nan)

        return {"average_precision": ap(places), "purity_mass": self._pure(mass), "purity_top": self._pure(top),
                "entropy": self._entropy(block), "shuffled": ap(self.elsewhere[places])}

    def _shares(self, places: np.ndarray, weights: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Which share of the weights lies on each concept, [rows, concepts]; NaN without any weight."""
        kept = weights > 0
        starts = np.append(0, np.cumsum(kept))[starts]
        weights = weights[kept].astype(np.float64)
        matrix = sparse.csr_array((weights, places[kept], starts), shape=(len(starts) - 1, len(self.holds)))
        total = matrix.sum(axis=1)[:, None]
        on_concepts = (matrix @ self.held).toarray()
        return np.divide(on_concepts, total, out=np.full(on_concepts.shape, np.nan), where=total > 0)

    def _pure(self, shares: np.ndarray) -> np.ndarray:
        """Chance-corrected share of the concept that is best on train, as measured on test, [latents]."""
        train = (shares[0::2] - self.base_train) / np.maximum(1 - self.base_train, 1e-6)
        test = (shares[1::2] - self.base_test) / np.maximum(1 - self.base_test, 1e-6)
        best = np.where(np.isnan(train), -np.inf, train).argmax(1)
        rows = np.arange(len(best))
        return np.where(np.isnan(train[rows, best]), np.nan, test[rows, best])

    def _entropy(self, block: Block) -> np.ndarray:
        """Bits of the distribution of a latent's activation over concepts, each token in one class."""
        mass = mass_on_classes(block, self.kind, self.holds.shape[1] + 1)
        total = mass.sum(1, keepdims=True)
        share = np.divide(mass, total, out=np.zeros_like(mass), where=total > 0)
        bits = -(share * np.log2(np.where(share > 0, share, 1.0))).sum(1)
        return np.where(total[:, 0] > 0, np.abs(bits), np.nan)


def mass_on_classes(block: Block, classes: np.ndarray, n_classes: int) -> np.ndarray:
    """The sum of each latent's activation over the tokens of each class, [latents, n_classes]; classes: [n_tokens]."""
    n = block.last - block.first
    cell = block.latents() * n_classes + classes[block.places]
    return np.bincount(cell, block.values, minlength=n * n_classes).reshape(n, n_classes)


def rarest_concept(holds: np.ndarray) -> np.ndarray:
    """For each token the rarest of its concepts, [tokens] int64; the number of concepts where it has none.

    holds: [tokens, concepts] bool. As `bases.rarest_concept`, but for a million tokens without a second table
    of them.
    """
    rarest = np.full(len(holds), holds.shape[1])
    for c in np.argsort(holds.sum(0), kind="stable")[::-1]:  # the rarest is written last
        rarest[holds[:, c]] = c
    return rarest


def _checked(index: FeatureIndex, concepts: ConceptTable, labels: Tensor) -> np.ndarray:
    if concepts.train.hits.shape[0] != index.n_latents:
        raise InputError(f"concepts: expected a table of the index's {index.n_latents} latents, got one of "
                         f"{concepts.train.hits.shape[0]}. Make it with concept_table(index, labels, names).")
    wanted = (index.n_tokens, len(concepts.concepts))
    if not isinstance(labels, Tensor) or labels.dtype != torch.bool or tuple(labels.shape) != wanted:
        found = f"{labels.dtype} {list(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
        raise InputError(f"labels: expected a torch.bool tensor of shape {list(wanted)} (a row for every place of the "
                         f"index, a column for every concept of the table), got {found}.")
    return labels.numpy()


def _moved_along(places: np.ndarray, n_tokens: int, seed: int) -> np.ndarray:
    """[n_tokens] int64: for each of the places another one, a random but for all equal stretch further on."""
    elsewhere = np.arange(n_tokens)
    if len(places) > 1:
        by = int(np.random.default_rng(seed).integers(len(places) // 4, max(len(places) * 3 // 4, 2)))
        elsewhere[places] = np.roll(places, -max(by, 1))
    return elsewhere


# -------------------------------------------------------------------------------------- average precision

def ranked_precision(
    row: np.ndarray, values: np.ndarray, hit: np.ndarray, wanted: np.ndarray, n_tokens: int, n_rows: int
) -> np.ndarray:
    """Average precision of each row's ranking, [n_rows]; NaN where nothing is wanted.

    Args:
        row: [entries] ascending; the entries of a row stand in the order of falling value.
        values: [entries] scores above 0; all that is not listed has score 0 and comes last, together.
        hit: [entries] bool, what is wanted.
        wanted: [n_rows] how many there are to find.
        n_tokens: how many entries a row would have if all were listed.
        n_rows: rows, of which some may have no entry.
    """
    wanted = wanted.astype(np.float64)
    changes = np.diff(row, prepend=-1) != 0
    steps = np.flatnonzero(changes | np.append(True, values[1:] != values[:-1])[:len(row)])  # equal values: one step
    found = np.zeros(n_rows)
    precision_sum = np.zeros(n_rows)
    if len(steps):
        ends = np.append(steps[1:], len(row)) - 1
        summed = np.append(0, np.cumsum(hit, dtype=np.int64))
        begin = np.flatnonzero(changes)[np.cumsum(changes)[ends] - 1]  # of the row that a step is in
        precision = (summed[ends + 1] - summed[begin]) / (ends + 1 - begin)
        hits = summed[ends + 1] - summed[steps]
        precision_sum = np.bincount(row[steps], hits * precision, minlength=n_rows)
        found = np.bincount(row[steps], hits, minlength=n_rows)
    rest = (wanted - found) * wanted / n_tokens  # what the unlisted hold is found when all is read
    return np.divide(precision_sum + rest, wanted, out=np.full(n_rows, np.nan), where=wanted > 0)


def lookup_average_precision(
    ids: np.ndarray, holds: np.ndarray, train: np.ndarray, test: np.ndarray
) -> np.ndarray:
    """The baseline that reads the token and nothing else: average precision for each concept, [concepts].

    ids: [tokens]; holds: [tokens, concepts] bool; train, test: [tokens] bool. A token's score is the share of
    its occurrences in the train split that have the concept (0 if it has none there).
    """
    size = int(ids.max()) + 1
    n_train, n_test = (np.bincount(ids[part], minlength=size) for part in (train, test))
    result = []
    for concept in holds.T:
        with_it, hits = (np.bincount(ids[part & concept], minlength=size) for part in (train, test))
        score = with_it / np.maximum(n_train, 1)
        _, step = np.unique(-score, return_inverse=True)  # ids with equal scores are one step
        hits, said = np.bincount(step, hits), np.cumsum(np.bincount(step, n_test))
        precision = np.cumsum(hits) / np.maximum(said, 1)
        result.append((hits * precision).sum() / hits.sum() if hits.sum() else np.nan)
    return np.array(result)
