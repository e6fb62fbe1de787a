"""Exercise 6.4: a cache's key. It changes with everything that the result depends on, and with nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from labs.checks.errors import one_line
from labs.checks.exercise import Exercise, Property, Wrong, normal, whole
from labs.checks.lab06.inside import uses


@dataclass
class Keys:
    """The key of one input, and of inputs that differ from it in one thing each.

    Attributes:
        base: the key.
        same: keys that must be equal to it, by what was done.
        other: keys that must not.
        trouble: what an input of these made it raise.
    """

    base: str
    same: dict[str, str] = field(default_factory=dict)
    other: dict[str, str] = field(default_factory=dict)
    trouble: str | None = None

    described = "a text (str)"

    def differs(self, what: str) -> bool:
        return self.same.get(what, self.base) != self.base

    def stays(self, what: str) -> bool:
        return self.other.get(what) == self.base


def draw_settings(generator) -> dict:
    """Settings as a harvest would have them: texts, numbers, a list, a dict, a tensor that is long to print."""
    layer, rows = whole(generator, 0, 9), 1000 + 2 * whole(generator, 1, 300)
    settings = {
        "hook": f"blocks.{layer}.hook_resid_pre",
        "k": whole(generator, 8, 64),
        "batch": whole(generator, 65, 99),
        "layers": [1, 23],
        "text": {"kinds": ["code", "french"], "n": whole(generator, 100, 999)},
        "scale": normal(generator, rows, 2),
        "progress": True,
        "device": "cpu",
    }
    return {"settings": settings, "file": Path("weights.safetensors"), "irrelevant": {"progress", "device"}}


def same_inputs(settings: dict, path: Path) -> dict[str, tuple[dict, Path]]:
    """Inputs that give the same result, by what was done to them."""
    copied = path.with_name("a copy of it")
    copied.write_bytes(path.read_bytes())
    os.utime(copied, (0, 0))
    reordered = {name: settings[name] for name in reversed(settings)}
    inner = {name: settings["text"][name] for name in reversed(settings["text"])}
    return {
        "asked twice": (settings, path),
        "entries in another order": (reordered, path),
        "entries of an inner dict in another order": (settings | {"text": inner}, path),
        "an irrelevant setting changed": (settings | {"progress": False}, path),
        "an irrelevant setting left out": ({n: v for n, v in settings.items() if n != "device"}, path),
        "the tensor a copy of itself": (settings | {"scale": settings["scale"].clone()}, path),
        "the file copied": (settings, copied),
    }


def other_inputs(settings: dict, path: Path) -> dict[str, tuple[dict, Path]]:
    """Inputs that give another result, each with one thing changed."""
    scale = settings["scale"].clone()
    scale[len(scale) // 2, 0] += 1.0
    changed = path.parent / "other" / path.name  # same name, same size, same time, other contents
    changed.parent.mkdir()
    changed.write_bytes(bytes(reversed(path.read_bytes())))
    os.utime(changed, (path.stat().st_atime, path.stat().st_mtime))
    renamed = {("k_" if name == "k" else name): value for name, value in settings.items()}
    swapped = settings | {"k": settings["batch"], "batch": settings["k"]}
    return {
        "a text changed": (settings | {"hook": settings["hook"].replace("pre", "mid")}, path),
        "a number changed": (settings | {"k": settings["k"] + 1}, path),
        "an inner number changed": (settings | {"text": settings["text"] | {"n": 1}}, path),
        "a number written as text": (settings | {"k": str(settings["k"])}, path),
        "[1, 23] turned into [12, 3]": (settings | {"layers": [12, 3]}, path),
        "two values exchanged": (swapped, path),
        "an entry renamed": (renamed, path),
        "one entry of the tensor changed": (settings | {"scale": scale}, path),
        "the tensor reshaped": (settings | {"scale": settings["scale"].reshape(2, -1)}, path),
        "the file's contents changed": (settings, changed),
    }


def try_it(answer: Callable, args: dict):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / args["file"]
        path.write_bytes(bytes(range(1, 60)))
        settings, irrelevant = args["settings"], args["irrelevant"]
        base = answer(settings, path, irrelevant)
        if not isinstance(base, str):
            return None if isinstance(base, Keys) else base
        keys = Keys(base)
        for found, inputs in (
            (keys.same, same_inputs(settings, path)),
            (keys.other, other_inputs(settings, path)),
        ):
            for what, (changed, at) in inputs.items():
                try:
                    found[what] = answer(changed, at, irrelevant)
                except Exception as error:
                    keys.trouble = keys.trouble or f"With {what} yours raised {one_line(error)}."
    return keys


def as_plain(value):
    """A setting as JSON knows it; a tensor as its dtype, shape and a digest of its bytes."""
    if isinstance(value, Tensor):
        digest = hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()
        return [str(value.dtype), list(value.shape), digest]
    if isinstance(value, dict):
        return {name: as_plain(entry) for name, entry in value.items()}
    return value


def cache_key(settings: dict, file: Path, irrelevant: set[str]) -> str:
    return _key(settings, file, irrelevant)


def _bytes(file: Path):
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _key(settings, file, irrelevant, *, of_tensor=None, of_file=_bytes, written=None) -> str:
    """The right key, with one part done in another way."""

    def plain_(value):
        if isinstance(value, Tensor) and of_tensor is not None:
            return of_tensor(value)
        if isinstance(value, dict):
            return {name: plain_(entry) for name, entry in value.items()}
        return as_plain(value)

    kept = {name: plain_(value) for name, value in settings.items() if name not in irrelevant}
    kept["the file"] = of_file(file)
    text = json.dumps(kept, sort_keys=True) if written is None else written(kept)
    return hashlib.sha256(text.encode()).hexdigest()


def _with(**changes) -> Callable:
    return lambda settings, file, irrelevant: _key(settings, file, irrelevant, **changes)


def _hashed(settings, file, irrelevant):
    return str(hash(_key(settings, file, irrelevant)))


def _everything(settings, file, irrelevant):
    return _key(settings, file, set())


def _of_now(settings, file, irrelevant):
    return _key(settings | {"now": time.perf_counter_ns()}, file, irrelevant)


def _flat(kept: dict, sep: str) -> str:
    """All texts and numbers of a dict, one after the other."""
    if isinstance(kept, dict):
        return sep.join(f"{name}{sep}{_flat(kept[name], sep)}" for name in sorted(kept))
    return sep.join(_flat(entry, sep) for entry in kept) if isinstance(kept, list) else str(kept)


def _readable(settings, file, irrelevant):
    kept = {name: as_plain(value) for name, value in settings.items() if name not in irrelevant}
    return json.dumps(kept | {"the file": _bytes(file)}, sort_keys=True)


def _is_a_name(key: str) -> bool:
    return len(key) <= 128 and re.fullmatch(r"[\w.=-]+", key) is not None


def _differs(what: str) -> Callable:
    return lambda answer, args, output: output.differs(what)


def _stays(what: str) -> Callable:
    return lambda answer, args, output: output.stays(what)


def _no_trouble(answer, args, output: Keys) -> str | None:
    return output.trouble


def _same_stay(answer, args, output: Keys) -> str | None:
    found = [what for what in output.same if output.differs(what)]
    return f"Yours changed with {found[0]}." if found else None


def _others_change(answer, args, output: Keys) -> str | None:
    found = [what for what in output.other if output.stays(what)]
    return f"Yours stayed the same with {found[0]}." if found else None


def _name_for_a_file(answer, args, output: Keys) -> str | None:
    if _is_a_name(output.base):
        return None
    return f"Yours begins with {output.base[:40]!r} and is {len(output.base)} long."


KEYS = Exercise(
    number="6.4",
    name="cache_key",
    returns="str",
    draw=draw_settings,
    reference=cache_key,
    run=try_it,
    unique=False,
    wrong=(
        Wrong(
            "hash()",
            _hashed,
            "You use Python's `hash`. For texts it gives another number in every process, unless told otherwise, so "
            "tomorrow nothing is found. Use `hashlib.sha256(...).hexdigest()`.",
            recognise=lambda answer, args, output: uses(answer, "hash"),
        ),
        Wrong(
            "new each time",
            _of_now,
            "The same question twice gives two keys. Is there a time, a random number or an address (`id`, the "
            "`repr` of an object) in yours? Then the cache never finds anything.",
            recognise=_differs("asked twice"),
        ),
        Wrong(
            "no name for a file",
            _readable,
            "Your key cannot be the name of a file: it is too long, or has characters that a file system does not "
            "take. Put the text through `hashlib.sha256(text.encode()).hexdigest()`.",
            recognise=lambda answer, args, output: not _is_a_name(output.base),
        ),
        Wrong(
            "irrelevant settings counted",
            _everything,
            "Your key changes with a setting that is irrelevant. With another progress bar everything is computed "
            "anew. Leave out what `irrelevant` names.",
            recognise=_differs("an irrelevant setting changed"),
        ),
        Wrong(
            "the order counts",
            _with(written=json.dumps),
            "Your key depends on the order in which the settings were written down. `json.dumps(..., "
            "sort_keys=True)` puts them in order, inner dicts, too.",
            recognise=lambda answer, args, output: any(
                output.differs(what) for what in output.same if "order" in what
            ),
        ),
        Wrong(
            "the file's name",
            _with(of_file=lambda file: file.name),
            "Your key knows the file by its name. Somebody trains again and saves over it, and you go on with "
            "results of the old weights. Put the file's *contents* in: `file.read_bytes()`.",
            recognise=lambda answer, args, output: (
                output.stays("the file's contents changed") and output.differs("the file copied")
            ),
        ),
        Wrong(
            "the file left out",
            _with(of_file=lambda file: ""),
            "Your key does not know the file at all. The result depends on the weights in it: put its contents in, "
            "`file.read_bytes()`.",
            recognise=_stays("the file's contents changed"),
        ),
        Wrong(
            "path or time",
            _with(of_file=lambda file: [str(file), file.stat().st_mtime, _bytes(file)]),
            "Your key changes when the file is copied: its path or its time is in it. On another machine, or after a "
            "fresh download, everything is computed anew. Only the contents count.",
            recognise=_differs("the file copied"),
        ),
        Wrong(
            "the tensor printed",
            _with(of_tensor=str),
            "You put the tensor in as text, and a long tensor prints as its corners with dots between. An entry in "
            "the middle has changed, and your key has not. Take all of it: `tensor.numpy().tobytes()`.",
            recognise=_stays("one entry of the tensor changed"),
        ),
        Wrong(
            "the tensor's shape lost",
            _with(of_tensor=lambda t: hashlib.sha256(t.numpy().tobytes()).hexdigest()),
            "The same numbers in another shape give the same key. The bytes of a tensor do not know its shape: put "
            "`list(tensor.shape)` and `str(tensor.dtype)` in beside them.",
            recognise=_stays("the tensor reshaped"),
        ),
        Wrong(
            "run together",
            _with(written=lambda kept: _flat(kept, "")),
            "You write the values one after the other with nothing between: [1, 23] and [12, 3] are both `123`. "
            "`json.dumps` keeps them apart.",
            recognise=_stays("[1, 23] turned into [12, 3]"),
        ),
        Wrong(
            "values without names",
            _with(written=lambda kept: json.dumps([kept[name] for name in sorted(kept)], sort_keys=True)),
            "Your key holds the values and not what they are called. Rename a setting, and it is the same key.",
            recognise=_stays("an entry renamed"),
        ),
        Wrong(
            "numbers as text",
            _with(written=lambda kept: _flat(kept, "|")),
            'The number 16 and the text "16" give the same key. They need not give the same result. `json.dumps` '
            "tells them apart; `str` does not.",
            recognise=_stays("a number written as text"),
        ),
    ),
    properties=(
        Property("The key must be made for every kind of setting.", _no_trouble),
        Property("The key must stay the same where the result does.", _same_stay),
        Property("The key must change with the result.", _others_change),
        Property("The key must do as the name of a file.", _name_for_a_file),
    ),
    look_at="`json.dumps` knows texts, numbers, lists and dicts. A tensor has to be turned into one of those first.",
    saw="a key that may be trusted. Most stale caches come from a key that knew too little; most useless ones from a "
    "key that knew too much.",
)

EXERCISES = (KEYS,)
