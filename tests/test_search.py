"""Search: every kind of term against hand arithmetic, combinations against sets, the typed form, and kind errors."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import fisher_exact, hypergeom
from test_index import Relu, Store, dense_of, make, random_world

from solutions.analysis import concept_table
from solutions.analysis.search import (
    QueryError,
    by_concept,
    by_density,
    by_examples,
    by_regex,
    by_text,
    by_token,
    examples,
    load_concepts,
    places,
    promotes,
    regexes,
    save_concepts,
    search,
    session,
    similar_to,
    suppresses,
)
from solutions.errors import InputError

WORDS = ["<bos>", " Paris", "Paris", " London", " not", " good", " the", " un", " in", ".", "a" * 40 + "!", "\x1b[31m"]
TEXTS = [" the Paris not good .", " the London good .", "Paris the un in ."]
# Latent: the words it is active on, and how strongly. Latent 5 is dead, 2 and 6 are filled in by hand below.
ACTIVE = {0: {" Paris": 2.0}, 1: {" Paris": 1.0, " London": 4.0}, 3: {" the": 3.0}, 4: {" un": 1.0, " in": 1.0}}
CONCEPTS = ("city", "praise")


def split(text):
    """The tokens of one of the texts."""
    words = text.replace(" .", ".").replace(" ", "\n ").replace(".", "\n.").split("\n")
    return [word for word in words if word]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Every text once in the train split and once in the test split, in turns; 7 latents that were written down."""
    rows, features, lengths = [], [], []
    for text in TEXTS:
        for test in (False, True):
            words = split(text)
            table = torch.zeros(len(words) + 1, 7)
            for i, word in enumerate(words, 1):
                for latent, strengths in ACTIVE.items():
                    table[i, latent] = strengths.get(word, 0.0)
                table[i, 2] = float(word == " good" and words[i - 2] == " not")   # a phrase, not a token
                table[i, 6] = float(word == (" London" if test else " Paris"))    # says one thing and does another
            rows += [0, *(WORDS.index(word) for word in words)]
            features.append(table)
            lengths.append(len(table))
    directions = torch.eye(7)
    directions[1] = torch.tensor([0.6, 0.8, 0, 0, 0, 0, 0])  # cosine 0.6 with latent 0
    unembed = torch.zeros(7, len(WORDS))
    unembed[0, 1], unembed[3, 1], unembed[4, 1], unembed[3, 6] = 6.0, 3.0, -6.0, 9.0
    store = Store(torch.cat(features), lengths, torch.tensor(rows))
    path = tmp_path_factory.mktemp("search") / "index"
    index = make(store, Relu(torch.eye(7), directions), path, vocabulary=WORDS, unembed=unembed)
    ids = index.ids
    labels = torch.stack([torch.isin(ids, torch.tensor([1, 2, 3])), ids == 5], 1)
    return SimpleNamespace(index=index, store=store, labels=labels,
                           table=concept_table(index, labels, CONCEPTS))


def rows(results, *columns):
    return list(results.table[["latent", *columns]].itertuples(index=False, name=None))


# ---------------------------------------------------------------------------------------------- terms

def test_a_token_is_found_by_f1_chosen_on_train_and_reported_on_test(world):
    found = search(world.index, by_token(" Paris"))
    # One " Paris" in each split. Latent 6 is perfect where it is chosen and worthless where it is measured.
    assert rows(found, "token_train_f1", "token_f1", "token_precision", "token_recall") == [
        (0, 1.0, 1.0, 1.0, 1.0), (6, 1.0, 0.0, 0.0, 0.0), (1, pytest.approx(2 / 3), pytest.approx(2 / 3), 0.5, 1.0)]
    assert found.table["score"].tolist() == pytest.approx([1, 1, 2 / 3])
    assert found.n_found == len(found) == 3 and found
    assert found.table["token_lift"][0] == pytest.approx(14)  # 14 tokens in the test split, one of them this one
    assert found.table["density"][0] == pytest.approx(2 / 28)
    assert found.table["example"][0] == " the‹ Paris› not good."
    assert "F1 1.00, precision 1.00, recall 1.00" in found.table["evidence"][0]


