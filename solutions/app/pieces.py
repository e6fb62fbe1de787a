"""Parts of a page that several views show: a shaded text, a latent's page, a choice of latents."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import streamlit as st

from solutions.app.room import Room
from solutions.targets import neuronpedia_url
from solutions.visualization.page import page_parts
from solutions.visualization.page_style import scheme_style
from solutions.visualization.shaded import number, text_html, tokens_html

if TYPE_CHECKING:
    from solutions.analysis import FeaturePage
    from solutions.analysis.reading import Reading

#: What the app adds to the style of feature pages: it stands on Streamlit's own paper. Streamlit's
#: captions are too faint to read, and on a dark page the colour of buttons is a light one, which needs dark words.
STYLE = """<style>
.stHtml .ms-page{background:none;padding:0;max-width:none;font-family:inherit}
.ms-app-bars{display:flex;align-items:flex-end;gap:1px;height:9rem;max-width:34rem;
border-bottom:1px solid var(--ms-muted)}
.ms-app-bars>span{flex:1;background:var(--ms-neg);min-height:0}
.ms-app-ends{display:flex;justify-content:space-between;max-width:34rem}
.ms-app-said{white-space:pre-wrap;border-left:.25em solid var(--ms-line);padding:.2em .8em;margin:.3em 0}
.ms-app-said .ms-app-prompt{color:var(--ms-muted)}
.ms-app-said.ms-app-here{border-color:var(--ms-pos)}
.stApp [data-testid="stCaptionContainer"],.stApp [data-testid="stCaptionContainer"] *{
color:light-dark(#565E68,#A3ABB5);opacity:1}
button[kind^="primary"],button[kind^="primary"] *{color:light-dark(#FFFFFF,#14181E)}
</style>"""


def show_style() -> None:
    """Give the page its style; once, before anything else.

    Streamlit keeps what is nothing but style apart from the page, and for a moment the page would be there without it.
    """
    st.html(f"{scheme_style()}{STYLE}<span hidden></span>")


def piece(*parts: str) -> None:
    """Show HTML in the style of feature pages. Whatever comes from a text has been escaped."""
    st.html(f'<div class="ms-page">{"".join(parts)}</div>')


def shaded(reading: Reading, latent: int, maximum: float, title: str | None = None) -> None:
    """A text, shaded by one latent."""
    values = reading.features[:, latent].tolist()
    quiet = "" if any(values) else f" Latent {latent} is not active anywhere in this text."
    full = f"Full colour: {number(maximum)} SAE units. Not shaded: zero." if any(values) else ""
    heading = f"<h3 class='ms-part'>{text_html(title)}</h3>" if title else ""
    piece(heading, tokens_html(reading.words, values, maximum, breaks=True),
          f'<p class="ms-muted">{full}{quiet}{html.escape(reading.note)}</p>')


def latent_choice(key: str, label: str, latents: Sequence[int], say: Callable[[int], tuple[str, str]]) -> int:
    """A list of latents to choose from, with the arrow keys too; `say` gives a latent's label and what is below it."""
    said = {latent: say(latent) for latent in latents}
    if st.session_state.get(key) not in latents:
        st.session_state[key] = latents[0]
    return st.radio(label, latents, key=key, format_func=lambda latent: said[latent][0],
                    captions=[said[latent][1] for latent in latents])


def latent_page(room: Room, latent: int, go: Callable[[int], Any] | None = None, level: int = 2) -> None:
    """Everything about one latent. With `go`, the latents like it can be chosen."""
    page = room.page(latent)
    parts = page_parts(page, level=level + 1)
    note = f"{room.target.name} · {room.target.hook} · on {page.n_tokens:,} tokens"
    piece(f'<h{level} class="ms-name">Latent {latent}: {text_html(room.name(latent))}</h{level}>',
          f'<p class="ms-muted">{text_html(note)}</p>', parts["facts"], parts["concept"], parts["examples"])
    left, right = st.columns(2)
    with left:
        piece(parts["logits"] or '<p class="ms-muted">What it does to the logits is not known at this hook point.</p>')
    with right:
        piece(histogram(page, level + 1))
        _relatives("Neighbours", "decoder directions that point the same way; cosine", page.neighbours, latent, go)
        _relatives("Companions", "latents that fire on the same tokens; Jaccard index", page.companions, latent, go)
    if address := neuronpedia_url(room.target, latent):
        st.link_button("This latent on Neuronpedia", address)


def _relatives(name: str, what: str, pairs: Sequence[tuple[int, float]], latent: int, go: Callable | None) -> None:
    """Latents like this one: buttons where one can go to them, else a list."""
    if not pairs:
        return
    said = {int(other): f"{other} ({number(float(value))})" for other, value in pairs}
    if go is None:
        piece(f"<p><b>{name}</b> ({what}): {', '.join(said.values())}</p>")
        return
    key = f"{name} of {latent}"
    st.pills(f"{name}: {what}", list(said), format_func=said.get, key=key, wrap=True,
             on_change=lambda: st.session_state.get(key) is not None and go(st.session_state[key]))


def histogram(page: FeaturePage, level: int) -> str:
    """How strong the activations are, as bars and as a table."""
    if not page.counts:
        return ""
    tallest = max(page.counts) or 1
    rows = list(zip(page.edges[:-1], page.edges[1:], page.counts, strict=True))
    bars = "".join(f'<span style="height:{100 * n / tallest:.1f}%" title="{number(low)} to {number(high)}: {n:,.0f} '
                   f'tokens"></span>' for low, high, n in rows)
    table = "".join(f'<tr><th scope="row">{number(low)} to {number(high)}</th><td class="ms-number">{n:,.0f}</td></tr>'
                    for low, high, n in rows)
    return (f'<h{level} class="ms-part">How strong, how often</h{level}>'
            f'<div class="ms-app-bars" role="img" aria-label="Histogram of {page.n_active:,} active tokens, '
            f'{tallest:,.0f} in the fullest bar">{bars}</div>'
            f'<p class="ms-muted ms-app-ends"><span>0</span><span>activation, where active (SAE units)</span>'
            f"<span>{number(page.edges[-1])}</span></p>"
            '<details><summary>The histogram as a table</summary><table><thead><tr><th scope="col">activation</th>'
            f'<th scope="col" class="ms-number">tokens</th></tr></thead><tbody>{table}</tbody></table></details>')


def figure(plot: Any, key: str) -> None:
    """A figure as its function made it, and what it shows in words."""
    st.plotly_chart(plot, theme=None, key=key, config={"displayModeBar": False})
    said = text_html(plot.layout.meta["alt"])
    piece(f'<details><summary>The figure in words</summary><p class="ms-muted">{said}</p></details>')
