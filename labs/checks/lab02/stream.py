"""Data that can be read once, from the front, as from a disk or a network; it knows how much of it was held."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence

from torch import Tensor


class Stream:
    """Pieces of a long tensor, one after the other, each given out once.

    Attributes:
        most_alive: how many pieces were in use at once while it was read, as far as we could see.
        rows_read: how many rows have been given out.
    """

    def __init__(self, pieces: Sequence[Tensor]):
        self.pieces = tuple(pieces)
        self.most_alive = self.rows_read = 0
        self._next = 0

    def __iter__(self) -> Iterator[Tensor]:
        alive: list[weakref.ref] = []
        while self._next < len(self.pieces):
            piece = self.pieces[self._next].clone()  # a copy, so that it is gone once nobody holds it
            self._next += 1
            self.rows_read += len(piece)
            alive = [*(ref for ref in alive if ref() is not None), weakref.ref(piece)]
            self.most_alive = max(self.most_alive, len(alive))
            yield piece
            del piece