def test_a_word_without_its_space_is_looked_for_with_and_without(world):
    exact, either = (search(world.index, by_token(word)) for word in (" Paris", "Paris"))
    assert exact.table["token_recall"][0] == 1.0
    assert rows(either, "token_recall")[0] == (0, 0.5)  # the "Paris" at the start of a text is not noticed by latent 0


def test_a_regular_expression_is_looked_for_in_tokens_and_in_the_running_text(world):
    found = search(world.index, by_regex(r"^ (un|in)$"))
    assert rows(found, "regex_f1") == [(4, 1.0)]
    assert "fits 2 of the 9 tokens that occur (' un', ' in'): 4 places, 2 of them in the test split" in found.notes[0]
    found = search(world.index, by_regex("not good", running=True))
    assert rows(found, "phrase_f1") == [(2, 1.0)]  # on " good", where the match ends
    assert "fits 2 times" in found.notes[0]
    assert not search(world.index, by_regex("good. the", running=True))  # never across two documents
    assert search(world.index, by_regex("t g", running=True)).latents == [2]  # a match may end inside a token


def test_running_text_is_bounded_and_says_how_much_was_read(world, monkeypatch, tmp_path):
    monkeypatch.setattr(session, "CHARACTERS", 40)
    index = make(world.store, Relu(torch.eye(7), torch.eye(7)), tmp_path / "index", vocabulary=WORDS)
    found = search(index, by_regex("the", running=True))
    assert "fits 2 times in 2 of the 6 documents" in found.notes[0]
    assert rows(found, "phrase_f1", "phrase_train_f1") == [(3, 1.0, 1.0)]


def test_a_concept_is_found_with_a_table_and_with_labels(world):
    found = search(world.index, by_concept("city"), concepts=world.table)
    # Three cities in each split; latent 1 is active on two of them and on nothing else.
    assert rows(found, "concept_f1", "concept_lookup_f1", "concept") [0] == (1, pytest.approx(0.8), 1.0, "city")
    assert "looking the token up has F1 1.00" in found.table["evidence"][0]
    other = search(world.index, by_concept("city"), concepts=CONCEPTS, labels=world.labels)
    for column in ("concept_f1", "concept_precision", "concept_recall", "concept_train_f1", "latent"):
        assert other.table[column].tolist() == pytest.approx(found.table[column].tolist())
    with pytest.raises(InputError, match="unknown concept 'citty'. Did you mean 'city'"):
        search(world.index, by_concept("citty"), concepts=world.table)
    with pytest.raises(InputError, match="concepts are not known here"):
        search(world.index, by_concept("city"))


def test_examples_are_told_apart_by_a_test_that_is_corrected_for_many_latents(world):
    places = world.index.find(" Paris")
    against = world.index.find(" the")
    # 2 of 2 against 0 of 6 cannot be significant; the p-value is Fisher's.
    found = search(world.index, by_examples(places, against, q=1.0))
    row = found.table.set_index("latent").loc[0]
    p = fisher_exact([[2, 0], [0, 6]], alternative="greater").pvalue
    active = [int(((world.store.acts[torch.cat([places, against])] > 0)[:, j]).any()) for j in range(7)]
    alive = sum(active)
    ranks = {j: p for j in (0, 1)}  # both are active on the two examples and never on the others
    assert row["examples_q"] == pytest.approx(p * alive / len(ranks))
    assert (row["examples_share"], row["examples_share_against"], row["score"]) == (1.0, 0.0, 1.0)
    assert not search(world.index, by_examples(places, against))
    assert "q ≤ 0.05" in search(world.index, by_examples(places, against)).empty_reason


def test_examples_against_the_whole_text_and_given_as_a_mask(world):
    mask = world.index.ids == 6  # " the"
    found = search(world.index, by_examples(mask))
    assert rows(found, "examples_share", "examples_share_against") == [(3, 1.0, 0.0)]
    assert found.table["examples_q"][0] < 0.001
    same = search(world.index, by_examples(mask.nonzero().flatten()))
    assert same.table["examples_q"].tolist() == found.table["examples_q"].tolist()


