"""Predict, then run. A prediction is never marked wrong: what it was compared with is explained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Prediction:
    """A question to answer before running a cell.

    Attributes:
        number: "1.A": lab 1, first prediction.
        question: the question.
        choices: the answers by letter.
        outcome: from the measured number to the letter it makes true. Nothing here knows the answer.
        explain: for each letter, why the measurement comes out like that.
        tempting: for each letter, what makes people choose it; shown when another letter came out.
        unit: what the measured number is, in words, with `{}` where it goes.
    """

    number: str
    question: str
    choices: Mapping[str, str]
    outcome: Callable[[float], str]
    explain: Mapping[str, str]
    tempting: Mapping[str, str]
    unit: str

    def review(self, choice: str, measured: float) -> tuple[bool, list[str]]:
        """(whether the prediction came true, paragraphs to show)."""
        came = self.outcome(float(measured))
        told = [
            f"Measured: {self.unit.format(f'{float(measured):.3g}')}. That is ({came}): {self.choices[came]}."
        ]
        if choice != came:
            told.append(f"You had predicted ({choice}): {self.choices[choice]}. {self.tempting[choice]}")
        return choice == came, [*told, self.explain[came]]
