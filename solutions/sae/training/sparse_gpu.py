"""The sparse step on a GPU. The same sums as in `sparse`, put together from what a GPU does well.

Two things differ from a CPU. First, a GPU works through a queue, and asking it for a number stops the queue until it
is empty. So nothing here depends on a number. TopK and BatchTopK keep a fixed count of entries, those that are not
positive with the value zero. For ReLU and JumpReLU somebody asks beforehand how many entries matter, and then so many
are kept, or a few more. Second, torch has fast kernels for products with few entries: an embedding bag, its backward
pass, and a sparse matrix times a dense one.

    x_hat = z W_dec        rows of a table, weighted and summed up by token: the bag itself
    dz    = g W_dec^T      the gradient that a bag gives its weights
    z^T g, dpre^T x        a sparse matrix times a dense one, with the entries sorted by latent, once for both

The encoder's product is the only one that `torch.autocast` rounds to bfloat16. What follows it is exact in float32.

Some sums are taken with atomic operations, in an order that changes from run to run. So two runs with one seed agree
but for rounding, and not bit by bit as they do on a CPU.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from solutions.sae.training.selecting import group_size, members
from solutions.sae.training.sparse import (
    Entries,
    Matrix,
    Parts,
    add_auxk,
    floor_of,
    penalty,
    penalty_on_norms,
    room,
    set_encoder_gradient,
    sum_by,
)

if TYPE_CHECKING:
    from solutions.sae.architectures import TrainableSAE


@torch.no_grad()
def gpu_gradients(
    sae: TrainableSAE,
    x: Tensor,
    target: Tensor,
    warm: float | Tensor = 1.0,
    dead: Tensor | None = None,
    *,
    pre: Tensor | None = None,
    n_entries: int | None = None,
) -> Parts:
    """Losses of a batch, and their gradients: see `sparse.sparse_gradients`, which gives the same.

    Args:
        sae, x, target, warm, dead: see there.
        pre: [batch, d_sae] the pre-activations, if they are known.
        n_entries: for ReLU and JumpReLU, at least how many entries matter; None asks the GPU.
    """
    batch = len(x)
    centred = x - sae.b_dec if sae.subtract_b_dec else x
    if pre is None:
        pre = torch.addmm(sae.b_enc, centred, sae.W_enc)
    with torch.autocast(x.device.type, enabled=False):
        found, starts = _entries(sae, pre, n_entries)
        with torch.enable_grad():  # a bag has a gradient for its weights; the table's is not wanted
            z = found.z.requires_grad_()
            x_hat = embedding_bag(found.latent, sae.W_dec.detach(), starts, mode="sum", per_sample_weights=z)
        error = x_hat.detach().add_(sae.b_dec).sub_(target)
        g = error * (2 / batch)
        dz = torch.autograd.grad(x_hat, z, g)[0]
        sparsity = penalty(sae, found, dz, batch, warm)
        active = found.z > 0
        dpre = dz * active

        _weight_gradients(sae, found, g, dpre, centred)
        if sae.architecture == "relu" and not sae.unit_norm:
            penalty_on_norms(sae, found, batch, warm)
        sae.b_enc.grad = sum_by(found.latent, dpre, sae.d_sae)
        sae.b_dec.grad = g.sum(dim=0)
        counts = sum_by(found.latent, active, sae.d_sae)

        squared = error.square().sum()
        auxiliary = add_auxk(sae, pre, centred, error.neg_(), dead)
        if sae.subtract_b_dec:
            sae.b_dec.grad -= sae.W_enc @ sae.b_enc.grad
    return Parts(squared / batch, sparsity, auxiliary, squared, counts)


# ---- which entries


@torch.no_grad()
def preactivations(sae: TrainableSAE, x: Tensor) -> Tensor:
    """[batch, d_sae] pre-activations, in the same memory at every step."""
    centred = x - sae.b_dec if sae.subtract_b_dec else x
    return torch.addmm(sae.b_enc, centred, sae.W_enc, out=room(sae, "pre", (len(x), sae.d_sae)))


def count(sae: TrainableSAE, pre: Tensor) -> int:
    """How many entries of `pre` [batch, d_sae] matter to a step of ReLU or JumpReLU. The GPU is asked, and waits."""
    return int((pre > floor_of(sae)).sum())


def rounded_up(n: int) -> int:
    """The next power of sqrt(2): so that few different numbers of entries occur in a run."""
    return math.ceil(2 ** (math.ceil(2 * math.log2(max(n, 256))) / 2))


def _entries(sae: TrainableSAE, pre: Tensor, n_entries: int | None) -> tuple[Entries, Tensor]:
    """The entries of `pre` [batch, d_sae] that matter, and [batch] where each token's begin."""
    batch = len(pre)
    if sae.architecture == "topk":
        values, latent = largest_of_each(pre, sae.k)
        starts = torch.arange(0, latent.numel(), sae.k, device=pre.device)
        values, latent = values.view(-1), latent.view(-1)
        token = torch.arange(batch, device=pre.device).repeat_interleave(sae.k)
    else:
        if sae.architecture == "batchtopk":
            where = largest_of_all(pre, sae.n_kept(batch))
        elif n_entries is None:
            where = (pre > floor_of(sae)).view(-1).nonzero().view(-1)
        else:  # all that matter, and some that do not
            where = largest_of_all(pre if sae.architecture == "relu" else pre - floor_of(sae), n_entries)
        values = pre.view(-1).index_select(0, where)
        token = where.div(sae.d_sae, rounding_mode="floor")
        latent = where - token * sae.d_sae
        starts = torch.searchsorted(token, torch.arange(batch, device=pre.device))
    values = values.float()
    if sae.architecture == "jumprelu":
        return Entries(token, latent, values, values * (values > sae.threshold[latent])), starts
    z = values.relu()
    if sae.architecture == "batchtopk":
        sae.batch_threshold = z.min()
    return Entries(token, latent, values, z), starts


