"""Small made-up data to train on, and trainings that a test can kill or start twice over.

    python tests/stub_training.py kill FOLDER SEED      trains in child processes and kills them
    python tests/stub_training.py team FOLDER           one of several processes; torchrun's variables say which
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from solutions.data import ActivationStore, Shard, StoreWriter
from solutions.sae.architectures import make_sae
from solutions.sae.training import HarvestSource, Plan, StoreSource, train
from solutions.sae.training.run import Run

HOOK, OTHER = "blocks.0.hook_resid_pre", "blocks.0.hook_mlp_out"
D, FEATURES = 12, 48
PLAN = Plan(
    n_tokens=64 * 60,  # 60 steps, more than one epoch
    batch_size=64,
    lr=3e-3,
    checkpoint_every=7,
    log_every=4,
    dead_after=64,  # one step: some latents always count as dead, so that it matters who they are
    resample_at=(25,),
)

#: What several processes do together: without resampling, which would be one more thing to differ.
TOGETHER = PLAN.replace(resample_at=(), n_tokens=64 * 40, lr=1e-2, dead_after=600)


def numbers(n: int, seed: int = 0) -> Tensor:
    """[n, D] sums of a few of 48 directions, on top of a mean that is not zero, at a size of no particular kind."""
    fixed, dice = torch.Generator().manual_seed(123), torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(FEATURES, D, generator=fixed), dim=1)
    active = (torch.rand(n, FEATURES, generator=dice) < 0.05) * torch.rand(n, FEATURES, generator=dice)
    noise = 0.02 * torch.randn(n, D, generator=dice)  # no two rows are the same
    return 7 * (active @ directions) + noise + torch.linspace(-1, 2, D)


def make_store(path: Path, documents: int = 120, length: int = 20) -> ActivationStore:
    """A store of two hook points in four shards; the second is the first, mixed by a fixed matrix."""
    x = numbers(documents * length)
    mix = torch.randn(D, 2 * D, generator=torch.Generator().manual_seed(1)) / D**0.5
    acts = {HOOK: x, OTHER: x @ mix}
    head = {"model": "none", "hooks": {HOOK: {"shape": [D]}, OTHER: {"shape": [2 * D]}}, "prepend_bos": True}
    head |= {"dtype": "float32", "seed": 0, "test_share": 0.2, "context_size": length}
    per_shard = documents // 4
    with StoreWriter(path, head) as writer:
        for i in range(4):
            part = slice(i * per_shard * length, (i + 1) * per_shard * length)
            pieces = {hook: values[part].contiguous() for hook, values in acts.items()}
            n = per_shard * length
            writer.write(i, Shard(torch.arange(n) % 50, [length] * per_shard, ["made up"] * per_shard, pieces, "-"))
        writer.finish()
    return ActivationStore(path)


def fresh(architecture: str = "batchtopk", **settings):
    """An SAE for this data."""
    own = {"batchtopk": {"k": 3}, "topk": {"k": 3}, "matryoshka": {"k": 3}, "relu": {"l1": 0.3}}
    return make_sae(architecture, D, 40, **own.get(architecture, {}) | settings)


# ---- killed


def in_a_child(store: Path, folder: Path, architecture: str, kill_after: int | None) -> int:
    """Train in a forked process; kill it, with no warning, after so many of its steps. Returns the steps it took."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reading)
        tell = lambda table: os.write(writing, b".")  # noqa: E731
        source = StoreSource(ActivationStore(store), HOOK, buffer_tokens=256)
        train(fresh(architecture), source, PLAN.replace(log_every=1), folder, progress=False, live=tell)
        os._exit(0)
    os.close(writing)
    steps = 0
    while os.read(reading, 1):
        steps += 1
        if steps == kill_after:
            os.kill(pid, signal.SIGKILL)
    os.close(reading)
    _, status = os.waitpid(pid, 0)
    killed = os.WIFSIGNALED(status)
    assert killed == (kill_after is not None), f"status {status} after {steps} steps"
    return steps


def kill_again_and_again(folder: Path, seed: int) -> None:
    """One run that is left alone, and one that is killed until it is through; says how it went as JSON."""
    dice = np.random.default_rng(seed)
    store = make_store(folder / "store").path
    _warm_up(store)
    told = {}
    lengths = {"batchtopk": [(1, 9), (8, 16), (8, 16), (8, 16)], "relu": [(8, 24)] * 3}
    for architecture in lengths:
        in_a_child(store, folder / architecture / "whole", architecture, None)
        cut, kills = folder / architecture / "cut", []
        for shortest, longest in lengths[architecture]:
            kills.append(in_a_child(store, cut, architecture, int(dice.integers(shortest, longest))))
        kills.append(in_a_child(store, cut, architecture, None))
        told[architecture] = kills
    print(json.dumps(told))


def _warm_up(store: Path) -> None:
    """Import what torch imports at the first step, once, before the children are forked."""
    train(fresh("relu"), StoreSource(ActivationStore(store), HOOK), Plan(n_tokens=64, batch_size=64), progress=False)


# ---- together


def with_others(folder: Path) -> None:
    """This process's part of some trainings by all of them; each writes what it ended with."""
    from accelerate import PartialState
    from stub_harvest import TEXTS, StubModel

    state = PartialState(cpu=True)
    source = StoreSource(ActivationStore(folder / "store"), HOOK, buffer_tokens=256)
    ended = {}
    for architecture in ("relu", "topk", "batchtopk"):
        ended[architecture] = train(fresh(architecture), source, TOGETHER, folder / architecture, progress=False)
    with Run(fresh("relu"), source, TOGETHER, folder / "cut") as cut:  # stops at step 17, goes on from step 14
        for _, batch in zip(range(17), cut.batches(), strict=False):
            cut.advance(batch)
    ended["cut"] = train(fresh("relu"), source, TOGETHER, folder / "cut", progress=False)
    texts = HarvestSource(StubModel(), TEXTS, "blocks.0.hook_resid_pre", buffer_tokens=128, rows=4)
    sae, plan = make_sae("topk", 8, 24, k=2), Plan(n_tokens=640, batch_size=32, log_every=5, checkpoint_every=8)
    ended["harvest"] = train(sae, texts, plan, folder / "harvest", progress=False)
    weights = {name: trained.sae.W_enc.detach().flatten().tolist()[:50] for name, trained in ended.items()}
    (folder / f"weights-{state.process_index}.json").write_text(json.dumps(weights))
    state.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    mode, folder, *rest = sys.argv[1:]
    if mode == "kill":
        kill_again_and_again(Path(folder), int(rest[0]))
    else:
        with_others(Path(folder))
