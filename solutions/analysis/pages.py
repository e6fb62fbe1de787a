"""All that a dashboard shows about one latent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from solutions.analysis.shapes import check_axes, same_length
from solutions.errors import InputError


class Example(NamedTuple):
    """A stretch of text around one token on which a latent fires."""
    tokens: list[str]          # the token in the middle and its neighbours
    activations: list[float]   # one per token
    peak: int                  # where in `tokens` the chosen token stands
    text: int                  # which text it comes from
    position: int              # where in that text


class Interval(NamedTuple):
    """The active tokens whose activation lies in (low, high]; the lowest interval includes its lower end."""
    low: float
    high: float
    n_tokens: int
    examples: list[Example]


class FeaturePage(NamedTuple):
    """All that a dashboard shows about one latent."""
    latent: int
    n_tokens: int                      # tokens looked at, BOS and padding not among them
    n_active: int
    density: float                     # n_active / n_tokens
    maximum: float                     # strongest activation seen
    counts: list[int]                  # histogram of the active tokens
    edges: list[float]                 # one more than counts
    intervals: list[Interval]          # strongest first
    positive: list[tuple[str, float]]  # tokens whose logit the decoder direction raises most
    negative: list[tuple[str, float]]  # and lowers most


def interval_edges(active: Tensor, n_intervals: int) -> list[float]:
    """Ends of n intervals with equally many of the active values each, lowest first; equal ends merge."""
    check_axes("active", active, "active tokens")
    if n_intervals < 1:
        raise InputError(f"n_intervals: expected 1 or more, got {n_intervals}.")
    ordered = active.sort().values.double()
    cuts = torch.quantile(ordered, torch.linspace(0, 1, n_intervals + 1, dtype=torch.float64)).tolist()
    cuts[0], cuts[-1] = float(ordered[0]), float(ordered[-1])  # exact: the maximum belongs to the last one
    return sorted(set(cuts))


def feature_page(
    activations: Tensor,
    mask: Tensor,
    str_tokens: Sequence[Sequence[str]],
    latent: int,
    logits: tuple[list[tuple[str, float]], list[tuple[str, float]]] = ((), ()),
    n_intervals: int = 4,
    per_interval: int = 3,
    n_bins: int = 20,
    before: int = 7,
    after: int = 3,
    seed: int = 0,
) -> FeaturePage:
    """Gather what a feature dashboard shows, from one latent's activations on a set of texts.

    activations: [texts, positions]; mask: the same shape, True on the tokens that count (no BOS, no padding);
    str_tokens: for each text its tokens as strings, as far as the mask reaches; logits: from `logit_effects`.
    Examples of the strongest interval are the top ones; those of the others are drawn at random from their
    interval, at most one a text: the top alone makes almost anything look clean (Bolukbasi et al. 2021).
    Bricken et al. 2023 show examples by interval for the same reason.
    """
    check_axes("activations", activations, "texts", "positions")
    if mask.shape != activations.shape or mask.dtype != torch.bool:
        wanted = f"torch.bool of shape {list(activations.shape)}"
        raise InputError(f"mask: expected {wanted}, got {mask.dtype} of shape {list(mask.shape)}.")
    same_length(activations=activations, str_tokens=str_tokens)
    kept = torch.where(mask, activations.float(), 0.0)
    active, n_tokens = kept[kept > 0], int(mask.sum())
    if n_tokens == 0:
        raise InputError("mask: expected at least one token that counts, got none.")
    positive, negative = list(logits[0]), list(logits[1])
    if len(active) == 0:  # a dead latent has a page too: it says that nothing was found
        return FeaturePage(latent, n_tokens, 0, 0.0, 0.0, [], [0.0], [], positive, negative)

    counts, edges = torch.histogram(active.cpu(), n_bins, range=(0.0, float(active.max())))
    ends = interval_edges(active, n_intervals)
    pairs = list(zip(ends[:-1], ends[1:], strict=True)) or [(ends[0], ends[0])]
    generator = torch.Generator().manual_seed(seed)
    intervals = []
    for number, (low, high) in enumerate(reversed(pairs)):
        lowest = number == len(pairs) - 1
        above = (kept > 0) if lowest else (kept.double() > low)
        inside = above & (kept.double() <= high)
        where = inside.nonzero()
        if number == 0:
            where = where[kept[inside].argsort(descending=True, stable=True)]
        else:
            where = where[torch.randperm(len(where), generator=generator)]
        examples = [_example(kept[text], mask[text], str_tokens[text], text, position, before, after)
                    for text, position in _one_per_text(where.tolist(), per_interval)]
        intervals.append(Interval(low, high, int(inside.sum()), examples))
    return FeaturePage(latent, n_tokens, len(active), len(active) / n_tokens, float(active.max()),
                       counts.int().tolist(), edges.tolist(), intervals, positive, negative)


def _one_per_text(places: list[list[int]], n: int) -> list[tuple[int, int]]:
    """The first n (text, position) places, never two from one text."""
    first: dict[int, int] = {}
    for text, position in places:
        if len(first) == n:
            break
        first.setdefault(text, position)
    return list(first.items())


def _example(
    row: Tensor, mask: Tensor, tokens: Sequence[str], text: int, position: int, before: int, after: int
) -> Example:
    """Cut the window around one token out of its text; BOS and padding are not shown."""
    real = mask.nonzero().flatten()
    start, stop = max(int(real[0]), position - before), min(int(real[-1]), position + after) + 1
    return Example(list(tokens[start:stop]), row[start:stop].tolist(), position - start, text, position)


def logit_effects(
    direction: Tensor, unembed: Tensor, vocabulary: Sequence[str], k: int = 10, gain: Tensor | None = None
) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """The tokens whose logits a direction raises and lowers most when added to the last residual stream.

    direction: [d_model], for a latent its decoder row; unembed: [d_model, vocabulary]; gain: [d_model], the
    weight of the last normalisation when it has not been folded into `unembed`.
    Returns (positive, negative), each k pairs of token and logit, strongest first. The mean over the
    vocabulary is taken off: adding one constant to every logit changes no prediction. This is the direct
    path only ("logit lens", nostalgebraist 2020): what later layers make of the direction does not show.
    """
    check_axes("direction", direction, "d_model")
    check_axes("unembed", unembed, "d_model", "vocabulary")
    if len(direction) != len(unembed):
        raise InputError(f"direction has d_model {len(direction)}, unembed {len(unembed)}: they must agree.")
    if len(vocabulary) != unembed.shape[1]:
        wanted = f"{unembed.shape[1]} tokens, one per column of unembed"
        raise InputError(f"vocabulary: expected {wanted}, got {len(vocabulary)}.")
    direction = direction if gain is None else direction * gain
    effects = (direction.float() @ unembed.float()).detach()
    effects = effects - effects.mean()

    def named(best: torch.return_types.topk, sign: int) -> list[tuple[str, float]]:
        return [(vocabulary[int(i)], sign * float(v)) for v, i in zip(best.values, best.indices, strict=True)]

    return named(effects.topk(k), 1), named((-effects).topk(k), -1)
