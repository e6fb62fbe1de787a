"""Exercise 7.4: take latents out in three ways, and nothing else. The wrong ways take more, or put in less."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from labs.checks.compare import agree
from labs.checks.exercise import Exercise, Property, Wrong, normal, whole
from labs.checks.lab02.random_state import moves_global_state
from labs.checks.lab03.splice import ToySAE

WAYS = ("zero", "mean", "resample")


def draw_activations(generator) -> dict:
    """Activations, a toy SAE that does not reconstruct them, and what its latents are on ordinary text."""
    d_in, tokens = whole(generator, 6, 9), whole(generator, 20, 30)
    sae = ToySAE(d_in, 3 * d_in, generator)
    sae.described = "a toy SAE"
    latents = torch.randperm(3 * d_in, generator=generator)[: whole(generator, 2, 4)].tolist()
    reference = normal(generator, tokens, 3 * d_in).relu()
    return {
        "sae": sae,
        "x": normal(generator, whole(generator, 2, 3), whole(generator, 5, 8), d_in),
        "latents": latents,
        "how": WAYS[generator.initial_seed() % 3],
        "reference": reference,
        "seed": whole(generator, 0, 99),
    }


def ablated(sae, x: Tensor, latents: list[int], how: str, reference: Tensor, seed: int) -> Tensor:
    return _ablated(sae, x, latents, how, reference, seed)


def _rows(shape, n: int, seed: int) -> Tensor:
    """[batch, pos] a token of the reference for each token."""
    return torch.randint(n, shape, generator=torch.Generator().manual_seed(seed))


def _mean(z: Tensor, reference: Tensor) -> Tensor:
    return reference.mean(0).expand_as(z)


def _resample(z: Tensor, reference: Tensor, seed: int) -> Tensor:
    return reference[_rows(z.shape[:2], len(reference), seed)]


def _put(sae, x: Tensor, z: Tensor, new: Tensor) -> Tensor:
    """The activations with their latents z replaced; the error stays."""
    return x + sae.decode(new) - sae.decode(z)


def _chosen(z: Tensor, latents: list[int]) -> Tensor:
    """[d_sae] True at the latents to take out."""
    return torch.zeros(z.shape[-1], dtype=torch.bool).index_fill(0, torch.tensor(latents), True)


def _ablated(
    sae, x, latents, how, reference, seed, mean=_mean, resample=_resample, put=_put, out=_chosen, bos=False
) -> Tensor:
    """The right answer, with a part done differently."""
    z = sae.encode(x)
    if how == "zero":
        stand_in = torch.zeros_like(z)
    else:
        stand_in = mean(z, reference) if how == "mean" else resample(z, reference, seed)
    new = put(sae, x, z, torch.where(out(z, latents), stand_in, z))
    return new if bos else torch.cat([x[:, :1], new[:, 1:]], dim=1)


def _with(**changes) -> Callable:
    return lambda *args: _ablated(*args, **changes)


def _looks_like(**changes) -> Callable:
    """Recognise a mistake by what stands after BOS, where nothing is drawn at random."""

    def found(answer, args, output: Tensor) -> bool:
        mistaken, right = _ablated(*args.values(), **changes), ablated(*args.values())
        drawn = args["how"] == "resample"
        return (
            not drawn and agree(output[:, 1:], mistaken[:, 1:]) and not agree(mistaken[:, 1:], right[:, 1:])
        )

    return found


def put_in(args: dict, output: Tensor) -> tuple[Tensor, float]:
    """What an answer put in place of the latents.

    Returns:
        [batch, pos - 1, latents] their values behind BOS, as far as the output tells; and the largest change that
        no value of these latents explains.
    """
    sae, x, latents = args["sae"], args["x"][:, 1:], args["latents"]
    rows = sae.W_dec[latents].double()
    change = (output[:, 1:] - x).double() + sae.encode(x)[..., latents].double() @ rows
    values = change @ torch.linalg.pinv(rows)
    return values, (values @ rows - change).abs().max().item()


def _from_rows(args: dict, values: Tensor, all_latents: bool = False) -> bool:
    """Whether at every token the values are those of one token of the reference."""
    reference = args["reference"][:, args["latents"]].double()
    return bool(((values[..., None, :] - reference).abs().amax(-1).amin(-1) < 1e-3).all())


def _drawn(test: Callable) -> Callable:
    """Recognise something about the values that were drawn."""

    def found(answer, args, output: Tensor) -> bool:
        values, unexplained = put_in(args, output)
        return args["how"] == "resample" and unexplained < 1e-3 and test(args, values)

    return found


def _one_row(args: dict, values: Tensor) -> bool:
    same = (values - values[:1, :1]).abs().max() < 1e-4
    return bool(same) and _from_rows(args, values) and values.abs().max().item() > 1e-3


def _each_alone(args: dict, values: Tensor) -> bool:
    columns = args["reference"][:, args["latents"]].double()
    near = (values[..., None, :] - columns).abs().amin(-2) < 1e-3
    return bool(near.all()) and not _from_rows(args, values)


def _everything(answer, args, output: Tensor) -> bool:
    """Whether at every token all latents are those of one token of the reference."""
    if args["how"] != "resample" or put_in(args, output)[1] < 1e-3:
        return False
    sae, x = args["sae"], args["x"][:, 1:]
    bare = x - sae.decode(sae.encode(x))
    whole_rows = bare[..., None, :] + sae.decode(args["reference"])
    return bool(((output[:, 1:, None] - whole_rows).abs().amax(-1).amin(-1) < 1e-3).all())


def _untouched(answer, args, output: Tensor) -> bool:
    return agree(output, args["x"]) and not agree(args["x"], ablated(*args.values()))


def _always(way: str) -> Callable:
    """The answer that does the same, whatever `how` says."""
    return lambda sae, x, latents, how, reference, seed: ablated(sae, x, latents, way, reference, seed)


def _deaf_to_how(answer, args, output: Tensor) -> bool:
    """Whether another way gives the same."""
    other = answer(*(args | {"how": "mean" if args["how"] != "mean" else "zero"}).values())
    return agree(other, output) and not agree(output, args["x"])


def _shared(dim: int) -> Callable:
    """Recognise one draw for all tokens along an axis; values that are mostly 0 may agree at a few by chance."""

    def test(args: dict, values: Tensor) -> bool:
        same = (values - values.narrow(dim, 0, 1)).abs().max() < 1e-4
        return bool(same) and _from_rows(args, values) and values.abs().max().item() > 1e-3

    return _drawn(test)


def _once_a_row(z: Tensor, reference: Tensor, seed: int) -> Tensor:
    return reference[_rows((len(z), 1), len(reference), seed)].expand_as(z)


def _once_a_position(z: Tensor, reference: Tensor, seed: int) -> Tensor:
    return reference[_rows((1, z.shape[1]), len(reference), seed)].expand_as(z)


def _deaf_to_the_seed(answer, args, output: Tensor) -> bool:
    other = answer(*(args | {"seed": args["seed"] + 1}).values())
    return args["how"] == "resample" and agree(other, output) and _from_rows(args, put_in(args, output)[0])


def _separately(z: Tensor, reference: Tensor, seed: int) -> Tensor:
    rows = torch.randint(len(reference), z.shape, generator=torch.Generator().manual_seed(seed))
    return reference.gather(0, rows.flatten(0, 1)).view_as(z)


def _globally(z: Tensor, reference: Tensor, seed: int) -> Tensor:
    torch.manual_seed(seed)
    return reference[torch.randint(len(reference), z.shape[:2])]


_FRESH = torch.Generator().manual_seed(0)  # never the same twice, and not PyTorch's own


def _active_mean(z: Tensor, reference: Tensor) -> Tensor:
    return (reference.sum(0) / (reference > 0).sum(0).clamp(min=1)).expand_as(z)


def _own_mean(z: Tensor, reference: Tensor) -> Tensor:
    return z.mean((0, 1)).expand_as(z)


def _bare(sae, x: Tensor, z: Tensor, new: Tensor) -> Tensor:
    return sae.decode(new)


def _difference(sae, x: Tensor, z: Tensor, new: Tensor) -> Tensor:
    return x + sae.decode(new - z)


def _others(z: Tensor, latents: list[int]) -> Tensor:
    return ~_chosen(z, latents)


def _all(z: Tensor, latents: list[int]) -> Tensor:
    return torch.ones(z.shape[-1], dtype=torch.bool)


def _bos_stays(answer, args, output: Tensor) -> str | None:
    gap = (output[:, 0] - args["x"][:, 0]).abs().max().item()
    return None if gap < 1e-4 else f"At position 0 yours moves it by up to {gap:.3g}."


def _nothing_else(answer, args, output: Tensor) -> str | None:
    left = put_in(args, output)[1]
    return None if left < 1e-3 else f"In yours, up to {left:.3g} of the change is no value of these latents."


def _right_values(answer, args, output: Tensor) -> str | None:
    values = put_in(args, output)[0]
    if args["how"] == "resample":
        if _from_rows(args, values):
            return None
        return 'With "resample", yours has values at some token that no token of the reference has.'
    right = put_in(args, ablated(*args.values()))[0]
    if torch.allclose(values, right, atol=1e-3):
        return None
    at = (values - right).abs().flatten().argmax()
    return (
        f'With "{args["how"]}", one of yours becomes {values.flatten()[at]:.3g} where '
        f"{right.flatten()[at]:.3g} is right."
    )


ABLATED = Exercise(
    number="7.4",
    name="ablated",
    returns='Float[Tensor, "batch pos d_in"]',
    draw=draw_activations,
    reference=ablated,
    unique=False,
    cases=9,
    wrong=(
        Wrong(
            "nothing taken out",
            lambda sae, x, *rest: x,
            "With at least one of the three ways yours gives back what it was given. Is there a branch for each, and "
            "are the names right? And is `new` a copy, `z.clone()`? Without it both change, and the difference is 0.",
            recognise=_untouched,
        ),
        Wrong(
            "one way for all",
            _always("zero"),
            "Yours does the same whatever `how` says. Zero, mean and resample are three questions: make a branch for "
            "each.",
            recognise=_deaf_to_how,
        ),
        Wrong(
            "the other way round",
            _with(put=lambda sae, x, z, new: x - sae.decode(new) + sae.decode(z)),
            "Your difference has the wrong sign: what was to go is there twice. It is `x + sae.decode(new) - "
            "sae.decode(z)`.",
            recognise=_looks_like(put=lambda sae, x, z, new: x - sae.decode(new) + sae.decode(z)),
        ),
        Wrong(
            "one mean for all",
            _with(mean=lambda z, reference: reference.mean().expand_as(z)),
            "You put one mean in for all latents. Each has its own, over the tokens: `reference.mean(0)`.",
            recognise=_looks_like(mean=lambda z, reference: reference.mean().expand_as(z)),
        ),
        Wrong(
            "error thrown away",
            _with(put=_bare),
            "You threw the error term away: what you return is the reconstruction with a few latents "
            "missing. The model then loses all that the SAE does not explain, and you would blame the "
            "latents for it. Return `x + sae.decode(new) - sae.decode(z)`.",
            recognise=_looks_like(put=_bare),
        ),
        Wrong(
            "decoder bias twice",
            _with(put=_difference),
            "You decoded the *difference* of the latents. `decode` adds its bias to whatever it is given, "
            "so every token is moved by `b_dec`. Decode both, and take the difference then.",
            recognise=_looks_like(put=_difference),
        ),
        Wrong(
            "all but these",
            _with(out=_others),
            "You took out all *other* latents, and kept these. That asks whether they are sufficient "
            "(exercise 7.6). Here you ask whether they are missed.",
            recognise=_looks_like(out=_others),
        ),
        Wrong(
            "every latent",
            _with(out=_all),
            "You replaced *every* latent. Replace the columns in `latents` only: `new[..., latents] = ...`.",
            recognise=lambda answer, args, output: (
                _looks_like(out=_all)(answer, args, output) or _everything(answer, args, output)
            ),
        ),
        Wrong(
            "mean where active",
            _with(mean=_active_mean),
            "Your mean leaves out the tokens on which the latent is silent. It says how strong the latent "
            "is *when* it is active, and puts that on every token. As usual means mostly silent: "
            "`reference.mean(0)`.",
            recognise=_looks_like(mean=_active_mean),
        ),
        Wrong(
            "mean of this input",
            _with(mean=_own_mean),
            "Your mean is that of the activations you ablate. It still holds what you meant to take out: on "
            "a short prompt, most of it. Take the mean over `reference`.",
            recognise=_looks_like(mean=_own_mean),
        ),
        Wrong(
            "one token for all",
            _with(
                resample=lambda z, reference, seed: reference[_rows((1, 1), len(reference), seed)].expand_as(
                    z
                )
            ),
            "You drew one token of the reference and put it everywhere. A result then hangs on that one "
            "draw. Draw anew for each token: `torch.randint(len(reference), z.shape[:2], generator=...)`.",
            recognise=_drawn(_one_row),
        ),
        Wrong(
            "one draw for each text",
            _with(resample=_once_a_row),
            "You drew one token of the reference for each *text*, and put it at all of its positions. Draw anew for "
            "each token: `torch.randint(len(reference), z.shape[:2], generator=...)`.",
            recognise=_shared(1),
        ),
        Wrong(
            "one draw for each position",
            _with(resample=_once_a_position),
            "You drew once for each position, and all texts share it. Draw anew for each token: "
            "`torch.randint(len(reference), z.shape[:2], generator=...)`.",
            recognise=_shared(0),
        ),
        Wrong(
            "each latent by itself",
            _with(resample=_separately),
            "You drew another token for each latent. Latents that go together come apart then, and the "
            "model sees what no text has. Draw one token of the reference for each token, and take all of "
            "`latents` from it.",
            recognise=_drawn(_each_alone),
        ),
        Wrong(
            "the global seed",
            _with(resample=_globally),
            "You seed, or draw from, PyTorch's global generator. Whoever draws after you gets other "
            "numbers. `torch.Generator().manual_seed(seed)`, handed to `torch.randint` as `generator=`.",
            recognise=lambda answer, args, output: moves_global_state(lambda: answer(*args.values())),
        ),
        Wrong(
            "not seeded",
            _with(
                resample=lambda z, reference, seed: _resample(
                    z, reference, int(torch.randint(0, 2**31, (), generator=_FRESH))
                )
            ),
            "The same seed gives other tokens each time. Make a generator inside the function, from `seed`.",
            recognise=lambda answer, args, output: not agree(answer(*args.values()), answer(*args.values())),
        ),
        Wrong(
            "the first tokens",
            _with(resample=lambda z, reference, seed: _resample(z, reference, 0)),
            "Another seed gives the same tokens. They are then no draw: nobody can find out how much the "
            "result depends on them. Let `seed` make the generator.",
            recognise=_deaf_to_the_seed,
        ),
        Wrong(
            "BOS, too",
            _with(bos=True),
            "You ablate at BOS as well. It is no word; its activation is many times as long as the others', "
            "and the model uses it as a resting place. Leave position 0 as it was.",
            recognise=lambda answer, args, output: (
                bool((output[:, 0] - args["x"][:, 0]).abs().max() > 1e-4) and put_in(args, output)[1] < 1e-3
            ),
        ),
    ),
    properties=(
        Property("BOS stays as it is.", _bos_stays),
        Property("Nothing but these latents may change.", _nothing_else),
        Property("What stands in for the latents must be right.", _right_values),
    ),
    look_at="`z = sae.encode(x)`, `new = z.clone()`, `new[..., latents] = ...`, and x plus the difference "
    "of the two decodings.",
    saw="an experiment that takes out what it names, and nothing else. What it puts in instead is part of "
    "the question.",
)

EXERCISES = (ABLATED,)
