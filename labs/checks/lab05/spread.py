"""Exercise 5.7: over how many concepts a latent's activation is spread."""

from __future__ import annotations

import torch
from torch import Tensor

from labs.checks.exercise import Exercise, Property, Wrong, whole


def draw_mass(generator) -> dict:
    """A latent's strengths on tokens of several kinds, strongest on one, and silent on one altogether."""
    tokens, n = whole(generator, 60, 110), whole(generator, 4, 8)
    kind = torch.randint(0, n, (tokens,), generator=generator)
    on = torch.rand(tokens, generator=generator) < 0.2 + 0.5 * torch.rand(n, generator=generator)[kind]
    on &= kind != n - 1
    scale = torch.where(kind == 0, 3.0, 1.0)
    strengths = on * scale * (0.1 + torch.empty(tokens).exponential_(0.9, generator=generator))
    return {"strengths": strengths, "kind": kind, "n": n}


def spread(strengths: Tensor, kind: Tensor, n: int) -> dict[str, float]:
    return _of(_shares(strengths, kind, n))


def _shares(strengths: Tensor, kind: Tensor, n: int) -> Tensor:
    mass = torch.zeros(n).index_add_(0, kind, strengths.float())
    return mass / mass.sum()


def _mean_shares(strengths: Tensor, kind: Tensor, n: int) -> Tensor:
    mean = _shares(strengths, kind, n) / torch.bincount(kind, minlength=n).clamp(min=1)
    return mean / mean.sum()


def _of(share: Tensor, base: float = 2.0, **changes) -> dict[str, float]:
    entropy = -(torch.xlogy(share, share)).sum() / torch.log(torch.tensor(base))
    return {"purity": share.max(), "entropy": entropy, "effective": base**entropy} | changes


def _nan(strengths: Tensor, kind: Tensor, n: int) -> dict:
    share = _shares(strengths, kind, n)
    entropy = -(share * share.log2()).sum()
    return {"purity": share.max(), "entropy": entropy, "effective": 2**entropy}


def _normalised(strengths: Tensor, kind: Tensor, n: int) -> dict:
    right = spread(strengths, kind, n)
    return right | {"entropy": right["entropy"] / torch.log2(torch.tensor(float(n)))}


def _scaled(answer, args, output) -> str | None:
    found = answer(3 * args["strengths"], args["kind"], args["n"])
    gap = abs(float(found["entropy"]) - float(output["entropy"]))
    return (
        None if gap < 1e-4 else f"Your entropy moves by {gap:.3g} if every strength is three times as large."
    )


SPREAD = Exercise(
    number="5.7",
    name="spread",
    returns='dict with "purity", "entropy", "effective"',
    draw=draw_mass,
    reference=spread,
    wrong=(
        Wrong(
            "tokens counted",
            lambda strengths, kind, n: _of(_shares((strengths > 0).float(), kind, n)),
            "You counted active tokens. Weigh each one by its strength: a latent that fires strongly on one "
            "kind and faintly on the rest is purer than its count of tokens.",
        ),
        Wrong(
            "all tokens",
            lambda strengths, kind, n: _of(_shares(torch.ones_like(strengths), kind, n)),
            "Yours describes the text, not the latent: every token counts, active or not. The strengths "
            "have to come in.",
        ),
        Wrong(
            "mean strengths",
            lambda strengths, kind, n: _of(_mean_shares(strengths, kind, n)),
            "You took the *mean* strength of each kind. A kind of which there is one loud token then counts "
            "as much as one with a hundred. Take sums.",
        ),
        Wrong(
            "nats",
            lambda strengths, kind, n: _of(_shares(strengths, kind, n), base=torch.e),
            "Your entropy is in nats (natural logarithm). The task asks for bits: `log2`.",
        ),
        Wrong(
            "mixed bases",
            lambda strengths, kind, n: (
                spread(strengths, kind, n) | {"effective": torch.e ** spread(strengths, kind, n)["entropy"]}
            ),
            "Your entropy is in bits, and then you raised e to it. An entropy in bits is undone by a power "
            "of 2.",
        ),
        Wrong(
            "bits undone from nats",
            lambda strengths, kind, n: _of(
                _shares(strengths, kind, n),
                base=torch.e,
                effective=2 ** _of(_shares(strengths, kind, n), base=torch.e)["entropy"],
            ),
            "Your entropy is in nats, and then you raised 2 to it. Use `log2`, and the power of 2 fits.",
        ),
        Wrong(
            "nan",
            _nan,
            "On a kind with no activation at all you compute 0 · log 0, which is nan. Its limit is 0: leave "
            "such kinds out, or use `torch.xlogy`.",
        ),
        Wrong(
            "sign",
            lambda strengths, kind, n: (
                spread(strengths, kind, n)
                | {
                    "entropy": -spread(strengths, kind, n)["entropy"],
                    "effective": 2 ** -spread(strengths, kind, n)["entropy"],
                }
            ),
            "Your entropy is negative. The logarithm of a share is below zero: there is a minus in the "
            "formula.",
        ),
        Wrong(
            "normalised",
            _normalised,
            "You divided the entropy by its largest possible value. Then it is no longer in bits, and says "
            "something else for every number of kinds.",
        ),
        Wrong(
            "kinds that occur",
            lambda strengths, kind, n: (
                spread(strengths, kind, n) | {"effective": (_shares(strengths, kind, n) > 0).sum().float()}
            ),
            "Your `effective` counts the kinds with any activation, however faint. The effective number, 2 "
            "to the entropy, counts faint ones for little.",
        ),
    ),
    properties=(Property("Strengths in another unit must change nothing.", _scaled),),
    look_at="`torch.zeros(n).index_add_(0, kind, strengths)` sums up the strengths of each kind.",
    saw="monosemantic or not, in two numbers. An effective number of 1 is one kind and nothing else; and it "
    "sees the whole range of the latent, not its top.",
)
