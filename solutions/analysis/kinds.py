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
    weight: Tensor    #: [classes, d]
    bias: Tensor      #: [classes]
    mean: Tensor      #: [d], of the training tokens
    scale: Tensor     #: [d], standard deviation of the training tokens

    def predict(self, x: Tensor) -> Tensor:
        """The likeliest class of each token.

        Args:
            x: [tokens, d] activations.

        Returns:
            [tokens] int64.

        Raises:
            InputError: no [tokens, d].
        """
        check_axes("x", x, "tokens", "d")
        return ((x.float() - self.mean) / self.scale @ self.weight.T + self.bias).argmax(1)


def fit_probe(x: Tensor, y: Tensor, n_classes: int, penalty: float = 1e-3, steps: int = 40) -> Probe:
    """Logistic regression from activations to classes.

    The same input gives the same probe: it starts at zero and draws nothing.

    Args:
        x: [tokens, d].
        y: [tokens] int, 0 to n_classes - 1.
        n_classes: how many classes there are.
        penalty: weight of the squared size of the weights (on standardised inputs, beside the mean
            cross-entropy).
        steps: of L-BFGS at most.

    Returns:
        The probe.

    Raises:
        InputError: labels that do not fit the activations, or are no classes.

    Example:
        >>> x, y = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]]), torch.tensor([0, 0, 1, 1])
        >>> fit_probe(x, y, n_classes=2).predict(torch.tensor([[-1.5], [1.5]]))
        tensor([0, 1])
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
    """The share of tokens classified right, averaged over the classes that occur: chance is one over their
    number.

    Plain accuracy would reward always answering the commonest class.

    Args:
        predicted: [tokens] int, the guesses.
        y: [tokens] int, the truth.

    Returns:
        From 0 to 1.

    Raises:
        InputError: no two tensors [tokens].

    Example:
        >>> y = torch.tensor([0, 0, 0, 1])
        >>> balanced_accuracy(torch.zeros(4).long(), y)
        0.5
    """
    check_axes("predicted", predicted, "tokens")
    check_axes("y", y, "tokens")
    same_length(predicted=predicted, y=y)
    right = (predicted == y).double()
    return torch.stack([right[y == c].mean() for c in y.unique()]).mean().item()


# ---- which tokens may be used for what


def split_documents(document: Tensor, share: float = 0.3, seed: int = 0) -> Tensor:
    """Which tokens are kept for testing: whole documents, so no document is on both sides.

    Args:
        document: [tokens] int, the document each token belongs to.
        share: of the documents, at least one.
        seed: draws which.

    Returns:
        [tokens] bool.

    Raises:
        InputError: no [tokens], fewer than two documents, or a share that is not between 0 and 1.

    Example:
        >>> document = torch.tensor([0, 0, 1, 1, 2])
        >>> split_documents(document, share=0.3).sum() in (1, 2)
        True
    """
    check_axes("document", document, "tokens")
    names = document.unique()
    n = _part(len(names), share, "documents")
    chosen = names[torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))[:n]]
    return torch.isin(document, chosen)


def split_tokens(n: int, share: float = 0.3, seed: int = 0) -> Tensor:
    """Which of n tokens are kept for testing, drawn one by one. Neighbours land on both sides: a leak.

    Args:
        n: how many tokens there are.
        share: of the tokens.
        seed: draws which.

    Returns:
        [n] bool.

    Raises:
        InputError: fewer than two tokens, or a share that is not between 0 and 1.
    """
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
    """The control: every document gets the label of another document, all its tokens the same.

    How often each label occurs among documents stays as it was.

    Args:
        y: [tokens] int.
        document: [tokens] int, the document each token belongs to.
        seed: of the shuffle.

    Returns:
        [tokens] int.

    Raises:
        InputError: tensors that do not fit together, or a document with several labels.
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
    """Guess the class from the token alone: in which class is it commonest? A dictionary, learnt on the other
    tokens.

    Args:
        ids: [tokens] int.
        y: [tokens] int, the classes.
        test: [tokens] bool, the tokens to guess; it learns from the others.
        n_classes: how many classes there are.
        n_vocabulary: how many ids there are.

    Returns:
        [test tokens] int64, the guesses.

    Raises:
        InputError: tensors that do not fit together.
    """
    return _token_scores(ids, y, test, n_classes, n_vocabulary)[test].argmax(1)


def guess_by_bag(
    ids: Tensor, y: Tensor, test: Tensor, document: Tensor, n_classes: int, n_vocabulary: int
) -> Tensor:
    """Guess the class from all tokens of the document read so far, order ignored.

    Naive Bayes: the token lookup's evidence, added up from the document's first token to this one. It may
    look as far back as the model can, but knows nothing of language.

    Args:
        ids: [tokens] int, in reading order.
        y: [tokens] int, the classes.
        test: [tokens] bool, the tokens to guess; it learns from the others.
        document: [tokens] int, the document each token belongs to.
        n_classes: how many classes there are.
        n_vocabulary: how many ids there are.

    Returns:
        [test tokens] int64, the guesses.

    Raises:
        InputError: tensors that do not fit together.
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
