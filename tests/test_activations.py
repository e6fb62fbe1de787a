"""What chapter 2 measures of activations, on data whose answer is known beforehand."""

import math

import pytest
import torch
from hub_cache import tiny_model

from solutions import analysis
from solutions.data import tokenize
from solutions.errors import InputError
from solutions.models import extract, hook_points, next_token_loss


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------------------------- single dimensions

def test_kurtosis_of_a_coin_a_rare_event_and_a_bell_curve():
    coin = torch.tensor([-1.0, 1.0]).repeat(5000)
    rare = torch.zeros(10_000)
    rare[::10] = 7.0                     # Bernoulli, p = 0.1: (1 - 3pq) / pq
    still = torch.full((10_000,), 2.0)
    found = analysis.kurtosis(torch.stack([coin, rare, noise(10_000), still], 1))
    assert found[:2].tolist() == pytest.approx([1.0, (1 - 0.27) / 0.09], rel=1e-4)
    assert found[2].item() == pytest.approx(3.0, abs=0.2)
    assert found[3].isnan()              # what never changes has no tails


def test_kurtosis_does_not_depend_on_where_and_how_large():
    x = noise(500, 3).exp()
    assert torch.allclose(analysis.kurtosis(5 * x + 100), analysis.kurtosis(x), rtol=1e-2)


def test_a_rotation_keeps_lengths_and_angles_and_changes_axes():
    turn = analysis.random_rotation(40, seed=3)
    x = noise(10, 40)
    assert torch.allclose(x @ x.T, (x @ turn) @ (x @ turn).T, atol=1e-4)
    assert not torch.allclose(x, x @ turn, atol=0.1)
    assert torch.equal(turn, analysis.random_rotation(40, seed=3))
    assert not torch.equal(turn, analysis.random_rotation(40, seed=4))


def test_rotations_are_drawn_evenly():
    first = torch.stack([analysis.random_rotation(3, seed)[0] for seed in range(400)])
    assert first.mean(0).abs().max() < 0.12      # without the signs, QR prefers one side


def test_an_outlier_dimension_is_found_and_described():
    x = torch.where(noise(1000, 4) > 0, 1.0, -1.0)
    x[:, 2] = 10.0
    row = analysis.outlier_dimensions(x, k=2).iloc[0]
    assert row["dimension"] == 2
    assert row["size"] == pytest.approx(10)
    assert row["times_median"] == pytest.approx(10)
    assert row["share"] == pytest.approx(100 / 103)
    assert row["constant"] == pytest.approx(1)
    assert analysis.outlier_dimensions(x, k=2).iloc[1]["constant"] < 0.02


# ---------------------------------------------------------------------------------- lengths

def test_lengths_are_gathered_by_position():
    x = torch.tensor([[3.0, 4.0], [1.0, 0.0], [6.0, 8.0], [0.0, 2.0], [0.0, 3.0]])
    table = analysis.norms_by_position(x, torch.tensor([0, 1, 0, 1, 2]))
    assert table["position"].tolist() == [0, 1, 2]
    assert table["n"].tolist() == [2, 2, 1]
    assert table["mean"].tolist() == pytest.approx([7.5, 1.5, 3.0])
    assert table["low"].tolist() == pytest.approx([5.5, 1.1, 3.0])
    assert table["high"].tolist() == pytest.approx([9.5, 1.9, 3.0])


def test_mean_cosine_of_one_direction_of_two_sides_and_of_two_tokens():
    v = noise(1, 8)
    assert analysis.mean_cosine(v.repeat(50, 1) * torch.arange(1, 51)[:, None]) == pytest.approx(1.0)
    sides = torch.cat([v.repeat(500, 1), -v.repeat(500, 1)])
    assert analysis.mean_cosine(sides) == pytest.approx(0.0, abs=0.05)
    assert analysis.mean_cosine(torch.eye(2)) == 0.0          # a token is never paired with itself


# ---------------------------------------------------------------------------------- dimensions in use

