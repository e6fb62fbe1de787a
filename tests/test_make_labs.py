"""The lab generator, on good sources and on deliberately broken ones."""

import ast
import shutil

import nbformat
import pytest

from solutions import make_labs
from solutions.make_labs import LabError, make_lab

HEADER = """---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

"""

GOOD = (
    HEADER
    + '''# Lab 9

## Exercise 9.1: Double

```{code-cell} ipython3
:tags: [exercise]

class Doubler:
    """Doubles."""

    def double(self, x):
        """Twice x."""
        ### BEGIN SOLUTION
        twice_the_number = x + x
        return twice_the_number
        ### END SOLUTION

    def name(self):
        return "doubler"
```

```{code-cell} ipython3
:tags: [check]

print("checked")
```

```{code-cell} ipython3
:tags: [uses-exercise]

Doubler().double(3)
```

```{code-cell} ipython3
:tags: [solution]

only_in_the_solved_lab = True
```
'''
)


def cells(text):
    return nbformat.reads(make_lab(text, "test"), as_version=4).cells


def test_a_method_body_becomes_an_indented_stub_and_the_rest_stays():
    source = cells(GOOD)[1].source
    assert "twice_the_number" not in source
    assert '        raise NotImplementedError("Exercise 9.1 is not done yet")' in source
    assert 'return "doubler"' in source and '"""Twice x."""' in source
    ast.parse(source)


def test_cells_tagged_solution_are_dropped():
    assert not any("only_in_the_solved_lab" in cell.source for cell in cells(GOOD))


def test_only_cells_that_use_an_exercise_may_raise():
    tags = [cell.metadata.get("tags", []) for cell in cells(GOOD) if cell.cell_type == "code"]
    assert ["raises-exception" in of_cell for of_cell in tags] == [False, False, True]


def test_a_stub_outside_a_function_may_raise():
    text = GOOD.replace(
        ":tags: [solution]\n\nonly_in_the_solved_lab = True",
        "### BEGIN SOLUTION\nanswer_to_everything = 6 * 7\n### END SOLUTION",
    )
    assert "raises-exception" in cells(text)[-1].metadata["tags"]


def test_code_has_no_outputs_and_no_execution_count():
    assert all(
        cell.outputs == [] and cell.execution_count is None
        for cell in cells(GOOD)
        if cell.cell_type == "code"
    )


def test_ids_are_stable_and_unique():
    ids = [cell.id for cell in cells(GOOD)]
    assert ids == [cell.id for cell in cells(GOOD)] and len(set(ids)) == len(ids)
    longer = GOOD.replace(
        "# Lab 9\n",
        "# Lab 9\n\nA new first paragraph.\n\n```{code-cell} ipython3\nimport math\n```\n\nMore.\n",
    )
    assert {"exercise-9-1-double-1", "exercise-9-1-double-2"} <= set(ids) & {
        cell.id for cell in cells(longer)
    }


@pytest.mark.parametrize(
    ("what", "old", "new", "complaint"),
    [
        ("no end", "        ### END SOLUTION\n", "", "without ### END SOLUTION"),
        ("no begin", "        ### BEGIN SOLUTION\n", "", "without ### BEGIN SOLUTION"),
        (
            "nested",
            "        return twice",
            "        ### BEGIN SOLUTION\n        return twice",
            "inside a solution",
        ),
        ("misspelt", ":tags: [check]\n\nprint", ":tags: [check]\n\n### BEGIN SOLUTON\nprint", "misspelt"),
        ("leak in code", 'print("checked")', "twice_the_number = x + x", "gives away"),
        ("leak in text", "# Lab 9\n", "# Lab 9\n\n    return twice_the_number\n", "gives away"),
        ("leak of a dropped cell", 'print("checked")', "only_in_the_solved_lab = True", "gives away"),
        ("marker in text", "# Lab 9\n", "# Lab 9\n\n### BEGIN SOLUTION\nx\n### END SOLUTION\n", "text cell"),
        ("does not parse", 'print("checked")', "print('checked'", "does not parse"),
    ],
)
def test_broken_sources_are_refused_with_their_place(what, old, new, complaint):
    broken = GOOD.replace(old, new, 1)
    assert broken != GOOD
    with pytest.raises(LabError, match=complaint) as refused:
        make_lab(broken, "test")
    assert str(refused.value).startswith("test")


def test_a_source_without_any_solution_is_refused():
    with pytest.raises(LabError, match="no solution"):
        make_lab(HEADER + "# Lab\n\n```{code-cell} ipython3\n1 + 1\n```\n")


@pytest.fixture
def course(tmp_path):
    for folder in ("solutions", "labs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "solutions/09_test.md").write_text(GOOD, "utf8")
    return tmp_path


def test_making_then_checking_is_clean(course):
    assert make_labs.main(["--check"], course) == 1  # missing
    assert make_labs.main([], course) == 0
    assert make_labs.main(["--check"], course) == 0


def test_check_finds_a_stale_lab_and_changes_nothing(course, capsys):
    make_labs.main([], course)
    source, lab = course / "solutions/09_test.md", course / "labs/09_test.ipynb"
    source.write_text(GOOD.replace("# Lab 9", "# Lab nine"), "utf8")
    before = lab.read_text("utf8")
    assert make_labs.main(["--check"], course) == 1
    assert "out of date" in capsys.readouterr().err and lab.read_text("utf8") == before
    assert make_labs.main([], course) == 0 and "Lab nine" in lab.read_text("utf8")


def test_check_finds_a_lab_without_a_source(course, capsys):
    make_labs.main([], course)
    shutil.copy(course / "labs/09_test.ipynb", course / "labs/08_gone.ipynb")
    assert make_labs.main(["--check"], course) == 1
    assert "08_gone.ipynb: has no source" in capsys.readouterr().err


def test_a_learners_work_is_never_written_over(course, capsys):
    make_labs.main([], course)
    lab = course / "labs/09_test.ipynb"
    notebook = nbformat.read(lab, as_version=4)
    notebook.cells[1].source = "my_own_work = 1"
    nbformat.write(notebook, lab)
    assert make_labs.main([], course) == 1
    assert "worked in" in capsys.readouterr().err and "my_own_work" in lab.read_text("utf8")
    assert make_labs.main(["--check"], course) == 1
    assert make_labs.main(["--force"], course) == 0 and "my_own_work" not in lab.read_text("utf8")


def test_outputs_alone_are_no_work(course):
    make_labs.main([], course)
    lab = course / "labs/09_test.ipynb"
    notebook = nbformat.read(lab, as_version=4)
    notebook.cells[2].outputs = [nbformat.v4.new_output("stream", text="checked")]
    nbformat.write(notebook, lab)
    assert make_labs.main(["--check"], course) == 1  # outputs are not committed ...
    assert make_labs.main([], course) == 0  # ... and nothing is lost by making the lab anew


def test_the_repository_is_clean():
    assert make_labs.main(["--check"]) == 0
