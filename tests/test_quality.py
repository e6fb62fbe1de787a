"""The quality table measures what it says: against oracles, by hand, and with phrasings that really are unseen."""

import math
import re
from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from solutions.smallworld import activations, probes, quality, train_saes
from solutions.smallworld.corpus import SEEDS, documents
from solutions.smallworld.ngrams import KneserNey
from solutions.smallworld.tokenizer import load_tokenizer, train_tokenizer

SETS = probes.probe_sets()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer((document.text for document in documents(SEEDS["train"], 4_000)), folder)
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def model(tokenizer):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=128, n_embd=16, n_layer=2, n_head=2)
    return GPT2LMHeadModel(config).eval()


@pytest.fixture(scope="module")
def rows(tokenizer):
    return activations.to_rows(quality.texts("test", 60), tokenizer, 64)


# ------------------------------------------------------------------ probes

@pytest.fixture(scope="module")
def text():
    return "\n\n".join(document.text for split in ("train", "test") for document in
                       documents(SEEDS[split], 12_000, mix="school"))


def occurs(phrasing, text):
    """Whether a phrasing, with anything in its slots, stands in the text; its first letter may be small or capital."""
    first, *others = re.split(r"\{\w+\}", phrasing)
    if first:
        first = f"[{first[0].lower()}{first[0].upper()}]" + re.escape(first[1:])
    return re.search(r"[^.?!\n]{1,40}?".join([first, *map(re.escape, others)]), text) is not None


@pytest.mark.parametrize(
    "phrasing", [p for table in (probes.UNSEEN, probes.FAR) for group in table.values() for p in group])
def test_unseen_phrasings_do_not_occur_in_the_corpus(phrasing, text):
    assert not occurs(phrasing, text)


@pytest.mark.parametrize("phrasing", [p for group in probes.SEEN.values() for p in group])
def test_seen_phrasings_do_occur_in_the_corpus(phrasing, text):
    """Clause by clause: scenes of giving are put together from parts, and a given whole is rare."""
    for clause in phrasing.split(", "):
        assert occurs(clause, text)


@pytest.mark.parametrize("name", SETS)
def test_every_probe_has_a_right_answer_and_foils_that_are_wrong(name):
    for probe in SETS[name]:
        assert probe.answers and probe.foils and not set(probe.answers) & set(probe.foils), probe
        assert not probe.prompt.endswith(" ") and "{" not in probe.prompt


def test_facts_are_asked_about_everything_in_the_tables():
    assert {p.answers[0] for p in SETS["capital.seen"]} == {f" {c.capital}" for c in probes.COUNTRIES.values()}
    assert len(SETS["landmark_country.seen"]) == len(probes.LANDMARKS)
    assert "The Eiffel Tower is in" in [p.prompt for p in SETS["landmark_city.seen"] if p.answers == (" Paris",)]


def test_the_receiver_is_named_first_as_often_as_second():
    first = [p.prompt.index(p.answers[0].strip()) < p.prompt.index(p.foils[0].strip())
             for p in SETS["indirect_object.seen"]]
    assert sum(first) == len(first) / 2


def test_the_same_seed_draws_the_same_probes():
    assert probes.probe_sets(3) == probes.probe_sets(3) != probes.probe_sets(4)


class Oracle:
    """A model that knows the answers: for each prompt the logit of one given token is raised."""

    training, device = False, torch.device("cpu")

    def __init__(self, tokenizer, answers, rank=0):
        self.vocab, self.rank = len(tokenizer), rank
        self.raised = {tuple(encode(tokenizer, prompt)): encode(tokenizer, word)[0] for prompt, word in answers.items()}

    def eval(self):
        return self

    def train(self, mode):
        return self

    def __call__(self, ids, use_cache):
        logits = torch.zeros(*ids.shape, self.vocab)
        for i, row in enumerate(ids.tolist()):
            for prompt, token in self.raised.items():
                if row[1:len(prompt) + 1] == list(prompt) and not any(row[len(prompt) + 1:]):
                    logits[i, len(prompt), token] = 2.0
                    logits[i, len(prompt), : self.rank] = 3.0
        return SimpleNamespace(logits=logits)


def encode(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False)


