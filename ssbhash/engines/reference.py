"""The reference engine: numpy, slow, simple enough to be obviously right."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ssbhash.arrays import Codes, Distances, Ids, Int64Array, TooManyResultsError
from ssbhash.engines import reference_sampling
from ssbhash.engines.engine import MISSING_DISTANCE, MISSING_ID, Database, Progress

NAME = "reference"
sample = reference_sampling.sample
binarize = reference_sampling.binarize
sample_relaxed = reference_sampling.sample_relaxed

_POPCOUNT = np.array([byte.bit_count() for byte in range(256)], dtype=np.int32)


def _distances_to(codes: Codes, query: Codes) -> Distances:
    counts: Distances = _POPCOUNT[codes ^ query].sum(axis=1, dtype=np.int32)
    return counts


def prepare(codes: Codes, n_threads: int) -> None:
    """Prepare nothing: this engine searches codes as they are."""


def search(
    database: Database, queries: Codes, k: int, n_threads: int, max_distance: int | None = None
) -> tuple[Distances, Ids]:
    codes = database.rows()
    out_distances = np.full((len(queries), k), MISSING_DISTANCE, dtype=np.int32)
    out_ids = np.full((len(queries), k), MISSING_ID, dtype=np.int64)
    for row, query in enumerate(queries):
        to_all = _distances_to(codes, query)
        nearest = np.argsort(to_all, kind="stable")[:k]  # stable: ties keep id order
        if max_distance is not None:
            nearest = nearest[to_all[nearest] <= max_distance]
        out_distances[row, : len(nearest)] = to_all[nearest]
        out_ids[row, : len(nearest)] = nearest
    return out_distances, database.to_ids(out_ids)


def within(
    database: Database,
    queries: Codes,
    radii: Ids,
    n_threads: int,
    max_results: int | None = None,
) -> tuple[Ids, Distances, Ids]:
    lims = to_lims(count_within(database, queries, radii, n_threads), max_results)
    out_distances, positions = np.empty(lims[-1], np.int32), np.empty(lims[-1], np.int64)
    codes = database.rows()
    for row, query in enumerate(queries):
        to_all = _distances_to(codes, query)
        nearest = np.argsort(to_all, kind="stable")
        owned = slice(lims[row], lims[row + 1])
        positions[owned] = nearest[: lims[row + 1] - lims[row]]
        out_distances[owned] = to_all[positions[owned]]
    return lims, out_distances, database.to_ids(positions)


def count_within(database: Database, queries: Codes, radii: Ids, n_threads: int) -> Int64Array:
    codes = database.rows()
    counts = [
        np.count_nonzero(_distances_to(codes, query) <= radius)
        for query, radius in zip(queries, radii, strict=True)
    ]
    return np.array(counts, dtype=np.int64)


def to_lims(counts: Int64Array, max_results: int | None) -> Ids:
    """Cumulate counts into the limits of a CSR form, if they are not too many."""
    lims = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=lims[1:])
    if max_results is not None and lims[-1] > max_results:
        raise TooManyResultsError(int(lims[-1]))
    return lims


def pairs_within(
    database: Database,
    radius: int,
    n_threads: int,
    max_results: int | None = None,
    progress: Progress | None = None,
) -> tuple[Ids, Ids, Distances]:
    codes = database.codes
    counts = [len(near) for near, _ in _pairs(codes, radius)]
    lims = to_lims(np.array(counts, np.int64), max_results)
    second, out_distances = np.empty(lims[-1], np.int64), np.empty(lims[-1], np.int32)
    for row, (near, to_near) in enumerate(_pairs(codes, radius)):
        second[lims[row] : lims[row + 1]] = near
        out_distances[lims[row] : lims[row + 1]] = to_near
        if progress is not None and row % 256 == 0:
            progress(0.5 + row / (2 * len(counts)))
    return np.repeat(np.arange(len(counts)), counts), second, out_distances


def _pairs(codes: Codes, radius: int) -> Iterator[tuple[Ids, Distances]]:
    for row in range(len(codes)):
        to_rest = _distances_to(codes[row + 1 :], codes[row])
        near = np.flatnonzero(to_rest <= radius)
        yield near + row + 1, to_rest[near]


def distances(codes: Codes, queries: Codes, n_threads: int) -> npt.NDArray[np.uint16]:
    out = np.empty((len(queries), len(codes)), dtype=np.uint16)
    for row, query in enumerate(queries):
        out[row] = _distances_to(codes, query)
    return out


def paired_distances(first: Codes, second: Codes, n_threads: int) -> npt.NDArray[np.uint16]:
    return _distances_to(first, second).astype(np.uint16)


def merge(parts: list[tuple[Distances, Ids]], k: int, n_threads: int) -> tuple[Distances, Ids]:
    n_queries = len(parts[0][1])
    missing = np.full((n_queries, k), MISSING_ID, np.int64)
    ids = np.concatenate([part[1] for part in parts] + [missing], axis=1)
    joined = np.concatenate([part[0] for part in parts] + [missing.astype(np.int32)], axis=1)
    joined = np.where(ids < 0, np.int32(MISSING_DISTANCE), joined)
    ids = np.maximum(ids, MISSING_ID)
    order = np.lexsort((ids, joined), axis=1)[:, :k]
    return np.take_along_axis(joined, order, axis=1), np.take_along_axis(ids, order, axis=1)
