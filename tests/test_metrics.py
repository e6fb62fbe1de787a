"""How good an SAE is: known answers on plain tensors, by-hand answers on a model, agreement with other people's."""

import copy
import math

import pytest
import torch
from hub_cache import make_sae, tiny_model, tiny_sae

from solutions.data import Tokens, load_texts, tokenize
from solutions.errors import InputError
from solutions.models import extract, loss, next_token_loss
from solutions.sae import (
    Running,
    cosine,
    dead_latents,
    decode,
    dense_latents,
    density,
    density_histogram,
    encode,
    evaluate_sae,
    explained_variance,
    facts_kept,
    fvu,
    l0,
    l1,
    load_sae_from_disk,
    mse,
    reconstruct,
    reconstruction_error,
    run_spliced,
    splice_loss,
    variance,
)
from solutions.sae import evaluate as evaluation

HOOK = "blocks.1.hook_resid_pre"
SENTENCES = ["The Eiffel Tower is in Paris.", "Hi", "def add(x, y):", "one two three four five six"]

# ---- plain tensors


def test_squared_error_is_summed_over_a_vector_and_averaged_over_tokens():
    x = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    assert mse(x, torch.tensor([[3.0, 4.0], [0.0, 1.0]])) == (25 + 1) / 2
    assert mse(x, x) == 0
    assert mse(torch.zeros(2, 3, 4), torch.ones(2, 3, 4)) == 4


def test_variance_is_measured_around_the_mean():
    square = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]])
    assert variance(square) == variance(square + 1000) == 2
    assert variance(square.reshape(2, 2, 2)) == 2


def test_unexplained_and_explained_add_up_to_one():
    torch.manual_seed(0)
    x = torch.randn(50, 7) + 30
    x_hat = x + torch.randn(50, 7) * 0.3
    assert fvu(x, x_hat) == pytest.approx(mse(x, x_hat) / variance(x))
    assert explained_variance(x, x_hat) == 1 - fvu(x, x_hat)
    assert fvu(x, x) == 0 and fvu(x, x.mean(0).expand(50, 7)) == 1.0  # exactly


@pytest.mark.parametrize("n", [2, 3, 9, 100])
def test_the_same_token_again_and_again_has_no_variance(n):
    """Also where the mean of equal numbers is off by a rounding, so that they seem to lie around it."""
    row = torch.randn(1, 50, generator=torch.Generator().manual_seed(0)) + 30
    x = row.repeat(n, 1)
    with pytest.raises(InputError, match="every row of x is the same"):
        explained_variance(x, x + 1)
    running = Running()
    for part in x.split(2):
        running.add(part, part + 1, part)
    with pytest.raises(InputError, match="every row of x is the same"):
        running.means()
    running.add(row + 1, row + 1, row)
    assert running.means()["fvu"] > 0, "a row that differs ends it"


def test_cosine_sees_directions_only():
    x = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert cosine(x, 0.1 * x) == pytest.approx(1)
    assert cosine(x, -x) == pytest.approx(-1)
    assert cosine(x, torch.tensor([[1.0, 1.0], [5.0, 0.0]])) == pytest.approx((1 / math.sqrt(2) + 0) / 2)
    assert cosine(x, torch.zeros_like(x)) == 0


def test_l1_sums_sizes():
    features = torch.tensor([[0.0, 2.0, 0.0], [1.0, -1.0, 0.5]])
    assert l1(features).tolist() == [2.0, 2.5] and l0(features).tolist() == [1, 3]


FEATURES = torch.tensor(
    # fires on:  all, 1 of 4, none, 2 of 4 (once negative)
    [[1.0, 0.0, 0.0, 0.0], [2.0, 0.0, 0.0, -0.5], [0.1, 0.0, 0.0, 0.0], [3.0, 9.0, 0.0, 4.0]]
)


def test_density_counts_tokens_not_strength():
    assert density(FEATURES).tolist() == [1.0, 0.25, 0.0, 0.5]
    assert torch.equal(density(FEATURES.reshape(2, 2, 4)), density(FEATURES))


def test_dead_and_dense_latents_by_activations_or_by_density():
    for given in (FEATURES, density(FEATURES)):
        assert dead_latents(given).tolist() == [2]
        assert dense_latents(given).tolist() == [0, 1, 3]
        assert dense_latents(given, above=0.25).tolist() == [0, 3]  # above, not from
    assert dense_latents(torch.tensor([0.1, 0.2], dtype=torch.float64)).tolist() == [1]


