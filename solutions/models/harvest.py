"""From texts to a store of activations: read, run the model, write, and go on where it stopped.

The unit of everything is the shard: the next documents whose tokens fit into it. What a shard holds, and in
which batches the model reads it, depends on its texts alone. So a harvest that was cut off and goes on writes
the same bytes as one that never stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm

from solutions.data import DTYPES, ActivationStore, DiskFull, Shard, StoreWriter, Text, tokenize
from solutions.errors import InputError, check_count, check_text, unknown_name
from solutions.models.hooks import check_hooks, processing_of
from solutions.models.running import Reader, hook_reader

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

#: Tokens in a shard, at most. It is in memory as it fills: at GPT-2's width in fp32, 100 MB for each hook point.
SHARD_TOKENS = 32_768

#: Texts tokenised at a time. It changes speed, nothing else.
READ_AHEAD = 256


class _Document(NamedTuple):
    text: Text
    ids: Tensor  # [n_tokens]
    n_tokens: int


def harvest(
    model: TransformerBridge,
    texts: Iterable[str | Text],
    hooks: str | Sequence[str],
    path: str | os.PathLike[str],
    *,
    context_size: int | None = None,
    batch_size: int = 32,
    dtype: str = "float32",
    shard_tokens: int = SHARD_TOKENS,
    test_share: float = 0.1,
    seed: int = 0,
    resume: bool = True,
    progress: bool = True,
    n_documents: int | None = None,
) -> ActivationStore:
    """Run a model over texts and write what flows through it to a store, with one forward pass for all hooks.

    Called again with the same arguments, it goes on where it stopped, makes missing or cut-off shards anew, and
    of a finished store only compares the texts (by checksum: none goes through the model again).

    The 461 GB of 300M tokens at width 768 in float16 are why a store is streamed, and why it can be resumed.

    Args:
        model: a loaded model.
        texts: strings, or `Text` with its kind, none empty: a list, or any iterable, read as it goes. To go on,
            give the same ones from the beginning.
        hooks: one hook point or several. Attention patterns and scores are no vectors of a token: use
            `extract` for them.
        path: the store's folder.
        context_size: tokens of a text that are read, BOS included; by default what the target says. The rest of
            a longer text is left out.
        batch_size: rows that go through the model at once. Rows of about one length go together.
        dtype: how numbers are stored, "float32", "float16" or "bfloat16". The last two take half the space:
            float16 keeps 3 digits and ends at 65,504, bfloat16 keeps 2 and never ends.
        shard_tokens: tokens in a shard, at most (a longer document makes one of its own). This much is held
            in memory, and is lost when the harvest is cut off.
        test_share: share of the documents put aside for testing.
        seed: draws which.
        resume: False throws away what is in the store.
        progress: show a bar with the rate and the time left.
        n_documents: how many texts there are, when `texts` cannot tell (for the time left and the free space).

    Returns:
        The store, opened.

    Raises:
        InputError: an argument is wrong, or the store is of another model, other hooks, other texts, ...
        StoreInUse: another process is writing to it.
        DiskFull: there is no room; what was written stays.

    Example:
        >>> store = harvest(model, load_texts(target, 8), target.hook, "a_store", progress=False)
        >>> store.n_documents, store.hooks
        (8, ['blocks.2.hook_resid_pre'])
    """
    hooks = list(dict.fromkeys(check_hooks(model, hooks)))
    check_count(batch_size, "batch_size")
    check_count(shard_tokens, "shard_tokens")
    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
    if isinstance(test_share, bool) or not isinstance(test_share, int | float) or not 0 <= test_share < 1:
        raise InputError(f"test_share must be a number from 0 up to 1, got {test_share!r}.")
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, Iterable):
        raise InputError(f"texts must be strings, one or many, got {type(texts).__name__}.")
    if n_documents is None and isinstance(texts, Sized):
        n_documents = len(texts)
    own = {"context_size": _context(model, context_size), "batch_size": batch_size, "shard_tokens": shard_tokens}
    own |= {"dtype": dtype, "test_share": test_share, "seed": seed}
    with hook_reader(model, hooks) as read:
        head = model_identity(model) | {"hooks": _shapes(model, read)} | own
        with (
            StoreWriter(path, head, resume=resume) as writer,
            tqdm(total=n_documents, unit=" documents", desc="harvest", disable=not progress) as bar,
        ):
            _Harvest(model, read, head, writer, bar).run(_checked(texts), n_documents)
    return ActivationStore(path)


class _Harvest:
    """One harvest at work."""

    def __init__(self, model: Any, read: Reader, head: dict[str, Any], writer: StoreWriter, bar: tqdm):
        self.model, self.read, self.head, self.writer, self.bar = model, read, head, writer, bar
        self.n_documents = self.n_tokens = 0  # in the store by now
        self.rooms: dict[str, Tensor] = {}

    def run(self, texts: Iterator[Text], n_documents: int | None) -> None:
        """Check what is there, make anew what is damaged, add what is missing."""
        self._compare(texts)
        if self.writer.complete:
            if next(texts, None) is not None:
                raise InputError(
                    f"the store {self.writer.path} was finished with {self.n_documents:,} documents, and there are "
                    "more texts now. Give the same texts, choose another folder, or start over with resume=False."
                )
            return
        space_known = n_documents is None
        for documents in self._shards(self._tokenised(texts)):
            if not space_known:
                self._check_space(documents, n_documents - self.n_documents)
                space_known = True
            self._write(len(self.writer.shards), documents)
        if not self.writer.shards:
            raise InputError("there are no texts: the iterable is empty. Give at least one.")
        self.writer.finish()

    def _compare(self, texts: Iterator[Text]) -> None:
        """Pass over the texts that are in the store; a shard whose files are gone is made of them again."""
        for i, shard in enumerate(self.writer.shards):
            first, group = self.n_documents, list(islice(texts, shard["documents"]))
            if len(group) < shard["documents"] or _fingerprint(group) != shard["texts"]:
                raise InputError(
                    f"the store {self.writer.path} is of other texts: documents {first:,} to "
                    f"{first + shard['documents'] - 1:,} differ from what you give. "
                    "Give the same texts in the same order, choose another folder, or start over with resume=False."
                )
            if self.writer.is_whole(i):
                self.n_documents += len(group)
                self.n_tokens += shard["tokens"]
                self.bar.update(len(group))
            else:
                self._write(i, list(self._tokenised(iter(group))))
        self.bar.initial = self.bar.n  # the rate is that of the work, not of the passing over
        self.bar.unpause()

    def _tokenised(self, texts: Iterator[Text]) -> Iterator[_Document]:
        context, bos = self.head["context_size"], self.head["prepend_bos"]
        while block := list(islice(texts, READ_AHEAD)):
            tokens = tokenize(self.model, block, context, prepend_bos=bos).to("cpu")
            for text, ids, n in zip(block, tokens.ids, tokens.mask.sum(dim=1).tolist(), strict=True):
                if not n:
                    raise InputError(f"the text {text.text[:40]!r} has no tokens in this model's vocabulary.")
                yield _Document(text, ids[:n], n)

    def _shards(self, documents: Iterator[_Document]) -> Iterator[list[_Document]]:
        """As many documents at a time as fit into a shard."""
        held: list[_Document] = []
        n = 0
        for document in documents:
            if held and n + document.n_tokens > self.head["shard_tokens"]:
                yield held
                held, n = [], 0
            held.append(document)
            n += document.n_tokens
        if held:
            yield held

    def _write(self, i: int, documents: list[_Document]) -> None:
        rows, lengths = [document.ids for document in documents], [document.n_tokens for document in documents]
        texts = [document.text for document in documents]
        acts = self._activations(rows, lengths)
        self.writer.write(
            i,
            Shard(
                ids=torch.cat(rows),
                lengths=lengths,
                kinds=[text.kind for text in texts],
                acts=acts,
                texts=_fingerprint(texts),
            ),
        )
        self.n_documents += len(documents)
        self.n_tokens += sum(lengths)
        self.bar.set_postfix_str(f"{self.n_tokens:,} tokens", refresh=False)

    def _activations(self, rows: list[Tensor], lengths: list[int]) -> dict[str, Tensor]:
        """Run the model over the rows, sorted by length so that little is padded; give them in their order.

        What is given stands in memory that the next call uses again.
        """
        device = self.model.cfg.device
        acts = {hook: self._room(hook, sum(lengths)) for hook in self.head["hooks"]}
        places = {hook: x.split(lengths) for hook, x in acts.items()}
        order, size = sorted(range(len(rows)), key=lengths.__getitem__), self.head["batch_size"]
        for batch in (order[start : start + size] for start in range(0, len(order), size)):
            ids = pad_sequence([rows[k] for k in batch], batch_first=True)  # any id: nobody looks back at it
            for hook, x in self.read(ids.to(device)).items():
                for k, row in zip(batch, x.cpu().unbind(), strict=True):
                    places[hook][k].copy_(row[: lengths[k]])
            self.bar.update(len(batch))
        return acts

    def _room(self, hook: str, n_tokens: int) -> Tensor:
        """Memory for a shard, the same for each: to be given fresh memory takes longer than to fill it."""
        shape, dtype = self.head["hooks"][hook]["shape"], DTYPES[self.head["dtype"]]
        if len(self.rooms.get(hook, ())) < n_tokens:
            self.rooms[hook] = torch.empty(max(n_tokens, self.head["shard_tokens"]), *shape, dtype=dtype)
        return self.rooms[hook][:n_tokens]

    def _check_space(self, documents: list[_Document], n_documents: int) -> None:
        """Refuse before hours of work what will not fit, judging by the length of the first documents."""
        width = sum(torch.Size(listed["shape"]).numel() for listed in self.head["hooks"].values())
        per_token = width * DTYPES[self.head["dtype"]].itemsize + 4
        needed = per_token * n_documents * sum_tokens(documents) // len(documents)
        free = shutil.disk_usage(self.writer.path).free
        if needed > free:
            raise DiskFull(
                f"about {needed / 1e9:,.1f} GB are needed for {n_documents:,} documents, and {free / 1e9:,.1f} GB "
                f"are free in {self.writer.path}. Store fewer documents or hook points, or use dtype='float16'."
            )


def sum_tokens(documents: Sequence[_Document]) -> int:
    """Tokens of some documents."""
    return sum(document.n_tokens for document in documents)


def _checked(texts: Iterable[str | Text]) -> Iterator[Text]:
    """Every text as a `Text`; an empty one is an error that says which."""
    for number, text in enumerate(texts):
        check_text(getattr(text, "text", text), f"document {number}")
        yield text if isinstance(text, Text) else Text(text, "text")


def _fingerprint(texts: Iterable[Text]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(json.dumps(text).encode())
    return digest.hexdigest()


# ---- what the store is of


def _context(model: Any, context_size: int | None) -> int:
    longest = int(model.cfg.n_ctx)
    if context_size is None:
        return min(longest, getattr(getattr(model, "target", None), "context_size", longest))
    if check_count(context_size, "context_size", least=2) > longest:
        raise InputError(f"context_size is {context_size}, but the model reads at most {longest} tokens.")
    return int(context_size)


def model_identity(model: Any) -> dict[str, Any]:
    """Which model this is: by name, and by its numbers, because a retrained model keeps its name.

    Args:
        model: a loaded model.

    Returns:
        target, model, processing, prepend_bos, and a checksum each of weights and tokenizer, ready for JSON.
    """
    target = getattr(model, "target", None)
    return {
        "target": getattr(target, "name", None),
        "model": getattr(target, "model", None) or str(model.cfg.model_name),
        "processing": processing_of(model),
        "weights": _weights_fingerprint(model),
        "tokenizer": _tokenizer_fingerprint(model.tokenizer),
        "prepend_bos": bool(getattr(target, "prepend_bos", True)),
    }


def _weights_fingerprint(model: torch.nn.Module) -> str:
    """A checksum over 64 numbers of every weight: enough to tell two trainings apart, and quick on any device."""
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        flat = weight.detach().flatten()
        some = flat[:: max(1, len(flat) // 64)].float().cpu()
        digest.update(f"{name} {list(weight.shape)}".encode() + some.numpy().tobytes())
    return digest.hexdigest()


def _tokenizer_fingerprint(tokenizer: Any) -> str:
    """A checksum of the tokenizer's rules; of its vocabulary when that is all it shows."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = json.loads(backend.to_str()) if backend is not None else tokenizer.get_vocab()
    for setting in ("truncation", "padding"):  # not rules: they change with every call
        rules.pop(setting, None)
    return hashlib.sha256(json.dumps([rules, tokenizer.bos_token_id], sort_keys=True).encode()).hexdigest()


def _shapes(model: Any, read: Reader) -> dict[str, dict[str, list[int]]]:
    """The shape of one token's activation at each hook point, from a run over two rows of three tokens."""
    ids = torch.full((2, 3), int(model.tokenizer.bos_token_id), device=model.cfg.device)
    shapes = {}
    for hook, x in read(ids).items():
        if hook.endswith(("hook_pattern", "hook_attn_scores")) or x.ndim < 3 or x.shape[:2] != ids.shape:
            raise InputError(
                f"{hook!r} has no vector for each token (shape {list(x.shape)} for 2 rows of 3 tokens), so it cannot "
                "be stored. Use `extract` for it."
            )
        shapes[hook] = {"shape": list(x.shape[2:])}
    return shapes
