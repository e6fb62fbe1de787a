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
def dense_gradients(
    sae: TrainableSAE, x: Tensor, target: Tensor, warm: float | Tensor = 1.0, pre: Tensor | None = None
) -> Parts:
    """Losses of a batch, and their gradients in `.grad` of every parameter: the same as `sparse_gradients`.

    Under `torch.autocast` the products are of its shorter numbers, and all that is summed up is float32 as before.
    `pre` are the pre-activations [batch, d_sae], if they are known; they are written over.
    """
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32
    with torch.autocast(device, enabled=False):
        return _five_products(sae, x, target, warm, pre, dtype)


def _five_products(
    sae: TrainableSAE, x: Tensor, target: Tensor, warm: float | Tensor, pre: Tensor | None, dtype: torch.dtype
) -> Parts:
    batch, shape = len(x), (len(x), sae.d_sae)
    centred = (x - sae.b_dec if sae.subtract_b_dec else x).to(dtype)
    into, out_of = sae.W_enc.to(dtype), sae.W_dec.to(dtype)
    if pre is None:
        pre = torch.addmm(sae.b_enc.to(dtype), centred, into, out=room(sae, "pre", shape, dtype))
    jumps = sae.architecture == "jumprelu"
    active = torch.gt(pre, sae.threshold if jumps else 0.0, out=room(sae, "mask", shape, torch.bool))
    z = torch.mul(pre, active, out=room(sae, "z", shape, dtype) if jumps else pre)
    counts = active.sum(dim=0, dtype=torch.int32)

    if dtype == torch.float32:
        error = torch.addmm(sae.b_dec, z, out_of).sub_(target)
    else:
        error = torch.mm(z, out_of).float().add_(sae.b_dec).sub_(target)
    g = error * (2 / batch)
    sae.W_dec.grad = _weight_gradient(sae, "W_dec", z.T, g.to(dtype))
    dz = torch.mm(g.to(dtype), out_of.T, out=room(sae, "dz", shape, dtype))
    if jumps:
        cost = warm * sae.l0_penalty / batch
        sparsity = cost * counts.sum()
        window = pre.sub_(sae.threshold).abs_() < sae.bandwidth / 2
        felt = torch.mul(dz, window, out=pre).sum(dim=0, dtype=torch.float32) * sae.threshold + cost * window.sum(dim=0)
        sae.threshold.grad = felt / -sae.bandwidth
    else:
        sparsity = warm * sae.l1 / batch * z.sum(dtype=torch.float32)
        dz += warm * sae.l1 / batch
    dpre = dz.mul_(active)
    set_encoder_gradient(sae, _weight_gradient(sae, "W_enc", dpre.T, centred))
    sae.b_enc.grad = dpre.sum(dim=0, dtype=torch.float32)
    sae.b_dec.grad = g.sum(dim=0)
    if sae.subtract_b_dec:
        sae.b_dec.grad -= sae.W_enc @ sae.b_enc.grad
    squared = error.square().sum()
    return Parts(squared / batch, sparsity, squared.new_zeros(()), squared, counts)


def _weight_gradient(sae: TrainableSAE, name: str, left: Tensor, right: Tensor) -> Tensor:
    """left @ right, in float32."""
    if left.dtype == torch.float32:
        return torch.mm(left, right, out=room(sae, name, (left.shape[0], right.shape[1])))
    return torch.mm(left, right).float()