def largest_of_each(pre: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The `k` largest entries of each row.

    Args:
        pre: [rows, columns].
        k: how many of each row.

    Returns:
        [rows, k] values, in no order, and [rows, k] columns.
    """
    size = group_size(pre.shape[1], k)
    if size == 1:
        return pre.topk(k, dim=1, sorted=False)
    rows, columns = pre.shape
    n_groups = columns // size
    best = pre.view(rows, size, n_groups).amax(dim=1)
    groups = best.topk(k, dim=1, sorted=False).indices
    apart = torch.arange(0, columns, n_groups, device=pre.device)
    inside = (groups[:, :, None] + apart).view(rows, k * size)
    values, place = pre.gather(1, inside).topk(k, dim=1, sorted=False)
    return values, inside.gather(1, place)


def largest_of_all(pre: Tensor, n: int) -> Tensor:
    """[n] positions of the `n` largest entries of a whole matrix, in the flattened matrix, rising.

    Args:
        pre: [rows, columns].
        n: how many.
    """
    size = group_size(pre.shape[1], n / len(pre))
    flat = pre.view(-1)
    if size == 1:
        return flat.topk(n, sorted=False).indices.sort().values
    rows, columns = pre.shape
    n_groups = columns // size
    best = pre.view(rows, size, n_groups).amax(dim=1)
    groups = best.view(-1).topk(n, sorted=False).indices
    inside = members(groups, size, n_groups)
    place = flat.index_select(0, inside).topk(n, sorted=False).indices
    return inside.index_select(0, place).sort().values


# ---- products with few entries


def _weight_gradients(sae: TrainableSAE, found: Entries, g: Tensor, dpre: Tensor, centred: Tensor) -> None:
    """Gradients of the weights: rows of `g` and of `centred`, weighted and summed up by latent."""
    latent, order = found.latent.int().sort(stable=True)  # half the passes of a sort of 64-bit numbers
    starts = torch.searchsorted(latent, torch.arange(sae.d_sae + 1, device=g.device).int(), out_int32=True)
    token = found.token.index_select(0, order).int()
    of_decoder, of_encoder = (
        Matrix(starts, token, weights.detach().index_select(0, order)).as_torch(len(g)) @ rows
        for weights, rows in ((found.z, g), (dpre, centred))
    )
    if sae.tied:
        sae.W_dec.grad = of_decoder.add_(of_encoder)
        return
    sae.W_dec.grad = of_decoder
    set_encoder_gradient(sae, of_encoder)
