"""Many SAEs in one call: a grid of settings, a run for each, a table of what came out.

    table = sweep({"architecture": "topk", "d_sae": 1024}, {"k": [8, 16, 32], "seed": [0, 1, 2]},
                  source, Plan(n_tokens=500_000), "runs/k")

Settings that belong to the SAE (`architecture`, `d_sae`, `k`, `l1`, ...) go to `make_sae`, those of a plan (`lr`,
`n_tokens`, ...) to the plan, and `seed` to both.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from solutions.data.store_files import write_whole
from solutions.errors import InputError
from solutions.sae.architectures import as_sae_lens, make_sae
from solutions.sae.metrics import Running
from solutions.sae.training.loop import TrainedSAE
from solutions.sae.training.plan import Plan
from solutions.sae.training.run import AT_ONCE, Run
from solutions.sae.training.sources import Batch, Source
from solutions.sae.training.team import Team
from solutions.sae.training.trouble import TrainingDiverged

if TYPE_CHECKING:
    from solutions.sae.architectures import TrainableSAE
    from solutions.targets import Target

#: Tokens that the runs of a sweep are measured on.
MEASURED_ON = 16_384

PLAN = tuple(field.name for field in dataclasses.fields(Plan))


class _Point(NamedTuple):
    """One cell of the grid."""

    settings: dict[str, Any]
    sae: TrainableSAE
    plan: Plan
    folder: Path | None


class Sweep(NamedTuple):
    """What `sweep` gives back."""

    table: pd.DataFrame
    """One row for each run, with its settings; ev, l0 and silent (share of latents that never fire) on `measured_on`;
    dead and loss at the end of the log; seconds; delta_ce if asked for; folder; note (why it stopped, if it did)."""
    runs: list[TrainedSAE | None]
    """The trained SAEs, in the order of the rows; None where a run diverged."""


def sweep(
    make: Mapping[str, Any] | Callable[..., TrainableSAE],
    grid: Mapping[str, Sequence[Any]],
    source: Source,
    plan: Plan,
    path: str | os.PathLike[str] | None = None,
    *,
    target: Target | None = None,
    delta_ce: Callable[[Any], float] | None = None,
    at_once: int = 8,
    device: str | torch.device = "cpu",
    resume: bool = True,
    progress: bool = True,
) -> Sweep:
    """Train an SAE for every combination of the grid's values.

    Runs whose plans ask for the same batches are trained side by side, in one pass over the data: the store is read,
    or the model run, once for all of them. Each run is the one that `train` would have done, to the last bit.

    Args:
        make: the settings of `make_sae` that all share (`d_in` comes from the source), or a function from settings
            to a fresh SAE. The function is given everything of the grid that is not in the plan, and `seed`.
        grid: name to values, e.g. {"l1": [0.5, 1, 2], "lr": [1e-3], "seed": [0, 1, 2]}.
        source: where activations come from.
        plan: what all runs share.
        path: a folder for the runs, one sub-folder each, and `table.csv`. A run that is finished there is not done
            again, one that was cut off goes on. None keeps nothing.
        target: what is studied, for the saved SAEs.
        delta_ce: what an SAE costs the model: a function of SAELens's SAE, e.g. `delta_ce_of(model, texts, hook)`.
        at_once: runs trained side by side, at most. All of them are in memory.
        device: where to train, for a `make` of settings.
        resume: False throws away what is in the runs' folders.
        progress: show a bar.

    Returns:
        The table and the trained SAEs.

    Raises:
        InputError: before any work: a name or a value in the grid that cannot be.
    """
    points = _points(make, grid, source, plan, path, device)
    held_out = source.held_out(MEASURED_ON)
    sample = source.sample(MEASURED_ON) if held_out is None else held_out
    results: dict[int, tuple[dict[str, Any], TrainedSAE | None]] = {}
    total = sum(point.plan.n_steps for point in points)
    with tqdm(total=total, unit=" steps", desc=f"sweep of {len(points)}", disable=not progress) as bar:
        for group in _groups(points, at_once):
            ended = _side_by_side([points[i] for i in group], source, target, resume, bar)
            for i, end in zip(group, ended, strict=True):
                if isinstance(end, TrainingDiverged):
                    results[i] = points[i].settings | {"note": str(end)}, None
                else:
                    results[i] = points[i].settings | _row(end, sample, delta_ce), end
    table = pd.DataFrame([results[i][0] for i in range(len(points))])
    table["measured_on"] = "training data" if held_out is None else "held-out data"
    if path is not None and Team().leads:
        write_whole(Path(path) / "table.csv", table.to_csv(index=False).encode())
    return Sweep(table, [results[i][1] for i in range(len(points))])


def _row(trained: TrainedSAE, sample: Batch, delta_ce: Callable[[Any], float] | None) -> dict[str, Any]:
    """The measures of one SAE."""
    last = trained.log.iloc[-1]
    row = measure(trained.sae, sample) | {"dead": last["dead"], "loss": last["loss"], "seconds": last["seconds"]}
    if delta_ce is not None:
        row["delta_ce"] = delta_ce(as_sae_lens(trained.sae))
    return row | {"folder": str(trained.path or ""), "note": ""}


def _points(
    make: Any, grid: Mapping[str, Sequence[Any]], source: Source, plan: Plan, path: Any, device: Any
) -> list[_Point]:
    """Every cell of the grid, its SAE made and its plan checked: mistakes show before the first step."""
    if not isinstance(grid, Mapping) or not grid:
        raise InputError('grid must map at least one name to its values, e.g. {"k": [16, 32]}.')
    for name, values in grid.items():
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise InputError(f"grid[{name!r}] must be a list of values, got {values!r}.")
    points = []
    for values in itertools.product(*grid.values()):
        settings = dict(zip(grid, values, strict=True))
        own = {name: value for name, value in settings.items() if name in PLAN}
        rest = {name: value for name, value in settings.items() if name not in PLAN}
        mine = plan.replace(**own)
        fresh = _fresh(make, rest | {"seed": mine.seed}, source)
        folder = None if path is None else Path(path) / _name(settings)
        points.append(_Point(settings, fresh.to(device) if isinstance(make, Mapping) else fresh, mine, folder))
    return points


def _fresh(make: Any, settings: dict[str, Any], source: Source) -> TrainableSAE:
    if not isinstance(make, Mapping):
        return make(**settings)
    widths = {"d_in": source.d_in, "d_out": source.d_out if source.has_target else None}
    settings = widths | dict(make) | settings
    for name in ("architecture", "d_sae"):
        if name not in settings:
            raise InputError(f"the sweep does not say {name!r}: give it in `make` or in the grid.")
    return make_sae(**settings)


def _name(settings: Mapping[str, Any]) -> str:
    """A folder's name, such as "k=16,seed=0"; a checksum where that would be no name."""
    name = ",".join(f"{key}={value}" for key, value in settings.items())
    if len(name) <= 120 and not set(name) & set('/\\:*?"<>| '):
        return name
    return hashlib.sha256(json.dumps(dict(settings), default=str).encode()).hexdigest()[:16]


