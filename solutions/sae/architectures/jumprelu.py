"""JumpReLU: every latent has a threshold of its own, and L0 itself is the penalty (Rajamanoharan et al. 2024b).

    z    = pre  where pre > threshold, else 0
    loss = |x - x_hat|^2 + l0_penalty * number of active latents

Neither the jump nor the count has a useful derivative in the threshold: it is zero almost everywhere, and does not
exist at the jump. What has one is the *expectation* over the data: raise a threshold a little, and the tokens
whose pre-activation lies just there drop out. The paper estimates that from the tokens of the batch within half a
`bandwidth` of the threshold, and puts the estimate where the derivative should be (a straight-through estimator).
A narrow bandwidth sees few tokens and is noisy; a wide one takes in tokens that would not have dropped out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from solutions.sae.architectures.base import Losses, TrainableSAE, check_number, squared_error


class JumpReluSAE(TrainableSAE):
    """JumpReLU with an L0 penalty (Rajamanoharan et al. 2024b, "Jumping Ahead", sections 3 and 4).

    Two deviations from the paper, both because our inputs have mean norm sqrt(d_in), not 1, and our runs are
    short. The threshold is trained itself, not its logarithm: Adam moves a parameter by about the learning rate
    a step, which multiplies a logarithm's threshold by little more than one; `after_step` keeps it from going
    below zero. And bandwidth and first threshold are larger than the paper's 0.001 (0.001 sqrt(d_in) on our
    scale): with few tokens, a narrow window estimates from next to nothing.

    Args:
        d_in: width of the activations.
        d_sae: number of latents.
        l0_penalty: what one more active latent costs, for inputs of mean norm sqrt(d_in).
        bandwidth: width of the window around the threshold from which its gradient is estimated.
        initial_threshold: where every threshold starts.
        **shared: `d_out`, `seed`, `unit_norm` and `subtract_b_dec`: see `TrainableSAE`.
    """

    architecture = "jumprelu"
    per_latent = ("b_enc", "threshold")
    in_latent_units = ("b_enc", "threshold")
    settings = ("l0_penalty", "bandwidth", "initial_threshold")

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        *,
        l0_penalty: float = 1.0,
        bandwidth: float = 0.1,
        initial_threshold: float = 0.1,
        **shared,
    ):
        super().__init__(d_in, d_sae, **shared)
        self.l0_penalty = check_number(l0_penalty, "l0_penalty", least=0.0)
        self.bandwidth = check_number(bandwidth, "bandwidth", above=0.0)
        self.initial_threshold = check_number(initial_threshold, "initial_threshold", least=0.0)
        nn.init.constant_(self.threshold, self.initial_threshold)

    def activate(self, pre: Tensor) -> Tensor:
        """Entries of `pre` [..., d_sae] above their latent's threshold; the rest is zero."""
        return Jump.apply(pre, self.threshold, self.bandwidth)

    def losses(
        self, x: Tensor, target: Tensor | None = None, *, warm: float = 1.0, dead: Tensor | None = None
    ) -> Losses:
        """Squared error and L0; see `TrainableSAE.losses`. Dead latents get no help here."""
        target = x if target is None else target
        pre = self.preactivations(x)
        z = self.activate(pre)
        x_hat = self.decode(z)

        reconstruction = squared_error(x_hat, target)
        active = Step.apply(pre, self.threshold, self.bandwidth)
        sparsity = warm * self.l0_penalty * active.sum(dim=-1).mean()
        return Losses(reconstruction + sparsity, reconstruction, sparsity, x.new_zeros(()), z, x_hat)

    @torch.no_grad()
    def after_step(self) -> None:
        """Renormalise the decoder, and keep thresholds from going below zero."""
        super().after_step()
        self.threshold.clamp_(min=0.0)

    @torch.no_grad()
    def reset_latents(self, which: Tensor) -> None:
        """Biases to zero, thresholds to where they started.

        Args:
            which: [m] their numbers.
        """
        super().reset_latents(which)
        self.threshold[which] = self.initial_threshold


def in_window(pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    """The rectangle kernel of the estimators: which entries lie within half a bandwidth of the threshold."""
    return (pre - threshold).abs() < bandwidth / 2


class Jump(torch.autograd.Function):
    """`pre` where it exceeds the threshold, else 0, with the paper's pseudo-derivative (section 3) in the threshold:

        d z / d threshold  =  -(threshold / bandwidth)  inside the window, 0 outside

    An entry that drops out takes `threshold` with it, hence the factor. The derivative in `pre` is the true one.
    """

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return pre * (pre > threshold)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        pre, threshold = ctx.saved_tensors
        window = in_window(pre, threshold, ctx.bandwidth)
        lost = (grad * window).flatten(0, -2).sum(dim=0).to(threshold.dtype)
        return grad * (pre > threshold), -(threshold / ctx.bandwidth) * lost, None


class Step(torch.autograd.Function):
    """1 where `pre` exceeds the threshold, else 0, with the paper's pseudo-derivative (section 3) in the threshold:

        d step / d threshold  =  -1 / bandwidth  inside the window, 0 outside

    As in the paper, none of it reaches `pre`: the penalty moves thresholds, not the encoder.
    """

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return (pre > threshold).to(pre.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None]:
        pre, threshold = ctx.saved_tensors
        window = in_window(pre, threshold, ctx.bandwidth)
        lost = (grad * window).flatten(0, -2).sum(dim=0).to(threshold.dtype)
        return None, -lost / ctx.bandwidth, None
