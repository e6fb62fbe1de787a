"""Every page with code as a notebook: what becomes of its text and code, and whether the site's link leads there."""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import jupytext
import nbformat
import pytest
from browsing import SITE, site_pages

from labs.checks.marking.running import Limits, run_notebook

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import notebook_download as download  # noqa: E402

PAGES = [path for folder in ("book", "solutions") for path in sorted((ROOT / folder).glob("*.md"))
         if "{code-cell}" in path.read_text("utf8")]
CITATIONS = {"gao2024": ("Gao et al.", "2024"), "chen2021": ("Chen", "2021")}
TITLES = {"glossary": "Glossary and questions"}
ON_SITE = [p for p in PAGES if (SITE / p.relative_to(ROOT).with_suffix(".html")).exists()]
needs_site = [
    pytest.mark.browser,
    pytest.mark.skipif(not site_pages(), reason="the site has not been built (make book)"),
]
SOURCE = """---
jupytext:
  text_representation: {extension: .md, format_name: myst}
kernelspec: {display_name: Python 3, language: python, name: python3}
---

# Title

```{code-cell} ipython3
import json
from myst_nb import glue
```

```{code-cell} ipython3
:tags: [remove-cell]
def claim(holds, sentence):
    if not holds:
        raise AssertionError(f"The page says what is no longer so, rewrite it: {sentence}")
claim(False, "it is raining")
glue("n", 7)
```

There are {glue:text}`n` {term}`latents <latent>`.
"""


def plain(text):
    return download.plain(text, {"n": "7"}, CITATIONS, TITLES)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("{glue:text}`n` of {glue:text}`n:.2f`", "7 of 7"),
        ("{term}`L0`, {term}`latents <latent>`", "L0, latents"),
        ("{doc}`glossary`, {doc}`chapter 1 <01_setup>`, {doc}`../book/glossary`",
         "Glossary and questions, chapter 1, Glossary and questions"),
        ("{cite:t}`gao2024` says; so it is {cite:p}`gao2024,chen2021`.",
         "Gao et al. (2024) says; so it is (Gao et al., 2024; Chen, 2021)."),
        ("{py:class}`solutions.targets.Target`", "`solutions.targets.Target`"),
        ("`{glue}` and `code` stay", "`{glue}` and `code` stay"),
    ],
)
def test_text_becomes_plain_markdown(written, read):
    assert plain(written) == read


@pytest.mark.parametrize("text", ["{glue:text}`m`", "{cite:t}`nobody2000`", "{doc}`no_such_page`"])
def test_a_name_that_nobody_knows_is_named(text):
    with pytest.raises(KeyError, match=re.search("`(.*)`", text)[1]):
        plain(text)


def test_a_page_becomes_a_notebook_that_runs_without_the_sites_tools():
    made = download.as_notebook(SOURCE, "Title", "Monosemantic", plain)
    assert made == download.as_notebook(SOURCE, "Title", "Monosemantic", plain), "the same source, the same file"
    greeting, _, title, imports, hidden, text = made.cells
    assert '"Title"' in greeting.source and title.source == "# Title" and text.source == "There are 7 latents."
    assert imports.source == "import json"
    assert hidden.metadata["jupyter"] == {"source_hidden": True}
    names = {}
    for cell in made.cells:  # what the site's build must not get past, a reader gets past
        if cell.cell_type == "code":
            exec(cell.source, names)


def test_citations_are_short():
    found = download.short_citations(ROOT / "book" / "references.bib")
    assert found["bricken2023"] == ("Bricken et al.", "2023") and all(names for names, _ in found.values())


@pytest.mark.parametrize("path", PAGES, ids=[f"{p.parent.name}/{p.stem}" for p in PAGES])
def test_every_page_keeps_its_code(path):
    source = path.read_text("utf8")
    made = download.as_notebook(source, path.stem, "Monosemantic", lambda text: text)
    page = [cell.source for cell in jupytext.reads(source, fmt="md:myst").cells if cell.cell_type == "code"]
    kept = [line for cell in page for line in cell.splitlines()
            if line != download.GLUE_IMPORT and "is no longer so" not in line and line.strip()]
    code = "\n".join(cell.source for cell in made.cells if cell.cell_type == "code").splitlines()
    there = set(code)
    assert [line for line in kept if line not in there] == []
    assert "myst_nb" not in "\n".join(code), "a page may take `glue` alone from the tools that make the site"


class Links(HTMLParser):
    """Where the links with a `download` attribute lead."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "a" and "download" in attributes:
            self.found.append(attributes["href"])


def offered(path):
    """The notebook that a page of the site offers."""
    page = SITE / path.relative_to(ROOT).with_suffix(".html")
    links = [link for link in Links(page.read_text("utf8")).found if link.endswith(".ipynb")]
    assert links, f"{page.name} offers no notebook"
    return (page.parent / links[0]).resolve()


class TestTheSite:
    pytestmark = needs_site

    @pytest.mark.parametrize("path", ON_SITE, ids=[f"{p.parent.name}/{p.stem}" for p in ON_SITE])
    def test_every_page_with_code_offers_its_notebook(self, path):
        made = nbformat.read(offered(path), as_version=4)
        nbformat.validate(made)
        assert made.cells[0].source.startswith("*From Monosemantic")
        assert not any(cell.get("outputs") for cell in made.cells)
        text = "\n".join(cell.source for cell in made.cells if cell.cell_type == "markdown")
        assert download.ROLE.findall(text) == []

    def test_what_is_downloaded_runs_in_an_empty_folder(self):
        path = next((p for p in ON_SITE if p.stem == "demo"), ROOT / "book" / "01_setup_and_exploration.md")
        run = run_notebook(nbformat.read(offered(path), as_version=4), {}, "0", Limits(120, 600))
        assert run.finished and not run.raised and not run.slow, run

    def test_the_themes_own_button_leads_there_too(self):
        page = SITE / "book" / "01_setup_and_exploration.html"
        assert page.read_text("utf8").count("_sources/book/01_setup_and_exploration.ipynb") == 2
