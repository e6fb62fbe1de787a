"""Lab 7: right answers that are written differently from the solved lab's."""

import math
import random

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr


def by_the_error(model, sae, hook, ids, edit, positions):
    """The error is computed and put back, token by token."""

    def function(act, hook):
        codes = sae.encode(act)
        error = act - sae.decode(codes)
        rebuilt = sae.decode(edit(codes)) + error
        here = torch.zeros(act.shape[1], dtype=torch.bool)
        here[positions if positions is not None else slice(1, None)] = True
        return torch.where(here[None, :, None], rebuilt, act)

    return model.run_with_hooks(ids, fwd_hooks=[(lambda name: name == hook, function)])


def by_chosen_tokens(model, sae, hook, ids, edit, positions):
    """Only the tokens that are edited go through the SAE at all; the activation is changed in place."""

    def function(act, hook):
        where = positions or [p for p in range(act.size(1)) if p > 0]
        codes = sae.encode(act[:, where])
        was = sae.decode(codes)
        act[:, where] += sae.decode(edit(codes)) - was

    return model.run_with_hooks(ids, fwd_hooks=[(hook, function)])


def by_two_decodings(sae, latent, strength, maxima, n, seed):
    """The push as a difference of two decoded codes; the dice are NumPy's."""
    code = torch.zeros_like(maxima)
    code[latent] = strength * maxima[latent]
    push = sae.decode(code) - sae.decode(torch.zeros_like(code))
    dice = np.random.default_rng(seed)
    rows = [dice.standard_normal(len(push)) for _ in range(n)]
    units = np.stack([row / math.sqrt(float(row @ row)) for row in rows])
    return {"controls": torch.tensor(units, dtype=push.dtype) * push.norm(), "push": push}


def by_cross_entropy(model, hook, ids, vector, wanted, strengths, n_new):
    """Row by row, with the loss of torch.nn.functional."""

    def written(row, strength):
        def push(act, hook):
            act[:, 1:, :] += strength * vector

        text = row[None]
        while text.shape[1] < len(row) + n_new:
            last = model.run_with_hooks(text, fwd_hooks=[(hook, push)])[0, -1]
            text = torch.cat([text, last.topk(1).indices[None]], dim=1)
        return text[0]

    effect, damage = [], []
    for strength in strengths:
        shares, losses = [], []
        for row in ids:
            text = written(row, strength)
            new = text[len(row) :]
            shares.append(sum(token in wanted for token in new.tolist()) / n_new)
            logits = model.run_with_hooks(text[None])[0]
            losses.append(torch.nn.functional.cross_entropy(logits[len(row) - 1 : -1], new))
        effect.append(float(np.mean(shares)))
        damage.append(torch.stack(losses).mean())
    return {"damage": torch.stack(damage), "effect": torch.tensor(effect)}


def by_decoder_rows(sae, x, latents, how, reference, seed):
    """Adds what the change of each latent writes, measured on the decoder; the draw is one of Python's own."""
    z, nothing = sae.encode(x), sae.decode(torch.zeros_like(sae.encode(x[0, 0])))
    batch, pos, _ = x.shape
    if how == "resample":
        draw = random.Random(seed)
        stand_in = torch.stack(
            [
                torch.stack([reference[draw.randrange(len(reference))] for _ in range(pos)])
                for _ in range(batch)
            ]
        )
    else:
        usual = {"zero": 0 * reference[0], "mean": reference.double().mean(0).float()}[how]
        stand_in = usual.repeat(batch, pos, 1)
    stand_in[:, 0] = z[:, 0]
    out = x.clone()
    for j in latents:
        unit = torch.zeros(z.shape[-1])
        unit[j] = 1.0
        out += (stand_in[..., j] - z[..., j])[..., None] * (sae.decode(unit) - nothing)
    return out


