"""How many latents a concept needs: the best union of a few, beside the single best and beside simple baselines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from torch import Tensor

from solutions.analysis.families.truth import (
    active_on,
    check_common,
    count_on,
    tokens_with,
    train_and_test,
)
from solutions.analysis.index.concepts import Scores, token_lookup
from solutions.errors import check_count

if TYPE_CHECKING:
    from solutions.analysis.index import FeatureIndex


class UnionF1(NamedTuple):
    """How well "one of these latents is active" predicts a concept, for 1, 2, … latents, on text that did not choose
    them."""

    concept: str         #: its name
    table: pd.DataFrame  #: size, latent (the one that came in), train_f1, precision, recall, f1, random_f1
    lookup_f1: float     #: the best set of token ids, of any size
    lookup_size: int     #: how many ids that is
    always_f1: float     #: saying yes on every token
    n: int               #: test tokens with the concept

    @property
    def single_f1(self) -> float:
        """Of the best single latent."""
        return float(self.table["f1"].iloc[0])

    @property
    def f1(self) -> float:
        """Of the whole union."""
        return float(self.table["f1"].iloc[-1])


def union_f1(
    index: FeatureIndex, labels: Tensor, concept: str | int, k: int = 10, *, concepts: Sequence[str] | None = None,
    n_random: int = 20, seed: int = 0,
) -> UnionF1:
    """The best union of up to k latents for a concept: chosen on the train split, measured on the test split.

    Greedy: first the latent with the best F1 alone, then each time the one that raises the F1 of the union most. It
    stops early when none does. If a concept is *spread*, F1 grows with many latents; if it is not in the SAE at all,
    it stays where the baselines are.

    Args:
        index: a feature index.
        labels, concept, concepts: which tokens have the concept, see `truth.tokens_with`.
        k: latents at most.
        n_random: unions of as many latents drawn at random, of those that are alive; random_f1 is their mean.
        seed: of the random ones.

    Returns:
        The latents, and the F1 of the first 1, 2, … of them.

    Raises:
        InputError: the concept is unknown, or does not occur in both splits.
    """
    holds = tokens_with(index, labels, concept, concepts)
    train, test = train_and_test(index)
    check_common(holds, concept, train, test)
    chosen, train_f1 = greedy_union(index, holds, train, check_count(k, "k"))
    scores = [_scores(index, chosen[:size], holds, test) for size in range(1, len(chosen) + 1)]
    alive = np.flatnonzero(count_on(index, np.flatnonzero(train)))
    dice = np.random.default_rng(seed)
    draws = [dice.choice(alive, min(len(chosen), len(alive)), replace=False)
             for _ in range(check_count(n_random, "n_random"))]
    by_luck = [np.mean([_scores(index, draw[:size], holds, test).f1 for draw in draws])
               for size in range(1, len(chosen) + 1)]
    table = pd.DataFrame({
        "size": range(1, len(chosen) + 1), "latent": chosen, "train_f1": train_f1,
        "precision": [float(s.precision) for s in scores], "recall": [float(s.recall) for s in scores],
        "f1": [float(s.f1) for s in scores], "random_f1": by_luck,
    })
    lookup, size = token_lookup(index.ids.numpy(), holds[:, None], train, test)
    n = int((holds & test).sum())
    return UnionF1(str(concept), table, float(lookup.f1[0]), int(size[0]), float(Scores(n, int(test.sum()), n).f1), n)


def greedy_union(
    index: FeatureIndex, holds: np.ndarray, split: np.ndarray, k: int, gain: float = 0.0
) -> tuple[list[int], list[float]]:
    """Up to k latents whose union predicts `holds` best on a split, and the F1 after each; one at a time.

    A latent comes in only if it raises F1 by more than `gain`. After each choice only the tokens that are newly covered
    have to be looked at again: they no longer count for anybody.
    """
    open_, wanted = split.copy(), int((holds & split).sum())
    fired, hits = count_on(index, np.flatnonzero(split)), count_on(index, np.flatnonzero(split & holds))
    total_fired = total_hits = 0
    chosen, scores = [], []
    while len(chosen) < k:
        f1 = Scores(total_hits + hits, total_fired + fired, wanted).f1
        best = int(f1.argmax())
        if chosen and f1[best] <= scores[-1] + gain:
            break
        chosen.append(best)
        scores.append(float(f1[best]))
        total_fired, total_hits = total_fired + fired[best], total_hits + hits[best]
        where = index._latent(best)[0]
        where = where[open_[where]]
        open_[where] = False
        fired, hits = fired - count_on(index, where), hits - count_on(index, where[holds[where]])
    return chosen, scores


def _scores(index: FeatureIndex, latents: Sequence[int], holds: np.ndarray, split: np.ndarray) -> Scores:
    """Counts of "one of these latents is active" against the truth on a split."""
    active = active_on(index, latents) & split
    return Scores(np.array((active & holds).sum()), np.array(active.sum()), np.array((holds & split).sum()))
