"""The log of a run: one row every so many steps, in memory and on disk.

`log.csv` is a plain table that anything can plot, while the run goes on and after it.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from solutions.data.store_files import write_whole
from solutions.errors import InputError

LOG = "log.csv"

#: What a row holds.
COLUMNS = {
    "step": "steps done",
    "tokens": "tokens seen",
    "loss": "the whole loss of the batch, activations scaled",
    "reconstruction": "its squared error part",
    "sparsity": "its sparsity part, coefficient included",
    "auxiliary": "its part for dead latents",
    "l0": "latents active on a token, on average",
    "ev": "explained variance of the batch",
    "dead": "share of latents that have not fired for `dead_after` tokens",
    "lr": "learning rate",
    "warm": "share of the sparsity coefficient in force",
    "grad_norm": "length of the gradient before clipping",
    "path": "how the gradients were computed",
    "seconds": "of training, since the run began",
}


class RunLog:
    """Rows of a run, kept in memory and, with a folder, in `log.csv` there.

    Args:
        folder: where; None keeps them in memory alone.
        until: keep the rows up to this step of a log that is there (those after it will be made again).
    """

    def __init__(self, folder: Path | None = None, until: int = 0):
        self.rows: list[dict[str, Any]] = []
        self._file: Any = None
        if folder is not None:
            path = folder / LOG
            if until and path.is_file():
                self.rows = [row for row in read_rows(path) if row["step"] <= until]
            write_whole(path, _as_csv(self.rows).encode())
            self._file = open(path, "a", encoding="utf-8", newline="")

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row; it is in the file when this returns."""
        self.rows.append({name: row[name] for name in COLUMNS})
        if self._file is not None:
            csv.writer(self._file, lineterminator="\n").writerow(self.rows[-1].values())
            self._file.flush()

    def sync(self) -> None:
        """Make what was added outlast a power cut: a checkpoint counts on it."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self.sync()
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def table(self) -> pd.DataFrame:
        """The rows as a table; its columns are those of `COLUMNS`."""
        return pd.DataFrame(self.rows, columns=list(COLUMNS))


def read_log(path: str | os.PathLike[str]) -> pd.DataFrame:
    """The log of a run, finished or still going.

    Args:
        path: the run's folder, or its `log.csv`.

    Returns:
        One row for each logged step; the columns are those of `COLUMNS`.

    Raises:
        InputError: there is no log.
    """
    path = Path(path)
    path = path / LOG if path.is_dir() else path
    if not path.is_file():
        raise InputError(f"no log at {path}: a run with path=… writes one.")
    return pd.DataFrame(read_rows(path), columns=list(COLUMNS))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The whole rows of a log; one that was cut off in the middle is not among them."""
    text = path.read_text(encoding="utf-8")
    lines = text[: text.rfind("\n") + 1]
    return [_typed(row) for row in csv.DictReader(io.StringIO(lines)) if None not in row.values()]


def _typed(row: Mapping[str, str]) -> dict[str, Any]:
    kinds = {"step": int, "tokens": int, "path": str}
    return {name: kinds.get(name, float)(row[name]) for name in COLUMNS}


def _as_csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(row.values() for row in rows)
    return text.getvalue()
