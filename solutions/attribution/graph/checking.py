"""Whether a graph says something about the model: what is lost by replacing the MLPs, and what its nodes do.

A graph is drawn of a model that is not the one it explains: errors are nodes without meaning, and patterns, scales and
active latents are held. So its claims are tested where they are about: in the model as it is, with nothing frozen
(Ameisen et al. 2025, "Circuit Tracing", section "Validating Attribution Graph Hypotheses with Interventions").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from solutions.attribution.frozen import holding, names_to_hold
from solutions.attribution.graph.transcoders import (
    MLP_OUT,
    Transcoders,
    check_transcoders,
    mlp_latents_edited,
    replaced,
    rewritten,
)
from solutions.attribution.graph.whole import AttributionGraph
from solutions.data import Text, Tokens
from solutions.errors import InputError, check_count
from solutions.interventions.facts import Fact, ask
from solutions.models import as_tokens, next_token_loss, read_hooks

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

#: A control node is drawn among so many whose activations are nearest.
NEAREST = 8


# ---- the whole replacement model


@torch.no_grad()
def replacement_quality(
    model: TransformerBridge,
    transcoders: Transcoders,
    texts: Sequence[str] | Sequence[Text] | Tokens,
    facts: Sequence[Fact] = (),
) -> pd.DataFrame:
    """What a model loses when transcoders stand in for its MLPs, one at a time and all together.

    The control is the mean of what each MLP writes, in place of all of it: a stand-in that has seen nothing of the
    text.

    Args:
        model: a loaded model.
        transcoders: layer to transcoder.
        texts: texts, or tokens; not those that the transcoders were trained on.
        facts: facts to ask for besides.

    Returns:
        A row for each run ("as it is", "MLP 0", …, "all", "all, by their means"), with `loss_added` (nats per
        token), `kl` (nats per token, from the model's own predictions), `same_top` (share of tokens with the
        same likeliest next token) and, with facts, `facts` (share whose answer beats all others of its kind).

    Raises:
        InputError: transcoders that do not fit the model, or an empty text.

    Example:
        >>> transcoders = load_transcoders(get_target("smallworld"), "cpu")
        >>> replacement_quality(model, transcoders, [text]).index.tolist()
        ['as it is', 'MLP 0', 'MLP 1', 'MLP 2', 'MLP 3', 'all', 'all, by their means']
    """
    transcoders, tokens = check_transcoders(model, transcoders), as_tokens(model, texts)
    bos = bool(tokens.bos.any())
    ways = {"as it is": nullcontext}
    for layer, transcoder in transcoders.items():
        ways[f"MLP {layer}"] = lambda one={layer: transcoder}: replaced(model, one, bos)
    ways["all"] = lambda: replaced(model, transcoders, bos)
    ways["all, by their means"] = lambda: _by_means(model, transcoders, tokens)
    asked = ask(model, facts) if facts else None
    clean, rows = None, {}
    for name, way in ways.items():
        with way():
            logits = model(tokens.ids)
            known = asked.correct(model(asked.tokens.ids)).float().mean().item() if asked else None
        mine = logits[tokens.content].log_softmax(-1)
        clean = mine if clean is None else clean
        loss = next_token_loss(logits, tokens).mean().item()
        rows[name] = {"loss_added": loss} | _compare(mine, clean) | ({"facts": known} if asked else {})
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("run")
    table["loss_added"] -= table["loss_added"].iloc[0]
    return table


def _compare(mine: Tensor, clean: Tensor) -> dict[str, float]:
    """Two lists of log-probabilities [token, vocabulary]."""
    return {
        "kl": F.kl_div(mine, clean, reduction="batchmean", log_target=True).item(),
        "same_top": (mine.argmax(-1) == clean.argmax(-1)).float().mean().item(),
    }


@contextmanager
def _by_means(model: TransformerBridge, transcoders: Transcoders, tokens: Tokens) -> Iterator[None]:
    hooks = {layer: MLP_OUT.format(layer) for layer in transcoders}
    read = read_hooks(model, tokens.ids, list(hooks.values()))
    means = {layer: read[hook][tokens.content].mean(0) for layer, hook in hooks.items()}

    def mean_instead(layer: int, _: Tensor, written: Tensor) -> Tensor:
        return torch.cat([written[:, :1], means[layer].expand_as(written[:, 1:])], dim=1)

    with rewritten(model, list(transcoders), mean_instead):
        yield


# ---- nodes of a graph


@torch.no_grad()
def logits_without(
    model: TransformerBridge,
    transcoders: Transcoders,
    graph: AttributionGraph,
    sets: Sequence[Sequence[int]],
    hold: Sequence[str] = (),
) -> Tensor:
    """The model's logits after the prompt when the latents of some nodes are set to zero, for several sets of nodes.

    The errors of the transcoders stay, and later MLPs answer to what has changed. Nothing is frozen, unless you say so.

    Args:
        model: a loaded model.
        transcoders: those that the graph was made with.
        graph: the graph; it may be pruned.
        sets: for each run the labels of the nodes whose latents are set to zero. An empty one leaves the model alone.
        hold: "scales" (of the normalisations), "patterns" (of attention), or both: they stay what they were.

    Returns:
        [set, vocabulary] logits at the last position.

    Raises:
        InputError: a node that is no latent of the graph, or something else to hold.

    Example:
        >>> transcoders = load_transcoders(get_target("smallworld"), "cpu")
        >>> graph = attribution_graph(model, transcoders, "The Eiffel Tower is in")
        >>> logits_without(model, transcoders, graph, [[], graph.strongest(5)]).shape
        torch.Size([2, 4096])
    """
    transcoders = check_transcoders(model, transcoders)
    places: dict[int, list[tuple[int, int, int]]] = {}
    for run, labels in enumerate(sets):
        for label in labels:
            node = graph.node(label)
            if node["kind"] != "latent":
                raise InputError(f"only latents can be set to zero; node {label} is of the kind {node['kind']!r}.")
            places.setdefault(int(node["layer"]), []).append((run, int(node["position"]), int(node["latent"])))
    edits = {layer: _zero_in_rows(where) for layer, where in places.items()}
    with held(model, graph.ids, hold), mlp_latents_edited(model, transcoders, edits, bos=False):  # BOS has no nodes
        return model(graph.ids.expand(len(sets), -1))[:, -1]


@contextmanager
def held(model: TransformerBridge, ids: Tensor, hold: Sequence[str]) -> Iterator[None]:
    """While this is open, scales or patterns stay what they were on one row of ids [1, pos], whatever is edited.

    `attribution.frozen` holds the neurons as well, and so makes the model linear; here the MLPs answer to an edit.
    """
    names = names_to_hold(model, hold)
    with holding(model, read_hooks(model, ids, names) if names else {}):
        yield


def _zero_in_rows(where: list[tuple[int, int, int]]) -> Callable[[Tensor], Tensor]:
    rows, positions, latents = (torch.tensor(column) for column in zip(*where, strict=True))

    def edit(z: Tensor) -> Tensor:
        z = z.clone()
        z[rows, positions, latents] = 0.0
        return z

    return edit


def alike(graph: AttributionGraph, nodes: Sequence[int], seed: int = 0) -> list[int]:
    """As many other latents of the graph, drawn at random among those with about the same activations.

    The control for an ablation: taking something of this size out of this prompt does some harm, whatever it is.

    Args:
        graph: the whole graph, from which controls are drawn.
        nodes: labels of latents.
        seed: the same seed draws the same.

    Returns:
        A label for each of the nodes; none of them among the nodes, none twice.

    Raises:
        InputError: the graph has too few other latents, or no such node.

    Example:
        >>> graph = attribution_graph(model, load_transcoders(target, "cpu"), "The Eiffel Tower is in")
        >>> chosen = graph.strongest(5)
        >>> len(set(alike(graph, chosen)) - set(chosen))
        5
    """
    dice = np.random.default_rng(check_count(seed, "seed", least=0))
    latents = graph.nodes[graph.nodes["kind"] == "latent"]
    free = latents["value"].drop([int(node) for node in nodes if graph.node(node) is not None], errors="ignore")
    if len(free) < len(nodes):
        raise InputError(f"{len(nodes)} controls wanted, but the graph has only {len(free)} other latents.")
    drawn = []
    for node in nodes:
        near = (free - graph.node(node)["value"]).abs().nsmallest(NEAREST)
        drawn.append(int(dice.choice(near.index.to_numpy())))
        free = free.drop(drawn[-1])
    return drawn


def knock_out(
    model: TransformerBridge,
    transcoders: Transcoders,
    graph: AttributionGraph,
    sizes: Sequence[int] = (1, 2, 4, 8, 16, 32),
    seeds: Sequence[int] = range(5),
) -> pd.DataFrame:
    """Take the most influential latents out of the model, more and more of them, and as many others as a control.

    Args:
        model: a loaded model.
        transcoders: those that the graph was made with.
        graph: the whole graph.
        sizes: how many latents are set to zero, each with its position.
        seeds: of the controls, see `alike`.

    Returns:
        A row for each run, with `nodes` (how many), `chosen` ("by influence", "at random"), `seed` (-1 for the first),
        and of the graph's likeliest logit `logit` (less the mean of all logits) and `probability`. The first row is
        the model as it is.

    Raises:
        InputError: more nodes than the graph has latents to choose and to compare with.

    Example:
        >>> transcoders = load_transcoders(get_target("smallworld"), "cpu")
        >>> graph = attribution_graph(model, transcoders, "The Eiffel Tower is in")
        >>> knock_out(model, transcoders, graph, sizes=[4], seeds=[0, 1])["chosen"].tolist()
        ['by influence', 'by influence', 'at random', 'at random']
    """
    runs = [(0, "by influence", -1, [])]
    for size in sizes:
        chosen = graph.strongest(check_count(size, "a size"))
        runs.append((size, "by influence", -1, chosen))
        runs += [(size, "at random", seed, alike(graph, chosen, seed)) for seed in seeds]
    table = pd.DataFrame([run[:3] for run in runs], columns=["nodes", "chosen", "seed"])
    return table.assign(**_answer(model, transcoders, graph, [run[3] for run in runs]))


def one_at_a_time(
    model: TransformerBridge,
    transcoders: Transcoders,
    graph: AttributionGraph,
    nodes: Sequence[int],
    hold: Sequence[str] = (),
) -> pd.DataFrame:
    """What the graph predicts for each latent, and what happens in the model when it is set to zero alone.

    Args:
        model: a loaded model.
        transcoders: those that the graph was made with.
        graph: the whole graph.
        nodes: labels of latents.
        hold: what stays as it was, see `logits_without`. With both, only the later latents are free to change.

    Returns:
        Rows of `graph.nodes` with `predicted` (see `AttributionGraph.effects`) and `measured`, which is by how much the
        graph's likeliest logit, less the mean of all, falls.

    Raises:
        InputError: a node that is no latent of the graph, or something else to hold.

    Example:
        >>> transcoders = load_transcoders(get_target("smallworld"), "cpu")
        >>> graph = attribution_graph(model, transcoders, "The Eiffel Tower is in")
        >>> len(one_at_a_time(model, transcoders, graph, graph.strongest(3)))
        3
    """
    logit = _answer(model, transcoders, graph, [[], *([int(node)] for node in nodes)], hold)["logit"]
    table = graph.nodes.loc[list(nodes)]
    return table.assign(predicted=graph.effects()[list(nodes)], measured=[logit[0] - left for left in logit[1:]])


def _answer(
    model: TransformerBridge,
    transcoders: Transcoders,
    graph: AttributionGraph,
    sets: Sequence[Sequence[int]],
    hold: Sequence[str] = (),
) -> dict[str, list[float]]:
    """The likeliest logit of the graph in each run."""
    logits = logits_without(model, transcoders, graph, sets, hold)
    answer = int(graph.node(graph.logits()[0])["token"])
    centred = logits[:, answer] - logits.mean(dim=1)
    return {"logit": centred.tolist(), "probability": logits.softmax(-1)[:, answer].tolist()}
