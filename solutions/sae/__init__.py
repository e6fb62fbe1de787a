"""Sparse autoencoders: loading them, running them, and checking that they fit a model.

`loading` opens an SAE, `measure` runs it and says how good it is, `preflight` compares it with the model it
is about to be used on. Everything is reachable from here: `from solutions.sae import load_sae, encode,
preflight`.
"""

from solutions.errors import PreflightError
from solutions.sae.loading import load_sae, load_sae_from_disk
from solutions.sae.measure import decode, encode, explained_variance, l0
from solutions.sae.preflight import PreflightReport, preflight

__all__ = [
    "PreflightError",
    "PreflightReport",
    "decode",
    "encode",
    "explained_variance",
    "l0",
    "load_sae",
    "load_sae_from_disk",
    "preflight",
]
