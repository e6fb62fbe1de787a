"""Running a model: reading its activations, predicting, writing, and changing what happens on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from solutions.data import Text, Tokens, check_acts, tokenize
from solutions.errors import (
    InputError,
    check_count,
    check_model,
    check_tensor,
    check_text,
)
from solutions.models.hooks import check_hooks

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


def as_tokens(model: TransformerBridge, texts: str | Sequence[str] | Sequence[Text] | Tokens) -> Tokens:
    """Texts or tokens to tokens on the model's device. Texts get BOS when the model's target wants it.

    Args:
        model: a loaded model.
        texts: texts, or tokens from `tokenize`.

    Returns:
        The tokens, on the model's device.

    Raises:
        InputError: an empty text, ids that the model does not have, or rows longer than it can read.
    """
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

    Raises:
        InputError: an unknown hook point (near ones are named), an empty text, or a batch size below 1.

    Example:
        >>> acts = extract(model, "Paris is the capital of France.", target.hook)[target.hook]
        >>> acts.shape
        torch.Size([1, 8, 128])
    """
    hooks = list(dict.fromkeys(check_hooks(model, hooks)))
    tokens = as_tokens(model, texts)
    pieces: dict[str, list[Tensor]] = {hook: [] for hook in hooks}
    check_count(batch_size, "batch_size")
    with hook_reader(model, hooks) as read:
        for start in range(0, len(tokens), batch_size):
            for hook, acts in read(tokens.ids[start : start + batch_size]).items():
                pieces[hook].append(acts)
    return {hook: torch.cat(parts) for hook, parts in pieces.items()}


#: From rows of ids [batch, pos] to their activations at the hook points it was made for.
Reader = Callable[[Tensor], dict[str, Tensor]]


class _AllSeen(Exception):
    """The last hook wanted has fired: there is nothing more to compute."""


@contextmanager
def hook_reader(
    model: TransformerBridge, hooks: Sequence[str]
) -> Iterator[Reader]:
    """A function from rows of ids [batch, pos] to their activations at the hooks, for as long as the block lasts.

    Each call is one forward pass that ends the moment the last of the hooks has fired. The hooks are hung up once and
    taken down at the end: looking up a name among all of a model's takes as long as a small model's layer.
    When the model is run by somebody else meanwhile, they let everything pass.
    Nothing is checked but that every hook fires: `extract` and `harvest` are what to call.

    Args:
        model: a loaded model.
        hooks: one or several that `check_hooks` has passed.

    Yields:
        The function from ids [batch, pos] int64 to hook name to activations [batch, pos, d].

    Raises:
        InputError: when the function is called, for a hook point that never fires.

    Example:
        >>> ids = tokenize(model, text).ids
        >>> with hook_reader(model, [target.hook]) as read:
        ...     acts = read(ids)[target.hook]
        >>> acts.shape
        torch.Size([1, 8, 128])
    """
    seen: dict[str, Tensor] = {}
    reading = False

    def keep(name: str) -> Callable:
        def store(acts: Any, hook: Any) -> None:
            if not reading:
                return
            seen[name] = (acts[0] if isinstance(acts, tuple) else acts).detach()
            if len(seen) == len(hooks):
                raise _AllSeen

        return store

    @torch.no_grad()
    def read(ids: Tensor) -> dict[str, Tensor]:
        nonlocal reading
        seen.clear()
        reading = True
        try:
            model(ids, return_type=None)
        except _AllSeen:
            return {hook: seen[hook] for hook in hooks}
        finally:
            reading = False
        missing = next(hook for hook in hooks if hook not in seen)
        raise InputError(f"hook point {missing!r} never fires in this model. See hook_points(model).")

    with model.hooks(fwd_hooks=[(hook, keep(hook)) for hook in hooks]):
        yield read


def read_hooks(model: TransformerBridge, ids: Tensor, hooks: Sequence[str]) -> dict[str, Tensor]:
    """One forward pass over rows of ids [batch, pos] that ends the moment the last of the hooks has fired.

    Args:
        model: a loaded model.
        ids: [batch, pos] int64, on the model's device.
        hooks: as for `hook_reader`.

    Returns:
        Hook name to activations [batch, pos, d].

    Raises:
        InputError: a hook point never fires.
    """
    with hook_reader(model, hooks) as read:
        return read(ids)


#: Below this share of the activations' standard deviation a value counts as near zero.
NEAR_ZERO = 0.01


