"""Exercises 7.12 and 7.13: latents of two layers matched, and where a crosscoder's latents live."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from labs.checks.compare import agree, plain
from labs.checks.exercise import Exercise, Property, Wrong, normal, whole

# --- 7.12 -----------------------------------------------------------


def draw_layers(generator) -> dict:
    """Two layers that share some latents. Some are not each other's best; one latent of each is dead."""
    lengths = [whole(generator, 6, 11) for _ in range(whole(generator, 5, 7))]
    document = torch.repeat_interleave(3 * torch.arange(len(lengths)) + 2, torch.tensor(lengths))
    tokens, n_a, n_b = len(document), whole(generator, 6, 8), whole(generator, 7, 10)
    b = torch.relu(normal(generator, tokens, n_b) - 0.2 + 0.8 * torch.rand(n_b, generator=generator))
    a = torch.relu(normal(generator, tokens, n_a) - 0.2)
    a[:, 0] = torch.relu(3 * b[:, 1] + 0.3 * normal(generator, tokens))
    a[:, 1] = torch.relu(b[:, 1] + 0.9 * normal(generator, tokens))  # wants the same partner: second best
    a[:, 2] = 0.2 * b[:, 0] + 0.05 * normal(generator, tokens).abs()
    a[:, 3] = 2 * (b[:, 2].amax() - b[:, 2])  # active where another is not
    a[:, 4] = 0.0
    b[:, n_b - 1] = 0.0
    order = torch.randperm(n_a, generator=generator)
    if generator.initial_seed() % 4 == 1:  # the dead ones come first, as a tie-break would have them
        order, b = torch.tensor([4, *(j for j in order.tolist() if j != 4)]), b.roll(1, 1)
    return {"a": a[:, order], "b": b, "document": document}


def partners(a: Tensor, b: Tensor, document: Tensor) -> dict[str, Tensor]:
    return _partners(a, b, document)


def _standard(x: Tensor) -> Tensor:
    x = x - x.mean(0)
    deviation = x.square().mean(0).sqrt()
    return x / torch.where(deviation > 0, deviation, torch.inf)


def correlations(a: Tensor, b: Tensor) -> Tensor:
    return _standard(a).T @ _standard(b) / len(a)


def _cosines(a: Tensor, b: Tensor) -> Tensor:
    return (a / a.norm(dim=0).clamp(min=1e-9)).T @ (b / b.norm(dim=0).clamp(min=1e-9))


def _nan(a: Tensor, b: Tensor) -> Tensor:
    a, b = a - a.mean(0), b - b.mean(0)
    return (a / a.norm(dim=0)).T @ (b / b.norm(dim=0))


