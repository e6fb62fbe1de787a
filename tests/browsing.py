"""The built site behind a local server, and a Chromium that is already on the machine to read it with."""

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import axe_playwright_python

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "_build" / "html"
ON_A_MAC = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", ON_A_MAC)
SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",  # nobody else is asked
]
FRONT_DOOR = "index.html"  # of the site: a redirect to the first page
PATIENCE = 120_000  # milliseconds; for machines with other things to do
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}


def chromium_path() -> str | None:
    """The first Chromium on the path. None is ever downloaded."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def site_pages() -> list[str]:
    """Every page of the built site, relative to its root; empty when the site has not been built.

    Without the front door: it sends a visitor on at once, and a test that looks at it would lose its page
    from under its hands. `test_the_front_door_opens` walks through it.
    """
    pages = (p.relative_to(SITE).as_posix() for p in SITE.rglob("*.html"))
    return sorted(p for p in pages if not p.startswith(("_static/", "_sources/", "reports/", FRONT_DOOR)))


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/favicon.ico":  # a browser asks for one by itself, and would complain that there is none
            self.send_response(http.HTTPStatus.NO_CONTENT)
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, *args):
        pass


@contextmanager
def serve(folder: Path = SITE) -> Iterator[str]:
    """Serve `folder` on a free local port; yields the address."""
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@contextmanager
def launch():
    """A running Chromium, driven by playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=SWITCHES)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visit:
    """A page that has been opened, and what happened on the way."""

    page: object
    elsewhere: list[str] = field(default_factory=list)  # requests to another host: SWITCHES let none of them out
    errors: list[str] = field(default_factory=list)  # script errors, console errors, answers of 400 and above


@contextmanager
def visit(browser, base: str, path: str, theme: str = "light", viewport: dict | None = None) -> Iterator[Visit]:
    """Open `path` in a fresh context, as a reader with this theme and window would."""
    context = browser.new_context(viewport=viewport or DESKTOP, color_scheme=theme, reduced_motion="reduce")
    context.add_init_script(f"localStorage.setItem('mode', '{theme}'); localStorage.setItem('theme', '{theme}');")
    context.set_default_timeout(PATIENCE)
    seen = Visit(context.new_page())

    def on_request(request):
        if not request.url.startswith((base, "data:", "blob:")):
            seen.elsewhere.append(request.url)

    def on_console(message):
        if message.type == "error":
            seen.errors.append(message.text)

    def on_response(response):
        if response.status >= 400:
            seen.errors.append(f"{response.status} {response.url}")

    context.on("request", on_request)
    seen.page.on("pageerror", lambda error: seen.errors.append(str(error)))
    seen.page.on("console", on_console)
    seen.page.on("response", on_response)
    try:
        seen.page.goto(f"{base}/{path}", wait_until="load")
        yield seen
    finally:
        context.close()


def scroll_through(page) -> None:
    """Scroll to every figure, and wait until each has been drawn."""
    figures = page.locator(".plotly-figure")
    for i in range(figures.count()):
        figures.nth(i).scroll_into_view_if_needed()
        page.wait_for_function("figure => figure.dataset.drawn", arg=figures.nth(i).element_handle())


AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")
GRAVE = ("serious", "critical")
#: Most of axe's time on a long page goes into the contrast of thousands of words that are painted alike: those of a
#: listing, the cells of a table. A few of each kind are left for it to look at. Two elements are alike when their
#: text, the text around it and all that is painted behind have the same style. Never hidden is what may lie on top
#: of something else, because it is placed by hand, and a text without two plain characters in a row, of which axe may
#: not be sure. A single character is no example for longer texts: axe does not judge it.
HIDE_WHAT_LOOKS_ALIKE = """(examples) => {
    const known = new Map(), seen = new Map();
    function behind(element) {
        if (!element) return "";
        if (!known.has(element)) {
            const style = getComputedStyle(element), below = behind(element.parentElement);
            const placed = !["static", "relative"].includes(style.position) || style.float !== "none"
                || style.transform !== "none";
            const painted = [style.backgroundColor, style.backgroundImage, style.opacity, style.filter,
                style.mixBlendMode].join(" ");
            known.set(element, placed || below === null ? null : below.endsWith(painted) ? below : below + painted);
        }
        return known.get(element);
    }
    const alike = [...document.querySelectorAll("article *")].filter((element) => {
        const text = element.textContent.trim();
        const judged = text.length === 1 ? "short" : /[!-~]{2}/.test(text) && "long";
        if (!judged || element.children.length || behind(element) === null) return false;
        if (!element.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true })) return false;
        const style = getComputedStyle(element);
        const around = ["::before", "::after"].map((name) => getComputedStyle(element, name).content);
        const look = [judged, getComputedStyle(element.parentElement).color, style.color, style.fontSize,
            style.fontWeight, style.textDecoration, style.textShadow, style.backgroundClip, ...around,
            behind(element)].join("|");
        seen.set(look, (seen.get(look) || 0) + 1);
        return seen.get(look) > examples;
    });
    for (const element of alike) element.style.visibility = "hidden";
    return alike.length;
}"""
EXAMPLES = 8  # of each kind: one may be scrolled out of sight


def axe_complaints(page, where="html", options: dict | None = None, hide_alike: bool = False) -> list[str]:
    """Let axe look at a page, or at a part of it; returns what is seriously wrong, and where.

    With `hide_alike` it looks at a few of each kind of painted text. The page is spoilt for whoever looks afterwards.
    """
    if page.evaluate("typeof axe === 'undefined'"):
        page.evaluate(AXE.read_text("utf8"))
    if hide_alike:
        page.evaluate(HIDE_WHAT_LOOKS_ALIKE, EXAMPLES)
    # Of what is in order, one example for each rule is enough: to name them all takes longer than to find them.
    options = {"resultTypes": ["violations"], **(options or {})}
    report = page.evaluate("what => axe.run(...what)", [where, options])
    assert report["passes"], "axe looked at nothing"
    grave = [v for v in report["violations"] if v["impact"] in GRAVE]
    return [f"{v['id']}: {node['html'][:160]} {node['any'][:1]}" for v in grave for node in v["nodes"][:3]]
