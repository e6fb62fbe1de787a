"""A model that is one table, with the interface `harvest` needs, and a harvest of it that a test can kill.

A process that is killed 20 times has to start quickly: nothing here imports TransformerLens.
"""

from __future__ import annotations

import os
import resource
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import torch

from solutions.models.harvest import harvest

HOOKS = ["blocks.0.hook_resid_pre", "blocks.1.hook_resid_pre"]
TEXTS = [chr(97 + i % 26) * (1 + 7 * i % 29) + str(i) for i in range(60)]
SETTINGS = {"batch_size": 4, "shard_tokens": 200, "dtype": "float16", "progress": False}


class StubTokenizer:
    """One token for each byte; BOS is token 0."""

    bos_token_id = pad_token_id = 0

    def __call__(self, texts, add_special_tokens):
        return {"input_ids": [list(text.encode()) for text in texts]}

    def get_vocab(self):
        return {chr(i): i for i in range(256)}


class StubModel(torch.nn.Module):
    """What flows through it at a position is the sum of the table's rows so far: past tokens matter, later ones do not.

    Args:
        tick: called at each forward pass.
        seed: another seed is another training.
    """

    def __init__(self, tick=lambda: None, seed: int = 0):
        super().__init__()
        table = torch.randn(256, 8, generator=torch.Generator().manual_seed(seed))
        self.table = torch.nn.Parameter(table)
        self.cfg = SimpleNamespace(
            n_ctx=32,
            n_layers=2,
            d_vocab=256,
            device="cpu",
            model_name="stub",
            positional_embedding_type="standard",
        )
        self.tokenizer, self.tick = StubTokenizer(), tick
        self.hook_dict = dict.fromkeys([*HOOKS, "blocks.0.attn.hook_pattern"])
        self.last = []  # shapes of the rows read

    def _gated_hook_reason(self, name):
        return None

    def run_with_cache(self, *_, **__):
        raise NotImplementedError

    @contextmanager
    def hooks(self, fwd_hooks):
        self.hung = fwd_hooks
        yield
        self.hung = []

    def forward(self, ids, return_type=None):
        self.tick()
        self.last.append(tuple(ids.shape))
        sums = self.table[ids].cumsum(dim=1)
        values = dict(zip(HOOKS, (sums, sums.square()), strict=True))
        values["blocks.0.attn.hook_pattern"] = torch.ones(len(ids), 2, ids.shape[1], ids.shape[1])
        for name, hook in self.hung:
            hook(values[name], hook=None)


def run(path: Path, texts=TEXTS, tick=lambda: None, **changes):
    """Harvest the stub."""
    return harvest(StubModel(tick), texts, HOOKS, path, **(SETTINGS | changes))


def run_and_tell(path: Path, sender) -> None:
    """Harvest in a process of its own, and send a byte at each forward pass."""
    torch.set_num_threads(1)
    run(path, tick=lambda: sender.send_bytes(b"."))


def run_with_small_files(path: Path, texts: list[str], limit: int, sender, **changes) -> None:
    """Harvest where no file may grow beyond `limit` bytes, as on a full disk, and send the error."""
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        run(path, texts, **changes)
        sender.send("no error")
    except OSError as error:
        sender.send(f"{type(error).__name__}: {error}")


def content(path: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {name: (path / name).read_bytes() for name in sorted(os.listdir(path))}
