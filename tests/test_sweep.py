"""Sweeps: the same runs as one by one, in one pass, and a table of what came out."""

import math

import pandas as pd
import pytest
import torch
from stub_training import HOOK, PLAN, D, fresh, make_store, numbers

from solutions.errors import InputError
from solutions.sae import explained_variance
from solutions.sae.architectures import make_sae
from solutions.sae.training import StoreSource, TensorSource, measure, sweep, train
from solutions.sae.training.run import Run

QUICK = PLAN.replace(n_tokens=64 * 30, resample_at=(), log_every=10)
TOPK = {"architecture": "topk", "d_sae": 40}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return StoreSource(make_store(tmp_path_factory.mktemp("data") / "store"), HOOK, buffer_tokens=256)


def steps_of(monkeypatch):
    """Counts the steps that are made from now on."""
    made, advance = [], Run.advance
    monkeypatch.setattr(Run, "advance", lambda self, batch: (made.append(self), advance(self, batch))[1])
    return made


def test_a_grid_gives_a_row_and_an_sae_for_every_combination(source):
    grid = {"k": [2, 4], "lr": [1e-3, 1e-2], "seed": [0, 1]}
    table, runs = sweep(TOPK, grid, source, QUICK, progress=False)
    assert table[["k", "lr", "seed"]].values.tolist() == [
        [k, lr, seed] for k in (2, 4) for lr in (1e-3, 1e-2) for seed in (0, 1)
    ]
    held_out = source.held_out(10**6).x
    for row, run in zip(table.itertuples(), runs, strict=True):
        assert (run.sae.k, run.plan.lr, run.plan.seed) == (row.k, row.lr, row.seed)
        assert row.ev == pytest.approx(explained_variance(held_out, run.sae(held_out)), abs=1e-5)
        assert row.l0 == pytest.approx((run.sae.encode(held_out) != 0).sum(dim=1).float().mean().item(), abs=1e-4)
        assert row.loss == run.log["loss"].iloc[-1] and row.measured_on == "held-out data"
    assert table.groupby("lr")["ev"].mean()[1e-2] > table.groupby("lr")["ev"].mean()[1e-3]


def test_runs_side_by_side_are_those_that_run_alone(source):
    grid = {"k": [2, 3], "lr": [1e-3, 1e-2], "n_tokens": [64 * 20, 64 * 30]}
    read = []
    batches = source.batches
    counted = StoreSource(source.store, HOOK, buffer_tokens=256)
    counted.batches = lambda *args: (read.append(1) or batch for batch in batches(*args))
    table, runs = sweep(TOPK, grid, counted, QUICK, progress=False)
    assert len(read) == 30  # one pass for all eight
    for row, run in zip(table.to_dict("records"), runs, strict=True):
        alone = train(
            make_sae(**TOPK, d_in=D, k=row["k"]),
            source,
            QUICK.replace(lr=row["lr"], n_tokens=row["n_tokens"]),
            progress=False,
        )
        assert torch.equal(alone.sae.W_dec, run.sae.W_dec) and torch.equal(alone.sae.b_dec, run.sae.b_dec)


def test_architectures_and_widths_can_be_swept_too(source):
    grid = {"architecture": ["relu", "jumprelu", "gated"], "d_sae": [16, 32]}
    table, runs = sweep({"d_sae": 20}, grid, source, QUICK, progress=False)
    wanted = list(zip(table["architecture"], table["d_sae"], strict=True))
    assert len(wanted) == 6 and [(run.sae.architecture, run.sae.d_sae) for run in runs] == wanted


def test_a_function_may_make_the_saes(source):
    asked = []

    def make(**settings):
        asked.append(settings)
        return fresh("relu", l1=settings["l1"], seed=settings["seed"])

    table, _ = sweep(make, {"l1": [0.1, 5.0], "lr": [1e-2]}, source, QUICK.replace(l1_warmup=0.0), progress=False)
    assert asked == [{"l1": 0.1, "seed": 0}, {"l1": 5.0, "seed": 0}]
    assert table["l0"][0] > table["l0"][1] + 1  # a higher coefficient, fewer latents


