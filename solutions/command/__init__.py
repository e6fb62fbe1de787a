"""The course's tools as one command, in any folder.

    monosemantic harvest --out scratch/store --documents 2000
    monosemantic train --out scratch/run --store scratch/store
    monosemantic index --store scratch/store --out scratch/index
    monosemantic search --index scratch/index 'token:" Paris"'
    monosemantic dashboard --index scratch/index --out scratch/pages
    monosemantic app

A harvest, a training or a set of pages that is stopped, by Ctrl-C or by a power cut, goes on when the same line is
given again. An index appears whole or not at all, so a stopped one starts afresh.
`python -m solutions.command` is the same where the command is not on the path.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import NamedTuple

import solutions
from solutions import EMBEDDED_TARGETS, TARGET_VARIABLE
from solutions.shell import USAGE, guarded

#: The program's name, in its help and in its messages.
PROGRAM = "monosemantic"

EPILOG = """{commands}

  each says more with --help, for instance: monosemantic train --help

exit code:
  0 done, 1 it could not be done (the reason is printed), 2 a wrong option, 3 a search that found nothing, 130 Ctrl-C
"""
#: Libraries whose versions one is asked for when something does not work.
LIBRARIES = ("torch", "transformers", "transformer-lens", "sae-lens", "streamlit")


class Command(NamedTuple):
    """A sub-command: what it is for, the module that does it, and what the module's `main` is told first."""

    purpose: str
    module: str
    program: str
    first: tuple[str, ...] = ()


#: The modules are imported only when they are called: torch alone takes seconds.
COMMANDS = {
    "harvest": Command("run a model over texts and store what flows through it", "solutions.data.__main__", PROGRAM,
                       ("harvest",)),
    "train": Command("train a sparse autoencoder", "solutions.train", f"{PROGRAM} train"),
    "index": Command("note where every latent is active in a store", "solutions.command.index", f"{PROGRAM} index"),
    "search": Command("find latents by token, pattern, concept or text", "solutions.search", f"{PROGRAM} search"),
    "dashboard": Command("write the latents' pages as HTML files", "solutions.command.dashboard",
                         f"{PROGRAM} dashboard"),
    "app": Command("play with it all in a browser", "solutions.app.__main__", f"{PROGRAM} app"),
    "version": Command("say which versions are at work", "solutions.command.version", f"{PROGRAM} version"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command.

    Args:
        arguments: what stands after the command's name; by default the shell's.

    Returns:
        The exit code: 0 done, 1 it could not be done (the reason is on the error stream), 3 a search that found
        nothing, 130 Ctrl-C.

    Raises:
        SystemExit: with 2 for a wrong option, with 0 after --help and --version.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given:
        parser().print_help(sys.stderr)
        return USAGE
    name, *rest = given
    if name not in COMMANDS:
        top = parser()
        top.parse_args(given)  # --help, --version, or the error that lists the commands
        top.error(f"the command comes first, got {name!r}")
    return guarded(lambda: _called(COMMANDS[name], rest), "Nothing was changed.")


def _called(command: Command, rest: list[str]) -> int:
    """Load a command's module and call it. Once it is at work, it says itself what Ctrl-C leaves behind."""
    follow_target(rest)
    return importlib.import_module(command.module).main([*command.first, *rest], command.program)


def follow_target(arguments: Sequence[str]) -> None:
    """Let `--target` say what MONOSEMANTIC_TARGET says, also to libraries that are imported later.

    With an embedded target the Hugging Face libraries are told to stay offline (`solutions/__init__.py`), and they
    read that once, when they are imported. Here nothing has been imported yet.
    """
    quick = argparse.ArgumentParser(prog=PROGRAM, add_help=False, allow_abbrev=False)
    quick.add_argument("--target")
    target = quick.parse_known_args(list(arguments))[0].target
    if target is None or "huggingface_hub" in sys.modules:
        return
    os.environ[TARGET_VARIABLE] = target
    if solutions.SWITCHED_OFFLINE and target not in EMBEDDED_TARGETS:
        solutions.SWITCHED_OFFLINE = False
        del os.environ["HF_HUB_OFFLINE"]


def package_version() -> str:
    """The installed version of the course's package; "unknown" in a folder that was never installed."""
    try:
        return metadata.version(PROGRAM)
    except metadata.PackageNotFoundError:
        return "unknown"


def parser() -> argparse.ArgumentParser:
    """The command line before a sub-command is known."""
    rows = "\n".join(f"  {name:11}{command.purpose}" for name, command in COMMANDS.items())
    top = argparse.ArgumentParser(
        prog=PROGRAM,
        description=__doc__,
        epilog=EPILOG.format(commands=f"commands:\n{rows}"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage=f"{PROGRAM} COMMAND [options]",
        add_help=False,
    )
    top.add_argument("command", choices=list(COMMANDS), metavar="COMMAND", help=argparse.SUPPRESS)
    top.add_argument("-h", "--help", action="help", help=argparse.SUPPRESS)
    top.add_argument("--version", action="version", version=f"{PROGRAM} {package_version()}", help=argparse.SUPPRESS)
    return top
