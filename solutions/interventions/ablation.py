"""Taking latents out of a running model, and what it then still says.

Only the latents named are touched: the rest of the activation, the SAE's reconstruction error included, stays as it
is. So whatever changes was carried by these latents, and an ablation of nothing changes nothing.

What a latent is replaced by is a choice, and results depend on it: zero says "not active", which may be a place the
model never visits; the mean says "as usual", and resampling, the value on some other token, says "as it might be".
Miller et al. 2024 (arXiv 2407.08734) show how much such choices change what is concluded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor

from solutions.data import Text, Tokens
from solutions.errors import InputError, check_positions, check_tensor, unknown_name
from solutions.interventions.edits import Edit, check_latents, latents_edited
from solutions.interventions.facts import Asked, Fact, ask
from solutions.models import as_tokens, check_hooks, extract
from solutions.sae.measure import check_sae, encode

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

#: What can stand in for a latent that is taken out.
ABLATIONS = ("zero", "mean", "resample")


def taken_out(latents: Sequence[int], d_sae: int) -> list[int]:
    """The numbers of latents to take out, each one that the SAE has; unlike elsewhere there may be none."""
    return [] if hasattr(latents, "__len__") and not len(latents) else list(check_latents(latents, d_sae))


@torch.no_grad()
def reference_latents(
    model: TransformerBridge, sae: SAE, texts: str | Sequence[str] | Sequence[Text] | Tokens, hook: str
) -> Tensor:
    """What the latents usually do: their activations on every real token of some texts.

    Args:
        model: a loaded model.
        sae: the SAE.
        texts: ordinary texts, or tokens. A few dozen will do; what is kept is as wide as the SAE.
        hook: where the SAE reads.

    Returns:
        [tokens, d_sae], BOS and padding left out.

    Raises:
        InputError: an unknown hook point, an empty text, or an SAE of another width.
    """
    tokens = as_tokens(model, texts)
    return encode(sae, extract(model, tokens, hook)[hook][tokens.content])


def ablation(
    latents: Sequence[int], how: str = "zero", *, reference: Tensor | None = None, seed: int = 0
) -> Edit:
    """An edit for `latents_edited` that takes latents out.

    Args:
        latents: which ones; none at all is allowed and changes nothing.
        how: what stands in for them: "zero"; "mean", their mean activation on the reference; or "resample", what they
            all are on one token of the reference, drawn anew for each token, so that they still go together.
        reference: [tokens, d_sae] activations on ordinary text, `reference_latents`. Not needed for "zero".
        seed: of the draw. The edit draws the same tokens each time it is called on the same shape.

    Returns:
        A function from latent activations [batch, pos, d_sae] to the edited ones.

    Raises:
        InputError: an unknown way, or no reference where one is needed. The edit itself raises it for a latent that
            the SAE does not have, or a reference of another SAE.

    Example:
        >>> edit = ablation([0, 2], "mean", reference=torch.tensor([[1.0, 5.0, 0.0], [3.0, 5.0, 8.0]]))
        >>> edit(torch.tensor([[[9.0, 9.0, 9.0]]]))
        tensor([[[2., 9., 4.]]])
    """
    if how not in ABLATIONS:
        raise unknown_name("way to ablate", how, ABLATIONS)
    if how != "zero":
        if reference is None:
            raise InputError(f'how="{how}" needs activations on ordinary text: reference=… of shape [tokens, d_sae].')
        check_tensor(reference, "reference", shape="tokens d_sae")

    def edit(z: Tensor) -> Tensor:
        taken = taken_out(latents, z.shape[-1])
        if reference is not None:
            check_tensor(reference, "reference", last=z.shape[-1])
        z = z.clone()
        if how == "zero":
            z[..., taken] = 0.0
        elif how == "mean":
            z[..., taken] = reference[:, taken].mean(0).to(z)
        else:
            dice = torch.Generator().manual_seed(seed)
            rows = torch.randint(len(reference), z.shape[:-1], generator=dice)
            z[..., taken] = reference[rows.to(reference.device)][..., taken].to(z)
        return z

    return edit


@torch.no_grad()
def ablated_logits(
    model: TransformerBridge, sae: SAE, texts: str | Sequence[str] | Sequence[Text] | Tokens, hook: str,
    latents: Sequence[int], how: str = "zero", *, reference: Tensor | None = None, seed: int = 0,
    positions: Sequence[int] | None = None,
) -> Tensor:
    """The model's logits with latents taken out; the reconstruction error stays, and BOS is left alone.

    Args:
        model: a loaded model.
        sae: the SAE.
        texts: texts, or tokens.
        hook: where the SAE reads.
        latents: which ones; none gives the model as it is.
        how: "zero", "mean" or "resample", see `ablation`.
        reference: [tokens, d_sae], see `ablation`.
        seed: of the draw when resampling.
        positions: where; everywhere but on BOS by default. Negative ones count from the end of the padded row.

    Returns:
        [batch, pos, vocabulary].

    Raises:
        InputError: an unknown hook point, way, latent or position.
    """  # fmt: skip
    check_sae(sae)
    (hook,) = check_hooks(model, hook)
    taken = taken_out(latents, int(sae.cfg.d_sae))
    edit = ablation(taken, how, reference=reference, seed=seed)
    tokens = as_tokens(model, texts)
    positions = None if positions is None else places_in(positions, tokens)
    with latents_edited(model, sae, hook, edit, positions=positions):
        return model(tokens.ids)


@torch.no_grad()
def ablation_effects(
    model: TransformerBridge,
    sae: SAE,
    hook: str,
    facts: Sequence[Fact] | Asked,
    sets: Mapping[str, Sequence[int]],
    hows: Sequence[str] = ("zero",),
    *,
    reference: Tensor | None = None,
    positions: Sequence[int] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """What sets of latents do for facts: the model with each set taken out, in each way, beside the model as it is.

    Args:
        model: a loaded model.
        sae: the SAE.
        hook: where the SAE reads.
        facts: the facts, or what `ask` made of them.
        sets: a name for each set of latents.
        hows: ways to ablate, see `ablation`.
        reference: [tokens, d_sae], needed for all ways but "zero".
        positions: where; everywhere but on BOS by default.
        seed: of the draw when resampling.

    Returns:
        One row per set and way, with set, how, n_latents; means over the facts of logit_difference (that of the model
        with the set taken out), drop (by how much it fell) and kl (of the next-token distribution, in nats);
        correct, the share of facts whose answer still beats all others of its kind. `table.attrs["clean"]` is the
        logit difference of the model as it is, `table.attrs["clean_correct"]` the share of facts it knows.

    Raises:
        InputError: no set, or an unknown hook point, way, latent or position.
    """
    if not sets:
        raise InputError("sets: expected at least one name and its latents, got none.")
    asked = facts if isinstance(facts, Asked) else ask(model, facts)
    clean = model(asked.tokens.ids)
    before, rows = asked.difference(clean), []
    for name, latents in sets.items():
        taken = taken_out(latents, int(sae.cfg.d_sae))
        for how in hows:
            logits = ablated_logits(
                model, sae, asked.tokens, hook, taken, how, reference=reference, seed=seed, positions=positions)
            after = asked.difference(logits)
            rows.append({
                "set": name, "how": how, "n_latents": len(taken), "logit_difference": after.mean().item(),
                "drop": (before - after).mean().item(), "kl": asked.kl(clean, logits).mean().item(),
                "correct": asked.correct(logits).float().mean().item(),
            })  # fmt: skip
    table = pd.DataFrame(rows)
    table.attrs["clean"] = before.mean().item()
    table.attrs["clean_correct"] = asked.correct(clean).float().mean().item()
    return table


@torch.no_grad()
def latents_on(
    model: TransformerBridge, sae: SAE, hook: str, facts: Sequence[Fact] | Asked,
    positions: Sequence[int] | None = None,
) -> Tensor:
    """What the latents do on the prompts of some facts.

    Args:
        model: a loaded model.
        sae: the SAE.
        hook: where the SAE reads.
        facts: the facts, or what `ask` made of them.
        positions: where to look; everywhere but on BOS and padding by default.

    Returns:
        [facts, pos, d_sae] activations, zero where one does not look.

    Raises:
        InputError: an unknown hook point, or a position that the prompts do not have.
    """  # fmt: skip
    asked = facts if isinstance(facts, Asked) else ask(model, facts)
    looked_at = asked.tokens.content.clone()
    if positions is not None:
        elsewhere = torch.ones_like(looked_at)
        elsewhere[:, places_in(positions, asked.tokens)] = False
        looked_at &= ~elsewhere
    return encode(sae, extract(model, asked.tokens, hook)[hook]) * looked_at[..., None]


def places_in(positions: Sequence[int], tokens: Tokens) -> list[int]:
    """Positions in rows of tokens, counted from their beginning.

    Args:
        positions: what the caller was given; negative ones count from the end.
        tokens: the rows.

    Returns:
        Numbers from 0 to the rows' length - 1, in the order given.

    Raises:
        InputError: as for `check_positions`, or one counts from the end of rows of several lengths, where it would
            mean another word in each.
    """
    given = check_positions(positions)
    places = check_positions(given, tokens.ids.shape[1])
    if min(given) < 0 and not tokens.mask.all():
        raise InputError("negative positions count from the end, and these prompts have several lengths. "
                         "Ask facts of one length, or count from the front.")
    return places
