"""What the SAE leaves out, and whether it still means something: linear probes on the reconstruction error.

An activation is what the SAE rebuilds plus what it leaves out, x = x_hat + error. Nothing says that the error is
noise: Marks et al. 2024 keep it as a node of its own in their circuits, Engels et al. 2024 take it apart.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from solutions.analysis.shapes import check_axes, same_length
from solutions.errors import InputError


class ConceptProbes(NamedTuple):
    """How well linear probes tell tokens with a concept from those without, on texts they were not trained on."""

    concept: Tensor  #: [n] int64, the concepts common enough to be tested
    auc: Tensor      #: [n] area under the ROC curve; 1 always right, 0.5 guessing


def probe_concepts(
    x: Tensor, labels: Tensor, texts: Tensor, *, shuffled: bool = False, min_count: int = 50,
    ridge: float = 1e-2, seed: int = 0,
) -> ConceptProbes:
    """Train a linear probe for every concept on half of the texts, and test it on the other half.

    Ridge regression on the label, which has a closed form: all probes are trained by one solve. With `shuffled`
    the labels of the training half are dealt out anew among its tokens, the control of Hewitt & Liang 2019 in its
    simplest form: what such a probe still scores is luck.

    Args:
        x: [tokens, d] what the probe may look at.
        labels: [tokens, concepts] bool.
        texts: [tokens] the text each token stands in. A text is on one side only: neighbouring tokens are alike.
        shuffled: train on labels that mean nothing.
        min_count: concepts with fewer tokens than this on either side, or without any token that lacks them,
            are left out.
        ridge: strength of the penalty, as a share of the mean variance of a dimension of x.
        seed: of the choice of texts and of the shuffle.

    Returns:
        The area under the ROC curve of every concept that could be tested.

    Raises:
        InputError: tensors that do not fit together, a single text, or no concept that is common enough.
    """
    check_axes("x", x, "tokens", "d")
    check_axes("labels", labels, "tokens", "concepts")
    check_axes("texts", texts, "tokens")
    same_length(x=x, labels=labels, texts=texts)
    dice = torch.Generator().manual_seed(seed)
    names = texts.unique()
    if len(names) < 2:
        raise InputError("texts: expected at least two texts, one to train on and one to test on; got one.")
    chosen = names[torch.randperm(len(names), generator=dice)[: len(names) // 2]]
    test = torch.isin(texts, chosen)
    counts = torch.stack([(labels[s] == side).sum(0) for s in (test, ~test) for side in (True, False)])
    concept = (counts.amin(0) >= max(min_count, 1)).nonzero().flatten()
    if not len(concept):
        raise InputError(f"No concept has {min_count} tokens with it and without it on both sides. Read more text.")
    y = labels[:, concept].double()
    mean, scale = x[~test].mean(0), x[~test].std(0).mean().clamp(min=1e-12)
    z = ((x - mean) / scale).double()
    train, wanted = z[~test], y[~test] - y[~test].mean(0)
    if shuffled:
        wanted = wanted[torch.randperm(len(wanted), generator=dice)]
    penalty = ridge * len(train) * torch.eye(x.shape[1], dtype=torch.double)
    weights = torch.linalg.solve(train.T @ train + penalty, train.T @ wanted)
    scores = z[test] @ weights
    return ConceptProbes(concept, torch.stack([roc_auc(s, t) for s, t in zip(scores.T, y[test].bool().T, strict=True)]))


def roc_auc(scores: Tensor, positive: Tensor) -> Tensor:
    """Chance that a random positive scores higher than a random negative; a tie counts half (Mann & Whitney
    1947).

    Args:
        scores: [n].
        positive: [n] bool, with at least one of each.

    Returns:
        0-d, from 0 to 1.

    Raises:
        InputError: tensors that do not fit together, or only one of the two kinds.

    Example:
        >>> roc_auc(torch.tensor([0.1, 0.4, 0.35]), torch.tensor([False, True, True]))
        tensor(1., dtype=torch.float64)
    """
    check_axes("scores", scores, "n")
    check_axes("positive", positive, "n")
    same_length(scores=scores, positive=positive)
    n_pos = int(positive.sum())
    n_neg = len(positive) - n_pos
    if n_pos == 0 or n_neg == 0:
        raise InputError("positive: expected at least one True and one False, got only one of them.")
    _, place, counts = scores.unique(return_inverse=True, return_counts=True)
    rank = (counts.cumsum(0) - (counts - 1) / 2).double()[place]  # equal scores share the mean of their ranks
    return (rank[positive].sum() - n_pos * (n_pos + 1) / 2) / (n_pos * n_neg)
