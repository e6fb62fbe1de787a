"""Exercises 1.5 to 1.8: encode by hand, L0, explained variance, the strongest latents of a token."""

from __future__ import annotations

import torch
from torch import Tensor

from labs.checks.exercise import Exercise, Property, Wrong, normal, whole

# --- 1.5 ------------------------------------------------------------


def draw_sae(generator) -> dict:
    """Activations of two or three axes and an SAE with biases that matter; k is None half of the time."""
    d_in, d_sae = whole(generator, 4, 8), whole(generator, 16, 30)
    lead = (
        (whole(generator, 2, 4), whole(generator, 3, 6))
        if whole(generator, 0, 3)
        else (whole(generator, 3, 7),)
    )
    return {
        "acts": normal(generator, *lead, d_in) + 0.5,
        "W_enc": normal(generator, d_in, d_sae),
        "b_enc": normal(generator, d_sae) - 0.5,
        "b_dec": normal(generator, d_in),
        "k": (None, 3, None, d_sae - 2)[whole(generator, 0, 3)],
    }


def sae_encode(acts: Tensor, W_enc: Tensor, b_enc: Tensor, b_dec: Tensor, k: int | None = None) -> Tensor:
    features = ((acts - b_dec) @ W_enc + b_enc).relu()
    return features if k is None else keep_top(features, k)


def keep_top(values: Tensor, k: int, by: Tensor | None = None) -> Tensor:
    """Keep the k entries of the last axis where `by` (the values themselves unless told) is largest."""
    places = (values if by is None else by).topk(min(k, values.shape[-1]), dim=-1).indices
    return torch.zeros_like(values).scatter(-1, places, values.gather(-1, places))


def _from(pre: Tensor, k: int | None) -> Tensor:
    return pre.relu() if k is None else keep_top(pre.relu(), k)


def _relu_before_bias(acts, W_enc, b_enc, b_dec, k):
    features = ((acts - b_dec) @ W_enc).relu() + b_enc
    return features if k is None else keep_top(features, k)


def _whole_batch(acts, W_enc, b_enc, b_dec, k):
    features = sae_encode(acts, W_enc, b_enc, b_dec)
    if k is None:
        return features
    rows = features.flatten(0, -2)
    return keep_top(rows.flatten(), k * len(rows)).view_as(features)


def _no_relu(acts, W_enc, b_enc, b_dec, k):
    pre = (acts - b_dec) @ W_enc + b_enc
    return pre if k is None else keep_top(pre, k)


def _relu_only_without_k(acts, W_enc, b_enc, b_dec, k):
    pre = (acts - b_dec) @ W_enc + b_enc
    return pre.relu() if k is None else keep_top(pre, k)


def _by_size(acts, W_enc, b_enc, b_dec, k):
    pre = (acts - b_dec) @ W_enc + b_enc
    return pre.relu() if k is None else keep_top(pre, k, by=pre.abs()).relu()


def _averaged(acts, W_enc, b_enc, b_dec, k):
    return sae_encode(acts.mean(-2), W_enc, b_enc, b_dec, k)


def _never_negative(answer, args, output) -> str | None:
    return None if (output >= 0).all() else f"The smallest of yours is {output.min().item():.3g}."


def _at_most_k(answer, args, output) -> str | None:
    if args["k"] is None:
        return None
    most = int((output > 0).sum(-1).max())
    return None if most <= args["k"] else f"With k = {args['k']} one of your tokens has {most}."


