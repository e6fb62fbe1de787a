"""Exercises 1.9 to 1.11: repair a broken experiment, find a latent by contrast, and draw a fair control."""

from __future__ import annotations

import torch
from torch import Tensor

from labs.checks.exercise import Exercise, Property, Wrong, normal, whole

# --- 1.9 ------------------------------------------------------------


class ToyEncoder:
    """A small SAE encoder; `encode(acts)` takes [..., d_in] and gives [..., d_sae], as a real one does."""

    def __init__(self, d_in: int, d_sae: int, generator: torch.Generator):
        self.W, self.b = normal(generator, d_in, d_sae), normal(generator, d_sae) - 1

    def __call__(self, acts: Tensor) -> Tensor:
        return (acts @ self.W + self.b).relu()


def draw_experiment(generator) -> dict:
    """A cache with two hook points of one shape; the one that is asked for was cached first."""
    batch, pos = whole(generator, 3, 5), whole(generator, 6, 9)
    d_in, d_sae = whole(generator, 4, 8), whole(generator, 15, 30)
    layer = whole(generator, 0, 11)
    right, other = f"blocks.{layer}.hook_resid_pre", f"blocks.{layer}.hook_mlp_out"
    cache = {right: normal(generator, batch, pos, d_in), other: 3 * normal(generator, batch, pos, d_in) + 1}
    keep = torch.arange(pos) < torch.randint(4, pos, (batch,), generator=generator)[:, None]
    keep[:, 0] = False
    for acts in cache.values():
        acts[:, 0] *= 20
    return {"cache": cache, "hook_name": right, "encode": ToyEncoder(d_in, d_sae, generator), "keep": keep}


def repaired_experiment(cache: dict[str, Tensor], hook_name: str, encode, keep: Tensor) -> dict:
    active = encode(cache[hook_name])[keep] > 0
    return {"l0": active.sum(-1).float().mean().item(), "density": active.float().mean(0)}


def first_experiment(cache: dict[str, Tensor], hook_name: str, encode, keep: Tensor) -> dict:
    """The broken experiment as the lab shows it."""
    acts = list(cache.values())[-1]
    averaged = encode(acts).mean(dim=1)
    return _report(averaged > 0)


def _report(active: Tensor) -> dict:
    rows = active.flatten(0, -2)
    return {"l0": rows.sum(-1).float().mean(), "density": rows.float().mean(0)}


def _last(cache: dict) -> Tensor:
    return list(cache.values())[-1]


def _sentence_means(values: Tensor, keep: Tensor) -> Tensor:
    return torch.stack([row[kept].mean(0) for row, kept in zip(values, keep, strict=True)])


def _with_density(cache, hook_name, encode, keep, density) -> dict:
    return {"l0": repaired_experiment(cache, hook_name, encode, keep)["l0"], "density": density}


