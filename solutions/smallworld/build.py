"""Remakes the embedded world from its seeds: text, tokenizer, language models, SAEs, transcoders, quality, manifest.

    python -m solutions.smallworld.build                      # everything; hours on a CPU, resumable
    python -m solutions.smallworld.build --stage saes quality # only these, from the models that are there
    python -m solutions.smallworld.build --miniature --out /somewhere   # all of it in small, in a minute

A stage is skipped when its inputs (settings, seeds, code, and the files it builds on) are those of the last time:
`MANIFEST.json` remembers them. What a stage makes appears at once, by renaming, or not at all.
"""
import argparse
import ast
import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from . import activations, artifacts, quality, train_saes, train_transcoders
from .corpus import SEEDS, documents
from .tokenizer import CONTEXT, label_tokens, load_tokenizer, token_rows, train_tokenizer
from .train_saes import Recipe
from .train_transcoders import TranscoderRecipe


@dataclass(frozen=True)
class Model:
    """A language model of the embedded world."""

    shape: str  # a name in `train_model.SHAPES`
    seed: int = 0  # added to the plan's


# The second mini is a control: what two models that differ in nothing but the seed have in common.
MODELS = {"smallworld": Model("gpt2"), "smallworld-llama": Model("llama"), "smallworld-mini": Model("gpt2-mini"),
          "smallworld-mini-2": Model("gpt2-mini", seed=1)}
STAGES = (*MODELS, "saes", "transcoders", "quality")
PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy")
# Here the stream holds which word of a repetition comes next, and one of a thousand latents is a poor name for it: an
# SAE that has met more copying text costs the model less.
COPYING_PLACE = "blocks.3.hook_resid_pre"
TEXT_CODE = ("concepts.py", "corpus.py", "grammar.py", "lexicon.py", "phrases.py", "tokenizer.py", "domains/*.py")
SAE_CODE = ("train_saes.py", "activations.py", "quality.py")
TRANSCODER_CODE = ("train_transcoders.py", "activations.py", "quality.py")


def sae_set(n_layers: int = 4, **changes) -> dict[str, list[Recipe]]:
    """The SAEs of each model: TopK everywhere, and at the middle layer every architecture at three widths."""
    middle = f"blocks.{n_layers // 2}.hook_resid_pre"
    places = [*(f"blocks.{i}.hook_resid_pre" for i in range(n_layers)), f"blocks.{n_layers - 1}.hook_resid_post",
              f"blocks.{n_layers // 2}.hook_mlp_out"]
    main = Recipe(middle, n_tokens=5_000_000, lr=8e-3)  # the SAE that most chapters read
    # Where activations have few dimensions that matter, a high rate kills the latents of rare tokens.
    rate = {"blocks.0.hook_resid_pre": 3e-3, f"blocks.{n_layers // 2}.hook_mlp_out": 2e-3}
    longer = {COPYING_PLACE: 6_000_000}
    recipes = [main, *(replace(main, hook=hook, lr=rate.get(hook, main.lr), n_tokens=longer.get(hook, main.n_tokens))
                       for hook in places if hook != middle)]
    recipes += [Recipe(middle, kind, width, lr=2e-3 if kind == "relu" else 6e-3)
                for kind in train_saes.SAVED_AS for width in (4, 8, 16) if (kind, width) != ("topk", 8)]
    # Half the layers: its middle is one block earlier. At both widths: as many latents per dimension, and as many.
    mini = [replace(main, hook=f"blocks.{n_layers // 4}.hook_resid_pre", width=width) for width in (8, 16)]
    sets = {"smallworld": recipes, "smallworld-llama": [main], "smallworld-mini": mini, "smallworld-mini-2": mini}
    return {model: [replace(recipe, **changes) for recipe in chosen] for model, chosen in sets.items()}


def transcoder_set(n_layers: int = 4, **changes) -> list[TranscoderRecipe]:
    """A transcoder for the MLP of every layer of `smallworld`."""
    return [TranscoderRecipe(layer, **changes) for layer in range(n_layers)]


