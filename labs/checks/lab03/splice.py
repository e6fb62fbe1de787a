"""Exercises 3.3 and 3.4: an edit that keeps the reconstruction error, and what a splice costs the model."""

from __future__ import annotations

import torch
from torch import Tensor

from labs.checks.compare import agree
from labs.checks.exercise import Exercise, Property, Wrong, normal, whole
from labs.checks.toy_model import ToyModel

# --- 3.3 ------------------------------------------------------------


class ToySAE:
    """A small SAE with a decoder bias and an imperfect decoder. `encode` and `decode` work on [..., d]."""

    def __init__(self, d_in: int, d_sae: int, generator: torch.Generator):
        self.W_enc, self.b_enc = normal(generator, d_in, d_sae), normal(generator, d_sae) - 0.5
        self.W_dec, self.b_dec = normal(generator, d_sae, d_in) / d_in, normal(generator, d_in)

    def encode(self, acts: Tensor) -> Tensor:
        return ((acts - self.b_dec) @ self.W_enc + self.b_enc).relu()

    def decode(self, features: Tensor) -> Tensor:
        return features @ self.W_dec + self.b_dec


class SetLatent:
    """An edit of features: one latent is set to a value. It counts its calls."""

    def __init__(self, latent: int, value: float):
        self.latent, self.value, self.calls = latent, value, 0

    def __call__(self, features: Tensor) -> Tensor:
        self.calls += 1
        edited = features.clone()
        edited[..., self.latent] = self.value
        return edited


def draw_splice(generator) -> dict:
    """A toy model, a toy SAE at one of its hook points, and an edit that sets one latent."""
    n_layers, d_model, d_vocab = whole(generator, 2, 4), whole(generator, 5, 9), whole(generator, 20, 30)
    model = ToyModel(n_layers, d_model, d_vocab, seed=whole(generator, 0, 10_000))
    ids = torch.randint(0, d_vocab, (whole(generator, 2, 4), whole(generator, 3, 7)), generator=generator)
    d_sae = 3 * d_model
    sae = ToySAE(d_model, d_sae, generator)
    return {
        "model": model,
        "ids": ids,
        "hook_name": f"blocks.{whole(generator, 0, n_layers - 1)}.hook_resid_pre",
        "encode": sae.encode,
        "decode": sae.decode,
        "edit": SetLatent(whole(generator, 0, d_model - 1), 4.0),
    }


def splice(model, ids: Tensor, hook_name: str, encode, decode, edit) -> Tensor:
    def through_the_sae(acts, hook):
        features = encode(acts)
        return decode(edit(features)) + (acts - decode(features))

    return model.run_with_hooks(ids, fwd_hooks=[(hook_name, through_the_sae)])


def _spliced(model, ids, hook_name, replace) -> Tensor:
    return model.run_with_hooks(ids, fwd_hooks=[(hook_name, lambda acts, hook: replace(acts))])


def _same_as_clean(answer, args, output) -> bool:
    """Whether nothing at all happened, although this edit does change the logits."""
    clean, right = args["model"](args["ids"]), splice(**args)
    return output.shape == clean.shape and agree(output, clean) and not agree(right, clean)


def _edit_never_called(answer, args, output) -> bool:
    edit = SetLatent(args["edit"].latent, args["edit"].value)
    answer(*(args | {"edit": edit}).values())
    return edit.calls == 0 and _same_as_clean(answer, args, output)


def _edit_cancelled(model, ids, hook_name, encode, decode, edit) -> Tensor:
    def cancelled(acts):
        edited = decode(edit(encode(acts)))
        return edited + (acts - edited)

    return _spliced(model, ids, hook_name, cancelled)


def _identity_restores(answer, args, output) -> str | None:
    clean = args["model"](args["ids"])
    found = answer(*(args | {"edit": lambda features: features}).values())
    gap = float((found - clean).abs().max())
    return None if gap < 1e-4 else f"Yours moves a logit by {gap:.3g}."


def _all_but_last(acts: Tensor, edited: Tensor) -> Tensor:
    return torch.cat([acts[:, :-1], edited[:, -1:]], dim=1)


