"""Passages of text: those that an explainer is shown, and those on which its explanation is tested.

An explanation is made from the train split and tested on the test split. In both, a latent's active tokens come from
all intervals of its activation: the strongest examples alone make almost anything look clean (Bolukbasi et al. 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from solutions.analysis.latents.blocks import tokens_of_split
from solutions.analysis.pages import Example, different_examples, in_interval, interval_bounds
from solutions.errors import check_count, unknown_name

if TYPE_CHECKING:
    from solutions.analysis.index import FeatureIndex

#: What a judge can be asked: is the latent active anywhere in this passage? on this token of it?
TASKS = ("detection", "fuzzing")
#: Where the passages come from on which the right answer is no.
NEGATIVES = ("random", "same token")
#: So many places are tried for one that is wanted: the embedded text repeats itself.
TRIES = 20


class Evidence(NamedTuple):
    """What an explainer is shown of a latent."""

    latent: int                             #: its number
    intervals: list[list[Example]]          #: examples from each interval of activation, strongest first
    silent: list[Example]                   #: passages on which it is nowhere active
    maximum: float                          #: its strongest activation among the examples
    promoted: list[tuple[str, float]] = []  #: tokens whose logit its decoder direction raises most


class Item(NamedTuple):
    """A passage with a question about a latent, and the right answer."""

    tokens: list[str]      #: the passage
    start: int             #: the place in the index where it begins
    marked: int | None     #: which of its tokens is asked about in fuzzing; None in detection, where all are
    active: bool           #: the right answer
    interval: int | None   #: for a yes, the interval of activation, 0 being the strongest


def evidence(
    index: FeatureIndex,
    latent: int,
    *,
    per_interval: int = 3,
    n_intervals: int = 4,
    n_silent: int = 4,
    before: int = 10,
    after: int = 3,
    seed: int = 0,
) -> Evidence:
    """Choose the passages that an explainer is shown, from the train split.

    Args:
        index: a feature index with a vocabulary.
        latent: its number.
        per_interval: examples from each interval; those of the strongest are the strongest ones, the others are drawn.
        n_intervals: intervals of activation, with equally many active tokens each.
        n_silent: passages on which the latent is nowhere active.
        before: tokens shown before the one in question.
        after: tokens shown after it.
        seed: of the draw.

    Returns:
        The passages. A latent that is never active on the train split has no intervals.

    Raises:
        InputError: there is no such latent, or a number is too small.

    Example:
        >>> shown = evidence(index, latent)
        >>> len(shown.intervals), len(shown.silent)
        (4, 4)
    """
    where, values = _active(index, latent, "train")
    cut = index._cutter(where, values, check_count(before, "before", 0), check_count(after, "after", 0))
    dice = np.random.default_rng(seed)

    def examples(order: Iterable[int]) -> list[Example]:
        return different_examples(order, lambda i: index.place(int(where[i])), cut, per_interval, apart=before + after)

    intervals = []
    for number, inside in enumerate(_by_interval(values, check_count(n_intervals, "n_intervals"))):
        order = dice.permutation(inside) if number else inside[np.argsort(-values[inside], kind="stable")]
        intervals.append(examples(order.tolist()))
    quiet = _silent_places(index, latent, "train", before, after)
    silent = _drawn(dice.permutation(quiet), check_count(n_silent, "n_silent", 0),
                    lambda place: _silent_example(index, int(place), before, after))
    positive = index.logits(latent, 5)[0]
    return Evidence(int(latent), intervals, silent, float(values.max()) if len(values) else 0.0, positive)


def scoring_items(
    index: FeatureIndex,
    latent: int,
    task: str = "fuzzing",
    *,
    n: int = 40,
    negatives: str = "random",
    n_intervals: int = 4,
    before: int = 10,
    after: int = 4,
    split: str = "test",
    seed: int = 0,
) -> list[Item]:
    """Draw the questions that an explanation is tested with: half of them with the answer yes, half with no.

    Both tasks are those of Paulo et al. 2024. In *detection* the question is whether the latent is active anywhere in
    the passage. In *fuzzing* one token is marked, and the question is whether the latent is active on it. The yeses
    come from all intervals of activation alike.

    Args:
        index: a feature index with a vocabulary.
        latent: its number.
        task: "detection" or "fuzzing".
        n: how many questions; fewer, and still half of each, when the text does not have so many different passages.
        negatives: "random": in detection any passage on which the latent is silent, in fuzzing a silent token of a
            passage on which it is active. "same token": for every yes a no on the very same token elsewhere, where
            the latent is silent. Who knows the token alone is right half of the time.
        n_intervals: intervals of activation.
        before: tokens shown before the one in question.
        after: tokens shown after it.
        split: which tokens to draw from, "test", "train" or "all".
        seed: of the draw.

    Returns:
        The questions in random order; none for a latent that is not active on the split.

    Raises:
        InputError: an unknown latent, task, split or kind of negatives, or a number is too small.

    Example:
        >>> items = scoring_items(index, latent, "fuzzing", n=20)
        >>> len(items), sum(item.active for item in items)
        (20, 10)
    """
    for kind, given, known in (("task", task, TASKS), ("kind of negatives", negatives, NEGATIVES)):
        if given not in known:
            raise unknown_name(kind, given, known)
    half = check_count(n, "n", 2) // 2
    where, values = _active(index, latent, split)
    dice = np.random.default_rng([seed, int(latent)])
    if not len(where):
        return []

    def item(place: int, active: bool, interval: int | None = None, at: int | None = None) -> Item:
        start, stop = window(index, place, before, after)
        marked = (place if at is None else at) - start if task == "fuzzing" else None
        return Item(index.text(start, stop), start, marked, active, interval)

    yes, centres = [], []
    groups = _by_interval(values, n_intervals)
    for number, inside in enumerate(groups):
        wanted = half * (number + 1) // len(groups) - half * number // len(groups)
        chosen = _different(dice.permutation(where[inside])[:TRIES * wanted], wanted,
                            lambda place, number=number: item(int(place), True, number))
        yes += [found for _, found in chosen]
        centres += [place for place, _ in chosen]
    if negatives == "same token":
        yes, no = _paired(index, latent, split, yes, centres, item, task, before, after, dice)
    elif task == "detection":
        quiet = dice.permutation(_silent_places(index, latent, split, before, after))[:TRIES * half]
        no = [found for _, found in _different(quiet, len(yes), lambda place: item(int(place), False))]
    else:
        no = _beside(index, latent, where, len(yes), item, before, after, dice)
    even = min(len(yes), len(no))
    items = [yes[i] for i in sorted(dice.permutation(len(yes))[:even])] + no[:even]
    return [items[i] for i in dice.permutation(len(items))]


def window(index: FeatureIndex, place: int, before: int, after: int) -> tuple[int, int]:
    """From which place up to which the passage around a token reaches, within its document and without its BOS.

    Args:
        index: a feature index.
        place: the token's.
        before: tokens before it at most.
        after: tokens after it at most.

    Returns:
        The first place, and the one after the last.
    """
    k = int(np.searchsorted(index._bounds, place, side="right")) - 1
    first, end = int(index._bounds[k]), int(index._bounds[k + 1])
    first += int(index._places["is_bos"][first])
    return max(first, place - before), min(end, place + after + 1)


# ------------------------------------------------------------------------------------------------ places

def _active(index: FeatureIndex, latent: int, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Where a latent is active in a split, ascending, and how strongly. Without a test split all text is train."""
    where, values = (x.numpy() for x in index.latent(latent))
    here = _tokens(index, split)[where]
    return where[here], values[here]


