"""Exercise 7.1: change the latents, keep the error, leave BOS alone, and edit where one was told to."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from labs.checks.exercise import Exercise, Property, Wrong, whole
from labs.checks.lab07.mixing import MixingModel, SmallSAE


class SetLatent:
    """An edit: one latent becomes a number. It may write into what it is given."""

    described = "an edit"

    def __init__(self, latent: int, value: float, in_place: bool, d_sae: int):
        self.latent, self.value, self.in_place, self.d_sae = latent, value, in_place, d_sae

    def __call__(self, latents: Tensor) -> Tensor:
        if latents.shape[-1] != self.d_sae:
            raise ValueError(
                f"`edit` takes latents, [..., {self.d_sae}], and was given {list(latents.shape)}"
            )
        edited = latents if self.in_place else latents.clone()
        edited[..., self.latent] = self.value
        return edited


def draw_edit(generator) -> dict:
    """A toy model, a small SAE, an edit (every other one writes in place), and positions or None."""
    case = generator.initial_seed()
    n_layers, d_model, d_vocab = whole(generator, 2, 4), whole(generator, 4, 8), whole(generator, 12, 20)
    ids = torch.randint(1, d_vocab, (whole(generator, 2, 4), whole(generator, 5, 8)), generator=generator)
    ids[:, 0] = 0
    d_sae = 3 * d_model
    last = ids.shape[1] - 1
    return {
        "model": MixingModel(n_layers, d_model, d_vocab, seed=whole(generator, 0, 99)),
        "sae": SmallSAE(d_model, d_sae, generator),
        "hook": f"blocks.{whole(generator, 0, n_layers - 1)}.hook_resid_pre",
        "ids": ids,
        "edit": SetLatent(
            whole(generator, 0, d_sae - 1), float(whole(generator, 3, 5)), case % 2 == 1, d_sae
        ),
        "positions": (None, None, [2], [last, 1], None, [1, 3, last])[case % 6],
    }


def run_edited(model, sae, hook: str, ids: Tensor, edit: Callable, positions: list[int] | None) -> Tensor:
    return _run(model, sae, hook, ids, edit, positions)


def _kept(sae, act: Tensor, edit: Callable) -> Tensor:
    """[batch, pos, d] the edited activation, error kept."""
    before = sae.encode(act)
    return act + sae.decode(edit(before.clone())) - sae.decode(before)


def _everywhere(act: Tensor, positions: list[int] | None) -> list[int]:
    return list(range(1, act.shape[1])) if positions is None else positions


def _run(model, sae, hook, ids, edit, positions, edited=_kept, where=_everywhere) -> Tensor:
    """The right answer, with a part done differently."""

    def function(act, hook):
        chosen = where(act, positions)
        new = act.clone()
        new[:, chosen] = edited(sae, act, edit)[:, chosen]
        return new

    return model.run_with_hooks(ids, fwd_hooks=[(hook, function)])


def _with(**changes) -> Callable:
    return lambda *args: _run(*args, **changes)


def _in_place(sae, act: Tensor, edit: Callable) -> Tensor:
    before = sae.encode(act)
    after = edit(before)
    return act + sae.decode(after) - sae.decode(before)


def _turned_round(sae, act: Tensor, edit: Callable) -> Tensor:
    return 2 * act - _kept(sae, act, edit)


def _reconstruction_everywhere(model, sae, hook, ids, edit, positions) -> Tensor:
    """Error gone on every token, edit only where it belongs."""

    def function(act, hook):
        chosen = _everywhere(act, positions)
        latents = sae.encode(act)
        latents[:, chosen] = edit(sae.encode(act))[:, chosen]
        return torch.cat([act[:, :1], sae.decode(latents)[:, 1:]], dim=1)

    return model.run_with_hooks(ids, fwd_hooks=[(hook, function)])


def _nothing_changes(answer, args, output) -> str | None:
    clean = args["model"].run_with_hooks(args["ids"])
    found = answer(*(args | {"edit": lambda latents: latents}).values())
    gap = float((found - clean).abs().max())
    return None if gap < 1e-4 else f"Yours moves a logit by {gap:.3g}."


def _earlier_stay(answer, args, output) -> str | None:
    """Before the first position edited nothing can have changed."""
    first = 1 if args["positions"] is None else min(args["positions"])
    clean = args["model"].run_with_hooks(args["ids"])
    gap = float((output - clean)[:, :first].abs().max())
    return None if gap < 1e-4 else f"Yours moves a logit before position {first} by {gap:.3g}."


RUN_EDITED = Exercise(
    number="7.1",
    name="run_edited",
    returns='Float[Tensor, "batch pos d_vocab"]',
    draw=draw_edit,
    reference=run_edited,
    wrong=(
        Wrong(
            "error thrown away",
            _with(edited=lambda sae, act, edit: sae.decode(edit(sae.encode(act)))),
            "You threw the error term away: the activation became `decode(edited)`. Whatever the SAE does not "
            "capture is lost with it, and you measure two changes at once. Add the *difference*, `decode(edited) - "
            "decode(latents)`, to the activation.",
        ),
        Wrong(
            "reconstruction everywhere",
            _reconstruction_everywhere,
            "You edit where you should, but all other tokens went through the SAE, too, and lost their error. "
            "A token that is not edited keeps its activation as it is.",
        ),
        Wrong(
            "bias added",
            _with(edited=lambda sae, act, edit: act + sae.decode(edit(sae.encode(act)) - sae.encode(act))),
            "You decoded the difference of the latents. `decode` adds its bias b_dec, so that even an edit that "
            "changes nothing moves the activation. Take the difference of two decoded codes.",
        ),
        Wrong(
            "written in place",
            _with(edited=_in_place),
            "An edit may write into the tensor that it is given, and one of these does. Your latents from *before* "
            "the edit have changed with it, and the difference is zero. Hand it a copy: `edit(latents.clone())`.",
        ),
        Wrong(
            "BOS edited, too",
            _with(where=lambda act, positions: positions or list(range(act.shape[1]))),
            "You edit BOS as well. Its activation is many times as long as the others', the SAE was not made for "
            "it, and every later token reads from it. With `positions=None`, begin at position 1.",
        ),
        Wrong(
            "positions ignored",
            _with(where=lambda act, positions: _everywhere(act, None)),
            "You edit at every token, whatever `positions` says. Where an edit acts is half of what an experiment "
            "says: change `[:, positions]` only.",
        ),
        Wrong(
            "only the last position",
            _with(where=lambda act, positions: [act.shape[1] - 1] if positions is None else positions),
            "With `positions=None` you edit the last token only. It means every token but BOS.",
        ),
        Wrong(
            "the other way round",
            _with(edited=_turned_round),
            "Your difference has the wrong sign: you subtract what the edit adds. It is what the latents say *after* "
            "the edit, minus what they said before: `decode(edited) - decode(latents)`.",
        ),
        Wrong(
            "the difference alone",
            _with(edited=lambda sae, act, edit: _kept(sae, act, edit) - act),
            "You put the difference in place of the activation. It is to be *added* to it: `act + decode(edited) - "
            "decode(latents)`.",
        ),
        Wrong(
            "the last position left out",
            _with(
                where=lambda act, positions: (
                    list(range(1, act.shape[1] - 1)) if positions is None else positions
                )
            ),
            "With `positions=None` you leave out the last token, too. `range(1, n)` ends *before* n: with "
            "`n = act.shape[1]` it is already every position but BOS.",
        ),
        Wrong(
            "positions counted without BOS",
            _with(where=lambda act, positions: _everywhere(act, positions and [p - 1 for p in positions])),
            "You edit one position too early. `positions` counts BOS: position 0 is BOS, and 1 the first word.",
        ),
        Wrong(
            "nothing happens",
            lambda model, sae, hook, ids, edit, positions: model.run_with_hooks(ids),
            "Your logits are those of the model as it is. Does the hook function *return* the new activation? And do "
            "you subtract the reconstruction from before the edit, not the edited one from itself?",
        ),
    ),
    properties=(
        Property("An edit that changes nothing must leave the model as it is.", _nothing_changes),
        Property("What stands before the first edited token cannot change.", _earlier_stay),
    ),
    look_at="`model.run_with_hooks(ids, fwd_hooks=[(hook, function)])`, where function(act, hook) returns the new "
    "activation; `sae.encode` and `sae.decode` take any number of leading dimensions.",
    saw="the intervention that the rest of this lab is made of. An edit of nothing changes nothing: test that first, "
    "every time.",
)

EXERCISES = (RUN_EDITED,)
