"""Lab 1's graders against right answers, wrong answers and no answers.

Every known wrong answer must be caught with its own message, the untouched stub must be "not yet done", the
solved lab's answers must pass, and so must right answers that are written differently.
"""

import doctest
import re
from pathlib import Path

import jupytext
import nbformat
import pytest
import torch

from labs.checks import grade, registry
from labs.checks.exercise import Exercise

ROOT = Path(__file__).resolve().parents[1]
SOLVED = ROOT / "solutions/01_setup_and_exploration.md"
LAB = ROOT / "labs/01_setup_and_exploration.ipynb"
EXERCISES = registry.exercises(1)
PREDICTIONS = registry.predictions(1)

by_exercise = pytest.mark.parametrize("exercise", EXERCISES.values(), ids=list(EXERCISES))
by_wrong = pytest.mark.parametrize(
    ("exercise", "wrong"),
    [pytest.param(e, w, id=f"{n}-{w.name}") for n, e in EXERCISES.items() for w in e.wrong],
)


def functions(notebook) -> dict:
    """Run the cells tagged `exercise`, and nothing else: the functions a learner writes, by name."""
    names = {"torch": torch}
    exec("from jaxtyping import Bool, Float, Int\nfrom torch import Tensor", names)
    for cell in notebook.cells:
        if "exercise" in cell.metadata.get("tags", []):
            exec(cell.source, names)
    return names


@pytest.fixture(scope="module")
def solved():
    return functions(jupytext.read(SOLVED))


@pytest.fixture(scope="module")
def stubs():
    return functions(nbformat.read(LAB, as_version=4))


# ---- the four promises


@by_exercise
def test_the_solved_labs_answer_passes(exercise, solved):
    verdict = grade(exercise, solved[exercise.name])
    assert verdict.right, verdict.message


@by_exercise
def test_the_graders_own_reference_passes(exercise):
    assert grade(exercise, exercise.reference).right


@by_exercise
def test_the_untouched_stub_is_not_yet_done(exercise, stubs):
    verdict = grade(exercise, stubs[exercise.name])
    assert verdict.status == "todo"


@by_wrong
def test_every_known_wrong_answer_is_caught_with_its_own_message(exercise, wrong):
    verdict = grade(exercise, wrong.answer)
    assert verdict.status == "known", f"{verdict.status}: {verdict.message}"
    assert verdict.wrong is wrong, f"taken for {verdict.wrong.name!r}"
    assert verdict.message == wrong.message


# ---- right answers written differently


def by_loop(ids, lengths, bos_id):
    mask = torch.zeros(ids.shape, dtype=torch.bool)
    for row, length in zip(mask, lengths.tolist(), strict=True):
        row[1:length] = True
    return mask


def by_cache(model, ids, hook_name):
    try:
        return model.run_with_cache(ids, names_filter=[hook_name])[1][hook_name]
    except KeyError:
        raise ValueError(f"no hook called {hook_name}") from None


def by_early_stop(model, ids, hook_name):
    if hook_name not in set(model.hook_dict):
        raise ValueError(hook_name)
    store = []
    layer = int(hook_name.split(".")[1])
    model.run_with_hooks(
        ids, fwd_hooks=[(hook_name, lambda act, hook: store.append(act.clone()))], stop_at_layer=layer + 1
    )
    return store[0]


def by_numpy_style(acts, keep):
    rows = acts.reshape(-1, acts.shape[-1])[keep.reshape(-1)]
    length = (rows**2).sum(1) ** 0.5
    return {
        "mean_norm": length.mean(),
        "largest_norm": length.amax(),
        "mean": rows.mean(),
        "n_tokens": keep.sum(),
    }


def by_counting(acts, keep, threshold):
    rows = acts[keep]
    return int(((rows > -threshold) & (rows < threshold)).sum()) / rows.numel()


def by_threshold(acts, W_enc, b_enc, b_dec, k=None):
    pre = torch.einsum("...d,ds->...s", acts, W_enc) - b_dec @ W_enc + b_enc
    features = torch.clamp(pre, min=0)
    if k is not None:
        weakest = features.sort(dim=-1, descending=True).values[..., k - 1 : k]
        features = torch.where(features >= weakest, features, 0.0)
    return features


def by_nonzero(features, keep):
    return len(features[keep].nonzero()) / int(keep.sum())


