"""Errors that speak to the learner: their own line, what happened, what to look at; no library traceback.

`install()` puts this in place of IPython's traceback. `%tb` still shows the whole one to whoever wants it.
"""

from __future__ import annotations

import linecache
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from labs.checks.exercise import Exercise

ROOT = Path(__file__).resolve().parents[2]
UNDONE = re.compile(r"Exercise (\d+\.\d+)")  # make_labs writes this into every stub
WIDTH = 72  # characters of a quoted line that a card shows without wrapping it
IN_A_CELL = re.compile(r"ipykernel_\d+|^<ipython-input")  # how IPython names the code of a cell

# (exception types, pattern in its message, what to look at): the first that fits is shown
ADVICE: tuple[tuple[tuple[type[BaseException], ...], str, str], ...] = (
    (
        (NameError,),
        r"name '(?P<name>\w+)' is not defined",
        "`{name}` has no value yet. Is it spelled right, and has the cell that defines it been run?",
    ),
    ((UnboundLocalError,), r"", "A variable is used before this function gives it a value."),
    (
        (RuntimeError,),
        r"mat1 and mat2 shapes cannot be multiplied \((?P<a>\d+)x(?P<b>\d+) and (?P<c>\d+)x(?P<d>\d+)\)",
        "A matrix product needs equal inner sizes, and here they are {b} and {c}. Print `.shape` of both "
        "sides: is one of them the wrong way round?",
    ),
    (
        (RuntimeError,),
        r"The size of tensor a \((?P<a>\d+)\) must match the size of tensor b \((?P<b>\d+)\)",
        "Two tensors of sizes {a} and {b} cannot be lined up. Shapes are compared from the last axis "
        "backwards; `[..., None]` or `keepdim=True` keeps an axis that would be lost.",
    ),
    (
        (RuntimeError,),
        r"does not require grad and does not have a grad_fn",
        "Nothing that this number was computed from asks for gradients. `.requires_grad_()` on a tensor makes it ask; "
        "`.detach()`, `.item()` and `torch.no_grad()` cut it off. Where gradients are switched off, compute inside "
        "`with torch.enable_grad():`.",
    ),
    (
        (RuntimeError,),
        r"leaf Variable that requires grad",
        "Weights that learn may be changed by hand only where nobody keeps track: inside `with torch.no_grad():`.",
    ),
    (
        (RuntimeError,),
        r"selected index k out of range",
        "`topk` was asked for more entries than the axis has. Is it the right axis, and can it be shorter here?",
    ),
    (
        (RuntimeError,),
        r"a Tensor with \d+ elements cannot be converted|Boolean value of Tensor",
        "A whole tensor stands where one number or one truth value is needed. Reduce it first: `.mean()`, "
        "`.sum()`, `.any()` or `.all()`.",
    ),
    (
        (RuntimeError,),
        r"could not infer output dtype|not implemented for '(?:Bool|Long|Int)'",
        "This operation needs floats, and the tensor holds whole numbers or truth values. `.float()` "
        "converts.",
    ),
    (
        (RuntimeError,),
        r"quantile\(\) (?:input tensor must be either float or double|q tensor must be same dtype)",
        "`torch.quantile` works in float32 or float64, and both of its tensors must have the same of the two. "
        "Whole numbers, half precision or a mixture: `.float()` on both sides settles it.",
    ),
    (
        (RuntimeError,),
        r"quantile\(\) q.* in the range \[0, 1\]",
        "`torch.quantile` counts from 0 to 1: what 95 of 100 stay below is the quantile 0.95.",
    ),
    (
        (RuntimeError,),
        r"zero-dimensional tensor .* cannot be concatenated",
        "`torch.cat` joins tensors that have an axis, and a single number has none. `.reshape(1)` gives it one.",
    ),
    (
        (TypeError,),
        r"expected Tensor as element \d+ in argument \d+, but got (?P<type>\w+)",
        "One of the pieces is a plain {type}, and no tensor. `torch.tensor([...])` makes one of it.",
    ),
    (
        (ValueError,),
        r"the hook function at \S+ returned",
        "A hook function returns the activation in the shape in which it got it, [batch, pos, d]. `[None]` puts a "
        "lost batch axis back.",
    ),
    (
        (ValueError, RuntimeError),
        r"non contiguous tensor|Some tensors share memory",
        "safetensors writes tensors that lie in one piece and are not views of one another. `.contiguous()` makes a "
        "transposed view whole, `.clone()` a shared one independent.",
    ),
    (
        (IndexError,),
        r"shape of the mask \[(?P<a>[\d, ]*)\].*shape of the indexed tensor \[(?P<b>[\d, ]*)\]",
        "The mask has shape [{a}], the tensor [{b}]. A mask picks along the leading axes: those must be "
        "equal.",
    ),
    (
        (IndexError,),
        r"too many indices for tensor|Dimension out of range",
        "The tensor has fewer axes than this line counts on. Print its `.shape` just before. Without a dimension "
        "`.any()`, `.mean()` or `.norm()` leave a single number.",
    ),
    (
        (IndexError,),
        r"",
        "An index lies outside the tensor or list. Print the shape and the index just before this line.",
    ),
    (
        (AttributeError,),
        r"'NoneType' object",
        "Something on this line is `None`. A function without `return` gives None; so does a hook that "
        "never ran.",
    ),
    (
        (AttributeError,),
        r"'dict' object has no attribute '(?P<name>\w+)'",
        'A dict\'s entries are read with square brackets: `["{name}"]`.',
    ),
    (
        (AttributeError,),
        r"'ToyModel' object has no attribute '(?P<name>\w+)'",
        "The check calls your function with a small stand-in for the model (a ToyModel). Like the real one it has "
        "`run_with_hooks` and `run_with_cache`; it has no `{name}`, and the exercise needs none.",
    ),
    (
        (AttributeError,),
        r"'(?P<type>\w+)' object has no attribute '(?P<name>\w+)'",
        "A {type} has no `{name}`. Is the value of the type you expect? `type(...)` tells.",
    ),
    ((KeyError,), r"", "The dict has no such key. `list(the_dict)` shows the keys it has."),
    (
        (TypeError,),
        r"unexpected keyword argument 'hook'",
        "TransformerLens calls a hook function as `f(activation, hook=...)`: its second parameter must be "
        "named `hook`.",
    ),
    (
        (TypeError,),
        r"positional argument|unexpected keyword|required positional",
        "The function is called with other arguments than it takes. Compare the call with its `def` line.",
    ),
    (
        (TypeError,),
        r"'NoneType' object",
        "Something on this line is `None`. A function without `return` gives None; so does a hook that "
        "never ran.",
    ),
    (
        (TypeError,),
        r"unsupported operand type\(s\) for -: 'list' and 'list'",
        "Lists cannot be subtracted. What is in the one and not in the other: `[x for x in a if x not in b]`.",
    ),
    (
        (TypeError,),
        r"received an invalid combination of arguments - got \((?P<got>[^)]*)\)",
        "This function takes other kinds of arguments. It was given ({got}). A list becomes a tensor by "
        "`torch.tensor(...)`, and a seed becomes a generator by `torch.Generator().manual_seed(seed)`.",
    ),
    (
        (TypeError,),
        r"Object of type \w+ is not JSON serializable",
        "JSON knows text, numbers, `True`, `False`, `None`, lists and dicts, and nothing else. Write it as one of "
        'those: a dtype as the text `"float32"`, for instance.',
    ),
    (
        (ZeroDivisionError,),
        r"",
        "The divisor is zero. Was nothing selected or counted, or does this argument begin at 0?",
    ),
    ((RecursionError,), r"", "A function calls itself without end."),
    ((KeyboardInterrupt,), r"", "You stopped this cell while this line was running."),
)


