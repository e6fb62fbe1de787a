"""The text of the embedded world: a stream of labelled documents, the same for the same seed.

    for document in documents(seed=SEEDS["test"], n=3):
        print(document.domain, document.text)
"""

from collections.abc import Iterator, Sequence
from itertools import count
from random import Random

from .concepts import CONCEPTS
from .domains import WRITERS
from .grammar import Document

DOMAINS: tuple[str, ...] = tuple(WRITERS)
# How often each kind of text is written. `reading` is the world as one meets it: what SAEs are trained on, what
# chapters read, what is measured. `school` is what the language models learn from: there, giving and copying are
# drilled, since induction does not form from a little of it. `giving` is what they read last: copying is learned by
# then, and every fourth document is a scene of giving, since who receives is learned late and from few tokens.
MIXES: dict[str, dict[str, float]] = {
    "reading": {"geography": 17, "french": 10, "code": 10, "legal": 7, "review": 8, "history": 8,
                "animals": 9, "food": 9, "sport": 6, "story": 18, "copying": 10},
    "school": {"geography": 17, "french": 8, "code": 9, "legal": 6, "review": 7, "history": 8,
               "animals": 9, "food": 9, "sport": 5, "story": 26, "copying": 46},
    "giving": {"geography": 20, "french": 8, "code": 9, "legal": 6, "review": 7, "history": 8,
               "animals": 12, "food": 9, "sport": 5, "story": 90, "copying": 20},
}
SEEDS: dict[str, int] = {"train": 1, "probe": 2, "test": 3}
MIXED = 0.08  # share of documents in which another text follows, after a blank line

__all__ = ["CONCEPTS", "DOMAINS", "MIXED", "MIXES", "SEEDS", "Document", "documents"]


def documents(seed: int, n: int | None = None, domains: Sequence[str] | None = None,
              mix: str = "reading") -> Iterator[Document]:
    """Write documents, one after the other.

    Args:
        seed: the same seed gives the same documents; `SEEDS` holds those of the splits.
        n: how many; without it the stream never ends.
        domains: only these kinds of text (of `DOMAINS`); by default all.
        mix: in which proportions, "reading", "school" or "giving" (see `MIXES`).

    Raises:
        ValueError: an unknown domain or mix, no domain at all, or a negative `n`.
    """
    if mix not in MIXES:
        raise ValueError(f"mix: expected one of {', '.join(MIXES)}; got {mix!r}")
    chosen = list(DOMAINS if domains is None else domains)
    unknown = [name for name in chosen if name not in WRITERS]
    if unknown or not chosen:
        raise ValueError(f"domains: expected some of {', '.join(DOMAINS)}; got {unknown or 'none'}")
    if n is not None and n < 0:
        raise ValueError(f"n: expected 0 or more documents; got {n}")
    return _stream(Random(seed), n, chosen, [MIXES[mix][name] for name in chosen])


def _stream(rng: Random, n: int | None, chosen: list[str], weights: list[float]) -> Iterator[Document]:
    for _ in count() if n is None else range(n):
        domain, second = rng.choices(chosen, weights, k=2)
        doc = Document(domain)
        WRITERS[domain](doc, rng)
        if rng.random() < MIXED:
            doc.pending_space = ""
            doc.emit("\n\n")
            doc.new_section()
            WRITERS[second](doc, rng)
        yield doc
