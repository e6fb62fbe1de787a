"""The feature index: what it costs to make, what a question costs, and how much memory it takes.

Two indices: one of the embedded target, and a made-up one of 24,576 latents × 1,000,000 tokens with about 50 active
latents a token, whose entries are drawn from a generator and go through the same writing, transposition and reading.
Some latents are a thousand times as dense as others, as in a real SAE. Half of the latents asked about are drawn
evenly, half in proportion to how often they are active (those are the ones a reader meets).

    python -m tests.benchmarks index [--quick]

With SAE_DASHBOARD_PYTHON set to the Python of an environment that has sae-dashboard, the same model, tokens and
latents go through it, too (its pins do not fit ours, so it needs an environment of its own). The promise is one for
24,576 latents, the SAE of GPT-2 small. Of a small SAE most of the cost is the one forward pass over the text, which
fewer latents share: the embedded SAEs are listed without a limit.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from tests.benchmarks.measuring import one_thread, status

LIMIT_MS = 50.0       # for any question, 95th percentile
LIMIT_RATIO = 20.0    # times cheaper than sae-dashboard, per latent, at the shapes of GPT-2's SAE
CONTEXT = 64


def row(name: str, value: float | None, unit: str, limit: float | None = None, better: str = "less",
        note: str = "") -> dict:
    """One line of the table. `ok` is None when there is no limit or nothing was measured."""
    met = None
    if value is not None and limit is not None:
        met = bool(value <= limit if better == "less" else value >= limit)
    return {"name": f"index: {name}", "value": value, "unit": unit, "limit": limit, "ok": met, "note": note}


def run(quick: bool) -> list[dict]:
    """All rows of this bench: name, value, unit, limit, ok, note."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(prefix="bench-index-") as folder:
        return [*embedded_rows(Path(folder), quick), *gpt2_rows(Path(folder), quick),
                *synthetic_rows(Path(folder), quick)]


# -------------------------------------------------------------------------------------------- measuring

@contextmanager
def peak_memory() -> Iterator[SimpleNamespace]:
    """Own memory above what was there before, MB. Mapped files do not count: the system takes them back at need."""
    def own() -> float:
        try:
            return status("RssAnon") / 1024
        except (OSError, StopIteration):  # not Linux
            return float("nan")

    found, done, start = SimpleNamespace(mb=0.0), threading.Event(), own()

    def watch() -> None:
        while not done.wait(0.01):
            found.mb = max(found.mb, own() - start)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


def timed(ask: Callable[[int], object], about: list[int]) -> tuple[float, float, float]:
    """Milliseconds: median and 95th percentile of the wall time, 95th percentile of the CPU time."""
    wall, cpu = [], []
    for x in about:
        start, used = time.perf_counter(), time.thread_time()
        ask(x)
        wall.append(1e3 * (time.perf_counter() - start))
        cpu.append(1e3 * (time.thread_time() - used))
    return float(np.median(wall)), float(np.quantile(wall, 0.95)), float(np.quantile(cpu, 0.95))


