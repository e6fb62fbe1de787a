"""Co-activation: exact counts, measures worked out by hand, nulls that keep what they say, and maps of directions."""

import math
import sys
from types import SimpleNamespace

import networkx
import numpy as np
import pandas as pd
import pytest
import torch
from test_index import Store, identity_sae, make, random_world

from solutions import analysis
from solutions.errors import InputError

module = sys.modules["solutions.analysis.coactivation"]


def index_of(path, features, lengths=None, ids=None, test=None):
    """An index with the features [tokens, latents] as they are; documents of given lengths, BOS first in each."""
    features = torch.as_tensor(features, dtype=torch.float32)
    store = Store(features, lengths or [len(features)], None if ids is None else torch.as_tensor(ids), test)
    return make(store, identity_sae(features.shape[1]), path / "index")


def columns(n, *places):
    """[n, latents] of ones: for each latent the tokens on which it is active."""
    features = torch.zeros(n, len(places))
    for j, where in enumerate(places):
        features[list(where), j] = 1.0
    return features


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    store, sae = random_world()
    index = make(store, sae, tmp_path_factory.mktemp("index") / "index")
    return index, index.tokens(0, index.n_tokens).dense() > 0


# ---------------------------------------------------------------------------------------- counts and measures

def test_the_measures_of_a_pair_worked_out_by_hand(tmp_path):
    # ten tokens that count (0 is BOS); both on 3 and 4
    found = analysis.coactivation(index_of(tmp_path, columns(11, (1, 2, 3, 4), (3, 4, 5))), least=1)
    row = found.pairs().iloc[0]
    assert (row["a"], row["b"], row["n"], found.n_tokens) == (0, 1, 2, 10)
    assert row["expected"] == pytest.approx(4 * 3 / 10)
    assert row["lift"] == pytest.approx(2 / 1.2) and row["pmi"] == pytest.approx(math.log2(2 / 1.2))
    assert row["jaccard"] == pytest.approx(2 / 5)
    assert row["z"] == pytest.approx(0.8 / math.sqrt(1.2 * (6 / 10) * (7 / 9)))


def test_z_is_that_of_sets_drawn_at_random():
    dice = np.random.default_rng(0)
    drawn = [len(set(dice.permutation(30)[:9]) & set(range(12))) for _ in range(4000)]
    for n in (2, 6):
        z = module.pair_measures(np.array([n]), np.array([9]), np.array([12]), 30)["z"][0]
        assert z == pytest.approx((n - np.mean(drawn)) / np.std(drawn), abs=0.1)