ENCODE = Exercise(
    number="1.5",
    name="sae_encode",
    returns='Float[Tensor, "... d_sae"]',
    draw=draw_sae,
    reference=sae_encode,
    wrong=(
        Wrong(
            "b_dec left out",
            lambda acts, W_enc, b_enc, b_dec, k: _from(acts @ W_enc + b_enc, k),
            "You encoded without subtracting `b_dec`. The decoder adds `b_dec` to every reconstruction, so "
            "the encoder reads what is left without it: `acts - b_dec`.",
        ),
        Wrong(
            "b_dec added",
            lambda acts, W_enc, b_enc, b_dec, k: _from((acts + b_dec) @ W_enc + b_enc, k),
            "You added `b_dec`. Adding is the decoder's part; the encoder takes it away first: `acts - "
            "b_dec`.",
        ),
        Wrong(
            "b_enc left out",
            lambda acts, W_enc, b_enc, b_dec, k: _from((acts - b_dec) @ W_enc, k),
            "You left out `b_enc`. It sets how much evidence each latent wants before it fires.",
        ),
        Wrong(
            "ReLU before the bias",
            _relu_before_bias,
            "You applied the ReLU before adding `b_enc`. The bias then shifts values that were already cut "
            "off: add it first, then cut.",
        ),
        Wrong(
            "no ReLU",
            _no_relu,
            "There is no ReLU: some of your latents are negative. A latent is off or on by some amount, "
            "never less than off.",
        ),
        Wrong(
            "no ReLU with k",
            _relu_only_without_k,
            "With k you keep the k largest and skip the ReLU. If fewer than k pre-activations are positive,"
            " negative ones get in. Apply the ReLU there too.",
        ),
        Wrong(
            "k ignored",
            lambda acts, W_enc, b_enc, b_dec, k: sae_encode(acts, W_enc, b_enc, b_dec, None),
            "You never used `k`. A TopK SAE keeps, for each token, the k largest and sets the others to "
            "zero.",
        ),
        Wrong(
            "k over the whole batch",
            _whole_batch,
            "You kept the largest of the whole batch, k a token on average. That is another kind of SAE "
            "(BatchTopK). Here each token keeps its own k: `topk(k, dim=-1)`.",
        ),
        Wrong(
            "largest by size",
            _by_size,
            "You chose the k largest by absolute value, so strongly negative ones took places and were then"
            " cut to zero. Apply the ReLU first, then choose.",
        ),
        Wrong(
            "averaged first",
            _averaged,
            "You averaged the tokens before encoding. An SAE reads one token at a time: the encoding of a "
            "mean is not the mean of the encodings.",
        ),
        Wrong(
            "only the k values",
            lambda acts, W_enc, b_enc, b_dec, k: (
                sae_encode(acts, W_enc, b_enc, b_dec)
                if k is None
                else sae_encode(acts, W_enc, b_enc, b_dec).topk(k, dim=-1).values
            ),
            "With k you return the k values alone, so nobody knows which latents they belong to. Put them "
            "back in their places in a tensor of zeros: `torch.zeros_like(features).scatter(-1, indices, "
            "values)`.",
        ),
    ),
    properties=(
        Property("No latent may be negative.", _never_negative),
        Property("With k, at most k latents of a token may be active.", _at_most_k),
    ),
    look_at="the shapes: `acts` is [..., d_in], `W_enc` is [d_in, d_sae]. Print both just before this line.",
    saw="an SAE's encoder is one subtraction, one matrix, one bias and one cut. There is no more to it.",
    cases=8,
)

# --- 1.6 ------------------------------------------------------------


def draw_features(generator) -> dict:
    """Sparse features, with half of the latents blazing at BOS and padding."""
    batch, pos, d_sae = whole(generator, 2, 4), whole(generator, 5, 9), whole(generator, 12, 30)
    features = normal(generator, batch, pos, d_sae).relu()
    features = features * (torch.rand(features.shape, generator=generator) < 0.4)
    keep = torch.arange(pos) < torch.randint(3, pos, (batch,), generator=generator)[:, None]
    keep[:, 0] = False
    features[~keep] += 2 * (torch.arange(d_sae) % 2)
    return {"features": features, "keep": keep}


def mean_l0(features: Tensor, keep: Tensor) -> float:
    return (features[keep] > 0).sum(-1).float().mean().item()


L0 = Exercise(
    number="1.6",
    name="mean_l0",
    returns="float",
    draw=draw_features,
    reference=mean_l0,
    wrong=(
        Wrong(
            "averaged, then counted",
            lambda features, keep: (features[keep].mean(0) > 0).sum(),
            "You averaged over the tokens and then counted. A latent that fires once anywhere makes the "
            "mean positive, so this counts every latent that was ever active. Count for each token, then "
            "average the counts.",
        ),
        Wrong(
            "averaged by sentence, then counted",
            lambda features, keep: (features.mean(1) > 0).sum(-1).float().mean(),
            "You averaged over the tokens of each sentence and then counted. That counts the latents that "
            "any token used, BOS and padding included. Count for each token first.",
        ),
        Wrong(
            "every position",
            lambda features, keep: (features > 0).sum(-1).float().mean(),
            "You counted at every position. BOS and padding are in the mean; `features[keep]` leaves them "
            "out.",
        ),
        Wrong(
            "summed over tokens",
            lambda features, keep: (features[keep] > 0).sum(),
            "You counted active entries over all tokens together. L0 is a count *for a token*: sum over the"
            " last axis, then average over the tokens.",
        ),
        Wrong(
            "a share",
            lambda features, keep: (features[keep] > 0).float().mean(),
            "That is the share of latents that are active. L0 is how many: `.sum(-1)` over the latents, "
            "then the mean over tokens.",
        ),
        Wrong(
            "L1",
            lambda features, keep: features[keep].sum(-1).mean(),
            "You added the strengths: that is the L1 norm. L0 only asks whether a latent is on: `features >"
            " 0`.",
        ),
        Wrong(
            "not above zero",
            lambda features, keep: (features[keep] >= 0).sum(-1).float().mean(),
            "You counted zeros as active: `>= 0` is true for every latent. Active means above zero.",
        ),
        Wrong(
            "latents' counts",
            lambda features, keep: (features[keep] > 0).sum(0).float().mean(),
            "You summed along the tokens, so you have how often each latent fires. L0 sums along the "
            "latents: the last axis.",
        ),
    ),
    look_at="`features[keep]` has shape [n_tokens, d_sae]; latents lie along the last axis.",
    saw="L0 is a number per token. Any average must come after the counting.",
)

