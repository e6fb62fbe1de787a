"""Steering: adding the directions of latents to a model's activations while it reads and writes.

A latent's decoder row is the direction the SAE writes when the latent is active. Added to the activation x at every
token, x + strength · maximum · W_dec[latent], it makes the model go on as if the latent were that much more active
(Templeton et al. 2024, "Influence on behavior"; Turner et al. 2023 steer with other directions in the same way).

The vector is added to the activation itself. The activation is not replaced by a reconstruction, so the SAE's error
term is kept, and whatever changes is due to the vector alone. To *replace* what an SAE sees, see
`solutions.sae.run_spliced`.

Any vector of that length changes what a model says. So nothing is shown here without its control: a random direction
of the same length (`random_push`), and what the unsteered model thinks of the text that came out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from solutions.analysis.controls import random_directions
from solutions.data import Text, Tokens
from solutions.errors import InputError, check_count, check_tensor, check_text, whole_number
from solutions.models import as_tokens, check_hooks, generate, next_token_loss, read_hooks, unembedding
from solutions.models.running import continuations
from solutions.sae.measure import check_sae, decode
from solutions.targets import Target

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

#: Where every model of TransformerLens receives its token ids.
TOKEN_IDS = "embed.hook_in"

#: The rows of `compare_steering`.
RUNS = ("unsteered", "steered", "random direction")


# ---- the vector


class Push(NamedTuple):
    """How hard to push one latent."""

    latent: int
    """The latent's number."""
    strength: float
    """In units of the latent's own largest activation on the reference text; 1 adds as much of its direction as the
    SAE wrote at the strongest place it ever saw. Negative pushes the other way."""


@torch.no_grad()
def push_vector(sae: SAE, pushes: Sequence[Push], maxima: Tensor) -> Tensor:
    """What the pushes add to an activation: the sum of strength · maximum · W_dec[latent].

    It is computed as decode(f) - decode(0), so that a decoder that scales its rows (by their norms, say) is followed
    and the vector has the units of the activations at the hook point.

    Args:
        sae: the SAE.
        pushes: one or more pushes; pairs (latent, strength) will do.
        maxima: [d_sae] each latent's largest activation on the reference text, `index.maximum()`.

    Returns:
        [d_in] the vector.

    Raises:
        InputError: for an unknown latent, a strength that is not a finite number, a latent without a maximum, or an
            SAE that rescales every token by itself: there, one vector for all tokens does not exist.

    Example:
        >>> vector = push_vector(sae, [Push(latent, 0.5)], index.maximum())
        >>> vector.shape, round((vector.norm() / index.maximum()[latent]).item(), 2)
        (torch.Size([128]), 0.5)
    """
    check_sae(sae)
    d_sae = int(sae.cfg.d_sae)
    scaling = getattr(sae.cfg, "normalize_activations", "none")
    if scaling in ("layer_norm", "constant_norm_rescale"):
        raise InputError(
            f"this SAE rescales each token by its own length (normalize_activations={scaling!r}), so no one vector "
            "stands for a latent. Steer with an SAE that does not."
        )
    check_tensor(maxima, "maxima", shape="d_sae", last=d_sae)
    features = torch.zeros(d_sae, device=sae.W_dec.device)
    for push in _checked(pushes, d_sae):
        unit = float(maxima[push.latent])
        if not 0 < unit < math.inf:
            raise InputError(
                f"latent {push.latent} has the maximum {unit:g} on the reference text, so a strength has no unit. "
                "Choose a latent that fires there."
            )
        features[push.latent] += push.strength * unit
    return decode(sae, features) - decode(sae, torch.zeros_like(features))


