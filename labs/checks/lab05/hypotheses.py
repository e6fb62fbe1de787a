"""Exercises 5.3 to 5.7: a hypothesis on held-out text, its baseline, what speaks against it; liars; spread."""

from __future__ import annotations

import torch
from torch import Tensor

from labs.checks.exercise import Exercise, Wrong, whole
from labs.checks.lab05.liars import LIARS
from labs.checks.lab05.spread import SPREAD

# --- 5.3 ------------------------------------------------------------


def draw_hypothesis(generator) -> dict:
    """A hypothesis that fits the train split better than the test split, where it may hold nowhere."""
    tokens, which = whole(generator, 60, 110), whole(generator, 0, 3)
    test = torch.rand(tokens, generator=generator) < 0.4
    active = torch.rand(tokens, generator=generator) < 0.3
    lucky = torch.where(test, 0.5, 0.9)
    holds = torch.where(
        torch.rand(tokens, generator=generator) < lucky,
        active,
        torch.rand(tokens, generator=generator) < 0.45,
    )
    if which == 0:
        holds = holds & ~test
    return {"holds": holds, "active": active, "test": test}


def score(holds: Tensor, active: Tensor, test: Tensor) -> dict[str, float]:
    return _scores(*_counted(holds[test], active[test]))


def _counted(holds: Tensor, active: Tensor) -> tuple[int, int, int]:
    return int((holds & active).sum()), int(active.sum()), int(holds.sum())


def _scores(hits: int, fired: int, wanted: int) -> dict[str, float]:
    return {
        "precision": hits / max(fired, 1),
        "recall": hits / max(wanted, 1),
        "f1": 2 * hits / max(fired + wanted, 1),
    }


def _score_with(holds, active, test, **changes) -> dict:
    return score(holds, active, test) | changes


def _turned(holds, active, test) -> dict:
    right = score(holds, active, test)
    return right | {"precision": right["recall"], "recall": right["precision"]}


def _nan(holds, active, test) -> dict:
    hits, fired, wanted = (torch.tensor(float(x)) for x in _counted(holds[test], active[test]))
    precision, recall = hits / fired, hits / wanted
    return {"precision": precision, "recall": recall, "f1": 2 * precision * recall / (precision + recall)}


def _mean(holds, active, test) -> dict:
    right = score(holds, active, test)
    return right | {"f1": (right["precision"] + right["recall"]) / 2}


SCORE = Exercise(
    number="5.3",
    name="score",
    returns='dict with "precision", "recall", "f1"',
    draw=draw_hypothesis,
    reference=score,
    wrong=(
        Wrong(
            "all text",
            lambda holds, active, test: _scores(*_counted(holds, active)),
            "You scored on all tokens, also on those that suggested the hypothesis. It fits them because it "
            "was made from them. Only the tokens of `test` count.",
        ),
        Wrong(
            "train split",
            lambda holds, active, test: _scores(*_counted(holds[~test], active[~test])),
            "You scored on the tokens that are *not* in `test`: those the hypothesis was made from.",
        ),
        Wrong(
            "shares of all text",
            lambda holds, active, test: {
                "precision": int((holds & active & test).sum()) / max(int(active.sum()), 1),
                "recall": int((holds & active & test).sum()) / max(int(holds.sum()), 1),
                "f1": 2 * int((holds & active & test).sum()) / max(int(active.sum() + holds.sum()), 1),
            },
            "Your hits are those of the test tokens, and you divide them by counts over *all* tokens. Cut "
            "both tensors to `test` first, then count.",
        ),
        Wrong(
            "turned round",
            _turned,
            "Precision and recall are exchanged. Precision: of the tokens on which the latent is *active*, "
            "the share on which the hypothesis holds. Recall: of those on which it *holds*, the share on "
            "which the latent is active.",
        ),
        Wrong(
            "nan",
            _nan,
            "Where the hypothesis holds nowhere on the test tokens (or the latent is silent there), you "
            "divide zero by zero. Count that as 0: nothing was predicted, and nothing was right.",
        ),
        Wrong(
            "arithmetic mean",
            _mean,
            "Your F1 is the plain mean of the two. Then a hypothesis that holds everywhere gets above a "
            "half. F1 is the *harmonic* mean: 2PR / (P + R), or 2 hits / (active + true).",
        ),
        Wrong(
            "accuracy",
            lambda holds, active, test: _score_with(
                holds, active, test, f1=(holds == active)[test].float().mean()
            ),
            "Your F1 is the share of tokens on which the two agree (accuracy). Most tokens are silent and "
            "do not have the property, so that is always high. F1 leaves them out.",
        ),
        Wrong(
            "shares of all tokens",
            lambda holds, active, test: _score_with(
                holds,
                active,
                test,
                precision=(holds & active)[test].float().mean(),
                recall=(holds & active)[test].float().mean(),
            ),
            "You divided the hits by the number of all tokens. Precision divides by the active ones, recall "
            "by those on which the hypothesis holds.",
        ),
    ),
    look_at="`holds[test]` and `active[test]`; their `&` are the hits.",
    saw="a hypothesis on text that did not suggest it. A high precision with a low recall is a hypothesis "
    "that is too broad for the latent; the other way round it is too narrow.",
    cases=8,
)

