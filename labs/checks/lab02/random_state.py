"""Two helpers for exercises that draw at random."""

from __future__ import annotations

from collections.abc import Callable

import torch


def source_of(seed: int) -> torch.Generator:
    """A generator of one's own."""
    return torch.Generator().manual_seed(seed)


def moves_global_state(call: Callable[[], object]) -> bool:
    """Whether a call draws from, or seeds, PyTorch's global random state; the state is put back."""
    before = torch.random.get_rng_state()
    try:
        call()
        return not torch.equal(before, torch.random.get_rng_state())
    finally:
        torch.random.set_rng_state(before)
