"""The build, in small: the same text from the same seeds, stages that are skipped when nothing has changed, and
artefacts that load."""

import json
from dataclasses import replace

import pytest
import torch

from solutions import EMBEDDED_TARGETS
from solutions.smallworld import artifacts, build, train_saes, train_transcoders
from solutions.smallworld.build import MINIATURE, Workbench
from solutions.smallworld.tokenizer import load_tokenizer
from solutions.targets import get_target

TOKENS = torch.arange(1, 40)[None]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A miniature of the whole world, and its manifest."""
    out = tmp_path_factory.mktemp("world")
    return out, build.build(out, MINIATURE)


@pytest.mark.slow
def test_two_runs_give_the_same_text_labels_and_tokens(world, tmp_path):
    _, manifest = world
    again = Workbench(tmp_path, MINIATURE)
    tokenizer = load_tokenizer(build.make_tokenizer(again))
    assert build.fingerprint(tokenizer, MINIATURE.fingerprint_documents) == manifest["text"]
    sums = [split[kind] for split in manifest["text"].values() for kind in ("text", "labels", "tokens")]
    assert len(set(sums)) == 9  # three splits, and no two of them alike


@pytest.mark.slow
def test_the_miniature_loads(world):
    from transformers import AutoModelForCausalLM

    out, manifest = world
    assert tuple(manifest["quality"]) == EMBEDDED_TARGETS == tuple(build.MODELS)
    for name in manifest["quality"]:
        model = AutoModelForCausalLM.from_pretrained(artifacts.path_of(name, out), dtype=torch.float32)
        assert model(TOKENS).logits.shape == (1, 39, len(load_tokenizer(out / name)))
    names = artifacts.list_saes(root=out)
    assert names == sorted(f"saes/{model}/{r.sae_id}" for model, recipes in MINIATURE.saes for r in recipes)
    for name in names:
        sae, recipe = train_saes.load(artifacts.path_of(name, out))
        d_in = get_target(name.split("/")[1]).d_in
        assert sae(torch.randn(3, d_in)).shape == (3, d_in) and name.endswith(recipe.sae_id)
    names = artifacts.list_transcoders(root=out)
    assert names == [f"transcoders/smallworld/{r.transcoder_id}" for r in MINIATURE.transcoders]
    for name, recipe in zip(names, MINIATURE.transcoders, strict=True):
        folder = artifacts.path_of(name, out)
        assert train_transcoders.recipe_of(folder) == recipe
        assert train_transcoders.load(folder)(torch.randn(3, 128)).shape == (3, 128)


@pytest.mark.slow
def test_the_manifest_is_complete(world):
    out, manifest = world
    assert json.loads((out / "MANIFEST.json").read_text()) == manifest
    assert manifest["seeds"].keys() >= {"train", "probe", "test", "model", "sae"}
    assert manifest["versions"].keys() >= {"python", "torch", "transformers", "sae_lens_format"}
    assert manifest["bytes"] == sum(f["bytes"] for f in manifest["files"].values())
    assert all(seconds > 0 for seconds in manifest["wall_time_s"].values())
    for table in manifest["quality"].values():
        assert table["loss"].keys() == {"model", "unigram", "bigram", "trigram", "5-gram"}
        assert all({"explained_variance", "l0", "delta_loss", "dead", "facts"} <= sae.keys()
                   for made in ("saes", "transcoders") for sae in table[made].values())
    assert not list(out.rglob("*.part"))


@pytest.mark.slow
def test_a_second_build_makes_nothing_again(world, monkeypatch):
    out, manifest = world
    for name in ("harvest", "run_jobs", "_rows"):
        monkeypatch.setattr(build, name, lambda *a, name=name: pytest.fail(f"{name} ran again"))
    monkeypatch.setattr(build.train_transcoders, "harvest", lambda *a: pytest.fail("the MLPs were read again"))
    monkeypatch.setattr(build.quality, "evaluate", lambda *a, **k: pytest.fail("measured again"))
    assert build.build(out, MINIATURE) == manifest


@pytest.mark.slow
def test_only_what_changed_is_trained_again_and_what_is_not_wanted_goes(world, monkeypatch, tmp_path):
    import shutil

    out, _ = world
    copy = tmp_path / "world"
    shutil.copytree(out, copy)
    trained = []
    real = build.train_and_measure
    monkeypatch.setattr(build, "train_and_measure", lambda job: trained.append(job.recipe) or real(job))
    model, recipes = MINIATURE.saes[0]
    changed = replace(recipes[0], seed=7)
    plan = replace(MINIATURE, saes=((model, (changed,)),))
    manifest = build.build(copy, plan, stages=("saes",))
    assert trained == [changed]
    assert artifacts.list_saes(root=copy) == [f"saes/{model}/{changed.sae_id}"]
    assert set(manifest["quality"][model]["saes"]) == {changed.sae_id}


@pytest.mark.slow
def test_a_model_in_place_can_be_adopted(world, monkeypatch, tmp_path):
    import shutil

    out, _ = world
    shutil.copytree(out / "smallworld", tmp_path / "smallworld")
    bench = Workbench(tmp_path, MINIATURE)
    build.adopt(bench, "smallworld", 99.0)
    monkeypatch.setattr(build, "_rows", lambda *a: pytest.fail("trained again"))
    build.make_model(bench, "smallworld", "cpu")  # recorded, so up to date
    assert bench.manifest["stages"]["smallworld"]["seconds"] == 99.0
    # A model that is trained beside it reads the same tokens, whatever a tokenizer of today's text would be.
    monkeypatch.setattr(build, "train_tokenizer", lambda *a: pytest.fail("a tokenizer of its own"))
    assert build.make_tokenizer(bench) == tmp_path / "smallworld"
    with pytest.raises(ValueError, match="found no 'smallworld-llama'"):
        build.adopt(bench, "smallworld-llama", 1.0)
    assert artifacts.sha256(tmp_path / "smallworld/model.safetensors") == artifacts.sha256(
        out / "smallworld/model.safetensors")


# ------------------------------------------------------------------ the parts

def test_the_real_set_of_saes_is_the_promised_one():
    ids = {model: [r.sae_id for r in recipes] for model, recipes in build.Plan().saes}
    expected = {f"blocks.{i}.hook_resid_pre.topk.8x" for i in range(4)}
    expected |= {"blocks.3.hook_resid_post.topk.8x", "blocks.2.hook_mlp_out.topk.8x"}
    expected |= {f"blocks.2.hook_resid_pre.{kind}.{width}x" for kind in ("topk", "batchtopk", "relu")
                 for width in (4, 8, 16)}
    assert set(ids["smallworld"]) == expected and len(ids["smallworld"]) == len(expected)
    assert ids["smallworld-llama"] == ["blocks.2.hook_resid_pre.topk.8x"]
    for name in ("smallworld-mini", "smallworld-mini-2"):  # as many latents per dimension, and as many as the large one
        assert ids[name] == ["blocks.1.hook_resid_pre.topk.8x", "blocks.1.hook_resid_pre.topk.16x"]
    assert [r.transcoder_id for r in build.Plan().transcoders] == [f"blocks.{i}.mlp.batchtopk.8x" for i in range(4)]


def test_the_text_is_still_that_of_the_real_artefacts():
    """The labels that the chapters show are made by today's code; models and SAEs learned from the text of then."""
    manifest = artifacts.manifest()
    n = manifest["text"]["train"]["documents"]
    assert build.fingerprint(load_tokenizer(artifacts.ARTIFACTS / "smallworld"), n) == manifest["text"]


