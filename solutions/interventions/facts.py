"""Facts to intervene on: a prompt, its answer, and a wrong answer of the same kind to compare with.

A fact is measured by one number, the difference of two logits at the last token of the prompt: that of the answer
minus that of the foil. It moves whenever an intervention touches what tells the two apart, and stands still when both
rise or fall together (Wang et al. 2022, arXiv 2211.00593, measure by it).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from solutions import EMBEDDED_TARGETS
from solutions.data import Tokens
from solutions.data.tokens import check_acts
from solutions.errors import InputError, check_model, check_tensor, check_text, unknown_name
from solutions.models import as_tokens
from solutions.smallworld import probes
from solutions.targets import Target, check_target

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


@dataclass(frozen=True)
class Fact:
    """One thing that a model may know.

    Attributes:
        prompt: how the sentence begins.
        answer: its right continuation, one token, leading space included, as in " Paris".
        foil: a wrong continuation of the same kind, as in " Rome".
        kind: what sort of fact it is, e.g. "landmark_city".
    """

    prompt: str
    answer: str
    foil: str
    kind: str = ""

    def __post_init__(self) -> None:
        check_text(self.prompt, "a fact's prompt")
        for name in ("answer", "foil"):
            check_text(getattr(self, name), f"a fact's {name}")
        if self.answer == self.foil:
            raise InputError(f"a fact's answer and foil must differ, both are {self.answer!r}.")


#: For models that read English: kind to (phrase, thing to answer). Well-known, and asked so that a name comes next.
ENGLISH = {
    "landmark_city": (
        "{x} is in the city of",
        {"the Eiffel Tower": "Paris", "the Colosseum": "Rome", "Big Ben": "London", "the Kremlin": "Moscow",
         "the Brandenburg Gate": "Berlin", "the Acropolis": "Athens", "the Burj Khalifa": "Dubai",
         "the Charles Bridge": "Prague", "the Forbidden City": "Beijing", "the White House": "Washington"},
    ),
    "landmark_country": (
        "{x} is in the country of",
        {"the Eiffel Tower": "France", "the Colosseum": "Italy", "the Kremlin": "Russia", "the Taj Mahal": "India",
         "the Brandenburg Gate": "Germany", "the Acropolis": "Greece", "the Great Wall": "China"},
    ),
    "city_language": (
        "The people of {x} speak",
        {"Paris": "French", "Rome": "Italian", "Berlin": "German", "Madrid": "Spanish", "Moscow": "Russian",
         "London": "English", "Tokyo": "Japanese", "Beijing": "Chinese", "Lisbon": "Portuguese", "Athens": "Greek"},
    ),
    "capital": (
        "The capital of {x} is the city of",
        {"France": "Paris", "Italy": "Rome", "Germany": "Berlin", "England": "London", "Russia": "Moscow",
         "Spain": "Madrid", "Japan": "Tokyo", "China": "Beijing", "Egypt": "Cairo", "Greece": "Athens",
         "Austria": "Vienna", "Poland": "Warsaw", "Ireland": "Dublin", "Cuba": "Havana"},
    ),
}  # fmt: skip

#: The kinds of facts, the same for every target.
FACT_KINDS = tuple(ENGLISH)


def facts_of(target: Target, model: TransformerBridge, kinds: str | Sequence[str] | None = None) -> list[Fact]:
    """Facts that suit what the target's model has read.

    For an embedded model they are those of the embedded world, in the phrasing its text uses; for any other a short
    list of well-known English ones. A fact whose answer or foil is not a single token of this model is left out.
    Whether the model knows them is another question, see `Asked.correct`.

    Args:
        target: what is being studied.
        model: its model; the tokenizer is used.
        kinds: one or several of "landmark_city", "landmark_country", "city_language", "capital"; all by default.

    Returns:
        The facts, in a fixed order, kind after kind. The foil goes through the answers of the kind.

    Raises:
        InputError: an unknown kind, or no answer of these is a single token of the model.

    Example:
        >>> fact = facts_of(target, model, "landmark_city")[0]
        >>> fact.prompt, fact.answer
        ('The Eiffel Tower is in', ' Paris')
    """
    check_target(target)
    check_model(model)
    wanted = FACT_KINDS if kinds is None else (kinds,) if isinstance(kinds, str) else tuple(kinds)
    for kind in wanted:
        if kind not in FACT_KINDS:
            raise unknown_name("kind of fact", kind, FACT_KINDS)
    known = _embedded(wanted) if target.model in EMBEDDED_TARGETS else _english(wanted)
    facts = [fact for kind in wanted for fact in _with_foils(model, kind, known[kind])]
    if not facts:
        raise InputError(f"no answer to a fact of {', '.join(wanted)} is a single token of this model.")
    return facts


def _embedded(kinds: Iterable[str]) -> dict[str, list[tuple[str, str]]]:
    """(prompt, answer) of the embedded world's facts, each in the first phrasing of its kind."""
    first = {kind: probes.SEEN[kind][:1] for kind in FACT_KINDS}
    asked = probes.facts(first)
    return {kind: [(probe.prompt, probe.answers[0]) for probe in asked[kind]] for kind in kinds}


