"""Text in HTML, each token shaded by its value: the value shows on hovering, on focus, and to a screen reader."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from torch import Tensor

from solutions.errors import InputError
from solutions.visualization.page_style import STYLE, level_of
from solutions.visualization.style import printable, visible


def text_html(text: str) -> str:
    """Any text, safe to put into HTML, its invisible characters spelled out."""
    return html.escape(printable(str(text)))


def token_code(token: str) -> str:
    """A token that stands alone, its leading space visible."""
    return f"<code>{html.escape(visible(token))}</code>"


def number(value: float) -> str:
    """Three significant digits, and words for what is no number."""
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    return f"{value:.3g}".replace("-", "−")


def tokens_html(
    tokens: Sequence[str], values: Sequence[float], maximum: float, peak: int | None = None, breaks: bool = False
) -> str:
    """The tokens of one text, shaded; `peak` is outlined; with `breaks` a line break in the text is one here too."""
    if len(tokens) != len(values):
        raise InputError(f"Expected one value per token, got {len(tokens)} tokens and {len(values)} values.")
    parts = []
    for i, (token, value) in enumerate(zip(tokens, values, strict=True)):
        shown = html.escape(printable(token) if token.strip(" ") else token.replace(" ", "␣") or "∅")
        lines = breaks and "\n" in token
        if lines:  # what follows the line break, an indent say, belongs to the next line
            shown = "↵<br>".join(html.escape(printable(part)) for part in token.split("\n"))
        level, outlined = level_of(value, maximum), " pk" if i == peak else ""
        if level or outlined:
            kind = (f" {'p' if value > 0 else 'n'}{level}" if level else "") + (" ms-lines" if lines else "")
            says = number(value) + (", the token chosen" if outlined else "")
            parts.append(f'<mark class="t{kind}{outlined}" tabindex="0">{shown}<span class="v"> ({says})</span></mark>')
        else:
            parts.append(f'<span class="t">{shown}</span>')
    return f'<div class="ms-text">{"".join(parts)}</div>'


def shaded_html(
    tokens: Sequence[str], values: Sequence[float] | Tensor, unit: str = "SAE units", maximum: float | None = None
) -> str:
    """One text, its tokens shaded by value, orange above zero and blue below, as a piece of HTML with its style.

    Tokens that are not shaded are zero.

    Args:
        tokens: the text's tokens.
        values: a number for each.
        unit: of the numbers.
        maximum: the value of the full colour, by default the largest in size.

    Returns:
        The HTML, in which the text is escaped.

    Raises:
        InputError: more or fewer values than tokens.

    Example:
        >>> "&lt;b&gt;" in shaded_html(["<b>", " Paris"], [0.0, 2.5])
        True
    """
    numbers = [float(v) for v in (values.tolist() if isinstance(values, Tensor) else values)]
    largest = max((abs(v) for v in numbers if math.isfinite(v)), default=0.0) if maximum is None else maximum
    body = tokens_html(list(tokens), numbers, largest, breaks=True)
    note = f'<p class="ms-muted">Full colour: {number(largest)} {html.escape(unit)}. Not shaded: zero.</p>'
    return f'{STYLE}<div class="ms-page">{body}{note}</div>'
