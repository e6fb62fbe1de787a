"""Exercises 3.1 and 3.2: error and angle of a reconstruction, and a census of latents in one pass."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from labs.checks.compare import agree, plain
from labs.checks.exercise import Exercise, Property, Wrong, normal, whole

# --- 3.1 ------------------------------------------------------------


def draw_reconstruction(generator) -> dict:
    """Vectors far from the origin and of unequal length, and a copy of them with noise and an offset."""
    n, d = whole(generator, 8, 30), whole(generator, 4, 9)
    x = normal(generator, n, d) * (torch.arange(d) + 0.5) + 3 * normal(generator, d) + 2
    x = x * (0.5 + 2 * torch.rand(n, 1, generator=generator))
    noise = (0.5, 1.0, 2.0)[whole(generator, 0, 2)]
    return {"x": x, "x_hat": 0.8 * x + noise * normal(generator, n, d) + 0.4}


def fvu_and_cosine(x: Tensor, x_hat: Tensor) -> dict[str, float]:
    return _scores(_fvu(x, x_hat), cosine_similarity(x, x_hat, dim=-1).mean())


def _fvu(x: Tensor, x_hat: Tensor) -> Tensor:
    return (x - x_hat).pow(2).sum() / (x - x.mean(0)).pow(2).sum()


def _scores(fvu: Tensor, cosine: Tensor) -> dict:
    return {"fvu": fvu, "cosine": cosine}


def _with_fvu(x: Tensor, x_hat: Tensor, fvu: Tensor) -> dict:
    return _scores(fvu, cosine_similarity(x, x_hat, dim=-1).mean())


def _with_cosine(x: Tensor, x_hat: Tensor, cosine: Tensor) -> dict:
    return _scores(_fvu(x, x_hat), cosine)


def _mean_scores_one(answer, args, output) -> str | None:
    x = args["x"]
    found = float(answer(x, x.mean(0).expand_as(x).clone())["fvu"])
    return None if abs(found - 1) < 1e-3 else f"Yours gives it {found:.3f}."


def _cosine_ignores_length(answer, args, output) -> str | None:
    found = float(answer(args["x"], args["x"] / 2)["cosine"])
    return None if abs(found - 1) < 1e-3 else f"Yours gives `x / 2` a cosine of {found:.3f}."


ERROR = Exercise(
    number="3.1",
    name="fvu_and_cosine",
    returns='dict with "fvu", "cosine"',
    draw=draw_reconstruction,
    reference=fvu_and_cosine,
    wrong=(
        Wrong(
            "around zero",
            lambda x, x_hat: _with_fvu(x, x_hat, (x - x_hat).pow(2).sum() / x.pow(2).sum()),
            "Your FVU divides by the squares around zero. Activations lie far from zero, so the "
            "denominator is huge and any copy looks good. The baseline is the mean token: `x - x.mean(0)`.",
        ),
        Wrong(
            "explained variance",
            lambda x, x_hat: _with_fvu(x, x_hat, 1 - _fvu(x, x_hat)),
            "That is explained variance, one minus what is asked for. FVU is the share that is *not* "
            "explained: 0 for a perfect copy.",
        ),
        Wrong(
            "offset forgiven",
            lambda x, x_hat: _with_fvu(
                x, x_hat, (x - x_hat).var(0, correction=0).sum() / x.var(0, correction=0).sum()
            ),
            "Your FVU uses the *variance* of the error, and that forgives a constant offset. A copy that "
            "is off by the same vector everywhere is still off: sum the squared error itself.",
        ),
        Wrong(
            "dimensions averaged",
            lambda x, x_hat: _with_fvu(
                x, x_hat, ((x - x_hat).pow(2).sum(0) / (x - x.mean(0)).pow(2).sum(0)).mean()
            ),
            "You computed an FVU for each dimension and averaged them, so a dimension that hardly varies "
            "counts as much as one that varies a lot. Sum over everything first, then divide once.",
        ),
        Wrong(
            "tokens averaged",
            lambda x, x_hat: _with_fvu(
                x, x_hat, ((x - x_hat).pow(2).sum(-1) / (x - x.mean(0)).pow(2).sum(-1)).mean()
            ),
            "You computed an FVU for each token and averaged them. A token that happens to lie near the "
            "mean then has a tiny denominator and decides everything. Sum over all tokens first, then "
            "divide once.",
        ),
        Wrong(
            "norms",
            lambda x, x_hat: _with_fvu(x, x_hat, _fvu(x, x_hat).sqrt()),
            "Your FVU is a ratio of norms. Variance is made of squares: leave out the root.",
        ),
        Wrong(
            "one cosine for all",
            lambda x, x_hat: _with_cosine(x, x_hat, cosine_similarity(x.flatten(), x_hat.flatten(), dim=0)),
            "Your cosine is one angle between the two whole tensors. Long tokens decide it. Take the "
            "cosine of each token (`dim=-1`), then the mean.",
        ),
        Wrong(
            "cosine of the means",
            lambda x, x_hat: _with_cosine(x, x_hat, cosine_similarity(x.mean(0), x_hat.mean(0), dim=0)),
            "Your cosine compares the mean token with the mean copy. Errors that cancel in a mean are "
            "errors all the same: one cosine for each token first, then the mean.",
        ),
        Wrong(
            "cosine along the tokens",
            lambda x, x_hat: _with_cosine(x, x_hat, cosine_similarity(x, x_hat, dim=0).mean()),
            "Your cosine runs along the tokens, so there is one for each dimension. A token's vector lies "
            "along the last axis: `dim=-1`.",
        ),
        Wrong(
            "centred cosine",
            lambda x, x_hat: _with_cosine(
                x, x_hat, cosine_similarity(x - x.mean(0), x_hat - x.mean(0), dim=-1).mean()
            ),
            "You took the mean off before the cosine. That is a stricter measure, worth knowing, and not "
            "the one the field reports: the plain cosine between token and copy.",
        ),
        Wrong(
            "not divided by the lengths",
            lambda x, x_hat: _with_cosine(x, x_hat, (x * x_hat).sum(-1).mean()),
            "That is the dot product. Divide it by the lengths of both vectors to get a cosine.",
        ),
    ),
    properties=(
        Property("Predicting the mean everywhere must give an FVU of exactly 1.", _mean_scores_one),
        Property("A cosine must not notice how long the copy is.", _cosine_ignores_length),
    ),
    look_at="the axes: tokens come first, so `x.mean(0)` is the mean token, and `dim=-1` runs along a "
    "vector.",
    saw="two views of one error. The cosine misses a copy that is too short; FVU does not, and it knows a "
    "baseline.",
)

# --- 3.2 ------------------------------------------------------------


class Watched(Tensor):
    """A batch that remembers what was made of it, as long as that has a row for every token."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        made = super().__torch_function__(function, types, args, kwargs)
        batch = next((a for a in args if isinstance(a, Watched) and hasattr(a, "family")), None)
        if batch is not None and isinstance(made, Watched) and made.shape == batch.shape:
            made.family = batch.family
            batch.family.append(weakref.ref(made))
        return made


