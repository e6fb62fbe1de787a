"""Shares of a function's value, from its gradient: at one point, or along a path.

Both answer the same question about a function f of many numbers x, with a baseline x': how much of f(x) - f(x') is
due to each number? Nothing here knows a model, so a function whose answer is known can check it.

The gradient at x prices a small step from x. Times the whole way back to the baseline it is a guess, exact when f is
a straight line on that way. Integrated gradients (Sundararajan et al. 2017, section 3) average the gradient over
the straight way from x' to x. Their shares add up to f(x) - f(x'): that is completeness (their Proposition 1).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from solutions.errors import InputError, check_count, check_tensor

#: From points [n, ...] to one number for each, [n].
Function = Callable[[Tensor], Tensor]


def gradient_shares(function: Function, x: Tensor, baseline: Tensor | None = None) -> Tensor:
    """(x - baseline) · ∂f/∂x at x: what a straight line through x says that going back to the baseline takes away.

    Args:
        function: from points [n, ...] to one number for each, [n]; differentiable.
        x: [...] one point.
        baseline: [...] what counts as nothing; zeros by default.

    Returns:
        [...] a share for each number of x; a positive one raises the function.

    Raises:
        InputError: shapes that do not fit, or a function without a gradient.

    Example:
        >>> gradient_shares(lambda x: x[:, 0] * x[:, 1], torch.tensor([2.0, 3.0]))
        tensor([6., 6.])
    """
    baseline = _baseline(x, baseline)
    return (x - baseline) * gradients(function, x[None])[0]


def integrated_shares(
    function: Function, x: Tensor, baseline: Tensor | None = None, steps: int = 32, batch_size: int = 32
) -> Tensor:
    """(x - baseline) times the gradient's mean over the straight way from the baseline to x.

    The mean is taken over the middles of equal steps. Cleverer sums (Gauss-Legendre) need fewer points where a
    function is smooth; on language models they needed more, because a metric may run level for most of the way and
    jump in one place.

    Args:
        function: from points [n, ...] to one number for each, [n]; differentiable.
        x: [...] one point.
        baseline: [...] what counts as nothing; zeros by default.
        steps: points on the way.
        batch_size: points at which the function is computed at once.

    Returns:
        [...] a share for each number of x. They add up to f(x) - f(baseline) when the steps are small enough.

    Raises:
        InputError: shapes that do not fit, a function without a gradient, or a count below 1.

    Example:
        >>> integrated_shares(lambda x: x[:, 0] * x[:, 1], torch.tensor([2.0, 3.0])).round(decimals=4)
        tensor([3., 3.])
    """
    baseline = _baseline(x, baseline)
    check_count(batch_size, "batch_size")
    middles = (torch.arange(check_count(steps, "steps")).to(x) + 0.5) / steps
    total = torch.zeros_like(x)
    for alphas in middles.split(batch_size):
        points = baseline + alphas.view(-1, *[1] * x.ndim) * (x - baseline)
        total += gradients(function, points).sum(0) / steps
    return (x - baseline) * total


def gradients(function: Function, points: Tensor) -> Tensor:
    """The gradient of the function at each point.

    Only the points get a gradient: those of a model's weights stay as they are.

    Args:
        function: from points [n, ...] to one number for each, [n]; each may depend on its own point alone.
        points: [n, ...].

    Returns:
        [n, ...].

    Raises:
        InputError: the function returns something else, or nothing that a gradient could be taken of.
    """
    with torch.enable_grad():
        points = points.detach().requires_grad_()
        values = one_a_point(function(points), len(points))
        if not values.requires_grad:
            raise InputError(
                "the function's value has no gradient. It must be computed from its argument by torch operations, "
                "without .item(), .detach(), argmax or torch.no_grad()."
            )
        (found,) = torch.autograd.grad(values.sum(), points, allow_unused=True)
    return torch.zeros_like(points) if found is None else found


def one_a_point(values: Tensor, n: int) -> Tensor:
    """The values, if there is exactly one for each of n points.

    Args:
        values: what a function returned.
        n: how many points it was given.

    Returns:
        [n] the values.

    Raises:
        InputError: anything else.
    """
    if not isinstance(values, Tensor) or values.shape != (n,):
        found = f"shape {list(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
        raise InputError(
            f"the function must return one number for each row it is given, a tensor [{n}], got {found}. "
            "For logits that is e.g. logits[:, -1, answer] - logits[:, -1, foil]."
        )
    return values


def _baseline(x: Tensor, baseline: Tensor | None) -> Tensor:
    """The baseline, zeros where none is given."""
    check_tensor(x, "x")
    if baseline is None:
        return torch.zeros_like(x)
    check_tensor(baseline, "baseline")
    if baseline.shape != x.shape:
        raise InputError(f"baseline must have the shape of x, {list(x.shape)}, got {list(baseline.shape)}.")
    return baseline.to(x)
