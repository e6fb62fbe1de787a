"""Exercise 7.10: direct logit attribution, with the last normalisation held as it is."""

from __future__ import annotations

import torch
from torch import Tensor

from labs.checks.exercise import Exercise, Property, Wrong, normal, whole


def draw_parts(generator) -> dict:
    """What a small model wrote into the last residual stream. Every other one has a LayerNorm, the rest an RMSNorm."""
    n, d = whole(generator, 3, 8), whole(generator, 5, 12)
    return {
        "parts": (1 + generator.initial_seed() % 3) * normal(generator, n, d) + 0.7,
        "unembed": normal(generator, d),
        "gain": 0.5 + torch.rand(d, generator=generator),
        "shift": 0.5 * normal(generator, d),
        "bias": normal(generator, 1).item(),
        "centred": generator.initial_seed() % 2 == 0,
        "eps": 0.2 * whole(generator, 1, 4),
    }


def direct_contributions(
    parts: Tensor, unembed: Tensor, gain: Tensor, shift: Tensor, bias: float, centred: bool, eps: float
) -> Tensor:
    return _direct(parts, unembed, gain, shift, bias, centred, eps)


def _length(stream: Tensor, eps: float) -> Tensor:
    return (stream.pow(2).mean(-1, keepdim=True) + eps).sqrt()


def _direct(
    parts, unembed, gain, shift, bias, centred, eps, length=_length, centre_parts=None, own=False
) -> Tensor:
    """The right answer, with a part done differently."""

    def without_mean(x: Tensor, wanted: bool = centred) -> Tensor:
        return x - x.mean(-1, keepdim=True) if wanted else x

    stream = without_mean(parts if own else parts.sum(0, keepdim=True))
    seen = without_mean(parts, centred if centre_parts is None else centre_parts) / length(stream, eps)
    return torch.cat([(seen * gain) @ unembed, (shift @ unembed + bias)[None]])


def _with(**changes):
    return lambda *args: _direct(*args, **changes)


def _replacing(**changes):
    """The right answer to other arguments."""
    names = ("parts", "unembed", "gain", "shift", "bias", "centred", "eps")

    def answer(*args):
        given = dict(zip(names, args, strict=True))
        return _direct(**given | {name: change(given) for name, change in changes.items()})

    return answer


def logit(parts, unembed, gain, shift, bias, centred, eps) -> float:
    """What the model computes from all parts together."""
    stream = parts.sum(0)
    stream = stream - stream.mean() if centred else stream
    return float((stream / _length(stream, eps) * gain + shift) @ unembed + bias)


def _across_parts(parts, unembed, gain, shift, bias, centred, eps) -> Tensor:
    scale = _length(parts.sum(0) - parts.sum(0).mean() if centred else parts.sum(0), eps)
    seen = (parts - parts.mean(0) if centred else parts) / scale
    return torch.cat([(seen * gain) @ unembed, (shift @ unembed + bias)[None]])


def _one_mean(parts, unembed, gain, shift, bias, centred, eps) -> Tensor:
    return _direct(parts - parts.mean() if centred else parts, unembed, gain, shift, bias, False, eps)


def _shift_in_every_part(*args) -> Tensor:
    parts, unembed, _, shift, bias, _, _ = args
    return torch.cat([_direct(*args)[:-1] + shift @ unembed, torch.tensor([bias])])


def _length_of_entries(parts, unembed, gain, shift, bias, centred, eps) -> Tensor:
    seen = parts - parts.mean(-1, keepdim=True) if centred else parts
    written = (seen / (seen.pow(2).mean() + eps).sqrt() * gain) @ unembed
    return torch.cat([written, (shift @ unembed + bias)[None]])


def _forced(parts, unembed, gain, shift, bias, centred, eps) -> Tensor:
    """Contributions without the normalisation, scaled until the sum comes out."""
    raw = torch.cat([(parts * gain) @ unembed, (shift @ unembed + bias)[None]])
    return raw * logit(parts, unembed, gain, shift, bias, centred, eps) / raw.sum()


