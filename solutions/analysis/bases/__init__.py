"""Is the SAE's basis a good one? The same questions asked of latents, neurons, principal components, chance, …

A basis is any set of units that can be read off a token: features [tokens, units], none below zero. `standard_bases`
makes the usual ones from one model, `compare_bases` asks all of them the same questions on the same text::

    world = labelled_texts(model, 400)
    text = labelled_tokens(world)
    found = compare_bases(standard_bases(model, sae, target, world, text), text, groups=concept_groups())
    found.table             # a row for each basis
    found.by_group()        # the same F1 by concept group: senses, word classes, …
"""

from solutions.analysis.bases.clusters import ExampleClusters, example_clusters
from solutions.analysis.bases.compare import BasisComparison, LabelledTokens, compare_bases, labelled_tokens
from solutions.analysis.bases.make import ica_directions, k_sparse_probe, linear_probe, standard_bases
from solutions.analysis.bases.shuffled import shuffled_features, shuffled_sae
from solutions.analysis.bases.spread import concept_entropy, concept_groups, entropy, rarest_concept

__all__ = [
    "BasisComparison",
    "ExampleClusters",
    "LabelledTokens",
    "compare_bases",
    "concept_entropy",
    "concept_groups",
    "entropy",
    "example_clusters",
    "ica_directions",
    "k_sparse_probe",
    "labelled_tokens",
    "linear_probe",
    "rarest_concept",
    "shuffled_features",
    "shuffled_sae",
    "standard_bases",
]
