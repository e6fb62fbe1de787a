"""`python -m labs.checks grade`: learners' notebooks, among them one that dies, one that hangs and one that is none."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from labs.checks import __main__ as command
from labs.checks import record, registry
from labs.checks.marking import (
    Limits,
    Mark,
    as_csv,
    as_json,
    as_text,
    mark_notebook,
    marks,
    notebooks_in,
    running,
)

ROOT = Path(__file__).resolve().parents[1]
START = "from labs.checks import check, lab, predict, reveal\nlab(1)"
MASK = '''import torch
def content_mask(tokens, lengths):
    positions = torch.arange(tokens.shape[1])
    return (positions > 0) & (positions < lengths[:, None])'''
STATISTICS = "def statistics(*arguments):\n    raise NotImplementedError('Exercise 1.3 is not done yet')"


def notebook(path, *cells, tags=()):
    code = [nbformat.v4.new_code_cell(cell, metadata={"tags": list(tags)}) for cell in cells]
    nbformat.write(nbformat.v4.new_notebook(cells=code), path)
    return path


def reference(number):
    """The grader's own right answer, as a cell."""
    exercise = registry.find_exercise(number)
    found = f"from labs.checks.registry import find_exercise\n{exercise.name} = find_exercise({number!r}).reference"
    return found


# ---- what a notebook gets


def test_a_notebook_with_everything_in_it(tmp_path):
    """Right, wrong, not done, no check, checked twice, slow, raising: and nothing is written beside it."""
    path = notebook(
        tmp_path / "anna.ipynb",
        START,
        reference("1.1"),  # right, and its check was deleted
        "def grab(*arguments):\n    return 1 / 0",
        'check("1.2", grab)',
        STATISTICS,
        'check("1.3", statistics)',
        "import time; time.sleep(60)",
        "undefined_name",
        'check("1.4", lambda values, threshold: 2.0)',
        reference("1.4"),
        'check("1.4", share_near_zero)',  # what was said last counts
        'predict("1.A", "a")\nreveal("1.A", 0.5)',
        "open('left_behind.txt', 'w').write('x')",
    )
    before = path.read_bytes()
    mark = mark_notebook(path, Limits(cell=30, total=300))
    assert mark.lab == 1 and mark.complete, mark
    said = {"1.1": "right", "1.2": "raised", "1.3": "todo", "1.4": "right"}
    assert mark.statuses == dict.fromkeys(registry.exercises(1), "missing") | said
    assert mark.right == 2 and mark.score == pytest.approx(100 * 2 / len(registry.exercises(1)))
    assert mark.predictions == (1, len(registry.predictions(1)))
    assert "too slow: code cell 7" in mark.note and "code cell 8 raised NameError" in mark.note
    assert "ZeroDivisionError" in mark.messages["1.2"]
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["anna.ipynb"]


def test_a_kernel_that_dies_leaves_the_marks_so_far(tmp_path):
    path = notebook(
        tmp_path / "crash.ipynb", START, reference("1.1"), 'check("1.1", content_mask)', "import os; os._exit(1)",
        reference("1.4"), 'check("1.4", share_near_zero)',
    )
    mark = mark_notebook(path, Limits(cell=60, total=120))
    assert not mark.complete and "code cell 4: the kernel died" in mark.note
    assert (mark.statuses["1.1"], mark.statuses["1.4"]) == ("right", "missing")


def test_a_kernel_that_will_not_listen_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "LISTENING", 2)
    deaf = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"
    path = notebook(tmp_path / "hang.ipynb", deaf, 'check("1.1", None)')
    mark = mark_notebook(path, Limits(cell=2, total=60))
    assert not mark.complete and "could not be interrupted" in mark.note and mark.seconds < 60
    assert mark.right == 0 and len(mark.statuses) == len(registry.exercises(1))


