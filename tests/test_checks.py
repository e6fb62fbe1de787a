"""The grading framework: verdicts, cards, progress, and errors shown in the learner's terms."""

import json
from pathlib import Path

import nbformat
import pytest
import torch

import labs.checks as checks
from labs.checks import Exercise, Prediction, Property, Wrong, errors, grade, registry, show
from labs.checks.compare import agree, difference, form_fault, plain
from labs.checks.record import DONE, Record
from labs.checks.toy_model import ToyModel

ROOT = Path(__file__).resolve().parents[1]

DOUBLE = Exercise(
    number="9.1",
    name="double",
    returns='Float[Tensor, "n"]',
    draw=lambda generator: {
        "x": torch.randn(int(torch.randint(2, 9, (), generator=generator)), generator=generator)
    },
    reference=lambda x: 2 * x,
    wrong=(
        Wrong("square", lambda x: x**2, "You squared."),
        Wrong("breaks", lambda x: x[99], "Never seen."),
        Wrong("no mistake", lambda x: x + x, "Right answers are not known mistakes."),
    ),
    properties=(
        Property(
            "The sign must stay.",
            lambda f, args, out: None if (out * args["x"] >= 0).all() else "Yours turned.",
        ),
    ),
    look_at="the sky.",
    saw="a double.",
)


# ---- verdicts


def test_right_and_known_and_todo():
    assert grade(DOUBLE, lambda x: x + x).message == "a double."
    verdict = grade(DOUBLE, lambda x: x * x)
    assert (verdict.status, verdict.message, verdict.wrong.name) == ("known", "You squared.", "square")

    def stub(x):
        raise NotImplementedError("Exercise 9.1 is not done yet")

    def bare_stub(x):
        raise NotImplementedError

    def uses_another(x):
        raise NotImplementedError("Exercise 9.4 is not done yet")

    assert grade(DOUBLE, stub).status == grade(DOUBLE, bare_stub).status == "todo"
    assert "exercise 9.4" in grade(DOUBLE, uses_another).message


def test_a_failing_property_comes_with_its_sentence_and_the_input():
    verdict = grade(DOUBLE, lambda x: -2 * x)
    assert verdict.status == "wrong"
    assert "The sign must stay. Yours turned." in verdict.message and "`x`: a float tensor" in verdict.message


def test_numbers_that_differ_are_shown_side_by_side():
    verdict = grade(DOUBLE, lambda x: 3 * x)
    assert verdict.status == "wrong" and "the right value is" in verdict.message


@pytest.mark.parametrize(
    ("answer", "part"),
    [
        (lambda x: None, "returned `None`"),
        (lambda x: x[:-1], "to have shape"),
        (lambda x: x > 0, "a float dtype, found torch.bool"),
        (lambda x: x.tolist(), "found a list of length"),
    ],
)
def test_the_form_is_named(answer, part):
    verdict = grade(DOUBLE, answer)
    assert verdict.status == "form" and part in verdict.message


def test_nan_is_named():
    assert "nan" in grade(DOUBLE, lambda x: x / 0 * 0).message


def test_changing_an_argument_is_noticed():
    verdict = grade(DOUBLE, lambda x: x.mul_(2))
    assert verdict.status == "form" and "`x` in place" in verdict.message


def test_an_exception_shows_the_learners_line_and_no_path():
    def mine(x):
        wide = torch.zeros(len(x), 3)
        return wide @ x

    def no_such_thing(x):
        return x.dubble()

    verdict = grade(DOUBLE, mine)
    assert verdict.status == "raised"
    assert "return wide @ x" in verdict.lines[0] and "^^^^^^^^" in verdict.lines[1]
    verdict = grade(DOUBLE, no_such_thing)
    assert "A Tensor has no `dubble`" in verdict.message
    assert str(ROOT) not in verdict.message and "site-packages" not in verdict.message


def test_the_carets_of_a_long_line_stay_under_what_raised():
    def mine(x):
        return {"a long name": x + x + x + x, "bad": x.quantile(95), "another long name": x + 1}  # fmt: skip

    line, carets = grade(DOUBLE, mine).lines
    assert max(len(line), len(carets)) <= errors.WIDTH + 2
    assert line[carets.index("^") : carets.rindex("^") + 1] == "x.quantile(95)"
    assert line.count("…") == 2


def test_a_missing_kernel_is_a_mistake_and_not_an_empty_stub():
    verdict = grade(DOUBLE, lambda x: (x > 0).long() @ torch.ones(len(x), 2, dtype=torch.bool))
    assert verdict.status == "raised"


def test_a_function_with_other_arguments_is_told_the_call():
    verdict = grade(DOUBLE, lambda: 1)
    assert verdict.status == "raised" and "`double(x)`" in verdict.message


