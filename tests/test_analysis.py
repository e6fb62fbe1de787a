"""Known answers on small tensors: each test can be checked by hand."""

import math

import pytest
import torch
from hub_cache import tiny_model, tiny_sae

from solutions import analysis
from solutions.data import str_tokens
from solutions.errors import InputError
from solutions.sae import encode
from solutions.smallworld.lexicon import WEEKDAYS

FEATURES = torch.tensor([[0.0, 2.0, 0.0], [3.0, 1.0, 0.0], [0.0, 0.0, 0.0]])  # 3 tokens, 3 latents


# ---------------------------------------------------------------------------------- texts to ask about

def test_latent_activations_are_those_of_encoding_everything():
    acts = torch.randn(5, 4, 16, generator=torch.Generator().manual_seed(0))
    few = analysis.latent_activations(tiny_sae(), acts, [3, 30], rows=2)
    assert torch.equal(few, encode(tiny_sae(), acts)[..., [3, 30]])
    assert few.any()


def test_labels_stand_on_the_tokens_they_belong_to():
    model = tiny_model()
    world = analysis.labelled_texts(model, 300)
    assert world.labels.shape == (*world.tokens.ids.shape, len(world.concepts))
    assert not world.labels[~world.tokens.content].any()  # neither BOS nor padding
    days = world.labels[..., world.concepts.index("weekday")].nonzero().tolist()
    assert days
    for text, position in days:  # the token that completes the word
        assert "".join(str_tokens(model, world.tokens.ids[text, : position + 1])).endswith(tuple(WEEKDAYS))


# ---------------------------------------------------------------------------------- which latents fire

def test_top_features_lists_active_latents_strongest_first():
    table = analysis.top_features(FEATURES, ["a", "b", "c"], k=2)
    rows = list(table[["token", "rank", "latent", "activation"]].itertuples(index=False, name=None))
    assert rows == [("a", 1, 1, 2.0), ("b", 1, 0, 3.0), ("b", 2, 1, 1.0)]  # c has no active latent


def test_density_counts_tokens_not_strength():
    assert torch.allclose(analysis.density(FEATURES), torch.tensor([1 / 3, 2 / 3, 0.0]))


def test_contrast_prefers_the_latent_that_is_consistent_over_the_loud_one():
    with_it = torch.tensor([[1.0, 9.0], [1.0, 0.0], [1.0, 0.0]])
    without_it = torch.tensor([[0.0, 0.0], [0.5, 1.0], [0.0, 0.0]])
    table = analysis.contrast(with_it, without_it)
    best = table.iloc[0]
    assert best["latent"] == 0
    assert best["consistent"] == 1.0
    assert best["difference"] == pytest.approx((1 + 0.5 + 1) / 3)
    assert (best["with_it"], best["without_it"]) == (1.0, pytest.approx(1 / 3))
    assert table.iloc[1]["consistent"] == pytest.approx(1 / 3)


def test_activity_by_text_takes_the_strongest_token():
    by_text = analysis.activity_by_text([FEATURES, FEATURES[:1]])
    assert by_text.tolist() == [[3.0, 2.0, 0.0], [0.0, 2.0, 0.0]]


def test_concept_scores_are_precision_recall_and_f1():
    concept = torch.tensor([True, True, False])
    table = analysis.concept_scores(FEATURES, concept).set_index("latent")
    assert tuple(table.loc[1]) == (1.0, 1.0, 1.0)
    assert tuple(table.loc[0]) == pytest.approx((1.0, 0.5, 2 / 3))
    assert tuple(table.loc[2]) == (0.0, 0.0, 0.0)
    assert table.index[0] == 1  # best first


def test_concepts_of_turns_the_question_round():
    labels = torch.tensor([[True, True], [True, False], [False, False]])
    table = analysis.concepts_of(FEATURES[:, 0], labels, ["wide", "narrow"]).set_index("concept")
    assert tuple(table.loc["wide"]) == pytest.approx((1.0, 0.5, 2 / 3))
    assert tuple(table.loc["narrow"]) == (0.0, 0.0, 0.0)
    assert table.index[0] == "wide"


