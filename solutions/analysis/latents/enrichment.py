"""Which tokens a latent is active on more often than chance would have it.

A latent is active on m of N tokens, a word stands K times in them. If the two had nothing to do with each
other, the number of times they meet would follow the hypergeometric distribution: m balls drawn from an urn
of N, K of them marked. The p-value is the chance to meet at least as often as was counted (Fisher's exact
test, one-sided; the same test finds enriched gene sets). With thousands of latents and thousands of words
some pairs meet often by luck, so the p-values are corrected for their number (Benjamini and Hochberg 1995):
of the pairs with q <= 0.05, one in twenty or fewer is expected to be luck.

The urn knows no documents. In a text about food all food words are commoner, so a latent for food meets every
one of them more often than the urn allows: that is true, and yet it says little about the single word. How much
of what is found comes about that way is seen by moving latents within their documents (`false_discoveries`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import gammaln

from solutions.analysis.latents.blocks import Block, Split, blocks, one_latent, shuffled, split_of_index
from solutions.errors import InputError, check_count

if TYPE_CHECKING:
    from solutions.analysis.index import FeatureIndex


# -------------------------------------------------------------------------------------------- the two tests

def log_tail(n: np.ndarray, of: np.ndarray, m: np.ndarray, total: int) -> np.ndarray:
    """log P(X >= n) for a hypergeometric X, right also where P is too small for a float. [pairs] each.

    Args:
        n: how often a latent and a token met. Where that is no more than chance gives, the answer is 0
            (P = 1): such a pair is not enriched.
        of: occurrences of the token.
        m: tokens the latent is active on.
        total: all tokens.
    """
    n, of, m = (np.array(x) for x in np.broadcast_arrays(*(np.asarray(x, np.float64) for x in (n, of, m))))
    result = np.zeros(n.shape)
    above = n * total > of * m
    n, of, m = n[above], of[above], m[above]
    log_first = _log_choose(of, n) + _log_choose(total - of, m - n) - _log_choose(total, m)
    # P(X = k + 1) / P(X = k) is a simple fraction that falls with k: add terms up until they no longer count.
    added, term, k, left = np.ones(len(n)), np.ones(len(n)), n, np.arange(len(n))
    while len(left):
        for _ in range(8):  # terms between two looks at which pairs are done
            term = term * (of - k) * (m - k) / ((k + 1) * (total - of - m + k + 1))
            k = k + 1
            added[left] += term
        going = term > 1e-12 * added[left]
        term, k, of, m, left = term[going], k[going], of[going], m[going], left[going]
    result[above] = np.minimum(log_first + np.log(added), 0.0)
    return result


def _log_choose(n: np.ndarray | int, k: np.ndarray) -> np.ndarray:
    return gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0)


def benjamini_hochberg(p: np.ndarray, n_tests: int | None = None) -> np.ndarray:
    """q-values: the smallest share of false discoveries at which each test would count as one.

    `scipy.stats.false_discovery_control` with the unlisted ones at p = 1 gives the same.

    Args:
        p: [tests] p-values in any order.
        n_tests: how many tests were made in all, when those with large p are not listed.

    Returns:
        [tests] float64.

    Example:
        >>> benjamini_hochberg(np.array([0.01, 0.04, 0.5])).round(3)
        array([0.03, 0.06, 0.5 ])
    """
    n_tests = len(p) if n_tests is None else n_tests
    order = np.argsort(p, kind="stable")
    steps = p[order] * (n_tests / np.arange(1, len(p) + 1))
    q = np.empty(len(p))
    q[order] = np.minimum.accumulate(steps[::-1])[::-1].clip(max=1.0)
    return q


# ------------------------------------------------------------------------------------ counting on the index

class Pairs(NamedTuple):
    """Latents and tokens that met at least once, [pairs] each, by latent and then by token id."""

    latent: np.ndarray  # int64
    token: np.ndarray   # int64 token id
    n: np.ndarray       # int64: how often, on the tokens that choose
    n_test: np.ndarray  # int64: how often, on the tokens that measure
    log_p: np.ndarray   # float64, on the tokens that choose

    def take(self, which: np.ndarray) -> Pairs:
        """Some of them, or all in another order."""
        return Pairs(*(column[which] for column in self))


class Counts(NamedTuple):
    """How often tokens stand in the text."""

    split: Split
    ids: np.ndarray    # [n_tokens] int64
    train: np.ndarray  # [vocabulary] int64: occurrences of each id, on the tokens that choose
    test: np.ndarray   # [vocabulary] int64: the same on the tokens that measure

    @property
    def n_train(self) -> int:
        """Tokens that choose."""
        return int(self.train.sum())

    @property
    def n_test(self) -> int:
        """Tokens that measure."""
        return int(self.test.sum())


def count_tokens(index: FeatureIndex, split: Split | None = None) -> Counts:
    """How often each token stands in an index."""
    split = split_of_index(index) if split is None else split
    ids = index.ids.numpy()
    size = int(ids.max()) + 1
    return Counts(split, ids, *(np.bincount(ids[part], minlength=size) for part in (split.train, split.test)))


def pairs_of(block: Block, counts: Counts) -> Pairs:
    """The pairs of a block's latents with the tokens they are active on, and how unlikely each is."""
    split, size = counts.split, len(counts.train)
    latents, on_test = block.latents(), split.test[block.places]
    # One number for each entry: sorting numbers is quicker than sorting rows.
    key = latents * size + counts.ids[block.places] << 1 | on_test
    key.sort()
    begins = np.flatnonzero(np.diff(key >> 1, prepend=-1))
    if not len(begins):
        return Pairs(*(np.empty(0, np.int64),) * 4, np.empty(0))
    n_all, n_test = np.diff(begins, append=len(key)), np.add.reduceat(key & 1, begins)
    n = n_all if split.whole else n_all - n_test
    latent, token = np.divmod(key[begins] >> 1, size)
    m = np.bincount(latents[split.train[block.places]], minlength=block.last - block.first)
    log_p = log_tail(n, counts.train[token], m[latent], counts.n_train)
    return Pairs(latent + block.first, token, n, n_test, log_p)


