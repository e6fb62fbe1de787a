"""Finds the finished files of the embedded world, and checks by checksum that they are whole.

`artifacts/MANIFEST.json` lists every file with its size and SHA-256, the seeds and versions that made them, and
the measured quality table. A truncated or altered file is named before anything is read from it.
"""
import functools
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

ARTIFACTS = Path(__file__).parent / "artifacts"
REMEDY = ("To repair it, get the folder back from version control (git checkout -- "
          "solutions/smallworld/artifacts), clone the repository again, or remake everything with "
          "`python -m solutions.smallworld.build`.")


class ArtifactError(Exception):
    """An artefact is missing, unknown or not what the manifest says."""


def manifest(root: Path = ARTIFACTS) -> dict:
    """The manifest: `seeds`, `versions`, `text`, `files`, `bytes`, `quality`, `wall_time_s`, `stages`."""
    path = root / "MANIFEST.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"Expected the list of artefacts at {path}; there is no such file. {REMEDY}") from None
    except json.JSONDecodeError as error:
        raise ArtifactError(f"Expected JSON in {path}; found in line {error.lineno}: {error.msg}. "
                            f"{REMEDY}") from None


def list_saes(model: str | None = None, root: Path = ARTIFACTS) -> list[str]:
    """Names of all SAEs, ``saes/<model>/<sae_id>``, or of those that belong to one model."""
    return _list("saes", model, root)


def list_transcoders(model: str | None = None, root: Path = ARTIFACTS) -> list[str]:
    """Names of all transcoders, ``transcoders/<model>/<id>``, or of those of one model, in the order of its layers.

    They have a folder of their own: who goes through all SAEs of a model would take a transcoder for one.
    """
    return _list("transcoders", model, root)


def _list(kind: str, model: str | None, root: Path) -> list[str]:
    folders = {name.rsplit("/", 1)[0] for name in manifest(root)["files"] if name.startswith(f"{kind}/")}
    return sorted(f for f in folders if model is None or f.split("/")[1] == model)


def path_of(name: str, root: Path = ARTIFACTS) -> Path:
    """The folder (or file) of an artefact, such as "smallworld", after its checksums have been verified."""
    verify(name, root)
    return root / name


def verify(name: str, root: Path = ARTIFACTS) -> None:
    """Checks that every file of an artefact is there with the expected SHA-256.

    `name` is a folder or file of the manifest: "smallworld", "saes/smallworld/blocks.2.hook_resid_pre.topk.8x".
    What has been found whole is not read again by this process.

    Raises:
        ArtifactError: a file is missing or altered, or the name is unknown.
    """
    _verify(name, root.resolve())


@functools.cache  # an error is not cached: after a repair the next call looks again
def _verify(name: str, root: Path) -> None:
    files = manifest(root)["files"]
    wanted = {path: entry for path, entry in files.items() if path == name or path.startswith(f"{name}/")}
    if not wanted:
        known = ", ".join(sorted({path.rsplit("/", 1)[0] for path in files}))
        raise ArtifactError(f"There is no artefact named {name!r}. The manifest knows: {known}.")
    for path, expected in wanted.items():
        file = root / path
        if not file.is_file():
            raise ArtifactError(f"The artefact file {path} is missing. Expected {expected['bytes']} bytes at "
                                f"{file}; found nothing. {REMEDY}")
        if (found := sha256(file)) != expected["sha256"]:
            raise ArtifactError(
                f"The artefact file {path} has been altered or cut off. Expected {expected['bytes']} bytes with "
                f"SHA-256 {expected['sha256']}; found {file.stat().st_size} bytes with {found}. {REMEDY}")


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_files(root: Path, folders: Iterable[str]) -> dict[str, dict]:
    """The manifest's `files`: {relative path: {bytes, sha256}} of all files below the folders, sorted."""
    paths = sorted(path for folder in folders for path in (root / folder).rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)}
            for path in paths}
