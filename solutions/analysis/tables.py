"""Which latents fire, on what, how often, and which concept they follow."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from solutions.analysis.shapes import check_axes, same_length
from solutions.errors import InputError


def top_features(features: Tensor, str_tokens: Sequence[str], k: int = 5) -> pd.DataFrame:
    """The strongest latents on every token, strongest first.

    Args:
        features: [tokens, latents].
        str_tokens: the same tokens as text.
        k: how many of each token.

    Returns:
        A row for each token and rank, with position, token, rank, latent, activation. Latents that are not
        active are left out, so a token may have fewer than k rows.

    Raises:
        InputError: the two do not fit together, or more latents than there are.

    Example:
        >>> top_features(torch.tensor([[0.0, 2.0], [1.0, 3.0]]), ["A", "B"], k=1)["latent"].tolist()
        [1, 1]
    """
    check_axes("features", features, "tokens", "latents")
    same_length(features=features, str_tokens=str_tokens)
    if not 1 <= k <= features.shape[1]:
        raise InputError(f"k: expected 1 to {features.shape[1]} (the number of latents), got {k}.")
    values, latents = features.topk(k, dim=-1)
    rows = [
        (position, token, rank + 1, int(latents[position, rank]), float(values[position, rank]))
        for position, token in enumerate(str_tokens)
        for rank in range(k)
        if values[position, rank] > 0
    ]
    return pd.DataFrame(rows, columns=["position", "token", "rank", "latent", "activation"])


def density(features: Tensor) -> Tensor:
    """Share of tokens on which each latent is active, [latents], between 0 and 1.

    Args:
        features: [tokens, latents].

    Returns:
        [latents] float32.

    Raises:
        InputError: no [tokens, latents].
    """
    return (check_axes("features", features, "tokens", "latents") > 0).float().mean(0)


def activity_by_text(features: Sequence[Tensor]) -> Tensor:
    """The strongest activation of each latent in each text. A latent that never fires in a text scores 0 there.

    Args:
        features: one [tokens, latents] tensor per text.

    Returns:
        [texts, latents].

    Raises:
        InputError: an empty list, or a tensor of another shape.

    Example:
        >>> one, two = torch.tensor([[0.0, 2.0], [1.0, 0.0]]), torch.tensor([[0.0, 3.0]])
        >>> activity_by_text([one, two])
        tensor([[1., 2.],
                [0., 3.]])
    """
    if len(features) == 0:
        raise InputError("features: expected one [tokens, latents] tensor per text, got an empty list.")
    return torch.stack([check_axes("features of one text", f, "tokens", "latents").amax(0) for f in features])


def contrast(with_it: Tensor, without_it: Tensor, k: int = 10) -> pd.DataFrame:
    """The latents that tell two groups of texts apart, best first.

    Ranked by consistency, then by difference: one loud text must not decide.

    Args:
        with_it: [texts, latents] from `activity_by_text`.
        without_it: the same for the other group. Texts in the same row form a pair.
        k: how many rows at most.

    Returns:
        latent, difference (mean of the paired differences, activation units), with_it and without_it (share
        of the texts in which the latent is active) and consistent (share of pairs in which the first text has
        more).

    Raises:
        InputError: groups of different sizes.
    """
    check_axes("with_it", with_it, "texts", "latents")
    check_axes("without_it", without_it, "texts", "latents")
    if with_it.shape != without_it.shape:
        raise InputError(f"Expected pairs of texts, got {list(with_it.shape)} and {list(without_it.shape)}.")
    difference = with_it - without_it
    table = pd.DataFrame({
        "latent": range(difference.shape[1]),
        "difference": difference.mean(0).tolist(),
        "with_it": (with_it > 0).float().mean(0).tolist(),
        "without_it": (without_it > 0).float().mean(0).tolist(),
        "consistent": (difference > 0).float().mean(0).tolist(),
    })
    return table.sort_values(["consistent", "difference"], ascending=False).head(k).reset_index(drop=True)


def concept_scores(features: Tensor, concept: Tensor, threshold: float = 0.0) -> pd.DataFrame:
    """How well "this latent is above the threshold" predicts "this concept holds here", for every latent.

    Args:
        features: [tokens, latents].
        concept: [tokens] bool.
        threshold: in units of the activations.

    Returns:
        latent, precision (of the tokens where it fires, how many have the concept), recall (of the tokens
        with the concept, on how many it fires) and f1 (their harmonic mean), best F1 first.

    Raises:
        InputError: the two do not fit together.

    Example:
        >>> features = torch.tensor([[1.0, 0.0], [1.0, 2.0], [0.0, 3.0]])
        >>> concept_scores(features, torch.tensor([False, True, True])).iloc[0].to_dict()
        {'latent': 1.0, 'precision': 1.0, 'recall': 1.0, 'f1': 1.0}
    """
    check_axes("features", features, "tokens", "latents")
    check_axes("concept", concept, "tokens")
    same_length(features=features, concept=concept)
    table = _precision_recall((features > threshold).float(), concept.float()[:, None])
    table.insert(0, "latent", range(features.shape[1]))
    return table.sort_values("f1", ascending=False).reset_index(drop=True)


def concepts_of(
    activations: Tensor, labels: Tensor, concepts: Sequence[str], threshold: float = 0.0
) -> pd.DataFrame:
    """Which concept one latent stands for: the scores of `concept_scores`, for one latent and every concept.

    Args:
        activations: [tokens] of the latent.
        labels: [tokens, concepts] bool.
        concepts: their names.
        threshold: in units of the activations.

    Returns:
        concept, precision, recall, f1, best F1 first.

    Raises:
        InputError: the three do not fit together.
    """
    check_axes("activations", activations, "tokens")
    check_axes("labels", labels, "tokens", "concepts")
    same_length(activations=activations, labels=labels)
    if len(concepts) != labels.shape[1]:
        raise InputError(f"concepts: expected {labels.shape[1]} names, one per label, got {len(concepts)}.")
    table = _precision_recall((activations > threshold).float()[:, None], labels.float())
    table.insert(0, "concept", list(concepts))
    return table.sort_values("f1", ascending=False).reset_index(drop=True)


def _precision_recall(fires: Tensor, holds: Tensor) -> pd.DataFrame:
    """Precision, recall and F1 of predictions against truth; each [tokens, n], where either may have n = 1."""
    hits, fired, wanted = (fires * holds).sum(0), fires.sum(0), holds.sum(0)
    return pd.DataFrame({
        "precision": (hits / fired.clamp(min=1)).tolist(),
        "recall": (hits / wanted.clamp(min=1)).tolist(),
        "f1": (2 * hits / (fired + wanted).clamp(min=1)).tolist(),
    })
