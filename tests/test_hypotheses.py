"""Hypotheses: predicates say what they should and never look ahead, scores are hand counts, liars are caught."""

import time

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_index import HOOK, Store, identity_sae

from solutions import analysis
from solutions.analysis.hypotheses import (
    Predicate,
    Reading,
    concept,
    contrast_pairs,
    counter_examples,
    explanations,
    in_document,
    kind,
    liar,
    next_to,
    position,
    previous,
    score_hypothesis,
    shared_contrasts,
    text_matches,
    token,
    token_matches,
)
from solutions.analysis.hypotheses.pairs import sign_tests
from solutions.analysis.patterns import Pattern
from solutions.errors import InputError

WORDS = ["<bos>", " Paris", "Paris", " Rome", " not", " in", " the", ".", " un", "fair"]


def reading(*documents, bos=True, **labels):
    """Documents given as lists of words, BOS put before each."""
    rows = [[*(["<bos>"] if bos else []), *words] for words in documents]
    ids = np.array([WORDS.index(word) for row in rows for word in row])
    document = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    return Reading(ids, document, ids == 0, WORDS, labels)


def true_at(predicate, *documents, **labels):
    """The words (numbered within their document from 1) on which a predicate is true."""
    here = reading(*documents, **labels)
    starts = here.starts()
    return [(int(here.document[i]), int(i - starts[i])) for i in np.flatnonzero(predicate.on(here).numpy())]


NEGATED = [" not", " in", " Paris", "."], ["Paris", " in", " Rome"]


@pytest.mark.parametrize(("predicate", "places"), [
    (token("Paris"), [(0, 3), (1, 1)]),              # with the space before it and without
    (token(" Paris"), [(0, 3)]),                     # a space that was asked for must be there
    (token("Rome", "."), [(0, 4), (1, 3)]),
    (token_matches(r"^ P"), [(0, 3)]),
    (token_matches("paris", ignore_case=True), [(0, 3), (1, 1)]),
    (previous(token("not"), within=2), [(0, 2), (0, 3)]),
    (previous(token("not"), within=9), [(0, 2), (0, 3), (0, 4)]),
    (previous(token("."), within=9), []),            # the next document is another
    (next_to(token("in")), [(0, 3), (1, 3)]),
    (next_to(token("not"), before=2), [(0, 3)]),
    (in_document(token("Paris")), [(0, 3), (0, 4), (1, 1), (1, 2), (1, 3)]),
    (position(first=1), [(0, 1), (1, 1)]),
    (position(beyond=2), [(0, 3), (0, 4), (1, 3)]),
    (position(first=3, beyond=2), [(0, 3), (1, 3)]),
    (token("Paris") & previous(token("not"), 3), [(0, 3)]),
    (token("not") | token("Rome"), [(0, 1), (1, 3)]),
    (~token("in") & position(first=2), [(0, 1), (1, 1)]),
    (text_matches("in Paris"), [(0, 3)]),            # a match over two tokens, true where it ends
    (text_matches("Pari"), []),                      # ends within a token
    (text_matches("not.*", within=7), [(0, 1), (0, 2)]),
    (text_matches("^ ?(not|Paris)"), [(0, 1), (1, 1)]),
])
def test_a_predicate_is_true_where_it_says(predicate, places):
    assert true_at(predicate, *NEGATED) == places


def test_bos_is_never_anything():
    assert true_at(~token("Paris") | position(first=9) | in_document(~token("Rome")), [" in"]) == [(0, 1)]
    assert true_at(previous(~token("Paris")), [" in", " the"]) == [(0, 2)]  # BOS is not "another token than Paris"


def test_documents_without_bos_count_from_their_first_token():
    found = position(first=1).on(reading([" in", " the"], [" Rome"], bos=False))
    assert found.tolist() == [True, False, True]


