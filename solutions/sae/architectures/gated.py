"""Gated: one half of the encoder decides whether a latent is active, the other how much (Rajamanoharan et al. 2024a).

    gate = (x - b_dec) W_enc + b_gate                      z = relu(mag) where gate > 0, else 0
    mag  = (x - b_dec) (W_enc * exp(r_mag)) + b_mag
    loss = |x - x_hat|^2  +  l1 * sum of relu(gate)  +  |x - x_hat(relu(gate))|^2

An L1 penalty shrinks what it penalises. Here it falls on the gate alone, so the magnitudes are free to be right. The
gate's step has no derivative, so the gate learns from the last term: it has to be able to rebuild x by itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from solutions.sae.architectures.base import Losses, TrainableSAE, check_number, squared_error


class GatedSAE(TrainableSAE):
    """Gated SAE (Rajamanoharan et al. 2024a, "Improving Dictionary Learning with Gated Sparse Autoencoders",
    section 3.2; the loss is in 3.2.2).

    It has `b_gate`, `b_mag` and `r_mag` where the others have `b_enc`.

    Args:
        d_in: width of the activations.
        d_sae: number of latents.
        l1: weight of the penalty on the gate, for inputs of mean norm sqrt(d_in).
        **shared: `d_out`, `seed`, `unit_norm` and `subtract_b_dec`: see `TrainableSAE`.
    """

    architecture = "gated"
    per_latent = ("b_gate", "b_mag", "r_mag")
    in_latent_units = ("b_gate", "b_mag")
    settings = ("l1",)

    def __init__(self, d_in: int, d_sae: int, *, l1: float = 1.0, **shared):
        super().__init__(d_in, d_sae, **shared)
        self.l1 = check_number(l1, "l1", least=0.0)

    def preactivations(self, x: Tensor) -> Tensor:
        """What the gate sees: [..., d_in] to [..., d_sae]."""
        if self.subtract_b_dec:
            x = x - self.b_dec
        return x @ self.W_enc + self.b_gate

    def activate(self, pre: Tensor) -> Tensor:
        """Gate and magnitude together. Both read the same directions, so `pre` holds what both need."""
        magnitude = torch.relu((pre - self.b_gate) * self.r_mag.exp() + self.b_mag)
        return magnitude * (pre > 0)

    def losses(
        self, x: Tensor, target: Tensor | None = None, *, warm: float = 1.0, dead: Tensor | None = None
    ) -> Losses:
        """Squared error, L1 on the gate, and the gate's own squared error; see `TrainableSAE.losses`."""
        target = x if target is None else target
        pre = self.preactivations(x)
        z = self.activate(pre)
        x_hat = self.decode(z)

        reconstruction = squared_error(x_hat, target)
        gate = torch.relu(pre)
        size = gate if self.unit_norm else gate * self.decoder_norms()
        sparsity = warm * self.l1 * size.sum(dim=-1).mean()
        # The decoder is a constant here: it is to serve the latents, not the gate.
        auxiliary = squared_error(gate @ self.W_dec.detach() + self.b_dec.detach(), target)
        return Losses(reconstruction + sparsity + auxiliary, reconstruction, sparsity, auxiliary, z, x_hat)
