"""What a learner's function calls, read from its code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import CodeType


def uses(function: Callable, name: str) -> bool:
    """Whether a function, or one inside it, looks up a name."""

    def names_in(code: CodeType) -> Iterator[str]:
        yield from code.co_names
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                yield from names_in(constant)

    code = getattr(function, "__code__", None)
    return code is not None and name in names_in(code)
