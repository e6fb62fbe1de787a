"""The figures of chapter 5: what they show, that they say it in words, and that odd input is named."""

import json
import math

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
from figure_rules import describes_itself, takes_no_name_for_html, travels_light

from solutions import visualization
from solutions.errors import InputError
from solutions.visualization.lineage import _in_lines, _tightest
from solutions.visualization.networks import KINDS, OTHER, place_nodes
from solutions.visualization.passages import align
from solutions.visualization.style import BLUE, GREY, ORANGE

TOKENS = [" The", " cat", " sat", "<i>", "\n", " on", " the", " mat"]
NAMES = {0: "<i>old", 5: "animal"}


def passage():
    """Latents 0 and 3 fire on the same tokens, 5 and 1 on the same others, 2 alone, 4 never."""
    acts = torch.zeros(8, 6)
    acts[[1, 2], 0], acts[[1, 2], 3] = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 4.5])
    acts[[5, 6], 5], acts[[5, 6], 1] = 3.0, 0.5
    acts[7, 2] = 1.0
    return acts


def pairs():
    return pd.DataFrame({"a": [1, 2, 3, 7, 9], "b": [2, 3, 1, 8, 9], "lift": [3.0, 9.0, 2.0, 5.0, 99.0]})


def communities():
    return pd.DataFrame({"latent": [1, 2, 3, 7], "community": [0, 0, 0, 1], "label": ["city", "city", "city", None]})


def dots(n=30):
    rng = np.random.default_rng(0)
    return pd.DataFrame({"latent": range(n), "x": rng.normal(size=n), "y": rng.normal(size=n),
                         "concept": [f"<i>{i % 12:x}" if i % 3 else "city" for i in range(n)],
                         "f1": rng.uniform(size=n)})


def splits():
    return pd.DataFrame({"narrow": [3, 3, 3, 5, 8], "wide": [10, 11, 12, 12, 14],
                         "share_of_narrow": [0.6, 0.3, 0.05, 0.9, 0.02], "cosine": [0.9, 0.8, 0.1, math.nan, 0.3],
                         "kind": ["split", "split", "split", "one", "<i>new"]})


def implications():
    """1 above 2 above 3; 3 implies 1 as well; 7 above 8."""
    return pd.DataFrame({"parent": [1, 2, 1, 7], "child": [2, 3, 3, 8], "p_parent_given_child": [0.99, 0.98, 0.97, 1.0],
                         "p_child_given_parent": [0.5, 0.4, 0.2, 0.3], "n": [50, 20, 20, 9]})


def bases():
    rows = [("SAE", 0.9, "a"), ("SAE", 0.5, "a"), ("SAE", 0.1, "b"), ("PCA", 0.2, "a"), ("<i>random", 0.3, "b")]
    return pd.DataFrame(rows, columns=["basis", "f1", "group"]).assign(entropy=[1.0, 2, 3, 4, 5])


