"""The feature page as HTML: self-contained, whole, safe with any token, readable in light and dark."""

import os
import re
import threading
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import axe_playwright_python
import pytest
import torch
from browsing import PHONE, chromium_path, launch, serve, visit

from solutions import analysis, visualization
from solutions.errors import InputError
from solutions.visualization.page_style import INKS, LEVELS, PAPER, STYLE, level_of, shade
from solutions.visualization.style import contrast_ratio

NASTY = [
    "<script>alert(1)</script>", " &amp;", "\n", "\x00\x1b", "\u202eabc", " 👩‍👩‍👧", " שלום", "\u0301", "\ud800",
    '" onmouseover="alert(1)', "' x", "", "   ", "</style>", "<!--", "&#0;", "w" * 3000, "‹", "\u2028", "{{7*7}}",
]
VOID = {"meta", "link", "br", "line"}
AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")
needs_chromium = pytest.mark.skipif(chromium_path() is None, reason="no Chromium on the path (chromium, google-chrome)")


class Outline(HTMLParser):
    """The elements of a document, checked for being closed in the right order, and the text in it."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.words, self.open = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "title"):
            self.words.append(data)

    @property
    def text(self):
        return "".join(self.words)

    def named(self, kind):
        return [attributes for _, attributes in self.elements if kind in attributes.get("class", "").split()]


def page(tokens=None, **more):
    """A page of four intervals; `tokens` replace those of the strongest example."""
    acts = torch.relu(torch.linspace(-3, 5, 8 * 12)[torch.randperm(96, generator=torch.Generator().manual_seed(1))])
    texts = [[f" w{i}" for i in range(12)]] * 8
    logits = ([(" yes", 2.0), ("<b>", 1.0)], [(" no", -2.0)])
    made = analysis.feature_page(acts.reshape(8, 12), torch.ones(8, 12, dtype=torch.bool), texts, 42, logits)
    if tokens:
        values = [made.maximum * (i % 3) / 2 for i in range(len(tokens))]
        first = made.intervals[0]
        example = first.examples[0]._replace(tokens=tokens, activations=values, peak=2)
        made = made._replace(intervals=[first._replace(examples=[example]), *made.intervals[1:]])
    return made._replace(**more)


CONCEPT = {"name": "city <of>", "precision": 0.91, "recall": 0.44, "f1": 0.593, "lookup_f1": 0.68}
FULL = {"neighbours": [(7, 0.61), (99, 0.42)], "companions": [(12, 0.3)], "concept": CONCEPT}


def dead():
    return analysis.feature_page(torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool), [["a", "b"]], latent=3)


def test_the_page_shows_all_that_is_known():
    full = page(**FULL)
    html = visualization.feature_page_html(full, target_note="made up · a hook")
    outline = Outline(html)
    assert html.startswith("<!doctype html>") and "made up · a hook" in outline.text
    examples = sum(len(interval.examples) for interval in full.intervals)
    assert len(outline.named("ms-text")) == examples
    assert len(outline.named("pk")) == examples
    assert len(outline.named("ms-range")) == len(full.intervals)
    for interval in full.intervals:
        assert f"{interval.low:.3g} to {interval.high:.3g}" in outline.text
        assert f"{interval.n_tokens:,} tokens, {100 * interval.n_tokens / full.n_active:.0f} %" in outline.text
    assert f"{full.n_active:,} of {full.n_tokens:,}" in outline.text
    assert f"{100 * full.density:.3g} % of tokens" in outline.text
    for shown in ("␣yes", "␣no", "latent 7", "0.61", "latent 12", "0.3", "city <of>", "0.91", "0.44", "0.59", "0.68"):
        assert shown in outline.text
    assert "behind the token lookup" in outline.text
    bars = [tag for tag, _ in outline.elements if tag == "rect"]
    assert len(bars) == sum(count > 0 for count in full.counts)
    rows = re.findall(r'<th scope="row">[^<]* to [^<]*</th><td class="ms-number">([\d,]+)</td>', html)
    assert [int(row.replace(",", "")) for row in rows] == full.counts


def test_every_active_token_can_be_reached_and_tells_its_value():
    full = page()
    outline = Outline(visualization.feature_page_html(full))
    marks = [attributes for tag, attributes in outline.elements if tag == "mark"]
    active = sum(v > 0 for i in full.intervals for e in i.examples for v in e.activations)
    assert len(marks) == active and all(mark["tabindex"] == "0" for mark in marks)
    strongest = full.intervals[0].examples[0]
    assert f"({strongest.activations[strongest.peak]:.3g}, the token chosen)" in outline.text


def test_shading_follows_the_values():
    assert [level_of(v, 8.0) for v in (0, 0.001, 1, 4, 8, 9, -8, float("nan"))] == [0, 1, 1, 4, 8, 8, 8, 0]
    html = visualization.shaded_html(["a", "b", "c", "d"], [0.0, 4.0, 2.0, -4.0])
    kinds = [attributes["class"] for tag, attributes in Outline(html).elements if tag == "mark"]
    assert kinds == ["t p8", "t p4", "t n8"]
    assert "(−4)" in html
    assert [a["class"] for t, a in Outline(visualization.shaded_html(["a"], torch.tensor([1.0]), maximum=8.0)).elements
            if t == "mark"] == ["t p1"]


def test_a_line_break_breaks_the_line_and_what_follows_it_stands_on_the_next():
    html = visualization.shaded_html(["x", ":\n   ", " return", "\n"], [0.0, 1.0, 0.0, 0.0])
    assert re.search(r'<mark class="t p8 ms-lines" tabindex="0">:↵<br>   <span', html)
    assert Outline(html).text.startswith("x:↵    (1) return↵")


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_text_reads_on_every_shade_in_both_modes(mode):
    shades = [shade(mode, sign, level) for sign in "pn" for level in range(1, LEVELS + 1)]
    assert min(contrast_ratio(*pair) for pair in shades) >= 4.5
    inks = INKS[mode]
    for background in (PAPER[mode], inks["card"]):
        assert min(contrast_ratio(inks[name], background) for name in ("text", "muted")) >= 4.5
    assert min(contrast_ratio(inks[name], PAPER[mode]) for name in ("pos", "neg", "focus")) >= 3  # shapes need less


def test_it_asks_nobody_and_runs_nothing():
    html = visualization.feature_page_html(page(NASTY, **FULL), neuronpedia="https://www.neuronpedia.org/a/1")
    outline = Outline(html)
    assert not {tag for tag, _ in outline.elements} & {"script", "img", "iframe", "object", "embed", "form", "input"}
    assert [(tag, a["href"]) for tag, a in outline.elements if "href" in a or "src" in a] == [
        ("link", "data:,"), ("a", "https://www.neuronpedia.org/a/1"),
    ]
    assert not [a for _, a in outline.elements if any(name.startswith("on") for name in a)]
    assert "url(" not in STYLE and "@import" not in STYLE
    assert "default-src 'none'" in html


def test_all_text_is_escaped_and_nothing_invisible_is_left():
    html = visualization.feature_page_html(
        page(NASTY, **FULL), title="<h1>&\u202e", target_note="</p><script>x</script>", unit="<unit>",
        companion_measure="<measure>",
    )
    outline = Outline(html)
    for shown in ("<script>alert(1)</script>", " &amp;", "↵", "␀␛", "⟨U+202E⟩abc", " 👩‍👩‍👧", "◌\u0301", "⟨U+D800⟩",
                  '" onmouseover="alert(1)', "∅", "␣␣␣", "</style>", "<!--", "&#0;", "<unit>", "<measure>", "{{7*7}}"):
        assert shown in outline.text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202a-\u202e\u2028\ud800-\udfff]", html)
    html.encode("utf-8")


def test_a_dead_latent_has_a_page_that_says_so():
    html = visualization.feature_page_html(dead())
    assert "never active on 2 tokens" in Outline(html).text and "<svg" not in html


def test_a_page_without_the_newer_fields_is_shown():
    old = SimpleNamespace(**{k: v for k, v in page()._asdict().items() if k not in FULL})
    text = Outline(visualization.feature_page_html(old)).text
    assert "Other latents" not in text and "concept" not in text


def test_numbers_that_are_none_are_said_so():
    odd = page(["a", "b", "c"])
    first = odd.intervals[0]
    example = first.examples[0]._replace(activations=[float("nan"), float("inf"), 1.0], peak=0)
    text = Outline(visualization.feature_page_html(odd._replace(intervals=[first._replace(examples=[example])]))).text
    assert "(not a number, the token chosen)" in text and "(∞)" in text


def test_the_notebook_shows_the_same_page_without_a_document_around_it():
    full = page(**FULL)
    view = visualization.show_page(full, level=4)
    html = view._repr_html_()
    assert "<html" not in html and "<title" not in html.replace("<title>", "", html.count("<rect"))
    assert '<h4 class="ms-name">Latent 42</h4>' in html and '<h6 class="ms-range">' in html
    assert "Feature page of latent 42" in repr(view)
    assert "try your own text" not in html and "try your own text" in visualization.feature_page_html(full)
    standalone = Outline(visualization.feature_page_html(full, try_it=False))
    assert Outline(html).text.split() == standalone.text.split()


def test_several_pages_are_folded_with_the_style_once():
    html = visualization.show_pages([page(), dead()], ["<One>", "Two"])._repr_html_()
    assert html.count("<style>") == 1 and html.count("<details class=\"ms-fold\" open>") == 1
    assert html.count("ms-fold\"") == 2 and "<summary>&lt;One&gt;</summary>" in html
    Outline(html)


def test_a_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = visualization.save_page(page(), tmp_path / "latent.html")
    assert path.read_text("utf8") == visualization.feature_page_html(page())
    before = path.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        visualization.save_page(dead(), path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["latent.html"]


def test_many_writers_leave_one_whole_page(tmp_path):
    pages = [page(title_) for title_ in (None, NASTY)]
    writers = [threading.Thread(target=visualization.save_page, args=(p, tmp_path / "a.html")) for p in pages * 4]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert (tmp_path / "a.html").read_text("utf8") in [visualization.feature_page_html(p) for p in pages]
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("call, says", [
    (lambda: visualization.feature_page_html(page(), neuronpedia="javascript:alert(1)"), "https://"),
    (lambda: visualization.feature_page_html(page(concept={"f1": 1.0})), "'name'"),
    (lambda: visualization.show_pages([]), "at least one"),
    (lambda: visualization.show_pages([page()], ["a", "b"]), "expected 1"),
    (lambda: visualization.save_page(page(), "no/such/folder/a.html"), "no folder"),
    (lambda: visualization.shaded_html(["a"], [1.0, 2.0]), "1 tokens and 2 values"),
])
def test_bad_input_is_named(call, says):
    with pytest.raises(InputError, match=says):
        call()


# ---- in a browser


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    visualization.save_page(page(NASTY, **FULL), folder / "full.html", target_note="made up")
    visualization.save_page(dead(), folder / "dead.html")
    with serve(folder) as base, launch() as browser:
        yield browser, base


@needs_chromium
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_in_a_browser_it_is_quiet_accessible_and_follows_the_theme(served, theme):
    browser, base = served
    for name in ("full.html", "dead.html"):
        with visit(browser, base, name, theme) as seen:
            assert seen.elsewhere == [] and seen.errors == []
            seen.page.evaluate(AXE.read_text("utf8"))
            report = seen.page.evaluate("axe.run(document)")
            found = [f"{v['id']}: {n['html'][:120]}" for v in report["violations"] for n in v["nodes"][:2]]
            assert found == [] and report["passes"]
            if name == "full.html":
                paint = "e => [getComputedStyle(e).backgroundColor, getComputedStyle(e).color]"
                shown = seen.page.locator("mark.p8").first.evaluate(paint)
                background, ink = shade(theme, "p", LEVELS)
                assert shown == [rgb(background), rgb(ink)]  # the shade is there, and nothing paints over it


def rgb(colour):
    return "rgb({}, {}, {})".format(*(int(colour[i : i + 2], 16) for i in (1, 3, 5)))


@needs_chromium
def test_values_show_on_hovering_and_by_keyboard_and_nothing_leaves_a_phone(served):
    browser, base = served
    with visit(browser, base, "full.html", viewport=PHONE) as seen:
        assert seen.page.evaluate("document.scrollingElement.scrollWidth") <= PHONE["width"]
        mark = seen.page.locator("mark").first
        size = "e => e.querySelector('.v').getBoundingClientRect().width"
        assert mark.evaluate(size) <= 1
        mark.hover()
        assert mark.evaluate(size) > 10
        seen.page.mouse.move(0, 0)
        seen.page.keyboard.press("Tab")
        assert seen.page.evaluate("document.activeElement.matches('mark')")
        assert seen.page.locator("mark:focus").evaluate(size) > 10
