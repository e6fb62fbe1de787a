"""Explanations made from the ten strongest examples, and what becomes of them on other text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from solutions.analysis.hypotheses.reading import named_labels
from solutions.analysis.illusion import best_label
from solutions.analysis.index.concepts import Scores, concept_table
from solutions.errors import InputError, check_count

if TYPE_CHECKING:
    from solutions.analysis.index.read import FeatureIndex
    from solutions.analysis.texts import LabelledTexts


def explanations(
    index: FeatureIndex,
    labels: LabelledTexts | Mapping[str, Tensor],
    k: int = 10,
    min_active: int = 100,
) -> pd.DataFrame:
    """Explain every latent by the concept that its k strongest examples share, and score that on held-out text.

    The examples come from the train split, at most one from a document, as on a feature's page. Of the concepts that
    beat their own base rate by most on them, the rarest is taken: it says most. That is what a careful person does who
    looks at the top ten and at nothing else.

    Args:
        index: a feature index.
        labels: the labelled texts it was made from, or columns of your own, {concept: [n_tokens] bool}.
        k: how many examples are looked at.
        min_active: latents active on fewer tokens are left out.

    Returns:
        latent, explanation, top (share of the k examples that it fits), precision, recall, f1 (on the test split; the
        latent is the detector, as in `HypothesisScore`), best and best_f1 (the concept that suits the latent best on
        all its train tokens, and its F1 on the test split), n_active.

    Raises:
        InputError: no latent is active often enough, or labels are missing.
    """
    columns = named_labels(index, labels)
    holds = torch.stack(list(columns.values()), dim=1)
    scores = concept_table(index, holds, tuple(columns))
    seen = (~index.is_bos & ~index.test).numpy()
    base = holds[torch.from_numpy(seen)].float().mean(0)
    rows = []
    for latent in (index.n_active >= check_count(min_active, "min_active")).nonzero().flatten().tolist():
        top = _top(index, latent, seen, check_count(k, "k"))
        if len(top) == k:
            share = holds[top].float().mean(0)
            c = best_label(share, base)
            rows.append((latent, c, float(share[c])))
    if not rows:
        raise InputError(f"no latent is active on {min_active} tokens and in {k} documents of the train split. Read "
                         "more text, or lower min_active.")
    latent, concept, top = (np.array(column) for column in zip(*rows, strict=True))
    best = scores.train.f1[latent].argmax(1)
    found, other = (Scores(scores.test.hits[latent, c], scores.test.fired[latent, 0], scores.test.wanted[0, c])
                    for c in (concept, best))
    names = np.array(list(columns))
    return pd.DataFrame({
        "latent": latent, "explanation": names[concept], "top": top, "precision": found.precision,
        "recall": found.recall, "f1": found.f1, "best": names[best], "best_f1": other.f1,
        "n_active": index.n_active.numpy()[latent],
    })


def _top(index: FeatureIndex, latent: int, seen: np.ndarray, k: int) -> list[int]:
    """The places of a latent's k strongest tokens among those seen, at most one from a document."""
    where, values = (x.numpy() for x in index.latent(latent))
    where, values = where[seen[where]], values[seen[where]]
    first: dict[int, int] = {}  # document → its strongest place
    for place in where[np.argsort(-values, kind="stable")].tolist():
        first.setdefault(index.place(place)[0], place)
        if len(first) == k:
            break
    return list(first.values())


def liar(
    index: FeatureIndex,
    labels: LabelledTexts | Mapping[str, Tensor],
    k: int = 10,
    fits: float = 0.9,
    fails: float = 0.3,
    by: str = "recall",
    min_active: int = 100,
) -> pd.DataFrame:
    """Explanations that fit the top examples and fail on all other text.

    Two ways to fail. With `by="recall"` the explanation is too broad: the latent is silent on most tokens that have the
    concept ("a city", of a latent for Paris). With `by="precision"` it is too narrow or simply wrong: the latent is
    mostly active on something else, only less strongly.

    Args:
        index, labels, k, min_active: as for `explanations`.
        fits: the explanation is true of at least this share of the top examples,
        fails: and scores at most this on the test split.
        by: "recall", "precision" or "f1".

    Returns:
        The rows of `explanations` that are such, the worst first.

    Raises:
        InputError: `by` is none of the three, or as for `explanations`.
    """
    if by not in ("recall", "precision", "f1"):
        raise InputError(f"by: expected 'recall', 'precision' or 'f1', got {by!r}.")
    table = explanations(index, labels, k, min_active)
    found = table[(table["top"] >= fits) & (table[by] <= fails)]
    return found.sort_values([by, "n_active"], ascending=[True, False], kind="stable").reset_index(drop=True)
