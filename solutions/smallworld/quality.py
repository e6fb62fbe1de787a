"""The measured quality table of the embedded world: what the models know, what the SAEs keep of it.

`evaluate(folder)` measures one language model and, where there are any, its SAEs. The table goes into
`artifacts/MANIFEST.json`; a page of the book is made from it. `probe_table(model, tokenizer)` is the quick part,
cheap enough to steer a training run by.
"""
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from . import train_saes
from .activations import Rows, edited, in_batches, read, to_rows
from .corpus import SEEDS, documents
from .ngrams import KneserNey
from .probes import ask, probe_table

__all__ = ["evaluate", "evaluate_sae", "model_loss", "ngram_losses", "open_model", "probe_table"]

NGRAM_DOCUMENTS = 200_000  # of the training text, for the count models
TEST_DOCUMENTS = 4_000
FACTS = ("landmark_city.seen", "landmark_country.seen", "city_language.seen", "capital.seen")
ORDERS = {"unigram": 1, "bigram": 2, "trigram": 3, "5-gram": 5}


def texts(split: str, n: int, mix: str = "reading") -> list[str]:
    """The first `n` documents of a split ("train", "probe" or "test")."""
    return [document.text for document in documents(SEEDS[split], n, mix=mix)]


@torch.no_grad()
def model_loss(model, rows: Rows) -> float:
    """Mean cross-entropy in nats over all tokens of the documents, the first one (after BOS) included."""
    total, count = 0.0, 0
    for batch in in_batches(rows):
        ids = batch.ids.to(model.device)
        logits = model(ids, use_cache=False).logits[:, :-1].float()
        wanted = torch.where(batch.real[:, 1:].to(model.device), ids[:, 1:], -100)
        total += torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="sum").item()
        count += int(batch.real.sum())
    return total / count


def ngram_losses(train: Sequence[Sequence[int]], test: Sequence[Sequence[int]], vocab: int,
                 bos: int) -> dict[str, float]:
    """Loss in nats per token on the documents `test` of Kneser-Ney count models fitted on those of `train`."""
    return {name: KneserNey(train, order, vocab, bos).loss(test) for name, order in ORDERS.items()}


# ------------------------------------------------------------------ SAEs

def after_bos(rebuild: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """An edit of activations [row, position, d_model] that spares BOS, which comes first and no SAE has seen."""
    return lambda x: torch.cat([x[:, :1], rebuild(x[:, 1:])], dim=1)


@torch.no_grad()
def evaluate_sae(model, tokenizer, sae: train_saes.SparseAutoencoder, hook: str, rows: Rows,
                 loss: float | None = None) -> dict:
    """What an SAE keeps of the model at `hook`.

    `explained_variance` is 1 - (squared error) / (squared error of the mean activation), BOS and padding left out.
    `dead` is the share of latents that fire on no token of `rows`. `delta_loss` (nats per token) is how much the
    model's loss rises when the activation is replaced by its reconstruction; `facts` the share of the facts in
    `FACTS` that it still completes then. `loss`: the model's own loss on `rows`, if it is known already.
    """
    acts = torch.cat([read(model, b.ids, [hook])[hook][b.real.to(model.device)] for b in in_batches(rows)])
    sae, mean = sae.to(model.device), acts.mean(0)
    error = variance = active = 0.0
    fired = torch.zeros(sae.W_dec.shape[0], dtype=torch.bool, device=model.device)
    for x in acts.split(8192):
        f = sae.encode(x)
        error += (x - sae.decode(f)).pow(2).sum().item()
        variance += (x - mean).pow(2).sum().item()
        active += (f > 0).sum().item()
        fired |= (f > 0).any(0)
    clean = model_loss(model, rows) if loss is None else loss
    with edited(model, hook, after_bos(sae)):
        spliced = model_loss(model, rows)
        facts = ask(model, tokenizer, only=FACTS)
    return {
        "explained_variance": 1 - error / variance, "l0": active / len(acts), "d_sae": len(fired),
        "dead": (~fired).double().mean().item(), "n_tokens": len(acts),
        "loss": clean, "loss_spliced": spliced, "delta_loss": spliced - clean,
        "facts": sum(r.share * r.n for r in facts.values()) / sum(r.n for r in facts.values()),
    }


# ------------------------------------------------------------------ the table

def open_model(folder: Path, device: str = "cpu"):
    """(model, tokenizer) of a Hugging Face folder, the weights in float32."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    from .tokenizer import load_tokenizer

    logging.disable_progress_bar()  # a bar for every load would tear the build's own
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device).eval()
    return model, load_tokenizer(folder)


def evaluate(model_folder: Path, sae_root: Path | None = None, n_test: int = TEST_DOCUMENTS,
             n_ngram: int = NGRAM_DOCUMENTS, device: str = "cpu") -> dict:
    """Measures the model in `model_folder`, and every SAE in a folder below `sae_root` if that is given.

    Returns {"loss": {model and count models: nats per token}, "probes": {set: {n, top1, ahead, share}},
    "saes": {sae_id: see `evaluate_sae`}, "n_parameters", "n_test_tokens", "n_ngram_tokens"}.
    """
    model, tokenizer = open_model(model_folder, device)
    rows = to_rows(texts("test", n_test), tokenizer, tokenizer.model_max_length)
    test = [ids[real].tolist() for ids, real in zip(rows.ids, rows.real, strict=True)]
    train = [encoding.ids for encoding in
             tokenizer.backend_tokenizer.encode_batch(texts("train", n_ngram, "school"), add_special_tokens=False)]
    loss = model_loss(model, rows)
    saes = map(train_saes.load, sorted(sae_root.iterdir()) if sae_root else ())
    return {
        "loss": {"model": loss} | ngram_losses(train, test, len(tokenizer), tokenizer.bos_token_id),
        "probes": {name: result._asdict() for name, result in ask(model, tokenizer).items()},
        "saes": {recipe.sae_id: evaluate_sae(model, tokenizer, sae, recipe.hook, rows, loss)
                 for sae, recipe in saes},
        "n_parameters": sum(p.numel() for p in model.parameters()),
        "n_test_tokens": sum(map(len, test)), "n_ngram_tokens": sum(map(len, train)),
    }
