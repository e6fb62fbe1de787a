"""Answering a query: every term is looked up once, then the answers are combined."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from solutions.analysis.index.concepts import ConceptTable, Scores
from solutions.analysis.search.queries import And, Found, Not, Query, QueryError, Term, as_query
from solutions.analysis.search.results import Results
from solutions.analysis.search.session import RANKING, Reader, Session
from solutions.errors import InputError, check_count

if TYPE_CHECKING:
    from solutions.analysis.index import FeatureIndex

#: Tokens shown before and after the strongest activation.
BEFORE, AFTER = 7, 3


def search(
    index: FeatureIndex,
    query: Query | str,
    k: int = 20,
    *,
    concepts: ConceptTable | Sequence[str] | None = None,
    labels: Tensor | None = None,
    read: Reader | None = None,
) -> Results:
    """The latents that a query asks for, best first, with the evidence.

    A term has a measure (an F1, a cosine, bits) and a bar that a latent must reach to match. Of the matching latents
    each gets a score: its measure as a share of the best that any latent has. `&` takes the geometric mean of its
    parts' scores, `|` the larger; `~` and `density` filter and do not rank. Among equals the more active one
    comes first. So a score of 1 says "none does better", not "good": whether it is good the numbers beside it say.

    Where latents are ranked by how well they predict something, they are ranked on the index's train split and the
    numbers in the table are measured on its test split. Of very many tokens evenly spaced ones are looked at.

    Args:
        index: a feature index.
        query: terms such as `by_token("Paris")`, joined with `& | ~`; or the same as text, see `parse_query`.
        k: how many latents to show.
        concepts: a `ConceptTable`, for terms about concepts; or the names of the columns of `labels`.
        labels: [n_tokens, concepts] bool, from `place_labels`, when no table has been made.
        read: turns a typed text into (tokens, activations [tokens, latents]), see `text_reader`.

    Returns:
        The latents, with what was measured; it shows as a table.

    Raises:
        InputError: a term cannot be answered; for a typed query the message marks it.

    Example:
        >>> found = search(index, "concept:weekday & density:0..0.01", k=1, concepts=concepts)
        >>> found.latents == [latent]
        True
    """
    query, k = as_query(query), check_count(k, "k")
    terms = list(query.terms())
    session = Session(index, read=read, most=max(1, RANKING // len(terms)), shown=k, **_labels(index, concepts, labels))
    outcome = evaluate(query, session)
    found = np.flatnonzero(outcome.matches)
    score = np.ones(index.n_latents) if outcome.score is None else outcome.score
    order = np.lexsort((found, -index.n_active.numpy()[found], -score[found]))
    chosen = found[order][:k]
    leaves = list(outcome.leaves())
    notes = [leaf.found.note for leaf in leaves if leaf.found.note]
    if session.facts.split.whole:
        notes.append("this index has no test split: latents are ranked and reported on the same tokens, which flatters "
                     "them")
    table = _table(session, leaves, chosen, score[chosen])
    reason = "" if len(found) else why_empty(outcome)
    return Results(str(query), table, len(found), tuple(dict.fromkeys(notes)), reason)


def _labels(index: FeatureIndex, concepts: Any, labels: Tensor | None) -> dict[str, Any]:
    table = concepts if isinstance(concepts, ConceptTable) else None
    names = table.concepts if table is not None else tuple(concepts or ())
    if table is not None and len(table.train.hits) != index.n_latents:
        raise InputError(f"concepts: the table is about {len(table.train.hits)} latents, the index has "
                         f"{index.n_latents}. Make it with concept_table(index, …).")
    if labels is not None and (labels.dtype != torch.bool or tuple(labels.shape) != (index.n_tokens, len(names))):
        raise InputError(f"labels: expected bool of shape [{index.n_tokens}, {len(names)}], a column for each name in "
                         f"concepts, got {labels.dtype} of shape {list(labels.shape)}.")
    return {"concepts": table, "names": names, "labels": labels}


# ---- combining


@dataclass
class Outcome:
    """A query's answer and those of its parts."""

    query: Query
    matches: np.ndarray           # [n_latents] bool
    score: np.ndarray | None      # [n_latents], 0 where it does not match; None: every match is as good as another
    parts: tuple[Outcome, ...] = ()
    found: Found | None = None    # of a single term
    negated: bool = False         # inside an odd number of ~

    def leaves(self) -> Iterator[Outcome]:
        """The terms' answers, from left to right."""
        return iter([self]) if self.found is not None else (leaf for part in self.parts for leaf in part.leaves())


