"""The files of a feature index: arrays inside safetensors files, memory-mapped, and a manifest over them.

A safetensors file is eight bytes that give the length of a header, the header (JSON: name, dtype, shape and place of
each array), and the arrays' bytes. So an array can be mapped straight from the file: nothing is read before
somebody looks at it, and an index larger than memory is no problem.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from solutions.data import DamagedFile, sha256
from solutions.data.store_files import DiskFull, safetensors_header
from solutions.errors import InputError

FORMAT, VERSION = "monosemantic feature index", 1
MANIFEST = "manifest.json"
DTYPES = {"F32": np.float32, "I32": np.int32, "I64": np.int64, "BOOL": np.bool_}
REMEDY = "Build the index again with build_index(…, overwrite=True)."


# ------------------------------------------------------------------------------------------ arrays in files

def create_arrays(path: Path, arrays: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, np.ndarray]:
    """Make a safetensors file of the size it will have, and map its arrays for writing.

    arrays: name to (dtype, shape), the wide dtypes first so that every array starts at a multiple of its
    element size. The room on the disk is taken at once: a full disk is an error here, not a crash later.
    """
    sizes = {name: int(np.prod(shape, dtype=np.int64)) * np.dtype(DTYPES[dtype]).itemsize
             for name, (dtype, shape) in arrays.items()}
    header = safetensors_header({name: (*arrays[name], size) for name, size in sizes.items()})
    with open(path, "wb") as file:
        file.write(header)
        _reserve(file, len(header), sum(sizes.values()))
    return _map(path, json.loads(header[8:]), len(header), "r+")


def _reserve(file: Any, start: int, size: int) -> None:
    file.flush()
    if hasattr(os, "posix_fallocate"):
        if size:
            os.posix_fallocate(file.fileno(), start, size)
        return
    for done in range(0, size, 1 << 20):
        file.write(bytes(min(1 << 20, size - done)))


def open_arrays(path: Path) -> dict[str, np.ndarray]:
    """Map the arrays of a safetensors file, read-only.

    Raises:
        DamagedFile: it is cut off, or its header is not one.
    """
    size = path.stat().st_size
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(size, 1 << 20):
                raise ValueError(f"a header of {length} bytes in a file of {size}")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        end = 8 + length + max(entry["data_offsets"][1] for entry in header.values())
        if end != size:
            raise ValueError(f"expected {end} bytes, found {size}")
        return _map(path, header, 8 + length, "r")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedFile(f"{path.name} in {path.parent} is damaged: {error}. {REMEDY}") from error


def _map(path: Path, header: Mapping[str, Any], start: int, mode: str) -> dict[str, np.ndarray]:
    arrays = {}
    for name, entry in header.items():
        dtype, shape = np.dtype(DTYPES[entry["dtype"]]), tuple(entry["shape"])
        if 0 in shape:  # nothing to map
            arrays[name] = np.empty(shape, dtype)
        else:
            at = start + entry["data_offsets"][0]
            # A plain array over the same memory: slicing a np.memmap costs several times as much.
            arrays[name] = np.asarray(np.memmap(path, dtype, mode, at, shape))
    return arrays


# ----------------------------------------------------------------------------------------------- manifest

def checksum_of(value: Any) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Describe every file of the folder (bytes, SHA-256) in manifest.json, which carries its own checksum."""
    files = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            files[path.name] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
            _sync(path)
    body = {"format": FORMAT, "version": VERSION, **content, "files": files}
    path = folder / MANIFEST
    path.write_text(json.dumps({**body, "checksum": checksum_of(body)}, indent=1), encoding="utf-8")
    _sync(path)


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of an index, after a look at the sizes of its files.

    Raises:
        InputError: there is no index here, or it is of another kind or version.
        DamagedFile: the manifest has been altered, or a file is missing or of another size.
    """
    if not (path / MANIFEST).is_file():
        raise InputError(f"no feature index in {path}: it has no {MANIFEST}. build_index makes one.")
    try:
        body = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        stated = body.pop("checksum") if body.get("format") == FORMAT else None
    except (ValueError, KeyError, AttributeError) as error:
        raise DamagedFile(f"{MANIFEST} in {path} is damaged: {error}. {REMEDY}") from error
    if (body.get("format"), body.get("version")) != (FORMAT, VERSION):
        raise InputError(f"{path} holds {body.get('format')!r}, version {body.get('version')!r}; expected "
                         f"{FORMAT!r}, version {VERSION}. {REMEDY}")
    if stated != checksum_of(body):
        raise DamagedFile(f"{MANIFEST} in {path} has been altered: its checksum does not fit. {REMEDY}")
    for name, expected in body["files"].items():
        found = (path / name).stat().st_size if (path / name).is_file() else None
        if found != expected["bytes"]:
            what = "is missing" if found is None else f"has {found} bytes"
            raise DamagedFile(f"{name} in {path} {what}; expected {expected['bytes']} bytes. {REMEDY}")
    return body


def check_replaceable(path: Path) -> None:
    """Refuse to build over a folder that holds anything but a feature index, however damaged."""
    ours = ("by_token.safetensors", "by_latent.safetensors", "places.safetensors")
    if path.exists() and not (path.is_dir() and (any((path / f).exists() for f in ours) or not any(path.iterdir()))):
        raise InputError(f"{path} is there already and is no feature index, so it is not replaced. Give the index a "
                         "path of its own.")


def verify_files(path: Path, manifest: Mapping[str, Any]) -> None:
    """Read every file and compare its checksum. Raises DamagedFile that names the first that differs."""
    for name, expected in manifest["files"].items():
        if (found := sha256(path / name)) != expected["sha256"]:
            raise DamagedFile(f"{name} in {path} is damaged: expected sha256 {expected['sha256'][:16]}…, "
                              f"found {found[:16]}…. {REMEDY}")


def _sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


# ------------------------------------------------------------------------------------- appear whole or not

@contextlib.contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A folder to build in, beside `path`, that takes its place when all is done.

    Until then nothing is to be seen at `path` (or the older index still is). What a killed build has left
    beside it is cleared away by the next. Two builds at the same place: the second is refused.

    Raises:
        InputError: another process builds here.
        DiskFull: there is no room; nothing is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    place = path.parent / f".{path.name}.building"
    with _alone(path.parent / f".{path.name}.lock", path):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        try:
            yield place
            old = path.parent / f".{path.name}.old"
            shutil.rmtree(old, ignore_errors=True)
            if path.exists():
                os.replace(path, old)
            os.replace(place, path)
            shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise DiskFull(f"the disk is full: no room for the index in {path.parent}. Free some space and "
                               "build it again; nothing half is left.") from error
            raise
        finally:
            shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def _alone(lock: Path, path: Path) -> Iterator[None]:
    """Hold a lock that the system gives back even when the process is killed."""
    try:
        import fcntl
    except ImportError:  # Windows has none; there, two builds at once are the user's affair
        yield
        return
    with open(lock, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = os.path.samestat(os.fstat(file.fileno()), os.stat(lock))
        except (BlockingIOError, FileNotFoundError):  # held by another, or just taken away by one that is done
            held = False
        if not held:
            raise InputError(f"another process is building the index {path}. Wait for it, or build at "
                             "another path.")
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)  # while it is still held: nobody else can have it
