"""What an index was made from, as checksums, and what to say when it was made from something else."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from solutions.analysis.index.layout import checksum_of
from solutions.errors import InputError

if TYPE_CHECKING:
    from sae_lens import SAE


#: What makes an SAE of the same weights another one: with a larger k, say, more latents are active.
SETTINGS = ("k", "apply_b_dec_to_input", "normalize_activations", "rescale_acts_by_decoder_norm")


def store_identity(store: Any) -> dict[str, Any]:
    """What ties an index to its store: a checksum over the store's manifest, which has one for every shard."""
    return {"checksum": checksum_of(store.manifest), "n_tokens": int(store.n_tokens)}


def sae_identity(sae: SAE) -> dict[str, Any]:
    """What ties an index to its SAE: its shape and a checksum over its parameters and settings."""
    digest = hashlib.sha256()
    for name, value in sorted(sae.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    digest.update(repr([(name, getattr(sae.cfg, name, None)) for name in SETTINGS]).encode())
    architecture = getattr(sae.cfg, "architecture", None)
    name = architecture() if callable(architecture) else str(architecture)
    return {"checksum": digest.hexdigest(), "architecture": name, "d_in": sae.cfg.d_in, "d_sae": sae.cfg.d_sae}


def vocabulary_identity(vocabulary: Sequence[str] | None) -> str | None:
    """A checksum over the tokens' texts; None for no vocabulary."""
    return None if vocabulary is None else checksum_of(list(vocabulary))


def check_origin(path: Path, manifest: Mapping[str, Any], origin: Mapping[str, Any]) -> None:
    """Refuse an index that was made from something else, and say what differs.

    origin: what is wanted, any part of {hook, store, sae, vocabulary, logits} as the manifest has it.
    """
    for name, wanted in origin.items():
        found = manifest[name]
        if found == wanted:
            continue
        if isinstance(wanted, Mapping):
            parts = [part for part in wanted if wanted[part] != found.get(part)]
            told = ", ".join(f"{part} {_short(found.get(part))} instead of {_short(wanted[part])}" for part in parts)
        else:
            told = f"{_short(found)} instead of {_short(wanted)}"
        what = {"store": "another store", "sae": "another SAE", "hook": "another hook point"}
        raise InputError(f"the index {path} belongs to {what.get(name, 'another ' + name)} ({told}). Take the one it "
                         "was made from, or build at another path; build_index(…, overwrite=True) replaces it.")


def _short(value: Any) -> str:
    text = str(value)
    return text[:12] + "…" if len(text) == 64 else text
