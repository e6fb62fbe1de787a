"""Exercise 7.3: what a push gains at several strengths, and what it costs under the model that was not pushed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from labs.checks.exercise import Exercise, Property, Wrong, normal, whole
from labs.checks.lab07.mixing import MixingModel


def draw_doses(generator) -> dict:
    """Prompts after a BOS, a vector, the tokens that it raises, and strengths that begin with 0."""
    n_layers, d_model, d_vocab = whole(generator, 2, 3), whole(generator, 5, 8), whole(generator, 14, 22)
    model = MixingModel(n_layers, d_model, d_vocab, seed=whole(generator, 0, 99))
    ids = torch.randint(1, d_vocab, (whole(generator, 2, 4), whole(generator, 4, 7)), generator=generator)
    ids[:, 0] = 0
    vector = normal(generator, d_model)
    vector = 2 * vector / vector.norm()
    return {
        "model": model,
        "hook": f"blocks.{n_layers - 1}.hook_resid_pre",
        "ids": ids,
        "vector": vector,
        "wanted": (vector @ model.W_U).topk(4).indices.tolist(),
        "strengths": [0.0, 0.5, 1.0, 2.0, 4.0][: whole(generator, 3, 5)],
        "n_new": whole(generator, 4, 7),
    }


def dose_response(
    model, hook: str, ids: Tensor, vector: Tensor, wanted: list[int], strengths: list[float], n_new: int
) -> dict[str, Tensor]:
    return _doses(model, hook, ids, vector, wanted, strengths, n_new)


def _push(act: Tensor, vector: Tensor, length: int) -> Tensor:
    """Every position but the first; `length` is that of the prompt."""
    return torch.cat([act[:, :1], act[:, 1:] + vector], dim=1)


def _run(model, hook: str, text: Tensor, vector: Tensor, push: Callable, length: int) -> Tensor:
    return model.run_with_hooks(text, fwd_hooks=[(hook, lambda act, hook: push(act, vector, length))])


def _effect(text: Tensor, length: int, wanted: list[int], steered: Tensor) -> Tensor:
    return torch.isin(text[:, length:], torch.tensor(wanted)).float().mean()


def _losses(logits: Tensor, text: Tensor) -> Tensor:
    """[batch, pos - 1] of every token but the first."""
    chances = logits[:, :-1].log_softmax(-1)
    return -chances.gather(-1, text[:, 1:, None])[..., 0]


def _damage(text: Tensor, length: int, plain: Tensor, steered: Tensor) -> Tensor:
    return _losses(plain, text)[:, length - 1 :].mean()


def _doses(
    model, hook, ids, vector, wanted, strengths, n_new, push=_push, effect=_effect, damage=_damage, dose=None
) -> dict[str, Tensor]:
    """The right answer, with a part done differently."""
    length = ids.shape[1]
    rows = []
    for i, strength in enumerate(strengths):
        added = (strength if dose is None else dose(strengths, i)) * vector
        text = ids
        for _ in range(n_new):
            logits = _run(model, hook, text, added, push, length)
            text = torch.cat([text, logits[:, -1].argmax(-1, keepdim=True)], dim=1)
        steered, plain = _run(model, hook, text, added, push, length), model.run_with_hooks(text)
        rows.append((effect(text, length, wanted, steered), damage(text, length, plain, steered)))
    effects, damages = zip(*rows, strict=True)
    return {"effect": torch.stack(effects), "damage": torch.stack(damages)}


def _with(**changes) -> Callable:
    return lambda *args: _doses(*args, **changes)


def _shifted(text, length, plain, steered) -> Tensor:
    """Each token scored by what the model says after having read it."""
    return -plain.log_softmax(-1).gather(-1, text[..., None])[:, length:, 0].mean()


def _whole_text(text, length, wanted, steered) -> Tensor:
    return torch.isin(text, torch.tensor(wanted)).float().mean()


def _one_more(model, hook, ids, vector, wanted, strengths, n_new) -> dict[str, Tensor]:
    return _doses(model, hook, ids, vector, wanted, strengths, n_new + 1)


def _going_on(model, hook, ids, vector, wanted, strengths, n_new) -> dict[str, Tensor]:
    """Each strength goes on where the one before it has stopped."""
    found, text = [], ids
    for strength in strengths:
        for _ in range(n_new):
            logits = _run(model, hook, text, strength * vector, _push, 0)
            text = torch.cat([text, logits[:, -1].argmax(-1, keepdim=True)], dim=1)
        n = ids.shape[1]
        found.append((_effect(text, n, wanted, text), _damage(text, n, model.run_with_hooks(text), text)))
    effects, damages = zip(*found, strict=True)
    return {"effect": torch.stack(effects), "damage": torch.stack(damages)}


def _drawn(model, hook, ids, vector, wanted, strengths, n_new) -> dict[str, Tensor]:
    text = ids
    for _ in range(n_new):
        chances = _run(model, hook, text, vector, _push, 0)[:, -1].softmax(-1)
        text = torch.cat([text, torch.multinomial(chances, 1, generator=_FRESH)], dim=1)
    effect = _effect(text, ids.shape[1], wanted, text)
    damage = _damage(text, ids.shape[1], model.run_with_hooks(text), text)
    return {"effect": effect.repeat(len(strengths)), "damage": damage.repeat(len(strengths))}


_FRESH = torch.Generator().manual_seed(0)  # never the same twice, and not PyTorch's own


def _chance(text, length, wanted, steered) -> Tensor:
    return steered.softmax(-1)[:, length - 1 : -1][..., wanted].sum(-1).mean()


def _any_order(answer, args, output) -> str | None:
    """Each strength for itself: the same in the other order."""
    turned = answer(*(args | {"strengths": args["strengths"][::-1]}).values())
    same = all(torch.allclose(turned[name].flip(0), output[name], atol=1e-4) for name in output)
    return None if same else "Yours gives other numbers when the strengths come in the other order."


DOSES = Exercise(
    number="7.3",
    name="dose_response",
    returns="dict[str, Float[Tensor, 'strengths']]",
    draw=draw_doses,
    reference=dose_response,
    wrong=(
        Wrong(
            "judged by the steered model",
            _with(damage=lambda text, length, plain, steered: _losses(steered, text)[:, length - 1 :].mean()),
            "You let the *steered* model judge its own text. It finds likely what it has written, however broken. "
            "The damage is the loss under the model without the push: run the finished text once more, without hooks.",
        ),
        Wrong(
            "the prompt's loss, too",
            _with(damage=lambda text, length, plain, steered: _losses(plain, text).mean()),
            "Your loss is over the whole text, prompt included. The prompt is the same at every strength and waters "
            "the damage down. Take the tokens that were *written*: the last `n_new` of each row.",
        ),
        Wrong(
            "one position late",
            _with(damage=_shifted),
            "You score each token by what the model says *after* reading it. What it says about token p stands at "
            "position p - 1: `logits[:, n - 1 : -1]` belong to `text[:, n:]`.",
        ),
        Wrong(
            "summed over the tokens",
            _with(
                damage=lambda text, length, plain, steered: (
                    _losses(plain, text)[:, length - 1 :].sum(1).mean()
                )
            ),
            "Your damage adds up over the tokens of a row. Then a longer text is a worse one. Take the mean: nats *per "
            "token*.",
        ),
        Wrong(
            "perplexity",
            _with(
                damage=lambda text, length, plain, steered: _losses(plain, text)[:, length - 1 :].mean().exp()
            ),
            "Your damage is the perplexity, the exponential of what is asked for. Give the loss itself, in nats per "
            "token.",
        ),
        Wrong(
            "the prompt counted, too",
            _with(
                effect=lambda text, length, wanted, steered: (
                    torch.isin(text[:, 1:], torch.tensor(wanted)).float().mean()
                )
            ),
            "You count wanted tokens in the prompt as well. The steered model has not written those. Look at "
            "`text[:, n:]` only, where n is the prompt's length.",
        ),
        Wrong(
            "probabilities",
            _with(effect=_chance),
            "Your effect is the probability of the wanted tokens. Asked for is what the model *wrote*: the share of "
            "written tokens that are wanted ones.",
        ),
        Wrong(
            "any wanted token",
            _with(
                effect=lambda text, length, wanted, steered: (
                    torch.isin(text[:, length:], torch.tensor(wanted)).any(1).float().mean()
                )
            ),
            "You count the texts in which a wanted token comes up at all. One in each text scores 1 then. Count "
            "tokens: the share of all that were written.",
        ),
        Wrong(
            "the whole text counted",
            _with(effect=_whole_text),
            "You count over the whole text, prompt and BOS included. The steered model has not written those. Look at "
            "`text[:, n:]` only, where n is the prompt's length.",
        ),
        Wrong(
            "a number of tokens",
            _with(
                effect=lambda text, length, wanted, steered: (
                    torch.isin(text[:, length:], torch.tensor(wanted)).float().sum()
                )
            ),
            "Your effect is how *many* tokens are wanted ones. Asked for is their share of all written tokens: the "
            "mean, from 0 to 1.",
        ),
        Wrong(
            "the sign of the loss",
            _with(damage=lambda *given: -_damage(*given)),
            "Your damage is negative: it is the mean log-probability. A loss is minus that, and the larger it is the "
            "worse.",
        ),
        Wrong(
            "no logarithm",
            _with(
                damage=lambda text, length, plain, steered: (
                    -plain[:, :-1].softmax(-1).gather(-1, text[:, 1:, None])[:, length - 1 :].mean()
                )
            ),
            "Your damage is made of probabilities. A loss in nats is minus their *logarithm*: `.log_softmax(-1)`.",
        ),
        Wrong(
            "raw logits",
            _with(
                damage=lambda text, length, plain, steered: (
                    -plain[:, :-1].gather(-1, text[:, 1:, None])[:, length - 1 :].mean()
                )
            ),
            "Your damage is made of raw logits. They say nothing until they are compared with those of all other "
            "tokens: `.log_softmax(-1)` first.",
        ),
        Wrong(
            "one token too many",
            _one_more,
            "You let the model write one token more than `n_new`. Does your loop begin anew after the last one, or "
            "end with `n_new + 1`?",
        ),
        Wrong(
            "the text goes on",
            _going_on,
            "Each strength goes on with the text of the one before it. Begin with the prompts again for each: "
            "`text = ids` belongs *inside* the loop over the strengths.",
        ),
        Wrong(
            "drawn at random",
            _drawn,
            "Run twice, yours writes two texts: the next token is drawn. Take the likeliest one, "
            "`.argmax(-1, keepdim=True)`, so that the strength is all that differs.",
            recognise=lambda answer, args, output: any(
                not torch.allclose(found, output[name], atol=1e-4)
                for name, found in answer(*args.values()).items()
            ),
        ),
        Wrong(
            "BOS pushed, too",
            _with(push=lambda act, vector, length: act + vector),
            "You push BOS as well. It is no word, and every later token reads from it: the control and the latent "
            "both look stronger than they are. Leave position 0 alone.",
        ),
        Wrong(
            "the prompt only",
            _with(
                push=lambda act, vector, length: torch.cat(
                    [act[:, :1], act[:, 1:length] + vector, act[:, length:]], dim=1
                )
            ),
            "You push the tokens of the prompt, and what the model has written itself goes unpushed. Steering goes on "
            "while the text grows: push `[:, 1:]` of whatever the hook is given.",
        ),
        Wrong(
            "the last position only",
            _with(push=lambda act, vector, length: torch.cat([act[:, :-1], act[:, -1:] + vector], dim=1)),
            "You push the last position only. Then each token is pushed while it is the last, and not any more when "
            "the next one reads it. Push every position but BOS, in every step.",
        ),
        Wrong(
            "doses that add up",
            _with(dose=lambda strengths, i: sum(strengths[: i + 1])),
            "Your doses add up: each strength comes on top of those before it. Does a hook stay in the model, or do "
            "you overwrite the vector? Begin anew for each strength, from the vector that you were given.",
        ),
        Wrong(
            "never pushed",
            _with(dose=lambda strengths, i: 0.0),
            "Nothing depends on the strength in yours: the text is that of the unsteered model. The hook must be there "
            "while the text is *written*, and return the pushed activation.",
        ),
    ),
    properties=(Property("Each strength is an experiment of its own.", _any_order),),
    look_at="`model.run_with_hooks(text, fwd_hooks=[(hook, push)])` with a text that grows by "
    "`torch.cat([text, best], dim=1)`; `.argmax(-1, keepdim=True)` at the last position gives `best`.",
    saw="the curve that a single strength hides: nothing, then an effect, then a model that is merely broken.",
)

EXERCISES = (DOSES,)
