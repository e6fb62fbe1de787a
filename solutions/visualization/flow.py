"""A graph that runs from a text up to what is said next: positions side by side, layers on top of each other."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from solutions.errors import InputError, check_count
from solutions.visualization.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    check_columns,
    escape,
    finish,
    plain,
    visible,
)

#: How each kind of node looks: colour and shape. Others are grey circles.
KINDS = {"token": (GREEN, "square"), "latent": (BLUE, "circle"), "error": (ORANGE, "diamond"), "BOS": (GREY, "x"),
         "logit": (PURPLE, "star")}
ROW = 84  # pixels of a layer
MENU = 46  # pixels above the figure
FROM, TO = "rgba(47,134,193,0.55)", "rgba(201,123,10,0.7)"  # what raises, and what lowers


def attribution_flow(
    nodes: pd.DataFrame, edges: pd.DataFrame, tokens: Sequence[str], menu: int = 16, title: str | None = None
) -> go.Figure:
    """A graph from tokens to logits: a column for each token, a row for each layer, an edge for each direct effect.

    The menu picks a node and shows only what comes into it and goes out of it. Hovering over a node names its largest
    inputs and outputs.

    Args:
        nodes: a row for each node, its label in the index, with kind, layer (-1 for tokens, one more than the last
            layer for logits), position, name, value, and influence, which makes a node large.
        edges: with source, target (labels) and weight.
        tokens: the text, one for each position.
        menu: how many nodes the menu offers, the most influential ones; the logits always are.
        title: what stands above the figure; nothing by default.

    Returns:
        The figure.

    Raises:
        InputError: a column is missing, there is no node, or an edge or a position has nothing at its end.
    """
    check_columns(nodes, ["kind", "layer", "position", "name", "value", "influence"])
    check_columns(edges, ["source", "target", "weight"])
    if not len(nodes):
        raise InputError("nodes: expected at least one, got none. Prune less.")
    lost = (set(edges["source"]) | set(edges["target"])) - set(nodes.index)
    if lost:
        raise InputError(f"edges: {sorted(lost)[:3]} are no nodes of the table.")
    if int(nodes["position"].max()) >= len(tokens) or int(nodes["position"].min()) < 0:
        raise InputError(f"nodes: positions must be 0 to {len(tokens) - 1}, one for each token.")
    places, centres = _places(nodes, len(tokens))
    figure = go.Figure()
    owners = [_add_edges(figure, edges, places, None)]
    offered = _offered(nodes, check_count(menu, "menu", least=0))
    for label in offered:
        touching = edges[(edges["source"] == label) | (edges["target"] == label)]
        owners.append(_add_edges(figure, touching, places, label))
    _add_nodes(figure, nodes, edges, places)
    layers = sorted({int(layer) for layer in nodes["layer"]})
    rows = layers[-1] - layers[0] + 1
    finish(figure, _words(nodes, edges, tokens), ROW * rows + MENU + 90 + (30 if title else 0), title)
    figure.update_xaxes(
        tickvals=plain(centres), ticktext=[escape(visible(token)) for token in tokens], title_text="token",
        showgrid=False, zeroline=False, range=plain([centres[0] - 1.2, places["x"].max() + 1.2]), fixedrange=False,
    )
    names = {-1: "tokens", layers[-1]: "logits"} if layers[-1] > 0 else {-1: "tokens"}
    figure.update_yaxes(
        tickvals=list(range(layers[0], layers[-1] + 1)), zeroline=False,
        ticktext=[names.get(layer, f"MLP {layer}") for layer in range(layers[0], layers[-1] + 1)],
        range=[layers[0] - 0.5, layers[-1] + 0.5], fixedrange=False,
    )
    return _with_menu(figure, nodes, offered, owners, title)


# ---- places


def _places(nodes: pd.DataFrame, n_tokens: int) -> tuple[pd.DataFrame, list[float]]:
    """x and y of every node; x of the middle of every column. A column is as wide as its fullest layer."""
    crowd = nodes.groupby(["position", "layer"]).size()
    widths = [float(crowd.get(p).max()) if p in crowd.index else 1.0 for p in range(n_tokens)]
    widths = [max(1.0, width) + 0.6 for width in widths]
    starts = np.concatenate([[0.0], np.cumsum(widths)])
    centres = [float((starts[p] + starts[p + 1]) / 2) for p in range(n_tokens)]
    places = pd.DataFrame(index=nodes.index, columns=["x", "y"], dtype=float)
    for (position, layer), cell in nodes.groupby(["position", "layer"]):
        for i, label in enumerate(_middle_out(cell)):
            side = i - (len(cell) - 1) / 2
            rise = 0.18 * (i % 2) if len(cell) > 3 else 0.0  # neighbours at two heights, so that lines pass between
            places.loc[label] = centres[int(position)] + side, layer + rise
    return places, centres


def _middle_out(cell: pd.DataFrame) -> list[int]:
    """The labels of a cell's nodes from left to right, the most influential in the middle."""
    ranked = cell.sort_values("influence", ascending=False).index.tolist()
    return ranked[1::2][::-1] + ranked[0::2]


