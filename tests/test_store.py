"""Reading a store, and measuring what is in it. No model here: the numbers are made up and known."""

import json

import numpy as np
import pytest
import torch

import solutions.data.store as store_module
from solutions.data import (
    ActivationStore,
    DamagedFile,
    Normalisation,
    Shard,
    StoreWriter,
    measure_normalisation,
    split_of,
)
from solutions.errors import InputError

A, B = "blocks.0.hook_mlp_out", "blocks.1.attn.hook_z"
LENGTHS = [3, 1, 9, 4, 7, 2, 8, 5, 6, 10, 3, 12]
SHARDS = [LENGTHS[:4], LENGTHS[4:5], LENGTHS[5:9], LENGTHS[9:]]
N = sum(LENGTHS)


def numbers(hook: str) -> torch.Tensor:
    """[N, 6] the activations at a hook point, each one different."""
    dice = torch.Generator().manual_seed(len(hook))
    return torch.randn(N, 6, generator=dice) * torch.arange(1, 7) + torch.arange(6)


def make(path, prepend_bos=True, dtype=torch.float32, finish=True, **changes) -> ActivationStore:
    """A store of twelve documents in four shards; B has the shape of two heads."""
    head = {
        "model": "none", "hooks": {A: {"shape": [6]}, B: {"shape": [2, 3]}}, "prepend_bos": prepend_bos,
        "dtype": str(dtype).removeprefix("torch."), "seed": 0, "test_share": 0.3,
    } | changes  # fmt: skip
    acts, start = {A: numbers(A).to(dtype), B: numbers(B).to(dtype).reshape(N, 2, 3)}, 0
    with StoreWriter(path, head) as writer:
        for i, lengths in enumerate(SHARDS):
            part = slice(start, start := start + sum(lengths))
            kinds = ["poem" if n % 2 else "recipe" for n in lengths]
            pieces = {hook: x[part] for hook, x in acts.items()}
            writer.write(i, Shard(torch.arange(N)[part] % 50, lengths, kinds, pieces, texts="-"))
        if finish:
            writer.finish()
    return ActivationStore(path)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make(tmp_path_factory.mktemp("store") / "store")


# ---- what it says


def test_sizes(store):
    assert (len(store), store.n_tokens, store.n_documents, store.n_content) == (N, N, 12, N - 12)
    assert store.hooks == [A, B] and store.width(A) == store.width(B) == 6
    assert store.is_complete and "70 tokens of 12 documents" in repr(store)
    assert store.n_bytes == sum(p.stat().st_size for p in store.path.glob("*.safetensors"))


def test_every_token_knows_its_place(store):
    assert store.ids.tolist() == [i % 50 for i in range(N)] and store.ids.dtype == torch.int64
    assert store.document.tolist() == [k for k, n in enumerate(LENGTHS) for _ in range(n)]
    assert store.position.tolist() == [p for n in LENGTHS for p in range(n)]
    assert store.is_bos.tolist() == [p == 0 for n in LENGTHS for p in range(n)]


def test_the_table_of_documents(store):
    table = store.documents
    assert table.columns.tolist() == ["document", "start", "length", "split", "kind"]
    assert table["length"].tolist() == LENGTHS
    assert table["start"].tolist() == np.cumsum([0, *LENGTHS[:-1]]).tolist()
    assert table["kind"].tolist() == ["poem" if n % 2 else "recipe" for n in LENGTHS]
    assert set(table["split"]) == {"train", "test"}
    whole = [(table["split"][k] == "test") == flag for k, flag in zip(store.document.tolist(), store.test, strict=True)]
    assert all(whole)  # a document is never in both


def test_a_store_without_bos_has_none(tmp_path):
    store = make(tmp_path / "store", prepend_bos=False)
    assert not store.is_bos.any() and store.n_content == N
    assert sum(len(batch.index) for batch in store.batches(A, 16)) == N


def test_an_unfinished_store_opens_and_an_empty_one_too(tmp_path):
    assert not (store := make(tmp_path / "store", finish=False)).is_complete and "unfinished" in repr(store)
    with StoreWriter(tmp_path / "empty", {"hooks": {A: {"shape": [6]}}, "dtype": "float32", "prepend_bos": True}):
        pass
    empty = ActivationStore(tmp_path / "empty")
    assert len(empty) == 0 and empty.read(A, 0, 0).shape == (0, 6) and len(empty.ids) == 0
    assert list(empty.batches(A, 4, bos=True)) == [] == list(empty.batches(A, 4, bos=True, shuffle=True))


# ---- the split


