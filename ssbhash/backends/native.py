"""The native engine: C++ with run-time dispatch on the instruction set."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ssbhash.arrays import Codes
from ssbhash.backends import native_module
from ssbhash.backends.native_sampling import binarize, sample, sample_relaxed

__all__ = ["binarize", "distances", "sample", "sample_relaxed", "search", "within"]

_native: Any = native_module()


def search(
    database: Codes, queries: Codes, k: int, n_threads: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Find the k <= n smallest (distance, id) of each query."""
    found: tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]
    found = _native.search(database, queries, k, n_threads)
    return found


def within(
    database: Codes, queries: Codes, radius: int, n_threads: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """All (distance, id) with distance <= radius, sorted for each query, in CSR form."""
    found: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.int64]]
    found = _native.within(database, queries, radius, n_threads)
    return found


def distances(database: Codes, queries: Codes, n_threads: int) -> npt.NDArray[np.uint16]:
    """Compute the full matrix of distances [n_queries, n]."""
    found: npt.NDArray[np.uint16] = _native.distances(database, queries, n_threads)
    return found
