"""The page on troubles: every message it quotes is brought about here, and every other entry says what it rests on.

An entry is a `###` heading. It has a quoted message (a `text` block), or a transcript of what we saw (a `console`
block), or a line that names a test of the course. In a quotation, … stands for what differs from case to case.
"""

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from stub_training import PLAN, fresh, make_store, numbers

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "book" / "troubleshooting.md").read_text("utf8")
ENTRIES = {part.split("\n", 1)[0]: part for part in re.split(r"^### ", PAGE, flags=re.M)[1:]}
QUOTE = re.compile(r"^```text\n(.*?)^```", re.M | re.S)
HELD = re.compile(r"<!-- held by (tests/\w+\.py)::(\w+) -->")
QUOTED = [heading for heading, entry in ENTRIES.items() if QUOTE.search(entry)]


def says(quoted: str, message: str) -> bool:
    """Whether a message is what the page quotes: the same words in the same order, with anything in place of …"""
    pieces = [re.escape(" ".join(piece.split())) for piece in quoted.split("…")]
    return re.search(r".*".join(pieces), " ".join(message.split()), re.S) is not None


def message_of(call, *arguments, **keywords) -> str:
    """What a call that must fail says."""
    with pytest.raises(Exception) as caught:
        call(*arguments, **keywords)
    return f"{type(caught.value).__name__}: {caught.value}"


# ---- make, with programs that only pretend


FAKE = """#!/bin/sh
case "$1 $2" in
    "-c "*) exit {is_python} ;;
    "--version "*) echo "Python 3.12.0" ;;
    "-m venv") {venv} ;;
    "-m pip") test ! -e "{broken}" ;;
esac
"""


class Machine:
    """A copy of what `make` needs, on a machine where `python3.11` is a few lines of shell."""

    def __init__(self, folder: Path, is_python: int = 0, venv: str = "exit 1"):
        self.folder, self.programs = folder, folder / "programs"
        self.programs.mkdir()
        for name in ("Makefile", "requirements.txt", "constraints.txt", "pyproject.toml"):
            shutil.copy(ROOT / name, folder)
        for name in ("sh", "cat", "cksum", "cut", "sed", "rm", "touch", "mkdir", "cp", "chmod", "make", "ls"):
            (self.programs / name).symlink_to(shutil.which(name))
        python = self.programs / "python3.11"
        python.write_text(FAKE.format(is_python=is_python, venv=venv, broken=folder / "no-network"))
        python.chmod(0o755)

    def make(self, target: str) -> subprocess.CompletedProcess:
        env = {"PATH": str(self.programs)}
        return subprocess.run(["make", target], cwd=self.folder, env=env, capture_output=True, text=True)


def without_python(folder, world):
    return Machine(folder, is_python=1).make("book").stderr


def without_venv(folder, world):
    return Machine(folder).make("book").stderr


def test_an_installation_that_stopped_is_taken_up_again(tmp_path):
    machine = Machine(tmp_path, venv="mkdir -p .venv/bin && cp programs/python3.11 .venv/bin/python")
    (tmp_path / "no-network").touch()
    assert machine.make("workflows").returncode != 0 and not list((tmp_path / ".venv").glob(".installed-*"))
    (tmp_path / "no-network").unlink()
    again = machine.make("workflows")
    assert list((tmp_path / ".venv").glob(".installed-*")) and "Making .venv" not in again.stdout
    assert "Installing" not in machine.make("workflows").stdout  # the third time there is nothing to do


def test_the_steps_without_make_are_those_of_the_makefile():
    steps = re.findall(r"^    (\S*python3? .*?)(?: +# make \w+)?$", ENTRIES["I have no `make`"], re.M)
    assert len(steps) == 7
    makefile = (ROOT / "Makefile").read_text("utf8").replace("$(PY)", ".venv/bin/python")
    makefile = makefile.replace("$$python", "python3").replace("$(VENV)", ".venv").replace(" --quiet", "")
    for step in steps:
        assert step in makefile.replace("venv --clear", "venv"), step


def test_the_question_about_the_gpu_can_be_asked(capsys):
    (code,) = re.findall(r'-c "(.*)"', ENTRIES["My GPU is not used"])
    exec(code, {})
    assert capsys.readouterr().out.strip() == str(torch.cuda.is_available())


# ---- what brings each message about: a function of an empty folder and of the embedded world


def in_another_python(folder, world):
    command = [sys.executable, "-I", "-S", "-c", "import solutions"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True).stderr


def from_another_version(folder, world):
    from types import ModuleType
    from unittest import mock

    with mock.patch.dict(sys.modules, transformer_lens=ModuleType("transformer_lens")):
        sys.modules.pop("transformer_lens.HookedTransformer", None)  # Python would look there, too
        return message_of(exec, "from transformer_lens import HookedTransformer", {})


