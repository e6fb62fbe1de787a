"""What the build writes for the live page: weights to the bit, the tokenizer, what is known of latents, and no more."""

import base64
import json
import shutil

import numpy as np
import pytest
from live_page import ROOT, markup

import live_export  # isort: skip  (live_page puts book/_ext on the path)
import live_latents  # isort: skip
import live_model  # isort: skip

GPT2 = {"model_type": "gpt2", "activation_function": "gelu_new", "n_embd": 8, "n_layer": 3, "n_head": 2,
        "n_positions": 16, "n_inner": None, "vocab_size": 32, "layer_norm_epsilon": 1e-5, "bos_token_id": 0}
SAE = {"architecture": "topk", "d_sae": 64, "k": 4}
HOOK = "blocks.2.hook_resid_pre"


def test_sizes_come_from_the_configs():
    config = live_export.read_config(GPT2, SAE, HOOK)
    assert (config["inner"], config["hookLayer"], config["latents"], config["k"]) == (32, 2, 64, 4)
    assert live_export.read_config({**GPT2, "n_inner": 20}, SAE, HOOK)["inner"] == 20


@pytest.mark.parametrize(
    ("model", "sae", "hook", "named"),
    [
        ({"model_type": "llama"}, {}, HOOK, "model_type"),
        ({"activation_function": "relu"}, {}, HOOK, "activation_function"),
        ({"tie_word_embeddings": False}, {}, HOOK, "tie_word_embeddings"),
        ({}, {"architecture": "standard"}, HOOK, "architecture"),
        ({}, {"rescale_acts_by_decoder_norm": True}, HOOK, "rescale_acts_by_decoder_norm"),
        ({}, {"normalize_activations": "layer_norm"}, HOOK, "normalize_activations"),
        ({}, {}, "blocks.2.hook_mlp_out", "hook"),
        ({"vocab_size": 31}, {}, HOOK, "vocab_size"),
        ({}, {"d_sae": 63}, HOOK, "d_sae"),
    ],
)
def test_what_the_engine_does_not_compute_is_refused(model, sae, hook, named):
    with pytest.raises(live_export.CannotRun, match=named):
        live_export.read_config({**GPT2, **model}, {**SAE, **sae}, hook)


def test_weights_are_packed_by_name_as_half_precision():
    packed, places = live_export.pack({"b": np.array([[1.0, -2.0]], "float32"), "a": np.array([0.5], "float16")})
    assert places == [["a", [1], 0], ["b", [1, 2], 1]]
    assert packed == bytes([0x00, 0x38, 0x00, 0x3C, 0x00, 0xC0])  # 0.5, 1, -2; low byte first
    for value in (70000.0, np.nan, np.inf):
        with pytest.raises(live_export.CannotRun, match="b holds"):
            live_export.pack({"b": np.array([value], "float32")})


def test_ranges_are_runs_of_numbers():
    assert live_export.ranges(np.array([3, 4, 5, 9, 11, 12])) == [[3, 5], [9, 9], [11, 12]]
    assert live_export.ranges(np.array([], int)) == []


def test_character_classes_are_those_of_the_tokenizer():
    from tokenizers import Tokenizer

    folder = ROOT / "solutions" / "smallworld" / "artifacts" / "smallworld"
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    classes = live_export.character_classes(backend)

    def kind(character):
        return next((k for k, runs in classes.items() if any(a <= ord(character) <= b for a, b in runs)), None)

    assert [kind(c) for c in "aZéñЖ中ª"] == ["L"] * 7
    assert [kind(c) for c in "07²½٣Ⅷ"] == ["N"] * 6
    assert [kind(c) for c in " \n_'!\u0301\u200d😀"] == [None] * 8
    together = backend.pre_tokenizer.pre_tokenize_str
    dice = np.random.default_rng(0)
    for code in dice.integers(0, 0x40000, 2000).tolist():
        if not 0xD800 <= code < 0xE000:
            assert (kind(chr(code)) == "L") == (len(together("a" + chr(code))) == 1)


def test_a_latent_is_called_after_a_concept_only_when_it_follows_it():
    row = {"maximum": 12.5, "density": 0.01234, "tokens": " not| no", "concept": "negation", "f1": 0.62,
           "lookup_f1": 0.9}
    promoted, suppressed = [(" a", 1.0), ("|", 0.5)], [(" b", -1.0)]
    shown = live_latents.latent_row(row, promoted, suppressed)
    assert shown == {"max": 12.5, "density": 0.0123, "on": [" not", " no"], "promotes": [" a", "|"],
                     "suppresses": [" b"], "concept": "a negating word", "f1": 0.62, "lookup": 0.9}
    for f1 in (0.3, float("nan")):
        assert "concept" not in live_latents.latent_row({**row, "f1": f1}, promoted, suppressed)
    assert live_latents.listed(float("nan")) == [] == live_latents.listed("")


def test_the_gain_of_steering_is_over_both_controls():
    assert live_latents.gain({"unsteered": 0.1, "steered": 0.6, "random": 0.3}) == pytest.approx(0.3)
    assert live_latents.gain({"unsteered": 0.4, "steered": 0.2, "random": 0.1}) == pytest.approx(-0.2)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("live")
    return folder, live_export.export(folder, n_texts=40, n_candidates=3)


def content(folder, part):
    """What a part hands to the page."""
    text = (folder / part["file"]).read_text("utf8")
    assert len(text.encode()) == part["bytes"]
    return json.loads(text.removeprefix(f"live.receive({json.dumps(part['name'])}, ").removesuffix(");\n"))


