"""The graders of every lab against right answers, wrong answers and no answers.

Every known wrong answer must be caught with its own message, the untouched stub must be "not yet done", the
solved lab's answers must pass, and so must right answers that are written differently (tests/graders/, one
file a lab). A lab is known by its number; its files are found by it, so a new lab is tested as soon as it is there.
"""

import ast
import dataclasses
import doctest
import functools
import importlib
import json
import re
from pathlib import Path

import jupytext
import nbformat
import pytest
import torch

from labs.checks import grade, registry
from labs.checks.exercise import Exercise

ROOT = Path(__file__).resolve().parents[1]
LABS = [n for n in registry.labs_there_are() if list((ROOT / "solutions").glob(f"{n:02d}_*.md"))]
EXERCISES = {number: e for lab in LABS for number, e in registry.exercises(lab).items()}
PREDICTIONS = {number: p for lab in LABS for number, p in registry.predictions(lab).items()}

by_lab = pytest.mark.parametrize("lab", LABS)
by_exercise = pytest.mark.parametrize("exercise", EXERCISES.values(), ids=list(EXERCISES))
by_prediction = pytest.mark.parametrize("prediction", PREDICTIONS.values(), ids=list(PREDICTIONS))
by_wrong = pytest.mark.parametrize(
    ("exercise", "wrong"),
    [pytest.param(e, w, id=f"{n}-{w.name}") for n, e in EXERCISES.items() for w in e.wrong],
)


def of(thing) -> int:
    """The lab that an exercise or a prediction belongs to."""
    return int(thing.number.split(".")[0])


def solved_file(lab: int) -> Path:
    return next((ROOT / "solutions").glob(f"{lab:02d}_*.md"))


def lab_file(lab: int) -> Path:
    return ROOT / "labs" / f"{solved_file(lab).stem}.ipynb"


def own(lab: int):
    """What the tests know about one lab: tests/graders/lab0N_alternatives.py.

    ALTERNATIVES: pairs (exercise number, a right answer written differently). All others may be left out.
    UNTYPED: names of arguments that need no annotation. FORM_ELSEWHERE: exercises where a nonsense answer is caught
    before its form is looked at. UNSHAPED: exercises whose inputs have no sizes (functions, files). MEASURED:
    prediction number to values that its outcome is tried on.
    after_running(names, described): checks after every cell of the solved lab has run on a tiny target.
    """
    return importlib.import_module(f"graders.lab{lab:02d}_alternatives")


ALTERNATIVES = [pair for lab in LABS for pair in own(lab).ALTERNATIVES]


def functions(notebook) -> dict:
    """The functions a learner writes, by name: the cells tagged `exercise`, after the first cell's imports."""
    names = {"torch": torch}
    first = next(cell.source for cell in notebook.cells if cell.cell_type == "code")
    for node in ast.parse(first).body:
        if isinstance(node, ast.Import | ast.ImportFrom) and not (
            getattr(node, "module", "") or ""
        ).startswith("labs"):
            exec(ast.unparse(node), names)
    for cell in notebook.cells:
        if "exercise" in cell.metadata.get("tags", []):
            exec(cell.source, names)
    return names


@functools.cache
def solved(lab: int) -> dict:
    return functions(jupytext.read(solved_file(lab)))


@functools.cache
def stubs(lab: int) -> dict:
    return functions(nbformat.read(lab_file(lab), as_version=4))


def test_every_lab_with_graders_has_its_notebook():
    assert registry.labs_there_are() == LABS


# ---- the four promises


@by_exercise
def test_the_solved_labs_answer_passes(exercise):
    verdict = grade(exercise, solved(of(exercise))[exercise.name])
    assert verdict.right, verdict.message


@by_exercise
def test_the_graders_own_reference_passes(exercise):
    verdict = grade(exercise, exercise.reference)
    assert verdict.right, verdict.message


@by_exercise
def test_the_untouched_stub_is_not_yet_done(exercise):
    verdict = grade(exercise, stubs(of(exercise))[exercise.name])
    assert verdict.status == "todo"


