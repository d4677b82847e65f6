"""The engines: native (C++), numba, reference (numpy), cuda.

Each engine is a module with the functions of `Engine`. Results are identical on every
engine, for any number of threads. `get` picks one. The public functions in `hamming.py`
and `sampling.py` check arguments, then call it.
"""

from __future__ import annotations

import functools
import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import warnings
from pathlib import Path
from typing import Any

from ssbhash.arrays import on_accelerator
from ssbhash.engines import cuda_build
from ssbhash.engines.engine import (
    MISSING_DISTANCE,
    MISSING_ID,
    CodeOptions,
    CodesIn,
    Database,
    Engine,
    EngineOptions,
    PreparedCodes,
    Progress,
)

__all__ = [
    "MISSING_DISTANCE",
    "MISSING_ID",
    "NAMES",
    "CodeOptions",
    "CodesIn",
    "Database",
    "Engine",
    "EngineOptions",
    "PreparedCodes",
    "Progress",
    "available",
    "get",
    "native_module",
    "why_no_native",
]

# Fastest first: "auto" takes the first that is present, "cuda" only for tensors on a device.
NAMES = ("native", "numba", "reference", "cuda")
_REQUIRES = {"native": "ssbhash._core", "numba": "numba", "reference": "numpy"}


def available() -> tuple[str, ...]:
    """Name the engines that can run here, fastest first.

    Returns
    -------
    tuple of str
        Some of "native", "numba", "reference", "cuda".

    Examples
    --------
    >>> import ssbhash
    >>> "reference" in ssbhash.backends()
    True
    """
    return tuple(name for name in NAMES if _is_present(name))


def native_module() -> Any:
    """Return the extension module ssbhash._core, or None if it does not load."""
    return _load_native()[0]


@functools.cache
def _load_native() -> tuple[Any, str]:
    """Load the extension: (module, "") or (None, why not)."""
    try:
        return importlib.import_module("ssbhash._core"), ""
    except ImportError as error:  # not built, or built for another Python or system
        return None, str(error)


def why_no_native() -> str:
    """Say why the native engine is absent, and how to get it; "" if it is present."""
    reason = _load_native()[1]
    if not reason:
        return ""
    here, installed = Path(__file__).resolve().parents[2], _installed_with_native()
    if installed is not None and installed != here:
        return (
            f"this is the source folder {here}, which hides the ssbhash that is installed in "
            f"{installed} with its engine: start Python in another folder, or build the engine "
            "into this one (CONTRIBUTING.md)"
        )
    return f"{reason}. To get it, reinstall with a C++20 compiler present"


def _installed_with_native() -> Path | None:
    """Find the folder of the installed ssbhash, if that has the extension."""
    try:
        folder = Path(str(importlib.metadata.distribution("ssbhash").locate_file(""))).resolve()
    except importlib.metadata.PackageNotFoundError:
        return None
    suffixes = importlib.machinery.EXTENSION_SUFFIXES
    has_native = any((folder / "ssbhash" / f"_core{suffix}").exists() for suffix in suffixes)
    return folder if has_native else None


def _is_present(name: str) -> bool:
    if name == "native":
        return native_module() is not None
    if name == "cuda":
        return cuda_build.why_absent() == ""
    return importlib.util.find_spec(_REQUIRES[name]) is not None


def get(name: str = "auto", *arrays: Any) -> Engine:
    """Return the engine called `name`.

    "auto" is "cuda" if one of the arrays is a tensor on a CUDA device, else
    SSBHASH_BACKEND or the fastest present.

    Raises
    ------
    ValueError
        If there is no such engine, or it is not installed here.
    """
    if name == "auto" and on_accelerator(*arrays):
        name = "cuda"
    if name == "auto":
        name = os.environ.get("SSBHASH_BACKEND", "") or _fastest()
    return _engine(name)


@functools.cache
def _engine(name: str) -> Engine:
    if name not in NAMES:
        raise ValueError(f"backend must be one of auto, {', '.join(NAMES)}; got {name!r}")
    if name == "cuda" and (reason := cuda_build.why_absent()):
        raise ValueError(f"backend 'cuda' cannot run here: {reason}")
    if not _is_present(name):
        why = f" ({why_no_native()})" if name == "native" else ""
        raise ValueError(
            f"backend {name!r} needs {_REQUIRES[name]}, which is not installed{why}; "
            f"present: {', '.join(available())}"
        )
    return _load(name)


def _load(name: str) -> Engine:
    """Import an engine; mypy compares each module with the protocol here."""
    if name == "native":
        from ssbhash.engines import native

        return native
    if name == "numba":
        from ssbhash.engines import numba

        return numba
    if name == "cuda":
        from ssbhash.engines import cuda

        return cuda
    from ssbhash.engines import reference

    return reference


@functools.cache
def _fastest() -> str:
    name = available()[0]
    if name != "native":
        warnings.warn(
            f"ssbhash's native engine is absent, so the slower {name} engine serves with the same "
            f"results: {why_no_native()}. Set SSBHASH_BACKEND to choose an engine and silence this.",
            RuntimeWarning,
            stacklevel=4,
        )
    return name
