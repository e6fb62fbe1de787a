"""A stand-in for the model in which some latents say the same and others only work together, for 7.6 and 7.7."""

from __future__ import annotations

from collections.abc import Iterable

import torch


class Kept:
    """A stand-in for the model: the logit difference when only some latents are kept.

    Some speak for the answer and some against it; of two that say the same one is enough; two others only work
    together; and with none of them the answer still has a start, as the SAE's error gives it one.
    """

    described = "a stand-in for the model with only some latents kept"

    def __init__(self, latents: list[int], generator: torch.Generator):
        a, b, c, d, *rest = latents
        strength = [0.5 + torch.rand((), generator=generator).item() for _ in latents]
        self.start = 4.0 + strength[0]
        self.either = ((a, 3 * strength[0] + 1.0), (b, 3 * strength[1] + 1.2))
        self.together = ((c, d), 2 + 2 * strength[2])
        alone = {c: 0.1 * strength[2], d: 0.1 * strength[3]}
        signs = [(-0.9, 1.2, 0.3, -0.2, 0.6)[i % 5] for i in range(len(rest))]
        self.weights = alone | {j: sign * s for j, sign, s in zip(rest, signs, strength[4:], strict=True)}

    def __call__(self, kept: Iterable[int]) -> float:
        has = {int(j) for j in kept}
        found = self.start + sum(w for j, w in self.weights.items() if j in has)
        found += max((w for j, w in self.either if j in has), default=0.0)
        both, extra = self.together
        return found + (extra if has.issuperset(both) else 0.0)


def some_latents(generator, n: int) -> list[int]:
    """Numbers of n latents."""
    return (20 + torch.randperm(60, generator=generator)[:n]).tolist()
