"""What every part of a model writes, carried to every place that reads it.

Hold the attention patterns and the scales of the normalisations at what they were on one prompt. What is left of
attention is a sum over positions, what is left of a normalisation is a product with fixed numbers, and in place of
the MLPs stand latents and errors, whose values are known (Ameisen et al. 2025, "Circuit Tracing", section "The Local
Replacement Model"). Then the residual stream at any place is the *sum* of what each part has written, carried there.
So carry the parts separately: one row for each, through all layers side by side. What a reader gets from a part is
then one inner product, and all of them add up to what it reads in the model. `carry` makes sure that they do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from solutions.attribution.frozen import HOLDABLE, names_to_hold
from solutions.attribution.graph.transcoders import MLP_IN, MLP_OUT, Transcoders, check_transcoders
from solutions.data import Tokens
from solutions.errors import InputError
from solutions.models import as_tokens, processing_of, read_hooks

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

#: Largest difference between the sum of the parts and the model, as a share of the largest number there.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Parts:
    """What was written, by whom: one row for each part.

    Attributes:
        kind: [n] "token", "latent", "error" or "BOS" of each part.
        layer: [n] the MLP that wrote it; -1 for the embeddings.
        position: [n] where.
        latent: [n] which latent of the layer's transcoder; -1 for the others.
        value: [n] the latent's activation; for the others the length of what was written.
        written: [n, d_model] what was added to the residual stream.
    """

    kind: list[str]
    layer: Tensor
    position: Tensor
    latent: Tensor
    value: Tensor
    written: Tensor

    def __len__(self) -> int:
        return len(self.kind)


@dataclass(frozen=True)
class Carried:
    """Every part, carried to every place that reads.

    Attributes:
        tokens: the prompt.
        parts: what was written.
        at_mlp: layer to [n + 1, pos, d_model]: what each part contributes to what the layer's MLP reads. The last row
            is what comes from biases alone.
        at_logits: [n + 1, d_model] the same for what the unembedding reads at the last position.
        logits: [vocabulary] the model's own, at the last position.
        error: largest difference between a sum of the parts and what the model has there, as a share of the largest
            number there.
    """

    tokens: Tokens
    parts: Parts
    at_mlp: dict[int, Tensor]
    at_logits: Tensor
    logits: Tensor
    error: float


@torch.no_grad()
def carry(model: TransformerBridge, transcoders: Transcoders, prompt: str | Tokens) -> Carried:
    """Hold the model fixed on a prompt, and carry what every part of it writes to every reader.

    Args:
        model: a loaded model.
        transcoders: one for every layer.
        prompt: one text, or one row of tokens without padding.

    Returns:
        The parts and what the readers get from them.

    Raises:
        InputError: several prompts, a layer without a transcoder, or a model that is not linear when patterns and
            scales are held (one with other normalisations, or with blocks that work in parallel).

    Example:
        >>> carried = carry(model, load_transcoders(get_target("smallworld"), "cpu"), "The Eiffel Tower is in")
        >>> carried.error < 1e-4
        True
    """
    transcoders, tokens = _checked(model, transcoders, prompt)
    seen = _read(model, tokens)
    parts = _parts(transcoders, tokens, seen)
    n, (n_pos, width) = len(parts), seen["blocks.0.hook_resid_pre"][0].shape
    spared = tokens.bos[0]  # no transcoder has seen BOS: what its MLPs write is a part of its own

    stream = parts.written.new_zeros(n + 1, n_pos, width)  # the last row: what comes from biases
    _write(stream, parts, -1)
    at_mlp, apart = {}, []
    for layer, transcoder in transcoders.items():
        block = model.blocks[layer]
        stream = stream + _attended(model, block, stream, seen, layer)
        at_mlp[layer] = _normalised(model, block.ln2, stream, seen[f"blocks.{layer}.ln2.hook_scale"][0])
        apart.append(_difference(at_mlp[layer].sum(0), seen[MLP_IN.format(layer)][0]))
        _write(stream, parts, layer)
        stream[-1, ~spared] += transcoder.b_dec
    at_logits = _normalised(model, model.ln_final, stream[:, -1:], seen["ln_final.hook_scale"][0, -1:])[:, 0]
    logits = model(tokens.ids)[0, -1]
    apart.append(_difference(at_logits.sum(0) @ model.W_U + _unembedding_bias(model), logits))
    if not max(apart) < TOLERANCE:
        raise InputError(
            "the parts do not add up to what the model computes: with patterns and scales held, this model is not "
            f"linear in the way that is assumed here (off by {max(apart):.1%}). Models built like GPT-2 or Llama are."
        )
    return Carried(tokens, parts, at_mlp, at_logits, logits, max(apart))


def _checked(model: TransformerBridge, transcoders: Transcoders, prompt: str | Tokens) -> tuple[Transcoders, Tokens]:
    transcoders = check_transcoders(model, transcoders)
    missing = [layer for layer in range(model.cfg.n_layers) if layer not in transcoders]
    if missing:
        raise InputError(f"a graph needs a transcoder for every layer; there is none for {missing}.")
    tokens = as_tokens(model, prompt)
    if len(tokens) != 1 or not bool(tokens.mask.all()):
        raise InputError(f"a graph is of one prompt without padding, got {len(tokens)} rows.")
    return transcoders, tokens


def _read(model: TransformerBridge, tokens: Tokens) -> dict[str, Tensor]:
    """All that is held fixed, and what the sums are checked against; each [1, pos, ...]."""
    mlps = [name.format(layer) for layer in range(model.cfg.n_layers) for name in (MLP_IN, MLP_OUT)]
    return read_hooks(model, tokens.ids, ["blocks.0.hook_resid_pre", *names_to_hold(model, HOLDABLE), *mlps])


def _parts(transcoders: Transcoders, tokens: Tokens, seen: dict[str, Tensor]) -> Parts:
    """What the embeddings, the latents and the errors wrote on this prompt, layer by layer."""
    embedded, spared = seen["blocks.0.hook_resid_pre"][0], tokens.bos[0]
    everywhere = torch.arange(len(embedded), device=embedded.device)
    rows: list[tuple[str, int, Tensor, Tensor | None, Tensor, Tensor]]
    rows = [("token", -1, everywhere, None, embedded.norm(dim=1), embedded)]
    for layer, transcoder in transcoders.items():
        read, written = seen[MLP_IN.format(layer)][0], seen[MLP_OUT.format(layer)][0]
        latents = transcoder.encode(read) * ~spared[:, None]
        position, latent = latents.nonzero(as_tuple=True)
        value = latents[position, latent]
        rows.append(("latent", layer, position, latent, value, value[:, None] * transcoder.W_dec[latent]))
        missed = written - latents @ transcoder.W_dec - transcoder.b_dec
        for kind, where, left in (("error", ~spared, missed), ("BOS", spared, written)):
            rows.append((kind, layer, everywhere[where], None, left[where].norm(dim=1), left[where]))
    return Parts(
        kind=[kind for kind, _, position, *_ in rows for _ in range(len(position))],
        layer=torch.cat([torch.full_like(position, layer) for _, layer, position, *_ in rows]),
        position=torch.cat([position for _, _, position, *_ in rows]),
        latent=torch.cat([torch.full_like(p, -1) if latent is None else latent for _, _, p, latent, *_ in rows]),
        value=torch.cat([value for *_, value, _ in rows]),
        written=torch.cat([written for *_, written in rows]),
    )


def _write(stream: Tensor, parts: Parts, layer: int) -> None:
    """The parts of one layer write into their own rows of the stream."""
    rows = (parts.layer == layer).nonzero()[:, 0]
    stream[rows, parts.position[rows]] = parts.written[rows]


def _normalised(model: TransformerBridge, norm: Any, stream: Tensor, scale: Tensor) -> Tensor:
    """The parts after a normalisation whose scale [pos, 1] is held. Its bias goes to the last row."""
    centres = str(model.cfg.normalization_type).startswith("LN")
    folded = "fold_ln" in (processing_of(model) or [])
    gain = None if folded else getattr(norm, "weight", None)
    bias = None if folded or not centres else getattr(norm, "bias", None)
    if centres:
        stream = stream - stream.mean(dim=-1, keepdim=True)
    stream = stream / scale
    if gain is not None:
        stream = stream * gain
    if bias is not None:
        stream = torch.cat([stream[:-1], stream[-1:] + bias])
    return stream


def _attended(
    model: TransformerBridge, block: Any, stream: Tensor, seen: dict[str, Tensor], layer: int
) -> Tensor:
    """What the parts give to each position through the attention of a block, its pattern held."""
    attn, pattern = block.attn, seen[f"blocks.{layer}.attn.hook_pattern"][0]  # [head, query, key]
    read = _normalised(model, block.ln1, stream, seen[f"blocks.{layer}.ln1.hook_scale"][0])
    sharing = len(pattern) // len(attn.W_V)  # in some models several heads share their values
    out = torch.zeros_like(stream)
    for head, looks in enumerate(pattern):
        values = read @ attn.W_V[head // sharing]
        if attn.b_V is not None:
            values[-1] += attn.b_V[head // sharing]
        out += torch.einsum("qk,nkd->nqd", looks, values) @ attn.W_O[head]
    if attn.b_O is not None:
        out[-1] += attn.b_O
    return out


def _difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def _unembedding_bias(model: TransformerBridge) -> Tensor:
    bias = getattr(model, "b_U", None)
    return model.W_U.new_zeros(model.W_U.shape[1]) if bias is None else bias


@torch.no_grad()
def centred_unembedding(model: TransformerBridge, ids: Sequence[int]) -> tuple[Tensor, Tensor]:
    """What reads the logits of some tokens, less the mean of all logits.

    Args:
        model: a loaded model.
        ids: [m] the tokens' numbers.

    Returns:
        [m, d_model] directions and [m] biases: a centred logit is their product with the normalised stream, and sum.
    """
    chosen = torch.as_tensor(ids, device=model.W_U.device)
    bias = _unembedding_bias(model)
    return (model.W_U[:, chosen] - model.W_U.mean(dim=1, keepdim=True)).T, bias[chosen] - bias.mean()
