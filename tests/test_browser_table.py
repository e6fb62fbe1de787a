"""The table of latents: whole without scripts, and sorted, filtered, paged, saved by hand and by keyboard."""

import csv
import io
import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import axe_playwright_python
import numpy as np
import pandas as pd
import plotly
import pytest
from browsing import PHONE, ROOT, chromium_path, launch, serve, visit

from solutions import visualization
from solutions.errors import InputError
from solutions.visualization.browser import HERE, MOST_CELLS, _plain, _rounded, _shown, _text

AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")
in_browser = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium_path() is None, reason="no Chromium on the path (chromium, google-chrome)"),
]
NASTY = ["</script><script>alert(1)</script>", "=1+1", "<!--", "\u202eabc", " Paris| Rome", 'a "quoted", one', "$x$",
         "a\nb"]


def latents(n=60):
    """Latent i has density i / 1000 (missing for every seventh), and one of three concepts."""
    return pd.DataFrame({
        "concept": [("city", "code", None)[i % 3] for i in range(n)],
        "latent": range(n),
        "density": [math.nan if i % 7 == 0 else i / 1000 for i in range(n)],
        "token": [NASTY[i % len(NASTY)] if i < 16 else f" w{i}" for i in range(n)],
        "q": [10.0 ** -i for i in range(n)],
        "alive": [i % 2 == 0 for i in range(n)],
    })


