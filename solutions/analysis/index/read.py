"""Reading a feature index: which latents are active on a token, on which tokens a latent is active."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from solutions.analysis.index import reports
from solutions.analysis.index.identity import check_origin, sae_identity, store_identity
from solutions.analysis.index.layout import open_arrays, read_manifest, verify_files
from solutions.analysis.index.sparse import SparseRows, entries_of
from solutions.analysis.pages import (
    Example,
    FeaturePage,
    Interval,
    different_examples,
    in_interval,
    in_random_order,
    interval_bounds,
    page_of,
    strongest_first,
)
from solutions.errors import InputError, check_count, unknown_name, whole_number

if TYPE_CHECKING:
    from sae_lens import SAE

    from solutions.analysis.index.concepts import ConceptTable


class FeatureIndex:
    """The sparse activations of all latents of an SAE on a store's tokens, from disk.

    Args:
        path: the folder that `build_index` has made.
        store: the store it was made from, to be sure that the two belong together. Reading does not need it.
        verify: whether to compare all checksums, which reads every file once (a second or so for a gigabyte). The sizes
            and the manifest are looked at in any case.

    A place is a token's number in the store, BOS counted. A document is a text; a position is counted from its
    beginning, BOS included. Values are activations in the SAE's own units; only those above zero are kept.

    In the methods `j` is a latent's number, `i` a place, `d` a document's number, `k` how many rows or examples are
    wanted at most, `before` and `after` how many tokens are shown around the one in question, and the same `seed`
    draws the same examples.

    Raises:
        InputError: there is no index here, or it belongs to another store. A method: for a number that cannot be.
        DamagedFile: a file is missing, cut off or altered; the message names it.
    """

    def __init__(self, path: str | os.PathLike[str], store: Any = None, verify: bool = True):
        self.path = Path(path)
        self.manifest = read_manifest(self.path)
        if store is not None:
            check_origin(self.path, self.manifest, {"store": store_identity(store)})
        if verify:
            verify_files(self.path, self.manifest)
        self._by_token, self._by_latent, self._places, self._decoder = (
            open_arrays(self.path / f"{name}.safetensors")
            for name in ("by_token", "by_latent", "places", "decoder")
        )
        sizes = ("n_tokens", "n_content", "n_latents", "n_documents", "nnz")
        self.n_tokens, self.n_content, self.n_latents, self.n_documents, self.nnz = (
            int(self.manifest[name]) for name in sizes
        )
        self.hook: str = self.manifest["hook"]

    def __repr__(self) -> str:
        return (f"FeatureIndex({self.n_latents:,} latents × {self.n_content:,} tokens, {self.nnz:,} activations, "
                f"hook {self.hook!r})")

    def check_sae(self, sae: SAE) -> None:
        """Refuse `sae` if it is another than the one the index was made with."""
        check_origin(self.path, self.manifest, {"sae": sae_identity(sae)})

    # ------------------------------------------------------------------------------ what the tokens are

    @cached_property
    def ids(self) -> Tensor:
        """[n_tokens] int64 token ids."""
        return torch.from_numpy(self._places["ids"].astype(np.int64))

    @cached_property
    def is_bos(self) -> Tensor:
        """[n_tokens] bool: the BOS tokens, on which nothing is counted."""
        return torch.from_numpy(np.array(self._places["is_bos"]))

    @cached_property
    def test(self) -> Tensor:
        """[n_tokens] bool: the tokens of the store's test split."""
        return torch.from_numpy(np.array(self._places["test"]))

    @cached_property
    def vocabulary(self) -> list[str]:
        """Every token as text. It may be set, when the index was built without."""
        file = self.path / "vocabulary.json"
        if not file.is_file():
            raise InputError("this index was built without a vocabulary, so it cannot show tokens as text. Set "
                             "index.vocabulary = str_tokens(model, torch.arange(model.cfg.d_vocab)).")
        return json.loads(file.read_text(encoding="utf-8"))

    @cached_property
    def _bounds(self) -> np.ndarray:
        """Where the documents begin, and at the end n_tokens."""
        begins = np.flatnonzero(np.diff(self._places["document"], prepend=-1))
        return np.append(begins, self.n_tokens)

    def text(self, start: int, stop: int) -> list[str]:
        """The tokens from place `start` up to `stop`, as strings."""
        return [self.vocabulary[i] for i in self._places["ids"][start:stop].tolist()]

    def place(self, i: int) -> tuple[int, int]:
        """The document and the position that stand at place i."""
        return int(self._places["document"][i]), int(self._places["position"][i])

    # ------------------------------------------------------------------------- one latent, one token

    def latent(self, j: int) -> tuple[Tensor, Tensor]:
        """Where latent j is active (places [m] int64, ascending) and how strongly ([m] float32)."""
        where, values = self._latent(j)
        return torch.from_numpy(where), torch.from_numpy(values)

    def _latent(self, j: int) -> tuple[np.ndarray, np.ndarray]:
        j = self._checked(j, "latent", self.n_latents)
        here = slice(*self._by_latent["starts"][j:j + 2].tolist())
        return self._by_latent["tokens"][here].astype(np.int64), np.array(self._by_latent["values"][here])

    def token(self, i: int) -> tuple[Tensor, Tensor]:
        """The latents active on the token at place i ([m] int64, ascending) and how strongly ([m] float32)."""
        i = self._checked(i, "place", self.n_tokens)
        rows = self.tokens(i, i + 1)
        return rows.latents, rows.values

    def tokens(self, start: int, stop: int) -> SparseRows:
        """The latents active on the tokens from place `start` up to `stop`."""
        if not 0 <= start < stop <= self.n_tokens:
            raise InputError(f"expected places 0 <= start < stop <= {self.n_tokens}, got {start} and {stop}.")
        starts = self._by_token["starts"][start:stop + 1]
        here = slice(int(starts[0]), int(starts[-1]))
        latents = torch.from_numpy(self._by_token["latents"][here].astype(np.int64))
        values = torch.from_numpy(np.array(self._by_token["values"][here]))
        return SparseRows(torch.from_numpy(starts - starts[0]), latents, values, self.n_latents)

    def document(self, d: int) -> SparseRows:
        """The latents active on the tokens of document d, its BOS (on which there are none) included."""
        return self.tokens(*self.span(d))

    def span(self, d: int) -> tuple[int, int]:
        """The places of document d: the first one, and the one after the last."""
        begins = self._bounds[:-1]
        k = np.flatnonzero(self._places["document"][begins] == d)
        if not len(k):
            raise InputError(f"document: expected one of the store's {self.n_documents}, got {d}.")
        return int(begins[k[0]]), int(self._bounds[k[0] + 1])

    def entries(self, places: np.ndarray, values: bool = True) -> tuple[np.ndarray, np.ndarray | None]:
        """The entries of any set of places, one token after the other: (latents, values).

        Args:
            places: [m] int, in any order.
            values: False leaves them out and gives (latents, None).
        """
        starts = self._by_token["starts"]
        first = starts[places]
        n = starts[places + 1] - first
        if len(n) and (n == n[0]).all():  # as in a TopK SAE: half the arithmetic
            at = (first[:, None] + np.arange(n[0])).ravel()
        else:
            at = np.repeat(first - (np.cumsum(n) - n), n) + np.arange(n.sum())
        return self._by_token["latents"][at], self._by_token["values"][at] if values else None

    @staticmethod
    def _checked(value: int, name: str, n: int) -> int:
        number = whole_number(value)
        if number is None or not 0 <= number < n:
            raise InputError(f"{name}: expected a whole number from 0 to {n - 1}, got {value!r}.")
        return number

    # ----------------------------------------------------------------------------- one latent in numbers

    @cached_property
    def n_active(self) -> Tensor:
        """[n_latents] int64: on how many tokens each latent is active."""
        return torch.from_numpy(np.diff(self._by_latent["starts"]))

    def density(self) -> Tensor:
        """[n_latents]: the share of tokens, BOS left out, on which each latent is active."""
        return (self.n_active.double() / self.n_content).float()

    def maximum(self) -> Tensor:
        """[n_latents]: the strongest activation of each latent, 0 for a dead one."""
        return torch.from_numpy(np.array(self._by_latent["maximum"]))

    def histogram(self, j: int, n_bins: int = 20) -> tuple[Tensor, Tensor]:
        """Counts of a latent's activations between 0 and its maximum, and the bins' edges: `n_bins` and one
        more.
        """
        _, values = self.latent(j)
        return torch.histogram(values, n_bins, range=(0.0, float(values.max()) if len(values) else 1.0))

    def intervals(self, j: int, n: int = 4) -> list[Interval]:
        """`n` intervals of activation with equally many active tokens each, strongest first, without examples.

        Equal ends merge, so there may be fewer; a dead latent has none.
        """
        _, values = self.latent(j)
        bounds = interval_bounds(values, n) if len(values) else []
        return [Interval(low, high, len(in_interval(values, low, high)), []) for low, high in bounds]

    # ------------------------------------------------------------------------------- examples, the page

    def examples(
        self,
        j: int,
        k: int = 10,
        interval: Interval | tuple[float, float] | None = None,
        before: int = 7,
        after: int = 3,
        seed: int = 0,
    ) -> list[Example]:
        """Stretches of text on which latent j is active: no two overlap, and no words come twice.

        With an `interval`, one of `intervals` or (low, high), they are drawn at random from it; without, the
        strongest come first.

        Example:
            >>> for example in index.examples(latent, k=3):
            ...     print("".join(example.tokens), "|", example.tokens[example.peak])
             the Oxford Rovers 5-0 on Sunday. The fans |  Sunday
            On Tuesday, the Wanderers |  Tuesday
            On Tuesday, Laura met |  Tuesday
        """
        where, values = self.latent(j)
        if interval is None:
            order = strongest_first(values)
        else:
            inside = in_interval(values, *interval[:2]) if len(values) else np.empty(0, np.int64)
            order = in_random_order(inside, torch.Generator().manual_seed(seed))
        cut = self._cutter(where.numpy(), values.numpy(), before, after)
        return different_examples(order, lambda i: self.place(int(where[i])), cut, check_count(k, "k"),
                                  apart=before + after)

    def _cutter(
        self, where: np.ndarray, values: np.ndarray, before: int, after: int
    ) -> Callable[[int], Example]:
        """A function that cuts the text around the i-th active token; neither BOS nor another text is shown."""
        def cut(i: int) -> Example:
            place = int(where[i])
            document, position = self.place(place)
            end = int(self._bounds[self._bounds.searchsorted(place, side="right")])
            start, stop = place - min(position, before), min(end, place + after + 1)
            start += int(self._places["is_bos"][start])
            first, last = where.searchsorted((start, stop)).tolist()
            activations = [0.0] * (stop - start)
            for at, value in zip(where[first:last].tolist(), values[first:last].tolist(), strict=True):
                activations[at - start] = value
            return Example(self.text(start, stop), activations, place - start, document, position)
        return cut

    def page(
        self,
        j: int,
        concepts: ConceptTable | None = None,
        n_intervals: int = 4,
        per_interval: int = 3,
        n_bins: int = 20,
        before: int = 7,
        after: int = 3,
        n_related: int = 10,
        seed: int = 0,
    ) -> FeaturePage:
        """All that a dashboard shows about latent j: what `analysis.feature_page` gives, and its relations.

        With `concepts`, from `concept_table`, it names the concept that the latent follows best. `n_related`
        is how many neighbours (decoder cosine), companions (co-firing) and promoted and suppressed tokens it
        has. `n_intervals`, `per_interval` and `n_bins` are those of `feature_page`.

        Example:
            >>> page = index.page(latent, concepts)
            >>> page.concept["name"], len(page.neighbours)
            ('weekday', 10)
        """
        where, values = self._latent(j)
        cut = self._cutter(where, values, before, after)
        page = page_of(j, torch.from_numpy(values), self.n_content, lambda i: self.place(int(where[i])), cut,
                       self.logits(j, n_related), n_intervals, per_interval, n_bins, seed)
        companions = reports.cofiring(self, j, where, n_related)
        neighbours, cosines = self._decoder["neighbours"][j, :n_related], self._decoder["cosines"][j, :n_related]
        return page._replace(
            neighbours=list(zip(neighbours.tolist(), cosines.tolist(), strict=True)),
            companions=list(zip(companions["latent"].tolist(), companions["jaccard"].tolist(), strict=True)),
            concept=None if concepts is None else concepts.best(j),
        )

    # -------------------------------------------------------------------------------- related latents

    def logits(self, j: int, k: int = 10) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
        """The tokens that latent j promotes and suppresses most, as `analysis.logit_effects` gives them.

        At most 16 are kept. Two empty lists when the index was built without `unembed`.
        """
        j = self._checked(j, "latent", self.n_latents)
        if "positive" not in self._decoder:
            return [], []

        def named(sign: str) -> list[tuple[str, float]]:
            ids, effects = self._decoder[sign][j, :k].tolist(), self._decoder[f"{sign}_effect"][j, :k].tolist()
            return [(self.vocabulary[i], effect) for i, effect in zip(ids, effects, strict=True)]

        return named("positive"), named("negative")

    def nearest(self, j: int, k: int = 10) -> pd.DataFrame:
        """The latents with the most similar decoder directions: latent, cosine. At most 16 are kept."""
        j = self._checked(j, "latent", self.n_latents)
        return pd.DataFrame({"latent": self._decoder["neighbours"][j, :k].astype(np.int64),
                             "cosine": self._decoder["cosines"][j, :k].astype(np.float64)})

    def cofiring(self, j: int, k: int = 10) -> pd.DataFrame:
        """The latents that are active on the same tokens as latent j, most alike first.

        Returns latent, jaccard (tokens on which both are active / tokens on which either is), lift (how many
        times more often both are active than if they knew nothing of each other) and n (tokens with both). A latent
        active on so many tokens that more than 500,000 entries would be read is judged by evenly spaced ones of
        its tokens, and n is scaled up; see `reports.MOST_ENTRIES`.
        """
        where, _ = self._latent(j)
        return pd.DataFrame(reports.cofiring(self, j, where, check_count(k, "k")))

    # ---------------------------------------------------------------------------------------- questions

    def find(self, token: str | int | Sequence[int]) -> Tensor:
        """Places [m] int64 of a `token` (its text or its id), or where a sequence of ids begins.

        Raises:
            InputError: there is no such token; near ones are named.

        Example:
            >>> len(index.find(" Paris"))
            11
        """
        if isinstance(token, str):
            if token not in self._ids_of:
                raise unknown_name("token", token, self._ids_of, "Mind the space before a word.")
            token = self._ids_of[token]
        wanted = [token] if whole_number(token) is not None else list(token)
        if not wanted:
            raise InputError("find needs at least one token.")
        ids = self._places["ids"]
        places = np.flatnonzero(ids == wanted[0])
        for step, following in enumerate(wanted[1:], 1):
            places = places[places + step < self.n_tokens]
            same = self._places["document"][places] == self._places["document"][places + step]
            places = places[same & (ids[places + step] == following)]
        return torch.from_numpy(places)

    @cached_property
    def _ids_of(self) -> dict[str, int]:
        return {text: i for i, text in reversed(list(enumerate(self.vocabulary)))}

    def search_token(self, token: str | int, k: int = 10) -> pd.DataFrame:
        """The latents that best tell where a `token` stands: latent, precision, recall, f1, mean, best F1 first.

        precision: of the tokens on which the latent is active, how many are this one; recall: of this token's
        occurrences, on how many it is active; mean: its mean activation there, when active. Of a very common
        token evenly spaced occurrences are looked at, as in `cofiring`.
        """
        return reports.search_token(self, self.find(token).numpy(), check_count(k, "k"))

    def top_of_token(self, i: int, k: int = 10) -> pd.DataFrame:
        """The strongest latents of the token at place i: latent, activation, of_maximum, density."""
        return reports.top_of_token(self, *self.token(i), check_count(k, "k"))

    def top_of_text(self, features: Tensor | SparseRows | int, k: int = 10, by: str = "surprise") -> pd.DataFrame:
        """The latents that stand out in a text, best first.

        Args:
            features: the text's latent activations [tokens, latents] (`encode(sae, acts)`, BOS left out), or the
                number of a document of the index.
            k: how many.
            by: "activation" (the strongest token's), "of_maximum" (the same as a share of the latent's maximum in
                the index) or "surprise" (that share times -log2 of the latent's density: what is strong here and
                rare elsewhere).

        Returns:
            latent, activation, token (which of the text's it is strongest on), n_active (tokens of the text),
            of_maximum, density, surprise (bits).

        Example:
            >>> [words[i] for i in index.top_of_text(features, k=3)["token"]]
            [' the', ' capital', ' France']
        """
        return reports.top_of_text(self, self._sparse(features), check_count(k, "k"), by)

    def compare(
        self, first: Tensor | SparseRows | int, second: Tensor | SparseRows | int, k: int = 10
    ) -> pd.DataFrame:
        """The latents that tell two texts apart, largest difference first.

        `first` and `second` are what `top_of_text` takes. Returns latent, first and second (the strongest
        activation in each), difference, of_maximum (the difference as a share of the latent's maximum, by
        which the rows are ordered).
        """
        return reports.compare(self, self._sparse(first), self._sparse(second), check_count(k, "k"))

    def _sparse(self, features: Tensor | SparseRows | int) -> SparseRows:
        if isinstance(features, SparseRows):
            return features
        if not isinstance(features, Tensor):
            return self.document(features)
        if features.ndim != 2 or features.shape[1] != self.n_latents:
            raise InputError(f"features: expected [tokens, {self.n_latents}], got {list(features.shape)}.")
        found = entries_of(features.float())
        starts = torch.searchsorted(found.rows, torch.arange(len(features) + 1, device=found.rows.device))
        return SparseRows(starts.cpu(), found.latents.cpu(), found.values.cpu(), self.n_latents)

    # ------------------------------------------------------------------- what the SAE does not account for

    @cached_property
    def error(self) -> Tensor:
        """[n_tokens]: squared reconstruction error ``|x - x_hat|^2`` of each token, 0 on BOS."""
        return torch.from_numpy(np.array(self._places["error"]))

    @property
    def explained_variance(self) -> float:
        """As `solutions.sae.explained_variance`, over all tokens of the index."""
        if not self.manifest["variance"]:
            raise InputError("every token has the same activation, so there is no variance to explain.")
        return 1 - self.manifest["squared_error"] / self.manifest["variance"]

    def worst_tokens(self, k: int = 10, before: int = 7, after: int = 3) -> pd.DataFrame:
        """The worst reconstructed tokens.

        Returns place, document, position, token, error (squared), relative (error divided by the squared norm),
        share (of all error) and context (the text around it).
        """
        return reports.worst_tokens(self, check_count(k, "k"), before, after)

    def error_by_token(self, k: int = 10, least: int = 1) -> pd.DataFrame:
        """Which tokens of the vocabulary the error falls on, largest share first.

        Tokens with fewer than `least` occurrences are left out. Returns token, id, n, mean_error, relative
        (error divided by the squared norm, over all its occurrences), share_of_error, share_of_tokens. Equal
        shares would be an SAE that reconstructs every token equally well.
        """
        return reports.error_by_token(self, check_count(k, "k"), check_count(least, "least"))


def nearest_latents(sae: SAE, j: int, k: int = 10) -> pd.DataFrame:
    """The latents whose decoder directions are most similar to latent j's: latent, cosine, highest first.

    Args:
        sae: the SAE.
        j: the latent's number.
        k: how many rows at most.

    Returns:
        latent, cosine, highest first.

    Raises:
        InputError: there is no such latent.

    Example:
        >>> nearest_latents(sae, latent, k=3).round(1)
           latent  cosine
        0     988     0.4
        1     264     0.4
        2     540     0.4
    """
    directions = sae.W_dec.detach().float()
    j = FeatureIndex._checked(j, "latent", len(directions))
    lengths = directions.norm(dim=1).clamp(min=1e-12)
    cosines = directions @ (directions[j] / lengths[j]) / lengths
    cosines[j] = -2.0  # not oneself
    best = cosines.topk(min(check_count(k, "k"), len(cosines) - 1))
    return pd.DataFrame({"latent": best.indices.tolist(), "cosine": best.values.tolist()})
