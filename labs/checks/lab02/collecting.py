"""Exercises 2.1 to 2.3: write activations out of a model, plan the room they take, and leave BOS out."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from labs.checks.exercise import Exercise, Property, Wrong, normal, whole
from labs.checks.toy_model import HookPoint, ToyModel

# --- 2.1 ------------------------------------------------------------


class CountingModel(ToyModel):
    """A toy model that counts its forward passes. Its places have two names each, as TransformerLens's have:
    one asks for `blocks.0.hook_resid_pre`, and the hook says that it is called `blocks.0.hook_in`."""

    OWN = {"hook_resid_pre": "hook_in", "hook_mlp_out": "mlp.hook_out", "hook_resid_post": "hook_out"}

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.passes = 0
        for name in self.hook_dict:
            lead, _, place = name.rpartition(".")
            self.hook_dict[name] = HookPoint(f"{lead}.{self.OWN[place]}" if lead else name)

    def run_with_hooks(self, *args, **kwargs) -> Tensor:
        self.passes += 1
        return super().run_with_hooks(*args, **kwargs)

    def run_with_cache(self, ids: Tensor, names_filter=None, stop_at_layer: int | None = None, **_ignored):
        """(logits, activations by the names that were asked for)."""
        asked = [names_filter] if isinstance(names_filter, str) else names_filter or self.hook_dict
        wanted = [n for n in self.hook_dict if (asked(n) if callable(asked) else n in asked)]
        cache: dict[str, Tensor] = {}
        hooks = [(name, lambda value, hook, name=name: cache.update({name: value})) for name in wanted]
        return self.run_with_hooks(ids, fwd_hooks=hooks, stop_at_layer=stop_at_layer), cache


def draw_pass(generator) -> dict:
    """A toy model, padded rows, two or three hook points in no particular order, and a dtype."""
    n_layers, d_model, d_vocab = whole(generator, 2, 4), whole(generator, 5, 9), whole(generator, 20, 30)
    model = CountingModel(n_layers, d_model, d_vocab, seed=whole(generator, 0, 10_000))
    batch, pos = whole(generator, 2, 4), whole(generator, 5, 9)
    keep = torch.arange(pos) < torch.randint(3, pos, (batch,), generator=generator)[:, None]
    keep[:, 0] = False
    names = [name for name in model.hook_dict if name.startswith("blocks.")]
    order = torch.randperm(len(names), generator=generator)[: whole(generator, 2, 3)]
    return {
        "model": model,
        "ids": torch.randint(0, d_vocab, (batch, pos), generator=generator),
        "keep": keep,
        "hook_names": [names[i] for i in order],
        "dtype": (torch.float16, torch.bfloat16)[whole(generator, 0, 1)],
    }


def collect(model, ids: Tensor, keep: Tensor, hook_names: list[str], dtype: torch.dtype) -> dict[str, Tensor]:
    return _collected(lambda activation, keep: activation[keep])(model, ids, keep, hook_names, dtype)


def _collected(change):
    """A `collect` that writes `change(activation, keep)`."""

    def answer(model, ids, keep, hook_names, dtype):
        kept = {}

        def writer(name):
            def write(activation, hook):
                kept[name] = change(activation, keep).to(dtype)

            return write

        model.run_with_hooks(ids, fwd_hooks=[(name, writer(name)) for name in hook_names])
        return kept

    return answer


def _own_names(model, ids, keep, hook_names, dtype):
    kept = {}

    def write(activation, hook):
        kept[hook.name] = activation[keep].to(dtype)

    model.run_with_hooks(ids, fwd_hooks=[(name, write) for name in hook_names])
    return kept


def _a_pass_each(model, ids, keep, hook_names, dtype):
    return {name: collect(model, ids, keep, [name], dtype)[name] for name in hook_names}


def _late_name(model, ids, keep, hook_names, dtype):
    kept, hooks = {}, []
    for name in hook_names:

        def write(activation, hook):
            kept[name] = activation[keep].to(dtype)  # noqa: B023 - this is the mistake

        hooks.append((name, write))
    model.run_with_hooks(ids, fwd_hooks=hooks)
    return kept


def _first_for_all(model, ids, keep, hook_names, dtype):
    first = collect(model, ids, keep, hook_names, dtype)[hook_names[0]]
    return dict.fromkeys(hook_names, first)


def _full_precision(model, ids, keep, hook_names, dtype):
    return collect(model, ids, keep, hook_names, torch.float32)


def _passes(answer, args) -> int:
    before = args["model"].passes
    answer(*args.values())
    return args["model"].passes - before


def _many_passes(answer, args, output) -> bool:
    return _passes(answer, args) > 1


def _one_pass(answer, args, output) -> str | None:
    passes = _passes(answer, args)
    return None if passes == 1 else f"Yours made {passes} passes for {len(args['hook_names'])} hook points."


def _right_dtype(answer, args, output) -> str | None:
    other = {str(values.dtype) for values in output.values() if values.dtype != args["dtype"]}
    return f"Asked for {args['dtype']}, yours wrote {', '.join(sorted(other))}." if other else None


COLLECT = Exercise(
    number="2.1",
    name="collect",
    returns='dict[str, Float[Tensor, "n_tokens d"]]',
    draw=draw_pass,
    reference=collect,
    cases=8,
    wrong=(
        Wrong(
            "a pass for each hook point",
            _a_pass_each,
            "The numbers are right, and the model ran once for each hook point. Give `run_with_hooks` all the "
            "hooks in one list: one pass passes every one of them, and costs no more.",
            recognise=_many_passes,
        ),
        Wrong(
            "the hook's own name",
            _own_names,
            "The activations are right, and stand under other names. A place can have several: `hook.name` is the "
            "model's own, such as `blocks.0.hook_in`, and not the one it was asked under. Make a hook function "
            "for each name, one that remembers which.",
        ),
        Wrong(
            "the loop's last name",
            _late_name,
            "Everything went under one name. A function that uses a loop's variable reads it when it *runs*, "
            "and by then the loop stands at its last name. Make each hook function in a function of its own "
            "that takes the name, or give it the parameter `name=name`.",
        ),
        Wrong(
            "one activation under all names",
            _first_for_all,
            "Every hook point got the same activation. A hook function is called for each of them, with the "
            "activation of that place: it belongs under that place's name.",
        ),
        Wrong(
            "every position",
            _collected(lambda activation, keep: activation.flatten(0, 1)),
            "BOS and padding were written too. Padding can be half of a batch: you would pay for it on disk, "
            "and train on it later. `activation[keep]` leaves only tokens of text.",
        ),
        Wrong(
            "rows and columns kept",
            _collected(lambda activation, keep: activation),
            "You wrote the whole [batch, pos, d] block, BOS and padding included. A store is a list of tokens: "
            "`activation[keep]` has shape [n_tokens, d].",
        ),
        Wrong(
            "zeros in place of the rest",
            _collected(lambda activation, keep: (activation * keep[..., None]).flatten(0, 1)),
            "You multiplied by the mask. The tokens to be left out are now vectors of zeros, and still there. "
            "`activation[keep]` drops them.",
        ),
        Wrong(
            "averaged",
            _collected(
                lambda activation, keep: torch.stack(
                    [row[k].mean(0) for row, k in zip(activation, keep, strict=True)]
                )
            ),
            "You wrote one mean vector a text. An SAE reads one token at a time, and nothing can be "
            "un-averaged later: write every token.",
        ),
        Wrong(
            "full precision",
            _full_precision,
            "The numbers are right, and they take twice the room that was asked for: `dtype` was ignored. "
            "`.to(dtype)` before you put them away.",
        ),
    ),
    properties=(
        Property("All hook points must be read in a single forward pass.", _one_pass),
        Property("What is written must have the dtype that was asked for.", _right_dtype),
    ),
    look_at="the hook function: it is called as `f(activation, hook=...)`, once for each place.",
    saw="one pass, as many places as you like. The forward pass is what costs; looking is nearly free.",
)

# --- 2.2 ------------------------------------------------------------


def draw_plan(generator) -> dict:
    """So many tokens, two or three widths, a dtype and a size of shard."""
    widths = [whole(generator, 10, 900) for _ in range(max(2, whole(generator, 1, 3)))]
    return {
        "n_tokens": whole(generator, 20_000, 900_000),
        "widths": widths,
        "dtype": (torch.float16, torch.float32, torch.bfloat16, torch.float64)[whole(generator, 0, 3)],
        "shard_bytes": whole(generator, 1_000_000, 5_000_000),
    }


def plan(n_tokens: int, widths: list[int], dtype: torch.dtype, shard_bytes: int) -> dict[str, int]:
    return _plan(n_tokens, sum(widths), dtype.itemsize, shard_bytes)


def _plan(n_tokens, width, itemsize, shard_bytes) -> dict[str, int]:
    fits = shard_bytes // (width * itemsize) if width * itemsize <= shard_bytes else 0
    return {
        "n_bytes": n_tokens * width * itemsize,
        "tokens_per_shard": fits,
        "n_shards": -(-n_tokens // max(fits, 1)),
    }


def _with(n_tokens, widths, dtype, shard_bytes, **changes) -> dict:
    return plan(n_tokens, widths, dtype, shard_bytes) | changes


def _rounded_up(n_tokens, widths, dtype, shard_bytes):
    fits = math.ceil(shard_bytes / (sum(widths) * dtype.itemsize))
    return _with(
        n_tokens, widths, dtype, shard_bytes, tokens_per_shard=fits, n_shards=math.ceil(n_tokens / fits)
    )


def _rounded_down(n_tokens, widths, dtype, shard_bytes, extra=0):
    fits = plan(n_tokens, widths, dtype, shard_bytes)["tokens_per_shard"]
    return _with(n_tokens, widths, dtype, shard_bytes, n_shards=n_tokens // fits + extra)


def _divided_bytes(n_tokens, widths, dtype, shard_bytes):
    right = plan(n_tokens, widths, dtype, shard_bytes)
    return right | {"n_shards": math.ceil(right["n_bytes"] / shard_bytes)}


def _not_whole(n_tokens, widths, dtype, shard_bytes):
    fits = shard_bytes / (sum(widths) * dtype.itemsize)
    return _with(
        n_tokens, widths, dtype, shard_bytes, tokens_per_shard=fits, n_shards=math.ceil(n_tokens / fits)
    )


PLAN = Exercise(
    number="2.2",
    name="plan",
    returns='dict with "n_bytes", "tokens_per_shard", "n_shards" (whole numbers)',
    draw=draw_plan,
    reference=plan,
    cases=10,
    wrong=(
        Wrong(
            "numbers, not bytes",
            lambda n_tokens, widths, dtype, shard_bytes: _plan(n_tokens, sum(widths), 1, shard_bytes),
            "You counted numbers, not bytes. A float16 takes 2 bytes, a float32 takes 4: "
            "`dtype.itemsize` knows.",
        ),
        Wrong(
            "always float32",
            lambda n_tokens, widths, dtype, shard_bytes: _plan(n_tokens, sum(widths), 4, shard_bytes),
            "You took 4 bytes for every number, which is float32. The size depends on `dtype`: "
            "`dtype.itemsize`.",
        ),
        Wrong(
            "bits",
            lambda n, widths, dtype, shard_bytes: _plan(n, sum(widths), 8 * dtype.itemsize, shard_bytes),
            "That is eight times too much: a float16 has 16 *bits*, which is 2 bytes.",
        ),
        Wrong(
            "one hook point",
            lambda n, widths, dtype, shard_bytes: _plan(n, widths[0], dtype.itemsize, shard_bytes),
            "You counted the first hook point only. Every token is written at all of them: add the widths.",
        ),
        Wrong(
            "widths multiplied",
            lambda n, widths, dtype, shard_bytes: _plan(n, math.prod(widths), dtype.itemsize, shard_bytes),
            "You multiplied the widths. A token's row at two hook points is as long as both rows together: add.",
        ),
        Wrong(
            "part of a token",
            _not_whole,
            "Your `tokens_per_shard` is not a whole number. A token's row cannot be cut: round down, with `//`.",
        ),
        Wrong(
            "rounded up",
            _rounded_up,
            "Your `tokens_per_shard` is rounded up, so every shard is a little larger than allowed. Round down: "
            "`//`.",
        ),
        Wrong(
            "the last shard lost",
            _rounded_down,
            "You rounded the number of shards down. The tokens that are left over need a shard too: round up, "
            "for example with `math.ceil`.",
        ),
        Wrong(
            "always one more",
            lambda *args: _rounded_down(*args, extra=1),
            "You rounded down and added one. That is one shard too many wherever the last shard is exactly full. "
            "Round up instead, for example with `math.ceil`.",
        ),
        Wrong(
            "bytes over bytes",
            _divided_bytes,
            "You divided bytes by bytes. Shards hold whole tokens, so each has a little air at its end, and "
            "over many shards that adds up to one more. Divide tokens by tokens.",
        ),
        Wrong(
            "in gigabytes",
            lambda n_tokens, widths, dtype, shard_bytes: _with(
                n_tokens,
                widths,
                dtype,
                shard_bytes,
                n_bytes=plan(n_tokens, widths, dtype, shard_bytes)["n_bytes"] / 1e9,
            ),
            "Your `n_bytes` is in gigabytes. Return bytes, a whole number; divide when you print.",
        ),
    ),
    look_at="`dtype.itemsize`, the bytes of one number, and `sum(widths)`, the numbers of one token.",
    saw="a multiplication that people skip. It decides whether activations fit on the disk, let alone in memory.",
)

# --- 2.3 ------------------------------------------------------------


def draw_store(generator) -> dict:
    """A flat store: documents one after the other, BOS first in each (or nowhere), its id also in mid-text."""
    lengths = [whole(generator, 3, 8) for _ in range(whole(generator, 3, 6))]
    first = whole(generator, 0, 40)  # a stripe of a larger store: numbers need not begin at 0
    document = torch.cat([torch.full((n,), first + i) for i, n in enumerate(lengths)])
    d, bos_id = whole(generator, 3, 9), whole(generator, 0, 50)
    ids = torch.randint(51, 99, (len(document),), generator=generator)
    starts = torch.cat([torch.tensor([0]), torch.tensor(lengths).cumsum(0)[:-1]])
    bos_first = whole(generator, 0, 3) > 0
    acts = normal(generator, len(document), d) + 0.5
    if bos_first:
        ids[starts] = bos_id
        acts[starts] *= 30
    ids[starts[0] + 2] = bos_id  # "end of text" inside a text is text
    return {"acts": acts, "document": document, "ids": ids, "bos_id": bos_id, "bos_first": bos_first}


def text_statistics(acts, document, ids, bos_id, bos_first) -> dict:
    keep = torch.ones(len(document), dtype=torch.bool)
    if bos_first:
        keep[0] = False
        keep[1:] = document[1:] == document[:-1]
    return _described(acts[keep])


def _described(kept: Tensor, n_tokens: int | None = None) -> dict:
    return {
        "n_tokens": len(kept) if n_tokens is None else n_tokens,
        "mean_norm": kept.norm(dim=-1).mean().item(),
        "variance": kept.var(0, unbiased=False).sum().item(),
    }


def _text(document, bos_first) -> Tensor:
    keep = torch.ones(len(document), dtype=torch.bool)
    if bos_first:
        keep[0] = False
        keep[1:] = document[1:] == document[:-1]
    return keep


def _last_dropped(acts, document, ids, bos_id, bos_first):
    keep = torch.ones(len(document), dtype=torch.bool)
    if bos_first:
        keep[-1] = False
        keep[:-1] = document[1:] == document[:-1]
    return _described(acts[keep])


def _first_row_only(acts, document, ids, bos_id, bos_first):
    return _described(acts[1:] if bos_first else acts)


def _first_document_kept(acts, document, ids, bos_id, bos_first):
    keep = torch.ones(len(document), dtype=torch.bool)
    if bos_first:
        keep[1:] = document[1:] == document[:-1]
    return _described(acts[keep])


def _variance_of(change):
    def answer(acts, document, ids, bos_id, bos_first):
        kept = acts[_text(document, bos_first)]
        return _described(kept) | {"variance": change(kept)}

    return answer


STATISTICS = Exercise(
    number="2.3",
    name="text_statistics",
    returns='dict with "n_tokens", "mean_norm", "variance"',
    draw=draw_store,
    reference=text_statistics,
    cases=8,
    wrong=(
        Wrong(
            "everything",
            lambda acts, document, ids, bos_id, bos_first: _described(acts),
            "BOS is still in. In many models its activation towers over the rest, so a handful of rows decides "
            "the variance. Leave out the first row of every document when `bos_first` is True.",
        ),
        Wrong(
            "by id",
            lambda acts, document, ids, bos_id, bos_first: _described(acts[ids != bos_id]),
            "You looked for BOS by its id, and lost a token of text: the same id also ends texts, in the middle "
            "of a document. The first row of a document is found by `document`, not by `ids`.",
        ),
        Wrong(
            "the first row only",
            _first_row_only,
            "You left out the first row of the store. Every document has a BOS of its own: a new one begins "
            "wherever `document` changes.",
        ),
        Wrong(
            "the first document's BOS",
            _first_document_kept,
            "One BOS is left: the very first. No row stands before it to differ from, so a comparison with the "
            "row before does not find it. Treat row 0 by itself.",
        ),
        Wrong(
            "the last token of each",
            _last_dropped,
            "You left out the *last* row of each document. BOS stands at its beginning: compare each row with "
            "the one before it, not with the one after.",
        ),
        Wrong(
            "BOS that is not there",
            lambda acts, document, ids, bos_id, bos_first: text_statistics(acts, document, ids, bos_id, True),
            "You leave out the first row always. Some targets put no BOS in front; then that row is text, and "
            "`bos_first` says so.",
        ),
        Wrong(
            "zeros counted",
            lambda acts, document, ids, bos_id, bos_first: _described(
                acts * _text(document, bos_first)[:, None]
            ),
            "You multiplied by the mask. The rows to leave out became zeros, and zeros are averaged too. "
            "`acts[keep]` drops them.",
        ),
        Wrong(
            "variance of all numbers",
            _variance_of(lambda kept: kept.var(unbiased=False).item()),
            "Count and norm are right. Your variance is that of all numbers thrown together. Take each "
            "dimension's variance over the tokens (`dim=0`), then add the dimensions up.",
        ),
        Wrong(
            "mean of the variances",
            _variance_of(lambda kept: kept.var(0, unbiased=False).mean().item()),
            "Count and norm are right. You averaged the dimensions' variances; the task asks for their sum, the "
            "total variance: the mean squared distance from the mean vector.",
        ),
        Wrong(
            "divided by n - 1",
            _variance_of(lambda kept: kept.var(0).sum().item()),
            "Count and norm are right. `torch.var` divides by n − 1 unless told otherwise. Here the tokens are "
            "described as they are: divide by n, with `unbiased=False`.",
        ),
    ),
    look_at="the mask: one truth value for each row of the store. `document[1:] == document[:-1]` compares each "
    "row with the one before, and is one shorter.",
    saw="the same store, described with and without its BOS rows. Both are statistics; only one is about text.",
)

EXERCISES = (COLLECT, PLAN, STATISTICS)
