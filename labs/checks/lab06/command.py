"""Exercise 6.9: a command that others can call: what it prints where, and how it ends."""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from unittest import mock

from labs.checks.errors import one_line
from labs.checks.exercise import Exercise, Property, Wrong, whole

REASON = "no latent is active on this text"
TEXTS = ("In Paris", "the month of May", "red", "is not", "def main():", "said that", "a list")


class Work:
    """What the command is about: `work(texts, top)` gives the text to print, or raises."""

    described = "a function that does the work"

    def __init__(self):
        self.raises: BaseException | None = None
        self.given: list = []

    def __call__(self, texts: list[str], top: int) -> str:
        self.given.append((list(texts), top))
        if self.raises is not None:
            raise self.raises
        return f"the {top} strongest latents of {len(texts)} texts: 17, 4"


@dataclass
class Session:
    """One call from a shell."""

    code: object
    out: str
    err: str
    raised: BaseException | None
    given: list


@dataclass
class Sessions:
    """Calls with good arguments, bad ones, and work that fails."""

    good: Session
    reason: Session
    missing: Session
    unknown: Session
    zero: Session
    words: Session
    help: Session
    stopped: Session
    bug: Session

    described = "a whole number, the exit code"

    @property
    def usage(self) -> list[Session]:
        return [self.missing, self.unknown, self.zero, self.words]


def draw_arguments(generator) -> dict:
    """What somebody typed: one text or several, with or without `--top`."""
    n = whole(generator, 1, 6)
    argv = [TEXTS[whole(generator, 0, len(TEXTS) - 1)] for _ in range(n)]
    if whole(generator, 0, 2):
        argv += ["--top", str(whole(generator, 1, 9))]
    return {"argv": argv, "work": Work()}


def call(answer: Callable, argv: list[str], raises: BaseException | None = None) -> Session:
    """Call it as a shell would, and keep what it printed. `sys.exit` counts as its code."""
    work, out, err, code, raised = Work(), io.StringIO(), io.StringIO(), None, None
    work.raises = raises
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "argv", ["latents", "typed into the shell"]),
    ):
        try:
            code = answer(argv, work)
        except SystemExit as error:
            code = 0 if error.code is None else error.code
            raised = error
        except NotImplementedError:
            raise
        except BaseException as error:  # Ctrl-C is no Exception
            raised = error
    return Session(code, out.getvalue(), err.getvalue(), raised, work.given)


def try_it(answer: Callable, args: dict):
    argv = args["argv"]
    good = call(answer, list(argv))
    if isinstance(good.raised, Exception):
        raise good.raised
    if good.raised is None and (not isinstance(good.code, int) or isinstance(good.code, bool)):
        return None if isinstance(good.code, Sessions) else good.code
    return Sessions(
        good=good,
        reason=call(answer, list(argv), ValueError(REASON)),
        missing=call(answer, []),
        unknown=call(answer, ["a text", "--tpo", "3"]),
        zero=call(answer, ["a text", "--top", "0"]),
        words=call(answer, ["a text", "--top", "many"]),
        help=call(answer, ["--help"]),
        stopped=call(answer, list(argv), KeyboardInterrupt()),
        bug=call(answer, list(argv), TypeError("'NoneType' object is not subscriptable")),
    )


def command(argv: list[str], work: Callable[[list[str], int], str]) -> int:
    return _command(argv, work)


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def _command(argv, work, *, expected=ValueError, number=_at_least_one, stop=130, failed=1, say=None) -> int:
    parser = argparse.ArgumentParser(prog="latents", description="The strongest latents of some texts.")
    parser.add_argument("texts", nargs="+", help="the texts")
    parser.add_argument("--top", type=number, default=5, help="how many latents")
    given = parser.parse_args(argv)
    try:
        print(work(given.texts, given.top))
    except expected as error:
        print(f"latents: {error}" if say is None else say, file=sys.stderr)
        return failed
    except KeyboardInterrupt:
        if stop is None:
            raise
        print("stopped", file=sys.stderr)
        return stop
    return 0


def _all_on_stdout(argv, work) -> int:
    with contextlib.redirect_stderr(sys.stdout):
        return _command(argv, work)


def _usage_is_one(argv, work) -> int:
    try:
        return _command(argv, work)
    except SystemExit as error:
        return 1 if error.code else 0


def _exits(argv, work) -> int:
    sys.exit(_command(argv, work))


def _own_argv(argv, work) -> int:
    return _command(None, work)


def _no_result(argv, work) -> int:
    with contextlib.redirect_stdout(io.StringIO()):
        return _command(argv, work)


def _returns_nothing_but_zero(argv, work) -> int:
    _command(argv, work)
    return 0


def _with(**changes) -> Callable:
    return lambda argv, work: _command(argv, work, **changes)


def _expected_call(args: dict) -> tuple[list[str], int]:
    argv = args["argv"]
    if "--top" in argv:
        at = argv.index("--top")
        return argv[:at], int(argv[at + 1])
    return list(argv), 5


def _good(answer, args, output: Sessions) -> str | None:
    texts, top = _expected_call(args)
    if output.good.code != 0:
        return f"Yours ended with {output.good.code!r}."
    if output.good.given != [(texts, top)]:
        return (
            f"`work` was to be called once, with {texts} and {top}; yours called it with {output.good.given}."
        )
    if output.good.err:
        return f"Yours wrote to stderr: {output.good.err.strip()[:80]!r}."
    return None


def _fails(answer, args, output: Sessions) -> str | None:
    if output.reason.code != 1:
        return f"Yours ended with {output.reason.code!r}."
    return f"Yours wrote to stdout: {output.reason.out[:80]!r}." if output.reason.out else None