def test_the_spectrum_is_the_variance_along_principal_directions():
    scale = torch.tensor([3.0, 2.0, 1.0])
    x = noise(20_000, 3) * scale @ analysis.random_rotation(3) + 50
    found = analysis.covariance_spectrum(x)
    assert found.tolist() == pytest.approx([9.0, 4.0, 1.0], rel=0.05)
    assert found.sum().item() == pytest.approx(x.var(0, correction=0).sum().item(), rel=1e-4)


@pytest.mark.parametrize("spectrum, expected", [
    ([1.0] * 7, 7.0), ([5.0, 0.0, 0.0], 1.0), ([2.0, 1.0, 1.0], 16 / 6), ([0.2, 0.1, 0.1], 16 / 6),
])
def test_effective_dimension(spectrum, expected):
    assert analysis.effective_dimension(torch.tensor(spectrum)) == pytest.approx(expected)


@pytest.mark.parametrize("share, expected", [(0.5, 1), (0.51, 2), (0.8, 2), (0.81, 3), (1.0, 4)])
def test_dimensions_for_a_share_of_the_variance(share, expected):
    assert analysis.dimensions_for(torch.tensor([5.0, 3.0, 1.0, 1.0]), share) == expected


def test_shuffled_dimensions_keep_their_values_and_lose_their_company():
    x = noise(2000, 1).repeat(1, 6)              # six copies: one direction
    apart = analysis.shuffle_dimensions(x)
    assert torch.equal(apart.sort(0).values, x.sort(0).values)
    used = [analysis.effective_dimension(analysis.covariance_spectrum(v)) for v in (x, apart)]
    assert used == pytest.approx([1.0, 6.0], rel=0.05)


# ---------------------------------------------------------------------------------- neighbours

def test_neighbours_are_compared_within_documents_only():
    x = torch.tensor([1.0, -1, 1, -1, -1, 1, -1, 1])[:, None]
    table = analysis.neighbour_correlation(x, torch.tensor([0] * 4 + [1] * 4), [1, 2, 3, 4])
    assert table["lag"].tolist() == [1, 2, 3]    # no two tokens of a document are four apart
    assert table["correlation"].tolist() == pytest.approx([-1.0, 1.0, -1.0])
    assert table["n"].tolist() == [6, 4, 2]


def test_repeated_tokens_are_worth_one_each():
    x = noise(2000, 8).repeat_interleave(4, dim=0)
    assert analysis.effective_batch(x, 32) == pytest.approx(8, rel=0.15)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    assert analysis.effective_batch(x, 32, order) == pytest.approx(32, rel=0.15)
    assert analysis.effective_batch(x + 100, 32) == pytest.approx(analysis.effective_batch(x, 32), rel=1e-3)


# ---------------------------------------------------------------------------------- kinds of text

def documents_of(kinds, tokens=20, d=16, seed=0):
    """Documents that each have a direction of their own, which says nothing about their kind."""
    own = 3 * noise(len(kinds), d, seed=seed)
    doc = torch.arange(len(kinds)).repeat_interleave(tokens)
    return own[doc] + noise(len(doc), d, seed=seed + 1), torch.tensor(kinds)[doc], doc


def test_a_probe_learns_what_is_linear_and_gives_the_same_twice():
    x = noise(600, 5) * torch.tensor([100.0, 1, 1, 1, 0.01])     # sizes do not matter
    y = 2 * (x[:, 4] > 0).long() + (x[:, 0] > 0).long()          # four quadrants
    probes = [analysis.fit_probe(x[:400], y[:400], 4) for _ in range(2)]
    assert torch.equal(probes[0].weight, probes[1].weight)
    assert analysis.balanced_accuracy(probes[0].predict(x[400:]), y[400:]) > 0.9


def test_balanced_accuracy_does_not_reward_the_commonest_answer():
    y = torch.tensor([0] * 9 + [2])
    assert analysis.balanced_accuracy(torch.zeros(10, dtype=torch.long), y) == pytest.approx(0.5)
    assert analysis.balanced_accuracy(y, y) == 1.0


def test_no_document_is_on_both_sides():
    doc = torch.arange(10).repeat_interleave(torch.arange(1, 11))
    test = analysis.split_documents(doc, 0.3, seed=2)
    assert len(doc[test].unique()) == 3
    assert not set(doc[test].tolist()) & set(doc[~test].tolist())
    assert not torch.equal(test, analysis.split_documents(doc, 0.3, seed=3))
    assert analysis.split_documents(torch.tensor([4, 4, 9]), 0.01).any()     # at least one document


