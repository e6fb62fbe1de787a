"""Text in, tokens out: padded rows, and a mask that says which positions are real.

GPT-2 pads with the same token it begins texts with, so which positions are real is kept as a mask made from
the lengths: it cannot be read off the ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from solutions.data.texts import Text
from solutions.errors import (
    InputError,
    check_count,
    check_model,
    check_tensor,
    check_text,
    check_texts,
)


@dataclass(frozen=True)
class Tokens:
    """A batch of tokenised texts.

    Attributes:
        ids: [batch, pos] int64 token ids, padded on the right.
        mask: [batch, pos] bool, True where the token is real (BOS included), False on padding.
        bos: [batch, pos] bool, True on the beginning-of-sequence token we put in front.
        n_cut: how many tokens fell off the ends of texts longer than the context.
    """

    ids: Tensor
    mask: Tensor
    bos: Tensor
    n_cut: int = 0

    def __post_init__(self) -> None:
        check_tensor(self.ids, "ids", shape="batch pos", floating=False)
        for name in ("mask", "bos"):
            value = getattr(self, name)
            if not isinstance(value, Tensor) or value.dtype != torch.bool or value.shape != self.ids.shape:
                found = (
                    f"{value.dtype} {list(value.shape)}"
                    if isinstance(value, Tensor)
                    else type(value).__name__
                )
                raise InputError(f"{name} must be torch.bool of shape {list(self.ids.shape)}, got {found}.")

    @property
    def content(self) -> Tensor:
        """[batch, pos] bool: real tokens without BOS. Statistics are taken over these."""
        return self.mask & ~self.bos

    @property
    def n_content(self) -> int:
        """Number of real tokens, BOS left out."""
        return int(self.content.sum())

    def __len__(self) -> int:
        return self.ids.shape[0]

    def __getitem__(self, rows: slice) -> Tokens:
        """Some of the rows, as another batch."""
        if not isinstance(rows, slice):
            raise InputError("slice a batch of tokens with a range of rows, e.g. tokens[0:4].")
        return Tokens(self.ids[rows], self.mask[rows], self.bos[rows])

    def to(self, device: torch.device | str) -> Tokens:
        """The same batch on another device.

        Args:
            device: where to.

        Returns:
            A new batch; this one stays where it is.
        """
        return Tokens(self.ids.to(device), self.mask.to(device), self.bos.to(device), self.n_cut)


def check_acts(acts: Tensor, tokens: Tokens, name: str = "acts") -> Tensor:
    """Return `acts` if there is one vector for every position of `tokens`.

    Args:
        acts: what the caller was given, [batch, pos, d].
        tokens: the tokens they should belong to.
        name: what the caller calls the activations, for the message.

    Returns:
        The activations, as they were.

    Raises:
        InputError: they are no [batch, pos, d] of floating-point numbers, or of other tokens.
    """
    if not isinstance(tokens, Tokens):
        raise InputError(f"tokens must be Tokens from `tokenize`, got {type(tokens).__name__}.")
    check_tensor(acts, name, shape="batch pos d")
    if acts.shape[:2] != tokens.ids.shape:
        raise InputError(
            f"{name} has shape {list(acts.shape)}; its first two axes must be those of the tokens, "
            f"{list(tokens.ids.shape)}."
        )
    return acts


def tokenize(
    model: Any,
    texts: str | Sequence[str] | Sequence[Text],
    context_size: int | None = None,
    prepend_bos: bool = True,
) -> Tokens:
    """Turn texts into a padded batch of token ids.

    BOS is added here, by hand: the model's own tokenizer adds one too, and two would be one too many.

    Args:
        model: a loaded model (its tokenizer and context length are used).
        texts: one text or several, none of them empty.
        context_size: longest row, BOS included; by default the target's, at most the model's. Longer texts
            are cut.
        prepend_bos: whether every row begins with BOS.

    Returns:
        Tokens, [batch, pos] with pos the longest row, on the model's device.

    Raises:
        InputError: a text is empty, or `context_size` is more than the model can read.

    Example:
        >>> tokens = tokenize(model, ["Paris is in France.", "Rome."])
        >>> tokens.ids.shape
        torch.Size([2, 6])
        >>> tokens.content.sum(1)
        tensor([5, 3])
    """
    check_model(model)
    texts = check_texts(texts)
    limit = min(
        int(model.cfg.n_ctx), getattr(getattr(model, "target", None), "context_size", model.cfg.n_ctx)
    )
    context_size = limit if context_size is None else check_count(context_size, "context_size")
    if context_size > model.cfg.n_ctx:
        raise InputError(
            f"context_size is {context_size}, but the model reads at most {model.cfg.n_ctx} tokens."
        )
    tokenizer = model.tokenizer
    start = [tokenizer.bos_token_id] if prepend_bos else []
    rows = [start + row for row in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    n_cut = sum(max(0, len(row) - context_size) for row in rows)
    rows = [row[:context_size] for row in rows]
    width = max(map(len, rows))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.bos_token_id
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(width)[None, :] < lengths[:, None]
    bos = torch.zeros_like(mask)
    bos[:, 0] = prepend_bos
    return Tokens(ids, mask, bos, n_cut).to(model.cfg.device)


def str_tokens(model: Any, text: str | Tensor, prepend_bos: bool = True) -> list[str]:
    """The tokens of a text as strings, in the order `tokenize` gives them, BOS first.

    Args:
        model: a loaded model.
        text: a text, or a row of token ids [pos].
        prepend_bos: whether the list begins with BOS (ignored for a row of ids).

    Returns:
        The tokens as text. A token that is a part of a character shows as �.

    Raises:
        InputError: the text is empty, or `model` is no model.

    Example:
        >>> str_tokens(model, "Paris is the capital of France.")
        ['<|bos|>', 'Paris', ' is', ' the', ' capital', ' of', ' France', '.']
    """
    check_model(model)
    if isinstance(text, Tensor):
        ids = check_tensor(text, "ids", shape="pos", floating=False)
    else:
        tokens = tokenize(model, check_text(text), prepend_bos=prepend_bos)
        ids = tokens.ids[0]
    return [model.tokenizer.decode([i], clean_up_tokenization_spaces=False) for i in ids.tolist()]
