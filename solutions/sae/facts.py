"""What a splice costs in knowledge: the facts a model still completes.

The loss averages over thousands of easy tokens and barely moves when a fact is gone; this asks for the facts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from solutions.errors import InputError, check_text, check_texts
from solutions.sae.evaluate import RUNS, in_batches, mean_activation, readable, run_spliced

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge


class FactsKept(NamedTuple):
    """How many facts the model completes, and how many of those survive each replacement."""

    n: int
    """Facts asked."""
    clean: int
    """Facts the model completes as it is."""
    spliced: int
    """Of those, how many it still completes on the SAE's reconstruction."""
    zero: int
    """… with zeros in place of the activation."""
    mean: int
    """… with the mean activation in place of every activation."""
    facts: pd.DataFrame
    """One row per fact, with prompt, answer, and for clean, spliced, zero and mean whether it was completed."""

    def table(self) -> pd.DataFrame:
        """One row per run: how many facts were kept, and their share of those the model knows."""
        counts = {how: getattr(self, how) for how in RUNS}
        share = [count / self.clean if self.clean else math.nan for count in counts.values()]
        return pd.DataFrame({"kept": counts.values(), "share": share}, index=pd.Index(counts, name="run"))


@torch.no_grad()
def facts_kept(
    model: TransformerBridge,
    sae: SAE,
    prompts: Sequence[str],
    answers: Sequence[str | Sequence[str]],
    foils: Sequence[Sequence[str]] | None,
    hook: str,
    *,
    mean: Tensor | None = None,
    batch_size: int = 32,
) -> FactsKept:
    """How many facts the model still completes when its activations are replaced.

    A fact counts as completed when a right answer is likelier than every foil; without foils, when a right
    answer is the likeliest of all tokens.

    Args:
        model: a loaded model.
        sae: the SAE.
        prompts: how the sentences begin.
        answers: for each prompt the right continuation, or several. Leading space included, as in " Paris". A
            word of several tokens is judged by its first.
        foils: for each prompt wrong continuations of the same kind; None to compare with the whole vocabulary.
            A foil that begins with the same token as a right answer is passed over.
        hook: where to splice. BOS keeps its own activation.
        mean: [d_in] mean activation; by default that of the prompts' own tokens. Prompts of one kind are alike,
            so the mean of ordinary text (`SAEMetrics.mean`, `store.statistics(hook).mean`) is the fairer one.
        batch_size: prompts at once.

    Returns:
        The counts; `.table()` to read.

    Raises:
        InputError: a prompt is empty or longer than the context, or the lists have different lengths.
    """
    prompts = check_texts(prompts, "prompts")
    hook, tokens = readable(model, sae, prompts, hook)
    if tokens.n_cut:
        raise InputError(f"a prompt is longer than the context: {tokens.n_cut} tokens would be cut off its end.")
    right, wrong = _choices(model, prompts, answers, foils)
    if mean is None:
        mean = mean_activation(model, tokens, hook, batch_size)
    done = {how: [False] * len(prompts) for how in RUNS}
    for rows, part in in_batches(tokens, batch_size):
        last = part.mask.sum(dim=1) - 1
        for how in done:
            logits = run_spliced(model, sae, part, hook, how, mean)
            logits = logits[torch.arange(len(last), device=last.device), last].float().cpu()
            for row, scores in zip(rows.tolist(), logits, strict=True):
                done[how][row] = _completes(scores, right[row], wrong[row])
    shown = [answer if isinstance(answer, str) else " / ".join(answer) for answer in answers]
    facts = pd.DataFrame({"prompt": prompts, "answer": shown, **done})
    kept = [int((facts["clean"] & facts[how]).sum()) for how in RUNS]
    return FactsKept(len(prompts), *kept, facts)


def _completes(logits: Tensor, right: list[int], wrong: list[int]) -> bool:
    """Whether a right token beats every wrong one, or without any, all tokens."""
    if not wrong:
        return int(logits.argmax()) in right
    return bool(logits[right].max() > logits[wrong].max())


def _choices(
    model: TransformerBridge, prompts: list[str], answers: Sequence, foils: Sequence | None
) -> tuple[list[list[int]], list[list[int]]]:
    """First tokens of the right answers and of the foils, per prompt; no foils: empty lists."""
    given = {"answers": answers} if foils is None else {"answers": answers, "foils": foils}
    for name, lists in given.items():
        if isinstance(lists, str) or len(lists) != len(prompts):
            found = "one string" if isinstance(lists, str) else str(len(lists))
            raise InputError(f"{name} must hold one entry for each of the {len(prompts)} prompts, got {found}.")

    def first_tokens(words: str | Sequence[str], name: str) -> set[int]:
        words = [words] if isinstance(words, str) else list(words)
        if not words:
            raise InputError(f"{name} is empty. Give at least one.")
        words = [check_text(word, name) for word in words]
        return {model.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in words}

    right = [first_tokens(words, f"answers[{i}]") for i, words in enumerate(answers)]
    if foils is None:
        return [sorted(ids) for ids in right], [[] for _ in prompts]
    wrong = [first_tokens(words, f"foils[{i}]") - right[i] for i, words in enumerate(foils)]
    for i, ids in enumerate(wrong):
        if not ids:
            raise InputError(f"all foils[{i}] begin with the same token as an answer of {prompts[i]!r}.")
    return [sorted(ids) for ids in right], [sorted(ids) for ids in wrong]
