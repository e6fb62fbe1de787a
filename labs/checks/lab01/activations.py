"""Exercises 1.1 to 1.4: which tokens count, how to take an activation, and how to describe it."""

from __future__ import annotations

import torch
from torch import Tensor

from labs.checks.exercise import Exercise, Property, Wrong, normal, whole
from labs.checks.toy_model import ToyModel

# --- 1.1 ------------------------------------------------------------


def draw_tokens(generator) -> dict:
    """Rows of token ids, padded with the BOS id as GPT-2 does it, and with that id once in mid-text."""
    batch, pos = whole(generator, 2, 5), whole(generator, 7, 13)
    bos_id = whole(generator, 0, 50)
    lengths = torch.randint(4, pos, (batch,), generator=generator)
    lengths[0], lengths[-1] = pos, 4  # at least one full row and one padded one
    ids = torch.randint(51, 99, (batch, pos), generator=generator)
    ids[:, 0] = bos_id
    ids[0, 2] = bos_id  # "end of text" inside a text is text
    ids[torch.arange(pos) >= lengths[:, None]] = bos_id
    return {"ids": ids, "lengths": lengths, "bos_id": bos_id}


def content_mask(ids: Tensor, lengths: Tensor, bos_id: int) -> Tensor:
    positions = torch.arange(ids.shape[1])
    return (positions < lengths[:, None]) & (positions > 0)


def _within(ids, lengths):
    return torch.arange(ids.shape[1]) < lengths[:, None]


TOKENS = Exercise(
    number="1.1",
    name="content_mask",
    returns='Bool[Tensor, "batch pos"]',
    draw=draw_tokens,
    reference=content_mask,
    wrong=(
        Wrong(
            "by id",
            lambda ids, lengths, bos_id: ids != bos_id,
            "You masked by id, and every token with the BOS id is gone. On many sentences that looks "
            "right. But GPT-2 uses the same id for BOS, for padding and for the end of a text, so a real "
            "token in mid-text was lost. Use positions and `lengths`; `bos_id` is a trap.",
        ),
        Wrong(
            "kept BOS",
            lambda ids, lengths, bos_id: _within(ids, lengths),
            "Padding is left out, and BOS is kept. Position 0 holds no text, and its activation is unlike "
            "any other.",
        ),
        Wrong(
            "kept padding",
            lambda ids, lengths, bos_id: (torch.arange(ids.shape[1]) > 0).expand(ids.shape),
            "BOS is left out, and padding is kept. Positions from `lengths` on hold no text: compare the "
            "position with the length of its row.",
        ),
        Wrong(
            "lengths without BOS",
            lambda ids, lengths, bos_id: (
                (torch.arange(ids.shape[1]) <= lengths[:, None]) & (torch.arange(ids.shape[1]) > 0)
            ),
            "You keep one token too many at the end of each padded row. `lengths` counts BOS, so the last "
            "real token is at position `length - 1`.",
        ),
        Wrong(
            "last token lost",
            lambda ids, lengths, bos_id: (
                (torch.arange(ids.shape[1]) < lengths[:, None] - 1) & (torch.arange(ids.shape[1]) > 0)
            ),
            "The last real token of each row is missing. `lengths` counts BOS, which you leave out by its "
            "position; there is nothing to subtract.",
        ),
        Wrong(
            "turned round",
            lambda ids, lengths, bos_id: ~content_mask(ids, lengths, bos_id),
            "Your mask is the right one turned round: it is True at BOS and padding. `~mask` flips it.",
        ),
    ),
    look_at="the shapes. `torch.arange(pos)` is [pos], `lengths` is [batch], and `lengths[:, None]` is "
    "[batch, 1].",
    saw="a mask made from lengths is safe even when padding, BOS and end-of-text share one id.",
)

# --- 1.2 ------------------------------------------------------------


def draw_model(generator) -> dict:
    """A toy model, ids and the name of one of its hook points."""
    n_layers, d_model, d_vocab = whole(generator, 2, 4), whole(generator, 5, 9), whole(generator, 20, 30)
    model = ToyModel(n_layers, d_model, d_vocab, seed=whole(generator, 0, 10_000))
    ids = torch.randint(0, d_vocab, (whole(generator, 2, 4), whole(generator, 3, 7)), generator=generator)
    place = ("hook_resid_pre", "hook_mlp_out")[whole(generator, 0, 1)]
    return {"model": model, "ids": ids, "hook_name": f"blocks.{whole(generator, 0, n_layers - 2)}.{place}"}


def grab(model, ids: Tensor, hook_name: str) -> Tensor:
    if hook_name not in model.hook_dict:
        raise ValueError(f"no hook point {hook_name!r}")
    kept = {}

    def keep(activation, hook):
        kept["it"] = activation

    model.run_with_hooks(ids, fwd_hooks=[(hook_name, keep)])
    return kept["it"]


def _other_place(name: str) -> str:
    return (
        name.replace("hook_resid_pre", "hook_mlp_out")
        if "resid_pre" in name
        else name.replace("hook_mlp_out", "hook_resid_pre")
    )


