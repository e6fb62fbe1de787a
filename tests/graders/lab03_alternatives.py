"""Lab 3: right answers that are written differently from the solved lab's."""

import torch


def by_numbers(x, x_hat):
    dot = (x * x_hat).sum(1) / ((x**2).sum(1) * (x_hat**2).sum(1)).sqrt()
    total = x.var(0, unbiased=False).sum() * len(x)
    return {"cosine": float(dot.mean()), "fvu": float(((x_hat - x) ** 2).sum() / total)}


def by_rows(batches, d_sae, dense_above):
    counts, n = [0] * d_sae, 0
    for features in batches:
        for row in features:
            n += 1
            for latent in row.nonzero().flatten().tolist():
                counts[latent] += 1
    density = torch.tensor(counts, dtype=torch.float64) / n
    return {
        "dense": sum(value > dense_above for value in density.tolist()),
        "dead": counts.count(0),
        "density": density,
    }


def by_difference(model, ids, hook_name, encode, decode, edit):
    def hooked(value, hook):
        features = encode(value)
        return value + decode(edit(features)) - decode(features)

    return model.run_with_hooks(ids, fwd_hooks=[(hook_name, hooked)])


def by_two_runs(model, ids, hook_name, encode, decode, edit):
    acts = model.run_with_cache(ids, names_filter=hook_name)[1][hook_name]
    error = acts - decode(encode(acts))
    new = decode(edit(encode(acts))) + error
    return model.run_with_hooks(ids, fwd_hooks=[(hook_name, lambda act, hook: new)])


def by_one_minus(loss_with, reconstruct, mean):
    edits = {
        "clean": lambda x: x.clone(),
        "spliced": reconstruct,
        "zero": lambda x: 0 * x,
        "mean": lambda x: torch.zeros_like(x) + mean,
    }
    found = {name: loss_with(edit) for name, edit in edits.items()}
    found["delta"] = found["spliced"] - found["clean"]
    for name in ("zero", "mean"):
        found[f"recovered_{name}"] = 1 - found["delta"] / (found[name] - found["clean"])
    return found


def by_loop(features, keep, k):
    best = []
    for latent in range(features.shape[1]):
        moments = [(features[p, latent].item(), p) for p in range(len(features)) if keep[p]]
        value, position = max(moments)
        if value > 0:
            best.append([latent, value, position])
    return sorted(best, key=lambda entry: entry[1], reverse=True)[:k]


def by_sorting(features_a, features_b, k):
    gap = (features_a.max(dim=0).values - features_b.max(dim=0).values).tolist()
    order = sorted(range(len(gap)), key=lambda latent: abs(gap[latent]), reverse=True)
    return [(latent, gap[latent]) for latent in order[:k]]


def by_silencing(acts, keep, k, radius):
    left, taken = torch.where(keep, acts, 0.0), []
    while len(taken) < k and left.max() > 0:
        text, position = divmod(int(left.argmax()), left.shape[1])
        taken.append((text, position, left[text, position].item()))
        left[text, max(0, position - 2 * radius) : position + 2 * radius + 1] = 0
    return taken


def by_comparing(strengths, n):
    active = strengths[strengths > 0].double()
    ends = torch.quantile(active, torch.linspace(0, 1, n + 1, dtype=torch.float64))
    found = (strengths.double()[:, None] > ends[1:-1]).sum(1)
    found[strengths == 0] = -1
    return found


def by_counting(holds, interval, n):
    hits, sizes = torch.zeros(n), torch.zeros(n)
    for hold, i in zip(holds.tolist(), interval.tolist(), strict=True):
        if i >= 0:
            sizes[i] += 1
            hits[i] += hold
    return {"recall": hits.sum() / holds.sum(), "precision": hits / sizes}


def by_sorted_pairs(strengths, holds, k):
    pairs = sorted(zip(strengths.tolist(), holds.tolist(), strict=True), reverse=True)
    best = [hold for value, hold in pairs[:k] if value > 0]
    return {
        "base": sum(hold for _, hold in pairs) / len(pairs),
        "mass": sum(value for value, hold in pairs if hold) / sum(value for value, _ in pairs),
        "top_k": sum(best) / len(best),
    }


def by_matrix(direction, W_U, gain, layer_norm):
    d_model = len(direction)
    centre = torch.eye(d_model) - (torch.ones(d_model, d_model) / d_model if layer_norm else 0)
    unembed = gain[:, None] * (W_U - W_U.mean(1, keepdim=True))
    return torch.einsum("i,ij,jv->v", direction, centre, unembed)


def by_cosine_function(W_dec, latent, k):
    scores = torch.cosine_similarity(W_dec, W_dec[latent][None], dim=-1).tolist()
    order = sorted((i for i in range(len(scores)) if i != latent), key=lambda i: -scores[i])
    return [(i, scores[i]) for i in order[:k]]


def by_whole_table(starts, tokens, values, latent, n_tokens):
    owner = torch.repeat_interleave(torch.arange(len(starts) - 1), starts.diff())
    table = torch.zeros(len(starts) - 1, n_tokens).index_put((owner, tokens), values)
    return table[latent]


def by_table(tokens_of, latent, k):
    size = 1 + max((int(tokens.max()) for tokens in tokens_of if len(tokens)), default=0)
    fires = torch.zeros(len(tokens_of), size)
    for row, tokens in zip(fires, tokens_of, strict=True):
        row[tokens] = 1
    both = fires @ fires[latent]
    score = both / (fires.sum(1) + fires[latent].sum() - both)
    score[latent] = 0
    best = score.nan_to_num(0).topk(min(k, len(score)))
    return [[int(i), v] for v, i in zip(best.values, best.indices, strict=True) if v > 0]


ALTERNATIVES = (
    ("3.1", by_numbers),
    ("3.2", by_rows),
    ("3.3", by_difference),
    ("3.3", by_two_runs),
    ("3.4", by_one_minus),
    ("3.5", by_loop),
    ("3.6", by_sorting),
    ("3.7", by_silencing),
    ("3.8", by_comparing),
    ("3.9", by_counting),
    ("3.10", by_sorted_pairs),
    ("3.11", by_matrix),
    ("3.12", by_cosine_function),
    ("3.13", by_whole_table),
    ("3.14", by_table),
)

UNTYPED = {"model"}  # its type is TransformerLens's, and a learner need not know it
MEASURED = {"3.A": (0.1, 0.6, 0.9), "3.B": (0.2, 0.6, 0.95)}


def after_running(names, described):
    """What must hold in the notebook's namespace once every cell has run on the target `described`."""
    assert names["features"].shape == (len(names["x"]), described["d_sae"])
    assert (names["same"] - names["clean"]).abs().max() < 1e-3  # the identity edit restores the model
    assert names["reports"]["the mean token"]["recovered_mean"] == 0
    assert torch.equal(
        names["strengths_of"](names["starts"], names["on_token"], names["stored"], 3, len(names["x"])),
        names["features"][:, 3],
    )
