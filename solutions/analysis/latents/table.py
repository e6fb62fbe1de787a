"""The table of all latents: sorted, filtered and written to a file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from solutions.data.store_files import write_whole
from solutions.errors import InputError, unknown_name, whole_number

#: Columns that hold several tokens, one after the other with this between them.
LISTS, BETWEEN = ("tokens", "promoted", "suppressed"), "|"


@dataclass(frozen=True, repr=False, eq=False)
class LatentTable:
    """A row for every latent of an SAE. `latent_table` makes it; see there for what the columns mean.

    `filter` and `sort` give another table and leave this one as it is. `table` is a plain pandas DataFrame:
    whatever is not offered here, do there.
    """

    table: pd.DataFrame   #: the rows
    n_tests: int          #: pairs of a latent and a token that were tested for enrichment
    alpha: float          #: the share of false discoveries among the tokens called enriched
    split: str            #: "test" if what was chosen on train is measured on test, "all" if there is no split
    tokens: frozenset[str] = field(default=frozenset())  #: every token of the vocabulary, to know a mistyped one
    concepts: tuple[str, ...] = ()                       #: every concept, for the same reason
    empty_reason: str = ""  #: why no latent is left, if none is

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        return f"LatentTable({len(self):,} latents, {self.table.shape[1]} columns)" + self._why("\n")

    def _repr_html_(self) -> str:
        return self._why() or self.table._repr_html_()

    def _why(self, before: str = "") -> str:
        return before + self.empty_reason if self.empty_reason else ""

    def head(self, k: int = 10) -> pd.DataFrame:
        """The first k rows.

        Args:
            k: how many.
        """
        return self.table.head(k)

    # ------------------------------------------------------------------------------------ sort and filter

    def sort(self, by: str, descending: bool = True) -> LatentTable:
        """Ordered by one column; equal ones by latent number, and rows without a value last.

        Args:
            by: the column.
            descending: largest first.

        Raises:
            InputError: there is no such column.
        """
        self._check_column(by)
        table = self.table.sort_values([by, "latent"] if by != "latent" else by,
                                       ascending=[not descending, True] if by != "latent" else not descending,
                                       na_position="last")
        return replace(self, table=table.reset_index(drop=True))

    def filter(self, **conditions: Any) -> LatentTable:
        """Only the latents that meet all conditions: `filter(f1=(0.8, None), concept="negation")`.

        A condition is named after a column and is one of: a pair (lowest, highest) of numbers, either of
        which may be None; one value; a list of values, any of which will do; a function of the column that
        gives booleans. For the columns that hold several tokens (tokens, promoted, suppressed) a value is one
        token that has to be among them. `alive=True` keeps latents that are active anywhere, `alive=False`
        the dead ones. A latent without a value in a column meets no condition on it.

        If no latent is left, `empty_reason` says which condition was too much, and so does the table when
        shown.

        Args:
            **conditions: column to condition.

        Raises:
            InputError: no such column, concept or token; near ones are suggested.
        """
        steps = [(self._words(name, wanted), self._meets(name, wanted)) for name, wanted in conditions.items()]
        kept = np.ones(len(self), bool)
        for _, meets in steps:
            kept &= meets
        reason = self.empty_reason or ("" if kept.any() else self._reason(steps))
        return replace(self, table=self.table[kept].reset_index(drop=True), empty_reason=reason)

    def _reason(self, steps: list[tuple[str, np.ndarray]]) -> str:
        """Which condition left nothing: each alone, and the one at which the last latents went."""
        left, lines = np.ones(len(self), bool), []
        for words, meets in steps:
            before, left = left, left & meets
            alone = f"{int(meets.sum()):,} of {len(self):,} alone"
            if not left.any():
                met = "" if len(lines) == 0 else f"none of the {int(before.sum()):,} left by " + " and ".join(lines)
                return f"No latent is left: {words} is met by " + (f"{met} ({alone})." if met else "none.")
            lines.append(words)
        return "The table was empty before it was filtered."

    @staticmethod
    def _words(name: str, wanted: Any) -> str:
        if isinstance(wanted, tuple) and len(wanted) == 2:
            low, high = wanted
            ends = (low is not None and f"at least {low:g}", high is not None and f"at most {high:g}")
            return f"{name} " + (" and ".join(end for end in ends if end) or "of any size")
        return f"{name} {getattr(wanted, '__name__', None) or repr(wanted)}"

    def _meets(self, name: str, wanted: Any) -> np.ndarray:
        """Which rows meet one condition, [rows] bool."""
        if name == "alive":
            return (self.table["n_active"] > 0).to_numpy() == bool(wanted)
        column = self._check_column(name)
        if isinstance(wanted, Callable):
            return self._by_function(name, column, wanted)
        if isinstance(wanted, tuple):
            return _within(name, column, wanted)
        values = list(wanted) if isinstance(wanted, Iterable) and not isinstance(wanted, str) else [wanted]
        if pd.api.types.is_numeric_dtype(column):
            if not all(isinstance(value, Real) or whole_number(value) is not None for value in values):
                raise InputError(f"{name} is a number: expected one, several, or (lowest, highest); got {wanted!r}.")
            return column.isin([float(value) for value in values]).to_numpy()
        for value in values:
            self._check_text(name, value)
        if name in LISTS:
            wrapped = BETWEEN + column.fillna("") + BETWEEN
            found = [wrapped.str.contains(BETWEEN + value + BETWEEN, regex=False) for value in values]
            return np.logical_or.reduce([x.to_numpy(bool) for x in found])
        return column.isin(values).to_numpy()

    @staticmethod
    def _by_function(name: str, column: pd.Series, function: Callable) -> np.ndarray:
        answer = np.asarray(function(column))
        if answer.dtype != bool or answer.shape != (len(column),):
            raise InputError(f"{name}: expected the function to give one True or False for each of the {len(column)} "
                             f"values of the column, got {answer.dtype} of shape {list(answer.shape)}.")
        return answer

    def _check_column(self, name: str) -> pd.Series:
        if name not in self.table:
            hint = "" if "concept" in self.table else ("Columns about concepts are there when latent_table is given "
                                                       "concepts and labels.")
            raise unknown_name("column", name, [*self.table.columns, "alive"], hint)
        return self.table[name]

    def _check_text(self, name: str, value: object) -> None:
        """Refuse a concept, group or token that does not exist: an empty answer would look like a finding."""
        known = {"concept": self.concepts, "token": self.tokens, **dict.fromkeys(LISTS, self.tokens)}.get(name, ())
        if not isinstance(value, str):
            raise InputError(f"{name} is text: expected a string or a list of them, got {value!r}.")
        if known and value not in known:
            hint = "Mind the space before a word." if known is self.tokens else ""
            raise unknown_name(name if name not in LISTS else "token", value, sorted(known), hint)

    # --------------------------------------------------------------------------------------------- files

    def export(self, path: str | os.PathLike[str]) -> Path:
        """Write the table to a .csv or .json file, whole or not at all, and return its path.

        .json is a list with one object a latent, in which what has no value is null; .csv leaves that empty.

        Args:
            path: where to; the folder must exist.

        Raises:
            InputError: there is no such folder, or the name ends in neither .csv nor .json.
        """
        path = Path(path)
        if not path.parent.is_dir():
            raise InputError(f"path: there is no folder {path.parent}. Make it first: Path(...).mkdir(parents=True).")
        if path.suffix == ".csv":
            text = self.table.to_csv(index=False, lineterminator="\n")
        elif path.suffix == ".json":
            text = as_json(self.table)
        else:
            raise InputError(f"path: expected a name that ends in .csv or .json, got {path.name!r}.")
        write_whole(path, text.encode())
        return path


def as_json(table: pd.DataFrame) -> str:
    """The rows of a table as a JSON list, one to a line."""
    columns = {name: [_plain(value) for value in table[name].tolist()] for name in table}
    rows = (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
    return "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n"


def _plain(value: Any) -> Any:
    """NaN and infinity are no JSON."""
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _within(name: str, column: pd.Series, ends: tuple) -> np.ndarray:
    numbers = all(end is None or isinstance(end, Real) for end in ends)
    if len(ends) != 2 or not numbers or not pd.api.types.is_numeric_dtype(column):
        kind = "a number" if pd.api.types.is_numeric_dtype(column) else "text"
        raise InputError(f"{name} is {kind}: a pair is (lowest, highest) of numbers, got {ends!r}. "
                         "For one of several values give a list.")
    low, high = ends
    if low is not None and high is not None and low > high:
        raise InputError(f"{name}: nothing is at least {low:g} and at most {high:g}. Is it the other way round?")
    met = column.notna()
    if low is not None:
        met &= column >= low
    if high is not None:
        met &= column <= high
    return met.to_numpy()
