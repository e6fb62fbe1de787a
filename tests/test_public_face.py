"""Every public name is documented as a library's names are: types, arguments, what comes back, what is raised."""

import inspect
import types
from typing import NamedTuple

import pytest
from public_face import ROOMS, Public, can_raise, described, gaps, public_things, room, sections


@pytest.mark.parametrize("name", ROOMS)
def test_everything_public_is_documented(name):
    found = {public.name: missing for public in public_things(name) if (missing := gaps(public))}
    assert found == {}


@pytest.mark.parametrize("name", ROOMS)
def test_a_face_is_small_and_right(name):
    """Without repetition, nothing private, nothing of another library's, and each name is there."""
    module, names = room(name), room(name).__all__
    assert len(set(names)) == len(names) and not [n for n in names if n.startswith("_") or not hasattr(module, n)]
    things = [getattr(module, n) for n in names]
    assert not [t for t in things if isinstance(t, types.ModuleType)]
    homes = [t.__module__ for t in things if inspect.isclass(t) or inspect.isfunction(t)]
    assert homes and not [home for home in homes if not home.startswith("solutions.")]


def test_there_is_something_to_document():
    assert sum(len(list(public_things(name))) for name in ROOMS) > 400


def double(x: float, times: int = 1) -> float:
    """Twice as much.

    Args:
        x: any number.
        times: how often.

    Returns:
        The double.

    Raises:
        ValueError: `times` is negative.
    """
    if times < 0:
        raise ValueError(times)
    return x * 2**times


def without(*lines: str) -> Public:
    """`double` with lines of its docstring left out."""
    kept = [line for line in double.__doc__.splitlines() if line.strip() not in lines]
    copy = types.FunctionType(double.__code__, globals(), "double", double.__defaults__)
    copy.__doc__, copy.__annotations__ = "\n".join(kept), dict(double.__annotations__)
    return Public("tests.double", copy, None)


def test_a_documented_function_has_no_gaps():
    assert gaps(without()) == []


@pytest.mark.parametrize(
    ("lines", "gap"),
    [
        (("times: how often.",), "times is not described"),
        (("Returns:", "The double."), "it does not say what it returns"),
        (("Raises:", "ValueError: `times` is negative."), "it raises, and does not say what"),
    ],
)
def test_each_gap_is_seen(lines, gap):
    assert gaps(without(*lines)) == [gap]


def test_a_missing_type_and_an_invented_parameter_are_seen():
    public = without()
    del public.thing.__annotations__["x"]
    lines = inspect.cleandoc(public.thing.__doc__).splitlines()
    lines.insert(1 + lines.index("    x: any number."), "    y: no such thing.")
    public.thing.__doc__ = "\n".join(lines)
    assert gaps(public) == ["x has no type", "y is described and is no parameter"]


def test_a_colon_that_sphinx_would_misread_is_seen():
    public = without()
    public.thing.__doc__ = public.thing.__doc__.replace("The double.", "The result: twice x.")
    assert len(gaps(public)) == 1 and "colon" in gaps(public)[0]


class Pair(NamedTuple):
    """Two numbers."""

    first: int   #: the smaller one
    second: int  # an ordinary comment, which Sphinx overlooks
    third: int   #: counted: the number of the others
    fourth: int  #: [n] int64: a shape may stand before a colon


def test_a_field_without_a_description_is_seen_and_one_that_sphinx_would_misread():
    missing, misread = gaps(Public("tests.Pair", Pair, None))
    assert missing == "the field second is not described" and "third has a colon" in misread


def test_a_section_ends_where_the_next_begins():
    parts = sections("One line.\n\nArgs:\n    a, b: two: numbers.\n        More of them.\n\nReturns:\n    c: d\n\ne: f")
    assert described(parts["Args"]) == {"a", "b"} and parts[""] == "One line.\n\ne: f" and parts["Returns"] == "c: d"


def test_a_check_counts_as_raising_and_a_private_signal_does_not():
    def checks(x):
        check_count(x, "x")  # noqa: F821

    def signals():
        raise _Done  # noqa: F821

    assert can_raise(checks) and not can_raise(signals)