REPAIR = Exercise(
    number="1.9",
    name="repaired_experiment",
    returns='dict with "l0" (float) and "density" (Float[Tensor, "d_sae"])',
    draw=draw_experiment,
    reference=repaired_experiment,
    wrong=(
        Wrong(
            "as it was",
            first_experiment,
            "This is the experiment as it was, with every fault still in it. Read it line by line: which "
            "activations, counted for what, at which positions?",
        ),
        Wrong(
            "wrong hook",
            lambda cache, hook_name, encode, keep: _report(encode(_last(cache))[keep] > 0),
            "You repaired the counting, and still feed the SAE whatever was cached last: another hook "
            "point. The shapes agree, so nothing complains. Take `cache[hook_name]`.",
        ),
        Wrong(
            "wrong hook, BOS kept",
            lambda cache, hook_name, encode, keep: _report(encode(_last(cache)) > 0),
            "You count per token now. Two faults are left: the activations come from whatever was cached "
            "last, and BOS and padding are counted. `cache[hook_name]` and `[keep]`.",
        ),
        Wrong(
            "averaged",
            lambda cache, hook_name, encode, keep: _report(encode(cache[hook_name]).mean(1) > 0),
            "The hook is right now. You still average the features over a sentence and then ask which are "
            "above zero: any latent that fired at any token counts. Ask each token first.",
        ),
        Wrong(
            "averaged over kept tokens",
            lambda cache, hook_name, encode, keep: _report(
                _sentence_means(encode(cache[hook_name]), keep) > 0
            ),
            "BOS and padding are gone, and the averaging is not: one row a sentence, in which every latent "
            "that fired once is above zero. Count at each token.",
        ),
        Wrong(
            "activations averaged",
            lambda cache, hook_name, encode, keep: _report(
                encode(_sentence_means(cache[hook_name], keep)) > 0
            ),
            "You average the *activations* of a sentence and encode the mean. The SAE has never seen such a"
            " vector: it was trained on single tokens.",
        ),
        Wrong(
            "BOS kept",
            lambda cache, hook_name, encode, keep: _report(encode(cache[hook_name]) > 0),
            "Right hook, counted per token; BOS and padding are still among the tokens. `[keep]` leaves "
            "them out.",
        ),
        Wrong(
            "density as a mean strength",
            lambda cache, hook_name, encode, keep: _with_density(
                cache, hook_name, encode, keep, encode(cache[hook_name])[keep].mean(0)
            ),
            "`l0` is right. Your density is a mean strength: it should be the share of tokens at which a "
            "latent is above zero.",
        ),
        Wrong(
            "density as a count",
            lambda cache, hook_name, encode, keep: _with_density(
                cache, hook_name, encode, keep, (encode(cache[hook_name])[keep] > 0).float().sum(0)
            ),
            "`l0` is right. Your density is a count: divide by the number of tokens, so that 1 means always"
            " on.",
        ),
        Wrong(
            "density of tokens",
            lambda cache, hook_name, encode, keep: _with_density(
                cache, hook_name, encode, keep, (encode(cache[hook_name])[keep] > 0).float().mean(-1)
            ),
            "`l0` is right. Your density has one number a token; it should have one a latent: average along"
            " the tokens, `.mean(0)`.",
        ),
    ),
    look_at="which rows are left after `[keep]`: features[keep] has shape [n_tokens, d_sae].",
    saw="three small slips, and no error message. L0, explained variance and density are how you notice.",
)

# --- 1.10 ------------------------------------------------------------


def draw_contrast(generator) -> dict:
    """Two sets of tokens of unequal size; one latent is strong in both, one fires mostly with the concept."""
    n_with, n_without, d_sae = whole(generator, 6, 12), whole(generator, 14, 25), whole(generator, 10, 20)

    def sparse(n):
        return normal(generator, n, d_sae).relu() * (torch.rand(n, d_sae, generator=generator) < 0.5)

    with_concept, without = sparse(n_with), sparse(n_without)
    with_concept[:, 0] = 30 * torch.rand(n_with, generator=generator) + 5  # always on: says nothing
    without[:, 0] = 20 * torch.rand(n_without, generator=generator) + 5
    with_concept[: n_with - 1, 1] = 0.4
    without[1:, 1] = 0
    return {"with_concept": with_concept, "without": without}


def contrast(with_concept: Tensor, without: Tensor) -> Tensor:
    return (with_concept > 0).float().mean(0) - (without > 0).float().mean(0)


def _always_on(answer, args, output) -> str | None:
    score = float(output[0])
    return (
        None
        if abs(score) < 1e-3
        else f"Latent 0 is active on every token here, and yours gives it {score:.3f}."
    )


def _in_range(answer, args, output) -> str | None:
    most = float(output.abs().max())
    return None if most <= 1 + 1e-4 else f"The largest of yours is {most:.3g}."


