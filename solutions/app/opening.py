"""Opening a target: model, SAE and feature index, loaded once in the background and shared by all visitors.

The index is made of texts of the target's own when it is not in the cache yet. Whoever comes meanwhile sees how far it
is; whoever leaves stops nothing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from solutions.app.room import Room
from solutions.errors import CourseError, NotAvailable, first_line
from solutions.targets import TARGETS, Target, get_target

if TYPE_CHECKING:
    from solutions.analysis import FeatureIndex
    from solutions.search import Parts

LOG = logging.getLogger("solutions.app")
#: Where indexes are kept, when the variable says so.
CACHE_VARIABLE = "MONOSEMANTIC_CACHE"
#: Targets that are kept open at once: each holds a model, an SAE and an index.
ROOMS = 2
#: What is done, and the share of the work that is done when it begins, as measured on the embedded model.
STEPS = {"loading the model": 0.0, "reading {n:,} texts": 0.25, "making the index": 0.6, "naming concepts": 0.7,
         "making the table of latents": 0.95}


def known_targets() -> dict[str, Target]:
    """What visitors may choose from, by name: the target that the app was started with first, then the known ones."""
    first = get_target()
    return {first.name: first} | TARGETS


def cache_folder() -> Path:
    """Where the app keeps what it has made: $MONOSEMANTIC_CACHE, else a folder in the user's cache."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "monosemantic"


@st.cache_resource(max_entries=ROOMS, show_spinner=False)
def opening_of(name: str, n_texts: int) -> Opening:
    """The opening of a known target, the same for all visitors."""
    return Opening(known_targets()[name], n_texts)


class Opening:
    """A target that is being opened, and then its room.

    Attributes:
        step: what is being done, in words.
        share: how much of the work is done, 0 to 1.
        room: what came of it, or None.
        error: why nothing came of it, in words, or "".
    """

    def __init__(self, target: Target, n_texts: int):
        self.target, self.n_texts = target, n_texts
        self.step, self.share = "", 0.0
        self.room: Room | None = None
        self.error = ""
        self._done = threading.Event()
        threading.Thread(target=self._run, name=f"opening {target.name}", daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Wait until it is done, or so long. Returns whether it is done."""
        return self._done.wait(seconds)

    def _run(self) -> None:
        try:
            self.room = self._opened()
        except CourseError as error:
            self.error = str(error)
        except Exception as error:  # noqa: BLE001  a thread has nobody to raise to
            LOG.exception("%s could not be opened", self.target.name)
            self.error = f"opening {self.target.name!r} failed: {first_line(error)}"
        finally:
            self._done.set()

    def _at(self, step: str) -> None:
        self.step, self.share = step.format(n=self.n_texts), STEPS[step]

    def _opened(self) -> Room:
        from solutions.search import Parts

        loading, reading, indexing, naming, listing = STEPS
        self._at(loading)
        parts = Parts(self.target, quiet=True)
        path = index_path(parts, self.n_texts)
        index = opened_index(parts, path)
        if index is None:
            self._at(reading)
            self._build(parts, path, indexing)
            index = opened_index(parts, path)
        self._at(naming)
        concepts = parts.concepts(index) if self.target.text == "smallworld" else None
        self._at(listing)
        return Room(self.target, parts.model, parts.sae, index, concepts)

    def _build(self, parts: Parts, path: Path, after: str) -> None:
        """Make the index. It appears whole or not at all."""
        from solutions.models import harvest
        from solutions.search import TEST_SHARE, index_store

        shutil.rmtree(path, ignore_errors=True)  # what cannot be opened is of no use, and the folder is the app's own
        texts = texts_of(self.target, self.n_texts)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            store = harvest(parts.model, self._watched(texts, STEPS[after]), self.target.hook, Path(folder) / "store",
                            test_share=TEST_SHARE, progress=False, n_documents=len(texts))
            self._at(after)
            index_store(store, parts.model, parts.sae, self.target.hook, path, progress=False)

    def _watched(self, texts: list, end: float) -> Iterator:
        """The texts, one by one; the share of the work that is done follows."""
        begin = self.share
        for i, text in enumerate(texts):
            self.share = begin + (end - begin) * i / len(texts)
            yield text


def texts_of(target: Target, n: int) -> list:
    """The target's first texts.

    Raises:
        NotAvailable: they cannot be had. `load_texts` would give others instead, with a word about it that no visitor
            sees, and the index of those would be kept under this text's name.
    """
    from solutions.data import load_texts, open_texts

    if target.text == "smallworld":
        return load_texts(target, n)
    try:
        return list(open_texts(target, n))
    except NotAvailable as error:
        raise NotAvailable(f'{error} Or start the app with --target and a JSON description of this target in which '
                           '"text" is "smallworld" or the path of texts of your own.') from error


def opened_index(parts: Parts, path: Path) -> FeatureIndex | None:
    """The index in the cache; None when there is none, or when it is damaged or of another SAE."""
    from solutions.analysis import FeatureIndex

    if not path.is_dir():
        return None
    try:
        index = FeatureIndex(path)
        index.check_sae(parts.sae)
    except (CourseError, OSError, ValueError, KeyError) as error:
        LOG.warning("the index in the cache is made again: %s", first_line(error))
        return None
    return index


def index_path(parts: Parts, n_texts: int) -> Path:
    """The index's place in the cache: another model, SAE, hook point or number of texts has another."""
    from solutions.analysis.index.identity import sae_identity
    from solutions.models import model_identity

    target = parts.target
    made_from = [model_identity(parts.model), sae_identity(parts.sae), target.hook, target.text, target.context_size,
                 n_texts]
    digest = hashlib.sha256(json.dumps(made_from, sort_keys=True, default=str).encode()).hexdigest()[:16]
    return cache_folder() / f"{re.sub(r'[^A-Za-z0-9]+', '-', target.name)[:40]}-{digest}"
