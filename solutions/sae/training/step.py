"""The gradients of one training step, by the plain way or by the fast one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from solutions.errors import InputError, unknown_name
from solutions.sae.training.dense import dense_gradients, is_written_out
from solutions.sae.training.sparse import Parts, can_be_sparse, density, sparse_gradients
from solutions.sae.training.sparse_gpu import count, gpu_gradients, preactivations, rounded_up

if TYPE_CHECKING:
    from solutions.sae.architectures import TrainableSAE

PATHS = ("auto", "dense", "written", "sparse")

#: The sparse path is taken while it touches at most this share of the entries. Measured, on two CPU cores: see the
#: page `sparse_step`, and `python -m tests.benchmarks training` for your machine.
CROSSOVER = 0.08

#: The same for TopK and BatchTopK on a GPU, in float32 and in mixed precision. Measured on one H200, with d = 768.
CROSSOVER_GPU = {False: 0.05, True: 0.02}
#: And for ReLU and JumpReLU in float32. Their dense step is a faster one, so it is beaten later.
CROSSOVER_ASKED = 0.028
#: On a GPU a ReLU or JumpReLU step whose encoder has fewer multiplications than this is dense: to ask how many entries
#: there are takes longer than a sparse step could save. In mixed precision it always does.
WORTH_ASKING = 4e9


class StepResult(NamedTuple):
    """What a step computed, besides the gradients. 0-d tensors, but for `fired`."""

    total: Tensor           #: what is minimised; the sum of the three after it
    reconstruction: Tensor  #: squared error, mean over the batch
    sparsity: Tensor        #: the penalty, if the architecture has one
    auxiliary: Tensor       #: what dead latents are trained on
    l0: Tensor
    """Latents active on a token, on average."""
    fired: Tensor
    """[d_sae] bool: which latents were active on any token of the batch."""
    error: Tensor
    """Squared error, summed over the batch."""
    used: str
    """The path taken, "dense" or "sparse"."""


def step_gradients(
    sae: TrainableSAE,
    x: Tensor,
    target: Tensor | None = None,
    *,
    warm: float = 1.0,
    dead: Tensor | None = None,
    path: str = "auto",
) -> StepResult:
    """The losses of a batch, and their gradients in `.grad` of every parameter. Earlier gradients are thrown away.

    Large gradients lie in memory that the SAE's next step writes over: clone what you want to keep.

    Both paths give the same numbers, but for rounding. Which one "auto" takes depends on the batch and the weights
    alone, so a resumed run takes the paths that an uninterrupted one takes.

    Args:
        sae: the SAE in training.
        x: [batch, d_in] activations, scaled.
        target: [batch, d_out] what a transcoder is to predict; None for an SAE.
        warm: in [0, 1], scales the sparsity coefficient.
        dead: [d_sae] bool, latents that have not fired for long; None for none.
        path: "dense": the loss as it is written, and autograd. "written": the same products without autograd, for
            ReLU and JumpReLU, see `solutions.sae.training.dense`. "sparse": see `solutions.sae.training.sparse`, and
            `sparse_gpu`. "auto": the fastest of them where that is known, which is on a CPU in full precision, and
            on a CUDA GPU; elsewhere "dense".

    Returns:
        The losses, and which latents fired.

    Raises:
        InputError: an unknown path, or one that this SAE does not have.
    """
    if path not in PATHS:
        raise unknown_name("path", path, PATHS)
    if path == "written" and not is_written_out(sae):
        raise InputError(
            f"no dense step is written out for this {sae.architecture!r} SAE (only for relu and jumprelu, with float32 "
            "weights of their own and decoder rows of norm 1). Take path='auto' or 'dense'."
        )
    if path == "sparse" and not can_be_sparse(sae):
        raise InputError(
            f"there is no sparse step for this {sae.architecture!r} SAE (it needs float32 weights, one of the "
            "architectures relu, topk, batchtopk and jumprelu, and no ghost gradients). Take path='auto' or 'dense'."
        )
    return gradients_by(fastest_way(sae, x) if path == "auto" else Way(path), sae, x, target, warm=warm, dead=dead)


class Way(NamedTuple):
    """How a step comes to its gradients, and what choosing it has found out."""

    path: str
    """"dense", "written" or "sparse"."""
    pre: Tensor | None = None
    """[batch, d_sae] pre-activations, where one had to look at them. The next step writes over them."""
    n_entries: int | None = None
    """So many entries are enough for the sparse path."""


def gradients_by(
    way: Way,
    sae: TrainableSAE,
    x: Tensor,
    target: Tensor | None = None,
    *,
    warm: float | Tensor = 1.0,
    dead: Tensor | None = None,
) -> StepResult:
    """What `step_gradients` does, by a way that is chosen already.

    Args:
        way: from `fastest_way`, for this batch.
        sae, x, target, warm, dead: see `step_gradients`.
    """
    for parameter in sae.parameters():
        parameter.grad = None
    goal = x if target is None else target
    if way.path == "sparse" and x.device.type == "cuda":
        parts = gpu_gradients(sae, x, goal, warm, dead, pre=way.pre, n_entries=way.n_entries)
        return _result(parts, len(x), "sparse")
    if way.path == "sparse":
        return _result(sparse_gradients(sae, x, goal, warm, dead), len(x), "sparse")
    if way.path == "written":
        return _result(dense_gradients(sae, x, goal, warm, way.pre), len(x), "dense")
    return _by_autograd(sae, x, target, warm, dead)


def fastest_way(sae: TrainableSAE, x: Tensor) -> Way:
    """What "auto" means for this batch.

    Args:
        sae: the SAE in training.
        x: [batch, d_in] activations, scaled.
    """
    dense = Way("written" if is_written_out(sae) else "dense")
    mixed = x.device.type in ("cpu", "cuda") and torch.is_autocast_enabled(x.device.type)
    if x.device.type == "cuda":
        return _fastest_on_gpu(sae, x, mixed, dense)
    if x.device.type != "cpu" or mixed:
        return Way("dense")
    return Way("sparse") if can_be_sparse(sae) and density(sae, x) <= CROSSOVER else dense


def _fastest_on_gpu(sae: TrainableSAE, x: Tensor, mixed: bool, dense: Way) -> Way:
    if not can_be_sparse(sae):
        return dense
    if sae.architecture in ("topk", "batchtopk"):
        return Way("sparse") if sae.k / sae.d_sae <= CROSSOVER_GPU[mixed] else dense
    if mixed or len(x) * sae.d_in * sae.d_sae < WORTH_ASKING:
        return dense
    pre = preactivations(sae, x)
    n_entries = min(rounded_up(count(sae, pre)), pre.numel())
    if n_entries <= CROSSOVER_ASKED * pre.numel():
        return Way("sparse", pre, n_entries)
    return Way("written", pre) if dense.path == "written" else dense


def _by_autograd(
    sae: TrainableSAE, x: Tensor, target: Tensor | None, warm: float, dead: Tensor | None
) -> StepResult:
    """What the chapter shows: the loss as it is written, and autograd."""
    losses = sae.losses(x, target, warm=warm, dead=dead)
    losses.total.backward()
    with torch.no_grad():
        active = losses.z > 0
        error = (losses.x_hat - (x if target is None else target)).float().square().sum()
        l0, fired = active.sum() / len(x), active.any(dim=0)
    parts = (part.detach() for part in losses[:4])
    return StepResult(*parts, l0, fired, error, "dense")


def _result(found: Parts, batch: int, used: str) -> StepResult:
    total = found.reconstruction + found.sparsity + found.auxiliary
    return StepResult(total, *found[:3], found.counts.sum() / batch, found.counts > 0, found.error, used)