def test_the_whole_notebook_has_a_limit_too(tmp_path):
    path = notebook(tmp_path / "slow.ipynb", *["import time; time.sleep(3)"] * 20, 'check("1.1", None)')
    mark = mark_notebook(path, Limits(cell=60, total=5))
    assert not mark.complete and "the time limit of 5 s" in mark.note


@pytest.mark.parametrize(
    ("content", "note"),
    [
        ("{ not JSON", "not a notebook"),
        ("[]", "not a notebook"),
        (nbformat.writes(nbformat.v4.new_notebook(cells=[])), "no lab of this course"),
        (nbformat.writes(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("lab(99)")])), "no lab of this"),
    ],
    ids=["broken", "a list", "empty", "another number"],  # a new cell has a random number, which is to be in no name
)
def test_what_is_no_lab_gets_a_row(tmp_path, content, note):
    (tmp_path / "x.ipynb").write_text(content)
    mark = mark_notebook(tmp_path / "x.ipynb")
    assert note in mark.note and not mark.complete and mark.score == 0 and mark.statuses == {}


@pytest.mark.parametrize(
    ("code", "lab"),
    [("lab(3)", 3), ("# lab(3)\nx = 1", None), ("check('2.1', collect)\ncheck(\"2.2\", plan)\ncheck('1.1', f)", 2)],
)
def test_the_lab_is_found_in_the_code(code, lab):
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    assert marks.which_lab(book) == lab


def test_every_lab_says_which_it_is():
    paths = sorted((ROOT / "labs").glob("[0-9][0-9]_*.ipynb"))
    assert paths and [marks.which_lab(marks.read(path)) for path in paths] == [int(path.name[:2]) for path in paths]


def test_half_a_line_is_not_believed(tmp_path):
    said = tmp_path / "verdicts.jsonl"
    said.write_text('{"number": "1.1", "status": "right"}\n{"number": "1.2", "sta')
    assert list(record.heard_in(said)) == ["1.1"]
    assert record.heard_in(tmp_path / "none") == {}


# ---- which notebooks


def test_a_folder_is_a_class(tmp_path):
    for name in ("b.ipynb", "a.ipynb", "group/c.ipynb", ".ipynb_checkpoints/a-checkpoint.ipynb", "d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    assert [p.relative_to(tmp_path).as_posix() for p in notebooks_in([tmp_path, tmp_path / "a.ipynb"])] == [
        "a.ipynb", "b.ipynb", "group/c.ipynb"
    ]
    (tmp_path / "empty").mkdir()
    for missing in ("empty", "nowhere.ipynb"):
        with pytest.raises(FileNotFoundError, match=missing):
            notebooks_in([tmp_path / missing])


# ---- tables


def made_up(name, statuses, complete=True, note=""):
    numbers = list(registry.exercises(1))
    listed = dict(zip(numbers, statuses + ["missing"] * (len(numbers) - len(statuses)), strict=True))
    told = {n: "You squared." if s == "known" else "" for n, s in listed.items()}
    return Mark(name, 1, listed, told, (1, 2), note, complete, 12.3)


CLASS = [
    made_up("anna.ipynb", ["right", "known", "todo"]),
    made_up("=cmd()", ["right", "known"], complete=False, note="code cell 4: the kernel died"),
    Mark("none.ipynb", note="not a notebook (ValueError: x)"),
]


def test_the_table_for_people():
    text = as_text(CLASS)
    total = len(registry.exercises(1))
    assert f"1/{total}" in text and "+x. " in text and "NOT COMPLETE: code cell 4" in text
    assert "1.2   grab: 0 of 2 right" in text and "statistics" not in text and "2 × You squared." in text
    assert "0 of 2 right" not in as_text(CLASS[:1]), "one notebook is no class"
    assert "1.3   statistics: Not yet done" in as_text(CLASS[:1], details=True)