SPLICE = Exercise(
    number="3.3",
    name="splice",
    returns='Float[Tensor, "batch pos d_vocab"]',
    draw=draw_splice,
    reference=splice,
    wrong=(
        Wrong(
            "error left out",
            lambda model, ids, hook_name, encode, decode, edit: _spliced(
                model, ids, hook_name, lambda acts: decode(edit(encode(acts)))
            ),
            "You put the edited reconstruction in place, and the error is gone. The model now suffers from "
            "two changes at once, your edit and everything the SAE does not capture. Add `acts - "
            "decode(encode(acts))` back.",
        ),
        Wrong(
            "edit never called",
            lambda model, ids, hook_name, encode, decode, edit: model(ids),
            "You never called `edit`: these are the model's own logits. The edit belongs between encoder "
            "and decoder: `decode(edit(features))`.",
            recognise=_edit_never_called,
        ),
        Wrong(
            "edit cancelled",
            _edit_cancelled,
            "Your edit has no effect on the logits. There are two ways to get there. Either you measured "
            "the error against the *edited* reconstruction, which takes out just what the edit put in; or "
            "your hook function has no `return`, and the model goes on with what it had.",
            recognise=_same_as_clean,
        ),
        Wrong(
            "error subtracted",
            lambda model, ids, hook_name, encode, decode, edit: _spliced(
                model, ids, hook_name, lambda acts: decode(edit(encode(acts))) - (acts - decode(encode(acts)))
            ),
            "The error has the wrong sign. It is what the reconstruction lacks, `acts - "
            "decode(encode(acts))`, and it is added.",
        ),
        Wrong(
            "added on top",
            lambda model, ids, hook_name, encode, decode, edit: _spliced(
                model, ids, hook_name, lambda acts: acts + decode(edit(encode(acts)))
            ),
            "You added the whole reconstruction on top of the activation, so the token is there twice. "
            "Take the unedited reconstruction off.",
        ),
        Wrong(
            "decoder bias twice",
            lambda model, ids, hook_name, encode, decode, edit: _spliced(
                model, ids, hook_name, lambda acts: acts + decode(edit(encode(acts)) - encode(acts))
            ),
            "Nearly: you decoded the *difference* of the features. The decoder adds its bias `b_dec` to "
            "whatever it decodes, so now that bias is added once too often. Decode twice and subtract.",
        ),
        Wrong(
            "last token only",
            lambda model, ids, hook_name, encode, decode, edit: _spliced(
                model,
                ids,
                hook_name,
                lambda acts: _all_but_last(acts, decode(edit(encode(acts))) + acts - decode(encode(acts))),
            ),
            "Only the last token was edited. The edit holds at every position.",
        ),
        Wrong(
            "activation edited",
            lambda model, ids, hook_name, encode, decode, edit: _spliced(
                model, ids, hook_name, lambda acts: edit(acts)
            ),
            "You gave `edit` the activation. It edits *features*: encode first.",
            recognise=lambda answer, args, output: agree(
                output, _spliced(args["model"], args["ids"], args["hook_name"], args["edit"])
            ),
        ),
    ),
    properties=(
        Property("An edit that changes nothing must give the model's own logits.", _identity_restores),
    ),
    look_at="the hook function. It is called as `f(activation, hook=...)`, and what it returns goes on in "
    "the model.",
    saw="with the error kept, the only thing that changed is what you changed. That is what makes an edit "
    "an experiment.",
)

# --- 3.4 ------------------------------------------------------------


class ToyLoss:
    """A loss that grows with the distance from a goal near what the model computed. Called with an edit."""

    def __init__(self, acts: Tensor, goal: Tensor, weight: Tensor, least: float):
        self.acts, self.goal, self.weight, self.least = acts, goal, weight, least

    def __call__(self, edit) -> float:
        edited = edit(self.acts.clone())
        if not isinstance(edited, Tensor) or edited.shape != self.acts.shape:
            found = list(edited.shape) if isinstance(edited, Tensor) else type(edited).__name__
            raise ValueError(f"an edit must return a tensor of shape {list(self.acts.shape)}, got {found}")
        return self.least + float((self.weight * (edited - self.goal).pow(2)).mean())


def draw_losses(generator) -> dict:
    """A loss on a few texts; a reconstruction of them; and the mean of quite other, more numerous tokens."""
    batch, pos, d = whole(generator, 2, 4), whole(generator, 3, 7), whole(generator, 4, 20)
    centre = 2 * normal(generator, d)
    acts = centre + normal(generator, batch, pos, d) + 0.5 * normal(generator, batch, 1, d)
    shift = 0.2 * normal(generator, d)
    return {
        "loss_with": ToyLoss(
            acts, acts + 0.1 * centre, 0.5 + torch.rand(d, generator=generator), whole(generator, 10, 30) / 10
        ),
        "reconstruct": lambda x: 0.9 * x + shift,
        "mean": centre + 0.1 * normal(generator, d),
    }


def ce_report(loss_with, reconstruct, mean: Tensor) -> dict[str, float]:
    return _report(
        loss_with(lambda x: x),
        loss_with(reconstruct),
        loss_with(torch.zeros_like),
        loss_with(lambda x: mean.expand_as(x)),
    )


def _report(clean: float, spliced: float, zero: float, mean: float) -> dict[str, float]:
    return {
        "clean": clean,
        "spliced": spliced,
        "zero": zero,
        "mean": mean,
        "delta": spliced - clean,
        "recovered_zero": (zero - spliced) / (zero - clean),
        "recovered_mean": (mean - spliced) / (mean - clean),
    }


