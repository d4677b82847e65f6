"""The native engine: C++ with run-time dispatch on the instruction set."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ssbhash import _core
from ssbhash.arrays import Codes, Distances, Ids, Int64Array
from ssbhash.engines import native_sampling
from ssbhash.engines.engine import Database, Progress

NAME = "native"
sample = native_sampling.sample
binarize = native_sampling.binarize
sample_relaxed = native_sampling.sample_relaxed

_NO_LIMIT = 2**63 - 1


def _native(database: Database) -> _core.Database:
    return _core.Database(
        database.codes, ids=database.ids, allowed=database.allowed, planes=database.planes
    )


def prepare(codes: Codes, n_threads: int) -> _core.Planes:
    """Transpose the codes into bit planes, in an order of their own if that pays."""
    return _core.Planes(codes, n_threads=n_threads)


def search(
    database: Database, queries: Codes, k: int, n_threads: int, max_distance: int | None = None
) -> tuple[Distances, Ids]:
    limit = _NO_LIMIT if max_distance is None else max_distance
    return _core.search(_native(database), queries, k=k, max_distance=limit, n_threads=n_threads)


def within(
    database: Database,
    queries: Codes,
    radii: Ids,
    n_threads: int,
    max_results: int | None = None,
) -> tuple[Ids, Distances, Ids]:
    most = _NO_LIMIT if max_results is None else max_results
    return _core.within(
        _native(database), queries, radii=radii, max_results=most, n_threads=n_threads
    )


def count_within(database: Database, queries: Codes, radii: Ids, n_threads: int) -> Int64Array:
    return _core.count_within(_native(database), queries, radii=radii, n_threads=n_threads)


def pairs_within(
    database: Database,
    radius: int,
    n_threads: int,
    max_results: int | None = None,
    progress: Progress | None = None,
) -> tuple[Ids, Ids, Distances]:
    most = _NO_LIMIT if max_results is None else max_results
    return _core.pairs_within(
        _native(database), radius=radius, max_results=most, n_threads=n_threads, progress=progress
    )


def distances(codes: Codes, queries: Codes, n_threads: int) -> npt.NDArray[np.uint16]:
    return _core.distances(codes, queries, n_threads=n_threads)


def paired_distances(first: Codes, second: Codes, n_threads: int) -> npt.NDArray[np.uint16]:
    return _core.paired_distances(first, second, n_threads=n_threads)


def merge(parts: list[tuple[Distances, Ids]], k: int, n_threads: int) -> tuple[Distances, Ids]:
    return _core.merge(parts, k=k, n_threads=n_threads)
