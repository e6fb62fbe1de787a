"""Figures of activations and features, as Plotly objects.

Every function takes plain numbers, tensors or tables, knows no model, and returns a `go.Figure` that a
notebook shows and a test can inspect. The background is transparent and lines are mid-grey, so a figure
sits on a light page and on a dark one. Colours follow Okabe and Ito's palette, which the
colour-blind can tell apart, at a lightness that shows on both. What a figure shows is also said in words,
in `figure.layout.meta["alt"]`. Values are rounded: a page of figures stays small.
"""

import math
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots
from torch import Tensor

from solutions.errors import InputError

BLUE, ORANGE, GREEN, PURPLE, GREY = "#2F86C1", "#C97B0A", "#009E73", "#B8659A", "#858A93"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, GREY)
_SHADE = {True: "230,150,0", False: "60,140,200"}  # of tokens above and below zero
# From nothing to full colour: zero lets the page shine through, whichever colour the page has.
SEQUENTIAL = [[0.0, "rgba(60,140,200,0)"], [0.5, "rgba(40,125,190,0.65)"], [1.0, "rgba(0,114,178,1)"]]
DIVERGING = [
    [0.0, "rgba(0,114,178,1)"], [0.5, "rgba(0,114,178,0)"], [0.5, "rgba(230,130,0,0)"],
    [1.0, "rgba(230,130,0,1)"],
]
_GRID = "rgba(128,128,128,0.25)"


# ------------------------------------------------------------------------------------------ shared by all

def _finish(figure: go.Figure, alt: str, height: int, title: str | None = None) -> go.Figure:
    """Give a figure the house style, its height in pixels and its description in words."""
    figure.update_layout(
        template=None, autosize=True, height=height, meta={"alt": alt},
        title={"text": title, "font": {"size": 15}, "x": 0.01, "xanchor": "left"} if title else None,
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", font={"color": "#7A7F87", "size": 13},
        margin={"l": 10, "r": 10, "t": 44 if title else 14, "b": 10}, hoverlabel={"font": {"size": 13}},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}, colorway=list(SERIES), dragmode=False,
    )
    lines = {"gridcolor": _GRID, "zerolinecolor": _GRID, "linecolor": _GRID}
    figure.update_xaxes(**lines, automargin=True, title_standoff=8, fixedrange=True)
    figure.update_yaxes(**lines, automargin=True, title_standoff=8, fixedrange=True)
    return figure


def _list(x: Tensor | Sequence, digits: int = 3) -> list:
    """Numbers as (nested) lists, rounded to `digits` significant ones; a NaN becomes None, a gap."""
    if isinstance(x, Tensor):
        x = x.detach().cpu().tolist()
    if isinstance(x, (list, tuple)):
        return [_list(value, digits) for value in x]
    if isinstance(x, float):
        return None if math.isnan(x) else float(f"{x:.{digits}g}")
    return x


def visible(token: str) -> str:
    """A token as one can see it: ␣ for a leading space, ↵ for a line break, → for a tab."""
    shown = token.replace("\n", "↵").replace("\t", "→")
    if shown.startswith(" "):
        shown = "␣" + shown[1:]
    return shown or "∅"


def _faint(colour: str) -> str:
    """A hex colour, nearly transparent, for areas under a line."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.12)"


def _escape(text: str) -> str:
    """Plotly reads a little HTML in labels: make sure a token cannot be taken for it."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _check_matrix(
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


# ----------------------------------------------------------------------------------------- text, coloured

