"""Latents that several models have: permuted copies are found, strangers are not, and no maximum flatters itself."""

import itertools
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from hub_cache import tiny_model, tiny_sae, tiny_target

from solutions import analysis
from solutions.analysis import LabelledTokens, Reading
from solutions.data import tokenize
from solutions.errors import InputError

TEXTS = ["The Eiffel Tower is in Paris, where people speak French.\nYes! def add(x, y): return x",
         "naïve 🙂 café (12 old doors)", "one"]
DOCUMENT = torch.arange(2000) // 40
TEST = DOCUMENT % 2 == 0


def dice(seed):
    return torch.Generator().manual_seed(seed)


def fired(latents=30, tokens=2000, seed=0, often=0.05):
    """Activations that have nothing to do with those of another seed."""
    active = torch.rand(tokens, latents, generator=dice(seed)) < often
    return active * (0.2 + torch.rand(tokens, latents, generator=dice(seed + 100)))


# ---- tokens of different tokenizers


ORDER = ("words", "bpe", "letters")  # from coarse to fine


def reader(tokenizer, n_ctx=128):
    """As much of a model as a tokenizer's user looks at."""
    cfg = SimpleNamespace(n_ctx=n_ctx, device="cpu", model_name="stand-in")
    return SimpleNamespace(tokenizer=tokenizer, cfg=cfg, run_with_cache=None, hook_dict={})


