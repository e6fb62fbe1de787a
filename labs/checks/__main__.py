"""`python -m labs.checks grade`: run notebooks that somebody has worked in, and say how many exercises are right.

    python -m labs.checks grade anna.ipynb
    python -m labs.checks grade handed_in/ --csv marks.csv --jobs 2

Exit codes: 0 every notebook ran to its end (and reached --at-least), 1 some did not, 2 the command was not understood,
130 interrupted (the marks so far are written).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from solutions.errors import count_option

OK, INCOMPLETE, USAGE, INTERRUPTED = 0, 1, 2, 130


def parser() -> argparse.ArgumentParser:
    """The command line."""
    program = argparse.ArgumentParser(prog="python -m labs.checks", description="The graders, from the shell.")
    commands = program.add_subparsers(dest="command", required=True, metavar="grade")
    grade = commands.add_parser(
        "grade",
        help="run notebooks that somebody has worked in, and say how many exercises are right",
        description="Run each notebook from top to bottom, on a copy, and collect what check(...) says. "
        "A notebook is a program: it runs with your rights. Grade the work of people you trust, or do it in a "
        "container.",
        epilog="Exit codes: 0 every notebook ran to its end (and reached --at-least), 1 some did not, 2 the command "
        "was not understood, 130 interrupted.",
    )
    grade.add_argument("paths", nargs="+", type=Path, metavar="NOTEBOOK", help="notebooks, or folders of them")
    grade.add_argument("--csv", type=Path, metavar="FILE", help="write a row for each notebook, for a spreadsheet")
    grade.add_argument("--json", type=Path, metavar="FILE", help="write everything, messages included")
    grade.add_argument("--details", action="store_true",
                       help="print what was said about every exercise that is not right (always, for one notebook)")
    grade.add_argument("--cell-limit", type=count_option, default=120, metavar="SECONDS",
                       help="interrupt a cell after so long and go on with the next (default: %(default)s)")
    grade.add_argument("--time-limit", type=count_option, default=900, metavar="SECONDS",
                       help="end a notebook after so long (default: %(default)s)")
    grade.add_argument("--jobs", type=count_option, default=1, metavar="N",
                       help="so many notebooks at a time (default: %(default)s; each needs about 1 GB)")
    grade.add_argument("--at-least", type=float, default=0.0, metavar="PERCENT",
                       help="exit with 1 when a notebook scores less, for use in a script")
    return program


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit code."""
    options = parser().parse_args(arguments)
    from labs.checks.marking import Limits, as_csv, as_json, as_text, mark_notebooks, notebooks_in

    try:
        paths = notebooks_in(options.paths)
        for wanted in filter(None, (options.csv, options.json)):
            if not wanted.resolve().parent.is_dir():
                raise FileNotFoundError(f"there is no folder {wanted.parent} to write {wanted.name} into")
    except FileNotFoundError as error:
        print(f"python -m labs.checks grade: {error}", file=sys.stderr)
        return USAGE

    found, code = {}, OK
    try:
        marks = mark_notebooks(paths, Limits(options.cell_limit, options.time_limit), options.jobs)
        for mark in tqdm(marks, total=len(paths), desc="grading", unit="notebook", mininterval=0):
            found[mark.notebook] = mark
    except KeyboardInterrupt:
        print("Interrupted. These are the marks so far.", file=sys.stderr)
        code = INTERRUPTED

    rows = [found[str(path)] for path in paths if str(path) in found]
    print(as_text(rows, options.details or len(rows) == 1))
    for wanted, write in ((options.csv, as_csv), (options.json, as_json)):
        if wanted:
            _write(wanted, write(rows))
    if code == OK and any(not mark.complete or mark.score < options.at_least for mark in rows):
        code = INCOMPLETE
    return code


def _write(path: Path, text: str) -> None:
    """Write a whole file or none."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, "utf8")
    os.replace(part, path)


if __name__ == "__main__":
    sys.exit(main())
