"""How good a hypothesis about a latent is, and where it is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from solutions.analysis.hypotheses.predicates import Predicate, _checked
from solutions.analysis.index.concepts import Scores, token_lookup
from solutions.analysis.latents.blocks import tokens_of_split
from solutions.analysis.pages import Example, different_examples, in_interval, interval_bounds
from solutions.errors import check_count

if TYPE_CHECKING:
    from solutions.analysis.index.read import FeatureIndex
    from solutions.analysis.texts import LabelledTexts


class HypothesisScore(NamedTuple):
    """How well "the hypothesis is true here" and "the latent is active here" agree, on the tokens of one split.

    As everywhere in this course the latent is taken for a detector of the hypothesis. A hypothesis that is too narrow
    has a low precision: the latent is active on other tokens too. One that is too broad has a low recall.
    """

    precision: float           #: of the tokens on which the latent is active, the share on which the hypothesis is true
    recall: float              #: of the tokens on which the hypothesis is true, the share on which it is active
    f1: float                  #: harmonic mean of the two
    n_active: int              #: tokens on which the latent is active
    n_true: int                #: tokens on which the hypothesis is true
    n_tokens: int              #: tokens looked at
    lookup_f1: float           #: a set of tokens instead of the latent; how well it tells where the hypothesis is true
    rival_f1: float            #: a set of tokens instead of the hypothesis; how well it tells where the latent fires
    shuffled_f1: float         #: the same hypothesis, moved to other places; what luck gives
    by_interval: pd.DataFrame  #: low, high, n, precision, recall; the latent's activation by quantiles, strongest first

    def table(self) -> pd.DataFrame:
        """The numbers in one row."""
        return pd.DataFrame([self._asdict()]).drop(columns="by_interval")


def score_hypothesis(
    index: FeatureIndex,
    latent: int,
    predicate: Predicate,
    *,
    labels: LabelledTexts | Mapping[str, Tensor] | None = None,
    split: str = "test",
    n_intervals: int = 4,
    n_shuffles: int = 20,
    seed: int = 0,
) -> HypothesisScore:
    """Score a hypothesis about a latent on text that did not suggest it.

    Args:
        index: a feature index whose store has a test split.
        latent: its number.
        predicate: the hypothesis: on which tokens is the latent active?
        labels: what `concept` and `kind` need, see `Predicate.on`.
        split: the tokens to score on: "test", "train" (where one may look for hypotheses) or "all".
        n_intervals: into how many intervals, with equally many active tokens each, the activations are cut. The recall
            of an interval is the share of the hypothesis's tokens that lie in it: recalls add up to the whole.
        n_shuffles, seed: how often, for `shuffled_f1`, the hypothesis's truth is moved along the text by a random
            number of tokens. Runs of tokens stay runs.

    Returns:
        The scores and, as baselines, two sets of tokens (`token_lookup`), each chosen on the train split.

    Raises:
        InputError: there is no such latent or split, or labels are missing.

    Example:
        >>> score = score_hypothesis(index, latent, concept("weekday"), labels=world)
        >>> round(score.precision, 1), round(score.recall, 1)
        (0.5, 0.8)
    """
    places = _places(index, split)
    active, values = _activity(index, latent)
    true = predicate_on(index, predicate, labels)
    here, hits = true[places], (true & active)[places]
    scores = Scores(hits.sum(), active[places].sum(), here.sum())
    rows = []
    strengths = values[places][active[places]]
    for low, high in interval_bounds(torch.from_numpy(strengths), n_intervals) if len(strengths) else []:
        inside = in_interval(torch.from_numpy(strengths), low, high)
        part = Scores(hits[active[places]][inside].sum(), np.array(len(inside)), here.sum())
        rows.append((low, high, len(inside), float(part.precision), float(part.recall)))
    lookup = _lookup_f1(index, np.stack([true, active], axis=1), places)
    return HypothesisScore(
        float(scores.precision), float(scores.recall), float(scores.f1), int(scores.fired), int(scores.wanted),
        len(places), float(lookup[0]), float(lookup[1]),
        _shuffled_f1(here, active[places], check_count(n_shuffles, "n_shuffles"), seed),
        pd.DataFrame(rows, columns=["low", "high", "n", "precision", "recall"]),
    )


def predicate_on(
    index: FeatureIndex, predicate: Predicate, labels: LabelledTexts | Mapping[str, Tensor] | None
) -> np.ndarray:
    """Where a predicate is true, [n_tokens] bool; anything else is refused."""
    return _checked(predicate).on(index, labels).numpy()


def _places(index: FeatureIndex, split: str) -> np.ndarray:
    """The places of a split, BOS left out."""
    less = 'or score with split="all", which says less: a hypothesis fits the text it was made from.'
    return np.flatnonzero(tokens_of_split(index, split, less))


def _activity(index: FeatureIndex, latent: int) -> tuple[np.ndarray, np.ndarray]:
    """For every place whether the latent is active, and how strongly."""
    where, found = index.latent(latent)
    values = np.zeros(index.n_tokens, np.float32)
    values[where.numpy()] = found.numpy()
    return values > 0, values


def _lookup_f1(index: FeatureIndex, holds: np.ndarray, places: np.ndarray) -> np.ndarray:
    """F1 on `places` of the best set of tokens for each column of `holds`, chosen on the train split."""
    chosen_on, measured_on = ~index.is_bos.numpy() & ~index.test.numpy(), np.zeros(index.n_tokens, bool)
    measured_on[places] = True
    if not chosen_on.any():
        chosen_on = measured_on
    return token_lookup(index.ids.numpy(), holds, chosen_on, measured_on)[0].f1


def _shuffled_f1(here: np.ndarray, active: np.ndarray, n: int, seed: int) -> float:
    """The mean F1 of the hypothesis moved along the text by n random distances."""
    if len(here) < 2:
        return 0.0
    moves = np.random.default_rng(seed).integers(1, len(here), n)
    hits = np.array([(np.roll(here, move) & active).sum() for move in moves])
    return float(Scores(hits, active.sum(), here.sum()).f1.mean())


class CounterExamples(NamedTuple):
    """Where a hypothesis is wrong."""

    fires_without: list[Example]  #: the latent is active, the hypothesis is not true; strongest first
    silent_with: list[Example]    #: the hypothesis is true, the latent is not active; the most surprising first


def counter_examples(
    index: FeatureIndex,
    latent: int,
    predicate: Predicate,
    k: int = 5,
    *,
    labels: LabelledTexts | Mapping[str, Tensor] | None = None,
    split: str = "train",
    before: int = 7,
    after: int = 3,
) -> CounterExamples:
    """The examples that speak against a hypothesis, of both kinds.

    Silence is most surprising on a token on which the latent is nearly always active elsewhere. Look at
    counter-examples on the train split and mend the hypothesis with them; then score it on the test split.

    Args:
        index, latent, predicate, labels: as for `score_hypothesis`.
        k: how many of each kind, at most. They overlap as little as those of `FeatureIndex.examples`.
        split: where to look.
        before, after: tokens shown around the one in question.

    Returns:
        Both kinds, the most surprising first.

    Raises:
        InputError: there is no such latent or split, or labels are missing.

    Example:
        >>> found = counter_examples(index, latent, concept("weekday"), labels=world)
        >>> [example.tokens[example.peak] for example in found.fires_without]
        [' June', ' May', ' Europe', ' October', ' Asia']
    """
    places, k = _places(index, split), check_count(k, "k")
    active, values = _activity(index, latent)
    true = predicate_on(index, predicate, labels)
    without = places[active[places] & ~true[places]]
    silent = places[true[places] & ~active[places]]
    without = without[np.argsort(-values[without], kind="stable")]
    ids = index.ids.numpy()
    rate = (np.bincount(ids, active) / np.maximum(np.bincount(ids), 1))[ids[silent]]
    silent = silent[np.argsort(-rate, kind="stable")]

    shown = np.union1d(np.flatnonzero(active), silent)  # the window shows the latent's other activations too
    cut = index._cutter(shown, values[shown], before, after)

    def examples(chosen: np.ndarray) -> list[Example]:
        order = shown.searchsorted(chosen).tolist()
        return different_examples(order, lambda i: index.place(int(shown[i])), cut, k, apart=before + after)

    return CounterExamples(examples(without), examples(silent))
