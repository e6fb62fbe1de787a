"""What the live page says about latents: their names, their strongest activations, and which of them steer.

Names are chosen on train documents and scored on test documents, as in chapter 5. Which latents are offered for
steering is chosen by what they do to the model's predictions, next to a random direction, and reported on other texts.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from solutions.targets import Target

FOLLOWS = 0.5     # F1 from which a latent is called after the concept it follows best
SHOWN = 5         # tokens listed for a latent
OFFERED = 12      # latents offered for steering
EXAMPLE = 90      # characters of an example text, at most
PROMPT = 60       # characters of a text that steering is tried on
N_PROMPTS = 24    # the first half to choose on, the second to report

Effects = list[tuple[str, float]]  # tokens, and what a direction adds to their logits


def describe_latents(target: Target, n_texts: int, n_candidates: int) -> dict[str, Any]:
    """{"latents", "steering", "examples", "measured"}: see the functions below."""
    from solutions import analysis
    from solutions.data import load_texts, str_tokens
    from solutions.models import harvest, load_model, unembedding
    from solutions.sae import load_sae

    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        model, sae = load_model(target, "cpu"), load_sae(target, "cpu")
        texts = load_texts(target, n_texts)
        store = harvest(model, texts, target.hook, Path(folder, "store"), test_share=0.4, progress=False)
        index = analysis.build_index(
            store, sae, target.hook, Path(folder, "index"), unembed=unembedding(model), progress=False,
            vocabulary=str_tokens(model, torch.arange(model.cfg.d_vocab)),
        )
        world = analysis.labelled_texts(model, n_texts)
        labels = analysis.place_labels(index, world)
        concepts = analysis.concept_table(index, labels, world.concepts)
        table = analysis.latent_table(index, concepts, labels, progress=False).table.sort_values("latent")
        return {
            "latents": [latent_row(row, *index.logits(row["latent"], SHOWN)) for row in table.to_dict("records")],
            "steering": steering_latents(model, sae, target, index, n_candidates),
            "examples": example_texts(target),
            "measured": {"texts": n_texts, "tokens": index.n_content},
        }


def latent_row(row: dict[str, Any], promoted: Effects, suppressed: Effects) -> dict[str, Any]:
    """What the page shows of one latent; `row` is a line of `latent_table`, the rest its effects on the logits.

    concept, f1 and lookup are there only when the latent follows a concept well enough to be called after it:
    how well, on test documents, and how well a mere list of tokens does for the same concept.
    """
    shown = {
        "max": float(f"{row['maximum']:.7g}"), "density": float(f"{row['density']:.3g}"),
        "on": listed(row["tokens"]), "promotes": [token for token, _ in promoted],
        "suppresses": [token for token, _ in suppressed],
    }
    if row["f1"] >= FOLLOWS:  # a NaN is not
        shown |= {"concept": described(row["concept"]), "f1": round(row["f1"], 2),
                  "lookup": round(row["lookup_f1"], 2)}
    return shown


def listed(tokens: str | float | None) -> list[str]:
    """The first tokens of a column that holds several."""
    from solutions.analysis.latents.table import BETWEEN

    return tokens.split(BETWEEN)[:SHOWN] if isinstance(tokens, str) and tokens else []


def described(concept: str) -> str:
    """A concept in words, without its examples in brackets."""
    from solutions.smallworld.concepts import CONCEPTS

    return next(one.description for one in CONCEPTS if one.name == concept).split(" (")[0]


def steering_latents(model: Any, sae: Any, target: Target, index: Any, n_candidates: int) -> list[dict[str, Any]]:
    """The latents whose push changes most what comes next, strongest first.

    For each: latent, and the probability of the ten tokens that its direction promotes, taken together, on average
    over all tokens of short texts: unsteered, pushed by its own maximum, and pushed as far in a random direction.
    Candidates are those whose maximum times direct effect on the logits is largest. Which are best is decided on the
    first half of the texts; what is said of them was measured on the second.
    """
    from solutions.data import load_texts, tokenize
    from solutions.interventions import Push, promoted_tokens, push_vector, random_push, steered_logits

    maxima = index.maximum()
    reach = [float(maxima[j]) * sum(effect for _, effect in index.logits(j)[0]) for j in range(index.n_latents)]
    candidates = torch.tensor(reach).topk(n_candidates).indices.tolist()
    texts = [text.text[:PROMPT].rsplit(" ", 1)[0] for text in load_texts(target, N_PROMPTS, split="probe")]
    tokens = tokenize(model, texts)

    first = torch.arange(len(texts))[:, None] < len(texts) // 2

    def chances(vector: torch.Tensor) -> torch.Tensor:
        shares = steered_logits(model, tokens, target.hook, vector).softmax(-1)
        halves = (tokens.content & first, tokens.content & ~first)
        return torch.stack([shares[half].mean(0) for half in halves])  # [2, vocabulary]

    found, unsteered = [], chances(torch.zeros_like(sae.b_dec))
    for latent in candidates:
        vector = push_vector(sae, [Push(latent, 1.0)], maxima)
        wanted = promoted_tokens(model, vector)
        runs = {"unsteered": unsteered, "steered": chances(vector), "random": chances(random_push(vector, latent))}
        chosen_on, reported = ({name: run[half, wanted].sum().item() for name, run in runs.items()} for half in (0, 1))
        found.append((gain(chosen_on), {"latent": latent, **{name: round(x, 3) for name, x in reported.items()}}))
    found.sort(key=lambda pair: -pair[0])
    return [row for _, row in found[:OFFERED]]


def gain(shares: dict[str, float]) -> float:
    """How much more probable the promoted tokens become than without steering and with a random direction."""
    return shares["steered"] - max(shares["unsteered"], shares["random"])


def example_texts(target: Target) -> dict[str, str]:
    """{kind of text: the beginning of one such text}, none of them read when anything else here was measured."""
    from solutions.data import load_texts
    from solutions.smallworld.corpus import DOMAINS

    def beginning(text: str) -> str:
        return text if len(text) <= EXAMPLE else text[:EXAMPLE].rsplit(" ", 1)[0]

    kinds = {kind: load_texts(target, 2, split="probe", kinds=[kind])[1] for kind in DOMAINS}
    return {kind: beginning(text.text) for kind, text in kinds.items()}
