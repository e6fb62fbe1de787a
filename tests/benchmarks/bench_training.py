"""What a training step costs: ours against SAELens's, and against the products that it cannot do without.

Ours is a step of our trainer (`Run.advance`), theirs one of `SAETrainer.step`: forward, backward, clipping, Adam and
the book-keeping of both. They are trained on the same activations, with the same widths, batch, learning rate and
precision. What is compared runs in turns, in one process, and the median of the pairs' ratios is reported.

The limit of a sparse step is its one dense product, the encoder, into memory that is there already. Dense steps are
given beside the five products that a step without sparsity needs.

ReLU and JumpReLU begin dense and become sparse as they train. Their ratio is over a whole (short) run of ours, every
step of it timed, against as many steps of SAELens's, whose step costs the same throughout and is timed in between.

The narrow shape is trained on activations of the embedded model, which has its width; the loss reached is compared
there, too. For the wide shapes activations are made up: sums of some of 4d directions, with noise. They are what an SAE
is made for, so L0 and the share of dense steps are those of training, not of random numbers.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tests.benchmarks.measuring import Took, status, timed


class Shape(NamedTuple):
    """Widths and batch of a step."""

    d: int
    latents: int
    batch: int
    k: int
    faster: float
    """How many times faster than SAELens's a TopK step of ours is to be."""
    pairs: int
    steps: int
    """Of a whole run of ReLU or JumpReLU; 0 for none."""

    def __str__(self) -> str:
        return f"d {self.d}, {self.latents:,} latents, batch {self.batch:,}"


SHAPES = (
    Shape(128, 1024, 4096, 16, 2.5, 20, 0),
    Shape(768, 6144, 2048, 32, 5.0, 6, 80),
    Shape(768, 24576, 1024, 32, 5.0, 4, 60),
)
QUICK = (Shape(32, 256, 256, 8, 2.5, 2, 0), Shape(48, 512, 128, 8, 5.0, 2, 20))

#: Share of the encoder-only limit that a sparse step is to reach.
NEAR = 0.55
#: How many times faster a whole run of ReLU or JumpReLU is to be.
RUN_FASTER = 2.0
#: The penalties of the whole runs, and the learning rate: high, for the runs are short.
RUNS = {"relu": {"l1": 2.0}, "jumprelu": {"l0_penalty": 2.0}}
LR = 6e-3
#: What the losses are compared with, on activations of the embedded model.
LOSSES = {"relu": {"l1": 1.0}, "topk": {}, "batchtopk": {}, "jumprelu": {"l0_penalty": 0.5}}
LOSS_LR, LOSS_STEPS = 4e-3, 350


def row(name: str, value: float | None, unit: str = "×", least: float | None = None, note: str = "") -> dict:
    """One line of the table."""
    met = None if value is None or least is None else value >= least
    return {"name": f"training: {name}", "value": value, "unit": unit, "limit": least, "ok": met, "note": note}


