"""The app's frame, which Streamlit runs for every visitor and on every change: target, menu, page."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import streamlit as st

from solutions.app import address, pieces, words
from solutions.app.opening import known_targets
from solutions.app.views import VIEWS
from solutions.app.views.view import TARGET, Desk, View

#: Three tokens, one of them shaded. Drawn here: for an icon of its own Streamlit would ask another host.
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="3" fill="#0B5CAD"/>'
    '<rect x="2" y="6" width="3" height="4" fill="#FFF"/><rect x="6" y="5" width="4" height="6" fill="#E69F00"/>'
    '<rect x="11" y="6" width="3" height="4" fill="#FFF"/></svg>'
)
ABOUT = "The address of every page says what it shows: pass it on, and others see the same."


def main() -> None:
    """Show the page that the address asks for."""
    st.set_page_config("Monosemantic", page_icon=ICON, layout="wide")
    pages: dict[str, Any] = {}
    for view in VIEWS.values():
        pages[view.name] = st.Page(partial(show, view, pages), title=view.title, icon=view.icon, url_path=view.name,
                                   default=not pages)
    st.navigation(list(pages.values())).run()


def show(view: View, pages: Mapping[str, Any]) -> None:
    """One page: its values from the address, the target beside it, what it shows, and the address again."""
    targets = known_targets()
    fields = (address.choice_field(TARGET, list(targets), shared=True), *view.fields)
    complaints = address.arrive(view.name, fields)
    address.leave(view.name, fields)  # now, too: what follows may take long, or be stopped
    pieces.show_style()
    st.title(view.title)
    for complaint in complaints:
        words.say(complaint, "alert")
    with st.sidebar:
        name = st.selectbox("Target", list(targets), key=TARGET, help="The model and the SAE that are studied.")
        words.say(targets[name].description)
        words.say(ABOUT)
    view.show(Desk(view, targets[name], pages))
    address.leave(view.name, fields)


if __name__ == "__main__":
    main()