def test_a_stage_runs_again_when_its_inputs_change_or_its_output_is_gone(tmp_path):
    bench, runs, output = Workbench(tmp_path, MINIATURE), [], tmp_path / "output"

    def make():
        output.write_text("made")
        runs.append(1)

    for inputs in ("a", "a", "b", "b"):
        bench.stage("s", inputs, output, make)
    assert len(runs) == 2
    output.unlink()
    Workbench(tmp_path, MINIATURE).stage("s", "b", output, make)
    assert len(runs) == 3


def test_a_stage_that_fails_leaves_neither_output_nor_record(tmp_path):
    bench, folder = Workbench(tmp_path, MINIATURE), tmp_path / "folder"

    def make():
        with build.appearing(folder) as part:
            (part / "half").write_text("…")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.stage("s", "a", folder, make)
    assert not folder.exists() and "s" not in bench.manifest["stages"]


def test_comments_and_docstrings_do_not_count_as_code(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "__file__", str(tmp_path / "build.py"))

    def code_of(text):
        (tmp_path / "m.py").write_text(text)
        return build.code("m.py")

    plain = code_of('"""About."""\ndef f(x):\n    """Doubles."""\n    return 2 * x\n')
    assert code_of('"""Other."""\n\n\ndef f(x):  # why\n    """Twice."""\n    return 2*x\n') == plain
    assert code_of('"""About."""\ndef f(x):\n    """Doubles."""\n    return 3 * x\n') != plain


def test_a_miniature_never_replaces_the_real_artefacts(capsys):
    with pytest.raises(SystemExit):
        build.main(["--miniature"])
    assert "--out" in capsys.readouterr().err
