"""Type a text: its tokens, shaded, the latents that stand out in it, and what each of them is."""

from __future__ import annotations

import streamlit as st

from solutions.app import address, pieces, words
from solutions.app.room import Room
from solutions.app.views.view import Desk, View, latent_field
from solutions.visualization import passage_heatmap

TEXT = "The Eiffel Tower is in Paris. Je mange du fromage."
ORDERS = {"surprise": "what stands out", "activation": "activation", "of_maximum": "share of its maximum"}
LISTED = 12


def show(desk: Desk) -> None:
    """The text and the order of its latents; then what the SAE sees."""
    with st.form("text", border=False):
        st.text_area("Text", key=desk.key("text"), height=120,
                     help="Anything. What is longer than the model's context is cut off.")
        st.form_submit_button("Read", type="primary")
    st.segmented_control("Order latents by", list(ORDERS), format_func=ORDERS.get, key=desk.key("by"), required=True)
    if address.too_long(desk.value("text")):
        words.say("This text is too long to be part of the address.")
    room = desk.room()
    with words.guarded():
        answer(desk, room)


def answer(desk: Desk, room: Room) -> None:
    """The latents of the text, and the one that is chosen."""
    reading = room.read(desk.value("text"))
    table = room.index.top_of_text(reading.features, LISTED, desk.value("by"))
    table = table[table["activation"] > 0].set_index("latent")
    if table.empty:
        words.say("No latent is active anywhere in this text.")
        return

    def said(latent: int) -> tuple[str, str]:
        row = table.loc[latent]
        below = (f"{row['activation']:.2f} on {words.token(reading.words[int(row['token'])])}, "
                 f"{row['of_maximum']:.0%} of its maximum; active on {row['density']:.2%} of all tokens")
        return f"**{latent}** · {words.markdown(room.name(latent))}", below

    latents = table.index.tolist()
    desk.choose("latent", latents[0])
    left, right = st.columns([2, 3], gap="large")
    with left:
        latent = pieces.latent_choice(desk.key("latent"), "Latents in this text", latents, said)
    with right:
        pieces.shaded(reading, latent, float(room.maxima[latent]), f"Latent {latent} on your text")
        if st.toggle("All of them at once", key=desk.key("map")):
            names = {j: room.name(j) for j in latents}
            plot = passage_heatmap(reading.features, reading.words, latents, maxima=room.maxima, names=names)
            pieces.figure(plot, "passage")
        desk.link("features", "More about this latent", latent=latent)
        desk.link("steer", "Steer with this latent", latent=latent)
    pieces.latent_page(room, latent)


VIEW = View("read", "Read a text", ":material/text_fields:",
            (address.text_field("text", TEXT), address.choice_field("by", list(ORDERS)), latent_field(),
             address.switch_field("map")), show)
