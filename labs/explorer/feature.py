"""Choose a latent: its page, and your own text read by it."""

from __future__ import annotations

import random

import ipywidgets as widgets

from labs.explorer.reading import (
    LABEL,
    Choice,
    check_index,
    message,
    page_html,
    shown_in,
    strip_html,
    text_box,
)
from solutions.analysis.reading import read_text
from solutions.errors import InputError


def feature_explorer(
    model, sae, target, index, concepts=None, latent: int | None = None,
    text: str = "The Eiffel Tower is in Paris.", seed: int = 0,
) -> widgets.Widget:
    """A latent's page, chosen by number, at random or by a token it follows, and below it a text of your own.

    Args:
        model, sae: a model and an SAE that belong together, on one device.
        target: where the SAE sits.
        index: a `FeatureIndex` of the same SAE.
        concepts: a `ConceptTable`, to name the concept of each latent.
        latent: the first one shown; by default the one with the strongest activation.
        text: the text to begin with.
        seed: of the "random" button, which passes over latents that are never active.
    """
    if index is None:
        raise InputError("index: a latent's page is read from a FeatureIndex. Make one with build_index(...).")
    check_index(index, sae, target)
    alive = (index.density() > 0).nonzero().flatten().tolist()
    first = (int(index.maximum().argmax()) if alive else 0) if latent is None else latent
    if not 0 <= first < index.n_latents:
        raise InputError(f"latent: expected 0 to {index.n_latents - 1}, got {latent}.")
    draw = random.Random(seed)
    number = widgets.BoundedIntText(
        value=first, min=0, max=index.n_latents - 1, description="Latent", continuous_update=False, style=dict(LABEL)
    )
    before, after, some = (
        widgets.Button(description=word, tooltip=tip, layout={"width": "auto"})
        for word, tip in (("Previous", "The latent before"), ("Next", "The latent after"),
                          ("Random", "Some latent that is active somewhere"))
    )
    find = widgets.Text(
        placeholder="a token, e.g. Paris", description="Find", continuous_update=False, style=dict(LABEL)
    )
    page, strip, found = widgets.HTML(), widgets.HTML(), widgets.HTML()
    box = text_box(text, "Your text")

    def go(to: int) -> None:
        number.value = min(max(to, 0), index.n_latents - 1)

    choice = Choice("Found", go, rows=5)
    choice.widget.layout.display = "none"

    def show(_change=None) -> None:
        with shown_in(page):
            page.value = page_html(index, concepts, target, number.value)
        read()

    def read(_change=None) -> None:
        with shown_in(strip):
            strip.value = strip_html(read_text(model, sae, target, box.value), number.value)

    def search(_change=None) -> None:
        options = []
        with shown_in(found):
            options = latents_of_token(index, find.value)
            nothing = not options and find.value.strip()
            found.value = message("No latent is active where this token stands.", "status") if nothing else ""
        choice.widget.layout.display = "" if options else "none"
        choice.fill(options)

    number.observe(show, names="value")
    box.observe(read, names="value")
    find.observe(search, names="value")
    before.on_click(lambda _: go(number.value - 1))
    after.on_click(lambda _: go(number.value + 1))
    some.on_click(lambda _: go(draw.choice(alive)) if alive else None)
    show()
    row = widgets.HBox([number, before, after, some], layout={"flex_flow": "row wrap"})
    return widgets.VBox([row, find, found, choice.widget, page, box, strip])


def latents_of_token(index, token: str, k: int = 10) -> list[tuple[str, int]]:
    """The latents that follow a token, best first; a word is looked for with and without a space before it."""
    word = token.strip()
    if not word:
        return []
    tables, errors = [], []
    for form in dict.fromkeys((" " + word, word, token)):
        try:
            tables.append((form, index.search_token(form, k)))
        except ValueError as error:  # the index does not know this form; it may know another
            errors.append(error)
    if not tables:
        raise errors[0]
    best: dict[int, tuple[float, str]] = {}
    for form, table in tables:
        for row in table.itertuples():
            label = f"{row.latent}: precision {row.precision:.2f}, recall {row.recall:.2f} for {form!r}"
            if row.f1 > best.get(int(row.latent), (0.0, ""))[0]:
                best[int(row.latent)] = (row.f1, label)
    order = sorted(best, key=lambda latent: -best[latent][0])[:k]
    return [(best[latent][1], latent) for latent in order]
