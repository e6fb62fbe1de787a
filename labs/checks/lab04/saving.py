"""Exercise 4.13: an SAE on disk in SAELens's format. What was written is opened with SAELens and used."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from labs.checks import errors
from labs.checks.exercise import Exercise, Property, Wrong, normal, whole
from labs.checks.lab04.small_sae import decoded, draw_params, encoded

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
ENTRIES = ("architecture", "d_in", "d_sae", "dtype", "device", "apply_b_dec_to_input", "metadata")
VERSION = "6.54.12"


@dataclass
class Written:
    """What an answer left in its folder, and what SAELens made of it."""

    names: list[str]
    config: dict = field(default_factory=dict)
    weights: dict[str, Tensor] | None = None
    no_json: bool = False
    trouble: str | None = None  # why SAELens does not open it
    hook: str | None = None
    z: Tensor | None = None
    x_hat: Tensor | None = None

    described = "the files of an SAE in the folder (the function itself returns nothing)"


def draw_folder(generator) -> dict:
    """An SAE, its encoder stored as a transposed view half of the time, and what is known of its origin."""
    d_in, d_sae, layer = whole(generator, 4, 7), whole(generator, 16, 24), whole(generator, 0, 9)
    params = draw_params(generator, d_in, d_sae, unit=True)
    if whole(generator, 0, 1):
        params["W_enc"] = params["W_enc"].T.contiguous().T
    return {
        "params": params,
        "metadata": {
            "model_name": f"model-{layer}",
            "hook_name": f"blocks.{layer}.hook_resid_pre",
            "context_size": 32 * whole(generator, 1, 4),
            "prepend_bos": bool(whole(generator, 0, 1)),
        },
        "folder": Path("an empty folder"),
    }


def tokens_for(params: dict) -> Tensor:
    return normal(torch.Generator().manual_seed(0), 20, params["W_enc"].shape[0]) + params["b_dec"]


def write_and_open(answer: Callable, args: dict):
    """Let it write into an empty folder, then read what is there, by hand and with SAELens."""
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base) / "sae"
        folder.mkdir()
        returned = answer(*(args | {"folder": folder}).values())
        if returned is not None and not (folder / CONFIG).exists():
            return returned
        written = Written(sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()))
        _read(folder, written)
        _open(folder, written, tokens_for(args["params"]))
    return written


def _read(folder: Path, written: Written) -> None:
    try:
        config = json.loads((folder / CONFIG).read_text("utf8"))
        written.config = config if isinstance(config, dict) else {}
    except Exception as error:  # whatever was written instead
        written.no_json = True
        written.trouble = errors.one_line(error)
    try:
        written.weights = load_file(folder / WEIGHTS)
    except Exception as error:
        written.trouble = errors.one_line(error)


def _open(folder: Path, written: Written, x: Tensor) -> None:
    if written.weights is None or written.no_json:
        return
    from sae_lens import SAE

    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            sae = SAE.load_from_disk(folder, device="cpu")
            written.hook = getattr(sae.cfg.metadata, "hook_name", None)
            written.z = sae.encode(x)
            written.x_hat = sae.decode(written.z)
    except Exception as error:
        written.trouble = errors.one_line(error)


def write_sae(params: dict, metadata: dict, folder: Path) -> None:
    _write(params, metadata, folder)


def _config(params: dict, about: dict, **changes) -> dict:
    d_in, d_sae = params["W_enc"].shape
    config = {
        "architecture": "standard",
        "d_in": d_in,
        "d_sae": d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": about | {"sae_lens_version": VERSION},
    }
    return {name: value for name, value in (config | changes).items() if value is not None}


def _write(params, about, folder, *, names=(CONFIG, WEIGHTS), weights=None, **changes) -> None:
    weights = params if weights is None else weights
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / names[1])
    (folder / names[0]).write_text(json.dumps(_config(params, about, **changes)))


def _with_torch(params, metadata, folder) -> None:
    _write(params, metadata, folder)
    torch.save(params, folder / WEIGHTS)


def _as_python(params, metadata, folder) -> None:
    _write(params, metadata, folder)
    (folder / CONFIG).write_text(str(_config(params, metadata)))


def _weights(output: Written) -> dict[str, Tensor]:
    return output.weights or {}


def _shape_of(name: str, output: Written) -> list[int]:
    return list(_weights(output).get(name, torch.empty(0)).shape)


def _opens(answer, args, output: Written) -> str | None:
    if output.trouble is None:
        return None
    missing = [f"`{name}`" for name in ENTRIES if name not in output.config]
    lacks = f"`cfg.json` has no {', '.join(missing)}. " if missing else ""
    return f"{lacks}SAELens says: {output.trouble}."


def _same_code(answer, args, output: Written) -> str | None:
    right = encoded(args["params"], tokens_for(args["params"]))
    if output.z.shape != right.shape:
        return f"Yours gives latents of shape {list(output.z.shape)}, not {list(right.shape)}."
    gap = float((output.z - right).abs().max())
    return None if gap < 1e-4 else f"Opened there, yours encodes differently: by up to {gap:.3g}."


def _same_copy(answer, args, output: Written) -> str | None:
    params = args["params"]
    right = decoded(params, encoded(params, tokens_for(params)))
    gap = float((output.x_hat - right).abs().max())
    return None if gap < 1e-4 else f"Opened there, yours decodes differently: by up to {gap:.3g}."


def _remembers(answer, args, output: Written) -> str | None:
    wanted, found = args["metadata"], output.config.get("metadata", {})
    lost = [name for name, value in wanted.items() if found.get(name) != value]
    return None if not lost else f"In yours {' and '.join(map(repr, lost))} is missing or changed."


SAVE = Exercise(
    number="4.13",
    name="write_sae",
    returns="None",
    draw=draw_folder,
    reference=write_sae,
    run=write_and_open,
    unique=False,
    cases=6,
    wrong=(
        Wrong(
            "nothing written",
            lambda params, metadata, folder: None,
            "The folder is empty afterwards. Two files belong into it: `folder / 'cfg.json'` and `folder / "
            "'sae_weights.safetensors'`.",
            recognise=lambda answer, args, output: not output.names,
        ),
        Wrong(
            "other file names",
            lambda params, metadata, folder: _write(
                params, metadata, folder, names=("config.json", "weights.safetensors")
            ),
            "The files have other names than SAELens looks for. They are called `cfg.json` and "
            "`sae_weights.safetensors`.",
            recognise=lambda answer, args, output: not {CONFIG, WEIGHTS} <= set(output.names),
        ),
        Wrong(
            "not JSON",
            _as_python,
            "`cfg.json` is not JSON. `str(...)` of a dict writes Python: single quotes, `True`, `None`. Use "
            "`json.dumps(config)`.",
            recognise=lambda answer, args, output: CONFIG in output.names and output.no_json,
        ),
        Wrong(
            "torch.save",
            _with_torch,
            "The weights are not in safetensors format. `torch.save` writes a pickle, and opening a "
            "pickle from a stranger can run their code. Use `save_file` from `safetensors.torch`.",
            recognise=lambda answer, args, output: output.weights is None and CONFIG in output.names,
        ),
        Wrong(
            "other names for the weights",
            lambda params, metadata, folder: _write(
                params, metadata, folder, weights={f"sae.{name}": w for name, w in params.items()}
            ),
            "The weights have other names than SAELens expects: `W_enc`, `b_enc`, `W_dec` and `b_dec`, as "
            "in `params`.",
            recognise=lambda answer, args, output: (
                set(_weights(output)) != {"W_enc", "b_enc", "W_dec", "b_dec"}
            ),
        ),
        Wrong(
            "matrices transposed",
            lambda params, metadata, folder: _write(
                params,
                metadata,
                folder,
                weights={name: w.T if w.ndim == 2 else w for name, w in params.items()},
            ),
            "Your matrices lie the other way round, as `torch.nn.Linear` has them. SAELens wants `W_enc` "
            "as [d_in, d_sae] and `W_dec` as [d_sae, d_in]: as they are.",
            recognise=lambda answer, args, output: (
                _shape_of("W_enc", output) == list(args["params"]["W_dec"].shape)
            ),
        ),
        Wrong(
            "architecture by our name",
            lambda params, metadata, folder: _write(params, metadata, folder, architecture="relu"),
            'SAELens has no architecture of that name. A plain ReLU SAE is called `"standard"` there.',
            recognise=lambda answer, args, output: output.config.get("architecture") != "standard",
        ),
        Wrong(
            "widths swapped",
            lambda params, metadata, folder: _write(
                params, metadata, folder, d_in=params["W_enc"].shape[1], d_sae=params["W_enc"].shape[0]
            ),
            "`d_in` and `d_sae` do not fit the weights: `W_enc` is [d_in, d_sae].",
            recognise=lambda answer, args, output: (
                [output.config.get("d_in"), output.config.get("d_sae")] != _shape_of("W_enc", output)
            ),
        ),
        Wrong(
            "b_dec not subtracted",
            lambda params, metadata, folder: _write(params, metadata, folder, apply_b_dec_to_input=False),
            "`apply_b_dec_to_input` is not `True`. Ours takes `b_dec` off before it encodes, and SAELens has to "
            "know. Write Python's `True`, without quotes; `json.dumps` turns it into JSON.",
            recognise=lambda answer, args, output: (
                output.config.get("apply_b_dec_to_input", True) is not True
            ),
        ),
        Wrong(
            "normalised",
            lambda params, metadata, folder: _write(
                params, metadata, folder, normalize_activations="expected_average_only_in"
            ),
            "SAELens must not normalise what it is given: our scale is folded into the weights already. Write "
            '`"normalize_activations": "none"`, with the word `"none"` in quotes.',
            recognise=lambda answer, args, output: (
                output.config.get("normalize_activations", "none") != "none"
            ),
        ),
        Wrong(
            "metadata left out",
            lambda params, metadata, folder: _write(params, metadata, folder, metadata=None),
            "Nobody can tell what this SAE was trained on: `metadata` is missing. A hook name forgotten "
            "is a wrong hook tomorrow.",
            recognise=lambda answer, args, output: (
                "metadata" not in output.config and "hook_name" not in output.config
            ),
        ),
        Wrong(
            "metadata at the top",
            lambda params, metadata, folder: _write(
                params, metadata, folder, metadata=None, sae_lens_version=VERSION, **metadata
            ),
            "Hook, model and context stand at the top of `cfg.json`. They belong into a dict of their own under "
            '`"metadata"`.',
            recognise=lambda answer, args, output: "metadata" not in output.config,
        ),
        Wrong(
            "no version",
            lambda params, metadata, folder: _write(params, metadata, folder, metadata=dict(metadata)),
            "There is no `sae_lens_version` in the metadata. SAELens then takes the file for an old one, "
            "whose metadata it does not read, and forgets the hook name without a word.",
            recognise=lambda answer, args, output: (
                not {"sae_lens_version"} & (set(output.config) | set(output.config.get("metadata", {})))
            ),
        ),
    ),
    properties=(
        Property("SAELens must be able to open the folder.", _opens),
        Property('The metadata must be kept, under `"metadata"`.', _remembers),
        Property("Opened in SAELens, the SAE must give the same latents.", _same_code),
        Property("Opened in SAELens, the SAE must give the same reconstruction.", _same_copy),
    ),
    look_at="the two files: `save_file(dict_of_tensors, folder / 'sae_weights.safetensors')`, and "
    "`json.dumps` for `cfg.json`.",
    saw="an SAE that others can open. The weights are the smaller half of it: without hook, model and "
    "scale they are numbers.",
)

EXERCISES = (SAVE,)
