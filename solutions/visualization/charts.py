"""Distributions, comparisons, and the arrows of toy superposition."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots
from torch import Tensor

from solutions.errors import InputError
from solutions.visualization.style import (
    BLUE,
    ORANGE,
    SERIES,
    SYMBOLS,
    as_tensor,
    escape,
    faint,
    finish,
    plain,
)


def histogram(
    groups: Mapping[str, Tensor | Sequence[float]], x_title: str, y_title: str = "share (%)",
    n_bins: int = 40, log_y: bool = False, title: str | None = None,
) -> go.Figure:
    """Distributions of one quantity in several groups, over common bins, as shares of each group.

    The counting is done here: a figure carries a few dozen numbers, not the raw data.

    Args:
        groups: name to values.
        x_title: name of the axis, with its unit in brackets.
        y_title: name of the axis, with its unit in brackets.
        n_bins: of the histogram.
        log_y: a logarithmic axis for the shares.
        title: what stands above the figure; nothing by default.

    Returns:
        The figure.

    Raises:
        InputError: there is nothing to draw.

    Example:
        >>> figure = histogram({"alive": features[features > 0]}, "activation (SAE units)", n_bins=10)
        >>> round(sum(figure.data[0].y))
        100
    """
    tensors = {name: as_tensor(name, values) for name, values in groups.items()}
    if not tensors:
        raise InputError("groups: expected at least one group of values, got none.")
    low = min(float(t.min()) for t in tensors.values())
    high = max(float(t.max()) for t in tensors.values())
    high = high if high > low else low + 1.0
    width = (high - low) / n_bins
    centres = [low + (i + 0.5) * width for i in range(n_bins)]
    figure, parts = go.Figure(), []
    for (name, values), colour in zip(tensors.items(), SERIES * 3, strict=False):
        share = 100 * values.histc(n_bins, low, high) / len(values)
        figure.add_trace(
            go.Scatter(
                x=plain(centres), y=plain(share), name=escape(name), mode="lines",
                line={"color": colour, "shape": "hvh", "width": 2}, fill="tozeroy", fillcolor=faint(colour),
                hovertemplate=f"{escape(name)}: %{{y}} % near %{{x}}<extra></extra>",
            )
        )
        parts.append(f"{name}: mean {values.mean():.3g}, from {values.min():.3g} to {values.max():.3g}")
    finish(figure, f"Histogram of {x_title}. " + "; ".join(parts) + ".", 340, title)
    figure.update_xaxes(title=x_title)
    figure.update_yaxes(
        title=y_title, type="log" if log_y else "linear", rangemode="tozero" if not log_y else "normal"
    )
    figure.update_layout(showlegend=len(tensors) > 1, margin_t=44)
    return figure


def bars(
    values: Mapping[str, float], x_title: str, title: str | None = None, highlight: Sequence[str] = (),
    digits: int = 3,
) -> go.Figure:
    """One horizontal bar per name, in the order given, from top to bottom; highlighted ones in orange.

    Args:
        values: name to number.
        x_title: name of the axis, with its unit in brackets.
        title: what stands above the figure; nothing by default.
        highlight: names drawn in orange.
        digits: significant digits beside the bars.

    Returns:
        The figure.

    Raises:
        InputError: there is nothing to draw.

    Example:
        >>> figure = bars({"SAE": 0.92, "PCA": 0.41}, "explained variance (share)")
        >>> figure.layout.meta["alt"]
        'Bars of explained variance (share). SAE: 0.92; PCA: 0.41.'
    """
    if not values:
        raise InputError("values: expected at least one name and number, got none.")
    names, numbers = list(values), plain([float(v) for v in values.values()], digits)
    figure = go.Figure(
        go.Bar(
            x=numbers, y=list(range(len(names))), orientation="h",
            marker_color=[ORANGE if n in highlight else BLUE for n in names],
            text=[f"{v:g}" for v in numbers], textposition="auto", cliponaxis=False,
            hovertemplate="%{x}<extra></extra>",
        )
    )
    alt = (
        f"Bars of {x_title}. " + "; ".join(f"{n}: {v:g}" for n, v in zip(names, numbers, strict=True)) + "."
    )
    finish(figure, alt, 70 + 30 * len(names) + (30 if title else 0), title)
    figure.update_xaxes(title=x_title)
    low, high = min(0.0, *numbers), max(0.0, *numbers)
    if low < 0:  # what is written left of a bar needs room, or it runs into the names
        figure.update_xaxes(range=[low - 0.25 * (high - low), high + 0.08 * (high - low)])
    figure.update_yaxes(
        tickvals=list(range(len(names))), ticktext=[escape(n) for n in names], autorange="reversed",
        showgrid=False, zeroline=False,
    )
    return figure


def compare_dots(
    rows: Mapping[str, Mapping[str, float]], x_title: str, title: str | None = None,
    x_range: tuple[float, float] | None = None,
    bands: Mapping[str, Mapping[str, tuple[float, float]]] | None = None,
) -> go.Figure:
    """A dot plot: a line per row, a dot per measure, to compare several measures of several things.

    Args:
        rows: name to measure to number.
        x_title: name of the axis, with its unit in brackets.
        title: what stands above the figure; nothing by default.
        x_range: ends of the axis; by default they follow the data.
        bands: name to measure to the lowest and the highest number of an interval around a dot.

    Returns:
        The figure.

    Raises:
        InputError: there is nothing to draw.
    """
    measures = list(dict.fromkeys(m for row in rows.values() for m in row))
    if not measures:
        raise InputError("rows: expected at least one row with one measure, got none.")
    figure, names = go.Figure(), list(rows)
    for measure, colour, symbol in zip(measures, SERIES, SYMBOLS, strict=False):
        figure.add_trace(
            go.Scatter(
                error_x=_whiskers(rows, bands, measure, colour) if bands else None,
                x=plain([float(rows[n].get(measure, math.nan)) for n in names]), y=list(range(len(names))),
                mode="markers", name=escape(measure),
                marker={"size": 13, "color": colour, "symbol": symbol},
                hovertemplate=f"{escape(measure)}: %{{x}}<extra></extra>",
            )
        )
    said = "; ".join(
        f"{n}: " + ", ".join(f"{m} {v:.3g}" + _in_words((bands or {}).get(n, {}).get(m)) for m, v in row.items())
        for n, row in rows.items()
    )
    finish(figure, f"Dot plot of {x_title}. {said}.", 120 + 40 * len(names) + (30 if title else 0), title)
    figure.update_xaxes(title=x_title, range=x_range)
    figure.update_yaxes(
        tickvals=list(range(len(names))), ticktext=[escape(n) for n in names],
        range=[len(names) - 0.5, -0.5],
    )
    return figure


def _whiskers(
    rows: Mapping[str, Mapping[str, float]], bands: Mapping[str, Mapping[str, tuple[float, float]]], measure: str,
    colour: str,
) -> dict[str, object]:
    """The intervals around one measure's dots, as Plotly wants them: how far they reach to either side."""
    reach = []
    for name in rows:
        value = rows[name].get(measure, math.nan)
        low, high = bands.get(name, {}).get(measure, (value, value))
        reach.append((value - low, high - value))
    below, above = zip(*reach, strict=True)
    return {"type": "data", "symmetric": False, "array": plain(above), "arrayminus": plain(below), "color": colour,
            "thickness": 2, "width": 5}


