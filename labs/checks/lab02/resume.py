"""Exercise 2.6: write shards so that a kill costs nothing. The grader kills at every kind of moment."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from labs.checks.exercise import Exercise, Property, Wrong, whole


class Killed(BaseException):
    """What a kill looks like from inside. Not an Exception: nobody can be expected to catch it."""


class Shards:
    """What there is to write: `compute(i)` gives the bytes of shard i, and takes the time in a real harvest."""

    def __init__(self, n_shards: int, seed: int):
        generator = torch.Generator().manual_seed(seed)
        sizes = torch.randint(8, 40, (n_shards,), generator=generator).tolist()
        self.contents = [
            bytes(torch.randint(0, 256, (n,), generator=generator, dtype=torch.uint8).tolist()) for n in sizes
        ]
        self.computed: list[int] = []
        self.killer: Killer | None = None

    def __call__(self, i: int) -> bytes:
        self.computed.append(i)
        if self.killer is not None and self.killer.moment == ("computing", i):
            self.killer.strike()
        return self.contents[i]


class Saver:
    """`save(data, path)` writes a file, first one half and then the other, as a disk does."""

    def __init__(self, shards: Shards):
        self.shards = shards

    def __call__(self, data: bytes, path: Path) -> None:
        path, killer = Path(path), self.shards.killer
        now = self.shards.computed[-1] if self.shards.computed else None
        path.write_bytes(data[: len(data) // 2])
        if killer is not None and killer.moment == ("writing", now):
            killer.strike()
        path.write_bytes(data)
        if killer is not None and killer.moment == ("written", now):
            killer.strike()


@dataclass
class Killer:
    """Strikes once, at `moment`. What the disk held at that instant is kept in `snapshot`: nothing that the dying
    program does afterwards, in an `except` or a `finally`, would have happened."""

    moment: tuple[str, int]
    folder: Path
    snapshot: Path
    struck: bool = False

    def strike(self) -> None:
        if not self.struck:
            self.struck = True
            shutil.copytree(self.folder, self.snapshot)
            raise Killed


def draw_shards(generator) -> dict:
    """A number of shards, what computes them and what saves them."""
    n_shards = whole(generator, 3, 7)
    shards = Shards(n_shards, seed=whole(generator, 0, 10_000))
    return {"n_shards": n_shards, "compute": shards, "save": Saver(shards), "folder": Path("store")}


def write_shards(n_shards: int, compute: Callable, save: Callable, folder: Path) -> list[int]:
    written = []
    for i in range(n_shards):
        path = folder / f"shard_{i:04d}.safetensors"
        if path.exists():
            continue
        part = path.with_suffix(".part")
        save(compute(i), part)
        os.replace(part, path)
        written.append(i)
    return written


@dataclass
class Resumed:
    """What was found after a kill and after going on.

    Attributes:
        when: the moment of the kill, in words.
        half: shard names that held an incomplete file when the program died.
        tidied: whether such a file was gone once the dying program had left its `except` and `finally`.
        missing, damaged: shard numbers absent, or with the wrong bytes, when all was done.
        again: shard numbers computed although they were complete.
        returned: what the second run returned; `wanted` what it had left to do.
    """

    when: str
    half: list[str]
    tidied: bool
    missing: list[int]
    damaged: list[int]
    again: list[int]
    returned: list[int]
    wanted: list[int]


@dataclass
class ListOfShards:
    """What an undisturbed run returned and left on the disk, and what came of a kill at several moments."""

    returned: list[int]
    names: list[str]
    kills: list[Resumed]


def run_and_kill(answer: Callable, args: dict):
    """Run it undisturbed in an empty folder; then kill it at several moments, and start it again each time."""
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base) / "undisturbed"
        folder.mkdir()
        returned = answer(*(args | {"folder": folder}).values())
        if not isinstance(returned, list):
            return returned
        names = sorted(files_in(folder))
        last = args["n_shards"] - 1
        moments = [("writing", 1), ("written", last - 1), ("computing", last)]
        kills = [
            kill_and_resume(answer, args, moment, Path(base) / str(k)) for k, moment in enumerate(moments)
        ]
    return ListOfShards(returned, names, [kill for kill in kills if kill is not None])


def kill_and_resume(answer: Callable, args: dict, moment: tuple[str, int], base: Path) -> Resumed | None:
    """Run, kill at the moment, go on from what the disk held then. None if the moment never came."""
    n_shards, shards, save = args["n_shards"], args["compute"], args["save"]
    folder, snapshot = base / "first", base / "second"
    folder.mkdir(parents=True)
    shards.computed, shards.killer = [], Killer(moment, folder, snapshot)
    try:
        answer(n_shards, shards, save, folder)
    except Killed:
        pass
    struck, shards.killer = shards.killer.struck, None
    if not struck:
        return None
    names = [f"shard_{i:04d}.safetensors" for i in range(n_shards)]
    right = dict(zip(names, shards.contents, strict=True))
    left, before = files_in(folder), files_in(snapshot)
    complete = [i for i, name in enumerate(names) if before.get(name) == right[name]]
    half = [name for name in names if name in before and before[name] != right[name]]
    shards.computed = []
    returned = answer(n_shards, shards, save, snapshot)
    after = files_in(snapshot)
    return Resumed(
        when=f"Killed {MOMENTS[moment[0]].format(moment[1])} and started again:",
        half=half,
        tidied=any(name not in left for name in half),
        missing=[i for i, name in enumerate(names) if name not in after],
        damaged=[i for i, name in enumerate(names) if name in after and after[name] != right[name]],
        again=[i for i in shards.computed if i in complete],
        returned=list(returned or ()),
        wanted=[i for i in range(n_shards) if i not in complete],
    )


MOMENTS = {
    "computing": "while shard {} was computed",
    "writing": "in the middle of writing shard {}",
    "written": "right after shard {} was written",
}


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _undisturbed(answer, args, output) -> str | None:
    wanted = list(range(args["n_shards"]))
    return None if output.returned == wanted else f"Expected {wanted}, yours returned {output.returned}."


def _survives(answer, args, output) -> str | None:
    for kill in output.kills:
        if kill.missing:
            return f"{kill.when} shard {kill.missing[0]} is missing."
        if kill.damaged:
            return f"{kill.when} shard {kill.damaged[0]} holds other bytes than it should."
        if kill.half:
            return f"{kill.when} for a while {kill.half[0]} was there with half of its bytes."
    return None if output.kills else "Yours never came to computing or saving a shard."


def _does_nothing_twice(answer, args, output) -> str | None:
    for kill in output.kills:
        if kill.again:
            return f"{kill.when} shard {kill.again[0]} was complete, and computed once more."
        if kill.returned != kill.wanted:
            return f"{kill.when} it should return {kill.wanted}, and returned {kill.returned}."
    return None


def _when(test: Callable[[Resumed], bool]) -> Callable:
    """Recognise a mistake by what one of the kills showed."""
    return lambda answer, args, output: any(test(kill) for kill in output.kills)


def _all(kill: Resumed, args: dict) -> bool:
    return kill.returned == list(range(args["n_shards"]))


def _in_place(n_shards, compute, save, folder):
    written = []
    for i in range(n_shards):
        path = folder / f"shard_{i:04d}.safetensors"
        if not path.exists():
            save(compute(i), path)
            written.append(i)
    return written


def _other_names(n_shards, compute, save, folder):
    for i in range(n_shards):
        save(compute(i), folder / "writing.part")
        os.replace(folder / "writing.part", folder / f"shard_{i}.safetensors")
    return list(range(n_shards))


def _over(n_shards, compute, save, folder):
    for i in range(n_shards):
        part = folder / "writing.part"
        save(compute(i), part)
        os.replace(part, folder / f"shard_{i:04d}.safetensors")
    return list(range(n_shards))


def _over_in_place(n_shards, compute, save, folder):
    for i in range(n_shards):
        save(compute(i), folder / f"shard_{i:04d}.safetensors")
    return list(range(n_shards))


def _computed_first(n_shards, compute, save, folder):
    written = []
    for i in range(n_shards):
        data, path = compute(i), folder / f"shard_{i:04d}.safetensors"
        if not path.exists():
            save(data, folder / "writing.part")
            os.replace(folder / "writing.part", path)
            written.append(i)
    return written


def _part_taken_for_done(n_shards, compute, save, folder):
    written = []
    for i in range(n_shards):
        path = folder / f"shard_{i:04d}.safetensors"
        part = path.with_suffix(".part")
        if path.exists():
            continue
        if not part.exists():
            save(compute(i), part)
        os.replace(part, path)
        written.append(i)
    return written


def _cleans_up(n_shards, compute, save, folder):
    written = []
    for i in range(n_shards):
        path = folder / f"shard_{i:04d}.safetensors"
        if path.exists():
            continue
        try:
            save(compute(i), path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        written.append(i)
    return written


def _counts_files(n_shards, compute, save, folder):
    written = []
    for i in range(len(list(folder.iterdir())), n_shards):
        path = folder / f"shard_{i:04d}.safetensors"
        save(compute(i), path.with_suffix(".part"))
        os.replace(path.with_suffix(".part"), path)
        written.append(i)
    return written


def _lists_all(n_shards, compute, save, folder):
    write_shards(n_shards, compute, save, folder)
    return list(range(n_shards))


RESUME = Exercise(
    number="2.6",
    name="write_shards",
    returns="list[int]",
    draw=draw_shards,
    reference=write_shards,
    run=run_and_kill,
    unique=False,
    cases=4,
    wrong=(
        Wrong(
            "under another name",
            _other_names,
            "The files have other names than they should. Whoever reads the store looks for `shard_0000.safetensors`, "
            "`shard_0001.safetensors`, and so on, with four digits.",
            recognise=lambda answer, args, output: "shard_0000.safetensors" not in output.names,
        ),
        Wrong(
            "over and in place",
            _over_in_place,
            "After a kill yours begins at shard 0 again, and writes over what was complete. Two things are "
            "missing: skip a shard whose file is there, and write under another name first, so that a file "
            "that is there is complete.",
            recognise=_when(lambda kill: kill.again and kill.half and not kill.damaged),
        ),
        Wrong(
            "from the beginning",
            _over,
            "Nothing is lost, and after a kill all the work is done again. Before you compute a shard, look "
            "whether its file is there: `path.exists()`.",
            recognise=lambda answer, args, output: any(
                kill.again and _all(kill, args) for kill in output.kills
            ),
        ),
        Wrong(
            "computed before it looked",
            _computed_first,
            "You skip the writing of what is complete, and compute it all the same. Computing is what takes the "
            "night. Look first, compute afterwards.",
            recognise=_when(lambda kill: kill.again and kill.returned == kill.wanted),
        ),
        Wrong(
            "written in place",
            _in_place,
            "We killed your function in the middle of a write. Half a file was left under the shard's own name, "
            "and the second run took it for complete. Write under another name, then `os.replace(part, path)`: "
            "a rename happens wholly or not at all.",
            recognise=_when(lambda kill: kill.half and kill.damaged and not kill.tidied),
        ),
        Wrong(
            "cleaned up on the way out",
            _cleans_up,
            "You write in place and tidy up in an `except` or a `finally`. A killed program does not get to "
            "them (nor does one whose power fails), so half a file stays, and looks complete. Write under "
            "another name, then `os.replace(part, path)`.",
            recognise=_when(lambda kill: kill.half and kill.damaged and kill.tidied),
        ),
        Wrong(
            "the part taken for done",
            _part_taken_for_done,
            "You found a `.part` file of the run that was killed, and renamed it as it was: half a shard. "
            "Nothing is known about a part. Write it anew.",
            recognise=_when(lambda kill: kill.damaged and not kill.half),
        ),
        Wrong(
            "files counted",
            _counts_files,
            "You went on at the number of files in the folder. The half-written one of the run that was killed "
            "was counted too, so its shard is missing. Ask for each shard by its own name.",
            recognise=_when(lambda kill: kill.missing),
        ),
        Wrong(
            "all of them reported",
            _lists_all,
            "The files are right. You return every number; the task asks for those that *this* run has written.",
            recognise=lambda answer, args, output: any(
                not kill.again and _all(kill, args) and kill.returned != kill.wanted for kill in output.kills
            ),
        ),
    ),
    properties=(
        Property("A run that starts with an empty folder writes every shard, and says so.", _undisturbed),
        Property("However it is killed, starting again must complete the store.", _survives),
        Property("What is complete must not be computed again.", _does_nothing_twice),
    ),
    look_at='the path: `folder / f"shard_{i:04d}.safetensors"`, and a second name beside it for the part.',
    saw="killed at the worst moments, it lost nothing and did nothing twice: because a rename is all or "
    "nothing.",
)

EXERCISES = (RESUME,)
