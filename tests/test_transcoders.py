"""Transcoders: trained ones stand in for the MLPs, edits of their latents keep the error, and nothing stays behind."""

import json

import pytest
import torch

from solutions.attribution import (
    ablate,
    has_transcoders,
    load_transcoders,
    mlp_latents,
    mlp_latents_edited,
    replaced,
    replacement_quality,
)
from solutions.attribution.graph.transcoders import MLP_IN, MLP_OUT
from solutions.data import load_texts, tokenize
from solutions.errors import InputError, ModelNotAvailable
from solutions.interventions.facts import facts_of
from solutions.models import extract, run_with_edit
from solutions.sae import load_sae, load_sae_from_disk
from solutions.smallworld import activations, artifacts, quality, train_transcoders
from solutions.smallworld.train_transcoders import TranscoderRecipe
from solutions.targets import get_target

TEXTS = ["The Eiffel Tower is in Paris.", "The people of Rome speak Italian, and the cat sat."]


@pytest.fixture(scope="module")
def transcoders():
    return load_transcoders(get_target("smallworld"), "cpu")


@pytest.fixture(scope="module")
def tokens(model):
    return tokenize(model, TEXTS)


@pytest.fixture
def unchanged(model):
    """Nothing that a test does stays in the model: neither its weights nor a hook."""
    before = {name: weight.clone() for name, weight in model.original_model.state_dict().items()}
    yield
    after = model.original_model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(point.fwd_hooks for point in model.hook_dict.values())


# ---- the trained ones


def test_there_is_one_for_every_mlp(transcoders):
    assert sorted(transcoders) == [0, 1, 2, 3]
    for layer, transcoder in transcoders.items():
        about = transcoder.cfg.metadata
        assert transcoder.cfg.architecture() == "jumprelu_transcoder"
        assert (about.hook_name, about.hook_name_out) == (MLP_IN.format(layer), MLP_OUT.format(layer))
        assert not transcoder.W_enc.requires_grad


def test_the_manifest_says_how_good_they_are():
    table = artifacts.manifest()["quality"]["smallworld"]["transcoders"]
    assert list(table) == [f"blocks.{layer}.mlp.batchtopk.8x" for layer in range(4)]
    for measured in table.values():
        assert measured["explained_variance"] >= 0.9 and measured["l0"] <= 20
        assert measured["delta_loss"] <= 0.03 and measured["facts"] >= 0.98
        assert measured["dead"] < 0.5


def test_a_row_of_the_table_can_be_measured_again(model, transcoders):
    tokens = tokenize(model, load_texts(get_target("smallworld"), 120))
    acts = extract(model, tokens, [MLP_IN.format(2), MLP_OUT.format(2)])
    x, y = (acts[hook][tokens.content] for hook in (MLP_IN.format(2), MLP_OUT.format(2)))
    missed = (y - transcoders[2](x)).pow(2).sum() / (y - y.mean(0)).pow(2).sum()
    measured = artifacts.manifest()["quality"]["smallworld"]["transcoders"]["blocks.2.mlp.batchtopk.8x"]
    assert 1 - float(missed) == pytest.approx(measured["explained_variance"], abs=0.03)
    assert float((transcoders[2].encode(x) > 0).sum(1).float().mean()) == pytest.approx(measured["l0"], rel=0.15)


def test_they_predict_what_the_mlp_writes_and_not_what_it_reads(model, transcoders, tokens):
    acts = extract(model, tokens, [MLP_IN.format(1), MLP_OUT.format(1)])
    x, y = (acts[hook][tokens.content] for hook in (MLP_IN.format(1), MLP_OUT.format(1)))
    rebuilt = transcoders[1](x)
    assert (rebuilt - y).pow(2).sum() < 0.3 * y.pow(2).sum() < 0.5 * (rebuilt - x).pow(2).sum()


def test_other_targets_say_that_there_are_none():
    assert has_transcoders(get_target("smallworld")) and not has_transcoders(get_target("smallworld-llama"))
    with pytest.raises(ModelNotAvailable, match="no transcoders of the model 'gpt2'.*mlp.hook_in.*hook_mlp_out"):
        load_transcoders(get_target("gpt2-small"))


