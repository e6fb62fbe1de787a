"""Do the tokens that a latent promotes really follow where it is active?"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from solutions.analysis.shapes import check_axes, same_length
from solutions.errors import InputError


class Promises(NamedTuple):
    """For each latent that fires often enough: does the text go on as its logit effects say?"""

    latent: Tensor    #: [n] int64, which latents these are
    own: Tensor       #: [n] share of its tokens that are followed by one of the tokens it promotes most
    borrowed: Tensor  #: [n] the same with the list of another latent; what any list would score


def promises_kept(
    features: Tensor,
    following: Tensor,
    directions: Tensor,
    unembed: Tensor,
    k: int = 10,
    gain: Tensor | None = None,
    min_active: int = 20,
) -> Promises:
    """How often the next token is among the k that a latent's decoder direction promotes, with its control.

    A latent's direct logit effects (see `logit_effects`) say what it would make the model predict if nothing stood
    between it and the output. Where they describe what it does, the text it fires on goes on accordingly more often
    than with another latent's list.

    Args:
        features: [tokens, latents] activations, BOS and padding left out.
        following: [tokens] int64, the id of the token that comes next; -1 where the text ends.
        directions: [latents, d_model] decoder directions.
        unembed: [d_model, vocabulary].
        k: how many promoted tokens count.
        gain: [d_model], the weight of the last normalisation when it is not folded into `unembed`.
        min_active: latents active on fewer tokens than this (with a token after them) are left out.

    Returns:
        The shares, the latent's own and with another latent's list.

    Raises:
        InputError: tensors that do not fit together, or fewer than two latents that are active often enough.
    """
    check_axes("features", features, "tokens", "latents")
    check_axes("following", following, "tokens")
    check_axes("directions", directions, "latents", "d_model")
    check_axes("unembed", unembed, "d_model", "vocabulary")
    same_length(features=features, following=following)
    if len(directions) != features.shape[1] or directions.shape[1] != len(unembed):
        raise InputError(f"directions: expected {[features.shape[1], len(unembed)]} (a row for each latent, a "
                         f"number for each row of unembed), got {list(directions.shape)}.")
    if not 1 <= k <= unembed.shape[1]:
        raise InputError(f"k: expected 1 to {unembed.shape[1]} (the vocabulary), got {k}.")
    features, following = features[following >= 0], following[following >= 0]
    live = ((features > 0).sum(0) >= max(min_active, 1)).nonzero().flatten()
    if len(live) < 2:
        raise InputError(f"Fewer than two latents are active on {min_active} tokens: nothing to compare. Read more "
                         "text, or lower min_active.")
    kept = directions[live] if gain is None else directions[live] * gain
    # The mean over the vocabulary is left on: it moves all logits alike and changes no order.
    lists = torch.cat([(part @ unembed).topk(k, dim=1).indices for part in kept.split(256)])
    own, borrowed = [], []
    for i, latent in enumerate(live.tolist()):
        coming = following[features[:, latent] > 0]
        own.append(torch.isin(coming, lists[i]).float().mean())
        borrowed.append(torch.isin(coming, lists[i - 1]).float().mean())  # a neighbour in number, not in meaning
    return Promises(live, torch.stack(own), torch.stack(borrowed))
