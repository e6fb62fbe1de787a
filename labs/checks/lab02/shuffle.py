"""Exercise 2.8: read a store in a mixed order with a bounded buffer. The grader counts what is held."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from labs.checks.exercise import Exercise, Property, Wrong, normal, whole
from labs.checks.lab02.random_state import moves_global_state, source_of
from labs.checks.lab02.stream import Stream


@dataclass
class BatchIterator:
    """What an answer served: the batches, and the most rows it held back while it asked for more."""

    batches: list[Tensor]
    most_held: int

    @property
    def rows(self) -> list[int]:
        return torch.cat(self.batches)[:, 0].long().tolist() if self.batches else []


def draw_chunks(generator) -> dict:
    """Chunks of rows; the first number of each row is its place, so that every row is known again."""
    n_chunks, chunk, d = whole(generator, 12, 18), whole(generator, 20, 30), whole(generator, 2, 4)
    batch_size = whole(generator, 7, 13)
    n = n_chunks * chunk + whole(generator, 1, batch_size - 2)
    if n % batch_size == 0:
        n += 1
    rows = normal(generator, n, d)
    rows[:, 0] = torch.arange(n)
    return {
        "chunks": Stream(rows.split(chunk)),
        "batch_size": batch_size,
        "buffer_size": whole(generator, 4, 6) * chunk,
        "seed": whole(generator, 0, 1000),
    }


def shuffled(chunks, batch_size: int, buffer_size: int, seed: int) -> Iterator[Tensor]:
    source, buffer = torch.Generator().manual_seed(seed), None
    for chunk in chunks:
        buffer = chunk if buffer is None else torch.cat([buffer, chunk])
        buffer = buffer[torch.randperm(len(buffer), generator=source)]
        while len(buffer) > buffer_size:
            yield buffer[:batch_size]
            buffer = buffer[batch_size:]
    yield from buffer.split(batch_size)


class Watched(Stream):
    """A stream that asks, before each piece, how many rows are still held back."""

    def __init__(self, pieces):
        super().__init__(pieces)
        self.rows_served = self.most_held = 0

    def __iter__(self):
        for piece in super().__iter__():
            self.most_held = max(self.most_held, self.rows_read - len(piece) - self.rows_served)
            yield piece


def serve(answer: Callable, args: dict):
    """Take all batches, and note how many rows are held back meanwhile. What is no iterator is left as it is."""
    chunks = Watched(args["chunks"].pieces)
    served = answer(*(args | {"chunks": chunks}).values())
    if served is None or isinstance(served, str | Tensor | dict) or not hasattr(served, "__iter__"):
        return served
    batches = []
    for batch in served:
        if not isinstance(batch, Tensor) or batch.ndim != 2:
            return batch
        chunks.rows_served += len(batch)
        if chunks.rows_served > 3 * _n_rows(args):
            break  # it may never end
        batches.append(batch.detach().clone())
    return BatchIterator(batches, chunks.most_held)


def _n_rows(args) -> int:
    return sum(map(len, args["chunks"].pieces))


def _chunk_of(args, rows: list[int]) -> list[int]:
    return [row // len(args["chunks"].pieces[0]) for row in rows]


def _again(answer, args, seed: int | None = None) -> list[int]:
    return serve(answer, args if seed is None else args | {"seed": seed}).rows


def _steps(args, output) -> float:
    """Share of neighbours within a batch that were neighbours before."""
    pairs = [pair for batch in output.batches for pair in zip(batch[:-1, 0], batch[1:, 0], strict=True)]
    return sum(int(b - a) == 1 for a, b in pairs) / max(1, len(pairs))


def _each_once(answer, args, output) -> str | None:
    rows, n = output.rows, _n_rows(args)
    missing, twice = n - len(set(rows)), len(rows) - len(set(rows))
    if missing or twice:
        return f"Of {n} rows yours left out {missing} and served {twice} more than once."
    return None


def _whole_rows(answer, args, output) -> str | None:
    right, found = torch.cat(args["chunks"].pieces), torch.cat(output.batches)
    same = found.shape[1] == right.shape[1] and torch.equal(found[found[:, 0].argsort()], right)
    return None if same else "In yours the numbers of a row come from different rows."


def _full(answer, args, output) -> str | None:
    sizes = [len(batch) for batch in output.batches]
    off = [size for size in sizes[:-1] if size != args["batch_size"]]
    return f"Among yours is a batch of {off[0]}; `batch_size` is {args['batch_size']}." if off else None


def _bounded(answer, args, output) -> str | None:
    held, allowed = output.most_held, args["buffer_size"]
    return f"Yours held {held} when it asked for more; {allowed} are allowed." if held > allowed else None


def _mixed(answer, args, output) -> str | None:
    """Batches must draw on several chunks: about as many as the buffer holds."""
    spans = [len(set(_chunk_of(args, batch[:, 0].long().tolist()))) for batch in output.batches[:-1]]
    mean = sum(spans) / len(spans)
    return None if mean >= 2.5 else f"A batch of yours has rows of {mean:.1f} chunks on average."


def _seeded_order(answer, args, output) -> str | None:
    if _again(answer, args) != output.rows:
        return "Yours gave two different orders for one seed."
    return "Another seed gave the same order." if _again(answer, args, 5000) == output.rows else None


def _quiet_order(answer, args, output) -> str | None:
    moved = moves_global_state(lambda: serve(answer, args))
    return "Yours moved it. Draw from a `torch.Generator()` of your own." if moved else None


def _permuted(rows: Tensor, source: torch.Generator | None) -> Tensor:
    return rows[torch.randperm(len(rows), generator=source)]


def _hold_all(chunks, batch_size, buffer_size, seed):
    yield from _permuted(torch.cat(list(chunks)), source_of(seed)).split(batch_size)


def _in_order(chunks, batch_size, buffer_size, seed):
    buffer = torch.empty(0)
    for chunk in chunks:
        buffer = torch.cat([buffer, chunk]) if len(buffer) else chunk
        while len(buffer) >= batch_size:
            yield buffer[:batch_size]
            buffer = buffer[batch_size:]
    if len(buffer):
        yield buffer


def _chunk_by_chunk(chunks, batch_size, buffer_size, seed):
    source = source_of(seed)
    yield from _in_order((_permuted(chunk, source) for chunk in chunks), batch_size, buffer_size, seed)


def _batches_mixed(chunks, batch_size, buffer_size, seed):
    source, waiting = source_of(seed), []
    for batch in _in_order(chunks, batch_size, buffer_size, seed):
        waiting.append(batch)
        if len(waiting) * batch_size > buffer_size - 2 * batch_size:
            yield waiting.pop(int(torch.randint(0, len(waiting), (), generator=source)))
    last = [batch for batch in waiting if len(batch) < batch_size]
    yield from [batch for batch in waiting if len(batch) == batch_size] + last


def _buffer_not_emptied(chunks, batch_size, buffer_size, seed):
    source, buffer = source_of(seed), None
    for chunk in chunks:
        buffer = _permuted(chunk if buffer is None else torch.cat([buffer, chunk]), source)
        while len(buffer) > buffer_size:
            yield buffer[:batch_size]
            buffer = buffer[batch_size:]


def _last_dropped(chunks, batch_size, buffer_size, seed):
    for batch in shuffled(chunks, batch_size, buffer_size, seed):
        if len(batch) == batch_size:
            yield batch


def _with_replacement(chunks, batch_size, buffer_size, seed):
    source, buffer = source_of(seed), None
    for chunk in chunks:
        buffer = chunk if buffer is None else torch.cat([buffer, chunk])
        while len(buffer) > buffer_size:
            yield buffer[torch.randint(0, len(buffer), (batch_size,), generator=source)]
            buffer = buffer[batch_size:]
    yield from buffer.split(batch_size)


def _deaf_order(chunks, batch_size, buffer_size, seed):
    yield from shuffled(chunks, batch_size, buffer_size, 0)


def _global_order(chunks, batch_size, buffer_size, seed):
    torch.manual_seed(seed)
    yield from shuffled(chunks, batch_size, buffer_size, int(torch.randint(0, 2**40, ())))


def _columns_too(chunks, batch_size, buffer_size, seed):
    source = source_of(seed)
    for batch in shuffled(chunks, batch_size, buffer_size, seed):
        yield torch.stack([_permuted(column, source) for column in batch.T], dim=1)


def _is_missing(args, output) -> int:
    return _n_rows(args) - len(set(output.rows))


SHUFFLE = Exercise(
    number="2.8",
    name="shuffled",
    returns='Iterator[Float[Tensor, "batch d"]]',
    draw=draw_chunks,
    reference=shuffled,
    run=serve,
    unique=False,
    cases=5,
    wrong=(
        Wrong(
            "with replacement",
            _with_replacement,
            "Some rows came twice and others never. You draw places from the buffer and do not take away what "
            "was drawn. Shuffle the buffer once, serve its first rows, and keep the rest.",
            recognise=lambda answer, args, output: len(set(output.rows)) < len(output.rows),
        ),
        Wrong(
            "the last batch dropped",
            _last_dropped,
            "Fewer rows than one batch are missing: those left over at the end. Every row has to come, so the "
            "last batch may be short.",
            recognise=lambda answer, args, output: 0 < _is_missing(args, output) < args["batch_size"],
        ),
        Wrong(
            "the buffer not emptied",
            _buffer_not_emptied,
            "When the chunks came to an end your buffer was still full, and its rows were never served. After "
            "the loop, serve what is left.",
            recognise=lambda answer, args, output: _is_missing(args, output) >= args["batch_size"],
        ),
        Wrong(
            "everything in memory",
            _hold_all,
            "Every row once, perfectly mixed, and all of them in memory at once. A store can be larger than "
            "memory: never hold more than `buffer_size` rows when you ask for the next chunk.",
            recognise=lambda answer, args, output: output.most_held > 0.8 * _n_rows(args),
        ),
        Wrong(
            "in order",
            _in_order,
            "The rows come in the order in which they were stored. Shuffle the buffer: "
            "`torch.randperm(len(buffer), generator=source)`.",
            recognise=lambda answer, args, output: output.rows == sorted(output.rows),
        ),
        Wrong(
            "batches mixed, rows not",
            _batches_mixed,
            "You changed the order of the batches. Inside a batch stand the neighbours of one text, as before, "
            "and a gradient step sees only them. Mix rows, not batches.",
            recognise=lambda answer, args, output: _steps(args, output) > 0.5,
        ),
        Wrong(
            "each chunk by itself",
            _chunk_by_chunk,
            "You shuffled inside each chunk, and the chunks still come one after the other. A batch then holds a "
            "text or two. Let the buffer hold several chunks, and shuffle across them.",
            recognise=lambda answer, args, output: (
                _chunk_of(args, output.rows) == sorted(_chunk_of(args, output.rows))
            ),
        ),
        Wrong(
            "seed ignored",
            _deaf_order,
            "The order is the same whatever the seed. A second epoch in the same order adds nothing new: make "
            "the generator from `seed`.",
            recognise=lambda answer, args, output: _again(answer, args, 5000) == output.rows,
        ),
        Wrong(
            "global seed",
            _global_order,
            "The order is right. `torch.manual_seed` sets the random state of the whole notebook, and moves "
            "every later draw. Use a `torch.Generator()` of your own.",
            recognise=lambda answer, args, output: moves_global_state(lambda: serve(answer, args)),
        ),
        Wrong(
            "columns shuffled apart",
            _columns_too,
            "The dimensions were shuffled apart, so that your rows are patchworks of several tokens. One "
            "permutation for the rows, and whole rows move: `buffer[order]`.",
            recognise=lambda answer, args, output: (
                _each_once(answer, args, output) is None and _whole_rows(answer, args, output) is not None
            ),
        ),
    ),
    properties=(
        Property("Every row must be served exactly once.", _each_once),
        Property("A row is one token: its numbers stay together.", _whole_rows),
        Property("Every batch but the last has `batch_size` rows.", _full),
        Property("No more than `buffer_size` rows may be held when the next chunk is asked for.", _bounded),
        Property("Batches must be mixed across chunks.", _mixed),
        Property("One seed gives one order, and another seed another.", _seeded_order),
        Property("PyTorch's global random state is not yours to change.", _quiet_order),
    ),
    look_at="the buffer: what is in it before the first chunk, and what is left in it after the last?",
    saw="every token once, in a mixed order, with a few chunks in memory: this is how a store of any size is read.",
)

EXERCISES = (SHUFFLE,)
