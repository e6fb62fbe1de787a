"""Exercise 6.5: a cache that survives a kill, and a file that somebody has damaged."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from labs.checks.errors import one_line
from labs.checks.exercise import Exercise, Property, Wrong, whole
from labs.checks.lab02.resume import Killed, Killer, files_in

DIGEST = 32  # bytes of a sha256


class NoResult(RuntimeError):
    """What `compute` raises when it fails."""


class Work:
    """`compute()` gives the bytes of the result; it counts how often it was called, and can fail."""

    described = "a function that gives bytes"

    def __init__(self, n: int, seed: int):
        source = torch.Generator().manual_seed(seed)
        self.result = bytes(torch.randint(0, 256, (n,), generator=source, dtype=torch.uint8).tolist())
        self.calls, self.fails = 0, False

    def __call__(self) -> bytes:
        self.calls += 1
        if self.fails:
            raise NoResult("the machine ran out of memory")
        return self.result


class Disk:
    """`write(data, path)` writes a file, first one half and then the other. It can be killed half way."""

    described = "a function that writes bytes to a path"

    def __init__(self):
        self.calls, self.kill_at, self.killer = 0, None, None

    def __call__(self, data: bytes, path: Path) -> None:
        self.calls += 1
        Path(path).write_bytes(data[: len(data) // 2])
        if self.calls == self.kill_at:
            self.killer.strike()
        Path(path).write_bytes(data)


@dataclass
class Call:
    """What one call gave (bytes, or an exception), and how often it computed."""

    gave: object
    computed: int


@dataclass
class History:
    """A cache's life.

    Attributes:
        first, second: two calls, beginning with nothing.
        stored: the file after the first.
        half: whether, killed in a write, it left an incomplete file under the result's own name.
        killed: calls after each kill, and once more.
        damaged: calls after each kind of damage, and once more.
        failed, after: a call whose `compute` raised, and one more without it.
        strays: other files in the folder that are gone.
    """

    first: Call
    second: Call
    stored: bytes | None
    half: bool = False
    killed: list[tuple[Call, Call]] = field(default_factory=list)
    damaged: dict[str, tuple[Call, Call]] = field(default_factory=dict)
    failed: Call | None = None
    after: Call | None = None
    strays: bool = False

    described = "bytes"


def draw_work(generator) -> dict:
    """Something to be computed, a disk, and a path."""
    return {
        "path": Path("features.bin"),
        "compute": Work(whole(generator, 40, 90), seed=whole(generator, 0, 10_000)),
        "write": Disk(),
    }


def live(answer: Callable, args: dict):
    """Use the cache, kill it, damage its file, let the computation fail."""
    work, disk, name = args["compute"], args["write"], args["path"]

    def call(folder: Path) -> Call:
        before = work.calls
        try:
            gave = answer(folder / name, work, disk)
        except NotImplementedError:
            raise
        except Exception as error:
            gave = error
        return Call(gave, work.calls - before)

    with tempfile.TemporaryDirectory() as base:
        folder = _folder(base, "plain")
        gave = answer(folder / name, work, disk)  # an exception here goes to the learner
        if not isinstance(gave, bytes):
            return None if isinstance(gave, History) else gave
        writes, files = disk.calls, files_in(folder)
        history = History(Call(gave, work.calls), call(folder), files.get(str(name)))
        for n in range(1, min(writes, 3) + 1):
            _kill(answer, args, Path(base), n, files, call, history)
        if history.stored:
            _damage(base, name, files, call, history)
        work.fails, folder = True, _folder(base, "failing")
        history.failed = call(folder)
        work.fails = False
        history.after = call(folder)
    return history


def _folder(base: str | Path, name: str) -> Path:
    """An empty folder but for a file of somebody else's."""
    folder = Path(base) / name
    folder.mkdir()
    (folder / "notes.txt").write_text("not yours")
    return folder


