"""Lab 2: collecting activations, storing them so that nothing is lost, and knowing what was stored."""

from labs.checks.lab02 import collecting, predictions, resume, shuffle, split, statistics, using

EXERCISES = (
    *collecting.EXERCISES,
    *statistics.EXERCISES,
    *resume.EXERCISES,
    *split.EXERCISES,
    *shuffle.EXERCISES,
    *using.EXERCISES,
)
PREDICTIONS = predictions.PREDICTIONS
