"""Terms that are about latents themselves, and about a text that is read: no token of the index has to be looked up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from solutions.analysis.index import reports
from solutions.analysis.index.read import SparseRows
from solutions.analysis.search.queries import Found, Term, quoted
from solutions.analysis.search.session import REPORTING, Session
from solutions.errors import InputError, check_text


def spread(session: Session, latents: np.ndarray, values: np.ndarray) -> np.ndarray:
    """[n_latents]: these values at these latents, 0 elsewhere."""
    everywhere = np.zeros(session.index.n_latents)
    everywhere[latents] = values
    return everywhere


# ---- a text


@dataclass(frozen=True, eq=False)
class Text(Term):
    """A text that is read: typed, a document of the index, or latent activations."""

    text: str | int | Tensor | SparseRows = field(repr=False)
    words: Sequence[str] | None = None

    measure = "surprise in bits"

    @property
    def kind(self) -> str:
        return "document" if isinstance(self.text, int) else "text"

    def find(self, session: Session) -> Found:
        words, features = self._read(session)
        table = session.index.top_of_text(features, session.index.n_latents)
        columns = {name: column.to_numpy() for name, column in table.items()}
        where = columns.pop("latent")
        score, active = (spread(session, where, values) for values in (columns["surprise"], np.ones(len(where))))
        why = "no latent is active anywhere in it" if not len(where) else (
            f"no latent surprises by {self.bar:g} bits; the most surprising, {where[0]}, does by {score.max():.1f}")
        rows = dict(zip(where.tolist(), range(len(where)), strict=True))
        return Found((active > 0) & (score >= self.bar), score, why, kept=(columns, rows, words))

    def _read(self, session: Session) -> tuple[Sequence[str] | None, Any]:
        if isinstance(self.text, int):
            start, stop = session.index.span(self.text)
            return session.index.text(start, stop), self.text
        if not isinstance(self.text, str):
            return self.words, self.text
        if session.read is None:
            raise InputError("a text has to be read by the model first. Give search(…, read=text_reader(model, sae, "
                             "target)), or the text's latent activations: by_text(encode(sae, acts)).")
        words, features, *_ = session.read(check_text(self.text))
        return words, features

    def details(self, session: Session, found: Found, latents: np.ndarray) -> dict[str, np.ndarray]:
        columns, rows, words = found.kept
        at = np.array([rows.get(j, -1) for j in latents.tolist()], np.int64)
        here = {name: np.where(at >= 0, column[at], np.nan) if len(column) else np.full(len(at), np.nan)
                for name, column in columns.items()}
        rare = [_at_least(session, j, value) for j, value in zip(latents.tolist(), here["activation"], strict=True)]
        where = [None if np.isnan(i) else (int(i) if words is None else words[int(i)]) for i in here["token"]]
        return {"activation": here["activation"], "of_maximum": here["of_maximum"], "on": np.array(where, object),
                "n_active": here["n_active"], "one_in": np.array(rare), "surprise": here["surprise"]}

    def evidence(self, row: dict[str, Any]) -> str:
        on = f"token {row['on']}" if isinstance(row["on"], int) else repr(row["on"])
        rare = "stronger than anywhere in the index" if np.isinf(row["one_in"]) else (
            f"as strong as that on 1 token in {row['one_in']:,.0f}")
        return f"{row['activation']:.2f} on {on}, {rare}"

    def value(self) -> str:
        if isinstance(self.text, int):
            return str(self.text)
        if isinstance(self.text, str):
            return quoted(self.text)
        n = len(self.text.starts) - 1 if isinstance(self.text, SparseRows) else len(self.text)
        return f"[{n} tokens]"


def _at_least(session: Session, latent: int, value: float) -> float:
    """Of how many tokens of the index, on average, the latent is as strong as that on one; NaN for an unknown value."""
    index = session.index
    first, last = index._by_latent["starts"][latent:latent + 2].tolist()
    step = max(1, -(-(last - first) * max(session.shown, 1) // REPORTING))
    n = step * np.count_nonzero(index._by_latent["values"][first:last:step] >= np.float32(value))
    return np.nan if np.isnan(value) else (math.inf if n == 0 else index.n_content / n)


# ---- other latents


@dataclass(frozen=True)
class Like(Term):
    """Latents whose decoder direction is similar."""

    latent: int

    kind = "like"
    measure = "decoder cosine"

    def find(self, session: Session) -> Found:
        table = session.index.nearest(self.latent, session.index.n_latents)
        cosine = spread(session, table["latent"].to_numpy(), table["cosine"].to_numpy())
        kept = spread(session, table["latent"].to_numpy(), np.ones(len(table))) > 0
        why = f"no latent has a cosine of {self.bar:g} with it; the nearest has {cosine.max():.2f}"
        note = f"{self} looks at the {len(table)} nearest latents, which is what the index keeps"
        return Found(kept & (cosine >= self.bar), cosine, why, note, kept=cosine)

    def details(self, session: Session, found: Found, latents: np.ndarray) -> dict[str, np.ndarray]:
        return {"cosine": found.kept[latents]}

    def evidence(self, row: dict[str, Any]) -> str:
        return f"decoder cosine {row['cosine']:.2f} with {self.latent}"

    def value(self) -> str:
        return str(self.latent)


@dataclass(frozen=True)
class With(Term):
    """Latents that are active on the same tokens."""

    latent: int

    kind = "with"
    default = 0.05
    measure = "Jaccard index"

    def find(self, session: Session) -> Found:
        index = session.index
        where, _ = index.latent(self.latent)
        table = reports.cofiring(index, self.latent, where.numpy(), index.n_latents)
        kept = {name: spread(session, table["latent"], table[name]) for name in ("jaccard", "lift", "n")}
        best = int(kept["jaccard"].argmax())
        why = f"it is never active, latent {self.latent}" if not len(where) else (
            f"no latent shares {self.bar:.0%} of its tokens; the best, {best}, shares {kept['jaccard'][best]:.1%}")
        return Found((kept["jaccard"] >= self.bar) & (kept["n"] > 0) & (kept["lift"] > 1), kept["jaccard"], why,
                     kept=kept)

    def details(self, session: Session, found: Found, latents: np.ndarray) -> dict[str, np.ndarray]:
        return {name: column[latents] for name, column in found.kept.items()}

    def evidence(self, row: dict[str, Any]) -> str:
        return (f"active with {self.latent} on {row['n']:,.0f} tokens, {row['jaccard']:.0%} of those where either is, "
                f"{row['lift']:.3g} × chance")

    def value(self) -> str:
        return str(self.latent)


# ---- logits


@dataclass(frozen=True)
class _Logits(Term):
    """What a latent's decoder direction does to the logit of a token."""

    word: str

    measure = "logits"
    sign, direction = "positive", 1
    verb = "raises"

    def find(self, session: Session) -> Found:
        decoder = session.index._decoder
        if self.sign not in decoder:
            raise InputError("this index was built without an unembedding, so it does not know what a latent does to "
                             "the logits. Build it with build_index(…, unembed=unembedding(model)).")
        ids = session.token_ids(self.word)
        rows, ranks = np.nonzero(np.isin(decoder[self.sign], ids))
        effects = decoder[f"{self.sign}_effect"][rows, ranks].astype(np.float64) * self.direction
        real = effects > 0  # of a small vocabulary even tokens that are lowered are among the 16 raised most
        rows, ranks, effects = rows[real], ranks[real], effects[real]
        order = np.lexsort((ranks, effects))  # of two tokens of one latent the stronger is written last
        effect = spread(session, rows[order], effects[order])
        rank = spread(session, rows[order], ranks[order] + 1)
        n = decoder[self.sign].shape[1]
        why = f"it is among the {n} tokens that a latent {self.verb} most for no latent" if not len(rows) else (
            f"no latent {self.verb} it by {self.bar:g}; the best, {int(effect.argmax())}, does by {effect.max():.2f}")
        note = f"{self} looks at the {n} tokens that each latent {self.verb} most, which is what the index keeps"
        return Found((rank > 0) & (effect >= self.bar), effect, why, note, kept=(effect, rank))

    def details(self, session: Session, found: Found, latents: np.ndarray) -> dict[str, np.ndarray]:
        effect, rank = (column[latents] for column in found.kept)
        seen = np.where(rank > 0, 1.0, np.nan)
        return {"effect": effect * seen * self.direction, "rank": rank * seen}

    def evidence(self, row: dict[str, Any]) -> str:
        return (f"{self.verb} {self.word!r} by {abs(row['effect']):.2f} logits for each unit of activation, "
                f"number {row['rank']:.0f} of all tokens")

    def value(self) -> str:
        return quoted(self.word)


