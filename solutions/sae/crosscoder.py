"""A crosscoder: one dictionary for several places of a model at once (Lindsey et al. 2024).

A latent of a crosscoder reads every layer, and writes a direction of its own into each. So "is this the same feature
one layer on?" needs no matching: it is one latent, and the lengths of its directions say where it lives.

Nothing new has to be trained. Put the activations of a token at all layers side by side, and an ordinary SAE on the
long vector is a crosscoder: its encoder adds up what it reads in each part, its decoder rows fall into one part per
layer, and its squared error is the sum over the layers. What differs from the paper is how it is kept sparse: the
paper takes an L1 penalty with the sum of the parts' lengths, which makes shared latents look like those of one layer
(Minder et al. 2025, who propose BatchTopK). Here the SAE's own architecture decides.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from solutions.errors import InputError, check_tensor
from solutions.sae.architectures import TrainableSAE, make_sae
from solutions.sae.training import Plan, TensorSource, train


class Crosscoder(NamedTuple):
    """A trained crosscoder. It takes and gives activations as the model has them."""

    sae: TrainableSAE
    """Reads and writes all layers side by side, each scaled to the same mean length."""
    scales: Tensor
    """[layers] by what each layer's activations are multiplied before they are put side by side."""
    widths: tuple[int, ...]
    """The width of each layer's activations."""

    @torch.no_grad()
    def encode(self, acts: Sequence[Tensor]) -> Tensor:
        """The latents of some tokens, which all layers share.

        Args:
            acts: for each layer [tokens, width].

        Returns:
            [tokens, d_sae].

        Raises:
            InputError: another number of layers, widths or tokens.
        """
        return self.sae.encode(self._side_by_side(acts))

    @torch.no_grad()
    def decode(self, latents: Tensor) -> list[Tensor]:
        """What the latents say of each layer.

        Args:
            latents: [tokens, d_sae].

        Returns:
            For each layer [tokens, width], in the units of its activations.

        Raises:
            InputError: latents of another width.
        """
        check_tensor(latents, "latents", last=self.sae.d_sae)
        parts = self.sae.decode(latents).split(self.widths, dim=-1)
        return [part / scale for part, scale in zip(parts, self.scales, strict=True)]

    def directions(self) -> list[Tensor]:
        """For each layer [d_sae, width]: the direction each latent writes there, all layers scaled alike."""
        return list(self.sae.W_dec.detach().split(self.widths, dim=1))

    def shares(self) -> Tensor:
        """Where each latent lives: the length of its direction at each layer, as a share of their sum.

        With two layers .5 is a latent that both have alike, and 0 or 1 one that only the other has (the relative
        decoder norm of Lindsey et al. 2024, "Model Diffing").

        Returns:
            [d_sae, layers]; each row adds up to 1.
        """
        lengths = torch.stack([part.norm(dim=1) for part in self.directions()], dim=1)
        return lengths / lengths.sum(dim=1, keepdim=True).clamp(min=1e-12)

    def _side_by_side(self, acts: Sequence[Tensor]) -> Tensor:
        widths = tuple(x.shape[-1] for x in acts)
        if widths != self.widths:
            raise InputError(f"acts: expected layers of the widths {self.widths}, found {widths}.")
        return side_by_side(acts, self.scales)


def side_by_side(acts: Sequence[Tensor], scales: Tensor | None = None) -> Tensor:
    """The activations of each token at several layers as one long vector, each layer scaled to the same mean length.

    Without the scale the layer with the longest activations, which is the last, would have all the say in the error.

    Args:
        acts: for each layer [tokens, width], the same tokens.
        scales: [layers] what to multiply by; by default what makes the mean length sqrt(width).

    Returns:
        [tokens, sum of the widths].

    Raises:
        InputError: fewer than two layers, or different tokens.
    """
    if len(acts) < 2:
        raise InputError(f"acts: a crosscoder reads at least two layers, got {len(acts)}. For one there is make_sae.")
    lengths = [tuple(x.shape[:-1]) for x in acts]
    if len(set(lengths)) > 1:
        raise InputError(f"acts: expected the same tokens at every layer, found {lengths}.")
    scales = scales_of(acts) if scales is None else scales
    return torch.cat([x.float() * scale for x, scale in zip(acts, scales, strict=True)], dim=-1)


def scales_of(acts: Sequence[Tensor]) -> Tensor:
    """By what each layer's activations are to be multiplied to have the mean length sqrt(width).

    Args:
        acts: for each layer [tokens, width].

    Returns:
        [layers].

    Raises:
        InputError: a layer of nothing but zeros.
    """
    lengths = torch.stack([x.float().norm(dim=-1).mean() for x in acts])
    if not bool((lengths > 0).all()):
        raise InputError("acts: one of the layers is zero everywhere; is it the right hook point?")
    return torch.tensor([x.shape[-1] ** 0.5 for x in acts]) / lengths.cpu()


def train_crosscoder(
    acts: Sequence[Tensor], d_sae: int, plan: Plan, *, architecture: str = "batchtopk", seed: int = 0,
    path: str | os.PathLike[str] | None = None, progress: bool = True, **hyper: Any,
) -> Crosscoder:
    """Train one dictionary on several layers at once.

    Args:
        acts: for each layer [tokens, width], the same tokens in the same order.
        d_sae: number of latents, for all layers together.
        plan: how to train.
        architecture: of the SAE; see `make_sae`.
        seed: of the first directions.
        path: the run's folder, with checkpoints to go on from; None keeps nothing.
        progress: show a bar.
        **hyper: settings of the architecture: `k`, `l1`, ….

    Returns:
        The crosscoder, for activations as they are.

    Raises:
        InputError: layers that do not fit together, or settings that cannot be.
        TrainingDiverged: the loss is not finite.
    """
    scales = scales_of(acts)
    x = side_by_side(acts, scales)
    fresh = make_sae(architecture, d_in=x.shape[1], d_sae=d_sae, seed=seed, **hyper)
    trained = train(fresh, TensorSource(x), plan, path, progress=progress)
    return Crosscoder(trained.sae, scales, tuple(part.shape[-1] for part in acts))
