"""The real path, GPT-2 small and its published SAE, without a network: a hub cache made here, at the real shapes.

The weights are made up, so no number means anything; shapes, names, processing, messages and memory are real.
The slow tests run in a process of their own: the Hugging Face libraries read their settings once, at import.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hub_cache import fake_gpt2, fake_res_jb, make_model, snapshot

import solutions
from solutions import hub
from solutions.errors import ModelNotAvailable, NotAvailable
from solutions.models import load_model
from solutions.sae import load_sae
from solutions.targets import get_target

ROOT = Path(__file__).parent.parent

#: An address where nothing listens.
DEAD_END = "http://127.0.0.1:9"

END_TO_END = """
import json, resource, torch
from solutions.targets import get_target, neuronpedia_url
from solutions.data import tokenize, str_tokens
from solutions.models import describe_model, extract, generate, load_model, next_tokens
from solutions.sae import PreflightError, encode, l0, load_sae, preflight

target = get_target()
model, sae = load_model(target, "cpu"), load_sae(target, "cpu")
texts = ["The Eiffel Tower is in Paris.", "def add(x, y):\\n    return x + y"]
tokens = tokenize(model, texts)
acts = extract(model, tokens, [target.hook, target.wrong_hook])
features = encode(sae, acts[target.hook])
codes = []
for how in ({"hook": target.wrong_hook}, {"acts": acts[target.hook][:, 1:]}):
    try:
        preflight(model, sae, target, n_texts=2, **how)
    except PreflightError as error:
        codes.append(error.code)
report = preflight(model, sae, target)
print(json.dumps({
    "features": list(features.shape),
    "same_shape": acts[target.hook].shape == acts[target.wrong_hook].shape,
    "first_tokens": tokens.ids[:, 0].tolist(),
    "centred": acts[target.hook].mean(dim=-1).abs().max().item(),
    "parameters": int(describe_model(model)["value"]["parameters"]),
    "generated": len(generate(model, texts[0], 3)) > len(texts[0]),
    "rows": len(next_tokens(model, texts[0], 5)),
    "codes": codes,
    "l0": report.l0,
    "explained_variance": report.explained_variance,
    "neuronpedia": [sae.cfg.metadata.neuronpedia_id, neuronpedia_url(target, 10399)],
    "trained_with": sae.cfg.metadata.model_from_pretrained_kwargs,
    "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
}))
"""

PIPELINE = """
import json, os, resource, time, torch
from solutions.analysis import build_index
from solutions.data import open_texts, str_tokens, tokenize
from solutions.models import extract, harvest, load_model
from solutions.sae import evaluate_sae, facts_kept, load_sae
from solutions.targets import get_target
from solutions.visualization import feature_page_html

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

peaks, seconds, before = {}, {}, time.monotonic()

def done(step):
    global before
    peaks[step], seconds[step], before = peak(), time.monotonic() - before, time.monotonic()

target, scratch = get_target(), os.environ["SCRATCH"]
model, sae = load_model(target, "cpu"), load_sae(target, "cpu")
done("load")
texts = list(open_texts("smallworld", 12, split="test"))
store = harvest(model, texts, [target.hook, target.wrong_hook], scratch + "/store", context_size=32, dtype="float16",
                progress=False)
done("harvest")
tokens = tokenize(model, texts, context_size=32)
metrics = evaluate_sae(model, sae, tokens, target.hook)
facts = facts_kept(model, sae, ["The Eiffel Tower is in"] * 2, ["x", "y"], [["y"], ["x"]],
                   target.hook, mean=metrics.mean)
done("metrics")
vocabulary = str_tokens(model, torch.arange(model.cfg.d_vocab))
index = build_index(store, sae, target.hook, scratch + "/index", vocabulary=vocabulary, unembed=model.W_U,
                    progress=False)
done("index")
latent = int(index.n_active.argmax())
page = index.page(latent)
html = feature_page_html(page)
done("page")
held = store.read(target.hook, 0, store.n_tokens)
exact = extract(model, tokens, target.hook)[target.hook][tokens.mask]
print(json.dumps({
    "store": [store.n_tokens, store.n_content, store.width(target.hook), store.n_documents, len(store.hooks)],
    "tokens": [int(tokens.mask.sum()), tokens.n_content],
    "store_error": ((held - exact).norm() / exact.norm()).item(),
    "same_ids": torch.equal(store.ids, tokens.ids[tokens.mask]),
    "metrics": metrics.row(),
    "facts": [facts.n, facts.clean, len(facts.facts)],
    "index": [index.n_latents, index.n_content, index.nnz / index.n_content, index.explained_variance],
    "density_apart": (index.density().double() - metrics.density).abs().max().item(),
    "page": [page.latent == latent, page.n_active, len(page.intervals), len(page.positive), len(page.neighbours)],
    "promoted": [page.positive[0][0] in vocabulary, page.positive[0][1] > 0 > page.negative[0][1]],
    "html": [len(html), f"Latent {latent}" in html, "src=" in html, "://" in html],
    "peaks": peaks, "seconds": seconds,
}))
"""

NOTHING_THERE = """
import time
from solutions.errors import ModelNotAvailable
from solutions.models import load_model
from solutions.sae import load_sae
from solutions.targets import get_target