def evaluate(query: Query, session: Session, negated: bool = False) -> Outcome:
    """Look up every term and combine what is found."""
    if isinstance(query, Term):
        found = _located(query, partial(query.find, session))
        score = None if found.score is None else np.where(found.matches, found.score, 0.0)
        best = 0.0 if score is None else float(score.max(initial=0.0))
        return Outcome(query, found.matches, score / best if best > 0 else score, found=found, negated=negated)
    if isinstance(query, Not):
        part = evaluate(query.part, session, not negated)
        return Outcome(query, ~part.matches, None, (part,), negated=negated)
    parts = tuple(evaluate(part, session, negated) for part in query.parts)
    scores = [part.score for part in parts if part.score is not None]
    if isinstance(query, And):
        matches = np.logical_and.reduce([part.matches for part in parts])
        score = np.prod(scores, axis=0) ** (1 / len(scores)) * matches if scores else None
    else:
        matches = np.logical_or.reduce([part.matches for part in parts])
        score = np.max(scores, axis=0) if scores else None
    return Outcome(query, matches, score, parts, negated=negated)


def _located(term: Term, find: Any) -> Found:
    """Look a term up; an error says where in a typed query the term stands."""
    try:
        return find()
    except QueryError:
        raise
    except InputError as error:
        if term.place is None:
            raise
        raise QueryError(str(error), *term.place) from error


def why_empty(outcome: Outcome) -> str:
    """Why a query finds nothing: which of its terms has removed everything."""
    if outcome.found is not None:
        return outcome.found.why or "no latent matches it"
    if isinstance(outcome.query, Not):
        return f"{outcome.query.part} matches every latent, so nothing is left"
    empty = [part for part in outcome.parts if not part.matches.any()]
    if empty:
        only = empty if isinstance(outcome.query, And) else outcome.parts
        return "; ".join(f"{part.query} finds none ({why_empty(part)})" for part in only)
    counts = ", ".join(f"{part.query} has {_latents(int(part.matches.sum()))}" for part in outcome.parts)
    rest = []
    for i, part in enumerate(outcome.parts):
        others = [other.matches for j, other in enumerate(outcome.parts) if j != i]
        n = int(np.logical_and.reduce(others).sum())
        if n and len(outcome.parts) > 2:
            rest.append(f"without {part.query} there would be {n:,}")
    return f"no latent is in all of them: {counts}" + (f"; {', '.join(rest)}" if rest else "")


def _latents(n: int) -> str:
    return f"{n:,} latent{'' if n == 1 else 's'}"


# ---- the table


def _table(session: Session, leaves: list[Outcome], chosen: np.ndarray, score: np.ndarray) -> pd.DataFrame:
    index = session.index
    base: dict[str, Any] = {"latent": chosen, "score": score,
                            "density": index.n_active.numpy()[chosen] / index.n_content}
    if session.concepts is not None:
        base["concept"] = best_concepts(session.concepts, chosen)
    more, evidence = {}, [[] for _ in chosen]
    for name, leaf in zip(_prefixes(leaves), leaves, strict=True):
        details = leaf.query.details(session, leaf.found, chosen)
        more |= {f"{name}_{column}": values for column, values in details.items()}
        if leaf.negated or not details:
            continue
        for i, j in enumerate(chosen.tolist()):
            if leaf.found.matches[j]:
                said = leaf.query.evidence({column: values[i] for column, values in details.items()})
                evidence[i].append(f"{leaf.query}: {said}" if len(leaves) > 1 else said)
    base["evidence"] = ["; ".join(said) for said in evidence]
    base["example"] = [example(index, j) for j in chosen.tolist()]
    return pd.DataFrame(base | more)


def _prefixes(leaves: list[Outcome]) -> list[str]:
    """A name for the columns of each term: its kind, numbered from the second of the kind on."""
    seen: dict[str, int] = {}
    prefixes = []
    for leaf in leaves:
        kind = leaf.query.kind
        seen[kind] = seen.get(kind, 0) + 1
        prefixes.append(kind if seen[kind] == 1 else f"{kind}{seen[kind]}")
    return prefixes


def best_concepts(table: ConceptTable, latents: np.ndarray) -> list[str | None]:
    """The concept that each latent follows best on the train split; None when it is never active with one."""
    scores = Scores(table.train.hits[latents], table.train.fired[latents], table.train.wanted)
    best = scores.f1.argmax(1)
    return [table.concepts[c] if hits[c] else None for c, hits in zip(best.tolist(), scores.hits, strict=True)]


def example(index: FeatureIndex, latent: int) -> str:
    """The text around a latent's strongest activation, that token in ‹›; "" for a latent that is never active."""
    first, last = index._by_latent["starts"][latent:latent + 2].tolist()
    if first == last:
        return ""
    strongest = first + int(index._by_latent["values"][first:last].argmax())
    where, value = (index._by_latent[name][strongest:strongest + 1] for name in ("tokens", "values"))
    shown = index._cutter(where.astype(np.int64), value, BEFORE, AFTER)(0)
    words = [f"‹{token}›" if i == shown.peak else token for i, token in enumerate(shown.tokens)]
    return "".join(words)
