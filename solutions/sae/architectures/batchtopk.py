"""BatchTopK: keep the `k * batch` largest latents of a whole batch, so that tokens may differ (Bussmann et al. 2024).

In training, a token that is hard to say gets more latents and an easy one fewer; `k` is what they have on average.
After training there is no batch to compete in, and a latent must not depend on its neighbours. So the smallest value
that survived is averaged over the last batches, and that one threshold is used instead: the SAE is then a JumpReLU,
and is saved as one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from solutions.errors import InputError
from solutions.sae.architectures.base import check_number
from solutions.sae.architectures.topk import TopKSAE


class BatchTopKSAE(TopKSAE):
    """BatchTopK with AuxK (Bussmann et al. 2024, "BatchTopK Sparse Autoencoders", section 3).

    Args:
        d_in: width of the activations.
        d_sae: number of latents.
        k: active latents per token on average; need not be whole.
        threshold_rate: how much the newest batch counts in the running mean of the threshold. The mean is
            corrected for its start from zero, as Adam's are, so a short run has no threshold that lags behind.
        **settings: `aux_weight` and `aux_k` of `TopKSAE`; `d_out`, `seed`, … of `TrainableSAE`.
    """

    architecture = "batchtopk"
    settings = ("k", "aux_weight", "aux_k", "threshold_rate")

    def __init__(self, d_in: int, d_sae: int, *, threshold_rate: float = 0.01, **settings):
        super().__init__(d_in, d_sae, **settings)
        self.threshold_rate = check_number(threshold_rate, "threshold_rate", above=0.0, most=1.0)
        # Buffers, so that a checkpoint has them, and processes that train together can average them.
        self.register_buffer("threshold_sum", torch.zeros(()))
        self.register_buffer("threshold_weight", torch.zeros(()))
        self.batch_threshold: Tensor | None = None  # of the batch just seen, until `after_step` takes it in

    def check_k(self, k: object) -> int | float:
        """Return `k` if there are so many latents.

        Raises:
            InputError: it is no number above 0, or more than there are latents.
        """
        number = check_number(k, "k", above=0.0)
        if number > self.d_sae:
            raise InputError(f"k must be at most d_sae, got k = {k} with d_sae = {self.d_sae}.")
        return int(number) if number.is_integer() else number

    @property
    def threshold(self) -> Tensor:
        """0-d: what a pre-activation has to exceed after training; 0 before the first step."""
        return self.threshold_sum / self.threshold_weight.clamp_min(1e-12)

    def n_kept(self, n_tokens: int) -> int:
        """How many entries a batch of `n_tokens` keeps in all."""
        return max(1, int(self.k * n_tokens))

    def activate(self, pre: Tensor) -> Tensor:
        """After training: entries of `pre` [..., d_sae] above the threshold; the rest is zero."""
        return torch.relu(pre) * (pre > self.threshold)

    def activate_in_training(self, pre: Tensor) -> Tensor:
        """In training: the `k * batch` largest positive entries of the whole of `pre` [batch, d_sae]."""
        positive = torch.relu(pre)
        smallest = kth_largest(positive.detach(), self.n_kept(len(pre)))
        self.batch_threshold = smallest
        return positive * (positive >= smallest)

    @torch.no_grad()
    def after_step(self) -> None:
        """Renormalise the decoder, and take the batch's threshold into the running mean."""
        super().after_step()
        if self.batch_threshold is not None:
            self.threshold_sum.lerp_(self.batch_threshold.to(self.threshold_sum), self.threshold_rate)
            self.threshold_weight.lerp_(torch.ones_like(self.threshold_weight), self.threshold_rate)
            self.batch_threshold = None

    @torch.no_grad()
    def set_threshold(self, threshold: float) -> None:
        """Use this threshold; steps that follow move on from it.

        Args:
            threshold: in units of a latent's activation, at least 0.

        Raises:
            InputError: it is below 0, or not finite.
        """
        self.threshold_sum.fill_(check_number(threshold, "threshold", least=0.0))
        self.threshold_weight.fill_(1.0)

    @torch.no_grad()
    def fold_scale(self, scale: float, target_scale: float | None = None) -> None:
        """See `TrainableSAE.fold_scale`; the threshold is in the units of a latent, and shrinks with it."""
        super().fold_scale(scale, target_scale)
        self.threshold_sum.div_(scale if target_scale is None else target_scale)


def kth_largest(values: Tensor, k: int) -> Tensor:
    """The `k`-th largest of all entries of `values`: a 0-d tensor."""
    flat = values.flatten()
    if flat.device.type == "cuda":  # there `kthvalue` is some fifty times slower
        return flat.topk(k, sorted=False).values.min()
    return flat.kthvalue(len(flat) - k + 1).values
