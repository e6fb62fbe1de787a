"""Searching a feature index: what each kind of query costs, on the embedded index and on one of a real SAE's size.

The large one is bench_index's: 24,576 latents × 1,000,000 tokens, about 50 active latents a token, made-up entries.
Every query is another one (tokens drawn as they occur, latents half of them evenly and half by activity), so nothing
is answered from what was remembered. The model's own forward pass is left out: texts come as activations. What is
worked out once in a session is a row of its own.

    python -m tests.benchmarks search [--quick]
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from tests.benchmarks.bench_index import LIMIT_MS, peak_memory, timed, write_synthetic


def row(name: str, value: float, unit: str, limit: float | None = None, note: str = "") -> dict:
    """One line of the table."""
    kept = None if limit is None else bool(value <= limit)
    return {"name": f"search: {name}", "value": value, "unit": unit, "limit": limit, "ok": kept, "note": note}


def run(quick: bool) -> list[dict]:
    """All rows: for each index the session's beginning and the 95th percentile of every kind of query."""
    n = 20 if quick else 100
    with tempfile.TemporaryDirectory(prefix="bench-search-") as folder:
        return [*search_rows("embedded", *embedded(Path(folder), quick), n),
                *search_rows("large", *large(Path(folder), quick), n)]


def embedded(folder: Path, quick: bool) -> tuple:
    """The target's index and its concept table."""
    from solutions.analysis import build_index, concept_table, labelled_texts, place_labels
    from solutions.data import load_texts, str_tokens
    from solutions.models import harvest, load_model, unembedding
    from solutions.sae import load_sae
    from solutions.targets import get_target

    target, n = get_target("smallworld"), 200 if quick else 1500
    model, sae = load_model(target, "cpu"), load_sae(target, "cpu")
    store = harvest(model, load_texts(target, n), target.hook, folder / "store", test_share=0.3, progress=False)
    vocabulary = str_tokens(model, torch.arange(model.cfg.d_vocab))
    index = build_index(store, sae, target.hook, folder / "index", vocabulary=vocabulary, unembed=unembedding(model),
                        progress=False)
    world = labelled_texts(model, n)
    return index, concept_table(index, place_labels(index, world), world.concepts)


def large(folder: Path, quick: bool) -> tuple:
    """The made-up index, a third of its documents as test split, words as its vocabulary, and a made-up table."""
    from solutions.analysis import ConceptTable, FeatureIndex, Scores

    path, _ = write_synthetic(folder / "synthetic", *((4096, 100_000) if quick else (24_576, 1_000_000)))
    index, dice = FeatureIndex(path), np.random.default_rng(1)
    index.test = torch.from_numpy(index._places["document"] % 3 == 0)
    letters, sizes = np.array(list("etaoinshrdlu")), dice.integers(1, 9, 50_257)
    index.vocabulary = [f" {''.join(dice.choice(letters, size))}{i % 7}" for i, size in enumerate(sizes.tolist())]
    active = index.n_active.numpy()[:, None]
    wanted = dice.integers(1, index.n_content // 10, (1, 112))
    scores = Scores(dice.integers(0, np.minimum(active, wanted) + 1), active, wanted)
    lookup = Scores(*dice.integers(1, 1000, (3, 112)))
    names = tuple(f"concept_{i}" for i in range(112))
    return index, ConceptTable(names, scores, scores, lookup, np.ones(112, int))


def search_rows(what: str, index, concepts, n: int) -> list[dict]:
    """What the first query of a session costs, then every kind of query, asked n times."""
    from solutions.analysis import by_regex, by_token, search

    size, some = f"{index.n_latents:,} latents × {index.n_content:,} tokens", int((~index.is_bos).nonzero()[0])
    start = time.perf_counter()
    with peak_memory() as memory:
        search(index, by_token(index.text(some, some + 1)[0]) | by_regex("e", running=True))
    begun = time.perf_counter() - start
    rows = [row(f"{what}, first query of a session", begun, "s", note=f"{size}; keeps {memory.mb:.0f} MB or less")]
    for name, ask in queries(index, np.random.default_rng(0), n).items():
        median, slow, cpu = timed(lambda i, ask=ask: search(index, ask(i), concepts=concepts), list(range(n)))
        note = f"median {median:.1f} ms; CPU time at the 95th percentile {cpu:.1f} ms"
        rows.append(row(f"{what}, {name}, 95th percentile", slow, "ms", LIMIT_MS, note))
    return rows


def queries(index, dice: np.random.Generator, n: int) -> dict[str, Callable]:
    """Kind of query: what makes the i-th of them."""
    from solutions.analysis import (
        by_concept,
        by_density,
        by_examples,
        by_regex,
        by_text,
        by_token,
        parse_query,
        promotes,
        similar_to,
        suppresses,
    )

    active = index.n_active.numpy()
    live = np.flatnonzero(active)
    latents = np.concatenate([dice.choice(live, n - n // 2),
                              dice.choice(live, n // 2, p=active[live] / active.sum())]).tolist()
    content = np.flatnonzero(~index.is_bos.numpy())
    seen = [index.vocabulary[i] for i in index.ids.numpy()[dice.choice(content, 3 * n)].tolist()]
    raised = [index.vocabulary[i] for i in dice.choice(index._decoder["positive"].ravel(), n).tolist()]
    words, two, three = seen[:n], seen[n:2 * n], seen[2 * n:]
    documents = dice.integers(0, index.n_documents, n).tolist()
    outside = [index.document(d).dense()[1:] for d in documents[:8]]
    examples = [dice.choice(content, size, replace=False) for size in dice.choice([20, 200, 5_000], n)]
    concepts = dice.choice(["negation", "city", "noun", "french_word"], n).tolist()
    if index.n_latents > 2000:
        concepts = [f"concept_{i % 112}" for i in range(n)]
    start = [word.strip()[:2] for word in words]
    return {
        "text (a document)": lambda i: by_text(documents[i]),
        "text (its activations)": lambda i: by_text(outside[i % 8]),
        "token": lambda i: by_token(words[i]),
        "regex over tokens": lambda i: by_regex(rf"^ ?{re.escape(start[i])}\w*[aeiou]"),
        "regex over tokens, nested": lambda i: by_regex(rf"(?:{re.escape(start[i])}|[a-f]+\w)\w*$"),
        "regex over running text": lambda i: by_regex(rf"\b{re.escape(start[i])}\w* \w+", running=True),
        "concept": lambda i: by_concept(concepts[i]),
        "examples against the text": lambda i: by_examples(examples[i]),
        "examples against others": lambda i: by_examples(examples[i], against=examples[i - 1]),
        "similar direction": lambda i: similar_to(latents[i]),
        "similar activity": lambda i: similar_to(latents[i], by="activity"),
        "promotes": lambda i: promotes(raised[i]),
        "suppresses or promotes": lambda i: suppresses(raised[i]) | promotes(raised[i - 1]),
        "density": lambda i: by_density(0.0, float(dice.random())),
        "dense latents": lambda i: by_density(0.01 + 0.001 * (i % 7), 1.0),
        "not": lambda i: ~by_token(words[i]),
        "token and not concept": lambda i: by_token(words[i]) & ~by_concept(concepts[i]),
        "three terms": lambda i: by_token(words[i]) | by_token(two[i]) & by_regex(f"^ ?{re.escape(start[i])}"),
        "five terms, typed": lambda i: parse_query(
            f"({by_token(words[i])} | {by_token(two[i])} | {by_token(three[i])}) & ~like:{latents[i]} & density:<5%"),
    }