def test_an_oracle_scores_everything_and_its_opposite_nothing(tokenizer):
    asked = SETS["capital.seen"]
    right = Oracle(tokenizer, {p.prompt: p.answers[0] for p in asked})
    wrong = Oracle(tokenizer, {p.prompt: p.foils[0] for p in asked})
    assert probes.score(right, tokenizer, asked) == (1.0, 1.0)
    assert probes.score(wrong, tokenizer, asked) == (0.0, 0.0)


def test_ahead_is_less_than_top1(tokenizer):
    """When something else altogether comes first, the right answer can still be ahead of its foils."""
    asked = SETS["agreement.unseen"][:10]
    model = Oracle(tokenizer, {p.prompt: p.answers[0] for p in asked}, rank=3)
    assert probes.score(model, tokenizer, asked) == (0.0, 1.0)


def test_brackets_count_by_first_character(tokenizer):
    asked = [probes.Probe("print(total", (")",), ("]",))]
    model = Oracle(tokenizer, {"print(total": "):"})
    assert probes.score(model, tokenizer, asked, by_first_character=True) == (1.0, 1.0)


def test_nothing_to_ask_is_an_error(tokenizer):
    with pytest.raises(ValueError, match="at least one probe"):
        probes.score(None, tokenizer, [])


def test_probe_table_has_all_sets_and_leaves_the_model_in_its_mode(model, tokenizer):
    model.train()
    table = quality.probe_table(model, tokenizer, limit=3)
    assert table.keys() == SETS.keys() and all(0 <= share <= 1 for share in table.values())
    assert model.training
    model.eval()


# ------------------------------------------------------------------ count models

DOCUMENTS = [[1, 2, 3, 1, 2], [1, 2, 4], [3, 1, 2, 3], [2, 2], [4]]


def by_hand(documents, order, context, token, vocab):
    """Interpolated Kneser-Ney with dictionaries, straight from the definition."""
    def grams(n):
        padded = [[0] * (order - 1) + d for d in documents]
        return [tuple(d[i - n + 1:i + 1]) for d in padded for i in range(order - 1, len(d))]

    def probability(n, gram):
        if n == 0:
            return 1 / vocab
        counts = Counter(grams(n)) if n == order else Counter(g[1:] for g in set(grams_above(n)))
        ones, twos = (sum(c == k for c in counts.values()) for k in (1, 2))
        discount = ones / (ones + 2 * twos) if ones else 0.5
        after = {g: c for g, c in counts.items() if g[:-1] == gram[:-1]}
        below = probability(n - 1, gram[1:])
        if not after:
            return below
        total = sum(after.values())
        return max(after.get(gram, 0) - discount, 0) / total + discount * len(after) / total * below

    def grams_above(n):
        if n + 1 == order:
            return grams(order)
        return {g[1:] for g in set(grams_above(n + 1))}

    history = ([0] * (order - 1) + context)[len(context):]
    return probability(order, (*history, token))


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_count_models_agree_with_the_definition(order):
    model = KneserNey(DOCUMENTS, order, vocab=5)
    for context in ([], [1], [1, 2], [3, 1, 2], [4, 4, 4]):
        for token in range(5):
            expected = by_hand(DOCUMENTS, order, context, token, 5)
            assert model.probabilities([[*context, token]])[-1] == pytest.approx(expected), (context, token)


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_probabilities_sum_to_one(order):
    model = KneserNey(DOCUMENTS, order, vocab=5)
    for context in ([], [1, 2], [4, 3, 2, 1, 1, 1]):
        assert sum(model.probabilities([[*context, token]])[-1] for token in range(5)) == pytest.approx(1)


def test_context_stops_at_the_start_of_the_document():
    model = KneserNey(DOCUMENTS, 3, vocab=5)
    assert list(model.probabilities([[1, 2], [1, 2]])) == 2 * list(model.probabilities([[1, 2]]))


def test_longer_contexts_help_on_the_embedded_text(tokenizer):
    ids = [encode(tokenizer, text) for text in quality.texts("train", 3_000)]
    losses = quality.ngram_losses(ids, [encode(tokenizer, t) for t in quality.texts("test", 200)], len(tokenizer), 0)
    assert losses["unigram"] > losses["bigram"] > losses["trigram"] > losses["5-gram"] > 0


