"""Exercises 5.10 and 5.11: a concept in many latents, and what a wide SAE makes of a narrow one's."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from labs.checks.exercise import Exercise, Wrong, normal, whole

# --- 5.10 -----------------------------------------------------------


def draw_concept(generator) -> dict:
    """A concept in parts with a latent each, copies of the largest, and one that fails on the test split."""
    tokens, latents = whole(generator, 300, 420), whole(generator, 9, 13)
    test = torch.rand(tokens, generator=generator) < 0.4
    part = torch.randint(0, 12, (tokens,), generator=generator)
    holds = part < 5
    active = torch.rand(tokens, latents, generator=generator) < 0.03

    def detector(where: Tensor, share: float) -> Tensor:
        return (where & (torch.rand(tokens, generator=generator) < share)) | (
            torch.rand(tokens, generator=generator) < 0.02
        )

    active[:, 0] = detector(part < 2, 0.9)
    active[:, 1] = detector(part < 2, 0.82)
    active[:, 2] = detector(part < 2, 0.75)
    active[:, 3] = detector(part == 2, 0.9)
    active[:, 4] = detector((part == 3) & ~test, 0.95)
    active[:, 5] = detector(part == 4, 0.7)
    active[:, 6] = torch.rand(tokens, generator=generator) < 0.85  # active nearly everywhere
    active[:, 7] = False  # dead
    order = torch.randperm(latents, generator=generator)
    return {"active": active[:, order], "holds": holds, "test": test, "k": whole(generator, 5, 8)}


def union_f1(active: Tensor, holds: Tensor, test: Tensor, k: int) -> tuple[list[int], list[float]]:
    chosen = _greedy(active[~test], holds[~test], k)
    return chosen, _reported(chosen, active[test], holds[test])


def _f1(says: Tensor, holds: Tensor) -> float:
    return float(2 * (says & holds).sum() / (says.sum() + holds.sum()).clamp(min=1))


def _recall(says: Tensor, holds: Tensor) -> float:
    return float((says & holds).sum() / holds.sum())


def _precision(says: Tensor, holds: Tensor) -> float:
    return float((says & holds).sum() / says.sum().clamp(min=1))


def _greedy(
    active: Tensor, holds: Tensor, k: int, by=_f1, stop: bool | str = True, again: bool = False
) -> list[int]:
    """stop: at the first latent that does not raise the score; "falls": at the first that lowers it; False: never."""
    chosen, says, best = [], torch.zeros_like(holds), -1.0
    for _ in range(k):
        scores = [
            -1.0 if j in chosen and not again else by(says | active[:, j], holds)
            for j in range(active.shape[1])
        ]
        j = max(range(len(scores)), key=scores.__getitem__)
        if stop and (scores[j] < best if stop == "falls" else scores[j] <= best):
            break
        chosen.append(j)
        says, best = says | active[:, j], scores[j]
    return chosen


def _reported(chosen: list[int], active: Tensor, holds: Tensor, measure=_f1) -> list[float]:
    return [measure(active[:, chosen[:size]].any(1), holds) for size in range(1, len(chosen) + 1)]


def _singles(active, holds, test, k) -> tuple:
    scores = torch.tensor([_f1(active[~test, j], holds[~test]) for j in range(active.shape[1])])
    chosen = scores.argsort(descending=True, stable=True)[:k].tolist()
    return chosen, _reported(chosen, active[test], holds[test])


def _chosen_by(by, stop: bool | str = True, again: bool = False):
    def answer(active, holds, test, k):
        chosen = _greedy(active[~test], holds[~test], k, by, stop, again)
        return chosen, _reported(chosen, active[test], holds[test])

    return answer


def _each_alone(active, holds, test, k) -> tuple:
    chosen = union_f1(active, holds, test, k)[0]
    return chosen, [_f1(active[test, j], holds[test]) for j in chosen]


def _all_at_once(active, holds, test, k) -> tuple:
    chosen = union_f1(active, holds, test, k)[0]
    return chosen, [_f1(active[test][:, chosen[:n]].all(1), holds[test]) for n in range(1, len(chosen) + 1)]


UNION = Exercise(
    number="5.10",
    name="union_f1",
    returns="tuple[list[int], list[float]]",
    draw=draw_concept,
    reference=union_f1,
    wrong=(
        Wrong(
            "chosen on the test split",
            lambda active, holds, test, k: (
                _greedy(active[test], holds[test], k),
                _reported(_greedy(active[test], holds[test], k), active[test], holds[test]),
            ),
            "You chose the latents on the test split. With hundreds to choose from, some fit it by luck. "
            "Choose on `~test`.",
        ),
        Wrong(
            "chosen on everything",
            lambda active, holds, test, k: (
                _greedy(active, holds, k),
                _reported(_greedy(active, holds, k), active[test], holds[test]),
            ),
            "You chose the latents on all tokens, the test split among them. Choose on `~test` only.",
        ),
        Wrong(
            "reported on the train split",
            lambda active, holds, test, k: (
                _greedy(active[~test], holds[~test], k),
                _reported(_greedy(active[~test], holds[~test], k), active[~test], holds[~test]),
            ),
            "You report the F1 on the split that chose the latents. There it can only rise. Report it on "
            "`test`, where it may fall again: that is the news.",
        ),
        Wrong(
            "the best singles",
            _singles,
            "You took the k latents that are best *alone*. The second best is often a copy of the best, and "
            "adds nothing. After each choice, ask again which latent raises the F1 of the *union* most.",
        ),
        Wrong(
            "by recall",
            _chosen_by(_recall),
            "You chose by recall. A latent that is active nearly everywhere wins that, and is right about "
            "nothing. Choose by the F1 of the union.",
        ),
        Wrong(
            "by precision",
            _chosen_by(_precision),
            "You chose by precision. Then the first latent is a rare one that is never wrong, and nothing "
            "may come after it. Choose by the F1 of the union.",
        ),
        Wrong(
            "never stops",
            _chosen_by(_f1, stop=False),
            "You always take k latents. When none raises the train F1 any more, stop: what comes then makes "
            "it worse.",
        ),
        Wrong(
            "stops only when it falls",
            _chosen_by(_f1, stop="falls"),
            "You stop when the train F1 *falls*. A dead latent, or one that says nothing new, leaves it as "
            "it is, and comes in with you. Stop when it no longer rises: `<=`.",
        ),
        Wrong(
            "the same one again",
            _chosen_by(_f1, stop="falls", again=True),
            "A latent comes in that is in already, or that says nothing new: it leaves the train F1 as it "
            "is. Stop when the F1 no longer *rises* (`<=`), and that cannot happen.",
        ),
        Wrong(
            "each alone",
            _each_alone,
            "The latents are right; your F1 is that of each one *alone*. Asked for is the union of all up "
            "to it: one of them is active.",
        ),
        Wrong(
            "all at once",
            _all_at_once,
            "The latents are right; you ask that *all* of them are active. A union asks that one is: `any`.",
        ),
    ),
    look_at="`says | active[:, j]`: what the union would say with latent j in it.",
    saw="how many latents a concept needs. Where the F1 goes on rising, the concept is spread, and no "
    "single latent deserves its name.",
    cases=8,
)

# --- 5.11 -----------------------------------------------------------


def draw_widths(generator) -> dict:
    """A narrow and a wide SAE on the same tokens: latents that split, came back whole, and only look alike."""
    tokens, d = whole(generator, 80, 140), whole(generator, 8, 12)
    n, w = whole(generator, 3, 5), whole(generator, 9, 12)
    narrow_dec = normalize(normal(generator, n, d), dim=1)
    wide_dec = normalize(normal(generator, w, d), dim=1)
    narrow = (torch.rand(tokens, n, generator=generator) < 0.3) * (
        0.2 + torch.rand(tokens, n, generator=generator)
    )
    wide = (torch.rand(tokens, w, generator=generator) < 0.1) * (
        0.2 + torch.rand(tokens, w, generator=generator)
    )

    def near(row: Tensor, noise: float) -> Tensor:
        return normalize(row + noise * normalize(normal(generator, d), dim=0), dim=0)

    def inside(j: int, share: float) -> Tensor:
        on = (narrow[:, j] > 0) & (torch.rand(tokens, generator=generator) < share)
        return on * (0.2 + torch.rand(tokens, generator=generator))

    for child, share in ((0, 0.5), (1, 0.4), (2, 0.3)):  # narrow 0 splits
        wide_dec[child], wide[:, child] = near(narrow_dec[0], 0.6), inside(0, share)
    faint = (narrow[:, 0] == 0) & (torch.rand(tokens, generator=generator) < 0.4)
    wide[:, 1] = wide[:, 1] + 0.04 * faint  # mostly outside by tokens, inside by strength
    wide_dec[3], wide[:, 3] = near(narrow_dec[1], 0.3), inside(1, 0.95)  # narrow 1 comes back whole
    wide[:, 4] = inside(1, 0.5)  # fires where narrow 1 does, and points elsewhere
    wide_dec[4] = normalize(wide_dec[4] - (wide_dec[4] @ narrow_dec[1]) * narrow_dec[1], dim=0)
    wide_dec[5] = near(narrow_dec[2], 0.3)  # points where narrow 2 does, and fires elsewhere
    wide[:, 5] = (narrow[:, 2] == 0) * (torch.rand(tokens, generator=generator) < 0.3)
    wide_dec[6] = near(narrow_dec[2], 0.5)  # contains narrow 2 and much more
    wide[:, 6] = (torch.rand(tokens, generator=generator) < 0.9) * 0.8
    wide[:, 7] = 0  # dead
    scale = 0.3 + 2 * torch.rand(w, 1, generator=generator)
    scale[0], scale[5] = 0.2, 3.0
    return {
        "narrow": narrow,
        "wide": wide,
        "narrow_dec": narrow_dec * (0.5 + torch.rand(n, 1, generator=generator)),
        "wide_dec": wide_dec * scale,
        "alike": 0.5,
        "inside": 0.5,
    }


def children(narrow, wide, narrow_dec, wide_dec, alike, inside) -> list[list[int]]:
    return _children(narrow, wide, narrow_dec, wide_dec, alike, inside)


def _children(
    narrow, wide, narrow_dec, wide_dec, alike, inside, *, along=None, share=None, use=("along", "share")
) -> list[list[int]]:
    along = _cosines(narrow_dec, wide_dec) if along is None else along
    share = _inside(narrow, wide) if share is None else share
    found = torch.ones_like(along, dtype=torch.bool)
    if "along" in use:
        found &= along >= alike
    if "share" in use:
        found &= share >= inside
    return [row.nonzero().flatten().tolist() for row in found]


def _cosines(narrow_dec: Tensor, wide_dec: Tensor) -> Tensor:
    return normalize(narrow_dec, dim=1) @ normalize(wide_dec, dim=1).T


def _inside(narrow: Tensor, wide: Tensor) -> Tensor:
    """[narrow, wide]: of the wide latent's summed activation, the share where the narrow one is active."""
    return (narrow > 0).float().T @ wide / wide.sum(0).clamp(min=1e-9)


