"""Trains the sparse autoencoders of the embedded world and saves them in SAELens's own format.

Three architectures: TopK (Gao et al. 2024, arXiv 2406.04093) with its auxiliary loss for dead latents,
BatchTopK (Bussmann et al. 2024, arXiv 2412.06410), saved as a JumpReLU as SAELens does, and ReLU with an L1
penalty (Bricken et al. 2023, Towards Monosemanticity). All subtract `b_dec` from the input and keep the rows of
the decoder at unit norm::

    f = act((x - b_dec) W_enc + b_enc)        x_hat = f W_dec + b_dec
"""
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

# The version whose on-disk format is written. Without it SAELens takes a file for an old one and drops the metadata.
SAE_LENS_VERSION = "6.54.12"
SAVED_AS = {"topk": "topk", "batchtopk": "jumprelu", "relu": "standard"}
AUX_LATENTS, AUX_WEIGHT = 32, 1 / 32  # k_aux and alpha of Gao et al., appendix A.2
DEAD_AFTER = 100_000  # tokens without firing
SAMPLE = 16_384  # activations used to estimate the scale and the final threshold


@dataclass(frozen=True)
class Recipe:
    """One SAE to train: where, what kind, how wide (in multiples of d_model), and with which schedule."""

    hook: str
    architecture: str = "topk"  # "topk", "batchtopk" or "relu"
    width: int = 8
    k: int = 16  # L0: exact for topk, the mean for batchtopk, the aim for relu
    n_tokens: int = 1_500_000  # activations seen in training, repeats counted
    batch: int = 1024
    lr: float = 6e-3
    seed: int = 0

    def __post_init__(self):
        if self.architecture not in SAVED_AS:
            raise ValueError(f"architecture must be one of {', '.join(SAVED_AS)}; found {self.architecture!r}.")

    @property
    def sae_id(self) -> str:
        """The name of the SAE and of its folder, for example ``blocks.2.hook_resid_pre.topk.8x``."""
        return f"{self.hook}.{self.architecture}.{self.width}x"


class SparseAutoencoder(nn.Module):
    """Any of the three. Weights have SAELens's names and shapes: W_enc [d_in, d_sae], W_dec [d_sae, d_in]."""

    def __init__(self, d_in: int, d_sae: int, architecture: str = "topk", k: int = 16):
        super().__init__()
        directions = nn.functional.normalize(torch.randn(d_sae, d_in), dim=1)
        # Starting as the decoder's transpose, few latents are born dead.
        self.W_enc = nn.Parameter(directions.T.contiguous())
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.W_dec = nn.Parameter(directions)
        self.b_dec = nn.Parameter(torch.zeros(d_in))
        self.register_buffer("threshold", torch.zeros(d_sae))  # used by batchtopk only
        self.architecture, self.k = architecture, k

    def before_selection(self, x: Tensor) -> Tensor:
        """ReLU of the encoder's product, [..., d_sae]."""
        return torch.relu((x - self.b_dec) @ self.W_enc + self.b_enc)

    def encode(self, x: Tensor) -> Tensor:
        """Latents [..., d_sae] of activations [..., d_in]."""
        f = self.before_selection(x)
        if self.architecture == "topk":
            return keep_top(f, self.k)
        return f * (f > self.threshold) if self.architecture == "batchtopk" else f

    def decode(self, f: Tensor) -> Tensor:
        """Activations [..., d_in] rebuilt from latents [..., d_sae]."""
        return f @ self.W_dec + self.b_dec

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))


def keep_top(f: Tensor, k: int) -> Tensor:
    """`f` with all but the `k` largest entries of each row set to zero."""
    values, where = f.topk(k, dim=-1, sorted=False)
    return torch.zeros_like(f).scatter(-1, where, values)


# ------------------------------------------------------------------ training

