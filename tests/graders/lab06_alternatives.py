"""Lab 6: right answers that are written differently from the solved lab's."""

import contextlib
import math
import sys
import uuid
import zlib
from hashlib import blake2b, md5, sha256

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from solutions.errors import InputError


def by_numpy(x, x_hat, keep):
    """Complaints of our own class, which is a ValueError; sums in NumPy."""
    found = []
    if x.shape != x_hat.shape:
        found.append(f"expected equal shapes, found {tuple(x.shape)} and {tuple(x_hat.shape)}")
    if keep.dtype is not torch.bool or len(keep) != len(x):
        found.append("keep is no mask")
    elif int(keep.sum()) == 0:
        found.append("nothing kept")
    if bool(
        torch.isnan(x).any() | torch.isinf(x).any() | torch.isnan(x_hat).any() | torch.isinf(x_hat).any()
    ):
        found.append("not finite")
    if found:
        raise InputError("; ".join(found))
    rows = keep.numpy()
    a, b = x.double().numpy()[rows], x_hat.double().numpy()[rows]
    return float(1 - ((a - b) ** 2).sum() / (a.var(axis=0).sum() * len(a)))


def by_invariants(f):
    """No example by hand: what the mean scores, how it scales, what does not count. And one error of known size."""
    dice = torch.Generator().manual_seed(0)
    x = torch.randn(12, 3, generator=dice) * torch.tensor([1.0, 2.0, 5.0]) + torch.tensor([4.0, -3.0, 9.0])
    keep = torch.arange(12) != 5
    x[5] = 100.0
    mean = x[keep].mean(0).expand_as(x)

    def close(value, to):
        return math.isclose(float(value), to, abs_tol=1e-3)

    assert close(f(x.clone(), mean.clone(), keep), 0)
    assert close(f(x.clone(), x.clone(), keep), 1)
    halfway = mean + 0.5 * (x - mean)
    assert close(f(x.clone(), halfway, keep), 0.75)
    assert close(f(x.clone(), mean + 3 * (x - mean), keep), -3)
    moved = x.clone()
    moved[5] = -50.0
    one_off = x.clone()
    one_off[0, 0] += 2.0
    spread = float((x[keep] - mean[keep]).pow(2).sum())
    assert close(f(moved, one_off, keep), 1 - 4 / spread)
    assert bool((moved[5] == -50.0).all()) and torch.equal(moved[:5], x[:5])


def by_pytest(f):
    x = torch.tensor([[10.0, -2.0], [14.0, 6.0], [0.0, 0.0]], dtype=torch.float64)
    keep = torch.tensor([True, True, False])
    shown = x.numpy().copy()
    found = [
        float(f(x, torch.tensor(rows, dtype=torch.float64), keep))
        for rows in (
            [[10.0, -2.0], [14.0, 5.0], [7.0, 7.0]],
            [[11.0, -2.0], [15.0, 6.0], [7.0, 7.0]],
            [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]],
            [[12.0, 2.0], [12.0, 2.0], [0.0, 0.0]],
            [[10.0, -2.0], [12.0, 6.0], [0.0, 0.0]],
        )
    ]
    assert found == pytest.approx([1 - 1 / 40, 1 - 2 / 40, 1 - 336 / 40, 0.0, 1 - 4 / 40], abs=1e-5)
    assert np.array_equal(x.numpy(), shown)


