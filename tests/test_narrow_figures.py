"""Figures on a page as narrow as a phone: nothing is cut off, and nothing stands on something else."""

import shutil
from pathlib import Path

import pandas as pd
import plotly
import pytest
from browsing import ROOT, chromium_path, launch, serve, visit

from solutions import visualization

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Three figures</title>
<link rel="icon" href="data:,"><style>.plotly-figure {{ width: 100%; overflow-x: auto }}</style>
<script defer src="plotly.min.js"></script><script defer src="figures.js"></script></head>
<body>{figures}</body></html>"""
BOX = '<div class="plotly-figure"><script type="application/vnd.plotly.v1+json">{}</script></div>'
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium_path() is None, reason="no Chromium on the path (chromium, google-chrome)"),
]


def flow():
    table = pd.DataFrame({"earlier": [1, 1], "later": [5, 6], "correlation": [0.9, 0.5], "cosine": [0.1, 0.2]})
    stages = [table, table.assign(earlier=[5, 6], later=[8, 9])]
    return visualization.layer_flow(stages, ["layer 0", "layer 1", "layer 2"])


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    lines = visualization.lines({f"a series with a long name, {i}": [1, 2, i] for i in range(4)}, "layer", "F1",
                                title="What stands above the figure")
    bars = visualization.bars({"a name that takes up much of the page": 1.0, "b": -0.2},
                              "contribution to the difference of the two logits (logits)")
    drawn = "".join(BOX.format(figure.to_json().replace("</", "<\\/")) for figure in (lines, bars, flow()))
    (folder / "page.html").write_text(PAGE.format(figures=drawn), "utf8")
    shutil.copy(Path(plotly.__file__).parent / "package_data" / "plotly.min.js", folder)
    shutil.copy(ROOT / "book" / "_static" / "figures.js", folder)
    with serve(folder) as base, launch() as browser:
        yield browser, base


@pytest.fixture
def boxes(served):
    browser, base = served
    with visit(browser, base, "page.html", viewport={"width": 360, "height": 2000}) as seen:
        seen.page.wait_for_function("[...document.querySelectorAll('.plotly-figure')].every(f => f.dataset.drawn)")
        yield seen.page.locator(".plotly-figure").all()
        assert seen.errors == []


def test_a_legend_of_several_lines_leaves_the_title_alone(boxes):
    title, legend, plot = (boxes[0].locator(part).bounding_box() for part in (".gtitle", ".legend", ".gridlayer"))
    assert boxes[0].locator(".plotly").first.bounding_box()["y"] <= title["y"]
    assert title["y"] + title["height"] <= legend["y"]
    assert legend["y"] + legend["height"] <= plot["y"] + 2 and legend["height"] > 60


def test_a_long_name_of_an_axis_is_set_in_lines(boxes):
    page, words = boxes[1].bounding_box(), boxes[1].locator(".xtitle")
    place = words.bounding_box()
    assert page["x"] <= place["x"] and place["x"] + place["width"] <= page["x"] + page["width"]
    assert words.locator("tspan").count() > 1
    assert place["y"] + place["height"] <= page["y"] + page["height"]


def test_a_flow_keeps_its_width_and_the_keyboard_can_scroll_it(boxes):
    inside, page = boxes[2].locator(".js-plotly-plot").bounding_box()["width"], boxes[2].bounding_box()["width"]
    assert inside == flow().layout.meta["least_width"] > page
    assert boxes[2].get_attribute("tabindex") == "0" and boxes[1].get_attribute("tabindex") is None
