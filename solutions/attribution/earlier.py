"""What one latent is made of: the latents of an earlier layer that set it off.

The latent's pre-activation, what its encoder computes before the ReLU or the top-k, is an affine function of the
activation at its own hook point. In the frozen model (`frozen`) that activation is an affine function of the
activation at any earlier hook point, and so of its latents and its error. Every one of them at every token therefore
has a contribution, activation × slope, and they add up: contributions + a constant = the pre-activation.
The linear part is what Dunefsky et al. 2024 compute for transcoders and Ameisen et al. 2025 call a
direct effect; here it also goes through the MLPs, with their neurons held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from solutions.attribution.frozen import frozen
from solutions.attribution.nodes import OneText, check_straight, take_apart
from solutions.attribution.paths import gradients
from solutions.errors import InputError, check_count, check_position, whole_number
from solutions.models import check_hooks
from solutions.sae.measure import check_sae

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge


class Inputs(NamedTuple):
    """What one latent's pre-activation at one token is made of."""

    latents: Tensor
    """[pos, d_sae] contribution of every latent of the earlier SAE at every token."""
    error: Tensor
    """[pos] of what the earlier SAE leaves out; at BOS, which is not taken apart, of all of it."""
    constant: float
    """What the biases alone would give it, with nothing at the earlier hook point but the decoder's bias."""
    activations: Tensor
    """[pos, d_sae] the earlier latents as they are."""
    words: list[str]
    """[pos] the text's tokens, BOS included."""
    value: float
    """The pre-activation, as the real model has it."""

    @property
    def gap(self) -> float:
        """What the contributions miss; 0 but for rounding."""
        return self.value - (self.latents.sum() + self.error.sum()).item() - self.constant

    def table(self, k: int = 10) -> pd.DataFrame:
        """The largest contributions by size, latents and errors together.

        Args:
            k: how many.

        Returns:
            One row each, with position, token, latent (-1 for an error), activation (nan for an error) and
            contribution.

        Raises:
            InputError: a `k` below 1.
        """
        check_count(k, "k")
        at, latent = self.latents.nonzero().T.tolist()
        rows = [(p, self.words[p], j, self.activations[p, j].item(), self.latents[p, j].item())
                for p, j in zip(at, latent, strict=True)]
        rows += [(p, self.words[p], -1, float("nan"), e) for p, e in enumerate(self.error.tolist()) if e]
        table = pd.DataFrame(rows, columns=["position", "token", "latent", "activation", "contribution"])
        order = table["contribution"].abs().sort_values(ascending=False, kind="stable").index
        return table.loc[order].head(k).reset_index(drop=True)


def latent_inputs(
    model: TransformerBridge,
    sae: SAE,
    hook: str,
    latent: int,
    earlier_sae: SAE,
    earlier_hook: str,
    text: OneText,
    position: int = -1,
) -> Inputs:
    """Contributions of an earlier SAE's latents to one latent at one token, in the model frozen on this text.

    Args:
        model: a loaded model.
        sae: the SAE of the latent.
        hook: its hook point.
        latent: the latent.
        earlier_sae: an SAE of an earlier hook point.
        earlier_hook: that hook point.
        text: one text, or its tokens (one row).
        position: the token at which the latent is asked about; BOS is 0, negative from the end.

    Returns:
        The contributions.

    Raises:
        InputError: a latent or a position that does not exist, an earlier hook point that is not earlier, an SAE
            whose encoder is no fixed matrix, or a model that cannot be frozen.

    Example:
        >>> fact = facts_of(target, model, "landmark_city")[0]
        >>> found = latent_inputs(model, later_sae, later_hook, 5, sae, target.hook, fact.prompt)
        >>> abs(found.gap) < 1e-3
        True
    """
    check_sae(sae)
    check_straight(sae)
    (hook,) = check_hooks(model, hook)
    number = whole_number(latent)
    if number is None or not 0 <= number < sae.cfg.d_sae:
        raise InputError(f"latent must be a whole number from 0 to {sae.cfg.d_sae - 1}, got {latent!r}.")
    nodes = take_apart(model, earlier_sae, earlier_hook, text)
    place = check_position(position, len(nodes.words))
    here = nodes.packed
    ids = nodes.tokens.ids

    def later(points: Tensor | None) -> Tensor:
        """[n] the pre-activation in runs with these nodes; None: in a run as it is."""
        seen: list[Tensor] = []

        def put_back(acts: Tensor, hook: Any) -> Tensor:
            return earlier_sae.decode(points[..., : nodes.d_sae]) + points[..., nodes.d_sae :]

        def look(acts: Tensor, hook: Any) -> None:
            seen.append(pre_activation(sae, acts[:, place], number))

        reach_in = [] if points is None else [(earlier_hook, put_back)]
        model.run_with_hooks(ids.expand(1 if points is None else len(points), -1), fwd_hooks=[*reach_in, (hook, look)])
        return seen[0]

    with torch.no_grad():
        value = later(None).item()
    with frozen(model, nodes.tokens):
        slopes = _slopes(later, here, hook, earlier_hook)
        with torch.no_grad():
            constant = later(torch.zeros_like(here)[None]).item()
    shares = slopes * here
    return Inputs(
        shares[:, : nodes.d_sae], shares[:, nodes.d_sae :].sum(-1), constant, nodes.latents, nodes.words, value
    )


def pre_activation(sae: SAE, acts: Tensor, latent: int) -> Tensor:
    """What a latent's encoder computes before its ReLU, its threshold or the top-k chooses.

    Args:
        sae: the SAE.
        acts: [..., d_in] activations; gradients pass through.
        latent: the latent.

    Returns:
        [...] an active latent's activation is this very number.

    Raises:
        InputError: the SAE's encoder is not one matrix and a bias (a gated one has two).
    """
    if sae.cfg.architecture() not in ("standard", "topk", "jumprelu", "batchtopk"):
        raise InputError(
            f"the encoder of a {sae.cfg.architecture()!r} SAE is not one matrix and a bias, so contributions to a "
            "latent do not add up. Use a standard, TopK or JumpReLU SAE."
        )
    found = sae.process_sae_in(acts.float()) @ sae.W_enc[:, latent] + sae.b_enc[latent]
    return found * sae.W_dec[latent].norm() if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False) else found


def _slopes(later: Any, here: Tensor, hook: str, earlier_hook: str) -> Tensor:
    """The gradient of the pre-activation in the nodes, if it depends on them at all."""
    slopes = gradients(later, here[None])[0]
    if not slopes.any():
        raise InputError(f"what is at {hook!r} does not depend on {earlier_hook!r}. Choose an earlier hook point.")
    return slopes
