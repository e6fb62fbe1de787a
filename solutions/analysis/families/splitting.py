"""Splitting: what becomes of a narrow SAE's latents in a wider one.

Bricken et al. 2023 ("Feature Splitting") found that latents of a small dictionary come back in a larger one as several
more special latents with similar directions. Direction alone cannot show it: in a few hundred dimensions some latent
is similar to any. So the two SAEs read the same tokens, and a child has to fire where its parent does.

Two dictionaries of the *same* width differ as well, because training ends elsewhere each time (Paulo & Belrose
2025). What is said of a wider one has to be more than that: give `splits` two SAEs of one width, for a control.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_array
from torch import Tensor

from solutions.analysis.coactivation import blocks
from solutions.analysis.matching import cosines
from solutions.analysis.shapes import check_axes
from solutions.errors import InputError, check_count, unknown_name

if TYPE_CHECKING:
    from solutions.analysis.index import FeatureIndex

#: Cells of the two tables that are compared, narrow latents times wide ones: two gigabytes.
LARGEST = 1 << 27

KINDS = ("one", "split", "merged", "gone", "new")


class Splits(NamedTuple):
    """Which latents of the narrow SAE are which of the wide one."""

    table: pd.DataFrame  #: narrow, wide, cosine, share_of_narrow, share_of_wide, kind
    n_narrow: int        #: latents of the narrow SAE that are alive on these tokens
    n_wide: int          #: latents of the wide SAE that are

    def counts(self) -> pd.DataFrame:
        """For each kind: rows, narrow and wide (latents it concerns), and what share of their SAE's live latents."""
        rows = []
        for kind in KINDS:
            part = self.table[self.table["kind"] == kind]
            narrow, wide = (part.loc[part[side] >= 0, side].nunique() for side in ("narrow", "wide"))
            rows.append((kind, len(part), narrow, wide, narrow / max(self.n_narrow, 1), wide / max(self.n_wide, 1)))
        columns = ["kind", "rows", "narrow", "wide", "share_of_narrow_sae", "share_of_wide_sae"]
        return pd.DataFrame(rows, columns=columns)

    def children(self, narrow: int) -> pd.DataFrame:
        """The rows of one narrow latent, the child with the largest share of it first.

        Args:
            narrow: its number.

        Raises:
            InputError: it is dead on these tokens, or does not exist.
        """
        rows = self.table[self.table["narrow"] == narrow]
        if not len(rows):
            raise InputError(f"narrow latent {narrow} is dead on these tokens, or does not exist.")
        return rows.sort_values("share_of_narrow", ascending=False, kind="stable").reset_index(drop=True)

    def of_kind(self, kind: str) -> pd.DataFrame:
        """The rows of one kind.

        Args:
            kind: "one", "split", "merged", "gone" or "new".

        Raises:
            InputError: there is no such kind.
        """
        if kind not in KINDS:
            raise unknown_name("kind", kind, KINDS)
        return self.table[self.table["kind"] == kind].reset_index(drop=True)


