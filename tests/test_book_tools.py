"""The small programs that make the site: what they name, what they remember, and when they start afresh."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "book"), str(ROOT / "book" / "_ext")]

import accessible  # noqa: E402
import build  # noqa: E402
import offline_figures  # noqa: E402
import run  # noqa: E402


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty course: `build` believes that it lives here."""
    monkeypatch.setattr(build, "ROOT", tmp_path)
    monkeypatch.setattr(build, "BUILD", tmp_path / "_build")
    monkeypatch.setattr(build, "STATE", tmp_path / "_build" / "state.json")
    for name in (".jupyter_cache", ".doctrees", "html"):
        (tmp_path / "_build" / name).mkdir(parents=True)
    return tmp_path


def left(folder):
    return {p.name for p in (folder / "_build").iterdir() if p.is_dir()}


def test_fingerprint_sees_contents_names_and_extras(folder):
    (folder / "a.py").write_text("1")
    first = build.fingerprint(["*.py"])
    assert first == build.fingerprint(["*.py"]) != build.fingerprint(["*.py"], "gpt2-small")
    (folder / "a.py").write_text("2")
    second = build.fingerprint(["*.py"])
    (folder / "a.py").rename(folder / "b.py")
    assert len({first, second, build.fingerprint(["*.py"])}) == 3


@pytest.mark.parametrize(
    ("before", "kept"),
    [
        ({"results": "r", "pages": "p", "ok": True}, {".jupyter_cache", ".doctrees", "html"}),
        ({"results": "r", "pages": "p", "ok": False}, {".jupyter_cache"}),  # never green after a failure
        ({"results": "r", "pages": "old", "ok": True}, {".jupyter_cache"}),
        ({"results": "old", "pages": "p", "ok": True}, {".jupyter_cache"}),
        ({}, {".jupyter_cache"}),
    ],
)
def test_what_is_stale_is_forgotten(folder, before, kept):
    build.STATE.write_text(json.dumps(before))
    cache = folder / "_build" / ".jupyter_cache"
    (cache / build.MADE_FROM).write_text("r")
    build.forget_what_is_stale({"results": "r", "pages": "p"})
    assert left(folder) == kept
    assert not build.STATE.exists()  # an interrupted build counts as a failed one


@pytest.mark.parametrize(("made_from", "kept"), [("r", True), ("old", False), (None, False)])
def test_results_are_kept_as_long_as_they_follow_wherever_the_cache_was_carried(folder, made_from, kept):
    cache = folder / "_build" / ".jupyter_cache"
    (cache / "results").touch()
    if made_from:
        (cache / build.MADE_FROM).write_text(made_from)
    for _ in range(2):  # the second time it is the new one's own
        build.forget_what_is_stale({"results": "r", "pages": "p"})
        assert (cache / "results").exists() is kept
    assert (cache / build.MADE_FROM).read_text() == "r"


@pytest.mark.parametrize(("steps", "kept"), [([], True), (["notebooks", "site"], True), (["unit", "notebooks"], False)])
def test_what_nbval_ran_is_kept_for_a_site_that_is_built_right_afterwards(tmp_path, monkeypatch, steps, kept):
    asked = {}
    monkeypatch.setattr(run, "REPORTS", tmp_path)
    result = run.Result(code=0, seconds=0)
    monkeypatch.setattr(run, "run_step", lambda name, keep_results: asked.update({name: keep_results}) or result)
    assert run.main(steps) == 0
    assert asked.pop("notebooks") is kept and not any(asked.values())


def test_a_failed_build_is_remembered(folder, monkeypatch):
    for code, ok in ((1, False), (0, True)):
        monkeypatch.setattr(build, "jupyter_book", lambda code=code: code)
        monkeypatch.setattr(build, "SITE", folder / "_build" / "html")
        assert build.main() == code
        assert json.loads(build.STATE.read_text())["ok"] is ok


def test_cold_forgets_everything_and_pages_lays_it_out(folder, monkeypatch):
    html = folder / "_build" / "html"

    def made(code=0):
        assert not (html / "old.html").exists()
        (html / "reports").mkdir(parents=True)
        (html / "_static").mkdir()
        (html / "_static" / "a.js").touch()
        return code

    monkeypatch.setattr(build, "jupyter_book", made)
    monkeypatch.setattr(build, "run_chapters", lambda: None)
    monkeypatch.setattr(build, "SITE", html)
    (html / "old.html").touch()
    (folder / "_build" / ".jupyter_cache" / build.MADE_FROM).write_text("r")
    monkeypatch.setattr(build, "fingerprint", lambda *patterns: "r")
    build.STATE.write_text(json.dumps({"results": "r", "pages": "r", "ok": True}))
    assert build.main(["--cold", "--pages"]) == 0
    pages = folder / "_build" / "pages"
    assert {p.name for p in pages.iterdir()} == {"_static", ".nojekyll"} and (pages / "_static" / "a.js").exists()


def test_chapters_depend_on_modules_artefacts_and_pins():
    files = {p.relative_to(ROOT).as_posix() for pattern in build.RESULTS for p in ROOT.glob(pattern)}
    needed = {"solutions/models/running.py", "requirements.txt", "constraints.txt", "solutions/smallworld/corpus.py"}
    assert needed <= files
    read = [p.relative_to(ROOT) for p in (ROOT / "solutions").rglob("*")
            if p.is_file() and p.suffix not in {".md", ".pyc"}]
    unknown = {p.as_posix() for p in read if not any(part.startswith(".") for part in p.parts)} - files
    assert not unknown, "a page may show what stands in these files, and would not be made anew when they change"


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        ({"title": {"text": "Loss<br><i>nats</i>"}}, "Loss nats"),
        ({"title": "Loss"}, "Loss"),
        ({"title": {"text": "Loss"}, "meta": {"alt": "Loss falls"}}, "Loss falls"),
        ({"meta": ["x"]}, ""),
        ({}, ""),
    ],
)
def test_a_figure_is_named_by_alt_text_or_title(layout, name):
    assert offline_figures.figure_name({"layout": layout}) == name


def test_signatures_of_several_lines_are_no_definition_lists():
    context = {"body": '<dt>f(<dl>\n<dd><em>x</em>,</dd>\n</dl>\n)</dt><div role="doc-biblioentry">'}
    accessible.repair(None, "api", "page.html", context, None)
    assert "<dl>" not in context["body"] and '<span class="sig-line"><em>x</em>,</span>' in context["body"]
    assert 'role="listitem"' in context["body"]


def test_the_list_of_modules_is_one_list():
    body = "<h1>All</h1><ul><li>a</li>\n<ul><li>a.b</li>\n<ul><li>a.b.c</li>\n</ul></ul><li>d</li>\n</ul>"
    for page, items in (("_modules/index", 4), ("api", 4)):
        context = {"body": body}
        accessible.repair(None, page, "page.html", context, None)
        assert context["body"].count("<li>") == context["body"].count("</li>") == items
        assert context["body"].count("<ul>") == context["body"].count("</ul>") == (1 if page != "api" else 3)
