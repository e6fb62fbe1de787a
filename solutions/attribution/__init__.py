"""What is due to what: shares of an output for the latents of an SAE, without taking each of them out.

`paths` divides any function's value by its gradient, `latents` does so for a model's, and measures the truth beside
it. `direct` reads what is written straight into a logit, `earlier` what one latent is made of, in a model that is
`frozen` on one text. `nodes` takes a text's activations apart. Where shares must add up they are tested to.
`graph` puts transcoders in the place of the MLPs, and draws who gives how much to whom, from the tokens to the logits.
"""

from solutions.attribution.direct import DirectLatents, DirectParts, direct_latents, direct_parts
from solutions.attribution.earlier import Inputs, latent_inputs, pre_activation
from solutions.attribution.frozen import frozen
from solutions.attribution.graph import (
    AttributionGraph,
    Carried,
    Parts,
    ablate,
    alike,
    attribution_graph,
    carry,
    describe_latents,
    has_transcoders,
    knock_out,
    load_transcoders,
    logits_without,
    mlp_latents,
    mlp_latents_edited,
    one_at_a_time,
    replaced,
    replacement_quality,
    with_names,
)
from solutions.attribution.latents import (
    Attribution,
    attribution_patching,
    compare_guesses,
    gradient_times_activation,
    integrated_gradients,
    latent_effects,
)
from solutions.attribution.nodes import Metric, Nodes, answer_gap, take_apart
from solutions.attribution.paths import gradient_shares, gradients, integrated_shares

__all__ = [
    "Attribution",
    "AttributionGraph",
    "Carried",
    "DirectLatents",
    "DirectParts",
    "Inputs",
    "Metric",
    "Nodes",
    "Parts",
    "ablate",
    "alike",
    "answer_gap",
    "attribution_graph",
    "attribution_patching",
    "carry",
    "compare_guesses",
    "describe_latents",
    "direct_latents",
    "direct_parts",
    "frozen",
    "gradient_shares",
    "gradient_times_activation",
    "gradients",
    "has_transcoders",
    "integrated_gradients",
    "integrated_shares",
    "knock_out",
    "latent_effects",
    "latent_inputs",
    "load_transcoders",
    "logits_without",
    "mlp_latents",
    "mlp_latents_edited",
    "one_at_a_time",
    "pre_activation",
    "replaced",
    "replacement_quality",
    "take_apart",
    "with_names",
]
