"""Text in, tokens out; and activations to disk and back.

`texts` says where text comes from, `tokens` makes padded rows of ids of it, `saved` keeps a few activations on disk.
Everything is reachable from here: `from solutions.data import load_texts, tokenize`.
"""

from solutions.data.saved import DamagedFile, SavedActivations, load_activations, save_activations, sha256
from solutions.data.texts import Text, load_texts
from solutions.data.tokens import Tokens, check_acts, str_tokens, tokenize

__all__ = [
    "DamagedFile",
    "SavedActivations",
    "Text",
    "Tokens",
    "check_acts",
    "load_activations",
    "load_texts",
    "save_activations",
    "sha256",
    "str_tokens",
    "tokenize",
]
