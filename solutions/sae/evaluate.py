"""What a language model loses when it has to live on an SAE's reconstruction.

Reconstruction measures say how far the vectors moved, not whether the model minds. So the model is run again with
its activations at one hook point replaced, in three ways: by the SAE's reconstruction ("spliced"), by zeros, and
by the mean activation. The last two are the yardstick: they hold nothing of the text at all.

Only real tokens are replaced. BOS keeps its own activation in every run: SAEs are not trained on it, and
attention heads use it as a resting place, so that replacing it would measure something else. Padding is never
looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from solutions.data import Text, Tokens
from solutions.errors import InputError, check_count, check_tensor, unknown_name
from solutions.models import as_tokens, check_hooks, extract, run_with_edit
from solutions.sae.measure import check_sae, decode, encode, reconstruct, reconstruction_error
from solutions.sae.metrics import Running, dead_latents, dense_latents

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

Readable = str | Sequence[str] | Sequence[Text] | Tokens

#: What can stand in for the activation of a real token, see `run_spliced`.
WAYS = ("clean", "spliced", "zero", "mean", "error")

#: Those that are compared: the model as it is, on the reconstruction, and on the two yardsticks.
RUNS = WAYS[:4]

#: Tokens that are encoded at once. Latent activations are wide: 1,024 tokens of 24,576 latents are 100 MB.
ENCODED_AT_ONCE = 1024

#: Predictions whose probabilities are held at once: 256 over a vocabulary of 50,257 are 51 MB.
PREDICTED_AT_ONCE = 256


# ---- the splice


@torch.no_grad()
def run_spliced(
    model: TransformerBridge,
    sae: SAE,
    texts: Readable,
    hook: str,
    how: str = "spliced",
    mean: Tensor | None = None,
    ablate_bos: bool = False,
) -> Tensor:
    """Run the model with the activations of all real tokens at `hook` replaced. BOS keeps its own.

    Args:
        model: a loaded model.
        sae: the SAE.
        texts: texts, or tokens.
        hook: where to splice.
        how: what stands in for an activation x: "clean" (x itself), "spliced" (the reconstruction), "zero",
            "mean" (the vector `mean`), or "error" (x minus its reconstruction: what the SAE leaves out).
        mean: [d_in], for "mean" only.
        ablate_bos: with "zero" and "mean", replace BOS, too.

    Returns:
        Logits [batch, pos, vocabulary].

    Raises:
        InputError: an unknown hook point or way, no `mean` where one is needed, or an SAE of another width.

    Example:
        >>> logits = run_spliced(model, sae, text, target.hook)
        >>> logits.shape
        torch.Size([1, 8, 4096])
    """
    check_sae(sae)
    if how not in WAYS:
        raise unknown_name("way to splice", how, WAYS)
    (hook,), tokens = check_hooks(model, hook), as_tokens(model, texts)
    if how == "clean":
        return model(tokens.ids)
    stand_in = _stand_in(sae, how, mean)
    whole = ablate_bos and how in ("zero", "mean")
    replaced = tokens.mask if whole else tokens.content

    def edit(acts: Tensor) -> Tensor:
        acts = acts.clone()
        acts[replaced] = stand_in(acts[replaced]).to(acts.dtype)
        return acts

    return run_with_edit(model, tokens, hook, edit)


def _stand_in(sae: SAE, how: str, mean: Tensor | None) -> Callable[[Tensor], Tensor]:
    """A function from activations [n, d_in] to what replaces them."""
    if how == "zero":
        return torch.zeros_like
    if how == "mean":
        if mean is None:
            raise InputError('how="mean" needs the mean activation: mean=… of shape [d_in].')
        check_tensor(mean, "mean", shape="d_in", last=sae.cfg.d_in)
        return lambda x: mean.to(x).expand_as(x)
    rebuild = reconstruct if how == "spliced" else reconstruction_error
    return lambda x: torch.cat([rebuild(sae, part) for part in x.split(ENCODED_AT_ONCE)]) if len(x) else x


# ---- what it costs in loss


class SpliceLoss(NamedTuple):
    """What replacing the activations at one hook point does to the model's next-token predictions.

    All in nats per prediction, except the two shares."""

    ce_clean: float
    """Cross-entropy of the model as it is; the loss of `solutions.models.loss` on the same tokens."""
    ce_spliced: float
    """Cross-entropy with the SAE's reconstruction in place of the activation."""
    ce_zero: float
    """Cross-entropy with zeros in place of the activation."""
    ce_mean: float
    """Cross-entropy with the mean activation in place of every activation."""
    delta_ce: float
    """ce_spliced - ce_clean; how much the model loses."""
    recovered_zero: float
    """(ce_zero - ce_spliced) / (ce_zero - ce_clean); 1 is a perfect splice, 0 as bad as zeros. nan when zeros do
    not hurt."""
    recovered_mean: float
    """The same with the mean in place of zeros; a smaller denominator, so a stricter number."""
    kl: float
    """KL(clean ‖ spliced); how far the predicted probabilities moved, right answers or not."""
    kl_zero: float
    """KL(clean ‖ zero)."""
    kl_mean: float
    """KL(clean ‖ mean)."""
    n_predictions: int
    """How many next-token predictions were averaged over."""


