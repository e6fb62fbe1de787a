"""A test bench for sets of latents: each is kept, or removed, and some facts are asked.

What stands in for an ablated latent is the `baseline`. It decides what is being asked. Zero takes a latent away, and
with it a part of the activation's length, which the next LayerNorm makes up for by scaling up all the rest. The mean
on ordinary text puts something usual there instead. The latents of another prompt, one that calls for another answer,
leave everything in place but what tells the two prompts apart.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor

from solutions.errors import InputError, check_count, check_tensor, unknown_name
from solutions.interventions.ablation import latents_on, places_in, taken_out
from solutions.interventions.edits import latents_edited
from solutions.interventions.facts import Asked, Fact, ask
from solutions.models import check_hooks

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

#: What is done with a set of latents: all others are ablated, or they themselves are.
MODES = ("keep", "remove")


class AnyBench(ABC):
    """What every bench can do: ask facts while sets of numbered latents are kept, or removed.

    On a `Bench` the numbers are those of one SAE's latents, on a `LayerBench` they are nodes of several layers. The
    searches and controls of `circuits` take either.

    Attributes:
        asked: the facts.
        activation: [facts, numbers] how far each is on each prompt from what stands in for it when it is ablated.
        candidates: the numbers for which that is not zero on every prompt, the largest first.
        batch_size: rows that go through the model at once.
    """

    asked: Asked
    activation: Tensor
    candidates: list[int]
    batch_size: int
    _ends: tuple[float, float] | None = None

    @torch.no_grad()
    def run(self, tries: Sequence[tuple[int, Iterable[int]]], mode: str = "keep") -> tuple[Tensor, Tensor]:
        """Single tries: one fact with one set of latents kept, or removed.

        Args:
            tries: pairs of a fact's number and a set of latents; the set may be empty.
            mode: "keep" ablates all latents but those of the set, "remove" those of the set.

        Returns:
            ([tries] logit differences, [tries] bool whether the answer beats all others of its kind).

        Raises:
            InputError: nothing to try, an unknown mode, fact or latent.
        """
        if mode not in MODES:
            raise unknown_name("mode", mode, MODES)
        if not tries:
            raise InputError("nothing to try: give at least one set of latents. An empty set is one, too.")
        found = [self._some(tries[i : i + self.batch_size], mode) for i in range(0, len(tries), self.batch_size)]
        differences, correct = (torch.cat(parts) for parts in zip(*found, strict=True))
        return differences, correct

    @abstractmethod
    def _some(self, tries: Sequence[tuple[int, Iterable[int]]], mode: str) -> tuple[Tensor, Tensor]:
        """One batch of tries, each with its own latents ablated."""

    def _ablated(self, tries: Sequence[tuple[int, Iterable[int]]], mode: str) -> Tensor:
        """[tries, numbers] bool, True for what each try ablates."""
        n = self.activation.shape[1]
        named = torch.zeros(len(tries), n, dtype=torch.bool, device=self.activation.device)
        for row, (_, latents) in enumerate(tries):
            named[row, taken_out(list(latents), n)] = True
        return ~named if mode == "keep" else named

    def each(self, sets: Sequence[Iterable[int]], mode: str = "keep") -> tuple[Tensor, Tensor]:
        """Every fact with every set.

        Args:
            sets: sets of latents, each for all facts.
            mode: as for `run`.

        Returns:
            ([sets, facts] logit differences, [sets, facts] bool whether correct).

        Raises:
            InputError: as for `run`.
        """
        n = len(self.asked.facts)
        differences, correct = self.run([(fact, latents) for latents in sets for fact in range(n)], mode)
        return differences.view(len(sets), n), correct.view(len(sets), n)

    @property
    def ends(self) -> tuple[float, float]:
        """(m(∅), m(M)): the mean logit difference with every latent ablated, and with none."""
        if self._ends is None:
            nothing, everything = (self.each([[]], mode)[0].mean().item() for mode in MODES)
            self._ends = apart(nothing, everything)
        return self._ends

    def share(self, difference: float) -> float:
        """A mean logit difference as a share of what all latents do together: faithfulness.

        Args:
            difference: m(C), the mean logit difference with some set C kept.

        Returns:
            (m(C) - m(∅)) / (m(M) - m(∅)), 0 for nothing and 1 for everything; it may be less and more.

        Raises:
            InputError: the latents do nothing for these facts.
        """
        nothing, everything = self.ends
        return (difference - nothing) / (everything - nothing)


def largest_first(activation: Tensor) -> list[int]:
    """What could matter: the numbers that are not zero on every prompt.

    Args:
        activation: [facts, numbers], none of them negative.

    Returns:
        The numbers, the largest sum over facts first.
    """
    total = activation.sum(0)
    return total.argsort(descending=True)[: int((total > 0).sum())].tolist()


def apart(nothing: float, everything: float) -> tuple[float, float]:
    """The two ends of a scale, if there is something between them.

    Args:
        nothing: the mean logit difference with every latent ablated.
        everything: the same with none ablated.

    Returns:
        Both.

    Raises:
        InputError: they are the same.
    """
    if nothing == everything:
        raise InputError("with every latent ablated the logit difference is that with none: the latents do nothing for "
                         "these facts, so no share of it can be told.")
    return nothing, everything


class Bench(AnyBench):
    """One model, one SAE and some facts, made ready to try many sets of latents on.

    Args:
        model: a loaded model.
        sae: the SAE.
        hook: where it reads.
        facts: the facts, or what `ask` made of them.
        baseline: what stands in for an ablated latent: zeros by default; [d_sae], for example its mean on ordinary
            text; or [facts, pos, d_sae], the latents of other prompts, see `other_prompts`.
        positions: where latents are ablated; everywhere but on BOS by default.
        keep_error: leave the reconstruction error in place. Without it, all latents together are the spliced model.
        batch_size: rows that go through the model at once.

    Attributes:
        activation: [facts, d_sae] how active each latent is on each prompt, added up over its tokens. When the
            baseline is another prompt's latents, how far it is from them.
        candidates: the latents for which that is not zero on every prompt, the most active first.

    Raises:
        InputError: an unknown hook point or position, an SAE of another width, or a baseline of another shape.
    """

    def __init__(
        self,
        model: TransformerBridge,
        sae: SAE,
        hook: str,
        facts: Sequence[Fact] | Asked,
        *,
        baseline: Tensor | None = None,
        positions: Sequence[int] | None = None,
        keep_error: bool = True,
        batch_size: int = 256,
    ) -> None:
        (self.hook,) = check_hooks(model, hook)
        self.model, self.sae = model, sae
        self.asked = facts if isinstance(facts, Asked) else ask(model, facts)
        latents = latents_on(model, sae, hook, self.asked, positions)
        self.baseline = _checked(baseline, latents)
        whole = self.baseline is not None and self.baseline.ndim == 3
        self.activation = (latents - self.baseline).abs().sum(1) if whole else latents.sum(1)
        self.candidates = largest_first(self.activation)
        self.positions = None if positions is None else places_in(positions, self.asked.tokens)
        self.keep_error, self.batch_size = keep_error, check_count(batch_size, "batch_size")

    def _some(self, tries: Sequence[tuple[int, Iterable[int]]], mode: str) -> tuple[Tensor, Tensor]:
        """One batch of tries, each with its own latents ablated."""
        asked = self.asked.pick([fact for fact, _ in tries])
        ablated = self._ablated(tries, mode)[:, None]  # the same at every position
        baseline = self.baseline
        if baseline is not None and baseline.ndim == 3:
            baseline = baseline[[fact for fact, _ in tries]]

        def edit(z: Tensor) -> Tensor:
            return z.masked_fill(ablated, 0.0) if baseline is None else torch.where(ablated, baseline.to(z), z)

        with latents_edited(self.model, self.sae, self.hook, edit, positions=self.positions,
                            keep_error=self.keep_error):
            logits = self.model(asked.tokens.ids)
        return asked.difference(logits), asked.correct(logits)


def _checked(baseline: Tensor | None, latents: Tensor) -> Tensor | None:
    """The baseline, if it can stand in for latents [facts, pos, d_sae]."""
    if baseline is None:
        return None
    check_tensor(baseline, "baseline", last=latents.shape[-1])
    if baseline.ndim != 1 and baseline.shape != latents.shape:
        raise InputError(
            f"baseline must have shape [{latents.shape[-1]}] or {list(latents.shape)} (facts, positions, latents), "
            f"got {list(baseline.shape)}."
        )
    return baseline


def single_effects(bench: AnyBench) -> pd.DataFrame:
    """What each latent does for each fact on whose prompt it is active: ablated alone, one at a time.

    Args:
        bench: model, SAE and facts.

    Returns:
        One row per fact and latent active on its prompt, fact after fact and the most important latent first, with
        fact (its number), latent, activation (added up over the prompt), effect: by how much the logit difference
        falls without it, clean: the logit difference before, and holds: whether the answer still beats all others of
        its kind. A negative effect says that the latent speaks against the answer.

    Raises:
        InputError: no latent is active on these prompts.
    """
    where = bench.activation.nonzero().tolist()
    after, holds = bench.run([(fact, [latent]) for fact, latent in where], "remove")
    clean = bench.each([[]], "remove")[0][0].tolist()
    table = pd.DataFrame(where, columns=["fact", "latent"])
    table["activation"] = bench.activation[tuple(zip(*where, strict=True))].tolist()
    table["clean"] = [clean[fact] for fact in table["fact"]]
    table["effect"] = table["clean"] - after.tolist()
    table["holds"] = holds.tolist()
    return table.sort_values(["fact", "effect"], ascending=[True, False], ignore_index=True, kind="stable")


def orders(effects: pd.DataFrame, by: str = "effect") -> list[list[int]]:
    """The latents of every fact, the most important first.

    Args:
        effects: the table of `single_effects`, or one with the columns fact, latent and a score.
        by: the score's column; the largest comes first.

    Returns:
        A list of latents for each fact, in the order of their numbers.

    Raises:
        InputError: there is no such column.
    """
    if by not in effects:
        raise unknown_name("column", by, [str(column) for column in effects.columns])
    ranked = effects.sort_values(["fact", by], ascending=[True, False], kind="stable")
    return [mine["latent"].tolist() for _, mine in ranked.groupby("fact")]
