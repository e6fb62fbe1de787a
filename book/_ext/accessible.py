"""Sphinx extension: repairs in the finished HTML of what screen readers stumble over.

Sphinx writes a signature that needs several lines as a definition list without terms, and the list of all modules with
lists between its items; docutils gives references a role that has been withdrawn. All are plain mistakes to an
assistive program, and none can be configured away.
"""

import re

SIGNATURE_LINES = re.compile(r"<dl>\s*((?:<dd>.*?</dd>\s*)+)</dl>", re.DOTALL)


def as_spans(match: re.Match) -> str:
    lines = match[1].replace("<dd>", '<span class="sig-line">').replace("</dd>", "</span>")
    return f'<span class="sig-lines">{lines}</span>'


def flat(body: str) -> str:
    """One list: the modules' names say by themselves which belongs to which."""
    body = re.sub(r"</li>\s*<ul>\s*<li>", "</li>\n<li>", body)
    return re.sub(r"</ul>\s*(?=<li>|</ul>)", "", body)


def repair(app, pagename, templatename, context, doctree):
    body = context.get("body")
    if body:
        body = body.replace('role="doc-biblioentry"', 'role="listitem"')
        if pagename == "_modules/index":
            body = flat(body)
        context["body"] = SIGNATURE_LINES.sub(as_spans, body)


def setup(app):
    app.connect("html-page-context", repair)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