def _forced_parts(parts, unembed, gain, shift, bias, centred, eps) -> Tensor:
    raw, biases = (parts * gain) @ unembed, shift @ unembed + bias
    left = logit(parts, unembed, gain, shift, bias, centred, eps) - biases
    return torch.cat([raw * left / raw.sum(), biases[None]])


def _taken_out(parts, *rest) -> Tensor:
    """The logit with all parts minus the logit without this one, normalised anew."""
    whole_logit = logit(parts, *rest)
    lost = [
        whole_logit - logit(parts[[j for j in range(len(parts)) if j != i]], *rest) for i in range(len(parts))
    ]
    return torch.cat([torch.tensor(lost), _direct(parts, *rest)[-1:]])


def _spread_biases(*args) -> Tensor:
    right = _direct(*args)
    shared = right[:-1] + right[-1] / (len(right) - 1)
    return torch.cat([shared, torch.zeros(1)])


def _adds_up(answer, args, output: Tensor) -> str | None:
    right, found = logit(**args), output.sum().item()
    if abs(found - right) < 1e-3 + 1e-4 * abs(right):
        return None
    return f"The logit is {right:.4f}, and your contributions add up to {found:.4f}."


def _linear(answer, args, output: Tensor) -> str | None:
    """A part that is split in two must not gain by it."""
    parts = args["parts"]
    halves = torch.cat([0.3 * parts[:1], 0.7 * parts[:1], parts[1:]])
    found = answer(*(args | {"parts": halves}).values())
    before, after = float(output[0]), float(found[0] + found[1])
    if abs(after - before) < 1e-3:
        return None
    return f"As one part it contributes {before:.3g}, split in two {after:.3g}."


