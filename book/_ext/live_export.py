"""What the live page needs of a model and its SAE, written as scripts that a browser loads when it is asked to.

The page must also work when it is opened straight from the disk, and there a browser lets a page read scripts but no
other files. So the weights are half-precision numbers (fp16), base64 in a few scripts; the tokenizer and what is
known about the latents is one script more. `manifest.js` is small and says what there is.

    python book/_ext/live_export.py FOLDER
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import unicodedata
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

PART = 384 * 1024  # bytes of weights in one script: small enough that the progress bar moves
ACTIVATIONS = ("gelu_new", "gelu_pytorch_tanh")  # two names of one function
#: What one character can be to the pre-tokenizer. White space is not listed: browsers agree on it.
LETTER, NUMBER, SIGN = "L", "N", "S"
#: Planes of Unicode with letters or numbers in them; the others are empty, or hold marks and private characters.
PLANES = range(0x40000)


class CannotRun(Exception):
    """The page's engine does not compute this model or SAE."""


# ------------------------------------------------------------------------------------------- weights


def read_config(config: Mapping[str, Any], sae: Mapping[str, Any], hook: str) -> dict[str, Any]:
    """Sizes and places, in the page's words, of a model's config.json and an SAE's cfg.json.

    Raises:
        CannotRun: the engine in `book/_static/live` knows GPT-2's architecture and TopK SAEs on a residual stream.
    """
    parts = hook.split(".")
    wanted = {
        "model_type": (config.get("model_type"), ("gpt2",)),
        "activation_function": (config.get("activation_function"), ACTIVATIONS),
        "tie_word_embeddings": (config.get("tie_word_embeddings", True), (True,)),
        "scale_attn_weights": (config.get("scale_attn_weights", True), (True,)),
        "scale_attn_by_inverse_layer_idx": (config.get("scale_attn_by_inverse_layer_idx", False), (False,)),
        "the SAE's architecture": (sae.get("architecture"), ("topk",)),
        "normalize_activations": (sae.get("normalize_activations", "none"), ("none",)),
        "rescale_acts_by_decoder_norm": (sae.get("rescale_acts_by_decoder_norm", False), (False,)),
        "the hook point's kind": (parts[-1], ("hook_resid_pre",)),
    }
    for name in ("n_embd", "vocab_size", "n_inner"):  # the engine's products go four columns at a time
        wanted[f"{name} modulo 4"] = ((config[name] or 0) % 4, (0,))
    wanted["d_sae modulo 4"] = (sae["d_sae"] % 4, (0,))
    for name, (found, known) in wanted.items():
        if found not in known:
            raise CannotRun(f"{name}: the live page computes {' or '.join(map(str, known))}, got {found!r}.")
    return {
        "width": config["n_embd"], "layers": config["n_layer"], "heads": config["n_head"],
        "context": config["n_positions"], "vocabulary": config["vocab_size"],
        "inner": config["n_inner"] or 4 * config["n_embd"], "epsilon": config["layer_norm_epsilon"],
        "bos": config["bos_token_id"], "hook": hook, "hookLayer": int(parts[1]),
        "latents": sae["d_sae"], "k": sae["k"], "centred": bool(sae.get("apply_b_dec_to_input", True)),
    }


def half(name: str, numbers: np.ndarray) -> np.ndarray:
    """The numbers in half precision, little-endian.

    Raises:
        CannotRun: one of them is too large for it, or is no number.
    """
    with np.errstate(over="ignore"):
        small = numbers.astype("<f2")
    if not np.isfinite(small).all():
        raise CannotRun(f"{name} holds numbers that half precision cannot: above 65504, infinite, or NaN.")
    return small


def pack(tensors: Mapping[str, np.ndarray]) -> tuple[bytes, list[list[Any]]]:
    """All tensors in one piece of bytes, and [name, shape, where it begins (counted in numbers)] for each."""
    pieces, places, offset = [], [], 0
    for name in sorted(tensors):
        small = half(name, tensors[name])
        pieces.append(small.tobytes())
        places.append([name, list(small.shape), offset])
        offset += small.size
    return b"".join(pieces), places