FIGURES = {
    "passage_heatmap": lambda: visualization.passage_heatmap(passage(), TOKENS, names=NAMES, line=4),
    "passage_heatmap of maxima": lambda: visualization.passage_heatmap(
        passage(), TOKENS, maxima=torch.tensor([10.0, 1, 1, 10, 0, 3]), order="peaks"),
    "passage_difference": lambda: visualization.passage_difference(
        (TOKENS, passage()), (TOKENS[:4], passage()[[1, 1, 2, 7]]), names=NAMES),
    "coactivation_graph": lambda: visualization.coactivation_graph(pairs(), communities=communities(), names=NAMES),
    "latent_map": lambda: visualization.latent_map(dots(), "concept", hover=["f1", "concept"], highlight=[2, 5]),
    "latent_map on a scale": lambda: visualization.latent_map(dots(), "f1", x_title="first component (no unit)"),
    "splitting": lambda: visualization.splitting(splits(), ["<i>4×", "8×"], names=[NAMES, {10: "<i>"}]),
    "family_tree": lambda: visualization.family_tree(implications(), {1: "<i>city"}),
    "dot_panels": lambda: visualization.dot_panels(
        bases(), measures={"f1": "F1", "entropy": "entropy (bits)"}, highlight=["SAE"], controls=["<i>random"]),
    "dot_panels by group": lambda: visualization.dot_panels(bases(), panels="group", x_range=(0, 1)),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_keeps_the_rules(name):
    figure = FIGURES[name]()
    describes_itself(figure)
    travels_light(figure)
    takes_no_name_for_html(figure, "i")


@pytest.mark.parametrize("name", FIGURES)
def test_every_drawn_axis_is_named(name):
    figure = FIGURES[name]()
    axes = [a for a in (*figure.select_xaxes(), *figure.select_yaxes()) if a.visible is not False]
    if name.startswith(("passage", "dot_panels")):  # panels below one another: each kind of axis is named once at least
        assert any(a.title.text for a in figure.select_xaxes())
        assert name.startswith("dot_panels") or any(a.title.text for a in figure.select_yaxes())
    else:
        assert all(a.title.text for a in axes)


# ---- passages


def drawn_rows(figure):
    return [list(axis.ticktext) for axis in figure.select_yaxes()]


def test_a_passage_is_cut_into_lines_in_which_only_what_fires_has_a_row():
    figure = FIGURES["passage_heatmap"]()
    first, second = figure.data
    assert [sorted(rows) for rows in drawn_rows(figure)] == [["0 &lt;i&gt;old", "3"], ["1", "2", "5 animal"]]
    assert drawn_rows(figure)[1][2] == "2"
    assert list(figure.layout.xaxis2.ticktext) == ["↵", "␣on", "␣the", "␣mat"]
    row = drawn_rows(figure)[0].index("3")
    assert list(first.z[row]) == [None, 2.0, 4.5, None]
    assert "latent 3: 4.5 SAE units" in first.text[row][2] and first.text[row][0] == ""


def test_latents_that_fire_together_stand_together_with_a_line_between_the_groups():
    figure = visualization.passage_heatmap(passage(), TOKENS)
    rows = drawn_rows(figure)[0]
    assert [set(rows[:2]), set(rows[2:4]), set(rows[4:])] == [{"0", "3"}, {"1", "5"}, {"2"}]  # in reading order
    assert sorted(shape.y0 for shape in figure.layout.shapes) == [1.5, 3.5]
    assert "in 3 groups" in figure.layout.meta["alt"] and "latent 3, 4.5 on “␣sat”" in figure.layout.meta["alt"]


def test_the_order_is_that_of_the_peaks_or_as_it_was_given():
    by_peak = visualization.passage_heatmap(passage(), TOKENS, order="peaks", latents=[2, 5, 3])
    given = visualization.passage_heatmap(passage(), TOKENS, order="given", latents=[2, 5, 4, 3])
    assert drawn_rows(by_peak) == [["3", "5", "2"]]
    assert drawn_rows(given) == [["2", "5", "3"]]  # 4 is silent, so it has no row
    assert not by_peak.layout.shapes


def test_with_maxima_a_weak_latent_at_its_maximum_comes_before_a_loud_one():
    maxima = torch.tensor([100.0, 0.5, 100, 100, 100, 100])
    loud = visualization.passage_heatmap(passage(), TOKENS, n=1)
    full = visualization.passage_heatmap(passage(), TOKENS, n=1, maxima=maxima)
    assert drawn_rows(loud) == [["3"]] and drawn_rows(full) == [["1"]]
    assert full.layout.coloraxis.cmax == 1.0 and max(v for v in full.data[0].z[0] if v) == 1.0
    never = visualization.passage_heatmap(passage(), TOKENS, latents=[1], maxima=torch.zeros(6))
    assert max(v for v in never.data[0].z[0] if v) == 1.0  # not infinite


def test_long_passages_keep_their_cells_wide_and_lines_equal():
    acts = torch.rand(50, 9)
    figure = visualization.passage_heatmap(acts, [f" w{i}" for i in range(50)])
    widths = [len(trace.z[0]) for trace in figure.data]
    assert widths == [17, 17, 16]
    assert {tuple(axis.range) for axis in figure.select_xaxes()} == {(-0.5, 16.5)}


def test_a_line_in_which_nothing_fires_is_still_there_to_be_read():
    acts = torch.zeros(8, 2)
    acts[0, 0] = 1.0
    figure = visualization.passage_heatmap(acts, TOKENS, line=4)
    assert drawn_rows(figure) == [["0"], ["none fires"]] and figure.layout.xaxis2.ticktext[3] == "␣mat"


def test_passages_are_aligned_by_their_tokens():
    assert align(list("abcd"), list("abcd")) == [(i, i) for i in range(4)]
    assert align(list("wxz"), list("wxyz")) == [(0, 0), (1, 1), (None, 2), (2, 3)]
    assert align(["in", "Paris", "."], ["in", "Rome", "."]) == [(0, 0), (1, 1), (2, 2)]
    assert align(["a", "x", "y"], ["a", "z"]) == [(0, 0), (1, 1), (2, None)]
    assert align([], ["a"]) == [(None, 0)]


def test_a_difference_is_second_minus_first_place_by_place():
    one, two = torch.tensor([[1.0, 0], [5.0, 0], [0, 2.0]]), torch.tensor([[1.0, 0], [2.0, 3.0], [0, 0], [0, 2.0]])
    figure = visualization.passage_difference(
        ([" in", " Paris", "."], one), ([" in", " Rome", " not", "."], two), called=("France", "Italy"))
    assert list(figure.layout.xaxis.ticktext) == ["␣in", "␣Paris ▸ ␣Rome", "– ▸ ␣not", "."] or list(
        figure.layout.xaxis.ticktext) == ["␣in", "␣Paris ▸ ␣Ro…", "– ▸ ␣not", "."]
    values = dict(zip(drawn_rows(figure)[0], figure.data[0].z, strict=True))
    assert list(values["0"]) == [None, -3.0, None, None] and list(values["1"]) == [None, 3.0, None, None]
    axis = figure.layout.coloraxis
    assert axis.cmin == -axis.cmax == -3 and "Italy minus France" in axis.colorbar.title.text
    assert "+3 on “␣Paris ▸ ␣Rome”" in figure.layout.meta["alt"]
    assert "2 of them not the same" in figure.layout.meta["alt"]


# ---- networks


def graph_parts(figure):
    lines = [t for t in figure.data if t.mode == "lines"]
    nodes = [t for t in figure.data if t.mode == "markers+text"]
    return lines, nodes


def test_a_graph_has_every_pair_once_and_no_latent_paired_with_itself():
    lines, nodes = graph_parts(FIGURES["coactivation_graph"]())
    assert sum(line.x.count(None) for line in lines) == 4
    assert sorted(n for trace in nodes for n in trace.customdata) == [1, 2, 3, 7, 8]
    assert [t.name for t in nodes] == ["0 city", "group 1", OTHER]
    widest = max(lines, key=lambda t: t.line.width)
    at = {n: (x, y) for t in nodes for n, x, y in zip(t.customdata, t.x, t.y, strict=True)}
    assert (widest.x[-3], widest.y[-3]) in (at[2], at[3])  # the strongest pair is drawn thickest
    assert "2 separate parts" in FIGURES["coactivation_graph"]().layout.meta["alt"]


def test_hovering_a_latent_names_its_partners_the_strongest_first():
    _, nodes = graph_parts(FIGURES["coactivation_graph"]())
    text = dict(zip(nodes[0].customdata, nodes[0].hovertext, strict=True))[2]
    assert text == "latent 2<br>lift with 3 (9), 1 (3)"


def test_only_the_strongest_pairs_are_drawn():
    figure = visualization.coactivation_graph(pairs(), most=1)
    _, nodes = graph_parts(figure)
    assert sorted(nodes[0].customdata) == [2, 3] and figure.layout.showlegend is False


def test_a_networkx_graph_gives_the_same_drawing_as_its_table():
    graph = nx.Graph()
    for row in pairs().sample(frac=1, random_state=1).itertuples():
        graph.add_edge(row.b, row.a, lift=row.lift)
    for row in communities().itertuples():
        graph.nodes[row.latent].update(community=row.community, label=row.label)
    same = visualization.coactivation_graph(graph, names=NAMES)
    assert json.dumps(same.to_plotly_json(), default=list) == json.dumps(
        FIGURES["coactivation_graph"]().to_plotly_json(), default=list)


def test_parts_of_a_network_do_not_overlap():
    graph = nx.disjoint_union_all([nx.complete_graph(12), nx.path_graph(45), *[nx.path_graph(2)] * 9])
    places = place_nodes(graph)
    assert places == place_nodes(graph) and len(places) == 75
    boxes = []
    for part in nx.connected_components(graph):
        xs, ys = zip(*(places[n] for n in part), strict=True)
        boxes.append((min(xs), max(xs), min(ys), max(ys)))
    for i, (left, right, low, high) in enumerate(boxes):
        for other in boxes[i + 1:]:
            assert right < other[0] or other[1] < left or high < other[2] or other[3] < low


def test_a_map_tells_eight_kinds_apart_and_leaves_the_rest_grey():
    figure = FIGURES["latent_map"]()
    *kinds, rings = figure.data
    assert len(kinds) == KINDS + 1 and kinds[0].name == "city" and kinds[-1].name == OTHER
    assert len({(t.marker.color, t.marker.symbol) for t in kinds}) == KINDS + 1 and kinds[-1].marker.color == GREY
    assert sum(len(t.x) for t in kinds) == 30 and list(rings.text) == ["2", "5"]
    assert figure.layout.meta["click"] == "latent" and kinds[0].customdata[0] == 0
    assert kinds[0].hovertext[0].startswith("latent 0<br>f1: 0.")


def test_a_map_on_a_scale_colours_by_the_number_of_the_same_latent():
    table = dots().sample(frac=1, random_state=3)
    table.loc[table.latent == 4, "x"] = math.inf
    figure = visualization.latent_map(table, "f1")
    drawn = dict(zip(figure.data[0].customdata, figure.data[0].marker.color, strict=True))
    assert len(drawn) == 29 and 4 not in drawn
    assert drawn[7] == pytest.approx(float(table.f1[table.latent == 7].iloc[0]), abs=0.005)


def test_a_latent_without_a_number_is_grey_and_counted():
    figure = visualization.latent_map(dots().assign(f1=lambda t: t.f1.where(t.latent != 7)), "f1")
    coloured, grey = figure.data
    assert len(coloured.x) == 29 and list(grey.customdata) == [7] and grey.marker.color == GREY
    assert "1 have none and are grey" in figure.layout.meta["alt"]


def test_a_map_of_very_many_latents_is_drawn_by_the_graphics_card():
    many = pd.DataFrame({"latent": range(5000), "x": np.zeros(5000), "y": np.arange(5000.0)})
    assert visualization.latent_map(many).data[0].type == "scattergl"


# ---- families


def links(figure):
    link, labels = figure.data[0].link, figure.data[0].node.label
    return {(labels[s], labels[t]): v for s, t, v in zip(link.source, link.target, link.value, strict=True)}


def test_a_flow_has_the_links_above_the_threshold_with_their_shares():
    figure = FIGURES["splitting"]()
    assert links(figure) == {("3", "10 &lt;i&gt;"): 0.6, ("3", "11"): 0.3, ("5 animal", "12"): 0.9}
    assert "latent 3 into 10 (60%), 11 (30%)" in figure.layout.meta["alt"]
    assert [note.text for note in figure.layout.annotations] == ["<b>&lt;i&gt;4×</b>", "<b>8×</b>"]
    says = dict(zip(figure.data[0].link.target, figure.data[0].link.customdata, strict=True))
    assert sum("cosine" in text for text in says.values()) == 2  # none is shown where it is not known


def test_a_flow_follows_the_latents_it_is_told_to_through_several_widths():
    second = pd.DataFrame({"narrow": [10, 12], "wide": [100, 101], "share_of_narrow": [0.8, 0.7]})
    figure = visualization.splitting([splits(), second], ["4×", "8×", "16×"], latents=[3])
    assert links(figure) == {("3", "10"): 0.6, ("3", "11"): 0.3, ("10", "100"): 0.8}
    most = visualization.splitting(splits(), most=1)
    assert {source for source, _ in links(most)} == {"3"}  # the one with the most children


def test_a_child_stands_under_its_tightest_parent():
    assert _tightest(implications()) == {2: 1, 3: 2, 8: 7}
    assert _in_lines(_tightest(implications())) == [(1, 0), (2, 1), (3, 2), (7, 0), (8, 1)]
    figure = FIGURES["family_tree"]()
    tree = figure.data[-1]
    assert [text.strip() for text in tree.text] == [
        "<b>1 &lt;i&gt;city</b>", "2 · 99% / 50%", "3 · 98% / 40%", "<b>7</b>", "8 · 100% / 30%"]
    assert "also implies 1" in tree.hovertext[2] and "both fire on 20 tokens" in tree.hovertext[2]
    assert list(tree.marker.color) == [ORANGE, BLUE, BLUE, ORANGE, BLUE]
    assert "2 families" in figure.layout.meta["alt"]


def test_latents_that_imply_each_other_do_not_make_a_circle():
    table = pd.DataFrame({"parent": [1, 2, 3], "child": [2, 3, 1], "p_parent_given_child": [1.0] * 3,
                          "p_child_given_parent": [0.9, 0.8, 0.7]})
    assert _tightest(table) == {2: 1, 3: 2}
    assert len(visualization.family_tree(table).data[-1].y) == 3


# ---- comparisons


def test_dots_are_means_and_bars_end_at_the_quartiles():
    figure = FIGURES["dot_panels"]()
    first = [t for t in figure.data if t.xaxis == "x"]
    dot = {t.marker.color: list(t.x) for t in first if t.mode == "markers"}
    assert dot == {ORANGE: [0.5], BLUE: [0.2], GREY: [0.3]}
    bars = [list(t.x) for t in first if t.mode == "lines"]
    assert sorted(bars, key=len) == [[], [], [0.3, 0.7, None]]
    assert [axis.title.text for axis in figure.select_xaxes()] == ["F1", "entropy (bits)"]
    assert "F1: SAE 0.5, PCA 0.2, <i>random 0.3" in figure.layout.meta["alt"]


def test_a_panel_for_each_group_has_a_gap_where_a_basis_has_no_value():
    figure = FIGURES["dot_panels by group"]()
    assert [note.text for note in figure.layout.annotations] == ["a", "b"]
    second = next(t for t in figure.data if t.xaxis == "x2" and t.mode == "markers")
    assert list(second.x) == [0.1, None, 0.3]
    assert "b: SAE 0.1, <i>random 0.3" in figure.layout.meta["alt"]


@pytest.mark.parametrize("call, says", [
    (lambda: visualization.passage_heatmap(torch.zeros(8, 3), TOKENS), "no latent is active"),
    (lambda: visualization.passage_heatmap(passage(), TOKENS[:3]), "3 labels"),
    (lambda: visualization.passage_heatmap(passage(), TOKENS, latents=[6]), "from 0 to 5"),
    (lambda: visualization.passage_heatmap(passage(), TOKENS, order="cluster"), "Did you mean 'clusters'"),
    (lambda: visualization.passage_heatmap(passage(), TOKENS, maxima=torch.ones(5)), r"expected \[6\]"),
    (lambda: visualization.passage_heatmap(passage(), TOKENS, n=0), "n must be"),
    (lambda: visualization.passage_difference((TOKENS, passage()), (TOKENS, passage())), "do not differ"),
    (lambda: visualization.passage_difference((TOKENS, passage()), (TOKENS, passage()[:, :4])), "the same SAE"),
    (lambda: visualization.coactivation_graph(pairs(), weight="lifts"), "Did you mean 'lift'"),
    (lambda: visualization.coactivation_graph(nx.path_graph(3)), "unknown weight 'lift'"),
    (lambda: visualization.coactivation_graph(pairs().head(0)), "at least one pair"),
    (lambda: visualization.latent_map(dots(), "concepts"), "Did you mean 'concept'"),
    (lambda: visualization.latent_map(dots().assign(x=math.nan)), "finite x and y"),
    (lambda: visualization.latent_map(dots(), highlight=[77]), r"\[77\] is not among"),
    (lambda: visualization.latent_map([[1, 2]]), "pandas DataFrame"),
    (lambda: visualization.splitting(splits(), ["4×"]), "expected 2 names"),
    (lambda: visualization.splitting(splits(), latents=[8]), "at least 0.1"),
    (lambda: visualization.family_tree(implications().head(0)), "at least one implication"),
    (lambda: visualization.dot_panels(bases(), highlight=["ICA"]), "ICA"),
    (lambda: visualization.dot_panels(bases(), measures={"f1": "F1", "entropy": "bits"}, panels="group"),
     "one measure"),
    (lambda: visualization.dot_panels(bases(), measures={"f": "F1"}), "unknown column 'f'"),
])
def test_odd_input_is_named(call, says):
    with pytest.raises(InputError, match=says):
        call()


def test_what_the_analysis_gives_is_taken_as_it_is():
    """A graph whose edges carry only a weight, communities with concepts, splits with rows that have no partner."""
    graph = nx.Graph()
    graph.add_weighted_edges_from([(1, 2, 3.5), (2, 3, 1.5)])
    named = pd.DataFrame({"latent": [1, 2, 3], "community": 0, "concept": ["city", None, "<i>"]})
    _, nodes = graph_parts(visualization.coactivation_graph(graph, weight="pmi", communities=named))
    assert nodes[0].hovertext[0] == "latent 1 (city)<br>pmi with 2 (3.5)" and "3 (&lt;i&gt;)" in nodes[0].hovertext[2]

    class Splits:
        table = pd.concat([splits(), pd.DataFrame({"narrow": [-1, 3], "wide": [9, -1], "share_of_narrow": [0.9, 0.9]})])

    assert set(links(visualization.splitting(Splits()))) == {("3", "10"), ("3", "11"), ("5", "12")}
    assert len(visualization.splitting([Splits(), Splits()], list("abc")).data[0].node.label) > 0
