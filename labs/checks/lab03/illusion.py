"""Exercises 3.8 to 3.10: intervals of strength, a hypothesis tested in each, and two kinds of purity."""

from __future__ import annotations

import torch
from torch import Tensor

from labs.checks.exercise import Exercise, Property, Wrong, whole

# --- 3.8 ------------------------------------------------------------


def draw_strengths(generator) -> dict:
    """A latent's strengths: mostly silent, skewed as real ones are, and with many equal values."""
    tokens, n = whole(generator, 60, 120), (2, 4, 8)[whole(generator, 0, 2)]
    strengths = torch.empty(tokens).exponential_(0.7, generator=generator) + 0.05
    coarse = torch.rand(tokens, generator=generator) < 0.5
    strengths = torch.where(coarse, (2 * strengths).ceil() / 2, strengths)  # ties
    return {"strengths": strengths * (torch.rand(tokens, generator=generator) < 0.6), "n": n}


def intervals(strengths: Tensor, n: int) -> Tensor:
    active = strengths[strengths > 0]
    return _cut(strengths, torch.quantile(active, torch.linspace(0, 1, n + 1)))


def _cut(strengths: Tensor, edges: Tensor, right: bool = False) -> Tensor:
    """The interval of each strength between inner edges; -1 where silent."""
    found = torch.bucketize(strengths, edges[1:-1].contiguous(), right=right)
    return torch.where(strengths > 0, found, -1)


def _edges(strengths: Tensor, n: int) -> Tensor:
    return torch.quantile(strengths[strengths > 0], torch.linspace(0, 1, n + 1))


def _equal_widths(strengths: Tensor, n: int) -> Tensor:
    return _cut(strengths, torch.linspace(0, float(strengths.max()), n + 1))


def _equal_widths_from_the_least(strengths: Tensor, n: int) -> Tensor:
    active = strengths[strengths > 0]
    return _cut(strengths, torch.linspace(float(active.min()), float(active.max()), n + 1))


def _by_rank(strengths: Tensor, n: int) -> Tensor:
    on = (strengths > 0).nonzero().flatten()
    order = strengths[on].argsort(stable=True)
    found = torch.full(strengths.shape, -1)
    found[on[order]] = torch.arange(len(on)) * n // len(on)
    return found


def _ties_split(answer, args, output) -> str | None:
    strengths = args["strengths"]
    for value in strengths[strengths > 0].unique().tolist():
        landed = output[strengths == value].unique().tolist()
        if len(landed) > 1:
            return f"Tokens of strength {value:.3g} are in intervals {landed}."
    return None


def _silent_are_marked(answer, args, output) -> str | None:
    wrong = output[args["strengths"] == 0]
    return None if bool((wrong == -1).all()) else f"Yours puts a silent token into {int(wrong.max())}."


