"""`make newest`: does the course still work with the newest versions of what it uses?

An environment of its own in `_build/newest`: the same list of direct dependencies, each at its newest instead of the
pinned version. What differs from the lock is printed, and then the tests and the notebooks run there. Nothing of the
course's own environment is touched, and a failure here is news about a release, not about a commit.

    python tests/newest.py               install, then run the unit tests and the notebooks
    python tests/newest.py labs unit     install, then only these steps of tests/run.py
    python tests/newest.py --list        print the list that would be installed, and stop
"""

import json
import re
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / "_build" / "newest"
PYTHON = PLACE / "venv" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
STEPS = ["unit", "notebooks"]
# What must not be newest, because the newest is another program.
CEILINGS = {"jupyter-book": "<2"}  # 2 reads neither _config.yml nor _toc.yml, and is no Sphinx


def loosened(requirements: str) -> list[str]:
    """The direct dependencies, each from its pinned version up."""
    found = []
    for line in requirements.splitlines():
        wanted = line.split("#")[0].strip()
        if wanted:
            name, version = wanted.split("==")
            found.append(f"{name}>={version}" + (f",{CEILINGS[name]}" if name in CEILINGS else ""))
    return found


def canonical(name: str) -> str:
    """One spelling for each package's name, as PEP 503 has it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def news(lock: str, installed: dict[str, str]) -> list[str]:
    """What differs from the lock: "name old -> new", in alphabetical order."""
    pins = dict(line.split("#")[0].strip().split("==") for line in lock.splitlines() if "==" in line.split("#")[0])
    locked = {canonical(name): version for name, version in pins.items()}
    changed = []
    for name, version in sorted((canonical(name), version) for name, version in installed.items()):
        if name != "monosemantic" and locked.get(name) != version:
            changed.append(f"{name} {locked.get(name, '(not there)')} -> {version}")
    return changed


def pip(*arguments: str) -> str:
    """Run pip in the new environment and return what it printed; its exit code ends this program."""
    command = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit("The newest versions could not be installed together; pip says why above.")
    return done.stdout


def install() -> None:
    """Make the environment anew, and say what is different in it."""
    venv.create(PLACE / "venv", clear=True, with_pip=True)
    wanted = PLACE / "requirements.txt"
    wanted.write_text("\n".join(loosened((ROOT / "requirements.txt").read_text("utf8"))) + "\n", "utf8")
    print("Installing the newest versions (a few minutes, about 2 GB)", flush=True)
    pip("install", "--quiet", "--requirement", str(wanted))
    pip("install", "--quiet", "--no-deps", "--no-build-isolation", "--editable", ".")
    installed = {entry["name"]: entry["version"] for entry in json.loads(pip("list", "--format", "json"))}
    changed = news((ROOT / "constraints.txt").read_text("utf8"), installed)
    print(f"{len(changed)} packages differ from the lock:", *changed, sep="\n  ", flush=True)


def main(arguments: list[str]) -> int:
    """Install, then run the steps. Returns the exit code of tests/run.py."""
    if arguments == ["--list"]:
        print("\n".join(loosened((ROOT / "requirements.txt").read_text("utf8"))))
        return 0
    install()
    return subprocess.run([str(PYTHON), str(ROOT / "tests" / "run.py"), *(arguments or STEPS)], cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
