"""Questions one can ask of features: which ones fire, on what, how often, and how purely.

Nearly everything here works on plain tensors. `features` is always [tokens, latents] with BOS and padding already
left out (`activations[mask]` does it), values are activation strengths in the SAE's own units, and zero
means "not active". A function never needs to know which model the numbers came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from solutions.data import Tokens, tokenize
from solutions.errors import InputError
from solutions.sae import encode
from solutions.smallworld.corpus import CONCEPTS, SEEDS, documents
from solutions.smallworld.tokenizer import label_tokens

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge


def _require(name: str, x: Tensor, *dims: str) -> Tensor:
    """Return `x`, or say what it should have been: a tensor with one axis per name in `dims`."""
    wanted = f"a tensor of shape [{', '.join(dims)}]"
    if not isinstance(x, Tensor):
        raise InputError(f"{name}: expected {wanted}, got {type(x).__name__}. torch.as_tensor converts it.")
    if x.ndim != len(dims):
        hint = " x[mask] joins batch and position, and leaves out BOS and padding." if x.ndim == 3 else ""
        raise InputError(f"{name}: expected {wanted}, got shape {list(x.shape)}.{hint}")
    if 0 in x.shape:
        raise InputError(f"{name}: expected {wanted}, got an empty one of shape {list(x.shape)}.")
    return x


def _same_length(**tensors: Sequence) -> None:
    """Refuse inputs whose first axes differ: they cannot describe the same tokens."""
    lengths = {name: len(x) for name, x in tensors.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} has {n}" for name, n in lengths.items())
        raise InputError(f"Expected one row per token everywhere, but {found}.")


# ------------------------------------------------------------------------------------------ texts to ask about

def latent_activations(sae: SAE, acts: Tensor, latents: Sequence[int], rows: int = 16) -> Tensor:
    """A few latents on many texts, [texts, positions, len(latents)], without holding all latents at once.

    sae: a SAELens SAE; acts: [texts, positions, d_in] at its hook point; rows: texts encoded at a time. All
    latents of 100,000 tokens would take 10 GB for the SAE of GPT-2 small.
    """
    _require("acts", acts, "texts", "positions", "d_in")
    wanted = list(latents)
    if not wanted or not all(0 <= latent < sae.cfg.d_sae for latent in wanted):
        raise InputError(f"latents: expected numbers from 0 to {sae.cfg.d_sae - 1}, got {wanted}.")
    return torch.cat([encode(sae, part)[..., wanted] for part in acts.split(rows)])


class LabelledTexts(NamedTuple):
    """Texts of the embedded world as tokens, with the concepts that hold on each token."""
    tokens: Tokens
    labels: Tensor               # [texts, positions, concepts] bool; False on BOS and padding
    concepts: tuple[str, ...]


def labelled_texts(model: TransformerBridge, n: int, split: str = "test") -> LabelledTexts:
    """The first n texts of the embedded world, tokenised for `model`, with ground truth for every token.

    Any byte-level tokenizer will do, GPT-2's too. Texts longer than the context are cut.
    """
    if split not in SEEDS or n < 1:
        raise InputError(f"Expected n of 1 or more and a split of {', '.join(SEEDS)}; got {n} and {split!r}.")
    documents_ = list(documents(SEEDS[split], n))
    tokens = tokenize(model, [document.text for document in documents_])
    labels = torch.zeros(*tokens.ids.shape, len(CONCEPTS), dtype=torch.bool)
    for row, document in enumerate(documents_):
        found = torch.from_numpy(label_tokens(document, model.tokenizer).labels)
        place = tokens.content[row].cpu().nonzero().flatten()
        labels[row, place] = found[: len(place)]
    return LabelledTexts(tokens, labels, tuple(concept.name for concept in CONCEPTS))


# --------------------------------------------------------------------------------------- which latents fire

def top_features(features: Tensor, str_tokens: Sequence[str], k: int = 5) -> pd.DataFrame:
    """The k strongest latents on every token, strongest first.

    features: [tokens, latents]; str_tokens: the same tokens as text.
    Returns one row per token and rank with columns position, token, rank, latent, activation. Latents that
    are not active are left out, so a token may have fewer than k rows.
    """
    _require("features", features, "tokens", "latents")
    _same_length(features=features, str_tokens=str_tokens)
    if not 1 <= k <= features.shape[1]:
        raise InputError(f"k: expected 1 to {features.shape[1]} (the number of latents), got {k}.")
    values, latents = features.topk(k, dim=-1)
    rows = [
        (position, token, rank + 1, int(latents[position, rank]), float(values[position, rank]))
        for position, token in enumerate(str_tokens)
        for rank in range(k)
        if values[position, rank] > 0
    ]
    return pd.DataFrame(rows, columns=["position", "token", "rank", "latent", "activation"])


def density(features: Tensor) -> Tensor:
    """Share of tokens on which each latent is active, [latents], between 0 and 1."""
    return (_require("features", features, "tokens", "latents") > 0).float().mean(0)


def activity_by_text(features: Sequence[Tensor]) -> Tensor:
    """The strongest activation of each latent in each text, [texts, latents].

    features: one [tokens, latents] tensor per text. A latent that never fires in a text scores 0 there.
    """
    if len(features) == 0:
        raise InputError("features: expected one [tokens, latents] tensor per text, got an empty list.")
    return torch.stack([_require("features of one text", f, "tokens", "latents").amax(0) for f in features])


def contrast(with_it: Tensor, without_it: Tensor, k: int = 10) -> pd.DataFrame:
    """The latents that tell two groups of texts apart, best first.

    with_it, without_it: [texts, latents] from `activity_by_text`. Texts in the same row form a pair, so
    both groups must have the same number of texts.
    Returns columns latent, difference (mean of the paired differences, activation units), with_it and
    without_it (share of the texts in which the latent is active) and consistent (share of pairs in which
    the first text has more).
    Ranked by consistency, then by difference: one loud text must not decide.
    """
    _require("with_it", with_it, "texts", "latents")
    _require("without_it", without_it, "texts", "latents")
    if with_it.shape != without_it.shape:
        raise InputError(f"Expected pairs of texts, got {list(with_it.shape)} and {list(without_it.shape)}.")
    difference = with_it - without_it
    table = pd.DataFrame({
        "latent": range(difference.shape[1]),
        "difference": difference.mean(0).tolist(),
        "with_it": (with_it > 0).float().mean(0).tolist(),
        "without_it": (without_it > 0).float().mean(0).tolist(),
        "consistent": (difference > 0).float().mean(0).tolist(),
    })
    return table.sort_values(["consistent", "difference"], ascending=False).head(k).reset_index(drop=True)


def concept_scores(features: Tensor, concept: Tensor, threshold: float = 0.0) -> pd.DataFrame:
    """How well "this latent is above the threshold" predicts "this concept holds here", for every latent.

    features: [tokens, latents]; concept: [tokens] bool.
    Returns latent, precision (of the tokens where it fires, how many have the concept), recall (of the
    tokens with the concept, on how many it fires) and f1 (their harmonic mean), best F1 first.
    """
    _require("features", features, "tokens", "latents")
    _require("concept", concept, "tokens")
    _same_length(features=features, concept=concept)
    table = _precision_recall((features > threshold).float(), concept.float()[:, None])
    table.insert(0, "latent", range(features.shape[1]))
    return table.sort_values("f1", ascending=False).reset_index(drop=True)


def concepts_of(
    activations: Tensor, labels: Tensor, concepts: Sequence[str], threshold: float = 0.0
) -> pd.DataFrame:
    """Which concept one latent stands for: the same scores, for one latent and every concept.

    activations: [tokens]; labels: [tokens, concepts] bool; concepts: their names.
    Returns concept, precision, recall, f1, best F1 first.
    """
    _require("activations", activations, "tokens")
    _require("labels", labels, "tokens", "concepts")
    _same_length(activations=activations, labels=labels)
    if len(concepts) != labels.shape[1]:
        raise InputError(f"concepts: expected {labels.shape[1]} names, one per label, got {len(concepts)}.")
    table = _precision_recall((activations > threshold).float()[:, None], labels.float())
    table.insert(0, "concept", list(concepts))
    return table.sort_values("f1", ascending=False).reset_index(drop=True)


def _precision_recall(fires: Tensor, holds: Tensor) -> pd.DataFrame:
    """Precision, recall and F1 of predictions against truth; each [tokens, n], where either may have n = 1."""
    hits, fired, wanted = (fires * holds).sum(0), fires.sum(0), holds.sum(0)
    return pd.DataFrame({
        "precision": (hits / fired.clamp(min=1)).tolist(),
        "recall": (hits / wanted.clamp(min=1)).tolist(),
        "f1": (2 * hits / (fired + wanted).clamp(min=1)).tolist(),
    })


# ----------------------------------------------------------------------------------- the page of one latent

class Example(NamedTuple):
    """A stretch of text around one token on which a latent fires."""
    tokens: list[str]          # the token in the middle and its neighbours
    activations: list[float]   # one per token
    peak: int                  # where in `tokens` the chosen token stands
    text: int                  # which text it comes from
    position: int              # where in that text


class Interval(NamedTuple):
    """The active tokens whose activation lies in (low, high]; the lowest interval includes its lower end."""
    low: float
    high: float
    n_tokens: int
    examples: list[Example]


class FeaturePage(NamedTuple):
    """All that a dashboard shows about one latent."""
    latent: int
    n_tokens: int                      # tokens looked at, BOS and padding not among them
    n_active: int
    density: float                     # n_active / n_tokens
    maximum: float                     # strongest activation seen
    counts: list[int]                  # histogram of the active tokens
    edges: list[float]                 # one more than counts
    intervals: list[Interval]          # strongest first
    positive: list[tuple[str, float]]  # tokens whose logit the decoder direction raises most
    negative: list[tuple[str, float]]  # and lowers most


def interval_edges(active: Tensor, n_intervals: int) -> list[float]:
    """Ends of n intervals with equally many of the active values each, lowest first; equal ends merge."""
    _require("active", active, "active tokens")
    if n_intervals < 1:
        raise InputError(f"n_intervals: expected 1 or more, got {n_intervals}.")
    ordered = active.sort().values.double()
    cuts = torch.quantile(ordered, torch.linspace(0, 1, n_intervals + 1, dtype=torch.float64)).tolist()
    cuts[0], cuts[-1] = float(ordered[0]), float(ordered[-1])  # exact: the maximum belongs to the last one
    return sorted(set(cuts))


def feature_page(
    activations: Tensor,
    mask: Tensor,
    str_tokens: Sequence[Sequence[str]],
    latent: int,
    logits: tuple[list[tuple[str, float]], list[tuple[str, float]]] = ((), ()),
    n_intervals: int = 4,
    per_interval: int = 3,
    n_bins: int = 20,
    before: int = 7,
    after: int = 3,
    seed: int = 0,
) -> FeaturePage:
    """Gather what a feature dashboard shows, from one latent's activations on a set of texts.

    activations: [texts, positions]; mask: the same shape, True on the tokens that count (no BOS, no padding);
    str_tokens: for each text its tokens as strings, as far as the mask reaches; logits: from `logit_effects`.
    Examples of the strongest interval are the top ones; those of the others are drawn at random from their
    interval, at most one a text: the top alone makes almost anything look clean (Bolukbasi et al. 2021).
    Bricken et al. 2023 show examples by interval for the same reason.
    """
    _require("activations", activations, "texts", "positions")
    if mask.shape != activations.shape or mask.dtype != torch.bool:
        wanted = f"torch.bool of shape {list(activations.shape)}"
        raise InputError(f"mask: expected {wanted}, got {mask.dtype} of shape {list(mask.shape)}.")
    _same_length(activations=activations, str_tokens=str_tokens)
    kept = torch.where(mask, activations.float(), 0.0)
    active, n_tokens = kept[kept > 0], int(mask.sum())
    if n_tokens == 0:
        raise InputError("mask: expected at least one token that counts, got none.")
    positive, negative = list(logits[0]), list(logits[1])
    if len(active) == 0:  # a dead latent has a page too: it says that nothing was found
        return FeaturePage(latent, n_tokens, 0, 0.0, 0.0, [], [0.0], [], positive, negative)

    counts, edges = torch.histogram(active.cpu(), n_bins, range=(0.0, float(active.max())))
    ends = interval_edges(active, n_intervals)
    pairs = list(zip(ends[:-1], ends[1:], strict=True)) or [(ends[0], ends[0])]
    generator = torch.Generator().manual_seed(seed)
    intervals = []
    for number, (low, high) in enumerate(reversed(pairs)):
        lowest = number == len(pairs) - 1
        above = (kept > 0) if lowest else (kept.double() > low)
        inside = above & (kept.double() <= high)
        where = inside.nonzero()
        if number == 0:
            where = where[kept[inside].argsort(descending=True, stable=True)]
        else:
            where = where[torch.randperm(len(where), generator=generator)]
        examples = [_example(kept[text], mask[text], str_tokens[text], text, position, before, after)
                    for text, position in _one_per_text(where.tolist(), per_interval)]
        intervals.append(Interval(low, high, int(inside.sum()), examples))
    return FeaturePage(latent, n_tokens, len(active), len(active) / n_tokens, float(active.max()),
                       counts.int().tolist(), edges.tolist(), intervals, positive, negative)


def _one_per_text(places: list[list[int]], n: int) -> list[tuple[int, int]]:
    """The first n (text, position) places, never two from one text."""
    first: dict[int, int] = {}
    for text, position in places:
        if len(first) == n:
            break
        first.setdefault(text, position)
    return list(first.items())


def _example(
    row: Tensor, mask: Tensor, tokens: Sequence[str], text: int, position: int, before: int, after: int
) -> Example:
    """Cut the window around one token out of its text; BOS and padding are not shown."""
    real = mask.nonzero().flatten()
    start, stop = max(int(real[0]), position - before), min(int(real[-1]), position + after) + 1
    return Example(list(tokens[start:stop]), row[start:stop].tolist(), position - start, text, position)


def logit_effects(
    direction: Tensor, unembed: Tensor, vocabulary: Sequence[str], k: int = 10, gain: Tensor | None = None
) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """The tokens whose logits a direction raises and lowers most when added to the last residual stream.

    direction: [d_model], for a latent its decoder row; unembed: [d_model, vocabulary]; gain: [d_model], the
    weight of the last normalisation when it has not been folded into `unembed`.
    Returns (positive, negative), each k pairs of token and logit, strongest first. The mean over the
    vocabulary is taken off: adding one constant to every logit changes no prediction. This is the direct
    path only ("logit lens", nostalgebraist 2020): what later layers make of the direction does not show.
    """
    _require("direction", direction, "d_model")
    _require("unembed", unembed, "d_model", "vocabulary")
    if len(direction) != len(unembed):
        raise InputError(f"direction has d_model {len(direction)}, unembed {len(unembed)}: they must agree.")
    if len(vocabulary) != unembed.shape[1]:
        wanted = f"{unembed.shape[1]} tokens, one per column of unembed"
        raise InputError(f"vocabulary: expected {wanted}, got {len(vocabulary)}.")
    direction = direction if gain is None else direction * gain
    effects = (direction.float() @ unembed.float()).detach()
    effects = effects - effects.mean()

    def named(best: torch.return_types.topk, sign: int) -> list[tuple[str, float]]:
        return [(vocabulary[int(i)], sign * float(v)) for v, i in zip(best.values, best.indices, strict=True)]

    return named(effects.topk(k), 1), named((-effects).topk(k), -1)


# ----------------------------------------------------- controls: other directions, and how pure each one is

def random_directions(n: int, d: int, seed: int = 0) -> Tensor:
    """n directions drawn evenly from the unit sphere in d dimensions, [n, d]."""
    if n < 1 or d < 1:
        raise InputError(f"Expected n and d of 1 or more, got n={n}, d={d}.")
    drawn = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    return drawn / drawn.norm(dim=1, keepdim=True)


def pca_directions(x: Tensor, n: int | None = None) -> Tensor:
    """The n unit directions along which the activations vary most, [n, d], largest variance first.

    x: activations [tokens, d]; n: all d by default.
    """
    _require("x", x, "tokens", "d")
    n = min(x.shape) if n is None else n
    if not 1 <= n <= min(x.shape):
        raise InputError(f"n: expected 1 to {min(x.shape)} for x of shape {list(x.shape)}, got {n}.")
    centred = (x - x.mean(0)).double()
    _, vectors = torch.linalg.eigh(centred.T @ centred)  # ascending eigenvalues
    return vectors.flip(1).T[:n].to(x.dtype)


def project(x: Tensor, directions: Tensor, two_sided: bool = False, keep: int | None = None) -> Tensor:
    """Read directions as if they were latents: how far each token lies along each, [tokens, n].

    x: [tokens, d]; directions: [n, d]. The mean is taken off and negative values are cut to zero, as an
    SAE's ReLU does. With `two_sided` each direction gives two columns, one a side: the sign of a principal
    component means nothing. With `keep` only the strongest `keep` columns of each token stay, the rest is
    set to zero: directions made as sparse as an SAE.
    """
    _require("x", x, "tokens", "d")
    _require("directions", directions, "n", "d")
    if x.shape[1] != directions.shape[1]:
        raise InputError(f"x has d {x.shape[1]}, directions have {directions.shape[1]}: they must agree.")
    along = (x - x.mean(0)) @ directions.T
    along = torch.relu(torch.cat([along, -along], dim=1) if two_sided else along)
    if keep is None:
        return along
    if not 1 <= keep <= along.shape[1]:
        raise InputError(f"keep: expected 1 to {along.shape[1]} (the number of columns), got {keep}.")
    strongest = along.topk(keep, dim=1)
    return torch.zeros_like(along).scatter_(1, strongest.indices, strongest.values)


class Purity(NamedTuple):
    """How pure each latent is, and for what."""
    score: Tensor     # [live latents], 1: everything counted has the concept, 0: no more than chance
    concept: Tensor   # [live latents], index of the concept that scores best
    live: Tensor      # [live latents], which latents these are


def _purity(share: Tensor, base: Tensor, live: Tensor) -> Purity:
    """Correct shares [latents, concepts] for chance and keep each live latent's best concept."""
    score, concept = ((share - base) / (1 - base)).max(dim=1)
    return Purity(score[live], concept[live], live.nonzero().flatten())


