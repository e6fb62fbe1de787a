"""Telling kinds of text apart, token by token: a linear probe, its baselines and its controls.

The probe reads activations. The baselines read only token ids, so they say how much of a probe's success
needs no model at all. The control gives documents another document's label: what a probe still gets right
then is not about the text.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from solutions.analysis.shapes import check_axes, same_length
from solutions.errors import InputError, check_count


class Probe(NamedTuple):
    """A linear classifier on standardised activations."""
    weight: Tensor    # [classes, d]
    bias: Tensor      # [classes]
    mean: Tensor      # [d], of the training tokens
    scale: Tensor     # [d], standard deviation of the training tokens

    def predict(self, x: Tensor) -> Tensor:
        """The likeliest class of each token, [tokens]. x: [tokens, d]."""
        check_axes("x", x, "tokens", "d")
        return ((x.float() - self.mean) / self.scale @ self.weight.T + self.bias).argmax(1)


def fit_probe(x: Tensor, y: Tensor, n_classes: int, penalty: float = 1e-3, steps: int = 40) -> Probe:
    """Logistic regression from activations to classes.

    x: [tokens, d]; y: [tokens] int, 0 to n_classes - 1; penalty: weight of the squared size of the weights
    (on standardised inputs, beside the mean cross-entropy); steps: of L-BFGS at most.
    The same input gives the same probe: it starts at zero and draws nothing.
    """
    _check_labels(y, n_classes, x=x)
    x = x.float()
    mean, scale = x.mean(0), x.std(0).clamp(min=1e-6)
    inputs = (x - mean) / scale
    weight = torch.zeros(n_classes, x.shape[1], requires_grad=True)
    bias = torch.zeros(n_classes, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=steps, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(inputs @ weight.T + bias, y) + penalty * weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return Probe(weight.detach(), bias.detach(), mean, scale)


def balanced_accuracy(predicted: Tensor, y: Tensor) -> float:
    """The share of tokens classified right, averaged over the classes that occur: chance is one over their number.

    predicted, y: [tokens] int. Plain accuracy would reward always answering the commonest class.
    """
    check_axes("predicted", predicted, "tokens")
    check_axes("y", y, "tokens")
    same_length(predicted=predicted, y=y)
    right = (predicted == y).double()
    return torch.stack([right[y == c].mean() for c in y.unique()]).mean().item()


# ---- which tokens may be used for what


def split_documents(document: Tensor, share: float = 0.3, seed: int = 0) -> Tensor:
    """Which tokens are kept for testing, [tokens] bool: whole documents, so no document is on both sides.

    document: [tokens] int; share: of the documents, at least one.
    """
    check_axes("document", document, "tokens")
    names = document.unique()
    n = _part(len(names), share, "documents")
    chosen = names[torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))[:n]]
    return torch.isin(document, chosen)


def split_tokens(n: int, share: float = 0.3, seed: int = 0) -> Tensor:
    """Which of n tokens are kept for testing, [n] bool, drawn one by one. Neighbours land on both sides: a leak."""
    chosen = torch.randperm(check_count(n, "n"), generator=torch.Generator().manual_seed(seed))
    test = torch.zeros(n, dtype=torch.bool)
    test[chosen[: _part(n, share, "tokens")]] = True
    return test


def _part(n: int, share: float, what: str) -> int:
    """How many of n to keep for testing; both sides get at least one."""
    if not 0 < share < 1 or n < 2:
        raise InputError(f"Expected a share between 0 and 1 and at least two {what}, got {share} of {n}.")
    return min(max(round(share * n), 1), n - 1)


def shuffle_labels(y: Tensor, document: Tensor, seed: int = 0) -> Tensor:
    """The control: every document gets the label of another document, all its tokens the same, [tokens].

    y, document: [tokens] int. How often each label occurs among documents stays as it was.
    """
    check_axes("y", y, "tokens")
    check_axes("document", document, "tokens")
    same_length(y=y, document=document)
    names, which = document.unique(return_inverse=True)
    label = torch.zeros(len(names), dtype=y.dtype)
    label[which] = y
    if not torch.equal(label[which], y):
        raise InputError("y: expected one label for all tokens of a document, found documents with several.")
    return label[torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))][which]


# ---- baselines that see no activations


def guess_by_token(ids: Tensor, y: Tensor, test: Tensor, n_classes: int, n_vocabulary: int) -> Tensor:
    """Guess the class from the token alone: in which class is it commonest? Returns the guesses [test tokens].

    ids, y: [tokens] int; test: [tokens] bool. A dictionary, learnt on the other tokens.
    """
    return _token_scores(ids, y, test, n_classes, n_vocabulary)[test].argmax(1)


def guess_by_bag(
    ids: Tensor, y: Tensor, test: Tensor, document: Tensor, n_classes: int, n_vocabulary: int
) -> Tensor:
    """Guess the class from all tokens of the document read so far, order ignored. Returns [test tokens].

    Naive Bayes: the token lookup's evidence, added up from the document's first token to this one. It may
    look as far back as the model can, but knows nothing of language. ids, y, document: [tokens] int, in
    reading order; test: [tokens] bool.
    """
    check_axes("document", document, "tokens")
    same_length(ids=ids, document=document)
    scores = _token_scores(ids, y, test, n_classes, n_vocabulary)
    total = scores.cumsum(0)
    first = torch.ones_like(document, dtype=torch.bool)
    first[1:] = document[1:] != document[:-1]
    start = torch.where(first, torch.arange(len(document)), 0).cummax(0).values
    return (total - total[start] + scores[start])[test].argmax(1)


def _token_scores(ids: Tensor, y: Tensor, test: Tensor, n_classes: int, n_vocabulary: int) -> Tensor:
    """log P(token | class) for every token and class, [tokens, classes], counted on the training tokens."""
    check_axes("ids", ids, "tokens")
    check_axes("test", test, "tokens")
    _check_labels(y, n_classes, ids=ids, test=test)
    if not test.any() or test.all():
        raise InputError("test: expected some tokens on each side of the split.")
    pairs = ids[~test] * n_classes + y[~test]
    counts = torch.bincount(pairs, minlength=n_vocabulary * n_classes).view(n_vocabulary, n_classes) + 0.1
    return (counts.double() / counts.sum(0)).log()[ids]


def _check_labels(y: Tensor, n_classes: int, **others: Tensor) -> None:
    check_axes("y", y, "tokens")
    same_length(y=y, **others)
    if y.is_floating_point() or int(y.min()) < 0 or int(y.max()) >= check_count(n_classes, "n_classes"):
        raise InputError(f"y: expected whole numbers from 0 to {n_classes - 1}, one a class; got {y.dtype} up "
                         f"to {y.max()}.")
