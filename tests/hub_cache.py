"""Makers of tiny and of real-sized models, SAEs and hub caches, with random weights.

The tests need a model in a tenth of a second, and a GPT-2 at its real shapes without a network. The layouts
are those of the Hugging Face cache: `models--<owner>--<name>/refs/main` holds a revision,
`snapshots/<revision>/` the files.
"""

from __future__ import annotations

import functools
import json
import string
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from solutions.targets import Target

REVISION = "0123456789abcdef0123456789abcdef01234567"


def save_tokenizer(folder: Path, vocabulary: int, bos: str, bos_first: bool) -> None:
    """A byte-level BPE tokenizer made by hand: 256 bytes, merges for pairs of letters, filler up to the size."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters = ["Ġ", *string.ascii_lowercase, *string.ascii_uppercase]
    merges = [(a, b) for a in letters for b in string.ascii_lowercase]
    merges += [(a + b, c) for a, b in merges for c in string.ascii_lowercase]
    merges = merges[: vocabulary - 1 - len(alphabet)]
    words = [*alphabet, *(a + b for a, b in merges)]
    words += [f"<filler {i}>" for i in range(vocabulary - 1 - len(words))]
    words = [bos, *words] if bos_first else [*words, bos]
    tokenizer = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([bos])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {f"{role}_token": bos for role in ("bos", "eos", "unk", "pad")}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 1024, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


# ---- tiny


def make_model(folder: Path, architecture: str = "gpt2", d: int = 16, n_layers: int = 3) -> Path:
    """A random model that loads in a moment, its weights in half precision like the real ones."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = 400
    save_tokenizer(folder, vocabulary, "<|bos|>", bos_first=True)
    torch.manual_seed(0)
    special = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    if architecture == "gpt2":
        shape = {"n_positions": 32, "n_embd": d, "n_layer": n_layers, "n_head": 2}
        model = GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, **shape, **special))
    else:
        shape = {"max_position_embeddings": 32, "hidden_size": d, "num_hidden_layers": n_layers}
        shape |= {"num_attention_heads": 2, "intermediate_size": 2 * d}
        model = LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **shape, **special))
    with torch.no_grad():  # random norms and biases, so that processing the weights changes something
        for p in model.parameters():
            p.mul_(8.0) if p.ndim == 2 else p.add_(0.2 * torch.randn_like(p))
    model.half().save_pretrained(folder)
    return folder


def make_sae(folder: Path, hook: str, d: int = 16, k: int = 8, **changes) -> Path:
    """A TopK SAE that reconstructs well without training: one latent for each direction and its opposite.

    `changes` override entries of its metadata.
    """
    folder.mkdir(parents=True, exist_ok=True)
    directions = torch.cat([torch.eye(d), -torch.eye(d)])
    weights = {
        "W_enc": directions.T,
        "b_enc": torch.zeros(2 * d),
        "W_dec": directions,
        "b_dec": torch.zeros(d),
    }
    save_file(
        {name: w.half().contiguous() for name, w in weights.items()}, folder / "sae_weights.safetensors"
    )
    metadata = {
        "sae_lens_version": "6.54.12",
        "model_name": "tiny",
        "hook_name": hook,
        "prepend_bos": True,
        "context_size": 32,
        **changes,
    }
    config = {
        "architecture": "topk",
        "d_in": d,
        "d_sae": 2 * d,
        "k": k,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "rescale_acts_by_decoder_norm": False,
        "metadata": metadata,
    }
    (folder / "cfg.json").write_text(json.dumps(config))
    return folder


@functools.cache
def tiny_target(architecture: str = "gpt2") -> Target:
    """A target on a tiny random model and SAE, made once for the whole test run."""
    root = Path(tempfile.mkdtemp(prefix="tiny-target-"))
    hook = "blocks.1.hook_resid_pre"
    make_model(root / "tiny", architecture)
    make_sae(root / "saes" / hook, hook)
    return Target(
        name="tiny",
        model=str(root / "tiny"),
        hook=hook,
        sae_release=str(root / "saes"),
        sae_id=hook,
        d_in=16,
        d_sae=32,
        context_size=32,
        wrong_hook="blocks.1.hook_mlp_out",
    )


@functools.cache
def tiny_model(architecture: str = "gpt2"):
    """The model of `tiny_target`, loaded once."""
    from solutions.models import load_model

    return load_model(tiny_target(architecture))


@functools.cache
def tiny_sae():
    """The SAE of `tiny_target`, loaded once."""
    from solutions.sae import load_sae

    return load_sae(tiny_target())


# ---- hub cache


def snapshot(hub: Path, repo: str) -> Path:
    """Make the folder in which a hub cache keeps the files of `repo`."""
    root = hub / ("models--" + repo.replace("/", "--"))
    (root / "refs").mkdir(parents=True, exist_ok=True)
    (root / "refs" / "main").write_text(REVISION)
    files = root / "snapshots" / REVISION
    files.mkdir(parents=True, exist_ok=True)
    return files


