"""What an exercise is: inputs drawn at many shapes, a right answer, and the wrong answers people give.

A wrong answer is a small function with the message that tells the learner what they did. The same list
serves twice: it diagnoses the learner, and it tests the grader (every wrong answer must be caught by name).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

Status = Literal["right", "todo", "raised", "known", "form", "wrong"]


@dataclass(frozen=True)
class Wrong:
    """One known wrong answer.

    Attributes:
        name: a short name, unique within the exercise.
        answer: the mistake written as code, with the signature of the exercise.
        message: what the learner reads: what they did, why it matters, where to look.
        recognise: `recognise(answer, args, output) -> bool`, for a mistake that equal outputs cannot show (a
            missing error, a random draw). Without it a learner made this mistake if the outputs are equal.
    """

    name: str
    answer: Callable
    message: str
    recognise: Callable[[Callable, dict, Any], bool] | None = None


@dataclass(frozen=True)
class Property:
    """Something true of every right answer.

    `fault(answer, args, output)` returns None where the property holds, and otherwise a sentence with the
    numbers that show it failing.
    """

    claim: str
    fault: Callable[[Callable, dict, Any], str | None]


@dataclass(frozen=True)
class Exercise:
    """Everything the grader knows about one exercise.

    Attributes:
        number: "1.5": lab 1, exercise 5.
        name: the name of the function the learner writes.
        returns: the shape-annotated return type, as in the stub.
        draw: makes the arguments, in call order, from a seeded generator. Shapes differ from seed to seed.
        reference: a right answer.
        wrong: the known wrong answers, most specific first.
        properties: what must hold of any right answer, checked before outputs are compared.
        look_at: where to look when the learner's code raises and the error itself says little.
        saw: the "what you just saw" line.
        unique: False where many outputs are right (a random draw): then the properties alone decide.
        cases: how many inputs are drawn.
        run: `run(answer, args)`, how an answer is called where a plain call is not enough: an iterator has to be
            read, a writer needs a folder of its own. What it returns is what is graded.
    """

    number: str
    name: str
    returns: str
    draw: Callable[[torch.Generator], dict[str, Any]]
    reference: Callable
    wrong: tuple[Wrong, ...]
    look_at: str
    saw: str
    properties: tuple[Property, ...] = ()
    unique: bool = True
    cases: int = 6
    run: Callable[[Callable, dict], Any] | None = None

    def call(self, answer: Callable, args: dict) -> Any:
        """What `answer` gives for these arguments."""
        return answer(*args.values()) if self.run is None else self.run(answer, args)

    def inputs(self, seed: int) -> dict[str, Any]:
        """Arguments for one case: equal seeds give equal arguments."""
        return self.draw(torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Verdict:
    """What the grader found. `lines` is code to show as it is: the learner's own line."""

    number: str
    name: str
    status: Status
    message: str
    lines: tuple[str, ...] = ()
    wrong: Wrong | None = None

    @property
    def right(self) -> bool:
        return self.status == "right"


def whole(generator: torch.Generator, low: int, high: int) -> int:
    """A whole number from low to high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def normal(generator: torch.Generator, *shape: int) -> torch.Tensor:
    """Standard normal numbers, float32."""
    return torch.randn(*shape, generator=generator)
