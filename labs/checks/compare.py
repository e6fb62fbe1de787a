"""Comparing two answers: are they the same, and if not, how do they differ, in words."""

from __future__ import annotations

import math
import numbers
from typing import Any

import torch

RTOL, ATOL = 1e-4, 1e-5  # float32 sums taken in another order differ by less than this


def plain(value: Any) -> Any:
    """A scalar tensor or NumPy number as a Python number, inside containers too: both are fair answers."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().item() if value.ndim == 0 else value.detach().cpu()
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(entry) for entry in value) if type(value) in (list, tuple) else value
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return value.item()
    return value


def kind(tensor: torch.Tensor) -> str:
    """ "bool", "float", "complex" or "int": the part of a dtype that an exercise cares about."""
    if tensor.dtype == torch.bool:
        return "bool"
    return "float" if tensor.is_floating_point() else "complex" if tensor.is_complex() else "int"


def agree(found: Any, expected: Any) -> bool:
    """Whether two answers are the same, up to rounding. Both should have gone through `plain`."""
    if isinstance(expected, torch.Tensor):
        return (
            isinstance(found, torch.Tensor)
            and found.shape == expected.shape
            and kind(found) == kind(expected)
            and torch.allclose(found.double(), expected.double(), rtol=RTOL, atol=ATOL, equal_nan=True)
        )
    if isinstance(expected, dict):
        return (
            isinstance(found, dict)
            and found.keys() == expected.keys()
            and all(agree(found[key], expected[key]) for key in expected)
        )
    if isinstance(expected, (list, tuple)):
        return (
            isinstance(found, (list, tuple))
            and len(found) == len(expected)
            and all(agree(f, e) for f, e in zip(found, expected, strict=True))
        )
    if isinstance(expected, numbers.Real):
        if not isinstance(found, numbers.Real):
            return False
        both_nan = math.isnan(found) and math.isnan(expected)
        return both_nan or math.isclose(found, expected, rel_tol=RTOL, abs_tol=ATOL)
    return type(found) is type(expected) and found == expected


def unchanged(now: Any, before: Any) -> bool:
    """Whether an argument is what it was before the learner's function ran. Unknown objects count as such."""
    if isinstance(before, (torch.Tensor, dict, list, tuple, numbers.Real)):
        return agree(plain(now), plain(before)) or not _comparable(before)
    return True


def _comparable(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_comparable(entry) for entry in value.values())
    if isinstance(value, (list, tuple)):
        return all(_comparable(entry) for entry in value)
    return isinstance(value, (torch.Tensor, numbers.Real, str))


def describe(value: Any) -> str:
    """A value in a few words: "a float tensor of shape [2, 5]", "the number 0.25", "None"."""
    if value is None:
        return "None"
    if isinstance(value, torch.Tensor):
        return f"{_a(kind(value))} tensor of shape {list(value.shape)}"
    if isinstance(value, bool):
        return f"the truth value {value}"
    if isinstance(value, numbers.Real):
        return f"the number {value:.6g}"
    if isinstance(value, dict):
        return "a dict with keys " + (", ".join(map(repr, value)) or "(none)")
    if isinstance(value, torch.dtype):
        return str(value)
    if type(value).__name__ == "ndarray":
        return f"a NumPy array of shape {list(value.shape)}"
    if described := getattr(value, "described", None):
        return described
    if isinstance(value, (list, tuple)):
        if len(value) <= 4 and all(type(entry) is int for entry in value):  # short enough to be read
            return f"the {type(value).__name__} {value}"
        return f"a {type(value).__name__} of length {len(value)}"
    return _a(type(value).__name__)