def _kill(answer, args, base: Path, n: int, files: dict, call: Callable, history: History) -> None:
    """Kill it in its n-th write, and go on from what the disk held."""
    disk, name = args["write"], args["path"]
    folder, snapshot = _folder(base, f"killed-{n}"), base / f"killed-{n}-left"
    disk.calls, disk.kill_at, disk.killer = 0, n, Killer(("writing", n), folder, snapshot)
    try:
        answer(folder / name, args["compute"], disk)
    except Killed:
        pass
    disk.kill_at = None
    if disk.killer.struck:
        left = files_in(snapshot)
        history.half |= str(name) in left and left[str(name)] != files.get(str(name))
        history.killed.append((call(snapshot), call(snapshot)))
        history.strays |= "notes.txt" not in files_in(snapshot)


def _damage(base, name: Path, files: dict, call: Callable, history: History) -> None:
    """Put every kind of damaged file in its place. What lies beside it (a checksum of its own) stays as it was."""
    stored = history.stored
    middle = len(stored) // 2
    kinds = {
        "cut to half its length": stored[:middle],
        "empty": b"",
        "with one bit changed at its end": stored[:-1] + bytes([stored[-1] ^ 1]),
        "with one bit changed in the middle": stored[:middle]
        + bytes([stored[middle] ^ 1])
        + stored[middle + 1 :],
    }
    for k, (kind, data) in enumerate(kinds.items()):
        folder = _folder(base, f"damaged-{k}")
        for other, contents in files.items():
            (folder / other).parent.mkdir(parents=True, exist_ok=True)
            (folder / other).write_bytes(contents)
        (folder / name).write_bytes(data)
        history.damaged[kind] = (call(folder), call(folder))
        history.strays |= "notes.txt" not in files_in(folder)


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def cached(path: Path, compute: Callable[[], bytes], write: Callable[[bytes, Path], None]) -> bytes:
    return _cached(path, compute, write)


def _read(path: Path) -> bytes | None:
    """The stored result, or None if there is none or it is damaged."""
    if not path.exists():
        return None
    stored = path.read_bytes()
    digest, data = stored[:DIGEST], stored[DIGEST:]
    return data if _digest(data) == digest else None


def _put(data: bytes, path: Path, write: Callable) -> None:
    part = path.with_suffix(".part")
    write(_digest(data) + data, part)
    os.replace(part, path)


def _cached(path, compute, write, read=_read, put=_put) -> bytes:
    found = read(path)
    if found is None:
        found = compute()
        put(found, path, write)
    return found