def test_the_split_is_drawn_from_number_and_seed():
    draws = [split_of(k, 0, 0.1) for k in range(5000)]
    assert 0.08 < draws.count("test") / 5000 < 0.12
    assert draws == [split_of(k, 0, 0.1) for k in range(5000)]
    other = [split_of(k, 1, 0.1) for k in range(5000)]
    both = sum(a == b == "test" for a, b in zip(draws, other, strict=True))
    assert both < 100  # another seed, another draw: 50 expected by chance, 500 if they were the same
    assert {split_of(k, 0, 0) for k in range(100)} == {"train"}
    larger = [split_of(k, 0, 0.2) for k in range(5000)]
    assert all(b == "test" for a, b in zip(draws, larger, strict=True) if a == "test")


# ---- vectors


@pytest.mark.parametrize("hook", [A, B])
def test_any_range_across_shards(store, hook):
    for start, stop in [(0, N), (0, 0), (5, 6), (10, 40), (17, 24), (N - 1, N), (N, N)]:
        x = store.read(hook, start, stop)
        assert x.dtype == torch.float32 and torch.equal(x, numbers(hook)[start:stop])


def test_what_is_read_is_a_copy(store):
    store.read(A, 0, 5).zero_()
    assert torch.equal(store.read(A, 0, 5), numbers(A)[:5])
    ActivationStore(store.path).verify()


def test_batches_in_order(store):
    batches = list(store.batches(A, 16, bos=True))
    assert [len(batch.acts) for batch in batches] == [16, 16, 16, 16, 6]
    assert torch.cat([batch.index for batch in batches]).tolist() == list(range(N))
    assert torch.equal(torch.cat([batch.acts for batch in batches]), numbers(A))


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("split", [None, "train", "test"])
@pytest.mark.parametrize("bos", [False, True])
def test_every_token_once_and_its_own_vector(store, shuffle, split, bos):
    wanted = torch.ones(N, dtype=torch.bool) if bos else ~store.is_bos
    if split:
        wanted &= store.test == (split == "test")
    batches = list(store.batches(A, 7, shuffle=shuffle, split=split, bos=bos, buffer_tokens=20))
    index = torch.cat([batch.index for batch in batches])
    assert sorted(index.tolist()) == wanted.nonzero().squeeze(1).tolist()
    assert all(torch.equal(batch.acts, numbers(A)[batch.index]) for batch in batches)
    assert {len(batch.acts) for batch in batches[:-1]} <= {7}


def test_shuffles_are_seeded(store):
    def order(**options):
        return torch.cat([batch.index for batch in store.batches(A, 7, shuffle=True, **options)]).tolist()

    assert order(seed=1) == order(seed=1) != order(seed=2)
    assert order(seed=1) != sorted(order(seed=1))


