"""An investigation that keeps its own log, and says what is still missing in it. For the capstone.

    from labs.investigation import Investigation

    study = Investigation("capstone_log.jsonl")
    study.ask("Does the latent that follows X cause Y?", why_open="...")
    study.predict("...", number="effect on Y", refuted_if="below 0.5", written="2026-11-26")
    study.result("effect on Y", one_number_for_each_document, role="cause")
    study.checklist()

What is predicted, tried and found goes into a file beside the notebook, line by line, with the time. So it can be
seen whether a prediction was written before its result, whether it was left alone, and how many things were tried.
Nobody is kept from deleting the file. It is there for people who want to be honest and know how memory works.
"""

from __future__ import annotations

import html
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from plotly.graph_objects import Figure

from labs.checks import show
from labs.rubric import AFTERWARDS, RUBRIC, Judged, band, judge
from solutions.analysis import bootstrap_mean
from solutions.errors import InputError, check_count, unknown_name
from solutions.visualization import compare_dots

__all__ = ["ROLES", "RUBRIC", "Found", "Investigation", "Prediction", "f1", "hits", "interval"]

#: What a number is for. All but the first two stand beside one of those two.
ROLES = ("finding", "cause", "baseline", "control", "damage")
STAND_IN = "stand-in"  # how the starter's own results are called, until they are replaced
LIMIT = re.compile(r"(below|above)\s+([-+]?\d*\.?\d+(?:e-?\d+)?)")


class Prediction(NamedTuple):
    """What is expected, and what would refute it."""

    sentence: str    #: in words
    number: str      #: the name of the result that decides
    side: str        #: "below" or "above": on that side of the threshold it is refuted
    threshold: float #: in the result's own unit
    written: str     #: the day, as in "2026-11-26"

    def verdict(self, found: Found) -> str:
        """ "kept", "refuted", or "undecided" where the interval holds the threshold."""
        if found.low <= self.threshold <= found.high:
            return "undecided"
        return "refuted" if (found.value < self.threshold) == (self.side == "below") else "kept"


class Found(NamedTuple):
    """A number, its interval, and what it was taken over."""

    name: str       #: what it is called
    role: str       #: one of `ROLES`
    of: str         #: which finding it stands beside; empty for a finding
    value: float    #: the number
    low: float      #: lower end of its 95 % interval
    high: float     #: upper end
    n: int          #: how many units were drawn
    unit: str       #: what was drawn: documents, prompts, seeds


