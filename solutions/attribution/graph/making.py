"""Making the attribution graph of a prompt: who gave how much to whom, read off what was carried."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor

from solutions.attribution.graph.carried import Carried, carry, centred_unembedding
from solutions.attribution.graph.transcoders import Transcoders
from solutions.attribution.graph.whole import AttributionGraph
from solutions.data import Tokens, str_tokens
from solutions.errors import InputError

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

#: Logits that are nodes: the likeliest that have this probability together, and at most so many.
PROBABILITY, MOST_LOGITS = 0.95, 10

#: What nodes are called until somebody names them.
NAMES = {"token": "{token}", "latent": "{layer}/{latent}", "error": "missed by MLP {layer}", "BOS": "BOS, MLP {layer}"}


def attribution_graph(
    model: TransformerBridge,
    transcoders: Transcoders,
    prompt: str | Tokens,
    answers: Sequence[str] | None = None,
) -> AttributionGraph:
    """The attribution graph of what a model says after a prompt (Ameisen et al. 2025, "Circuit Tracing").

    Args:
        model: a loaded model.
        transcoders: one for every layer of it.
        prompt: one text, or one row of tokens without padding.
        answers: the logits that become nodes, as text, each one token; by default the likeliest that have a
            probability of 95% together, and at most ten.

    Returns:
        The whole graph. `prune` makes it readable.

    Raises:
        InputError: a layer without a transcoder, an answer that is no token of the model, several prompts, or a model
            that is not linear when its attention patterns and normalisation scales are held.

    Example:
        >>> graph = attribution_graph(model, load_transcoders(target, "cpu"), "The Eiffel Tower is in")
        >>> graph.nodes.loc[graph.logits()[0], "name"]
        ' Paris'
    """
    carried = carry(model, transcoders, prompt)
    probability = carried.logits.double().softmax(-1)
    ids = _likeliest(probability) if answers is None else [_token(model, answer) for answer in answers]
    shown = str_tokens(model, carried.tokens.ids[0])
    nodes = _nodes(model, carried, ids, probability, shown)
    direct, bias = _edges(model, transcoders, carried, ids)
    return AttributionGraph(shown, carried.tokens.ids, nodes, direct, bias, carried.error)


def _likeliest(probability: Tensor) -> list[int]:
    top = probability.topk(MOST_LOGITS)
    enough = int((top.values.cumsum(0) < PROBABILITY).sum()) + 1
    return top.indices[:enough].tolist()


def _token(model: TransformerBridge, answer: str) -> int:
    ids = model.tokenizer(answer, add_special_tokens=False)["input_ids"] if isinstance(answer, str) else []
    if len(ids) != 1:
        raise InputError(f"an answer must be one token of this model, got {answer!r}, which is {len(ids)}.")
    return ids[0]


def _nodes(
    model: TransformerBridge, carried: Carried, ids: list[int], probability: Tensor, shown: list[str]
) -> pd.DataFrame:
    parts, n_layers, last = carried.parts, model.cfg.n_layers, carried.tokens.ids.shape[1] - 1
    table = pd.DataFrame({
        "kind": parts.kind, "layer": parts.layer.tolist(), "position": parts.position.tolist(),
        "latent": parts.latent.tolist(), "value": parts.value.tolist(), "probability": 0.0,
    })
    ids_read = carried.tokens.ids[0].tolist()
    table["token"] = [ids_read[row.position] if row.kind == "token" else -1 for row in table.itertuples()]
    table["name"] = [NAMES[row.kind].format(token=shown[row.position], layer=row.layer, latent=row.latent)
                     for row in table.itertuples()]
    centred = (carried.logits - carried.logits.mean())[ids].tolist()
    logits = pd.DataFrame({
        "kind": "logit", "layer": n_layers, "position": last, "latent": -1, "token": ids, "value": centred,
        "probability": probability[ids].tolist(), "name": [model.tokenizer.decode([i]) for i in ids],
    })
    return pd.concat([table, logits], ignore_index=True)


def _edges(
    model: TransformerBridge, transcoders: Transcoders, carried: Carried, ids: list[int]
) -> tuple[Tensor, Tensor]:
    """What every part gives to every latent and logit, and what they get from biases."""
    parts, n = carried.parts, len(carried.parts)
    received = torch.zeros(n + len(ids), n + 1, dtype=torch.float64)
    bias = torch.zeros(n + len(ids), dtype=torch.float64)
    for layer, read in carried.at_mlp.items():
        rows = [i for i in (parts.layer == layer).nonzero()[:, 0].tolist() if parts.kind[i] == "latent"]
        latents, positions = parts.latent[rows], parts.position[rows]
        weights = transcoders[layer].W_enc[:, latents].detach().double()  # [d_model, m]
        read = read[:, positions].double()  # [n + 1, m, d_model]
        received[rows] = torch.einsum("nmd,dm->mn", read, weights).cpu()
        bias[rows] = transcoders[layer].b_enc.detach()[latents].double().cpu()
    directions, offsets = centred_unembedding(model, ids)
    received[n:] = (directions.detach().double() @ carried.at_logits.double().T).cpu()
    bias[n:] = offsets.detach().double().cpu()
    direct = torch.zeros(n + len(ids), n + len(ids), dtype=torch.float64)
    direct[:, :n] = received[:, :n]
    return direct, bias + received[:, n]
