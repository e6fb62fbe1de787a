"""The capstone: a log that remembers, a rubric that looks, and a starter that runs untouched and filled in."""

import dataclasses
import json
import re
from pathlib import Path

import jupytext
import nbformat
import numpy as np
import pytest
import torch

from labs.investigation import ROLES, Investigation, Prediction, f1, hits, interval
from labs.rubric import RUBRIC, band
from solutions import make_labs
from solutions.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
STARTER = ROOT / "labs" / "capstone.ipynb"
EFFECT = np.linspace(0.8, 1.2, 20)  # per document: the mean is 1


def predicted(study, number="effect", limit="below 0.5"):
    study.ask("Does the latent cause it?", why_open="Nobody has changed it.")
    study.predict("Pushing it raises the words.", number, limit, "2026-11-26")
    return study


def filled(log=None):
    """An investigation in which nothing is missing."""
    study = predicted(Investigation(log))
    study.method(model="m", seeds=[0], texts=20, SAE="s") or study.settings.update({"hook point": "h"})
    study.tried("latent 3", 0.7)
    study.result("effect", EFFECT, role="cause")
    study.result("seen", EFFECT / 2)
    for of in ("effect", "seen"):
        study.result(f"list for {of}", EFFECT / 10, role="baseline", of=of)
        study.result(f"luck for {of}", EFFECT / 20, role="control", of=of)
    study.result("luck again", EFFECT / 20, role="control", of="effect")
    study.result("loss", EFFECT / 5, role="damage", of="effect")
    study.not_found("an effect of the weak half", learned="it is noise")
    return study


# ---- numbers


def test_an_interval_is_over_the_units_and_holds_the_mean():
    value, low, high = interval(EFFECT)
    assert value == pytest.approx(1) and low < 1 < high
    assert high - low == pytest.approx(4 * EFFECT.std() / len(EFFECT) ** 0.5, rel=0.15)
    assert interval(EFFECT) == interval(EFFECT) != interval(EFFECT, seed=1)
    assert interval(np.full(5, 2.0)) == (2, 2, 2)


def test_f1_is_that_of_all_tokens_and_its_interval_that_of_documents():
    generator = torch.Generator().manual_seed(0)
    said, true = (torch.rand(400, generator=generator) < 0.3 for _ in range(2))
    documents = torch.arange(400) // 10
    value, low, high = interval(hits(said, true, documents), f1)
    assert value == pytest.approx(2 * int((said & true).sum()) / int(said.sum() + true.sum()))
    assert low < value < high and hits(said, true, documents).shape == (40, 3)
    assert f1(np.zeros(3)) == 0


@pytest.mark.parametrize("bad", [1.0, [1.0], [1.0, float("nan")], np.ones((3, 2))])
def test_one_number_alone_has_no_interval(bad):
    with pytest.raises(InputError):
        interval(bad)


# ---- predictions


@pytest.mark.parametrize(("limit", "verdict"), [
    ("below 0.5", "kept"), ("below 1.5", "refuted"), ("above 1.5", "kept"), ("above 0.5", "refuted"),
    ("below 1.0", "undecided"),
])  # fmt: skip
def test_the_interval_decides(limit, verdict):
    study = predicted(Investigation(), limit=limit)
    study.result("effect", EFFECT, role="cause")
    assert study.verdicts()["verdict"].tolist() == [verdict]


def test_without_a_prediction_no_result_is_shown_or_noted(tmp_path, capsys):
    study = Investigation(tmp_path / "log.jsonl")
    study.ask("")
    study.predict("", number="effect", refuted_if="", written="")
    study.result("effect", EFFECT, role="cause")
    study.tried("latent 3", 0.7)
    said = capsys.readouterr().out
    assert "Still empty: sentence, refuted_if, written" in said and "not shown" in said
    assert not re.search(r"\d\.\d", said) and study.found == {} and not (tmp_path / "log.jsonl").exists()


@pytest.mark.parametrize("change", [{"limit": "below 0.1"}, {"limit": "above 0.5"}])
def test_a_prediction_that_was_changed_after_its_result_is_found_out(tmp_path, change, capsys):
    log = tmp_path / "log.jsonl"
    predicted(Investigation(log)).result("effect", EFFECT, role="cause")
    again = predicted(Investigation(log), **change)  # the next day, in a fresh kernel
    again.result("effect", EFFECT, role="cause")
    assert again.verdicts()["verdict"].tolist() == ["found afterwards"]
    assert any("changed after its result had been seen; before, it was refuted below 0.5" in t for t in again.missing())
    assert "found afterwards" in capsys.readouterr().out
    same = predicted(Investigation(log))
    same.result("effect", EFFECT, role="cause")
    assert same.verdicts()["verdict"].tolist() == ["kept"]


def test_it_may_be_changed_before_the_result(tmp_path):
    log = tmp_path / "log.jsonl"
    predicted(Investigation(log))
    study = predicted(Investigation(log), limit="below 0.1")
    study.result("effect", EFFECT, role="cause")
    assert study.verdicts()["verdict"].tolist() == ["kept"]


