"""Every example in a docstring or a page runs, on whichever ssbhash is installed."""

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import ssbhash

MODULES = ["ssbhash"] + [
    module.name
    for module in pkgutil.walk_packages(ssbhash.__path__, "ssbhash.")
    if module.name not in ("ssbhash._core", "ssbhash.__main__")
]


# Extras that a module imports only when it is used, as its examples do.
NEEDS = {
    "ssbhash.data.text": ["sklearn"],
    "ssbhash.cluster.sharded_index": ["ray"],
    "ssbhash.serve.on_ray": ["ray.serve"],
    "ssbhash.interchange": ["faiss", "pyarrow", "usearch"],
}


# Ray Serve's own classes, as it is imported.
@pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`")
@pytest.mark.parametrize("name", MODULES)
def test_examples_of_module(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as missing:  # an extra that is not installed
        pytest.skip(f"{name} needs {missing.name}")
    for needed in NEEDS.get(name, ()):
        pytest.importorskip(needed)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    assert doctest.testmod(module, optionflags=flags).failed == 0


def test_examples_of_pages() -> None:
    pytest.importorskip("torch")
    page = Path(__file__).parent.parent / "docs" / "labels.md"
    assert doctest.testfile(str(page), module_relative=False).failed == 0