def unknown_target(folder, world):
    from solutions.targets import get_target

    return message_of(get_target, "gpt2")


def poor_targets(folder, world):
    from solutions.targets import get_target

    said = []
    for text in ('{"name": "mine", "model": "gpt2"}', '{"nme": "mine"}'):
        (folder / "mine.json").write_text(text)
        said.append(message_of(get_target, str(folder / "mine.json")))
    return "\n".join(said)


def offline(folder, world):
    from unittest import mock

    from huggingface_hub import constants

    import solutions
    from solutions.models import load_model
    from solutions.targets import get_target

    with (mock.patch.object(constants, "HF_HUB_CACHE", str(folder)),
          mock.patch.object(constants, "HF_HUB_OFFLINE", True),
          mock.patch.object(solutions, "SWITCHED_OFFLINE", False)):
        return message_of(load_model, get_target("gpt2-small"), "cpu")


def damaged_artefact(folder, world):
    import json

    from solutions.smallworld import artifacts

    file = folder / "smallworld" / "model.safetensors"
    file.parent.mkdir()
    file.write_bytes(b"x" * 100)
    (folder / "MANIFEST.json").write_text(json.dumps({"files": artifacts.describe_files(folder, ["smallworld"])}))
    file.write_bytes(b"y" * 100)
    return message_of(artifacts.verify, "smallworld", folder)


def wrong_hook(folder, world):
    from solutions.sae import preflight

    target, model, sae = world
    return message_of(preflight, model, sae, replace(target, hook=target.wrong_hook))


def mistyped_hook(folder, world):
    from solutions.data import tokenize
    from solutions.models import extract

    model = world[1]
    return message_of(extract, model, tokenize(model, ["A text."]), "blocks.1.hook_resid_prre")


def wrong_width(folder, world):
    from solutions.sae import encode

    return message_of(encode, world[2], torch.zeros(3, 7))


def empty_text(folder, world):
    from solutions.data import tokenize

    return message_of(tokenize, world[1], [""])


def swapped(folder, world):
    from solutions.sae import preflight

    target, model, sae = world
    return message_of(preflight, sae, model, target)


def no_gpu(folder, world):
    from unittest import mock

    from solutions.models import load_model

    with mock.patch("torch.cuda.device_count", lambda: 0), mock.patch("torch.cuda.is_available", lambda: False):
        return message_of(load_model, world[0], "cuda")


def diverged(folder, world):
    from solutions.sae.training import TensorSource, train

    plan = PLAN.replace(lr=30.0, log_every=1, n_tokens=64 * 60, resample_at=())
    return message_of(train, fresh("relu"), TensorSource(numbers(2000)), plan, folder, progress=False)


def another_run(folder, world):
    from solutions.sae.training import TensorSource
    from solutions.sae.training.run import Run

    source = TensorSource(numbers(500))
    Run(fresh(), source, PLAN, folder)
    return message_of(Run, fresh(), source, PLAN.replace(lr=1e-4), folder)


def two_at_once(folder, world):
    from solutions.sae.training import TensorSource, train
    from solutions.sae.training.run import Run

    source = TensorSource(numbers(500))
    with Run(fresh(), source, PLAN, folder):
        return message_of(train, fresh(), source, PLAN, folder, progress=False)


def damaged_store(folder, world):
    from solutions.data import ActivationStore

    make_store(folder / "store")
    shard = folder / "store" / "acts-00000.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    return message_of(ActivationStore(folder / "store").verify)


def not_done(folder, world):
    from labs.checks.errors import explain_in_cell

    return explain_in_cell(NotImplementedError("Exercise 1.3 is not done yet"), None)


def graded(answer):
    from labs.checks import grade, registry

    return grade(registry.find_exercise("1.1"), answer).message


def not_a_function(folder, world):
    return graded(torch.zeros(3))


def reads_the_notebook(folder, world):
    names = {"x": torch.zeros(3)}
    exec("def content_mask(*arguments):\n    return x", names)
    return graded(names["content_mask"])


def wrong_product(folder, world):
    from labs.checks.errors import advice

    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied") as caught:
        torch.zeros(2, 3) @ torch.zeros(2, 3)
    return advice(caught.value)


def no_such_exercise(folder, world):
    from labs.checks import check

    return message_of(check, "1.99", None)


