"""Lab 6: from a cell to a module: errors, tests, caches, reproducibility, a contract, a command, a control."""

from labs.checks.lab06 import (
    bugs,
    cache,
    cell,
    command,
    contract,
    keys,
    predictions,
    rows,
    seeds,
    steering,
    testing,
)

EXERCISES = (
    *cell.EXERCISES,
    *testing.EXERCISES,
    *rows.EXERCISES,
    *keys.EXERCISES,
    *cache.EXERCISES,
    *seeds.EXERCISES,
    *bugs.EXERCISES,
    *contract.EXERCISES,
    *command.EXERCISES,
    *steering.EXERCISES,
)
PREDICTIONS = predictions.PREDICTIONS