def test_a_large_buffer_shuffles_perfectly_and_a_small_one_mixes_runs(tmp_path, monkeypatch):
    """How far apart the places of a batch lie, against the same number of places drawn at random."""
    monkeypatch.setattr(store_module, "RUN", 16)
    head = {"hooks": {A: {"shape": [1]}}, "dtype": "float32", "prepend_bos": False, "seed": 0, "test_share": 0.1}
    n = 4096
    with StoreWriter(tmp_path / "store", head) as writer:
        for i in range(4):
            acts = {A: torch.zeros(n // 4, 1)}
            writer.write(i, Shard(torch.zeros(n // 4).long(), [16] * (n // 64), [""] * (n // 64), acts, "-"))
    store = ActivationStore(tmp_path / "store")

    def neighbours(**options):
        """Share of the places of a batch that have another place of the same run in it."""
        shares = []
        for batch in store.batches(A, 64, **options):
            runs = batch.index // 16
            shares.append(sum(bool((runs == run).sum() > 1) for run in runs) / 64)
        return np.mean(shares)

    # By chance a token meets one of its 15 neighbours in a batch of 64 out of 4096 with 15 · 63 / 4095 = 0.21.
    assert neighbours() == 1 == neighbours(shuffle=True, buffer_tokens=64)
    assert neighbours(shuffle=True, buffer_tokens=n) < 0.25
    assert 0.25 < neighbours(shuffle=True, buffer_tokens=1024) < 0.75


def test_memory_is_bounded_by_the_buffer(store, monkeypatch):
    """Shuffled reading asks the disk for no more than a buffer at a time, and keeps few shards open."""
    monkeypatch.setattr(store_module, "OPEN_SHARDS", 2)
    fresh, asked, rows = ActivationStore(store.path), [], ActivationStore._rows

    def watched(self, hook, places):
        asked.append(len(places))
        assert len(self._opened) <= 2
        return rows(self, hook, places)

    monkeypatch.setattr(ActivationStore, "_rows", watched)
    for _ in fresh.batches(A, 5, shuffle=True, buffer_tokens=17):
        pass
    assert max(asked) == 15 and sum(asked) == N - 12


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda s: s.read("blocks.0.hook_mlp", 0, 1), f"Did you mean '{A}'"),
        (lambda s: s.read(A, 0, N + 1), f"must lie in 0 to {N}"),
        (lambda s: s.read(A, 5, 4), "must lie in"),
        (lambda s: s.read(A, 0.5, 4), "must lie in"),
        (lambda s: s.batches(A, 0), "batch_size"),
        (lambda s: s.batches(A, 4, split="dev"), "Known: train, test"),
        (lambda s: s.batches(A, 4, buffer_tokens=-1), "buffer_tokens"),
        (lambda s: s.width("nothing"), "unknown hook point"),
        (lambda s: s.statistics("nothing"), "unknown hook point"),
        (lambda s: ActivationStore(s.path / "nowhere"), "no activation store"),
    ],
)
def test_mistakes_are_named_at_once(store, call, said):
    with pytest.raises(InputError, match=said):
        call(store)


# ---- damage


def change(path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_a_flipped_byte_is_found_when_the_shard_is_first_read(tmp_path):
    make(tmp_path / "store")
    change(tmp_path / "store" / "acts-00002.safetensors", -1)
    store = ActivationStore(tmp_path / "store")
    assert torch.equal(store.read(A, 0, 17), numbers(A)[:17])  # the shards before it are fine
    for read in (lambda: store.read(A, 30, 31), lambda: list(store.batches(A, 8)), store.verify):
        with pytest.raises(DamagedFile, match="acts-00002.safetensors is damaged: expected sha256"):
            read()


def test_all_damaged_files_are_named_at_once(tmp_path):
    make(tmp_path / "store")
    (tmp_path / "store" / "acts-00000.safetensors").unlink()
    change(tmp_path / "store" / "tokens-00003.safetensors", 100)
    with pytest.raises(DamagedFile, match="acts-00000.safetensors is missing"):
        ActivationStore(tmp_path / "store")
    make(tmp_path / "other")
    store = ActivationStore(tmp_path / "other")
    change(tmp_path / "other" / "acts-00000.safetensors", -1)
    change(tmp_path / "other" / "tokens-00003.safetensors", 100)
    with pytest.raises(DamagedFile, match="(?s)tokens-00003.*acts-00000|acts-00000.*tokens-00003"):
        store.verify()
    with pytest.raises(DamagedFile, match="tokens-00003"):
        _ = ActivationStore(tmp_path / "other").ids


def test_a_damaged_manifest_is_named(tmp_path):
    make(tmp_path / "store")
    manifest = tmp_path / "store" / "manifest.json"
    good = manifest.read_text()
    manifest.write_text(good.replace('"seed": 0', '"seed": 1'))
    with pytest.raises(DamagedFile, match="manifest.json.*expected sha256"):
        ActivationStore(tmp_path / "store")
    for bad in (good[:-30], "[]", "{}", "\x00"):
        manifest.write_text(bad)
        with pytest.raises(DamagedFile, match="manifest.json.*not readable"):
            ActivationStore(tmp_path / "store")
    manifest.write_text(json.dumps(json.loads(good) | {"format": 2}))
    with pytest.raises(InputError, match="format 2, this code reads 1"):
        ActivationStore(tmp_path / "store")


def test_shards_that_do_not_fit_are_refused(tmp_path):
    head = {"hooks": {A: {"shape": [6]}}, "dtype": "float32", "prepend_bos": True}
    ids, x = torch.zeros(3).long(), torch.zeros(3, 6)
    with StoreWriter(tmp_path / "store", head) as writer:
        for shard, said in [
            (Shard(ids, [2], ["k"], {A: x}, "-"), "add up to 2"),
            (Shard(ids, [3], [], {A: x}, "-"), "0 kinds"),
            (Shard(ids, [3], ["k"], {}, "-"), "got nothing"),
            (Shard(ids, [3], ["k"], {A: x[:, :5]}, "-"), r"must be torch.float32 \[3, 6\]"),
            (Shard(ids, [3], ["k"], {A: x.half()}, "-"), "got torch.float16"),
            (Shard(ids, [3], ["k"], {A: x / 0}, "-"), "cannot hold"),
        ]:
            with pytest.raises(InputError, match=said):
                writer.write(0, shard)
    assert ActivationStore(tmp_path / "store").n_documents == 0
    with pytest.raises(InputError, match="dtype must be one of"):
        StoreWriter(tmp_path / "other", head | {"dtype": "int8"})


# ---- measuring and scaling


def test_statistics_are_those_of_all_vectors_at_once(store, monkeypatch):
    monkeypatch.setattr(store_module, "AT_ONCE", 7)
    for split in ("train", "test", None):
        kept = ~store.is_bos if split is None else ~store.is_bos & (store.test == (split == "test"))
        x = numbers(A)[kept].double()
        found = store.statistics(A, split)
        torch.testing.assert_close(found.mean, x.mean(0).float())
        torch.testing.assert_close(found.variance, x.var(0, correction=0).float())
        assert found.n == len(x) and found.mean_norm == pytest.approx(x.norm(dim=1).mean().item())
    assert store.statistics(A).n == store.statistics(A, "train").n < store.statistics(A, None).n
    assert store.statistics(A) is store.statistics(A)


def test_one_pass_keeps_its_digits_when_the_mean_is_large():
    """Where the sum of squares minus the square of the sum loses them all."""
    x = torch.randn(3000, 4, generator=torch.Generator().manual_seed(0)).double() + 1e8
    found = measure_normalisation(x.split(100))
    torch.testing.assert_close(found.variance, x.var(0, correction=0).float(), rtol=1e-5, atol=0)
    naive = x.square().mean(0) - x.mean(0).square()
    assert ((naive - found.variance).abs() > 0.1).any()
    uneven = measure_normalisation([x[:1], x[1:2500], x[2500:]])
    torch.testing.assert_close(uneven.variance, found.variance)


def test_nothing_to_measure_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no token to measure"):
        measure_normalisation([])
    with pytest.raises(InputError, match="no token to measure"):
        make(tmp_path / "store", test_share=0.0).statistics(A, "test")


def test_scaling_and_back(store):
    scaling, x = store.statistics(A, None), numbers(A)[~store.is_bos]
    assert scaling.apply(x).norm(dim=1).mean().item() == pytest.approx(6**0.5, rel=1e-5)
    torch.testing.assert_close(scaling.undo(scaling.apply(x)), x)
    with pytest.raises(InputError, match="6 as its last axis, got 5"):
        scaling.apply(x[:, :5])
    with pytest.raises(InputError, match="all zero"):
        measure_normalisation([torch.zeros(3, 2)]).apply(torch.zeros(3, 2))


@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu"])
def test_folded_weights_read_unscaled_activations(architecture):
    import copy

    from sae_lens import SAE

    dice = torch.Generator().manual_seed(1)
    scaling = Normalisation(torch.zeros(16), torch.ones(16), mean_norm=37.0, n=100)
    config = {"architecture": architecture, "d_in": 16, "d_sae": 40} | ({"k": 5} if architecture == "topk" else {})
    sae = SAE.from_dict(config | {"apply_b_dec_to_input": architecture != "standard"})
    weights = {name: 0.3 * torch.randn(w.shape, generator=dice) for name, w in sae.state_dict().items()}
    weights["b_enc"] += 0.2
    sae.load_state_dict(weights)
    folded = copy.deepcopy(sae)
    folded.load_state_dict(scaling.fold_into(weights))
    x = 20 * torch.randn(50, 16, generator=dice)
    latents = sae.encode(scaling.apply(x))
    assert 0 < (latents > 0).float().mean() < 1
    torch.testing.assert_close(folded.encode(x), latents, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(folded.decode(latents), scaling.undo(sae.decode(latents)), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(sae.encode(x), latents)  # the test would notice
    theirs = copy.deepcopy(sae)
    theirs.fold_activation_norm_scaling_factor(scaling.scale)
    for name, w in theirs.state_dict().items():
        torch.testing.assert_close(folded.state_dict()[name], w)


def test_folding_needs_the_weights_of_an_sae():
    scaling = Normalisation(torch.zeros(4), torch.ones(4), 2.0, 10)
    with pytest.raises(InputError, match="lack b_enc, b_dec"):
        scaling.fold_into({"W_enc": torch.zeros(4, 8), "W_dec": torch.zeros(8, 4)})
    wide = {"W_enc": torch.zeros(5, 8), "W_dec": torch.zeros(8, 5), "b_enc": torch.zeros(8), "b_dec": torch.zeros(5)}
    with pytest.raises(InputError, match="reads 5 dimensions, these activations have 4"):
        scaling.fold_into(wide)
