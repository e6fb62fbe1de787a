"""What a page is, and what it is given."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import streamlit as st

from solutions.app import address, words
from solutions.app.address import Field
from solutions.app.launching import TEXTS, TEXTS_VARIABLE
from solutions.app.opening import known_targets, opening_of
from solutions.app.room import Room
from solutions.targets import Target

#: Seconds between two looks at how far a target is.
PAUSE = 0.3
#: The key of the widget that chooses the target.
TARGET = "target"


class View(NamedTuple):
    """One page of the app."""

    name: str                       # in the address
    title: str
    icon: str
    fields: Sequence[Field]         # what its address says, besides the target
    show: Callable[[Desk], None]


class Desk(NamedTuple):
    """What a page works with."""

    view: View
    target: Target
    pages: Mapping[str, Any]   # name to Streamlit's page, for links

    def room(self) -> Room:
        """The target, opened. Until it is, a bar says how far it is."""
        return room_of(self.target.name)

    def field(self, name: str) -> Field:
        """One of the page's fields."""
        return next(f for f in self.view.fields if f.name == name)

    def key(self, name: str) -> str:
        """The key of the widget of one of the page's fields."""
        return address.key(self.view.name, self.field(name))

    def value(self, name: str) -> Any:
        """What one of the page's fields says now."""
        return st.session_state[self.key(name)]

    def set(self, name: str, value: Any) -> None:
        """Change a field before its widget is made, or from a callback."""
        st.session_state[self.key(name)] = value

    def choose(self, name: str, value: Any) -> None:
        """Say what the page itself takes for a field that the visitor has left open."""
        address.own(self.view.name, self.field(name), value)

    def link(self, page: str, label: str, **query: Any) -> None:
        """A link to another page about something."""
        given = {name: str(value) for name, value in query.items()}
        if TARGET in st.query_params:
            given[TARGET] = st.query_params[TARGET]
        st.page_link(self.pages[page], label=label, query_params=given)


def latent_limit() -> int:
    """The largest number a latent of the chosen target can have."""
    return known_targets()[st.session_state[TARGET]].d_sae - 1


def latent_field() -> Field:
    """The latent that a page is about; -1 stands for the one that the page itself would choose."""
    return address.number_field("latent", -1, -1, latent_limit)


def room_of(name: str) -> Room:
    """A target's room; until it is there, a bar says what is being done. When nothing comes of it, the page ends."""
    n_texts = int(os.environ.get(TEXTS_VARIABLE) or TEXTS)
    opening, place = opening_of(name, n_texts), st.empty()
    while not opening.wait(PAUSE if opening.step else 0.01):
        text = f"Opening {opening.target.name}: {opening.step} … The first time takes longest."
        place.progress(min(opening.share, 1.0), text=words.markdown(text))
    place.empty()
    if opening.room is None:
        words.say(words.for_visitors(opening.error), "alert")
        st.button("Try again", on_click=lambda: opening_of.clear(name, n_texts))
        st.stop()
    return opening.room