INTERVALS = Exercise(
    number="3.8",
    name="intervals",
    returns='Int[Tensor, "tokens"]',
    draw=draw_strengths,
    reference=intervals,
    wrong=(
        Wrong(
            "equal widths",
            _equal_widths,
            "Your intervals are equally *wide*. Strengths are skewed, so the highest one holds a handful "
            "of tokens and the lowest nearly all. Equal counts need quantiles: `torch.quantile`.",
        ),
        Wrong(
            "equal widths from the least",
            _equal_widths_from_the_least,
            "You cut the range from weakest to strongest into equal *widths*. The task wants equal "
            "*counts*: the ends are quantiles of the active strengths.",
        ),
        Wrong(
            "silent tokens counted",
            lambda strengths, n: _cut(strengths, torch.quantile(strengths, torch.linspace(0, 1, n + 1))),
            "Silent tokens are in your quantiles. Most tokens are silent, so the lower ends are all zero "
            "and the intervals hold unequal parts of what is active. Take quantiles of "
            "`strengths[strengths > 0]`.",
        ),
        Wrong(
            "silent in the lowest",
            lambda strengths, n: intervals(strengths, n).clamp(min=0),
            "Silent tokens are in your interval 0. They belong to none: mark them with -1. Otherwise the "
            "weakest interval is all silence.",
        ),
        Wrong(
            "by rank",
            _by_rank,
            "You cut the sorted list into equal parts. Where equal strengths stand at a cut, the order of "
            "the texts decides which interval each gets into. Cut by value, at the quantiles.",
        ),
        Wrong(
            "strongest first",
            lambda strengths, n: torch.where(strengths > 0, n - 1 - intervals(strengths, n), -1),
            "The intervals are right and numbered from the top. 0 is the weakest.",
        ),
        Wrong(
            "ends belong above",
            lambda strengths, n: _cut(strengths, _edges(strengths, n), right=True),
            "A strength that equals an end belongs to the interval *below* it, (low, high]. Yours go to "
            "the one above: in `torch.bucketize` that is `right=False`.",
        ),
        Wrong(
            "outer ends too",
            lambda strengths, n: torch.where(
                strengths > 0, torch.bucketize(strengths, _edges(strengths, n)), -1
            ),
            "Your numbers run from 1 to n, with the weakest token alone in 0. `torch.bucketize` counts the "
            "ends below a value: give it the inner ends only, without the first and the last.",
        ),
        Wrong(
            "last interval spills over",
            lambda strengths, n: torch.where(
                strengths > 0, torch.bucketize(strengths, _edges(strengths, n), right=True) - 1, -1
            ),
            "Your strongest token is in an interval n of its own, one past the last. The maximum belongs "
            "to interval n - 1.",
        ),
    ),
    properties=(
        Property("Tokens of equal strength must share an interval.", _ties_split),
        Property("A silent token is in no interval: -1.", _silent_are_marked),
    ),
    look_at="`torch.quantile(active, torch.linspace(0, 1, n + 1))`: n + 1 ends, the first the least, the "
    "last the largest.",
    saw="the latent's whole range in equal shares. The top examples are a sliver of the last one.",
    cases=8,
)

# --- 3.9 ------------------------------------------------------------


def draw_hypothesis(generator) -> dict:
    """A hypothesis that holds at the top, less below, and on many tokens where the latent is silent."""
    tokens, n = whole(generator, 60, 120), whole(generator, 3, 6)
    interval = torch.randint(-1, n, (tokens,), generator=generator)
    interval[: n + 1] = torch.arange(-1, n)  # none is empty
    silent = torch.rand(tokens, generator=generator) < 0.3
    silent[: n + 1] = False
    interval[silent] = -1
    chance = (interval.float() + 1.2) / (n + 1)
    holds = torch.rand(tokens, generator=generator) < chance
    holds[:2] = True  # somewhere silent, somewhere active
    return {"holds": holds, "interval": interval, "n": n}


def score_hypothesis(holds: Tensor, interval: Tensor, n: int) -> dict:
    precision = torch.stack([holds[interval == i].float().mean() for i in range(n)])
    return {"precision": precision, "recall": (holds & (interval >= 0)).sum() / holds.sum()}


def _right_with(holds: Tensor, interval: Tensor, n: int, **changes) -> dict:
    return score_hypothesis(holds, interval, n) | changes


def _per_interval(holds: Tensor, interval: Tensor, n: int) -> Tensor:
    return torch.stack([(holds & (interval == i)).sum().float() for i in range(n)])


