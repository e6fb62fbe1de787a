"""When a run has gone wrong: noticed early, stopped, and said what to change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from solutions.errors import CourseError
from solutions.sae.training.plan import Plan

#: A run has diverged when so many logged steps in a row are that bad. One bad batch is no reason to stop.
PATIENCE = 5


class TrainingDiverged(CourseError, ArithmeticError):
    """Training has left the ground. `step` is where, `checkpoint` the step of the last good checkpoint (or None)."""

    def __init__(self, message: str, step: int, checkpoint: int | None = None):
        super().__init__(message)
        self.step = step
        self.checkpoint = checkpoint


def all_finite(module: nn.Module) -> bool:
    """Whether every weight is a number. A checkpoint is written only then: the last one is always good."""
    return all(bool(tensor.isfinite().all()) for tensor in module.state_dict().values())


def not_finite(plan: Plan, step: int, x: Tensor, kept: int | None, folder: Path | None) -> TrainingDiverged:
    """The error for a loss, or weights, that are no longer numbers."""
    if not bool(x.isfinite().all()):
        what = (
            f"step {step:,}: the activations themselves hold numbers that are not finite. Look for float16 overflow "
            "where they were harvested: store them as bfloat16 or float32."
        )
    else:
        what = f"step {step:,}: the loss or a weight is no longer a number. {_advice(plan)}"
    return TrainingDiverged(what + _where(kept, folder), step, kept)


def check_course(
    plan: Plan, rows: Sequence[dict[str, Any]], kept: int | None, folder: Path | None
) -> None:
    """Stop a run whose error stays far above that of predicting the mean.

    Args:
        plan: the run; nothing is looked at during its warm-up.
        rows: the log so far.
        kept: step of the last checkpoint.
        folder: the run's folder.

    Raises:
        TrainingDiverged: the last logged steps were all that bad.
    """
    settled = [row for row in rows[-PATIENCE:] if row["step"] > plan.warmup * plan.n_steps]
    if len(settled) < PATIENCE or not all(_unexplained(row) > plan.diverged_at for row in settled):
        return
    step = settled[-1]["step"]
    raise TrainingDiverged(
        f"step {step:,}: the squared error has been more than {plan.diverged_at:g} times that of predicting the mean "
        f"for {PATIENCE} logged steps (now {_unexplained(settled[-1]):.3g} times). {_advice(plan)} To watch it go on, "
        f"set diverged_at=math.inf." + _where(kept, folder),
        step,
        kept,
    )


def _unexplained(row: dict[str, Any]) -> float:
    return 1 - row["ev"] if math.isfinite(row["ev"]) else math.inf


def _advice(plan: Plan) -> str:
    """What to change, likeliest first."""
    advice = [f"Lower the learning rate: lr={plan.lr / 5:.1g} instead of {plan.lr:g}."]
    if plan.warmup < 0.05:
        advice.append("Or warm up for longer: warmup=0.05.")
    if plan.clip is None:
        advice.append("Or clip the gradient: clip=1.0.")
    if not plan.normalise:
        advice.append("Or scale the activations: normalise=True.")
    if plan.precision != "float32":
        advice.append('Or compute in full precision: precision="float32".')
    return " ".join(advice)


def _where(kept: int | None, folder: Path | None) -> str:
    if folder is None:
        return " Nothing was saved: give the run a path, and it keeps checkpoints."
    if kept is None:
        return f" There was no checkpoint yet in {folder}."
    return (
        f" The last good checkpoint is that of step {kept:,} in {folder}. A changed plan is another run: give it "
        "another folder."
    )