def worked_in(folder, world):
    import contextlib
    import io

    from solutions import make_labs

    (folder / "solutions").mkdir()
    cell = "```{code-cell} ipython3\n### BEGIN SOLUTION\nthe_answer_is_here = 1\n### END SOLUTION\n```\n"
    (folder / "solutions" / "01_lab.md").write_text(
        "---\njupytext:\n  text_representation:\n    extension: .md\n    format_name: myst\nkernelspec:\n"
        f"  display_name: Python 3\n  language: python\n  name: python3\n---\n\n{cell}"
    )
    assert make_labs.main([], folder) == 0
    lab = folder / "labs" / "01_lab.ipynb"
    lab.write_text(lab.read_text().replace("# Your code here", "answer = 1  # Your code here"))
    (folder / "solutions" / "01_lab.md").write_text((folder / "solutions" / "01_lab.md").read_text() + "\nMore.\n")
    with contextlib.redirect_stderr(io.StringIO()) as said:
        assert make_labs.main([], folder) == 1
    return said.getvalue()


def not_complete(folder, world):
    from labs.checks.marking import Mark, as_text
    from labs.checks.marking.marks import _note
    from labs.checks.marking.running import DIED, Run

    return as_text([Mark("a.ipynb", 1, {"1.1": "right"}, {"1.1": ""}, note=_note(Run(ended=f"code cell 4: {DIED}")))])


def no_streamlit(folder, world):
    from unittest import mock

    from solutions.app import launching

    with mock.patch("importlib.util.find_spec", lambda name: None):
        return message_of(launching.command, "localhost", 8501, None, 1)


def failed_build(folder, world):
    import contextlib
    import io
    from unittest import mock

    sys.path.insert(0, str(ROOT / "book"))
    import build

    with (mock.patch.multiple(build, ROOT=folder, BUILD=folder / "_build", STATE=folder / "_build" / "state.json",
                              jupyter_book=lambda: 1, run_chapters=lambda: None),
          contextlib.redirect_stderr(io.StringIO()) as said):
        assert build.main() == 1
    return said.getvalue()


def unknown_step(folder, world):
    command = [sys.executable, str(ROOT / "tests" / "run.py"), "units"]
    return subprocess.run(command, capture_output=True, text=True).stderr


def no_chromium(folder, world):
    import test_site

    return test_site.needs_chromium.kwargs["reason"]


CAUSES = {
    "`make` finds no Python": without_python,
    "`make` says that this Python lacks venv": without_venv,
    "Python does not find the course": in_another_python,
    "A name cannot be imported from TransformerLens or SAELens": from_another_version,
    "The target is unknown": unknown_target,
    "My own target is refused": poor_targets,
    "I am offline": offline,
    "An artefact does not match its checksum": damaged_artefact,
    "Preflight stopped me": wrong_hook,
    "A hook point does not exist": mistyped_hook,
    "The last axis is wrong": wrong_width,
    "A text is empty": empty_text,
    "The arguments are in the wrong order": swapped,
    "I have no GPU": no_gpu,
    "Training stopped with `TrainingDiverged`": diverged,
    "A run's folder is refused": another_run,
    "A folder is being written by another process": two_at_once,
    "A file of a store is damaged": damaged_store,
    "A cell says that an exercise is not done yet": not_done,
    "`check` wants the function itself": not_a_function,
    "My function is right in the notebook, and `check` says that it is wrong": reads_the_notebook,
    "A matrix product does not fit": wrong_product,
    "There is no such exercise": no_such_exercise,
    "Making the labs anew refuses to write over mine": worked_in,
    "Grading says that a notebook is not complete": not_complete,
    "The app says that Streamlit is missing": no_streamlit,
    "`make book` fails on a warning": failed_build,
    "`make test` does not know a step": unknown_step,
    "`make test` says that it skipped the browser tests": no_chromium,
}


@pytest.fixture(scope="module")
def world(target, model, sae):
    return target, model, sae


@pytest.mark.parametrize("heading", QUOTED)
def test_every_quoted_message_is_what_the_course_says(heading, tmp_path, world):
    said = CAUSES[heading](tmp_path, world)
    for quoted in QUOTE.findall(ENTRIES[heading]):
        assert says(quoted, said), f"the page quotes:\n{quoted}\nand this is said:\n{said}"


def test_every_cause_is_on_the_page():
    assert set(CAUSES) == set(QUOTED)


def test_every_entry_rests_on_something():
    for heading, entry in ENTRIES.items():
        held = HELD.findall(entry)
        assert QUOTE.search(entry) or held or "```console\n$ " in entry, f"{heading!r} rests on nothing"
        for file, name in held:
            assert re.search(rf"^def {name}\(", (ROOT / file).read_text("utf8"), re.M), f"{heading}: {file}::{name}"


def test_a_quotation_has_to_be_exact_but_for_its_gaps():
    said = "step 6: the error is 12.5 times too high.\n  Lower it."
    assert says("step …: the error is … times too high. Lower it.", said)
    assert not says("step …: the error is … times too low.", said)
    assert not says("Lower it. step …", said)
