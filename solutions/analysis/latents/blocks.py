"""A pass over all entries of an index, some latents at a time; and shuffled latents, as a control."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse

from solutions.errors import InputError, unknown_name

if TYPE_CHECKING:
    from solutions.analysis.index import FeatureIndex

#: Entries that are looked at together. A pass holds a few hundred bytes for each.
AT_ONCE = 1 << 20
#: Parts of an index's text that can be asked for.
SPLITS = ("all", "train", "test")
#: Ways to put a latent somewhere else.
SHUFFLES = ("everywhere", "within documents")


class Block(NamedTuple):
    """The entries of the latents `first` to `last` (not included), one latent after the other."""

    first: int
    last: int
    starts: np.ndarray  # [latents + 1] int64: where each latent's entries begin in the two arrays below
    places: np.ndarray  # [entries] int64, ascending within a latent
    values: np.ndarray  # [entries] float32

    def latents(self) -> np.ndarray:
        """[entries]: to which latent each entry belongs, counted from `first`."""
        return np.repeat(np.arange(self.last - self.first), np.diff(self.starts))

    def sums(self, columns: np.ndarray) -> np.ndarray:
        """What `columns` [n_tokens, k] add up to on each latent's tokens, [latents, k]."""
        ones = np.ones(len(self.places))
        shape = (self.last - self.first, len(columns))
        return sparse.csr_array((ones, self.places, self.starts), shape=shape) @ columns


def blocks(index: FeatureIndex, progress: bool = False) -> Iterator[Block]:
    """All latents of an index in order, about `AT_ONCE` entries at a time, and never less than one latent."""
    from tqdm.auto import tqdm

    starts = index._by_latent["starts"]
    first = 0
    with tqdm(total=index.nnz, desc="latents", unit="entry", unit_scale=True, disable=not progress) as bar:
        while first < index.n_latents:
            last = int(np.searchsorted(starts, starts[first] + AT_ONCE, side="right")) - 1
            last = min(max(last, first + 1), index.n_latents)
            yield block_of(index, first, last)
            bar.update(int(starts[last] - starts[first]))
            first = last


def block_of(index: FeatureIndex, first: int, last: int) -> Block:
    """The entries of a run of latents."""
    starts = index._by_latent["starts"][first:last + 1]
    here = slice(int(starts[0]), int(starts[-1]))
    places = index._by_latent["tokens"][here].astype(np.int64)
    return Block(first, last, starts - starts[0], places, np.array(index._by_latent["values"][here]))


def one_latent(index: FeatureIndex, latent: int) -> Block:
    """The entries of one latent; a number that is none is an InputError."""
    where, values = index.latent(latent)
    return Block(int(latent), int(latent) + 1, np.array([0, len(where)]), where.numpy(), values.numpy())


def strongest_first(row: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The order of entries by row and, within a row, by falling value; equal ones as they stand.

    The bits of positive floats, read as whole numbers, are ordered as the floats are: one sort of one key.
    """
    falling = np.int64(0xFFFFFFFF) - values.view(np.uint32).astype(np.int64)
    return np.argsort(row.astype(np.int64) << 32 | falling, kind="stable")


class Split(NamedTuple):
    """On which tokens something is chosen, and on which it is measured. Without a test split both are all."""

    train: np.ndarray  # [n_tokens] bool, BOS left out
    test: np.ndarray   # [n_tokens] bool, BOS left out
    whole: bool        # there is no split: the two are the same


def split_of_index(index: FeatureIndex) -> Split:
    """The index's train and test tokens, or all tokens twice when one of the two is empty."""
    content, test = ~index.is_bos.numpy(), index.test.numpy()
    train, test = content & ~test, content & test
    whole = not (train.any() and test.any())
    return Split(content, content, True) if whole else Split(train, test, False)


def tokens_of_split(index: FeatureIndex, split: str, instead: str = "or use split='all'.") -> np.ndarray:
    """The tokens of a split, BOS left out.

    Args:
        index: a feature index.
        split: "all", "train" or "test".
        instead: how the message about a split without tokens ends.

    Returns:
        [n_tokens] bool.

    Raises:
        InputError: an unknown split, or one without tokens.
    """
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    content, test = ~index.is_bos.numpy(), index.test.numpy()
    found = content if split == "all" else content & (test == (split == "test"))
    if not found.any():
        raise InputError(f"the index has no tokens in the {split} split. Harvest with a test_share between 0 and 1, "
                         f"{instead}")
    return found


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above / below, [n]; NaN where there is nothing to divide by."""
    return np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)


# ------------------------------------------------------------------------------------------------ controls

class Documents(NamedTuple):
    """Where each token's document begins (BOS left out) and how many tokens it has."""

    number: np.ndarray  # [n_tokens] int64: 0, 1, 2, … in the order of the places
    begin: np.ndarray   # [documents] int64: place of the first token that is not BOS
    length: np.ndarray  # [documents] int64: tokens, BOS left out; at least 1

    def rotated(self, places: np.ndarray, dice: np.random.Generator) -> np.ndarray:
        """The same places, moved on within their documents by a random stretch, and round the end.

        Every document keeps as many as it had, and neighbours stay neighbours; only the place in the text is
        lost.
        """
        number = self.number[places]
        begin, length = self.begin[number], self.length[number]
        by = dice.integers(0, self.length)[number]
        return begin + (places - begin + by) % length


def documents_of(index: FeatureIndex) -> Documents:
    """The documents of an index as they lie on its places."""
    document, bos = index._places["document"], index._places["is_bos"]
    number = np.cumsum(np.diff(document, prepend=document[:1]) != 0)
    begins = np.flatnonzero(np.diff(number, prepend=-1))
    begin = begins + bos[begins]
    return Documents(number, begin, np.maximum(np.append(begins[1:], len(document)) - begin, 1))


def shuffled(index: FeatureIndex, block: Block, how: str, dice: np.random.Generator) -> Block:
    """The block with every latent active on other tokens, as many of them: what chance looks like.

    how: "everywhere", anywhere in the text; "within documents", moved on within each document, so that a
    latent that follows a kind of text still does.
    """
    if how not in SHUFFLES:
        raise unknown_name("shuffle", how, SHUFFLES)
    if how == "within documents":
        places = documents_of(index).rotated(block.places, dice)
    else:
        content = np.flatnonzero(~index._places["is_bos"])
        n = np.diff(block.starts)
        drawn = [dice.choice(content, m, replace=False) for m in n.tolist()]
        places = np.concatenate([*drawn, np.empty(0, np.int64)])
    order = np.lexsort((places, block.latents()))
    return block._replace(places=places[order])
