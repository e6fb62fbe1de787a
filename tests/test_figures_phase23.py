"""The figures of chapters 2 and 3: what they show, that they say it in words, and that odd input is named."""

import json
import math
import re

import pytest
import torch

from solutions import analysis, visualization
from solutions.errors import InputError
from solutions.visualization.style import PARTS, contrast_ratio, ink_on, mix, printable

COUNTS = torch.tensor([[90, 5, 0], [3, 80, 17], [0, 0, 0]])
KINDS = ["English", "<French>", "code"]


def page(latent, scale=1.0, dead=False):
    acts = torch.relu(torch.linspace(-2, 2, 60).reshape(5, 12)) * (0 if dead else scale)
    texts = [[f" w{i}" for i in range(12)]] * 5
    logits = ([(" yes", 2.0), (" ja", 1.0)], [(" no", -2.0)])
    return analysis.feature_page(acts, torch.ones(5, 12, dtype=torch.bool), texts, latent, logits, n_intervals=3)


FIGURES = {
    "lines": lambda: visualization.lines(
        {"a <b>": [1.0, math.nan, 3.0], "c": torch.tensor([2.0, 2, 2])}, "layer", "norm (model units)",
        bands={"a <b>": ([0.5, 1, 2], [1.5, 3, 4])}, reference={"chance": 1.0},
    ),
    "ranked": lambda: visualization.ranked({"a": torch.rand(500)}, "standard deviation (model units)"),
    "spectrum": lambda: visualization.spectrum({"a": torch.rand(64), "b": torch.rand(64)}, {"a": 20.3}),
    "scatter": lambda: visualization.scatter(
        [0.0, 1, 2], [1.0, 2, 3], "density (share of tokens)", "purity", categories=list("aab"), hover=list("xyz"),
        diagonal=True,
    ),
    "density_histogram": lambda: visualization.density_histogram({"SAE": [0.0, 0.1, 0.01, 0.2], "PCA": [0.5]}),
    "stacked_bars": lambda: visualization.stacked_bars({"top": {"city": 9, "other": 1}, "low": {"other": 4}}),
    "interval_purity": lambda: visualization.interval_purity(
        {"latent": [1.0, 0.5], "random": [0.9, math.nan]}, ["top", "low"], counts={"latent": [10, 10]}
    ),
    "heatmap": lambda: visualization.heatmap(torch.randn(2, 3), ["a", "b"], ["x", "y", "z"], "cosine", "to", "from"),
    "confusion_matrix": lambda: visualization.confusion_matrix(COUNTS, KINDS),
    "gallery": lambda: visualization.gallery([page(3), page(4, 2.0)], title="Two latents"),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_describes_itself_and_leaves_the_background_to_the_page(name):
    layout = FIGURES[name]().layout
    assert len(layout.meta["alt"]) > 30
    assert layout.paper_bgcolor == layout.plot_bgcolor == "rgba(0,0,0,0)"
    assert layout.width is None and layout.height > 50


@pytest.mark.parametrize("name", FIGURES)
def test_figures_travel_as_short_numbers_and_valid_json(name):
    figure = FIGURES[name]()
    text = json.dumps(figure.to_plotly_json()["data"], default=list, allow_nan=False)
    assert "bdata" not in text
    assert max(map(len, re.findall(r"\d+\.\d+", text)), default=0) <= 8


@pytest.mark.parametrize("name", FIGURES)
def test_every_drawn_axis_is_named(name):
    figure = FIGURES[name]()
    if name not in ("stacked_bars", "gallery"):  # their rows are named one by one
        assert all(axis.title.text for axis in figure.select_yaxes())
    assert all(axis.title.text for axis in figure.select_xaxes() if axis.visible is not False)


def test_lines_leave_gaps_and_close_their_bands():
    figure = FIGURES["lines"]()
    band, line, other, reference = figure.data
    assert line.y == (1.0, None, 3.0) and line.name == "a &lt;b&gt;"
    assert band.fill == "toself" and list(band.y) == [0.5, 1, 2, 4, 3, 1.5] and list(band.x) == [0, 1, 2, 2, 1, 0]
    assert list(reference.x) == [0, 2] and list(reference.y) == [1, 1]
    assert "highest 3" in figure.layout.meta["alt"] and "chance: 1" in figure.layout.meta["alt"]
    assert list(figure.layout.xaxis.tickvals) == [0, 1, 2]  # no layer one and a half


def test_lines_differ_in_more_than_colour():
    figure = visualization.lines({str(i): [1.0, 2.0] for i in range(7)}, "layer", "norm (units)")
    looks = {(t.line.color, t.line.dash, t.marker.symbol) for t in figure.data}
    assert len(looks) == 7
    assert len({t.marker.symbol for t in figure.data[:5]}) == 5


def test_lines_over_names_and_on_logarithmic_axes():
    figure = visualization.lines({"norm": [100.0, 5.0]}, "position", "norm (units)", x=["BOS", "1"], log_y=True,
                                 y_range=(1, 1000))
    assert figure.layout.xaxis.type == "category" and figure.layout.yaxis.type == "log"
    assert figure.layout.yaxis.range == (0, 3)
    assert not figure.layout.showlegend


def test_spectrum_gives_the_share_of_variance_and_marks_the_effective_dimension():
    figure = visualization.spectrum({"a": torch.tensor([1.0, 6.0, 3.0])}, {"a": 2.0})
    upper, lower, mark = figure.data
    assert list(upper.y) == [6, 3, 1] and list(lower.y) == [60, 90, 100]
    assert list(mark.x) == [2] and list(mark.y) == [90]
    assert "90% of the variance in 2" in figure.layout.meta["alt"]
    assert figure.layout.xaxis.type == figure.layout.yaxis.type == figure.layout.xaxis2.type == "log"
    assert figure.layout.yaxis2.type != "log"


def test_spectrum_takes_rounding_noise_for_zero_and_stays_small():
    values = torch.cat([torch.linspace(1, 2, 3000), torch.tensor([-1e-7])])
    upper, lower = visualization.spectrum({"a": values}).data
    assert upper.y[-1] is None and lower.y[-1] == 100
    assert len(upper.x) <= 120 and upper.x[0] == 1 and upper.x[-1] == 3001


def test_ranked_keeps_both_ends():
    trace = visualization.ranked({"a": torch.arange(1.0, 1001)}, "size (units)").data[0]
    assert (trace.x[0], trace.y[0], trace.x[-1], trace.y[-1]) == (1, 1000, 1000, 1)
    assert list(trace.y) == sorted(trace.y, reverse=True)


def test_scatter_says_what_it_cannot_show():
    figure = visualization.scatter([0.0, 0.1, 1.0], [1.0, math.nan, 2.0], "x (units)", "y (units)", log_x=True)
    assert list(figure.data[0].x) == [1] and "2 points cannot be shown" in figure.layout.meta["alt"]
    names = FIGURES["scatter"]().data[0].customdata
    assert list(names) == ["x", "y"]


def test_density_histogram_counts_every_latent_once():
    figure = FIGURES["density_histogram"]()
    curve, dead, other, none = figure.data
    assert sum(curve.y) + sum(dead.y) == pytest.approx(100, abs=0.5) and list(dead.y) == [25]
    assert sum(other.y) == pytest.approx(100, abs=0.5) and list(none.y) == [0]
    assert max(dead.x) < min(curve.x)  # apart, on the left
    assert "25% never active" in figure.layout.meta["alt"]
    assert visualization.density_histogram({"all dead": torch.zeros(3)}).data[1].y == (100,)
    assert sum(visualization.density_histogram({"always": torch.ones(3)}).data[0].y) == pytest.approx(100)


def test_density_of_a_power_of_ten_lands_in_its_decade():
    curve = visualization.density_histogram({"SAE": [0.0005, 0.05]}, n_bins=4).data[0]
    assert list(curve.x) == [-3.5, -2.5, -1.5, -0.5] and list(curve.y) == [50, 0, 50, 0]


def test_stacked_bars_are_shares_of_each_row_and_keep_the_amounts():
    city, other = FIGURES["stacked_bars"]().data
    assert list(city.x) == [90, 0] and list(other.x) == [10, 100]
    assert list(city.customdata) == [9, 0]
    assert all(contrast_ratio(colour, "#000000") >= 4.5 for colour in PARTS)


def test_interval_purity_draws_wilsons_band():
    figure = FIGURES["interval_purity"]()
    band = figure.data[0]
    n = 2
    low, high = list(band.y[:n]), list(band.y[n:])[::-1]
    assert (low[0], high[0]) == (pytest.approx(72.2, abs=0.1), 100)   # 10 of 10, known answer
    assert (low[1], high[1]) == (pytest.approx(23.7, abs=0.1), pytest.approx(76.3, abs=0.1))  # 5 of 10
    assert figure.data[1].y == (100, 50) and figure.data[2].y == (90, None)


def test_confusion_matrix_gives_shares_of_rows_counts_and_the_commonest_mistake():
    figure = visualization.confusion_matrix(COUNTS, KINDS)
    heat = figure.data[0]
    assert list(heat.z[0]) == [94.7, 5.26, None]  # empty: it never happened
    assert list(heat.z[2]) == [None, None, None]  # a kind that never came up
    texts = [text for trace in figure.data[1:] for text in trace.text]
    assert "95 %<br>90" in texts and len(texts) == 5
    assert list(heat.customdata[1][2]) == ["&lt;French&gt;", "code", 17]
    alt = figure.layout.meta["alt"]
    assert "87% of them right" in alt and "<French> taken for code, 17 times" in alt


@pytest.mark.parametrize("figure", [
    visualization.heatmap(torch.linspace(-3, 3, 60).reshape(6, 10), "abcdef", "0123456789", "x", diverging=True),
    visualization.heatmap(torch.linspace(0, 3, 60).reshape(6, 10), "abcdef", "0123456789", "x"),
    visualization.confusion_matrix(torch.arange(25).reshape(5, 5), list("abcde")),
])
def test_what_is_written_in_a_cell_can_be_read(figure):
    """Each text stands on the colour that the cell has, computed here from the scale, at 4.5 to 1 or better."""
    heat = figure.data[0]
    for trace in figure.data[1:]:
        for x, y in zip(trace.x, trace.y, strict=True):
            at = (heat.z[y][x] - heat.zmin) / (heat.zmax - heat.zmin)
            pairs = zip(heat.colorscale[:-1], heat.colorscale[1:], strict=True)
            (start, first), (stop, second) = next(pair for pair in pairs if at <= pair[1][0] + 1e-9)
            assert contrast_ratio(trace.textfont.color, mix(first, second, (at - start) / (stop - start))) >= 4.5


def test_heatmap_writes_only_where_it_fits():
    wide = visualization.heatmap(torch.rand(2, 40), ["a", "b"], [str(i) for i in range(40)], "norm")
    assert len(wide.data) == 1
    assert sum(len(t.text) for t in FIGURES["heatmap"]().data[1:]) == 6


def test_gallery_shows_one_page_at_a_time_and_changes_all_that_belongs_to_it():
    pages = [page(3), page(4, 2.0), page(5, dead=True)]
    figure = visualization.gallery(pages, ["<first>", "second", "dead"], title="Three latents")
    menu = figure.layout.updatemenus[0].buttons
    assert [button.label for button in menu] == ["&lt;first&gt;", "second", "dead"]
    shown = [trace.visible is not False for trace in figure.data]
    assert shown == list(menu[0].args[0]["visible"])
    owners = [sum(button.args[0]["visible"][i] for button in menu) for i in range(len(figure.data))]
    assert set(owners) == {1}  # every trace belongs to exactly one page
    alone = visualization.dashboard(pages[1])
    change = menu[1].args[1]
    assert len(change["shapes"]) == len(alone.layout.shapes)
    assert change["annotations"][-1]["text"] == alone.layout.title.text
    seen = [trace for trace, on in zip(figure.data, menu[1].args[0]["visible"], strict=True) if on]
    assert [trace.type for trace in seen] == [trace.type for trace in alone.data]
    assert "second: Feature page of latent 4" in figure.layout.meta["alt"]


def test_gallery_pages_line_up():
    """The menu moves nothing but the contents: all pages fit the same axes."""
    pages = [page(3), page(5, dead=True)]
    figure, alone = visualization.gallery(pages), visualization.dashboard(pages[0])
    assert figure.layout.yaxis.range == alone.layout.yaxis.range
    assert figure.layout.yaxis.domain == alone.layout.yaxis.domain
    assert figure.layout.height > alone.layout.height  # room for the menu


@pytest.mark.parametrize("text, shown", [
    ("a\nb\tc", "a↵b→c"), ("\x00\x1b\x7f", "␀␛␡"), ("\u202eabc", "⟨U+202E⟩abc"), ("\ud800", "⟨U+D800⟩"),
    ("\u200b", "⟨U+200B⟩"), ("\u0301x", "◌\u0301x"), ("é", "é"), ("👩‍👧", "👩‍👧"), ("a\u200db", "a⟨U+200D⟩b"),
    ("\x85", "⟨U+0085⟩"), ("\u2028", "⟨U+2028⟩"), ("东京", "东京"),
])
def test_invisible_characters_are_spelled_out(text, shown):
    assert printable(text) == shown
    printable(text).encode("utf-8")


def test_ink_reads_on_every_colour():
    grid = range(0, 256, 51)
    colours = [f"#{r:02X}{g:02X}{b:02X}" for r in grid for g in grid for b in grid]
    assert min(contrast_ratio(ink_on(c), c) for c in colours) >= 4.5
    assert contrast_ratio("#000000", "#FFFFFF") == pytest.approx(21)


@pytest.mark.parametrize("call, says", [
    (lambda: visualization.lines({}, "x", "y"), "at least one name"),
    (lambda: visualization.lines({"a": [1.0], "b": [1.0, 2.0]}, "x", "y"), "b: expected 1 entries"),
    (lambda: visualization.lines({"a": [1.0]}, "x", "y", bands={"a": ([1.0], [1.0, 2.0])}), "upper: expected 1"),
    (lambda: visualization.lines({"a": torch.zeros(2, 2)}, "x", "y"), r"row of numbers, got shape \[2, 2\]"),
    (lambda: visualization.ranked({}, "y"), "at least one name"),
    (lambda: visualization.spectrum({}), "at least one name"),
    (lambda: visualization.spectrum({"a": [1.0]}, {"b": 2.0}), "'b'.*not among"),
    (lambda: visualization.spectrum({"a": [0.0, 0.0]}), "positive sum"),
    (lambda: visualization.scatter([1.0], [1.0, 2.0], "x", "y"), "y: expected 1"),
    (lambda: visualization.scatter([0.0], [1.0], "x", "y", log_x=True), "no point"),
    (lambda: visualization.scatter(range(11), range(11), "x", "y", categories=range(11)), "at most 10"),
    (lambda: visualization.density_histogram({"a": [2.0]}), "between 0 and 1"),
    (lambda: visualization.density_histogram({}), "at least one"),
    (lambda: visualization.stacked_bars({}), "at least one row"),
    (lambda: visualization.stacked_bars({"a": {"b": -1.0}}), "cannot be negative"),
    (lambda: visualization.stacked_bars({"a": {str(i): 1.0 for i in range(9)}}), "at most 8"),
    (lambda: visualization.interval_purity({"a": [1.2]}, ["top"]), "between 0 and 1"),
    (lambda: visualization.interval_purity({"a": [1.0]}, ["top"], counts={"b": [1]}), "'b'.*not among"),
    (lambda: visualization.interval_purity({"a": [1.0]}, ["top"], counts={"a": [1, 2]}), "expected 1 numbers"),
    (lambda: visualization.heatmap(torch.full((1, 1), math.nan), ["a"], ["b"], "x"), "one finite number"),
    (lambda: visualization.heatmap(torch.zeros(1, 2), ["a"], ["b"], "x"), "1 labels"),
    (lambda: visualization.confusion_matrix(torch.zeros(2, 2), ["a", "b"]), "not all zero"),
    (lambda: visualization.gallery([]), "at least one feature page"),
    (lambda: visualization.gallery([page(1)], ["a", "b"]), "expected 1"),
])
def test_bad_input_is_named(call, says):
    with pytest.raises(InputError, match=says):
        call()
