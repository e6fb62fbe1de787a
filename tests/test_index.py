"""The feature index gives what a dense computation gives, and says so when a file of it is not what it was."""

import errno
import itertools
import json
import os
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hub_cache import tiny_model, tiny_sae, tiny_target
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from solutions import analysis
from solutions.analysis import FeatureIndex, build_index
from solutions.analysis.index import build, layout, reports, sparse
from solutions.data import DamagedFile, str_tokens, tokenize
from solutions.errors import InputError
from solutions.models import extract
from solutions.models.harvest import harvest
from solutions.sae import decode, encode, explained_variance

HOOK = "blocks.0.hook_resid_pre"
VOCABULARY = ["<bos>", *(f" w{i}" for i in range(1, 12))]


class Store:
    """What the index needs of an activation store, in memory: documents of given lengths, BOS first in each."""

    def __init__(self, acts, lengths, ids=None, test=None, seed=0):
        self.acts, n = acts, sum(lengths)
        assert len(acts) == n
        self.hooks, self.n_tokens, self.n_documents = [HOOK], n, len(lengths)
        lengths = torch.tensor(lengths)
        starts = lengths.cumsum(0) - lengths
        self.document = torch.arange(len(lengths)).repeat_interleave(lengths)
        self.position = torch.arange(n) - starts[self.document]
        self.is_bos = self.position == 0
        self.n_content = int((~self.is_bos).sum())
        generator = torch.Generator().manual_seed(seed)
        self.ids = torch.randint(1, len(VOCABULARY), (n,), generator=generator) if ids is None else ids
        self.ids = torch.where(self.is_bos, 0, self.ids)
        self.test = (self.document % 2 == 1) if test is None else test
        self.manifest = {"model": "made up", "sum": float(acts.double().sum()), "n": n}

    def width(self, hook):
        return self.acts.shape[1]

    def batches(self, hook, batch_size):
        for place in (~self.is_bos).nonzero().flatten().split(batch_size):
            yield SimpleNamespace(acts=self.acts[place], index=place).__dict__.values()


class Relu(nn.Module):
    """An SAE of the plainest kind: latents are relu(x W_enc), the reconstruction adds up decoder rows."""

    def __init__(self, W_enc, W_dec, gain=1.0):
        super().__init__()
        self.W_enc, self.W_dec = nn.Parameter(W_enc), nn.Parameter(W_dec)
        self.b_dec = nn.Parameter(torch.full((W_dec.shape[1],), 0.1))
        self.gain, self.most = gain, 0
        self.cfg = SimpleNamespace(d_in=W_enc.shape[0], d_sae=W_enc.shape[1], architecture="relu")

    def encode(self, x):
        self.most = max(self.most, len(x))
        return torch.relu(x @ self.W_enc)

    def decode(self, features):
        return (features @ self.W_dec + self.b_dec) * self.gain


def identity_sae(n, d_out=None):
    """Latents are the activations' positive parts, so a test can write them down."""
    return Relu(torch.eye(n), torch.eye(n))


def random_world(seed=0, n_latents=40, d=8, lengths=(9, 1, 12, 7, 3, 15, 8, 2, 11, 10)):
    """A store and an SAE with random weights and a threshold, so that about a fifth of the latents is active."""
    generator = torch.Generator().manual_seed(seed)
    acts = torch.randn(sum(lengths), d, generator=generator)
    store = Store(acts, list(lengths), seed=seed)
    store.acts[store.is_bos] = 1000.0
    sae = Relu(torch.randn(d, n_latents, generator=generator), torch.randn(n_latents, d, generator=generator))
    sae.encode = lambda x: torch.relu(x @ sae.W_enc - 2.0)
    return store, sae


def make(store, sae, path, **options):
    return build_index(store, sae, HOOK, path, **{"vocabulary": VOCABULARY, "progress": False, **options})


def dense_of(store, sae):
    """[n_tokens, latents], with BOS at zero."""
    return encode(sae, store.acts) * ~store.is_bos[:, None]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    store, sae = random_world()
    unembed = torch.randn(8, len(VOCABULARY), generator=torch.Generator().manual_seed(1))
    index = make(store, sae, tmp_path_factory.mktemp("index") / "index", unembed=unembed, batch_tokens=7)
    return SimpleNamespace(store=store, sae=sae, index=index, dense=dense_of(store, sae), unembed=unembed)


# ---------------------------------------------------------------------- the same as the dense computation

