"""Changing what a model computes, and watching what it does then.

`steering` adds directions of an SAE's latents to the activations at one hook point. Nothing is taken out of the
activation: what the SAE does not explain, its error term, stays in it.
"""

from solutions.interventions.steering import (
    Push,
    compare_steering,
    promoted_tokens,
    push_vector,
    random_push,
    steered_logits,
    steered_text,
    steering,
)

__all__ = [
    "Push",
    "compare_steering",
    "promoted_tokens",
    "push_vector",
    "random_push",
    "steered_logits",
    "steered_text",
    "steering",
]
