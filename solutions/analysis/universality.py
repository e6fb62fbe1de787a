"""The same texts read by several models: which latents of one have a partner in every other, and what kind they are.

Latents of different models have no common space, so their directions cannot be compared. What can be compared is when
two latents are active: Gurnee et al. 2024 look for universal neurons that way, and Lan et al. 2024 pair the latents of
two models' SAEs. Two things flatter it. The best of a thousand partners is partly luck: so it is chosen on one half of
the documents and measured on the other. And two latents that stand for one word fire together, though neither model
need have learnt anything: so a table of tokens is asked the same question.

    readings = {name: read_target(model, sae, target.hook, 400) for name, (target, model, sae) in loaded.items()}
    universal_latents(align_readings(readings), "smallworld")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from solutions.analysis.bases.compare import LabelledTokens, labelled_tokens
from solutions.analysis.bases.make import encode_all, read_texts
from solutions.analysis.detectors import score_concepts
from solutions.analysis.layers import half_way, standardise_columns
from solutions.analysis.shapes import check_axes, same_length
from solutions.analysis.texts import labelled_texts
from solutions.data import Tokens
from solutions.errors import InputError, check_count, check_model, unknown_name
from solutions.smallworld.corpus import SEEDS, documents

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

#: From this correlation on, on documents that did not choose it, a latent counts as having a partner.
PARTNER = 0.5


class Reading(NamedTuple):
    """What one model and its SAE say of some texts, token by token, BOS and padding left out."""

    text: LabelledTokens  #: the tokens, their documents, concepts, and which documents are for testing
    ends: Tensor          #: [tokens] int64: where each token ends in its text, in characters (see `token_ends`)
    acts: Tensor          #: [tokens, d_in] activations at the target's hook point
    latents: Tensor       #: [tokens, d_sae] what the SAE makes of them

    @property
    def characters(self) -> int:
        """How much text was read: up to the last token's end in each, in characters."""
        longest = torch.zeros(int(self.text.document.max()) + 1, dtype=torch.int64)
        return int(longest.scatter_reduce(0, self.text.document, self.ends, "amax").sum())

    def at(self, rows: Tensor) -> Reading:
        """Some of the tokens, as another reading.

        Args:
            rows: [n] int64, which.
        """
        kept = (x[rows] if isinstance(x, Tensor) else x for x in self.text)
        return Reading(LabelledTokens(*kept), self.ends[rows], self.acts[rows], self.latents[rows])


def read_target(
    model: TransformerBridge, sae: SAE, hook: str, n: int, split: str = "test", seed: int = 0
) -> Reading:
    """Let a model and its SAE read the first texts of the embedded world.

    Every model reads the same texts, and has the same documents put aside for testing, whatever its tokenizer.

    Args:
        model: a loaded model.
        sae: its SAE.
        hook: where the SAE was trained.
        n: how many texts.
        split: "train", "probe" or "test".
        seed: draws the half of the documents that is for testing.

    Returns:
        The reading.

    Raises:
        InputError: fewer than two texts, an unknown split, or a tokenizer that does not say where tokens end.
    """
    check_model(model)
    world = labelled_texts(model, n, split)
    text = labelled_tokens(world, seed=seed)
    acts = read_texts(model, world, hook)
    ends = token_ends(model, [document.text for document in documents(SEEDS[split], n)], world.tokens)
    return Reading(text, ends, acts, encode_all(sae, acts))


def token_ends(model: TransformerBridge, texts: Sequence[str], tokens: Tokens) -> Tensor:
    """Where each token ends in its text, counted in characters.

    Args:
        model: a loaded model; its tokenizer is asked.
        texts: the texts.
        tokens: the same texts, from `tokenize`.

    Returns:
        [tokens] int64, BOS and padding left out; -1 for a token that ends within a character, as those of a byte-level
        tokenizer may: after it a part of the character is still unread.

    Raises:
        InputError: the tokenizer does not say, or the tokens are of other texts.
    """
    if not getattr(model.tokenizer, "is_fast", False):
        raise InputError(f"the tokenizer of {model.cfg.model_name} does not say where its tokens end in the text. Load "
                         "one of transformers' fast tokenizers: its folder has a tokenizer.json.")
    same_length(texts=texts, tokens=tokens.ids)
    found = model.tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    counts = tokens.content.sum(1).tolist()
    if any(len(row) < count for row, count in zip(found, counts, strict=True)):
        raise InputError("tokens: expected those of these texts, got more than the texts have.")
    return torch.tensor([end for row, count in zip(found, counts, strict=True) for end in _whole_ends(row)[:count]])


