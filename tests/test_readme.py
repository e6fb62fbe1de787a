"""The README's examples are the demo's: the code always, the outputs and pictures once the site has been built."""

import re

import jupytext
import nbformat
import pytest
from browsing import ROOT
from pictures import PICTURES, PLACES
from readme import DEMO, EXAMPLE, README, Example, examples, executed, filled

SITE = ROOT / "_build" / "html"


def cell(source, *outputs, tags=("readme-one",)):
    return nbformat.v4.new_code_cell(source, outputs=list(outputs), metadata={"tags": list(tags)})


def stream(text, name="stdout"):
    return nbformat.v4.new_output("stream", name=name, text=text)


def value(text):
    return nbformat.v4.new_output("execute_result", data={"text/plain": text, "text/html": "<b>no</b>"})


def notebook(*cells):
    return nbformat.v4.new_notebook(cells=list(cells))


def test_an_example_is_the_code_what_it_printed_and_its_value():
    shown = examples(notebook(
        cell("x\n", stream("said  \n"), stream("warned", "stderr"), value("  a\n1 2 ")), cell("y", tags=["other"]),
    ))  # fmt: skip
    assert shown == {"readme-one": Example("x", "said\n  a\n1 2")}
    assert shown["readme-one"].markdown() == "```python\nx\n```\n\n```text\nsaid\n  a\n1 2\n```\n"


def test_only_what_stands_between_the_comments_is_replaced():
    readme = "a\n<!-- demo: readme-one -->\nold\n<!-- end of demo -->\nb\n"
    new = filled(readme, {"readme-one": Example("x", "1")})
    assert new == "a\n<!-- demo: readme-one -->\n```python\nx\n```\n\n```text\n1\n```\n<!-- end of demo -->\nb\n"
    assert filled(new, {"readme-one": Example("x", "1")}) == new
    assert filled(new, {"readme-one": Example("x", "2")}) != new


@pytest.mark.parametrize(
    ("readme", "shown", "said"),
    [
        ("<!-- demo: readme-two -->\n<!-- end of demo -->", {}, "no cell of book/demo.md"),
        ("<!-- demo: readme-one -->\n<!-- end of demo -->", {"readme-one": Example("x", "")}, "printed nothing"),
        ("<!-- demo: readme-one -->\nold\n", {"readme-one": Example("x", "1")}, "not closed"),
        ("<!-- demo: readme-one -->\n<!-- demo: readme-one -->\n<!-- end of demo -->",
         {"readme-one": Example("x", "1")}, "not closed"),
    ],
)  # fmt: skip
def test_an_example_that_cannot_be_filled_in_is_named(readme, shown, said):
    with pytest.raises(ValueError, match=said):
        filled(readme, shown)


def test_the_readme_shows_the_code_of_the_demo():
    cells = examples(jupytext.read(DEMO))
    shown = {name: body for _, name, body, _ in EXAMPLE.findall(README.read_text("utf8"))}
    assert set(shown) == set(cells) and len(shown) >= 2
    for name, body in shown.items():
        assert body.startswith(f"```python\n{cells[name].code}\n```\n\n```text\n"), name


def test_the_readme_shows_every_picture_that_is_taken():
    shown = re.findall(r"\]\(book/_static/pictures/(\w+)\.png\)", README.read_text("utf8"))
    assert sorted(shown) == sorted(PLACES)


@pytest.mark.browser
@pytest.mark.skipif(not SITE.is_dir(), reason="the site has not been built (make book)")
def test_the_readme_shows_what_the_demo_printed():
    readme = README.read_text("utf8")
    assert filled(readme, examples(executed())) == readme, "run: make pictures"


@pytest.mark.browser
@pytest.mark.skipif(not SITE.is_dir(), reason="the site has not been built (make book)")
def test_every_picture_has_its_figure_on_the_site():
    for page, section in PLACES.values():
        text = (SITE / page).read_text("utf8")
        after = text.split(f'id="{section}"', 1)
        assert len(after) == 2 and "plotly" in after[1].split("</section>")[0], section
    assert {f"{name}.png" for name in PLACES} <= {path.name for path in PICTURES.iterdir()}
