"""Text in, tokens out; and activations to disk and back.

A text becomes a row of token ids. Rows have different lengths, so the short ones are padded on the right.
GPT-2 pads with the same token it begins texts with, so which positions are real is kept as a mask made from
the lengths: it cannot be read off the ids.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from solutions.errors import (
    CourseError,
    InputError,
    NotAvailable,
    check_count,
    check_model,
    check_tensor,
    check_text,
    check_texts,
    unknown_name,
)
from solutions.targets import Target, check_target

# ---- text


class Text(NamedTuple):
    """One text and what kind of text it is (for the embedded world: its domain)."""

    text: str
    kind: str


def load_texts(target: Target, n: int, split: str = "test", kinds: Sequence[str] | None = None) -> list[Text]:
    """The first `n` texts of the target's text.

    Args:
        target: what is being studied.
        n: how many texts.
        split: "train", "probe" or "test"; the embedded text of one split never depends on the others.
        kinds: only these kinds. Only the embedded text has kinds, so asking for them reads it whatever the
            target.

    Returns:
        `n` texts, the same ones every time.

    Raises:
        InputError: for an unknown split or kind.

    A text that lives on the hub and cannot be reached is replaced by the embedded one, with a warning that
    says so.
    """
    check_target(target)
    check_count(n, "n")
    if split not in ("train", "probe", "test"):
        raise unknown_name("split", split, ("train", "probe", "test"))
    if target.text == "smallworld" or kinds is not None:
        return _smallworld_texts(n, split, kinds)
    try:
        return _hub_texts(target.text, n)
    except NotAvailable as error:
        print(f"{error} Reading the embedded text instead.")
        return _smallworld_texts(n, split, None)


def _smallworld_texts(n: int, split: str, kinds: Sequence[str] | None) -> list[Text]:
    from solutions.smallworld import corpus

    kinds = [kinds] if isinstance(kinds, str) else kinds
    for kind in kinds or ():
        if kind not in corpus.DOMAINS:
            raise unknown_name("kind of text", kind, corpus.DOMAINS)
    documents = corpus.documents(seed=corpus.SEEDS[split], n=n, domains=kinds)
    return [Text(document.text, document.domain) for document in documents]


def _hub_texts(name: str, n: int) -> list[Text]:
    """Texts of a Hugging Face dataset with a "text" column, read as a stream."""
    from solutions.hub import require_connection

    require_connection(f"the text {name!r}")
    from datasets import load_dataset

    try:
        rows: Iterable[Mapping[str, str]] = load_dataset(name, split="train", streaming=True)
        texts = (row["text"].strip() for row in rows)
        found = [Text(text, name) for text in islice(filter(None, texts), n)]
    except Exception as error:  # datasets raises a dozen kinds; the reader needs one
        raise NotAvailable(f"could not read the text {name!r} ({type(error).__name__}: {error}).") from error
    return found


# ---- tokens


@dataclass(frozen=True)
class Tokens:
    """A batch of tokenised texts.

    Attributes:
        ids: [batch, pos] int64 token ids, padded on the right.
        mask: [batch, pos] bool, True where the token is real (BOS included), False on padding.
        bos: [batch, pos] bool, True on the beginning-of-sequence token we put in front.
        n_cut: how many tokens fell off the ends of texts longer than the context.
    """

    ids: Tensor
    mask: Tensor
    bos: Tensor
    n_cut: int = 0

    def __post_init__(self) -> None:
        check_tensor(self.ids, "ids", shape="batch pos", floating=False)
        for name in ("mask", "bos"):
            value = getattr(self, name)
            if not isinstance(value, Tensor) or value.dtype != torch.bool or value.shape != self.ids.shape:
                found = (
                    f"{value.dtype} {list(value.shape)}"
                    if isinstance(value, Tensor)
                    else type(value).__name__
                )
                raise InputError(f"{name} must be torch.bool of shape {list(self.ids.shape)}, got {found}.")

    @property
    def content(self) -> Tensor:
        """[batch, pos] bool: real tokens without BOS. Statistics are taken over these."""
        return self.mask & ~self.bos

    @property
    def n_content(self) -> int:
        """Number of real tokens, BOS left out."""
        return int(self.content.sum())

    def __len__(self) -> int:
        return self.ids.shape[0]

    def __getitem__(self, rows: slice) -> Tokens:
        """Some of the rows, as another batch."""
        if not isinstance(rows, slice):
            raise InputError("slice a batch of tokens with a range of rows, e.g. tokens[0:4].")
        return Tokens(self.ids[rows], self.mask[rows], self.bos[rows])

    def to(self, device: torch.device | str) -> Tokens:
        """The same batch on another device."""
        return Tokens(self.ids.to(device), self.mask.to(device), self.bos.to(device), self.n_cut)


def check_acts(acts: Tensor, tokens: Tokens, name: str = "acts") -> Tensor:
    """Return `acts` if there is one vector for every position of `tokens`."""
    if not isinstance(tokens, Tokens):
        raise InputError(f"tokens must be Tokens from `tokenize`, got {type(tokens).__name__}.")
    check_tensor(acts, name, shape="batch pos d")
    if acts.shape[:2] != tokens.ids.shape:
        raise InputError(
            f"{name} has shape {list(acts.shape)}; its first two axes must be those of the tokens, "
            f"{list(tokens.ids.shape)}."
        )
    return acts


def tokenize(
    model: Any,
    texts: str | Sequence[str] | Sequence[Text],
    context_size: int | None = None,
    prepend_bos: bool = True,
) -> Tokens:
    """Turn texts into a padded batch of token ids.

    BOS is added here, by hand: the model's own tokenizer adds one too, and two would be one too many.

    Args:
        model: a loaded model (its tokenizer and context length are used).
        texts: one text or several, none of them empty.
        context_size: longest row, BOS included; by default the target's, at most the model's. Longer texts
            are cut.
        prepend_bos: whether every row begins with BOS.

    Returns:
        Tokens, [batch, pos] with pos the longest row, on the model's device.
    """
    check_model(model)
    texts = check_texts(texts)
    limit = min(
        int(model.cfg.n_ctx), getattr(getattr(model, "target", None), "context_size", model.cfg.n_ctx)
    )
    context_size = limit if context_size is None else check_count(context_size, "context_size")
    if context_size > model.cfg.n_ctx:
        raise InputError(
            f"context_size is {context_size}, but the model reads at most {model.cfg.n_ctx} tokens."
        )
    tokenizer = model.tokenizer
    start = [tokenizer.bos_token_id] if prepend_bos else []
    rows = [start + row for row in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    n_cut = sum(max(0, len(row) - context_size) for row in rows)
    rows = [row[:context_size] for row in rows]
    width = max(map(len, rows))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.bos_token_id
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(width)[None, :] < lengths[:, None]
    bos = torch.zeros_like(mask)
    bos[:, 0] = prepend_bos
    return Tokens(ids, mask, bos, n_cut).to(model.cfg.device)


def str_tokens(model: Any, text: str | Tensor, prepend_bos: bool = True) -> list[str]:
    """The tokens of a text as strings, in the order `tokenize` gives them, BOS first.

    Args:
        model: a loaded model.
        text: a text, or a row of token ids [pos].
        prepend_bos: whether the list begins with BOS (ignored for a row of ids).
    """
    check_model(model)
    if isinstance(text, Tensor):
        ids = check_tensor(text, "ids", shape="pos", floating=False)
    else:
        tokens = tokenize(model, check_text(text), prepend_bos=prepend_bos)
        ids = tokens.ids[0]
    return [model.tokenizer.decode([i], clean_up_tokenization_spaces=False) for i in ids.tolist()]


# ---- activations on disk


class SavedActivations(NamedTuple):
    """What `load_activations` gives back."""

    acts: dict[str, Tensor]
    tokens: Tokens
    manifest: dict[str, Any]


class DamagedFile(CourseError, OSError):
    """A file on disk is not the one that was written."""


def save_activations(
    path: str | os.PathLike[str], acts: Mapping[str, Tensor], tokens: Tokens, target: Target
) -> Path:
    """Write activations, the tokens they belong to and where they come from.

    The folder appears whole or not at all: it is written beside its place and then renamed.

    Args:
        path: the folder to make; an older one of the same name is replaced.
        acts: hook name to [batch, pos, d] activations, as `extract` gives them.
        tokens: the tokens they were taken from.
        target: the target they were taken on.

    Returns:
        The folder, which holds `activations.safetensors` and `manifest.json` (hooks, shapes, dtypes,
        checksum).
    """
    from safetensors.torch import save_file

    check_target(target)
    if not isinstance(tokens, Tokens):
        raise InputError(f"tokens must be Tokens from `tokenize`, got {type(tokens).__name__}.")
    if not isinstance(acts, Mapping) or not acts:
        raise InputError(
            "acts must map at least one hook name to its activations, as `extract` returns them."
        )
    for hook, x in acts.items():
        if len(check_tensor(x, f"acts[{hook!r}]")) != len(tokens):
            raise InputError(f"acts[{hook!r}] has {len(x)} rows, the tokens have {len(tokens)}.")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    tensors = {f"acts.{hook}": x for hook, x in acts.items()}
    tensors |= {f"tokens.{name}": getattr(tokens, name) for name in ("ids", "mask", "bos")}
    data = new / "activations.safetensors"
    save_file({name: x.detach().cpu().contiguous() for name, x in tensors.items()}, data)
    manifest = {
        "format": 1,
        "target": target.name,
        "model": target.model,
        "processing": dict(target.processing),
        "hooks": {hook: {"shape": list(x.shape), "dtype": str(x.dtype)} for hook, x in acts.items()},
        "n_tokens": int(tokens.mask.sum()),
        "files": {data.name: {"bytes": data.stat().st_size, "sha256": sha256(data)}},
    }
    (new / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    if path.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{path.name}-old-", dir=path.parent))
        os.replace(path, old / "was")
        os.replace(new, path)
        shutil.rmtree(old)
    else:
        os.replace(new, path)
    return path


def load_activations(path: str | os.PathLike[str]) -> SavedActivations:
    """Read back what `save_activations` wrote, after checking that every file is still the one it wrote.

    Raises:
        InputError: there is no such folder.
        DamagedFile: a file is missing, cut short or altered; the message names it and both checksums.
    """
    from safetensors.torch import load_file

    path = Path(path)
    if not (path / "manifest.json").is_file():
        raise InputError(f"no saved activations in {path}: it has no manifest.json.")
    manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    for name, expected in manifest["files"].items():
        found = sha256(path / name) if (path / name).is_file() else "no file"
        if found != expected["sha256"]:
            raise DamagedFile(
                f"{name} in {path} is damaged: expected sha256 {expected['sha256'][:16]}…, "
                f"found {found[:16]}…. Save the activations again."
            )
    tensors = load_file(path / "activations.safetensors")
    tokens = Tokens(*(tensors.pop(f"tokens.{name}") for name in ("ids", "mask", "bos")))
    return SavedActivations({name.removeprefix("acts."): x for name, x in tensors.items()}, tokens, manifest)


def sha256(path: Path) -> str:
    """The checksum of a file, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
