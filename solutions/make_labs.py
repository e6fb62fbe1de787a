"""Make the labs from the solved labs: `solutions/NN_name.md` (MyST) becomes `labs/NN_name.ipynb`.

    python -m solutions.make_labs            # write labs/
    python -m solutions.make_labs --check    # exit 1 if a lab is missing, stale, edited or has no source

What becomes of a solved lab:

- lines from `### BEGIN SOLUTION` to `### END SOLUTION` become one `raise NotImplementedError`, indented;
- a cell tagged `solution` is left out;
- a cell tagged `uses-exercise` calls the learner's functions, so it may fail in an untouched lab: it also
  gets the tag `raises-exception`, which nbval, nbclient and JupyterLab's "Run All" respect;
- outputs are dropped, and each cell gets an id made from its heading: a small edit makes a small diff.

A starter, `solutions/NAME_starter.md`, becomes `labs/NAME.ipynb` as it is: there is nothing to solve in it.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
SOURCES = "[0-9][0-9]_*.md"
STARTER = "_starter"  # what the name of a starter's source ends with
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
HEADING = re.compile(r"^#{1,3} +(.+)$", re.M)
FENCED = re.compile(r"^(`{3,}).*?^\1", re.M | re.S)  # a comment in a code example is no heading
NUMBER = re.compile(r"Exercise (\d+\.\d+)")
STAMP = "monosemantic"  # notebook metadata: how we know our own, untouched work


class LabError(ValueError):
    """A solved lab from which no lab can be made; the message names the file, the cell and the remedy."""


def make_lab(text: str, name: str = "lab") -> str:
    """The lab, as notebook JSON, made from the MyST text of a solved lab.

    Args:
        text: the solved lab.
        name: for error messages and the notebook's stamp.

    Raises:
        LabError: unbalanced markers, no solution at all (or one in a starter), a stub that does not parse, or
            solution text that would still be in the lab.
    """
    notebook = jupytext.reads(text, fmt="md:myst")
    solved, cells, used = [], [], set()
    heading, number = "start", None
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "markdown" and (headings := HEADING.findall(FENCED.sub("", cell.source))):
            heading = headings[-1]
            number = match.group(1) if (match := NUMBER.search(heading)) else None
        where = f"{name}: cell {len(cells)} under {heading!r}"
        source, removed = strip_solutions(cell.source, number, where)
        if removed and cell.cell_type != "code":
            raise LabError(f"{where}: a solution marker in a text cell. Move it into a code cell.")
        solved += removed
        if "solution" in tags:
            if cell.cell_type == "code":
                solved += cell.source.splitlines()
            continue
        cells.append(_clean(cell, source, tags, bool(removed), _cell_id(heading, used), where))
    starter = name.removesuffix(".md").endswith(STARTER)
    if not solved and not starter:
        raise LabError(f"{name}: no solution in it. Mark what learners write with {BEGIN} and {END}.")
    if solved and starter:
        raise LabError(f"{name}: a solution in a starter. It has to run as it is; move the solution elsewhere.")
    _forbid_leaks(solved, cells, name)
    lab = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": notebook.metadata["kernelspec"]})
    lab.nbformat, lab.nbformat_minor = 4, 5
    lab.metadata[STAMP] = {"made_by": "python -m solutions.make_labs", "sha256": fingerprint(lab)}
    nbformat.validate(lab)
    return nbformat.writes(lab, indent=1) + "\n"


def strip_solutions(source: str, number: str | None, where: str) -> tuple[str, list[str]]:
    """(source with each solution block replaced by a stub, the lines taken out)."""
    kept, removed, indent = [], [], None
    for line in source.splitlines():
        marker = line.strip()
        if marker.startswith(BEGIN):
            if indent is not None:
                raise LabError(f"{where}: {BEGIN} inside a solution. Close the first one with {END}.")
            indent = line[: len(line) - len(line.lstrip())]
            what = f"Exercise {number} is not done yet" if number else "not done yet"
            kept.append(f"{indent}# Your code here, in place of the next line.")
            kept.append(f'{indent}raise NotImplementedError("{what}")')
        elif marker.startswith(END):
            if indent is None:
                raise LabError(f"{where}: {END} without {BEGIN} before it.")
            indent = None
        elif indent is not None:
            removed.append(line)
        else:
            kept.append(line)
    if indent is not None:
        raise LabError(f"{where}: {BEGIN} without {END} after it.")
    return "\n".join(kept), removed


def _clean(
    cell: NotebookNode, source: str, tags: list, is_stub: bool, cell_id: str, where: str
) -> NotebookNode:
    """The lab's version of a cell: tagged, without outputs, and known to parse."""
    if cell.cell_type != "code":
        return nbformat.v4.new_markdown_cell(source, id=cell_id)
    tags = [*tags, *(["exercise"] if is_stub and "exercise" not in tags else [])]
    top_level_stub = is_stub and re.search(r"^raise NotImplementedError", source, re.M)
    if "uses-exercise" in tags or top_level_stub:
        tags.append("raises-exception")
    try:
        ast.parse("\n".join(line for line in source.splitlines() if not line.startswith("%")))
    except SyntaxError as error:
        raise LabError(f"{where}: the stub does not parse ({error.msg}, line {error.lineno}).") from None
    return nbformat.v4.new_code_cell(source, id=cell_id, metadata={"tags": tags} if tags else {})


