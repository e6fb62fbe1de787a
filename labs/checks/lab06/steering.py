"""Exercise 6.10: steer, with a control of the same length. The stand-in for the model notes what is added where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from labs.checks.compare import agree, plain
from labs.checks.exercise import Exercise, Property, Wrong, normal, whole
from labs.checks.lab02.random_state import moves_global_state
from labs.checks.toy_model import ToyModel

ROWS = ("plain", "steered", "control")


class Noting(ToyModel):
    """A toy model that notes the activation before and after each hook function."""

    def __init__(self, *sizes: int, seed: int):
        super().__init__(*sizes, seed=seed)
        self.notes: list[tuple[Tensor, Tensor]] = []

    def run_with_hooks(self, ids, return_type="logits", fwd_hooks=(), stop_at_layer=None, **ignored):
        noted = [(name, self._noted(function)) for name, function in fwd_hooks]
        return super().run_with_hooks(ids, return_type, noted, stop_at_layer)

    def _noted(self, function: Callable) -> Callable:
        def call(activation, hook):
            before = activation.clone()
            edited = function(activation, hook=hook)
            self.notes.append((before, (activation if edited is None else edited).detach().clone()))
            return edited

        return call


@dataclass
class Steered:
    """What an answer returned, what it added at the hook in each run, and what it made of a hook that is not there."""

    values: dict[str, float]
    notes: list[tuple[Tensor, Tensor]]
    nowhere: Any

    described = "a dict of three numbers, with keys 'plain', 'steered', 'control'"

    def added(self, vector: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """[batch, pos, d] what was added in the steered run and in the control run, as far as they can be told."""
        pushes = [after - before for before, after in self.notes]
        pushes = [push for push in pushes if push.abs().max() > 1e-5]
        steered = next(
            (p for p in pushes if torch.allclose(p[:, -1], vector.expand_as(p[:, -1]), atol=1e-4)), None
        )
        return steered, next((p for p in pushes if p is not steered), None)


def draw_prompts(generator) -> dict:
    """Prompts after a BOS, a vector of any length, tokens that one wants to see."""
    n_layers, d_model, d_vocab = whole(generator, 2, 4), whole(generator, 4, 8), whole(generator, 12, 20)
    ids = torch.randint(1, d_vocab, (whole(generator, 2, 4), whole(generator, 4, 7)), generator=generator)
    ids[:, 0] = 0
    vector = normal(generator, d_model)
    return {
        "model": Noting(n_layers, d_model, d_vocab, seed=whole(generator, 0, 99)),
        "hook": f"blocks.{whole(generator, 0, n_layers - 1)}.hook_resid_pre",
        "ids": ids,
        "vector": vector * (0.5 + 0.5 * whole(generator, 1, 4)) / vector.norm(),
        "wanted": [1, 4, 7],
        "seed": whole(generator, 0, 99),
    }


def try_it(answer: Callable, args: dict):
    model = args["model"]
    values = plain(answer(*args.values()))
    if (
        not isinstance(values, dict)
        or set(values) != set(ROWS)
        or not all(isinstance(value, int | float) for value in values.values())
    ):
        return None if isinstance(values, Steered) else values
    notes, model.notes = model.notes, []
    try:
        nowhere = plain(answer(*(args | {"hook": "blocks.0.hok_resid_pre"}).values()))
    except Exception as error:
        nowhere = error
    return Steered(values, notes, nowhere)


def steer(model, hook: str, ids: Tensor, vector: Tensor, wanted: list[int], seed: int) -> dict[str, float]:
    return _steer(model, hook, ids, vector, wanted, seed)


def _control(vector: Tensor, seed: int) -> Tensor:
    drawn = torch.randn(len(vector), generator=torch.Generator().manual_seed(seed))
    return drawn * vector.norm() / drawn.norm()


def _probability(logits: Tensor, wanted: list[int]) -> float:
    return logits[:, -1].softmax(-1)[:, wanted].sum(-1).mean().item()


def _push(act: Tensor, vector: Tensor) -> Tensor:
    return torch.cat([act[:, :1], act[:, 1:] + vector], dim=1)


def _steer(
    model, hook, ids, vector, wanted, seed, push=_push, control=_control, measure=_probability, guard=True
) -> dict[str, float]:
    """The right answer, with a part done differently."""
    if guard and hook not in model.hook_dict:
        raise ValueError(f"the model has no hook point {hook!r}")

    def with_(direction: Tensor) -> float:
        hooks = [(hook, lambda act, hook: push(act, direction))]
        return measure(model.run_with_hooks(ids, fwd_hooks=hooks), wanted)

    return {
        "plain": measure(model.run_with_hooks(ids), wanted),
        "steered": with_(vector),
        "control": with_(control(vector, seed)),
    }


def _with(**changes) -> Callable:
    return lambda *args: _steer(*args, **changes)


def _globally(vector: Tensor, seed: int) -> Tensor:
    torch.manual_seed(seed)
    drawn = torch.randn(len(vector))
    return drawn * vector.norm() / drawn.norm()


def _unseeded(vector: Tensor, seed: int) -> Tensor:
    return _control(vector, int(torch.randint(0, 2**31, (), generator=_FRESH)))


_FRESH = torch.Generator().manual_seed(0)  # never the same twice, and not PyTorch's own


def _per_token(act: Tensor, vector: Tensor) -> Tensor:
    """A different random direction on each token when it is the control's turn (its first entry says so)."""
    if not torch.isinf(vector).any():
        return _push(act, vector)
    length = vector[~torch.isinf(vector)].max()
    drawn = torch.randn(*act.shape, generator=torch.Generator().manual_seed(0))
    drawn = drawn * length / drawn.norm(dim=-1, keepdim=True)
    return torch.cat([act[:, :1], (act + drawn)[:, 1:]], dim=1)


