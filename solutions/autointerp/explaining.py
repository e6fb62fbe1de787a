"""An explanation for each latent: from token statistics, or from a language model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from solutions.autointerp.endpoint import Endpoint
from solutions.autointerp.offline import OfflineExplainer, Rule
from solutions.autointerp.passages import evidence
from solutions.autointerp.prompts import explanation_prompt, read_explanation
from solutions.errors import InputError

if TYPE_CHECKING:
    from solutions.analysis.index import ConceptTable, FeatureIndex


@dataclass(frozen=True)
class Explanation:
    """What a latent is said to be active on."""

    latent: int                 #: its number
    text: str | None            #: the explanation in words; None if there is none
    source: str                 #: who gave it, "offline", "truth" or the name of a language model
    status: str = "ok"          #: "ok", or why there is none; "silent", "refused", "cut off", "malformed", "failed"
    rule: Rule | None = None    #: the same as a rule that can be applied, if it comes from the offline explainer
    concept: str | None = None  #: the same as a labelled concept, if it comes from the truth

    def __str__(self) -> str:
        return f"{self.latent}: {self.text or f'no explanation ({self.status})'}"


def explain(
    index: FeatureIndex,
    latents: Iterable[int],
    explainer: Endpoint | OfflineExplainer | None = None,
    *,
    budget: float | None = None,
    per_interval: int = 3,
    n_intervals: int = 4,
    n_silent: int = 4,
    seed: int = 0,
    progress: bool = False,
) -> list[Explanation]:
    """Explain latents, from the train split of an index.

    Args:
        index: a feature index with a vocabulary.
        latents: their numbers.
        explainer: by default the offline explainer. With an `Endpoint`, its language model is shown examples from
            every interval of activation (see `evidence`); the cost is shown first.
        budget: dollars that may be spent, see `Endpoint.ask`.
        per_interval: examples from each interval that the language model is shown.
        n_intervals: intervals of activation, with equally many active tokens each. 1, and all examples are the
            strongest ones.
        n_silent: passages without activity that it is shown.
        seed: of the draw of examples.
        progress: whether to show a bar.

    Returns:
        One explanation for each latent, in the same order. Some may have no text; `status` says why.

    Raises:
        InputError: there is no such latent, or an explainer of another kind.
        BudgetError: it would cost more than the budget.
        EndpointError: the endpoint does not accept the request, or does not answer.
        NotAvailable: there is no key, or the library is not installed.

    Example:
        >>> print(explain(index, [latent])[0].rule.tokens[:2])
        (' Sunday', ' Thursday')
    """
    latents = list(latents)
    if isinstance(explainer, Endpoint):
        shown = [evidence(index, j, per_interval=per_interval, n_intervals=n_intervals, n_silent=n_silent, seed=seed)
                 for j in latents]
        alive = [one for one in shown if one.intervals]
        replies = explainer.ask([explanation_prompt(one) for one in alive], budget, progress)
        found = {one.latent: _from_reply(one.latent, reply.text, reply.status, explainer)
                 for one, reply in zip(alive, replies, strict=True)}
        return [found.get(int(j), Explanation(int(j), None, explainer.model, "silent")) for j in latents]
    explainer = OfflineExplainer(index) if explainer is None else explainer
    if not isinstance(explainer, OfflineExplainer):
        raise InputError(f"explainer: expected an Endpoint or an OfflineExplainer, got {type(explainer).__name__}.")
    if explainer.index is not index:
        raise InputError("explainer: this OfflineExplainer was made for another index.")
    rules = {int(j): explainer.rule(j) for j in latents}
    return [Explanation(j, None if rule is None else str(rule), "offline", "silent" if rule is None else "ok", rule)
            for j, rule in rules.items()]


def _from_reply(latent: int, text: str, status: str, endpoint: Endpoint) -> Explanation:
    sentence = read_explanation(text) if status == "ok" else None
    if status == "ok" and sentence is None:
        status = "malformed"
        endpoint.counts["ok"] -= 1
        endpoint.counts["malformed"] += 1
    return Explanation(latent, sentence, endpoint.model, status)


def true_explanations(concepts: ConceptTable, latents: Sequence[int]) -> list[Explanation]:
    """What somebody would say who knows every concept of the list and reads all of the train split.

    Args:
        concepts: from `concept_table`; each latent's concept is chosen on the train split.
        latents: their numbers.

    Returns:
        The concept that each latent follows best, as an explanation. Its score is what a name from the list can reach
        at most; no explanation has to stop there.
    """
    named = [(int(j), concepts.best(int(j))) for j in latents]
    return [Explanation(j, None, "truth", "silent") if best is None else
            Explanation(j, f"the concept “{best['name']}” holds", "truth", concept=best["name"]) for j, best in named]
