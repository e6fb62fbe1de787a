"""Which concept each latent follows, judged on text that did not choose it, and beside a simple baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from solutions.errors import InputError, unknown_name

if TYPE_CHECKING:
    from solutions.analysis.index.read import FeatureIndex
    from solutions.analysis.texts import LabelledTexts

#: Numbers in a product of activity and labels that are held at a time.
AT_ONCE = 1 << 24


class Scores(NamedTuple):
    """Counts of a prediction against the truth; the three may be of any shapes that fit together."""

    hits: np.ndarray    #: tokens on which it predicts the concept and is right
    fired: np.ndarray   #: tokens on which it predicts the concept
    wanted: np.ndarray  #: tokens with the concept

    @property
    def precision(self) -> np.ndarray:
        """Of the tokens predicted, the share that have the concept."""
        return self.hits / np.maximum(self.fired, 1)

    @property
    def recall(self) -> np.ndarray:
        """Of the tokens with the concept, the share predicted."""
        return self.hits / np.maximum(self.wanted, 1)

    @property
    def f1(self) -> np.ndarray:
        """Harmonic mean of the two."""
        return 2 * self.hits / np.maximum(self.fired + self.wanted, 1)


class ConceptTable(NamedTuple):
    """How well every latent predicts every concept by being active, on the train and on the test split.

    What is chosen (the latent for a concept, the concept for a latent, the baseline's tokens) is chosen on the
    train split; what is reported is measured on the test split. The best of thousands looks better on the text
    it was chosen on than it is.
    """

    concepts: tuple[str, ...]  #: their names
    train: Scores        #: hits [latents, concepts], fired [latents, 1], wanted [1, concepts]
    test: Scores         #: of the same shapes
    lookup: Scores       #: [concepts] each, on the test split; the best set of token ids, see `token_lookup`
    lookup_size: np.ndarray  #: [concepts]: how many token ids are in the set

    def best(self, latent: int) -> dict[str, Any] | None:
        """The concept one latent follows best: name, precision, recall, f1, lookup_f1. None if it follows none.

        Args:
            latent: its number.
        """
        # One row of scores: those of all latents, to look at one, would take milliseconds.
        row = Scores(self.train.hits[latent], self.train.fired[latent], self.train.wanted[0])
        c = int(row.f1.argmax())
        if self.train.hits[latent, c] == 0:
            return None
        hits, fired, wanted = self.test.hits[latent, c], self.test.fired[latent, 0], self.test.wanted[0, c]
        here = Scores(hits, fired, wanted)
        return {"name": self.concepts[c], "precision": float(here.precision), "recall": float(here.recall),
                "f1": float(here.f1), "lookup_f1": float(self.lookup.f1[c])}

    def table(self) -> pd.DataFrame:
        """For every concept its best latent: concept, latent, precision, recall, f1, lookup_f1, n (test tokens).

        Concepts with no token in the train split or none in the test split are left out. Best F1 first.
        """
        latents = self.train.f1.argmax(0)
        columns = np.arange(len(self.concepts))
        found = Scores(self.test.hits[latents, columns], self.test.fired[latents, 0], self.test.wanted[0])
        table = pd.DataFrame({
            "concept": self.concepts, "latent": latents, "precision": found.precision, "recall": found.recall,
            "f1": found.f1, "lookup_f1": self.lookup.f1, "n": found.wanted,
        })
        seen = (self.train.wanted[0] > 0) & (self.test.wanted[0] > 0)
        return table[seen].sort_values("f1", ascending=False, kind="stable").reset_index(drop=True)

    def latents_for(self, concept: str, k: int = 10) -> pd.DataFrame:
        """The latents that predict one concept best on the train split, with their scores on the test split.

        Args:
            concept: its name.
            k: how many rows at most.

        Raises:
            InputError: there is no such concept.
        """
        if concept not in self.concepts:
            raise unknown_name("concept", concept, self.concepts)
        c = self.concepts.index(concept)
        chosen = np.argsort(-self.train.f1[:, c], kind="stable")[:k]
        found = Scores(self.test.hits[chosen, c], self.test.fired[chosen, 0], self.test.wanted[0, c])
        return pd.DataFrame({"latent": chosen, "precision": found.precision, "recall": found.recall,
                             "f1": found.f1, "train_f1": self.train.f1[chosen, c]})


def concept_table(index: FeatureIndex, labels: Tensor, concepts: Sequence[str]) -> ConceptTable:
    """Score every latent as a detector of every concept: "it is active here" against "the concept holds here".

    Args:
        index: a feature index.
        labels: [n_tokens, concepts] bool, a row for every place of the index, BOS included (`place_labels`).
        concepts: the concepts' names.

    Returns:
        The scores; `.table()`, `.best(latent)` and `.latents_for(concept)` read them.

    Raises:
        InputError: the labels do not fit the index, or its store has no test split (or nothing else).

    Example:
        >>> concepts.best(latent)["name"]
        'weekday'
    """
    if not isinstance(labels, Tensor) or labels.dtype != torch.bool or labels.ndim != 2:
        raise InputError("labels: expected a torch.bool tensor of shape [n_tokens, concepts].")
    if tuple(labels.shape) != (index.n_tokens, len(concepts)):
        raise InputError(f"labels: expected one row for each of the index's {index.n_tokens} places and one column "
                         f"for each of {len(concepts)} names, got {list(labels.shape)}.")
    content = ~index.is_bos
    test, train = (content & index.test).numpy(), (content & ~index.test).numpy()
    if not test.any() or not train.any():
        raise InputError("concept_table chooses on the train split and measures on the test split, but this store's "
                         f"has {train.sum()} and {test.sum()} tokens. Harvest with a test_share between 0 and 1.")
    holds = labels.numpy() & content.numpy()[:, None]
    train_scores, test_scores = (_scores(index, holds, split) for split in (train, test))
    lookup, size = token_lookup(index.ids.numpy(), holds, train, test)
    return ConceptTable(tuple(concepts), train_scores, test_scores, lookup, size)


def _scores(index: FeatureIndex, holds: np.ndarray, split: np.ndarray) -> Scores:
    """hits[j, c] = number of tokens of the split on which latent j is active and concept c holds.

    For each latent the label rows of its tokens are added up, a few latents and a few concepts at a time.
    """
    n_latents, n_concepts = index.n_latents, holds.shape[1]
    fired = np.zeros(n_latents, np.int64)
    hits = np.zeros((n_latents, n_concepts), np.int64)
    starts, tokens = index._by_latent["starts"], index._by_latent["tokens"]
    columns = max(1, AT_ONCE // len(holds))
    first = 0
    while first < n_latents:
        last = max(first + 1, int(np.searchsorted(starts, starts[first] + AT_ONCE, side="right")) - 1)
        last = min(last, n_latents)
        where = torch.from_numpy(tokens[starts[first]:starts[last]].astype(np.int64))
        counts = torch.from_numpy(split[where.numpy()].astype(np.float32))
        bags = torch.from_numpy(starts[first:last] - starts[first])  # a latent's tokens are one bag

        def add_up(columns: np.ndarray, where: Tensor = where, counts: Tensor = counts,
                   bags: Tensor = bags) -> np.ndarray:
            rows = torch.from_numpy(columns.astype(np.float32))
            summed = F.embedding_bag(where, rows, bags, mode="sum", per_sample_weights=counts)
            # Sums of ones: float32 counts exactly up to 16.7 million, more than AT_ONCE entries can give.
            return summed.numpy().round().astype(np.int64)

        fired[first:last] = add_up(np.ones((len(holds), 1)))[:, 0]
        for c in range(0, n_concepts, columns):
            hits[first:last, c:c + columns] = add_up(holds[:, c:c + columns])
        first = last
    return Scores(hits, fired[:, None], holds[split].sum(0)[None])


def token_lookup(
    ids: np.ndarray, holds: np.ndarray, train: np.ndarray, test: np.ndarray
) -> tuple[Scores, np.ndarray]:
    """The baseline that reads the token and nothing else: for each concept the set of token ids with the best
    F1.

    The set is chosen on the train split and scored on the test split. Taking an id in raises F1 exactly when
    the share of its occurrences that have the concept is above F1 / 2; so in the order of that share the best
    set is a beginning of the list.

    Args:
        ids: [tokens] int.
        holds: [tokens, concepts] bool.
        train: [tokens] bool.
        test: [tokens] bool.

    Returns:
        The scores, [concepts] each, and the sizes of the sets.
    """
    size = int(ids.max()) + 1
    count = {name: np.bincount(ids[split], minlength=size) for name, split in (("train", train), ("test", test))}
    hits, fired, n_ids = [], [], []
    for concept in holds.T:
        with_it = {name: np.bincount(ids[split & concept], minlength=size)
                   for name, split in (("train", train), ("test", test))}
        candidates = np.flatnonzero(with_it["train"])
        share = with_it["train"][candidates] / count["train"][candidates]
        candidates = candidates[np.argsort(-share, kind="stable")]
        right, said = np.cumsum(with_it["train"][candidates]), np.cumsum(count["train"][candidates])
        f1 = 2 * right / (said + with_it["train"].sum())
        chosen = candidates[:int(f1.argmax()) + 1] if len(candidates) else candidates
        hits.append(with_it["test"][chosen].sum())
        fired.append(count["test"][chosen].sum())
        n_ids.append(len(chosen))
    return Scores(np.array(hits), np.array(fired), holds[test].sum(0)), np.array(n_ids)


def place_labels(index: FeatureIndex, world: LabelledTexts) -> Tensor:
    """The labels of an embedded world's texts, a row for every place of the index.

    Args:
        index: a feature index.
        world: from `labelled_texts`, the texts that the store was harvested from, in the same order.

    Returns:
        [n_tokens, concepts] bool.

    Raises:
        InputError: they are other texts.
    """
    ids = world.tokens.ids[world.tokens.mask].cpu()
    if not torch.equal(ids, index.ids):
        raise InputError(f"the index was made from other texts: it has {index.n_tokens} tokens, these texts have "
                         f"{len(ids)}" + (", not the same ones." if len(ids) == index.n_tokens else "."))
    return world.labels[world.tokens.mask.cpu()]