def _marked(vector: Tensor, seed: int) -> Tensor:
    """Marks a vector as the control of `_per_token`: infinity, and the length."""
    return torch.cat([torch.tensor([torch.inf]), vector.norm().expand(len(vector) - 1)])


def _value_of(measure: Callable) -> Callable:
    """Recognise a mistaken measure by the unsteered value."""

    def found(answer, args, output: Steered) -> bool:
        logits = args["model"].run_with_hooks(args["ids"])
        mistaken = measure(logits, args["wanted"])
        return agree(output.values["plain"], mistaken) and not agree(
            mistaken, _probability(logits, args["wanted"])
        )

    return found


def _logit(logits: Tensor, wanted: list[int]) -> float:
    return logits[:, -1][:, wanted].sum(-1).mean().item()


def _everywhere(logits: Tensor, wanted: list[int]) -> float:
    return logits.softmax(-1)[..., wanted].sum(-1).mean().item()


def _replaced(answer, args, output: Steered) -> bool:
    vector = args["vector"]
    return any(
        torch.allclose(after[:, -1], vector.expand_as(after[:, -1]), atol=1e-4) for _, after in output.notes
    )


def _about_control(test: Callable) -> Callable:
    """Recognise something about what was added in the control run."""

    def found(answer, args, output: Steered) -> bool:
        control = output.added(args["vector"])[1]
        return control is not None and test(control[:, 1:], args["vector"])

    return found


def _other_length(control: Tensor, vector: Tensor) -> bool:
    return not torch.allclose(control.norm(dim=-1), vector.norm(), rtol=1e-2)


def _not_one_direction(control: Tensor, vector: Tensor) -> bool:
    return not torch.allclose(control, control[:1, :1].expand_as(control), atol=1e-4)


def _opposite(control: Tensor, vector: Tensor) -> bool:
    return torch.allclose(control, -vector.expand_as(control), atol=1e-4)


def _same_values(answer, args, output: Steered) -> str | None:
    """Against the reference: unsteered and steered."""
    right = steer(*args.values())
    for name in ("plain", "steered"):
        if not agree(output.values[name], right[name]):
            return f"Yours gives {output.values[name]:.4g} for {name!r}, and the right value is {right[name]:.4g}."
    return None


def _control_is_measured(answer, args, output: Steered) -> str | None:
    control = output.added(args["vector"])[1]
    if control is None:
        return "No random direction reached the hook in yours."
    direction = control[0, -1]
    hooks = [(args["hook"], lambda act, hook: _push(act, direction))]
    right = _probability(args["model"].run_with_hooks(args["ids"], fwd_hooks=hooks), args["wanted"])
    found = output.values["control"]
    if agree(found, right):
        return None
    return f"With the direction that you drew it is {right:.4g}; yours says {found:.4g}."


def _refuses(answer, args, output: Steered) -> str | None:
    return None if isinstance(output.nowhere, Exception) else f"Yours returned {output.nowhere!r}."


