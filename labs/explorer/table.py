"""The smallest window on an SAE: type a sentence, see which latents fire on each of its tokens."""

from __future__ import annotations

import html

import ipywidgets as widgets

from labs.explorer.reading import shown_in
from solutions.analysis.reading import read_text
from solutions.visualization import printable

BAR = 90  # pixels of the longest bar


def explorer(model, sae, target, text: str = "The Eiffel Tower is in Paris.", k: int = 4) -> widgets.Widget:
    """A text field and the table of the strongest latents of every token.

    Args:
        model, sae: a model and an SAE that belong together, on one device.
        target: where the SAE sits.
        text: the sentence to begin with.
        k: how many latents to show for each token.
    """
    box = widgets.Text(value=text, description="Sentence", continuous_update=False, layout={"width": "46em"})
    box.layout.max_width = "100%"
    table = widgets.HTML()

    def read(_change=None) -> None:
        with shown_in(table):
            table.value = features_table(model, sae, target, box.value, k)

    box.observe(read, names="value")
    read()
    return widgets.VBox([box, table])


def features_table(model, sae, target, text: str, k: int) -> str:
    """HTML table: one row a token, its k strongest latents with their strengths as bars. BOS has no row."""
    reading = read_text(model, sae, target, text)
    words, features = reading.words, reading.features
    top = features.topk(min(k, features.shape[1]), dim=-1)
    longest = max(top.values.max().item(), 1e-9)
    rows = "".join(
        f'<tr><th scope="row" style="text-align:left"><code>{html.escape(visible(word))}</code></th>'
        + "".join(_cell(latent, value, longest) for latent, value in zip(latents, values, strict=True))
        + "</tr>"
        for word, latents, values in zip(
            words, top.indices.tolist(), top.values.tolist(), strict=True
        )
    )
    heads = "".join(f'<th scope="col" style="text-align:left">strongest {i + 1}</th>' for i in range(k))
    title = f"Strongest latents of each token at {html.escape(target.hook)}: number and strength"
    return (
        '<table style="border-spacing:0.8em 0.1em;border-collapse:separate;line-height:1.15">'
        f'<caption style="text-align:left;padding-bottom:0.4em">{title}{html.escape(reading.note)}</caption>'
        f'<tr><th scope="col" style="text-align:left">token</th>{heads}</tr>{rows}</table>'
    )


def visible(token: str) -> str:
    """A token with its spaces and line ends made visible: they belong to it."""
    return printable(token).replace(" ", "␣")


def _cell(latent: int, value: float, longest: float) -> str:
    if value <= 0:
        return "<td></td>"
    width = round(BAR * value / longest)
    style = f"display:inline-block;width:{width}px;height:0.5em;vertical-align:top;background:#0072B2"
    bar = f'<span aria-hidden="true" style="{style}"></span>'
    return f'<td style="text-align:left">{latent} <small>{value:.2f}</small><br>{bar}</td>'