@pytest.mark.parametrize("split", ["all", "train", "test"])
def test_counts_are_those_of_the_dense_product(world, split, monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", 300)  # several blocks
    index, active = world
    kept = {"all": torch.ones(index.n_tokens, dtype=torch.bool), "train": ~index.test, "test": index.test}[split]
    kept = kept & ~index.is_bos
    dense = active[kept].double()
    both = (dense.T @ dense).numpy()
    found = analysis.coactivation(index, least=2, split=split)
    assert found.n_tokens == int(kept.sum()) and found.n_active.tolist() == dense.sum(0).tolist()
    wanted = [(a, b, int(both[a, b])) for a in range(40) for b in range(a + 1, 40) if both[a, b] >= 2]
    assert list(zip(found.a, found.b, found.n, strict=True)) == wanted and wanted


def test_any_pair_can_be_looked_up_whichever_comes_first(world):
    index, active = world
    found = analysis.coactivation(index, least=1)
    a, b = np.array([0, 7, 30, 5]), np.array([9, 2, 31, 6])
    wanted = [int((active[:, i] & active[:, j]).sum()) for i, j in zip(a, b, strict=True)]
    assert found.count(a, b).tolist() == found.count(b, a).tolist() == wanted


def test_pairs_are_ranked_by_what_was_asked_for(world):
    found = analysis.coactivation(world[0], least=1)
    for by in module.MEASURES:
        table = found.pairs(None, by)
        assert table[by].is_monotonic_decreasing and len(table) == len(found.n)
    assert (found.pairs(5, least=4)["n"] >= 4).all()
    assert found.pairs(1, "lift")["a"][0] != found.pairs(1, "z")["a"][0] or (
        found.pairs(1, "lift")["b"][0] != found.pairs(1, "z")["b"][0])


def test_a_latent_that_is_always_active_meets_all_others_as_expected(tmp_path):
    found = analysis.coactivation(index_of(tmp_path, columns(9, range(1, 9), (1, 2))), least=1)
    row = found.pairs().iloc[0]
    assert (row["lift"], row["pmi"], row["z"]) == (1.0, 0.0, 0.0)


# ---------------------------------------------------------------------------------------------- the null

@pytest.mark.parametrize("keep", module.KEPT)
def test_a_permutation_keeps_what_it_says_and_nothing_else(tmp_path, keep):
    store, sae = random_world(3, lengths=(20,) * 12)
    index = make(store, sae, tmp_path / "index")
    parts, chosen = module._parts(index, keep), ~index.is_bos.numpy()
    found = module._rotated(index, chosen, parts, np.random.default_rng(0))
    before = index.tokens(0, index.n_tokens).dense().numpy() > 0
    after = found.by_token.toarray()
    assert after.max() == 1 and (after.T == found.by_latent.toarray()).all()
    assert not after[~chosen].any()
    for part in np.unique(parts):
        assert (after[parts == part].sum(0) == before[parts == part].sum(0)).all()
    assert (after != before).mean() > 0.05


def test_latents_of_one_document_are_beyond_one_null_and_not_beyond_the_other(tmp_path):
    """Latents 0 and 1 share documents and nothing else, 2 and 3 share tokens."""
    dice = np.random.default_rng(0)
    n_documents, length = 60, 41
    features = np.zeros((n_documents, length, 4))
    features[:6, :, :2] = dice.random((6, length, 2)) < 0.5
    together = dice.random((n_documents, length)) < 0.05
    features[:, :, 2] = features[:, :, 3] = together
    index = index_of(tmp_path, features.reshape(-1, 4), [length] * n_documents)
    found = analysis.coactivation(index, least=5)
    pairs = {(row.a, row.b): row for row in found.pairs(None).itertuples()}
    assert pairs[0, 1].lift > 5 and pairs[2, 3].lift > 10
    for keep, wanted in (("nothing", {(0, 1), (2, 3)}), ("document", {(2, 3)})):
        beyond = found.null(10, keep=keep, least=20).pairs(0.05)
        assert {(a, b) for a, b in zip(beyond["a"], beyond["b"], strict=True)} == wanted, keep
    kept = found.null(20).table
    row = kept[(kept["a"] == 0) & (kept["b"] == 1)].iloc[0]
    assert row["by_chance"] == pytest.approx(row["n"], rel=0.1)  # the documents explain all of it


def test_the_threshold_is_where_the_share_of_false_discoveries_is_small_enough():
    real = np.array([1.0, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    permuted = [np.array([1.0, 2, 3, 8]), np.array([1.0, 2])]
    table = pd.DataFrame({"lift": real[::-1]})
    null = module.Null("document", "lift", table, real, permuted)
    # at 4: half a false one on average of seven; at 3: one of eight; at 2: two of nine
    assert null.false_share(4) == pytest.approx(0.5 / 7) and null.false_share(3) == pytest.approx(1 / 8)
    assert (null.threshold(0.05), null.threshold(0.1), null.threshold(0.2)) == (9, 4, 3)
    assert len(null.pairs(0.1)) == 7
    assert null.false_share(11) == 1
    assert module.Null("document", "lift", table, real, [real, real]).threshold(0.5) == math.inf


def test_what_is_kept_may_explain_some_pairs_and_not_others(tmp_path):
    """Latents 0 and 1 fire on token 3 and nowhere else, 2 and 3 on every fourth of token 5's occurrences, at random."""
    dice = np.random.default_rng(0)
    ids = dice.integers(3, 11, 6000)
    some = (ids == 5) & (dice.random(6000) < 0.25)
    noise = dice.random((20, 6000)) < 0.2
    features = np.stack([ids == 3, (ids == 3) & (dice.random(6000) < 0.9), some, some, *noise], 1)
    features[0] = False
    found = analysis.coactivation(index_of(tmp_path, features, ids=ids), least=5)
    lifts = found.pairs(2, "lift")
    assert {(0, 1), (2, 3)} == set(zip(lifts["a"], lifts["b"], strict=True))
    null = found.null(4, keep="token", by="excess")
    beyond = null.pairs(0.05)
    assert list(zip(beyond["a"], beyond["b"], strict=True)) == [(2, 3)]
    row = null.table[(null.table["a"] == 0) & (null.table["b"] == 1)].iloc[0]
    assert row["by_chance"] == row["n"] and row["excess"] == 1.0
    assert beyond["excess"][0] == pytest.approx((beyond["n"][0] + 1) / (beyond["by_chance"][0] + 1)) and (
        beyond["by_chance"][0] == pytest.approx(beyond["n"][0] / 4, rel=0.3))


def test_by_chance_counts_pairs_that_seldom_meet_after_permutation(tmp_path):
    dice = np.random.default_rng(0)
    together = dice.random(4000) < 0.04
    features = np.stack([together, together, dice.random(4000) < 0.5], 1)
    features[0] = False
    table = analysis.coactivation(index_of(tmp_path, features), least=50).null(30, keep="nothing").table
    row = table[(table["a"] == 0) & (table["b"] == 1)].iloc[0]
    assert row["expected"] < 10 and row["by_chance"] == pytest.approx(row["expected"], rel=0.25)


def test_a_seed_gives_the_same_null_and_another_seed_another(world):
    found = analysis.coactivation(world[0], least=1)
    first, again, other = (found.permuted("nothing", seed) for seed in (0, 0, 1))
    assert np.array_equal(first.n, again.n) and not np.array_equal(first.n, other.n)
    assert np.array_equal(first.n_active, found.n_active)


# -------------------------------------------------------------------------- implications, graph, communities

def test_an_implication_goes_from_the_special_to_the_general(tmp_path):
    features = columns(101, range(1, 41), range(1, 11), range(1, 41), range(35, 60))
    table = analysis.coactivation(index_of(tmp_path, features), least=2).implications()
    # 1 lies inside 0 and inside 2; 0 and 2 are the same and imply each other, which is no family; 3 overlaps only
    assert sorted(zip(table["parent"], table["child"], strict=True)) == [(0, 1), (2, 1)]
    assert table["p_parent_given_child"].tolist() == [1.0, 1.0]
    assert table["p_child_given_parent"].tolist() == [0.25, 0.25] and table["lift"].tolist() == [2.5, 2.5]
    assert table["n"].tolist() == [10, 10]


def cliques(path):
    """Latents 0 to 4 meet on some tokens, 5 to 7 on others, 8 is alone."""
    dice = np.random.default_rng(1)
    features = np.zeros((2001, 9))
    features[1:, :5] = (dice.random((2000, 1)) < 0.1) & (dice.random((2000, 5)) < 0.8)
    features[1:, 5:8] = (dice.random((2000, 1)) < 0.1) & (dice.random((2000, 3)) < 0.8)
    features[1:, 8] = dice.random(2000) < 0.05
    return analysis.coactivation(index_of(path, features), least=2)


def test_the_graph_has_the_strong_pairs_and_the_communities_are_the_planted_ones(tmp_path):
    found = cliques(tmp_path)
    graph = found.graph(2.0)
    assert isinstance(graph, networkx.Graph) and set(graph) == set(range(8))
    assert graph.number_of_edges() == 10 + 3 and graph.nodes[0]["n_active"] == found.n_active[0]
    row = found.pairs(None)
    row = row[(row["a"] == 0) & (row["b"] == 1)].iloc[0]
    assert graph.edges[0, 1] == {"weight": row["pmi"], "n": row["n"]}
    names = {0: "x", 1: "x", 2: "x", 3: "y", 5: "z", 6: "z"}
    table = found.communities(2.0, concepts=names)
    assert table.groupby("community")["latent"].agg(list).tolist() == [[0, 1, 2, 3, 4], [5, 6, 7]]
    assert table.groupby("community")["label"].first().tolist() == ["x", "z"]
    assert table.groupby("community")["share"].first().tolist() == [0.75, 1.0]
    assert table["size"].tolist() == [5] * 5 + [3] * 3


def test_communities_agree_on_concepts_more_than_chance_only_if_they_do(tmp_path):
    found = cliques(tmp_path)
    true = analysis.community_agreement(found.communities(2.0, concepts={j: "xz"[j > 4] for j in range(8)}))
    assert (true["agreement"], true["pairs"]) == (1.0, 13) and true["chance"] < 0.7
    other = analysis.community_agreement(found.communities(2.0, concepts={j: "xz"[j % 2] for j in range(8)}))
    assert other["agreement"] < other["highest"]


def test_concepts_may_come_as_a_table(tmp_path):
    found = cliques(tmp_path)
    labels = torch.zeros(found.index.n_tokens, 2, dtype=torch.bool)
    labels[found.index.latent(0)[0], 0], labels[found.index.latent(5)[0], 1] = True, True
    found.index.__dict__["test"] = torch.arange(found.index.n_tokens) % 2 == 1
    table = found.communities(2.0, concepts=analysis.concept_table(found.index, labels, ["first", "second"]))
    assert table.groupby("community")["label"].first().tolist() == ["first", "second"]
    frame = pd.DataFrame({"latent": [0, 1, 5], "concept": ["first", None, "second"]})
    again = found.communities(2.0, concepts=SimpleNamespace(table=frame))
    assert again.groupby("community")["label"].first().tolist() == ["first", "second"]


@pytest.mark.parametrize("ask, message", [
    (lambda c: analysis.coactivation(c.index, split="tset"), "unknown split 'tset'.*'test'"),
    (lambda c: analysis.coactivation(c.index, split="test"), "no tokens in the test split"),
    (lambda c: c.pairs(by="lifts"), "unknown measure 'lifts'.*'lift'"),
    (lambda c: c.pairs(least=1), r"coactivation\(index, least=1\)"),
    (lambda c: c.permuted("documents"), "'document'"),
    (lambda c: c.null(1).threshold(5), "between 0 and 1"),
    (lambda c: c.null(1, by="exces"), "'excess'"),
    (lambda c: c.null(1, by="excess"), "at least 2"),
    (lambda c: c.implications(at=0.4), "below < at"),
    (lambda c: c.communities(99.0), "no pair has a pmi of 99"),
    (lambda c: c.communities(2.0, concepts=7), "expected a ConceptTable"),
    (lambda c: analysis.community_agreement(c.communities(2.0)), "concepts="),
    (lambda c: analysis.cosine_against_coactivation(c, torch.eye(9)), "least=1"),
    (lambda c: analysis.cosine_against_coactivation(c.index, torch.eye(8)), "8 directions, the index 9 latents"),
    (lambda c: analysis.direction_map(torch.eye(9), "umap"), "unknown method 'umap'"),
    (lambda c: analysis.neighbours_kept(torch.eye(9), analysis.direction_map(torch.eye(9)), 9), "k below"),
])
def test_what_cannot_be_answered_is_said(tmp_path, ask, message):
    with pytest.raises(InputError, match=message):
        ask(cliques(tmp_path))


# ---------------------------------------------------------------------------------------------- directions

def test_similar_directions_that_meet_and_similar_directions_that_never_do(tmp_path):
    dice = np.random.default_rng(2)
    n_pairs, n = 6, 4000
    together = np.repeat(dice.random((n, n_pairs)) < 0.08, 2, axis=1) & (dice.random((n, 2 * n_pairs)) < 0.9)
    side = dice.random((n, n_pairs)) < 0.5
    apart = (dice.random((n, n_pairs)) < 0.16)[:, :, None] & np.stack([side, ~side], axis=-1)
    centres = torch.randn(n_pairs, 32, generator=torch.Generator().manual_seed(0)).repeat_interleave(2, dim=0)
    W_dec = centres + 0.3 * torch.randn(2 * n_pairs, 32, generator=torch.Generator().manual_seed(1))
    for name, features, sign in (("a", together, 1), ("b", apart.reshape(n, -1), -1)):
        features[0] = False
        found = analysis.cosine_against_coactivation(index_of(tmp_path / name, features), W_dec)
        assert len(found.table) == 12 * 11 // 2 and found.table["cosine"].is_monotonic_decreasing
        top = found.table.head(n_pairs)
        assert (top["a"] // 2 == top["b"] // 2).all()
        assert (top["lift"] > 5).all() if sign == 1 else (top["n"] == 0).all()
        assert sign * found.correlation > 0.1 and abs(found.permuted.mean()) < 0.1
        last = found.by_cosine().iloc[-1]
        assert (last["never"], last["often"]) == ((0, 1) if sign == 1 else (1, 0))


def test_of_too_many_pairs_a_part_is_compared(tmp_path, monkeypatch):
    geometry = sys.modules["solutions.analysis.geometry"]
    features = (np.random.default_rng(0).random((3000, 30)) < 0.3) * 1.0
    index, W_dec = index_of(tmp_path, features), torch.randn(30, 8, generator=torch.Generator().manual_seed(0))
    everything = analysis.cosine_against_coactivation(index, W_dec, n_permutations=2)
    monkeypatch.setattr(geometry, "MOST_PAIRS", 100)
    part = analysis.cosine_against_coactivation(index, W_dec, n_permutations=2)
    assert len(everything.table) == 435 and 80 <= len(part.table) <= 100
    both = part.table.merge(everything.table, on=["a", "b"])
    assert len(both) == len(part.table) and np.allclose(both["cosine_x"], both["cosine_y"])


def test_a_map_of_directions_in_a_plane_is_exact_and_one_of_many_dimensions_is_not():
    angle = torch.linspace(0, 6, 40)
    flat = torch.nn.functional.pad(torch.stack([angle.cos(), angle.sin()], 1) * 3, (0, 6))
    places = analysis.direction_map(flat)
    assert list(places.columns) == ["latent", "x", "y"] and places["latent"].tolist() == list(range(40))
    assert analysis.neighbours_kept(flat, places, 4) > 0.95
    spread = torch.randn(200, 64, generator=torch.Generator().manual_seed(0))
    assert analysis.neighbours_kept(spread, analysis.direction_map(spread), 10) < 0.3


def test_tsne_keeps_groups_together_that_pca_lays_on_each_other():
    pytest.importorskip("sklearn")
    dice = torch.Generator().manual_seed(0)
    groups = torch.eye(12, 64).repeat_interleave(10, dim=0)
    W_dec = groups + 0.05 * torch.randn(120, 64, generator=dice)
    kept = {method: analysis.neighbours_kept(W_dec, analysis.direction_map(W_dec, method, perplexity=8), 9)
            for method in ("pca", "tsne")}
    assert kept["tsne"] > kept["pca"] + 0.2
    again = analysis.direction_map(W_dec, "tsne", perplexity=8)
    assert again.equals(analysis.direction_map(W_dec, "tsne", perplexity=8))