def test_a_finished_run_is_not_run_again_and_one_cut_off_goes_on(source, tmp_path, monkeypatch):
    grid = {"k": [2, 3, 4]}
    whole, _ = sweep(TOPK, grid, source, QUICK, tmp_path / "whole", progress=False)
    for k, n in ((2, 30), (3, 17)):  # one finished, one in the middle (its checkpoint is that of step 14)
        run = Run(make_sae(**TOPK, d_in=D, k=k), source, QUICK, tmp_path / "cut" / f"k={k}")
        with run:
            for _, batch in zip(range(n), run.batches(), strict=False):
                run.advance(batch)
        if n == 30:
            run.finish()
    made = steps_of(monkeypatch)
    table, _ = sweep(TOPK, grid, source, QUICK, tmp_path / "cut", progress=False)
    assert len(made) == (30 - 14) + 30
    numbers_of = ["k", "ev", "l0", "silent", "dead", "loss"]
    pd.testing.assert_frame_equal(table[numbers_of], whole[numbers_of])
    made.clear()
    again, runs = sweep(TOPK, grid, source, QUICK, tmp_path / "cut", progress=False)
    assert not made and runs[0].sae.k == 2
    pd.testing.assert_frame_equal(again, table)
    assert list(pd.read_csv(tmp_path / "cut" / "table.csv")["k"]) == [2, 3, 4]


def test_a_sweep_that_grows_keeps_what_it_has(source, tmp_path, monkeypatch):
    sweep(TOPK, {"k": [2]}, source, QUICK, tmp_path, progress=False)
    made = steps_of(monkeypatch)
    table, _ = sweep(TOPK, {"k": [2, 5]}, source, QUICK, tmp_path, progress=False)
    assert len(made) == 30 and table["k"].tolist() == [2, 5]


def test_a_run_that_diverges_is_a_row_and_the_others_go_on(source):
    plan = QUICK.replace(log_every=1)
    table, runs = sweep({"architecture": "relu", "d_sae": 40}, {"lr": [50.0, 1e-2]}, source, plan, progress=False)
    assert runs[0] is None and math.isnan(table["ev"][0]) and "Lower the learning rate" in table["note"][0]
    assert runs[1] is not None and table["ev"][1] > 0.3 and table["note"][1] == ""


def test_what_the_model_loses_is_a_column(source):
    table, _ = sweep(TOPK, {"k": [2, 3]}, source, QUICK, delta_ce=lambda sae: float(sae.cfg.k), progress=False)
    assert table["delta_ce"].tolist() == [2.0, 3.0]


def test_without_held_out_data_the_table_says_so():
    table, _ = sweep(TOPK, {"k": [2]}, TensorSource(numbers(1000)), QUICK, progress=False)
    assert table["measured_on"].tolist() == ["training data"]


def test_silent_latents_are_those_that_never_fire():
    sae = fresh("relu")
    with torch.no_grad():
        sae.b_enc[:10] = -1000.0
    found = measure(sae, TensorSource(numbers(500)).sample())
    assert found["silent"] == pytest.approx(10 / 40, abs=0.05) and found["silent"] >= 10 / 40


@pytest.mark.parametrize(
    ("make", "grid", "says"),
    [
        (TOPK, {}, "grid must map at least one name"),
        (TOPK, {"k": 3}, r"grid\['k'\] must be a list"),
        (TOPK, {"k": []}, r"grid\['k'\] must be a list"),
        (TOPK, {"architecture": "relu"}, r"grid\['architecture'\] must be a list"),
        (TOPK, {"k": [2, 41]}, "k must be at most d_sae, got k = 41"),
        (TOPK, {"l1": [1.0]}, "'l1'"),
        (TOPK, {"lr": [1e-3, -1]}, "lr must be a number above 0"),
        ({"d_sae": 40}, {"k": [2]}, "does not say 'architecture'"),
        ({"architecture": "topk"}, {"k": [2]}, "does not say 'd_sae'"),
    ],
)
def test_a_bad_grid_is_refused_before_the_first_step(source, tmp_path, make, grid, says, monkeypatch):
    made = steps_of(monkeypatch)
    with pytest.raises(InputError, match=says):
        sweep(make, grid, source, QUICK, tmp_path / "runs", progress=False)
    assert not made and not (tmp_path / "runs").exists()
