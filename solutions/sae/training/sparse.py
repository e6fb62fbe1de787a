"""A training step that does not multiply what is zero. One function, `sparse_gradients`; its page is `sparse_step`.

A dense step has six products of batch × d × d_sae numbers: the encoder, the decoder, and for each of them the
gradients of its weights and of its input. All but the first have the latents, or their gradient, as a factor, and
there nearly every entry is zero. Here the entries that are not zero are found once, right after the encoder. What
follows touches them alone:

    pre   = (x - b_dec) W_enc + b_enc           the one dense product
    z     = what survives of pre                n entries, each a token, a latent and a value
    x_hat = z W_dec + b_dec                     n decoder rows, summed up by token
    g     = d loss / d x_hat                    [batch, d_out]
    dz    = g W_dec^T, at the n entries only    n inner products
    W_dec.grad = z^T g                          n rows of g, summed up by latent
    W_enc.grad = (x - b_dec)^T dpre             n rows of x, summed up by latent

The gradients are those of `sae.losses(...).total.backward()`, but for rounding. All of it is plain torch, with numpy
where it selects faster on a CPU.
"""

from __future__ import annotations

import math
import warnings
import weakref
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from solutions.sae.architectures.topk import keep_top
from solutions.sae.training.selecting import largest_of_all, largest_of_each, positions

if TYPE_CHECKING:
    from solutions.sae.architectures import TrainableSAE

#: Architectures whose step is written out here. The others take the dense path.
KNOWN = ("relu", "topk", "batchtopk", "jumprelu")

#: Results with more numbers than this are written into memory that is there already.
LARGE = 2**21

#: Large arrays that the next step writes over: on a CPU, fresh memory costs more time than what is written into it.
_rooms: weakref.WeakKeyDictionary[TrainableSAE, dict[str, Tensor]] = weakref.WeakKeyDictionary()


class Entries(NamedTuple):
    """The entries of [batch, d_sae] that matter, token by token: all that a step needs to know of the latents."""

    token: Tensor
    """[n] int32, never falling."""
    latent: Tensor
    """[n] int32."""
    pre: Tensor
    """[n] pre-activations."""
    z: Tensor
    """[n] latents. Zero where only the gradient of a threshold needs the entry, which JumpReLU alone has."""


