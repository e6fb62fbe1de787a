"""Targets: the known ones, the environment switch, a reader's own, and what is refused."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from solutions.errors import InputError
from solutions.targets import TARGETS, Target, get_target, neuronpedia_url


def test_smallworld_is_the_default(monkeypatch):
    monkeypatch.delenv("MONOSEMANTIC_TARGET", raising=False)
    assert get_target().name == "smallworld"
    assert get_target().is_embedded and get_target().is_local


def test_the_environment_switches(monkeypatch):
    monkeypatch.setenv("MONOSEMANTIC_TARGET", "gpt2-small")
    target = get_target()
    assert (target.name, target.d_in, target.d_sae, target.layer) == ("gpt2-small", 768, 24576, 6)
    assert not target.is_local and target.model_folder is None and target.sae_folder is None
    assert target.processing["center_writing_weights"] and not target.processing["fold_ln"]


def test_an_unknown_target_lists_the_known_ones():
    with pytest.raises(InputError) as caught:
        get_target("smalworld")
    assert all(name in str(caught.value) for name in ("smalworld", *TARGETS))


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_known_targets_agree_with_themselves(target):
    assert get_target(target.name) is target
    assert target.hook in target.sae_id
    assert target.wrong_hook.split(".")[:2] == target.hook.split(".")[:2] and target.wrong_hook != target.hook
    assert target.description


def test_a_readers_own_target_from_json(tmp_path, monkeypatch):
    fields = {
        "name": "mine",
        "model": "EleutherAI/pythia-70m",
        "hook": "blocks.3.hook_resid_post",
        "sae_release": "pythia-70m-deduped-res-sm",
        "sae_id": "blocks.3.hook_resid_post",
        "d_in": 512,
        "d_sae": 32768,
    }
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(fields))
    monkeypatch.setenv("MONOSEMANTIC_TARGET", str(path))
    assert get_target() == Target(**fields)
    assert get_target().layer == 3 and get_target().context_size == 128


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"d_in": None}, "'d_in' must be a whole number"),
        ({"d_sae": 0}, "at least 1"),
        ({"hook": ""}, "'hook' must be a non-empty string"),
        ({"wide": 3}, "'wide'"),
        ({"processing": {"centre_writing_weights": True}}, "Did you mean 'center_writing_weights'"),
        ({"processing": {"fold_ln": 1}}, "must be true or false"),
    ],
)
def test_a_bad_description_is_refused(tmp_path, change, said):
    fields = dataclasses.asdict(TARGETS["smallworld"]) | change
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(fields))
    with pytest.raises(InputError, match=said):
        get_target(path)


def test_a_description_that_is_not_there_or_not_json_or_too_short(tmp_path):
    with pytest.raises(InputError, match="no target description"):
        get_target(tmp_path / "none.json")
    path = tmp_path / "bad.json"
    path.write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        get_target(path)
    path.write_text("[]")
    with pytest.raises(InputError, match="JSON object"):
        get_target(path)
    path.write_text('{"name": "x"}')
    with pytest.raises(InputError, match="does not say: model, hook, sae_release, sae_id, d_in, d_sae"):
        get_target(path)


def test_a_folder_is_local_and_a_hub_name_is_not(tmp_path):
    target = dataclasses.replace(TARGETS["gpt2-small"], model=str(tmp_path), sae_release=str(tmp_path))
    assert target.model_folder == tmp_path
    assert target.sae_folder == tmp_path / target.sae_id
    assert not target.is_local  # its text still comes from the hub
    assert dataclasses.replace(target, text="smallworld").is_local


def test_neuronpedia_addresses():
    target = TARGETS["gpt2-small"]
    page = "https://www.neuronpedia.org/gpt2-small/6-res-jb/10399"
    assert neuronpedia_url(target, np.int64(10399)) == page
    assert neuronpedia_url(target, 10399, embed=True).startswith(page + "?embed=true")
    assert neuronpedia_url(TARGETS["smallworld"], 3) is None
    for latent in (-1, target.d_sae, 1.5, True, "3"):
        with pytest.raises(InputError, match="0 to 24575"):
            neuronpedia_url(target, latent)


@pytest.mark.parametrize(
    ("target", "offline"), [("", "1"), ("smallworld", "1"), ("smallworld-llama", "1"), ("gpt2-small", None)]
)
def test_the_hub_is_off_for_embedded_targets_only(target, offline):
    env = {name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE",)}
    env["MONOSEMANTIC_TARGET"] = target
    code = "import solutions, os; print(os.environ.get('HF_HUB_OFFLINE'), os.environ['HF_HUB_DISABLE_TELEMETRY'])"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == [str(offline), "1"]