# --- 5.4 ------------------------------------------------------------


def draw_words(generator) -> dict:
    """Words of which some nearly always have the property, some often, and one only in the train split."""
    tokens, words = whole(generator, 150, 220), whole(generator, 8, 12)
    ids = torch.randint(0, words, (tokens,), generator=generator)
    test = torch.rand(tokens, generator=generator) < 0.4
    ids[(ids == 3) & ~test] = 4  # word 3 is new on the test split
    chance = 0.03 + 0.9 * torch.rand(words, generator=generator) ** 2
    chance[0], chance[1], chance[2] = 0.9, 0.42, 0.42
    p = torch.where((ids == 1) & test, 0.05, torch.where((ids == 2) & ~test, 0.05, chance[ids]))
    return {"ids": ids, "holds": torch.rand(tokens, generator=generator) < p, "test": test}


def lookup_f1(ids: Tensor, holds: Tensor, test: Tensor) -> float:
    return _f1_of(_best_set(ids[~test], holds[~test]), ids[test], holds[test])


def _shares(ids: Tensor, holds: Tensor) -> Tensor:
    """The share of each word's occurrences that have the property; 0 for a word that does not occur."""
    size = int(ids.max()) + 1
    return torch.bincount(ids[holds], minlength=size) / torch.bincount(ids, minlength=size).clamp(min=1)


def _best_set(ids: Tensor, holds: Tensor, by=_shares, short: int = 0) -> list[int]:
    order = by(ids, holds).argsort(descending=True, stable=True).tolist()
    scores = [_f1_of(order[:size], ids, holds) for size in range(1, len(order) + 1)]
    return order[: max(range(len(scores)), key=scores.__getitem__) + 1 - short]


def _f1_of(chosen: list[int], ids: Tensor, holds: Tensor) -> float:
    says = torch.isin(ids, torch.tensor(chosen, dtype=torch.int64))
    return _scores(*_counted(holds, says))["f1"]


def _with_set(choose):
    return lambda ids, holds, test: _f1_of(choose(ids[~test], holds[~test]), ids[test], holds[test])


def _above(share: float):
    return lambda ids, holds: (_shares(ids, holds) > share).nonzero().flatten().tolist()


def _by_precision(ids: Tensor, holds: Tensor) -> list[int]:
    return [int(_shares(ids, holds).argmax())]


def _best_single(ids: Tensor, holds: Tensor) -> list[int]:
    return [max(range(int(ids.max()) + 1), key=lambda word: _f1_of([word], ids, holds))]


