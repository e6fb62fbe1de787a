"""What an activation store is on disk: its file names, its manifest, and writing that never leaves half a file."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from solutions.data.saved import DamagedFile, sha256
from solutions.errors import CourseError, InputError

FORMAT = 1
MANIFEST, LOCK = "manifest.json", "writer.lock"

#: What activations may be stored as.
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

#: What to do about a damaged file: a shard can be made anew, because its texts and its batches are known.
MEND = "Delete that file and run the same harvest again: only this shard is made anew."

#: Bytes that are written at a time.
AT_ONCE = 1 << 18

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class DiskFull(CourseError, OSError):
    """There is no room on the disk for what is to be written."""


class StoreInUse(CourseError, OSError):
    """Another process is writing to this store."""


def file_names(shard: int) -> tuple[str, str]:
    """A shard is two files: its activations, and the tokens they belong to (small: opened at once)."""
    return f"acts-{shard:05d}.safetensors", f"tokens-{shard:05d}.safetensors"


def safetensors_header(arrays: Mapping[str, tuple[str, Sequence[int], int]]) -> bytes:
    """What stands before the data of a safetensors file: eight bytes with the length of the rest, then JSON.

    Args:
        arrays: name to (dtype as the format calls it, shape, bytes), in the order in which the data follows.
    """
    header, offset = {}, 0
    for name, (dtype, shape, size) in arrays.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format allows spaces: the data starts at a multiple of 8
    return len(text).to_bytes(8, "little") + text


def as_safetensors(tensors: Mapping[str, Tensor]) -> list[bytes | memoryview]:
    """The content of a safetensors file, piece by piece: the tensors' own memory, not a copy of it."""
    names = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
    data = {name: x.contiguous() for name, x in tensors.items()}
    header = safetensors_header({name: (names[x.dtype], x.shape, x.nbytes) for name, x in data.items()})
    return [header, *(memoryview(x.view(-1).view(torch.uint8).numpy()) for x in data.values())]


def write_whole(path: Path, *pieces: bytes | memoryview) -> dict[str, Any]:
    """Write a file so that it appears whole or not at all, even when the power fails.

    Args:
        path: the file.
        pieces: what it will hold, one after the other.

    Returns:
        Its size in bytes and its checksum, as the manifest lists them.

    Raises:
        DiskFull: there is no room; nothing of the file is left.
    """
    part = path.with_name(path.name + ".part")
    n_bytes, digest = sum(len(piece) for piece in pieces), hashlib.sha256()
    try:
        with open(part, "wb") as file:
            for piece in pieces:
                for start in range(0, len(piece), AT_ONCE):  # so that it is still in the cache when it is written
                    digest.update(piece[start : start + AT_ONCE])
                    file.write(piece[start : start + AT_ONCE])
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        if error.errno in _FULL:
            raise DiskFull(
                f"the disk is full: no room for {path.name} ({n_bytes:,} bytes) in {path.parent}. "
                "What was written before is whole. Free some space and run the same harvest again: it goes on there."
            ) from error
        raise
    return {"bytes": n_bytes, "sha256": digest.hexdigest()}


def _sync_folder(folder: Path) -> None:
    """Make a renaming last: the folder itself has to reach the disk (Windows has no such call)."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


# ---- manifest


def write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Write `manifest.json`, sealed with its own checksum."""
    sealed = {**manifest, "sha256": _seal(manifest)}
    write_whole(path / MANIFEST, (json.dumps(sealed, indent=1) + "\n").encode())


def read_manifest(path: Path) -> dict[str, Any]:
    """Read `manifest.json`.

    Raises:
        InputError: there is no store here, or one of a later format.
        DamagedFile: the manifest is not the one that was written.
    """
    if not (path / MANIFEST).is_file():
        raise InputError(f"no activation store in {path}: it has no {MANIFEST}. `harvest` makes one.")
    start_over = "Harvest again with resume=False."
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        seal = manifest.pop("sha256")
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise DamagedFile(f"{MANIFEST} in {path} is damaged: not readable ({error}). {start_over}") from error
    if manifest.get("format") != FORMAT:
        raise InputError(
            f"{path} is a store of format {manifest.get('format')!r}, this code reads {FORMAT}. {start_over}"
        )
    if seal != _seal(manifest):
        raise DamagedFile(
            f"{MANIFEST} in {path} is damaged: expected sha256 {str(seal)[:16]}…, "
            f"found {_seal(manifest)[:16]}…. {start_over}"
        )
    return manifest


def _seal(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


# ---- checks


def size_problem(path: Path, listed: Mapping[str, Any]) -> str | None:
    """What is wrong with a file judging by its size; None when nothing is."""
    if not path.is_file():
        return f"{path.name} is missing"
    if (found := path.stat().st_size) != listed["bytes"]:
        return f"{path.name} is damaged: expected {listed['bytes']:,} bytes, found {found:,}"
    return None


def content_problem(path: Path, listed: Mapping[str, Any]) -> str | None:
    """What is wrong with a file: its size, then its checksum; None when nothing is."""
    if (problem := size_problem(path, listed)) is None and (found := sha256(path)) != listed["sha256"]:
        problem = (
            f"{path.name} is damaged: expected sha256 {listed['sha256'][:16]}…, found {found[:16]}…"
        )
    return problem


def raise_problems(path: Path, problems: Iterable[str | None]) -> None:
    """Raise one error that names every damaged file."""
    found = [problem for problem in problems if problem]
    if found:
        raise DamagedFile(f"in the store {path}:\n  " + "\n  ".join(found) + f"\n  {MEND}")