# ---- traces


def _add_edges(figure: go.Figure, edges: pd.DataFrame, places: pd.DataFrame, label: int | None) -> int:
    """Lines in three strengths and two colours; gives how many traces that were. Without a label: all edges."""
    before = len(figure.data)
    if len(edges):
        strength = edges["weight"].abs()
        rank = strength.rank(pct=True, method="first")
        for raises, colour in ((True, FROM), (False, TO)):
            for low, high, width in ((0.0, 0.6, 0.7), (0.6, 0.9, 1.6), (0.9, 1.0, 3.2)):
                chosen = edges[((edges["weight"] > 0) == raises) & (rank > low) & (rank <= high)]
                if len(chosen):
                    figure.add_trace(_lines(chosen, places, colour, width, raises, label is None))
    return len(figure.data) - before


def _lines(
    edges: pd.DataFrame, places: pd.DataFrame, colour: str, width: float, raises: bool, shown: bool
) -> go.Scatter:
    xs, ys = [], []
    for source, target in zip(edges["source"], edges["target"], strict=True):
        xs += [places.at[source, "x"], places.at[target, "x"], None]
        ys += [places.at[source, "y"], places.at[target, "y"], None]
    return go.Scatter(
        x=plain(xs), y=plain(ys), mode="lines", hoverinfo="skip", showlegend=False, visible=shown,
        line={"width": width, "color": colour, "dash": "solid" if raises else "dot"},
    )


def _add_nodes(figure: go.Figure, nodes: pd.DataFrame, edges: pd.DataFrame, places: pd.DataFrame) -> None:
    most = max(float(nodes["influence"].max()), 1e-12)
    for kind in [*KINDS, *sorted(set(nodes["kind"]) - set(KINDS))]:
        some = nodes[nodes["kind"] == kind]
        if not len(some):
            continue
        colour, symbol = KINDS.get(kind, (GREY, "circle"))
        size = [round(9 + 15 * math.sqrt(max(0.0, share) / most), 1) for share in some["influence"]]
        size = [16.0] * len(some) if kind == "logit" else size
        figure.add_trace(go.Scatter(
            x=plain(places.loc[some.index, "x"].tolist()), y=plain(places.loc[some.index, "y"].tolist()),
            mode="markers+text" if kind == "logit" else "markers", name=escape(kind),
            text=[escape(visible(str(name))) for name in some["name"]],
            textposition=_beside(places.loc[some.index, "x"]),
            marker={"color": colour, "symbol": symbol, "size": size, "line": {"width": 0}},
            customdata=[int(label) for label in some.index],
            hovertext=[_says(label, nodes, edges) for label in some.index],
            hovertemplate="%{hovertext}<extra></extra>",
        ))


