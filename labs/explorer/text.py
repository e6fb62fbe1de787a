"""Type a text: which latents stand out, where they fire, and what each of them is."""

from __future__ import annotations

import ipywidgets as widgets

from labs.explorer.reading import (
    LABEL,
    Choice,
    check_index,
    on_token,
    page_html,
    shown_in,
    strip_html,
    text_box,
)
from solutions.analysis.reading import Reading, read_text

ORDERS = {"what stands out": "surprise", "activation": "activation", "share of its maximum": "of_maximum"}


def text_explorer(
    model, sae, target, index=None, concepts=None, text: str = "The Eiffel Tower is in Paris.", k: int = 12
) -> widgets.Widget:
    """A text field, the latents that stand out in the text, the text shaded by one of them, and that one's page.

    Args:
        model, sae: a model and an SAE that belong together, on one device.
        target: where the SAE sits.
        index: a `FeatureIndex` of the same SAE. Without it there are no pages, and the order is by activation.
        concepts: a `ConceptTable`, to name the concept of each latent.
        text: what to begin with.
        k: how many latents to list.
    """
    check_index(index, sae, target)
    box, button = text_box(text, "Text"), widgets.Button(description="Read", tooltip="Read the text")
    order = widgets.ToggleButtons(options=list(ORDERS.items()), description="Order by", style=dict(LABEL))
    strip, page = widgets.HTML(), widgets.HTML()
    state: dict[str, Reading | None] = {"reading": None}

    def choose(latent: int) -> None:
        with shown_in(strip, page):
            if state["reading"] is not None:
                strip.value = strip_html(state["reading"], latent)
                page.value = page_html(index, concepts, target, latent)

    choice = Choice("Latents", choose)

    def read(_change=None) -> None:
        with shown_in(strip, page):
            state["reading"] = None
            reading = read_text(model, sae, target, box.value)
            options = ranked_latents(reading, index, k, order.value)
            state["reading"] = reading
            choice.fill(options)
            if not options:
                strip.value, page.value = "No latent is active anywhere in this text.", ""
            return
        choice.fill([])

    box.observe(read, names="value")
    order.observe(read, names="value")
    button.on_click(read)
    read()
    controls = [box, button] if index is None else [box, button, order]
    return widgets.VBox([*controls, choice.widget, strip, page])


def ranked_latents(reading: Reading, index, k: int, by: str = "surprise") -> list[tuple[str, int]]:
    """The latents that stand out in a text, each with its label, best first."""
    if index is None:
        peak = reading.features.max(dim=0)
        best = peak.values.topk(min(k, len(peak.values)))
        return [
            (f"{latent}: {value:.2f} on {on_token(reading.words[int(peak.indices[latent])])}", latent)
            for value, latent in zip(best.values.tolist(), best.indices.tolist(), strict=True)
            if value > 0
        ]
    table = index.top_of_text(reading.features, k, by)
    return [
        (
            f"{row.latent}: {row.activation:.2f} on {on_token(reading.words[row.token])}, "
            f"{row.of_maximum:.0%} of its maximum, active on {row.density:.2%} of all tokens",
            int(row.latent),
        )
        for row in table.itertuples()
    ]
