"""`make bench`: run every benchmark, print one table of ratios, and write it to _build/bench.json.

A benchmark is a module `bench_*.py` in this folder with a function `run(quick: bool) -> list[dict]`. Each row says
what was measured, and where something is promised, the limit and whether it is kept:

    {"name": "harvest / forward pass", "value": 1.06, "unit": "×", "limit": 1.10, "ok": True, "note": "…"}

Seconds depend on the machine and on what else it does. So nearly everything here is a ratio of two things that were
measured in turns, in one run, on one machine. Nothing in `make test` asserts a time.

    python -m tests.benchmarks            all benchmarks
    python -m tests.benchmarks --quick    smaller sizes: does it run at all
    python -m tests.benchmarks harvest    only bench_harvest
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REPORT = ROOT / "_build" / "bench.json"
FIELDS = ("name", "value", "unit", "limit", "ok", "note")


def machine() -> str:
    """The machine in general terms: no name, no path."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return (
        f"{platform.system()} {platform.machine()}, {cores} core(s), {torch.get_num_threads()} thread(s), {gpu}{load}; "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


def benchmarks() -> list[str]:
    """Names of the benchmarks in this folder."""
    return sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))


def table(rows: list[dict]) -> str:
    """The rows as text, one to a line; what is measured without a promise has no verdict."""
    lines = [["measured", "value", "limit", "", "note"]]
    for row in rows:
        value = "-" if row["value"] is None else f"{row['value']:,.3g} {row.get('unit', '')}"
        if row["value"] is not None and abs(row["value"]) >= 1000:
            value = f"{row['value']:,.0f} {row.get('unit', '')}"
        limit = "" if row.get("limit") is None else f"{row['limit']:,.3g}"
        verdict = {True: "kept", False: "BROKEN", None: ""}[row.get("ok")]
        lines.append([row["name"], value.strip(), limit, verdict, row.get("note", "")])
    widths = [max(len(line[i]) for line in lines) for i in range(5)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for. The exit code is 1 when a promise is broken or a benchmark fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(benchmarks())}; by default all")
    parser.add_argument("--quick", action="store_true", help="smaller sizes, for a look at whether it runs")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in benchmarks()]
    if unknown:
        parser.error(f"unknown benchmark {', '.join(unknown)}; there are: {', '.join(benchmarks())}")
    rows, failed = [], []
    for name in options.names or benchmarks():
        print(f"running {name} …", file=sys.stderr, flush=True)
        try:
            rows += importlib.import_module(f"tests.benchmarks.bench_{name}").run(options.quick)
        except Exception as error:  # the others still have something to say
            failed.append(name)
            print(f"{name} failed: {type(error).__name__}: {error}", file=sys.stderr)
    surroundings = machine() + (" — quick sizes: do not quote" if options.quick else "")
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    report = {"machine": surroundings, "rows": [{k: r[k] for k in FIELDS if k in r} for r in rows]}
    REPORT.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"\n{surroundings}\n\n{table(rows)}")
    return int(bool(failed) or any(row.get("ok") is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