def made(split):
    """A tokenizer whose tokens are the pieces of a split: single characters, or words."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({"<s>": 0, "?": 1, "one": 2}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(split), "removed" if split == r"\s+" else "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", pad_token="<s>")


@pytest.fixture(scope="module")
def readers():
    from solutions.smallworld.tokenizer import load_tokenizer

    return {"bpe": reader(load_tokenizer()), "letters": reader(made(r"[\s\S]")), "words": reader(made(r"\s+"))}


def places(model, texts=TEXTS):
    tokens = tokenize(model, texts)
    document = torch.arange(len(texts))[:, None].expand_as(tokens.content)[tokens.content]
    return document, analysis.token_ends(model, texts, tokens)


def stands_at(model, rows, texts=TEXTS):
    document, ends = places(model, texts)
    return [(int(document[row]), texts[int(document[row])][: int(ends[row])]) for row in rows]


def test_the_last_token_ends_where_the_text_ends(readers):
    for model in readers.values():
        document, ends = places(model)
        assert [int(ends[document == i].max()) for i in range(3)] == [len(text) for text in TEXTS]


def test_letters_words_and_pieces_meet_where_each_of_them_ends(readers):
    found = {name: places(model) for name, model in readers.items()}
    for first, second in itertools.permutations(readers, 2):
        rows = analysis.align_tokens(*zip(found[first], found[second], strict=True))
        read = [stands_at(readers[name], r) for name, r in zip((first, second), rows, strict=True)]
        assert read[0] == read[1] and len(read[0]) == len(set(read[0]))
        # Where the one has an end the other has: letters end everywhere, and no piece of a word goes beyond it.
        coarse = first if ORDER.index(first) < ORDER.index(second) else second
        whole = (found[coarse][1] >= 0).nonzero().flatten()
        assert read[0] == stands_at(readers[coarse], whole)


def test_by_their_numbers_tokens_do_not_meet(readers):
    pieces, letters = (stands_at(readers[name], range(20)) for name in ("bpe", "letters"))
    assert pieces != letters


def test_of_the_pieces_of_a_character_only_the_last_has_read_it(readers):
    document, ends = places(readers["bpe"], ["🙂 x"])
    assert ends.tolist() == [-1, -1, -1, 1, 3]  # the embedded tokenizer needs four pieces for it
    rows, letters = analysis.align_tokens(*zip((document, ends), places(readers["letters"], ["🙂 x"]), strict=True))
    assert rows.tolist() == [3, 4] and letters.tolist() == [0, 2]
    cut = reader(readers["bpe"].tokenizer, n_ctx=3)  # BOS and two of the four pieces: the character is never read
    assert places(cut, ["🙂 x"])[1].tolist() == [-1, -1]


def test_models_of_one_tokenizer_keep_every_token(readers):
    document, ends = places(readers["bpe"])
    for rows in analysis.align_tokens([document] * 3, [ends] * 3):
        assert torch.equal(rows, torch.arange(len(ends)))


def test_a_shorter_context_leaves_what_both_have_read(readers):
    short = reader(readers["bpe"].tokenizer, n_ctx=6)
    document, ends = places(short)
    assert int(torch.bincount(document).max()) == 5
    rows = analysis.align_tokens(*zip((document, ends), places(readers["bpe"]), strict=True))
    assert torch.equal(rows[0], (ends >= 0).nonzero().flatten()) and len(rows[0]) == len(ends) - 1
    assert stands_at(short, rows[0]) == stands_at(readers["bpe"], rows[1])


def test_tokens_that_cannot_be_placed_are_refused(readers):
    tokens = tokenize(readers["words"], TEXTS)
    slow = reader(SimpleNamespace(is_fast=False))
    for model, texts, message in ((slow, TEXTS, "fast tokenizers"), (readers["words"], TEXTS[:2], "tokens"),
                                  (readers["words"], ["one", "one", "one"], "of these texts")):
        with pytest.raises(InputError, match=message):
            analysis.token_ends(model, texts, tokens)
    with pytest.raises(InputError, match="same models, got 0 and 0"):
        analysis.align_tokens([], [])
    with pytest.raises(InputError):
        analysis.align_tokens([torch.zeros(3)], [torch.arange(2)])


# ---- partners


def finds_copies(best):
    a, order = fired(), torch.randperm(30, generator=dice(3))
    found = best(a, 7 * a[:, order], TEST)
    assert torch.equal(order[torch.tensor(found["partner"].to_numpy())], torch.tensor(found["latent"].to_numpy()))
    assert found["correlation"].min() > 0.999 and found["mutual"].all() and len(found) == 30


def finds_nothing_in_strangers(best):
    found = best(fired(), fired(300, seed=7), TEST)
    assert abs(found["correlation"].mean()) < 0.02 and found["correlation"].max() < 0.3


def takes_no_opposite_for_a_partner(best):
    a = fired(10, often=0.5)
    assert best(a, 2 - a, TEST)["correlation"].max() < 0.3


def is_not_drawn_to_what_is_always_active(best):
    a = fired(10)
    loud = 50 + torch.rand(2000, 1, generator=dice(9))
    assert 10 not in best(a, torch.cat([0.1 * a, loud], dim=1), TEST)["partner"].tolist()


CHECKS = (
    finds_copies, finds_nothing_in_strangers, takes_no_opposite_for_a_partner, is_not_drawn_to_what_is_always_active,
)


def correlated(a, b):
    return analysis.activation_correlation(a, b)


def table(found, at, correlation):
    mutual = found.argmax(0)[at] == torch.arange(len(at))
    return pd.DataFrame({"latent": range(len(at)), "partner": at, "correlation": correlation, "mutual": mutual})


def reports_the_maximum(a, b, test):
    found = correlated(a[~test], b[~test])
    return table(found, found.argmax(1), found.amax(1))


def chooses_on_all_tokens(a, b, test):
    found = correlated(a, b)
    return table(found, found.argmax(1), correlated(a[test], b[test]).gather(1, found.argmax(1)[:, None])[:, 0])


def takes_the_absolute_value(a, b, test):
    found = correlated(a[~test], b[~test]).abs()
    return table(found, found.argmax(1), correlated(a[test], b[test]).abs().gather(1, found.argmax(1)[:, None])[:, 0])


def multiplies(a, b, test):
    found = a[~test].T @ b[~test]
    return table(found, found.argmax(1), correlated(a[test], b[test]).gather(1, found.argmax(1)[:, None])[:, 0])


def takes_the_same_number(a, b, test):
    found = correlated(a[~test], b[~test])
    at = torch.arange(a.shape[1])
    return table(found, at, correlated(a[test], b[test])[at, at])


@pytest.mark.parametrize("check", CHECKS)
def test_partners(check):
    check(analysis.best_partners)


@pytest.mark.parametrize(
    "wrong",
    [reports_the_maximum, chooses_on_all_tokens, takes_the_absolute_value, multiplies, takes_the_same_number])
def test_a_wrong_way_to_look_for_partners_is_found_out(wrong):
    with pytest.raises(AssertionError):
        for check in CHECKS:
            check(wrong)


def test_what_chose_the_partner_is_told_apart_from_what_it_is_worth():
    found = analysis.best_partners(fired(), fired(300, seed=7), TEST)
    assert found["chosen_at"].mean() > 0.06 > 3 * abs(found["correlation"].mean())


def test_a_latent_that_is_hardly_ever_active_is_left_out():
    a = fired()
    a[:, 4] = 0
    a[:3, 4] = 1.0
    found = analysis.best_partners(a, a, TEST)
    assert 4 not in [*found["latent"], *found["partner"]] and len(found) == 29
    with pytest.raises(InputError, match="b: no latent is active on 10 tokens"):
        analysis.best_partners(a, 0 * a, TEST)
    with pytest.raises(InputError, match="each side"):
        analysis.best_partners(a, a, TEST | True)
    with pytest.raises(InputError):
        analysis.best_partners(a, a[:-1], TEST)


def test_columns_are_correlated_one_by_one():
    a, b = fired(4, 100), fired(4, 100, seed=5)
    expected = torch.corrcoef(torch.cat([a, b], dim=1).T)[:4, 4:].diagonal()
    assert torch.allclose(analysis.pairwise_correlation(a, b), expected, atol=1e-5)
    with pytest.raises(InputError, match="one shape"):
        analysis.pairwise_correlation(a, b[:, :2])


# ---- a table of tokens


IDS = torch.randint(0, 20, (2000,), generator=dice(1))


def reading(latents, labels=None):
    labels = torch.stack([IDS < 3, IDS > 15], dim=1) if labels is None else labels
    text = LabelledTokens(IDS, DOCUMENT, labels, ("few", "many"), TEST)
    return Reading(text, torch.arange(2000), torch.zeros(2000, 2), latents)


def test_a_table_of_tokens_is_a_good_partner_of_a_word_and_a_bad_one_of_a_context():
    word, previous = (IDS == 5) * 2.0, (IDS.roll(1) == 5) * 2.0
    both = torch.stack([word, previous], dim=1)
    found = analysis.token_correlation(both, reading(both).text)
    assert found[0] > 0.999 and abs(found[1]) < 0.1


def test_the_table_is_made_of_other_documents_than_it_is_tried_on():
    ids = torch.arange(2000)  # each token occurs once: a table knows nothing of the others
    text = reading(fired())[0]._replace(ids=ids)
    assert analysis.token_correlation(fired(), text).abs().max() < 1e-5


# ---- tables of models


def family():
    """Three models: 0–9 shared by all (of them 0–2 words), 10–19 by two, the rest each model's own; all shuffled."""
    words = torch.stack([(IDS == i) * 1.5 for i in range(3)], dim=1)
    shared, half = torch.cat([words, fired(7, seed=1)], dim=1), fired(10, seed=2)
    kept = {"home": torch.cat([shared, half, fired(10, seed=3)], dim=1),
            "near": torch.cat([shared, half, fired(8, seed=4)], dim=1)[:, torch.randperm(28, generator=dice(1))],
            "far": torch.cat([3 * shared, fired(25, seed=5)], dim=1)[:, torch.randperm(35, generator=dice(2))]}
    return {name: reading(latents) for name, latents in kept.items()}


