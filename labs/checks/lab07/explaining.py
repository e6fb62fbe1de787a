"""Exercise 7.14: score explanations by detection, beside those of other latents, with an interval."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from labs.checks.compare import agree
from labs.checks.exercise import Exercise, Property, Wrong, whole

# --- 7.14 -----------------------------------------------------------


def draw_questions(generator) -> dict:
    """Passages of each latent, more of one kind than of the other, and explanations that fit more or less."""
    n_latents, n, length, n_vocab = (whole(generator, *ends) for ends in ((4, 7), (14, 22), (4, 7), (14, 18)))
    passages = torch.randint(0, n_vocab, (n_latents, n, length), generator=generator)
    words, active = [], torch.zeros(n_latents, n, dtype=torch.bool)
    for i in range(n_latents):
        words.append(torch.randperm(n_vocab, generator=generator)[: whole(generator, 1, 3)].tolist())
        holds = _any(words[i], passages[i])
        noise = torch.rand(n, generator=generator) < 0.15 + 0.3 * torch.rand((), generator=generator)
        active[i] = (holds ^ noise) & (torch.rand(n, generator=generator) < 0.8)
        active[i, 0], active[i, 1] = True, False
    turns = torch.randint(1, n_latents, (whole(generator, 4, 8), 1), generator=generator)
    n_draws = whole(generator, 60, 90)
    return {
        "passages": passages,
        "active": active,
        "words": words,
        "shuffles": (torch.arange(n_latents) + turns) % n_latents,
        "draws": torch.randint(0, n_latents, (n_draws, n_latents), generator=generator),
    }


def detection(
    passages: Tensor, active: Tensor, words: list[list[int]], shuffles: Tensor, draws: Tensor
) -> dict[str, Tensor | float]:
    return _detection(passages, active, words, shuffles, draws)


def _any(words: list[int], passages: Tensor) -> Tensor:
    return torch.isin(passages, torch.tensor(words)).any(-1)


def _all(words: list[int], passages: Tensor) -> Tensor:
    return torch.stack([(passages == word).any(-1) for word in words]).all(0)


def _last(words: list[int], passages: Tensor) -> Tensor:
    return torch.isin(passages[:, -1], torch.tensor(words))


def _balanced(says: Tensor, active: Tensor) -> Tensor:
    return (says[active].float().mean() + (~says[~active]).float().mean()) / 2


def _borrowed(says, passages, active, words, i: int, j: int) -> tuple[Tensor, Tensor]:
    """What the explanation of latent j says of the passages of latent i, and the right answers."""
    return says(words[j], passages[i]), active[i]


def _luck(says, passages, active, words, i: int, j: int) -> tuple[Tensor, Tensor]:
    return says(words[i], passages[i]), active[j]


def _lent(says, passages, active, words, i: int, j: int) -> tuple[Tensor, Tensor]:
    return says(words[i], passages[j]), active[j]


def _moved_along(says, passages, active, words, i: int, j: int) -> tuple[Tensor, Tensor]:
    return says(words[j], passages[j]), active[j]


def _of_means(own: Tensor, other: Tensor, draws: Tensor) -> Tensor:
    return (own - other)[draws].mean(1)


def _detection(
    passages, active, words, shuffles, draws,
    says=_any, score=_balanced, control=_borrowed, mean=lambda x: x.mean(0), means=_of_means,
    gain=lambda own, other: (own - other).mean(), tail=0.025,
) -> dict:  # fmt: skip
    """The right answer, with a part done differently."""
    every = range(len(words))
    own = torch.stack([score(says(words[i], passages[i]), active[i]) for i in every])
    other = mean(
        torch.stack(
            [
                torch.stack([score(*control(says, passages, active, words, i, j)) for i, j in enumerate(row)])
                for row in shuffles.tolist()
            ]
        )
    )
    ends = torch.quantile(means(own, other, draws), torch.tensor([tail, 1 - tail]))
    return {"own": own, "shuffled": other, "gain": gain(own, other), "low": ends[0], "high": ends[1]}


def _with(**changes) -> Callable:
    return lambda *args: _detection(*args, **changes)


def _hits(says: Tensor, active: Tensor) -> Tensor:
    return says[active].float().mean()


def _spread(own: Tensor, other: Tensor) -> Tensor:
    """The mean gain, and how sure a formula is of it: quantiles of these are the ends of the interval."""
    gains = own - other
    return gains.mean() + 1.96 * gains.std() / len(gains) ** 0.5 * torch.tensor([-1.0, 1.0])


def _standard_error(*args) -> dict:
    low, high = _spread(*(detection(*args)[name] for name in ("own", "shuffled")))
    return detection(*args) | {"low": low, "high": high}


def _vague(answer, args, output) -> str | None:
    """An explanation that always says yes is worth exactly a half, and no more than any other."""
    everything = [sorted(set(args["passages"].flatten().tolist()))] * len(args["words"])
    found = answer(*(args | {"words": everything}).values())
    if agree(found["own"], torch.full((len(everything),), 0.5)) and abs(float(found["gain"])) < 1e-5:
        return None
    own, gain = float(found["own"][0]), float(found["gain"])
    return f"Yours gives it {own:.3g} for the first latent, and a gain of {gain:.2f}."


DETECTION = Exercise(
    number="7.14",
    name="detection",
    returns='dict with "own" and "shuffled" (Float[Tensor, "latents"]), "gain", "low" and "high" (float)',
    draw=draw_questions,
    reference=detection,
    wrong=(
        Wrong(
            "plain accuracy",
            _with(score=lambda says, active: (says == active).float().mean()),
            "You counted right answers. Where most answers are no, an explanation that never applies "
            "scores high. Take the mean of two shares: hits among the yeses, and silence among the rest.",
        ),
        Wrong(
            "hits only",
            _with(score=_hits),
            "You counted hits only. An explanation that says yes to every passage finds them all. The "
            "passages on which it should be silent count as much.",
        ),
        Wrong(
            "two shares added up",
            _with(score=lambda says, active: 2 * _balanced(says, active)),
            "You added the two shares, and took no mean of them: your scores go up to 2. Divide by 2.",
        ),
        Wrong(
            "a product",
            _with(score=lambda says, active: _hits(says, active) * _hits(~says, ~active)),
            "You multiplied the two shares. Asked for is their mean.",
        ),
        Wrong(
            "yes on both sides",
            _with(score=lambda says, active: (_hits(says, active) + _hits(says, ~active)) / 2),
            "Your second share counts yes once more. Where the latent is *not* active, no is right: "
            "`(~says[~active]).float().mean()`.",
        ),
        Wrong(
            "all of the words",
            _with(says=_all),
            "You ask for *all* words of an explanation in one passage. It names words on which the latent is "
            "active: one of them is enough.",
        ),
        Wrong(
            "the last token",
            _with(says=_last),
            "You looked at one token of each passage. In detection the question is whether the latent is "
            "active *anywhere* in it: `.any(-1)`.",
        ),
        Wrong(
            "passages moved along",
            _with(control=_moved_along),
            "You exchanged the passages together with the explanations, so every explanation is judged on "
            "its own passages again, and the control knows as much as the real thing. Passages and answers "
            "stay with latent i.",
        ),
        Wrong(
            "answers exchanged",
            _with(control=_luck),
            "You kept the explanation and exchanged the right *answers*. That is what luck gives. The harder "
            "control keeps passages and answers, and judges them by what was said of another latent.",
        ),
        Wrong(
            "the explanation stays",
            _with(control=_lent),
            "You left the explanation where it is, and gave it the passages of another latent. The other way round: "
            "passages and answers stay with latent i, and the explanation is that of latent `shuffles[row, i]`.",
        ),
        Wrong(
            "shuffled minus own",
            _with(
                gain=lambda own, other: (other - own).mean(),
                means=lambda own, other, draws: (other - own)[draws].mean(1),
            ),
            "Your gain has the wrong sign: it is own minus shuffled.",
        ),
        Wrong(
            "one shuffle",
            _with(mean=lambda x: x[0]),
            "You used one shuffle. By chance that may pair latents that are alike. Average over all rows of "
            "`shuffles`.",
        ),
        Wrong(
            "against one half",
            _with(
                means=lambda own, other, draws: (own - 0.5)[draws].mean(1),
                gain=lambda own, other: (own - 0.5).mean(),
            ),
            "Your gain is what there is above one half, as if a coin were the rival. A vague explanation "
            "that fits every latent a little is above one half as well. Subtract what the shuffled ones "
            "score.",
        ),
        Wrong(
            "interval of the latents",
            _with(means=lambda own, other, draws: own - other),
            "Your interval is that of single latents: how much they differ. Asked for is how sure the "
            "*mean* is: a mean for each row of `draws`, then the quantiles of these means.",
        ),
        Wrong(
            "means over the draws",
            _with(means=lambda own, other, draws: (own - other)[draws].mean(0)),
            "You took the mean over the rows of `draws`. Each row is one draw of latents: take the mean *within* it, "
            "`.mean(1)`.",
        ),
        Wrong(
            "standard error",
            _standard_error,
            "Your interval is 1.96 standard errors around the mean. That is a fair formula for many latents. Asked for "
            "is the interval by drawing: the mean of each row of `draws`, and the quantiles of these means.",
        ),
        Wrong(
            "interval of all that was drawn",
            _with(means=lambda own, other, draws: (own - other)[draws].flatten()),
            "You took the quantiles over everything that was drawn. That is the spread of single latents "
            "once more. Take the mean of each row first, `.mean(1)`.",
        ),
        Wrong(
            "interval of the score",
            _with(means=lambda own, other, draws: own[draws].mean(1)),
            "Your interval is that of the score, and not of the gain. Whether it lies above one half says "
            "nothing about the control. Draw the differences, latent by latent.",
        ),
        Wrong(
            "drawn apart",
            _with(means=lambda own, other, draws: own[draws].mean(1) - other[draws.roll(1, 0)].mean(1)),
            "You drew the latents of the control apart from those of the score. An easy latent is easy for "
            "both, and that cancels if you draw *differences*: subtract first.",
        ),
        Wrong(
            "nine in ten",
            _with(tail=0.05),
            "Your interval leaves out five in a hundred at *each* end, so it holds 90 %. For 95 % it is "
            "0.025 and 0.975.",
        ),
    ),
    properties=(
        Property("An explanation that always says yes must score one half, and gain nothing.", _vague),
    ),
    look_at="`torch.isin(passages[i], torch.tensor(words[i])).any(-1)` is what the explanation of latent i "
    "says of its own passages.",
    saw="a score with its rival beside it, and how far other latents could move it. Without the two it is "
    "only a number above one half.",
    cases=8,
)

EXERCISES = (DETECTION,)
