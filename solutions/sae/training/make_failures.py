"""Trains the runs of `failures`, each with its own fault, and writes their tables.

    python -m solutions.sae.training.make_failures
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from solutions.data.store_files import write_whole
from solutions.sae.architectures import BatchTopKSAE, ReluSAE, TrainableSAE, make_sae
from solutions.sae.architectures.base import Losses
from solutions.sae.metrics import explained_variance
from solutions.sae.training.failures import (
    COLUMNS,
    COMMON,
    FAULTS,
    FOLDER,
    HOOK,
    PLANS,
    SEEDS,
    SHORT,
    SIZE,
    file_of,
)
from solutions.sae.training.plan import Plan
from solutions.sae.training.run import Run
from solutions.sae.training.sources import Batch, TensorSource


class NoNorm(ReluSAE):
    """A ReLU SAE that forgets the decoder: rows of any length, and a penalty on the bare latents."""

    architecture = "relu without norm"

    def __init__(self, d_in: int, d_sae: int, **settings: Any):
        super().__init__(d_in, d_sae, unit_norm=False, **settings)

    def losses(
        self, x: Tensor, target: Tensor | None = None, *, warm: float = 1.0, dead: Tensor | None = None
    ) -> Losses:
        right = super().losses(x, target, warm=warm, dead=dead)
        sparsity = warm * self.l1 * right.z.sum(dim=-1).mean()
        return right._replace(total=right.reconstruction + sparsity, sparsity=sparsity)


class FromZero(BatchTopKSAE):
    """A BatchTopK SAE whose running mean begins at zero, moves slowly, and is not corrected for either."""

    architecture = "batchtopk from zero"

    def __init__(self, d_in: int, d_sae: int, **settings: Any):
        super().__init__(d_in, d_sae, threshold_rate=1e-3, **settings)
        self.set_threshold(0.0)  # a mean of nothing, that counts as if it were one


SPOILT: Mapping[str, type[TrainableSAE]] = {sae.architecture: sae for sae in (NoNorm, FromZero)}


class InOrder(TensorSource):
    """Activations dealt as they lie: a batch is a stretch of a few texts."""

    def _deal(self, size: int, seed: int, start_step: int, stripe: tuple[int, int]) -> Iterator[Batch]:
        first = torch.randint(len(self.x), (), generator=torch.Generator().manual_seed(seed)).item()
        step = start_step
        while True:
            yield self._rows((first + torch.arange(step * size, (step + 1) * size)) % len(self.x))
            step += 1


class Data(NamedTuple):
    """Activations of the embedded model."""

    shuffled: Tensor
    """[n, d_in] text, BOS left out."""
    with_bos: Tensor
    """Texts cut short, BOS left in."""
    in_order: Tensor
    """The same tokens as `shuffled`, the texts sorted by kind."""
    test: Tensor
    """[m, d_in] of other texts, BOS left out."""


def activations(n_texts: int = 800) -> Data:
    """What the runs are trained and measured on."""
    from solutions.data import load_texts, tokenize
    from solutions.models import extract, load_model
    from solutions.targets import get_target

    target = get_target("smallworld")
    model = load_model(target, device="cpu")

    def read(texts: list) -> tuple[Tensor, Tensor]:
        tokens = tokenize(model, texts, prepend_bos=True)
        acts = extract(model, tokens, HOOK)[HOOK]
        short = tokens.mask & (torch.arange(tokens.mask.shape[1]) < SHORT)
        return acts[tokens.content], acts[short]

    texts = load_texts(target, n_texts, "train")
    by_kind, with_bos = read(sorted(texts, key=lambda text: text.kind))
    return Data(by_kind, with_bos, by_kind, read(load_texts(target, n_texts // 8, "test"))[0])


def run_fault(name: str, seed: int, data: Data) -> pd.DataFrame:
    """Train one run as its fault says, and measure it as it goes."""
    fault = FAULTS[name]
    settings = dict(fault.sae)
    architecture, d_in = settings.pop("architecture"), data.test.shape[1]
    if architecture in SPOILT:
        sae = SPOILT[architecture](d_in, SIZE, seed=seed, **settings)
    else:
        sae = make_sae(architecture, d_in, SIZE, seed=seed, **settings)
    source = {
        "shuffled": TensorSource(data.shuffled),
        "with BOS": TensorSource(data.with_bos),
        "in order": InOrder(data.in_order),
    }
    plan = Plan(**(COMMON | fault.plan | {"seed": seed, "step": "dense", "diverged_at": float("inf")}))
    run, rows = Run(sae, source[fault.data], plan), []
    for batch in run.batches():
        logged = len(run.log.rows)
        run.advance(batch)
        if len(run.log.rows) > logged:
            rows.append({name: run.log.rows[-1][name] for name in COLUMNS if name in run.log.rows[-1]})
            rows[-1] |= _measured(run, data.test)
    return pd.DataFrame(rows)[list(COLUMNS)]


@torch.no_grad()
def _measured(run: Run, test: Tensor) -> dict[str, float]:
    """What the training log does not know."""
    x = test * run.scale
    z = run.sae.encode(x)
    return {
        "decoder_norm": run.sae.decoder_norms().mean().item(),
        "l0_test": (z > 0).sum(dim=1).float().mean().item(),
        "ev_test": explained_variance(x, run.sae.decode(z)),
    }


def plans() -> dict[str, Any]:
    """What was done, ready for JSON."""
    common = {"hook": HOOK, "latents": SIZE, "seeds": list(SEEDS), "short": SHORT, "plan": COMMON, "columns": COLUMNS}
    return {"common": common, "runs": {name: fault._asdict() for name, fault in FAULTS.items()}}


def main() -> None:
    """Train all runs and write their tables."""
    data = activations()
    FOLDER.mkdir(exist_ok=True)
    write_whole(FOLDER / PLANS, (json.dumps(plans(), indent=1) + "\n").encode())
    for name in FAULTS:
        tables = [run_fault(name, seed, data).assign(seed=seed) for seed in SEEDS]
        text = pd.concat(tables).to_csv(index=False, float_format="%.5g", lineterminator="\n")
        write_whole(FOLDER / file_of(name), text.encode())
        print(name, tables[0].iloc[-1].round(3).to_dict(), flush=True)


if __name__ == "__main__":
    main()
