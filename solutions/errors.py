"""Errors a learner can act on, and the argument checks that raise them.

Every message says three things: what was expected, what was found, what to do.
"""

from __future__ import annotations

import difflib
import operator
import re
import sysconfig
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "CourseError",
    "InputError",
    "ModelNotAvailable",
    "NotAvailable",
    "PreflightError",
    "check_count",
    "check_model",
    "check_position",
    "check_positions",
    "check_tensor",
    "check_text",
    "check_texts",
    "count_option",
    "first_line",
    "in_a_shell",
    "unknown_name",
    "whole_number",
]

#: Code that is not the reader's: ours, installed packages, Python's own.
LIBRARIES = (
    str(Path(__file__).parent),
    *(sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib")),
)


class CourseError(Exception):
    """Base of the errors this course raises itself. A notebook shows the reader's own line, not ours."""

    def _render_traceback_(self) -> list[str]:
        """IPython asks for this instead of printing a page of library frames."""
        frames = traceback.extract_tb(self.__traceback__)
        own = [f for f in frames if not f.filename.startswith(LIBRARIES)]
        where = [f"line {own[-1].lineno}:  {own[-1].line}", ""] if own and own[-1].line else []
        return [*where, f"{type(self).__name__}: {self}"]


class InputError(CourseError, ValueError):
    """An argument of the wrong shape, dtype, device, name or value."""


class NotAvailable(CourseError, OSError):
    """Something that has to be downloaded is not here."""


class ModelNotAvailable(NotAvailable):
    """The model, or the SAE, is neither in the repository nor in the cache, and cannot be downloaded now."""


class PreflightError(CourseError, ValueError):
    """A model and an SAE that do not fit together. `code` names the mismatch, `report` holds every check."""

    def __init__(self, code: str, message: str, report: Any = None):
        super().__init__(message)
        self.code = code
        self.report = report


def first_line(error: BaseException) -> str:
    r"""The kind of an error and the first line of what it says; libraries like to add twenty more.

    Args:
        error: what was raised.

    Returns:
        Its kind, a colon, and the first line.

    Example:
        >>> first_line(ValueError("no such thing\nand twenty lines more"))
        'ValueError: no such thing'
    """
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


#: What a message tells a caller to pass, and what one types in a shell instead.
IN_A_SHELL = {
    r"build_index\(…, overwrite=True\)": "--overwrite",
    r"resume=False": "--start-over",
    r"allow=\{'(\w+)'\}": r"--allow \1",
}


def in_a_shell(error: BaseException) -> str:
    """An error as a command line tells it: the kind, then the message, with options in place of arguments.

    Args:
        error: what was raised.

    Returns:
        One line or several, to be printed as they are.

    Example:
        >>> in_a_shell(InputError("the store is of other texts. Start over with resume=False."))
        'InputError: the store is of other texts. Start over with --start-over.'
    """
    text = str(error)
    for argument, option in IN_A_SHELL.items():
        text = re.sub(argument, option, text)
    return f"{type(error).__name__}: {text}"


def unknown_name(kind: str, given: object, known: Iterable[str], hint: str = "") -> InputError:
    """The error for a name that does not exist: it lists the closest known names, or all of them when few.

    Args:
        kind: what the name is of, e.g. "hook point".
        given: the name that was given.
        known: the names there are.
        hint: a sentence to end with.

    Returns:
        The error, to be raised.

    Example:
        >>> print(unknown_name("split", "tets", ["train", "test"]))
        unknown split 'tets'. Did you mean 'test'? Known: train, test.
    """
    known = list(known)
    close = difflib.get_close_matches(str(given), known, n=3, cutoff=0.5)
    message = f"unknown {kind} {given!r}."
    if close:
        message += " Did you mean " + " or ".join(repr(name) for name in close) + "?"
    if len(known) <= 12:
        message += f" Known: {', '.join(known)}."
    return InputError(message + (f" {hint}" if hint else ""))


def check_text(text: object, name: str = "text") -> str:
    """Return `text` if it is a string with something in it.

    Args:
        text: what the caller was given.
        name: what the caller calls it, for the message.

    Returns:
        The text, as it was.

    Raises:
        InputError: it is no string, or nothing in it can be seen.
    """
    if not isinstance(text, str):
        raise InputError(f"{name} must be a string, got {type(text).__name__}.")
    if not text.strip():
        raise InputError(f"{name} is empty ({text!r}). Give it at least one visible character.")
    return text


def check_texts(texts: object, name: str = "texts") -> list[str]:
    """Return a list of non-empty strings; a single string becomes a list of one.

    Args:
        texts: what the caller was given; what has a `text` (a `Text`) counts as that.
        name: what the caller calls it, for the message.

    Returns:
        The texts, as they were.

    Raises:
        InputError: it is neither a string nor a list of strings, the list is empty, or one of its texts is.
    """
    if isinstance(texts, str):
        return [check_text(texts, name)]
    if not isinstance(texts, Sequence) or isinstance(texts, bytes):
        raise InputError(f"{name} must be a string or a list of strings, got {type(texts).__name__}.")
    if not texts:
        raise InputError(f"{name} is an empty list. Give it at least one text.")
    return [check_text(getattr(text, "text", text), f"{name}[{i}]") for i, text in enumerate(texts)]


def check_count(value: object, name: str, least: int = 1) -> int:
    """Return `value` if it is a whole number of at least `least`.

    Args:
        value: what the caller was given.
        name: what the caller calls it, for the message.
        least: the smallest number that will do.

    Returns:
        The number as a Python int.

    Raises:
        InputError: it is no whole number, or a smaller one.

    Example:
        >>> check_count(torch.tensor(3), "k")
        3
        >>> check_count(0.5, "k")
        Traceback (most recent call last):
            ...
        solutions.errors.InputError: k must be a whole number of at least 1, got 0.5.
    """
    number = whole_number(value)
    if number is None or number < least:
        raise InputError(f"{name} must be a whole number of at least {least}, got {value!r}.")
    return number


def check_position(position: object, n: int) -> int:
    """Return a position in rows of `n` tokens, counted from their beginning.

    Args:
        position: what the caller was given: 0 to n - 1, or negative, counted from the end.
        n: tokens of a row, BOS included.

    Returns:
        0 to n - 1.

    Raises:
        InputError: it is no whole number, or there is no such position.

    Example:
        >>> check_position(-1, 7)
        6
    """
    number = whole_number(position)
    if number is None:
        raise InputError(f"position must be a whole number, got {position!r:.80}.")
    if not -n <= number < n:
        raise InputError(f"position {number} does not exist: the rows have {n} tokens, positions 0 to {n - 1}, "
                         f"or {-n} to -1 from the end.")
    return number % n


def check_positions(positions: object, n: int | None = None) -> list[int]:
    """Return a list of positions in rows of tokens.

    Args:
        positions: what the caller was given; negative ones count from the end.
        n: tokens of a row, BOS included; None when that is not known yet.

    Returns:
        The positions in the order given, from 0 to n - 1; without `n` as they are.

    Raises:
        InputError: it is no list of whole numbers, it is empty, or one of them is no place in the rows.

    Example:
        >>> check_positions([0, -1], 7)
        [0, 6]
    """
    if whole_number(positions) is not None:
        raise InputError(f"positions must be a list of whole numbers, e.g. [{positions}], got {positions!r}.")
    listed = hasattr(positions, "__iter__") and not isinstance(positions, str)
    found = [whole_number(p) for p in positions] if listed else []
    numbers = [p for p in found if p is not None]
    if not numbers or len(numbers) < len(found):
        raise InputError(f"positions must be a list of at least one whole number, got {positions!r:.80}.")
    return numbers if n is None else [check_position(p, n) for p in numbers]


def count_option(text: str) -> int:
    """A whole number above zero from the command line (argparse's `type`); underscores and commas are allowed.

    Args:
        text: what stands on the command line, e.g. "200_000".

    Returns:
        The number.

    Raises:
        argparse.ArgumentTypeError: it is not one; argparse turns it into a message about usage.
    """
    from argparse import ArgumentTypeError

    try:
        return check_count(int(text.replace(",", "")), "it")
    except (ValueError, InputError) as error:
        raise ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}") from error