LOOKUP = Exercise(
    number="5.4",
    name="lookup_f1",
    returns="float",
    draw=draw_words,
    reference=lookup_f1,
    wrong=(
        Wrong(
            "chosen on the test split",
            lambda ids, holds, test: _f1_of(_best_set(ids[test], holds[test]), ids[test], holds[test]),
            "You chose the words on the test split, where you measure them. So the baseline knows the "
            "answers. Choose on `~test`.",
        ),
        Wrong(
            "chosen on everything",
            lambda ids, holds, test: _f1_of(_best_set(ids, holds), ids[test], holds[test]),
            "You chose the words on all tokens, those of the test split among them. Choose on `~test` only.",
        ),
        Wrong(
            "reported on the train split",
            lambda ids, holds, test: _f1_of(_best_set(ids[~test], holds[~test]), ids[~test], holds[~test]),
            "You report the F1 on the split that chose the words. Whatever is chosen looks best there: "
            "report it on `test`.",
        ),
        Wrong(
            "every word ever seen with it",
            _with_set(_above(0.0)),
            "You took every word that had the property once. A common word that had it one time in a "
            "hundred then brings ninety-nine false alarms. Take the *best* set.",
        ),
        Wrong(
            "majority words",
            _with_set(_above(0.5)),
            "You took the words that have the property more often than not. For accuracy that would be "
            "best; for F1 the border is lower, and depends on the F1 itself. Try all beginnings of the list.",
        ),
        Wrong(
            "by the number of hits",
            _with_set(lambda ids, holds: _best_set(ids, holds, lambda i, h: torch.bincount(i[h]).float())),
            "You ordered the words by *how often* they have the property. Then a common word comes first "
            "that mostly has it not. Order by the *share* of a word's occurrences.",
        ),
        Wrong(
            "one word short",
            _with_set(lambda ids, holds: _best_set(ids, holds, short=1)),
            "Your list lacks its last word. `argmax` gives the position of the best beginning, and a slice "
            "stops before it: `order[: int(f1.argmax()) + 1]`.",
        ),
        Wrong(
            "the purest word",
            _with_set(_by_precision),
            "You took a single word, the one that has the property most reliably. A concept has many words, "
            "and a set may hold as many as help.",
        ),
        Wrong(
            "the best single word",
            _with_set(_best_single),
            "You took the best *single* word. The baseline may hold a whole set: put in one after the other "
            "as long as the F1 rises.",
        ),
    ),
    look_at="`torch.bincount(ids[holds])` and `torch.bincount(ids)`: their quotient orders the words.",
    saw="what reading the token alone can do. A latent or an explanation that does not beat it has told you "
    "about a vocabulary, not about the model's understanding.",
    cases=8,
)

# --- 5.5 ------------------------------------------------------------


def draw_counter(generator) -> dict:
    """A hypothesis with exceptions both ways, on words on which the latent is active often or seldom."""
    tokens, words, k = whole(generator, 60, 110), whole(generator, 4, 7), whole(generator, 3, 6)
    ids = torch.randint(0, words, (tokens,), generator=generator)
    rate = torch.rand(words, generator=generator)
    on = torch.rand(tokens, generator=generator) < rate[ids]
    strengths = on * (0.1 + torch.empty(tokens).exponential_(0.7, generator=generator))
    exceptions = 0.25 if whole(generator, 0, 2) else 0.03  # now and then there are fewer than k of them
    holds = on ^ (torch.rand(tokens, generator=generator) < exceptions)
    return {"strengths": strengths, "holds": holds, "ids": ids, "k": k}


def counter_examples(strengths: Tensor, holds: Tensor, ids: Tensor, k: int) -> tuple[list[int], list[int]]:
    return _both(strengths, holds, ids, k, lambda i: -float(strengths[i]), _rate(strengths > 0, ids))


def _both(strengths, holds, ids, k, first_order, rate) -> tuple[list[int], list[int]]:
    fires = ((strengths > 0) & ~holds).nonzero().flatten().tolist()
    silent = ((strengths == 0) & holds).nonzero().flatten().tolist()
    return (
        sorted(fires, key=first_order)[:k],
        sorted(silent, key=lambda i: -float(rate[ids[i]]))[:k],
    )


def _rate(counted: Tensor, ids: Tensor) -> Tensor:
    """For each word the share of its occurrences that are counted."""
    return torch.bincount(ids[counted], minlength=int(ids.max()) + 1) / torch.bincount(ids).clamp(min=1)


