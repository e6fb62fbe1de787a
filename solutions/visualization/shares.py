"""Shares: of latents by density, of parts in a whole, of tokens that fit a label from interval to interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
import torch
from torch import Tensor

from solutions.errors import InputError
from solutions.visualization.curves import lines
from solutions.visualization.style import PARTS, SERIES, as_tensor, escape, faint, finish, plain

SILENT = "never active"


def density_histogram(
    groups: Mapping[str, Tensor | Sequence[float]], n_bins: int = 40, title: str | None = None
) -> go.Figure:
    """How often latents are active, on a logarithmic axis, as shares of each group's latents.

    A latent that is never active has no place on a logarithmic axis: those stand apart, left of it.

    Args:
        groups: name to the density of every latent, between 0 and 1.
        n_bins: of the histogram.
        title: what stands above the figure; nothing by default.

    Returns:
        The figure.

    Raises:
        InputError: there is nothing to draw, or a density is none.
    """
    if not groups:
        raise InputError("groups: expected at least one name and its densities, got none.")
    groups = {name: as_tensor(name, values) for name, values in groups.items()}
    for name, values in groups.items():
        if values.min() < 0 or values.max() > 1:
            raise InputError(f"{name}: a density lies between 0 and 1, got {values.min():.3g} to {values.max():.3g}.")
    positive = [float(v[v > 0].min()) for v in groups.values() if (v > 0).any()]
    low = math.floor(math.log10(min(positive))) if positive else -3
    width = -low / n_bins if low else 1.0
    low = low or -1
    figure, said = go.Figure(), []
    silent = low - 0.5  # where those without a logarithm stand
    for i, (name, values) in enumerate(groups.items()):
        alive = values[values > 0]
        share = 100 * alive.log10().histc(n_bins, low, 0) / len(values)
        centres = [low + (b + 0.5) * width for b in range(n_bins)]
        colour, dead = SERIES[i % len(SERIES)], 100 * (len(values) - len(alive)) / len(values)
        figure.add_trace(
            go.Scatter(
                x=plain(centres), y=plain(share), name=escape(name), mode="lines", legendgroup=name,
                line={"color": colour, "shape": "hvh", "width": 2}, fill="tozeroy", fillcolor=faint(colour),
                customdata=plain([100 * 10**c for c in centres]),
                hovertemplate=f"{escape(name)}: %{{y}} % of latents are active on about %{{customdata}} % of tokens"
                "<extra></extra>",
            )
        )
        figure.add_trace(
            go.Bar(
                x=[round(silent + 0.16 * (i - (len(groups) - 1) / 2), 3)], y=plain([dead]), width=0.14,
                marker_color=colour, legendgroup=name, showlegend=False, name=f"{escape(name)}, {SILENT}",
                hovertemplate=f"{escape(name)}: %{{y}} % of latents are never active<extra></extra>",
            )
        )
        words = f"{name}: {len(values)} latents, {dead:.3g}% never active"
        said.append(words + (f", median of the others {float(alive.median()):.2%} of tokens" if len(alive) else ""))
    finish(figure, "Histogram of how often latents are active. " + "; ".join(said) + ".", 360, title)
    powers = list(range(0, low - 1, -1 if low > -5 else -2))  # few enough for a phone
    figure.update_xaxes(
        title_text="density: share of tokens (logarithmic)", range=[silent - 0.4, 0.05],
        tickvals=[silent, *powers], ticktext=["never", *(_percent(p) for p in powers)],
        ticklabeloverflow="allow",
    )
    figure.update_yaxes(title_text="share of latents (%)", rangemode="tozero")
    shown = len(groups) > 1
    return figure.update_layout(showlegend=shown, margin_t=70 if title and shown else 44, margin_r=28)


def _percent(power: int) -> str:
    """A power of ten, as a percentage."""
    return f"{100 * 10.0**power:g} %" if power >= -6 else f"10<sup>{power + 2}</sup> %"


def stacked_bars(
    rows: Mapping[str, Mapping[str, float]], x_title: str = "share (%)", title: str | None = None
) -> go.Figure:
    """One bar per row, cut into parts that make up the whole: what an interval, a latent or an error consists
    of.

    Each bar is scaled to 100 %, hovering gives the amount. Parts keep their order.

    Args:
        rows: name to part to count (or any amount that adds up); at most eight parts can be told apart.
        x_title: name of the axis, with its unit in brackets.
        title: what stands above the figure; nothing by default.

    Returns:
        The figure.

    Raises:
        InputError: there is nothing to draw, too many parts, or a part that is negative.
    """
    parts = list(dict.fromkeys(part for row in rows.values() for part in row))
    if not parts:
        raise InputError("rows: expected at least one row with one part, got none.")
    if len(parts) > len(PARTS):
        raise InputError(f"rows: at most {len(PARTS)} parts can be told apart, got {len(parts)}. Merge the small ones.")
    amounts = {name: [float(row.get(part, 0.0)) for part in parts] for name, row in rows.items()}
    for name, row in amounts.items():
        if not all(v >= 0 and math.isfinite(v) for v in row):
            raise InputError(f"{name}: parts of a whole cannot be negative or infinite, got {row}.")
    totals = {name: sum(row) for name, row in amounts.items()}
    names, figure = list(rows), go.Figure()
    for p, (part, colour) in enumerate(zip(parts, PARTS, strict=False)):
        share = [100 * amounts[n][p] / totals[n] if totals[n] else 0.0 for n in names]
        figure.add_trace(
            go.Bar(
                x=plain(share), y=list(range(len(names))), orientation="h", name=escape(part), marker_color=colour,
                text=[f"{s:.0f}" if s >= 6 else "" for s in share], textposition="inside", insidetextanchor="middle",
                textangle=0, textfont={"color": "#000000"}, constraintext="none",
                customdata=plain([amounts[n][p] for n in names], 6),
                hovertemplate=f"{escape(part)}: %{{x}} % (%{{customdata}})<extra></extra>",
            )
        )
    said = "; ".join(
        f"{n}: " + (", ".join(f"{part} {100 * v / totals[n]:.0f}%" for part, v in zip(parts, amounts[n], strict=True)
                              if v) if totals[n] else "nothing")
        for n in names
    )
    finish(figure, f"Stacked bars of {x_title}. {said}.", 110 + 34 * len(names) + (30 if title else 0), title)
    figure.update_layout(barmode="stack", bargap=0.25, showlegend=True, margin_t=70 if title else 44,
                         legend_traceorder="normal", margin_r=24)
    figure.update_xaxes(title_text=x_title, range=[0, 100], ticklabeloverflow="allow")
    return figure.update_yaxes(
        tickvals=list(range(len(names))), ticktext=[escape(n) for n in names], autorange="reversed", showgrid=False
    )


def interval_purity(
    rows: Mapping[str, Sequence[float] | Tensor], intervals: Sequence[str],
    y_title: str = "share that fits the label (%)", counts: Mapping[str, Sequence[int]] | None = None,
    title: str | None = None,
) -> go.Figure:
    """Does a label that was read off the strongest examples still hold for the weaker ones? A line per latent.

    Args:
        rows: name to share, from 0 to 1, in each interval; NaN where an interval is empty.
        intervals: their names, strongest first.
        y_title: name of the axis, with its unit in brackets.
        counts: name to the number of tokens behind each share, for the 95 % band (Wilson's interval: with few
            tokens it is wide, and never leaves 0 to 100).
        title: what stands above the figure; nothing by default.

    Returns:
        The figure.

    Raises:
        InputError: a share is none, or counts are of another latent.
    """
    shares = {name: torch.as_tensor(values).double() for name, values in rows.items()}
    for name, values in shares.items():
        known = values[~values.isnan()]
        if len(known) and not (0 <= known.min() and known.max() <= 1):
            raise InputError(f"{name}: a share lies between 0 and 1, got {known.min():.3g} to {known.max():.3g}.")
    bands = None
    if counts is not None:
        missing = [name for name in counts if name not in shares]
        if missing:
            raise InputError(f"counts: {missing} is not among the rows {list(shares)}.")
        bands = {name: _wilson(shares[name], torch.as_tensor(n).double(), name) for name, n in counts.items()}
    series = {name: 100 * values for name, values in shares.items()}
    return lines(series, "interval of activation, strongest first", y_title, x=[str(i) for i in intervals],
                 bands=bands, y_range=(-3, 103), title=title)


def _wilson(share: Tensor, n: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Ends of the 95 % interval of a share, in per cent (Wilson 1927)."""
    if share.shape != n.shape:
        raise InputError(f"counts[{name!r}]: expected {len(share)} numbers, one for each interval, got {len(n)}.")
    z, n = 1.96, n.clamp(min=1)
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (share * (1 - share) / n + z**2 / (4 * n**2)).sqrt()
    return 100 * (middle - half), 100 * (middle + half)
