"""What all figures share: colours, layout, rounded numbers, tokens one can see."""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go
from torch import Tensor

from solutions.errors import InputError

BLUE, ORANGE, GREEN, PURPLE, GREY = "#2F86C1", "#C97B0A", "#009E73", "#B8659A", "#858A93"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, GREY)
# From nothing to full colour: zero lets the page shine through, whichever colour the page has.
SEQUENTIAL = [[0.0, "rgba(60,140,200,0)"], [0.5, "rgba(40,125,190,0.65)"], [1.0, "rgba(0,114,178,1)"]]
DIVERGING = [
    [0.0, "rgba(0,114,178,1)"], [0.5, "rgba(0,114,178,0)"], [0.5, "rgba(230,130,0,0)"],
    [1.0, "rgba(230,130,0,1)"],
]
GRID = "rgba(128,128,128,0.25)"


def finish(figure: go.Figure, alt: str, height: int, title: str | None = None) -> go.Figure:
    """Give a figure the house style, its height in pixels and its description in words."""
    figure.update_layout(
        template=None, autosize=True, height=height, meta={"alt": alt},
        title={"text": title, "font": {"size": 15}, "x": 0.01, "xanchor": "left"} if title else None,
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", font={"color": "#7A7F87", "size": 13},
        margin={"l": 10, "r": 10, "t": 44 if title else 14, "b": 10}, hoverlabel={"font": {"size": 13}},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}, colorway=list(SERIES), dragmode=False,
    )
    lines = {"gridcolor": GRID, "zerolinecolor": GRID, "linecolor": GRID}
    figure.update_xaxes(**lines, automargin=True, title_standoff=8, fixedrange=True)
    figure.update_yaxes(**lines, automargin=True, title_standoff=8, fixedrange=True)
    return figure


def plain(x: Tensor | Sequence, digits: int = 3) -> list:
    """Numbers as (nested) lists, rounded to `digits` significant ones; a NaN becomes None, a gap."""
    if isinstance(x, Tensor):
        x = x.detach().cpu().tolist()
    if isinstance(x, (list, tuple)):
        return [plain(value, digits) for value in x]
    if isinstance(x, float):
        return None if math.isnan(x) else float(f"{x:.{digits}g}")
    return x


def visible(token: str) -> str:
    """A token as one can see it: ␣ for a leading space, ↵ for a line break, → for a tab."""
    shown = token.replace("\n", "↵").replace("\t", "→")
    if shown.startswith(" "):
        shown = "␣" + shown[1:]
    return shown or "∅"


def faint(colour: str) -> str:
    """A hex colour, nearly transparent, for areas under a line."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.12)"


def escape(text: str) -> str:
    """Plotly reads a little HTML in labels: make sure a token cannot be taken for it."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def check_matrix(
    name: str, x: Tensor, rows: Sequence | None = None, columns: Sequence | None = None
) -> None:
    """Refuse anything but a matrix that fits its labels."""
    if getattr(x, "ndim", None) != 2:
        found = list(x.shape) if hasattr(x, "shape") else type(x).__name__
        raise InputError(f"{name}: expected a matrix (two axes), got {found}.")
    for axis, labels in enumerate((rows, columns)):
        if labels is not None and len(labels) != x.shape[axis]:
            raise InputError(
                f"{name}: axis {axis} has length {x.shape[axis]}, but {len(labels)} labels were given."
            )
