"""The rubric of the capstone: what of it can be seen in a notebook, and how many points that allows.

A program can see that there is a control. It cannot see that it is a good one. So for every row it says what is
there, what is missing, and the most that can be given for it; the points are a person's business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from labs.investigation import Found, Investigation

#: The rows, as on the page that gives the assignment. Each gives 0 to 3 points.
RUBRIC = ("Question", "Prediction", "Baseline", "Control", "Cause", "Uncertainty", "Negative results",
          "Can it be checked?")
BANDS = ((8, "an exploration, a good beginning"), (16, "a result that you may tell colleagues about"),
         (21, "worth a post that others read"),
         (25, "write to the people whose claims it touches; they will want to know"))
AFTERWARDS = "found afterwards"  # what a prediction is called that came after its result
NEEDED = ("model", "hook point", "SAE", "texts", "seeds")  # what `method` has to be told


class Judged(NamedTuple):
    """One row of the rubric."""

    name: str                #: as on the page
    here: str                #: what the notebook shows
    missing: Sequence[str]   #: what the assignment asks for and is not there
    most: int                #: points, at most, for what can be seen


def band(total: int) -> str:
    """What a number of points means."""
    return next(words for below, words in BANDS if total < below)


def judge(study: Investigation, late: Mapping[str, str], tries: int, after: int, *, repeated: bool) -> list[Judged]:
    """Every row of the rubric.

    Args:
        study: the investigation.
        late: predictions that came after their result, by number, and why they count as late.
        tries: how many things were tried.
        after: how many of them after the test half had been opened.
        repeated: whether a second run gave the same numbers.
    """
    main = [f for f in study.found.values() if f.role in ("finding", "cause")]
    rows = (_question(study), _prediction(study, late), _beside(study, main, "baseline"),
            _beside(study, main, "control"), _cause(study, main, late), _uncertainty(study, tries, after),
            _negative(study), _checked(study, repeated))
    return [Judged(name, *row) for name, row in zip(RUBRIC, rows, strict=True)]


def _question(study: Investigation) -> tuple[str, list[str], int]:
    missing = [] if study.question.endswith("?") else ["a question (it ends with a question mark)"]
    missing += [] if study.why_open else ["why the answer was open"]
    return study.question, missing, 3 if not missing else 1 if study.question else 0


def _prediction(study: Investigation, late: Mapping[str, str]) -> tuple[str, list[str], int]:
    made = study.predictions
    if not made:
        return "", ["a prediction, with what would refute it"], 0
    decided = {n: AFTERWARDS if n in late else made[n].verdict(study.found[n]) for n in made if n in study.found}
    here = "; ".join(f"`{n}` {decided.get(n, 'not measured yet')}" for n in made)
    missing = [f"the result `{n}`" for n in made if n not in decided]
    missing += [f"`{n}` was {why}" for n, why in late.items()]
    return here, missing, 1 if len(late) == len(made) else 2 if missing else 3


def _beside(study: Investigation, main: Sequence[Found], role: str) -> tuple[str, list[str], int]:
    there = [f for f in study.found.values() if f.role == role]
    bare = [f.name for f in main if not any(other.of == f.name for other in there)]
    missing = [f"a {role} for `{name}`" for name in bare] or ([] if main else [f"a {role}"])
    enough = 3 if role == "baseline" or len(there) > len(main) else 2  # several controls, for the third point
    return ", ".join(f"`{f.name}`" for f in there), missing, 0 if not there else 1 if missing else enough


def _cause(study: Investigation, main: Sequence[Found], late: Mapping[str, str]) -> tuple[str, list[str], int]:
    causes = [f for f in main if f.role == "cause"]
    missing = [] if len(main) >= 2 else [f"{'two results' if not main else 'a second result'}"]
    if not causes:
        return "", [*missing, "a result for which something was changed (`role=\"cause\"`)"], 0
    for role in ("control", "damage"):
        if not any(f.role == role and f.of in {c.name for c in causes} for f in study.found.values()):
            missing.append(f"a {role} for what was changed")
    foretold = any(c.name in study.predictions and c.name not in late for c in causes)
    here = ", ".join(f"`{c.name}`" for c in causes) + (", predicted" if foretold else "")
    return here, missing, 1 if missing else 3 if foretold else 2


def _uncertainty(study: Investigation, tries: int, after: int) -> tuple[str, list[str], int]:
    if not study.found:
        return "", ["results with intervals"], 0
    units = sorted({f.unit for f in study.found.values()})
    here = f"intervals over {', '.join(units)}; {tries} things tried"
    here += f", {after} of them after the test half had been opened" if after else ""
    missing = [] if tries else ["the things you tried (`study.tried`)"]
    return here, missing, 3 if tries and not after else 2


def _negative(study: Investigation) -> tuple[str, list[str], int]:
    if not study.without:
        return "", ["what you did not find (`study.not_found`)"], 0
    unlearned = [f"what was learned from “{what}”" for what, learned in study.without.items() if not learned]
    return f"{len(study.without)} looked for and not found", unlearned, 2 if unlearned else 3


def _checked(study: Investigation, repeated: bool) -> tuple[str, list[str], int]:
    missing = [f"`{name}` in the method" for name in NEEDED if name not in study.settings]
    here = ", ".join(f"{name} {study.settings[name]}" for name in study.settings)
    here += "; a second run gave the same numbers" if repeated else ""
    return here, missing, 0 if missing else 3 if repeated else 1
