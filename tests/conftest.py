"""Fixtures: every test of behaviour runs on every engine present."""

import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path

import emulated_cuda
import pytest

import ssbhash
from ssbhash.engines import NAMES, available, native_module

# A process that a test starts takes the ssbhash under test, not the source folder it runs in.
_FOLDERS = [str(Path(ssbhash.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, _FOLDERS))
os.environ["PYTHONSAFEPATH"] = "1"


# Without torch the numpy half is tested: modules that import from the other half are left out.
_OTHER_HALF = re.compile(
    r"^(from|import) (torch|ssbhash\.(inputs|kernels|nn|training|models|tuning|paper|cli|serve)\b)",
    re.MULTILINE,
)
if importlib.util.find_spec("torch") is None:
    _TESTS = Path(__file__).parent.glob("test_*.py")
    collect_ignore = [path.name for path in _TESTS if _OTHER_HALF.search(path.read_text())]


# Without a GPU the cuda engine runs under an emulator, in this process and in those it starts.
if "cuda" not in available() and (library := emulated_cuda.library()) is not None:
    os.environ["SSBHASH_CUDA_LIBRARY"] = str(library)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=10, help="saves of each kind that are killed")
    parser.addoption("--cluster-kills", type=int, default=5, help="replicas and nodes killed")
    parser.addoption("--damaged", type=int, default=1500, help="damaged files in all")
    parser.addoption("--damage-seed", type=int, default=0, help="which damage is done")


def _engines() -> list[str]:
    """Engines, the native one on each instruction set of this machine: "native-avx2"."""
    core = native_module()
    return [
        f"{name}-{isa}" if isa else name
        for name in NAMES
        for isa in (core.isas() if core is not None and name == "native" else [""])
    ]


@pytest.fixture(scope="session", autouse=True)
def training_on_the_cpu() -> Iterator[None]:
    """Train on the CPU where there is a GPU too: tests compare models to the last bit.

    tests/test_training_on_device.py is about training there.
    """
    with pytest.MonkeyPatch.context() as patch:
        if importlib.util.find_spec("torch") is not None:
            patch.setattr("ssbhash.training.distributed.default_device", lambda: "cpu")
        yield


@pytest.fixture(params=_engines())
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Name of an engine; absent ones are skipped by name."""
    name, _, isa = request.param.partition("-")
    if name not in available():
        pytest.skip(f"engine {name} is not present")
    core = native_module()
    if not isa:
        yield name
        return
    usual = core.isa()
    core.set_isa(isa)
    yield name
    core.set_isa(usual)


@pytest.fixture(params=["native", "plain"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Kernels of training: in C++, or in torch."""
    if native_module() is None and request.param == "native":
        pytest.skip("the extension is not built")
    if request.param == "plain":
        monkeypatch.setattr("ssbhash.kernels.choice.native_module", lambda: None)
    name: str = request.param
    return name