@dataclass(frozen=True)
class Plan:
    """How large everything is. The defaults are those of the artefacts in this repository."""

    tokenizer_documents: int = 40_000
    rows: int = 144_000  # rows of 128 tokens that the language models are trained on, each read once
    late_rows: int = 56_000  # rows of the mix "giving", which take their place later in the training ...
    late_from: int = 11_000  # ... from this step of `smallworld` on, and of the other model at the same share
    steps: int = 18_000  # for `smallworld` and the mini ones
    llama_steps: int = 9_000
    polish_steps: int = 1_600  # a second, short training at small rates, on rows of "giving" that are new
    seed: int = 0
    sae_documents: int = 32_000  # activations are harvested on so many, about 1.5 million tokens
    copying_documents: int = 14_000  # more of it, for the SAE at `COPYING_PLACE`
    transcoder_documents: int = 16_000  # what the MLPs read and wrote is harvested on so many
    test_documents: int = quality.TEST_DOCUMENTS
    ngram_documents: int = quality.NGRAM_DOCUMENTS
    fingerprint_documents: int = 1_000
    saes: tuple[tuple[str, tuple[Recipe, ...]], ...] = tuple((m, tuple(r)) for m, r in sae_set().items())
    transcoders: tuple[TranscoderRecipe, ...] = tuple(transcoder_set())


MINIATURE = Plan(
    tokenizer_documents=1_500, rows=64, late_rows=16, late_from=4, steps=6, llama_steps=2, polish_steps=2,
    sae_documents=150, copying_documents=20, transcoder_documents=150,
    test_documents=40, ngram_documents=200, fingerprint_documents=40,
    saes=tuple((m, tuple(r[-2:])) for m, r in sae_set(n_tokens=20_000, batch=256).items()),
    transcoders=tuple(transcoder_set(n_tokens=20_000, batch=256)[-1:]))


# ------------------------------------------------------------------ what has been done before

class Workbench:
    """The folder being built, and the record of finished stages in its manifest."""

    def __init__(self, out: Path, plan: Plan):
        self.out, self.plan = out, plan
        self.work = out / ".work"  # intermediate files: never part of the artefacts, nor of a commit
        self.work.mkdir(parents=True, exist_ok=True)
        (self.work / ".gitignore").write_text("*\n")
        path = out / "MANIFEST.json"
        self.manifest = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"stages": {}, "files": {}}

    def is_done(self, stage: str, inputs: str, output: Path) -> bool:
        """Whether the stage was finished with these inputs and its output still stands. If so, it says so."""
        done = self.stands(stage, inputs, output)
        if done:
            tqdm.write(f"{stage}: up to date")
        return done

    def stands(self, stage: str, inputs: str, output: Path) -> bool:
        """The same, and not a word."""
        return self.manifest["stages"].get(stage, {}).get("inputs") == inputs and output.exists()

    def note(self, stage: str, inputs: str, seconds: float | None, **results) -> None:
        """Remembers a finished stage."""
        rounded = None if seconds is None else round(seconds, 1)
        self.manifest["stages"][stage] = {"inputs": inputs, "seconds": rounded} | results
        self.save()

    def save(self) -> None:
        """Writes the manifest: in one moment, by renaming."""
        part = self.out / "MANIFEST.json.part"
        part.write_text(json.dumps(self.manifest, indent=1) + "\n", encoding="utf-8")
        part.replace(self.out / "MANIFEST.json")

    def stage(self, name: str, inputs: str, output: Path, make: Callable[[], dict | None]) -> None:
        """Runs `make` unless it has been done with the same inputs; what it returns is remembered."""
        if self.is_done(name, inputs, output):
            return
        start = time.monotonic()
        results = make() or {}
        self.note(name, inputs, time.monotonic() - start, **results)


