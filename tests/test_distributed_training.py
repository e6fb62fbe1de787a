"""Two processes train one SAE, and get what a single process gets. And training from the shell."""

import json
import os
import re
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from stub_harvest import HOOKS, TEXTS, StubModel
from stub_training import HOOK, OTHER, TOGETHER, fresh, make_store

from solutions import train as shell
from solutions.data import ActivationStore, open_texts
from solutions.errors import InputError
from solutions.sae import load_sae_from_disk
from solutions.sae.training import StoreSource, read_log, train
from solutions.sae.training.checkpoint import last_checkpoint
from solutions.sae.training.team import Team

ROOT = Path(__file__).resolve().parent.parent
STUB = Path(__file__).parent / "stub_training.py"


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return str(held.getsockname()[1])


def start(*commands, timeout=300):
    """Run Python commands side by side, each with its own variables on top; fails with what they said."""
    common = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT)}
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "cwd": ROOT}
    processes = [
        subprocess.Popen([sys.executable, *map(str, command)], env=common | variables, **settings)
        for command, variables in commands
    ]
    try:
        said = [process.communicate(timeout=timeout)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert not any(process.returncode for process in processes), "\n".join(text[-2000:] for text in said)
    return said


def as_a_team(*command):
    """The same command in two processes that find each other as torchrun's do."""
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    return start(*((command, common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(2)))


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """The folder of some trainings by two processes."""
    folder = tmp_path_factory.mktemp("together")
    make_store(folder / "store")
    as_a_team(STUB, "team", folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["relu", "topk"])
def test_two_processes_follow_the_curve_of_one(together, architecture):
    source = StoreSource(ActivationStore(together / "store"), HOOK, buffer_tokens=256)
    alone = train(fresh(architecture), source, TOGETHER, progress=False)
    log = read_log(together / architecture)
    assert log["step"].tolist() == alone.log["step"].tolist()  # one process wrote, and each row once
    assert np.allclose(log["loss"], alone.log["loss"], rtol=1e-4)
    assert np.allclose(log["ev"], alone.log["ev"], atol=1e-4)
    assert np.allclose(log["grad_norm"], alone.log["grad_norm"], rtol=1e-3)
    assert log["dead"].tolist() == alone.log["dead"].tolist()
    saved = load_sae_from_disk(together / architecture / "sae")
    assert torch.allclose(saved.W_dec, alone.sae.W_dec, atol=1e-3)
    assert log["ev"].iloc[-1] > log["ev"].iloc[0] + 0.15  # and it is a curve


@pytest.mark.slow
def test_batchtopk_competes_within_each_share_and_ends_close(together):
    """Its k latents per token are those of half a batch: the same on average, not to the last digit."""
    source = StoreSource(ActivationStore(together / "store"), HOOK, buffer_tokens=256)
    alone = train(fresh(), source, TOGETHER, progress=False)
    log = read_log(together / "batchtopk")
    assert log["ev"].iloc[-1] == pytest.approx(alone.log["ev"].iloc[-1], abs=0.05)
    assert log["l0"].iloc[-1] == pytest.approx(3, abs=0.1)


@pytest.mark.slow
def test_all_processes_end_with_the_same_weights(together):
    first, second = (json.loads((together / f"weights-{rank}.json").read_text()) for rank in range(2))
    assert first == second and set(first) == {"relu", "topk", "batchtopk", "cut", "harvest"}


@pytest.mark.slow
def test_two_processes_that_stop_go_on_where_they_were(together):
    weights = json.loads((together / "weights-0.json").read_text())
    assert weights["cut"] == weights["relu"]
    logs = [read_log(together / name).drop(columns="seconds") for name in ("cut", "relu")]
    assert logs[0].equals(logs[1])


@pytest.mark.slow
def test_processes_with_texts_of_their_own_train_one_sae(together):
    log = read_log(together / "harvest")
    assert log["tokens"].iloc[-1] == 640 and log["ev"].iloc[-1] > log["ev"].iloc[0]
    assert json.loads((together / "harvest" / "run.json").read_text())["processes"] == 2


# ---- from the shell


def options(folder, store, *more):
    return [
        "--out", folder, "--store", store, "--hook", HOOK, "--device", "cpu", "--quiet", "--architecture", "relu",
        "--latents", "40", "--l1", "0.3", "--tokens", "2560", "--batch-size", "64", "--lr", "0.003",
        "--log-every", "4", "--checkpoint-every", "7", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("data") / "store").path


def call(capsys, *arguments):
    """Exit code, what was printed, and what went to the error stream."""
    code = shell.main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def test_the_shell_trains_and_saves(capsys, stored, tmp_path):
    code, out, _ = call(capsys, *options(tmp_path / "run", stored))
    assert code == 0 and "TrainedSAE relu, 40 latents" in out and "load_sae_from_disk" in out
    sae = load_sae_from_disk(tmp_path / "run" / "sae")
    assert (sae.cfg.d_sae, sae.cfg.metadata.hook_name) == (40, HOOK)
    assert read_log(tmp_path / "run")["step"].iloc[-1] == 40
    assert call(capsys, *options(tmp_path / "run", stored, "--resume"))[0] == 0


@pytest.mark.slow
def test_accelerate_starts_two_processes_that_give_the_curve_of_one(capsys, stored, tmp_path):
    assert call(capsys, *options(tmp_path / "one", stored))[0] == 0
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]  # the CPU is our option's part
    command = [*launch, "--main_process_port", free_port(), "-m", "solutions.train", *options(tmp_path / "two", stored)]
    (said,) = start((command, {}))
    assert said.count("TrainedSAE relu") == 1  # one of them speaks
    one, two = (read_log(tmp_path / name) for name in ("one", "two"))
    assert np.allclose(one["loss"], two["loss"], rtol=1e-4) and len(one) == len(two) == 11
    assert [last_checkpoint(tmp_path / name).facts["processes"] for name in ("one", "two")] == [1, 2]


def test_the_shell_trains_a_transcoder(capsys, stored, tmp_path):
    code, _, _ = call(capsys, *options(tmp_path / "run", stored, "--target-hook", OTHER))
    assert code == 0
    assert load_sae_from_disk(tmp_path / "run" / "sae").cfg.d_out == 24


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--resume"], "there is no run in .* to go on with"),
        (["--k", "3"], "--k means nothing to 'relu'"),
        (["--hook", "blocks.9.hook_x"], "unknown hook point"),
        (["--lr", "-1"], "lr must be a number above 0"),
        (["--l1", "-1"], "l1 must be"),
        (["--architecture", "topk", "--l1", "1"], "--l1 means nothing to 'topk'"),
        (["--tokens", "10"], "batch_size is 64, but the run sees only n_tokens = 10"),
        (["--target", "gpt3"], "unknown target 'gpt3'"),
        (["--set", "tied=maybe"], "tied must be True or False"),
        (["--set", "speed=1"], "setting of 'relu': 'speed'"),
    ],
)
def test_the_shell_refuses_what_cannot_be(capsys, stored, tmp_path, more, says):
    settings = options(tmp_path / "run", stored)
    if "topk" in more:
        settings = [s for s in settings if s not in ("--l1", "0.3")]
    code, _, err = call(capsys, *settings, *more)
    assert code == 1 and re.search(says, err), err
    assert "Traceback" not in err and not (tmp_path / "run").exists()