def _beside(x: pd.Series) -> list[str]:
    """Where names stand: those at the two ends outwards, so that neighbours do not write over each other."""
    ends = {x.idxmin(): "middle left", x.idxmax(): "middle right"} if len(x) > 1 else {}
    return [ends.get(label, "top center") for label in x.index]


def _says(label: int, nodes: pd.DataFrame, edges: pd.DataFrame) -> str:
    """What is shown on hovering over a node."""
    node = nodes.loc[label]
    lines = [f"<b>{_called(node)}</b>", f"{escape(str(node['kind']))}, value {node['value']:.3g}, "
             f"influence {node['influence']:.3g}"]
    for word, mine, other in (("from", "target", "source"), ("to", "source", "target")):
        largest = edges[edges[mine] == label].sort_values("weight", key=abs, ascending=False).head(4)
        lines += [f"{word} {_called(nodes.loc[row[other]])}: {row['weight']:+.2g}" for _, row in largest.iterrows()]
    return "<br>".join(lines)


def _called(node: pd.Series) -> str:
    return escape(visible(str(node["name"])[:48]))


# ---- the menu and the words


def _offered(nodes: pd.DataFrame, most: int) -> list[int]:
    logits = nodes.index[nodes["kind"] == "logit"].tolist() if most else []
    rest = nodes[~nodes["kind"].isin(("logit",))].sort_values("influence", ascending=False).head(most)
    return logits + rest.index.tolist()


def _with_menu(
    figure: go.Figure, nodes: pd.DataFrame, offered: list[int], owners: list[int], title: str | None
) -> go.Figure:
    """A menu of nodes: each shows its own edges. Nodes always stay."""
    groups = [group for group, n in enumerate(owners) for _ in range(n)]
    dots = len(figure.data) - len(groups)
    labels = ["all edges", *(_in_menu(nodes.loc[label]) for label in offered)]
    buttons = [
        {"method": "restyle", "label": label, "args": [{"visible": [g == chosen for g in groups] + [True] * dots}]}
        for chosen, label in enumerate(labels)
    ]
    if offered:
        figure.update_layout(updatemenus=[{
            "buttons": buttons, "type": "dropdown", "direction": "down", "showactive": True, "x": 0, "y": 1,
            "xanchor": "left", "yanchor": "bottom", "pad": {"b": 8}, "bgcolor": "#F5F6F8", "bordercolor": "#858A93",
            "font": {"color": "#22282F"},
        }])
    return figure.update_layout(
        margin_t=MENU + 14 + (30 if title else 0), margin_b=90,
        legend={"y": 0, "yref": "container", "yanchor": "bottom", "x": 0, "itemsizing": "constant"},
    )


def _in_menu(node: pd.Series) -> str:
    name = visible(str(node["name"]))
    name = escape(f"{name[:38]}…" if len(name) > 38 else name)
    return f"{node['kind']}: {name}" if node["kind"] in ("token", "logit") else name


def _words(nodes: pd.DataFrame, edges: pd.DataFrame, tokens: Sequence[str]) -> str:
    counts = nodes["kind"].value_counts()
    parts = ", ".join(f"{n} of the kind {kind}" for kind, n in counts.items())
    said = f"Graph from the text {''.join(tokens)!r} to what is said next: {parts}; {len(edges)} edges."
    top = nodes[~nodes["kind"].isin(("logit", "token"))].sort_values("influence", ascending=False).head(5)
    if len(top):
        where = [visible(tokens[int(position)]) for position in top["position"]]
        named = "; ".join(f"{visible(str(n))} at {at}" for n, at in zip(top["name"], where, strict=True))
        said += f" The most influential nodes between the two: {named}."
    if len(edges):
        edge = edges.loc[edges["weight"].abs().idxmax()]
        ends = (visible(str(nodes.at[edge[end], "name"])) for end in ("source", "target"))
        said += f" The largest edge, {edge['weight']:+.3g}: from {' to '.join(ends)}."
    return said
