"""A concept table as a file, so that a shell does not have to make it again for every question."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from solutions.analysis.index.concepts import ConceptTable, Scores
from solutions.analysis.index.layout import checksum_of
from solutions.errors import InputError

if TYPE_CHECKING:
    from solutions.analysis.index import FeatureIndex

PARTS = ("train", "test", "lookup")


def concepts_path(index_path: str | os.PathLike[str]) -> Path:
    """Where the table of an index is kept: beside its folder."""
    path = Path(index_path)
    return path.parent / f"{path.name}.concepts.safetensors"


def save_concepts(table: ConceptTable, index: FeatureIndex, path: str | os.PathLike[str] | None = None) -> Path:
    """Write a concept table to a safetensors file; without a path, beside the index. It appears whole or not at all.

    Args:
        table: from `concept_table`.
        index: the index that it was made from.
        path: the file; by default beside the index.

    Returns:
        The file.
    """
    from safetensors.torch import save_file

    path = concepts_path(index.path) if path is None else Path(path)
    arrays = {f"{part}.{name}": torch.from_numpy(column.copy())
              for part in PARTS for name, column in getattr(table, part)._asdict().items()}
    arrays["lookup_size"] = torch.from_numpy(table.lookup_size.copy())
    about = {"concepts": json.dumps(list(table.concepts)), "index": checksum_of(index.manifest)}
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(arrays, unfinished, about)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def load_concepts(index: FeatureIndex, path: str | os.PathLike[str] | None = None) -> ConceptTable:
    """Read what `save_concepts` has written.

    Args:
        index: the index that the table was made from.
        path: the file; by default beside the index.

    Returns:
        The table.

    Raises:
        InputError: there is no such file, it is damaged, or it belongs to another index.
    """
    from safetensors import SafetensorError, safe_open

    path = concepts_path(index.path) if path is None else Path(path)
    if not path.is_file():
        raise InputError(f"no concept table at {path}. save_concepts(concept_table(…), index) writes one.")
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            arrays = {name: file.get_tensor(name).numpy() for name in file.keys()}
        parts = [Scores(*(arrays[f"{part}.{name}"] for name in Scores._fields)) for part in PARTS]
        table = ConceptTable(tuple(json.loads(about["concepts"])), *parts, arrays["lookup_size"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{path} is damaged, or no concept table ({error}). Delete it and make it again.") from error
    if about.get("index") != checksum_of(index.manifest):
        raise InputError(f"the concept table {path} belongs to another index. Delete it and make it again.")
    return table