def digest(*inputs) -> str:
    """SHA-256 of anything JSON can write."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def code(*patterns: str) -> str:
    """What the modules of this package do, as a digest: comments, docstrings and layout do not count."""
    here = Path(__file__).parent
    paths = [path for pattern in patterns for path in sorted(here.glob(pattern))]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in paths]
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body[0] = ast.Pass()
    return digest([ast.unparse(tree) for tree in trees])


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A folder to write into that takes the place of `folder` when all is written."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    yield part
    shutil.rmtree(folder, ignore_errors=True)
    part.replace(folder)


# ------------------------------------------------------------------ the stages

def make_tokenizer(bench: Workbench) -> Path:
    """A folder with the world's tokenizer: byte-level BPE on the training text. The models get a copy each.

    Where a model stands that is the one this plan asks for, its copy is taken, though the text's code be newer: a model
    that joins the others is to read the same tokens.
    """
    for name in MODELS:
        if bench.stands(name, _model_inputs(bench.plan, name), bench.out / name):
            return bench.out / name
    folder, n = bench.work / "tokenizer", bench.plan.tokenizer_documents

    def make():
        with appearing(folder) as part:
            stream = tqdm(documents(SEEDS["train"], n, mix="school"), "text for the tokenizer", n)
            train_tokenizer((document.text for document in stream), part)

    bench.stage("tokenizer", digest(n, code(*TEXT_CODE)), folder, make)
    return folder


def make_model(bench: Workbench, name: str, device: str) -> None:
    """Trains a language model."""
    plan, folder = bench.plan, bench.out / name
    if bench.is_done(name, _model_inputs(plan, name), folder):
        return
    from .train_model import POLISH, ROWS_PER_STEP, train

    shape, seed = MODELS[name].shape, plan.seed + MODELS[name].seed
    tokenizer_folder = make_tokenizer(bench)
    rows, late_rows = (_rows(bench, tokenizer_folder, *part) for part in _texts(plan))
    last_rows = late_rows[-ROWS_PER_STEP * plan.polish_steps:]
    # Named by what it is made from, so that what an interrupted build of another plan left is never polished.
    rough, start = bench.work / f"{name}-{_model_inputs(plan, name)[:12]}", time.monotonic()
    if not rough.exists():
        train(rough, shape, rows, _steps(plan, name), tokenizer_folder, seed=seed, device=device,
              late_rows=late_rows[:plan.late_rows], late_from=_late_from(plan, name))
    train(folder, shape, last_rows, plan.polish_steps, tokenizer_folder, seed=seed, device=device, schedule=POLISH,
          start=rough)
    shutil.rmtree(rough)
    bench.note(name, _model_inputs(plan, name), time.monotonic() - start)


def adopt(bench: Workbench, name: str, seconds: float) -> None:
    """Takes a model that stands in its place as the one this plan asks for. `seconds`: how long it was trained."""
    if name not in models_in(bench.out):
        raise ValueError(f"--adopt expects a model ({', '.join(MODELS)}) that stands in {bench.out}; "
                         f"found no {name!r} there.")
    bench.note(name, _model_inputs(bench.plan, name), seconds)


def _steps(plan: Plan, name: str) -> int:
    return plan.llama_steps if name == "smallworld-llama" else plan.steps


def _model_inputs(plan: Plan, name: str) -> str:
    return digest(name, plan.tokenizer_documents, _texts(plan), _late_from(plan, name), _steps(plan, name),
                  plan.polish_steps, plan.seed, asdict(MODELS[name]), code(*TEXT_CODE, "train_model.py"))


def _late_from(plan: Plan, name: str) -> int:
    """The step from which the late rows are read."""
    return plan.late_from * _steps(plan, name) // plan.steps


def _texts(plan: Plan) -> list[tuple[str, int]]:
    """What the models read, first and last: (mix, rows)."""
    from .train_model import ROWS_PER_STEP

    return [("school", plan.rows), ("giving", plan.late_rows + ROWS_PER_STEP * plan.polish_steps)]


def _rows(bench: Workbench, tokenizer_folder: Path, mix: str, n_rows: int) -> np.ndarray:
    """Training rows, kept in the work folder while models are being trained."""
    tokens = (tokenizer_folder / "tokenizer.json").read_text(encoding="utf-8")
    path = bench.work / f"rows-{mix}-{digest(n_rows, code(*TEXT_CODE), tokens)[:12]}.npy"
    if not path.exists():
        tqdm.write(f"writing {n_rows} rows of text ({mix})")
        part = path.with_suffix(".part.npy")
        np.save(part, token_rows(load_tokenizer(tokenizer_folder), SEEDS["train"], n_rows, mix=mix))
        part.replace(path)
    return np.load(path)


@dataclass(frozen=True)
class Job:
    """One SAE to train and measure, for a process of its own."""

    recipe: Recipe
    acts: Path  # [n_tokens, d_model] float16
    model: Path
    folder: Path
    test_documents: int
    model_loss: float
    device: str
    threads: int


def make_saes(bench: Workbench, device: str, jobs: int) -> None:
    """Trains the SAEs whose recipe, model or code has changed, `jobs` of them at a time."""
    for name, recipes in bench.plan.saes:
        if name not in models_in(bench.out):
            tqdm.write(f"saes/{name}: no such model yet")
            continue
        weights = artifacts.sha256(bench.out / name / "model.safetensors")
        root = bench.out / "saes" / name
        keys = {r: digest(asdict(r), weights, bench.plan.sae_documents, bench.plan.test_documents, code(*SAE_CODE),
                          *([bench.plan.copying_documents] if r.hook == COPYING_PLACE else []))
                for r in recipes}
        todo = [r for r in recipes
                if not bench.is_done(f"saes/{name}/{r.sae_id}", keys[r], root / r.sae_id / "cfg.json")]
        if not todo:
            continue
        acts, model_loss = harvest(bench, name, sorted({r.hook for r in todo}), device)
        threads = max(torch.get_num_threads() // jobs, 1)
        work = [Job(r, acts / f"{r.hook}.npy", bench.out / name, root / r.sae_id, bench.plan.test_documents,
                    model_loss, device, threads) for r in todo]
        for job, seconds, measured in tqdm(run_jobs(work, jobs), f"SAEs of {name}", len(work), unit="SAE"):
            bench.note(f"saes/{name}/{job.recipe.sae_id}", keys[job.recipe], seconds, quality=measured)
            tqdm.write(f"  {job.recipe.sae_id}: " + ", ".join(
                f"{key} {measured[key]:.3f}" for key in ("explained_variance", "l0", "delta_loss", "dead", "facts")))
        shutil.rmtree(acts)


def harvest(bench: Workbench, name: str, hooks: list[str], device: str) -> tuple[Path, float]:
    """Activations on training text, one file for each hook in the folder returned, and the model's test loss."""
    model, tokenizer = quality.open_model(bench.out / name, device)
    rows = activations.to_rows(quality.texts("train", bench.plan.sae_documents), tokenizer, CONTEXT)
    folder = bench.work / f"activations-{name}"
    folder.mkdir(exist_ok=True)
    with tqdm(total=int(rows.real.sum()), desc=f"activations of {name}", unit="token") as bar:
        for hook, acts in activations.harvest(model, rows, hooks, bar.update).items():
            np.save(folder / f"{hook}.npy", acts.numpy())
    if COPYING_PLACE in hooks:
        more = documents(SEEDS["train"], bench.plan.copying_documents, domains=["copying"])
        rows = activations.to_rows((document.text for document in more), tokenizer, CONTEXT)
        acts = activations.harvest(model, rows, [COPYING_PLACE])[COPYING_PLACE].numpy()
        path = folder / f"{COPYING_PLACE}.npy"
        np.save(path, np.concatenate([np.load(path), acts]))
    test = activations.to_rows(quality.texts("test", bench.plan.test_documents), tokenizer, CONTEXT)
    return folder, quality.model_loss(model, test)


