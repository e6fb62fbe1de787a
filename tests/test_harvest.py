"""From a model to a store: the same numbers, and nothing lost or doubled whatever happens on the way."""

import importlib
import multiprocessing
import random
import time
from collections import namedtuple
from types import SimpleNamespace

import pytest
import torch
from hub_cache import tiny_model, tiny_target
from stub_harvest import HOOKS, TEXTS, StubModel, content, run, run_and_tell, run_with_small_files

import solutions.data.store_files as store_files
from solutions.data import ActivationStore, DamagedFile, DiskFull, StoreInUse, Text, load_texts, tokenize
from solutions.data.__main__ import main
from solutions.errors import InputError
from solutions.models import extract, harvest, hook_points, read_hooks

KILLS = 20
PLACES = ["blocks.1.hook_resid_pre", "blocks.0.attn.hook_z", "hook_embed"]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """An uninterrupted harvest of the stub."""
    path = tmp_path_factory.mktemp("reference") / "store"
    run(path)
    return content(path)


@pytest.fixture(scope="module")
def processes():
    """Processes that start in a moment: forked from one that has imported everything and run nothing."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        pytest.skip("this system cannot fork")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["solutions.models.harvest"])  # found without the tests folder
    return context


# ---- what is stored


def test_every_number_is_the_one_extract_gives(tmp_path):
    model, texts = tiny_model(), load_texts(tiny_target(), 70)
    store = harvest(model, iter(texts), PLACES, tmp_path / "store", shard_tokens=600, batch_size=8, progress=False)
    assert len(store.manifest["shards"]) > 2 and store.hooks == PLACES and store.is_complete
    tokens = tokenize(model, texts)
    assert torch.equal(store.ids, tokens.ids[tokens.mask]) and store.n_content == tokens.n_content
    assert store.documents["kind"].tolist() == [text.kind for text in texts]
    for hook, x in extract(model, tokens, PLACES).items():
        assert store.width(hook) == 16
        torch.testing.assert_close(
            store.read(hook, 0, len(store)), x[tokens.mask].flatten(1), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_stopping_at_the_last_hook_reads_what_a_whole_pass_reads(architecture):
    model = tiny_model(architecture)
    ids, names = tokenize(model, ["The Eiffel Tower", "Hi"]).ids, hook_points(model)["name"].tolist()
    _, cache = model.run_with_cache(ids, names_filter=names, return_cache_object=False)
    together = read_hooks(model, ids, names)
    for name in names:
        alone = read_hooks(model, ids, [name])[name]
        assert torch.equal(alone.nan_to_num(), cache[name].nan_to_num())
        assert torch.equal(together[name].nan_to_num(), cache[name].nan_to_num())


def test_nothing_after_the_last_hook_is_computed_and_no_hook_is_left_behind():
    model, ran = tiny_model(), []
    blocks = model.original_model.transformer.h
    handles = [
        block.register_forward_pre_hook(lambda *_, i=i: ran.append(i)) for i, block in enumerate(blocks)
    ]
    ids = tokenize(model, "Hi there").ids
    read_hooks(model, ids, ["blocks.1.hook_resid_pre"])
    assert ran in ([0], [0, 1])  # block 1 may be entered, block 2 never
    before = model(ids)
    read_hooks(model, ids, ["blocks.0.hook_resid_pre"])
    assert torch.equal(model(ids), before) and ran[-3:] == [0, 1, 2]
    for handle in handles:
        handle.remove()
    assert all(not point.fwd_hooks for point in model.hook_dict.values())


def test_rows_of_one_length_go_together_and_documents_keep_their_order(tmp_path):
    model = StubModel()
    store = harvest(model, TEXTS, HOOKS, tmp_path / "store", batch_size=4, progress=False)
    computed = sum(rows * width for rows, width in model.last[1:])  # the first pass only asks for shapes
    assert computed < 1.1 * store.n_tokens
    in_order = StubModel()
    for start in range(0, len(TEXTS), 4):
        read_hooks(in_order, tokenize(in_order, TEXTS[start : start + 4]).ids, HOOKS)
    assert sum(rows * width for rows, width in in_order.last) > 1.3 * store.n_tokens
    starts = store.documents["start"].tolist()
    assert [chr(store.ids[start + 1]) for start in starts] == [text[0] for text in TEXTS]
    assert bool(store.is_bos[starts].all()) and store.is_bos.sum() == len(TEXTS)


@pytest.mark.parametrize(("dtype", "digits"), [("float32", 1e-7), ("float16", 1e-3), ("bfloat16", 1e-2)])
def test_dtypes_on_disk(tmp_path, dtype, digits):
    store = run(tmp_path / "store", dtype=dtype)
    exact = read_hooks(StubModel(), tokenize(StubModel(), TEXTS[:1]).ids, HOOKS)
    for hook in HOOKS:
        x = store.read(hook, 0, store.documents["length"][0])
        assert x.dtype == torch.float32
        torch.testing.assert_close(x, exact[hook][0], rtol=digits, atol=digits)


def test_texts_are_read_as_they_come(tmp_path):
    """Never all in memory: when the first shard is written, not much more than it has been read."""
    read, first_write = [], []

    def texts():
        for text in TEXTS * 10:
            if not first_write and (tmp_path / "store" / "acts-00000.safetensors").exists():
                first_write.append(len(read))
            read.append(text)
            yield text

    store = run(tmp_path / "store", texts(), shard_tokens=1000, batch_size=32)
    assert store.n_documents == len(read) == 600 and first_write[0] <= 256


def test_the_texts_may_come_from_the_same_model(tmp_path):
    """Whoever chooses texts by what the model says about them runs it in the middle of a harvest."""
    model, texts = tiny_model(), load_texts(tiny_target(), 12)

    def chosen():
        for text in texts:
            assert model(tokenize(model, text.text).ids).shape[-1] == model.cfg.d_vocab
            yield text

    store = harvest(model, chosen(), PLACES, tmp_path / "store", shard_tokens=100, progress=False)
    assert store.n_documents == 12


def test_long_texts_are_cut_and_a_document_may_be_larger_than_a_shard(tmp_path):
    store = run(tmp_path / "store", ["x" * 100, "y"], shard_tokens=5, context_size=20)
    assert store.documents["length"].tolist() == [20, 2] and len(store.manifest["shards"]) == 2


def test_the_manifest_says_what_it_is(tmp_path):
    model, target = tiny_model(), tiny_target()
    store = harvest(model, "Hi there", target.hook, tmp_path / "store", seed=7, progress=False)
    said = store.manifest
    assert (said["target"], said["processing"], said["prepend_bos"]) == ("tiny", [], True)
    assert (said["dtype"], said["context_size"], said["seed"]) == ("float32", 32, 7)
    assert said["hooks"] == {target.hook: {"shape": [16]}} and len(said["tokenizer"]) == 64
    assert {name for shard in said["shards"] for name in shard["files"]} == {
        "acts-00000.safetensors",
        "tokens-00000.safetensors",
    }


# ---- mistakes


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hooks": "blocks.0.hook_resid_pree"}, "Did you mean 'blocks.0.hook_resid_pre'"),
        ({"hooks": "blocks.0.attn.hook_pattern"}, "no vector for each token"),
        ({"dtype": "float8"}, "Known: float32, float16, bfloat16"),
        ({"batch_size": 0}, "batch_size"),
        ({"shard_tokens": 0}, "shard_tokens"),
        ({"context_size": 33}, "at most 32"),
        ({"test_share": 1}, "test_share"),
        ({"texts": []}, "there are no texts"),
        ({"texts": ["fine", "  "]}, "document 1 is empty"),
        ({"texts": ["fine", 3]}, "document 1 must be a string"),
        ({"texts": 3}, "texts must be strings"),
    ],
)
def test_mistakes_are_named(tmp_path, change, said):
    call = {"texts": TEXTS, "hooks": HOOKS, "path": tmp_path / "store", "progress": False} | change
    with pytest.raises(InputError, match=said):
        harvest(StubModel(), **call)


def test_a_number_too_large_for_the_dtype_is_an_error(tmp_path):
    model = StubModel()
    model.table.data *= 1e4
    with pytest.raises(InputError, match="cannot hold.*bfloat16 or float32"):
        harvest(model, TEXTS, HOOKS, tmp_path / "half", dtype="float16", progress=False)
    harvest(model, TEXTS, HOOKS, tmp_path / "brain", dtype="bfloat16", progress=False)


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="'thesis.txt', which is not part of a store"):
        run(tmp_path, resume=False)
    with pytest.raises(InputError, match="is a file"):
        run(tmp_path / "thesis.txt")
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


# ---- going on


def test_a_finished_store_is_reused_without_running_the_model(tmp_path, reference):
    run(tmp_path / "store")
    ran = []
    store = run(tmp_path / "store", tick=lambda: ran.append(1))
    assert len(ran) == 1 and store.is_complete  # one pass asks for the shapes
    assert content(tmp_path / "store") == reference


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hooks": HOOKS[:1]}, r"hooks: the store has \['blocks.0.*blocks.1.*this call has \['blocks.0[^,]*\]"),
        ({"dtype": "float32"}, "dtype: the store has 'float16', this call has 'float32'"),
        ({"context_size": 16}, "context_size: the store has 32, this call has 16"),
        ({"seed": 1}, "seed: the store has 0, this call has 1"),
        ({"model": StubModel(seed=1)}, "weights: the store has"),
        ({"texts": TEXTS[::-1]}, "other texts: documents 0 to "),
        ({"texts": TEXTS[:30]}, r"other texts: documents \d+ to \d+ differ"),
        ({"texts": [*TEXTS[:-1], Text(TEXTS[-1], "another kind")]}, "other texts"),
        ({"texts": [*TEXTS, "more"]}, "finished with 60 documents, and there are more"),
    ],
)
def test_a_store_of_something_else_is_never_added_to(tmp_path, reference, change, said):
    run(tmp_path / "store")
    call = {"model": StubModel(), "texts": TEXTS, "hooks": HOOKS, "path": tmp_path / "store"}
    call |= {"batch_size": 4, "shard_tokens": 200, "dtype": "float16", "progress": False}
    with pytest.raises(InputError, match=f"(?s){said}.*resume=False"):
        harvest(**call | change)
    assert content(tmp_path / "store") == reference
    store = harvest(**call | change | {"resume": False})
    assert store.is_complete and content(tmp_path / "store") != reference


def test_another_processing_of_the_same_model_is_another_model(tmp_path):
    from dataclasses import replace

    from solutions.models import load_model

    target = tiny_target()
    harvest(tiny_model(), "Hi there", target.hook, tmp_path / "store", progress=False)
    centred = load_model(replace(target, processing={"center_writing_weights": True}), "cpu")
    with pytest.raises(InputError, match="(?s)processing: the store has.*weights: the store has"):
        harvest(centred, "Hi there", target.hook, tmp_path / "store", progress=False)


# ---- faults


def test_killed_at_random_moments_and_resumed_nothing_is_lost_or_doubled(tmp_path, reference, processes):
    """A store is killed again and again, at any forward pass or shortly after, and at last left alone."""
    passes = []
    run(tmp_path / "count", tick=lambda: passes.append(1))
    dice, stores, unfinished = random.Random(0), 0, 0
    path = tmp_path / "store-0"
    for _ in range(KILLS):
        receiver, sender = processes.Pipe(duplex=False)
        process = processes.Process(target=run_and_tell, args=(path, sender))
        process.start()
        sender.close()
        try:
            for _ in range(dice.randrange(1, len(passes))):
                receiver.recv_bytes()
        except EOFError:  # fewer passes than that are left
            pass
        time.sleep(dice.uniform(0, 0.004))
        process.kill()
        process.join()
        if (path / "manifest.json").is_file():  # what is there opens, and is whole
            store = ActivationStore(path)
            store.verify()
            unfinished += not store.is_complete
        if dice.random() < 0.5 or stores == 0:
            run(path)
            assert content(path) == reference
            stores += 1
            path = tmp_path / f"store-{stores}"
    run(path)
    assert content(path) == reference
    assert stores >= 5 and unfinished >= 5  # the kills came in the middle


def test_killed_at_every_single_step_of_writing(tmp_path, reference, monkeypatch):
    """As above, with the moment chosen: before, in the middle of, and after each call to the system."""

    class Killed(BaseException):
        pass

    left = [0]

    def step():
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    def counted(function):
        def call(*arguments):
            step()
            result = function(*arguments)
            step()
            return result

        return call

    class File:
        def __init__(self, path, mode):
            self.file = open(path, mode)
            self.flush, self.fileno = self.file.flush, self.file.fileno

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, data):
            self.file.write(data[: len(data) // 2])
            step()
            self.file.write(data[len(data) // 2 :])

    for name in ("replace", "fsync"):
        monkeypatch.setattr(store_files.os, name, counted(getattr(store_files.os, name)))
    monkeypatch.setattr(store_files, "open", File, raising=False)
    few = TEXTS[:20]
    left[0] = 10**9
    run(tmp_path / "whole", few)
    steps, whole = 10**9 - left[0], content(tmp_path / "whole")
    assert steps > 40
    for k in range(1, steps + 1):
        path = tmp_path / str(k)
        left[0] = k
        with pytest.raises(Killed):
            run(path, few)
        left[0] = 10**9
        run(path, few)
        assert content(path) == whole, k


def test_what_is_damaged_is_named_and_made_anew(tmp_path, reference):
    path = tmp_path / "store"
    run(path)
    acts, tokens = path / "acts-00001.safetensors", path / "tokens-00002.safetensors"

    acts.unlink()
    with pytest.raises(DamagedFile, match="(?s)acts-00001.safetensors is missing.*run the same harvest again"):
        ActivationStore(path)
    ran = []
    run(path, tick=lambda: ran.append(1))
    assert content(path) == reference and 1 < len(ran) < 8  # only this shard's rows were run

    tokens.write_bytes(reference[tokens.name][:-1])
    with pytest.raises(DamagedFile, match=r"tokens-00002.*expected [\d,]+ bytes, found [\d,]+"):
        ActivationStore(path)
    run(path)
    assert content(path) == reference

    acts.write_bytes(reference[acts.name][:-9] + b"\x01" + reference[acts.name][-8:])
    expected = ActivationStore(path).manifest["shards"][1]["files"][acts.name]["sha256"][:16]
    with pytest.raises(DamagedFile, match=f"(?s)acts-00001.*{expected}.*Delete that file"):
        ActivationStore(path).verify()
    acts.unlink()
    run(path)
    assert content(path) == reference


def test_a_full_disk_is_a_clear_error_and_the_store_stays(tmp_path, reference, monkeypatch):
    path, written, fsync = tmp_path / "store", [], store_files.os.fsync

    def full(handle):
        written.append(handle)
        if len(written) > 16:
            raise OSError(store_files.errno.ENOSPC, "No space left on device")
        return fsync(handle)

    monkeypatch.setattr(store_files.os, "fsync", full)
    with pytest.raises(DiskFull, match="(?s)disk is full.*Free some space and run the same harvest again"):
        run(path)
    monkeypatch.setattr(store_files.os, "fsync", fsync)
    store = ActivationStore(path)
    store.verify()
    assert not store.is_complete and 0 < store.n_documents < len(TEXTS)
    assert not list(path.glob("*.part"))
    run(path)
    assert content(path) == reference


def test_a_file_that_cannot_grow_is_a_full_disk_too(tmp_path, processes):
    """The system itself refuses the write, in the middle of it."""
    receiver, sender = processes.Pipe(duplex=False)
    texts = ["short"] * 4 + ["a much longer document than that"]
    arguments = (tmp_path / "store", texts, 1500, sender)
    process = processes.Process(
        target=run_with_small_files, args=arguments, kwargs={"shard_tokens": 12, "dtype": "float32"}
    )
    process.start()
    assert "DiskFull: the disk is full: no room for " in (said := receiver.recv()) and "(" in said
    process.join()
    store = ActivationStore(tmp_path / "store")
    store.verify()
    assert not store.is_complete and not list((tmp_path / "store").glob("*.part"))


def test_what_will_not_fit_is_refused_before_the_work(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    module = importlib.import_module("solutions.models.harvest")
    monkeypatch.setattr(module, "shutil", SimpleNamespace(disk_usage=lambda path: usage(0, 0, 20_000)))
    with pytest.raises(DiskFull, match="GB are needed for 60 documents"):
        run(tmp_path / "store")
    assert ActivationStore(tmp_path / "store").n_documents == 0
    with pytest.raises(DiskFull, match="for 1,000,000 documents"):
        run(tmp_path / "stream", iter(TEXTS), n_documents=1_000_000)
    assert run(tmp_path / "unknown", iter(TEXTS)).is_complete  # nobody knows how long the stream is
    assert run(tmp_path / "small", TEXTS[:5]).is_complete


def test_the_second_writer_is_refused_and_a_dead_one_is_not_in_the_way(tmp_path, reference, processes):
    path = tmp_path / "store"
    seen = []

    def second():
        if not seen:
            seen.append(1)
            with pytest.raises(StoreInUse, match=r"being written by another process \(number \d+\)"):
                run(path)

    class Late(list):  # the second comes while the first one reads its texts
        def __iter__(self):
            for i, text in enumerate(super().__iter__()):
                if i == 30:
                    second()
                yield text

    run(path, Late(TEXTS))
    assert seen and content(path) == reference

    receiver, sender = processes.Pipe(duplex=False)
    process = processes.Process(target=run_and_tell, args=(tmp_path / "dead", sender))
    process.start()
    for _ in range(3):
        receiver.recv_bytes()
    process.kill()
    process.join()
    assert (tmp_path / "dead" / "writer.lock").read_text() == str(process.pid)
    run(tmp_path / "dead")
    assert content(tmp_path / "dead") == reference


# ---- from the shell


def test_the_shell_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("solutions.models.load_model", lambda target, device: tiny_model())
    folder, store = tmp_path / "texts", tmp_path / "store"
    folder.mkdir()
    for name in "ab":
        (folder / f"{name}.txt").write_text(f"The Eiffel Tower is in Paris, {name}.")
    line = ["harvest", "--out", str(store), "--texts", str(folder), "--hooks", *PLACES, "--dtype", "float16"]
    assert main([*line, "--quiet"]) == 0 and main([*line, "--quiet"]) == 0
    assert ActivationStore(store).n_documents == 2 and ActivationStore(store).hooks == PLACES
    assert main(["info", str(store)]) == 0 and main(["verify", str(store)]) == 0
    said = capsys.readouterr().out
    assert "float16" in said and "blocks.0.attn.hook_z [16]" in said and "every checksum is right" in said

    acts = store / "acts-00000.safetensors"
    acts.write_bytes(acts.read_bytes()[:-1] + b"\x7f")
    assert main(["verify", str(store)]) == 1
    assert "acts-00000.safetensors is damaged" in capsys.readouterr().err
    assert main([*line, "--quiet", "--seed", "3"]) == 1
    assert "seed: the store has 0, this call has 3" in capsys.readouterr().err
    assert main(["harvest", "--out", str(tmp_path / "new"), "--texts", "smallworld"]) == 1
    assert "never ends" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["harvest"])