def train(acts: Tensor, recipe: Recipe, report: Callable[[str], None] = lambda line: None) -> SparseAutoencoder:
    """Trains one SAE on activations [n, d_in] (any float type). `report` gets a line of progress now and then.

    The activations are scaled to a mean norm of sqrt(d_in), so that one learning rate fits every hook; the
    scale is folded back into the weights before the SAE is returned.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    torch.manual_seed(recipe.seed)
    d_in = acts.shape[1]
    sae = SparseAutoencoder(d_in, recipe.width * d_in, recipe.architecture, recipe.k).to(acts.device)
    sample = acts[torch.randperm(len(acts), generator=generator)[:SAMPLE].to(acts.device)].float()
    scale = math.sqrt(d_in) / sample.norm(dim=1).mean()
    sample = sample * scale
    sae.b_dec.data = sample.mean(0)
    variance = sample.var(0, unbiased=False).sum()  # the squared error of predicting the mean
    select = Selection(sae, recipe, variance)
    optimiser = torch.optim.Adam(sae.parameters(), lr=recipe.lr, fused=True)
    n_steps = max(recipe.n_tokens // recipe.batch, 1)
    # Products in bfloat16 where the machine is quick at it; weights, sums and the optimiser stay in float32.
    half = fast_in_bfloat16(acts.device)
    for step, x in enumerate(batches(acts, recipe.batch, n_steps, generator)):
        for group in optimiser.param_groups:
            group["lr"] = recipe.lr * schedule(step, n_steps)
        x = x.float() * scale
        with torch.autocast(x.device.type, torch.bfloat16, enabled=half):
            loss, error = select.loss(x, step / n_steps)
        optimiser.zero_grad()
        loss.backward()
        remove_parallel_gradient(sae)
        nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            sae.W_dec.div_(sae.W_dec.norm(dim=1, keepdim=True))
        if step % 100 == 0 or step == n_steps - 1:
            report(f"{step + 1}/{n_steps} unexplained {error / variance:.3f} L0 {select.l0:.1f} "
                   f"dead {select.n_dead}")
    if recipe.architecture == "batchtopk":
        sae.threshold.fill_(threshold_for(sae.before_selection(sample).detach(), recipe.k))
    return fold_scale(sae, scale)


def fast_in_bfloat16(device: torch.device) -> bool:
    """Whether products of bfloat16 matrices are quicker than of float32 ones there."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def batches(acts: Tensor, batch: int, n_steps: int, generator: torch.Generator):
    """`n_steps` batches [batch, d_in]: each activation once in random order, then all again in another order."""
    order, at = torch.empty(0, dtype=torch.long), 0
    for _ in range(n_steps):
        if at + batch > len(order):
            order, at = torch.randperm(len(acts), generator=generator), 0
        yield acts[order[at:at + batch].to(acts.device)]
        at += batch


def schedule(step: int, n_steps: int) -> float:
    """Factor of the learning rate: 50 steps of warm-up, then flat, then in a line to zero over the last third."""
    return min(1.0, (step + 1) / 50, (n_steps - step) / (n_steps / 3))


@torch.no_grad()
def remove_parallel_gradient(sae: SparseAutoencoder) -> None:
    """The gradient along a decoder row could only change its norm, which is fixed; it would spoil Adam's averages."""
    grad, rows = sae.W_dec.grad, sae.W_dec
    grad -= (grad * rows).sum(1, keepdim=True) * rows