def by_variance(x, x_hat):
    return float(1 - ((x - x_hat) ** 2).mean(0).sum() / x.var(0, unbiased=False).sum())


def by_sort(features, position, k):
    row = features[position]
    order = sorted(range(len(row)), key=lambda latent: -row[latent].item())
    return [[latent, row[latent]] for latent in order[:k] if row[latent] > 0]


def by_picking_first(cache, hook_name, encode, keep):
    features = encode(cache[hook_name][keep])
    on = torch.where(features > 0, 1.0, 0.0)
    return {"density": on.sum(0) / len(on), "l0": on.sum() / len(on)}


def by_sums(with_concept, without):
    rate = [(part != 0).double().sum(0) / part.shape[0] for part in (with_concept, without)]
    return rate[0] - rate[1]


def by_function(n, d, seed):
    source = torch.Generator()
    source.manual_seed(seed + 17)
    return torch.nn.functional.normalize(torch.normal(0.0, 3.0, (n, d), generator=source), dim=1)


@pytest.mark.parametrize(
    ("number", "answer"),
    [
        ("1.1", by_loop),
        ("1.2", by_cache),
        ("1.2", by_early_stop),
        ("1.3", by_numpy_style),
        ("1.4", by_counting),
        ("1.5", by_threshold),
        ("1.6", by_nonzero),
        ("1.7", by_variance),
        ("1.8", by_sort),
        ("1.9", by_picking_first),
        ("1.10", by_sums),
        ("1.11", by_function),
    ],
)
def test_a_right_answer_written_differently_passes(number, answer):
    verdict = grade(EXERCISES[number], answer)
    assert verdict.right, verdict.message


def test_every_exercise_has_a_right_answer_written_differently():
    marked = test_a_right_answer_written_differently_passes.pytestmark[0].args[1]
    assert {number for number, _ in marked} == set(EXERCISES)


# ---- nothing hard-coded passes, and the form is checked


@by_exercise
def test_the_answer_to_one_input_does_not_pass_for_all(exercise):
    fixed = exercise.reference(*exercise.inputs(0).values())
    assert not grade(exercise, lambda *args: fixed).right


@by_exercise
def test_inputs_come_in_several_shapes(exercise):
    def shape(value):
        if isinstance(value, dict):
            return tuple(shape(entry) for entry in value.values())
        if isinstance(value, torch.Tensor):
            return tuple(value.shape)
        return value if isinstance(value, int) else None

    assert len({tuple(map(shape, exercise.inputs(seed).values())) for seed in range(exercise.cases)}) >= 4


@by_exercise
@pytest.mark.parametrize(
    "output", [None, "nonsense", torch.zeros(3, 1, 4, 1, 5)], ids=["None", "text", "shape"]
)
def test_an_answer_of_the_wrong_form_is_told_its_form(exercise, output):
    verdict = grade(exercise, lambda *args: output)
    assert verdict.status == "form" or exercise.number == "1.2"
    assert not verdict.right


@by_exercise
def test_every_exercise_knows_at_least_four_wrong_answers_with_messages_of_their_own(exercise: Exercise):
    assert len(exercise.wrong) >= 4
    assert len({wrong.message for wrong in exercise.wrong}) == len(exercise.wrong)
    assert all(len(wrong.message) > 40 and wrong.message[-1] in ".?" for wrong in exercise.wrong)


# ---- the notebook itself