def _next_layer(name: str) -> str:
    _, layer, place = name.split(".")
    return f"blocks.{int(layer) + 1}.{place}"


def _accepts_unknown(answer, args, output) -> bool:
    right = grab(**args)
    if not (
        isinstance(output, Tensor)
        and output.shape == right.shape
        and torch.allclose(output, right, atol=1e-5)
    ):
        return False
    return _on_unknown(answer, args) is None


def _on_unknown(answer, args) -> Exception | None:
    """What the answer raises for a mistyped name; None if it says nothing."""
    try:
        answer(args["model"], args["ids"], args["hook_name"] + "_typo")
    except NotImplementedError:
        raise
    except Exception as error:
        return error
    return None


def _says_which(answer, args, output) -> str | None:
    error = _on_unknown(answer, args)
    if not isinstance(error, ValueError):
        return f"For a mistyped name yours raised {type(error).__name__}; the task asks for a ValueError."
    if "_typo" not in str(error):
        return "Your message does not name the hook that was asked for, so nobody can spot the typing error."
    return None


HOOKS = Exercise(
    number="1.2",
    name="grab",
    returns='Float[Tensor, "batch pos d_model"]',
    draw=draw_model,
    reference=grab,
    wrong=(
        Wrong(
            "the logits",
            lambda model, ids, hook_name: model.run_with_hooks(ids, fwd_hooks=[]),
            "You returned what the model returns: its logits. The activation is what your hook function "
            "gets as its first argument. Store it there, and return what was stored.",
        ),
        Wrong(
            "another place",
            lambda model, ids, hook_name: grab(model, ids, _other_place(hook_name)),
            "That is an activation from the right layer and the wrong place: `hook_resid_pre` and "
            "`hook_mlp_out` have one shape and quite different contents. Hook `hook_name`, whatever it is.",
        ),
        Wrong(
            "next layer",
            lambda model, ids, hook_name: grab(model, ids, _next_layer(hook_name)),
            "That is the activation one layer further on. Use `hook_name` as it is given.",
        ),
        Wrong(
            "first sentence",
            lambda model, ids, hook_name: grab(model, ids, hook_name)[0],
            "You kept the first sentence only. The answer has a row for every sentence: [batch, pos, "
            "d_model].",
        ),
        Wrong(
            "last token",
            lambda model, ids, hook_name: grab(model, ids, hook_name)[:, -1],
            "You kept the last token only. Every token has an activation: [batch, pos, d_model].",
        ),
        Wrong(
            "averaged",
            lambda model, ids, hook_name: grab(model, ids, hook_name).mean(1),
            "You averaged over the tokens. Keep them apart: an SAE reads one token at a time.",
        ),
        Wrong(
            "unknown name accepted",
            lambda model, ids, hook_name: grab(
                model, ids, hook_name if hook_name in model.hook_dict else "hook_embed"
            ),
            "The activation is right, and a mistyped hook name goes unnoticed: the model ignores it, and "
            "yours returned something all the same. Test `hook_name in model.hook_dict` first and raise a "
            "ValueError.",
            recognise=_accepts_unknown,
        ),
    ),
    properties=(
        Property("A name that the model does not have must raise a ValueError naming it.", _says_which),
    ),
    look_at="the hook function. It is called as `f(activation, hook=...)`, so its second argument must be "
    "named `hook`.",
    saw="the model ran as always, and your function looked over its shoulder at one named place.",
)

# --- 1.3 ------------------------------------------------------------


def draw_activations(generator) -> dict:
    """Activations with a huge first token, and junk where the mask says padding."""
    batch, pos, d_model = whole(generator, 2, 4), whole(generator, 5, 9), whole(generator, 4, 12)
    acts = normal(generator, batch, pos, d_model) + 0.7
    acts[:, 0] *= 40  # BOS towers over the rest in many models
    keep = torch.arange(pos) < torch.randint(3, pos, (batch,), generator=generator)[:, None]
    keep[:, 0] = False
    acts[:, 1:][~keep[:, 1:]] += 9
    return {"acts": acts, "keep": keep}


def statistics(acts: Tensor, keep: Tensor) -> dict[str, float]:
    kept = acts[keep]
    norms = kept.norm(dim=-1)
    return {
        "n_tokens": len(kept),
        "mean": kept.mean().item(),
        "mean_norm": norms.mean().item(),
        "largest_norm": norms.max().item(),
    }


def _statistics(kept: Tensor, norms: Tensor, n_tokens: int | None = None) -> dict[str, float]:
    n_tokens = len(kept) if n_tokens is None else n_tokens
    return {"n_tokens": n_tokens, "mean": kept.mean(), "mean_norm": norms.mean(), "largest_norm": norms.max()}


def _everything(acts, keep):
    flat = acts.flatten(0, 1)
    return _statistics(flat, flat.norm(dim=-1))


def _multiplied(acts, keep):
    flat = (acts * keep[..., None]).flatten(0, 1)
    return _statistics(flat, flat.norm(dim=-1), int(keep.sum()))