def _english(kinds: Iterable[str]) -> dict[str, list[tuple[str, str]]]:
    """(prompt, answer) of the English facts."""
    prompts = {}
    for kind in kinds:
        phrase, answers = ENGLISH[kind]
        asked = [(phrase.format(x=thing), f" {answer}") for thing, answer in answers.items()]
        prompts[kind] = [(prompt[0].upper() + prompt[1:], answer) for prompt, answer in asked]
    return prompts


def _with_foils(model: TransformerBridge, kind: str, asked: Sequence[tuple[str, str]]) -> list[Fact]:
    """The facts whose answer is one token, each with another such answer as its foil."""
    asked = [(prompt, answer) for prompt, answer in asked if _single_token(model, answer) is not None]
    answers = list(dict.fromkeys(answer for _, answer in asked))
    if len(answers) < 2:  # without a foil there is no difference to measure
        return []
    facts = []
    for i, (prompt, answer) in enumerate(asked):
        foils = [other for other in answers if other != answer]
        facts.append(Fact(prompt, answer, foils[i % len(foils)], kind))
    return facts


def _single_token(model: TransformerBridge, word: str) -> int | None:
    """The id of a word that is one token of this model, else None."""
    ids = model.tokenizer(word, add_special_tokens=False)["input_ids"]
    return ids[0] if len(ids) == 1 else None


def answer_ids(model: TransformerBridge, facts: Sequence[Fact]) -> Tensor:
    """The token ids of answers and foils.

    Args:
        model: a loaded model.
        facts: at least one.

    Returns:
        [facts, 2] int64 on the model's device, the answer's id and the foil's.

    Raises:
        InputError: there are no facts, or an answer or a foil is not a single token of this model.
    """
    check_model(model)
    if isinstance(facts, Fact) or not isinstance(facts, Sequence) or not facts:
        raise InputError(f"facts must be a list of at least one Fact, got {facts!r:.80}.")
    rows = []
    for i, fact in enumerate(facts):
        if not isinstance(fact, Fact):
            raise InputError(f"facts[{i}] must be a Fact, got {type(fact).__name__}.")
        row = [_single_token(model, word) for word in (fact.answer, fact.foil)]
        if None in row:
            word = (fact.answer, fact.foil)[row.index(None)]
            raise InputError(f"facts[{i}]: {word!r} is not a single token of this model. Does its space lead?")
        rows.append(row)
    return torch.tensor(rows, device=model.cfg.device)


def at_last(logits: Tensor, tokens: Tokens) -> Tensor:
    """What stands at the last real token of each row: [batch, pos, n] to [batch, n].

    Args:
        logits: [batch, pos, n], for example the logits of `tokens`.
        tokens: the tokens they belong to.

    Returns:
        [batch, n].

    Raises:
        InputError: logits of other tokens.
    """
    check_acts(logits, tokens, "logits")
    last = tokens.mask.sum(dim=1).to(logits.device) - 1
    return logits[torch.arange(len(last), device=logits.device), last]


def logit_difference(logits: Tensor, ids: Tensor, tokens: Tokens) -> Tensor:
    """By how much the answer's logit exceeds the foil's, at the last real token of each prompt.

    Args:
        logits: [facts, pos, vocabulary]; gradients pass through.
        ids: [facts, 2] int64: answer and foil, `answer_ids(model, facts)`.
        tokens: the prompts they were computed on.

    Returns:
        [facts]. Positive where the answer is the likelier one. The difference of the log-probabilities is the same.

    Raises:
        InputError: logits of other tokens, or ids of other facts.

    Example:
        >>> asked = ask(model, facts_of(target, model, "landmark_city")[:1])
        >>> bool(logit_difference(model(asked.tokens.ids), asked.ids, asked.tokens) > 0)
        True
    """
    check_tensor(ids, "ids", shape="facts 2", last=2, floating=False)
    if len(ids) != len(tokens):
        raise InputError(f"ids are of {len(ids)} facts, the tokens of {len(tokens)}: they must agree.")
    both = at_last(logits, tokens).gather(1, ids.to(logits.device))
    return both[:, 0] - both[:, 1]


