"""The built site behind a local server, and a Chromium that is already on the machine to read it with."""

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

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
    elsewhere: list[str] = field(default_factory=list)  # requests to another host: all of them are refused
    errors: list[str] = field(default_factory=list)  # script errors, console errors, answers of 400 and above


@contextmanager
def visit(browser, base: str, path: str, theme: str = "light", viewport: dict | None = None) -> Iterator[Visit]:
    """Open `path` in a fresh context, as a reader with this theme and window would."""
    context = browser.new_context(viewport=viewport or DESKTOP, color_scheme=theme, reduced_motion="reduce")
    context.add_init_script(f"localStorage.setItem('mode', '{theme}'); localStorage.setItem('theme', '{theme}');")
    context.set_default_timeout(PATIENCE)
    seen = Visit(context.new_page())

    def gatekeeper(route):
        url = route.request.url
        if url.startswith((base, "data:", "blob:")):
            route.continue_()
        else:
            seen.elsewhere.append(url)
            route.abort()

    def on_console(message):
        if message.type == "error":
            seen.errors.append(message.text)

    def on_response(response):
        if response.status >= 400:
            seen.errors.append(f"{response.status} {response.url}")

    context.route("**/*", gatekeeper)
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
