"""Sparse autoencoders: loading them, running them, measuring them, and checking that they fit a model.

`loading` opens an SAE, `measure` runs it, `metrics` says how good it is on plain tensors, `evaluate` and `facts`
what a model loses when it has to live on it, `preflight` compares it with the model it is about to be used on.
Everything is reachable from here: `from solutions.sae import load_sae, encode, preflight`.
"""

from solutions.errors import PreflightError
from solutions.sae.evaluate import WAYS, SAEMetrics, SpliceLoss, evaluate_sae, run_spliced, splice_loss
from solutions.sae.facts import FactsKept, facts_kept
from solutions.sae.loading import load_sae, load_sae_from_disk
from solutions.sae.measure import decode, encode, reconstruct, reconstruction_error
from solutions.sae.metrics import (
    DENSE,
    DensityHistogram,
    Running,
    cosine,
    dead_latents,
    dense_latents,
    density,
    density_histogram,
    explained_variance,
    fvu,
    l0,
    l1,
    mse,
    variance,
)
from solutions.sae.preflight import PreflightReport, preflight

__all__ = [
    "DENSE",
    "WAYS",
    "DensityHistogram",
    "FactsKept",
    "PreflightError",
    "PreflightReport",
    "Running",
    "SAEMetrics",
    "SpliceLoss",
    "cosine",
    "dead_latents",
    "decode",
    "dense_latents",
    "density",
    "density_histogram",
    "encode",
    "evaluate_sae",
    "explained_variance",
    "facts_kept",
    "fvu",
    "l0",
    "l1",
    "load_sae",
    "load_sae_from_disk",
    "mse",
    "preflight",
    "reconstruct",
    "reconstruction_error",
    "run_spliced",
    "splice_loss",
    "variance",
]
