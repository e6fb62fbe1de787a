"""Small SAEs and data to grade on: a dict of four tensors, as the lab uses them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from labs.checks.compare import agree, plain
from labs.checks.exercise import normal, whole

NAMES = ("W_enc", "b_enc", "W_dec", "b_dec")


def sizes(generator: torch.Generator) -> tuple[int, int, int]:
    """(batch, d_in, d_sae), all different, so that no axis can stand in for another."""
    return whole(generator, 9, 14), whole(generator, 4, 7), whole(generator, 16, 24)


def draw_params(generator: torch.Generator, d_in: int, d_sae: int, unit: bool = False) -> dict[str, Tensor]:
    """An SAE whose biases matter. Decoder rows have unit norm, or very unequal ones."""
    rows = normalize(normal(generator, d_sae, d_in), dim=1)
    lengths = 0.4 + 2 * torch.rand(d_sae, 1, generator=generator)
    return {
        "W_enc": normal(generator, d_in, d_sae),
        "b_enc": 0.5 * normal(generator, d_sae) - 0.3,
        "W_dec": rows if unit else rows * lengths,
        "b_dec": normal(generator, d_in),
    }


def encoded(params: dict[str, Tensor], x: Tensor) -> Tensor:
    return ((x - params["b_dec"]) @ params["W_enc"] + params["b_enc"]).relu()


def decoded(params: dict[str, Tensor], z: Tensor) -> Tensor:
    return z @ params["W_dec"] + params["b_dec"]


def keep_top(values: Tensor, k: int) -> Tensor:
    """`values` with all but the k largest entries of each row set to zero."""
    found = values.topk(min(k, values.shape[-1]), dim=-1)
    return torch.zeros_like(values).scatter(-1, found.indices, found.values)


def learning(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies that gradients can flow to."""
    return {name: tensor.clone().requires_grad_() for name, tensor in tensors.items()}


def seen_in(part: Callable, mistake: Callable, reference: Callable) -> Callable:
    """Recognise a mistake by one part of the answer alone: the others may have mistakes of their own."""

    def recognise(answer, args, output) -> bool:
        wrong, right = (plain(part(plain(made(*args.values())))) for made in (mistake, reference))
        return agree(plain(part(output)), wrong) and not agree(wrong, right)

    return recognise


def unmoved(change: Callable[[dict], dict], part: Callable = lambda output: output) -> Callable:
    """Recognise an answer that stays as it is where an input that matters is changed."""

    def recognise(answer, args, output) -> bool:
        return agree(plain(part(plain(answer(*(args | change(args)).values())))), plain(part(output)))

    return recognise
