"""Direct logit attribution: which part of the residual stream says what about the next token.

The last residual stream is a sum: the embeddings, and what every attention layer and every MLP has added. The last
normalisation divides it by its length; with that length held as it is, everything up to the logits is linear, and
each part has an exact contribution to each logit (Elhage et al. 2021; the logit lens of nostalgebraist 2020
is the running total). The contributions and the biases add up to the logit.

Only the *direct* path is seen: a part that later layers read and turn into something else gets no credit for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from solutions.attribution.nodes import OneText, one_row, take_apart
from solutions.errors import InputError, check_count, check_position, unknown_name
from solutions.interventions.facts import Fact, answer_ids
from solutions.models import check_hooks, extract, unembedding
from solutions.models.hooks import hook_points, layer_of

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

#: How far the parts may miss the residual stream, as a share of its length, before a model is refused.
TOLERANCE = 1e-4


class DirectParts(NamedTuple):
    """A difference of two logits, as a sum over what was written into the residual stream."""

    parts: pd.DataFrame
    """One row per part, with part, layer (-1 outside the blocks), contribution; the last is the biases'."""
    value: float
    """The difference of the logits, as the model computes it."""

    @property
    def gap(self) -> float:
        """What the parts miss; 0 but for rounding."""
        return self.value - float(self.parts["contribution"].sum())


class DirectLatents(NamedTuple):
    """The same sum, with one place of it taken apart by an SAE."""

    latents: Tensor
    """[d_sae] contribution of every latent, over the direct path."""
    activations: Tensor
    """[d_sae] the latents' activations at the position."""
    error: float
    """Of what the SAE leaves out."""
    sae_bias: float
    """Of the decoder's bias."""
    others: pd.DataFrame
    """The parts that the SAE's activation does not hold, with part, layer, contribution; the last is the biases'."""
    value: float
    """The difference of the logits, as the model computes it."""

    @property
    def gap(self) -> float:
        """What the contributions miss; 0 but for rounding."""
        there = self.latents.sum().item() + self.error + self.sae_bias
        return self.value - there - float(self.others["contribution"].sum())

    def table(self, k: int = 10) -> pd.DataFrame:
        """The latents with the largest contributions, by size.

        Args:
            k: how many.

        Returns:
            One row each, with latent, activation, contribution.

        Raises:
            InputError: a `k` below 1.
        """
        most = min(check_count(k, "k"), int((self.latents != 0).sum()))
        top = self.latents.abs().topk(most).indices
        return pd.DataFrame({
            "latent": top.tolist(), "activation": self.activations[top].tolist(),
            "contribution": self.latents[top].tolist(),
        })


def direct_parts(
    model: TransformerBridge, text: OneText, fact: Fact, *, position: int = -1, heads: bool = False
) -> DirectParts:
    """What every layer writes directly into the difference of two logits.

    Args:
        model: a loaded model.
        text: one text, or its tokens (one row); mostly the fact's prompt.
        fact: whose answer and foil are compared.
        position: the token after which the logits are read; BOS is 0, negative from the end.
        heads: one row for each attention head instead of each attention layer, and one for the layer's bias.

    Returns:
        The parts, in the order in which they are written.

    Raises:
        InputError: as for `take_apart`, or a model whose residual stream is not the sum of these parts.

    Example:
        >>> fact = facts_of(target, model, "landmark_city")[0]
        >>> abs(direct_parts(model, fact.prompt, fact).gap) < 1e-3
        True
    """
    stream = _Stream(model, text, fact, position)
    vectors = stream.vectors
    if heads:
        vectors = {k: v for name, vector in vectors.items() for k, v in stream.by_head(name, vector).items()}
    return DirectParts(stream.table(vectors), stream.value)


def direct_latents(
    model: TransformerBridge, sae: SAE, hook: str, text: OneText, fact: Fact, *, position: int = -1
) -> DirectLatents:
    """What every latent writes directly into the difference of two logits.

    Args:
        model: a loaded model.
        sae: the SAE.
        hook: its hook point: a residual stream, or what attention or an MLP adds to it.
        text: one text, or its tokens (one row); mostly the fact's prompt.
        fact: whose answer and foil are compared.
        position: the token after which the logits are read. Latents elsewhere have no direct path there.

    Returns:
        The contributions.

    Raises:
        InputError: as for `direct_parts`, BOS as the position, or a hook point that is no part of the residual
            stream.

    Example:
        >>> fact = facts_of(target, model, "landmark_city")[0]
        >>> abs(direct_latents(model, sae, target.hook, fact.prompt, fact).gap) < 1e-3
        True
    """
    nodes = take_apart(model, sae, hook, text)
    stream = _Stream(model, nodes.tokens, fact, position)
    if not nodes.inside[stream.position]:
        raise InputError("position is BOS, which is not taken apart. Choose a later one.")
    covered = stream.covered(hook)
    latents, error = nodes.latents[stream.position], nodes.error[stream.position]
    with torch.no_grad():
        nothing = sae.decode(torch.zeros_like(latents))
        # Each latent's own direction, as the decoder writes it: it may scale its rows.
        active = latents.nonzero().flatten()
        rows = sae.decode(torch.diag(latents)[active]) - nothing
    contributions = torch.zeros_like(latents)
    contributions[active] = rows @ stream.reads
    return DirectLatents(
        contributions, latents, float(error @ stream.reads), float(nothing @ stream.reads),
        stream.table({k: v for k, v in stream.vectors.items() if k not in covered}), stream.value,
    )


