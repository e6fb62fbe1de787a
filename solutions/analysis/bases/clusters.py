"""Clusters within one latent's examples: does it have several meanings, or one that comes in many forms?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix
from torch import Tensor

from solutions.analysis.hypotheses.reading import named_labels
from solutions.analysis.pages import Example, different_examples
from solutions.errors import InputError, check_count, unknown_name

if TYPE_CHECKING:
    from solutions.analysis.index.read import FeatureIndex
    from solutions.analysis.texts import LabelledTexts

BY = ("latents", "tokens")
#: Tokens before and including the example that "tokens" looks at.
WINDOW = 6


class ExampleClusters(NamedTuple):
    """How one latent's examples fall into clusters."""

    latent: int               #: its number
    places: np.ndarray        #: [examples] where they stand in the index
    cluster: np.ndarray       #: [examples] 0 for the largest cluster
    silhouette: float         #: how well the clusters are set apart; 1 perfectly, 0 not at all
    shuffled: np.ndarray      #: the same for examples whose columns were shuffled; what luck gives, one number each
    anywhere: float           #: the same for as many tokens from anywhere in the text
    by_number: pd.DataFrame   #: n_clusters, silhouette; what each number of clusters would have given
    table: pd.DataFrame       #: cluster, n, mean activation, tokens, and concept with its share when there are labels

    def examples(self, index: FeatureIndex, cluster: int, k: int = 5, before: int = 7, after: int = 3) -> list[Example]:
        """Some of a cluster's examples, strongest first.

        Args:
            index: the index they were drawn from.
            cluster: its number.
            k: how many at most.
            before: tokens shown before the one in question.
            after: tokens shown after the one in question.

        Raises:
            InputError: there is no such cluster.
        """
        if cluster not in self.cluster:
            raise InputError(f"cluster: expected 0 to {int(self.cluster.max())}, got {cluster!r}.")
        where, values = (x.numpy() for x in index.latent(self.latent))
        cut = index._cutter(where, values, before, after)
        mine = where.searchsorted(self.places[self.cluster == cluster])
        order = mine[np.argsort(-values[mine], kind="stable")].tolist()
        return different_examples(order, lambda i: index.place(int(where[i])), cut, k, apart=before + after)


def example_clusters(
    index: FeatureIndex,
    latent: int,
    *,
    by: str = "latents",
    labels: LabelledTexts | Mapping[str, Tensor] | None = None,
    n: int = 200,
    most: int = 6,
    n_shuffles: int = 10,
    seed: int = 0,
) -> ExampleClusters:
    """Sort examples of a latent into clusters, by what else is going on there, and ask whether the clusters are real.

    The examples are drawn at random from all tokens on which the latent is active, not only from the strongest. They
    are compared by cosine and joined step by step (average linkage); the number of clusters is the one with the best
    silhouette (Rousseeuw 1987).

    Anything can be cut into clusters. So the same is done with examples that cannot have any: each column of the
    table of examples is shuffled on its own, so every other latent (or token) occurs as often as before, but with no
    regard to what else occurs. And it is done with tokens from anywhere. A silhouette that is not above both
    says nothing. One that is says that the examples come in kinds. It does not say that the latent has several
    meanings: one concept in a few fixed phrases gives sharp clusters too. Look at what the clusters are made of.

    Args:
        index: a feature index.
        latent: its number.
        by: what an example is described by: "latents", the other latents that are active on its token, as shares of
            their maxima; or "tokens", the words of the last few tokens, this one included.
        labels: to name each cluster by the concept that sets it apart.
        n: examples, at most.
        most: clusters, at most.
        n_shuffles, seed: of the control; the seed also draws the examples.

    Returns:
        The examples, their clusters, and the two controls.

    Raises:
        InputError: the latent is active on too few tokens.

    Example:
        >>> clusters = example_clusters(index, latent, n=60, n_shuffles=3)
        >>> bool(clusters.silhouette > clusters.shuffled.max())
        True
    """
    if by not in BY:
        raise unknown_name("way to compare examples", by, BY)
    check_count(most, "most", least=2)
    dice = np.random.default_rng(seed)
    where, values = (x.numpy() for x in index.latent(latent))
    if len(where) < 4 * most:
        raise InputError(f"latent {latent} is active on {len(where)} tokens; up to {most} clusters need {4 * most}. "
                         "Read more text, or ask for fewer clusters.")
    chosen = np.sort(dice.choice(len(where), min(check_count(n, "n"), len(where)), replace=False))
    rows = _described(index, latent, where[chosen], by)
    found, scores = _cuts(rows, most)
    best = max(scores, key=scores.get)
    luck = [max(_cuts(_without_empty(dice.permuted(rows, axis=0)), most)[1].values())
            for _ in range(check_count(n_shuffles, "n_shuffles"))]
    content = np.flatnonzero(~index._places["is_bos"])
    elsewhere = np.sort(dice.choice(content, min(len(chosen), len(content)), replace=False))
    anywhere = max(_cuts(_described(index, latent, elsewhere, by), most)[1].values())
    cluster = _largest_first(found[best])
    table = _table(index, where[chosen], values[chosen], cluster, labels)
    by_number = pd.DataFrame({"n_clusters": list(scores), "silhouette": list(scores.values())})
    return ExampleClusters(latent, where[chosen], cluster, scores[best], np.array(luck), anywhere, by_number, table)


