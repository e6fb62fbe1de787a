"""The typed form of a query: what it means, how it prints, where it is wrong; and regular expressions that end."""

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from solutions.analysis.search import (
    Query,
    QueryError,
    by_concept,
    by_density,
    by_regex,
    by_token,
    parse,
    parse_query,
    promotes,
    regexes,
    similar_to,
    suppresses,
)
from solutions.analysis.search.queries import as_query
from solutions.errors import InputError


def texts_of(alphabet):
    return st.text(alphabet, min_size=1, max_size=8).filter(str.strip)


bars = st.none() | st.floats(0.001, 1e6, allow_nan=False)
typed = st.one_of(
    st.builds(by_token, texts_of('ab "\'\\\n\t&|~():>é'), bars), st.builds(promotes, texts_of('a "\\'), bars),
    st.builds(by_concept, st.sampled_from(["city", "d_code", "kind of thing"]), bars),
    st.builds(by_regex, st.sampled_from([r"\bnot\b", 'say "no"', r"a\\", r"[^\"']+ (un|in)", r'\\"', "^ x$"]),
              st.booleans(), bars),
    st.builds(similar_to, st.integers(0, 99), st.sampled_from(["direction", "activity"]), bars),
    st.builds(by_density, st.floats(0, 0.4), st.floats(0.4, 1)), st.builds(suppresses, st.just(" Paris")))
queries = st.recursive(typed, lambda q: st.builds(lambda a, b: a & b, q, q) | st.builds(lambda a, b: a | b, q, q)
                       | st.builds(lambda a: ~a, q), max_leaves=5)


@given(query=queries)
@settings(max_examples=200, deadline=None)
def test_a_query_is_read_back_from_what_it_prints(query):
    again = parse_query(str(query))
    assert str(again) == str(query)
    assert isinstance(again, Query) and [t.bar for t in again.terms()] == [t.bar for t in query.terms()]


@pytest.mark.parametrize("text, same", [
    ("token:Paris", by_token("Paris")),
    ("token:' Paris'", by_token(" Paris")),
    (r'token:"\n"', by_token("\n")),
    (r'regex:"\bnot\b"', by_regex(r"\bnot\b")),
    ("  TOKEN:a  ", by_token("a")),
    ("token:a and not token:b", by_token("a") & ~by_token("b")),
    ("token:a -token:b", by_token("a") & ~by_token("b")),
    ("token:a || token:b token:c", by_token("a") | (by_token("b") & by_token("c"))),
    ("(token:a | token:b) & token:c", (by_token("a") | by_token("b")) & by_token("c")),
    ("~(token:a&token:b)", ~(by_token("a") & by_token("b"))),
    ("concept:city > 0.5", by_concept("city", least=0.5)),
    ("like:512 density:1e-4..1%", similar_to(512) & by_density(1e-4, 0.01)),
])
def test_typed_queries_mean_what_they_say(text, same):
    assert parse_query(text) == same


@pytest.mark.parametrize("text, says, marked", [
    ('tokn:" Paris"', "unknown kind of term 'tokn'. Did you mean token:", "tokn"),
    ("Paris", "such as token:Paris or text:\"Paris\"", "Paris"),
    ("token:a & Eiffel Tower", "such as token:Eiffel", "Eiffel"),
    ("token: Paris", "Quotation marks may have been taken away by the shell", "token:"),
    ("token:", "followed by no value. Write, for example, token:\" Paris\".", "token:"),
    ('token:" Paris', "never closed", '"'),
    ('token:""', "nothing between these marks", '""'),
    ("token:a &", "a term is missing here", None),
    ("& token:a", "a term is missing before this &", "&"),
    ("token:a | | token:b", "a term is missing before this |", "|"),
    ("(token:a", "bracket is never closed", "("),
    ("token:a)", "never opened", ")"),
    ("like:five", "expects a whole number, such as like:512", "five"),
    ("density:low", "expects shares of tokens", "low"),
    ("density:5", "from 0 to 1", "5"),
    ("density:0.5..0.1", "the smaller one first", "0.5..0.1"),
    ("", "query is empty", None),
    ("~" * 100 + "token:a", "inside one another", "~"),
    ("token:a " * 500, "2,000 characters", None),
])
def test_a_mistake_in_a_query_is_shown_where_it_is(text, says, marked):
    with pytest.raises(InputError) as caught:
        as_query(text)
    assert says in str(caught.value)
    if marked is not None:
        error = caught.value
        assert isinstance(error, QueryError) and text[error.start:error.stop] == marked
        line, pointer = str(error).split("\n")[-2:]
        assert line[pointer.index("^"):pointer.rindex("^") + 1] == marked


def test_every_kind_of_term_is_explained():
    text = parse.explained()
    assert all(example in text for _, example, _ in parse.KINDS.values())
    for _, example, _ in parse.KINDS.values():
        parse_query(example)


# ---------------------------------------------------------------------------------- regular expressions

@pytest.mark.parametrize("pattern, plain", [
    ("^ (un|in)", True), (r"\bnot\b", True), (r"[aeiou]{2}", True), (r"(?:th|[a-f]+\w)\w*$", True),
    (r"(?<=a)b?c*", True), (r"\)+", True), ("[)]+", True),
    ("(a|aa)+$", False), ("(a+)+", False), ("(?:ab){2,}", False), (r"(a)\1", False), ("a?b?c?d?e?", False),
    ("(?R)", False), ("(?P<x>a)", False), ("(?:foo){e<=1}", False), ("[[a-z]--[b]]*", False), ("(a)??b", False),
])
def test_expressions_that_cannot_run_away_are_told_from_those_that_may(pattern, plain):
    assert regexes.is_plain(pattern) is plain


@given(words=st.lists(st.text("abn t.\né", max_size=40), max_size=20),
       pattern=st.sampled_from(["^ ?a", "a+b*$", "[^a]", r"\s", "(a|b)n", "(?!a)b", r"(a|ab)+n", "^$", ".", "a{2}",
                                r"\b[^ab]?n\b", r"\W\B", r"[\w-]t"]))
@settings(max_examples=100, deadline=None)
def test_words_fit_as_the_regular_expression_says(words, pattern):
    words = sorted(words, key=regexes.is_quick, reverse=True)
    n_quick = sum(map(regexes.is_quick, words))
    bounded, starts = regexes.Bounded(pattern), [100 * i for i in range(len(words))]
    found = bounded.fits(words, n_quick)
    assert bounded.ends(words, starts) == [start + match.end() for start, word in zip(starts, words, strict=True)
                                           for match in regex.finditer(pattern, word) if match.group()]
    assert found == [regex.search(pattern, word) is not None for word in words]
