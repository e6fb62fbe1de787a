"""Every latent at once: each column is what a plain computation gives, and what chance gives is not found."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from test_index import VOCABULARY, Store, dense_of, identity_sae, make, random_world

from solutions import analysis
from solutions.analysis import bases
from solutions.analysis.latents import blocks, enrichment, gather, places, truth
from solutions.errors import InputError

MARKED = ["<bos>", " he", " said", ".", " She", "?", ' "', " 3", ".\n", " ran", "!", " x"]


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """60 documents of 12 tokens, six latents whose ways are known."""
    dice = torch.Generator().manual_seed(0)
    lengths = [12] * 60
    n = sum(lengths)
    store = Store(torch.zeros(n, 6), lengths, seed=3)
    noise = torch.rand(n, 6, generator=dice) + 0.1
    on = torch.zeros(n, 6, dtype=torch.bool)
    on[:, 0] = store.ids == 3                                     # token 3
    on[:, 1] = store.position == 1                                # the first word
    on[:, 3] = torch.where(store.test, store.ids == 5, store.ids == 4)  # token 4, but only on train
    on[:, 4] = torch.rand(n, generator=dice) < 0.2                # nothing
    on[:, 5] = (store.ids == 6) | (store.ids == 7) | (torch.rand(n, generator=dice) < 0.02)  # two tokens, not quite
    store.acts = noise * on
    unembed = torch.randn(6, len(VOCABULARY), generator=dice)
    return make(store, identity_sae(6), tmp_path_factory.mktemp("planted") / "index", unembed=unembed)


@pytest.fixture(scope="module")
def labels(planted):
    drawn = torch.rand(planted.n_tokens, 3, generator=torch.Generator().manual_seed(1))
    labels = drawn < torch.tensor([0.5, 0.1, 0.05])
    labels[:, 1] = (planted.ids == 6) | (planted.ids == 7)
    return labels


@pytest.fixture(scope="module")
def concepts(planted, labels):
    return analysis.concept_table(planted, labels, ["often", "pair", "seldom"])


@pytest.fixture(scope="module")
def table(planted, labels, concepts):
    groups = {"often": "noise", "pair": "words", "seldom": "noise"}
    return analysis.latent_table(planted, concepts, labels, groups, progress=False)


# ------------------------------------------------------------------------------------ the hypergeometric test

def test_the_tail_is_counted_by_hand():
    # Four of ten balls are marked, three are drawn: 120 draws, of which 4 are all marked and 6 * 6 have two.
    found = np.exp(enrichment.log_tail([3, 2], [4, 4], [3, 3], 10))
    assert found.tolist() == pytest.approx([4 / 120, 40 / 120])


def test_no_more_than_chance_is_no_enrichment():
    assert enrichment.log_tail([2, 1, 0], [4, 4, 4], [5, 5, 5], 10).tolist() == [0, 0, 0]  # 2 are to be expected


def test_the_tail_is_scipys_and_goes_on_where_scipys_ends():
    cases = [(n, of, m, 500) for n, of, m in itertools.product((1, 3, 20, 60), (3, 60, 200), (5, 90, 250))
             if n <= min(of, m) and n * 500 > of * m]
    n, of, m, total = (np.array(column) for column in zip(*cases, strict=True))
    assert len(cases) > 10
    wanted = [stats.hypergeom.logsf(*case) for case in zip(n - 1, total, of, m, strict=True)]
    assert enrichment.log_tail(n, of, m, 500).tolist() == pytest.approx(wanted, rel=1e-8)
    n = 3000
    assert stats.hypergeom.sf(n - 1, 10**6, n, n) == 0  # too small for a float
    assert enrichment.log_tail([n], [n], [n], 10**6)[0] == pytest.approx(
        stats.hypergeom.logpmf(n, 10**6, n, n), rel=1e-9)


def test_q_values_are_scipys_with_the_unlisted_tests_at_one():
    p = np.array([0.2, 1e-6, 0.001, 0.04, 0.001])
    wanted = stats.false_discovery_control(np.append(p, np.ones(15)))[:5]
    assert analysis.benjamini_hochberg(p, 20).tolist() == pytest.approx(wanted.tolist())
    assert analysis.benjamini_hochberg(np.array([])).tolist() == []


# ------------------------------------------------------------------------ the columns are those of a plain loop

@pytest.mark.parametrize("at_once", [1, 60, 10**6])
def test_a_table_equals_dense_computation(tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(blocks, "AT_ONCE", at_once)
    store, sae = random_world(lengths=(9, 14, 1, 12, 7, 3, 15, 8, 21, 11, 10, 1))
    index, dense = make(store, sae, tmp_path / "index"), dense_of(store, sae).numpy()
    found = analysis.latent_table(index, progress=False).table.set_index("latent")
    real, test, ids = (~store.is_bos).numpy(), store.test.numpy(), store.ids.numpy()
    train, test = real & ~test, real & test
    words = np.unique(ids[train])
    p, n_active = {}, (dense > 0).sum(0)
    for j, word in itertools.product(np.flatnonzero(n_active), words):
        on, here = (dense[:, j] > 0) & train, (ids == word) & train
        p[j, word] = stats.hypergeom.sf((on & here).sum() - 1, train.sum(), here.sum(), on.sum())
    q = dict(zip(p, stats.false_discovery_control(list(p.values())), strict=True))
    assert index.n_latents == len(found) == 40
    for j in np.flatnonzero((dense[train] > 0).any(0)):
        best = min(words, key=lambda word, j=j: p[j, word])
        row = found.loc[j]
        assert p[j, VOCABULARY.index(row["token"])] == pytest.approx(p[j, best])
        if q[j, best] <= 0.05:
            assert row["token_q"] == pytest.approx(q[j, best])
        else:
            assert row["token_q"] > 0.05
        here, on = (ids == VOCABULARY.index(row["token"])) & test, (dense[:, j] > 0) & test
        assert row["token_recall"] == pytest.approx((on & here).sum() / here.sum())
        if on.any():
            assert row["token_precision"] == pytest.approx((on & here).sum() / on.sum())
            assert row["token_lift"] == pytest.approx(row["token_precision"] / (here.sum() / test.sum()))
        assert row["n_enriched"] == sum(q[j, word] <= 0.05 for word in words)
    active = np.where(dense > 0, dense, np.nan)
    assert found["n_active"].tolist() == n_active.tolist()
    assert found["mean"].tolist() == pytest.approx(np.nanmean(active, 0).tolist(), rel=1e-5, nan_ok=True)
    assert found["maximum"].tolist() == pytest.approx(dense.max(0).tolist())
    wanted = [store.position.numpy()[dense[:, j] > 0].mean() if n_active[j] else np.nan for j in range(40)]
    assert found["mean_position"].tolist() == pytest.approx(wanted, nan_ok=True)


def test_the_ways_that_were_planted_are_found(table):
    rows = table.table.set_index("latent")
    assert rows["token"][[0, 3]].tolist() == [" w3", " w4"]
    assert rows.loc[0, ["token_precision", "token_recall", "tokens"]].tolist() == [1.0, 1.0, " w3"]
    assert rows.loc[0, "token_lift"] == pytest.approx(11, rel=0.5)  # one of eleven words
    assert set(rows.loc[5, "tokens"].split("|")) == {" w6", " w7"} and rows.loc[5, "n_enriched"] == 2
    assert 0.8 < rows.loc[5, "enriched_share"] < 1
    assert rows.loc[1, "mean_position"] == 1 and rows.loc[1, "position_effect"] < -1.5
    assert rows.loc[1, "start_lift"] == pytest.approx(11)  # on the first of eleven words, and nowhere else
    assert rows.loc[4, ["tokens", "n_enriched"]].tolist() == ["", 0] and abs(rows.loc[4, "position_effect"]) < 0.3
    assert rows.loc[5, "concept"] == "pair" and rows.loc[5, "group"] == "words" and rows.loc[5, "f1"] > 0.85
    assert rows.loc[5, "lookup_f1"] == 1.0 and rows.loc[5, "purity_mass"] > 0.8 > rows.loc[4, "purity_mass"]




def test_what_only_fits_the_train_split_is_worth_nothing_on_the_test_split(table):
    row = table.table.loc[3]
    assert row["token"] == " w4" and row["token_q"] < 1e-9
    assert (row["token_precision"], row["token_recall"], row["enriched_share"]) == (0, 0, 0)


def test_a_dead_latent_has_a_row_that_claims_nothing(table):
    row = table.table.loc[2]
    assert (row["n_active"], row["density"], row["maximum"], row["tokens"]) == (0, 0, 0, "")
    for name in ("mean", "token_q", "token_precision", "mean_position", "start_lift", "f1", "average_precision",
                 "purity_mass", "purity_top", "entropy"):
        assert np.isnan(row[name]), name
    assert pd.isna(row["token"]) and pd.isna(row["concept"])
    assert row["promoted"].count("|") == gather.SHOWN - 1  # its decoder direction is there all the same


def test_examples_are_of_the_strongest_and_of_the_middle_activation(planted, table):
    for j in (0, 1, 3, 4, 5):
        where, values = planted.latent(j)
        order = values.argsort(descending=True)
        for name, i in (("example", order[0]), ("typical", order[len(order) // 2])):
            place = int(where[i])
            begin, end = planted.span(planted.place(place)[0])
            start, stop = max(begin + 1, place - gather.BEFORE), min(end, place + gather.AFTER + 1)
            words = planted.text(start, stop)
            words[place - start] = f"**{words[place - start]}**"
            assert table.table.loc[j, name] == "".join(words)
    assert table.table.loc[2, "example"] == ""


def test_promoted_tokens_are_those_of_the_index(planted, table):
    for j in range(6):
        up, down = planted.logits(j, gather.SHOWN)
        assert table.table.loc[j, "promoted"] == "|".join(token for token, _ in up)
        assert table.table.loc[j, "suppressed"] == "|".join(token for token, _ in down)


def test_an_index_without_a_split_or_an_unembedding_is_read_as_a_whole(tmp_path):
    ids = torch.tensor([0, 1, 2, 3, 0, 2, 2])
    store = Store(torch.tensor([0.0, 0, 5, 0, 0, 1, 3])[:, None], [4, 3], ids, torch.zeros(7, dtype=torch.bool))
    table = analysis.latent_table(make(store, identity_sae(1), tmp_path / "index"), progress=False)
    row = table.table.loc[0]
    assert table.split == "all" and row["promoted"] == ""
    assert row[["token", "token_precision", "token_recall", "mean"]].tolist() == [" w2", 1, 1, 3]
    assert row["token_lift"] == pytest.approx(5 / 3)
    assert row["token_q"] == pytest.approx(1 / 10 * 3)  # all three of five: one draw of ten; three words were tested


def test_an_sae_of_dead_latents_has_a_table_too(tmp_path):
    index = make(Store(torch.zeros(9, 3), [5, 4]), identity_sae(3), tmp_path / "index")
    table = analysis.latent_table(index, progress=False)
    assert len(table) == 3 and table.table["token"].isna().all() and (table.table["n_active"] == 0).all()
    assert latents(table.filter(alive=False)) == [0, 1, 2]
    assert analysis.enriched_pairs(index).empty and analysis.false_discoveries(index)["pairs"].tolist() == [0, 0, 0]


# -------------------------------------------------------------------------------------------- enriched tokens

def test_enriched_tokens_of_one_latent(planted):
    found = analysis.enriched_tokens(planted, 5)
    train = (~planted.is_bos & ~planted.test).numpy()
    ids, on = planted.ids.numpy(), np.isin(np.arange(planted.n_tokens), planted.latent(5)[0].numpy())
    assert set(found["token"]) == {" w6", " w7"} and found["p"].is_monotonic_increasing
    for row in found.itertuples():
        here = ids == VOCABULARY.index(row.token)
        assert row.n == (on & here & train).sum() and row.of == (here & train).sum()
        assert row.expected == pytest.approx(row.of * (on & train).sum() / train.sum())
        assert row.lift == pytest.approx(row.n / row.expected)
        assert row.p == pytest.approx(stats.hypergeom.sf(row.n - 1, train.sum(), row.of, (on & train).sum()))
        assert row.test_lift == pytest.approx(row.lift, rel=0.3)
    assert len(analysis.enriched_tokens(planted, 5, k=1)) == 1
    assert analysis.enriched_tokens(planted, 2).empty and analysis.enriched_tokens(planted, 4).empty
    everything = analysis.enriched_tokens(planted, 3, split="all")
    assert set(everything["token"]) == {" w4", " w5"}  # either is its token in one of the halves


def test_all_pairs_are_those_of_the_latents_with_the_stricter_correction(planted):
    pairs = analysis.enriched_pairs(planted)
    assert pairs.attrs["n_tests"] == 5 * 11  # live latents times words
    by_latent = {j: set(rows["token"]) for j, rows in pairs.groupby("latent")}
    assert by_latent[0] == {" w3"} and by_latent[5] == {" w6", " w7"} and 4 not in by_latent
    for j in by_latent:
        alone = analysis.enriched_tokens(planted, j).set_index("token")
        mine = pairs[pairs["latent"] == j].set_index("token")
        assert (mine["q"] >= alone.loc[mine.index, "q"]).all()
        assert mine["p"].tolist() == pytest.approx(alone.loc[mine.index, "p"].tolist())


def test_pairs_that_cannot_be_significant_need_not_be_kept(planted):
    found, everything = enrichment.find_enriched(planted), enrichment.Collector(planted)
    everything.least_log_p = -1e-300  # keeps every pair that met more often than by chance
    for block in blocks.blocks(planted):
        everything.add(block)
    every = everything.result()
    assert len(every.q) > len(found.q)
    assert every.q[every.q <= 0.05].tolist() == found.q[found.q <= 0.05].tolist()


def chance(n_latents=40, n_documents=150, seed=2):
    """Latents that are active on a tenth of the tokens, whatever these are."""
    dice = torch.Generator().manual_seed(seed)
    n = 20 * n_documents
    acts = torch.rand(n, n_latents, generator=dice) * (torch.rand(n, n_latents, generator=dice) < 0.1)
    return Store(acts, [20] * n_documents, seed=1)


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    return make(chance(), identity_sae(40), tmp_path_factory.mktemp("noise") / "index")


def test_where_there_is_nothing_to_find_next_to_nothing_is_found(tmp_path):
    store = chance()
    store.acts[:, :10] = torch.where(store.ids[:, None] == torch.arange(1, 11), 1.0, 0.0)  # ten that follow a word
    table = analysis.false_discoveries(make(store, identity_sae(40), tmp_path / "index")).set_index("shuffle")
    assert table.loc["as it is", "pairs"] >= 10
    assert table.loc["everywhere", "pairs"] <= 1 and table.loc["within documents", "pairs"] <= 1
    assert table.loc["everywhere", "share"] == table.loc["everywhere", "pairs"] / table.loc["as it is", "pairs"]


def test_without_correction_much_would_be_found_where_there_is_nothing(noise):
    """What the correction is for: of 440 tests on noise some have p <= 0.05."""
    pairs = [enrichment.pairs_of(block, enrichment.count_tokens(noise)) for block in blocks.blocks(noise)]
    assert sum((np.exp(x.log_p) <= 0.05).sum() for x in pairs) >= 8
    assert len(analysis.enriched_pairs(noise)) <= 1


@pytest.mark.parametrize("how", blocks.SHUFFLES)
def test_a_shuffle_moves_a_latent_and_changes_nothing_else(planted, how):
    for j in (1, 4, 5):
        block = blocks.one_latent(planted, j)
        moved = blocks.shuffled(planted, block, how, np.random.default_rng(0))
        assert len(set(moved.places.tolist())) == len(block.places) and (np.diff(moved.places) > 0).all()
        assert not planted.is_bos.numpy()[moved.places].any()
        assert set(moved.places.tolist()) != set(block.places.tolist())
        if how == "within documents":
            document = planted._places["document"]
            assert document[moved.places].tolist() == document[block.places].tolist()


# ----------------------------------------------------------------------------- positions and sentences

def one_latent(tmp_path, values, lengths, ids, vocabulary=MARKED):
    store = Store(torch.tensor(values, dtype=torch.float32)[:, None], lengths, torch.tensor(ids))
    return make(store, identity_sae(1), tmp_path / "index", vocabulary=vocabulary)


def test_sentences_begin_after_their_ends_and_at_the_beginning(tmp_path):
    #     bos he said . " She ran ? ! 3  | bos ran .\n he
    ids = [0, 1, 2, 3, 6, 4, 9, 5, 10, 7, 0, 9, 8, 1]
    index = one_latent(tmp_path, [0.0] + [1.0] * 13, [10, 4], ids)
    start, end = analysis.sentence_marks(index)
    assert np.flatnonzero(start).tolist() == [1, 5, 9, 11, 13]  # the quotation mark is passed over, so is "!" after "?"
    assert np.flatnonzero(end).tolist() == [3, 7, 8, 12]
    start, end = analysis.sentence_marks(index, "\n")
    assert np.flatnonzero(end).tolist() == [12] and np.flatnonzero(start).tolist() == [1, 11, 13]


def test_lifts_are_counted_by_hand(tmp_path):
    #     bos he said . She ran   | bos he said he
    ids = [0, 1, 2, 3, 4, 9, 0, 1, 2, 1]
    index = one_latent(tmp_path, [0, 2, 0, 2, 0, 0, 0, 0, 2, 0], [6, 4], ids)
    row = analysis.latent_table(index, progress=False).table.loc[0]
    # Two of five are starts in the first document, where it is active twice, and one of three in the second.
    assert row["start_lift"] == pytest.approx(1 / (2 * 2 / 5 + 1 / 3))
    assert row["end_lift"] == pytest.approx(1 / (2 * 1 / 5))
    assert row["mean_position"] == pytest.approx((1 + 3 + 2) / 3)
    away = np.array([-2, -1, 0, 1, 2, -1, 0, 1])
    assert row["position_effect"] == pytest.approx((-2 + 0 + 0) / 3 / away.std())


def test_long_documents_alone_are_no_taste_for_late_positions(tmp_path):
    """Active on every word of the one long document: late in the text, but anywhere in its document."""
    lengths = [4] * 20 + [100]
    values = [0.0] * 80 + [0.0] + [1.0] * 99
    ids = [0, 1, 3, 1] * 20 + [0] + [1] * 99
    index = one_latent(tmp_path, values, lengths, ids)
    row = analysis.latent_table(index, progress=False).table.loc[0]
    everywhere = index._places["position"][~index._places["is_bos"]].mean()
    assert row["mean_position"] > everywhere + 10
    assert row["position_effect"] == pytest.approx(0, abs=1e-9)
    assert row["start_lift"] == pytest.approx(1) and np.isnan(row["end_lift"])
    lifts = analysis.position_preference(index, 0, n_shuffles=20)["lift"]
    assert lifts.tolist() == pytest.approx([1] * len(lifts))


def test_position_preference_finds_the_first_word_and_luck_finds_nothing(planted):
    first = analysis.position_preference(planted, 1, n_shuffles=99)
    assert first[["first", "last"]].values.tolist() == [[1, 1], [2, 2], [3, 4], [5, 8], [9, 11]]
    assert first["n"].tolist() == [60, 0, 0, 0, 0] and first["of"].tolist() == [60, 60, 120, 240, 180]
    assert first["lift"].tolist() == pytest.approx([11, 0, 0, 0, 0])
    assert first.loc[0, "low"] < 1.3 and first.loc[0, "high"] < 3 and first.loc[0, "p"] == 1 / 100
    assert first["q"].max() <= 0.05
    assert analysis.position_preference(planted, 4, n_shuffles=9)["n"].sum() == int(planted.n_active[4])


def test_where_positions_mean_nothing_they_are_seldom_called_a_preference(noise):
    p = np.concatenate([analysis.position_preference(noise, j, n_shuffles=99)["p"] for j in range(40)])
    assert len(p) == 240 and (p <= 0.05).mean() < 0.1 and (p > 0.5).mean() > 0.35


def test_ranges_of_positions_can_be_given(planted):
    table = analysis.position_preference(planted, 1, edges=[1, 6], n_shuffles=9)
    assert table[["first", "last", "n", "of"]].values.tolist() == [[1, 5, 60, 300], [6, 11, 0, 360]]
    assert table["expected"].sum() == pytest.approx(60)


def test_boundary_preference(tmp_path):
    ids = [0, 1, 2, 9, 3, 4, 9, 2, 5] * 30
    values = [0.0, 1, 0, 0, 0, 1, 0, 0, 0] * 30
    index = one_latent(tmp_path, values, [9] * 30, ids)
    table = analysis.boundary_preference(index, 0, n_shuffles=99).set_index("where")
    assert table["n"].to_dict() == {"start": 60, "end": 0, "between": 0}
    assert table.loc["start", "lift"] == pytest.approx(8 / 2)
    assert table.loc["start", "p"] == 1 / 100 and table.loc["start", "high"] < 2


def test_a_dead_latent_prefers_nothing(planted):
    for table in (analysis.position_preference(planted, 2), analysis.boundary_preference(planted, 2)):
        assert table["n"].sum() == 0 and table["lift"].isna().all() and (table["p"] == 1).all()


# ---------------------------------------------------------------------------------- what the labels say

def dense_and_split(index):
    dense = index.tokens(0, index.n_tokens).dense()
    real = ~index.is_bos
    return dense, real & ~index.test, real & index.test


def test_average_precision_is_scikit_learns(planted, labels, concepts, table):
    from sklearn.metrics import average_precision_score

    dense, train, test = dense_and_split(planted)
    dense = (dense * 4).round() / 4 + (dense > 0)  # with ties
    found = analysis.average_precision(planted, concepts, labels)
    assert found["average_precision"].tolist() == pytest.approx(
        table.table["average_precision"].tolist(), nan_ok=True)
    exact, _, _ = dense_and_split(planted)
    for j in (0, 1, 3, 4, 5):
        c = concepts.concepts.index(found.loc[j, "concept"])
        wanted = average_precision_score(labels[test, c], exact[test, j])
        assert found.loc[j, "average_precision"] == pytest.approx(wanted)
        ids = planted.ids
        share = torch.stack([labels[train & (ids == i), c].float().mean() for i in range(len(VOCABULARY))]).nan_to_num()
        assert found.loc[j, "lookup"] == pytest.approx(average_precision_score(labels[test, c], share[ids[test]]))
        assert found.loc[j, "base"] == pytest.approx(float(labels[test, c].float().mean()))
    row = found.loc[5]
    assert row["average_precision"] > 0.8 and row["shuffled"] < 2.5 * row["base"]
    assert found.loc[2].isna().sum() == 5  # the dead one


def test_average_precision_with_ties_by_hand():
    # Row 0: 3 (hit), 2 and 2 (one hit), and one more hit among ten, unlisted. Row 1: nothing listed, 5 of 10 to find.
    row, values = np.array([0, 0, 0, 2]), np.array([3.0, 2, 2, 1])
    found = truth.ranked_precision(row, values, np.array([True, True, False, False]), np.array([3, 5, 0]), 10, 3)
    assert found.tolist() == pytest.approx([(1 * 1 + 1 * 2 / 3 + 1 * 3 / 10) / 3, 0.5, np.nan], nan_ok=True)


def test_purity_is_chosen_on_train_and_measured_on_test(planted, labels, table):
    dense, train, test = dense_and_split(planted)
    for j in (0, 1, 3, 4, 5):
        for name, pure in (("purity_mass", analysis.mass_purity), ("purity_top", analysis.top_k_purity)):
            one = {"features": dense[:, [j]], "labels": labels}
            on_train = pure(one["features"][train], labels[train], min_active=1)
            c = int(on_train.concept[0])
            on_test = pure(one["features"][test], labels[test][:, [c]], min_active=1)
            assert table.table.loc[j, name] == pytest.approx(float(on_test.score[0]), abs=1e-5)


def test_purity_at_the_top_looks_at_the_strongest_only(tmp_path):
    n = 400
    store = Store(torch.zeros(n, 1), [100] * 4, torch.ones(n, dtype=torch.int64))
    labels = (store.position % 100 < 60)[:, None]  # the 59 strongest of a document have it, the weaker 40 have not
    store.acts = (200.0 - store.position)[:, None]
    index = make(store, identity_sae(1), tmp_path / "index")
    concepts = analysis.concept_table(index, labels, ["early"])
    row = analysis.latent_table(index, concepts, labels, progress=False).table.loc[0]
    assert row["purity_top"] == pytest.approx(1.0) and row["purity_mass"] < 0.35


def test_entropy_is_counted_by_hand(tmp_path):
    ids = [0, 1, 2, 3, 0, 1, 2, 3]
    index = one_latent(tmp_path, [0.0, 1, 1, 2, 0, 0, 0, 0], [4, 4], ids)
    labels = torch.zeros(8, 2, dtype=torch.bool)
    labels[1], labels[2] = torch.tensor([True, True]), torch.tensor([True, False])
    labels[5] = True
    concepts = analysis.concept_table(index, labels, ["a", "b"])
    row = analysis.latent_table(index, concepts, labels, progress=False).table.loc[0]
    # b is rarer than a. So of four units of activation one falls on b, one on a, two on neither.
    assert row["entropy"] == pytest.approx(1.5)
    assert row["entropy"] == pytest.approx(float(bases.concept_entropy(index, labels)[0]))
    assert truth.rarest_concept(labels.numpy()).tolist() == bases.rarest_concept(labels).tolist()


def test_best_concepts_are_those_of_the_concept_table(concepts):
    best = analysis.best_concepts(concepts, {"pair": "words"})
    for j in range(6):
        wanted = concepts.best(j)
        if wanted is None:
            assert pd.isna(best.loc[j, "concept"]) and np.isnan(best.loc[j, "f1"])
            continue
        assert best.loc[j, "concept"] == wanted["name"]
        assert best.loc[j, "group"] == ("words" if wanted["name"] == "pair" else "")
        for name in ("precision", "recall", "f1", "lookup_f1"):
            assert best.loc[j, name] == pytest.approx(wanted[name])


# ------------------------------------------------------------------------------------- the table as one uses it

def latents(table):
    return table.table["latent"].tolist()


def test_columns_come_as_promised(table, planted, concepts):
    wanted = ("latent n_active density maximum mean token token_precision token_recall token_lift token_q tokens "
              "n_enriched enriched_share example typical mean_position position_effect start_lift end_lift "
              "promoted suppressed")
    about = ("concept group precision recall f1 average_precision lookup_f1 purity_mass purity_top entropy")
    assert list(table.table) == f"{wanted} {about}".split()
    assert list(analysis.latent_table(planted, progress=False).table) == wanted.split()
    bare = list(analysis.latent_table(planted, concepts, progress=False).table)
    assert bare == [*wanted.split(), "concept", "precision", "recall", "f1", "lookup_f1"]


def test_filters(table):
    assert latents(table.filter(alive=False)) == [2]
    assert latents(table.filter(concept="pair", f1=(0.8, None))) == [5]
    assert latents(table.filter(token=" w3")) == [0] and latents(table.filter(token=[" w3", " w4"])) == [0, 3]
    assert latents(table.filter(tokens=" w7")) == [5] and latents(table.filter(latent=[1, 4])) == [1, 4]
    assert latents(table.filter(latent=(None, 1))) == [0, 1]
    assert latents(table.filter(n_active=lambda n: n == 0)) == [2]
    assert latents(table.filter(group="words").filter(group="words")) == [5]
    assert len(table) == 6  # and the table is what it was
    assert latents(table.filter(mean=(None, 10))) == [0, 1, 3, 4, 5]  # the dead one has no mean


def test_a_token_is_not_found_inside_another(table):
    some = table.table.assign(tokens=[" w1", " w11| w2", "", "", "", ""])
    other = analysis.LatentTable(some, 0, 0.05, "test")
    assert latents(other.filter(tokens=" w1")) == [0] and latents(other.filter(tokens=" w2")) == [1]


def test_sorting_puts_what_has_no_value_last(table):
    assert latents(table.sort("mean_position"))[-1] == 2 and latents(table.sort("mean_position", False))[0] == 1
    by_token = table.sort("n_enriched")
    assert latents(by_token)[:2] == [5, 0]
    assert latents(table.sort("latent")) == [5, 4, 3, 2, 1, 0]


def test_an_empty_answer_says_why(table):
    empty = table.filter(alive=True, concept="pair", density=(0.9, None))
    assert len(empty) == 0 and str(empty).count("\n") == 1
    assert "No latent is left: density at least 0.9 is met by none of the 1 left by alive True and concept 'pair' " \
           "(0 of 6 alone)" in empty.empty_reason
    assert empty.empty_reason in empty._repr_html_()
    assert "density at least 0.9 is met by none" in table.filter(density=(0.9, None)).empty_reason
    assert empty.filter(alive=True).empty_reason == empty.empty_reason
    assert table.filter(alive=True).empty_reason == ""


@pytest.mark.parametrize("call, says", [
    (lambda t: t.filter(precisio=(0.5, 1)), "unknown column 'precisio'. Did you mean 'precision'"),
    (lambda t: t.sort("f2"), "unknown column 'f2'.*'f1'"),
    (lambda t: t.filter(concept="pear"), "unknown concept 'pear'. Did you mean 'pair'"),
    (lambda t: t.filter(token="w3"), "unknown token 'w3'.*' w3'.*Mind the space"),
    (lambda t: t.filter(tokens=["w3"]), "unknown token 'w3'"),
    (lambda t: t.filter(concept=3), "concept is text"),
    (lambda t: t.filter(concept=(0.1, None)), "concept is text: a pair is .*give a list"),
    (lambda t: t.filter(f1="high"), "f1 is a number"),
    (lambda t: t.filter(f1=(0.1, 0.2, 0.3)), "a pair is"),
    (lambda t: t.filter(f1=(0.9, 0.1)), "the other way round"),
    (lambda t: t.filter(f1=lambda x: x), "one True or False for each of the 6"),
    (lambda t: t.export("table.xlsx"), "ends in .csv or .json, got 'table.xlsx'"),
    (lambda t: t.export("nowhere/table.csv"), "no folder nowhere"),
])
def test_bad_questions_are_named(table, call, says):
    with pytest.raises(InputError, match=says):
        call(table)


def test_a_missing_concept_column_says_how_to_get_it(planted):
    with pytest.raises(InputError, match="unknown column 'f1'.*given concepts and labels"):
        analysis.latent_table(planted, progress=False).sort("f1")


def test_export_is_read_back(table, tmp_path):
    csv = pd.read_csv(table.export(tmp_path / "table.csv"), keep_default_na=False, na_values={"mean": [""]})
    assert csv["token"].tolist() == [token for token in table.table["token"].fillna("")]
    assert csv["mean"].tolist() == pytest.approx(table.table["mean"].tolist(), nan_ok=True)
    rows = json.loads(table.export(tmp_path / "table.json").read_text(encoding="utf-8"))
    assert [row["latent"] for row in rows] == list(range(6)) and rows[2]["mean"] is None and rows[2]["token"] is None
    assert rows[5]["tokens"] == table.table["tokens"][5] and rows[0]["n_active"] == int(table.table["n_active"][0])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["table.csv", "table.json"]
    empty = table.filter(density=(0.9, None))
    assert json.loads(empty.export(tmp_path / "table.json").read_text(encoding="utf-8")) == []


def test_a_failed_export_leaves_the_older_file(table, tmp_path, monkeypatch):
    path = table.export(tmp_path / "table.csv")
    before = path.read_bytes()

    def full(*_):
        raise OSError("no")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError):
        table.sort("density").export(path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["table.csv"]


# ---------------------------------------------------------------------------------------------- bad input

@pytest.mark.parametrize("call, says", [
    (lambda i, c, x: analysis.latent_table(i, labels=x), "labels belong to concepts"),
    (lambda i, c, x: analysis.latent_table(i, groups={}), "groups belong to concepts"),
    (lambda i, c, x: analysis.latent_table(i, c, x[:-1]), r"torch.bool tensor of shape \[720, 3\].*\[719, 3\]"),
    (lambda i, c, x: analysis.latent_table(i, c, x.float()), "got torch.float32"),
    (lambda i, c, x: analysis.latent_table(i, c, ~x), "not the labels that the concept table was made from"),
    (lambda i, c, x: analysis.latent_table(i, c._replace(train=c.train._replace(hits=c.train.hits[:3]))),
     "table of the index's 6 latents, got one of 3"),
    (lambda i, c, x: analysis.latent_table(i, alpha=5), "alpha: expected a number between 0 and 1"),
    (lambda i, c, x: analysis.latent_table(i, ends=()), "ends: expected one or more marks"),
    (lambda i, c, x: analysis.enriched_tokens(i, 6), "latent: expected a whole number from 0 to 5"),
    (lambda i, c, x: analysis.enriched_tokens(i, 0, k=0), "k must be"),
    (lambda i, c, x: analysis.enriched_tokens(i, 0, split="half"), "'train' or 'all', got 'half'"),
    (lambda i, c, x: analysis.enriched_tokens(i, 0, shuffle="everywhr"), "Did you mean 'everywhere'"),
    (lambda i, c, x: analysis.position_preference(i, 0, edges=[5, 2]), "edges: expected ascending positions"),
    (lambda i, c, x: analysis.position_preference(i, -1), "got -1"),
    (lambda i, c, x: analysis.boundary_preference(i, 0, n_shuffles=0), "n_shuffles must be"),
])
def test_bad_input_is_named(planted, concepts, labels, call, says):
    with pytest.raises(InputError, match=says):
        call(planted, concepts, labels)


def test_without_a_vocabulary_the_message_says_what_to_set(tmp_path):
    store, sae = random_world()
    index = make(store, sae, tmp_path / "bare", vocabulary=None)
    with pytest.raises(InputError, match="built without a vocabulary"):
        analysis.latent_table(index, progress=False)
    index.vocabulary = VOCABULARY
    assert len(analysis.latent_table(index, progress=False)) == index.n_latents


def test_position_ranges_double(planted):
    assert places.position_edges(planted) == [1, 2, 3, 5, 9]
