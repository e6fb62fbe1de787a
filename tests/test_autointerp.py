"""Explanations of latents whose ways are known: found, put into words, and scored as they deserve."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binomtest
from test_index import VOCABULARY, Store, identity_sae, make

from solutions import analysis
from solutions.analysis.means import bootstrap_mean
from solutions.analysis.pages import Example
from solutions.autointerp import (
    Evidence,
    Explanation,
    ExplanationScores,
    Item,
    OfflineExplainer,
    Rule,
    RuleJudge,
    TruthJudge,
    agreement,
    evidence,
    explain,
    explanation_prompt,
    judging_prompt,
    read_answers,
    read_explanation,
    score_explanations,
    scoring_items,
    true_explanations,
)
from solutions.autointerp.passages import window
from solutions.autointerp.scoring import wilson
from solutions.errors import InputError

WORD, AFTER, TWO, DEAD, NOISE, NEAR = range(6)  # what each latent of the planted world goes by


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """200 documents of 18 tokens and BOS; every other one is on the test side."""
    lengths = [19] * 200
    store = Store(torch.zeros(sum(lengths), 6), lengths, seed=5)
    dice = torch.Generator().manual_seed(0)
    ids, on = store.ids, torch.zeros(len(store.ids), 6, dtype=torch.bool)
    before = torch.where(store.is_bos, -1, ids.roll(1))
    on[:, WORD] = ids == 3
    on[:, AFTER] = (ids == 4) & (before == 5)
    on[:, TWO] = (ids == 6) | (ids == 7)
    on[:, NOISE] = torch.rand(len(ids), generator=dice) < 0.2
    for back in (1, 2, 3):
        near = ids.roll(back) == 8
        on[:, NEAR] |= near & (store.position > back)
    values = 1 + torch.rand(len(ids), 6, generator=dice)
    values[:, TWO] += 5 * (ids == 6)
    store.acts = values * on * ~store.is_bos[:, None]
    return make(store, identity_sae(6), tmp_path_factory.mktemp("planted") / "index", unembed=torch.eye(6, 12))


@pytest.fixture(scope="module")
def labels(planted):
    """Two concepts: token 3, which is latent 0; and token 4, of which latent 1 is a part."""
    return {"three": planted.ids == 3, "four": planted.ids == 4}


def word(i):
    return VOCABULARY[i]


# ------------------------------------------------------------------------------------------ what is shown

def test_an_explainer_is_shown_every_interval_and_silence_and_only_the_train_split(planted):
    shown = evidence(planted, TWO, per_interval=3, n_intervals=4, n_silent=5)
    assert [len(examples) for examples in shown.intervals] == [3] * 4 and len(shown.silent) == 5
    peaks = [[e.activations[e.peak] for e in examples] for examples in shown.intervals]
    assert min(peaks[0]) > max(peaks[1]) > max(peaks[3]) > 0
    assert shown.maximum == max(peaks[0])
    assert {e.tokens[e.peak] for e in shown.intervals[0]} == {word(6)}
    assert {e.tokens[e.peak] for e in shown.intervals[3]} == {word(7)}  # the weak half is another word
    assert not any(token in (word(6), word(7)) for e in shown.silent for token in e.tokens)
    everything = [*sum(shown.intervals, []), *shown.silent]
    assert not any(e.text % 2 for e in everything)  # odd documents are test
    assert not any("<bos>" in e.tokens for e in everything)


def test_the_same_seed_shows_the_same_and_another_one_does_not(planted):
    assert evidence(planted, TWO, seed=1) == evidence(planted, TWO, seed=1) != evidence(planted, TWO, seed=2)


def test_a_dead_latent_has_nothing_to_show(planted):
    assert evidence(planted, DEAD).intervals == [] and evidence(planted, DEAD).maximum == 0.0
    assert scoring_items(planted, DEAD) == []


@pytest.mark.parametrize("task", ["detection", "fuzzing"])
@pytest.mark.parametrize("negatives", ["random", "same token"])
@pytest.mark.parametrize("latent", [AFTER, NOISE])
def test_questions_have_the_right_answers(planted, task, negatives, latent):
    items = scoring_items(planted, latent, task, n=24, negatives=negatives, before=2, after=1)
    active = np.zeros(planted.n_tokens, bool)
    active[planted.latent(latent)[0].numpy()] = True
    assert len(items) >= 12 and sum(item.active for item in items) == len(items) / 2
    for item in items:
        here = slice(item.start, item.start + len(item.tokens))
        truth = active[here].any() if task == "detection" else active[item.start + item.marked]
        assert truth == item.active
        assert item.tokens == planted.text(here.start, here.stop)
        assert planted.test[here].all() and not planted.is_bos[here].any()
        assert (item.interval is not None) == item.active
    passages = [tuple(item.tokens) for item in items if item.active]
    assert len(set(passages)) == len(passages)


def test_yeses_come_from_all_intervals_alike(planted):
    items = scoring_items(planted, TWO, n=40, n_intervals=4)
    assert np.bincount([item.interval for item in items if item.active]).tolist() == [5] * 4


def test_questions_on_the_same_token_give_nothing_away(planted):
    items = scoring_items(planted, AFTER, "fuzzing", n=20, negatives="same token")
    assert {item.tokens[item.marked] for item in items} == {word(4)}
    assert scoring_items(planted, WORD, "fuzzing", n=20, negatives="same token") == []  # never silent on its token


def test_random_silent_tokens_in_fuzzing_stand_in_active_passages(planted):
    items = scoring_items(planted, WORD, "fuzzing", n=20)
    assert all(word(3) in item.tokens for item in items)
    assert all((item.tokens[item.marked] == word(3)) == item.active for item in items)


def test_a_passage_stays_within_its_document(planted):
    start, stop = planted.span(4)
    assert window(planted, start + 1, 5, 2) == (start + 1, start + 4)      # not over BOS
    assert window(planted, stop - 1, 2, 5) == (stop - 3, stop)
    assert window(planted, start + 9, 2, 3) == (start + 7, start + 13)


@pytest.mark.parametrize(("wrong", "message"), [
    ({"task": "guessing"}, "unknown task"), ({"negatives": "easy"}, "unknown kind of negatives"),
    ({"n": 1}, "n must be"), ({"latent": 6}, "from 0 to 5"), ({"split": "tets"}, "unknown split"),
])
def test_questions_that_cannot_be_are_refused(planted, wrong, message):
    with pytest.raises(InputError, match=message):
        scoring_items(planted, **{"latent": WORD, **wrong})


def test_without_a_test_split_nothing_is_scored(tmp_path):
    store = Store(torch.ones(40, 2), [20, 20], test=torch.zeros(40, dtype=torch.bool))
    index = make(store, identity_sae(2), tmp_path / "index")
    with pytest.raises(InputError, match="no tokens in the test split"):
        scoring_items(index, 0)


# ------------------------------------------------------------------------------------- the offline explainer

def test_rules_are_what_was_planted(planted):
    rules = {j: OfflineExplainer(planted, reach=3).rule(j) for j in (WORD, AFTER, TWO, DEAD, NEAR)}
    assert rules[WORD] == Rule(tokens=(word(3),))
    assert rules[AFTER] == Rule((word(4),), (word(5),), 1)
    assert set(rules[TWO].tokens) == {word(6), word(7)} and rules[TWO].context is None
    assert rules[NEAR] == Rule(None, (word(8),), 3)
    assert rules[DEAD] is None


def test_the_strongest_examples_alone_hide_the_weak_half(planted):
    assert OfflineExplainer(planted, strongest=10).rule(TWO) == Rule(tokens=(word(6),))


def test_a_rule_is_applied_token_by_token_and_looks_back_only():
    tokens = ["b", "a", "c", "a", "b", "a"]
    assert Rule(("a",)).on(tokens) == [False, True, False, True, False, True]
    assert Rule(("a",), ("b",), 1).on(tokens) == [False, True, False, False, False, True]
    assert Rule(("a",), ("b",), 3).on(tokens) == [False, True, False, True, False, True]
    assert Rule(None, ("c",), 2).on(tokens) == [False, False, False, True, True, False]
    assert Rule(("b",), ("b",), 3).on(["b"]) == [False]  # not after itself


def test_a_rule_can_be_read(planted):
    text = str(Rule(tuple("abcdefghij"), (" of",), 1))
    assert text == "“a”, “b”, “c”, “d”, “e”, “f”, “g”, “h” or 2 more, right after “␣of”"
    assert str(Rule(None, ("x",), 10)) == "any token, within 10 tokens after “x”"
    found = explain(planted, [WORD, DEAD])
    assert str(found[0]) == f"0: “␣{word(3).strip()}”" and str(found[1]) == "3: no explanation (silent)"


def test_an_explainer_belongs_to_an_index(planted, tmp_path):
    other = make(Store(torch.ones(40, 2), [20, 20]), identity_sae(2), tmp_path / "index")
    with pytest.raises(InputError, match="another index"):
        explain(other, [0], OfflineExplainer(planted))
    with pytest.raises(InputError, match="expected an Endpoint"):
        explain(planted, [0], "gpt")


# ------------------------------------------------------------------------------------------------ scores

def test_right_rules_score_one_and_borrowed_ones_do_not(planted):
    found = explain(planted, [WORD, AFTER, TWO, NEAR], OfflineExplainer(planted, reach=3))
    for task in ("detection", "fuzzing"):
        table = score_explanations(planted, found, task=task, n=40).table
        assert table["accuracy"].tolist() == [1.0] * 4
        assert (table["borrowed"] < 0.75).all() and (table["luck"] < 0.75).all()
        assert (table["shuffled"] - 0.5).abs().max() < 0.06


def test_noise_cannot_be_explained(planted):
    table = score_explanations(planted, explain(planted, [NOISE]), n=200, borrowed=False).table
    assert table["accuracy"][0] < 0.65


def test_who_knows_the_token_alone_is_right_half_of_the_time(planted):
    """Yes and no stand on the same tokens, a rule without context cannot tell them apart."""
    lazy = [Explanation(AFTER, "four", "by hand", rule=Rule((word(4),)))]
    easy, hard = (score_explanations(planted, lazy, negatives=kind).table for kind in ("random", "same token"))
    assert hard["accuracy"][0] == 0.5 and hard["false_alarms"][0] == 1.0
    assert easy["accuracy"][0] > 0.85


def test_an_explanation_from_the_top_fails_on_the_weak_intervals(planted):
    top = score_explanations(planted, explain(planted, [TWO], OfflineExplainer(planted, strongest=10)))
    assert top.by_interval["interval"].tolist() == [0, 1, 2, 3]
    hits = top.by_interval["hits"].tolist()
    assert hits[:2] == [1.0, 1.0] and hits[2] < 0.5 and hits[3] == 0.0
    assert top.table["accuracy"][0] == pytest.approx(0.5 + sum(hits) / 8)  # and all that are silent


def test_counts_are_those_of_a_plain_loop(planted):
    wrong = [Explanation(AFTER, "x", "by hand", rule=Rule((word(4), word(9))))]
    scores = score_explanations(planted, wrong, n=12)
    row, pairs = scores.table.iloc[0], scores.answers[0]
    assert row["n"] == len(pairs) == 12
    assert row["accuracy"] == sum(item.active == said for item, said in pairs) / 12
    assert row["false_alarms"] == sum(bool(said) for item, said in pairs if not item.active) / 6
    assert row["hits"] == 1.0


def test_wilsons_interval_by_hand():
    """8 of 10: z = 1.96, (0.8 + 0.19208 ± 1.96 sqrt(0.016 + 0.0096)) / 1.38416."""
    assert wilson(8, 10) == (pytest.approx(0.490, abs=1e-3), pytest.approx(0.943, abs=1e-3))
    for hits, n in ((0, 9), (9, 9), (30, 40)):
        theirs = binomtest(hits, n).proportion_ci(method="wilson")
        assert wilson(hits, n) == (pytest.approx(theirs.low, abs=1e-4), pytest.approx(theirs.high, abs=1e-4))


def test_what_is_not_answered_is_not_guessed(planted):
    class Silent:
        def answer(self, tests, task):
            return [[None if i % 2 else item.active for i, item in enumerate(items)] for _, items in tests]

    class Mute:
        def answer(self, tests, task):
            return [[None] * len(items) for _, items in tests]

    found = explain(planted, [WORD])
    row = score_explanations(planted, found, Silent(), borrowed=False).table.iloc[0]
    assert (row["n"], row["unanswered"], row["accuracy"]) == (20, 20, 1.0)
    row = score_explanations(planted, found, Mute(), borrowed=False).table.iloc[0]
    assert row["n"] == 0 and np.isnan(row["accuracy"]) and row["unanswered"] == 40


def test_a_latent_without_an_explanation_has_a_row_and_no_score(planted):
    scores = score_explanations(planted, explain(planted, [WORD, DEAD, TWO]))
    assert scores.table["status"].tolist() == ["ok", "silent", "ok"]
    assert np.isnan(scores.table["accuracy"][1]) and scores.mean().n == 2


def test_a_judge_who_always_says_yes_is_found_out(planted):
    class Yes:
        def answer(self, tests, task):
            return [[True] * len(items) for _, items in tests]

    row = score_explanations(planted, explain(planted, [WORD, TWO]), Yes()).table.iloc[0]
    assert row["accuracy"] == row["shuffled"] == row["luck"] == row["borrowed"] == 0.5
    assert row["hits"] == row["false_alarms"] == 1.0


def test_a_judge_is_told_neither_activations_nor_answers(planted):
    seen = []

    class Curious(RuleJudge):
        def answer(self, tests, task):
            seen.extend(judging_prompt(e.text, items, task).user for e, items in tests)
            return super().answer(tests, task)

    score_explanations(planted, explain(planted, [WORD]), Curious(), borrowed=False, n=10)
    lines = seen[0].splitlines()
    assert len(lines) == 11 and not any("True" in line or "0.5" in line for line in lines)
    assert all(line.count("⟦") == 1 for line in lines[1:])  # yes and no look the same


def test_the_bootstrap_is_over_latents():
    mean = bootstrap_mean([0.0, 1.0] * 50)
    assert mean.value == 0.5 and mean.n == 100
    assert mean.low == pytest.approx(0.5 - 1.96 * 0.05, abs=0.02)  # the standard error of such a mean is 0.05
    assert mean.high == pytest.approx(0.5 + 1.96 * 0.05, abs=0.02)
    assert np.isnan(bootstrap_mean([np.nan]).value) and bootstrap_mean([np.nan, 1.0]).n == 1


def test_words_need_somebody_who_understands_them(planted):
    with pytest.raises(InputError, match="EndpointJudge"):
        score_explanations(planted, [Explanation(WORD, "the third word", "somebody")])
    with pytest.raises(InputError, match="at least one"):
        score_explanations(planted, [])
    with pytest.raises(InputError, match="unknown column"):
        score_explanations(planted, explain(planted, [WORD])).mean("accurate")


# ------------------------------------------------------------------------------------------------ the truth

def test_the_truth_scores_as_well_as_a_name_from_the_list_can(planted, labels):
    concepts = analysis.concept_table(planted, torch.stack(list(labels.values()), dim=1), list(labels))
    named = true_explanations(concepts, [WORD, AFTER, DEAD])
    assert [e.concept for e in named] == ["three", "four", None]
    judge = TruthJudge(planted, labels)
    table = score_explanations(planted, named, judge).table
    assert table["accuracy"][0] == 1.0
    hard = score_explanations(planted, named[1:2], judge, negatives="same token").table
    assert hard["accuracy"][0] == 0.5  # the list has no name for "four, after five"
    with pytest.raises(InputError, match="unknown concept"):
        judge.answer([(Explanation(0, "five", "truth", concept="five"), [])], "fuzzing")


def test_agreement_by_hand():
    items = [Item([str(i)], i, 0, True, 0) for i in range(10)]

    def scores(answers, latent=0):
        return ExplanationScores("fuzzing", pd.DataFrame({"latent": [latent]}), pd.DataFrame(),
                                 [list(zip(items, answers, strict=True))])

    a = [True] * 5 + [False] * 5
    b = [True] * 4 + [False] * 4 + [True] * 2
    row = agreement(scores(a), scores(b)).iloc[0]
    assert row["agree"] == 0.7 and row["kappa"] == pytest.approx((0.7 - 0.5) / 0.5)  # 0.5·0.6 + 0.5·0.4 by chance
    assert agreement(scores(a), scores([None] * 9 + [False])).iloc[0]["n"] == 1
    assert np.isnan(agreement(scores([True] * 10), scores([True] * 10)).iloc[0]["kappa"])
    with pytest.raises(InputError, match="other latents"):
        agreement(scores(a), scores(a, latent=1))


# ------------------------------------------------------------------------------------------ prompts, answers

def test_a_prompt_shows_strengths_on_a_scale_and_text_as_data():
    shown = Evidence(7, [[Example(["a", " ⟦b", "\n"], [0.0, 4.0, 0.1], 1, 0, 1)]],
                     [Example(['say "no"'], [0.0], 0, 0, 1)], 8.0, [(" next", 1.0)])
    lines = explanation_prompt(shown).user.splitlines()
    assert lines[1] == '"a⟦ [b⟧5⟦\\n⟧1"'             # 4 of 8 is 5 of 10; a mark of the text's own cannot mark
    assert lines[3] == '"say \\"no\\""'               # one line each, whatever it holds
    assert lines[4].endswith('" next"')


@pytest.mark.parametrize(("text", "explanation"), [
    ('{"explanation": " weekdays\\n and months "}', "weekdays and months"),
    ('```json\n{"explanation": "weekdays"}\n```', "weekdays"),
    ('Here {it} is: {"explanation": "weekdays"}', "weekdays"),
    ('{"explanation": ""}', None), ('{"explanation": 3}', None), ("weekdays", None), ('{"explanation": "wee', None),
    ("[1]", None), ("", None), ("{" * 5000, None),
])
def test_an_explanation_is_read_or_it_is_none(text, explanation):
    assert read_explanation(text) == explanation


@pytest.mark.parametrize(("text", "answers"), [
    ('{"answers": [1, 0]}', [True, False]), ('{"answers": [true, false]}', [True, False]),
    ('{"answers": [1]}', None), ('{"answers": [1, 0, 0]}', None), ('{"answers": [1, 2]}', None),
    ('{"answers": [1, null]}', None), ('{"answers": "10"}', None), ('{"answers": [1.0, 0]}', None), ("1, 0", None),
])
def test_answers_are_read_or_there_are_none(text, answers):
    assert read_answers(text, 2) == answers


def test_prompts_are_valid_json_line_by_line(planted):
    items = scoring_items(planted, WORD, "detection", n=6)
    first, *lines = judging_prompt('it is "quoted"\nand broken', items, "detection").user.splitlines()
    assert json.loads(first.partition(": ")[2]) == 'it is "quoted"\nand broken'
    assert [json.loads(line.partition(": ")[2]) for line in lines] == ["".join(item.tokens) for item in items]