# --- 1.7 ------------------------------------------------------------


def draw_reconstruction(generator) -> dict:
    """Vectors far from the origin, dimensions of unequal spread, a reconstruction with noise and an offset."""
    n, d = whole(generator, 8, 30), whole(generator, 4, 9)
    x = normal(generator, n, d) * (torch.arange(d) + 0.5) + 4 * normal(generator, d) + 2
    noise = (0.3, 0.7, 1.5)[whole(generator, 0, 2)]
    return {"x": x, "x_hat": x + noise * normal(generator, n, d) + 0.4}


def explained_variance(x: Tensor, x_hat: Tensor) -> float:
    residual = (x - x_hat).pow(2).sum()
    total = (x - x.mean(0)).pow(2).sum()
    return (1 - residual / total).item()


def _ev(residual: Tensor, total: Tensor) -> Tensor:
    return 1 - residual.pow(2).sum() / total.pow(2).sum()


def _mean_scores_zero(answer, args, output) -> str | None:
    score = float(answer(args["x"], args["x"].mean(0).expand_as(args["x"]).clone()))
    return None if abs(score) < 1e-3 else f"Yours gives it {score:.3f}."


def _perfect_scores_one(answer, args, output) -> str | None:
    score = float(answer(args["x"], args["x"].clone()))
    return None if abs(score - 1) < 1e-3 else f"Yours gives it {score:.3f}."


def _offset_costs(answer, args, output) -> str | None:
    score = float(answer(args["x"], args["x"] + 3))
    return None if score < 0.999 else f"Yours gives it {score:.3f}."


EXPLAINED_VARIANCE = Exercise(
    number="1.7",
    name="explained_variance",
    returns="float",
    draw=draw_reconstruction,
    reference=explained_variance,
    wrong=(
        Wrong(
            "around zero",
            lambda x, x_hat: _ev(x - x_hat, x),
            "You measured the variance around zero instead of around the mean. Activations lie far from "
            "zero, so even predicting the mean everywhere would score high; it explains nothing and must "
            "score 0. Use `x - x.mean(0)`.",
        ),
        Wrong(
            "mean of each token",
            lambda x, x_hat: _ev(x - x_hat, x - x.mean(-1, keepdim=True)),
            "You subtracted each token's own mean over its dimensions. The baseline is the mean *token*: "
            "average over the first axis, `x.mean(0)`.",
        ),
        Wrong(
            "one mean for all",
            lambda x, x_hat: _ev(x - x_hat, x - x.mean()),
            "You subtracted one number, the mean of all entries. The baseline is a vector: the mean of each"
            " dimension over the tokens, `x.mean(0)`.",
        ),
        Wrong(
            "unexplained",
            lambda x, x_hat: 1 - explained_variance(x, x_hat),
            "That is the share of variance that is *not* explained. Take it from 1.",
        ),
        Wrong(
            "offset forgiven",
            lambda x, x_hat: 1 - (x - x_hat).var(0, correction=0).sum() / x.var(0, correction=0).sum(),
            "You took the *variance* of the error, which forgives a constant offset. A reconstruction that "
            "is off by the same vector everywhere is still off. Use the squared error itself.",
        ),
        Wrong(
            "dimensions averaged",
            lambda x, x_hat: (1 - (x - x_hat).pow(2).sum(0) / (x - x.mean(0)).pow(2).sum(0)).mean(),
            "You computed a score for each dimension and averaged them. A dimension that hardly varies then"
            " counts as much as one that varies a lot. Sum the squares over everything first, then divide "
            "once.",
        ),
        Wrong(
            "no squares",
            lambda x, x_hat: 1 - (x - x_hat).norm() / (x - x.mean(0)).norm(),
            "You compared norms. Variance is made of squares: square both norms, or leave out the root.",
        ),
        Wrong(
            "variance of the reconstruction",
            lambda x, x_hat: (x_hat - x_hat.mean(0)).pow(2).sum() / (x - x.mean(0)).pow(2).sum(),
            "You divided the reconstruction's variance by the original's. Noise has variance too. What "
            "counts is the error `x - x_hat`.",
        ),
    ),
    properties=(
        Property("Predicting the mean everywhere must score 0.", _mean_scores_zero),
        Property("A perfect reconstruction must score 1.", _perfect_scores_one),
        Property("A constant offset is an error and must cost something.", _offset_costs),
    ),
    look_at="the axes: `x.mean(0)` averages over tokens and has shape [d].",
    saw="0 is what the mean earns, 1 is perfect, and below 0 is worse than knowing nothing: a loud alarm.",
)