def _changed(**changes):
    def answer(narrow, wide, narrow_dec, wide_dec, alike, inside):
        made = {
            name: make(narrow, wide, narrow_dec, wide_dec) if callable(make) else make
            for name, make in changes.items()
        }
        return _children(narrow, wide, narrow_dec, wide_dec, alike, inside, **made)

    return answer


def _nearest_only(narrow, wide, narrow_dec, wide_dec, alike, inside) -> list[list[int]]:
    along = _cosines(narrow_dec, wide_dec)
    found = children(narrow, wide, narrow_dec, wide_dec, alike, inside)
    return [[max(row, key=lambda j: float(along[i, j]))] if row else [] for i, row in enumerate(found)]


def _one_parent_each(narrow, wide, narrow_dec, wide_dec, alike, inside) -> list[list[int]]:
    best = _cosines(narrow_dec, wide_dec).argmax(0)
    return [(best == i).nonzero().flatten().tolist() for i in range(len(narrow_dec))]


CHILDREN = Exercise(
    number="5.11",
    name="children",
    returns="list[list[int]]",
    draw=draw_widths,
    reference=children,
    wrong=(
        Wrong(
            "dot product",
            _changed(along=lambda narrow, wide, small, large: small @ large.T),
            "You compared the decoder rows by their dot product: a long row is similar to everything. Make "
            "the rows one long first; the product is then the cosine.",
        ),
        Wrong(
            "direction only",
            _changed(use=("along",)),
            "You looked at directions only. Among so many rows some point alike by chance, or fire "
            "elsewhere. A child has to fire where its parent does.",
        ),
        Wrong(
            "overlap only",
            _changed(use=("share",)),
            "You looked only at where the latents fire. Two latents can fire on the same tokens and write "
            "quite different things. A child has a similar direction as well.",
        ),
        Wrong(
            "turned round",
            _changed(
                share=lambda narrow, wide, small, large: (
                    ((wide > 0).float().T @ narrow / narrow.sum(0).clamp(min=1e-9)).T
                )
            ),
            "You measured how much of the *narrow* latent lies within the wide one. A child is a part: only "
            "some of its parent. Ask how much of the *wide* one lies within the narrow one.",
        ),
        Wrong(
            "tokens counted",
            _changed(share=lambda narrow, wide, small, large: _inside(narrow, (wide > 0).float())),
            "You counted tokens. Weigh each token by the wide latent's strength: faint activity elsewhere "
            "should count for little.",
        ),
        Wrong(
            "the nearest only",
            _nearest_only,
            "You keep one child for each narrow latent, the nearest. A latent that has *split* has several: "
            "return all that meet both conditions.",
        ),
        Wrong(
            "one parent each",
            _one_parent_each,
            "You gave every wide latent to the narrow one it is nearest to. Something is always nearest: "
            "new latents and dead ones, too. Hold each pair against the two conditions.",
        ),
    ),
    look_at="two tables [narrow, wide]: the cosines, and `(narrow > 0).float().T @ wide`, divided by "
    "`wide.sum(0)`.",
    saw="feature splitting, with both kinds of evidence. Direction alone finds relatives for everybody.",
    cases=8,
)

EXERCISES = (UNION, CHILDREN)
