"""The chapters are run side by side before Sphinx looks: the right ones, once, and Sphinx recognises them."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book"))

import build  # noqa: E402
import run_chapters  # noqa: E402

HEAD = """---
jupytext: {text_representation: {extension: .md, format_name: myst}}
kernelspec: {display_name: Python 3, language: python, name: python3}
---

"""
CELL = "```{{code-cell}} ipython3\n{}\n```\n"
TAGGED = "```{{code-cell}} ipython3\n:tags: [raises-exception]\n\n{}\n```\n"
#: Everything a chapter may show, and a cell that shows nothing.
RICH = [
    CELL.format("import os, subprocess, sys, time\nfrom IPython.display import HTML, clear_output, display"),
    CELL.format("print('out')\nprint('err', file=sys.stderr)\nHTML('<b>bold</b>')"),
    CELL.format(""),
    CELL.format("6 * 7;"),
    CELL.format("print('gone')\nclear_output()\nhandle = display('first', display_id='one')"),
    CELL.format("handle.update('second')\n6 * 7"),
    # What is written below Python arrives a moment later: wait, or on a busy machine the cell is over before it.
    CELL.format("subprocess.run([sys.executable, '-c', 'print(1)'])\nos.write(2, b'from below') and time.sleep(2)"),
    TAGGED.format("{}['a']"),
    CELL.format("_, len(Out), In[-2], os.getcwd()"),
]


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


def as_sphinx_reads(page):
    """The very notebook that MyST-NB looks up."""
    from myst_nb.core.read import read_myst_markdown_notebook

    return read_myst_markdown_notebook(page.read_text(), add_source_map=True)


def cached(folder, page):
    """What Sphinx finds in a cache; a KeyError when it finds nothing."""
    from jupyter_cache import get_cache

    return get_cache(folder).merge_match_into_notebook(as_sphinx_reads(page))[1]


def shown(notebook):
    """What each cell shows. How a text is cut into pieces is left to chance: Sphinx puts them together."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [
        (cell.source, cell.execution_count,
         *["".join(o.text for o in cell.outputs if o.get("name") == name) for name in ("stdout", "stderr")],
         [output for output in cell.outputs if output.output_type != "stream"])
        for cell in cells
    ]


def run_with_nbval(course, *what):
    """Run chapters as `make test` does, and keep what they show in `kept`; returns what pytest says."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "conftest", "--nbval-lax",
               "--nbval-current-env", "--keep-results", str(course / "kept"), "--rootdir", str(course), *what]
    surroundings = build.environment() | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=course, env=surroundings, capture_output=True, text=True).stdout


def test_only_pages_with_code_are_chapters(course):
    assert [page.stem for page in run_chapters.chapters()] == ["a", "b", "broken"]


def test_every_chapter_of_the_course_is_one():
    names = {page.relative_to(ROOT).as_posix() for page in run_chapters.chapters()}
    assert {"book/01_setup_and_exploration.md", "solutions/05_feature_analysis.md", "book/findings.md"} <= names
    assert not [name for name in names if name.startswith("labs/")] and "book/glossary.md" not in names


def test_what_ran_is_in_the_cache_and_what_failed_is_left(course, capfd):
    run_chapters.main()
    out = capfd.readouterr().out
    assert "Running 3 chapters" in out and "book/a.md:" in out and "broken.md" not in out

    for name, shown in (("a", "42\n"), ("b", "b\n")):
        notebook = cached(run_chapters.CACHE, course / "book" / f"{name}.md")
        assert notebook.cells[-1].outputs[0]["text"] == shown
    with pytest.raises(KeyError):
        cached(run_chapters.CACHE, course / "book" / "broken.md")
    run_chapters.main()  # a second time: one chapter is left, which is Sphinx's
    assert "Running" not in capfd.readouterr().out


def test_what_nbval_ran_as_a_whole_shows_what_it_would_have_shown_here(course, capfd, monkeypatch):
    pages = {name: course / "book" / f"{name}.md" for name in ("a", "b", "broken", "widget", "cut")}
    for name in ("a", "b"):
        pages[name].write_text(HEAD + "".join(RICH) + CELL.format(f"print({name!r})"))
    pages["widget"].write_text(
        HEAD + CELL.format("from comm import create_comm\ncomm = create_comm(target_name='x', data={})"))
    pages["cut"].write_text(HEAD + CELL.format("print(1)") + CELL.format("print(2)"))
    whole = [f"book/{name}.md" for name in ("a", "b", "broken", "widget")]
    said = run_with_nbval(course, *whole, "book/cut.md::Cell 1")
    assert "1 failed, 22 passed in" in said  # and no error
    monkeypatch.delenv("PYTEST_CURRENT_TEST")  # a kernel that sees it does not hear `from below`
    run_chapters.main()
    assert "Running 3 chapters" in capfd.readouterr().out
    for name in ("a", "b"):
        kept, own = (cached(folder, pages[name]) for folder in (course / "kept", run_chapters.CACHE))
        assert kept.metadata == own.metadata and shown(kept) == shown(own)
        outputs = [output for cell in kept.cells if cell.cell_type == "code" for output in cell.outputs]
        assert {output["output_type"] for output in outputs} == {"stream", "display_data", "execute_result", "error"}
        written = "".join(output.get("text", "") for output in outputs)
        assert "from below" in written and "gone" not in written and "first" not in str(outputs)
    for name in ("broken", "widget", "cut"):
        with pytest.raises(KeyError):
            cached(course / "kept", pages[name])


@pytest.mark.parametrize("page", run_chapters.chapters(), ids=lambda page: f"{page.parent.name}/{page.stem}")
def test_nbval_and_sphinx_read_the_same_code(page):
    """Otherwise nothing could be kept, and every chapter would run twice."""
    import jupytext

    def code(notebook):
        return [cell.source for cell in notebook.cells if cell.cell_type == "code"]

    assert code(jupytext.read(page)) == code(as_sphinx_reads(page)) != []
