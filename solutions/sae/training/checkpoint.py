"""Checkpoints: everything a run needs to go on as if it had never stopped.

A checkpoint is two files. `step-00001000.safetensors` holds the tensors: weights, the optimiser's averages, how long
each latent has been silent, the state of the dice. `step-00001000.json` holds the rest, with the checksum of the first.
The JSON file is written last, so a checkpoint without one was cut off and does not count.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from solutions.data import DamagedFile, DiskFull, sha256
from solutions.data.store_files import write_whole
from solutions.errors import InputError

FORMAT = 1
FOLDER = "checkpoints"

#: How many checkpoints are kept: should the last one turn out damaged, there is the one before.
KEPT = 2

#: How the safetensors library says that there is no room: by the system's error number.
_FULL = re.compile(r"\b(os error|code:) (27|28|122)\b")

_NAME = re.compile(r"step-(\d{8,})\.json")


class Checkpoint(NamedTuple):
    """What a checkpoint holds."""

    step: int
    """Steps done."""
    facts: dict[str, Any]
    """What is no tensor: identity, scale, whether the run is finished."""
    tensors: dict[str, Tensor]


def write_checkpoint(folder: Path, step: int, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write a checkpoint, whole or not at all, and delete all but the last two.

    Raises:
        DiskFull: no room for it; the earlier ones are still there.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    place = folder / FOLDER
    place.mkdir(parents=True, exist_ok=True)
    data = place / f"step-{step:08d}.safetensors"
    part = data.with_suffix(".part")
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, part)
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        if isinstance(error, SafetensorError) and not _FULL.search(str(error)):
            raise
        size = sum(tensor.nbytes for tensor in tensors.values())
        raise DiskFull(
            f"the disk is full: no room for {data.name} ({size:,} bytes) in {place}. The checkpoint before it is "
            "whole. Free some space and start the same run again: it goes on there."
        ) from error
    listed = {"bytes": part.stat().st_size, "sha256": sha256(part)}
    os.replace(part, data)
    whole = {"format": FORMAT, "step": step, "tensors": listed, **facts}
    write_whole(data.with_suffix(".json"), (json.dumps(whole, indent=1) + "\n").encode())
    _tidy(place)


def _tidy(place: Path) -> None:
    """Delete checkpoints that are no longer wanted, and what cut-off ones left behind."""
    kept = {f"step-{step:08d}" for step in _steps(place)[-KEPT:]}
    for path in place.iterdir():
        if path.name.startswith("step-") and path.name.split(".")[0] not in kept:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()


def _steps(place: Path) -> list[int]:
    names = (_NAME.fullmatch(path.name) for path in place.iterdir()) if place.is_dir() else ()
    return sorted(int(name[1]) for name in names if name)


def last_step(folder: Path) -> int | None:
    """The step of a run's last checkpoint, or None when there is none yet. The checkpoint is not opened."""
    return max(_steps(folder / FOLDER), default=None)


def last_checkpoint(folder: Path) -> Checkpoint | None:
    """The last whole checkpoint of a run, or None when there is none yet.

    Raises:
        DamagedFile: it is not what was written. The message names the file and says what to do.
        InputError: it was written by a later version of this code.
    """
    steps = _steps(folder / FOLDER)
    return read_checkpoint(folder, steps[-1]) if steps else None


def read_checkpoint(folder: Path, step: int) -> Checkpoint:
    """The checkpoint of a run after so many steps; raises as `last_checkpoint` does."""
    from safetensors.torch import load_file

    data = folder / FOLDER / f"step-{step:08d}.safetensors"
    facts = _read_facts(data.with_suffix(".json"))
    listed = facts.pop("tensors")
    if not data.is_file():
        raise _damaged(data, "it is missing")
    if (found := data.stat().st_size) != listed["bytes"]:
        raise _damaged(data, f"expected {listed['bytes']:,} bytes, found {found:,}")
    if (found := sha256(data)) != listed["sha256"]:
        raise _damaged(data, f"expected sha256 {listed['sha256'][:16]}…, found {found[:16]}…")
    return Checkpoint(step, facts, load_file(data))


def _read_facts(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_bytes())
        found = facts["format"]
        facts["tensors"]["sha256"], facts["identity"]
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, f"not readable ({error})") from error
    if found != FORMAT:
        raise InputError(f"{path} is a checkpoint of format {found!r}, this code reads {FORMAT}. Start over.")
    return facts


def _damaged(path: Path, what: str) -> DamagedFile:
    return DamagedFile(
        f"the checkpoint {path} is damaged: {what}. Delete {path.with_suffix('.json').name}, and the run goes on from "
        "the checkpoint before it, or from the beginning when there is none."
    )


# ---- does it belong to this run?


def check_identity(found: Mapping[str, Any], wanted: Mapping[str, Any], folder: Path) -> None:
    """Refuse to go on with a run of another plan, source or SAE.

    Raises:
        InputError: naming each value that differs, what the run has and what this call has.
    """
    wanted = json.loads(json.dumps(wanted))  # as it reads after a round through the file
    differ = [
        f"{name}: the run has {_short(old)}, this call has {_short(new)}"
        for name, old, new in _pairs(found, wanted)
        if old != new
    ]
    if differ:
        raise InputError(
            f"{folder} holds a run that differs from this one:\n  " + "\n  ".join(differ) + "\n  "
            "Ask for what is there, choose another folder, or start over with resume=False."
        )


def _pairs(old: Any, new: Any, name: str = "") -> Iterable[tuple[str, Any, Any]]:
    """Entries of two nested mappings side by side, under names like "plan.lr"."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from _pairs(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    else:
        yield name, old, new


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "…"


# ---- the optimiser, as tensors


def optimiser_tensors(optimiser: torch.optim.Optimizer, module: nn.Module) -> dict[str, Tensor]:
    """The state of a module's optimiser, under names like "adam.W_enc.exp_avg"."""
    names = {parameter: name for name, parameter in module.named_parameters()}
    return {
        f"adam.{names[parameter]}.{key}": torch.as_tensor(value)
        for parameter, state in optimiser.state.items()
        for key, value in state.items()
    }


def restore_optimiser(
    optimiser: torch.optim.Optimizer, module: nn.Module, tensors: Mapping[str, Tensor]
) -> None:
    """Put back what `optimiser_tensors` gave."""
    parameters = dict(module.named_parameters())
    for full, tensor in tensors.items():
        if full.startswith("adam."):
            name, key = full.removeprefix("adam.").rsplit(".", 1)
            parameter = parameters[name]
            if tensor.shape == parameter.shape:
                # In memory as the parameter lies there: the fused optimiser walks through both side by side.
                tensor = torch.empty_like(parameter, dtype=tensor.dtype, requires_grad=False).copy_(tensor)
            optimiser.state[parameter][key] = tensor.to(parameter.device)