def test_a_prediction_for_a_result_that_is_known_comes_too_late():
    study = predicted(Investigation(), number="another")
    study.result("effect", EFFECT, role="cause")
    study.predict("I knew it.", "effect", "below 0.9", "2026-11-26")
    assert study.verdicts()["verdict"][1] == "found afterwards"
    assert any("written after its result" in text for text in study.missing())


@pytest.mark.parametrize(("limit", "day"), [("under 3", "2026-11-26"), ("below", "2026-11-26"), ("below 1", "today")])
def test_limits_and_dates_have_to_be_readable(limit, day):
    with pytest.raises(InputError, match="must"):
        Investigation().predict("x", "y", limit, day)


# ---- tries, the test half, repetition


def test_tries_are_counted_once_and_those_after_the_test_half_was_opened_apart(tmp_path):
    log, test = tmp_path / "log.jsonl", torch.tensor([True, False])
    for _ in range(2):  # the second run tries the same things again
        study = predicted(Investigation(log))
        study.split(test)
        study.tried("a", 0.1)
        study.tried("b", 0.2)
        assert study.development.tolist() == [False, True] and study.test.tolist() == [True, False]
    assert study.tries() == (2, 0)
    study.tried("c", 0.3)
    assert study.tries() == (3, 1)
    study.result("effect", EFFECT, role="cause")
    assert any("1 of them after the test half" in row.here for row in study.judged())


def test_documents_are_split_once():
    study = Investigation()
    with pytest.raises(InputError, match="not split"):
        _ = study.test
    study.split(torch.tensor([True, False]))
    with pytest.raises(InputError, match="differently"):
        study.split(torch.tensor([False, True]))


def test_a_second_run_with_the_same_numbers_is_recognised(tmp_path):
    log = tmp_path / "log.jsonl"
    assert not filled(log).repeated()
    with log.open("a") as file:
        file.write('{"what": "res')  # cut off
        file.write("\n")
    assert filled(log).repeated()
    other = filled(log)
    other.result("seen", EFFECT)  # another number under the same name
    assert not other.repeated()


# ---- the rubric


def test_the_rows_and_bands_are_those_of_the_page():
    page = (ROOT / "book" / "capstone.md").read_text("utf8")
    assert tuple(re.findall(r"^\| \*\*(.+?)\*\* \|", page, re.M)) == RUBRIC
    for total, words in ((7, "Fewer than 8"), (8, "From 8 to 15"), (15, "From 8 to 15"), (16, "From 16 to 20"),
                         (20, "From 16 to 20"), (21, "More than 20"), (24, "More than 20")):
        assert f"{words} points: {band(total)}" in page or f"{words}: {band(total)}" in page, total


def test_everything_there_gives_a_complete_list(tmp_path):
    filled(tmp_path / "log.jsonl")
    study = filled(tmp_path / "log.jsonl")
    assert study.missing() == [] and [row.most for row in study.judged()] == [3] * 8


#: What to leave out, and what the list must then ask for.
GAPS = {
    "question": (lambda s: setattr(s, "question", "A topic."), "a question"),
    "why": (lambda s: setattr(s, "why_open", ""), "why the answer was open"),
    "prediction": (lambda s: s.predictions.clear(), "a prediction"),
    "number": (lambda s: s.found.pop("effect"), "the result `effect`"),
    "baseline": (lambda s: s.found.pop("list for seen"), "a baseline for `seen`"),
    "control": (lambda s: s.found.pop("luck for seen"), "a control for `seen`"),
    "damage": (lambda s: s.found.pop("loss"), "a damage for what was changed"),
    "cause": (lambda s: s.found.update(effect=s.found["effect"]._replace(role="finding")), "something was changed"),
    "second": (lambda s: s.found.pop("seen"), "a second result"),
    "negative": (lambda s: s.without.clear(), "what you did not find"),
    "learned": (lambda s: s.without.update({"x": ""}), "what was learned from"),
    "seeds": (lambda s: s.settings.pop("seeds"), "`seeds` in the method"),
}


@pytest.mark.parametrize(("leave_out", "asked"), GAPS.values(), ids=list(GAPS))
def test_whatever_is_left_out_is_asked_for(leave_out, asked):
    study = filled()
    assert study.missing() == []
    leave_out(study)
    assert any(asked in text for text in study.missing())


def test_nothing_done_is_worth_nothing(capsys):
    study = Investigation()
    assert [row.most for row in study.judged()] == [0] * 8 and all(row.missing for row in study.judged())
    study.checklist()
    assert "0 of 8 rows are complete" in capsys.readouterr().out


def test_points_above_what_can_be_seen_ask_for_a_reason(capsys):
    study = filled()
    study.score(question=2, prediction=2, baseline=2, control=3, cause=3, uncertainty=3, negative=3, can=2)
    study.checklist()
    said = capsys.readouterr().out
    assert "You give yourself 20 of 24: worth a post" in " ".join(said.split()) and said.count("(say why)") == 1
    with pytest.raises(InputError, match="row of the rubric"):
        study.score(questions=2)
    with pytest.raises(InputError, match="0, 1, 2 or 3"):
        study.score(question=4)


