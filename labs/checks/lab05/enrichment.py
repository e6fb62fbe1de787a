"""Exercises 5.1, 5.2 and 5.13: more often than chance, and the price of asking often."""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import binom, hypergeom
from torch import Tensor

from labs.checks.exercise import Exercise, Property, Wrong, whole

# --- 5.1 ------------------------------------------------------------


def draw_latent(generator) -> dict:
    """A latent that likes some words and avoids others, on a short text; one word never occurs."""
    tokens, n_vocab = whole(generator, 50, 90), whole(generator, 5, 9)
    ids = torch.randint(0, n_vocab - 1, (tokens,), generator=generator)
    ids = ids + (ids >= 2)  # nobody says word 2
    liking = 0.15 + 0.5 * torch.rand(n_vocab, generator=generator)
    active = torch.rand(tokens, generator=generator) < liking[ids]
    if whole(generator, 0, 1):  # the last word is never met
        active = active & (ids < n_vocab - 1)
    return {
        "active": active,
        "ids": ids,
        "n_vocab": n_vocab,
    }


def _counts(active, ids, n_vocab) -> tuple:
    """Meetings of the latent and each word, occurrences of each word, active tokens, all tokens."""
    n, of = (torch.bincount(x, minlength=n_vocab).numpy() for x in (ids[active], ids))
    return n, of, int(active.sum()), len(ids)


def enrichment(active: Tensor, ids: Tensor, n_vocab: int) -> Tensor:
    n, of, m, total = _counts(active, ids, n_vocab)
    return torch.from_numpy(hypergeom.sf(n - 1, total, of, m))


def _with(formula):
    return lambda active, ids, n_vocab: torch.from_numpy(
        np.asarray(formula(*_counts(active, ids, n_vocab)), dtype=np.float64)
    )


def _two_sided(n, of, m, total):
    upper, lower = hypergeom.sf(n - 1, total, of, m), hypergeom.cdf(n, total, of, m)
    return np.minimum(1.0, 2 * np.minimum(upper, lower))


def _is_a_chance(answer, args, output) -> str | None:
    low, high = float(output.min()), float(output.max())
    return None if low >= -1e-9 and high <= 1 + 1e-6 else f"Yours go from {low:.3g} to {high:.3g}."


def _absent_word(answer, args, output) -> str | None:
    found = float(output[2])
    return None if abs(found - 1) < 1e-6 else f"Word 2 never occurs, and its p is {found:.3g}."


ENRICHMENT = Exercise(
    number="5.1",
    name="enrichment",
    returns='Float[Tensor, "n_vocab"]',
    draw=draw_latent,
    reference=enrichment,
    wrong=(
        Wrong(
            "more than n",
            _with(lambda n, of, m, total: hypergeom.sf(n, total, of, m)),
            "Your p is the chance to meet *more* often than was counted. `sf(x)` is P(X > x); *at least* n "
            "is `sf(n - 1)`. For rare words the difference is everything.",
        ),
        Wrong(
            "exactly n",
            _with(lambda n, of, m, total: hypergeom.pmf(n, total, of, m)),
            "Your p is the chance of *exactly* this count. Any single count is unlikely in a long text, "
            "also a quite usual one. Add up all counts that are as high or higher: `sf`.",
        ),
        Wrong(
            "the lower tail",
            _with(lambda n, of, m, total: hypergeom.cdf(n, total, of, m)),
            "Your p is small where the latent meets a word *seldom*: that is the lower tail. Enriched means "
            "often: the upper tail, `sf`.",
        ),
        Wrong(
            "one minus p",
            _with(lambda n, of, m, total: hypergeom.cdf(n - 1, total, of, m)),
            "Yours is one minus the p-value: near 1 where the latent likes a word. A p-value is the chance "
            "that luck does as well, and is small there.",
        ),
        Wrong(
            "both sides",
            _with(_two_sided),
            "Yours asks whether the word is met *unusually* often or seldom (a two-sided test). Enrichment "
            "has one side: at least as often.",
        ),
        Wrong(
            "with replacement",
            _with(lambda n, of, m, total: binom.sf(n - 1, m, of / total)),
            "You drew with replacement (a binomial). Each token can be drawn once only, so with every hit "
            "there is one fewer left: that is the *hyper*geometric distribution.",
        ),
        Wrong(
            "with replacement, of the word",
            _with(lambda n, of, m, total: binom.sf(n - 1, of, m / total)),
            "You let every occurrence of the word toss a coin (a binomial). But the latent is active on a "
            "*fixed* number of tokens, so the tosses are not independent: hypergeometric.",
        ),
        Wrong(
            "lift",
            _with(lambda n, of, m, total: n * total / np.maximum(of * m, 1)),
            "Yours is the lift: how many times more often than expected. A lift of 5 can be one meeting in "
            "place of 0.2. The p-value says whether luck does that.",
        ),
    ),
    properties=(
        Property("A p-value is a probability.", _is_a_chance),
        Property("A word that never occurs gives no evidence: p is 1.", _absent_word),
    ),
    look_at="`scipy.stats.hypergeom.sf(x, M, n, N)`: M balls in all, n of them marked, N drawn; P(X > x).",
    saw="how likely luck is to do as well, for every word at once. It needs no labels: only where the "
    "latent fires.",
)

