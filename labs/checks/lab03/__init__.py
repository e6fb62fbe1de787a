"""Lab 3: measuring a pre-trained SAE, reading its latents, and not being fooled by the best examples."""

from labs.checks.lab03 import illusion, latents, measures, predictions, reading, splice

EXERCISES = (
    *measures.EXERCISES,
    *splice.EXERCISES,
    *reading.EXERCISES,
    *illusion.EXERCISES,
    *latents.EXERCISES,
)
PREDICTIONS = predictions.PREDICTIONS
