"""What all figures share: colours, layout, rounded numbers, tokens one can see."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
import torch
from torch import Tensor

from solutions.errors import InputError, unknown_name

BLUE, ORANGE, GREEN, PURPLE, GREY = "#2F86C1", "#C97B0A", "#009E73", "#B8659A", "#858A93"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, GREY)
SYMBOLS = ("circle", "diamond", "square", "x", "triangle-up")
PARTS = (*SERIES, "#56B4E9", "#D9C400", "#D55E00")  # of one bar; black text is readable on each of them
# From nothing to full colour: zero lets the page shine through, whichever colour the page has.
SEQUENTIAL = [[0.0, "rgba(60,140,200,0)"], [0.5, "rgba(40,125,190,0.65)"], [1.0, "rgba(0,114,178,1)"]]
DIVERGING = [
    [0.0, "rgba(0,114,178,1)"], [0.5, "rgba(0,114,178,0)"], [0.5, "rgba(230,130,0,0)"],
    [1.0, "rgba(230,130,0,1)"],
]
# For cells with numbers in them: solid, so that what is written can be read on a light page and on a dark one.
SOLID = ((0.0, "#DCE9F3"), (1.0, "#005A8F"))
SOLID_DIVERGING = ((0.0, "#005A8F"), (0.5, "#F1F1EE"), (1.0, "#B05500"))
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
    r"""A token as one can see it: ␣ for a leading space, ↵ for a line break, → for a tab.

    Args:
        token: its text.

    Returns:
        The same, with a leading space, tabs and line breaks as signs; ∅ for nothing at all.

    Example:
        >>> visible(" Paris\n")
        '␣Paris↵'
    """
    shown = printable(token)
    if shown.startswith(" "):
        shown = "␣" + shown[1:]
    return shown or "∅"


def printable(text: str) -> str:
    r"""Text whose invisible characters are spelled out, so that none can break a page or reorder what is read.

    Line breaks and tabs become ↵ and →, other control characters their pictures (␀ to ␡). What has no shape of its
    own (marks of writing direction, lone surrogates, unassigned code points) becomes its number: ⟨U+202E⟩.

    Args:
        text: anything.

    Returns:
        The text, safe to be shown.

    Example:
        >>> printable("a\tb\u202ec")
        'a→b⟨U+202E⟩c'
    """
    parts = []
    for place, character in enumerate(text):
        code, kind = ord(character), unicodedata.category(character)
        if character in "\n\t":
            parts.append("↵" if character == "\n" else "→")
        elif code < 0x20 or code == 0x7F:
            parts.append("␡" if code == 0x7F else chr(0x2400 + code))
        elif kind in ("Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp") and not _joins(text, place):
            parts.append(f"⟨U+{code:04X}⟩")
        elif kind in ("Mn", "Me") and place == 0:
            parts.append("◌" + character)  # an accent without its letter would land on the token before
        else:
            parts.append(character)
    return "".join(parts)


def _joins(text: str, place: int) -> bool:
    """A joiner between two characters, as inside an emoji of a family, belongs to what one sees."""
    between = 0 < place < len(text) - 1
    return text[place] == "\u200d" and between and not (text[place - 1] + text[place + 1]).isascii()


def faint(colour: str, alpha: float = 0.12) -> str:
    """A hex colour, nearly transparent, for areas under a line."""
    red, green, blue = _channels(colour)
    return f"rgba({red},{green},{blue},{alpha})"


def _channels(colour: str) -> tuple[int, int, int]:
    """Red, green and blue of a hex colour, 0 to 255."""
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def mix(first: str, second: str, share: float) -> str:
    """The hex colour `share` of the way from the first to the second."""
    pairs = zip(_channels(first), _channels(second), strict=True)
    return "#" + "".join(f"{round(a + share * (b - a)):02X}" for a, b in pairs)


def contrast_ratio(first: str, second: str) -> float:
    """How well one hex colour reads on another, 1 to 21 (WCAG 2, contrast ratio); text needs 4.5."""
    def luminance(colour: str) -> float:
        parts = [c / 255 for c in _channels(colour)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


def ink_on(colour: str) -> str:
    """Black or white, whichever reads better on a hex colour: at least 4.5 to 1 on any."""
    return max("#000000", "#FFFFFF", key=lambda ink: contrast_ratio(ink, colour))


def escape(text: str) -> str:
    """Plotly reads a little HTML in labels: make sure a token cannot be taken for it."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def as_tensor(name: str, values: Tensor | Sequence[float]) -> Tensor:
    """One group of values, flat, finite ones only."""
    tensor = torch.as_tensor(values).detach().cpu().float().flatten()
    tensor = tensor[tensor.isfinite()]
    if len(tensor) == 0:
        raise InputError(f"{name}: expected at least one finite value, got none.")
    return tensor


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


def check_columns(table: pd.DataFrame, wanted: Sequence[str]) -> None:
    """Refuse anything but a table that has all the columns wanted."""
    if not isinstance(table, pd.DataFrame):
        raise InputError(f"table: expected a pandas DataFrame, got {type(table).__name__}.")
    for column in wanted:
        if column not in table:
            raise unknown_name("column", column, [str(c) for c in table.columns])
