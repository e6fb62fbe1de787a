"""The web app with 20 visitors at once, on two cores: errors, how long an answer takes, and how much memory it needs.

The server is the real one, started as `launch` starts it. Visitors are sessions over its WebSocket, as a browser opens
them, without the browsers, which would need the cores for themselves. Each one asks for the pages in an order of its
own, always something that nobody has asked before (so nothing is remembered), and looks at every answer for a second
or two. An answer has come when the page is whole; it is an error when the page says one, or shows another's text.

    python -m tests.benchmarks app [--quick]
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
CORES = 2
VISITORS, ANSWERS = 20, 10
THINKS = (1.0, 3.0)    # seconds between an answer and the next question
PATIENCE = 120.0       # seconds until a visitor gives up
LIMIT_S = 10.0         # 95th percentile of the time to answer
LIMIT_FIRST_S = 3.0    # until a visitor's first page is whole, when nobody else is there
LIMIT_MB = 1500.0      # of the server, at its largest
LIMIT_GROWTH = 1.15    # its memory after all answers / after half of them
PLACES = ("Paris", "Rome", "Berlin", "London", "Athens", "Cairo", "Istanbul", "Washington")
NOUNS = ("cat", "river", "doctor", "match", "garden", "train", "singer", "treaty")


class Answer(NamedTuple):
    """One answer to one visitor."""

    page: str
    seconds: float
    error: str  # "" for none


def row(name: str, value: float, unit: str, limit: float | None = None, note: str = "") -> dict:
    """One line of the table; what has a limit must not be above it."""
    kept = None if limit is None else bool(value <= limit)
    return {"name": f"app: {name}", "value": value, "unit": unit, "limit": limit, "ok": kept, "note": note}


def run(quick: bool) -> list[dict]:
    """All rows of this bench: name, value, unit, limit, ok, note."""
    sys.path.insert(0, str(ROOT / "tests"))
    from serving_app import served

    visitors, answers, texts = (4, 4, 100) if quick else (VISITORS, ANSWERS, 1500)
    with tempfile.TemporaryDirectory(prefix="bench-app-") as folder, served(Path(folder), texts) as server:
        if hasattr(os, "sched_setaffinity"):
            for thread in os.listdir(f"/proc/{server.process.pid}/task"):
                os.sched_setaffinity(int(thread), sorted(os.sched_getaffinity(0))[:CORES])
        opening = asyncio.run(visit(server.port, 0, [question(0, 0)], lambda: None))[0]
        first = asyncio.run(visit(server.port, 0, [question(0, 1)], lambda: None))[0]
        memory = Memory(server.process.pid, visitors * answers)
        begin = time.perf_counter()
        found = asyncio.run(crowd(server.port, visitors, answers, memory.answered))
        took, peak = time.perf_counter() - begin, memory.largest()
    return rows([opening, first], found, took, peak, memory, f"{visitors} visitors, {answers} answers each")


def rows(alone: list[Answer], found: list[Answer], took: float, peak: float, memory: Memory, what: str) -> list[dict]:
    """The table of one run."""
    opening, first = alone
    errors = [f"{answer.page}: {answer.error}" for answer in [*alone, *found] if answer.error]
    seconds = np.array([answer.seconds for answer in found])
    slowest = max({answer.page for answer in found},
                  key=lambda page: np.median([a.seconds for a in found if a.page == page]))
    note = f"{what}, {len(found) / took:.1f} answers a second; median {np.median(seconds):.2f} s"
    return [
        row("errors", len(errors), "", 0, "; ".join(errors[:3])[:200] or what),
        row("the very first page, index made on the way", opening.seconds, "s", None, "once for each machine"),
        row("a page alone", first.seconds, "s", LIMIT_FIRST_S, "one visitor, the model is open"),
        row("time to answer, 95th percentile", float(np.quantile(seconds, 0.95)), "s", LIMIT_S, note),
        row("time to answer, longest", float(seconds.max()), "s", None, f"slowest page: {slowest}"),
        row("memory of the server, largest", peak, "MB", LIMIT_MB, "resident, libraries included"),
        row("memory after all / after half of the answers", memory.growth(), "×", LIMIT_GROWTH),
    ]


class Memory:
    """The server's resident memory, looked at after every answer."""

    def __init__(self, pid: int, expected: int):
        self.pid, self.expected, self.seen = pid, expected, []

    def answered(self) -> None:
        self.seen.append(self._status("VmRSS"))

    def largest(self) -> float:
        return self._status("VmHWM")

    def growth(self) -> float:
        """At the end / half-way, each the median of a tenth of all looks."""
        tenth, half = max(1, self.expected // 10), len(self.seen) // 2
        return float(np.median(self.seen[-tenth:]) / np.median(self.seen[half - tenth // 2 : half + tenth // 2 + 1]))

    def _status(self, name: str) -> float:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


# ---- what visitors ask


def question(visitor: int, i: int) -> tuple[str, dict[str, Any], str]:
    """The i-th question of a visitor: page, what its address says, and what the answer has to show."""
    dice = np.random.default_rng([visitor, i])
    place, noun, word = dice.choice(PLACES), dice.choice(NOUNS), f"{dice.choice(NOUNS)} {int(dice.integers(1000))}"
    text = f"The {noun} of {place} saw the {word}."
    prompt = f"The {noun} in {place}"
    return (
        ("read", {"text": text}, "on your text"),
        ("features", {"latent": int(dice.integers(1024))}, "Latent "),
        ("steer", {"prompt": prompt, "seed": int(dice.integers(9999))}, f"{prompt}</span>"),
        ("features", {"q": f'text:"{text}"'}, "latents for text"),
        ("compare", {"a": text, "b": f"A {noun} is not in {place}."}, "on the second text"),
        ("runs", {"show": ("kinds", "knobs", "failed")[int(dice.integers(3))]}, "figure in words"),
    )[(i + visitor) % 6]


async def crowd(port: int, visitors: int, answers: int, after: Any) -> list[Answer]:
    """All visitors at once."""
    questions = [[question(v, i) for i in range(1, answers + 1)] for v in range(visitors)]
    found = await asyncio.gather(*(visit(port, v, asked, after, THINKS) for v, asked in enumerate(questions)))
    return [answer for answers in found for answer in answers]


async def visit(
    port: int, visitor: int, questions: list, after: Any, thinks: tuple[float, float] | None = None
) -> list[Answer]:
    """One session: a question after the other."""
    from websockets.asyncio.client import connect

    dice, found = np.random.default_rng(visitor), []
    address, origin = f"ws://localhost:{port}/_stcore/stream", f"http://localhost:{port}"
    async with connect(address, origin=origin, subprotocols=["streamlit"], max_size=None, proxy=None) as socket:
        for page, query, shows in questions:
            if thinks:
                await asyncio.sleep(float(dice.uniform(*thinks)))
            begin = time.perf_counter()
            try:
                error = await asyncio.wait_for(ask(socket, page, query, shows), PATIENCE)
            except Exception as problem:  # noqa: BLE001  whatever it was, the visitor had no answer
                error = f"{type(problem).__name__}: {problem}"
            found.append(Answer(page, time.perf_counter() - begin, error))
            after()
    return found


async def ask(socket: Any, page: str, query: dict[str, Any], shows: str) -> str:
    """Follow a link, and read the page until it is whole. Returns what is wrong with it, or ""."""
    from streamlit.proto.BackMsg_pb2 import BackMsg
    from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
    from streamlit.util import calc_hash

    message = BackMsg()
    message.rerun_script.query_string = urlencode(query)
    message.rerun_script.page_script_hash = calc_hash("" if page == "read" else page)
    await socket.send(message.SerializeToString())
    html, running = "", False
    async for data in socket:
        said = ForwardMsg.FromString(data)
        kind = said.WhichOneof("type")
        running = running or kind == "new_session"  # what comes before belongs to the last question
        if kind == "delta" and running:
            element = said.delta.new_element
            if element.WhichOneof("type") == "exception":
                return f"{element.exception.type}: {element.exception.message}"[:200]
            html += element.html.body
        if kind == "script_finished" and running:
            if said.script_finished != ForwardMsg.FINISHED_SUCCESSFULLY:
                return f"the page ended with status {said.script_finished}"
            return "an alert" if 'role="alert"' in html else "" if shows in html else f"{shows!r} is not on the page"
    return "the connection was closed"