def test_the_density_histogram_bins_by_hand():
    shares = torch.tensor([0.0, 0.0, 0.001, 0.002, 0.01, 0.05, 0.1, 0.999, 1.0], dtype=torch.float64)
    counts, edges, n_dead = density_histogram(shares, bins_per_decade=1)
    assert edges.tolist() == [-3.0, -2.0, -1.0, 0.0]
    assert counts.tolist() == [2, 2, 3] and n_dead == 2  # a lower end belongs to its bin; 1.0 to the last one
    halves = density_histogram(torch.tensor([0.5, 0.3, 0.1]), bins_per_decade=2)
    assert halves.edges.tolist() == [-1.0, -0.5, 0.0] and halves.counts.tolist() == [2, 1]  # 10^-0.5 is 0.316


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_powers_of_ten_fall_into_their_own_bin_in_any_precision(dtype):
    shares = torch.tensor([10.0**-k for k in range(6)], dtype=dtype)
    counts, edges, _ = density_histogram(shares, bins_per_decade=1)
    assert counts.tolist() == [1, 1, 1, 1, 2] and edges[0] == -5


def test_no_latent_is_lost_in_the_histogram():
    shares = torch.rand(500, generator=torch.Generator().manual_seed(0)).pow(6)
    shares[::50] = 0
    counts, edges, n_dead = density_histogram(shares)
    assert int(counts.sum()) + n_dead == 500 and n_dead == 10 and len(edges) == len(counts) + 1
    logs = shares[shares > 0].log10()
    by_hand = [int(((logs >= low) & (logs < high)).sum()) for low, high in zip(edges[:-1], edges[1:], strict=True)]
    assert counts.tolist() == by_hand
    everyone_dead = density_histogram(torch.zeros(3))
    assert everyone_dead.n_dead == 3 and int(everyone_dead.counts.sum()) == 0


@pytest.mark.parametrize("measure", [dead_latents, dense_latents, density_histogram])
def test_a_single_row_of_activations_is_no_density(measure):
    with pytest.raises(InputError, match=r"must be a density.*\[n, d_sae\]"):
        measure(torch.tensor([0.0, 3.0, 0.2]))
    with pytest.raises(InputError, match="must be a density"):
        measure(torch.tensor([0.0, float("nan")]))


def test_bad_tensors_are_refused():
    with pytest.raises(InputError, match="same shape"):
        mse(torch.ones(3, 2), torch.ones(3, 1))  # would broadcast silently
    with pytest.raises(InputError, match="same shape"):
        cosine(torch.ones(3, 2), torch.ones(2))
    with pytest.raises(InputError, match="floating point"):
        l1(torch.ones(3, 2, dtype=torch.long))
    with pytest.raises(InputError, match=r"\[n, d_sae\]"):
        density(torch.ones(4))
    with pytest.raises(InputError, match="above must be"):
        dense_latents(FEATURES, above=10)


@pytest.mark.parametrize("sizes", [[200], [1, 199], [64, 64, 64, 8], [1] * 200])
def test_a_stream_measures_what_the_whole_measures(sizes):
    torch.manual_seed(1)
    x = torch.randn(200, 6) * torch.linspace(0.1, 3, 200)[:, None] + 50  # batches differ, and lie far from 0
    x_hat = x + torch.randn(200, 6) * 0.2
    features = torch.randn(200, 9)
    features[features.abs() < 1] = 0  # some of the rest are negative, as in signed SAEs
    running = Running()
    for parts in zip(x.split(sizes), x_hat.split(sizes), features.split(sizes), strict=True):
        running.add(*parts)
    means = running.means()
    assert means["explained_variance"] == pytest.approx(explained_variance(x, x_hat), rel=1e-6)
    assert means["fvu"] == pytest.approx(fvu(x, x_hat), rel=1e-6)
    assert means["mse"] == pytest.approx(mse(x, x_hat)) and means["cosine"] == pytest.approx(cosine(x, x_hat))
    assert means["l0"] == pytest.approx(l0(features).double().mean().item())
    assert means["l1"] == pytest.approx(l1(features).mean().item())
    assert torch.allclose(running.density(), density(features))
    torch.testing.assert_close(running.mean.float(), x.mean(dim=0))


