"""Exercises 3.5 to 3.7: the latents of a text, what tells two texts apart, and separate examples."""

from __future__ import annotations

import torch
from torch import Tensor

from labs.checks.exercise import Exercise, Property, Wrong, normal, whole

# --- 3.5 ------------------------------------------------------------


def draw_text(generator) -> dict:
    """One text: BOS ablaze, padding too, one latent moderate everywhere; sometimes fewer than k latents."""
    pos, d_sae, k = whole(generator, 8, 14), whole(generator, 12, 30), whole(generator, 3, 5)
    on = torch.rand(pos, d_sae, generator=generator) < 0.3
    features = (normal(generator, pos, d_sae).abs() + 0.1) * on
    features[:, 0] = 0.8 + 0.3 * torch.rand(pos, generator=generator)  # often, never strong
    if whole(generator, 0, 1):
        features[:, 3:], k = 0, 6
    length = pos - whole(generator, 1, 3)
    keep = (torch.arange(pos) > 0) & (torch.arange(pos) < length)
    features[~keep] = 4 * torch.rand(pos, d_sae, generator=generator)[~keep] + 3
    return {"features": features, "keep": keep, "k": k}


def top_of_text(features: Tensor, keep: Tensor, k: int) -> list[tuple[int, float, int]]:
    return _listed(torch.where(keep[:, None], features, 0.0), k)


def _listed(shown: Tensor, k: int, score: Tensor | None = None, silent: bool = False) -> list[tuple]:
    """(latent, strength, position) of the k best: by their maximum, or by another score."""
    strongest, where = shown.max(0)
    strongest = strongest if score is None else score
    values, latents = strongest.topk(min(k, len(strongest)))
    found = [(i, v, int(where[i])) for i, v in zip(latents.tolist(), values.tolist(), strict=True)]
    return [one for one in found if one[1] > 0 or silent]


def _shown(features: Tensor, keep: Tensor) -> Tensor:
    return torch.where(keep[:, None], features, 0.0)


