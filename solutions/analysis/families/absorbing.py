"""Absorption: a general latent is silent where it should fire, because a special one speaks for it.

A concept's latent saves an SAE a place on every token on which another latent writes the concept's direction along
with something more special. So the general latent gets holes, and a reader who trusts its label is misled: "city" fires
on all cities but the ones that have a latent of their own. Chanin et al. 2024 (section 4) found it in latents for the
first letter of a word. Their measure needs to know on which tokens the concept holds; so does this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from solutions.analysis.families.truth import (
    AT_ONCE,
    active_on,
    check_common,
    count_on,
    tokens_with,
    train_and_test,
)
from solutions.analysis.families.union import greedy_union
from solutions.analysis.shapes import check_axes
from solutions.errors import InputError, check_count

if TYPE_CHECKING:
    from solutions.analysis.index import FeatureIndex


class Absorption(NamedTuple):
    """On how many of a concept's tokens its own latents are silent, and another latent writes their direction."""

    concept: str         #: its name
    parents: list[int]   #: the concept's own latents
    n: int               #: test tokens with the concept
    missed: int          #: of these, on which all parents are silent
    absorbed: int        #: of these, on which another latent carries the direction
    elsewhere: float     #: (control) share of the test tokens *without* the concept, parents silent, that look absorbed
    random: float        #: (control) share of the missed tokens that look absorbed for the direction of a random latent
    table: pd.DataFrame  #: latent, n, cosine, carried, precision, recall, token, token_share; most tokens first

    @property
    def rate(self) -> float:
        """Absorbed tokens as a share of all tokens with the concept."""
        return self.absorbed / self.n

    @property
    def of_missed(self) -> float:
        """Absorbed tokens as a share of those on which the parents are silent; compare it with the two controls."""
        return self.absorbed / self.missed if self.missed else 0.0


def absorption(
    index: FeatureIndex, labels: Tensor, concept: str | int, W_dec: Tensor, *,
    concepts: Sequence[str] | None = None, parents: Sequence[int] | None = None, direction: Tensor | None = None,
    carried: float = 0.4, cosine: float = 0.1, gain: float = 0.03, n_controls: int = 20, seed: int = 0,
) -> Absorption:
    """Where a concept's latents are silent, does another latent carry their direction?

    A token with the concept counts as absorbed when no parent is active and a single other latent writes at least
    `carried` of what the parents usually write along the concept's direction. Parents are chosen, and "usually" is
    measured, on the train split; tokens are counted on the test split.

    This follows Chanin et al. 2024, in the form that SAEBench has given it (Karvonen et al. 2025), with two
    differences. They compare with the activation's own projection on each token; we with the parents' median, which an
    index knows without the activations. And they have no control, which decides here: directions overlap, and some
    share of *any* latent's tokens looks absorbed.

    Args:
        index: a feature index.
        labels, concept, concepts: which tokens have the concept, see `truth.tokens_with`.
        W_dec: [n_latents, d_in], the SAE's decoder.
        parents: the concept's own latents. By default the best by F1 on the train split, and further ones as long as
            each raises the F1 of the union by more than `gain` (split latents are not absorbed ones).
        direction: [d_in], what the concept looks like, for example a linear probe's weights; by default the mean of
            the parents' decoder directions.
        carried: how much of the parents' median a latent must write.
        cosine: how similar its decoder must be to the direction.
        gain: see `parents`; the paper's value.
        n_controls: random latents whose direction is looked for on the same missed tokens.
        seed: of their choice.

    Returns:
        The counts and the two controls.

    Raises:
        InputError: the concept is unknown or does not occur in both splits, or the parents never fire on it.
    """
    holds = tokens_with(index, labels, concept, concepts)
    train, test = train_and_test(index)
    check_common(holds, concept, train, test)
    unit = _unit(W_dec, index)
    if parents is None:
        parents, _ = greedy_union(index, holds, train, 10, gain)
    parents = [index._checked(j, "parents", index.n_latents) for j in parents]
    wanted = _direction(unit[parents].mean(0) if direction is None else direction, unit)
    lengths = W_dec.detach().float().cpu().norm(dim=1).numpy()
    fires = active_on(index, parents)
    usual = _usual(index, np.flatnonzero(train & holds & fires), parents, (unit @ wanted).numpy() * lengths)
    look = _Look(index, parents, unit, lengths, carried, cosine)

    missed, silent = np.flatnonzero(test & holds & ~fires), np.flatnonzero(test & ~holds & ~fires)
    latent, share = look.absorbing(missed, wanted, usual)
    elsewhere = look.absorbing(silent, wanted, usual)[0]
    return Absorption(
        str(concept), parents, int((test & holds).sum()), len(missed), int((latent >= 0).sum()),
        float((elsewhere >= 0).mean()) if len(silent) else 0.0,
        look.for_random_latents(missed, train, check_count(n_controls, "n_controls"), seed),
        _table(index, missed, latent, share, (unit @ wanted).numpy(), holds & test, test),
    )


