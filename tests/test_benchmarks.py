"""The frame around the benchmarks: what they report is shown whole, and a broken promise is not overlooked."""

import importlib
import inspect
import json

import pytest

from tests.benchmarks import __main__ as bench

ROWS = [
    {"name": "a / b", "value": 1.0512, "unit": "×", "limit": 1.1, "ok": True, "note": "of five pairs"},
    {"name": "speed", "value": 123456.7, "unit": "tokens/s"},
    {"name": "their tool", "value": None, "unit": "×", "limit": 20, "ok": None, "note": "not here"},
]


def test_every_benchmark_can_be_run_by_name():
    assert "harvest" in bench.benchmarks()
    for name in bench.benchmarks():
        run = importlib.import_module(f"tests.benchmarks.bench_{name}").run
        assert list(inspect.signature(run).parameters) == ["quick"]


def test_the_table_shows_value_limit_and_verdict():
    lines = bench.table([*ROWS, {**ROWS[0], "ok": False}]).splitlines()
    assert lines[1].split() == ["a", "/", "b", "1.05", "×", "1.1", "kept", "of", "five", "pairs"]
    assert "123,457 tokens/s" in lines[2] and " - " in lines[3] and "BROKEN" in lines[4]


def test_a_broken_promise_or_a_failed_benchmark_is_the_exit_code(tmp_path, monkeypatch, capsys):
    rows = list(ROWS)

    class Fake:
        @staticmethod
        def run(quick):
            if not rows:
                raise RuntimeError("no rows")
            return rows

    monkeypatch.setattr(bench, "REPORT", tmp_path / "build" / "bench.json")
    monkeypatch.setattr(bench, "benchmarks", lambda: ["fake"])
    monkeypatch.setattr(bench.importlib, "import_module", lambda name: Fake)
    assert bench.main(["--quick"]) == 0
    report = json.loads(bench.REPORT.read_text(encoding="utf-8"))
    assert report["rows"] == ROWS and "do not quote" in report["machine"] in capsys.readouterr().out
    rows[0] = {**ROWS[0], "ok": False}
    assert bench.main([]) == 1
    rows.clear()
    assert bench.main([]) == 1 and "fake failed: RuntimeError: no rows" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        bench.main(["unknown"])


def test_the_training_bench_compares_pairs_and_keeps_no_promise_at_quick_sizes(monkeypatch):
    from tests.benchmarks import bench_training as training

    assert training.ratio([(4.0, 1.0), (9.0, 1.0), (2.0, 1.0)], [(2.0, 2.0), (3.0, 1.0), (2.0, 1.0)]) == 2.0
    assert training.row("a", 2.0, least=2.5)["ok"] is False and training.row("a", 2.5, least=2.5)["ok"] is True
    assert training.row("a", None, least=2.5)["ok"] is None
    shape = training.QUICK[1]
    x = training.made_up(shape.d, 4 * shape.batch)
    (line,) = training.crossover_rows(shape, x, quick=True)
    assert line["note"].count("%") >= 4
    ours = training.Ours("relu", shape, x, l1=1.0)
    used = training.watched(ours.run)
    ours(), ours()
    assert used == ["dense", "dense"]
    monkeypatch.setattr(training, "QUICK", (shape,))
    for name in ("step_rows", "run_rows", "loss_rows", "crossover_rows"):
        monkeypatch.setattr(training, name, lambda *_, **__: [training.row("a", 1.0, least=2.0)])
    assert {line["ok"] for line in training.run(quick=True)} == {None}
