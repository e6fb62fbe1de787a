"""Checks on what the functions of this room are given: one row per token everywhere."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from solutions.errors import InputError


def check_axes(name: str, x: Tensor, *dims: str) -> Tensor:
    """Return `x`, or say what it should have been: a tensor with one axis per name in `dims`."""
    wanted = f"a tensor of shape [{', '.join(dims)}]"
    if not isinstance(x, Tensor):
        raise InputError(f"{name}: expected {wanted}, got {type(x).__name__}. torch.as_tensor converts it.")
    if x.ndim != len(dims):
        hint = " x[mask] joins batch and position, and leaves out BOS and padding." if x.ndim == 3 else ""
        raise InputError(f"{name}: expected {wanted}, got shape {list(x.shape)}.{hint}")
    if 0 in x.shape:
        raise InputError(f"{name}: expected {wanted}, got an empty one of shape {list(x.shape)}.")
    return x


def same_length(**tensors: Sequence) -> None:
    """Refuse inputs whose first axes differ: they cannot describe the same tokens."""
    lengths = {name: len(x) for name, x in tensors.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} has {n}" for name, n in lengths.items())
        raise InputError(f"Expected one row per token everywhere, but {found}.")
