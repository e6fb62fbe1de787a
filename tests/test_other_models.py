"""Targets described in a JSON file: Pythia with its released SAEs, Gemma 2 with Gemma Scope.

The descriptions are those that the site shows and offers.
The loading code is the real one, and so are the names of files and tensors, the SAEs' shapes and the models' widths.
The weights are made up, and the models have few layers and few words: no number means anything.
"""

import json
import re
from pathlib import Path

import pytest
import torch
from hub_cache import fake_gemma_scope, fake_model, fake_old_sae, snapshot

import solutions
from solutions import hub
from solutions.analysis import read_target
from solutions.errors import ModelNotAvailable, NotAvailable
from solutions.models import extract, load_model
from solutions.sae import decode, encode, load_sae, saes_by_layer
from solutions.targets import Target, check_target

DESCRIPTIONS = Path(__file__).parents[1] / "book" / "_static" / "targets"
PYTHIA = json.loads((DESCRIPTIONS / "pythia-70m.json").read_text("utf8"))
GEMMA_12 = json.loads((DESCRIPTIONS / "gemma-2-2b.json").read_text("utf8"))
#: The same near the beginning, so that the made-up model can be short.
GEMMA = {key: re.sub(r"12\b", "1", value) if key in ("hook", "sae_id", "neuronpedia_id") else value
         for key, value in GEMMA_12.items()}
INSIDE = {GEMMA["sae_id"]: "layer_1/width_16k/average_l0_102", GEMMA_12["sae_id"]: "layer_12/width_16k/average_l0_82"}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty hub cache, and a network that is switched off."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(solutions, "SWITCHED_OFFLINE", False)
    return tmp_path / "hub"


def described(fields: dict, folder) -> Target:
    """A target read from a JSON file, as a reader of the course writes it."""
    path = folder / "target.json"
    path.write_text(json.dumps(fields))
    return check_target(Target.from_json(path))


def read_and_encode(target: Target, text: str = "def add(x, y): return x") -> torch.Tensor:
    """The latents of a text [positions, d_sae], after looking at what they say of its activations."""
    model, sae = load_model(target, "cpu"), load_sae(target, "cpu")
    assert (sae.cfg.d_in, sae.cfg.d_sae) == (target.d_in, target.d_sae) and sae.W_dec.dtype == torch.float32
    assert sae.cfg.metadata.hook_name == target.hook
    acts = extract(model, text, target.hook)[target.hook][0]
    assert acts.shape[1] == target.d_in
    features = encode(sae, acts)
    told = (decode(sae, features) * acts).sum() / acts.square().sum()
    assert told > 0.5  # the made-up latents are axes: they tell most of any activation
    reading = read_target(model, sae, target.hook, 2)  # what the page on sizes and architectures does with it
    assert reading.latents.shape == (len(reading.ends), target.d_sae) and (reading.latents > 0).any()
    return features


def test_the_folders_are_those_of_the_registry():
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    known = get_pretrained_saes_directory()
    assert known[PYTHIA["sae_release"]].saes_map[PYTHIA["sae_id"]] == "3-res-sm"
    for gemma in (GEMMA, GEMMA_12):
        release = known[gemma["sae_release"]]
        assert release.saes_map[gemma["sae_id"]] == INSIDE[gemma["sae_id"]]
        assert release.neuronpedia_id[gemma["sae_id"]] == gemma["neuronpedia_id"]


def test_pythia_with_its_released_sae(cache, tmp_path):
    fake_model(snapshot(cache, PYTHIA["model"]), "neox", d=512, n_layers=4)
    files = snapshot(cache, "ctigges/pythia-70m-deduped__res-sm_processed") / "3-res-sm"
    fake_old_sae(files, "pythia-70m-deduped", PYTHIA["hook"], 3, 512, 32768)
    target = described(PYTHIA, tmp_path)
    assert read_and_encode(target).shape[1] == 32768
    assert list(saes_by_layer(target)) == [0, 1, 2, 3, 4, 5]


def test_gemma_with_gemma_scope(cache, tmp_path):
    fake_model(snapshot(cache, GEMMA["model"]), "gemma2", d=2304, n_layers=2)
    fake_gemma_scope(cache, INSIDE[GEMMA["sae_id"]])
    target = described(GEMMA, tmp_path)
    features = read_and_encode(target)
    assert features.shape[1] == 16384 and load_sae(target, "cpu").cfg.architecture() == "jumprelu"
    assert bool((features[features > 0] > 0.1).all())  # the thresholds came along
    siblings = saes_by_layer(target)
    assert len(siblings) == 26 and siblings[20].hook == "blocks.20.hook_resid_post"
    assert siblings[20].sae_id == "layer_20/width_16k/canonical"


def test_a_sae_in_another_format_that_is_not_here_is_refused_at_once(cache, tmp_path):
    with pytest.raises(NotAvailable, match="gemma-scope.*has to be downloaded, and HF_HUB_OFFLINE=1"):
        load_sae(described(GEMMA, tmp_path), "cpu")


def test_a_file_that_is_no_archive_is_a_message_and_no_traceback(cache, tmp_path):
    files = fake_gemma_scope(cache, INSIDE[GEMMA["sae_id"]], d_in=8, d_sae=16)
    (files / "params.npz").write_bytes(b"half of it")
    with pytest.raises(ModelNotAvailable, match="SAELens cannot open the SAE gemma-scope"):
        load_sae(described(GEMMA, tmp_path), "cpu")


def test_a_pickle_in_the_archives_place_is_not_opened(cache, tmp_path):
    files = fake_gemma_scope(cache, INSIDE[GEMMA["sae_id"]], d_in=8, d_sae=16)
    # Whoever opened this pickle would end the program.
    (files / "params.npz").write_bytes(b"cbuiltins\nexec\n(S'raise SystemExit(\"opened\")'\ntR.")
    with pytest.raises(ModelNotAvailable, match="SAELens cannot open"):
        load_sae(described(GEMMA, tmp_path), "cpu")


def test_only_within_it_is_the_cache_all_there_is():
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    with pytest.raises(KeyError), hub.cache_only():
        assert constants.HF_HUB_OFFLINE is True
        raise KeyError
    assert constants.HF_HUB_OFFLINE is before
