"""Two texts: which latents tell them apart, by how much, and on which token."""

from __future__ import annotations

import ipywidgets as widgets

from labs.explorer.reading import (
    Choice,
    check_index,
    on_token,
    page_html,
    shown_in,
    strip_html,
    text_box,
)
from solutions.analysis.reading import Reading, read_text
from solutions.errors import InputError

TEXTS = ("The Eiffel Tower is in Paris.", "The Colosseum is in Rome.")


def compare_explorer(
    model, sae, target, index=None, concepts=None, texts: tuple[str, str] = TEXTS, k: int = 12
) -> widgets.Widget:
    """Two text fields, the latents that differ most, and both texts shaded by one of them, on one scale.

    Args:
        model, sae: a model and an SAE that belong together, on one device.
        target: where the SAE sits.
        index: a `FeatureIndex` of the same SAE. With it, differences count as shares of each latent's maximum,
            and the latent's page is shown.
        concepts: a `ConceptTable`, to name the concept of each latent.
        texts: what to begin with.
        k: how many latents to list.
    """
    check_index(index, sae, target)
    first, second = text_box(texts[0], "First"), text_box(texts[1], "Second")
    button = widgets.Button(description="Compare", tooltip="Compare the two texts")
    upper, lower, page = widgets.HTML(), widgets.HTML(), widgets.HTML()
    state: dict[str, tuple[Reading, Reading] | None] = {"pair": None}

    def choose(latent: int) -> None:
        with shown_in(upper, lower, page):
            if state["pair"] is not None:
                largest = max(float(reading.features[:, latent].max()) for reading in state["pair"])
                for place, reading in zip((upper, lower), state["pair"], strict=True):
                    place.value = strip_html(reading, latent, largest)
                page.value = page_html(index, concepts, target, latent)

    choice = Choice("Differences", choose)

    def compare(_change=None) -> None:
        with shown_in(upper, lower, page):
            state["pair"] = None
            pair = read_named(model, sae, target, first), read_named(model, sae, target, second)
            options = differences(*pair, index, k)
            state["pair"] = pair
            choice.fill(options)
            if not options:
                upper.value = "No latent tells these two texts apart."
                lower.value = page.value = ""
            return
        choice.fill([])

    for box in (first, second):
        box.observe(compare, names="value")
    button.on_click(compare)
    compare()
    return widgets.VBox([first, second, button, choice.widget, upper, lower, page])


def read_named(model, sae, target, box: widgets.Textarea) -> Reading:
    """Read the text of a field; an error says which field it was."""
    try:
        return read_text(model, sae, target, box.value)
    except ValueError as error:
        raise InputError(f"{box.description} text: {error}") from error


def differences(first: Reading, second: Reading, index, k: int) -> list[tuple[str, int]]:
    """The latents whose strongest activations differ most between two texts, each with its label."""
    peaks = [reading.features.max(dim=0) for reading in (first, second)]
    if index is None:
        gap = (peaks[0].values - peaks[1].values).abs()
        latents = [j for j in gap.topk(min(k, len(gap))).indices.tolist() if gap[j] > 0]
    else:
        table = index.compare(first.features, second.features, k)
        latents = table["latent"][table["difference"] != 0].tolist()
    options = []
    for latent in latents:
        one, other = (float(peak.values[latent]) for peak in peaks)
        reading, peak = (first, peaks[0]) if one > other else (second, peaks[1])
        word = on_token(reading.words[int(peak.indices[latent])])
        where = "first" if one > other else "second"
        options.append((f"{latent}: {one:.2f} against {other:.2f}, most on {word} of the {where}", int(latent)))
    return options