def activation_statistics(acts: Tensor | Mapping[str, Tensor], tokens: Tokens) -> pd.DataFrame:
    """What the activations look like. BOS and padding are left out, and the table says how many.

    Args:
        acts: [batch, pos, d], or a mapping from hook name to that.
        tokens: the tokens they belong to.

    Returns:
        One row per hook, with mean, std, min, max over all numbers; mean_norm (mean length of a token's
        vector) and bos_norm (the same for BOS: why it is left out); near_zero (share of numbers smaller in
        size than 1% of the standard deviation); d; n_tokens counted and n_left_out.

    Raises:
        InputError: the activations are of other tokens, or there is nothing but BOS and padding.

    Example:
        >>> tokens = tokenize(model, text)
        >>> acts = extract(model, tokens, target.hook)
        >>> activation_statistics(acts, tokens).columns.tolist()
        ['mean', 'std', 'min', 'max', 'mean_norm', 'bos_norm', 'near_zero', 'd', 'n_tokens', 'n_left_out']
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
    """The `k` likeliest next tokens: token, probability, logit, likeliest first; the index is the rank.

    Args:
        model: a loaded model.
        prompt: how the text begins.
        k: how many tokens.

    Returns:
        [k] rows.

    Raises:
        InputError: an empty prompt, or a `k` below 1.

    Example:
        >>> next_tokens(model, "Paris is the capital of", k=3)["token"].tolist()
        [' France', ' Portugal', ' Ireland']
    """
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

    Raises:
        InputError: an empty prompt, or a number that cannot be.

    Example:
        >>> generate(model, "Paris is the capital of", max_new_tokens=3, temperature=0)
        'Paris is the capital of France, and'
    """
    ids = as_tokens(model, check_text(prompt, "prompt")).ids
    (new,) = continuations(model, ids, max_new_tokens, temperature, seed)
    return prompt + model.tokenizer.decode(new, clean_up_tokenization_spaces=False)


@torch.no_grad()
def continuations(
    model: TransformerBridge, ids: Tensor, max_new_tokens: int, temperature: float, seed: int
) -> list[list[int]]:
    """Continue several rows at once, each as `generate` would continue it alone.

    One pass of the model serves all rows. Every row has dice of its own, of the same seed: rows differ only in what
    the model says.

    Args:
        model: a loaded model.
        ids: [batch, pos] int64, rows of the same length.
        max_new_tokens: how many tokens to add at most.
        temperature: see `generate`.
        seed: the same seed gives the same tokens.

    Returns:
        For each row, the ids of the tokens that were added; fewer where the model ended the text sooner.

    Raises:
        InputError: a number that cannot be.
    """
    check_count(max_new_tokens, "max_new_tokens")
    if not isinstance(temperature, int | float) or not 0 <= temperature < float("inf"):
        raise InputError(f"temperature must be a number of at least 0, got {temperature!r}.")
    dice = [torch.Generator(device="cpu").manual_seed(seed) for _ in ids]
    ends = {model.tokenizer.eos_token_id, model.tokenizer.bos_token_id}
    rows: list[list[int]] = [[] for _ in ids]
    writing = set(range(len(rows)))
    for _ in range(max_new_tokens):
        logits = model(ids[:, -model.cfg.n_ctx :])[:, -1].float().cpu()
        drawn = [_drawn(row, temperature, die) for row, die in zip(logits, dice, strict=True)]
        writing -= {i for i in writing if drawn[i] in ends}
        if not writing:
            break
        for i in writing:
            rows[i].append(drawn[i])
        ids = torch.cat([ids, ids.new_tensor(drawn)[:, None]], dim=1)  # a row that has ended goes on unheard
    return rows


def _drawn(logits: Tensor, temperature: float, dice: torch.Generator) -> int:
    """The next token of one row: the likeliest at temperature 0, else by the dice."""
    if temperature == 0:
        return int(logits.argmax())
    return int(torch.multinomial((logits / temperature).softmax(-1), 1, generator=dice))


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

    Raises:
        InputError: an unknown hook point, or `edit` returns another shape.

    Example:
        >>> logits = run_with_edit(model, text, target.hook, lambda acts: 0 * acts)
        >>> logits.shape
        torch.Size([1, 8, 4096])
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

    Raises:
        InputError: logits of other tokens, or no row with more than one token.
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
    """Mean cross-entropy of the model's next-token predictions, in nats per token; padding is left out.

    Args:
        model: a loaded model.
        texts: texts, or tokens from `tokenize`.
        batch_size: rows that go through the model at once.

    Returns:
        Nats per token.

    Raises:
        InputError: an empty text, or no row with more than one token.

    Example:
        >>> right, wrong = "Paris is the capital of France.", "Paris is the capital of cheese."
        >>> round(loss(model, right), 1), round(loss(model, wrong), 1)
        (1.9, 4.0)
    """
    tokens = as_tokens(model, texts)
    losses = [
        next_token_loss(model(part.ids), part)
        for part in (tokens[i : i + batch_size] for i in range(0, len(tokens), batch_size))
    ]
    return torch.cat(losses).mean().item()
