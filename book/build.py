"""Build the site: run the chapters whose results could have changed, then let Sphinx make the pages.

Three things Jupyter Book does not do by itself are done here.

* Its cache of executed notebooks looks at the notebooks only. A chapter also depends on the modules it calls, on the
  artefacts they load, on the pinned libraries and on the target, so the cache is thrown away when any of these changes.
* It runs one notebook after the other. `run_chapters.py` runs as many at a time as there are processor cores.
* After a build that failed on a warning, an unchanged second run reports success, because the page with the warning is
  not read again. So the pages are made anew after a failure.

Usage: `python book/build.py`. The exit code is 0 only when every page was built without a warning. `--cold` forgets
everything that was built before; `--pages` also lays the site out in `_build/pages`, for any host of plain files.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
SITE = BUILD / "html"
STATE = BUILD / "state.json"
CACHE = ".jupyter_cache"  # below BUILD: the executed notebooks, which are kept as long as they hold
MADE_PAGES = (".doctrees", "html", "jupyter_execute")  # below BUILD: what Sphinx makes of them
MADE_FROM = ".made_from"  # in the cache itself: wherever the cache is carried, it says what its results follow from

# What a chapter's results depend on besides its own text, and what the look of every page depends on.
RESULTS = ["solutions/**/*.py", "solutions/visualization/browser.*", "labs/**/*.py", "solutions/sae/training/failed/*",
           "solutions/smallworld/artifacts/**/*", "*.txt", "pyproject.toml"]
PAGES = ["_config.yml", "_toc.yml", "book/_ext/*.py", "book/build.py"]


def fingerprint(patterns: list[str], *extra: str) -> str:
    """One hash over the names and contents of all files that match, and over `extra`; hidden folders do not count."""
    digest = hashlib.sha256("\0".join(extra).encode())
    for path in sorted({p for pattern in patterns for p in ROOT.glob(pattern) if p.is_file()}):
        if any(part.startswith(".") for part in path.relative_to(ROOT).parts):
            continue
        digest.update(path.relative_to(ROOT).as_posix().encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def environment() -> dict[str, str]:
    """The environment of the build and the tests: notebooks run in this interpreter and leave the home alone.

    A kernel listens on this machine only; its reminder that this is not encrypted would fail a build in which
    every line on stderr counts.
    """
    private = BUILD / "jupyter"
    profile = private / "ipython" / "profile_default"
    profile.mkdir(parents=True, exist_ok=True)
    settings = {"Application": {"log_level": "ERROR"}, "HistoryManager": {"hist_file": ":memory:"}}
    (profile / "ipython_kernel_config.json").write_text(json.dumps(settings))
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "JUPYTER_PREFER_ENV_PATH": "1",
        "JUPYTER_CONFIG_DIR": str(private / "config"),
        "JUPYTER_RUNTIME_DIR": str(private / "runtime"),
        "IPYTHONDIR": str(private / "ipython"),
        "PYTHONWARNINGS": "ignore",  # a library's deprecation notes do not belong on a page
        "TOKENIZERS_PARALLELISM": "false",
        "NO_COLOR": "1",
    }


def forget(*folders: str) -> None:
    """Delete folders of the build."""
    for folder in folders:
        shutil.rmtree(BUILD / folder, ignore_errors=True)


def what_results_follow_from() -> str:
    """The fingerprint of everything that a chapter's results depend on besides its own text."""
    return fingerprint(RESULTS, sys.version, os.environ.get("MONOSEMANTIC_TARGET", ""))


def cache_of(results: str) -> Path:
    """The cache of executed notebooks; an empty one when what is in it follows from something else than `results`."""
    cache = BUILD / CACHE
    made_from = cache / MADE_FROM
    if not made_from.is_file() or made_from.read_text("utf8") != results:
        shutil.rmtree(cache, ignore_errors=True)
        cache.mkdir(parents=True)
        made_from.write_text(results, "utf8")
    return cache


def forget_what_is_stale(now: dict[str, str]) -> None:
    """Delete cached results and pages that no longer follow from what is in the repository."""
    try:
        before = json.loads(STATE.read_text())
    except (OSError, ValueError):
        before = {}
    cache_of(now["results"])
    if before != now | {"ok": True}:
        forget(*MADE_PAGES)
    STATE.unlink(missing_ok=True)


def run_chapters() -> None:
    """Run what is not in the cache. Its exit code does not matter: Sphinx runs, and reports, what is missing."""
    subprocess.run([sys.executable, str(ROOT / "book" / "run_chapters.py")], cwd=ROOT, env=environment())


def jupyter_book() -> int:
    """Run Jupyter Book with warnings as errors; returns its exit code.

    Warnings come through on stderr. Of the many lines on stdout only those about notebooks are shown, because these
    are what takes the time.
    """
    program = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    command = [*program, "build", str(ROOT), "-W", "-n", "--keep-going"]
    with subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if "[mystnb]" in line and "xecut" in line and "Excluded" not in line:
                print(line.replace(f"{ROOT}{os.sep}", "").replace("[mystnb]", "").strip(), flush=True)
    return process.returncode


def lay_out_pages() -> None:
    """Copy the site to `_build/pages`, as a host of plain files wants it: without reports of ours, without Jekyll."""
    pages = BUILD / "pages"
    shutil.rmtree(pages, ignore_errors=True)
    shutil.copytree(SITE, pages, ignore=shutil.ignore_patterns("reports", ".buildinfo", ".doctrees"))
    (pages / ".nojekyll").touch()  # GitHub would leave out every folder whose name begins with an underscore
    print(f"To be published: {pages}")


def main(arguments: Sequence[str] = ()) -> int:
    parser = argparse.ArgumentParser(prog="python book/build.py", description=__doc__.splitlines()[0])
    parser.add_argument("--cold", action="store_true", help="forget everything that was built before")
    parser.add_argument("--pages", action="store_true", help="also lay the site out in _build/pages")
    options = parser.parse_args(arguments)
    start = time.monotonic()
    BUILD.mkdir(exist_ok=True)
    if options.cold:
        forget(CACHE, *MADE_PAGES)
    now = {"results": what_results_follow_from(), "pages": fingerprint(PAGES)}
    forget_what_is_stale(now)

    run_chapters()
    code = jupyter_book()
    for report in sorted(SITE.glob("reports/**/*.err.log")):
        print(f"\n{report.relative_to(ROOT)}:\n{report.read_text('utf8')}", file=sys.stderr)

    STATE.write_text(json.dumps(now | {"ok": code == 0}))
    if code:
        print("\nThe site was not built cleanly: every warning above counts as an error.", file=sys.stderr)
        return code
    print(f"\nThe site is ready ({time.monotonic() - start:.0f} s). Open it in a browser:\n")
    print(f"    {SITE / 'index.html'}\n")
    if options.pages:
        lay_out_pages()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
