"""Training sparse autoencoders.

`plan` says what a run does, `sources` where the activations come from, `loop` trains, `step` computes the gradients,
`checkpoint` and `log` keep what is needed to go on and to look at it, `team` shares the work among processes, and
`sweep` trains a grid of SAEs.
"""

from solutions.sae.training.failures import failed_run, failed_runs
from solutions.sae.training.log import COLUMNS, read_log
from solutions.sae.training.loop import TrainedSAE, train
from solutions.sae.training.on_the_fly import HarvestSource
from solutions.sae.training.plan import Plan
from solutions.sae.training.schedule import learning_rate, sparsity_warmth
from solutions.sae.training.sources import Batch, Source, StoreSource, TensorSource
from solutions.sae.training.step import StepResult, step_gradients
from solutions.sae.training.sweep import Sweep, delta_ce_of, measure, sweep
from solutions.sae.training.trouble import TrainingDiverged

__all__ = [
    "COLUMNS",
    "Batch",
    "HarvestSource",
    "Plan",
    "Source",
    "StepResult",
    "StoreSource",
    "Sweep",
    "TensorSource",
    "TrainedSAE",
    "TrainingDiverged",
    "delta_ce_of",
    "failed_run",
    "failed_runs",
    "learning_rate",
    "measure",
    "read_log",
    "sparsity_warmth",
    "step_gradients",
    "sweep",
    "train",
]
