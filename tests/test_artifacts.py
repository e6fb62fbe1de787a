"""Artefacts are found by name and checked by checksum; a damaged one is named with what to do."""

import json

import pytest

from solutions import EMBEDDED_TARGETS
from solutions.smallworld import artifacts
from solutions.smallworld.artifacts import ArtifactError


@pytest.fixture
def root(tmp_path):
    """A small folder of artefacts with its manifest."""
    for name in ("smallworld/model.safetensors", "saes/smallworld/a.topk.8x/cfg.json",
                 "saes/smallworld/b.relu.8x/cfg.json", "saes/smallworld-llama/a.topk.8x/cfg.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode() * 100)
    files = artifacts.describe_files(tmp_path, ["smallworld", "saes"])
    (tmp_path / "MANIFEST.json").write_text(json.dumps({"files": files}))
    return tmp_path


def test_whole_artefacts_pass_and_give_their_path(root):
    assert artifacts.path_of("smallworld", root) == root / "smallworld"
    artifacts.verify("saes/smallworld/a.topk.8x", root)
    artifacts.verify("smallworld/model.safetensors", root)


def test_the_files_entry_names_every_file_with_its_size(root):
    files = artifacts.manifest(root)["files"]
    assert len(files) == 4
    assert files["smallworld/model.safetensors"]["bytes"] == 100 * len("smallworld/model.safetensors")


def damage(root, change):
    file = root / "smallworld/model.safetensors"
    change(file)
    with pytest.raises(ArtifactError) as caught:
        artifacts.verify("smallworld", root)
    message = str(caught.value)
    assert "smallworld/model.safetensors" in message and "solutions.smallworld.build" in message
    return message


@pytest.mark.parametrize("change", [
    lambda file: file.write_bytes(file.read_bytes()[:-1]),  # cut off
    lambda file: file.write_bytes(file.read_bytes()[:-1] + b"?"),  # one byte altered, size kept
    lambda file: file.write_bytes(b""),
])
def test_a_damaged_file_is_named_with_what_was_expected_and_found(root, change):
    expected = artifacts.manifest(root)["files"]["smallworld/model.safetensors"]
    message = damage(root, change)
    assert expected["sha256"] in message and f"Expected {expected['bytes']} bytes" in message
    assert artifacts.sha256(root / "smallworld/model.safetensors") in message


def test_a_missing_file_is_named(root):
    assert "is missing" in damage(root, lambda file: file.unlink())


def test_what_was_repaired_passes_again(root):
    file = root / "smallworld/model.safetensors"
    good = file.read_bytes()
    damage(root, lambda file: file.write_bytes(b"bad"))
    file.write_bytes(good)
    artifacts.verify("smallworld", root)


def test_a_file_found_whole_is_read_only_once(root, monkeypatch):
    artifacts.verify("smallworld", root)
    monkeypatch.setattr(artifacts, "sha256", lambda path: pytest.fail("read again"))
    artifacts.verify("smallworld", root)


def test_damage_elsewhere_does_not_matter(root):
    (root / "saes/smallworld/b.relu.8x/cfg.json").unlink()
    artifacts.verify("saes/smallworld/a.topk.8x", root)


@pytest.mark.parametrize("name", ["largeworld", "small", "saes/smallworld/a.topk", ""])
def test_an_unknown_name_lists_the_known_ones(root, name):
    with pytest.raises(ArtifactError, match="saes/smallworld/a.topk.8x.*smallworld"):
        artifacts.verify(name, root)


def test_saes_are_listed_by_model(root):
    assert artifacts.list_saes(root=root) == [
        "saes/smallworld-llama/a.topk.8x", "saes/smallworld/a.topk.8x", "saes/smallworld/b.relu.8x"]
    assert artifacts.list_saes("smallworld-llama", root) == ["saes/smallworld-llama/a.topk.8x"]


def test_transcoders_are_listed_apart_from_saes(root):
    (root / "transcoders/smallworld/blocks.0.mlp.a").mkdir(parents=True)
    (root / "transcoders/smallworld/blocks.0.mlp.a/cfg.json").write_text("{}")
    files = artifacts.describe_files(root, ["smallworld", "saes", "transcoders"])
    (root / "MANIFEST.json").write_text(json.dumps({"files": files}))
    assert artifacts.list_transcoders(root=root) == ["transcoders/smallworld/blocks.0.mlp.a"]
    assert artifacts.list_transcoders("smallworld-llama", root) == []
    assert not any("mlp.a" in name for name in artifacts.list_saes(root=root))


def test_without_a_manifest_the_message_says_where_it_should_be(tmp_path):
    with pytest.raises(ArtifactError, match="MANIFEST.json"):
        artifacts.verify("smallworld", tmp_path)


def test_a_manifest_that_is_not_json_is_named_with_the_line(root):
    (root / "MANIFEST.json").write_text('{\n"files": {')
    with pytest.raises(ArtifactError, match="line 2"):
        artifacts.list_saes(root=root)


def test_the_real_artefacts_are_whole_and_small():
    manifest = artifacts.manifest()
    on_disk = artifacts.describe_files(artifacts.ARTIFACTS, [*EMBEDDED_TARGETS, "saes", "transcoders"])
    assert on_disk == manifest["files"]
    assert manifest["bytes"] == sum(entry["bytes"] for entry in on_disk.values()) < 30e6
    for name in (*EMBEDDED_TARGETS, *artifacts.list_saes(), *artifacts.list_transcoders()):
        artifacts.verify(name)