def weights_of(model_folder: Path, sae_folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of the model, by its Hugging Face name without "transformer.", and of the SAE, "sae.…"."""
    from safetensors.numpy import load_file

    model = load_file(model_folder / "model.safetensors")
    sae = load_file(sae_folder / "sae_weights.safetensors")
    return {
        **{name.removeprefix("transformer."): array for name, array in model.items()},
        **{f"sae.{name}": array for name, array in sae.items()},
    }


# ----------------------------------------------------------------------------------------- tokenizer


def character_classes(backend: Any) -> dict[str, list[list[int]]]:
    """{"L": ranges of code points the pre-tokenizer takes for letters, "N": for numbers}, ends included.

    Which characters are letters depends on the version of Unicode, and every browser has its own. So the page does
    not ask the browser: it gets what our tokenizer does. Characters of one kind stay together: a letter stays with an
    "a", a number with a "1", a sign with a "!". Runs that this Python takes for one kind are tried as a whole, and
    halved where the tokenizer sees it differently.
    """
    def alike(start: str, codes: range) -> bool:
        text = start + "".join(map(chr, codes))
        return len(backend.pre_tokenizer.pre_tokenize_str(text)) == 1

    def kinds(codes: range) -> Iterator[tuple[str, range]]:
        for kind, start in ((LETTER, "a"), (NUMBER, "1"), (SIGN, "!")):
            if alike(start, codes):
                yield kind, codes
                return
        if len(codes) > 1:  # a single one that stays with nothing is white space
            half = len(codes) // 2
            yield from kinds(codes[:half])
            yield from kinds(codes[half:])

    found: dict[str, list[int]] = {LETTER: [], NUMBER: [], SIGN: []}
    for category, run in groupby(PLANES, lambda code: unicodedata.category(chr(code))):
        codes = list(run)
        if category != "Cs":  # halves of characters are none
            for kind, part in kinds(range(codes[0], codes[-1] + 1)):
                found[kind] += part
    return {kind: ranges(np.array(found[kind])) for kind in (LETTER, NUMBER)}


def ranges(codes: np.ndarray) -> list[list[int]]:
    """[first, last] of every run of consecutive numbers in an ascending list."""
    if len(codes) == 0:
        return []
    breaks = np.flatnonzero(np.diff(codes) != 1)
    firsts, lasts = np.append(0, breaks + 1), np.append(breaks, len(codes) - 1)
    return np.stack([codes[firsts], codes[lasts]], axis=1).tolist()


def tokenizer_of(model_folder: Path) -> dict[str, Any]:
    """The tokenizer in the page's words: tokens by id, merges in order, special tokens, and kinds of characters.

    Raises:
        CannotRun: it is not byte-level BPE as GPT-2's.
    """
    from tokenizers import Tokenizer

    path = model_folder / "tokenizer.json"
    saved = json.loads(path.read_text(encoding="utf-8"))
    model, before = saved["model"], saved["pre_tokenizer"]
    as_gpt2 = before["type"] == "ByteLevel" and before["use_regex"] and not before["add_prefix_space"]
    if model["type"] != "BPE" or not as_gpt2 or saved["normalizer"] or model["ignore_merges"]:
        raise CannotRun("the live page splits text as GPT-2 does (byte-level BPE), and this tokenizer does not.")
    tokens: list[str] = [""] * len(model["vocab"])
    for token, number in model["vocab"].items():
        tokens[number] = token
    return {
        "tokens": tokens,
        "merges": [" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"]],
        "special": {added["content"]: added["id"] for added in saved["added_tokens"]},
        "classes": character_classes(Tokenizer.from_file(str(path))),
    }


# -------------------------------------------------------------------------------------------- writing


def export(folder: Path, *, n_texts: int = 1000, n_candidates: int = 32) -> dict[str, Any]:
    """Write everything the page loads, except its program, into `folder`; returns the manifest.

    Args:
        folder: an existing folder.
        n_texts: texts of the embedded world that names, maxima and densities are measured on.
        n_candidates: latents that are steered with, to find those worth offering.
    """
    from live_latents import describe_latents

    from solutions import hub
    from solutions.targets import get_target
    from solutions.visualization.page_style import STYLE

    target = get_target("smallworld")  # it is the one that is small enough to be downloaded with a page
    model_folder = hub.embedded(target.model)
    sae_folder = hub.embedded(f"saes/{target.sae_release}/{target.sae_id}")
    config = read_config(
        json.loads((model_folder / "config.json").read_text(encoding="utf-8")),
        json.loads((sae_folder / "cfg.json").read_text(encoding="utf-8")), target.hook,
    )
    packed, places = pack(weights_of(model_folder, sae_folder))
    words = {**tokenizer_of(model_folder), **describe_latents(target, n_texts, n_candidates)}
    parts = [
        write_part(folder, number, base64.b64encode(packed[start : start + PART]).decode())
        for number, start in enumerate(range(0, len(packed), PART))
    ]
    parts.append(write_part(folder, "words", words))
    manifest = {
        **config, "name": target.name, "tensors": places, "weightBytes": len(packed), "parts": parts,
        "bytes": sum(part["bytes"] for part in parts),
    }
    (folder / "manifest.js").write_text(f"live.manifest = {dense(manifest)};\n", encoding="utf-8")
    style = STYLE.removeprefix("<style>").removesuffix("</style>")
    (folder / "shades.css").write_text(style + "\n", encoding="utf-8")
    return manifest


def write_part(folder: Path, name: str | int, content: Any) -> dict[str, Any]:
    """One script that hands `content` to the page; its file's name changes with what is in it."""
    text = f"live.receive({dense(name)}, {dense(content)});\n".encode()
    file = f"part-{name}-{hashlib.sha256(text).hexdigest()[:10]}.js"
    (folder / file).write_bytes(text)
    return {"name": name, "file": file, "bytes": len(text)}


def dense(value: Any) -> str:
    """JSON without spaces; a NaN would be an error in the browser, so it is one here."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    destination = Path(sys.argv[1])
    destination.mkdir(parents=True, exist_ok=True)
    made = export(destination)
    print(f"{made['bytes'] / 1e6:.1f} MB in {len(made['parts'])} parts")
