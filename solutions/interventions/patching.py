"""Activation patching: where on its way through the model an answer can be found.

Two prompts of the same length call for two answers. The model is run on one of them, and one activation is copied in
from its run on the other (Meng et al. 2022 call it causal tracing; Heimersheim and Nanda 2024, arXiv 2404.15255, say
what it does and does not show). It can be done in two directions, which ask two questions:

* "restore": into the run on the corrupt prompt comes an activation of the clean one. What brings the answer back is
  *sufficient*, given the rest.
* "destroy": into the run on the clean prompt comes an activation of the corrupt one. What takes the answer away is
  *necessary*, given the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from solutions.data import str_tokens
from solutions.errors import InputError, check_model, unknown_name
from solutions.interventions.ablation import latents_on, places_in
from solutions.interventions.facts import Asked, Fact, ask
from solutions.models import check_hooks, extract

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

#: The two directions of patching.
DIRECTIONS = ("restore", "destroy")

#: What one layer adds to the residual stream, and the stream itself: where to patch, by name.
SITES = {
    "residual stream": "blocks.{layer}.hook_resid_pre",
    "attention output": "blocks.{layer}.hook_attn_out",
    "MLP output": "blocks.{layer}.hook_mlp_out",
}


class Pair(NamedTuple):
    """Two facts of one kind whose prompts have the same length and different answers."""

    clean: Fact
    """The fact whose answer is looked for."""
    corrupt: Fact
    """The fact whose answer takes its place."""


def fact_pairs(model: TransformerBridge, facts: Sequence[Fact]) -> list[Pair]:
    """For each fact another one of its kind to patch with: as many tokens, as few different ones as possible.

    Args:
        model: a loaded model.
        facts: the facts.

    Returns:
        Pairs, in the order of the facts. A fact without a partner is left out. Among equally good partners the next
        in the list is taken, so that not all facts get the same.

    Raises:
        InputError: an answer is not a single token of this model.

    Example:
        >>> pair = fact_pairs(model, facts_of(target, model, "landmark_city"))[0]
        >>> pair.clean.prompt, pair.corrupt.answer != pair.clean.answer
        ('The Eiffel Tower is in', True)
    """
    asked = ask(model, facts)
    lengths = asked.tokens.mask.sum(1).tolist()
    differing = (asked.tokens.ids[:, None] != asked.tokens.ids[None]).sum(-1)
    pairs = []
    for i, fact in enumerate(facts):
        partners = [
            (int(differing[i, j]), (j - i) % len(facts), j)
            for j, other in enumerate(facts)
            if other.kind == fact.kind and other.answer != fact.answer and lengths[i] == lengths[j]
        ]
        if partners:
            pairs.append(Pair(fact, facts[min(partners)[-1]]))
    return pairs


def sites(model: TransformerBridge, site: str = "residual stream") -> list[str]:
    """The hook points of one kind, a layer each; the residual stream ends with what the last layer leaves.

    Args:
        model: a loaded model.
        site: one of `SITES`.

    Returns:
        Hook points, from the first layer to the last.

    Raises:
        InputError: an unknown site.
    """
    check_model(model)
    if site not in SITES:
        raise unknown_name("site", site, SITES)
    hooks = [SITES[site].format(layer=layer) for layer in range(model.cfg.n_layers)]
    if site == "residual stream":
        hooks.append(f"blocks.{model.cfg.n_layers - 1}.hook_resid_post")
    return check_hooks(model, hooks)


class Both(NamedTuple):
    """The two runs of a pair, one of them the receiver of patches and one the giver."""

    receiver: Asked
    """The prompt that is run with patches; its ids are the clean answer and the corrupt one in both directions."""
    giver: Asked
    """The prompt that activations are copied from."""
    start: float
    """Logit difference (clean answer - corrupt answer) of the receiver as it is."""
    end: float
    """The same of the giver."""

    def moved(self, difference: Tensor) -> Tensor:
        """How far logit differences have moved from the receiver's (0) to the giver's (1).

        Args:
            difference: logit differences of the receiver with something patched in, of any shape.

        Returns:
            Shares of the same shape; below 0 and above 1 can happen.
        """
        return (difference - self.start) / (self.end - self.start)


@torch.no_grad()
def both_runs(model: TransformerBridge, pair: Pair, direction: str = "restore") -> Both:
    """Make a pair ready to be patched.

    Args:
        model: a loaded model.
        pair: the facts.
        direction: "restore" patches the corrupt run with clean activations, "destroy" the other way.

    Returns:
        Receiver, giver, and where they start and end.

    Raises:
        InputError: an unknown direction, prompts of different lengths, or prompts to which the model gives the same
            logit difference, so that there is nothing to move.
    """
    if direction not in DIRECTIONS:
        raise unknown_name("direction", direction, DIRECTIONS)
    clean, corrupt = pair
    facts = [Fact(fact.prompt, clean.answer, corrupt.answer, clean.kind) for fact in (clean, corrupt)]
    asked = ask(model, facts)
    lengths = asked.tokens.mask.sum(1).tolist()
    _same_length(pair, *lengths)
    differences = asked.difference(model(asked.tokens.ids)).tolist()
    receiver, giver = (1, 0) if direction == "restore" else (0, 1)
    if differences[0] == differences[1]:
        raise InputError("the model gives the same logit difference to both prompts: there is nothing to patch.")
    return Both(asked.pick([receiver]), asked.pick([giver]), differences[receiver], differences[giver])


@torch.no_grad()
def patched_difference(
    model: TransformerBridge, runs: Both, places: Sequence[tuple[Any, ...]], batch_size: int = 128
) -> Tensor:
    """Logit differences with single places patched, a place at a time.

    Args:
        model: a loaded model.
        runs: what `both_runs` made of a pair.
        places: a hook point, and indices into one row's activations [pos, …] there: (hook, position), or for what
            heads compute (hook, position, head).
        batch_size: places at once.

    Returns:
        [places].

    Raises:
        InputError: no places, or an unknown hook point.
    """
    if not places:
        raise InputError("places: expected at least one place to patch, got none.")
    hooks = check_hooks(model, list(dict.fromkeys(hook for hook, *_ in places)))
    given = extract(model, runs.giver.tokens, hooks)
    found = []
    for start in range(0, len(places), batch_size):
        some = places[start : start + batch_size]
        rows = runs.receiver.pick([0] * len(some))
        patches = [(hook, _patch([(row, *at) for row, (name, *at) in enumerate(some) if name == hook], given[hook]))
                   for hook in hooks]
        found.append(rows.difference(model.run_with_hooks(rows.tokens.ids, fwd_hooks=patches)))
    return torch.cat(found)


def _patch(places: Sequence[tuple[int, ...]], given: Tensor) -> Callable[[Tensor, Any], Tensor]:
    """A hook that fills places (row, position, …) with what the giver has there."""
    def fill(acts: Tensor, hook: Any) -> Tensor:
        acts = acts.clone()
        for row, *at in places:
            acts[(row, *at)] = given[(0, *at)]
        return acts

    return fill


#: The parts of a prompt, as far as patching is concerned.
ROLES = ("before", "differs", "after", "last")


def patch_positions(
    model: TransformerBridge, pair: Pair, hooks: Sequence[str] | str, direction: str = "restore"
) -> pd.DataFrame:
    """Patch every hook point at every position, one at a time.

    Args:
        model: a loaded model.
        pair: two facts whose prompts have the same length, see `fact_pairs`.
        hooks: where, for example `sites(model)`.
        direction: "restore" or "destroy".

    Returns:
        One row per hook and position, with hook, position, token (that of the clean prompt), other (that of the
        corrupt one), role (one of `ROLES`: a token that "differs", one "before" or "after" the first that does, or
        the "last") and moved: how far the patch moves the logit difference from that of the run patched (0) to that
        of the run copied from (1). Below 0 and above 1 can happen.

    Raises:
        InputError: an unknown hook point or direction, or prompts of different lengths.

    Example:
        >>> pair = fact_pairs(model, facts_of(target, model, "landmark_city"))[0]
        >>> table = patch_positions(model, pair, sites(model))
        >>> float(round(table["moved"].iloc[-1], 3))   # the last token after the last layer: everything
        1.0
    """
    runs = both_runs(model, pair, direction)
    hooks = check_hooks(model, hooks)
    ids = _ids(model, pair)
    words = [str_tokens(model, row) for row in ids]
    moved = runs.moved(patched_difference(model, runs, [(hook, i) for hook in hooks for i in range(len(words[0]))]))
    rows = [(hook, i, token, other, role) for hook in hooks
            for i, (token, other, role) in enumerate(zip(*words, _roles(ids), strict=True))]
    table = pd.DataFrame(rows, columns=["hook", "position", "token", "other", "role"])
    table["moved"] = moved.tolist()
    return table


def _roles(ids: Tensor) -> list[str]:
    """What part each position has, from the ids [2, pos] of the two prompts."""
    differs = (ids[0] != ids[1]).tolist()
    first = differs.index(True)
    roles = ["differs" if d else "before" if i < first else "after" for i, d in enumerate(differs)]
    return [*roles[:-1], "last"]


def _ids(model: TransformerBridge, pair: Pair) -> Tensor:
    """[2, pos] token ids of the clean and the corrupt prompt."""
    return ask(model, list(pair)).tokens.ids


def patch_heads(
    model: TransformerBridge, pair: Pair, direction: str = "restore", position: int = -1
) -> pd.DataFrame:
    """Patch what every attention head computes at one position, one head at a time.

    Args:
        model: a loaded model.
        pair: two facts whose prompts have the same length.
        direction: "restore" or "destroy".
        position: where the heads' outputs are patched; the last token by default.

    Returns:
        One row per head, with layer, head and moved, as in `patch_positions`.

    Raises:
        InputError: an unknown direction, a position that does not exist, or prompts of different lengths.
    """
    runs = both_runs(model, pair, direction)
    (at,) = places_in([position], runs.receiver.tokens)
    heads = [(layer, head) for layer in range(model.cfg.n_layers) for head in range(model.cfg.n_heads)]
    places = [(f"blocks.{layer}.attn.hook_z", at, head) for layer, head in heads]
    table = pd.DataFrame(heads, columns=["layer", "head"])
    table["moved"] = runs.moved(patched_difference(model, runs, places)).tolist()
    return table


def mean_over_pairs(
    pairs: Sequence[Pair], patch: Callable[[Pair], pd.DataFrame], by: Sequence[str] = ("hook", "role")
) -> pd.DataFrame:
    """One experiment on many pairs, averaged: one pair is an anecdote.

    Args:
        pairs: the pairs.
        patch: from a pair to a table with a column "moved", e.g. a call of `patch_positions`.
        by: columns that say what belongs together.

    Returns:
        One row per group in the order of the first pair's table, with the columns `by`, moved (the mean over pairs,
        each of which counts once), low and high (the smallest and the largest of a pair), and n, the number of pairs
        that have such a place.

    Raises:
        InputError: no pairs.
    """
    if not pairs:
        raise InputError("pairs: expected at least one pair, got none. See fact_pairs.")
    means = [patch(pair).groupby(list(by), sort=False)["moved"].mean() for pair in pairs]
    groups = pd.concat(means).groupby(level=list(range(len(by))), sort=False)
    return groups.agg(["mean", "min", "max", "size"]).set_axis(["moved", "low", "high", "n"], axis=1).reset_index()


def other_prompts(model: TransformerBridge, sae: SAE, hook: str, pairs: Sequence[Pair]) -> tuple[list[Fact], Tensor]:
    """Patching latent by latent: the facts of some pairs, and what their latents are on the corrupt prompts.

    With the second as the baseline of a `Bench`, an ablated latent becomes what it is on the corrupt prompt, and
    what is measured is how far the clean answer gives way to the corrupt one.

    Args:
        model: a loaded model.
        sae: the SAE.
        hook: where it reads.
        pairs: pairs of facts.

    Returns:
        The clean facts, each with the corrupt answer as its foil, and [facts, pos, d_sae] the latents of the corrupt
        prompts, zero on BOS and padding.

    Raises:
        InputError: no pairs, or the prompts of one have different lengths.
    """
    facts, elsewhere = paired_facts(model, pairs)
    return facts, latents_on(model, sae, hook, elsewhere)


def paired_facts(model: TransformerBridge, pairs: Sequence[Pair]) -> tuple[list[Fact], Asked]:
    """The two prompts of every pair, asked for the same two answers.

    Args:
        model: a loaded model.
        pairs: pairs of facts.

    Returns:
        The clean facts, each with the corrupt answer as its foil, and the corrupt prompts, made ready to be read.

    Raises:
        InputError: no pairs, or the prompts of one have different lengths.
    """
    facts = [Fact(clean.prompt, clean.answer, corrupt.answer, clean.kind) for clean, corrupt in pairs]
    others = [Fact(corrupt.prompt, corrupt.answer, clean.answer, clean.kind) for clean, corrupt in pairs]
    asked, elsewhere = ask(model, facts), ask(model, others)
    lengths = zip(asked.tokens.mask.sum(1).tolist(), elsewhere.tokens.mask.sum(1).tolist(), strict=True)
    for pair, (ours, theirs) in zip(pairs, lengths, strict=True):
        _same_length(pair, ours, theirs)
    return facts, elsewhere


def _same_length(pair: Pair, clean: int, corrupt: int) -> None:
    """Refuse a pair whose prompts have different numbers of tokens: their positions do not answer each other."""
    if clean != corrupt:
        raise InputError(
            f"the prompts of a pair must have the same number of tokens, got {clean} and {corrupt}: "
            f"{pair.clean.prompt!r}, {pair.corrupt.prompt!r}. See fact_pairs."
        )