def _changed(**changes):
    """The right answer with one of its two lists made in another way."""

    def answer(strengths, holds, ids, k):
        fires, silent = counter_examples(strengths, holds, ids, k)
        lists = {"fires": fires, "silent": silent}
        lists |= {name: make(strengths, holds, ids, k) for name, make in changes.items()}
        return lists["fires"], lists["silent"]

    return answer


def _all_silent(strengths, holds, ids, k) -> list[int]:
    return ((strengths == 0) & holds).nonzero().flatten().tolist()[:k]


def _weakest(strengths, holds, ids, k) -> list[int]:
    return _both(strengths, holds, ids, k, lambda i: float(strengths[i]), _rate(strengths > 0, ids))[0]


def _strongest_of_all(strengths, holds, ids, k) -> list[int]:
    return strengths.topk(k).indices.tolist()


def _filled_up(strengths, holds, ids, k) -> list[int]:
    return (strengths * ~holds).topk(k).indices.tolist()


def _least_surprising(strengths, holds, ids, k) -> list[int]:
    return _both(strengths, holds, ids, k, float, -_rate(strengths > 0, ids))[1]


def _where_active_is(strengths, holds, ids, k) -> list[int]:
    counts = torch.bincount(ids[strengths > 0], minlength=int(ids.max()) + 1).float()
    return _both(strengths, holds, ids, k, float, counts)[1]


def _often_true(strengths, holds, ids, k) -> list[int]:
    return _both(strengths, holds, ids, k, float, _rate(holds, ids))[1]


COUNTER = Exercise(
    number="5.5",
    name="counter_examples",
    returns="tuple[list[int], list[int]]",
    draw=draw_counter,
    reference=counter_examples,
    wrong=(
        Wrong(
            "examples for it",
            _changed(fires=_strongest_of_all),
            "Your first list holds the strongest tokens of the latent, whether the hypothesis holds there "
            "or not. Examples that agree teach nothing new: leave them out.",
        ),
        Wrong(
            "filled up",
            _changed(fires=_filled_up),
            "Where there are fewer than k counter-examples, `topk` fills your first list up with tokens on "
            "which the latent is silent, or the hypothesis true. At most k: a shorter list is fine.",
        ),
        Wrong(
            "weakest first",
            _changed(fires=_weakest),
            "Your first list begins with the weakest activations. Those may be noise. The strongest ones "
            "speak loudest against the hypothesis.",
        ),
        Wrong(
            "in the order of the text",
            _changed(silent=_all_silent),
            "Your second list is in the order of the text. Silence on a word on which the latent never "
            "fires anyway is no surprise: begin with the word on which it is nearly always active.",
        ),
        Wrong(
            "least surprising first",
            _changed(silent=_least_surprising),
            "Your second list begins with words on which the latent is seldom active. There, silence is to "
            "be expected. The highest share comes first.",
        ),
        Wrong(
            "counts in place of shares",
            _changed(silent=_where_active_is),
            "You ordered the silent tokens by *how often* the latent is active on the word: then common "
            "words come first. Divide by the occurrences of the word.",
        ),
        Wrong(
            "by the hypothesis",
            _changed(silent=_often_true),
            "You ordered the silent tokens by how often the *hypothesis* holds on the word. The question is "
            "on what the *latent* is usually active.",
        ),
        Wrong(
            "exchanged",
            lambda strengths, holds, ids, k: counter_examples(strengths, holds, ids, k)[::-1],
            "The two lists are exchanged. First where the latent fires without the hypothesis, then where "
            "the hypothesis holds and the latent is silent.",
        ),
    ),
    look_at="`(strengths > 0) & ~holds` and `(strengths == 0) & holds`: the two ways to be wrong.",
    saw="the quickest way to a better hypothesis. Ten examples that agree with you cost as much reading as "
    "ten that do not, and say less.",
    cases=8,
)

EXERCISES = (SCORE, LOOKUP, COUNTER, LIARS, SPREAD)