DIRECT = Exercise(
    number="7.10",
    name="direct_contributions",
    returns='Float[Tensor, "parts+1"]',
    draw=draw_parts,
    reference=direct_contributions,
    wrong=(
        Wrong(
            "not normalised",
            _with(length=lambda stream, eps: torch.ones(1)),
            "You left out the division by the length of the stream. Without it the contributions are those of a "
            "model that has no last normalisation. Divide every part by the length of the *whole* stream.",
        ),
        Wrong(
            "each by its own length",
            _with(own=True),
            "You divided every part by its own length. A faint part then speaks as loudly as a strong one, and the "
            "sum is off. The model divides once: by the length of the sum of all parts.",
        ),
        Wrong(
            "norm, not root mean square",
            _with(length=lambda stream, eps: (stream.pow(2).sum(-1, keepdim=True) + eps).sqrt()),
            "You divided by the norm of the stream. The normalisation divides by the root of the *mean* square, "
            "which is smaller by the root of the width.",
        ),
        Wrong(
            "n - 1",
            _with(
                length=lambda stream, eps: (
                    stream.pow(2).sum(-1, keepdim=True) / (stream.shape[-1] - 1) + eps
                ).sqrt()
            ),
            "You divide the squares by d - 1, as `.std()` and `.var()` do unless told otherwise. A normalisation "
            "divides by d: `.pow(2).mean()`.",
        ),
        Wrong(
            "eps outside the root",
            _with(length=lambda stream, eps: stream.pow(2).mean(-1, keepdim=True).sqrt() + eps),
            "You added eps after the root. In LayerNorm and RMSNorm it is added to the mean square, and then the "
            "root is taken.",
        ),
        Wrong(
            "eps left out",
            _with(length=lambda stream, eps: stream.pow(2).mean(-1, keepdim=True).sqrt()),
            "You left eps out. It is small in a real model, and the sum still has to be right: add it to the mean "
            "square, inside the root.",
        ),
        Wrong(
            "root forgotten",
            _with(length=lambda stream, eps: stream.pow(2).mean(-1, keepdim=True) + eps),
            "You divided by the mean square. Take its root: `(mean(x²) + eps).sqrt()`.",
        ),
        Wrong(
            "length of the entries",
            _length_of_entries,
            "You took the mean square over the entries of all *parts*. The model squares the stream, which is their "
            "sum: parts that point against each other make a short stream. Sum first, `parts.sum(0)`, then square.",
        ),
        Wrong(
            "centred where it is not",
            _replacing(centred=lambda given: not given["centred"]),
            "You have `centred` the wrong way round: where it is true (a LayerNorm) the mean is taken off.",
        ),
        Wrong(
            "never centred",
            _replacing(centred=lambda given: False),
            "You never take off the mean. Where `centred` is true the normalisation is a LayerNorm: it subtracts "
            "the mean over the dimensions, from the stream and so from every part, before it divides.",
        ),
        Wrong(
            "always centred",
            _replacing(centred=lambda given: True),
            "You take off the mean in any case. Where `centred` is false the normalisation is an RMSNorm, which "
            "leaves the mean in.",
        ),
        Wrong(
            "parts not centred",
            _with(centre_parts=False),
            "You took the mean off the stream to find its length, and left it in the parts. The mean of a sum is "
            "the sum of the means: each part loses its own.",
        ),
        Wrong(
            "one mean for all",
            _one_mean,
            "You took one mean over *all* parts off every part. Each part loses its own mean over the dimensions: "
            "`parts.mean(-1, keepdim=True)`.",
        ),
        Wrong(
            "centred across the parts",
            _across_parts,
            "You took the mean over the *parts*, so they now add up to nothing. LayerNorm takes the mean over the "
            "dimensions: `.mean(-1, keepdim=True)`.",
        ),
        Wrong(
            "gain forgotten",
            _replacing(gain=lambda given: torch.ones_like(given["gain"])),
            "You left out `gain`. After the division, every dimension is multiplied by its own weight, before the "
            "unembedding reads it.",
        ),
        Wrong(
            "biases first",
            lambda *args: _direct(*args).roll(1),
            "The numbers are right, their order is not: you put the biases first. They are the *last* entry.",
        ),
        Wrong(
            "shift in every part",
            _shift_in_every_part,
            "You added `shift` to every part, so that it is there as often as there are parts. The normalisation adds "
            "it once: it belongs to the last entry.",
        ),
        Wrong(
            "biases left out",
            lambda *args: torch.cat([_direct(*args)[:-1], torch.zeros(1)]),
            "Your last entry is 0, so the sum misses what no part has written: `shift`, read by the unembedding, and "
            "`bias`. They have an entry of their own.",
        ),
        Wrong(
            "biases spread over the parts",
            _spread_biases,
            "You handed the biases out to the parts. The sum is right, and every part is credited with what it did "
            "not write. They are the last entry.",
        ),
        Wrong(
            "shift left out",
            _replacing(shift=lambda given: torch.zeros_like(given["shift"])),
            "Your last entry is the unembedding's bias alone. The normalisation has a bias, too: `shift @ unembed`.",
        ),
        Wrong(
            "bias left out",
            _replacing(bias=lambda given: 0.0),
            "Your last entry holds `shift` only. Add `bias`, the unembedding's own.",
        ),
        Wrong(
            "shift times gain",
            _replacing(shift=lambda given: given["shift"] * given["gain"]),
            "You multiplied `shift` by `gain`. The normalisation adds it *after* the gain.",
        ),
        Wrong(
            "forced to add up",
            _forced,
            "Your contributions add up because you scaled them until they did, the biases among them. Hold the length "
            "fixed instead: then everything is linear, and the sum comes out by itself.",
        ),
        Wrong(
            "parts forced to add up",
            _forced_parts,
            "You scaled the parts until the sum came out. A part's mean, which LayerNorm takes off, is then paid for "
            "by all others. Take it off, divide by the stream's length, and the sum comes out by itself.",
        ),
        Wrong(
            "taken out one by one",
            _taken_out,
            "You took each part out and normalised anew. The length changes then, so every other part changes as "
            "well: a fair question, but its answers do not add up. Hold the length of the whole stream fixed.",
        ),
    ),
    properties=(
        Property("The contributions must add up to the logit.", _adds_up),
        Property("A part that is split in two must contribute as much as before.", _linear),
    ),
    look_at="`parts.sum(0)` is the last residual stream. Its length is one number, the same for all parts.",
    saw="a sum that is exact. It is exact about the *direct* path: what later layers made of a part is credited to "
    "the layers.",
)

EXERCISES = (DIRECT,)
