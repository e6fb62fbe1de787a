"""Exercises 3.11 to 3.14: what a latent says, its neighbours, a sparse index, and who fires together."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from labs.checks.exercise import Exercise, Property, Wrong, normal, whole

# --- 3.11 -----------------------------------------------------------


def draw_unembedding(generator) -> dict:
    """A direction, an unembedding that raises every logit a little, and a gain of very unequal entries."""
    d_model, d_vocab = whole(generator, 5, 12), whole(generator, 20, 40)
    return {
        "direction": normal(generator, d_model) + 0.6,
        "W_U": normal(generator, d_model, d_vocab) + normal(generator, d_model, 1),
        "gain": 0.3 + 2 * torch.rand(d_model, generator=generator),
        "layer_norm": bool(whole(generator, 0, 1)),
    }


def logit_effect(direction: Tensor, W_U: Tensor, gain: Tensor, layer_norm: bool) -> Tensor:
    return _centred(((_centred(direction) if layer_norm else direction) * gain) @ W_U)


def _centred(values: Tensor) -> Tensor:
    return values - values.mean()


def _mean_is_zero(answer, args, output) -> str | None:
    mean = float(output.mean())
    return None if abs(mean) < 1e-3 else f"The mean of yours is {mean:.3g}."


def _constant_logits_do_not_matter(answer, args, output) -> str | None:
    shifted = answer(args["direction"], args["W_U"] + 5, args["gain"], args["layer_norm"])
    gap = float((shifted - output).abs().max())
    return None if gap < 1e-3 else f"Yours moves by {gap:.3g} if every column of `W_U` is shifted alike."


LOGITS = Exercise(
    number="3.11",
    name="logit_effect",
    returns='Float[Tensor, "d_vocab"]',
    draw=draw_unembedding,
    reference=logit_effect,
    wrong=(
        Wrong(
            "gain left out",
            lambda direction, W_U, gain, layer_norm: _centred(
                (_centred(direction) if layer_norm else direction) @ W_U
            ),
            "You left out `gain`. The last normalisation multiplies every dimension by its gain before the "
            "unembedding sees it, and those gains are far from equal.",
        ),
        Wrong(
            "logits not centred",
            lambda direction, W_U, gain, layer_norm: (
                ((_centred(direction) if layer_norm else direction) * gain) @ W_U
            ),
            "You did not take off the mean over the vocabulary. Raising all logits alike changes no "
            "prediction, so that part says nothing. Worse, it can make every token look promoted.",
        ),
        Wrong(
            "direction not centred",
            lambda direction, W_U, gain, layer_norm: _centred((direction * gain) @ W_U),
            "With `layer_norm` the last normalisation takes the mean over the dimensions away before "
            "anything else, and you did not. Only RMSNorm, `layer_norm=False`, leaves it there.",
        ),
        Wrong(
            "always centred",
            lambda direction, W_U, gain, layer_norm: logit_effect(direction, W_U, gain, True),
            "You take the direction's mean off in any case. Only LayerNorm does; RMSNorm "
            "(`layer_norm=False`) leaves it there.",
        ),
        Wrong(
            "gain before centring",
            lambda direction, W_U, gain, layer_norm: _centred(
                (_centred(direction * gain) if layer_norm else direction * gain) @ W_U
            ),
            "You multiplied by `gain` first and took the mean off afterwards. LayerNorm works the other "
            "way round: mean off, then gain.",
        ),
        Wrong(
            "divided by the gain",
            lambda direction, W_U, gain, layer_norm: _centred(
                ((_centred(direction) if layer_norm else direction) / gain) @ W_U
            ),
            "You divided by the gain. The normalisation multiplies by it.",
        ),
        Wrong(
            "unit length",
            lambda direction, W_U, gain, layer_norm: logit_effect(
                direction / direction.norm(), W_U, gain, layer_norm
            ),
            "You scaled the direction to length 1. The ranking is the same, the size is not: the effect of "
            "one unit of activation is asked for, so take the direction as it is.",
        ),
        Wrong(
            "probabilities",
            lambda direction, W_U, gain, layer_norm: logit_effect(direction, W_U, gain, layer_norm).softmax(
                -1
            ),
            "You took a softmax. These are changes of logits, to be added to others; they are no "
            "prediction by themselves.",
        ),
        Wrong(
            "sign lost",
            lambda direction, W_U, gain, layer_norm: logit_effect(direction, W_U, gain, layer_norm).abs(),
            "You took absolute values, so promoted and suppressed tokens look alike. Keep the sign.",
        ),
    ),
    properties=(
        Property("The effects must have mean 0 over the vocabulary.", _mean_is_zero),
        Property("The same shift of all logits must change nothing.", _constant_logits_do_not_matter),
    ),
    look_at="the shapes: `direction` and `gain` are [d_model], `W_U` is [d_model, d_vocab].",
    saw="what a latent writes, read directly. It is the short way only: later layers may make something "
    "else of it.",
    cases=8,
)

# --- 3.12 -----------------------------------------------------------


def draw_decoder(generator) -> dict:
    """Decoder rows of very unequal length, with a near twin and a near opposite of the latent asked for."""
    d_sae, d_in = whole(generator, 12, 30), whole(generator, 4, 9)
    rows = normal(generator, d_sae, d_in)
    rows[1] = rows[0] + 0.3 * normal(generator, d_in)
    rows[2] = -rows[0] + 0.2 * normal(generator, d_in)
    rows = normalize(rows, dim=1) * torch.empty(d_sae, 1).exponential_(0.7, generator=generator).add(0.2)
    order = torch.randperm(d_sae, generator=generator)
    latent = int((order == 0).nonzero())
    return {"W_dec": rows[order], "latent": latent, "k": whole(generator, 2, 5)}


def nearest(W_dec: Tensor, latent: int, k: int) -> list[tuple[int, float]]:
    return _closest(normalize(W_dec, dim=1) @ normalize(W_dec[latent], dim=0), latent, k)


def _closest(scores: Tensor, latent: int | None, k: int, largest: bool = True) -> list[tuple[int, float]]:
    """The k best, `latent` itself left out."""
    order = scores.argsort(descending=largest).tolist()
    return [(i, float(scores[i])) for i in order if i != latent][:k]


def _cosines(W_dec: Tensor, latent: int) -> Tensor:
    return normalize(W_dec, dim=1) @ normalize(W_dec[latent], dim=0)


def _no_length(answer, args, output) -> str | None:
    scaled = args["W_dec"] * torch.linspace(0.5, 4, len(args["W_dec"]))[:, None]
    found = answer(scaled, args["latent"], args["k"])
    if [i for i, _ in found] == [i for i, _ in output]:
        return None
    return f"With rows of other lengths yours finds {[i for i, _ in found]}, not {[i for i, _ in output]}."


NEAREST = Exercise(
    number="3.12",
    name="nearest",
    returns="list[tuple[int, float]]",
    draw=draw_decoder,
    reference=nearest,
    wrong=(
        Wrong(
            "itself",
            lambda W_dec, latent, k: _closest(_cosines(W_dec, latent), None, k),
            "Your first neighbour is the latent itself, with cosine 1. Leave it out before you take the k "
            "best.",
        ),
        Wrong(
            "one too few",
            lambda W_dec, latent, k: _closest(_cosines(W_dec, latent), latent, k - 1),
            "One neighbour is missing: you took k and then dropped the latent itself. Take one more, or "
            "leave it out first.",
        ),
        Wrong(
            "dot product",
            lambda W_dec, latent, k: _closest(W_dec @ W_dec[latent], latent, k),
            "These are dot products. A long row then is everybody's neighbour. Divide each row by its "
            "length first.",
        ),
        Wrong(
            "only one side normalised",
            lambda W_dec, latent, k: _closest(normalize(W_dec, dim=1) @ W_dec[latent], latent, k),
            "The order is right, and the numbers are no cosines: you normalised the rows and not the "
            "latent's own direction. A cosine is at most 1.",
        ),
        Wrong(
            "other side normalised",
            lambda W_dec, latent, k: _closest(W_dec @ normalize(W_dec[latent], dim=0), latent, k),
            "You normalised the latent's own direction and not the rows it is compared with, so long rows "
            "win.",
        ),
        Wrong(
            "either way",
            lambda W_dec, latent, k: _closest(_cosines(W_dec, latent).abs(), latent, k),
            "You took absolute values. A direction that points the *opposite* way is no neighbour: it "
            "writes the opposite.",
        ),
        Wrong(
            "farthest",
            lambda W_dec, latent, k: _closest(_cosines(W_dec, latent), latent, k, largest=False),
            "You list the latents that point away the most. The nearest have the *largest* cosine.",
        ),
        Wrong(
            "columns normalised",
            lambda W_dec, latent, k: _closest(
                normalize(W_dec, dim=0) @ normalize(W_dec, dim=0)[latent], latent, k
            ),
            "You divided the columns by their lengths. A latent's direction is a *row* of `W_dec`: `dim=1`.",
        ),
        Wrong(
            "distance",
            lambda W_dec, latent, k: _closest((W_dec - W_dec[latent]).norm(dim=1), latent, k, largest=False),
            "You compared distances. Two rows that point the same way and differ in length are far apart "
            "by that measure. Only the direction counts: use the cosine.",
        ),
    ),
    properties=(Property("The length of a row must not matter.", _no_length),),
    look_at="the shapes: `W_dec` is [d_sae, d_in], one row a latent; `W_dec[latent]` is [d_in].",
    saw="neighbours by direction: latents that write nearly the same. Some are shades of one idea, some "
    "are one latent split in two.",
)

# --- 3.13 -----------------------------------------------------------


def draw_index(generator) -> dict:
    """A sparse index by latent: some latents dead, among them sometimes the one asked for."""
    d_sae, n_tokens = whole(generator, 8, 14), whole(generator, 20, 40)
    dense = normal(generator, d_sae, n_tokens).abs() + 0.1
    dense = dense * (torch.rand(d_sae, n_tokens, generator=generator) < 0.3)
    dense[d_sae // 2] = 0
    latent, tokens = dense.nonzero().T  # ordered by latent, then by token
    starts = torch.zeros(d_sae + 1, dtype=torch.long)
    starts[1:] = (dense > 0).sum(1).cumsum(0)
    asked = whole(generator, 1, d_sae - 2) if whole(generator, 0, 3) else d_sae // 2
    return {
        "starts": starts,
        "tokens": tokens.clone(),
        "values": dense[latent, tokens],
        "latent": asked,
        "n_tokens": n_tokens,
    }


def strengths_of(starts: Tensor, tokens: Tensor, values: Tensor, latent: int, n_tokens: int) -> Tensor:
    return _filled(tokens, values, int(starts[latent]), int(starts[latent + 1]), n_tokens)


def _filled(tokens: Tensor, values: Tensor, start: int, stop: int, n_tokens: int) -> Tensor:
    strengths = torch.zeros(n_tokens)
    strengths[tokens[start:stop]] = values[start:stop]
    return strengths


def _packed(starts, tokens, values, latent, n_tokens):
    mine = values[starts[latent] : starts[latent + 1]]
    return torch.cat([mine, torch.zeros(n_tokens - len(mine))])


INDEX = Exercise(
    number="3.13",
    name="strengths_of",
    returns='Float[Tensor, "n_tokens"]',
    draw=draw_index,
    reference=strengths_of,
    wrong=(
        Wrong(
            "next latent",
            lambda starts, tokens, values, latent, n_tokens: strengths_of(
                starts, tokens, values, latent + 1, n_tokens
            ),
            "That is the next latent. Latent j begins at `starts[j]` and ends before `starts[j + 1]`: "
            "`starts[0]` is 0.",
        ),
        Wrong(
            "latent before",
            lambda starts, tokens, values, latent, n_tokens: strengths_of(
                starts, tokens, values, latent - 1, n_tokens
            ),
            "That is the latent before. Latent j begins at `starts[j]` and ends before `starts[j + 1]`.",
        ),
        Wrong(
            "last one lost",
            lambda starts, tokens, values, latent, n_tokens: _filled(
                tokens, values, int(starts[latent]), max(int(starts[latent + 1]) - 1, 0), n_tokens
            ),
            "The latent's last token is missing. `starts[latent + 1]` is already one past the end, as "
            "Python's slices want it: subtract nothing.",
        ),
        Wrong(
            "first one lost",
            lambda starts, tokens, values, latent, n_tokens: _filled(
                tokens, values, int(starts[latent]) + 1, int(starts[latent + 1]), n_tokens
            ),
            "The latent's first token is missing. `starts[latent]` itself is the first place.",
        ),
        Wrong(
            "packed to the front",
            _packed,
            "The strengths are right and stand in the wrong places: packed to the front. `tokens` says on "
            "which token each of them belongs.",
        ),
        Wrong(
            "values only",
            lambda starts, tokens, values, latent, n_tokens: values[starts[latent] : starts[latent + 1]],
            "You returned the stored strengths alone. One number for every token is asked for, 0 where the "
            "latent is silent: start from `torch.zeros(n_tokens)`.",
        ),
        Wrong(
            "on or off",
            lambda starts, tokens, values, latent, n_tokens: (
                strengths_of(starts, tokens, values, latent, n_tokens) > 0
            ).float(),
            "You marked the latent's tokens with 1. Put their strengths there: the same slice of `values`.",
        ),
        Wrong(
            "tokens as latents",
            lambda starts, tokens, values, latent, n_tokens: _by_token(
                starts, tokens, values, latent, n_tokens
            ),
            "You looked for `latent` among the *tokens*. The flat arrays are ordered by latent: `starts` "
            "says which stretch of them is whose, and `tokens` holds places in the text.",
        ),
    ),
    look_at="the slice `starts[latent]` to `starts[latent + 1]`: cut both `tokens` and `values` with it, "
    "and print them.",
    saw="a column of a huge sparse table, read with one slice. Nothing else was touched: that is why an "
    "index on disk answers at once.",
)


def _by_token(starts: Tensor, tokens: Tensor, values: Tensor, latent: int, n_tokens: int) -> Tensor:
    """The strengths of all latents on token number `latent`: the table read the other way."""
    owners = torch.repeat_interleave(torch.arange(len(starts) - 1), starts.diff())
    strengths = torch.zeros(n_tokens)
    strengths[owners[tokens == latent]] = values[tokens == latent]
    return strengths


# --- 3.14 -----------------------------------------------------------


def draw_companions(generator) -> dict:
    """For each latent the tokens on which it fires: one nearly everywhere, one almost alike, one never."""
    while True:  # until no two companions tie: their order would be chance
        n_latents, n_tokens = whole(generator, 8, 13), whole(generator, 60, 110)
        rates = 0.05 + 0.3 * torch.rand(n_latents, 1, generator=generator)
        rates[1] = 0.95  # dense: shares many tokens with everybody
        fires = torch.rand(n_latents, n_tokens, generator=generator) < rates
        fires[2] = fires[0] & (torch.rand(n_tokens, generator=generator) < 0.7)
        fires[3] = False
        fires[4] = ~fires[0] & fires[4]  # never with the latent
        fires[5] = fires[5] & fires[0] & (fires[0].cumsum(0) <= 3)  # a few tokens, all of them shared
        order = torch.randperm(n_latents, generator=generator)
        latent = int((order == 0).nonzero())
        found = [
            score for i, score in enumerate(_jaccards(fires[order], latent)) if i != latent and score > 0
        ]
        if fires[5].any() and len(set(found)) == len(found) >= 4:
            break
    tokens_of = [row.nonzero().flatten() for row in fires[order]]
    return {"tokens_of": tokens_of, "latent": latent, "k": whole(generator, 3, n_latents)}


def _jaccards(fires: Tensor, latent: int) -> list[float]:
    both, either = (fires & fires[latent]).sum(1), (fires | fires[latent]).sum(1)
    return (both / either.clamp(min=1)).tolist()


def companions(tokens_of: list[Tensor], latent: int, k: int) -> list[tuple[int, float]]:
    return _ranked(tokens_of, latent, k, lambda both, a, b: both / (a + b - both))


def _ranked(
    tokens_of, latent, k, score, itself: bool = False, strangers: bool = False
) -> list[tuple[int, float]]:
    """The k best others by a score of (tokens shared, tokens of the latent, tokens of the other)."""
    mine, found = set(tokens_of[latent].tolist()), []
    for other, tokens in enumerate(tokens_of):
        theirs = set(tokens.tolist())
        if other != latent or itself:
            found.append((other, score(len(mine & theirs), len(mine), len(theirs)) if theirs else 0.0))
    found.sort(key=lambda pair: -pair[1])
    return [pair for pair in found if pair[1] > 0 or strangers][:k]


def _mutual(answer, args, output) -> str | None:
    """Jaccard is symmetric: what A is to B, B is to A."""
    tokens_of, latent = args["tokens_of"], args["latent"]
    other, there = output[0]
    back = dict(map(tuple, answer(tokens_of, other, len(tokens_of)))).get(latent)
    if back is not None and abs(back - there) < 1e-4:
        return None
    return f"Yours gives latent {other} to {latent} {there:.3f}, and {latent} to {other} {back}."


COMPANIONS = Exercise(
    number="3.14",
    name="companions",
    returns="list[tuple[int, float]]",
    draw=draw_companions,
    reference=companions,
    wrong=(
        Wrong(
            "tokens shared",
            lambda tokens_of, latent, k: _ranked(tokens_of, latent, k, lambda both, a, b: float(both)),
            "You counted shared tokens. A latent that fires nearly everywhere shares many with everybody "
            "and comes first. Divide by the number of tokens on which either fires.",
        ),
        Wrong(
            "share of mine",
            lambda tokens_of, latent, k: _ranked(tokens_of, latent, k, lambda both, a, b: both / a),
            "You divided by the latent's own tokens. A latent that is always on then is a perfect "
            "companion. Jaccard divides by the tokens on which *either* fires.",
        ),
        Wrong(
            "share of theirs",
            lambda tokens_of, latent, k: _ranked(tokens_of, latent, k, lambda both, a, b: both / b),
            "You divided by the other latent's tokens. One that fired once, by luck at the right place, "
            "then scores 1. Jaccard divides by the tokens on which *either* fires.",
        ),
        Wrong(
            "overlap coefficient",
            lambda tokens_of, latent, k: _ranked(tokens_of, latent, k, lambda both, a, b: both / min(a, b)),
            "You divided by the smaller of the two sets: that is the overlap coefficient, and it is 1 "
            "whenever one set lies inside the other. Jaccard divides by the union.",
        ),
        Wrong(
            "Dice",
            lambda tokens_of, latent, k: _ranked(tokens_of, latent, k, lambda both, a, b: 2 * both / (a + b)),
            "That is the Dice coefficient. It ranks alike, and its numbers are larger. Jaccard divides the "
            "shared tokens by the union.",
        ),
        Wrong(
            "union counted twice",
            lambda tokens_of, latent, k: _ranked(tokens_of, latent, k, lambda both, a, b: both / (a + b)),
            "Your union is the sum of both sizes, so shared tokens are counted twice in it, and two equal "
            "latents score one half. Take the shared ones off once.",
        ),
        Wrong(
            "itself",
            lambda tokens_of, latent, k: _ranked(
                tokens_of, latent, k, lambda both, a, b: both / (a + b - both), itself=True
            ),
            "The first in your list is the latent itself. Of course it always fires with itself: leave it "
            "out.",
        ),
        Wrong(
            "strangers listed",
            lambda tokens_of, latent, k: _ranked(
                tokens_of, latent, len(tokens_of), lambda both, a, b: both / (a + b - both), strangers=True
            )[:k],
            "Your list is filled up with latents that never fire together with this one. Give fewer than k.",
        ),
    ),
    properties=(Property("Jaccard is mutual: both latents must see the same number.", _mutual),),
    look_at="the sets. `torch.isin(a, b).sum()` counts the tokens of a that are also in b; so do Python's "
    "sets.",
    saw="companions by what they do, not by where they point. Compare them with the neighbours by "
    "direction: the lists can be quite different.",
    cases=8,
)

EXERCISES = (LOGITS, NEAREST, INDEX, COMPANIONS)
