"""The runs that chapter 4 shows: which SAEs were trained, how, and what came of each. Made here, stored, and read.

    python -m solutions.analysis.sweeps           # trains what the stored table lacks
    python -m solutions.analysis.sweeps --list    # says what that would be

A hundred SAEs take longer than a reader waits, so their measures are kept in `artifacts/sweeps`: `runs.csv`, a row
for each, and `runs.json`, the plan they share, the baselines, versions, and the table's checksum. `run_setting` trains
any one of them again, so that nobody has to believe the table.

Everything is on the default target: trained on texts of its train split, measured on texts of its test split.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from solutions.analysis.controls import project, random_directions
from solutions.analysis.detectors import mean_concept_f1, mean_lookup_f1, score_concepts
from solutions.analysis.kinds import split_documents
from solutions.analysis.shrinkage import reconstruction_bias
from solutions.analysis.texts import LabelledTexts, labelled_texts
from solutions.data import ActivationStore, Tokens, load_texts
from solutions.errors import InputError, unknown_name
from solutions.models import extract, harvest, load_model
from solutions.sae import (
    Plan,
    StoreSource,
    TrainedSAE,
    as_sae_lens,
    decode,
    encode,
    explained_variance,
    l0,
    make_sae,
    splice_loss,
    train,
)
from solutions.sae.architectures import TopKSAE
from solutions.smallworld.artifacts import ARTIFACTS
from solutions.targets import Target, get_target

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

FOLDER = ARTIFACTS / "sweeps"
TABLE, ABOUT = "runs.csv", "runs.json"

#: What all runs share unless a setting says otherwise. The width is in multiples of d_in.
BASE = Plan(n_tokens=400_000, batch_size=1024, lr=4e-3, dead_after=100_000, log_every=100)
WIDTH, K, SEEDS = 4, 16, (0, 1, 2)
TRAIN_TEXTS, TEST_TEXTS, SPLICED_TEXTS = 4000, 500, 24

#: Along which the kinds of SAE are compared: the setting that decides on sparsity, and its values.
SPARSITY = {
    "topk": ("k", (4, 8, 16, 32, 64)),
    "batchtopk": ("k", (4, 8, 16, 32, 64)),
    "relu": ("l1", (0.5, 1.0, 2.0, 4.0)),
    "jumprelu": ("l0_penalty", (0.1, 0.3, 0.8, 2.0)),
}

#: The knobs of the base, turned one at a time, and where to. The base itself is among the runs above.
KNOBS = {
    "lr": (3e-4, 1e-3, 1.6e-2, 6.4e-2),
    "n_tokens": (50_000, 100_000, 200_000, 800_000),
    "width": (1, 2, 8),
    "batch_size": (256, 4096),
}
AT_BASE = {"lr": BASE.lr, "n_tokens": BASE.n_tokens, "width": WIDTH, "batch_size": BASE.batch_size}

#: SAEs that have not learned features of the model, or none at all.
CONTROLS = ("frozen decoder", "shuffled weights")


@dataclass(frozen=True)
class Setting:
    """One SAE to train."""
    group: str                       # "sparsity", "knob" or "control"
    knob: str                        # what was turned
    value: float | str               # where to
    seed: int
    architecture: str = "topk"
    hyper: Mapping[str, Any] = field(default_factory=lambda: {"k": K})
    width: int = WIDTH
    plan: Plan = BASE

    @property
    def key(self) -> tuple:
        """What tells this row of the table from all others."""
        value = self.value if isinstance(self.value, str) else f"{self.value:g}"
        return self.group, self.architecture, self.knob, value, self.seed


class FrozenDecoder(TopKSAE):
    """A control: the decoder stays the random directions that it began with, only the rest learns.

    After Korznikov et al. 2026, who found that such an SAE does surprisingly well in many evaluations.
    """

    def before_step(self) -> None:
        """Take the decoder's gradient away."""
        super().before_step()
        self.W_dec.grad = None


def settings() -> list[Setting]:
    """All of them, three seeds each; those that say most come first."""
    chosen = []
    for seed in SEEDS:
        plan = BASE.replace(seed=seed)
        for kind, (knob, values) in SPARSITY.items():
            chosen += [Setting("sparsity", knob, v, seed, kind, {knob: v}, plan=plan) for v in values]
        chosen += [Setting("control", "control", name, seed, plan=plan) for name in CONTROLS]
        for knob, values in KNOBS.items():
            for v in values:
                turned = {"width": v} if knob == "width" else {"plan": plan.replace(**{knob: v})}
                chosen.append(Setting("knob", knob, v, seed, **({"plan": plan} | turned)))
    return chosen


# ---- what is trained on and measured on