def test_universal_is_what_has_a_partner_in_every_model():
    found = analysis.universal_latents(family(), "home").set_index("latent")
    assert len(found) == 30
    assert found.index[found["universal"]].tolist() == list(range(10))
    assert found["near"][:20].min() > 0.99 and found["far"][10:].max() < 0.2
    assert (found["weakest"] == found[["near", "far"]].min(axis=1)).all()
    assert found.index[found["kind"] == "token"].tolist() == [0, 1, 2]
    assert found.loc[0, "concept"] == "few" and 0.3 < found.loc[0, "f1"] < 0.7


def test_a_model_shares_with_others_what_was_put_in_and_by_chance_nothing():
    found = analysis.partners_between(family(), [("home", "near"), ("home", "far"), ("far", "home")])
    assert found["partners"].tolist() == pytest.approx([20 / 30, 10 / 30, 10 / 35])
    assert found["partners_by_chance"].max() == 0 and found["correlation_by_chance"].abs().max() < 0.05
    assert (found["flattered"] > found["correlation"]).all() and found["n"].tolist() == [30, 30, 35]


def test_chance_is_what_any_text_would_give():
    rhythm = fired(12, tokens=40, often=0.3).repeat(50, 1)  # every document alike: other documents are no other tokens
    same = {"a": reading(rhythm), "b": reading(rhythm)}
    assert analysis.partners_between(same, [("a", "b")])["partners_by_chance"][0] == 1


