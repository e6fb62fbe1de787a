"""Loading a language model, looking inside it, and changing what happens there.

Everything goes through TransformerLens's `TransformerBridge`: the Hugging Face model, with a named hook
point at every step of the computation. The same lines load a folder and a model of the hub.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from solutions.data import Text, Tokens, check_acts, tokenize
from solutions.errors import (
    InputError,
    ModelNotAvailable,
    check_count,
    check_model,
    check_tensor,
    check_text,
    first_line,
    unknown_name,
)
from solutions.targets import PROCESSING_STEPS, Target, check_target

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

# ---- loading


def pick_device(device: str | torch.device | None = None) -> torch.device:
    """The device asked for, if this machine has it; by default the GPU where there is one, else the CPU."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"{device!r} is not a device. Use 'cpu', 'cuda', 'cuda:1', … or 'mps'.") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise InputError(f"no {chosen} here: torch finds {torch.cuda.device_count()} GPUs. Use device='cpu'.")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise InputError("no mps device here. Use device='cpu'.")
    if chosen.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"models run on 'cpu', 'cuda' or 'mps', got {str(chosen)!r}.")
    return chosen


def load_model(target: Target, device: str | torch.device | None = None) -> TransformerBridge:
    """Load the target's model in float32, processed the way its SAE expects.

    Args:
        target: what is being studied.
        device: where to put it; by default the GPU where there is one, else the CPU.

    Returns:
        The model, ready to be read. `model.target` remembers what it was loaded as.

    Raises:
        ModelNotAvailable: it is not on this machine and cannot be downloaded now, or a file is damaged.
    """
    check_target(target)
    device = pick_device(device)
    folder = _model_folder(target)

    from transformer_lens.model_bridge import TransformerBridge
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model = TransformerBridge.boot_transformers(str(folder), device=device, dtype=torch.float32)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelNotAvailable(
            f"{target.model!r} is not a model TransformerLens can open: {first_line(error)}"
        ) from error
    finally:
        if bars:
            logging.enable_progress_bar()
    if any(target.processing.values()):
        model.enable_compatibility_mode(disable_warnings=True, **_all_steps(target.processing))
    model.cfg.model_name = Path(target.model).name if target.model_folder else target.model
    model.target = target
    return model.eval()


def _all_steps(processing: Mapping[str, bool]) -> dict[str, bool]:
    """Every processing step, on or off: TransformerLens switches on whatever is left unsaid."""
    return {step: bool(processing.get(step, False)) for step in PROCESSING_STEPS}


#: Files that hold a model's weights. A pickle can run code when it is opened, so none ever is.
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def _model_folder(target: Target) -> Path:
    """The folder with the target's model, checked: embedded, the reader's own, or the hub's cache."""
    from solutions import EMBEDDED_TARGETS, hub

    what = f"the model {target.model!r}"
    if target.model in EMBEDDED_TARGETS:
        return hub.embedded(target.model)
    if (folder := target.model_folder) is not None:
        if not (folder / "config.json").is_file():
            raise ModelNotAvailable(f"no model in {folder}: a Hugging Face folder has a config.json.")
        if not any((folder / name).is_file() for name in WEIGHTS):
            raise ModelNotAvailable(
                f"no weights in {folder}: expected {' or '.join(WEIGHTS)}. Pickles are not loaded."
            )
        hub.check_files(folder, what)
        return folder
    return hub.local_copy(
        repos=_hub_names(target.model),
        wanted=(
            ["config.json"],
            WEIGHTS,
            ["tokenizer.json", "vocab.json+merges.txt", "tokenizer.model"],
        ),
        patterns=("*.json", "*.txt", "*.safetensors", "tokenizer.model"),
        what=what,
    )


def _hub_names(name: str) -> list[str]:
    """The names a model goes by on the hub, the official one first: gpt2-small is openai-community/gpt2, or gpt2."""
    name = {"gpt2-small": "gpt2"}.get(name, name)
    if "/" not in name and not name.startswith("gpt2"):
        from transformer_lens.supported_models import MODEL_ALIASES

        name = next((official for official, aliases in MODEL_ALIASES.items() if name in aliases), name)
    return [name, f"openai-community/{name}"] if name.startswith("gpt2") else [name]


# ---- looking


def describe_model(model: TransformerBridge) -> pd.DataFrame:
    """One row per property: layers, width, heads, vocabulary, context, parameters, processing."""
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
    """
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(model.original_model.config)
    return sum(p.numel() for p in empty.parameters())


def processing_of(model: TransformerBridge) -> list[str] | None:
    """The steps applied to the weights; None when nobody wrote them down (not loaded by `load_model`)."""
    target = getattr(model, "target", None)
    if target is not None:
        return [step for step, applied in target.processing.items() if applied]
    return None if getattr(model, "_weights_processed", False) else []


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
    """The hook points of a model.

    Args:
        model: a loaded model.
        pattern: a regular expression; all hook points whose name it matches. Without it, the ones of
            `HOOK_KINDS`.

    Returns:
        One row per hook point: name, kind, layer (-1 outside the blocks), holds.
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

    Raises:
        InputError: naming the unknown hook and the closest known ones.
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