CONTRAST = Exercise(
    number="1.10",
    name="contrast",
    returns='Float[Tensor, "d_sae"]',
    draw=draw_contrast,
    reference=contrast,
    wrong=(
        Wrong(
            "strengths",
            lambda with_concept, without: with_concept.mean(0) - without.mean(0),
            "You compared mean strengths. A latent that is always on, and strong, then wins by a small "
            "difference of large numbers. The task asks how *often* a latent fires: `> 0` first.",
        ),
        Wrong(
            "turned round",
            lambda with_concept, without: contrast(without, with_concept),
            "The difference is the wrong way round: latents of the concept should come out positive.",
        ),
        Wrong(
            "absolute",
            lambda with_concept, without: contrast(with_concept, without).abs(),
            "You took the absolute value, so a latent that *avoids* the concept scores as high as one that "
            "marks it. Keep the sign.",
        ),
        Wrong(
            "no contrast",
            lambda with_concept, without: (with_concept > 0).float().mean(0),
            "You looked at the texts with the concept only. A latent that fires everywhere then looks "
            "perfect. Subtract how often it fires without the concept.",
        ),
        Wrong(
            "counts",
            lambda with_concept, without: (with_concept > 0).float().sum(0) - (without > 0).float().sum(0),
            "You compared counts, and the two sets differ in size. Divide each count by its own number of "
            "tokens: `.mean(0)`.",
        ),
        Wrong(
            "ratio",
            lambda with_concept, without: (
                (with_concept > 0).float().mean(0) / (without > 0).float().mean(0).clamp(min=1e-6)
            ),
            "You divided. A ratio makes a latent that fires once with the concept and never without it look"
            " endlessly good. Subtract.",
        ),
        Wrong(
            "per token",
            lambda with_concept, without: (
                (with_concept > 0).float().mean(-1).mean() - (without > 0).float().mean(-1)
            ),
            "You averaged over the latents. Average over the tokens, the first axis, so that each latent "
            "keeps its score.",
        ),
    ),
    properties=(
        Property("A latent that is always on tells nothing and must score 0.", _always_on),
        Property("A difference of two shares lies between -1 and 1.", _in_range),
    ),
    look_at="the axes: tokens come first, latents last. `.mean(0)` averages over tokens.",
    saw="a latent is about a concept if it fires with it and stays silent without it. Both halves count.",
)

# --- 1.11 ------------------------------------------------------------


def draw_sizes(generator) -> dict:
    """How many directions, of what length; enough of them for their statistics to be checked."""
    return {"n": whole(generator, 1500, 2500), "d": whole(generator, 2, 6), "seed": whole(generator, 0, 1000)}


def random_directions(n: int, d: int, seed: int) -> Tensor:
    directions = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    return directions / directions.norm(dim=-1, keepdim=True)


def _lengths(output: Tensor) -> Tensor:
    return output.norm(dim=-1)


def _not_unit(answer, args, output) -> bool:
    return output.shape == (args["n"], args["d"]) and bool(((_lengths(output) - 1).abs() > 1e-3).any())


def _one_length(output: Tensor) -> bool:
    return bool(((output.norm() - 1).abs() < 1e-3) or ((output.norm(dim=0) - 1).abs() < 1e-3).all())


def _lopsided(output: Tensor) -> float:
    """Length of the mean direction: near 0 if all directions are equally likely."""
    return float(output.mean(0).norm())


def _uneven(output: Tensor) -> float:
    """How far the mean fourth power of an entry is from 3 / (d (d + 2)), that of an even spread."""
    d = output.shape[-1]
    even = 3 / (d * (d + 2))
    return abs(float(output.pow(4).mean()) - even) / even


def _differs(answer, args, seed: int) -> bool:
    first, second = answer(args["n"], args["d"], args["seed"]), answer(args["n"], args["d"], seed)
    return not torch.equal(first, second)


def _moves_global_state(answer, args, output) -> bool:
    before = torch.random.get_rng_state()
    try:
        answer(args["n"], args["d"], args["seed"])
        return not torch.equal(before, torch.random.get_rng_state())
    finally:
        torch.random.set_rng_state(before)