class Bench(NamedTuple):
    """A model, activations to train on, and labelled text to measure on. The same for every run."""
    model: TransformerBridge
    """What is studied."""
    target: Target          #: the same by name, and where in it
    store: ActivationStore  #: activations to train on
    world: LabelledTexts    #: text to measure on
    x: Tensor               #: [tokens, d_in] of the labelled texts, BOS left out
    labels: Tensor          #: [tokens, concepts] bool
    ids: Tensor             #: [tokens]
    test: Tensor            #: [tokens] bool: measured on; the others choose which latent stands for a concept
    spliced: Tokens         #: some of the texts, for ΔCE


def make_bench(folder: Path, target: Target | None = None, model: TransformerBridge | None = None,
               n_train: int = TRAIN_TEXTS, n_test: int = TEST_TEXTS, store: ActivationStore | None = None) -> Bench:
    """Harvest the texts to train on into `folder` (or take a store that is there) and read the texts to measure on."""
    target = target or get_target("smallworld")
    model = load_model(target, "cpu") if model is None else model
    if store is None:
        store = harvest(model, load_texts(target, n_train, "train"), target.hook, folder, dtype="float16",
                        test_share=0.0, progress=False)
    world = labelled_texts(model, n_test)
    kept = world.tokens.content
    x = torch.cat([extract(model, part, target.hook)[target.hook][part.content] for part in _parts(world.tokens)])
    document = torch.arange(len(kept))[:, None].expand_as(kept)[kept]
    return Bench(model, target, store, world, x.float(), world.labels[kept], world.tokens.ids[kept],
                 split_documents(document, 0.5), world.tokens[:SPLICED_TEXTS])


def _parts(tokens: Tokens, rows: int = 64) -> list[Tokens]:
    return [tokens[i : i + rows] for i in range(0, len(tokens), rows)]


def shuffle_weights(model: TransformerBridge, seed: int = 0) -> TransformerBridge:
    """Shuffle the numbers inside every weight matrix, in place: nothing that was learned is left but their sizes.

    After Heap et al. 2025. Vectors (layer norms, biases) stay.
    """
    dice = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in {id(p): p for p in model.parameters() if p.ndim > 1}.values():
            weight.copy_(weight.flatten()[torch.randperm(weight.numel(), generator=dice)].view_as(weight))
    return model


# ---- one run


def run_setting(setting: Setting, bench: Bench, progress: bool = False) -> TrainedSAE:
    """Train the SAE of one setting."""
    d_in = bench.target.d_in
    kind = FrozenDecoder if setting.value == "frozen decoder" else None
    make = {"d_in": d_in, "d_sae": setting.width * d_in, "seed": setting.seed, **setting.hyper}
    sae = kind(**make) if kind else make_sae(setting.architecture, **make)
    return train(sae, StoreSource(bench.store, bench.target.hook), setting.plan, progress=progress)


@torch.no_grad()
def measure_sae(sae: SAE, bench: Bench) -> dict[str, float]:
    """The measures of an SAE (SAELens's) on the bench's labelled texts, most of them on the test half.

    ev, l0, silent (share of latents that never fire), bias (`reconstruction_bias`), concept_f1 (`mean_concept_f1`)
    and delta_ce (nats per token, on the first texts).
    """
    features = torch.cat([encode(sae, part) for part in bench.x.split(4096)])
    x, z = bench.x[bench.test], features[bench.test]
    x_hat = decode(sae, z)
    table = score_concepts(features, bench.labels, bench.world.concepts, bench.ids, bench.test)
    return {
        "l0": l0(z).float().mean().item(), "ev": explained_variance(x, x_hat),
        "delta_ce": splice_loss(bench.model, sae, bench.spliced, bench.target.hook).delta_ce,
        "concept_f1": mean_concept_f1(table), "bias": reconstruction_bias(x, x_hat),
        "silent": (features > 0).any(0).logical_not().float().mean().item(),
    }


def baselines(bench: Bench, keep: int = K) -> dict[str, float]:
    """What concepts score without any SAE: token lookup, and random directions kept as sparse as the base."""
    drawn = random_directions(WIDTH * bench.target.d_in, bench.target.d_in)
    sparse = project(bench.x, drawn, keep=keep)
    table = score_concepts(sparse, bench.labels, bench.world.concepts, bench.ids, bench.test)
    return {"token lookup": mean_lookup_f1(table), "random directions, made sparse": mean_concept_f1(table)}


def row_of(setting: Setting, trained: TrainedSAE, bench: Bench) -> dict[str, Any]:
    """One row of the table."""
    last = trained.log.iloc[-1]
    return {
        "group": setting.group, "architecture": setting.architecture, "knob": setting.knob, "value": setting.key[3],
        "seed": setting.seed, "d_sae": trained.sae.d_sae, "tokens": int(last["tokens"]),
        **measure_sae(as_sae_lens(trained.sae), bench), "dead": float(last["dead"]),
    }


