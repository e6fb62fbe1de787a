"""Questions one can ask of features: which ones fire, on what, how often, and how purely.

Nearly everything here works on plain tensors. `features` is always [tokens, latents] with BOS and padding already
left out (`activations[mask]` does it), values are activation strengths in the SAE's own units, and zero
means "not active". A function never needs to know which model the numbers came from.
"""

from solutions.analysis.controls import (
    Purity,
    mass_purity,
    pca_directions,
    project,
    random_directions,
    top_k_purity,
)
from solutions.analysis.pages import (
    Example,
    FeaturePage,
    Interval,
    feature_page,
    interval_edges,
    logit_effects,
)
from solutions.analysis.tables import (
    activity_by_text,
    concept_scores,
    concepts_of,
    contrast,
    density,
    top_features,
)
from solutions.analysis.texts import LabelledTexts, labelled_texts, latent_activations
from solutions.analysis.toy import ToyModels, interference, toy_superposition

__all__ = [
    "Example",
    "FeaturePage",
    "Interval",
    "LabelledTexts",
    "Purity",
    "ToyModels",
    "activity_by_text",
    "concept_scores",
    "concepts_of",
    "contrast",
    "density",
    "feature_page",
    "interference",
    "interval_edges",
    "labelled_texts",
    "latent_activations",
    "logit_effects",
    "mass_purity",
    "pca_directions",
    "project",
    "random_directions",
    "top_features",
    "top_k_purity",
    "toy_superposition",
]
