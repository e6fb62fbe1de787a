"""A test bench for circuits through several layers: the SAEs of all of them are in the model at the same time.

At every hook point the activation x is written as decode(f) + error, as it would be for one SAE. A *node* is one
latent f of one layer, at one position (Marks et al. 2024, arXiv 2403.19647, section 3.1, do so for prompts of one
template, and add a latent's positions up for all others; both can be had here). Nodes outside of the set kept are put
to their baseline at every layer in the same run.

The layers then compound. What an early layer lost changes the activations of the next, and so what its SAE encodes
and what it leaves out. So a latent that is kept takes its value, like the error, from the run in progress. Had it
the value it has in the untouched model, a kept latent of the last layer would bring an answer along that nothing
before it had computed. Likewise a latent that is silent in the untouched model may wake up when others are ablated:
to keep a set ablates it, to remove the set's complement among the `candidates` does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from solutions.data import Text, Tokens, str_tokens
from solutions.errors import InputError, check_count, check_position, check_tensor, unknown_name, whole_number
from solutions.interventions.ablation import taken_out
from solutions.interventions.bench import AnyBench, apart, largest_first
from solutions.interventions.edits import check_latents
from solutions.interventions.facts import Asked, Fact, ask
from solutions.interventions.patching import Pair, paired_facts
from solutions.models import as_tokens, check_hooks, extract, layer_of
from solutions.sae.measure import check_sae, decode, encode

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

#: What becomes of the SAEs' reconstruction errors: they are never ablated, always, or each is a node like a latent.
ERRORS = ("keep", "ablate", "node")


class Readings(NamedTuple):
    """What SAEs make of activations at their hook points: the latents, and what they leave out."""

    latents: dict[str, Tensor]
    """For each hook point [d_sae], or [facts, pos, d_sae]."""
    errors: dict[str, Tensor]
    """For each hook point [d_in], or [facts, pos, d_in]."""


def _read(saes: Mapping[str, SAE], acts: Mapping[str, Tensor]) -> Readings:
    """The activations [..., d_in] of each hook point, taken apart."""
    latents, errors = {}, {}
    for hook, sae in saes.items():
        x = acts[hook].float()
        if x.shape[-1] != sae.cfg.d_in:
            raise InputError(f"the SAE given for {hook!r} reads activations of width {sae.cfg.d_in}; those there have "
                             f"{x.shape[-1]}. Use the hook point that each SAE was trained on.")
        latents[hook] = encode(sae, x)
        errors[hook] = x - decode(sae, latents[hook])
    return Readings(latents, errors)


def _checked_saes(model: TransformerBridge, saes: Mapping[str, SAE]) -> dict[str, SAE]:
    """The SAEs by hook point, if the model has these hook points."""
    if not isinstance(saes, Mapping) or not saes:
        raise InputError("saes must map hook points to SAEs, e.g. {target.hook: sae}; see saes_by_layer for all of a "
                         f"target's layers. Got {type(saes).__name__}.")
    for sae in saes.values():
        check_sae(sae)
    return dict(zip(check_hooks(model, list(saes)), saes.values(), strict=True))


@torch.no_grad()
def mean_readings(
    model: TransformerBridge, saes: Mapping[str, SAE], texts: str | Sequence[str] | Sequence[Text] | Tokens
) -> Readings:
    """What every latent and every error usually is: the mean over the real tokens of some texts.

    Args:
        model: a loaded model.
        saes: the SAE of each hook point.
        texts: ordinary texts, or tokens.

    Returns:
        A baseline for `LayerBench`, with [d_sae] and [d_in] for each hook point.

    Raises:
        InputError: an unknown hook point, an empty text, or an SAE of another width.
    """
    saes, tokens = _checked_saes(model, saes), as_tokens(model, texts)
    acts = {hook: x[tokens.content] for hook, x in extract(model, tokens, list(saes)).items()}
    total: Readings | None = None
    n = len(acts[next(iter(saes))])
    for start in range(0, n, 4096):  # a wide SAE's latents of all tokens would be large
        part = _read(saes, {hook: x[start : start + 4096] for hook, x in acts.items()})
        sums = [{hook: x.sum(0) for hook, x in kind.items()} for kind in part]
        total = Readings(*sums) if total is None else Readings(
            *({hook: old[hook] + new[hook] for hook in saes} for old, new in zip(total, sums, strict=True)))
    assert total is not None
    return Readings(*({hook: x / n for hook, x in kind.items()} for kind in total))


@torch.no_grad()
def resampled_readings(
    model: TransformerBridge,
    saes: Mapping[str, SAE],
    texts: str | Sequence[str] | Sequence[Text] | Tokens,
    facts: Sequence[Fact] | Asked,
    seed: int = 0,
) -> Readings:
    """What every latent and every error might be: their values at tokens drawn from some texts.

    Args:
        model: a loaded model.
        saes: the SAE of each hook point.
        texts: ordinary texts, or tokens.
        facts: what will be asked. For each of its tokens another is drawn, the same at all layers.
        seed: of the draw.

    Returns:
        A baseline for `LayerBench`, with [facts, pos, d_sae] and [facts, pos, d_in] for each hook point.

    Raises:
        InputError: as for `mean_readings`.
    """
    saes, tokens = _checked_saes(model, saes), as_tokens(model, texts)
    asked = facts if isinstance(facts, Asked) else ask(model, facts)
    acts = {hook: x[tokens.content] for hook, x in extract(model, tokens, list(saes)).items()}
    dice = torch.Generator().manual_seed(seed)
    drawn = torch.randint(int(tokens.content.sum()), asked.tokens.ids.shape, generator=dice)
    return _read(saes, {hook: x[drawn.to(x.device)] for hook, x in acts.items()})


def other_readings(
    model: TransformerBridge, saes: Mapping[str, SAE], pairs: Sequence[Pair]
) -> tuple[list[Fact], Readings]:
    """`other_prompts` for several layers: the facts of some pairs, and what the SAEs read on the corrupt prompts.

    Args:
        model: a loaded model.
        saes: the SAE of each hook point.
        pairs: pairs of facts.

    Returns:
        The clean facts, each with the corrupt answer as its foil, and a baseline for `LayerBench`.

    Raises:
        InputError: no pairs, an unknown hook point, or the prompts of a pair have different lengths.
    """
    saes = _checked_saes(model, saes)
    facts, elsewhere = paired_facts(model, pairs)
    return facts, _read(saes, extract(model, elsewhere.tokens, list(saes)))


class LayerBench(AnyBench):
    """One model, the SAEs of several layers and some facts, made ready to try many sets of nodes on.

    A node has a number, as a latent has on a `Bench`: `number` gives it, `table` takes it back. With `errors="node"`
    what an SAE leaves out at one layer and position is a node, too.

    Args:
        model: a loaded model.
        saes: the SAE of each hook point, from the first layer to the last. All of them are in the model together.
        facts: the facts, or what `ask` made of them.
        baseline: what stands in for what is ablated: `mean_readings`, `resampled_readings` or `other_readings`; zeros
            by default.
        errors: "keep" never ablates what the SAEs leave out, "ablate" always, "node" unless the set has its node.
        by_position: each position has nodes of its own, which needs prompts of one length. Otherwise a latent is one
            node, kept or ablated at all positions together.
        batch_size: rows that go through the model at once.

    Attributes:
        hooks: the hook points.
        activation: [facts, nodes] how far each node is from its baseline on each prompt, added up over positions
            where these share a node; of an error the length of the difference.
        candidates: the nodes for which that is not zero on every prompt, the largest first.

    Raises:
        InputError: an unknown hook point, an SAE of another width, a baseline of another shape, or prompts of several
            lengths where each position is to have nodes of its own.

    Example:
        >>> saes = {t.hook: load_sae(t) for t in saes_by_layer(target).values()}
        >>> facts = facts_of(target, model, "landmark_city")[:1]
        >>> bench = LayerBench(model, saes, facts)
        >>> bench.table(bench.candidates[:1])["layer"][0] in range(model.cfg.n_layers)
        True
    """

    def __init__(
        self,
        model: TransformerBridge,
        saes: Mapping[str, SAE],
        facts: Sequence[Fact] | Asked,
        *,
        baseline: Readings | None = None,
        errors: str = "keep",
        by_position: bool = True,
        batch_size: int = 128,
    ) -> None:
        if errors not in ERRORS:
            raise unknown_name("way with errors", errors, ERRORS)
        self.model, self.saes = model, _checked_saes(model, saes)
        self.hooks, self.errors, self.by_position = list(self.saes), errors, by_position
        self.asked = facts if isinstance(facts, Asked) else ask(model, facts)
        tokens = self.asked.tokens
        if by_position and not tokens.mask.all():
            raise InputError("these prompts have several lengths, so a position is another word in each. Ask facts of "
                             "one length, or let positions share a node (by_position=False).")
        here = _read(self.saes, extract(model, tokens, self.hooks))
        self.baseline = _checked(baseline, here)
        self.places = tokens.ids.shape[1] if by_position else 1
        self.widths = [int(sae.cfg.d_sae) + (errors == "node") for sae in self.saes.values()]
        ends = torch.tensor([0, *(self.places * width for width in self.widths)]).cumsum(0).tolist()
        self.starts, self.n_nodes = ends[:-1], ends[-1]
        self.activation = torch.cat([self._distance(hook, here) for hook in self.hooks], dim=1)
        self.candidates = largest_first(self.activation)
        self.batch_size = check_count(batch_size, "batch_size")

    def _distance(self, hook: str, here: Readings) -> Tensor:
        """[facts, nodes of one hook point] how far each is from its baseline."""
        apart = (here.latents[hook] - self.baseline.latents[hook]).abs()
        if self.errors == "node":
            apart = torch.cat([apart, (here.errors[hook] - self.baseline.errors[hook]).norm(dim=-1)[..., None]], -1)
        return self._by_place(apart * self.asked.tokens.content[..., None]).flatten(1)

    def _by_place(self, values: Tensor) -> Tensor:
        """[..., pos, width] with the positions added up where they share a node."""
        return values if self.by_position else values.sum(-2, keepdim=True)

    # ---- running

    def _some(self, tries: Sequence[tuple[int, Iterable[int]]], mode: str) -> tuple[Tensor, Tensor]:
        """One batch of tries, each with its own nodes ablated at all layers in the same run."""
        facts = [fact for fact, _ in tries]
        asked = self.asked.pick(facts)
        parts = self._ablated(tries, mode).split([self.places * width for width in self.widths], dim=1)
        hooks = [(hook, self._splice(hook, part.view(len(tries), self.places, -1), facts, asked.tokens.content))
                 for hook, part in zip(self.hooks, parts, strict=True)]
        with self.model.hooks(fwd_hooks=hooks):
            logits = self.model(asked.tokens.ids)
        return asked.difference(logits), asked.correct(logits)

    def _splice(self, hook: str, ablated: Tensor, facts: list[int], inside: Tensor) -> Callable[[Tensor, Any], Tensor]:
        """A hook that ablates nodes [rows, places, width] of one hook point; BOS and padding stay as they are."""
        sae, d_sae = self.saes[hook], int(self.saes[hook].cfg.d_sae)
        usual, usual_error = (x if x.ndim == 1 else x[facts]
                              for x in (self.baseline.latents[hook], self.baseline.errors[hook]))

        def replace(acts: Tensor, hook: Any) -> Tensor:
            x = acts.float()
            latents = encode(sae, x)        # of the run in progress, with whatever earlier layers have lost
            rebuilt = decode(sae, latents)
            if getattr(sae.cfg, "normalize_activations", "none") != "none":
                encode(sae, x)              # an SAE that rescales each token forgets its length once it has decoded it
            new = x + (decode(sae, torch.where(ablated[..., :d_sae], usual, latents)) - rebuilt)
            if self.errors != "keep":
                gone = ablated[..., d_sae:] if self.errors == "node" else torch.ones_like(ablated[..., :1])
                new = new + torch.where(gone, usual_error - (x - rebuilt), 0.0)
            return torch.where(inside[..., None], new, x).to(acts.dtype)

        return replace

    @property
    def ends(self) -> tuple[float, float]:
        """(m(∅), m(M)): the mean logit difference with every node ablated, and of the untouched model.

        With `errors="ablate"` no set of nodes need reach the second.
        """
        if self._ends is None:
            nothing = self.each([[]], "keep")[0].mean().item()
            with torch.no_grad():
                everything = self.asked.difference(self.model(self.asked.tokens.ids)).mean().item()
            self._ends = apart(nothing, everything)
        return self._ends

    # ---- nodes and their numbers

    def number(self, layer: int | str, latent: int | None, position: int | None = None) -> int:
        """The number of a node.

        Args:
            layer: the layer, or the hook point where a layer has several.
            latent: the latent; None for the error.
            position: the token, BOS being 0, negative from the end; None where positions share a node.

        Returns:
            The number.

        Raises:
            InputError: this bench has no such layer, latent or position, or errors are no nodes.
        """
        site = self._site(layer)
        d_sae = int(self.saes[self.hooks[site]].cfg.d_sae)
        if latent is None and self.errors != "node":
            raise InputError('errors are no nodes of this bench; errors="node" makes them some.')
        within = d_sae if latent is None else check_latents([latent], d_sae)[0]
        if (position is not None) != self.by_position:
            raise InputError("this bench has nodes at every position: name one." if self.by_position else
                             "positions share a node on this bench: leave the position out.")
        place = 0 if position is None else check_position(position, self.places)
        return self.starts[site] + place * self.widths[site] + within

    def _site(self, layer: int | str) -> int:
        """Which of the hook points is meant."""
        if isinstance(layer, str):
            if layer not in self.hooks:
                raise unknown_name("hook point of this bench", layer, self.hooks)
            return self.hooks.index(layer)
        layers = [layer_of(hook) for hook in self.hooks]
        if layers.count(whole_number(layer)) != 1:
            found = "several hook points" if layer in layers else "no SAE"
            raise InputError(f"this bench has {found} at layer {layer!r}. Its hook points: {', '.join(self.hooks)}.")
        return layers.index(layer)

    def table(self, nodes: Iterable[int] | None = None) -> pd.DataFrame:
        """What nodes are.

        Args:
            nodes: their numbers; all candidates by default.

        Returns:
            One row per node in the order given, with node, layer, hook, position (-1 where positions share a node),
            token (of the first fact's prompt; empty where positions share a node), latent (-1 for an error) and
            distance: how far it is from its baseline, added up over facts.

        Raises:
            InputError: there is no such node.
        """
        numbers = self.candidates if nodes is None else taken_out(list(nodes), self.n_nodes)
        words = str_tokens(self.model, self.asked.tokens.ids[0])
        rows = []
        for node in numbers:
            site = max(i for i, start in enumerate(self.starts) if start <= node)
            place, latent = divmod(node - self.starts[site], self.widths[site])
            hook = self.hooks[site]
            rows.append({
                "node": node, "layer": layer_of(hook), "hook": hook,
                "position": place if self.by_position else -1, "token": words[place] if self.by_position else "",
                "latent": latent if latent < self.saes[hook].cfg.d_sae else -1,
            })  # fmt: skip
        table = pd.DataFrame(rows, columns=["node", "layer", "hook", "position", "token", "latent"])
        table["distance"] = self.activation.sum(0)[numbers].tolist()
        return table

    def pack(self, latents: Mapping[str, Tensor], errors: Mapping[str, Tensor] | None = None) -> Tensor:
        """Scores of latents, from whoever made them, in the order of the nodes' numbers.

        Args:
            latents: for each hook point [pos, d_sae], for example what attribution patching says.
            errors: for each hook point [pos], where errors are nodes.

        Returns:
            [nodes], added up over positions where these share a node.

        Raises:
            InputError: a hook point is missing, a shape is wrong, or the errors' scores are missing or not wanted.
        """
        if (errors is not None) != (self.errors == "node"):
            raise InputError("the errors' scores are needed where errors are nodes, and only there.")
        parts = []
        for hook, sae in self.saes.items():
            if hook not in latents or (errors is not None and hook not in errors):
                raise InputError(f"there are no scores for {hook!r}. This bench has {', '.join(self.hooks)}.")
            scores = check_tensor(latents[hook], f"latents[{hook!r}]", shape="pos d_sae", last=int(sae.cfg.d_sae))
            if len(scores) != self.asked.tokens.ids.shape[1]:
                raise InputError(f"latents[{hook!r}] must have {self.asked.tokens.ids.shape[1]} positions, got "
                                 f"{len(scores)}.")
            if errors is not None:
                scores = torch.cat([scores, errors[hook].view(-1, 1)], dim=1)
            parts.append(self._by_place(scores).flatten())
        return torch.cat(parts)


def _checked(baseline: Readings | None, here: Readings) -> Readings:
    """The baseline, if it can stand in for what is read on the facts' prompts; zeros for none."""
    if baseline is None:
        return Readings(*({hook: torch.zeros_like(x[0, 0]) for hook, x in kind.items()} for kind in here))
    for name, given, kind in zip(Readings._fields, baseline, here, strict=True):
        for hook, x in kind.items():
            if hook not in given:
                raise InputError(f"baseline.{name} has nothing for {hook!r}. Make it with the same SAEs.")
            if given[hook].shape not in (x.shape, x.shape[-1:]):
                raise InputError(f"baseline.{name}[{hook!r}] must have shape {list(x.shape[-1:])} or {list(x.shape)} "
                                 f"(facts, positions, numbers), got {list(given[hook].shape)}.")
    return baseline
