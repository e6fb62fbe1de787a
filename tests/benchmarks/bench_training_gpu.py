"""The table of `bench_training` on a GPU: the same shapes, trainers and activations, in float32 and in bfloat16.

A GPU works through a queue, so a single step cannot be timed: Python is done with it long before the GPU is. Here
groups of ten steps are timed, from an empty queue until it is empty again. Ours, SAELens's and the bare products come
in turns, and the medians of the groups' ratios are reported. All architectures are trained for the same short run, with
every step of both trainers timed, so the loss that both reach on held-out activations can be compared as well.

float32 is float32: torch's TF32 products stay off, for both. bfloat16 is mixed precision: `Plan(precision="bfloat16")`
for ours, `autocast=True` for SAELens, products of bfloat16 numbers for the limits.

Nothing is promised here. What a step costs depends on the card, and on how fast the processor beside it sends commands.
"""

from __future__ import annotations

import gc
import itertools
import statistics
import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.benchmarks import bench_training as cpu
from tests.benchmarks.bench_training import Ours, Shape, Theirs, in_turns, ratio, seconds
from tests.benchmarks.measuring import Took

#: Steps of a run, and of a timed group.
STEPS, GROUP = 300, 10
LR = 4e-3
SETTINGS: dict[str, dict] = {"topk": {}, "batchtopk": {}, **cpu.RUNS}


def run(quick: bool) -> list[dict]:
    """All rows of this bench; none where torch sees no GPU."""
    if not torch.cuda.is_available():
        print("training_gpu: torch sees no CUDA device here, there is nothing to measure", file=sys.stderr)
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return table(cpu.QUICK if quick else cpu.SHAPES, 3 * GROUP if quick else STEPS, torch.device("cuda"))


def table(shapes: tuple[Shape, ...], n_steps: int, device: torch.device) -> list[dict]:
    """The rows for every shape, precision and architecture."""
    rows = []
    for shape in shapes:
        x = cpu.activations(shape, 28 * shape.batch).to(device)
        for precision, architecture in itertools.product(("float32", "bfloat16"), SETTINGS):
            rows += rows_of(architecture, shape, x, precision, n_steps)
    return rows


def rows_of(architecture: str, shape: Shape, x: Tensor, precision: str, n_steps: int) -> list[dict]:
    """One architecture at one shape: a whole run of both trainers, in turns."""
    held, x = x[: 4 * shape.batch], x[4 * shape.batch :]
    scale = shape.d**0.5 / x.norm(dim=1).mean()
    settings = SETTINGS[architecture]
    made, memory = {}, {}
    for name, kind in (("ours", Ours), ("theirs", Theirs)):
        before = fresh_peak(x.device)
        made[name] = kind(architecture, shape, x, n_steps, LR, precision, **settings)
        for _ in range(GROUP // 2):
            made[name]()
        memory[name] = peak(x.device) - before
    limits = cpu.products(shape, made["ours"].sae, x.bfloat16() if precision == "bfloat16" else x)
    groups = {name: group(step, x.device) for name, step in (made | limits).items()}
    times = in_turns(groups, n_steps // GROUP - 2)
    reached = {name: cpu.objective(architecture, one.sae, held * scale, settings, shape) for name, one in made.items()}
    return as_rows(f"{architecture}, {precision}, ", shape, times, memory, reached, cpu.quality(made["ours"].run, held))


def as_rows(
    name: str,
    shape: Shape,
    times: dict[str, list[Took]],
    memory: dict[str, float],
    reached: dict[str, float],
    ends: str,
) -> list[dict]:
    """What was measured, as lines of the table."""
    whole = sum(took.wall for took in times["theirs"]) / sum(took.wall for took in times["ours"])
    spread = sorted(t.wall / o.wall for o, t in zip(times["ours"], times["theirs"], strict=True))
    paces = f"SAELens {GROUP / seconds(times['theirs']):,.0f} steps/s"
    losses = f"held-out loss {reached['ours']:.4g}, SAELens {reached['theirs']:.4g}; ends at {ends}"
    sizes = f"{memory['ours']:,.0f} MB, SAELens {memory['theirs']:,.0f} MB"
    against = f"groups {spread[0]:.1f} to {spread[-1]:.1f}, whole run {whole:.2f}"
    lines = (
        ("steps", GROUP / seconds(times["ours"]), "steps/s", paces),
        ("speed against SAELens", statistics.median(spread), "×", against),
        ("share of the encoder-only limit", ratio(times["encoder"], times["ours"]), "", ""),
        ("speed against the five products", ratio(times["five"], times["ours"]), "×", ""),
        ("peak memory against SAELens", memory["ours"] / max(memory["theirs"], 1e-9), "×", sizes),
        ("SAELens's loss / ours, same tokens", reached["theirs"] / reached["ours"], "×", losses),
    )
    return [
        cpu.row(name + what, value, unit, note=f"{shape}{'; ' if note else ''}{note}")
        | {"name": f"training on a GPU: {name}{what}"}
        for what, value, unit, note in lines
    ]


def group(step: Callable[[], Any], device: torch.device) -> Callable[[], None]:
    """`GROUP` steps, until the device has done them."""

    def steps() -> None:
        for _ in range(GROUP):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return steps


def fresh_peak(device: torch.device) -> float:
    """MB of the device's memory in use, from which on the peak is counted anew."""
    gc.collect()
    if device.type != "cuda":
        return 0.0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device) / 2**20


def peak(device: torch.device) -> float:
    """MB of the device's memory in use at the highest since then."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else 0.0
