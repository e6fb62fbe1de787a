"""The gradients of one training step, by the plain way or by the fast one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from solutions.errors import InputError, unknown_name
from solutions.sae.training.dense import dense_gradients, is_written_out
from solutions.sae.training.sparse import Parts, can_be_sparse, density, sparse_gradients

if TYPE_CHECKING:
    from solutions.sae.architectures import TrainableSAE

PATHS = ("auto", "dense", "sparse")

#: The sparse path is taken while it touches at most this share of the entries. Measured, on two CPU cores: see the
#: page `sparse_step`, and `python -m tests.benchmarks training` for your machine.
CROSSOVER = 0.08


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
        path: "dense": the loss as it is written, and autograd. "sparse": see `solutions.sae.training.sparse`. "auto":
            the faster of the two where that is known, which is on a CPU in full precision; elsewhere "dense". For
            ReLU and JumpReLU its dense steps are written out too, see `solutions.sae.training.dense`.

    Returns:
        The losses, and which latents fired.

    Raises:
        InputError: an unknown path, or "sparse" for an SAE that has none.
    """
    if path not in PATHS:
        raise unknown_name("path", path, PATHS)
    if path == "sparse" and not can_be_sparse(sae):
        raise InputError(
            f"there is no sparse step for this {sae.architecture!r} SAE (it needs float32 weights, one of the "
            "architectures relu, topk, batchtopk and jumprelu, and no ghost gradients). Take path='auto' or 'dense'."
        )
    for parameter in sae.parameters():
        parameter.grad = None
    goal = x if target is None else target
    if path == "sparse" or path == "auto" and _prefers_sparse(sae, x):
        return _result(sparse_gradients(sae, x, goal, warm, dead), len(x), "sparse")
    if path == "auto" and _plain_cpu(x) and is_written_out(sae):
        return _result(dense_gradients(sae, x, goal, warm), len(x), "dense")
    return _by_autograd(sae, x, target, warm, dead)


def _prefers_sparse(sae: TrainableSAE, x: Tensor) -> bool:
    """Whether the sparse path is likely the faster one for this batch."""
    return _plain_cpu(x) and can_be_sparse(sae) and density(sae, x) <= CROSSOVER


def _plain_cpu(x: Tensor) -> bool:
    """In full precision on a CPU, where the crossover was measured."""
    return x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


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