def silent_tokens(
    index: FeatureIndex, labels: Tensor, concept: str | int, W_dec: Tensor, *, concepts: Sequence[str] | None = None,
    parent: int | None = None, at: float = 0.1, general: float = 0.5, least: int = 8, alpha: float = 0.05,
) -> pd.DataFrame:
    """Tokens of a concept on which its best latent is silent, though it fires on most others: holes in a label.

    The other way to look for absorption: word by word. Words are chosen on the train split (recall of at most `at`) and
    reported on the test split. The control is chance: a latent with a recall of 0.7 is silent on a word eight times
    out of eight once in 15,000 words. q is the binomial probability of so few hits, after the correction for many words
    (Benjamini & Hochberg 1995); rows with q above `alpha` are left out.

    Args:
        index, labels, concept, concepts, W_dec: as in `absorption`.
        parent: the concept's latent; by default the best by F1 on the train split.
        at, alpha: see above.
        general: the recall that the parent must have on the concept's other words, on the train split. The best latent
            for "a form of be" may be a latent for " is": that it is silent on " was" is no hole.
        least: words with fewer occurrences than this on either split are left out.

    Returns:
        token, n (test occurrences with the concept), recall, elsewhere (recall on all other words), q, latent (of those
        active on most of the occurrences the one most similar to the parent), cosine, active (the share of the
        occurrences on which it is), and token_share (of its own tokens the share that are this one: near 1, it is the
        word's own latent). Most occurrences first.

    Raises:
        InputError: an unknown concept, one that does not occur in both splits, or a number that cannot be.
    """
    from scipy.stats import binom, false_discovery_control

    holds = tokens_with(index, labels, concept, concepts)
    train, test = train_and_test(index)
    check_common(holds, concept, train, test)
    unit = _unit(W_dec, index)
    if parent is None:
        parent = greedy_union(index, holds, train, 1)[0][0]
    parent = index._checked(parent, "parent", index.n_latents)
    fires, ids = active_on(index, [parent]), index.ids.numpy()
    size = int(ids.max()) + 1
    n, hits = (np.stack([np.bincount(ids[where & s], minlength=size) for s in (train, test)])
               for where in (holds, holds & fires))
    words = np.flatnonzero((n >= check_count(least, "least")).all(0))
    rows = []
    if len(words):
        p = binom.cdf(hits[1, words], n[1, words], hits[1].sum() / n[1].sum())
        q = false_discovery_control(p)
        elsewhere = ((hits.sum(1, keepdims=True) - hits) / np.maximum(n.sum(1, keepdims=True) - n, 1))[:, words]
        holes = np.flatnonzero((hits[0, words] <= at * n[0, words]) & (elsewhere[0] >= general) & (q <= alpha))
        along = (unit @ unit[parent]).numpy()
        for i in holes.tolist():
            word = int(words[i])
            places = np.flatnonzero(holds & test & (ids == word))
            rows.append((index.vocabulary[word], len(places), hits[1, word] / len(places), elsewhere[1, i], q[i],
                         *_stand_in(index, places, word, along, parent)))
    columns = ["token", "n", "recall", "elsewhere", "q", "latent", "cosine", "active", "token_share"]
    return pd.DataFrame(rows, columns=columns).sort_values("n", ascending=False, kind="stable").reset_index(drop=True)


def _stand_in(
    index: FeatureIndex, places: np.ndarray, word: int, along: np.ndarray, parent: int
) -> tuple[int, float, float, float]:
    """Of the latents active on most of a word's places the one most similar to the parent; or (-1, nan, …)."""
    counts = count_on(index, places)
    counts[parent] = 0
    often = np.flatnonzero(counts > len(places) / 2)
    if not len(often):
        return -1, np.nan, np.nan, np.nan
    j = int(often[along[often].argmax()])
    own = index.ids.numpy()[index._latent(j)[0]]
    return j, float(along[j]), float(counts[j] / len(places)), float((own == word).mean())


def _unit(W_dec: Tensor, index: FeatureIndex) -> Tensor:
    check_axes("W_dec", W_dec, "n_latents", "d_in")
    if len(W_dec) != index.n_latents:
        raise InputError(f"W_dec has {len(W_dec)} directions, the index {index.n_latents} latents.")
    return torch.nn.functional.normalize(W_dec.detach().float().cpu(), dim=1)