def _checked(pushes: Sequence[Push], d_sae: int) -> list[Push]:
    """The pushes, each a latent that exists and a finite strength."""
    if isinstance(pushes, Push) or not isinstance(pushes, Sequence) or isinstance(pushes, str) or not pushes:
        raise InputError(f"pushes must be a list of at least one Push(latent, strength), got {pushes!r:.80}.")
    checked = []
    for i, push in enumerate(pushes):
        if not isinstance(push, tuple | list) or len(push) != 2:
            raise InputError(f"pushes[{i}] must be a Push(latent, strength), got {push!r:.80}.")
        latent, strength = whole_number(push[0]), push[1]
        if latent is None or not 0 <= latent < d_sae:
            raise InputError(f"pushes[{i}]: latent must be a whole number from 0 to {d_sae - 1}, got {push[0]!r}.")
        if isinstance(strength, bool) or not isinstance(strength, int | float) or not math.isfinite(strength):
            raise InputError(f"pushes[{i}]: strength must be a finite number, got {strength!r}.")
        checked.append(Push(latent, float(strength)))
    return checked


def random_push(vector: Tensor, seed: int) -> Tensor:
    """The control: a random direction, uniform over all directions, as long as `vector`.

    Args:
        vector: [d_in] the vector it is a control for.
        seed: the same seed gives the same direction.

    Returns:
        [d_in] on the same device.

    Raises:
        InputError: `vector` is no [d_in].
    """
    check_tensor(vector, "vector", shape="d_in")
    return random_directions(1, len(vector), seed)[0].to(vector) * vector.norm()


@torch.no_grad()
def promoted_tokens(model: TransformerBridge, vector: Tensor, k: int = 10) -> Tensor:
    """The tokens whose logits the vector raises most on the direct path, before any later layer has a say.

    This is known without steering anything, so it can be used to judge steering.

    Args:
        model: a loaded model.
        vector: [d_model] a direction of the residual stream.
        k: how many tokens.

    Returns:
        [k] token ids, the most promoted first.

    Raises:
        InputError: a vector of another width, or a `k` below 1.

    Example:
        >>> vector = push_vector(sae, [Push(latent, 0.5)], index.maximum())
        >>> [model.tokenizer.decode([i]) for i in promoted_tokens(model, vector, k=3).tolist()]
        [' one', 'ous', ',']
    """
    effects = unembedding(model)
    check_tensor(vector, "vector", shape="d_model", last=effects.shape[0])
    return (vector.to(effects) @ effects).topk(min(check_count(k, "k"), effects.shape[1])).indices


# ---- the model with the vector in it


@contextmanager
def steering(
    model: TransformerBridge, hook: str, vector: Tensor, *, skip_bos: bool = True
) -> Iterator[TransformerBridge]:
    """As long as the block lasts, the model runs with `vector` added to its activations at `hook`.

    It is added at every position but that of BOS: attention heads use BOS as a resting place, and to move it is
    another experiment. The hook is taken down at the end, after an error too. Blocks can stand inside each other:
    their vectors add up. The model is steered for everybody who runs it meanwhile: threads that share a model need
    a lock around this.

    Args:
        model: a loaded model.
        hook: where to add it.
        vector: [d] as wide as the activations there.
        skip_bos: leave a beginning-of-sequence token in the first position as it is.

    Yields:
        The model.

    Raises:
        InputError: for an unknown hook point, a vector of another width, or one with a number that is not finite.

    Example:
        >>> vector = push_vector(sae, [Push(latent, 1.0)], index.maximum())
        >>> before = model(world.tokens.ids[:1])
        >>> with steering(model, target.hook, vector):
        ...     steered = model(world.tokens.ids[:1])
        >>> bool((steered != before).any()), bool((model(world.tokens.ids[:1]) == before).all())
        (True, True)
    """
    (hook,) = check_hooks(model, hook)
    check_tensor(vector, "vector", shape="d")
    with pushed_rows(model, hook, fitting_vectors(model, hook, vector), skip_bos):
        yield model


