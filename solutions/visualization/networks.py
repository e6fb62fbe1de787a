"""Latents as dots: which fire together, drawn as a network, and which directions lie near each other, as a map.

On the site, a click on a dot tells the page which latent it was (`figures.js`); a table of latents on the same page
(`latent_browser`) then shows that one. The table is also the way for those who do not use a pointer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import networkx as nx
import numpy as np
import pandas as pd
import plotly.graph_objects as go

from solutions.errors import InputError, check_count, unknown_name
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

KINDS = 8       # told apart by colour and shape; what is left over is grey
SMALL = 40      # nodes; up to here the slower and better layout is quick enough
GAP = 1.0       # between parts of a network, where a part of three latents is about 2 wide
GL = 4000       # dots; more are drawn by the graphics card
OTHER = "other"
# Low to high, readable on white and on black.
RISING = [[0.0, "#2F86C1"], [0.5, "#A79F96"], [1.0, "#D98200"]]


def coactivation_graph(
    pairs: pd.DataFrame | nx.Graph, weight: str = "lift", communities: pd.DataFrame | None = None,
    names: Mapping[int, str] | None = None, most: int = 200, seed: int = 0, title: str | None = None,
) -> go.Figure:
    """Latents that fire together: a dot per latent, a line per pair, thicker the stronger the pair.

    The eight largest communities have a colour and a shape each.

    Args:
        pairs: a table with columns a, b and `weight`, or a graph (`Coactivation.pairs`, `Coactivation.graph`).
        weight: what makes a pair strong. Edges of a graph that have no such attribute are taken by their weight, and
            this is what it is called.
        communities: a table with columns latent and community, and label if communities have names
            (`Coactivation.communities`); a column concept gives the latents names. A graph may carry the same as
            attributes of its nodes.
        names: latent to a name for it, shown on hovering.
        most: the number of pairs drawn, the strongest ones.
        seed: of the layout. Parts that hang together by no pair stand apart; distances mean nothing else.
        title: what stands above the figure; nothing by default.

    Returns:
        The figure.

    Raises:
        InputError: a column is missing, or there is nothing to draw.
    """
    edges = _edges(pairs, weight)[: check_count(most, "most")]
    if names is None and communities is not None and "concept" in communities:
        named = zip(communities["latent"], communities["concept"], strict=True)
        names = {int(j): name for j, name in named if _word(name)}
    graph = nx.Graph()
    graph.add_nodes_from(sorted({end for a, b, _ in edges for end in (a, b)}))
    graph.add_weighted_edges_from(edges)
    group = _communities(pairs, communities, list(graph))
    places = place_nodes(graph, seed)
    figure = go.Figure()
    _add_edges(figure, graph, places, weight)
    kinds = _by_size(group)
    for i, kind in enumerate(kinds):
        members = [node for node in graph if group[node] == kind]
        _add_nodes(figure, graph, places, members, kind, i, names or {}, weight)
    a, b, strongest = edges[0]
    rest = "" if not kinds else "The largest communities: " + ", ".join(
        f"{kind} ({sum(g == kind for g in group.values())} latents)" for kind in kinds[:KINDS] if kind) + "."
    alt = (
        f"Network of {len(graph)} latents that fire together, joined by {len(edges)} pairs in "
        f"{nx.number_connected_components(graph)} separate parts. The strongest pair: {_called(a, names)} and "
        f"{_called(b, names)}, {weight} {strongest:.3g}. {rest if any(kinds) else ''}"
    )
    finish(figure, alt.strip(), 520 + (30 if title else 0), title)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    figure.update_layout(meta={"alt": alt.strip(), "click": "latent"})
    return _legend(figure, any(kinds), title, len(kinds))


def latent_map(
    table: pd.DataFrame, colour: str | None = None, hover: Sequence[str] = (), highlight: Sequence[int] = (),
    x_title: str = "first coordinate (no unit)", y_title: str = "second coordinate (no unit)",
    title: str | None = None,
) -> go.Figure:
    """A map of latents, for instance of their decoder directions in two dimensions: a dot per latent.

    The buttons above the map zoom. What is far apart on a map of two dimensions may be close in all of them, and
    the other way round: see the figure as an index, not as evidence.

    Args:
        table: with columns latent, x and y, and whatever `colour` and `hover` name.
        colour: a column to colour by: a scale for numbers; for words the eight largest kinds, and "other" for
            the rest and for what is missing.
        hover: columns to show on hovering, beside the latent's number.
        highlight: latents to be drawn large, with their numbers.
        x_title, y_title: what the coordinates are.
        title: what stands above the figure; nothing by default.

    Returns:
        The figure.

    Raises:
        InputError: a column is missing, or no latent has a place.
    """
    check_columns(table, ["latent", "x", "y", *([colour] if colour else []), *hover])
    finite = np.isfinite(table["x"].astype(float)) & np.isfinite(table["y"].astype(float))
    table = table[finite].reset_index(drop=True)
    if not len(table):
        raise InputError("table: expected at least one latent with finite x and y, got none.")
    words = colour is not None and not _is_number(table[colour])
    scale = None if words or colour is None else table[colour].astype(float)
    kind, kinds = _kinds(table, colour, scale)
    figure = go.Figure()
    for i, name in enumerate(kinds):
        part = table[kind == name]
        along = None if scale is None or name == OTHER else scale[part.index]
        _add_dots(figure, part, name, i, along, hover, len(table))
    if len(highlight):
        _add_highlight(figure, table, highlight)
    said = f"Map of {len(table)} latents, {x_title} against {y_title}."
    if words:
        said += f" By {colour}: " + ", ".join(f"{k or 'none'} {int((kind == k).sum())}" for k in kinds) + "."
    elif scale is not None:
        said += f" Coloured by {colour}, from {scale.min():.3g} to {scale.max():.3g}"
        said += f"; {int((kind == OTHER).sum())} have none and are grey." if OTHER in kinds else "."
    if len(highlight):
        said += f" Marked: {', '.join(str(int(j)) for j in highlight)}."
    finish(figure, said, 520 + (30 if title else 0), title)
    figure.update_xaxes(title_text=x_title, fixedrange=False, zeroline=False)
    figure.update_yaxes(title_text=y_title, fixedrange=False, zeroline=False)
    if scale is not None:
        bar = {"orientation": "h", "title": {"text": escape(colour), "side": "top"}, "thickness": 10,
               "outlinewidth": 0, "x": 0.5, "len": 0.9, "y": 1.0, "yanchor": "bottom", "nticks": 6}
        figure.update_layout(coloraxis={"colorscale": RISING, "colorbar": bar})
    figure.update_layout(meta={"alt": said, "click": "latent"})
    _legend(figure, words, title, len(kinds))
    return figure.update_layout(margin_t=figure.layout.margin.t + (56 if scale is not None else 0))


# ---- a network


def _edges(pairs: pd.DataFrame | nx.Graph, weight: str) -> list[tuple[int, int, float]]:
    """All pairs, the strongest first."""
    if isinstance(pairs, nx.Graph):
        key = weight if any(weight in data for *_, data in pairs.edges(data=True)) else "weight"
        known = sorted({name for *_, data in pairs.edges(data=True) for name in data})
        if pairs.number_of_edges() and key not in known:
            raise unknown_name("weight", weight, known, "It is wanted of the edges.")
        rows = [(int(a), int(b), float(data[key])) for a, b, data in pairs.edges(data=True) if key in data]
    else:
        check_columns(pairs, ["a", "b", weight])
        numbers = zip(pairs["a"], pairs["b"], pairs[weight], strict=True)
        rows = [(int(a), int(b), float(w)) for a, b, w in numbers]
    rows = [(min(a, b), max(a, b), w) for a, b, w in rows if a != b and math.isfinite(w)]
    if not rows:
        raise InputError("pairs: expected at least one pair of two latents, got none. Lower the threshold.")
    return sorted(rows, key=lambda row: (-row[2], row[0], row[1]))


def _communities(pairs, communities: pd.DataFrame | None, nodes: list[int]) -> dict[int, str]:
    """The community of every node, as it is to be called; "" where there are none."""
    if communities is None and isinstance(pairs, nx.Graph):
        found = {n: d for n, d in pairs.nodes(data=True) if "community" in d}
        if not found:
            return dict.fromkeys(nodes, "")
        table = pd.DataFrame([{"latent": n, "community": d["community"], "label": d.get("label")}
                              for n, d in found.items()])
        return _communities(None, table, nodes)
    if communities is None:
        return dict.fromkeys(nodes, "")
    check_columns(communities, ["latent", "community"])
    labels = communities["label"] if "label" in communities else [None] * len(communities)
    called = {}
    for latent, number, label in zip(communities["latent"], communities["community"], labels, strict=True):
        called[int(latent)] = f"{number} {_word(label)}" if _word(label) else f"group {number}"
    return {node: called.get(node, OTHER) for node in nodes}


def place_nodes(graph: nx.Graph, seed: int = 0) -> dict[int, tuple[float, float]]:
    """Coordinates for a drawing: every connected part by itself, the parts in rows, the largest first."""
    parts = sorted(nx.connected_components(graph), key=lambda part: (-len(part), min(part)))
    rooms = [_room(len(part)) for part in parts]
    across = max(rooms[0][0], 0.85 * math.sqrt(sum((wide + GAP) * (high + GAP) for wide, high in rooms)))
    places, x, y, tallest = {}, 0.0, 0.0, 0.0
    for part, (wide, high) in zip(parts, rooms, strict=True):
        if x > 0 and x + wide > across:
            x, y, tallest = 0.0, y - tallest - GAP, 0.0
        for node, (left, up) in _place_part(graph, sorted(part), seed).items():
            places[node] = (x + wide * left, y - high * (1 - up))
        x, tallest = x + wide + GAP, max(tallest, high)
    return places


def _room(n: int) -> tuple[float, float]:
    """Width and height of a part of n latents. Of pairs there are many, and they tell little."""
    return (0.8, 0.1) if n == 2 else (n ** 0.6, n ** 0.6)


def _place_part(graph: nx.Graph, nodes: list[int], seed: int) -> dict[int, tuple[float, float]]:
    """One connected part in the square from 0 to 1."""
    part = nx.Graph()
    part.add_nodes_from(nodes)  # sorted, so that the same pairs give the same drawing
    part.add_edges_from(sorted(graph.subgraph(nodes).edges()))
    if len(nodes) == 2:
        return {nodes[0]: (0.0, 0.5), nodes[1]: (1.0, 0.5)}
    if len(nodes) <= SMALL:
        found = nx.kamada_kawai_layout(part)
    else:
        found = nx.spring_layout(part, seed=seed, iterations=150)
    spots = np.array([found[node] for node in nodes])
    low, high = spots.min(0), spots.max(0)
    spots = (spots - low) / np.where(high - low > 1e-9, high - low, 1.0)
    spots[:, high - low <= 1e-9] = 0.5  # on a line
    return {node: (float(left), float(up)) for node, (left, up) in zip(nodes, spots, strict=True)}


def _add_edges(figure: go.Figure, graph: nx.Graph, places: dict, weight: str) -> None:
    """Lines in three strengths, and an invisible dot in the middle of each that says what it is."""
    edges = sorted(graph.edges(data="weight"), key=lambda edge: edge[2])
    thirds = [edges[i * len(edges) // 3:(i + 1) * len(edges) // 3] for i in range(3)]
    for part, width in zip(thirds, (0.8, 1.8, 3.2), strict=True):
        xs, ys = [], []
        for a, b, _ in part:
            xs += [places[a][0], places[b][0], None]
            ys += [places[a][1], places[b][1], None]
        if part:
            figure.add_trace(go.Scatter(x=plain(xs), y=plain(ys), mode="lines", hoverinfo="skip", showlegend=False,
                                        line={"width": width, "color": "rgba(128,134,143,0.5)"}))
    middle = [[(places[a][axis] + places[b][axis]) / 2 for a, b, _ in edges] for axis in (0, 1)]
    figure.add_trace(
        go.Scatter(
            x=plain(middle[0]), y=plain(middle[1]), mode="markers", marker={"size": 9, "opacity": 0},
            hovertext=[f"{a} and {b}: {escape(weight)} {w:.3g}" for a, b, w in edges], showlegend=False,
            hovertemplate="%{hovertext}<extra></extra>",
        )
    )


def _add_nodes(
    figure: go.Figure, graph: nx.Graph, places: dict, members: list[int], kind: str, i: int,
    names: Mapping[int, str], weight: str,
) -> None:
    """The dots of one community. The one with the most partners carries its number."""
    colour, symbol = _look(i, kind)
    degree = dict(graph.degree())
    hub = max(members, key=lambda node: (degree[node], -node))
    says = []
    for node in members:
        partners = sorted(graph[node].items(), key=lambda pair: -pair[1]["weight"])[:5]
        listed = ", ".join(f"{other} ({data['weight']:.3g})" for other, data in partners)
        says.append(f"latent {escape(_called(node, names))}<br>{escape(weight)} with {listed}")
    figure.add_trace(
        go.Scatter(
            x=plain([places[n][0] for n in members]), y=plain([places[n][1] for n in members]),
            mode="markers+text", name=escape(kind), customdata=members, hovertext=says,
            text=[str(n) if n == hub and len(members) > 2 else "" for n in members], textposition="top center",
            marker={"color": colour, "symbol": symbol, "line": {"width": 0},
                    "size": [round(min(8 + 2.5 * math.sqrt(degree[n]), 22), 1) for n in members]},
            hovertemplate="%{hovertext}<extra>" + escape(kind) + "</extra>",
        )
    )


# ---- a map


def _kinds(table: pd.DataFrame, colour: str | None, scale: pd.Series | None) -> tuple[pd.Series, list[str]]:
    """The kind of every latent, and all kinds in the order of the legend. On a scale, `OTHER` is what has no value."""
    if scale is not None:
        if not np.isfinite(scale).any():
            raise InputError(f"{colour}: expected at least one finite number to colour by, got none.")
        kind = pd.Series(np.where(np.isfinite(scale), "", OTHER), index=table.index, dtype=object)
        return kind, sorted(set(kind))
    called = ["" if colour is None else _word(value) or OTHER for value in table[colour or "latent"]]
    group = dict(zip(table.index, called, strict=True))
    kinds = _by_size(group)
    return pd.Series(group, dtype=object), kinds


def _add_dots(
    figure: go.Figure, part: pd.DataFrame, name: str, i: int, scale: pd.Series | None, hover: Sequence[str], n: int
) -> None:
    """The dots of one kind, or all of them on a scale of colours."""
    colour, symbol = _look(i, name)
    marker = {"size": 9 if n < 400 else 6, "opacity": 0.85 if n < 400 else 0.7, "symbol": symbol, "color": colour}
    if scale is not None:
        marker |= {"color": plain(scale.tolist()), "coloraxis": "coloraxis"}
    says = [
        "<br>".join([f"latent {int(row['latent'])}", *(f"{escape(c)}: {_value(row[c])}" for c in hover)])
        for row in part.to_dict("records")
    ]
    draw = go.Scattergl if n > GL else go.Scatter
    figure.add_trace(
        draw(
            x=plain(part["x"].astype(float).tolist()), y=plain(part["y"].astype(float).tolist()), mode="markers",
            name=escape(name or "none"), marker=marker, customdata=[int(j) for j in part["latent"]], hovertext=says,
            hovertemplate="%{hovertext}<extra>" + escape(name) + "</extra>",
        )
    )


def _add_highlight(figure: go.Figure, table: pd.DataFrame, highlight: Sequence[int]) -> None:
    """Rings around some latents, with their numbers."""
    rows = table.set_index("latent")
    missing = [int(j) for j in highlight if int(j) not in rows.index]
    if missing:
        raise InputError(f"highlight: {missing} is not among the latents of the table.")
    rows = rows.loc[[int(j) for j in highlight]]
    figure.add_trace(
        go.Scatter(
            x=plain(rows["x"].astype(float).tolist()), y=plain(rows["y"].astype(float).tolist()),
            mode="markers+text", text=[str(j) for j in rows.index], textposition="top center", hoverinfo="skip",
            marker={"symbol": "circle-open", "size": 16, "color": ORANGE, "line": {"width": 2.5}},
            textfont={"size": 13}, showlegend=False,
        )
    )


# ---- what both share


def _look(i: int, name: str) -> tuple[str, str]:
    """Colour and shape of kind number i: four colours times two shapes, and grey for what is left over."""
    if name == OTHER:
        return GREY, "circle"
    return (BLUE, ORANGE, GREEN, PURPLE)[i % 4], ("circle", "diamond")[i // 4 % 2]


def _by_size(group: dict) -> list[str]:
    """The kinds, the largest first; what exceeds eight goes to `OTHER`, which stands last."""
    sizes = pd.Series(list(group.values()), dtype=object).value_counts(sort=False)
    ranked = sorted((kind for kind in sizes.index if kind != OTHER), key=lambda kind: (-sizes[kind], kind))
    rest = [node for node, kind in group.items() if kind not in ranked[:KINDS]]
    for node in rest:
        group[node] = OTHER
    return ranked[:KINDS] + ([OTHER] if rest else [])


def _legend(figure: go.Figure, shown: bool, title: str | None, n: int) -> go.Figure:
    """A legend under the figure: on a phone it takes several lines, and may not push the figure together."""
    figure.update_layout(showlegend=shown, margin_t=44 if title else 14)
    if shown:
        extra = 24 * math.ceil(n / 2)
        figure.update_layout(
            legend={"y": 0, "yref": "container", "yanchor": "bottom", "x": 0, "itemsizing": "constant"},
            height=figure.layout.height + extra, margin_b=30 + extra,
        )
    return figure


def _called(latent: int, names: Mapping[int, str] | None) -> str:
    name = (names or {}).get(latent)
    return f"{latent} ({visible(str(name))})" if name else str(latent)


def _word(value: object) -> str:
    """A cell as a word; nothing for what is missing."""
    return "" if value is None or value != value else str(value)


def _value(value: object) -> str:
    """A cell as it is shown on hovering."""
    if isinstance(value, (float, np.floating)):
        return f"{value:.3g}" if math.isfinite(value) else "–"
    return escape(visible(_word(value))) if _word(value) else "–"


def _is_number(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
