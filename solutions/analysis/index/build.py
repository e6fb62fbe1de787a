"""Making a feature index: one pass over the activations, then turning rows into columns.

The pass writes what is active token by token, as it comes. The same entries ordered by latent are a transposition,
too large to do in memory: since the pass has counted how often each latent is active, the place of every entry
is known, and the entries are carried over chunk by chunk into a mapped file (a counting sort on disk).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from solutions.analysis.index.identity import check_origin, sae_identity, store_identity, vocabulary_identity
from solutions.analysis.index.layout import (
    appearing,
    check_replaceable,
    create_arrays,
    open_arrays,
    write_manifest,
)
from solutions.analysis.index.read import FeatureIndex
from solutions.analysis.index.sparse import quickest_decoder, quickest_encoder
from solutions.analysis.shapes import check_axes
from solutions.errors import InputError, check_count

if TYPE_CHECKING:
    from sae_lens import SAE

#: Bytes that the dense latent activations of one batch may take.
DENSE_BYTES = 64 << 20
#: Entries that are transposed at a time.
CHUNK = 2_000_000
#: Neighbours, and promoted and suppressed tokens, kept for each latent.
KEPT = 16


@torch.no_grad()
def build_index(
    store: Any,
    sae: SAE,
    hook: str,
    path: str | os.PathLike[str],
    *,
    vocabulary: Sequence[str] | None = None,
    unembed: Tensor | None = None,
    gain: Tensor | None = None,
    batch_tokens: int | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> FeatureIndex:
    """Read a store once and write down where every latent of an SAE is active, and how strongly.

    Memory stays within a few times the dense activations of one batch, however many tokens the store holds. The
    index appears whole or not at all: a build that was stopped leaves nothing at `path`, and is started again.
    BOS is left out: it has a place in the index, but no latent is active there.

    Args:
        store: an `ActivationStore`.
        sae: a SAELens SAE for activations of the store's width.
        hook: which of the store's hook points the SAE reads.
        path: the folder to make.
        vocabulary: every token of the model as text, for examples and search; `str_tokens(model,
            torch.arange(model.cfg.d_vocab))` lists them.
        unembed: [d_model, vocabulary], to work out which tokens each latent promotes; needs the vocabulary.
        gain: [d_model], the weight of the last normalisation when it is not folded into `unembed`.
        batch_tokens: tokens encoded at a time; by default as many as fill 64 MB with dense latents.
        overwrite: replace an index of something else that stands at `path`.
        progress: whether to show a bar.

    Returns:
        The index, opened. One that is there already and belongs to this store and SAE is opened, not built again.

    Raises:
        InputError: the SAE does not fit the store, or `path` holds an index of another store or SAE, or something
            else altogether.
        DiskFull: there is no room; nothing is left.

    Example:
        >>> again = build_index(store, sae, target.hook, index.path,
        ...                     vocabulary=index.vocabulary, unembed=unembedding(model))
        >>> again.n_content == index.n_content  # it was there already, and was only opened
        True
    """
    path = Path(path)
    check_replaceable(path)
    _check_inputs(store, sae, hook, vocabulary, unembed)
    origin = {"hook": hook, "store": store_identity(store), "sae": sae_identity(sae),
              "vocabulary": vocabulary_identity(vocabulary), "logits": unembed is not None}
    if path.exists() and any(path.iterdir()) and not overwrite:
        index = FeatureIndex(path, store)
        check_origin(path, index.manifest, origin)
        return index
    with appearing(path) as folder:
        found = _read_store(store, sae, hook, folder, batch_tokens, progress)
        _write_by_token(folder, found.counts, found.nnz)
        _write_by_latent(folder, found, sae.cfg.d_sae, progress)
        _write_places(folder, store, found)
        _write_decoder(folder, sae, unembed, gain)
        if vocabulary is not None:
            (folder / "vocabulary.json").write_text(json.dumps(list(vocabulary)), encoding="utf-8")
        totals = {"squared_error": found.squared_error, "variance": found.variance}
        sizes = {"n_tokens": int(store.n_tokens), "n_content": found.n_content,
                 "n_latents": int(sae.cfg.d_sae), "n_documents": int(store.n_documents), "nnz": found.nnz}
        write_manifest(folder, {**origin, **sizes, **totals})
    return FeatureIndex(path, store, verify=False)  # the checksums have just been made from these files


def _check_inputs(
    store: Any, sae: SAE, hook: str, vocabulary: Sequence[str] | None, unembed: Tensor | None
) -> None:
    if hook not in store.hooks:
        raise InputError(f"hook: expected one of the store's ({', '.join(store.hooks)}), got {hook!r}.")
    if store.width(hook) != sae.cfg.d_in:
        raise InputError(f"the store's activations at {hook} have width {store.width(hook)}; this SAE reads "
                         f"{sae.cfg.d_in}. Take the SAE that was trained there.")
    if vocabulary is not None and int(store.ids.max()) >= len(vocabulary):
        raise InputError(f"vocabulary has {len(vocabulary)} tokens, but the store holds token "
                         f"{int(store.ids.max())}. List all tokens of the model.")
    if unembed is None:
        return
    check_axes("unembed", unembed, "d_model", "vocabulary")
    if vocabulary is None or len(vocabulary) != unembed.shape[1]:
        raise InputError(f"unembed has {unembed.shape[1]} columns: give a vocabulary of as many tokens.")
    if unembed.shape[0] != sae.cfg.d_in:
        raise InputError(f"unembed has d_model {unembed.shape[0]}, the SAE writes {sae.cfg.d_in} dimensions: "
                         "the direct effect on the logits is only defined in the residual stream.")


# --------------------------------------------------------------------------------------------- the pass

class _Found(NamedTuple):
    """What the pass over the store counts; the entries themselves are on the disk."""
    nnz: int
    n_content: int
    counts: np.ndarray     # [n_tokens] int64: latents active on each token
    per_latent: np.ndarray  # [n_latents] int64: tokens each latent is active on
    maximum: np.ndarray    # [n_latents] float32
    error: np.ndarray      # [n_tokens] float32: |x - reconstruction|^2
    norm: np.ndarray       # [n_tokens] float32: |x|^2
    squared_error: float   # summed over tokens
    variance: float        # |x - mean|^2, summed over tokens


def _read_store(
    store: Any, sae: SAE, hook: str, folder: Path, batch_tokens: int | None, progress: bool
) -> _Found:
    from tqdm.auto import tqdm

    n_latents, device = sae.cfg.d_sae, next(sae.parameters()).device
    size = max(16, min(4096, DENSE_BYTES // (4 * n_latents)))
    size = size if batch_tokens is None else check_count(batch_tokens, "batch_tokens")
    counts = np.zeros(store.n_tokens, np.int64)
    per_latent, maximum = np.zeros(n_latents, np.int64), np.zeros(n_latents, np.float32)
    error, norm = np.zeros(store.n_tokens, np.float32), np.zeros(store.n_tokens, np.float32)
    moments, read, rebuild, before, seen = _Moments(), None, None, -1, 0
    bar = tqdm(total=store.n_content, desc="encode", unit="token", unit_scale=True, disable=not progress)
    with open(folder / ".latents", "wb") as latents_file, open(folder / ".values", "wb") as values_file, bar:
        for x, place in store.batches(hook, size):
            if int(place[0]) <= before or bool((place[1:] <= place[:-1]).any()):
                raise InputError("the store's batches do not come in the order of its tokens.")
            before, seen = int(place[-1]), seen + len(x)
            x, place = x.to(device), place.numpy()
            read = read or quickest_encoder(sae, x)
            entries = read(x)
            rebuild = rebuild or quickest_decoder(sae, entries, len(x))
            counts[place] = torch.bincount(entries.rows, minlength=len(x)).cpu().numpy()
            error[place] = (x - rebuild(entries, len(x))).square().sum(1).cpu().numpy()
            norm[place] = x.square().sum(1).cpu().numpy()
            moments.add(x)
            latents, values = entries.latents.int().cpu().numpy(), entries.values.float().cpu().numpy()
            per_latent += np.bincount(latents, minlength=n_latents)
            np.maximum.at(maximum, latents, values)
            latents.tofile(latents_file)
            values.tofile(values_file)
            bar.update(len(x))
    if seen == 0:
        raise InputError("the store holds no tokens but BOS: there is nothing to index.")
    return _Found(int(counts.sum()), seen, counts, per_latent, maximum, error, norm,
                  float(error.sum(dtype=np.float64)), moments.variance())


class _Moments:
    """The variance of activations that stream by, around their mean; kept around the first batch's mean, so that a
    mean far from the origin costs no digits."""

    def __init__(self) -> None:
        self.n = 0

    def add(self, x: Tensor) -> None:
        if self.n == 0:
            self.shift = x.mean(0)
            self.first, self.second = torch.zeros_like(x[0], dtype=torch.float64), 0.0
        away = (x - self.shift).double()
        self.n += len(x)
        self.first += away.sum(0)
        self.second += float(away.square().sum())

    def variance(self) -> float:
        """Squared distance from the mean, summed over all tokens."""
        return max(0.0, self.second - float(self.first.square().sum()) / self.n) if self.n else 0.0


# --------------------------------------------------------------------------------------------- the files

def _starts(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def _write_by_token(folder: Path, counts: np.ndarray, nnz: int) -> None:
    """What the pass has written becomes one file with a header."""
    shapes = {"starts": ("I64", (len(counts) + 1,)), "latents": ("I32", (nnz,)), "values": ("F32", (nnz,))}
    arrays = create_arrays(folder / "by_token.safetensors", shapes)
    arrays["starts"][:] = _starts(counts)
    for name, dtype in (("latents", np.int32), ("values", np.float32)):
        with open(folder / f".{name}", "rb") as file:
            for start in range(0, nnz, CHUNK):
                stop = min(start + CHUNK, nnz)
                arrays[name][start:stop] = np.fromfile(file, dtype, stop - start)
        (folder / f".{name}").unlink()


def _write_by_latent(folder: Path, found: _Found, n_latents: int, progress: bool) -> None:
    """The same entries ordered by latent, and by token within a latent."""
    from tqdm.auto import tqdm

    by_token = open_arrays(folder / "by_token.safetensors")
    place = "I32" if len(found.counts) < 2**31 else "I64"
    shapes = {"starts": ("I64", (n_latents + 1,)), "tokens": (place, (found.nnz,)),
              "values": ("F32", (found.nnz,)), "maximum": ("F32", (n_latents,))}
    arrays = create_arrays(folder / "by_latent.safetensors", shapes)
    arrays["starts"][:], arrays["maximum"][:] = _starts(found.per_latent), found.maximum
    free = arrays["starts"][:-1].copy()  # for each latent, where its next entry goes
    # The sort below is a radix sort on 16-bit keys, four times as fast as the sort of wider ones.
    key = np.uint16 if n_latents <= 2**16 else np.int32
    for first, last in tqdm(_chunks(by_token["starts"]), desc="by latent", unit="chunk", disable=not progress):
        start, stop = by_token["starts"][[first, last]]
        latents = by_token["latents"][start:stop].astype(key)
        tokens = np.repeat(np.arange(first, last), found.counts[first:last])
        order = np.argsort(latents, kind="stable")
        latents, here = latents[order], np.bincount(latents, minlength=n_latents)
        to = np.arange(stop - start) + np.repeat(free - _starts(here)[:-1], here)
        arrays["tokens"][to] = tokens[order]
        arrays["values"][to] = by_token["values"][start:stop][order]
        free += here


def _chunks(starts: np.ndarray) -> list[tuple[int, int]]:
    """Ranges of tokens with about CHUNK entries each."""
    cuts = np.searchsorted(starts, np.arange(CHUNK, int(starts[-1]), CHUNK))
    ends = sorted({0, len(starts) - 1, *cuts.tolist()})
    return list(zip(ends[:-1], ends[1:], strict=True))


def _write_places(folder: Path, store: Any, found: _Found) -> None:
    """What stands at each place of the store, so that the index can be read without it."""
    n = len(found.counts)
    columns = {"ids": ("I32", store.ids), "document": ("I32", store.document),
               "position": ("I32", store.position), "error": ("F32", found.error), "norm": ("F32", found.norm),
               "is_bos": ("BOOL", store.is_bos), "test": ("BOOL", store.test)}
    arrays = create_arrays(folder / "places.safetensors", {c: (dtype, (n,)) for c, (dtype, _) in columns.items()})
    for name, (_, values) in columns.items():
        arrays[name][:] = np.asarray(values)


def _write_decoder(folder: Path, sae: SAE, unembed: Tensor | None, gain: Tensor | None) -> None:
    """For each latent the most similar decoder directions, and the tokens it promotes and suppresses."""
    directions = sae.W_dec.detach().float()
    unit = directions / directions.norm(dim=1, keepdim=True).clamp(min=1e-12)
    n, k = len(unit), min(KEPT, len(unit) - 1)
    shapes = {"neighbours": ("I32", (n, k)), "cosines": ("F32", (n, k))}
    if unembed is not None:
        unembed = (unembed if gain is None else unembed * gain[:, None]).detach().to(directions).float()
        unembed = unembed - unembed.mean(1, keepdim=True)  # a constant added to all logits changes no prediction
        kept = min(KEPT, unembed.shape[1])
        for sign in ("positive", "negative"):
            shapes |= {sign: ("I32", (n, kept)), f"{sign}_effect": ("F32", (n, kept))}
    arrays = create_arrays(folder / "decoder.safetensors", shapes)
    rows = max(1, DENSE_BYTES // (4 * max(n, 0 if unembed is None else unembed.shape[1])))
    for start in range(0, n, rows):
        here = slice(start, min(start + rows, n))
        cosines = unit[here] @ unit.T
        cosines[torch.arange(cosines.shape[0]), torch.arange(here.start, here.stop)] = -2.0  # not oneself
        best = cosines.topk(k, dim=1)
        arrays["cosines"][here], arrays["neighbours"][here] = best.values.cpu(), best.indices.cpu()
        if unembed is None:
            continue
        effects = directions[here] @ unembed
        for name, sign in (("positive", 1), ("negative", -1)):
            best = (sign * effects).topk(kept, dim=1)
            arrays[name][here], arrays[f"{name}_effect"][here] = best.indices.cpu(), sign * best.values.cpu()
