"""Sphinx extension: interactive Plotly figures from one local script, drawn when they scroll into view.

Plotly's notebook output is a JSON description of the figure. myst-nb does not know that MIME type and would drop it;
Plotly's own HTML output would put 5 MB of script, or a request to a CDN, into every page. Here the JSON goes into the
page as it is, `figures.js` draws it, and `plotly.min.js` is copied once from the installed plotly package.

Each figure gets a name for screen readers: `layout.meta.alt` when the author wrote one, else the figure's title. A
figure with neither is a warning, which `make book` treats as an error.
"""

import html
import json
import re
import shutil
from pathlib import Path

import plotly
from docutils import nodes
from myst_nb.core import render
from sphinx.util import logging

MIME = "application/vnd.plotly.v1+json"
DEFAULT_HEIGHT = 450  # pixels, what Plotly itself uses
logger = logging.getLogger(__name__)


def figure_name(figure: dict) -> str:
    """The text a screen reader says for `figure`, or "" when its author gave it neither alt text nor title."""
    layout = figure.get("layout", {})
    meta, title = layout.get("meta"), layout.get("title")
    alt = meta.get("alt") if isinstance(meta, dict) else None
    text = alt or (title.get("text") if isinstance(title, dict) else title) or ""
    return " ".join(re.sub(r"<[^>]+>", " ", text).split())


class PlotlyRenderer:
    """The interface myst-nb expects of a MIME renderer."""

    mime_priority_overrides = [("*", MIME, 1)]

    @staticmethod
    def handle_mime(renderer, data, inline):
        if inline or data.mime_type != MIME:
            return None
        name = figure_name(data.content)
        if not name:
            where = (renderer.document["source"], data.line)
            logger.warning("figure without a title or layout.meta.alt: say what it shows", location=where)
        height = data.content.get("layout", {}).get("height", DEFAULT_HEIGHT)
        # "</" would end the script element early.
        description = json.dumps(data.content, separators=(",", ":")).replace("</", "<\\/")
        return [
            nodes.raw(
                "",
                f'<div class="plotly-figure" role="figure" aria-label="{html.escape(name)}"'
                f' style="min-height: {height}px">'
                f'<script type="{MIME}">{description}</script>'
                "<noscript>This figure needs JavaScript.</noscript></div>",
                format="html",
            )
        ]


# myst-nb finds renderers through entry points of installed packages. This one belongs to the book, not to a package.
_installed = render.load_mime_renders
render.load_mime_renders = lambda: [*_installed(), PlotlyRenderer]


def add_scripts(app, pagename, templatename, context, doctree):
    if "plotly-figure" in context.get("body", ""):
        app.add_js_file("plotly.min.js", loading_method="defer", priority=800)
        app.add_js_file("figures.js", loading_method="defer", priority=801)


def copy_plotly(app):
    source = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    target = Path(app.outdir, "_static", "plotly.min.js")
    if not target.exists() or target.stat().st_size != source.stat().st_size:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def setup(app):
    app.connect("html-page-context", add_scripts)
    app.connect("builder-inited", copy_plotly)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
