"""Exercise 6.7: five plausible functions, each with one bug. Each is tried by itself, and told what it still does."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from labs.checks import errors
from labs.checks.compare import agree, plain, unchanged
from labs.checks.exercise import Exercise, Property, Wrong, normal, whole
from labs.checks.toy_model import ToyModel

RIGHT, UNDONE = "right", "not yet done"
OTHERWISE = "no longer what it was, and not right either: read its docstring once more"


# ---- the right ones


def mean_l0(features: Tensor, keep: Tensor) -> float:
    return (features[keep] > 0).sum(1).double().mean().item()


def next_token_loss(logits: Tensor, ids: Tensor, keep: Tensor) -> float:
    predicted = logits[:, :-1].log_softmax(-1)
    losses = -predicted.gather(-1, ids[:, 1:, None])[..., 0]
    return losses[keep[:, 1:]].double().mean().item()


def activations_at(model, ids: Tensor, hook_names: list[str]) -> dict[str, Tensor]:
    kept = {}

    def keep_as(name):
        def write(act, hook):
            kept[name] = act

        return write

    model.run_with_hooks(ids, fwd_hooks=[(name, keep_as(name)) for name in hook_names])
    return kept


def interval_of(strengths: Tensor, n: int) -> Tensor:
    step = strengths.max() / n
    return (strengths / step).floor().long().clamp(max=n - 1)


def without_latent(x: Tensor, z: Tensor, W_dec: Tensor, b_dec: Tensor, latent: int) -> Tensor:
    return x - z[:, latent, None] * W_dec[latent]


# ---- what people make of them; the first of each name is how it was found


def _l0_of_the_mean(features, keep):
    return (features[keep].mean(0) > 0).sum().item()


def _l0_over_all(features, keep):
    return (features[keep] > 0).sum().item() / len(keep)


def _l0_unmasked(features, keep):
    return (features > 0).sum(1).double().mean().item()


def _loss_unshifted(logits, ids, keep):
    return F.cross_entropy(logits[keep], ids[keep]).item()


def _loss_backwards(logits, ids, keep):
    return F.cross_entropy(logits[:, 1:][keep[:, 1:]], ids[:, :-1][keep[:, 1:]]).item()


def _loss_with_padding(logits, ids, keep):
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).item()


def _loss_keep_unshifted(logits, ids, keep):
    return F.cross_entropy(logits[:, :-1][keep[:, :-1]], ids[:, 1:][keep[:, :-1]]).item()


def _late_binding(model, ids, hook_names):
    kept, hooks = {}, []
    for name in hook_names:
        hooks.append((name, lambda act, hook: kept.update({name: act})))  # noqa: B023
    model.run_with_hooks(ids, fwd_hooks=hooks)
    return kept


def _maximum_left_out(strengths, n):
    return (strengths / (strengths.max() / n)).floor().long()


def _maximum_wraps(strengths, n):
    return _maximum_left_out(strengths, n) % n


def _rounded_up(strengths, n):
    return ((strengths / (strengths.max() / n)).ceil().long() - 1).clamp(min=0)


def _equal_counts(strengths, n):
    return strengths.argsort().argsort() * n // len(strengths)


def _error_dropped(x, z, W_dec, b_dec, latent):
    edited = z.clone()
    edited[:, latent] = 0.0
    return edited @ W_dec + b_dec


def _wrong_sign(x, z, W_dec, b_dec, latent):
    return x + z[:, latent, None] * W_dec[latent]


def _bias_counted(x, z, W_dec, b_dec, latent):
    return x - (z[:, latent, None] * W_dec[latent] + b_dec)


@dataclass(frozen=True)
class Bug:
    """One of the five.

    Attributes:
        draw: arguments from a generator.
        right: what it should do.
        slips: what it may do instead, with what the learner is told; the first is the bug as it was found.
    """

    draw: Callable
    right: Callable
    slips: dict[str, tuple[Callable, str]]


def _draw_features(g) -> dict:
    n = whole(g, 8, 14)
    keep = torch.rand(n, generator=g) < 0.6
    keep[:2] = torch.tensor([True, False])
    return {"features": (normal(g, n, whole(g, 6, 12)) - 0.8).clamp(min=0) + 0.0, "keep": keep}


def _draw_logits(g) -> dict:
    batch, pos, vocab = whole(g, 2, 3), whole(g, 6, 9), whole(g, 5, 9)
    keep = torch.arange(pos) < torch.tensor([pos, pos - 2, pos - 3][:batch])[:, None]
    keep[:, 0] = False
    ids = torch.randint(0, vocab, (batch, pos), generator=g)
    return {"logits": 2 * normal(g, batch, pos, vocab), "ids": ids, "keep": keep}


def _draw_model(g) -> dict:
    model = ToyModel(3, whole(g, 3, 6), 9, seed=whole(g, 0, 99))
    names = ["blocks.0.hook_resid_pre", "blocks.1.hook_mlp_out", "blocks.2.hook_resid_post"]
    return {
        "model": model,
        "ids": torch.randint(0, 9, (2, 5), generator=g),
        "hook_names": names[: whole(g, 2, 3)],
    }


def _draw_strengths(g) -> dict:
    n, width = whole(g, 3, 5), 2.0 ** whole(g, -1, 1)
    strengths = 0.05 + (n - 0.1) * torch.rand(whole(g, 20, 30), generator=g) ** 2
    on_boundaries = torch.arange(1.0, n + 1)
    return {"strengths": width * torch.cat([strengths, on_boundaries]), "n": n}


def _draw_code(g) -> dict:
    n, d_sae, d = whole(g, 5, 8), whole(g, 6, 9), whole(g, 3, 5)
    z, latent = normal(g, n, d_sae).clamp(min=0), whole(g, 0, 5)
    z[0, latent] = 1.5
    names = ("x", "z", "W_dec", "b_dec", "latent")
    return dict(zip(names, (normal(g, n, d), z, normal(g, d_sae, d), normal(g, d), latent), strict=True))


BUGS = {
    "mean_l0": Bug(
        _draw_features,
        mean_l0,
        {
            "of the mean": (
                _l0_of_the_mean,
                "`mean_l0` still averages the tokens first and counts then. A latent that is active on a single token "
                "has a mean above 0, so nearly all are counted. Count on each token, then average the counts.",
            ),
            "over all tokens": (
                _l0_over_all,
                "`mean_l0` counts on the kept tokens and divides by the number of *all* tokens. Padding makes it "
                "smaller.",
            ),
            "unmasked": (
                _l0_unmasked,
                "`mean_l0` no longer looks at `keep`: padding is counted with the rest.",
            ),
        },
    ),
    "next_token_loss": Bug(
        _draw_logits,
        next_token_loss,
        {
            "not shifted": (
                _loss_unshifted,
                "`next_token_loss` still compares the prediction at a token with that same token, which the model has "
                "just read. What is said at position i is about position i + 1.",
            ),
            "shifted backwards": (
                _loss_backwards,
                "`next_token_loss` is shifted the wrong way: it compares with the token *before*. Leave out the last "
                "logits and the first id.",
            ),
            "keep of the wrong token": (
                _loss_keep_unshifted,
                "`next_token_loss` is shifted, but `keep` is not. It says which tokens may be *predicted*, so it goes "
                "with the ids: `keep[:, 1:]`.",
            ),
            "padding predicted": (
                _loss_with_padding,
                "`next_token_loss` is shifted, but no longer looks at `keep`: it counts predictions of padding.",
            ),
        },
    ),
    "activations_at": Bug(
        _draw_model,
        activations_at,
        {
            "late binding": (
                _late_binding,
                "`activations_at` still files everything under the last name. A function made in a loop looks `name` "
                "up when it is *called*, and by then the loop is over. Make it in a function of its own that takes "
                "the name.",
            ),
        },
    ),
    "interval_of": Bug(
        _draw_strengths,
        interval_of,
        {
            "the maximum left out": (
                _maximum_left_out,
                "`interval_of` still puts the strongest token into interval n, and there are only 0 to n - 1. So the "
                "best example of all is on nobody's page.",
            ),
            "the maximum at the bottom": (
                _maximum_wraps,
                "`interval_of` now puts the strongest token into interval 0, with the weakest. It belongs into the "
                "last one: `.clamp(max=n - 1)`.",
            ),
            "rounded up": (
                _rounded_up,
                "`interval_of` rounds up: what lies exactly on a boundary falls into the interval below. An interval "
                "begins with its lower end, and only the last one has its upper end, too.",
            ),
            "equal counts": (
                _equal_counts,
                "`interval_of` makes intervals with equally many tokens in them. Asked for are n intervals of equal "
                "*width*, from 0 to the largest strength.",
            ),
        },
    ),
    "without_latent": Bug(
        _draw_code,
        without_latent,
        {
            "error dropped": (
                _error_dropped,
                "`without_latent` still gives the reconstruction. It has lost the SAE's error, x minus x_hat, and that "
                "changes the model more than most latents do. For a latent that is silent, x must come out as it went "
                "in.",
            ),
            "wrong sign": (
                _wrong_sign,
                "`without_latent` adds the latent's share once more where it should take it away.",
            ),
            "bias taken away": (
                _bias_counted,
                "`without_latent` takes `b_dec` away along with the latent. The bias belongs to no latent: it is there "
                "when all are silent.",
            ),
        },
    ),
}
NAMES = tuple(BUGS)
CASES = 6


@dataclass
class Repaired:
    """What was found of each function: "right", "not yet done", the name of a slip, or the fault in words."""

    found: dict[str, str] = field(default_factory=dict)

    described = "a dict of the five functions by name"


def look_at(name: str, function: Callable) -> str:
    """Try one of the five."""
    bug = BUGS[name]
    cases = [bug.draw(torch.Generator().manual_seed(seed)) for seed in range(CASES)]
    outputs = []
    for args in cases:
        given = _copy(args)
        try:
            outputs.append(plain(function(*given.values())))
        except NotImplementedError as error:
            return UNDONE if errors.undone_exercise(error) is not None else errors.one_line(error)
        except Exception as error:
            return f"It raised {errors.one_line(error)}"
        if changed := [key for key in args if not unchanged(given[key], args[key])]:
            return f"It changes its argument `{changed[0]}` in place."
    if _same(outputs, bug.right, cases):
        return RIGHT
    return next((slip for slip, (wrong, _) in bug.slips.items() if _same(outputs, wrong, cases)), "wrong")


def _copy(args: dict) -> dict:
    return {name: value.clone() if isinstance(value, Tensor) else value for name, value in args.items()}


def _same(outputs: list, function: Callable, cases: list[dict]) -> bool:
    return all(
        _alike(out, plain(function(*_copy(args).values()))) for out, args in zip(outputs, cases, strict=True)
    )


def _alike(out, right) -> bool:
    if isinstance(right, float) and isinstance(out, float) and math.isnan(out):
        return False
    return agree(out, right)


def try_them(answer: Callable, args: dict):
    made = answer()
    if not isinstance(made, dict) or not all(callable(function) for function in made.values()):
        return None if isinstance(made, Repaired) else made
    found = {name: look_at(name, made[name]) if name in made else "missing" for name in NAMES}
    if set(found.values()) == {UNDONE}:
        raise NotImplementedError("Exercise 6.7 is not done yet")
    return Repaired(found)


def report(answer: Callable) -> pd.DataFrame:
    """What is left to do, function by function."""
    found = try_them(answer, {})
    if not isinstance(found, Repaired):
        raise ValueError("repaired() must return a dict of five functions by name.")
    says = [_in_words(name, verdict) for name, verdict in found.found.items()]
    return pd.DataFrame({"function": list(found.found), "verdict": says}).set_index("function")


def _in_words(name: str, verdict: str) -> str:
    """A verdict as a sentence, without marks for code and stress."""
    slips = BUGS[name].slips
    said = slips[verdict][1] if verdict in slips else OTHERWISE if verdict == "wrong" else verdict
    return said.replace("`", "").replace("*", "")


def repaired() -> dict[str, Callable]:
    return {name: bug.right for name, bug in BUGS.items()}


def _but(name: str, function: Callable) -> Callable:
    return lambda: repaired() | {name: function}


def _slip(name: str, slip: str) -> Wrong:
    function, message = BUGS[name].slips[slip]
    return Wrong(
        f"{name}: {slip}",
        _but(name, function),
        message,
        recognise=lambda answer, args, output: output.found[name] == slip,
    )


def _all_there(answer, args, output: Repaired) -> str | None:
    missing = [name for name in NAMES if output.found[name] == "missing"]
    return f"Yours lacks `{missing[0]}`." if missing else None


def _all_right(answer, args, output: Repaired) -> str | None:
    for name, verdict in output.found.items():
        if verdict == UNDONE:
            return f"`{name}` is not done yet."
        if verdict == "wrong":
            return f"`{name}` is {OTHERWISE}."
        if verdict != RIGHT:
            return f"`{name}`: {verdict}"
    return None


REPAIRED = Exercise(
    number="6.7",
    name="repaired",
    returns="dict[str, Callable]",
    draw=lambda generator: {},
    reference=repaired,
    run=try_them,
    unique=False,
    cases=1,
    wrong=tuple(_slip(name, slip) for name, bug in BUGS.items() for slip in bug.slips),
    properties=(
        Property("All five functions must be there, by name.", _all_there),
        Property("All five must be right.", _all_right),
    ),
    look_at="the docstring of the function that raised: it says what goes in and what comes out.",
    saw="five bugs that raise nothing, and whose numbers look like numbers. Each was found by an input so small that "
    "the answer is known.",
)

EXERCISES = (REPAIRED,)