class Stream:
    """Batches that can be gone through once, as from a store on disk. It notes how many are kept in memory."""

    def __init__(self, parts: list[Tensor], watch: bool = False):
        self.parts, self.watch, self.read, self.most_alive = parts, watch, False, 0

    def __iter__(self) -> Iterator[Tensor]:
        if self.read:
            raise RuntimeError("these batches can be gone through once only, like a stream from disk")
        self.read = True
        return self._stream()

    def _stream(self) -> Iterator[Tensor]:
        families: list[list[weakref.ref]] = []
        for part in self.parts:
            batch = part.clone()
            if self.watch:
                batch = batch.as_subclass(Watched)
                batch.family = [weakref.ref(batch)]
                families.append(batch.family)
            yield batch
            del batch
            alive = [any(ref() is not None for ref in family) for family in families]
            self.most_alive = max(self.most_alive, sum(alive))


def draw_batches(generator) -> dict:
    """Batches of very unequal size, the last one small; latents that are dead, rare, and nearly always on."""
    d_sae, sizes = whole(generator, 12, 30), [whole(generator, 8, 14) for _ in range(whole(generator, 2, 4))]
    rates = torch.rand(d_sae, generator=generator) * 0.4
    rates[: whole(generator, 2, 4)] = 0  # dead
    rates[-3:] = torch.tensor([0.97, 0.95, 0.9])  # dense
    parts = []
    for size in [*sizes, 2]:
        on = torch.rand(size, d_sae, generator=generator) < rates
        parts.append((normal(generator, size, d_sae).abs() + 0.1) * on * 2)
    parts[0][:, -4] = 0
    parts[0][0, -4], parts[-1][:, -4] = 50.0, 0  # rare and very strong
    return {"batches": Stream(parts), "d_sae": d_sae, "dense_above": (0.5, 0.6, 0.7)[whole(generator, 0, 2)]}