for load in (load_model, load_sae):
    start = time.monotonic()
    try:
        load(get_target(), "cpu")
    except ModelNotAvailable as error:
        print(error, f"NEXT {time.monotonic() - start:.1f} s")
"""


def run(code: str, home: Path, timeout: int = 300, **env: str) -> str:
    """Run code in a fresh Python with its own Hugging Face cache; fail with its error output when it fails."""
    clean = {
        k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_", "HUGGINGFACE_"))
    }
    clean |= {"HF_HOME": str(home), "MONOSEMANTIC_TARGET": "gpt2-small", "PYTHONPATH": str(ROOT)} | env
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=clean,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def home():
    """A Hugging Face home with GPT-2 small and one SAE in it: 650 MB, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="hub-") as folder:
        fake_gpt2(Path(folder, "hub"))
        fake_res_jb(Path(folder, "hub"))
        yield Path(folder)


@pytest.mark.slow
def test_end_to_end_at_the_real_shapes(home, capsys):
    """With everything in the cache no network is needed, and no setting that says so: the hub cannot be reached."""
    result = json.loads(run(END_TO_END, home, HF_ENDPOINT=DEAD_END).splitlines()[-1])
    with capsys.disabled():
        print(f"\n  GPT-2 small and its SAE, end to end: peak memory {result['peak_bytes'] / 1e9:.1f} GB")
    assert result["features"][0] == 2 and result["features"][2] == 24576 and result["same_shape"]
    assert result["first_tokens"] == [50256, 50256]
    assert result["centred"] < 1e-5
    assert result["parameters"] == 124_439_808
    assert result["generated"] and result["rows"] == 5
    assert result["codes"] == ["hook", "bos"]
    assert 0 < result["l0"] < 24576 and 0.5 < result["explained_variance"] < 1
    assert result["neuronpedia"] == [
        "gpt2-small/6-res-jb",
        "https://www.neuronpedia.org/gpt2-small/6-res-jb/10399",
    ]
    assert result["trained_with"] == {"center_writing_weights": True}
    assert result["peak_bytes"] < 8e9


@pytest.mark.slow
def test_the_whole_pipeline_at_the_real_shapes(home, tmp_path, capsys):
    """Harvest, store, metrics, feature index, dashboard page, on a handful of tokens: 768 wide, 24,576 latents."""
    said = run(PIPELINE, home, timeout=1800, HF_ENDPOINT=DEAD_END, SCRATCH=str(tmp_path))
    result = json.loads(said.splitlines()[-1])
    with capsys.disabled():
        peaks = ", ".join(f"{step} {size / 1e9:.1f}" for step, size in result["peaks"].items())
        print(f"\n  GPT-2 small through the pipeline: peak memory so far, in GB, after {peaks}")
    n_tokens, n_content = result["tokens"]
    assert result["store"] == [n_tokens, n_content, 768, 12, 2] and n_content == n_tokens - 12 > 100
    assert result["same_ids"] and result["store_error"] < 1e-3  # float16 on disk
    metrics = result["metrics"]
    assert metrics["n_tokens"] == metrics["n_predictions"] == n_content and metrics["d_sae"] == 24576
    assert metrics["fvu"] == pytest.approx(1 - metrics["explained_variance"])
    # The same numbers by another way: through the store and the index.
    n_latents, counted, l0, explained = result["index"]
    assert (n_latents, counted) == (24576, n_content)
    assert l0 == pytest.approx(metrics["l0"], rel=0.01)
    assert explained == pytest.approx(metrics["explained_variance"], abs=0.01)
    assert result["density_apart"] < 0.05
    assert result["facts"] == [2, 1, 2]  # of two opposite answers the model prefers one
    same, n_active, n_intervals, n_promoted, n_neighbours = result["page"]
    assert same and n_active > 0 and n_intervals > 0 and n_promoted == n_neighbours == 10
    assert result["promoted"] == [True, True]
    length, titled, loads, links = result["html"]
    assert length > 2000 and titled and not loads and not links
    assert max(result["peaks"].values()) < 8e9


