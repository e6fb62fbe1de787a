"""Two texts: which latents tell them apart, by how much, and where."""

from __future__ import annotations

import streamlit as st

from solutions.analysis.reading import Reading
from solutions.app import address, pieces, words
from solutions.app.room import Room
from solutions.app.views.view import Desk, View, latent_field
from solutions.errors import InputError

TEXTS = {"a": "The Eiffel Tower is in Paris.", "b": "The Colosseum is in Rome."}
NAMES = {"a": "First text", "b": "Second text"}
LISTED = 12


def show(desk: Desk) -> None:
    """The two texts, then what differs."""
    with st.form("texts", border=False):
        for column, name in zip(st.columns(2), TEXTS, strict=True):
            column.text_area(NAMES[name], key=desk.key(name), height=100)
        st.form_submit_button("Compare", type="primary")
    if any(address.too_long(desk.value(name)) for name in TEXTS):
        words.say("A text is too long to be part of the address.")
    room = desk.room()
    with words.guarded():
        answer(desk, room)


def answer(desk: Desk, room: Room) -> None:
    """The latents that differ most, and both texts by one of them, on one scale."""
    readings = {name: read_named(room, desk, name) for name in TEXTS}
    first, second = readings.values()
    table = room.index.compare(first.features, second.features, LISTED)
    table = table[table["difference"] != 0].set_index("latent")
    if table.empty:
        words.say("No latent tells these two texts apart.")
        return

    def said(latent: int) -> tuple[str, str]:
        row = table.loc[latent]
        below = f"{row['first']:.2f} against {row['second']:.2f}, {abs(row['of_maximum']):.0%} of its maximum apart"
        return f"**{latent}** · {words.markdown(room.name(latent))}", below

    latents = table.index.tolist()
    desk.choose("latent", latents[0])
    left, right = st.columns([2, 3], gap="large")
    with left:
        latent = pieces.latent_choice(desk.key("latent"), "Latents that differ most", latents, said)
    with right:
        largest = max(float(reading.features[:, latent].max()) for reading in readings.values())
        for name, reading in readings.items():
            pieces.shaded(reading, latent, largest, f"Latent {latent} on the {NAMES[name].lower()}")
        desk.link("features", "More about this latent", latent=latent)
    pieces.latent_page(room, latent)


def read_named(room: Room, desk: Desk, name: str) -> Reading:
    """One of the texts; an error says which it was."""
    try:
        return room.read(desk.value(name))
    except InputError as error:
        raise InputError(f"{NAMES[name]}: {error}") from error


VIEW = View("compare", "Compare two texts", ":material/compare_arrows:",
            (*(address.text_field(name, text) for name, text in TEXTS.items()), latent_field()), show)
