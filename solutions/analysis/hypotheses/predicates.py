"""Predicates: what may be said of a token, given the document up to it.

Each is a small class with one method of its own, and a sentence as its `repr`. There is no predicate that looks
ahead: tokens before a token are reached through `previous`, `next_to` and `in_document`, tokens after it not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from solutions.analysis.hypotheses.reading import Reading
from solutions.analysis.patterns import Pattern
from solutions.errors import InputError, check_count, check_text, unknown_name

if TYPE_CHECKING:
    from solutions.analysis.index.read import FeatureIndex
    from solutions.analysis.texts import LabelledTexts

#: How the concepts are named that say which kind of text a token stands in.
KIND = "d_"


class Predicate:
    """Something that is true of a token or not. Combine predicates with & (and), | (or) and ~ (not)."""

    def on(
        self, index: FeatureIndex | Reading, labels: LabelledTexts | Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Where it holds: [n_tokens] bool, one for every place of the index; never on BOS.

        Args:
            index: a feature index.
            labels: for `concept` and `kind`: the texts that the index was made from (`labelled_texts`), or
                columns of your own, {concept: [n_tokens] bool}.

        Raises:
            InputError: a token or concept that does not exist, a pattern that takes too long, labels that are missing.

        Example:
            >>> weekend = token("Saturday", "Sunday")
            >>> (weekend & ~position(first=5)).on(index).sum()
            tensor(19)
        """
        reading = index if isinstance(index, Reading) else Reading.of(index, labels)
        return torch.from_numpy(self.holds(reading))

    def holds(self, reading: Reading) -> np.ndarray:
        """The same, [n_tokens] bool, as an array.

        Args:
            reading: the text as predicates see it.
        """
        return self._holds(reading) & ~reading.is_bos

    def _holds(self, reading: Reading) -> np.ndarray:
        raise NotImplementedError

    def __and__(self, other: Predicate) -> Predicate:
        return _Both(self, _checked(other))

    def __or__(self, other: Predicate) -> Predicate:
        return _Either(self, _checked(other))

    def __invert__(self) -> Predicate:
        return _Not(self)

    def __bool__(self) -> bool:
        raise InputError("a predicate has no truth of its own, only on a token: combine predicates with & | ~ instead "
                         "of and, or, not, and put brackets around the parts.")


def _checked(given: object) -> Predicate:
    if not isinstance(given, Predicate):
        raise InputError(f"expected a predicate, such as token('Paris'), got {type(given).__name__}: {given!r:.60}.")
    return given


# ---- the token itself


@dataclass(frozen=True, repr=False)
class _Token(Predicate):
    texts: tuple[str, ...]

    def _holds(self, reading: Reading) -> np.ndarray:
        is_one = np.zeros(len(reading.vocabulary), bool)
        for text in self.texts:
            bare = text == text.strip()  # no white space asked for: it may stand there or not
            matching = [i for i, word in enumerate(reading.vocabulary) if (word.strip() if bare else word) == text]
            if not matching:
                raise unknown_name("token", text, reading.vocabulary, "It may be several tokens: see str_tokens.")
            is_one[matching] = True
        return is_one[reading.ids]

    def __repr__(self) -> str:
        return "the token is " + " or ".join(map(repr, self.texts))


def token(*texts: str) -> Predicate:
    """The token is one of these. "Paris" takes in " Paris" with the space before it; " Paris" is only that.

    Args:
        *texts: one or several tokens.

    Returns:
        A predicate.

    Raises:
        InputError: no text, or something else.
    """
    if not texts:
        raise InputError("token needs at least one text, such as token('Paris').")
    for text in texts:
        if not isinstance(text, str) or not text:
            raise InputError(f"token: expected texts, got {text!r}.")
    return _Token(texts)


@dataclass(frozen=True, repr=False)
class _Matches(Predicate):
    pattern: Pattern

    def _holds(self, reading: Reading) -> np.ndarray:
        return np.array(self.pattern.found(reading.vocabulary), bool)[reading.ids]

    def __repr__(self) -> str:
        return f"the token matches /{self.pattern.text}/"


def token_matches(pattern: str, ignore_case: bool = False) -> Predicate:
    """A regular expression is found in the token's text, white space included: r"^ un", r"\\d".

    Args:
        pattern: the expression.
        ignore_case: whether capitals count as small letters.

    Returns:
        A predicate.

    Raises:
        InputError: a pattern that cannot be read.
    """
    return _Matches(Pattern(pattern, ignore_case))