@torch.no_grad()
def splice_loss(
    model: TransformerBridge,
    sae: SAE,
    tokens: Readable,
    hook: str,
    *,
    mean: Tensor | None = None,
    batch_size: int = 16,
    predict_first: bool = True,
    ablate_bos: bool = False,
    progress: bool = False,
) -> SpliceLoss:
    """Cross-entropy and KL divergence with the activation at `hook` replaced by its reconstruction, zero and mean.

    The defaults agree with `solutions.models.loss`. SAELens (`sae_lens.evals`, 6.54) does otherwise in four
    points: it leaves out the prediction at BOS (``predict_first=False``); its zero ablation wipes out BOS
    (``ablate_bos=True``), which costs the model much more and makes the recovered share look better; it has no
    mean ablation; and its KL counts the last position of a row as well, which predicts nothing.

    Args:
        model: a loaded model.
        sae: the SAE.
        tokens: texts, or tokens from `tokenize`.
        hook: where to splice.
        mean: [d_in] mean activation; by default that of these tokens (BOS left out), which takes one more
            pass. `store.statistics(hook).mean` is the mean of a whole store.
        batch_size: rows at once. Memory grows with it: two sets of logits [batch, pos, vocabulary] are held.
        predict_first: count the prediction of each row's first token. It is made at BOS, which no splice
            touches, so it changes none of the shares and makes delta_ce and kl a little smaller.
        ablate_bos: let the zero and the mean ablation replace BOS, too.
        progress: show a progress bar.

    Returns:
        The losses in nats per token, their differences, and the shares recovered.

    Raises:
        InputError: an unknown hook point, an SAE of another width, or texts without a next token to predict.
    """
    hook, tokens = readable(model, sae, tokens, hook)
    if mean is None:
        mean = mean_activation(model, tokens, hook, batch_size)
    sums = dict.fromkeys(("ce_clean", *(f"{kind}_{how}" for kind in ("ce", "kl") for how in RUNS[1:])), 0.0)
    n = 0
    batches = list(in_batches(tokens, batch_size))
    for _, part in tqdm(batches, "splice", disable=not progress, unit="batch"):
        counted = part.mask[:, 1:] & (part.mask if predict_first else part.content)[:, :-1]
        if not counted.any():
            continue
        n += int(counted.sum())
        wanted = part.ids[:, 1:][counted]
        clean = model(part.ids)[:, :-1][counted]
        sums["ce_clean"] += F.cross_entropy(clean, wanted, reduction="sum").item()
        for how in RUNS[1:]:
            logits = run_spliced(model, sae, part, hook, how, mean, ablate_bos)[:, :-1][counted]
            sums[f"ce_{how}"] += F.cross_entropy(logits, wanted, reduction="sum").item()
            sums[f"kl_{how}"] += _kl(clean, logits)
    if not n:
        raise InputError("no next token to predict: every row has a single token. Give longer texts.")
    means = {name: total / n for name, total in sums.items()}
    clean, spliced, zero, average = (means[f"ce_{how}"] for how in RUNS)
    return SpliceLoss(
        clean, spliced, zero, average, spliced - clean,
        _recovered(clean, spliced, zero), _recovered(clean, spliced, average),
        means["kl_spliced"], means["kl_zero"], means["kl_mean"], n,
    )  # fmt: skip


