"""Contrast pairs: two texts that differ in one thing. Which latents notice?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from scipy.stats import binom, false_discovery_control
from torch import Tensor

from solutions.errors import InputError, check_text, unknown_name
from solutions.models import extract
from solutions.models.running import as_tokens
from solutions.sae import encode

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

    from solutions.targets import Target

#: So few pairs can convince nobody: all six the same way come by luck once in 32 times.
LEAST_PAIRS = 6
WHERE = ("strongest", "last")


@torch.no_grad()
def contrast_pairs(
    model: TransformerBridge,
    sae: SAE,
    target: Target,
    pairs: Sequence[tuple[str, str]],
    *,
    at: str = "strongest",
    swap: int | None = None,
) -> pd.DataFrame:
    """The latents that are consistently stronger in the first texts of the pairs, or in the second.

    Each latent is given a sign test: among the pairs in which it differs at all, do more lean one way than coins
    would? A thousand latents are a thousand tests, so the p-values are turned into q-values (Benjamini & Hochberg
    1995): among the rows with q up to 0.05, about one in twenty is luck. A latent that differs in fewer than six pairs
    cannot pass the test, whichever way it leans, and is not counted as a test.

    What the test can say is "not by luck". It cannot say why: exchange any word for any other, and dozens of latents
    differ in every pair. Pairs made from one template repeat themselves, too. So take several templates that share
    nothing but the one thing, keep what they have in common (`shared_contrasts`), and also run pairs that differ in a
    word that should not matter.

    Args:
        model, sae, target: what is being studied.
        pairs: (with, without) texts, as alike as can be but for the one thing.
        at: a latent's activation in a text is that of its strongest token, or, with "last", that on the last token.
            If the texts of a pair end in the same token, "last" asks what the model carries along: the words that
            differ are not looked at themselves.
        swap: the control. A seed: each pair is turned round or not, by a coin. What is found then is luck.

    Returns:
        latent, n_pairs (pairs in which it differs), difference (mean of first minus second over all pairs, in
        activation units), consistent (share of those n_pairs that lean the way most of them do), p, q. Smallest p
        first, of equal ones the largest difference. Latents that differ in no pair are left out.

    Raises:
        InputError: no pairs, an empty text, or an unknown place.
    """
    if at not in WHERE:
        raise unknown_name("place", at, WHERE)
    if isinstance(pairs, str) or not pairs or not all(
            isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
        raise InputError("pairs: expected a list of (text, text).")
    texts = [check_text(text, f"pairs[{i}]") for i, pair in enumerate(pairs) for text in pair]
    found = _activity(model, sae, target, texts, at).view(len(pairs), 2, -1)
    difference = found[:, 0] - found[:, 1]
    if swap is not None:
        coins = torch.rand(len(pairs), generator=torch.Generator().manual_seed(swap)) < 0.5
        difference = torch.where(coins[:, None], -difference, difference)
    return sign_tests(difference)


def shared_contrasts(tables: Sequence[pd.DataFrame], alpha: float = 0.05) -> pd.DataFrame:
    """The latents that several sets of pairs have in common: each finds them, and all lean the same way.

    Args:
        tables: from `contrast_pairs`, one for each template.
        alpha: the largest q that counts.

    Returns:
        latent, difference (the mean over the tables) and q (the largest), the largest difference first.

    Raises:
        InputError: fewer than two tables.
    """
    if len(tables) < 2:
        raise InputError(f"tables: expected two or more tables from contrast_pairs, got {len(tables)}.")
    found = [table[table["q"] <= alpha].set_index("latent") for table in tables]
    joined = pd.concat({i: table[["difference", "q"]] for i, table in enumerate(found)}, axis=1, join="inner")
    difference, q = (joined.xs(name, axis=1, level=1) for name in ("difference", "q"))
    same_way = (difference > 0).all(axis=1) | (difference < 0).all(axis=1)
    shared = pd.DataFrame({"difference": difference.mean(axis=1), "q": q.max(axis=1)})[same_way]
    order = shared["difference"].abs().sort_values(ascending=False, kind="stable").index
    return shared.loc[order].rename_axis("latent").reset_index()


def _activity(
    model: TransformerBridge, sae: SAE, target: Target, texts: list[str], at: str
) -> Tensor:
    """How strongly each latent is active in each text, [texts, latents]; BOS is left out."""
    tokens = as_tokens(model, texts)
    acts = extract(model, tokens, target.hook)[target.hook]
    rows = []
    for x, content in zip(acts, tokens.content, strict=True):
        x = x[content] if at == "strongest" else x[content][-1:]
        rows.append(encode(sae, x).amax(0).cpu())
    return torch.stack(rows)


def sign_tests(difference: Tensor) -> pd.DataFrame:
    """A two-sided sign test for each latent on paired differences [pairs, latents]; the table of `contrast_pairs`."""
    up, down = ((sign * difference > 0).sum(0).numpy() for sign in (1, -1))
    n = up + down
    most = np.maximum(up, down)
    p = np.minimum(1.0, 2 * binom.sf(most - 1, n, 0.5))
    tested = n >= LEAST_PAIRS
    q = np.ones(len(p))
    q[tested] = false_discovery_control(p[tested]) if tested.any() else 1.0
    table = pd.DataFrame({"latent": np.arange(len(n)), "n_pairs": n, "difference": difference.double().mean(0).numpy(),
                          "consistent": most / np.maximum(n, 1), "p": p, "q": q})[n > 0]
    size = table["difference"].abs()
    return table.assign(size=size).sort_values(["p", "size"], ascending=[True, False], kind="stable").drop(
        columns="size").reset_index(drop=True)