def _cell_id(heading: str, used: set[str]) -> str:
    """An id from the heading and a count, `exercise-1-3-statistics-2`: unique, at most 64 characters."""
    slug = re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")[:56] or "cell"
    count = 1
    while f"{slug}-{count}" in used:
        count += 1
    used.add(f"{slug}-{count}")
    return f"{slug}-{count}"


def _forbid_leaks(solved: Sequence[str], cells: Sequence[NotebookNode], name: str) -> None:
    """Raise if a line of a solution long enough to give it away stands anywhere in the lab."""
    telling = {line.strip() for line in solved if len(line.strip()) >= 20}
    for cell in cells:
        if "### BEGIN" in cell.source or "### END" in cell.source:
            raise LabError(
                f"{name}: cell {cell.id!r} has a misspelt solution marker. Write {BEGIN} or {END}."
            )
        leaked = next((line.strip() for line in cell.source.splitlines() if line.strip() in telling), None)
        if leaked:
            raise LabError(
                f"{name}: cell {cell.id!r} gives away a line of a solution: {leaked!r}. Reword it."
            )


def fingerprint(notebook: NotebookNode) -> str:
    """A checksum of what a learner can edit: kind and source of every cell. Outputs do not count."""
    parts = (f"{cell.cell_type}\0{cell.source}\0" for cell in notebook.cells)
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def is_untouched(path: Path) -> bool:
    """Whether a lab on disk is as it was generated, so that writing over it loses nobody's work."""
    try:
        notebook = nbformat.read(path, as_version=4)
    except (OSError, ValueError):
        return False
    return notebook.metadata.get(STAMP, {}).get("sha256") == fingerprint(notebook)


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Make or check every lab under `root`. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m solutions.make_labs", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 if a lab differs from its source"
    )
    parser.add_argument("--force", action="store_true", help="write over labs that somebody has worked in")
    options = parser.parse_args(arguments)
    problems, folder = [], root / "solutions"
    sources = {source.stem.removesuffix(STARTER): source
               for source in [*sorted(folder.glob(SOURCES)), *sorted(folder.glob(f"*{STARTER}.md"))]}
    for stem, source in sources.items():
        out = root / "labs" / f"{stem}.ipynb"
        try:
            wanted = make_lab(source.read_text("utf8"), source.name)
        except LabError as error:
            problems.append(str(error))
            continue
        if out.exists() and out.read_text("utf8") == wanted:
            continue
        if options.check:
            problems.append(f"labs/{out.name}: {_why_it_differs(out)}")
        elif out.exists() and not is_untouched(out) and not options.force:
            problems.append(
                f"labs/{out.name}: has been worked in. Move it away, or write over it with --force."
            )
        else:
            out.parent.mkdir(exist_ok=True)
            out.write_text(wanted, "utf8")
            print(f"wrote labs/{out.name}")
    for lab in sorted((root / "labs").glob("*.ipynb")):
        if lab.stem not in sources:
            problems.append(
                f"labs/{lab.name}: has no source solutions/{lab.stem}.md. Delete it or add the source."
            )
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def _why_it_differs(lab: Path) -> str:
    if not lab.exists():
        return "is missing. Run `python -m solutions.make_labs`."
    if is_untouched(lab):
        return "is out of date, or carries outputs. Run `python -m solutions.make_labs`."
    return "has been worked in. Keep a copy elsewhere, or make it anew with --force."


if __name__ == "__main__":
    sys.exit(main())
