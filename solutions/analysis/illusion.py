"""The interpretability illusion, measured: does a label read off the strongest examples hold for the weaker ones?

A person labels a latent by looking at its top examples. `illusion` does the same with the truth at hand: it
picks the concept that the top examples share, and then counts on how many of the *other* tokens that concept
holds, interval by interval (Bolukbasi et al. 2021 found the illusion in BERT by looking beyond the top).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from solutions.analysis.shapes import check_axes, same_length
from solutions.errors import InputError


class Illusion(NamedTuple):
    """What the label from the top examples is worth; n is the number of latents that fire often enough."""

    latent: Tensor       #: [n] int64, which latents these are
    concept: Tensor      #: [n] int64, the label; index of the concept that the top examples share
    base: Tensor         #: [n] share of all tokens on which that concept holds; what the label scores by chance
    top: Tensor          #: [n] share of the top examples on which it holds
    by_interval: Tensor  #: [n, intervals] share of each interval on which it holds, strongest interval first
    n_tokens: Tensor     #: [n, intervals] int64, tokens in each interval; the top examples are in none of them

    def table(self, concepts: Sequence[str]) -> pd.DataFrame:
        """One row per latent, the largest fall from the top to the weakest interval first.

        Args:
            concepts: the names of the labels' columns.
        """
        parts = {f"interval {i + 1}": column.tolist() for i, column in enumerate(self.by_interval.T)}
        frame = pd.DataFrame({
            "latent": self.latent.tolist(),
            "label": [concepts[i] for i in self.concept.tolist()],
            "chance": self.base.tolist(),
            "top examples": self.top.tolist(),
            **parts,
        })
        fall = frame["top examples"] - frame[list(parts)[-1]]
        return frame.loc[fall.sort_values(ascending=False, kind="stable").index].reset_index(drop=True)


def illusion(
    features: Tensor,
    labels: Tensor,
    k: int = 10,
    n_intervals: int = 4,
    texts: Tensor | None = None,
    min_active: int = 100,
) -> Illusion:
    """Label every latent by its top k examples, then see how well the label predicts its other tokens.

    The label is the concept that beats its own base rate by most on the top examples; among equals the rarest,
    because it says most. The tokens that are left are sorted by activation and cut into intervals of equal
    number, strongest first. The top examples are not counted again: a label is not tested on what it was made from.

    Args:
        features: [tokens, latents] activations, BOS and padding left out.
        labels: [tokens, concepts] bool, which concepts hold.
        k: how many examples are looked at for the label.
        n_intervals: how many intervals the other active tokens are cut into.
        texts: [tokens] the text each token stands in. With it, at most one top example is taken from a text, as
            on a feature's page.
        min_active: latents active on fewer tokens than this are left out: their intervals would be too short to
            measure a share in.

    Returns:
        One row for each latent that is left.

    Raises:
        InputError: tensors that do not fit together, or no latent is active often enough.
    """
    check_axes("features", features, "tokens", "latents")
    check_axes("labels", labels, "tokens", "concepts")
    same_length(features=features, labels=labels, texts=features if texts is None else texts)
    if k < 1 or n_intervals < 1:
        raise InputError(f"Expected k and n_intervals of 1 or more, got k={k}, n_intervals={n_intervals}.")
    truth = labels.float()
    base = truth.mean(0)
    enough = max(min_active, k + n_intervals)
    rows = [
        (latent, *found)
        for latent in ((features > 0).sum(0) >= enough).nonzero().flatten().tolist()
        if (found := _one(features[:, latent], truth, base, k, n_intervals, texts)) is not None
    ]
    if not rows:
        raise InputError(f"No latent is active on {enough} tokens or more. Read more text, or lower min_active.")
    latent, concept, top, by_interval, n_tokens = zip(*rows, strict=True)
    concept = torch.tensor(concept)
    return Illusion(torch.tensor(latent), concept, base[concept], torch.tensor(top),
                    torch.stack(by_interval), torch.tensor(n_tokens))


def _one(
    activation: Tensor, truth: Tensor, base: Tensor, k: int, n_intervals: int, texts: Tensor | None
) -> tuple[int, float, Tensor, list[int]] | None:
    """Label and shares of one latent: (concept, top, by_interval, n_tokens); None with fewer than k top examples."""
    active = (activation > 0).nonzero().flatten()
    order = active[activation[active].argsort(descending=True, stable=True)]
    top = _top(order, k, texts)
    if len(top) < k:
        return None
    share = truth[top].mean(0)
    concept = best_label(share, base)
    others = order[~torch.isin(order, top)]
    parts = [truth[part, concept] for part in others.tensor_split(n_intervals)]
    if not all(len(part) for part in parts):
        return None
    return concept, float(share[concept]), torch.stack([part.mean() for part in parts]), [len(p) for p in parts]


def _top(order: Tensor, k: int, texts: Tensor | None) -> Tensor:
    """The first k places of an order, at most one a text when the texts are known."""
    if texts is None:
        return order[:k]
    first: dict[int, int] = {}  # text → its strongest place
    for part in order.split(64):  # the first few are nearly always enough
        for place, text in zip(part.tolist(), texts[part].tolist(), strict=True):
            if len(first) < k:
                first.setdefault(text, place)
        if len(first) == k:
            break
    return torch.tensor(list(first.values()), dtype=torch.long)


def best_label(share: Tensor, base: Tensor) -> int:
    """The concept whose share beats its base rate by most, as a part of what is possible; among equals the
    rarest.

    Args:
        share: [concepts] among the examples, from 0 to 1.
        base: [concepts] in the whole text, from 0 to 1.

    Returns:
        The concept's index.

    Raises:
        InputError: no two tensors [concepts].

    Example:
        >>> best_label(share=torch.tensor([0.9, 0.8]), base=torch.tensor([0.8, 0.1]))
        1
    """
    check_axes("share", share, "concepts")
    check_axes("base", base, "concepts")
    same_length(share=share, base=base)
    beyond = (share - base) / (1 - base).clamp(min=1e-6)
    best = beyond >= beyond.max() - 1e-6
    return int(torch.where(best, base, torch.inf).argmin())
