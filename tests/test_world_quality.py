"""What the course says of the embedded artefacts rests on their quality table: these are the lines it must not cross.

The numbers in MANIFEST.json are measured by `solutions.smallworld.quality` when the artefacts are made; the files are
tied to them by checksum (`tests/test_artifacts.py`). One row of the table is measured again here.
"""

import pytest
import torch

from solutions.smallworld import artifacts, quality

TABLE = artifacts.manifest()["quality"]
MAIN = TABLE["smallworld"]
TOPK = [sae_id for sae_id in MAIN["saes"] if sae_id.endswith(".topk.8x")]


def test_the_model_beats_a_5_gram_by_a_clear_margin():
    loss = MAIN["loss"]
    assert loss["model"] < loss["5-gram"] - 0.3
    assert loss["5-gram"] < loss["trigram"] < loss["bigram"] < loss["unigram"]


@pytest.mark.parametrize("name", [
    "landmark_city.seen", "landmark_country.seen", "city_language.seen", "capital.seen", "agreement.seen",
    "pronoun.seen", "brackets", "landmark_city.unseen", "landmark_country.unseen", "city_language.unseen",
    "capital.unseen", "agreement.unseen", "pronoun.unseen"])
def test_what_the_model_knows(name):
    assert MAIN["probes"][name]["share"] >= 0.95


@pytest.mark.parametrize(("name", "least"), [
    ("list_copying", 0.8), ("recipe_copying", 0.8), ("indirect_object.seen", 0.9), ("indirect_object.unseen", 0.75)])
def test_copying_has_formed(name, least):
    assert MAIN["probes"][name]["share"] >= least


@pytest.mark.parametrize("sae_id", TOPK)
def test_topk_saes_are_faithful(sae_id):
    measured = MAIN["saes"][sae_id]
    assert measured["explained_variance"] >= 0.92
    assert measured["l0"] <= 16
    assert measured["delta_loss"] <= 0.05
    assert measured["dead"] < 0.01


def test_there_is_a_topk_sae_at_every_place():
    assert {sae_id.removesuffix(".topk.8x") for sae_id in TOPK} >= {
        *(f"blocks.{i}.hook_resid_pre" for i in range(4)), "blocks.3.hook_resid_post", "blocks.2.hook_mlp_out"}
    middle = "blocks.2.hook_resid_pre"
    assert {f"{middle}.{kind}.{width}x" for kind in ("topk", "batchtopk", "relu") for width in (4, 8, 16)} <= set(
        MAIN["saes"])


def test_the_table_can_be_measured_again():
    model, tokenizer = quality.open_model(artifacts.path_of("smallworld"))
    torch.manual_seed(0)
    again = quality.ask(model, tokenizer, only=["capital.seen"])["capital.seen"]
    assert again.share == pytest.approx(MAIN["probes"]["capital.seen"]["share"])
