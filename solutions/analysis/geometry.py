"""Decoder directions: do latents that point the same way also fire together, and what a map of them looks like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from solutions.analysis.coactivation import Coactivation, coactivation
from solutions.analysis.controls import pca_directions
from solutions.analysis.matching import cosines
from solutions.analysis.shapes import check_axes
from solutions.errors import InputError, check_count, unknown_name

if TYPE_CHECKING:
    from solutions.analysis.index import FeatureIndex

#: Pairs that are compared; of more, so many are drawn at random.
MOST_PAIRS = 1_000_000

METHODS = ("pca", "tsne")


# --------------------------------------------------------------------------------- cosine and co-activation

class CosineAgainst(NamedTuple):
    """Cosine of two decoder directions beside how often the two latents meet."""

    table: pd.DataFrame    #: a, b, cosine, n, expected, lift; the most similar pairs first
    correlation: float     #: Spearman's, over these pairs
    permuted: np.ndarray   #: [n_permutations] the same after the directions have been dealt out anew

    def by_cosine(self, edges: Sequence[float] = (-1, -0.2, -0.1, 0, 0.1, 0.2, 0.3, 0.5, 1)) -> pd.DataFrame:
        """The pairs in intervals of their cosine, the least similar first.

        Args:
            edges: ends of the intervals, ascending.

        Returns:
            from, to, pairs, lift (median), never (share of the pairs without any common token) and often
            (share with a lift above 2). Intervals without pairs are left out.
        """
        groups = self.table.groupby(np.digitize(self.table["cosine"], edges[1:-1]))
        low, high = (np.array(edges, float)[list(groups.groups)] for edges in (edges[:-1], edges[1:]))
        return pd.DataFrame({"from": low, "to": high, "pairs": groups.size(), "lift": groups["lift"].median(),
                             "never": groups["n"].agg(lambda n: (n == 0).mean()),
                             "often": groups["lift"].agg(lambda lift: (lift > 2).mean())}).reset_index(drop=True)


def cosine_against_coactivation(
    source: FeatureIndex | Coactivation, W_dec: Tensor, *, least_expected: float = 5.0, n_permutations: int = 20,
    seed: int = 0,
) -> CosineAgainst:
    """Do latents with similar directions fire on the same tokens, or instead of each other?

    Both are to be expected. Two latents for related things are similar and meet. But an SAE that pays for every active
    latent has no use for two that say nearly the same at once: the pieces of a split latent are similar and never meet.

    The control deals the directions out anew among the latents (Mantel 1967). To shuffle pairs instead would be wrong:
    a latent's pairs depend on one another, and chance would look smaller than it is.

    Args:
        source: a feature index, or its `coactivation(index, least=1)`: a pair that was not kept because it meets
            seldom would be taken for one that never meets.
        W_dec: [n_latents, d_in] decoder directions; lengths do not matter.
        least_expected: pairs that would meet on fewer tokens than this by chance are left out. Their lift is mostly 0.
        n_permutations: how often the directions are dealt out.
        seed: of the permutations, and of the choice of pairs where there are more than `MOST_PAIRS`.

    Returns:
        The pairs, how closely cosine and lift go together, and the control.

    Raises:
        InputError: directions of other latents, or a source that left pairs out.
    """
    from scipy.stats import spearmanr

    found = source if isinstance(source, Coactivation) else coactivation(source, least=1)
    if found.least > 1:
        raise InputError(f"this coactivation keeps only pairs with {found.least} or more common tokens. Give the "
                         "index, or coactivation(index, least=1).")
    check_axes("W_dec", W_dec, "n_latents", "d_in")
    if len(W_dec) != len(found.n_active):
        raise InputError(f"W_dec has {len(W_dec)} directions, the index {len(found.n_active)} latents.")
    dice = np.random.default_rng(seed)
    a, b = _pairs(found.n_active, least_expected * found.n_tokens, dice)
    n, expected = found.count(a, b), found.n_active[a] * found.n_active[b] / found.n_tokens
    unit = torch.nn.functional.normalize(W_dec.detach().float().cpu(), dim=1)
    table = pd.DataFrame({"a": a, "b": b, "cosine": _along(unit, a, b), "n": n, "expected": expected,
                          "lift": n / expected})
    alive = np.flatnonzero(found.n_active)
    permuted = []
    for _ in range(check_count(n_permutations, "n_permutations")):
        dealt = np.arange(len(unit))
        dealt[alive] = dice.permutation(alive)
        permuted.append(spearmanr(_along(unit, dealt[a], dealt[b]), table["lift"]).statistic)
    correlation = float(spearmanr(table["cosine"], table["lift"]).statistic)
    table = table.sort_values("cosine", ascending=False, kind="stable").reset_index(drop=True)
    return CosineAgainst(table, correlation, np.array(permuted))


def _pairs(n_active: np.ndarray, least: float, dice: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """a < b of the pairs with n_a n_b of at least `least`; of too many, a random choice."""
    alive = np.flatnonzero(n_active)
    if len(alive) * (len(alive) - 1) // 2 <= MOST_PAIRS:
        a, b = (alive[i] for i in np.triu_indices(len(alive), 1))
    else:
        drawn = np.sort(dice.choice(alive, (2 * MOST_PAIRS, 2)), axis=1)
        a, b = np.unique(drawn[drawn[:, 0] < drawn[:, 1]], axis=0)[:].T
    kept = n_active[a].astype(float) * n_active[b] >= least
    if kept.sum() < 3:
        raise InputError(f"{kept.sum()} pairs are expected to meet often enough, too few for a correlation. Read more "
                         "text, or lower least_expected.")
    a, b = a[kept], b[kept]
    if len(a) > MOST_PAIRS:
        few = np.sort(dice.choice(len(a), MOST_PAIRS, replace=False))
        a, b = a[few], b[few]
    return a, b


def _along(unit: Tensor, a: np.ndarray, b: np.ndarray, at_once: int = 1 << 17) -> np.ndarray:
    """Cosines of pairs of unit vectors, a part of the pairs at a time."""
    a, b = torch.from_numpy(a), torch.from_numpy(b)
    parts = [(unit[i] * unit[j]).sum(1) for i, j in zip(a.split(at_once), b.split(at_once), strict=True)]
    return torch.cat(parts).double().numpy()


# ----------------------------------------------------------------------------------------- a map of directions

def direction_map(W_dec: Tensor, method: str = "pca", seed: int = 0, perplexity: float = 30.0) -> pd.DataFrame:
    """A place in the plane for every decoder direction: latent, x, y.

    Whichever it is, ask `neighbours_kept` how much of the truth is on the map before you read anything off it.

    Args:
        W_dec: [n_latents, d_in]; lengths do not matter.
        method: "pca", the two directions along which the unit vectors differ most (a shadow: exact, and mostly
            a cloud), or "tsne" (van der Maaten & Hinton 2008; keeps neighbours together, while distances between groups
            and the sizes of groups mean nothing).
        seed: of t-SNE, whose picture depends on it.
        perplexity: of t-SNE: about how many neighbours count.

    Returns:
        A row for every latent.

    Raises:
        InputError: an unknown method, or fewer than three directions.
    """
    check_axes("W_dec", W_dec, "n_latents", "d_in")
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    if len(W_dec) < 3:
        raise InputError(f"a map of {len(W_dec)} directions shows nothing; give 3 or more.")
    unit = torch.nn.functional.normalize(W_dec.detach().float().cpu(), dim=1)
    if method == "pca":
        places = (unit - unit.mean(0)) @ pca_directions(unit, 2).T
    else:
        from sklearn.manifold import TSNE

        model = TSNE(metric="cosine", init="random", perplexity=min(perplexity, (len(unit) - 1) / 3), random_state=seed)
        places = torch.from_numpy(model.fit_transform(unit.numpy()))
    return pd.DataFrame({"latent": np.arange(len(unit)), "x": places[:, 0].tolist(), "y": places[:, 1].tolist()})


def neighbours_kept(W_dec: Tensor, places: pd.DataFrame, k: int = 10) -> float:
    """Of each direction's k nearest, the share that is also among its k nearest on the map; chance is k / (n -
    1).

    Args:
        W_dec: [n_latents, d_in].
        places: from `direction_map`, latent by latent.
        k: how many neighbours.

    Returns:
        From 0 to 1.

    Raises:
        InputError: a map of other directions, or as many neighbours as there are.
    """
    n = len(W_dec)
    if not 1 <= check_count(k, "k") < n or len(places) != n:
        raise InputError(f"expected k below the number of directions, {n}, and a map of as many; got k={k} and a "
                         f"map of {len(places)}.")
    flat = torch.tensor(places[["x", "y"]].to_numpy(), dtype=torch.float32)
    alike, near = cosines(W_dec, W_dec), -torch.cdist(flat, flat)
    for table in (alike, near):
        table.fill_diagonal_(-torch.inf)
    true, shown = (torch.zeros(n, n, dtype=torch.bool).scatter_(1, t.topk(k, dim=1).indices, True)
                   for t in (alike, near))
    return (true & shown).sum().item() / (n * k)
