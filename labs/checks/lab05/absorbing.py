"""Exercise 5.12: tokens on which a concept's latent is silent because another one writes its direction."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

from labs.checks.exercise import Exercise, Wrong, normal, whole


def draw_absorbed(generator) -> dict:
    """A concept's latent, one that stands in for it on some tokens, and many that write a little of it."""
    tokens, latents, d = whole(generator, 90, 150), whole(generator, 9, 13), whole(generator, 6, 9)
    holds = torch.rand(tokens, generator=generator) < 0.5
    rows = normalize(normal(generator, latents, d), dim=1)
    rows[1] = normalize(rows[0] + 0.8 * rows[1], dim=0)
    for j in range(2, 7):  # they write a fifth of it each
        rows[j] = normalize(0.25 * rows[0] + normalize(rows[j] - (rows[j] @ rows[0]) * rows[0], dim=0), dim=0)
    rows[7] = -rows[0]  # it says the opposite, loudly
    for j in range(8, latents):
        rows[j] = normalize(rows[j] - (rows[j] @ rows[0]) * rows[0], dim=0)
    chance = torch.rand(tokens, generator=generator)
    features = (torch.rand(tokens, latents, generator=generator) < 0.5) * (
        0.6 + 0.5 * torch.rand(tokens, latents, generator=generator)
    )
    special = holds & (chance < 0.35)
    features[:, 0] = torch.where(holds & ~special & (chance < 0.9), 1.0, 0.0)
    features[:, 0] += torch.where(~holds & (chance < 0.35), 0.2, 0.0)  # false alarms, weaker
    features[:, 0] *= 0.5 + 1.5 * torch.rand(tokens, generator=generator) ** 3
    elsewhere = ~holds & (torch.rand(tokens, generator=generator) < 0.15)
    features[:, 1] = (special | elsewhere) * (0.2 + 1.6 * torch.rand(tokens, generator=generator))
    features[:, 1] += (features[:, 0] > 0) * (torch.rand(tokens, generator=generator) < 0.3) * 1.5
    scale = 0.5 + 1.5 * torch.rand(latents, generator=generator)
    scale[0] = 1.6
    order = torch.randperm(latents, generator=generator)
    return {
        "features": (features / scale)[:, order],
        "W_dec": (rows * scale[:, None])[order],
        "holds": holds,
        "parent": int((order == 0).nonzero()),
        "carried": 0.4,
    }


def absorbed(features, W_dec, holds, parent, carried) -> dict[str, float]:
    return _report(features, W_dec, holds, parent, carried)


def _report(
    features,
    W_dec,
    holds,
    parent,
    carried,
    *,
    writes=None,
    usual=None,
    reached=None,
    missed=None,
    control=None,
) -> dict[str, float]:
    on = features[:, parent] > 0
    writes = features * (W_dec @ normalize(W_dec[parent], dim=0)) if writes is None else writes
    usual = writes[holds & on, parent].mean() if usual is None else usual
    looks = (writes.amax(1) if reached is None else reached) >= carried * usual
    of = holds & ~on if missed is None else missed
    beside = ~holds & ~on if control is None else control
    return {
        "missed": (~on)[holds].float().mean(),
        "absorbed": looks[of].float().mean(),
        "elsewhere": looks[beside].float().mean(),
    }


def _changed(**changes):
    """The reference with some steps made another way; each gets (features, W_dec, holds, parent, writes)."""

    def answer(features, W_dec, holds, parent, carried):
        writes = features * (W_dec @ normalize(W_dec[parent], dim=0))
        made = {name: make(features, W_dec, holds, parent, writes) for name, make in changes.items()}
        return _report(features, W_dec, holds, parent, carried, **made)

    return answer


def _missed_changed(features, W_dec, holds, parent, carried) -> dict:
    on = features[:, parent] > 0
    right = absorbed(features, W_dec, holds, parent, carried)
    return right | {"missed": (holds & ~on).float().mean()}


def _of_all(features, W_dec, holds, parent, carried) -> dict:
    right = absorbed(features, W_dec, holds, parent, carried)
    return right | {"absorbed": right["absorbed"] * right["missed"]}


