"""What several benchmarks need to measure well."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch


class Took(NamedTuple):
    """What a call took, in seconds."""

    wall: float
    cpu: float  # of all threads


def timed(step: Callable[[], Any]) -> Took:
    """Call `step` and say what it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    return Took(time.perf_counter() - wall, time.process_time() - cpu)


@dataclass
class Spent:
    """What several calls took together, in seconds."""

    wall: float = 0.0
    cpu: float = 0.0

    def add(self, took: Took) -> None:
        self.wall, self.cpu = self.wall + took.wall, self.cpu + took.cpu


@contextmanager
def part_timed(module: ModuleType, name: str) -> Iterator[Spent]:
    """Add up what all calls of one of a module's functions take while the block lasts."""
    function, total = getattr(module, name), Spent()

    def watched(*args: Any, **options: Any) -> Any:
        found = []
        total.add(timed(lambda: found.append(function(*args, **options))))
        return found[0]

    setattr(module, name, watched)
    try:
        yield total
    finally:
        setattr(module, name, function)


def status(name: str) -> int:
    """A value in kB of this process's status. Linux only: elsewhere an OSError."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch: threads that wait for work burn CPU time, which is what is compared."""
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n)
