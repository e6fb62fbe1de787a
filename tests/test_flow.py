"""The figure of an attribution graph: everything is in its place, the menu shows what it says, odd input is named."""

import pandas as pd
import pytest
from figure_rules import describes_itself, takes_no_name_for_html, travels_light

from solutions.errors import InputError
from solutions.visualization import attribution_flow

TOKENS = ["<s>", " a", "<i>b"]


def nodes():
    return pd.DataFrame({
        "kind": ["token", "token", "latent", "latent", "error", "logit"], "layer": [-1, -1, 0, 1, 1, 2],
        "position": [1, 2, 1, 2, 2, 2], "name": [" a", "<i>b", "0/7 on <u>", "1/9", "missed", " c"],
        "value": [1.0, 1.0, 2.0, 3.123456789, 0.5, 9.0], "influence": [0.4, 0.1, 0.3, 0.5, 0.123456789, 0.0],
    }, index=[10, 11, 12, 13, 14, 15])


def edges():
    return pd.DataFrame({"source": [10, 12, 13, 14, 11], "target": [12, 13, 15, 15, 13],
                         "weight": [3.0, 1.5, 4.0, -2.0, -0.123456789]})


def dots(figure):
    return {trace.name: trace for trace in figure.data if "markers" in trace.mode}


def lines(figure, shown=None):
    """(x, y) of both ends of every edge that is drawn in some view; by default the first."""
    visible = [trace.visible for trace in figure.data] if shown is None else shown
    found = []
    for trace, seen in zip(figure.data, visible, strict=True):
        if trace.mode == "lines" and seen in (True, None):
            found += [((trace.x[i], trace.y[i]), (trace.x[i + 1], trace.y[i + 1])) for i in range(0, len(trace.x), 3)]
    return found


def test_a_figure_of_a_graph_keeps_the_house_rules():
    figure = attribution_flow(nodes(), edges(), TOKENS, title="A graph")
    describes_itself(figure)
    travels_light(figure)
    takes_no_name_for_html(figure, "i|u|s")
    assert "5 edges" in figure.layout.meta["alt"] and "1/9" in figure.layout.meta["alt"]
    assert "The largest edge, +4: from 1/9 to ␣c" in figure.layout.meta["alt"]


def test_every_node_stands_at_its_layer_and_token():
    figure = attribution_flow(nodes(), edges(), TOKENS)
    found = dots(figure)
    assert set(found) == {"token", "latent", "error", "logit"}
    centres = figure.layout.xaxis.tickvals
    assert list(figure.layout.xaxis.ticktext) == ["&lt;s&gt;", "␣a", "&lt;i&gt;b"]
    assert list(figure.layout.yaxis.ticktext) == ["tokens", "MLP 0", "MLP 1", "logits"]
    assert list(found["token"].y) == [-1, -1] and list(found["token"].x) == pytest.approx(list(centres[1:]), rel=1e-2)
    both = sorted([found["latent"].x[1], found["error"].x[0]])  # the cell of two: side by side, around the middle
    assert sum(both) / 2 == pytest.approx(centres[2], rel=1e-2) and both[1] - both[0] == pytest.approx(1, rel=1e-2)
    assert list(found["latent"].customdata) == [12, 13] and found["logit"].textposition == ("top center",)
    assert found["latent"].marker.size[1] > found["latent"].marker.size[0] > found["error"].marker.size[0]


def test_every_edge_is_drawn_once_between_its_ends_and_what_lowers_is_dotted():
    figure = attribution_flow(nodes(), edges(), TOKENS)
    assert len(lines(figure)) == 5
    place = {label: (x, y) for trace in dots(figure).values()
             for label, x, y in zip(trace.customdata, trace.x, trace.y, strict=True)}
    expected = {(place[s], place[t]) for s, t in zip(edges()["source"], edges()["target"], strict=True)}
    assert set(lines(figure)) == expected
    first = [trace for trace in figure.data if trace.mode == "lines" and trace.visible is not False]
    assert sum(len(t.x) // 3 for t in first if t.line.dash == "dot") == 2
    strongest = max(first, key=lambda trace: trace.line.width)
    assert (strongest.x[0], strongest.y[0]) == place[13]


def test_the_menu_shows_the_edges_of_one_node():
    figure = attribution_flow(nodes(), edges(), TOKENS, menu=2)
    buttons = figure.layout.updatemenus[0].buttons
    assert [b.label for b in buttons] == ["all edges", "logit: ␣c", "1/9", "token: ␣a"]
    views = [lines(figure, button.args[0]["visible"]) for button in buttons]
    assert [len(view) for view in views] == [5, 2, 3, 1]
    assert all(len(button.args[0]["visible"]) == len(figure.data) for button in buttons)
    assert all(button.args[0]["visible"][-4:] == [True] * 4 for button in buttons)  # nodes always stay
    assert not attribution_flow(nodes(), edges(), TOKENS, menu=0).layout.updatemenus


def test_hovering_names_inputs_and_outputs():
    says = dots(attribution_flow(nodes(), edges(), TOKENS))["latent"].hovertext[1]
    assert "from 0/7 on &lt;u&gt;: +1.5" in says and "to ␣c: +4" in says and "from &lt;i&gt;b: -0.12" in says


def test_odd_input_is_named():
    with pytest.raises(InputError, match="influence"):
        attribution_flow(nodes().drop(columns="influence"), edges(), TOKENS)
    with pytest.raises(InputError, match="at least one"):
        attribution_flow(nodes().iloc[:0], edges().iloc[:0], TOKENS)
    with pytest.raises(InputError, match=r"\[99\] are no nodes"):
        attribution_flow(nodes(), edges().assign(source=99), TOKENS)
    with pytest.raises(InputError, match="positions must be 0 to 1"):
        attribution_flow(nodes(), edges(), TOKENS[:2])


def test_names_of_two_logits_stand_on_their_outer_sides():
    two = pd.concat([nodes(), nodes().loc[[15]].assign(name=" d").rename(index={15: 16})])
    logits = dots(attribution_flow(two, edges(), TOKENS))["logit"]
    left = 0 if logits.x[0] < logits.x[1] else 1
    assert logits.textposition[left] == "middle left" and logits.textposition[1 - left] == "middle right"


def test_without_edges_there_are_still_nodes():
    figure = attribution_flow(nodes(), edges().iloc[:0], TOKENS)
    describes_itself(figure)
    assert not lines(figure) and len(dots(figure)) == 4
