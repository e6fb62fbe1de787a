"""A feature's page as HTML: one self-contained file, or the same inside a notebook.

What Neuronpedia's feature pages show (neuronpedia.org), without its servers. The page asks nobody for anything and
needs no script: values appear on hovering and on focus by style alone. All text is escaped, since tokens hold
whatever the corpus holds.
"""

from __future__ import annotations

import html
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from solutions.errors import InputError
from solutions.visualization.page_style import STYLE
from solutions.visualization.shaded import number, text_html, token_code, tokens_html
from solutions.visualization.text import dashboard_words

TRY_IT = (
    "To try your own text on this latent, open the course in Jupyter and run "
    "<code>feature_explorer(model, sae, target, index)</code> from <code>labs.explorer</code>."
)
# The file may neither load nor run nor send anything, whatever a token tries.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


class PageView:
    """A piece of HTML that a notebook shows; where there is no notebook, its description in words."""

    def __init__(self, markup: str, words: str):
        self.markup, self.words = markup, words

    def _repr_html_(self) -> str:
        return self.markup

    def __repr__(self) -> str:
        return self.words


def feature_page_html(
    page: Any, *, title: str | None = None, target_note: str | None = None, neuronpedia: str | None = None,
    unit: str = "SAE units", companion_measure: str = "Jaccard index", try_it: bool = True,
    overview: str | None = None, links: Mapping[int, str] | None = None,
) -> str:
    """One feature page as a self-contained HTML document.

    Args:
        page: an `analysis.FeaturePage`. Neighbours, companions and concept are shown when it has them.
        title: the heading, by default "Latent 42".
        target_note: what was studied, for instance the target's name and hook point.
        neuronpedia: the latent's address there, https only.
        unit: of the activations.
        companion_measure: what the numbers of `page.companions` are.
        try_it: whether to say how one's own text is tried.
        overview: the address of a page that lists all of them, relative to this one.
        links: latent to the address of its page, for the neighbours and companions that have one.

    Returns:
        The document. It needs no other file, runs no script, and asks no server for anything.

    Example:
        >>> document = feature_page_html(index.page(latent, concepts), title="Days of the week")
        >>> "<script" in document, "https://" in document
        (False, False)
    """
    head = text_html(_title(page, title))
    body = _article(page, title, target_note, neuronpedia, unit, companion_measure, try_it, 1, overview, links)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,"><title>{head}</title>{STYLE}'
        f'<style>body{{margin:0}}body .ms-page{{max-width:none;min-height:100vh;'
        f'padding-inline:max(.8rem,calc(50vw - 36rem))}}</style>'
        f"</head><body><main>{body}</main></body></html>\n"
    )


def show_page(
    page: Any, *, title: str | None = None, target_note: str | None = None, neuronpedia: str | None = None,
    unit: str = "SAE units", companion_measure: str = "Jaccard index", try_it: bool = False, level: int = 3,
) -> PageView:
    """The same page for a notebook, whose headings begin at `level`. It looks the same on the built site.

    Args:
        page: a `FeaturePage`.
        title: the heading, by default "Latent 42".
        target_note: as for `feature_page_html`, and so are the next four.
        neuronpedia: the latent's address there.
        unit: of the activations.
        companion_measure: what the numbers of `page.companions` are.
        try_it: whether to say how one's own text is tried.
        level: of the first heading, 1 to 5; those below it are one lower.

    Returns:
        What a notebook shows.
    """
    body = _article(page, title, target_note, neuronpedia, unit, companion_measure, try_it, level)
    return PageView(STYLE + body, dashboard_words(page))


