"""Which versions are at work: what one is asked for when something does not work."""

from __future__ import annotations

import argparse
import os
import platform
from importlib import metadata

from solutions import TARGET_VARIABLE
from solutions.command import LIBRARIES, PROGRAM, package_version
from solutions.shell import DONE


def main(arguments: list[str], program: str) -> int:
    """Print the versions. Nothing is imported for it, so it answers at once."""
    parser(program).parse_args(arguments)
    rows = {PROGRAM: package_version(), "Python": platform.python_version(), "system": platform.platform(terse=True)}
    rows |= {name: _installed(name) for name in LIBRARIES}
    rows["target"] = os.environ.get(TARGET_VARIABLE) or "smallworld"
    for name, value in rows.items():
        print(f"{name:18}{value}")
    return DONE


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def parser(program: str) -> argparse.ArgumentParser:
    """It has no options."""
    return argparse.ArgumentParser(prog=program, description=__doc__)
