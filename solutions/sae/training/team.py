"""Several processes that train one SAE together, each on its share of every batch.

`accelerate launch` or `torchrun` starts them and torch.distributed connects them. A single process is a team of one
for which every method here does nothing.

The losses are means over the tokens of a batch. So the mean of the processes' gradients is the gradient of the whole
batch, and after the same step on all of them the weights stay the same everywhere.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Team:
    """The processes that torch.distributed has connected, seen from one of them.

    Attributes:
        rank: this process's number, from 0.
        size: how many there are.
    """

    def __init__(self) -> None:
        connected = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if connected else 0
        self.size = dist.get_world_size() if connected else 1

    @property
    def leads(self) -> bool:
        """True in the one process that writes."""
        return self.rank == 0

    def average(self, tensors: Iterable[Tensor | None]) -> None:
        """Replace each tensor, in place, by its mean over all processes."""
        for tensor in tensors if self.size > 1 else ():
            if tensor is not None:
                with _in_a_row(tensor) as flat:
                    dist.all_reduce(flat)
                    flat.div_(self.size)

    def average_gradients(self, module: nn.Module) -> None:
        """Give every process the gradients of the whole batch."""
        self.average(parameter.grad for parameter in module.parameters())

    def average_estimates(self, module: nn.Module) -> None:
        """The same for what a module estimates from its batches besides its weights, such as a threshold."""
        self.average(buffer for buffer in module.buffers() if buffer.is_floating_point())

    def any(self, flags: Tensor) -> Tensor:
        """[n] bool: true where it is true in any process."""
        if self.size == 1:
            return flags
        counts = flags.to(torch.int32)
        dist.all_reduce(counts, dist.ReduceOp.MAX)
        return counts.bool()

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite each tensor, in place, with that of the leader."""
        for tensor in tensors if self.size > 1 else ():
            with _in_a_row(tensor) as flat:
                dist.broadcast(flat, src=0)

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            dist.barrier()

    def least(self, number: int) -> int:
        """The smallest of the processes' numbers."""
        if self.size == 1:
            return number
        value = torch.tensor(number, dtype=torch.int64)
        if dist.get_backend() == "nccl":
            value = value.cuda()
        dist.all_reduce(value, dist.ReduceOp.MIN)
        return int(value)


@contextlib.contextmanager
def _in_a_row(tensor: Tensor) -> Iterator[Tensor]:
    """The tensor's numbers as they lie in memory, or a copy that is put back: the network takes nothing else."""
    tensor = tensor.detach()
    if tensor.is_contiguous() or tensor.ndim == 2 and tensor.T.is_contiguous():
        yield tensor if tensor.is_contiguous() else tensor.T
    else:
        flat = tensor.contiguous()
        yield flat
        tensor.copy_(flat)