def run_jobs(work: list[Job], jobs: int) -> Iterator[tuple[Job, float, dict]]:
    """(job, seconds, quality) of each job as it is finished, in this process or in several."""
    if jobs == 1:
        yield from map(train_and_measure, work)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(train_and_measure, job) for job in work]):
            yield future.result()


def train_and_measure(job: Job) -> tuple[Job, float, dict]:
    """Trains one SAE, saves it, and measures what has been saved."""
    torch.set_num_threads(job.threads)
    start = time.monotonic()
    acts = torch.from_numpy(np.load(job.acts, mmap_mode="c")).to(job.device)
    sae = train_saes.train(acts, job.recipe)
    with appearing(job.folder) as part:
        dataset = f"solutions.smallworld.corpus, seed {SEEDS['train']}"
        train_saes.save(sae, part, job.recipe, job.model.name, CONTEXT, dataset)
    model, tokenizer = quality.open_model(job.model, job.device)
    rows = activations.to_rows(quality.texts("test", job.test_documents), tokenizer, CONTEXT)
    saved, recipe = train_saes.load(job.folder)
    measured = quality.evaluate_sae(model, tokenizer, saved, recipe.hook, rows, job.model_loss)
    return job, time.monotonic() - start, measured


def make_transcoders(bench: Workbench, device: str) -> None:
    """Trains the transcoders of `smallworld` whose recipe, model or code has changed, one after the other."""
    name, recipes, documents_read = "smallworld", bench.plan.transcoders, bench.plan.transcoder_documents
    if name not in models_in(bench.out):
        tqdm.write(f"transcoders/{name}: no such model yet")
        return
    weights, root = artifacts.sha256(bench.out / name / "model.safetensors"), bench.out / "transcoders" / name
    keys = {r: digest(asdict(r), weights, documents_read, bench.plan.test_documents, code(*TRANSCODER_CODE))
            for r in recipes}
    todo = [r for r in recipes if not bench.is_done(
        f"transcoders/{name}/{r.transcoder_id}", keys[r], root / r.transcoder_id / "cfg.json")]
    if not todo:
        return
    model, tokenizer = quality.open_model(bench.out / name, device)
    rows = activations.to_rows(quality.texts("train", documents_read), tokenizer, CONTEXT)
    test = activations.to_rows(quality.texts("test", bench.plan.test_documents), tokenizer, CONTEXT)
    loss = quality.model_loss(model, test)
    with tqdm(total=int(rows.real.sum()), desc=f"MLPs of {name}", unit="token") as bar:
        pairs = train_transcoders.harvest(model, rows, [r.layer for r in todo], bar.update)
    for recipe in tqdm(todo, f"transcoders of {name}", unit="transcoder"):
        start, folder = time.monotonic(), root / recipe.transcoder_id
        trained = train_transcoders.train(pairs.pop(recipe.layer), recipe)
        with appearing(folder) as part:
            dataset = f"solutions.smallworld.corpus, seed {SEEDS['train']}"
            train_transcoders.save(trained, part, recipe, name, CONTEXT, dataset)
        saved = train_transcoders.load(folder)
        measured = train_transcoders.evaluate(model, tokenizer, saved, recipe.layer, test, loss)
        bench.note(f"transcoders/{name}/{recipe.transcoder_id}", keys[recipe], time.monotonic() - start,
                   quality=measured)


