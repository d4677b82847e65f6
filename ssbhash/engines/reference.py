"""The reference engine: numpy, slow, simple enough to be obviously right."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ssbhash.arrays import Codes
from ssbhash.engines.engine import Database
from ssbhash.engines.reference_sampling import binarize, sample, sample_relaxed

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

_POPCOUNT = np.array([byte.bit_count() for byte in range(256)], dtype=np.int32)


def _distances_to(database: Codes, query: Codes) -> npt.NDArray[np.int32]:
    counts: npt.NDArray[np.int32] = _POPCOUNT[database ^ query].sum(axis=1, dtype=np.int32)
    return counts


def search(
    database: Database, queries: Codes, k: int, n_threads: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Find the k <= n smallest (distance, id) of each query."""
    codes = database.rows()
    out_distances = np.empty((len(queries), k), dtype=np.int32)
    out_ids = np.empty((len(queries), k), dtype=np.int64)
    for row, query in enumerate(queries):
        distances = _distances_to(codes, query)
        nearest = np.argsort(distances, kind="stable")[:k]  # stable: ties keep id order
        out_distances[row], out_ids[row] = distances[nearest], nearest
    return out_distances, database.to_ids(out_ids)


def within(
    database: Database, queries: Codes, radius: int, n_threads: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """All (distance, id) with distance <= radius, sorted for each query, in CSR form."""
    codes = database.rows()
    lims = np.zeros(len(queries) + 1, dtype=np.int64)
    parts_distances, parts_ids = [np.empty(0, np.int32)], [np.empty(0, np.int64)]
    for row, query in enumerate(queries):
        distances = _distances_to(codes, query)
        nearest = np.argsort(distances, kind="stable")
        nearest = nearest[distances[nearest] <= radius]
        lims[row + 1] = lims[row] + len(nearest)
        parts_distances.append(distances[nearest])
        parts_ids.append(nearest.astype(np.int64))
    return lims, np.concatenate(parts_distances), database.to_ids(np.concatenate(parts_ids))


def distances(database: Codes, queries: Codes, n_threads: int) -> npt.NDArray[np.uint16]:
    """Compute the full matrix of distances [n_queries, n]."""
    out = np.empty((len(queries), len(database)), dtype=np.uint16)
    for row, query in enumerate(queries):
        out[row] = _distances_to(database, query)
    return out


def pairs_within(
    codes: Codes, radius: int, n_threads: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """All pairs i < j with distance <= radius, sorted: (first, second, distances)."""
    firsts, seconds = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    parts = [np.empty(0, np.int32)]
    for row in range(len(codes) - 1):
        distances = _distances_to(codes[row + 1 :], codes[row])
        near = np.flatnonzero(distances <= radius)
        firsts.append(np.full(len(near), row, np.int64))
        seconds.append(near + row + 1)
        parts.append(distances[near])
    return np.concatenate(firsts), np.concatenate(seconds), np.concatenate(parts)


def prepare(codes: Codes, n_threads: int) -> None:
    """Prepare nothing: this engine searches codes as they are."""