def question_rows(what: str, index, n: int, concepts=None) -> list[dict]:
    """Every kind of question, asked about n latents, tokens or documents each."""
    dice = np.random.default_rng(0)
    active = index.n_active.numpy()
    live = np.flatnonzero(active)
    often = dice.choice(live, n - n // 2, p=active[live] / active.sum())
    latents = np.concatenate([dice.choice(live, n // 2), often])
    content = np.flatnonzero(~index.is_bos.numpy())
    places, documents = dice.choice(content, n), dice.integers(0, index.n_documents, n)
    words = index.ids.numpy()[places]  # in proportion to how common they are
    outside = [index.document(int(d)).dense()[1:] for d in documents[:8]]
    index.top_of_text(0), index.find(int(words[0]))  # what is read once, when a session begins
    questions: dict[str, tuple[Callable, np.ndarray]] = {
        "latent": (index.latent, latents),
        "histogram": (index.histogram, latents),
        "intervals": (index.intervals, latents),
        "top examples": (index.examples, latents),
        "examples of an interval": (lambda j: index.examples(j, 5, interval=index.intervals(j)[-1]), latents),
        "co-firing": (index.cofiring, latents),
        "neighbours": (index.nearest, latents),
        "whole page": (lambda j: index.page(j, concepts=concepts), latents),
        "token": (index.token, places),
        "top latents of a token": (index.top_of_token, places),
        "top latents of a text": (lambda i: index.top_of_text(outside[i % 8]), np.arange(n)),
        "two texts": (lambda i: index.compare(outside[i % 8], outside[(i + 1) % 8]), np.arange(n)),
        "top latents of a document": (index.top_of_text, documents),
        "places of a token": (index.find, words),
        "latents of a token": (index.search_token, words),
        "worst reconstructed tokens": (lambda _: index.worst_tokens(), np.arange(min(n, 20))),
        "error by token": (lambda _: index.error_by_token(), np.arange(min(n, 20))),
    }
    rows = []
    for name, (ask, about) in questions.items():
        median, slow, cpu = timed(ask, [int(x) for x in about])
        note = f"median {median:.1f} ms; CPU time at the 95th percentile {cpu:.1f} ms"
        rows.append(row(f"{what}, {name}, 95th percentile", slow, "ms", LIMIT_MS, note=note))
    return rows


# ------------------------------------------------------------------------------------ the embedded target

def embedded_rows(folder: Path, quick: bool) -> list[dict]:
    """Harvest, index and read all pages of the target's SAE, and of a wider one; the same through sae-dashboard.

    sae-dashboard runs the model again for every 256 latents, so it is a wider SAE that shows what one pass saves.
    """
    from solutions.data import load_texts, str_tokens, tokenize
    from solutions.models import load_model
    from solutions.targets import get_target

    target = get_target("smallworld")
    model = load_model(target, "cpu")
    wanted = 200 if quick else 1600
    texts = []  # rows of one length, so that both tools read exactly the same tokens
    for text in load_texts(target, 4 * wanted):
        if len(texts) < wanted and tokenize(model, text.text).ids.shape[1] >= CONTEXT:
            texts.append(text.text)
    vocabulary = str_tokens(model, torch.arange(model.cfg.d_vocab))

    rows, index = [], None
    for name in (target.sae_id, widest(target)):
        chosen = dataclasses.replace(target, sae_id=name)
        here = Path(tempfile.mkdtemp(dir=folder))
        with one_thread():
            found, cost = cost_of_all_pages(chosen, texts, model, vocabulary, here)
        index = index or found
        rows += [*cost, against_sae_dashboard(chosen, texts, model, cost[0]["value"], here, found.n_latents)]
    return rows + question_rows("embedded", index, 40 if quick else 200)


def widest(target) -> str:
    """The widest embedded SAE at the same place and of the same kind as the target's."""
    from solutions import hub

    kind = target.sae_id.rsplit(".", 1)[0]
    saes = hub.embedded(f"saes/{target.sae_release}")
    return max((path.name for path in saes.glob(f"{kind}.*x")), key=lambda name: int(name.rsplit(".", 1)[1][:-1]))


def cost_of_all_pages(target, texts, model, vocabulary, folder: Path, context: int = CONTEXT,
                      n_pages: int | None = None) -> tuple:
    """Harvest, index all latents and read their pages; the index, and rows of what a latent cost.

    n_pages: read so many pages only, and reckon that the others cost as much each.
    """
    from solutions.analysis import build_index
    from solutions.models import unembedding
    from solutions.models.harvest import harvest
    from solutions.sae import load_sae

    sae = load_sae(target, "cpu")
    start, used = time.perf_counter(), time.process_time()
    store = harvest(model, texts, target.hook, folder / "store", context_size=context, progress=False)
    harvested = time.process_time() - used
    with peak_memory() as memory:
        index = build_index(store, sae, target.hook, folder / "index", vocabulary=vocabulary,
                            unembed=unembedding(model), progress=False)
    built = time.process_time() - used - harvested
    n_pages = n_pages or index.n_latents
    for j in range(n_pages):
        index.page(j)
    wall, pages = time.perf_counter() - start, time.process_time() - used - harvested - built
    pages *= index.n_latents / n_pages
    cpu = harvested + built + pages
    n, shape = index.n_latents, f"{sae.cfg.d_sae:,} latents × {index.n_content:,} tokens"
    dense = store.n_content * n * 4 / 2**20
    return index, [
        row("cost per latent, model to page", 1e3 * cpu / n, "ms CPU", note=f"{shape}, one thread; harvest "
            f"{harvested:.1f} s, build {built:.1f} s, all pages {pages:.1f} s; wall {wall:.1f} s"),
        row("memory to build", memory.mb, "MB", note=f"{shape}, which dense would take {dense:,.0f} MB"),
    ]


def against_sae_dashboard(target, texts, model, ours_ms: float, folder: Path, n_latents: int,
                          context: int = CONTEXT, limit: float | None = None) -> dict:
    """CPU time per latent of sae-dashboard over ours, on the same model, tokens and latents."""
    from solutions import hub
    from solutions.data import tokenize

    name = "times cheaper than sae-dashboard, per latent"
    python = os.environ.get("SAE_DASHBOARD_PYTHON")
    if not python:
        return row(name, None, "×", limit, "more", "skipped: SAE_DASHBOARD_PYTHON is not set")
    from safetensors.torch import save_file

    save_file({"tokens": tokenize(model, texts, context_size=context).ids}, folder / "tokens.safetensors")
    own_model, own_sae = Path(target.model), Path(target.sae_release) / target.sae_id
    job = {"model": str(own_model if own_model.is_dir() else hub.embedded(target.model)), "hook": target.hook,
           "sae": str(own_sae if own_sae.is_dir() else hub.embedded(f"saes/{target.sae_release}/{target.sae_id}")),
           "tokens": str(folder / "tokens.safetensors"), "n_latents": n_latents, "context": context}
    script = Path(__file__).with_name("sae_dashboard_run.py")
    threads = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([python, str(script)], input=json.dumps(job), capture_output=True, text=True,
                          env={**os.environ, **threads})
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return row(name, None, "×", limit, "more", f"skipped: sae-dashboard did not run ({last[:150]})")
    theirs = json.loads(done.stdout.strip().splitlines()[-1])
    per_latent = 1e3 * theirs["cpu"] / n_latents
    return row(name, per_latent / ours_ms, "×", limit, "more",
               f"sae-dashboard {theirs['version']}: {per_latent:.1f} ms CPU per latent, peak {theirs['peak_gb']:.1f} "
               f"GB; ours {ours_ms:.1f} ms; {n_latents:,} latents × {theirs['n_tokens']:,} tokens")


# ----------------------------------------------------------------------------------- at GPT-2's real shapes

def gpt2_rows(folder: Path, quick: bool) -> list[dict]:
    """The same at the shapes of GPT-2 small and of its SAE with 24,576 latents; the weights are made up.

    sae-dashboard makes 512 of the latents (two of its batches): it does the same work for every 256.
    """
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from hub_cache import fake_gpt2

    from solutions.data import load_texts, str_tokens, tokenize
    from solutions.models import load_model
    from solutions.targets import Target, get_target

    context, n_texts, n_latents = 128, 4 if quick else 64, 16 if quick else 512
    target = Target(
        name="random", model=str(fake_gpt2(folder / "hub")), hook="blocks.6.hook_resid_pre",
        sae_release=str(folder / "saes"), sae_id="wide", d_in=768, d_sae=24_576, context_size=context,
        wrong_hook="blocks.6.hook_mlp_out",
    )
    random_sae(folder / "saes" / "wide", target)
    model = load_model(target, "cpu")
    texts = []
    for text in load_texts(get_target("smallworld"), 2000):
        if len(texts) < n_texts and tokenize(model, text.text, context_size=context).ids.shape[1] == context:
            texts.append(text.text)
    vocabulary = str_tokens(model, torch.arange(model.cfg.d_vocab))
    with one_thread():
        _, cost = cost_of_all_pages(target, texts, model, vocabulary, folder, context, n_latents)
    for line in cost:
        line["name"] = line["name"].replace("index: ", "index: GPT-2's shapes, ")
    against = against_sae_dashboard(target, texts, model, cost[0]["value"], folder, n_latents, context, LIMIT_RATIO)
    return [*cost, against]


def random_sae(folder: Path, target, k: int = 32) -> None:
    """A TopK SAE of random directions, in SAELens's format."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    directions = torch.nn.functional.normalize(torch.randn(target.d_sae, target.d_in), dim=1)
    weights = {"W_enc": directions.T.contiguous(), "b_enc": torch.zeros(target.d_sae),
               "W_dec": directions, "b_dec": torch.zeros(target.d_in)}
    save_file(weights, folder / "sae_weights.safetensors")
    metadata = {"sae_lens_version": "6.54.12", "model_name": target.name, "hook_name": target.hook,
                "prepend_bos": True, "context_size": target.context_size}
    config = {"architecture": "topk", "d_in": target.d_in, "d_sae": target.d_sae, "k": k, "dtype": "float32",
              "device": "cpu", "apply_b_dec_to_input": True, "normalize_activations": "none",
              "reshape_activations": "none", "rescale_acts_by_decoder_norm": False, "metadata": metadata}
    (folder / "cfg.json").write_text(json.dumps(config), encoding="utf-8")


# ----------------------------------------------------------------------------------- at a real SAE's size

def synthetic_rows(folder: Path, quick: bool) -> list[dict]:
    """The made-up index: how long its writing takes without the SAE, its size, opening it, all questions."""
    from solutions.analysis import FeatureIndex

    n_latents, n_tokens = (4096, 100_000) if quick else (24_576, 1_000_000)
    start = time.perf_counter()
    with peak_memory() as memory:
        path, writing = write_synthetic(folder / "synthetic", n_latents, n_tokens)
    everything = time.perf_counter() - start
    note = f"{n_latents:,} latents × {n_tokens:,} tokens; with making the entries up {everything:.0f} s"
    start = time.perf_counter()
    index = FeatureIndex(path)
    opened = time.perf_counter() - start
    size = sum(file.stat().st_size for file in path.iterdir()) / 1e6
    per_token = index.nnz / index.n_content
    return [
        row("large, files and transposition", writing, "s", note=note),
        row("large, memory to write", memory.mb, "MB", note=f"of {size:,.0f} MB of files; L0 {per_token:.1f}"),
        row("large, opening with all checksums", opened, "s", note=f"{size:,.0f} MB"),
        *question_rows("large", index, 40 if quick else 200),
    ]


def write_synthetic(path: Path, n_latents: int, n_tokens: int, l0: int = 50, length: int = 128) -> tuple[Path, float]:
    """An index of made-up entries, and the seconds that writing it took (making the entries up left out)."""
    from solutions.analysis.index import build, layout

    dice = np.random.default_rng(0)
    density = dice.lognormal(0, 2, n_latents)
    for _ in range(50):  # none is active on more than half of the tokens
        density = np.minimum(density * l0 / density.sum(), 0.5)
    counts, per_latent = np.zeros(n_tokens, np.int64), np.zeros(n_latents, np.int64)
    maximum, position = np.zeros(n_latents, np.float32), np.arange(n_tokens) % length
    ids = np.minimum(dice.zipf(1.2, n_tokens), 50_256)
    ids[position == 0] = 0
    with layout.appearing(path) as folder:
        with open(folder / ".latents", "wb") as latents_file, open(folder / ".values", "wb") as values_file:
            for first in range(0, n_tokens, 10_000):
                m = min(10_000, n_tokens - first)
                latents = np.repeat(np.arange(n_latents), dice.poisson(m * density))
                key = np.unique(dice.integers(0, m, len(latents)) * n_latents + latents)
                tokens, latents = key // n_latents, (key % n_latents).astype(np.int32)
                kept = position[first + tokens] > 0
                tokens, latents = tokens[kept], latents[kept]
                values = dice.exponential(2.0, len(latents)).astype(np.float32) + 0.01
                counts[first:first + m] = np.bincount(tokens, minlength=m)
                per_latent += np.bincount(latents, minlength=n_latents)
                np.maximum.at(maximum, latents, values)
                latents.tofile(latents_file)
                values.tofile(values_file)
        start = time.perf_counter()
        noise = dice.random(n_tokens).astype(np.float32)
        error = np.where(position > 0, noise, 0).astype(np.float32)
        found = build._Found(int(counts.sum()), int((position > 0).sum()), counts, per_latent, maximum, error,
                             noise + 1, float(error.sum()), 2.0 * n_tokens)
        build._write_by_token(folder, counts, found.nnz)
        build._write_by_latent(folder, found, n_latents, progress=False)
        place = SimpleNamespace(ids=ids, document=np.arange(n_tokens) // length, position=position,
                                is_bos=position == 0, test=np.zeros(n_tokens, bool))
        build._write_places(folder, place, found)
        generator = torch.Generator().manual_seed(0)
        sae = SimpleNamespace(W_dec=torch.randn(n_latents, 64, generator=generator))
        build._write_decoder(folder, sae, torch.randn(64, 5_000, generator=generator), None)
        (folder / "vocabulary.json").write_text(json.dumps([f" t{i}" for i in range(50_257)]), encoding="utf-8")
        layout.write_manifest(folder, {
            "hook": "made.up", "store": {}, "sae": {}, "vocabulary": None, "logits": True, "n_tokens": n_tokens,
            "n_content": found.n_content, "n_latents": n_latents, "n_documents": -(-n_tokens // length),
            "nnz": found.nnz, "squared_error": found.squared_error, "variance": found.variance})
        writing = time.perf_counter() - start
    return path, writing