def splits(
    narrow: FeatureIndex, wide: FeatureIndex, narrow_dec: Tensor, wide_dec: Tensor, *,
    alike: float = 0.5, inside: float = 0.5, part: float = 0.05, least: int = 20,
) -> Splits:
    """Which latents of a narrow SAE came back whole, in pieces, together with others, or not at all.

    Two latents are related when their directions have a cosine of at least `alike` and one of them fires mostly where
    the other does: a share of at least `inside` of its activation. By the relations of a latent its kind is

    - "one": one narrow latent and one wide latent;
    - "split": the narrow latent has two or more wide ones inside it, each with at least `part` of its activation;
    - "merged": the wide latent has two or more narrow ones inside it;
    - "gone": a narrow latent without relation (wide is -1);
    - "new": a wide latent without relation (narrow is -1).

    Args:
        narrow, wide: feature indexes of two SAEs on the same tokens.
        narrow_dec, wide_dec: their decoders, [n_latents, d_in] each.
        alike, inside, part: see above.
        least: latents active on fewer tokens than this are left out.

    Returns:
        A table with narrow, wide, cosine, share_of_narrow (of the narrow latent's summed activation, what falls on
        tokens on which the wide one is active), share_of_wide (the same the other way round) and kind. Without a
        relation the three numbers are those of the latent that comes closest by direction.

    Raises:
        InputError: the indexes are of different tokens, or the decoders do not fit.
    """
    _check(narrow, wide, narrow_dec, wide_dec)
    narrow_live, wide_live = (np.flatnonzero(i.n_active.numpy() >= check_count(least, "least")) for i in (narrow, wide))
    along = cosines(narrow_dec, wide_dec).double().numpy()
    of_narrow = overlap(narrow, wide)
    of_wide = overlap(wide, narrow).T
    live = np.zeros_like(along, dtype=bool)
    live[np.ix_(narrow_live, wide_live)] = True
    similar = live & (along >= alike)
    child = similar & (of_wide >= inside) & (of_narrow >= part)   # the wide one inside the narrow one
    parent = similar & (of_narrow >= inside) & (of_wide >= part)  # the narrow one inside the wide one
    related = child | parent
    split, merged = child.sum(1) >= 2, parent.sum(0) >= 2

    rows = [(i, j, "split" if child[i, j] and split[i] else "merged" if parent[i, j] and merged[j] else "one")
            for i, j in np.argwhere(related).tolist()]
    near = np.where(live, along, -np.inf)
    gone = [(i, int(near[i].argmax()), "gone") for i in narrow_live.tolist() if not related[i].any()]
    new = [(int(near[:, j].argmax()), j, "new") for j in wide_live.tolist() if not related[:, j].any()]
    table = pd.DataFrame(rows + gone + new, columns=["narrow", "wide", "kind"])
    i, j = table["narrow"].to_numpy(int), table["wide"].to_numpy(int)
    table.insert(2, "cosine", along[i, j])
    table.insert(3, "share_of_narrow", of_narrow[i, j])
    table.insert(4, "share_of_wide", of_wide[i, j])
    table.loc[table["kind"] == "gone", "wide"] = -1
    table.loc[table["kind"] == "new", "narrow"] = -1
    return Splits(table, len(narrow_live), len(wide_live))


def overlap(one: FeatureIndex, other: FeatureIndex) -> np.ndarray:
    """[latents of one, latents of other]: of a latent's summed activation, the share on which the other is active."""
    starts, tokens = one._by_latent["starts"], one._by_latent["tokens"]
    mass = csr_array((one._by_latent["values"].astype(np.float64), tokens, starts), shape=(one.n_latents, one.n_tokens))
    active = csr_array((np.ones(other.nnz), other._by_token["latents"], other._by_token["starts"]),
                       shape=(other.n_tokens, other.n_latents))
    shared = np.concatenate([product.toarray() for _, product in blocks(mass, active)])
    total = mass.sum(1)
    return shared / np.where(total > 0, total, 1)[:, None]


def _check(narrow: FeatureIndex, wide: FeatureIndex, narrow_dec: Tensor, wide_dec: Tensor) -> None:
    if narrow.n_tokens != wide.n_tokens or not torch.equal(narrow.ids, wide.ids):
        raise InputError(f"the indexes are of different tokens ({narrow.n_tokens} and {wide.n_tokens} of them). Build "
                         "both from one store.")
    if narrow.n_latents * wide.n_latents > LARGEST:
        raise InputError(f"{narrow.n_latents} against {wide.n_latents} latents are too many to compare all with all.")
    for name, index, directions in (("narrow_dec", narrow, narrow_dec), ("wide_dec", wide, wide_dec)):
        check_axes(name, directions, "n_latents", "d_in")
        if len(directions) != index.n_latents:
            raise InputError(f"{name} has {len(directions)} directions, its index {index.n_latents} latents.")
