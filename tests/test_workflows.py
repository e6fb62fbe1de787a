"""GitHub Actions: well formed, safe, and nothing in it that cannot be run by hand."""

import re
import subprocess
import sys
from pathlib import Path

import newest
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
JOBS = [(file.name, name) for file in FILES for name in yaml.safe_load(file.read_text("utf8"))["jobs"]]
MAKEFILE = (ROOT / "Makefile").read_text("utf8")
TARGETS = set(re.findall(r"^([a-z]+):", MAKEFILE, re.M))
PINNED = re.compile(r"^\s*-? ?uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")
PROGRAMS = Path(sys.executable).parent
SCHEMA = [str(PROGRAMS / "check-jsonschema"), "--builtin-schema", "vendor.github-workflows"]
AUDIT = [str(PROGRAMS / "zizmor"), "--offline", "--persona", "pedantic", "--no-progress"]
every_job = pytest.mark.parametrize(("file", "name"), JOBS)


def workflow(file):
    return yaml.safe_load((ROOT / ".github" / "workflows" / file).read_text("utf8"))


def ran(command, *files):
    return subprocess.run([*command, *map(str, files)], cwd=ROOT, capture_output=True, text=True)


def test_they_are_well_formed_and_safe():
    assert FILES
    for command in (SCHEMA, AUDIT):
        done = ran(command, *FILES)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_linters_would_have_found_a_mistake(tmp_path):
    text = FILES[0].read_text("utf8")
    (tmp_path / "typo.yml").write_text(text.replace("runs-on:", "run-on:"))
    assert ran(SCHEMA, tmp_path / "typo.yml").returncode != 0
    unsafe = text.replace("- run: make test", '- run: echo "${{ github.event.pull_request.title }}"')
    (tmp_path / "unsafe.yml").write_text(unsafe)
    found = ran(AUDIT, tmp_path / "unsafe.yml")
    assert unsafe != text and "template-injection" in found.stdout, found.stderr


@every_job
def test_every_job_is_a_target_of_the_makefile(file, name):
    """What is run is `make something`, once; the rest are published actions: a checkout, a Python, a cache, Pages."""
    steps = workflow(file)["jobs"][name]["steps"]
    commands = [step["run"] for step in steps if "run" in step]
    if name == "publish":  # only GitHub can hand a site to GitHub
        assert commands == [] and [step["uses"].split("@")[0] for step in steps] == ["actions/deploy-pages"]
        return
    (command,) = commands
    assert command.split()[0] == "make" and command.split()[1] in TARGETS and len(command.split()) == 2
    setups = [step for step in steps if step.get("uses", "").startswith("actions/setup-python@")]
    python = steps[commands_at(steps)]["env"]["PYTHON"]  # without it, make would take an older one that is there, too
    assert python == f"python{setups[0]['with']['python-version']}"


def commands_at(steps):
    return next(i for i, step in enumerate(steps) if "run" in step)


@every_job
def test_every_job_may_do_what_it_needs_and_has_a_limit(file, name):
    whole = workflow(file)
    job = whole["jobs"][name]
    assert whole["permissions"] == {} and "pull_request_target" not in whole[True]  # YAML reads `on` as true
    allowed = {"pages": "write", "id-token": "write"} if name == "publish" else {"contents": "read"}
    assert job["permissions"] == allowed
    assert 0 < job["timeout-minutes"] <= 180
    for step in job["steps"]:
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def test_actions_are_pinned_by_their_hash():
    used = [line for file in FILES for line in file.read_text("utf8").splitlines() if "uses:" in line]
    assert used and [line for line in used if not PINNED.match(line)] == []
    hashes = {}
    for line in used:
        action, commit = line.split("uses: ")[1].split(" #")[0].split("@")
        hashes.setdefault(action, set()).add(commit)
    assert all(len(commits) == 1 for commits in hashes.values()), hashes


def test_every_supported_python_is_tested_on_linux_and_macos():
    matrix = workflow("checks.yml")["jobs"]["test"]["strategy"]["matrix"]
    looked_for = re.search(r"for python in \$\$PYTHON (.*?) python3 python;", MAKEFILE)[1].split()
    assert [f"python{version}" for version in matrix["python"]] == looked_for
    assert {system.split("-")[0] for system in matrix["system"]} == {"ubuntu", "macos"}


def test_only_the_notebooks_results_are_kept_between_runs():
    """And only for the same system, the same Python, the same code and the same lock."""
    caches = {}
    for file, name in JOBS:
        for step in workflow(file)["jobs"][name]["steps"]:
            if step.get("uses", "").startswith("actions/cache"):
                caches[name] = step["with"]
    assert set(caches) == {"test"}, "what is published, and what is built cold, is built from nothing"
    kept = caches["test"]
    assert kept["path"] == "_build/.jupyter_cache"
    for key in (kept["key"], kept["restore-keys"]):
        for part in ("matrix.system", "matrix.python", "'solutions/**'", "'labs/**/*.py'", "'constraints.txt'"):
            assert part in key
    assert kept["key"].startswith(kept["restore-keys"])


def test_the_newest_versions_fail_nobody_else():
    jobs = workflow("weekly.yml")["jobs"]
    assert jobs["newest"]["continue-on-error"] is True and "continue-on-error" not in jobs["cold"]
    assert workflow("weekly.yml")[True]["schedule"]


def test_nothing_is_published_unless_somebody_asked_for_it():
    jobs = workflow("checks.yml")["jobs"]
    assert jobs["site"]["needs"] == "test" and jobs["publish"]["needs"] == "site"
    assert "vars.PUBLISH_SITE == 'true'" in jobs["site"]["if"] and "pull_request" in jobs["site"]["if"]


# ---- make newest


def test_every_direct_dependency_is_set_free():
    wanted = newest.loosened("# a comment\ntorch==2.13.0   # why\n\njupyter-book==1.0.4.post1\n")
    assert wanted == ["torch>=2.13.0", "jupyter-book>=1.0.4.post1,<2"]
    listed = newest.loosened((ROOT / "requirements.txt").read_text("utf8"))
    assert len(listed) > 30 and not [line for line in listed if "==" in line]
    assert set(newest.CEILINGS) <= {line.split(">=")[0] for line in listed}


def test_what_differs_from_the_lock_is_told():
    lock = "# by pip\nSphinx==7.4.7\ntorch==2.13.0\nold-one==1.0\n"
    installed = {"sphinx": "7.4.7", "torch": "2.14.0", "new_one": "0.1", "monosemantic": "0.1.0"}
    assert newest.news(lock, installed) == ["new-one (not there) -> 0.1", "torch 2.13.0 -> 2.14.0"]
