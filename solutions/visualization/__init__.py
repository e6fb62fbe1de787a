"""Figures of activations and features, as Plotly objects.

Every function takes plain numbers, tensors or tables, knows no model, and returns a `go.Figure` that a
notebook shows and a test can inspect. The background is transparent and lines are mid-grey, so a figure
sits on a light page and on a dark one. Colours follow Okabe and Ito's palette, which the colour-blind can
tell apart, at a lightness that shows on both. What a figure shows is also said in words, in
`figure.layout.meta["alt"]`. Values are rounded: a page of figures stays small.
"""

from solutions.visualization.charts import bars, compare_dots, histogram, toy_directions
from solutions.visualization.heatmaps import (
    activation_heatmap,
    compare_bases,
    cosine_heatmap,
    feature_heatmap,
)
from solutions.visualization.style import visible
from solutions.visualization.text import dashboard, token_strip, token_strips

__all__ = [
    "activation_heatmap",
    "bars",
    "compare_bases",
    "compare_dots",
    "cosine_heatmap",
    "dashboard",
    "feature_heatmap",
    "histogram",
    "token_strip",
    "token_strips",
    "toy_directions",
    "visible",
]