LINE = 44  # characters to a line: readable on a phone 390 pixels wide


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
            text=[_escape(visible(token)) for token in tokens], customdata=_list(list(map(float, values))),
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

    texts: for each text its tokens and their values.
    """
    texts = [(list(tokens), [float(v) for v in _list(values, 6)]) for tokens, values in texts]
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
    _finish(figure, alt, int(30 - 26 * y) + (44 if title else 14), title)
    _hide_axes(figure, y + 0.35)
    return figure


def token_strip(
    tokens: Sequence[str], values: Sequence[float] | Tensor, title: str | None = None,
    unit: str = "activation units",
) -> go.Figure:
    """One text, each token shaded by its value."""
    return token_strips([(tokens, values)], title, unit)


# ----------------------------------------------------------------------------------------------- heatmaps

def _heatmap(
    z: Tensor, rows: Sequence[str], unit: str, height: int, alt: str, title: str | None, **options
) -> go.Figure:
    """A heatmap with one named row per entry of `rows`, the first one on top."""
    bar = {"title": {"text": unit, "side": "right"}, "thickness": 10, "outlinewidth": 0}
    numbers = list(range(len(rows)))
    figure = go.Figure(go.Heatmap(z=_list(z), y=numbers, colorbar=bar, **options))
    _finish(figure, alt, height, title)
    figure.update_xaxes(showgrid=False, zeroline=False)
    names = [_escape(row) for row in rows]
    return figure.update_yaxes(
        tickvals=numbers, ticktext=names, autorange="reversed", showgrid=False, zeroline=False
    )


def activation_heatmap(activations: Tensor, tokens: Sequence[str], title: str | None = None) -> go.Figure:
    """Dense activations of one text: a row per token, a column per dimension.

    activations: [tokens, dimensions]. The colour scale ends at the 99th percentile of the absolute values,
    so that one loud dimension does not wash out the others; hovering shows the true value.
    """
    _check_matrix("activations", activations, rows=tokens)
    size = activations.detach().float().abs()
    limit = float(f"{size.flatten().quantile(0.99):.3g}") or 1.0
    alt = (
        f"Heatmap of {size.shape[0]} tokens by {size.shape[1]} dimensions. Colour is spread over the whole "
        f"picture: {(size > 0.1 * limit).float().mean():.0%} of the entries exceed a tenth of the scale."
    )
    figure = _heatmap(
        activations, [visible(t) for t in tokens], "activation (model units)", 130 + 22 * len(tokens), alt,
        title, colorscale=DIVERGING, zmin=-limit, zmax=limit,
        hovertemplate="token %{y}, dimension %{x}: %{z}<extra></extra>",
    )
    return figure.update_xaxes(title="dimension of the activation")


def feature_heatmap(
    features: Tensor, tokens: Sequence[str], latents: Sequence[int] | None = None, n: int = 24,
    title: str | None = None,
) -> go.Figure:
    """Sparse features of one text: a row per token, a column per latent. features: [tokens, latents].

    Without `latents`, the `n` that are strongest somewhere in the text are shown, in the order in which
    they peak.
    """
    _check_matrix("features", features, rows=tokens)
    if latents is None:
        strongest = features.amax(0).topk(min(n, features.shape[1])).indices
        strongest = strongest[features[:, strongest].amax(0) > 0]
        latents = strongest[features[:, strongest].argmax(0).argsort(stable=True)].tolist()
    if not len(latents):
        raise InputError("features: no latent is active in this text, so there is nothing to draw.")
    shown = features[:, list(latents)]
    alt = (
        f"Heatmap of {len(tokens)} tokens by {len(latents)} latents. "
        f"{(shown > 0).float().mean():.0%} of the cells are active, the others empty."
    )
    figure = _heatmap(
        shown, [visible(t) for t in tokens], "activation (SAE units)", 150 + 22 * len(tokens), alt, title,
        x=[str(i) for i in latents], colorscale=SEQUENTIAL, zmin=0, xgap=1, ygap=1,
        hovertemplate="token %{y}, latent %{x}: %{z}<extra></extra>",
    )
    return figure.update_xaxes(title="latent", type="category", tickangle=-90, tickfont={"size": 11})


def cosine_heatmap(cosines: Tensor, names: Sequence[str], title: str | None = None) -> go.Figure:
    """How much directions point the same way: a square matrix of cosines."""
    _check_matrix("cosines", cosines, rows=names, columns=names)
    alt = f"Cosines between {len(names)} directions; the largest in size is {cosines.abs().max():.2f}."
    return _heatmap(
        cosines, names, "cosine", 380, alt, title, x=list(names), colorscale=DIVERGING, zmin=-1, zmax=1,
        xgap=1, ygap=1, hovertemplate="%{y} and %{x}: %{z}<extra></extra>",
    )


# --------------------------------------------------------------------------------------------- histograms

def histogram(
    groups: Mapping[str, Tensor | Sequence[float]], x_title: str, y_title: str = "share (%)",
    n_bins: int = 40, log_y: bool = False, title: str | None = None,
) -> go.Figure:
    """Distributions of one quantity in several groups, over common bins, as shares of each group.

    The counting is done here: a figure carries a few dozen numbers, not the raw data.
    """
    tensors = {name: _as_tensor(name, values) for name, values in groups.items()}
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
                x=_list(centres), y=_list(share), name=_escape(name), mode="lines",
                line={"color": colour, "shape": "hvh", "width": 2}, fill="tozeroy", fillcolor=_faint(colour),
                hovertemplate=f"{_escape(name)}: %{{y}} % near %{{x}}<extra></extra>",
            )
        )
        parts.append(f"{name}: mean {values.mean():.3g}, from {values.min():.3g} to {values.max():.3g}")
    _finish(figure, f"Histogram of {x_title}. " + "; ".join(parts) + ".", 340, title)
    figure.update_xaxes(title=x_title)
    figure.update_yaxes(
        title=y_title, type="log" if log_y else "linear", rangemode="tozero" if not log_y else "normal"
    )
    figure.update_layout(showlegend=len(tensors) > 1, margin_t=44)
    return figure


def _as_tensor(name: str, values: Tensor | Sequence[float]) -> Tensor:
    """One group of values, flat, finite ones only."""
    tensor = torch.as_tensor(values).detach().cpu().float().flatten()
    tensor = tensor[tensor.isfinite()]
    if len(tensor) == 0:
        raise InputError(f"{name}: expected at least one finite value, got none.")
    return tensor


# ------------------------------------------------------------------------------------------ bars and dots

def bars(
    values: Mapping[str, float], x_title: str, title: str | None = None, highlight: Sequence[str] = (),
    digits: int = 3,
) -> go.Figure:
    """One horizontal bar per name, in the order given, from top to bottom; highlighted ones in orange."""
    if not values:
        raise InputError("values: expected at least one name and number, got none.")
    names, numbers = list(values), _list([float(v) for v in values.values()], digits)
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
    _finish(figure, alt, 70 + 30 * len(names) + (30 if title else 0), title)
    figure.update_xaxes(title=x_title)
    figure.update_yaxes(
        tickvals=list(range(len(names))), ticktext=[_escape(n) for n in names], autorange="reversed",
        showgrid=False,
    )
    return figure


def compare_dots(
    rows: Mapping[str, Mapping[str, float]], x_title: str, title: str | None = None,
    x_range: tuple[float, float] | None = None,
) -> go.Figure:
    """A dot plot: a line per row, a dot per measure, to compare several measures of several things."""
    measures = list(dict.fromkeys(m for row in rows.values() for m in row))
    if not measures:
        raise InputError("rows: expected at least one row with one measure, got none.")
    figure, names = go.Figure(), list(rows)
    symbols = ("circle", "diamond", "square", "x", "triangle-up")
    for measure, colour, symbol in zip(measures, SERIES, symbols, strict=False):
        figure.add_trace(
            go.Scatter(
                x=_list([float(rows[n].get(measure, math.nan)) for n in names]), y=list(range(len(names))),
                mode="markers", name=_escape(measure),
                marker={"size": 13, "color": colour, "symbol": symbol},
                hovertemplate=f"{_escape(measure)}: %{{x}}<extra></extra>",
            )
        )
    said = "; ".join(
        f"{n}: " + ", ".join(f"{m} {v:.3g}" for m, v in row.items()) for n, row in rows.items()
    )
    _finish(figure, f"Dot plot of {x_title}. {said}.", 120 + 40 * len(names) + (30 if title else 0), title)
    figure.update_xaxes(title=x_title, range=x_range)
    figure.update_yaxes(
        tickvals=list(range(len(names))), ticktext=[_escape(n) for n in names],
        range=[len(names) - 0.5, -0.5],
    )
    return figure


# -------------------------------------------------------------------------------------- toy superposition

def toy_directions(W: Tensor, labels: Sequence[str], title: str | None = None) -> go.Figure:
    """Where small models put their features: a panel each, an arrow per feature. W: [models, 2, features]."""
    if W.ndim != 3 or W.shape[1] != 2 or len(labels) != len(W):
        raise InputError(f"W: expected [{len(labels)} models, 2, features], got {list(W.shape)}.")
    figure = make_subplots(
        rows=1, cols=len(W), subplot_titles=[_escape(label) for label in labels], horizontal_spacing=0.03
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
    _finish(figure, "Arrows in the plane, one per feature. " + "; ".join(shown) + ".", 300, title)
    figure.update_xaxes(range=[-limit, limit], showticklabels=False, constrain="domain", title="first number")
    figure.update_yaxes(range=[-limit, limit], showticklabels=False)
    figure.update_yaxes(title="second number", row=1, col=1)
    for column in range(1, len(W) + 1):
        figure.update_yaxes(scaleanchor="x" if column == 1 else f"x{column}", row=1, col=column)
    figure.update_annotations(font_size=12)
    figure.update_layout(margin_t=60 if title else 34)
    return figure


# ----------------------------------------------------------------------------------- the page of a latent

def dashboard(page, title: str | None = None) -> go.Figure:
    """A feature's page, offline: examples by interval, histogram, tokens made likelier and less likely.

    page: a `FeaturePage` from `analysis.feature_page`.
    """
    has_logits = bool(page.positive or page.negative)
    heights = [1.0, 170.0] + ([24.0 * (len(page.positive) + len(page.negative)) + 30] if has_logits else [])
    y = 0.0
    for interval in page.intervals:  # first pass: how tall is the text?
        y -= 1
        for example in interval.examples:
            y = _lay_out(example.tokens, y)[1] - 0.35
    heights[0] = max(26.0 * -y, 40.0)
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
    _finish(
        figure, _dashboard_alt(page), int(total) + 90,
        title or f"Latent {page.latent}: active on {page.density:.2%} of {page.n_tokens:,} tokens",
    )
    _hide_axes(figure, y + 0.2, 1)

    centres = [(a + b) / 2 for a, b in zip(page.edges[:-1], page.edges[1:], strict=True)]
    figure.add_trace(
        go.Bar(
            x=_list(centres), y=page.counts, marker_color=BLUE, showlegend=False,
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
                x=_list([v for _, v in pairs]), y=list(range(len(pairs))), orientation="h",
                showlegend=False, marker_color=[ORANGE if v >= 0 else BLUE for _, v in pairs],
                hovertemplate="%{x}<extra></extra>",
            ),
            row=3, col=1,
        )
        figure.update_xaxes(title="effect on the logit, per unit of activation", row=3, col=1)
        figure.add_trace(
            go.Scatter(  # each name on the empty side of its bar
                x=[0] * len(pairs), y=list(range(len(pairs))), mode="text", showlegend=False, hoverinfo="skip",
                text=[f" {_escape(visible(token))} " for token, _ in pairs], textfont={"family": "monospace"},
                textposition=["middle left" if v >= 0 else "middle right" for _, v in pairs],
            ),
            row=3, col=1,
        )
        figure.update_yaxes(showticklabels=False, autorange="reversed", showgrid=False, row=3, col=1)
    return figure


def _dashboard_alt(page) -> str:
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
