"""Families of latents: which belong to one concept, which have replaced another, which two concepts share one.

What a person would call one feature need not be one latent. A wider SAE *splits* latents of a narrower one (`splits`).
A special latent may *absorb* a general one, so that the general one is silent where it should fire (`absorption`).
A concept may need many latents (`union_f1`), and one latent may serve two concepts (`merged`).
"""

from solutions.analysis.families.absorbing import Absorption, absorption, silent_tokens
from solutions.analysis.families.merging import merged, merged_pairs
from solutions.analysis.families.splitting import Splits, splits
from solutions.analysis.families.union import UnionF1, union_f1

__all__ = [
    "Absorption",
    "Splits",
    "UnionF1",
    "absorption",
    "merged",
    "merged_pairs",
    "silent_tokens",
    "splits",
    "union_f1",
]