def elsewhere(b: Tensor, document: Tensor) -> Tensor:
    """b moved round so that the document in the middle comes first."""
    return b.roll(-int((document == document[len(document) // 2]).nonzero()[0]), 0)


def _best(alike: Tensor, partner: Tensor) -> Tensor:
    return alike.amax(1)


def _with_deviation(n_less: int, times: float = 1.0) -> Callable:
    """Correlations whose deviations are divided by n - n_less, times a number."""

    def like(a: Tensor, b: Tensor) -> Tensor:
        return correlations(a, b) * (1 - n_less / len(a)) * (times or len(a))

    return like


def _across(dim: int | None) -> Callable:
    """Correlations of latents that were centred over another axis, or by one mean."""

    def standard(x: Tensor) -> Tensor:
        x = x - (x.mean() if dim is None else x.mean(dim, keepdim=True))
        deviation = x.square().mean(0).sqrt()
        return x / torch.where(deviation > 0, deviation, torch.inf)

    return lambda a, b: standard(a).T @ standard(b) / len(a)


def _partners(
    a, b, document, like=correlations, move=elsewhere, chance=_best, mutual=True, above=True
) -> dict:
    """The right answer, with a part done differently."""
    alike = like(a, b)
    best, partner = alike.max(1)
    back = alike.argmax(0)
    agreed = ((back[partner] == torch.arange(len(partner))) | (not mutual)) & ((best > 0) | (not above))
    return {
        "partner": torch.where(agreed, partner, -1),
        "correlation": best,
        "chance": chance(like(a, move(b, document)), partner),
    }


def _with(**changes) -> Callable:
    return lambda *args: _partners(*args, **changes)


def _not_mutual(answer, args, output) -> bool:
    right = plain(partners(*args.values()))
    return agree(output["correlation"], right["correlation"]) and bool(
        ((output["partner"] >= 0) & (right["partner"] < 0)).any()
    )


def _reversed_too(answer, args, output) -> str | None:
    """With the layers exchanged, the same pairs have to come out."""
    there = {(i, j) for i, j in enumerate(output["partner"].tolist()) if j >= 0}
    turned = plain(answer(args["b"], args["a"], args["document"]))["partner"].tolist()
    back = {(j, i) for i, j in enumerate(turned) if j >= 0}
    return None if there == back else f"Yours finds {len(there)} pairs one way, {len(back)} the other way."


PARTNERS = Exercise(
    number="7.12",
    name="partners",
    returns='dict with "partner" (Int[Tensor, "n_a"]), "correlation" and "chance" (Float[Tensor, "n_a"])',
    draw=draw_layers,
    reference=partners,
    wrong=(
        Wrong(
            "nan",
            _with(like=_nan),
            "Your correlations are nan where a latent never changes: a dead one has a deviation of 0, and "
            "you divide by it. And nan counts as the largest of all. Let such a latent correlate at 0 with "
            "everybody.",
            recognise=lambda answer, args, output: bool(output["correlation"].isnan().any()),
        ),
        Wrong(
            "not centred",
            _with(like=_cosines),
            "You did not subtract each latent's mean. Two latents that are active nearly everywhere then "
            "look alike, whatever they do. Centre both over the tokens first.",
        ),
        Wrong(
            "on or off",
            _with(like=lambda a, b: correlations((a > 0).float(), (b > 0).float())),
            "You correlated whether the latents are active, and threw away how strongly. A latent that is "
            "faint on every word and loud on one looks like any other then. Correlate the activations.",
        ),
        Wrong(
            "covariance",
            _with(like=lambda a, b: (a - a.mean(0)).T @ (b - b.mean(0)) / len(a)),
            "Yours is the covariance. The loudest latent of the later layer wins everywhere, and later "
            "layers are louder. Divide by both standard deviations.",
        ),
        Wrong(
            "either sign",
            _with(like=lambda a, b: correlations(a, b).abs()),
            "You took absolute values. A latent that is active exactly where another is *not* is no "
            "continuation of it: leave the sign.",
        ),
        Wrong(
            "at no correlation",
            _with(above=False),
            "You pair latents that do not correlate at all: a dead one with a dead one. Of many that are equally bad "
            "somebody is always the best. A pair has to be each other's best *and* correlate above 0.",
        ),
        Wrong(
            "the nearest, and no more",
            _with(mutual=False),
            "You gave a partner to a latent that is not its partner's best. Several latents may want the "
            "same one: then a single feature is counted as found several times. A pair has to be the best "
            "*both* ways, and otherwise the partner is -1.",
            recognise=_not_mutual,
        ),
        Wrong(
            "n - 1",
            _with(like=_with_deviation(1)),
            "Your correlations are a little too small: `.std()` divides by n - 1, and your product by n. Take the same "
            "on both sides, for instance `.square().mean(0).sqrt()` as the deviation.",
        ),
        Wrong(
            "not divided by n",
            _with(like=_with_deviation(0, 0.0)),
            "Your correlations are larger than 1: you added up over the tokens. Divide the product by their number.",
        ),
        Wrong(
            "centred over the latents",
            _with(like=_across(1)),
            "You subtracted the mean over the *latents* of a token. Each latent loses its own mean over the tokens: "
            "`x - x.mean(0)`.",
        ),
        Wrong(
            "one mean for all",
            _with(like=_across(None)),
            "You subtracted one mean from everything. Each latent has its own, over the tokens: `x - x.mean(0)`.",
        ),
        Wrong(
            "control not moved",
            _with(move=lambda b, document: b),
            "Your `chance` is the same as your `correlation`: both layers still read the same tokens. (Or "
            "you moved both alike; or moved b along its latents, and the tokens are axis 0.) Move the tokens "
            "of b, and of b only.",
        ),
        Wrong(
            "chosen beforehand",
            _with(chance=lambda alike, partner: alike.gather(1, partner[:, None])[:, 0]),
            "Your control keeps the partners that were found on the real tokens. But those were *chosen*, "
            "the best of many, and your control did not get to choose. Take the largest correlation again.",
        ),
        Wrong(
            "the average pair",
            _with(chance=lambda alike, partner: alike.mean(1)),
            "Your `chance` is the mean over all latents of b, which is about 0 whatever the layers are. "
            "The real number is the best of many; so must be its control.",
        ),
        Wrong(
            "one token on",
            _with(move=lambda b, document: b.roll(-1, 0)),
            "You moved b by one token. It is the same text then, and a latent that stays active for "
            "several tokens still meets its partner. Move by whole documents.",
        ),
        Wrong(
            "half of the tokens",
            _with(move=lambda b, document: b.roll(-(len(b) // 2), 0)),
            "You moved b by half of the tokens, right through a document. Beginnings then meet middles, "
            "and what latents have in common with any text is lost. Begin with the first token of the "
            "document in the middle.",
        ),
        Wrong(
            "the document's number",
            _with(move=lambda b, document: b.roll(-int(document[len(document) // 2]), 0)),
            "You moved b by the *number* of the document in the middle. What is needed is the place of its first "
            "token: `(document == document[n // 2]).nonzero()[0].item()`.",
        ),
        Wrong(
            "rolled through",
            _with(move=lambda b, document: b.roll(-_start(document))),
            "Without a dimension `roll` moves single numbers from row to row, so latents change places, too. Move "
            "whole tokens: `b.roll(-start, 0)`.",
        ),
        Wrong(
            "the other direction",
            _with(move=lambda b, document: b.roll(_start(document), 0)),
            "You rolled the other way: `roll(n)` moves the *last* n tokens to the front. `roll(-start, 0)` "
            "makes token `start` the first.",
        ),
        Wrong(
            "shuffled tokens",
            _with(move=lambda b, document: b[torch.randperm(len(b))]),
            "Your control shuffles the tokens, and is another one on every call. Shuffled tokens lose the "
            "clumps that all text has, so chance comes out too low. Move whole documents round: nothing "
            "has to be drawn.",
            recognise=lambda answer, args, output: (
                not agree(plain(answer(*args.values()))["chance"], output["chance"])
            ),
        ),
    ),
    properties=(Property("A pair is a pair from either side.", _reversed_too),),
    look_at="`alike.max(1)` gives each latent of a its best in b, `alike.argmax(0)` each latent of b its "
    "best in a.",
    saw="two layers side by side without a look at a direction. What counts is the distance between "
    "`correlation` and `chance`, not the correlation alone.",
    cases=8,
)


def _start(document: Tensor) -> int:
    return int((document == document[len(document) // 2]).nonzero()[0])


# --- 7.13 -----------------------------------------------------------


def draw_crosscoder(generator) -> dict:
    """A crosscoder of two or three layers of different widths, with shared, one-sided and dead latents."""
    widths = [whole(generator, 3, 5) + 2 * i for i in range(whole(generator, 2, 3))]
    d_sae, tokens = whole(generator, 8, 14), whole(generator, 20, 30)
    parts = [normal(generator, d_sae, width) / width**0.5 for width in widths]
    parts = [part * (0.15 + torch.rand(d_sae, 1, generator=generator)) for part in parts]
    parts[0][0] *= 0.02
    parts[-1][1] *= 0.02
    scales = torch.tensor([2.0**-i for i in range(len(widths))]) * (0.5 + torch.rand((), generator=generator))
    latents = torch.relu(normal(generator, tokens, d_sae))
    latents[:, 2::4] = 0.0  # dead
    return {
        "W_dec": torch.cat([part / scale for part, scale in zip(parts, scales, strict=True)], dim=1),
        "widths": widths,
        "scales": scales,
        "latents": latents,
        "least": 0.25,
    }


def where_they_live(
    W_dec: Tensor, widths: list[int], scales: Tensor, latents: Tensor, least: float
) -> dict[str, Tensor | float]:
    return _lives(W_dec, widths, scales, latents, least)


def _cut(W_dec: Tensor, widths: list[int]) -> list[Tensor]:
    return list(W_dec.split(widths, dim=1))


def _in_equal_parts(W_dec: Tensor, widths: list[int]) -> list[Tensor]:
    return list(W_dec.tensor_split(len(widths), dim=1))


def _every_layer(share: Tensor, living: Tensor, least: float) -> Tensor:
    return (share[living].amin(1) >= least).float().mean()


def _lives(
    W_dec, widths, scales, latents, least,
    cut=_cut, unit=torch.mul, size=lambda part: part.norm(dim=1), per=lambda x: x.sum(1, keepdim=True),
    dead=0.0, count=_every_layer, alive=lambda latents: (latents > 0).any(0),
) -> dict:  # fmt: skip
    """The right answer, with a part done differently."""
    parts = [unit(part, scale) for part, scale in zip(cut(W_dec, widths), scales, strict=True)]
    sizes = torch.stack([size(part) for part in parts], dim=1)
    share, living = sizes / per(sizes), alive(latents)
    return {
        "share": torch.where(living[:, None], share, share * dead),
        "shared": count(share, living, least),
    }


def _differently(**changes) -> Callable:
    return lambda *args: _lives(*args, **changes)


def _rows_add_up(answer, args, output) -> str | None:
    living = (args["latents"] > 0).any(0)
    total = output["share"].sum(1)
    if not agree(total[living], torch.ones(int(living.sum()))):
        return f"Your row {int(living.nonzero()[0])} adds up to {float(total[living][0]):.3g}."
    return None


LIVES = Exercise(
    number="7.13",
    name="where_they_live",
    returns='dict with "share" (Float[Tensor, "d_sae layers"]) and "shared" (float)',
    draw=draw_crosscoder,
    reference=where_they_live,
    wrong=(
        Wrong(
            "in the model's units",
            _differently(unit=lambda part, scale: part),
            "You measured the directions in the units of the model. The later layer's activations are "
            "longer, so nearly every latent seems to live there. Multiply each layer's part by its *own* scale "
            "first.",
        ),
        Wrong(
            "scaled the wrong way",
            _differently(unit=torch.div),
            "You divided by the scales. `W_dec` is in the units of the activations, and the activations were "
            "*multiplied* by them: so multiply.",
        ),
        Wrong(
            "squared",
            _differently(size=lambda part: part.square().sum(1)),
            "You took squared lengths. They push everything to the ends: a direction of twice the length "
            "would count four times. Take the root, `part.norm(dim=1)`.",
        ),
        Wrong(
            "sum of sizes",
            _differently(size=lambda part: part.abs().sum(1)),
            "You added up the sizes of the entries. That grows with the number of dimensions, and depends "
            "on the axes: turn the space, and it changes. A length does not.",
        ),
        Wrong(
            "equal parts",
            _differently(cut=_in_equal_parts),
            "You cut the rows into parts of equal width. Layers need not be equally wide: `widths` says "
            "how many columns each has, `W_dec.split(widths, dim=1)`.",
        ),
        Wrong(
            "over the latents",
            _differently(per=lambda x: x.sum(0, keepdim=True)),
            "Your columns add up to 1, and your rows do not. Where does *this latent* live: divide by the "
            "sum over its layers.",
        ),
        Wrong(
            "of the longest",
            _differently(per=lambda x: x.amax(1, keepdim=True)),
            "You divided by the longest part. A share is of the whole: divide by the sum of all parts.",
        ),
        Wrong(
            "dead ones live",
            _differently(dead=1.0),
            "You gave latents that are never active a place to live. Their directions are what training "
            "began with, and say nothing of the model. Their row is 0.",
        ),
        Wrong(
            "dead ones counted",
            _differently(
                count=lambda share, living, least: ((share.amin(1) >= least) & living).float().mean()
            ),
            "You divided by the number of all latents. Of a dead one nobody can say whether it is shared: "
            "divide by the number of those that are active somewhere.",
        ),
        Wrong(
            "dead ones shared",
            _differently(count=lambda share, living, least: (share.amin(1) >= least).float().mean()),
            "Your `shared` counts latents that are never active. Their directions are random, about "
            "equally long in all layers, and so they look shared. Leave them out.",
        ),
        Wrong(
            "any layer",
            _differently(count=lambda share, living, least: (share[living].amax(1) >= least).float().mean()),
            "You ask for *one* layer with at least `least`, and there is always one. Shared is what has so "
            "much in every layer: look at the smallest share.",
        ),
        Wrong(
            "active everywhere",
            _differently(alive=lambda latents: (latents > 0).all(0)),
            "You ask for latents that are active on *every* token, and there are none. Alive is what is active on any: "
            "`(latents > 0).any(0)`.",
        ),
        Wrong(
            "entries counted",
            _differently(count=lambda share, living, least: (share[living] >= least).float().mean()),
            "You counted entries, latent by layer. Count latents: one is shared if *all* of its layers have at least "
            "`least`.",
        ),
        Wrong(
            "those that are not",
            _differently(count=lambda share, living, least: 1 - _every_layer(share, living, least)),
            "Yours is the share that is *not* shared. Those with at least `least` in every layer are asked for.",
        ),
        Wrong(
            "a number of latents",
            _differently(count=lambda share, living, least: (share[living].amin(1) >= least).float().sum()),
            "Your `shared` is how many latents there are. Asked for is their share among those that are "
            "alive.",
        ),
    ),
    properties=(Property("The row of a living latent adds up to 1.", _rows_add_up),),
    look_at="`W_dec.split(widths, dim=1)` gives one [d_sae, width] for each layer; `zip` it with `scales`.",
    saw="where each latent lives, read from weights alone. The scales decide a good part of it, so say which "
    "you took.",
)

EXERCISES = (PARTNERS, LIVES)
