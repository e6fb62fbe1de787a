"""Does this SAE belong on these activations?

An SAE put on the wrong activations does not complain: it encodes them, and the numbers look like numbers. `preflight`
compares what the SAE was trained on with what it is about to be given, then measures L0 and explained variance on real
tokens. A mismatch is an error with a code of its own; a deliberate one is named in `allow`, and the report says so.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from solutions.data import Tokens, load_texts, tokenize
from solutions.errors import InputError, PreflightError, check_model, check_tensor, unknown_name
from solutions.models import as_tokens, check_hooks, extract, hook_points, processing_of
from solutions.sae.measure import check_sae, decode, encode
from solutions.sae.metrics import explained_variance, l0
from solutions.targets import PROCESSING_STEPS, Target, check_target

if TYPE_CHECKING:
    from sae_lens import SAE
    from transformer_lens.model_bridge import TransformerBridge

#: What a mismatch can be about. The first two cannot be allowed: nothing could be computed.
CODES = (
    "width",
    "device",
    "model",
    "hook",
    "processing",
    "bos",
    "context",
    "token_averaged",
    "l0",
    "explained_variance",
)

#: Explained variance below this is poor: every published SAE of a residual stream does better.
LEAST_EXPLAINED_VARIANCE = 0.5

#: Averaging over tokens flattens the differences between rows. Rows that vary less than this share of what single
#: tokens vary are taken for averages.
LEAST_VARIANCE_OF_TOKENS = 0.45


@dataclass(frozen=True)
class Check:
    """One comparison: what the SAE expects, what was found, whether they agree, and what to do when they do not."""

    code: str
    expected: str
    found: str
    ok: bool
    advice: str = ""


@dataclass
class PreflightReport:
    """What preflight found.

    Attributes:
        target: the target's name.
        hook: the hook point the activations came from.
        l0: mean number of active latents per token (nan when it was not measured).
        explained_variance: share of the activations' variance the SAE reconstructs (0: no better than the mean).
        n_tokens: real tokens measured on.
        n_left_out: positions left out, BOS and padding.
        checks: a table with one row per check: check, expected, found, result.
    """

    target: str
    hook: str
    l0: float = float("nan")
    explained_variance: float = float("nan")
    n_tokens: int = 0
    n_left_out: int = 0
    checks: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["check", *CHECK_COLUMNS]))

    @property
    def ok(self) -> bool:
        """True when every check agreed, without anything having to be allowed."""
        return bool((self.checks["result"] == "ok").all())

    def _summary(self) -> str:
        stopped = (self.checks["result"] == MISMATCH).any()
        verdict = "stopped at a mismatch" if stopped else "with a deliberate mismatch"
        verdict = "all checks agree" if self.ok else verdict
        return (
            f"Preflight of {self.target} at {self.hook}: {verdict}. "
            f"L0 {self.l0:.1f}, explained variance {self.explained_variance:.3f} "
            f"on {self.n_tokens:,} tokens ({self.n_left_out:,} BOS and padding positions left out)."
        )

    def __repr__(self) -> str:
        return f"{self._summary()}\n{self.checks.to_string(index=False)}"

    def _repr_html_(self) -> str:
        from html import escape

        return f"<p>{escape(self._summary())}</p>{self.checks.to_html(index=False, border=0)}"


CHECK_COLUMNS = ("expected", "found", "result")
MISMATCH = "MISMATCH"


def preflight(
    model: TransformerBridge,
    sae: SAE,
    target: Target,
    hook: str | None = None,
    acts: Tensor | None = None,
    allow: Collection[str] = (),
    tokens: Tokens | None = None,
    n_texts: int = 16,
) -> PreflightReport:
    """Compare an SAE with the activations it is about to be given, then measure how well it reconstructs them.

    Args:
        model: the model the activations come from.
        sae: the SAE.
        target: what is being studied.
        hook: where the activations come from; by default the target's hook point.
        acts: the activations themselves, [batch, pos, d_in] or [n_tokens, d_in]. Without them, preflight extracts its
            own from the target's text. Padded rows need their `tokens`, or the padding is measured, too.
        allow: the codes of mismatches that are meant (see `CODES`; "width" and "device" cannot be).
        tokens: the tokens `acts` were taken from, if at hand: then the comparison is exact.
        n_texts: how many of the target's texts to measure on.

    Returns:
        The report, which shows as a table.

    Raises:
        PreflightError: for the first mismatch that is not allowed; `.code` says which, `.report` holds all checks.
        InputError: `acts` is no tensor of numbers, or `hook` or `allow` names something that does not exist.

    Example:
        >>> preflight(model, sae, target).ok
        True
        >>> preflight(model, sae, target, hook=target.wrong_hook)
        Traceback (most recent call last):
            ...
        solutions.errors.PreflightError: [hook] expected activations of blocks.2.hook_resid_pre, ...
    """
    check_model(model), check_sae(sae), check_target(target)
    allow = _check_allow(allow)
    hook = check_hooks(model, hook or target.hook)[0]
    report = PreflightReport(target.name, hook)
    trained_on = dict(sae.cfg.metadata.to_dict())

    own = _own_tokens(model, target, n_texts)
    reference = extract(model, own, hook)[hook]
    flight = _Flight(report, allow)
    flight.add(_width(sae, hook, reference if acts is None else acts), _device(sae, model, acts))
    flight.add(
        _model(trained_on, model), _hook(trained_on, target, hook), _processing(trained_on, target, model)
    )

    if acts is None:
        flight.add(_bos(trained_on, target, own), _context(trained_on, target, own))
        measured, left_out = reference[own.content], int((~own.content).sum())
    else:
        check_tensor(acts, "acts", last=sae.cfg.d_in)
        flight.add(*_given(model, target, trained_on, acts, hook, tokens, reference[own.content]))
        measured, left_out = _without_bos(model, acts, hook, tokens)
    _measure(flight, sae, measured)
    report.n_tokens, report.n_left_out = len(measured), left_out
    return report


class _Flight:
    """Collects checks into the report and raises at the first mismatch that nobody allowed."""

    def __init__(self, report: PreflightReport, allow: set[str]):
        self.report, self.allow, self.mismatched = report, allow, False

    def add(self, *checks: Check, measured: bool = False) -> None:
        for check in checks:
            follows = measured and self.mismatched  # a bad number is what an allowed mismatch does
            forgiven = check.code in self.allow or follows
            result = "ok" if check.ok else "allowed" if check.code in self.allow else "follows from the above"
            row = (check.code, check.expected, check.found, result if check.ok or forgiven else MISMATCH)
            self.report.checks.loc[len(self.report.checks)] = row
            self.mismatched |= not check.ok
            if not check.ok and not forgiven:
                meant = "" if check.code in CODES[:2] else f" If you mean it: allow={{{check.code!r}}}."
                raise PreflightError(
                    check.code,
                    f"[{check.code}] expected {check.expected}, found {check.found}. {check.advice}{meant}",
                    self.report,
                )


def _check_allow(allow: Collection[str]) -> set[str]:
    allow = {allow} if isinstance(allow, str) else set(allow)
    for code in sorted(allow):
        if code not in CODES[2:]:
            raise unknown_name("mismatch to allow", code, CODES[2:])
    return allow


def _own_tokens(model: TransformerBridge, target: Target, n_texts: int) -> Tokens:
    texts = load_texts(target, n_texts, split="probe")
    size = min(target.context_size, model.cfg.n_ctx)
    return tokenize(model, texts, context_size=size, prepend_bos=target.prepend_bos)


# ---- what was declared


def _width(sae: SAE, hook: str, acts: Tensor) -> Check:
    if not isinstance(acts, Tensor) or acts.ndim == 0:
        raise InputError(
            f"acts must be a tensor [batch, pos, d_in] or [n_tokens, d_in], got {type(acts).__name__}."
        )
    width = acts.shape[-1]
    return Check(
        "width",
        f"activations of width {sae.cfg.d_in} (the SAE's d_in)",
        f"width {width} at {hook}",
        width == sae.cfg.d_in,
        "This SAE was trained on another model or another place: load the SAE that belongs to this target.",
    )


def _device(sae: SAE, model: TransformerBridge, acts: Tensor | None) -> Check:
    expected = next(sae.parameters()).device
    found = torch.device(model.cfg.device) if acts is None else acts.device
    return Check(
        "device",
        f"the SAE's device, {expected}",
        f"activations on {found}",
        expected.type == found.type,
        "Load both with the same device=….",
    )


def _model(trained_on: dict[str, Any], model: TransformerBridge) -> Check:
    expected, found = trained_on.get("model_name"), model.cfg.model_name
    return Check(
        "model",
        f"the model {expected}" if expected else "not recorded in the SAE",
        str(found),
        not expected or _plain_name(expected) == _plain_name(found),
        "An SAE reads one model's activations only: load the SAE and the model of one target.",
    )


def _plain_name(name: str) -> str:
    """gpt2-small, openai-community/gpt2 and a folder called gpt2 are one model."""
    name = Path(name).name.lower()
    return {"gpt2-small": "gpt2"}.get(name, name)


def _hook(trained_on: dict[str, Any], target: Target, hook: str) -> Check:
    expected = trained_on.get("hook_name") or target.hook
    return Check(
        "hook",
        f"activations of {expected}, which the SAE was trained on",
        hook,
        hook == expected,
        f"Extract {expected!r} instead.",
    )


def _processing(trained_on: dict[str, Any], target: Target, model: TransformerBridge) -> Check:
    recorded = trained_on.get("model_from_pretrained_kwargs")
    wanted = target.processing if recorded is None else recorded
    expected = [step for step in PROCESSING_STEPS if wanted.get(step)]
    found = processing_of(model)
    return Check(
        "processing",
        "weights with " + (", ".join(expected) or "no processing"),
        "not recorded: the model was not loaded by load_model"
        if found is None
        else ", ".join(found) or "none",
        found is not None and set(found) == set(expected),
        "Load the model with load_model(target), which processes it the way the target's SAE expects.",
    )


def _bos(trained_on: dict[str, Any], target: Target, tokens: Tokens) -> Check:
    wanted = trained_on.get("prepend_bos")
    wanted = target.prepend_bos if wanted is None else bool(wanted)
    found = bool(tokens.bos[:, 0].all())
    return _bos_check(wanted, found)


def _bos_check(wanted: bool, found: bool) -> Check:
    words = {True: "texts that begin with BOS", False: "texts without BOS"}
    return Check("bos", words[wanted], words[found], wanted == found, f"Tokenise with prepend_bos={wanted}.")


def _context(trained_on: dict[str, Any], target: Target, tokens: Tokens) -> Check:
    size = trained_on.get("context_size") or target.context_size
    found = tokens.ids.shape[1]
    return Check(
        "context",
        f"rows of at most {size} tokens, as in the SAE's training",
        f"rows of {found}",
        found <= size,
        f"Tokenise with context_size={size}.",
    )


# ---- what the activations themselves give away


def _given(
    model: TransformerBridge,
    target: Target,
    trained_on: dict[str, Any],
    acts: Tensor,
    hook: str,
    tokens: Tokens | None,
    reference: Tensor,
) -> list[Check]:
    """Checks on activations somebody else extracted: averaged? BOS in front? from the place they are said to be?

    Args:
        reference: [n, d_in] activations of single tokens at `hook`, to compare with.
    """
    checks = [_averaged(acts, tokens, reference)]
    wanted = trained_on.get("prepend_bos", target.prepend_bos)
    if tokens is not None:
        checks += [_bos(trained_on, target, tokens), _context(trained_on, target, tokens)]
    elif acts.ndim == 3 and checks[0].ok and wanted:
        checks.append(_start(model, acts[:, 0], hook))
    return checks


def _start(model: TransformerBridge, first: Tensor, hook: str) -> Check:
    """What the first position says. It has read nothing but itself, so on BOS it is the same vector in every text.

    Args:
        first: [batch, d_in] the activations at position 0.
    """
    if _hooks_with_this_start(model, first, [hook]):
        return _bos_check(True, True)
    candidates = [
        name for name in hook_points(model)["name"] if name.endswith(("_pre", "_mid", "_post", "_out"))
    ]
    if places := _hooks_with_this_start(model, first, candidates):
        advice = f"Extract {hook!r} instead."
        return Check("hook", f"activations of {hook}", f"activations of {places[0]}", False, advice)
    if len(first) > 1 and torch.allclose(first, first[:1].expand_as(first), 1e-3, 1e-3):
        return Check(
            "processing",
            f"what this model computes at {hook}",
            "texts that all begin alike, but with other numbers: the activations of a differently loaded model",
            False,
            "Extract them from a model loaded with load_model(target).",
        )
    return _bos_check(True, False)


def _hooks_with_this_start(model: TransformerBridge, first: Tensor, hooks: list[str]) -> list[str]:
    """The hook points whose activation on BOS is the vector found in every row of `first` [batch, d]."""
    bos = torch.tensor([[model.tokenizer.bos_token_id]])
    start = Tokens(bos, torch.ones_like(bos, dtype=torch.bool), torch.ones_like(bos, dtype=torch.bool))
    vectors = extract(model, as_tokens(model, start), hooks)
    return [
        name
        for name, x in vectors.items()
        if x.shape[-1] == first.shape[-1]
        and torch.allclose(first, x[0].to(first).expand_as(first), 1e-3, 1e-3)
    ]


def _averaged(acts: Tensor, tokens: Tokens | None, reference: Tensor) -> Check:
    """An SAE reads one token at a time. One vector for a whole text is not an activation the model ever had."""
    found, ok = f"shape {list(acts.shape)}", True
    if acts.ndim == 1:
        found, ok = f"a single vector, shape {list(acts.shape)}, without a token axis", False
    elif tokens is not None:
        rows = acts.shape[:-1].numel()
        ok = rows in (tokens.ids.numel(), int(tokens.mask.sum()), tokens.n_content)
        found = f"{rows:,} vectors for {int(tokens.mask.sum()):,} tokens in {len(tokens)} texts"
    elif acts.ndim == 2 or acts.shape[1] == 1:
        rows = acts.reshape(-1, acts.shape[-1])
        if len(rows) > 1:
            share = (_variance(rows) / _variance(reference)).item()
            ok = share >= LEAST_VARIANCE_OF_TOKENS
            found = f"{len(rows)} vectors that vary {share:.2f} times as much as single tokens"
    return Check(
        "token_averaged",
        "one vector per token",
        found,
        ok,
        "An SAE is a function of one token: encode every token first, then average the features if you must.",
    )


def _variance(x: Tensor) -> Tensor:
    """Mean squared distance from the mean, of the rows of x [n, d]."""
    return (x - x.mean(dim=0)).square().sum(dim=-1).mean()


def _without_bos(
    model: TransformerBridge, acts: Tensor, hook: str, tokens: Tokens | None
) -> tuple[Tensor, int]:
    """(the vectors to measure on [n, d_in], how many positions were left out)."""
    flat = acts.reshape(-1, acts.shape[-1])
    if tokens is not None and acts.shape[:-1] == tokens.ids.shape:
        kept = acts[tokens.content.to(acts.device)]
    elif acts.ndim == 3 and acts.shape[1] > 1 and _hooks_with_this_start(model, acts[:, 0], [hook]):
        kept = acts[:, 1:].reshape(-1, acts.shape[-1])
    else:
        kept = flat
    return kept, len(flat) - len(kept)


# ---- what is measured


def _measure(flight: _Flight, sae: SAE, x: Tensor) -> None:
    """L0 and explained variance on the vectors x [n, d_in]."""
    if len(x) < 2:
        raise InputError("preflight measures explained variance, which needs at least two tokens.")
    features = encode(sae, x)
    report = flight.report
    report.l0 = l0(features).float().mean().item()
    report.explained_variance = ev = explained_variance(x.float(), decode(sae, features))
    worse = "; less than 0 means worse than always predicting the mean" if ev < 0 else ""
    flight.add(
        Check(
            "l0",
            f"more than 0 active latents per token, of {sae.cfg.d_sae:,}",
            f"{report.l0:.1f}",
            report.l0 > 0,
            "Nothing fires: these are not the activations the SAE was trained on.",
        ),
        Check(
            "explained_variance",
            f"explained variance of at least {LEAST_EXPLAINED_VARIANCE}",
            f"{ev:.3f}{worse}",
            ev >= LEAST_EXPLAINED_VARIANCE,
            "The SAE does not reconstruct these activations: check hook point, processing and BOS, "
            "or that this is the right SAE.",
        ),
        measured=True,
    )