# ---- in the place of the MLPs


def test_with_all_of_the_error_the_model_is_what_it_was(model, transcoders, tokens, unchanged):
    with replaced(model, transcoders, keep_error=1.0):
        torch.testing.assert_close(model(tokens.ids), model_logits(model, tokens), atol=1e-4, rtol=1e-4)


def model_logits(model, tokens):
    """The model's own logits, whatever hooks hang in it just now."""
    with torch.no_grad():
        from transformers import AutoModelForCausalLM

        plain = AutoModelForCausalLM.from_pretrained(artifacts.path_of("smallworld"), dtype=torch.float32)
        return plain(tokens.ids).logits


def test_one_stand_in_is_an_edit_of_the_mlps_output_that_spares_bos(model, transcoders, tokens, unchanged):
    written = transcoders[3](extract(model, tokens, MLP_IN.format(3))[MLP_IN.format(3)])

    def by_hand(acts):
        return torch.cat([acts[:, :1], written[:, 1:]], dim=1)

    with replaced(model, {3: transcoders[3]}):
        found = model(tokens.ids)
    torch.testing.assert_close(found, run_with_edit(model, tokens, MLP_OUT.format(3), by_hand), atol=1e-4, rtol=1e-4)
    assert (found - model(tokens.ids)).abs().max() > 1e-3
    with replaced(model, {3: transcoders[3]}, bos=False):
        assert (model(tokens.ids)[:, 0] - found[:, 0]).abs().max() > 1e-3


def test_later_stand_ins_read_what_earlier_ones_left(model, transcoders, tokens):
    """All together are not each alone: the second reads a stream that the first has changed."""
    with replaced(model, {0: transcoders[0]}):
        changed = extract(model, tokens, MLP_IN.format(1))[MLP_IN.format(1)]
    with replaced(model, {0: transcoders[0], 1: transcoders[1]}):
        written = extract(model, tokens, "blocks.2.hook_resid_pre")["blocks.2.hook_resid_pre"]
    with replaced(model, {0: transcoders[0]}):
        middle = extract(model, tokens, "blocks.1.hook_resid_mid")["blocks.1.hook_resid_mid"]
    torch.testing.assert_close(written[:, 1:], (middle + transcoders[1](changed))[:, 1:], atol=1e-4, rtol=1e-4)


def test_quality_of_the_whole_replacement_model(model, transcoders):
    texts = load_texts(get_target("smallworld"), 12)
    facts = facts_of(get_target("smallworld"), model, "capital")
    table = replacement_quality(model, transcoders, texts, facts)
    assert table.loc["as it is"].tolist() == pytest.approx([0.0, 0.0, 1.0, 1.0], abs=1e-4)
    assert table.loc["MLP 2", "kl"] < table.loc["all", "kl"] < 0.5 * table.loc["all, by their means", "kl"]
    assert table.loc["all", "facts"] > table.loc["all, by their means", "facts"]
    assert (table["kl"] > -1e-6).all() and table["same_top"].between(0, 1).all()


# ---- edits of latents


def test_latents_and_error_are_what_the_mlp_wrote(model, transcoders, tokens):
    latents, acts = mlp_latents(model, transcoders, tokens), extract(model, tokens, [*map(MLP_OUT.format, range(4))])
    for layer, transcoder in transcoders.items():
        assert latents[layer].shape == (*tokens.ids.shape, 1024)
        assert not latents[layer][~tokens.content].any()
        error = acts[MLP_OUT.format(layer)] - transcoder.decode(latents[layer])
        assert 0 < error[tokens.content].norm() < 0.6 * acts[MLP_OUT.format(layer)][tokens.content].norm()


def test_an_edit_that_changes_nothing_changes_nothing(model, transcoders, tokens, unchanged):
    plain = model(tokens.ids)
    with mlp_latents_edited(model, transcoders, {layer: lambda z: z for layer in transcoders}):
        assert torch.equal(model(tokens.ids), plain)


