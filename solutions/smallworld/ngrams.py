"""Count models, the yardstick for the language model: interpolated Kneser-Ney n-grams.

How much of the text is mere local habit? An n-gram model answers that with counts alone. The smoothing is
interpolated Kneser-Ney with one discount for each order (Chen & Goodman 1999, An empirical study of smoothing
techniques for language modeling, section 4.1): the highest order uses raw counts, every lower one counts
*different left neighbours*.

An n-gram of up to 5 tokens below 4,096 fits in one 64-bit integer (12 bits each), so counting is sorting.
"""
from collections.abc import Sequence

import numpy as np

BITS = 12
MAX_ORDER = 5


class KneserNey:
    """P(token | the `order - 1` tokens before it), fitted on documents: token ids below `vocab`, without BOS."""

    def __init__(self, documents: Sequence[Sequence[int]], order: int, vocab: int = 4096, bos: int = 0):
        if not 1 <= order <= MAX_ORDER or vocab > 1 << BITS:
            raise ValueError(f"order must be 1 to {MAX_ORDER} and vocab at most {1 << BITS}; "
                             f"found order={order}, vocab={vocab}.")
        self.order, self.vocab, self.bos = order, vocab, bos
        grams, counts = np.unique(_grams(documents, order, bos), return_counts=True)
        self.levels = []  # for n from 1 to `order`: (grams, discounted P, contexts, weight of the order below)
        for n in range(order, 0, -1):
            self.levels.insert(0, _level(grams, counts))
            # The next order down: drop the first token; each different n-gram counts once.
            grams, counts = np.unique(grams & _mask(n - 1), return_counts=True)

    def probabilities(self, documents: Sequence[Sequence[int]]) -> np.ndarray:
        """P of every token given those before it in the same document, [n_tokens] float64."""
        grams = _grams(documents, self.order, self.bos)
        p = np.full(len(grams), 1 / self.vocab)
        for n, (seen, discounted, contexts, below) in enumerate(self.levels, start=1):
            gram = grams & _mask(n)
            p = _look_up(seen, discounted, gram, 0.0) + _look_up(contexts, below, gram >> BITS, 1.0) * p
        return p

    def loss(self, documents: Sequence[Sequence[int]]) -> float:
        """Mean cross-entropy in nats per token."""
        return float(-np.log(self.probabilities(documents)).mean())


def _mask(n: int) -> int:
    """Keeps the last `n` tokens of a gram."""
    return (1 << BITS * n) - 1


def _grams(documents: Sequence[Sequence[int]], order: int, bos: int) -> np.ndarray:
    """The n-gram that ends at each token, packed, [n_tokens] int64. Before a document stand `order - 1` BOS."""
    pad = [bos] * (order - 1)
    stream = np.concatenate([np.asarray([*pad, *document], dtype=np.int64) for document in documents])
    packed = np.zeros(len(stream), dtype=np.int64)
    for back in range(order - 1, -1, -1):
        packed = packed << BITS | np.concatenate([np.full(back, bos), stream[:len(stream) - back]])
    starts = np.cumsum([0, *(len(document) + order - 1 for document in documents[:-1])])
    is_pad = np.zeros(len(stream), dtype=bool)
    for back in range(order - 1):
        is_pad[starts + back] = True
    return packed[~is_pad]


def _level(grams: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, ...]:
    """One order: the discounted P of each gram seen, and what each context seen leaves for the order below."""
    ones, twos = (counts == 1).sum(), (counts == 2).sum()
    discount = ones / (ones + 2 * twos) if ones else 0.5
    contexts, where = np.unique(grams >> BITS, return_inverse=True)
    total = np.bincount(where, weights=counts)
    followers = np.bincount(where)
    return grams, (counts - discount) / total[where], contexts, discount * followers / total


def _look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray, otherwise: float) -> np.ndarray:
    """`values` at the positions of `wanted` in the sorted `keys`; `otherwise` where it is missing."""
    at = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], otherwise)