class Matrix(NamedTuple):
    """A sparse matrix, row by row (CSR). Indices are 32-bit: that is what the CPU's library works with."""

    starts: Tensor
    """[rows + 1] where each row's entries begin."""
    column: Tensor
    """[n]"""
    values: Tensor
    """[n]"""

    def as_torch(self, n_columns: int) -> Tensor:
        """The same as a torch tensor."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
            shape = len(self.starts) - 1, n_columns
            return torch.sparse_csr_tensor(*self, shape, check_invariants=False)


class Parts(NamedTuple):
    """What a sparse step finds out besides the gradients: 0-d tensors, and `counts`."""

    reconstruction: Tensor
    sparsity: Tensor
    auxiliary: Tensor
    error: Tensor
    """Squared error, summed over the batch."""
    counts: Tensor
    """[d_sae] on how many tokens of the batch each latent was active."""


def can_be_sparse(sae: TrainableSAE) -> bool:
    """Whether the step of this SAE is written out here."""
    plain = all(parameter.dtype == torch.float32 for parameter in sae.parameters())
    return sae.architecture in KNOWN and plain and not getattr(sae, "ghost", False)


@torch.no_grad()
def sparse_gradients(
    sae: TrainableSAE, x: Tensor, target: Tensor, warm: float = 1.0, dead: Tensor | None = None
) -> Parts:
    """Losses of a batch, and their gradients in `.grad` of every parameter. What was there before is lost.

    Args:
        sae: one that `can_be_sparse`.
        x: [batch, d_in] activations.
        target: [batch, d_out] what is to be predicted.
        warm, dead: see `TrainableSAE.losses`.
    """
    batch = len(x)
    centred = x - sae.b_dec if sae.subtract_b_dec else x
    pre = torch.addmm(sae.b_enc, centred, sae.W_enc, out=room(sae, "pre", (batch, sae.d_sae)))
    found = _entries(sae, pre)

    z = Matrix(_starts(found.token, batch), found.latent, found.z)
    error = _times(z, sae.W_dec).add_(sae.b_dec).sub_(target)
    g = error * (2 / batch)
    dz = torch.sparse.sampled_addmm(z.as_torch(sae.d_sae), g, sae.W_dec.T, beta=0).values()
    sparsity = penalty(sae, found, dz, batch, warm)
    dpre = dz * (found.z != 0) if sae.architecture == "jumprelu" else dz

    # The same entries latent by latent, for the gradients of both weight matrices.
    starts, order = _starts(found.latent, sae.d_sae), found.latent.argsort(stable=True)
    token = found.token.index_select(0, order)
    z_t, dpre_t = (Matrix(starts, token, values.index_select(0, order)) for values in (found.z, dpre))
    _weight_gradients(sae, z_t, g, dpre_t, centred)
    if sae.architecture == "relu" and not sae.unit_norm:
        penalty_on_norms(sae, found, batch, warm)
    sae.b_enc.grad = sum_by(found.latent, dpre, sae.d_sae)
    sae.b_dec.grad = g.sum(dim=0)

    squared = error.square().sum()
    auxiliary = add_auxk(sae, pre, centred, error.neg_(), dead)
    if sae.subtract_b_dec:
        sae.b_dec.grad -= sae.W_enc @ sae.b_enc.grad  # through x - b_dec: a product with a vector is enough
    counts = starts.diff() if sae.architecture != "jumprelu" else sum_by(found.latent, found.z > 0, sae.d_sae)
    return Parts(squared / batch, sparsity, auxiliary, squared, counts)


# ---- which entries


def _entries(sae: TrainableSAE, pre: Tensor) -> Entries:
    """The entries of `pre` [batch, d_sae] that have a gradient."""
    if sae.architecture == "topk":
        where, values = largest_of_each(pre, sae.k)
    elif sae.architecture == "batchtopk":
        where, values, sae.batch_threshold = largest_of_all(pre, sae.n_kept(len(pre)))
    else:
        where = positions(torch.gt(pre, floor_of(sae), out=room(sae, "mask", pre.shape, torch.bool)))
        values = pre.view(-1).index_select(0, where)
    token, latent = where.div(sae.d_sae, rounding_mode="floor").int(), (where % sae.d_sae).int()
    z = values * (values > sae.threshold[latent]) if sae.architecture == "jumprelu" else values
    return Entries(token, latent, values, z)


def floor_of(sae: TrainableSAE) -> Tensor | float:
    """What a pre-activation has to exceed to matter: 0, or the lower end of the window around the threshold."""
    return 0.0 if sae.architecture == "relu" else sae.threshold - 0.501 * sae.bandwidth


def density(sae: TrainableSAE, x: Tensor, n_rows: int = 32) -> float:
    """The share of entries that a sparse step would touch: from `k`, or measured on a few rows of `x`."""
    if sae.architecture in ("topk", "batchtopk"):
        return sae.k / sae.d_sae
    with torch.no_grad():
        pre = sae.preactivations(x[:: max(1, len(x) // n_rows)])
        return (pre > floor_of(sae)).float().mean().item()


# ---- the penalties on being active


def penalty(sae: TrainableSAE, found: Entries, dz: Tensor, batch: int, warm: float) -> Tensor:
    """Value of the sparsity term. Adds its gradient to `dz` (ReLU), or sets that of the thresholds (JumpReLU)."""
    if sae.architecture == "relu":
        weight = torch.ones_like(found.z).mul_(warm * sae.l1 / batch)
        if not sae.unit_norm:
            weight *= sae.decoder_norms()[found.latent]
        dz += weight
        return weight @ found.z
    if sae.architecture == "jumprelu":
        cost, threshold = warm * sae.l0_penalty / batch, sae.threshold[found.latent]
        window = ((found.pre - threshold).abs() < sae.bandwidth / 2).to(dz.dtype)
        felt = window * (threshold * dz + cost) / -sae.bandwidth  # equations 11 and 12 of the paper
        sae.threshold.grad = sum_by(found.latent, felt, sae.d_sae)
        return cost * (found.pre > threshold).sum()
    return dz.new_zeros(())


def penalty_on_norms(sae: TrainableSAE, found: Entries, batch: int, warm: float) -> None:
    """A penalty on z times the decoder's norm has a gradient in the decoder too."""
    pull = sum_by(found.latent, found.z, sae.d_sae) * (warm * sae.l1 / batch) / sae.decoder_norms()
    sae.W_dec.grad.addcmul_(sae.W_dec, pull[:, None])