def whole_number(value: object) -> int | None:
    """`value` as an int when it is a whole number (Python's, numpy's, a one-element tensor's), else None.

    Args:
        value: anything.

    Returns:
        The number, or None; `True` and `False` are no numbers.
    """
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def check_model(model: object) -> None:
    """Refuse anything that cannot be tokenised for and run.

    Args:
        model: what the caller was given.

    Raises:
        InputError: it is not what `load_model` gives.
    """
    if not all(hasattr(model, name) for name in ("run_with_cache", "tokenizer", "hook_dict")):
        raise InputError(f"model must be a model from load_model, got {type(model).__name__}.")


def check_tensor(
    x: object,
    name: str,
    *,
    shape: str | None = None,
    last: int | None = None,
    floating: bool = True,
    device: torch.device | None = None,
) -> Tensor:
    """Return `x` if it is a tensor of the kind asked for.

    Args:
        x: what the caller was given.
        name: what the caller calls it, for the message.
        shape: the axes wanted, by name, e.g. `"batch pos d_model"`; None accepts any number of axes from
            one up.
        last: the size the last axis must have.
        floating: True wants a floating-point dtype, False wants whole numbers (token ids).
        device: the device it must be on.

    Returns:
        The tensor, as it was.

    Raises:
        InputError: naming what was expected and what was found.

    Example:
        >>> check_tensor(torch.zeros(2, 3), "acts", shape="tokens d_in", last=3).shape
        torch.Size([2, 3])
    """
    if not isinstance(x, Tensor):
        raise InputError(f"{name} must be a torch.Tensor, got {type(x).__name__}.")
    if floating and not x.is_floating_point():
        raise InputError(
            f"{name} must be floating point (e.g. torch.float32), got {x.dtype}. Call .float() on it."
        )
    if not floating and (x.is_floating_point() or x.dtype == torch.bool):
        raise InputError(f"{name} must hold token ids (torch.int64), got {x.dtype}.")
    if shape is not None and x.ndim != len(shape.split()):
        raise InputError(f"{name} must have shape [{', '.join(shape.split())}], got {list(x.shape)}.")
    if x.ndim == 0 or x.numel() == 0:
        raise InputError(f"{name} is empty: shape {list(x.shape)}.")
    if last is not None and x.shape[-1] != last:
        raise InputError(
            f"{name} must have {last} as its last axis, got {x.shape[-1]} (shape {list(x.shape)})."
        )
    if device is not None and x.device.type != torch.device(device).type:
        raise InputError(
            f"{name} is on {x.device}, the rest is on {device}. Move one: {name}.to('{device}')."
        )
    return x
