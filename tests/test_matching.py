"""Matching two dictionaries: a shuffled copy is found again, chance is not, and each direction is used once."""

import itertools

import pytest
import torch

from solutions import analysis
from solutions.errors import InputError


def directions(n=24, d=16, seed=1):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_a_shuffled_and_rescaled_copy_is_found_again():
    a = directions()
    order = torch.randperm(24, generator=torch.Generator().manual_seed(2))
    matched = analysis.match_latents(a, 3.0 * a[order])
    assert torch.equal(order[matched.b], matched.a)
    assert matched.mean == pytest.approx(1, abs=1e-5) and matched.share(0.999) == 1


def test_the_matching_is_the_best_of_all():
    a, b = directions(5, 3), directions(5, 3, seed=9)
    along = analysis.cosines(a, b)
    best = max(sum(float(along[i, j]) for i, j in enumerate(p)) for p in itertools.permutations(range(5)))
    assert analysis.match_latents(a, b).cosine.sum().item() == pytest.approx(best, abs=1e-5)


def test_each_direction_is_used_once_though_one_is_everybodys_nearest():
    b = torch.eye(3)
    a = torch.tensor([[1.0, 0.1, 0], [1, 0.2, 0], [1, 0, 0.1]])
    assert analysis.max_cosines(a, b).min() > 0.95  # all three are near the first
    matched = analysis.match_latents(a, b)
    assert sorted(matched.b.tolist()) == [0, 1, 2] and matched.share(0.9) == pytest.approx(1 / 3)


def test_an_opposite_direction_is_another_direction():
    a = directions(4, 8)
    assert analysis.match_latents(a, -a).cosine.max() < 0.9
    assert analysis.max_cosines(a, -a).max() < 0.9


def test_of_unequal_dictionaries_the_smaller_decides_and_nothing_is_lost():
    a = directions(10)
    matched = analysis.match_latents(a, a[:4])
    assert matched.a.tolist() == [0, 1, 2, 3] and matched.b.tolist() == [0, 1, 2, 3]
    assert analysis.recovered(a[:4], truth=a) == pytest.approx(0.4)
    assert analysis.recovered(a, truth=a[:4]) == 1


def test_chance_is_far_below_one_and_above_zero():
    a = directions(64, 32)
    chance = analysis.chance_of_match(a, a)
    assert 0.2 < chance.mean < 0.7 and chance.share() < 0.1
    again = analysis.chance_of_match(a, a)
    assert torch.equal(chance.cosine, again.cosine)
    assert not torch.equal(chance.cosine, analysis.chance_of_match(a, a, seed=1).cosine)


def test_chance_does_not_know_what_an_sae_of_the_same_seed_started_from():
    start = analysis.random_directions(64, 32, seed=0)  # the decoder of make_sae(..., seed=0) before training
    assert analysis.chance_of_match(start, start, seed=0).mean < 0.7


def test_the_nearest_is_asked_in_one_direction():
    truth = torch.eye(4)
    found = torch.eye(4)[:2]
    assert analysis.max_cosines(found, truth).mean() == 1
    assert analysis.max_cosines(truth, found).mean() == 0.5
    assert torch.equal(analysis.max_cosines(truth, found, at_once=1), analysis.max_cosines(truth, found))


def test_partners_are_arranged_on_the_diagonal():
    truth = directions(6, 16)
    found = torch.cat([directions(3, 16, seed=5), truth[[4, 2, 0, 1, 5, 3]]])
    order = analysis.arrange(found, truth)
    assert sorted(order.tolist()) == list(range(9))
    along = analysis.cosines(truth, found[order])
    assert along.diagonal().min() > 0.999 and order[6:].tolist() == [0, 1, 2]


def test_the_table_starts_with_the_most_alike():
    a = directions()
    b = a + 0.8 * directions(seed=7)
    table = analysis.match_latents(a, b).table()
    assert list(table.columns) == ["a", "b", "cosine"]
    assert table["cosine"].is_monotonic_decreasing and len(table) == 24


def test_a_zero_direction_has_cosine_zero():
    a = torch.stack([torch.zeros(3), torch.ones(3)])
    assert analysis.cosines(a, torch.eye(3))[0].abs().max() == 0


@pytest.mark.parametrize("a, b, message", [
    (torch.zeros(3), torch.eye(3), r"a: expected a tensor of shape \[n, d\]"),
    (torch.eye(3), torch.eye(4), "a has d 3, b has 4"),
    (torch.eye(3), torch.full((3, 3), float("nan")), "b: expected finite numbers"),
])
def test_what_cannot_be_matched_is_named(a, b, message):
    for function in (analysis.match_latents, analysis.cosines, analysis.max_cosines):
        with pytest.raises(InputError, match=message):
            function(a, b)


def test_too_many_directions_are_refused_before_any_work(monkeypatch):
    from solutions.analysis import matching
    monkeypatch.setattr(matching, "LARGEST", 100)
    with pytest.raises(InputError, match="max_cosines"):
        analysis.match_latents(directions(), directions())