# ---- extraction


def as_tokens(model: TransformerBridge, texts: str | Sequence[str] | Sequence[Text] | Tokens) -> Tokens:
    """Texts or tokens to tokens on the model's device. Texts get BOS when the model's target wants it."""
    check_model(model)
    if not isinstance(texts, Tokens):
        target = getattr(model, "target", None)
        return tokenize(model, texts, prepend_bos=True if target is None else target.prepend_bos)
    largest = int(texts.ids.max())
    if largest >= model.cfg.d_vocab or int(texts.ids.min()) < 0:
        raise InputError(f"token ids must be 0 to {model.cfg.d_vocab - 1} for this model, got {largest}.")
    if texts.ids.shape[1] > model.cfg.n_ctx:
        raise InputError(f"rows have {texts.ids.shape[1]} tokens; the model reads at most {model.cfg.n_ctx}.")
    return texts.to(model.cfg.device)


@torch.no_grad()
def extract(
    model: TransformerBridge,
    texts: str | Sequence[str] | Sequence[Text] | Tokens,
    hooks: str | Sequence[str],
    batch_size: int = 32,
) -> dict[str, Tensor]:
    """Activations at the hook points, per token. Nothing is averaged and nothing above the last hook is run.

    Args:
        model: a loaded model.
        texts: texts, or tokens from `tokenize`.
        hooks: one hook point or several.
        batch_size: how many rows go through the model at once.

    Returns:
        Hook name to activations [batch, pos, d]. Attention patterns are [batch, head, query, key], what single heads
        compute is [batch, pos, head, d_head]. Padding positions hold numbers too, so leave them out with
        `tokens.mask`.
    """
    hooks = check_hooks(model, hooks)
    tokens = as_tokens(model, texts)
    layers = [_split(hook)[0] for hook in hooks]
    inside = all(hook.startswith("blocks.") or hook.endswith("embed") for hook in hooks)
    stop = max(layers) + 1 if inside and max(layers) + 1 < model.cfg.n_layers else None
    pieces: dict[str, list[Tensor]] = {hook: [] for hook in hooks}
    for start in range(0, len(tokens), check_count(batch_size, "batch_size")):
        ids = tokens.ids[start : start + batch_size]
        _, cache = model.run_with_cache(
            ids, names_filter=hooks, stop_at_layer=stop, return_cache_object=False
        )
        for hook in hooks:
            if cache.get(hook) is None:
                raise InputError(f"hook point {hook!r} never fires in this model. See hook_points(model).")
            pieces[hook].append(cache[hook])
    return {hook: torch.cat(parts) for hook, parts in pieces.items()}


#: Below this share of the activations' standard deviation a value counts as near zero.
NEAR_ZERO = 0.01