class Rows(HTMLParser):
    """The cells of the first table, row by row, and all elements with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.elements, self.inside = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.inside = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.rows[-1][-1] += data


def payload(markup):
    found = re.search(r'<script type="application/json">(.*?)</script>', markup, re.DOTALL)
    return json.loads(found[1])


def test_without_scripts_the_first_rows_are_a_table_and_it_is_said_what_is_missing():
    view = visualization.latent_browser(latents(), page_size=10, hidden=["q"])
    rows = Rows(view._repr_html_()).rows
    assert rows[0] == ["latent", "concept", "density", "token", "q", "alive"]  # q has a heading, which is hidden
    assert len(rows) == 11 and rows[2] == ["1", "code", "0.001", "=1+1", "no"]
    assert rows[1][2] == "" and rows[5][3] == "␣Paris|␣Rome"
    assert "50 more rows are not shown" in view.markup
    assert "Table of 60 rows" in repr(view)
    whole = visualization.latent_browser(latents(8))._repr_html_()
    assert "noscript" not in whole.split("<script")[0]


def test_it_asks_nobody_and_only_its_own_script_may_run():
    page = visualization.browser_html(latents(), title="</title><b>")
    outline = Rows(page)
    scripts = [attributes for tag, attributes in outline.elements if tag == "script"]
    assert scripts == [{"type": "application/json"}, {}]  # no token has made a third
    assert not {tag for tag, _ in outline.elements} & {"img", "iframe", "object", "embed", "form"}
    assert not [a for _, a in outline.elements if any(name.startswith("on") for name in a)]
    assert not re.search(r"https?://|@import|url\(|fetch\(|XMLHttp|innerHTML|eval\(", page)
    assert "default-src 'none'" in page and "script-src 'sha256-" in page
    assert not re.search(r"[\u202a-\u202e\u2028\ud800-\udfff]", page)


def test_the_data_are_whole_and_the_numbers_short():
    data = payload(visualization.latent_browser(latents(), sort="density").markup)
    assert [c["kind"] for c in data["columns"]] == ["number", "choice", "number", "text", "number", "choice"]
    assert len(data["rows"]) == 60 and data["rows"][0][0] == 59  # the densest first
    assert [row[2] for row in data["rows"][-9:]] == [None] * 9  # what is missing comes last
    assert [row[5] for row in data["rows"] if row[0] == 4] == ["yes"]
    ascending = payload(visualization.latent_browser(latents(), sort="density", descending=False).markup)
    assert ascending["rows"][0][0] == 1 and ascending["rows"][-1][2] is None


def test_numbers_and_texts_as_they_are_shown():
    values = [0.12345678, 1234.56, 12.0, 7, np.int64(3), 1e-9, math.inf, math.nan, None, -0.5]
    assert [_rounded(v) for v in values] == [0.123457, 1234.56, 12, 7, 3, 1e-9, None, None, None, -0.5]
    assert [_plain(v) for v in (1.25e-7, -2e-5, 0.0001, 1e15, 12.5, 0, None)] == [
        "1.25e-7", "-2e-5", "0.0001", "1e+15", "12.5", "0", ""]
    assert [_shown(v, 3) for v in (0.12345, 1234.5, -0.5, 12.25, 9.996, 1.2345e-7, 7, None, "x")] == [
        "0.123", "1235", "−0.5", "12.3", "10", "1.23e−7", "7", "", "x"]
    assert [_text(v) for v in (" a| b", None, math.nan, pd.NA, "\n", "x" * 999)] == ["␣a|␣b", "", "", "", "↵",
                                                                                 "x" * 299 + "…"]


def test_columns_are_chosen_named_and_explained():
    view = visualization.latent_browser(latents(), columns={"latent": "no.", "q": "q-value"}, notes={"q": "Chance."})
    rows = Rows(view.markup).rows
    assert rows[0] == ["no.", "q-value"] and "<dt>q-value</dt><dd>Chance.</dd>" in view.markup
    assert "<dt>no.</dt>" in view.markup  # what a latent's number is, is known
    indexed = visualization.latent_browser(latents().set_index("latent"))
    assert Rows(indexed.markup).rows[0][0] == "latent"


def test_the_table_of_latents_shows_the_columns_one_needs_and_marks_the_token_of_an_example():
    class LatentTable:
        table = latents(30).assign(example=["**The** cat"] + ["a **b** c **d**"] * 29, entropy=1.0)
        empty_reason = "No latent is left: f1 at least 2."

    view = visualization.latent_browser(LatentTable())
    columns = payload(view.markup)["columns"]
    assert [c["name"] for c in columns if c["hidden"]] == ["entropy"]
    assert [c["name"] for c in columns][:5] == ["latent", "concept", "example", "density", "token"]
    assert "<td><mark>The</mark> cat</td>" in view.markup and "<td>a **b** c **d**</td>" in view.markup
    whole = visualization.latent_browser(LatentTable(), hidden=()).markup
    assert not any(c["hidden"] for c in payload(whole)["columns"])
    LatentTable.table = LatentTable.table.head(0)
    with pytest.raises(InputError, match="f1 at least 2"):
        visualization.latent_browser(LatentTable())


def test_rows_link_to_where_they_are_told():
    view = visualization.latent_browser(latents(), link="https://www.neuronpedia.org/m/{latent}?t={token}")
    links = [a["href"] for tag, a in Rows(view.markup).elements if tag == "a"]
    assert links[0].endswith("/m/0?t=%3C%2Fscript%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E") and len(links) == 25
    assert payload(view.markup)["link"] == "https://www.neuronpedia.org/m/{0}?t={3}"


def test_the_file_is_the_page(tmp_path):
    path = visualization.save_browser(latents(), tmp_path / "latents.html", title="Mine")
    assert path.read_text("utf8") == visualization.browser_html(latents(), title="Mine")


def test_the_script_and_the_style_count_as_code_of_the_chapters(monkeypatch):
    """A change of the table's script must make the site anew."""
    monkeypatch.syspath_prepend(ROOT / "book")
    import build

    names = {p.name for pattern in build.RESULTS for p in ROOT.glob(pattern)}
    assert {p.name for p in HERE.glob("browser.*")} <= names


