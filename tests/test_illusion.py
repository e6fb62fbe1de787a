"""Known answers for labels tested beyond the top examples, logit promises, and probes on what is left out."""

import pytest
import torch

from solutions import analysis
from solutions.errors import InputError


def world(n=200):
    """n tokens, two concepts: "rare" on every tenth token, "half" on the first half."""
    place = torch.arange(n)
    return torch.stack([place % 10 == 0, place < n // 2], dim=1)


# ---------------------------------------------------------------------------------- the illusion

def test_a_latent_that_means_its_label_keeps_it_in_every_interval():
    labels = world()
    features = torch.where(labels[:, :1], torch.linspace(2, 1, 200)[:, None], 0.0)
    found = analysis.illusion(features, labels, k=4, n_intervals=2, min_active=10)
    assert found.concept.tolist() == [0]
    assert found.top.tolist() == [1.0]
    assert found.by_interval.tolist() == [[1.0, 1.0]]
    assert found.n_tokens.tolist() == [[8, 8]]  # 20 active tokens, 4 of them the top examples
    assert found.base.tolist() == [pytest.approx(0.1)]


def test_a_latent_whose_top_alone_has_the_concept_is_caught():
    labels = world()
    features = torch.full((200, 1), 1.0)
    features[labels[:, 0], 0] = 3.0            # strongest on the rare concept: 20 of 200 tokens
    found = analysis.illusion(features, labels, k=20, n_intervals=3, min_active=10)
    assert found.concept.tolist() == [0]
    assert found.top.tolist() == [1.0]
    assert found.by_interval.tolist() == [[0.0, 0.0, 0.0]]


def test_the_strongest_interval_comes_first_and_the_top_is_in_none():
    labels = torch.zeros(30, 1, dtype=torch.bool)
    labels[:20] = True
    features = torch.linspace(30, 1, 30)[:, None]
    found = analysis.illusion(features, labels, k=10, n_intervals=2, min_active=10)
    assert found.by_interval.tolist() == [[1.0, 0.0]]


def test_top_examples_come_from_different_texts():
    labels = torch.zeros(40, 2, dtype=torch.bool)
    labels[:5, 0] = True                       # all of the first text, and nothing else
    labels[5::5, 1] = True                     # the strongest token of each of the other texts
    texts = torch.arange(40) // 5
    features = (torch.arange(40, 0, -1).float() + 100 * (texts == 0))[:, None]
    alone = analysis.illusion(features, labels, k=5, n_intervals=2, min_active=10)
    spread = analysis.illusion(features, labels, k=5, n_intervals=2, min_active=10, texts=texts)
    assert alone.concept.tolist() == [0]
    assert spread.concept.tolist() == [1]
    assert spread.top.tolist() == [pytest.approx(4 / 5)]


def test_too_few_texts_for_the_examples_is_no_row():
    labels = world()
    features = torch.rand(200, 1, generator=torch.Generator().manual_seed(0)) + 0.1
    with pytest.raises(InputError, match="lower min_active"):
        analysis.illusion(features, labels, k=5, texts=torch.zeros(200, dtype=torch.long), min_active=10)


def test_the_rarest_of_equally_good_labels_wins():
    assert analysis.best_label(torch.tensor([1.0, 1.0, 0.9]), torch.tensor([0.5, 0.2, 0.0])) == 1
    assert analysis.best_label(torch.tensor([0.6, 0.5]), torch.tensor([0.6, 0.1])) == 1  # the first is chance


def test_latents_that_fire_seldom_are_left_out_and_said_so():
    labels = world()
    features = torch.zeros(200, 2)
    features[:150, 1] = 1.0
    found = analysis.illusion(features, labels, k=4, n_intervals=2, min_active=100)
    assert found.latent.tolist() == [1]
    with pytest.raises(InputError, match="active on 190 tokens"):
        analysis.illusion(features, labels, k=4, n_intervals=2, min_active=190)


def test_the_table_puts_the_largest_fall_first():
    labels = world()
    faithful = torch.where(labels[:, 0], torch.linspace(2, 1, 200), 0.0)
    broken = torch.where(labels[:, 0], 3.0, 1.0)
    features = torch.stack([faithful, broken], dim=1)
    table = analysis.illusion(features, labels, k=10, n_intervals=2, min_active=10).table(["rare", "half"])
    assert table["latent"].tolist() == [1, 0]
    assert table["label"].tolist() == ["rare", "rare"]
    assert table["interval 2"].tolist() == [0.0, 1.0]


@pytest.mark.parametrize("wrong", [{"k": 0}, {"n_intervals": 0}])
def test_illusion_refuses_what_it_cannot_count(wrong):
    with pytest.raises(InputError, match="1 or more"):
        analysis.illusion(torch.ones(200, 1), world(), **wrong)


def test_illusion_refuses_labels_of_other_tokens():
    with pytest.raises(InputError, match="one row per token"):
        analysis.illusion(torch.ones(100, 1), world())


# ---------------------------------------------------------------------------------- promises

UNEMBED = torch.eye(4)  # a direction promotes the token of its own number


def test_a_latent_that_promotes_what_follows_keeps_its_promise():
    features = torch.zeros(60, 2)
    features[:30, 0] = 1.0
    features[30:, 1] = 1.0
    following = torch.cat([torch.zeros(30), torch.ones(30)]).long()
    kept = analysis.promises_kept(features, following, torch.eye(4)[:2], UNEMBED, k=1)
    assert kept.own.tolist() == [1.0, 1.0]
    assert kept.borrowed.tolist() == [0.0, 0.0]


def test_tokens_at_the_end_of_a_text_promise_nothing():
    features = torch.ones(60, 2)
    following = torch.where(torch.arange(60) < 40, 0, -1)
    kept = analysis.promises_kept(features, following, torch.eye(4)[:2], UNEMBED, k=1, min_active=40)
    assert kept.own.tolist() == [1.0, 0.0]
    assert kept.borrowed.tolist() == [0.0, 1.0]
    with pytest.raises(InputError, match="Fewer than two latents"):
        analysis.promises_kept(features, following, torch.eye(4)[:2], UNEMBED, k=1, min_active=41)


def test_the_gain_of_the_last_normalisation_counts():
    features, following = torch.ones(30, 2), torch.ones(30, dtype=torch.long)
    directions = torch.tensor([[1.0, 0.9, 0, 0], [0, 0, 1.0, 0]])
    plain = analysis.promises_kept(features, following, directions, UNEMBED, k=1)
    gained = analysis.promises_kept(features, following, directions, UNEMBED, k=1,
                                    gain=torch.tensor([1.0, 2.0, 1.0, 1.0]))
    assert plain.own.tolist() == [0.0, 0.0]
    assert gained.own.tolist() == [1.0, 0.0]


def test_promises_refuse_directions_that_do_not_fit():
    with pytest.raises(InputError, match=r"expected \[2, 4\]"):
        analysis.promises_kept(torch.ones(30, 2), torch.zeros(30).long(), torch.ones(3, 4), UNEMBED)


# ---------------------------------------------------------------------------------- probes

def test_roc_auc_counts_pairs_in_the_right_order_and_ties_half():
    positive = torch.tensor([True, False, True, False])
    assert analysis.roc_auc(torch.tensor([4.0, 1.0, 3.0, 2.0]), positive) == 1.0
    assert analysis.roc_auc(torch.tensor([1.0, 4.0, 2.0, 3.0]), positive) == 0.0
    assert analysis.roc_auc(torch.tensor([3.0, 1.0, 1.0, 2.0]), positive) == pytest.approx(0.625)  # 2 of 4, 1 tie
    assert analysis.roc_auc(torch.ones(4), positive) == 0.5
    with pytest.raises(InputError, match="only one of them"):
        analysis.roc_auc(torch.ones(4), torch.ones(4, dtype=torch.bool))


def probe_input(n_texts=40, length=20):
    dice = torch.Generator().manual_seed(1)
    labels = torch.rand(n_texts * length, 2, generator=dice) < torch.tensor([0.5, 0.01])
    x = torch.randn(n_texts * length, 8, generator=dice)
    x[:, 3] += 4 * labels[:, 0]
    return x, labels, torch.arange(n_texts).repeat_interleave(length)


def test_a_probe_finds_what_is_there_and_the_shuffled_one_does_not():
    x, labels, texts = probe_input()
    found = analysis.probe_concepts(x, labels, texts)
    assert found.concept.tolist() == [0]  # the second concept is too rare to test
    assert float(found.auc) > 0.95
    assert abs(float(analysis.probe_concepts(x[:, :3], labels, texts).auc) - 0.5) < 0.1  # it is not in these
    shuffled = [float(analysis.probe_concepts(x, labels, texts, shuffled=True, seed=s).auc) for s in range(20)]
    assert abs(sum(shuffled) / 20 - 0.5) < 0.15


def test_a_probe_is_not_tested_on_texts_it_was_trained_on():
    """Each text has a mark of its own and one label throughout: only a leak could make the probe good."""
    texts = torch.arange(60).repeat_interleave(20)
    dice = torch.Generator().manual_seed(0)
    of_text = torch.rand(60, generator=dice) < 0.5
    marks = torch.randn(60, 100, generator=dice)[texts]
    found = analysis.probe_concepts(marks, of_text[texts][:, None], texts)
    assert abs(float(found.auc) - 0.5) < 0.25


def test_a_probe_does_not_mind_the_scale_of_its_input():
    x, labels, texts = probe_input()
    a, b = (analysis.probe_concepts(scale * x, labels, texts).auc for scale in (1.0, 1e-3))
    assert torch.allclose(a, b, atol=1e-3)


def test_probes_say_what_is_missing():
    x, labels, texts = probe_input()
    with pytest.raises(InputError, match="at least two texts"):
        analysis.probe_concepts(x, labels, torch.zeros_like(texts))
    with pytest.raises(InputError, match="No concept has"):
        analysis.probe_concepts(x, labels, texts, min_count=10_000)
