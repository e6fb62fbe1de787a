"""Lab 5: what latents mean: enrichment, hypotheses, liars, families of latents, and features to be named."""

from labs.checks.lab05 import absorbing, enrichment, families, hypotheses, naming, pairs, predictions

EXERCISES = (
    *enrichment.EXERCISES,
    *hypotheses.EXERCISES,
    *pairs.EXERCISES,
    *families.EXERCISES,
    *absorbing.EXERCISES,
    *enrichment.EXERCISES_SEARCH,
    *naming.EXERCISES,
)
PREDICTIONS = predictions.PREDICTIONS