def _recovered(clean: float, spliced: float, ablated: float) -> float:
    """The share of the loss caused by an ablation that the splice does not cause."""
    return (ablated - spliced) / (ablated - clean) if ablated > clean else math.nan


def _kl(clean: Tensor, other: Tensor) -> float:
    """Sum over predictions of KL(clean ‖ other), in nats; both are logits [n, vocabulary]."""
    total = 0.0
    for p, q in zip(clean.split(PREDICTED_AT_ONCE), other.split(PREDICTED_AT_ONCE), strict=True):
        p, q = p.log_softmax(-1), q.log_softmax(-1)
        total += F.kl_div(q, p, reduction="sum", log_target=True).item()
    return total


def readable(model: TransformerBridge, sae: SAE, texts: Readable, hook: str) -> tuple[str, Tokens]:
    """The hook point and the tokens, checked: there has to be something to measure."""
    check_sae(sae)
    (hook,), tokens = check_hooks(model, hook), as_tokens(model, texts)
    if not tokens.n_content:
        raise InputError("there is nothing but BOS and padding in these tokens. Give a text with a token in it.")
    return hook, tokens


def in_batches(tokens: Tokens, size: int) -> Iterator[tuple[Tensor, Tokens]]:
    """(row numbers, those rows without needless padding), rows of about one length together."""
    lengths = tokens.mask.sum(dim=1)
    for rows in lengths.argsort(stable=True).split(check_count(size, "batch_size")):
        width = int(lengths[rows].max())
        yield rows, Tokens(*(x[rows, :width] for x in (tokens.ids, tokens.mask, tokens.bos)))


@torch.no_grad()
def mean_activation(model: TransformerBridge, tokens: Tokens, hook: str, batch_size: int) -> Tensor:
    """[d] mean over real tokens."""
    total = 0
    for _, part in in_batches(tokens, batch_size):
        total = total + extract(model, part, hook)[hook][part.content].double().sum(dim=0)
    return (total / tokens.n_content).float()


# ---- everything at once


class SAEMetrics(NamedTuple):
    """All measures of one SAE on one set of tokens, BOS and padding left out. `table()` shows it."""

    n_tokens: int
    """Real tokens measured on."""
    d_sae: int
    """Number of latents."""
    l0: float
    """Active latents on a token, mean."""
    l1: float
    """Sum of the latent activations of a token, mean."""
    mse: float
    """Squared length of the reconstruction error of a token, mean."""
    explained_variance: float
    """1 for a perfect reconstruction, 0 for always predicting the mean."""
    fvu: float
    """Fraction of variance unexplained, 1 - explained_variance."""
    cosine: float
    """Cosine between an activation and its reconstruction, mean."""
    dead: float
    """Share of the latents that fire on none of these tokens."""
    dense: float
    """Share of the latents that fire on more than a tenth of these tokens."""
    density: Tensor
    """[d_sae] float64: the share of these tokens each latent fires on."""
    mean: Tensor
    """[d_in] float32: the mean activation that was put in for the mean ablation."""
    splice: SpliceLoss
    """What the model loses."""

    def table(self) -> pd.DataFrame:
        """One row per measure: value and what it means."""
        rows = {name: (value, MEANINGS[name]) for name, value in self.row().items()}
        return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "meaning"]).rename_axis("measure")

    def row(self) -> dict[str, float]:
        """All the numbers by name: one row of a table that compares SAEs."""
        whole = self._asdict() | self.splice._asdict()
        return {name: whole[name] for name in MEANINGS}

    def _repr_html_(self) -> str:
        shown = self.table()
        shown["value"] = [f"{v:,.0f}" if name in COUNTS else f"{v:.4g}" for name, v in shown["value"].items()]
        return shown.to_html(border=0)


