"""Exercise 4.15: a recipe for an SAE, tried on small data with known features. The score itself is in the lab."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from labs.checks.exercise import Exercise, Property, Wrong, whole
from solutions.sae import Plan, TensorSource, TrainableSAE, TrainingDiverged, explained_variance, make_sae
from solutions.sae import train as train_sae


@dataclass
class Tried:
    """What came out of a recipe."""

    tokens: int
    steps: int
    lr: float
    latents: int
    l0: float
    ev: float
    began_at: float  # explained variance before training
    floor: float  # of a PCA with as many numbers a token

    described = "a pair: an SAE from `make_sae`, and a `Plan`"


class TurnedRound:
    """A recipe whose two halves are in the other order."""

    described = "the two in the other order"


def draw_task(generator) -> dict:
    """How wide the data are, how many latents may be on, and how many tokens may be seen."""
    return {
        "d_in": 4 * whole(generator, 4, 7),
        "l0": whole(generator, 3, 5),
        "n_tokens": 1000 * whole(generator, 12, 18),
    }


def toy_data(d_in: int, l0: int, n: int) -> tuple[Tensor, Tensor]:
    """Tokens made of about l0 true features each, out of three times as many features as dimensions."""
    generator = torch.Generator().manual_seed(1000 * d_in + l0)
    features = torch.nn.functional.normalize(torch.randn(3 * d_in, d_in, generator=generator), dim=1)
    on = torch.rand(n, 3 * d_in, generator=generator) < l0 / (3 * d_in)
    strengths = on * (1 + torch.rand(n, 3 * d_in, generator=generator))
    x = strengths @ features + 0.02 * torch.randn(n, d_in, generator=generator) + features[0]
    return x[: n // 2], x[n // 2 :]


def pca(x: Tensor, test: Tensor, k: int) -> float:
    """Explained variance of the k leading directions: the floor of the challenge."""
    mean = x.mean(0)
    directions = torch.linalg.svd(x - mean, full_matrices=False).Vh[:k]
    return explained_variance(test, (test - mean) @ directions.T @ directions + mean)


def try_recipe(answer: Callable, args: dict):
    """Train as the recipe says, on toy data of the asked width."""
    if answer is recipe:
        return _of_the_reference(*args.values())
    return _tried(answer(*args.values()), args)


@cache
def _of_the_reference(d_in: int, l0: int, n_tokens: int) -> Tried:
    return _tried(recipe(d_in, l0, n_tokens), {"d_in": d_in, "l0": l0, "n_tokens": n_tokens})


def _tried(recipe, args: dict):
    if not (isinstance(recipe, tuple) and len(recipe) == 2):
        return None if isinstance(recipe, Tried) else recipe
    sae, plan = recipe
    if isinstance(sae, Plan) and isinstance(plan, TrainableSAE):
        return TurnedRound()
    if not isinstance(sae, TrainableSAE) or not isinstance(plan, Plan):
        return recipe
    x, test = toy_data(args["d_in"], args["l0"], 8_000)
    began = _ev(_fresh_copy(sae, x), test * _scale(x))
    l0, ev = _trained(sae, plan, x, test) if _can_run(plan, args["n_tokens"], x) else (0.0, began)
    floor = pca(x, test, args["l0"])
    return Tried(plan.n_tokens, plan.n_steps, plan.lr, sae.d_sae, l0, ev, began, floor)


def _can_run(plan: Plan, budget: int, x: Tensor) -> bool:
    return plan.n_tokens <= budget and plan.batch_size <= len(x)


def _trained(sae: TrainableSAE, plan: Plan, x: Tensor, test: Tensor) -> tuple[float, float]:
    """L0 and explained variance on other tokens; minus infinity where training broke down."""
    try:
        trained = train_sae(sae, TensorSource(x), plan, progress=False).sae
    except TrainingDiverged:
        return 0.0, float("-inf")
    with torch.no_grad():
        z = trained.encode(test)
        return (z > 0).sum(1).float().mean().item(), explained_variance(test, trained.decode(z))


def _scale(x: Tensor) -> float:
    return x.shape[1] ** 0.5 / x.norm(dim=1).mean().item()


def _fresh_copy(sae: TrainableSAE, x: Tensor) -> TrainableSAE:
    fresh = copy.deepcopy(sae)
    fresh.initialise(x * _scale(x))
    return fresh


@torch.no_grad()
def _ev(sae: TrainableSAE, x: Tensor) -> float:
    return explained_variance(x, sae.decode(sae.encode(x)))


def recipe(d_in: int, l0: int, n_tokens: int) -> tuple[TrainableSAE, Plan]:
    return _recipe(d_in, l0, n_tokens)


def _recipe(d_in, l0, n_tokens, *, width=4, k=None, **changes) -> tuple[TrainableSAE, Plan]:
    settings = {"n_tokens": n_tokens, "batch_size": max(32, n_tokens // 300), "lr": 5e-3, "decay": 0.5}
    sae = make_sae("topk", d_in, max(1, int(width * d_in)), k=l0 if k is None else k, seed=0)
    return sae, Plan(**(settings | changes))


def _within_budget(answer, args, output: Tried) -> str | None:
    return None if output.tokens <= args["n_tokens"] else f"Your plan reads {output.tokens:,}."


def _sparse_enough(answer, args, output: Tried) -> str | None:
    return (
        None
        if output.l0 <= 1.1 * args["l0"]
        else f"On new tokens {output.l0:.1f} of yours are on, on average."
    )


def _beats_pca(answer, args, output: Tried) -> str | None:
    wanted = output.floor + 0.4 * (1 - output.floor)
    if output.ev >= wanted:
        return None
    return (
        f"A PCA with as many numbers a token reaches {output.floor:.2f}, so {wanted:.2f} is asked for; yours reaches "
        f"{output.ev:.2f} after {output.steps} steps at a learning rate of {output.lr:g}. Try more steps (a "
        "smaller `batch_size`), or larger ones (`lr`)."
    )


CHALLENGE = Exercise(
    number="4.15",
    name="recipe",
    returns="tuple[TrainableSAE, Plan]",
    draw=draw_task,
    reference=recipe,
    run=try_recipe,
    unique=False,
    cases=4,
    wrong=(
        Wrong(
            "over the budget",
            lambda d_in, l0, n_tokens: _recipe(d_in, l0, 2 * n_tokens),
            "Your plan reads more tokens than allowed: `n_tokens` is the budget, repeats counted. With "
            "enough tokens everybody gets there.",
            recognise=lambda answer, args, output: output.tokens > args["n_tokens"],
        ),
        Wrong(
            "too many latents on",
            lambda d_in, l0, n_tokens: _recipe(d_in, l0, n_tokens, k=4 * l0),
            "Too many of your latents are on at a token. A better copy is easy with more latents; the "
            "question is what you get for `l0` of them. With TopK and BatchTopK you set it (`k`), with an "
            "L1 penalty you have to find it.",
            recognise=lambda answer, args, output: output.l0 > 1.1 * args["l0"],
        ),
        Wrong(
            "no more latents than dimensions",
            lambda d_in, l0, n_tokens: _recipe(d_in, l0, n_tokens, width=0.5),
            "Your SAE has fewer latents than the data have dimensions. There are more features than "
            "dimensions: that is the reason for an SAE. Several latents for each dimension.",
            recognise=lambda answer, args, output: output.latents < args["d_in"],
        ),
        Wrong(
            "a handful of steps",
            lambda d_in, l0, n_tokens: _recipe(d_in, l0, n_tokens, batch_size=1000),
            "Your run has only a handful of steps, because the batches are so large. A budget of tokens "
            "can be spent on few good steps or on many rough ones; for a short run many are better. Lower "
            "`batch_size`.",
            recognise=lambda answer, args, output: output.steps < 40,
        ),
        Wrong(
            "hardly moved",
            lambda d_in, l0, n_tokens: _recipe(d_in, l0, n_tokens, lr=1e-5),
            "Your SAE is nearly where it began. The learning rate is too low for so short a run: raise it "
            "ten-fold until something breaks, then go back a little.",
            recognise=lambda answer, args, output: bool(_beats_pca(answer, args, output))
            and abs(output.ev - output.began_at) < 0.03,
        ),
        Wrong(
            "far too fast",
            lambda d_in, l0, n_tokens: _recipe(d_in, l0, n_tokens, lr=3.0),
            "Your SAE is worse than when it began: the learning rate is too high. Lower it ten-fold.",
            recognise=lambda answer, args, output: bool(_beats_pca(answer, args, output))
            and output.ev < output.began_at - 0.03,
        ),
    ),
    properties=(
        Property("The plan must stay within `n_tokens`.", _within_budget),
        Property(
            "No more than `l0` latents may be on at the average token (a tenth more is forgiven).",
            _sparse_enough,
        ),
        Property(
            "On data with known features, explained variance must go four tenths of the way from a PCA's "
            "to 1.",
            _beats_pca,
        ),
    ),
    look_at="what you return: `make_sae(architecture, d_in, d_sae, ...)` and `Plan(n_tokens=..., ...)`, "
    "as a pair.",
    saw="a recipe that works on data it has not seen. The rest is search: change one knob at a time, and "
    "write down what it did.",
)

EXERCISES = (CHALLENGE,)
