"""The dense training step without autograd, for ReLU and JumpReLU while many latents are active.

Both begin with half of their latents active, and stay dense until the penalty has done its work. The sparse step would
be slower there, but autograd can be beaten even so. It makes six products, one of them for the gradient of `b_dec`
through x - b_dec, where a product with a vector is enough; and for every line of the loss it takes fresh memory of
batch × d_sae numbers. Here are five products, in the memory of the step before:

    pre = (x - b_dec) W_enc + b_enc         dz         = g W_dec^T
    x_hat = z W_dec + b_dec                 W_dec.grad = z^T g           W_enc.grad = dpre^T (x - b_dec)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from solutions.sae.training.sparse import Parts, can_be_sparse, room, set_encoder_gradient

if TYPE_CHECKING:
    from solutions.sae.architectures import TrainableSAE


def is_written_out(sae: TrainableSAE) -> bool:
    """Whether `dense_gradients` knows this SAE."""
    return sae.architecture in ("relu", "jumprelu") and can_be_sparse(sae) and not sae.tied and sae.unit_norm


@torch.no_grad()
def dense_gradients(sae: TrainableSAE, x: Tensor, target: Tensor, warm: float = 1.0) -> Parts:
    """Losses of a batch, and their gradients in `.grad` of every parameter: the same as `sparse_gradients`."""
    batch, shape = len(x), (len(x), sae.d_sae)
    centred = x - sae.b_dec if sae.subtract_b_dec else x
    pre = torch.addmm(sae.b_enc, centred, sae.W_enc, out=room(sae, "pre", shape))
    jumps = sae.architecture == "jumprelu"
    active = torch.gt(pre, sae.threshold if jumps else 0.0, out=room(sae, "mask", shape, torch.bool))
    z = torch.mul(pre, active, out=room(sae, "z", shape) if jumps else pre)
    counts = active.sum(dim=0, dtype=torch.int32)

    error = torch.addmm(sae.b_dec, z, sae.W_dec).sub_(target)
    g = error * (2 / batch)
    sae.W_dec.grad = torch.mm(z.T, g, out=room(sae, "W_dec", sae.W_dec.shape))
    dz = torch.mm(g, sae.W_dec.T, out=room(sae, "dz", shape))
    if jumps:
        cost = warm * sae.l0_penalty / batch
        sparsity = cost * counts.sum()
        window = pre.sub_(sae.threshold).abs_() < sae.bandwidth / 2
        felt = torch.mul(dz, window, out=pre).sum(dim=0) * sae.threshold + cost * window.sum(dim=0)
        sae.threshold.grad = felt / -sae.bandwidth
    else:
        sparsity = warm * sae.l1 / batch * z.sum()
        dz += warm * sae.l1 / batch
    dpre = dz.mul_(active)
    set_encoder_gradient(sae, torch.mm(dpre.T, centred, out=room(sae, "W_enc", (sae.d_sae, sae.d_in))))
    sae.b_enc.grad = dpre.sum(dim=0)
    sae.b_dec.grad = g.sum(dim=0)
    if sae.subtract_b_dec:
        sae.b_dec.grad -= sae.W_enc @ sae.b_enc.grad
    squared = error.square().sum()
    return Parts(squared / batch, sparsity, squared.new_zeros(()), squared, counts)
