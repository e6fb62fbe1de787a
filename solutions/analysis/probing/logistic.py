"""Logistic regression, several at a time: one for each part of a cross-validation and each penalty."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

#: Newton steps for each penalty, at most. A handful are usual.
STEPS = 40
#: It stops when no component of any gradient is larger.
TOLERANCE = 1e-4
#: The bias is not held back, but for this much, which keeps the equations solvable when every guess is sure.
BIAS_PENALTY = 1e-6


def fit_logistic(x: Tensor, y: Tensor, penalties: Sequence[float], counted: Tensor) -> tuple[Tensor, Tensor]:
    """Fit logistic regressions with an L2 penalty, by Newton's method: several sets, parts of them, and penalties.

    Each minimises the mean cross-entropy over the examples that count for it, plus half its penalty times the
    squared length of its weights; the bias is free. That is scikit-learn's `LogisticRegression` with
    C = 1 / (penalty * n). The strongest penalty goes first, and each next one starts from what the last one found.

    Args:
        x: [sets, n, d].
        y: [sets, n] bool.
        penalties: positive numbers.
        counted: [sets, parts, n] bool, which examples count.

    Returns:
        weight: [penalties, sets, parts, d]
        bias: [penalties, sets, parts]
    """
    sets, n, d = x.shape
    parts = counted.shape[1]
    # With fewer examples than dimensions the weights lie in the span of the examples. The penalty depends on lengths
    # only, so one may fit there, and turn back: the same result in less time.
    turn = torch.linalg.svd(x, full_matrices=False).Vh if n < d else None          # [sets, n, d]
    inputs = x if turn is None else x @ turn.mT
    inputs, truth, share = inputs.repeat_interleave(parts, 0), y.repeat_interleave(parts, 0), counted.flatten(0, 1)
    found: list[Tensor] = [x.new_zeros(0)] * len(penalties)
    theta = x.new_zeros(sets * parts, inputs.shape[2] + 1)
    for i in sorted(range(len(penalties)), key=lambda i: -penalties[i]):
        theta = found[i] = _newton(inputs, truth, penalties[i], share, theta)
    result = torch.stack(found).view(len(penalties), sets, parts, -1)
    weight, bias = result[..., :-1], result[..., -1]
    return (weight if turn is None else weight @ turn), bias


def _newton(x: Tensor, y: Tensor, penalty: float, counted: Tensor, start: Tensor) -> Tensor:
    """Weights and bias [batch, d + 1], improved until no component of the gradient is above `TOLERANCE`."""
    x = torch.cat([x, x.new_ones(*x.shape[:2], 1)], dim=2)
    truth, share = y.to(x), counted.to(x) / counted.sum(1, keepdim=True)
    held = torch.full_like(x[0, 0], penalty)
    held[-1] = BIAS_PENALTY

    def look(theta: Tensor) -> tuple[Tensor, Tensor]:
        """What is said of each example [batch, n], and the loss [batch]."""
        said = (x @ theta[:, :, None]).squeeze(2)
        losses = F.binary_cross_entropy_with_logits(said, truth, reduction="none")
        return said, (share * losses).sum(1) + (held * theta.square()).sum(1) / 2

    theta = start
    said, loss = look(theta)
    for _ in range(STEPS):
        p = torch.sigmoid(said)
        gradient = ((share * (p - truth))[:, None] @ x).squeeze(1) + held * theta
        if gradient.abs().max() < TOLERANCE:
            break
        curvature = x.mT @ (x * (share * p * (1 - p))[:, :, None]) + torch.diag(held)
        step = torch.cholesky_solve(gradient[:, :, None], torch.linalg.cholesky(curvature)).squeeze(2)
        theta, said, loss = _downhill(theta, step, loss, look)
    return theta


def _downhill(
    theta: Tensor, step: Tensor, loss: Tensor, look: Callable[[Tensor], tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor, Tensor]:
    """Take each step as far as it leads down: the half of it, a quarter, … where the whole leads up."""
    size = torch.ones_like(loss)
    for _ in range(12):
        said, new = look(theta - size[:, None] * step)
        up = new > loss + 1e-6
        if not up.any():
            break
        size = torch.where(up, size / 2, size)
    return theta - size[:, None] * step, said, new