def test_the_shell_says_how_much_text_it_needs(capsys, tmp_path):
    settings = ["--out", tmp_path / "run", "--store", tmp_path / "new", "--device", "cpu"]
    code, _, err = call(capsys, *settings)
    assert code == 1 and "--documents 2000" in err


@pytest.mark.parametrize("option", [["--tokens", "0"], ["--width", "x"], ["--set", "tied"], ["--architecture", "sae"]])
def test_the_shell_explains_its_options(capsys, option, tmp_path):
    with pytest.raises(SystemExit):
        shell.main(["--out", str(tmp_path), *option])
    assert option[0] in capsys.readouterr().err


def test_texts_are_shared_out_when_each_process_fills_a_store(tmp_path, monkeypatch):
    """Two ranks, one after the other: each harvests its own texts into its own part of the store."""
    model = StubModel()
    monkeypatch.setattr(shell, "load_model", lambda *_: model)
    asked = shell.parser().parse_args(
        ["--out", "x", "--store", str(tmp_path / "store"), "--hook", HOOKS[0], "--quiet", "--documents", "21"]
    )
    found = []
    for rank in range(2):
        team = Team()
        team.rank, team.size = rank, 2
        store = shell.filled_store(asked, None, torch.device("cpu"), team, partial(open_texts, TEXTS, 21))
        assert store.path.name == f"part-000{rank}-of-0002"
        found += [int(n) for n in store.documents["length"]]
        source = StoreSource(store, own=True)
        assert len(next(source.batches(16, stripe=(rank, 2))).x) == 8
    lengths = [min(len(text.encode()), 31) + 1 for text in TEXTS[:21]]
    assert found == lengths[0::2] + lengths[1::2]


def test_a_batch_that_processes_cannot_share_is_refused(stored):
    with pytest.raises(InputError, match="3 processes cannot share"):
        StoreSource(ActivationStore(stored), HOOK).batches(64, stripe=(0, 3))
