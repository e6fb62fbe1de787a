"""The app as visitors have it: a real server and a browser, light and dark, by keyboard, on a phone, and its doors."""

import http.client
import re
import urllib.parse
from pathlib import Path

import axe_playwright_python
import pytest
from browsing import DESKTOP, PATIENCE, PHONE, chromium_path, launch, visit
from serving_app import served

from solutions.app.views import VIEWS
from solutions.visualization.page_style import shade

AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")
TEXT = "The Colosseum is in Rome. A wolf is an animal."
#: Streamlit asks for its own address in several places until one answers.
PROBES = re.compile(r"_stcore/(health|host-config)|status of 404")
PATHS = {name: "" if i == 0 else name for i, name in enumerate(VIEWS)}

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium_path() is None, reason="no Chromium on the path (chromium, google-chrome)"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with served(tmp_path_factory.mktemp("app"), texts=100) as running:
        yield running


@pytest.fixture(scope="module")
def browser(server):
    with launch() as running:
        with visit(running, server.base, "") as seen:  # whoever comes first waits for the index
            finished(seen.page)
        yield running


def finished(page):
    """Wait until the page has its title, the server has no more to say, and nothing changes any more."""
    page.wait_for_selector("h1")
    before = None
    for _ in range(PATIENCE // 500):
        page.wait_for_function(f"() => !document.querySelector('{BUSY}')")
        if (now := text_of(page)) == before and page.locator(".stHtml .ms-page").count() > 2:
            return page
        before = now
        page.wait_for_timeout(500)
    pytest.fail(f"the page never comes to rest:\n{before}")


#: What is on a page while the server works for it.
BUSY = ("[data-testid=stProgress], [data-testid=stSpinner], [data-stale=true], .stApp[data-test-script-state=running], "
        ".stApp[data-test-connection-state=CONNECTING]")


def wrong(seen):
    """What went wrong on a visit, without what Streamlit does to every page."""
    return seen.elsewhere + [error for error in seen.errors if not PROBES.search(error)]


def text_of(page):
    return page.locator("[data-testid=stMain]").inner_text()


@pytest.mark.parametrize("theme, window", [("light", DESKTOP), ("dark", PHONE)])
@pytest.mark.parametrize("name", list(PATHS))
def test_every_page_opens_asks_nobody_else_fits_and_pleases_axe(server, browser, name, theme, window):
    with visit(browser, server.base, PATHS[name], theme, window) as seen:
        page = finished(seen.page)
        assert page.locator("h1").inner_text() == VIEWS[name].title and "not your fault" not in text_of(page)
        assert page.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth") <= window["width"]
        page.evaluate(AXE.read_text("utf8"))
        found = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
        assert found["passes"] and [
            (problem["id"], node["target"], node.get("failureSummary", "")[:200]) for problem in found["violations"]
            if problem["impact"] in ("serious", "critical") for node in problem["nodes"]
        ] == []
        assert wrong(seen) == []


def test_a_typed_text_is_shaded_and_its_address_shows_somebody_else_the_same(server, browser):
    with visit(browser, server.base, "") as seen:
        page = finished(seen.page)
        page.get_by_label("Text", exact=True).fill(TEXT)
        page.get_by_role("button", name="Read").click()
        page.wait_for_url("**/?text=*")
        finished(page)
        latents = page.locator("[data-testid=stRadio] input")
        latents.nth(2).check(force=True)
        page.wait_for_url("**latent=*")
        finished(page)
        link, shown = page.url, text_of(page)
        strip = page.locator(".ms-text").first
        assert strip.text_content().replace("\n", "").startswith("The") and strip.locator("mark").count() > 0
        assert wrong(seen) == []
        page.go_back()
        page.wait_for_url("**/?text=*")
        page.wait_for_function("() => !location.search.includes('latent=')")
        finished(page)
        assert latents.first.is_checked()
    with visit(browser, server.base, link.removeprefix(server.base + "/")) as seen:
        assert text_of(finished(seen.page)) == shown
        assert urllib.parse.parse_qs(urllib.parse.urlsplit(link).query)["text"] == [TEXT]


def test_it_works_with_the_keyboard_alone(server, browser):
    with visit(browser, server.base, "") as seen:
        page = finished(seen.page)
        tab_to(page, "textarea")
        page.keyboard.press("Control+A")
        page.keyboard.type("The cat sat.")
        page.keyboard.press("Control+Enter")
        page.wait_for_url("**/?text=The+cat+sat.")
        finished(page)
        tab_to(page, "[data-testid=stRadio] input")
        page.keyboard.press("ArrowDown")
        page.wait_for_url("**latent=*")
        finished(page)
        tab_to(page, "mark.t")
        said = page.evaluate("getComputedStyle(document.activeElement.querySelector('.v')).clipPath")
        assert said == "none"  # the value shows on focus
        tab_to(page, "a[href*=features]")
        page.keyboard.press("Enter")
        page.wait_for_url("**/features?latent=*")
        finished(page)
        assert page.locator("h1").inner_text() == VIEWS["features"].title
        tab_to(page, "button", "Next")
        before = page.url
        page.keyboard.press("Enter")
        page.wait_for_function("url => location.href !== url", arg=before)
        assert wrong(seen) == []


def tab_to(page, selector, words=""):
    """Press Tab until an element that fits, and says these words, has the focus."""
    for _ in range(120):
        page.keyboard.press("Tab")
        fits = "([selector, words]) => document.activeElement.matches(selector) && document.activeElement.innerText"
        if page.evaluate(f"{fits}.includes(words)", [selector, words]):
            return
    pytest.fail(f"Tab never reaches {selector}")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_texts_have_the_colours_of_the_theme(server, browser, theme):
    with visit(browser, server.base, "", theme) as seen:
        page = finished(seen.page)
        look = "e => [getComputedStyle(e).backgroundColor, getComputedStyle(e).color]"
        shaded = page.locator("mark.p8").first.evaluate(look)
        assert shaded == [rgb(colour) for colour in shade(theme, "p", 8)]


def rgb(colour):
    """A hex colour as a browser gives it back."""
    return "rgb({}, {}, {})".format(*(int(colour[i : i + 2], 16) for i in (1, 3, 5)))


def test_the_slider_steers_and_a_search_leads_to_a_page(server, browser):
    with visit(browser, server.base, "steer?tokens=8&temperature=0&strength=0") as seen:
        page = finished(seen.page)
        said = page.locator(".ms-app-said")
        texts = said.all_inner_texts()
        assert len(texts) == 3 and len(set(texts)) == 1  # pushed by nothing
        page.get_by_role("slider", name="Strength").focus()
        page.keyboard.press("End")
        page.wait_for_url("**strength=3*")
        finished(page)
        other = "texts => document.querySelectorAll('.ms-app-said')[1].innerText !== texts[1]"
        page.wait_for_function(other, arg=texts)
        assert said.all_inner_texts()[0] == texts[0]
        page.goto(f"{server.base}/features")
        finished(page)
        page.get_by_role("textbox", name="Search").fill("concept:city")
        page.keyboard.press("Enter")
        page.wait_for_url("**q=concept*")
        finished(page)
        assert "for concept:city" in text_of(page) and page.locator(".ms-name").count() == 1
        assert wrong(seen) == []


def test_hostile_text_is_shown_and_does_nothing(server, browser):
    text = "<img src=x onerror='window.hit=1'><script>window.hit=1</script> ![](https://example.org/p.png) $x$ :red[r]"
    query = urllib.parse.quote(text)
    for path in (f"?text={query}&by=activation", f"compare?a={query}&b=x", f"features?q={query}",
                 f"steer?prompt={query}&tokens=5"):
        with visit(browser, server.base, path) as seen:
            page = finished(seen.page)
            assert page.evaluate("window.hit") is None and page.locator("[data-testid=stMain] .stHtml img").count() == 0
            assert page.locator("[data-testid=stMain] :is(img, iframe, object, form form)").count() == 0
            assert wrong(seen) == [], path
            assert "not your fault" not in text_of(page)
    with visit(browser, server.base, "") as seen:
        page = finished(seen.page)
        page.get_by_label("Text", exact=True).fill("word " * 20_000)
        page.get_by_role("button", name="Read").click()
        page.get_by_text("as much as fits into the context").wait_for()
        assert "too long to be part of the address" in text_of(page) and "text=" not in page.url
        assert wrong(seen) == []


@pytest.mark.parametrize("path", [
    "/static/../../../../../../etc/passwd", "/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "/app/static/../main.py",
    "/media/../main.py", "/media/%2e%2e%2fmain.py", "/component/../../main.py", "/_stcore/../main.py",
    "/solutions/app/main.py", "/.streamlit/secrets.toml", "/server.log", "//etc/passwd", "/static/%00",
    "/component/x/..%2f..%2f..%2fetc%2fpasswd",
])  # fmt: skip
def test_no_file_can_be_had(server, path):
    """Streamlit answers with its front page or with an error, and never with a file of ours or of the machine."""
    connection = http.client.HTTPConnection("localhost", server.port, timeout=30)
    connection.request("GET", path)  # as it is: urllib would tidy it up
    answer = connection.getresponse()
    body = answer.read().decode("utf-8", "replace")
    assert "root:" not in body and "import streamlit" not in body and "Uvicorn" not in body
    assert answer.status >= 300 or "<title>Streamlit</title>" in body


@pytest.mark.parametrize("headers, status", [
    ({}, 101), ({"Host": "evil.example"}, 403), ({"Origin": "https://evil.example"}, 403),
])  # fmt: skip
def test_only_its_own_pages_may_talk_to_it(server, headers, status):
    """Another name for this machine, or a page from elsewhere, is turned away at the door."""
    connection = http.client.HTTPConnection("localhost", server.port, timeout=30)
    connection.putrequest("GET", "/_stcore/stream", skip_host=True)
    handshake = {"Host": f"localhost:{server.port}", "Upgrade": "websocket", "Connection": "Upgrade",
                 "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
                 "Origin": f"http://localhost:{server.port}"} | headers  # fmt: skip
    for name, value in handshake.items():
        connection.putheader(name, value)
    connection.endheaders()
    assert connection.getresponse().status == status
    connection.close()
