"""What the shell's programs do about errors and Ctrl-C: one line, the exit code, and the truth about what stays."""

import os
import subprocess
import sys

import pytest
from hub_cache import tiny_model, tiny_target
from test_repository import ROOT

from solutions import command, search, train
from solutions.app import __main__ as app
from solutions.command import dashboard
from solutions.command import index as indexing
from solutions.data import __main__ as data
from solutions.errors import CourseError, InputError
from solutions.models import harvest
from solutions.sae.training import checkpoint
from solutions.shell import DONE, FAILED, NOTHING, STOPPED, guarded


def stop(*_, **__):
    raise KeyboardInterrupt


def raising(error):
    def work():
        raise error

    return work


# ---- the guard


@pytest.mark.parametrize("result, code", [(None, DONE), (0, DONE), (3, NOTHING), (7, 7)])
def test_the_works_own_exit_code_is_given_on(result, code, capsys):
    assert guarded(lambda: result) == code and capsys.readouterr() == ("", "")


@pytest.mark.parametrize("error, says", [
    (CourseError("what to do"), "CourseError: what to do\n"),
    (InputError("or start over with resume=False."), "InputError: or start over with --start-over.\n"),
    (PermissionError(13, "Permission denied", "there"), "PermissionError: [Errno 13] Permission denied: 'there'\n"),
])
def test_what_one_can_do_something_about_is_one_line(error, says, capsys):
    assert guarded(raising(error)) == FAILED and capsys.readouterr().err == says


def test_a_mistake_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        guarded(lambda: 1 / 0)


def test_ctrl_c_says_what_stays_as_it_is_then(capsys):
    files = []

    def work():
        files.append("one")
        stop()

    assert guarded(work, lambda: f"There are {len(files)} files.") == STOPPED == 130
    assert capsys.readouterr().err == "\nStopped. There are 1 files.\n"
    assert guarded(stop) == STOPPED and capsys.readouterr().err == "\nStopped.\n"


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path):
    code = "import sys; from solutions.shell import guarded; sys.exit(guarded(lambda: print('word\\n' * 100_000)))"
    reader, writer = os.pipe()
    os.close(reader)  # nobody reads, from the beginning
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_guard_costs_no_time_to_import():
    code = "import sys; import solutions.shell; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


# ---- what each program leaves behind


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store of the tiny model: stopped as it is read or gone on with, it is the same."""
    folder = tmp_path_factory.mktemp("shell") / "store"
    harvest(tiny_model(), ["the cat sat", "a dog ran on"] * 4, tiny_target().hook, folder, progress=False)
    return folder


@pytest.fixture
def says(capsys):
    """What a program says when Ctrl-C is pressed."""
    def told(main, *arguments):
        assert main(list(map(str, arguments)), "program") == STOPPED
        said = capsys.readouterr().err
        assert said.startswith("\nStopped. ") and said.count("\n") == 2
        return said

    return told


def test_a_stopped_harvest_goes_on_where_something_is_stored(says, store, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "open_texts", stop)
    new, old = ("harvest", "--out", tmp_path / "new"), ("harvest", "--out", store)
    documents = ("--documents", 3)
    assert "Nothing was stored yet" in says(data.main, *new, *documents)
    assert "The same line goes on" in says(data.main, *old, *documents)
    assert "The same line without --start-over goes on" in says(data.main, *old, *documents, "--start-over")


@pytest.mark.parametrize("name", ["info", "verify"])
def test_looking_at_a_store_changes_nothing_and_has_nothing_to_go_on_with(says, store, name, monkeypatch):
    monkeypatch.setattr(data, "ActivationStore", stop)
    said = says(data.main, name, store)
    assert "Nothing was changed" in said and "goes on" not in said


def test_a_stopped_training_goes_on_only_from_a_checkpoint(says, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "run", stop)
    line = ("--out", tmp_path / "run", "--device", "cpu")
    said = says(train.main, *line)
    assert "no checkpoint yet" in said and "goes on" not in said and "stored" not in said
    assert "What is stored already stays" in says(train.main, *line, "--store", tmp_path / "store")
    for step in (1000, 2000):
        checkpoint.write_checkpoint(tmp_path / "run", step, {"finished": False}, {})
    assert "The same line goes on from the last checkpoint, after step 2,000." in says(train.main, *line)
    assert "The same line without --start-over goes on" in says(train.main, *line, "--start-over")


def test_an_index_is_made_whole_or_not_at_all(says, tmp_path, monkeypatch):
    monkeypatch.setattr(indexing, "ActivationStore", stop)
    assert "No index was made" in says(indexing.main, "--store", "x", "--out", tmp_path / "index")


def test_a_stopped_search_says_whether_its_index_was_made(says, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "answer", stop)
    line = ("--index", tmp_path, "density:0")
    assert "The index is as it was" in says(search.main, *line)
    assert "The index is as it was" in says(search.main, *line, "--build", 5)
    assert "No index was made" in says(search.main, "--index", tmp_path / "none", "density:0", "--build", 5)


def test_stopped_pages_stay_and_the_rest_is_written_by_the_same_line(says, tmp_path, monkeypatch):
    monkeypatch.setattr(dashboard, "FeatureIndex", stop)
    line = ("--index", "x", "--out", tmp_path)
    assert "The same line goes on with the others" in says(dashboard.main, *line)
    assert "The same line without --start-over" in says(dashboard.main, *line, "--start-over")


def test_a_stopped_app_keeps_what_was_finished(says, monkeypatch):
    monkeypatch.setattr(app, "launch", stop)
    assert "finished is kept" in says(app.main)


@pytest.mark.parametrize("arguments", [
    ["app"], ["train", "--out", "x", "--device", "cpu"], ["search", "--index", "x", "density:0"],
])  # fmt: skip
def test_the_one_command_lets_the_program_speak(arguments, capsys, monkeypatch):
    """It has a guard of its own, for what happens before the program is at work; one of the two speaks, once."""
    for module, work in ((app, "launch"), (train, "run"), (search, "answer")):
        monkeypatch.setattr(module, work, stop)
    assert command.main(arguments) == STOPPED
    said = capsys.readouterr().err
    assert said.count("Stopped") == 1 and "Nothing was changed" not in said
    monkeypatch.setattr(command, "follow_target", stop)
    assert command.main(arguments) == STOPPED and "Stopped. Nothing was changed." in capsys.readouterr().err
