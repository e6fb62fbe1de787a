"""TopK: keep the `k` largest latents of every token, and set the rest to zero (Gao et al. 2024).

    z    = top_k(relu((x - b_dec) W_enc + b_enc))
    loss = |x - x_hat|^2 + aux_weight * |e - e_hat|^2

There is no penalty on values, so nothing shrinks them, and L0 is chosen instead of found. What has to be watched is
death: a latent that is never among the k has no gradient. AuxK gives it one: the dead latents, `aux_k` of them
at a time, rebuild `e`, the error that the living ones leave.
"""

from __future__ import annotations

import torch
from torch import Tensor

from solutions.errors import InputError, check_count
from solutions.sae.architectures.base import Losses, TrainableSAE, check_number, squared_error


class TopKSAE(TrainableSAE):
    """TopK with AuxK (Gao et al. 2024, "Scaling and evaluating sparse autoencoders", section 2.3, appendix A.2).

    Args:
        d_in: width of the activations.
        d_sae: number of latents.
        k: active latents per token. Fewer only where fewer than k pre-activations are positive.
        aux_weight: weight of AuxK; 0 turns it off. The paper's is 1/32.
        aux_k: how many dead latents may take part at a time; None for d_in // 2, the paper's rule of thumb.
        **shared: `d_out`, `seed`, `unit_norm` and `subtract_b_dec`: see `TrainableSAE`.
    """

    architecture = "topk"
    settings = ("k", "aux_weight", "aux_k")

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        *,
        k: int = 32,
        aux_weight: float = 1 / 32,
        aux_k: int | None = None,
        **shared,
    ):
        super().__init__(d_in, d_sae, **shared)
        self.k = self.check_k(k)
        self.aux_weight = check_number(aux_weight, "aux_weight", least=0.0)
        self.aux_k = max(1, self.d_in // 2) if aux_k is None else check_count(aux_k, "aux_k")

    def check_k(self, k: object) -> int | float:
        """Return `k` if there are so many latents.

        Raises:
            InputError: it is no whole number from 1 to the number of latents.
        """
        if check_count(k, "k") > self.d_sae:
            raise InputError(f"k must be at most d_sae, got k = {k} with d_sae = {self.d_sae}.")
        return int(k)  # type: ignore[call-overload]

    def activate(self, pre: Tensor) -> Tensor:
        """The k largest positive entries of each row of `pre` [..., d_sae]; the rest is zero."""
        return keep_top(torch.relu(pre), self.k)

    def losses(
        self, x: Tensor, target: Tensor | None = None, *, warm: float = 1.0, dead: Tensor | None = None
    ) -> Losses:
        """Squared error and AuxK; see `TrainableSAE.losses`. There is no sparsity coefficient to warm up."""
        target = x if target is None else target
        pre = self.preactivations(x)
        z = self.activate_in_training(pre)
        x_hat = self.decode(z)

        reconstruction = squared_error(x_hat, target)
        auxiliary = auxk(self, pre, target - x_hat, dead)
        return Losses(reconstruction + auxiliary, reconstruction, x.new_zeros(()), auxiliary, z, x_hat)


def keep_top(values: Tensor, k: int) -> Tensor:
    """`values` with all but the `k` largest entries of each row set to zero."""
    top, where = values.topk(k, dim=-1, sorted=False)
    return torch.zeros_like(values).scatter(-1, where, top)


def auxk(sae: TopKSAE, pre: Tensor, residual: Tensor, dead: Tensor | None) -> Tensor:
    """The auxiliary loss that revives dead latents (Gao et al. 2024, appendix A.2).

    The `aux_k` dead latents with the largest pre-activations rebuild the residual, without `b_dec`, which is in
    the reconstruction already. The residual itself is a constant here: the living latents are not to make
    mistakes that the dead ones can mend.

    Args:
        sae: the SAE.
        pre: [batch, d_sae] pre-activations.
        residual: [batch, d_out] the target minus the reconstruction.
        dead: [d_sae] bool; None for none.

    Returns:
        A 0-d tensor, `aux_weight` included.
    """
    n_dead = 0 if dead is None else int(dead.sum())
    if n_dead == 0 or sae.aux_weight == 0:
        return pre.new_zeros(())
    z = keep_top(torch.relu(pre[:, dead]), min(sae.aux_k, n_dead))
    return sae.aux_weight * squared_error(z @ sae.W_dec[dead], residual.detach())
