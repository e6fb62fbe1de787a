"""Dose and response: how far a direction is pushed, what the model then does, and what that costs.

One push at one strength says little. Too weak, and nothing moves; too strong, and any direction wrecks the text. So a
direction is pushed at several strengths, and at each of them two things are measured: the *effect*, how much of the
probability and of the written text goes to the tokens one wants, and the *damage*, how unlikely the unsteered model
finds what was written (its loss; in AxBench, Wu et al. 2025, another model grades both).

A strength is a multiple of a vector. Directions whose vectors have the same length can be compared at every strength,
and a random direction of that length is the control that none of them may lose to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from solutions.errors import InputError, check_count, check_tensor, check_text, check_texts
from solutions.interventions.steering import check_room, fitting_vectors, pushed_rows
from solutions.models import as_tokens, check_hooks

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

#: What `dose_response` says of each direction and strength.
COLUMNS = ("direction", "draw", "strength", "length", "probability", "written", "loss", "distinct", "sample")

#: The token that stands where a text had ended already.
ENDED = -1


# ---- directions, and what each does to the next token


def difference_of_means(acts: Tensor, holds: Tensor) -> Tensor:
    """The direction from where something does not hold to where it does: the difference of two mean activations.

    It needs labels and no SAE, and it is the baseline that steering with latents has to beat (Wu et al. 2025 find it
    hard to beat on Gemma).

    Args:
        acts: [tokens, d] activations.
        holds: [tokens] bool, where it holds.

    Returns:
        [d] mean where it holds minus mean where it does not.

    Raises:
        InputError: it holds everywhere or nowhere, or the lengths differ.

    Example:
        >>> difference_of_means(torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 1.0]]), torch.tensor([True, True, False]))
        tensor([ 2., -1.])
    """
    check_tensor(acts, "acts", shape="tokens d")
    if not isinstance(holds, Tensor) or holds.dtype != torch.bool or holds.shape != acts.shape[:1]:
        found = f"{holds.dtype} {list(holds.shape)}" if isinstance(holds, Tensor) else type(holds).__name__
        raise InputError(f"holds must be torch.bool of shape {list(acts.shape[:1])}, got {found}.")
    if holds.all() or not holds.any():
        where = "everywhere" if holds.all() else "nowhere"
        raise InputError(f"it holds {where}: there are no two groups to compare. Give tokens of both kinds.")
    holds = holds.to(acts.device)
    return acts[holds].mean(0) - acts[~holds].mean(0)


@torch.no_grad()
def steering_effects(
    model: TransformerBridge,
    hook: str,
    vectors: Tensor,
    prompts: Sequence[str],
    wanted: Mapping[str, Sequence[int] | Tensor],
    *,
    batch_size: int = 128,
) -> dict[str, Tensor]:
    """The probability of wanted tokens on each prompt while each of many vectors is added at `hook`.

    Nothing is generated: it is the mean over the prompt's tokens of the probability that the next token is a wanted
    one. One pass of the model serves all sets of wanted tokens. The prompts stay apart, so that a vector can be chosen
    on some of them and judged on others.

    Args:
        model: a loaded model.
        hook: where to add them; BOS is left as it is.
        vectors: [n, d] one direction a row, as long as it is to be added. A row of zeros is the model as it is.
        prompts: texts.
        wanted: name to token ids, or to a mask [vocabulary] bool.
        batch_size: rows of tokens at once.

    Returns:
        For each name [n, prompts], probabilities from 0 to 1.

    Raises:
        InputError: an unknown hook point, vectors of another width, no wanted tokens, or an empty prompt.

    Example:
        >>> vectors = torch.stack([torch.zeros(target.d_in), push_vector(sae, [Push(latent, 1.0)], index.maximum())])
        >>> found = steering_effects(model, target.hook, vectors, ["The old man", "We went to"], {"the": [5, 6]})
        >>> found["the"].shape
        torch.Size([2, 2])
    """
    check_tensor(vectors, "vectors", shape="n d")
    (hook,) = check_hooks(model, hook)
    vectors, tokens = fitting_vectors(model, hook, vectors), as_tokens(model, check_texts(prompts, "prompts"))
    sets = torch.stack([_mask(model, ids, f"wanted[{name!r}]") for name, ids in wanted.items()])
    at_once = max(1, check_count(batch_size, "batch_size") // len(tokens))
    parts = []
    for part in vectors.split(at_once):
        with pushed_rows(model, hook, part.repeat_interleave(len(tokens), 0)[:, None]):
            logits = model(tokens.ids.repeat(len(part), 1))
        parts.append(_mean_probability(logits, tokens.content.repeat(len(part), 1), sets))
    found = torch.cat(parts).view(len(vectors), len(tokens), len(sets))
    return {name: found[..., i].cpu() for i, name in enumerate(wanted)}


def _mask(model: TransformerBridge, wanted: Sequence[int] | Tensor, name: str) -> Tensor:
    """[vocabulary] float: 1 for a wanted token."""
    n, device = int(model.cfg.d_vocab), model.cfg.device
    given = torch.as_tensor(wanted, device=device)
    if given.dtype != torch.bool:
        if given.ndim != 1 or given.is_floating_point() or ((given < 0) | (given >= n)).any():
            raise InputError(f"{name} must be token ids from 0 to {n - 1}, or a mask of {n}; got {wanted!r:.80}.")
        given = torch.zeros(n, dtype=torch.bool, device=device).index_fill_(0, given.long(), True)
    if given.shape != (n,) or not given.any():
        raise InputError(f"{name} must name at least one token of the {n}; got shape {list(given.shape)}.")
    return given.float()


def _mean_probability(logits: Tensor, counted: Tensor, sets: Tensor) -> Tensor:
    """[row, sets]: the probability of each set of tokens, mean over the counted positions of a row."""
    chances = logits.float().softmax(-1) @ sets.T
    counted = counted[..., None]
    return (chances * counted).sum(1) / counted.sum(1)


# ---- dose and response


class _Run(NamedTuple):
    """One direction at one strength."""

    direction: str
    draw: int
    strength: float
    vector: Tensor  # [d] what is added


class _Said(NamedTuple):
    """What came of rows of prompts that were continued."""

    probability: Tensor  # [row] of the wanted tokens, on the prompt
    new: Tensor          # [row, new tokens] int64, `ENDED` where the text had ended


@torch.no_grad()
def dose_response(
    model: TransformerBridge,
    hook: str,
    prompts: Sequence[str],
    directions: Mapping[str, Tensor],
    wanted: Sequence[int] | Tensor,
    strengths: Sequence[float],
    *,
    max_new_tokens: int = 16,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int = 128,
) -> pd.DataFrame:
    """Continue the prompts with each direction added at each strength, and measure effect and damage.

    Every prompt has dice of its own, and they are the same for all directions and strengths: what differs between
    two rows of the table is due to the vector, not to luck.

    Args:
        model: a loaded model.
        hook: where to add the vectors; BOS is left as it is.
        prompts: how the texts begin.
        directions: name to the vector [d] that is strength 1, or to several, [draws, d], as for random directions.
            Give all of them the same length, or strengths do not compare.
        wanted: token ids, or a mask [vocabulary] bool.
        strengths: multiples of the vectors; 0 is the model as it is.
        max_new_tokens: how many tokens to write at most.
        temperature: 0 always takes the likeliest token; 1 samples from the model's own probabilities.
        seed: of the dice.
        batch_size: rows of tokens at once.

    Returns:
        One row for each direction, draw and strength, with
        length: of the vector added;
        probability: of the wanted tokens, mean over the prompts' tokens, before anything is written;
        written: share of the written tokens that are wanted ones;
        loss: of the written tokens under the *unsteered* model, nats per token (the damage; its exponential is the
        perplexity);
        distinct: share of the written tokens that are the first of their kind in their text (a text that repeats
        itself is likely, and worthless);
        sample: what followed the first prompt.

    Raises:
        InputError: an unknown hook point, a direction of another width, a strength that is not finite, or a prompt
            that leaves no room to write in.

    Example:
        >>> vector = push_vector(sae, [Push(latent, 1.0)], index.maximum())
        >>> random = torch.stack([random_push(vector, k) for k in range(3)])
        >>> table = dose_response(model, target.hook, ["The old man", "We went to the"],
        ...                       {"latent": vector, "random": random}, [5, 6], [0, 0.5, 1], max_new_tokens=4)
        >>> len(table), table["strength"].unique().tolist()
        (12, [0.0, 0.5, 1.0])
    """
    (hook,) = check_hooks(model, hook)
    runs = _runs(model, hook, directions, strengths)
    written = _Prompts(model, prompts, wanted, max_new_tokens, temperature, seed)
    needed = {(run.direction, run.draw, run.strength) if run.strength else None: run for run in runs}
    measured: dict[tuple | None, tuple] = {}
    at_once = max(1, check_count(batch_size, "batch_size") // len(written.prompts))
    keys = list(needed)
    for start in range(0, len(keys), at_once):
        part = keys[start : start + at_once]
        found = written.measure(hook, torch.stack([needed[key].vector for key in part]))
        measured |= dict(zip(part, found, strict=True))
    rows = []
    for run in runs:
        key = (run.direction, run.draw, run.strength) if run.strength else None
        rows.append((run.direction, run.draw, run.strength, run.vector.norm().item(), *measured[key]))
    return pd.DataFrame(rows, columns=list(COLUMNS))


@torch.no_grad()
def prompting(
    model: TransformerBridge,
    prompts: Sequence[str],
    before: Mapping[str, str],
    wanted: Sequence[int] | Tensor,
    *,
    max_new_tokens: int = 16,
    temperature: float = 1.0,
    seed: int = 0,
) -> pd.DataFrame:
    """The baseline that needs no look inside: the same prompts with something written before them.

    The measures are those of `dose_response`, on the same tokens and with the same dice. The loss is that of the
    model which has *not* read what was written before, so it counts as damage whatever the bare prompt would not have
    made likely.

    Args:
        model: a loaded model.
        prompts: how the texts begin.
        before: name to what is written before each prompt, with the space or the line break between the two.
        wanted: token ids, or a mask [vocabulary] bool.
        max_new_tokens: how many tokens to write at most.
        temperature: see `dose_response`.
        seed: of the dice.

    Returns:
        One row for each name, with the columns of `dose_response`; strength and length are nan.

    Raises:
        InputError: an empty text, or one that leaves no room to write in.
    """
    written = _Prompts(model, prompts, wanted, max_new_tokens, temperature, seed)
    rows = [(name, 0, math.nan, math.nan, *written.measure_after(check_text(text, f"before[{name!r}]")))
            for name, text in before.items()]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _runs(
    model: TransformerBridge, hook: str, directions: Mapping[str, Tensor], strengths: Sequence[float]
) -> list[_Run]:
    """All directions at all strengths, checked."""
    if not directions:
        raise InputError("directions is empty. Give at least one name and its vector.")
    doses = [float(s) for s in strengths]
    if not doses or not all(map(math.isfinite, doses)):
        raise InputError(f"strengths must be at least one finite number, got {strengths!r:.80}.")
    runs = []
    for name, vectors in directions.items():
        check_tensor(vectors, f"directions[{name!r}]")
        drawn = fitting_vectors(model, hook, vectors if vectors.ndim == 2 else vectors[None])
        runs += [_Run(name, i, s, s * vector) for i, vector in enumerate(drawn) for s in doses]
    return runs


class _Prompts:
    """Prompts that are continued again and again, with the same dice."""

    def __init__(
        self, model: TransformerBridge, prompts: Sequence[str], wanted: Sequence[int] | Tensor, max_new_tokens: int,
        temperature: float, seed: int,
    ):
        self.model, self.prompts = model, check_texts(prompts, "prompts")
        self.wanted = _mask(model, wanted, "wanted")
        if not isinstance(temperature, int | float) or not 0 <= temperature < math.inf:
            raise InputError(f"temperature must be a number of at least 0, got {temperature!r}.")
        self.temperature, self.new = temperature, check_count(max_new_tokens, "max_new_tokens")
        self.tokens = [as_tokens(model, prompt) for prompt in self.prompts]
        for tokens in self.tokens:
            check_room(model, tokens, self.new)
        dice = torch.Generator().manual_seed(seed)
        self.dice = torch.rand(len(self.prompts), self.new, generator=dice)

    def measure(self, hook: str, vectors: Tensor) -> list[tuple]:
        """(probability, written, loss, distinct, sample) for each of the vectors [n, d]."""
        n = len(vectors)
        said: list[_Said] = []
        losses: list[Tensor] = []
        lengths = [tokens.ids.shape[1] for tokens in self.tokens]
        order: list[int] = []
        for length in sorted(set(lengths)):  # rows of one length need no padding, and share a pass
            mine = [i for i, other in enumerate(lengths) if other == length]
            ids = torch.cat([self.tokens[i].ids for i in mine]).repeat(n, 1)
            counted = torch.cat([self.tokens[i].content for i in mine]).repeat(n, 1)
            with pushed_rows(self.model, hook, vectors.repeat_interleave(len(mine), 0)[:, None]):
                found = self._continue(ids, counted, self.dice[mine].repeat(n, 1))
            said.append(_Said(found.probability.view(n, len(mine)), found.new.view(n, len(mine), -1)))
            losses.append(self._losses(ids, found.new).view(n, len(mine), -1))
            order += mine
        back = torch.tensor(order).argsort()
        probability = torch.cat([part.probability for part in said], 1)
        new = torch.cat([part.new for part in said], 1)[:, back]
        loss = torch.cat(losses, 1)[:, back]
        return [(probability[i].mean().item(), *self._summary(new[i], loss[i])) for i in range(n)]

    def measure_after(self, before: str) -> tuple:
        """The same of the unsteered model, with a text before each prompt."""
        longer = [as_tokens(self.model, before + prompt) for prompt in self.prompts]
        shapes = [(a.ids.shape[1], b.ids.shape[1]) for a, b in zip(longer, self.tokens, strict=True)]
        chances, new, loss = [], [], []
        order: list[int] = []
        for shape in sorted(set(shapes)):
            mine = [i for i, other in enumerate(shapes) if other == shape]
            check_room(self.model, longer[mine[0]], self.new)
            ids = torch.cat([longer[i].ids for i in mine])
            counted = torch.cat([longer[i].content for i in mine])
            own = int(self.tokens[mine[0]].content.sum())  # the prompt's own tokens stand at the end
            counted[:, :-own] = False
            found = self._continue(ids, counted, self.dice[mine])
            chances.append(found.probability)
            new.append(found.new)
            loss.append(self._losses(torch.cat([self.tokens[i].ids for i in mine]), found.new))
            order += mine
        back = torch.tensor(order).argsort()
        return (torch.cat(chances).mean().item(), *self._summary(torch.cat(new)[back], torch.cat(loss)[back]))

    def _continue(self, ids: Tensor, counted: Tensor, dice: Tensor) -> _Said:
        """Rows of one length, continued by the model as it now is. What it has read, it remembers (a KV cache).

        Versions of transformers and TransformerLens that do not fit leave the cache empty and say nothing, and the
        model would go on from the last token alone. Then everything is read again for each token.
        """
        ends = {self.model.tokenizer.eos_token_id, self.model.tokenizer.bos_token_id} - {None}
        logits, cache = self.model(ids, return_type="logits_and_cache", use_cache=True)
        remembers = cache.get_seq_length() == ids.shape[1]
        probability = _mean_probability(logits, counted, self.wanted[None])[:, 0].cpu()
        new = torch.full((len(ids), self.new), ENDED)
        writing = torch.ones(len(ids), dtype=torch.bool)
        for step in range(self.new):
            drawn = _drawn(logits[:, -1].float().cpu(), self.temperature, dice[:, step])
            writing &= ~torch.isin(drawn, torch.tensor(sorted(ends)))
            new[writing, step] = drawn[writing]
            if step + 1 == self.new or not writing.any():
                break
            unread = drawn[:, None].to(ids.device)
            ids = torch.cat([ids, unread], 1)
            if remembers:
                logits, cache = self.model(
                    unread, return_type="logits_and_cache", use_cache=True, past_key_values=cache)
            else:
                logits = self.model(ids)
        return _Said(probability, new)

    def _losses(self, ids: Tensor, new: Tensor) -> Tensor:
        """[row, new tokens]: the loss of each written token under the unsteered model; nan where none was written."""
        there = new != ENDED
        whole = torch.cat([ids, new.clamp(min=0).to(ids.device)], 1)
        logits = self.model(whole)[:, ids.shape[1] - 1 : -1].float().cpu()
        loss = F.cross_entropy(logits.flatten(0, 1), new.clamp(min=0).flatten(), reduction="none").view(new.shape)
        return loss.masked_fill(~there, math.nan)

    def _summary(self, new: Tensor, loss: Tensor) -> tuple[float, float, float, str]:
        """Share of wanted tokens, loss and share of first occurrences, over all that was written; the first text."""
        there = new != ENDED
        if not there.any():
            return math.nan, math.nan, math.nan, ""
        wanted = self.wanted.cpu()[new[there]].mean().item()
        kinds = sum(len(set(row[row != ENDED].tolist())) for row in new)
        first = self.model.tokenizer.decode(new[0][there[0]].tolist(), clean_up_tokenization_spaces=False)
        return wanted, loss[there].mean().item(), kinds / int(there.sum()), first


def _drawn(logits: Tensor, temperature: float, dice: Tensor) -> Tensor:
    """[row] the next tokens: the likeliest at temperature 0, else where the dice fall in the cumulated probability."""
    if temperature == 0:
        return logits.argmax(-1)
    cumulated = (logits / temperature).double().softmax(-1).cumsum(-1)
    return (cumulated < dice[:, None]).sum(-1).clamp(max=logits.shape[-1] - 1)
