"""Many latents over one passage, and what changes in them from one passage to another.

A row is a latent and a column a token, so that latents can carry names. A long passage is cut into lines, as
print is, one panel below the other: a token can be read on a phone, too. Latents that fire on the same tokens stand
together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots
from scipy.cluster.hierarchy import fcluster, leaves_list, linkage
from scipy.spatial.distance import pdist
from torch import Tensor

from solutions.errors import InputError, check_count, unknown_name
from solutions.visualization.style import check_matrix, escape, finish, visible

LINE = 24   # tokens side by side: on a phone, about eleven pixels for each
CELL = 17   # pixels, height of a row
WORD = 14   # characters of a token that are shown, and
NAME = 18   # of a latent's name; all of it shows on hovering
APART = 0.7  # cosine distance (average linkage) above which two latents are not of one group
# From hardly there to full colour. Nothing at all is an empty cell, so the weakest value must still show.
PRESENT = [[0.0, "rgba(60,140,200,0.2)"], [0.5, "rgba(40,125,190,0.65)"], [1.0, "rgba(0,114,178,1)"]]
CHANGED = [
    [0.0, "rgba(0,114,178,1)"], [0.5, "rgba(0,114,178,0.15)"], [0.5, "rgba(230,130,0,0.15)"],
    [1.0, "rgba(230,130,0,1)"],
]
Passage = tuple[Sequence[str], Tensor]


class _Cells(NamedTuple):
    """What is to be drawn: a matrix [columns, rows], the names of both, and the row's group."""

    values: Tensor
    columns: list[str]
    rows: list[str]
    groups: list[int]
    hover: list[list[str]]  # [columns][rows]; read only where the value is not zero


def passage_heatmap(
    features: Tensor, tokens: Sequence[str], latents: Sequence[int] | None = None, n: int = 24,
    order: str = "clusters", maxima: Tensor | None = None, names: Mapping[int, str] | None = None,
    line: int = LINE, title: str | None = None,
) -> go.Figure:
    """Which latents fire where in a passage: a row per latent, a column per token.

    In each line only the latents that fire in it have a row. An empty cell is a zero.

    Args:
        features: [tokens, latents], zero where a latent is silent.
        tokens: the passage's tokens.
        latents: which ones to draw; by default the `n` that are strongest somewhere in the passage.
        n: how many latents.
        order: "clusters" puts latents together that fire on the same tokens (average linkage of cosine distances,
            a line between groups that are more than 0.7 apart), "peaks" orders them by where they are strongest, and
            "given" leaves them as they are.
        maxima: [latents], each latent's largest activation in a corpus. With it, colour and choice go by the
            share of that maximum: a latent that is loud everywhere no longer hides the others.
        names: latent to a name for it, for instance its concept.
        line: tokens to a line.
        title: what stands above the figure; nothing by default.

    Returns:
        The figure.

    Raises:
        InputError: features of other tokens, an unknown order, or no latent is active.

    Example:
        >>> passage_heatmap(features, words, n=5).layout.meta["alt"]
        'Heatmap of 5 latents over a passage of 7 tokens: “Paris is the capital of France.”. ...'
    """
    check_matrix("features", features, rows=tokens)
    known = {"clusters": _clustered, "peaks": _by_peak, "given": _as_given}
    if order not in known:
        raise unknown_name("order", order, known)
    features = features.detach().cpu().float()
    scaled = _of_maxima(features, maxima)
    latents = _strongest(scaled, n) if latents is None else _checked(latents, features.shape[1])
    if not latents:
        raise InputError("features: no latent is active in this passage, so there is nothing to draw.")
    places, groups = known[order](scaled[:, latents])
    latents = [latents[place] for place in places]
    words, rows = [visible(t) for t in tokens], [_called(j, names) for j in latents]
    shown, raw = scaled[:, latents], features[:, latents]
    hover = [[f"“{escape(w)}”, latent {escape(r)}: {v:.3g} SAE units" for r, v in zip(rows, values, strict=True)]
             for w, values in zip(words, raw.tolist(), strict=True)]
    unit = "activation (SAE units)" if maxima is None else "activation (share of its maximum)"
    top = float(f"{shown.max():.3g}") if maxima is None else 1.0
    said = [f"Heatmap of {len(latents)} latents over a passage of {len(tokens)} tokens: {_quoted(words)}."]
    if order == "clusters":
        said.append(f"Latents that fire on the same tokens stand together, in {len(set(groups))} groups.")
    said.append("The strongest: " + _strongest_words(raw, shown, words, rows) + ".")
    colours = {"colorscale": PRESENT, "cmin": 0, "cmax": top or 1.0}
    return _draw(_Cells(shown, words, rows, groups, hover), colours, unit, " ".join(said), line, title)


