"""A few activations to disk and back, with a checksum. For more than fits into memory there is the store."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from solutions.data.tokens import Tokens
from solutions.errors import (
    CourseError,
    InputError,
    check_tensor,
)
from solutions.targets import Target, check_target


class SavedActivations(NamedTuple):
    """What `load_activations` gives back."""

    acts: dict[str, Tensor]   #: hook name to [batch, pos, d]
    tokens: Tokens            #: the tokens they belong to
    manifest: dict[str, Any]  #: where they come from, and the checksum


class DamagedFile(CourseError, OSError):
    """A file on disk is not the one that was written."""


def save_activations(
    path: str | os.PathLike[str], acts: Mapping[str, Tensor], tokens: Tokens, target: Target
) -> Path:
    """Write activations, the tokens they belong to and where they come from.

    The folder appears whole or not at all: it is written beside its place and then renamed.

    Args:
        path: the folder to make; an older one of the same name is replaced.
        acts: hook name to [batch, pos, d] activations, as `extract` gives them.
        tokens: the tokens they were taken from.
        target: the target they were taken on.

    Returns:
        The folder, which holds `activations.safetensors` and `manifest.json` (hooks, shapes, dtypes,
        checksum).

    Raises:
        InputError: the activations and the tokens do not belong together, or `target` is the name of one.
    """
    from safetensors.torch import save_file

    check_target(target)
    if not isinstance(tokens, Tokens):
        raise InputError(f"tokens must be Tokens from `tokenize`, got {type(tokens).__name__}.")
    if not isinstance(acts, Mapping) or not acts:
        raise InputError(
            "acts must map at least one hook name to its activations, as `extract` returns them."
        )
    for hook, x in acts.items():
        if len(check_tensor(x, f"acts[{hook!r}]")) != len(tokens):
            raise InputError(f"acts[{hook!r}] has {len(x)} rows, the tokens have {len(tokens)}.")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    tensors = {f"acts.{hook}": x for hook, x in acts.items()}
    tensors |= {f"tokens.{name}": getattr(tokens, name) for name in ("ids", "mask", "bos")}
    data = new / "activations.safetensors"
    save_file({name: x.detach().cpu().contiguous() for name, x in tensors.items()}, data)
    manifest = {
        "format": 1,
        "target": target.name,
        "model": target.model,
        "processing": dict(target.processing),
        "hooks": {hook: {"shape": list(x.shape), "dtype": str(x.dtype)} for hook, x in acts.items()},
        "n_tokens": int(tokens.mask.sum()),
        "files": {data.name: {"bytes": data.stat().st_size, "sha256": sha256(data)}},
    }
    (new / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    if path.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{path.name}-old-", dir=path.parent))
        os.replace(path, old / "was")
        os.replace(new, path)
        shutil.rmtree(old)
    else:
        os.replace(new, path)
    return path


def load_activations(path: str | os.PathLike[str]) -> SavedActivations:
    """Read back what `save_activations` wrote, after checking that every file is still the one it wrote.

    Args:
        path: the folder.

    Returns:
        The activations, their tokens, and the manifest.

    Raises:
        InputError: there is no such folder.
        DamagedFile: a file is missing, cut short or altered; the message names it and both checksums.
    """
    from safetensors.torch import load_file

    path = Path(path)
    if not (path / "manifest.json").is_file():
        raise InputError(f"no saved activations in {path}: it has no manifest.json.")
    manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    for name, expected in manifest["files"].items():
        found = sha256(path / name) if (path / name).is_file() else "no file"
        if found != expected["sha256"]:
            raise DamagedFile(
                f"{name} in {path} is damaged: expected sha256 {expected['sha256'][:16]}…, "
                f"found {found[:16]}…. Save the activations again."
            )
    tensors = load_file(path / "activations.safetensors")
    tokens = Tokens(*(tensors.pop(f"tokens.{name}") for name in ("ids", "mask", "bos")))
    return SavedActivations({name.removeprefix("acts."): x for name, x in tensors.items()}, tokens, manifest)


def sha256(path: Path) -> str:
    """The checksum of a file, read in pieces.

    Args:
        path: the file.

    Returns:
        64 hexadecimal digits.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
