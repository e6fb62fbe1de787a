"""Which exercises and predictions there are. A lab's module is imported when it is first asked for."""

from __future__ import annotations

import importlib
import pkgutil
import sys

from labs.checks.exercise import Exercise
from labs.checks.prediction import Prediction


def labs_there_are() -> list[int]:
    """The numbers of the labs that have graders."""
    import labs.checks as package

    names = (module.name for module in pkgutil.iter_modules(package.__path__))
    return sorted(int(name[3:]) for name in names if name.startswith("lab") and name[3:].isdigit())


def exercises(number: int) -> dict[str, Exercise]:
    """The exercises of one lab by number ("1.5"), in order."""
    return {exercise.number: exercise for exercise in _module(number).EXERCISES}


def predictions(number: int) -> dict[str, Prediction]:
    """The predictions of one lab by number ("1.A"), in order."""
    return {prediction.number: prediction for prediction in _module(number).PREDICTIONS}


def find_exercise(number: str) -> Exercise:
    """The exercise called "1.5". Raises ValueError that lists the known ones."""
    return _find(number, exercises, "exercise", "1.1")


def find_prediction(number: str) -> Prediction:
    """The prediction called "1.A". Raises ValueError that lists the known ones."""
    return _find(number, predictions, "prediction", "1.A")


def loaded_exercises() -> list[Exercise]:
    """The exercises of the labs imported so far."""
    loaded = (sys.modules.get(f"labs.checks.lab{number:02d}") for number in labs_there_are())
    return [
        exercise for module in loaded if module is not None for exercise in getattr(module, "EXERCISES", ())
    ]


def _module(number: int):
    if number not in labs_there_are():
        raise ValueError(
            f"There is no lab {number}. Labs there are: {', '.join(map(str, labs_there_are()))}."
        )
    return importlib.import_module(f"labs.checks.lab{number:02d}")


def _find(number, collection, what: str, example: str):
    lab = str(number).split(".")[0]
    known = collection(int(lab)) if lab.isdigit() and int(lab) in labs_there_are() else {}
    if not isinstance(number, str) or number not in known:
        listed = ", ".join(f'"{name}"' for name in known) or f'a number such as "{example}"'
        raise ValueError(f"There is no {what} {number!r}. Expected, in quotation marks: {listed}.")
    return known[number]
