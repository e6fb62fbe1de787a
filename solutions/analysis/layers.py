"""The same tokens, layer by layer: which latent of one layer goes on as which of the next, and where a concept shows.

Decoders of different layers write into the same residual stream, so their directions can be compared (`cosines`). But a
layer may turn a feature: then it has another direction and still fires on the same tokens. What fires together is the
safer sign that two latents are one feature (Balcells et al. 2024 follow features by it), and both are given here.
Features are [tokens, latents] of the same tokens, in the same order, at every layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor

from solutions.analysis.controls import project, random_directions
from solutions.analysis.matching import Matching, cosines, one_to_one
from solutions.analysis.shapes import check_axes, same_length
from solutions.errors import InputError


def activation_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation over tokens of every latent of a with every latent of b.

    Args:
        a: [tokens, n_a] activations.
        b: [tokens, n_b] activations on the same tokens.

    Returns:
        [n_a, n_b], from -1 to 1; 0 for a latent that never changes.

    Raises:
        InputError: not two matrices of the same tokens.

    Example:
        >>> fired = torch.tensor([[0.0, 1], [2, 0], [0, 3], [2, 0]])
        >>> activation_correlation(fired, 5 * fired)
        tensor([[ 1.0000, -0.8165],
                [-0.8165,  1.0000]])
    """
    check_axes("a", a, "tokens", "n_a")
    check_axes("b", b, "tokens", "n_b")
    same_length(a=a, b=b)
    a, b = (standardise_columns(x) for x in (a, b))
    return (a.T @ b / len(a)).clamp(-1, 1)


def standardise_columns(x: Tensor) -> Tensor:
    """Each column with mean 0 and deviation 1; one that never changes becomes 0."""
    x = x.float() - x.float().mean(0)
    deviation = x.square().mean(0).sqrt()
    return x / deviation.where(deviation > 1e-8, torch.inf)


def match_activations(a: Tensor, b: Tensor) -> Matching:
    """The one-to-one matching of the latents of two layers with the largest sum of correlations.

    Args:
        a: [tokens, n_a] activations at one layer.
        b: [tokens, n_b] activations of the same tokens at another.

    Returns:
        The pairs; their `cosine` is a cosine of centred activations over tokens, which is a correlation.

    Raises:
        InputError: not two matrices of the same tokens.
    """
    return one_to_one(activation_correlation(a, b))


def chance_of_correlation(a: Tensor, b: Tensor, document: Tensor) -> Matching:
    """What matching by activations gives for nothing: b's tokens are those of other documents.

    The documents of b stay whole and are moved half-way round, so each latent keeps its rhythm.

    Args:
        a: [tokens, n_a] activations at one layer.
        b: [tokens, n_b] activations at another.
        document: [tokens] which document a token belongs to, ascending.

    Returns:
        The matching.

    Raises:
        InputError: tensors of different lengths, or fewer than two documents.
    """
    same_length(a=a, b=b, document=document)
    return match_activations(a, b.roll(-half_way(document), 0))


def half_way(document: Tensor) -> int:
    """The token nearest to the middle at which a document begins."""
    starts = (document.diff() != 0).nonzero().flatten() + 1
    if not len(starts):
        raise InputError("document: expected at least two, found one. With one text there is nothing to exchange.")
    return int(starts[(starts - len(document) / 2).abs().argmin()])