@pytest.mark.parametrize("settings", [{"order": 6}, {"order": 0}, {"order": 2, "vocab": 5000}])
def test_what_does_not_fit_in_64_bits_is_refused(settings):
    with pytest.raises(ValueError, match="order must be 1 to 5 and vocab at most 4096"):
        KneserNey(DOCUMENTS, **settings)


# ------------------------------------------------------------------ models and SAEs

def test_model_loss_is_the_mean_over_real_tokens(model, tokenizer):
    texts = ["The Eiffel Tower is in Paris.", "Mary gave a book to John.", "def add(x, y):\n    return x + y"]
    total, count = 0.0, 0
    for text in texts:
        ids = [tokenizer.bos_token_id, *encode(tokenizer, text)]
        with torch.no_grad():
            log_p = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        total -= sum(log_p[i, ids[i + 1]].item() for i in range(len(ids) - 1))
        count += len(ids) - 1
    rows = activations.to_rows(texts, tokenizer, 128)
    assert quality.model_loss(model, rows) == pytest.approx(total / count, rel=1e-4)


def test_rows_are_cut_off_and_padded_after_one_bos(tokenizer):
    rows = activations.to_rows(["Paris", "", "one two three four five six"], tokenizer, 4)
    assert rows.ids.shape == (2, 4) and (rows.ids[:, 0] == tokenizer.bos_token_id).all()
    assert not rows.real[:, 0].any() and rows.real[1].sum() == 3
    with pytest.raises(ValueError, match="not empty"):
        activations.to_rows(["", ""], tokenizer, 4)


def exact_sae(d):
    """Latents for both directions of every axis: nothing is lost."""
    sae = train_saes.SparseAutoencoder(d, 2 * d, "relu")
    both = torch.cat([torch.eye(d), -torch.eye(d)])
    sae.W_enc.data, sae.W_dec.data = both.T.clone(), both.clone()
    return sae.requires_grad_(False)


def test_an_sae_that_loses_nothing_scores_one_and_changes_nothing(model, tokenizer, rows):
    measured = quality.evaluate_sae(model, tokenizer, exact_sae(16), "blocks.1.hook_resid_pre", rows)
    assert measured["explained_variance"] == pytest.approx(1, abs=1e-5)
    assert measured["delta_loss"] == pytest.approx(0, abs=1e-4)
    assert measured["l0"] == pytest.approx(16, abs=0.1) and measured["n_tokens"] == rows.real.sum()


def test_an_sae_that_predicts_the_mean_scores_zero_and_is_all_dead(model, tokenizer, rows):
    hook = "blocks.1.hook_resid_pre"
    sae = exact_sae(16)
    sae.W_enc.zero_()
    sae.b_dec.copy_(activations.harvest(model, rows, [hook])[hook].float().mean(0))
    measured = quality.evaluate_sae(model, tokenizer, sae, hook, rows)
    assert measured["explained_variance"] == pytest.approx(0, abs=1e-4)
    assert measured["dead"] == 1.0 and measured["l0"] == 0.0
    assert abs(measured["delta_loss"]) > 1e-3


def test_the_splice_leaves_bos_alone():
    x = torch.randn(2, 5, 3)
    edited = quality.after_bos(torch.zeros_like)(x)
    assert torch.equal(edited[:, 0], x[:, 0]) and not edited[:, 1:].any()


def test_evaluate_fills_the_whole_table(model, tokenizer, tmp_path):
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    recipe = train_saes.Recipe("blocks.1.hook_resid_pre", "relu", 2)
    train_saes.save(exact_sae(16), tmp_path / "saes" / recipe.sae_id, recipe, "tiny", 128, "none")
    table = quality.evaluate(tmp_path / "model", tmp_path / "saes", n_test=30, n_ngram=300)
    assert table["loss"].keys() == {"model", "unigram", "bigram", "trigram", "5-gram"}
    assert table["loss"]["model"] == pytest.approx(math.log(len(tokenizer)), rel=0.1)  # untrained: uniform
    assert table["probes"].keys() == SETS.keys() and table["saes"].keys() == {recipe.sae_id}
    assert table["n_parameters"] == sum(p.numel() for p in model.parameters())