# --- 5.2 ------------------------------------------------------------


def draw_p(generator) -> dict:
    """p-values in any order: a few findings among many that mean nothing, two of them equal."""
    n = whole(generator, 8, 18)
    p = torch.rand(n, generator=generator).double()
    some = whole(generator, 3, 5)
    p[:some] = 0.002 + 0.05 * torch.rand(some, generator=generator).double()
    p[some] = p[some + 1]
    return {"p": p[torch.randperm(n, generator=generator)]}


def benjamini_hochberg(p: Tensor) -> Tensor:
    order = p.argsort()
    q = torch.empty_like(p)
    q[order] = _steps(p[order]).flip(0).cummin(0).values.flip(0)
    return q


def _steps(ordered: Tensor) -> Tensor:
    return ordered * len(ordered) / torch.arange(1, len(ordered) + 1)


def _in_place(p: Tensor, found: Tensor) -> Tensor:
    q = torch.empty_like(p)
    q[p.argsort()] = found
    return q


def _holm(p: Tensor) -> Tensor:
    left = torch.arange(len(p), 0, -1)
    return _in_place(p, (p.sort().values * left).cummax(0).values.clamp(max=1))


def _order_is_kept(answer, args, output) -> str | None:
    order = args["p"].argsort()
    falls = (output[order].diff() < -1e-9).any()
    return "In yours a smaller p has a larger q." if bool(falls) else None


def _never_below(answer, args, output) -> str | None:
    gap = float((args["p"] - output).max())
    return None if gap < 1e-7 else f"In yours a q is {gap:.3g} below its p."


def _at_most_one(answer, args, output) -> str | None:
    return f"In yours one is {float(output.max()):.3g}." if bool((output > 1 + 1e-6).any()) else None