def test_reading_the_notebooks_variables_is_pointed_out():
    notebook = {"torch": torch, "acts": torch.ones(4), "scale": 2.0}
    exec("def double(x):\n    return torch.stack([scale * a for a in acts])", notebook)
    verdict = grade(DOUBLE, notebook["double"])
    assert "reads `acts` from the notebook" in verdict.message and "scale" not in verdict.message
    exec("def double(x):\n    return torch.stack([scale * a for a in x])", notebook)
    assert grade(DOUBLE, notebook["double"]).right


def test_a_method_with_the_name_of_a_variable_is_no_variable_of_the_notebook():
    notebook = {"torch": torch, "mean": torch.ones(4)}
    exec("def double(x):\n    return x.mean() + torch.stack([a.mean() for a in x])", notebook)
    verdict = grade(DOUBLE, notebook["double"])
    assert not verdict.right and "from the notebook" not in verdict.message


def test_a_silent_latent_in_a_list_is_named():
    top_of_text = registry.find_exercise("3.5")

    def with_a_silent_one(features, keep, k):
        found = top_of_text.reference(features, keep, k)
        silent = (features[keep].amax(0) == 0).nonzero().flatten().tolist()
        return [*found[:-1], (silent[0], 1.0, 1)] if silent else found

    verdict = grade(top_of_text, with_a_silent_one)
    assert verdict.status == "wrong" and "Yours lists latent" in verdict.message


def test_the_stand_in_for_the_model_is_described_as_one():
    verdict = grade(registry.find_exercise("3.3"), lambda model, *others: model)
    assert "stand-in for the model" in verdict.message and "ToyModel" not in verdict.message


def test_a_value_in_place_of_the_function_is_told_how_to_call():
    assert 'check("9.1", double)' in grade(DOUBLE, torch.zeros(2)).message


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (NameError("name 'kep' is not defined"), "`kep`"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (5x4 and 8x4)"), "4 and 8"),
        (RuntimeError("The size of tensor a (3) must match the size of tensor b (7) at ..."), "3 and 7"),
        (
            IndexError(
                "The shape of the mask [2, 5] at index 0 does not match the shape of the indexed tensor [2, 5, 4]"
            ),
            "[2, 5]",
        ),
        (RuntimeError("quantile() input tensor must be either float or double dtype"), "`torch.quantile`"),
        (RuntimeError("quantile() q tensor must be same dtype as the input tensor"), "`.float()`"),
        (ValueError("You are trying to save a non contiguous tensor: `W_enc` which is"), "`.contiguous()`"),
        (RuntimeError("element 0 of tensors does not require grad and does not have a grad_fn"), "requires_grad_"),
        (RuntimeError("a leaf Variable that requires grad is being used in an in-place"), "no_grad"),
        (AttributeError("'dict' object has no attribute 'b_dec'"), '["b_dec"]'),
        (AttributeError("'ToyModel' object has no attribute 'W_V'"), "stand-in for the model"),
        (AttributeError("'NoneType' object has no attribute 'shape'"), "`return`"),
        (TypeError("f() takes 1 positional argument but 2 were given"), "`def`"),
        (KeyError("it"), "keys it has"),
        (ZeroDivisionError("division by zero"), "zero"),
    ],
)
def test_common_errors_get_their_own_advice(error, part):
    assert part in errors.advice(error)


@pytest.mark.parametrize(
    ("slip", "part"),
    [
        (lambda: torch.rand(3).quantile(95), "0.95"),
        (lambda: torch.quantile(torch.rand(3), torch.tensor([2.5, 97.5])), "0.95"),
        (lambda: torch.cat([torch.rand(2), torch.tensor(1.0)]), "`.reshape(1)`"),
        (lambda: torch.cat([torch.rand(2), 1.0]), "plain float"),
        (lambda: torch.isin(torch.arange(3), [1]), "(Tensor, list)"),
        (lambda: torch.randn(2, generator=7), "`torch.Generator().manual_seed(seed)`"),
        (lambda: torch.tensor(True)[torch.tensor([True])], "fewer axes"),
        (lambda: torch.tensor(1.0).sum(1), "fewer axes"),
        (lambda: [1, 2] - [2], "`[x for x in a if x not in b]`"),
        (
            lambda: ToyModel(1, 4, 9, seed=0).run_with_hooks(
                torch.zeros(1, 3, dtype=torch.long), fwd_hooks=[("hook_embed", lambda act, hook: act[0])]
            ),
            "`[None]`",
        ),
    ],
)
def test_the_advice_fits_what_is_really_raised(slip, part):
    with pytest.raises((RuntimeError, TypeError, IndexError, ValueError)) as raised:
        slip()
    assert part in errors.advice(raised.value)


