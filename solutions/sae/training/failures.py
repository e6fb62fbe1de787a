"""Runs that went wrong, each in its own way, and one that went right: what their curves look like.

    runs = failed_runs()                   # name to table
    runs["unshuffled data"]["l0"]

Nothing in the tables is made up. `python -m solutions.sae.training.make_failures` trained them on the embedded
model's activations, 250 steps each, and wrote them to `failed/`: a table for each fault, and `plans.json`, which says
what was done.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from solutions.errors import InputError, unknown_name

FOLDER = Path(__file__).with_name("failed")
PLANS = "plans.json"
HEALTHY = "nothing wrong"

#: Columns of a table. The last three are measured apart from training.
COLUMNS = {
    "step": "steps done",
    "loss": "the whole loss of the batch, activations scaled",
    "reconstruction": "its squared error part",
    "sparsity": "its sparsity part",
    "l0": "latents active on a token of the batch, on average",
    "ev": "explained variance of the batch",
    "dead": "share of latents that have not fired for 15,000 tokens",
    "grad_norm": "length of the gradient before clipping",
    "decoder_norm": "mean length of a decoder row",
    "l0_test": "latents active on tokens that were not trained on, without BOS, the SAE as it is used afterwards",
    "ev_test": "explained variance of those tokens",
}

SEEDS = (0, 1, 2)
SIZE = 512  # latents
HOOK = "blocks.3.hook_resid_post"  # where BOS is much longer than any token of text, as in larger models
SHORT = 16  # tokens of a text, BOS included, in the run that leaves BOS in
COMMON = {"n_tokens": 250 * 256, "batch_size": 256, "lr": 4e-3, "dead_after": 15_000, "log_every": 10,
          "warmup": 0.03, "decay": 0.3, "l1_warmup": 0.2}  # fmt: skip


class Fault(NamedTuple):
    """How one run is made to fail: what differs from the healthy run."""

    sae: dict[str, Any]
    """Settings of the SAE."""
    plan: dict[str, Any]
    """Settings of the plan, over `COMMON`."""
    data: str = "shuffled"
    """"shuffled", "with BOS" or "in order"."""
    says: str = ""
    """What was done, in a sentence."""


FAULTS: dict[str, Fault] = {
    HEALTHY: Fault({"architecture": "relu", "l1": 1.5}, {}, says="A ReLU SAE with a sensible L1 coefficient."),
    "learning rate too high": Fault(
        {"architecture": "relu", "l1": 1.5}, {"lr": 0.2, "clip": None}, says="The learning rate is fifty times as high."
    ),
    "L1 too high": Fault(
        {"architecture": "relu", "l1": 30.0}, {}, says="The L1 coefficient is twenty times as high."
    ),
    "no decoder norm": Fault(
        {"architecture": "relu without norm", "l1": 1.5}, {},
        says="Decoder rows may have any length, and the penalty does not know.",
    ),
    "dead flood": Fault(
        {"architecture": "topk", "k": 16, "aux_weight": 0.0}, {"lr": 0.1, "warmup": 0.0, "initialise": False},
        says="TopK without AuxK, b_dec at zero, and 25 times the learning rate from the first step on.",
    ),
    "BOS left in": Fault(
        {"architecture": "relu", "l1": 1.5}, {}, data="with BOS",
        says="Texts of 16 tokens, and every one's BOS token was trained on, too.",
    ),
    "unshuffled data": Fault(
        {"architecture": "relu", "l1": 1.5}, {}, data="in order",
        says="Batches are stretches of text, and the texts are sorted by kind, as they often lie on a disk.",
    ),
    "collapsed threshold": Fault(
        {"architecture": "batchtopk from zero", "k": 16}, {},
        says="BatchTopK whose running threshold begins at 0 and moves by a thousandth at every step.",
    ),
}  # fmt: skip


def failed_runs(seed: int = 0) -> dict[str, pd.DataFrame]:
    """The tables of the failed runs, by the name of what was wrong; `HEALTHY` is the one that went well.

    Args:
        seed: 0, 1 or 2. Other seeds are the same faults with other first weights and another order of the data.

    Returns:
        Name to table.

    Raises:
        InputError: a seed that was not run.

    Example:
        >>> list(failed_runs())[:3]
        ['nothing wrong', 'learning rate too high', 'L1 too high']
    """
    return {name: failed_run(name, seed) for name in FAULTS}


def failed_run(name: str, seed: int = 0) -> pd.DataFrame:
    """The table of one run; see `COLUMNS`.

    Args:
        name: what was wrong, a name of `failed_runs`.
        seed: 0, 1 or 2.

    Returns:
        A row for each logged step.

    Raises:
        InputError: an unknown name, or a seed that was not run.
    """
    if name not in FAULTS:
        raise unknown_name("failed run", name, FAULTS)
    if seed not in SEEDS:
        raise InputError(f"seed must be one of {', '.join(map(str, SEEDS))}, got {seed!r}.")
    table = _table(name)
    return table[table["seed"] == seed].drop(columns="seed").reset_index(drop=True)


@cache
def _table(name: str) -> pd.DataFrame:
    return pd.read_csv(FOLDER / file_of(name))


def file_of(name: str) -> str:
    """The file of a run's tables."""
    return name.lower().replace(" ", "_") + ".csv"