def check_what_is_said(model: str, sae: str, why: str, cache: Path) -> None:
    for said, name in (
        (model, "the model 'gpt2'"),
        (sae, "the SAE gpt2-small-res-jb/blocks.6.hook_resid_pre"),
    ):
        assert f"{name} is not on this machine, and {why}" in said
        assert f"it goes to {cache}" in said
        assert "hf download" in said
        assert "`smallworld` works now" in said
    assert "config.json, model.safetensors" in model and "hf download gpt2" in model
    assert "hf download jbloom/GPT2-Small-SAEs-Reformatted" in sae and "sae_weights.safetensors" in sae


@pytest.mark.slow
def test_no_network_and_no_cache(tmp_path, capsys):
    model, sae, _ = run(NOTHING_THERE, tmp_path, timeout=120, HF_ENDPOINT=DEAD_END).split("NEXT")
    with capsys.disabled():
        print(f"\n  without network and cache the message about the model took {sae.splitlines()[0]}")
    check_what_is_said(model, sae, f"{DEAD_END} cannot be reached", tmp_path / "hub")


@pytest.fixture
def offline_cache(tmp_path, monkeypatch):
    """An empty hub cache for this process, with the network switched off by the reader."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(solutions, "SWITCHED_OFFLINE", False)
    return tmp_path / "hub"


def refusals() -> tuple[str, str]:
    """What load_model and load_sae say when they cannot load GPT-2."""
    said = []
    for load in (load_model, load_sae):
        with pytest.raises(ModelNotAvailable) as caught:
            load(get_target("gpt2-small"), "cpu")
        said.append(str(caught.value))
    return said[0], said[1]


def test_switched_off_and_no_cache(offline_cache):
    check_what_is_said(*refusals(), "HF_HUB_OFFLINE=1 forbids using the network", offline_cache)


def test_a_half_downloaded_cache_is_named(offline_cache):
    """A tokenizer that never came on one side, weights cut short on the other."""
    files = snapshot(offline_cache, "gpt2")
    make_model(files)
    (files / "tokenizer.json").unlink()
    weights = fake_res_jb(offline_cache, d_in=8, d_sae=16) / "sae_weights.safetensors"
    size = weights.stat().st_size
    os.truncate(weights, size // 2)
    model, sae = refusals()
    assert "the model 'gpt2' is only half downloaded" in model
    assert "missing:   tokenizer.json" in model and "hf download gpt2" in model
    assert f"sae_weights.safetensors: expected {size:,} bytes, found {size // 2:,}" in sae
    assert "Delete" in sae and "models--jbloom" in sae and "`smallworld` works now" in sae


def test_with_a_connection_the_model_is_downloaded_and_opened(offline_cache, online, monkeypatch):
    asked = []

    def download(repo: str, allow_patterns: list[str]) -> str:
        asked.append((repo, *allow_patterns))
        return str(make_model(snapshot(offline_cache, repo)))

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    target = replace(get_target("gpt2-small"), processing={})
    assert load_model(target, "cpu").cfg.d_model == 16
    assert load_model(target, "cpu").cfg.model_name == "gpt2"
    assert asked == [
        ("gpt2", "*.json", "*.txt", "*.safetensors", "tokenizer.model")
    ]  # the second time: cached


def test_a_download_that_breaks_off_is_one_message(offline_cache, online, monkeypatch):
    def download(repo: str, allow_patterns: list[str]) -> str:
        raise OSError("connection reset\nand forty more lines")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    for said in refusals():
        assert "could not download" in said and "OSError: connection reset\n" in said
        assert "Run the same line again" in said and "forty" not in said


@pytest.fixture
def online(offline_cache, monkeypatch):
    """A hub that answers."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "hub_answers", lambda: True)


def test_an_embedded_session_says_how_to_go_online(offline_cache, monkeypatch):
    monkeypatch.setattr(solutions, "SWITCHED_OFFLINE", True)
    with pytest.raises(NotAvailable, match="set MONOSEMANTIC_TARGET=gpt2-small before starting Python or"):
        hub.require_connection("the text 'x'")


# ---- asking the hub, in this process


def test_a_hub_that_never_answers_is_given_up_on(monkeypatch):
    from huggingface_hub import constants

    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub, "PATIENCE", 0.5)
        assert not hub.hub_answers()
        with pytest.raises(
            NotAvailable, match="the text 'x' has to be downloaded, and http://127.0.0.1.* reached"
        ):
            hub.require_connection("the text 'x'")


def test_a_sharded_model_with_a_shard_missing(tmp_path):
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(NotAvailable, match="lists model-00001-of-00002.safetensors, model-00002"):
        hub.check_files(tmp_path, "the model")


@pytest.mark.parametrize("content", [b"", b"1234567", b"\xff" * 40, b"\x08" + bytes(7) + b"not json"])
def test_nonsense_is_no_safetensors_file(tmp_path, content):
    file = tmp_path / "x.safetensors"
    file.write_bytes(content)
    assert "header" in hub.safetensors_problem(file)
