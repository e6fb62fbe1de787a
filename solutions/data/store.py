"""Reading an activation store: any range of it, or all of it in batches, however large it is.

    store = ActivationStore("scratch/store")
    for batch in store.batches(hook, 4096, shuffle=True, split="train"):
        batch.acts        # [4096, d]
        store.ids[batch.index]    # the tokens they belong to

What is needed of every token (its id, place, document) is kept in memory. The vectors stay on the disk, and
the system maps what is read of them into memory.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from solutions.data.normalise import Normalisation, measure_normalisation
from solutions.data.store_files import (
    content_problem,
    file_names,
    raise_problems,
    read_manifest,
    size_problem,
)
from solutions.errors import InputError, check_count, unknown_name, whole_number

#: Shuffled reading takes runs of so many neighbouring tokens: a disk is slow at reading single ones.
RUN = 256

#: Shuffled reading keeps so many tokens' vectors in memory, unless told otherwise.
BUFFER_TOKENS = 65_536

#: Reading in order, for statistics, takes so many tokens at a time.
AT_ONCE = 16_384

#: Shards kept open at a time; what the system has mapped of the others is given back.
OPEN_SHARDS = 16


class StoreBatch(NamedTuple):
    """Some tokens of a store: their vectors, [n, d] float32, and their places in it, [n] int64."""

    acts: Tensor   #: [n, d] float32
    index: Tensor  #: [n] int64, places in the store


class ActivationStore:
    """Activations on disk, read as needed. Tokens stand in the order of the texts, a document's together.

    Args:
        path: the folder that `harvest` wrote. One that is still being written, or was cut off, opens with
            what is in it so far.

    Raises:
        InputError: there is no store here.
        DamagedFile: a file is missing or has the wrong size. Checksums are compared when a shard is first
            read; `verify` compares all of them.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        #: What the store is of, by model, processing, hooks and shapes, dtype, tokens, checksums.
        self.manifest: dict[str, Any] = read_manifest(self.path)
        self._shards: list[dict[str, Any]] = self.manifest["shards"]
        raise_problems(self.path, (size_problem(path, listed) for path, listed in self._files()))
        self._ends = np.cumsum([0, *(shard["tokens"] for shard in self._shards)])
        self._checked: set[str] = set()
        self._opened: dict[int, dict[str, Tensor]] = {}
        self._statistics: dict[tuple[str, str | None], Normalisation] = {}

    def __repr__(self) -> str:
        state = "" if self.is_complete else ", unfinished"
        return (
            f"<ActivationStore {self.path.name!r}: {self.n_tokens:,} tokens of {self.n_documents:,} documents at "
            f"{', '.join(self.hooks)} ({self.manifest['dtype']}{state})>"
        )

    def __len__(self) -> int:
        return self.n_tokens

    @property
    def hooks(self) -> list[str]:
        """The hook points whose activations are here."""
        return list(self.manifest["hooks"])

    def width(self, hook: str) -> int:
        """Numbers per token at a hook point (of what single heads compute: all heads together).

        Args:
            hook: a hook point of this store.

        Returns:
            d.

        Raises:
            InputError: the store has no such hook point.
        """
        return int(np.prod(self.manifest["hooks"][self._check_hook(hook)]["shape"]))

    @property
    def is_complete(self) -> bool:
        """False when the harvest is still running, or was cut off."""
        return self.manifest["complete"]

    @property
    def n_tokens(self) -> int:
        """Tokens in the store, BOS included. Padding is never stored."""
        return int(self._ends[-1])

    @property
    def n_documents(self) -> int:
        """Documents in the store."""
        return sum(shard["documents"] for shard in self._shards)

    @property
    def n_content(self) -> int:
        """Tokens in the store, BOS left out."""
        return self.n_tokens - self.n_documents * self.manifest["prepend_bos"]

    @property
    def n_bytes(self) -> int:
        """Bytes on disk, the manifest left out."""
        return sum(listed["bytes"] for _, listed in self._files())

    # ---- what is known of every token

    @cached_property
    def _tokens(self) -> dict[str, Any]:
        """The token files, put together: ids, lengths of the documents, kinds of the documents."""
        from safetensors import safe_open

        ids, lengths, kinds = [torch.empty(0)], [torch.empty(0)], []
        for i in range(len(self._shards)):
            with safe_open(self._checked_file(i, file_names(i)[1]), "pt") as file:
                ids.append(file.get_tensor("ids"))
                lengths.append(file.get_tensor("lengths"))
                names = json.loads(file.metadata()["kinds"])
                kinds += [names[k] for k in file.get_tensor("kinds").tolist()]
        return {"ids": torch.cat(ids).long(), "lengths": torch.cat(lengths).long(), "kinds": kinds}

    @property
    def ids(self) -> Tensor:
        """[n_tokens] int64: the tokens themselves."""
        return self._tokens["ids"]

    @cached_property
    def document(self) -> Tensor:
        """[n_tokens] int64: which document each token belongs to."""
        return torch.arange(self.n_documents).repeat_interleave(self._tokens["lengths"])

    @cached_property
    def position(self) -> Tensor:
        """[n_tokens] int64: place in its document, from 0 (BOS, where there is one)."""
        lengths = self._tokens["lengths"]
        return torch.arange(self.n_tokens) - (lengths.cumsum(0) - lengths)[self.document]

    @cached_property
    def is_bos(self) -> Tensor:
        """[n_tokens] bool: the beginning-of-sequence token that was put in front of each document."""
        first = self.position == 0
        return first if self.manifest["prepend_bos"] else torch.zeros_like(first)

    @cached_property
    def test(self) -> Tensor:
        """[n_tokens] bool: belongs to a document of the test split."""
        return torch.tensor((self.documents["split"] == "test").to_numpy())[self.document]

    @cached_property
    def documents(self) -> pd.DataFrame:
        """One row per document: document, start (its first token's place), length, split, kind.

        Whole documents are put aside for testing, never single tokens: a token's neighbours know it.
        """
        lengths = self._tokens["lengths"]
        seed, share = self.manifest["seed"], self.manifest["test_share"]
        return pd.DataFrame(
            {
                "document": range(self.n_documents),
                "start": (lengths.cumsum(0) - lengths).numpy(),
                "length": lengths.numpy(),
                "split": [split_of(number, seed, share) for number in range(self.n_documents)],
                "kind": self._tokens["kinds"],
            }
        )

    # ---- vectors

    def read(self, hook: str, start: int, stop: int) -> Tensor:
        """The activations of the tokens from place `start` up to `stop`, [stop - start, d] float32.

        Args:
            hook: a hook point of this store.
            start: the first place.
            stop: the place after the last.

        Returns:
            [stop - start, d] float32.

        Raises:
            InputError: the store has no such hook point, or the range is not in it.
        """
        self._check_hook(hook)
        first, last = whole_number(start), whole_number(stop)
        if first is None or last is None or not 0 <= first <= last <= self.n_tokens:
            raise InputError(f"a range must lie in 0 to {self.n_tokens}, got {start!r} to {stop!r}.")
        return self._rows(hook, np.arange(first, last)).float()

    def batches(
        self,
        hook: str,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int | Sequence[int] = 0,
        split: str | None = None,
        bos: bool = False,
        buffer_tokens: int | None = None,
        start: int = 0,
        stripe: tuple[int, int] = (0, 1),
    ) -> Iterator[StoreBatch]:
        """Every token once, in batches; the last one may be smaller.

        Args:
            hook: whose activations.
            batch_size: tokens in a batch.
            shuffle: mix the tokens. The store is cut into runs of 256 neighbours, and these are taken in random
                order until the buffer is full. The buffer's tokens are then dealt in random order. So a
                token's neighbours land in the same buffer, but hardly ever in the same batch: of 256, about
                256 × batch_size / buffer_tokens. A buffer as large as the store shuffles perfectly.
            seed: the same seed gives the same order. Several numbers make one seed, e.g. that of a run and the epoch.
            split: only "train", or only "test".
            bos: whether BOS is given, too. Its vector is like no other and would be most of the variance.
            buffer_tokens: how many tokens' vectors are in memory at a time when shuffling; at least a batch.
            start: so many batches are left out at the beginning, unread: to go on where one stopped.
            stripe: (r, n) gives rows r, r + n, r + 2n, ... of every batch, and the others are not read: n processes
                with one r each share the batches among them.

        Returns:
            One `StoreBatch` after another, with acts [n, d] float32 and index [n], the tokens' places in the store.

        Raises:
            InputError: the store has no such hook point, or a number or the split cannot be.
        """
        self._check_hook(hook)
        check_count(batch_size, "batch_size")
        size = check_count(BUFFER_TOKENS if buffer_tokens is None else buffer_tokens, "buffer_tokens")
        check_count(start, "start", least=0)
        places = self._places(split, bos)  # here, so that a mistake is an error now and not at the first batch
        if not shuffle:
            return self._in_order(hook, places, batch_size, start, stripe)
        buffer = max(size // batch_size, 1) * batch_size
        return self._shuffled(hook, places, batch_size, buffer, seed, start, stripe)

    def _in_order(
        self, hook: str, places: np.ndarray, batch_size: int, start: int, stripe: tuple[int, int]
    ) -> Iterator[StoreBatch]:
        for first in range(start * batch_size, len(places), batch_size):
            part = places[first : first + batch_size][stripe[0] :: stripe[1]]
            yield StoreBatch(self._rows(hook, part).float(), torch.from_numpy(part))

    def _shuffled(
        self,
        hook: str,
        places: np.ndarray,
        batch_size: int,
        buffer: int,
        seed: int | Sequence[int],
        start: int,
        stripe: tuple[int, int],
    ) -> Iterator[StoreBatch]:
        dice = np.random.default_rng(seed)
        runs = dice.permutation(np.arange(0, len(places), RUN))
        order = np.concatenate([places[run : run + RUN] for run in runs] or [places])
        for first in range(0, len(order), buffer):
            part = np.sort(order[first : first + buffer])  # read in the order of the disk
            dealt = dice.permutation(len(part))  # drawn for a buffer that is left out, too: the dice stay in step
            hands = [dealt[i : i + batch_size][stripe[0] :: stripe[1]] for i in range(0, len(part), batch_size)]
            hands = hands[max(start - first // batch_size, 0) :]
            if not hands:
                continue
            wanted = np.sort(np.concatenate(hands))
            row = np.zeros(len(part), dtype=np.int64)
            row[wanted] = np.arange(len(wanted))
            vectors = self._rows(hook, part[wanted])
            for hand in hands:
                chosen = vectors.index_select(0, torch.from_numpy(row[hand]))
                yield StoreBatch(chosen.float(), torch.from_numpy(part[hand]))

    def statistics(self, hook: str, split: str | None = "train") -> Normalisation:
        """Mean and variance of each dimension and mean length, BOS left out. One pass; remembered.

        Measured on the training documents by default: what is tested must not help to scale.

        Args:
            hook: a hook point of this store.
            split: "train", "test", or None for all.

        Returns:
            What was measured.

        Raises:
            InputError: the store has no such hook point, or no token in that split.
        """
        key = (self._check_hook(hook), split)
        if key not in self._statistics:
            batches = self.batches(hook, AT_ONCE, split=split)
            self._statistics[key] = measure_normalisation(batch.acts for batch in batches)
        return self._statistics[key]

    def verify(self) -> None:
        """Compare every file with its checksum.

        Raises:
            DamagedFile: naming all that are missing, cut short or altered.
        """
        raise_problems(self.path, (content_problem(path, listed) for path, listed in self._files()))

    # ---- inside

    def _files(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        for shard in self._shards:
            for name, listed in shard["files"].items():
                yield self.path / name, listed

    def _check_hook(self, hook: str) -> str:
        if hook not in self.manifest["hooks"]:
            raise unknown_name("hook point in this store", hook, self.hooks)
        return hook

    def _places(self, split: str | None, bos: bool) -> np.ndarray:
        if split not in (None, "train", "test"):
            raise unknown_name("split", split, ("train", "test"))
        wanted = torch.ones(self.n_tokens, dtype=torch.bool) if bos else ~self.is_bos
        if split is not None:
            wanted = wanted & (self.test if split == "test" else ~self.test)
        return wanted.nonzero().squeeze(1).numpy()

    def _rows(self, hook: str, places: np.ndarray) -> Tensor:
        """The vectors at ascending places, [n, d] in the store's dtype, copied out of the mapped files."""
        pieces = []
        bounds = np.searchsorted(places, self._ends)
        for i, (start, stop) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
            if stop > start:
                rows = torch.from_numpy(places[start:stop] - self._ends[i])
                pieces.append(self._open(i)[hook][rows].flatten(1))
        return torch.cat(pieces) if pieces else torch.empty(0, self.width(hook))

    def _open(self, i: int) -> dict[str, Tensor]:
        """The activations of a shard, mapped into memory: nothing is read before it is used."""
        from safetensors import safe_open

        if i not in self._opened:
            with safe_open(self._checked_file(i, file_names(i)[0]), "pt") as file:
                shard = {hook: file.get_tensor(hook) for hook in self.hooks}
            while len(self._opened) >= OPEN_SHARDS:
                del self._opened[next(iter(self._opened))]
            self._opened[i] = shard
        return self._opened[i]

    def _checked_file(self, i: int, name: str) -> Path:
        """The path of a shard's file, compared with its checksum when it is first used."""
        if name not in self._checked:
            raise_problems(self.path, [content_problem(self.path / name, self._shards[i]["files"][name])])
            self._checked.add(name)
        return self.path / name


def split_of(document: int, seed: int, test_share: float) -> str:
    """The split of a document, "train" or "test": drawn from its number and the seed, by a hash.

    So it stays the same however the store is read or extended, and a resumed harvest draws nothing again.

    Args:
        document: its number in the text.
        seed: of the whole split.
        test_share: share of the documents put aside for testing, from 0 to 1.

    Returns:
        "train" or "test".

    Example:
        >>> [split_of(document, seed=0, test_share=0.5) for document in range(4)]
        ['test', 'train', 'train', 'train']
    """
    digest = hashlib.sha256(f"{seed}/{document}".encode()).digest()
    return "test" if int.from_bytes(digest[:8], "big") < test_share * 2**64 else "train"