# ----------------------------------------------------------------------------- the page of one latent

@pytest.fixture
def page_inputs():
    """8 texts of 5 tokens; position 0 is BOS, position 4 is padding, both with absurd activations."""
    generator = torch.Generator().manual_seed(1)
    activations = torch.rand(8, 5, generator=generator) * (torch.rand(8, 5, generator=generator) < 0.7)
    activations[:, 0], activations[:, 4] = 99.0, 77.0
    mask = torch.zeros(8, 5, dtype=torch.bool)
    mask[:, 1:4] = True
    tokens = [[f"t{row}.{column}" for column in range(5)] for row in range(8)]
    return activations, mask, tokens


def test_feature_page_counts_only_tokens_that_count(page_inputs):
    activations, mask, tokens = page_inputs
    page = analysis.feature_page(activations, mask, tokens, latent=7)
    real = activations[mask]
    assert page.n_tokens == 24
    assert page.n_active == int((real > 0).sum()) == sum(page.counts)
    assert page.density == pytest.approx(page.n_active / 24)
    assert page.maximum == pytest.approx(real.max().item())  # neither BOS's 99 nor padding's 77
    assert sum(interval.n_tokens for interval in page.intervals) == page.n_active


def test_every_example_lies_in_its_interval_and_intervals_hold_equally_many(page_inputs):
    activations, mask, tokens = page_inputs
    page = analysis.feature_page(activations, mask, tokens, latent=7, n_intervals=3, per_interval=2)
    assert len(page.intervals) == 3
    assert page.intervals[0].high == pytest.approx(page.maximum)
    sizes = [interval.n_tokens for interval in page.intervals]
    assert max(sizes) - min(sizes) <= 1
    for interval in page.intervals:
        assert len(interval.examples) == 2
        assert len({example.text for example in interval.examples}) == 2  # never two from one text
        for example in interval.examples:
            value = example.activations[example.peak]
            assert interval.low <= value <= interval.high
            assert value == pytest.approx(activations[example.text, example.position].item())
            assert example.tokens[example.peak] == tokens[example.text][example.position]


def test_a_nearly_empty_interval_is_not_filled_from_the_ones_below():
    """Three texts, one activation each: in every interval stands the one that belongs there, however many may."""
    activations = torch.tensor([[0.0, 5.0], [1.0, 0.0], [0.0, 3.0]])
    tokens = [["a", "b"], ["c", "d"], ["e", "f"]]
    page = analysis.feature_page(activations, activations > -1, tokens, latent=0, n_intervals=3, per_interval=3)
    shown = [[example.tokens[example.peak] for example in interval.examples] for interval in page.intervals]
    assert shown == [["b"], ["f"], ["c"]] and [interval.n_tokens for interval in page.intervals] == [1, 1, 1]


def test_examples_show_neither_bos_nor_padding(page_inputs):
    activations, mask, tokens = page_inputs
    page = analysis.feature_page(activations, mask, tokens, latent=7)
    examples = [example for interval in page.intervals for example in interval.examples]
    shown = {token for example in examples for token in example.tokens}
    assert shown and not any(token.endswith((".0", ".4")) for token in shown)


def test_strongest_interval_starts_with_the_maximum(page_inputs):
    activations, mask, tokens = page_inputs
    page = analysis.feature_page(activations, mask, tokens, latent=7)
    first = page.intervals[0].examples[0]
    assert first.activations[first.peak] == pytest.approx(page.maximum)


@pytest.mark.parametrize("value, n_active, n_intervals", [(0.0, 0, 0), (2.0, 6, 1)])
def test_feature_page_of_dead_and_of_constant_latents(value, n_active, n_intervals):
    mask = torch.ones(2, 3, dtype=torch.bool)
    page = analysis.feature_page(torch.full((2, 3), value), mask, [["a"] * 3] * 2, latent=0)
    assert (page.n_active, len(page.intervals), page.maximum) == (n_active, n_intervals, value)


