"""Lab 1: right answers written differently from the reference. Each must pass."""

import torch


def by_loop(ids, lengths, bos_id):
    mask = torch.zeros(ids.shape, dtype=torch.bool)
    for row, length in zip(mask, lengths.tolist(), strict=True):
        row[1:length] = True
    return mask


def by_cache(model, ids, hook_name):
    try:
        return model.run_with_cache(ids, names_filter=[hook_name])[1][hook_name]
    except KeyError:
        raise ValueError(f"no hook called {hook_name}") from None


def by_early_stop(model, ids, hook_name):
    if hook_name not in set(model.hook_dict):
        raise ValueError(hook_name)
    store = []
    layer = int(hook_name.split(".")[1])
    model.run_with_hooks(
        ids, fwd_hooks=[(hook_name, lambda act, hook: store.append(act.clone()))], stop_at_layer=layer + 1
    )
    return store[0]


def by_numpy_style(acts, keep):
    rows = acts.reshape(-1, acts.shape[-1])[keep.reshape(-1)]
    length = (rows**2).sum(1) ** 0.5
    return {
        "mean_norm": length.mean(),
        "largest_norm": length.amax(),
        "mean": rows.mean(),
        "n_tokens": keep.sum(),
    }


def by_counting(acts, keep, threshold):
    rows = acts[keep]
    return int(((rows > -threshold) & (rows < threshold)).sum()) / rows.numel()


def by_threshold(acts, W_enc, b_enc, b_dec, k=None):
    pre = torch.einsum("...d,ds->...s", acts, W_enc) - b_dec @ W_enc + b_enc
    features = torch.clamp(pre, min=0)
    if k is not None:
        weakest = features.sort(dim=-1, descending=True).values[..., k - 1 : k]
        features = torch.where(features >= weakest, features, 0.0)
    return features


def by_nonzero(features, keep):
    return len(features[keep].nonzero()) / int(keep.sum())


def by_variance(x, x_hat):
    return float(1 - ((x - x_hat) ** 2).mean(0).sum() / x.var(0, unbiased=False).sum())


def by_sort(features, position, k):
    row = features[position]
    order = sorted(range(len(row)), key=lambda latent: -row[latent].item())
    return [[latent, row[latent]] for latent in order[:k] if row[latent] > 0]


def by_picking_first(cache, hook_name, encode, keep):
    features = encode(cache[hook_name][keep])
    on = torch.where(features > 0, 1.0, 0.0)
    return {"density": on.sum(0) / len(on), "l0": on.sum() / len(on)}


def by_sums(with_concept, without):
    rate = [(part != 0).double().sum(0) / part.shape[0] for part in (with_concept, without)]
    return rate[0] - rate[1]


def by_function(n, d, seed):
    source = torch.Generator()
    source.manual_seed(seed + 17)
    return torch.nn.functional.normalize(torch.normal(0.0, 3.0, (n, d), generator=source), dim=1)


ALTERNATIVES = (
    ("1.1", by_loop),
    ("1.2", by_cache),
    ("1.2", by_early_stop),
    ("1.3", by_numpy_style),
    ("1.4", by_counting),
    ("1.5", by_threshold),
    ("1.6", by_nonzero),
    ("1.7", by_variance),
    ("1.8", by_sort),
    ("1.9", by_picking_first),
    ("1.10", by_sums),
    ("1.11", by_function),
)

UNTYPED = {"model", "encode"}  # arguments whose type a learner need not know
FORM_ELSEWHERE = {"1.2"}  # an answer that ignores its arguments is caught before its form is looked at


def after_running(names, described):
    """What must hold in the notebook's namespace once every cell has run on the target `described`."""
    assert names["features"].shape[-1] == described["d_sae"]