def _whole_ends(row: Sequence[tuple[int, int]]) -> list[int]:
    """Pieces of one character are all said to end behind it; but only the last has read it."""
    ends = [end for _, end in row]
    return [-1 if end == following else end for end, following in zip(ends, [*ends[1:], None], strict=True)]


# ---- the same place in every model


def align_tokens(document: Sequence[Tensor], ends: Sequence[Tensor]) -> list[Tensor]:
    """The tokens of several models that end at the same place of the same text.

    Where one model cuts a word and the other does not, only the end of the word is common: there both have read the
    same characters. Models of one tokenizer keep all tokens.

    Args:
        document: for each model [tokens] int, which text a token belongs to.
        ends: for each model [tokens] int, where in the text it ends, `token_ends`.

    Returns:
        For each model [common] int64, rows of its tokens, of which the i-th stands at the same place in each; may be
        none.

    Raises:
        InputError: no models, or tensors that do not fit together.

    Example:
        >>> one_text = [torch.zeros(2).long(), torch.zeros(4).long()]
        >>> align_tokens(one_text, [torch.tensor([3, 6]), torch.tensor([1, 3, 5, 6])])
        [tensor([0, 1]), tensor([1, 3])]
    """
    if not len(ends) or len(document) != len(ends):
        raise InputError(f"expected documents and ends of the same models, got {len(document)} and {len(ends)}.")
    for d, e in zip(document, ends, strict=True):
        same_length(document=check_axes("document", d, "tokens"), ends=check_axes("ends", e, "tokens"))
    if all(torch.equal(d, document[0]) and torch.equal(e, ends[0]) for d, e in zip(document, ends, strict=True)):
        return [torch.arange(len(e)) for e in ends]
    step = 1 + max(int(e.max()) for e in ends)
    whole = [(e >= 0).nonzero().flatten() for e in ends]
    places = [(d[rows].long() * step + e[rows].long()).numpy()
              for d, e, rows in zip(document, ends, whole, strict=True)]
    common = reduce(np.intersect1d, places)
    return [rows[torch.from_numpy(_first_rows(p, common))] for rows, p in zip(whole, places, strict=True)]


