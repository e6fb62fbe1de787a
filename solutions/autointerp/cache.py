"""Answers on disk, so that no question is paid for twice, and a run that was stopped goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from solutions.data.store_files import DiskFull, write_whole

#: Changes when the form of the files does: older ones are then asked again.
FORMAT = 1


class Cache:
    """A folder of JSON files, one for each answer, named after what was asked.

    Args:
        folder: where; it is made when the first answer comes. None keeps the answers in memory.
    """

    def __init__(self, folder: str | os.PathLike[str] | None):
        self.folder = None if folder is None else Path(folder)
        self._memory: dict[str, dict[str, Any]] = {}
        self.damaged = 0

    @staticmethod
    def key(question: Mapping[str, Any]) -> str:
        """The name of a question: a checksum of all that decides the answer."""
        whole = json.dumps({"format": FORMAT, **question}, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(whole.encode()).hexdigest()

    def get(self, question: Mapping[str, Any]) -> dict[str, Any] | None:
        """The answer to a question, if there is one. A damaged file is none, and is counted in `damaged`."""
        key = self.key(question)
        if self.folder is None:
            return self._memory.get(key)
        try:
            found = json.loads(self._file(key).read_text(encoding="utf-8"))
            if found["question"] == question and isinstance(found["answer"], dict):
                return found["answer"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError):
            pass
        self.damaged += 1
        return None

    def put(self, question: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        """Keep an answer. The file appears whole or not at all; DiskFull when there is no room for it."""
        key = self.key(question)
        if self.folder is None:
            self._memory[key] = dict(answer)
            return
        file = self._file(key)
        text = json.dumps({"question": question, "answer": answer}, ensure_ascii=False, indent=1)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, text.encode("utf-8", "replace"))
        except DiskFull:
            raise DiskFull(f"the disk is full: no room for another answer in {self.folder}. All before it are kept. "
                           "Free some space and run the same again: it goes on there.") from None

    def _file(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"
