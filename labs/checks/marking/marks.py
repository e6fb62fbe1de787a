"""From notebooks to marks: which lab it is, what `check` said about each exercise, and how many are right."""

from __future__ import annotations

import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from labs.checks import registry
from labs.checks.marking.running import Limits, run_notebook
from labs.checks.record import PROGRESS, VERDICTS, heard_in

MISSING = "missing"  # the status of an exercise that nothing was said about
LAB = re.compile(r"^\s*lab\(\s*(\d+)", re.M)
CHECK = re.compile(r"""\b(?:check|predict|reveal)\(\s*["'](\d+)\.""")


@dataclass(frozen=True)
class Mark:
    """One notebook's row.

    Attributes:
        notebook: its path, as it was found.
        lab: which lab it is; None when that cannot be seen.
        statuses: for each exercise, by number, what `check` said last: "right", "todo", "raised", "known", "form" or
            "wrong", or "missing" when it was never asked and there is no function of that name.
        messages: the same for what the learner was told.
        predictions: how many predictions were compared with the measurement, and how many there are.
        note: what an instructor should know: why it stopped, which cells were slow, which raised.
        complete: whether the notebook ran to its end. Where it did not, the marks are those collected until then.
        seconds: how long it took.
    """

    notebook: str
    lab: int | None = None
    statuses: dict[str, str] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    predictions: tuple[int, int] = (0, 0)
    note: str = ""
    complete: bool = False
    seconds: float = 0.0

    @property
    def right(self) -> int:
        """How many exercises are right."""
        return sum(status == "right" for status in self.statuses.values())

    @property
    def score(self) -> float:
        """Right exercises, in percent of the lab's; 0 for a notebook that is no lab."""
        return 100 * self.right / len(self.statuses) if self.statuses else 0.0


def notebooks_in(paths: Sequence[Path]) -> list[Path]:
    """The notebooks that `paths` name: files as they are, folders by the `.ipynb` files in and below them.

    Raises:
        FileNotFoundError: for a path that does not exist, and for a folder without a notebook.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = [p for p in sorted(path.rglob("*.ipynb")) if not _hidden(p.relative_to(path))]
            if not inside:
                raise FileNotFoundError(f"there is no .ipynb file in {path}")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise FileNotFoundError(f"there is no {path}")
    return list(dict.fromkeys(found))


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)  # .ipynb_checkpoints among them


def read(path: Path) -> NotebookNode:
    """The notebook in a file: `.ipynb`, or Markdown that jupytext reads.

    Raises:
        ValueError: for a file that is no notebook; the message says what is wrong with it.
    """
    try:
        if path.suffix == ".md":
            import jupytext

            return jupytext.read(path)
        return nbformat.read(path, as_version=4)
    except Exception as error:  # damaged files fail in as many ways as there are keys in the format
        said = str(error).strip().splitlines() or [""]
        raise ValueError(f"not a notebook ({type(error).__name__}: {said[0][:120]})") from error


def which_lab(notebook: NotebookNode) -> int | None:
    """The lab that a notebook belongs to: by its call of `lab`, else by the exercises that it checks."""
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    if called := LAB.search(code):
        number = int(called[1])
    elif checked := Counter(CHECK.findall(code)).most_common(1):
        number = int(checked[0][0])
    else:
        return None
    return number if number in registry.labs_there_are() else None


def mark_notebook(path: Path, limits: Limits | None = None, threads: int | None = None) -> Mark:
    """Run one notebook and say how many of its exercises are right.

    Args:
        path: the notebook; it is read, never written.
        limits: how long it may take.
        threads: how many threads its arithmetic may use; None leaves it to PyTorch.

    Returns:
        The mark. A notebook that cannot be read, crashes or hangs gets one, too.
    """
    try:
        notebook = read(path)
    except ValueError as error:
        return Mark(str(path), note=str(error))
    lab = which_lab(notebook)
    if lab is None:
        known = ", ".join(map(str, registry.labs_there_are()))
        return Mark(str(path), note=f"no lab of this course: no cell calls lab(...) or check(...). Labs: {known}")
    with tempfile.TemporaryDirectory(prefix="verdicts-") as folder:
        said = Path(folder) / "verdicts.jsonl"
        settings = {VERDICTS: str(said), PROGRESS: str(Path(folder) / "progress.json")}
        if threads:
            settings["OMP_NUM_THREADS"] = str(threads)
        last = f"from labs.checks.unchecked import check_the_rest\ncheck_the_rest({lab})"
        run = run_notebook(notebook, settings, last, limits or Limits())
        heard = heard_in(said)
    exercises, predictions = registry.exercises(lab), registry.predictions(lab)
    return Mark(
        str(path),
        lab,
        {number: heard.get(number, {}).get("status", MISSING) for number in exercises},
        {number: heard.get(number, {}).get("message", "") for number in exercises},
        (sum(number in heard for number in predictions), len(predictions)),
        _note(run),
        run.finished,
        run.seconds,
    )


def _note(run) -> str:
    """What an instructor should know about a run, in one line."""
    parts = [run.ended] if run.ended else []
    if run.slow:
        parts.append(f"interrupted, because too slow: code cell {', '.join(map(str, run.slow))}")
    if run.raised:
        first, error = next(iter(run.raised.items()))
        more = f" (and {len(run.raised) - 1} more)" if len(run.raised) > 1 else ""
        parts.append(f"code cell {first} raised {error}{more}")
    return "; ".join(parts)


def mark_notebooks(paths: Sequence[Path], limits: Limits, jobs: int = 1) -> Iterator[Mark]:
    """Mark many notebooks, `jobs` at a time; each mark as soon as it is there, in any order.

    Leaving early (an interrupt) ends the notebooks that are running, and starts no other.
    """
    threads = max(1, (os.cpu_count() or 1) // jobs) if jobs > 1 else None
    with ThreadPoolExecutor(jobs) as pool:
        waiting = [pool.submit(mark_notebook, path, limits, threads) for path in paths]
        try:
            for done in as_completed(waiting):
                yield done.result()
        finally:
            limits.stopped.set()
            for future in waiting:
                future.cancel()