def test_a_latent_set_to_zero_takes_away_what_it_wrote_and_no_more(model, transcoders, tokens, unchanged):
    latents = mlp_latents(model, transcoders, tokens)[3]
    latent = int(latents[0, 4].argmax())
    gone = latents[0, 4, latent] * transcoders[3].W_dec[latent]

    def by_hand(acts):
        acts = acts.clone()
        acts[0, 4] -= gone
        return acts

    one = tokens[0:1]
    with mlp_latents_edited(model, transcoders, ablate([(3, 4, latent)], transcoders)):
        found = model(one.ids)
    torch.testing.assert_close(found, run_with_edit(model, one, MLP_OUT.format(3), by_hand), atol=1e-4, rtol=1e-4)
    assert torch.equal(found[:, :4], model(one.ids)[:, :4]) and (found[:, 4] - model(one.ids)[:, 4]).abs().max() > 1e-2


def test_bos_is_spared(model, transcoders, tokens, unchanged):
    def shift(latents):
        return latents + 1.0

    with mlp_latents_edited(model, transcoders, {0: shift}):
        read = extract(model, tokens, "blocks.1.hook_resid_pre")["blocks.1.hook_resid_pre"]
    plain = extract(model, tokens, "blocks.1.hook_resid_pre")["blocks.1.hook_resid_pre"]
    assert torch.equal(read[:, 0], plain[:, 0])
    torch.testing.assert_close(read[:, 1:], plain[:, 1:] + transcoders[0].W_dec.sum(0), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("open_", [
    lambda model, transcoders: replaced(model, transcoders),
    lambda model, transcoders: mlp_latents_edited(model, transcoders, {1: lambda z: 0 * z}),
])
def test_hooks_go_also_after_an_exception(open_, model, transcoders, tokens, unchanged):
    with pytest.raises(KeyboardInterrupt), open_(model, transcoders):
        model(tokens.ids)
        raise KeyboardInterrupt
    with pytest.raises(InputError, match="an edit must return"):
        with mlp_latents_edited(model, transcoders, {1: lambda z: z[0]}):
            model(tokens.ids)


def test_odd_requests_are_refused_by_name(model, transcoders, tokens, unchanged):
    with pytest.raises(InputError, match="must map layers"):
        mlp_latents(model, {}, tokens)
    with pytest.raises(InputError, match="blocks 0 to 3"):
        mlp_latents(model, {7: transcoders[0]}, tokens)
    narrow = as_transcoder(64)
    with pytest.raises(InputError, match="layer 0 reads 64 numbers and writes 64"):
        mlp_latents(model, {0: narrow}, tokens)
    with pytest.raises(InputError, match="no transcoder for layer 9"):
        with mlp_latents_edited(model, transcoders, {9: lambda z: z}):
            pass
    for share in (2, "all", True):
        with pytest.raises(InputError, match="keep_error"), replaced(model, transcoders, keep_error=share):
            pass
    with pytest.raises(InputError, match="no transcoder for layer 5"):
        ablate([(5, 0, 0)], transcoders)
    with pytest.raises(InputError, match="from 0 to 1023, got 1024"):
        ablate([(0, 1, 1024)], transcoders)
    with pytest.raises(InputError, match="position"):
        ablate([(0, -1, 3)], transcoders)
    with pytest.raises(InputError, match="position 500 is beyond the text"):
        with mlp_latents_edited(model, transcoders, ablate([(0, 500, 3)], transcoders)):
            model(tokens.ids)
    with pytest.raises(InputError, match="must be a Target"):
        load_transcoders("smallworld")


def as_transcoder(width):
    from solutions.sae import as_sae_lens, make_sae

    return as_sae_lens(make_sae("relu", width, 16, d_out=width), hook_name="x", model_name="made up")


# ---- how they are made


@pytest.fixture(scope="module")
def plain():
    return quality.open_model(artifacts.path_of("smallworld"))


def test_what_is_harvested_is_what_transformer_lens_reads(plain, model):
    hugging_face, tokenizer = plain
    rows = activations.to_rows(TEXTS, tokenizer, 128)
    pairs = train_transcoders.harvest(hugging_face, rows, [0, 3])
    tokens = tokenize(model, TEXTS)
    order = torch.cat([rows.real.sum(1).argsort()])
    for layer, both in pairs.items():
        for found, hook in zip(both, (MLP_IN.format(layer), MLP_OUT.format(layer)), strict=True):
            acts = extract(model, tokens, hook)[hook]
            expected = torch.cat([acts[i][tokens.content[i]] for i in order])
            torch.testing.assert_close(found.float(), expected, atol=2e-3, rtol=2e-3)
    assert not any(layer.mlp._forward_hooks for layer in hugging_face.transformer.h)
    with pytest.raises(ValueError, match="layer must be 0 to 3"):
        train_transcoders.harvest(hugging_face, rows, [4])


def test_replaced_there_is_replaced_here(plain, model, transcoders):
    hugging_face, tokenizer = plain
    ids = tokenize(model, TEXTS[:1]).ids
    with train_transcoders.replaced(hugging_face, transcoders), torch.no_grad():
        theirs = hugging_face(ids).logits
    with replaced(model, transcoders):
        torch.testing.assert_close(model(ids), theirs, atol=2e-4, rtol=1e-4)
    assert not any(layer.mlp._forward_hooks for layer in hugging_face.transformer.h)


def test_training_finds_a_sparse_computation_and_it_is_saved_whole(tmp_path):
    """What is computed: eight directions are looked for, each is written elsewhere. The transcoder has to find it."""
    dice = torch.Generator().manual_seed(0)
    reads, writes = (torch.linalg.qr(torch.randn(16, 16, generator=dice))[0][:8] for _ in range(2))
    strength = (torch.rand(20_000, 8, generator=dice) < 0.15) * torch.rand(20_000, 8, generator=dice)
    x = (strength @ reads + 0.01 * torch.randn(20_000, 16, generator=dice)).half()
    y = (strength @ writes).half()
    recipe = TranscoderRecipe(1, width=2, k=2, n_tokens=100_000, batch=512, lr=5e-3)
    trained = train_transcoders.train((x, y), recipe)
    rebuilt = trained(x.float()).detach()
    assert (rebuilt - y).pow(2).sum() < 0.15 * (y - y.float().mean(0)).pow(2).sum()

    train_transcoders.save(trained, tmp_path / "t", recipe, "tiny", 16, "made up")
    opened = load_sae_from_disk(tmp_path / "t", "cpu")
    # A rounded threshold may let a latent through that stood exactly there; nothing else may change.
    assert ((opened(x.float()) - rebuilt).abs() > 2e-2).float().mean() < 1e-3
    assert train_transcoders.recipe_of(tmp_path / "t") == recipe
    config = json.loads((tmp_path / "t" / "cfg.json").read_text())
    assert config["metadata"]["hook_name_out"] == "blocks.1.hook_mlp_out" and not config["apply_b_dec_to_input"]
    assert (tmp_path / "t" / "sae_weights.safetensors").stat().st_size < 2.5 * (16 * 32 * 2 + 80) + 1000


def test_an_sae_of_the_mlps_output_is_no_transcoder(model, tokens):
    """The control: the SAE of `hook_mlp_out`, fed with what the MLP reads, does not predict what it writes."""
    from dataclasses import replace as changed

    target = get_target("smallworld")
    sae = load_sae(changed(target, hook=MLP_OUT.format(2), sae_id="blocks.2.hook_mlp_out.topk.8x"), "cpu")
    acts = extract(model, tokens, [MLP_IN.format(2), MLP_OUT.format(2)])
    x, y = (acts[hook][tokens.content] for hook in (MLP_IN.format(2), MLP_OUT.format(2)))
    assert (sae(x) - y).pow(2).sum() > 0.8 * y.pow(2).sum()
