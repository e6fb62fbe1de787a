"""The chapters are run side by side before Sphinx looks: the right ones, once, and Sphinx recognises them."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book"))

import run_chapters  # noqa: E402

HEAD = """---
jupytext: {text_representation: {extension: .md, format_name: myst}}
kernelspec: {display_name: Python 3, language: python, name: python3}
---

"""
CELL = "```{{code-cell}} ipython3\n{}\n```\n"


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course of two chapters that run, one that fails, a page without code and a lab."""
    (tmp_path / "_toc.yml").write_text(
        "format: jb-book\nroot: book/index\nparts:\n  - caption: All\n    chapters:\n"
        + "".join(f"      - file: {page}\n" for page in ("book/a", "book/b", "book/broken", "book/words", "labs/l"))
    )
    (tmp_path / "book").mkdir()
    for name, code in {"a": "print(6 * 7)", "b": "print('b')", "broken": "1 / 0"}.items():
        (tmp_path / "book" / f"{name}.md").write_text(HEAD + CELL.format(code))
    (tmp_path / "book" / "words.md").write_text("# Words only\n")
    monkeypatch.setattr(run_chapters, "ROOT", tmp_path)
    monkeypatch.setattr(run_chapters, "CACHE", tmp_path / "_build" / ".jupyter_cache")
    return tmp_path


def test_only_pages_with_code_are_chapters(course):
    assert [page.stem for page in run_chapters.chapters()] == ["a", "b", "broken"]


def test_every_chapter_of_the_course_is_one():
    names = {page.relative_to(ROOT).as_posix() for page in run_chapters.chapters()}
    assert {"book/01_setup_and_exploration.md", "solutions/05_feature_analysis.md", "book/findings.md"} <= names
    assert not [name for name in names if name.startswith("labs/")] and "book/glossary.md" not in names


def test_what_ran_is_in_the_cache_and_what_failed_is_left(course, capfd):
    from jupyter_cache import get_cache
    from myst_nb.core.read import read_myst_markdown_notebook

    run_chapters.main()
    out = capfd.readouterr().out
    assert "Running 3 chapters" in out and "book/a.md:" in out and "broken.md" not in out

    def as_sphinx_reads(name):  # the very notebook that MyST-NB looks up
        text = (course / "book" / f"{name}.md").read_text()
        return read_myst_markdown_notebook(text, add_source_map=True)

    cache = get_cache(run_chapters.CACHE)
    for name, shown in (("a", "42\n"), ("b", "b\n")):
        _, notebook = cache.merge_match_into_notebook(as_sphinx_reads(name))
        assert notebook.cells[-1].outputs[0]["text"] == shown
    with pytest.raises(KeyError):
        cache.match_cache_notebook(as_sphinx_reads("broken"))
    run_chapters.main()  # a second time: one chapter is left, which is Sphinx's
    assert "Running" not in capfd.readouterr().out
