"""To SAELens and back: what is trained here opens there, and what was trained there can be trained further here.

| ours                  | opens in SAELens as                                                         |
|-----------------------|-----------------------------------------------------------------------------|
| relu                  | `standard`; tied weights are written out as two matrices                    |
| topk                  | `topk`                                                                      |
| batchtopk, matryoshka | `jumprelu`: one threshold for all latents. SAELens saves its own so too     |
| jumprelu, gated       | `jumprelu`, `gated`                                                         |
| transcoder            | `transcoder` (from relu) or `jumprelu_transcoder`. SAELens has no TopK or   |
|                       | gated transcoder: those need d_out = d_in, and open as the SAE of that name |

What SAELens has no place for (the settings, and that a JumpReLU was a BatchTopK) goes into the metadata, under
`make_sae`, and `from_sae_lens` reads it there.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save
from torch import Tensor

from solutions.data.store_files import DiskFull
from solutions.errors import InputError, check_count, check_text
from solutions.sae.architectures.base import TrainableSAE, check_finite, check_switch
from solutions.sae.loading import CONFIG, WEIGHTS

if TYPE_CHECKING:
    from sae_lens import SAE

#: SAELens's name for each architecture, as an SAE and, where there is one, as a transcoder.
SAVED_AS = {
    "relu": ("standard", "transcoder"),
    "topk": ("topk", None),
    "batchtopk": ("jumprelu", "jumprelu_transcoder"),
    "jumprelu": ("jumprelu", "jumprelu_transcoder"),
    "gated": ("gated", None),
    "matryoshka": ("jumprelu", "jumprelu_transcoder"),
}

#: Those whose threshold is a single number.
ONE_THRESHOLD = ("batchtopk", "matryoshka")

#: And back. SAELens has more than these: skip transcoders, for one, add a matrix that ours do not have.
OPENED_AS = {
    "standard": "relu",
    "topk": "topk",
    "jumprelu": "jumprelu",
    "gated": "gated",
    "transcoder": "relu",
    "jumprelu_transcoder": "jumprelu",
}


# ---- out


def to_sae_lens(sae: TrainableSAE) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """An SAE in SAELens's format.

    Returns:
        What goes into cfg.json, its metadata still without a hook point; and the weights, float32 on the CPU.

    Raises:
        InputError: SAELens has no class for it, or a weight is not finite.
    """
    plain, transcoder = SAVED_AS[sae.architecture]
    if sae.d_out != sae.d_in and transcoder is None:
        raise InputError(no_transcoder(sae.architecture))
    as_transcoder = sae.transcoder and transcoder is not None
    names = ["W_enc", *sae.per_latent, "W_dec", "b_dec"]
    weights = {name: getattr(sae, name).detach().float().cpu().contiguous() for name in names}
    if sae.architecture in ONE_THRESHOLD:
        weights["threshold"] = torch.full((sae.d_sae,), float(sae.threshold))
    for name, weight in weights.items():
        check_finite(weight, name)

    config = {
        "architecture": transcoder if as_transcoder else plain,
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.subtract_b_dec,
        "normalize_activations": "none",  # the scale is folded in
        "reshape_activations": "none",
        # Without its version SAELens takes a file for an old one, and forgets the rest of the metadata.
        "metadata": {"sae_lens_version": version("sae_lens"), "sae_lens_training_version": None},
    }
    if as_transcoder:
        config["d_out"] = sae.d_out
    if sae.architecture == "topk":
        config |= {"k": sae.k, "rescale_acts_by_decoder_norm": False}
    config["metadata"]["make_sae"] = sae.recipe()
    return config, weights


def no_transcoder(architecture: str) -> str:
    """Why a transcoder of this architecture and of two widths is refused."""
    return (
        f"SAELens has no {architecture} transcoder, so one with d_out other than d_in could not be saved. "
        "Use relu, jumprelu, batchtopk or matryoshka."
    )


def save_sae(
    sae: TrainableSAE,
    path: str | os.PathLike[str],
    *,
    hook: str,
    model_name: str,
    context_size: int,
    prepend_bos: bool,
    overwrite: bool = False,
    **metadata: Any,
) -> Path:
    """Save an SAE as SAELens does: a folder with cfg.json and sae_weights.safetensors.

    The folder appears whole or not at all. `load_sae_from_disk` opens it, and so does SAELens.

    Args:
        sae: an SAE in raw units (`fold_scale` has been called if it was trained on scaled activations).
        path: the folder to make.
        hook: the hook point that it reads, e.g. "blocks.2.hook_resid_pre".
        model_name: the model whose activations it was trained on.
        context_size: tokens per text in training.
        prepend_bos: whether those texts began with a BOS token.
        overwrite: replace an SAE that is there already.
        **metadata: anything else to remember, ready for JSON: `dataset_path`, a transcoder's `hook_name_out`, …

    Returns:
        The folder.

    Raises:
        InputError: there is something else in the folder, the SAE is not finite, or metadata is not JSON.
        DiskFull: no room; nothing of it is left.
    """
    path = Path(path)
    about = {
        "model_name": check_text(model_name, "model_name"),
        "hook_name": check_text(hook, "hook"),
        "hook_head_index": None,
        "context_size": check_count(context_size, "context_size"),
        "prepend_bos": check_switch(prepend_bos, "prepend_bos"),
        "model_class_name": "HookedTransformer",
        "model_from_pretrained_kwargs": {},
        "seqpos_slice": [None],
    }
    config, weights = to_sae_lens(sae)
    config["metadata"] |= about | metadata
    try:
        text = json.dumps(config, indent=1, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise InputError(f"metadata must be ready for JSON: {error}.") from error
    check_free(path, overwrite)
    write_folder(path, {CONFIG: text.encode(), WEIGHTS: save(weights)})
    return path


def check_free(path: Path, overwrite: bool) -> None:
    """Refuse a place that holds an SAE already, unless it may be replaced, or that holds anything else."""
    if not path.exists():
        return
    found = {p.name for p in path.iterdir()} if path.is_dir() else {"a file"}
    if found - {CONFIG, WEIGHTS}:
        raise InputError(f"{path} is not an SAE's folder: it holds {', '.join(sorted(found)[:3])}. Name another.")
    if found and not overwrite:
        raise InputError(f"there is an SAE in {path} already. Pass overwrite=True, or name another folder.")


def write_folder(path: Path, files: dict[str, bytes]) -> None:
    """Make the folder `path` with these files, so that it appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder: a renaming is atomic only within one file system.
    part = Path(tempfile.mkdtemp(prefix=f".{path.name}.part-", dir=path.parent))
    try:
        new, old = part / "new", part / "old"
        new.mkdir()
        for name, data in files.items():
            with open(new / name, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        if path.exists():
            os.replace(path, old)
        os.replace(new, path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            size = sum(map(len, files.values()))
            raise DiskFull(f"the disk is full: no room for the SAE ({size:,} bytes) in {path}.") from error
        raise
    finally:
        if (part / "old").exists() and not path.exists():  # pragma: no cover - between two renamings
            with contextlib.suppress(OSError):
                os.replace(part / "old", path)
        shutil.rmtree(part, ignore_errors=True)


def as_sae_lens(sae: TrainableSAE, **metadata: Any) -> SAE:
    """The same SAE as an object of SAELens's, without a detour over the disk: for `preflight`, `encode`, ….

    Args:
        sae: an SAE in raw units.
        **metadata: what SAELens should know of it: `hook_name`, `model_name`, `prepend_bos`, `context_size`, ….

    Returns:
        A SAELens SAE of inference, on the same device.
    """
    from sae_lens import SAE

    config, weights = to_sae_lens(sae)
    config["metadata"] |= metadata
    opened = SAE.from_dict(config)
    opened.load_state_dict(weights)
    return opened.to(device=str(sae.W_dec.device)).eval()


# ---- in


@torch.no_grad()
def from_sae_lens(sae: SAE, **hyper: Any) -> TrainableSAE:
    """An SAE of SAELens's as one of ours, with the same encodings, to be studied or trained further.

    Where it was saved by `save_sae`, it comes back as what it was, a BatchTopK as a BatchTopK. Otherwise the
    settings of its training are not known to the weights: name the ones you want (`l1=…`, `bandwidth=…`), and
    `architecture="batchtopk", k=…` for a JumpReLU that was one. Decoder rows of other norms than 1 stay as
    they are, and `unit_norm` is off then.

    Args:
        sae: what `load_sae` or `load_sae_from_disk` gave.
        **hyper: settings, over those that it was trained with.

    Returns:
        An SAE of ours, in raw units, on the same device.

    Raises:
        InputError: an architecture that has no counterpart here, or a normalisation that would be lost.
    """
    from solutions.sae.architectures import make_sae

    config = check_opened(sae)
    weights = {name: weight.detach().float().cpu() for name, weight in sae.state_dict().items()}
    if getattr(config, "rescale_acts_by_decoder_norm", False):
        # It multiplies pre-activations by the decoder's norms and divides again: written once, it is this.
        norms = weights["W_dec"].norm(dim=1)
        weights["W_enc"], weights["b_enc"] = weights["W_enc"] * norms, weights["b_enc"] * norms
        weights["W_dec"] = weights["W_dec"] / norms[:, None]
    ours = make_sae(**recipe_of(sae, weights, hyper))

    if ours.architecture in ONE_THRESHOLD:
        ours.set_threshold(float(weights.pop("threshold")[0]))
    for name, weight in weights.items():
        getattr(ours, name).copy_(weight)
    return ours.to(sae.W_dec.device)


def check_opened(sae: object) -> Any:
    """Return the SAE's configuration, if ours can do what it says."""
    config = getattr(sae, "cfg", None)
    if config is None or not hasattr(config, "architecture"):
        raise InputError(f"sae must be a SAELens SAE, got {type(sae).__name__}.")
    if hasattr(sae, "training_forward_pass"):
        raise InputError(
            "this is SAELens's SAE as it is in training. Call its save_inference_model(folder), "
            "and open that with load_sae_from_disk(folder)."
        )
    if config.architecture() not in OPENED_AS:
        raise InputError(
            f"SAELens's {config.architecture()!r} has no counterpart here. Known: {', '.join(OPENED_AS)}."
        )
    # "expected_average_only_in" is done to the activations before they reach the SAE, in training.
    if config.normalize_activations not in ("none", "expected_average_only_in"):
        raise InputError(
            f"this SAE normalises its input ({config.normalize_activations}), which ours do not: "
            "the encodings would differ. Use it through SAELens."
        )
    if config.reshape_activations != "none":
        raise InputError(f"this SAE reshapes its input ({config.reshape_activations}). Use it through SAELens.")
    return config


def recipe_of(sae: SAE, weights: dict[str, Tensor], hyper: dict[str, Any]) -> dict[str, Any]:
    """What `make_sae` needs to make the SAE's counterpart: what was asked for, else as its metadata or weights say."""
    config, theirs = sae.cfg, sae.cfg.architecture()
    saved = config.metadata.make_sae
    saved = saved if isinstance(saved, dict) and theirs in SAVED_AS.get(saved.get("architecture"), ()) else {}
    wanted = hyper.get("architecture", saved.get("architecture", OPENED_AS[theirs]))
    if theirs not in SAVED_AS.get(wanted, ()):
        fits = [name for name, names in SAVED_AS.items() if theirs in names]
        raise InputError(
            f"SAELens's {theirs!r} cannot become {wanted!r}: the encodings would differ. It can be: {', '.join(fits)}."
        )
    if wanted in ONE_THRESHOLD and weights["threshold"].unique().numel() != 1:
        raise InputError(f"this SAE has a threshold for each latent, and a {wanted} has one for all. Take 'jumprelu'.")

    recipe = saved if wanted == saved.get("architecture") else {}
    a_transcoder = "transcoder" in theirs or recipe.get("d_out") is not None
    recipe = recipe | {
        "architecture": wanted,
        "d_in": config.d_in,
        "d_sae": config.d_sae,
        "d_out": weights["W_dec"].shape[1] if a_transcoder else None,
        "subtract_b_dec": bool(config.apply_b_dec_to_input),
        "unit_norm": recipe.get("unit_norm", True) and bool((weights["W_dec"].norm(dim=1) - 1).abs().max() < 1e-3),
    }
    if theirs == "topk":
        recipe["k"] = config.k
    if recipe.get("tied") and not torch.equal(weights["W_enc"], weights["W_dec"].T):
        recipe["tied"] = False  # somebody has changed one of the two since
    return recipe | hyper