def undone_exercise(error: BaseException) -> str | None:
    """The number of the exercise whose stub raised, "" for a stub without a number, None otherwise.

    PyTorch raises NotImplementedError too (a missing kernel), which is a mistake and not an empty stub.
    """
    if not isinstance(error, NotImplementedError):
        return None
    if found := UNDONE.search(str(error)):
        return found.group(1)
    return "" if not str(error) else None


def one_line(error: BaseException) -> str:
    """The exception's name and the first line of its message, without absolute paths."""
    message = str(error).strip().splitlines()
    first = without_paths(message[0]) if message else ""
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def without_paths(text: str) -> str:
    """Replace absolute paths into this course or an installed library by short ones."""
    text = text.replace(f"{ROOT}/", "").replace(str(ROOT), ".")
    text = re.sub(r"(?:[A-Za-z]:)?[/\\][^\s'\":]*?(?:site|dist)-packages[/\\]", "", text)
    return text.replace(f"{Path.home()}/", "~/")


def own_frame(tb: TracebackType | None, filename: str | None = None) -> traceback.FrameSummary | None:
    """The innermost frame the learner wrote: in a notebook cell, or in `filename`."""
    found = None
    for frame in traceback.extract_tb(tb):
        if IN_A_CELL.search(frame.filename) or frame.filename == filename:
            found = frame
    return found


