"""Where in a text a latent is active: at which positions, and at the beginning or the end of sentences.

The question is always asked within documents. A latent for Python code is active in long documents that have
few full stops; that alone would give it a taste for late positions and a dislike of sentence ends. So what is
expected is counted document by document: as many active tokens in each as there are, but anywhere in it. (The
same idea, counting within strata, is Mantel and Haenszel's, 1959.) How far luck goes is seen by really moving
them: each document's activity is shifted round by a random stretch, so that neighbours stay neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from solutions.analysis.latents.blocks import Block, documents_of, ratio
from solutions.analysis.latents.enrichment import benjamini_hochberg
from solutions.errors import InputError, check_count

if TYPE_CHECKING:
    from solutions.analysis.index import FeatureIndex

#: What ends a sentence.
ENDS = (".", "!", "?")
#: Closing marks and spaces may stand between the end of a sentence and the first word of the next.
_BETWEEN = " \t\r\n\"'”’»)]}"


# --------------------------------------------------------------------------------------- marks on the tokens

def sentence_marks(index: FeatureIndex, ends: Sequence[str] = ENDS) -> tuple[np.ndarray, np.ndarray]:
    """The first tokens of sentences and the tokens that end one.

    A token ends a sentence if its text, white space aside, ends with one of `ends`. The next token of the
    document that is more than white space or a closing quote begins a sentence, and so does the first token
    of a document. The full stop of "3.5" or "Mr." counts as an end, too: this reads tokens, not grammar.

    Args:
        index: a feature index with a vocabulary.
        ends: the marks that end a sentence.

    Returns:
        (starts, ends), [n_tokens] bool each.

    Raises:
        InputError: no marks.
    """
    ends = (ends,) if isinstance(ends, str) else tuple(ends)
    if not ends or not all(isinstance(mark, str) and mark for mark in ends):
        raise InputError(f"ends: expected one or more marks such as {ENDS}, got {ends!r}.")
    ids, content = index._places["ids"], ~index._places["is_bos"]
    # "\n" may be asked for as a mark, so only blanks are taken off in the second reading.
    closes = np.array([text.rstrip().endswith(ends) or text.rstrip(" ").endswith(ends) for text in index.vocabulary])
    empty = np.array([not text.strip(_BETWEEN) for text in index.vocabulary]) & ~closes
    end = closes[ids] & content
    words = np.flatnonzero(content & ~empty[ids])
    document = index._places["document"][words]
    after_end = np.ones(len(words), bool)
    after_end[1:] = end[words[:-1]] | (document[1:] != document[:-1])
    start = np.zeros(len(ids), bool)
    start[words[after_end & ~end[words]]] = True
    return start, end


def position_edges(index: FeatureIndex) -> list[int]:
    """The first position of each of the ranges 1, 2, 3–4, 5–8, 9–16, …: they double, since most happens early."""
    position = index._places["position"][~index._places["is_bos"]]
    first, last = int(position.min()), int(position.max())
    steps = [0, *(2 ** i for i in range(max(1, last - first).bit_length()))]
    return [first + step for step in steps if first + step <= last]


def share_in_document(index: FeatureIndex, marks: np.ndarray) -> np.ndarray:
    """For every token, the mean of `marks` over its document, BOS left out. marks: [n_tokens, k] or [n_tokens]."""
    content, number = ~index._places["is_bos"], documents_of(index).number
    n = np.maximum(np.bincount(number, content), 1)
    columns = marks.reshape(len(marks), -1).T
    means = np.stack([np.bincount(number, column * content) / n for column in columns], axis=1)
    return means[number].reshape(marks.shape)


# ------------------------------------------------------------------------------------------ all latents

class PlaceSums:
    """Position and sentence preferences of all latents, block by block: sizes only, without tests."""

    columns = ("mean_position", "position_effect", "start_lift", "end_lift")

    def __init__(self, index: FeatureIndex, ends: Sequence[str] = ENDS):
        position = index._places["position"].astype(np.float64)
        start, end = sentence_marks(index, ends)
        marks = np.stack([position, start, end], axis=1)
        means = share_in_document(index, marks)
        away = (position - means[:, 0])[~index._places["is_bos"]]
        self.spread = float(away.std()) or 1.0
        self.both = np.concatenate([marks, means], axis=1)  # [n_tokens, 6]

    def of(self, block: Block) -> dict[str, np.ndarray]:
        """The four columns for a block's latents; NaN where nothing can be said."""
        sums, n = self.both_sums(block), np.diff(block.starts)
        position, start, end, usual_position, usual_start, usual_end = sums.T
        return {
            "mean_position": ratio(position, n),
            "position_effect": ratio(position - usual_position, n * self.spread),
            "start_lift": ratio(start, usual_start),
            "end_lift": ratio(end, usual_end),
        }

    def both_sums(self, block: Block) -> np.ndarray:
        """[latents, 6]: what is found on a latent's tokens, and what their documents would make one expect."""
        return block.sums(self.both)