def by_a_batch(model, hook, clean, corrupt, answer, foil):
    """All positions at once: a row for each, and one more for each of the two runs as they are."""
    n = clean.shape[1]
    there = {}
    model.run_with_hooks(clean, fwd_hooks=[(hook, lambda value, hook: there.update(acts=value.clone()))])
    mask = torch.cat([torch.eye(n), torch.zeros(1, n), torch.ones(1, n)]).bool()[..., None]
    rows = corrupt.repeat(n + 2, 1)
    logits = model.run_with_hooks(
        rows, fwd_hooks=[(hook, lambda value, hook: torch.where(mask, there["acts"], value))]
    )
    gap = (
        logits[:, -1].log_softmax(-1)
        @ (
            torch.nn.functional.one_hot(torch.tensor(answer), logits.shape[-1])
            - torch.nn.functional.one_hot(torch.tensor(foil), logits.shape[-1])
        ).float()
    )
    return (gap[:n] - gap[n]) / (gap[n + 1] - gap[n])


def by_interpolation(measure, latents, chosen):
    low, high = measure(()), measure(tuple(latents))

    def on_the_way(kept):
        value = measure(sorted(kept))
        return 1 - (high - value) / (high - low)

    return {
        "completeness": on_the_way(set(latents) - set(chosen)),
        "faithfulness": on_the_way(set(chosen)),
    }


def by_recursion(measure, latents, goal, n_random, seed):
    """Goes down set by set; the draws are Python's."""
    low, high = measure([]), measure(latents)
    needed = low + goal * (high - low)

    def shrink(kept):
        scores = {j: measure(kept - {j}) for j in kept}
        j = max(scores, key=scores.get, default=None)
        return shrink(kept - {j}) if j is not None and scores[j] >= needed else kept

    found = shrink(frozenset(latents))
    dice = random.Random(seed)
    return sorted(found), [dice.sample(latents, len(found)) for _ in range(n_random)]


def by_backward(model, ids, hook, encode, decode, metric):
    """The hook takes the activation apart where it stands; `.backward()` fills a gradient."""
    found = {}

    def through(acts, hook):
        acts = acts.detach()
        code = encode(acts)
        code = torch.cat([torch.zeros_like(code[:, :1]), code[:, 1:]], dim=1).detach()
        found["rest"] = (acts - decode(code)).detach()
        found["code"] = code.requires_grad_(True)
        return found["rest"] + decode(found["code"])

    with torch.enable_grad():
        metric(model.run_with_hooks(ids, fwd_hooks=[(hook, through)]))[0].backward()
    return (found["code"].grad * found["code"])[0].detach()


def by_direction(model, ids, hook, encode, decode, metric):
    """The slope along the activations, read through the decoder's rows."""
    with torch.no_grad():
        _, cache = model.run_with_cache(ids, names_filter=[hook])
        acts = cache[hook]
        code = encode(acts)[0]
        rows = decode(torch.eye(code.shape[1])) - decode(torch.zeros(code.shape[1]))
    with torch.enable_grad():
        here = acts.clone().requires_grad_()
        logits = model.run_with_hooks(ids, fwd_hooks=[(hook, lambda a, hook: here)])
        (slope,) = torch.autograd.grad(metric(logits).sum(), here)
    shares = code * (slope[0] @ rows.T)
    shares[0] = 0
    return shares


def by_one_step_at_a_time(run, latents, baseline, steps):
    way, total = latents - baseline, torch.zeros_like(latents)
    for k in range(steps):
        with torch.enable_grad():
            point = (baseline + (2 * k + 1) / (2 * steps) * way).detach().requires_grad_()
            run(point.unsqueeze(0)).squeeze().backward()
        total = total + point.grad
    return total / steps * way


def by_share_of_the_way(run, latents, baseline, steps):
    """One variable for each step's place on the way, weighted by the distance at once."""
    places = torch.linspace(0.5 / steps, 1 - 0.5 / steps, steps)
    points = torch.lerp(baseline.expand(steps, *baseline.shape), latents, places.view(-1, 1, 1))
    slopes = torch.func.grad(lambda p: run(p).sum())(points)
    return torch.einsum("npd,pd->pd", slopes, latents - baseline) / steps


