"""What all explorers do: turn a typed text into features, and an error into words."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ipywidgets as widgets

from solutions.analysis.reading import Reading
from solutions.errors import InputError, first_line
from solutions.targets import neuronpedia_url
from solutions.visualization import printable, shaded_html, show_page, visible

WIDE = {"width": "46em", "max_width": "100%"}
LABEL = {"description_width": "6em"}


# ---- errors as words


def message(text: str, kind: str = "alert") -> str:
    """A sentence for the reader, as HTML. A screen reader says it at once."""
    style = "border-left:0.35em solid #D55E00;padding:0.3em 0.8em;max-width:46em;line-height:1.5"
    return f'<div role="{kind}" style="{style}">{html.escape(printable(text))}</div>'


@contextmanager
def shown_in(place: widgets.HTML, *others: widgets.HTML) -> Iterator[None]:
    """Run a callback so that an error becomes words in `place`; `others` are emptied, since they show something old."""
    try:
        yield
    except ValueError as error:  # our own errors say what to do: an empty text, say
        words = str(error) or type(error).__name__
    except Exception as error:  # noqa: BLE001  a window does not break: whatever it is, say it
        words = f"This did not work: {first_line(error)}. Try another text, or run the cell again."
    else:
        return
    place.value = message(words)
    for other in others:
        other.value = ""


# ---- parts


def text_box(value: str, description: str) -> widgets.Textarea:
    """A field for a text, which reports only when one has finished: not on every key."""
    return widgets.Textarea(
        value=value, description=description, rows=3, continuous_update=False, layout=dict(WIDE), style=dict(LABEL)
    )


def strip_html(reading: Reading, latent: int, maximum: float | None = None) -> str:
    """The text, shaded by one latent."""
    values = reading.features[:, latent]
    note = f"<p>{html.escape(reading.note.strip())}</p>" if reading.note else ""
    quiet = "" if bool((values > 0).any()) else f"<p>Latent {latent} is not active anywhere in this text.</p>"
    return shaded_html(reading.words, values, maximum=maximum) + quiet + note


def page_html(index, concepts, target, latent: int) -> str:
    """The latent's page, or nothing when there is no index."""
    if index is None:
        return ""
    page = index.page(latent) if concepts is None else index.page(latent, concepts)
    note = f"{target.name} · {target.hook}"
    return show_page(page, target_note=note, neuronpedia=neuronpedia_url(target, latent))._repr_html_()


def check_index(index, sae, target) -> None:
    """Refuse an index that was made for other latents than these."""
    n = int(sae.cfg.d_sae)
    if index is not None and index.n_latents != n:
        raise InputError(
            f"index has {index.n_latents} latents, the SAE has {n}: they do not belong together. "
            f"Build one for this SAE with build_index(store, sae, {target.hook!r}, path)."
        )


class Choice:
    """A list of latents to choose from. Filling it does not count as choosing; what was chosen stays if it can.

    JupyterLab keeps the arrow keys for itself while a list has the focus (they walk from cell to cell). In a field
    for a number they work, so the row can be chosen there too.
    """

    def __init__(self, description: str, chosen: Callable[[int], None], rows: int = 8):
        self.list = widgets.Select(
            options=(), description=description, rows=rows, layout=dict(WIDE), style=dict(LABEL)
        )
        self.row = widgets.BoundedIntText(
            value=1, min=1, max=1, description="Row", continuous_update=False, style=dict(LABEL),
            tooltip="The row of the list, from 1 on: by typing, or with the arrow keys",
        )
        self.widget = widgets.VBox([self.list, self.row])
        self._chosen, self._filling = chosen, False
        self.list.observe(self._changed, names="value")
        self.row.observe(self._row_changed, names="value")

    def fill(self, options: Sequence[tuple[str, int]]) -> None:
        """Show other latents, as (label, latent), and choose one of them."""
        before, self._filling = self.list.value, True
        try:
            self.list.options = list(options)
            latents = [latent for _, latent in options]
            self.list.value = before if before in latents else (latents[0] if latents else None)
            self.row.max, self.row.disabled = max(len(latents), 1), not latents
        finally:
            self._filling = False
        self._changed()

    def _changed(self, _change: Any = None) -> None:
        if not self._filling and self.list.value is not None:
            self._filling, self.row.value = True, self.list.index + 1
            self._filling = False
            self._chosen(self.list.value)

    def _row_changed(self, _change: Any = None) -> None:
        if not self._filling and self.list.options:
            self.list.index = self.row.value - 1


def on_token(word: str) -> str:
    """A token in a list of plain text."""
    return f"“{visible(word)[:30]}”"
