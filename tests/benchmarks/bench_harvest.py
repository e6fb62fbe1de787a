"""What writing a store costs on top of the forward pass that it stores.

The bare forward pass reads the same rows in the same batches, stops at the same place and keeps nothing: one hook,
hung up once, that ends it. It is run in turns with a harvest, and the median of the pairs' ratios is reported. CPU
time is what is compared, on one thread: threads that wait for work burn CPU time, too. Elapsed time is given beside
it, since waiting for the disk is no CPU time.
"""

from __future__ import annotations

import importlib
import statistics
import tempfile
from contextlib import contextmanager
from pathlib import Path

import torch

from tests.benchmarks.measuring import one_thread, timed

LIMIT = 1.10


def run(quick: bool) -> list[dict]:
    """Harvest overhead on the embedded model, and the speed and memory of shuffled reading."""
    from solutions.data import open_texts
    from solutions.models import load_model
    from solutions.targets import get_target

    target = get_target("smallworld")
    model = load_model(target, "cpu")
    texts = list(open_texts(target, 150 if quick else 3000))
    last = f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"
    repeats = 1 if quick else 11
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for hooks, name in (([target.hook], target.hook), ([target.hook, last], "two hook points, all layers")):
            with one_thread():
                rows += overhead_rows(model, texts, hooks, name, Path(folder), repeats)
        rows += reading(Path(folder) / "store", last)
    return rows


def overhead_rows(model, texts: list, hooks: list[str], name: str, folder: Path, repeats: int) -> list[dict]:
    """Rows for one set of hook points."""
    harvesting = importlib.import_module("solutions.models.harvest")  # the package has a function of that name
    reader, batches = harvesting.hook_reader, []

    @contextmanager
    def watched(model, hooks):
        with reader(model, hooks) as read:
            yield lambda ids: batches.append(ids) or read(ids)

    harvesting.hook_reader = watched
    try:
        store = harvesting.harvest(model, texts, hooks, folder / "store", resume=False, progress=False)
    finally:
        harvesting.hook_reader = reader
    n_tokens = store.n_tokens
    size = harvesting.READ_AHEAD
    blocks = [texts[start : start + size] for start in range(0, len(texts), size)]

    def forward() -> None:
        with reader(model, hooks[-1:]) as read:
            for ids in batches:
                read(ids)

    def tokenised() -> None:
        for block in blocks:
            harvesting.tokenize(model, block)

    def harvested() -> None:
        harvesting.harvest(model, texts, hooks, folder / "store", resume=False, progress=False)

    runs = [[timed(step) for step in (forward, tokenised, harvested)] for _ in range(repeats)]
    pairs = sorted((h.cpu - t.cpu) / f.cpu for f, t, h in runs)
    overhead = statistics.median(pairs)
    everything = statistics.median(h.cpu / f.cpu for f, t, h in runs)
    elapsed = statistics.median(h.wall / (f.wall + t.wall) for f, t, h in runs)
    rate = n_tokens / statistics.median(h.wall for _, _, h in runs)
    padding = sum(ids.numel() for ids in batches) / n_tokens - 1
    note = f"{name}; {n_tokens:,} tokens, pairs {pairs[0]:.2f} to {pairs[-1]:.2f}"
    limit = {"limit": LIMIT, "ok": overhead <= LIMIT}
    return [
        {"name": "harvest / bare forward pass, CPU time", "value": overhead, "unit": "×", "note": note, **limit},
        {"name": "… with tokenising counted as overhead", "value": everything, "unit": "×", "note": name},
        {"name": "… elapsed, against tokenising + forward pass", "value": elapsed, "unit": "×", "note": name},
        {"name": "harvest speed", "value": rate, "unit": "tokens/s", "note": name},
        {"name": "padding computed in vain", "value": 100 * padding, "unit": "%", "note": name},
    ]


def reading(path: Path, hook: str) -> list[dict]:
    """Shuffled batches against batches in order, once the files are in memory."""
    from solutions.data import ActivationStore

    store = ActivationStore(path)

    def passed(**options) -> float:
        return timed(lambda: [batch.acts.sum() for batch in store.batches(hook, 4096, **options)]).wall

    passed()  # compares checksums, fills the system's cache
    with torch.no_grad():
        pairs = [(passed(), passed(shuffle=True)) for _ in range(5)]
    rate = store.n_content / statistics.median(shuffled for _, shuffled in pairs)
    ratio = statistics.median(shuffled / ordered for ordered, shuffled in pairs)
    return [
        {"name": "shuffled reading / reading in order", "value": ratio, "unit": "×", "note": "elapsed, files cached"},
        {"name": "shuffled reading", "value": rate, "unit": "tokens/s", "note": f"width {store.width(hook)}"},
    ]