COUNTS = ("n_tokens", "d_sae", "n_predictions")

MEANINGS = {
    "n_tokens": "real tokens measured on",
    "d_sae": "latents",
    "l0": "active latents on a token",
    "l1": "sum of the latent activations of a token",
    "mse": "squared reconstruction error of a token",
    "explained_variance": "1 is perfect, 0 is always predicting the mean",
    "fvu": "fraction of variance unexplained",
    "cosine": "cosine of an activation and its reconstruction",
    "dead": "share of latents that never fire here",
    "dense": "share of latents that fire on over a tenth of the tokens",
    "ce_clean": "loss of the model, nats per token",
    "ce_spliced": "loss with the reconstruction in place",
    "ce_zero": "loss with zeros in place",
    "ce_mean": "loss with the mean activation in place",
    "delta_ce": "what the splice costs, nats per token",
    "recovered_zero": "share of the loss recovered, against zeros",
    "recovered_mean": "share of the loss recovered, against the mean",
    "kl": "KL(clean ‖ spliced), nats per token",
    "kl_zero": "KL(clean ‖ zero)",
    "kl_mean": "KL(clean ‖ mean)",
    "n_predictions": "next-token predictions averaged over",
}


@torch.no_grad()
def evaluate_sae(
    model: TransformerBridge,
    sae: SAE,
    tokens: Readable,
    hook: str,
    *,
    mean: Tensor | None = None,
    batch_size: int = 16,
    predict_first: bool = True,
    ablate_bos: bool = False,
    progress: bool = False,
) -> SAEMetrics:
    """Measure an SAE on some text: sparsity, reconstruction, and what the model loses.

    One pass reads the activations, a second runs the model four times over (see `splice_loss`, which explains
    the arguments). Nothing but sums is kept, so memory depends on `batch_size`, not on the amount of text.

    Args:
        model: a loaded model.
        sae: the SAE.
        tokens: texts, or tokens from `tokenize`.
        hook: where the SAE was trained.
        mean: [d_in] mean activation; by default that of these tokens.
        batch_size: rows that go through the model at once.
        predict_first: count the prediction of each row's first token.
        ablate_bos: let the zero and the mean ablation replace BOS, too.
        progress: whether to show a bar.

    Returns:
        All the measures; `.table()` to read, `.row()` to compare SAEs.

    Raises:
        InputError: an unknown hook point, an SAE of another width, or texts without a next token to predict.

    Example:
        >>> measured = evaluate_sae(model, sae, tokenize(model, load_texts(target, 8)), target.hook)
        >>> round(measured.explained_variance, 2), round(measured.splice.delta_ce, 2)
        (0.93, 0.01)
    """
    hook, tokens = readable(model, sae, tokens, hook)
    running = Running()
    for _, part in tqdm(list(in_batches(tokens, batch_size)), "read", disable=not progress, unit="batch"):
        for x in extract(model, part, hook)[hook][part.content].split(ENCODED_AT_ONCE):
            features = encode(sae, x)
            running.add(x.float(), decode(sae, features), features)
    mean = running.mean.float() if mean is None else mean
    density, d_sae = running.density(), int(sae.cfg.d_sae)
    splice = splice_loss(
        model, sae, tokens, hook, mean=mean, batch_size=batch_size, predict_first=predict_first,
        ablate_bos=ablate_bos, progress=progress,
    )  # fmt: skip
    return SAEMetrics(
        n_tokens=running.n,
        d_sae=d_sae,
        **running.means(),
        dead=len(dead_latents(density)) / d_sae,
        dense=len(dense_latents(density)) / d_sae,
        density=density,
        mean=mean,
        splice=splice,
    )