STEER = Exercise(
    number="6.10",
    name="steer",
    returns="dict[str, float]",
    draw=draw_prompts,
    reference=steer,
    run=try_it,
    unique=False,
    wrong=(
        Wrong(
            "logits",
            _with(measure=_logit),
            "You add up logits. They have no zero and no unit of their own: turn them into probabilities with "
            "`.softmax(-1)` first.",
            recognise=_value_of(_logit),
        ),
        Wrong(
            "at every position",
            _with(measure=_everywhere),
            "You average over all positions. What comes *next* stands at the last one: `logits[:, -1]`.",
            recognise=_value_of(_everywhere),
        ),
        Wrong(
            "replaced",
            _with(push=lambda act, vector: torch.cat([act[:, :1], vector.expand_as(act[:, 1:])], dim=1)),
            "You put the vector in *place* of the activation. The prompt is gone then, and with it the SAE's error. "
            "Add it: `act[:, 1:] + vector`.",
            recognise=_replaced,
        ),
        Wrong(
            "BOS pushed, too",
            _with(push=lambda act, vector: act + vector),
            "You push BOS as well. It is no word, its activation is many times as long as the others', and the model "
            "uses it as a resting place. Leave position 0 alone.",
            recognise=lambda answer, args, output: any(
                bool(((after - before)[:, 0].abs() > 1e-5).any()) for before, after in output.notes
            ),
        ),
        Wrong(
            "the last position only",
            _with(push=lambda act, vector: torch.cat([act[:, :-1], act[:, -1:] + vector], dim=1)),
            "You push the last position only. That is a different experiment: the others go on saying what they "
            "said. Asked for is every position but BOS.",
            recognise=lambda answer, args, output: any(
                bool((after - before)[:, 1:-1].abs().max() < 1e-6)
                and bool((after - before)[:, -1].abs().max() > 1e-5)
                for before, after in output.notes
            ),
        ),
        Wrong(
            "no control",
            lambda model, hook, *rest: (found := _steer(model, hook, *rest)) | {"control": found["plain"]},
            'Your "control" is the unsteered model. It says what happens without a push, and not whether this push '
            "is better than any other. Push by a random direction of the same length.",
            recognise=lambda answer, args, output: agree(output.values["control"], output.values["plain"]),
        ),
        Wrong(
            "the opposite direction",
            _with(control=lambda vector, seed: -vector),
            "Your control is the same direction backwards. It is a good question, but no control: it is about the "
            "latent, too. Draw a direction at random.",
            recognise=_about_control(_opposite),
        ),
        Wrong(
            "another length",
            _with(
                control=lambda vector, seed: torch.randn(
                    len(vector), generator=torch.Generator().manual_seed(seed)
                )
            ),
            "Your random direction has another length than the vector. A longer push does more, whatever its "
            "direction. Divide by its own length and multiply by the vector's.",
            recognise=_about_control(_other_length),
        ),
        Wrong(
            "other noise on each token",
            _with(push=_per_token, control=_marked),
            "Your control adds another random vector to each token. That is noise, not a direction: it averages out "
            "where a direction adds up. Draw one vector, and add it everywhere.",
            recognise=_about_control(_not_one_direction),
        ),
        Wrong(
            "the global seed",
            _with(control=_globally),
            "You seed, or draw from, PyTorch's global generator. Whoever draws after you gets other numbers. "
            "`torch.Generator().manual_seed(seed)`, handed to `torch.randn` as `generator=`.",
            recognise=lambda answer, args, output: moves_global_state(lambda: answer(*args.values())),
        ),
        Wrong(
            "not seeded",
            _with(control=_unseeded),
            "The same seed gives another control each time. Make a generator inside the function, from `seed`.",
            recognise=lambda answer, args, output: (
                not agree(plain(answer(*args.values()))["control"], plain(answer(*args.values()))["control"])
            ),
        ),
        Wrong(
            "a hook that is not there",
            _with(guard=False),
            "A hook name that the model does not have goes through: all three numbers are equal, and you would "
            "report that steering does nothing. Look it up in `model.hook_dict` first, and raise ValueError.",
            recognise=lambda answer, args, output: not isinstance(output.nowhere, Exception),
        ),
    ),
    properties=(
        Property("Unsteered and steered must be right.", _same_values),
        Property("The control is the same measurement with another direction.", _control_is_measured),
        Property("A hook that the model does not have must be refused.", _refuses),
    ),
    look_at="`model.run_with_hooks(ids, fwd_hooks=[(hook, function)])`, where function(activation, hook) returns the "
    "new activation.",
    saw="one function that steers, and cannot be read without its control.",
)

EXERCISES = (STEER,)