def test_messages_lose_their_absolute_paths():
    text = f"no file {ROOT}/labs/x.txt and /usr/lib/python3/site-packages/torch/nn.py"
    assert errors.without_paths(text) == "no file labs/x.txt and torch/nn.py"


# ---- comparing


def test_agreement_forgives_rounding_and_container_style_but_not_kind():
    assert agree(plain([(1, torch.tensor(2.0))]), [(1, 2.0)])
    assert agree(torch.tensor([1.0, 2.0], dtype=torch.float64), torch.tensor([1.0, 2.0 + 1e-6]))
    assert not agree(torch.tensor([1, 2]), torch.tensor([1.0, 2.0]))
    assert not agree(torch.tensor([[1.0]]), torch.tensor([1.0]))
    assert not agree({"a": 1.0}, {"b": 1.0})


def test_differences_are_told_with_place_and_numbers():
    found, right = torch.tensor([[1.0, 2.0], [3.0, 9.0]]), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert difference(found, right) == (
        "1 of 4 entries of the answer differ; the most at [1, 1], where yours is 9 and the right value is 4"
    )
    assert difference({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 3.0}) == "entry 'b' is 2; the right value is 3"
    assert "keys 'a'" in form_fault({"b": 1}, {"a": 1})


# ---- check, predict, reveal, progress


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """A record of its own, and no IPython."""
    monkeypatch.setenv("MONOSEMANTIC_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.setattr(checks, "_predicted", {})
    monkeypatch.setattr(checks, "_record", Record(None))
    monkeypatch.setattr(show, "_shell", lambda: None)
    checks.lab(1)
    return tmp_path / "progress.json"


def test_check_displays_returns_nothing_and_keeps_progress(fresh, capsys):
    exercise = registry.find_exercise("1.6")
    assert checks.check("1.6", exercise.wrong[0].answer) is None
    assert exercise.wrong[0].message[:40] in " ".join(capsys.readouterr().out.split())
    assert json.loads(fresh.read_text()) == {"1.6": "tried"}
    checks.check("1.6", exercise.reference)
    assert "Right" in capsys.readouterr().out
    checks.check("1.6", exercise.wrong[0].answer)  # done stays done
    assert json.loads(fresh.read_text()) == {"1.6": DONE}
    capsys.readouterr()
    checks.progress()
    told = capsys.readouterr().out
    assert "Lab 1: 1 of 13 done" in told and "✓ done: 1.6 `mean_l0`" in told and "· not yet: 1.1" in told


def test_an_untouched_stub_leaves_no_trace(fresh):
    def mean_l0(features, keep):
        raise NotImplementedError("Exercise 1.6 is not done yet")

    checks.check("1.6", mean_l0)
    assert not fresh.exists()


def test_progress_outlives_the_kernel_and_survives_damage(fresh):
    checks.check("1.6", registry.find_exercise("1.6").reference)
    assert Record.open(fresh).states == {"1.6": DONE}
    fresh.write_text("{half a fi")
    assert Record.open(fresh).states == {}
    assert Record.open(fresh.parent / "no folder" / "x.json").states == {}


def test_an_unwritable_record_does_not_stop_the_lab(tmp_path):
    record = Record.open(tmp_path / "no folder" / "x.json")
    record.note("1.1", True)
    assert record.states == {"1.1": DONE} and record.path is None


def test_unknown_numbers_list_the_known_ones(fresh):
    with pytest.raises(ValueError, match=r"no exercise '1.99'.*1\.1"):
        checks.check("1.99", len)
    with pytest.raises(ValueError, match="quotation marks"):
        checks.check(1.5, len)
    with pytest.raises(ValueError, match=r"no prediction '1.Z'.*1\.A"):
        checks.predict("1.Z", "a")
    with pytest.raises(ValueError, match="no lab 77"):
        checks.lab(77)


def test_predicting_comes_before_revealing(fresh, capsys):
    checks.reveal("1.A", 5.0)
    assert "No prediction yet" in capsys.readouterr().out and not fresh.exists()
    checks.predict("1.A", None)
    assert "Predict first" in capsys.readouterr().out
    checks.predict("1.A", "z")
    assert "not one of the choices" in capsys.readouterr().out
    checks.predict("1.A", " (A) ")
    assert "noted" in capsys.readouterr().out
    checks.reveal("1.A", torch.tensor(5.0))
    assert "A surprise" in capsys.readouterr().out and json.loads(fresh.read_text()) == {"1.A": DONE}


def test_the_solved_lab_ends_with_a_check_that_bites(fresh):
    with pytest.raises(AssertionError, match=r"1\.1, 1\.2"):
        checks.require_all(1)


def test_cards_escape_what_learners_wrote_and_say_the_state_in_words():
    card = show.card_html("9.1 `f` · Not yet", "#000", ["a *very* <b> & `c<d*e*`"], ["x = '<script>'"])
    assert "a <em>very</em> &lt;b&gt; &amp; <code>c&lt;d*e*</code>" in card and "&lt;script&gt;" in card
    assert 'role="status"' in card and "Not yet" in card and "color:" not in card.replace("border-left", "")


def test_a_prediction_reviews_what_was_measured():
    prediction = Prediction(
        "9.A",
        "?",
        {"a": "low", "b": "high"},
        lambda x: "a" if x < 1 else "b",
        {"a": "because low", "b": "because high"},
        {"a": "low tempts", "b": "high tempts"},
        "it is {} units",
    )
    came_true, told = prediction.review("a", 2.5)
    assert not came_true and told[0] == "Measured: it is 2.5 units. That is (b): high."
    assert "low tempts" in told[1] and told[2] == "because high"


# ---- in a real IPython


@pytest.fixture
def shell():
    from IPython.core.interactiveshell import InteractiveShell

    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance(colors="nocolor")
    errors.install(shell)
    yield shell
    InteractiveShell.clear_instance()


def test_an_exception_deep_in_a_library_shows_one_line_of_the_learners(shell, capsys):
    shell.run_cell("import torch")
    result = shell.run_cell("a = torch.zeros(2, 3)\nb = torch.nn.functional.linear(a, torch.zeros(5, 4))")
    told = capsys.readouterr().out
    assert isinstance(result.error_in_exec, RuntimeError)  # the cell still counts as failed
    assert "line 2: b = torch.nn.functional.linear(a, torch.zeros(5, 4))" in told
    assert "inner sizes" in told and "site-packages" not in told and "functional.py" not in told
    assert len(told.splitlines()) <= 9


def test_the_innermost_line_of_the_learners_own_function_is_shown(shell, capsys):
    registry.exercises(1)
    shell.run_cell("def mean_l0(features, keep):\n    return (features[keep] > 0).sum(-1).mean()\n")
    shell.run_cell("import torch\nmean_l0(torch.rand(2, 3, 4), torch.ones(2, 3) > 0)")
    told = capsys.readouterr().out
    assert "line 2: return (features[keep] > 0).sum(-1).mean()" in told and ".float()" in told


def test_an_undone_exercise_is_named_without_fuss(shell, capsys):
    shell.run_cell("def f():\n    raise NotImplementedError('Exercise 1.3 is not done yet')")
    shell.run_cell("f()")
    told = capsys.readouterr().out
    assert "Exercise 1.3 is not done yet, and this cell uses it." in told and "line 2" not in told


def test_our_own_errors_keep_their_words(shell, capsys):
    shell.run_cell("from solutions.targets import get_target\nget_target('no such target')")
    told = capsys.readouterr().out
    assert "unknown target 'no such target'" in told and "smallworld" in told and "targets.py" not in told
    assert "line 2: get_target('no such target')" in told


def test_stopping_a_cell_shows_where_it_was(shell, capsys):
    shell.run_cell("def f():\n    raise KeyboardInterrupt\n")
    shell.run_cell("f()")
    assert "line 2: raise KeyboardInterrupt" in capsys.readouterr().out


def test_the_whole_traceback_is_one_magic_away(shell, capsys):
    shell.run_cell("1 / 0")
    capsys.readouterr()
    shell.run_line_magic("tb", "")
    assert "Traceback" in capsys.readouterr().out


def test_a_kernel_reports_the_short_error_and_goes_on():
    """In a real kernel: HTML cards, a failed cell that is short, and a next cell that runs."""
    from nbclient import NotebookClient

    cells = [
        "from labs.checks import check, lab\nlab(1, record=False)",
        "check('1.6', lambda features, keep: (features[keep].mean(0) > 0).sum())",
        "import torch\ntorch.zeros(2, 3) @ torch.zeros(2, 3)",
        "'still here'",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(
        notebook, timeout=120, allow_errors=True, resources={"metadata": {"path": str(ROOT)}}
    ).execute()
    started, graded, failed, after = (cell.outputs for cell in notebook.cells)
    assert "Lab 1 is ready" in started[-1].data["text/html"]
    assert "averaged over the tokens and then counted" in graded[0].data["text/html"]
    assert "averaged over the tokens" in graded[0].data["text/plain"]
    assert failed[0].output_type == "error" and failed[0].ename == "RuntimeError"
    shown = "\n".join(failed[0].traceback)
    assert "line 2: torch.zeros(2, 3) @ torch.zeros(2, 3)" in shown and len(failed[0].traceback) <= 9
    assert str(ROOT) not in shown and after[0].data["text/plain"] == "'still here'"
