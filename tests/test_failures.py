"""The stored failed runs: what is there, what the plans say, and that a run is really trained as its fault says."""

import json

import pytest
import torch

from solutions.errors import InputError
from solutions.sae import failed_run, failed_runs
from solutions.sae.training import failures as stored
from solutions.sae.training import make_failures as making

COLUMNS = list(stored.COLUMNS)


def test_every_run_is_there_with_every_seed_and_no_number_missing():
    for seed in stored.SEEDS:
        runs = failed_runs(seed)
        assert list(runs) == list(stored.FAULTS) and len(runs) == 8
        for name, table in runs.items():
            assert list(table) == COLUMNS and len(table) >= 20, name
            assert table.notna().all(axis=None) and table["step"].is_monotonic_increasing
    assert not failed_run(stored.HEALTHY, 0).equals(failed_run(stored.HEALTHY, 1))


def test_the_plans_on_disk_are_those_in_the_code():
    assert json.loads((stored.FOLDER / stored.PLANS).read_text()) == json.loads(json.dumps(making.plans()))
    assert {path.name for path in stored.FOLDER.iterdir()} == {
        stored.PLANS,
        *map(stored.file_of, stored.FAULTS),
    }


def test_every_fault_shows_as_chapter_and_lab_say():
    last = {name: table.iloc[-1] for name, table in failed_runs().items()}
    healthy = last.pop(stored.HEALTHY)
    assert healthy["ev_test"] > 0.85 and healthy["dead"] < 0.05 and 10 < healthy["l0_test"] < 40
    assert last["collapsed threshold"]["l0_test"] > 2 * last["collapsed threshold"]["l0"]
    assert last["no decoder norm"]["decoder_norm"] > 1.5
    assert last["dead flood"]["dead"] > 0.5
    assert last["L1 too high"]["l0"] < 1 and last["learning rate too high"]["ev_test"] < 0.6
    assert last["BOS left in"]["ev"] > last["BOS left in"]["ev_test"] + 0.03
    jumps = {name: failed_run(name)["ev"].iloc[12:].std() for name in ("unshuffled data", stored.HEALTHY)}
    assert jumps["unshuffled data"] > 3 * jumps[stored.HEALTHY]


def test_unknown_runs_and_seeds_are_refused():
    with pytest.raises(InputError, match="L1 too high"):
        failed_run("L1 to high")
    with pytest.raises(InputError, match="seed must be one of 0, 1, 2"):
        failed_run("L1 too high", 7)


@pytest.fixture
def short(monkeypatch):
    """Runs of a few steps on random activations."""
    monkeypatch.setattr(making, "SIZE", 24)
    monkeypatch.setattr(
        making, "COMMON", stored.COMMON | {"n_tokens": 640, "batch_size": 32, "dead_after": 320}
    )
    x = torch.randn(400, 6, generator=torch.Generator().manual_seed(0)) + 1
    return making.Data(x, x * 3, x, x[:50])


@pytest.mark.parametrize("name", stored.FAULTS)
def test_a_run_is_trained_and_measured(name, short, monkeypatch):
    if "k" in stored.FAULTS[name].sae:
        spec = stored.FAULTS[name]
        monkeypatch.setitem(stored.FAULTS, name, spec._replace(sae=spec.sae | {"k": 4}))
    table = making.run_fault(name, 0, short)
    assert list(table) == COLUMNS and table["step"].tolist() == [1, 10, 20]
    assert table["loss"].nunique() == 3
    norms = table["decoder_norm"]
    assert (abs(norms - 1) < 1e-3).all() != (name == "no decoder norm")


def test_in_order_deals_stretches():
    source = making.InOrder(torch.arange(40.0)[:, None].expand(40, 2))
    batches = source.batches(8, seed=1)
    first, second = next(batches).x[:, 0], next(batches).x[:, 0]
    assert ((torch.cat([first, second]).diff() % 40) == 1).all()


def test_the_slow_threshold_starts_at_zero_and_lags():
    sae = making.FromZero(4, 8, k=2)
    sae.losses(torch.randn(16, 4, generator=torch.Generator().manual_seed(0)))
    border = float(sae.batch_threshold)
    sae.after_step()
    assert border > 0 and float(sae.threshold) == pytest.approx(border / 1000)
