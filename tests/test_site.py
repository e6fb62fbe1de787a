"""The built site, read in a real browser: whole, offline, readable on a phone, open to keyboard and screen reader."""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import axe_playwright_python
import pytest
from browsing import FRONT_DOOR, PHONE, SITE, chromium_path, launch, scroll_through, serve, site_pages, visit

PAGES = site_pages()
AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")
GRAVE = ("serious", "critical")
# A figure is one image with a description (`test_page_is_whole_…` asks for it), so its insides, half of a long page,
# are left out. A theme changes colours and nothing else, so the structure is looked at once.
OUTSIDE_FIGURES = {"exclude": [[".main-svg"]]}
AXE_LOOKS_AT = {
    "light": [OUTSIDE_FIGURES],
    "dark": [OUTSIDE_FIGURES, {"runOnly": ["color-contrast", "link-in-text-block"]}],
}

needs_chromium = pytest.mark.skipif(chromium_path() is None, reason="no Chromium on the path (chromium, google-chrome)")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not PAGES, reason="the site has not been built (make book)"),
]
every_page = pytest.mark.parametrize("path", PAGES or ["book/index.html"])
# The listings of our modules are all made alike: one stands for the rest where reading is what is tested.
LISTINGS = [p for p in PAGES if p.startswith("_modules/")]
every_reading_page = pytest.mark.parametrize("path", [p for p in PAGES if p not in LISTINGS[1:]] or ["book/index.html"])


@pytest.fixture(scope="module")
def base():
    with serve() as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with launch() as running:
        yield running


@needs_chromium
@every_page
def test_page_is_whole_and_asks_nobody_else(browser, base, path):
    with visit(browser, base, path) as seen:
        seen.page.wait_for_load_state("networkidle")
        scroll_through(seen.page)
        assert seen.elsewhere == []
        assert seen.errors == []
        for figure in seen.page.locator(".plotly-figure").all():
            box = figure.locator(".main-svg").first.bounding_box()
            assert box["width"] > 200 and box["height"] > 100
            assert figure.get_attribute("aria-label")


@needs_chromium
def test_the_front_door_opens(browser, base):
    with visit(browser, base, FRONT_DOOR) as seen:
        seen.page.wait_for_url(f"{base}/book/index.html")
        assert seen.page.locator("h1").first.inner_text()
        assert seen.errors == []


@needs_chromium
@every_reading_page
def test_page_fits_a_phone(browser, base, path):
    with visit(browser, base, path, viewport=PHONE) as seen:
        scroll_through(seen.page)
        width = seen.page.evaluate("document.scrollingElement.scrollWidth")
        assert width <= PHONE["width"], widest(seen.page)


def widest(page) -> list[str]:
    """What sticks out of the window, outermost elements first: for the message of a failed test."""
    return page.evaluate(
        """() => [...document.querySelectorAll('body *')]
            .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
            .slice(0, 5).map(e => e.outerHTML.slice(0, 120))"""
    )


@needs_chromium
@pytest.mark.parametrize("theme", ["light", "dark"])
@every_reading_page
def test_page_is_accessible(browser, base, path, theme):
    with visit(browser, base, path, theme) as seen:
        scroll_through(seen.page)
        seen.page.evaluate(AXE.read_text("utf8"))
        report = seen.page.evaluate("what => axe.run(...what)", AXE_LOOKS_AT[theme])
        grave = [v for v in report["violations"] if v["impact"] in GRAVE]
        assert report["passes"]
        assert [f"{v['id']}: {node['html'][:160]} {node['any'][:1]}" for v in grave for node in v["nodes"][:3]] == []


@needs_chromium
@pytest.mark.parametrize("word", ["superposition", "latent"])
def test_search_finds_a_page(browser, base, word):
    with visit(browser, base, f"search.html?q={word}") as seen:
        hits = seen.page.locator("#search-results ul.search li a")
        hits.first.wait_for()
        assert hits.count() > 0
        assert seen.errors == []


@needs_chromium
def test_keyboard_reaches_the_content_first(browser, base):
    with visit(browser, base, "book/glossary.html") as seen:
        seen.page.keyboard.press("Tab")
        focused = "document.activeElement"
        assert "skip" in seen.page.evaluate(f"{focused}.textContent").lower()
        assert seen.page.evaluate(f"{focused}.checkVisibility()")
        seen.page.keyboard.press("Enter")
        assert seen.page.evaluate("location.hash") == "#main-content"
        seen.page.keyboard.press("Tab")
        assert seen.page.evaluate(f"document.querySelector('#main-content').contains({focused})")


@needs_chromium
def test_a_term_explains_itself_to_pointer_and_keyboard(browser, base):
    with visit(browser, base, "book/glossary.html") as seen:
        link, tip = seen.page.locator("article a.term").first, seen.page.locator("#term-tip")
        assert not tip.is_visible()
        link.focus()
        assert tip.is_visible() and len(tip.inner_text()) > 20
        assert link.get_attribute("aria-describedby") == "term-tip"
        seen.page.keyboard.press("Escape")
        assert not tip.is_visible()


@needs_chromium
def test_figures_follow_the_theme(browser, base):
    path = next((p for p in PAGES if "plotly-figure" in (SITE / p).read_text("utf8")), None)
    if path is None:
        pytest.skip("no page has a figure")
    colours = {}
    for theme in ("light", "dark"):
        with visit(browser, base, path, theme) as seen:
            scroll_through(seen.page)
            colours[theme] = seen.page.evaluate("document.querySelector('.js-plotly-plot')._fullLayout.font.color")
    assert colours["light"] != colours["dark"]


class Links(HTMLParser):
    """The anchors a page offers and the places it points to."""

    def __init__(self, text: str):
        super().__init__()
        self.anchors, self.targets = {""}, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        self.anchors |= {named[key] for key in ("id", "name") if named.get(key)}
        self.targets += [named[key] for key in ("href", "src") if named.get(key)]


def test_no_page_tells_where_it_was_built():
    places = (str(SITE.parent.parent), sys.prefix)
    telling = {path: place for path in PAGES for place in places if place in (SITE / path).read_text("utf8")}
    assert PAGES and telling == {}


def test_every_link_inside_the_site_leads_somewhere():
    parsed = {path: Links((SITE / path).read_text("utf8")) for path in [FRONT_DOOR, *PAGES]}
    lost = []
    for path, links in parsed.items():
        for target in links.targets:
            url = urlsplit(target)
            if url.scheme or url.netloc:
                continue
            file = ((SITE / path).parent / unquote(url.path)).resolve() if url.path else SITE / path
            there = parsed.get(file.relative_to(SITE).as_posix()) if file.is_relative_to(SITE) else None
            if not file.exists() or (there and unquote(url.fragment) not in there.anchors):
                lost.append(f"{path}: {target}")
    assert parsed and lost == []
