"""What the course offers to others: every public name of every room, and what its documentation says.

`solutions` is used as a library, by the chapters first of all. The face of a room is its `__all__`. What stands there
is documented in Google's style, which `help()` shows as it is and Sphinx turns into the page of modules.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from sphinx.pycode import ModuleAnalyzer

#: The rooms with a public face, in the order in which they depend on one another.
ROOMS = (
    "errors", "hub", "targets", "data", "models", "sae", "analysis", "interventions", "attribution", "autointerp",
    "visualization", "app",
)

SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises", "Example")

#: Calls that raise for their caller: a function that makes one can raise, too.
CHECKS = re.compile(r"_?(check|unknown|require|refuse)_")


class Public(NamedTuple):
    """One public function, method, property or class."""

    name: str                  # "analysis.FeatureIndex.find"
    thing: Any                 # the function, or the class
    owner: type | None         # the class it is a method of
    is_property: bool = False

    @property
    def doc(self) -> str:
        """What `help()` shows; a method that overrides another without a word of its own says what that one says."""
        above = getattr(self.owner, self.name.rsplit(".", 1)[1], None)
        return inspect.getdoc(self.thing) or inspect.getdoc(above) or ""


def room(name: str) -> Any:
    """A room as a module."""
    return importlib.import_module(f"solutions.{name}")


def public_things(name: str) -> Iterator[Public]:
    """Everything public in a room: classes, their methods and properties, and functions; constants left out."""
    for key in room(name).__all__:
        thing = getattr(room(name), key)
        if inspect.isclass(thing):
            yield Public(f"{name}.{key}", thing, None)
            yield from _members(f"{name}.{key}", thing)
        elif inspect.isfunction(thing):
            yield Public(f"{name}.{key}", thing, None)


def _members(name: str, owner: type) -> Iterator[Public]:
    for key, member in vars(owner).items():
        is_property = isinstance(member, property) or hasattr(member, "attrname")
        for unwrapped in ("__func__", "fget", "func"):
            member = getattr(member, unwrapped, member)
        if not key.startswith("_") and inspect.isfunction(member) and member.__module__.startswith("solutions"):
            yield Public(f"{name}.{key}", member, owner, is_property)


def sections(doc: str) -> dict[str, str]:
    """The parts of a docstring by name, what stands before them under ""; their indentation is taken off."""
    parts: dict[str, list[str]] = {"": []}
    here = ""
    for line in doc.splitlines():
        title = line.rstrip()[:-1] if line.endswith(":") and line[0] != " " else None
        if title in SECTIONS:
            here = title
            parts[here] = []
        else:
            here = "" if line[:1].strip() else here  # text that is not indented belongs to no section
            parts[here].append(line)
    return {name: textwrap.dedent("\n".join(lines)).strip() for name, lines in parts.items()}


def described(text: str) -> set[str]:
    """The names at the beginning of the entries of a section: of "a, b: two numbers" a and b."""
    entries = re.findall(r"^(\*{0,2}\w+(?:, \*{0,2}\w+)*):", text, re.M)
    return {name.strip().lstrip("*") for entry in entries for name in entry.split(",")}


def parameters(function: Callable) -> dict[str, inspect.Parameter]:
    """What a caller gives."""
    return {n: p for n, p in inspect.signature(function).parameters.items() if n not in ("self", "cls")}


def can_raise(function: Callable) -> bool:
    """Whether the function itself raises an error of its own, or checks what it is given."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and node.exc is not None and not _is_private(node.exc):
            return True
        if isinstance(node, ast.Call) and CHECKS.match(getattr(node.func, "id", getattr(node.func, "attr", ""))):
            return True
    return False


def _is_private(error: ast.expr) -> bool:
    """An exception that never leaves the module: its name begins with an underscore."""
    return isinstance(error, ast.Name) and error.id.startswith("_")


def inherits(public: Public) -> bool:
    """Whether a method takes the place of one that a class of ours above has documented."""
    key = public.name.rsplit(".", 1)[1]
    above = [base for base in getattr(public.owner, "__mro__", ())[1:] if base.__module__.startswith("solutions")]
    return any(inspect.getdoc(vars(base).get(key)) for base in above)


def fields(owner: type) -> set[str]:
    """The fields of a dataclass or a named tuple that the class itself brings."""
    names = getattr(owner, "_fields", ()) or getattr(owner, "__dataclass_fields__", ())
    return {name for name in names if name in vars(owner).get("__annotations__", {})}


def described_fields(public: Public) -> set[str]:
    """Fields with a line under Attributes, a string below them, or a comment that begins with #: (Sphinx reads it)."""
    found = ModuleAnalyzer.for_module(public.thing.__module__).find_attr_docs()
    beside = {name for owner, name in found if owner == public.thing.__qualname__}
    return beside | described(sections(public.doc).get("Attributes", ""))


def _misread_fields(owner: type) -> list[str]:
    """Fields whose description has words before a colon, where Sphinx expects a type; "[n] int64: …" is meant so."""
    found = ModuleAnalyzer.for_module(owner.__module__).find_attr_docs()
    mine = {name: lines[0] for (holder, name), lines in found.items() if holder == owner.__qualname__ and lines}
    shape = re.compile(r"\[[^]]*\]( \w+)?:")
    return [f"the description of {name} has a colon that Sphinx takes for the end of a type"
            for name, line in mine.items() if ":" in line.replace("``", "") and not shape.match(line)]


def gaps(public: Public) -> list[str]:
    """What is missing from the documentation of one public thing, in words."""
    if not public.doc:
        return ["no docstring"]
    if inspect.isclass(public.thing):
        missing = sorted(fields(public.thing) - described_fields(public))
        return [f"the field {name} is not described" for name in missing] + _misread_fields(public.thing)
    if inherits(public):
        return []
    found, parts = [], sections(public.doc)
    given = parameters(public.thing)
    found += [f"{name} has no type" for name, p in given.items() if p.annotation is p.empty]
    if inspect.signature(public.thing).return_annotation is inspect.Signature.empty:
        found.append("what it returns has no type")
    found += [f"{name} is not described" for name in given if not _says(public, parts, name)]
    found += [f"{name} is described and is no parameter" for name in described(parts.get("Args", "")) - {*given}]
    if can_raise(public.thing) and not _has(public, "Raises"):
        found.append("it raises, and does not say what")
    if public.owner is None and not _returns_nothing(public.thing) and not {"Returns", "Yields"} & {*parts}:
        found.append("it does not say what it returns")
    if ":" in (parts.get("Returns") or parts.get("Yields") or "").partition("\n")[0]:
        found.append("what it returns has a colon in its first line: Sphinx takes what stands before it for a type")
    return found


def _says(public: Public, parts: dict[str, str], name: str) -> bool:
    """Whether a parameter is described: by a function under Args; a method may name it in its text, or its class."""
    if name in described(parts.get("Args", "")):
        return True
    texts = [parts[""], inspect.getdoc(public.owner) or ""] if public.owner else []
    return any(f"`{name}`" in text for text in texts)


def _has(public: Public, section: str) -> bool:
    """Whether a section is there; what a class says of its methods holds for all of them."""
    docs = [public.doc, inspect.getdoc(public.owner) or ""] if public.owner else [public.doc]
    return any(section in sections(doc) for doc in docs)


def _returns_nothing(function: Callable) -> bool:
    return inspect.signature(function).return_annotation in ("None", None)