def run(quick: bool) -> list[dict]:
    """All rows of this bench."""
    shapes, rows = QUICK if quick else SHAPES, []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for shape in shapes:
            x = activations(shape, (4 if shape.steps else 8) * shape.batch)
            for architecture in ("topk", "batchtopk"):
                rows += step_rows(architecture, shape, x)
            for architecture in RUNS if shape.steps else ():
                rows += run_rows(architecture, shape, x)
            if shape.latents < 20_000:  # the widest would take minutes, and lies no higher
                rows += crossover_rows(shape, x, quick)
        # A quarter of the batch, to have enough steps: it is the course of training that counts here.
        rows += loss_rows(shapes[0]._replace(batch=shapes[0].batch // 4), 20 if quick else LOSS_STEPS)
    if quick:  # too small to promise anything
        rows = [line | {"limit": None, "ok": None} for line in rows]
    return rows


def activations(shape: Shape, n: int) -> Tensor:
    """[n, d] activations: of the embedded model where the width is its own, made up elsewhere."""
    from solutions.targets import get_target

    target = get_target("smallworld")
    if shape.d != target.d_in:
        return made_up(shape.d, n)
    x = embedded(target)
    return x.repeat(-(-n // len(x)), 1)[:n]


@functools.cache
def embedded(target: Any) -> Tensor:
    """[some 40,000, d] activations of a target's model at its hook point, in random order."""
    from solutions.data import open_texts
    from solutions.models import harvest, load_model

    with tempfile.TemporaryDirectory() as folder:
        texts = list(open_texts(target, 900))
        store = harvest(load_model(target, "cpu"), texts, [target.hook], Path(folder) / "store", progress=False)
        return torch.cat([batch.acts for batch in store.batches(target.hook, 4096, shuffle=True, seed=0)]).float()


def made_up(d: int, n: int) -> Tensor:
    """[n, d] about d / 32 of 4d random directions at a time, and a little noise."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(4 * d, d, generator=generator), dim=1)
    often = torch.rand(4 * d, generator=generator).square()
    often *= d / 32 / often.sum()
    x = 0.02 * torch.randn(n, d, generator=generator)
    for part in x.split(4096):
        there = torch.rand(len(part), 4 * d, generator=generator) < often
        part += (there * (0.5 + torch.rand(len(part), 4 * d, generator=generator))) @ directions
    return x


# ---- the two trainers


class Ours:
    """Our trainer on batches of `x`, where `x` is, one step at a time."""

    def __init__(
        self, architecture: str, shape: Shape, x: Tensor, n_steps: int = 100_000, lr: float = LR,
        precision: str = "float32", **settings: Any,
    ):
        from solutions.sae.architectures import make_sae
        from solutions.sae.training import Plan, TensorSource
        from solutions.sae.training.run import Run

        if architecture in ("topk", "batchtopk"):
            settings["k"] = shape.k
        plan = Plan(
            n_tokens=n_steps * shape.batch, batch_size=shape.batch, lr=lr, log_every=10 * n_steps, precision=precision,
            dead_after=1000 * shape.batch,  # SAELens's: a thousand steps
        )
        sae = make_sae(architecture, shape.d, shape.latents, **settings).to(x.device)
        self.run = Run(sae, TensorSource(x), plan)
        self.batches = self.run.batches()
        self.sae = self.run.sae

    def __call__(self) -> None:
        self.run.advance(next(self.batches))


class Theirs:
    """SAELens's trainer on batches of `x`, where `x` is, one step at a time."""

    def __init__(
        self, architecture: str, shape: Shape, x: Tensor, n_steps: int = 100_000, lr: float = LR,
        precision: str = "float32", **settings: Any,
    ):
        from sae_lens import (
            BatchTopKTrainingSAE,
            BatchTopKTrainingSAEConfig,
            JumpReLUTrainingSAE,
            JumpReLUTrainingSAEConfig,
            StandardTrainingSAE,
            StandardTrainingSAEConfig,
            TopKTrainingSAE,
            TopKTrainingSAEConfig,
        )
        from sae_lens.config import SAETrainerConfig
        from sae_lens.training.sae_trainer import SAETrainer

        device = str(x.device)
        sizes = {"d_in": shape.d, "d_sae": shape.latents, "device": device}
        warm_up = max(1, n_steps // 20)
        if architecture == "topk":
            sae = TopKTrainingSAE(TopKTrainingSAEConfig(**sizes, k=shape.k, **settings))
        elif architecture == "batchtopk":
            sae = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(**sizes, k=shape.k, **settings))
        elif architecture == "relu":
            config = StandardTrainingSAEConfig(**sizes, l1_coefficient=settings["l1"], l1_warm_up_steps=warm_up)
            sae = StandardTrainingSAE(config)
        else:
            config = JumpReLUTrainingSAEConfig(
                **sizes, l0_coefficient=settings["l0_penalty"], l0_warm_up_steps=warm_up,
                jumprelu_bandwidth=0.1, jumprelu_init_threshold=0.1,
            )
            sae = JumpReLUTrainingSAE(config)
        config = SAETrainerConfig(
            total_training_samples=n_steps * shape.batch, train_batch_size_samples=shape.batch, lr=lr, lr_end=0.0,
            lr_warm_up_steps=max(1, n_steps // 50), lr_decay_steps=n_steps // 5,
            device=device, autocast=precision == "bfloat16",
        )
        scaled = x * (shape.d**0.5 / x.norm(dim=1).mean())
        with torch.no_grad():
            sae.b_dec.copy_(scaled.mean(dim=0))  # as ours begins
        self.batches = itertools.cycle(scaled.split(shape.batch))
        self.trainer, self.sae = SAETrainer(config, sae, self.batches), sae

    def __call__(self) -> None:
        self.trainer.step(next(self.batches))
        self.trainer.n_training_steps += 1


# ---- measuring


def in_turns(steps: dict[str, Callable[[], Any]], n: int) -> dict[str, list[Took]]:
    """`n` timings of each step, in turns, after one of each to warm up."""
    for step in steps.values():
        step()
    found: dict[str, list] = {name: [] for name in steps}
    for _ in range(n):
        for name, step in steps.items():
            found[name].append(timed(step))
    return found


def ratio(above: list[Took], below: list[Took], which: int = 0) -> float:
    """Median of the pairs' ratios: of elapsed time, or (1) of CPU time."""
    return statistics.median(a[which] / max(b[which], 1e-9) for a, b in zip(above, below, strict=True))


def seconds(times: list[Took]) -> float:
    return statistics.median(took.wall for took in times)


def products(shape: Shape, sae: Any, x: Tensor) -> dict[str, Callable[[], Any]]:
    """The encoder's product, and the five of a dense step, into memory that is there; all as `x` is."""
    x = x[: shape.batch]
    into, out_of = sae.W_enc.detach().to(x), sae.W_dec.detach().to(x)
    pre, weights = x.new_empty(shape.batch, shape.latents), x.new_empty(shape.latents, shape.d)
    out = x.new_empty(shape.batch, shape.d)

    def encoder() -> None:
        torch.mm(x, into, out=pre)

    def five() -> None:
        torch.mm(x, into, out=pre)
        torch.mm(pre, out_of, out=out)
        torch.mm(pre.T, out, out=weights)
        torch.mm(out, out_of.T, out=pre)
        torch.mm(pre.T, x, out=weights)

    return {"encoder": encoder, "five": five}


@contextlib.contextmanager
def peak() -> Iterator[list[float]]:
    """Puts into the list how much memory, in MB, the process held at its highest above what it held before."""
    found: list[float] = []
    try:
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew; Linux only
        before = status("VmRSS")
        yield found
        found.append((status("VmHWM") - before) / 1024)
    except OSError:
        yield found


# ---- rows


def step_rows(architecture: str, shape: Shape, x: Tensor) -> list[dict]:
    """A sparse step against SAELens's and against the limit."""
    with peak() as our_memory:
        ours = Ours(architecture, shape, x)
        ours(), ours()
    with peak() as their_memory:
        theirs = Theirs(architecture, shape, x)
        theirs(), theirs()
    times = in_turns({"ours": ours, "theirs": theirs, **products(shape, ours.sae, x)}, shape.pairs)
    name, where = f"{architecture}, ", f"{shape}, k {shape.k}"
    pace = 1 / seconds(times["ours"])
    speed = ratio(times["theirs"], times["ours"])
    cpu = f"CPU time {ratio(times['theirs'], times['ours'], 1):.2f}×"
    spread = sorted(t[0] / o[0] for o, t in zip(times["ours"], times["theirs"], strict=True))
    pairs = f"pairs {spread[0]:.1f} to {spread[-1]:.1f}"
    rows = [
        row(name + "steps", pace, "steps/s", note=where),
        row(name + "speed against SAELens", speed, least=shape.faster, note=f"{where}; {cpu}, {pairs}"),
        row(name + "share of the encoder-only limit", ratio(times["encoder"], times["ours"]), "", NEAR, where),
        row(name + "speed against the five products", ratio(times["five"], times["ours"]), note=where),
    ]
    # Less than that is in the allocator's noise, or memory of an earlier row that was not given back.
    if our_memory and their_memory and our_memory[0] > 20 and their_memory[0] > 20:
        note = f"{where}; weights, Adam and a step: {our_memory[0]:,.0f} MB, SAELens {their_memory[0]:,.0f} MB"
        rows.append(row(name + "peak memory against SAELens", our_memory[0] / their_memory[0], note=note))
    return rows


def run_rows(architecture: str, shape: Shape, x: Tensor) -> list[dict]:
    """A whole run of ours, with steps of SAELens's in between."""
    settings, n = RUNS[architecture], shape.steps
    ours, theirs = Ours(architecture, shape, x, n, **settings), Theirs(architecture, shape, x, n, **settings)
    five = products(shape, ours.sae, x)["five"]
    theirs()
    every, spent, dense, others, least = max(1, n // 4), [], [], [], []
    used = watched(ours.run)
    for step in range(n):
        spent.append(timed(ours).wall)
        dense.append(used[-1] == "dense")
        if step % every == every // 2:
            others.append(timed(theirs).wall)
            least.append(timed(five).wall)
    theirs_step = statistics.median(others)
    n_dense, where = sum(dense), str(shape)
    sparse_step = [s for s, d in zip(spent, dense, strict=True) if not d]
    dense_step = [s for s, d in zip(spent, dense, strict=True) if d]
    rows = [
        row(f"{architecture}, whole run against SAELens", n * theirs_step / sum(spent), least=RUN_FASTER,
            note=f"{where}; {n} steps, {n_dense} of them dense; ends at {quality(ours.run, x[: shape.batch])}"),
    ]
    if dense_step:
        rows.append(row(f"{architecture}, while dense", theirs_step / statistics.median(dense_step), note=(
            f"{where}; {statistics.median(least) / statistics.median(dense_step):.2f} of the pace of five products")))
    if sparse_step:
        rows.append(row(f"{architecture}, once sparse", theirs_step / statistics.median(sparse_step), note=where))
    return rows


def watched(run: Any) -> list[str]:
    """A list that grows by the path of every step of a run."""
    used: list[str] = []
    after = run._after

    def noting(x: Tensor, target: Tensor | None, result: Any, facts: dict) -> None:
        used.append(result.used)
        after(x, target, result, facts)

    run._after = noting
    return used


@torch.no_grad()
def quality(run: Any, x: Tensor) -> str:
    """In words, what an SAE in training is worth: a collapsed one would be fast, too."""
    x = x * run.scale
    z = run.sae.encode(x)
    missed = (run.sae.decode(z) - x).square().sum() / (x - x.mean(dim=0)).square().sum()
    return f"L0 {(z > 0).sum(dim=1).float().mean():.0f}, EV {1 - missed:.2f}"


def crossover_rows(shape: Shape, x: Tensor, quick: bool) -> list[dict]:
    """At which share of active entries a ReLU step costs the same both ways."""
    from solutions.sae.architectures import make_sae
    from solutions.sae.training.dense import dense_gradients
    from solutions.sae.training.sparse import density, sparse_gradients
    from solutions.sae.training.step import CROSSOVER

    x = x[: shape.batch] * (shape.d**0.5 / x.norm(dim=1).mean())
    sae = make_sae("relu", shape.d, shape.latents)
    sae.initialise(x)
    pre = sae.preactivations(x[:64]).detach().flatten()
    points = []
    for share in (0.02, 0.05, 0.1, 0.2):
        with torch.no_grad():
            sae.b_enc.fill_(-torch.quantile(pre[: 2**23], 1 - share).item())
        pair = {"dense": lambda: dense_gradients(sae, x, x), "sparse": lambda: sparse_gradients(sae, x, x)}
        times = in_turns(pair, 1 if quick or shape.steps else 5)
        points.append((density(sae, x, len(x)), ratio(times["sparse"], times["dense"])))
    even = None
    for (low, cheap), (high, dear) in itertools.pairwise(points):
        if cheap <= 1 < dear:
            even = low + (high - low) * (1 - cheap) / (dear - cheap)
    note = f"{shape}; taken up to {CROSSOVER:.0%}; sparse / dense: " + ", ".join(
        f"{cost:.2f} at {share:.1%}" for share, cost in points)
    name = "density at which sparse and dense cost the same"
    return [row(name, None if even is None else 100 * even, "%", note=note)]


def loss_rows(shape: Shape, n_steps: int) -> list[dict]:
    """The loss after the same tokens, and the time to the loss that SAELens ends with."""
    x = activations(shape, 40 * shape.batch)
    held, x = x[: 4 * shape.batch], x[4 * shape.batch :]
    scaled = held * (shape.d**0.5 / x.norm(dim=1).mean())
    rows = []
    for architecture, settings in LOSSES.items():
        ours, theirs = (kind(architecture, shape, x, n_steps, LOSS_LR, **settings) for kind in (Ours, Theirs))
        curves: dict[str, list[Took]] = {"ours": [], "theirs": []}
        for _ in range(n_steps // 10):
            for name, trainer in (("ours", ours), ("theirs", theirs)):
                spent = sum(timed(trainer).wall for _ in range(10)) + (curves[name][-1][0] if curves[name] else 0.0)
                curves[name].append((spent, objective(architecture, trainer.sae, scaled, settings, shape)))
        end = curves["theirs"][-1]
        reached = next((spent for spent, loss in curves["ours"] if loss <= 1.01 * end[1]), None)
        note = f"{shape}, {n_steps} steps; held-out loss {curves['ours'][-1][1]:.4g}, SAELens {end[1]:.4g}"
        gain, sooner = end[1] / curves["ours"][-1][1], None if reached is None else end[0] / reached
        rows += [
            row(f"{architecture}, SAELens's loss / ours, same tokens", gain, least=0.99, note=note),
            row(f"{architecture}, pace to within 1 % of SAELens's last loss", sooner, note=note),
        ]
    return rows


@torch.no_grad()
def objective(architecture: str, sae: Any, x: Tensor, settings: dict, shape: Shape) -> float:
    """The same loss for both trainers' SAEs: squared error and penalty, by one formula."""
    norms = sae.W_dec.norm(dim=1)
    pre = (x - sae.b_dec) @ sae.W_enc + sae.b_enc
    if architecture == "relu":
        z, penalty = pre.relu(), 0.0
        penalty = settings["l1"] * (z * norms).sum(dim=1).mean()
    elif architecture == "jumprelu":
        z = pre * (pre > sae.threshold)
        penalty = settings["l0_penalty"] * (z > 0).sum(dim=1).float().mean()
    else:  # SAELens lets decoder norms vary, and ranks latents by what they write
        ranked = (pre * norms).relu()
        where = ranked if architecture == "topk" else ranked.flatten()
        bound = where.topk(shape.k if architecture == "topk" else shape.k * len(x), dim=-1).values[..., -1:]
        z, penalty = ranked * (ranked >= bound) / norms, 0.0
    return ((z @ sae.W_dec + sae.b_dec - x).square().sum(dim=1).mean() + penalty).item()