HYPOTHESIS = Exercise(
    number="3.9",
    name="score_hypothesis",
    returns='dict with "precision" (Float[Tensor, "n"]), "recall" (float)',
    draw=draw_hypothesis,
    reference=score_hypothesis,
    wrong=(
        Wrong(
            "recall as overall precision",
            lambda holds, interval, n: _right_with(
                holds, interval, n, recall=holds[interval >= 0].float().mean()
            ),
            "Your recall is divided by the number of *active* tokens, which makes it one more precision. "
            "Recall asks: of all tokens where the hypothesis holds, on how many is the latent active?",
        ),
        Wrong(
            "silent tokens forgotten",
            lambda holds, interval, n: _right_with(holds, interval, n, recall=1.0),
            "Your recall is 1, whatever the input: you only look where the latent is active. What it "
            "misses lies among the silent tokens, those with interval -1.",
        ),
        Wrong(
            "recall of the top only",
            lambda holds, interval, n: _right_with(
                holds, interval, n, recall=(holds & (interval == n - 1)).sum() / holds.sum()
            ),
            "Your recall counts the strongest interval only. Any activity counts: `interval >= 0`.",
        ),
        Wrong(
            "share of all tokens",
            lambda holds, interval, n: _right_with(
                holds, interval, n, recall=(holds & (interval >= 0)).float().mean()
            ),
            "Your recall is divided by the number of all tokens. Divide by those on which the hypothesis "
            "holds.",
        ),
        Wrong(
            "where the hits are",
            lambda holds, interval, n: _right_with(
                holds, interval, n, precision=_per_interval(holds, interval, n) / holds.sum()
            ),
            "You divided the hits of each interval by *all* tokens on which the hypothesis holds: that "
            "says where the hits are. Precision divides by the number of tokens in the interval.",
        ),
        Wrong(
            "counts",
            lambda holds, interval, n: _right_with(
                holds, interval, n, precision=_per_interval(holds, interval, n)
            ),
            "Your precision counts tokens. Divide by the number of tokens in each interval: the mean does.",
        ),
        Wrong(
            "cumulative",
            lambda holds, interval, n: _right_with(
                holds,
                interval,
                n,
                precision=torch.stack([holds[interval >= i].float().mean() for i in range(n)]),
            ),
            "Each of your precisions includes all the stronger intervals, so the top lends its purity to "
            "the middle. Look at each interval by itself: `interval == i`.",
        ),
        Wrong(
            "strongest first",
            lambda holds, interval, n: _right_with(
                holds, interval, n, precision=score_hypothesis(holds, interval, n)["precision"].flip(0)
            ),
            "The precisions are right and in reverse: entry 0 is the weakest interval.",
        ),
        Wrong(
            "silent tokens in the weakest",
            lambda holds, interval, n: _right_with(
                holds, interval, n, precision=score_hypothesis(holds, interval.clamp(min=0), n)["precision"]
            ),
            "The silent tokens, with interval -1, are counted in interval 0. They are in none.",
        ),
        Wrong(
            "silent tokens in the strongest",
            lambda holds, interval, n: _right_with(
                holds, interval, n, precision=score_hypothesis(holds, interval % n, n)["precision"]
            ),
            "The silent tokens are counted in the strongest interval: as an index, -1 means the last one. "
            "Pick each interval with `interval == i`.",
        ),
    ),
    look_at="`holds[interval == i]`: the hypothesis on the tokens of one interval. Its mean (of floats) is "
    "a share.",
    saw="one hypothesis, judged over the whole range. Precision at the top is what the top examples show; "
    "the rest is what they hide.",
)

# --- 3.10 -----------------------------------------------------------


def draw_purity(generator) -> dict:
    """A latent clean at the top and mixed below; sometimes active on fewer than k tokens."""
    tokens, k = whole(generator, 60, 120), whole(generator, 5, 12)
    strengths = torch.empty(tokens).exponential_(0.7, generator=generator) + 0.05
    strengths = strengths * (torch.rand(tokens, generator=generator) < 0.6)
    few = bool(whole(generator, 0, 1))
    if few:
        strengths[k - 3 :] = 0
        strengths[0], strengths[1] = 1.3, 0.7
    chance = 0.25 + 0.7 * (strengths / strengths.max())
    holds = torch.rand(tokens, generator=generator) < chance
    holds[1] = False
    if few:
        holds = holds | (strengths == 0)  # whichever silent token slips in, it has the concept
    return {"strengths": strengths, "holds": holds, "k": k}


def purity(strengths: Tensor, holds: Tensor, k: int) -> dict[str, float]:
    best = strengths.topk(k)
    return _purities(
        holds[best.indices[best.values > 0]].float().mean(),
        (strengths * holds).sum() / strengths.sum(),
        holds,
    )


def _purities(top_k: Tensor, mass: Tensor, holds: Tensor) -> dict:
    return {"top_k": top_k, "mass": mass, "base": holds.float().mean()}


