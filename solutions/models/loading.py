"""Loading a language model the way its SAE expects it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from solutions.errors import (
    InputError,
    ModelNotAvailable,
    first_line,
)
from solutions.targets import PROCESSING_STEPS, Target, check_target

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


def pick_device(device: str | torch.device | None = None) -> torch.device:
    """The device asked for, if this machine has it; by default the GPU where there is one, else the CPU.

    Args:
        device: "cpu", "cuda", "cuda:1", "mps", …, or None.

    Returns:
        The device.

    Raises:
        InputError: this machine has no such device, or models cannot be run on it.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"{device!r} is not a device. Use 'cpu', 'cuda', 'cuda:1', … or 'mps'.") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise InputError(f"no {chosen} here: torch finds {torch.cuda.device_count()} GPUs. Use device='cpu'.")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise InputError("no mps device here. Use device='cpu'.")
    if chosen.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"models run on 'cpu', 'cuda' or 'mps', got {str(chosen)!r}.")
    return chosen


def load_model(target: Target, device: str | torch.device | None = None) -> TransformerBridge:
    """Load the target's model in float32, processed the way its SAE expects.

    Args:
        target: what is being studied.
        device: where to put it; by default the GPU where there is one, else the CPU.

    Returns:
        The model, ready to be read. `model.target` remembers what it was loaded as.

    Raises:
        InputError: `target` is the name of one, or this machine has no such device.

    Example:
        >>> model = load_model(get_target("smallworld"), "cpu")
        >>> model.target.name
        'smallworld'
    """
    check_target(target)
    device = pick_device(device)
    folder = _model_folder(target)

    from transformer_lens.model_bridge import TransformerBridge
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model = TransformerBridge.boot_transformers(str(folder), device=device, dtype=torch.float32)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelNotAvailable(
            f"{target.model!r} is not a model TransformerLens can open: {first_line(error)}"
        ) from error
    finally:
        if bars:
            logging.enable_progress_bar()
    if any(target.processing.values()):
        model.enable_compatibility_mode(disable_warnings=True, **_all_steps(target.processing))
    model.cfg.model_name = Path(target.model).name if target.model_folder else target.model
    model.target = target
    return model.eval()


def _all_steps(processing: Mapping[str, bool]) -> dict[str, bool]:
    """Every processing step, on or off: TransformerLens switches on whatever is left unsaid."""
    return {step: bool(processing.get(step, False)) for step in PROCESSING_STEPS}


#: Files that hold a model's weights. A pickle can run code when it is opened, so none ever is.
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def _model_folder(target: Target) -> Path:
    """The folder with the target's model, checked: embedded, the reader's own, or the hub's cache."""
    from solutions import EMBEDDED_TARGETS, hub

    what = f"the model {target.model!r}"
    if target.model in EMBEDDED_TARGETS:
        return hub.embedded(target.model)
    if (folder := target.model_folder) is not None:
        if not (folder / "config.json").is_file():
            raise ModelNotAvailable(f"no model in {folder}: a Hugging Face folder has a config.json.")
        if not any((folder / name).is_file() for name in WEIGHTS):
            raise ModelNotAvailable(
                f"no weights in {folder}: expected {' or '.join(WEIGHTS)}. Pickles are not loaded."
            )
        hub.check_files(folder, what)
        return folder
    return hub.local_copy(
        repos=_hub_names(target.model),
        wanted=(
            ["config.json"],
            WEIGHTS,
            ["tokenizer.json", "vocab.json+merges.txt", "tokenizer.model"],
        ),
        patterns=("*.json", "*.txt", "*.safetensors", "tokenizer.model"),
        what=what,
    )


def _hub_names(name: str) -> list[str]:
    """The names a model goes by on the hub, the official one first: gpt2-small is openai-community/gpt2, or gpt2."""
    name = {"gpt2-small": "gpt2"}.get(name, name)
    if "/" not in name and not name.startswith("gpt2"):
        from transformer_lens.supported_models import MODEL_ALIASES

        name = next((official for official, aliases in MODEL_ALIASES.items() if name in aliases), name)
    return [name, f"openai-community/{name}"] if name.startswith("gpt2") else [name]