def by_reading_direction(parts, unembed, gain, shift, bias, centred, eps):
    """Everything after the parts put into one direction."""
    total = parts.sum(dim=0).numpy()
    reads = (gain * unembed).numpy()
    if centred:
        reads = reads - reads.mean()
    variance = total.var() if centred else (total**2).mean()
    found = parts.numpy() @ reads / np.sqrt(variance + eps)
    return torch.tensor([*found, float((shift * unembed).sum()) + bias])


def by_layer_norm(parts, unembed, gain, shift, bias, centred, eps):
    """A part's contribution as a derivative: the length is a constant of the graph."""
    x = parts - parts.mean(1, keepdim=True) if centred else parts
    scale = torch.rsqrt(x.sum(0).square().mean() + eps)
    rows = torch.stack([(row * scale * gain) for row in x] + [shift])
    found = rows @ unembed
    found[-1] += bias
    return found


def by_pandas(effects, guess, large, seed):
    table = pd.DataFrame({"true": effects.flatten().tolist(), "said": guess.flatten().tolist()}).query(
        "true != 0"
    )
    dice = np.random.default_rng(seed)
    by_chance = [
        table["true"].corr(pd.Series(dice.permutation(table["said"]), index=table.index), method="spearman")
        for _ in range(100)
    ]
    most = table[table["true"] > large]
    return {
        "n": len(table),
        "rank": table["true"].corr(table["said"], method="spearman"),
        "chance": float(np.quantile(by_chance, 0.95)),
        "missed": float((most["said"] < most["true"] / 4).mean()),
    }


def by_scipy(effects, guess, large, seed):
    at = effects.nonzero(as_tuple=True)
    true, said = effects[at].double(), guess[at].double()
    dice = torch.Generator().manual_seed(seed + 1)
    shuffled = sorted(
        spearmanr(true[torch.randperm(len(true), generator=dice)], said).statistic for _ in range(200)
    )
    big = true > large
    return {
        "n": len(true),
        "rank": spearmanr(true, said).statistic,
        "chance": shuffled[190],
        "missed": int((big & (4 * said < true)).sum()) / int(big.sum()),
    }


