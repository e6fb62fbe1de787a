"""The graders of the labs.

    from labs.checks import check, lab, predict, progress, reveal

    lab(1)                           # start lab 1: errors in your own terms, progress
    check("1.5", sae_encode)         # grade a function: what is right, or what you did
    predict("1.A", "b")              # commit to a prediction ...
    reveal("1.A", measured)          # ... and see what the measurement says
    progress()                       # how far you are

Everything here displays and returns nothing. It never raises because an answer is wrong.
"""

from __future__ import annotations

import html
from collections.abc import Callable

from labs.checks import errors, registry, show
from labs.checks.exercise import Exercise, Property, Verdict, Wrong
from labs.checks.grading import grade
from labs.checks.prediction import Prediction
from labs.checks.record import DONE, Record, default_path, report

__all__ = [
    "Exercise",
    "Prediction",
    "Property",
    "Verdict",
    "Wrong",
    "check",
    "grade",
    "lab",
    "predict",
    "progress",
    "require_all",
    "reveal",
]

_record = Record(None)
_current = 1
_predicted: dict[str, str] = {}


def lab(number: int, record: bool = True) -> None:
    """Start a lab: exceptions are shown as the learner's own line, and progress is kept.

    Args:
        number: which lab. Unknown numbers raise ValueError.
        record: keep progress in a file beside the labs, so that it outlives the kernel.
    """
    global _record, _current
    todo = [*registry.exercises(number), *registry.predictions(number)]
    _record = Record.open(default_path() if record else None)
    _current = number
    shell = show._shell()
    if shell is not None:
        errors.install(shell)
    done = sum(_record.states.get(name) == DONE for name in todo)
    show.show(
        f"Lab {number} is ready",
        show.BLUE,
        [
            f"{len(registry.exercises(number))} exercises and "
            f"{len(registry.predictions(number))} predictions; {done} done so far.",
            "If a cell stops, you see your own line and what to look at. `%tb` shows the whole traceback.",
        ],
    )


def check(number: str, answer: Callable) -> None:
    """Grade `answer`, the learner's function, as exercise `number`, and display the verdict.

    Raises ValueError for an unknown exercise number; never for a wrong answer.
    """
    verdict = grade(registry.find_exercise(number), answer)
    if verdict.status != "todo":
        _record.note(number, verdict.right)
    report(number, verdict.status, verdict.message)
    show.show_verdict(verdict)


def predict(number: str, choice: str | None) -> None:
    """Commit to one of the choices of a prediction. `None` shows the question again."""
    prediction = registry.find_prediction(number)
    listed = [f"({letter}) {text}" for letter, text in prediction.choices.items()]
    letter = choice.strip().strip("()").lower() if isinstance(choice, str) else choice
    if letter is None or letter is ...:
        show.show(
            f"{number} · Predict first",
            show.BLUE,
            [prediction.question, *listed, "Write a letter, then run."],
        )
    elif letter not in prediction.choices:
        show.show(f"{number} · {choice!r} is not one of the choices", show.ORANGE, listed)
    else:
        _predicted[number] = letter
        show.show(
            f"{number} · Your prediction is noted",
            show.BLUE,
            [f"({letter}) {prediction.choices[letter]}. Now run the next cell and see."],
        )


def reveal(number: str, measured: float) -> None:
    """Compare the prediction with the measurement, and explain. Asks for the prediction if there is none."""
    prediction = registry.find_prediction(number)
    if number not in _predicted:
        show.show(
            f"{number} · No prediction yet", show.BLUE, ["Commit to one above, then run this cell again."]
        )
        return
    came_true, paragraphs = prediction.review(_predicted[number], measured)
    _record.note(number, True)
    report(number, "predicted")
    show.show(f"{number} · {'As you predicted' if came_true else 'A surprise'}", show.GREEN, paragraphs)


def progress(number: int | None = None) -> None:
    """Show how far one is in a lab (the current one unless told)."""
    number = _current if number is None else number
    names = {name: f"`{e.name}`" for name, e in registry.exercises(number).items()}
    names |= {name: "prediction" for name in registry.predictions(number)}
    states = {name: _record.states.get(name, "not yet") for name in names}
    done = sum(state == DONE for state in states.values())
    marks = {DONE: "✓ done", "tried": "… tried", "not yet": "· not yet"}
    rows = [f"{marks[states[name]]}: {name} {text}" for name, text in names.items()]
    bar = (
        f'<p style="margin:0.3em 0 0"><progress value="{done}" max="{len(names)}" style="width:16em" '
        f'aria-label="{html.escape(f"{done} of {len(names)} done")}"></progress></p>'
    )
    show.show(
        f"Lab {number}: {done} of {len(names)} done",
        show.GREEN if done == len(names) else show.BLUE,
        rows,
        (),
        bar,
    )


def require_all(number: int) -> None:
    """Raise AssertionError unless the whole lab is done. The solved lab ends with this."""
    missing = [
        n
        for n in [*registry.exercises(number), *registry.predictions(number)]
        if _record.states.get(n) != DONE
    ]
    assert not missing, f"Lab {number} is not complete. Not done: {', '.join(missing)}."
