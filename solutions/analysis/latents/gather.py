"""One pass over an index that says something about every latent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from torch import Tensor

from solutions.analysis.latents.blocks import Block, blocks, ratio, strongest_first
from solutions.analysis.latents.enrichment import Collector, Enriched
from solutions.analysis.latents.places import ENDS, PlaceSums
from solutions.analysis.latents.table import BETWEEN, LatentTable
from solutions.analysis.latents.truth import Truth, best_concepts
from solutions.errors import InputError

if TYPE_CHECKING:
    from solutions.analysis.index import ConceptTable, FeatureIndex

#: Tokens that a column of several tokens shows.
SHOWN = 8
#: Tokens of text before and after the one that an example is about.
BEFORE, AFTER = 7, 3


def latent_table(
    index: FeatureIndex,
    concepts: ConceptTable | None = None,
    labels: Tensor | None = None,
    groups: Mapping[str, str] | None = None,
    *,
    alpha: float = 0.05,
    ends: Sequence[str] = ENDS,
    progress: bool = True,
) -> LatentTable:
    """Say of every latent how often it is active, on which tokens, where in a text, and for which concept.

    Dead ones included. One pass over the entries, a block of latents at a time, so that memory does not grow
    with the text except for a few numbers a token. What is chosen (the token, the concept) is chosen on the
    train split; what is reported of it is measured on the test split. An index without a split uses all
    tokens for both (`LatentTable.split` says so).

    Args:
        index: a feature index with a vocabulary.
        concepts: from `concept_table`: adds the columns about the concept that a latent follows best.
        labels: [n_tokens, concepts] bool, those that `concepts` was made from: adds average precision and
            purity.
        groups: concept to the name of its group: adds the column group.
        alpha: the share of false discoveries among the tokens that are called enriched, over all latents.
        ends: the marks that end a sentence.
        progress: whether to show a bar.

    Returns:
        A table with a row for every latent and the columns

        - latent, n_active (tokens), density, maximum and mean (of the activations above zero);
        - token: the most enriched one (see `enriched_tokens`; missing where none is commoner than by chance),
          its token_q among all pairs of a latent and a token (exact up to `alpha`, above that at most so
          much); token_precision (of the latent's tokens, how many are this one), token_recall (of this
          token's occurrences, on how many it is active) and token_lift (precision / the token's share of the
          text), all three on test;
        - tokens: the enriched ones with q <= alpha, least likely first, at most 8, with "|" between them;
          n_enriched: how many there are; enriched_share: the share of its test tokens that are among them
          (near 1: it follows a set of tokens, whatever they mean);
        - example and typical: the text around its strongest token, and around the one in the middle of its
          activations, each between two pairs of asterisks; the strongest alone would flatter it;
        - mean_position; position_effect: how much later than the mean of its documents it is active, in
          standard deviations; start_lift and end_lift: how many times more often than by chance on the first
          token of a sentence and on the mark that ends one (see `places`);
        - promoted, suppressed: tokens whose logit its decoder direction raises and lowers most ("" if
          unknown);
        - with concepts: concept, (group,) precision, recall, f1, lookup_f1 (of the same concept, see
          `ConceptTable`); with labels also average_precision (see there), purity_mass and purity_top (how far
          its activation, and its 50 strongest tokens, belong to one concept; 1 is all, 0 what chance gives;
          see `mass_purity`), entropy (bits, of its activation over concepts, each token counted for the
          rarest of its concepts; "none" is a class, too).

        NaN stands where nothing can be measured: a latent that is silent on the test split has no precision
        there.

    Raises:
        InputError: labels without concepts, or either of another index.

    Example:
        >>> table = latent_table(index, concepts, progress=False)
        >>> table.filter(concept="weekday").sort("f1").head(1)["latent"].tolist() == [latent]
        True
    """
    _check_given(index, concepts, labels, groups)
    collector, places = Collector(index, alpha), PlaceSums(index, ends)
    truth = None if labels is None else Truth(index, concepts, labels)
    sums = {name: np.full(index.n_latents, np.nan) for name in _measured(truth)}
    shown = np.full((2, index.n_latents), -1)
    for block in blocks(index, progress):
        collector.add(block)
        shown[:, block.first:block.last] = _shown_places(block)
        here = {"mean": _means(block), **places.of(block), **({} if truth is None else truth.of(block))}
        for name, column in sums.items():
            column[block.first:block.last] = here[name]
    columns = _activity(index, sums) | _tokens(index, collector.result(), alpha)
    columns |= {"example": _examples(index, shown[0]), "typical": _examples(index, shown[1])}
    columns |= {name: sums[name] for name in PlaceSums.columns} | _logits(index)
    if concepts is not None:
        columns |= _about_concepts(best_concepts(concepts, groups), sums)
    return LatentTable(
        pd.DataFrame(columns), collector.n_tests, alpha, "all" if collector.counts.split.whole else "test",
        frozenset(index.vocabulary), () if concepts is None else concepts.concepts)


def _check_given(index: FeatureIndex, concepts: ConceptTable | None, labels: Tensor | None,
                 groups: Mapping[str, str] | None) -> None:
    for name, given in (("labels", labels), ("groups", groups)):
        if given is not None and concepts is None:
            raise InputError(f"{name} belong to concepts: give concepts=concept_table(index, labels, names) too.")
    if concepts is not None and len(concepts.train.hits) != index.n_latents:
        raise InputError(f"concepts: expected a table of the index's {index.n_latents} latents, got one of "
                         f"{len(concepts.train.hits)}. Make it with concept_table(index, labels, names).")


def _measured(truth: Truth | None) -> tuple[str, ...]:
    return ("mean", *PlaceSums.columns, *(() if truth is None else Truth.columns))


def _means(block: Block) -> np.ndarray:
    """Mean activation of each latent where it is active; NaN for a dead one."""
    n = np.diff(block.starts)
    total = np.append(0.0, np.cumsum(block.values, dtype=np.float64))[block.starts]
    return ratio(np.diff(total), n)


def _shown_places(block: Block) -> np.ndarray:
    """The places of each latent's strongest activation and of the middle one, [2, latents]; -1 if it is dead."""
    n = np.diff(block.starts)
    order = strongest_first(block.latents(), block.values)
    where = np.append(block.places[order], -1)  # the last one is for those that have none
    return np.stack([where[np.where(n > 0, block.starts[:-1] + step, -1)] for step in (0, n // 2)])


def _examples(index: FeatureIndex, places: np.ndarray) -> np.ndarray:
    """The text around each place, [n]; "" where there is none."""
    vocabulary, ids, bos = index.vocabulary, index._places["ids"], index._places["is_bos"]
    document = index._places["document"]
    texts = np.full(len(places), "", dtype=object)
    for j in np.flatnonzero(places >= 0):
        here = places[j]
        around = np.arange(max(here - BEFORE, 0), min(here + AFTER + 1, len(ids)))
        around = around[(document[around] == document[here]) & ~bos[around]]
        words = [f"**{vocabulary[ids[i]]}**" if i == here else vocabulary[ids[i]] for i in around]
        texts[j] = "".join(words)
    return texts


def _activity(index: FeatureIndex, sums: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    n_active = index.n_active.numpy()
    return {"latent": np.arange(index.n_latents), "n_active": n_active, "density": n_active / index.n_content,
            "maximum": index.maximum().numpy().astype(np.float64), "mean": sums["mean"]}


def _tokens(index: FeatureIndex, found: Enriched, alpha: float) -> dict[str, np.ndarray]:
    """The columns about the tokens that a latent prefers."""
    n, vocabulary = index.n_latents, index.vocabulary
    best, counts = found.best, found.counts
    token = np.full(n, None, dtype=object)
    token[best.latent] = np.array([vocabulary[i] for i in best.token], dtype=object)
    q = np.full(n, np.nan)
    # What was not kept has q above alpha; it ranks behind all that was, which is as much as is known.
    q[best.latent] = np.minimum(1.0, np.exp(best.log_p) * found.n_tests / (len(found.q) + 1))
    leaders = np.flatnonzero(np.diff(found.pairs.latent, prepend=-1))
    q[found.pairs.latent[leaders]] = found.q[leaders]
    hits, fired, stands = np.zeros(n), found.active[1].astype(float), np.zeros(n)
    hits[best.latent], stands[best.latent] = best.n_test, counts.test[best.token]
    known = np.isin(np.arange(n), best.latent)
    precision = ratio(hits, np.where(known, fired, 0))
    good = found.pairs.take(np.flatnonzero(found.q <= alpha))
    in_set = np.bincount(good.latent, good.n_test, minlength=n)
    return {
        "token": token, "token_precision": precision, "token_recall": ratio(hits, stands),
        "token_lift": ratio(precision, stands / max(counts.n_test, 1)), "token_q": q,
        "tokens": _texts(good.latent, good.token, vocabulary, n),
        "n_enriched": np.bincount(good.latent, minlength=n), "enriched_share": ratio(in_set, fired),
    }


def _texts(latent: np.ndarray, token: np.ndarray, vocabulary: Sequence[str], n: int) -> np.ndarray:
    """The first tokens of each latent as one text, [n]; `latent` is ascending."""
    texts = np.full(n, "", dtype=object)
    begins = np.searchsorted(latent, np.arange(n + 1))
    for j in np.flatnonzero(np.diff(begins)):
        texts[j] = BETWEEN.join(vocabulary[i] for i in token[begins[j]:min(begins[j + 1], begins[j] + SHOWN)])
    return texts


def _logits(index: FeatureIndex) -> dict[str, np.ndarray]:
    columns = {}
    for name, sign in (("promoted", "positive"), ("suppressed", "negative")):
        ids = index._decoder.get(sign)
        rows = [""] * index.n_latents if ids is None else [
            BETWEEN.join(index.vocabulary[i] for i in row) for row in ids[:, :SHOWN].tolist()]
        columns[name] = np.array(rows, dtype=object)
    return columns


def _about_concepts(best: pd.DataFrame, sums: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    found = {name: best[name].to_numpy() for name in best}
    lookup = found.pop("lookup_f1")
    measured = {name: sums[name] for name in Truth.columns if name in sums}
    precision = {"average_precision": measured.pop("average_precision")} if measured else {}
    return found | precision | {"lookup_f1": lookup} | measured
