"""Terms that are about tokens: which latents tell where a token, a pattern, a concept or some examples stand."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from solutions.analysis.index.concepts import Scores
from solutions.analysis.index.reports import count_latents
from solutions.analysis.search.queries import SHOWN, Found, Term, names, quoted
from solutions.analysis.search.regexes import Bounded
from solutions.analysis.search.session import REPORTING, Population, Session
from solutions.errors import InputError, unknown_name


class Truth(NamedTuple):
    """Where a condition holds, and among which tokens that is known."""

    holds: np.ndarray  # [n_tokens] bool
    where: Population
    note: str = ""


def evenly(places: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the places, evenly spaced."""
    return places if len(places) <= most else places[np.linspace(0, len(places) - 1, most).astype(np.int64)]


def hits_of(session: Session, places: np.ndarray) -> tuple[np.ndarray, float]:
    """On how many of the places each latent is active, [n_latents], and of how many places one that was looked at
    stands for: of many places evenly spaced ones are looked at."""
    index = session.index
    looked = evenly(places, max(1, int(session.most * index.n_content / max(index.nnz, 1))))
    return count_latents(index, looked)[0], len(places) / max(len(looked), 1)


@dataclass(frozen=True)
class OnPlaces(Term):
    """A condition on tokens; latents are ranked by how well "it is active" predicts "the condition holds" (F1).

    They are ranked on the train split; what is reported is measured on the test split. A latent matches from an F1 of
    `least` on, if it is also active more often where the condition holds than elsewhere.
    """

    default = 0.1
    measure = "F1"

    @abstractmethod
    def truth(self, session: Session) -> Truth:
        """Where the condition holds."""

    def find(self, session: Session) -> Found:
        truth = self.truth(session)
        train, fired = truth.where.split.train, truth.where.fired
        places = np.flatnonzero(truth.holds & train)
        n_test = 0 if truth.where.split.whole else np.count_nonzero(truth.holds & truth.where.split.test)
        if not len(places):
            why = "it stands only in the test split, so no latent can be chosen by it" if n_test else (
                "it stands nowhere in the text of this index")
            return Found(np.zeros(len(fired), bool), np.zeros(len(fired)), why, truth.note, truth)
        note = f"{truth.note or self}: {len(places) + n_test:,} places, {n_test:,} of them in the test split"
        hits, weight = hits_of(session, places)
        hits = np.minimum(hits * weight, fired)
        f1 = 2 * hits / (fired + len(places))
        beats = hits * np.count_nonzero(train) > fired * float(len(places))
        return Found((f1 >= self.bar) & beats, f1, self._too_low(f1), note, truth)

    def _too_low(self, f1: np.ndarray) -> str:
        return f"no latent reaches an F1 of {self.bar:g}; the best, {int(f1.argmax())}, has {f1.max():.2f}"

    def details(self, session: Session, found: Found, latents: np.ndarray) -> dict[str, np.ndarray]:
        truth, test = found.kept, found.kept.where.split.test
        starts, tokens = session.index._by_latent["starts"], session.index._by_latent["tokens"]
        fired, hits = np.zeros((2, len(latents)))
        for i, j in enumerate(latents.tolist()):
            first, last = int(starts[j]), int(starts[j + 1])
            step = max(1, -(-(last - first) * max(session.shown, 1) // REPORTING))
            looked = tokens[first:last:step]
            looked = looked[test[looked]]
            fired[i], hits[i] = step * len(looked), step * np.count_nonzero(truth.holds[looked])
        wanted = np.count_nonzero(truth.holds & test)
        scores = Scores(hits, fired, np.array(wanted))
        seen = np.full(len(latents), 1.0 if wanted else np.nan)  # what never occurs there has no score there
        lift = scores.precision * np.count_nonzero(test) / max(wanted, 1)
        return {"precision": scores.precision * seen, "recall": scores.recall * seen, "f1": scores.f1 * seen,
                "lift": lift * seen, "train_f1": found.score[latents]}

    def evidence(self, row: dict[str, Any]) -> str:
        if np.isnan(row["f1"]):
            return f"F1 {row['train_f1']:.2f} where it was chosen; the test split does not have it"
        return (f"F1 {row['f1']:.2f}, precision {row['precision']:.2f}, recall {row['recall']:.2f}, "
                f"{row['lift']:.3g} × chance")


def where_ids(session: Session, ids: Sequence[int] | np.ndarray) -> np.ndarray:
    """Where one of some tokens stands, [n_tokens] bool; never on BOS."""
    stored, content = session.index._places["ids"], ~session.index._places["is_bos"]
    if len(ids) <= 4:  # to compare is quicker than to look up
        return content & np.logical_or.reduce([stored == i for i in ids])
    wanted = np.zeros(int(max(stored.max(), max(ids))) + 1, bool)
    wanted[np.asarray(ids, np.int64)] = True
    return wanted[stored] & content


@dataclass(frozen=True)
class Token(OnPlaces):
    """One token of the vocabulary, or a word with and without a space before it."""

    word: str

    kind = "token"

    def truth(self, session: Session) -> Truth:
        ids = session.token_ids(self.word)
        return Truth(where_ids(session, ids), session.facts.everything)

    def value(self) -> str:
        return quoted(self.word)


@dataclass(frozen=True)
class Regex(OnPlaces):
    """All tokens that fit a regular expression, each looked at for itself."""

    pattern: str

    kind = "regex"

    def truth(self, session: Session) -> Truth:
        ids, words, n_quick = session.facts.occurring
        fits = np.flatnonzero(Bounded(self.pattern).fits(words, n_quick))
        note = f"{self} fits {len(fits):,} of the {len(words):,} tokens that occur"
        note += f" ({names([words[i] for i in fits[:SHOWN]], len(fits))})" if len(fits) else ""
        return Truth(where_ids(session, ids[fits]), session.facts.everything, note)

    def value(self) -> str:
        return in_quotes(self.pattern)


@dataclass(frozen=True)
class Phrase(OnPlaces):
    """The tokens on which matches of a regular expression in the running text end."""

    pattern: str

    kind = "phrase"

    def truth(self, session: Session) -> Truth:
        text = session.facts.running
        ends = np.array(Bounded(self.pattern).ends(text.texts, text.starts), np.int64)
        holds, n = np.zeros(session.index.n_tokens, bool), len(ends)
        holds[text.places[text.ends.searchsorted(ends)]] = True
        part = "" if len(text.texts) == text.n_documents else (
            f" in {len(text.texts):,} of the {text.n_documents:,} documents, evenly spaced: no more are read")
        return Truth(holds, text.population, f"{self} fits {n:,} time{'' if n == 1 else 's'}{part}")

    def value(self) -> str:
        return in_quotes(self.pattern)


def in_quotes(pattern: str) -> str:
    """A regular expression as it is typed in a query: its backslashes stay as they are."""
    inside, escaped = [], False
    for sign in pattern:
        inside.append("\\" + sign if sign == '"' and not escaped else sign)
        escaped = sign == "\\" and not escaped
    return f'"{"".join(inside)}"'


@dataclass(frozen=True)
class Concept(OnPlaces):
    """A labelled concept."""

    name: str

    kind = "concept"

    def truth(self, session: Session) -> Truth:
        column = known_concept(self.name, session.names)
        return Truth(session.labels[:, column].numpy() & ~session.index._places["is_bos"], session.facts.everything)

    def find(self, session: Session) -> Found:
        table = session.concepts
        if table is None and session.labels is None:
            raise InputError("concepts are not known here. Give search(…, concepts=concept_table(…)), or labels= and "
                             "the names of its columns as concepts=.")
        if table is None:
            return super().find(session)
        c = known_concept(self.name, table.concepts)
        scores = Scores(table.train.hits[:, c], table.train.fired[:, 0], table.train.wanted[0, c])
        f1, n_train = scores.f1, np.count_nonzero(session.facts.split.train)
        beats = scores.hits * n_train > scores.fired * float(scores.wanted)
        return Found((f1 >= self.bar) & beats, f1, self._too_low(f1))

    def details(self, session: Session, found: Found, latents: np.ndarray) -> dict[str, np.ndarray]:
        table = session.concepts
        if table is None:
            return super().details(session, found, latents)
        c = table.concepts.index(self.name)
        scores = Scores(table.test.hits[latents, c], table.test.fired[latents, 0], table.test.wanted[0, c])
        lookup = np.full(len(latents), float(table.lookup.f1[c]))
        return {"precision": scores.precision, "recall": scores.recall, "f1": scores.f1, "lookup_f1": lookup,
                "train_f1": found.score[latents]}

    def evidence(self, row: dict[str, Any]) -> str:
        if "lookup_f1" not in row:
            return super().evidence(row)
        return (f"F1 {row['f1']:.2f}, precision {row['precision']:.2f}, recall {row['recall']:.2f}; looking the token "
                f"up has F1 {row['lookup_f1']:.2f}")

    def value(self) -> str:
        return self.name if self.name.replace("_", "").isalnum() else quoted(self.name)


def known_concept(name: str, known: Sequence[str]) -> int:
    """The column of a concept."""
    if name not in known:
        raise unknown_name("concept", name, known)
    return list(known).index(name)