def _first_rows(places: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The first row at each wanted place."""
    found, first = np.unique(places, return_index=True)
    return first[np.searchsorted(found, wanted)]


def align_readings(readings: Mapping[str, Reading]) -> dict[str, Reading]:
    """Several models' readings of the same texts, at the places where all of them have a token's end.

    Args:
        readings: name to reading.

    Returns:
        Name to reading; row i stands at the same place in each.

    Raises:
        InputError: no readings, or no place that all have in common.
    """
    rows = align_tokens([r.text.document for r in readings.values()], [r.ends for r in readings.values()])
    if not len(rows[0]):
        raise InputError(f"{', '.join(readings)} have no place in common. Did they read the same texts?")
    return {name: reading.at(at) for (name, reading), at in zip(readings.items(), rows, strict=True)}


# ---- partners


def best_partners(a: Tensor, b: Tensor, test: Tensor, least: int = 10) -> pd.DataFrame:
    """For every latent of a the latent of b that is active most alike; two may have the same partner.

    Args:
        a: [tokens, n_a] activations in one model.
        b: [tokens, n_b] activations in another, at the same places.
        test: [tokens] bool, measured on; partners are chosen on the other tokens. Whole documents, see
            `split_documents`.
        least: latents active on fewer tokens of a side are left out, and are nobody's partner.

    Returns:
        One row per latent of a that is active often enough, with latent, partner, correlation (on the test tokens),
        chosen_at (on the tokens that chose it, where the best of many flatters itself) and mutual (it is its partner's
        best partner, too).

    Raises:
        InputError: tensors that do not fit together, or no latent on one side is active often enough.

    Example:
        >>> a = torch.eye(3).repeat(8, 1)
        >>> best_partners(a, a[:, [1, 2, 0]], torch.arange(24) < 12, least=2)["partner"].tolist()
        [2, 0, 1]
    """
    check_axes("a", a, "tokens", "n_a")
    check_axes("b", b, "tokens", "n_b")
    same_length(a=a, b=b, test=test)
    return _partners(_both_sides("a", a, test, least), _both_sides("b", b, test, least))


class _Sides(NamedTuple):
    """The latents of a model that are active often enough, made ready to be correlated with many others."""

    latents: Tensor  # [n] their numbers
    choose: Tensor   # [tokens, n] standardised, on the documents that choose
    test: Tensor     # [tokens, n] standardised, on the test documents


def _both_sides(name: str, x: Tensor, test: Tensor, least: int) -> _Sides:
    if not test.any() or test.all():
        raise InputError("test: expected some tokens on each side of the split.")
    choose, test = x[~test], x[test]
    n = torch.minimum((choose > 0).sum(0), (test > 0).sum(0))
    if not len(often := (n >= check_count(least, "least")).nonzero().flatten()):
        raise InputError(f"{name}: no latent is active on {least} tokens of both sides, the most is {int(n.max())}. "
                         "Read more texts.")
    return _Sides(often, *(standardise_columns(side[:, often]) for side in (choose, test)))


def _partners(a: _Sides, b: _Sides) -> pd.DataFrame:
    along = (a.choose.T @ b.choose / len(a.choose)).clamp(-1, 1)
    chosen_at, at = along.max(1)
    measured = (a.test * b.test[:, at]).mean(0).clamp(-1, 1)
    mutual = along.argmax(0)[at] == torch.arange(len(at))
    columns = {"latent": a.latents, "partner": b.latents[at], "correlation": measured, "chosen_at": chosen_at,
               "mutual": mutual}
    return pd.DataFrame({name: column.numpy() for name, column in columns.items()})


def pairwise_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation of each column of a with the column of b of the same number.

    Args:
        a: [tokens, n].
        b: [tokens, n].

    Returns:
        [n], from -1 to 1; 0 where one of the two never changes.

    Raises:
        InputError: matrices of different shapes.
    """
    check_axes("a", a, "tokens", "n")
    if a.shape != check_axes("b", b, "tokens", "n").shape:
        raise InputError(f"expected two matrices of one shape, got {list(a.shape)} and {list(b.shape)}.")
    return (standardise_columns(a) * standardise_columns(b)).mean(0).clamp(-1, 1)


def token_correlation(latents: Tensor, text: LabelledTokens) -> Tensor:
    """How well a table of tokens would do as a partner: for each token it holds a latent's mean activation on it.

    Args:
        latents: [tokens, n] activations.
        text: the same tokens; the table is made on those not for testing.

    Returns:
        [n] correlation on the test tokens. Near 1 for a latent that stands for words, whatever stands around them.

    Raises:
        InputError: activations of other tokens.
    """
    check_axes("latents", latents, "tokens", "n")
    same_length(latents=latents, ids=text.ids, test=text.test)
    train, ids = latents[~text.test].float(), text.ids[~text.test]
    size = int(text.ids.max()) + 1
    sums = torch.zeros(size, latents.shape[1]).index_add_(0, ids, train)
    count = torch.bincount(ids, minlength=size)[:, None]
    table = torch.where(count > 0, sums / count.clamp(min=1), train.mean(0))
    return pairwise_correlation(latents[text.test], table[text.ids[text.test]])


# ---- tables


def partners_between(readings: Mapping[str, Reading], pairs: Sequence[tuple[str, str]], at: float = PARTNER,
                     least: int = 10) -> pd.DataFrame:
    """How many latents of one model have a partner in another, and how many would have by chance.

    Args:
        readings: from `align_readings`.
        pairs: which pairs of names, as (of, in).
        at: the correlation from which on a partner counts.
        least: see `best_partners`.

    Returns:
        One row per pair, with of, in, n (latents that are active often enough), correlation (mean, on the test
        documents), flattered (the same on the documents that chose), partners (share with a correlation of `at` or
        more), correlation_by_chance and partners_by_chance (the other model's activations are of other documents).

    Raises:
        InputError: an unknown name, or readings that are not aligned.
    """
    for name in (name for pair in pairs for name in pair):
        if name not in readings:
            raise unknown_name("reading", name, readings)
    ready = {name: _both_sides(name, readings[name].latents, readings[name].text.test, least)
             for name in dict.fromkeys(name for pair in pairs for name in pair)}
    rows = []
    for of, in_ in pairs:
        same_length(**{of: readings[of].ends, in_: readings[in_].ends})
        found = _partners(ready[of], ready[in_])
        chance = _partners(ready[of], _other_documents(ready[in_], readings[in_].text))
        rows.append({
            "of": of, "in": in_, "n": len(found), "correlation": found["correlation"].mean(),
            "flattered": found["chosen_at"].mean(), "partners": (found["correlation"] >= at).mean(),
            "correlation_by_chance": chance["correlation"].mean(),
            "partners_by_chance": (chance["correlation"] >= at).mean(),
        })
    return pd.DataFrame(rows)


def _other_documents(sides: _Sides, text: LabelledTokens) -> _Sides:
    """The control: on either side whole documents are moved half-way round, so that each latent keeps its rhythm."""
    return sides._replace(choose=sides.choose.roll(-half_way(text.document[~text.test]), 0),
                          test=sides.test.roll(-half_way(text.document[text.test]), 0))


def universal_latents(
    readings: Mapping[str, Reading], home: str, at: float = PARTNER, least: int = 10
) -> pd.DataFrame:
    """Which latents of one model have a partner in every other, and what kind of latent they are.

    Args:
        readings: from `align_readings`: the model and at least one other.
        home: the name of the model whose latents are asked about.
        at: the correlation from which on a partner counts.
        least: see `best_partners`.

    Returns:
        One row per latent that is active often enough, with latent; for every other model a column of its name with
        the best partner's correlation; weakest (the smallest of these); universal (weakest is `at` or more);
        by_token (`token_correlation`); kind ("token" where by_token is `at` or more, else "context"); density
        (share of tokens); concept and f1 (the concept it follows best, chosen and measured on different documents).

    Raises:
        InputError: an unknown name, no other reading, or readings that are not aligned.
    """
    if home not in readings:
        raise unknown_name("reading", home, readings)
    others = {name: r for name, r in readings.items() if name != home}
    if not others:
        raise InputError(f"readings: expected {home!r} and at least one other.")
    text, latents = readings[home].text, readings[home].latents
    same_length(**{name: reading.ends for name, reading in readings.items()})
    ours = _both_sides(home, latents, text.test, least)
    table = pd.DataFrame({
        name: _partners(ours, _both_sides(name, other.latents, text.test, least)).set_index("latent")["correlation"]
        for name, other in others.items()})
    table["weakest"] = table.min(axis=1)
    table["universal"] = table["weakest"] >= at
    kept = ours.latents
    table["by_token"] = token_correlation(latents[:, kept], text).numpy()
    table["kind"] = np.where(table["by_token"] >= at, "token", "context")
    table["density"] = (latents[:, kept] > 0).float().mean(0).numpy()
    scored = score_concepts(latents, text.labels, text.concepts, text.ids, text.test)
    best = [scored.best(latent) or {"name": "", "f1": 0.0} for latent in table.index]
    return table.assign(concept=[b["name"] for b in best], f1=[b["f1"] for b in best]).reset_index()
