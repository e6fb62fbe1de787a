"""Opening an SAE: an embedded one, a folder in SAELens's format, or a release on the hub."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from solutions import EMBEDDED_TARGETS, hub
from solutions.errors import ModelNotAvailable, first_line, unknown_name
from solutions.models import pick_device
from solutions.smallworld.artifacts import list_saes
from solutions.targets import Target, check_target

if TYPE_CHECKING:
    from sae_lens import SAE

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"


def load_sae(target: Target, device: str | torch.device | None = None) -> SAE:
    """Load the target's SAE in float32.

    Args:
        target: what is being studied.
        device: where to put it; by default the GPU where there is one, else the CPU.

    Returns:
        A SAELens SAE. `sae.cfg.metadata` says what it was trained on.

    Raises:
        InputError: `target` is the name of one, or this machine has no such device.

    Example:
        >>> sae = load_sae(get_target("smallworld"), "cpu")
        >>> sae.cfg.d_in, sae.cfg.d_sae
        (128, 1024)
    """
    check_target(target)
    if target.sae_release in EMBEDDED_TARGETS:
        return load_sae_from_disk(hub.embedded(f"saes/{target.sae_release}/{target.sae_id}"), device)
    if target.sae_folder is not None:
        return load_sae_from_disk(target.sae_folder, device)
    return _load_release(target.sae_release, target.sae_id, device)


def saes_by_layer(target: Target) -> dict[int, Target]:
    """The target's SAE and its siblings: the same kind, trained at the same place of other layers.

    Args:
        target: what is being studied.

    Returns:
        For each layer for which the release has one, in order, the target with hook point and SAE changed. Only the
        target itself where the names do not say which SAEs belong together.

    Raises:
        InputError: `target` is the name of one.

    Example:
        >>> list(saes_by_layer(get_target("smallworld")))
        [0, 1, 2, 3]
    """
    check_target(target)
    before, after = next((ends for ends in (("blocks.", "."), ("layer_", "/"))
                          if f"{ends[0]}{target.layer}{ends[1]}" in target.sae_id), (None, None))
    if target.layer < 0 or before is None:
        return {target.layer: target}
    start, end = target.sae_id.split(f"{before}{target.layer}{after}", 1)
    kind = re.compile(re.escape(start + before) + r"(\d+)" + re.escape(after + end))
    layers = sorted(int(found[1]) for found in map(kind.fullmatch, _released(target)) if found)
    found = {layer: dataclasses.replace(
        target, hook=target.hook.replace(f"blocks.{target.layer}.", f"blocks.{layer}."),
        sae_id=f"{start}{before}{layer}{after}{end}") for layer in layers}
    return found or {target.layer: target}


def _released(target: Target) -> list[str]:
    """The names of all SAEs that come with the target's. None of them is loaded, and nothing is asked on the hub."""
    if target.sae_release in EMBEDDED_TARGETS:
        return [name.rsplit("/", 1)[1] for name in list_saes(target.sae_release)]
    if target.sae_folder is not None:
        root = target.sae_folder.parent
        return [path.name for path in root.iterdir() if (path / CONFIG).is_file()] if root.is_dir() else []
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    known = get_pretrained_saes_directory()
    return list(known[target.sae_release].saes_map) if target.sae_release in known else [target.sae_id]


def load_sae_from_disk(path: str | os.PathLike[str], device: str | torch.device | None = None) -> SAE:
    """Load an SAE from a folder in SAELens's format: cfg.json and sae_weights.safetensors.

    Args:
        path: the folder.
        device: where to put it; by default the GPU where there is one, else the CPU.

    Returns:
        A SAELens SAE in float32.

    Raises:
        ModelNotAvailable: the folder or a file in it is missing or damaged, or the config lacks what
            SAELens needs.
    """
    path = Path(path)
    missing = [name for name in (CONFIG, WEIGHTS) if not (path / name).is_file()]
    if missing:
        raise ModelNotAvailable(
            f"no SAE in {path}: missing {' and '.join(missing)}. A SAELens folder holds {CONFIG} and {WEIGHTS}."
        )
    hub.check_files(path, f"the SAE {path.name!r}")
    _check_config(path)
    from sae_lens import SAE

    return _opened(lambda d: SAE.load_from_disk(path, device=d, dtype="float32"), path.name, device)


def _check_config(path: Path) -> None:
    """SAELens takes a config without a version for an old one and drops its metadata: say so instead."""
    config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    if (
        "metadata" in config
        and "sae_lens_version" not in config["metadata"]
        and "sae_lens_version" not in config
    ):
        raise ModelNotAvailable(
            f"{CONFIG} of {path.name!r} has metadata without sae_lens_version. SAELens would take it for an "
            "old file and silently forget the hook point. Add the version it was written with."
        )


def _load_release(release: str, sae_id: str, device: str | torch.device | None) -> SAE:
    """Load a SAELens release. Its own loader asks the hub about every file; ours reads the cached files."""
    from sae_lens import SAE
    from sae_lens.loading.pretrained_sae_loaders import get_conversion_loader_name, sae_lens_disk_loader
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    known = get_pretrained_saes_directory()
    if release not in known and "/" not in release:
        raise unknown_name("SAE release", release, known, "A repository of the hub (owner/name) works too.")
    if release in known and sae_id not in known[release].saes_map:
        raise unknown_name(f"SAE in release {release!r}:", sae_id, known[release].saes_map)
    what = f"the SAE {release}/{sae_id}"
    if get_conversion_loader_name(release) != "sae_lens":
        return _converted(release, sae_id, what, device)
    repo, inside = (
        (known[release].repo_id, known[release].saes_map[sae_id]) if release in known else (release, sae_id)
    )
    names = [f"{inside}/{CONFIG}", f"{inside}/{WEIGHTS}"]
    folder = hub.local_copy([repo], [[name] for name in names], names, what, inside)

    def from_folder(
        repo_id: str, folder_name: str, device: str, force_download: bool, cfg_overrides: dict
    ) -> Any:
        return *sae_lens_disk_loader(folder, device, cfg_overrides), None

    return _opened(
        lambda d: SAE.from_pretrained(release, sae_id, device=d, converter=from_folder), what, device
    )


def _converted(release: str, sae_id: str, what: str, device: str | torch.device | None) -> SAE:
    """Load a release in another file format, such as Gemma Scope's, which SAELens downloads and converts.

    Only its converter knows which files it wants. So it is first given the cache alone, and the hub if that is not
    enough.
    """
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled
    from sae_lens import SAE

    def from_pretrained(d: str) -> SAE:
        return SAE.from_pretrained(release, sae_id, device=d, dtype="float32")

    with hub.cache_only():
        try:
            return _opened(from_pretrained, what, device)
        except ModelNotAvailable as error:
            if not isinstance(error.__cause__, LocalEntryNotFoundError | OfflineModeIsEnabled):
                raise
    hub.require_connection(what)
    return _opened(from_pretrained, what, device)


def _opened(open_on: Any, what: str, device: str | torch.device | None) -> SAE:
    """Call SAELens, and turn what it raises into one message."""
    chosen = str(pick_device(device))
    try:
        with warnings.catch_warnings():  # SAELens says how to load the model; load_model has done it
            warnings.filterwarnings("ignore", message="(?s).*model_from_pretrained_kwargs")
            sae = open_on(chosen)
    except Exception as error:
        raise ModelNotAvailable(f"SAELens cannot open {what}: {first_line(error)}") from error
    return sae.eval()
