"""Searching a feature index: which latents are about this?

A query is made of terms that combine with `& | ~`::

    search(index, by_token(" Paris") & ~by_concept("city"), concepts=table)
    search(index, 'token:" Paris" & ~concept:city', concepts=table)          # the same, typed
    search(index, by_regex(r"^ (un|in)") & by_density(high=0.01))
    search(index, by_examples(places, against=others))
    search(index, promotes(" Paris") | similar_to(512))
    search(index, 'text:"The Eiffel Tower"', read=text_reader(model, sae, target))

What comes back is ranked and says why: `Results.table` has the evidence in words and in numbers, and
`Results.empty_reason` says which term has removed everything. A query takes milliseconds: it reads a bounded part of
the index, however large that is. From the shell: ``python -m solutions.search --index FOLDER QUERY``.
"""

from solutions.analysis.search.asking import (
    by_concept,
    by_density,
    by_examples,
    by_regex,
    by_text,
    by_token,
    promotes,
    similar_to,
    suppresses,
    text_reader,
)
from solutions.analysis.search.parse import parse_query
from solutions.analysis.search.queries import Query, QueryError
from solutions.analysis.search.results import Results
from solutions.analysis.search.run import search
from solutions.analysis.search.saved import load_concepts, save_concepts

__all__ = [
    "Query",
    "QueryError",
    "Results",
    "by_concept",
    "by_density",
    "by_examples",
    "by_regex",
    "by_text",
    "by_token",
    "load_concepts",
    "parse_query",
    "promotes",
    "save_concepts",
    "search",
    "similar_to",
    "suppresses",
    "text_reader",
]
