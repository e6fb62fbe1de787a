"""Exercise 6.8: what every target promises, whatever model and SAE it is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from labs.checks.exercise import Exercise, Property, Wrong, normal, whole
from labs.checks.toy_model import ToyModel

PROMISES = ("hook", "width", "alone", "causal", "live", "rows")

# what is broken in each of the drawn targets; nothing, most of all
BREACHES = (
    (),
    ("hook",),
    ("width",),
    ("alone",),
    ("causal",),
    ("live",),
    ("rows",),
    ("causal", "rows"),
    ("width", "live"),
    ("alone", "live"),
    (),
)


@dataclass
class Embedding:
    """Looks up ids, and lets later tokens or other rows leak in. A sum rounds differently in a larger batch."""

    weights: Tensor
    ahead: float
    across: float

    def __getitem__(self, ids: Tensor) -> Tensor:
        found = self.weights[ids] * (1 + 2e-6 * (len(ids) % 3))
        return found + self.ahead * found.mean(1, keepdim=True) + self.across * found.mean(0, keepdim=True)


class Model(ToyModel):
    """A toy model that keeps the promises, but for those in `broken`."""

    def __init__(self, broken: tuple[str, ...], n_layers: int, d_model: int, seed: int):
        super().__init__(n_layers, d_model, d_vocab=11, seed=seed)
        self.W_E = Embedding(self.W_E, 0.3 * ("causal" in broken), 0.3 * ("alone" in broken))
        self.deaf = "live" in broken

    def run_with_hooks(self, ids, return_type="logits", fwd_hooks=(), stop_at_layer=None, **ignored):
        if self.deaf:  # its hooks are called, and what they return is forgotten
            fwd_hooks = [(name, _forgetting(function)) for name, function in fwd_hooks]
        return super().run_with_hooks(ids, return_type, fwd_hooks, stop_at_layer)


def _forgetting(function: Callable) -> Callable:
    def call(activation, hook):
        function(activation.clone(), hook=hook)

    return call


class Sae:
    """An SAE with `W_enc`, `W_dec`, `encode` and `decode`; rows may depend on each other."""

    described = "an SAE"

    def __init__(self, d_in: int, d_sae: int, mixed: bool, seed: int):
        generator = torch.Generator().manual_seed(seed)
        self.W_enc, self.W_dec = normal(generator, d_in, d_sae), normal(generator, d_sae, d_in)
        self.mixed = mixed

    def encode(self, x: Tensor) -> Tensor:
        z = torch.relu(x @ self.W_enc)
        return z - 0.1 * z.flatten(0, -2).mean(0) if self.mixed else z

    def decode(self, z: Tensor) -> Tensor:
        return z @ self.W_dec


def draw_target(generator) -> dict:
    """Targets one after the other, with nothing, one promise or two of them broken."""
    broken = BREACHES[generator.initial_seed() % len(BREACHES)]
    n_layers, d_model = whole(generator, 2, 4), whole(generator, 3, 6)
    kind = ("hook_resid_pre", "hook_mlp_out", "hook_resid_post")[whole(generator, 0, 2)]
    hook = f"blocks.{whole(generator, 0, n_layers - 1)}.{kind}"
    return {
        "model": Model(broken, n_layers, d_model, seed=whole(generator, 0, 99)),
        "hook": hook.replace("hook_", "hok_") if "hook" in broken else hook,
        "sae": Sae(d_model + ("width" in broken), 12, "rows" in broken, seed=whole(generator, 0, 99)),
        "ids": torch.randint(0, 11, (whole(generator, 3, 5), whole(generator, 4, 7)), generator=generator),
    }


def broken_promises(model, hook: str, sae, ids: Tensor) -> list[str]:
    return _broken(model, hook, sae, ids)


def _broken(model, hook, sae, ids, atol=1e-3, without=()) -> list[str]:
    """What is broken. `without`: promises that nobody asks about."""
    if hook not in model.hook_dict:
        return [] if "hook" in without else ["hook"]

    def acts(rows: Tensor) -> Tensor:
        return model.run_with_cache(rows, names_filter=hook)[1][hook]

    def same(a: Tensor, b: Tensor) -> bool:
        return torch.equal(a, b) if atol == 0 else torch.allclose(a, b, rtol=1e-3, atol=atol)

    whole_, half = acts(ids), ids.shape[1] // 2
    plain = model.run_with_hooks(ids)
    edited = model.run_with_hooks(ids, fwd_hooks=[(hook, lambda act, hook: torch.zeros_like(act))])
    fits = whole_.shape[-1] == sae.W_enc.shape[0]
    kept = {
        "width": fits,
        "alone": same(torch.cat([acts(row[None]) for row in ids]), whole_),
        "causal": same(acts(ids[:, :half]), whole_[:, :half]),
        "live": not torch.allclose(plain, edited, rtol=1e-3, atol=1e-3),
        "rows": not fits or _rows_alone(sae, whole_.flatten(0, 1), same),
    }
    return [name for name in PROMISES[1:] if not kept[name] and name not in without]


def _rows_alone(sae, x: Tensor, same: Callable) -> bool:
    return same(torch.cat([sae.encode(row[None]) for row in x]), sae.encode(x))


def _blind_to(*names: str) -> Callable:
    return lambda model, hook, sae, ids: _broken(model, hook, sae, ids, without=names)


def _live_by_identity(model, hook, sae, ids) -> list[str]:
    found = _broken(model, hook, sae, ids)
    return found if "hook" in found else [n for n in PROMISES if n in found or n == "live"]


@dataclass
class Broken:
    """The names that an answer gave."""

    names: list[str]

    described = "a list of names of promises"


def try_it(answer: Callable, args: dict):
    try:
        found = answer(*args.values())
    except KeyError:
        if args["hook"] in args["model"].hook_dict:
            raise
        found = []  # it went on without the hook point, and came to a bad end
    if not isinstance(found, list | tuple) or not all(isinstance(name, str) for name in found):
        return None if isinstance(found, Broken) else found
    return Broken(list(found))


def _on(answer: Callable, *broken: str) -> list[str]:
    """What an answer says of a target with these promises broken."""
    return try_it(answer, draw_target(torch.Generator().manual_seed(BREACHES.index(broken)))).names


def _missed(name: str) -> Callable:
    return lambda answer, args, output: (
        name in _broken(*args.values()) and name not in output.names and name not in _on(answer, name)
    )


def _alarm(*names: str) -> Callable:
    """Recognise that all of these are said to be broken where they are not."""

    def found(answer, args, output: Broken) -> bool:
        truth = _broken(*args.values())
        return "hook" not in truth and all(name in output.names and name not in truth for name in names)

    return found


def _one_at_a_time(answer, args, output: Broken) -> bool:
    truth = _broken(*args.values())
    return len(truth) > 1 and output.names == truth[:1] and _on(answer, truth[1]) == truth[1:]


def _is_the_list(answer, args, output: Broken) -> str | None:
    truth = _broken(*args.values())
    if output.names == truth:
        return None
    return f"Of one target yours says {output.names}; what is broken there is {truth}."


CONTRACT = Exercise(
    number="6.8",
    name="broken_promises",
    returns="list[str]",
    draw=draw_target,
    reference=broken_promises,
    run=try_it,
    unique=False,
    cases=len(BREACHES),
    wrong=(
        Wrong(
            "none of them",
            lambda model, hook, sae, ids: [],
            "Yours finds nothing broken in any target. Most of those it was given break a promise.",
            recognise=lambda answer, args, output: not any(_on(answer, *broken) for broken in set(BREACHES)),
        ),
        Wrong(
            "the first one only",
            lambda *args: _broken(*args)[:1],
            "Yours stops at the first promise that is broken. Whoever mends it runs the contract again, and meets the "
            "next. Collect them all.",
            recognise=_one_at_a_time,
        ),
        Wrong(
            "exactly equal",
            lambda *args: _broken(*args, atol=0),
            "Yours raises a false alarm: a target of ours rounds a little differently in a larger batch, as every "
            "real model does. Compare with a tolerance: `torch.allclose(a, b, rtol=1e-3, atol=1e-3)`.",
            recognise=_alarm("alone"),
        ),
        Wrong(
            "live by changing nothing",
            _live_by_identity,
            "Yours says of a target that its hook is not live, and it is. A hook that changes nothing shows nothing: "
            "put zeros there, and the logits must *differ*.",
            recognise=_alarm("live"),
        ),
        Wrong(
            "hook not asked",
            _blind_to("hook"),
            "A hook name that the model does not have is not reported. `run_with_hooks` ignores such a name without a "
            "word, so this is the promise to look at first: `hook in model.hook_dict`.",
            recognise=_missed("hook"),
        ),
        Wrong(
            "width not asked",
            _blind_to("width"),
            "An SAE whose encoder has another width than the activation goes through. Compare `sae.W_enc.shape[0]` "
            "with the last axis of the activation.",
            recognise=_missed("width"),
        ),
        Wrong(
            "alone not asked",
            _blind_to("alone"),
            "In one of the targets the rows of a batch leak into each other, and yours does not see it. Run each "
            "row by itself, `ids[i : i + 1]`, and compare.",
            recognise=_missed("alone"),
        ),
        Wrong(
            "causal not asked",
            _blind_to("causal"),
            "One of the targets looks ahead, and yours does not see it. Cut the later tokens off: the activations of "
            "the earlier ones must stay as they were.",
            recognise=_missed("causal"),
        ),
        Wrong(
            "live not asked",
            _blind_to("live"),
            "One of the targets calls its hooks and forgets what they return, and yours does not see it. Every "
            "experiment on it would find no effect. Put zeros at the hook: the logits must change.",
            recognise=_missed("live"),
        ),
        Wrong(
            "rows not asked",
            _blind_to("rows"),
            "One of the SAEs lets tokens depend on each other, and yours does not see it. Encode each token by "
            "itself, and compare.",
            recognise=_missed("rows"),
        ),
    ),
    properties=(
        Property(
            "All that is broken must be named, in the order of the table, and nothing else.", _is_the_list
        ),
    ),
    look_at="`model.run_with_cache(ids, names_filter=hook)[1][hook]` gives [batch, pos, d]; for the SAE, "
    "`.flatten(0, 1)` makes a list of tokens of it.",
    saw="one list of promises for every target. What holds for the one you wrote it on need not hold for the next: now "
    "you ask.",
)

EXERCISES = (CONTRACT,)