def test_tables_of_models_that_are_not_there_are_refused():
    models = family()
    with pytest.raises(InputError, match="hom"):
        analysis.universal_latents(models, "hom")
    with pytest.raises(InputError, match="at least one other"):
        analysis.universal_latents({"home": models["home"]}, "home")
    with pytest.raises(InputError, match="nera"):
        analysis.partners_between(models, [("home", "nera")])
    shorter = models | {"far": models["far"].at(torch.arange(1900))}
    with pytest.raises(InputError, match="1900"):
        analysis.universal_latents(shorter, "home")
    with pytest.raises(InputError, match="1900"):
        analysis.partners_between(shorter, [("home", "far")])


# ---- from models


@pytest.fixture(scope="module")
def both(model, sae, target):
    """A model and another with another tokenizer and a shorter context."""
    return {"embedded": analysis.read_target(model, sae, target.hook, 12),
            "tiny": analysis.read_target(tiny_model(), tiny_sae(), tiny_target().hook, 12)}


def test_a_reading_holds_a_row_for_each_token(both, target):
    for name, (d_in, d_sae) in {"embedded": (target.d_in, target.d_sae), "tiny": (16, 32)}.items():
        found = both[name]
        n = len(found.text.ids)
        assert found.acts.shape == (n, d_in) and found.latents.shape == (n, d_sae) and found.ends.shape == (n,)
        assert (found.latents > 0).any() and len(found.text.document.unique()) == 12
    assert both["tiny"].characters < both["embedded"].characters  # its context is shorter
    with_ends = both["embedded"]._replace(ends=torch.ones_like(both["embedded"].ends))
    assert with_ends.characters == 12 and with_ends.at(torch.arange(3)).characters == 1
    assert len(both["embedded"].text.ids) != len(both["tiny"].text.ids)


def test_readings_of_two_tokenizers_meet_at_the_same_words(both):
    a, b = analysis.align_readings(both).values()
    assert 0 < len(a.ends) < min(len(reading.ends) for reading in both.values())
    assert torch.equal(a.ends, b.ends) and torch.equal(a.text.document, b.text.document)
    assert torch.equal(a.text.test, b.text.test) and a.text.test.any() and not a.text.test.all()
    # What has been read is the same, and so are the concepts. But which token begins a word is the tokenizer's affair.
    same = [i for i, concept in enumerate(a.text.concepts) if concept != "sent_start"]
    assert torch.equal(a.text.labels[:, same], b.text.labels[:, same])


def test_readings_of_other_texts_have_nothing_in_common(both):
    elsewhere = both["tiny"]._replace(text=both["tiny"].text._replace(document=both["tiny"].text.document + 50))
    with pytest.raises(InputError, match="embedded, tiny have no place in common"):
        analysis.align_readings({"embedded": both["embedded"], "tiny": elsewhere})


def test_a_reading_of_what_is_no_model_is_refused(sae, target):
    with pytest.raises(InputError, match="load_model"):
        analysis.read_target("smallworld", sae, target.hook, 4)