def _groups(points: Sequence[_Point], at_once: int) -> list[list[int]]:
    """Numbers of the points that can share their batches, at most `at_once` together."""
    alike: dict[tuple, list[int]] = {}
    for i, point in enumerate(points):
        alike.setdefault((point.plan.batch_size, point.plan.seed), []).append(i)
    return [group[k : k + at_once] for group in alike.values() for k in range(0, len(group), at_once)]


def _side_by_side(
    points: Sequence[_Point], source: Source, target: Target | None, resume: bool, bar: tqdm
) -> list[TrainedSAE | TrainingDiverged]:
    """Train some runs in one pass over the data, from the step of the one that is furthest behind."""
    failed: dict[int, TrainingDiverged] = {}
    with contextlib.ExitStack() as stack:
        runs = [stack.enter_context(Run(p.sae, source, p.plan, p.folder, resume=resume)) for p in points]
        bar.update(sum(run.step for run in runs))
        going = [i for i, run in enumerate(runs) if not run.finished]
        first = min((runs[i].step for i in going), default=0)
        last = max((runs[i].plan.n_steps for i in going), default=0)
        batches = source.batches(points[0].plan.batch_size, points[0].plan.seed, first, runs[0].share)
        for step in range(first, last):
            batch = next(batches)
            for i in going:
                if i not in failed and runs[i].step == step < runs[i].plan.n_steps:
                    try:
                        runs[i].advance(batch)
                    except TrainingDiverged as error:  # one run of many: the others go on, and the table says so
                        failed[i] = error
                    bar.update()
        return [
            failed[i] if i in failed else TrainedSAE(run.finish(target), run.log.table, run.plan, run.folder)
            for i, run in enumerate(runs)
        ]


# ---- measures


@torch.no_grad()
def measure(sae: TrainableSAE, batch: Batch) -> dict[str, float]:
    """Explained variance, L0 and the share of latents that never fire, of an SAE in raw units on some activations."""
    device = next(sae.parameters()).device
    goal = batch.x if batch.target is None else batch.target
    running = Running()
    for x, y in zip(batch.x.split(AT_ONCE), goal.split(AT_ONCE), strict=True):
        z = sae.encode(x.to(device))
        running.add(y.to(device), sae.decode(z), z)
    means = running.means()
    return {"ev": means["explained_variance"], "l0": means["l0"], "silent": _silent(running.density())}


def _silent(density: Tensor) -> float:
    return (density == 0).double().mean().item()


def delta_ce_of(model: Any, texts: Any, hook: str, batch_size: int = 16) -> Callable[[Any], float]:
    """A function from an SAE (SAELens's) to what splicing it in costs the model, in nats per token.

    Args:
        model: a loaded model.
        texts: texts, or tokens; the same ones for every SAE.
        hook: where to splice.
        batch_size: rows at once.

    Returns:
        The function from a SAELens SAE to nats per token.
    """
    from solutions.sae.evaluate import mean_activation, readable, splice_loss

    mean: Tensor | None = None

    def measure_one(sae: Any) -> float:
        nonlocal mean
        name, tokens = readable(model, sae, texts, hook)
        if mean is None:
            mean = mean_activation(model, tokens, name, batch_size)
        found = splice_loss(model, sae, tokens, name, mean=mean, batch_size=batch_size).delta_ce
        return found if math.isfinite(found) else math.nan

    return measure_one
