"""What can be asked for, as values that combine: `a & b`, `a | b`, `~a`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from solutions.errors import InputError, check_text

if TYPE_CHECKING:
    from solutions.analysis.search.session import Session

#: Characters of a query, and brackets inside brackets, that are read.
LONGEST, DEEPEST = 2_000, 40
#: Tokens that are listed in a note.
SHOWN = 5


class QueryError(InputError):
    """Something is wrong at one place of a query. The message shows the query and marks the place."""

    def __init__(self, reason: str, source: str, start: int, stop: int):
        self.reason, self.source, self.start = reason, source, start
        self.stop = max(stop, start + 1)
        line = "".join(c if c.isprintable() else " " for c in source)
        super().__init__(f"{reason}\n    {line}\n    {' ' * start}{'^' * (self.stop - start)}")


class Query(ABC):
    """A question about latents. `a & b` wants both, `a | b` one of the two, `~a` the latents that `a` does not find."""

    def __and__(self, other: Query) -> Query:
        return And(self._joined(And, other)) if isinstance(other, Query) else NotImplemented

    def __or__(self, other: Query) -> Query:
        return Or(self._joined(Or, other)) if isinstance(other, Query) else NotImplemented

    def __invert__(self) -> Query:
        return self.part if isinstance(self, Not) else Not(self)

    def __bool__(self) -> bool:
        raise InputError("a query is neither true nor false: join queries with & | ~, not with and, or, not.")

    def _joined(self, kind: type, other: Query) -> tuple[Query, ...]:
        return tuple(part for query in (self, other) for part in (query.parts if type(query) is kind else (query,)))

    @abstractmethod
    def terms(self) -> Iterator[Term]:
        """The terms in it, from left to right."""


@dataclass(frozen=True)
class And(Query):
    """All of the parts hold."""

    parts: tuple[Query, ...]

    def terms(self) -> Iterator[Term]:
        return (term for part in self.parts for term in part.terms())

    def __str__(self) -> str:
        return " & ".join(f"({part})" if isinstance(part, Or) else str(part) for part in self.parts)


@dataclass(frozen=True)
class Or(Query):
    """At least one of the parts holds."""

    parts: tuple[Query, ...]

    def terms(self) -> Iterator[Term]:
        return (term for part in self.parts for term in part.terms())

    def __str__(self) -> str:
        return " | ".join(str(part) for part in self.parts)


@dataclass(frozen=True)
class Not(Query):
    """The part does not hold."""

    part: Query

    def terms(self) -> Iterator[Term]:
        return self.part.terms()

    def __str__(self) -> str:
        return f"~{self.part}" if isinstance(self.part, Term) else f"~({self.part})"


class Found(NamedTuple):
    """What one term says about all latents."""

    matches: np.ndarray            # [n_latents] bool
    score: np.ndarray | None       # [n_latents] float, the term's own measure; None for a term that only filters
    why: str = ""                  # said when nothing matches
    note: str = ""                 # what the reader has to know about how it was found
    kept: Any = None               # what `details` needs again


@dataclass(frozen=True)
class Term(Query):
    """One condition.

    least: the lowest measure that counts as a match, in the term's own unit; None stands for the term's default.
    place: where it stands in a typed query, as (source, start, stop).
    """

    _: KW_ONLY
    least: float | None = None
    place: tuple[str, int, int] | None = field(default=None, compare=False, repr=False)

    kind = "term"       # the word before the colon
    default = 0.0       # the `least` that holds when none is given
    measure = "score"   # what the term ranks by, in words

    def terms(self) -> Iterator[Term]:
        yield self

    @property
    def bar(self) -> float:
        """The measure from which on a latent matches."""
        return self.default if self.least is None else float(self.least)

    @abstractmethod
    def find(self, session: Session) -> Found:
        """Which latents match."""

    def details(self, session: Session, found: Found, latents: np.ndarray) -> dict[str, np.ndarray]:
        """Columns that say more about a few latents: name to [latents]."""
        return {}

    def evidence(self, row: dict[str, Any]) -> str:
        """What the columns of one latent say, in words; "" for a term that needs none."""
        return ""

    def value(self) -> str:
        """What stands behind the colon."""
        return ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.value()}" + ("" if self.least is None else f">{self.least!r}")


def quoted(text: str) -> str:
    """A text as it is typed in a query, in quotation marks."""
    for sign, written in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\t", "\\t")):
        text = text.replace(sign, written)
    return f'"{text}"'


def as_query(query: Query | str) -> Query:
    """The query, read first if it is typed."""
    if isinstance(query, Query):
        return query
    from solutions.analysis.search.parse import parse_query

    return parse_query(check_text(query, "query"))


def names(texts: Sequence[str], n: int) -> str:
    """The first of n tokens, each as Python writes it, so that nothing invisible is missed."""
    more = f" and {n - len(texts):,} more" if n > len(texts) else ""
    return ", ".join(repr(text) for text in texts) + more
