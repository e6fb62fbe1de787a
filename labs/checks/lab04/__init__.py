"""Lab 4: training an SAE, every part of it by hand, and telling what is wrong with a run that failed."""

from labs.checks.lab04 import (
    challenge,
    dead,
    diagnosis,
    forward,
    jumprelu,
    loop,
    predictions,
    saving,
    scale,
    steps,
    topk,
)

EXERCISES = (
    *forward.EXERCISES,
    *steps.EXERCISES,
    *scale.EXERCISES,
    *loop.EXERCISES,
    *dead.EXERCISES_RESAMPLE,
    *topk.EXERCISES_TOPK,
    *dead.EXERCISES_AUX,
    *topk.EXERCISES_BATCH,
    *jumprelu.EXERCISES,
    *saving.EXERCISES,
    *diagnosis.EXERCISES,
    *challenge.EXERCISES,
)
PREDICTIONS = predictions.PREDICTIONS
