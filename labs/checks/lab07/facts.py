"""Facts that suit whatever model is studied; for a model without words, what it says after some tokens of its own."""

from __future__ import annotations

from itertools import product

from solutions.errors import InputError
from solutions.interventions import FACT_KINDS, Fact, ask, facts_of
from solutions.targets import Target


def known_facts(target: Target, model, each: int) -> list[Fact]:
    """Facts that the model completes, a few of each kind.

    Args:
        target: what is studied.
        model: its model.
        each: how many facts of a kind at most, spread over its list.

    Returns:
        Facts whose answer beats all others of its kind. Where the model knows none, its own continuations.
    """
    found: list[Fact] = []
    for kind in FACT_KINDS:
        try:
            facts = facts_of(target, model, kind)
        except InputError:  # its answers are no single tokens of this model
            continue
        asked = ask(model, facts)
        right = asked.correct(model(asked.tokens.ids)).tolist()
        known = [fact for fact, known in zip(facts, right, strict=True) if known]
        found += known[:: max(1, len(known) // each)][:each]
    return found or own_continuations(model)[: 4 * each]


def own_continuations(model, n_words: int = 5) -> list[Fact]:
    """What a model says after three words of its own vocabulary, among these words."""
    words: list[str] = []
    for i in range(model.cfg.d_vocab):
        word = model.tokenizer.decode([i])
        if word[:1] == " " and word[1:].isalpha() and model.tokenizer(word)["input_ids"][-1:] == [i]:
            words.append(word)
        if len(words) == n_words:
            break
    prompts = ["".join(three) for three in product(words, repeat=3)]
    asked = ask(model, [Fact(prompt, words[0], words[1]) for prompt in prompts])
    ids = [model.tokenizer(word)["input_ids"][-1] for word in words]
    says = model(asked.tokens.ids)[:, -1][:, ids].argsort(-1, descending=True).tolist()
    return [Fact(prompt, words[a], words[b], "own") for prompt, (a, b, *_) in zip(prompts, says, strict=True)]
