"""The sparse autoencoder of the course's first pages: a linear encoder, a ReLU, a linear decoder.

    z     = relu((x - b_dec) W_enc + b_enc)
    x_hat = z W_dec + b_dec
    loss  = |x - x_hat|^2  +  l1 * sum over latents of z

Squared error and penalty are each summed over their axis and averaged over the batch. With decoder rows held at
norm 1 this is Bricken et al. 2023; with `unit_norm=False` every latent's penalty is multiplied by the norm of its
decoder row, as in Anthropic's update of April 2024 (Conerly et al. 2024). Without one of the two the penalty would
be empty: halve the latents, double the decoder, and the loss has fallen but the SAE does what it did before.
"""

from __future__ import annotations

import torch
from torch import Tensor

from solutions.errors import InputError
from solutions.sae.architectures.base import Losses, TrainableSAE, check_number, check_switch, squared_error


class ReluSAE(TrainableSAE):
    """ReLU with an L1 penalty (Bricken et al. 2023, "Towards Monosemanticity", appendix on training).

    Args:
        d_in: width of the activations.
        d_sae: number of latents.
        l1: weight of the penalty, for inputs of mean norm sqrt(d_in). Larger: fewer active latents, a worse
            reconstruction, and values that are shrunk more.
        tied: let the encoder be the decoder's transpose (Cunningham et al. 2024, section 2).
        ghost: give dead latents ghost gradients (Jermyn & Templeton 2024). Historic: AuxK took their place.
        **shared: `d_out`, `seed`, `unit_norm` and `subtract_b_dec`: see `TrainableSAE`.
    """

    architecture = "relu"
    settings = ("l1", "tied", "ghost")

    def __init__(
        self, d_in: int, d_sae: int, *, l1: float = 1.0, tied: bool = False, ghost: bool = False, **shared
    ):
        if check_switch(tied, "tied") and shared.get("d_out") is not None:
            raise InputError("a transcoder reads one space and writes another: tied must be False.")
        super().__init__(d_in, d_sae, tied=tied, **shared)
        self.l1 = check_number(l1, "l1", least=0.0)
        self.ghost = check_switch(ghost, "ghost")

    def __getattr__(self, name: str):
        """Tied weights: there is one matrix, and `W_enc` is another way to look at it."""
        if name == "W_enc" and self.__dict__.get("tied"):
            return self.W_dec.T
        return super().__getattr__(name)

    def preactivations(self, x: Tensor) -> Tensor:
        """How much of each latent's direction is in `x`: [..., d_in] to [..., d_sae], negative values too."""
        if self.subtract_b_dec:
            x = x - self.b_dec  # look at the data from its middle
        return x @ self.W_enc + self.b_enc

    def activate(self, pre: Tensor) -> Tensor:
        """Negative becomes zero. That is all the sparsity there is; the penalty makes use of it."""
        return torch.relu(pre)

    def encode(self, x: Tensor) -> Tensor:
        """[..., d_in] to latents [..., d_sae]."""
        return self.activate(self.preactivations(x))

    def decode(self, z: Tensor) -> Tensor:
        """Latents [..., d_sae] to [..., d_out]: a sum of decoder rows, each as long as its latent says."""
        return z @ self.W_dec + self.b_dec

    def losses(
        self, x: Tensor, target: Tensor | None = None, *, warm: float = 1.0, dead: Tensor | None = None
    ) -> Losses:
        """Squared error and L1; see `TrainableSAE.losses` for the arguments."""
        target = x if target is None else target
        pre = self.preactivations(x)
        z = self.activate(pre)
        x_hat = self.decode(z)

        reconstruction = squared_error(x_hat, target)
        size = z if self.unit_norm else z * self.decoder_norms()
        sparsity = warm * self.l1 * size.sum(dim=-1).mean()
        auxiliary = ghost_gradients(self, pre, target - x_hat, dead) if self.ghost else x.new_zeros(())
        return Losses(reconstruction + sparsity + auxiliary, reconstruction, sparsity, auxiliary, z, x_hat)


def ghost_gradients(sae: TrainableSAE, pre: Tensor, residual: Tensor, dead: Tensor | None) -> Tensor:
    """Let dead latents try to rebuild what the living ones missed (Jermyn & Templeton 2024, "Ghost Grads").

    A dead latent has no gradient through the ReLU, so here it acts as exp(pre), which always has one. What the
    dead latents write together is shrunk to half the residual's length, and their error is weighed to equal the
    reconstruction error. Both factors are treated as constants.

    Args:
        sae: the SAE.
        pre: [batch, d_sae] pre-activations.
        residual: [batch, d_out] the target minus the reconstruction.
        dead: [d_sae] bool; None for none.

    Returns:
        A 0-d tensor.
    """
    if dead is None or not bool(dead.any()):
        return pre.new_zeros(())
    residual = residual.detach()
    written = torch.exp(pre[:, dead]) @ sae.W_dec[dead]
    shrink = residual.norm(dim=1) / (2 * written.norm(dim=1)).clamp_min(1e-8)
    missed = (written * shrink.detach()[:, None] - residual).pow(2).sum(dim=1)
    weigh = residual.pow(2).sum(dim=1) / missed.clamp_min(1e-8)
    return (missed * weigh.detach()).mean()