def test_examples_drawn_at_random_find_nothing_more_often_than_q_allows(many):
    dice, content = np.random.default_rng(0), np.flatnonzero(~many.is_bos.numpy())
    found = [bool(search(many, by_examples(dice.choice(content, 20, replace=False)))) for _ in range(200)]
    assert np.mean(found) <= 0.1  # 40 latents tested at 0.05 each, uncorrected, would find some nearly every time
    where, _ = many.latent(3)
    assert search(many, by_examples(where)).latents[0] == 3


def test_latents_similar_to_one_by_direction_and_by_activity(world):
    found = search(world.index, similar_to(0) )
    assert rows(found, "like_cosine")[0] == (1, pytest.approx(0.6))
    assert 0 not in found.latents
    found = search(world.index, similar_to(0, by="activity"))
    # Latent 0 on 2 tokens; 1 on these and two others; 6 on one of them and one other.
    assert rows(found, "with_jaccard", "with_n") == [(1, 0.5, 2.0), (6, pytest.approx(1 / 3), 1.0)]


def test_what_promotes_and_suppresses_a_token(world):
    mean = 6 / len(WORDS)
    found = search(world.index, promotes(" Paris"))
    assert rows(found, "promotes_effect", "promotes_rank")[0] == (0, pytest.approx(6 - mean), 1)
    assert found.latents[:3] == [0, 1, 3]  # latent 1 points partly along latent 0: 0.6 × 6 = 3.6 against 3 - 1
    found = search(world.index, suppresses(" Paris"))
    assert rows(found, "suppresses_effect", "suppresses_rank")[0] == (4, pytest.approx(-6 + mean), 1)
    assert "lowers ' Paris'" in found.table["evidence"][0]


def test_a_text_says_what_is_active_where_and_how_unusual_that_is(world):
    features = torch.tensor([[0.0, 0, 0, 0, 0, 0, 0], [1.0, 8.0, 0, 0, 0, 0, 0]])
    found = search(world.index, by_text(features, words=[" the", " Paris"]))
    wanted = world.index.top_of_text(features)
    assert found.latents == wanted["latent"].tolist() == [1, 0]
    assert found.table["text_surprise"].tolist() == wanted["surprise"].tolist()
    assert found.table["text_on"].tolist() == [" Paris", " Paris"]
    assert found.table["text_one_in"].tolist() == [math.inf, 14.0]  # latent 0 is at 2.0 on two of 28 tokens
    assert "stronger than anywhere in the index" in found.table["evidence"][0]
    assert "8.00 on ' Paris'" in found.table["evidence"][0] and "1 token in 14" in found.table["evidence"][1]
    document = search(world.index, by_text(0))
    assert set(document.latents) == {0, 1, 2, 3, 6} and document.table["document_on"][0].startswith(" ")
    read = search(world.index, 'text:"anything"', read=lambda text: ([" the", " Paris"], features))
    assert read.table["evidence"].tolist() == found.table["evidence"].tolist()


def test_density_filters_and_ranks_by_activity(world):
    found = search(world.index, by_density(low=0.1))
    n = world.index.n_active
    assert found.latents == [j for j in n.argsort(descending=True, stable=True).tolist() if n[j] >= 2.8]
    assert (found.table["score"] == 1).all()
    assert search(world.index, "density:0").latents == [5]
    assert search(world.index, "density:>0").n_found == 6
    assert search(world.index, f"density:<{2 / 28}").latents == [5]
    assert set(search(world.index, f"density:<={2 / 28}").latents) >= {0, 5}


# --------------------------------------------------------------------------------------- combinations

def matches(index, query):
    return set(search(index, query, k=100).latents)


TERMS = [by_density(0.0, 0.1), by_density(0.1, 0.2), similar_to(3), similar_to(5, by="activity"), by_text(2),
         by_token(" w3", least=0.15), by_regex("w[1-4]", least=0.3), promotes(" w1")]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    store, sae = random_world()
    unembed = torch.randn(8, 12, generator=torch.Generator().manual_seed(1))
    return make(store, sae, tmp_path_factory.mktemp("many") / "index", unembed=unembed)


trees = st.recursive(
    st.sampled_from(range(len(TERMS))),
    lambda inner: st.tuples(st.sampled_from("&|"), inner, inner) | st.tuples(st.just("~"), inner), max_leaves=6)


