"""What is installed and what runs: for bug reports and benchmarks."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from typing import Any

from ssbhash._version import __version__
from ssbhash.engines import available, native_module, why_no_native
from ssbhash.threads import get_num_threads


def config() -> dict[str, Any]:
    """Describe this installation, without importing other packages.

    Returns
    -------
    dict
        `version`, `python`, `platform`; `engines`, fastest first; `n_threads`;
        `no_native`, why the native engine is absent, else None; `compiler`, `isa` (the
        instruction set in use) and `isas` (those available), None without it; the versions of `numpy`, `numba`, `faiss` and `torch`,
        None where not installed.
    """
    core = native_module()
    return {
        "version": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "engines": list(available()),
        "no_native": why_no_native() or None,
        "isa": core.isa() if core else None,
        "isas": core.isas() if core else None,
        "compiler": core.compiler if core else None,
        "n_threads": get_num_threads(),
        "numpy": _version("numpy"),
        "numba": _version("numba"),
        "faiss": _version("faiss-cpu"),
        "torch": _version("torch"),
    }


def show_config() -> None:
    """Print what is installed and what runs here, one line an entry.

    Examples
    --------
    >>> import ssbhash
    >>> ssbhash.show_config()  # doctest: +ELLIPSIS
    version    ...
    """
    for name, value in config().items():
        text = ", ".join(value) if isinstance(value, list) else "-" if value is None else value
        print(f"{name:<10} {text}", file=sys.stdout)


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
