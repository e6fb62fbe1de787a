"""Concept scores from plain tensors: the same as through an index, chosen on one split and measured on the other."""

import numpy as np
import pytest
import torch

from solutions import analysis
from solutions.errors import InputError


def world(n=400, seed=0):
    dice = torch.Generator().manual_seed(seed)
    labels = torch.rand(n, 3, generator=dice) < torch.tensor([0.5, 0.2, 0.1])
    noise = torch.relu(torch.randn(n, 4, generator=dice))
    features = torch.cat([noise, labels[:, [1]] * 2.0], dim=1)  # latent 4 is concept 1
    ids = torch.randint(0, 7, (n,), generator=dice)
    return features, labels, ids, torch.arange(n) >= n // 2


def test_the_latent_that_is_a_concept_is_found_and_scores_one():
    features, labels, ids, test = world()
    table = analysis.score_concepts(features, labels, ["a", "b", "c"], ids, test)
    best = table.table().iloc[0]
    assert (best["concept"], best["latent"], best["f1"]) == ("b", 4, 1.0)
    assert table.latents_for("b", 1)["latent"][0] == 4


def test_counts_are_those_of_a_plain_loop():
    features, labels, ids, test = world(60)
    scores = analysis.score_concepts(features, labels, ["a", "b", "c"], ids, test).test
    for j in range(5):
        for c in range(3):
            assert scores.hits[j, c] == int(((features[test][:, j] > 0) & labels[test][:, c]).sum())
    assert scores.fired[:, 0].tolist() == (features[test] > 0).sum(0).tolist()
    assert scores.wanted[0].tolist() == labels[test].sum(0).tolist()


def test_what_only_fits_the_chosen_half_scores_on_the_other_half():
    features, labels, ids, test = world()
    features = torch.cat([features, ((labels[:, 2] & ~test) * 1.0)[:, None]], dim=1)  # right on the train split only
    row = analysis.score_concepts(features, labels, ["a", "b", "c"], ids, test).table().set_index("concept").loc["c"]
    assert row["latent"] == 5 and row["f1"] == 0


def test_the_mean_is_over_common_concepts_only():
    features, labels, ids, test = world()
    table = analysis.score_concepts(features, labels, ["a", "b", "c"], ids, test)
    f1 = table.table().set_index("concept")
    common = [c for c in "abc" if f1.loc[c, "n"] >= 30]
    assert 0 < len(common) < 3
    assert analysis.mean_concept_f1(table) == pytest.approx(f1.loc[common, "f1"].mean())
    assert analysis.mean_lookup_f1(table) == pytest.approx(f1.loc[common, "lookup_f1"].mean())
    with pytest.raises(InputError, match="no concept has 10000 test tokens"):
        analysis.mean_concept_f1(table, 10_000)


def test_parts_of_the_text_add_up(monkeypatch):
    from solutions.analysis import detectors
    whole = analysis.score_concepts(*_given())
    monkeypatch.setattr(detectors, "AT_ONCE", 17)
    parts = analysis.score_concepts(*_given())
    assert np.array_equal(whole.test.hits, parts.test.hits) and np.array_equal(whole.train.fired, parts.train.fired)


def _given():
    features, labels, ids, test = world()
    return features, labels, ["a", "b", "c"], ids, test


@pytest.mark.parametrize("change, message", [
    ({1: torch.zeros(9, 3, dtype=torch.bool)}, "one row per token"),
    ({2: ["a"]}, "expected 3 names"),
    ({4: torch.zeros(400, dtype=torch.bool)}, "each side of the split"),
])
def test_what_does_not_fit_is_named(change, message):
    given = list(_given())
    for place, value in change.items():
        given[place] = value
    with pytest.raises(InputError, match=message):
        analysis.score_concepts(*given)
