"""Fixtures: every test of behaviour runs on every engine present."""

import importlib.util
import os
import re
from pathlib import Path

import pytest

import ssbhash
from ssbhash.engines import NAMES, available, native_module

# A process that a test starts takes the ssbhash under test, not the source folder it runs in.
_FOLDERS = [str(Path(ssbhash.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, _FOLDERS))
os.environ["PYTHONSAFEPATH"] = "1"


# Without torch the numpy half is tested: modules that import from the other half are left out.
_OTHER_HALF = re.compile(
    r"^(from|import) (torch|ssbhash\.(inputs|kernels|nn|training|models|tuning|paper|cli)\b)",
    re.MULTILINE,
)
if importlib.util.find_spec("torch") is None:
    _TESTS = Path(__file__).parent.glob("test_*.py")
    collect_ignore = [path.name for path in _TESTS if _OTHER_HALF.search(path.read_text())]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=10, help="saves of each kind that are killed")
    parser.addoption("--damaged", type=int, default=3000, help="damaged files in all")
    parser.addoption("--damage-seed", type=int, default=0, help="which damage is done")


@pytest.fixture(params=NAMES)
def backend(request: pytest.FixtureRequest) -> str:
    """Name of an engine; absent ones are skipped by name."""
    if request.param not in available():
        pytest.skip(f"engine {request.param} is not present")
    return request.param


@pytest.fixture(params=["native", "plain"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Kernels of training: in C++, or in torch."""
    if native_module() is None and request.param == "native":
        pytest.skip("the extension is not built")
    if request.param == "plain":
        monkeypatch.setattr("ssbhash.kernels.choice.native_module", lambda: None)
    name: str = request.param
    return name
