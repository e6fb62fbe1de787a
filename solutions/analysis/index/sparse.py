"""Through an SAE and back with only what is active, for as long as that gives what the SAE itself gives.

Few latents are active on a token. The dense row of all of them is what takes time: to fill it with zeros, to look
through it, to multiply it with the decoder. Whether an SAE can be taken this way is seen on the first batch: one
that rescales, normalises, or does anything else of its own is left to do it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from solutions.sae import decode, encode
from solutions.sae.training.selecting import largest_of_each, positions

if TYPE_CHECKING:
    from sae_lens import SAE


class Entries(NamedTuple):
    """What is above zero on some tokens, token by token, a token's latents ascending."""

    rows: Tensor     # [entries] int64: which of the tokens
    latents: Tensor  # [entries] int64
    values: Tensor   # [entries] float32

    def dense(self, n_tokens: int, n_latents: int) -> Tensor:
        """The same with the zeros, [tokens, latents]."""
        features = torch.zeros(n_tokens, n_latents, device=self.values.device)
        features[self.rows, self.latents] = self.values
        return features


def entries_of(features: Tensor) -> Entries:
    """The entries of dense features [tokens, latents]."""
    return _entries(positions((features > 0).contiguous()), features.reshape(-1), features.shape[1])


def _entries(where: Tensor, flat: Tensor, n_latents: int) -> Entries:
    rows = where // n_latents
    return Entries(rows, where - rows * n_latents, flat[where])


def quickest_encoder(sae: SAE, x: Tensor) -> Callable[[Tensor], Entries]:
    """The quickest way from activations [tokens, d_in] to what `encode(sae, ...)` gives; `x` is tried both ways."""

    def through_the_sae(x: Tensor) -> Entries:
        return entries_of(encode(sae, x))

    def top_k(x: Tensor) -> Entries:
        pre = torch.addmm(sae.b_enc, sae.process_sae_in(x), sae.W_enc)
        where, _ = largest_of_each(pre, k)
        return _entries(where.sort().values, pre.view(-1), pre.shape[1])

    k = getattr(sae.cfg, "k", None)
    if not isinstance(k, int) or getattr(sae, "b_enc", None) is None or x.device.type != "cpu":
        return through_the_sae
    return top_k if _alike(top_k(x), through_the_sae(x)) else through_the_sae


def _alike(found: Entries, wanted: Entries) -> bool:
    """Whether the same latents are active, and as strongly but for rounding."""
    same = torch.equal(found.rows, wanted.rows) and torch.equal(found.latents, wanted.latents)
    return same and torch.allclose(found.values, wanted.values, rtol=1e-4)


def quickest_decoder(sae: SAE, entries: Entries, n_tokens: int) -> Callable[[Entries, int], Tensor]:
    """The quickest way from entries to what `decode(sae, ...)` gives; `entries`, of `n_tokens`, go both ways."""
    bias = getattr(sae, "b_dec", None)

    def through_the_sae(entries: Entries, n_tokens: int) -> Tensor:
        return decode(sae, entries.dense(n_tokens, sae.cfg.d_sae))

    def sum_of_rows(entries: Entries, n_tokens: int) -> Tensor:
        starts = torch.searchsorted(entries.rows, torch.arange(n_tokens, device=entries.rows.device))
        x_hat = F.embedding_bag(entries.latents, sae.W_dec, starts, mode="sum", per_sample_weights=entries.values)
        return x_hat + bias

    if bias is None or entries.values.dtype != sae.W_dec.dtype:
        return through_the_sae
    want = through_the_sae(entries, n_tokens)
    atol = 1e-4 * float(want.abs().mean())
    same = torch.allclose(sum_of_rows(entries, n_tokens), want, rtol=1e-4, atol=atol)
    return sum_of_rows if same else through_the_sae


class SparseRows(NamedTuple):
    """Latent activations of a run of tokens, the zeros left out."""

    starts: Tensor   #: [tokens + 1] int64: token i has the entries starts[i] to starts[i + 1]
    latents: Tensor  #: [entries] int64, ascending within a token
    values: Tensor   #: [entries] float32
    n_latents: int   #: of the SAE

    def dense(self) -> Tensor:
        """The same with the zeros, [tokens, latents]."""
        features = torch.zeros(len(self.starts) - 1, self.n_latents)
        features[self.rows(), self.latents] = self.values
        return features

    def rows(self) -> Tensor:
        """[entries] int64: the token each entry belongs to."""
        return torch.repeat_interleave(torch.arange(len(self.starts) - 1), self.starts.diff())