# --- 1.8 ------------------------------------------------------------


def draw_top(generator) -> dict:
    """Features of one sentence; at the position asked for, sometimes fewer than k latents are active."""
    pos, d_sae = whole(generator, 5, 9), whole(generator, 12, 30)
    features = (normal(generator, pos, d_sae).relu() + 0.1) * (
        torch.rand(pos, d_sae, generator=generator) < 0.4
    )
    position, k = whole(generator, 1, pos - 2), whole(generator, 2, 6)
    features[position, :3] = torch.tensor([1.5, 0.8, 1.1])
    if whole(generator, 0, 1):
        features[position, 3:] = 0
        k = 5
    return {"features": features, "position": position, "k": k}


def top_features(features: Tensor, position: int, k: int) -> list[tuple[int, float]]:
    values, indices = features[position].topk(min(k, features.shape[-1]))
    return [(i, v) for i, v in zip(indices.tolist(), values.tolist(), strict=True) if v > 0]


def _pairs(row: Tensor, k: int, largest: bool = True) -> list[tuple[int, float]]:
    values, indices = row.topk(min(k, len(row)), largest=largest)
    return list(zip(indices.tolist(), values.tolist(), strict=True))


TOP = Exercise(
    number="1.8",
    name="top_features",
    returns="list[tuple[int, float]]",
    draw=draw_top,
    reference=top_features,
    wrong=(
        Wrong(
            "silent latents listed",
            lambda features, position, k: _pairs(features[position], k),
            "Your list is padded with latents of strength 0. They are off: which of them come first is "
            "chance. List only the active ones, even if there are fewer than k.",
        ),
        Wrong(
            "weakest first",
            lambda features, position, k: top_features(features, position, k)[::-1],
            "The latents are right and the order is not: the strongest comes first.",
        ),
        Wrong(
            "averaged over the sentence",
            lambda features, position, k: [(i, v) for i, v in _pairs(features.mean(0), k) if v > 0],
            "You averaged over the sentence. The question is about one token: `features[position]`.",
        ),
        Wrong(
            "strongest anywhere",
            lambda features, position, k: [(i, v) for i, v in _pairs(features.max(0).values, k) if v > 0],
            "You took each latent's strongest moment in the sentence. The question is about one token: "
            "`features[position]`.",
        ),
        Wrong(
            "position shifted down",
            lambda features, position, k: top_features(features, position - 1, k),
            "That is the token before the one asked for. `position` already counts BOS.",
        ),
        Wrong(
            "position shifted up",
            lambda features, position, k: top_features(features, position + 1, k),
            "That is the token after the one asked for. `position` already counts BOS.",
        ),
        Wrong(
            "swapped",
            lambda features, position, k: [(v, i) for i, v in top_features(features, position, k)],
            "Each pair is the wrong way round: first the latent's number, then its strength.",
        ),
        Wrong(
            "all active ones",
            lambda features, position, k: top_features(features, position, features.shape[-1]),
            "You listed every active latent. At most k are asked for.",
        ),
    ),
    look_at="`topk` gives values and indices, in that order, and refuses a k larger than the axis.",
    saw="a token's short list of active latents: this is what an SAE offers to be read.",
    cases=8,
)

EXERCISES = (ENCODE, L0, EXPLAINED_VARIANCE, TOP)