# ------------------------------------------------------------------------------------------- one latent

def position_preference(
    index: FeatureIndex, latent: int, edges: Sequence[int] | None = None, *, n_shuffles: int = 200, seed: int = 0
) -> pd.DataFrame:
    """At which positions of its documents a latent is active more often than elsewhere.

    Args:
        index: a feature index.
        latent: which one.
        edges: the first position of each range, ascending; by default 1, 2, 3, 5, 9, … (ranges that double).
        n_shuffles: how often its activity is moved within the documents, as the control.
        seed: of the moving.

    Returns:
        first, last (the range of positions, from the beginning of the document, BOS included), n (active
        tokens), of (all tokens), expected (n, given how many active tokens each document has), lift (n /
        expected), low and high (the lift that 95 % of the shuffled ones lie between), p (share of the
        shuffled ones that are as far from what is expected), q (p corrected for the number of ranges).

    Raises:
        InputError: there is no such latent, or the edges do not ascend.
    """
    position, content = index._places["position"], ~index._places["is_bos"]
    edges = position_edges(index) if edges is None else list(edges)
    if not edges or sorted(set(edges)) != edges:
        raise InputError(f"edges: expected ascending positions, got {edges}.")
    kind = np.searchsorted(edges, position, side="right") - 1  # -1: before the first range
    table = _preference(index, latent, np.where(content, kind, -1), len(edges), n_shuffles, seed)
    table.insert(0, "first", edges)
    table.insert(1, "last", [*(edge - 1 for edge in edges[1:]), max(int(position[content].max()), edges[-1])])
    return table


def boundary_preference(
    index: FeatureIndex, latent: int, ends: Sequence[str] = ENDS, *, n_shuffles: int = 200, seed: int = 0
) -> pd.DataFrame:
    """Whether a latent prefers the first word of a sentence, the mark that ends it, or what lies between.

    A latent that simply follows the full stop has a high lift at the end: this says where, not why.

    Args:
        index: a feature index.
        latent: which one.
        ends: see `sentence_marks`.
        n_shuffles: how often its activity is moved within the documents, as the control.
        seed: of the moving.

    Returns:
        The rows "start", "end" and "between" (column `where`); the other columns are those of
        `position_preference`.

    Raises:
        InputError: there is no such latent, or a number or a mark cannot be.
    """
    start, end = sentence_marks(index, ends)
    kind = np.where(start, 0, np.where(end, 1, 2))
    kind[index._places["is_bos"]] = -1
    table = _preference(index, latent, kind, 3, n_shuffles, seed)
    table.insert(0, "where", ["start", "end", "between"])
    return table


def _preference(
    index: FeatureIndex, latent: int, kind: np.ndarray, n_kinds: int, n_shuffles: int, seed: int
) -> pd.DataFrame:
    """How often a latent meets each kind of token, against what its documents make one expect.

    kind: [n_tokens] int, 0 to n_kinds - 1, or -1 for tokens that are not asked about.
    """
    where, documents = index._latent(latent)[0], documents_of(index)
    dice, n_shuffles = np.random.default_rng(seed), check_count(n_shuffles, "n_shuffles")

    def count(places: np.ndarray) -> np.ndarray:
        return np.bincount(kind[places] + 1, minlength=n_kinds + 1)[1:]

    def usual(c: int) -> float:
        return float(share_in_document(index, (kind == c).astype(np.float64))[where].sum())

    n, expected = count(where), np.array([usual(c) for c in range(n_kinds)])
    moved = np.stack([count(documents.rotated(where, dice)) for _ in range(n_shuffles)])
    as_far = np.abs(moved - expected) >= np.abs(n - expected) - 1e-9
    p = (1 + as_far.sum(0)) / (n_shuffles + 1)
    low, high = (ratio(ends, expected) for ends in np.quantile(moved, (0.025, 0.975), axis=0))
    return pd.DataFrame({
        "n": n, "of": np.bincount(kind + 1, minlength=n_kinds + 1)[1:], "expected": expected,
        "lift": ratio(n.astype(float), expected), "low": low, "high": high, "p": p, "q": benjamini_hochberg(p),
    })
