"""The figures of chapter 4: what they show, that they say it in words, and that odd input is named."""

import itertools
import json
import math
import re

import pandas as pd
import pytest
import torch

from solutions import visualization
from solutions.errors import InputError
from solutions.visualization.training import POINTS


def log(n=5, dead=True):
    table = pd.DataFrame({"step": range(n), "tokens": [1024 * (i + 1) for i in range(n)],
                          "loss": [100 / (i + 1) for i in range(n)], "l0": [16.0] * n,
                          "ev": [1 - 0.5 / (i + 1) for i in range(n)]})
    return table.assign(dead=[0.25] * n) if dead else table


def sweep():
    rows = [{"architecture": a, "k": k, "seed": s, "l0": k + s * 0.5, "explained_variance": 0.5 + k / 100 + s / 1000,
             "delta_ce": 0.5 - k / 100 - s / 1000}
            for a, k, s in itertools.product(["topk", "<relu>"], [32, 8, 16], [0, 1, 2])]
    return pd.DataFrame(rows)


def turned():
    rows = [{"knob": knob, "value": value, "seed": seed, "explained_variance": 0.8 + value / 100 + seed / 1000,
             "dead": 0.1 * seed}
            for knob, values in {"lr": [0.001, 0.004], "width": [4, 8, 16]}.items() for value in values
            for seed in (0, 1, 2)]
    return pd.DataFrame(rows)


