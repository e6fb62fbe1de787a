"""A toy model in which later tokens read earlier ones, so that a push at BOS is felt, and a small SAE."""

from __future__ import annotations

import torch
from torch import Tensor

from labs.checks.lab03.splice import ToySAE
from labs.checks.toy_model import ToyModel


class MixingModel(ToyModel):
    """A toy model whose blocks first mix each token with those before it, as attention does."""

    def __init__(self, n_layers: int, d_model: int, d_vocab: int, seed: int):
        super().__init__(n_layers, d_model, d_vocab, seed)
        generator = torch.Generator().manual_seed(seed + 1)
        self.W_mix = torch.randn(n_layers, d_model, d_model, generator=generator) / d_model**0.5

    def mixed(self, layer: int, resid: Tensor) -> Tensor:
        so_far = torch.arange(1, resid.shape[1] + 1)[:, None]
        return resid + (resid.cumsum(1) / so_far) @ self.W_mix[layer]


class SmallSAE(ToySAE):
    """A small SAE with `encode`, `decode` and `W_dec`. Its decoder has a bias, and rows of several lengths."""

    described = "a small SAE"