def _purity_inputs(features: Tensor, labels: Tensor, min_active: int) -> tuple[Tensor, Tensor, Tensor]:
    _require("features", features, "tokens", "latents")
    _require("labels", labels, "tokens", "concepts")
    _same_length(features=features, labels=labels)
    labels = labels.float()
    return labels, labels.mean(0).clamp(max=1 - 1e-6), (features > 0).sum(0) >= min_active


def top_k_purity(features: Tensor, labels: Tensor, k: int = 50, min_active: int = 20) -> Purity:
    """Of the k tokens on which a latent is strongest, how many share one concept?

    features: [tokens, latents]; labels: [tokens, concepts] bool. Each latent is scored with its best
    concept, corrected for how common that concept is: (share - base rate) / (1 - base rate). Latents active
    on fewer than `min_active` tokens are left out, and a latent active on fewer than k is judged on those.
    This looks at the strongest tokens only, which flatters any direction at all.
    """
    labels, base, live = _purity_inputs(features, labels, min_active)
    if not 1 <= k <= len(features):
        raise InputError(f"k: expected 1 to {len(features)} (the number of tokens), got {k}.")
    values, strongest = features.topk(k, dim=0)  # [k, latents]
    counted = (values > 0).to(labels)
    share = torch.stack([c @ labels[rows] for c, rows in zip(counted.T, strongest.T, strict=True)])
    return _purity(share / counted.sum(0).clamp(min=1)[:, None], base, live)


