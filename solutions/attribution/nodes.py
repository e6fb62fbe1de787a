"""One text through a model and an SAE, taken apart: latents and errors that can be changed one by one.

At the hook point, every token's activation is decode(latents) + error. The numbers of both, side by side, are the
*nodes* of this room: [pos, d_sae + d_in]. Put back together they are the activation again, so the model computes
what it always computes; changed, they say what depends on what.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from solutions.attribution.paths import one_a_point
from solutions.data import Text, Tokens, str_tokens
from solutions.errors import InputError
from solutions.interventions.facts import Fact, answer_ids
from solutions.models import as_tokens, check_hooks, extract
from solutions.sae.measure import check_sae, encode

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

#: From logits [n, pos, vocabulary], n runs of one text, to one number for each run, [n].
Metric = Callable[[Tensor], Tensor]

#: What a text may be given as; it must be one.
OneText = str | Sequence[str] | Sequence[Text] | Tokens


class Nodes(NamedTuple):
    """A text's activations at one hook point, as latents and error."""

    tokens: Tokens     #: the text, one row
    words: list[str]   #: [pos] its tokens as text
    latents: Tensor    #: [pos, d_sae]; zeros on BOS, which is not taken apart
    error: Tensor      #: [pos, d_in] what decode(latents) leaves out; on BOS everything but the decoder's bias

    @property
    def packed(self) -> Tensor:
        """[pos, d_sae + d_in] latents and error side by side."""
        return torch.cat([self.latents, self.error], dim=-1)

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return self.latents.shape[-1]

    @property
    def inside(self) -> Tensor:
        """[pos] bool: true where the activation is taken apart, everywhere but on BOS."""
        return self.tokens.content[0]


def take_apart(model: TransformerBridge, sae: SAE, hook: str, text: OneText) -> Nodes:
    """Read one text, and split its activations at the hook point into latents and error.

    BOS is not taken apart: attention heads use it as a resting place, and SAEs are not trained on it.

    Args:
        model: a loaded model.
        sae: an SAE of this hook point.
        hook: the hook point.
        text: one text, or its tokens (one row).

    Returns:
        The nodes.

    Raises:
        InputError: more texts than one, an unknown hook point, an SAE of another width, or one that rescales every
            token by itself: there, a latent is no fixed direction.
    """
    check_sae(sae)
    check_straight(sae)
    tokens = one_row(model, text)
    (hook,) = check_hooks(model, hook)
    acts = extract(model, tokens, hook)[hook][0].float()
    if acts.ndim != 2 or acts.shape[-1] != sae.cfg.d_in:
        raise InputError(
            f"the SAE reads vectors of {sae.cfg.d_in} numbers, {hook!r} holds {list(acts.shape)} for this text. "
            "Use the hook point that the SAE was trained on."
        )
    latents = encode(sae, acts) * tokens.content[0][:, None]
    with torch.no_grad():
        error = acts - sae.decode(latents)
    return Nodes(tokens, str_tokens(model, tokens.ids[0]), latents, error)


def one_row(model: TransformerBridge, text: OneText) -> Tokens:
    """One text as tokens.

    Args:
        model: a loaded model.
        text: one text, or its tokens (one row).

    Returns:
        The tokens, one row without padding.

    Raises:
        InputError: more texts than one, or padding.
    """
    tokens = as_tokens(model, text)
    if len(tokens) != 1 or not tokens.mask.all():
        raise InputError(
            f"attribution takes one text at a time, without padding; got {len(tokens)} rows. Call it in a loop."
        )
    return tokens


def check_straight(sae: SAE) -> None:
    """Refuse an SAE whose decoder is no fixed matrix.

    Args:
        sae: the SAE.

    Raises:
        InputError: it rescales every token by itself.
    """
    scaling = getattr(sae.cfg, "normalize_activations", "none")
    if scaling in ("layer_norm", "constant_norm_rescale"):
        raise InputError(
            f"this SAE rescales each token by its own length (normalize_activations={scaling!r}), so a latent has no "
            "fixed direction and shares do not add up. Use an SAE that does not."
        )


def runner(
    model: TransformerBridge, sae: SAE, hook: str, nodes: Nodes, metric: Metric
) -> Callable[[Tensor], Tensor]:
    """The metric as a function of the nodes: from [n, pos, d_sae + d_in] to [n].

    Args:
        model: a loaded model.
        sae: the SAE that the nodes are of.
        hook: its hook point.
        nodes: what `take_apart` gave.
        metric: from logits [n, pos, vocabulary] to [n].

    Returns:
        The function. It hangs up its hook for each call and takes it down again.
    """

    def run(points: Tensor) -> Tensor:
        def put_back(acts: Tensor, hook: Any) -> Tensor:
            return (sae.decode(points[..., : nodes.d_sae]) + points[..., nodes.d_sae :]).to(acts.dtype)

        ids = nodes.tokens.ids.expand(len(points), -1)
        logits = model.run_with_hooks(ids, fwd_hooks=[(hook, put_back)])
        return one_a_point(metric(logits), len(points))

    return run


def answer_gap(model: TransformerBridge, fact: Fact) -> Metric:
    """The metric of a fact: by how much the answer's logit exceeds the foil's, after the last token.

    Args:
        model: a loaded model.
        fact: the fact; its prompt is the text to take apart.

    Returns:
        From logits [n, pos, vocabulary] to [n].

    Raises:
        InputError: answer or foil is not a single token of this model.

    Example:
        >>> fact = facts_of(target, model, "landmark_city")[0]
        >>> gap = answer_gap(model, fact)
        >>> bool(gap(model(tokenize(model, fact.prompt).ids)) > 0)
        True
    """
    answer, foil = answer_ids(model, [fact])[0].tolist()
    return lambda logits: logits[:, -1, answer] - logits[:, -1, foil]


def finite(value: Tensor) -> float:
    """One number of a metric, if it is finite.

    Args:
        value: a tensor with one element.

    Returns:
        The number.

    Raises:
        InputError: it is NaN or infinite.
    """
    number = float(value)
    if not math.isfinite(number):
        raise InputError(f"the metric is {number} for this text. Use one that is finite, e.g. a difference of logits.")
    return number
