"""Who answers the questions that an explanation is tested with. No judge is ever shown the activations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from torch import Tensor

from solutions.analysis.hypotheses.reading import named_labels
from solutions.autointerp.endpoint import Endpoint
from solutions.autointerp.explaining import Explanation
from solutions.autointerp.passages import Item
from solutions.autointerp.prompts import judging_prompt, read_answers
from solutions.errors import InputError, check_count, unknown_name

if TYPE_CHECKING:
    from solutions.analysis.index import FeatureIndex
    from solutions.analysis.texts import LabelledTexts

#: For each question yes or no, or None where there is no answer.
Answers = list[bool | None]


class Judge(Protocol):
    """Anything that answers questions about passages, given an explanation."""

    def answer(self, tests: Sequence[tuple[Explanation, list[Item]]], task: str) -> list[Answers]:
        """The answers to each list of questions.

        Args:
            tests: explanations with their questions.
            task: "detection" or "fuzzing".
        """


class RuleJudge:
    """Applies an explanation that is a rule. For the offline explainer."""

    def answer(self, tests: Sequence[tuple[Explanation, list[Item]]], task: str) -> list[Answers]:
        """Yes where the rule holds.

        Args:
            tests: explanations with their questions.
            task: "detection" or "fuzzing".

        Raises:
            InputError: an explanation is no rule.
        """
        found = []
        for explanation, items in tests:
            if explanation.rule is None:
                raise InputError(f"latent {explanation.latent}: an explanation in words needs somebody who understands "
                                 "words. Give an EndpointJudge.")
            found.append([_asked(explanation.rule.on(item.tokens), item) for item in items])
        return found


class TruthJudge:
    """Looks the answer up in the labels. For explanations that name a labelled concept.

    Args:
        index: the feature index that the questions come from.
        labels: the labelled texts it was made from, or columns of your own, {concept: [n_tokens] bool}.
    """

    def __init__(self, index: FeatureIndex, labels: LabelledTexts | Mapping[str, Tensor]):
        self.labels = {name: np.asarray(column) for name, column in named_labels(index, labels).items()}

    def answer(self, tests: Sequence[tuple[Explanation, list[Item]]], task: str) -> list[Answers]:
        """Yes where the concept holds.

        Args:
            tests: explanations with their questions.
            task: "detection" or "fuzzing".

        Raises:
            InputError: an explanation names no concept, or one without labels.
        """
        found = []
        for explanation, items in tests:
            if explanation.concept not in self.labels:
                raise unknown_name("concept", explanation.concept, self.labels)
            holds = self.labels[explanation.concept]
            found.append([_asked(holds[item.start:item.start + len(item.tokens)].tolist(), item) for item in items])
        return found


class EndpointJudge:
    """Asks a language model.

    Args:
        endpoint: whom to ask; it need not be the one that explained.
        budget: dollars that one call may spend, see `Endpoint.ask`.
        at_once: questions in one request. More are cheaper, and answered with less care.
        progress: whether to show a bar.

    Raises:
        InputError: `at_once` is below 1.
    """

    def __init__(self, endpoint: Endpoint, budget: float | None = None, at_once: int = 5, progress: bool = False):
        self.endpoint, self.budget, self.progress = endpoint, budget, progress
        self.at_once = check_count(at_once, "at_once")

    def answer(self, tests: Sequence[tuple[Explanation, list[Item]]], task: str) -> list[Answers]:
        """What the language model says; None for questions that it refuses, or answers in an unreadable way.

        Args:
            tests: explanations with their questions; one without words gets no answers.
            task: "detection" or "fuzzing".

        Raises:
            BudgetError: it would cost more than the budget.
            EndpointError: the endpoint does not accept the request, or does not answer.
        """
        parts, prompts = [], []
        for number, (explanation, items) in enumerate(tests):
            for first in range(0, len(items) if explanation.text else 0, self.at_once):
                part = items[first:first + self.at_once]
                parts.append((number, first, len(part)))
                prompts.append(judging_prompt(explanation.text, part, task))
        found: list[Answers] = [[None] * len(items) for _, items in tests]
        for (number, first, n), reply in zip(
                parts, self.endpoint.ask(prompts, self.budget, self.progress), strict=True):
            answers = read_answers(reply.text, n) if reply.status == "ok" else None
            if answers is not None:
                found[number][first:first + n] = answers
            elif reply.status == "ok":
                self.endpoint.counts["ok"] -= 1
                self.endpoint.counts["malformed"] += 1
        return found


def _asked(holds: list[bool], item: Item) -> bool:
    """Of what is said about every token, what was asked: about one of them, or about any."""
    return any(holds) if item.marked is None else holds[item.marked]
