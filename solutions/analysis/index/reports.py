"""Tables read off an index. `FeatureIndex` documents what each holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from torch import Tensor

from solutions.errors import unknown_name

if TYPE_CHECKING:
    from solutions.analysis.index.read import FeatureIndex, SparseRows

#: Entries that one question reads at most, so that a latent which is active everywhere costs no more time than others.
#: At 50 active latents a token these are 10,000 tokens: a share among them is off by half a percent, or less.
MOST_ENTRIES = 500_000


def best(score: np.ndarray, k: int) -> np.ndarray:
    """Indices of the k largest scores above zero, largest first; of equal ones, the first."""
    candidates = np.flatnonzero(score > 0)
    if len(candidates) > 4 * k:
        bar = np.partition(score[candidates], -k)[-k]
        candidates = candidates[score[candidates] >= bar]
    return candidates[np.argsort(-score[candidates], kind="stable")][:k]


def count_latents(
    index: FeatureIndex, places: np.ndarray, means: bool = False
) -> tuple[np.ndarray, np.ndarray | None]:
    """On how many of the places each latent is active, and with `means` its mean activation there; [n_latents] each.

    Of more places than `MOST_ENTRIES` allows for, evenly spaced ones are looked at and the counts are scaled up.
    """
    most = max(1, int(MOST_ENTRIES * index.n_content / max(index.nnz, 1)))
    looked = places if len(places) <= most else places[np.linspace(0, len(places) - 1, most).astype(np.int64)]
    latents, values = index.entries(looked, means)
    n = np.bincount(latents, minlength=index.n_latents)
    mean = np.bincount(latents, values, minlength=index.n_latents) / np.maximum(n, 1) if means else None
    return (n if looked is places else np.rint(n * (len(places) / most)).astype(np.int64)), mean


def cofiring(index: FeatureIndex, j: int, where: np.ndarray, k: int) -> dict[str, np.ndarray]:
    both, _ = count_latents(index, where)
    active = index.n_active.numpy()
    both[j] = 0
    both = np.minimum(both, active)  # a count that was scaled up may say too much
    jaccard = both / np.maximum(active + active[j] - both, 1)
    chosen = best(jaccard, k)
    lift = both[chosen] * index.n_content / np.maximum(active[chosen] * active[j], 1)
    return {"latent": chosen, "jaccard": jaccard[chosen], "lift": lift, "n": both[chosen]}


def search_token(index: FeatureIndex, places: np.ndarray, k: int) -> pd.DataFrame:
    hits, mean = count_latents(index, places, means=True)
    active = index.n_active.numpy()
    hits = np.minimum(hits, active)
    f1 = 2 * hits / np.maximum(active + len(places), 1)
    chosen = best(f1, k)
    return pd.DataFrame({"latent": chosen, "precision": hits[chosen] / active[chosen],
                         "recall": hits[chosen] / max(len(places), 1), "f1": f1[chosen], "mean": mean[chosen]})


def top_of_token(index: FeatureIndex, latents: Tensor, values: Tensor, k: int) -> pd.DataFrame:
    order = values.argsort(descending=True, stable=True)[:k]
    chosen, values = latents[order].numpy(), values[order].double().numpy()
    return pd.DataFrame({"latent": chosen, "activation": values, "of_maximum": values / _maximum(index, chosen),
                         "density": _density(index, chosen)})


def _maximum(index: FeatureIndex, latents: np.ndarray) -> np.ndarray:
    """The maxima in the index; a latent that has never been active there is measured by 1."""
    found = index._by_latent["maximum"][latents].astype(np.float64)
    return np.where(found > 0, found, 1.0)


def _density(index: FeatureIndex, latents: np.ndarray) -> np.ndarray:
    return index.n_active.numpy()[latents] / index.n_content


def _strongest(rows: SparseRows) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """For each latent active in a text: its number, highest activation, on which token, active on how many."""
    latents, values, tokens = rows.latents.numpy(), rows.values.double().numpy(), rows.rows().numpy()
    order = np.lexsort((tokens, -values, latents))  # by latent, the strongest first, of equal ones the earliest
    found, first, n = np.unique(latents[order], return_index=True, return_counts=True)
    return found, values[order][first], tokens[order][first], n


def top_of_text(index: FeatureIndex, rows: SparseRows, k: int, by: str) -> pd.DataFrame:
    latents, values, tokens, n = _strongest(rows)
    of_maximum = values / _maximum(index, latents)
    density = _density(index, latents)
    # A latent the index has never seen active is as rare as one token in all that were read.
    surprise = of_maximum * -np.log2(np.maximum(density, 1 / (index.n_content + 1)))
    orders = {"activation": values, "of_maximum": of_maximum, "surprise": surprise}
    if by not in orders:
        raise unknown_name("order", by, orders)
    chosen = np.argsort(-orders[by], kind="stable")[:k]
    columns = {"latent": latents, "activation": values, "token": tokens, "n_active": n, "of_maximum": of_maximum,
               "density": density, "surprise": surprise}
    return pd.DataFrame({name: column[chosen] for name, column in columns.items()})


def compare(index: FeatureIndex, first: SparseRows, second: SparseRows, k: int) -> pd.DataFrame:
    strengths = np.zeros((2, index.n_latents))
    for row, rows in zip(strengths, (first, second), strict=True):
        latents, values, _, _ = _strongest(rows)
        row[latents] = values
    latents = np.flatnonzero(strengths.any(0))
    one, other = strengths[:, latents]
    relative = (one - other) / _maximum(index, latents)
    chosen = np.argsort(-np.abs(relative), kind="stable")[:k]
    return pd.DataFrame({"latent": latents[chosen], "first": one[chosen], "second": other[chosen],
                         "difference": (one - other)[chosen], "of_maximum": relative[chosen]})


def worst_tokens(index: FeatureIndex, k: int, before: int, after: int) -> pd.DataFrame:
    error, norm = index._places["error"], index._places["norm"]
    rows = []
    for place in best(error, k).tolist():
        document, position = index.place(place)
        start, stop = index.span(document)
        start, stop = max(start, place - before), min(stop, place + after + 1)
        context = "".join(index.text(start + int(index._places["is_bos"][start]), stop))
        rows.append((place, document, position, index.text(place, place + 1)[0], float(error[place]),
                     float(error[place] / norm[place]), float(error[place]) / index.manifest["squared_error"], context))
    columns = ["place", "document", "position", "token", "error", "relative", "share", "context"]
    return pd.DataFrame(rows, columns=columns)


def error_by_token(index: FeatureIndex, k: int, least: int) -> pd.DataFrame:
    ids, content = index._places["ids"], ~index._places["is_bos"]
    n = np.bincount(ids, content)
    error = np.bincount(ids, index._places["error"])
    norm = np.bincount(ids, index._places["norm"])
    chosen = best(np.where(n >= least, error, 0.0), k)
    return pd.DataFrame({
        "token": [index.vocabulary[i] for i in chosen], "id": chosen, "n": n[chosen].astype(int),
        "mean_error": error[chosen] / n[chosen], "relative": error[chosen] / norm[chosen],
        "share_of_error": error[chosen] / index.manifest["squared_error"],
        "share_of_tokens": n[chosen] / index.n_content,
    })