def _usage(answer, args, output: Sessions) -> str | None:
    for session, typed in zip(output.usage, ("nothing", "--tpo 3", "--top 0", "--top many"), strict=True):
        if session.code != 2:
            found = one_line(session.raised) if isinstance(session.raised, Exception) else repr(session.code)
            return f"With {typed} yours ended with {found}."
    return None


def _helps(answer, args, output: Sessions) -> str | None:
    if output.help.code != 0 or "--top" not in output.help.out:
        return f"Yours ended with {output.help.code!r} and printed {len(output.help.out)} characters."
    return None


def _stops(answer, args, output: Sessions) -> str | None:
    return None if output.stopped.code == 130 else f"Yours ended with {output.stopped.code!r}."


COMMAND = Exercise(
    number="6.9",
    name="command",
    returns="int",
    draw=draw_arguments,
    reference=command,
    run=try_it,
    unique=False,
    wrong=(
        Wrong(
            "reads sys.argv",
            _own_argv,
            "You parse what was typed into *this* shell and not `argv`. A test, or another program, cannot call it "
            "then. Hand it over: `parser.parse_args(argv)`.",
            recognise=lambda answer, args, output: any(
                "typed into the shell" in texts for texts, _ in output.good.given
            ),
        ),
        Wrong(
            "sys.exit",
            _exits,
            "Yours ends Python itself (`sys.exit`) where it should return the code. Whoever calls it from Python is "
            "ended, too. Return the number; the last line of the file may say `sys.exit(command(sys.argv[1:], work))`.",
            recognise=lambda answer, args, output: isinstance(output.good.raised, SystemExit),
        ),
        Wrong(
            "prints nothing",
            _no_result,
            "The result is nowhere to be seen. What `work` returns belongs on stdout: `print(work(...))`.",
            recognise=lambda answer, args, output: (
                output.good.code == 0
                and len(output.good.given) > 0
                and "strongest latents" not in output.good.out
            ),
        ),
        Wrong(
            "a traceback for a reason",
            _with(expected=()),
            "`work` raised a ValueError that says what is wrong with the text, and yours let it through: the user "
            "sees a page of traceback. Catch it, print it to stderr, and return 1.",
            recognise=lambda answer, args, output: isinstance(output.reason.raised, ValueError),
        ),
        Wrong(
            "always 0",
            _returns_nothing_but_zero,
            "The work failed, and yours returns 0. A shell script goes on with `&&` as if there were a result. "
            "Return 1.",
            recognise=lambda answer, args, output: output.reason.code == 0,
        ),
        Wrong(
            "complaint on stdout",
            _all_on_stdout,
            "You print the complaint to stdout. Whoever writes the output into a file finds it there in place of a "
            "result. `print(..., file=sys.stderr)`.",
            recognise=lambda answer, args, output: REASON in output.reason.out,
        ),
        Wrong(
            "no reason given",
            _with(say="latents: failed"),
            "The work said why it failed, and yours keeps it to itself. Print the exception's own words.",
            recognise=lambda answer, args, output: (
                output.reason.code == 1 and REASON not in output.reason.err + output.reason.out
            ),
        ),
        Wrong(
            "bugs caught as well",
            _with(expected=Exception),
            "A `TypeError`, a bug in the work, was printed as if the user had made a mistake. The line that raised "
            "it is lost. Catch `ValueError` alone and let the others through.",
            recognise=lambda answer, args, output: not isinstance(output.bug.raised, TypeError),
        ),
        Wrong(
            "Ctrl-C goes through",
            _with(stop=None),
            "Somebody pressed Ctrl-C, and yours shows a traceback. `except KeyboardInterrupt` (it is no `Exception`), "
            "and return 130, which is what shells expect.",
            recognise=lambda answer, args, output: isinstance(output.stopped.raised, KeyboardInterrupt),
        ),
        Wrong(
            "Ctrl-C is a failure",
            _with(stop=1),
            "Somebody pressed Ctrl-C, and yours returns the code of an ordinary failure or of success. 130 says that "
            "it was stopped from outside.",
            recognise=lambda answer, args, output: (
                output.stopped.raised is None and output.stopped.code in (0, 1)
            ),
        ),
        Wrong(
            "usage is 1",
            _usage_is_one,
            "A mistyped option gives the code 1, as if the work had failed. 2 says that the command was called "
            "wrongly. argparse does that by itself: let its `SystemExit` go through.",
            recognise=lambda answer, args, output: output.unknown.code == 1,
        ),
        Wrong(
            "--top 0",
            _with(number=int),
            "`--top 0` goes through to the work. Give argparse a function as `type` that raises "
            "`argparse.ArgumentTypeError` for numbers below 1; then the code is 2 and the message its own.",
            recognise=lambda answer, args, output: len(output.zero.given) > 0,
        ),
    ),
    properties=(
        Property("With good arguments it must do the work once and return 0.", _good),
        Property("Where the work says why it cannot, it must return 1.", _fails),
        Property("Called wrongly, it must end with 2.", _usage),
        Property("`--help` must explain the options and end with 0.", _helps),
        Property("Stopped by Ctrl-C, it must return 130.", _stops),
    ),
    look_at="`argparse.ArgumentParser(prog='latents')`, `parser.add_argument('texts', nargs='+')`, "
    "`parser.parse_args(argv)`.",
    saw="a command that shell scripts, tests and people can rely on: results on stdout, complaints on stderr, and a "
    "number that says how it ended.",
)

EXERCISES = (COMMAND,)
