"""What the latents of transcoders are about: where they are active, and which tokens they write for.

A name in a graph is read as an explanation. These are none. They are the tokens on which most of a latent's activity
falls, and the tokens whose logits its decoder row raises on the direct path; chapter 5 says how far to trust that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor

from solutions.attribution.graph.transcoders import Transcoders, check_transcoders, mlp_latents
from solutions.attribution.graph.whole import AttributionGraph
from solutions.data import Text, Tokens, str_tokens
from solutions.errors import InputError, check_count
from solutions.models import as_tokens, unembedding

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

#: Tokens of text before the strongest place, for the example.
BEFORE = 8

#: Rows of text that go through the model at once.
ROWS = 64


@torch.no_grad()
def describe_latents(
    model: TransformerBridge,
    transcoders: Transcoders,
    latents: Sequence[tuple[int, int]],
    texts: Sequence[str] | Sequence[Text] | Tokens,
    k: int = 3,
) -> pd.DataFrame:
    """Where some latents are active, and what they write for.

    Args:
        model: a loaded model.
        transcoders: layer to transcoder.
        latents: (layer, latent) of each.
        texts: ordinary text to look for them in.
        k: how many tokens of each sort are named.

    Returns:
        A row for each latent, in the order given, with `layer`, `latent`, `density` (share of tokens on which it is
        active), `tokens` (those with most of its activity), `share` (of its activity that falls on them), `promotes`
        (tokens whose logits it raises most), `example` (the text up to its strongest place), and `name`, made of these.

    Raises:
        InputError: a layer without a transcoder or a latent that it does not have, or an empty text.

    Example:
        >>> transcoders = load_transcoders(get_target("smallworld"), "cpu")
        >>> describe_latents(model, transcoders, [(0, 3), (2, 17)], [text])["layer"].tolist()
        [0, 2]
    """
    transcoders, tokens = check_transcoders(model, transcoders), as_tokens(model, texts)
    wanted: dict[int, list[int]] = {}
    for layer, latent in latents:
        if layer not in transcoders or not 0 <= latent < transcoders[layer].W_dec.shape[0]:
            raise InputError(f"no latent {latent!r} of a transcoder of layer {layer!r} here.")
        wanted.setdefault(int(layer), []).append(int(latent))
    activity = _activity(model, {layer: transcoders[layer] for layer in wanted}, wanted, tokens)
    effects = unembedding(model)
    rows = {}
    for layer, chosen in wanted.items():
        promotes = (transcoders[layer].W_dec[chosen] @ effects).topk(check_count(k, "k"), dim=1).indices
        for i, latent in enumerate(chosen):
            rows[layer, latent] = _describe(model, tokens, activity[layer][..., i], k) | {
                "promotes": str_tokens(model, promotes[i])
            }
    table = pd.DataFrame([{"layer": layer, "latent": latent, **rows[layer, latent]} for layer, latent in latents])
    return table.assign(name=[_name(row) for row in table.to_dict("records")])


def _activity(
    model: TransformerBridge, transcoders: Transcoders, wanted: dict[int, list[int]], tokens: Tokens
) -> dict[int, Tensor]:
    """Layer to [batch, pos, chosen latents]."""
    parts: dict[int, list[Tensor]] = {layer: [] for layer in wanted}
    for start in range(0, len(tokens), ROWS):
        some = mlp_latents(model, transcoders, tokens[start : start + ROWS])
        for layer, chosen in wanted.items():
            parts[layer].append(some[layer][..., chosen])
    return {layer: torch.cat(rows) for layer, rows in parts.items()}


def _describe(model: TransformerBridge, tokens: Tokens, acts: Tensor, k: int) -> dict[str, object]:
    """What one latent's activations [batch, pos] say about it."""
    total = torch.zeros(model.cfg.d_vocab, device=acts.device).index_add_(0, tokens.ids.flatten(), acts.flatten())
    density = float((acts > 0).sum() / tokens.n_content)
    if not total.any():
        return {"density": 0.0, "tokens": [], "share": float("nan"), "example": ""}
    top = total.topk(k)
    kept = top.indices[top.values > 0]
    row, position = divmod(int(acts.argmax()), acts.shape[1])
    words = str_tokens(model, tokens.ids[row, max(1, position - BEFORE + 1) : position + 1])
    return {
        "density": density, "tokens": str_tokens(model, kept), "share": float(total[kept].sum() / total.sum()),
        "example": "".join(words),
    }


def _name(row: dict) -> str:
    """Short enough for a figure: the tokens it is active on, an arrow, the tokens it writes for."""
    on, to = (", ".join(token.strip() or repr(token) for token in row[part]) for part in ("tokens", "promotes"))
    return f"{row['layer']}/{row['latent']} on {on or 'nothing here'} → {to}"


def with_names(
    model: TransformerBridge,
    transcoders: Transcoders,
    graph: AttributionGraph,
    texts: Sequence[str] | Sequence[Text] | Tokens,
) -> AttributionGraph:
    """The same graph, its latents named by `describe_latents`.

    Args:
        model: a loaded model.
        transcoders: those that the graph was made with.
        graph: the graph, better pruned first.
        texts: ordinary text to look for its latents in.

    Returns:
        A new graph.

    Raises:
        InputError: an empty text.

    Example:
        >>> transcoders = load_transcoders(get_target("smallworld"), "cpu")
        >>> graph = attribution_graph(model, transcoders, "The Eiffel Tower is in").prune(0.3)
        >>> len(with_names(model, transcoders, graph, [text])) == len(graph)
        True
    """
    nodes = graph.nodes[graph.nodes["kind"] == "latent"]
    latents = list(dict.fromkeys(zip(nodes["layer"].tolist(), nodes["latent"].tolist(), strict=True)))
    if not latents:
        return graph
    table = describe_latents(model, transcoders, latents, texts)
    return graph.named(dict(zip(latents, table["name"], strict=True)))
