"""Fixtures for all tests: the embedded target, its model and its SAE, each loaded once, and the site in a browser."""

import os

import pytest

# Tests are about the embedded world whatever the shell says, unless one sets the variable itself.
os.environ.pop("MONOSEMANTIC_TARGET", None)


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