# ---- the stored table


class StoredRuns(NamedTuple):
    """What `stored_runs` reads."""
    table: pd.DataFrame       #: a row for each trained SAE; `value` is text, because a control is no number
    about: dict[str, Any]     #: plan, texts, versions, baselines

    def sparsity(self) -> pd.DataFrame:
        """The rows that compare kinds of SAE along their sparsity, `value` as a number."""
        return self._numbers("sparsity")

    def knobs(self) -> pd.DataFrame:
        """The rows in which one knob of the base was turned, and for every knob the base, `value` as a number."""
        base = self.base()
        turned = [base.assign(group="knob", knob=knob, value=float(value)) for knob, value in AT_BASE.items()]
        return pd.concat([self._numbers("knob"), *turned], ignore_index=True)

    def base(self) -> pd.DataFrame:
        """The rows of the base: TopK with everything as `about` says."""
        rows = self.sparsity()
        return rows[(rows["architecture"] == "topk") & (rows["value"] == K)]

    def controls(self) -> pd.DataFrame:
        """The rows of the controls; `value` is the control's name."""
        return self.table[self.table["group"] == "control"]

    def _numbers(self, group: str) -> pd.DataFrame:
        chosen = self.table[self.table["group"] == group]
        return chosen.assign(value=chosen["value"].astype(float))


def stored_runs(folder: Path = FOLDER) -> StoredRuns:
    """The measures of the runs that chapter 4 shows, checked against their checksum.

    Raises:
        InputError: a file is missing, or is not what was written.
    """
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        written = (folder / TABLE).read_bytes()
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the stored runs in {folder.name!r}: {error}. {REMEDY}") from error
    if hashlib.sha256(written).hexdigest() != about["sha256"]:
        raise InputError(f"{TABLE} is not the table that {ABOUT} describes: it was changed or cut off. {REMEDY}")
    return StoredRuns(pd.read_csv(folder / TABLE, dtype={"value": str}), about)


REMEDY = "Get the folder back from version control, or train the runs again: python -m solutions.analysis.sweeps"


def write_runs(rows: list[dict[str, Any]], about: dict[str, Any], folder: Path = FOLDER) -> None:
    """Write table and description, each by rename."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(rows).round(5).to_csv(index=False, lineterminator="\n").encode()
    for name, content in ((TABLE, table), (ABOUT, _described(about, table))):
        part = folder / (name + ".part")
        part.write_bytes(content)
        part.replace(folder / name)


def _described(about: dict[str, Any], table: bytes) -> bytes:
    whole = about | {"sha256": hashlib.sha256(table).hexdigest()}
    return (json.dumps(whole, indent=1, ensure_ascii=False) + "\n").encode()


def describe(bench: Bench, found: Mapping[str, float]) -> dict[str, Any]:
    """What the table's reader has to know: plan, texts, versions, baselines."""
    return {
        "target": bench.target.name, "hook": bench.target.hook, "plan": BASE.as_dict(), "width": WIDTH, "k": K,
        "texts": {"train": TRAIN_TEXTS, "test": TEST_TEXTS, "spliced": SPLICED_TEXTS},
        "tokens": {"train": bench.store.n_content, "test": len(bench.x)},
        "baselines": {name: round(value, 5) for name, value in found.items()},
        "versions": {name: version(name) for name in ("torch", "numpy", "sae-lens")},
    }


def make_runs(folder: Path = FOLDER, only: str | None = None) -> None:
    """Train and measure every setting that the stored table lacks; the table is written after each."""
    wanted = [s for s in settings() if only is None or s.group == only]
    if not wanted:
        raise unknown_name("group", only, sorted({s.group for s in settings()}))
    rows = stored_runs(folder).table.to_dict("records") if (folder / TABLE).is_file() else []
    done = {(r["group"], r["architecture"], r["knob"], r["value"], r["seed"]) for r in rows}
    with tempfile.TemporaryDirectory() as scratch:
        bench = make_bench(Path(scratch) / "store")
        about = describe(bench, baselines(bench))
        shuffled: Bench | None = None
        for setting in tqdm([s for s in wanted if s.key not in done]):
            chosen = bench
            if setting.value == "shuffled weights":
                shuffled = shuffled or make_bench(Path(scratch) / "shuffled",
                                                  model=shuffle_weights(load_model(bench.target, "cpu")))
                chosen = shuffled
            rows.append(row_of(setting, run_setting(setting, chosen), chosen))
            write_runs(rows, about, folder)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="only say which settings there are")
    parser.add_argument("--only", help="one group: sparsity, knob or control")
    options = parser.parse_args()
    if options.list:
        for setting in settings():
            print(*setting.key)
    else:
        make_runs(only=options.only)


if __name__ == "__main__":
    main()