def test_a_stream_too_short_or_crooked_is_refused():
    running = Running()
    with pytest.raises(InputError, match="two tokens, and 0"):
        running.means()
    with pytest.raises(InputError, match=r"\[3, d_sae\]"):
        running.add(torch.ones(3, 2), torch.ones(3, 2), torch.ones(2, 5))


# ---- a tiny model, by hand


def tokens():
    return tokenize(tiny_model(), SENTENCES)


def own_words():
    """Rows the model wrote itself, likeliest token first: there it is good, and any ablation hurts it."""
    ids = torch.stack([torch.zeros(20, dtype=torch.long), torch.arange(40, 240, 10)], dim=1)
    with torch.no_grad():
        for _ in range(10):
            ids = torch.cat([ids, tiny_model()(ids)[:, -1:].argmax(-1)], dim=1)
    bos = torch.zeros_like(ids, dtype=torch.bool)
    bos[:, 0] = True
    return Tokens(ids, torch.ones_like(bos), bos)


def content():
    """Activations of the real tokens [n, 16], one text at a time: nothing padded."""
    return torch.cat([extract(tiny_model(), text, HOOK)[HOOK][0, 1:] for text in SENTENCES])


def changed_sae(bias):
    """An SAE that gives back `bias` [16] whatever it is shown."""
    sae = copy.deepcopy(tiny_sae())
    with torch.no_grad():
        sae.W_dec.zero_()
        sae.b_dec.copy_(bias)
    return sae


@pytest.fixture(scope="module")
def perfect(tmp_path_factory):
    """An SAE whose latents are the axes and their opposites, all allowed to fire: it loses nothing."""
    return load_sae_from_disk(make_sae(tmp_path_factory.mktemp("sae"), HOOK, k=16), "cpu")


def by_hand(replace, keep_bos=True):
    """(loss, KL from the clean model), summed text by text, with activations replaced by `replace` of them."""
    model, losses, divergences = tiny_model(), [], []
    first = 1 if keep_bos else 0

    def edit(acts, hook):
        return torch.cat([acts[:, :first], replace(acts[:, first:])], dim=1)

    with torch.no_grad():
        for text in SENTENCES:
            row = tokenize(model, text)
            clean = model(row.ids).log_softmax(-1)
            logits = model.run_with_hooks(row.ids, fwd_hooks=[(HOOK, edit)])
            losses.append(next_token_loss(logits, row))
            log_q = logits.log_softmax(-1)
            divergences.append((clean.exp() * (clean - log_q)).sum(-1)[0, :-1])
    return torch.cat(losses).mean().item(), torch.cat(divergences).mean().item()


def test_the_error_is_what_the_reconstruction_lacks():
    x = content()
    error = reconstruction_error(tiny_sae(), x)
    torch.testing.assert_close(error, x - decode(tiny_sae(), encode(tiny_sae(), x)))
    torch.testing.assert_close(error + reconstruct(tiny_sae(), x), x)
    assert error.norm() > 0.01 * x.norm()  # this SAE does leave something out


def test_the_splice_is_what_one_does_by_hand():
    sae, mean = tiny_sae(), content().mean(dim=0)
    found = splice_loss(tiny_model(), sae, tokens(), HOOK, batch_size=3)
    for how, replace in {
        "spliced": lambda x: sae.decode(sae.encode(x)),
        "zero": torch.zeros_like,
        "mean": lambda x: mean.expand_as(x),
    }.items():
        ce, kl = by_hand(replace)
        assert getattr(found, f"ce_{how}") == pytest.approx(ce, rel=1e-5)
        assert getattr(found, "kl" if how == "spliced" else f"kl_{how}") == pytest.approx(kl, rel=1e-4)
    assert found.ce_clean == pytest.approx(loss(tiny_model(), tokens()), rel=1e-5)
    assert found.delta_ce == pytest.approx(found.ce_spliced - found.ce_clean)
    assert found.n_predictions == tokens().n_content


