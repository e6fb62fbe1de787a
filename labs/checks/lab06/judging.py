"""Grading a test: it is run on implementations that are right and on implementations that are wrong.

Exercises 6.2 and 6.3 ask for a test. A test is good if it accepts every right implementation, however it is written,
and rejects every wrong one.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from hypothesis import HealthCheck, Phase, settings
from torch import Tensor

from labs.checks.exercise import Wrong

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Implementation:
    """Something to be tested. `says` completes "an implementation that ..." for a wrong one."""

    name: str
    function: Callable
    right: bool
    says: str = ""

    described = "an implementation"

    def __call__(self, *args):
        return self.function(*args)


@dataclass
class Watched:
    """An implementation that remembers what it was given."""

    implementation: Implementation
    given: list[tuple] = field(default_factory=list)

    def __call__(self, *args):
        self.given.append(tuple(a.clone() if isinstance(a, Tensor) else a for a in args))
        return self.implementation(*args)


@dataclass
class Judged:
    """What a test did with one implementation.

    Attributes:
        name, right: of the implementation.
        accepted: the test came to its end without an exception.
        returned: whether it returned anything.
        given: what it called the implementation with.
    """

    name: str
    right: bool
    accepted: bool
    returned: bool
    given: list[tuple]

    described = "a test that raises AssertionError, or does nothing"


@contextmanager
def quiet_hypothesis() -> Iterator[None]:
    """Hypothesis with few examples, always the same ones, and no folder for what it found."""
    before = settings.get_current_profile_name()
    settings.register_profile(
        "lab06-check",
        database=None,
        deadline=None,
        derandomize=True,
        max_examples=25,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    settings.load_profile("lab06-check")
    try:
        yield
    finally:
        settings.load_profile(before)


def judge(test: Callable, implementation: Implementation, *more) -> Judged:
    """Run a test on an implementation. An exception of the test's own on a right one goes through."""
    watched = Watched(implementation)
    returned = None
    with quiet_hypothesis():
        try:
            returned = test(watched, *more)
            accepted = True
        except AssertionError:
            accepted = False
        except Exception as error:
            if implementation.right or not _from_here(error):  # also the untouched stub's
                raise
            accepted = False
    return Judged(implementation.name, implementation.right, accepted, returned is not None, watched.given)


def _from_here(error: Exception) -> bool:
    """Whether a wrong implementation broke, rather than the test itself."""
    frames = traceback.extract_tb(error.__traceback__)
    return any(Path(frame.filename).parent == HERE and "judging" not in frame.filename for frame in frames)


def accepts(test: Callable, implementation: Implementation, *more) -> bool:
    """Whether a test lets an implementation pass."""
    return judge(test, implementation, *more).accepted


def same_inputs(a: list[tuple], b: list[tuple]) -> bool:
    """Whether two runs of a test called the implementation with the same numbers."""
    if len(a) != len(b):
        return False
    return all(
        len(x) == len(y)
        and all(torch.equal(torch.as_tensor(p), torch.as_tensor(q)) for p, q in zip(x, y, strict=True))
        for x, y in zip(a, b, strict=True)
    )


def blind_to(test: Callable, name: str, right: Implementation) -> Callable:
    """A good test that has never heard of one mistake: where it is made, it sees `right` instead."""

    def weaker(f, *more) -> None:
        if name_of(f) != name:
            return test(f, *more)

        def seen(*args):
            f(*(a.clone() if isinstance(a, Tensor) else a for a in args))
            return right(*args)

        return test(seen, *more)

    return weaker


def name_of(f) -> str:
    """The name of what is tested, watched or not."""
    return getattr(f, "implementation", f).name


def misses(test: Callable, implementation: Implementation, right: Implementation, hint: str) -> Wrong:
    """The known wrong answer "your test accepts an implementation that ..."."""
    return Wrong(
        f"accepts: {implementation.name}",
        blind_to(test, implementation.name, right),
        f"Your test accepts an implementation that {implementation.says}. {hint}",
        recognise=lambda answer, args, output: output.name == implementation.name and output.accepted,
    )