@contextmanager
def pushed_rows(model: TransformerBridge, hook: str, vectors: Tensor, skip_bos: bool = True) -> Iterator[None]:
    """`steering`, checked already: with one vector [d] for all rows, or with one for each, [batch, 1, d]."""
    bos = model.tokenizer.bos_token_id if skip_bos else None
    left_alone: Tensor | None = None

    def see_ids(ids: Tensor, hook: Any) -> None:
        nonlocal left_alone
        left_alone = ids[:, 0] == bos

    def add(acts: Tensor, hook: Any) -> Tensor:
        steered = acts + vectors.to(acts.dtype)
        if left_alone is not None:
            steered[left_alone, 0] = acts[left_alone, 0]
        return steered

    watch = [] if bos is None else [(TOKEN_IDS, see_ids)]
    with model.hooks(fwd_hooks=[*watch, (hook, add)]):
        yield


def fitting_vectors(model: TransformerBridge, hook: str, vector: Tensor) -> Tensor:
    """The vector, if it can be added to the activations at the hook point: one token is run to see their shape."""
    if not vector.isfinite().all():
        raise InputError("vector holds numbers that are not finite (NaN or infinity). Was the strength too large?")
    found = read_hooks(model, torch.zeros(1, 1, dtype=torch.int64, device=model.cfg.device), [hook])[hook]
    if found.ndim != 3:
        raise InputError(f"the activations at {hook!r} are not one vector per token: shape {list(found.shape)}.")
    check_tensor(vector, f"vector (for {hook!r})", last=found.shape[-1])
    return vector.detach().to(found.device)


@torch.no_grad()
def steered_logits(
    model: TransformerBridge, texts: str | Sequence[str] | Sequence[Text] | Tokens, hook: str, vector: Tensor
) -> Tensor:
    """Logits [batch, pos, vocabulary] of the model with `vector` [d] added at `hook`, at every position but BOS.

    Args:
        model: a loaded model.
        texts: texts, or tokens from `tokenize`.
        hook: where to add it.
        vector: [d] as wide as the activations there.

    Returns:
        [batch, pos, vocabulary].

    Raises:
        InputError: as for `steering`, or an empty text.

    Example:
        >>> vector = push_vector(sae, [Push(latent, 1.0)], index.maximum())
        >>> steered_logits(model, text, target.hook, vector).shape
        torch.Size([1, 8, 4096])
    """
    tokens = as_tokens(model, texts)
    with steering(model, hook, vector):
        return model(tokens.ids)


def steered_text(
    model: TransformerBridge,
    prompt: str,
    hook: str,
    vector: Tensor,
    max_new_tokens: int = 30,
    temperature: float = 1.0,
    seed: int = 0,
) -> str:
    """The prompt and its continuation by the model with `vector` [d] added at `hook`.

    The vector is added to the prompt's tokens, too. The other arguments are those of `solutions.models.generate`:
    with a vector of zeros and the same seed, the text is the same.

    Args:
        model: a loaded model.
        prompt: how the text begins.
        hook: where to add it.
        vector: [d] as wide as the activations there.
        max_new_tokens: how many tokens to add at most.
        temperature: see `solutions.models.generate`.
        seed: the same seed gives the same result.

    Returns:
        The prompt and its continuation.

    Raises:
        InputError: as for `steering` and `solutions.models.generate`.

    Example:
        >>> nothing = torch.zeros(target.d_in)
        >>> steered_text(model, "Paris is the capital of", target.hook, nothing, max_new_tokens=3, temperature=0)
        'Paris is the capital of France, and'
    """
    with steering(model, hook, vector):
        return generate(model, prompt, max_new_tokens, temperature, seed)


# ---- with its controls