def passage_difference(
    first: Passage, second: Passage, latents: Sequence[int] | None = None, n: int = 24,
    maxima: Tensor | None = None, names: Mapping[int, str] | None = None,
    called: tuple[str, str] = ("first", "second"), line: int = LINE, title: str | None = None,
) -> go.Figure:
    """What changes in the latents from one passage to another: orange where the second is stronger, blue the first.

    The passages are aligned token by token (longest matching blocks, `difflib`). A column where they differ is
    named after both tokens; a token without a counterpart is compared with silence.

    Args:
        first, second: (tokens, features), features being [tokens, latents].
        latents: which ones to draw; by default the `n` that differ most somewhere.
        n: how many latents.
        maxima, names, line: as for `passage_heatmap`.
        called: what to call the two passages in the description.
        title: what stands above the figure; nothing by default.

    Returns:
        The figure.

    Raises:
        InputError: features of other tokens or another SAE, or passages that do not differ.
    """
    (one, left), (two, right) = first, second
    check_matrix("first", left, rows=one)
    check_matrix("second", right, rows=two)
    if left.shape[1] != right.shape[1]:
        raise InputError(f"second: expected features of {left.shape[1]} latents, as in the first passage, got "
                         f"{right.shape[1]}. Encode both with the same SAE.")
    pairs = align(one, two)
    raw = _taken(right, [j for _, j in pairs]) - _taken(left, [i for i, _ in pairs])
    scaled = _of_maxima(raw, maxima)
    latents = _strongest(scaled.abs(), n) if latents is None else _checked(latents, left.shape[1])
    if not latents or not bool(scaled[:, latents].any()):
        raise InputError("The two passages do not differ in any latent, so there is nothing to draw.")
    places, groups = _clustered(scaled[:, latents])
    latents = [latents[place] for place in places]
    shown, raw, rows = scaled[:, latents], raw[:, latents], [_called(j, names) for j in latents]
    words = [_both(one, two, i, j) for i, j in pairs]
    hover = [[f"“{escape(w)}”, latent {escape(r)}: {v:+.3g} SAE units" for r, v in zip(rows, values, strict=True)]
             for w, values in zip(words, raw.tolist(), strict=True)]
    unit = f"{called[1]} minus {called[0]} " + ("(SAE units)" if maxima is None else "(share of the maximum)")
    changed = sum(i is None or j is None or one[i] != two[j] for i, j in pairs)
    said = (
        f"Difference of two passages in {len(latents)} latents, {called[1]} minus {called[0]}. {len(pairs)} aligned "
        f"tokens, {changed} of them not the same: {_quoted(words, ' | ')}. The largest differences: "
        + _strongest_words(raw, shown, words, rows, signed=True) + "."
    )
    top = float(f"{shown.abs().max():.3g}")
    colours = {"colorscale": CHANGED, "cmin": -top, "cmax": top}
    return _draw(_Cells(shown, words, rows, groups, hover), colours, unit, said, line, title)


def align(first: Sequence[str], second: Sequence[str]) -> list[tuple[int | None, int | None]]:
    """Which place of one token list belongs to which of the other; None where there is no counterpart."""
    pairs = []
    for _, i, i_end, j, j_end in SequenceMatcher(None, list(first), list(second), autojunk=False).get_opcodes():
        for step in range(max(i_end - i, j_end - j)):
            pairs.append((i + step if i + step < i_end else None, j + step if j + step < j_end else None))
    return pairs


