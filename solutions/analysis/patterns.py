"""Regular expressions that cannot run away.

Some patterns, `(a+)+b` for one, take twice as long for every further letter of a text. Here every search has a time
limit, and what exceeds it is an error that says so.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

import regex

from solutions.errors import InputError, check_text

#: Characters that a pattern may have.
LONGEST = 500
#: Seconds that one search may take, and all searches of one question together.
ONE_SEARCH, ALL_SEARCHES = 1.0, 10.0


class Pattern:
    """A regular expression (of the `regex` package) whose searches have a time limit.

    Args:
        text: the expression.
        ignore_case: whether capitals and small letters are the same.
        one_search, all_searches: seconds that one search may take, and that one call of a method may take.

    Raises:
        InputError: it is no regular expression, or too long for one.
    """

    def __init__(self, text: str, ignore_case: bool = False,
                 one_search: float = ONE_SEARCH, all_searches: float = ALL_SEARCHES):
        self.text, self.one_search, self.all_searches = check_text(text, "pattern"), one_search, all_searches
        if len(text) > LONGEST:
            raise InputError(f"pattern: expected at most {LONGEST} characters, got {len(text)}.")
        flags = regex.IGNORECASE if ignore_case else 0
        try:
            self._anywhere = regex.compile(text, flags)
            self._at_the_end = regex.compile(f"(?:{text})\\Z", flags)
        except regex.error as error:
            raise InputError(f"{text!r} is not a regular expression: {error}. A sign with a meaning of its own, such "
                             "as ( or ?, is written with a backslash: \\( or \\?.") from error

    def found(self, texts: Iterable[str]) -> list[bool]:
        """For each text, whether the expression is found in it.

        Raises:
            InputError: the time is up.
        """
        left = self._time_left()
        try:
            return [self._anywhere.search(text, timeout=next(left)) is not None for text in texts]
        except TimeoutError:
            raise self._too_slow() from None

    def ends_at(self, texts: Iterable[tuple[str, Sequence[int]]], within: int) -> list[list[bool]]:
        """For each text and each of its ends, whether a match ends there, judged from the text up to there alone.

        texts: pairs of a text and ends in it (numbers of characters); within: characters in a match, at most.

        Raises:
            InputError: the time is up.
        """
        left, search = self._time_left(), self._at_the_end.search
        try:
            return [[search(text, max(0, end - within), end, timeout=next(left)) is not None for end in ends]
                    for text, ends in texts]
        except TimeoutError:
            raise self._too_slow() from None

    def _time_left(self) -> Iterator[float]:
        """The seconds that the next search may take, again and again."""
        stop = time.monotonic() + self.all_searches
        while (left := stop - time.monotonic()) > 0:
            yield min(left, self.one_search)
        raise TimeoutError

    def _too_slow(self) -> InputError:
        return InputError(f"the pattern {self.text!r} was given up: it takes more than {self.one_search:g} seconds on "
                          f"one text, or {self.all_searches:g} on all. Repetitions inside repetitions, such as (a+)+, "
                          "take exponentially long: write it without them.")