def test_the_parts_together_are_the_artefacts_to_the_bit(exported, target, model, sae):
    folder, manifest = exported
    written = (folder / "manifest.js").read_text("utf8").removeprefix("live.manifest = ").rstrip(";\n")
    assert json.loads(written) == manifest
    *weights, words = manifest["parts"]
    packed = b"".join(base64.b64decode(content(folder, part)) for part in weights)
    assert len(packed) == manifest["weightBytes"]
    numbers = np.frombuffer(packed, "<f2").astype("float32")
    tensors = {name: numbers[at : at + int(np.prod(shape))].reshape(shape) for name, shape, at in manifest["tensors"]}
    assert sum(tensor.size for tensor in tensors.values()) == numbers.size
    assert np.array_equal(tensors["sae.W_dec"], sae.W_dec.detach().numpy())
    assert np.array_equal(tensors["sae.b_enc"], sae.b_enc.detach().numpy())
    weights = {name.removeprefix("transformer."): w for name, w in original(model).items()}
    assert np.array_equal(tensors["wte.weight"], weights["wte.weight"])
    assert np.array_equal(tensors["h.3.mlp.c_fc.weight"], weights["h.3.mlp.c_fc.weight"])
    assert words["name"] == "words" and manifest["bytes"] == sum(part["bytes"] for part in manifest["parts"])
    assert manifest["bytes"] < 5_000_000  # "a few MB"


def original(model):
    """The weights as they are in the model's own file."""
    from safetensors.numpy import load_file

    return {k: v.astype("float32") for k, v in load_file(model.target.model_folder / "model.safetensors").items()}


def test_what_is_said_of_latents_and_steering(exported, target, model):
    folder, manifest = exported
    words = content(folder, manifest["parts"][-1])
    assert len(words["latents"]) == target.d_sae and len(words["tokens"]) == model.cfg.d_vocab
    assert words["measured"]["texts"] == 40 and words["measured"]["tokens"] > 500
    assert [row["latent"] for row in words["steering"]] and all(
        words["latents"][row["latent"]]["max"] > 0 and 0 <= row["random"] <= 1 for row in words["steering"])
    assert live_latents.gain(words["steering"][0]) > 0.1  # chosen on other texts, it steers on these too
    assert len(words["examples"]) > 5
    assert all(0 < len(text) <= live_latents.EXAMPLE for text in words["examples"].values())
    dead = [latent for latent in words["latents"] if latent["max"] == 0]
    assert all(latent["density"] == 0 and latent["on"] == [] for latent in dead)


def test_the_name_of_an_export_follows_what_it_is_made_from(tmp_path):
    for name in ("solutions/smallworld/artifacts/MANIFEST.json", "solutions/a.py", "book/_ext/live_export.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    names = {live_model.fingerprint(tmp_path)}
    for name in ("solutions/smallworld/artifacts/MANIFEST.json", "solutions/a.py", "book/_ext/live_export.py"):
        (tmp_path / name).write_text("2")
        names.add(live_model.fingerprint(tmp_path))
    (tmp_path / "solutions" / "notes.md").write_text("not a part of it")
    assert len(names | {live_model.fingerprint(tmp_path)}) == 4


def test_an_export_is_made_once_and_what_is_stale_goes(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(live_export, "export", lambda folder: made.append((folder / "manifest.js").write_text("x")))
    monkeypatch.setattr(live_model, "fingerprint", lambda: "first")
    first = live_model.exported(tmp_path / "live")
    assert live_model.exported(tmp_path / "live") == first and len(made) == 1
    monkeypatch.setattr(live_model, "fingerprint", lambda: "second")
    second = live_model.exported(tmp_path / "live")
    assert len(made) == 2 and [p.name for p in (tmp_path / "live").iterdir()] == [second.name]
    shutil.rmtree(second)
    monkeypatch.setattr(live_export, "export", lambda folder: 1 / 0)  # an export that fails leaves nothing
    with pytest.raises(ZeroDivisionError):
        live_model.exported(tmp_path / "live")
    assert not (tmp_path / "live" / "second").exists()


def test_the_site_gets_the_parts_that_the_manifest_names(tmp_path, monkeypatch):
    class App:
        class builder:  # noqa: N801
            format = "html"
        outdir = tmp_path / "html"

    source, there = tmp_path / "kept", tmp_path / "html" / "_static" / "live"
    for folder in (source, there):
        folder.mkdir(parents=True)
    (source / "manifest.js").write_text("new")
    (source / "part-0-new.js").write_text("0")
    (there / "manifest.js").write_text("old")
    (there / "part-0-old.js").write_text("0")
    (there / "page.js").write_text("the program stays")
    monkeypatch.setattr(live_model, "exported", lambda: source)
    live_model.copy_model(App)
    assert {p.name for p in there.iterdir()} == {"manifest.js", "part-0-new.js", "page.js"}
    assert (there / "manifest.js").read_text() == "new"


def test_only_the_live_page_loads_its_scripts():
    added = []

    class App:
        add_js_file = staticmethod(lambda name, **_: added.append(name))
        add_css_file = staticmethod(added.append)

    live_model.add_scripts(App, "book/index", "page.html", {"body": "<p>another page</p>"}, None)
    assert added == []
    live_model.add_scripts(App, "book/live", "page.html", {"body": markup()}, None)
    program = {f"live/{p.name}" for p in (ROOT / "book" / "_static" / "live").iterdir()}
    assert set(added) == program | {"live/manifest.js", "live/shades.css"}
