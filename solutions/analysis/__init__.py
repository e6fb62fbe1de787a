"""Questions one can ask of features: which ones fire, on what, how often, and how purely.

Nearly everything here works on plain tensors. `features` is always [tokens, latents] with BOS and padding already
left out (`activations[mask]` does it), values are activation strengths in the SAE's own units, and zero
means "not active". A function never needs to know which model the numbers came from. For all latents on more tokens
than fit into memory there is the feature index (`build_index`, `FeatureIndex`), which answers the same questions.
"""

from solutions.analysis.activations import (
    covariance_spectrum,
    dimensions_for,
    effective_batch,
    effective_dimension,
    kurtosis,
    mean_cosine,
    neighbour_correlation,
    norms_by_position,
    outlier_dimensions,
    random_rotation,
    shuffle_dimensions,
)
from solutions.analysis.controls import (
    Purity,
    mass_purity,
    pca_directions,
    project,
    random_directions,
    top_k_purity,
)
from solutions.analysis.detectors import mean_concept_f1, mean_lookup_f1, score_concepts
from solutions.analysis.illusion import Illusion, best_label, illusion
from solutions.analysis.index import (
    ConceptTable,
    FeatureIndex,
    Scores,
    SparseRows,
    build_index,
    concept_table,
    nearest_latents,
    place_labels,
    token_lookup,
)
from solutions.analysis.kinds import (
    Probe,
    balanced_accuracy,
    fit_probe,
    guess_by_bag,
    guess_by_token,
    shuffle_labels,
    split_documents,
    split_tokens,
)
from solutions.analysis.matching import (
    SHARED,
    Matching,
    arrange,
    chance_of_match,
    cosines,
    match_latents,
    max_cosines,
    recovered,
)
from solutions.analysis.pages import (
    Example,
    FeaturePage,
    Interval,
    feature_page,
    interval_edges,
    logit_effects,
)
from solutions.analysis.parts import parts_of_layers, replacement_cost
from solutions.analysis.promises import Promises, promises_kept
from solutions.analysis.residue import ConceptProbes, probe_concepts, roc_auc
from solutions.analysis.shrinkage import reconstruction_bias
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
    "SHARED",
    "ConceptProbes",
    "ConceptTable",
    "Example",
    "FeatureIndex",
    "FeaturePage",
    "Illusion",
    "Interval",
    "LabelledTexts",
    "Matching",
    "Probe",
    "Promises",
    "Purity",
    "Scores",
    "SparseRows",
    "ToyModels",
    "activity_by_text",
    "arrange",
    "balanced_accuracy",
    "best_label",
    "build_index",
    "chance_of_match",
    "concept_scores",
    "concept_table",
    "concepts_of",
    "contrast",
    "cosines",
    "covariance_spectrum",
    "density",
    "dimensions_for",
    "effective_batch",
    "effective_dimension",
    "feature_page",
    "fit_probe",
    "guess_by_bag",
    "guess_by_token",
    "illusion",
    "interference",
    "interval_edges",
    "kurtosis",
    "labelled_texts",
    "latent_activations",
    "logit_effects",
    "mass_purity",
    "match_latents",
    "max_cosines",
    "mean_concept_f1",
    "mean_cosine",
    "mean_lookup_f1",
    "nearest_latents",
    "neighbour_correlation",
    "norms_by_position",
    "outlier_dimensions",
    "parts_of_layers",
    "pca_directions",
    "place_labels",
    "probe_concepts",
    "project",
    "promises_kept",
    "random_directions",
    "random_rotation",
    "reconstruction_bias",
    "recovered",
    "replacement_cost",
    "roc_auc",
    "score_concepts",
    "shuffle_dimensions",
    "shuffle_labels",
    "split_documents",
    "split_tokens",
    "token_lookup",
    "top_features",
    "top_k_purity",
    "toy_superposition",
]
