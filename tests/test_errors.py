"""What a learner sees in a notebook when something is refused."""

import re

import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from solutions import data, models, sae
from solutions.errors import InputError, check_position, check_positions, first_line, unknown_name


def test_a_notebook_shows_the_readers_line_and_no_library_frames():
    shell = InteractiveShell.instance()
    with capture_output() as shown:
        shell.run_cell("from solutions.targets import get_target\n\ntarget = get_target('smalworld')\n")
    InteractiveShell.clear_instance()
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown.stdout + shown.stderr)
    assert "line 3:  target = get_target('smalworld')" in text
    assert "InputError: unknown target 'smalworld'. Did you mean 'smallworld'" in text
    assert "targets.py" not in text and len(text.strip().splitlines()) <= 4


def test_first_line_shortens_a_librarys_story():
    assert first_line(OSError("short\nlong\nlonger")) == "OSError: short"
    assert first_line(KeyError()) == "KeyError"


def test_unknown_names_list_what_is_known_when_it_is_little():
    few = str(unknown_name("fruit", "aple", ["apple", "tomato"]))
    assert few == "unknown fruit 'aple'. Did you mean 'apple'? Known: apple, tomato."
    many = str(unknown_name("number", "n7x", [f"n{i}" for i in range(100)], "Count again."))
    assert "Known" not in many and many.endswith("Count again.")
    assert isinstance(unknown_name("fruit", "x", []), InputError) and isinstance(
        unknown_name("f", 1, []), ValueError
    )


def test_positions_are_counted_from_the_beginning():
    assert [check_position(p, 3) for p in (0, 2, -1, -3, torch.tensor(1))] == [0, 2, 2, 0, 1]
    assert check_positions(iter([2, -1, 0]), 3) == [2, 2, 0] and check_positions(torch.tensor([4, -9])) == [4, -9]
    for wrong in (3, -4, 99):
        with pytest.raises(InputError, match=f"position {wrong} does not exist: the rows have 3 tokens"):
            check_position(wrong, 3)
        with pytest.raises(InputError, match=f"position {wrong} does not exist"):
            check_positions([0, wrong], 3)
    for wrong in (0.5, True, "1", None, [0]):
        with pytest.raises(InputError, match="position must be a whole number"):
            check_position(wrong, 3)


@pytest.mark.parametrize(("wrong", "said"), [
    (2, r"list of whole numbers, e.g. \[2\], got 2"), ([], "at least one"), ("12", "got '12'"), (None, "got None"),
    ([0, 0.5], "at least one whole number"), ([True], "at least one whole number"),
])
def test_what_is_no_list_of_positions_is_refused(wrong, said):
    for n in (None, 3):
        with pytest.raises(InputError, match=said):
            check_positions(wrong, n)


def test_every_function_names_what_it_was_given_instead():
    for ask in (
        lambda: data.tokenize("gpt2", "Hi"),
        lambda: data.str_tokens(None, "Hi"),
        lambda: data.load_texts("smallworld", 3),
        lambda: data.save_activations("x", {"hook": torch.ones(1, 2, 3)}, torch.ones(1, 2), None),
        lambda: models.describe_model("gpt2"),
        lambda: models.hook_points("gpt2"),
        lambda: models.extract("gpt2", "Hi", "hook_embed"),
        lambda: models.next_tokens("gpt2", "Hi"),
        lambda: models.generate("gpt2", "Hi"),
        lambda: models.loss("gpt2", "Hi"),
        lambda: models.run_with_edit("gpt2", "Hi", "hook_embed", abs),
        lambda: models.activation_statistics(torch.ones(1, 2, 3), "Hi"),
        lambda: sae.encode("sae", torch.ones(3)),
        lambda: sae.decode(None, torch.ones(3)),
    ):
        with pytest.raises(InputError, match=r"must be an? .*got (str|NoneType)|must be Tokens"):
            ask()
