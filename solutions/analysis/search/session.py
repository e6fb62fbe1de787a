"""What a search reads beside the query: the index, and some facts about it that are worked out once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary, proxy

import numpy as np
from torch import Tensor

from solutions.analysis.index.concepts import ConceptTable
from solutions.analysis.latents.blocks import Split, blocks, split_of_index
from solutions.analysis.search.regexes import is_quick
from solutions.errors import InputError

if TYPE_CHECKING:
    from solutions.analysis.index import FeatureIndex

#: Entries of the index that all terms of a query together read to rank latents: 6,000 tokens with 50 latents each.
RANKING = 300_000
#: Entries that are read to report on the latents that are shown.
REPORTING = 400_000
#: Characters of running text that a `phrase` is looked for in: documents evenly spaced, until there are so many.
CHARACTERS = 250_000


class Population(NamedTuple):
    """The tokens that detectors are ranked on and those they are measured on."""

    split: Split
    fired: np.ndarray  # [n_latents] int64: tokens of the train split on which each latent is active


class RunningText(NamedTuple):
    """Documents as text, and which token of the index each character belongs to."""

    texts: list[str]        # one for each document
    starts: list[int]       # characters in the documents before each
    ends: np.ndarray        # [tokens] int64: characters up to the end of each token, ascending
    places: np.ndarray      # [tokens] int64: where the tokens stand in the index
    population: Population  # these tokens only
    n_documents: int        # in the whole index


class Occurring(NamedTuple):
    """The tokens that occur in an index: first those that are quick to search, both parts by id."""

    ids: np.ndarray   # [m]
    words: list[str]  # the same as text
    n_quick: int      # see `regexes.is_quick`


class Facts:
    """What searches of one index need again and again, worked out when it is first asked for."""

    def __init__(self, index: FeatureIndex):
        self.index = proxy(index)  # a plain reference would keep the index alive for ever, see `facts_of`

    @cached_property
    def split(self) -> Split:
        """The train and the test tokens."""
        return split_of_index(self.index)

    @cached_property
    def everything(self) -> Population:
        """All tokens of the index. It takes one pass over the entries."""
        split = self.split
        if split.whole:
            return Population(split, self.index.n_active.numpy())
        train = split.train[:, None].astype(np.float64)
        return Population(split, np.concatenate([block.sums(train)[:, 0] for block in blocks(self.index)]).astype(int))

    @cached_property
    def occurring(self) -> Occurring:
        """The tokens that occur."""
        ids = np.unique(self.index._places["ids"][~self.index._places["is_bos"]])
        quick = np.array([is_quick(self.index.vocabulary[i]) for i in ids.tolist()], bool)
        ids = np.concatenate([ids[quick], ids[~quick]])
        return Occurring(ids, [self.index.vocabulary[i] for i in ids.tolist()], int(quick.sum()))

    @cached_property
    def running(self) -> RunningText:
        """Evenly spaced documents, about `CHARACTERS` of them."""
        index = self.index
        lengths = np.array([len(token) for token in index.vocabulary])
        begins, ids = index._bounds, index._places["ids"]
        n = len(begins) - 1
        per_document = max(1.0, float(lengths[ids[~index._places["is_bos"]]].sum()) / n)
        chosen = np.unique(np.linspace(0, n - 1, min(n, max(1, int(CHARACTERS / per_document)))).astype(int))
        texts, places = [], []
        for d in chosen.tolist():
            first, last = int(begins[d]), int(begins[d + 1])
            first += int(index._places["is_bos"][first])
            texts.append("".join(index.text(first, last)))
            places.append(np.arange(first, last))
        where = np.concatenate(places)
        sizes = np.array([len(text) for text in texts])
        return RunningText(texts, (np.cumsum(sizes) - sizes).tolist(), np.cumsum(lengths[ids[where]]), where,
                           self._only(where, len(chosen) == n), n)

    def _only(self, where: np.ndarray, everything: bool) -> Population:
        if everything:
            return self.everything
        inside = np.zeros(self.index.n_tokens, bool)
        inside[where] = True
        train, test = (part & inside for part in self.split[:2])
        whole = self.split.whole or not (train.any() and test.any())
        if whole:
            train = test = inside
        latents, _ = self.index.entries(np.flatnonzero(train), values=False)
        return Population(Split(train, test, whole), np.bincount(latents, minlength=self.index.n_latents))


_KNOWN: WeakKeyDictionary[FeatureIndex, Facts] = WeakKeyDictionary()


def facts_of(index: FeatureIndex) -> Facts:
    """The facts of an index; they are kept as long as the index is."""
    if index not in _KNOWN:
        _KNOWN[index] = Facts(index)
    return _KNOWN[index]


#: Reads a typed text: its tokens (BOS left out) and their latent activations [tokens, latents].
Reader = Callable[[str], tuple[Sequence[str], Tensor]]


@dataclass
class Session:
    """One search: the index and what was given beside it."""

    index: FeatureIndex
    concepts: ConceptTable | None = None
    names: Sequence[str] = ()       # of the label columns
    labels: Tensor | None = None    # [n_tokens, concepts] bool
    read: Reader | None = None
    most: int = RANKING             # entries that one term may read to rank latents
    shown: int = 20                 # latents that are reported on

    @property
    def facts(self) -> Facts:
        """Of the index."""
        return facts_of(self.index)

    def token_ids(self, word: str) -> list[int]:
        """The tokens that a word stands for: itself, and unless it begins with a space the same with one before it."""
        ids = self.index._ids_of
        forms = [word] if word[:1].isspace() else [word, " " + word]
        found = [ids[form] for form in forms if form in ids]
        if not found:
            raise self._no_token(word)
        return found

    def _no_token(self, word: str) -> InputError:
        """A full comparison with 50,000 tokens takes a second, so only what begins alike is compared."""
        from difflib import get_close_matches

        bare = word.strip()
        alike = [token for token in self.index._ids_of if token.strip().lower()[:2] == bare.lower()[:2] and bare]
        close = [token for token in alike if token.strip().lower() == bare.lower()]
        close += [t for t in get_close_matches(word, alike[:5_000], 3, 0.6) if t not in close]
        these = f"; these are: {', '.join(repr(token) for token in close[:3])}" if close else ""
        hint = "" if close and " " not in bare else (
            f" What takes several tokens is found in the running text: phrase:\"{bare or '…'}\", or by_regex(…, "
            "running=True).")
        return InputError(f"{word!r} is not a token of this vocabulary{these}.{hint}")
