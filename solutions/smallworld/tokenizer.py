"""The tokenizer: byte-level BPE trained on the embedded text, and concept labels carried over to its tokens."""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .concepts import BIT, CONCEPTS
from .corpus import documents
from .grammar import Document

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SENT_START = BIT["sent_start"]
BOS = "<|bos|>"
VOCABULARY = 4096
CONTEXT = 128
MIN_ROOM = 20


class LabelledTokens(NamedTuple):
    """A document as tokens (BOS not included)."""

    ids: np.ndarray  #: [n] int64
    labels: np.ndarray  #: [n, n_concepts] bool


def train_tokenizer(texts: Iterable[str], folder: Path, vocabulary: int = VOCABULARY) -> None:
    """Train byte-level BPE (as GPT-2's) on `texts` and save it as a Hugging Face folder.

    Every byte is in the vocabulary, so that any text, emoji included, has tokens. BOS is token 0.
    """
    import json

    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[BOS], initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False))
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    # The class name that both transformers 4 and 5 understand.
    (folder / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": BOS, "eos_token": BOS, "unk_token": BOS,
         "pad_token": BOS, "model_max_length": CONTEXT, "clean_up_tokenization_spaces": False}, indent=1) + "\n")


def load_tokenizer(folder: Path | None = None) -> "PreTrainedTokenizerFast":
    """The tokenizer of the embedded world (or the one saved in `folder`)."""
    from transformers import PreTrainedTokenizerFast

    folder = folder or Path(__file__).parent / "artifacts" / "smallworld"
    return PreTrainedTokenizerFast.from_pretrained(str(folder))


def label_tokens(doc: Document, tokenizer: "PreTrainedTokenizerFast") -> LabelledTokens:
    """Tokens of a document, each with the concepts that hold on it.

    A token carries the labels of the word in which it ends: only the last piece of a word that is split knows
    the whole word. The pieces before it carry what held before the word was begun; its first token also carries
    the start of a sentence.
    """
    encoding = tokenizer.backend_tokenizer.encode(doc.text, add_special_tokens=False)
    labels = np.zeros((len(encoding.ids), len(CONCEPTS)), dtype=bool)
    piece, start = 0, True  # start: the token is the first of its word
    for i, (_, end) in enumerate(encoding.offsets):
        while doc.ends[piece] < end:
            piece, start = piece + 1, True
        finished = doc.ends[piece] == end
        mask = (doc.masks[piece] if finished else doc.scopes[piece]) & ~SENT_START
        if start:
            mask |= doc.masks[piece] & SENT_START
        start = finished
        while mask:
            bit = mask & -mask
            labels[i, bit.bit_length() - 1] = True
            mask ^= bit
    return LabelledTokens(np.array(encoding.ids, dtype=np.int64), labels)


def token_rows(tokenizer: "PreTrainedTokenizerFast", seed: int, n_rows: int, length: int = CONTEXT,
               batch: int = 2000, mix: str = "school") -> np.ndarray:
    """Rows of tokens for training, `[n_rows, length]` uint16: documents one after the other, BOS before each.

    Every row begins with BOS at a document's start: a document that does not fit is cut, and what is left of it is
    dropped, so that no row begins in the middle of a text whose start the model has not read. A gap too small
    for a text (`MIN_ROOM`) is filled with BOS.
    """
    bos = tokenizer.bos_token_id
    rows = np.full((n_rows, length), bos, dtype=np.uint16)
    stream = documents(seed, mix=mix)
    row, column = 0, 0
    while row < n_rows:
        texts = [doc.text for doc in islice(stream, batch)]
        for encoding in tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False):
            ids = [bos, *encoding.ids]
            if length - column < min(len(ids), MIN_ROOM):
                row, column = row + 1, 0
                if row == n_rows:
                    break
            take = ids[: length - column]
            rows[row, column:column + len(take)] = take
            column += len(take)
            if column == length:
                row, column = row + 1, 0
                if row == n_rows:
                    break
    return rows