STATISTICS = Exercise(
    number="1.3",
    name="statistics",
    returns='dict with "n_tokens", "mean", "mean_norm", "largest_norm"',
    draw=draw_activations,
    reference=statistics,
    wrong=(
        Wrong(
            "every position",
            _everything,
            "You described every position, BOS and padding included. BOS alone can be tens of times longer "
            "than the rest and carries the mean away. `acts[keep]` picks the tokens that count.",
        ),
        Wrong(
            "zeros counted",
            _multiplied,
            "You multiplied by the mask. That turns the left-out tokens into zeros and still counts them, "
            "so the means come out too small. `acts[keep]` leaves them out.",
        ),
        Wrong(
            "zeros counted, all tokens",
            lambda acts, keep: _everything(acts * keep[..., None], keep),
            "You multiplied by the mask and counted all positions. The zeros that this leaves are no "
            "tokens. `acts[keep]` leaves them out.",
        ),
        Wrong(
            "norm of the mean",
            lambda acts, keep: _statistics(acts[keep], acts[keep].mean(0).norm()[None]),
            "You took the norm of the mean vector. Vectors that point different ways cancel in a mean. Take"
            " each token's norm first (`dim=-1`), then average.",
        ),
        Wrong(
            "one norm for all",
            lambda acts, keep: _statistics(acts[keep], acts[keep].norm()[None]),
            "You took one norm of the whole tensor. Say along which axis: `.norm(dim=-1)` gives one number "
            "a token.",
        ),
        Wrong(
            "norm over tokens",
            lambda acts, keep: _statistics(acts[keep], acts[keep].norm(dim=0)),
            "You took the norm along the tokens, so there is one number a dimension. The vector of a token "
            "lies along the last axis: `dim=-1`.",
        ),
        Wrong(
            "L1 norm",
            lambda acts, keep: _statistics(acts[keep], acts[keep].abs().sum(-1)),
            "You added absolute values: the L1 norm. The task asks for length, the L2 norm: the root of the"
            " sum of squares.",
        ),
    ),
    look_at="`acts[keep]`: with a mask of shape [batch, pos] it has shape [n_tokens, d_model].",
    saw="statistics of the tokens that hold text. The number of tokens left in is part of the result.",
)

# --- 1.4 ------------------------------------------------------------


def draw_mixed(generator) -> dict:
    """Activations of which some are exactly zero, some tiny of either sign, some large."""
    batch, pos, width = whole(generator, 2, 4), whole(generator, 5, 9), whole(generator, 12, 30)
    acts = normal(generator, batch, pos, width)
    acts = acts * (torch.rand(acts.shape, generator=generator) < 0.6)
    keep = torch.arange(pos) < torch.randint(3, pos, (batch,), generator=generator)[:, None]
    keep[:, 0] = False
    acts[~keep] *= 5
    return {"acts": acts, "keep": keep, "threshold": (0.1, 0.3, 0.6)[whole(generator, 0, 2)]}


def share_near_zero(acts: Tensor, keep: Tensor, threshold: float) -> float:
    return (acts[keep].abs() < threshold).float().mean().item()


NEAR_ZERO = Exercise(
    number="1.4",
    name="share_near_zero",
    returns="float",
    draw=draw_mixed,
    reference=share_near_zero,
    wrong=(
        Wrong(
            "no absolute value",
            lambda acts, keep, threshold: (acts[keep] < threshold).float().mean(),
            "You left out the absolute value, so every negative entry counts as near zero, however large. "
            "Use `.abs()`.",
        ),
        Wrong(
            "exactly zero",
            lambda acts, keep, threshold: (acts[keep] == 0).float().mean(),
            "You counted entries that are exactly zero. A dense activation has none of those; what counts "
            "as near is `threshold`.",
        ),
        Wrong(
            "a count",
            lambda acts, keep, threshold: (acts[keep].abs() < threshold).float().sum(),
            "You returned how many entries are near zero. A share is that number divided by all entries: "
            "`.mean()` instead of `.sum()`.",
        ),
        Wrong(
            "every position",
            lambda acts, keep, threshold: (acts.abs() < threshold).float().mean(),
            "You counted every position, BOS and padding included. Pick the tokens first: `acts[keep]`.",
        ),
        Wrong(
            "zeros made by the mask",
            lambda acts, keep, threshold: ((acts * keep[..., None]).abs() < threshold).float().mean(),
            "You multiplied by the mask, and the zeros that this makes are then counted as near zero. Pick "
            "the tokens: `acts[keep]`.",
        ),
        Wrong(
            "the other share",
            lambda acts, keep, threshold: (acts[keep].abs() >= threshold).float().mean(),
            "That is the share of entries that are *not* near zero: turn the comparison round.",
        ),
        Wrong(
            "in per cent",
            lambda acts, keep, threshold: 100 * (acts[keep].abs() < threshold).float().mean(),
            "That is the share in per cent. The task asks for a number between 0 and 1.",
        ),
    ),
    look_at="the dtype. A comparison gives truth values, and `.mean()` needs floats.",
    saw="the same measure for a dense and a sparse representation: now they can be compared.",
)

EXERCISES = (TOKENS, HOOKS, STATISTICS, NEAR_ZERO)