def show_pages(pages: Sequence[Any], names: Sequence[str] | None = None, **options: Any) -> PageView:
    """Several pages, folded, the first one open.

    Unlike `gallery`, it works by keyboard and without scripts.

    Args:
        pages: feature pages (`FeaturePage`).
        names: what they are called, by default "latent 7".
        **options: as for `show_page`.

    Returns:
        What a notebook shows.

    Raises:
        InputError: no pages, or more or fewer names than pages.
    """
    pages = list(pages)
    if not pages:
        raise InputError("pages: expected at least one feature page, got none.")
    names = [f"Latent {page.latent}" for page in pages] if names is None else list(names)
    if len(names) != len(pages):
        raise InputError(f"names: expected {len(pages)}, one for each page, got {len(names)}.")
    folds = []
    for i, (page, name) in enumerate(zip(pages, names, strict=True)):
        inner = show_page(page, **options).markup.removeprefix(STYLE)
        opened = " open" if i == 0 else ""
        folds.append(f'<details class="ms-fold"{opened}><summary>{text_html(name)}</summary>{inner}</details>')
    words = " ".join(dashboard_words(page) for page in pages)
    return PageView(f'{STYLE}<div class="ms-page">{"".join(folds)}</div>', words)


def page_parts(page, unit: str = "SAE units", level: int = 3) -> dict[str, str]:
    """The parts of a feature page, for somebody else to lay out.

    Args:
        page: an `analysis.FeaturePage`.
        unit: of the activations.
        level: of the headings.

    Returns:
        facts, concept, examples and logits as HTML, each for the inside of an element of the class "ms-page"; "" for
        a part that the page does not have.
    """
    concept = getattr(page, "concept", None)
    return {"facts": _facts(page, unit), "concept": _concept(concept, level) if concept else "",
            "examples": _examples(page, unit, level), "logits": _logits(page, level)}


def save_page(page: Any, path: str | os.PathLike[str], **options: Any) -> Path:
    """Write `feature_page_html(page, **options)` to a file, whole or not at all.

    Args:
        page: a `FeaturePage`.
        path: the file.
        **options: as for `feature_page_html`.

    Returns:
        The file.
    """
    return write_page(feature_page_html(page, **options), path)


def write_page(text: str, path: str | os.PathLike[str]) -> Path:
    """Write a page to a file, whole or not at all, and return its path."""
    path = Path(path)
    if not path.parent.is_dir():
        raise InputError(f"path: there is no folder {path.parent}. Make it first: Path(...).mkdir(parents=True).")
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(name, 0o644)  # mkstemp lets nobody else read; a page is meant to be passed on
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


# ---- the parts of a page


def _title(page, title: str | None) -> str:
    return f"Latent {page.latent}" if title is None else str(title)


def _article(
    page, title, target_note, neuronpedia, unit, companion_measure, try_it, level: int, overview=None, links=None
) -> str:
    """The page itself, without style and document around it."""
    concept = getattr(page, "concept", None)
    parts = [
        f'<p><a href="{html.escape(overview)}">All latents</a></p>' if overview else "",
        f'<h{level} class="ms-name">{text_html(_title(page, title))}</h{level}>',
        f'<p class="ms-muted">{text_html(target_note)}</p>' if target_note else "",
        _facts(page, unit),
        _concept(concept, level + 1) if concept else "",
        _examples(page, unit, level + 1),
        '<div class="ms-columns">',
        _logits(page, level + 1),
        "<div>", _histogram(page, unit, level + 1), "</div><div>",
        _others(page, companion_measure, level + 1, links or {}),
        "</div></div>",
        f'<p class="ms-muted">{TRY_IT}</p>' if try_it else "",
        _link(neuronpedia) if neuronpedia else "",
    ]
    return f'<article class="ms-page">{"".join(parts)}</article>'


def _heading(text: str, level: int, kind: str = "ms-part") -> str:
    return f'<h{level} class="{kind}">{text}</h{level}>'


def _facts(page, unit: str) -> str:
    """The numbers that say what kind of latent this is."""
    share = f"{100 * page.density:.3g} % of tokens" if page.n_active else "never active"
    facts = {
        "Active on": share,
        "Active tokens": f"{page.n_active:,} of {page.n_tokens:,}",
        "Strongest activation": f"{number(page.maximum)} {unit}" if page.n_active else "none",
    }
    cells = "".join(f"<div><dt>{name}</dt><dd>{text_html(value)}</dd></div>" for name, value in facts.items())
    return f'<dl class="ms-facts">{cells}</dl>'