def _in_words(interval: tuple[float, float] | None) -> str:
    return f" ({interval[0]:.3g} to {interval[1]:.3g})" if interval else ""


def toy_directions(W: Tensor, labels: Sequence[str], title: str | None = None) -> go.Figure:
    """Where small models put their features: a panel each, an arrow per feature.

    Args:
        W: [models, 2, features].
        labels: what the models are called.
        title: what stands above the figure; nothing by default.

    Returns:
        The figure.

    Raises:
        InputError: other shapes, or more or fewer names than models.
    """
    if W.ndim != 3 or W.shape[1] != 2 or len(labels) != len(W):
        raise InputError(f"W: expected [{len(labels)} models, 2, features], got {list(W.shape)}.")
    figure = make_subplots(
        rows=1, cols=len(W), subplot_titles=[escape(label) for label in labels], horizontal_spacing=0.03
    )
    limit = 1.25 * float(W.norm(dim=1).max())
    shown = []
    for column, model in enumerate(W, start=1):
        for i, (x, y) in enumerate(model.T.tolist()):
            figure.add_trace(
                go.Scatter(
                    x=[0, round(x, 3)], y=[0, round(y, 3)], mode="lines+markers",
                    line={"color": SERIES[i % 5], "width": 2.5},
                    marker={"size": [0, 9], "color": SERIES[i % 5]}, name=f"feature {i + 1}",
                    showlegend=False,
                    hovertemplate=f"feature {i + 1}, length {math.hypot(x, y):.2f}<extra></extra>",
                ),
                row=1, col=column,
            )
        kept = int((model.norm(dim=0) > 0.5).sum())
        shown.append(f"{labels[column - 1]}: {kept} of {model.shape[1]} features have a direction")
    finish(figure, "Arrows in the plane, one per feature. " + "; ".join(shown) + ".", 300, title)
    figure.update_xaxes(range=[-limit, limit], showticklabels=False, constrain="domain", title="first number")
    figure.update_yaxes(range=[-limit, limit], showticklabels=False)
    figure.update_yaxes(title="second number", row=1, col=1)
    for column in range(1, len(W) + 1):
        figure.update_yaxes(scaleanchor="x" if column == 1 else f"x{column}", row=1, col=column)
    figure.update_annotations(font_size=12)
    figure.update_layout(margin_t=60 if title else 34)
    return figure
