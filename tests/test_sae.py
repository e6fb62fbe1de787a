"""Opening SAEs, running them, and the two numbers that come first."""

import json
from dataclasses import replace

import pytest
import torch
from hub_cache import make_sae, tiny_model, tiny_sae, tiny_target
from safetensors.torch import load_file, save_file

from solutions.errors import InputError, ModelNotAvailable
from solutions.models import extract
from solutions.sae import decode, encode, explained_variance, l0, load_sae, load_sae_from_disk

HOOK = "blocks.1.hook_resid_pre"


def test_an_sae_from_disk_is_float32_and_knows_its_hook():
    sae = tiny_sae()
    assert {p.dtype for p in sae.parameters()} == {torch.float32}
    assert sae.cfg.metadata.hook_name == HOOK and sae.cfg.metadata.prepend_bos
    assert (sae.cfg.d_in, sae.cfg.d_sae) == (16, 32)
    stored = load_file(tiny_target().sae_folder / "sae_weights.safetensors")
    assert torch.equal(sae.W_dec, stored["W_dec"].float())


def test_encode_and_decode_are_the_saes_own():
    sae, x = tiny_sae(), torch.randn(2, 5, 16)
    features = encode(sae, x)
    assert features.shape == (2, 5, 32)
    with torch.no_grad():
        assert torch.equal(features, sae.encode(x)) and torch.equal(decode(sae, features), sae(x))
    assert encode(sae, x[0, 0]).shape == (32,)
    assert not features.requires_grad
    assert torch.equal(encode(sae, x.half()), encode(sae, x.half().float()))


def test_l0_counts_active_latents_per_token():
    features = torch.tensor([[0.0, 2.0, 0.0], [1.0, -1.0, 0.5], [0.0, 0.0, 0.0]])
    assert l0(features).tolist() == [1, 3, 0]
    x = extract(tiny_model(), "The Eiffel Tower", HOOK)[HOOK]
    assert set(l0(encode(tiny_sae(), x)).flatten().tolist()) == {8}


@pytest.mark.parametrize("shape", [(50, 7), (4, 9, 5), (2, 1)])
def test_predicting_the_mean_scores_exactly_zero(shape):
    x = torch.randn(shape) * 3 + 100
    mean = x.reshape(-1, shape[-1]).mean(dim=0)
    assert explained_variance(x, mean.expand(shape)) == 0.0
    assert explained_variance(x, x) == 1.0


def test_explained_variance_of_known_answers():
    x = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]])
    assert explained_variance(x, x * torch.tensor([1.0, 0.0]) + torch.tensor([0.0, 1.0])) == 0.5
    assert explained_variance(x, torch.zeros_like(x)) == -1.0  # predicting zero is worse than the mean
    assert explained_variance(x + 100, x * 0) < -1000


def test_explained_variance_refuses_what_has_none():
    with pytest.raises(InputError, match="at least two tokens"):
        explained_variance(torch.ones(1, 3), torch.ones(1, 3))
    with pytest.raises(InputError, match="no variance"):
        explained_variance(torch.ones(5, 3), torch.ones(5, 3))
    with pytest.raises(InputError, match="same shape"):
        explained_variance(torch.ones(5, 3), torch.ones(5, 4))


@pytest.mark.parametrize(
    ("acts", "said"),
    [
        (torch.randn(3, 17), "must have 16 as its last axis, got 17"),
        (torch.ones(3, 16, dtype=torch.long), "floating point"),
        ([[1.0] * 16], "must be a torch.Tensor, got list"),
        (torch.randn(0, 16), "is empty"),
        (torch.randn(2, 16, device="meta"), "is on meta"),
    ],
)
def test_bad_activations_are_refused(acts, said):
    with pytest.raises(InputError, match=said):
        encode(tiny_sae(), acts)


def test_bad_features_are_refused():
    with pytest.raises(InputError, match="must have 32 as its last axis, got 16"):
        decode(tiny_sae(), torch.randn(3, 16))
    with pytest.raises(InputError, match="features must be"):
        l0("many")


def test_a_missing_or_damaged_sae_is_named(tmp_path):
    with pytest.raises(ModelNotAvailable, match="missing cfg.json and sae_weights.safetensors"):
        load_sae_from_disk(tmp_path)
    make_sae(tmp_path, HOOK)
    file = tmp_path / "sae_weights.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-50])
    with pytest.raises(ModelNotAvailable, match=f"expected {len(whole):,} bytes, found {len(whole) - 50:,}"):
        load_sae_from_disk(tmp_path)
    file.write_bytes(whole[:20])
    with pytest.raises(ModelNotAvailable, match="header is cut short"):
        load_sae_from_disk(tmp_path)
    file.unlink()
    with pytest.raises(ModelNotAvailable, match="missing sae_weights.safetensors"):
        load_sae(replace(tiny_target(), sae_release=str(tmp_path.parent), sae_id=tmp_path.name))


def test_metadata_is_not_lost_silently(tmp_path):
    make_sae(tmp_path, HOOK)
    config = json.loads((tmp_path / "cfg.json").read_text())
    del config["metadata"]["sae_lens_version"]
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    with pytest.raises(ModelNotAvailable, match="sae_lens_version"):
        load_sae_from_disk(tmp_path)


def test_weights_that_do_not_fit_the_config(tmp_path):
    make_sae(tmp_path, HOOK)
    weights = load_file(tmp_path / "sae_weights.safetensors")
    weights["W_enc"] = weights["W_enc"][:, :5].contiguous()
    save_file(weights, tmp_path / "sae_weights.safetensors")
    with pytest.raises(ModelNotAvailable, match="SAELens cannot open"):
        load_sae_from_disk(tmp_path)


def test_unknown_releases_and_ids_suggest_known_ones():
    target = replace(tiny_target(), sae_release="gpt2-small-res-jbb", sae_id="blocks.6.hook_resid_pre")
    with pytest.raises(InputError, match="Did you mean 'gpt2-small-res-jb'"):
        load_sae(target)
    with pytest.raises(InputError, match="Did you mean .*'blocks.6.hook_resid_pre'"):
        load_sae(replace(target, sae_release="gpt2-small-res-jb", sae_id="blocks.6.hook_resid_pree"))
    with pytest.raises(InputError, match="must be a Target .*str: 'smallworld'"):
        load_sae("smallworld")
