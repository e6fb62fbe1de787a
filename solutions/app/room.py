"""One target, opened: what the app asks of it. All visitors share it, and take turns.

A hook on a model is there for everybody who runs the model meanwhile. So one question is answered at a time, and
nobody's text is read by a model that somebody else is steering.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd

from solutions.analysis import latent_table, search
from solutions.analysis.reading import Reading, read_text
from solutions.errors import CourseError
from solutions.targets import Target
from solutions.visualization import visible

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

    from solutions.analysis import ConceptTable, FeatureIndex, FeaturePage, Results

Answer = TypeVar("Answer")
#: Seconds that a visitor waits for a turn before being asked to come back.
PATIENCE = 120.0
#: Readings and steered texts that are remembered: a page is drawn again whenever anything on it is touched.
READINGS, TEXTS = 8, 200


class Busy(CourseError):
    """Too many visitors at once."""


class Recent:
    """The latest answers, by question; the oldest are forgotten."""

    def __init__(self, most: int):
        self._most, self._answers, self._lock = most, OrderedDict(), threading.Lock()

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, question: Hashable, ask: Callable[[], Answer]) -> Answer:
        """The remembered answer, else what `ask` gives. What raises an error is not remembered."""
        with self._lock:
            if question in self._answers:
                self._answers.move_to_end(question)
                return self._answers[question]
        answer = ask()
        with self._lock:
            self._answers[question] = answer
            while len(self._answers) > self._most:
                self._answers.popitem(last=False)
        return answer


class Room:
    """A model, its SAE and its feature index, and one visitor at a time.

    Attributes:
        target: what is studied.
        index: its `FeatureIndex`.
        concepts: its `ConceptTable`, or None where the text has no labels.
        latents: a row for every latent, the columns of `latent_table`.
    """

    def __init__(self, target: Target, model: TransformerBridge, sae: SAE, index: FeatureIndex,
                 concepts: ConceptTable | None):
        self.target, self.model, self.sae, self.index, self.concepts = target, model, sae, index, concepts
        table = latent_table(index, concepts, progress=False).table
        self.latents: pd.DataFrame = table.set_index("latent", drop=False).rename_axis(None)
        self.maxima = index.maximum()
        self._turn = threading.Lock()
        self._readings, self._steered, self._made = Recent(READINGS), Recent(TEXTS), Recent(TEXTS)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until it is one's turn.

        Raises:
            Busy: it took too long.
        """
        if not self._turn.acquire(timeout=PATIENCE):
            raise Busy("there are more visitors than this machine can answer. Try again in a minute.")
        try:
            yield
        finally:
            self._turn.release()

    def read(self, text: str) -> Reading:
        """A text as the SAE reads it."""
        def ask() -> Reading:
            with self.turn():
                return read_text(self.model, self.sae, self.target, text)

        return self._readings.get(text, ask)

    def page(self, latent: int) -> FeaturePage:
        """All that a dashboard shows about a latent."""
        return self.index.page(latent, self.concepts)

    def search(self, query: str, k: int) -> Results:
        """The latents that a typed query finds."""
        return search(self.index, query, k, concepts=self.concepts, read=lambda text: self.read(text)[:2])

    def name(self, latent: int) -> str:
        """What is known of a latent in a few words: the concept it follows best, else its most enriched token."""
        row = self.latents.loc[latent]
        if not row["n_active"]:
            return "never active"
        concept = row.get("concept")
        if isinstance(concept, str) and row["f1"] >= 0.5:
            return f"{concept} (F1 {row['f1']:.2f})"
        if not isinstance(row["token"], str):
            return "no typical token"
        return f"most on “{row['token'].strip() or visible(row['token'])}”"  # of blanks alone, signs for them

    def kept(self, what: str, make: Callable[[], Answer]) -> Answer:
        """What a page makes of the target, the same for every visitor: made once."""
        return self._made.get(what, make)

    @cached_property
    def strong_writer(self) -> int:
        """The latent whose own maximum would raise the logit of some token most: one whose steering shows."""
        def raised(latent: int) -> float:
            positive, _ = self.index.logits(latent, 1)
            return float(self.maxima[latent]) * (positive[0][1] if positive else 1.0)

        return max(range(self.index.n_latents), key=raised)

    def steer(self, prompt: str, latent: int, strength: float, n_tokens: int, temperature: float,
              seed: int) -> pd.DataFrame:
        """Three continuations: as the model is, steered, and pushed as far in a random direction.

        See `compare_steering`.
        """
        from solutions.interventions import Push, compare_steering

        def ask() -> pd.DataFrame:
            with self.turn():
                return compare_steering(self.model, self.sae, self.target, prompt, [Push(latent, strength)],
                                        self.maxima, max_new_tokens=n_tokens, temperature=temperature, seed=seed)

        question: Any = (prompt, latent, strength, n_tokens, temperature, seed)
        return self._steered.get(question, ask)
