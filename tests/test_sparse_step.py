"""The sparse step gives the dense step's numbers, and takes what it says it takes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from solutions.errors import CourseError
from solutions.sae.architectures import make_sae
from solutions.sae.training import selecting
from solutions.sae.training import step as stepping
from solutions.sae.training.dense import is_written_out
from solutions.sae.training.sparse import density, sparse_gradients
from solutions.sae.training.step import CROSSOVER, step_gradients

D_IN, D_SAE, D_OUT, BATCH = 24, 256, 20, 96

#: A name for each SAE: architecture and settings.
KINDS = {
    "relu": ("relu", {"l1": 0.4}),
    "relu, tied": ("relu", {"l1": 0.4, "tied": True}),
    "relu, free norms": ("relu", {"l1": 0.4, "unit_norm": False}),
    "relu, transcoder": ("relu", {"l1": 0.4, "d_out": D_OUT}),
    "topk": ("topk", {"k": 7}),
    "topk, odd width": ("topk", {"k": 7, "d_sae": 251}),
    "topk, all": ("topk", {"k": D_SAE}),
    "batchtopk": ("batchtopk", {"k": 6.5}),
    "batchtopk, transcoder": ("batchtopk", {"k": 6, "d_out": D_OUT}),
    "batchtopk, nearly all": ("batchtopk", {"k": 250}),
    "jumprelu": ("jumprelu", {"l0_penalty": 0.3}),
    "jumprelu, transcoder": ("jumprelu", {"l0_penalty": 0.3, "bandwidth": 0.5, "d_out": D_OUT}),
}


def an_sae(kind: str, seed: int = 0):
    """An SAE in the middle of its training: biases, thresholds and norms are no longer where they began."""
    architecture, settings = KINDS[kind]
    settings = {"d_sae": D_SAE} | settings
    sae = make_sae(architecture, D_IN, settings.pop("d_sae"), seed=seed, **settings)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in (sae.b_enc, sae.b_dec):
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        if not sae.unit_norm:
            sae.W_dec.mul_(0.5 + torch.rand(len(sae.W_dec), 1, generator=generator))
        if not sae.tied:
            sae.W_enc.add_(0.1 * torch.randn(sae.W_enc.shape, generator=generator))
        if architecture == "jumprelu":
            sae.threshold.copy_(torch.rand(sae.threshold.shape, generator=generator))
    return sae


def a_batch(sae, seed: int = 1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(BATCH, D_IN, generator=generator)
    return x, torch.randn(BATCH, D_OUT, generator=generator) if sae.transcoder else None


def gradients(sae):
    return {name: parameter.grad.clone() for name, parameter in sae.named_parameters()}


def forced(monkeypatch, sae, x, target, path, **settings):
    """A step by the given path; "written out" is the dense one that "auto" takes."""
    if path != "written out":
        return step_gradients(sae, x, target, path=path, **settings)
    monkeypatch.setattr(stepping, "CROSSOVER", 0.0)
    return step_gradients(sae, x, target, **settings)


def assert_alike(ours, theirs, tolerance=1e-5):
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        difference = (ours[name] - expected).norm() / expected.norm().clamp_min(1e-12)
        assert difference < tolerance, f"{name}: off by {difference:.1e}"


@pytest.mark.parametrize("some_dead", [False, True], ids=["", "dead"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_and_losses_are_those_of_the_dense_path(kind, some_dead, monkeypatch):
    sae = an_sae(kind)
    x, target = a_batch(sae)
    dead = torch.arange(sae.d_sae) % 5 == 0 if some_dead else None
    found = {}
    for path in ("dense", "sparse", "written out"):
        result = forced(monkeypatch, sae, x, target, path, warm=0.6, dead=dead)
        assert result.used == ("sparse" if path == "sparse" else "dense")
        raw = gradients(sae)
        sae.before_step()  # what the projection onto the sphere leaves is the same too
        found[path] = result, raw, gradients(sae)
    theirs, their_raw, their_projected = found.pop("dense")
    for ours, our_raw, our_projected in found.values():
        assert_alike(our_raw, their_raw)
        assert_alike(our_projected, their_projected)
        for name in ("total", "reconstruction", "sparsity", "auxiliary", "l0", "error"):
            expected = getattr(theirs, name)
            torch.testing.assert_close(getattr(ours, name), expected, rtol=1e-5, atol=1e-6, check_dtype=False)
        assert torch.equal(ours.fired, theirs.fired)
    if some_dead and sae.architecture in ("topk", "batchtopk"):
        assert ours.auxiliary > 0
    if sae.architecture == "batchtopk":
        sae.losses(x, target)
        expected = sae.batch_threshold
        step_gradients(sae, x, target, path="sparse")
        torch.testing.assert_close(sae.batch_threshold, expected)


@pytest.mark.parametrize("kind", ["relu", "topk", "batchtopk", "jumprelu"])
def test_gradients_lie_in_memory_like_their_weights(kind):
    """A fused Adam takes both as they lie in memory, without looking."""
    sae = an_sae(kind)
    x, _ = a_batch(sae)
    step_gradients(sae, x, path="sparse")
    expected = gradients(sae)
    for parameter in sae.parameters():
        assert parameter.grad.stride() == parameter.stride()
    sae.W_enc = nn.Parameter(sae.W_enc.detach().contiguous())  # as a file would give it
    step_gradients(sae, x, path="sparse")
    assert sae.W_enc.grad.is_contiguous()
    assert_alike(gradients(sae), expected)


def trained(sae, path, n_steps=8):
    optimiser = torch.optim.Adam(sae.parameters(), lr=1e-3, fused=True)
    losses = []
    for step in range(n_steps):
        losses.append(step_gradients(sae, *a_batch(sae, seed=step), path=path).total.item())
        sae.before_step()
        optimiser.step()
        optimiser.zero_grad()
        sae.after_step()
    return losses


@pytest.mark.parametrize("kind", ["relu", "topk", "batchtopk", "jumprelu"])
def test_training_goes_the_same_way(kind):
    ours, theirs = an_sae(kind), an_sae(kind)
    np.testing.assert_allclose(trained(ours, "sparse"), trained(theirs, "dense"), rtol=1e-4)
    for name, weights in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], weights, rtol=1e-3, atol=1e-3)


def test_earlier_gradients_are_thrown_away_and_two_saes_do_not_share_memory():
    first, second = an_sae("topk"), an_sae("topk", seed=5)
    x, _ = a_batch(first)
    for path in ("dense", "sparse"):
        step_gradients(first, x, path=path)
        once = gradients(first)
        step_gradients(second, x, path=path)
        assert_alike(gradients(first), once, tolerance=1e-12)
        step_gradients(first, x, path=path)
        assert_alike(gradients(first), once, tolerance=1e-12)
    step_gradients(first, x[:40], path="sparse")  # a smaller batch in the same memory
    ours = gradients(first)
    step_gradients(first, x[:40], path="dense")
    assert_alike(ours, gradients(first))


class Large(TorchDispatchMode):
    """Notes the float arrays of a given size that are made or written while it is on."""

    def __init__(self, size: int):
        super().__init__()
        self.size, self.seen = size, set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            plain = isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided
            if plain and tensor.is_floating_point() and tensor.numel() >= self.size:
                self.seen.add(tensor.untyped_storage().data_ptr())
        return out


@pytest.mark.parametrize("kind", ["relu", "topk", "batchtopk", "jumprelu"])
def test_nothing_as_large_as_batch_times_latents_is_held_but_the_preactivations(kind):
    sae = make_sae(KINDS[kind][0], 8, 512, **{k: v for k, v in KINDS[kind][1].items() if k != "d_sae"})
    with torch.no_grad():
        sae.b_enc.fill_(-1.0)
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    with Large(64 * 512) as large:
        sparse_gradients(sae, x, x)
    assert len(large.seen) == 1
    with Large(64 * 512) as large:
        step_gradients(sae, x, path="dense")
    assert len(large.seen) > 2


def test_auto_takes_the_sparse_path_where_few_entries_are_active():
    sae = make_sae("relu", D_IN, D_SAE, l1=1.0)
    x, _ = a_batch(sae)
    assert density(sae, x) > 0.4 and step_gradients(sae, x).used == "dense" and is_written_out(sae)
    with torch.no_grad():
        sae.b_enc.fill_(-3.0)
    assert 0 < density(sae, x) < CROSSOVER and step_gradients(sae, x).used == "sparse"
    few, many = make_sae("topk", D_IN, D_SAE, k=4), make_sae("topk", D_IN, D_SAE, k=64)
    assert step_gradients(few, x).used == "sparse" and step_gradients(many, x).used == "dense"


def test_auto_takes_the_dense_path_where_no_sparse_one_is_written():
    x = torch.randn(BATCH, D_IN)
    for sae in (
        make_sae("gated", D_IN, D_SAE),
        make_sae("matryoshka", D_IN, D_SAE, k=4),
        make_sae("relu", D_IN, D_SAE, ghost=True),
    ):
        assert step_gradients(sae, x).used == "dense"
        with pytest.raises(CourseError, match="no sparse step"):
            step_gradients(sae, x, path="sparse")
    sae = make_sae("topk", D_IN, D_SAE, k=4)
    with torch.autocast("cpu", torch.bfloat16):
        assert step_gradients(sae, x).used == "dense"
    with pytest.raises(CourseError, match="path"):
        step_gradients(sae, x, path="spars")


def test_a_batch_without_any_active_latent():
    sae = an_sae("relu")
    x, _ = a_batch(sae)
    with torch.no_grad():
        sae.b_enc.fill_(-100.0)
    result = step_gradients(sae, x, path="sparse")
    assert result.l0 == 0 and not result.fired.any() and not sae.W_enc.grad.any() and not sae.W_dec.grad.any()
    ours = gradients(sae)
    step_gradients(sae, x, path="dense")
    assert_alike(ours, gradients(sae))


# ---- selection


def a_matrix(shape, seed=0, coarse=False):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return values.mul(4).round() if coarse else values


@pytest.mark.parametrize("coarse", [False, True], ids=["", "ties"])
@pytest.mark.parametrize("shape, k", [((50, 512), 9), ((50, 512), 1), ((3, 96), 96), ((20, 77), 5), ((1, 4096), 32)])
def test_the_largest_of_each_row_are_torchs(shape, k, coarse):
    pre = a_matrix(shape, coarse=coarse)
    where, values = selecting.largest_of_each(pre, k)
    assert torch.equal(values, pre.view(-1)[where]) and (values > 0).all()
    assert len(where.unique()) == len(where)  # none twice
    rows = where.div(shape[1], rounding_mode="floor")
    assert (rows.diff() >= 0).all()
    for row, expected in enumerate(pre.topk(k, dim=1).values):
        assert torch.equal(values[rows == row].sort(descending=True).values, expected[expected > 0])


@pytest.mark.parametrize("n", [1, 40, 450, 5000, 50 * 512])
@pytest.mark.parametrize("coarse", [False, True], ids=["", "ties"])
def test_the_largest_of_a_whole_batch(n, coarse):
    pre = a_matrix((50, 512), coarse=coarse)
    where, values, smallest = selecting.largest_of_all(pre, n)
    expected = pre.flatten().sort(descending=True).values[n - 1].clamp_min(0)
    assert smallest == expected
    assert torch.equal(values, pre.view(-1)[where])
    assert torch.equal(where.sort().values, ((pre >= expected) & (pre > 0)).flatten().nonzero().view(-1))
    assert (where.div(512, rounding_mode="floor").diff() >= 0).all()


def test_a_guess_from_unlike_rows_is_checked():
    """The rows that the guess is made from hold all that is large, so it is far too high for the batch."""
    pre = a_matrix((1024, 64)).abs()
    pre[::4] += 100
    n = 1024 * 64 // 3
    where, values, smallest = selecting.largest_of_all(pre, n)
    assert len(where) == n and smallest == pre.flatten().sort(descending=True).values[n - 1] == values.min()