def test_bos_is_replaced_only_on_request():
    found = splice_loss(tiny_model(), tiny_sae(), tokens(), HOOK, ablate_bos=True)
    spared = splice_loss(tiny_model(), tiny_sae(), tokens(), HOOK)
    ce, _ = by_hand(torch.zeros_like, keep_bos=False)
    assert found.ce_zero == pytest.approx(ce, rel=1e-5) and abs(found.ce_zero - spared.ce_zero) > 1e-3
    assert found.ce_spliced == pytest.approx(spared.ce_spliced, rel=1e-6)  # the splice spares it all the same


def test_a_perfect_sae_costs_nothing(perfect):
    found = splice_loss(tiny_model(), perfect, own_words(), HOOK)
    assert found.delta_ce == pytest.approx(0, abs=1e-5) and found.kl == pytest.approx(0, abs=1e-5)
    assert found.recovered_zero == pytest.approx(1, abs=1e-4)
    assert found.recovered_mean == pytest.approx(1, abs=1e-4)


def test_an_sae_that_gives_zeros_or_the_mean_recovers_nothing_of_it():
    model, mean = tiny_model(), content().mean(dim=0)
    zeros = splice_loss(model, changed_sae(torch.zeros(16)), own_words(), HOOK)
    assert zeros.recovered_zero == pytest.approx(0, abs=1e-5) and abs(zeros.recovered_mean) > 1e-3
    assert zeros.ce_spliced == pytest.approx(zeros.ce_zero, rel=1e-6)
    assert zeros.kl == pytest.approx(zeros.kl_zero, rel=1e-5)
    recovered = splice_loss(model, changed_sae(mean), own_words(), HOOK, mean=mean)
    assert recovered.recovered_mean == pytest.approx(0, abs=1e-5) and abs(recovered.recovered_zero) > 1e-3
    always_mean = evaluate_sae(model, changed_sae(mean), tokens(), HOOK)
    assert always_mean.explained_variance == pytest.approx(0, abs=1e-6)
    assert always_mean.splice.ce_spliced == pytest.approx(always_mean.splice.ce_mean, rel=1e-6)
    torch.testing.assert_close(always_mean.mean, mean)


def test_recovered_shares_are_plain_arithmetic():
    assert evaluation._recovered(1.0, 1.5, 3.0) == 0.75
    assert evaluation._recovered(1.0, 3.5, 3.0) == -0.25
    assert math.isnan(evaluation._recovered(1.0, 1.1, 1.0))  # an ablation that does not hurt is no yardstick


def test_the_prediction_at_bos_changes_no_share():
    model, sae = tiny_model(), tiny_sae()
    with_first, without = (splice_loss(model, sae, own_words(), HOOK, predict_first=p) for p in (True, False))
    assert without.n_predictions == with_first.n_predictions - len(own_words())
    assert with_first.recovered_zero == pytest.approx(without.recovered_zero, rel=1e-4)
    assert with_first.recovered_mean == pytest.approx(without.recovered_mean, rel=1e-4)
    for name in ("delta_ce", "kl"):  # the sums are equal: at BOS nothing moves
        sums = [getattr(s, name) * s.n_predictions for s in (with_first, without)]
        assert sums[0] == pytest.approx(sums[1], rel=1e-4)


def test_everything_at_once_is_what_the_parts_say():
    model, sae, x = tiny_model(), tiny_sae(), content()
    found = evaluate_sae(model, sae, tokens(), HOOK, batch_size=3)
    features = encode(sae, x)
    x_hat = decode(sae, features)
    assert found.n_tokens == len(x) == tokens().n_content
    assert found.l0 == l0(features).double().mean() == 8 and found.l1 == pytest.approx(l1(features).mean().item())
    for name, measure in {"mse": mse, "fvu": fvu, "explained_variance": explained_variance, "cosine": cosine}.items():
        assert getattr(found, name) == pytest.approx(measure(x, x_hat), rel=1e-4), name
    assert torch.allclose(found.density, density(features))
    assert found.dead == len(dead_latents(features)) / 32 and found.dense == len(dense_latents(features)) / 32
    alone = splice_loss(model, sae, tokens(), HOOK)
    assert list(found.splice) == pytest.approx(list(alone), rel=1e-5, nan_ok=True)


def test_batch_sizes_and_pieces_change_nothing(monkeypatch):
    whole = evaluate_sae(tiny_model(), tiny_sae(), tokens(), HOOK)
    monkeypatch.setattr(evaluation, "ENCODED_AT_ONCE", 3)
    monkeypatch.setattr(evaluation, "PREDICTED_AT_ONCE", 2)
    for size in (1, 3):
        pieces = evaluate_sae(tiny_model(), tiny_sae(), tokens(), HOOK, batch_size=size)
        assert pieces.row() == pytest.approx(whole.row(), rel=1e-4, nan_ok=True)


