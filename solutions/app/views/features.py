"""All latents: look through them, search them, and read the whole page of one."""

from __future__ import annotations

import html
import random

import pandas as pd
import streamlit as st

from solutions.analysis.search import QueryError, Results
from solutions.analysis.search.parse import KINDS
from solutions.app import address, pieces, words
from solutions.app.room import Room
from solutions.app.views.view import Desk, View, latent_field
from solutions.visualization import printable

FOUND = 12       # latents that a search shows
LONGEST = 240    # characters of the evidence in a list
#: Columns of the table of all latents: heading and what it means.
COLUMNS = {
    "latent": ("latent", "Its number"),
    "concept": ("concept", "The concept that it follows best, chosen on train"),
    "f1": ("F1", "How well it follows that concept, on test: the harmonic mean of precision and recall"),
    "lookup_f1": ("F1 of lookup", "The same for a list of tokens, which reads no context: the baseline"),
    "density": ("density", "The share of tokens on which it is active"),
    "maximum": ("maximum", "Its strongest activation, in SAE units"),
    "tokens": ("tokens", "The tokens on which it is active more often than by chance"),
    "example": ("strongest in", "The text around its strongest activation"),
}
EXAMPLE_QUERY = 'token:" Paris" & density:<1%'


def show(desk: Desk) -> None:
    """The search, what it finds or all latents, and one latent's page."""
    room = desk.room()
    st.text_input("Search", key=desk.key("q"), placeholder=EXAMPLE_QUERY, on_change=lambda: desk.set("latent", -1),
                  help="Leave it empty to look through all latents.")
    with st.expander("What can be asked"):
        pieces.piece(HELP)
    results = None
    with words.guarded():
        results = asked(room, desk.value("q"))
    if results:
        desk.choose("latent", results.latents[0])
        found_latents(desk, room, results)
    else:
        desk.choose("latent", room.strong_writer)
        if not desk.value("q").strip():
            all_latents(desk, room)
    go_to(desk, room)
    latent = desk.value("latent")
    if results:
        why(results, latent)
    with words.guarded():
        pieces.latent_page(room, latent, go=lambda to: desk.set("latent", to))
    desk.link("steer", "Steer with this latent", latent=latent)


def asked(room: Room, query: str) -> Results | None:
    """What a query finds; None without one, or when it cannot be read, which is said."""
    if not query.strip():
        return None
    try:
        results = room.search(query, FOUND)
    except QueryError as error:
        words.say(error.reason, "alert")
        before, here, after = (html.escape(printable(error.source[part])) for part in (
            slice(error.start), slice(error.start, error.stop), slice(error.stop, None)))
        pieces.piece(f'<p><code>{before}<mark title="here">{here or "␣"}</mark>{after}</code></p>')
        return None
    words.say(results.heading)
    for note in results.notes:
        words.say(f"Note: {note}.")
    return results if results else None


def found_latents(desk: Desk, room: Room, results: Results) -> None:
    """The latents of a search, to choose from."""
    rows = results.table.set_index("latent")

    def below(latent: int) -> str:
        said = rows.loc[latent, "evidence"] or f"active on {rows.loc[latent, 'density']:.2%} of all tokens"
        return words.markdown(said[:LONGEST] + ("…" if len(said) > LONGEST else ""))

    here, latent = f"{desk.view.name}.found", desk.value("latent")
    st.session_state[here] = latent if latent in results.latents else None
    st.radio("Latents found, best first", results.latents, key=here, captions=[below(j) for j in results.latents],
             format_func=lambda j: f"**{j}** · score {rows.loc[j, 'score']:.2f} · {words.markdown(room.name(j))}",
             on_change=lambda: desk.set("latent", st.session_state[here]))


def all_latents(desk: Desk, room: Room) -> None:
    """The table of all latents; a row can be chosen."""
    here = f"{desk.view.name}.table"
    latents = in_order(room.latents)
    table = room.kept("table of latents", lambda: shown_table(latents))

    def chosen() -> None:
        if rows := st.session_state[here]["selection"]["rows"]:
            desk.set("latent", int(latents["latent"].iloc[rows[0]]))

    config = {heading: st.column_config.Column(help=note) for heading, note in COLUMNS.values()}
    st.dataframe(table, key=here, on_select=chosen, selection_mode="single-row", hide_index=True,
                 height=320, column_config=config)


def in_order(latents: pd.DataFrame) -> pd.DataFrame:
    """The latents, those that follow a concept best first; without concepts, the most active first."""
    return latents.sort_values(["f1" if "f1" in latents else "density", "latent"], ascending=[False, True])


def shown_table(latents: pd.DataFrame) -> pd.DataFrame:
    """The columns that one looks at first, rounded, their text made visible."""
    table = latents[[name for name in COLUMNS if name in latents]].copy()
    for name in table.columns:
        if pd.api.types.is_float_dtype(table[name]):
            table[name] = table[name].map(lambda x: float(f"{x:.3g}"))
        elif not pd.api.types.is_numeric_dtype(table[name]):
            table[name] = [printable(text) if isinstance(text, str) else "" for text in table[name]]
    return table.rename(columns={name: heading for name, (heading, _) in COLUMNS.items()})


def go_to(desk: Desk, room: Room) -> None:
    """A latent by its number, the ones beside it, or some other."""
    last = room.index.n_latents - 1
    alive = room.latents["latent"][room.latents["n_active"] > 0].tolist() or [0]

    def step(by: int) -> None:
        desk.set("latent", min(max(desk.value("latent") + by, 0), last))

    def some() -> None:
        draws = st.session_state["draws"] = st.session_state.get("draws", 0) + 1
        desk.set("latent", random.Random(draws).choice(alive))

    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.number_input("Latent", 0, last, key=desk.key("latent"), step=1, width=160)
        st.button("Previous", on_click=step, args=(-1,), disabled=desk.value("latent") <= 0)
        st.button("Next", on_click=step, args=(1,), disabled=desk.value("latent") >= last)
        st.button("Random", on_click=some, help="Some latent that is active somewhere")


def why(results: Results, latent: int) -> None:
    """Why a latent was found, in full, where the list has not said all of it."""
    rows = results.table[results.table["latent"] == latent]
    if len(rows) and len(rows["evidence"].iloc[0]) > LONGEST:
        pieces.piece(f"<p>{html.escape(printable(rows['evidence'].iloc[0]))}</p>")


HELP = "<table><tbody>" + "".join(
    f'<tr><th scope="row"><code>{html.escape(example)}</code></th><td>{html.escape(meaning)}</td></tr>'
    for _, example, meaning in KINDS.values()
) + ("</tbody></table><p>Join them with <code>&amp;</code>, <code>|</code>, <code>~</code> and brackets. A number "
     "behind <code>&gt;</code> sets a bar: <code>concept:city&gt;0.5</code>.</p>")

VIEW = View("features", "Look through the latents", ":material/search:",
            (address.text_field("q", ""), latent_field()), show)