def by_corrcoef(a, b, document):
    """NumPy's correlation matrix of both layers together, and loops."""
    groups = [np.flatnonzero(document.numpy() == d) for d in dict.fromkeys(document.tolist())]
    holder = next(i for i, group in enumerate(groups) if len(document) // 2 in group)
    turned = np.concatenate(groups[holder:] + groups[:holder])

    def alike(later):
        with np.errstate(divide="ignore", invalid="ignore"):
            whole = np.corrcoef(np.concatenate([a.numpy(), later], axis=1).astype(np.float64), rowvar=False)
        return np.nan_to_num(whole[: a.shape[1], a.shape[1] :])

    real, moved = alike(b.numpy()), alike(b.numpy()[turned])
    partner = []
    for i, row in enumerate(real):
        j = int(row.argmax())
        partner.append(j if row[j] > 1e-9 and int(real[:, j].argmax()) == i else -1)
    return {
        "partner": torch.tensor(partner),
        "correlation": torch.tensor(real.max(1)).float(),
        "chance": torch.tensor(moved.max(1)).float(),
    }


def by_columns(W_dec, widths, scales, latents, least):
    """Column by column, every one with its layer's number; latents in a loop."""
    layer = [i for i, width in enumerate(widths) for _ in range(width)]
    share, shared = torch.zeros(len(W_dec), len(widths)), []
    for j, row in enumerate(W_dec.tolist()):
        if float(latents[:, j].max()) <= 0:
            continue
        squares = [0.0] * len(widths)
        for value, i in zip(row, layer, strict=True):
            squares[i] += (value * float(scales[i])) ** 2
        lengths = [square**0.5 for square in squares]
        share[j] = torch.tensor([length / sum(lengths) for length in lengths])
        shared.append(all(length / sum(lengths) >= least for length in lengths))
    return {"share": share, "shared": sum(shared) / len(shared)}


def by_sets(passages, active, words, shuffles, draws):
    """Sets of words, and every pair of latents scored once beforehand."""
    texts = [[set(passage) for passage in some] for some in passages.tolist()]
    n = len(words)

    def score(i, j):
        said = [not text.isdisjoint(words[j]) for text in texts[i]]
        truth = active[i].tolist()
        hits = sum(s and t for s, t in zip(said, truth, strict=True)) / sum(truth)
        alarms = sum(s and not t for s, t in zip(said, truth, strict=True)) / (len(truth) - sum(truth))
        return 0.5 + (hits - alarms) / 2

    table = np.array([[score(i, j) for j in range(n)] for i in range(n)])
    own, other = table.diagonal(), table[np.arange(n), shuffles.numpy()].mean(axis=0)
    means = [np.mean([own[i] - other[i] for i in row]) for row in draws.tolist()]
    low, high = np.percentile(means, [2.5, 97.5])
    return {
        "own": torch.tensor(own).float(),
        "shuffled": torch.tensor(other).float(),
        "gain": float((own - other).mean()),
        "low": low,
        "high": high,
    }


def by_ranks(acts, latents, ids, y, train, k, fit):
    """Chosen by the correlation with the label; the AUC from mean ranks (Mann and Whitney)."""
    learn, judge = train.nonzero().flatten(), (~train).nonzero().flatten()
    truth = y[judge].numpy()

    def auc(said):
        values = np.round(np.asarray(said, dtype=np.float64), 9)
        order, counts = np.unique(values, return_inverse=True)[1], np.unique(values, return_counts=True)[1]
        ranks = (np.cumsum(counts) - (counts - 1) / 2)[order]
        n = truth.sum()
        return float((ranks[truth].sum() - n * (n + 1) / 2) / (n * (len(truth) - n)))

    label = y[learn].double() - y[learn].double().mean()
    telling = []
    for unit in latents.T:
        z = unit[learn].double() - unit[learn].double().mean()
        telling.append(abs(float(z @ label)) / float(z.norm()) if float(z.norm()) > 1e-9 else 0.0)
    chosen = sorted(range(len(telling)), key=lambda unit: -telling[unit])[:k]
    known = {}
    for word, holds in zip(ids[learn].tolist(), y[learn].tolist(), strict=True):
        known.setdefault(word, []).append(holds)
    lookup = [np.mean(known.get(word, [0, 1])) for word in ids[judge].tolist()]
    sparse = fit(latents[learn][:, chosen], y[learn])
    return {
        "latents": auc(sparse(latents[judge][:, chosen])),
        "dense": auc(fit(acts[learn], y[learn])(acts[judge])),
        "lookup": auc(lookup),
    }


ALTERNATIVES = (
    ("7.1", by_the_error),
    ("7.1", by_chosen_tokens),
    ("7.2", by_two_decodings),
    ("7.3", by_cross_entropy),
    ("7.4", by_decoder_rows),
    ("7.5", by_a_batch),
    ("7.6", by_interpolation),
    ("7.7", by_recursion),
    ("7.8", by_backward),
    ("7.8", by_direction),
    ("7.9", by_one_step_at_a_time),
    ("7.9", by_share_of_the_way),
    ("7.10", by_reading_direction),
    ("7.10", by_layer_norm),
    ("7.11", by_pandas),
    ("7.11", by_scipy),
    ("7.12", by_corrcoef),
    ("7.13", by_columns),
    ("7.14", by_sets),
    ("7.15", by_ranks),
)

UNTYPED = {"model", "sae"}  # arguments whose type a learner need not know
MEASURED = {"7.A": (0.5, 2.0, 9.0), "7.B": (0.0, 0.1, 0.3, 0.7)}


def after_running(names, described):
    """What must hold in the notebook's namespace once every cell has run on the target `described`."""
    assert names["acts"].shape[-1] == described["d_in"]
    assert names["features"].shape[-1] == described["d_sae"] == len(names["maxima"])
