"""Lab 7: from reading to proving: steering, ablation, patching, circuits, attribution, layers, judges and probes."""

from labs.checks.lab07 import (
    ablating,
    breaking,
    direct,
    doses,
    editing,
    explaining,
    gradients,
    guesses,
    layers,
    patching,
    paths,
    predictions,
    probing,
    pushing,
    smallest,
    sufficient,
)

EXERCISES = (
    *editing.EXERCISES,
    *pushing.EXERCISES,
    *doses.EXERCISES,
    *ablating.EXERCISES,
    *patching.EXERCISES,
    *sufficient.EXERCISES,
    *smallest.EXERCISES,
    *gradients.EXERCISES,
    *paths.EXERCISES,
    *direct.EXERCISES,
    *guesses.EXERCISES,
    *layers.EXERCISES,
    *explaining.EXERCISES,
    *probing.EXERCISES,
)
PREDICTIONS = (*predictions.PREDICTIONS, *breaking.PREDICTIONS)
