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