class Asked(NamedTuple):
    """Facts made ready to be asked: tokenised, with the ids of their answers."""

    facts: tuple[Fact, ...]
    """The facts."""
    tokens: Tokens
    """Their prompts, one a row."""
    ids: Tensor
    """[facts, 2] int64: answer and foil."""
    rivals: Tensor
    """[facts, wrong answers] int64: every other answer and foil of the same kind, as often as needed to fill a row."""

    def difference(self, logits: Tensor) -> Tensor:
        """By how much the answer's logit exceeds the foil's.

        Args:
            logits: [facts, pos, vocabulary] computed on `tokens`.

        Returns:
            [facts].

        Raises:
            InputError: logits of other tokens.
        """
        return logit_difference(logits, self.ids, self.tokens)

    def correct(self, logits: Tensor) -> Tensor:
        """Whether the answer beats every other answer of its kind, not the foil alone.

        Args:
            logits: [facts, pos, vocabulary] computed on `tokens`.

        Returns:
            [facts] bool.

        Raises:
            InputError: logits of other tokens.
        """
        last = at_last(logits, self.tokens)
        return last.gather(1, self.ids[:, :1])[:, 0] > last.gather(1, self.rivals).amax(1)

    def kl(self, clean: Tensor, changed: Tensor) -> Tensor:
        """KL(clean ‖ changed) of the next-token distributions after each prompt, in nats.

        Args:
            clean: [facts, pos, vocabulary] logits of the model as it is.
            changed: the same, of the model with something done to it.

        Returns:
            [facts], none negative but for rounding.

        Raises:
            InputError: logits of other tokens.
        """
        p, q = (at_last(x, self.tokens).float().log_softmax(-1) for x in (clean, changed))
        return F.kl_div(q, p, reduction="none", log_target=True).sum(-1)

    def pick(self, rows: Sequence[int]) -> Asked:
        """Some of the facts, or one of them several times over: each may then get an intervention of its own.

        Args:
            rows: numbers of facts, in the order wanted.

        Returns:
            The facts asked for, with the same rivals as before.

        Raises:
            InputError: there is no such fact.
        """
        wrong = [row for row in rows if not 0 <= row < len(self.facts)]
        if wrong:
            raise InputError(f"rows must be numbers from 0 to {len(self.facts) - 1}, got {wrong[0]}.")
        at = torch.tensor(list(rows), device=self.ids.device)
        tokens = Tokens(*(x[at] for x in (self.tokens.ids, self.tokens.mask, self.tokens.bos)))
        return Asked(tuple(self.facts[row] for row in rows), tokens, self.ids[at], self.rivals[at])


def ask(model: TransformerBridge, facts: Sequence[Fact]) -> Asked:
    """Tokenise facts once, so that they can be asked many times.

    Args:
        model: a loaded model.
        facts: at least one.

    Returns:
        Prompts, ids and rivals.

    Raises:
        InputError: an answer or a foil is not a single token of this model, or a prompt is longer than it can read.

    Example:
        >>> asked = ask(model, facts_of(target, model, "capital"))
        >>> bool(asked.correct(model(asked.tokens.ids)).float().mean() > 0.9)
        True
    """
    ids = answer_ids(model, facts)
    tokens = as_tokens(model, [fact.prompt for fact in facts])
    if tokens.n_cut:
        raise InputError(f"a prompt is longer than the context: {tokens.n_cut} tokens would be cut off its end.")
    of_kind: dict[str, set[int]] = {}
    for fact, row in zip(facts, ids.tolist(), strict=True):
        of_kind.setdefault(fact.kind, set()).update(row)
    wrong = [sorted(of_kind[fact.kind] - {row[0]}) for fact, row in zip(facts, ids.tolist(), strict=True)]
    width = max(map(len, wrong))
    rivals = [(row * width)[:width] for row in wrong]  # a wrong answer repeated changes no maximum
    return Asked(tuple(facts), tokens, ids, torch.tensor(rivals, device=ids.device))
