"""Several feature pages in one figure, with a menu that needs no Python: for the site, where nothing computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from solutions.errors import InputError
from solutions.visualization.style import escape
from solutions.visualization.text import dashboard_words, page_figure, room_for

MENU = 46  # pixels above the figure


def gallery(pages: Sequence[Any], names: Sequence[str] | None = None, title: str | None = None) -> go.Figure:
    """One `dashboard` at a time, chosen from a menu.

    The figure is as tall as the tallest page, so that choosing another one moves nothing on the page around
    it.

    Args:
        pages: feature pages (`FeaturePage`).
        names: what the menu calls them, by default "latent 7".
        title: what stands above the figure; nothing by default.

    Returns:
        The figure.

    Raises:
        InputError: no pages, or more or fewer names than pages.
    """
    pages = list(pages)
    if not pages:
        raise InputError("pages: expected at least one feature page, got none.")
    names = [f"latent {page.latent}" for page in pages] if names is None else [str(name) for name in names]
    if len(names) != len(pages):
        raise InputError(f"names: expected {len(pages)}, one for each page, got {len(names)}.")
    rooms = [room_for(page) for page in pages]
    room = max(lines for lines, _ in rooms), max(logits for _, logits in rooms)
    drawn = [page_figure(page, None, room) for page in pages]
    figure = go.Figure(drawn[0])
    owners = [0] * len(drawn[0].data)
    for number, other in enumerate(drawn[1:], start=1):
        for trace in other.data:
            figure.add_trace(trace.update(visible=False))
        owners += [number] * len(other.data)
    buttons = [
        {"method": "update", "label": escape(name), "args": _switch(number, other, owners)}
        for number, (name, other) in enumerate(zip(names, drawn, strict=True))
    ]
    figure.update_layout(
        updatemenus=[{
            "buttons": buttons, "type": "dropdown", "direction": "down", "showactive": True, "x": 0, "y": 1,
            "xanchor": "left", "yanchor": "bottom", "pad": {"b": 34}, "bgcolor": "#F5F6F8", "bordercolor": "#858A93",
            "font": {"color": "#22282F"},
        }],
        meta={"alt": _words(pages, names)}, height=figure.layout.height + MENU + (30 if title else 0),
        margin_t=90 + (30 if title else 0),
    )
    # The chosen page's own line, under the menu; the figure's title stands above both.
    figure.layout.annotations = _with_headline(drawn[0])
    headline = {"text": title, "font": {"size": 15}, "x": 0, "xref": "paper", "y": 1, "yref": "container",
                "yanchor": "top", "pad": {"t": 8}}
    figure.layout.title = headline if title else None
    return figure


def _switch(number: int, drawn: go.Figure, owners: list[int]) -> list[dict]:
    """What the menu changes: which traces are seen, and the shading and headings that belong to them."""
    layout = drawn.layout
    shapes = [shape.to_plotly_json() for shape in layout.shapes]
    notes = [note.to_plotly_json() for note in _with_headline(drawn)]
    return [{"visible": [owner == number for owner in owners]}, {"shapes": shapes, "annotations": notes}]


def _with_headline(drawn: go.Figure) -> list:
    """The page's annotations, and its title as one more."""
    headline = go.layout.Annotation(
        text=drawn.layout.title.text, x=0, y=1, xref="paper", yref="paper", xanchor="left", yanchor="bottom",
        yshift=8, showarrow=False, align="left", font={"size": 14},
    )
    return [*drawn.layout.annotations, headline]


def _words(pages: Sequence, names: Sequence[str]) -> str:
    """All pages in words: a screen reader cannot open the menu."""
    said = [f"{name}: {dashboard_words(page)}" for name, page in zip(names, pages, strict=True)]
    return f"A menu of {len(pages)} feature pages. " + " ".join(said)
