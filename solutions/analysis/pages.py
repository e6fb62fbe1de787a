"""All that a dashboard shows about one latent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from solutions.analysis.shapes import check_axes, same_length
from solutions.errors import InputError


class Example(NamedTuple):
    """A stretch of text around one token on which a latent fires."""
    tokens: list[str]          #: the token in the middle and its neighbours
    activations: list[float]   #: one per token
    peak: int                  #: where in `tokens` the chosen token stands
    text: int                  #: which text it comes from
    position: int              #: where in that text


class Interval(NamedTuple):
    """The active tokens whose activation lies in (low, high]; the lowest interval includes its lower end."""
    low: float               #: in units of the activations
    high: float              #: in units of the activations
    n_tokens: int            #: active tokens in it
    examples: list[Example]  #: some of them


class FeaturePage(NamedTuple):
    """All that a dashboard shows about one latent."""
    latent: int                        #: its number
    n_tokens: int                      #: tokens looked at, BOS and padding not among them
    n_active: int                      #: tokens on which it is active
    density: float                     #: n_active / n_tokens
    maximum: float                     #: strongest activation seen
    counts: list[int]                  #: histogram of the active tokens
    edges: list[float]                 #: one more than counts
    intervals: list[Interval]          #: strongest first
    positive: list[tuple[str, float]]  #: tokens whose logit the decoder direction raises most
    negative: list[tuple[str, float]]  #: and lowers most
    # What takes all latents at once to know; a `FeatureIndex` fills it in.
    neighbours: Sequence[tuple[int, float]] = ()  #: latents with similar decoder directions, and the cosine
    companions: Sequence[tuple[int, float]] = ()  #: latents active on the same tokens, and the Jaccard index
    concept: dict[str, Any] | None = None  #: best concept, with name, precision, recall, f1, lookup_f1


def interval_edges(active: Tensor, n_intervals: int) -> list[float]:
    """Ends of intervals with equally many of the active values each.

    Args:
        active: [active tokens] activations above zero.
        n_intervals: how many.

    Returns:
        n + 1 numbers, lowest first; equal ends merge, so there may be fewer.

    Raises:
        InputError: no values, or no interval.

    Example:
        >>> interval_edges(torch.tensor([1.0, 2.0, 3.0, 4.0]), 2)
        [1.0, 2.5, 4.0]
    """
    check_axes("active", active, "active tokens")
    if n_intervals < 1:
        raise InputError(f"n_intervals: expected 1 or more, got {n_intervals}.")
    rank = np.arange(n_intervals + 1) / n_intervals * (len(active) - 1)
    below = rank.astype(np.int64)
    above = np.minimum(below + 1, len(active) - 1)
    # As torch.quantile, which sorts everything and refuses more than 16 million values.
    places = sorted({*below.tolist(), *above.tolist()})
    ordered = np.partition(active.detach().cpu().numpy(), places).astype(float)
    cuts = (ordered[below] + (rank - below) * (ordered[above] - ordered[below])).tolist()
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

    Examples of the strongest interval are the top ones; those of the others are drawn at random from their
    interval: the top alone makes almost anything look clean (Bolukbasi et al. 2021). Bricken et al. 2023 show
    examples by interval for the same reason. At most one example a text, and no words twice in an interval.

    Args:
        activations: [texts, positions] of the latent.
        mask: [texts, positions] bool, True on the tokens that count (no BOS, no padding).
        str_tokens: for each text its tokens as strings, as far as the mask reaches.
        latent: its number.
        logits: from `logit_effects`.
        n_intervals: intervals of activation, with equally many active tokens each.
        per_interval: examples of each.
        n_bins: of the histogram.
        before: tokens shown before the one in question.
        after: tokens shown after the one in question.
        seed: of the draw.

    Returns:
        The page, to be shown by `solutions.visualization.show_page` or `dashboard`.

    Raises:
        InputError: a mask of another shape, or one that leaves nothing.
    """
    check_axes("activations", activations, "texts", "positions")
    if mask.shape != activations.shape or mask.dtype != torch.bool:
        wanted = f"torch.bool of shape {list(activations.shape)}"
        raise InputError(f"mask: expected {wanted}, got {mask.dtype} of shape {list(mask.shape)}.")
    same_length(activations=activations, str_tokens=str_tokens)
    kept = torch.where(mask, activations.float(), 0.0).cpu()
    n_tokens = int(mask.sum())
    if n_tokens == 0:
        raise InputError("mask: expected at least one token that counts, got none.")
    where = (kept > 0).nonzero()

    def place(i: int) -> tuple[int, int]:
        return int(where[i, 0]), int(where[i, 1])

    def cut(i: int) -> Example:
        text, position = place(i)
        return _example(kept[text], mask[text], str_tokens[text], text, position, before, after)

    active = kept[where[:, 0], where[:, 1]]
    return page_of(latent, active, n_tokens, place, cut, logits, n_intervals, per_interval, n_bins, seed)