@torch.no_grad()
def compare_steering(
    model: TransformerBridge,
    sae: SAE,
    hook: str | Target,
    prompt: str,
    pushes: Sequence[Push],
    maxima: Tensor,
    *,
    max_new_tokens: int = 30,
    temperature: float = 1.0,
    seed: int = 0,
    promoted: Sequence[int] | Tensor | None = None,
) -> pd.DataFrame:
    """The model as it is, steered, and pushed as far in a random direction, side by side.

    Args:
        model: a loaded model.
        sae: the SAE.
        hook: where to add the vector; a target stands for its hook point.
        prompt: how the text begins. Prompt and new tokens have to fit into the model's context.
        pushes: which latents to push, and how hard.
        maxima: [d_sae] each latent's largest activation on the reference text, `index.maximum()`.
        max_new_tokens: how many tokens to add at most.
        temperature: see `solutions.models.generate`.
        seed: of the dice for the text, the same in all rows, and of the random direction.
        promoted: token ids whose probability is reported; by default the ten of `promoted_tokens`.

    Returns:
        One row for each of "unsteered", "steered" and "random direction", with
        text: prompt and continuation;
        loss: of the continuation under the *unsteered* model, nats per token (the damage; nan when the model ended
        the text at once);
        promoted: probability of the promoted tokens taken together, mean over the tokens of the prompt.
        `table.attrs["promoted"]` holds those tokens as text.

    Raises:
        InputError: as for `push_vector` and `steering`, or a prompt that leaves no room to write in.

    Example:
        >>> table = compare_steering(model, sae, target, "The party was on", [Push(latent, 2.0)], index.maximum(),
        ...                          max_new_tokens=5)
        >>> table.index.tolist(), table.columns.tolist()
        (['unsteered', 'steered', 'random direction'], ['text', 'loss', 'promoted'])
    """
    hook = hook.hook if isinstance(hook, Target) else hook
    vector = push_vector(sae, pushes, maxima)
    tokens = as_tokens(model, check_text(prompt, "prompt"))
    check_room(model, tokens, check_count(max_new_tokens, "max_new_tokens"))
    if promoted is None:
        promoted = promoted_tokens(model, vector)
    wanted = torch.as_tensor(promoted, device=tokens.ids.device)
    pushes = torch.stack([torch.zeros_like(vector), vector, random_push(vector, seed)])
    ids = tokens.ids.expand(len(RUNS), -1)
    (hook,) = check_hooks(model, hook)
    rows = fitting_vectors(model, hook, pushes)[:, None]  # the three rows go through the model together
    with pushed_rows(model, hook, rows):
        chances = _probability(model(ids)[:, tokens.content[0]], wanted)
        new = continuations(model, ids, max_new_tokens, temperature, seed)
    texts = [prompt + model.tokenizer.decode(row, clean_up_tokenization_spaces=False) for row in new]
    columns = {"text": texts, "loss": _continuation_losses(model, texts, tokens), "promoted": chances}
    table = pd.DataFrame(columns, index=pd.Index(RUNS, name="run"))
    table.attrs["promoted"] = [model.tokenizer.decode([i]) for i in wanted.tolist()]
    return table


def check_room(model: TransformerBridge, tokens: Tokens, new: int) -> None:
    """Refuse a prompt that leaves no room to write in: its beginning would be forgotten on the way."""
    n = int(tokens.mask.sum()) + tokens.n_cut
    if n + new > model.cfg.n_ctx:
        raise InputError(
            f"the prompt has {n} tokens and {new} are to follow; the model reads at most {model.cfg.n_ctx}. "
            "Shorten the prompt or ask for fewer tokens."
        )


def _probability(logits: Tensor, wanted: Tensor) -> list[float]:
    """For each row of logits [batch, pos, vocabulary], the probability of the tokens together, mean over positions."""
    return [row.softmax(-1)[:, wanted].sum(-1).mean().item() for row in logits]


def _continuation_losses(model: TransformerBridge, texts: Sequence[str], prompt: Tokens) -> list[float]:
    """Mean loss of what follows the prompt in each text, in nats per token, under the model as it is."""
    tokens = as_tokens(model, texts)
    logits, losses = model(tokens.ids), []
    for i in range(len(tokens)):
        row = next_token_loss(logits[i : i + 1], tokens[i : i + 1])[prompt.ids.shape[1] - 1 :]
        losses.append(row.mean().item() if len(row) else math.nan)
    return losses
