"""Exercise 5.6: explanations that fit the strongest examples and fail on recall."""

from __future__ import annotations

import torch
from torch import Tensor

from labs.checks.exercise import Exercise, Property, Wrong, whole


def draw_explanations(generator) -> dict:
    """Explanations: honest ones, ones too broad, ones right at the top only, and rare latents."""
    tokens, latents, k = whole(generator, 300, 380), whole(generator, 12, 16), whole(generator, 5, 7)
    test = torch.rand(tokens, generator=generator) < 0.4
    density = 0.12 + 0.2 * torch.rand(latents, generator=generator)
    on = torch.rand(tokens, latents, generator=generator) < density
    strengths = 0.1 + torch.empty(tokens, latents).exponential_(0.7, generator=generator)
    kinds = torch.arange(latents) % 6
    kinds = kinds[torch.randperm(latents, generator=generator)]
    rare = (kinds == 4).nonzero().flatten()
    on[:, rare] &= torch.rand(tokens, len(rare), generator=generator) < 0.05
    features = on * strengths
    top = features >= features.masked_fill(test[:, None], 0).topk(2 * k, dim=0).values[-1]
    chance = torch.rand(tokens, latents, generator=generator)
    # Where active, and where silent, by kind: honest, too broad, top only, nonsense, rare, shifting.
    active = torch.tensor([0.97, 0.97, 0.05, 0.3, 1.0, 0.97])[kinds]
    silent = torch.tensor([0.02, 0.75, 0.02, 0.3, 0.6, 0.02])[kinds]
    says = chance < torch.where(on, active, silent)
    says |= top & on & (kinds != 3)
    shifting = kinds == 5  # honest on the train split, too broad on the test split
    says[:, shifting] |= test[:, None] & (chance[:, shifting] < 0.75)
    return {
        "features": features,
        "says": says,
        "test": test,
        "k": k,
        "fits": 0.9,
        "fails": 0.35,
    }


def find_liars(features, says, test, k, fits, fails) -> list[int]:
    return _found(features, says, test, k, lambda top, recall: top >= fits and recall <= fails)


def _found(
    features: Tensor,
    says: Tensor,
    test: Tensor,
    k: int,
    lies,
    chosen_on: Tensor | None = None,
    measured_on: Tensor | None = None,
    measure=None,
    skip_rare: bool = True,
    order=lambda recall: recall,
) -> list[int]:
    """Latents whose (share of the top k, recall) are a lie, in the order of a key of the recall."""
    chosen_on = ~test if chosen_on is None else chosen_on
    measured_on = test if measured_on is None else measured_on
    found = []
    for j in range(features.shape[1]):
        strengths = features[:, j] * chosen_on
        best = strengths.topk(k)
        if skip_rare and best.values[-1] == 0:
            continue
        true, on = says[measured_on, j], features[measured_on, j] > 0
        value = (measure or _recall)(true, on)
        if lies(float(says[best.indices, j].float().mean()), value):
            found.append((order(value), j))
    return [j for _, j in sorted(found)]


def _recall(true: Tensor, on: Tensor) -> float:
    return float((true & on).sum() / true.sum().clamp(min=1))


def _precision(true: Tensor, on: Tensor) -> float:
    return float((true & on).sum() / on.sum().clamp(min=1))


def _f1(true: Tensor, on: Tensor) -> float:
    return float(2 * (true & on).sum() / (true.sum() + on.sum()).clamp(min=1))


def _changed(**changes):
    def answer(features, says, test, k, fits, fails):
        made = {
            name: make(test) if callable(make) and name.endswith("_on") else make
            for name, make in changes.items()
        }
        return _found(features, says, test, k, lambda top, recall: top >= fits and recall <= fails, **made)

    return answer


def _only(lies):
    return lambda features, says, test, k, fits, fails: _found(
        features, says, test, k, lambda top, recall: lies(top, recall, fits, fails)
    )


def _by_number(features, says, test, k, fits, fails) -> list[int]:
    return sorted(find_liars(features, says, test, k, fits, fails))


