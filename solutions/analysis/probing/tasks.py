"""What a probe has to learn, from which tokens, and on which it is judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from solutions.analysis.shapes import check_axes, same_length
from solutions.errors import InputError, check_count, unknown_name

if TYPE_CHECKING:
    from solutions.analysis.bases.compare import LabelledTokens


class ProbeTask(NamedTuple):
    """One thing to tell from the rest: which tokens may be learned from, and which are to be judged."""

    name: str      #: what is to be told
    y: Tensor      #: [tokens] bool: it holds here
    train: Tensor  #: [tokens] bool: examples may be drawn here
    test: Tensor   #: [tokens] bool: the probe is judged here


def probe_tasks(text: LabelledTokens, concepts: Sequence[str] | None = None, least: int = 50) -> list[ProbeTask]:
    """One task for each concept: learn it on the train documents, be judged on the test documents.

    Args:
        text: from `labelled_tokens`.
        concepts: their names; by default all that are common enough.
        least: tokens with the concept, and without it, that there have to be on either side.

    Returns:
        The tasks, in the order of the concepts.

    Raises:
        InputError: there is no such concept, or one that was named, or every one, is too rare.
    """
    check_count(least, "least")
    tasks, train = [], ~text.test
    for name in text.concepts if concepts is None else concepts:
        if name not in text.concepts:
            raise unknown_name("concept", name, text.concepts)
        task = ProbeTask(name, text.labels[:, text.concepts.index(name)], train, text.test)
        short = _short_of(task, least)
        if short and concepts is not None:
            raise InputError(f"{name!r} has {short}; expected at least {least}. Read more texts, or leave it out.")
        if not short:
            tasks.append(task)
    if not tasks:
        raise InputError(f"no concept has {least} tokens with it and without it on both sides. Read more texts.")
    return tasks


def choose_tasks(tasks: Sequence[ProbeTask], groups: Mapping[str, str], per_group: int = 1) -> list[ProbeTask]:
    """Some tasks by a rule that was fixed beforehand: of each group of concepts the rarest.

    Whoever picks tasks by hand can have any result. Rare concepts are seldom single words that are easy to tell.

    Args:
        tasks: from `probe_tasks` or `shifted_tasks`.
        groups: concept → group, from `concept_groups`.
        per_group: so many of each, at most.

    Returns:
        The chosen ones, in the order in which they came.

    Raises:
        InputError: a task without a group.
    """
    check_count(per_group, "per_group")
    if unknown := [task.name for task in tasks if task.name not in groups]:
        raise InputError(f"groups: expected a group for every task, found none for {', '.join(unknown)}.")
    chosen: dict[str, list[str]] = {}
    for task in sorted(tasks, key=lambda task: int((task.y & task.train).sum())):
        names = chosen.setdefault(groups[task.name], [])
        names.extend([task.name] if len(names) < per_group else [])
    kept = {name for names in chosen.values() for name in names}
    return [task for task in tasks if task.name in kept]


def shifted_tasks(
    tasks: Sequence[ProbeTask], seen: Tensor | Mapping[str, Tensor], least: int = 50
) -> list[ProbeTask]:
    """The same tasks with a gap between what is learned from and what is judged: covariate shift.

    A probe sees examples only where `seen` holds, and is judged only where it does not. Let `seen` be some kinds
    of text, and the others are new to the probe; let it be some words, and it is judged on words that it never saw.

    Args:
        tasks: from `probe_tasks`.
        seen: [tokens] bool; or name of the task → [tokens] bool, when it differs from task to task.
        least: as for `probe_tasks`. Tasks that are too rare on either side of the gap are left out.

    Returns:
        The tasks that are left.

    Raises:
        InputError: a mask for other tokens, or no task is left.
    """
    check_count(least, "least")
    found = []
    for task in tasks:
        mask = seen[task.name] if isinstance(seen, Mapping) else seen
        check_axes("seen", mask, "tokens")
        same_length(seen=mask, tokens=task.y)
        moved = task._replace(train=task.train & mask, test=task.test & ~mask)
        if not _short_of(moved, least):
            found.append(moved)
    if not found:
        raise InputError(f"no task has {least} tokens of either kind on both sides of the gap. Read more texts.")
    return found


def half_of_groups(y: Tensor, group: Tensor) -> Tensor:
    """Deal groups of tokens, for instance words or kinds of text, to two halves; for `shifted_tasks`.

    Groups with the concept go first, those with most of it before the others, each to the half that has less of it
    so far. Then the groups without it go to the half that has fewer tokens without it.

    Args:
        y: [tokens] bool, the concept.
        group: [tokens] int, the group that each token belongs to.

    Returns:
        [tokens] bool, the first half. No group is in both.

    Raises:
        InputError: tensors that do not fit together.

    Example:
        >>> y = torch.tensor([True, True, True, False, False])
        >>> half_of_groups(y, torch.tensor([5, 5, 8, 3, 8]))
        tensor([ True,  True, False,  True, False])
    """
    check_axes("y", y, "tokens")
    check_axes("group", group, "tokens")
    same_length(y=y, group=group)
    names, which = group.unique(return_inverse=True)
    with_it = torch.bincount(which[y], minlength=len(names))
    without = torch.bincount(which, minlength=len(names)) - with_it
    rank = torch.where(with_it > 0, with_it + int(without.max()), without)      # those with the concept come first
    first = torch.zeros(len(names), dtype=torch.bool)
    dealt = [[0, 0], [0, 0]]                                      # half → with it, without
    for g in rank.argsort(descending=True, stable=True).tolist():
        counted = 0 if with_it[g] else 1
        half = int(dealt[1][counted] < dealt[0][counted])
        first[g] = half == 0
        dealt[half][0] += int(with_it[g])
        dealt[half][1] += int(without[g])
    return first[which]


def draw_examples(
    task: ProbeTask, n: int, positives: float = 0.5, noise: float = 0.0, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """The examples that a probe may learn from.

    Args:
        task: what is to be learned.
        n: how many examples.
        positives: the share of them with the concept. It is 0.5 however rare the concept is in the text.
        noise: the share of examples that get the wrong label, drawn from all alike.
        seed: of the draw.

    Returns:
        Places [n] int64, which are tokens of the train side in no order, and labels [n] bool, wrong ones among them.

    Raises:
        InputError: there are not that many, or a share cannot be.
    """
    check_count(n, "n", least=2)
    if not 0 < positives < 1 or not 0 <= noise < 0.5:
        raise InputError(f"Expected positives between 0 and 1 and noise from 0 to below 0.5, got {positives} and "
                         f"{noise}.")
    dice = torch.Generator().manual_seed(seed)
    wanted = min(max(round(positives * n), 1), n - 1)
    drawn = []
    for kind, many in ((task.y, wanted), (~task.y, n - wanted)):
        pool = (task.train & kind).nonzero().flatten()
        if len(pool) < many:
            raise InputError(f"{task.name!r}: expected {many} train tokens "
                             f"{'with' if kind is task.y else 'without'} it to draw from, found {len(pool)}. "
                             "Ask for fewer examples, or read more texts.")
        drawn.append(pool[torch.randperm(len(pool), generator=dice)[:many]])
    places = torch.cat(drawn)[torch.randperm(n, generator=dice)]
    wrong = torch.zeros(n, dtype=torch.bool)
    wrong[torch.randperm(n, generator=dice)[:round(noise * n)]] = True
    return places, task.y[places] ^ wrong


def _short_of(task: ProbeTask, least: int) -> str:
    """What the task has too little of, in words; nothing when it has enough."""
    for side, mask in (("train", task.train), ("test", task.test)):
        for kind, holds in (("with", task.y), ("without", ~task.y)):
            if (n := int((mask & holds).sum())) < least:
                return f"{n} {side} tokens {kind} it"
    return ""
