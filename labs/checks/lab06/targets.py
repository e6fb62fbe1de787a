"""Targets to hold the contract of exercise 6.8 against: the one that is studied, and one that is always here."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from solutions.data import load_texts, tokenize
from solutions.models import load_model
from solutions.sae import load_sae
from solutions.targets import Target, get_target

ALWAYS_HERE = ("smallworld", "smallworld-llama")


class Party(NamedTuple):
    """A model, a hook point, an SAE, and tokens to try them on."""

    name: str
    model: object
    hook: str
    sae: object
    ids: Tensor


def party(target: Target, model=None, sae=None, n_texts: int = 3, length: int = 8) -> Party:
    """What a target names, loaded unless it is given. The tokens are the beginnings of its texts, cut to one length.

    Args:
        target: the target.
        model, sae: if they are loaded already.
        n_texts: rows of tokens.
        length: tokens in a row, at most.
    """
    model = load_model(target, device="cpu") if model is None else model
    sae = load_sae(target, device="cpu") if sae is None else sae
    tokens = tokenize(model, load_texts(target, n_texts), prepend_bos=target.prepend_bos)
    length = min(length, int(tokens.mask.sum(1).min()))
    return Party(target.name, model, target.hook, sae, tokens.ids[:, :length])


def parties(target: Target, model, sae) -> tuple[Party, Party]:
    """The target that is studied, and an embedded one of another architecture: a Llama, or else a GPT-2."""
    other = ALWAYS_HERE[target.name == ALWAYS_HERE[0]]
    return party(target, model, sae), party(get_target(other))