def test_a_split_by_tokens_takes_the_share_it_was_asked_for():
    test = analysis.split_tokens(50, 0.3, seed=0)
    assert test.sum() == 15
    assert not torch.equal(test, analysis.split_tokens(50, 0.3, seed=1))


def test_shuffled_labels_stay_whole_documents_and_as_frequent():
    _, y, doc = documents_of([0, 1, 2, 2] * 10)
    nonsense = analysis.shuffle_labels(y, doc, seed=1)
    assert all(len(nonsense[doc == d].unique()) == 1 for d in range(40))
    assert torch.equal(torch.bincount(nonsense), torch.bincount(y))
    assert not torch.equal(nonsense, y)


def test_the_leak_of_a_token_split_shows_with_shuffled_labels():
    x, y, doc = documents_of([0, 1] * 10, d=32)
    nonsense = analysis.shuffle_labels(y, doc)

    def score(test):
        probe = analysis.fit_probe(x[~test], nonsense[~test], 2)
        return analysis.balanced_accuracy(probe.predict(x[test]), nonsense[test])

    assert score(analysis.split_tokens(len(doc), 0.3)) > 0.95
    assert sum(score(analysis.split_documents(doc, 0.3, s)) for s in range(8)) / 8 == pytest.approx(0.5, abs=0.2)


IDS = torch.tensor([5, 0, 6, 0, 0, 6, 5, 0, 6])
LABELS = torch.tensor([1, 1, 2, 2, 2, 2, 1, 1, 1])
DOCS = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, 3])
TEST = DOCS >= 2


def test_guess_by_token_is_a_dictionary():
    guess = analysis.guess_by_token(IDS, LABELS, TEST, 3, 7)
    assert guess[1] == 2 and guess[2] == 1           # 6 was seen in kind 2, 5 in kind 1


def test_guess_by_bag_adds_up_what_was_read_in_this_document_and_nothing_else():
    guess = analysis.guess_by_bag(IDS, LABELS, TEST, DOCS, 3, 7)
    assert guess[2:4].tolist() == [1, 1]             # 5, and then 0, which says nothing new
    assert guess[1] == 2                             # document 2 by itself: 6
    later = IDS.clone()
    later[-1] = 5                                    # what comes later must not matter
    assert torch.equal(analysis.guess_by_bag(later, LABELS, TEST, DOCS, 3, 7)[:-1], guess[:-1])
    other = IDS.clone()
    other[4:6] = 5                                   # nor what stood in the document before
    assert torch.equal(analysis.guess_by_bag(other, LABELS, TEST, DOCS, 3, 7)[2:], guess[2:])


# ---------------------------------------------------------------------------------- parts of layers

TEXTS = ["The cat sat on the mat.", "A dog ran.", "def add(x, y): return x + y"]


def last_stream(model):
    return f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"


def test_what_a_replacement_costs_is_computed_by_hand():
    model = tiny_model()
    tokens, hook = tokenize(model, TEXTS), last_stream(model)
    value = noise(model.cfg.d_model)
    logits = model(tokens.ids)
    with torch.no_grad():
        same_everywhere = model.unembed(model.ln_final(value[None, None]))[0, 0]
    for bos in (False, True):
        changed = logits.clone()
        changed[tokens.mask if bos else tokens.content] = same_everywhere
        expected = (next_token_loss(changed, tokens) - next_token_loss(logits, tokens)).mean().item()
        found = analysis.replacement_cost(model, tokens, {hook: value}, bos=bos, batch_size=2)
        assert found == pytest.approx(expected, abs=1e-4)
        assert abs(found) > 1e-3


def test_several_places_are_replaced_in_one_run():
    model = tiny_model()
    tokens = tokenize(model, TEXTS)
    values = {f"blocks.{i}.hook_mlp_out": 3 * noise(model.cfg.d_model, seed=i) for i in range(2)}
    single = [analysis.replacement_cost(model, tokens, {hook: v}) for hook, v in values.items()]
    both = analysis.replacement_cost(model, tokens, values)
    assert both not in (pytest.approx(single[0], abs=1e-5), pytest.approx(single[1], abs=1e-5))


