"""The usual bases, made from one model on one text. Whatever learns from the text learns from its train side."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from solutions.analysis.bases.compare import LabelledTokens
from solutions.analysis.controls import pca_directions, project, random_directions
from solutions.analysis.shapes import check_axes
from solutions.errors import InputError, check_count
from solutions.models import extract, hook_points
from solutions.sae import encode

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

    from solutions.analysis.texts import LabelledTexts
    from solutions.targets import Target

#: Texts that go through the model at a time.
ROWS = 64
#: Train tokens with a concept that a probe needs.
LEAST = 30


def standard_bases(
    model: TransformerBridge,
    sae: SAE,
    target: Target,
    world: LabelledTexts,
    text: LabelledTokens,
    *,
    k_sparse: int = 5,
    seed: int = 0,
) -> dict[str, Callable[[], Tensor]]:
    """Functions that make the bases to compare an SAE with, for `compare_bases`.

    The bases: the SAE's latents; the neurons of the MLP before the hook point, where they are positive; the
    dimensions of the activation, principal and independent components and random directions (as many of these
    as latents), each direction with two signs giving two units; random directions made as sparse as the SAE;
    and three kinds of probe, with a unit for each concept that has learned it from the labels: on the
    activation, on k latents and on k neurons.

    Args:
        model: a loaded model.
        sae: the SAE.
        target: what is being studied.
        world: texts from `labelled_texts`.
        text: the same texts, from `labelled_tokens`.
        k_sparse: how many units a sparse probe may read.
        seed: of random directions and ICA.

    Returns:
        Name to a function that makes the features [tokens, units].
    """
    neuron_hook = neurons_before(model, target)

    @cache
    def read(hook: str) -> Tensor:
        return read_texts(model, world, hook)

    def latents() -> Tensor:
        return encode_all(sae, read(target.hook))

    def neurons() -> Tensor:
        return torch.relu(read(neuron_hook))

    def directions(make: Callable[[Tensor], Tensor], **options: bool | int) -> Callable[[], Tensor]:
        def basis() -> Tensor:
            x = read(target.hook)
            return project(x, make(x[~text.test]), **options)
        return basis

    def as_sparse() -> Tensor:
        x, keep = read(target.hook), max(1, round(float((latents() > 0).sum(1).float().mean())))
        return project(x, random_directions(sae.cfg.d_sae, x.shape[1], seed), keep=keep)

    return {
        "SAE": latents,
        "neurons": neurons,
        "residual dimensions": directions(lambda x: torch.eye(x.shape[1]), two_sided=True),
        "PCA": directions(pca_directions, two_sided=True),
        "ICA": directions(lambda x: ica_directions(x, seed=seed), two_sided=True),
        "random directions": directions(lambda x: random_directions(sae.cfg.d_sae, x.shape[1], seed)),
        "random directions, made sparse": as_sparse,
        "linear probe": lambda: linear_probe(read(target.hook), text),
        f"probe on {k_sparse} latents": lambda: k_sparse_probe(latents(), text, k_sparse),
        f"probe on {k_sparse} neurons": lambda: k_sparse_probe(neurons(), text, k_sparse),
    }


def neurons_before(model: TransformerBridge, target: Target) -> str:
    """The hook point of the neurons that write into the target's hook point last: those of the MLP before it."""
    points = hook_points(model)
    wanted = (points["kind"] == "mlp_post") & (points["layer"] == max(target.layer - 1, 0))
    if not wanted.any():
        raise InputError(f"this model has no neurons before {target.hook!r}. See hook_points(model).")
    return points.loc[wanted, "name"].iloc[0]


def read_texts(model: TransformerBridge, world: LabelledTexts, hook: str) -> Tensor:
    """Activations of labelled texts at a hook point, [tokens, d], BOS and padding left out."""
    parts = (world.tokens[i : i + ROWS] for i in range(0, len(world.tokens), ROWS))
    return torch.cat([extract(model, part, hook)[hook].float().cpu()[part.content.cpu()] for part in parts])


@torch.no_grad()
def encode_all(sae: SAE, x: Tensor, rows: int = 4096) -> Tensor:
    """Latent activations [tokens, latents] of activations [tokens, d_in], a few rows at a time."""
    device = next(sae.parameters()).device
    return torch.cat([encode(sae, part.to(device)).cpu() for part in x.split(rows)])


# ---- directions and probes


