"""What each part of each layer adds to the residual stream, and what it costs to take that away.

How much a part writes says little about how much it matters; so both are measured here, side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from solutions.data import Tokens
from solutions.errors import InputError, check_count
from solutions.models import as_tokens, check_hooks, extract, next_token_loss

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

#: The two parts of a layer: what its writing is called, and where the stream stands just before.
PARTS = {"attention": ("hook_attn_out", "hook_resid_pre"), "MLP": ("hook_mlp_out", "hook_resid_mid")}


@torch.no_grad()
def replacement_cost(
    model: TransformerBridge, tokens: Tokens, values: Mapping[str, Tensor], bos: bool = False, batch_size: int = 32
) -> float:
    """How much worse the model predicts when something else stands at some hook points.

    All hook points are replaced in the same run.

    Args:
        model: a loaded model.
        tokens: from `tokenize`.
        values: hook name to what is to stand there on every token, [d]: its mean ("mean ablation"), or zeros.
        bos: replace it on BOS, too. By default BOS keeps its own activation, so that what is measured is the
            loss of what these places say about the text.
        batch_size: rows that go through the model at once.

    Returns:
        Nats per token.

    Raises:
        InputError: an unknown hook point, or something that is no vector.
    """
    tokens = as_tokens(model, tokens)
    check_hooks(model, list(values))
    for hook, value in values.items():
        if value.ndim != 1:
            raise InputError(f"values[{hook!r}]: expected one vector [d], got shape {list(value.shape)}.")
    return (_losses(model, tokens, values, bos, batch_size) - _losses(model, tokens, {}, bos, batch_size)).mean().item()


def _losses(
    model: TransformerBridge, tokens: Tokens, values: Mapping[str, Tensor], bos: bool = False, batch_size: int = 32
) -> Tensor:
    """The loss on every token that has one, [n], with the activations at some hook points replaced."""
    losses = []
    for start in range(0, len(tokens), check_count(batch_size, "batch_size")):
        part = tokens[start : start + batch_size]
        where = (part.mask if bos else part.content)[..., None]

        def replace(acts: Tensor, hook: Any, value: Tensor, where: Tensor = where) -> Tensor:
            return torch.where(where, value.to(acts), acts)

        edits = [(hook, partial(replace, value=value)) for hook, value in values.items()]
        logits = model.run_with_hooks(part.ids, fwd_hooks=edits)
        losses.append(next_token_loss(logits, part))
    return torch.cat(losses)


@torch.no_grad()
def parts_of_layers(model: TransformerBridge, tokens: Tokens) -> pd.DataFrame:
    """What attention and MLP of each layer write, one row for each part, in the order in which they write.

    BOS and padding are left out.

    Args:
        model: a loaded model.
        tokens: from `tokenize`.

    Returns:
        part (its name), layer, kind ("attention" or "MLP"), hook (where what it writes can be read), stream
        (mean length of the residual stream just before, model units), writes (mean length of what the part
        adds), along (mean cosine of the two: above 0 it strengthens what is there, below 0 it erases) and
        cost (nats per token lost when the part says the same on every token, its mean: `replacement_cost`).
    """
    tokens, rows = as_tokens(model, tokens), []
    clean = _losses(model, tokens, {})
    for layer in range(model.cfg.n_layers):
        for kind, ends in PARTS.items():
            out, before = (f"blocks.{layer}.{end}" for end in ends)
            acts = extract(model, tokens, [out, before])
            added, stream = acts[out][tokens.content], acts[before][tokens.content]
            rows.append({
                "part": f"{kind} {layer}", "layer": layer, "kind": kind, "hook": out,
                "stream": stream.norm(dim=1).mean().item(),
                "writes": added.norm(dim=1).mean().item(),
                "along": torch.cosine_similarity(added, stream).mean().item(),
                "cost": (_losses(model, tokens, {out: added.mean(0)}) - clean).mean().item(),
            })
    return pd.DataFrame(rows)