def activation_statistics(acts: Tensor | Mapping[str, Tensor], tokens: Tokens) -> pd.DataFrame:
    """What the activations look like. BOS and padding are left out, and the table says how many.

    Args:
        acts: [batch, pos, d], or a mapping from hook name to that.
        tokens: the tokens they belong to.

    Returns:
        One row per hook: mean, std, min, max over all numbers; mean_norm (mean length of a token's vector)
        and bos_norm (the same for BOS: why it is left out); near_zero (share of numbers smaller in size
        than 1% of the standard deviation); d; n_tokens counted and n_left_out.
    """
    if isinstance(acts, Tensor):
        acts = {"activations": acts}
    if not isinstance(tokens, Tokens):
        raise InputError(f"tokens must be Tokens from `tokenize`, got {type(tokens).__name__}.")
    if not tokens.n_content:
        raise InputError(
            "there is nothing but BOS and padding in these tokens. Give a text with at least one token."
        )
    rows = {}
    for hook, x in acts.items():
        check_acts(x, tokens, f"acts[{hook!r}]")
        kept = x[tokens.content.to(x.device)].float()
        bos = x[tokens.bos.to(x.device)].float()
        std = kept.std()
        rows[hook] = {
            "mean": kept.mean().item(),
            "std": std.item(),
            "min": kept.min().item(),
            "max": kept.max().item(),
            "mean_norm": kept.norm(dim=-1).mean().item(),
            "bos_norm": bos.norm(dim=-1).mean().item() if len(bos) else float("nan"),
            "near_zero": (kept.abs() < NEAR_ZERO * std).float().mean().item(),
            "d": x.shape[-1],
            "n_tokens": len(kept),
            "n_left_out": x.shape[0] * x.shape[1] - len(kept),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("hook")


# ---- prediction


@torch.no_grad()
def next_tokens(model: TransformerBridge, prompt: str, k: int = 10) -> pd.DataFrame:
    """The `k` likeliest next tokens: token, probability, logit, likeliest first; the index is the rank."""
    check_model(model)
    k = min(check_count(k, "k"), model.cfg.d_vocab)
    logits = model(as_tokens(model, check_text(prompt, "prompt")).ids)[0, -1]
    top = logits.log_softmax(-1).topk(k)
    return pd.DataFrame(
        {
            "token": [model.tokenizer.decode([i]) for i in top.indices.tolist()],
            "probability": top.values.exp().tolist(),
            "logit": logits[top.indices].tolist(),
        },
        index=pd.RangeIndex(1, k + 1, name="rank"),
    )


@torch.no_grad()
def generate(
    model: TransformerBridge,
    prompt: str,
    max_new_tokens: int = 30,
    temperature: float = 1.0,
    seed: int = 0,
) -> str:
    """Continue a prompt, one token after another.

    Args:
        model: a loaded model.
        prompt: how the text begins.
        max_new_tokens: how many tokens to add at most (the model may end the text sooner).
        temperature: 0 always takes the likeliest token; 1 samples from the model's own probabilities.
        seed: the same seed gives the same text.

    Returns:
        The prompt and its continuation.
    """
    check_count(max_new_tokens, "max_new_tokens")
    if not isinstance(temperature, int | float) or not 0 <= temperature < float("inf"):
        raise InputError(f"temperature must be a number of at least 0, got {temperature!r}.")
    ids = as_tokens(model, check_text(prompt, "prompt")).ids
    dice = torch.Generator(device="cpu").manual_seed(seed)
    ends = {model.tokenizer.eos_token_id, model.tokenizer.bos_token_id}
    new: list[int] = []
    for _ in range(max_new_tokens):
        logits = model(ids[:, -model.cfg.n_ctx :])[0, -1].float().cpu()
        if temperature == 0:
            token = int(logits.argmax())
        else:
            token = int(torch.multinomial((logits / temperature).softmax(-1), 1, generator=dice))
        if token in ends:
            break
        new.append(token)
        ids = torch.cat([ids, ids.new_tensor([[token]])], dim=1)
    return prompt + model.tokenizer.decode(new, clean_up_tokenization_spaces=False)


def run_with_edit(
    model: TransformerBridge,
    texts: str | Sequence[str] | Tokens,
    hook: str,
    edit: Callable[[Tensor], Tensor],
) -> Tensor:
    """Run the model with its activations at one hook point replaced by `edit(activations)`.

    Args:
        model: a loaded model.
        texts: texts, or tokens.
        hook: where to reach in.
        edit: takes activations [batch, pos, d] and returns the same shape.

    Returns:
        Logits [batch, pos, vocabulary].
    """
    (hook,) = check_hooks(model, hook)
    tokens = as_tokens(model, texts)

    def replace(acts: Tensor, hook: Any) -> Tensor:
        edited = edit(acts)
        if not isinstance(edited, Tensor) or edited.shape != acts.shape:
            found = list(edited.shape) if isinstance(edited, Tensor) else type(edited).__name__
            raise InputError(f"edit must return a tensor of shape {list(acts.shape)}, got {found}.")
        return edited.to(acts.dtype)

    return model.run_with_hooks(tokens.ids, fwd_hooks=[(hook, replace)])


def next_token_loss(logits: Tensor, tokens: Tokens) -> Tensor:
    """Cross-entropy of each next-token prediction, in nats.

    Args:
        logits: [batch, pos, vocabulary].
        tokens: the tokens they were computed on.

    Returns:
        [n] one loss for every real token that has a token before it. The first token of a row is predicted
        by nothing.
    """
    check_tensor(logits, "logits", shape="batch pos vocabulary")
    check_acts(logits, tokens, "logits")
    real = tokens.mask[:, 1:].to(logits.device)
    if not real.any():
        raise InputError(
            "every row has a single token, so there is no next token to predict. Give a longer text."
        )
    return F.cross_entropy(logits[:, :-1][real], tokens.ids.to(logits.device)[:, 1:][real], reduction="none")


@torch.no_grad()
def loss(model: TransformerBridge, texts: str | Sequence[str] | Tokens, batch_size: int = 32) -> float:
    """Mean cross-entropy of the model's next-token predictions, in nats per token; padding is left out."""
    tokens = as_tokens(model, texts)
    losses = [
        next_token_loss(model(part.ids), part)
        for part in (tokens[i : i + batch_size] for i in range(0, len(tokens), batch_size))
    ]
    return torch.cat(losses).mean().item()
