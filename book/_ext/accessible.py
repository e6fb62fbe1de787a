"""Sphinx extension: repairs in the finished HTML of what screen readers stumble over.

Sphinx writes a signature that needs several lines as a definition list without terms, and docutils gives references a
role that has been withdrawn. Both are plain mistakes to an assistive program, and neither can be configured away.
"""

import re

SIGNATURE_LINES = re.compile(r"<dl>\s*((?:<dd>.*?</dd>\s*)+)</dl>", re.DOTALL)


def as_spans(match: re.Match) -> str:
    lines = match[1].replace("<dd>", '<span class="sig-line">').replace("</dd>", "</span>")
    return f'<span class="sig-lines">{lines}</span>'


def repair(app, pagename, templatename, context, doctree):
    body = context.get("body")
    if body:
        body = body.replace('role="doc-biblioentry"', 'role="listitem"')
        context["body"] = SIGNATURE_LINES.sub(as_spans, body)


def setup(app):
    app.connect("html-page-context", repair)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
