"""The app: type a text and see its features, browse latents, compare texts, steer, look at training runs.

    python -m solutions.app
    python -m solutions.app --target gpt2-small --port 8600

It prints the address to open. Only this machine reaches it, unless --address says otherwise.
"""

from __future__ import annotations

import argparse
import sys

from solutions.app.launching import ADDRESS, PORT, TEXTS, launch
from solutions.errors import count_option
from solutions.shell import guarded

#: What one types to get here; `monosemantic app` says so itself.
PROGRAM = "python -m solutions.app"
LEFT_BEHIND = "A feature index that was finished is kept for the next start; one that was being made begins again."


def main(arguments: list[str] | None = None, program: str = PROGRAM) -> int:
    """Do what the command line says. Returns the exit code: 0, 1 for an error, 130 for Ctrl-C."""
    options = parser(program).parse_args(arguments)
    return guarded(lambda: launch(options.address, options.port, options.target, texts=options.texts), LEFT_BEHIND)


def parser(program: str = PROGRAM) -> argparse.ArgumentParser:
    """All options."""
    top = argparse.ArgumentParser(
        prog=program,
        description=__doc__.replace(PROGRAM, program),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--address", default=ADDRESS, metavar="HOST",
                     help="who may visit: localhost is this machine alone, 0.0.0.0 everybody who can reach it "
                     "(default: %(default)s)")
    top.add_argument("--port", type=count_option, default=PORT, metavar="N", help="default: %(default)s")
    top.add_argument("--target", help="shown first; by default MONOSEMANTIC_TARGET, else smallworld")
    top.add_argument("--texts", type=count_option, default=TEXTS, metavar="N",
                     help="how many texts the feature index is made of, once (default: %(default)s)")
    return top


if __name__ == "__main__":
    sys.exit(main())
