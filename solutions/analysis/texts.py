"""Texts of the embedded world with the truth for every token, and a few latents on many texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from solutions.analysis.shapes import check_axes
from solutions.data import Tokens, tokenize
from solutions.errors import InputError
from solutions.sae import encode
from solutions.smallworld.corpus import CONCEPTS, SEEDS, documents
from solutions.smallworld.tokenizer import label_tokens

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge


def latent_activations(sae: SAE, acts: Tensor, latents: Sequence[int], rows: int = 16) -> Tensor:
    """A few latents on many texts, without holding all latents at once.

    All latents of 100,000 tokens would take 10 GB for the SAE of GPT-2 small.

    Args:
        sae: a SAELens SAE.
        acts: [texts, positions, d_in] at its hook point.
        latents: their numbers.
        rows: texts encoded at a time.

    Returns:
        [texts, positions, len(latents)].

    Raises:
        InputError: there is no such latent, or activations of another shape.
    """
    check_axes("acts", acts, "texts", "positions", "d_in")
    wanted = list(latents)
    if not wanted or not all(0 <= latent < sae.cfg.d_sae for latent in wanted):
        raise InputError(f"latents: expected numbers from 0 to {sae.cfg.d_sae - 1}, got {wanted}.")
    return torch.cat([encode(sae, part)[..., wanted] for part in acts.split(rows)])


class LabelledTexts(NamedTuple):
    """Texts of the embedded world as tokens, with the concepts that hold on each token."""
    tokens: Tokens               #: a row for each text
    labels: Tensor               #: [texts, positions, concepts] bool; False on BOS and padding
    concepts: tuple[str, ...]    #: their names


def labelled_texts(model: TransformerBridge, n: int, split: str = "test") -> LabelledTexts:
    """The first n texts of the embedded world, tokenised for `model`, with ground truth for every token.

    Any byte-level tokenizer will do, GPT-2's too. Texts longer than the context are cut.

    Args:
        model: a loaded model.
        n: how many.
        split: "train", "probe" or "test".

    Returns:
        The tokens, their labels, and the concepts' names.

    Raises:
        InputError: no texts are asked for, or there is no such split.

    Example:
        >>> some = labelled_texts(model, 3)
        >>> some.labels.shape == (*some.tokens.ids.shape, len(some.concepts))
        True
    """
    if split not in SEEDS or n < 1:
        raise InputError(f"Expected n of 1 or more and a split of {', '.join(SEEDS)}; got {n} and {split!r}.")
    documents_ = list(documents(SEEDS[split], n))
    tokens = tokenize(model, [document.text for document in documents_])
    labels = torch.zeros(*tokens.ids.shape, len(CONCEPTS), dtype=torch.bool)
    for row, document in enumerate(documents_):
        found = torch.from_numpy(label_tokens(document, model.tokenizer).labels)
        place = tokens.content[row].cpu().nonzero().flatten()
        labels[row, place] = found[: len(place)]
    return LabelledTexts(tokens, labels, tuple(concept.name for concept in CONCEPTS))
