"""Hypotheses about what a latent means, written so that they can be wrong.

A hypothesis is a predicate: something that holds on a token or does not, given what has been read so far. It is put
together from small ones with `&`, `|` and `~`::

    guess = token("Paris", "Rome") & ~previous(token("not"), within=3)
    score_hypothesis(index, 512, guess)     # precision, recall, F1 on held-out text, beside two baselines
    counter_examples(index, 512, guess)     # where it is wrong

No predicate can see what comes after a token. A model cannot either.
"""

from solutions.analysis.hypotheses.liars import explanations, liar
from solutions.analysis.hypotheses.pairs import contrast_pairs, shared_contrasts
from solutions.analysis.hypotheses.predicates import (
    Predicate,
    concept,
    in_document,
    kind,
    next_to,
    position,
    previous,
    text_matches,
    token,
    token_matches,
)
from solutions.analysis.hypotheses.reading import Reading
from solutions.analysis.hypotheses.scoring import (
    CounterExamples,
    HypothesisScore,
    counter_examples,
    score_hypothesis,
)

__all__ = [
    "CounterExamples",
    "HypothesisScore",
    "Predicate",
    "Reading",
    "concept",
    "contrast_pairs",
    "counter_examples",
    "explanations",
    "in_document",
    "kind",
    "liar",
    "next_to",
    "position",
    "previous",
    "score_hypothesis",
    "shared_contrasts",
    "text_matches",
    "token",
    "token_matches",
]
