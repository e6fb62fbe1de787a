"""Housekeeping that a reader would otherwise trip over: machine paths, pickles, leftovers, endless files."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LONGEST = 500  # lines in a file that learners read
TEXT = {".py", ".md", ".yml", ".yaml", ".toml", ".txt", ".json", ".ipynb", ".css", ".js", ".bib", ".svg", ""}
# Spelled in pieces, so that this file does not find itself.
HOMES = ["/wo" "rk/", "/ro" "ot/", "/ho" "me/[a-z]", "/Use" "rs/[a-z]", r"C:\\Use" "rs"]  # codespell:ignore
MACHINE_PATHS = re.compile("|".join(HOMES))


def tracked_files() -> list[Path]:
    """What git would put into a clone; without git, everything but what `make` creates."""
    try:
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
        return [ROOT / name for name in names if name and (ROOT / name).is_file()]
    except (OSError, subprocess.CalledProcessError):
        made = {".venv", "_build", ".git", "__pycache__"}
        return [p for p in ROOT.rglob("*") if p.is_file() and not made & set(p.relative_to(ROOT).parts)]


FILES = tracked_files()
TEXTS = [p for p in FILES if p.suffix in TEXT and p.stat().st_size < 2_000_000]
PYTHON = [p for p in FILES if p.suffix == ".py"]


def offending_lines(paths: list[Path], pattern: re.Pattern) -> list[str]:
    found = []
    for path in paths:
        for number, line in enumerate(path.read_text("utf8").splitlines(), 1):
            if pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}")
    return found


def test_no_paths_of_one_machine():
    assert offending_lines(TEXTS, MACHINE_PATHS) == []


def test_no_pickle_is_ever_loaded():
    unsafe = re.compile(r"torch\.load\(|^\s*import pickle|pickle\.load|from pickle|allow_pickle=True|joblib\.load")
    sources = [p for p in PYTHON if p != Path(__file__)]
    assert offending_lines(sources, unsafe) == []


def test_nothing_is_left_to_do():
    leftover = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")
    # The embedded language's own sentences hold such words: its Python code has comments, too.
    ours = [p for p in TEXTS if p.parent.name != "domains"]
    assert offending_lines(ours, leftover) == []


def test_course_code_fits_into_files_one_can_read():
    course = [p for p in PYTHON if p.relative_to(ROOT).parts[0] in {"solutions", "labs"}]
    lengths = {str(p.relative_to(ROOT)): len(p.read_text("utf8").splitlines()) for p in course}
    assert course and {name: n for name, n in lengths.items() if n > LONGEST} == {}


def test_every_pin_is_in_the_lock():
    def pins(name):
        lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
        return dict(re.sub(r"[-_.]+", "-", line).lower().split("==", 1) for line in lines if line)

    wanted, locked = pins("requirements.txt"), pins("constraints.txt")
    assert wanted and {n: v for n, v in wanted.items() if locked.get(n) != v} == {}
    assert [v for v in locked.values() if "+" in v] == []  # a local version holds on one platform only


def test_every_module_is_on_the_api_page():
    modules = {p.stem for p in (ROOT / "solutions").glob("[a-z]*.py")} - {"make_labs"}
    modules |= {p.parent.name for p in (ROOT / "solutions").glob("*/__init__.py")}
    page = (ROOT / "book" / "api.md").read_text("utf8")
    documented = set(re.findall(r"auto(?:module|function):: solutions\.(\w+)", page))
    assert modules - documented == set()


def test_every_chapter_has_its_lab_and_its_solution():
    def numbers(folder, suffix):
        return {p.name for p in (ROOT / folder).glob(f"[0-9][0-9]_*{suffix}")}

    chapters = {name.removesuffix(".md") for name in numbers("book", ".md")}
    assert chapters == {name.removesuffix(".md") for name in numbers("solutions", ".md")}
    assert chapters == {name.removesuffix(".ipynb") for name in numbers("labs", ".ipynb")}


def test_the_table_of_contents_lists_every_page():
    contents = (ROOT / "_toc.yml").read_text("utf8")
    pages = [p for p in FILES if p.suffix == ".md" and p.parent in {ROOT / "book", ROOT / "solutions"}]
    pages = [p for p in pages if not p.stem.endswith("_starter")]  # the page is its notebook in labs/
    pages += [p for p in FILES if p.suffix == ".ipynb" and p.parent == ROOT / "labs"]
    listed = set(re.findall(r"(?:root|file): (\S+)", contents))
    assert {p.relative_to(ROOT).with_suffix("").as_posix() for p in pages} == listed


def test_every_file_the_readme_points_to_is_there():
    targets = re.findall(r"\]\(([^)#]+)", (ROOT / "README.md").read_text("utf8"))
    local = [target for target in targets if "://" not in target]
    assert local and [target for target in local if not (ROOT / target).exists()] == []
