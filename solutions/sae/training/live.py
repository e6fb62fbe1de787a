"""Curves that grow in a notebook while an SAE trains."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pandas as pd

#: Seconds between two drawings: a notebook that redraws all the time does nothing else.
PAUSE = 1.0


class LiveCurves:
    """Draws the log of a run, and draws it again in the same place as it grows. Outside a notebook it does nothing.

    Args:
        figure: from a log to what is shown; by default `solutions.visualization.training_curves`.
        pause: seconds between two drawings.
    """

    def __init__(self, figure: Callable[[pd.DataFrame], Any] | None = None, pause: float = PAUSE):
        if figure is None:
            from solutions.visualization import training_curves as figure
        self._figure, self._pause = figure, pause
        self._place: Any = None
        self._drawn, self._waiting = -float("inf"), False

    def __call__(self, table: pd.DataFrame) -> None:
        """Draw the log, unless it was drawn a moment ago."""
        self._waiting = time.monotonic() - self._drawn < self._pause
        if not self._waiting and len(table) > 1:
            self.draw(table)

    def draw(self, table: pd.DataFrame) -> None:
        """Draw the log now."""
        from IPython import get_ipython
        from IPython.display import display

        if get_ipython() is None:
            return
        self._drawn, figure = time.monotonic(), self._figure(table)
        if self._place is None:
            self._place = display(figure, display_id=True)
        else:
            self._place.update(figure)

    def end(self, table: pd.DataFrame) -> None:
        """Draw what the last pause left out."""
        if self._waiting:
            self.draw(table)
