"""What a model is made of: its properties, and its hook points by name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor

from solutions.errors import (
    InputError,
    check_model,
    unknown_name,
)

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


def describe_model(model: TransformerBridge) -> pd.DataFrame:
    """One row per property: layers, width, heads, vocabulary, context, parameters, processing.

    Args:
        model: a loaded model.

    Returns:
        A column with the value of each.

    Raises:
        InputError: `model` is no model.
    """
    check_model(model)
    cfg = model.cfg
    rows = {
        "model": cfg.model_name,
        "architecture": cfg.architecture,
        "layers": cfg.n_layers,
        "d_model (width of the residual stream)": cfg.d_model,
        "attention heads per layer": cfg.n_heads,
        "d_head": cfg.d_head,
        "d_mlp (neurons per layer)": cfg.d_mlp,
        "vocabulary": cfg.d_vocab,
        "context (tokens)": cfg.n_ctx,
        "parameters": count_parameters(model),
        "dtype": str(next(model.original_model.parameters()).dtype).removeprefix("torch."),
        "device": str(cfg.device),
        "weight processing": ", ".join(processing_of(model) or ["none"]),
    }
    return pd.DataFrame({"value": rows.values()}, index=pd.Index(rows, name="property"))


def count_parameters(model: TransformerBridge) -> int:
    """Number of trained numbers, tied weights counted once.

    Counted on an empty copy: the bridge itself keeps some weights twice, whole and split by head.

    Args:
        model: a loaded model.

    Returns:
        The number.
    """
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(model.original_model.config)
    return sum(p.numel() for p in empty.parameters())


def processing_of(model: TransformerBridge) -> list[str] | None:
    """The steps applied to the weights; None when nobody wrote them down (not loaded by `load_model`).

    Args:
        model: a loaded model.

    Returns:
        The names of the steps, or None.
    """
    target = getattr(model, "target", None)
    if target is not None:
        return [step for step, applied in target.processing.items() if applied]
    return None if getattr(model, "_weights_processed", False) else []


def unembedding(model: TransformerBridge) -> Tensor:
    """[d_model, vocabulary]: how a direction in the last residual stream moves the logits, on the direct path.

    The last normalisation stands between the two. LayerNorm takes off the mean over d_model, then multiplies each
    dimension by a weight; RMSNorm only multiplies. Both are put into the matrix. Both also divide by the length of
    the whole stream: that is one factor for all logits, and it is left out.

    Args:
        model: a loaded model.

    Returns:
        [d_model, vocabulary] float32.

    Raises:
        InputError: `model` is no model.
    """
    check_model(model)
    gain = getattr(model.ln_final, "weight", None)
    folded = "fold_ln" in (processing_of(model) or [])
    effects = model.W_U if folded or gain is None else model.W_U * gain[:, None]
    if str(model.cfg.normalization_type).startswith("LN"):
        effects = effects - effects.mean(0, keepdim=True)
    return effects.detach()


#: The hook points a reader meets, by the end of their name: what each is called here, what flows through it.
HOOK_KINDS = {
    "hook_embed": ("embed", "token embeddings"),
    "hook_pos_embed": ("pos_embed", "position embeddings"),
    "hook_resid_pre": ("resid_pre", "the residual stream as a block begins"),
    "hook_resid_mid": ("resid_mid", "the residual stream between attention and MLP"),
    "hook_resid_post": ("resid_post", "the residual stream as a block ends"),
    "hook_attn_out": ("attn_out", "what attention adds to the residual stream"),
    "hook_mlp_out": ("mlp_out", "what the MLP adds to the residual stream"),
    "attn.hook_q": ("q", "queries, by head"),
    "attn.hook_k": ("k", "keys, by head"),
    "attn.hook_v": ("v", "values, by head"),
    "attn.hook_z": ("z", "what each head read, before the output matrix"),
    "attn.hook_attn_scores": ("attn_scores", "attention scores, before the softmax"),
    "attn.hook_pattern": ("pattern", "attention weights: who looks where"),
    "mlp.hook_pre": ("mlp_pre", "MLP neurons before the non-linearity"),
    "mlp.hook_post": ("mlp_post", "MLP neurons after the non-linearity"),
    "ln1.hook_normalized": ("ln1", "the attention's input after normalisation"),
    "ln2.hook_normalized": ("ln2", "the MLP's input after normalisation"),
    "ln_final.hook_normalized": ("ln_final", "the last residual stream after normalisation"),
}


def hook_points(model: TransformerBridge, pattern: str | None = None) -> pd.DataFrame:
    r"""The hook points of a model.

    Args:
        model: a loaded model.
        pattern: a regular expression; all hook points whose name it matches. Without it, the ones of
            `HOOK_KINDS`.

    Returns:
        One row per hook point, with name, kind, layer (-1 outside the blocks), holds.

    Raises:
        InputError: the pattern is not a regular expression.

    Example:
        >>> hook_points(model, r"blocks\.2\..*resid")["name"].tolist()
        ['blocks.2.hook_resid_pre', 'blocks.2.hook_resid_mid', 'blocks.2.hook_resid_post']
    """
    names = _live_hooks(model)
    if pattern is not None:
        try:
            names = [name for name in names if re.search(pattern, name)]
        except (re.error, TypeError) as error:
            raise InputError(f"pattern {pattern!r} is not a regular expression ({error}).") from error
    rows = []
    for name in names:
        layer, _, end = _split(name)
        kind, holds = HOOK_KINDS.get(end, (end.removeprefix("hook_"), ""))
        if pattern is not None or end in HOOK_KINDS:
            rows.append((name, kind, layer, holds))
    order = {kind: i for i, (kind, _) in enumerate(HOOK_KINDS.values())}
    rows.sort(
        key=lambda row: (row[2] if row[2] >= 0 else (99 if "final" in row[0] else -1), order.get(row[1], 99))
    )
    return pd.DataFrame(rows, columns=["name", "kind", "layer", "holds"])


def _split(hook: str) -> tuple[int, str, str]:
    """(layer, "blocks.L." or "", the rest of the name)."""
    found = re.match(r"(blocks\.(\d+)\.)(.*)", hook)
    return (int(found[2]), found[1], found[3]) if found else (-1, "", hook)


def layer_of(hook: str) -> int:
    """The block a hook point belongs to; -1 outside the blocks.

    Args:
        hook: its name.

    Returns:
        The block's number, or -1.

    Example:
        >>> layer_of("blocks.2.hook_resid_pre"), layer_of("hook_embed")
        (2, -1)
    """
    return _split(hook)[0]


def _live_hooks(model: TransformerBridge) -> list[str]:
    """Hook points that can fire: some wait for a setting, and rotary models add no positions."""
    check_model(model)
    rotary = model.cfg.positional_embedding_type != "standard"
    return [
        name
        for name in model.hook_dict
        if model._gated_hook_reason(name) is None and not (rotary and name == "hook_pos_embed")
    ]


def check_hooks(model: TransformerBridge, hooks: str | Sequence[str]) -> list[str]:
    """Return the hook names if the model has them all. TransformerLens silently ignores a mistyped one.

    Args:
        model: a loaded model.
        hooks: one hook point or several.

    Returns:
        The names, as a list.

    Raises:
        InputError: naming the unknown hook and the closest known ones.

    Example:
        >>> check_hooks(model, "blocks.2.hook_resid_prae")
        Traceback (most recent call last):
            ...
        solutions.errors.InputError: unknown hook point 'blocks.2.hook_resid_prae'. Did you mean ...
    """
    hooks = list(hooks) if isinstance(hooks, list | tuple | set | pd.Series) else [hooks]
    if not hooks:
        raise InputError("no hook points given. See hook_points(model) for the names.")
    live = set(_live_hooks(model))
    for hook in hooks:
        if not isinstance(hook, str) or hook not in live:
            layer = _split(hook)[0] if isinstance(hook, str) else -1
            if layer >= model.cfg.n_layers:
                raise InputError(f"no {hook!r}: the model has blocks 0 to {model.cfg.n_layers - 1}.")
            if hook in model.hook_dict:
                raise InputError(f"the hook point {hook!r} is switched off in this model and never fires.")
            known = hook_points(model)["name"]
            raise unknown_name("hook point", hook, known, "See hook_points(model) for all of them.")
    return hooks
