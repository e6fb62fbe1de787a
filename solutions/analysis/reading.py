"""A typed text as an SAE reads it, whatever was typed: what explorers and the app show."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from solutions.data import str_tokens, tokenize
from solutions.errors import InputError, check_text
from solutions.models import extract
from solutions.sae import encode
from solutions.targets import Target

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

LONGEST = 20_000  # characters looked at: more than any context holds, and quick to tokenise


class Reading(NamedTuple):
    """A text as the SAE reads it."""

    words: list[str]    # its tokens, BOS left out
    features: Tensor    # [tokens, latents], on the processor
    note: str           # what has been left out, or ""


def read_text(model: TransformerBridge, sae: SAE, target: Target, text: str) -> Reading:
    """Run the model on a text and encode it. What is longer than the context is cut off, and the note says so.

    Args:
        model: a loaded model.
        sae: an SAE that belongs to it.
        target: where the SAE sits.
        text: what was typed, of any length.

    Raises:
        InputError: there is nothing visible in the text, or the tokenizer makes no token of it.
    """
    text = check_text(text)
    whole = text[:LONGEST].encode("utf-8", "replace").decode()  # half a surrogate pair is no text
    context = min(target.context_size, int(model.cfg.n_ctx))
    tokens = tokenize(model, check_text(whole), context, target.prepend_bos)
    start = int(target.prepend_bos)
    words = str_tokens(model, tokens.ids[0])[start:]
    if not words:
        raise InputError(f"the tokenizer makes no token of {whole[:20]!r}. Type something else.")
    acts = extract(model, tokens, target.hook)[target.hook][0, start:]
    cut = tokens.n_cut or len(text) > LONGEST
    note = f" Only the first {len(words)} tokens are read: that is as much as fits into the context." if cut else ""
    return Reading(words, encode(sae, acts).detach().cpu(), note)