def most_unlikely_first(pairs: Pairs) -> Pairs:
    """By latent, the most enriched token first; of equally unlikely ones, the one met more often."""
    return pairs.take(np.lexsort((pairs.token, -pairs.n, pairs.log_p, pairs.latent)))


# ------------------------------------------------------------------------------------------------ questions

def enriched_tokens(
    index: FeatureIndex,
    latent: int,
    k: int = 20,
    alpha: float = 0.05,
    *,
    split: str = "train",
    shuffle: str | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """The tokens on which one latent is active more often than chance, least likely first.

    Args:
        index: a feature index with a vocabulary.
        latent: which one.
        k: how many tokens at most.
        alpha: the share of false discoveries that is accepted, among the tokens of this latent.
        split: "train" finds them on the train split and says in `test_lift` how they do on the test split;
            "all" finds them on all tokens, and so does "train" in an index without a split.
        shuffle: the control, "everywhere" or "within documents": the latent is moved to other tokens first
            (see `blocks.shuffled`), where it has no business with any token.
        seed: of the shuffle.

    Returns:
        token, n (times that the latent is active on it), of (its occurrences), expected (n by chance), lift
        (n / expected), p, q, test_lift. No row if no token is enriched. An enriched token is no explanation
        yet: it may be a small part of what the latent does. Look at the recall, and at what it does
        elsewhere.

    Raises:
        InputError: there is no such latent or split, or a number cannot be.

    Example:
        >>> enriched_tokens(index, latent, k=3)["token"].tolist()
        [' Sunday', ' Thursday', ' Saturday']
    """
    _check_alpha(alpha)
    if split not in ("train", "all"):
        raise InputError(f"split: expected 'train' or 'all', got {split!r}.")
    content = ~index.is_bos.numpy()
    counts = count_tokens(index, Split(content, content, True) if split == "all" else None)
    block = one_latent(index, latent)
    if shuffle is not None:
        block = shuffled(index, block, shuffle, np.random.default_rng(seed))
    pairs = most_unlikely_first(pairs_of(block, counts))
    q = benjamini_hochberg(np.exp(pairs.log_p), int((counts.train > 0).sum()))
    best = np.flatnonzero(q <= alpha)[:check_count(k, "k")]
    table = _described(index, pairs.take(best), q[best], counts, _actives(block, counts.split))
    return table.drop(columns="latent")


def enriched_pairs(
    index: FeatureIndex,
    alpha: float = 0.05,
    *,
    shuffle: str | None = None,
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """All pairs of a latent and a token that meet more often than by chance, corrected for their number.

    A row takes about 100 bytes, and a latent has tens of them.

    Args:
        index: a feature index with a vocabulary.
        alpha: the share of false discoveries that is accepted, among all pairs.
        shuffle: the control, as in `enriched_tokens`.
        seed: of the shuffle.
        progress: whether to show a bar.

    Returns:
        latent, token, n, of, expected, lift, p, q, test_lift; by latent, least likely first.
        `attrs["n_tests"]` says how many tests were made: every latent that is active at all with every token
        that occurs.

    Raises:
        InputError: `alpha` is no share, or an unknown way to shuffle.
    """
    found = find_enriched(index, alpha, shuffle=shuffle, seed=seed, progress=progress)
    good = found.q <= alpha
    pairs = found.pairs.take(good)
    table = _described(index, pairs, found.q[good], found.counts, found.active)
    table.attrs["n_tests"] = found.n_tests
    return table


def false_discoveries(
    index: FeatureIndex, alpha: float = 0.05, seed: int = 0, *, progress: bool = False
) -> pd.DataFrame:
    """The control of all enrichment: how many pairs are found, and how many where there is nothing to find.

    Moved everywhere, next to nothing may be left. Within documents something may: a latent for French text is
    still in French text.

    Args:
        index: a feature index with a vocabulary.
        alpha: the share of false discoveries that is accepted.
        seed: of the moving.
        progress: whether to show a bar.

    Returns:
        The rows "as it is", "everywhere" and "within documents" (how the latents were moved, see
        `blocks.shuffled`): pairs (latents and tokens with q <= alpha), latents (with at least one), share (of
        the pairs as it is).

    Raises:
        InputError: `alpha` is no share.
    """
    rows = []
    for how in (None, "everywhere", "within documents"):
        found = find_enriched(index, alpha, shuffle=how, seed=seed, progress=progress)
        good = found.q <= alpha
        rows.append((how or "as it is", int(good.sum()), len(np.unique(found.pairs.latent[good]))))
    table = pd.DataFrame(rows, columns=["shuffle", "pairs", "latents"])
    return table.assign(share=table["pairs"] / max(table["pairs"][0], 1))


class Enriched(NamedTuple):
    """What a pass finds."""

    pairs: Pairs          # those that can have q <= alpha, by latent, the least likely first
    q: np.ndarray         # [pairs], exact up to alpha
    best: Pairs           # for each latent with any, the least likely pair, whatever its q
    active: np.ndarray    # [2, n_latents] int64: tokens each latent is active on, to choose and to measure
    n_tests: int
    counts: Counts


def find_enriched(
    index: FeatureIndex, alpha: float = 0.05, *, shuffle: str | None = None, seed: int = 0, progress: bool = False
) -> Enriched:
    """One pass over all latents that looks for enriched tokens only. See `Collector`."""
    collector, dice = Collector(index, alpha), np.random.default_rng(seed)
    for block in blocks(index, progress):
        collector.add(block if shuffle is None else shuffled(index, block, shuffle, dice))
    return collector.result()


class Collector:
    """Gathers enriched pairs block by block, and keeps only those that can turn out to be significant.

    Significant is what has p <= alpha * rank / tests. No rank is higher than the number of pairs that ever
    met, which is at most the number of entries: with 24,576 latents a p above a thousandth never counts, and
    need not be kept.
    """

    def __init__(self, index: FeatureIndex, alpha: float = 0.05):
        self.alpha = _check_alpha(alpha)
        self.counts = count_tokens(index)
        alive, occurring = int((index.n_active > 0).sum()), int((self.counts.train > 0).sum())
        self.n_tests = alive * occurring
        self.least_log_p = np.log(alpha * min(1.0, index.nnz / max(self.n_tests, 1)) + 1e-300)
        self.active = np.zeros((2, index.n_latents), np.int64)
        self.kept: list[Pairs] = []
        self.best: list[Pairs] = []

    def add(self, block: Block) -> None:
        """Look at some more latents."""
        self.active[:, block.first:block.last] = _actives(block, self.counts.split)
        pairs = pairs_of(block, self.counts)
        pairs = most_unlikely_first(pairs.take(np.flatnonzero(pairs.log_p < 0)))
        self.best.append(pairs.take(np.flatnonzero(np.diff(pairs.latent, prepend=-1))))
        self.kept.append(pairs.take(np.flatnonzero(pairs.log_p <= self.least_log_p)))

    def result(self) -> Enriched:
        """What was found, when all latents have been looked at."""
        kept, best = (Pairs(*map(np.concatenate, zip(*parts, strict=True))) for parts in (self.kept, self.best))
        q = benjamini_hochberg(np.exp(kept.log_p), self.n_tests)
        return Enriched(kept, q, best, self.active, self.n_tests, self.counts)


def _actives(block: Block, split: Split) -> np.ndarray:
    """On how many tokens of either split each latent is active, [2, latents]."""
    latents, n = block.latents(), block.last - block.first
    return np.stack([np.bincount(latents[part[block.places]], minlength=n) for part in (split.train, split.test)])


def _described(
    index: FeatureIndex, pairs: Pairs, q: np.ndarray, counts: Counts, active: np.ndarray
) -> pd.DataFrame:
    """Pairs as a table; `active` as in `Enriched`, or for the one latent asked about."""
    row = pairs.latent if active.shape[1] > 1 else np.zeros(len(q), np.int64)
    of = counts.train[pairs.token]
    expected = active[0, row] * of / max(counts.n_train, 1)
    on_test = active[1, row] * counts.test[pairs.token] / max(counts.n_test, 1)
    vocabulary = index.vocabulary
    return pd.DataFrame({
        "latent": pairs.latent, "token": pd.Series([vocabulary[i] for i in pairs.token], dtype=object),
        "n": pairs.n, "of": of, "expected": expected, "lift": pairs.n / expected, "p": np.exp(pairs.log_p), "q": q,
        "test_lift": np.divide(pairs.n_test, on_test, out=np.full(len(q), np.nan), where=on_test > 0),
    })


def _check_alpha(alpha: float) -> float:
    if not 0 < alpha < 1:
        raise InputError(f"alpha: expected a number between 0 and 1, got {alpha!r}.")
    return alpha
