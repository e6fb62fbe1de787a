"""The typed form of a query: reading it, and saying where it is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from difflib import get_close_matches
from typing import NoReturn

from solutions.analysis.search.latents import Density, Like, Promotes, Suppresses, Text, With
from solutions.analysis.search.places import Concept, Phrase, Regex, Token
from solutions.analysis.search.queries import DEEPEST, LONGEST, And, Or, Query, QueryError, Term
from solutions.errors import InputError

#: Kind of term: (what it makes of its value, an example, what it asks for).
KINDS: dict[str, tuple[type[Term], str, str]] = {
    "text": (Text, 'text:"The Eiffel Tower"', "latents that a text activates, the surprising ones first"),
    "document": (Text, "document:12", "the same for a document of the index"),
    "token": (Token, 'token:" Paris"', "latents that tell where a token stands (without the space: with and without)"),
    "regex": (Regex, 'regex:"^ (un|in)"', "the same for all tokens that fit a regular expression"),
    "phrase": (Phrase, 'phrase:"not \\w+ good"', "the same for the token on which a match in the running text ends"),
    "concept": (Concept, "concept:negation", "latents that follow a concept"),
    "like": (Like, "like:512", "latents whose decoder direction is similar to that of a latent"),
    "with": (With, "with:512", "latents that are active together with a latent"),
    "promotes": (Promotes, 'promotes:" Paris"', "latents that raise the logit of a token"),
    "suppresses": (Suppresses, 'suppresses:" Paris"', "latents that lower the logit of a token"),
    "density": (Density, "density:<0.01", "latents that are active on such a share of the tokens (also >1%, 0.1..0.2)"),
}
PATTERNS = ("regex", "phrase")
NUMBERS = ("document", "like", "with")
WORDS = {"and": "&", "or": "|", "not": "~", "&&": "&", "||": "|", "!": "~", "-": "~"}

_NUMBER = r"(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+)?"
_TERM = re.compile(r"([A-Za-z_]+):")
_BARE = re.compile(r"""[^\s&|()~"'<>]+""")
_BAR = re.compile(rf"\s*>=?\s*({_NUMBER})")
_SIGN = re.compile(r"&&|\|\||[&|()~!-]|(?:and|or|not)\b", re.IGNORECASE)
_SHARE = re.compile(rf"(<=?|>=?)?\s*({_NUMBER})(%?)(?:\s*\.\.\s*({_NUMBER})(%?))?")
_ESCAPES = {"n": "\n", "t": "\t"}


def parse_query(text: str) -> Query:
    """Read a typed query, such as ``token:" Paris" & ~concept:city``.

    A term is a kind, a colon and a value; the value stands in quotation marks when it has spaces or signs in it. In
    marks, a backslash before n, t, a mark or a backslash stands for a line break, a tab, that mark, a backslash; in
    `regex` and `phrase` it is left to the regular expression. `>` and a number behind a term raise or lower its bar:
    ``concept:city>0.5``. Terms are joined with ``&`` (or nothing), ``|`` and ``~``, or with the words and, or, not;
    ``~`` binds most tightly, then ``&``; brackets group. The kinds are those of `KINDS`.

    Args:
        text: what was typed.

    Returns:
        The query.

    Raises:
        QueryError: with the place that could not be read.

    Example:
        >>> typed = 'token:Paris | token:" Rome"'
        >>> search(index, parse_query(typed), k=2).latents == search(index, typed, k=2).latents
        True
    """
    if len(text) > LONGEST:
        raise InputError(f"a query may have {LONGEST:,} characters, this one has {len(text):,}.")
    return _Parser(text).whole()