@given(tree=trees)
@settings(max_examples=60, deadline=None)
def test_combining_queries_combines_the_sets_they_find(many, tree):
    def both(node):
        if isinstance(node, int):
            return TERMS[node], matches(many, TERMS[node])
        if node[0] == "~":
            query, found = both(node[1])
            return ~query, set(range(many.n_latents)) - found
        (a, one), (b, other) = both(node[1]), both(node[2])
        return (a & b, one & other) if node[0] == "&" else (a | b, one | other)

    query, wanted = both(tree)
    results = search(many, query, k=100)
    assert set(results.latents) == wanted and results.n_found == len(wanted)
    assert bool(results.empty_reason) == (not wanted)
    assert results.table["score"].between(0, 1 + 1e-9).all() and results.table["score"].is_monotonic_decreasing


def test_and_takes_the_geometric_mean_or_the_larger_and_filters_do_not_count(world):
    index = world.index
    paris = search(index, by_token(" Paris")).table.set_index("latent")["score"]
    like = search(index, similar_to(0, by="activity")).table.set_index("latent")["score"]
    both = search(index, by_token(" Paris") & similar_to(0, by="activity") & by_density(high=0.5) & ~by_density(high=0))
    scores = both.table.set_index("latent")["score"]
    assert set(scores.index) == {1, 6}
    for j in (1, 6):
        assert scores[j] == pytest.approx((paris[j] * like[j]) ** 0.5)
    either = search(index, by_token(" Paris") | similar_to(0, by="activity")).table.set_index("latent")["score"]
    assert either[1] == max(paris[1], like[1]) and either[0] == paris[0]
    assert "with:0: active with 0" in both.table["evidence"][0] and "density" not in both.table["evidence"][0]


def test_two_terms_of_a_kind_have_columns_of_their_own(world):
    table = search(world.index, by_token(" Paris") | by_token(" London")).table
    assert {"token_f1", "token2_f1"} <= set(table.columns)


def test_without_a_match_the_reason_names_what_removed_everything(world):
    def reason(query):
        found = search(world.index, query, concepts=world.table)
        assert not found and len(found) == 0 and list(found.table.columns)[0] == "latent"
        return found.empty_reason

    assert "no latent reaches an F1 of 0.99; the best, " in reason('concept:city>0.99')
    assert reason(r'regex:"zz"') == "it stands nowhere in the text of this index"
    assert "fits 0 of the 9 tokens that occur" in search(world.index, 'regex:"zz"').notes[0]
    both = reason('token:" the" & regex:"^ un"')
    assert 'token:" the" has 1 latent' in both and 'regex:"^ un" has 1 latent' in both
    three = reason('token:" Paris" & with:0 & density:<0.01')
    assert "density:<0.01 finds" not in three and "without density:<0.01 there would be 2" in three
    assert reason('token:" Paris" & concept:city>0.99').startswith("concept:city>0.99 finds none (no latent reaches")
    assert "finds none" in reason('regex:"zz" | density:0.5..0.6')
    assert reason("~density:>=0") == "density:>=0.0 matches every latent, so nothing is left"
    assert "go from 0 to 0.21" in reason("density:>0.9")
    assert "it is never active, latent 5" in reason("with:5")


def test_queries_are_no_truth_values_and_join_only_with_queries():
    with pytest.raises(InputError, match="join queries with & | ~"):
        by_token("a") and by_token("b")
    with pytest.raises(TypeError):
        by_token("a") & "token:b"
    assert ~~by_token("a") == by_token("a")
    assert (by_token("a") & by_token("b") & by_token("c")).parts == (by_token("a"), by_token("b"), by_token("c"))


# ------------------------------------------------------------------------------------ sampling, splits

