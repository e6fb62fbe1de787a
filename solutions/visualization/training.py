"""Training SAEs as figures: the curves of a run, what every knob does, which SAE beats which, what was recovered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots
from torch import Tensor

from solutions.errors import InputError, unknown_name
from solutions.visualization.curves import DASHES
from solutions.visualization.style import (
    GREY,
    SEQUENTIAL,
    SERIES,
    SYMBOLS,
    as_tensor,
    check_columns,
    check_matrix,
    escape,
    faint,
    finish,
    plain,
)

#: What is worth watching while an SAE trains: column of the log, and the name of its axis.
WATCHED = {
    "loss": "loss (training units)",
    "l0": "L0 (latents per token)",
    "ev": "explained variance",
    "dead": "dead latents (%)",
}

#: Columns that are shares, and are shown in per cent.
SHARES = ("dead",)

#: Points of one curve: a run of a million steps is drawn with as many as one of a thousand.
POINTS = 150


def training_curves(
    logs: Mapping[str, pd.DataFrame] | pd.DataFrame, measures: Mapping[str, str] | None = None,
    x: str = "tokens", x_title: str = "tokens trained on", log_x: bool = False, title: str | None = None,
) -> go.Figure:
    """What happened in one training run or in several: a panel for each measure, a line for each run.

    Args:
        logs: the log of a run, or name to log. A log has a row for every step that was written down.
        measures: column to name of the axis; by default those of `WATCHED` that some log has. A log without
            a column is left out of that panel.
        x: the column along which.
        x_title: its name on the axis.
        log_x: a logarithmic axis.
        title: what stands above the figure; nothing by default.

    Returns:
        The figure.

    Raises:
        InputError: no log, an empty one, or one without the columns.

    Example:
        >>> from solutions.sae import failed_runs
        >>> figure = training_curves(failed_runs(), x="step", x_title="step")
        >>> len({line.name for line in figure.data})
        8
    """
    runs = {"": logs} if isinstance(logs, pd.DataFrame) else dict(logs)
    if not runs or any(len(log) == 0 for log in runs.values()):
        raise InputError("logs: expected at least one log, each with at least one row.")
    measures = dict(measures or {c: t for c, t in WATCHED.items() if any(c in log for log in runs.values())})
    for name, log in runs.items():
        if x not in log:
            raise unknown_name("column", x, [str(c) for c in log.columns], f"It is wanted of the log {name!r}.")
    drawn = [c for c in measures if any(c in log for log in runs.values())]
    if not drawn:
        raise unknown_name("measure", ", ".join(measures), sorted({str(c) for log in runs.values() for c in log}))
    figure, rows = _panels(len(drawn))
    said = []
    for p, column in enumerate(drawn):
        where = {"row": p // 2 + 1, "col": p % 2 + 1}
        factor = 100 if column in SHARES else 1
        for i, (name, log) in enumerate(runs.items()):
            if column not in log:
                continue
            kept = log[[x, column]].dropna()
            kept = kept.iloc[_spread(len(kept), log_x)]
            along, y = _whole(kept[x]), [factor * float(v) for v in kept[column]]
            figure.add_trace(_line(name, i, along, y, measures[column], p == 0), **where)
            if y:
                said.append(f"{(name + ', ') if name else ''}{measures[column]}: from {y[0]:.3g} to {y[-1]:.3g}")
        figure.update_yaxes(title_text=measures[column], **where)
        if column in SHARES:  # of nothing but zeros the axis would show negative shares
            figure.update_yaxes(rangemode="tozero", minallowed=0, **where)
    figure.update_xaxes(title_text=x_title, type="log" if log_x else "linear", nticks=4, tickangle=0)
    finish(figure, "Curves of a training run. " + "; ".join(said) + ".", 60 + 250 * rows + (30 if title else 0), title)
    return _legend(figure, len(runs) > 1, title)


def pareto(
    table: pd.DataFrame, group: str = "architecture", knob: str = "k", x: str = "l0",
    x_title: str = "L0 (per token)", measures: Mapping[str, str] | None = None, log_x: bool = True,
    title: str | None = None,
) -> go.Figure:
    """Which kind of SAE is better at the same sparsity: a panel for each measure, a line for each kind.

    Each point is one setting, the mean over its seeds; the bars reach from the lowest to the highest seed,
    in both directions. With three seeds anything more would pretend to know more.

    Args:
        table: one row for each trained SAE.
        group: the column that says which line a row belongs to.
        knob: the column that was turned along a line; rows that agree in it are seeds of one point.
        x: the column along which to compare.
        x_title: its name on the axis.
        measures: column to name of the axis; by default explained variance and ΔCE, where the table has them.
        log_x: a logarithmic axis.
        title: what stands above the figure; nothing by default.

    Returns:
        The figure.

    Raises:
        InputError: a column is missing, or there is nothing to draw.
    """
    known = {"ev": "explained variance", "explained_variance": "explained variance", "delta_ce": "ΔCE (nats per token)"}
    measures = dict(measures or {c: t for c, t in known.items() if c in table})
    check_columns(table, [group, knob, x, *measures])
    if not measures or not len(table):
        raise InputError("table: expected at least one row, and at least one measure to compare by.")
    figure, rows = _panels(len(measures))
    said = []
    for p, (column, y_title) in enumerate(measures.items()):
        where = {"row": p // 2 + 1, "col": p % 2 + 1}
        for i, (name, part) in enumerate(table.groupby(group, sort=False)):
            points = _over_seeds(part, knob, [x, column]).sort_values((x, "mean"))
            along, level = points[(x, "mean")].tolist(), points[(column, "mean")].tolist()
            colour = SERIES[i % len(SERIES)]
            trace = _line(str(name), i, plain(along, 4), level, y_title, p == 0, markers=True)
            trace.update(
                error_x=_bars(points, x, colour), error_y=_bars(points, column, colour),
                customdata=[f"{knob} {k:g}" if isinstance(k, int | float) else f"{knob} {k}" for k in points.index],
                hovertemplate=f"{escape(str(name))}, %{{customdata}}: L0 %{{x}}, %{{y}}<extra></extra>",
            )
            figure.add_trace(trace, **where)
            said.append(f"{name}: {y_title} from {level[0]:.3g} at {x_title} {along[0]:.3g} to {level[-1]:.3g} at "
                        f"{along[-1]:.3g}")
        figure.update_yaxes(title_text=y_title, **where)
    figure.update_xaxes(title_text=x_title, type="log" if log_x else "linear", exponentformat="B")
    if log_x:
        ends = [float(table[x].min()), float(table[x].max())]
        figure.update_xaxes(tickvals=_doublings(*ends))
    finish(figure, f"{x_title} against quality. " + "; ".join(said) + ".", 80 + 300 * rows, title)
    return _legend(figure, table[group].nunique() > 1, title)


def knobs(
    table: pd.DataFrame, turned: Mapping[str, str], measures: Mapping[str, str], knob: str = "knob",
    value: str = "value", log_x: Sequence[str] = (), title: str | None = None,
) -> go.Figure:
    """What each knob does: a row of panels for each knob, a column for each measure, the seeds as bars.

    A measure has one scale for all knobs, so that a flat line means a knob that hardly matters.

    Args:
        table: one row for each trained SAE. The column `knob` says which setting was moved away from the base,
            `value` where to.
        turned: which knobs to show, in this order, and the names of their axes.
        measures: column to name; at most four fit beside one another.
        knob: the column that says what was turned.
        value: the column that says where to.
        log_x: knobs that are turned by factors.
        title: what stands above the figure; nothing by default.

    Returns:
        The figure.

    Raises:
        InputError: a column or a knob is missing, or there are too many measures.
    """
    check_columns(table, [knob, value, *measures])
    missing = [name for name in turned if not (table[knob] == name).any()]
    if missing or not turned or not 1 <= len(measures) <= 4:
        raise InputError("turned, measures: expected knobs that are in the table and one to four measures, got "
                         f"{list(turned)} and {list(measures)}. Knobs: {', '.join(map(str, table[knob].unique()))}.")
    figure = make_subplots(rows=len(turned), cols=len(measures), horizontal_spacing=0.14,
                           vertical_spacing=0.3 / len(turned))
    said = []
    for r, (name, x_title) in enumerate(turned.items(), start=1):
        part = table[table[knob] == name]
        for c, (column, y_title) in enumerate(measures.items(), start=1):
            points = _over_seeds(part, value, [column]) * (100 if column in SHARES else 1)
            places, level = [float(v) for v in points.index], points[(column, "mean")].tolist()
            colour = SERIES[(c - 1) % len(SERIES)]
            trace = _line(x_title, c - 1, plain(places, 4), level, y_title, False, markers=True)
            figure.add_trace(trace.update(error_y=_bars(points, column, colour)), row=r, col=c)
            figure.update_yaxes(title_text=y_title, title_font_size=12, row=r, col=c,
                                matches=None if r == 1 else "y" if c == 1 else f"y{c}")
            said.append(f"{x_title} from {places[0]:g} to {places[-1]:g}: {y_title} from {level[0]:.3g} to "
                        f"{level[-1]:.3g}")
            ticks = sorted({places[0], places[-1]})  # on a phone, more would not fit
            figure.update_xaxes(type="log" if name in log_x else "linear", tickvals=plain(ticks, 4), row=r, col=c,
                                ticktext=[_short(v) for v in ticks], tickangle=0)
        figure.update_xaxes(title_text=x_title, row=r, col=(len(measures) + 1) // 2)  # once, below the middle
    alt = "What each knob does. " + "; ".join(said) + "."
    finish(figure, alt, 40 + 180 * len(turned) + (30 if title else 0), title)
    return figure.update_layout(showlegend=False)


def recovery(panels: Mapping[str, Tensor], x_title: str = "latent", y_title: str = "true feature",
             title: str | None = None) -> go.Figure:
    """Cosines of true features with what was found, one panel for each way of finding: a diagonal is a success.

    What points away from a feature is as empty as what has nothing to do with it.

    Args:
        panels: name to cosines [true features, found], arranged so that partners stand on the diagonal
            (`solutions.analysis.arrange`).
        x_title: name of the axis, with its unit in brackets.
        y_title: name of the axis, with its unit in brackets.
        title: what stands above the figure; nothing by default.

    Returns:
        The figure.

    Raises:
        InputError: there is nothing to draw.
    """
    if not panels:
        raise InputError("panels: expected at least one name and its matrix, got none.")
    for name, values in panels.items():
        check_matrix(name, values)
    same_truth = len({len(values) for values in panels.values()}) == 1
    figure = make_subplots(rows=1, cols=len(panels), subplot_titles=[escape(n) for n in panels],
                           horizontal_spacing=0.04, shared_yaxes=same_truth)
    said = []
    for c, (name, values) in enumerate(panels.items(), start=1):
        values = values.detach().cpu().float().clamp(min=0)
        figure.add_trace(
            go.Heatmap(
                z=plain(values, 2), zmin=0, zmax=1, colorscale=SEQUENTIAL, showscale=c == len(panels),
                colorbar={"title": {"text": "cosine", "side": "right"}, "thickness": 10, "outlinewidth": 0},
                hovertemplate=f"{y_title} %{{y}}, {x_title} %{{x}}: %{{z}}<extra>{escape(name)}</extra>",
            ),
            row=1, col=c,
        )
        diagonal = values.diagonal()
        said.append(f"{name}: on the diagonal {float(diagonal.mean()):.2f} on average, "
                    f"{int((diagonal >= 0.9).sum())} of {len(values)} above 0.9")
    alt = "Cosines of true features and what was found. " + "; ".join(said) + "."
    finish(figure, alt, 330 + (30 if title else 0), title)
    figure.update_xaxes(title_text=x_title, showgrid=False)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_yaxes(title_text=y_title, row=1, col=1)
    figure.update_annotations(font_size=12)
    return figure.update_layout(margin_t=60 if title else 34)


def matched_histogram(
    groups: Mapping[str, Tensor | Sequence[float]], at: float = 0.7, n_bins: int = 40,
    x_title: str = "cosine with the partner", title: str | None = None,
) -> go.Figure:
    """How like their partners matched latents are, group by group; a line marks from where on they count as the
    same.

    Put what chance gives beside them.

    Args:
        groups: name to the cosines of matched pairs (`Matching.cosine`).
        at: where the line stands.
        n_bins: of the histogram.
        x_title: name of the axis, with its unit in brackets.
        title: what stands above the figure; nothing by default.

    Returns:
        The figure.

    Raises:
        InputError: there is nothing to draw.
    """
    if not groups:
        raise InputError("groups: expected at least one group of cosines, got none.")
    tensors = {name: as_tensor(name, values) for name, values in groups.items()}
    low = min(0.0, math.floor(10 * min(float(t.min()) for t in tensors.values())) / 10)
    width = (1.0 - low) / n_bins
    centres = [low + (i + 0.5) * width for i in range(n_bins)]
    figure, said = go.Figure(), []
    for i, (name, values) in enumerate(tensors.items()):
        share = 100 * values.clamp(max=1.0).histc(n_bins, low, 1.0) / len(values)
        colour = SERIES[i % len(SERIES)]
        figure.add_trace(
            go.Scatter(
                x=plain(centres), y=plain(share), name=escape(name), mode="lines", fill="tozeroy",
                line={"color": colour, "shape": "hvh", "width": 2, "dash": DASHES[i % len(DASHES)]},
                fillcolor=faint(colour), hovertemplate=f"{escape(name)}: %{{y}} % near %{{x}}<extra></extra>",
            )
        )
        above = 100 * float((values >= at).float().mean())
        said.append(f"{name}: mean {float(values.mean()):.2f}, {above:.0f}% at {at:g} or more")
    line = {"color": GREY, "dash": "dash", "width": 2}
    figure.add_shape(type="line", x0=at, x1=at, y0=0, y1=1, yref="paper", line=line)
    finish(figure, f"Histogram of {x_title}. " + "; ".join(said) + ".", 360, title)
    figure.update_xaxes(title_text=x_title, range=[low, 1.02])
    figure.update_yaxes(title_text="share of the pairs (%)", rangemode="tozero")
    return _legend(figure, len(tensors) > 1, title)


# ---- small things the figures above share


def _panels(n: int) -> tuple[go.Figure, int]:
    """An empty figure with n panels, two in a row, and its number of rows."""
    rows = math.ceil(n / 2)
    spacing = {"horizontal_spacing": 0.14, "vertical_spacing": 0.3 / rows}
    return make_subplots(rows=rows, cols=min(n, 2), **spacing), rows


def _line(name: str, i: int, x: list, y: list, y_title: str, first: bool, markers: bool = False) -> go.Scatter:
    """One line of a panel; only the first panel's lines are named in the legend."""
    style = {"color": SERIES[i % len(SERIES)], "width": 2, "dash": DASHES[i // len(SERIES) % len(DASHES)]}
    said = f"{escape(name)}: " if name else ""
    return go.Scatter(
        x=x, y=plain(y, 4), name=escape(name) or None, legendgroup=name, showlegend=first and bool(name),
        mode="lines+markers" if markers else "lines", line=style, connectgaps=False,
        marker={"symbol": SYMBOLS[i % len(SYMBOLS)], "size": 8},
        hovertemplate=f"{said}{escape(y_title)} %{{y}} at %{{x}}<extra></extra>",
    )


def _spread(n: int, log: bool) -> list[int]:
    """Which of n rows to draw: all of a few, else `POINTS` of them, evenly spread over the axis."""
    if n <= POINTS:
        return list(range(n))
    spread = torch.logspace(0, math.log10(n), POINTS) - 1 if log else torch.linspace(0, n - 1, POINTS)
    return spread.round().long().clamp(0, n - 1).unique().tolist()


def _whole(values: pd.Series) -> list:
    """Counts as whole numbers, anything else rounded: 4096 tokens are not 4100."""
    return [int(v) if v.is_integer() else plain(v, 5) for v in values.astype(float).tolist()]


def _short(value: float) -> str:
    """A number as a short tick: 400k, 3e-4."""
    if value >= 1000 and (value / 1000).is_integer():
        return f"{value / 1000:g}k"
    return f"{value:.0e}".replace("e-0", "e-") if 0 < value < 0.01 else f"{value:g}"


def _over_seeds(part: pd.DataFrame, knob: str, columns: Sequence[str]) -> pd.DataFrame:
    """Mean, lowest and highest over the rows that agree in the knob, one row per setting in ascending order."""
    return part.groupby(knob)[list(dict.fromkeys(columns))].agg(["mean", "min", "max"])


def _bars(points: pd.DataFrame, column: str, colour: str) -> dict:
    """From the lowest to the highest seed, as Plotly's error bars."""
    mean, low, high = (points[(column, what)] for what in ("mean", "min", "max"))
    return {"type": "data", "symmetric": False, "array": plain((high - mean).tolist(), 2),
            "arrayminus": plain((mean - low).tolist(), 2), "color": colour, "thickness": 1.5, "width": 4}


def _doublings(low: float, high: float) -> list[float]:
    """Ticks of a logarithmic axis that people can read: 4, 8, 16, 32."""
    if not 0 < low <= high:
        raise InputError(f"a logarithmic axis needs numbers above zero, got {low:g} to {high:g}. Use log_x=False.")
    first, last = math.floor(math.log2(low)), math.ceil(math.log2(high))
    step = max(1, math.ceil((last - first) / 7))
    return [float(2**i) for i in range(first, last + 1, step)]


def _legend(figure: go.Figure, shown: bool, title: str | None) -> go.Figure:
    return figure.update_layout(showlegend=shown, margin_t=(70 if title else 44) if shown else (44 if title else 14))
