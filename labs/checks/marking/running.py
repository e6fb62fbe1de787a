"""Running a notebook of unknown quality: in a kernel of its own, with limits, to the end if at all possible.

A cell that raises does not stop the run, since the exercises below it may be right. A cell that takes too long is
interrupted, and the run goes on. A kernel that dies, or does not listen when it is interrupted, ends the run.
"""

from __future__ import annotations

import os
import queue
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from jupyter_client import BlockingKernelClient, KernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[3]
STARTING = 120  # seconds a kernel may take to start on a busy machine
LAST = 60  # seconds that our own last cell may take at least
LISTENING = 10  # seconds after an interrupt in which a kernel has to answer
DIED = "the kernel died; it may have run out of memory"
MAY_RAISE = "raises-exception"  # the tag of cells that use exercises: in an unfinished lab they raise


class KernelGone(Exception):
    """The kernel has died, or does not listen any more."""


@dataclass(frozen=True)
class Limits:
    """How long a notebook may take.

    Attributes:
        cell: seconds after which a cell is interrupted; the run goes on with the next.
        total: seconds after which the whole run is ended.
        stopped: set by whoever does not want to wait any longer.
    """

    cell: float = 120
    total: float = 900
    stopped: threading.Event = field(default_factory=threading.Event)


@dataclass
class Run:
    """What happened while a notebook ran.

    Attributes:
        finished: whether the last cell was reached.
        ended: why not, in words; "" for a run that reached the end.
        slow: the numbers of the cells that were interrupted, counted as in Jupyter: code cells from 1.
        raised: the same for cells that raised though nothing says that they may, with the first line of the error.
        seconds: how long it took, the start of the kernel included.
    """

    finished: bool = False
    ended: str = ""
    slow: list[int] = field(default_factory=list)
    raised: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0


@contextmanager
def kernel(folder: Path, settings: Mapping[str, str]) -> Iterator[tuple[KernelManager, BlockingKernelClient]]:
    """A kernel in this very Python, working in `folder`; gone afterwards, whatever happened in it."""
    specs = KernelSpecManager(kernel_dirs=[])  # whatever "python3" means at home, it means this Python here
    manager = KernelManager(kernel_name="python3", kernel_spec_manager=specs)
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "IPYTHONDIR": str(folder / ".ipython"),  # and no start-up files from home
        "PYTHONWARNINGS": "ignore",
        "TOKENIZERS_PARALLELISM": "false",
        **settings,
    }
    manager.start_kernel(cwd=str(folder), env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    client = manager.blocking_client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=STARTING)
        yield manager, client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def run_notebook(notebook: NotebookNode, settings: Mapping[str, str], last: str, limits: Limits) -> Run:
    """Run every code cell of `notebook`, in an empty folder that is deleted afterwards.

    Args:
        notebook: read with nbformat; not changed.
        settings: environment variables of the kernel, beside this process's own.
        last: code to run after the last cell, within the same limits.
        limits: how long it may take.

    Returns:
        What happened. Nothing that a notebook does makes this raise.
    """
    start = time.monotonic()
    run = Run()
    codes = [(cell.source, MAY_RAISE in cell.metadata.get("tags", [])) for cell in notebook.cells
             if cell.cell_type == "code" and cell.source.strip()]
    number = 0
    with tempfile.TemporaryDirectory(prefix="grading-", ignore_cleanup_errors=True) as folder:
        try:
            with kernel(Path(folder), settings) as (manager, client):
                for number, (code, may_raise) in enumerate([*codes, (last, False)], 1):
                    left = limits.total - (time.monotonic() - start)
                    if left <= 0:
                        run.ended = f"the time limit of {limits.total:g} s was reached before code cell {number}"
                        return run
                    seconds = min(limits.cell if number <= len(codes) else max(limits.cell, LAST), left)
                    _run_cell(manager, client, code, number, may_raise, seconds, limits.stopped, run)
            run.finished = True
        except KernelGone as error:
            run.ended = f"code cell {number}: {error}"
        except RuntimeError as error:  # the kernel did not start
            run.ended = f"no kernel could be started ({str(error).splitlines()[0]})"
        finally:
            run.seconds = time.monotonic() - start
    return run


def _run_cell(manager, client, code, number, may_raise, limit, stopped, run: Run) -> None:
    """Run one cell and note in `run` what was unusual about it."""
    message = client.execute(code, allow_stdin=False, stop_on_error=False)
    reply = _answer(manager, client, message, limit, stopped)
    if reply is None:
        run.slow.append(number)
        manager.interrupt_kernel()
        if _answer(manager, client, message, LISTENING, stopped) is None:
            raise KernelGone(f"ran for more than {limit:g} s and could not be interrupted")
    elif reply["status"] == "error" and not may_raise:
        said = str(reply.get("evalue", "")).strip().splitlines()
        run.raised[number] = f"{reply.get('ename', 'Error')}: {said[0] if said else ''}".rstrip(": ")


def _answer(manager, client, message: str, limit: float, stopped: threading.Event) -> dict | None:
    """The kernel's reply to a message, or None when there is none within `limit` seconds."""
    deadline = time.monotonic() + limit
    while (left := deadline - time.monotonic()) > 0:
        try:
            reply = client.get_shell_msg(timeout=min(1.0, left))
        except queue.Empty:
            if stopped.is_set():
                raise KernelGone("grading was interrupted") from None
            if not manager.is_alive():
                raise KernelGone(DIED) from None
        else:
            if reply["parent_header"].get("msg_id") == message:
                return reply["content"]
    return None
