"""Where training gets its activations: a store on disk, a tensor in memory, or a model that runs as it goes.

All three say how many tokens they hold, give a random sample, and deal shuffled batches from any step on. So a run
that was cut off goes on with the very batch it would have seen next. With two hook points a source gives pairs, and
the SAE becomes a transcoder: it reads one place of the model and writes another (Dunefsky et al. 2024).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from solutions.data import ActivationStore
from solutions.errors import InputError, check_count, check_tensor, unknown_name

#: Tokens that the scale, the first weights and the variance are estimated from.
SAMPLE = 16_384

#: Keeps the dice of a sample apart from those of an epoch.
_SAMPLING = 2**31


class Batch(NamedTuple):
    """Activations of some tokens, float32 and not scaled."""

    x: Tensor
    """[n, d_in] what the SAE reads."""
    target: Tensor | None
    """[n, d_out] what it is to give, or None for x itself."""


class Source:
    """What all sources share.

    Attributes:
        d_in, d_out: width of what the SAE reads, and of what it is to give.
        n_tokens: tokens in one epoch; math.inf when nobody has counted them.
        hook, target_hook: where in the model they come from; None when not known, or when there is no target.
        about: what a saved SAE should know of its data: model_name, context_size, prepend_bos, processing, ...
        has_target: gives pairs.
        own: each of several processes has data of its own, instead of its rows of the same batches.
    """

    own: bool = False
    has_target: bool = False
    d_in: int
    d_out: int
    n_tokens: float
    hook: str | None = None
    target_hook: str | None = None
    about: dict[str, Any]

    def sample(self, n: int = SAMPLE, seed: int = 0) -> Batch:
        """Up to `n` tokens from all over the source; the same ones for the same seed.

        Args:
            n: how many at most.
            seed: the same seed gives the same result.

        Returns:
            Activations, and what is to be predicted from them where that is something else.

        Raises:
            InputError: `n` is no whole number above 0.
            NotImplementedError: in this class itself, which only says what sources have in common.
        """
        raise NotImplementedError

    def batches(
        self, batch_size: int, seed: int = 0, start_step: int = 0, stripe: tuple[int, int] = (0, 1)
    ) -> Iterator[Batch]:
        """Shuffled batches without end, one epoch after another, each in an order of its own.

        Args:
            batch_size: tokens in a batch, of all processes together.
            seed: the same seed gives the same batches.
            start_step: the first so many batches are left out.
            stripe: (rank, number of processes): only this process's share of each batch.

        Raises:
            InputError: a batch size or a stripe that cannot be, or fewer tokens than a batch.
            NotImplementedError: in this class itself.
        """
        raise NotImplementedError

    def identity(self) -> dict[str, Any]:
        """What tells this source from another, ready for JSON: a run goes on only with the same data.

        Raises:
            NotImplementedError: in this class itself.
        """
        raise NotImplementedError

    def scale(self) -> float:
        """The number c for which c·x has the mean length sqrt(d_in), estimated from a sample."""
        return _scale(self.sample().x)

    def target_scale(self) -> float:
        """The same for the target; without a target, that of x."""
        batch = self.sample()
        return _scale(batch.x if batch.target is None else batch.target)

    def held_out(self, n: int) -> Batch | None:
        """Up to `n` tokens that are never trained on; None when the source has none."""
        return None

    def _check(self, batch_size: int, stripe: tuple[int, int]) -> int:
        """The rows of a batch that one process gets, and the errors before any work."""
        check_count(batch_size, "batch_size")
        needed = batch_size // stripe[1] if self.own else batch_size
        if needed > self.n_tokens:
            raise InputError(
                f"a batch takes {needed:,} tokens from a source that holds only {self.n_tokens:,}. Lower batch_size."
            )
        if batch_size % stripe[1]:
            raise InputError(
                f"batch_size is {batch_size:,}, which {stripe[1]} processes cannot share evenly. "
                f"Take a multiple of {stripe[1]}."
            )
        return batch_size // stripe[1]


def _scale(x: Tensor) -> float:
    length = x.float().norm(dim=1).mean().item()
    if not length > 0 or not math.isfinite(length):
        raise InputError(f"these activations have the mean length {length}: no scale brings it to sqrt(d).")
    return x.shape[1] ** 0.5 / length


def _epochs(start_step: int, steps: int) -> Iterator[tuple[int, int]]:
    """(epoch, steps of it to leave out), from a step on, for epochs of so many steps."""
    epoch, skip = divmod(start_step, steps)
    while True:
        yield epoch, skip
        epoch, skip = epoch + 1, 0


# ---- a tensor in memory


class TensorSource(Source):
    """Activations in memory, on any device.

    Args:
        x: [n, d_in] activations, BOS and padding left out.
        target: [n, d_out] what the SAE is to give for each of them; None for x itself.
        hook, target_hook: where they come from, if known.
        held_out: [m, d_in] activations that are never trained on, for the sweep's table (with a target: a pair).
        about: more that a saved SAE should know, e.g. {"model_name": "gpt2", "context_size": 128}.
    """

    def __init__(
        self,
        x: Tensor,
        target: Tensor | None = None,
        *,
        hook: str | None = None,
        target_hook: str | None = None,
        held_out: Tensor | tuple[Tensor, Tensor] | None = None,
        about: dict[str, Any] | None = None,
    ):
        self.x, self.target = check_tensor(x, "x", shape="n d_in"), target
        if target is not None and len(check_tensor(target, "target", shape="n d_out")) != len(x):
            raise InputError(f"x has {len(x):,} rows, target {len(target):,}: each row needs its own target.")
        self.n_tokens, self.d_in, self.has_target = len(x), x.shape[1], target is not None
        self.d_out = self.d_in if target is None else target.shape[1]
        self.hook, self.target_hook, self.about = hook, target_hook, dict(about or {})
        self._held_out = Batch(held_out, None) if isinstance(held_out, Tensor) else held_out and Batch(*held_out)

    def _rows(self, chosen: Tensor) -> Batch:
        chosen = chosen.to(self.x.device)
        parts = (None if part is None else part.index_select(0, chosen).float() for part in (self.x, self.target))
        return Batch(*parts)

    def sample(self, n: int = SAMPLE, seed: int = 0) -> Batch:
        dice = np.random.default_rng([seed, _SAMPLING])
        n = min(n, len(self.x))
        return self._rows(torch.from_numpy(dice.choice(len(self.x), n, replace=False)))

    def batches(
        self, batch_size: int, seed: int = 0, start_step: int = 0, stripe: tuple[int, int] = (0, 1)
    ) -> Iterator[Batch]:
        self._check(batch_size, stripe)
        return self._deal(batch_size, seed, start_step, stripe)

    def _deal(self, size: int, seed: int, start_step: int, stripe: tuple[int, int]) -> Iterator[Batch]:
        steps = len(self.x) // size
        for epoch, skip in _epochs(start_step, steps):
            order = torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(len(self.x)))
            order = order.to(self.x.device)  # once, for a GPU has to wait for every copy
            for i in range(skip, steps):
                yield self._rows(order[i * size : (i + 1) * size][stripe[0] :: stripe[1]])

    def held_out(self, n: int) -> Batch | None:
        return self._held_out and Batch(*(None if part is None else part[:n].float() for part in self._held_out))

    def identity(self) -> dict[str, Any]:
        parts = {"x": self.x} if self.target is None else {"x": self.x, "target": self.target}
        numbers = {name: {"shape": list(t.shape), "sha256": fingerprint(t)} for name, t in parts.items()}
        return {"kind": "tensor", "hook": self.hook, "target_hook": self.target_hook} | numbers


def fingerprint(x: Tensor) -> str:
    """A checksum over some 4,096 numbers of a tensor: enough to tell two apart, and quick on any device."""
    flat = x.detach().reshape(-1)
    some = flat[:: max(1, len(flat) // 4096)].float().cpu().contiguous()
    return hashlib.sha256(f"{list(x.shape)}".encode() + some.numpy().tobytes()).hexdigest()


# ---- a store on disk


class StoreSource(Source):
    """Activations of a store, shuffled as it reads them: see `ActivationStore.batches`.

    Args:
        store: the store.
        hook: the hook point to read; by default the store's only one.
        split: "train", "test" or None for both.
        target_hook: the hook point to give: a transcoder.
        buffer_tokens: tokens mixed at a time; by default the store's.
        own: this store holds the share of one process only, and the others have stores of their own. (Otherwise
            all read the same one, each its rows of every batch.)
    """

    def __init__(
        self,
        store: ActivationStore,
        hook: str | None = None,
        split: str | None = "train",
        *,
        target_hook: str | None = None,
        buffer_tokens: int | None = None,
        own: bool = False,
    ):
        if not isinstance(store, ActivationStore):
            raise InputError(f"store must be an ActivationStore, got {type(store).__name__}.")
        if hook is None and len(store.hooks) > 1:
            raise InputError(f"the store has several hook points: choose one of {', '.join(store.hooks)}.")
        if split not in (None, "train", "test"):
            raise unknown_name("split", split, ("train", "test"))
        self.store, self.split, self.own = store, split, own
        self.hook, self.target_hook = hook or store.hooks[0], target_hook
        self.buffer_tokens, self.has_target = buffer_tokens, target_hook is not None
        self.d_in = store.width(self.hook)
        self.d_out = self.d_in if target_hook is None else store.width(target_hook)
        self.n_tokens = self._count(split)
        if not self.n_tokens:
            raise InputError(f"the store {store.path} has no token of the split {split!r}.")
        manifest = store.manifest
        self.about = {
            "model_name": manifest.get("model"),
            "context_size": manifest.get("context_size"),
            "prepend_bos": manifest.get("prepend_bos"),
            "processing": manifest.get("processing"),
        }

    def _count(self, split: str | None) -> int:
        wanted = ~self.store.is_bos
        if split is not None:
            wanted = wanted & (self.store.test if split == "test" else ~self.store.test)
        return int(wanted.sum())

    def _read(self, size: int, seed: Sequence[int], split: str | None, **settings: Any) -> Iterator[Batch]:
        """Both hook points side by side: the same seed deals both in the same order."""
        settings |= {"shuffle": True, "seed": seed, "split": split}
        inputs = self.store.batches(self.hook, size, **settings)
        if self.target_hook is None:
            return (Batch(batch.acts, None) for batch in inputs)
        targets = self.store.batches(self.target_hook, size, **settings)
        return (Batch(x.acts, y.acts) for x, y in zip(inputs, targets, strict=True))

    def sample(self, n: int = SAMPLE, seed: int = 0) -> Batch:
        n = min(check_count(n, "n"), int(self.n_tokens))
        return next(self._read(n, [seed, _SAMPLING], self.split, buffer_tokens=n))

    def batches(
        self, batch_size: int, seed: int = 0, start_step: int = 0, stripe: tuple[int, int] = (0, 1)
    ) -> Iterator[Batch]:
        mine = self._check(batch_size, stripe)
        return self._deal(mine, seed, start_step, (0, 1)) if self.own else self._deal(
            batch_size, seed, start_step, stripe
        )

    def _deal(self, size: int, seed: int, start_step: int, stripe: tuple[int, int]) -> Iterator[Batch]:
        steps = int(self.n_tokens) // size
        for epoch, skip in _epochs(start_step, steps):
            settings = {"start": skip, "stripe": stripe, "buffer_tokens": self.buffer_tokens}
            batches = self._read(size, [seed, epoch], self.split, **settings)
            for _, batch in zip(range(skip, steps), batches, strict=False):  # the last, smaller one is left out
                yield batch

    def held_out(self, n: int) -> Batch | None:
        there = self._count("test") if self.split == "train" else 0
        n = min(n, there)
        return next(self._read(n, [0, _SAMPLING], "test", buffer_tokens=n)) if n else None

    def identity(self) -> dict[str, Any]:
        manifest = self.store.manifest
        files = [listed["sha256"] for shard in manifest["shards"] for listed in shard["files"].values()]
        return {
            "kind": "store",
            "hook": self.hook,
            "target_hook": self.target_hook,
            "split": self.split,
            "n_tokens": self.n_tokens,
            "buffer_tokens": self.buffer_tokens,
            "model": manifest.get("model"),
            "files": hashlib.sha256("".join(files).encode()).hexdigest(),
        }
