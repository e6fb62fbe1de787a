"""Grading one answer: run it on drawn inputs and say what happened, in the learner's terms.

The order of the questions is the order in which a teacher would ask them. Is it written? Does it run? Is it a
mistake I know? Does it have the right form? Which property fails? Only then: is it right?
"""

from __future__ import annotations

import copy
import dis
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import BuiltinFunctionType, CodeType, FunctionType, GenericAlias, ModuleType
from typing import Any

import torch

from labs.checks import errors
from labs.checks.compare import agree, describe, difference, form_fault, has_nan, plain, unchanged
from labs.checks.exercise import Exercise, Verdict, Wrong


def grade(exercise: Exercise, answer: Callable) -> Verdict:
    """Run `answer` on drawn inputs and return a verdict. Never raises on a learner's mistake."""

    def verdict(status, message, lines=(), wrong=None):
        return Verdict(exercise.number, exercise.name, status, message, tuple(lines), wrong)

    if not callable(answer):
        return verdict(
            "form",
            f"`check` wants the function itself, and was given {describe(plain(answer))}. "
            f'Write `check("{exercise.number}", {exercise.name})`, without brackets after the name.',
        )
    with one_thread():
        found = _grade(exercise, answer, verdict)
    names = borrowed(answer)
    if names and found.status in ("raised", "form", "wrong"):
        note = (
            f"Your function reads {' and '.join(f'`{name}`' for name in names)} from the notebook, not from its "
            "arguments. The check calls it with other inputs than yours: use the names in its `def` line."
        )
        found = replace(found, message=f"{found.message}\n{note}")
    return found


def borrowed(answer: Callable) -> list[str]:
    """Names of the notebook's data (tensors, models, ...) that a function reads though nobody passed them."""

    def names_in(code: CodeType) -> Iterator[str]:
        for step in dis.get_instructions(code):  # not `co_names`: the `mean` in `x.mean()` is no variable
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                yield step.argval
        for constant in code.co_consts:
            if isinstance(constant, CodeType):  # a function or a comprehension inside the function
                yield from names_in(constant)

    code, around = getattr(answer, "__code__", None), getattr(answer, "__globals__", {})
    no_data = (ModuleType, type, FunctionType, BuiltinFunctionType, str, int, float, GenericAlias)
    read = dict.fromkeys(names_in(code)) if code else {}
    return [name for name in read if name in around and not isinstance(around[name], no_data)]


@contextmanager
def one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from threads, and wait for them when the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _grade(exercise: Exercise, answer: Callable, verdict: Callable[..., Verdict]) -> Verdict:
    cases = [exercise.inputs(seed) for seed in range(exercise.cases)]
    outputs = []
    for args in cases:
        given = copy.deepcopy(args)
        try:
            outputs.append(plain(exercise.call(answer, given)))
        except NotImplementedError as error:
            undone = errors.undone_exercise(error)
            if undone is None:
                return verdict("raised", *errors.explain_in_check(error, exercise, answer, args))
            if undone in ("", exercise.number):
                return verdict("todo", "Nothing to grade here so far. The hints above open one at a time.")
            return verdict(
                "todo", f"Your function uses exercise {undone}, which is not done yet. Do that one first."
            )
        except Exception as error:  # whatever a learner's code can raise
            return verdict("raised", *errors.explain_in_check(error, exercise, answer, args))
        changed = [name for name in args if not unchanged(given[name], args[name])]
        if changed:
            return verdict(
                "form",
                f"Your function changed its argument `{changed[0]}` in place. Whoever calls it next gets other "
                "numbers. Look for `+=`, `[...] =` or a method ending in `_`; work on a copy or a new "
                "tensor.",
            )

    expected = [plain(exercise.call(exercise.reference, copy.deepcopy(args))) for args in cases]
    if known := recognise(exercise, answer, cases, outputs, expected):
        return verdict("known", known.message, wrong=known)
    return verdict(*first_fault(exercise, answer, cases, outputs, expected))


def recognise(
    exercise: Exercise, answer: Callable, cases: list[dict], outputs: list, expected: list
) -> Wrong | None:
    """The first known wrong answer that this one behaves like, or None."""
    for wrong in exercise.wrong:
        if wrong.recognise is not None:
            if any(_recognised(wrong, answer, *case) for case in zip(cases, outputs, expected, strict=True)):
                return wrong
            continue
        told_apart = False  # a mistake that gives the right output everywhere is no mistake
        for args, out, right in zip(cases, outputs, expected, strict=True):
            try:
                mistaken = plain(exercise.call(wrong.answer, copy.deepcopy(args)))
            except Exception:  # the mistake itself breaks on this input, so the input says nothing
                continue
            if not agree(out, mistaken):
                break
            told_apart |= not agree(mistaken, right)
        else:
            if told_apart:
                return wrong
    return None


def _recognised(wrong: Wrong, answer: Callable, args: dict, output: Any, right: Any) -> bool:
    if form_fault(output, right):  # the form check has better words for it
        return False
    try:
        return bool(wrong.recognise(answer, copy.deepcopy(args), output))
    except Exception:  # the answer breaks on a second call: then it is not this mistake
        return False


def first_fault(
    exercise: Exercise, answer: Callable, cases: list[dict], outputs: list, expected: list
) -> tuple[str, str]:
    """(status, message) of the first thing that is not right, or ("right", what you just saw)."""
    for args, out, right in zip(cases, outputs, expected, strict=True):
        if out is None:
            return "form", "Your function returned `None`. Does every path through it end in `return`?"
        if fault := form_fault(out, right):
            return (
                "form",
                f"The form is not right yet: {fault}. The task asks for `{exercise.returns}`. {drawn(args)}",
            )
        if has_nan(out) and not has_nan(right):
            return (
                "wrong",
                f"Your answer contains nan (not a number): something was divided by zero. {drawn(args)}",
            )
    for prop in exercise.properties:
        for args, out in zip(cases, outputs, strict=True):
            try:
                fault = prop.fault(answer, copy.deepcopy(args), out)
            except Exception as error:  # the learner's function broke on the property's own input
                return "raised", f"{prop.claim} On such an input yours raised: {errors.one_line(error)}"
            if fault:
                return "wrong", f"{prop.claim} {fault} {drawn(args)}".strip()
    if exercise.unique:
        for args, out, right in zip(cases, outputs, expected, strict=True):
            if not agree(out, right):
                return (
                    "wrong",
                    f"The form is right, the numbers are not: {difference(out, right)}. {drawn(args)}",
                )
    return "right", exercise.saw


def drawn(args: dict) -> str:
    """The drawn input in a few words, so that a learner can make one like it."""
    if not args:
        return ""
    return "The input was " + ", ".join(f"`{name}`: {_brief(value)}" for name, value in args.items()) + "."


def _brief(value: Any) -> str:
    if described := getattr(value, "described", None):
        return described
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (bool, int, str)) or value is None:
        return f"`{value!r}`" if isinstance(value, str) else f"{value}"
    return describe(plain(value)) if not callable(value) else "a function"
