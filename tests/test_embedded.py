"""The embedded targets through the same functions as any other: they load, they fit, and damage is named."""

import shutil

import pytest
import torch

from solutions import EMBEDDED_TARGETS
from solutions.data import load_texts, tokenize
from solutions.errors import ModelNotAvailable
from solutions.models import extract, load_model, loss, next_tokens
from solutions.sae import load_sae, preflight
from solutions.smallworld import artifacts
from solutions.targets import get_target


@pytest.mark.parametrize("name", EMBEDDED_TARGETS)
def test_an_embedded_target_passes_preflight(name):
    target = get_target(name)
    model, sae = load_model(target, "cpu"), load_sae(target, "cpu")
    assert {p.dtype for p in [*model.original_model.parameters(), *sae.parameters()]} == {torch.float32}
    assert (sae.cfg.d_in, sae.cfg.d_sae) == (target.d_in, target.d_sae)
    assert model.cfg.n_ctx >= target.context_size and model.tokenizer.bos_token_id == 0
    report = preflight(model, sae, target)
    assert report.ok, repr(report)
    wrong = preflight(model, sae, target, hook=target.wrong_hook, allow={"hook"})
    assert wrong.explained_variance < report.explained_variance


def test_token_averages_of_real_text_are_recognised(model, sae, target):
    tokens = tokenize(model, load_texts(target, 16))
    acts = extract(model, tokens, target.hook)[target.hook]
    means = torch.stack([row[kept].mean(dim=0) for row, kept in zip(acts, tokens.content, strict=True)])
    report = preflight(model, sae, target, acts=means, allow={"token_averaged"})
    assert report.checks.set_index("check").loc["token_averaged", "result"] == "allowed"
    rows = [row[kept] for row, kept in zip(acts, tokens.content, strict=True)]
    for single in (*rows[:6], torch.cat(rows)):  # the tokens of one text, and of all
        report = preflight(model, sae, target, acts=single, allow={"explained_variance"})
        assert report.checks.set_index("check").loc["token_averaged", "result"] == "ok"


def test_the_model_has_learnt_something(model, target):
    uniform = torch.log(torch.tensor(float(model.cfg.d_vocab))).item()
    assert loss(model, load_texts(target, 8)) < uniform / 2
    assert next_tokens(model, "The Eiffel Tower is in", k=5)["token"].str.startswith(" ").all()


def damaged(tmp_path, monkeypatch, name):
    """A copy of the artefacts in which one byte of `name` is another."""
    shutil.copytree(artifacts.ARTIFACTS, tmp_path / "artifacts")
    file = tmp_path / "artifacts" / name
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    original = artifacts.path_of
    monkeypatch.setattr(artifacts, "path_of", lambda artefact: original(artefact, tmp_path / "artifacts"))


@pytest.mark.parametrize("what", ["model", "sae"])
def test_an_altered_artefact_is_named_by_its_checksum(tmp_path, monkeypatch, target, what):
    folder = target.model if what == "model" else f"saes/{target.sae_release}/{target.sae_id}"
    file = f"{folder}/{'model' if what == 'model' else 'sae_weights'}.safetensors"
    expected = artifacts.manifest()["files"][file]["sha256"]
    damaged(tmp_path, monkeypatch, file)
    with pytest.raises(ModelNotAvailable, match=expected) as caught:
        (load_model if what == "model" else load_sae)(target, "cpu")
    assert file in str(caught.value) and "altered" in str(caught.value)