def _purity_with(strengths: Tensor, holds: Tensor, k: int, **changes) -> dict:
    return purity(strengths, holds, k) | changes


def _scaling_changes_nothing(answer, args, output) -> str | None:
    found = answer(3 * args["strengths"], args["holds"], args["k"])
    gap = abs(float(found["mass"]) - float(output["mass"]))
    return None if gap < 1e-4 else f"Yours moves by {gap:.3g} if every strength is three times as large."


PURITY = Exercise(
    number="3.10",
    name="purity",
    returns='dict with "top_k", "mass", "base"',
    draw=draw_purity,
    reference=purity,
    wrong=(
        Wrong(
            "unweighted mass",
            lambda strengths, holds, k: _purity_with(
                strengths, holds, k, mass=holds[strengths > 0].float().mean()
            ),
            "Your `mass` counts every active token alike. Activation mass weighs each token by its "
            "strength: the sum of strengths where the concept holds, over the sum of all strengths.",
        ),
        Wrong(
            "mass as recall",
            lambda strengths, holds, k: _purity_with(
                strengths, holds, k, mass=(strengths[holds] > 0).float().mean()
            ),
            "Your `mass` says on how many of the concept's tokens the latent is active: that is recall. "
            "Purity asks the other way round, how much of the latent's activation is on the concept.",
        ),
        Wrong(
            "mean strength",
            lambda strengths, holds, k: _purity_with(
                strengths, holds, k, mass=strengths[holds].sum() / holds.sum()
            ),
            "Your `mass` is a mean strength on the concept's tokens. Divide by the *sum of strengths* "
            "everywhere, and it becomes a share.",
        ),
        Wrong(
            "mass of the top only",
            lambda strengths, holds, k: _purity_with(
                strengths,
                holds,
                k,
                mass=(strengths.topk(k).values * holds[strengths.topk(k).indices]).sum()
                / strengths.topk(k).values.sum(),
            ),
            "Your `mass` looks at the k strongest tokens only, where everything is clean. Its point is to "
            "count the weak ones too.",
        ),
        Wrong(
            "silent tokens in the top",
            lambda strengths, holds, k: _purity_with(
                strengths, holds, k, top_k=holds[strengths.topk(k).indices].float().mean()
            ),
            "If the latent is active on fewer than k tokens, silent ones fill up your top k, and which "
            "ones is chance. Use the active ones only.",
        ),
        Wrong(
            "divided by k",
            lambda strengths, holds, k: _purity_with(
                strengths,
                holds,
                k,
                top_k=(holds & (strengths >= strengths.topk(k).values[-1]) & (strengths > 0)).sum() / k,
            ),
            "You divide by k even where the latent is active on fewer than k tokens. Divide by the number "
            "of tokens that you looked at.",
        ),
        Wrong(
            "weakest k",
            lambda strengths, holds, k: _purity_with(
                strengths,
                holds,
                k,
                top_k=holds[torch.where(strengths > 0, strengths, torch.inf).argsort()[:k]].float().mean(),
            ),
            "Your top k are the *weakest* active tokens: the sorting runs the wrong way.",
        ),
        Wrong(
            "base rate among active tokens",
            lambda strengths, holds, k: _purity_with(
                strengths, holds, k, base=holds[strengths > 0].float().mean()
            ),
            "Your `base` is taken over active tokens, so it is no baseline: it already knows the latent. "
            "Use all tokens.",
        ),
        Wrong(
            "base rate taken off",
            lambda strengths, holds, k: {
                name: value - holds.float().mean() if name != "base" else value
                for name, value in purity(strengths, holds, k).items()
            },
            "You took the base rate off the other two. That is a good thing to do next; here the three "
            "stand side by side.",
        ),
    ),
    properties=(Property("A share of activation does not depend on its unit.", _scaling_changes_nothing),),
    look_at="`strengths * holds` is the strength where the concept holds and 0 elsewhere.",
    saw="two purities of one latent. They differ by what lies below the top, and the base rate is what "
    "blind chance gets.",
    cases=8,
)

EXERCISES = (INTERVALS, HYPOTHESIS, PURITY)
