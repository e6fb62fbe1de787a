"""Writing an activation store: one shard after another, each whole or not there.

The order of the steps is what makes it safe to pull the plug. A shard is written beside its place, brought to
the disk and renamed; then the manifest that lists it, in the same way. So the manifest never lists what is not
there, and what it does not list yet is made again, byte for byte the same.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from solutions.data.store_files import (
    DTYPES,
    FORMAT,
    LOCK,
    MANIFEST,
    StoreInUse,
    as_safetensors,
    file_names,
    read_manifest,
    size_problem,
    write_manifest,
    write_whole,
)
from solutions.errors import InputError

_OURS = re.compile(r"(acts|tokens)-\d{5,}\.safetensors(\.part)?|manifest\.json(\.part)?|writer\.lock")


class Shard(NamedTuple):
    """Some whole documents, one after the other."""

    ids: Tensor                 #: [n_tokens] int64 token ids, BOS included
    lengths: Sequence[int]      #: tokens of each document
    kinds: Sequence[str]        #: what kind of text each document is
    acts: Mapping[str, Tensor]  #: hook name to [n_tokens, ...] activations, in the store's dtype
    texts: str                  #: a checksum of the texts they were made from


class StoreWriter:
    """The one writer of a store. A context manager: it holds the store's lock while it is open.

    Args:
        path: the folder; made when it is not there.
        head: what the store is of: the manifest's entries, all of which must agree before anything is added.
            "hooks" maps each hook to its shape, "dtype" is one of `DTYPES`.
        resume: go on with the store that is there; False starts over.

    Raises:
        StoreInUse: another process is writing here.
        InputError: the folder holds something else, or a store of another model, other hooks, ...
        DamagedFile: the manifest is not the one that was written.
    """

    def __init__(self, path: str | os.PathLike[str], head: Mapping[str, Any], resume: bool = True):
        if head["dtype"] not in DTYPES:
            raise InputError(f"dtype must be one of {', '.join(DTYPES)}, got {head['dtype']!r}.")
        self.path = Path(path)
        self._head = json.loads(json.dumps(head))  # as it will read after a round through the file
        self._resume = resume
        self._lock: Any = None
        self._manifest: dict[str, Any] = {}

    def __enter__(self) -> StoreWriter:
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file. A store is a folder: choose another name.")
        self.path.mkdir(parents=True, exist_ok=True)
        if strangers := [p.name for p in sorted(self.path.iterdir()) if not _OURS.fullmatch(p.name)]:
            raise InputError(
                f"{self.path} holds {strangers[0]!r}, which is not part of a store. Choose an empty folder."
            )
        self._lock = locked(self.path / LOCK)
        try:
            self._open()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.ftruncate(self._lock.fileno(), 0)
        self._lock.close()  # closing gives the lock back; so does the end of the process, however it comes

    def _open(self) -> None:
        if (self.path / MANIFEST).is_file() and self._resume:
            self._manifest = read_manifest(self.path)
            self._check_head()
        else:
            (self.path / MANIFEST).unlink(missing_ok=True)
            self._manifest = {"format": FORMAT, **self._head, "complete": False, "shards": []}
        listed = {name for shard in self.shards for name in shard["files"]} | {MANIFEST, LOCK}
        for path in self.path.iterdir():
            if path.name not in listed:  # half written, or whole and not listed: it is made again
                path.unlink()
        if not (self.path / MANIFEST).is_file():
            write_manifest(self.path, self._manifest)

    def _check_head(self) -> None:
        """Refuse to add to a store that was made otherwise."""
        differ = [
            f"{key}: the store has {_short(self._manifest.get(key))}, this call has {_short(value)}"
            for key, value in self._head.items()
            if self._manifest.get(key) != value
        ]
        if differ:
            raise InputError(
                f"{self.path} holds a store made in another way:\n  "
                + "\n  ".join(differ)
                + "\n  Ask for what is there, choose another folder, or start over with resume=False."
            )

    @property
    def shards(self) -> list[dict[str, Any]]:
        """The manifest's entries of the shards that are listed."""
        return self._manifest["shards"]

    @property
    def complete(self) -> bool:
        """True when the texts had come to their end."""
        return self._manifest["complete"]

    def is_whole(self, i: int) -> bool:
        """True when the files of shard `i` are there, at the size they were written with.

        Args:
            i: the shard's number.

        Returns:
            Whether they are.
        """
        return not any(size_problem(self.path / name, file) for name, file in self.shards[i]["files"].items())

    def write(self, i: int, shard: Shard) -> None:
        """Write shard `i`: the next one, or one of the earlier ones again.

        Args:
            i: the shard's number.
            shard: its documents.

        Raises:
            InputError: its parts do not fit together, or a value does not fit into the store's dtype.
            DiskFull: no room; the store stays as it was.
        """
        from safetensors.torch import save

        self._check_shard(shard)
        names = sorted(set(shard.kinds))
        tokens = {
            "ids": shard.ids.to(torch.int32),
            "lengths": torch.tensor(list(shard.lengths), dtype=torch.int32),
            "kinds": torch.tensor([names.index(kind) for kind in shard.kinds], dtype=torch.int32),
        }
        acts, tokens_file = file_names(i)
        files = {
            tokens_file: write_whole(self.path / tokens_file, save(tokens, {"kinds": json.dumps(names)})),
            acts: write_whole(self.path / acts, *as_safetensors(shard.acts)),
        }
        entry = {
            "documents": len(shard.lengths),
            "tokens": len(shard.ids),
            "texts": shard.texts,
            "files": files,
        }
        self.shards[i : i + 1] = [entry]
        write_manifest(self.path, self._manifest)

    def _check_shard(self, shard: Shard) -> None:
        n, dtype = len(shard.ids), DTYPES[self._manifest["dtype"]]
        if sum(shard.lengths) != n or len(shard.kinds) != len(shard.lengths):
            raise InputError(
                f"a shard of {n} tokens has lengths that add up to {sum(shard.lengths)}, "
                f"{len(shard.lengths)} documents and {len(shard.kinds)} kinds."
            )
        for hook, listed in self._manifest["hooks"].items():
            x, shape = shard.acts.get(hook), (n, *listed["shape"])
            if x is None or x.shape != shape or x.dtype != dtype:
                found = "nothing" if x is None else f"{x.dtype} {list(x.shape)}"
                raise InputError(f"the shard's {hook!r} must be {dtype} {list(shape)}, got {found}.")
            if n and not all(end.isfinite() for end in x.aminmax()):  # one look at each number, and no copy
                raise InputError(
                    f"{hook!r} has numbers that {dtype} cannot hold (infinite or not a number). "
                    "If the model is sound, they are too large: store it as bfloat16 or float32."
                )

    def finish(self) -> None:
        """Say that the texts have come to their end."""
        if not self.complete:
            self._manifest["complete"] = True
            write_manifest(self.path, self._manifest)


def _short(value: object) -> str:
    """A manifest entry in a line; of a mapping (the hooks) its names, of a checksum its beginning."""
    if isinstance(value, Mapping):
        value = list(value)
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "…"


def locked(path: Path) -> Any:
    """Open and lock a file. The system gives the lock back when the process ends, so a dead one never holds it."""
    file = open(path, "a+b", buffering=0)
    try:
        _lock(file)
    except OSError as error:
        file.seek(0)
        owner = file.read().decode(errors="replace")
        file.close()
        raise StoreInUse(
            f"{path.parent} is being written by another process{f' (number {owner})' if owner else ''}. "
            "Wait for it to end, or choose another folder."
        ) from error
    os.ftruncate(file.fileno(), 0)
    file.write(str(os.getpid()).encode())
    return file


def _lock(file: Any) -> None:
    try:
        import fcntl
    except ImportError:  # Windows locks a byte instead; one far behind the number, which stays readable
        import msvcrt

        file.seek(1 << 20)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
