"""What communities of latents are about, and whether that is more than chance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from solutions.errors import InputError, check_count


def names_of(concepts: Any, latents: pd.Series) -> dict[int, str | None]:
    """What each latent is about, from whatever table says so."""
    if isinstance(concepts, Mapping):
        return {j: concepts.get(j) for j in latents}
    if hasattr(concepts, "best"):
        found = {j: concepts.best(j) for j in latents}
        return {j: best and best["name"] for j, best in found.items()}
    table = getattr(concepts, "table", None)
    if not isinstance(table, pd.DataFrame) or not {"latent", "concept"} <= set(table.columns):
        raise InputError("concepts: expected a ConceptTable, a LatentTable with concepts, or a mapping from latent to "
                         f"name; got {type(concepts).__name__}.")
    named = table.dropna(subset="concept").set_index("latent")["concept"]
    return {j: named.get(j) for j in latents}


def labelled(table: pd.DataFrame, names: Mapping[int, str | None]) -> pd.DataFrame:
    """The table with each latent's concept, and the commonest one of its community."""
    table = table.assign(concept=[names[j] for j in table["latent"]])
    for community, group in table.groupby("community"):
        counts = group["concept"].value_counts()  # without the nameless; ties by first appearance
        rows = table["community"] == community
        table.loc[rows, "label"] = counts.index[0] if len(counts) else None
        table.loc[rows, "share"] = counts.iloc[0] / counts.sum() if len(counts) else np.nan
    return table


def community_agreement(communities: pd.DataFrame, n_permutations: int = 100, seed: int = 0) -> pd.Series:
    """Do latents of one community share a concept more often than any latents would?

    The control deals the concepts out anew among the latents and leaves the communities as they are.

    Args:
        communities: from `Coactivation.communities` with concepts.
        n_permutations: how often the concepts are dealt out.
        seed: of the dealing.

    Returns:
        agreement (the share of pairs within a community that have the same concept), chance (its mean over
        the permutations), highest (the largest of them) and pairs.

    Raises:
        InputError: the communities have no concepts, or none has two latents with one.
    """
    if "concept" not in communities:
        raise InputError("community_agreement needs concepts: call communities(…, concepts=…).")
    named = communities.dropna(subset="concept")
    group = named["community"].to_numpy()
    concept = pd.factorize(named["concept"])[0]
    pairs = _pairs_within(group)
    if not pairs:
        raise InputError("no community has two latents with a concept.")

    def agreement(concept: np.ndarray) -> float:
        return _pairs_within(group * (concept.max() + 1) + concept) / pairs

    dice = np.random.default_rng(seed)
    chance = [agreement(dice.permutation(concept)) for _ in range(check_count(n_permutations, "n_permutations"))]
    return pd.Series({"agreement": agreement(concept), "chance": np.mean(chance), "highest": max(chance),
                      "pairs": pairs})


def _pairs_within(group: np.ndarray) -> int:
    """Number of pairs with the same value."""
    counts = np.unique(group, return_counts=True)[1]
    return int((counts * (counts - 1) // 2).sum())
