"""Matryoshka: the first latents have to do without the rest (Bussmann et al. 2025).

    loss = sum over prefixes m of |x - (z[:m] W_dec[:m] + b_dec)|^2  +  AuxK

A wide SAE likes to split a feature into special cases, or to let a special case swallow it (absorption). Here the
first 1/16 of the latents must rebuild the activation as well as they can by themselves, then the first 1/8, and so
on: so the early latents stay general, and the later ones are for detail. Selection is that of BatchTopK, over all
latents at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from solutions.errors import InputError, whole_number
from solutions.sae.architectures.base import Losses, squared_error
from solutions.sae.architectures.batchtopk import BatchTopKSAE
from solutions.sae.architectures.topk import auxk


class MatryoshkaSAE(BatchTopKSAE):
    """Matryoshka BatchTopK (Bussmann et al. 2025, "Learning Multi-Level Features", section 3).

    Args:
        d_in: width of the activations.
        d_sae: number of latents.
        prefixes: sizes of the nested dictionaries, growing, the last of them d_sae. By default each is half of
            the next, from d_sae / 16.
        **settings: `k`, `threshold_rate`, … of `BatchTopKSAE`.
    """

    architecture = "matryoshka"
    settings = (*BatchTopKSAE.settings, "prefixes")

    def __init__(self, d_in: int, d_sae: int, *, prefixes: Sequence[int] | None = None, **settings):
        super().__init__(d_in, d_sae, **settings)
        halves = [self.d_sae // share for share in (16, 8, 4, 2, 1)]
        self.prefixes = check_prefixes([n for n in halves if n] if prefixes is None else prefixes, self.d_sae)

    def losses(
        self, x: Tensor, target: Tensor | None = None, *, warm: float = 1.0, dead: Tensor | None = None
    ) -> Losses:
        """Squared error of every prefix, and AuxK; see `TrainableSAE.losses`.

        `reconstruction` is the error of the whole SAE, as everywhere; the errors of the shorter prefixes are in
        `auxiliary`.
        """
        target = x if target is None else target
        pre = self.preactivations(x)
        z = self.activate_in_training(pre)

        x_hat, done, errors = self.b_dec, 0, []
        for end in self.prefixes:  # each prefix is the one before and some rows more
            x_hat = x_hat + z[:, done:end] @ self.W_dec[done:end]
            errors.append(squared_error(x_hat, target))
            done = end
        reconstruction = errors.pop()
        auxiliary = torch.stack([*errors, auxk(self, pre, target - x_hat, dead)]).sum()
        return Losses(reconstruction + auxiliary, reconstruction, x.new_zeros(()), auxiliary, z, x_hat)


def check_prefixes(prefixes: object, d_sae: int) -> list[int]:
    """Return the prefixes as a list of whole numbers that grow and end at `d_sae`."""
    wanted = f"prefixes must be whole numbers that grow and end at d_sae = {d_sae}, e.g. {[d_sae // 4, d_sae]}"
    if isinstance(prefixes, str) or not isinstance(prefixes, Sequence):
        raise InputError(f"{wanted}, got {prefixes!r}.")
    sizes = [whole_number(size) for size in prefixes]
    grows = all(size is not None and size > 0 for size in sizes) and sizes == sorted(set(sizes))  # type: ignore[type-var]
    if not grows or not sizes or sizes[-1] != d_sae:
        raise InputError(f"{wanted}, got {list(prefixes)!r}.")
    return sizes  # type: ignore[return-value]
