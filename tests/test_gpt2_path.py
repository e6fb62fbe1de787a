"""The real path, GPT-2 small and its published SAE, without a network: a hub cache made here, at the real shapes.

The weights are random, so no number means anything; shapes, names, processing, messages and memory are the real ones.
Each test runs in a process of its own, because the Hugging Face libraries read their settings once, at import.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hub_cache import fake_gpt2, fake_res_jb

from solutions import hub
from solutions.errors import NotAvailable

ROOT = Path(__file__).parent.parent

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
for how in ({}, {"hook": target.wrong_hook}, {"acts": acts[target.hook][:, 1:]}):
    try:
        preflight(model, sae, target, n_texts=2, **how)
    except PreflightError as error:
        codes.append(error.code)
report = preflight(model, sae, target, n_texts=2, allow={"explained_variance"})
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
    "neuronpedia": [sae.cfg.metadata.neuronpedia_id, neuronpedia_url(target, 10399)],
    "trained_with": sae.cfg.metadata.model_from_pretrained_kwargs,
    "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
}))
"""

LOAD_BOTH = """
import time
from solutions.errors import ModelNotAvailable
from solutions.models import load_model
from solutions.sae import load_sae
from solutions.targets import get_target
import sae_lens, transformer_lens  # so that the time below is the wait for the network alone

for load in (load_model, load_sae):
    start = time.monotonic()
    try:
        load(get_target(), "cpu")
    except ModelNotAvailable as error:
        print(error)
        print("SECONDS", time.monotonic() - start)
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
    result = json.loads(run(END_TO_END, home, HF_HUB_OFFLINE="1").splitlines()[-1])
    with capsys.disabled():
        print(f"\n  GPT-2 small and its SAE, end to end: peak memory {result['peak_bytes'] / 1e9:.1f} GB")
    assert result["features"][0] == 2 and result["features"][2] == 24576 and result["same_shape"]
    assert result["first_tokens"] == [50256, 50256]
    assert result["centred"] < 1e-5
    assert result["parameters"] == 124_439_808
    assert result["generated"] and result["rows"] == 5
    assert result["codes"] == ["explained_variance", "hook", "bos"]
    assert result["l0"] > 0
    assert result["neuronpedia"] == [
        "gpt2-small/6-res-jb",
        "https://www.neuronpedia.org/gpt2-small/6-res-jb/10399",
    ]
    assert result["trained_with"] == {"center_writing_weights": True}
    assert result["peak_bytes"] < 8e9


@pytest.mark.slow
def test_a_full_cache_needs_no_network_and_no_setting(home):
    code = "from solutions.targets import get_target as g; from solutions.models import load_model as m\n"
    code += (
        "from solutions.sae import load_sae; print(m(g(), 'cpu').cfg.d_model, load_sae(g(), 'cpu').cfg.d_sae)"
    )
    assert run(code, home, HF_ENDPOINT="http://127.0.0.1:9").split() == ["768", "24576"]


@pytest.mark.slow
@pytest.mark.parametrize("offline", [{"HF_ENDPOINT": "http://127.0.0.1:9"}, {"HF_HUB_OFFLINE": "1"}])
def test_no_network_and_no_cache(tmp_path, offline):
    said = run(LOAD_BOTH, tmp_path, timeout=120, **offline)
    model, sae = said.split("SECONDS")[:2]
    for part, name in (
        (model, "the model 'gpt2'"),
        (sae, "the SAE gpt2-small-res-jb/blocks.6.hook_resid_pre"),
    ):
        assert f"{name} is not on this machine" in part
        assert ("127.0.0.1:9 cannot be reached" in part) or ("HF_HUB_OFFLINE=1 forbids" in part)
        assert f"it goes to {tmp_path / 'hub'}" in part
        assert "hf download" in part
        assert "`smallworld` works now" in part
    assert "config.json, model.safetensors" in model
    assert "hf download jbloom/GPT2-Small-SAEs-Reformatted" in sae and "sae_weights.safetensors" in sae


@pytest.mark.slow
def test_a_half_downloaded_cache_is_named(home, tmp_path):
    """A tokenizer missing on one side, weights cut short on the other."""
    shutil.copytree(home / "hub", tmp_path / "hub", copy_function=os.link)
    (snapshot,) = (tmp_path / "hub" / "models--gpt2" / "snapshots").iterdir()
    (snapshot / "tokenizer.json").unlink()
    (weights,) = (tmp_path / "hub").glob("models--jbloom--*/snapshots/*/*/sae_weights.safetensors")
    size = weights.stat().st_size
    weights.unlink()  # a link: the original must stay whole
    with open(weights, "wb") as file, open(next(home.rglob("sae_weights.safetensors")), "rb") as whole:
        file.write(whole.read(size // 2))
    model, sae = run(LOAD_BOTH, tmp_path, timeout=120, HF_HUB_OFFLINE="1").split("SECONDS")[:2]
    assert "the model 'gpt2' is only half downloaded" in model
    assert "missing:   tokenizer.json" in model and "hf download gpt2" in model
    assert f"sae_weights.safetensors: expected {size:,} bytes, found {size // 2:,}" in sae
    assert "Delete" in sae and "models--jbloom" in sae and "`smallworld` works now" in sae


def test_an_embedded_session_says_how_to_go_online(tmp_path):
    code = "from solutions import hub\nprint(hub._why_offline())"
    said = run(code, tmp_path, MONOSEMANTIC_TARGET="smallworld")
    assert "set MONOSEMANTIC_TARGET=gpt2-small before starting Python" in said


# ---- asking the hub, in this process


def test_a_hub_that_never_answers_is_given_up_on(monkeypatch):
    from huggingface_hub import constants

    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub, "PATIENCE", 0.5)
        assert not hub.hub_answers(0.5)
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