class Selection:
    """Which latents may be active in a batch, and the loss that follows; keeps count of the dead ones."""

    def __init__(self, sae: SparseAutoencoder, recipe: Recipe, variance: Tensor):
        self.sae, self.recipe, self.variance = sae, recipe, variance
        self.silent = torch.zeros(len(sae.W_dec), device=variance.device)  # tokens since each latent last fired
        self.l1, self.l0 = 0.25, math.nan

    @property
    def n_dead(self) -> int:
        return int((self.silent > DEAD_AFTER).sum())

    def loss(self, x: Tensor, done: float) -> tuple[Tensor, Tensor]:
        """Loss of one batch and its squared error per token. `done`: share of training that is over."""
        pre = self.sae.before_selection(x)
        values, fired, rebuilt = self.rebuild(pre)
        residual = x - rebuilt
        error = residual.pow(2).sum(1).mean()
        with torch.no_grad():
            self.l0 = (values > 0).sum().item() / len(x)
            self.silent += len(x)
            self.silent[fired] = 0
        loss = error / self.variance
        if self.recipe.architecture == "relu":
            loss = loss + self.sparsity_penalty(values, done)
        elif self.n_dead and done < 0.95:
            loss = loss + self.auxiliary(pre, residual.detach())
        return loss, error.detach()

    def rebuild(self, pre: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values of the selected latents [batch, some], an index of all that fired, and the rebuilt activations."""
        if self.recipe.architecture == "topk":
            # A token needs only k rows of the decoder: gathering them takes half the time of the dense product.
            values, where = pre.topk(self.recipe.k, dim=-1, sorted=False)
            sums = nn.functional.embedding_bag(where, self.sae.W_dec, per_sample_weights=values, mode="sum")
            return values, where[values > 0], sums + self.sae.b_dec
        if self.recipe.architecture == "batchtopk":
            # The batch's own threshold, from a quarter of its rows: sorting all would cost more than a product.
            pre = pre * (pre > threshold_for(pre.detach()[: len(pre) // 4], self.recipe.k))
        return pre, (pre > 0).any(0), self.sae.decode(pre)

    def auxiliary(self, pre: Tensor, residual: Tensor, rows: int = 512) -> Tensor:
        """AuxK: the dead latents try to rebuild what the living ones missed, and so find something to do."""
        dead = (self.silent > DEAD_AFTER).nonzero().squeeze(1)
        f = keep_top(pre[:rows, dead], min(AUX_LATENTS, len(dead)))
        missed = residual[:rows]
        return AUX_WEIGHT * (missed - f @ self.sae.W_dec[dead]).pow(2).sum() / missed.pow(2).sum()

    def sparsity_penalty(self, f: Tensor, done: float) -> Tensor:
        """L1 over latents. Its weight is steered towards a mean L0 of `recipe.k`, so that all three compare."""
        if done > 0.05 and self.l0 > 0:
            self.l1 *= math.exp(0.02 * max(-1.0, min(1.0, math.log(self.l0 / self.recipe.k))))
        return self.l1 * min(1.0, done / 0.05) * f.sum(1).mean() / self.variance.sqrt()


def threshold_for(pre: Tensor, k: int) -> Tensor:
    """The value that on average `k` entries of a row of `pre` [n, d_sae] exceed."""
    flat = pre.flatten()
    return flat.kthvalue(len(flat) - k * len(pre)).values


def fold_scale(sae: SparseAutoencoder, scale: Tensor) -> SparseAutoencoder:
    """The same SAE for unscaled activations: biases and threshold shrink, weights stay, and so latents shrink."""
    with torch.no_grad():
        for tensor in (sae.b_enc, sae.b_dec, sae.threshold):
            tensor.div_(scale)
    return sae


# ------------------------------------------------------------------ on disk

def save(sae: SparseAutoencoder, folder: Path, recipe: Recipe, model_name: str, context_size: int,
         dataset: str) -> None:
    """Writes `cfg.json` and `sae_weights.safetensors` (fp16) into `folder`, as SAELens would."""
    weights = {name: tensor.detach().cpu().half().contiguous() for name, tensor in sae.state_dict().items()}
    if recipe.architecture != "batchtopk":
        del weights["threshold"]
    d_sae, d_in = sae.W_dec.shape
    config = {
        "architecture": SAVED_AS[recipe.architecture], "d_in": d_in, "d_sae": d_sae, "dtype": "float32",
        "device": "cpu", "apply_b_dec_to_input": True, "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": SAE_LENS_VERSION, "sae_lens_training_version": None,
            "model_name": model_name, "hook_name": recipe.hook, "hook_head_index": None, "prepend_bos": True,
            "context_size": context_size,
            "dataset_path": dataset, "model_class_name": "HookedTransformer",
            "model_from_pretrained_kwargs": {}, "processing": "none", "seqpos_slice": [None],
            "left_out_of_training": "BOS and padding", "recipe": asdict(recipe),
        },
    }
    if recipe.architecture == "topk":
        config |= {"k": recipe.k, "rescale_acts_by_decoder_norm": False}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def load(folder: Path) -> tuple[SparseAutoencoder, Recipe]:
    """Reads back what `save` wrote, without SAELens and its ten seconds of import. Weights become float32."""
    config = json.loads((folder / "cfg.json").read_text(encoding="utf-8"))
    recipe = Recipe(**config["metadata"]["recipe"])
    sae = SparseAutoencoder(config["d_in"], config["d_sae"], recipe.architecture, recipe.k)
    weights = {name: tensor.float() for name, tensor in load_file(folder / "sae_weights.safetensors").items()}
    sae.load_state_dict(weights, strict=recipe.architecture == "batchtopk")
    return sae.requires_grad_(False).eval(), recipe
