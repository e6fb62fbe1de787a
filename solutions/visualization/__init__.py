"""Figures of activations and features, as Plotly objects, and feature pages as HTML.

Every figure function takes plain numbers, tensors or tables, knows no model, and returns a `go.Figure` that a
notebook shows and a test can inspect. The background is transparent and lines are mid-grey, so a figure
sits on a light page and on a dark one. Colours follow Okabe and Ito's palette, which the colour-blind can
tell apart, at a lightness that shows on both. What a figure shows is also said in words, in
`figure.layout.meta["alt"]`. Values are rounded: a page of figures stays small.

Comparisons (`charts`, `curves`, `shares`, `panels`)::

    bars(values, x_title, title=None, highlight=(), digits=3)
    compare_dots(rows, x_title, title=None, x_range=None, bands=None)
          rows: name -> measure -> value; bands: name -> measure -> (low, high)
    histogram(groups, x_title, y_title="share (%)", n_bins=40, log_y=False, title=None)
    lines(series, x_title, y_title, x=None, bands=None, log_x=False, log_y=False, reference=None, y_range=None,
          title=None)
          series: name -> values; x: numbers or names; bands: name -> (low, high); reference: name -> level
    ranked(groups, y_title, x_title="rank", log_x=True, log_y=True, title=None)       sorted, largest first
    scatter(x, y, x_title, y_title, categories=None, hover=None, log_x=False, log_y=False, diagonal=False, title=None)
    paths(routes, x_title, y_title, stops=None, points=None, title=None)              routes: name -> (x, y)
    spectrum(spectra, dimensions=None, title=None)
          spectra: name -> eigenvalues; dimensions: name -> effective dimension
    density_histogram(groups, n_bins=40, title=None)  groups: name -> density of each latent; the silent ones apart
    stacked_bars(rows, x_title="share (%)", title=None)                 rows: name -> part -> count or share
    interval_purity(rows, intervals, y_title="share that fits the label (%)", counts=None, title=None)
          rows: name -> share from 0 to 1 for each interval; intervals: their names, strongest first
    dot_panels(table, rows="basis", measures=None, panels=None, highlight=(), controls=(), x_range=None, title=None)
          table: long; a panel for each measure (column -> axis), or for each value of `panels`

Matrices (`heatmaps`, `matrices`)::

    activation_heatmap(activations, tokens)   feature_heatmap(features, tokens)   compare_bases(bases, tokens)
    cosine_heatmap(cosines, names)
    heatmap(values, rows, columns, unit, x_title="", y_title="", diverging=False, write=True, title=None)
    confusion_matrix(counts, names, title=None)                        rows: what it is, columns: what was said

Passages (`passages`)::

    passage_heatmap(features, tokens, latents=None, n=24, order="clusters", maxima=None, names=None, ...)
          a row per latent, a column per token, in lines as print is; names: latent -> name
    passage_difference(first, second, latents=None, n=24, maxima=None, names=None, called=("first", "second"), ...)
          first, second: (tokens, features); aligned token by token

Networks, maps and families (`networks`, `lineage`, `flow`)::

    coactivation_graph(pairs, weight="lift", communities=None, names=None, most=200, seed=0, title=None)
          pairs: table with a, b and weight, or a networkx graph; communities: table with latent, community, label
    latent_map(table, colour=None, hover=(), highlight=(), x_title=..., y_title=..., title=None)
          table: latent, x, y and the columns named; a click on the site shows the latent in the page's table
    layer_flow(stages, layers, latents=None, names=None, least=0.4, most=8, title=None)
          stages: tables of earlier, later, correlation, cosine, one per step from a layer to the next
    splitting(stages, widths=("narrow", "wide"), latents=None, names=None, least=0.1, most=8, ...)
          stages: table with narrow, wide, share_of_narrow, or one for each step to a wider SAE
    family_tree(table, names=None, most=40, title=None)
          table: parent, child, p_parent_given_child, p_child_given_parent
    attribution_flow(nodes, edges, tokens, menu=16, title=None)
          nodes: kind, layer, position, name, value, influence; edges: source, target, weight

A table of latents (`browser`)::

    latent_browser(table, title="All latents", columns=None, hidden=(), notes=None, sort=None, link=None, ...)
          sorts, filters, turns pages and saves CSV by itself, in a notebook and on the site
    browser_html(table, ...) -> str    the same as one self-contained file      save_browser(table, path, ...)

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

from solutions.visualization.browser import browser_html, latent_browser, save_browser
from solutions.visualization.charts import bars, compare_dots, histogram, toy_directions
from solutions.visualization.curves import lines, paths, ranked, scatter, spectrum
from solutions.visualization.flow import attribution_flow
from solutions.visualization.gallery import gallery
from solutions.visualization.heatmaps import (
    activation_heatmap,
    compare_bases,
    cosine_heatmap,
    feature_heatmap,
)
from solutions.visualization.layers import layer_flow
from solutions.visualization.lineage import family_tree, splitting
from solutions.visualization.matrices import confusion_matrix, heatmap
from solutions.visualization.networks import coactivation_graph, latent_map
from solutions.visualization.page import (
    PageView,
    feature_page_html,
    save_page,
    show_page,
    show_pages,
)
from solutions.visualization.panels import dot_panels
from solutions.visualization.passages import passage_difference, passage_heatmap
from solutions.visualization.shaded import shaded_html
from solutions.visualization.shares import density_histogram, interval_purity, stacked_bars
from solutions.visualization.style import printable, visible
from solutions.visualization.text import dashboard, token_strip, token_strips
from solutions.visualization.training import knobs, matched_histogram, pareto, recovery, training_curves

__all__ = [
    "PageView",
    "activation_heatmap",
    "attribution_flow",
    "bars",
    "browser_html",
    "coactivation_graph",
    "compare_bases",
    "compare_dots",
    "confusion_matrix",
    "cosine_heatmap",
    "dashboard",
    "density_histogram",
    "dot_panels",
    "family_tree",
    "feature_heatmap",
    "feature_page_html",
    "gallery",
    "heatmap",
    "histogram",
    "interval_purity",
    "knobs",
    "latent_browser",
    "latent_map",
    "layer_flow",
    "lines",
    "matched_histogram",
    "pareto",
    "passage_difference",
    "passage_heatmap",
    "paths",
    "printable",
    "ranked",
    "recovery",
    "save_browser",
    "save_page",
    "scatter",
    "shaded_html",
    "show_page",
    "show_pages",
    "spectrum",
    "splitting",
    "stacked_bars",
    "token_strip",
    "token_strips",
    "toy_directions",
    "training_curves",
    "visible",
]
