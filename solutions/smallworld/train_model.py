"""Train the language models of the embedded world, on a laptop.

`train(folder, "gpt2", steps=...)` leaves an ordinary Hugging Face folder. The recipe is short on purpose: fixed rows
of text, Muon for the matrices inside the blocks and AdamW for everything else, one learning-rate schedule. Two things
are there so that copying (induction) is learned early:

* positions start as sinusoids, in which "one step back" is a rotation (Vaswani et al. 2017, section 3.5), so that a
  head that looks at the previous token is near;
* *drills*: for the first part of the training some rows are random words that repeat, where only the repetition counts.
"""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from .tokenizer import CONTEXT, load_tokenizer

ROWS_PER_STEP = 8


class Shape(NamedTuple):
    """What a model looks like: its architecture and its size."""

    architecture: str  # "gpt2", or "llama" (RoPE, RMSNorm, SwiGLU)
    width: int = 128
    layers: int = 4
    heads: int = 4
    inner: int | None = None  # width inside the MLPs; None: four times the width


#: The shapes there are. The mini one has half the width and half the layers, and heads of the same size.
SHAPES = {"gpt2": Shape("gpt2"), "llama": Shape("llama", inner=344), "gpt2-mini": Shape("gpt2", 64, 2, 2)}


class Schedule(NamedTuple):
    """Learning rates and the drills, as functions of the share of the training that is done."""

    muon: float = 0.01
    adam: float = 0.003
    weight_decay: float = 0.05
    warm_up: int = 100  # steps
    flat_until: float = 0.35  # share of the steps; then down to zero in a straight line
    drills: float = 0.15  # share of the rows at the start ...
    drills_until: float = 0.6  # ... and none from here on

    def rate(self, step: int, steps: int) -> float:
        """What the learning rates are multiplied with at this step."""
        return min(1, (step + 1) / self.warm_up) * min(1, (1 - step / steps) / (1 - self.flat_until))

    def drill_share(self, step: int, steps: int) -> float:
        """Share of the rows that are drills at this step."""
        return self.drills * max(0.0, 1 - step / steps / self.drills_until)


#: For a model that has been trained: small rates, no drills, down to zero once more.
POLISH = Schedule(muon=0.002, adam=0.0006, flat_until=0.2, drills=0.0)


def new_model(shape: str, vocabulary: int, seed: int) -> torch.nn.Module:
    """A Hugging Face model with random weights, of one of the `SHAPES`.

    Raises:
        ValueError: another shape.
    """
    if shape not in SHAPES:
        raise ValueError(f"shape: expected one of {', '.join(SHAPES)}; got {shape!r}")
    architecture, width, layers, heads, inner = SHAPES[shape]
    torch.manual_seed(seed)
    if architecture == "gpt2":
        from transformers import GPT2Config, GPT2LMHeadModel

        model = GPT2LMHeadModel(GPT2Config(
            vocab_size=vocabulary, n_positions=CONTEXT, n_embd=width, n_layer=layers, n_head=heads, n_inner=inner,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, activation_function="gelu_pytorch_tanh",
            bos_token_id=0, eos_token_id=0))
        with torch.no_grad():
            model.transformer.wpe.weight.copy_(0.03 * sinusoids(CONTEXT, width))
        return model
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=CONTEXT, bos_token_id=0,
        eos_token_id=0, pad_token_id=0, tie_word_embeddings=True))