def latent_census(batches: Stream, d_sae: int, dense_above: float) -> dict:
    active, n_tokens = torch.zeros(d_sae), 0
    for features in batches:
        active += (features > 0).sum(0)
        n_tokens += len(features)
    return _census(active / n_tokens, dense_above)


def _census(density: Tensor, dense_above: float) -> dict:
    return {
        "density": density,
        "dead": int((density == 0).sum()),
        "dense": int((density > dense_above).sum()),
    }


def _rates(batches: Stream) -> Tensor:
    return torch.stack([(part > 0).float().mean(0) for part in batches])


def _all_at_once(batches: Stream, d_sae: int, dense_above: float) -> dict:
    return _census((torch.cat(list(batches)) > 0).float().mean(0), dense_above)


def _mean_strength(batches: Stream, d_sae: int, dense_above: float) -> dict:
    return _census(torch.cat(list(batches)).mean(0), dense_above)


def _silent_in_a_batch(batches: Stream, d_sae: int, dense_above: float) -> dict:
    parts = list(batches)
    silent = torch.stack([(part == 0).all(0) for part in parts]).any(0)
    return _all_at_once(parts, d_sae, dense_above) | {"dead": int(silent.sum())}


def _counts(batches: Stream, d_sae: int, dense_above: float) -> dict:
    parts = list(batches)
    return _all_at_once(parts, d_sae, dense_above) | {"density": (torch.cat(parts) > 0).float().sum(0)}


def _dead_and_dense_swapped(batches: Stream, d_sae: int, dense_above: float) -> dict:
    right = _all_at_once(batches, d_sae, dense_above)
    return right | {"dead": right["dense"], "dense": right["dead"]}


def _holds_everything(answer, args, output) -> bool:
    fresh = Stream(args["batches"].parts, watch=True)
    again = plain(answer(fresh, args["d_sae"], args["dense_above"]))
    right = plain(latent_census(Stream(args["batches"].parts), args["d_sae"], args["dense_above"]))
    return fresh.most_alive >= 2 and agree(again, right)


CENSUS = Exercise(
    number="3.2",
    name="latent_census",
    returns='dict with "density" (Float[Tensor, "d_sae"]), "dead" (int), "dense" (int)',
    draw=draw_batches,
    reference=latent_census,
    wrong=(
        Wrong(
            "mean of means",
            lambda batches, d_sae, dense_above: _census(_rates(batches).mean(0), dense_above),
            "You averaged the batches' densities. The last batch is smaller than the others, and its few "
            "tokens now weigh as much as a full batch. Add up counts and tokens, and divide once at the "
            "end.",
        ),
        Wrong(
            "last batch",
            lambda batches, d_sae, dense_above: _census(_rates(batches)[-1], dense_above),
            "Only the last batch is in your density. Is something overwritten on every round of the loop, "
            "where it should grow?",
        ),
        Wrong(
            "strength",
            _mean_strength,
            "Your density is a mean strength. One strong moment then looks like many. Density asks how "
            "*often*: `features > 0` first.",
        ),
        Wrong(
            "counts",
            _counts,
            "Your density is a number of tokens. Divide by the number of all tokens, so that 1 means "
            "always on.",
        ),
        Wrong(
            "silent in a batch",
            _silent_in_a_batch,
            "You count a latent as dead as soon as one batch is without it. In a small batch most latents "
            "are silent. Dead means: not once in the whole stream.",
        ),
        Wrong(
            "dead and dense swapped",
            _dead_and_dense_swapped,
            "The density is right, and `dead` and `dense` are swapped: a dead latent has density 0.",
        ),
        Wrong(
            "zero counts as on",
            lambda batches, d_sae, dense_above: _census(torch.ones(d_sae), dense_above),
            "Every one of your latents is always on: `>= 0` is true of zero too. Active means above zero.",
        ),
        Wrong(
            "everything kept",
            _all_at_once,
            "The numbers are right. But you keep every batch, or as much made of it, until the end, and a "
            "store of activations is larger than memory. Keep two sums instead: active tokens for each "
            "latent, and tokens.",
            recognise=_holds_everything,
        ),
    ),
    look_at="`batches`: go through it once with `for features in batches:`. It has no length and no index.",
    saw="a census in one pass: the memory it takes does not grow with the number of tokens.",
)

EXERCISES = (ERROR, CENSUS)
