"""Sphinx extension: a glossary term shows its definition under the pointer, and on keyboard focus.

`{term}` makes a link into the glossary. The definitions are collected from the glossary page when the site is built and
written to `_static/terms.js`, so that no page has to fetch anything, also when it is opened straight from the disk.
"""

import json
from pathlib import Path

from docutils import nodes
from sphinx import addnodes

LONGEST = 420  # characters shown in the tooltip; the glossary has the rest


def definitions(doctree: nodes.document) -> dict[str, str]:
    """Anchor -> first paragraph, as plain text, for every term of every glossary in `doctree`."""
    found = {}
    for glossary in doctree.findall(addnodes.glossary):
        for item in glossary.findall(nodes.definition_list_item):
            paragraph = next(item.findall(nodes.paragraph), None)
            if paragraph is None:
                continue
            text = " ".join(paragraph.astext().split())
            if len(text) > LONGEST:
                text = text[:LONGEST].rsplit(" ", 1)[0] + " …"
            for term in item.findall(nodes.term):
                found.update(dict.fromkeys(term["ids"], text))
    return found


def write_terms(app, exception):
    if exception or app.builder.format != "html":
        return
    terms = {}
    for docname in sorted(app.env.found_docs):
        if "glossary" in docname:
            terms.update(definitions(app.env.get_doctree(docname)))
    target = Path(app.outdir, "_static", "terms.js")
    target.write_text(f"window.glossaryTerms = {json.dumps(terms, ensure_ascii=False, indent=0)};\n", "utf8")


def add_scripts(app, pagename, templatename, context, doctree):
    if 'class="xref std std-term"' in context.get("body", ""):
        app.add_js_file("terms.js", loading_method="defer", priority=800)
        app.add_js_file("hover.js", loading_method="defer", priority=801)


def setup(app):
    app.connect("html-page-context", add_scripts)
    app.connect("build-finished", write_terms)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