def test_the_table_for_a_spreadsheet():
    rows = list(csv.DictReader(io.StringIO(as_csv(CLASS))))
    assert [row["notebook"] for row in rows] == ["anna.ipynb", "'=cmd()", "none.ipynb"]
    assert (rows[0]["1.2"], rows[0]["right"], rows[0]["complete"], rows[1]["complete"]) == ("known", "1", "yes", "no")
    assert rows[2]["1.1"] == "" and rows[2]["percent"] == "0.0"


def test_the_table_for_a_program():
    rows = json.loads(as_json(CLASS))
    assert rows[0]["exercises"]["1.2"] == {"status": "known", "message": "You squared."}
    assert rows[2]["exercises"] == {} and rows[2]["lab"] is None


# ---- the command


@pytest.mark.parametrize("options", [[], ["--jobs", "0"], ["--cell-limit", "soon"], ["--at-least", "most"]])
def test_the_command_says_what_it_does_not_understand(options, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(["grade", *options])
    assert stopped.value.code == command.USAGE and "usage: python -m labs.checks grade" in capsys.readouterr().err


def test_the_command_says_what_is_not_there(tmp_path, capsys):
    for arguments, missing in (([tmp_path / "no.ipynb"], "no.ipynb"), ([__file__, "--csv", tmp_path / "a" / "b"], "a")):
        assert command.main(["grade", *map(str, arguments)]) == command.USAGE
        assert f"{tmp_path / missing}" in capsys.readouterr().err


def test_the_command_writes_marks_and_exits_accordingly(tmp_path, monkeypatch, capsys):
    for name in ("anna", "ben"):
        (tmp_path / f"{name}.ipynb").write_text("{}")
    full = made_up("", ["right"] * len(registry.exercises(1)))
    results = {"anna": full, "ben": CLASS[0]}

    def marked(paths, limits, jobs):
        assert (limits.cell, limits.total, jobs) == (5, 900, 2)
        for path in reversed(paths):
            mark = results[path.stem]
            yield Mark(str(path), mark.lab, mark.statuses, mark.messages, complete=mark.complete)

    monkeypatch.setattr("labs.checks.marking.mark_notebooks", marked)
    exports = ["--csv", str(tmp_path / "m.csv"), "--json", str(tmp_path / "m.json")]
    usual = ["grade", str(tmp_path), "--jobs", "2", "--cell-limit", "5", *exports]
    assert command.main(usual) == command.OK
    assert [Path(row["notebook"]).stem for row in json.loads((tmp_path / "m.json").read_text())] == ["anna", "ben"]
    assert len((tmp_path / "m.csv").read_text().splitlines()) == 3
    assert "100 %" in capsys.readouterr().out
    assert command.main([*usual, "--at-least", "50"]) == command.INCOMPLETE
    assert command.main(["grade", str(tmp_path / "anna.ipynb"), "--jobs", "2", "--cell-limit", "5",
                         "--at-least", "50"]) == command.OK
    results["ben"] = CLASS[1]
    assert command.main(usual) == command.INCOMPLETE
    assert {p.name for p in tmp_path.iterdir()} == {"anna.ipynb", "ben.ipynb", "m.csv", "m.json"}


def test_interrupted_it_leaves_at_once_and_writes_what_it_has(tmp_path):
    notebook(tmp_path / "slow.ipynb", "import time; time.sleep(300)", 'check("1.1", None)')
    (tmp_path / "broken.ipynb").write_text("{")
    arguments = ["grade", str(tmp_path), "--json", str(tmp_path / "m.json"), "--jobs", "2"]
    process = subprocess.Popen([sys.executable, "-m", "labs.checks", *arguments], cwd=ROOT,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    shown = b""
    while b"1/2" not in shown:  # then the broken one is done
        assert process.poll() is None
        shown += os.read(process.stderr.fileno(), 100)
    time.sleep(1)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == command.INTERRUPTED, err
    assert b"marks so far" in err and b"Traceback" not in err
    assert [Path(row["notebook"]).name for row in json.loads((tmp_path / "m.json").read_text())] == ["broken.ipynb"]
