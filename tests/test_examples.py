"""The examples of the documentation say the truth: each is run and what it prints is compared.

They share what the page of modules makes at its beginning (model, SAE, an index of 300 documents). That is taken from
the page itself, so a reader who copies those lines can run any example.
"""

import doctest
import inspect
import os
import pkgutil
import re
from pathlib import Path

import pytest
from public_face import ROOMS, public_things, room, sections

PAGE = (Path(__file__).parent.parent / "book" / "api.md").read_text("utf8")
PARSER = doctest.DocTestParser()
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
EXAMPLES = [(name, public) for name in ROOMS for public in public_things(name) if ">>>" in public.doc]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """What the first block of Python on the page of modules makes; its folders stay out of the repository."""
    (lines,) = re.findall(r"```python\n(.+?)```", PAGE, re.S)
    before = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("examples"))
    try:
        made = {}
        exec(lines, made)
        yield made
    finally:
        os.chdir(before)


@pytest.mark.parametrize(("name", "public"), EXAMPLES, ids=[public.name for _, public in EXAMPLES])
def test_the_example_prints_what_it_says(name, public, prepared):
    names = prepared | {key: getattr(room(name), key) for key in room(name).__all__}
    names |= {key: prepared[key] for key in ("model", "sae", "target") if key in names}
    example = PARSER.get_doctest(sections(public.doc)["Example"], names, public.name, None, 0)
    said = []
    failed, tried = doctest.DocTestRunner(optionflags=FLAGS, verbose=False).run(example, out=said.append)
    assert tried and not failed, "".join(said)


def test_there_are_examples_in_every_room():
    rooms = [name for name, _ in EXAMPLES]
    assert len(rooms) >= 80
    # What the hub answers depends on the network, and an app has to be looked at.
    assert [name for name in ROOMS if rooms.count(name) < 2] == ["hub", "app"]


def test_an_example_that_lies_is_caught():
    example = PARSER.get_doctest(">>> 1 + 1\n3\n", {}, "lie", None, 0)
    assert doctest.DocTestRunner(verbose=False).run(example, out=lambda _: None).failed == 1


def test_every_example_stands_where_it_is_looked_for():
    hidden = [p.name for name in ROOMS for p in public_things(name)
              if ">>>" in (inspect.getdoc(p.thing) or "") and ">>>" not in sections(p.doc).get("Example", "")]
    assert hidden == []


def test_the_tables_name_what_there_is():
    wanted = set(re.findall(r"\{py:obj\}`~(solutions\.[\w.]+)`", PAGE))
    assert len(wanted) > 60 and {name for name in wanted if not exists(name)} == set()
    assert not exists("solutions.models.extrakt") and not exists("solutions.analysis.FeatureIndex.lost")


def exists(name: str) -> bool:
    """Whether there is such a module, or such a thing in one."""
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True
