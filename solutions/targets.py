"""A target says what is being studied: a model, a place in it, an SAE trained there, and text to read.

Nothing outside this file knows which target it is working on: shapes, layer numbers and names all come from
here. One environment variable, `MONOSEMANTIC_TARGET`, switches every notebook. It holds a known name or the
path of a JSON file that describes a target of your own (the fields are those of `Target`).
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from solutions import EMBEDDED_TARGETS, TARGET_VARIABLE
from solutions.errors import InputError, check_count, unknown_name, whole_number
from solutions.smallworld.artifacts import ARTIFACTS

__all__ = [
    "CENTRED_WRITING_WEIGHTS",
    "PROCESSING_STEPS",
    "TARGETS",
    "Target",
    "check_latent",
    "check_target",
    "get_target",
    "neuronpedia_url",
]

#: Weight processing a target may ask for: arguments of `TransformerBridge.enable_compatibility_mode`.
PROCESSING_STEPS = ("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases")


@dataclass(frozen=True)
class Target:
    """One thing to study.

    Attributes:
        name: what the reader calls it.
        model: the name of an embedded model, a Hugging Face folder, or a Hugging Face hub name.
        hook: the hook point whose activations the SAE was trained on.
        sae_release: the name of an embedded model, a folder, or a SAELens release.
        sae_id: the SAE's name within its release (a sub-folder, when the release is a folder).
        d_in: width of the activations, the SAE's input.
        d_sae: number of latents.
        processing: weight processing the SAE expects (see `PROCESSING_STEPS`); empty means the weights as
            published.
        prepend_bos: whether every text begins with the beginning-of-sequence token.
        context_size: longest text, in tokens, BOS included.
        text: "smallworld" for the embedded text, the path of a file or folder of texts, else a Hugging Face dataset
            with a "text" column.
        neuronpedia_id: the SAE's address on Neuronpedia, or None when it is not there.
        wrong_hook: another hook point of the same layer and width, for the bug hunt of chapter 1.
        description: one line for people.
    """

    name: str
    model: str
    hook: str
    sae_release: str
    sae_id: str
    d_in: int
    d_sae: int
    processing: Mapping[str, bool] = field(default_factory=dict, hash=False)
    prepend_bos: bool = True
    context_size: int = 128
    text: str = "smallworld"
    neuronpedia_id: str | None = None
    wrong_hook: str | None = None
    description: str = ""

    def __post_init__(self) -> None:
        for name in ("name", "model", "hook", "sae_release", "sae_id", "text"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise InputError(f"a target's {name!r} must be a non-empty string, got {value!r}.")
        for name in ("d_in", "d_sae", "context_size"):
            check_count(getattr(self, name), f"a target's {name!r}")
        if not isinstance(self.processing, Mapping):
            raise InputError(
                f"a target's 'processing' must be a mapping, got {type(self.processing).__name__}."
            )
        for step, value in self.processing.items():
            if step not in PROCESSING_STEPS:
                raise unknown_name("processing step", step, PROCESSING_STEPS)
            if not isinstance(value, bool):
                raise InputError(f"processing step {step!r} must be true or false, got {value!r}.")

    @property
    def layer(self) -> int:
        """The block the hook point belongs to; -1 when it belongs to none (e.g. the embedding)."""
        parts = self.hook.split(".")
        return int(parts[1]) if parts[0] == "blocks" and len(parts) > 1 and parts[1].isdigit() else -1

    @property
    def model_folder(self) -> Path | None:
        """The folder that holds the model, or None when it comes from the hub."""
        return _folder(self.model, ARTIFACTS / self.model)

    @property
    def sae_folder(self) -> Path | None:
        """The folder that holds the SAE, or None when it comes from the hub."""
        root = _folder(self.sae_release, ARTIFACTS / "saes" / self.sae_release)
        return None if root is None else root / self.sae_id

    @property
    def is_embedded(self) -> bool:
        """True when model and SAE are part of this repository."""
        return self.model in EMBEDDED_TARGETS and self.sae_release in EMBEDDED_TARGETS

    @property
    def is_local(self) -> bool:
        """True when neither model, nor SAE, nor text ever needs the network."""
        return self.model_folder is not None and self.sae_folder is not None and self.text == "smallworld"

    @classmethod
    def from_json(cls, path: str | os.PathLike[str]) -> Target:
        """Read a target from a JSON file whose keys are the fields above.

        Args:
            path: the file.

        Returns:
            The target.

        Raises:
            InputError: there is no such file, it is not JSON, a field is unknown, missing or wrong. The
                message names it.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"no target description at {path}. Known targets: {', '.join(TARGETS)}.")
        try:
            given = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{path.name} is not valid JSON ({error}).") from error
        if not isinstance(given, dict):
            raise InputError(
                f"{path.name} must hold a JSON object of target fields, got {type(given).__name__}."
            )
        fields = {f.name: f for f in dataclasses.fields(cls)}
        for key in given:
            if key not in fields:
                raise unknown_name(f"target field in {path.name}:", key, fields)
        missing = [n for n, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING]
        missing = [n for n in missing if n not in given]
        if missing:
            raise InputError(f"{path.name} does not say: {', '.join(missing)}.")
        return cls(**given)