def _a(noun: str) -> str:
    """The noun with its article: "an int", "a float"."""
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def form_fault(found: Any, expected: Any, where: str = "the answer") -> str | None:
    """What is wrong with the type, keys, shape or dtype of an answer; None if they fit."""
    if isinstance(expected, torch.Tensor):
        if not isinstance(found, torch.Tensor):
            return f"expected {where} to be {describe(expected)}, found {describe(found)}"
        if found.shape != expected.shape:
            return f"expected {where} to have shape {list(expected.shape)}, found {list(found.shape)}"
        if kind(found) != kind(expected):
            return f"expected {where} to have {_a(kind(expected))} dtype, found {found.dtype}"
        return None
    if isinstance(expected, dict):
        if not isinstance(found, dict):
            return f"expected {where} to be {describe(expected)}, found {describe(found)}"
        if found.keys() != expected.keys():
            return f"expected {where} to be {describe(expected)}, found {describe(found)}"
        faults = (form_fault(found[key], expected[key], f"entry {key!r}") for key in expected)
        return next((fault for fault in faults if fault), None)
    if isinstance(expected, (list, tuple)):
        if not isinstance(found, (list, tuple)):
            return f"expected {where} to be {describe(expected)}, found {describe(found)}"
        if len(found) != len(expected):
            if isinstance(found, list) and isinstance(expected, list) and _numbers([*found, *expected]):
                return None  # which numbers, and so how many, is what was asked: see `difference`
            return f"expected {where} to have {len(expected)} entries, found {describe(found)}"
        faults = (
            form_fault(f, e, f"entry {i} of {where}")
            for i, (f, e) in enumerate(zip(found, expected, strict=True))
        )
        return next((fault for fault in faults if fault), None)
    if isinstance(expected, numbers.Real):
        return (
            None
            if isinstance(found, numbers.Real)
            else f"expected {where} to be a number, found {describe(found)}"
        )
    if type(found) is not type(expected):
        return f"expected {where} to be {describe(expected)}, found {describe(found)}"
    return None


def _numbers(values: list) -> bool:
    return all(isinstance(value, numbers.Real) for value in values)


def has_nan(value: Any) -> bool:
    """Whether a float anywhere in the answer is not a number."""
    if isinstance(value, torch.Tensor):
        return value.is_floating_point() and bool(value.isnan().any())
    if isinstance(value, dict):
        return any(has_nan(entry) for entry in value.values())
    if isinstance(value, (list, tuple)):
        return any(has_nan(entry) for entry in value)
    return isinstance(value, float) and math.isnan(value)


def difference(found: Any, expected: Any, where: str = "the answer") -> str:
    """Where two answers of the same form differ most, with the numbers."""
    if isinstance(expected, torch.Tensor):
        gap = (found.double() - expected.double()).abs()
        off = ~torch.isclose(found.double(), expected.double(), rtol=RTOL, atol=ATOL)
        at = [int(i) for i in torch.unravel_index(gap.argmax(), gap.shape)]
        yours, right = found[tuple(at)].item(), expected[tuple(at)].item()
        return (
            f"{int(off.sum())} of {off.numel()} entries of {where} differ; "
            f"the most at {at}, where yours is {yours:.4g} and the right value is {right:.4g}"
        )
    if isinstance(expected, dict):
        key = next(key for key in expected if not agree(found[key], expected[key]))
        return difference(found[key], expected[key], f"entry {key!r}")
    if isinstance(expected, list) and len(found) != len(expected):
        return (
            f"{where} has {len(found)} entries, the right one has {len(expected)}"
            + _some("; not among the right ones", [value for value in found if value not in expected])
            + _some("; missing", [value for value in expected if value not in found])
        )
    if isinstance(expected, (list, tuple)):
        i = next(i for i, (f, e) in enumerate(zip(found, expected, strict=True)) if not agree(f, e))
        return difference(found[i], expected[i], f"entry {i} of {where}")
    if isinstance(expected, numbers.Real):
        return f"{where} is {found:.6g}; the right value is {expected:.6g}"
    return f"{where} is {found!r}; the right value is {expected!r}"


def _some(what: str, values: list, most: int = 4) -> str:
    """The first few of some numbers, after a word that says what they are; "" if there are none."""
    shown = ", ".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in values[:most])
    return f"{what}: {shown}{', …' if len(values) > most else ''}" if values else ""