def test_parts_of_layers_lists_what_is_written_and_what_it_costs():
    model = tiny_model()
    tokens = tokenize(model, TEXTS)
    table = analysis.parts_of_layers(model, tokens)
    assert table["part"].tolist() == [f"{kind} {i}" for i in range(model.cfg.n_layers) for kind in ("attention", "MLP")]
    assert set(table["hook"]) <= set(hook_points(model)["name"])
    row = table.iloc[-1]
    before = row["hook"].replace("mlp_out", "resid_mid")
    acts = extract(model, tokens, [row["hook"], before])
    added, stream = (acts[hook][tokens.content] for hook in (row["hook"], before))
    assert row["writes"] == pytest.approx(added.norm(dim=1).mean().item(), rel=1e-5)
    assert row["stream"] == pytest.approx(stream.norm(dim=1).mean().item(), rel=1e-5)
    cosine = (added * stream).sum(1) / added.norm(dim=1) / stream.norm(dim=1)
    assert row["along"] == pytest.approx(cosine.mean().item(), rel=1e-4)
    cost = analysis.replacement_cost(model, tokens, {row["hook"]: added.mean(0)})
    assert row["cost"] == pytest.approx(cost, abs=1e-6)


# ---------------------------------------------------------------------------------- bad input

X = noise(6, 3)


@pytest.mark.parametrize("call, says", [
    (lambda: analysis.kurtosis(X[None]), r"x\[mask\]"),
    (lambda: analysis.random_rotation(0), "at least 1"),
    (lambda: analysis.outlier_dimensions(X, 4), "expected 1 to 3.*got 4"),
    (lambda: analysis.norms_by_position(X, torch.arange(5)), "position has 5"),
    (lambda: analysis.mean_cosine(X[:1]), "two tokens"),
    (lambda: analysis.covariance_spectrum(X[:1]), "got 1"),
    (lambda: analysis.effective_dimension(torch.zeros(3)), "not all zero"),
    (lambda: analysis.effective_dimension(-torch.ones(3)), "none negative"),
    (lambda: analysis.dimensions_for(torch.ones(3), 0), "above 0"),
    (lambda: analysis.shuffle_dimensions(X[0]), r"\[tokens, d\]"),
    (lambda: analysis.neighbour_correlation(X, torch.zeros(6), [0]), "lag"),
    (lambda: analysis.effective_batch(X, 4), "at most half of the 6"),
    (lambda: analysis.fit_probe(X, torch.tensor([0, 1, 2, 3, 0, 1]), 3), "0 to 2"),
    (lambda: analysis.fit_probe(X, torch.zeros(6), 3), "whole numbers"),
    (lambda: analysis.fit_probe(X, torch.zeros(5, dtype=torch.long), 3), "y has 5"),
    (lambda: analysis.split_documents(torch.zeros(6)), "at least two documents"),
    (lambda: analysis.split_tokens(6, 1.0), "between 0 and 1"),
    (lambda: analysis.shuffle_labels(torch.arange(6), torch.zeros(6)), "one label"),
    (lambda: analysis.guess_by_token(IDS, LABELS, DOCS < 9, 3, 7), "each side"),
    (lambda: analysis.guess_by_bag(IDS, LABELS, TEST, DOCS[:3], 3, 7), "document has 3"),
    (lambda: analysis.replacement_cost(tiny_model(), tokenize(tiny_model(), "a"), {"blocks.0.hook_mlp": X[0]}),
     "hook_mlp_out"),
    (lambda: analysis.replacement_cost(tiny_model(), tokenize(tiny_model(), "a"), {"blocks.0.hook_mlp_out": X}),
     r"one vector \[d\]"),
])
def test_bad_input_is_named(call, says):
    with pytest.raises(InputError, match=says):
        call()


def test_nothing_here_is_not_a_number():
    x = noise(200, 4)
    found = [analysis.effective_batch(x, 10), analysis.mean_cosine(x), *analysis.kurtosis(x).tolist()]
    assert all(math.isfinite(value) for value in found)