def test_never_more_is_encoded_at_once_than_promised(monkeypatch):
    monkeypatch.setattr(evaluation, "ENCODED_AT_ONCE", 5)
    sae, seen = copy.deepcopy(tiny_sae()), []
    inner = sae.encode
    monkeypatch.setattr(sae, "encode", lambda x: (seen.append(len(x)), inner(x))[1])
    evaluate_sae(tiny_model(), sae, tokens(), HOOK)
    assert max(seen) == 5 and sum(seen) == 2 * tokens().n_content  # once to measure, once to splice


def test_the_table_names_every_number():
    found = evaluate_sae(tiny_model(), tiny_sae(), own_words(), HOOK)
    table = found.table()
    assert set(table.index) == set(evaluation.MEANINGS) and table["value"].notna().all()
    numbers = {name for name in (*found._fields, *found.splice._fields) if name not in ("density", "mean", "splice")}
    assert numbers == set(table.index)
    assert table.loc["recovered_mean", "value"] == found.splice.recovered_mean
    assert f"{found.n_tokens:,}" in found._repr_html_()


def test_the_error_alone_and_with_the_reconstruction():
    model, sae = tiny_model(), tiny_sae()
    error = run_spliced(model, sae, tokens(), HOOK, "error")
    content_mask = tokens().content

    def only_error(acts, hook):
        rest = acts - sae.decode(sae.encode(acts))
        return torch.where(content_mask[..., None], rest, acts)

    with torch.no_grad():
        expected = model.run_with_hooks(tokens().ids, fwd_hooks=[(HOOK, only_error)])
    torch.testing.assert_close(error[tokens().mask], expected[tokens().mask], rtol=1e-4, atol=1e-4)
    clean = run_spliced(model, sae, tokens(), HOOK, "clean")
    assert not torch.allclose(clean[content_mask], error[content_mask])


def test_bad_requests_are_refused():
    model, sae = tiny_model(), tiny_sae()
    with pytest.raises(InputError, match="Did you mean 'spliced'"):
        run_spliced(model, sae, "Hi", HOOK, "splice")
    with pytest.raises(InputError, match="needs the mean"):
        run_spliced(model, sae, "Hi", HOOK, "mean")
    with pytest.raises(InputError, match="must have 16"):
        run_spliced(model, sae, "Hi", HOOK, "mean", torch.zeros(5))
    with pytest.raises(InputError, match="Did you mean 'blocks.1.hook_resid_pre'"):
        splice_loss(model, sae, "Hi", "blocks.1.hook_resid_pr")
    with pytest.raises(InputError, match="sae must be"):
        splice_loss(model, model, "Hi", HOOK)
    with pytest.raises(InputError, match="batch_size"):
        evaluate_sae(model, sae, "Hi there", HOOK, batch_size=0)
    with pytest.raises(InputError, match="nothing but BOS"):
        evaluate_sae(model, sae, tokenize(model, "Hi", context_size=1), HOOK)


# ---- facts


PROMPTS = ["The tower is in", "one two three", "Hi"]


def likeliest(rank):
    """For each prompt the word whose token stands at `rank` of the clean model's predictions."""
    model = tiny_model()
    words = []
    with torch.no_grad():
        for prompt in PROMPTS:
            order = model(tokenize(model, prompt).ids)[0, -1].argsort(descending=True)
            words.append([w for i in order if (w := whole_word(int(i)))][rank])
    return words


def whole_word(token):
    """The token as text, when it is a word that the tokenizer reads as that very token."""
    word = tiny_model().tokenizer.decode([token])
    good = word.strip() and tiny_model().tokenizer(word, add_special_tokens=False)["input_ids"] == [token]
    return word if good else ""


