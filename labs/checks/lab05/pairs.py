"""Exercises 5.8 and 5.9: two latents on the same tokens: lift beside its null, and who implies whom."""

from __future__ import annotations

import torch
from torch import Tensor

from labs.checks.exercise import Exercise, Property, Wrong, whole

# --- 5.8 ------------------------------------------------------------


def draw_two(generator) -> dict:
    """Two latents that meet a little more often than chance, and some permutations of the tokens."""
    tokens, n = whole(generator, 40, 80), whole(generator, 19, 29)
    a = torch.rand(tokens, generator=generator) < 0.35
    together = 0.25 + 0.2 * float(torch.rand((), generator=generator))
    b = torch.rand(tokens, generator=generator) < torch.where(a, together, 0.3)
    a[:2] = b[:2] = True
    shuffles = torch.stack([torch.randperm(tokens, generator=generator) for _ in range(n)])
    return {"a": a, "b": b, "shuffles": shuffles}


def lift_and_null(a: Tensor, b: Tensor, shuffles: Tensor) -> dict:
    return _of(a, b, a & b, a & b[shuffles])


def _of(a: Tensor, b: Tensor, both: Tensor, shuffled: Tensor, p=None) -> dict:
    expected = a.sum() * b.sum() / len(a)
    n, null = both.sum(), shuffled.sum(-1)
    p = (1 + (null >= n).sum()) / (1 + len(null)) if p is None else p(null, n)
    return {"lift": n / expected, "null": null / expected, "p": p}


def _with_p(p):
    return lambda a, b, shuffles: _of(a, b, a & b, a & b[shuffles], p)


def _in_units(unit):
    """lift and null in another unit: `unit(a, b, n)` for a number of common tokens."""

    def answer(a, b, shuffles):
        right = lift_and_null(a, b, shuffles)
        counts = (a & b).sum(), (a & b[shuffles]).sum(-1)
        return right | {"lift": unit(a, b, counts[0]), "null": unit(a, b, counts[1])}

    return answer


def _both_alike(a: Tensor, b: Tensor, shuffles: Tensor) -> dict:
    return _of(a, b, a & b, a[shuffles] & b[shuffles])


def _null_is_one_on_average(answer, args, output) -> str | None:
    everything = torch.stack([torch.arange(len(args["a"])).roll(i) for i in range(len(args["a"]))])
    mean = float(answer(args["a"], args["b"], everything)["null"].mean())
    return None if abs(mean - 1) < 1e-3 else f"Over all rotations, your null has a mean of {mean:.3g}."


LIFT = Exercise(
    number="5.8",
    name="lift_and_null",
    returns='dict with "lift" (float), "null" (Float[Tensor, "n"]), "p" (float)',
    draw=draw_two,
    reference=lift_and_null,
    wrong=(
        Wrong(
            "conditional",
            _in_units(lambda a, b, n: n / a.sum()),
            "Yours is the share of a's tokens on which b is active. A latent that is active nearly "
            "everywhere would score high with everybody. Divide by what independent latents would give.",
        ),
        Wrong(
            "conditional on b",
            _in_units(lambda a, b, n: n / b.sum()),
            "Yours is the share of b's tokens on which a is active, which is high whenever a is common. "
            "Divide by what independent latents would give.",
        ),
        Wrong(
            "PMI",
            _in_units(lambda a, b, n: torch.log2(n * len(a) / (a.sum() * b.sum()))),
            "Yours is the logarithm of the lift (that is the PMI, in bits). It says the same; the task asks "
            "for the ratio itself.",
        ),
        Wrong(
            "Jaccard",
            _in_units(lambda a, b, n: n / (a.sum() + b.sum() - n)),
            "You divided by the tokens with either latent (Jaccard). It says how alike the two are, and "
            "knows no chance. Divide by the expected number, n_a · n_b / tokens.",
        ),
        Wrong(
            "joint share",
            _in_units(lambda a, b, n: n / (a.sum() * b.sum())),
            "You forgot the number of tokens: expected are n_a · n_b / *tokens* common ones.",
        ),
        Wrong(
            "share of all tokens",
            _in_units(lambda a, b, n: n / len(a)),
            "Yours is the share of all tokens on which both are active. How many would two latents share "
            "that know nothing of each other? Divide by that.",
        ),
        Wrong(
            "both shuffled alike",
            _both_alike,
            "You moved both latents to the same new places, so they still meet as often: every entry of "
            "your null equals the lift. Move only b.",
        ),
        Wrong(
            "p without the plus one",
            _with_p(lambda null, n: (null >= n).float().mean()),
            "Your p can be 0. With a hundred permutations you cannot know that luck *never* does it. The "
            "real one is one more arrangement: (1 + as high) / (1 + permutations).",
        ),
        Wrong(
            "strictly higher",
            _with_p(lambda null, n: (1 + (null > n).sum()) / (1 + len(null))),
            "Your p counts only permutations that are *higher* than the real lift. Those that are just as "
            "high did as well: `>=`.",
        ),
        Wrong(
            "lower tail",
            _with_p(lambda null, n: (1 + (null <= n).sum()) / (1 + len(null))),
            "Your p is small where the two *avoid* each other. Ask how many permutations are at least as "
            "high.",
        ),
        Wrong(
            "a shuffled",
            lambda a, b, shuffles: _of(a, b, a & b, a[shuffles] & b),
            "You shuffled a and left b. As a control that is as good; here the task says `b[shuffles[i]]`, "
            "so that numbers can be compared.",
        ),
    ),
    properties=(
        Property("Two latents that know nothing of each other have a lift of 1.", _null_is_one_on_average),
    ),
    look_at="`b[shuffles]` is [n, tokens]: every row is b in another order.",
    saw="a number, and what the same number is where there is nothing to find. Keep the pair: a lift alone "
    "says little, above all for rare latents.",
    cases=8,
)