def measure(bench: Workbench, device: str) -> None:
    """The quality table of each language model."""
    sizes = {"n_test": bench.plan.test_documents, "n_ngram": bench.plan.ngram_documents}
    for name in models_in(bench.out):
        folder = bench.out / name
        inputs = digest(artifacts.sha256(folder / "model.safetensors"), sizes,
                        code(*TEXT_CODE, "quality.py", "probes.py", "ngrams.py"))
        bench.stage(f"quality/{name}", inputs, folder,
                    lambda folder=folder: {"quality": quality.evaluate(folder, device=device, **sizes)})


def models_in(out: Path) -> list[str]:
    """The language models that are there; while the world is being made, one may be missing."""
    return [name for name in MODELS if (out / name / "model.safetensors").exists()]


def fingerprint(tokenizer, n: int) -> dict[str, dict]:
    """SHA-256 of the text, the labels and the tokens of the first `n` documents of each split."""
    result = {}
    for split, seed in SEEDS.items():
        text, labels, tokens = (hashlib.sha256() for _ in range(3))
        for document in documents(seed, n):
            labelled = label_tokens(document, tokenizer)
            text.update(document.text.encode() + b"\0")
            labels.update(np.packbits(labelled.labels).tobytes())
            tokens.update(labelled.ids.astype("<i8").tobytes())
        result[split] = {"documents": n, "text": text.hexdigest(), "labels": labels.hexdigest(),
                         "tokens": tokens.hexdigest()}
    return result