def test_labels_are_read_by_name():
    labels = {"negation": np.array([0, 1, 0, 0], bool), "d_french": np.array([0, 0, 1, 1], bool)}
    words = [" not", " in", " Rome"]
    assert true_at(concept("negation"), words, **labels) == [(0, 1)]
    assert true_at(kind("french"), words, **labels) == [(0, 2), (0, 3)] == true_at(kind("d_french"), words, **labels)
    with pytest.raises(InputError, match="needs labels"):
        concept("negation").on(reading(words))
    with pytest.raises(InputError, match="unknown concept 'negaton'.*'negation'"):
        concept("negaton").on(reading(words, **labels))
    with pytest.raises(InputError, match="unknown kind of text 'frensh'.*'french'"):
        kind("frensh").on(reading(words, **labels))


def test_a_predicate_reads_as_a_sentence():
    guess = (token("Paris") | token("Rome")) & ~previous(token("not"), within=3)
    assert repr(guess) == ("(the token is 'Paris', or the token is 'Rome'), and it is not so that for one of the 3 "
                           "tokens before it, the token is 'not'")
    assert repr(position(first=2) & kind("code") & token_matches("x")) == (
        "it is one of the document's first 2 tokens, and the text has turned out to be of the kind 'code', and the "
        "token matches /x/")


def test_wrong_input_is_named():
    for wrong, message in (
        (lambda: token("Paris") and token("Rome"), "combine predicates with & | ~"),
        (lambda: token("Paris") & "Rome", "expected a predicate"),
        (lambda: token(), "at least one text"),
        (lambda: token("Pariss").on(reading(["."])), "unknown token 'Pariss'.*'Paris'"),
        (lambda: position(), "say first=5"),
        (lambda: previous(token("Paris"), 0), "within must be a whole number of at least 1"),
        (lambda: token_matches("("), "not a regular expression.*backslash"),
        (lambda: token_matches("a" * 501), "at most 500 characters"),
    ):
        with pytest.raises(InputError, match=message):
            wrong()


# ---- causality

leaves = st.sampled_from([
    token("Paris"), token("in", "the"), token_matches("^ "), position(first=2), position(beyond=3), concept("a"),
    text_matches("in.*Rome"), text_matches("the(?! Rome)"), text_matches(r"Rome$"),
])
predicates = st.recursive(leaves, lambda inner: st.one_of(
    inner.map(lambda p: ~p), inner.map(lambda p: previous(p, 2)), inner.map(lambda p: next_to(p, 2)),
    inner.map(in_document), st.tuples(inner, inner).map(lambda pq: pq[0] & pq[1]),
    st.tuples(inner, inner).map(lambda pq: pq[0] | pq[1])), max_leaves=4)
documents = st.lists(st.lists(st.sampled_from(WORDS[1:]), min_size=1, max_size=6), min_size=1, max_size=3)


def looks_ahead(predicate, here):
    """Whether the truth on some tokens changes when the text after them is cut off."""
    whole = predicate.on(here)
    cut = [predicate.on(Reading(here.ids[:n], here.document[:n], here.is_bos[:n], WORDS,
                                {name: column[:n] for name, column in here.labels.items()}))
           for n in range(1, len(here.ids))]
    return any(not torch.equal(part, whole[:len(part)]) for part in cut)


