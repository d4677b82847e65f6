"""The native engine: C++ with run-time dispatch on the instruction set."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ssbhash.arrays import Codes
from ssbhash.engines import native_module
from ssbhash.engines.engine import Database
from ssbhash.engines.native_sampling import binarize, sample, sample_relaxed

__all__ = [
    "binarize",
    "distances",
    "pairs_within",
    "prepare",
    "sample",
    "sample_relaxed",
    "search",
    "within",
]

_native: Any = native_module()


def search(
    database: Database, queries: Codes, k: int, n_threads: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Find the k <= n smallest (distance, id) of each query."""
    found: tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]
    found = _native.search(database.codes, queries, k, n_threads, database.ids, database.planes)
    return found


def within(
    database: Database, queries: Codes, radius: int, n_threads: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """All (distance, id) with distance <= radius, sorted for each query, in CSR form."""
    found: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.int64]]
    found = _native.within(
        database.codes, queries, radius, n_threads, database.ids, database.planes
    )
    return found


def distances(database: Codes, queries: Codes, n_threads: int) -> npt.NDArray[np.uint16]:
    """Compute the full matrix of distances [n_queries, n]."""
    found: npt.NDArray[np.uint16] = _native.distances(database, queries, n_threads)
    return found


def pairs_within(
    codes: Codes, radius: int, n_threads: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """All pairs i < j with distance <= radius, sorted: (first, second, distances)."""
    found: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int32]]
    found = _native.pairs_within(codes, radius, n_threads)
    return found


def prepare(codes: Codes, n_threads: int) -> Any:
    """Transpose the codes into bit planes, kept for later searches."""
    return _native.Planes(codes, n_threads)