def finish(bench: Workbench) -> None:
    """Fills in the manifest: seeds, versions, sizes, checksums, and the quality measured by the stages."""
    stages = bench.manifest["stages"]
    wanted = {f"saes/{model}/{recipe.sae_id}" for model, recipes in bench.plan.saes for recipe in recipes}
    wanted |= {f"transcoders/smallworld/{recipe.transcoder_id}" for recipe in bench.plan.transcoders}
    for stale in [name for name in stages if name.startswith(("saes/", "transcoders/")) and name not in wanted]:
        del stages[stale]
        shutil.rmtree(bench.out / stale, ignore_errors=True)
    models = models_in(bench.out)
    files = artifacts.describe_files(bench.out, [*models, "saes", "transcoders"])
    table = {name: dict(stages.get(f"quality/{name}", {}).get("quality", {})) for name in models}
    for name in table:
        for kind in ("saes", "transcoders"):
            table[name][kind] = {stage.split("/")[2]: record["quality"]
                                 for stage, record in sorted(stages.items()) if stage.startswith(f"{kind}/{name}/")}
    bench.manifest = {
        "seeds": SEEDS | {"model": bench.plan.seed, "sae": 0},
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
        | {"sae_lens_format": train_saes.SAE_LENS_VERSION},
        "text": fingerprint(load_tokenizer(bench.out / "smallworld"), bench.plan.fingerprint_documents),
        "bytes": sum(entry["bytes"] for entry in files.values()),
        "wall_time_s": {name: record["seconds"] for name, record in stages.items()},
        "quality": table, "files": files,
        "stages": stages,
    }
    bench.save()


def build(out: Path = artifacts.ARTIFACTS, plan: Plan | None = None, stages: tuple[str, ...] = STAGES,
          device: str = "cpu", jobs: int = 1, adopted: dict[str, float] | None = None) -> dict:
    """Runs the stages and returns the manifest. `adopted`: {model: seconds it was trained}, see `adopt`."""
    bench = Workbench(out, plan or Plan())
    for name, seconds in (adopted or {}).items():
        adopt(bench, name, seconds)
    for name in MODELS:
        if name in stages:
            make_model(bench, name, device)
    if "saes" in stages:
        make_saes(bench, device, jobs)
    if "transcoders" in stages:
        make_transcoders(bench, device)
    if "quality" in stages:
        measure(bench, device)
    finish(bench)
    return bench.manifest


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m solutions.smallworld.build", description=__doc__.split("\n")[0])
    parser.add_argument("--stage", nargs="+", choices=STAGES, default=STAGES, metavar="STAGE",
                        help=f"only these: {', '.join(STAGES)}")
    parser.add_argument("--out", type=Path, default=None, help="folder to build in (default: the artefacts themselves)")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, mps")
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, 4), help="SAEs trained at a time")
    parser.add_argument("--miniature", action="store_true", help="everything in small, to see that it runs")
    parser.add_argument("--adopt", nargs="+", default=[], metavar="MODEL=SECONDS",
                        help="take models that were trained elsewhere (for so long) and stand in their place as done")
    given = parser.parse_args(arguments)
    if given.miniature and given.out is None:
        parser.error("--miniature needs --out: it would replace the real artefacts with toys.")
    adopted = {name: float(seconds) for name, _, seconds in (text.partition("=") for text in given.adopt)}
    out, plan = given.out or artifacts.ARTIFACTS, MINIATURE if given.miniature else Plan()
    manifest = build(out, plan, tuple(given.stage), given.device, given.jobs, adopted)
    print(f"{len(manifest['files'])} files, {manifest['bytes'] / 1e6:.1f} MB, in {out}")


if __name__ == "__main__":
    main()
