"""The explorers, side by side."""

from __future__ import annotations

import ipywidgets as widgets

from labs.explorer.compare import compare_explorer
from labs.explorer.feature import feature_explorer
from labs.explorer.text import text_explorer


def workbench(model, sae, target, index, concepts=None) -> widgets.Tab:
    """Three tabs: read a text, look at a latent, compare two texts. Arguments are those of the three explorers."""
    parts = {
        "Read a text": text_explorer(model, sae, target, index, concepts),
        "Look at a latent": feature_explorer(model, sae, target, index, concepts),
        "Compare two texts": compare_explorer(model, sae, target, index, concepts),
    }
    return widgets.Tab(children=list(parts.values()), titles=list(parts))