class _Stream:
    """The last residual stream at one position as a sum, and how a difference of logits reads it."""

    def __init__(self, model: TransformerBridge, text: OneText, fact: Fact, position: int):
        self.model = model
        self.tokens = one_row(model, text)
        self.position = check_position(position, self.tokens.ids.shape[1])
        self.hooks = _written(model)
        last = f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"
        acts = extract(model, self.tokens, [*self.hooks.values(), last])
        self.vectors = {name: acts[hook][0, self.position] for name, hook in self.hooks.items()}
        self.final = acts[last][0, self.position]
        self._check_sum()
        answer, foil = answer_ids(model, [fact])[0].tolist()
        with torch.no_grad():
            logits = model(self.tokens.ids)[0, self.position]
        self.value = float(logits[answer] - logits[foil])
        self.reads, self.bias = _reading(model, self.final, answer, foil)

    def _check_sum(self) -> None:
        missing = self.final - sum(self.vectors.values())
        if not missing.norm() <= TOLERANCE * self.final.norm():
            raise InputError(
                "this model's last residual stream is not the sum of its embeddings, attention outputs and MLP "
                f"outputs: {float(missing.norm() / self.final.norm()):.2g} of its length is missing."
            )

    def table(self, vectors: dict[str, Tensor]) -> pd.DataFrame:
        """Parts and their contributions, the biases last."""
        rows = [(name, _layer(name), float(vector @ self.reads)) for name, vector in vectors.items()]
        return pd.DataFrame([*rows, ("biases", -1, self.bias)], columns=["part", "layer", "contribution"])

    def covered(self, hook: str) -> list[str]:
        """The parts that the activation at a hook point is the sum of."""
        (hook,) = check_hooks(self.model, hook)
        names, layer = list(self.hooks), layer_of(hook)
        alone = [name for name, where in self.hooks.items() if where == hook]
        if alone:
            return alone
        end = hook.rsplit(".", 1)[-1]
        last = {"hook_resid_pre": -1, "hook_resid_mid": 0, "hook_resid_post": 1}
        if layer < 0 or end not in last:
            raise unknown_name("part of the residual stream", hook, self.hooks.values(), "Or a residual stream.")
        return [n for n in names if _layer(n) < layer] + [
            n for n, there in ((f"attention {layer}", last[end] >= 0), (f"MLP {layer}", last[end] > 0)) if there
        ]

    def by_head(self, name: str, vector: Tensor) -> dict[str, Tensor]:
        """An attention layer's vector as one for each head, and its bias; any other part as it is."""
        if not name.startswith("attention"):
            return {name: vector}
        layer = _layer(name)
        hook = f"blocks.{layer}.attn.hook_z"
        z = extract(self.model, self.tokens, hook)[hook][0, self.position]      # [head, d_head]
        z = z.reshape(self.model.cfg.n_heads, -1)
        W_O = self.model.blocks[layer].attn.W_O.detach().reshape(*z.shape, -1)  # [head, d_head, d_model]
        written = torch.einsum("hd,hdm->hm", z, W_O)
        heads = {f"head {layer}.{h}": row for h, row in enumerate(written)}
        return {**heads, f"{name}, bias": vector - written.sum(0)}


def _written(model: TransformerBridge) -> dict[str, str]:
    """Name of each part that is written into the residual stream → its hook point, in order."""
    there = set(hook_points(model)["name"])
    hooks = {"embedding": "hook_embed", "position": "hook_pos_embed"}
    for layer in range(model.cfg.n_layers):
        hooks |= {f"attention {layer}": f"blocks.{layer}.hook_attn_out", f"MLP {layer}": f"blocks.{layer}.hook_mlp_out"}
    return {name: hook for name, hook in hooks.items() if hook in there}


def _layer(part: str) -> int:
    """The block a part belongs to, from its name; -1 outside the blocks."""
    number = part.split(",")[0].split(" ")[-1].split(".")[0]
    return int(number) if number.isdigit() else -1


@torch.no_grad()
def _reading(model: TransformerBridge, final: Tensor, answer: int, foil: int) -> tuple[Tensor, float]:
    """(direction [d_model] whose inner product with a part is its contribution, contribution of the biases)."""
    centred = str(model.cfg.normalization_type).startswith("LN")
    spread = final - final.mean() if centred else final
    scale = (spread.pow(2).mean() + model.cfg.eps).sqrt()
    effects = unembedding(model)
    reads = (effects[:, answer] - effects[:, foil]) / scale
    bias = 0.0
    shift = getattr(getattr(model.ln_final, "original_component", None), "bias", None)
    if shift is not None and centred:
        bias += float(shift @ (model.W_U[:, answer] - model.W_U[:, foil]))
    if getattr(model, "b_U", None) is not None:
        bias += float(model.b_U[answer] - model.b_U[foil])
    return reads, bias
