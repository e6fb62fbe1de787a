"""Figures of activations and features, as Plotly objects, and feature pages as HTML.

Every figure function takes plain numbers, tensors or tables, knows no model, and returns a `go.Figure` that a
notebook shows and a test can inspect. The background is transparent and lines are mid-grey, so a figure
sits on a light page and on a dark one. Colours follow Okabe and Ito's palette, which the colour-blind can
tell apart, at a lightness that shows on both. What a figure shows is also said in words, in
`figure.layout.meta["alt"]`. Values are rounded: a page of figures stays small.

Comparisons (`charts`, `curves`, `shares`)::

    bars(values, x_title, title=None, highlight=(), digits=3)
    compare_dots(rows, x_title, title=None, x_range=None)              rows: name -> measure -> value
    histogram(groups, x_title, y_title="share (%)", n_bins=40, log_y=False, title=None)
    lines(series, x_title, y_title, x=None, bands=None, log_x=False, log_y=False, reference=None, y_range=None,
          title=None)
          series: name -> values; x: numbers or names; bands: name -> (low, high); reference: name -> level
    ranked(groups, y_title, x_title="rank", log_x=True, log_y=True, title=None)       sorted, largest first
    scatter(x, y, x_title, y_title, categories=None, hover=None, log_x=False, log_y=False, diagonal=False, title=None)
    spectrum(spectra, dimensions=None, title=None)
          spectra: name -> eigenvalues; dimensions: name -> effective dimension
    density_histogram(groups, n_bins=40, title=None)  groups: name -> density of each latent; the silent ones apart
    stacked_bars(rows, x_title="share (%)", title=None)                 rows: name -> part -> count or share
    interval_purity(rows, intervals, y_title="share that fits the label (%)", counts=None, title=None)
          rows: name -> share from 0 to 1 for each interval; intervals: their names, strongest first

Matrices (`heatmaps`, `matrices`)::

    activation_heatmap(activations, tokens)   feature_heatmap(features, tokens)   compare_bases(bases, tokens)
    cosine_heatmap(cosines, names)
    heatmap(values, rows, columns, unit, x_title="", y_title="", diverging=False, write=True, title=None)
    confusion_matrix(counts, names, title=None)                        rows: what it is, columns: what was said

Training (`training`)::

    training_curves(logs, measures=None, x="tokens", x_title="tokens trained on", log_x=False, title=None)
          logs: name -> table with a row for each logged step (or one such table); a panel for each measure
    pareto(table, group="architecture", knob="k", x="l0", measures=None, ...)         seeds as bars
    knobs(table, turned, measures, knob="knob", value="value", log_x=(), title=None)
          turned: knob -> name of its axis; measures: column -> name; a row for each knob, seeds as bars
    recovery(panels, x_title="latent", y_title="true feature", title=None)             panels: name -> cosines
    matched_histogram(groups, at=0.7, ...)             groups: name -> cosines of matched latents

Text and features (`text`, `gallery`, `page`)::

    token_strip(tokens, values, title=None, unit="activation units")   token_strips(texts, ...)
    dashboard(page, title=None)                                        one feature page as a figure
    gallery(pages, names=None, title=None)                             several, with a menu that needs no Python
    feature_page_html(page, title=None, target_note=None, neuronpedia=None, ...) -> str   one self-contained file
    show_page(page, ...)   the same inside a notebook       save_page(page, path, ...)    the same as a file
    show_pages(pages, names=None, ...)                      several, folded, inside a notebook
    shaded_html(tokens, values, unit="SAE units", maximum=None)   one text, shaded, as HTML
    visible(token)   printable(text)                        a token, or any text, as one can see it
"""

from solutions.visualization.charts import bars, compare_dots, histogram, toy_directions
from solutions.visualization.curves import lines, ranked, scatter, spectrum
from solutions.visualization.gallery import gallery
from solutions.visualization.heatmaps import (
    activation_heatmap,
    compare_bases,
    cosine_heatmap,
    feature_heatmap,
)
from solutions.visualization.matrices import confusion_matrix, heatmap
from solutions.visualization.page import (
    PageView,
    feature_page_html,
    save_page,
    show_page,
    show_pages,
)
from solutions.visualization.shaded import shaded_html
from solutions.visualization.shares import density_histogram, interval_purity, stacked_bars
from solutions.visualization.style import printable, visible
from solutions.visualization.text import dashboard, token_strip, token_strips
from solutions.visualization.training import knobs, matched_histogram, pareto, recovery, training_curves

__all__ = [
    "PageView",
    "activation_heatmap",
    "bars",
    "compare_bases",
    "compare_dots",
    "confusion_matrix",
    "cosine_heatmap",
    "dashboard",
    "density_histogram",
    "feature_heatmap",
    "feature_page_html",
    "gallery",
    "heatmap",
    "histogram",
    "interval_purity",
    "knobs",
    "lines",
    "matched_histogram",
    "pareto",
    "printable",
    "ranked",
    "recovery",
    "save_page",
    "scatter",
    "shaded_html",
    "show_page",
    "show_pages",
    "spectrum",
    "stacked_bars",
    "token_strip",
    "token_strips",
    "toy_directions",
    "training_curves",
    "visible",
]
