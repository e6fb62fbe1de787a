"""Cards: what a check shows, as HTML in a notebook and as text everywhere else.

The state is always a word, never a colour alone, and text keeps the page's own colour, so that a card reads
the same in light and dark themes and to a screen reader.
"""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Sequence

from labs.checks.exercise import Verdict

# Okabe-Ito colours: told apart by colour-blind readers
GREEN, ORANGE, BLUE = "#009E73", "#D55E00", "#0072B2"
HEADLINES = {
    "right": ("Right", GREEN),
    "todo": ("Not yet done", BLUE),
    "raised": ("It stopped with an error", ORANGE),
    "known": ("Not yet: this is a known slip", ORANGE),
    "form": ("Not yet: the form of the answer", ORANGE),
    "wrong": ("Not yet", ORANGE),
}


def inline(text: str) -> str:
    """Escape text for HTML, with `backticks` as code and *stars* as emphasis."""
    parts = html.escape(text, quote=False).split("`")
    for i, part in enumerate(parts):
        closed = i % 2 and i < len(parts) - 1
        parts[i] = f"<code>{part}</code>" if closed else re.sub(r"\*(\w[^*]*)\*", r"<em>\1</em>", part)
    return "".join(parts)


def card_html(
    title: str, colour: str, paragraphs: Sequence[str], lines: Sequence[str] = (), extra: str = ""
) -> str:
    """A card as HTML. `extra` is trusted HTML of our own."""
    body = "".join(f'<p style="margin:0.3em 0 0">{inline(text)}</p>' for text in paragraphs if text)
    code = (
        f'<pre style="margin:0.4em 0 0;white-space:pre-wrap">{html.escape(chr(10).join(lines))}</pre>'
        if lines
        else ""
    )
    style = f"border-left:0.4em solid {colour};padding:0.4em 0.8em;max-width:46em;line-height:1.5"
    return f'<div role="status" style="{style}"><strong>{inline(title)}</strong>{code}{body}{extra}</div>'


def card_text(title: str, paragraphs: Sequence[str], lines: Sequence[str] = ()) -> str:
    """The same card as text."""
    wrapped = [
        textwrap.fill(text, 96, initial_indent="  ", subsequent_indent="  ") for text in paragraphs if text
    ]
    return "\n".join([title, *("  " + line for line in lines), *wrapped])


def show(
    title: str, colour: str, paragraphs: Sequence[str], lines: Sequence[str] = (), extra: str = ""
) -> None:
    """Display a card: HTML where a notebook is listening, printed text otherwise."""
    put(card_html(title, colour, paragraphs, lines, extra), card_text(title, paragraphs, lines))


def put(as_html: str, as_text: str) -> None:
    """Display HTML where a notebook is listening, and print the text otherwise."""
    shell = _shell()
    if shell is None or not hasattr(shell, "kernel"):
        print(as_text)
        return
    from IPython.display import display

    display({"text/html": as_html, "text/plain": as_text}, raw=True)


def show_verdict(verdict: Verdict) -> None:
    """Display the verdict of one check."""
    word, colour = HEADLINES[verdict.status]
    message = f"What you just saw: {verdict.message}" if verdict.right else verdict.message
    show(f"{verdict.number} `{verdict.name}` · {word}", colour, message.split("\n"), verdict.lines)


def _shell():
    """The running IPython shell, or None. IPython is not imported where it is not already in use."""
    import sys

    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython else None