@pytest.mark.parametrize("call, says", [
    (lambda: visualization.latent_browser([1]), "pandas DataFrame"),
    (lambda: visualization.latent_browser(latents().head(0)), "filtered too far"),
    (lambda: visualization.latent_browser(latents(), sort="densit"), "Did you mean 'density'"),
    (lambda: visualization.latent_browser(latents(), columns=["latents"]), "Did you mean 'latent'"),
    (lambda: visualization.latent_browser(latents(), columns="latent"), "in brackets"),
    (lambda: visualization.latent_browser(latents(), hidden=["latent"]), "always shown"),
    (lambda: visualization.latent_browser(latents(), link="javascript:alert(1)"), "https://"),
    (lambda: visualization.latent_browser(latents(), link="//elsewhere.org/{latent}"), "https://"),
    (lambda: visualization.latent_browser(latents(), link="https://a.b/{number}"), "unknown column 'number'"),
    (lambda: visualization.latent_browser(latents(), file="../x"), "plain file name"),
    (lambda: visualization.latent_browser(latents(), page_size=0), "page_size"),
    (lambda: visualization.latent_browser(pd.concat([latents(), latents()], axis=1)), "no two alike"),
    (lambda: visualization.latent_browser(pd.DataFrame(np.zeros((MOST_CELLS // 2 + 1, 2)))), "at most 2,000,000"),
    (lambda: visualization.save_browser(latents(), "no/such/folder/a.html"), "no folder"),
])
def test_bad_input_is_named(call, says):
    with pytest.raises(InputError, match=says):
        call()


# ---- in a browser

SITE_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Two tables and a map</title>
<link rel="icon" href="data:,"><script defer src="plotly.min.js"></script><script defer src="figures.js"></script>
</head>
<body><main><h1>A page</h1>
<div class="plotly-figure" style="min-height:500px"><script type="{mime}">{figure}</script></div>
{first}{second}</main></body></html>"""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    visualization.save_browser(latents(), folder / "table.html", title="Latents", page_size=10, hidden=["q"],
                               link="https://www.neuronpedia.org/m/{latent}")
    big = pd.concat([latents(24_576).drop(columns="q")] * 2, axis=1)
    big.columns = [f"{name}{i // 5 or ''}" for i, name in enumerate(big.columns)]
    visualization.save_browser(big, folder / "big.html")
    figure = visualization.latent_map(latents().assign(x=range(60), y=range(60)))
    shutil.copy(Path(plotly.__file__).parent / "package_data" / "plotly.min.js", folder)
    shutil.copy(ROOT / "book" / "_static" / "figures.js", folder)
    (folder / "site.html").write_text(SITE_PAGE.format(
        mime="application/vnd.plotly.v1+json", figure=figure.to_json().replace("</", "<\\/"),
        first=visualization.latent_browser(latents(), title="First").markup,
        second=visualization.latent_browser(latents()[["token", "q"]], title="Second").markup), "utf8")
    with serve(folder) as base, launch() as browser:
        yield browser, base


class Table:
    """What a reader sees of a table, and does with it."""

    def __init__(self, page, number=0):
        self.page = page
        self.root = page.locator(".ms-browser").nth(number)
        self.status = self.root.locator("[role=status]")

    def rows(self):
        return self.root.locator("tbody tr").evaluate_all("rows => rows.map(r => [...r.cells].map(c => c.textContent))")

    def first(self):
        return [row[0] for row in self.rows()]

    def heading(self, name):
        return self.root.locator("thead th").filter(has=self.page.get_by_role("button", name=name, exact=True))

    def click(self, name):
        self.root.get_by_role("button", name=name, exact=True).click()

    def filter(self, name):
        return self.root.locator(f"[data-filter='{name}']")

    def open(self, name):
        self.root.get_by_text(name, exact=True).click()


@pytest.fixture
def table(served):
    browser, base = served
    with visit(browser, base, "table.html") as seen:
        yield Table(seen.page)
        assert seen.elsewhere == [] and seen.errors == []


def browser_test(function):
    for mark in in_browser:
        function = mark(function)
    return function


@browser_test
def test_the_script_draws_what_was_there_before_it(served):
    browser, base = served
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{base}/table.html")
    cells = "rows => rows.map(r => r.outerHTML)"
    before = re.findall(r"<tr>.*?</tr>", page.content().split("<tbody>")[1].split("</tbody>")[0])
    assert "50 more rows are not shown" in page.locator("noscript").inner_text()
    context.close()
    with visit(browser, base, "table.html") as seen:
        assert seen.page.locator("tbody tr").evaluate_all(cells) == before and len(before) == 10
        assert seen.page.locator("noscript").count() == 0


@browser_test
def test_headings_sort_numbers_and_texts_and_what_is_missing_stays_last(table):
    assert table.first()[0] == "0" and "Rows 1 to 10 of 60." in table.status.inner_text()
    table.click("density")
    assert table.first()[:2] == ["59", "58"] and table.heading("density").get_attribute("aria-sort") == "descending"
    assert "Sorted by density, largest first" in table.status.inner_text()
    table.click("density")
    assert table.first()[:2] == ["1", "2"] and table.heading("density").get_attribute("aria-sort") == "ascending"
    table.click("Last")
    assert {row[2] for row in table.rows()[-9:]} == {""}
    table.click("token")
    assert table.heading("density").get_attribute("aria-sort") is None
    assert "A to Z" in table.status.inner_text()
    table.click("Last")
    assert [row[3][0] for row in table.rows()[-4:]] == ["a"] * 4  # letters come after signs


@browser_test
def test_pages_turn_and_keep_the_focus_at_the_ends(table):
    table.click("Next")
    assert table.first()[0] == "10" and "Page 2 of 6" in table.root.inner_text()
    table.click("Last")
    last = table.root.get_by_role("button", name="Last", exact=True)
    assert table.first()[0] == "50" and last.get_attribute("aria-disabled") == "true"
    assert last.evaluate("e => e === document.activeElement")
    last.click(force=True)
    assert table.first()[0] == "50"
    table.root.locator("[data-size]").select_option("50")
    assert len(table.rows()) == 50 and "Page 1 of 2" in table.root.inner_text()


@browser_test
def test_a_search_looks_everywhere_and_takes_a_space_for_the_mark_of_one(table):
    find = table.root.locator("[data-find]")
    find.fill(" rome")
    assert table.first() == ["4", "12"] and "“ rome” anywhere (of 60)" in table.status.inner_text()
    find.fill("␣w16")
    assert table.first() == ["16"]
    find.fill("")
    assert len(table.rows()) == 10


@browser_test
def test_filters_by_column_are_met_together_and_an_empty_result_says_which_to_drop(table):
    table.open("Filter by column")
    table.filter("concept is").select_option("city")
    table.filter("density low").fill("0.03")
    assert table.first() == ["30", "33", "36", "39", "45", "48", "51", "54", "57"]  # 42 has no density
    table.filter("density high").fill("0.033")
    assert table.first() == ["30", "33"]
    table.filter("token has").fill("w31")
    assert table.first() == [] and table.status.inner_text() == (
        "No row meets all 4 conditions; without “concept is city” there would be 1, "
        "without “token contains “w31”” there would be 2.")
    table.click("Reset")
    assert len(table.rows()) == 10 and table.filter("density low").input_value() == ""
    assert table.filter("concept is").input_value() == "any value"
    table.filter("concept is").select_option("(empty)")
    assert table.first()[0] == "2" and "concept is empty" in table.status.inner_text()


@browser_test
def test_columns_are_hidden_and_shown(table):
    assert len(table.rows()[0]) == 5 and not table.root.locator("thead th").nth(4).is_visible()
    table.open("Filter by column")
    assert not table.filter("q low").is_visible()  # what is not shown is not in the way
    table.open("Choose columns")
    table.root.locator("[data-column=q]").check()
    assert table.filter("q low").is_visible()
    assert [row[4] for row in table.rows()[:6]] == ["1", "0.1", "0.01", "0.001", "0.0001", "1e−5"]
    table.root.locator("[data-column=token]").uncheck()
    assert len(table.rows()[0]) == 5 and not table.root.locator("thead th").nth(3).is_visible()


@browser_test
def test_what_is_saved_is_what_was_found_and_no_cell_is_a_formula(table):
    table.open("Filter by column")
    table.filter("latent high").fill("9")
    table.click("density")
    with table.page.expect_download() as download:
        table.click("Save 10 rows as CSV")
    assert download.value.suggested_filename == "latents.csv"
    text = Path(download.value.path()).read_bytes().decode("utf8")
    head, *rows = list(csv.reader(io.StringIO(text, newline="")))
    assert head == ["latent", "concept", "density", "token", "q", "alive"]
    assert [row[0] for row in rows] == ["9", "8", "6", "5", "4", "3", "2", "1", "0", "7"]
    by_latent = {row[0]: row for row in rows}
    assert by_latent["9"] == ["9", "city", "0.009", "'=1+1", "1e-9", "no"]
    assert by_latent["5"][3] == 'a "quoted", one' and by_latent["7"][2] == ""
    frame = pd.read_csv(io.StringIO(text))
    assert frame["q"].tolist() == [10.0**-i for i in (9, 8, 6, 5, 4, 3, 2, 1, 0, 7)]


@browser_test
def test_it_works_by_keyboard_alone(table):
    keys = table.page.keyboard
    keys.press("Tab")
    assert table.page.evaluate("document.activeElement.dataset.find") == ""
    keys.type("city")
    assert table.first()[0] == "0" and "anywhere" in table.status.inner_text()
    seen = []
    for _ in range(40):
        keys.press("Tab")
        seen.append(table.page.evaluate("document.activeElement.textContent"))
        if seen[-1].startswith("density"):
            break
    assert "Reset" in seen and seen[-1].startswith("density")
    assert table.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    keys.press("Enter")
    assert table.first()[0] == "57"
    assert table.page.evaluate("document.activeElement.textContent").startswith("density")  # the focus stays


@browser_test
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_is_accessible_in_both_themes(served, theme):
    browser, base = served
    with visit(browser, base, "table.html", theme) as seen:
        for summary in seen.page.locator("summary").all():
            summary.click()
        seen.page.evaluate(AXE.read_text("utf8"))
        report = seen.page.evaluate("axe.run(document)")
        found = [f"{v['id']}: {n['html'][:120]}" for v in report["violations"] for n in v["nodes"][:2]]
        assert found == [] and report["passes"]
        colours = seen.page.locator("tbody th").first.evaluate(
            "e => [getComputedStyle(e).backgroundColor, getComputedStyle(e).color]")
        assert (colours[0] == "rgb(255, 255, 255)") == (theme == "light") and colours[0] != colours[1]


@browser_test
def test_on_a_phone_only_the_table_scrolls_and_names_stay_in_sight(served):
    browser, base = served
    with visit(browser, base, "table.html", viewport=PHONE) as seen:
        for summary in seen.page.locator("summary").all():
            summary.click()
        assert seen.page.evaluate("document.scrollingElement.scrollWidth") <= PHONE["width"]
        box = seen.page.locator(".ms-scroll")
        assert box.evaluate("e => e.scrollWidth > e.clientWidth")
        name = seen.page.locator("tbody th").first
        left = name.bounding_box()["x"]
        box.evaluate("e => { e.scrollLeft = 200 }")
        assert name.bounding_box()["x"] == left


@browser_test
def test_two_tables_on_a_page_live_apart_and_a_click_on_the_map_finds_the_latent(served):
    browser, base = served
    with visit(browser, base, "site.html") as seen:
        first, second = Table(seen.page), Table(seen.page, 1)
        second.root.locator("[data-find]").fill("w40")
        assert second.first() == ["␣w40"] and len(first.rows()) == 25
        seen.page.wait_for_function("document.querySelector('.plotly-figure').dataset.drawn")
        dot = seen.page.locator(".plotly-figure .scatterlayer .point").nth(17)
        dot.scroll_into_view_if_needed()
        box = dot.bounding_box()
        seen.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        seen.page.wait_for_function("document.querySelectorAll('.ms-browser tbody tr').length < 10")
        assert first.first() == ["17"] and "latent at least 17" in first.status.inner_text()
        assert second.first() == ["␣w40"]  # it has no latents
        assert seen.elsewhere == [] and seen.errors == []


@browser_test
def test_all_latents_of_a_real_release_fit(served):
    browser, base = served
    with visit(browser, base, "big.html") as seen:
        table = Table(seen.page)
        table.click("latent1")
        assert table.first()[0] == "24575"
        table.root.locator("[data-find]").fill("w24000")
        assert table.first() == ["24000"]
