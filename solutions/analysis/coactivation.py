"""Which latents are active on the same tokens: counts for all pairs, how surprising they are, and what they tell.

Two latents that know nothing of each other still meet now and then. So a count says nothing by itself: it is compared
with what two such latents would give (*lift* is the ratio, *PMI* its logarithm in bits, Church & Hanks 1990), and with
what is found when the latents' tokens are permuted (`Coactivation.null`). What is permuted within documents keeps
in which documents a latent lives; pairs that are beyond that null have more in common than a subject.

Only tokens that count are counted: BOS has no latents. A TopK SAE has k places on each token, so its latents compete
for them, and most pairs meet a little less often than chance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import csr_array
from tqdm.auto import tqdm

from solutions.analysis.communities import labelled, names_of
from solutions.analysis.latents.blocks import tokens_of_split
from solutions.errors import InputError, check_count, unknown_name

if TYPE_CHECKING:
    import networkx

    from solutions.analysis.index import ConceptTable, FeatureIndex

#: Cells of the table of all pairs that are filled at a time: some rows of it, with all their columns.
AT_ONCE = 1 << 22

#: What pairs can be ranked by.
MEASURES = ("lift", "pmi", "jaccard", "z")

#: A measure that only a null has, see `Coactivation.null`.
EXCESS = "excess"

#: Within what a latent's tokens are permuted, see `Coactivation.permuted`.
KEPT = ("document", "position", "token", "nothing")


# ------------------------------------------------------------------------------------------- counting

class Activity(NamedTuple):
    """Where every latent is active, both ways round, on the tokens of one split; the numbers are ones."""

    by_latent: csr_array  # [n_latents, n_tokens]
    by_token: csr_array   # [n_tokens, n_latents]


def activity(index: FeatureIndex, chosen: np.ndarray | None = None) -> Activity:
    """The index as two sparse matrices of ones; `chosen` [n_tokens] bool leaves the other tokens out."""
    starts, tokens = index._by_latent["starts"], index._by_latent["tokens"]
    shape = (index.n_latents, index.n_tokens)
    if chosen is None:
        columns = (np.ones(index.nnz, np.int32), index._by_token["latents"], index._by_token["starts"])
        rows = (np.ones(index.nnz, np.int32), tokens, starts)
        return Activity(csr_array(rows, shape=shape), csr_array(columns, shape=shape[::-1]))
    return _both_ways(tokens, starts, chosen[tokens], shape)


def _both_ways(tokens: np.ndarray, starts: np.ndarray, kept: np.ndarray, shape: tuple[int, int]) -> Activity:
    """Both matrices of the entries that are kept; tokens: a latent's after the other's, its own in any order."""
    before = np.concatenate([[0], np.cumsum(kept)])
    by_latent = csr_array((np.ones(before[-1], np.int32), tokens[kept], before[starts]), shape=shape)
    return Activity(by_latent, by_latent.T.tocsr())


def blocks(by_latent: csr_array, by_token: csr_array, progress: bool = False) -> Iterator[tuple[int, csr_array]]:
    """The product of the two, some rows at a time: (number of the first row, [rows, columns] sums).

    A product of sparse matrices does the work of the entries and none for the zeros: on each token, every active
    latent meets every other one.
    """
    n_rows, rows = by_latent.shape[0], max(1, AT_ONCE // by_token.shape[1])
    for first in tqdm(range(0, n_rows, rows), "pairs", disable=not progress):
        yield first, by_latent[first:first + rows] @ by_token


def _count(
    found: Activity, least: int, progress: bool = False, also: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """a < b and n, the number of tokens on which both are active, of the pairs with at least `least`.

    also: [m] int64, ascending: pairs (as a * n_latents + b) to keep however seldom they meet, unless they never do.
    """
    parts, size = [], found.by_latent.shape[0]
    for first, product in blocks(*found, progress=progress):
        product = product.tocoo()
        a, b = product.row.astype(np.int64) + first, product.col.astype(np.int64)
        kept = product.data >= least
        if also is not None and len(also):
            keys = a * size + b
            kept |= also[np.minimum(np.searchsorted(also, keys), len(also) - 1)] == keys
        kept &= a < b
        parts.append((a[kept], b[kept], product.data[kept].astype(np.int64)))
    a, b, n = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.lexsort((b, a))
    return a[order], b[order], n[order]


def coactivation(
    index: FeatureIndex, least: int = 20, split: str = "all", *, progress: bool = False
) -> Coactivation:
    """Count for all pairs of latents on how many tokens both are active.

    The counts are exact. The work is (active latents of a token)² for every token: a minute for 24,576 latents and a
    million tokens with 50 active latents each. In memory are the entries, some rows of the table of all pairs at a
    time, and the pairs that are kept.

    Args:
        index: a feature index.
        least: pairs that meet on fewer tokens are not kept: so few could be anything. With 1, all are.
        split: "all" tokens, those of the "train" or of the "test" split.
        progress: whether to show a bar.

    Returns:
        The counts, and what can be asked of them.

    Raises:
        InputError: an unknown split, or one without tokens.

    Example:
        >>> coactivation(index, least=20).implications().columns.tolist()
        ['parent', 'child', 'p_parent_given_child', 'p_child_given_parent', 'n', 'lift']
    """
    check_count(least, "least")
    chosen = tokens_of_split(index, split)
    found = activity(index, None if split == "all" else chosen)
    n_active = np.diff(found.by_latent.indptr).astype(np.int64)
    return Coactivation(int(chosen.sum()), n_active, *_count(found, least, progress), least, split, index)


# ------------------------------------------------------------------------------------------- all pairs

def pair_measures(n: np.ndarray, n_a: np.ndarray, n_b: np.ndarray, n_tokens: int) -> dict[str, np.ndarray]:
    """What the counts of pairs say.

    n: tokens with both latents; n_a, n_b: tokens with each; n_tokens: tokens looked at.
    Returns expected (n if the two knew nothing of each other), lift (n / expected), pmi (log2 of it, bits), jaccard
    (tokens with both / with either) and z (how many standard deviations n is above expected; the deviation is that
    of the hypergeometric distribution, as for two sets drawn at random).
    """
    expected = n_a * n_b / n_tokens
    lift = n / expected
    spread = expected * (1 - n_a / n_tokens) * (n_tokens - n_b) / max(n_tokens - 1, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        pmi, z = np.log2(lift), (n - expected) / np.sqrt(spread)
    # A latent that is active everywhere meets all others exactly as often as expected.
    return {"expected": expected, "lift": lift, "pmi": pmi, "jaccard": n / (n_a + n_b - n),
            "z": np.where(spread > 0, z, 0.0)}


@dataclass(frozen=True, eq=False)
class Coactivation:
    """How often any two latents are active on the same token; made by `coactivation`."""

    n_tokens: int          #: tokens looked at
    n_active: np.ndarray   #: [n_latents] on how many of them each latent is active
    a: np.ndarray          #: [pairs] int64, the pairs ordered by a, then b
    b: np.ndarray          #: [pairs] int64, above a
    n: np.ndarray          #: [pairs] int64, tokens with both
    least: int             #: pairs with fewer are not here
    split: str             #: which tokens were looked at
    index: FeatureIndex    #: where they were counted

    def __repr__(self) -> str:
        return (f"Coactivation({len(self.n):,} pairs of {len(self.n_active):,} latents with {self.least} or more "
                f"common tokens, of {self.n_tokens:,})")

    @cached_property
    def measures(self) -> dict[str, np.ndarray]:
        """`pair_measures` of all pairs, [pairs] each."""
        return pair_measures(self.n, self.n_active[self.a], self.n_active[self.b], self.n_tokens)

    def _measure(self, by: str) -> np.ndarray:
        if by not in MEASURES:
            raise unknown_name("measure", by, MEASURES)
        return self.measures[by]

    def _at_least(self, least: int | None) -> np.ndarray:
        """[pairs] bool: the pairs with at least so many common tokens."""
        if least is not None and check_count(least, "least") < self.least:
            raise InputError(f"pairs with fewer than {self.least} common tokens were not kept, so least={least} would "
                             f"miss some. Count again: coactivation(index, least={least}).")
        return self.n >= (self.least if least is None else least)

    def pairs(self, k: int | None = 20, by: str = "lift", least: int | None = None) -> pd.DataFrame:
        """The pairs that stand out most.

        Args:
            k: how many at most; None for all.
            by: "lift" or "pmi" (rare latents that always meet come first), "jaccard" (nearly the same tokens)
                or "z" (the best established, mostly common latents).
            least: only pairs with so many common tokens.

        Returns:
            a, b, n, expected, lift, pmi, jaccard, z.

        Raises:
            InputError: an unknown measure, or fewer common tokens than the pairs that were kept have.

        Example:
            >>> found = coactivation(index, least=20)
            >>> found.pairs(k=3, by="jaccard").columns.tolist()
            ['a', 'b', 'n', 'expected', 'lift', 'pmi', 'jaccard', 'z']
        """
        kept = np.flatnonzero(self._at_least(least))
        order = kept[_order(self._measure(by)[kept])]
        return self._table(order if k is None else order[:check_count(k, "k")])

    def _table(self, rows: np.ndarray) -> pd.DataFrame:
        columns = {"a": self.a, "b": self.b, "n": self.n, **self.measures}
        return pd.DataFrame({name: column[rows] for name, column in columns.items()})

    def count(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """The common tokens of any pairs: [m] int64, 0 for a pair that was not kept.

        Args:
            a: [m] int, latents.
            b: [m] int, their partners; which of the two comes first does not matter.
        """
        wanted = np.minimum(a, b).astype(np.int64) * len(self.n_active) + np.maximum(a, b)
        if not len(self.n):
            return np.zeros(len(wanted), np.int64)
        at = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        return np.where(self._keys[at] == wanted, self.n[at], 0)

    @cached_property
    def _keys(self) -> np.ndarray:
        """[pairs] int64, ascending: a number for each pair."""
        return self.a * len(self.n_active) + self.b

    # ------------------------------------------------------------------------------------ the control

    def permuted(self, keep: str = "document", seed: int = 0) -> Coactivation:
        """The same counts after each latent's tokens have been permuted, by itself, within parts of the text.

        The permutation is a rotation by a random number of tokens, another for each latent and part: the latent's
        tokens keep their distances, so that a latent which fires in runs still does.

        Args:
            keep: what a latent still has afterwards: "document" (in which documents it is active, and how often),
                "position" (on which positions of a text), "token" (on which tokens of the vocabulary), or "nothing"
                but its number of tokens.
            seed: of the rotations.

        Returns:
            The pairs that have `least` or more common tokens now, and those that had them before.
        """
        return self._permuted(keep, seed, self.least)

    def _permuted(self, keep: str, seed: int, least: int) -> Coactivation:
        chosen = tokens_of_split(self.index, self.split)
        found = _rotated(self.index, chosen, _parts(self.index, keep), np.random.default_rng(seed))
        counts = _count(found, least, also=self._keys)
        return replace(self, least=least, **dict(zip("abn", counts, strict=True)))

    def null(
        self, n_permutations: int = 10, seed: int = 0, keep: str = "document", by: str = "lift",
        least: int | None = None, progress: bool = False,
    ) -> Null:
        """What `by` comes to for pairs that have nothing to do with one another: see `Null`.

        Args:
            n_permutations, seed, keep: so many times `permuted`.
            by: as in `pairs`, or "excess": (n + 1) / (m + 1), where m is the pair's own mean n in the permutations. The
                others hold all pairs against one threshold, so that a few pairs to which what is kept matters much
                decide for all; "excess" asks of each pair what is kept has not explained. In a permutation, m is the
                mean of the other permutations. It needs the counts of all pairs, also of those that seldom meet.
            least: as in `pairs`; pairs that meet less often are left out in the permutations, too.
            progress: whether to show a bar.

        Returns:
            The null.

        Raises:
            InputError: an unknown measure or thing to keep, or a number that cannot be.
        """
        if by not in (*MEASURES, EXCESS):
            raise unknown_name("measure", by, (*MEASURES, EXCESS))
        n = check_count(n_permutations, "n_permutations", least=2 if by == EXCESS else 1)
        least, kept = self.least if least is None else least, self._at_least(least)
        others = [self._permuted(keep, seed + i, 1 if by == EXCESS else self.least)
                  for i in tqdm(range(n), "permutations", disable=not progress)]
        real, chance = self._beyond(others, by, least)
        values = [other._beyond([o for o in others if o is not other], by, least)[0] for other in others]
        table = self._table(np.flatnonzero(kept)).assign(by_chance=chance)
        table = (table if by in table else table.assign(**{by: real})).iloc[_order(real)].reset_index(drop=True)
        return Null(keep, by, table, np.sort(real), [np.sort(v) for v in values])

    def _beyond(self, others: list[Coactivation], by: str, least: int) -> tuple[np.ndarray, np.ndarray | None]:
        """`by` of the pairs with `least` common tokens here, and the mean n of the same pairs in the others."""
        kept = self._at_least(least)
        a, b, n = self.a[kept], self.b[kept], self.n[kept]
        chance = np.mean([other.count(a, b) for other in others], axis=0) if others else None
        return self._measure(by)[kept] if by != EXCESS else (n + 1) / (chance + 1), chance

    # ----------------------------------------------------------------------- who implies whom, who belongs together

    def implications(self, least: int | None = None, at: float = 0.9, below: float = 0.5) -> pd.DataFrame:
        """Pairs in which the child almost always brings the parent, and the parent mostly comes without the child.

        This is what a general latent and a special case of it look like. Absorption is the opposite: there the child
        *replaces* the parent, and no implication is to be seen (`analysis.absorption`).

        Args:
            least: common tokens that a pair must have.
            at: p_parent_given_child must be this or more.
            below: p_child_given_parent must be this or less.

        Returns:
            parent, child, p_parent_given_child, p_child_given_parent, n, lift; highest lift first. A parent that is
            active on most tokens is implied by everything: its lift is near 1.

        Raises:
            InputError: shares that are not 0 <= below < at <= 1.
        """
        if not 0 <= below < at <= 1:
            raise InputError(f"expected 0 <= below < at <= 1, got below={below}, at={at}.")
        kept = self._at_least(least)
        a, b, n, lift = self.a[kept], self.b[kept], self.n[kept], self.measures["lift"][kept]
        parent, child = np.concatenate([a, b]), np.concatenate([b, a])
        n, lift = np.concatenate([n, n]), np.concatenate([lift, lift])
        up, down = n / self.n_active[child], n / self.n_active[parent]
        table = pd.DataFrame({"parent": parent, "child": child, "p_parent_given_child": up,
                              "p_child_given_parent": down, "n": n, "lift": lift})
        table = table[(up >= at) & (down <= below)]
        return table.sort_values("lift", ascending=False, kind="stable").reset_index(drop=True)

    def graph(self, threshold: float, by: str = "pmi", least: int | None = None) -> networkx.Graph:
        """The pairs with `by` of at least `threshold` as edges; latents without any are not in the graph.

        Nodes carry n_active; edges carry weight (the value of `by`) and n. Take the threshold from `null`.

        Args:
            threshold: what `by` must be at least.
            by: as in `pairs`.
            least: as in `pairs`.
        """
        import networkx

        strong = self._at_least(least) & (self._measure(by) >= threshold)
        a, b = self.a[strong].tolist(), self.b[strong].tolist()
        weights, counts = self._measure(by)[strong].tolist(), self.n[strong].tolist()
        graph = networkx.Graph()
        graph.add_nodes_from((j, {"n_active": int(self.n_active[j])}) for j in sorted({*a, *b}))
        graph.add_edges_from((*pair, {"weight": w, "n": n})
                             for *pair, w, n in zip(a, b, weights, counts, strict=True))
        return graph

    def communities(
        self, threshold: float, by: str = "pmi", least: int | None = None, *,
        concepts: ConceptTable | Mapping[int, str] | Any = None, resolution: float = 1.0, seed: int = 0,
    ) -> pd.DataFrame:
        """Groups of latents that meet each other more than others, by the Louvain method (Blondel et al. 2008).

        Args:
            threshold, by, least: as in `graph`.
            concepts: what each latent is about, to name the groups: a `ConceptTable`, a `LatentTable`, or a mapping
                from latent to name.
            resolution: above 1 gives smaller groups, below 1 larger ones.
            seed: Louvain visits the nodes in a random order, and another order gives other groups.

        Returns:
            latent, community (0 the largest), size; with concepts also concept, label (the commonest concept of the
            group) and share (of the group's named latents that have it).

        Raises:
            InputError: no pair reaches the threshold, or `concepts` are of another kind.
        """
        import networkx

        graph = self.graph(threshold, by, least)
        if not graph:
            raise InputError(f"no pair has a {by} of {threshold:.3g} or more: there is no graph to divide. The highest "
                             f"is {self._measure(by).max(initial=0.0):.3g}.")
        groups = networkx.community.louvain_communities(graph, weight="weight", resolution=resolution, seed=seed)
        groups = sorted((sorted(group) for group in groups), key=lambda group: (-len(group), group))
        table = pd.DataFrame([(j, i, len(group)) for i, group in enumerate(groups) for j in group],
                             columns=["latent", "community", "size"])
        return table if concepts is None else labelled(table, names_of(concepts, table["latent"]))


class Null(NamedTuple):
    """What the measure of a pair comes to by chance, and from where on it is more than that."""

    keep: str                    #: what the permutations kept
    by: str                      #: the measure
    table: pd.DataFrame          #: all pairs as in `Coactivation.pairs`, and by_chance (mean n after permutation)
    real: np.ndarray             #: [pairs] their measure, ascending
    permuted: list[np.ndarray]   #: for each permutation the measure of all its pairs, ascending

    def false_share(self, threshold: float) -> float:
        """Pairs at or above the threshold in a permutation, on average, as a share of those that there really are.

        Args:
            threshold: of the measure `by`.
        """
        false = np.mean([len(v) - np.searchsorted(v, threshold) for v in self.permuted])
        true = len(self.real) - np.searchsorted(self.real, threshold)
        return float(min(false / true, 1.0)) if true else 1.0

    def threshold(self, share: float = 0.05) -> float:
        """The lowest threshold at which no more than `share` of the pairs are false discoveries; infinity if none.

        The share is an estimate of the false discovery rate (Benjamini & Hochberg 1995) by permutation, as Storey &
        Tibshirani 2003 have it, with all pairs counted as possibly false.

        Args:
            share: of false discoveries, between 0 and 1.

        Raises:
            InputError: a share that is not between 0 and 1.
        """
        if not 0 < share < 1:
            raise InputError(f"share: expected a number between 0 and 1, got {share}.")
        values = np.unique(self.real)
        above = len(self.real) - np.searchsorted(self.real, values)
        false = np.mean([len(v) - np.searchsorted(v, values) for v in self.permuted], axis=0)
        good = np.flatnonzero(false <= share * above)
        return float(values[good[0]]) if len(good) else np.inf

    def pairs(self, share: float = 0.05) -> pd.DataFrame:
        """The pairs at or above the threshold, the largest measure first.

        n beside by_chance says how much more they meet than what was kept explains: a pair of two "French" latents may
        have a lift of 30, and still meet no more often than any two latents would that live in the same documents.

        Args:
            share: as for `threshold`.
        """
        return self.table[self.table[self.by] >= self.threshold(share)].reset_index(drop=True)


def _order(values: np.ndarray) -> np.ndarray:
    """Indices from the largest to the smallest; of equal ones, the first first."""
    return np.argsort(-values, kind="stable")


# ------------------------------------------------------------------------------------------- permuting

def _parts(index: FeatureIndex, keep: str) -> np.ndarray:
    """[n_tokens] int: which part of the text each token belongs to; tokens are permuted within a part."""
    if keep not in KEPT:
        raise unknown_name("thing to keep", keep, KEPT)
    if keep == "nothing":
        return np.zeros(index.n_tokens, np.int64)
    return index._places["ids" if keep == "token" else keep].astype(np.int64)


def _rotated(index: FeatureIndex, chosen: np.ndarray, parts: np.ndarray, dice: np.random.Generator) -> Activity:
    """The activity on the chosen tokens after every latent has been rotated within every part.

    The chosen tokens are put in order of their part; `start` and `size` say where a token's part lies in that order.
    A token at rank r of its part moves to rank (r + offset) modulo the part's size.
    """
    places = np.flatnonzero(chosen)
    order = places[np.argsort(parts[places], kind="stable")]
    _, first, part, size = np.unique(parts[order], return_index=True, return_inverse=True, return_counts=True)
    rank, which = np.full(index.n_tokens, -1), np.full(index.n_tokens, -1)
    rank[order], which[order] = np.arange(len(order)) - first[part], part
    starts, tokens = index._by_latent["starts"], index._by_latent["tokens"]
    moved = np.array(tokens)
    kept = chosen[tokens]
    for j in range(index.n_latents):
        here = slice(starts[j], starts[j + 1])
        mine = tokens[here][kept[here]]
        groups, group = np.unique(which[mine], return_inverse=True)
        offset = dice.integers(0, size[groups])[group]
        p = which[mine]
        moved[here][kept[here]] = order[first[p] + (rank[mine] + offset) % size[p]]
    return _both_ways(moved, starts, kept, (index.n_latents, index.n_tokens))