def test_facts_are_judged_against_their_foils(perfect):
    first, second, third = (likeliest(rank) for rank in range(3))
    model = tiny_model()
    known = facts_kept(model, perfect, PROMPTS, second, [[word] for word in third], HOOK)
    assert (known.n, known.clean, known.spliced) == (3, 3, 3)
    unknown = facts_kept(model, perfect, PROMPTS, second, [[a, b] for a, b in zip(first, third, strict=True)], HOOK)
    assert (unknown.clean, unknown.spliced, unknown.zero) == (0, 0, 0)
    several = facts_kept(model, perfect, PROMPTS, [[w, "zzz"] for w in second], [[w] for w in third], HOOK)
    assert several.clean == 3


def test_facts_do_not_survive_zeros_where_only_the_last_token_told_them_apart():
    """Replaced by one vector, all prompts but their positions and BOS look alike, and so do their answers."""
    model, nothing = tiny_model(), changed_sae(torch.zeros(16))
    first = likeliest(0)
    kept = facts_kept(model, nothing, PROMPTS, first, [[likeliest(2)[i]] for i in range(3)], HOOK)
    assert kept.spliced == kept.zero
    row = kept.facts.set_index("prompt")
    assert list(row["clean"]) == [True] * 3 and list(row["spliced"]) == list(row["zero"])
    table = kept.table()
    assert list(table.index) == ["clean", "spliced", "zero", "mean"]
    assert table.loc["clean", "share"] == 1 and table.loc["zero", "kept"] == kept.zero


def test_a_fact_the_model_never_knew_is_not_kept():
    model = tiny_model()
    right, wrong = likeliest(2), likeliest(0)
    kept = facts_kept(model, tiny_sae(), PROMPTS, right, [[w] for w in wrong], HOOK)
    assert kept.clean == kept.spliced == kept.zero == kept.mean == 0
    assert kept.table()["share"].isna().all()


def test_bad_facts_are_refused():
    model, sae = tiny_model(), tiny_sae()
    with pytest.raises(InputError, match="answers must hold one entry for each of the 3 prompts, got 2"):
        facts_kept(model, sae, PROMPTS, [" a", " b"], None, HOOK)
    with pytest.raises(InputError, match="got one string"):
        facts_kept(model, sae, PROMPTS, "abc", None, HOOK)
    with pytest.raises(InputError, match=r"foils\[0\] begin with the same token.*The tower is in"):
        facts_kept(model, sae, PROMPTS[:1], ["("], [["(", "("]], HOOK)
    with pytest.raises(InputError, match=r"foils\[0\] is empty"):
        facts_kept(model, sae, PROMPTS[:1], ["("], [[]], HOOK)
    with pytest.raises(InputError, match="longer than the context"):
        facts_kept(model, sae, ["word " * 60], [" a"], None, HOOK)


# ---- other people's numbers, on the embedded model


@pytest.fixture(scope="module")
def texts(target):
    return [text.text for text in load_texts(target, 40)]


@pytest.fixture(scope="module")
def measured(model, sae, target, texts):
    return evaluate_sae(model, sae, texts, target.hook)


def test_the_table_of_the_artefacts_measures_the_same(measured, target, texts):
    """`smallworld.quality` measures while the SAEs are being made, with Hugging Face's model and its own splice."""
    from solutions.smallworld import activations, quality, train_saes

    hf_model, tokenizer = quality.open_model(target.model_folder)
    its_sae, _ = train_saes.load(target.sae_folder)
    rows = activations.to_rows(texts, tokenizer, target.context_size)
    theirs = quality.evaluate_sae(hf_model, tokenizer, its_sae, target.hook, rows)
    assert measured.n_tokens == theirs["n_tokens"] and measured.d_sae == theirs["d_sae"]
    assert measured.explained_variance == pytest.approx(theirs["explained_variance"], abs=1e-4)
    assert measured.l0 == pytest.approx(theirs["l0"], abs=1e-2) and measured.dead == pytest.approx(theirs["dead"])
    assert measured.splice.ce_clean == pytest.approx(theirs["loss"], abs=1e-4)
    assert measured.splice.ce_spliced == pytest.approx(theirs["loss_spliced"], abs=1e-3)
    assert measured.splice.delta_ce == pytest.approx(theirs["delta_loss"], abs=1e-3)