# ---- the text up to it


@dataclass(frozen=True, repr=False)
class _TextMatches(Predicate):
    pattern: Pattern
    within: int

    def _holds(self, reading: Reading) -> np.ndarray:
        found = np.zeros(len(reading.ids), bool)
        documents = reading.texts_so_far()
        holds = self.pattern.ends_at(((text, ends.tolist()) for text, _, ends in documents), self.within)
        for (_, places, _), here in zip(documents, holds, strict=True):
            found[places] = here
        return found

    def __repr__(self) -> str:
        return f"the text so far ends in /{self.pattern.text}/"


def text_matches(pattern: str, within: int = 60, ignore_case: bool = False) -> Predicate:
    """The text read so far, this token included, ends in a match of a regular expression.

    What comes after the token is not looked at, whatever the expression says.

    Args:
        pattern: the expression.
        within: how many characters the match may have at most.
        ignore_case: whether capitals count as small letters.

    Returns:
        A predicate.

    Raises:
        InputError: a pattern that cannot be read, or a number below 1.
    """
    return _TextMatches(Pattern(pattern, ignore_case), check_count(within, "within"))


@dataclass(frozen=True, repr=False)
class _Previous(Predicate):
    inner: Predicate
    within: int

    def _holds(self, reading: Reading) -> np.ndarray:
        place, so_far = _places_and_counts(self.inner, reading)
        return so_far[place] > so_far[np.maximum(reading.starts(), place - self.within)]

    def __repr__(self) -> str:
        return f"for one of the {self.within} tokens before it, {_in_brackets(self.inner)}"


def previous(predicate: Predicate, within: int = 5) -> Predicate:
    """It holds on at least one of the `within` tokens before this one, in the same document.

    Args:
        predicate: what has to hold.
        within: how many tokens back it may be.

    Returns:
        A predicate.

    Raises:
        InputError: it is no predicate, or a number below 1.
    """
    return _Previous(_checked(predicate), check_count(within, "within"))


@dataclass(frozen=True, repr=False)
class _NextTo(Predicate):
    inner: Predicate
    before: int

    def _holds(self, reading: Reading) -> np.ndarray:
        there = np.arange(len(reading.ids)) - self.before
        return (there >= reading.starts()) & self.inner.holds(reading)[np.maximum(there, 0)]

    def __repr__(self) -> str:
        where = "the token before it" if self.before == 1 else f"the token {self.before} before it"
        return f"for {where}, {_in_brackets(self.inner)}"


def next_to(predicate: Predicate, before: int = 1) -> Predicate:
    """It holds on the token just before this one; with `before`, on the one that many tokens before it.

    Args:
        predicate: what has to hold there.
        before: how many tokens back.

    Returns:
        A predicate.

    Raises:
        InputError: it is no predicate, or the distance is below 1.
    """
    return _NextTo(_checked(predicate), check_count(before, "before"))


@dataclass(frozen=True, repr=False)
class _InDocument(Predicate):
    inner: Predicate

    def _holds(self, reading: Reading) -> np.ndarray:
        place, so_far = _places_and_counts(self.inner, reading)
        return so_far[place + 1] > so_far[reading.starts()]

    def __repr__(self) -> str:
        return f"for it or a token before it in the document, {_in_brackets(self.inner)}"


def in_document(predicate: Predicate) -> Predicate:
    """It holds on this token, or has held on one before it in the same document.

    Args:
        predicate: what has to hold.

    Returns:
        A predicate.

    Raises:
        InputError: it is no predicate.
    """
    return _InDocument(_checked(predicate))


def _places_and_counts(inner: Predicate, reading: Reading) -> tuple[np.ndarray, np.ndarray]:
    """All places, and on how many tokens before each place `inner` holds ([n_tokens + 1])."""
    return np.arange(len(reading.ids)), np.concatenate([[0], np.cumsum(inner.holds(reading))])


