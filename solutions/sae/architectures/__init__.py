"""Sparse autoencoders to train: one class for each architecture, all with the same face.

Which one when:

- `relu`: ReLU and L1 (Bricken et al. 2023). The one to understand first. It shrinks what it finds, and L0 has to be
  steered through `l1`.
- `topk`: exactly `k` latents per token (Gao et al. 2024). Nothing shrunk, few dead latents, little to tune: a good
  first choice.
- `batchtopk`: `k` on average, more where a token needs more (Bussmann et al. 2024, who find it a little better).
- `jumprelu`: a learned threshold for each latent (Rajamanoharan et al. 2024b, who find it as good or better). L0 has
  to be steered through `l0_penalty`, and there is a bandwidth to choose.
- `gated`: L1 without its shrinkage, at the price of a second error term (Rajamanoharan et al. 2024a). JumpReLU is the
  same authors' simpler successor.
- `matryoshka`: BatchTopK whose first latents must do without the rest (Bussmann et al. 2025): against splitting and
  absorption, at the price of some reconstruction.

A transcoder is any of them with `d_out`, trained on the input of one hook point and the target of another.
Start at `relu`, read it from top to bottom, then `base`, then the one you need.
"""

from __future__ import annotations

from typing import Any

from solutions.errors import InputError, unknown_name
from solutions.sae.architectures.base import Losses, TrainableSAE, geometric_median
from solutions.sae.architectures.batchtopk import BatchTopKSAE
from solutions.sae.architectures.gated import GatedSAE
from solutions.sae.architectures.jumprelu import JumpReluSAE
from solutions.sae.architectures.matryoshka import MatryoshkaSAE
from solutions.sae.architectures.relu import ReluSAE
from solutions.sae.architectures.resample import resample
from solutions.sae.architectures.saving import SAVED_AS, as_sae_lens, from_sae_lens, no_transcoder, save_sae
from solutions.sae.architectures.topk import TopKSAE

ARCHITECTURES: dict[str, type[TrainableSAE]] = {
    kind.architecture: kind
    for kind in (ReluSAE, TopKSAE, BatchTopKSAE, JumpReluSAE, GatedSAE, MatryoshkaSAE)
}


def make_sae(
    architecture: str, d_in: int, d_sae: int, *, d_out: int | None = None, seed: int = 0, **hyper: Any
) -> TrainableSAE:
    """Make an SAE that has not been trained yet.

    Args:
        architecture: a name in `ARCHITECTURES`.
        d_in: width of the activations.
        d_sae: number of latents.
        d_out: width of what a transcoder predicts; leave it out for an SAE.
        seed: of the decoder's first directions.
        **hyper: settings of the architecture (`l1`, `k`, `bandwidth`, …), and `unit_norm`, `subtract_b_dec`.

    Returns:
        The SAE, its decoder rows of norm 1, on the CPU. `initialise` makes it fit the data.

    Raises:
        InputError: an unknown architecture or setting, or a value that cannot be.

    Example:
        >>> untrained = make_sae("topk", d_in=8, d_sae=32, k=4)
        >>> (untrained.encode(torch.randn(5, 8)) != 0).sum(-1) <= 4
        tensor([True, True, True, True, True])
    """
    if architecture not in ARCHITECTURES:
        raise unknown_name("architecture", architecture, ARCHITECTURES)
    kind = ARCHITECTURES[architecture]
    known = (*kind.settings, "unit_norm", "subtract_b_dec")
    for name in hyper:
        if name not in known:
            raise unknown_name(f"setting of {architecture!r}:", name, known)
    if d_out not in (None, d_in) and SAVED_AS[architecture][1] is None:
        raise InputError(no_transcoder(architecture))
    return kind(d_in, d_sae, d_out=d_out, seed=seed, **hyper)


__all__ = [
    "ARCHITECTURES",
    "BatchTopKSAE",
    "GatedSAE",
    "JumpReluSAE",
    "Losses",
    "MatryoshkaSAE",
    "ReluSAE",
    "TopKSAE",
    "TrainableSAE",
    "as_sae_lens",
    "from_sae_lens",
    "geometric_median",
    "make_sae",
    "resample",
    "save_sae",
]