def _global_seed(n, d, seed):
    torch.manual_seed(seed)
    directions = torch.randn(n, d)
    return directions / directions.norm(dim=-1, keepdim=True)


def _unit(values: Tensor) -> Tensor:
    return values / values.norm(dim=-1, keepdim=True)


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


CONTROL = Exercise(
    number="1.11",
    name="random_directions",
    returns='Float[Tensor, "n d"]',
    draw=draw_sizes,
    reference=random_directions,
    unique=False,
    cases=4,
    wrong=(
        Wrong(
            "normalised along the wrong axis",
            lambda n, d, seed: torch.nn.functional.normalize(
                torch.randn(n, d, generator=_seeded(seed)), dim=0
            ),
            "You divided by a length, but along the wrong axis: each direction is a row. Use `norm(dim=-1, "
            "keepdim=True)`.",
            recognise=lambda answer, args, output: _not_unit(answer, args, output) and _one_length(output),
        ),
        Wrong(
            "not unit length",
            lambda n, d, seed: torch.randn(n, d, generator=_seeded(seed)),
            "Your directions have different lengths, so some of them get larger projections for no reason. "
            "Divide each by its own length.",
            recognise=_not_unit,
        ),
        Wrong(
            "all positive",
            lambda n, d, seed: _unit(torch.rand(n, d, generator=_seeded(seed))),
            "All your directions point into the same corner of space: `torch.rand` gives numbers between 0 "
            "and 1. Use `torch.randn`, which gives either sign.",
            recognise=lambda answer, args, output: bool((output >= 0).all()),
        ),
        Wrong(
            "uniform in a cube",
            lambda n, d, seed: _unit(2 * torch.rand(n, d, generator=_seeded(seed)) - 1),
            "Your directions crowd towards the corners of a cube, as uniform numbers do after normalising. "
            "Normal numbers (`torch.randn`) have no preferred direction.",
            recognise=lambda answer, args, output: 0.02 < _uneven(output) < 0.4 and _lopsided(output) < 0.1,
        ),
        Wrong(
            "one direction repeated",
            lambda n, d, seed: _unit(torch.randn(1, d, generator=_seeded(seed))).repeat(n, 1),
            "You drew one direction and repeated it. A control needs n different ones.",
            recognise=lambda answer, args, output: len(output) > 1 and torch.equal(output[0], output[1]),
        ),
        Wrong(
            "global seed",
            _global_seed,
            "You seeded PyTorch as a whole. Every other draw in the program then changes with it. Make a "
            "generator of your own: `torch.Generator().manual_seed(seed)`.",
            recognise=lambda answer, args, output: (
                _moves_global_state(answer, args, output)
                and _differs(answer, args, args["seed"] + 1)
                and not _differs(answer, args, args["seed"])
            ),
        ),
        Wrong(
            "seed unused",
            lambda n, d, seed: _unit(torch.randn(n, d)),
            "You never used `seed`: two calls with the same seed differ, and nobody can repeat your result.",
            recognise=lambda answer, args, output: _differs(answer, args, args["seed"]),
        ),
        Wrong(
            "seed fixed",
            lambda n, d, seed: _unit(torch.randn(n, d, generator=_seeded(0))),
            "You always use the same seed, whatever `seed` says, so there is only ever one control.",
            recognise=lambda answer, args, output: not _differs(answer, args, args["seed"] + 1),
        ),
    ),
    properties=(
        Property(
            "No direction may be preferred.",
            lambda answer, args, output: (
                None
                if _lopsided(output) < 0.1 and _uneven(output) < 0.1
                else f"The mean of your {args['n']} directions has length {_lopsided(output):.2f}, not about 0."
            ),
        ),
    ),
    look_at="`keepdim=True`: without it the lengths have shape [n] and cannot divide an [n, d] tensor.",
    saw="a control that anyone can draw again from its seed. A latent has to beat the best of these, not "
    "the average.",
)

EXERCISES = (REPAIR, CONTRAST, CONTROL)