def quote(frame: traceback.FrameSummary) -> list[str]:
    """The learner's line with its number, and carets under the part that raised."""
    line = linecache.getline(frame.filename, frame.lineno).rstrip("\n") or frame.line or ""
    lead = f"line {frame.lineno}: "
    indent = len(line) - len(line.lstrip())
    start, end = frame.colno, frame.end_colno
    partial = start is not None and frame.end_lineno == frame.lineno and (start, end) != (indent, len(line))
    if not partial or not line.isascii():  # column numbers count bytes
        return [lead + line.strip()]
    shown, start, end = _around(line.strip(), start - indent, end - indent, WIDTH - len(lead))
    return [lead + shown, " " * (len(lead) + start) + "^" * (end - start)]


def _around(line: str, start: int, end: int, width: int) -> tuple[str, int, int]:
    """As much of a line as fits, and where the part from start to end is in it: a wrapped line loses its carets."""
    if len(line) <= width:
        return line, start, end
    left = max(0, min(start - 12, len(line) - width))
    right = left + width
    before, after = "…" if left else "", "…" if right < len(line) else ""
    shift = len(before) - left
    return before + line[left:right] + after, start + shift, min(end, right) + shift


def advice(error: BaseException) -> str | None:
    """What to look at, for the errors that learners meet most."""
    message = str(error)
    for types, pattern, text in ADVICE:
        if isinstance(error, types) and (found := re.search(pattern, message, re.S)):
            return text.format(**found.groupdict())
    return None


def explain_in_check(
    error: Exception, exercise: Exercise, answer: Callable, args: dict
) -> tuple[str, list[str]]:
    """(message, code lines) for an exception that a learner's function raised while it was being checked."""
    filename = getattr(getattr(answer, "__code__", None), "co_filename", None)
    frame = own_frame(error.__traceback__, filename)
    called = f"{exercise.name}({', '.join(args)})"
    if frame is None:  # the call itself failed: the function takes other arguments
        return f"Your function could not be called as `{called}`. {one_line(error)}", []
    look = advice(error) or exercise.look_at
    return f"Your function raised `{one_line(error)}`\nWhat to look at: {look}", quote(frame)


def explain_in_cell(error: BaseException, tb: TracebackType | None) -> str:
    """The few lines a learner reads in place of a traceback, for an exception that escaped from a cell."""
    undone = undone_exercise(error)
    if undone:
        return (
            f"Exercise {undone} is not done yet, and this cell uses it.\n"
            "Write it first, run its check, then run this cell again."
        )
    frame = own_frame(tb)
    parts = [one_line(error)]
    own_words = str(error).strip().splitlines()[1:]
    if _from_the_course(tb):  # our own errors say what to do, in as many lines as they need
        parts += [without_paths(line) for line in own_words]
    if frame is not None:
        lead = "Your " if frame.name.startswith("<") else f"In {frame.name}, "
        parts += ["", lead + quote(frame)[0], *(" " * len(lead) + line for line in quote(frame)[1:])]
    exercise = _exercise_of(frame)
    look = None if _from_the_course(tb) else advice(error) or (exercise.look_at if exercise else None)
    if look:
        parts += ["", "What to look at: " + look.replace("`", "")]
    return "\n".join([*parts, "", "(%tb in a new cell shows the whole traceback.)"])


def _from_the_course(tb: TracebackType | None) -> bool:
    """Whether the innermost frame is in `solutions` or `labs`: then the message is one of ours."""
    frames = traceback.extract_tb(tb)
    if not frames:
        return False
    path = Path(frames[-1].filename)
    return any(path.is_relative_to(ROOT / part) for part in ("solutions", "labs"))


def _exercise_of(frame: traceback.FrameSummary | None) -> Exercise | None:
    from labs.checks.registry import loaded_exercises

    return next((e for e in loaded_exercises() if frame is not None and e.name == frame.name), None)


def install(shell) -> None:
    """Show every exception of this IPython shell in the learner's terms.

    `shell` is what `get_ipython()` gives. The cell still counts as failed, so whatever checks notebooks sees
    it. SyntaxError keeps IPython's own short display.
    """

    def handler(shell, etype, value, tb, tb_offset=None):
        sys.last_type, sys.last_value, sys.last_traceback = etype, value, tb  # for %tb and %debug
        lines = explain_in_cell(value, tb).splitlines()
        shell._showtraceback(etype, value, lines)
        return lines

    shell.set_custom_exc((Exception, KeyboardInterrupt), handler)