@given(predicates, documents, st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_no_predicate_looks_ahead(predicate, texts, seed):
    n = sum(map(len, texts)) + len(texts)
    labels = {"a": np.random.default_rng(seed).random(n) < 0.4}
    assert not looks_ahead(predicate, reading(*texts, **labels))


def test_looking_ahead_would_be_noticed():
    class Next(Predicate):
        def _holds(self, here):
            return np.append(here.ids[1:] == WORDS.index(" Rome"), False)

    assert looks_ahead(Next(), reading([" in", " Rome"]))


def test_a_pattern_that_explodes_is_given_up():
    begin = time.monotonic()
    pattern = Pattern("(a|aa)+b", one_search=0.2)
    with pytest.raises(InputError, match="given up.*Repetitions inside repetitions"):
        pattern.found(["a" * 60 + "c"] * 1000)
    with pytest.raises(InputError, match="given up"):
        pattern.ends_at([("a" * 60, range(1, 61))] * 1000, within=60)
    assert time.monotonic() - begin < 60  # without the limit: longer than anyone waits
    with pytest.raises(InputError, match="given up"):
        Pattern("a", all_searches=0.0).found(["a"])


# ---- scores


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """An index with known latents, on 40 documents " in Paris in Rome the ." (odd ones: " not in Paris").

    Latent 0 is active on Paris, twice as strongly when "not" stands before; latent 1 on " in"; latent 2 on Paris in
    every document, and weakly on everything else; latent 3 is dead.
    """
    rows = [[" in", " Paris", " in", " Rome", " the", "."], [" not", " in", " Paris"]] * 20
    words = [word for row in rows for word in ("<bos>", *row)]
    negated = [len(row) == 3 for row in rows for _ in range(len(row) + 1)]
    acts = torch.zeros(len(words), 4)
    for i, (word, no) in enumerate(zip(words, negated, strict=True)):
        paris = word == " Paris"
        acts[i, 0] = (2.0 if no else 1.0) * paris
        acts[i, 1] = 1.0 * (word == " in")
        acts[i, 2] = 9.0 if paris else 0.5 + i / 1000
    ids = torch.tensor([WORDS.index(word) for word in words])
    lengths = [len(row) + 1 for row in rows]
    document = torch.arange(len(rows)).repeat_interleave(torch.tensor(lengths))
    store = Store(acts, lengths, ids=ids, test=document >= 20)
    index = analysis.build_index(store, identity_sae(4), HOOK, tmp_path_factory.mktemp("hypotheses") / "index",
                                 vocabulary=WORDS, progress=False)
    labels = {"city": torch.tensor([word in (" Paris", " Rome") for word in words]),
              "rare": torch.zeros(len(words), dtype=torch.bool), "in": torch.tensor([w == " in" for w in words])}
    return index, labels


def test_scores_are_hand_counts(world):
    index, labels = world
    # Test split: 10 long and 10 short documents. Paris 20, Rome 10, " in" 30, 90 tokens.
    found = score_hypothesis(index, 0, concept("city"), labels=labels)
    assert (found.n_active, found.n_true, found.n_tokens) == (20, 30, 90)
    assert (found.precision, found.recall) == (1.0, 20 / 30) and found.f1 == pytest.approx(0.8)
    assert found.lookup_f1 == 1.0 == found.rival_f1  # {Paris, Rome} are the cities, {Paris} is the latent
    assert 0 < found.shuffled_f1 < 0.5
    narrow = score_hypothesis(index, 0, token("Paris") & previous(token("not"), 2))
    assert (narrow.precision, narrow.recall) == (0.5, 1.0)
    assert narrow.lookup_f1 == pytest.approx(2 * 10 / (20 + 10))  # the token alone cannot see the "not"
    assert score_hypothesis(index, 1, token("in")).f1 == 1.0
    assert list(found.table()["f1"]) == [found.f1]


def test_intervals_show_where_a_hypothesis_fits(world):
    index, labels = world
    found = score_hypothesis(index, 2, token("Paris"), n_intervals=9)
    table = found.by_interval
    assert table["precision"].iloc[0] == 1.0 and table["precision"].iloc[-1] == 0.0 and len(table) > 5
    assert table["n"].sum() == found.n_active and table["recall"].sum() == pytest.approx(found.recall)
    assert found.precision == pytest.approx(20 / 90)
    assert (table["precision"] * table["n"]).sum() == pytest.approx(20) and table["high"].iloc[0] == 9.0


def test_a_split_is_a_split(world):
    index, labels = world
    sizes = {s: score_hypothesis(index, 0, token("Paris"), split=s).n_tokens for s in ("train", "test", "all")}
    assert sizes == {"train": 90, "test": 90, "all": 180}
    with pytest.raises(InputError, match="unknown split 'tset'.*'test'"):
        score_hypothesis(index, 0, token("Paris"), split="tset")
    with pytest.raises(InputError, match="expected a predicate"):
        score_hypothesis(index, 0, "Paris")
    with pytest.raises(InputError, match="latent: expected a whole number from 0 to 3"):
        score_hypothesis(index, 4, token("Paris"))
    with pytest.raises(InputError, match=r"labels\['city'\]: expected torch.bool of shape \[220\]"):
        score_hypothesis(index, 0, concept("city"), labels={"city": labels["city"][:7]})


def test_a_dead_latent_and_an_empty_hypothesis_score_nothing(world):
    index, _ = world
    dead = score_hypothesis(index, 3, token("Paris"))
    assert (dead.f1, dead.n_active, len(dead.by_interval)) == (0.0, 0, 0)
    never = score_hypothesis(index, 0, token("Paris") & token("Rome"))
    assert (never.precision, never.recall, never.n_true, never.shuffled_f1) == (0.0, 0.0, 0, 0.0)


def test_counter_examples_of_both_kinds(world):
    index, labels = world
    without, silent = counter_examples(index, 0, previous(token("not"), 2), labels=labels)
    assert {(e.tokens[e.peak], e.activations[e.peak]) for e in without} == {(" Paris", 1.0)}
    assert {(e.tokens[e.peak], e.activations[e.peak]) for e in silent} == {(" in", 0.0)}
    assert max(silent[0].activations) == 2.0  # what the latent does in the same text is shown too
    broad = counter_examples(index, 0, token("Paris", "Rome"))
    assert not broad.fires_without and broad.silent_with[0].tokens[broad.silent_with[0].peak] == " Rome"
    assert all(e.text < 20 for e in (*without, *silent))  # the train split, so that the test split stays unseen


def test_the_most_surprising_silence_comes_first(tmp_path):
    # Latent 0 is active on 9 of 10 Paris and 1 of 10 Rome; silence on Paris is the surprise.
    words = [w for i in range(10) for w in ("<bos>", " Paris", " the", " Rome")]
    acts = torch.zeros(len(words), 1)
    for i in range(10):
        acts[4 * i + 1] = float(i > 0)
        acts[4 * i + 3] = float(i == 5)
    ids = torch.tensor([WORDS.index(w) for w in words])
    store = Store(acts, [4] * 10, ids=ids, test=torch.zeros(40, dtype=torch.bool))
    index = analysis.build_index(store, identity_sae(1), HOOK, tmp_path / "index", vocabulary=WORDS, progress=False)
    silent = counter_examples(index, 0, token("Paris", "Rome"), k=5, before=1, after=0).silent_with
    assert [e.tokens[e.peak] for e in silent] == [" Paris", " Rome"] and silent[0].text == 0
    with pytest.raises(InputError, match="no tokens in the test split.*test_share"):
        score_hypothesis(index, 0, token("Paris"))


# ---- explanations from the top ten


def test_a_liar_fits_the_top_and_fails_elsewhere(world):
    index, labels = world
    table = explanations(index, labels, k=10, min_active=20).set_index("latent")
    assert table.loc[0, "explanation"] == "city" and table.loc[0, "top"] == 1.0
    assert (table.loc[0, "precision"], table.loc[0, "recall"]) == (1.0, pytest.approx(2 / 3))
    assert (table.loc[1, "explanation"], table.loc[1, "f1"]) == ("in", 1.0)
    assert list(liar(index, labels, fails=0.7, min_active=20)["latent"]) == [0]
    narrow = liar(index, labels, fails=0.4, by="precision", min_active=20)
    assert list(narrow["latent"]) == [2] and narrow["precision"][0] == pytest.approx(30 / 90)
    assert not len(liar(index, labels, fails=0.1, min_active=20))
    with pytest.raises(InputError, match="no latent is active on 10000 tokens"):
        liar(index, labels, min_active=10_000)
    with pytest.raises(InputError, match="'recall', 'precision' or 'f1'"):
        liar(index, labels, by="recal")


# ---- contrast pairs


def test_sign_tests_by_hand():
    # Latent 0: up in all 8. Latent 1: up in 7, down in 1. Latent 2: up in 4, down in 4. Latent 3: up in 3, else equal.
    # Latent 4: never different.
    difference = torch.zeros(8, 5)
    difference[:, 0] = 1.0
    difference[:, 1] = torch.tensor([5.0, 1, 1, 1, 1, 1, 1, -1])
    difference[:, 2] = torch.tensor([1.0, 1, 1, 1, -1, -1, -1, -1])
    difference[:3, 3] = 1.0
    table = sign_tests(difference).set_index("latent")
    assert list(table.index) == [0, 1, 3, 2] and list(table["n_pairs"]) == [8, 8, 3, 8]
    assert table.loc[0, "p"] == pytest.approx(2 / 256)
    assert table.loc[1, "p"] == pytest.approx(2 * 9 / 256)
    assert table.loc[2, "p"] == 1.0 and table.loc[2, "consistent"] == 0.5
    assert table.loc[0, "q"] == pytest.approx(3 * 2 / 256)   # three tests: latents 3 and 4 could not have passed
    assert table.loc[3, "q"] == 1.0 and table.loc[1, "consistent"] == 7 / 8
    assert table.loc[1, "difference"] == pytest.approx(10 / 8)


def test_luck_is_corrected_for():
    noise = torch.randn(12, 500, generator=torch.Generator().manual_seed(0))
    table = sign_tests(noise)
    assert (table["p"] <= 0.05).sum() > 5 and not (table["q"] <= 0.05).any()


def test_what_templates_share_leans_the_same_way_in_all():
    one = pd.DataFrame({"latent": [0, 1, 2, 3], "difference": [1.0, 5.0, 2.0, 1.0], "q": [0.01, 0.01, 0.01, 0.5]})
    two = pd.DataFrame({"latent": [3, 2, 1, 0], "difference": [1.0, -2.0, 7.0, 1.0], "q": [0.01, 0.01, 0.02, 0.01]})
    shared = shared_contrasts([one, two])
    assert shared["latent"].tolist() == [1, 0] and shared["difference"].tolist() == [6.0, 1.0]
    assert shared["q"].tolist() == [0.02, 0.01]
    assert not len(shared_contrasts([one, two], alpha=0.001))
    with pytest.raises(InputError, match="two or more"):
        shared_contrasts([one])


def test_pairs_of_texts_and_the_control(model, sae, target):
    names = ["Mary", "Anna", "John", "Peter", "Tom", "Sarah", "Emma", "Paul"]
    pairs = [(f"{name} was not happy.", f"{name} was very happy.") for name in names]
    found = contrast_pairs(model, sae, target, pairs)
    assert len(found) and found["q"].iloc[0] < 0.05 and found["consistent"].iloc[0] == 1.0
    swapped = contrast_pairs(model, sae, target, pairs, swap=0)
    assert (swapped["q"] <= 0.05).sum() < (found["q"] <= 0.05).sum()
    turned = contrast_pairs(model, sae, target, [(b, a) for a, b in pairs]).set_index("latent")
    one = found.set_index("latent")["difference"]
    assert torch.allclose(torch.tensor(one.to_numpy()), -torch.tensor(turned.loc[one.index, "difference"].to_numpy()))
    same_end = contrast_pairs(model, sae, target, pairs, at="last")
    assert set(same_end["latent"]) != set(found["latent"])
    assert not len(contrast_pairs(model, sae, target, [(a, a) for a, _ in pairs]))


def test_pairs_that_are_none_are_named(model, sae, target):
    for wrong, message in (([], "list of"), ("ab", "list of"), ([("a",)], "list of"), ([("a", "")], "is empty")):
        with pytest.raises(InputError, match=message):
            contrast_pairs(model, sae, target, wrong)
    with pytest.raises(InputError, match="unknown place 'end'"):
        contrast_pairs(model, sae, target, [("a", "b")], at="end")