FIGURES = {
    "training_curves": lambda: visualization.training_curves({"a <b>": log(), "c": log(dead=False)}),
    "training_curves of one run": lambda: visualization.training_curves(log(400), log_x=True),
    "pareto": lambda: visualization.pareto(sweep()),
    "knobs": lambda: visualization.knobs(turned(), {"lr": "learning rate", "width": "width (times d_in)"},
                                         {"explained_variance": "EV", "dead": "dead (%)"}, log_x=["lr"]),
    "recovery": lambda: visualization.recovery({"SAE": torch.eye(4), "<PCA>": torch.randn(4, 6)}),
    "matched_histogram": lambda: visualization.matched_histogram(
        {"two seeds": torch.tensor([0.9, 0.95, 0.2]), "chance": [0.3, 0.25, math.nan]}
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_describes_itself_and_leaves_the_background_to_the_page(name):
    layout = FIGURES[name]().layout
    assert len(layout.meta["alt"]) > 30 and "nan" not in layout.meta["alt"]
    assert layout.paper_bgcolor == layout.plot_bgcolor == "rgba(0,0,0,0)"
    assert layout.width is None and layout.height > 50


@pytest.mark.parametrize("name", FIGURES)
def test_figures_travel_as_short_numbers_and_valid_json(name):
    figure = FIGURES[name]()
    text = json.dumps(figure.to_plotly_json()["data"], default=list, allow_nan=False)
    assert "bdata" not in text
    assert max(map(len, re.findall(r"\d+\.\d+", text)), default=0) <= 8
    shown = str([(trace.name, trace.hovertemplate) for trace in figure.data])
    assert not re.search(r"<(b|relu|PCA)>", shown)  # names of runs are not HTML


@pytest.mark.parametrize("name", FIGURES)
def test_every_drawn_axis_is_named(name):
    figure = FIGURES[name]()
    if name == "knobs":  # a knob's name stands below its row once
        assert {a.title.text for a in figure.select_xaxes()} == {"learning rate", "width (times d_in)", None}
    else:
        assert all(axis.title.text for axis in figure.select_xaxes())
    if name != "recovery":  # panels side by side share the name of their rows
        assert all(axis.title.text for axis in figure.select_yaxes())


def test_a_run_has_a_panel_for_each_measure_and_dead_latents_in_per_cent():
    figure = FIGURES["training_curves"]()
    assert len(figure.data) == 4 + 3  # the second log has no dead latents
    titles = [axis.title.text for axis in figure.select_yaxes()]
    assert titles == list(visualization.training.WATCHED.values())
    assert list(figure.data[-1].y) == [25] * 5
    assert [t.showlegend for t in figure.data] == [True, True] + [False] * 5
    assert "c, L0 (latents per token): from 16 to 16" in figure.layout.meta["alt"]


def test_a_long_run_is_drawn_with_few_points_and_both_ends():
    figure = FIGURES["training_curves of one run"]()
    xs = figure.data[0].x
    assert len(xs) <= POINTS and (xs[0], xs[-1]) == (1024, 409_600) and figure.layout.xaxis.type == "log"
    assert figure.layout.showlegend is False
    early = sum(x < 41_000 for x in xs)
    assert early > len(xs) / 4  # the beginning is stretched


def test_gaps_in_a_log_are_left_out():
    table = log()
    table.loc[1, "loss"] = math.nan
    figure = visualization.training_curves(table, {"loss": "loss (units)"})
    assert len(figure.data[0].x) == 4


def test_a_point_of_the_pareto_plot_is_the_mean_of_its_seeds_and_its_bars_end_at_the_extremes():
    figure = FIGURES["pareto"]()
    first = figure.data[0]
    assert list(first.x) == [8.5, 16.5, 32.5]  # in order of sparsity, not of the table
    assert list(first.error_x.array) == list(first.error_x.arrayminus) == [0.5] * 3
    assert first.y[0] == pytest.approx(0.581) and list(first.error_y.array) == [0.001] * 3
    assert len(figure.data) == 4 and figure.data[2].name == "&lt;relu&gt;" or figure.data[1].name == "&lt;relu&gt;"
    assert figure.data[0].customdata[0] == "k 8"
    assert list(figure.layout.xaxis.tickvals) == [8, 16, 32, 64]


def test_pareto_compares_whatever_it_is_told_to():
    figure = visualization.pareto(sweep(), group="seed", knob="k", x="l0", measures={"delta_ce": "cost (nats)"},
                                  log_x=False)
    assert len(figure.data) == 3 and figure.layout.xaxis.type == "linear"


def test_knobs_share_a_scale_and_stand_in_rows():
    figure = FIGURES["knobs"]()
    assert len(figure.data) == 4
    assert list(figure.data[1].y) == [10, 10] and list(figure.data[1].error_y.array) == [10, 10]  # per cent
    assert figure.layout.yaxis3.matches == "y" and figure.layout.yaxis4.matches == "y2"
    assert figure.layout.xaxis.type == "log" and figure.layout.xaxis3.type == "linear"
    assert list(figure.layout.xaxis3.tickvals) == [4, 16]
    assert list(figure.layout.xaxis.ticktext) == ["1e-3", "4e-3"]
    long = pd.DataFrame({"knob": "n", "value": [50_000, 1e5, 2e5, 4e5, 8e5], "ev": range(5)})
    axis = visualization.knobs(long, {"n": "tokens"}, {"ev": "EV"}, log_x=["n"]).layout.xaxis
    assert list(axis.ticktext) == ["50k", "800k"]
    assert "learning rate from 0.001 to 0.004: EV from 0.801" in figure.layout.meta["alt"]


def test_recovery_shows_nothing_for_opposite_directions_and_counts_the_diagonal():
    figure = visualization.recovery({"found": torch.tensor([[1.0, -1.0], [0.0, 0.5]])})
    assert list(figure.data[0].z[0]) == [1, 0]
    assert "0.75 on average, 1 of 2 above 0.9" in figure.layout.meta["alt"]
    assert [t.showscale for t in FIGURES["recovery"]().data] == [False, True]


def test_a_matched_histogram_adds_up_and_marks_the_threshold():
    figure = FIGURES["matched_histogram"]()
    for trace in figure.data:
        assert sum(trace.y) == pytest.approx(100, abs=0.5)
    assert figure.layout.shapes[0].x0 == 0.7 and figure.layout.xaxis.range[0] == 0
    assert "two seeds: mean 0.68, 67% at 0.7 or more" in figure.layout.meta["alt"]
    opposite = visualization.matched_histogram({"a": [-0.34, 1.0000001]})
    assert opposite.layout.xaxis.range[0] == -0.4 and sum(opposite.data[0].y) == pytest.approx(100, abs=0.5)


@pytest.mark.parametrize("make, message", [
    (lambda: visualization.training_curves({}), "at least one log"),
    (lambda: visualization.training_curves({"a": log().head(0)}), "at least one row"),
    (lambda: visualization.training_curves(log(), x="token"), "Did you mean 'tokens'"),
    (lambda: visualization.training_curves(log(), {"losses": "loss"}), "Did you mean 'loss'"),
    (lambda: visualization.pareto(sweep(), knob="K1"), "unknown column 'K1'"),
    (lambda: visualization.pareto(sweep().drop(columns=["explained_variance", "delta_ce"])), "at least one measure"),
    (lambda: visualization.pareto(sweep().assign(l0=0.0)), "Use log_x=False"),
    (lambda: visualization.knobs(turned(), {"seed": "seed"}, {"dead": "dead (%)"}), "Knobs: lr, width"),
    (lambda: visualization.knobs(turned(), {"lr": "lr"}, {}), "one to four measures"),
    (lambda: visualization.recovery({}), "at least one name"),
    (lambda: visualization.recovery({"a": torch.ones(3)}), "expected a matrix"),
    (lambda: visualization.matched_histogram({}), "at least one group"),
    (lambda: visualization.matched_histogram({"a": [math.nan]}), "at least one finite value"),
])
def test_odd_input_is_named(make, message):
    with pytest.raises(InputError, match=message):
        make()