@dataclass(frozen=True, repr=False)
class _Position(Predicate):
    first: int | None
    beyond: int | None

    def _holds(self, reading: Reading) -> np.ndarray:
        starts = reading.starts()
        number = np.arange(len(starts)) - starts + 1 - reading.is_bos[starts]  # BOS is no token of the text
        after = number > (self.beyond or 0)
        return after if self.first is None else after & (number <= self.first)

    def __repr__(self) -> str:
        first = None if self.first is None else f"it is one of the document's first {self.first} tokens"
        beyond = None if self.beyond is None else f"it comes after the document's first {self.beyond} tokens"
        return ", and ".join(part for part in (first, beyond) if part)


def position(first: int | None = None, beyond: int | None = None) -> Predicate:
    """It is one of the document's first tokens, or comes after so many of them. BOS is not counted.

    Args:
        first: so many tokens from the beginning.
        beyond: all but so many. Give one of the two.

    Returns:
        A predicate.

    Raises:
        InputError: neither or both are given, or a number below 1.
    """
    if first is None and beyond is None:
        raise InputError("position: say first=5 (one of the first five) or beyond=5 (none of the first five).")
    for name, value in (("first", first), ("beyond", beyond)):
        if value is not None:
            check_count(value, name)
    return _Position(first, beyond)


# ---- labels


@dataclass(frozen=True, repr=False)
class _Concept(Predicate):
    name: str

    def _holds(self, reading: Reading) -> np.ndarray:
        if not reading.labels:
            raise InputError(f"{self} needs labels: give the labelled texts that the index was made from, "
                             "predicate.on(index, world), or score_hypothesis(…, labels=world).")
        if self.name not in reading.labels:
            raise self._unknown(reading.labels)
        return np.asarray(reading.labels[self.name], bool)

    def _unknown(self, known: Mapping[str, np.ndarray]) -> InputError:
        return unknown_name("concept", self.name, known)

    def __repr__(self) -> str:
        return f"the concept {self.name!r} holds"


def concept(name: str) -> Predicate:
    """A labelled concept holds on the token.

    Args:
        name: the concept, a column of the labels.

    Returns:
        A predicate.

    Raises:
        InputError: the name is empty.
    """
    return _Concept(check_text(name, "name"))


@dataclass(frozen=True, repr=False)
class _Kind(_Concept):
    def _unknown(self, known: Mapping[str, np.ndarray]) -> InputError:
        kinds = [label.removeprefix(KIND) for label in known if label.startswith(KIND)]
        return unknown_name("kind of text", self.name.removeprefix(KIND), kinds)

    def __repr__(self) -> str:
        return f"the text has turned out to be of the kind {self.name.removeprefix(KIND)!r}"


def kind(name: str) -> Predicate:
    """The text has turned out to be of this kind, by what has been read so far: "french", "code".

    The same as the concept of that name with ``d_`` before it: which kind a text is cannot be known on its first word.

    Args:
        name: the kind, e.g. "french".

    Returns:
        A predicate.

    Raises:
        InputError: the name is empty.
    """
    return _Kind(KIND + check_text(name, "name").removeprefix(KIND))


# ---- combinations


@dataclass(frozen=True, repr=False)
class _Both(Predicate):
    first: Predicate
    second: Predicate

    def _holds(self, reading: Reading) -> np.ndarray:
        return self.first.holds(reading) & self.second.holds(reading)

    def __repr__(self) -> str:
        return f"{_in_brackets(self.first, _Both)}, and {_in_brackets(self.second, _Both)}"


@dataclass(frozen=True, repr=False)
class _Either(Predicate):
    first: Predicate
    second: Predicate

    def _holds(self, reading: Reading) -> np.ndarray:
        return self.first.holds(reading) | self.second.holds(reading)

    def __repr__(self) -> str:
        return f"{_in_brackets(self.first, _Either)}, or {_in_brackets(self.second, _Either)}"


@dataclass(frozen=True, repr=False)
class _Not(Predicate):
    inner: Predicate

    def _holds(self, reading: Reading) -> np.ndarray:
        return ~self.inner.holds(reading)

    def __repr__(self) -> str:
        return f"it is not so that {_in_brackets(self.inner)}"


def _in_brackets(predicate: Predicate, same: type | None = None) -> str:
    """A predicate's sentence, in brackets if it is made of two, so that "and" and "or" cannot be confused."""
    mixed = isinstance(predicate, _Both | _Either) and type(predicate) is not same
    return f"({predicate})" if mixed else repr(predicate)
