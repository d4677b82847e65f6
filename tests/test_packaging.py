"""What an installed ssbhash promises: typing, few imports, no OpenMP of its own."""

import importlib.resources
import itertools
import subprocess
import sys

import pytest

import ssbhash
from ssbhash.engines import available

HEAVY = ("torch", "numba", "faiss", "sklearn", "scipy", "typer", "matplotlib", "tqdm", "ray")


def run_python(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_package_is_typed() -> None:
    files = importlib.resources.files("ssbhash")
    assert files.joinpath("py.typed").is_file()


def test_import_and_search_load_numpy_alone() -> None:
    loaded = run_python(
        "import sys, numpy, ssbhash\n"
        "codes = ssbhash.pack(numpy.eye(8))\n"
        "ssbhash.search(codes, codes, 2)\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    if "native" not in available():
        pytest.skip("the fallback engine is numba")
    assert loaded.strip() == "[]"


def test_every_public_name_exists() -> None:
    pytest.importorskip("torch")
    assert all(getattr(ssbhash, name) is not None for name in ssbhash.__all__)
    assert set(ssbhash.__all__) <= set(dir(ssbhash))


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        ssbhash.no_such_name  # noqa: B018


@pytest.mark.parametrize("order", list(itertools.permutations(("torch", "faiss", "ssbhash"))))
def test_import_order_does_not_matter(order: tuple[str, ...]) -> None:
    for name in order:
        pytest.importorskip(name)
    imports = "\n".join(f"import {name}" for name in order)
    found = run_python(
        f"{imports}\nimport numpy\n"
        "codes = ssbhash.pack(numpy.eye(64))\n"
        "torch.ones(64, 64) @ torch.ones(64, 64)\n"
        "index = faiss.IndexBinaryFlat(64); index.add(codes)\n"
        "print(ssbhash.search(codes, codes, 1).ids[:, 0].tolist() == list(range(64)))"
    )
    assert found.strip() == "True"


def test_extension_links_no_openmp() -> None:
    core = pytest.importorskip("ssbhash._core")
    if not sys.platform.startswith("linux"):
        pytest.skip("reads the libraries with ldd")
    linked = subprocess.run(
        ["ldd", core.__file__], check=False, capture_output=True, text=True
    ).stdout
    assert "gomp" not in linked
    assert "libomp" not in linked
    assert "iomp" not in linked


def test_the_sources_of_the_cuda_extension_are_there() -> None:
    from ssbhash.engines import cuda_build

    sources = cuda_build.source_folder()
    assert (sources / "cuda" / "search.cu").is_file()
    included = (sources / "cuda" / "word.cuh").read_text()
    assert "core/search/search_kernels.hpp" in included
    assert (sources / "core" / "search" / "search_kernels.hpp").is_file()


def test_the_page_of_the_service_is_there() -> None:
    page = importlib.resources.files("ssbhash").joinpath("serve", "page")
    assert all(page.joinpath(name).is_file() for name in ("index.html", "page.css", "page.js"))
