"""Figures as objects: what they show, that they describe themselves and sit on light and dark pages."""

import json
import re

import pytest
import torch

from solutions import analysis, visualization
from solutions.errors import InputError
from solutions.visualization.style import BLUE, ORANGE
from solutions.visualization.text import LINE

TOKENS = ["<|bos|>", "The", " cat", "\n", " <b>"]
ACTS = torch.linspace(-2, 2, 5 * 7).reshape(5, 7)
FEATURES = torch.relu(ACTS - 0.5)


def example_page():
    mask = torch.ones(5, 7, dtype=torch.bool)
    texts = [[f" w{i}" for i in range(7)]] * 5
    effects = ([(" yes", 2.0), (" ja", 1.0)], [(" no", -2.0), (" nein", -1.0)])
    return analysis.feature_page(FEATURES, mask, texts, latent=42, logits=effects, n_intervals=3)


FIGURES = {
    "token_strip": lambda: visualization.token_strip(TOKENS, ACTS[:, 3], "a strip"),
    "activation_heatmap": lambda: visualization.activation_heatmap(ACTS, TOKENS),
    "feature_heatmap": lambda: visualization.feature_heatmap(FEATURES, TOKENS),
    "cosine_heatmap": lambda: visualization.cosine_heatmap(torch.eye(3), ["a", "b", "c"]),
    "histogram": lambda: visualization.histogram({"one": ACTS, "two": [1.0, 2.0]}, "activation (units)"),
    "compare_bases": lambda: visualization.compare_bases({"SAE": FEATURES, "PCA": ACTS.abs()}, TOKENS),
    "bars": lambda: visualization.bars({"a": 1.0, "b": 3.0}, "L0 (latents per token)", highlight=["b"]),
    "compare_dots": lambda: visualization.compare_dots({"SAE": {"top": 0.9, "mass": 0.5}}, "purity"),
    "toy_directions": lambda: visualization.toy_directions(torch.rand(2, 2, 5), ["dense", "sparse"]),
    "dashboard": lambda: visualization.dashboard(example_page()),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_describes_itself_and_leaves_the_background_to_the_page(name):
    layout = FIGURES[name]().layout
    assert len(layout.meta["alt"]) > 30
    assert layout.paper_bgcolor == layout.plot_bgcolor == "rgba(0,0,0,0)"
    assert layout.width is None and layout.height > 50


@pytest.mark.parametrize("name", FIGURES)
def test_figures_travel_as_short_numbers(name):
    """Neither base64 arrays nor 17 digits: what is drawn can be read in the page and stays small."""
    text = json.dumps(FIGURES[name]().to_plotly_json()["data"], default=list)
    assert "bdata" not in text and "array" not in text
    assert max(map(len, re.findall(r"\d+\.\d+", text))) <= 8


@pytest.mark.parametrize("name", sorted(set(FIGURES) - {"token_strip", "cosine_heatmap"}))
def test_axes_are_named(name):
    figure = FIGURES[name]()
    assert any(axis.title.text for axis in figure.select_xaxes())


def test_token_strip_shades_what_is_not_zero_and_shows_spaces_and_line_breaks():
    figure = visualization.token_strip(TOKENS, [0.0, 2.0, -1.0, 0.0, 0.5])
    assert list(figure.data[0].text) == ["&lt;|bos|&gt;", "The", "␣cat", "↵", "␣&lt;b&gt;"]
    assert len(figure.layout.shapes) == 3
    strongest, below, weak = (shape.fillcolor for shape in figure.layout.shapes)
    assert strongest.startswith("rgba(230") and below.startswith("rgba(60")
    assert float(strongest.split(",")[3][:-1]) > float(weak.split(",")[3][:-1])


def test_token_strips_share_one_scale():
    figure = visualization.token_strips([(["a"], [1.0]), (["b"], torch.tensor([2.0]))])
    weak, strong = (float(shape.fillcolor.split(",")[3][:-1]) for shape in figure.layout.shapes)
    assert weak < strong
    assert figure.data[0].y[0] > figure.data[1].y[0]  # one below the other


def test_long_texts_wrap_into_lines():
    figure = visualization.token_strip([" word"] * 40, [1.0] * 40)
    assert len(set(figure.data[0].y)) > 3
    assert max(shape.x1 for shape in figure.layout.shapes) <= LINE


def test_activation_heatmap_holds_the_numbers_and_a_symmetric_scale():
    heat = visualization.activation_heatmap(ACTS, TOKENS).data[0]
    assert torch.allclose(torch.tensor(heat.z), ACTS, atol=0.005)
    assert heat.zmin == -heat.zmax < 0


def test_feature_heatmap_chooses_active_latents_in_the_order_of_their_peaks():
    features = torch.zeros(4, 10)
    features[3, 2], features[0, 7], features[1, 7] = 5.0, 1.0, 0.5
    heat = visualization.feature_heatmap(features, list("abcd")).data[0]
    assert list(heat.x) == ["7", "2"]
    chosen = visualization.feature_heatmap(features, list("abcd"), latents=[2, 3]).data[0]
    assert torch.tensor(chosen.z).tolist() == [[0, 0], [0, 0], [0, 0], [5.0, 0]]


def test_compare_bases_gives_each_basis_a_panel_scaled_to_its_own_maximum():
    figure = visualization.compare_bases({"SAE": 5 * FEATURES, "all": ACTS.abs()}, TOKENS, n=3)
    assert len(figure.data) == 2
    assert all(max(max(row) for row in panel.z) == 1.0 and len(panel.z[0]) == 3 for panel in figure.data)
    assert [note.text for note in figure.layout.annotations] == ["SAE", "all"]


def test_histogram_shares_add_up_for_each_group():
    groups = {"many": torch.randn(1000), "few": [0.0, 1.0, float("nan")]}
    figure = visualization.histogram(groups, "x (units)")
    for trace in figure.data:
        assert sum(trace.y) == pytest.approx(100, abs=0.5)
    assert figure.layout.showlegend


def test_bars_below_zero_leave_room_for_their_numbers():
    low, high = visualization.bars({"a": -1.0, "b": 3.0}, "x").layout.xaxis.range
    assert low < -1.8 and high > 3.2
    assert visualization.bars({"a": 1.0, "b": 3.0}, "x").layout.xaxis.range is None


def test_bars_keep_their_order_and_highlight():
    bar = visualization.bars({"a": 1.0, "b": 3.0}, "x", highlight=["b"]).data[0]
    assert list(bar.x) == [1.0, 3.0]
    assert list(bar.marker.color) == [BLUE, ORANGE]


def test_compare_dots_draws_intervals_around_its_dots():
    figure = visualization.compare_dots({"a": {"x": 0.5}, "b": {"x": 0.4}}, "share", bands={"a": {"x": (0.2, 0.6)}})
    bars = figure.data[0].error_x
    assert list(bars.arrayminus) == pytest.approx([0.3, 0.0]) and list(bars.array) == pytest.approx([0.1, 0.0])
    assert "x 0.5 (0.2 to 0.6)" in figure.layout.meta["alt"] and "x 0.4." in figure.layout.meta["alt"]
    assert visualization.compare_dots({"a": {"x": 0.5}}, "share").data[0].error_x.array is None


def test_compare_dots_has_one_trace_a_measure_and_leaves_gaps():
    figure = visualization.compare_dots({"SAE": {"top": 0.9, "mass": 0.5}, "PCA": {"top": 0.4}}, "purity")
    assert [trace.name for trace in figure.data] == ["top", "mass"]
    assert list(figure.data[1].x) == [0.5, None]
    assert list(figure.layout.yaxis.ticktext) == ["SAE", "PCA"]


def test_dashboard_shows_every_interval_every_example_and_the_logits():
    page = example_page()
    figure = visualization.dashboard(page)
    *strips, names = [trace for trace in figure.data if trace.type == "scatter"]
    assert list(names.text) == [" ␣yes ", " ␣ja ", " ␣nein ", " ␣no "]
    assert len(strips) == sum(len(interval.examples) for interval in page.intervals)
    assert len(figure.layout.annotations) == len(page.intervals)
    histogram, logits = (trace for trace in figure.data if trace.type == "bar")
    assert sum(histogram.y) == page.n_active
    assert list(logits.x) == [2.0, 1.0, -1.0, -2.0]
    assert "42" in figure.layout.title.text and "42" in figure.layout.meta["alt"]


def test_dashboard_of_a_dead_latent_says_so():
    mask = torch.ones(1, 2, dtype=torch.bool)
    page = analysis.feature_page(torch.zeros(1, 2), mask, [["a", "b"]], latent=3)
    assert "never active" in visualization.dashboard(page).layout.meta["alt"]


@pytest.mark.parametrize("call, says", [
    (lambda: visualization.token_strip(["a"], [1.0, 2.0]), "1 tokens and 2 values"),
    (lambda: visualization.token_strips([]), "at least one text"),
    (lambda: visualization.activation_heatmap(ACTS[None], TOKENS), "two axes"),
    (lambda: visualization.activation_heatmap(ACTS, ["a"]), "1 labels"),
    (lambda: visualization.feature_heatmap(torch.zeros(2, 4), ["a", "b"]), "no latent is active"),
    (lambda: visualization.histogram({}, "x"), "at least one group"),
    (lambda: visualization.histogram({"empty": []}, "x"), "empty: expected"),
    (lambda: visualization.bars({}, "x"), "at least one"),
    (lambda: visualization.compare_bases({}, TOKENS), "at least one name"),
    (lambda: visualization.compare_dots({}, "x"), "at least one row"),
    (lambda: visualization.toy_directions(torch.rand(2, 3, 5), ["a", "b"]), "2, features"),
])
def test_bad_input_is_named(call, says):
    with pytest.raises(InputError, match=says):
        call()