def fake_gpt2(hub: Path) -> Path:
    """GPT-2 small in a hub cache: the real shapes and file names, random weights."""
    from transformers import GPT2Config, GPT2LMHeadModel

    files = snapshot(hub, "gpt2")
    torch.manual_seed(0)
    config = GPT2Config()
    with torch.device("meta"):
        shapes = {name: p.shape for name, p in GPT2LMHeadModel(config).named_parameters()}
    # The real file has no copy of the tied embedding, and no "transformer." prefix.
    weights = {name.removeprefix("transformer."): 0.02 * torch.randn(shape) for name, shape in shapes.items()}
    weights |= {name: w + 1 for name, w in weights.items() if "ln_" in name and name.endswith("weight")}
    save_file(weights, files / "model.safetensors", metadata={"format": "pt"})
    (files / "config.json").write_text(
        json.dumps({**config.to_diff_dict(), "architectures": ["GPT2LMHeadModel"]})
    )
    save_tokenizer(files, 50257, "<|endoftext|>", bos_first=False)
    return files


def fake_res_jb(hub: Path, layer: int = 6, d_in: int = 768, d_sae: int = 24576) -> Path:
    """One SAE of gpt2-small-res-jb in a hub cache: real shapes, made-up weights, old-style config."""
    hook = f"blocks.{layer}.hook_resid_pre"
    files = snapshot(hub, "jbloom/GPT2-Small-SAEs-Reformatted") / hook
    return fake_old_sae(files, "gpt2-small", hook, layer, d_in, d_sae)


def fake_old_sae(files: Path, model: str, hook: str, layer: int, d_in: int, d_sae: int) -> Path:
    """A ReLU SAE in the format of SAELens's first releases, with made-up weights that reconstruct well."""
    files.mkdir(exist_ok=True)
    directions, thresholds = axes_and_more(d_in, d_sae, layer)
    weights = {"W_enc": directions.T, "b_enc": -thresholds, "W_dec": directions, "b_dec": torch.zeros(d_in)}
    save_file({name: w.contiguous() for name, w in weights.items()}, files / "sae_weights.safetensors")
    config = {"model_name": model, "hook_point": hook, "hook_point_layer": layer, "d_in": d_in, "d_sae": d_sae}
    config |= {
        "dataset_path": "Skylion007/openwebtext",
        "context_size": 128,
        "dtype": "torch.float32",
        "seed": 42,
    }
    (files / "cfg.json").write_text(json.dumps(config))
    return files


def axes_and_more(d_in: int, d_sae: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Directions [d_sae, d_in], and what a latent has to exceed.

    An axis and its opposite for each dimension: enough to reconstruct well. The others are random, there for their
    shape, and silent.
    """
    directions = torch.randn(d_sae, d_in, generator=torch.Generator().manual_seed(seed))
    directions /= directions.norm(dim=1, keepdim=True)
    pairs = min(d_sae // 2, d_in)
    directions[:pairs], directions[pairs : 2 * pairs] = torch.eye(d_in)[:pairs], -torch.eye(d_in)[:pairs]
    thresholds = torch.full((d_sae,), 10.0)
    thresholds[: 2 * pairs] = 0.1
    return directions, thresholds


def fake_gemma_scope(hub: Path, inside: str, d_in: int = 2304, d_sae: int = 16384) -> Path:
    """One SAE of Gemma Scope in a hub cache: one params.npz with the real names and shapes, made-up weights."""
    files = snapshot(hub, "google/gemma-scope-2b-pt-res") / inside
    files.mkdir(parents=True, exist_ok=True)
    directions, thresholds = axes_and_more(d_in, d_sae, 0)
    np.savez(
        files / "params.npz", w_enc=directions.T.numpy(), w_dec=directions.numpy(), threshold=thresholds.numpy(),
        b_enc=np.zeros(d_sae, np.float32), b_dec=np.zeros(d_in, np.float32),
    )
    return files


def fake_model(files: Path, architecture: str, d: int, n_layers: int) -> Path:
    """A model of another family, of its real width and names, but with few layers, few words and random weights."""
    from transformers import Gemma2Config, Gemma2ForCausalLM, GPTNeoXConfig, GPTNeoXForCausalLM

    vocabulary = 400
    save_tokenizer(files, vocabulary, "<bos>", bos_first=True)
    torch.manual_seed(0)
    shape = {"vocab_size": vocabulary, "hidden_size": d, "num_hidden_layers": n_layers, "intermediate_size": 64}
    shape |= {"num_attention_heads": 8, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    if architecture == "gemma2":
        model = Gemma2ForCausalLM(Gemma2Config(**shape, head_dim=d // 9, num_key_value_heads=4))
    else:
        model = GPTNeoXForCausalLM(GPTNeoXConfig(**shape))
    model.half().save_pretrained(files)
    return files