def test_what_stands_beside_a_finding_has_to_name_it():
    study = predicted(Investigation())
    with pytest.raises(InputError, match="role"):
        study.result("x", EFFECT, role="proof")
    for role in ROLES[2:]:
        with pytest.raises(InputError, match="stand beside"):
            study.result("x", EFFECT, role=role, of="no such finding")


# ---- the starter


def run(notebook, folder, monkeypatch, replacing=()):
    """Every cell of the starter on a tiny random model, in an empty folder; some lines replaced."""
    from hub_cache import tiny_target

    described = dataclasses.asdict(tiny_target("gpt2"))
    described["processing"] = dict(described["processing"])
    (folder / "tiny.json").write_text(json.dumps(described))
    monkeypatch.setenv("MONOSEMANTIC_TARGET", str(folder / "tiny.json"))
    monkeypatch.chdir(folder)
    names = {}
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    for old, new in replacing:
        assert old in code, old
        code = code.replace(old, new)
    try:
        exec(code.replace("display(", "str("), names)
    finally:
        torch.set_grad_enabled(True)
    return names["study"]


FILL = [
    ('question="",\n    why_open="",', 'question="Does a latent for prepositions name them?", why_open="New",'),
    ('sentence="",\n    number="",\n    refuted_if="",', 'sentence="It does.", number="rise", refuted_if="below 0",'),
    ('written="",', 'written="2026-11-26",'),
    ("stand-in: rise of its words", "rise"),
    ("stand-in: ", ""),
    ('study.not_found("", learned="")', 'study.not_found("a weak half", learned="none")'),
]  # fmt: skip


def test_the_starter_runs_untouched_and_says_what_is_missing(tmp_path, monkeypatch, capsys):
    study = run(nbformat.read(STARTER, as_version=4), tmp_path, monkeypatch)
    said = capsys.readouterr().out
    assert "No prediction yet" in said and "not shown" in said and "What is still missing" in said
    assert study.found == {} and len(study.missing()) >= 8
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.json"], "an untouched starter leaves nothing behind"


def test_the_starter_filled_in_is_complete(tmp_path, monkeypatch, capsys):
    book = nbformat.read(STARTER, as_version=4)
    half = run(book, tmp_path, monkeypatch, FILL[:3])  # only the words: the stand-in is still there
    assert any("the starter's own" in text for text in half.missing())
    assert any("the result `rise`" in text for text in half.missing())
    (tmp_path / "capstone_log.jsonl").unlink()
    for complete in (False, True):
        study = run(book, tmp_path, monkeypatch, FILL)
        assert study.missing() == [] and study.repeated() == complete
    assert "Everything that was asked for is here" in capsys.readouterr().out
    assert study.tries()[0] == 3 and isinstance(study.predictions["rise"], Prediction)
    assert len(study.pictures()) == 2


def test_the_starter_names_no_shape_and_no_target():
    for cell in nbformat.read(STARTER, as_version=4).cells:
        if cell.cell_type == "code":
            assert not re.search(r"blocks\.\d|\b(128|768|1024|24576)\b|smallworld", cell.source), cell.source


# ---- made from its source


@pytest.fixture
def course(tmp_path):
    for folder in ("solutions", "labs"):
        (tmp_path / folder).mkdir()
    source = (ROOT / "solutions" / "capstone_starter.md").read_text("utf8")
    (tmp_path / "solutions" / "capstone_starter.md").write_text(source, "utf8")
    return tmp_path


def test_the_starter_is_made_from_its_source_and_held_to_it(course, capsys):
    assert make_labs.main(["--check"], course) == 1 and "capstone.ipynb: is missing" in capsys.readouterr().err
    assert make_labs.main([], course) == 0 and make_labs.main(["--check"], course) == 0
    assert (course / "labs" / "capstone.ipynb").read_text("utf8") == STARTER.read_text("utf8")
    source = course / "solutions" / "capstone_starter.md"
    source.write_text(source.read_text("utf8").replace("## 1. The question", "## 1. Your question"), "utf8")
    assert make_labs.main(["--check"], course) == 1
    assert "capstone.ipynb: is out of date" in capsys.readouterr().err


def test_a_starter_that_somebody_works_in_is_kept(course, capsys):
    make_labs.main([], course)
    lab = course / "labs" / "capstone.ipynb"
    book = nbformat.read(lab, as_version=4)
    book.cells[-2].source = "study.score(question=3)"
    nbformat.write(book, lab)
    assert make_labs.main([], course) == 1 and "has been worked in" in capsys.readouterr().err


def test_a_starter_has_nothing_to_solve(course):
    source = course / "solutions" / "capstone_starter.md"
    text = source.read_text("utf8").replace("SEED = 0", "### BEGIN SOLUTION\nSEED = 0\n### END SOLUTION")
    with pytest.raises(make_labs.LabError, match="solution in a starter"):
        make_labs.make_lab(text, source.name)


def test_no_cell_of_the_starter_may_fail():
    cells = nbformat.read(STARTER, as_version=4).cells
    assert not any("raises-exception" in cell.metadata.get("tags", []) for cell in cells)
    assert len(cells) == len(jupytext.read(ROOT / "solutions" / "capstone_starter.md").cells)