def _every_moment(features: Tensor, keep: Tensor, k: int) -> list[tuple]:
    shown = _shown(features, keep)
    values, places = shown.flatten().topk(k)
    width = features.shape[1]
    pairs = zip(places.tolist(), values.tolist(), strict=True)
    return [(place % width, value, place // width) for place, value in pairs if value > 0]


def _none_silent(answer, args, output) -> str | None:
    strongest = _shown(args["features"], args["keep"]).amax(0)
    silent = [i for i, *_ in output if not 0 <= i < len(strongest) or strongest[i] == 0]
    if not silent:
        return None
    return (
        f"Yours lists latent {' and '.join(map(str, silent[:3]))}, silent on every token that `keep` picks."
    )


TOP_OF_TEXT = Exercise(
    number="3.5",
    name="top_of_text",
    returns="list[tuple[int, float, int]]",
    draw=draw_text,
    reference=top_of_text,
    wrong=(
        Wrong(
            "BOS kept",
            lambda features, keep, k: _listed(features, k),
            "BOS and padding are in your list: they beat every word of the text, here and in many real "
            "models. Only the positions where `keep` is True count.",
        ),
        Wrong(
            "padding kept",
            lambda features, keep, k: [(i, v, p + 1) for i, v, p in _listed(features[1:], k)],
            "BOS is gone, and the padding at the end is still in. Use `keep`, which leaves out both.",
        ),
        Wrong(
            "mean",
            lambda features, keep, k: _listed(_shown(features, keep), k, features[keep].mean(0)),
            "You averaged over the text. A latent that fires once, on one word, then drowns among latents "
            "that hum all the time. A latent's strength in a text is its strongest moment.",
        ),
        Wrong(
            "sum",
            lambda features, keep, k: _listed(_shown(features, keep), k, features[keep].sum(0)),
            "You added up over the text, so what fires often and weakly wins, and the more so the longer "
            "the text. A latent's strength in a text is its strongest moment.",
        ),
        Wrong(
            "how often",
            lambda features, keep, k: _listed(_shown(features, keep), k, (features[keep] > 0).float().sum(0)),
            "You counted tokens. The question is how strong a latent gets, at its strongest token.",
        ),
        Wrong(
            "every moment",
            _every_moment,
            "You listed the strongest *moments*, so one latent can fill the list. Take each latent's "
            "maximum over the positions first, then the k largest of those.",
        ),
        Wrong(
            "positions without BOS",
            lambda features, keep, k: _listed(features[keep], k),
            "Your positions are counted among the kept tokens. `features[keep]` renumbers them, so each "
            "points to the token before. Count as `features` does, BOS included.",
        ),
        Wrong(
            "silent latents listed",
            lambda features, keep, k: _listed(_shown(features, keep), k, silent=True),
            "Your list is padded with latents that are silent in this text. List active ones only, even if "
            "there are fewer than k.",
        ),
        Wrong(
            "weakest first",
            lambda features, keep, k: top_of_text(features, keep, k)[::-1],
            "The latents are right and the order is not: the strongest comes first.",
        ),
    ),
    properties=(Property("Every latent in the list must be active somewhere in the text.", _none_silent),),
    look_at="the axes: positions come first, so a maximum over positions is `.max(0)`; it gives values and "
    "indices.",
    saw="a text in a few latents, and for each the word that woke it. Read the word before you name the "
    "latent.",
    cases=8,
)

# --- 3.6 ------------------------------------------------------------


def draw_two_texts(generator) -> dict:
    """Two texts of unequal length; one latent hums through the longer one."""
    n_a, n_b, d_sae = whole(generator, 5, 9), whole(generator, 14, 20), whole(generator, 12, 30)
    if whole(generator, 0, 1):
        n_a, n_b = n_b, n_a

    def sparse(n):
        return (normal(generator, n, d_sae).abs() + 0.1) * (torch.rand(n, d_sae, generator=generator) < 0.3)

    a, b = sparse(n_a), sparse(n_b)
    for part in (a, b):
        part[:, 0] = 1 + 0.2 * torch.rand(len(part), generator=generator)
    a[0, 1], b[:, 1] = 7.0, 0
    b[-1, 2], a[:, 2] = 6.0, 0
    b[1, 3], a[-1, 3] = 9.0, 8.9
    return {"features_a": a, "features_b": b, "k": whole(generator, 3, 6)}


def difference(features_a: Tensor, features_b: Tensor, k: int) -> list[tuple[int, float]]:
    return _largest(features_a.amax(0) - features_b.amax(0), k)


def _largest(gap: Tensor, k: int) -> list[tuple[int, float]]:
    latents = gap.abs().topk(min(k, len(gap))).indices.tolist()
    return [(i, float(gap[i])) for i in latents]


def _token_by_token(features_a: Tensor, features_b: Tensor, k: int) -> list[tuple]:
    n = min(len(features_a), len(features_b))
    return _largest((features_a[:n] - features_b[:n]).mean(0), k)


def _one_side(features_a: Tensor, features_b: Tensor, k: int) -> list[tuple]:
    values, latents = (features_a.amax(0) - features_b.amax(0)).topk(k)
    return list(zip(latents.tolist(), values.tolist(), strict=True))


def _swapping_changes_signs(answer, args, output) -> str | None:
    swapped = answer(args["features_b"], args["features_a"], args["k"])
    if [i for i, _ in swapped] == [i for i, _ in output] and all(
        abs(a + b) < 1e-4 for (_, a), (_, b) in zip(swapped, output, strict=True)
    ):
        return None
    return f"Yours starts with {output[0]} one way and with {swapped[0]} the other."


DIFFERENCE = Exercise(
    number="3.6",
    name="difference",
    returns="list[tuple[int, float]]",
    draw=draw_two_texts,
    reference=difference,
    wrong=(
        Wrong(
            "means",
            lambda features_a, features_b, k: _largest(features_a.mean(0) - features_b.mean(0), k),
            "You compared means over the texts. The one word by which two texts differ is diluted by all "
            "the others, and the more so the longer the text. Compare the strongest moments: `.amax(0)`.",
        ),
        Wrong(
            "sums",
            lambda features_a, features_b, k: _largest(features_a.sum(0) - features_b.sum(0), k),
            "You compared sums, so the longer text wins by its length: what hums through both texts comes "
            "out on top. Compare the strongest moments: `.amax(0)`.",
        ),
        Wrong(
            "how often",
            lambda features_a, features_b, k: _largest(
                (features_a > 0).float().mean(0) - (features_b > 0).float().mean(0), k
            ),
            "You compared how often latents fire. The task compares how strong each one gets.",
        ),
        Wrong(
            "token by token",
            _token_by_token,
            "You subtracted token from token. The third token of one text has nothing to do with the third "
            "of the other, and the end of the longer text is lost. Take each text's maximum first.",
        ),
        Wrong(
            "one side",
            _one_side,
            "Only latents that are stronger in the first text are found. What the second text has more of "
            "is a difference too: choose by absolute value.",
        ),
        Wrong(
            "turned round",
            lambda features_a, features_b, k: difference(features_b, features_a, k),
            "The signs are the wrong way round: positive means stronger in the first text.",
        ),
        Wrong(
            "sign lost",
            lambda features_a, features_b, k: [(i, abs(v)) for i, v in difference(features_a, features_b, k)],
            "The latents are right, and the sign is gone, so nobody sees which text has more. Choose by "
            "absolute value, report the difference itself.",
        ),
        Wrong(
            "ordered by sign",
            lambda features_a, features_b, k: sorted(
                difference(features_a, features_b, k), key=lambda p: -p[1]
            ),
            "The latents are right and the order is not: the largest difference comes first, whichever way "
            "it goes.",
        ),
    ),
    properties=(
        Property("Swapping the texts must change the signs and nothing else.", _swapping_changes_signs),
    ),
    look_at="the texts' lengths: they differ, so reduce each text to one number a latent before subtracting.",
    saw="two texts, and the few latents that tell them apart. Change one word at a time and you have an "
    "experiment.",
)

# --- 3.7 ------------------------------------------------------------


def draw_windows(generator) -> dict:
    """One latent on several texts, with peaks in a chain, at the seam of two texts, at BOS and in padding."""
    texts, pos, radius = whole(generator, 3, 5), whole(generator, 20, 30), whole(generator, 1, 3)
    quiet = whole(generator, 0, 1)
    acts = normal(generator, texts, pos).relu() * (0 if quiet else 1)
    lengths = torch.randint(pos - 4, pos, (texts,), generator=generator)
    lengths[0] = pos
    keep = (torch.arange(pos) < lengths[:, None]) & (torch.arange(pos) > 0)
    start, chain, beside = whole(generator, 2, 4), (9.0, 8.0, 7.0), -1
    if whole(generator, 0, 1):
        chain, beside = chain[::-1], 4 * radius + 1
    acts[0, start + beside] = 8.8  # next to the strongest
    for step, peak in enumerate(chain):  # the middle one overlaps with both, the outer two do not
        acts[0, start + 2 * radius * step] = peak + 0.3 * float(torch.rand((), generator=generator))
    acts[0, -1], acts[1, 1] = 6.5, 6.0  # neighbours only if texts are laid end to end
    acts[2, 3], acts[2, 4 + 2 * radius] = 5.7, 5.9  # their windows touch and do not overlap
    acts[~keep] = 12 + torch.rand(acts.shape, generator=generator)[~keep]
    k = 7 if quiet else whole(generator, 4, 6)
    return {"acts": acts, "keep": keep, "k": k, "radius": radius}


def top_windows(acts: Tensor, keep: Tensor, k: int, radius: int) -> list[tuple[int, int, float]]:
    taken: list[tuple[int, int, float]] = []
    for text, position, strength in _ranked(acts, keep):
        clash = any(t == text and abs(p - position) <= 2 * radius for t, p, _ in taken)
        if not clash and len(taken) < k:
            taken.append((text, position, strength))
    return taken


def _ranked(acts: Tensor, keep: Tensor, silent: bool = False) -> list[tuple[int, int, float]]:
    """All kept tokens on which the latent is active, strongest first."""
    places = (keep & ((acts > 0) | silent)).nonzero().tolist()
    return sorted(((t, p, float(acts[t, p])) for t, p in places), key=lambda place: -place[2])


def _greedy(places: list[tuple], k: int, clash) -> list[tuple]:
    taken: list[tuple] = []
    for place in places:
        if len(taken) < k and not any(clash(place, other) for other in taken):
            taken.append(place)
    return taken


def _near(distance: int):
    return lambda a, b: a[0] == b[0] and abs(a[1] - b[1]) <= distance


def _beaten_by_any(acts, keep, k, radius):
    ranked = _ranked(acts, keep)
    clash = _near(2 * radius)
    return [place for i, place in enumerate(ranked) if not any(clash(place, o) for o in ranked[:i])][:k]


def _end_to_end(acts, keep, k, radius):
    width = acts.shape[1]
    return _greedy(
        _ranked(acts, keep),
        k,
        lambda a, b: abs(a[0] * width + a[1] - b[0] * width - b[1]) <= 2 * radius,
    )


WINDOWS = Exercise(
    number="3.7",
    name="top_windows",
    returns="list[tuple[int, int, float]]",
    draw=draw_windows,
    reference=top_windows,
    wrong=(
        Wrong(
            "overlaps",
            lambda acts, keep, k, radius: _ranked(acts, keep)[:k],
            "These are the k strongest tokens, and their windows overlap: the reader sees one sentence "
            "several times and takes it for so many examples. Skip a token whose window overlaps with one "
            "you have taken.",
        ),
        Wrong(
            "half the distance",
            lambda acts, keep, k, radius: _greedy(_ranked(acts, keep), k, _near(radius)),
            "Your windows still overlap. Each reaches `radius` tokens to either side, so two of them "
            "overlap until their peaks are more than `2 * radius` apart.",
        ),
        Wrong(
            "one too far",
            lambda acts, keep, k, radius: _greedy(_ranked(acts, keep), k, _near(2 * radius + 1)),
            "You skip one place too many: peaks that are `2 * radius + 1` apart have windows that touch "
            "and do not overlap.",
        ),
        Wrong(
            "one a text",
            lambda acts, keep, k, radius: _greedy(_ranked(acts, keep), k, lambda a, b: a[0] == b[0]),
            "You take one example of each text. That is a rule too, and not the one asked for: two windows "
            "of one text are welcome if they do not overlap.",
        ),
        Wrong(
            "beaten by any stronger one",
            _beaten_by_any,
            "You skip a token if *any* stronger token is near it, even one that you skipped yourself. Only "
            "windows that you have taken can be overlapped with: go from the strongest down and keep a "
            "list.",
        ),
        Wrong(
            "texts laid end to end",
            _end_to_end,
            "You measured distance as if the texts were one long row. The end of one text and the "
            "beginning of the next do not overlap: compare positions within the same text.",
        ),
        Wrong(
            "BOS kept",
            lambda acts, keep, k, radius: top_windows(acts, torch.ones_like(keep), k, radius),
            "BOS and padding are among your examples. Nobody can read anything there: only tokens with "
            "`keep` count.",
        ),
        Wrong(
            "silent tokens",
            lambda acts, keep, k, radius: _greedy(_ranked(acts, keep, silent=True), k, _near(2 * radius)),
            "Your list is filled up with tokens on which the latent is silent. They are no examples: give "
            "fewer than k.",
        ),
        Wrong(
            "position before text",
            lambda acts, keep, k, radius: [(p, t, v) for t, p, v in top_windows(acts, keep, k, radius)],
            "Text and position are swapped: (text, position, strength).",
        ),
        Wrong(
            "in reading order",
            lambda acts, keep, k, radius: sorted(top_windows(acts, keep, k, radius)),
            "The windows are right, in the order of the texts. The strongest comes first.",
        ),
    ),
    look_at="the order of the steps: rank all active tokens once, then walk down the ranking and decide "
    "one by one.",
    saw="k different places, not one place k times. What you read is now evidence, one piece for each line.",
    cases=8,
)

EXERCISES = (TOP_OF_TEXT, DIFFERENCE, WINDOWS)
