"""What the pages for contributors and instructors say about the repository is so."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
CONTRIBUTING = (ROOT / "book" / "contributing.md").read_text("utf8")
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf8"))


def test_the_citation_is_well_formed():
    program = Path(sys.executable).with_name("check-jsonschema")
    command = [str(program), "--builtin-schema", "vendor.citation-file-format", str(ROOT / "CITATION.cff")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_place_names_the_same_version_title_and_author():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["project"]
    assert CITATION["version"] == project["version"] and CITATION["license"] == project["license"]
    (bibtex,) = re.findall(r"^```bibtex\n(.*?)^```", CONTRIBUTING, re.M | re.S)
    for said in (CITATION["version"], CITATION["title"], CITATION["authors"][0]["name"]):
        assert f"{{{said}}}" in bibtex


def test_the_jobs_on_the_page_are_those_that_github_runs():
    by_hand = set(re.findall(r"\| `(make \w+)` \|", CONTRIBUTING))
    run = {"make workflows"}
    for file in (ROOT / ".github" / "workflows").glob("*.yml"):
        run |= {step["run"] for job in yaml.safe_load(file.read_text("utf8"))["jobs"].values()
                for step in job["steps"] if "run" in step}
    assert by_hand == run


def test_the_switch_for_publishing_is_the_one_that_the_workflow_reads():
    assert "`PUBLISH_SITE` with the value `true`" in CONTRIBUTING
    assert "vars.PUBLISH_SITE == 'true'" in (ROOT / ".github" / "workflows" / "checks.yml").read_text("utf8")


def test_what_contributors_are_told_to_run_is_there():
    sys.path.insert(0, str(ROOT / "tests"))
    import run

    for steps in re.findall(r"tests/run\.py ([a-z ]+?)(?: +#|$)", CONTRIBUTING, re.M):
        assert set(steps.split()) <= set(run.STEPS), steps
    for path in re.findall(r"pytest (tests/\w+\.py)", CONTRIBUTING):
        assert (ROOT / path).exists()


def test_the_exit_codes_and_options_of_the_grader_are_those_on_the_page():
    from labs.checks import __main__ as command

    page = (ROOT / "book" / "instructors.md").read_text("utf8")
    for code in (command.OK, command.INCOMPLETE, command.USAGE, command.INTERRUPTED):
        assert re.search(rf"\b{code} when", page)
    spoken_of = set(re.findall(r"(?<![-\w])(--[a-z][a-z-]+)", page)) - {"--rm", "--network", "--always"}
    options = command.parser().parse_args(["grade", "x"]).__dict__
    assert spoken_of and {option[2:].replace("-", "_") for option in spoken_of} <= set(options)
