"""A step of training that a GPU is shown once and then repeats at one command.

A step is some hundred small commands, and a GPU is often done with one before Python has sent the next. CUDA can note
down the commands of a step as a graph, memory addresses included. To repeat it, new numbers are put where the old ones
were, and the graph is started. What is computed stays the same.

Two things must not happen in such a step: a question to the GPU, for it has no answer yet when the commands are noted
down; and results whose size is not known beforehand.
"""

from __future__ import annotations

import contextlib
import gc
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from solutions.sae.architectures import TrainableSAE
    from solutions.sae.training.step import Way

#: Steps that are taken in the ordinary way first: libraries load and the optimiser gets its memory in them.
ORDINARY = 3


def can_be_repeated(sae: TrainableSAE, way: Way) -> bool:
    """Whether a step by this way asks nothing and makes nothing of unknown size."""
    known = sae.architecture in ("topk", "batchtopk") or way.n_entries is not None
    return way.path == "written" or way.path == "sparse" and known


class Repeater:
    """Takes steps of training on a CUDA GPU, from the fourth of a kind on by repeating."""

    def __init__(self) -> None:
        self._taken: Counter[tuple] = Counter()
        self._noted: dict[tuple, _Noted] = {}
        self._memory: Any = None  # what one kind of step has used up, the next one may use: they never run at once

    def __call__(
        self, update: Callable[..., Any], x: Tensor, target: Tensor | None, warm: float, lr: float, way: Way
    ) -> Any:
        """Take a step. What it gives is overwritten by the next one.

        Args:
            update: takes a step; called with the rest. It gives tensors, and changes others in place.
            x, target: the batch.
            warm, lr: numbers that change from step to step.
            way: of what kind the step is; it must be one that `can_be_repeated`.

        Returns:
            What `update` gives.
        """
        kind = way.path, way.n_entries, way.pre is None, x.shape
        self._taken[kind] += 1
        if self._taken[kind] <= ORDINARY:
            return update(x, target, warm, lr, way)
        if kind not in self._noted:
            self._noted[kind] = _Noted(update, x, target, way, self._memory)
            self._memory = self._noted[kind].graph.pool()
        return self._noted[kind](x, target, warm, lr)


class _Noted:
    """One kind of step as a graph, with the places where its numbers come from."""

    def __init__(self, update: Callable[..., Any], x: Tensor, target: Tensor | None, way: Way, memory: Any):
        self.x = x.clone()
        self.target = None if target is None else target.clone()
        self.warm, self.lr = torch.zeros(2, device=x.device).unbind()
        self.graph = torch.cuda.CUDAGraph()
        with _nothing_thrown_away(), torch.cuda.graph(self.graph, pool=memory, capture_error_mode="thread_local"):
            self.found = update(self.x, self.target, self.warm, self.lr, way)  # noted down, and not done yet

    def __call__(self, x: Tensor, target: Tensor | None, warm: float, lr: float) -> Any:
        self.x.copy_(x)
        if self.target is not None:
            self.target.copy_(target)
        self.warm.fill_(warm)
        self.lr.fill_(lr)
        self.graph.replay()
        return self.found


@contextlib.contextmanager
def _nothing_thrown_away() -> Iterator[None]:
    """Python's search for garbage stands still: to destroy the graph of an earlier run spoils the one being made."""
    searching = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if searching:
            gc.enable()
