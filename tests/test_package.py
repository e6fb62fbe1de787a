"""The wheel holds all that runs, says what it needs, and is enough for somebody who has nothing else of ours."""

import ast
import functools
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from test_repository import FILES, PYTHON, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
PACKAGES = ("solutions", "labs")
MAKERS = {"solutions/make_labs.py"}  # makes the labs, and runs in the repository only
COMES_ALONG = {"ipython", "jupyter-client", "nbformat"}  # with the kernel and nbclient, where there are notebooks
CALLED = {"sklearn": "scikit-learn"}  # elsewhere a library is imported under the name it is installed by


# ---- what it needs


def pins():
    lines = (line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text("utf8").splitlines())
    return {canonicalize_name(name): pin for name, pin in (line.split("==") for line in lines if line)}


def names(requirements):
    return {canonicalize_name(Requirement(text).name) for text in requirements}


@pytest.mark.parametrize("text", [*PROJECT["dependencies"], *(text for extra in EXTRAS.values() for text in extra)])
def test_a_lower_bound_is_what_was_tested(text):
    """The pin without its last number, and nothing above it: an upper bound is for a version known to be broken."""
    wanted = Requirement(text)
    pin = pins()[canonicalize_name(wanted.name)]
    assert str(wanted.specifier) == ">=" + ".".join(pin.split(".")[:2])
    assert wanted.specifier.contains(pin)


@functools.cache
def imports_of(path):
    """The distributions that a file imports, from a reading of its source: nothing is run."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf8"))):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            modules = [node.module]
        found |= {module.split(".")[0] for module in modules}
    return {canonicalize_name(CALLED.get(top, top)) for top in found - sys.stdlib_module_names - set(PACKAGES)}


def imported(*folders, but=()):
    """All that the files of some folders import."""
    named = {path: path.relative_to(ROOT).as_posix() for path in PYTHON}
    chosen = [path for path, name in named.items() if name.startswith(folders) and not name.startswith(tuple(but))]
    return set().union(*map(imports_of, chosen))


def test_what_is_imported_is_what_is_declared():
    needed = imported("solutions/", but=("solutions/app/", *MAKERS)) - COMES_ALONG
    assert needed == names(PROJECT["dependencies"])
    assert imported("solutions/app/") <= needed | names(EXTRAS["app"])
    assert imported("labs/") <= needed | names(EXTRAS["labs"]) | COMES_ALONG


# ---- what is in it


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy: a build leaves things behind."""
    place = tmp_path_factory.mktemp("package")
    for path in FILES:
        name = path.relative_to(ROOT)
        if name.parts[0] in {*PACKAGES, "pyproject.toml", "README.md", "LICENSE"}:
            (place / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place / "source" / name)
    pip(place / "source", "wheel", ".", "--no-build-isolation", "--wheel-dir", str(place))
    (made,) = place.glob("*.whl")
    return made


def pip(folder, *arguments):
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--no-deps", "--no-index", "--no-input"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_wheel_holds_what_git_keeps_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    ours = {path.relative_to(ROOT).as_posix() for path in FILES}
    assert inside == {name for name in ours if name.split("/")[0] in PACKAGES}


# ---- somebody who has nothing else of ours


@pytest.fixture(scope="module")
def elsewhere(wheel, tmp_path_factory):
    """The wheel installed into a folder, and a way to run a script of it from another folder.

    Without `site` (-S) Python reads no .pth files, so the repository, which `make` installs with one, is nowhere on
    the path: what is not in the wheel cannot be found.
    """
    site, folder = wheel.parent / "site", tmp_path_factory.mktemp("elsewhere")
    pip(wheel.parent, "install", str(wheel), "--no-compile", "--target", str(site))
    path = os.pathsep.join([str(site), sysconfig.get_path("purelib")])
    hidden = ("PYTHON", "MONOSEMANTIC", "HF_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}

    def run(*arguments):
        return subprocess.run([sys.executable, "-S", *map(str, arguments)], cwd=folder, capture_output=True, text=True,
                              env=environment | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"})

    command = site / "bin" / "monosemantic"
    return SimpleNamespace(run=run, folder=folder, site=site,
                           command=lambda *arguments: run(command, *arguments))


def test_the_command_is_installed_and_answers_at_once(elsewhere):
    said = elsewhere.command("version")
    assert said.returncode == 0 and f"monosemantic      {PROJECT['version']}\n" in said.stdout, said.stderr
    for arguments in (["--help"], ["app", "--help"]):
        said = elsewhere.command(*arguments)
        assert said.returncode == 0 and said.stdout.startswith("usage: monosemantic"), said.stderr
    said = elsewhere.command("indexx")
    assert said.returncode == 2 and "invalid choice: 'indexx'" in said.stderr


USE = """
import importlib.util, json, sys
from pathlib import Path
import solutions
from solutions.command import main

assert Path(solutions.__file__).is_relative_to({site!r}), solutions.__file__
assert importlib.util.find_spec("conftest") is None and importlib.util.find_spec("book") is None
for line in {lines!r}:
    code = main(line.split())
    assert code == 0, (line, code)
from labs.checks import check
from solutions.analysis.sweeps import stored_runs
from solutions.sae import failed_runs
assert failed_runs() and stored_runs()
"""
LINES = [
    "harvest --out store --documents 200 --quiet",
    "index --store store --out index --quiet",
    'search --index index --quiet --json token:"Paris" -k 2',
    "dashboard --index index --out pages --latents 3 5-6 --quiet",
]


@pytest.mark.slow
def test_it_harvests_indexes_searches_and_shows_in_another_folder(elsewhere):
    said = elsewhere.run("-c", USE.format(site=str(elsewhere.site), lines=LINES))
    assert said.returncode == 0, said.stderr[-3000:]
    assert "10,295 tokens of 200 documents" in said.stdout and '"results"' in said.stdout
    made = {path.relative_to(elsewhere.folder).as_posix() for path in elsewhere.folder.rglob("*.html")}
    assert made == {"pages/index.html", *(f"pages/latents/{latent}.html" for latent in (3, 5, 6))}
    page = (elsewhere.folder / "pages/latents/5.html").read_text("utf8")
    assert "Latent 5" in page and "Best matching concept" in page  # the labels were found as well