@pytest.mark.parametrize("with_foils", [True, False])
def test_facts_are_counted_as_the_artefacts_table_counts_them(model, sae, target, with_foils):
    from solutions.smallworld import activations, probes, quality, train_saes

    facts = probes.probe_sets()["capital.seen"][:12] + probes.probe_sets()["landmark_city.seen"][:12]
    kept = facts_kept(
        model, sae, [f.prompt for f in facts], [f.answers for f in facts],
        [f.foils for f in facts] if with_foils else None, target.hook,
    )  # fmt: skip
    hf_model, tokenizer = quality.open_model(target.model_folder)
    its_sae, _ = train_saes.load(target.sae_folder)
    which = 1 if with_foils else 0  # (top1, ahead)
    assert kept.facts["clean"].mean() == pytest.approx(probes.score(hf_model, tokenizer, facts)[which])
    for how, edit in {"spliced": its_sae, "zero": torch.zeros_like}.items():
        with activations.edited(hf_model, target.hook, quality.after_bos(edit)), torch.no_grad():
            theirs = probes.score(hf_model, tokenizer, facts)[which]
        assert kept.facts[how].mean() == pytest.approx(theirs), how
    assert kept.clean >= kept.spliced > kept.zero


class Rows:
    """What SAELens reads tokens from."""

    context_size = store_batch_size_prompts = 0

    def __init__(self, ids):
        self.ids = ids

    def get_batch_tokens(self, n):
        return self.ids[:n]

    def reset_input_dataset(self):
        pass


def test_saelens_measures_the_same(model, sae, target, texts):
    """SAELens 6.54 leaves out BOS by its id, as a place and as a predictor, but its zero ablation wipes it out."""
    from sae_lens.evals import get_eval_everything_config, get_recons_loss, run_evals
    from sae_lens.training.activation_scaler import ActivationScaler

    n = 24
    rows = tokenize(model, texts)
    long = rows.mask.sum(dim=1) >= n
    ids = rows.ids[long, :n]
    unpadded = type(rows)(ids, torch.ones_like(ids, dtype=torch.bool), rows.bos[long, :n])
    config = get_eval_everything_config(len(ids), n_eval_reconstruction_batches=1, n_eval_sparsity_variance_batches=1)
    theirs, per_latent = run_evals(sae, Rows(ids), model, ActivationScaler(), config)
    ours = evaluate_sae(model, sae, unpadded, target.hook, predict_first=False, ablate_bos=True)

    assert len(ids) > 10
    for group, name, mine in (
        ("sparsity", "l0", ours.l0),
        ("sparsity", "l1", ours.l1),
        ("reconstruction_quality", "explained_variance", ours.explained_variance),
        ("reconstruction_quality", "mse", ours.mse),
        ("reconstruction_quality", "cossim", ours.cosine),
        ("model_performance_preservation", "ce_loss_without_sae", ours.splice.ce_clean),
        ("model_performance_preservation", "ce_loss_with_sae", ours.splice.ce_spliced),
        ("model_performance_preservation", "ce_loss_with_ablation", ours.splice.ce_zero),
        ("model_performance_preservation", "ce_loss_score", ours.splice.recovered_zero),
    ):
        assert mine == pytest.approx(theirs[group][name], rel=2e-3), name
    torch.testing.assert_close(ours.density.float(), torch.tensor(per_latent["feature_density"]), atol=1e-6, rtol=0)

    # Its KL also counts the last position of every row, which predicts nothing: compare place by place instead.
    bos = model.tokenizer.bos_token_id
    places = get_recons_loss(sae, model, ActivationScaler(), ids, True, True, ignore_tokens=[bos])
    assert ours.splice.kl == pytest.approx(places["kl_div_with_sae"][:, 1:-1].mean().item(), rel=2e-3)
    assert ours.splice.kl_zero == pytest.approx(places["kl_div_with_ablation"][:, 1:-1].mean().item(), rel=2e-3)

    # And the two defaults really differ: sparing BOS makes zero ablation much gentler.
    spared = splice_loss(model, sae, unpadded, target.hook)
    assert spared.ce_zero != pytest.approx(ours.splice.ce_zero, rel=1e-2)


def test_the_embedded_sae_is_worth_its_name(measured):
    """What chapter 3 rests on, with generous margins; ablations keep nothing, and the mean is the gentler one."""
    splice = measured.splice
    assert measured.explained_variance > 0.8 and 0 < splice.delta_ce < 0.3 < splice.ce_mean - splice.ce_clean
    assert 0.8 < splice.recovered_mean < 1 and 0.8 < splice.recovered_zero < 1
    assert splice.kl < splice.kl_mean