def _tokens(index: FeatureIndex, split: str) -> np.ndarray:
    """[n_tokens] bool: the tokens of a split. An empty test split is refused: the text it stands for was looked at."""
    return tokens_of_split(index, split, "to explain on one split and test on the other.")


def _by_interval(values: np.ndarray, n: int) -> list[np.ndarray]:
    """Which of the values lie in each interval of activation, strongest first."""
    strengths = torch.from_numpy(values)
    return [in_interval(strengths, low, high) for low, high in interval_bounds(strengths, n)] if len(values) else []


def _silent_places(index: FeatureIndex, latent: int, split: str, before: int, after: int) -> np.ndarray:
    """The tokens of a split around which the latent is nowhere active, as far as a passage reaches."""
    where = index.latent(latent)[0].numpy()
    first, last = np.maximum(where - after, 0), np.minimum(where + before + 1, index.n_tokens)
    near = np.cumsum(np.bincount(first, minlength=index.n_tokens + 1) - np.bincount(last, minlength=index.n_tokens + 1))
    return np.flatnonzero(_tokens(index, split) & (near[:-1] == 0))


def _silent_example(index: FeatureIndex, place: int, before: int, after: int) -> Example:
    start, stop = window(index, place, before, after)
    return Example(index.text(start, stop), [0.0] * (stop - start), place - start, *index.place(place))