def page_of(
    latent: int,
    active: Tensor,
    n_tokens: int,
    where: Callable[[int], tuple[int, int]],
    cut: Callable[[int], Example],
    logits: tuple[Sequence[tuple[str, float]], Sequence[tuple[str, float]]],
    n_intervals: int,
    per_interval: int,
    n_bins: int,
    seed: int,
) -> FeaturePage:
    """The page of a latent from the tokens it is active on, whether they come from a tensor or from an index.

    active: [active tokens], their activations in the order of the text; n_tokens: all tokens looked at; where:
    text and position of the i-th active token; cut: the example around it.
    """
    positive, negative = list(logits[0]), list(logits[1])
    if len(active) == 0:  # a dead latent has a page too: it says that nothing was found
        return FeaturePage(latent, n_tokens, 0, 0.0, 0.0, [], [0.0], [], positive, negative)
    maximum = float(active.max())
    counts, edges = torch.histogram(active, n_bins, range=(0.0, maximum))
    generator = torch.Generator().manual_seed(seed)
    intervals = []
    for number, (low, high) in enumerate(interval_bounds(active, n_intervals)):
        inside = in_interval(active, low, high)
        strongest = (int(inside[i]) for i in strongest_first(active[inside]))
        order = in_random_order(inside, generator) if number else strongest
        intervals.append(Interval(low, high, len(inside), different_examples(order, where, cut, per_interval)))
    return FeaturePage(latent, n_tokens, len(active), len(active) / n_tokens, maximum,
                       counts.int().tolist(), edges.tolist(), intervals, positive, negative)


def interval_bounds(active: Tensor, n_intervals: int) -> list[tuple[float, float]]:
    """(low, high) of intervals with equally many active values each, strongest first."""
    ends = interval_edges(active, n_intervals)
    return list(zip(ends[:-1], ends[1:], strict=True))[::-1] or [(ends[0], ends[0])]


def in_interval(active: Tensor, low: float, high: float) -> np.ndarray:
    """Indices of the active values in (low, high]; the interval that starts at their minimum includes it."""
    values = active.numpy().astype(float)  # the ends are double: a float32 would round them
    above = values >= low if low <= values.min() else values > low
    return np.flatnonzero(above & (values <= high))


def strongest_first(active: Tensor, at_once: int = 256) -> Iterator[int]:
    """Indices of the active values, strongest first, of equal ones the first; sorted only as far as they are read."""
    values = active.detach().cpu().numpy()
    bar = np.partition(values, -at_once)[-at_once] if len(values) > at_once else -np.inf
    for chosen in (np.greater_equal, np.less):
        part = np.flatnonzero(chosen(values, bar))
        yield from part[np.argsort(-values[part], kind="stable")].tolist()


def in_random_order(indices: np.ndarray, generator: torch.Generator) -> Iterator[int]:
    """The indices, shuffled."""
    shuffled = indices[torch.randperm(len(indices), generator=generator).numpy()]
    for start in range(0, len(shuffled), 1024):
        yield from shuffled[start : start + 1024].tolist()


#: So many candidates are looked at for a handful of examples. Some latents fire on one phrase thousands of times.
MOST_TRIES = 1000


def different_examples(
    order: Iterable[int],
    where: Callable[[int], tuple[int, int]],
    cut: Callable[[int], Example],
    n: int,
    apart: int | None = None,
) -> list[Example]:
    """The first n examples in the given order, never the same words twice: a phrase that the texts repeat would
    fill the page and say nothing new.

    where: text and position of the i-th active token; apart: two examples of one text must be more than this
    many tokens from each other; without it a text gives one example. At most `MOST_TRIES` are looked at, so a
    latent that fires on one phrase only has fewer than n.
    """
    taken: dict[int, list[int]] = {}
    words: set[tuple[str, ...]] = set()
    examples: list[Example] = []
    tries = 0
    for i in order:
        if len(examples) == n or tries == MOST_TRIES:
            break
        text, position = where(i)
        if text in taken and (apart is None or any(abs(position - other) <= apart for other in taken[text])):
            continue
        tries += 1
        example = cut(i)
        if tuple(example.tokens) not in words:
            examples.append(example)
            taken.setdefault(text, []).append(position)
            words.add(tuple(example.tokens))
    return examples


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

    The mean over the vocabulary is taken off: adding one constant to every logit changes no prediction. This
    is the direct path only ("logit lens", nostalgebraist 2020): what later layers make of the direction does
    not show.

    Args:
        direction: [d_model], for a latent its decoder row.
        unembed: [d_model, vocabulary].
        vocabulary: every token as text.
        k: how many of each.
        gain: [d_model], the weight of the last normalisation when it has not been folded into `unembed`.

    Returns:
        (positive, negative), each k pairs of token and logit, strongest first.

    Raises:
        InputError: tensors that do not fit together.

    Example:
        >>> logit_effects(torch.tensor([2.0]), torch.tensor([[1.0, -1.0, 0.0]]), ["yes", "no", "well"], k=1)
        ([('yes', 2.0)], [('no', -2.0)])
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