@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=8).filter(lambda x: max(x) > 1),
    n_latents=st.integers(1, 9), share=st.sampled_from([0.0, 0.1, 0.5, 1.0]), batch=st.integers(1, 12),
    chunk=st.integers(1, 20), seed=st.integers(0, 9),
)
@settings(max_examples=40, deadline=None)
def test_an_index_equals_the_dense_activations(tmp_path_factory, lengths, n_latents, share, batch, chunk, seed):
    generator = torch.Generator().manual_seed(seed)
    shape = (sum(lengths), n_latents)
    acts = torch.rand(shape, generator=generator) * (torch.rand(shape, generator=generator) < share)
    store, sae = Store(acts, lengths), identity_sae(n_latents)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "CHUNK", chunk)  # several chunks in the transposition
        index = make(store, sae, tmp_path_factory.mktemp("any") / "index", batch_tokens=batch)
    dense = dense_of(store, sae)
    assert torch.equal(index.tokens(0, store.n_tokens).dense(), dense)
    assert index.nnz == int((dense > 0).sum())
    for j in range(n_latents):
        where, values = index.latent(j)
        assert torch.equal(where, (dense[:, j] > 0).nonzero().flatten())
        assert torch.equal(values, dense[where, j])
    for i in range(store.n_tokens):
        latents, values = index.token(i)
        assert torch.equal(latents, (dense[i] > 0).nonzero().flatten())
        assert torch.equal(values, dense[i][latents])
    assert torch.equal(index.maximum(), dense.amax(0))
    assert torch.allclose(index.density(), analysis.density(dense[~store.is_bos]))
    x_hat = sae.decode(dense)
    wanted = torch.where(store.is_bos, 0.0, (store.acts - x_hat).square().sum(1))
    assert torch.allclose(index.error, wanted, atol=1e-5)


def test_a_harvested_store_and_a_saelens_sae_give_what_extracting_and_encoding_gives(tmp_path):
    model, target = tiny_model(), tiny_target()
    texts = ["the cat sat on the mat", "a dog and a cat", "on the mat sat the dog again"]
    store = harvest(model, texts, target.hook, tmp_path / "store", progress=False, test_share=0.5)
    index = build_index(store, tiny_sae(), target.hook, tmp_path / "index", progress=False,
                        vocabulary=str_tokens(model, torch.arange(model.cfg.d_vocab)), unembed=model.W_U)
    tokens = tokenize(model, texts)
    acts = extract(model, tokens, target.hook)[target.hook][tokens.content]
    features, real = encode(tiny_sae(), acts), ~index.is_bos
    assert torch.allclose(index.tokens(0, len(store)).dense()[real], features, atol=1e-4)
    assert index.nnz == int((features > 0).sum()) > 0
    x_hat = decode(tiny_sae(), features)
    assert index.explained_variance == pytest.approx(explained_variance(acts, x_hat), abs=1e-4)
    assert "".join(index.text(1, store.documents["length"][0])) == texts[0]
    assert torch.equal(FeatureIndex(tmp_path / "index", store).test, store.test)
    assert index.page(int(index.n_active.argmax())).positive