def _drawn(order: np.ndarray, n: int, cut: Callable[[int], Example]) -> list[Example]:
    """The first n passages with different words."""
    return [found for _, found in _different(order[:TRIES * n], n, cut)]


def _different(order: Sequence[int], n: int, cut: Callable[[int], Item | Example]) -> list[tuple[int, Item | Example]]:
    """The first n places whose passages have different words, each with its passage."""
    found: dict[tuple, tuple[int, Item | Example]] = {}
    for place in order:
        if len(found) == n:
            break
        passage = cut(int(place))
        found.setdefault(tuple(passage.tokens), (int(place), passage))
    return list(found.values())


# ------------------------------------------------------------------------------------- where the answer is no

def _paired(
    index: FeatureIndex, latent: int, split: str, yes: list[Item], centres: list[int], item: Callable[..., Item],
    task: str, before: int, after: int, dice: np.random.Generator,
) -> tuple[list[Item], list[Item]]:
    """For each yes a no on the same token elsewhere; a yes whose token is never without the latent is left out."""
    quiet = np.zeros(index.n_tokens, bool)
    if task == "detection":
        quiet[_silent_places(index, latent, split, before, after)] = True
    else:
        quiet[_tokens(index, split)] = True
        quiet[index.latent(latent)[0].numpy()] = False
    ids = index._places["ids"]
    places = np.flatnonzero(quiet)
    by_token = {i: dice.permutation(places[ids[places] == i]).tolist() for i in {int(ids[c]) for c in centres}}
    pairs, seen = [], set()
    for passage, centre in zip(yes, centres, strict=True):
        left = by_token[int(ids[centre])]
        while left:
            other = item(left.pop(), False)
            if tuple(other.tokens) not in seen:
                seen.add(tuple(other.tokens))
                pairs.append((passage, other))
                break
    return [a for a, _ in pairs], [b for _, b in pairs]


def _beside(
    index: FeatureIndex, latent: int, where: np.ndarray, n: int, item: Callable[..., Item], before: int, after: int,
    dice: np.random.Generator,
) -> list[Item]:
    """Passages on which the latent is active, with a mark on a token on which it is not."""
    is_active = np.zeros(index.n_tokens, bool)
    is_active[index.latent(latent)[0].numpy()] = True

    def marked_wrongly(place: int) -> Item:
        start, stop = window(index, place, before, after)
        silent = start + np.flatnonzero(~is_active[start:stop])
        return item(place, False, at=int(dice.choice(silent)))

    def has_silence(place: int) -> bool:
        return not is_active[slice(*window(index, place, before, after))].all()

    order = [int(place) for place in dice.permutation(where)[:TRIES * n] if has_silence(int(place))]
    return [found for _, found in _different(order, n, marked_wrongly)]