def mass_purity(features: Tensor, labels: Tensor, min_active: int = 20) -> Purity:
    """Of all the activation a latent ever has, how much falls on tokens that share one concept?

    As `top_k_purity`, but every token counts by how strongly the latent is active there, so weak
    activations on unrelated tokens are no longer hidden.
    """
    labels, base, live = _purity_inputs(features, labels, min_active)
    share = (features.T @ labels) / features.sum(0).clamp(min=1e-9)[:, None]
    return _purity(share, base, live)


# ---------------------------------------------------------------------------------------- toy superposition

class ToyModels(NamedTuple):
    """Small models trained to carry n features through fewer dimensions, one per probability."""
    probability: list[float]   # how often each feature is present
    W: Tensor                  # [models, hidden, features]: column i is where feature i is put
    bias: Tensor               # [models, features]
    loss: list[float]          # mean squared error per feature at the end


def toy_superposition(
    probabilities: Sequence[float] = (1.0, 0.3, 0.05),
    n_features: int = 5,
    n_hidden: int = 2,
    steps: int = 1200,
    batch: int = 256,
    seed: int = 0,
) -> ToyModels:
    """Train x' = ReLU(Wᵀ W x + b) to give its input back through a bottleneck, once per probability.

    Each feature is absent (0) or, with the given probability, present with a strength drawn from 0 to 1.
    All features matter equally but for a slight order (0.9 to the power of the index) that settles ties.
    Source: Elhage et al. 2022, "Toy Models of Superposition", section "Demonstrating superposition".
    """
    if not probabilities or not all(0 < p <= 1 for p in probabilities):
        raise InputError(f"probabilities: expected numbers above 0 and up to 1, got {list(probabilities)}.")
    generator = torch.Generator().manual_seed(seed)
    present = torch.tensor(probabilities)[:, None, None]
    n = len(probabilities)
    W = (torch.randn(n, n_hidden, n_features, generator=generator) * 0.3).requires_grad_()
    bias = torch.zeros(n, n_features, requires_grad=True)
    importance = 0.9 ** torch.arange(n_features)
    optimiser = torch.optim.Adam([W, bias], lr=0.02)
    for _ in range(steps):
        draw = torch.rand(2, n, batch, n_features, generator=generator)
        x = draw[0] * (draw[1] < present)
        hidden = torch.einsum("mhf,mbf->mbh", W, x)
        out = torch.relu(torch.einsum("mhf,mbh->mbf", W, hidden) + bias[:, None])
        loss = (importance * (out - x) ** 2).mean(dim=(1, 2))
        optimiser.zero_grad()
        (loss / present.flatten()).sum().backward()  # rare features give small losses: weigh the models alike
        optimiser.step()
    return ToyModels(list(probabilities), W.detach(), bias.detach(), loss.detach().tolist())


def interference(directions: Tensor) -> Tensor:
    """Cosine of every direction with every other, [n, n], the diagonal set to zero. directions: [n, d]."""
    _require("directions", directions, "n", "d")
    unit = directions / directions.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return (unit @ unit.T).fill_diagonal_(0.0)
