"""The attribution graph of one prompt: from the tokens through latents of the MLPs to the logits.

`transcoders` stand in for the MLPs, `carried` makes the rest of the model linear and carries what each part writes to
whoever reads it, `making` reads the edges off, `whole` is the graph and what follows from it, `naming` says what its
latents are about, and `checking` asks the model whether the graph is right.
"""

from solutions.attribution.graph.carried import Carried, Parts, carry
from solutions.attribution.graph.checking import (
    alike,
    knock_out,
    logits_without,
    one_at_a_time,
    replacement_quality,
)
from solutions.attribution.graph.making import attribution_graph
from solutions.attribution.graph.naming import describe_latents, with_names
from solutions.attribution.graph.transcoders import (
    ablate,
    has_transcoders,
    load_transcoders,
    mlp_latents,
    mlp_latents_edited,
    replaced,
)
from solutions.attribution.graph.whole import AttributionGraph

__all__ = [
    "AttributionGraph",
    "Carried",
    "Parts",
    "ablate",
    "alike",
    "attribution_graph",
    "carry",
    "describe_latents",
    "has_transcoders",
    "knock_out",
    "load_transcoders",
    "logits_without",
    "mlp_latents",
    "mlp_latents_edited",
    "one_at_a_time",
    "replaced",
    "replacement_quality",
    "with_names",
]
