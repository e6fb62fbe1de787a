"""How far one is: a small JSON file beside the labs, and what `progress()` shows."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

DEFAULT = Path(__file__).resolve().parents[1] / ".progress.json"
DONE = "done"
PROGRESS = "MONOSEMANTIC_PROGRESS"  # names another file for it
VERDICTS = "MONOSEMANTIC_VERDICTS"  # names a file that everything said is added to: for whoever grades a class


@dataclass
class Record:
    """States by exercise number ("1.5": "done" or "tried"). `path=None` keeps them in memory only.

    The file is a convenience: if it cannot be read or written, the lab goes on without it.
    """

    path: Path | None
    states: dict[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path | None) -> Record:
        """Read the record, or start an empty one. A damaged file is set aside, not trusted."""
        record = cls(path)
        try:
            stored = json.loads(path.read_text("utf8")) if path else {}
        except (OSError, ValueError):
            stored = {}
        if isinstance(stored, dict):
            record.states = {str(k): v for k, v in stored.items() if v in (DONE, "tried")}
        return record

    def note(self, number: str, done: bool) -> None:
        """Note a try. Done stays done: going back to play with an exercise costs nothing."""
        if self.states.get(number) == DONE:
            return
        self.states[number] = DONE if done else "tried"
        self._write()

    def _write(self) -> None:
        if self.path is None:
            return
        try:
            part = self.path.with_suffix(".part")
            part.write_text(json.dumps(self.states, indent=1, sort_keys=True) + "\n", "utf8")
            os.replace(part, self.path)  # a reader sees the old file or the new one, never half of one
        except OSError:
            self.path = None


def default_path() -> Path:
    """Where progress is kept: `labs/.progress.json`, or what MONOSEMANTIC_PROGRESS names."""
    return Path(os.environ.get(PROGRESS) or DEFAULT)


def report(number: str, status: str, message: str = "") -> None:
    """Add what was said about an exercise to the file that `MONOSEMANTIC_VERDICTS` names, one JSON object a line."""
    path = os.environ.get(VERDICTS)
    if path:
        with open(path, "a", encoding="utf8") as file:
            file.write(json.dumps({"number": number, "status": status, "message": message}) + "\n")


def heard_in(path: Path) -> dict[str, dict]:
    """What was reported last about each exercise and prediction, from the file that `report` writes."""
    heard = {}
    for line in path.read_text("utf8").splitlines() if path.exists() else ():
        try:
            entry = json.loads(line)
            heard[str(entry["number"])] = entry
        except (ValueError, KeyError, TypeError):  # half a line: the kernel died while it wrote
            continue
    return heard
