"""Matrices with their numbers written in: a table of values, and who was taken for whom."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
import torch
from torch import Tensor

from solutions.errors import InputError
from solutions.visualization.style import (
    DIVERGING,
    SEQUENTIAL,
    SOLID,
    SOLID_DIVERGING,
    check_matrix,
    escape,
    finish,
    ink_on,
    mix,
    plain,
)

LARGEST_WRITTEN = 15  # columns: in more, the numbers would not fit on a phone


def heatmap(
    values: Tensor, rows: Sequence[str], columns: Sequence[str], unit: str, x_title: str = "", y_title: str = "",
    diverging: bool = False, write: bool = True, title: str | None = None,
) -> go.Figure:
    """A table of numbers as colour, the first row on top. NaN is an empty cell.

    Args:
        values: [rows, columns].
        rows: their names.
        columns: their names.
        unit: what the numbers are.
        x_title: what the columns are.
        y_title: what the rows are.
        diverging: the scale is symmetric, orange above zero and blue below.
        write: put the numbers into the cells, when there are at most fifteen columns.
        title: what stands above the figure; nothing by default.

    Returns:
        The figure.

    Raises:
        InputError: more or fewer names than rows or columns, or no finite number.

    Example:
        >>> heatmap(torch.eye(2), ["a", "b"], ["c", "d"], "cosine").layout.meta["alt"]
        'Table of cosine: 2 rows by 2 columns, from 0 to 1; the largest at a, c.'
    """
    check_matrix("values", values, rows=rows, columns=columns)
    values = values.detach().cpu().double()
    known = values[values.isfinite()]
    if not len(known):
        raise InputError("values: expected at least one finite number, got none.")
    top = float(known.abs().max()) or 1.0
    low = -top if diverging else min(float(known.min()), 0.0)
    texts = [[f"{v:.3g}" if v == v else "" for v in row] for row in values.tolist()]
    best = values.nan_to_num(-torch.inf).flatten().argmax().item()
    where = f"{rows[best // len(columns)]}, {columns[best % len(columns)]}"
    alt = (
        f"Table of {unit}: {len(rows)} rows by {len(columns)} columns, from {known.min():.3g} to {known.max():.3g}; "
        f"the largest at {where}."
    )
    figure = _cells(values, texts if write and len(columns) <= LARGEST_WRITTEN else None, low, top, diverging, unit)
    hover = "%{customdata[0]}, %{customdata[1]}: %{z}<extra></extra>"
    figure.update_traces(customdata=_names(rows, columns), hovertemplate=hover, selector={"type": "heatmap"})
    return _frame(figure, alt, rows, columns, x_title, y_title, title)


def confusion_matrix(counts: Tensor, names: Sequence[str], title: str | None = None) -> go.Figure:
    """What a classifier took for what.

    A cell is coloured by its share of the row, so that rare kinds can be read too. It shows that share and,
    where it fits, the count.

    Args:
        counts: [kinds, kinds], rows what it is, columns what was said.
        names: of the kinds.
        title: what stands above the figure; nothing by default.

    Returns:
        The figure.

    Raises:
        InputError: no counts, or more or fewer names than kinds.
    """
    check_matrix("counts", counts, rows=names, columns=names)
    counts = counts.detach().cpu().double()
    if not bool((counts >= 0).all()) or counts.sum() <= 0:
        raise InputError("counts: expected counts, none negative and not all zero.")
    share = 100 * counts / counts.sum(1, keepdim=True)  # NaN in the row of a kind that never came up
    share[counts == 0] = torch.nan  # an empty cell says "never" more plainly than a pale one
    compact = len(names) > 8
    texts = [
        ["" if s != s else f"{s:.0f}" if compact else f"{s:.0f} %<br>{n:g}" for s, n in zip(*row, strict=True)]
        for row in zip(share.tolist(), counts.tolist(), strict=True)
    ]
    figure = _cells(share, texts, 0.0, 100.0, False, "share of the row (%)")
    data = [
        [[*pair, n] for pair, n in zip(row, amounts, strict=True)]
        for row, amounts in zip(_names(names, names), plain(counts, 6), strict=True)
    ]
    hover = "%{customdata[0]}, taken for %{customdata[1]}: %{customdata[2]} times (%{z} %)<extra></extra>"
    figure.update_traces(customdata=data, hovertemplate=hover, selector={"type": "heatmap"})
    right = float(counts.diagonal().sum() / counts.sum())
    wrong = counts.clone().fill_diagonal_(-1).flatten().argmax().item()
    i, j = divmod(wrong, len(names))
    alt = f"Confusion matrix of {len(names)} kinds, {counts.sum():g} cases, {right:.0%} of them right."
    if i != j and counts[i, j] > 0:
        alt += f" The most common mistake: {names[i]} taken for {names[j]}, {counts[i, j]:g} times."
    return _frame(figure, alt, names, names, "what was said", "what it is", title)


def _cells(z: Tensor, texts: list | None, low: float, top: float, diverging: bool, unit: str) -> go.Figure:
    """The coloured cells. With texts they are solid, and black or white is chosen for each text."""
    bar = {"title": {"text": escape(unit), "side": "right"}, "thickness": 10, "outlinewidth": 0}
    solid = SOLID_DIVERGING if diverging else SOLID
    clear = DIVERGING if diverging else SEQUENTIAL
    rows, columns = z.shape
    figure = go.Figure(
        go.Heatmap(
            z=plain(z), x=list(range(columns)), y=list(range(rows)), zmin=plain(low), zmax=plain(top), xgap=1,
            ygap=1, colorbar=bar, colorscale=clear if texts is None else [list(stop) for stop in solid],
        )
    )
    if texts is None:
        return figure
    cells = [(i, j, texts[i][j], ink_on(_shade(solid, float(z[i, j]), low, top)))
             for i in range(rows) for j in range(columns) if texts[i][j]]
    for ink in sorted({cell[3] for cell in cells}):
        mine = [cell for cell in cells if cell[3] == ink]
        figure.add_trace(
            go.Scatter(
                x=[j for _, j, *_ in mine], y=[i for i, *_ in mine], text=[text for *_, text, _ in mine], mode="text",
                textfont={"color": ink, "size": 12}, hoverinfo="skip", showlegend=False,
            )
        )
    return figure


def _shade(scale: Sequence[tuple[float, str]], value: float, low: float, top: float) -> str:
    """The colour that a value has on a scale of solid colours."""
    at = min(max((value - low) / (top - low), 0.0), 1.0) if top > low else 0.0
    for (start, first), (stop, second) in zip(scale[:-1], scale[1:], strict=True):
        if at <= stop:
            return mix(first, second, (at - start) / (stop - start))
    return scale[-1][1]


def _names(rows: Sequence[str], columns: Sequence[str]) -> list[list[list[str]]]:
    return [[[escape(str(row)), escape(str(column))] for column in columns] for row in rows]


def _frame(
    figure: go.Figure, alt: str, rows: Sequence[str], columns: Sequence[str], x_title: str, y_title: str,
    title: str | None,
) -> go.Figure:
    """Names on both axes, the first row on top."""
    finish(figure, alt, 150 + 34 * len(rows) + (30 if title else 0), title)
    none = {"showgrid": False, "zeroline": False}
    figure.update_xaxes(tickvals=list(range(len(columns))), ticktext=[escape(str(c)) for c in columns], **none)
    figure.update_yaxes(tickvals=list(range(len(rows))), ticktext=[escape(str(r)) for r in rows],
                        autorange="reversed", **none)
    return figure.update_layout(xaxis_title_text=x_title or None, yaxis_title_text=y_title or None)