def add_auxk(sae: TrainableSAE, pre: Tensor, centred: Tensor, residual: Tensor, dead: Tensor | None) -> Tensor:
    """AuxK as in `architectures.topk.auxk`: a small dense problem of the dead latents alone. Adds to the gradients."""
    if dead is None or not getattr(sae, "aux_weight", 0) or not bool(dead.any()):
        return pre.new_zeros(())
    which = dead.nonzero().view(-1)
    with torch.enable_grad():
        mine, rows = pre[:, which].float().requires_grad_(), sae.W_dec.detach()[which].requires_grad_()
        written = keep_top(torch.relu(mine), min(sae.aux_k, len(which))) @ rows
        loss = sae.aux_weight * (written - residual).square().sum() / len(pre)
        dpre, drows = torch.autograd.grad(loss, (mine, rows))
    sae.W_dec.grad.index_add_(0, which, drows)
    sae.W_enc.grad.T.index_add_(0, which, dpre.T @ centred)
    sae.b_enc.grad.index_add_(0, which, dpre.sum(dim=0))
    return loss.detach()


# ---- products with few entries


def _weight_gradients(sae: TrainableSAE, z_t: Matrix, g: Tensor, dpre_t: Matrix, centred: Tensor) -> None:
    """Gradients of the weights: rows of `g` and of `centred`, summed up by latent."""
    if sae.tied:
        sae.W_dec.grad = _times(z_t, g) + _times(dpre_t, centred)
        return
    sae.W_dec.grad = _times(z_t, g, room(sae, "W_dec", sae.W_dec.shape))
    set_encoder_gradient(sae, _times(dpre_t, centred, room(sae, "W_enc", (sae.d_sae, sae.d_in))))


def set_encoder_gradient(sae: TrainableSAE, by_latent: Tensor) -> None:
    """Take [d_sae, d_in] as the gradient of `W_enc`, which is its transpose.

    A fused optimiser reads weights and gradients as they lie in memory, without a look at their strides: they have
    to lie alike. In a fresh SAE they do.
    """
    grad = by_latent.T
    sae.W_enc.grad = grad if grad.stride() == sae.W_enc.stride() else torch.empty_like(sae.W_enc).copy_(grad)


def _times(matrix: Matrix, rows: Tensor, out: Tensor | None = None) -> Tensor:
    """matrix @ rows: a weighted sum of rows of `rows` for each row of the matrix.

    Torch has it as an embedding bag, which is the fastest of its ways; but it cannot write into given memory, so
    large results, where that saves more, go the other way.
    """
    if out is not None and out.numel() > LARGE:
        return torch.addmm(out, matrix.as_torch(len(rows)), rows, beta=0, out=out)
    starts, column, values = matrix
    return embedding_bag(column, rows, starts[:-1], mode="sum", per_sample_weights=values)


def _starts(row: Tensor, n_rows: int) -> Tensor:
    """[n_rows + 1] where the entries of each row begin, for entries sorted by row."""
    starts = torch.zeros(n_rows + 1, dtype=torch.int32, device=row.device)
    torch.cumsum(torch.bincount(row, minlength=n_rows), 0, out=starts[1:])
    return starts


def sum_by(index: Tensor, values: Tensor, size: int) -> Tensor:
    """[size] sums of the `values` with the same index."""
    if values.device.type != "cpu":  # a GPU would have to be asked for the largest index
        return torch.zeros(size, device=values.device).index_add_(0, index, values.float())
    return torch.bincount(index, values, minlength=size).float()


def room(sae: TrainableSAE, name: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Memory of that shape, the same at every step; what is in it is left over."""
    rooms, size = _rooms.setdefault(sae, {}), math.prod(shape)
    there = rooms.get(name)
    if there is None or there.numel() < size or (there.device, there.dtype) != (sae.b_dec.device, dtype):
        there = rooms[name] = torch.empty(size, dtype=dtype, device=sae.b_dec.device)
    return there[:size].view(shape)
