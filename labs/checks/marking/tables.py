"""Marks written down: for the terminal, for a spreadsheet, for a program."""

from __future__ import annotations

import csv
import io
import json
import textwrap
from collections import Counter
from collections.abc import Sequence

from labs.checks import registry
from labs.checks.marking.marks import MISSING, Mark
from labs.checks.show import HEADLINES

SIGNS = {"right": "+", "todo": ".", MISSING: " "}  # and "x" for everything that was tried and is not right
WORDS = {status: word for status, (word, _) in HEADLINES.items()} | {MISSING: "Not in the notebook"}
KEY = "+ right   x tried, not right   . not done   (blank) not in the notebook"


def as_text(marks: Sequence[Mark], details: bool = False) -> str:
    """A table of all marks, and for a class what it found hardest.

    Args:
        marks: in the order to be shown.
        details: for each notebook, also what was said about every exercise that is not right.
    """
    width = max([8, *(len(mark.notebook) for mark in marks)])
    exercises = max([9, *(len(mark.statuses) for mark in marks)])
    lines = [f"{'notebook':{width}}  lab  score      {'exercises':{exercises}}  predicted  seconds"]
    for mark in marks:
        signs = "".join(SIGNS.get(status, "x") for status in mark.statuses.values())
        score = f"{mark.right}/{len(mark.statuses)}" if mark.statuses else "-"
        predicted = f"{mark.predictions[0]}/{mark.predictions[1]}" if mark.statuses else "-"
        lines.append(f"{mark.notebook:{width}}  {mark.lab or '-':>3}  {score:>5} {mark.score:3.0f} %  "
                     f"{signs:{exercises}}  {predicted:>9}  {mark.seconds:7.0f}")
        if mark.note:
            lines.append(f"    {'note' if mark.complete else 'NOT COMPLETE'}: {mark.note}")
    lines += ["", KEY]
    if details:
        for mark in marks:
            lines += ["", *_details(mark)]
    for lab in sorted({mark.lab for mark in marks if mark.lab is not None}):
        lines += _hardest(lab, [mark for mark in marks if mark.lab == lab])
    return "\n".join(lines)


def _details(mark: Mark) -> list[str]:
    """What was said about every exercise that is not right."""
    lines = [mark.notebook]
    names = registry.exercises(mark.lab) if mark.lab is not None else {}
    for number, status in mark.statuses.items():
        if status != "right":
            lines.append(f"  {number:5} {names[number].name}: {WORDS[status]}")
            if status not in ("todo", MISSING):
                told = " ".join(mark.messages[number].split())
                lines += textwrap.wrap(told, 100, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return lines if len(lines) > 1 else [*lines, "  every exercise is right" if mark.statuses else f"  {mark.note}"]


def _hardest(lab: int, marks: Sequence[Mark]) -> list[str]:
    """For a class: the exercises that fewest got right of those who tried, and the slip that was most often made."""
    if len(marks) < 2:
        return []
    lines, found = [], []
    for number, exercise in registry.exercises(lab).items():
        tried = [mark for mark in marks if mark.statuses[number] not in ("todo", MISSING)]
        right = sum(mark.statuses[number] == "right" for mark in tried)
        if right < len(tried):
            found.append((right / len(tried), f"  {number:5} {exercise.name}: {right} of {len(tried)} right", tried))
    for _, line, tried in sorted(found, key=lambda entry: entry[0])[:5]:
        number = line.split()[0]
        lines.append(line)
        slips = Counter(mark.messages[number] for mark in tried if mark.statuses[number] == "known")
        for told, times in slips.most_common(1):
            lines += textwrap.wrap(f"{times} × " + " ".join(told.split()), 100, initial_indent=" " * 8,
                                   subsequent_indent=" " * 8)
    return ["", f"Lab {lab}, {len(marks)} notebooks. Hardest for those who tried:", *lines] if lines else []


def as_csv(marks: Sequence[Mark]) -> str:
    """A row for each notebook, a column for each exercise; opens in any spreadsheet."""
    numbers = [n for lab in sorted({m.lab for m in marks if m.lab is not None}) for n in registry.exercises(lab)]
    head = ["notebook", "lab", "right", "of", "percent", "predicted", "complete", "seconds", "note"]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head + numbers)
    for mark in marks:
        row = [_plain(mark.notebook), mark.lab or "", mark.right, len(mark.statuses), f"{mark.score:.1f}"]
        row += [mark.predictions[0], "yes" if mark.complete else "no", f"{mark.seconds:.0f}", _plain(mark.note)]
        writer.writerow(row + [mark.statuses.get(number, "") for number in numbers])
    return out.getvalue()


def _plain(text: str) -> str:
    """Text that a spreadsheet does not take for a formula: a file's name is the learner's choice."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def as_json(marks: Sequence[Mark]) -> str:
    """Everything there is to say, messages included."""
    rows = [
        {
            "notebook": mark.notebook,
            "lab": mark.lab,
            "right": mark.right,
            "of": len(mark.statuses),
            "percent": round(mark.score, 1),
            "predicted": mark.predictions[0],
            "complete": mark.complete,
            "seconds": round(mark.seconds, 1),
            "note": mark.note,
            "exercises": {
                number: {"status": status, "message": mark.messages[number]}
                for number, status in mark.statuses.items()
            },
        }
        for mark in marks
    ]
    return json.dumps(rows, indent=1, ensure_ascii=False) + "\n"
