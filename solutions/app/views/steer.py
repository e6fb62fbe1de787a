"""Push a latent while the model writes, and see what it writes: beside the model as it is, and beside a control."""

from __future__ import annotations

import math

import pandas as pd
import streamlit as st

from solutions.app import address, pieces, words
from solutions.app.room import Room
from solutions.app.views.view import Desk, View, latent_field, latent_limit
from solutions.errors import InputError
from solutions.visualization.shaded import text_html, token_code

PROMPT = "This morning"
LONGEST = 2000  # characters of a prompt; a model's context is shorter
STRONGEST = 3.0
#: Rows of `compare_steering`: heading and what it is.
RUNS = {
    "unsteered": ("As it is", "The model without any push, with the same dice."),
    "steered": ("Steered", "The latent's direction is added at every token but the first, BOS."),
    "random direction": ("A random direction", "The control: a push of the same length in a random direction."),
}


def show(desk: Desk) -> None:
    """What to push, how hard, and how to write; then the three texts."""
    room = desk.room()
    desk.choose("latent", room.strong_writer)
    st.text_input("Prompt", key=desk.key("prompt"), help="How the text begins.")
    left, right = st.columns(2, gap="large")
    with left:
        st.number_input("Latent", 0, latent_limit(), key=desk.key("latent"), step=1)
        words.say(room.name(desk.value("latent")))
        st.slider("Strength", -STRONGEST, STRONGEST, key=desk.key("strength"), step=0.1,
                  help="In units of the latent's own maximum: 1 adds as much as its strongest activation ever did.")
    with right:
        st.slider("New tokens", 5, 60, key=desk.key("tokens"))
        st.slider("Temperature", 0.0, 1.5, key=desk.key("temperature"), step=0.1,
                  help="0 always takes the likeliest token.")
        st.number_input("Seed", 0, 9999, key=desk.key("seed"), step=1, help="Of the dice and of the random direction.")
    with words.guarded():
        answer(desk, room)
    desk.link("features", "More about this latent", latent=desk.value("latent"))


def answer(desk: Desk, room: Room) -> None:
    """The three texts, side by side, and what was measured of each."""
    prompt = desk.value("prompt").encode("utf-8", "replace").decode()
    if len(prompt) > LONGEST:
        raise InputError(f"the prompt has {len(prompt):,} characters; at most {LONGEST:,} are read. Shorten it.")
    with st.spinner("The model writes three texts …"):
        table = room.steer(prompt, desk.value("latent"), desk.value("strength"), desk.value("tokens"),
                           desk.value("temperature"), desk.value("seed"))
    for column, (run, (heading, what)) in zip(st.columns(3), RUNS.items(), strict=True):
        with column:
            pieces.piece(said(table.loc[run], prompt, heading, what, run == "steered"))
    tokens = ", ".join(token_code(token) for token in table.attrs["promoted"])
    pieces.piece(f'<p class="ms-muted">The tokens that the push promotes directly: {tokens}. {HOW_TO_READ}</p>')


def said(row: pd.Series, prompt: str, heading: str, what: str, here: bool) -> str:
    """One of the texts as HTML."""
    after = row["text"].removeprefix(prompt)
    loss = "none: the model ended the text at once" if math.isnan(row["loss"]) else f"{row['loss']:.2f} nats per token"
    facts = {"Loss, unsteered model": loss, "Promoted tokens": f"{row['promoted']:.1%}"}
    cells = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items())
    place = " ms-app-here" if here else ""
    return (f'<h2 class="ms-part">{heading}</h2><p class="ms-muted">{what}</p><div class="ms-app-said{place}">'
            f'<span class="ms-app-prompt">{text_html(prompt)}</span>{text_html(after)}</div>'
            f'<dl class="ms-facts">{cells}</dl>')


HOW_TO_READ = (
    "Their probability is taken together, as a mean over the tokens of the prompt. The loss says what the unsteered "
    "model thinks of the continuation: the damage. A push counts as steering when its text changes as the latent's "
    "name says, and the random direction's does not."
)

VIEW = View("steer", "Steer", ":material/tune:",
            (address.text_field("prompt", PROMPT), latent_field(),
             address.number_field("strength", 0.5, -STRONGEST, STRONGEST), address.number_field("tokens", 20, 5, 60),
             address.number_field("temperature", 0.7, 0.0, 1.5), address.number_field("seed", 0, 0, 9999)), show)