@by_wrong
def test_every_known_wrong_answer_is_caught_with_its_own_message(exercise, wrong):
    verdict = grade(exercise, wrong.answer)
    assert verdict.status == "known", f"{verdict.status}: {verdict.message}"
    assert verdict.wrong is wrong, f"taken for {verdict.wrong.name!r}"
    assert verdict.message == wrong.message


# ---- right answers written differently


@pytest.mark.parametrize(
    ("number", "answer"), ALTERNATIVES, ids=[f"{n}-{f.__name__}" for n, f in ALTERNATIVES]
)
def test_a_right_answer_written_differently_passes(number, answer):
    verdict = grade(EXERCISES[number], answer)
    assert verdict.right, verdict.message


@by_lab
def test_every_exercise_has_a_right_answer_written_differently(lab):
    assert {number for number, _ in own(lab).ALTERNATIVES} == set(registry.exercises(lab))


# ---- nothing hard-coded passes, and the form is checked


@by_exercise
def test_the_answer_to_one_input_does_not_pass_for_all(exercise):
    fixed = exercise.call(exercise.reference, exercise.inputs(0))
    assert not grade(exercise, lambda *args: fixed).right


@by_exercise
def test_inputs_come_in_several_shapes(exercise):
    def shape(value):
        if isinstance(value, dict):
            return tuple(shape(entry) for entry in value.values())
        value = getattr(value, "pieces", value)  # a stream that gives out its pieces once
        if isinstance(value, list | tuple):
            return tuple(shape(entry) for entry in value)
        if isinstance(value, torch.Tensor):
            return tuple(value.shape)
        return value if isinstance(value, int) else None

    if exercise.number in getattr(own(of(exercise)), "UNSHAPED", ()):
        return
    assert len({tuple(map(shape, exercise.inputs(seed).values())) for seed in range(exercise.cases)}) >= 4


@by_exercise
@pytest.mark.parametrize(
    "output", [None, "nonsense", torch.zeros(3, 1, 4, 1, 5)], ids=["None", "text", "shape"]
)
def test_an_answer_of_the_wrong_form_is_told_its_form(exercise, output):
    verdict = grade(exercise, lambda *args: output)
    assert verdict.status == "form" or exercise.number in getattr(own(of(exercise)), "FORM_ELSEWHERE", ())
    assert not verdict.right


@by_exercise
def test_every_exercise_knows_at_least_four_wrong_answers_with_messages_of_their_own(exercise: Exercise):
    assert len(exercise.wrong) >= 4
    assert len({wrong.message for wrong in exercise.wrong}) == len(exercise.wrong)
    assert all(len(wrong.message) > 40 and wrong.message[-1] in ".?" for wrong in exercise.wrong)


# ---- the notebook itself


