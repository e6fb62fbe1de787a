"""Where text comes from: the embedded world or the hub."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from solutions.errors import (
    NotAvailable,
    check_count,
    unknown_name,
)
from solutions.targets import Target, check_target


class Text(NamedTuple):
    """One text and what kind of text it is (for the embedded world: its domain)."""

    text: str
    kind: str


def load_texts(target: Target, n: int, split: str = "test", kinds: Sequence[str] | None = None) -> list[Text]:
    """The first `n` texts of the target's text.

    Args:
        target: what is being studied.
        n: how many texts.
        split: "train", "probe" or "test"; the embedded text of one split never depends on the others.
        kinds: only these kinds. Only the embedded text has kinds, so asking for them reads it whatever the
            target.

    Returns:
        `n` texts, the same ones every time.

    Raises:
        InputError: for an unknown split or kind.

    A text that lives on the hub and cannot be reached is replaced by the embedded one, with a warning that
    says so.
    """
    check_target(target)
    check_count(n, "n")
    if split not in ("train", "probe", "test"):
        raise unknown_name("split", split, ("train", "probe", "test"))
    if target.text == "smallworld" or kinds is not None:
        return _smallworld_texts(n, split, kinds)
    try:
        return _hub_texts(target.text, n)
    except NotAvailable as error:
        print(f"{error} Reading the embedded text instead.")
        return _smallworld_texts(n, split, None)


def _smallworld_texts(n: int, split: str, kinds: Sequence[str] | None) -> list[Text]:
    from solutions.smallworld import corpus

    kinds = [kinds] if isinstance(kinds, str) else kinds
    for kind in kinds or ():
        if kind not in corpus.DOMAINS:
            raise unknown_name("kind of text", kind, corpus.DOMAINS)
    documents = corpus.documents(seed=corpus.SEEDS[split], n=n, domains=kinds)
    return [Text(document.text, document.domain) for document in documents]


def _hub_texts(name: str, n: int) -> list[Text]:
    """Texts of a Hugging Face dataset with a "text" column, read as a stream."""
    from solutions.hub import require_connection

    require_connection(f"the text {name!r}")
    from datasets import load_dataset

    try:
        rows: Iterable[Mapping[str, str]] = load_dataset(name, split="train", streaming=True)
        texts = (row["text"].strip() for row in rows)
        found = [Text(text, name) for text in islice(filter(None, texts), n)]
    except Exception as error:  # datasets raises a dozen kinds; the reader needs one
        raise NotAvailable(f"could not read the text {name!r} ({type(error).__name__}: {error}).") from error
    return found