class _Parser:
    """Reads from left to right; `at` is the next character."""

    def __init__(self, text: str):
        self.text, self.at, self.depth = text, 0, 0

    def wrong(self, reason: str, start: int, stop: int | None = None) -> NoReturn:
        raise QueryError(reason, self.text, start, start + 1 if stop is None else stop)

    def sign(self) -> str:
        """The sign that comes next, as one of & | ~ ( ); "" when something else does. It is not taken."""
        self.at += len(self.text[self.at:]) - len(self.text[self.at:].lstrip())
        found = _SIGN.match(self.text, self.at)
        return WORDS.get(found[0].lower(), found[0]) if found else ""

    def take(self) -> None:
        """Step over the sign that comes next."""
        self.at = _SIGN.match(self.text, self.at).end()

    def whole(self) -> Query:
        query = self.either()
        if self.sign() == ")":
            self.wrong("this bracket was never opened.", self.at)
        return query

    def either(self) -> Query:
        parts = [self.both()]
        while self.sign() == "|":
            self.take()
            parts.append(self.both())
        return _joined(Or, parts)

    def both(self) -> Query:
        parts = [self.one()]
        while (sign := self.sign()) not in ("|", ")") and self.at < len(self.text):
            if sign == "&":
                self.take()
            parts.append(self.one())
        return _joined(And, parts)

    def one(self) -> Query:
        sign, start = self.sign(), self.at
        if sign not in ("~", "("):
            return self.term()
        self.take()
        self.depth += 1
        if self.depth > DEEPEST:
            self.wrong(f"more than {DEEPEST} brackets and ~ inside one another are not read.", start)
        if sign == "~":
            query: Query = ~self.one()
        else:
            query = self.either()
            if self.sign() != ")":
                self.wrong("this bracket is never closed.", start)
            self.take()
        self.depth -= 1
        return query

    # ---- terms

    def term(self) -> Term:
        start, found = self.at, _TERM.match(self.text, self.at)
        if found is None:
            self.no_term(start)
        kind = found[1].lower()
        if kind not in KINDS:
            close = get_close_matches(kind, KINDS, 1, 0.5)
            hint = f"Did you mean {close[0]}:? " if close else ""
            self.wrong(f"unknown kind of term {found[1]!r}. {hint}Known: {', '.join(KINDS)}.", start, found.end() - 1)
        self.at = found.end()
        read: Callable[[str, int], Term] = self.density if kind == "density" else self.measured
        term = read(kind, start)
        object.__setattr__(term, "place", (self.text, start, self.at))
        return term

    def no_term(self, start: int) -> NoReturn:
        rest = self.text[start:].split()
        if not rest:
            self.wrong("a term is missing here, such as token:Paris.", start)
        if rest[0][0] in "&|)":
            self.wrong(f"a term is missing before this {rest[0][0]}.", start)
        word = rest[0].strip("\"'&|()~")
        stop = start + len(rest[0])
        self.wrong(f"this is no term. A term is a kind, a colon and a value, such as token:{word or 'Paris'} "
                   f'or text:"{word or "…"}".', start, stop)

    def measured(self, kind: str, start: int) -> Term:
        """A term with a value, and perhaps a bar."""
        value, begin = self.value(kind)
        if kind in NUMBERS:
            if not value.isascii() or not value.isdigit():
                self.wrong(f"{kind}: expects a whole number, such as {KINDS[kind][1]}.", begin, self.at)
            value = int(value)
        bar = _BAR.match(self.text, self.at)
        if bar is not None:
            self.at = bar.end()
        return KINDS[kind][0](value, least=None if bar is None else float(bar[1]))

    def value(self, kind: str) -> tuple[str, int]:
        """What stands behind the colon, and where it begins."""
        start = self.at
        if self.text[start:start + 1] in ('"', "'"):
            return self.in_marks(kind), start
        found = _BARE.match(self.text, start)
        if found is None:
            hint = ("Quotation marks may have been taken away by the shell: put single ones around the whole query."
                    if self.text[start:].strip() else "")
            self.wrong(f"{kind}: is followed by no value. Write, for example, {KINDS[kind][1]}. {hint}".rstrip(),
                       self.at - len(kind) - 1, self.at)
        self.at = found.end()
        return found[0], start

    def in_marks(self, kind: str) -> str:
        mark, start, found = self.text[self.at], self.at, []
        self.at += 1
        while self.at < len(self.text):
            sign, following = self.text[self.at], self.text[self.at + 1:self.at + 2]
            if sign == mark:
                self.at += 1
                if not found:
                    self.wrong("there is nothing between these marks.", start, self.at)
                return "".join(found)
            if sign == "\\" and following:
                found.append(_unescaped(following, mark, kind in PATTERNS))
                self.at += 2
            else:
                found.append(sign)
                self.at += 1
        self.wrong("this quotation mark is never closed.", start)

    def density(self, kind: str, start: int) -> Density:
        begin, found = self.at, _SHARE.match(self.text, self.at)
        stop = found.end() if found else self.at
        if found is None or (found[1] and found[4]) or _BARE.match(self.text, stop):
            rest = self.text[begin:].split(maxsplit=1)
            self.wrong("density: expects shares of tokens, such as density:<0.01, density:>1% or density:0.1..0.2.",
                       begin, begin + len(rest[0]) if rest else None)
        self.at = stop
        sign, share = found[1] or "=", _share(found[2], found[3])
        low, high = {"<": (0.0, share), ">": (share, 1.0), "=": (share, share)}[sign[0]]
        if found[4]:
            high = _share(found[4], found[5])
        if not low <= high <= 1:
            self.wrong("density: is a share of tokens from 0 to 1, or 0% to 100%, the smaller one first.", begin, stop)
        return Density(low, high, above=sign == ">", below=sign == "<")


def _joined(kind: type[And] | type[Or], parts: list[Query]) -> Query:
    query = parts[0]
    for part in parts[1:]:
        query = query & part if kind is And else query | part
    return query


def _unescaped(sign: str, mark: str, pattern: bool) -> str:
    if sign == mark:
        return mark
    if pattern:
        return "\\" + sign
    return _ESCAPES.get(sign, sign if sign in "\\\"'" else "\\" + sign)


def _share(number: str, percent: str) -> float:
    return float(number) / (100 if percent else 1)


def explained() -> str:
    """The kinds of terms and how they are joined, for a help text."""
    width = max(len(example) for _, example, _ in KINDS.values())
    lines = [f"  {example:<{width}}  {meaning}" for _, example, meaning in KINDS.values()]
    return "\n".join([*lines, "", "  Joined with & | ~ and brackets (or and, or, not). A number behind > is a bar: "
                      "concept:city>0.5"])
