"""A table of latents in one piece of HTML that sorts, filters, turns pages and saves CSV by itself.

It is what the site shows, where nothing computes, and what a notebook shows. Nothing is asked of any server. The rows
are in the page as JSON, and `browser.js` reads them; without scripts the first rows are there as a plain table.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_UP, Context
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import numpy as np
import pandas as pd

from solutions.errors import InputError, check_count, unknown_name
from solutions.visualization.page import PageView, write_page
from solutions.visualization.page_style import STYLE
from solutions.visualization.style import printable

HERE = Path(__file__).parent
MOST_CELLS = 2_000_000  # about 20 MB of page
LONGEST = 300  # characters of a cell
WIDE = 24  # characters, from which on a column of text gets more room
FEW = 30  # distinct words, up to which a column is filtered with a menu
KEPT = 6  # significant digits that sorting, filtering and saving go by; fewer are shown

#: What the columns of a table of latents mean, where the caller says nothing else.
NOTES = {
    "latent": "The latent's number.",
    "n_active": "Tokens on which it is active.",
    "density": "Share of all tokens on which it is active.",
    "maximum": "Its strongest activation, in SAE units.",
    "mean": "Its mean activation where it is active, in SAE units.",
    "token": "The token on which it is active most beyond chance.",
    "token_precision": "Of the tokens on which it is active, the share that are this token.",
    "token_recall": "Of this token's occurrences, the share on which it is active.",
    "token_lift": "How many times as often it is active on this token as chance would have it.",
    "token_q": "Share of false discoveries among all tokens at least as surprising as this one (Benjamini–Hochberg).",
    "tokens": "The tokens on which it is active beyond chance, the least likely by chance first.",
    "n_enriched": "How many tokens it prefers beyond chance.",
    "enriched_share": "Of the tokens on which it is active, the share that are among those it prefers.",
    "example": "The text around its strongest token, which is marked.",
    "typical": "The text around a token in the middle of its activations: the strongest alone would flatter it.",
    "mean_position": "Mean place in the document of the tokens on which it is active.",
    "position_effect": "How much later in its documents it is active than the mean, in standard deviations.",
    "start_lift": "How many times as often as by chance it is active on the first token of a sentence.",
    "end_lift": "How many times as often as by chance it is active on the mark that ends a sentence.",
    "promoted": "Tokens it makes likelier by the direct path to the logits.",
    "suppressed": "Tokens it makes less likely by the direct path to the logits.",
    "concept": "The concept it follows best, chosen on the train split.",
    "group": "The kind of that concept.",
    "precision": "Of the tokens on which it is active, the share that have the concept (test split).",
    "recall": "Of the tokens with the concept, the share on which it is active (test split).",
    "f1": "Harmonic mean of precision and recall (test split).",
    "average_precision": "Precision averaged over all thresholds of the activation (test split).",
    "lookup_f1": "F1 of guessing the concept from the token alone: the baseline.",
    "purity_mass": "How far its activation belongs to one concept: 1 is all of it, 0 what chance gives.",
    "purity_top": "The same for its 50 strongest tokens alone.",
    "entropy": "How its activation is spread over concepts, in bits; 0 is one concept.",
}


#: The columns of a `LatentTable` that one looks at first, before all others.
FIRST = ("latent", "concept", "f1", "lookup_f1", "example", "tokens", "density", "precision", "recall", "token")

#: Columns that are shown only when they are asked for, unless the caller says otherwise.
DETAILS = (
    "mean", "token_recall", "token_lift", "token_q", "n_enriched", "enriched_share", "typical", "mean_position",
    "position_effect", "start_lift", "end_lift", "suppressed", "group", "average_precision", "purity_top", "entropy",
)
#: Columns of text in which one token stands between ** and **: it is marked.
MARKED = ("example", "typical")


class _Column(NamedTuple):
    """One column as the script gets it."""

    name: str
    heading: str
    kind: str  # "number", "choice" (a menu filters it) or "text"
    note: str
    hidden: bool
    values: list

    @property
    def look(self) -> str:
        """The class of its cells."""
        if self.kind == "number":
            return "ms-number"
        return "ms-long" if self.kind == "text" and max(map(len, self.values)) > WIDE else ""


def latent_browser(
    table: Any, *, title: str = "All latents", columns: Sequence[str] | Mapping[str, str] | None = None,
    hidden: Sequence[str] | None = None, notes: Mapping[str, str] | None = None, sort: str | None = None,
    descending: bool = True, page_size: int = 25, digits: int = 3, link: str | None = None, file: str = "latents.csv",
) -> PageView:
    """A table that its reader can sort, search, filter by column, page through, and save as CSV.

    The CSV has the filtered rows in the order shown, and all columns; a leading space of a token is ␣ there, too, and
    a text that a spreadsheet would take for a formula has an apostrophe before it. `LatentTable.export` writes
    everything as it is.

    Args:
        table: a DataFrame, or anything that has one as `.table` (a `LatentTable`). Where there is a column
            latent, it comes first.
        title: the table's caption.
        columns: which columns to show, in this order, or column to heading; by default all, those of a
            `LatentTable` in the order in which one looks at them.
        hidden: columns that are there, but are shown only when the reader asks for them. By default the details of
            a `LatentTable`, unless `columns` says what is wanted.
        notes: column to one sentence on what it means; columns of a `LatentTable` have one.
        sort: the column by which the table is sorted at first; by default the order it comes in.
        descending: largest first, when sorted by `sort`.
        page_size: rows to a page.
        digits: significant digits that are shown; sorting, filtering and the file go by six. What is not a finite
            number is an empty cell.
        link: where the first column's cells lead, with column names in braces, for instance
            "https://www.neuronpedia.org/gpt2-small/6-res-jb/{latent}"; https, or a place on the same site.
        file: what the CSV file is called.

    Returns:
        What a notebook shows.

    Raises:
        InputError: an unknown column, or a number that cannot be.
    """
    frame = _frame(table, columns)
    if hidden is None:
        hidden = [name for name in DETAILS if name in frame and columns is None and name != frame.columns[0]]
    headings = dict(columns) if isinstance(columns, Mapping) else {}
    for name in (*hidden, *([sort] if sort else []), *(notes or {})):
        if name not in frame:
            raise unknown_name("column", name, list(frame.columns))
    check_count(page_size, "page_size")
    check_count(digits, "digits")
    parts = [
        _column(name, str(headings.get(name, name)), frame[name], name in hidden, (notes or {}).get(name))
        for name in frame.columns
    ]
    if parts[0].hidden:
        raise InputError(f"hidden: {parts[0].name!r} is the first column, which names the rows and is always shown.")
    data = {"title": printable(title), "page": page_size, "digits": digits, "file": _file_name(file),
            "link": _address(link, [part.name for part in parts]), **_packed(parts, sort, descending)}
    words = (f"Table of {len(frame):,} rows: {printable(title)}. Columns: {', '.join(p.name for p in parts)}. "
             "It can be sorted, filtered and saved as CSV where HTML is shown.")
    return PageView(STYLE + _style() + _markup(data, parts), words)


def browser_html(table: Any, **options: Any) -> str:
    """The table of `latent_browser` as a whole HTML document, which may run its own script and nothing else.

    Args:
        table: as for `latent_browser`.
        **options: as for `latent_browser`.

    Returns:
        The document.
    """
    view = latent_browser(table, **options)
    digest = base64.b64encode(hashlib.sha256(_script().encode()).digest()).decode()
    policy = (f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:; "
              "base-uri 'none'; form-action 'none'")
    title = html.escape(printable(str(options.get("title", "All latents"))))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,"><title>{title}</title>'
        f"<style>body{{margin:0}}main.ms-page{{min-height:100vh;max-width:none;padding-inline:0}}"
        f"main.ms-page>h1{{margin:.2em 1rem 0}}</style></head>"
        f'<body><main class="ms-page"><h1 class="ms-name">{title}</h1>{view.markup}</main></body></html>\n'
    )


def save_browser(table: Any, path: str | os.PathLike[str], **options: Any) -> Path:
    """Write `browser_html(table, **options)` to a file, whole or not at all.

    Args:
        table: as for `latent_browser`.
        path: the file.
        **options: as for `latent_browser`.

    Returns:
        The file.
    """
    return write_page(browser_html(table, **options), path)


# ---- the table as plain values


def _frame(table: Any, columns: Sequence[str] | Mapping[str, str] | None) -> pd.DataFrame:
    """The columns wanted, latent first, with names that are text."""
    frame = table if isinstance(table, pd.DataFrame) else getattr(table, "table", None)
    if not isinstance(frame, pd.DataFrame):
        raise InputError(f"table: expected a pandas DataFrame or something with a .table, got {type(table).__name__}.")
    if frame.index.name is not None and frame.index.name not in frame:
        frame = frame.reset_index()
    frame = frame.rename(columns=str)
    if frame.columns.nlevels > 1 or not frame.columns.is_unique:
        raise InputError(f"table: expected one name for each column, no two alike, got {list(frame.columns)}.")
    if isinstance(columns, str):
        raise InputError(f"columns: expected several names, got the text {columns!r}. Put it in brackets.")
    for name in columns or ():
        if name not in frame:
            raise unknown_name("column", name, list(frame.columns))
    if columns is None:
        first = [name for name in (("latent",) if isinstance(table, pd.DataFrame) else FIRST)
                 if name in frame]
        columns = [*first, *(name for name in frame.columns if name not in first)]
    frame = frame[list(columns)] if columns is not None else frame
    if not len(frame) or not len(frame.columns):
        why = getattr(table, "empty_reason", "") or "Was it filtered too far?"
        raise InputError(f"table: expected at least one row and one column, got none. {why}")
    if frame.size > MOST_CELLS:
        raise InputError(f"table: a page holds at most {MOST_CELLS:,} cells, got {frame.size:,}. Leave out rows or "
                         "columns: the strongest thousand latents are more than anyone reads.")
    return frame


def _column(name: str, heading: str, values: pd.Series, hidden: bool, note: str | None) -> _Column:
    """A column as numbers or as text that can be seen, and how it may be filtered."""
    note = printable(str(NOTES.get(name, "") if note is None else note))
    if pd.api.types.is_bool_dtype(values):
        values = values.map({True: "yes", False: "no"})
    if pd.api.types.is_numeric_dtype(values):
        numbers = [_rounded(v) for v in values.to_numpy(dtype=object, na_value=None)]
        return _Column(name, printable(heading), "number", note, hidden, numbers)
    words = [_text(value) for value in values]
    different = len(set(words))
    kind = "choice" if different <= FEW and different < len(words) and len(words) > 3 else "text"
    return _Column(name, printable(heading), kind, note, hidden, words)


def _rounded(value: Any) -> int | float | None:
    """A number with six significant digits, but never fewer than stand before the point."""
    if value is None or not math.isfinite(value):
        return None
    if isinstance(value, (int, np.integer)) or float(value).is_integer() and abs(value) < 1e15:
        return int(value)
    value = float(value)
    return round(value) if 10 ** KEPT <= abs(value) < 1e15 else float(f"{value:.{KEPT}g}")


def _text(value: Any) -> str:
    """A cell as one can see it: the leading space of a token, also of one among several, is ␣."""
    if value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NA:
        return ""
    text = re.sub(r"(^|\|) ", r"\1␣", printable(str(value)))
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _order(parts: list[_Column], sort: str | None, descending: bool) -> list[int]:
    """The rows in the order in which they are first shown; what is missing comes last."""
    rows = list(range(len(parts[0].values)))
    if sort is None:
        return rows
    values = next(part.values for part in parts if part.name == sort)
    known = [r for r in rows if values[r] not in (None, "")]
    return sorted(known, key=lambda r: values[r], reverse=descending) + [r for r in rows if values[r] in (None, "")]


def _address(link: str | None, names: list[str]) -> str | None:
    """The address with column numbers in place of their names, as the script reads it."""
    if link is None:
        return None
    if urlsplit(link).scheme not in ("", "https") or link.startswith("//"):
        raise InputError(f"link: expected an address that begins with https://, or a place on this site, got {link!r}.")

    def number(match: re.Match) -> str:
        if match[1] not in names:
            raise unknown_name("column", match[1], names, "It stands in braces in `link`.")
        return "{" + str(names.index(match[1])) + "}"

    return re.sub(r"\{([^{}]*)\}", number, link)


def _packed(parts: list[_Column], sort: str | None, descending: bool) -> dict:
    """Columns and rows as the script gets them, the rows in the order in which they are first shown."""
    number = None if sort is None else [part.name for part in parts].index(sort)
    return {
        "sort": None if sort is None else {"column": number, "descending": descending},
        "columns": [{"name": p.name, "heading": p.heading, "kind": p.kind, "hidden": p.hidden,
                     "look": p.look, "marked": p.name in MARKED} for p in parts],
        "rows": [[part.values[r] for part in parts] for r in _order(parts, sort, descending)],
    }


def _file_name(file: str) -> str:
    if not re.fullmatch(r"[\w.-]+", file):
        raise InputError(f"file: expected a plain file name such as latents.csv, got {file!r}.")
    return file


# ---- the table as HTML


def _markup(data: dict, parts: list[_Column]) -> str:
    """Caption, first rows, data and script. The class at the end keeps MathJax away: a $ is a token here."""
    shown = [c for c, part in enumerate(parts) if not part.hidden]
    title = html.escape(data["title"])
    head = "".join(
        f'<th scope="col"{_class(part)}{" hidden" if part.hidden else ""}>{html.escape(part.heading)}</th>'
        for part in parts
    )
    first = "".join(
        "<tr>" + "".join(_cell(data, parts, row, c) for c in shown) + "</tr>" for row in data["rows"][: data["page"]]
    )
    # "<" would let a token end the script element, or begin a comment.
    packed = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    left = len(data["rows"]) - data["page"]
    without = (
        f'<noscript><p class="ms-muted">Sorting and filtering need JavaScript. {left:,} more rows are not shown.</p>'
        "</noscript>" if left > 0 else ""
    )
    return (
        f'<section class="ms-page ms-browser tex2jax_ignore mathjax_ignore" aria-label="{title}">'
        f'<div class="ms-scroll" role="region" aria-label="Table: {title}" tabindex="0"><table>'
        f"<caption>{title}</caption><thead><tr>{head}</tr></thead><tbody>{first}</tbody></table></div>"
        f'{without}{_notes(parts)}<script type="application/json">{packed}</script>'
        f'<script>{_script()}</script></section>'
    )


def _cell(data: dict, parts: list[_Column], row: list, c: int) -> str:
    """One cell, exactly as the script would make it."""
    text = html.escape(_shown(row[c], data["digits"]))
    if data["columns"][c]["marked"] and text.count("**") == 2:
        text = "{}<mark>{}</mark>{}".format(*text.split("**"))
    if c:
        return f"<td{_class(parts[c])}>{text}</td>"
    if data["link"]:
        address = re.sub(r"\{(\d+)\}", lambda m: quote(_plain(row[int(m[1])]), safe="!*'()"), data["link"])
        text = f'<a href="{html.escape(address)}" rel="noopener noreferrer">{text}</a>'
    return f'<th scope="row"{_class(parts[c])}>{text}</th>'


def _class(part: _Column) -> str:
    return f' class="{part.look}"' if part.look else ""


def _plain(value: int | float | str | None) -> str:
    """A value as JavaScript's String() gives it."""
    if not isinstance(value, (int, float)):
        return value or ""
    size = abs(value)
    if size > 0 and (size < 1e-4 or size >= 1e15):
        mantissa, power = (f"{value:.15e}" if size >= 1e15 else repr(value)).split("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        return f"{mantissa}e{int(power):+d}"
    return repr(value).removesuffix(".0")


def _shown(value: int | float | str | None, digits: int) -> str:
    """A cell as the script shows it: JavaScript rounds halves up, where Python would round them to even."""
    if isinstance(value, float) and abs(value) >= 10 ** digits:
        value = math.floor(value + 0.5)
    elif isinstance(value, float):
        value = float(Context(prec=digits, rounding=ROUND_HALF_UP).create_decimal_from_float(value))
    return _plain(value).replace("-", "−") if isinstance(value, (int, float)) else value or ""


def _notes(parts: list[_Column]) -> str:
    rows = "".join(f"<dt>{html.escape(p.heading)}</dt><dd>{html.escape(p.note)}</dd>" for p in parts if p.note)
    if not rows:
        return ""
    return f'<details><summary>What the columns mean</summary><dl class="ms-notes">{rows}</dl></details>'


def _style() -> str:
    return f"<style>{(HERE / 'browser.css').read_text('utf8')}</style>"


def _script() -> str:
    return (HERE / "browser.js").read_text("utf8")
