"""Fixtures for all tests: the embedded target, its model and its SAE, each loaded once, and the site in a browser."""

import os
import re

import pytest

# Tests compare with numbers that a processor computes. They do without a GPU, unless one sets the variable oneself:
# then many of them fail for want of a `.cpu()` in the test. Before torch looks.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

# One thread: sums come out the same bit by bit, and a forked child does not wait for threads that it has not got.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Tests are about the embedded world whatever the shell says, unless one sets the variable itself.
os.environ.pop("MONOSEMANTIC_TARGET", None)


def pytest_collection_modifyitems(items):
    """Files with slow tests first: where two processes share the files, none is left alone with a long one at the end.

    A file's order stays as it is. `--no-loadscope-reorder` in tests/run.py lets xdist keep ours.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With `--dist loadscope`: who shares a server or a page of the site stays in one process."""
    from xdist.scheduler import LoadScopeScheduling

    class ByPage(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file, _, test = nodeid.partition("::")
            if not file.endswith("test_site.py"):
                return file
            page = re.search(r"\[(.*\.html)\]$", test)
            return page[1] if page else nodeid

    return ByPage(config, log) if config.getoption("dist") == "loadscope" else None


@pytest.fixture(scope="session")
def target():
    from solutions.targets import get_target

    return get_target("smallworld")


@pytest.fixture(scope="session")
def model(target):
    from solutions.models import load_model

    return load_model(target, "cpu")


@pytest.fixture(scope="session")
def sae(target):
    from solutions.sae import load_sae

    return load_sae(target, "cpu")
