"""What many probes on many tasks say together, with intervals: the tasks are a sample, too."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from solutions.analysis.means import bootstrap_mean
from solutions.errors import InputError, check_count, unknown_name

#: Columns that tell one draw of one task from the others.
DRAW = ["task", "seed"]


def probe_means(
    table: pd.DataFrame, by: Sequence[str] = ("probe",), value: str = "auc", *, samples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """The mean over tasks, and where it might have been with other tasks: a bootstrap over tasks.

    Draws of one task are averaged first: they share the task, and are no independent evidence.

    Args:
        table: from `compare_probes`, or several of them one after the other with columns of your own.
        by: columns; a mean for each combination of their values.
        value: the column that is averaged.
        samples: how often the tasks are drawn anew, with replacement.
        seed: of the draws.

    Returns:
        The columns of `by`, then mean, low and high (from 2.5 % to 97.5 % of the bootstrap) and tasks (how many;
        those without a value are left out).

    Raises:
        InputError: a column is missing.
    """
    _need(table, [*by, "task", value])
    check_count(samples, "samples")
    rows = []
    for keys, part in table.groupby(list(by), sort=False, dropna=False):
        of_task = part.groupby("task")[value].mean().to_numpy()
        rows.append([*keys, *bootstrap_mean(of_task, samples, seed)])
    return pd.DataFrame(rows, columns=[*by, "mean", "low", "high", "tasks"])


def probe_differences(
    table: pd.DataFrame, probe: str, against: str, by: Sequence[str] = (), value: str = "auc", *,
    samples: int = 1000, seed: int = 0,
) -> pd.DataFrame:
    """How much better one probe is than another, task by task and draw by draw.

    A paired comparison says more than two means with overlapping intervals: hard tasks are hard for both.

    Args:
        table: from `compare_probes`.
        probe: its name.
        against: the name of the other.
        by: columns of your own, for instance the number of examples; a difference for each combination.
        value: the column that is compared.
        samples: as for `probe_means`.
        seed: as for `probe_means`.

    Returns:
        The columns of `by`, then mean, low, high and tasks as in `probe_means`, and wins, the share of tasks on
        which the first is ahead, on the mean of the draws.

    Raises:
        InputError: a column or a probe is missing.
    """
    _need(table, [*by, *DRAW, "probe", value])
    for name in (probe, against):
        if name not in set(table["probe"]):
            raise unknown_name("probe", name, list(dict.fromkeys(table["probe"])))
    index = [*by, *DRAW]
    one, other = (table[table["probe"] == name].set_index(index)[value] for name in (probe, against))
    apart = (one - other).dropna().rename("difference").reset_index()
    whole = apart.assign(_all=0)
    keys = list(by) or ["_all"]
    means = probe_means(whole, keys, "difference", samples=samples, seed=seed)
    ahead = whole.groupby([*keys, "task"], sort=False)["difference"].mean() > 0
    means["wins"] = ahead.groupby(level=keys, sort=False).mean().to_numpy()
    return means.drop(columns="_all", errors="ignore")


def best_probes(table: pd.DataFrame, probes: Sequence[str], name: str, by: Sequence[str] = ()) -> pd.DataFrame:
    """What somebody gets who has several kinds of probe, and takes for each task the one that looks best.

    The choice is made by cross-validation on the examples, so it can be wrong. Compare a set of kinds with the same
    set and one more: the difference is what the one more is worth (the "quiver of arrows" of Kantamneni et al. 2025,
    section 3).

    Args:
        table: from `compare_probes`.
        probes: the kinds to choose from.
        name: what to call the result.
        by: columns of your own that tell the settings apart.

    Returns:
        A row for each draw (and setting), as in `table`, with `name` for its probe and the kind in `chosen`.

    Raises:
        InputError: a column or a probe is missing, or there is nothing to choose from.
    """
    _need(table, [*by, *DRAW, "probe", "loss"])
    for kind in probes:
        if kind not in set(table["probe"]):
            raise unknown_name("probe", kind, list(dict.fromkeys(table["probe"])))
    some = table[table["probe"].isin(list(probes))].reset_index(drop=True)
    if some.empty:
        raise InputError("probes: expected at least one to choose from, got none.")
    best = some.loc[some.groupby([*by, *DRAW], sort=False)["loss"].idxmin()]
    return best.assign(chosen=best["probe"], probe=name).reset_index(drop=True)


def _need(table: pd.DataFrame, columns: Sequence[str]) -> None:
    missing = [c for c in columns if c not in table]
    if missing:
        raise InputError(f"table: expected the columns {', '.join(missing)}, found {', '.join(map(str, table))}.")
