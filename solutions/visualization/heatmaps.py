"""Matrices as colour: dense activations, sparse features, cosines, several bases side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots
from torch import Tensor

from solutions.errors import InputError
from solutions.visualization.style import DIVERGING, SEQUENTIAL, check_matrix, escape, finish, plain, visible


def _heatmap(
    z: Tensor, rows: Sequence[str], unit: str, height: int, alt: str, title: str | None, **options
) -> go.Figure:
    """A heatmap with one named row per entry of `rows`, the first one on top."""
    bar = {"title": {"text": unit, "side": "right"}, "thickness": 10, "outlinewidth": 0}
    numbers = list(range(len(rows)))
    figure = go.Figure(go.Heatmap(z=plain(z), y=numbers, colorbar=bar, **options))
    finish(figure, alt, height, title)
    figure.update_xaxes(showgrid=False, zeroline=False)
    names = [escape(row) for row in rows]
    return figure.update_yaxes(
        tickvals=numbers, ticktext=names, autorange="reversed", showgrid=False, zeroline=False
    )


def activation_heatmap(activations: Tensor, tokens: Sequence[str], title: str | None = None) -> go.Figure:
    """Dense activations of one text: a row per token, a column per dimension.

    The colour scale ends at the 99th percentile of the absolute values, so that one loud dimension does not
    wash out the others; hovering shows the true value.

    Args:
        activations: [tokens, dimensions].
        tokens: the text's tokens.
        title: what stands above the figure; nothing by default.

    Returns:
        The figure.

    Raises:
        InputError: activations of other tokens.
    """
    check_matrix("activations", activations, rows=tokens)
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
    """Sparse features of one text: a row per token, a column per latent.

    Args:
        features: [tokens, latents].
        tokens: the text's tokens.
        latents: which ones to draw; by default the `n` that are strongest somewhere in the text, in the order
            in which they peak.
        n: how many.
        title: what stands above the figure; nothing by default.

    Returns:
        The figure.

    Raises:
        InputError: features of other tokens, or no latent is active.

    Example:
        >>> feature_heatmap(features, words, n=3).layout.meta["alt"]
        'Heatmap of 7 tokens by 3 latents. 19% of the cells are active, the others empty.'
    """
    check_matrix("features", features, rows=tokens)
    latents = strongest_columns(features, n) if latents is None else latents
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


def strongest_columns(values: Tensor, n: int) -> list[int]:
    """The n columns that are strongest in some row, in the order of the rows in which they peak; none at zero."""
    strongest = values.amax(0).topk(min(n, values.shape[1])).indices
    strongest = strongest[values[:, strongest].amax(0) > 0]
    return strongest[values[:, strongest].argmax(0).argsort(stable=True)].tolist()


def cosine_heatmap(cosines: Tensor, names: Sequence[str], title: str | None = None) -> go.Figure:
    """How much directions point the same way: a square matrix of cosines.

    Args:
        cosines: [directions, directions], from -1 to 1.
        names: of the directions.
        title: what stands above the figure; nothing by default.

    Returns:
        The figure.

    Raises:
        InputError: more or fewer names than directions.
    """
    check_matrix("cosines", cosines, rows=names, columns=names)
    alt = f"Cosines between {len(names)} directions; the largest in size is {cosines.abs().max():.2f}."
    return _heatmap(
        cosines, names, "cosine", 380, alt, title, x=list(names), colorscale=DIVERGING, zmin=-1, zmax=1,
        xgap=1, ygap=1, hovertemplate="%{y} and %{x}: %{z}<extra></extra>",
    )


def compare_bases(bases: Mapping[str, Tensor], tokens: Sequence[str], n: int = 32) -> go.Figure:
    """One text read through several sets of directions, one panel below the other, a row per token.

    Colours end at each panel's maximum.

    Args:
        bases: name to the text's activations along its directions, [tokens, directions].
        tokens: the text's tokens.
        n: directions drawn of each: those that are strongest somewhere in the text, in the order in which
            they peak.

    Returns:
        The figure.

    Raises:
        InputError: there is nothing to draw, or a matrix is of other tokens.
    """
    if not bases:
        raise InputError("bases: expected at least one name and matrix, got none.")
    panel, gap = 16 * len(tokens) + 10, 44
    total = len(bases) * panel + (len(bases) - 1) * gap
    titles = [escape(name) for name in bases]
    figure = make_subplots(rows=len(bases), cols=1, subplot_titles=titles, vertical_spacing=gap / total)
    bar = {"title": {"text": "share of maximum", "side": "right"}, "thickness": 10, "outlinewidth": 0}
    filled = []
    for row, (name, values) in enumerate(bases.items(), start=1):
        check_matrix(name, values, rows=tokens)
        chosen = strongest_columns(values, n)
        shown = values[:, chosen] / values[:, chosen].max().clamp(min=1e-9)
        filled.append(f"{name}: {(shown > 0.05).float().mean():.0%}")
        figure.add_trace(
            go.Heatmap(
                z=plain(shown, 2), y=list(range(len(tokens))), colorscale=SEQUENTIAL, zmin=0, zmax=1,
                xgap=1, ygap=1, showscale=row == 1, colorbar=bar,
                hovertemplate="token %{y}, column %{x}: %{z}<extra></extra>",
            ),
            row=row, col=1,
        )
    alt = f"One text of {len(tokens)} tokens through {len(bases)} sets of directions. Cells filled: "
    finish(figure, alt + "; ".join(filled) + ".", total + 90)
    names = [escape(visible(token)) for token in tokens]
    figure.update_xaxes(showgrid=False, zeroline=False, showticklabels=False)
    figure.update_xaxes(title="the strongest directions", row=len(bases), col=1)
    figure.update_yaxes(
        tickvals=list(range(len(tokens))), ticktext=names, tickfont={"size": 10}, autorange="reversed",
        showgrid=False, zeroline=False,
    )
    figure.update_annotations(font_size=13)
    return figure.update_layout(margin_t=34)
