"""The SAE trainer of the embedded world: it learns, and what it saves is what SAELens reads."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from solutions.smallworld import activations, train_saes
from solutions.smallworld.train_saes import Recipe

ARCHITECTURES = ("topk", "batchtopk", "relu")
D_IN = 16


@pytest.fixture(scope="module")
def acts():
    """Sparse mixtures of 64 directions around a mean that is far from zero, as activations are."""
    g = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(64, D_IN, generator=g), dim=1)
    on = (torch.rand(20_000, 64, generator=g) < 2 / 64) * (1 + torch.rand(20_000, 64, generator=g))
    return 3 * (on @ directions) + 5


@pytest.fixture(scope="module", params=ARCHITECTURES)
def trained(request, acts):
    recipe = Recipe("blocks.0.hook_resid_pre", request.param, width=4, k=2, n_tokens=300_000, batch=512, lr=5e-3)
    return train_saes.train(acts, recipe), recipe


def unexplained(sae, x):
    with torch.no_grad():
        return ((x - sae(x)).pow(2).sum() / (x - x.mean(0)).pow(2).sum()).item()


def test_training_explains_most_of_the_variance_with_few_latents(trained, acts):
    sae, recipe = trained
    l0 = (sae.encode(acts) > 0).sum(1).float().mean().item()
    assert unexplained(sae, acts) < (0.75 if recipe.architecture == "relu" else 0.25)  # L1 shrinks
    assert l0 == pytest.approx(recipe.k, rel=0.25)


def test_decoder_rows_have_unit_norm_after_the_scale_is_folded_back(trained):
    norms = trained[0].W_dec.norm(dim=1)
    assert torch.allclose(norms, torch.ones_like(norms), atol=1e-5)


def test_topk_never_uses_more_than_k(acts):
    sae = train_saes.SparseAutoencoder(D_IN, 64, "topk", 3)
    assert (sae.encode(acts) > 0).sum(1).max() <= 3


def test_folding_the_scale_gives_the_same_reconstruction_in_other_units(acts):
    for architecture in ARCHITECTURES:
        sae = train_saes.SparseAutoencoder(D_IN, 64, architecture, 3)
        torch.nn.init.normal_(sae.b_dec)
        torch.nn.init.normal_(sae.b_enc)
        sae.threshold.fill_(0.3)
        with torch.no_grad():
            before = sae(acts * 0.2) / 0.2
            after = train_saes.fold_scale(sae, torch.tensor(0.2))(acts)
        assert torch.allclose(before, after, atol=1e-4), architecture


def test_the_gradient_that_is_left_is_at_right_angles_to_the_decoder():
    sae = train_saes.SparseAutoencoder(D_IN, 64)
    sae.W_dec.grad = torch.randn_like(sae.W_dec)
    train_saes.remove_parallel_gradient(sae)
    assert (sae.W_dec.grad * sae.W_dec).sum(1).abs().max() < 1e-5


def test_the_same_seed_gives_the_same_sae_and_another_one_does_not(acts):
    def decoder(seed):
        return train_saes.train(acts, Recipe("h", width=2, k=2, n_tokens=20_000, batch=256, seed=seed)).W_dec

    assert torch.equal(decoder(1), decoder(1))
    assert not torch.allclose(decoder(1), decoder(2))


class HalfAsleep(train_saes.SparseAutoencoder):
    """An SAE whose every second latent is born too reluctant to be among the top k."""

    def __init__(self, *args):
        super().__init__(*args)
        self.b_enc.data[::2] = -1.0


def test_the_auxiliary_loss_wakes_dead_latents(acts, monkeypatch):
    monkeypatch.setattr(train_saes, "SparseAutoencoder", HalfAsleep)
    monkeypatch.setattr(train_saes, "DEAD_AFTER", 5_000)

    def dead(weight):
        monkeypatch.setattr(train_saes, "AUX_WEIGHT", weight)
        sae = train_saes.train(acts, Recipe("h", width=4, k=2, n_tokens=150_000, batch=512, lr=5e-3))
        return (~(sae.encode(acts) > 0).any(0)).sum().item()

    assert dead(train_saes.AUX_WEIGHT) < dead(0.0) / 2


def test_threshold_lets_k_entries_pass_on_average():
    pre = torch.rand(1000, 50)
    assert (pre > train_saes.threshold_for(pre, 7)).sum().item() == 7000


def test_learning_rate_warms_up_and_decays_to_nothing():
    factors = [train_saes.schedule(step, 1000) for step in range(1000)]
    assert factors[0] == pytest.approx(1 / 50) and max(factors) == 1.0 and factors[500] == 1.0
    assert 0 < factors[-1] < 0.01


def test_unknown_architecture_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match="topk, batchtopk, relu.*'gated'"):
        Recipe("h", "gated")


def save(sae, recipe, folder):
    train_saes.save(sae, folder, recipe, "smallworld", 128, "solutions.smallworld.corpus, seed 1")


def test_what_was_saved_loads_as_it_was_up_to_fp16(trained, acts, tmp_path):
    sae, recipe = trained
    save(sae, recipe, tmp_path / "sae")
    again, recipe_again = train_saes.load(tmp_path / "sae")
    assert recipe_again == recipe
    assert unexplained(again, acts) == pytest.approx(unexplained(sae, acts), abs=1e-3)


@pytest.mark.slow
def test_saelens_reads_the_same_sae(trained, acts, tmp_path):
    from sae_lens import SAE

    sae, recipe = trained
    save(sae, recipe, tmp_path)
    config = json.loads((tmp_path / "cfg.json").read_text())
    assert config["dtype"] == "float32"
    assert all(t.dtype == torch.float16 for t in load_file(tmp_path / "sae_weights.safetensors").values())
    assert config["architecture"] == train_saes.SAVED_AS[recipe.architecture]

    half, theirs = train_saes.load(tmp_path)[0], SAE.load_from_disk(tmp_path)
    assert_same(half, theirs, acts[:2000], 1e-5)  # both read the same fp16 numbers
    assert theirs.cfg.metadata.hook_name == recipe.hook
    assert theirs.cfg.metadata.prepend_bos is True and theirs.cfg.metadata.context_size == 128
    assert theirs.cfg.metadata.sae_lens_version == train_saes.SAE_LENS_VERSION

    # In full precision the file holds the trained SAE itself.
    weights = tmp_path / "sae_weights.safetensors"
    save_file({name: getattr(sae, name).detach().contiguous() for name in load_file(weights)}, weights)
    assert_same(sae, SAE.load_from_disk(tmp_path), acts[:2000], 1e-5)


def assert_same(ours, theirs, x, tolerance):
    with torch.no_grad():
        f, g = ours.encode(x), theirs.encode(x)
        assert (f - g).abs().max() <= tolerance * f.abs().max()
        assert (ours.decode(f) - theirs.decode(g)).abs().max() <= tolerance * x.abs().max()


# ------------------------------------------------------------------ activations

def tiny(architecture):
    """An untrained model with three blocks."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    if architecture == "gpt2":
        return GPT2LMHeadModel(GPT2Config(vocab_size=300, n_positions=32, n_embd=D_IN, n_layer=3, n_head=2)).eval()
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=300, max_position_embeddings=32, hidden_size=D_IN, num_hidden_layers=3, num_attention_heads=2,
        intermediate_size=32)).eval()