def test_a_question_about_a_latent_that_is_everywhere_is_answered_from_a_sample(tmp_path, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    acts = (torch.rand(4000, 3, generator=generator) < torch.tensor([1.0, 0.5, 0.1])).float()
    index = make(Store(acts, [4000]), identity_sae(3), tmp_path / "index")
    exact, words = index.cofiring(0), index.search_token(1)
    monkeypatch.setattr(reports, "MOST_ENTRIES", 2000)
    table = index.cofiring(0)
    assert table["latent"].tolist() == exact["latent"].tolist() == [1, 2]
    assert table["n"].tolist() == pytest.approx(exact["n"].tolist(), rel=0.15)
    assert table["n"].tolist() != exact["n"].tolist()
    monkeypatch.setattr(reports, "MOST_ENTRIES", 300)
    assert index.search_token(1)["recall"].tolist() == pytest.approx(words["recall"].tolist(), rel=0.4)


def test_the_page_of_a_latent_is_that_of_its_dense_activations(world):
    store, index = world.store, world.index
    longest = int(store.position.max()) + 1
    activations = torch.zeros(store.n_documents, longest)
    mask = torch.zeros(store.n_documents, longest, dtype=torch.bool)
    texts = [[] for _ in range(store.n_documents)]
    for i in range(store.n_tokens):
        activations[store.document[i], store.position[i]] = 1000.0
        mask[store.document[i], store.position[i]] = not store.is_bos[i]
        texts[store.document[i]].append(VOCABULARY[store.ids[i]])
    seen = 0
    for j in range(index.n_latents):
        activations[store.document, store.position] = world.dense[:, j]
        logits = analysis.logit_effects(world.sae.W_dec[j].detach(), world.unembed, VOCABULARY)
        wanted = analysis.feature_page(activations, mask, texts, j, logits=logits, seed=3)
        page = index.page(j, seed=3)
        for sign in ("positive", "negative"):
            assert [t for t, _ in getattr(page, sign)] == [t for t, _ in getattr(wanted, sign)]
            found, other = ([v for _, v in getattr(p, sign)] for p in (page, wanted))
            assert found == pytest.approx(other, abs=1e-4)
        neighbours = analysis.nearest_latents(world.sae, j, 10)
        assert [n for n, _ in page.neighbours] == neighbours["latent"].tolist()
        assert [c for _, c in page.neighbours] == pytest.approx(neighbours["cosine"].tolist(), abs=1e-5)
        same = {"positive": [], "negative": [], "neighbours": (), "companions": ()}
        assert page._replace(**same) == wanted._replace(**same)
        seen += sum(len(interval.examples) for interval in page.intervals)
    assert seen > 100


def test_histogram_and_intervals_are_those_of_the_page(world):
    for j in range(world.index.n_latents):
        page = world.index.page(j)
        counts, edges = world.index.histogram(j)
        assert counts.int().tolist() == (page.counts or [0] * 20)
        if page.n_active:
            assert edges.tolist() == page.edges
        bare = [interval._replace(examples=[]) for interval in page.intervals]
        assert world.index.intervals(j) == bare


def test_bos_never_shows_however_large_it_is(world):
    assert world.store.acts[world.store.is_bos].min() == 1000.0
    assert not world.index.tokens(0, world.store.n_tokens).dense()[world.store.is_bos].any()
    assert world.index.maximum().max() < 100
    assert (world.index.error[world.store.is_bos] == 0).all()
    shown = [e.tokens for j in range(40) for e in world.index.examples(j)]
    assert shown and "<bos>" not in itertools.chain(*shown)


# ------------------------------------------------------------------------------------------- examples

def one_latent(tmp_path, values, lengths, ids):
    values = torch.tensor(values)[:, None]
    return make(Store(values, lengths, torch.tensor(ids)), identity_sae(1), tmp_path / "index")


def test_examples_do_not_overlap_and_do_not_repeat(tmp_path):
    ids = [0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5, 6, 0, 7, 8, 9]
    values = [0.0, 0, 9, 8, 0, 0, 5, 0, 0, 7, 0, 0, 0, 0, 0, 0, 6, 0]
    index = one_latent(tmp_path, values, [7, 7, 4], ids)
    found = index.examples(0, k=9, before=1, after=1)
    # 9 wins; 8 overlaps it; 7 has 9's words; 6 and 5 stand alone
    assert [(e.activations[e.peak], e.tokens) for e in found] == [
        (9.0, [" w1", " w2", " w3"]), (6.0, [" w7", " w8", " w9"]), (5.0, [" w5", " w6"])]
    assert found[0].activations == [0.0, 9.0, 8.0]
    assert (found[0].text, found[0].position, found[1].text, found[1].position) == (0, 2, 2, 2)


def test_examples_of_an_interval_lie_in_it(world):
    checked = 0
    for j in range(world.index.n_latents):
        for interval in world.index.intervals(j, 3):
            examples = world.index.examples(j, 4, interval=interval, before=2, after=1)
            places = [(e.text, e.position) for e in examples]
            assert bool(examples) == bool(interval.n_tokens) and len(set(places)) == len(places)
            lowest = interval.low == float(world.index.latent(j)[1].min())
            for e in examples:
                value = e.activations[e.peak]
                assert interval.low < value <= interval.high or (lowest and value == interval.low)
                checked += 1
    assert checked > 100


def test_a_latent_that_fires_on_one_phrase_only_has_one_example(tmp_path):
    n = 30
    index = one_latent(tmp_path, [0.0, 1.0] * n, [2] * n, [0, 3] * n)
    assert [e.tokens for e in index.examples(0, 5)] == [[" w3"]]
    assert len(index.page(0).intervals[0].examples) == 1


# ------------------------------------------------------------------------------------------- relations

def test_cofiring_counts_tokens_with_both(world):
    active = (world.dense > 0).double()
    both, n = active.T @ active, active.sum(0)
    for j in range(world.index.n_latents):
        table = world.index.cofiring(j, 40)
        others = {k for k in range(40) if k != j and both[j, k] > 0}
        assert set(table["latent"]) == others
        for row in table.itertuples():
            k = row.latent
            assert row.n == both[j, k]
            assert row.jaccard == pytest.approx(float(both[j, k] / (n[j] + n[k] - both[j, k])))
            assert row.lift == pytest.approx(float(both[j, k] * world.store.n_content / (n[j] * n[k])))
        assert table["jaccard"].is_monotonic_decreasing
        assert world.index.page(j).companions == list(
            zip(table["latent"][:10], table["jaccard"][:10], strict=True))


def test_nearest_latents_by_cosine():
    sae = Relu(torch.eye(4), torch.tensor([[1.0, 0, 0, 0], [2, 0.1, 0, 0], [0, 3, 0, 0], [-1, 0, 0, 0]]))
    table = analysis.nearest_latents(sae, 0, 3)
    assert table["latent"].tolist() == [1, 2, 3]
    assert table["cosine"].tolist() == pytest.approx([2 / 4.01**0.5, 0.0, -1.0])


# ------------------------------------------------------------------------------------------- questions

ASKED = torch.tensor([  # documents "bos 1 2 3" and "bos 2 2"
    [0.0, 0, 0], [4, 0, 0], [0, 1, 0], [0, 0, 2], [0, 0, 0], [0, 3, 0], [2, 4, 0]])


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    store = Store(ASKED, [4, 3], torch.tensor([0, 1, 2, 3, 0, 2, 2]))
    return make(store, identity_sae(3), tmp_path_factory.mktemp("asked") / "index")


def test_find_gives_the_places_of_tokens_and_sequences(asked):
    assert asked.find(" w2").tolist() == asked.find(2).tolist() == [2, 5, 6]
    assert asked.find([2, 2]).tolist() == [5]
    assert asked.find([3, 0]).tolist() == []  # the second stands in another document
    assert asked.find([2, 3]).tolist() == [2]
    with pytest.raises(InputError, match=r"unknown token 'w2'.*' w2'"):
        asked.find("w2")


def test_search_token_ranks_detectors_of_the_token(asked):
    table = asked.search_token(" w2")
    rows = list(table.itertuples(index=False, name=None))
    assert rows[0] == (1, 1.0, 1.0, 1.0, pytest.approx(8 / 3))
    assert rows[1] == (0, 0.5, pytest.approx(1 / 3), pytest.approx(0.4), 2.0)
    assert len(rows) == 2


def test_top_of_token_and_of_text(asked):
    assert asked.top_of_token(6)[["latent", "activation"]].values.tolist() == [[1, 4.0], [0, 2.0]]
    table = asked.top_of_text(1, by="activation")
    assert table["latent"].tolist() == [1, 0]
    assert table["token"].tolist() == [2, 2]
    assert table["n_active"].tolist() == [2, 1]
    assert table["of_maximum"].tolist() == [1.0, 0.5]
    assert table["density"].tolist() == pytest.approx([3 / 5, 2 / 5])
    assert table["surprise"].tolist() == pytest.approx([-np.log2(3 / 5), -0.5 * np.log2(2 / 5)])


def test_a_text_from_outside_counts_as_one_of_the_index(asked):
    pd.testing.assert_frame_equal(asked.top_of_text(ASKED[4:]), asked.top_of_text(1))


def test_surprise_prefers_the_rare_latent(asked):
    features = torch.tensor([[0.0, 4, 2]])  # both at their maximum; latent 2 is the rarer
    assert asked.top_of_text(features, by="activation")["latent"].tolist() == [1, 2]
    assert asked.top_of_text(features)["latent"].tolist() == [2, 1]


def test_compare_tells_two_texts_apart(asked):
    rows = asked.compare(0, 1).itertuples(index=False, name=None)
    assert list(rows) == [(2, 2.0, 0.0, 2.0, 1.0), (1, 1.0, 4.0, -3.0, -0.75), (0, 4.0, 2.0, 2.0, 0.5)]


# ----------------------------------------------------------------------------- the reconstruction error

def test_errors_are_shares_of_one_whole(world):
    index, store = world.index, world.store
    table = index.error_by_token(k=100)
    assert table["share_of_error"].sum() == pytest.approx(1.0, rel=1e-4)
    assert table["share_of_tokens"].sum() == pytest.approx(1.0)
    row = table.iloc[0]
    here = (store.ids == row["id"]) & ~store.is_bos
    assert row["n"] == int(here.sum())
    assert row["mean_error"] == pytest.approx(float(index.error[here].mean()), rel=1e-4)
    norm = store.acts[here].square().sum()
    assert row["relative"] == pytest.approx(float(index.error[here].sum() / norm), rel=1e-4)
    assert index.error_by_token(k=100, least=6)["n"].min() >= 6


def test_worst_tokens_come_first(world):
    table = world.index.worst_tokens(5)
    order = world.index.error.argsort(descending=True)[:5]
    assert table["place"].tolist() == order.tolist()
    assert table["error"].tolist() == pytest.approx(world.index.error[order].tolist())
    assert all(row.token in row.context and "<bos>" not in row.context for row in table.itertuples())


def test_explained_variance_is_the_one_of_the_sae_room(world):
    real = ~world.store.is_bos
    x = world.store.acts[real]
    x_hat = world.sae.decode(world.dense[real]).detach()
    assert world.index.explained_variance == pytest.approx(explained_variance(x, x_hat), rel=1e-5)


def test_an_sae_that_rescales_its_output_is_decoded_by_its_own_decode(tmp_path):
    acts = torch.rand(9, 3, generator=torch.Generator().manual_seed(0))
    store, sae = Store(acts, [9]), Relu(torch.eye(3), torch.eye(3), gain=2.0)
    index = make(store, sae, tmp_path / "index")
    wanted = (acts[1:] - 2 * (acts[1:] + 0.1)).square().sum(1)
    assert torch.allclose(index.error[1:], wanted, atol=1e-5)


@pytest.mark.parametrize("rescales", [False, True])
def test_a_topk_sae_is_read_by_its_largest_entries_unless_it_does_more_than_that(rescales):
    from sae_lens import TopKSAE, TopKSAEConfig

    torch.manual_seed(0)
    sae = TopKSAE(TopKSAEConfig(d_in=8, d_sae=64, k=4, rescale_acts_by_decoder_norm=rescales))
    for parameter in sae.parameters():
        parameter.data = torch.randn_like(parameter)
    x = torch.randn(50, 8)
    with torch.no_grad():
        read = sparse.quickest_encoder(sae, x)
        assert torch.allclose(read(x).dense(50, 64), encode(sae, x), atol=1e-5)
    assert (read.__name__ == "top_k") is not rescales


# ------------------------------------------------------------------------------------------- concepts

@pytest.fixture(scope="module")
def labels(world):
    drawn = torch.rand(world.store.n_tokens, 5, generator=torch.Generator().manual_seed(5))
    labels = drawn < torch.tensor([0.5, 0.3, 0.2, 0.1, 0.0])
    labels[:, 1] = world.dense[:, 3] > 0  # latent 3 is this concept
    return labels


def test_concept_scores_are_those_of_the_dense_activations(world, labels, monkeypatch):
    from solutions.analysis.index import concepts

    monkeypatch.setattr(concepts, "AT_ONCE", 150)  # a few latents and two concepts at a time
    table = analysis.concept_table(world.index, labels, list("abcde"))
    real = ~world.store.is_bos
    for split, scores in ((real & ~world.store.test, table.train), (real & world.store.test, table.test)):
        for c in range(5):
            wanted = analysis.concept_scores(world.dense[split], labels[split, c]).sort_values("latent")
            for name in ("precision", "recall", "f1"):
                assert getattr(scores, name)[:, c].tolist() == pytest.approx(wanted[name].tolist())
    best = table.best(3)
    assert (best["name"], best["precision"], best["recall"], best["f1"]) == ("b", 1.0, 1.0, 1.0)
    assert world.index.page(3, concepts=table).concept == best
    assert best["lookup_f1"] == pytest.approx(table.lookup.f1[1])
    rows = table.table().set_index("concept")
    assert rows.loc["b", "latent"] == 3 and rows.loc["b", "f1"] == 1.0
    assert "e" not in rows.index  # it never holds
    assert table.latents_for("b", 1)["latent"].tolist() == [3]


@given(seed=st.integers(0, 200), n=st.integers(2, 40))
@settings(max_examples=60, deadline=None)
def test_no_set_of_tokens_beats_the_lookup_baseline_on_the_train_split(seed, n):
    dice = np.random.default_rng(seed)
    ids, holds = dice.integers(0, 5, n), dice.random((n, 1)) < dice.random()
    every = np.ones(n, bool)
    scores, size = analysis.token_lookup(ids, holds, every, every)

    def f1(chosen):
        says = np.isin(ids, chosen)
        return 2 * (says & holds[:, 0]).sum() / max(1, says.sum() + holds.sum())

    sets = itertools.chain.from_iterable(itertools.combinations(range(5), k) for k in range(6))
    assert float(scores.f1[0]) == pytest.approx(max(f1(chosen) for chosen in sets))
    assert size[0] <= 5


def test_the_lookup_baseline_is_scored_on_text_it_has_not_seen():
    ids = np.array([1, 1, 2, 1, 2, 2])
    holds = np.array([[1], [1], [0], [0], [1], [1]], bool)
    train = np.array([1, 1, 1, 0, 0, 0], bool)
    scores, _ = analysis.token_lookup(ids, holds, train, ~train)  # token 1 on train; on test it is wrong
    assert (scores.hits[0], scores.fired[0], scores.wanted[0]) == (0, 1, 2)


def test_labels_of_texts_are_laid_on_the_places(asked):
    ids = torch.tensor([[0, 1, 2, 3], [0, 2, 2, 0]])
    mask = torch.tensor([[True] * 4, [True] * 3 + [False]])
    labels = torch.arange(8).view(2, 4, 1) % 3 == 1
    world = SimpleNamespace(tokens=SimpleNamespace(ids=ids, mask=mask), labels=labels)
    assert analysis.place_labels(asked, world).flatten().tolist() == labels.flatten()[:7].tolist()
    ids[0, 1] = 9
    with pytest.raises(InputError, match="other texts.*not the same ones"):
        analysis.place_labels(asked, world)


# ------------------------------------------------------------------------- files: whole, or named as damaged

def test_any_safetensors_reader_opens_the_files(world):
    by_token = load_file(world.index.path / "by_token.safetensors")
    rows = world.index.tokens(0, world.store.n_tokens)
    assert torch.equal(by_token["starts"], rows.starts)
    assert torch.equal(by_token["latents"].long(), rows.latents)
    assert torch.equal(by_token["values"], rows.values)
    assert by_token["latents"].dtype == torch.int32
    places = load_file(world.index.path / "places.safetensors")
    assert torch.equal(places["is_bos"], world.store.is_bos)
    assert set(load_file(world.index.path / "decoder.safetensors")) >= {"neighbours", "positive_effect"}


@pytest.fixture
def small(tmp_path):
    store, sae = random_world(seed=1)
    return SimpleNamespace(store=store, sae=sae, path=tmp_path / "index", index=make(store, sae, tmp_path / "index"))


FILES = ["by_token.safetensors", "by_latent.safetensors", "places.safetensors", "decoder.safetensors",
         "vocabulary.json"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("at", [0, 0.5, -1])
def test_a_flipped_bit_is_named(small, name, at):
    data = bytearray((small.path / name).read_bytes())
    data[int(at * len(data)) if at >= 0 else -1] ^= 1
    (small.path / name).write_bytes(data)
    with pytest.raises(DamagedFile, match=f"{name}.*damaged.*overwrite=True"):
        FeatureIndex(small.path)


@pytest.mark.parametrize("name", FILES)
def test_a_cut_off_and_a_missing_file_are_named_even_without_a_checksum(small, name):
    data = (small.path / name).read_bytes()
    (small.path / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(DamagedFile, match=f"{name}.*has {len(data) // 2} bytes; expected {len(data)}"):
        FeatureIndex(small.path, verify=False)
    (small.path / name).unlink()
    with pytest.raises(DamagedFile, match=f"{name}.*is missing"):
        FeatureIndex(small.path, verify=False)


@pytest.mark.parametrize("garble", [
    lambda text: text.replace('"nnz": ', '"nnz": 1'), lambda text: text[:-9], lambda text: "[]",
    lambda text: text.replace('"checksum"', '"checksun"'),
])
def test_an_altered_manifest_is_named(small, garble):
    manifest = small.path / "manifest.json"
    manifest.write_text(garble(manifest.read_text()))
    with pytest.raises(DamagedFile, match="manifest.json"):
        FeatureIndex(small.path)


def test_a_header_that_is_none_is_named_without_a_checksum(small):
    name = "by_token.safetensors"
    data = bytearray((small.path / name).read_bytes())
    data[8:20] = b"x" * 12
    (small.path / name).write_bytes(data)
    with pytest.raises(DamagedFile, match=f"{name}.*is damaged"):
        FeatureIndex(small.path, verify=False)


def test_another_version_and_no_index_are_told_apart(small, tmp_path):
    manifest = json.loads((small.path / "manifest.json").read_text())
    (small.path / "manifest.json").write_text(json.dumps({**manifest, "version": 99}))
    with pytest.raises(InputError, match="version 99; expected.*version 1"):
        FeatureIndex(small.path)
    with pytest.raises(InputError, match="no feature index"):
        FeatureIndex(tmp_path / "elsewhere")


# ------------------------------------------------------------------------------- what an index belongs to

def test_an_index_knows_its_store_and_its_sae(small):
    FeatureIndex(small.path, small.store).check_sae(small.sae)
    other_store, other_sae = random_world(seed=2)
    with pytest.raises(InputError, match="another store .checksum"):
        FeatureIndex(small.path, other_store)
    with pytest.raises(InputError, match="another SAE .checksum"):
        small.index.check_sae(other_sae)
    with pytest.raises(InputError, match="another SAE.*d_sae 40 instead of 3"):
        small.index.check_sae(identity_sae(3))


def test_a_second_build_opens_what_is_there_and_refuses_what_is_another(small):
    before = (small.path / "by_token.safetensors").stat().st_mtime_ns
    make(small.store, small.sae, small.path)
    assert (small.path / "by_token.safetensors").stat().st_mtime_ns == before
    other_store, other_sae = random_world(seed=2)
    with pytest.raises(InputError, match="another SAE"):
        make(small.store, other_sae, small.path)
    with pytest.raises(InputError, match="another store"):
        make(other_store, small.sae, small.path)
    with pytest.raises(InputError, match="another vocabulary"):
        make(small.store, small.sae, small.path, vocabulary=[*VOCABULARY, "more"])
    index = make(other_store, other_sae, small.path, overwrite=True)
    assert torch.equal(index.tokens(0, index.n_tokens).dense(), dense_of(other_store, other_sae))


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_something_else_is_never_replaced(small, tmp_path, overwrite):
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="no feature index, so it is not replaced"):
        make(small.store, small.sae, other, overwrite=overwrite)
    assert contents(other) == {"manifest.json": b"{}"}


def test_a_damaged_index_can_be_replaced(small):
    before = contents(small.path)
    (small.path / "manifest.json").write_text("{}")
    (small.path / "by_token.safetensors").unlink()
    make(small.store, small.sae, small.path, overwrite=True)
    assert contents(small.path) == before


# ----------------------------------------------------------------------------- builds that are interrupted

class Stopped(Exception):
    pass


def stop_after(store, n_batches, how):
    """The store, whose reading ends suddenly."""
    whole = store.batches

    def batches(hook, size):
        for i, batch in enumerate(whole(hook, size)):
            if i == n_batches:
                how()
            yield batch

    store.batches = batches
    return whole


def stop():
    raise Stopped


def contents(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


@pytest.mark.parametrize("after", [0, 1, 5])
def test_a_stopped_build_leaves_nothing_and_is_started_again(small, tmp_path, after):
    path = tmp_path / "again"
    batches = stop_after(small.store, after, stop)
    with pytest.raises(Stopped):
        make(small.store, small.sae, path, batch_tokens=7)
    assert [p.name for p in tmp_path.iterdir()] == ["index"]
    small.store.batches = batches
    make(small.store, small.sae, path, batch_tokens=7)
    whole = make(small.store, small.sae, tmp_path / "whole", batch_tokens=7)
    assert contents(path) == contents(whole.path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a process to kill")
@pytest.mark.parametrize("when", ["reading", "transposing", "describing"])
def test_a_killed_build_is_cleared_away_by_the_next(small, tmp_path, when, monkeypatch):
    path = tmp_path / "again"
    pid = os.fork()
    if pid == 0:  # the child dies at once, as when it is killed: nothing is tidied up
        if when == "reading":
            stop_after(small.store, 3, lambda: os._exit(9))
        else:
            name = {"transposing": "_chunks", "describing": "write_manifest"}[when]
            setattr(build, name, lambda *_: os._exit(9))
        make(small.store, small.sae, path, batch_tokens=7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert not path.exists() and (tmp_path / ".again.building").is_dir()
    make(small.store, small.sae, path)
    assert contents(path) == contents(small.path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again", "index"]


def test_an_older_index_stays_until_the_new_one_is_whole(small):
    before = contents(small.path)
    store, sae = random_world(seed=2)
    stop_after(store, 1, stop)
    with pytest.raises(Stopped):
        make(store, sae, small.path, batch_tokens=7, overwrite=True)
    assert contents(small.path) == before


def test_of_two_builds_at_one_place_the_second_is_refused(small, tmp_path):
    path = tmp_path / "again"
    with layout.appearing(path) as folder:
        (folder / "mine").write_text("still here")
        with pytest.raises(InputError, match="another process is building"):
            make(small.store, small.sae, path)
        assert (folder / "mine").exists()
    assert contents(path) == {"mine": b"still here"}


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="room on the disk is taken in another way here")
def test_a_full_disk_is_a_clear_error(small, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="disk is full.*nothing half is left"):
        make(small.store, small.sae, tmp_path / "again")
    assert [p.name for p in tmp_path.iterdir()] == ["index"]


def test_no_more_than_a_batch_is_ever_dense(small, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "DENSE_BYTES", 20 * 4 * 40)
    sae = Relu(small.sae.W_enc.detach(), small.sae.W_dec.detach())
    make(small.store, sae, tmp_path / "again")
    assert 0 < sae.most <= 20 < small.store.n_content


# ------------------------------------------------------------------------------------------- bad input

@pytest.mark.parametrize("call, says", [
    (lambda w, p: make(w.store, identity_sae(3), p), "have width 8; this SAE reads 3"),
    (lambda w, p: build_index(w.store, w.sae, "blocks.9.hook_mlp_out", p), "hook: expected one of"),
    (lambda w, p: make(w.store, w.sae, p, vocabulary=["a"]), "vocabulary has 1 tokens, but the store holds token"),
    (lambda w, p: make(w.store, w.sae, p, unembed=torch.ones(8, 3)), "give a vocabulary of as many"),
    (lambda w, p: make(w.store, w.sae, p, unembed=torch.ones(5, 12)), "only defined in the residual stream"),
    (lambda w, p: make(w.store, w.sae, p, batch_tokens=0), "batch_tokens must be a whole number of at least 1"),
    (lambda w, p: w.index.latent(40), "latent: expected a whole number from 0 to 39, got 40"),
    (lambda w, p: w.index.latent(-1), "got -1"),
    (lambda w, p: w.index.page(2.5), "got 2.5"),
    (lambda w, p: w.index.token(10**6), "place: expected"),
    (lambda w, p: w.index.tokens(5, 5), "expected places 0 <= start < stop"),
    (lambda w, p: w.index.document(99), "expected one of the store's 10, got 99"),
    (lambda w, p: w.index.examples(0, 0), "k must be"),
    (lambda w, p: w.index.top_of_text(torch.ones(3, 4)), r"expected \[tokens, 40\], got \[3, 4\]"),
    (lambda w, p: w.index.top_of_text(0, by="loudness"), "unknown order 'loudness'"),
    (lambda w, p: w.index.find([]), "at least one token"),
    (lambda w, p: analysis.nearest_latents(w.sae, 40), "latent: expected"),
    (lambda w, p: analysis.concept_table(w.index, torch.ones(3, 2, dtype=torch.bool), ["a", "b"]), "one row for each"),
    (lambda w, p: analysis.concept_table(w.index, torch.ones(3, 2), ["a", "b"]), "torch.bool"),
])
def test_bad_input_is_named(world, tmp_path, call, says):
    with pytest.raises(InputError, match=says):
        call(world, tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_an_index_without_a_vocabulary_says_what_it_cannot_do_and_takes_one(small, tmp_path):
    index = make(small.store, small.sae, tmp_path / "bare", vocabulary=None)
    j = int(index.n_active.argmax())
    with pytest.raises(InputError, match="built without a vocabulary"):
        index.examples(j)
    index.vocabulary = VOCABULARY
    assert index.examples(j) == small.index.examples(j)
    assert index.page(j).positive == []  # no unembedding was given


def test_a_store_without_a_test_split_cannot_judge_concepts(tmp_path):
    store = Store(ASKED, [4, 3], test=torch.zeros(7, dtype=torch.bool))
    index = make(store, identity_sae(3), tmp_path / "index")
    with pytest.raises(InputError, match="5 and 0 tokens. Harvest with a test_share"):
        analysis.concept_table(index, torch.ones(7, 1, dtype=torch.bool), ["a"])
