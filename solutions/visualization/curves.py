"""Lines, scatters and spectra: how a quantity goes with layer, position, rank or another quantity."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots
from torch import Tensor

from solutions.errors import InputError
from solutions.visualization.style import GREY, SERIES, SYMBOLS, as_tensor, escape, faint, finish, plain

Numbers = Tensor | Sequence[float]
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
RANKS = 120  # points of a curve over ranks: spread evenly on the logarithmic axis


def lines(
    series: Mapping[str, Numbers],
    x_title: str,
    y_title: str,
    x: Sequence | Tensor | None = None,
    bands: Mapping[str, tuple[Numbers, Numbers]] | None = None,
    log_x: bool = False,
    log_y: bool = False,
    reference: Mapping[str, float] | None = None,
    y_range: tuple[float, float] | None = None,
    title: str | None = None,
) -> go.Figure:
    """One line per series over common places, say layers or positions, each with its band if it has one.

    Args:
        series: name to values, one for each place. A value that is not a number leaves a gap.
        x_title, y_title: what is drawn, with the unit in brackets.
        x: the places, as numbers or as names; by default 0, 1, 2, …
        bands: series name to (lower ends, upper ends), for instance two quantiles.
        log_x, log_y: logarithmic axes. What is not positive cannot be shown there and leaves a gap.
        reference: name to a level that all of it is to be compared with, drawn across as a dashed line.
        y_range: lowest and highest value of the axis, when it is not to follow the data.
        title: what stands above the figure; nothing by default.

    Returns:
        The figure.

    Raises:
        InputError: there is nothing to draw, or things of different lengths.

    Example:
        >>> figure = lines({"SAE": [0.8, 0.9], "PCA": [0.3, 0.4]}, "layer", "explained variance (share)")
        >>> [line.name for line in figure.data]
        ['SAE', 'PCA']
    """
    rows = {name: _finite_or_nan(name, values) for name, values in series.items()}
    if not rows:
        raise InputError("series: expected at least one name and its values, got none.")
    length = len(next(iter(rows.values())))
    places = list(range(length)) if x is None else plain(x, 6)
    _same_length(length, {"x": places, **rows})
    figure, said = go.Figure(), []
    for i, (name, values) in enumerate(rows.items()):
        colour = SERIES[i % len(SERIES)]
        if bands and name in bands:
            _band(figure, name, places, bands[name], colour, length)
        figure.add_trace(
            go.Scatter(
                x=places, y=plain(values, 4), name=escape(name), legendgroup=name,
                mode="lines+markers" if length <= 40 else "lines",
                line={"color": colour, "width": 2, "dash": DASHES[i // len(SERIES) % len(DASHES)]},
                marker={"symbol": SYMBOLS[i % len(SYMBOLS)], "size": 8}, connectgaps=False,
                hovertemplate=f"{escape(name)} at %{{x}}: %{{y}}<extra></extra>",
            )
        )
        known = [v for v in values if math.isfinite(v)]
        if known:
            said.append(f"{name}: from {known[0]:.3g} to {known[-1]:.3g}, highest {max(known):.3g}")
    for name, level in (reference or {}).items():
        figure.add_trace(
            go.Scatter(
                x=[places[0], places[-1]], y=plain([float(level)] * 2), mode="lines", name=escape(name),
                legendgroup=name, line={"color": GREY, "dash": "dash", "width": 2},
                hovertemplate=f"{escape(name)}: %{{y}}<extra></extra>",
            )
        )
        said.append(f"{name}: {float(level):.3g} throughout")
    opening = f"{title}. Lines" if title else "Lines"   # several figures of a page may have the same axes
    finish(figure, f"{opening} of {y_title} over {x_title}. " + "; ".join(said) + ".", 380, title)
    if isinstance(places[0], str):
        figure.update_xaxes(title_text=x_title, type="category")
    else:
        _name_axis(figure.update_xaxes, x_title, log_x)
        if length <= 14 and not log_x and all(float(v or 0).is_integer() for v in places):
            figure.update_xaxes(tickvals=places)  # there is no layer two and a half
    _name_axis(figure.update_yaxes, y_title, log_y)
    figure.update_yaxes(range=_axis(y_range, log_y))
    return _room_for_legend(figure, title, len(figure.data) > 1)


def _band(figure: go.Figure, name: str, places: list, ends: tuple[Numbers, Numbers], colour: str, n: int) -> None:
    """The area between two lines, as one closed shape."""
    if len(ends) != 2:
        raise InputError(f"bands[{name!r}]: expected (lower ends, upper ends), got {len(ends)} parts.")
    low, high = (_finite_or_nan(f"bands[{name!r}]", end) for end in ends)
    _same_length(n, {f"bands[{name!r}], lower": low, f"bands[{name!r}], upper": high})
    kept = [i for i in range(n) if math.isfinite(low[i]) and math.isfinite(high[i])]
    figure.add_trace(
        go.Scatter(
            x=[places[i] for i in kept] + [places[i] for i in reversed(kept)],
            y=plain([low[i] for i in kept] + [high[i] for i in reversed(kept)]),
            fill="toself", fillcolor=faint(colour, 0.2), line={"width": 0}, mode="lines", hoverinfo="skip",
            name=escape(name) + " (band)", legendgroup=name, showlegend=False,
        )
    )


def ranked(
    groups: Mapping[str, Numbers], y_title: str, x_title: str = "rank", log_x: bool = True, log_y: bool = True,
    title: str | None = None,
) -> go.Figure:
    """All values of each group, the largest first: outlier dimensions stand out on the left.

    At most 120 points of each are drawn, evenly spread over the axis, always with the first and the last.

    Args:
        groups: name to values, for example the standard deviation of every dimension.
        y_title: name of the axis, with its unit in brackets.
        x_title: name of the axis, with its unit in brackets.
        log_x: a logarithmic axis of ranks.
        log_y: a logarithmic axis of values; what is not positive is left out.
        title: what stands above the figure; nothing by default.

    Returns:
        The figure.

    Raises:
        InputError: there is nothing to draw.
    """
    if not groups:
        raise InputError("groups: expected at least one name and its values, got none.")
    figure, said = go.Figure(), []
    for i, (name, values) in enumerate(groups.items()):
        values = as_tensor(name, values).sort(descending=True).values
        ranks = _ranks(len(values), log_x)
        figure.add_trace(_curve(name, i, ranks + 1, values[ranks], f"{escape(name)}, rank %{{x}}: %{{y}}"))
        said.append(f"{name}: largest {values[0]:.3g}, median {values.median():.3g}")
    finish(figure, f"{y_title}, sorted, largest first. " + "; ".join(said) + ".", 360, title)
    _name_axis(figure.update_xaxes, x_title, log_x)
    _name_axis(figure.update_yaxes, y_title, log_y)
    return _room_for_legend(figure, title, len(figure.data) > 1)


def spectrum(
    spectra: Mapping[str, Tensor], dimensions: Mapping[str, float] | None = None, title: str | None = None
) -> go.Figure:
    """Eigenvalues of covariance matrices: each against its rank, and what share of the variance the first ones
    hold.

    Args:
        spectra: name to eigenvalues [d], in any order; tiny negative ones, left by rounding, count as zero.
        dimensions: name to the effective dimension, marked on the lower curve.
        title: what stands above the figure; nothing by default.

    Returns:
        The figure.

    Raises:
        InputError: no eigenvalue above zero, or a dimension of no spectrum.
    """
    if not spectra:
        raise InputError("spectra: expected at least one name and its eigenvalues, got none.")
    unknown = set(dimensions or {}) - set(spectra)
    if unknown:
        raise InputError(f"dimensions: {sorted(unknown)} is not among the spectra {list(spectra)}.")
    figure = make_subplots(rows=2, cols=1, vertical_spacing=0.16)
    said = []
    for i, (name, values) in enumerate(spectra.items()):
        values = as_tensor(name, values).sort(descending=True).values.clamp(min=0)
        if values.sum() <= 0:
            raise InputError(f"{name}: expected eigenvalues with a positive sum, got none above zero.")
        ranks = _ranks(len(values), True)
        share = 100 * values.cumsum(0) / values.sum()
        shown = torch.where(values > 1e-9 * values[0], values, torch.nan)  # rounding noise is no eigenvalue
        upper = _curve(name, i, ranks + 1, shown[ranks], f"{escape(name)}, number %{{x}}: %{{y}}")
        lower = _curve(name, i, ranks + 1, share[ranks], f"{escape(name)}, first %{{x}}: %{{y}} %")
        figure.add_trace(upper.update(legendgroup=name), row=1, col=1)
        figure.add_trace(lower.update(legendgroup=name, showlegend=False), row=2, col=1)
        ninety = int((share < 90).sum()) + 1
        words = f"{name}: {len(values)} eigenvalues, the largest {values[0]:.3g}, 90% of the variance in {ninety}"
        if dimensions and name in dimensions:
            size = float(dimensions[name])
            at = share[min(max(round(size), 1), len(values)) - 1]
            figure.add_trace(_mark(name, i, size, float(at)), row=2, col=1)
            words += f", effective dimension {size:.3g}"
        said.append(words)
    finish(figure, "Spectra of the covariance. " + "; ".join(said) + ".", 620, title)
    figure.update_xaxes(title_text="number of the eigenvalue, largest first", type="log")
    figure.update_xaxes(title_text="directions kept, largest first", row=2, col=1)
    figure.update_yaxes(title_text="eigenvalue (squared units)", type="log", exponentformat="power", row=1, col=1)
    figure.update_yaxes(title_text="variance held (%)", range=[0, 103], row=2, col=1)
    return _room_for_legend(figure, title, len(spectra) > 1)


def _mark(name: str, i: int, size: float, at: float) -> go.Scatter:
    """The effective dimension, on the curve of what the first directions hold."""
    colour = SERIES[i % len(SERIES)]
    return go.Scatter(
        x=plain([size]), y=plain([at]), mode="markers", legendgroup=name, showlegend=False,
        name=escape(name) + " (effective dimension)",
        marker={"symbol": "star", "size": 15, "color": colour, "line": {"color": "#fff", "width": 1}},
        hovertemplate=f"{escape(name)}: effective dimension %{{x}}<extra></extra>",
    )


def scatter(
    x: Numbers, y: Numbers, x_title: str, y_title: str,
    categories: Sequence[str] | None = None, hover: Sequence[str] | None = None,
    log_x: bool = False, log_y: bool = False, diagonal: bool = False, title: str | None = None,
) -> go.Figure:
    """One dot per thing. Categories differ in colour and in shape, and can be switched off in the legend.

    Points that are not finite, or not positive on a logarithmic axis, are left out, and the description says
    how many.

    Args:
        x: a number per thing.
        y: a number per thing.
        x_title: name of the axis, with its unit in brackets.
        y_title: name of the axis, with its unit in brackets.
        categories: what kind each is, at most ten kinds.
        hover: what each is called.
        log_x: a logarithmic axis.
        log_y: a logarithmic axis.
        diagonal: draw the line on which x and y agree.
        title: what stands above the figure; nothing by default.

    Returns:
        The figure.

    Raises:
        InputError: too many kinds, things of different lengths, or no point that can be drawn.

    Example:
        >>> scatter([1, 2], [3, 5], "density (share)", "F1 (share)").layout.meta["alt"]
        'Dots of F1 (share) against density (share). 2 points.'
    """
    xs, ys = (_finite_or_nan(name, values) for name, values in (("x", x), ("y", y)))
    given = {"y": ys, "categories": categories, "hover": hover}
    _same_length(len(xs), {name: values for name, values in given.items() if values is not None})
    kinds = list(dict.fromkeys(categories)) if categories is not None else [""]
    if len(kinds) > 10:
        raise InputError(f"categories: at most 10 kinds can be told apart, got {len(kinds)}. Merge the rare ones.")
    low_x, low_y = (0.0 if log else -math.inf for log in (log_x, log_y))
    kept = [i for i in range(len(xs)) if low_x < xs[i] < math.inf and low_y < ys[i] < math.inf]
    if not kept:
        raise InputError("x and y: there is no point that could be drawn on these axes.")
    figure, said = go.Figure(), []
    for number, kind in enumerate(kinds):
        mine = [i for i in kept if categories is None or categories[i] == kind]
        named = [] if hover is None else [escape(str(hover[i])) for i in mine]
        figure.add_trace(
            go.Scatter(
                x=plain([xs[i] for i in mine]), y=plain([ys[i] for i in mine]), name=escape(str(kind)),
                mode="markers", customdata=named or None,
                marker={
                    "color": SERIES[number % len(SERIES)],
                    "symbol": SYMBOLS[(number + number // len(SERIES)) % len(SYMBOLS)],
                    "size": 9 if len(kept) < 400 else 5, "opacity": 0.85 if len(kept) < 400 else 0.6,
                },
                hovertemplate=("%{customdata}<br>" if named else "") + f"{escape(x_title)}: %{{x}}<br>"
                f"{escape(y_title)}: %{{y}}<extra>{escape(str(kind))}</extra>",
            )
        )
        said.append(f"{kind}: {len(mine)} points" if kind else f"{len(mine)} points")
    if diagonal:
        both = [v for i in kept for v in (xs[i], ys[i])]
        ends = plain([min(both), max(both)])
        figure.add_trace(
            go.Scatter(x=ends, y=ends, mode="lines", name="both the same", hoverinfo="skip",
                       line={"color": GREY, "dash": "dash", "width": 1.5})
        )
    if len(kept) < len(xs):
        said.append(f"{len(xs) - len(kept)} points cannot be shown on these axes")
    finish(figure, f"Dots of {y_title} against {x_title}. " + "; ".join(said) + ".", 420, title)
    _name_axis(figure.update_xaxes, x_title, log_x)
    _name_axis(figure.update_yaxes, y_title, log_y)
    return _room_for_legend(figure, title, len(figure.data) > 1)


def paths(
    routes: Mapping[str, tuple[Numbers, Numbers]], x_title: str, y_title: str,
    stops: Sequence[str] | None = None, points: Mapping[str, tuple[float, float]] | None = None,
    title: str | None = None,
) -> go.Figure:
    """One path per name through the plane of two measures, say what a push gains and what it costs, dose by dose.

    Args:
        routes: name to (x, y), one number each for every stop. A stop that is not finite is left out.
        x_title, y_title: the two measures, each with its unit in brackets.
        stops: what each stop is called, the same for all paths; the hover text shows it.
        points: name to one place (x, y) that belongs to no path, drawn as a star.
        title: what stands above the figure; nothing by default.

    Returns:
        The figure.

    Raises:
        InputError: there is nothing to draw, or things of different lengths.

    Example:
        >>> figure = paths({"latent": ([0, 1, 4], [0, 2, 3])}, "effect (%)", "damage (nats)", points={"prompt": (2, 1)})
        >>> [trace.name for trace in figure.data]
        ['latent', 'prompt']
    """
    if not routes:
        raise InputError("routes: expected at least one name and its (x, y), got none.")
    figure, said = go.Figure(), []
    for i, (name, (xs, ys)) in enumerate(routes.items()):
        xs, ys = _finite_or_nan(f"routes[{name!r}], x", xs), _finite_or_nan(f"routes[{name!r}], y", ys)
        called = list(map(str, range(len(xs)))) if stops is None else list(map(str, stops))
        _same_length(len(xs), {f"routes[{name!r}], y": ys, "stops": called})
        kept = [k for k in range(len(xs)) if math.isfinite(xs[k]) and math.isfinite(ys[k])]
        if not kept:
            raise InputError(f"routes[{name!r}]: no stop has two finite numbers.")
        line = {"color": SERIES[i % len(SERIES)], "width": 2, "dash": DASHES[i // len(SERIES) % len(DASHES)]}
        figure.add_trace(
            go.Scatter(
                x=plain([xs[k] for k in kept], 4), y=plain([ys[k] for k in kept], 4), name=escape(name),
                mode="lines+markers", line=line, marker={"symbol": SYMBOLS[i % len(SYMBOLS)], "size": 8},
                customdata=[escape(called[k]) for k in kept],
                hovertemplate=f"{escape(name)}, %{{customdata}}: %{{x}}, %{{y}}<extra></extra>",
            )
        )
        last = kept[-1]
        said.append(f"{name}: ends at {xs[last]:.3g}, {ys[last]:.3g}")
    for i, (name, (x, y)) in enumerate((points or {}).items()):
        figure.add_trace(
            go.Scatter(
                x=plain([float(x)], 4), y=plain([float(y)], 4), mode="markers", name=escape(name),
                marker={"symbol": "star", "size": 14, "color": SERIES[(len(routes) + i) % len(SERIES)]},
                hovertemplate=f"{escape(name)}: %{{x}}, %{{y}}<extra></extra>",
            )
        )
        said.append(f"{name}: at {float(x):.3g}, {float(y):.3g}")
    finish(figure, f"Paths of {y_title} against {x_title}. " + "; ".join(said) + ".", 420, title)
    _name_axis(figure.update_xaxes, x_title, False)
    _name_axis(figure.update_yaxes, y_title, False)
    return _room_for_legend(figure, title, len(figure.data) > 1)


# ---- small things the figures above share


def _curve(name: str, i: int, x: Tensor, y: Tensor, says: str) -> go.Scatter:
    """One curve over ranks."""
    line = {"color": SERIES[i % len(SERIES)], "width": 2, "dash": DASHES[i // len(SERIES) % len(DASHES)]}
    return go.Scatter(x=plain(x), y=plain(y), mode="lines", name=escape(name), line=line,
                      hovertemplate=says + "<extra></extra>")


def _ranks(n: int, log: bool) -> Tensor:
    """Which of n sorted values to draw: all of a few, else `RANKS` of them, evenly spread over the axis."""
    if n <= RANKS:
        return torch.arange(n)
    spread = torch.logspace(0, math.log10(n), RANKS) - 1 if log else torch.linspace(0, n - 1, RANKS)
    return spread.round().long().clamp(0, n - 1).unique()


def _finite_or_nan(name: str, values: Numbers) -> list[float]:
    """One number a place, as plain floats; infinities become gaps, like NaN."""
    if isinstance(values, np.ndarray):
        values = values.astype(float)  # a copy: a table's column may be read-only, and torch warns of that
    tensor = torch.as_tensor(values).detach().cpu().double()
    if tensor.ndim != 1 or len(tensor) == 0:
        raise InputError(f"{name}: expected a row of numbers, got shape {list(tensor.shape)}.")
    return [v if math.isfinite(v) else math.nan for v in tensor.tolist()]


def _same_length(n: int, rows: Mapping[str, Sequence]) -> None:
    for name, row in rows.items():
        if len(row) != n:
            raise InputError(f"{name}: expected {n} entries, one for each place, got {len(row)}.")


def _name_axis(update: Callable, title: str, log: bool) -> None:
    """Title and kind of an axis; a logarithmic one counts in powers of ten, not in µ and k."""
    update(title_text=title, type="log" if log else "linear", exponentformat="power" if log else "B")


def _axis(ends: tuple[float, float] | None, log: bool) -> list[float] | None:
    """Ends of an axis; a logarithmic one is given to Plotly as powers of ten."""
    return None if ends is None else [math.log10(e) if log else e for e in ends]


def _room_for_legend(figure: go.Figure, title: str | None, shown: bool) -> go.Figure:
    return figure.update_layout(showlegend=shown, margin_t=(70 if title else 44) if shown else (44 if title else 14))
