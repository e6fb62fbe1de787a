"""Reads and edits activations of a plain Hugging Face model, by TransformerLens's hook names.

The chapters use TransformerLens for this. Here the models are being made, and a PyTorch hook is all it takes:
the residual stream before block L is the block's input, `hook_mlp_out` the output of its MLP. A test
(`tests/test_train_saes.py`) checks that TransformerLens reads the same numbers.
"""
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

HOOK = re.compile(r"blocks\.(\d+)\.hook_(resid_pre|resid_post|mlp_out)")


class Rows(NamedTuple):
    """Documents as a model reads them, BOS first."""

    ids: Tensor  # [row, position] int64
    real: Tensor  # [row, position] bool: a token of the document itself, not BOS and not padding


def to_rows(texts: Iterable[str], tokenizer, context: int) -> Rows:
    """One row for each text, cut off at `context` tokens. Padding stands on the right: attention never sees it."""
    encoded = tokenizer.backend_tokenizer.encode_batch(list(texts), add_special_tokens=False)
    documents = [encoding.ids[:context - 1] for encoding in encoded if encoding.ids]
    if not documents:
        raise ValueError("to_rows needs at least one text that is not empty; found none.")
    rows = torch.full((len(documents), max(map(len, documents)) + 1), tokenizer.bos_token_id)
    real = torch.zeros_like(rows, dtype=torch.bool)
    for i, ids in enumerate(documents):
        rows[i, 1:len(ids) + 1] = torch.tensor(ids)
        real[i, 1:len(ids) + 1] = True
    return Rows(rows, real)


def in_batches(rows: Rows, size: int = 64) -> Iterator[Rows]:
    """The rows in batches of about one length each, cut to the longest row of the batch."""
    lengths = rows.real.sum(1)
    for chosen in lengths.argsort().split(size):
        width = int(lengths[chosen].max()) + 1
        yield Rows(rows.ids[chosen, :width], rows.real[chosen, :width])


def _place(model, hook: str) -> tuple[nn.Module, str]:
    """The module that a hook name stands for, and which side of it, "input" or "output"."""
    found = HOOK.fullmatch(hook)
    blocks = model.transformer.h if hasattr(model, "transformer") else model.model.layers
    if not found or int(found[1]) >= len(blocks):
        raise ValueError(f"hook must be blocks.L.hook_resid_pre, hook_resid_post or hook_mlp_out with L below "
                         f"{len(blocks)}; found {hook!r}.")
    block = blocks[int(found[1])]
    return (block.mlp if found[2] == "mlp_out" else block), ("input" if found[2] == "resid_pre" else "output")


@contextmanager
def edited(model, hook: str, edit: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """While this is open, the activation at `hook` [row, position, d_model] is replaced by `edit` of it."""
    module, side = _place(model, hook)
    if side == "input":
        def before(_, args, kwargs):
            if args:
                return (edit(args[0]), *args[1:]), kwargs
            return args, kwargs | {"hidden_states": edit(kwargs["hidden_states"])}
        handle = module.register_forward_pre_hook(before, with_kwargs=True)
    else:
        def after(_, __, output):
            return (edit(output[0]), *output[1:]) if isinstance(output, tuple) else edit(output)
        handle = module.register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def read(model, ids: Tensor, hooks: Sequence[str]) -> dict[str, Tensor]:
    """Activations [row, position, d_model] at each hook."""
    seen: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for hook in hooks:
            stack.enter_context(edited(model, hook, lambda x, hook=hook: seen.setdefault(hook, x)))
        backbone = model.transformer if hasattr(model, "transformer") else model.model
        backbone(ids.to(model.device), use_cache=False)
    return seen


def harvest(model, rows: Rows, hooks: Sequence[str],
            report: Callable[[int], None] = lambda n: None) -> dict[str, Tensor]:
    """Activations of all real tokens, {hook: [n_tokens, d_model] float16}. `report` gets each batch's tokens."""
    n, done = int(rows.real.sum()), 0
    acts = {hook: torch.empty(n, model.config.hidden_size, dtype=torch.float16) for hook in hooks}
    for batch in in_batches(rows):
        count = int(batch.real.sum())
        for hook, x in read(model, batch.ids, hooks).items():
            acts[hook][done:done + count] = x.cpu()[batch.real]
        done += count
        report(count)
    return acts
