"""Training without a store: the model runs as the SAE trains, and nothing goes to disk.

Worth it when the activations would not fit, or are used only once. A store is better for several epochs, several SAEs
and a better shuffle: here only a buffer's worth of text is mixed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from solutions.data import Text, tokenize
from solutions.errors import InputError, check_count
from solutions.models import check_hooks, hook_reader, model_identity
from solutions.sae.training.sources import SAMPLE, Batch, Source

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

#: Tokens that are mixed at a time, of all processes together.
BUFFER_TOKENS = 65_536

#: Texts tokenised at a time; it changes speed, nothing else.
READ_AHEAD = 256

#: Texts that tell one source of text from another.
LOOKED_AT = 64


class _Piece(NamedTuple):
    """Tokens `first` up to `last` of a document, all of which the model has to read up to there."""

    ids: Tensor
    first: int
    last: int


class HarvestSource(Source):
    """Activations of a model that reads texts as training goes on.

    A buffer is a stretch of the text, a fixed number of tokens of it. The model reads it, its tokens are dealt in
    random order, and the next stretch follows; after the last text the first comes again. To go on at a step, the
    texts before its buffer are tokenised, to count them, but not run through the model.

    Args:
        model: a loaded model.
        texts: a list, or a function without arguments that gives the texts from the beginning, e.g.
            `lambda: open_texts(target, 10_000)`. Each of several processes reads every so-manieth one.
        hook: the hook point to read.
        target_hook: the hook point to give: a transcoder.
        context_size: tokens of a text that are read, BOS included; by default what the target says.
        buffer_tokens: tokens mixed at a time.
        rows: texts that go through the model at once.
    """

    own = True
    n_tokens = math.inf

    def __init__(
        self,
        model: TransformerBridge,
        texts: Sequence[str | Text] | Callable[[], Iterable[str | Text]],
        hook: str,
        *,
        target_hook: str | None = None,
        context_size: int | None = None,
        buffer_tokens: int = BUFFER_TOKENS,
        rows: int = 32,
    ):
        self.hooks = check_hooks(model, [hook] if target_hook is None else [hook, target_hook])
        if isinstance(texts, str) or not (callable(texts) or isinstance(texts, Sequence)):
            raise InputError(
                f"texts must be a list or a function that gives them from the beginning, got {type(texts).__name__}. "
                "Training reads them more than once: lambda: open_texts(...)."
            )
        self.model, self.texts = model, texts
        self.hook, self.target_hook, self.has_target = hook, target_hook, target_hook is not None
        self.context_size = None if context_size is None else check_count(context_size, "context_size", least=2)
        self.buffer_tokens = check_count(buffer_tokens, "buffer_tokens")
        self.rows = check_count(rows, "rows")
        target = getattr(model, "target", None)
        self.bos = bool(getattr(target, "prepend_bos", True))
        self.about = {
            "model_name": getattr(target, "model", None) or str(model.cfg.model_name),
            "context_size": self.context_size or getattr(target, "context_size", int(model.cfg.n_ctx)),
            "prepend_bos": self.bos,
            "processing": model_identity(model)["processing"],
        }
        first = next(self._documents((0, 1)))
        probe = self._run([_Piece(first, len(first) - 1, len(first))])
        self.d_in = probe.x.shape[1]
        self.d_out = self.d_in if probe.target is None else probe.target.shape[1]

    # ---- text to stretches of tokens

    def _texts(self) -> Iterator[str | Text]:
        return iter(self.texts() if callable(self.texts) else self.texts)

    def _documents(self, stripe: tuple[int, int]) -> Iterator[Tensor]:
        """Token ids of one process's documents, BOS first, over and over again."""
        while True:
            texts, seen = islice(self._texts(), stripe[0], None, stripe[1]), False
            while block := list(islice(texts, READ_AHEAD)):
                tokens = tokenize(self.model, block, self.context_size, prepend_bos=self.bos).to("cpu")
                for ids, n in zip(tokens.ids, tokens.mask.sum(dim=1).tolist(), strict=True):
                    if n > self.bos:
                        seen = True
                        yield ids[:n]
            if not seen:
                raise InputError(f"process {stripe[0]} of {stripe[1]} has no text with a token in it. Give more texts.")

    def _buffers(self, size: int, stripe: tuple[int, int]) -> Iterator[list[_Piece]]:
        """The text in stretches of `size` tokens, BOS not counted; a document may lie in two of them."""
        held: list[_Piece] = []
        room = size
        for ids in self._documents(stripe):
            at = int(self.bos)
            while at < len(ids):
                taken = min(room, len(ids) - at)
                held.append(_Piece(ids, at, at + taken))
                at, room = at + taken, room - taken
                if not room:
                    yield held
                    held, room = [], size

    @torch.no_grad()
    def _run(self, pieces: Sequence[_Piece]) -> Batch:
        """The activations of some pieces, in their order. Texts of about one length go through the model together."""
        found: dict[str, list[Tensor]] = {hook: [torch.empty(0)] * len(pieces) for hook in self.hooks}
        lengths = torch.tensor([piece.last for piece in pieces])
        with hook_reader(self.model, list(found)) as read:
            for chosen in lengths.argsort(stable=True).split(self.rows):
                rows = [pieces[k].ids[: pieces[k].last] for k in chosen.tolist()]
                ids = pad_sequence(rows, batch_first=True).to(self.model.cfg.device)  # any id: nobody looks back at it
                for hook, acts in read(ids).items():
                    for k, row in zip(chosen.tolist(), acts.float(), strict=True):
                        found[hook][k] = row[pieces[k].first : pieces[k].last].flatten(1)
        vectors = [torch.cat(found[hook]) for hook in self.hooks]
        return Batch(vectors[0], vectors[1] if self.has_target else None)

    # ---- what every source does

    def batches(
        self, batch_size: int, seed: int = 0, start_step: int = 0, stripe: tuple[int, int] = (0, 1)
    ) -> Iterator[Batch]:
        return self._deal(self._check(batch_size, stripe), batch_size, seed, start_step, stripe)

    def _deal(
        self, mine: int, batch_size: int, seed: int, start_step: int, stripe: tuple[int, int]
    ) -> Iterator[Batch]:
        steps = max(self.buffer_tokens // batch_size, 1)
        buffer, skip = divmod(start_step, steps)
        for number, pieces in enumerate(self._buffers(mine * steps, stripe)):
            if number < buffer:
                continue
            acts = self._run(pieces)
            dealt = np.random.default_rng([seed, number, stripe[0]]).permutation(mine * steps)
            for i in range(skip if number == buffer else 0, steps):
                chosen = torch.from_numpy(dealt[i * mine : (i + 1) * mine]).to(acts.x.device)
                yield Batch(*(None if part is None else part[chosen] for part in acts))

    def sample(self, n: int = SAMPLE, seed: int = 0) -> Batch:
        """The first `n` tokens of the text, whatever the seed: it is read as it comes.

        Args:
            n: how many at most.
            seed: changes nothing here.

        Raises:
            InputError: `n` is no whole number above 0.
        """
        return self._run(next(self._buffers(check_count(n, "n"), (0, 1))))

    def identity(self) -> dict[str, Any]:
        first = [getattr(text, "text", text) for text in islice(self._texts(), LOOKED_AT)]
        model = model_identity(self.model)
        return {
            "kind": "harvest",
            "hook": self.hook,
            "target_hook": self.target_hook,
            "model": {name: model[name] for name in ("model", "processing", "weights", "tokenizer")},
            "texts": hashlib.sha256(json.dumps(first).encode()).hexdigest(),
            "context_size": self.about["context_size"],
            "prepend_bos": self.bos,
            "buffer_tokens": self.buffer_tokens,
            "rows": self.rows,
        }
