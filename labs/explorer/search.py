"""Ask which latents are about something: a typed query, the latents it finds with their evidence, and one's page."""

from __future__ import annotations

import html

import ipywidgets as widgets

from labs.explorer.reading import LABEL, WIDE, Choice, check_index, message, page_html, shown_in
from solutions.analysis.reading import read_text
from solutions.analysis.search import QueryError, Results, search
from solutions.analysis.search.parse import KINDS
from solutions.errors import InputError
from solutions.visualization import printable

LONGEST = 160  # characters of a latent's evidence in the list


def search_explorer(
    model, sae, target, index, concepts=None, query: str = "", k: int = 20
) -> widgets.Widget:
    """A field for a query, the latents found, why each was found, and the page of the one that is chosen.

    Args:
        model, sae: a model and an SAE that belong together, on one device. They read the text of `text:` terms; None
            does when no such term will be asked.
        target: where the SAE sits.
        index: a `FeatureIndex` of the same SAE.
        concepts: a `ConceptTable`, for `concept:` terms.
        query: what to begin with, e.g. 'token:" Paris" & density:<1%'.
        k: how many latents to list.
    """
    if index is None:
        raise InputError("index: there is nothing to search without a FeatureIndex. Make one with build_index(...).")
    if sae is not None:
        check_index(index, sae, target)
    box = widgets.Text(value=query, placeholder='token:" Paris" & density:<1%', description="Search",
                       continuous_update=False, layout=dict(WIDE), style=dict(LABEL))
    button = widgets.Button(description="Search", tooltip="Search the index")
    status, page = widgets.HTML(), widgets.HTML()
    read = None if model is None or sae is None else (lambda text: read_text(model, sae, target, text)[:2])
    state: dict[str, Results | None] = {"results": None}

    def choose(latent: int) -> None:
        with shown_in(page):
            page.value = why_html(state["results"], latent) + page_html(index, concepts, target, latent)

    choice = Choice("Latents", choose)

    def ask(_change=None) -> None:
        state["results"] = None
        status.value = page.value = ""
        options = []
        with shown_in(status, page):
            if box.value.strip():
                options = asked(box.value)
            else:
                status.value = message("Type what to look for: the list above has every kind of question.", "status")
        choice.widget.layout.display = "" if options else "none"
        choice.fill(options)

    def asked(text: str) -> list[tuple[str, int]]:
        try:
            results = state["results"] = search(index, text, k, concepts=concepts, read=read)
        except QueryError as error:
            status.value = message(error.reason) + marked_html(error)
            return []
        status.value = message(results.heading, "status") + notes_html(results)
        return [(label(row), int(row.latent)) for row in results]

    box.observe(ask, names="value")
    button.on_click(ask)
    ask()
    row = widgets.HBox([box, button], layout={"flex_flow": "row wrap"})
    return widgets.VBox([row, widgets.HTML(HELP), status, choice.widget, page])


def label(row) -> str:
    """A latent in the list: its number, its score and the evidence."""
    said = printable(row.evidence) or f"active on {row.density:.2%} of all tokens"
    return f"{row.latent}: {row.score:.2f}, {said[:LONGEST]}{'…' if len(said) > LONGEST else ''}"


def why_html(results: Results | None, latent: int) -> str:
    """Why a latent was found, in full."""
    if results is None:
        return ""
    row = results.table[results.table["latent"] == latent].iloc[0]
    return (f'<p style="max-width:46em"><b>Latent {latent}</b>: {html.escape(printable(row["evidence"]))}<br>'
            f'strongest in: <code>{html.escape(printable(row["example"]))}</code></p>')


def marked_html(error: QueryError) -> str:
    """The query with the place that is wrong marked."""
    before, here, after = (html.escape(printable(error.source[part])) for part in (
        slice(error.start), slice(error.start, error.stop), slice(error.stop, None)))
    return (f'<pre style="white-space:pre-wrap">{before}<mark title="here">{here or "␣"}</mark>{after}</pre>')


def notes_html(results: Results) -> str:
    """What one has to know about how it was found."""
    return "".join(f"<p style='max-width:46em'>{html.escape(printable(note))}.</p>" for note in results.notes)


HELP = (
    '<details><summary>What can be asked</summary><table style="border-spacing:0.8em 0.1em;border-collapse:separate">'
    + "".join(
        f'<tr><td><code>{html.escape(example)}</code></td><td style="text-align:left">{html.escape(meaning)}</td></tr>'
        for _, example, meaning in KINDS.values()
    )
    + "</table><p>Join them with <code>&amp;</code>, <code>|</code>, <code>~</code> and brackets. A number behind "
    "<code>&gt;</code> sets a bar: <code>concept:city&gt;0.5</code>.</p></details>"
)
