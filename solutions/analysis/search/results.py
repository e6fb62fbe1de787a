"""What a search finds: latents in order, each with the evidence for it; or the reason why there are none."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd


@dataclass(frozen=True, eq=False)
class Results:
    """What a search has found.

    Attributes:
        query: the question, as it can be typed.
        table: a row for each latent shown, best first: latent; score (1 is the best that any latent of the index does
            on what was asked, see `search`); density (the share of tokens on which it is active); concept (the one
            it follows best, when a `ConceptTable` was given); evidence, in words; example (the text around its
            strongest activation, that token in ‹›); and the numbers behind the evidence, for each term of the query, in
            columns that begin with the term's kind.
        n_found: how many latents match; the table may show fewer.
        notes: what one has to know about how it was found.
        empty_reason: why nothing was found; "" when something was.
    """

    query: str
    table: pd.DataFrame
    n_found: int
    notes: tuple[str, ...] = ()
    empty_reason: str = ""

    @property
    def latents(self) -> list[int]:
        """The numbers of the latents shown, best first."""
        return self.table["latent"].tolist()

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[Any]:
        """The rows, as named tuples."""
        return self.table.itertuples(index=False)

    def __bool__(self) -> bool:
        return self.n_found > 0

    @property
    def heading(self) -> str:
        """One line: what was asked and how much was found."""
        if not self.n_found:
            return f"Nothing for {self.query}: {self.empty_reason}."
        shown = "" if len(self) == self.n_found else f", the best {len(self)} shown"
        return f"{self.n_found:,} latent{'s' if self.n_found > 1 else ''} for {self.query}{shown}"

    def __str__(self) -> str:
        lines = [self.heading]
        for rank, row in enumerate(self, 1):
            concept = getattr(row, "concept", None)
            named = f"  best concept {concept}" if isinstance(concept, str) else ""
            lines += ["", f"{rank:3d}. latent {row.latent}  score {row.score:.2f}  density {row.density:.3%}{named}"]
            lines += [f"     {text}".replace("\n", "↵") for text in (row.evidence, row.example) if text]
        return "\n".join([*lines, *([""] if self.notes else []), *(f"Note: {note}." for note in self.notes)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from html import escape

        # Text comes from a vocabulary and may hold anything: pandas escapes it.
        notes = "".join(f"<p>Note: {escape(note)}.</p>" for note in self.notes)
        with pd.option_context("display.max_colwidth", None):
            table = self.table.to_html(index=False, float_format=lambda x: f"{x:.3g}") if len(self) else ""
        return f"<p>{escape(self.heading)}</p>{table}{notes}"

    def to_json(self) -> dict[str, Any]:
        """The same as plain values for json.dumps; what is not known is None."""
        rows = [{name: _plain(value) for name, value in row.items()} for row in self.table.to_dict("records")]
        return {"query": self.query, "n_found": self.n_found, "results": rows, "notes": list(self.notes),
                "empty_reason": self.empty_reason}


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value.item() if hasattr(value, "item") else value
