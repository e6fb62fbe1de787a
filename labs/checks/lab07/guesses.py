"""Exercise 7.11: a guess held against true ablations, with what chance reaches and with what the rank hides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.stats import rankdata
from torch import Tensor

from labs.checks.compare import agree, describe, plain
from labs.checks.exercise import Exercise, Property, Wrong, normal, whole
from labs.checks.lab02.random_state import moves_global_state

KEYS = ("n", "rank", "chance", "missed")
SHUFFLES = 100


@dataclass
class Judged:
    """What an answer returned, and the chance level that it gives with a few other seeds."""

    values: dict[str, float]
    levels: list[float]

    described = "a dict of four numbers, with keys 'n', 'rank', 'chance', 'missed'"


@dataclass
class Unfit:
    """An answer with the right keys and something else than a number in one of them."""

    described: str


def draw_guess(generator) -> dict:
    """True effects, 0 where a latent is silent; a guess that is good for most, blind to a few large ones, with ties.

    Every third guess says the opposite.
    """
    pos, d_sae = whole(generator, 4, 7), whole(generator, 20, 40)
    silent = torch.rand(pos, d_sae, generator=generator) < 0.5
    size = normal(generator, pos, d_sae)
    effects = torch.where(silent, 0.0, size * size.abs() + 0.2 * size.sign())
    guess = 0.6 * effects + 0.3 * normal(generator, pos, d_sae)
    flat = torch.rand(pos, d_sae, generator=generator) < 0.25  # saturated: the slope is 0
    guess = torch.where(flat | silent, 0.0, guess.clamp(max=1.2))
    guess = -guess if generator.initial_seed() % 3 == 2 else guess
    large = effects.max().item() / 3
    return {"effects": effects, "guess": guess, "large": large, "seed": whole(generator, 0, 99)}


def try_it(answer: Callable, args: dict):
    """The answer, and its chance level with other seeds."""
    values = plain(answer(*args.values()))
    if not isinstance(values, dict) or set(values) != set(KEYS):
        return None if isinstance(values, Judged) else values
    for key, value in values.items():
        if not isinstance(value, int | float):
            return Unfit(f"{describe(value)} in entry {key!r}")
    others = [answer(*(args | {"seed": args["seed"] + more}).values())["chance"] for more in range(1, 5)]
    return Judged(values, [values["chance"], *plain(others)])


def judge_guess(effects: Tensor, guess: Tensor, large: float, seed: int) -> dict[str, float]:
    return _judge(effects, guess, large, seed)


def _ranks(x: Tensor) -> Tensor:
    return torch.from_numpy(rankdata(x.numpy()))


def _correlation(a: Tensor, b: Tensor, ranks=_ranks) -> float:
    return torch.corrcoef(torch.stack([ranks(a).double(), ranks(b).double()]))[0, 1].item()


def _shuffled(true: Tensor, said: Tensor, seed: int, ranks=_ranks, n: int = SHUFFLES) -> Tensor:
    """[n] correlations of shuffled guesses."""
    dice = torch.Generator().manual_seed(seed)
    order = torch.stack([torch.randperm(len(said), generator=dice) for _ in range(n)])
    return _pearson(ranks(true).double(), ranks(said).double()[order])


def _pearson(a: Tensor, b: Tensor) -> Tensor:
    a, b = a - a.mean(), b - b.mean(-1, keepdim=True)
    return b @ a / (a.norm() * b.norm(dim=-1))


def _chance(true: Tensor, said: Tensor, seed: int, ranks=_ranks) -> float:
    return _shuffled(true, said, seed, ranks).quantile(0.95).item()


def _missed(true: Tensor, said: Tensor, large: float) -> float:
    return (said < true / 4)[true > large].float().mean().item()


def _judge(
    effects, guess, large, seed, ranks=_ranks, chance=_chance, missed=_missed, active=None
) -> dict[str, float]:
    """The right answer, with a part done differently."""
    there = effects != 0 if active is None else active(effects, guess)
    true, said = effects[there], guess[there]
    return {
        "n": int(there.sum()),
        "rank": _correlation(true, said, ranks),
        "chance": chance(true, said, seed, ranks),
        "missed": missed(true, said, large),
    }


def _with(**changes) -> Callable:
    return lambda *args: _judge(*args, **changes)


def _untied(x: Tensor) -> Tensor:
    return x.argsort(stable=True).argsort().double()


def _sized(effects, guess, large, seed) -> dict:
    right = _judge(effects, guess, large, seed)
    return right | {"rank": _judge(effects.abs(), guess.abs(), large, seed)["rank"]}


def _globally(true, said, seed, ranks) -> float:
    torch.manual_seed(seed)
    a, b = ranks(true), ranks(said)
    found = [_pearson(a, b[torch.randperm(len(b))]) for _ in range(SHUFFLES)]
    return torch.stack(found).quantile(0.95).item()


def _unseeded(true, said, seed, ranks) -> float:
    return _chance(true, said, int(torch.randint(0, 2**31, (), generator=_FRESH)), ranks)


_FRESH = torch.Generator().manual_seed(0)  # never the same twice, and not PyTorch's own


def _one_shuffle(true, said, seed, ranks) -> float:
    return _shuffled(true, said, seed, ranks)[0].item()


def _about_chance(test: Callable[[float, float], bool]) -> Callable:
    """Recognise something about the chance levels: `test(mean, variation)`, in units of the spread of shuffles."""

    def found(answer, args, output: Judged) -> bool:
        if not _right_places(args, output):
            return False  # other places have another spread
        levels = torch.tensor(output.levels) / _spread(args)
        return test(levels.mean().item(), levels.std().item())

    return found


def _spread(args: dict) -> float:
    """By how much the rank correlation of shuffled guesses varies."""
    return (int((args["effects"] != 0).sum()) - 1) ** -0.5


def _off(key: str, **changes) -> Callable:
    """Recognise a mistake by one entry: it is that of the mistake, and not the right one."""

    def found(answer, args, output: Judged) -> bool:
        value, right = _one(args, key, **changes), _one(args, key)
        return agree(output.values[key], value) and not agree(value, right)

    return found


def _right_places(args: dict, output: Judged) -> bool:
    """Whether the answer looks at the places that it should, and ranks them rightly."""
    return all(agree(output.values[key], _one(args, key)) for key in ("n", "rank"))


def _missing(**changes) -> Callable:
    """Recognise a mistake in `missed`, a share of few: one input is met by accident, all of them are not."""

    def found(answer, args, output: Judged) -> bool:
        if args["seed"] != GUESSES.inputs(0)["seed"]:
            return False  # once is enough
        told_apart = False
        for case in range(GUESSES.cases):
            inputs = GUESSES.inputs(case)
            said = output.values if case == 0 else plain(answer(*inputs.values()))
            mistaken = _one(inputs, "missed", **changes)
            if not agree(said["missed"], mistaken):
                return False
            told_apart |= not agree(mistaken, _one(inputs, "missed"))
        return told_apart

    return found


def _ranked_by_size(answer, args, output: Judged) -> bool:
    sizes = _one(args | {"effects": args["effects"].abs(), "guess": args["guess"].abs()}, "rank")
    return agree(output.values["rank"], sizes) and not agree(sizes, _one(args, "rank"))


def _one(args: dict, key: str, **changes) -> float:
    """One entry of the answer with a part done differently, without the time that shuffles take."""
    return _judge(*args.values(), **{"chance": lambda *given: 0.0} | changes)[key]


def _entry(key: str) -> Callable:
    def fault(answer, args, output: Judged) -> str | None:
        right, value = _one(args, key), output.values[key]
        return None if agree(value, right) else f"Yours is {value:.4g}, the right value {right:.4g}."

    return fault


def _level(answer, args, output: Judged) -> str | None:
    """The 95th percentile of a hundred shuffles is known well enough to tell it from other numbers."""
    right = _shuffled(args["effects"][args["effects"] != 0], args["guess"][args["effects"] != 0], 0, n=1000)
    right, found = right.quantile(0.95).item(), sum(output.levels) / len(output.levels)
    if abs(found - right) < 0.4 * _spread(args):
        return None
    return f"It is about {right:.3f} here; yours is {found:.3f}."


BELOW = {"missed": lambda true, said, large: (said < true / 4).float().mean().item()}
BY_SIZE = {
    "missed": lambda true, said, large: (
        (said.abs() < true.abs() / 4)[true.abs() > large].float().mean().item()
    )
}
COUNTED = {"missed": lambda true, said, large: float((said < true / 4)[true > large].sum())}
OF_ALL = {"missed": lambda true, said, large: ((said < true / 4) & (true > large)).float().mean().item()}
EVERYWHERE = {"active": lambda effects, guess: torch.ones_like(effects, dtype=torch.bool)}
GAINS = {"active": lambda effects, guess: effects > 0}
TURNED = {"missed": lambda true, said, large: (said > true / 4)[true > large].float().mean().item()}
NO_QUARTER = {"missed": lambda true, said, large: (said < true)[true > large].float().mean().item()}
FIXED = {"missed": lambda true, said, large: (said < large / 4)[true > large].float().mean().item()}
BY_GUESS = {"missed": lambda true, said, large: (said < true / 4)[said > large].float().mean().item()}
BOTH_THERE = {"active": lambda effects, guess: (effects != 0) & (guess != 0)}
PEARSON = {"ranks": lambda x: x}
UNTIED = {"ranks": _untied}
ANY_ORDER = {"ranks": lambda x: x.argsort().argsort().double()}  # ties as the sorting left them
ORDER = {"ranks": lambda x: x.argsort().double()}

GUESSES = Exercise(
    number="7.11",
    name="judge_guess",
    returns='dict with "n", "rank", "chance", "missed"',
    draw=draw_guess,
    reference=judge_guess,
    run=try_it,
    unique=False,
    wrong=(
        Wrong(
            "silent latents count",
            _with(**EVERYWHERE),
            "You count places where nothing was ablated. A latent that is silent has an effect of exactly 0 and a "
            "guess of 0, and hundreds of such ties decide the correlation. Keep the places where `effects` is not 0.",
            recognise=_off("n", **EVERYWHERE),
        ),
        Wrong(
            "guesses of 0 left out",
            _with(**BOTH_THERE),
            "You left out the places where the guess is 0. Those are the ones that it says nothing about although the "
            "ablation does: leave them out, and the guess looks better than it is. Only `effects` decides.",
            recognise=_off("n", **BOTH_THERE),
        ),
        Wrong(
            "gains only",
            _with(**GAINS),
            "You kept the places with a *positive* effect. Where the metric rises without a latent something was "
            "ablated, too: keep all places where `effects` is not 0.",
            recognise=_off("n", **GAINS),
        ),
        Wrong(
            "order, not ranks",
            _with(**ORDER),
            "`argsort` does not give ranks: it says which value comes first, which second, and so on. A rank is how "
            "many values lie below: count them, or take `scipy.stats.rankdata`.",
            recognise=_off("rank", **ORDER),
        ),
        Wrong(
            "plain correlation",
            _with(**PEARSON),
            "This is the plain (Pearson) correlation. Two or three very large effects decide it. Put ranks in place "
            "of the values first.",
            recognise=_off("rank", **PEARSON),
        ),
        Wrong(
            "ties in order of appearance",
            _with(**UNTIED),
            "Equal guesses got different ranks: whoever comes first in the tensor is ranked lower. Many guesses are "
            "exactly 0. Equal values share the mean of their ranks, as in `scipy.stats.rankdata`.",
            recognise=lambda *given: _off("rank", **UNTIED)(*given) or _off("rank", **ANY_ORDER)(*given),
        ),
        Wrong(
            "sizes",
            _sized,
            "You ranked by size. A guess with the wrong sign then looks as good as one with the right sign. Rank the "
            "values as they are.",
            recognise=_ranked_by_size,
        ),
        Wrong(
            "not shuffled",
            _with(chance=lambda true, said, seed, ranks: _correlation(true, said, ranks)),
            "Your control is the guess itself: it has the same correlation. If you shuffled both in the same order, "
            "they still belong together. Shuffle one of the two.",
            recognise=lambda answer, args, output: (
                _right_places(args, output) and agree(output.values["chance"], output.values["rank"])
            ),
        ),
        Wrong(
            "the global seed",
            _with(chance=_globally),
            "You seed, or draw from, PyTorch's global generator. Whoever draws after you gets other numbers. "
            "`torch.Generator().manual_seed(seed)`, handed to `torch.randperm` as `generator=`.",
            recognise=lambda answer, args, output: moves_global_state(lambda: answer(*args.values())),
        ),
        Wrong(
            "not seeded",
            _with(chance=_unseeded),
            "The same seed gives another chance level each time. Make a generator inside the function, from `seed`.",
            recognise=lambda answer, args, output: (
                not agree(plain(answer(*args.values()))["chance"], plain(answer(*args.values()))["chance"])
            ),
        ),
        Wrong(
            "the best shuffle",
            _with(chance=lambda true, said, seed, ranks: _shuffled(true, said, seed, ranks).max().item()),
            "You took the best of all shuffles. It grows with their number, so it says more about your patience than "
            "about chance. `.quantile(0.95)` does not.",
            recognise=_about_chance(lambda level, varies: 2.1 < level < 4),
        ),
        Wrong(
            "one shuffle",
            _with(chance=_one_shuffle),
            "Your chance level jumps about from seed to seed: it is that of one shuffle, or of a few. (Or the "
            "generator is made anew in the loop, and all shuffles are the same.) Shuffle 100 times, and take what 95 "
            "of 100 shuffles stay below.",
            recognise=_about_chance(lambda level, varies: varies > 0.55),
        ),
        Wrong(
            "the mean of the shuffles",
            _with(chance=lambda true, said, seed, ranks: _shuffled(true, said, seed, ranks).mean().item()),
            "Your chance level is 0, which is what shuffles give *on average*. Half of all nonsense guesses beat that. "
            "What do 95 of 100 stay below? `.quantile(0.95)`.",
            recognise=_about_chance(lambda level, varies: abs(level) < 0.35),
        ),
        Wrong(
            "the other tail",
            _with(
                chance=lambda true, said, seed, ranks: (
                    _shuffled(true, said, seed, ranks).quantile(0.05).item()
                )
            ),
            "Your chance level is negative: you took the lower end. The question is what a *good* shuffle reaches: "
            "the 95th of 100, from below.",
            recognise=_about_chance(lambda level, varies: level < -1.0),
        ),
        Wrong(
            "those that were found",
            _with(**TURNED),
            "`missed` is turned round: yours is the share of the large effects that the guess did *see*. Missed is "
            "where `guess < effects / 4`.",
            recognise=_missing(**TURNED),
        ),
        Wrong(
            "no quarter",
            _with(**NO_QUARTER),
            "You call an effect missed if the guess is smaller at all. A guess of half the effect has seen it. Missed "
            "is less than a *quarter*.",
            recognise=_missing(**NO_QUARTER),
        ),
        Wrong(
            "a fixed quarter",
            _with(**FIXED),
            "You compare every guess with a quarter of `large`. Each is held against its *own* effect: "
            "`guess < effects / 4`.",
            recognise=_missing(**FIXED),
        ),
        Wrong(
            "large by the guess",
            _with(**BY_GUESS),
            "You look where the *guess* is large. What it overlooks is then never asked for. Look where the effect is: "
            "`effects > large`.",
            recognise=_missing(**BY_GUESS),
        ),
        Wrong(
            "missed among all",
            _with(**BELOW),
            "`missed` is taken over all effects in yours. The small ones do not matter. Of those above `large`, which "
            "share has a guess of less than a quarter?",
            recognise=_missing(**BELOW),
        ),
        Wrong(
            "missed by size",
            _with(**BY_SIZE),
            "`missed` goes by size in yours. A guess with the wrong sign has missed, however large it is; and a large "
            "*negative* effect is no loss. Compare `guess < effects / 4` where `effects > large`.",
            recognise=_missing(**BY_SIZE),
        ),
        Wrong(
            "missed, counted",
            _with(**COUNTED),
            "`missed` is a count in yours. Asked for is the share of the large effects, from 0 to 1.",
            recognise=_missing(**COUNTED),
        ),
        Wrong(
            "missed, of all",
            _with(**OF_ALL),
            "You divide the number of missed effects by that of *all* effects. Divide by the number of large ones: "
            "index by `effects > large` first, and then take the mean.",
            recognise=_missing(**OF_ALL),
        ),
    ),
    properties=(
        Property("`n` counts the places where something was ablated.", _entry("n")),
        Property("`rank` is Spearman's correlation over those places.", _entry("rank")),
        Property("`missed` is a share of the large effects.", _entry("missed")),
        Property("`chance` is what 95 of 100 shuffled guesses stay below.", _level),
    ),
    look_at="`there = effects != 0` picks the places; `effects[there]` and `guess[there]` are flat and belong "
    "together.",
    saw="one number that says how good a guess is in general, one that says what nonsense would score, and one that "
    "says what the first number hides.",
)

EXERCISES = (GUESSES,)
