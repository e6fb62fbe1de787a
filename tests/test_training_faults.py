"""What can go wrong in training: killed processes, damaged files, other people's folders, losses that explode."""

import json
import math
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from stub_training import HOOK, OTHER, PLAN, D, fresh, make_store, numbers

from solutions.data import DamagedFile, DiskFull, StoreInUse
from solutions.errors import InputError
from solutions.sae.architectures import make_sae
from solutions.sae.training import Plan, StoreSource, TensorSource, TrainingDiverged, train
from solutions.sae.training.checkpoint import last_checkpoint
from solutions.sae.training.run import Run

STUB = Path(__file__).parent / "stub_training.py"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return StoreSource(make_store(tmp_path_factory.mktemp("data") / "store"), HOOK, buffer_tokens=256)


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory):
    """A run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(fresh(), source, PLAN, folder, progress=False)
    return folder


def advance(run, n):
    """Train `n` steps and stop without a word, as a process that is killed."""
    with run:
        for _, batch in zip(range(n), run.batches(), strict=False):
            run.advance(batch)


def assert_same_end(a, b, n_steps=PLAN.n_steps):
    """Two runs ended with the same bits, and said the same on the way; only the clock may differ."""
    ends = [last_checkpoint(folder) for folder in (a, b)]
    assert [end.step for end in ends] == [n_steps] * 2 and all(end.facts["finished"] for end in ends)
    assert ends[0].tensors.keys() == ends[1].tensors.keys()
    assert all(torch.equal(tensor, ends[1].tensors[name]) for name, tensor in ends[0].tensors.items())
    for name in ("cfg.json", "sae_weights.safetensors"):
        assert (a / "sae" / name).read_bytes() == (b / "sae" / name).read_bytes()
    logs = [[line.rsplit(",", 1)[0] for line in (folder / "log.csv").read_text().splitlines()] for folder in (a, b)]
    assert logs[0] == logs[1]


# ---- killed


@pytest.mark.slow
def test_killed_processes_end_where_one_that_was_left_alone_ends(tmp_path):
    """SIGKILL at random steps, several times in a row, with resampling and two epochs in between."""
    done = subprocess.run(
        [sys.executable, STUB, "kill", tmp_path, "11"], capture_output=True, text=True, timeout=240,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},  # CUDA does not outlive a fork
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for architecture, steps in json.loads(done.stdout).items():
        assert len(steps) >= 4 and sum(steps) > PLAN.n_steps  # work was lost, and done again
        assert_same_end(tmp_path / architecture / "whole", tmp_path / architecture / "cut")


@pytest.mark.parametrize("architecture", ["relu", "topk", "jumprelu", "gated", "matryoshka"])
def test_every_architecture_goes_on_where_it_stopped(source, tmp_path, architecture):
    train(fresh(architecture), source, PLAN, tmp_path / "whole", progress=False)
    for n in (10, 16, 23):
        advance(Run(fresh(architecture), source, PLAN, tmp_path / "cut"), n)
    train(fresh(architecture), source, PLAN, tmp_path / "cut", progress=False)
    assert_same_end(tmp_path / "whole", tmp_path / "cut")


def test_a_run_may_stop_after_any_step(source, tmp_path):
    plan = PLAN.replace(n_tokens=64 * 16, checkpoint_every=3, resample_at=(7,))
    train(fresh(), source, plan, tmp_path / "whole", progress=False)
    for n in range(plan.n_steps):
        folder = tmp_path / str(n)
        advance(Run(fresh(), source, plan, folder), n)
        cut = Run(fresh(), source, plan, folder)
        cut.close()
        assert cut.step == n - n % 3
        train(fresh(), source, plan, folder, progress=False)
        assert_same_end(tmp_path / "whole", folder, plan.n_steps)


def test_how_long_each_latent_has_been_silent_is_remembered(source, tmp_path):
    sae, plan = fresh("relu"), PLAN.replace(initialise=False, resample_at=())
    with torch.no_grad():
        sae.b_enc[7] = -1000.0
    run = Run(sae, source, plan, tmp_path)
    advance(run, 21)
    again = Run(sae, source, plan, tmp_path)
    again.close()
    assert again.silent[7] == 21 * 64 and torch.equal(again.silent, run.silent)


def test_other_sources_go_on_too(tmp_path):
    for name, source in (
        ("tensor", TensorSource(numbers(1000))),
        ("pairs", TensorSource(numbers(1000), numbers(1000, 3))),
    ):
        sae = make_sae("relu", D, 40, l1=0.1, d_out=D if source.has_target else None)
        train(sae, source, PLAN, tmp_path / name / "whole", progress=False)
        advance(Run(sae, source, PLAN, tmp_path / name / "cut"), 33)
        train(sae, source, PLAN, tmp_path / name / "cut", progress=False)
        assert_same_end(tmp_path / name / "whole", tmp_path / name / "cut")


def test_a_finished_run_is_opened_not_repeated(source, whole, monkeypatch):
    first = train(fresh(), source, PLAN, whole, progress=False)
    monkeypatch.setattr(Run, "advance", lambda *_: pytest.fail("it was finished"))
    again = train(fresh(), source, PLAN, whole, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(first.sae.parameters(), again.sae.parameters(), strict=True))
    assert again.log.equals(first.log) and len(again.log) == 16


def test_a_run_that_was_cut_off_while_saving_is_saved_again(source, whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "sae")
    train(fresh(), source, PLAN, folder, progress=False)
    assert_same_end(whole, folder)


def test_two_checkpoints_are_kept_and_leftovers_go(source, tmp_path):
    advance(Run(fresh(), source, PLAN, tmp_path), 30)
    place = tmp_path / "checkpoints"
    assert sorted(p.name for p in place.glob("*.json")) == ["step-00000021.json", "step-00000028.json"]
    # A process that died between the two files of a checkpoint leaves tensors that nothing speaks of.
    (place / "step-00000035.safetensors").write_bytes(b"half")
    (place / "step-00000035.part").write_bytes(b"half")
    run = Run(fresh(), source, PLAN, tmp_path)
    assert run.step == 28
    advance(run, 10)
    assert sorted({p.name[:13] for p in place.iterdir()}) == ["step-00000028", "step-00000035"]


def test_starting_over_forgets_what_was_there(source, whole, tmp_path):
    advance(Run(fresh(), source, PLAN, tmp_path), 30)
    train(fresh(), source, PLAN, tmp_path, resume=False, progress=False)
    assert_same_end(whole, tmp_path)


# ---- another run's folder


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"plan": PLAN.replace(lr=1e-4)}, r"plan.lr: the run has 0.003, this call has 0.0001"),
        ({"plan": PLAN.replace(resample_at=())}, r"plan.resample_at: the run has \[25\], this call has \[\]"),
        ({"plan": PLAN.replace(diverged_at=math.inf)}, "plan.diverged_at: the run has 10.0, this call has 'inf'"),
        ({"sae": lambda: fresh(k=4)}, "sae.hyper.k: the run has 3, this call has 4"),
        ({"sae": lambda: fresh("topk")}, "sae.architecture: the run has 'batchtopk', this call has 'topk'"),
        ({"sae": lambda: fresh(seed=5)}, "sae.weights.W_"),
        ({"source": lambda s: StoreSource(s.store, HOOK, buffer_tokens=512)}, "source.buffer_tokens: .* 256, .* 512"),
        ({"source": lambda s: StoreSource(s.store, HOOK, split=None, buffer_tokens=256)}, "source.split"),
        ({"source": lambda s: TensorSource(numbers(500))}, "source.kind: the run has 'store', this call has 'tensor'"),
    ],
)
def test_another_run_is_refused_by_name(source, whole, change, says):
    before = sorted(p.name for p in whole.rglob("*"))
    with pytest.raises(InputError, match=says) as error:
        train(
            change.get("sae", fresh)(),
            change.get("source", lambda s: s)(source),
            change.get("plan", PLAN),
            whole,
            progress=False,
        )
    assert "resume=False" in str(error.value)
    assert sorted(p.name for p in whole.rglob("*")) == before


def test_other_data_under_the_same_name_is_refused(tmp_path):
    advance(Run(fresh(), TensorSource(numbers(500)), PLAN, tmp_path), 9)
    with pytest.raises(InputError, match="source.x.sha256"):
        Run(fresh(), TensorSource(numbers(500, seed=1)), PLAN, tmp_path)


def test_a_folder_of_something_else_is_left_alone(source, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    for resume in (True, False):
        with pytest.raises(InputError, match="holds 'thesis.txt', which is no part of a run"):
            train(fresh(), source, PLAN, tmp_path, resume=resume, progress=False)
    with pytest.raises(InputError, match="is a file"):
        train(fresh(), source, PLAN, tmp_path / "thesis.txt", progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


# ---- damaged files


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda p: flip(p.with_suffix(".safetensors")), "expected sha256"),
        (lambda p: p.with_suffix(".safetensors").write_bytes(b"x" * 100), "expected [0-9,]+ bytes, found 100"),
        (lambda p: p.with_suffix(".safetensors").unlink(), "it is missing"),
        (lambda p: p.with_suffix(".json").write_text('{"format": 1'), "not readable"),
        (lambda p: p.with_suffix(".json").write_text("[]"), "not readable"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_way_out_works(source, whole, tmp_path, damage, says):
    advance(Run(fresh(), source, PLAN, tmp_path), 30)
    last = tmp_path / "checkpoints" / "step-00000028"
    damage(last)
    with pytest.raises(DamagedFile, match=f"step-00000028.*{says}.*Delete step-00000028.json"):
        train(fresh(), source, PLAN, tmp_path, progress=False)
    last.with_suffix(".json").unlink()  # what the message says
    train(fresh(), source, PLAN, tmp_path, progress=False)
    assert_same_end(whole, tmp_path)


def test_a_damaged_description_of_a_run_is_named(source, tmp_path):
    advance(Run(fresh(), source, PLAN, tmp_path), 9)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(InputError, match="run.json is not readable.*resume=False"):
        Run(fresh(), source, PLAN, tmp_path)


def test_a_checkpoint_of_a_later_version_is_refused(source, tmp_path):
    advance(Run(fresh(), source, PLAN, tmp_path), 9)
    path = tmp_path / "checkpoints" / "step-00000007.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(InputError, match="checkpoint of format 2, this code reads 1"):
        Run(fresh(), source, PLAN, tmp_path)


# ---- other processes, and full disks


def test_two_runs_cannot_share_a_folder_at_a_time(source, tmp_path):
    with Run(fresh(), source, PLAN, tmp_path):
        with pytest.raises(StoreInUse, match="being written by another process"):
            train(fresh(), source, PLAN, tmp_path, progress=False)
    with pytest.raises(InputError):  # what fails before the first step holds nothing back
        train(fresh(k=2), source, PLAN, tmp_path, progress=False)
    train(fresh(), source, PLAN, tmp_path, progress=False)


def test_a_full_disk_is_named_and_nothing_is_lost(source, whole, tmp_path):
    advance(Run(fresh(), source, PLAN, tmp_path), 10)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, hard))  # no file may grow beyond this: as on a full disk
    try:
        with pytest.raises(DiskFull, match="no room for step-00000014.safetensors.*start the same run again"):
            train(fresh(), source, PLAN, tmp_path, progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [p.name for p in (tmp_path / "checkpoints").glob("*.json")] == ["step-00000007.json"]
    train(fresh(), source, PLAN, tmp_path, progress=False)
    assert_same_end(whole, tmp_path)


# ---- losses that explode


def test_a_learning_rate_that_is_too_high_is_stopped_and_named(tmp_path):
    source, plan = TensorSource(numbers(2000)), PLAN.replace(lr=30.0, log_every=1, n_tokens=64 * 60, resample_at=())
    with pytest.raises(TrainingDiverged, match=r"Lower the learning rate: lr=6 instead of 30") as error:
        train(fresh("relu"), source, plan, tmp_path, progress=False)
    assert 5 <= error.value.step < 60
    assert "times that of predicting the mean" in str(error.value) and "warmup=0.05" in str(error.value)
    # The same run is let go on when one says so, and a sound one is not stopped.
    train(fresh("relu"), source, plan.replace(diverged_at=math.inf), progress=False)
    train(fresh("relu"), source, plan.replace(lr=3e-3), progress=False)


def breaks_after(n, monkeypatch, value=math.nan):
    """A ReLU SAE whose loss is not a number from its n-th step on."""
    kind, calls = type(fresh("relu")), []
    losses = kind.losses

    def broken(self, *args, **settings):
        calls.append(1)
        found = losses(self, *args, **settings)
        return found if len(calls) <= n else found._replace(total=found.total * value)

    monkeypatch.setattr(kind, "losses", broken)
    return fresh("relu")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_with_the_last_good_checkpoint(tmp_path, monkeypatch, source, value):
    plan = PLAN.replace(clip=None, normalise=False, resample_at=(), step="dense", diverged_at=math.inf)
    with pytest.raises(TrainingDiverged, match="no longer a number") as error:
        train(breaks_after(17, monkeypatch, value), source, plan, tmp_path, progress=False)
    said = str(error.value)
    assert (error.value.step, error.value.checkpoint) == (18, 14)
    assert "last good checkpoint is that of step 14" in said and str(tmp_path) in said
    assert "clip=1.0" in said and "normalise=True" in said
    found = last_checkpoint(tmp_path)
    assert found.step == 14 and all(t.isfinite().all() for t in found.tensors.values() if t.is_floating_point())


def test_without_a_folder_the_message_says_that_nothing_was_saved(monkeypatch, source):
    plan = PLAN.replace(step="dense", resample_at=())
    with pytest.raises(TrainingDiverged, match="Nothing was saved"):
        train(breaks_after(5, monkeypatch), source, plan, progress=False)


def test_weights_that_are_no_numbers_are_never_kept(tmp_path, source):
    run = Run(fresh("relu"), source, PLAN, tmp_path)
    with run, pytest.raises(TrainingDiverged):
        for batch in run.batches():
            run.advance(batch)
            if run.step == 13:
                with torch.no_grad():
                    run.sae.W_dec[3, 3] = math.nan
    assert last_checkpoint(tmp_path).step == 7


def test_data_that_are_no_numbers_are_blamed_on_the_data(tmp_path):
    x = numbers(4000)
    x[2500, 3] = math.inf
    plan = PLAN.replace(normalise=False, initialise=False, resample_at=())
    with pytest.raises(TrainingDiverged, match="activations themselves hold numbers that are not finite"):
        train(fresh("relu"), TensorSource(x), plan.replace(n_tokens=4000), tmp_path, progress=False)
    with pytest.raises(InputError, match="mean length inf"):
        train(fresh("relu"), TensorSource(x), plan.replace(normalise=True), progress=False)


def test_a_transcoders_run_says_which_hooks_it_is_of(source, tmp_path):
    pairs = StoreSource(source.store, HOOK, target_hook=OTHER)
    plan = Plan(n_tokens=640, batch_size=64, checkpoint_every=5)
    train(make_sae("relu", D, 20, d_out=2 * D), pairs, plan, tmp_path, progress=False)
    assert json.loads((tmp_path / "run.json").read_text())["source"]["target_hook"] == OTHER
    assert json.loads((tmp_path / "sae" / "cfg.json").read_text())["metadata"]["hook_name_out"] == OTHER