def test_interval_edges_are_quantiles_and_merge_when_equal():
    assert analysis.interval_edges(torch.arange(1.0, 6.0), 4) == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert analysis.interval_edges(torch.tensor([1.0, 1.0, 1.0, 5.0]), 2) == [1.0, 5.0]


def test_logit_effects_name_the_tokens_a_direction_raises_and_lowers():
    unembed = torch.tensor([[1.0, 0.0, -1.0, 0.0], [0.0, 5.0, 0.0, 0.0]])
    positive, negative = analysis.logit_effects(torch.tensor([2.0, 0.0]), unembed, list("abcd"), k=1)
    assert positive == [("a", 2.0)]
    assert negative == [("c", -2.0)]


def test_logit_effects_ignore_a_constant_and_apply_the_gain():
    unembed = torch.tensor([[1.0, 3.0], [4.0, 4.0]])  # the second dimension moves all logits alike
    positive, _ = analysis.logit_effects(torch.tensor([1.0, 1.0]), unembed, list("ab"), k=1)
    assert positive == [("b", pytest.approx(1.0))]
    doubled, _ = analysis.logit_effects(
        torch.tensor([1.0, 1.0]), unembed, list("ab"), k=1, gain=torch.tensor([2.0, 1.0]))
    assert doubled == [("b", pytest.approx(2.0))]


# -------------------------------------------------------------------------- directions and their purity

def test_random_directions_have_length_one_and_repeat():
    drawn = analysis.random_directions(50, 8, seed=3)
    assert torch.allclose(drawn.norm(dim=1), torch.ones(50), atol=1e-6)
    assert torch.equal(drawn, analysis.random_directions(50, 8, seed=3))
    assert not torch.equal(drawn, analysis.random_directions(50, 8, seed=4))


def test_pca_finds_the_axes_of_a_stretched_cloud_whatever_its_mean():
    cloud = torch.randn(5000, 3, generator=torch.Generator().manual_seed(0))
    x = cloud * torch.tensor([1.0, 5.0, 0.2]) + 100.0
    found = analysis.pca_directions(x).abs()
    assert torch.allclose(found, torch.tensor([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]]), atol=0.03)
    assert analysis.pca_directions(x, 1).shape == (1, 3)


def test_project_takes_off_the_mean_cuts_below_zero_and_can_keep_few():
    x = torch.tensor([[10.0, 0.0], [14.0, 2.0]])  # mean (12, 1)
    eye = torch.eye(2)
    assert analysis.project(x, eye).tolist() == [[0.0, 0.0], [2.0, 1.0]]
    assert analysis.project(x, eye, two_sided=True).tolist() == [[0.0, 0.0, 2.0, 1.0], [2.0, 1.0, 0.0, 0.0]]
    assert analysis.project(x, eye, two_sided=True, keep=1).tolist() == [[0, 0, 2.0, 0], [2.0, 0, 0, 0]]


def purity_world():
    """100 tokens, one concept on the first half. Latent 0 fires there only, latent 1 also elsewhere."""
    labels = torch.zeros(100, 2, dtype=torch.bool)
    labels[:50, 0] = True
    labels[::10, 1] = True
    features = torch.zeros(100, 3)
    features[:50, 0] = 1.0
    features[:50, 1], features[50:, 1] = 1.1, 1.0
    features[:3, 2] = 1.0  # too rare to be judged
    return features, labels


def test_top_k_purity_cannot_tell_a_leaky_latent_from_a_clean_one_but_mass_purity_can():
    features, labels = purity_world()
    top = analysis.top_k_purity(features, labels, k=50)
    assert top.live.tolist() == [0, 1]
    assert top.score.tolist() == pytest.approx([1.0, 1.0])
    assert top.concept.tolist() == [0, 0]
    mass = analysis.mass_purity(features, labels)
    share = 1.1 / 2.1
    assert mass.score.tolist() == pytest.approx([1.0, (share - 0.5) / 0.5], rel=1e-4)


def test_purity_of_noise_is_near_zero():
    generator = torch.Generator().manual_seed(0)
    labels = torch.rand(4000, 1, generator=generator) < 0.3
    features = torch.rand(4000, 20, generator=generator)
    assert analysis.mass_purity(features, labels).score.abs().max() < 0.05


