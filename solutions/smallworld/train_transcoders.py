"""Trains a transcoder for the MLP of every layer, and measures what the model loses when it has to live on it.

A transcoder reads what an MLP reads and predicts what the MLP writes (Dunefsky et al. 2024, section 3)::

    z = act(x W_enc + b_enc)        y_hat = z W_dec + b_dec

It is not an SAE with two hook points: between input and output lies the MLP's own non-linearity, and the latents
stand in for it. The attribution graph rests on them.

They are trained with the course's own training code, in the room `sae` to the right of this one. So it is imported
only where it is used: nothing else in this room needs it, and the rest of the world can be built without it.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from .activations import Rows, in_batches
from .probes import ask
from .quality import FACTS, model_loss

# SAELens has no TopK transcoder. A BatchTopK one is saved as a JumpReLU, and for that it has a class.
ARCHITECTURE = "batchtopk"

# After these shares of the training, latents that never fire are drawn anew from what is rebuilt worst (Bricken et al.
# 2023). A transcoder needs it more than an SAE: its encoder cannot begin as the decoder's transpose. In short trials at
# layer 2 the best run without it left 5.9% of the variance unexplained and 27% of the latents dead; with it 4.1 and 11.
RESAMPLE = (0.03, 0.06, 0.1, 0.2, 0.35, 0.5)
DEAD_AFTER = 50_000  # tokens without firing


@dataclass(frozen=True)
class TranscoderRecipe:
    """One transcoder to train: for which layer, how wide (in multiples of d_model), and with which schedule."""

    layer: int
    width: int = 8
    k: int = 16  # active latents per token, on average
    n_tokens: int = 3_000_000  # activations seen in training, repeats counted
    batch: int = 2048
    lr: float = 2e-3
    seed: int = 0

    @property
    def hook(self) -> str:
        """What the transcoder reads: the MLP's input, after the normalisation."""
        return f"blocks.{self.layer}.mlp.hook_in"

    @property
    def hook_out(self) -> str:
        """What it predicts: the MLP's output."""
        return f"blocks.{self.layer}.hook_mlp_out"

    @property
    def transcoder_id(self) -> str:
        """The name of its folder, for example ``blocks.2.mlp.batchtopk.8x``."""
        return f"blocks.{self.layer}.mlp.{ARCHITECTURE}.{self.width}x"


# ------------------------------------------------------------------ the MLPs of a plain Hugging Face model


def mlp_of(model, layer: int) -> torch.nn.Module:
    """The MLP of a layer."""
    blocks = model.transformer.h if hasattr(model, "transformer") else model.model.layers
    if not 0 <= layer < len(blocks):
        raise ValueError(f"layer must be 0 to {len(blocks) - 1}; found {layer}.")
    return blocks[layer].mlp


@torch.no_grad()
def harvest(model, rows: Rows, layers: Sequence[int], report=lambda n: None) -> dict[int, tuple[Tensor, Tensor]]:
    """What each MLP read and wrote at all real tokens, {layer: two [n_tokens, d_model] float16}."""
    n, width = int(rows.real.sum()), model.config.hidden_size
    pairs = {layer: (torch.empty(n, width, dtype=torch.float16), torch.empty(n, width, dtype=torch.float16))
             for layer in layers}
    seen: dict[int, tuple[Tensor, Tensor]] = {}

    def keep(layer):
        return lambda module, args, output: seen.__setitem__(layer, (args[0], output))

    handles = [mlp_of(model, layer).register_forward_hook(keep(layer)) for layer in layers]
    try:
        done = 0
        backbone = model.transformer if hasattr(model, "transformer") else model.model
        for batch in in_batches(rows):
            backbone(batch.ids.to(model.device), use_cache=False)
            count = int(batch.real.sum())
            for layer, both in seen.items():
                for kept, acts in zip(pairs[layer], both, strict=True):
                    kept[done:done + count] = acts.cpu()[batch.real]
            done += count
            report(count)
    finally:
        for handle in handles:
            handle.remove()
    return pairs


