"""Editing what an SAE sees: its latents are changed while the model runs, and nothing else is.

An activation x is written as decode(encode(x)) plus what the SAE leaves out, its error. An edit maps the latents f to
others, f', and the activation becomes

    x + decode(f') - decode(f),

so that the error stays where it is (Marks et al. 2024 treat it as one more feature). An edit that changes
nothing therefore changes nothing, to the last bit; with the reconstruction alone, decode(f'), the model would lose
whatever the SAE does not explain, and an experiment would measure that as well.

`add`, `clamp` and `multiply` are the three edits that steering knows. Any function of the latents will do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from solutions.errors import InputError, check_positions, whole_number
from solutions.interventions.steering import TOKEN_IDS
from solutions.models import check_hooks, read_hooks
from solutions.sae.measure import check_sae

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

#: From the latents [batch, pos, d_sae] of all tokens to those that are to stand in their place.
Edit = Callable[[Tensor], Tensor]

#: What a named edit makes of a latent's activations f and a number a.
KINDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda f, a: f + a,
    "clamp": lambda f, a: a.expand_as(f),
    "multiply": lambda f, a: f * a,
}


# ---- the three named edits


@dataclass(frozen=True)
class LatentEdit:
    """An edit of some latents that leaves all others alone; `add`, `clamp` and `multiply` make one.

    It is a function from latents [..., d_sae] to latents [..., d_sae].

    Attributes:
        kind: "add", "clamp" or "multiply".
        latents: the latents it edits.
        amounts: a number for each of them.
    """

    kind: str
    latents: tuple[int, ...]
    amounts: tuple[float, ...]

    def __call__(self, latents: Tensor) -> Tensor:
        """The latents [..., d_sae] after the edit; what was given stays as it is."""
        check_latents(self.latents, latents.shape[-1])
        chosen = list(self.latents)
        edited = latents.clone()
        edited[..., chosen] = KINDS[self.kind](latents[..., chosen], latents.new_tensor(self.amounts))
        return edited


def add(latents: int | Sequence[int] | Tensor, amount: float | Sequence[float] | Tensor) -> LatentEdit:
    """The edit f ↦ f + amount: as much more of the latent's direction, whether it was active or not.

    Args:
        latents: one latent or several.
        amount: in the SAE's own units; one number for all, or one for each latent. Negative takes away, below zero
            too.

    Returns:
        The edit, for `latents_edited`.

    Raises:
        InputError: no latent, one that is no whole number or stands there twice, or an amount that is not finite.

    Example:
        >>> add(2, 1.5)(torch.tensor([0.0, 4.0, 1.0]))
        tensor([0.0000, 4.0000, 2.5000])
    """
    return _named("add", latents, amount, "amount")


def clamp(latents: int | Sequence[int] | Tensor, value: float | Sequence[float] | Tensor) -> LatentEdit:
    """The edit f ↦ value: the latent says the same at every token. Zero is an ablation.

    Args:
        latents: one latent or several.
        value: in the SAE's own units; one number for all, or one for each latent.

    Returns:
        The edit, for `latents_edited`.

    Raises:
        InputError: as for `add`.

    Example:
        >>> clamp([0, 2], [0.5, 0.0])(torch.tensor([0.0, 4.0, 1.0]))
        tensor([0.5000, 4.0000, 0.0000])
    """
    return _named("clamp", latents, value, "value")


def multiply(latents: int | Sequence[int] | Tensor, factor: float | Sequence[float] | Tensor) -> LatentEdit:
    """The edit f ↦ factor · f: louder or softer where the latent is active, nothing where it is silent.

    Args:
        latents: one latent or several.
        factor: one number for all, or one for each latent.

    Returns:
        The edit, for `latents_edited`.

    Raises:
        InputError: as for `add`.

    Example:
        >>> multiply([1, 2], 2)(torch.tensor([0.0, 4.0, 1.0]))
        tensor([0., 8., 2.])
    """
    return _named("multiply", latents, factor, "factor")


def _named(kind: str, latents: Any, amounts: Any, called: str) -> LatentEdit:
    """The edit, its latents as whole numbers and one finite amount for each."""
    wanted = check_latents(latents)
    given = amounts.tolist() if hasattr(amounts, "tolist") else amounts
    given = list(given) if isinstance(given, list | tuple) else [given] * len(wanted)
    if len(given) != len(wanted):
        raise InputError(f"{called} must be one number, or one for each of {len(wanted)} latents; got {len(given)}.")
    for number in given:
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise InputError(f"{called} must be a finite number, got {number!r}.")
    return LatentEdit(kind, wanted, tuple(map(float, given)))


def check_latents(latents: int | Sequence[int] | Tensor, d_sae: int | None = None) -> tuple[int, ...]:
    """Return latents as a tuple of whole numbers, if there are such latents.

    Args:
        latents: one latent or several; a tensor or a numpy array of whole numbers will do.
        d_sae: how many latents the SAE has; None when no SAE is known yet.

    Returns:
        The latents, in the order given.

    Raises:
        InputError: there is none, one is no whole number from 0 to d_sae - 1, or one stands there twice.

    Example:
        >>> check_latents(torch.tensor([3, 1]), d_sae=1024)
        (3, 1)
    """
    given = [latents] if whole_number(latents) is not None or not hasattr(latents, "__iter__") else list(latents)
    found = [whole_number(j) for j in given]
    top = "" if d_sae is None else f" to {d_sae - 1}"
    for said, j in zip(given, found, strict=True):
        if j is None or j < 0 or (d_sae is not None and j >= d_sae):
            raise InputError(f"latents must be whole numbers from 0{top}, got {said!r}.")
    if not found:
        raise InputError("no latents given: name at least one.")
    if len(set(found)) < len(found):
        twice = next(j for j in found if found.count(j) > 1)
        raise InputError(f"latent {twice} stands in the list twice. Name each once.")
    return tuple(j for j in found if j is not None)


# ---- the model with its latents edited


@contextmanager
def latents_edited(
    model: TransformerBridge,
    sae: SAE,
    hook: str,
    edit: Edit,
    *,
    positions: Sequence[int] | None = None,
    skip_bos: bool = True,
    keep_error: bool = True,
) -> Iterator[TransformerBridge]:
    """As long as the block lasts, the model runs with the latents of its activations at `hook` edited.

    The hook is taken down at the end, after an error too, and no weight is changed. Blocks can stand inside each
    other. At one hook point the inner block then sees what the outer one has left. Nothing here switches gradients
    off, so what comes out can be differentiated.

    Args:
        model: a loaded model.
        sae: the SAE.
        hook: where its activations are.
        edit: from the latents [batch, pos, d_sae] of all tokens to new ones of that shape. It may write into what it
            is given. `add`, `clamp` and `multiply` make such functions.
        positions: where the edit counts, BOS being position 0, and negative numbers from the end of the rows as they
            are run (so give rows of one length, or count from the front); everywhere by default.
        skip_bos: leave a beginning-of-sequence token in the first position as it is, whatever `positions` says.
        keep_error: x + decode(edited) - decode(latents), so that what the SAE does not explain stays; without it
            the edited token becomes decode(edited) alone.

    Yields:
        The model.

    Raises:
        InputError: for an unknown hook point, an SAE of another width, a latent or a position that does not exist,
            or an edit that returns another shape. A position and a shape can only be judged when the model runs.

    Example:
        >>> ids = tokenize(model, "The old man went to the").ids
        >>> with latents_edited(model, sae, target.hook, add(latent, 20.0), positions=[-1]):
        ...     edited = model(ids)
        >>> with latents_edited(model, sae, target.hook, lambda f: f):
        ...     untouched = model(ids)
        >>> bool((edited != model(ids)).any()), bool((untouched == model(ids)).all())
        (True, True)
    """
    hook = _fitting_hook(model, sae, hook)
    if isinstance(edit, LatentEdit):
        check_latents(edit.latents, int(sae.cfg.d_sae))
    if not callable(edit):
        raise InputError(f"edit must be a function of the latents, such as add(latent, 2.0); got {edit!r:.80}.")
    wanted = None if positions is None else check_positions(positions)
    bos = model.tokenizer.bos_token_id if skip_bos else None
    begins_with_bos: Tensor | None = None

    def see_ids(ids: Tensor, hook: Any) -> None:
        nonlocal begins_with_bos
        begins_with_bos = ids[:, 0] == bos

    def replace(acts: Tensor, hook: Any) -> Tensor:
        counts = _where(acts, wanted)
        if begins_with_bos is not None:
            counts[:, 0] &= ~begins_with_bos.to(acts.device)
        return torch.where(counts[..., None], _edited(sae, acts, edit, keep_error), acts)

    watch = [] if bos is None else [(TOKEN_IDS, see_ids)]
    with model.hooks(fwd_hooks=[*watch, (hook, replace)]):
        yield model


def _edited(sae: SAE, acts: Tensor, edit: Edit, keep_error: bool) -> Tensor:
    """The activations [batch, pos, d_in] with their latents edited."""
    x = acts.to(sae.W_dec.device, torch.float32)
    latents = sae.encode(x)
    edited = edit(latents.clone())
    if not isinstance(edited, Tensor) or edited.shape != latents.shape:
        found = list(edited.shape) if isinstance(edited, Tensor) else type(edited).__name__
        raise InputError(f"edit must return a tensor of shape {list(latents.shape)}, got {found}.")
    rebuilt = sae.decode(edited.to(latents.dtype))
    if keep_error:
        # An SAE that rescales each token forgets its length once it has decoded it, and has to see it again.
        again = latents if getattr(sae.cfg, "normalize_activations", "none") == "none" else sae.encode(x)
        rebuilt = x + (rebuilt - sae.decode(again))
    return rebuilt.to(acts.device, acts.dtype)


def _fitting_hook(model: TransformerBridge, sae: SAE, hook: str) -> str:
    """The hook point, if the SAE can read the activations there: one token is run to see their shape."""
    check_sae(sae)
    (hook,) = check_hooks(model, hook)
    acts = read_hooks(model, torch.zeros(1, 1, dtype=torch.int64, device=model.cfg.device), [hook])[hook]
    if acts.ndim != 3:
        raise InputError(f"the activations at {hook!r} are not one vector per token: shape {list(acts.shape)}.")
    if acts.shape[-1] != sae.cfg.d_in:
        raise InputError(
            f"the SAE reads activations of width {sae.cfg.d_in}; those at {hook!r} have {acts.shape[-1]}. "
            "Use the hook point the SAE was trained on."
        )
    return hook


def _where(acts: Tensor, positions: list[int] | None) -> Tensor:
    """[batch, pos] bool, True where the edit counts."""
    if positions is None:
        return acts.new_ones(acts.shape[:2], dtype=torch.bool)
    counts = acts.new_zeros(acts.shape[:2], dtype=torch.bool)
    counts[:, check_positions(positions, acts.shape[1])] = True
    return counts
