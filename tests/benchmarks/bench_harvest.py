"""What writing a store costs on top of the forward pass that it stores.

Every batch goes through the model twice: once for the harvest, and once more, right before or right after it (in
turns), with nothing done to the result. The second time is the bare forward pass: the same rows, the same place to
stop, the same state of the machine, whose speed may change by a tenth within seconds. The harvest's overhead is what
it took without those passes, over what they took. The median of several harvests is reported.

CPU time is what is compared, on one thread: threads that wait for work burn CPU time, too. Elapsed time is given
beside it, since waiting for the disk is no CPU time. Turning texts into tokens is needed for any pass, so what the
harvest spends on it is counted apart.
"""

from __future__ import annotations

import importlib
import statistics
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import torch

from tests.benchmarks.measuring import Spent, one_thread, part_timed, timed

LIMIT = 1.10


def run(quick: bool) -> list[dict]:
    """Harvest overhead on the embedded model, and the speed and memory of shuffled reading."""
    from solutions.data import open_texts
    from solutions.models import load_model
    from solutions.targets import get_target

    target = get_target("smallworld")
    model = load_model(target, "cpu")
    texts = list(open_texts(target, 150 if quick else 6000))
    last = f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"
    repeats = 1 if quick else 5
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for hooks, name in (([target.hook], target.hook), ([target.hook, last], "two hook points, all layers")):
            with one_thread():
                rows += overhead_rows(model, texts, hooks, name, Path(folder), repeats)
        rows += reading(Path(folder) / "store", last)
    return rows


def overhead_rows(model, texts: list, hooks: list[str], name: str, folder: Path, repeats: int) -> list[dict]:
    """Rows for one set of hook points."""
    from solutions.data import ActivationStore

    harvesting = importlib.import_module("solutions.models.harvest")  # the package has a function of that name
    runs, rows, reader = [], [], harvesting.hook_reader
    for _ in range(repeats):
        bare = Spent()

        @contextmanager
        def twice(model, hooks, bare=bare):
            with reader(model, hooks) as read:
                yield lambda ids: also_bare(read, ids, bare, rows)

        rows.clear()
        harvesting.hook_reader = twice
        try:
            with part_timed(harvesting, "tokenize") as tokenising:
                whole = timed(lambda: harvesting.harvest(
                    model, texts, hooks, folder / "store", resume=False, progress=False))
        finally:
            harvesting.hook_reader = reader
        runs.append((whole, bare, tokenising))
    n_tokens = ActivationStore(folder / "store").n_tokens
    ratios = sorted((h.cpu - t.cpu - f.cpu) / f.cpu for h, f, t in runs)
    overhead = statistics.median(ratios)
    everything = statistics.median((h.cpu - f.cpu) / f.cpu for h, f, t in runs)
    elapsed = statistics.median((h.wall - t.wall - f.wall) / f.wall for h, f, t in runs)
    rate = n_tokens / statistics.median(h.wall - f.wall for h, f, _ in runs)
    padding = sum(rows) / n_tokens - 1
    note = f"{name}; {n_tokens:,} tokens, {len(ratios)} harvests, {ratios[0]:.3f} to {ratios[-1]:.3f}"
    limit = {"limit": LIMIT, "ok": overhead <= LIMIT}
    return [
        {"name": "harvest / bare forward pass, CPU time", "value": overhead, "unit": "×", "note": note, **limit},
        {"name": "… with tokenising counted as overhead", "value": everything, "unit": "×", "note": name},
        {"name": "… elapsed", "value": elapsed, "unit": "×", "note": name},
        {"name": "harvest speed", "value": rate, "unit": "tokens/s", "note": name},
        {"name": "padding computed in vain", "value": 100 * padding, "unit": "%", "note": name},
    ]


def also_bare(read: Callable, ids: torch.Tensor, bare: Spent, rows: list[int]) -> dict:
    """Read a batch for the harvest, and once more for nothing; which comes first changes from batch to batch."""
    rows.append(ids.numel())
    if len(rows) % 2:
        bare.add(timed(lambda: read(ids)))
        return read(ids)
    acts = read(ids)
    bare.add(timed(lambda: read(ids)))
    return acts


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