# ---- which latents, in which order


def _of_maxima(features: Tensor, maxima: Tensor | None) -> Tensor:
    """Activations as shares of each latent's maximum, when there is one to compare with."""
    if maxima is None:
        return features
    maxima = torch.as_tensor(maxima).detach().cpu().float()
    if tuple(maxima.shape) != (features.shape[1],):
        raise InputError(f"maxima: expected [{features.shape[1]}], one for each latent, got {list(maxima.shape)}.")
    # A latent that never fired in the corpus, but does here, is at its maximum.
    return features / torch.where(maxima > 0, maxima, features.abs().amax(0).clamp(min=1e-12))


def _strongest(values: Tensor, n: int) -> list[int]:
    """The n columns that are largest in some row, as they come; none that is zero throughout."""
    peak = values.amax(0)
    best = peak.topk(min(check_count(n, "n"), len(peak))).indices
    return sorted(best[peak[best] > 0].tolist())


def _checked(latents: Sequence[int], n: int) -> list[int]:
    for j in latents:
        if not 0 <= int(j) < n:
            raise InputError(f"latents: expected numbers from 0 to {n - 1}, got {j!r}.")
    return [int(j) for j in latents]


def _clustered(values: Tensor) -> tuple[list[int], list[int]]:
    """Order of the columns so that similar ones stand together, and each one's group; silent ones at the end."""
    profiles = values.T.double().numpy()
    loud = np.flatnonzero(np.abs(profiles).sum(1) > 0)
    silent = [i for i in range(len(profiles)) if i not in set(loud.tolist())]
    if len(loud) < 2:  # nothing to put in order
        order, groups = loud.tolist(), [0] * len(loud)
    else:
        distances = np.clip(pdist(profiles[loud], "cosine"), 0.0, 2.0)  # rounding may leave −1e-16
        tree = linkage(distances, method="average", optimal_ordering=True)
        leaves, cut = leaves_list(tree), fcluster(tree, APART, criterion="distance")
        peaks = np.abs(profiles[loud]).argmax(1)
        begins = {group: peaks[cut == group].mean() for group in cut}  # groups in the order of reading
        leaves = sorted(leaves.tolist(), key=lambda leaf: (begins[cut[leaf]], cut[leaf]))
        order, groups = loud[leaves].tolist(), cut[leaves].tolist()
    return order + silent, groups + [-1] * len(silent)


def _by_peak(values: Tensor) -> tuple[list[int], list[int]]:
    return values.abs().argmax(0).argsort(stable=True).tolist(), [0] * values.shape[1]


def _as_given(values: Tensor) -> tuple[list[int], list[int]]:
    return list(range(values.shape[1])), [0] * values.shape[1]


# ---- words


def _called(latent: int, names: Mapping[int, str] | None) -> str:
    name = (names or {}).get(latent)
    return f"{latent} {visible(str(name))}" if name else str(latent)


def _short(text: str, n: int) -> str:
    return text if len(text) <= n else text[: n - 1] + "…"


def _both(one: Sequence[str], two: Sequence[str], i: int | None, j: int | None) -> str:
    """The name of a column of two aligned passages."""
    before, after = "–" if i is None else visible(one[i]), "–" if j is None else visible(two[j])
    return before if i is not None and j is not None and one[i] == two[j] else f"{before} ▸ {after}"


def _taken(features: Tensor, places: list[int | None]) -> Tensor:
    """Rows of `features` at some places, zeros where there is none."""
    features = features.detach().cpu().float()
    padded = torch.cat([features, torch.zeros(1, features.shape[1])])
    return padded[[len(features) if place is None else place for place in places]]


def _quoted(words: Sequence[str], between: str = "", most: int = 60) -> str:
    text = between.join(words[:most]).replace("␣", " ").strip()
    return f"“{text}{' …' if len(words) > most else ''}”"


