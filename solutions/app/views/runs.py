"""Training runs: the SAEs of chapter 4, every knob that was turned, and runs that went wrong."""

from __future__ import annotations

from functools import cache

import plotly.graph_objects as go
import streamlit as st

from solutions.analysis.sweeps import StoredRuns, stored_runs
from solutions.app import address, pieces, words
from solutions.app.views.view import Desk, View
from solutions.sae import failed_run
from solutions.sae.training.failures import COLUMNS, FAULTS, HEALTHY
from solutions.visualization import knobs, pareto, training_curves

SHOWN = {"kinds": "kinds of SAE", "knobs": "every knob", "failed": "runs that went wrong"}
MEASURES = {"ev": "explained variance", "delta_ce": "ΔCE (nats per token)", "concept_f1": "concept F1"}
KNOBS = {"lr": "learning rate", "n_tokens": "tokens trained on", "width": "width (× d_in)", "batch_size": "batch size"}

CURVES = {"reconstruction": "squared error", "l0_test": "L0 on test (per token)", "ev_test": "EV on test",
          "dead": "dead latents (%)"}


def show(desk: Desk) -> None:
    """Which runs, and their figures. No model is needed."""
    st.segmented_control("Show", list(SHOWN), format_func=SHOWN.get, key=desk.key("show"), required=True)
    with words.guarded():
        if desk.value("show") == "failed":
            failed(desk)
        else:
            stored(stored_runs(), desk.value("show"))


@cache
def plot_of(which: str) -> go.Figure:
    """The figure of a page, the same for everybody."""
    found = stored_runs()
    if which == "kinds":
        return pareto(found.sparsity(), knob="value", measures=MEASURES)
    measures = {"ev": "EV", "concept_f1": "concept F1", "dead": "dead (%)"}
    return knobs(found.knobs(), KNOBS, measures, log_x=tuple(KNOBS))


def stored(found: StoredRuns, which: str) -> None:
    """The stored sweep, as chapter 4 shows it, and its table."""
    about = found.about
    words.say(f"{len(found.table)} SAEs, trained on the target {about['target']} at {about['hook']}. Each point is the "
              "mean of three seeds, the bars reach from the lowest to the highest.")
    pieces.figure(plot_of(which), which)
    if which == "kinds":
        lines = ", ".join(f"{name}: {value:.2f}" for name, value in about["baselines"].items())
        words.say(f"Concept F1 without any SAE: {lines}.")
    table = found.sparsity() if which == "kinds" else found.knobs()
    st.dataframe(table, hide_index=True, height=280)


def failed(desk: Desk) -> None:
    """One run that went wrong beside the one that went right."""
    faults = [name for name in FAULTS if name != HEALTHY]
    name = st.selectbox("What was wrong", faults, key=desk.key("run"))
    words.say(FAULTS[name].says)
    pieces.figure(curves_of(name), "curves")
    st.dataframe(failed_run(name), hide_index=True, height=280,
                 column_config={column: st.column_config.Column(help=note) for column, note in COLUMNS.items()})


@cache
def curves_of(name: str) -> go.Figure:
    """The curves of a run that went wrong, beside those of the one that went right."""
    logs = {HEALTHY: failed_run(HEALTHY), name: failed_run(name)}
    return training_curves(logs, CURVES, x="step", x_title="steps done")


VIEW = View("runs", "Training runs", ":material/monitoring:",
            (address.choice_field("show", list(SHOWN)),
             address.choice_field("run", [name for name in FAULTS if name != HEALTHY])), show)