def hooks(n_layers=3):
    return [f"blocks.{i}.hook_{kind}" for i in range(n_layers) for kind in ("resid_pre", "mlp_out", "resid_post")]


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_transformerlens_reads_the_same_activations(architecture, tmp_path):
    from tokenizers import Tokenizer, models
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedTokenizerFast

    model = tiny(architecture)
    model.save_pretrained(tmp_path)
    words = Tokenizer(models.WordLevel({"<bos>": 0, **{f"w{i}": i for i in range(1, 300)}}, unk_token="<bos>"))
    PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<bos>", eos_token="<bos>").save_pretrained(tmp_path)
    bridge = TransformerBridge.boot_transformers(str(tmp_path), dtype=torch.float32)
    ids = torch.randint(1, 300, (2, 9))
    _, cache = bridge.run_with_cache(ids)
    for hook, x in activations.read(model, ids, hooks()).items():
        assert torch.allclose(x, cache[hook], atol=1e-5), hook


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_an_edit_takes_effect_at_its_hook_and_ends_with_the_block(architecture):
    model, ids = tiny(architecture), torch.randint(1, 300, (2, 9))
    with torch.no_grad():
        before = model(ids).logits
        for hook in hooks():
            with activations.edited(model, hook, lambda x: x):
                assert torch.allclose(model(ids).logits, before, atol=1e-5)
            with activations.edited(model, hook, torch.zeros_like):
                assert not torch.allclose(model(ids).logits, before, atol=1e-3), hook
            assert torch.equal(model(ids).logits, before)


def test_the_input_of_a_block_is_the_output_of_the_one_before():
    acts = activations.read(tiny("gpt2"), torch.randint(1, 300, (2, 9)), hooks())
    assert torch.equal(acts["blocks.0.hook_resid_post"], acts["blocks.1.hook_resid_pre"])


@pytest.mark.parametrize("hook", ["blocks.3.hook_resid_pre", "blocks.0.hook_resid_mid", "hook_embed"])
def test_an_unknown_hook_is_an_error_not_silence(hook):
    with pytest.raises(ValueError, match="L below 3"):
        activations.read(tiny("gpt2"), torch.randint(1, 300, (1, 4)), [hook])


def test_harvest_leaves_bos_and_padding_out():
    model = tiny("gpt2")
    ids, real = torch.zeros(3, 8, dtype=torch.long), torch.zeros(3, 8, dtype=torch.bool)
    for i, n in enumerate((3, 7, 5)):
        ids[i, 1:n + 1], real[i, 1:n + 1] = torch.arange(1, n + 1) + 10 * i, True
    rows = activations.Rows(ids, real)
    hook = "blocks.1.hook_resid_pre"
    acts = activations.harvest(model, rows, [hook])[hook]
    assert acts.shape == (15, D_IN) and acts.dtype == torch.float16
    alone = torch.cat([activations.read(model, ids[i:i + 1, :n + 1], [hook])[hook][0, 1:]
                       for n, i in ((3, 0), (5, 2), (7, 1))])  # shortest first
    assert torch.allclose(acts.float(), alone, atol=1e-3)
