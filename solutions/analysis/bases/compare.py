"""The same questions to every basis: how well does its best unit know a concept, and how pure are its units?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from solutions.analysis.bases.spread import concept_entropy
from solutions.analysis.controls import beyond_chance, mass_share, top_share
from solutions.analysis.index.concepts import token_lookup
from solutions.analysis.kinds import split_documents
from solutions.analysis.latents.truth import lookup_average_precision, ranked_precision
from solutions.analysis.shapes import check_axes, same_length
from solutions.errors import InputError, check_count, unknown_name

if TYPE_CHECKING:
    from solutions.analysis.texts import LabelledTexts

LOOKUP = "token lookup"


class LabelledTokens(NamedTuple):
    """Labelled texts as one long row of tokens, BOS and padding left out."""

    ids: Tensor                #: [tokens] int64
    document: Tensor           #: [tokens] int64
    labels: Tensor             #: [tokens, concepts] bool
    concepts: tuple[str, ...]  #: their names
    test: Tensor               #: [tokens] bool: measured on. What is chosen or trained uses the others


def labelled_tokens(world: LabelledTexts, share: float = 0.5, seed: int = 0) -> LabelledTokens:
    """Texts from `labelled_texts`, token by token, with a share of the documents put aside for testing.

    Args:
        world: from `labelled_texts`.
        share: of the documents put aside for testing.
        seed: draws which.

    Returns:
        One long row of tokens.

    Raises:
        InputError: fewer than two texts, or a share that is not between 0 and 1.
    """
    kept = world.tokens.content.cpu()
    document = torch.arange(len(kept))[:, None].expand_as(kept)[kept]
    return LabelledTokens(world.tokens.ids.cpu()[kept], document, world.labels[kept], world.concepts,
                          split_documents(document, share, seed))


class BasisComparison(NamedTuple):
    """What `compare_bases` finds."""

    table: pd.DataFrame     #: a row for each basis
    concepts: pd.DataFrame  #: a row for each basis and concept

    def by_group(self) -> pd.DataFrame:
        """basis, group, f1, average_precision (means over the group's concepts) and n (how many concepts).

        Raises:
            InputError: the concepts have no groups.
        """
        if "group" not in self.concepts:
            raise InputError("the concepts have no groups: give compare_bases groups=concept_groups().")
        grouped = self.concepts.groupby(["basis", "group"], sort=False)
        means = grouped[["f1", "average_precision"]].mean()
        return means.assign(n=grouped.size()).reset_index()


def compare_bases(
    bases: Mapping[str, Tensor | Callable[[], Tensor]],
    text: LabelledTokens,
    *,
    groups: Mapping[str, str] | None = None,
    shuffle: str | None = None,
    least: int = 30,
    k: int = 50,
    min_active: int = 20,
    progress: bool = False,
) -> BasisComparison:
    """Ask several bases the same questions on the same tokens.

    For each concept a basis answers with one unit and one threshold: "the concept holds where this unit is above that".
    Both are chosen by F1 on the train tokens and measured on the test tokens. A threshold of its own is only fair: a
    principal component is above zero on half of all tokens, a latent on few.

    Args:
        bases: name → features [tokens, units], none negative, or a function that makes them (called when it is their
            turn, so that not all are in memory at once).
        text: from `labelled_tokens`.
        groups: concept → group, for `by_group`.
        shuffle: the name of a basis that is also asked about labels that mean nothing: each token gets those of a token
            far away. What it scores then is the luck of choosing the best of many units.
        least: concepts with fewer tokens on either side are left out.
        k, min_active: see `top_k_purity`.
        progress: whether to show a bar.

    Returns:
        Two tables.

        - table: basis; f1 and average_precision (means over the concepts); f1_active (the same F1 with zero for every
          threshold: "the unit is active", as in `score_concepts`); purity_top and purity_mass (means over the units
          that are active on `min_active` tokens of either side; the concept chosen on train, its share measured on
          test); entropy (bits, mean over those units; see `concept_entropy`); active (mean share of tokens on which a
          unit is active); n (those units) and n_units. A row for token lookup, which has no units, comes last.
        - concepts: basis, concept, group, unit, f1, precision, recall, average_precision, lookup_f1, n (test tokens).

    Raises:
        InputError: no basis, an unknown one to shuffle, features that do not fit the text, or too little
            text.
    """
    if not bases:
        raise InputError("bases: expected at least one, such as {'SAE': features}.")
    if shuffle is not None and shuffle not in bases:
        raise unknown_name("basis", shuffle, bases)
    wanted = _wanted(text, check_count(least, "least"))
    rows, details = [], []
    for name, given in tqdm(bases.items(), disable=not progress):
        features = _checked(name, given() if callable(given) else given, text)
        asked = {name: text}
        if name == shuffle:
            asked[f"{name}, labels shuffled"] = _shuffled(text)
        for called, about in asked.items():
            found, unit_f1 = _concept_rows(features, about, wanted)
            row = {"basis": called, "f1": found["f1"].mean(), "average_precision": found["average_precision"].mean(),
                   "f1_active": unit_f1, **_purities(features, about, k, min_active)}
            rows.append(row)
            details.append(found.assign(basis=called))
    lookup = _lookup_rows(text, wanted)
    rows.append({"basis": LOOKUP, "f1": lookup["f1"].mean(), "average_precision": lookup["average_precision"].mean()})
    concepts = pd.concat([*details, lookup.assign(basis=LOOKUP)], ignore_index=True)
    concepts["lookup_f1"] = concepts["concept"].map(dict(zip(lookup["concept"], lookup["f1"], strict=True)))
    if groups is not None:
        concepts["group"] = concepts["concept"].map(lambda c: groups.get(c, "other"))
    first = [c for c in ("basis", "concept", "group", "unit", "f1", "precision", "recall") if c in concepts]
    return BasisComparison(pd.DataFrame(rows), concepts[[*first, "average_precision", "lookup_f1", "n"]])


def _wanted(text: LabelledTokens, least: int) -> Tensor:
    """The numbers of the concepts that are common enough on both sides."""
    same_length(ids=text.ids, labels=text.labels, test=text.test)
    if not text.test.any() or text.test.all():
        raise InputError("text.test: expected some tokens on each side of the split.")
    n = torch.stack([text.labels[side].sum(0) for side in (text.test, ~text.test)]).amin(0)
    wanted = (n >= least).nonzero().flatten()
    if not len(wanted):
        raise InputError(f"no concept has {least} tokens on both sides; the most is {int(n.max())}. Read more texts, "
                         "or ask for fewer tokens.")
    return wanted


def _checked(name: str, features: Tensor, text: LabelledTokens) -> Tensor:
    check_axes(name, features, "tokens", "units")
    same_length(**{name: features}, labels=text.labels)
    if not torch.isfinite(features).all() or float(features.min()) < 0:
        raise InputError(f"{name}: expected activations from zero up. `project(…, two_sided=True)` makes two units of "
                         "a direction with two signs.")
    return features.float()


def _shuffled(text: LabelledTokens) -> LabelledTokens:
    """The same with every token's labels taken from a token half of its side of the split away."""
    labels = text.labels.clone()
    for side in (text.test, ~text.test):
        labels[side] = labels[side].roll(int(side.sum()) // 2, dims=0)
    return text._replace(labels=labels)


# ---- concepts: one unit and one threshold each


def _concept_rows(features: Tensor, text: LabelledTokens, wanted: Tensor) -> tuple[pd.DataFrame, float]:
    """A row for every concept, and the mean F1 of "the unit is active"."""
    train, test = features[~text.test], features[text.test]
    truth, held_out = (text.labels[side][:, wanted] for side in (~text.test, text.test))
    unit, active_unit = best_units(train, truth)
    ranked = average_precisions(test[:, unit], held_out)
    rows, active_f1 = [], []
    for i, concept in enumerate(wanted.tolist()):
        j, holds = int(unit[i]), held_out[:, i]
        threshold = best_threshold(train[:, j], truth[:, i])
        scores = _scores(test[:, j] >= threshold, holds)
        rows.append((text.concepts[concept], j, *scores, float(ranked[i]), int(holds.sum())))
        active_f1.append(_scores(test[:, int(active_unit[i])] > 0, holds)[0])
    columns = ["concept", "unit", "f1", "precision", "recall", "average_precision", "n"]
    return pd.DataFrame(rows, columns=columns), float(np.mean(active_f1))


def _scores(says: Tensor, holds: Tensor) -> tuple[float, float, float]:
    """F1, precision and recall of a prediction, both [tokens] bool."""
    hits, said, wanted = (int(x.sum()) for x in (says & holds, says, holds))
    return 2 * hits / max(said + wanted, 1), hits / max(said, 1), hits / max(wanted, 1)


def average_precisions(values: Tensor, holds: Tensor) -> np.ndarray:
    """The average precision of each column of values for the same column of truths, both [tokens, concepts].

    As scikit-learn's `average_precision_score`, which takes them one by one and checks each three times.
    """
    n_tokens, n = values.shape
    ranked = values.T.contiguous().sort(dim=1, descending=True)
    hits = holds.T.gather(1, ranked.indices)
    return ranked_precision(np.repeat(np.arange(n), n_tokens), ranked.values.numpy().ravel(), hits.numpy().ravel(),
                            holds.sum(0).numpy(), n_tokens, n)


def best_units(features: Tensor, labels: Tensor, ratio: float = 2.0) -> tuple[Tensor, Tensor]:
    """For each concept the unit that tells it best by F1: with a threshold of its own, and with zero for a threshold.

    features: [tokens, units]; labels: [tokens, concepts] bool. As thresholds a unit's 8th, 16th, 32nd, … strongest
    activation are tried, and its weakest. Returns two times [concepts].
    """
    truth = labels.float()
    wanted = truth.sum(0)
    ordered = features.T.contiguous().sort(dim=1, descending=True).values  # [units, tokens]
    n_active = (features > 0).sum(0)
    best, best_f1 = torch.zeros(labels.shape[1], dtype=torch.long), torch.full((labels.shape[1],), -1.0)
    count = 8.0
    while True:
        rank = n_active.clamp(max=int(count))
        threshold = ordered.gather(1, (rank - 1).clamp(min=0)[:, None]).flatten()
        says = ((features >= threshold) & (features > 0)).float()
        f1, unit = (2 * (says.T @ truth) / (says.sum(0)[:, None] + wanted)).max(0)
        better = f1 > best_f1
        best, best_f1 = torch.where(better, unit, best), torch.where(better, f1, best_f1)
        if count >= int(n_active.max()):
            return best, unit  # the last threshold lets in whatever is active
        count *= ratio


def best_threshold(values: Tensor, holds: Tensor) -> float:
    """The threshold above zero for which "the value is at least that" has the best F1. Both [tokens], holds bool."""
    order = values.argsort(descending=True, stable=True)
    ranked = values[order]
    said = torch.arange(1, len(values) + 1)
    f1 = 2 * holds[order].cumsum(0) / (said + holds.sum())
    last_of_equals = torch.cat([ranked[1:] < ranked[:-1], torch.tensor([True])])
    f1 = torch.where(last_of_equals & (ranked > 0), f1, -1.0)
    chosen = int(f1.argmax())
    return float(ranked[chosen]) if ranked[chosen] > 0 else float("inf")


def _lookup_rows(text: LabelledTokens, wanted: Tensor) -> pd.DataFrame:
    """The same rows for the baseline that reads the token and nothing else."""
    given = text.ids.numpy(), text.labels[:, wanted].numpy(), (~text.test).numpy(), text.test.numpy()
    scores, _ = token_lookup(*given)
    return pd.DataFrame({"concept": [text.concepts[c] for c in wanted.tolist()], "unit": -1, "f1": scores.f1,
                         "precision": scores.precision, "recall": scores.recall,
                         "average_precision": lookup_average_precision(*given), "n": scores.wanted})


# ---- units: how pure each is


def _purities(features: Tensor, text: LabelledTokens, k: int, min_active: int) -> dict[str, float]:
    """Purity and entropy, means over the units that are active often enough on both sides."""
    sides = [(features[side], text.labels[side].float()) for side in (~text.test, text.test)]
    live = torch.stack([(part > 0).sum(0) >= min_active for part, _ in sides]).all(0)
    row = {"purity_top": float("nan"), "purity_mass": float("nan"), "entropy": float("nan"),
           "active": float((features > 0).float().mean()), "n": int(live.sum()), "n_units": features.shape[1]}
    if live.any():
        sides = [(part[:, live], labels) for part, labels in sides]
        for name, share in (("purity_top", lambda f, y: top_share(f, y, min(k, len(f)))), ("purity_mass", mass_share)):
            chosen_on, measured_on = (beyond_chance(share(f, y), y.mean(0)) for f, y in sides)
            row[name] = float(measured_on.gather(1, chosen_on.argmax(1, keepdim=True)).mean())
        row["entropy"] = float(concept_entropy(sides[1][0], text.labels[text.test]).mean())
    return row
