"""Lab 1: setting up, looking at activations, and reading them with an SAE."""

from labs.checks.lab01 import activations, features, predictions, sae

EXERCISES = (*activations.EXERCISES, *sae.EXERCISES, *features.EXERCISES)
PREDICTIONS = predictions.PREDICTIONS