# --- 5.9 ------------------------------------------------------------


def draw_families(generator) -> dict:
    """Latents of which some are special cases of others, some are twins, and some meet by luck."""
    tokens, latents = whole(generator, 200, 300), whole(generator, 8, 12)
    active = torch.rand(tokens, latents, generator=generator) < 0.05 + 0.2 * torch.rand(
        latents, generator=generator
    )

    def part(of: Tensor, share: float) -> Tensor:
        return of & (torch.rand(tokens, generator=generator) < share)

    active[:, 0] = torch.rand(tokens, generator=generator) < 0.4
    active[:, 1] = part(active[:, 0], 0.3)
    active[:, 2] = part(active[:, 0], 0.35) | (torch.rand(tokens, generator=generator) < 0.01)
    active[:, 3] = part(active[:, 0], 0.97)  # a twin
    active[:, 4] = part(active[:, 1], 0.2)  # too rare to say
    active[:, 5] = False  # dead
    common = int((active[:, 0] & active[:, 1]).sum())  # exactly enough in some cases
    least = common if whole(generator, 0, 1) else 15
    order = torch.randperm(latents, generator=generator)
    return {"active": active[:, order], "at": 0.9, "below": 0.5, "least": least}


def implications(active: Tensor, at: float, below: float, least: int) -> list[tuple[int, int]]:
    n, given_child, given_parent = _conditionals(active)
    return _pairs((given_child >= at) & (given_parent <= below) & (n >= least))


def _conditionals(active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[parent, child]: common tokens, P(parent | child), P(child | parent)."""
    x = active.float()
    n, own = x.T @ x, x.sum(0).clamp(min=1)
    return n, n / own[None, :], n / own[:, None]


def _pairs(found: Tensor) -> list[tuple[int, int]]:
    return [tuple(pair) for pair in found.nonzero().tolist()]


def _by(rule):
    return lambda active, at, below, least: _pairs(rule(*_conditionals(active), at, below, least))


IMPLICATIONS = Exercise(
    number="5.9",
    name="implications",
    returns="list[tuple[int, int]]",
    draw=draw_families,
    reference=implications,
    wrong=(
        Wrong(
            "turned round",
            lambda active, at, below, least: sorted(
                (b, a) for a, b in implications(active, at, below, least)
            ),
            "Parent and child are exchanged. The *child* is the special case: where it is active, the "
            "parent nearly always is, too.",
        ),
        Wrong(
            "child first",
            lambda active, at, below, least: [(b, a) for a, b in implications(active, at, below, least)],
            "Your pairs are (child, parent). The task asks for (parent, child), in ascending order.",
        ),
        Wrong(
            "twins too",
            _by(
                lambda n, gc, gp, at, below, least: (
                    (gc >= at) & (n >= least) & ~torch.eye(len(n), dtype=torch.bool)
                )
            ),
            "Your list also has twins, where each one implies the other. A parent is *more general*: at "
            "most a share `below` of its tokens has the child.",
        ),
        Wrong(
            "with themselves",
            _by(lambda n, gc, gp, at, below, least: (gc >= at) & (n >= least)),
            "Your list has latents that imply themselves, and twins. The second condition excludes both: at "
            "most a share `below` of the parent's tokens has the child.",
        ),
        Wrong(
            "twins only",
            _by(
                lambda n, gc, gp, at, below, least: (
                    (gc >= at) & (gp > below) & (n >= least) & ~torch.eye(len(n), dtype=torch.bool)
                )
            ),
            "Yours are the twins: the parent is mostly active *with* the child. Asked for are parents that "
            "are mostly active without it, `<= below`.",
        ),
        Wrong(
            "more than the least",
            _by(lambda n, gc, gp, at, below, least: (gc >= at) & (gp <= below) & (n > least)),
            "You asked for *more* than `least` common tokens. `least` is enough: `>=`.",
        ),
        Wrong(
            "however rare",
            _by(lambda n, gc, gp, at, below, least: (gc >= at) & (gp <= below) & (n > 0)),
            "Your list has pairs that meet on a handful of tokens. Three out of three is no rule: at least "
            "`least` common tokens.",
        ),
    ),
    look_at="`x.T @ x` of the active tokens as floats: [latents, latents] counts of common tokens, each "
    "latent's own on the diagonal.",
    saw="an order among latents, read off from counts alone. It is evidence of a general latent and a "
    "special case. A special case that *replaces* its parent (absorption) does not show here.",
    cases=8,
)

EXERCISES = (LIFT, IMPLICATIONS)
