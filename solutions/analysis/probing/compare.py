"""Probes side by side: the same examples, the same folds, the same penalties to choose from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from solutions.analysis.bases.compare import LOOKUP, average_precisions
from solutions.analysis.probing.logistic import fit_logistic
from solutions.analysis.probing.tasks import ProbeTask, draw_examples
from solutions.analysis.residue import roc_auc
from solutions.analysis.shapes import check_axes, same_length
from solutions.errors import InputError, check_count

#: Penalties to choose from, for every probe alike; the weights are those of standardised inputs.
PENALTIES = (0.01, 0.1, 1.0, 10.0)
#: Numbers of units to choose from, for sparse probes: those of Kantamneni et al. 2025.
SIZES = (16, 128)
#: Parts of the cross-validation.
FOLDS = 3
#: Tokens of the train side, without labels, from which means and scales are taken.
POOL = 2000
#: A unit whose scale is not above this is left out: dividing by it would make its first activation enormous.
SILENT = 1e-6
#: The lookup knows every token this many times from elsewhere, half of them with the concept.
SMOOTHING = 1.0


class FittedProbe(NamedTuple):
    """A probe, and how it came about."""

    weight: Tensor  #: [k], of standardised units
    bias: Tensor    #: 0-d
    units: Tensor   #: [k] int64, which units it reads, the most telling first for a sparse probe
    mean: Tensor    #: [k], taken off first
    scale: Tensor   #: [k], divided by
    penalty: float  #: the chosen one
    loss: float     #: mean cross-entropy on the parts left out, in nats; by this it was chosen

    def score(self, features: Tensor) -> Tensor:
        """How strongly it says yes: the log-odds.

        Args:
            features: [tokens, units], all units.

        Returns:
            [tokens].

        Raises:
            InputError: no [tokens, units].
        """
        check_axes("features", features, "tokens", "units")
        return (features[:, self.units] - self.mean) / self.scale @ self.weight + self.bias


def fit_cross_validated(
    x: Tensor, y: Tensor, *, mean: Tensor | None = None, scale: Tensor | None = None,
    sizes: Sequence[int] | None = None, penalties: Sequence[float] = PENALTIES, folds: int = FOLDS,
) -> FittedProbe:
    """Logistic regression whose penalty, and number of units, are chosen by cross-validation.

    Chosen is what has the smallest cross-entropy on the parts left out; then it is fitted once more on all examples.
    A sparse probe reads the k units whose means with and without the concept differ most, in units of their scale
    (Gurnee et al. 2023, section 3). It chooses them anew for every part left out: units chosen with the help of a
    part would flatter the probe on it.

    Args:
        x: [n, units], examples in no order.
        y: [n] bool.
        mean, scale: [units], to standardise by; by default those of x.
        sizes: numbers of units to choose from; by default all units are read.
        penalties: of the squared weights, to choose from.
        folds: parts of the cross-validation, each with its share of either kind.

    Returns:
        The probe.

    Raises:
        InputError: examples and labels that do not fit, or fewer of a kind than parts.
    """
    check_axes("x", x, "examples", "units")
    same_length(x=x, y=y)
    own = _mean_and_scale(x)
    standard = (own[0] if mean is None else mean), (own[1] if scale is None else scale)
    return _fit_all([x], [y], standard, sizes, penalties, folds)[0]


def _fit_all(
    xs: Sequence[Tensor], ys: Sequence[Tensor], standard: tuple[Tensor, Tensor], sizes: Sequence[int] | None,
    penalties: Sequence[float], folds: int,
) -> list[FittedProbe]:
    """`fit_cross_validated` for several sets of equally many examples at once, which takes less time."""
    mean, scale = standard
    scale = torch.where(scale > SILENT, scale, torch.inf)         # a unit that never changes says nothing
    x, y = (torch.stack(list(xs)) - mean) / scale, torch.stack(list(ys))      # [sets, n, units], [sets, n]
    part = torch.stack([_parts(labels, folds) for labels in y])
    # For each part left out, a fit on the others; and last, one on all examples, which is the one to be kept.
    counted = torch.stack([part != f for f in range(folds + 1)], dim=1)       # [sets, folds + 1, n]
    if sizes is None:
        tried = [(None, *_left_out(x, y, counted, penalties))]
    else:
        most = max(check_count(k, "sizes") for k in sizes)
        if most > x.shape[2]:
            raise InputError(f"sizes: expected at most {x.shape[2]} (the number of units), got {most}.")
        ranked = _telling(x, y, counted, most)                                # [sets, folds + 1, most]
        tried = [(ranked[:, -1, :k], *_left_out(_read(x, ranked[..., :k]), y, counted, penalties)) for k in sizes]
    losses = torch.stack([loss for _, _, _, loss in tried])                   # [sizes, penalties, sets]
    made = []
    for i in range(len(x)):
        size, chosen = divmod(int(losses[:, :, i].argmin()), len(penalties))
        ranked, weight, bias, loss = tried[size]
        units = torch.arange(x.shape[2]) if ranked is None else ranked[i]
        made.append(FittedProbe(weight[chosen, i], bias[chosen, i], units, mean[units], scale[units],
                                float(penalties[chosen]), float(loss[chosen, i])))
    return made


def _parts(y: Tensor, folds: int) -> Tensor:
    """The part each example belongs to, [n]: every part has its share of either kind."""
    check_count(folds, "folds", least=2)
    part = torch.empty(len(y), dtype=torch.long)
    for kind in (y, ~y):
        if int(kind.sum()) < folds:
            raise InputError(f"y: expected at least {folds} examples with and without the concept, one for each part "
                             f"of the cross-validation; got {int(y.sum())} with it of {len(y)}.")
        part[kind] = torch.arange(int(kind.sum())) % folds
    return part


def _telling(x: Tensor, y: Tensor, counted: Tensor, k: int) -> Tensor:
    """The k units whose means with and without the concept differ most, on what counts: [sets, parts, k]."""
    yes, no = (counted & y[:, None]).to(x), (counted & ~y[:, None]).to(x)
    apart = yes @ x / yes.sum(2, keepdim=True) - no @ x / no.sum(2, keepdim=True)
    return apart.abs().topk(k, dim=2).indices


def _read(x: Tensor, units: Tensor) -> Tensor:
    """Of x [sets, n, units] what each part reads, [sets × parts, n, k]."""
    sets, parts, k = units.shape
    return x[:, None].expand(-1, parts, -1, -1).gather(
        3, units[:, :, None].expand(-1, -1, x.shape[1], -1)).reshape(sets * parts, -1, k)


def _left_out(
    x: Tensor, y: Tensor, counted: Tensor, penalties: Sequence[float]
) -> tuple[Tensor, Tensor, Tensor]:
    """The probes that were fitted on everything, and what such probes cost on the parts left out.

    x: [sets, n, d], or [sets × parts, n, d] where every part reads its own units; y: [sets, n]; counted: [sets, parts,
    n], of which the last part leaves nothing out.

    Returns weights [penalties, sets, d], biases [penalties, sets] and mean cross-entropies [penalties, sets].
    """
    sets, parts, n = counted.shape
    alone = len(x) > sets
    weight, bias = fit_logistic(x, y.repeat_interleave(parts, 0) if alone else y, penalties,
                                counted.flatten(0, 1)[:, None] if alone else counted)
    said = (weight @ x.mT + bias[..., None]).view(len(penalties), sets, parts, n)
    losses = F.binary_cross_entropy_with_logits(said, y[:, None].to(said).expand_as(said), reduction="none")
    weight, bias = weight.view(len(penalties), sets, parts, -1), bias.view(len(penalties), sets, parts)
    return weight[:, :, -1], bias[:, :, -1], (losses * ~counted).sum((2, 3)) / n


def lookup_scores(seen: Tensor, y: Tensor, ids: Tensor) -> Tensor:
    """The log-odds of a concept given only the token, counted on examples; 0 for a token that was not seen.

    Args:
        seen: [n] int, the examples' tokens.
        y: [n] bool.
        ids: [tokens] int, what is asked about.

    Returns:
        [tokens].
    """
    size = int(max(seen.max(), ids.max())) + 1
    with_it, all_ = (torch.bincount(part, minlength=size).double() for part in (seen[y], seen))
    return torch.log((with_it + SMOOTHING / 2) / (all_ - with_it + SMOOTHING / 2))[ids]


def compare_probes(
    features: Mapping[str, Tensor], ids: Tensor, tasks: Sequence[ProbeTask], *,
    n: int = 256, positives: float = 0.5, noise: float = 0.0, seeds: int = 3, sparse: Sequence[str] = (),
    sizes: Sequence[int] = SIZES, penalties: Sequence[float] = PENALTIES, folds: int = FOLDS, n_test: int = 4000,
    progress: bool = False,
) -> pd.DataFrame:
    """Train a probe of every kind for every task on the same few examples, and judge all on the same test tokens.

    Fair in both directions: for each task and seed all see the same examples with the same (perhaps wrong) labels,
    choose among the same penalties with the same parts, and are standardised by what the train side looks like
    without its labels. Beside them stands the token lookup, which reads no activation.

    After Kantamneni et al. 2025 (section 3), with the differences that the penalty is chosen by cross-entropy, not by
    AUC, which takes few values on few examples, and that an example is one token.

    Args:
        features: name → [tokens, units], for instance activations and latents.
        ids: [tokens] int, the tokens themselves.
        tasks: from `probe_tasks` or `shifted_tasks`.
        n, positives, noise: of the examples; see `draw_examples`.
        seeds: how many draws of examples for each task.
        sparse: names in `features` whose probes may read only a few units; how many is chosen from `sizes`.
        sizes, penalties, folds: see `fit_cross_validated`.
        n_test: so many tokens of the test side are judged, at most; the same for all draws.
        progress: whether to show a bar.

    Returns:
        A row for each probe, task and seed, with the columns probe, task, seed, auc, average_precision (both on test
        tokens), loss (the cross-entropy by which it was chosen), k (units read) and penalty (none for the lookup).

    Raises:
        InputError: tensors that do not fit together, an unknown name, or too few tokens.

    Example:
        >>> text = labelled_tokens(labelled_texts(model, 100))
        >>> numbers = {"token number": text.ids[:, None].float()}
        >>> compare_probes(numbers, text.ids, probe_tasks(text, ["noun"]), n=64)["probe"].unique().tolist()
        ['token number', 'token lookup']
    """
    _check(features, ids, tasks, sparse)
    check_count(seeds, "seeds")
    check_count(n_test, "n_test")
    sides, rows = None, []
    for task in tqdm(tasks, disable=not progress, desc="tasks"):
        if sides is None or not sides.fit(task):
            sides = _Sides.of(features, task, n_test)
        judged, holds = sides.judged, task.y[sides.judged]
        drawn = [draw_examples(task, n, positives, noise, seed) for seed in range(seeds)]
        for name, x in features.items():
            probes = _fit_all([x[places] for places, _ in drawn], [y for _, y in drawn], sides.standard[name],
                              sizes if name in sparse else None, penalties, folds)
            rows += [[name, task.name, seed, *_judge(probe.score(sides.features[name]), holds), probe.loss,
                      len(probe.units), probe.penalty] for seed, probe in enumerate(probes)]
        for seed, (places, y) in enumerate(drawn):
            said, loss = lookup_scores(ids[places], y, ids[judged]), _lookup_loss(ids[places], y, folds)
            rows.append([LOOKUP, task.name, seed, *_judge(said, holds), loss, 1, None])
    return pd.DataFrame(rows, columns=["probe", "task", "seed", "auc", "average_precision", "loss", "k", "penalty"])


def _check(features: Mapping[str, Tensor], ids: Tensor, tasks: Sequence[ProbeTask], sparse: Sequence[str]) -> None:
    check_axes("ids", ids, "tokens")
    if not features or not tasks:
        raise InputError(f"Expected at least one kind of features and one task, got {len(features)} and {len(tasks)}.")
    if LOOKUP in features:
        raise InputError(f"features: {LOOKUP!r} is the name of the baseline. Call yours something else.")
    for name, x in features.items():
        check_axes(name, x, "tokens", "units")
        same_length(**{"ids": ids, "tasks": tasks[0].y, name.replace(" ", "_"): x})
    if unknown := [name for name in sparse if name not in features]:
        raise InputError(f"sparse: expected names in features ({', '.join(features)}), got {unknown}.")


def _some(mask: Tensor, most: int, seed: int = 0) -> Tensor:
    """At most so many places of a mask, drawn evenly."""
    places = mask.nonzero().flatten()
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed))
    return places[order[:most]]


class _Sides(NamedTuple):
    """What depends on where examples are drawn and judged only, and is the same for many tasks."""

    task: ProbeTask
    judged: Tensor                                #: [tests] int64
    features: dict[str, Tensor]                   #: name → [tests, units], of what is judged
    standard: dict[str, tuple[Tensor, Tensor]]    #: name → mean and scale, [units]

    @classmethod
    def of(cls, features: Mapping[str, Tensor], task: ProbeTask, n_test: int) -> _Sides:
        judged, pool = _some(task.test, n_test), _some(task.train, POOL)
        return cls(task, judged, {name: x[judged] for name, x in features.items()},
                   {name: _mean_and_scale(x[pool]) for name, x in features.items()})

    def fit(self, task: ProbeTask) -> bool:
        return task.train is self.task.train and task.test is self.task.test


def _mean_and_scale(x: Tensor) -> tuple[Tensor, Tensor]:
    mean = x.mean(0)
    return mean, (x - mean).square().mean(0).sqrt()


def _judge(said: Tensor, holds: Tensor) -> Iterator[float]:
    yield float(roc_auc(said, holds))
    yield float(average_precisions(said[:, None], holds[:, None])[0])


def _lookup_loss(ids: Tensor, y: Tensor, folds: int) -> float:
    """The lookup's mean cross-entropy on the parts left out, as for the other probes."""
    part, total = _parts(y, folds), 0.0
    for f in range(folds):
        out = part == f
        said = lookup_scores(ids[~out], y[~out], ids[out])
        total += float(F.binary_cross_entropy_with_logits(said, y[out].to(said), reduction="sum"))
    return total / len(y)
