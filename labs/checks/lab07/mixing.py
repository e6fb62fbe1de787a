"""A toy model in which later tokens read earlier ones, so that a push at BOS is felt, and a small SAE."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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

    def run_with_hooks(
        self,
        ids: Tensor,
        return_type: str = "logits",
        fwd_hooks: Sequence[tuple[str | Callable, Callable]] = (),
        stop_at_layer: int | None = None,
        **_ignored,
    ) -> Tensor:
        """Logits [batch, pos, d_vocab]. A hook is (name, function), called as `f(activation, hook=...)`."""

        def at(name: str, value: Tensor) -> Tensor:
            for wanted, function in fwd_hooks:
                if wanted == name or (callable(wanted) and wanted(name)):
                    edited = function(value, hook=self.hook_dict[name])
                    value = value if edited is None else edited
            return value

        resid = at("hook_embed", self.W_E[ids])
        for i in range(self.n_layers if stop_at_layer is None else stop_at_layer):
            resid = at(f"blocks.{i}.hook_resid_pre", resid)
            so_far = torch.arange(1, resid.shape[1] + 1)[:, None]
            mixed = resid + (resid.cumsum(1) / so_far) @ self.W_mix[i]
            resid = at(
                f"blocks.{i}.hook_resid_post",
                mixed + at(f"blocks.{i}.hook_mlp_out", torch.tanh(mixed @ self.W_mlp[i])),
            )
        return resid if stop_at_layer is not None else resid @ self.W_U


class SmallSAE(ToySAE):
    """A small SAE with `encode`, `decode` and `W_dec`. Its decoder has a bias, and rows of several lengths."""

    described = "a small SAE"
