"""Text in, tokens out; and activations to disk and back.

`texts` says where text comes from, `tokens` makes padded rows of ids of it, `saved` keeps a few activations on disk.
`store` reads activations that do not fit into memory, `store_writer` writes them (`solutions.models.harvest` is
what fills it), `normalise` measures and scales them. Everything is reachable from here:
`from solutions.data import load_texts, tokenize, ActivationStore`.
"""

from solutions.data.normalise import Normalisation, measure_normalisation
from solutions.data.saved import DamagedFile, SavedActivations, load_activations, save_activations, sha256
from solutions.data.store import ActivationStore, StoreBatch, split_of
from solutions.data.store_files import DTYPES, DiskFull, StoreInUse
from solutions.data.store_writer import Shard, StoreWriter
from solutions.data.texts import Text, TextStream, load_texts, open_texts
from solutions.data.tokens import Tokens, check_acts, str_tokens, tokenize

__all__ = [
    "DTYPES",
    "ActivationStore",
    "DamagedFile",
    "DiskFull",
    "Normalisation",
    "SavedActivations",
    "Shard",
    "StoreBatch",
    "StoreInUse",
    "StoreWriter",
    "Text",
    "TextStream",
    "Tokens",
    "check_acts",
    "load_activations",
    "load_texts",
    "measure_normalisation",
    "open_texts",
    "save_activations",
    "sha256",
    "split_of",
    "str_tokens",
    "tokenize",
]
