"""Windows on a model and its SAE, for Jupyter. They compute when you type, so they need a running notebook.

`explorer` shows the strongest latents of every token. Three more make use of a feature index: `text_explorer` (a text,
its shading and the latents that stand out), `feature_explorer` (one latent, its page and your own text) and
`compare_explorer` (two texts, and which latents tell them apart). `workbench` puts the three side by side.
`search_explorer` asks the index which latents are about something: a token, a pattern, a concept, a text.
"""

from labs.explorer.compare import compare_explorer
from labs.explorer.feature import feature_explorer
from labs.explorer.search import search_explorer
from labs.explorer.table import explorer, features_table, visible
from labs.explorer.text import text_explorer
from labs.explorer.workbench import workbench
from solutions.analysis.reading import Reading, read_text

__all__ = [
    "Reading",
    "compare_explorer",
    "explorer",
    "feature_explorer",
    "features_table",
    "read_text",
    "search_explorer",
    "text_explorer",
    "visible",
    "workbench",
]