def _strongest_words(
    raw: Tensor, shown: Tensor, words: Sequence[str], rows: Sequence[str], signed: bool = False, k: int = 8
) -> str:
    """The rows with the largest values, each with the column it is largest in."""
    size = shown.abs()
    best = size.amax(0).argsort(descending=True, stable=True)[:k].tolist()
    peaks = [(j, int(size[:, j].argmax())) for j in best if size[:, j].any()]
    sign = "+" if signed else ""
    return "; ".join(f"latent {rows[j]}, {raw[at, j]:{sign}.3g} on “{words[at]}”" for j, at in peaks)


# ---- the picture


def _draw(cells: _Cells, colours: dict, unit: str, alt: str, line: int, title: str | None) -> go.Figure:
    """One panel for each line of the passage; all share the colours."""
    n, line = len(cells.columns), check_count(line, "line", 4)
    n_lines = math.ceil(n / line)
    width = math.ceil(n / n_lines)  # lines of the same length, rather than a full one and a rest
    starts = range(0, n, width)
    rows = [[j for j in range(len(cells.rows)) if bool(cells.values[s:s + width, j].any())] for s in starts]
    heights = [CELL * max(len(r), 1) for r in rows]
    word = 7 * max(len(_short(w, WORD)) for w in cells.columns) + 14  # pixels, written upwards
    total = sum(heights) + word * (n_lines - 1)
    gap = word / total if n_lines > 1 else 0.0
    figure = make_subplots(rows=n_lines, cols=1, row_heights=heights, vertical_spacing=gap)
    for panel, (start, kept) in enumerate(zip(starts, rows, strict=True), start=1):
        _panel(figure, cells, start, min(start + width, n), kept, panel)
    finish(figure, alt, total + word + 70 + (30 if title else 0), title)
    none = {"showgrid": False, "zeroline": False}
    figure.update_xaxes(range=[-0.5, width - 0.5], side="top", tickangle=-90, ticks="", tickfont={"size": 10}, **none)
    figure.update_yaxes(autorange="reversed", ticks="", tickfont={"size": 11}, **none)
    figure.update_xaxes(title_text="token", row=1, col=1)
    figure.update_yaxes(title_text="latent", row=1, col=1)
    bar = {"orientation": "h", "title": {"text": escape(unit), "side": "top"}, "thickness": 10, "outlinewidth": 0,
           "y": 0.0, "yanchor": "top", "x": 0.5, "len": 0.9, "nticks": 6}
    return figure.update_layout(coloraxis={**colours, "colorbar": bar}, margin_b=70)


def _panel(figure: go.Figure, cells: _Cells, start: int, stop: int, kept: list[int], panel: int) -> None:
    """One line of the passage: the cells, the names on both sides, and lines between groups."""
    values = cells.values[start:stop]
    columns, rows = range(stop - start), range(len(kept))
    z = [[float(f"{v:.3g}") if (v := values[c, kept[r]].item()) else None for c in columns] for r in rows]
    text = [[cells.hover[start + c][kept[r]] if z[r][c] is not None else "" for c in columns] for r in rows]
    figure.add_trace(
        go.Heatmap(
            z=z or [[None] * (stop - start)], x=list(columns), y=list(rows) or [0], text=text or None,
            coloraxis="coloraxis", xgap=1, ygap=1, hoverongaps=False, hovertemplate="%{text}<extra></extra>",
        ),
        row=panel, col=1,
    )
    figure.update_xaxes(
        tickvals=list(columns), ticktext=[escape(_short(w, WORD)) for w in cells.columns[start:stop]],
        row=panel, col=1,
    )
    called = [escape(_short(cells.rows[j], NAME)) for j in kept] or ["none fires"]
    figure.update_yaxes(tickvals=list(rows) or [0], ticktext=called, row=panel, col=1)
    axis = "" if panel == 1 else str(panel)
    for r in rows[1:]:
        if cells.groups[kept[r]] != cells.groups[kept[r - 1]]:
            figure.add_shape(type="line", xref=f"x{axis} domain", yref=f"y{axis}", x0=0, x1=1, y0=r - 0.5, y1=r - 0.5,
                             line={"color": "rgba(128,128,128,0.5)", "width": 1})
