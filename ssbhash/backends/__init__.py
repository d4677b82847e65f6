"""The engines: native (C++), numba, reference (numpy).

Each engine is a module with the same few functions over checked, C-contiguous
numpy arrays; results are identical on every engine, for any number of threads.
`get` picks one; the public functions in `search.py` and `sampling.py` check
arguments, then call it.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from types import ModuleType

# Fastest first: "auto" takes the first that is present.
NAMES = ("reference",)
_REQUIRES = {"native": "ssbhash._core", "numba": "numba", "reference": "numpy"}


def available() -> tuple[str, ...]:
    """Names of the engines that can run here, fastest first."""
    return tuple(name for name in NAMES if _is_present(name))


def _is_present(name: str) -> bool:
    return importlib.util.find_spec(_REQUIRES[name]) is not None


def get(name: str = "auto") -> ModuleType:
    """Return the engine called `name`; "auto" is SSBHASH_BACKEND or the fastest present.

    Raises
    ------
    ValueError
        If there is no such engine, or it is not installed here.
    """
    if name == "auto":
        name = os.environ.get("SSBHASH_BACKEND", "") or available()[0]
    if name not in NAMES:
        raise ValueError(f"backend must be one of auto, {', '.join(NAMES)}; got {name!r}")
    if not _is_present(name):
        raise ValueError(
            f"backend {name!r} needs {_REQUIRES[name]}, which is not installed; "
            f"present: {', '.join(available())}"
        )
    return importlib.import_module(f"{__name__}.{name}")