ABSORBED = Exercise(
    number="5.12",
    name="absorbed",
    returns='dict with "missed", "absorbed", "elsewhere"',
    draw=draw_absorbed,
    reference=absorbed,
    wrong=(
        Wrong(
            "all others together",
            _changed(reached=lambda features, W_dec, holds, parent, writes: writes.sum(1)),
            "You added up what all latents write along the direction. Many faint ones always come to "
            "something. Absorption is *one* latent that stands in: take the largest.",
        ),
        Wrong(
            "length of the row",
            _changed(
                writes=lambda features, W_dec, holds, parent, writes: features * (W_dec @ W_dec[parent]),
                usual=lambda features, W_dec, holds, parent, writes: writes[
                    holds & (features[:, parent] > 0), parent
                ].mean(),
            ),
            "You compare two things of different units: one side is off by the length of the parent's "
            "decoder row. Make the direction one long, and measure what the parent usually writes along it "
            "just as for the others (not its bare activation).",
        ),
        Wrong(
            "size without sign",
            _changed(reached=lambda features, W_dec, holds, parent, writes: writes.abs().amax(1)),
            "You took what is written without its sign. A latent that writes *against* the direction does "
            "not stand in for the parent.",
        ),
        Wrong(
            "median",
            _changed(
                usual=lambda features, W_dec, holds, parent, writes: writes[
                    holds & (features[:, parent] > 0), parent
                ].median()
            ),
            "You took the median of what the parent writes. That is as good a choice; the task says the "
            "mean, so that numbers can be compared.",
        ),
        Wrong(
            "cosine times activation",
            _changed(
                writes=lambda features, W_dec, holds, parent, writes: (
                    features * (normalize(W_dec, dim=1) @ normalize(W_dec[parent], dim=0))
                )
            ),
            "You multiplied activations by *cosines*. A latent with a long decoder row writes more: `W_dec "
            "@ direction`, with the rows as they are.",
        ),
        Wrong(
            "usual over all tokens",
            _changed(
                usual=lambda features, W_dec, holds, parent, writes: writes[
                    features[:, parent] > 0, parent
                ].mean()
            ),
            "Your usual strength also counts tokens without the concept, on which the parent fires by "
            "mistake. Measure it where the concept holds *and* the parent is active.",
        ),
        Wrong(
            "usual with zeros",
            _changed(usual=lambda features, W_dec, holds, parent, writes: writes[holds, parent].mean()),
            "Your usual strength counts the tokens on which the parent is silent, as zeros. So the more it "
            "misses, the lower your bar. Take only tokens on which it is active.",
        ),
        Wrong(
            "active tokens too",
            _changed(missed=lambda features, W_dec, holds, parent, writes: holds),
            "You counted all tokens with the concept. Where the parent itself is active, nothing has been "
            "absorbed: count only those on which it is silent.",
        ),
        Wrong(
            "control with the parent",
            _changed(control=lambda features, W_dec, holds, parent, writes: ~holds),
            "Your control also has tokens on which the parent is active; there the parent itself writes the "
            "direction. Same rule as for the others: only where it is silent.",
        ),
        Wrong(
            "control on all text",
            _changed(control=lambda features, W_dec, holds, parent, writes: features[:, parent] == 0),
            "Your control has the tokens with the concept in it. It asks how often the same happens where "
            "there is nothing to absorb: where the concept does *not* hold.",
        ),
        Wrong(
            "missed of all tokens",
            _missed_changed,
            "Your `missed` is a share of all tokens. It asks: of the tokens *with the concept*, on how many "
            "is the parent silent?",
        ),
        Wrong(
            "absorbed of all with the concept",
            _of_all,
            "Your `absorbed` is a share of all tokens with the concept. The task asks for a share of the "
            "*missed* ones, which can be held beside the control.",
        ),
    ),
    look_at="`features * (W_dec @ direction)`: [tokens, latents], what every latent writes along the "
    "direction.",
    saw="a silence that is no ignorance: the concept is written, by somebody else. And what the number is "
    "worth: only what is above `elsewhere`.",
    cases=8,
)

EXERCISES = (ABSORBED,)