def sinusoids(positions: int, width: int) -> torch.Tensor:
    """`[positions, width]`: sine and cosine of each position at `width / 2` frequencies."""
    frequency = torch.exp(-torch.arange(width // 2) / (width // 2) * math.log(1000.0))
    angle = torch.arange(positions)[:, None] * frequency
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


def drill_rows(
    words: torch.Tensor, n: int, length: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of random words that repeat with some period: `(ids, targets)`, each `[n, length]`.

    What stands before the first repetition cannot be predicted and has no target (-100).
    """
    ids = torch.zeros(n, length, dtype=torch.long)
    targets = torch.full((n, length), -100)
    for i in range(n):
        period = int(torch.randint(4, length // 2, (1,), generator=generator))
        pattern = words[torch.randint(len(words), (period,), generator=generator)]
        ids[i, 1:] = pattern.repeat(length // period + 1)[: length - 1]
        targets[i, period + 1:] = ids[i, period + 1:]
    return ids, targets


class Muon(torch.optim.Optimizer):
    """Momentum whose step is made orthogonal, for matrices (Jordan et al. 2024, kellerjordan.github.io/posts/muon).

    As `torch.optim.Muon`, which works in bfloat16: processors without it emulate it, and there a step costs four times
    what the whole rest of the training does. Here in float32, the matrices of one shape together.
    """

    def __init__(self, params, lr: float, weight_decay: float, momentum: float = 0.95):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:
        """One step on every matrix that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[torch.Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault(p.shape, []).append(p)
            for shape, matrices in by_shape.items():
                momenta = [self.state[p].setdefault("momentum_buffer", torch.zeros_like(p)) for p in matrices]
                for p, momentum in zip(matrices, momenta, strict=True):
                    momentum.lerp_(p.grad, 1 - group["momentum"])
                ahead = torch.stack([p.grad.lerp(momentum, group["momentum"])
                                     for p, momentum in zip(matrices, momenta, strict=True)])
                rate = group["lr"] * 0.2 * max(shape) ** 0.5  # so that a step is as large as one of AdamW
                for p, direction in zip(matrices, orthogonal(ahead), strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).add_(direction, alpha=-rate)


def orthogonal(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """`[n, rows, columns]`, every singular value brought near 1 by a quintic Newton-Schulz iteration."""
    x = matrices.transpose(1, 2) if matrices.shape[1] > matrices.shape[2] else matrices
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.transpose(1, 2) if matrices.shape[1] > matrices.shape[2] else x


def optimisers(model: torch.nn.Module, schedule: Schedule) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for embeddings, biases and norms."""
    named = list(model.named_parameters())
    inner = [p for name, p in named if p.ndim == 2 and "embed" not in name and "wte" not in name and "wpe" not in name]
    ids = {id(p) for p in inner}
    outer = [p for _, p in named if id(p) not in ids]
    return [
        Muon(inner, lr=schedule.muon, weight_decay=schedule.weight_decay),
        torch.optim.AdamW([{"params": [p for p in outer if p.ndim == 2], "weight_decay": schedule.weight_decay},
                           {"params": [p for p in outer if p.ndim < 2], "weight_decay": 0.0}],
                          lr=schedule.adam, betas=(0.9, 0.98), fused=True),
    ]


def _loss(model: torch.nn.Module, ids: torch.Tensor, targets: torch.Tensor, half: bool) -> torch.Tensor:
    with torch.autocast(ids.device.type, torch.bfloat16, enabled=half):
        logits = model(ids, use_cache=False).logits
    wanted = torch.nn.functional.pad(targets[:, 1:], (0, 1), value=-100)  # cheaper than to cut the logits
    return cross_entropy(logits.flatten(0, 1).float(), wanted.flatten(), ignore_index=-100)


def _checkpoint(path: Path, model: torch.nn.Module, opts: list[torch.optim.Optimizer], step: int) -> None:
    """Write weights, optimiser states and the step, all at once or not at all."""
    tensors = {f"model.{name}": p.detach() for name, p in model.named_parameters()}
    for k, opt in enumerate(opts):
        for index, state in opt.state_dict()["state"].items():
            tensors |= {f"opt{k}.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
    part = path.with_suffix(".part")
    save_file({name: t.contiguous().clone() for name, t in tensors.items()}, part, metadata={"step": str(step)})
    part.replace(path)


def _resume(path: Path, model: torch.nn.Module, opts: list[torch.optim.Optimizer]) -> int:
    """Load what `_checkpoint` wrote, if it is there; returns the step to go on from."""
    if not path.exists():
        return 0
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        step = int(file.metadata()["step"])
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(tensors[f"model.{name}"])
    for k, opt in enumerate(opts):
        whole = opt.state_dict()
        for full, value in tensors.items():
            if full.startswith(f"opt{k}."):
                _, index, name = full.split(".", 2)
                whole["state"].setdefault(int(index), {})[name] = value
        opt.load_state_dict(whole)
    return step


def train(
    out: Path,
    shape: str,
    rows: np.ndarray,
    steps: int,
    tokenizer_folder: Path,
    seed: int = 0,
    device: str = "cpu",
    schedule: Schedule | None = None,
    report: Callable[[torch.nn.Module, int], None] | None = None,
    report_every: float = 120.0,
    checkpoint_every: float = 120.0,
    late_rows: np.ndarray | None = None,
    late_from: int = 0,
    start: Path | None = None,
) -> Path:
    """Train a model on `rows` and save it (fp16) with its tokenizer in `out`.

    Args:
        out: the Hugging Face folder to make. A checkpoint beside it (`<out>.checkpoint.safetensors`) is written
            every `checkpoint_every` seconds, and an interrupted training goes on from there.
        shape: the name of one of the `SHAPES`.
        rows: `[n, CONTEXT]` token ids, gone through in a shuffled order as often as needed.
        steps: how many steps of `ROWS_PER_STEP` rows.
        tokenizer_folder: where `tokenizer.json` is.
        report: called with the model and the step every `report_every` seconds.
        start: a Hugging Face folder whose weights the training begins with; without it they are random.
        late_rows: other rows, read in place of `rows` from step `late_from` on.

    Raises:
        RuntimeError: the loss is no longer finite.
        ValueError: the rows are not `[n, CONTEXT]`, or too few for one step.
    """
    if rows.ndim != 2 or rows.shape[1] > CONTEXT or len(rows) < ROWS_PER_STEP:
        raise ValueError(f"rows: expected [at least {ROWS_PER_STEP}, at most {CONTEXT}]; got {list(rows.shape)}")
    schedule = schedule or Schedule()
    tokenizer = load_tokenizer(tokenizer_folder)
    model = new_model(shape, len(tokenizer), seed).to(device).train()
    if start is not None:
        model.load_state_dict(type(model).from_pretrained(start, dtype=torch.float32).state_dict())
    opts = optimisers(model, schedule)
    base_rates = [[group["lr"] for group in opt.param_groups] for opt in opts]
    checkpoint = Path(f"{out}.checkpoint.safetensors")
    first = _resume(checkpoint, model, opts)
    vocabulary = sorted(tokenizer.get_vocab().items())
    words = torch.tensor([i for token, i in vocabulary if token[0] == "Ġ" and len(token) > 3])
    half = device != "cpu" or torch.cpu._is_avx512_bf16_supported()
    last_report = last_saved = time.monotonic()
    running = math.nan
    bar = tqdm(range(first, steps), initial=first, total=steps, desc=f"training {shape}", unit="step")
    for step in bar:
        for opt, rates in zip(opts, base_rates, strict=True):
            for group, rate in zip(opt.param_groups, rates, strict=True):
                group["lr"] = rate * schedule.rate(step, steps)
        late = late_rows is not None and step >= late_from
        text = _Text(late_rows, step - late_from) if late else _Text(rows, step)
        ids, targets = _batch(text, words, seed, step, schedule.drill_share(step, steps))
        loss = _loss(model, ids.to(device), targets.to(device), half)
        if not math.isfinite(loss.item()):
            raise RuntimeError(f"the loss became {loss.item()} at step {step}; lower the learning rates in "
                               f"Schedule and start again from {checkpoint.name}")
        for opt in opts:
            opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for opt in opts:
            opt.step()
        running = loss.item() if math.isnan(running) else 0.98 * running + 0.02 * loss.item()
        if step % 50 == 0:
            bar.set_postfix(loss=f"{running:.3f}")
        now = time.monotonic()
        if report and now - last_report > report_every:
            report(model.eval(), step)
            model.train()
            last_report = time.monotonic()
        if now - last_saved > checkpoint_every:
            _checkpoint(checkpoint, model, opts, step + 1)
            last_saved = now
    _save(model.eval().half(), tokenizer_folder, out)
    checkpoint.unlink(missing_ok=True)
    return out


class _Text(NamedTuple):
    """What is read at a step: which rows, and how many steps of them have been read."""

    rows: np.ndarray
    steps_read: int


def _batch(
    text: _Text, words: torch.Tensor, seed: int, step: int, drills: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows of one step: they depend on the seed and the step alone, so that a training can be resumed."""
    rows = text.rows
    epoch, offset = divmod(text.steps_read * ROWS_PER_STEP, len(rows) - ROWS_PER_STEP + 1)
    order = _order(len(rows), seed, epoch)
    ids = torch.from_numpy(rows[order[offset:offset + ROWS_PER_STEP]].astype(np.int64))
    targets = ids.clone()
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    n = int((torch.rand(ROWS_PER_STEP, generator=generator) < drills).sum())
    if n:
        ids[:n], targets[:n] = drill_rows(words, n, ids.shape[1], generator)
    return ids, targets


_orders: dict[tuple[int, int, int], np.ndarray] = {}


def _order(n: int, seed: int, epoch: int) -> np.ndarray:
    if (n, seed, epoch) not in _orders:
        _orders.clear()
        _orders[n, seed, epoch] = np.random.default_rng((seed, epoch)).permutation(n)
    return _orders[n, seed, epoch]


def _save(model: torch.nn.Module, tokenizer_folder: Path, out: Path) -> None:
    """Write the Hugging Face folder under another name, then put it in place."""
    part = out.with_name(out.name + ".part")
    model.save_pretrained(part)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (part / name).write_bytes((tokenizer_folder / name).read_bytes())
    config = json.loads((part / "config.json").read_text())
    config.pop("_name_or_path", None)
    (part / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    if out.exists():
        for old in out.iterdir():
            old.unlink()
        out.rmdir()
    part.replace(out)
