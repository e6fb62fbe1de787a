"""Sets of latents: which few are enough for a fact, and which few it cannot do without.

A set C of latents is kept and all others are ablated, or the other way round. With m the mean logit difference, M all
latents and ∅ none, Marks et al. 2024 (arXiv 2403.19647) compare

    faithfulness = (m(C) - m(∅)) / (m(M) - m(∅)),        completeness: the same of what is left, M without C.

1 says that the set does what all latents do together, 0 that it does no more than none. A good set has a high
faithfulness and leaves a low one behind: if what is left still knows the answer, the set is not all there is. The
SAE's reconstruction error is kept, so m(∅) is what the error can do, with the baseline in place of all latents.

Latents are numbers here, and everything works as well on the nodes of a `LayerBench`, which are latents of several
layers at several positions. There `greedy` has little to go by: one node alone is a link of a chain that is cut
everywhere else. `prune` searches from the other end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from solutions.errors import InputError, check_count, check_tensor, unknown_name
from solutions.interventions.ablation import taken_out
from solutions.interventions.bench import MODES, AnyBench

if TYPE_CHECKING:
    from solutions.interventions.layer_bench import LayerBench


def faithfulness_curve(
    bench: AnyBench, order: Sequence[int], sizes: Sequence[int] | None = None
) -> pd.DataFrame:
    """Faithfulness of the first n latents of an order, and of what is left without them.

    Args:
        bench: model, SAE and facts.
        order: latents, the most important first.
        sizes: the numbers n of latents; by default about 24 from none to all of the order.

    Returns:
        One row per n, with n_latents; kept and left, the mean logit differences with only the first n, and with all
        but them; faithfulness and completeness, the same as shares (see the head of this file); correct_kept and
        correct_left, the share of facts completed.

    Raises:
        InputError: a latent that the SAE does not have, or a size beyond the order.
    """
    sizes = _sizes(len(order)) if sizes is None else [check_count(n, "sizes", least=0) for n in sizes]
    if max(sizes) > len(order):
        raise InputError(f"sizes go up to {max(sizes)}, but the order has {len(order)} latents.")
    sets = [order[:n] for n in sizes]
    (kept, right_kept), (left, right_left) = (bench.each(sets, mode) for mode in MODES)
    return pd.DataFrame({
        "n_latents": sizes,
        "kept": kept.mean(1).tolist(),
        "left": left.mean(1).tolist(),
        "faithfulness": [bench.share(x) for x in kept.mean(1).tolist()],
        "completeness": [bench.share(x) for x in left.mean(1).tolist()],
        "correct_kept": right_kept.float().mean(1).tolist(),
        "correct_left": right_left.float().mean(1).tolist(),
    })  # fmt: skip


def _sizes(n: int, about: int = 24) -> list[int]:
    """About so many sizes from 0 to n, close together where sets are small."""
    spread = torch.linspace(0, 1, about) ** 2 * n
    return sorted({*range(min(n, 6) + 1), *spread.round().long().tolist(), n})


def needed(bench: AnyBench, order: Sequence[Sequence[int]], most: int | None = None) -> pd.DataFrame:
    """For every fact, how many latents have to go before it falls, in an order of its own.

    A fact holds while its answer beats all others of its kind.

    Args:
        bench: model, SAE and facts.
        order: for each fact its latents, the most important first, see `orders`.
        most: stop after so many; try all by default.

    Returns:
        One row per fact, with prompt, answer, tried (the number of latents in its order) and breaks (the smallest n
        for which the fact has fallen when the first n are removed; NaN when no n is enough).

    Raises:
        InputError: not one order for each fact, or a latent that the SAE does not have.
    """
    facts = bench.asked.facts
    if len(order) != len(facts):
        raise InputError(f"order must hold a list of latents for each of the {len(facts)} facts, got {len(order)}.")
    order = [list(latents)[:most] for latents in order]
    tries = [(i, latents[:n]) for i, latents in enumerate(order) for n in range(len(latents) + 1)]
    _, correct = bench.run(tries, "remove")
    rows = []
    for i, part in enumerate(correct.split([len(latents) + 1 for latents in order])):
        falls = (~part).nonzero().flatten().tolist()
        rows.append((facts[i].prompt, facts[i].answer, len(order[i]), falls[0] if falls else float("nan")))
    return pd.DataFrame(rows, columns=["prompt", "answer", "tried", "breaks"])


class Found(NamedTuple):
    """A set of latents that was searched for, and the way there."""

    latents: list[int]
    """The set, in the order in which its members were taken."""
    reached: bool
    """Whether the set does what was asked for. If not, no set that the search could build does."""
    path: pd.DataFrame
    """One row per step, with n_latents, latent (the one taken) and logit_difference (mean, after it)."""


def greedy(
    bench: AnyBench,
    mode: str = "keep",
    candidates: Sequence[int] | None = None,
    goal: Callable[[Tensor, Tensor], bool] | None = None,
    most: int = 60,
) -> Found:
    """Build a set latent by latent, each time with the one that helps most, until it does what is asked.

    Args:
        bench: model, SAE and facts.
        mode: "keep" looks for a set that is sufficient, "remove" for one that is necessary.
        candidates: latents to choose from; by default all that are active.
        goal: from (logit differences [facts], whether correct [facts]) to whether the set will do; by default that
            all facts hold ("keep") or all have fallen ("remove").
        most: the largest set to try.

    Returns:
        The set, which need not be minimal (see `minimal`).

    Raises:
        InputError: an unknown mode, or a latent that the SAE does not have.
    """
    goal = _goal(mode, goal)
    left = list(bench.candidates if candidates is None else taken_out(candidates, bench.activation.shape[1]))
    taken: list[int] = []
    differences, correct = bench.each([[]], mode)
    path = [(0, None, differences.mean().item())]
    while not goal(differences[0], correct[0]) and left and len(taken) < most:
        tried, right = bench.each([[*taken, latent] for latent in left], mode)
        best = int(tried.mean(1).argmax() if mode == "keep" else tried.mean(1).argmin())
        taken.append(left.pop(best))
        differences, correct = tried[best : best + 1], right[best : best + 1]
        path.append((len(taken), taken[-1], differences.mean().item()))
    table = pd.DataFrame(path, columns=["n_latents", "latent", "logit_difference"]).astype({"latent": "Int64"})
    return Found(taken, goal(differences[0], correct[0]), table)


def shortest(
    bench: AnyBench, order: Sequence[int], mode: str = "keep", goal: Callable[[Tensor, Tensor], bool] | None = None
) -> Found:
    """The shortest beginning of an order of latents that does what is asked.

    Args:
        bench: model, SAE and facts.
        order: latents, the most important first, say by an attribution score.
        mode: "keep" or "remove".
        goal: as for `greedy`.

    Returns:
        The set, which need not be minimal (see `minimal`).

    Raises:
        InputError: an unknown mode, or a latent that the SAE does not have.
    """
    goal = _goal(mode, goal)
    order = taken_out(order, bench.activation.shape[1])
    differences, correct = bench.each([order[:n] for n in range(len(order) + 1)], mode)
    reached = [goal(*row) for row in zip(differences, correct, strict=True)]
    n = reached.index(True) if any(reached) else len(order)
    path = pd.DataFrame({"n_latents": range(n + 1), "latent": pd.array([None, *order[:n]], dtype="Int64"),
                         "logit_difference": differences[: n + 1].mean(1).tolist()})
    return Found(order[:n], any(reached), path)


def minimal(
    bench: AnyBench, found: Found, mode: str = "keep", goal: Callable[[Tensor, Tensor], bool] | None = None
) -> list[int]:
    """Drop members that the set can do without, the last taken first, until it can do without none.

    Minimal does not mean smallest: another set, with fewer members, may do as well.

    Args:
        bench: model, SAE and facts.
        found: a set that does what is asked.
        mode: the one it was found with.
        goal: the one it was found with.

    Returns:
        The members left. Without any single one of them the set no longer does what is asked.

    Raises:
        InputError: the set does not do what is asked.
    """
    goal = _goal(mode, goal)
    _must_do(found.reached, found.latents)
    kept = list(found.latents)
    for latent in reversed(found.latents):
        without = [other for other in kept if other != latent]
        differences, correct = bench.each([without], mode)
        if goal(differences[0], correct[0]):
            kept = without
    return kept


def prune(
    bench: AnyBench, latents: Sequence[int], mode: str = "keep",
    goal: Callable[[Tensor, Tensor], bool] | None = None, share: float = 0.2,
) -> Found:
    """Search from above: start with a set that does what is asked, and drop what it misses least.

    Each round tries the set without each of its members, and drops a share of those that it can do without one by
    one, the least missed first; fewer where together they are missed after all.

    Args:
        bench: model, SAEs and facts.
        latents: a set that does what is asked, say the shortest beginning of an order by attribution.
        mode: "keep" or "remove".
        goal: as for `greedy`.
        share: of the members, to be dropped at once; a smaller one takes longer and may end with fewer.

    Returns:
        The set, in the order of `latents`. Without any single member it does not do what is asked.

    Raises:
        InputError: the set does not do what is asked, an unknown mode, a latent that there is not, or a share that is
            not above 0 and at most 1.
    """  # fmt: skip
    goal = _goal(mode, goal)
    if not 0 < share <= 1:
        raise InputError(f"share must be above 0 and at most 1, got {share!r}.")
    kept = taken_out(latents, bench.activation.shape[1])
    differences, correct = bench.each([kept], mode)
    _must_do(goal(differences[0], correct[0]), kept)
    path = [(len(kept), None, differences.mean().item())]
    while kept:
        tried, right = bench.each([[other for other in kept if other != latent] for latent in kept], mode)
        order = tried.mean(1).argsort(descending=mode == "keep", stable=True).tolist()
        spare = [kept[i] for i in order if goal(tried[i], right[i])]
        if not spare:
            break
        n = max(1, int(share * len(kept)))
        while True:
            fewer = [latent for latent in kept if latent not in set(spare[:n])]
            differences, correct = bench.each([fewer], mode)
            if n == 1 or goal(differences[0], correct[0]):
                break
            n //= 2
        kept = fewer
        path.append((len(kept), None, differences.mean().item()))
    table = pd.DataFrame(path, columns=["n_latents", "latent", "logit_difference"]).astype({"latent": "Int64"})
    return Found(kept, True, table)


def _must_do(does: bool, latents: Sequence[int]) -> None:
    """Refuse to make a set smaller that does not do what is asked as it is."""
    if not does:
        raise InputError(f"the set of {len(latents)} latents does not do what is asked, so it has no part that does. "
                         "Search with more candidates, a larger `most`, or for less.")


def _goal(mode: str, goal: Callable[[Tensor, Tensor], bool] | None) -> Callable[[Tensor, Tensor], bool]:
    """The goal, or what is meant without one."""
    if mode not in MODES:
        raise unknown_name("mode", mode, MODES)
    if goal is not None:
        return goal
    if mode == "keep":
        return lambda differences, correct: bool(correct.all())
    return lambda differences, correct: not bool(correct.any())


# ---- controls


def random_sets(candidates: Sequence[int], n: int, draws: int = 20, seed: int = 0) -> list[list[int]]:
    """The first control: sets of as many latents, drawn from those that are active.

    Args:
        candidates: what to draw from.
        n: how many latents each has.
        draws: how many sets.
        seed: the same seed gives the same sets.

    Returns:
        The sets.

    Raises:
        InputError: fewer candidates than that.
    """
    if n > len(candidates):
        raise InputError(f"a set of {n} latents cannot be drawn from {len(candidates)} candidates.")
    dice = torch.Generator().manual_seed(seed)
    return [[candidates[i] for i in torch.randperm(len(candidates), generator=dice)[:n].tolist()]
            for _ in range(draws)]


def matched_sets(
    latents: Sequence[int], activation: Tensor, draws: int = 20, seed: int = 0, among: int = 5
) -> list[list[int]]:
    """The second control: sets of other latents that are about as active, member for member.

    Args:
        latents: the set to match.
        activation: [d_sae] how active each latent is, `bench.activation.sum(0)`; those at zero are never drawn.
        draws: how many sets.
        seed: the same seed gives the same sets.
        among: each member's stand-in is drawn from so many that come nearest to it and are not taken yet.

    Returns:
        The sets. None contains a member of the set matched.

    Raises:
        InputError: too few other latents are active, or a latent is not among those of `activation`.
    """
    check_tensor(activation, "activation", shape="d_sae")
    latents = taken_out(latents, len(activation))
    others = [j for j in (activation > 0).nonzero().flatten().tolist() if j not in set(latents)]
    if len(others) < len(latents):
        raise InputError(f"{len(latents)} latents are to be matched, but only {len(others)} others are active.")
    dice = torch.Generator().manual_seed(seed)
    sets = []
    for _ in range(draws):
        free, chosen = list(others), []
        for i in torch.randperm(len(latents), generator=dice).tolist():
            distance = (activation[free] - activation[latents[i]]).abs()
            near = distance.argsort()[: check_count(among, "among")].tolist()
            chosen.append(free.pop(near[int(torch.randint(len(near), (1,), generator=dice))]))
        sets.append(chosen)
    return sets


def random_by_layer(
    bench: LayerBench, nodes: Sequence[int], draws: int = 20, seed: int = 0, by: Sequence[str] = ("hook",)
) -> list[list[int]]:
    """The first control for several layers: random sets with as many nodes in each layer as a set has.

    Args:
        bench: model, SAEs and facts.
        nodes: the set.
        draws: how many sets.
        seed: the same seed gives the same sets.
        by: what they have in common with it, columns of `LayerBench.table`; with ("hook", "position") there are as
            many at each position of a layer, too.

    Returns:
        The sets, drawn from the candidates. They may contain members of the set itself.

    Raises:
        InputError: a node, or a column, that there is not.
    """
    drawn = [random_sets(there, len(mine), draws, seed + i) for i, (mine, there) in enumerate(_parts(bench, nodes, by))]
    return [sum(parts, []) for parts in zip(*drawn, strict=True)]


def matched_by_layer(
    bench: LayerBench, nodes: Sequence[int], draws: int = 20, seed: int = 0, among: int = 5,
    by: Sequence[str] = ("hook",),
) -> list[list[int]]:
    """The second control for several layers: in each layer other nodes, about as active, member for member.

    Args:
        bench: model, SAEs and facts.
        nodes: the set.
        draws: how many sets.
        seed: the same seed gives the same sets.
        among: as for `matched_sets`.
        by: as for `random_by_layer`.

    Returns:
        The sets. None contains a member of the set matched.

    Raises:
        InputError: too few other nodes of a layer are active, or a node, or a column, that there is not.
    """  # fmt: skip
    total, drawn = bench.activation.sum(0), []
    for i, (mine, there) in enumerate(_parts(bench, nodes, by)):
        of_the_layer = torch.zeros_like(total)
        of_the_layer[there] = total[there]
        drawn.append(matched_sets(mine, of_the_layer, draws, seed + i, among))
    return [sum(parts, []) for parts in zip(*drawn, strict=True)]


def _parts(bench: LayerBench, nodes: Sequence[int], by: Sequence[str]) -> list[tuple[list[int], list[int]]]:
    """For each layer in which a set has nodes: those, and all candidates there."""
    mine, all_of_them = bench.table(nodes), bench.table()
    for column in by:
        if column not in mine:
            raise unknown_name("column", column, mine.columns)
    there = all_of_them.groupby(list(by))["node"].agg(list)
    return [(part["node"].tolist(), there.get(key if len(by) > 1 else key[0], []))
            for key, part in mine.groupby(list(by))]


def compare_sets(bench: AnyBench, sets: Mapping[str, Sequence[Sequence[int]]], mode: str = "keep") -> pd.DataFrame:
    """Sets of latents beside their controls.

    Args:
        bench: model, SAE and facts.
        sets: a name for each kind of set, with one set or several draws of it.
        mode: "keep" or "remove".

    Returns:
        One row per name, with n_latents and activation (means over the draws), share (mean faithfulness, see the head
        of this file; what is left of it, with "remove"), low and high (its smallest and largest), and correct: the
        share of facts completed.

    Raises:
        InputError: no sets, an unknown mode, or a latent that the SAE does not have.
    """
    if not sets:
        raise InputError("sets: expected at least one name and its sets, got none.")
    rows = []
    for name, draws in sets.items():
        differences, correct = bench.each(draws, mode)
        shares = [bench.share(x) for x in differences.mean(1).tolist()]
        rows.append({
            "set": name, "n_latents": sum(map(len, draws)) / len(draws),
            "activation": sum(bench.activation[:, list(s)].sum().item() for s in draws) / len(draws),
            "share": sum(shares) / len(shares), "low": min(shares), "high": max(shares),
            "correct": correct.float().mean().item(),
        })  # fmt: skip
    return pd.DataFrame(rows)