def test_of_very_many_places_evenly_spaced_ones_are_looked_at(world, tmp_path, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 3, (4000,), generator=generator)
    noise = torch.rand(4000, 3, generator=generator) < torch.tensor([0.9, 0.1, 0.3])
    acts = torch.stack([(ids == 1) & noise[:, 0] | noise[:, 1], noise[:, 2]], 1).float()
    store = Store(acts, [20] * 200, ids)
    index = make(store, Relu(torch.eye(2), torch.eye(2)), tmp_path / "index")
    exact = search(index, by_token(" w1", least=0.0))
    from solutions.analysis.search import run

    monkeypatch.setattr(run, "RANKING", 300)
    monkeypatch.setattr(places, "REPORTING", 6000)
    about = search(index, by_token(" w1", least=0.0))
    assert about.latents[0] == exact.latents[0] == 0
    for column in ("token_f1", "token_train_f1", "token_precision"):
        assert about.table[column][0] == pytest.approx(exact.table[column][0], abs=0.12)
        assert about.table[column][0] != exact.table[column][0]


def test_an_index_without_a_test_split_says_so(world, tmp_path):
    store = Store(world.store.acts, [len(world.store.acts)], world.store.ids,
                  test=torch.zeros(len(world.store.acts), dtype=torch.bool))
    index = make(store, Relu(torch.eye(7), torch.eye(7)), tmp_path / "index", vocabulary=WORDS)
    found = search(index, 'token:" Paris"')
    assert "no test split" in found.notes[-1] and found.table["token_f1"][0] == found.table["token_train_f1"][0]


# ------------------------------------------------------------------------------------------ kind errors

@pytest.mark.parametrize("text, says, marked", [
    ("density:>0 & token:Parris", "'Parris' is not a token of this vocabulary; these are: ", "token:Parris"),
    ("token:paris", "these are: 'Paris', ' Paris'", "token:paris"),
    ('token:" Eiffel Tower"', 'phrase:"Eiffel Tower"', 'token:" Eiffel Tower"'),
    ("like:7", "from 0 to 6, got 7", "like:7"),
    ("document:99 | token:Paris", "one of the store's 6, got 99", "document:99"),
    ('regex:"(un"', "is not a regular expression", 'regex:"(un"'),
    ("concept:cty", "Did you mean 'city'", "concept:cty"),
    ('text:"hello"', "has to be read by the model first", 'text:"hello"'),
    ('regex:"(a|aa)+$" & token:Paris', "was given up", 'regex:"(a|aa)+$"'),
])
def test_a_term_that_cannot_be_answered_is_shown_where_it_is(world, monkeypatch, text, says, marked):
    monkeypatch.setattr(regexes, "ONE_SEARCH", 0.02)
    facts = session.facts_of(world.index)
    ids, words, n_quick = facts.occurring
    long = len(WORDS) - 2  # this token does not occur in the texts: let it
    occurring = session.Occurring(np.append(ids, long), [*words, WORDS[long]], n_quick)
    monkeypatch.setitem(facts.__dict__, "occurring", occurring)
    with pytest.raises(QueryError) as caught:
        search(world.index, text, concepts=world.table)
    assert says in caught.value.reason and text[caught.value.start:caught.value.stop] == marked


@pytest.mark.parametrize("call, says", [
    (lambda w: search(w.index, by_token("x")), "is not a token"),
    (lambda w: search(w.index, 7), "query must be a string"),
    (lambda w: search(w.index, by_token(" the"), k=0), "k must be"),
    (lambda w: by_token(3), "expected the text of a token, got 3"),
    (lambda w: promotes(""), "expected the text of a token"),
    (lambda w: by_text("  "), "empty"),
    (lambda w: by_regex("[", running=True), "not a regular expression"),
    (lambda w: by_density(0.5, 0.1), "0.5 and 0.1"),
    (lambda w: similar_to("x"), "whole number, got 'x'"),
    (lambda w: similar_to(1, by="name"), "'direction' or 'activity'"),
    (lambda w: by_examples([1], q=0.0), "q: expected a share"),
    (lambda w: search(w.index, by_examples([999])), "expected places from 0 to"),
    (lambda w: search(w.index, by_examples([0.5])), "whole numbers"),
    (lambda w: search(w.index, by_examples([0])), "no place in it, BOS left out"),
    (lambda w: search(w.index, by_examples(torch.ones(3, dtype=torch.bool))), "one entry for each of the index's"),
    (lambda w: search(w.index, by_examples([1], against=[1])), "nothing to compare"),
    (lambda w: search(w.index, by_concept("city"), concepts=CONCEPTS, labels=w.labels[:3]), "labels: expected bool"),
    (lambda w: search(w.index, by_text(torch.ones(2, 3))), r"expected [tokens, 7]"),
])
def test_bad_input_is_named(world, call, says):
    with pytest.raises(InputError) as caught:
        call(world)
    assert says in str(caught.value)


