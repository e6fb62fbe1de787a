"""The table of all latents: how long one pass takes, and how much memory.

Two indices: one of the embedded target, with concept labels, and the made-up one of `bench_index`, 24,576
latents × 1,000,000 tokens with about 50 active latents a token, without and with made-up labels. Promised is
a few minutes and a memory that does not grow with the number of entries.

    python -m tests.benchmarks latents [--quick]
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from tests.benchmarks.bench_index import peak_memory, write_synthetic

LIMIT_S = 300.0    # "within a few minutes"
LIMIT_MB = 2048.0  # beside the mapped files, of which the system takes back what it needs
LIMIT_EMBEDDED_S = 10.0


def row(name: str, value: float, unit: str, limit: float | None = None, note: str = "") -> dict:
    """One line of the table; what has a limit must not be above it."""
    ok = None if limit is None else bool(value <= limit)
    return {"name": f"latents: {name}", "value": value, "unit": unit, "limit": limit, "ok": ok, "note": note}


def run(quick: bool) -> list[dict]:
    """All rows of this bench: name, value, unit, limit, ok, note."""
    with tempfile.TemporaryDirectory(prefix="bench-latents-") as folder:
        return [*embedded_rows(Path(folder), quick), *synthetic_rows(Path(folder), quick)]


def cost_rows(what: str, ask, note: str, limit_s: float) -> list[dict]:
    """Seconds and memory of one call."""
    start, used = time.perf_counter(), time.process_time()
    with peak_memory() as memory:
        answer = ask()
    seconds, cpu = time.perf_counter() - start, time.process_time() - used
    note = f"{note}; CPU {cpu:.1f} s; {len(answer):,} rows"
    return [row(f"{what}, time", seconds, "s", limit_s, note),
            row(f"{what}, memory", memory.mb, "MB", LIMIT_MB, note)]


def embedded_rows(folder: Path, quick: bool) -> list[dict]:
    """The target's own index, with all that is known about its concepts."""
    from solutions.analysis import build_index, concept_table, latent_table, place_labels
    from solutions.analysis.texts import labelled_texts
    from solutions.data import str_tokens
    from solutions.models import load_model, unembedding
    from solutions.models.harvest import harvest
    from solutions.sae import load_sae
    from solutions.smallworld.corpus import SEEDS, documents
    from solutions.targets import get_target

    target = get_target("smallworld")
    model, sae, n = load_model(target, "cpu"), load_sae(target, "cpu"), 200 if quick else 2000
    texts = [document.text for document in documents(SEEDS["test"], n)]
    store = harvest(model, texts, target.hook, folder / "store", test_share=0.3, progress=False)
    vocabulary = str_tokens(model, torch.arange(model.cfg.d_vocab))
    index = build_index(store, sae, target.hook, folder / "index", vocabulary=vocabulary,
                        unembed=unembedding(model), progress=False)
    world = labelled_texts(model, n)
    labels = place_labels(index, world)
    concepts = concept_table(index, labels, world.concepts)
    note = f"{index.n_latents:,} latents × {index.n_content:,} tokens, {index.nnz / 1e6:.1f}M entries"
    return [
        *cost_rows("embedded, table", lambda: latent_table(index, progress=False), note, LIMIT_EMBEDDED_S),
        *cost_rows("embedded, table with concepts", lambda: latent_table(index, concepts, labels, progress=False),
                   f"{note}, {len(world.concepts)} concepts", LIMIT_EMBEDDED_S),
    ]


def synthetic_rows(folder: Path, quick: bool) -> list[dict]:
    """A real SAE's size. Its labels are made up, about as many a token as in the embedded world."""
    from solutions.analysis import FeatureIndex, concept_table, latent_table

    n_latents, n_tokens = (4096, 100_000) if quick else (24_576, 1_000_000)
    path, _ = write_synthetic(folder / "synthetic", n_latents, n_tokens)
    index = FeatureIndex(path, verify=False)
    note = f"{n_latents:,} latents × {n_tokens:,} tokens, {index.nnz / 1e6:.0f}M entries"
    rows = cost_rows("large, table", lambda: latent_table(index, progress=False), note, LIMIT_S)
    dice = np.random.default_rng(0)
    labels = torch.from_numpy(dice.random((n_tokens, 100), np.float32) < 0.06)
    index.test = torch.from_numpy(dice.random(n_tokens) < 0.3)  # the made-up index has none
    concepts = concept_table(index, labels, [f"c{i}" for i in range(100)])
    return rows + cost_rows("large, table with concepts",
                            lambda: latent_table(index, concepts, labels, progress=False),
                            f"{note}, 100 concepts", LIMIT_S)