def test_a_latent_active_on_few_tokens_is_judged_on_those():
    features, labels = purity_world()
    top = analysis.top_k_purity(features, labels, k=50, min_active=3)
    assert top.score[2] == pytest.approx(1.0)


# ------------------------------------------------------------------------------------- toy superposition

def test_toy_model_keeps_two_features_when_dense_and_all_five_when_sparse():
    toy = analysis.toy_superposition()
    kept = (toy.W.norm(dim=1) > 0.5).sum(dim=1).tolist()
    assert kept[0] == 2  # as many as there are dimensions
    assert kept[-1] == 5
    cosines = analysis.interference(toy.W[-1].T)
    neighbours = cosines.max(dim=1).values  # a regular pentagon: 72 degrees
    assert torch.allclose(neighbours, torch.full((5,), math.cos(math.radians(72))), atol=0.12)


def test_interference_is_the_cosine_with_the_others():
    cosines = analysis.interference(torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]]))
    assert torch.allclose(cosines, torch.tensor([[0.0, 0, -1], [0, 0, 0], [-1, 0, 0]]))


# ----------------------------------------------------------------------------------------- bad input

MASK = torch.ones(3, 3, dtype=torch.bool)


@pytest.mark.parametrize("call, says", [
    (lambda: analysis.latent_activations(tiny_sae(), torch.ones(1, 2, 16), [99]), "0 to 31, got .99"),
    (lambda: analysis.labelled_texts(tiny_model(), 0), "n of 1 or more"),
    (lambda: analysis.labelled_texts(tiny_model(), 1, "exam"), "probe.*'exam'"),
    (lambda: analysis.top_features(FEATURES.tolist(), ["a"]), "got list"),
    (lambda: analysis.top_features(FEATURES[None], ["a"]), r"shape \[1, 3, 3\].*x\[mask\]"),
    (lambda: analysis.top_features(FEATURES, ["a"]), "str_tokens has 1"),
    (lambda: analysis.top_features(FEATURES, list("abc"), k=9), "expected 1 to 3.*got 9"),
    (lambda: analysis.density(FEATURES[:0]), "empty"),
    (lambda: analysis.activity_by_text([]), "empty list"),
    (lambda: analysis.contrast(FEATURES, FEATURES[:2]), "pairs of texts"),
    (lambda: analysis.concept_scores(FEATURES, torch.ones(2, dtype=torch.bool)), "concept has 2"),
    (lambda: analysis.concepts_of(FEATURES[:, 0], MASK, ["a"]), "expected 3 names.*got 1"),
    (lambda: analysis.feature_page(FEATURES, MASK.float(), [["a"] * 3] * 3, 0), "torch.bool"),
    (lambda: analysis.feature_page(FEATURES, ~MASK, [["a"] * 3] * 3, 0), "at least one token"),
    (lambda: analysis.feature_page(FEATURES, MASK, [["a"] * 3], 0), "str_tokens has 1"),
    (lambda: analysis.interval_edges(torch.ones(3), 0), "got 0"),
    (lambda: analysis.logit_effects(torch.ones(2), torch.ones(3, 4), list("abcd")), "must agree"),
    (lambda: analysis.logit_effects(torch.ones(3), torch.ones(3, 4), list("abc")), "expected 4 tokens"),
    (lambda: analysis.random_directions(0, 3), "n=0"),
    (lambda: analysis.pca_directions(FEATURES, 4), "got 4"),
    (lambda: analysis.project(FEATURES, torch.ones(2, 2)), "must agree"),
    (lambda: analysis.project(FEATURES, torch.eye(3), keep=7), "got 7"),
    (lambda: analysis.top_k_purity(FEATURES, MASK, k=99), "got 99"),
    (lambda: analysis.mass_purity(FEATURES, MASK[:2]), "labels has 2"),
    (lambda: analysis.toy_superposition([0.5, 0.0]), "above 0"),
])
def test_bad_input_is_named(call, says):
    with pytest.raises(InputError, match=says):
        call()
