"""Bases, or anything else with a name, compared in several measures or in several groups: a panel for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from solutions.errors import InputError
from solutions.visualization.style import BLUE, GREY, ORANGE, check_columns, escape, finish, plain

ROW = 25  # pixels for each name


def dot_panels(
    table: pd.DataFrame, rows: str = "basis", measures: Mapping[str, str] | None = None, panels: str | None = None,
    highlight: Sequence[str] = (), controls: Sequence[str] = (), x_range: tuple[float, float] | None = None,
    title: str | None = None,
) -> go.Figure:
    """A line per name in each panel: a dot at the mean, a bar from the first quartile to the third.

    The panels stand below one another, so that long names can be read on a phone.

    Args:
        table: long, for instance one row for each basis and concept. Rows that agree in `rows` (and in `panels`)
            are averaged; where there is only one, there is no bar.
        rows: the column with the names that are compared. They keep the order in which they come.
        measures: column to name of the axis, unit in brackets; by default `f1`.
        panels: a column, for instance the concept's group, each value of which gets a panel. Without it every
            measure gets one.
        highlight: names drawn in orange, as diamonds.
        controls: names drawn in grey, as open circles: baselines and controls.
        x_range: ends of the axis of all panels.
        title: what stands above the figure; nothing by default.

    Returns:
        The figure.

    Raises:
        InputError: a column or a name is missing, or there is nothing to draw.
    """
    measures = dict(measures or {"f1": "F1"})
    check_columns(table, [rows, *measures, *([panels] if panels else [])])
    if panels and len(measures) != 1:
        raise InputError(f"measures: with a panel for each {panels!r} expected one measure, got {list(measures)}.")
    names = [str(name) for name in dict.fromkeys(table[rows].dropna())]
    unknown = [name for name in (*highlight, *controls) if name not in names]
    if not names or unknown:
        raise InputError(f"{rows}: expected at least one name, and those to mark among them; got {names}, but not "
                         f"{unknown}.")
    parts = _parts(table, measures, panels)
    figure = _grid(parts, len(names))
    said = []
    for panel, (head, part, column) in enumerate(parts, start=1):
        spread = part.assign(_name=part[rows].astype(str)).groupby("_name")[column].describe().reindex(names)
        for kind, colour, symbol in (("plain", BLUE, "circle"), ("highlight", ORANGE, "diamond"),
                                     ("control", GREY, "circle-open")):
            mine = [n for n in names if kind == ("highlight" if n in highlight else
                                                 "control" if n in controls else "plain")]
            places = [names.index(n) for n in mine]
            if mine:
                figure.add_trace(_bars(spread.loc[mine], places, colour), row=panel, col=1)
                figure.add_trace(_dots(spread.loc[mine], places, colour, symbol), row=panel, col=1)
        listed = ", ".join(f"{n} {v:.3g}" for n, v in spread["mean"].items() if v == v)
        said.append(f"{head}: {listed or 'nothing'}")
    height = len(parts) * (ROW * len(names) + 70) + 20 + (30 if title else 0)
    finish(figure, f"Dots, with bars from the first quartile to the third. {'; '.join(said)}.", height, title)
    for panel, (_, _, column) in enumerate(parts, start=1):
        if not panels or panel == len(parts):
            figure.update_xaxes(title_text="<br>".join(wrap(escape(measures[column]), 26)), row=panel, col=1)
        if panels and panel > 1:
            figure.update_xaxes(matches="x", row=panel, col=1)
        ends = x_range or _with_room(figure, "" if panel == 1 else str(panel), panels)
        figure.update_xaxes(range=ends, title_font_size=13, row=panel, col=1)
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=[escape(n) for n in names],
                        range=[len(names) - 0.5, -0.5], zeroline=False)
    figure.update_annotations(font_size=13, x=0, xanchor="left")
    return figure.update_layout(showlegend=False, margin_t=(64 if title else 34) if panels else (44 if title else 14))


def _parts(
    table: pd.DataFrame, measures: dict[str, str], panels: str | None
) -> list[tuple[str, pd.DataFrame, str]]:
    """What each panel shows: its heading, its rows of the table, and the measure."""
    if panels is None:
        return [(name, table, column) for column, name in measures.items()]
    column = next(iter(measures))
    found = [(str(value), part, column) for value, part in table.groupby(panels, sort=False)]
    if not found:
        raise InputError(f"table: no row has a {panels!r}, so there is no panel to draw.")
    return found


def _grid(parts: list, n_names: int) -> go.Figure:
    """The panels, with room between them for an axis and a heading."""
    heads = [escape(head) for head, _, _ in parts]
    total = len(parts) * ROW * n_names + 70 * (len(parts) - 1)
    return make_subplots(
        rows=len(parts), cols=1, vertical_spacing=70 / total if len(parts) > 1 else 0,
        subplot_titles=heads if len({column for *_, column in parts}) == 1 and len(parts) > 1 else None,
    )


def _bars(spread: pd.DataFrame, places: list[int], colour: str) -> go.Scatter:
    """From the first quartile to the third, where there is more than one value."""
    xs, ys = [], []
    for place, (_, row) in zip(places, spread.iterrows(), strict=True):
        if row["count"] > 1:
            xs += [*plain([float(row["25%"]), float(row["75%"])]), None]
            ys += [place, place, None]
    return go.Scatter(x=xs, y=ys, mode="lines", line={"color": colour, "width": 3}, opacity=0.5, hoverinfo="skip")


def _dots(spread: pd.DataFrame, places: list[int], colour: str, symbol: str) -> go.Scatter:
    """The means of one kind in one panel."""
    says = [
        f"{escape(str(name))}: mean {row['mean']:.3g}" + (
            f", middle half from {row['25%']:.3g} to {row['75%']:.3g}, {int(row['count'])} values"
            if row["count"] > 1 else "")
        for name, row in spread.iterrows()
    ]
    return go.Scatter(
        x=plain(spread["mean"].tolist()), y=places, mode="markers", hovertext=says,
        marker={"size": 11, "color": colour, "symbol": symbol, "line": {"width": 2, "color": colour}},
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _with_room(figure: go.Figure, axis: str, panels: str | None) -> list[float] | None:
    """Ends of an axis that leave room beside the outermost dots; panels that share a measure share them."""
    traces = [t for t in figure.data if panels or t.xaxis == f"x{axis}"]
    values = [x for t in traces for x in t.x if x is not None]
    if not values:
        return None
    room = 0.06 * (max(values) - min(values)) or 0.5
    return plain([min(values) - room, max(values) + room])