def _described(index: FeatureIndex, latent: int, places: np.ndarray, by: str) -> np.ndarray:
    """A row for each example, columns that occur twice or more: [examples, columns]."""
    if by == "latents":
        latents, strength = index.entries(places)
        n = np.diff(index._by_token["starts"])[places]
        row, column = np.repeat(np.arange(len(places)), n), latents.astype(np.int64)
        strength = strength / np.maximum(index._by_latent["maximum"][column], 1e-12)
        other = column != latent
        row, column, strength = row[other], column[other], strength[other]
    else:
        begin = places - np.minimum(index._places["position"][places], WINDOW - 1)
        n = places - begin + 1
        row = np.repeat(np.arange(len(places)), n)
        at = np.repeat(places + 1 - np.cumsum(n), n) + np.arange(n.sum())
        real = ~index._places["is_bos"][at]
        row, column, strength = row[real], index._places["ids"][at][real].astype(np.int64), np.ones(int(real.sum()))
    column = np.unique(column, return_inverse=True)[1]
    table = csr_matrix((strength, (row, column)), shape=(len(places), int(column.max(initial=0)) + 1)).toarray()
    return _without_empty(table[:, (table > 0).sum(0) > 1])


def _without_empty(rows: np.ndarray) -> np.ndarray:
    """An example with nothing in it has no direction; it gets a column of its own kind, shared by all such."""
    return np.hstack([rows, (~rows.any(1, keepdims=True)).astype(float)])


def _cuts(rows: np.ndarray, most: int) -> tuple[dict[int, np.ndarray], dict[int, float]]:
    """The examples in 2 to `most` clusters, and the silhouette of each."""
    from sklearn.cluster import AgglomerativeClustering
    from sklearn.metrics import pairwise_distances, silhouette_score

    apart = pairwise_distances(rows, metric="cosine")
    np.fill_diagonal(apart, 0.0)  # rounding leaves 1e-16 there
    found = {k: AgglomerativeClustering(k, metric="precomputed", linkage="average").fit_predict(apart)
             for k in range(2, most + 1)}
    return found, {k: float(silhouette_score(apart, c, metric="precomputed")) for k, c in found.items()}


def _largest_first(cluster: np.ndarray) -> np.ndarray:
    rank = np.argsort(np.argsort(-np.bincount(cluster), kind="stable"))
    return rank[cluster]


def _table(
    index: FeatureIndex, places: np.ndarray, values: np.ndarray, cluster: np.ndarray,
    labels: LabelledTexts | Mapping[str, Tensor] | None,
) -> pd.DataFrame:
    """What each cluster is made of: its commonest tokens, and the concept whose share differs most from the others'."""
    holds = None
    if labels is not None:
        columns = named_labels(index, labels)
        names, holds = list(columns), np.stack([column.numpy()[places] for column in columns.values()], axis=1)
    rows = []
    for c in range(int(cluster.max()) + 1):
        mine = cluster == c
        ids, n = np.unique(index._places["ids"][places[mine]], return_counts=True)
        common = [index.vocabulary[i] for i in ids[np.argsort(-n, kind="stable")][:5]]
        row = {"cluster": c, "n": int(mine.sum()), "mean": float(values[mine].mean()), "tokens": "|".join(common)}
        if holds is not None:
            share, elsewhere = holds[mine].mean(0), holds[~mine].mean(0)
            best = int((share - elsewhere).argmax())
            row |= {"concept": names[best], "share": float(share[best]), "elsewhere": float(elsewhere[best])}
        rows.append(row)
    return pd.DataFrame(rows)
