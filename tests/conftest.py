"""Fixtures: every test of behaviour runs on every engine present."""

import os
from pathlib import Path

import pytest

import ssbhash
from ssbhash.engines import NAMES, available

# A process that a test starts takes the ssbhash under test, not the source folder it runs in.
_FOLDERS = [str(Path(ssbhash.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, _FOLDERS))
os.environ["PYTHONSAFEPATH"] = "1"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=10, help="saves of each kind that are killed")
    parser.addoption("--damaged", type=int, default=1500, help="damaged files in all")
    parser.addoption("--damage-seed", type=int, default=0, help="which damage is done")


@pytest.fixture(params=NAMES)
def backend(request: pytest.FixtureRequest) -> str:
    """Name of an engine; absent ones are skipped by name."""
    if request.param not in available():
        pytest.skip(f"engine {request.param} is not present")
    return request.param
