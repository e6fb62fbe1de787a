"""Exercise 7.2: a push in units of the latent's own largest activation, and random directions as long as it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from labs.checks.compare import agree, plain
from labs.checks.exercise import Exercise, Property, Wrong, whole
from labs.checks.lab02.random_state import moves_global_state
from labs.checks.lab07.mixing import SmallSAE


def draw_push(generator) -> dict:
    """A small SAE, a latent, a strength of either sign, and how many controls."""
    d_in = whole(generator, 5, 12)
    d_sae = 2 * d_in + whole(generator, 0, 3)
    strength = (0.5, -2.0, 3.0, 0.25, -1.0, 1.5)[generator.initial_seed() % 6]
    return {
        "sae": SmallSAE(d_in, d_sae, generator),
        "latent": whole(generator, 0, d_sae - 1),
        "strength": strength,
        "maxima": 1 + 4 * torch.rand(d_sae, generator=generator),
        "n": whole(generator, 4, 7),
        "seed": whole(generator, 1, 99),
    }


def push_and_controls(
    sae, latent: int, strength: float, maxima: Tensor, n: int, seed: int
) -> dict[str, Tensor]:
    return _both(sae, latent, strength, maxima, n, seed)


def _vector(sae, latent: int, strength: float, maxima: Tensor) -> Tensor:
    return strength * maxima[latent] * sae.W_dec[latent]


def _drawn(push: Tensor, n: int, seed: int) -> Tensor:
    rows = torch.randn(n, len(push), generator=torch.Generator().manual_seed(seed))
    return rows * (push.norm() / rows.norm(dim=1, keepdim=True))


def _both(sae, latent, strength, maxima, n, seed, vector=_vector, controls=_drawn) -> dict[str, Tensor]:
    """The right answer, with a part done differently."""
    push = vector(sae, latent, strength, maxima)
    return {"push": push, "controls": controls(push, n, seed)}


def _with(**changes) -> Callable:
    return lambda *args: _both(*args, **changes)


def _decoded(sae, latent, strength, maxima) -> Tensor:
    code = torch.zeros(len(maxima))
    code[latent] = strength * maxima[latent]
    return sae.decode(code)


def _unit(sae, latent, strength, maxima) -> Tensor:
    row = sae.W_dec[latent]
    return strength * maxima[latent] * row / row.norm()


def _read(sae, latent, strength, maxima) -> Tensor:
    return strength * maxima[latent] * sae.W_enc[:, latent]


def _is_push(vector: Callable) -> Callable:
    """Recognise a mistaken push by itself, whatever the controls."""

    def found(answer, args, output) -> bool:
        given = [args[name] for name in ("sae", "latent", "strength", "maxima")]
        mistaken = vector(*given)
        return agree(output["push"], mistaken) and not agree(mistaken, _vector(*given))

    return found


def _globally(push, n, seed) -> Tensor:
    torch.manual_seed(seed)
    rows = torch.randn(n, len(push))
    return rows * push.norm() / rows.norm(dim=1, keepdim=True)


_FRESH = torch.Generator().manual_seed(0)  # never the same twice, and not PyTorch's own


def _unseeded(push, n, seed) -> Tensor:
    return _drawn(push, n, int(torch.randint(0, 2**31, (), generator=_FRESH)))


def _about(test: Callable) -> Callable:
    """Recognise something about the controls, beside the right push."""
    return lambda answer, args, output: test(output["controls"], output["push"])


def _other_length(controls: Tensor, push: Tensor) -> bool:
    return not torch.allclose(controls.norm(dim=1), push.norm().expand(len(controls)), rtol=1e-3)


def _positive(push: Tensor, n: int, seed: int) -> Tensor:
    rows = torch.rand(n, len(push), generator=torch.Generator().manual_seed(seed))
    return rows * push.norm() / rows.norm(dim=1, keepdim=True)


def _from_a_box(push: Tensor, n: int, seed: int) -> Tensor:
    rows = torch.rand(n, len(push), generator=torch.Generator().manual_seed(seed)) - 0.5
    return rows * push.norm() / rows.norm(dim=1, keepdim=True)


def _in_the_corners(answer, args, output) -> bool:
    """Fourth moments of directions: normal numbers give 3 / (d (d + 2)) a coordinate, a box gives less."""
    many = plain(answer(*(args | {"n": 4000}).values()))["controls"]
    units = many / many.norm(dim=1, keepdim=True)
    d = units.shape[1]
    return units.pow(4).mean().item() * d * (d + 2) / 3 < 0.92


def _shuffled(push: Tensor, n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([push[torch.randperm(len(push), generator=generator)] for _ in range(n)])


def _is_shuffled(controls: Tensor, push: Tensor) -> bool:
    return torch.allclose(controls.sort(dim=1).values, push.sort().values.expand_as(controls), atol=1e-4)


def _along(controls: Tensor, push: Tensor) -> bool:
    return bool((torch.cosine_similarity(controls, push[None], dim=1).abs() > 0.999).all())


def _all_equal(controls: Tensor, push: Tensor) -> bool:
    return torch.allclose(controls, controls[:1].expand_as(controls), atol=1e-5)


def _one_sign(controls: Tensor, push: Tensor) -> bool:
    return bool((controls > 0).all() or (controls < 0).all())


def _right_push(answer, args, output) -> str | None:
    right = _vector(*[args[name] for name in ("sae", "latent", "strength", "maxima")])
    if agree(output["push"], right):
        return None
    return (
        f"Yours has length {float(output['push'].norm()):.4g}, and the right one {float(right.norm()):.4g}."
    )


def _uniform(answer, args, output) -> str | None:
    """Over many directions, every coordinate has mean zero and the same share of the length."""
    many = plain(answer(*(args | {"n": 4000}).values()))["controls"]
    units = many / many.norm(dim=1, keepdim=True)
    mean, share = units.mean(0).norm(), units.pow(2).mean(0) * units.shape[1]
    if mean > 0.1:
        return f"Among 4,000 of yours the mean direction has length {float(mean):.2f} instead of about 0."
    if share.max() > 1.25 or share.min() < 0.8:
        return (
            "Some coordinates of yours are larger than others. Use normal numbers: they prefer no direction."
        )
    return None


def _with_the_seed(answer, args, output) -> str | None:
    other = plain(answer(*(args | {"seed": args["seed"] + 1}).values()))["controls"]
    return "Yours is the same for another seed." if agree(other, output["controls"]) else None


PUSH = Exercise(
    number="7.2",
    name="push_and_controls",
    returns="dict[str, Tensor]",
    draw=draw_push,
    reference=push_and_controls,
    unique=False,
    wrong=(
        Wrong(
            "b_dec in the push",
            _with(vector=_decoded),
            "Your push holds the decoder's bias b_dec: `decode` of one latent is that latent's direction *plus* the "
            "bias. The activation has it already. Take the row of W_dec, or subtract `decode` of zeros.",
            recognise=_is_push(_decoded),
        ),
        Wrong(
            "no unit",
            _with(vector=lambda sae, latent, strength, maxima: strength * sae.W_dec[latent]),
            "Your strength has no unit. The same number is a whisper for one latent and a shout for another. Multiply "
            "by the latent's own largest activation, `maxima[latent]`.",
            recognise=_is_push(lambda sae, latent, strength, maxima: strength * sae.W_dec[latent]),
        ),
        Wrong(
            "everybody's maximum",
            _with(vector=lambda sae, latent, strength, maxima: strength * maxima.max() * sae.W_dec[latent]),
            "Your unit is the largest activation of *all* latents. The strongest latent of the SAE says nothing of "
            "how far this one goes: take `maxima[latent]`.",
            recognise=_is_push(
                lambda sae, latent, strength, maxima: strength * maxima.max() * sae.W_dec[latent]
            ),
        ),
        Wrong(
            "row made a unit vector",
            _with(vector=_unit),
            "You divide the decoder row by its length. What the SAE writes at an activation of 1 is the row *as it "
            "is*, and not every SAE has rows of length 1. Leave it.",
            recognise=_is_push(_unit),
        ),
        Wrong(
            "the encoder's column",
            _with(vector=_read),
            "You push along the *encoder's* direction: what the latent reads. What it writes is its row of `W_dec`, "
            "and the two are not the same.",
            recognise=_is_push(_read),
        ),
        Wrong(
            "the sign lost",
            _with(
                vector=lambda sae, latent, strength, maxima: (
                    abs(strength) * maxima[latent] * sae.W_dec[latent]
                )
            ),
            "Your push has lost the sign of the strength: a negative one has to push the other way.",
            recognise=_is_push(
                lambda sae, latent, strength, maxima: abs(strength) * maxima[latent] * sae.W_dec[latent]
            ),
        ),
        Wrong(
            "another length",
            _with(controls=lambda push, n, seed: _drawn(torch.ones(len(push)), n, seed)),
            "Your controls are not as long as the push. A longer push does more, whatever its direction. Divide each "
            "by its own length and multiply by that of the push.",
            recognise=_about(_other_length),
        ),
        Wrong(
            "one control again and again",
            _with(controls=lambda push, n, seed: _drawn(push, 1, seed).expand(n, -1).clone()),
            "All your controls are one and the same. Several are there to show how much chance alone varies: draw "
            "them from one generator, one after the other.",
            recognise=_about(_all_equal),
        ),
        Wrong(
            "the same line",
            _with(controls=lambda push, n, seed: torch.stack([push if i % 2 else -push for i in range(n)])),
            "Your controls are the push itself, or the push backwards. They are about the latent, too. Draw "
            "directions at random.",
            recognise=_about(_along),
        ),
        Wrong(
            "shuffled",
            _with(controls=_shuffled),
            "Your controls have the entries of the push in another order. Their length is right, but if the latent "
            "writes into a few large coordinates, so do they. Draw all directions alike: `torch.randn`.",
            recognise=_about(_is_shuffled),
        ),
        Wrong(
            "positive only",
            _with(controls=_positive),
            "All entries of your controls have one sign: `torch.rand` draws from 0 to 1, so they all point into "
            "one corner of the space. `torch.randn` prefers no direction.",
            recognise=_about(_one_sign),
        ),
        Wrong(
            "from a box",
            _with(controls=_from_a_box),
            "Your controls prefer the corners: numbers that are drawn evenly fill a box, and a box reaches further "
            "towards its corners than along its axes. Draw normal numbers, `torch.randn`. They prefer no direction.",
            recognise=_in_the_corners,
        ),
        Wrong(
            "the global seed",
            _with(controls=_globally),
            "You seed, or draw from, PyTorch's global generator. Whoever draws after you gets other numbers. "
            "`torch.Generator().manual_seed(seed)`, handed to `torch.randn` as `generator=`.",
            recognise=lambda answer, args, output: moves_global_state(lambda: answer(*args.values())),
        ),
        Wrong(
            "not seeded",
            _with(controls=_unseeded),
            "The same seed gives other controls each time. Make a generator inside the function, from `seed`.",
            recognise=lambda answer, args, output: (
                not agree(plain(answer(*args.values())), plain(answer(*args.values())))
            ),
        ),
    ),
    properties=(
        Property("The push is the strength, times the latent's maximum, times its decoder row.", _right_push),
        Property("The controls have to prefer no direction.", _uniform),
        Property("Another seed gives other controls.", _with_the_seed),
    ),
    look_at="`torch.randn(n, d, generator=torch.Generator().manual_seed(seed))`; lengths of rows are "
    "`rows.norm(dim=1, keepdim=True)`.",
    saw="a strength that means the same for every latent, and the least that anybody owes a reader who is shown a "
    "steered text.",
)

EXERCISES = (PUSH,)