def layer_links(
    a: Tensor, b: Tensor, a_directions: Tensor, b_directions: Tensor, least: float = 0.3
) -> pd.DataFrame:
    """Which latents of one layer are active where latents of the next are.

    Args:
        a: [tokens, n_a] activations at the earlier layer.
        b: [tokens, n_b] activations at the later one.
        a_directions: [n_a, d] decoder directions of the earlier layer's SAE.
        b_directions: [n_b, d] those of the later one's.
        least: pairs with a lower correlation are left out.

    Returns:
        One row per pair, the most alike first, with earlier, later, correlation and cosine.

    Raises:
        InputError: tensors that do not fit together.
    """
    correlation = activation_correlation(a, b)
    along = cosines(a_directions, b_directions)
    if along.shape != correlation.shape:
        raise InputError(f"directions: expected one per latent, {tuple(correlation.shape)}, got {tuple(along.shape)}.")
    earlier, later = (correlation >= least).nonzero(as_tuple=True)
    table = pd.DataFrame({
        "earlier": earlier.tolist(), "later": later.tolist(),
        "correlation": correlation[earlier, later].tolist(), "cosine": along[earlier, later].tolist(),
    })
    return table.sort_values("correlation", ascending=False, kind="stable").reset_index(drop=True)


def matches_between(
    features: Sequence[Tensor], directions: Sequence[Tensor], document: Tensor, names: Sequence[str]
) -> pd.DataFrame:
    """How far neighbouring layers have the same latents: by activation, by direction, and by chance.

    Args:
        features: for each layer [tokens, latents].
        directions: for each layer [latents, d].
        document: [tokens] which document a token belongs to, ascending.
        names: what the layers are called.

    Returns:
        One row per step from a layer to the next, with from, to, correlation (mean over the pairs matched by
        activation), correlation_by_chance, cosine (of the same pairs), cosine_by_direction (mean of the pairs
        matched by direction instead) and same_partner (the share of latents that both ways give one partner).

    Raises:
        InputError: fewer than two layers, or lists of different lengths.
    """
    same_length(features=features, directions=directions, names=names)
    if len(features) < 2:
        raise InputError("features: expected at least two layers.")
    rows = []
    for i in range(len(features) - 1):
        a, b = features[i], features[i + 1]
        along = cosines(directions[i], directions[i + 1])
        fired, pointed = match_activations(a, b), one_to_one(along)
        rows.append({
            "from": names[i], "to": names[i + 1],
            "correlation": fired.mean, "correlation_by_chance": chance_of_correlation(a, b, document).mean,
            "cosine": along[fired.a, fired.b].mean().item(), "cosine_by_direction": pointed.mean,
            "same_partner": (fired.b == pointed.b).float().mean().item(),
        })
    return pd.DataFrame(rows)


def first_readable(scores: pd.DataFrame, share: float = 0.9) -> pd.Series:
    """The first layer at which each concept can be read nearly as well as anywhere.

    Args:
        scores: one row per concept, one column per layer, in order.
        share: of the concept's best score: from there on it counts as readable.

    Returns:
        For each concept the name of a column.

    Raises:
        InputError: an empty table, or a share outside (0, 1].

    Example:
        >>> scores = pd.DataFrame({"layer 0": [0.2, 0.8], "layer 1": [0.75, 0.7], "layer 2": [0.8, 0.1]},
        ...                       index=["quotation", "weekday"])
        >>> first_readable(scores).to_dict()
        {'quotation': 'layer 1', 'weekday': 'layer 0'}
    """
    if scores.empty:
        raise InputError("scores: expected at least one concept and one layer, got an empty table.")
    if not 0 < share <= 1:
        raise InputError(f"share: expected more than 0 and at most 1, got {share}.")
    return scores.ge(share * scores.max(axis=1), axis=0).idxmax(axis=1)


def random_features(acts: Mapping[str, Tensor], n: int, keep: int, seed: int = 0) -> dict[str, Tensor]:
    """The control at every layer: the same random directions, as sparse as an SAE's latents.

    Args:
        acts: for each layer [tokens, d] activations.
        n: how many directions.
        keep: how many are active on each token, like an SAE's L0.
        seed: of the directions.

    Returns:
        For each layer [tokens, n] activations.

    Raises:
        InputError: more kept than there are.
    """
    if not acts:
        return {}
    d = next(iter(acts.values())).shape[1]
    drawn = random_directions(n, d, seed)
    return {name: project(x, drawn, keep=keep) for name, x in acts.items()}