def _folder(name: str, embedded: Path) -> Path | None:
    """Where `name` lies on this machine: an embedded artefact, the reader's folder, or None (a hub name)."""
    if name in EMBEDDED_TARGETS:
        return embedded
    looks_like_a_path = name.startswith((".", "/", "~")) or Path(name).expanduser().is_dir()
    return Path(name).expanduser() if looks_like_a_path else None


#: What `gpt2-small-res-jb` was trained on: writing weights centred, nothing else (SAELens registry).
CENTRED_WRITING_WEIGHTS = {
    "fold_ln": False,
    "center_writing_weights": True,
    "center_unembed": False,
    "fold_value_biases": False,
}


def _embedded(name: str, layer: int, d_in: int, description: str) -> Target:
    """An embedded model and its TopK SAE of 8 latents per dimension, on what goes into a block in the middle."""
    block = f"blocks.{layer}"
    return Target(
        name=name,
        model=name,
        hook=f"{block}.hook_resid_pre",
        sae_release=name,
        sae_id=f"{block}.hook_resid_pre.topk.8x",
        d_in=d_in,
        d_sae=8 * d_in,
        wrong_hook=f"{block}.hook_mlp_out",
        description=description,
    )


#: The targets that have a name.
TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        _embedded("smallworld", 2, 128, "the embedded GPT-2-shaped model and its TopK SAE, 8 latents per dimension"),
        _embedded("smallworld-llama", 2, 128, "the same language learnt by a Llama-shaped model"),
        _embedded("smallworld-mini", 1, 64, "the same language learnt by a model half as wide and half as deep"),
        _embedded("smallworld-mini-2", 1, 64, "the mini model trained once more from another seed, as a control"),
        Target(
            name="gpt2-small",
            model="gpt2",
            hook="blocks.6.hook_resid_pre",
            sae_release="gpt2-small-res-jb",
            sae_id="blocks.6.hook_resid_pre",
            d_in=768,
            d_sae=24576,
            processing=CENTRED_WRITING_WEIGHTS,
            text="NeelNanda/c4-10k",
            neuronpedia_id="gpt2-small/6-res-jb",
            wrong_hook="blocks.6.hook_mlp_out",
            description="GPT-2 small and Joseph Bloom's residual-stream SAE, layer 6",
        ),
    )
}


def get_target(name: str | os.PathLike[str] | Target | None = None) -> Target:
    """The target called `name`; without a name, the one `MONOSEMANTIC_TARGET` asks for, else `smallworld`.

    Args:
        name: a known target, the path of a JSON description, or a `Target` (returned as it is).

    Returns:
        The target.

    Raises:
        InputError: for an unknown name; the message lists the known ones.

    Example:
        >>> get_target("smallworld").hook
        'blocks.2.hook_resid_pre'
        >>> get_target("smallwurld")
        Traceback (most recent call last):
            ...
        solutions.errors.InputError: unknown target 'smallwurld'. Did you mean 'smallworld' or ...
    """
    if isinstance(name, Target):
        return name
    if name is None:
        name = os.environ.get(TARGET_VARIABLE) or "smallworld"
    if not isinstance(name, str | os.PathLike):
        raise InputError(f"a target is a name, a path or a Target, got {type(name).__name__}.")
    name = os.fspath(name)
    if name in TARGETS:
        return TARGETS[name]
    if name.endswith(".json"):
        return Target.from_json(name)
    raise unknown_name("target", name, TARGETS, "Or give the path of a JSON file that describes one.")


def check_target(target: object) -> Target:
    """Return `target` if it is a target, not the name of one.

    Args:
        target: what the caller was given.

    Returns:
        The target, as it was.

    Raises:
        InputError: it is something else.
    """
    if not isinstance(target, Target):
        raise InputError(
            f"target must be a Target (see get_target), got {type(target).__name__}: {target!r:.80}."
        )
    return target


def neuronpedia_url(target: Target, latent: int, embed: bool = False) -> str | None:
    """The address of a latent's page on Neuronpedia, or None when this SAE is not there.

    Args:
        target: what is being studied.
        latent: the latent's number, 0 to d_sae - 1.
        embed: True gives the address made for an iframe: no page furniture around the charts.

    Returns:
        The address, or None.

    Raises:
        InputError: the SAE has no latent of that number.

    Example:
        >>> neuronpedia_url(get_target("gpt2-small"), 10399)
        'https://www.neuronpedia.org/gpt2-small/6-res-jb/10399'
    """
    latent = check_latent(target, latent)
    if target.neuronpedia_id is None:
        return None
    url = f"https://www.neuronpedia.org/{target.neuronpedia_id}/{latent}"
    return url + "?embed=true&embedexplanation=true&embedplots=true&embedtest=true" if embed else url


def check_latent(target: Target, latent: int) -> int:
    """Return `latent` if the target's SAE has one of that number.

    Args:
        target: what is being studied.
        latent: the number the caller was given.

    Returns:
        The number as a Python int.

    Raises:
        InputError: it is no whole number from 0 to d_sae - 1.
    """
    number = whole_number(latent)
    if number is None or not 0 <= number < check_target(target).d_sae:
        raise InputError(f"latent must be a whole number from 0 to {target.d_sae - 1}, got {latent!r}.")
    return number
