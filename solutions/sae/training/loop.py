"""The training loop.

    trained = train(make_sae("topk", 128, 1024, k=16), StoreSource(store), Plan(n_tokens=1_000_000), "runs/first")
    trained.sae.encode(x)     # activations as the model gives them
    trained.log               # loss, L0, explained variance, ... step by step

`Run.advance` is the loop's body. With `Run._update` it is everything there is to know about how an SAE is trained.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from tqdm.auto import tqdm

from solutions.sae.training.live import LiveCurves
from solutions.sae.training.plan import Plan
from solutions.sae.training.run import Run
from solutions.sae.training.sources import Source

if TYPE_CHECKING:
    from solutions.sae.architectures import TrainableSAE
    from solutions.targets import Target


@dataclass(frozen=True)
class TrainedSAE:
    """What comes out of `train`.

    Attributes:
        sae: the SAE; it takes and gives activations as the model does, without scaling.
        log: one row for each logged step; see `solutions.sae.training.log.COLUMNS`.
        plan: what was done.
        path: the run's folder, or None. In it: `sae/` (SAELens's format), `log.csv`, `checkpoints/`.
    """

    sae: TrainableSAE
    log: pd.DataFrame
    plan: Plan
    path: Path | None = None

    def __repr__(self) -> str:
        last = self.log.iloc[-1]
        what = f"{self.sae.architecture}, {self.sae.d_sae:,} latents, {int(last['tokens']):,} tokens"
        return f"<TrainedSAE {what}: {in_a_line(last)}>"


def train(
    sae: TrainableSAE,
    source: Source,
    plan: Plan,
    path: str | os.PathLike[str] | None = None,
    *,
    target: Target | None = None,
    resume: bool = True,
    progress: bool = True,
    live: Callable[[pd.DataFrame], None] | bool | None = None,
) -> TrainedSAE:
    """Train an SAE.

    Called again with the same arguments, a run that was cut off goes on from its last checkpoint and ends, on a CPU,
    with the very numbers of one that never stopped; a finished one is only opened.

    Args:
        sae: a fresh one of `make_sae`. It stays as it is: what is trained is a copy, on the same device.
        source: where activations come from.
        plan: how to train.
        path: the run's folder; None keeps nothing.
        target: what is studied: names the model in the saved SAE. By default what the source knows.
        resume: False throws away what is in the folder.
        progress: show a bar with loss, L0, explained variance and the share of dead latents.
        live: True draws the curves in the notebook as they grow; a function is given the log at every logged step.

    Returns:
        The SAE for activations as they are, and its log.

    Raises:
        InputError: before any work, for arguments that cannot be or do not fit together, and for a folder that
            holds another run.
        DamagedFile: the last checkpoint is not what was written.
        StoreInUse: another process is training in this folder.
        DiskFull: no room for a checkpoint; the one before it stays.
        TrainingDiverged: the loss is not finite or stays far too high. The message says what to change.

    Example:
        >>> source = TensorSource(acts.repeat(200, 1))
        >>> plan = Plan(n_tokens=4096, batch_size=256)
        >>> made = train(make_sae("topk", d_in=128, d_sae=64, k=8), source, plan, progress=False)
        >>> type(made.sae).__name__, len(made.log) > 0
        ('TopKSAE', True)
    """
    run = Run(sae, source, plan, path, resume=resume)
    with run, _shown(run, progress, live) as show:
        for batch in run.batches():
            run.advance(batch)
            show()
        trained = run.finish(target)
    return TrainedSAE(trained, run.log.table, plan, run.folder)


@contextlib.contextmanager
def _shown(run: Run, progress: bool, live: Any) -> Iterator[Callable[[], None]]:
    """A progress bar and whatever else wants to see the log as it grows."""
    curves = LiveCurves() if live is True else None
    draw = curves or live or (lambda table: None)
    seen = len(run.log.rows)
    settings = {"total": run.plan.n_steps, "initial": run.step, "unit": " steps", "desc": "train"}
    with tqdm(**settings, disable=not progress or not run.team.leads) as bar:

        def show() -> None:
            nonlocal seen
            bar.update()
            if len(run.log.rows) > seen:
                seen = len(run.log.rows)
                bar.set_postfix_str(in_a_line(run.log.rows[-1]), refresh=False)
                draw(run.log.table)

        yield show
    if curves is not None:
        curves.end(run.log.table)


def in_a_line(row: Mapping[str, Any]) -> str:
    """The four numbers of a log's row that say how it goes."""
    return f"loss {row['loss']:.4g}, L0 {row['l0']:.1f}, EV {row['ev']:.3f}, dead {row['dead']:.1%}"
