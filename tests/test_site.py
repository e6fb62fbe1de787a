"""The built site, read in a real browser: whole, offline, readable on a phone, open to keyboard and screen reader."""

import http.server
import sys
import threading
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest
from browsing import (
    DESKTOP,
    FRONT_DOOR,
    HIDE_WHAT_LOOKS_ALIKE,
    PHONE,
    SITE,
    axe_complaints,
    chromium_path,
    launch,
    scroll_through,
    serve,
    site_pages,
    visit,
)

PAGES = site_pages()
# A figure is one image with a description (`test_page_is_whole_…` asks for it), so its insides, half of a long page,
# are left out. A theme changes colours and nothing else, so the structure is looked at once.
OUTSIDE_FIGURES = {"exclude": [[".main-svg"]]}
COLOURS = ["color-contrast", "link-in-text-block"]
ONLY_COLOURS = {"runOnly": COLOURS}
ALL_ELSE = {"rules": {name: {"enabled": False} for name in COLOURS}}

needs_chromium = pytest.mark.skipif(chromium_path() is None, reason="no Chromium on the path (chromium, google-chrome)")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not PAGES, reason="the site has not been built (make book)"),
]
# The listings of our modules are all made alike: one stands for the rest where reading is what is tested.
LISTINGS = [p for p in PAGES if p.startswith("_modules/")]
READING = [p for p in PAGES if p not in LISTINGS[1:]] or ["book/index.html"]


def together(paths: list[str]):
    """A page after the other: its tests share its visits (tests/conftest.py keeps them in one process, too).

    pytest knows a page by its place in the list, so every list has to begin with the same pages.
    """
    return pytest.mark.parametrize("path", paths, scope="module")


every_page = together([*READING, *LISTINGS[1:]])
every_reading_page = together(READING)


@pytest.fixture(scope="module")
def base():
    with serve() as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with launch() as running:
        yield running


@pytest.fixture(scope="module")
def by_day(browser, base, path):
    """A page in light colours on a desk, read to its end."""
    with visit(browser, base, path) as seen:
        seen.page.wait_for_load_state("networkidle")
        scroll_through(seen.page)
        yield seen


@pytest.fixture(scope="module")
def by_night(browser, base, path):
    """A page in dark colours on a phone, read to its end."""
    with visit(browser, base, path, "dark", viewport=PHONE) as seen:
        scroll_through(seen.page)
        yield seen


@needs_chromium
@every_page
def test_page_is_whole_and_asks_nobody_else(by_day, path):
    assert by_day.elsewhere == []
    assert by_day.errors == []
    for figure in by_day.page.locator(".plotly-figure").all():
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
def test_page_fits_a_phone(by_night, path):
    width = by_night.page.evaluate("document.scrollingElement.scrollWidth")
    assert width <= PHONE["width"], widest(by_night.page)


def widest(page) -> list[str]:
    """What sticks out of the window, outermost elements first: for the message of a failed test."""
    return page.evaluate(
        """() => [...document.querySelectorAll('body *')]
            .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
            .slice(0, 5).map(e => e.outerHTML.slice(0, 120))"""
    )


@needs_chromium
@every_reading_page
def test_page_is_accessible_by_day(by_day, path):
    assert axe_complaints(by_day.page, OUTSIDE_FIGURES, ALL_ELSE) == []
    assert axe_complaints(by_day.page, OUTSIDE_FIGURES, ONLY_COLOURS, hide_alike=True) == []


@needs_chromium
@every_reading_page
def test_page_is_accessible_by_night(by_night, path):
    """Whoever takes a large window looks at more: a phone hides what stands beside the text."""
    by_night.page.set_viewport_size(DESKTOP)
    assert axe_complaints(by_night.page, OUTSIDE_FIGURES, ONLY_COLOURS, hide_alike=True) == []


ALIKE = """<!doctype html><html lang="en"><title>Alike</title><style>
.pale { color: #aaa } .dark { background: #333 } .top { position: absolute; top: 0; left: 0; background: #333 }
</style><body><article><h1>Alike</h1><pre>%s</pre></article></body></html>"""


@needs_chromium
def test_of_what_looks_alike_a_few_are_looked_at_and_nothing_else_is_missed(browser):
    """Each of these is the only one that cannot be read, among hundreds that can."""
    page = browser.new_page()
    plain = "<span>plain</span> <span>(</span>" * 50
    for odd in (
        "<span class=pale>pale</span>",
        "<span class=pale>(</span>" * 99 + "<span class=pale>pale</span>",  # axe does not judge single characters
        "<details><i class=pale>pale</i></details>" * 99 + "<i class=pale>pale</i>",  # nor what nobody sees
        "<span class=dark>dark</span>",
        "<span class=dark><b><i><u>dark</u></i></b></span>",  # painted behind its parents
        "<span class=top>on top</span>",
    ):
        page.set_content(ALIKE % (plain + odd + plain))
        found = axe_complaints(page, options=ONLY_COLOURS)
        assert len(found) == 1
        assert axe_complaints(page, options=ONLY_COLOURS, hide_alike=True) == found
        assert 80 < page.evaluate("document.querySelectorAll('article [style*=hidden]').length")
    page.set_content(ALIKE % (plain + "<span class=top>on top</span>" * 3))
    page.evaluate(HIDE_WHAT_LOOKS_ALIKE, 1)
    assert page.evaluate("[...document.querySelectorAll('.top')].every((e) => e.checkVisibility())")
    page.close()


@needs_chromium
def test_a_page_that_asks_somebody_else_is_caught_and_its_request_stays_here(browser, tmp_path):
    heard = []

    class Neighbour(http.server.BaseHTTPRequestHandler):
        def handle(self):
            heard.append(self.client_address)

    with http.server.HTTPServer(("127.0.0.2", 0), Neighbour) as neighbour, serve(tmp_path) as base:
        threading.Thread(target=neighbour.serve_forever, daemon=True).start()
        others = [f"http://127.0.0.2:{neighbour.server_port}/a.png", "https://example.org/b.js"]
        (tmp_path / "a.html").write_text(f'<img src="{others[0]}"><script src="{others[1]}"></script>', "utf8")
        with visit(browser, base, "a.html") as seen:
            seen.page.wait_for_load_state("networkidle")
            assert sorted(seen.elsewhere) == sorted(others)
            assert sum("ERR_NAME_NOT_RESOLVED" in error for error in seen.errors) == 2
        neighbour.shutdown()
    assert heard == []


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
