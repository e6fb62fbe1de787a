"""Text with its activations: strips of shaded tokens, and the page of a latent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots
from torch import Tensor

from solutions.errors import InputError
from solutions.visualization.style import BLUE, ORANGE, escape, finish, plain, visible

LINE = 44  # characters to a line: readable on a phone 390 pixels wide
_SHADE = {True: "230,150,0", False: "60,140,200"}  # of tokens above and below zero


def _lay_out(tokens: Sequence[str], top: float) -> tuple[list[tuple[float, float, float]], float]:
    """Place tokens like words on a page: (left, right, y) for each, and the y of the next free line below."""
    places, x, y = [], 0.0, top
    for token in tokens:
        width = len(visible(token)) + 0.6
        if x + width > LINE and x > 0:
            x, y = 0.0, y - 1
        places.append((x, min(x + width, LINE), y))
        x += width
    return places, y - 1


def _paint(
    figure: go.Figure, tokens: Sequence[str], values: Sequence[float], top: float, largest: float,
    unit: str, outlined: int | None = None, row: int | None = None,
) -> float:
    """Write tokens into a figure (or its subplot `row`), shaded by value; returns the y of the next line."""
    places, after = _lay_out(tokens, top)
    where = {} if row is None else {"row": row, "col": 1}
    axis = "" if row in (None, 1) else str(row)
    for i, ((left, right, y), value) in enumerate(zip(places, values, strict=True)):
        if value != 0 or i == outlined:
            strength = min(abs(value) / largest, 1.0) if largest > 0 else 0.0
            edge = {"color": "rgba(200,110,0,1)", "width": 1.5} if i == outlined else {"width": 0}
            figure.add_shape(
                type="rect", x0=round(left + 0.05, 2), x1=round(right - 0.05, 2),
                y0=round(y - 0.42, 2), y1=round(y + 0.42, 2),
                fillcolor=f"rgba({_SHADE[value >= 0]},{0.12 + 0.58 * strength:.2f})", line=edge,
                layer="below", xref=f"x{axis}", yref=f"y{axis}",
            )
    figure.add_trace(
        go.Scatter(
            x=[round((left + right) / 2, 2) for left, right, _ in places],
            y=[round(y, 2) for *_, y in places],
            text=[escape(visible(token)) for token in tokens], customdata=plain(list(map(float, values))),
            mode="text", textfont={"family": "monospace", "size": 11.5}, showlegend=False,
            hovertemplate="“%{text}” %{customdata} " + unit + "<extra></extra>",
        ),
        **where,
    )
    return after


def _hide_axes(figure: go.Figure, bottom: float, row: int | None = None) -> None:
    """Text needs no axes."""
    where = {} if row is None else {"row": row, "col": 1}
    figure.update_xaxes(visible=False, range=[-0.3, LINE + 0.3], fixedrange=True, **where)
    figure.update_yaxes(visible=False, range=[bottom + 0.4, 0.6], fixedrange=True, **where)


def token_strips(
    texts: Sequence[tuple[Sequence[str], Sequence[float] | Tensor]], title: str | None = None,
    unit: str = "activation units",
) -> go.Figure:
    """Texts, each token shaded by its value: orange above zero, blue below, none at zero. All share one scale.

    Args:
        texts: for each text its tokens and their values.
        title: what stands above the figure; nothing by default.
        unit: of the values.

    Returns:
        The figure.

    Raises:
        InputError: no texts, or more or fewer values than tokens.
    """
    texts = [(list(tokens), [float(v) for v in plain(values, 6)]) for tokens, values in texts]
    for tokens, values in texts:
        if len(tokens) != len(values) or not tokens:
            found = f"{len(tokens)} tokens and {len(values)} values"
            raise InputError(f"Expected one value per token, got {found}.")
    pairs = [pair for tokens, values in texts for pair in zip(tokens, values, strict=True)]
    if not pairs:
        raise InputError("texts: expected at least one text with its values, got none.")
    word, strongest = max(pairs, key=lambda pair: abs(pair[1]))
    figure, y = go.Figure(), 0.0
    for tokens, values in texts:
        y = _paint(figure, tokens, values, y, abs(strongest), unit) - 0.35
    alt = (
        f"{len(texts)} text(s), {len(pairs)} tokens, shaded by value: {sum(v != 0 for _, v in pairs)} are not "
        f"zero. The strongest is “{visible(word)}” with {strongest:.3g} {unit}."
    )
    finish(figure, alt, int(16 - 26 * y) + (44 if title else 14), title)
    _hide_axes(figure, y + 0.35)
    return figure


def token_strip(
    tokens: Sequence[str], values: Sequence[float] | Tensor, title: str | None = None,
    unit: str = "activation units",
) -> go.Figure:
    """One text, each token shaded by its value.

    Args:
        tokens: the text's tokens.
        values: a number for each.
        title: what stands above the figure; nothing by default.
        unit: of the numbers.

    Returns:
        The figure.

    Raises:
        InputError: more or fewer values than tokens.

    Example:
        >>> token_strip(words, features.amax(1)).layout.meta["alt"]
        '1 text(s), 7 tokens, shaded by value: 7 are not zero. The strongest is “␣is” with 17.5 activation units.'
    """
    return token_strips([(tokens, values)], title, unit)


def dashboard(page: Any, title: str | None = None) -> go.Figure:
    """A feature's page, offline: examples by interval, histogram, tokens made likelier and less likely.

    page: a `FeaturePage` from `analysis.feature_page`.

    Args:
        page: a `FeaturePage` from `FeatureIndex.page` or `feature_page` of `solutions.analysis`.
        title: what stands above the figure; nothing by default.

    Returns:
        The figure.

    Example:
        >>> dashboard(index.page(latent)).layout.meta["alt"]
        'Feature page of latent ... Strongest on: ␣Sunday, ␣Tuesday, ␣Tuesday. Makes most likely: ...'
    """
    return page_figure(page, title, room_for(page))


def room_for(page) -> tuple[float, int]:
    """How many lines of text and how many logits a page needs."""
    y = 0.0
    for interval in page.intervals:
        y -= 1
        for example in interval.examples:
            y = _lay_out(example.tokens, y)[1] - 0.35
    return -y, len(page.positive) + len(page.negative)


def page_figure(page, title: str | None, room: tuple[float, int]) -> go.Figure:
    """The figure of a page, with room for a given number of lines and logits: pages side by side line up."""
    n_lines, n_logits = room
    has_logits = n_logits > 0
    heights = [max(26.0 * n_lines, 40.0), 170.0] + ([24.0 * n_logits + 30] if has_logits else [])
    gaps = 84.0
    total = sum(heights) + gaps * (len(heights) - 1)
    figure = make_subplots(rows=len(heights), cols=1, row_heights=heights, vertical_spacing=gaps / total)
    y = 0.0
    for interval in page.intervals:
        ends, share = f"{interval.low:.3g} to {interval.high:.3g}", interval.n_tokens / max(page.n_active, 1)
        figure.add_annotation(
            text=f"<b>{ends}</b> · {interval.n_tokens} tokens ({share:.0%})",
            x=0, y=round(y, 2), xref="x", yref="y", xanchor="left", align="left", showarrow=False,
            font={"size": 12},
        )
        y -= 1
        for example in interval.examples:
            y = -0.35 + _paint(
                figure, example.tokens, example.activations, y, page.maximum, "SAE units", example.peak, 1
            )
    finish(
        figure, dashboard_words(page), int(total) + 90,
        title or f"Latent {page.latent}: active on {page.density:.2%} of {page.n_tokens:,} tokens",
    )
    _hide_axes(figure, 0.2 - n_lines, 1)

    centres = [(a + b) / 2 for a, b in zip(page.edges[:-1], page.edges[1:], strict=True)]
    figure.add_trace(
        go.Bar(
            x=plain(centres), y=page.counts, marker_color=BLUE, showlegend=False,
            hovertemplate="%{y} tokens near %{x}<extra></extra>",
        ),
        row=2, col=1,
    )
    figure.update_xaxes(title="activation, where active (SAE units)", row=2, col=1)
    figure.update_yaxes(title="tokens", row=2, col=1)
    figure.update_layout(bargap=0.08)
    if has_logits:
        pairs = [*page.positive, *reversed(page.negative)]
        figure.add_trace(
            go.Bar(
                x=plain([v for _, v in pairs]), y=list(range(len(pairs))), orientation="h",
                showlegend=False, marker_color=[ORANGE if v >= 0 else BLUE for _, v in pairs],
                hovertemplate="%{x}<extra></extra>",
            ),
            row=3, col=1,
        )
        figure.update_xaxes(title="effect on the logit, per unit of activation", row=3, col=1)
        figure.add_trace(
            go.Scatter(  # each name on the empty side of its bar
                x=[0] * len(pairs), y=list(range(len(pairs))), mode="text", showlegend=False, hoverinfo="skip",
                text=[f" {escape(visible(token))} " for token, _ in pairs], textfont={"family": "monospace"},
                textposition=["middle left" if v >= 0 else "middle right" for _, v in pairs],
            ),
            row=3, col=1,
        )
        figure.update_yaxes(
            showticklabels=False, range=[n_logits - 0.5, -0.5], showgrid=False, zeroline=False, row=3, col=1
        )
    return figure


def dashboard_words(page) -> str:
    """The dashboard in words."""
    if not page.intervals:
        return f"Feature page of latent {page.latent}: never active on {page.n_tokens} tokens."
    tops = [visible(e.tokens[e.peak]) for e in page.intervals[0].examples]
    words = (
        f"Feature page of latent {page.latent}: active on {page.density:.2%} of {page.n_tokens} tokens, "
        f"at most {page.maximum:.3g}. Strongest on: {', '.join(tops)}."
    )
    if page.positive:
        words += f" Makes most likely: {', '.join(visible(t) for t, _ in page.positive[:5])}."
    return words