def _plain_read(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _read_with_length(path: Path) -> bytes | None:
    stored = path.read_bytes() if path.exists() else b""
    return stored[8:] if stored[:8] == len(stored[8:]).to_bytes(8, "big") else None


def _put_plain(data: bytes, path: Path, write: Callable) -> None:
    write(data, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)


def _put_with_length(data: bytes, path: Path, write: Callable) -> None:
    _put_plain(len(data).to_bytes(8, "big") + data, path, write)


def _read_or_stop(path: Path) -> bytes | None:
    if path.exists() and _read(path) is None:
        raise ValueError(f"{path.name} is damaged")
    return _read(path)


def _read_all(path: Path) -> bytes | None:
    return path.read_bytes() if _read(path) is not None else None


def _not_mended(path, compute, write) -> bytes:
    if path.exists():
        found = _read(path)
        return compute() if found is None else found
    return _cached(path, compute, write)


def _never_kept(path, compute, write) -> bytes:
    data = compute()
    _put(data, path, write)
    return data


def _failure_kept(path, compute, write) -> bytes:
    try:
        return _cached(path, compute, write)
    except NoResult:
        return b""


def _put_in_place(data, path, write) -> None:
    write(_digest(data) + data, path)


def _swept(path, compute, write) -> bytes:
    if _read(path) is None:
        for other in path.parent.iterdir():
            other.unlink()
    return _cached(path, compute, write)


def _with(**changes) -> Callable:
    return lambda path, compute, write: _cached(path, compute, write, **changes)


def _gave_other(answer, args, calls, kinds: str = "") -> bool:
    """Whether a damaged file led to bytes that are not the result."""
    return any(
        isinstance(call.gave, bytes) and call.gave != args["compute"].result
        for kind, (call, _) in calls.items()
        if kinds in kind
    )


def _gives_the_result(answer, args, output: History) -> str | None:
    calls = {"At first": output.first, "The second time": output.second, "After a failure": output.after}
    for what, call in calls.items():
        if call.gave != args["compute"].result:
            return f"{what} yours gave {_brief(call.gave)}."
    return None


def _survives(answer, args, output: History) -> str | None:
    calls = {f"Killed in write {n + 1} and started again,": pair for n, pair in enumerate(output.killed)}
    calls |= {f"With a file {kind},": pair for kind, pair in output.damaged.items()}
    for what, (call, again) in calls.items():
        for found in (call, again):
            if found.gave != args["compute"].result:
                return f"{what} yours gave {_brief(found.gave)}."
        if again.computed:
            return f"{what} yours was right, and computed again the next time."
    return None


def _brief(gave: object) -> str:
    return f"{len(gave)} bytes that are not the result" if isinstance(gave, bytes) else one_line(gave)


def _kept(answer, args, output: History) -> str | None:
    if output.second.computed:
        return "Yours computed again."
    return None if output.stored else "Yours left no file of that name."


CACHE = Exercise(
    number="6.5",
    name="cached",
    returns="bytes",
    draw=draw_work,
    reference=cached,
    run=live,
    unique=False,
    cases=4,
    wrong=(
        Wrong(
            "computed each time",
            _never_kept,
            "The second call computes again, though nothing has happened to the file. Look first whether it is there "
            "and whole.",
            recognise=lambda answer, args, output: output.second.computed > 0 and output.stored is not None,
        ),
        Wrong(
            "the checksum handed out",
            _with(read=_read_all),
            "The second call gives the result with something before or after it: the checksum that you stored. Cut "
            "it off again.",
            recognise=lambda answer, args, output: (
                isinstance(output.second.gave, bytes)
                and len(output.second.gave) > len(args["compute"].result)
                and args["compute"].result in output.second.gave
            ),
        ),
        Wrong(
            "nothing checked",
            _with(read=_plain_read, put=_put_plain),
            "We cut the file to half its length, and yours gave out the half. A file that is there need not be "
            "whole. Store a checksum with it, and compare before you believe it.",
            recognise=lambda answer, args, output: _gave_other(answer, args, output.damaged, "cut"),
        ),
        Wrong(
            "only the length checked",
            _with(read=_read_with_length, put=_put_with_length),
            "You notice a file that is too short. But we changed one bit of it, and yours gave it out. Length is not "
            "enough: `hashlib.sha256(data).digest()`.",
            recognise=lambda answer, args, output: _gave_other(answer, args, output.damaged, "bit"),
        ),
        Wrong(
            "stops at damage",
            _with(read=_read_or_stop),
            "A damaged file stops yours with an error. What is in a cache can always be computed again: so do that, "
            "and write it anew.",
            recognise=lambda answer, args, output: any(
                isinstance(call.gave, Exception) for call, _ in output.damaged.values()
            ),
        ),
        Wrong(
            "not mended",
            _not_mended,
            "You notice the damage and compute again, but the damaged file stays where it is. So each call computes "
            "again from now on. Write the new result over it.",
            recognise=lambda answer, args, output: any(
                again.computed for _, again in output.damaged.values()
            ),
        ),
        Wrong(
            "in place",
            _with(put=_put_in_place),
            "You write straight to the file's own name. We killed you half way, and half a file was left there. Your "
            "checksum finds it out, but meanwhile another process has met it, and an older file that was whole would "
            "be gone. Write beside it, then `os.replace(part, path)`.",
            recognise=lambda answer, args, output: output.half,
        ),
        Wrong(
            "failure swallowed",
            _failure_kept,
            "`compute` raised, and yours went on as if nothing had been. Let its exception go through: only the "
            "caller knows what to do about it.",
            recognise=lambda answer, args, output: not isinstance(output.failed.gave, NoResult),
        ),
        Wrong(
            "swept the folder",
            _swept,
            "A file of somebody else's was in the folder, and yours removed it. A cache may touch its own file and "
            "the part beside it, nothing else.",
            recognise=lambda answer, args, output: output.strays,
        ),
    ),
    properties=(
        Property("What is stored must be used.", _kept),
        Property("Each call must give the result.", _gives_the_result),
        Property("It must survive a kill and a damaged file.", _survives),
    ),
    look_at="the bytes of the file: `path.read_bytes()`. A sha256 digest is 32 bytes long.",
    saw="a cache that cannot do worse than no cache: what it gives is the result, or it computes it.",
)

EXERCISES = (CACHE,)
