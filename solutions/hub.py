"""Asking the Hugging Face hub, without hanging and without a page of retries.

The libraries underneath try for half a minute and more when there is no network, and end in a traceback.
Here the cache is looked at first, then the connection, for a few seconds; only then does anything download.
"""

from __future__ import annotations

import contextlib
import json
import struct
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import solutions
from solutions.errors import ModelNotAvailable, NotAvailable, first_line

__all__ = [
    "PATIENCE",
    "cache_only",
    "cached",
    "check_files",
    "embedded",
    "hub_cache",
    "local_copy",
    "require_connection",
]

#: Seconds to wait for the hub to answer at all.
PATIENCE = 5.0


def hub_cache() -> Path:
    """Where downloads go.

    Returns:
        The folder; it need not exist yet.
    """
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def is_switched_off() -> bool:
    """True when the Hugging Face libraries were told not to use the network.

    Returns:
        Whether `HF_HUB_OFFLINE` was set when the libraries were imported.
    """
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def hub_answers() -> bool:
    """True when the hub answers anything at all within `PATIENCE` seconds.

    In a thread of its own, because looking up a host name can hang where no time limit reaches.

    Returns:
        Whether it does. A proxy's refusal is no answer.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    answered = threading.Event()

    def ask() -> None:
        try:
            status = get_session().head(constants.ENDPOINT, timeout=PATIENCE).status_code
            if status not in (403, 407) and status < 500:  # those come from a proxy that lets nothing through
                answered.set()
        except Exception:  # whatever went wrong, the hub did not answer
            pass

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return answered.is_set()


def embedded(name: str) -> Path:
    """The folder of an embedded artefact, its files compared with their checksums.

    Args:
        name: its path below `artifacts`, e.g. "smallworld".

    Returns:
        The folder.

    Raises:
        ModelNotAvailable: a file is missing, cut off or altered; the message names it and both checksums.
    """
    from solutions.smallworld import artifacts

    try:
        return artifacts.path_of(name)
    except artifacts.ArtifactError as error:
        raise ModelNotAvailable(str(error)) from error


def require_connection(what: str) -> None:
    """Raise `NotAvailable` within seconds when `what` cannot be downloaded now.

    Args:
        what: how to call it in the message, e.g. "the dataset 'roneneldan/TinyStories'".

    Raises:
        NotAvailable: the network is switched off, or the hub does not answer.
    """
    if why := _why_offline():
        raise NotAvailable(f"{what} has to be downloaded, and {why}.")


def _why_offline() -> str | None:
    """Why nothing can be downloaded now, in words; None when the hub answers."""
    if is_switched_off():
        if solutions.SWITCHED_OFFLINE:
            return (
                "this session began on the embedded target, which works offline "
                f"(set {solutions.TARGET_VARIABLE}=gpt2-small before starting Python or the notebook to go online)"
            )
        return "HF_HUB_OFFLINE=1 forbids using the network"
    if not hub_answers():
        from huggingface_hub import constants

        return f"{constants.ENDPOINT} cannot be reached"
    return None


# ---- cache


@contextlib.contextmanager
def cache_only() -> Iterator[None]:
    """Within it the Hugging Face libraries read what is on this machine, and ask the hub nothing.

    Returns:
        A context manager; what was set before is set again afterwards.
    """
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def cached(repo: str, name: str) -> Path | None:
    """The file `name` of the repository `repo` in the cache, or None.

    Args:
        repo: the repository, "owner/name".
        name: the file's path within it.

    Returns:
        Where the file lies, or None when it is not on this machine.
    """
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, name)
    return Path(found) if isinstance(found, str) and Path(found).exists() else None


def local_copy(
    repos: Sequence[str],
    wanted: Sequence[Sequence[str]],
    patterns: Sequence[str],
    what: str,
    inside: str = "",
) -> Path:
    """A folder on this machine with the files wanted: from the cache, else downloaded.

    Args:
        repos: names the repository goes by; the first is the one to download.
        wanted: for each thing needed, the file names that will do (one or several joined by "+").
        patterns: what to download.
        what: how to call it in a message, e.g. "the model 'gpt2'".
        inside: the sub-folder of the repository that is meant, if not the whole.

    Returns:
        The folder.

    Raises:
        ModelNotAvailable: it is not here and cannot be had now, or a file is damaged.
    """
    missing: list[str] = []
    for repo in repos:
        root = _root(repo, wanted)
        gaps = [" or ".join(choice) for choice in wanted if root is None or not _has(root, choice)]
        if root is not None and not gaps:
            check_files(root / inside, what)
            return root / inside
        if root is not None or not missing:
            missing = gaps
    if why := _why_offline():
        raise ModelNotAvailable(
            _how_to_get(repos[0], missing, len(missing) < len(wanted), patterns, what, why)
        )
    return _download(repos[0], patterns, what) / inside


def _root(repo: str, wanted: Sequence[Sequence[str]]) -> Path | None:
    """The cached snapshot of `repo`, if any of the wanted files is in it."""
    for choice in wanted:
        for names in choice:
            name = names.split("+")[0]
            if found := cached(repo, name):
                return found.parents[name.count("/")]
    return None


def _has(root: Path, choice: Sequence[str]) -> bool:
    return any(all((root / name).exists() for name in names.split("+")) for names in choice)


def _download(repo: str, patterns: Sequence[str], what: str) -> Path:
    """Download with a progress bar; every failure becomes one message."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, allow_patterns=list(patterns)))
    except Exception as error:  # no such repository, a licence to accept, a cut connection, a full disk
        raise ModelNotAvailable(
            f"could not download {what} from {repo!r}: {first_line(error)}\n"
            "  Run the same line again: a download goes on where it stopped. `smallworld` works without it."
        ) from error


