"""What visitors are told: errors as sentences, and text from anywhere as something that is safe to show."""

from __future__ import annotations

import html
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from solutions.errors import CourseError
from solutions.visualization import printable, visible

LOG = logging.getLogger("solutions.app")
#: An absolute path of this machine: two names or more, each after a slash.
PATH = re.compile(r"(?<![\w/.])(?:[A-Za-z]:)?(?:[/\\][\w.@+~-]+)+[/\\]([\w.@+~-]+)")


def markdown(text: str) -> str:
    """Any text for a label, in which Streamlit reads Markdown: it can be no link, no picture and no formula."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", printable(text))


def token(word: str, most: int = 30) -> str:
    """A token in a label."""
    shown = visible(word)
    return markdown(f"“{shown[:most]}{'…' if len(shown) > most else ''}”")


#: What a message tells somebody at a keyboard with Python, and what one does in the app instead.
IN_THE_APP = {
    r"\n +it goes to .*": "",
    r"get_target\('smallworld'\)": "choose it in the side bar.",
    r"this session began on the embedded target, which works offline \(set \w+=(\S+) before .* to go online\)":
        r"the app was started on the embedded target, which works offline (start it with --target \1 to go online)",
}


def for_visitors(text: str) -> str:
    """A message as the app tells it: without folders of this machine, and without Python."""
    for python, here in IN_THE_APP.items():
        text = re.sub(python, here, text)
    return pathless(text)


def pathless(text: str) -> str:
    """A message without the folders of this machine: only the last name of a path is left."""
    return PATH.sub(r"\1", text)


def say(text: str, kind: str = "status") -> None:
    """Show a sentence, or lines of them. kind: "status", or "alert" for what went wrong; a screen reader says both."""
    look = " ms-alert" if kind == "alert" else ""
    lines = "<br>".join(html.escape(printable(line)) for line in text.split("\n"))
    st.html(f'<div class="ms-page"><p role="{kind}" class="ms-muted{look}">{lines}</p></div>')


@contextmanager
def guarded() -> Iterator[None]:
    """Turn an error into a sentence; the rest of the page goes on."""
    try:
        yield
    except (CourseError, ValueError) as error:  # they say what to do: an empty text, say
        say(for_visitors(str(error) or type(error).__name__), "alert")
    except Exception:  # noqa: BLE001  whatever it was, the visitor sees no traceback
        LOG.exception("an answer failed")
        say("This did not work, and it is not your fault. Try another input; the terminal says more.", "alert")