@functools.cache
def sections(lab: int) -> dict[str, str]:
    """The text of each exercise in the solved lab, by number."""
    parts = re.split(r"^## Exercise (\d+\.\d+): ", solved_file(lab).read_text("utf8"), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@by_lab
def test_the_notebook_and_the_graders_have_the_same_exercises(lab):
    assert list(sections(lab)) == list(registry.exercises(lab))
    assert len(registry.exercises(lab)) >= 8 and len(registry.predictions(lab)) >= 2
    numbers = [*registry.exercises(lab), *registry.predictions(lab)]
    assert all(number.startswith(f"{lab}.") for number in numbers)


@by_exercise
def test_every_exercise_has_its_parts(exercise):
    text = sections(of(exercise))[exercise.number]
    assert re.search(r"\*Difficulty [1-5] of 5 · importance [1-5] of 5 · about \d+ minutes\*", text)
    assert "**Your task.**" in text
    hints = re.findall(r"```{admonition} Hint (\d)\n:class: hint dropdown", text)
    assert hints == ["1", "2", "3"]
    assert "{admonition} Expected output\n:class: seealso dropdown" in text
    assert f'check("{exercise.number}", {exercise.name})' in text
    assert re.search(rf"def {exercise.name}\(", text)
    assert ":tags: [uses-exercise]" in text


@by_exercise
def test_every_stub_is_typed_and_documented(exercise):
    function = stubs(of(exercise))[exercise.name]
    parameters = [name for name in function.__annotations__ if name != "return"]
    untyped = getattr(own(of(exercise)), "UNTYPED", set())
    assert function.__doc__ and "return" in function.__annotations__
    assert (
        set(function.__code__.co_varnames[: function.__code__.co_argcount]) - untyped
        == set(parameters) - untyped
    )


@by_exercise
def test_arguments_are_drawn_in_the_order_of_the_signature(exercise):
    code = stubs(of(exercise))[exercise.name].__code__
    assert list(exercise.inputs(0)) == list(code.co_varnames[: code.co_argcount])


@by_exercise
def test_the_expected_output_is_what_the_solution_gives(exercise):
    lab = of(exercise)
    examples = re.findall(r"^```pycon\n(.*?)^```$", sections(lab)[exercise.number], re.M | re.S)
    assert len(examples) == 1
    test = doctest.DocTestParser().get_doctest(
        examples[0], dict(solved(lab)), exercise.name, str(solved_file(lab)), 0
    )
    complaints = []
    result = doctest.DocTestRunner(verbose=False, optionflags=doctest.IGNORE_EXCEPTION_DETAIL).run(
        test, out=complaints.append
    )
    assert result.attempted > 0 and result.failed == 0, "".join(complaints)


@by_lab
def test_the_lab_names_no_shape_and_no_layer(lab):
    """The lab reads the same on every target: no layer, width or file is written into its own cells."""
    for cell in nbformat.read(lab_file(lab), as_version=4).cells:
        if cell.cell_type == "code":
            assert not re.search(r"blocks\.\d|\b(128|768|1024|24576)\b|smallworld", cell.source), cell.source


# ---- predictions


def measured_for(prediction) -> tuple[float, ...]:
    """Numbers that a measurement could give; between them at least two outcomes must come up."""
    return getattr(own(of(prediction)), "MEASURED", {}).get(prediction.number, (0.1, 1.0, 3.0, 50.0))


@by_prediction
def test_the_measurement_decides_every_prediction(prediction):
    outcomes = {prediction.outcome(value) for value in measured_for(prediction)}
    assert outcomes <= set(prediction.choices) and len(outcomes) >= 2
    assert set(prediction.explain) == set(prediction.tempting) == set(prediction.choices)


@by_prediction
def test_a_prediction_that_did_not_come_true_is_explained_and_not_failed(prediction):
    for measured in measured_for(prediction):
        for choice in prediction.choices:
            came_true, told = prediction.review(choice, measured)
            text = " ".join(told)
            assert came_true == (choice == prediction.outcome(measured))
            assert prediction.explain[prediction.outcome(measured)] in text
            assert (prediction.tempting[choice] in text) == (not came_true)
            assert "wrong" not in text.replace("a wrong mask", "").lower()


@by_prediction
def test_the_notebook_offers_the_choices_of_the_grader(prediction):
    text = solved_file(of(prediction)).read_text("utf8")
    text = text.split(f"## Predict {prediction.number}:")[1].split("## Exercise")[0]
    assert re.findall(r"^- \*\*(\w)\*\* · ", text, re.M) == list(prediction.choices)


# ---- any target


@by_lab
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_the_solved_lab_runs_on_a_target_of_another_shape(lab, architecture, monkeypatch, tmp_path, capsys):
    """Every cell, on a tiny random model: nothing in the lab knows the embedded target's shapes or names."""
    from hub_cache import tiny_target

    described = dataclasses.asdict(tiny_target(architecture))
    described["processing"] = dict(described["processing"])
    (tmp_path / "tiny.json").write_text(json.dumps(described))
    monkeypatch.setenv("MONOSEMANTIC_TARGET", str(tmp_path / "tiny.json"))
    monkeypatch.setenv("MONOSEMANTIC_PROGRESS", str(tmp_path / "progress.json"))
    names = {}
    try:
        for cell in jupytext.read(solved_file(lab)).cells:
            if cell.cell_type == "code":
                exec(cell.source, names)  # the last cell fails unless every exercise is done
    finally:
        torch.set_grad_enabled(True)  # the lab switches gradients off
    assert names["target"].name == "tiny"
    todo = len(registry.exercises(lab)) + len(registry.predictions(lab))
    assert f"{todo} of {todo} done" in capsys.readouterr().out
    if hasattr(own(lab), "after_running"):
        own(lab).after_running(names, described)
