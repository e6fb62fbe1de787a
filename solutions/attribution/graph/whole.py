"""The attribution graph of one prompt: who gave how much to whom, from the tokens to the logits.

Nodes are the tokens, the latents of the transcoders that were active, what the transcoders missed, and some logits.
An edge is what its source gives *directly* to its target, through the residual stream and the frozen attention, past
all other MLPs (Ameisen et al. 2025, "Circuit Tracing", section "Constructing an Attribution Graph for a Prompt"). The
edges into a node and its bias add up to its value. `influence` follows all the paths to the logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import Tensor

from solutions.errors import InputError, check_count, unknown_name, whole_number

#: Kinds of nodes that have an input of their own in the model: the sum of the edges into them is a number there.
READERS = ("latent", "logit")


@dataclass(frozen=True)
class AttributionGraph:
    """Nodes and direct effects. Made by `attribution_graph`, made smaller by `prune`.

    Attributes:
        tokens: the prompt's tokens as text, BOS included.
        ids: [1, pos] int64 their numbers, as the model reads them.
        nodes: a row for each node: `kind` ("token", "latent", "error", "BOS", "logit"), `layer` (-1 for tokens, the
            number of layers for logits), `position`, `latent` and `token` (its number, where it has one; else -1),
            `value` (a latent's activation, a logit less the mean of all logits, otherwise the length of what was
            written), `probability` (of logits, else 0), and `name`.
        direct: [node, node] float64; `direct[t, s]` is what node s gives directly to node t.
        bias: [node] float64, what a node gets from the model's biases alone.
        error: how far the sums are from the model's own numbers (see `Carried`).
    """

    tokens: list[str]
    ids: Tensor
    nodes: pd.DataFrame
    direct: Tensor
    bias: Tensor
    error: float = 0.0

    def __len__(self) -> int:
        return len(self.nodes)

    def __repr__(self) -> str:
        counts = ", ".join(f"{n} {kind}" for kind, n in self.nodes["kind"].value_counts().items())
        return f"<AttributionGraph {''.join(self.tokens)!r}: {counts}; {int((self.direct != 0).sum())} edges>"

    # ---- influence

    def normalised(self) -> Tensor:
        """The sizes of the edges, those into each node adding up to one (or to nothing).

        Returns:
            [node, node] float64.
        """
        size = self.direct.abs()
        return size / size.sum(dim=1, keepdim=True).clamp_min(1e-30)

    def influence(self) -> pd.Series:
        """How much each node matters for the logits, along all paths.

        The sizes of the edges into a node are made to add up to one. Along a path they multiply, over paths they
        add: A + A² + … = (I - A)⁻¹ - I. Then the mean over the logits, weighted by their probability (Ameisen et al.
        2025, section "Graph Pruning" of the appendix). Signs are left out: what pulls down influences, too.

        Returns:
            [node] shares; a token and an error may be compared, they are in the same unit.

        Example:
            >>> graph = attribution_graph(model, load_transcoders(target, "cpu"), "The Eiffel Tower is in")
            >>> graph.influence().groupby(graph.nodes["kind"]).sum().gt(0).to_dict()
            {'BOS': True, 'error': True, 'latent': True, 'logit': False, 'token': True}
        """
        weights = self._weights()
        identity = torch.eye(len(self), dtype=torch.float64)
        paths = torch.linalg.solve((identity - self.normalised()).T, weights)  # weights (I - A)⁻¹
        return pd.Series((paths - weights).tolist(), index=self.nodes.index, name="influence")

    def effects(self, logit: int | None = None) -> pd.Series:
        """What each node gives to a logit along all paths, with its sign: what would be missing without it.

        In the frozen model, whose active latents stay active, this is exact: a latent passes on what it gets in
        proportion. In the model it is a prediction.

        Args:
            logit: the node; by default the likeliest logit.

        Returns:
            [node] logits (natural units of the softmax).

        Raises:
            InputError: there is no such logit in the graph.

        Example:
            >>> graph = attribution_graph(model, load_transcoders(target, "cpu"), "The Eiffel Tower is in")
            >>> len(graph.effects()) == len(graph)
            True
        """
        logit = self._logit(logit)
        reads = torch.tensor((self.nodes["kind"] == "latent").to_numpy())
        value = torch.tensor(self.nodes["value"].to_numpy(), dtype=torch.float64)
        passed = torch.where(reads[:, None], self.direct / torch.where(reads, value, 1.0)[:, None], 0.0)
        identity = torch.eye(len(self), dtype=torch.float64)
        total = torch.linalg.solve((identity - passed).T, self.direct[self._row(logit)])
        return pd.Series(total.tolist(), index=self.nodes.index, name="effect")

    def scores(self) -> dict[str, float]:
        """How much of the graph is not error: two shares from 0 to 1 (Ameisen et al. 2025, appendix on graph scores).

        Returns:
            Two shares by name. Of all influence that comes from tokens or errors, `replacement` is the share that
            comes from tokens. Of the edges into a node, `completeness` is the share that does not come from an error,
            averaged over nodes by their influence; it is kinder, because paths may still end in an error further down.

        Example:
            >>> graph = attribution_graph(model, load_transcoders(target, "cpu"), "The Eiffel Tower is in")
            >>> all(0 <= share <= 1 for share in graph.scores().values())
            True
        """
        influence, kind = self.influence(), self.nodes["kind"]
        known, missed = influence[kind.isin(("token", "BOS"))].sum(), influence[kind == "error"].sum()
        errors = torch.tensor((kind == "error").to_numpy())
        reads = kind.isin(READERS)
        weight = (influence + self.nodes["probability"])[reads]
        from_error = pd.Series(self.normalised()[:, errors].sum(dim=1).tolist(), index=self.nodes.index)[reads]
        completeness = float((weight * (1 - from_error)).sum() / weight.sum())
        return {"replacement": float(known / (known + missed)), "completeness": completeness}

    # ---- looking at parts of it

    def prune(self, nodes: float = 0.8, edges: float = 0.98) -> AttributionGraph:
        """The part of the graph that has most of the influence.

        Tokens and logits always stay. Of the other nodes stay the most influential, until they have this share of all
        influence; then of the edges among what is left the same. Nodes that hang in the air go.

        Args:
            nodes: share of the influence that the nodes keep, 0 to 1.
            edges: share of it that the edges keep.

        Returns:
            A smaller graph. Its edges no longer add up to the values, which is what pruning costs.

        Raises:
            InputError: a share outside 0 to 1.

        Example:
            >>> graph = attribution_graph(model, load_transcoders(target, "cpu"), "The Eiffel Tower is in")
            >>> len(graph.prune(0.5)) < len(graph.prune(0.9)) < len(graph)
            True
        """
        _check_share(nodes, "nodes"), _check_share(edges, "edges")
        ends = torch.tensor(self.nodes["kind"].isin(("token", "logit")).to_numpy())
        kept = _most(torch.tensor(self.influence().to_numpy()), nodes) | ends
        small = self._part(kept)
        through = torch.tensor((small.influence() + small.nodes["probability"]).to_numpy())
        score = small.normalised() * through[:, None]
        chosen = _most(score.flatten(), edges).reshape(score.shape)
        small = replace(small, direct=torch.where(chosen, small.direct, 0.0))
        while True:
            kind = small.nodes["kind"]
            hangs = (small.direct == 0).all(dim=0) & torch.tensor((~kind.isin(("token", "logit"))).to_numpy())
            starts = (small.direct == 0).all(dim=1) & torch.tensor((kind == "latent").to_numpy())
            if not (hangs | starts).any():
                return small
            small = small._part(~(hangs | starts))

    def inputs(self, node: int, k: int = 10) -> pd.DataFrame:
        """The nodes that give most to a node directly.

        Args:
            node: the row's label in `nodes`.
            k: how many.

        Returns:
            Rows of `nodes` with `weight`, what they give, the largest in size first, and its `share` of the sizes of
            all edges into the node.

        Raises:
            InputError: there is no such node.

        Example:
            >>> graph = attribution_graph(model, load_transcoders(target, "cpu"), "The Eiffel Tower is in")
            >>> len(graph.inputs(graph.logits()[0], k=5))
            5
        """
        return self._neighbours(self.direct[self._row(node)], k)

    def outputs(self, node: int, k: int = 10) -> pd.DataFrame:
        """The nodes that a node gives most to directly.

        Args:
            node: the row's label in `nodes`.
            k: how many.

        Returns:
            Rows of `nodes` with `weight`, what they get, the largest in size first, and its `share` of the sizes of
            all edges into each.

        Raises:
            InputError: there is no such node.

        Example:
            >>> graph = attribution_graph(model, load_transcoders(target, "cpu"), "The Eiffel Tower is in")
            >>> token = graph.nodes.index[graph.nodes["kind"] == "token"][-1]
            >>> (graph.outputs(token)["layer"] >= 0).all().item()
            True
        """
        row = self._row(node)
        return self._neighbours(self.direct[:, row], k, self.normalised()[:, row])

    def logits(self) -> list[int]:
        """The labels of the logits, the likeliest first.

        Returns:
            Labels of `nodes`.
        """
        found = self.nodes[self.nodes["kind"] == "logit"]
        return found.sort_values("probability", ascending=False).index.tolist()

    def strongest(self, k: int, kind: str = "latent") -> list[int]:
        """The labels of the `k` most influential nodes of a kind, the strongest first.

        Args:
            k: how many; fewer where there are no more.
            kind: "latent", "token", "error" or "BOS".

        Returns:
            Labels of `nodes`.

        Raises:
            InputError: an unknown kind, or a `k` below 1.

        Example:
            >>> graph = attribution_graph(model, load_transcoders(target, "cpu"), "The Eiffel Tower is in")
            >>> len(graph.strongest(3))
            3
        """
        kinds = ("latent", "token", "error", "BOS")
        if kind not in kinds:
            raise unknown_name("kind of node", kind, kinds)
        return self.influence()[self.nodes["kind"] == kind].nlargest(check_count(k, "k")).index.tolist()

    def node(self, label: int) -> pd.Series:
        """The row of `nodes` with this label.

        Args:
            label: the node.

        Returns:
            Its row.

        Raises:
            InputError: there is no such node.
        """
        return self.nodes.iloc[self._row(label)]

    def edges(self) -> pd.DataFrame:
        """Every edge.

        Returns:
            A row for each, with `source`, `target` (labels of nodes) and `weight`, the largest in size first.
        """
        target, source = self.direct.nonzero(as_tuple=True)
        weight, label = self.direct[target, source], self.nodes.index.to_numpy()
        table = pd.DataFrame({"source": label[source], "target": label[target], "weight": weight.numpy()})
        return table.sort_values("weight", key=abs, ascending=False, ignore_index=True)

    def named(self, names: Mapping[tuple[int, int], str]) -> AttributionGraph:
        """The same graph with names for latents.

        Args:
            names: (layer, latent) to a name; those that are missing keep theirs.

        Returns:
            A new graph.
        """
        nodes = self.nodes.copy()
        for label, row in nodes[nodes["kind"] == "latent"].iterrows():
            nodes.loc[label, "name"] = names.get((row["layer"], row["latent"]), row["name"])
        return replace(self, nodes=nodes)

    # ---- inside

    def _weights(self) -> Tensor:
        return torch.tensor(self.nodes["probability"].to_numpy(), dtype=torch.float64)

    def _row(self, node: object) -> int:
        number = whole_number(node)
        if number is None or number not in self.nodes.index:
            raise InputError(f"no node {node!r} in this graph; see `nodes` for their labels.")
        return int(self.nodes.index.get_loc(number))

    def _logit(self, logit: int | None) -> int:
        known = self.logits()
        if logit is not None and logit not in known:
            raise InputError(f"node {logit!r} is no logit; the graph's logits are {known}.")
        return known[0] if logit is None else logit

    def _part(self, kept: Tensor) -> AttributionGraph:
        return replace(
            self, nodes=self.nodes[kept.numpy()], direct=self.direct[kept][:, kept], bias=self.bias[kept]
        )

    def _neighbours(self, weights: Tensor, k: int, share: Tensor | None = None) -> pd.DataFrame:
        share = weights.abs() / weights.abs().sum().clamp_min(1e-30) if share is None else share
        table = self.nodes.assign(weight=weights.numpy(), share=share.numpy())
        table = table[table["weight"] != 0].sort_values("weight", key=abs, ascending=False)
        return table.head(check_count(k, "k"))


def _most(scores: Tensor, share: float) -> Tensor:
    """[n] bool: the largest, until they have this share of the sum."""
    order = scores.argsort(descending=True)
    before = scores[order].cumsum(0) - scores[order]
    kept = torch.zeros(len(scores), dtype=torch.bool)
    kept[order[(before < share * scores.sum()) & (scores[order] > 0)]] = True
    return kept


def _check_share(value: object, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InputError(f"{name} must be a share from 0 to 1, got {value!r}.")