@dataclass(frozen=True)
class Promotes(_Logits):
    """Latents that raise it."""

    kind = "promotes"


@dataclass(frozen=True)
class Suppresses(_Logits):
    """Latents that lower it."""

    kind = "suppresses"
    sign, direction = "negative", -1
    verb = "lowers"


# ---- how often


@dataclass(frozen=True)
class Density(Term):
    """Latents that are active on such a share of the tokens."""

    low: float = 0.0
    high: float = 1.0
    above: bool = False   # more than `low`, not the same
    below: bool = False   # less than `high`, not the same

    kind = "density"
    measure = "nothing"

    def find(self, session: Session) -> Found:
        density = session.index.n_active.numpy() / session.index.n_content
        matches = (density > self.low if self.above else density >= self.low)
        matches &= (density < self.high if self.below else density <= self.high)
        why = (f"no latent has such a density; they go from {density.min():.2g} to {density.max():.2g} (shares of all "
               "tokens)")
        return Found(matches, None, why)

    def value(self) -> str:
        if self.low == self.high:
            return repr(self.low)
        if self.high >= 1 and not self.below:
            return f"{'>' if self.above else '>='}{self.low!r}"
        if self.low <= 0 and not self.above:
            return f"{'<' if self.below else '<='}{self.high!r}"
        return f"{self.low!r}..{self.high!r}"
