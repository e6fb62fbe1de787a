"""The same SAE trained by SAELens, to compare with: its class, its trainer, its defaults, our data.

    python -m solutions.analysis.by_sae_lens      # trains the one that chapter 4 opens; a few minutes
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from solutions.analysis.sweeps import BASE, FOLDER, TRAIN_TEXTS, K
from solutions.data import load_texts
from solutions.errors import InputError
from solutions.models import harvest, load_model
from solutions.sae import Plan, Source, StoreSource, load_sae_from_disk
from solutions.targets import get_target

if TYPE_CHECKING:
    from sae_lens import SAE

STORED = FOLDER / "by_sae_lens"
CONFIG, WEIGHTS, CHECKSUMS = "cfg.json", "sae_weights.safetensors", "checksums.json"

#: How chapter 4 trains its own SAE, and SAELens this one.
CHAPTER = BASE.replace(n_tokens=500_000)


def train_with_sae_lens(source: Source, plan: Plan, d_sae: int, k: int, folder: Path) -> SAE:
    """Train a TopK SAE with SAELens (its `TopKTrainingSAE` and `SAETrainer`) and save it in a folder.

    Batches, tokens, batch size, learning rate with its warm-up and decay, and seed are those of the plan. All else
    is SAELens's default: how weights begin, the auxiliary loss, when a latent counts as dead, no clipping.
    """
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.saes.sae import SAEMetadata
    from sae_lens.training.sae_trainer import SAETrainer

    torch.manual_seed(plan.seed)
    about = {"hook_name": source.hook, **{name: source.about.get(name) for name in ("model_name", "context_size")}}
    sae = TopKTrainingSAE(TopKTrainingSAEConfig(
        d_in=source.d_in, d_sae=d_sae, k=k, normalize_activations="expected_average_only_in",
        metadata=SAEMetadata(**about, prepend_bos=source.about.get("prepend_bos"))))
    settings = SAETrainerConfig(
        total_training_samples=plan.n_steps * plan.batch_size, train_batch_size_samples=plan.batch_size, lr=plan.lr,
        lr_end=plan.lr / 100, lr_warm_up_steps=int(plan.warmup * plan.n_steps),
        lr_decay_steps=int(plan.decay * plan.n_steps), n_batches_for_norm_estimate=16,
        logger=LoggingConfig(log_to_wandb=False, eval_every_n_wandb_logs=2**31 - 1))
    trained = SAETrainer(settings, sae, _tensors(source, plan)).fit()
    trained.fold_W_dec_norm()
    folder.mkdir(parents=True, exist_ok=True)
    trained.save_inference_model(folder)
    return load_sae_from_disk(folder, "cpu")


def _tensors(source: Source, plan: Plan) -> Iterator[Tensor]:
    return (batch.x for batch in source.batches(plan.batch_size, plan.seed))


REMEDY = "Get the folder back from version control, or train it again: python -m solutions.analysis.by_sae_lens"


def stored_sae(folder: Path = STORED, remedy: str = REMEDY) -> SAE:
    """The SAE that SAELens trained for chapter 4, or another that `keep_sae` has kept, checked against its checksums.

    Raises:
        InputError: a file is missing or not what was written; it ends with the remedy.
    """
    try:
        wanted = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
        found = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in (CONFIG, WEIGHTS)}
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the SAE in {folder.name!r}: {error}. {remedy}") from error
    if changed := [name for name in found if found[name] != wanted.get(name)]:
        raise InputError(f"{' and '.join(changed)} in {folder.name!r} was changed or cut off. {remedy}")
    return load_sae_from_disk(folder, "cpu")


def keep_sae(made: Path, folder: Path) -> None:
    """Put a saved SAE in its place, in half precision and with checksums. `made` lies beside it on the same disk."""
    ready = made.parent / "ready"
    ready.mkdir()
    halved = {name: tensor.half() for name, tensor in load_file(made / WEIGHTS).items()}
    (ready / WEIGHTS).write_bytes(save(halved))
    shutil.copy(made / CONFIG, ready / CONFIG)
    sums = {name: hashlib.sha256((ready / name).read_bytes()).hexdigest() for name in (CONFIG, WEIGHTS)}
    (ready / CHECKSUMS).write_text(json.dumps(sums, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    ready.rename(folder)


def main() -> None:
    """Train the stored SAE and put it in its place."""
    target = get_target("smallworld")
    model = load_model(target, "cpu")
    with tempfile.TemporaryDirectory(dir=FOLDER.parent) as scratch:
        made = Path(scratch) / "made"
        store = harvest(model, load_texts(target, TRAIN_TEXTS, "train"), target.hook, Path(scratch) / "store",
                        dtype="float16", test_share=0.0, progress=False)
        train_with_sae_lens(StoreSource(store, target.hook), CHAPTER, target.d_sae, K, made)
        keep_sae(made, STORED)


if __name__ == "__main__":
    main()