def by_permutation(encode, d_in):
    """Rows in another order, and some left out, must give the same codes in that order."""

    @given(st.integers(1, 9), st.integers(0, 10**6))
    def holds(n, seed):
        dice = torch.Generator().manual_seed(seed)
        x = 3 * torch.randn(n, d_in, generator=dice)
        some = torch.randperm(n, generator=dice)[: max(1, n // 2)]
        np.testing.assert_allclose(encode(x)[some].numpy(), encode(x[some]).numpy(), atol=1e-3)
        np.testing.assert_allclose(encode(x)[:1].numpy(), encode(x[:1]).numpy(), atol=1e-3)

    holds()


def by_lists(encode, d_in):
    number = st.floats(-5, 5)

    @given(st.lists(st.lists(number, min_size=d_in, max_size=d_in), min_size=1, max_size=8))
    def holds(rows):
        x = torch.tensor(rows, dtype=torch.float32)
        for i, row in enumerate(encode(x)):
            if float((row - encode(x[i].unsqueeze(0)).squeeze(0)).abs().max()) > 1e-3:
                raise AssertionError(f"row {i}")

    holds()


def by_folding(settings, file, irrelevant):
    """A digest that every part is fed into, each with its kind and its length."""
    digest = blake2b(digest_size=16)

    def feed(value):
        if isinstance(value, dict):
            for name in sorted(value):
                feed(name)
                feed(value[name])
            return
        if isinstance(value, list):
            for entry in value:
                feed(entry)
        array = value.numpy() if isinstance(value, torch.Tensor) else None
        data = (
            repr(value).encode()
            if array is None
            else array.tobytes() + str((array.shape, array.dtype)).encode()
        )
        digest.update(f"{type(value).__name__} {len(data)} ".encode() + data)

    feed({name: settings[name] for name in settings if name not in irrelevant})
    feed(file.read_bytes())
    return digest.hexdigest()


def by_lists_of_numbers(settings, file, irrelevant):
    import json

    plain = {n: v.tolist() if hasattr(v, "tolist") else v for n, v in settings.items() if n not in irrelevant}
    plain["\0file"] = list(file.read_bytes())
    return sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def by_a_file_beside(path, compute, write):
    """The checksum in a file of its own, which is written first."""
    beside = path.with_name(path.name + ".sum")
    with contextlib.suppress(OSError):
        data = path.read_bytes()
        if beside.read_text() == md5(data).hexdigest():
            return data
    data = compute()
    for place, what in ((beside, md5(data).hexdigest().encode()), (path, data)):
        part = place.with_name(f"{place.name}.{uuid.uuid4().hex}")
        write(what, part)
        part.replace(place)
    return data


def by_compression(path, compute, write):
    """The checksum that zlib keeps by itself: at the end of the stream."""
    try:
        return zlib.decompress(path.read_bytes())
    except (FileNotFoundError, zlib.error):
        pass
    data = compute()
    part = path.parent / "unfinished"
    write(zlib.compress(data), part)
    part.rename(path)
    return data


def by_numpy_seeds(names, width, seed, batch_size):
    rows = []
    for start in range(0, len(names), batch_size):
        for name in names[start : start + batch_size]:
            dice = np.random.default_rng([seed, *name.encode(), len(name)])
            row = dice.standard_normal(width)
            rows.append(torch.from_numpy(row / np.linalg.norm(row)).float())
    return torch.stack(rows)


def by_one_pass(names, width, seed, batch_size):
    found = torch.empty(len(names), width)
    source = torch.Generator()
    for row, name in zip(found, names, strict=True):
        source.manual_seed(int(md5(repr((seed, name)).encode()).hexdigest()[:15], 16))
        row.normal_(generator=source)
    return torch.nn.functional.normalize(found, dim=1)


def by_other_means():
    def mean_l0(features, keep):
        return torch.count_nonzero(features[keep]) / int(keep.sum())

    def next_token_loss(logits, ids, keep):
        total, n = 0.0, 0
        for row, words, wanted in zip(logits, ids, keep, strict=True):
            for i in range(1, len(words)):
                if wanted[i]:
                    total += float(row[i - 1].logsumexp(0) - row[i - 1, words[i]])
                    n += 1
        return total / n

    def activations_at(model, ids, hook_names):
        cache = model.run_with_cache(ids, names_filter=hook_names)[1]
        return {name: cache[name] for name in hook_names}

    def interval_of(strengths, n):
        found = (strengths * n / strengths.max()).long()
        found[found == n] = n - 1
        return found

    def without_latent(x, z, W_dec, b_dec, latent):
        edited = z.clone()
        edited[:, latent] = 0
        error = x - (z @ W_dec + b_dec)
        return edited @ W_dec + b_dec + error

    return dict(
        zip(
            ("without_latent", "interval_of", "activations_at", "next_token_loss", "mean_l0"),
            (without_latent, interval_of, activations_at, next_token_loss, mean_l0),
            strict=True,
        )
    )


def by_hooks(model, hook, sae, ids):
    """Activations by a hook function; other tokens in place of none."""
    if hook not in list(model.hook_dict):
        return ["hook"]

    def look(rows, change=None):
        seen = []

        def note(act, hook):
            seen.append(act.clone())
            return None if change is None else change(act)

        logits = model.run_with_hooks(rows, fwd_hooks=[(hook, note)])
        return seen[0], logits

    def apart(a, b):
        return float((a - b).abs().max()) > 1e-3 * (1 + float(b.abs().max()))

    acts, logits = look(ids)
    other = ids.clone()
    other[:, -1] = (other[:, -1] + 1) % 9
    fits = acts.size(-1) == sae.W_enc.size(0)
    checks = {
        "width": not fits,
        "alone": any(apart(look(ids[i : i + 1])[0][0], acts[i]) for i in range(len(ids))),
        "causal": apart(look(other)[0][:, :-1], acts[:, :-1]),
        "live": not apart(look(ids, lambda act: act + 5.0 + act.abs())[1], logits),
        "rows": fits
        and any(apart(sae.encode(x[None])[0], sae.encode(acts[0])[i]) for i, x in enumerate(acts[0])),
    }
    return [name for name, bad in checks.items() if bad]


def by_hand(argv, work):
    """Without argparse."""
    texts, top, rest = [], 5, list(argv)
    if "--help" in rest or "-h" in rest:
        print("usage: latents TEXT [TEXT ...] [--top N]")
        return 0
    while rest:
        word = rest.pop(0)
        if word == "--top":
            if not rest or not rest[0].isdigit() or int(rest[0]) == 0:
                sys.stderr.write("--top wants a whole number of at least 1\n")
                return 2
            top = int(rest.pop(0))
        elif word.startswith("-"):
            sys.stderr.write(f"unknown option {word}\n")
            return 2
        else:
            texts.append(word)
    if not texts:
        sys.stderr.write("give a text\n")
        return 2
    try:
        answer = work(texts, top)
    except KeyboardInterrupt:
        return 130
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(answer + "\n")
    return 0


def by_editing_in_place(model, hook, ids, vector, wanted, seed):
    if hook not in set(model.hook_dict):
        raise KeyError(hook)

    def with_(direction):
        def add(act, hook):
            act[:, 1:, :] += direction

        hooks = [] if direction is None else [(hook, add)]
        last = model.run_with_hooks(ids, fwd_hooks=hooks)[:, -1, :].softmax(dim=-1)
        return float(last[:, wanted].sum() / len(ids))

    noise = np.random.default_rng(seed).standard_normal(len(vector))
    noise = torch.tensor(noise / np.linalg.norm(noise), dtype=vector.dtype) * vector.norm()
    return {"control": with_(noise), "plain": with_(None), "steered": with_(vector)}


ALTERNATIVES = (
    ("6.1", by_numpy),
    ("6.2", by_invariants),
    ("6.2", by_pytest),
    ("6.3", by_permutation),
    ("6.3", by_lists),
    ("6.4", by_folding),
    ("6.4", by_lists_of_numbers),
    ("6.5", by_a_file_beside),
    ("6.5", by_compression),
    ("6.6", by_numpy_seeds),
    ("6.6", by_one_pass),
    ("6.7", by_other_means),
    ("6.8", by_hooks),
    ("6.9", by_hand),
    ("6.10", by_editing_in_place),
)

UNTYPED = {"model", "sae"}  # arguments whose type a learner need not know
FORM_ELSEWHERE = ("6.2", "6.3", "6.4")  # a test returns nothing; any text has the form of a key
UNSHAPED = ("6.2", "6.5", "6.7")  # inputs are functions and files: their sizes do not show in the arguments
MEASURED = {"6.A": (0, 3, 9), "6.B": (0.0, 0.5, 1.0)}


def after_running(names, described):
    """What must hold in the notebook's namespace once every cell has run on the target `described`."""
    assert names["content"].shape[1] == described["d_in"]
    assert len(names["drawn"]) == len(names["often"])
    assert list(names["rows"])  # the last table has its latents
    assert names["kept_at"].exists()