BENJAMINI_HOCHBERG = Exercise(
    number="5.2",
    name="benjamini_hochberg",
    returns='Float[Tensor, "tests"]',
    draw=draw_p,
    reference=benjamini_hochberg,
    wrong=(
        Wrong(
            "uncorrected",
            lambda p: p.clone(),
            "You return the p-values as they are. Of a thousand tests of nothing, fifty have p below 0.05: "
            "the number of tests has to come in.",
        ),
        Wrong(
            "Bonferroni",
            lambda p: (p * len(p)).clamp(max=1),
            "You multiplied every p by the number of tests (Bonferroni). That guards against a *single* "
            "false finding, and with many latents finds next to nothing. Here the share of false ones "
            "counts: divide by the rank.",
        ),
        Wrong(
            "Holm",
            _holm,
            "This is Holm's correction: the smallest p times the number of tests, the next times one fewer. "
            "It too guards against any single false finding. Divide by the rank instead.",
        ),
        Wrong(
            "no running minimum",
            lambda p: _in_place(p, _steps(p.sort().values)),
            "Your q can fall where p rises. If a test with a larger p counts at some level, so must one "
            "with a smaller: take the minimum over all ranks from its own upwards.",
        ),
        Wrong(
            "minimum from the wrong end",
            lambda p: _in_place(p, _steps(p.sort().values).cummin(0).values),
            "Your running minimum begins at the smallest p. Then one good finding lends its q to all the "
            "others. Begin at the *largest*: `.flip(0).cummin(0).values.flip(0)`.",
        ),
        Wrong(
            "running maximum",
            lambda p: _in_place(p, _steps(p.sort().values).cummax(0).values.clamp(max=1)),
            "You took the running *maximum* from the smallest p on. That also puts the q in order, but "
            "higher than they need be. It is the minimum over all ranks from the test's own upwards.",
        ),
        Wrong(
            "sorted",
            lambda p: benjamini_hochberg(p).sort().values,
            "The q are right and in the order of the sorted p. Put each one back to its own test: `q[order] "
            "= ...`.",
        ),
        Wrong(
            "order applied twice",
            lambda p: benjamini_hochberg(p).sort().values[p.argsort()],
            "The q are right but at the wrong tests. `found[order]` sorts; the way back is `q[order] = "
            "found`.",
        ),
        Wrong(
            "ranks from zero",
            lambda p: _in_place(p, p.sort().values * len(p) / torch.arange(len(p))),
            "Your ranks begin at 0, and so the smallest p is divided by zero. The first rank is 1: "
            "`torch.arange(1, len(p) + 1)`.",
        ),
        Wrong(
            "ranks from the largest",
            lambda p: benjamini_hochberg_with_ranks_reversed(p),
            "Your ranks begin at the largest p. Rank 1 is the smallest one: it pays for all the tests, and "
            "the largest pays nothing.",
        ),
    ),
    properties=(
        Property("A smaller p must never have a larger q.", _order_is_kept),
        Property("A correction for many tests never makes a p smaller.", _never_below),
        Property("A q is a share, and ends at 1.", _at_most_one),
    ),
    look_at="`order = p.argsort()`, then `p[order]` has rank 1, 2, 3, ... The way back is `q[order] = ...`.",
    saw="the price of asking often. Of all findings with q of at most 0.05, about one in twenty is expected "
    "to be luck, however many questions you asked.",
    cases=8,
)


def benjamini_hochberg_with_ranks_reversed(p: Tensor) -> Tensor:
    """Each p times the number of tests over its rank from the top."""
    return _in_place(p, (p.sort().values * len(p) / torch.arange(len(p), 0, -1)).clamp(max=1))


# --- 5.13 -----------------------------------------------------------


def draw_sets(generator) -> dict:
    """Two sets of tokens: some latents more often active in the first, one in the second."""
    # A prime number of others: differences of shares are equal only where both counts are.
    n, latents = whole(generator, 25, 40), whole(generator, 20, 30)
    m = (53, 59, 61, 67, 71, 73, 79)[whole(generator, 0, 6)]
    base = 0.1 + 0.3 * torch.rand(latents, generator=generator)
    more = torch.zeros(latents)
    some = torch.randperm(latents, generator=generator)
    # Rare ones with a small difference, common ones with a large one, one the other way round.
    for j, (usual, difference) in enumerate(
        ((0.02, 0.3), (0.45, 0.4), (0.5, 0.42), (0.05, 0.18), (0.3, 0.26), (0.2, 0.2), (0.55, -0.5))
    ):
        base[some[j]], more[some[j]] = usual, difference
    here = torch.rand(n, latents, generator=generator) < base + more
    there = torch.rand(m, latents, generator=generator) < base
    here[:, some[7]], there[:, some[7]] = False, False  # a dead one
    return {"here": here, "there": there, "alpha": 0.05}


