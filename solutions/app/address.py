"""What a page shows, kept in its address: a link shows somebody else the same, and so does going back.

A page names its `Field`s. `arrive` puts what the address says into the session state before the page makes its widgets,
`leave` writes what they say now into the address. An address is typed by anybody, so every value is checked, and what
makes no sense is left out with a word about it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import streamlit as st

from solutions.errors import InputError

#: Characters of one value that an address may carry. Browsers and chat programs cut longer addresses off.
LONGEST = 1500
#: Where the session keeps what it needs from one run to the next.
PLACE, WRITTEN, MEMORY, OWN = "_place", "_written", "_memory", "_own"


class Field(NamedTuple):
    """One thing that a page's address says."""

    name: str                    # in the address
    default: Any
    read: Callable[[str], Any]   # from the address; InputError for nonsense
    fits: Callable[[Any], bool]  # whether a value may be shown: the widgets' limits
    shared: bool = False         # one value for all pages


def text_field(name: str, default: str) -> Field:
    """A text of any length; a long one is not written into the address."""
    return Field(name, default, lambda text: text, lambda value: isinstance(value, str))


def choice_field(name: str, choices: Sequence[str], shared: bool = False) -> Field:
    """One of several names, by default the first."""
    def read(text: str) -> str:
        if text not in choices:
            raise InputError(f"expected {', '.join(choices)}")
        return text

    return Field(name, choices[0], read, lambda value: value in choices, shared)


def switch_field(name: str) -> Field:
    """On or off; off by default."""
    return Field(name, False, lambda text: text == "True", lambda value: isinstance(value, bool))


def number_field(name: str, default: float, low: float, high: float | Callable[[], float]) -> Field:
    """A number from low to high, which may depend on fields before this one; a whole one if the default is."""
    whole = isinstance(default, int)

    def highest() -> float:
        return high() if callable(high) else high

    def read(text: str) -> float:
        try:
            value = int(text) if whole else float(text)
        except ValueError:
            value = None
        if not fits(value):
            raise InputError(f"expected {'a whole number' if whole else 'a number'} from {low:g} to {highest():g}")
        return value

    def fits(value: Any) -> bool:
        return isinstance(value, int | float) and low <= value <= highest()

    return Field(name, default, read, fits)


def key(page: str, field: Field) -> str:
    """The key of a field's widget: two pages may have a field of the same name."""
    return field.name if field.shared else f"{page}.{field.name}"


def arrive(page: str, fields: Sequence[Field]) -> list[str]:
    """Give a page's widgets their values: the address's when somebody has followed a link or gone back, those the page
    had when it was left, or the defaults. Returns what could not be understood, in words."""
    state, complaints = st.session_state, []
    given = {f.name: st.query_params[f.name] for f in fields if f.name in st.query_params}
    memory: dict[str, Any] = state.setdefault(MEMORY, {}).setdefault(page, {})
    moved = state.get(PLACE) != page
    followed = bool(given) or not memory if moved else given != state.get(WRITTEN) and not _touched(page, fields)
    for f in fields:  # in order: the limits of one may depend on those before it
        here = key(page, f)
        value = state.get(here, memory.get(f.name, f.default))
        if followed and f.name in given:
            try:
                value = f.read(given[f.name])
            except InputError as error:
                complaints.append(f"The address says {f.name}={given[f.name]!r:.60}: {error}. It is left out.")
                value = f.default
        elif followed and not (moved and f.shared):
            value = f.default
        elif moved and not f.shared:
            value = memory.get(f.name, f.default)
        if not f.fits(value):
            complaints.append(f"{f.name} was {value!r:.60}, which does not exist here; {f.default!r} is shown instead.")
            value = f.default
        if here not in state or state[here] != value:
            state[here] = value
    state[PLACE] = page
    return complaints


def _touched(page: str, fields: Sequence[Field]) -> bool:
    """Whether a widget has changed since the address was written: then the widget is right, and the address is old."""
    state = st.session_state
    memory = state[MEMORY][page]
    return any(key(page, f) in state and state[key(page, f)] != memory.get(f.name) for f in fields)


def leave(page: str, fields: Sequence[Field]) -> None:
    """Write what the page shows into its address; what is as always, and what is too long, is left out."""
    state = st.session_state
    values = {f.name: state.get(key(page, f), f.default) for f in fields}
    state[MEMORY][page] = values
    chosen = state.get(OWN, {})
    query = {f.name: _short(values[f.name]) for f in fields
             if values[f.name] not in (f.default, chosen.get(key(page, f), f.default))}
    query = {name: value for name, value in query.items() if len(value) <= LONGEST}
    if query != {name: st.query_params[name] for name in st.query_params}:
        st.query_params.from_dict(query)
    state[WRITTEN] = query


def own(page: str, field: Field, value: Any) -> None:
    """Say what the page itself takes for a field that the visitor has left open: the default, or what it took before.

    The address leaves it out. One that grew by itself would lead nowhere when one goes back.
    """
    here, chosen = key(page, field), st.session_state.setdefault(OWN, {})
    if st.session_state[here] in (field.default, chosen.get(here, field.default)):
        st.session_state[here] = value
    chosen[here] = value


def _short(value: Any) -> str:
    """A value as the address has it; half a surrogate pair cannot be part of one."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text.encode("utf-8", "replace").decode()


def too_long(value: str) -> bool:
    """Whether a text is left out of the address."""
    return len(value) > LONGEST
