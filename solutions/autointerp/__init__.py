"""Explanations of latents, made by a program and tested by a program.

Three parts are played: the *subject*, a model whose latents are explained; an *explainer*, which is shown passages
with the latent's activations and says what they have in common; a *judge*, which is shown the explanation and other
passages, and says where the latent should be active. How often the judge is right is the explanation's score (Bills et
al. 2023; Paulo et al. 2024)::

    explained = explain(index, latents)                     # token statistics: offline, the default, the baseline
    scores = score_explanations(index, explained)           # on text that the explainer has not seen
    scores.mean(), scores.mean("borrowed")                  # and what another latent's explanation scores

    endpoint = Endpoint("qwen3:8b", "http://localhost:11434/v1", cache="scratch/answers")
    explained = explain(index, latents, endpoint)           # the same with a language model
    scores = score_explanations(index, explained, EndpointJudge(endpoint))

Nothing here touches the network unless an `Endpoint` is asked.
"""

from solutions.autointerp.endpoint import Endpoint, EndpointError, Reply
from solutions.autointerp.explaining import Explanation, explain, true_explanations
from solutions.autointerp.judging import EndpointJudge, Judge, RuleJudge, TruthJudge
from solutions.autointerp.money import FREE, BudgetError, Estimate, Prices
from solutions.autointerp.offline import OfflineExplainer, Rule
from solutions.autointerp.passages import Evidence, Item, evidence, scoring_items
from solutions.autointerp.prompts import (
    Prompt,
    explanation_prompt,
    judging_prompt,
    read_answers,
    read_explanation,
)
from solutions.autointerp.scoring import (
    ExplanationScores,
    agreement,
    score_explanations,
)
from solutions.autointerp.stand_in import StandIn, stand_in

__all__ = [
    "FREE",
    "BudgetError",
    "Endpoint",
    "EndpointError",
    "EndpointJudge",
    "Estimate",
    "Evidence",
    "Explanation",
    "ExplanationScores",
    "Item",
    "Judge",
    "OfflineExplainer",
    "Prices",
    "Prompt",
    "Reply",
    "Rule",
    "RuleJudge",
    "StandIn",
    "TruthJudge",
    "agreement",
    "evidence",
    "explain",
    "explanation_prompt",
    "judging_prompt",
    "read_answers",
    "read_explanation",
    "score_explanations",
    "scoring_items",
    "stand_in",
    "true_explanations",
]
