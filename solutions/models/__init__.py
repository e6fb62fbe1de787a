"""Loading a language model, looking inside it, and changing what happens there.

Everything goes through TransformerLens's `TransformerBridge`: the Hugging Face model, with a named hook
point at every step of the computation. The same lines load a folder and a model of the hub.
"""

from solutions.models.harvest import SHARD_TOKENS, harvest, model_identity
from solutions.models.hooks import (
    HOOK_KINDS,
    check_hooks,
    count_parameters,
    describe_model,
    hook_points,
    layer_of,
    processing_of,
    unembedding,
)
from solutions.models.loading import WEIGHTS, load_model, pick_device
from solutions.models.running import (
    NEAR_ZERO,
    activation_statistics,
    as_tokens,
    extract,
    generate,
    hook_reader,
    loss,
    next_token_loss,
    next_tokens,
    read_hooks,
    run_with_edit,
)

__all__ = [
    "HOOK_KINDS",
    "NEAR_ZERO",
    "SHARD_TOKENS",
    "WEIGHTS",
    "activation_statistics",
    "as_tokens",
    "check_hooks",
    "count_parameters",
    "describe_model",
    "extract",
    "generate",
    "harvest",
    "hook_points",
    "layer_of",
    "load_model",
    "loss",
    "model_identity",
    "next_token_loss",
    "next_tokens",
    "pick_device",
    "processing_of",
    "hook_reader",
    "read_hooks",
    "run_with_edit",
    "unembedding",
]
