"""The GPU's step gives the dense step's numbers. It is plain torch, so it is tested on every device there is."""

from __future__ import annotations

import gc

import pytest
import torch
from test_sparse_step import D_SAE, KINDS, a_batch, a_matrix, an_sae, assert_alike, gradients

from solutions.sae.architectures import make_sae
from solutions.sae.training import Plan, TensorSource, repeat, sparse_gpu
from solutions.sae.training import step as stepping
from solutions.sae.training.run import Run
from solutions.sae.training.sparse_gpu import gpu_gradients, largest_of_all, largest_of_each
from solutions.sae.training.step import Way, _fastest_on_gpu, _result, step_gradients

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
ON_ALL = pytest.mark.parametrize("device", DEVICES)


def ready(kind, device):
    sae = an_sae(kind).to(device)
    x, target = (None if part is None else part.to(device) for part in a_batch(sae))
    return sae, x, target


@ON_ALL
@pytest.mark.parametrize("some_dead", [False, True], ids=["", "dead"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_and_losses_are_those_of_the_dense_path(kind, some_dead, device):
    sae, x, target = ready(kind, device)
    dead = torch.arange(sae.d_sae, device=device) % 5 == 0 if some_dead else None
    theirs = step_gradients(sae, x, target, path="dense", warm=0.6, dead=dead)
    expected = gradients(sae)
    asked = sae.architecture in ("relu", "jumprelu")
    for warm in (0.6, torch.tensor(0.6, device=device)):  # a number that a repeated step can look up
        for n_entries in (None, *((len(x) * sae.d_sae,) if asked else ())):
            parts = gpu_gradients(sae, x, x if target is None else target, warm, dead, n_entries=n_entries)
            ours = _result(parts, len(x), "sparse")
            assert_alike(gradients(sae), expected)
            for name in ("total", "reconstruction", "sparsity", "auxiliary", "l0", "error"):
                wanted = getattr(theirs, name)
                torch.testing.assert_close(getattr(ours, name), wanted, rtol=1e-5, atol=1e-6, check_dtype=False)
            assert torch.equal(ours.fired, theirs.fired)
            assert all(p.grad.stride() == p.stride() for p in sae.parameters())


@ON_ALL
@pytest.mark.parametrize("kind", ["relu", "jumprelu", "jumprelu, transcoder"])
def test_enough_entries_are_enough_and_too_few_are_not(kind, device):
    sae, x, target = ready(kind, device)
    goal = x if target is None else target
    pre = sparse_gpu.preactivations(sae, x)
    n = sparse_gpu.count(sae, pre)
    assert n == int((sae.preactivations(x) > (0 if kind == "relu" else sae.threshold - 0.501 * sae.bandwidth)).sum())
    assert n <= sparse_gpu.rounded_up(n) < 1.5 * n
    step_gradients(sae, x, target, path="dense")
    expected = gradients(sae)
    for enough in (n, min(sparse_gpu.rounded_up(n), pre.numel())):
        gpu_gradients(sae, x, goal, pre=pre, n_entries=enough)
        assert_alike(gradients(sae), expected)
    gpu_gradients(sae, x, goal, pre=pre, n_entries=n // 2)
    with pytest.raises(AssertionError, match="off by"):
        assert_alike(gradients(sae), expected)


@ON_ALL
@pytest.mark.parametrize("shape, k", [((50, 512), 9), ((3, 96), 96), ((20, 77), 5), ((1, 4096), 32)])
def test_the_largest_are_torchs(shape, k, device):
    pre = a_matrix(shape).to(device)
    values, columns = largest_of_each(pre, k)
    assert torch.equal(pre.gather(1, columns), values)
    assert torch.equal(values.sort(descending=True).values, pre.topk(k).values)
    where = largest_of_all(pre, k * len(pre))
    assert (where.diff() > 0).all()
    assert torch.equal(pre.view(-1)[where].sort().values, pre.view(-1).topk(k * len(pre)).values.flip(0))


def test_a_gpu_is_asked_only_where_the_answer_is_worth_it(monkeypatch):
    few, many = make_sae("topk", 24, D_SAE, k=4), make_sae("topk", 24, D_SAE, k=64)
    relu = make_sae("relu", 24, D_SAE, l1=1.0)
    x, _ = a_batch(relu)
    dense = Way("written")
    assert _fastest_on_gpu(few, x, False, dense).path == "sparse" and _fastest_on_gpu(many, x, False, dense) is dense
    assert _fastest_on_gpu(relu, x, False, dense) is dense  # small
    monkeypatch.setattr(stepping, "WORTH_ASKING", 0)
    assert _fastest_on_gpu(relu, x, True, dense) is dense  # mixed precision
    way = _fastest_on_gpu(relu, x, False, dense)
    assert way.path == "written" and torch.allclose(way.pre, relu.preactivations(x), atol=1e-5)
    with torch.no_grad():
        relu.b_enc.fill_(-3.0)
    way = _fastest_on_gpu(relu, x, False, dense)
    assert way.path == "sparse" and way.n_entries >= (relu.preactivations(x) > 0).sum()
    assert repeat.can_be_repeated(relu, way) and not repeat.can_be_repeated(relu, Way("sparse"))
    assert repeat.can_be_repeated(few, Way("sparse")) and not repeat.can_be_repeated(few, Way("dense"))


def trained(architecture, device, precision="float32", n_steps=24, **settings):
    x = a_matrix((2048, 16)).to(device)
    plan = Plan(n_tokens=n_steps * 128, batch_size=128, lr=2e-3, log_every=4, precision=precision, resample_at=(14,))
    run = Run(make_sae(architecture, 16, 128, **settings).to(device), TensorSource(x), plan)
    for batch in run.batches():
        run.advance(batch)
    return run


@ON_ALL
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("architecture, settings", [("topk", {"k": 2}), ("batchtopk", {"k": 2}), ("relu", {"l1": 0.5})])
def test_repeated_steps_train_as_ordinary_ones_do(architecture, settings, precision, device, monkeypatch):
    repeated = trained(architecture, device, precision, **settings)
    assert bool(repeated._repeater._noted) == (device == "cuda")
    monkeypatch.setattr(repeat, "ORDINARY", 10**9)
    ordinary = trained(architecture, device, precision, **settings)
    for ours, theirs in zip(repeated.log.rows, ordinary.log.rows, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=5e-3)


def test_garbage_is_left_alone_while_a_step_is_noted_down():
    with repeat._nothing_thrown_away():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_the_dead_are_looked_for_in_time():
    """The run asks only when a latent can have died. It must find what asking at every step finds."""
    x = a_matrix((2048, 16))
    plan = Plan(n_tokens=60 * 128, batch_size=128, lr=2e-3, dead_after=500)
    run, found = Run(make_sae("topk", 16, 512, k=1), TensorSource(x), plan), []
    for batch in run.batches():
        told, dead = run._dead_if_any(), run.dead
        found.append(bool(dead.any()))
        assert (told is None) == (not found[-1]) and (told is None or torch.equal(told, dead))
        run.advance(batch)
    assert not all(found) and any(found)


def test_the_bench_on_a_gpu_says_when_there_is_none(monkeypatch, capsys):
    from tests.benchmarks import bench_training as cpu
    from tests.benchmarks import bench_training_gpu as bench

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert bench.run(quick=True) == [] and "no CUDA device" in capsys.readouterr().err
    rows = bench.rows_of("relu", cpu.QUICK[1], cpu.made_up(48, 28 * 128), "float32", 3 * bench.GROUP)
    assert len(rows) == 6 and {row["limit"] for row in rows} == {None}
    assert all(row["name"].startswith("training on a GPU: relu, float32") for row in rows)
    assert rows[0]["value"] > 0 and "SAELens" in rows[0]["note"]
