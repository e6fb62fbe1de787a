"""How the learning rate and the sparsity coefficient change over a run. Both depend on the step alone."""

from __future__ import annotations

from solutions.sae.training.plan import Plan


def learning_rate(plan: Plan, step: int) -> float:
    """The learning rate of a step: up in a line, flat, down in a line to zero.

    The first step already moves, and the last one still does: a step with a rate of zero would be wasted.

    Args:
        plan: the run.
        step: counted from 0.

    Returns:
        The rate.

    Example:
        >>> plan = Plan(n_tokens=4096, batch_size=512, lr=1e-3)
        >>> [round(learning_rate(plan, step), 5) for step in (0, plan.n_steps - 1)]
        [0.001, 0.00063]
    """
    climbing = (step + 1) / (plan.warmup * plan.n_steps) if plan.warmup else 1.0
    falling = (plan.n_steps - step) / (plan.decay * plan.n_steps) if plan.decay else 1.0
    return plan.lr * min(1.0, climbing, falling)


def sparsity_warmth(plan: Plan, step: int) -> float:
    """What the sparsity coefficient is multiplied by: from 0 in a line to 1 over the first `l1_warmup` of the run.

    Args:
        plan: the run.
        step: counted from 0.

    Returns:
        From 0 to 1.
    """
    return min(1.0, step / (plan.l1_warmup * plan.n_steps)) if plan.l1_warmup else 1.0
