"""The app as a process of its own, behind a free port: for the tests in a browser and for the benchmark."""

from __future__ import annotations

import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from solutions.app.launching import command
from solutions.app.opening import CACHE_VARIABLE

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 120  # seconds; for machines with other things to do


class Server(NamedTuple):
    """A running app."""

    port: int
    process: subprocess.Popen

    @property
    def base(self) -> str:
        return f"http://localhost:{self.port}"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def served(cache: Path, texts: int, target: str = "smallworld") -> Iterator[Server]:
    """The app with its index in `cache`, as `launch` starts it; what it says goes to a file there."""
    port = free_port()
    arguments, surroundings = command("localhost", port, target, texts)
    cache.mkdir(parents=True, exist_ok=True)
    surroundings |= {CACHE_VARIABLE: str(cache), "PYTHONPATH": str(ROOT)}
    with open(cache / "server.log", "wb") as log:
        process = subprocess.Popen(arguments, cwd=cache, env=surroundings, stdout=log, stderr=log)
    try:
        wait_for(f"http://localhost:{port}/_stcore/health", process)
        yield Server(port, process)
    finally:
        process.terminate()
        process.wait(30)


def wait_for(address: str, process: subprocess.Popen) -> None:
    """Wait until the server answers."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    raise RuntimeError(f"the app did not start (exit code {process.poll()})")
