"""An explainer that needs no language model: it counts tokens, and the tokens before them.

It is the default, and the baseline: an explanation in words is worth its cost if it predicts the latent better than a
list of tokens does. Bills et al. 2023 ("Token-based prediction using the probability of tokens") compare with such a
list, too. What it finds is a `Rule`, which can be applied to any passage; so it needs no judge either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from solutions.analysis.latents.blocks import split_of_index
from solutions.errors import check_count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from solutions.analysis.index import FeatureIndex

#: A rule with one part more has to be so much better on the train split: F1.
WORTH_A_PART = 0.02
#: Tokens that a sentence about a rule lists.
SHOWN = 8


@dataclass(frozen=True)
class Rule:
    """On which tokens a latent is expected to be active: on these, after those."""

    tokens: tuple[str, ...] | None = None    #: it is one of these; None means any token
    context: tuple[str, ...] | None = None   #: one of these stands before it; None asks for nothing
    reach: int = 1                           #: how many tokens before it are looked at

    def on(self, tokens: Sequence[str]) -> list[bool]:
        """Where in a passage the rule says that the latent is active; it sees nothing outside the passage.

        Args:
            tokens: the passage.
        """
        wanted, before = set(self.tokens or ()), set(self.context or ())
        return [
            (self.tokens is None or token in wanted)
            and (self.context is None or not before.isdisjoint(tokens[max(0, i - self.reach):i]))
            for i, token in enumerate(tokens)
        ]

    def __str__(self) -> str:
        what = "any token" if self.tokens is None else _listed(self.tokens)
        if self.context is None:
            return what
        where = "right after" if self.reach == 1 else f"within {self.reach} tokens after"
        return f"{what}, {where} {_listed(self.context)}"


def _listed(tokens: Sequence[str]) -> str:
    from solutions.visualization import visible

    more = f" or {len(tokens) - SHOWN} more" if len(tokens) > SHOWN else ""
    return ", ".join(f"“{visible(token)}”" for token in tokens[:SHOWN]) + more


class OfflineExplainer:
    """Finds a rule for each latent, on the train split of an index.

    Args:
        index: a feature index with a vocabulary.
        reach: how far back a rule may look.
        most: tokens that a rule may ask for before the one in question.
        strongest: look at so many of the strongest examples and at nothing else, as a person in a hurry does. A rule
            is then the list of their tokens.

    Raises:
        InputError: a number is too small.
    """

    def __init__(self, index: FeatureIndex, *, reach: int = 10, most: int = 20, strongest: int | None = None):
        self.index = index
        self.most = check_count(most, "most")
        self.strongest = None if strongest is None else check_count(strongest, "strongest")
        self._places = np.flatnonzero(split_of_index(index).train)
        self._ids = index.ids.numpy()
        self._count = np.bincount(self._ids[self._places], minlength=len(index.vocabulary))
        reaches = sorted({1, check_count(reach, "reach")})
        self._before = {} if self.strongest else {r: self._tokens_before(r) for r in reaches}

    def rule(self, latent: int) -> Rule | None:
        """The rule for a latent; None if it is not active on the train split.

        Args:
            latent: its number.
        """
        active = np.zeros(self.index.n_tokens, bool)
        where, values = (x.numpy() for x in self.index.latent(latent))
        active[where] = True
        active = active[self._places]
        if not active.any():
            return None
        if self.strongest is not None:
            return Rule(tokens=self._strongest(where, values))
        tokens, score = self._tokens(active)
        best, best_score = Rule(tokens=self._named(tokens)), score
        here = np.isin(self._ids[self._places], tokens)
        for base, kept in ((here, self._named(tokens)), (np.ones_like(here), None)):
            for reach in self._before:
                context, score = self._context(active, base, reach)
                parts_more = 1 if best.context is None and kept is not None else 0
                if len(context) and score > best_score + WORTH_A_PART * parts_more:
                    best, best_score = Rule(kept, self._named(context), reach), score
        return best

    def _tokens(self, active: np.ndarray) -> tuple[np.ndarray, float]:
        """The set of tokens with the best F1: in the order of how often the latent is active on each."""
        hits = np.bincount(self._ids[self._places[active]], minlength=len(self._count))
        known = np.flatnonzero(hits)
        order = known[np.argsort(-hits[known] / (self._count[known] + 1), kind="stable")]
        f1 = _f1(np.cumsum(hits[order]), np.cumsum(self._count[order]), active.sum())
        chosen = order[:int(f1.argmax()) + 1]
        return chosen[np.argsort(-hits[chosen], kind="stable")], float(f1.max())

    def _context(self, active: np.ndarray, base: np.ndarray, reach: int) -> tuple[np.ndarray, float]:
        """Tokens before that tell the active ones of `base` from the others, and the F1 of base and context."""
        before = self._before[reach]
        hits, fired = (before.T @ part.astype(np.float32) for part in (active & base, base))
        order = np.argsort(-hits / (fired + 4), kind="stable")[:self.most]
        order = order[hits[order] > 0]
        covered, scores = np.zeros(len(base), bool), []
        for token in order:
            covered[before.indices[before.indptr[token]:before.indptr[token + 1]]] = True
            said = covered & base
            scores.append(float(_f1((said & active).sum(), said.sum(), active.sum())))
        if not scores:
            return order, 0.0
        n = int(np.argmax(scores)) + 1
        return order[:n], scores[n - 1]

    def _tokens_before(self, reach: int) -> sparse.csc_array:
        """[train tokens, vocabulary]: which tokens stand at most `reach` before each, in the same document."""
        document, bos = self.index._places["document"], self.index._places["is_bos"]
        rows, columns = [], []
        for back in range(1, reach + 1):
            at = np.flatnonzero(self._places >= back)
            there = self._places[at] - back
            same = (document[there] == document[self._places[at]]) & ~bos[there]
            rows.append(at[same])
            columns.append(self._ids[there[same]])
        rows, columns = np.concatenate(rows), np.concatenate(columns)
        shape = (len(self._places), len(self._count))
        found = sparse.coo_array((np.ones(len(rows), np.float32), (rows, columns)), shape=shape).tocsc()
        found.data[:] = 1.0  # a token that stands there twice stands there
        return found

    def _strongest(self, where: np.ndarray, values: np.ndarray) -> tuple[str, ...]:
        """The tokens of the strongest examples of the train split, at most one example from a document."""
        train = np.isin(where, self._places)
        where, values = where[train], values[train]
        first: dict[int, int] = {}
        for place in where[np.argsort(-values, kind="stable")].tolist():
            first.setdefault(self.index.place(place)[0], place)
            if len(first) == self.strongest:
                break
        return tuple(dict.fromkeys(self._named(self._ids[list(first.values())])))

    def _named(self, ids: np.ndarray) -> tuple[str, ...]:
        return tuple(self.index.vocabulary[int(i)] for i in ids)


def _f1(hits: np.ndarray, fired: np.ndarray, wanted: int) -> np.ndarray:
    return 2 * hits / np.maximum(fired + wanted, 1)