def _how_to_get(
    repo: str, missing: Sequence[str], partial: bool, patterns: Sequence[str], what: str, why: str
) -> str:
    include = " ".join(f'"{pattern}"' for pattern in patterns)
    have = "is only half downloaded" if partial else "is not on this machine"
    return "\n".join(
        (
            f"{what} {have}, and {why}.",
            f"  missing:   {', '.join(missing)}",
            f"  it goes to {hub_cache()}",
            f"  to get it, with internet:   hf download {repo} --include {include}",
            "  or carry that folder over from a machine that has it.",
            "  `smallworld` works now, without any download: get_target('smallworld')",
        )
    )


# ---- file checks


def check_files(root: Path, what: str) -> None:
    """Look at every JSON and safetensors file in `root` and name the first that was cut short.

    Args:
        root: the folder; its sub-folders are not looked at.
        what: how to call it in a message, e.g. "the model 'gpt2'".

    Raises:
        ModelNotAvailable: naming the file, what was expected and found, and what to do.
    """
    for path in sorted(root.glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise _damaged(path, what, f"it is not valid JSON ({error})") from error
        if path.name.endswith(".index.json"):
            absent = sorted({name for name in content["weight_map"].values() if not (root / name).exists()})
            if absent:
                raise _damaged(path, what, f"it lists {', '.join(absent)}, not there")
    for path in sorted(root.glob("*.safetensors")):
        if problem := safetensors_problem(path):
            raise _damaged(path, what, problem)


def safetensors_problem(path: Path) -> str | None:
    """What is wrong with a safetensors file, judging by its header and its size; None when nothing is.

    Args:
        path: the file.

    Returns:
        The problem in words, or None.

    Raises:
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 0 < length <= size - 8:
            return f"its header is cut short (the file has {size:,} bytes)"
        try:
            header = json.loads(file.read(length))
        except ValueError:
            return "its header is not readable"
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    expected = 8 + length + max(ends, default=0)
    return None if size == expected else f"expected {expected:,} bytes, found {size:,}"


def _damaged(path: Path, what: str, problem: str) -> ModelNotAvailable:
    repository = [folder for folder in path.parents if folder.name.startswith("models--")]
    return ModelNotAvailable(
        f"{what} is damaged: {path.parent.name}/{path.name}: {problem}.\n"
        f"  Delete {repository[0] if repository else path} and load it again with internet.\n"
        "  `smallworld` works now, without any download: get_target('smallworld')"
    )
