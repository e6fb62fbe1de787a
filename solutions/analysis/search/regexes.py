"""Regular expressions over tens of thousands of tokens, within a few hundredths of a second and never without end.

`Pattern` gives every search a time limit, and to look at the clock takes longer than to look through a token. Most
expressions cannot run away: one that repeats no group, and has few repetitions, takes a number of steps that is a
small power of the text's length. For these, short texts are searched without a limit to each, and the clock is read
now and then. On ASCII they mean the same to Python's own `re`, which is the quickest.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from solutions.analysis.patterns import Pattern

#: Seconds that one search may take, and all searches of one term. A sane expression needs a hundredth of that.
ONE_SEARCH, ALL_SEARCHES = 0.25, 1.0
#: Repetitions that a plain expression may have, and characters of a text that it is searched for without a limit.
REPETITIONS, SHORT = 4, 32
#: The same for running text: documents are longer, so fewer repetitions are harmless.
FEW_REPETITIONS, DOCUMENT = 2, 1_000
#: Searches between two looks at the clock.
AT_ONCE = 256

#: The parts of a plain expression: common escapes, classes, groups that are not repeated, signs that mean themselves.
_PART = r"""
    \\(?:[bBdDsSwWnrt]|[^\w\s]) | \[\^?(?:\\[dDsSwWnrt\\\]^-]|[^\]\\[&|~-]|-(?!-))+\] | \((?:\?:|\?[=!]|\?<[=!]|(?!\?))
    | \)\??(?![*+?{]) | \| | [^\\\[\](){}*+?|]
"""
_REPETITION = r"""(?: [*+?] | \{\d{1,3}(?:,\d{0,3})?\} ) \??(?![*+?{])"""
_PLAIN = re.compile(rf"(?: {_PART} | {_REPETITION} )*", re.VERBOSE | re.DOTALL)
_AGAIN = re.compile(rf"(?: {_PART} ) | (?P<again>{_REPETITION})", re.VERBOSE | re.DOTALL)


def is_plain(pattern: str, most: int = REPETITIONS) -> bool:
    """Whether an expression is sure to take few steps, and means the same to every engine: it repeats no group, and
    repeats at most so many times. What is not understood here is not plain, which costs time and nothing else.
    """
    if not pattern.isascii() or not _PLAIN.fullmatch(pattern):
        return False
    return sum(part["again"] is not None for part in _AGAIN.finditer(pattern)) <= most


def is_quick(word: str) -> bool:
    """Whether a plain expression is looked for in a text without a limit."""
    return len(word) <= SHORT and word.isascii()


class Bounded(Pattern):
    """A pattern whose time is limited, made for many short texts."""

    def __init__(self, text: str):
        super().__init__(text, one_search=ONE_SEARCH, all_searches=ALL_SEARCHES)
        try:
            self._plain = re.compile(text) if is_plain(text) else None
        except re.error:  # the other engine knows more
            self._plain = None

    def fits(self, words: Sequence[str], n_quick: int) -> list[bool]:
        """For each word whether the expression is found in it, as `found` gives it. The first `n_quick` are quick.

        Raises:
            InputError: the time is up.
        """
        if self._plain is None:
            return self.found(words)
        search, stop = self._plain.search, time.monotonic() + self.all_searches
        fits: list[bool] = []
        for first in range(0, n_quick, AT_ONCE):
            if time.monotonic() > stop:
                raise self._too_slow()
            here = words[first:min(first + AT_ONCE, n_quick)]
            fits += [match is not None for match in map(search, here)]
        return fits + self.found(words[n_quick:])

    def ends(self, texts: Sequence[str], starts: Sequence[int]) -> list[int]:
        """Where matches end in texts, the i-th of which starts at `starts[i]`; empty matches are left out.

        Raises:
            InputError: the time is up.
        """
        plain = self._plain if is_plain(self.text, FEW_REPETITIONS) else None
        left, found = self._time_left(), []
        try:
            for text, start in zip(texts, starts, strict=True):
                limit = next(left)
                if plain is not None and len(text) <= DOCUMENT and text.isascii():
                    matches = plain.finditer(text)
                else:
                    matches = self._anywhere.finditer(text, timeout=limit)
                found += [start + match.end() for match in matches if match.end() > match.start()]
        except TimeoutError:
            raise self._too_slow() from None
        return found
