"""Which latent comes from which: how latents split as the SAE grows wider, and which implies which."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from solutions.errors import InputError, check_count
from solutions.visualization.style import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    check_columns,
    escape,
    faint,
    finish,
    plain,
    visible,
)

FAMILIES = (BLUE, ORANGE, GREEN, PURPLE)
ROW = 26  # pixels, of a line of the tree
LABEL = 30  # characters of a name
LEAST_WIDTH = 170  # pixels of a column of the flow; a narrower page scrolls


def splitting(
    stages: Any, widths: Sequence[str] = ("narrow", "wide"), latents: Sequence[int] | None = None,
    names: Sequence[Mapping[int, str]] | None = None, least: float = 0.1, most: int = 8,
    share: str = "share_of_narrow", title: str | None = None,
) -> go.Figure:
    """How latents of a narrow SAE split in a wider one, as a flow from left to right.

    Args:
        stages: a table with columns narrow, wide and `share` (or what has one as `.table`, as `analysis.splits` gives),
            or several, one for each step from a width to the next. Rows without a partner (-1) are left
            out. cosine and kind are shown on hovering, where a table has them.
        widths: what the SAEs are called, one more than there are tables.
        latents: the narrow latents to follow; by default the `most` with the most children.
        names: for each width, latent to a name for it.
        least: links with a smaller share are left out.
        most: how many narrow latents.
        share: how thick a link is. Two children may fire on the same tokens, so the shares of one parent need not
            add up to one.
        title: what stands above the figure; nothing by default.

    Returns:
        The figure.

    Raises:
        InputError: a column or a name is missing, or no link is thick enough.
    """
    tables = [stages] if isinstance(stages, pd.DataFrame) or hasattr(stages, "table") else list(stages)
    tables = [getattr(table, "table", table) for table in tables]
    if not tables or len(widths) != len(tables) + 1:
        raise InputError(f"widths: expected {len(tables) + 1} names, one more than tables, got {len(widths)}.")
    for table in tables:
        check_columns(table, ["narrow", "wide", share])
    return flow_figure(tables, widths, latents, names, least, most, share, title,
                       f"How latents split from {widths[0]} to {widths[-1]}.",
                       lambda latent, parts: f"latent {latent} into {parts}")


def flow_figure(
    tables: Sequence[pd.DataFrame], widths: Sequence[str], latents: Sequence[int] | None,
    names: Sequence[Mapping[int, str]] | None, least: float, most: int, share: str, title: str | None,
    opening: str, tell: Callable[[int, str], str],
) -> go.Figure:
    """The flow of `splitting`, for tables that were checked.

    Its description begins with `opening`, and goes on with what `tell` says of each latent and of what it becomes.
    """
    kept = [t[(t[share] >= least) & (t["narrow"] >= 0) & (t["wide"] >= 0)] for t in tables]
    follow = _most_children(kept[0], check_count(most, "most")) if latents is None else [int(j) for j in latents]
    nodes, links, said = _flow(kept, follow, widths, share)
    if not links:
        raise InputError(f"stages: no link of the latents {follow} has a {share} of at least {least:g}.")
    figure = go.Figure(_sankey(nodes, links, names or [{}] * len(widths), len(widths)))
    alt = f"{opening} {'; '.join(tell(*parts) for parts in said)}."
    rows = max(sum(stage == s for stage, _ in nodes) for s in range(len(widths)))
    finish(figure, alt, 90 + 30 * max(rows, 3) + (30 if title else 0), title)
    for s, width in enumerate(widths):
        at = s / (len(widths) - 1)
        figure.add_annotation(
            text=f"<b>{escape(width)}</b>", x=at, y=1, xref="paper", yref="paper", yanchor="bottom", showarrow=False,
            xanchor="left" if s == 0 else "right" if s == len(widths) - 1 else "center",
        )
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    figure.layout.meta = {**figure.layout.meta, "least_width": LEAST_WIDTH * len(widths)}
    return figure.update_layout(margin_t=70 if title else 36)


def family_tree(
    table: pd.DataFrame, names: Mapping[int, str] | None = None, most: int = 40, title: str | None = None
) -> go.Figure:
    """Latents that imply others, as a tree: below each latent those that hardly ever fire without it.

    A child with several parents stands under the tightest, of whose tokens it has the largest share; hovering names
    the others.

    Args:
        table: a row for each implication, with columns parent, child, p_parent_given_child (the share of the
            child's tokens on which the parent fires) and p_child_given_parent; n, the tokens behind it, is shown on
            hovering.
        names: latent to a name for it.
        most: the number of lines drawn; families come the largest first.
        title: what stands above the figure; nothing by default.

    Returns:
        The figure.

    Raises:
        InputError: a column is missing, or there is nothing to draw.
    """
    check_columns(table, ["parent", "child", "p_parent_given_child", "p_child_given_parent"])
    if not len(table):
        raise InputError("table: expected at least one implication, got none. Lower the threshold.")
    home = _tightest(table)
    rows = _in_lines(home)[: check_count(most, "most")]
    facts = {(int(r["parent"]), int(r["child"])): r for r in table.to_dict("records")}
    others = table.groupby("child")["parent"].agg(list).to_dict()
    figure = go.Figure()
    _branches(figure, rows, home)
    texts, hover = [], []
    for latent, _ in rows:
        texts.append(_line_of_tree(latent, facts.get((home.get(latent), latent)), names))
        hover.append(_says(latent, home, facts, others.get(latent, [])))
    depths, down = [depth for _, depth in rows], list(range(len(rows)))
    figure.add_trace(
        go.Scatter(
            x=depths, y=down, mode="markers+text", text=texts, textposition="middle right",
            marker={"size": 9, "color": [ORANGE if latent not in home else BLUE for latent, _ in rows],
                    "symbol": ["diamond" if latent not in home else "circle" for latent, _ in rows]},
            customdata=[latent for latent, _ in rows], hovertext=hover, hovertemplate="%{hovertext}<extra></extra>",
        )
    )
    families = [latent for latent, depth in rows if depth == 0]
    alt = (
        f"Tree of {len(rows)} latents in {len(families)} families. "
        + "; ".join(_family_words(texts, rows, latent) for latent in families[:8]) + "."
    )
    finish(figure, alt, 60 + ROW * len(rows) + (30 if title else 0), title)
    figure.update_layout(meta={"alt": alt, "click": "latent"}, showlegend=False)
    figure.update_yaxes(visible=False, range=[len(rows) - 0.4, -0.6])
    figure.update_xaxes(
        showgrid=False, zeroline=False, showticklabels=False, range=[-0.3, max(depths) + 8],
        title_text="after a child: share of its tokens on which the parent fires<br>"
        "/ share of the parent's tokens on which it fires", title_font_size=12,
    )
    return figure


# ---- the flow


def _most_children(table: pd.DataFrame, most: int) -> list[int]:
    """The latents that split the most, those with a small number first among equals."""
    counts = table.groupby("narrow")["wide"].nunique()
    return [int(j) for j in sorted(counts.index, key=lambda j: (-counts[j], j))[:most]]


def _flow(
    tables: list[pd.DataFrame], follow: list[int], widths: Sequence[str], share: str
) -> tuple[dict[tuple[int, int], int], list[dict], list[tuple[int, str]]]:
    """Nodes (stage, latent) with their family's number, links between them, and what each latent becomes, listed."""
    nodes = {(0, latent): i for i, latent in enumerate(follow)}
    links, said = [], []
    for stage, table in enumerate(tables):
        here = [latent for s, latent in nodes if s == stage]
        for latent in here:
            children = table[table["narrow"] == latent].sort_values(share, ascending=False, kind="stable")
            for row in children.to_dict("records"):
                nodes.setdefault((stage + 1, int(row["wide"])), nodes[stage, latent])
                links.append({"from": (stage, latent), "to": (stage + 1, int(row["wide"])), "value": row[share],
                              "says": _link_words(row, widths[stage], widths[stage + 1], share)})
            if stage == 0 and len(children):
                listed = ", ".join(f"{int(r['wide'])} ({r[share]:.0%})" for r in children.to_dict("records"))
                said.append((latent, listed))
    used = {end for link in links for end in (link["from"], link["to"])}
    return {node: family for node, family in nodes.items() if node in used}, links, said


def _link_words(row: dict, left: str, right: str, share: str) -> str:
    words = (f"{escape(left)} {int(row['narrow'])} → {escape(right)} {int(row['wide'])}<br>"
             f"{escape(share.replace('_', ' '))}: {row[share]:.0%}")
    if row.get("cosine", math.nan) == row.get("cosine", math.nan):  # neither absent nor NaN
        words += f"<br>cosine: {row['cosine']:.2f}"
    return words + (f"<br>{escape(str(row['kind']))}" if row.get("kind") else "")


def _sankey(nodes: dict, links: list[dict], names: Sequence[Mapping[int, str]], n_stages: int) -> go.Sankey:
    number = {node: i for i, node in enumerate(nodes)}
    labels = [escape(_called(latent, names[stage])) for stage, latent in nodes]
    return go.Sankey(
        arrangement="fixed",
        node={"label": labels, "pad": 12, "thickness": 12, "line": {"width": 0},
              "color": [FAMILIES[family % len(FAMILIES)] for family in nodes.values()],
              "hovertemplate": "%{label}<extra></extra>"},
        link={"source": [number[link["from"]] for link in links], "target": [number[link["to"]] for link in links],
              "value": plain([float(link["value"]) for link in links]),
              "color": [faint(FAMILIES[nodes[link["from"]] % len(FAMILIES)], 0.35) for link in links],
              "customdata": [link["says"] for link in links], "hovertemplate": "%{customdata}<extra></extra>"},
    )


def _called(latent: int, names: Mapping[int, str] | None) -> str:
    name = (names or {}).get(latent)
    text = f"{latent} {visible(str(name))}" if name else str(latent)
    return text if len(text) <= LABEL else text[: LABEL - 1] + "…"


# ---- the tree


def _tightest(table: pd.DataFrame) -> dict[int, int]:
    """For each child its tightest parent. Two that imply each other would make a circle: the first one found wins."""
    home: dict[int, int] = {}
    rows = table.sort_values(["p_child_given_parent", "p_parent_given_child", "parent", "child"],
                             ascending=[False, False, True, True], kind="stable")
    for parent, child in zip(rows["parent"].astype(int), rows["child"].astype(int), strict=True):
        above = parent
        while above in home:
            above = home[above]
        if child not in home and above != child:
            home[child] = parent
    return home


def _in_lines(home: dict[int, int]) -> list[tuple[int, int]]:
    """(latent, depth) line by line, as a tree is printed; the largest families first."""
    children: dict[int, list[int]] = {}
    for child, parent in home.items():
        children.setdefault(parent, []).append(child)

    def family(latent: int, depth: int) -> list[tuple[int, int]]:
        parts = [family(child, depth + 1) for child in children.get(latent, [])]
        return [(latent, depth)] + [line for part in sorted(parts, key=lambda p: (-len(p), p)) for line in part]

    trees = [family(latent, 0) for latent in children if latent not in home]
    return [line for tree in sorted(trees, key=lambda t: (-len(t), t)) for line in tree]


def _branches(figure: go.Figure, rows: list[tuple[int, int]], home: dict[int, int]) -> None:
    """Down from the parent, across to the child."""
    at = {latent: i for i, (latent, _) in enumerate(rows)}
    xs, ys = [], []
    for i, (latent, depth) in enumerate(rows):
        if depth:
            xs += [depth - 1, depth - 1, depth, None]
            ys += [at[home[latent]], i, i, None]
    if xs:
        figure.add_trace(go.Scatter(x=xs, y=ys, mode="lines", hoverinfo="skip", showlegend=False,
                                    line={"color": "rgba(128,134,143,0.7)", "width": 1.2}))


def _line_of_tree(latent: int, fact: dict | None, names: Mapping[int, str] | None) -> str:
    """A latent as it stands in the tree, and how firmly it implies the one above."""
    words = escape(_called(latent, names))
    if fact is None:
        return f" <b>{words}</b>"
    return f" {words} · {_percent(fact['p_parent_given_child'])} / {_percent(fact['p_child_given_parent'])}"


def _percent(share: float) -> str:
    return "&lt;1%" if 0 < share < 0.005 else f"{share:.0%}"


def _says(latent: int, home: dict[int, int], facts: dict, parents: list[int]) -> str:
    """What hovering tells."""
    if latent not in home:
        return f"latent {latent}"
    parent = home[latent]
    fact = facts[parent, latent]
    words = f"latent {latent}, under {parent}"
    if "n" in fact:
        words += f"<br>both fire on {int(fact['n'])} tokens"
    rest = sorted(int(p) for p in parents if int(p) != parent)
    return words + (f"<br>also implies {', '.join(map(str, rest[:8]))}" if rest else "")


def _family_words(texts: list[str], rows: list[tuple[int, int]], latent: int) -> str:
    """One family in words, for the description: the latent at its head and those directly below."""
    head = next(i for i, (other, _) in enumerate(rows) if other == latent)
    below = []
    for text, (_, depth) in zip(texts[head + 1:], rows[head + 1:], strict=True):
        if depth == 0:
            break
        if depth == 1:
            below.append(text.strip())
    return f"{texts[head].strip().removeprefix('<b>').removesuffix('</b>')}: {', '.join(below)}"