def _concept(concept: dict, level: int) -> str:
    """The concept that fits best, and whether it takes a model to find it."""
    if "name" not in concept:
        raise InputError(f"page.concept: expected a 'name', got {sorted(concept)}.")
    names = (("precision", "precision"), ("recall", "recall"), ("f1", "F1"), ("lookup_f1", "F1 of the token lookup"))
    cells = "".join(
        f"<div><dt>{label}</dt><dd>{float(concept[key]):.2f}</dd></div>"
        for key, label in names if concept.get(key) is not None
    )
    words = (
        "Precision: of the tokens on which it is active, the share that have the concept. "
        "Recall: of the tokens that have it, the share on which it is active. F1 is their harmonic mean."
    )
    ours, lookup = concept.get("f1"), concept.get("lookup_f1")
    if ours is not None and lookup is not None:
        than = "ahead of" if ours > lookup else "behind" if ours < lookup else "level with"
        words += f" The latent is {than} the token lookup, which guesses from the token alone and reads no context."
    name = f"Best matching concept: {text_html(concept['name'])}"
    return f'{_heading(name, level)}<dl class="ms-facts">{cells}</dl><p class="ms-muted">{words}</p>'


def _examples(page, unit: str, level: int) -> str:
    """Examples by interval of activation, the strongest interval first."""
    if not page.intervals:
        return _heading("Examples", level) + f"<p>It was never active on {page.n_tokens:,} tokens.</p>"
    parts = [
        _heading("Examples by interval of activation", level),
        '<p class="ms-muted">The fuller the colour, the stronger the activation; the outlined token is the one '
        f"that was chosen. Point at a shaded token, or move to it with Tab, for its value in {text_html(unit)}.</p>",
    ]
    for interval in page.intervals:
        share = interval.n_tokens / max(page.n_active, 1)
        tokens = "token" if interval.n_tokens == 1 else "tokens"
        range_ = f"{number(interval.low)} to {number(interval.high)}"
        size = f"<small>{interval.n_tokens:,} {tokens}, {100 * share:.0f} % of the active ones</small>"
        rows = "".join(
            f"<li>{tokens_html(e.tokens, e.activations, page.maximum, e.peak)}</li>" for e in interval.examples
        )
        parts += [_heading(f"{range_} {size}", level + 1, "ms-range"), f'<ol class="ms-examples">{rows}</ol>']
    return "".join(parts)


def _logits(page, level: int) -> str:
    """What the latent makes the model say, as far as the direct path goes."""
    if not page.positive and not page.negative:
        return ""
    largest = max(abs(v) for _, v in [*page.positive, *page.negative]) or 1.0
    tables = []
    for caption, pairs in (("Makes likelier", page.positive), ("Makes less likely", page.negative)):
        rows = "".join(
            f'<tr><th scope="row">{token_code(token)}</th><td class="ms-number">{number(value)}</td>'
            f'<td class="ms-wide" aria-hidden="true"><span class="ms-bar{" ms-up" if value >= 0 else ""}" '
            f'style="width:{100 * abs(value) / largest:.0f}%"></span></td></tr>'
            for token, value in pairs
        )
        tables.append(f"<table><caption>{caption}</caption><tbody>{rows}</tbody></table>" if pairs else "")
    note = '<p class="ms-muted">Direct effect on the logit, per unit of activation.</p>'
    return f"<div>{_heading('Logits', level)}{note}{''.join(tables)}</div>"


def _others(page, companion_measure: str, level: int, links: Mapping[int, str]) -> str:
    """Latents that point the same way, and latents that fire together with this one."""
    parts = []
    for name, column, pairs in (
        ("Neighbours: decoder directions that point the same way", "cosine", getattr(page, "neighbours", ())),
        ("Companions: latents that fire on the same tokens", companion_measure, getattr(page, "companions", ())),
    ):
        if pairs:
            rows = "".join(
                f'<tr><th scope="row">{_named(int(latent), links)}</th>'
                f'<td class="ms-number">{number(float(value))}</td></tr>'
                for latent, value in pairs
            )
            head = f'<tr><th scope="col">latent</th><th scope="col" class="ms-number">{text_html(column)}</th></tr>'
            parts.append(f"<table><caption>{name}</caption><thead>{head}</thead><tbody>{rows}</tbody></table>")
    return _heading("Other latents", level) + "".join(parts) if parts else ""