def sections() -> dict[str, str]:
    """The text of each exercise in the solved lab, by number."""
    parts = re.split(r"^## Exercise (\d+\.\d+): ", SOLVED.read_text("utf8"), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_notebook_and_the_graders_have_the_same_exercises():
    assert list(sections()) == list(EXERCISES)
    assert len(EXERCISES) >= 8 and len(PREDICTIONS) >= 2


@by_exercise
def test_every_exercise_has_its_parts(exercise):
    text = sections()[exercise.number]
    assert re.search(r"\*Difficulty [1-5] of 5 · importance [1-5] of 5 · about \d+ minutes\*", text)
    assert "**Your task.**" in text
    hints = re.findall(r"```{admonition} Hint (\d)\n:class: hint dropdown", text)
    assert hints == ["1", "2", "3"]
    assert "{admonition} Expected output\n:class: seealso dropdown" in text
    assert f'check("{exercise.number}", {exercise.name})' in text
    assert re.search(rf"def {exercise.name}\(", text)


@by_exercise
def test_every_stub_is_typed_and_documented(exercise, stubs):
    function = stubs[exercise.name]
    parameters = [name for name in function.__annotations__ if name != "return"]
    untyped = {"model", "encode"}
    assert function.__doc__ and "return" in function.__annotations__
    assert (
        set(function.__code__.co_varnames[: function.__code__.co_argcount]) - untyped
        == set(parameters) - untyped
    )


@by_exercise
def test_arguments_are_drawn_in_the_order_of_the_signature(exercise, stubs):
    code = stubs[exercise.name].__code__
    assert list(exercise.inputs(0)) == list(code.co_varnames[: code.co_argcount])


@by_exercise
def test_the_expected_output_is_what_the_solution_gives(exercise, solved):
    examples = re.findall(r"^```pycon\n(.*?)^```$", sections()[exercise.number], re.M | re.S)
    assert len(examples) == 1
    test = doctest.DocTestParser().get_doctest(examples[0], dict(solved), exercise.name, str(SOLVED), 0)
    complaints = []
    result = doctest.DocTestRunner(verbose=False, optionflags=doctest.IGNORE_EXCEPTION_DETAIL).run(
        test, out=complaints.append
    )
    assert result.attempted > 0 and result.failed == 0, "".join(complaints)


def test_the_lab_names_no_shape_and_no_layer():
    """The lab reads the same on every target: no layer, width or file is written into its own cells."""
    for cell in nbformat.read(LAB, as_version=4).cells:
        if cell.cell_type == "code":
            assert not re.search(r"blocks\.\d|\b(128|768|1024|24576)\b|smallworld", cell.source), cell.source


# ---- predictions


@pytest.mark.parametrize("prediction", PREDICTIONS.values(), ids=list(PREDICTIONS))
def test_the_measurement_decides_every_prediction(prediction):
    outcomes = {prediction.outcome(value) for value in (0.1, 1.0, 3.0, 50.0)}
    assert outcomes <= set(prediction.choices) and len(outcomes) >= 2
    assert set(prediction.explain) == set(prediction.tempting) == set(prediction.choices)


@pytest.mark.parametrize("prediction", PREDICTIONS.values(), ids=list(PREDICTIONS))
def test_a_prediction_that_did_not_come_true_is_explained_and_not_failed(prediction):
    for measured in (0.1, 1.0, 3.0, 50.0):
        for choice in prediction.choices:
            came_true, told = prediction.review(choice, measured)
            text = " ".join(told)
            assert came_true == (choice == prediction.outcome(measured))
            assert prediction.explain[prediction.outcome(measured)] in text
            assert (prediction.tempting[choice] in text) == (not came_true)
            assert "wrong" not in text.replace("a wrong mask", "").lower()


@pytest.mark.parametrize("number", PREDICTIONS)
def test_the_notebook_offers_the_choices_of_the_grader(number):
    text = SOLVED.read_text("utf8").split(f"## Predict {number}:")[1].split("## Exercise")[0]
    assert re.findall(r"^- \*\*(\w)\*\* · ", text, re.M) == list(PREDICTIONS[number].choices)


# ---- any target


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_the_solved_lab_runs_on_a_target_of_another_shape(architecture, monkeypatch, tmp_path, capsys):
    """Every cell, on a tiny random model: nothing in the lab knows the embedded target's shapes or names."""
    import dataclasses
    import json

    from hub_cache import tiny_target

    described = dataclasses.asdict(tiny_target(architecture))
    described["processing"] = dict(described["processing"])
    (tmp_path / "tiny.json").write_text(json.dumps(described))
    monkeypatch.setenv("MONOSEMANTIC_TARGET", str(tmp_path / "tiny.json"))
    monkeypatch.setenv("MONOSEMANTIC_PROGRESS", str(tmp_path / "progress.json"))
    names = {}
    try:
        for cell in jupytext.read(SOLVED).cells:
            if cell.cell_type == "code":
                exec(cell.source, names)  # the last cell fails unless every exercise is done
    finally:
        torch.set_grad_enabled(True)  # the lab switches gradients off
    assert names["features"].shape[-1] == described["d_sae"] and names["target"].name == "tiny"
    assert "13 of 13 done" in capsys.readouterr().out
