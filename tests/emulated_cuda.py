"""The CUDA extension without a GPU: its own source compiled as C++, under tests/cuda's emulator.

`python -m tests.emulated_cuda` prints the path of the library, for SSBHASH_CUDA_LIBRARY.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
HARNESS = REPOSITORY / "tests" / "cuda"
FLAGS = [
    "-std=c++20",
    "-ffp-contract=off",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unknown-pragmas",
    "-Wno-unused",
]


def compiler() -> str | None:
    return shutil.which(os.environ.get("CXX", "g++"))


def compile_emulated(source: Path, to: Path, *flags: str, sources: Path = REPOSITORY) -> None:
    """Compile one file that includes kernels, with the emulator's cuda_runtime.h."""
    command = [compiler() or "", *FLAGS, "-I", str(HARNESS), "-I", str(sources / "csrc")]
    done = subprocess.run(
        [*command, str(source), *flags, "-o", str(to)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr)


@functools.cache
def library() -> Path | None:
    """Build the emulated extension, once for the same sources; None without torch or compiler."""
    if importlib.util.find_spec("torch") is None or compiler() is None:
        return None
    from torch.utils.cpp_extension import include_paths, library_paths

    files = [*HARNESS.iterdir(), *(REPOSITORY / "csrc" / "cuda").iterdir()]
    files += (REPOSITORY / "csrc" / "core").rglob("*.hpp")
    import torch

    digest = hashlib.sha256(torch.__version__.encode())
    for file in sorted(files):
        digest.update(file.read_bytes())
    folder = Path(tempfile.gettempdir()) / f"ssbhash-emulated-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    built = folder / f"{digest.hexdigest()[:16]}.so"
    if not built.exists():
        new = folder / f"{built.stem}.{os.getpid()}.so"
        flags = ["-O2", "-fPIC", "-shared", "-DTORCH_TARGET_VERSION=0x020a000000000000"]
        flags += [f"-isystem{path}" for path in include_paths()]
        flags += [f"-L{path}" for path in library_paths()]
        compile_emulated(HARNESS / "emulated.cpp", new, *flags, "-ltorch_cpu", "-ltorch")
        new.replace(built)
    return built


if __name__ == "__main__":
    print(library())
