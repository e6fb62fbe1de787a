"""The ten latents of exercise 5.14: their pages, from one part of the text, and scores, from the other.

They are latents of the embedded model's SAE whatever the lab's target is, because the truth has to be known.
Nothing is stored: the texts are read when the gallery is first asked for (a few seconds), and then kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from solutions.analysis import Predicate, labelled_texts, latent_activations, token_lookup
from solutions.analysis.hypotheses.reading import Reading
from solutions.data import str_tokens
from solutions.errors import InputError
from solutions.models import extract, load_model
from solutions.sae import load_sae
from solutions.targets import get_target

#: Easy ones first. Numbers of latents say nothing about them, so the lab calls them features 0 to 9.
LATENTS = (988, 455, 165, 648, 768, 614, 416, 998, 580, 1014)
TEXTS = 600
QUARTERS = ("strongest quarter", "second quarter", "third quarter", "weakest quarter")


@dataclass(frozen=True)
class Gallery:
    """Where the ten are active, on tokens without padding; BOS has a place, as in a feature index."""

    reading: Reading
    strengths: Tensor  # [tokens, 10]
    test: np.ndarray  # [tokens] bool: every third text, BOS left out
    train: np.ndarray  # [tokens] bool: the other texts; the pages are made from these
    lookup_f1: np.ndarray  # [10]: the best set of words, chosen on train
    truth: tuple[str, ...]  # the concept that suits best, chosen on train
    truth_f1: np.ndarray  # [10]
    baseline_size: np.ndarray  # [10]: words in the best set


@dataclass(frozen=True)
class Scored:
    """A hypothesis on the texts that made no page."""

    number: int
    hypothesis: str
    precision: float
    recall: float
    f1: float
    n_true: int
    n_tokens: int
    lookup_f1: float
    against: str = ""  # what speaks against it, in a sentence
    needs_labels: bool = False
    problem: str = ""  # why it could not be scored

    described = "a predicate, such as `token('Paris')`"

    @property
    def bar(self) -> float:
        """The F1 that is asked for."""
        return 0.7 * self.lookup_f1


@cache
@torch.no_grad()
def gallery() -> Gallery:
    """Read the texts and find the ten latents on them; done once."""
    target = get_target("smallworld")
    model, sae = load_model(target, device="cpu"), load_sae(target, device="cpu")
    world = labelled_texts(model, TEXTS)
    mask = world.tokens.mask
    acts = extract(model, world.tokens, target.hook)[target.hook]
    strengths = latent_activations(sae, acts, LATENTS)[mask]
    document = torch.arange(len(mask))[:, None].expand_as(mask)[mask].numpy()
    is_bos = (~world.tokens.content[mask]).numpy()
    strengths[torch.from_numpy(is_bos)] = 0
    vocabulary = str_tokens(model, torch.arange(model.cfg.d_vocab))
    reading = Reading(world.tokens.ids[mask].numpy(), document, is_bos, vocabulary)
    test, train = (document % 3 == 0) & ~is_bos, (document % 3 != 0) & ~is_bos
    active, labels = (strengths > 0).numpy(), world.labels[mask].numpy()
    lookup, size = token_lookup(reading.ids, active, train, test)
    best = [int(np.argmax(_f1(labels[train], active[train, j, None]))) for j in range(len(LATENTS))]
    truth_f1 = [_f1(labels[test][:, [c]], active[test, j, None])[0] for j, c in enumerate(best)]
    names = tuple(world.concepts[c] for c in best)
    return Gallery(reading, strengths, test, train, lookup.f1, names, np.array(truth_f1), size)


def _f1(said: np.ndarray, active: np.ndarray) -> np.ndarray:
    return 2 * (said & active).sum(0) / np.maximum(said.sum(0) + active.sum(0), 1)


@cache
def score(number: int, predicate: Predicate) -> Scored:
    """How well a predicate says where feature `number` is active, on texts that made no page.

    One that cannot be scored (a word that is no token, a pattern that takes too long) comes back with its problem.
    """
    found = gallery()
    active, values = (found.strengths[:, number] > 0).numpy(), found.strengths[:, number].numpy()
    try:
        true = predicate.on(found.reading).numpy()
    except InputError as error:
        asks = "needs labels" in str(error)
        return Scored(number, str(predicate), 0.0, 0.0, 0.0, 1, 2, 1.0, needs_labels=asks, problem=str(error))
    here, on = true[found.test], active[found.test]
    hits = int((here & on).sum())
    return Scored(
        number,
        str(predicate),
        hits / max(int(on.sum()), 1),
        hits / max(int(here.sum()), 1),
        float(_f1(here[:, None], on[:, None])[0]),
        int(here.sum()),
        len(here),
        float(found.lookup_f1[number]),
        _against(found, true, active, values),
    )


def _against(found: Gallery, true: np.ndarray, active: np.ndarray, values: np.ndarray) -> str:
    """The strongest counter-example of each kind, from the texts that the pages are made from."""
    fires = np.flatnonzero(found.train & active & ~true)
    silent = np.flatnonzero(found.train & ~active & true)
    ids = found.reading.ids
    rate = np.bincount(ids, active) / np.maximum(np.bincount(ids), 1)
    parts = []
    if len(fires):
        parts.append(f"it fires where yours is not true, as in {window(fires[values[fires].argmax()])!r}")
    if len(silent):
        parts.append(
            f"it is silent where yours is true, as in {window(silent[rate[ids[silent]].argmax()])!r}"
        )
    return "; ".join(parts)


def window(place: int, before: int = 9, after: int = 2) -> str:
    """The text around a place, the token itself in brackets; no other document is shown."""
    reading = gallery().reading
    same = np.flatnonzero(
        reading.document[max(0, place - before) : place + after + 1] == reading.document[place]
    )
    places = max(0, place - before) + same
    words = ["" if reading.is_bos[i] else reading.vocabulary[reading.ids[i]] for i in places]
    words = [f"[{word}]" if i == place else word for i, word in zip(places.tolist(), words, strict=True)]
    return "".join(words).replace("\n", "⏎")


def page(number: int, strongest: int = 8, per_quarter: int = 4) -> None:
    """Print the page of a feature: its strongest examples, and random ones from each quarter.

    No two examples of a list are from the same text.
    """
    found = gallery()
    values = found.strengths[:, number].numpy()
    on = np.flatnonzero((values > 0) & found.train)
    on = on[np.argsort(-values[on], kind="stable")]
    density = len(on) / found.train.sum()
    print(f"feature {number}: active on {len(on):,} of {found.train.sum():,} tokens ({density:.2%})")
    dice = np.random.default_rng(number)
    parts = [("strongest", on, strongest)]
    for i, quarter in enumerate(np.array_split(on, 4)):
        parts.append((QUARTERS[i], dice.permutation(quarter), per_quarter))
    for name, places, k in parts:
        print(f"  {name}")
        for place in _different_texts(places, found.reading.document, k):
            print(f"    {values[place]:5.1f}  {window(int(place))}")


def _different_texts(places: np.ndarray, document: np.ndarray, k: int) -> list[int]:
    first: dict[int, int] = {}
    for place in places.tolist():
        first.setdefault(int(document[place]), place)
        if len(first) == k:
            break
    return list(first.values())


def scoreboard(answer: Callable[[int], Predicate]) -> pd.DataFrame:
    """All ten: your F1 beside the best set of words and the best labelled concept, and whether the bar is passed."""
    found, rows = gallery(), []
    for number in range(len(LATENTS)):
        mine = score(number, answer(number))
        rows.append(
            {
                "hypothesis": mine.hypothesis if len(mine.hypothesis) < 60 else mine.hypothesis[:57] + "...",
                "your F1": mine.f1,
                "precision": mine.precision,
                "recall": mine.recall,
                "best words": mine.lookup_f1,
                "how many": int(found.baseline_size[number]),
                "best label": found.truth_f1[number],
                "label": found.truth[number],
                "passed": mine.f1 >= mine.bar,
            }
        )
    return pd.DataFrame(rows).round(2)