@contextmanager
def replaced(model, transcoders: dict[int, object]) -> Iterator[None]:
    """While this is open, transcoders {layer: transcoder} stand in for the MLPs. BOS keeps what the MLP wrote."""
    def stand_in(transcoder):
        return lambda module, args, output: torch.cat([output[:, :1], transcoder(args[0][:, 1:])], dim=1)

    handles = [mlp_of(model, layer).register_forward_hook(stand_in(t)) for layer, t in transcoders.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


# ------------------------------------------------------------------ training, files, quality


def train(pairs: tuple[Tensor, Tensor], recipe: TranscoderRecipe, progress: bool = False):
    """Trains one transcoder on what an MLP read and wrote, two tensors [n, d_model]. Gives a `TrainableSAE`."""
    from solutions.sae import Plan, TensorSource, make_sae
    from solutions.sae import train as train_sae

    x, y = pairs
    width = x.shape[1]
    untrained = make_sae(ARCHITECTURE, width, recipe.width * width, d_out=y.shape[1], k=recipe.k, seed=recipe.seed)
    source = TensorSource(x, y, hook=recipe.hook, target_hook=recipe.hook_out)
    plan = Plan(n_tokens=recipe.n_tokens, batch_size=min(recipe.batch, len(x)), lr=recipe.lr, seed=recipe.seed,
                decay=0.3, dead_after=DEAD_AFTER)
    plan = plan.replace(resample_at=tuple(sorted({max(1, int(share * plan.n_steps)) for share in RESAMPLE})))
    with torch.enable_grad():
        return train_sae(untrained, source, plan, progress=progress).sae


def save(transcoder, folder: Path, recipe: TranscoderRecipe, model_name: str, context_size: int,
         dataset: str) -> None:
    """Writes `cfg.json` and `sae_weights.safetensors` (fp16) into `folder`, as SAELens would."""
    from solutions.sae import save_sae

    save_sae(transcoder, folder, hook=recipe.hook, model_name=model_name, context_size=context_size,
             prepend_bos=True, overwrite=True, hook_name_out=recipe.hook_out, dataset_path=dataset,
             left_out_of_training="BOS and padding", recipe=asdict(recipe))
    weights = load_file(folder / "sae_weights.safetensors")
    save_file({name: tensor.half() for name, tensor in weights.items()}, folder / "sae_weights.safetensors")


def load(folder: Path):
    """Reads back what `save` wrote: a transcoder of SAELens, weights in float32."""
    from solutions.sae import load_sae_from_disk

    return load_sae_from_disk(folder, "cpu").requires_grad_(False)


def recipe_of(folder: Path) -> TranscoderRecipe:
    """How the transcoder in a folder was trained."""
    config = json.loads((folder / "cfg.json").read_text(encoding="utf-8"))
    return TranscoderRecipe(**config["metadata"]["recipe"])


@torch.no_grad()
def evaluate(model, tokenizer, transcoder, layer: int, rows: Rows, loss: float | None = None) -> dict:
    """What a transcoder keeps of the MLP in whose place it stands; the entries are those of `evaluate_sae`.

    `explained_variance` is of what the MLP writes. `delta_loss` and `facts` are those of the model with this one
    MLP replaced, BOS spared. `loss`: the model's own loss on `rows`, if it is known already.
    """
    x, y = (acts.float() for acts in harvest(model, rows, [layer])[layer])
    transcoder, mean = transcoder.to(model.device), y.mean(0)
    error = variance = active = 0.0
    fired = torch.zeros(transcoder.W_dec.shape[0], dtype=torch.bool)
    for read, written in zip(x.split(8192), y.split(8192), strict=True):
        z = transcoder.encode(read.to(model.device))
        error += (written - transcoder.decode(z).cpu()).pow(2).sum().item()
        variance += (written - mean).pow(2).sum().item()
        active += (z > 0).sum().item()
        fired |= (z > 0).any(0).cpu()
    clean = model_loss(model, rows) if loss is None else loss
    with replaced(model, {layer: transcoder}):
        spliced, facts = model_loss(model, rows), ask(model, tokenizer, only=FACTS)
    return {
        "explained_variance": 1 - error / variance, "l0": active / len(x), "d_sae": len(fired),
        "dead": (~fired).double().mean().item(), "n_tokens": len(x),
        "loss": clean, "loss_spliced": spliced, "delta_loss": spliced - clean,
        "facts": sum(r.share * r.n for r in facts.values()) / sum(r.n for r in facts.values()),
    }
