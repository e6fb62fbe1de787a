"""`make test`: every check of the repository, in the order in which a failure is cheapest to learn about.

Each step runs even when an earlier one failed. At the end stand the steps with their times, what was skipped
and why, and how many tests passed. The exit code is 0 only when nothing failed.

    python tests/run.py                 all steps
    python tests/run.py unit browser    only these
"""

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book"))
import build  # noqa: E402  the chapters are tested in the environment the site is built in

REPORTS = ROOT / "_build" / "tests"
PYTEST = ["-m", "pytest", "-q", "-p", "no:cacheprovider"]
TWO_AT_A_TIME = ["-n", "2", "--dist", "loadfile"]  # loadfile: one notebook's cells must stay in one kernel
CELL_TIMEOUT = "120"  # seconds

#: name -> arguments for this Python. The order matters only for the reader.
STEPS = {
    "lint": ["-m", "ruff", "check", "."],
    "spelling": ["-m", "codespell_lib", "."],
    "labs": ["solutions/make_labs.py", "--check"],
    "unit": [*PYTEST, *TWO_AT_A_TIME, "--no-loadscope-reorder", "-m", "not browser", "tests"],  # ours: conftest.py
    "notebooks": [
        *PYTEST, *TWO_AT_A_TIME, "--nbval-lax", "--nbval-current-env",
        "--nbval-cell-timeout", CELL_TIMEOUT, "book", "solutions", "labs",
    ],
    "site": ["book/build.py"],
    # Each process has its own Chromium; tests that share a page or a server stay in one (tests/conftest.py).
    "browser": [*PYTEST, "-n", "2", "--dist", "loadscope", "-m", "browser", "tests"],
}


@dataclass
class Result:
    """What one step did: exit code, seconds, tests by outcome, and the reasons for what was skipped."""

    code: int
    seconds: float
    outcomes: Counter = field(default_factory=Counter)
    skipped: Counter = field(default_factory=Counter)


def read_report(path: Path, result: Result) -> None:
    """Count the tests of a JUnit report into `result`."""
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        tags = {child.tag for child in case}
        if tags & {"failure", "error"}:
            result.outcomes["failed"] += 1
        elif "skipped" in tags:
            result.outcomes["skipped"] += 1
            result.skipped[case.find("skipped").get("message", "no reason given")] += 1
        else:
            result.outcomes["passed"] += 1


def run_step(name: str, keep_results: bool = False) -> Result:
    """Run one step, its output going straight to the terminal."""
    print(f"\n=== {name} " + "=" * (70 - len(name)), flush=True)
    report = REPORTS / f"{name}.xml"
    report.unlink(missing_ok=True)
    options = [f"--junitxml={report}", "-o", "junit_family=xunit2"] if "pytest" in STEPS[name] else []
    if keep_results:
        options += ["--keep-results", str(build.cache_of(build.what_results_follow_from()))]
    start = time.monotonic()
    # Two processes share the cores. The unit tests take one thread each: some compare bit by bit, some fork.
    threads = 1 if name == "unit" else max(1, (os.cpu_count() or 1) // 2)
    surroundings = build.environment() | ({"OMP_NUM_THREADS": str(threads)} if TWO_AT_A_TIME[0] in STEPS[name] else {})
    code = subprocess.run([sys.executable, *STEPS[name], *options], cwd=ROOT, env=surroundings).returncode
    result = Result(code, time.monotonic() - start)
    if report.exists():
        read_report(report, result)
    elif not code:
        result.outcomes["passed"] += 1  # lint, spelling and the like count as one test each
    if code and not result.outcomes["failed"]:
        result.outcomes["failed"] += 1
    return result


def summarise(results: dict[str, Result]) -> None:
    print("\n=== summary " + "=" * 63)
    for name, result in results.items():
        counts = ", ".join(f"{n} {outcome}" for outcome, n in sorted(result.outcomes.items()))
        print(f"  {'FAILED' if result.code else 'ok':7}{name:11}{result.seconds:6.0f} s   {counts}")
    reasons = sum((result.skipped for result in results.values()), Counter())
    print("\nSkipped:" if reasons else "\nNothing was skipped.")
    for reason, count in reasons.most_common():
        print(f"  {count} × {reason}")
    total = sum((result.outcomes for result in results.values()), Counter())
    print(f"\n{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in STEPS]
    if unknown:
        print(f"Unknown step: {', '.join(unknown)}. The steps are: {', '.join(STEPS)}.", file=sys.stderr)
        return 2
    REPORTS.mkdir(parents=True, exist_ok=True)
    names = names or list(STEPS)
    # What the chapters show is kept for a site that is built right afterwards, and for no other: `make newest` runs
    # the same notebooks with other libraries.
    results = {name: run_step(name, keep_results=name == "notebooks" and "site" in names) for name in names}
    summarise(results)
    return int(any(result.code for result in results.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