def _with(name: str, edit, loss_with, reconstruct, mean) -> dict:
    """The report with one of the four losses measured under another edit."""
    losses = ce_report(loss_with, reconstruct, mean)
    four = {key: losses[key] for key in ("clean", "spliced", "zero", "mean")}
    return _report(**(four | {name: loss_with(edit)}))


def _changed(loss_with, reconstruct, mean, change) -> dict:
    report = ce_report(loss_with, reconstruct, mean)
    return report | change(report)


RECOVERED = Exercise(
    number="3.4",
    name="ce_report",
    returns='dict with "clean", "spliced", "zero", "mean", "delta", "recovered_zero", "recovered_mean"',
    draw=draw_losses,
    reference=ce_report,
    wrong=(
        Wrong(
            "clean loss forgotten",
            lambda *args: _changed(
                *args,
                lambda r: {f"recovered_{a}": (r[a] - r["spliced"]) / r[a] for a in ("zero", "mean")},
            ),
            "You divided by the ablated loss itself. Even the untouched model would not score 1 then. What "
            "there is to recover is the damage: ablated loss minus clean loss.",
        ),
        Wrong(
            "lost, not recovered",
            lambda *args: _changed(
                *args,
                lambda r: {
                    f"recovered_{a}": (r["spliced"] - r["clean"]) / (r[a] - r["clean"])
                    for a in ("zero", "mean")
                },
            ),
            "That is the share of the damage that is *left*. Recovered is one minus it: a perfect copy "
            "scores 1.",
        ),
        Wrong(
            "ratio of losses",
            lambda *args: _changed(
                *args, lambda r: {f"recovered_{a}": r["clean"] / r["spliced"] for a in ("zero", "mean")}
            ),
            "You divided the clean loss by the spliced one. Nothing then says how bad it could have been: "
            "the ablated loss is the other end of the scale.",
        ),
        Wrong(
            "zero twice",
            lambda *args: _changed(*args, lambda r: {"recovered_mean": r["recovered_zero"]}),
            "Both recovered shares are measured against zero ablation. The second one has the mean-ablated "
            "loss at the far end.",
        ),
        Wrong(
            "the two swapped",
            lambda *args: _changed(
                *args,
                lambda r: {"recovered_zero": r["recovered_mean"], "recovered_mean": r["recovered_zero"]},
            ),
            "The two recovered shares are swapped: which ablated loss stands in which of them?",
        ),
        Wrong(
            "delta turned round",
            lambda *args: _changed(*args, lambda r: {"delta": -r["delta"]}),
            "`delta` has the wrong sign. It is what the splice costs: spliced minus clean, positive where "
            "the model got worse.",
        ),
        Wrong(
            "zeros through the SAE",
            lambda loss_with, reconstruct, mean: _with(
                "zero", lambda x: reconstruct(torch.zeros_like(x)), loss_with, reconstruct, mean
            ),
            "For `zero` you sent zeros through the SAE. Its decoder adds a bias, so what comes out is not "
            "zero. Zero ablation puts zeros in place of the activation: `torch.zeros_like`.",
        ),
        Wrong(
            "mean of these texts",
            lambda loss_with, reconstruct, mean: _with(
                "mean", lambda x: x.mean((0, 1)).expand_as(x), loss_with, reconstruct, mean
            ),
            "You ablated with the mean of the very texts you measure on, and that is a small peek at them. "
            "Use `mean`, which comes from other tokens.",
        ),
        Wrong(
            "each token's own mean",
            lambda loss_with, reconstruct, mean: _with(
                "mean", lambda x: x.mean(-1, keepdim=True).expand_as(x), loss_with, reconstruct, mean
            ),
            "You replaced each token by the mean of its own numbers. The mean that is meant is a vector, "
            "the mean token: `mean`.",
        ),
        Wrong(
            "mean added",
            lambda loss_with, reconstruct, mean: _with(
                "mean", lambda x: x + mean, loss_with, reconstruct, mean
            ),
            "You added the mean to the activation. Ablation puts it *in place of* the activation.",
        ),
        Wrong(
            "mean taken off",
            lambda loss_with, reconstruct, mean: _with(
                "mean", lambda x: x - mean, loss_with, reconstruct, mean
            ),
            "You took the mean off and left the rest. Mean ablation does the opposite: only the mean is "
            "left.",
        ),
    ),
    look_at="the edits. Each is a function of one tensor x that returns a tensor of the same shape; "
    "`mean.expand_as(x)` repeats a vector for every token.",
    saw="one cost, two denominators. A recovered share without the words 'zero' or 'mean' beside it says "
    "little; `delta`, in nats, always says the same.",
)

EXERCISES = (SPLICE, RECOVERED)
