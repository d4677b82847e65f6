"""The CUDA extension: found, or built on first use from the sources in this package.

It lies in this package where that was built with SSBHASH_CUDA=ON. Else torch builds it with nvcc
(and ninja) for the devices present and keeps it in its own cache of extensions
(TORCH_EXTENSIONS_DIR). SSBHASH_CUDA_LIBRARY names another one.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import sys
from pathlib import Path

_PACKAGE = Path(__file__).parent.parent
_TORCH_VERSION = "0x020a000000000000"  # the stable ABI of torch 2.10, which later ones keep
_BUILT = _PACKAGE / "_cuda.so"  # by CMake
_DRIVER = Path("/proc/driver/nvidia/version")


def why_absent() -> str:
    """Say in one sentence why the engine cannot run here; "" if it can.

    torch is imported only if it was imported before, or if a driver is installed.
    """
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed"
    if os.environ.get("SSBHASH_CUDA_LIBRARY"):
        return ""
    if "torch" not in sys.modules and sys.platform == "linux" and not _DRIVER.exists():
        return "there is no NVIDIA driver"
    import torch

    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    if not _BUILT.exists() and _toolkit() is None:
        return "nvcc, CUDA's compiler, is not found: install the CUDA toolkit or set CUDA_HOME"
    if torch.__version__ < torch.torch_version.TorchVersion("2.10"):
        return f"torch {torch.__version__} is too old, 2.10 is needed"
    return ""


@functools.cache
def load() -> None:
    """Make `torch.ops.ssbhash_cuda` available, building it where needed (a minute or two).

    Raises
    ------
    RuntimeError
        If the build fails; the message is the compiler's.
    """
    import torch

    library = os.environ.get("SSBHASH_CUDA_LIBRARY") or (_BUILT.exists() and str(_BUILT))
    if library:
        torch.ops.load_library(library)  # type: ignore[no-untyped-call]
        return
    from torch.utils import cpp_extension

    # torch looks no further than for nvcc, which may be a wrapper of that name elsewhere.
    cpp_extension.CUDA_HOME = str(_toolkit())
    sources = source_folder()
    cpp_extension.load(
        name="ssbhash_cuda",
        sources=[
            str(sources / "cuda" / name) for name in ("search.cu", "sampling.cu", "torch_ops.cpp")
        ],
        extra_include_paths=[str(sources)],
        extra_cflags=["-std=c++20", "-O2", f"-DTORCH_TARGET_VERSION={_TORCH_VERSION}"],
        extra_cuda_cflags=["-std=c++20", "-O3", "-fmad=false", "--expt-relaxed-constexpr"],
        is_python_module=False,
    )


def source_folder() -> Path:
    """Return the folder of the C++ sources: that of the repository, or the package's copy."""
    repository = _PACKAGE.parent / "csrc"
    return repository if (repository / "cuda").is_dir() else _PACKAGE / "csrc"


def _toolkit() -> Path | None:
    """Return the folder of the CUDA toolkit, with its compiler and headers."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    if nvcc := shutil.which("nvcc"):
        homes.insert(2, os.path.dirname(os.path.dirname(os.path.realpath(nvcc))))
    for home in filter(None, homes):
        if Path(home, "bin", "nvcc").exists() and Path(home, "include", "cuda_runtime.h").exists():
            return Path(home)
    return None