def ica_directions(x: Tensor, n: int | None = None, seed: int = 0, steps: int = 100, most: int = 10_000) -> Tensor:
    """Directions along which the activations are as little like a bell curve as can be (FastICA, scikit-learn).

    ICA seldom converges on residual streams within a hundred steps: what it has by then is taken. The
    directions have unit length and are read off `x - mean`, as `project` does.

    Args:
        x: [tokens, d] activations.
        n: how many directions; all d by default.
        seed: of the start.
        steps: at most.
        most: so many tokens, evenly spaced, are looked at.

    Returns:
        [n, d].

    Raises:
        InputError: no [tokens, d], or a number that cannot be.
    """
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    check_axes("x", x, "tokens", "d")
    n = min(x.shape) if n is None else check_count(n, "n")
    if n > min(x.shape):
        raise InputError(f"n: expected 1 to {min(x.shape)} for x of shape {list(x.shape)}, got {n}.")
    chosen = torch.linspace(0, len(x) - 1, min(len(x), check_count(most, "most"))).long()
    ica = FastICA(n, whiten="unit-variance", max_iter=check_count(steps, "steps"), tol=1e-3, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        ica.fit(x[chosen].double().numpy())
    return F.normalize(torch.from_numpy(ica.components_), dim=1).to(x.dtype)


def linear_probe(x: Tensor, text: LabelledTokens, penalty: float = 1e-4, steps: int = 40) -> Tensor:
    """What logistic regressions on activations say of every common concept.

    Trained on the train tokens, all concepts at once. The probability of a concept is used like the
    activation of a unit. Concepts with fewer than `LEAST` train tokens get no probe.

    Args:
        x: [tokens, d].
        text: from `labelled_tokens`.
        penalty: of the squared size of the weights.
        steps: of L-BFGS at most.

    Returns:
        [tokens, concepts], from 0 to 1.

    Raises:
        InputError: activations of other tokens.
    """
    check_axes("x", x, "tokens", "d")
    return _probe(_standardised(x, text), lambda x, weight: x @ weight.T, x.shape[1], text, penalty, steps)


def k_sparse_probe(features: Tensor, text: LabelledTokens, k: int, penalty: float = 1e-4, steps: int = 40) -> Tensor:
    """As `linear_probe`, but each concept's probe reads only k units: those whose means with and without it
    differ.

    After Gurnee et al. 2023, "Finding Neurons in a Haystack", who choose units by the difference of means too
    (section 3). The means are compared in units of each unit's standard deviation.

    Args:
        features: [tokens, units].
        text: from `labelled_tokens`.
        k: how many units a probe reads.
        penalty: of the squared size of the weights.
        steps: of L-BFGS at most.

    Returns:
        [tokens, concepts], from 0 to 1.

    Raises:
        InputError: features of other tokens, or more units than there are.
    """
    check_axes("features", features, "tokens", "units")
    if check_count(k, "k") > features.shape[1]:
        raise InputError(f"k: expected 1 to {features.shape[1]} (the number of units), got {k}.")
    x = _standardised(features, text)
    train, y = x[~text.test], _common_labels(text)
    n = y.sum(0)[:, None]
    with_it, rest = y.T @ train, train.sum(0)
    difference = with_it / n - (rest - with_it) / (len(y) - n).clamp(min=1)  # [concepts, units]
    chosen = difference.abs().topk(k, dim=1).indices
    few = torch.stack([x[:, units] for units in chosen], dim=1)              # [tokens, concepts, k]
    return _probe(few, lambda few, weight: torch.einsum("tck,ck->tc", few, weight), k, text, penalty, steps)


def _common_labels(text: LabelledTokens) -> Tensor:
    """The train tokens' labels, [tokens, concepts] float, without concepts that are too rare to learn from."""
    train = text.labels[~text.test]
    common = train.sum(0) >= LEAST
    if not common.any():
        raise InputError(f"no concept has {LEAST} train tokens to learn from. Read more texts.")
    return train[:, common].float()


def _standardised(x: Tensor, text: LabelledTokens) -> Tensor:
    """Mean 0 and standard deviation 1 on the train tokens."""
    train = x[~text.test].float()
    return (x.float() - train.mean(0)) / train.std(0).clamp(min=1e-6)


def _probe(
    x: Tensor, logits: Callable[[Tensor, Tensor], Tensor], width: int, text: LabelledTokens, penalty: float, steps: int
) -> Tensor:
    """Fit weights [concepts, width] by L-BFGS, and apply them: [tokens, concepts]. There is no chance in it."""
    train, y = x[~text.test], _common_labels(text)
    with torch.enable_grad():
        weight = torch.zeros(y.shape[1], width, requires_grad=True)
        bias = torch.logit(y.mean(0).clamp(max=1 - 1e-4)).requires_grad_()
        optimiser = torch.optim.LBFGS([weight, bias], max_iter=steps, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimiser.zero_grad()
            said = logits(train, weight) + bias
            loss = F.binary_cross_entropy_with_logits(said, y, reduction="sum") / len(y)
            loss = loss + penalty * weight.square().sum()
            loss.backward()
            return loss

        optimiser.step(closure)
    with torch.no_grad():
        return torch.sigmoid(logits(x, weight) + bias)
