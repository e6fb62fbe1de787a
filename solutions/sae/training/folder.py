"""A run's folder: whose it is, that only one process writes there, and the SAE that is saved in the end."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from solutions.data.store_files import write_whole
from solutions.data.store_writer import locked
from solutions.errors import InputError
from solutions.sae.architectures.saving import save_sae
from solutions.sae.training.checkpoint import FOLDER, check_identity
from solutions.sae.training.log import LOG
from solutions.sae.training.plan import Plan
from solutions.sae.training.sources import Source

if TYPE_CHECKING:
    from solutions.sae.architectures import TrainableSAE
    from solutions.targets import Target

#: The file that says which run a folder holds, the one that is locked while it goes, and all that belongs there.
CARD, LOCK = "run.json", "run.lock"
OURS = (CARD, CARD + ".part", LOCK, LOG, LOG + ".part", FOLDER, "sae")

#: What a saved SAE says of its model and hook point when nobody told.
UNKNOWN = "unknown"


@contextlib.contextmanager
def prepared(folder: Path, identity: dict[str, Any], resume: bool) -> Iterator[None]:
    """Make a run's folder, or check that the run in it is this one. It is ours alone for as long as the block lasts.

    Raises:
        InputError: it holds another run, or something that is no run.
        StoreInUse: another process is training here.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file. A run is a folder: choose another name.")
    folder.mkdir(parents=True, exist_ok=True)
    strangers = [p.name for p in sorted(folder.iterdir()) if p.name not in OURS and not p.name.startswith(".sae")]
    if strangers:
        raise InputError(f"{folder} holds {strangers[0]!r}, which is no part of a run. Choose an empty folder.")
    with locked(folder / LOCK):
        for leftover in folder.glob(".sae.*"):  # of a process that died while it saved the SAE
            shutil.rmtree(leftover)
        if not resume:
            for name in OURS:
                path = folder / name
                if name != LOCK:
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        _check_card(folder, identity)
        yield


def _check_card(folder: Path, identity: dict[str, Any]) -> None:
    """Compare what the folder says of its run, or say it."""
    card = folder / CARD
    if card.is_file():
        try:
            found = json.loads(card.read_bytes())
        except ValueError as error:
            raise InputError(f"{card} is not readable ({error}). Start over with resume=False.") from error
        check_identity(found, identity, folder)
    else:
        write_whole(card, (json.dumps(identity, indent=1) + "\n").encode())


def save_trained(
    sae: TrainableSAE, path: Path, source: Source, plan: Plan, target: Target | None
) -> None:
    """Save in SAELens's format, with what target and source know of where it belongs; the rest is "unknown"."""
    about = {"model_name": UNKNOWN, "context_size": 1, "prepend_bos": False}
    about |= {name: value for name, value in source.about.items() if value is not None}
    hook, processing = source.hook, dict.fromkeys(about.pop("processing", ()), True)
    if target is not None:
        about |= {"model_name": target.model, "context_size": target.context_size, "prepend_bos": target.prepend_bos}
        hook, processing = hook or target.hook, dict(target.processing)
    about["model_from_pretrained_kwargs"] = processing  # under this name `preflight` and SAELens look for it
    if source.target_hook is not None:
        about["hook_name_out"] = source.target_hook
    save_sae(sae, path, hook=hook or UNKNOWN, overwrite=True, n_tokens=plan.n_tokens, seed=plan.seed, **about)