def _named(latent: int, links: Mapping[int, str]) -> str:
    """A latent's number, which leads to its page where it has one."""
    name = f"latent {latent}"
    return f'<a href="{html.escape(links[latent])}">{name}</a>' if latent in links else name


def _link(address: str) -> str:
    """The way to Neuronpedia. A link is followed only when it is clicked."""
    if not str(address).startswith("https://"):
        raise InputError(f"neuronpedia: expected an address that begins with https://, got {address!r}.")
    return f'<p><a href="{html.escape(address)}" rel="noopener noreferrer">This latent on Neuronpedia</a></p>'


# ---- the histogram, drawn by hand: a page needs no script for it

WIDTH, HEIGHT, LEFT, BOTTOM = 380, 190, 46, 40


def _histogram(page, unit: str, level: int) -> str:
    """How strong the activations are, as a picture and as a table."""
    if not page.counts:
        return ""
    tallest, top = max(page.counts) or 1, float(page.edges[-1]) or 1.0

    def across(value: float) -> float:
        return round(LEFT + (WIDTH - LEFT - 12) * value / top, 1)

    bars, rows = [], []
    for low, high, count in zip(page.edges[:-1], page.edges[1:], page.counts, strict=True):
        size = round((HEIGHT - BOTTOM - 14) * count / tallest, 1)
        width = max(across(high) - across(low) - 1, 0.5)
        if count:
            bars.append(
                f'<rect x="{across(low)}" y="{HEIGHT - BOTTOM - size}" width="{width:.1f}" height="{max(size, 1)}">'
                f"<title>{number(low)} to {number(high)}: {int(count):,} tokens</title></rect>"
            )
        ends = f"{number(low)} to {number(high)}"
        rows.append(f'<tr><th scope="row">{ends}</th><td class="ms-number">{int(count):,}</td></tr>')
    floor = HEIGHT - BOTTOM
    edges = "".join(
        f'<line class="ms-edge" x1="{across(i.low)}" x2="{across(i.low)}" y1="8" y2="{floor}"/>'
        for i in page.intervals[:-1]
    )
    ticks = "".join(
        f'<text x="{across(t)}" y="{floor + 15}" text-anchor="middle">{number(t)}</text>' for t in _ticks(top)
    )
    alt = f"Histogram of {page.n_active:,} active tokens, {tallest:,} in the fullest bar; the table has the numbers."
    picture = (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{alt}">{"".join(bars)}{edges}'
        f'<line x1="{LEFT}" x2="{WIDTH - 12}" y1="{floor}" y2="{floor}"/>{ticks}'
        f'<text x="{LEFT - 6}" y="18" text-anchor="end">{tallest:,}</text>'
        f'<text x="{LEFT - 6}" y="{floor}" text-anchor="end">0</text>'
        f'<text x="12" y="{(floor + 14) / 2:.0f}" text-anchor="middle" '
        f'transform="rotate(-90 12 {(floor + 14) / 2:.0f})">tokens</text>'
        f'<text x="{(LEFT + WIDTH) / 2:.0f}" y="{HEIGHT - 6}" text-anchor="middle">'
        f"activation, where active ({text_html(unit)})</text></svg>"
    )
    note = '<p class="ms-muted">Dashed: where one interval ends and the next begins.</p>' if edges else ""
    head = '<tr><th scope="col">activation</th><th scope="col" class="ms-number">tokens</th></tr>'
    table = f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"
    fold = f"<details><summary>The histogram as a table</summary>{table}</details>"
    return f"{_heading('How strong, how often', level)}{picture}{note}{fold}"


def _ticks(top: float) -> list[float]:
    """Round numbers from zero to `top`, about five of them."""
    raw = top / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    return [i * step for i in range(int(top / step * 1.0001) + 1)]
