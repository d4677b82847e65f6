"""Fixtures: every test of behaviour runs on every engine present."""

import importlib.util
import os
import re
from pathlib import Path

import pytest

import ssbhash
from ssbhash.engines import NAMES, available

# A process that a test starts takes the ssbhash under test, not the source folder it runs in.
_FOLDERS = [str(Path(ssbhash.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, _FOLDERS))
os.environ["PYTHONSAFEPATH"] = "1"


# Without torch the numpy half is tested: modules that import from the other half are left out.
_OTHER_HALF = re.compile(
    r"^(from|import) (torch|ssbhash\.(inputs|nn|training|models|tuning|paper|cli)\b)", re.MULTILINE
)
if importlib.util.find_spec("torch") is None:
    _TESTS = Path(__file__).parent.glob("test_*.py")
    collect_ignore = [path.name for path in _TESTS if _OTHER_HALF.search(path.read_text())]


@pytest.fixture(params=NAMES)
def backend(request: pytest.FixtureRequest) -> str:
    """Name of an engine; absent ones are skipped by name."""
    if request.param not in available():
        pytest.skip(f"engine {request.param} is not present")
    return request.param


def pytest_addoption(parser: pytest.Parser) -> None:
    """How often an index is killed and damaged; a release takes 1,000 and 1,000,000."""
    parser.addoption("--kills", type=int, default=4, help="kill -9 of a writing process")
    parser.addoption("--damages", type=int, default=300, help="damaged files of an index")