def _tests(here: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    """p of "more often active here", and the difference of the shares."""
    n, m = here.sum(0).numpy(), there.sum(0).numpy()
    p = hypergeom.sf(n - 1, len(here) + len(there), n + m, len(here))
    return torch.from_numpy(p), here.double().mean(0) - there.double().mean(0)


def enriched_latents(here: Tensor, there: Tensor, alpha: float) -> list[int]:
    p, gap = _tests(here, there)
    return _chosen(benjamini_hochberg(p) <= alpha, gap)


def _chosen(found: Tensor, by: Tensor) -> list[int]:
    latents = found.nonzero().flatten().tolist()
    return sorted(latents, key=lambda j: -float(by[j]))


def _either_way(here: Tensor, there: Tensor, alpha: float) -> list[int]:
    (p, gap), (other, _) = _tests(here, there), _tests(there, here)
    q = benjamini_hochberg((2 * torch.minimum(p, other)).clamp(max=1))
    return _chosen(q <= alpha, gap.abs())


def _against_the_other_alone(here: Tensor, there: Tensor, alpha: float) -> list[int]:
    n, m = here.sum(0).numpy(), there.sum(0).numpy()
    p = torch.from_numpy(binom.sf(n - 1, len(here), m / len(there)))
    return _chosen(benjamini_hochberg(p) <= alpha, here.double().mean(0) - there.double().mean(0))


ENRICHED_LATENTS = Exercise(
    number="5.13",
    name="enriched_latents",
    returns="list[int]",
    draw=draw_sets,
    reference=enriched_latents,
    wrong=(
        Wrong(
            "uncorrected",
            lambda here, there, alpha: _chosen(_tests(here, there)[0] <= alpha, _tests(here, there)[1]),
            "You compare the p-values with alpha. There is one test for each latent, so some pass by luck "
            "alone: correct for their number first (5.2).",
        ),
        Wrong(
            "Bonferroni",
            lambda here, there, alpha: _chosen(
                _tests(here, there)[0] <= alpha / here.shape[1], _tests(here, there)[1]
            ),
            "You divided alpha by the number of latents (Bonferroni). That is stricter than asked: alpha is "
            "a *share* of false discoveries here (5.2).",
        ),
        Wrong(
            "turned round",
            lambda here, there, alpha: enriched_latents(there, here, alpha),
            "Yours are more often active in `there`. The search is for what the examples, `here`, have more "
            "of.",
        ),
        Wrong(
            "either way",
            _either_way,
            "Yours also lists latents that are *less* often active here. Enriched has one side: at least as "
            "often.",
        ),
        Wrong(
            "the other set taken for the truth",
            _against_the_other_alone,
            "You took the share in `there` for an exact number. It was measured on a sample as well, and "
            "its luck counts, too: put both sets into one urn, and ask how many of the active tokens come "
            "from `here`.",
        ),
        Wrong(
            "by p",
            lambda here, there, alpha: _chosen(
                benjamini_hochberg(_tests(here, there)[0]) <= alpha, -_tests(here, there)[0]
            ),
            "The latents are right, and ordered by p. p is small also for a tiny difference on many tokens; "
            "order by the difference of the two shares.",
        ),
        Wrong(
            "by the share here",
            lambda here, there, alpha: _chosen(
                benjamini_hochberg(_tests(here, there)[0]) <= alpha, here.float().mean(0)
            ),
            "The latents are right, and ordered by their share here. A latent that is on everywhere would "
            "come first. Order by the difference of the two shares.",
        ),
        Wrong(
            "smallest first",
            lambda here, there, alpha: enriched_latents(here, there, alpha)[::-1],
            "The latents are right, and the other way round: the *largest* difference of the shares comes "
            "first.",
        ),
        Wrong(
            "by number",
            lambda here, there, alpha: _chosen(
                benjamini_hochberg(_tests(here, there)[0]) <= alpha, -torch.arange(here.shape[1])
            ),
            "The latents are right, and in the order of their numbers. The largest difference of the shares "
            "comes first.",
        ),
    ),
    look_at="an urn of `len(here) + len(there)` tokens. Marked are those on which the latent is active; "
    "`len(here)` are drawn.",
    saw="a search by example. Nobody had to say what the examples have in common: the latents say it.",
    cases=8,
)

EXERCISES, EXERCISES_SEARCH = (ENRICHMENT, BENJAMINI_HOCHBERG), (ENRICHED_LATENTS,)
