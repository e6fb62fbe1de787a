"""How much of a metric is due to each latent, at each token, and what really happens without it.

The metric is any differentiable number computed from the logits. Three guesses, all from gradients, all of the form
(latent - baseline) · slope:

* `gradient_times_activation`: the slope at the text as it is; the baseline is zero. One backward pass.
* `integrated_gradients`: the mean slope on the straight way from the baseline (Sundararajan et al. 2017). Its shares
  add up. Marks et al. 2024 use both slopes for latents of SAEs.
* `attribution_patching`: the slope at the text as it is; the baseline is the same latent on another text (Nanda
  2023; Syed et al. 2023).

`latent_effects` is what they guess: the latent is really put to its baseline, one latent at one token at a time, and
the model run again. All have the same sign: what the metric loses without the latent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from solutions.attribution.nodes import Metric, Nodes, OneText, finite, runner, take_apart
from solutions.attribution.paths import gradient_shares, integrated_shares, one_a_point
from solutions.errors import InputError, check_count, check_positions, check_tensor
from solutions.interventions.edits import latents_edited

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge


class Attribution(NamedTuple):
    """Shares of a metric for every latent at every token of one text."""

    latents: Tensor
    """[pos, d_sae] what the metric is guessed to lose when the latent goes to its baseline there."""
    error: Tensor
    """[pos] the same for what the SAE leaves out; zeros unless `move_error` was asked for."""
    activations: Tensor
    """[pos, d_sae] the latents as they are on this text."""
    words: list[str]
    """[pos] the text's tokens, BOS included."""
    value: float
    """The metric on the text as it is."""
    baseline: float
    """The metric with everything at its baseline."""

    @property
    def total(self) -> float:
        """All shares together."""
        return (self.latents.sum() + self.error.sum()).item()

    @property
    def gap(self) -> float:
        """What the shares miss: (value - baseline) - total. 0 is complete."""
        return self.value - self.baseline - self.total

    def table(self, k: int = 10) -> pd.DataFrame:
        """The largest shares, by size.

        Args:
            k: how many.

        Returns:
            One row per latent and token, with position, token, latent, activation, share.

        Raises:
            InputError: a `k` below 1.
        """
        d_sae = self.latents.shape[1]
        size = self.latents.abs().flatten()
        top = size.topk(min(check_count(k, "k"), int((size > 0).sum()))).indices
        where = [(i // d_sae, i % d_sae) for i in top.tolist()]
        rows = [(p, self.words[p], j, self.activations[p, j].item(), self.latents[p, j].item()) for p, j in where]
        return pd.DataFrame(rows, columns=["position", "token", "latent", "activation", "share"])


def gradient_times_activation(
    model: TransformerBridge,
    sae: SAE,
    hook: str,
    text: OneText,
    metric: Metric,
    *,
    positions: Sequence[int] | None = None,
    move_error: bool = False,
) -> Attribution:
    """Activation times gradient, for every latent at every token: a straight line's guess of its ablation.

    Args:
        model: a loaded model.
        sae: the SAE.
        hook: its hook point.
        text: one text, or its tokens (one row).
        metric: from logits [n, pos, vocabulary], n runs of this text, to one number for each, [n].
        positions: tokens whose latents count (BOS is 0, negative from the end); all but BOS by default.
        move_error: give the SAE's error a share, too; else it stays where it is.

    Returns:
        The shares.

    Raises:
        InputError: as for `take_apart`, a position that does not exist, or a metric without a gradient.

    Example:
        >>> fact = facts_of(target, model, "landmark_city")[0]
        >>> found = gradient_times_activation(model, sae, target.hook, fact.prompt, answer_gap(model, fact))
        >>> found.latents.shape == (len(found.words), target.d_sae)
        True
    """
    nodes = take_apart(model, sae, hook, text)
    return _attribute(model, sae, hook, nodes, metric, None, positions, move_error, None)


def integrated_gradients(
    model: TransformerBridge,
    sae: SAE,
    hook: str,
    text: OneText,
    metric: Metric,
    *,
    baseline: Tensor | None = None,
    positions: Sequence[int] | None = None,
    move_error: bool = False,
    steps: int = 32,
) -> Attribution:
    """Shares that add up: the gradient averaged on the straight way from the baseline to the text as it is.

    All latents travel together. So the sum is what the metric loses when *all* of them are at their baseline, and
    how it is divided between latents that can stand in for one another is a matter of this one way.

    Args:
        model: a loaded model.
        sae: the SAE.
        hook: its hook point.
        text: one text, or its tokens (one row).
        metric: from logits [n, pos, vocabulary] to one number for each run, [n].
        baseline: [d_sae] or [pos, d_sae] where the way begins, e.g. each latent's mean; zeros by default.
        positions: tokens whose latents count (BOS is 0, negative from the end); all but BOS by default.
        move_error: let the SAE's error travel along, from zero; else it stays where it is.
        steps: points on the way. See `Attribution.gap` for whether they were enough.

    Returns:
        The shares.

    Raises:
        InputError: as for `gradient_times_activation`, or a baseline of another shape.

    Example:
        >>> fact = facts_of(target, model, "landmark_city")[0]
        >>> found = integrated_gradients(model, sae, target.hook, fact.prompt, answer_gap(model, fact))
        >>> abs(found.gap) < 0.2
        True
    """
    nodes = take_apart(model, sae, hook, text)
    check_count(steps, "steps")
    return _attribute(model, sae, hook, nodes, metric, _latents_at(baseline, nodes), positions, move_error, steps)


def attribution_patching(
    model: TransformerBridge,
    sae: SAE,
    hook: str,
    text: OneText,
    other: OneText,
    metric: Metric,
    *,
    positions: Sequence[int] | None = None,
    move_error: bool = True,
    steps: int | None = None,
) -> Attribution:
    """A guess of what patching in the latents of another text would do, for every latent and token at once.

    (latent here - latent there) · gradient here: positive where the other text's latent would lower the metric.

    Args:
        model: a loaded model.
        sae: the SAE.
        hook: its hook point.
        text: one text, or its tokens (one row).
        other: the text to patch from, of as many tokens.
        metric: from logits [n, pos, vocabulary] to one number for each run, [n].
        positions: tokens whose latents count (BOS is 0, negative from the end); all but BOS by default.
        move_error: patch the SAE's error, too. All together is then the other text's activation, to the last bit.
        steps: None takes the gradient here alone; a number takes the mean over so many points on the way from there
            to here, and the shares add up.

    Returns:
        The shares; `baseline` is the metric with the activations of the other text.

    Raises:
        InputError: as for `gradient_times_activation`, or texts of different lengths.
    """
    nodes, there = (take_apart(model, sae, hook, t) for t in (text, other))
    if there.latents.shape != nodes.latents.shape:
        raise InputError(
            f"the texts must have as many tokens, to be patched token by token: {len(nodes.words)} and "
            f"{len(there.words)}. Choose another pair, or reword one."
        )
    if steps is not None:
        check_count(steps, "steps")
    return _attribute(model, sae, hook, nodes, metric, there.latents, positions, move_error, steps, there.error)


def _attribute(
    model: TransformerBridge,
    sae: SAE,
    hook: str,
    nodes: Nodes,
    metric: Metric,
    latents_there: Tensor | None,
    positions: Sequence[int] | None,
    move_error: bool,
    steps: int | None,
    error_there: Tensor | None = None,
) -> Attribution:
    """Shares of the nodes: by the gradient at the text as it is, or over `steps` points of the way."""
    function = runner(model, sae, hook, nodes, metric)
    here = nodes.packed
    there = torch.cat([
        torch.zeros_like(nodes.latents) if latents_there is None else latents_there,
        nodes.error if not move_error else torch.zeros_like(nodes.error) if error_there is None else error_there,
    ], dim=-1)
    moved = _moved(nodes, positions)
    there = torch.where(moved[:, None], there, here)      # BOS, and what was not asked for, stays as it is
    if steps is None:
        shares = gradient_shares(function, here, there)
    else:
        shares = integrated_shares(function, here, there, steps)
    with torch.no_grad():
        ends = function(torch.stack([here, there]))
    return Attribution(
        shares[:, : nodes.d_sae], shares[:, nodes.d_sae :].sum(-1), nodes.latents, nodes.words,
        finite(ends[0]), finite(ends[1]),
    )


def _moved(nodes: Nodes, positions: Sequence[int] | None) -> Tensor:
    """[pos] bool: the tokens whose latents count. BOS never does."""
    if positions is None:
        return nodes.inside
    chosen = torch.zeros_like(nodes.inside)
    chosen[check_positions(positions, len(chosen))] = True
    return chosen & nodes.inside


def _latents_at(baseline: Tensor | None, nodes: Nodes) -> Tensor | None:
    """A baseline as [pos, d_sae]."""
    if baseline is None:
        return None
    check_tensor(baseline, "baseline", last=nodes.d_sae)
    if baseline.ndim > 2 or (baseline.ndim == 2 and len(baseline) != len(nodes.latents)):
        raise InputError(
            f"baseline must be [d_sae] or [pos, d_sae] = {list(nodes.latents.shape)}, got {list(baseline.shape)}."
        )
    return baseline.to(nodes.latents).expand_as(nodes.latents)


# ---- what really happens


@torch.no_grad()
def latent_effects(
    model: TransformerBridge,
    sae: SAE,
    hook: str,
    text: OneText,
    metric: Metric,
    *,
    baseline: Tensor | None = None,
    positions: Sequence[int] | None = None,
    batch_size: int = 64,
) -> Tensor:
    """What the metric really loses when one latent at one token goes to its baseline, for all of them in turn.

    One run of the model for each latent that is not at its baseline already: thousands on a long text. The SAE's
    error stays where it is.

    Args:
        model: a loaded model.
        sae: the SAE.
        hook: its hook point.
        text: one text, or its tokens (one row).
        metric: from logits [n, pos, vocabulary] to one number for each run, [n].
        baseline: [d_sae] or [pos, d_sae] what each is set to; zero, which is its ablation, by default.
        positions: tokens whose latents count (BOS is 0, negative from the end); all but BOS by default.
        batch_size: runs that go through the model at once.

    Returns:
        [pos, d_sae] metric as it is minus metric without the latent; exactly 0 where nothing was changed.

    Raises:
        InputError: as for `integrated_gradients`.

    Example:
        >>> fact = facts_of(target, model, "landmark_city")[0]
        >>> effects = latent_effects(model, sae, target.hook, fact.prompt, answer_gap(model, fact))
        >>> effects.shape[-1] == target.d_sae
        True
    """
    nodes = take_apart(model, sae, hook, text)
    check_count(batch_size, "batch_size")
    there = _latents_at(baseline, nodes)
    there = torch.zeros_like(nodes.latents) if there is None else there
    differs = (nodes.latents != there) & _moved(nodes, positions)[:, None]
    effects = torch.zeros_like(nodes.latents)
    clean = finite(one_a_point(metric(model(nodes.tokens.ids)), 1))
    for places in differs.nonzero().split(batch_size) if differs.any() else ():
        row, (at, latent) = torch.arange(len(places)), places.T

        def put(latents: Tensor, row=row, at=at, latent=latent) -> Tensor:
            latents[row, at, latent] = there[at, latent]
            return latents

        with latents_edited(model, sae, hook, put):
            logits = model(nodes.tokens.ids.expand(len(places), -1))
        effects[at, latent] = clean - one_a_point(metric(logits), len(places))
    return effects


def compare_guesses(effects: Tensor, guesses: dict[str, Tensor], k: int = 10) -> pd.DataFrame:
    """How well guesses agree with true effects, over the places where something was changed.

    Args:
        effects: true effects, any shape; where they are exactly 0 nothing was changed, and the place is left out.
        guesses: name to guesses of the same shape.
        k: for `top`.

    Returns:
        One row per guess, with n; spearman (rank correlation); pearson; slope (of the effect on the guess, through
        0; above 1 the guess is too small); sign (share of places with the right sign); top (share of the k largest
        effects by size that are among the k largest guesses).

    Raises:
        InputError: shapes that differ, or fewer than three effects.

    Example:
        >>> effects = torch.tensor([1.0, 2.0, -3.0, 4.0])
        >>> compare_guesses(effects, {"half": effects / 2}).round(2).loc["half", ["spearman", "slope"]].tolist()
        [1.0, 2.0]
    """
    check_tensor(effects, "effects")
    changed = effects != 0
    if changed.sum() < 3:
        raise InputError(f"a comparison takes at least three effects, got {int(changed.sum())}.")
    true = pd.Series(effects[changed].double().tolist())
    k = min(check_count(k, "k"), len(true))
    rows = {}
    for name, guess in guesses.items():
        if check_tensor(guess, name).shape != effects.shape:
            raise InputError(f"{name} must have the shape of the effects, {list(effects.shape)}, got "
                             f"{list(guess.shape)}.")
        said = pd.Series(guess[changed].double().tolist())
        best, most = (set(x.abs().nlargest(k).index) for x in (true, said))
        rows[name] = {
            "n": len(true), "spearman": true.corr(said, method="spearman"), "pearson": true.corr(said),
            "slope": (true * said).sum() / (said**2).sum(),
            "sign": ((true > 0) == (said > 0)).mean(), "top": len(best & most) / k,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("guess")