def test_an_index_without_logits_or_vocabulary_says_what_it_cannot_do(world, tmp_path):
    bare = make(world.store, Relu(torch.eye(7), torch.eye(7)), tmp_path / "index", vocabulary=None)
    with pytest.raises(InputError, match="built without a vocabulary"):
        search(bare, by_token(" Paris"))
    bare.vocabulary = WORDS
    assert search(bare, by_token(" Paris")).latents[0] == 0
    with pytest.raises(InputError, match="built without an unembedding"):
        search(bare, promotes(" Paris"))


# ---------------------------------------------------------------------------------------- what is shown

def test_results_are_text_html_and_json_and_obey_nothing_in_them(world):
    found = search(world.index, 'token:" Paris"', concepts=world.table)
    text = str(found)
    assert text.startswith('3 latents for token:" Paris"') and "  1. latent 0  score 1.00" in text
    assert "best concept" in text and repr(found) == text
    page = found._repr_html_()
    assert "&lt;" not in found.query and "<table" in page and "‹ Paris›" in page
    plain = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert plain["results"][0]["latent"] == 0 and plain["n_found"] == 3 and plain["empty_reason"] == ""
    nothing = search(world.index, 'regex:"<b>"')
    assert "&lt;b&gt;" in nothing._repr_html_() and "<b>" not in nothing._repr_html_()
    assert str(nothing).startswith('Nothing for regex:"<b>": it stands nowhere')
    assert len(search(world.index, "density:>=0", k=2)) == 2
    assert "7 latents for density:>=0.0, the best 2 shown" in str(search(world.index, "density:>=0", k=2))


def test_a_concept_table_is_saved_and_belongs_to_its_index(world, many, tmp_path):
    path = save_concepts(world.table, world.index, tmp_path / "table.safetensors")
    again = load_concepts(world.index, path)
    assert again.concepts == world.table.concepts and [p.name for p in tmp_path.iterdir()] == ["table.safetensors"]
    for part in ("train", "test", "lookup"):
        for one, other in zip(getattr(again, part), getattr(world.table, part), strict=True):
            assert np.array_equal(one, other)
    with pytest.raises(InputError, match="belongs to another index"):
        load_concepts(many, path)
    with pytest.raises(InputError, match="no concept table at"):
        load_concepts(world.index, tmp_path / "none")
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError, match="damaged, or no concept table"):
        load_concepts(world.index, path)


def test_dense_activations_agree_with_the_index(many):
    """A token's F1 from the index is that of the dense activations, for every latent."""
    store, sae = random_world()
    dense = dense_of(store, sae) > 0
    train, test = (~store.is_bos & (store.test == held) for held in (False, True))
    found = search(many, by_token(" w3", least=0.0), k=100).table.set_index("latent")
    truth = (store.ids == 3) & ~store.is_bos
    for j in found.index:
        for part, column in ((train, "token_train_f1"), (test, "token_f1")):
            hits = int((dense[part, j] & truth[part]).sum())
            wanted = 2 * hits / max(1, int(dense[part, j].sum()) + int(truth[part].sum()))
            assert found.loc[j, column] == pytest.approx(wanted)


@given(total=st.integers(2, 3000), data=st.data())
@settings(max_examples=100, deadline=None)
def test_the_tail_is_scipys(total, data):
    marked, drawn = (data.draw(st.integers(1, total)) for _ in "ab")
    low, high = int(marked * drawn / total) + 1, min(marked, drawn)
    if low > high:
        return
    x = np.unique(np.linspace(low, high, 7).astype(int))
    found = examples.upper_tail(x, total, np.full(len(x), marked), drawn)
    assert found == pytest.approx(hypergeom.sf(x - 1, total, marked, drawn), rel=1e-6)