def interval(
    per_unit: Any,
    statistic: Callable[[np.ndarray], float] | None = None,
    n_draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """A number and its 95 % interval, by drawing as many units again with replacement (Efron 1979).

    Args:
        per_unit: [n] one number for each unit, or [n, k] several; a unit is what was sampled: a document, a prompt.
        statistic: from the sums over the units [k] to the number; the mean by default.
        n_draws: how often to draw.
        seed: of the draws.

    Returns:
        (value, low, high).

    Raises:
        InputError: fewer than two units, numbers that are not finite, or several numbers and no statistic.
    """
    values = np.asarray(per_unit, dtype=float)
    if values.ndim not in (1, 2) or len(values) < 2 or not np.isfinite(values).all():
        raise InputError(
            "per_unit must hold finite numbers, [units] or [units, k], for two units or more; "
            f"got shape {list(values.shape)}. One number alone has no interval: measure each document by itself."
        )
    if values.ndim == 2 and statistic is None:
        raise InputError("per_unit has several numbers for each unit: give a statistic of their sums.")
    if statistic is None:
        return bootstrap_mean(values, n_draws, seed)[:3]
    drawn = np.random.default_rng(seed).integers(len(values), size=(check_count(n_draws, "n_draws"), len(values)))
    low, high = np.quantile([statistic(values[i].sum(0)) for i in drawn], (0.025, 0.975))
    return float(statistic(values.sum(0))), float(low), float(high)


def hits(fires: Any, holds: Any, documents: Any) -> np.ndarray:
    """What F1 is made of, for each document: then the interval is over documents, and not over their words.

    Args:
        fires: [tokens] bool, where it is said to hold.
        holds: [tokens] bool, where it does.
        documents: [tokens] int, the document of each token.

    Returns:
        [documents, 3] right, said in vain, missed.

    Raises:
        InputError: the three are not equally long.
    """
    said, true, which = (np.asarray(part) for part in (fires, holds, documents))
    if not said.shape == true.shape == which.shape or said.ndim != 1:
        raise InputError(f"give three rows of one length; got {said.shape}, {true.shape} and {which.shape}.")
    _, place = np.unique(which, return_inverse=True)
    kinds = (said & true, said & ~true, ~said & true)
    return np.stack([np.bincount(place, weights=kind) for kind in kinds], axis=1)


def f1(sums: np.ndarray) -> float:
    """F1 from what `hits` counted, summed over documents; 0 where nothing was said and nothing held."""
    right, in_vain, missed = sums
    return float(2 * right / max(2 * right + in_vain + missed, 1))


@dataclass
class Investigation:
    """One question, from the prediction to the points.

    Attributes:
        log: the file that remembers, beside the notebook; None keeps everything in memory.
        question: what is asked.
        why_open: why the answer is not known already.
        predictions: by the name of the number that decides.
        found: results by name, in the order in which they came.
        settings: what `method` was told.
        without: what was looked for and not found, with what was learned from it.
        points: what you gave yourself.
    """

    log: str | os.PathLike[str] | None = None
    question: str = ""
    why_open: str = ""
    predictions: dict[str, Prediction] = field(default_factory=dict)
    found: dict[str, Found] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    without: dict[str, str] = field(default_factory=dict)
    points: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._run = secrets.token_hex(4)
        self._events = list(_read(self.log))
        self._test: Any = None

    # ---- before the first result

    def ask(self, question: str, why_open: str = "") -> None:
        """Say what is asked, and why nobody knows."""
        self.question, self.why_open = question.strip(), why_open.strip()
        if not self.question:
            show.show("No question yet", show.BLUE, ["Write one that could be answered either way."])

    def predict(self, sentence: str, number: str, refuted_if: str, written: str) -> None:
        """Write down what you expect. Until there is a prediction, no result is shown.

        Args:
            sentence: what you expect, in words.
            number: the name of the result that will decide; use the same name in `result`.
            refuted_if: "below 0.3" or "above 2": where you will give up the idea.
            written: today's date, as in "2026-11-26".

        Raises:
            InputError: a limit or a date that cannot be read.
        """
        parts = {"sentence": sentence, "number": number, "refuted_if": refuted_if, "written": written}
        if empty := [name for name, text in parts.items() if not text.strip()]:
            show.show("No prediction yet", show.BLUE, [
                f"Still empty: {', '.join(empty)}.",
                "Until it is written, the cells below compute, and no result is shown or noted.",
            ])
            return
        limit = LIMIT.fullmatch(refuted_if.strip())
        if limit is None:
            raise InputError(f'refuted_if must read like "below 0.3" or "above 2", got {refuted_if!r}.')
        try:
            date.fromisoformat(written)
        except ValueError:
            raise InputError(f'written must be a date like "2026-11-26", got {written!r}.') from None
        made = Prediction(sentence.strip(), number.strip(), limit[1], float(limit[2]), written)
        self.predictions[made.number] = made
        self._note("prediction", **made._asdict())
        lines = [made.sentence, f"Refuted if `{made.number}` is {refuted_if.strip()}. Written on {written}."]
        late = self.late(made.number)
        if late:
            lines.append(f"But: {late}. It counts as *{AFTERWARDS}*.")
        show.show("Prediction", show.ORANGE if late else show.GREEN, lines)

    def method(self, **settings: Any) -> None:
        """Say with what: `target=..., texts=..., seeds=...`. A target stands for model, hook point and SAE."""
        for name, value in settings.items():
            if hasattr(value, "sae_release"):
                self.settings |= {"model": value.model, "hook point": value.hook, "SAE": value.sae_id}
            else:
                self.settings[name] = str(value)

    def split(self, test: Any) -> None:
        """Take the documents that are kept for testing: [tokens] bool, from the library's `labelled_tokens`."""
        if self._test is not None and bool((self._test != test).any()):
            raise InputError("the documents were split already, and differently. Split once, and keep to it.")
        self._test = test

    @property
    def development(self) -> Any:
        """[tokens] bool: where to look, choose and try."""
        return ~self._halves()

    @property
    def test(self) -> Any:
        """[tokens] bool: where to report. When it was first used is noted."""
        if self.predictions and not self._seen("opened"):
            self._note("opened")
        return self._halves()

    def _halves(self) -> Any:
        if self._test is None:
            raise InputError("the documents are not split yet: call study.split(text.test) first.")
        return self._test

    # ---- results

    def tried(self, what: str, value: float) -> None:
        """Note one thing that was tried on the development half, also when it failed."""
        known = {(event["name"], event["value"]) for event in self._seen("try")}
        if self.predictions and (what, round(float(value), 6)) not in known:
            self._note("try", name=what, value=round(float(value), 6))

    def result(
        self,
        name: str,
        per_unit: Any,
        *,
        role: str = "finding",
        of: str = "",
        unit: str = "documents",
        statistic: Callable[[np.ndarray], float] | None = None,
        seed: int = 0,
    ) -> None:
        """Note a number with its interval, and show it if there is a prediction.

        Args:
            name: what it is called; that of a prediction's number, if it decides one.
            per_unit: see `interval`; whatever was measured, once for each unit.
            role: "finding" (something was seen), "cause" (something was changed), or what stands beside one of
                these: "baseline" (needs no SAE), "control" (knows nothing), "damage" (what the change cost).
            of: which finding a baseline, control or damage stands beside.
            unit: what was sampled.
            statistic: see `interval`.
            seed: of the draws.

        Raises:
            InputError: an unknown role, a name that is not known in `of`, or numbers without an interval.
        """
        if role not in ROLES:
            raise unknown_name("role", role, ROLES)
        main = [found.name for found in self.found.values() if found.role in ROLES[:2]]
        if role not in ROLES[:2] and self.predictions and of not in main:
            raise unknown_name(f"finding for a {role} to stand beside (of=...)", of, main or ["none so far"])
        value, low, high = interval(per_unit, statistic, seed=seed)
        if not self.predictions:
            print(f"{name}: measured, and not shown. There is no prediction yet.")
            return
        self.found[name] = Found(name, role, of, value, low, high, len(per_unit), unit)
        self._note("result", name=name, value=round(value, 6))
        print(f"{name}: {value:.3g} ({low:.3g} to {high:.3g}), {len(per_unit)} {unit}, {role}")

    def not_found(self, what: str, learned: str = "") -> None:
        """What you looked for and did not find, and what that taught."""
        if what.strip():
            self.without[what.strip()] = learned.strip()

    # ---- at the end

    def families(self) -> list[list[Found]]:
        """Each finding with what stands beside it."""
        return [[main, *(other for other in self.found.values() if other.of == main.name)]
                for main in self.found.values() if main.role in ROLES[:2]]

    def results(self) -> pd.DataFrame:
        """A row for each number, those that stand beside a finding right after it."""
        rows = [found for family in self.families() for found in family]
        return pd.DataFrame(rows, columns=list(Found._fields)).drop(columns="of")

    def pictures(self) -> list[Figure]:
        """For each finding a dot plot of it and what stands beside it, with intervals. Damage has a unit of its own
        and is left to the table."""
        made = []
        for main, *others in self.families():
            shown = [main, *(other for other in others if other.role != "damage")]
            made.append(compare_dots(
                {f.name: {f.role: f.value} for f in shown}, main.name,
                bands={f.name: {f.role: (f.low, f.high)} for f in shown},
            ))
        return made

    def verdicts(self) -> pd.DataFrame:
        """A row for each prediction: the number that decides, and what it says."""
        rows = []
        for number, made in self.predictions.items():
            found, late = self.found.get(number), self.late(number)
            rows.append({
                "number": number, "refuted if": f"{made.side} {made.threshold:g}",
                "value": found.value if found else np.nan, "low": found.low if found else np.nan,
                "high": found.high if found else np.nan,
                "verdict": AFTERWARDS if late else made.verdict(found) if found else "no such result yet",
            })
        return pd.DataFrame(rows)

    def tries(self) -> tuple[int, int]:
        """How many things were tried, and how many of them after the test half had been opened."""
        opened = next((i for i, event in enumerate(self._events) if event["what"] == "opened"), len(self._events))
        tried = [i for i, event in enumerate(self._events) if event["what"] == "try"]
        return len(tried), sum(i > opened for i in tried)

    def repeated(self) -> bool:
        """Whether an earlier run of the notebook, from a fresh start, gave the same numbers."""
        runs: dict[str, dict[str, float]] = {}
        for event in self._seen("result"):
            runs.setdefault(event["run"], {})[event["name"]] = event["value"]
        now = runs.pop(self._run, {})
        return bool(now) and any(now == before for before in runs.values())

    def score(self, **points: int) -> None:
        """Give yourself 0 to 3 points for each row of the rubric, by its first word: `score(question=2, …)`.

        Raises:
            InputError: an unknown row, or points that are not 0, 1, 2 or 3.
        """
        known = {row.split()[0].lower(): row for row in RUBRIC}
        for name, given in points.items():
            if name not in known:
                raise unknown_name("row of the rubric", name, known)
            if given not in (0, 1, 2, 3):
                raise InputError(f"points are 0, 1, 2 or 3; {name} got {given!r}.")
            self.points[known[name]] = int(given)

    def judged(self) -> list[Judged]:
        """The rows of the rubric, each with what the notebook shows of it and what is missing."""
        late = {number: why for number in self.predictions if (why := self.late(number))}
        return judge(self, late, *self.tries(), repeated=self.repeated())

    def missing(self) -> list[str]:
        """What the notebook lacks, in words; empty when every part of the assignment is there."""
        stand_ins = sum(name.startswith(STAND_IN) for name in self.found)
        own = [f"{stand_ins} results are the starter's own: they begin with “{STAND_IN}”"] if stand_ins else []
        return [text for row in self.judged() for text in row.missing] + own

    def checklist(self) -> None:
        """Show the rubric, filled in from what is there, beside the points that you gave yourself."""
        rows, missing = self.judged(), self.missing()
        given = {row.name: self.points.get(row.name) for row in rows}
        table = [("", "What is here", "What is missing", "At most", "Yours")]
        for row in rows:
            yours = "–" if given[row.name] is None else str(given[row.name])
            more = given[row.name] is not None and given[row.name] > row.most
            table.append((row.name, row.here or "nothing yet", "; ".join(row.missing) or "nothing",
                          str(row.most), yours + (" (say why)" if more else "")))
        total = sum(points for points in given.values() if points is not None)
        said = [f"{len(rows) - sum(bool(row.missing) for row in rows)} of {len(rows)} rows are complete."]
        if all(points is not None for points in given.values()):
            said.append(f"You give yourself {total} of {3 * len(rows)}: {band(total)}.")
        else:
            said.append("Points: give yourself some in every row, with `study.score(...)`.")
        said += [f"{text}." for text in missing if STAND_IN in text]
        said.append("*At most* is what can be seen from here. Whether the work is good, only a reader can say.")
        title = "Everything that was asked for is here" if not missing else "What is still missing"
        _show_table(title, show.ORANGE if missing else show.GREEN, said, table)

    # ---- the log

    def _note(self, what: str, **about: Any) -> None:
        event = {"what": what, "when": datetime.now(UTC).isoformat(timespec="seconds"), "run": self._run}
        self._events.append(event | about)
        if self.log is not None:
            with open(self.log, "a", encoding="utf-8") as file:
                file.write(json.dumps(event | about, ensure_ascii=False) + "\n")

    def _seen(self, what: str) -> list[dict]:
        return [event for event in self._events if event["what"] == what]

    def late(self, number: str) -> str:
        """Why a prediction does not count as one: it came after its result, or was changed then. Or nothing."""
        first = next((i for i, event in enumerate(self._events)
                      if event["what"] == "result" and event["name"] == number), None)
        if first is None:
            return ""
        before = [event for event in self._events[:first]
                  if event["what"] == "prediction" and event["number"] == number]
        if not before:
            return "written after its result had been seen"
        then = {key: before[-1][key] for key in Prediction._fields}
        if then != self.predictions[number]._asdict():
            limit = f"{then['side']} {then['threshold']:g}"
            return f"changed after its result had been seen; before, it was refuted {limit}"
        return ""


def _read(log: str | os.PathLike[str] | None) -> Iterator[Mapping[str, Any]]:
    """The events of a log; a line that was cut off is passed over."""
    if log is None or not Path(log).exists():
        return
    for line in Path(log).read_text("utf-8").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and {"what", "when", "run"} <= event.keys():
            yield event


def _show_table(title: str, colour: str, said: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A card with a table in it, as HTML and as text."""
    def row(cells: Sequence[str], tag: str) -> str:
        style = "padding:0.2em 0.7em 0.2em 0;text-align:left;vertical-align:top;white-space:normal"
        return "<tr>" + "".join(f'<{tag} style="{style}">{show.inline(cell)}</{tag}>' for cell in cells) + "</tr>"

    header, *body = rows
    table = "<div style=\"overflow-x:auto\" tabindex=\"0\"><table>"
    table += f"<caption hidden>{html.escape(title)}</caption>{row(header, 'th')}"
    table += "".join(row(cells, "td") for cells in body) + "</table></div>"
    lines = [f"{name}: {here}. Missing: {missing}. At most {most}, yours {yours}."
             for name, here, missing, most, yours in body]
    show.put(show.card_html(title, colour, said, extra=table), show.card_text(title, said, lines))