def _indices_of_the_cut(features, says, test, k, fits, fails) -> list[int]:
    found = []
    for j in range(features.shape[1]):
        best = features[~test, j].topk(k)
        recall = _recall(says[test, j], features[test, j] > 0)
        if best.values[-1] > 0 and says[best.indices, j].float().mean() >= fits and recall <= fails:
            found.append((recall, j))
    return [j for _, j in sorted(found)]


def _all_fit(answer, args, output) -> str | None:
    for j in output:
        strengths = args["features"][:, j] * ~args["test"]
        share = float(args["says"][strengths.topk(args["k"]).indices, j].float().mean())
        if share < args["fits"]:
            return (
                f"In your list is latent {j}, whose explanation fits {share:.0%} of its strongest examples."
            )
    return None


LIARS = Exercise(
    number="5.6",
    name="find_liars",
    returns="list[int]",
    draw=draw_explanations,
    reference=find_liars,
    wrong=(
        Wrong(
            "precision",
            _changed(measure=_precision),
            "You measured precision: of the tokens on which the latent is active, those that fit. A liar of "
            "this kind fits wherever the latent fires, and is *silent* where it should fire. That is "
            "recall: divide by the tokens of which the explanation is true.",
        ),
        Wrong(
            "f1",
            _changed(measure=_f1),
            "You asked for a low F1. That also catches explanations that are too *narrow*, for which the "
            "recall is fine. Here it is the recall that counts.",
        ),
        Wrong(
            "recall on the train split",
            _changed(measured_on=lambda test: ~test),
            "You measured the recall on the split that the top examples come from. Whoever explains has "
            "read that text. Measure on `test`.",
        ),
        Wrong(
            "recall on all text",
            _changed(measured_on=lambda test: torch.ones_like(test)),
            "You measured the recall on all tokens. The examples that suggested the explanation are among "
            "them: measure on `test`.",
        ),
        Wrong(
            "top of all text",
            _changed(chosen_on=lambda test: torch.ones_like(test)),
            "Your strongest examples come from all tokens. An explanation is made from the train split; the "
            "test split is for testing it.",
        ),
        Wrong(
            "indices of the cut tensor",
            _indices_of_the_cut,
            "Your `topk` numbers the tokens of `features[~test]`, and you use these numbers on the whole of "
            "`says`: they are other tokens there. Cut both alike (`says[~test]`), or silence the test "
            "tokens: `features[:, j] * ~test`.",
        ),
        Wrong(
            "rare latents too",
            _changed(skip_rare=False),
            "Some of your latents are active on fewer than k train tokens. `topk` then fills up with silent "
            "tokens, and their fit says nothing: leave such latents out.",
        ),
        Wrong(
            "all that fail",
            _only(lambda top, recall, fits, fails: recall <= fails),
            "Your list has explanations that fail at the top as well. They fool nobody. A liar *fits* the "
            "strongest examples: at least a share of `fits`.",
        ),
        Wrong(
            "all that fit",
            _only(lambda top, recall, fits, fails: top >= fits),
            "Your list has all explanations that fit the top, the honest ones too. A liar fails on recall: "
            "at most `fails`.",
        ),
        Wrong(
            "the honest ones",
            _only(lambda top, recall, fits, fails: top >= fits and recall > fails),
            "Yours are the honest ones: they fit the top and have a good recall. The liars have at most "
            "`fails`.",
        ),
        Wrong(
            "by number",
            _by_number,
            "The latents are right, and in the order of their numbers. The worst liar comes first: the "
            "lowest recall.",
        ),
        Wrong(
            "best first",
            _changed(order=lambda recall: -recall),
            "The latents are right, and turned round: the lowest recall comes first.",
        ),
    ),
    properties=(Property("A liar's explanation fits its strongest train examples.", _all_fit),),
    look_at="for one latent: `(features[:, j] * ~test).topk(k)` are its strongest train tokens. Recall: "
    "`(true & on).sum() / true.sum()` on the test tokens.",
    saw="explanations that any reader of the top ten would have signed. They are not false about what the "
    "latent does; they claim far too much. Only tokens on which it is *silent* show it.",
    cases=8,
)
