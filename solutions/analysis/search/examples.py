"""The latents that some places have in common and others have not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import false_discovery_control
from torch import Tensor

from solutions.analysis.latents.enrichment import log_tail
from solutions.analysis.search.places import hits_of
from solutions.analysis.search.queries import Found, Term
from solutions.analysis.search.session import Session
from solutions.errors import InputError

#: Share of false discoveries among the latents that are found.
ALPHA = 0.05


class Enrichment(NamedTuple):
    """How often each latent is active on the examples and on what they are compared with; [n_latents] each."""

    share: np.ndarray    # of the examples
    against: np.ndarray  # of the other places
    q: np.ndarray        # Benjamini and Hochberg's corrected p-value of "active more often on the examples"
    n_looked: int        # examples looked at


@dataclass(frozen=True, eq=False)
class Examples(Term):
    """Places that have something in common, against others."""

    places: Tensor = field(repr=False)
    against: Tensor | None = field(default=None, repr=False)

    kind = "examples"
    default = ALPHA
    measure = "difference of the shares active"

    def find(self, session: Session) -> Found:
        places = chosen_places(session, self.places, "places")
        other = None
        if self.against is not None:
            other = chosen_places(session, self.against, "against")
            other = other[~np.isin(other, places)]
            if not len(other):
                raise InputError("against: all of these places are among the examples, so there is nothing to compare "
                                 "with. Give other ones, or leave against out to compare with the whole text.")
        found = enrichment(session, places, other)
        difference = np.maximum(found.share - found.against, 0.0)
        best = int(found.q.argmin())
        why = (f"no latent is active significantly more often on these {len(places):,} examples (q ≤ {self.bar:g}); "
               f"the nearest to it, {best}, has q = {found.q[best]:.2g}")
        return Found((found.q <= self.bar) & (difference > 0), difference, why, kept=found)

    def details(self, session: Session, found: Found, latents: np.ndarray) -> dict[str, np.ndarray]:
        kept = found.kept
        return {"share": kept.share[latents], "share_against": kept.against[latents], "q": kept.q[latents]}

    def evidence(self, row: dict[str, Any]) -> str:
        return (f"active on {row['share']:.0%} of the examples and {row['share_against']:.2%} of the others, "
                f"q = {row['q']:.1g}")

    def value(self) -> str:
        against = "" if self.against is None else f" against {_size(self.against):,}"
        return f"[{_size(self.places):,} places{against}]"


def enrichment(session: Session, places: np.ndarray, against: np.ndarray | None) -> Enrichment:
    """Compare two sets of places, or one set with the whole text, latent by latent (one-sided hypergeometric tests).

    Of very many places evenly spaced ones are looked at, and the tests count only those.
    """
    index = session.index
    both = session if against is None else Session(index, most=session.most // 2)
    hits, weight = hits_of(both, places)
    n = round(len(places) / weight)
    if against is None:
        active, total = index.n_active.numpy(), index.n_content
        # What the examples contribute to the whole text is taken off again.
        other = np.maximum(active - hits * weight, 0) / max(total - len(places), 1)
    else:
        there, weight = hits_of(both, against)
        m = round(len(against) / weight)
        active, total, other = hits + there, n + m, there / m
    p = np.ones(index.n_latents)
    more = (hits > 0) & (hits * float(total) > active * float(n))  # the others cannot be significant: their p stays 1
    p[more] = upper_tail(hits[more], total, active[more], n)
    alive = active > 0
    q = np.ones(index.n_latents)
    if alive.any():
        q[alive] = false_discovery_control(p[alive].clip(0, 1))
    return Enrichment(hits / n, other, q, n)


def upper_tail(x: np.ndarray, total: int, marked: np.ndarray, drawn: int) -> np.ndarray:
    """P(at least x marked ones among `drawn` of `total`, of which `marked` are), for x above the expected number."""
    return np.exp(log_tail(x, marked, drawn, total))


def chosen_places(session: Session, given: Any, name: str) -> np.ndarray:
    """Places as numbers, ascending, each once, BOS left out; they may be given as numbers or as a mask."""
    n, given = session.index.n_tokens, torch.as_tensor(given)
    if given.ndim != 1 or given.is_floating_point():
        raise InputError(f"{name}: expected places as whole numbers [m] or a mask of bool [{n}], got {given.dtype} of "
                         f"shape {list(given.shape)}.")
    if given.dtype == torch.bool:
        if len(given) != n:
            raise InputError(f"{name}: expected a mask with one entry for each of the index's {n} places, got "
                             f"{len(given)}.")
        given = given.nonzero().flatten()
    found = np.unique(given.cpu().numpy())
    if len(found) and not 0 <= found[0] <= found[-1] < n:
        raise InputError(f"{name}: expected places from 0 to {n - 1}, got {found[0]} to {found[-1]}.")
    found = found[~session.index._places["is_bos"][found]]
    if not len(found):
        raise InputError(f"{name}: there is no place in it, BOS left out. Give at least one.")
    return found


def _size(given: Any) -> int:
    given = torch.as_tensor(given)
    return int(given.sum()) if given.dtype == torch.bool else given.numel()