def _direction(direction: Tensor, unit: Tensor) -> Tensor:
    check_axes("direction", direction, "d_in")
    if len(direction) != unit.shape[1]:
        raise InputError(f"direction has {len(direction)} numbers, the decoder's directions have {unit.shape[1]}.")
    return torch.nn.functional.normalize(direction.detach().float().cpu(), dim=0)


def _usual(index: FeatureIndex, places: np.ndarray, parents: Sequence[int], writes: np.ndarray) -> float:
    """The median of what the parents together write along the direction, on places where one of them is active.

    writes: [n_latents] what each latent writes along the direction for every unit of activation.
    """
    total = np.zeros(index.n_tokens)
    for j in parents:
        where, values = index._latent(j)
        total[where] += values * writes[j]
    median = float(np.median(total[places])) if len(places) else 0.0
    if median <= 0:
        raise InputError(f"the parents {list(parents)} write nothing along the direction where the concept holds "
                         f"(median {median:.3g}), so nothing can be taken over from them. Give other parents or "
                         "another direction.")
    return median


class _Look(NamedTuple):
    """What is the same for every direction that is looked for."""

    index: FeatureIndex
    parents: list[int]
    unit: Tensor          # [n_latents, d_in]
    lengths: np.ndarray   # [n_latents] of the decoder directions
    carried: float
    cosine: float

    def absorbing(
        self, places: np.ndarray, wanted: Tensor, usual: float, without: Sequence[int] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """For each place the latent that carries the direction (-1: none does), and its share of `usual`."""
        along = (self.unit @ wanted).numpy()
        writes = np.where(along >= self.cosine, along * self.lengths, 0.0)
        writes[list(self.parents if without is None else without)] = 0.0
        latent, most = strongest_on(self.index, places, writes)
        share = most / usual
        return np.where(share >= self.carried, latent, -1), share

    def for_random_latents(self, missed: np.ndarray, train: np.ndarray, n: int, seed: int) -> float:
        """The share of the missed tokens that look absorbed when they are asked about another latent's direction.

        As with the parents, only tokens on which that latent is silent can be absorbed from it, and what it usually
        writes is its median where it is active.
        """
        alive = np.flatnonzero(count_on(self.index, np.flatnonzero(train)))
        alive = np.setdiff1d(alive, self.parents)
        if not len(missed) or not len(alive):
            return 0.0
        shares = []
        for j in np.random.default_rng(seed).choice(alive, min(n, len(alive)), replace=False):
            usual = float(np.median(self.index._latent(j)[1])) * float(self.lengths[j])
            silent = missed[~active_on(self.index, [j])[missed]]
            latent, _ = self.absorbing(silent, self.unit[j], usual, without=[j])
            shares.append((latent >= 0).mean() if len(silent) else 0.0)
        return float(np.mean(shares))


def strongest_on(index: FeatureIndex, places: np.ndarray, writes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each place the latent with the largest activation × writes, and that product; (-1, 0) where none is above 0.

    writes: [n_latents] what one unit of a latent's activation counts.
    """
    best, most = np.full(len(places), -1), np.zeros(len(places))
    starts = index._by_token["starts"]
    for first in range(0, len(places), AT_ONCE):
        part = places[first:first + AT_ONCE]
        latents, values = index.entries(part)
        rows = np.repeat(np.arange(len(part)), starts[part + 1] - starts[part])
        product = values * writes[latents]
        order = np.lexsort((product, rows))           # a place's entries together, its largest last
        last = order[np.flatnonzero(np.diff(rows[order], append=-1))]
        last = last[product[last] > 0]
        best[first + rows[last]], most[first + rows[last]] = latents[last], product[last]
    return best, most


def _table(
    index: FeatureIndex, missed: np.ndarray, latent: np.ndarray, share: np.ndarray, along: np.ndarray,
    holds: np.ndarray, test: np.ndarray,
) -> pd.DataFrame:
    """A row for each absorbing latent: how many tokens it takes over, how special it is, on which token mostly."""
    rows = []
    for j in np.unique(latent[latent >= 0]).tolist():
        mine = latent == j
        where = index._latent(j)[0]
        fired, hits = int(test[where].sum()), int(holds[where].sum())
        ids, counts = np.unique(index.ids.numpy()[missed[mine]], return_counts=True)
        rows.append((j, int(mine.sum()), float(along[j]), float(np.median(share[mine])), hits / max(fired, 1),
                     hits / max(int(holds.sum()), 1), index.vocabulary[int(ids[counts.argmax()])],
                     counts.max() / mine.sum()))
    columns = ["latent", "n", "cosine", "carried", "precision", "recall", "token", "token_share"]
    table = pd.DataFrame(rows, columns=columns)
    return table.sort_values("n", ascending=False, kind="stable").reset_index(drop=True)
