"""The numba engine: the fallback where no C++ extension could be built."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from ssbhash.arrays import Codes, Distances, Ids, Int64Array
from ssbhash.engines import numba_sampling, reference
from ssbhash.engines.engine import MISSING_DISTANCE, MISSING_ID, Database, Progress
from ssbhash.engines.numba_threads import jit, run

NAME = "numba"
merge = reference.merge
sample = numba_sampling.sample
binarize = numba_sampling.binarize
sample_relaxed = numba_sampling.sample_relaxed

_MIN_SLICE = 1 << 16  # codes below which a second thread costs more than it saves


@jit
def _distance(words: Any, query: Any, row: int) -> Any:
    total = np.uint64(0)
    for j in range(query.shape[0]):
        x = np.uint64(words[row, j] ^ query[j])
        # LLVM recognises this form and emits one popcount instruction.
        x -= (x >> np.uint64(1)) & np.uint64(0x5555555555555555)
        x = (x & np.uint64(0x3333333333333333)) + (
            (x >> np.uint64(2)) & np.uint64(0x3333333333333333)
        )
        x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
        total += (x * np.uint64(0x0101010101010101)) >> np.uint64(56)
    return np.int64(total)


@jit
def _nearest(words: Any, query: Any, k: int, limit: int, begin: int, end: int) -> Any:
    """Find the k smallest (distance, id) < limit of a slice by counting, in order of id."""
    counts = np.zeros(limit, np.int64)  # only distances < limit can still qualify
    found_distances = np.empty(2 * k + 64, np.int32)
    found_ids = np.empty(2 * k + 64, np.int64)
    n_found = 0
    below = 0  # found with distance < limit
    for row in range(begin, end):
        distance = _distance(words, query, row)
        if distance >= limit:
            continue
        if n_found == found_ids.shape[0]:
            n_found = _compact(found_distances, found_ids, n_found, limit, k - below)
        found_distances[n_found] = distance
        found_ids[n_found] = row
        n_found += 1
        counts[distance] += 1
        below += 1
        while below >= k:
            limit -= 1
            below -= counts[limit]
    n_found = _compact(found_distances, found_ids, n_found, limit, k - below)
    return found_distances[:n_found], found_ids[:n_found]


@jit
def _compact(distances: Any, ids: Any, n_found: int, limit: int, ties: int) -> int:
    kept = 0
    for i in range(n_found):
        if distances[i] < limit or (distances[i] == limit and ties > 0):
            ties -= distances[i] == limit
            distances[kept] = distances[i]
            ids[kept] = ids[i]
            kept += 1
    return kept


@jit
def _count(words: Any, query: Any, radius: int, begin: int, end: int) -> int:
    n_found = 0
    for row in range(begin, end):
        n_found += _distance(words, query, row) <= radius
    return n_found


@jit
def _fill(
    words: Any, query: Any, radius: int, begin: int, end: int, distances: Any, ids: Any
) -> None:
    """Write what was counted; rows may have changed since, so the count is not trusted."""
    n_found = 0
    for row in range(begin, end):
        distance = _distance(words, query, row)
        if distance <= radius and n_found < ids.shape[0]:
            distances[n_found] = distance
            ids[n_found] = row
            n_found += 1
    distances[n_found:] = MISSING_DISTANCE
    ids[n_found:] = MISSING_ID


@jit
def _all(words: Any, query: Any, out: Any) -> None:
    for row in range(words.shape[0]):
        out[row] = _distance(words, query, row)


@jit
def _pairs(words: Any, others: Any, out: Any) -> None:
    for row in range(words.shape[0]):
        out[row] = _distance(words, others[row], row)


def prepare(codes: Codes, n_threads: int) -> None:
    """Prepare nothing: this engine searches codes as they are."""


def search(
    database: Database, queries: Codes, k: int, n_threads: int, max_distance: int | None = None
) -> tuple[Distances, Ids]:
    codes = database.rows()
    words, query_words = _as_words(codes), _as_words(queries)
    n_bits = 8 * codes.shape[1]
    limit = 1 + (n_bits if max_distance is None else min(max_distance, n_bits))
    slices, n_threads = _slices(len(codes), len(queries), n_threads)
    parts = []
    for _ in slices if k > 0 else ():
        part = np.full((len(queries), k), MISSING_DISTANCE, np.int32)
        parts.append((part, np.full((len(queries), k), MISSING_ID, np.int64)))

    def scan(row: int, number: int) -> None:
        begin, end = slices[number]
        found, ids = _nearest(words, query_words[row], k, limit, begin, end)
        order = np.argsort(found, kind="stable")[:k]  # in order of id: ties keep it
        parts[number][0][row, : len(order)] = found[order]
        parts[number][1][row, : len(order)] = ids[order]

    tasks = [
        functools.partial(scan, row, number)
        for row in range(len(queries))
        for number in range(len(parts))
    ]
    run(tasks, n_threads)
    if not parts:
        return np.empty((len(queries), 0), np.int32), np.empty((len(queries), 0), np.int64)
    distances, positions = parts[0] if len(parts) == 1 else merge(parts, k, n_threads)
    return distances, database.to_ids(positions)


def within(
    database: Database,
    queries: Codes,
    radii: Ids,
    n_threads: int,
    max_results: int | None = None,
) -> tuple[Ids, Distances, Ids]:
    codes = database.rows()
    words, query_words = _as_words(codes), _as_words(queries)
    slices, n_threads = _slices(len(codes), len(queries), n_threads)
    counts = _counts(words, query_words, radii, slices, n_threads)
    lims = reference.to_lims(counts.ravel(), max_results)
    distances, positions = np.empty(lims[-1], np.int32), np.empty(lims[-1], np.int64)
    tasks = [
        functools.partial(
            _fill,
            words,
            query_words[row],
            radii[row],
            *slices[number],
            distances[lims[place] : lims[place + 1]],
            positions[lims[place] : lims[place + 1]],
        )
        for place, (row, number) in enumerate(np.ndindex(counts.shape))
    ]
    run(tasks, n_threads)
    lims = lims[:: len(slices)]
    for begin, end in itertools.pairwise(lims):
        order = np.argsort(distances[begin:end], kind="stable")
        distances[begin:end] = distances[begin:end][order]
        positions[begin:end] = positions[begin:end][order]
    return lims, distances, database.to_ids(positions)


def count_within(database: Database, queries: Codes, radii: Ids, n_threads: int) -> Int64Array:
    codes = database.rows()
    slices, n_threads = _slices(len(codes), len(queries), n_threads)
    counts = _counts(_as_words(codes), _as_words(queries), radii, slices, n_threads)
    total: Int64Array = counts.sum(axis=1)
    return total


def _counts(
    words: Any, query_words: Any, radii: Ids, slices: list[tuple[int, int]], n_threads: int
) -> Int64Array:
    """Count the codes within the radius: [n_queries, n_slices]."""
    tasks = [
        functools.partial(_count, words, query, radius, begin, end)
        for query, radius in zip(query_words, radii, strict=True)
        for begin, end in slices
    ]
    return np.array(run(tasks, n_threads), np.int64).reshape(len(query_words), len(slices))


def pairs_within(
    database: Database,
    radius: int,
    n_threads: int,
    max_results: int | None = None,
    progress: Progress | None = None,
) -> tuple[Ids, Ids, Distances]:
    words = _as_words(database.codes)
    n = len(words)
    radius = min(radius, 8 * database.codes.shape[1])
    n_threads = n_threads if n**2 >= _MIN_SLICE else 1
    rows = [(words, words[row], radius, row + 1, n) for row in range(n)]
    counts = run([functools.partial(_count, *row) for row in rows], n_threads)
    if progress is not None:
        progress(0.5)
    lims = reference.to_lims(np.array(counts, np.int64), max_results)
    distances, second = np.empty(lims[-1], np.int32), np.empty(lims[-1], np.int64)
    tasks = [
        functools.partial(_fill, *row, distances[begin:end], second[begin:end])
        for row, (begin, end) in zip(rows, itertools.pairwise(lims), strict=True)
    ]
    run(tasks, n_threads)
    return np.repeat(np.arange(n), counts), second, distances


def distances(codes: Codes, queries: Codes, n_threads: int) -> npt.NDArray[np.uint16]:
    words, query_words = _as_words(codes), _as_words(queries)
    out = np.empty((len(queries), len(codes)), dtype=np.uint16)
    tasks = [
        functools.partial(_all, words, query, row)
        for query, row in zip(query_words, out, strict=True)
    ]
    run(tasks, n_threads if out.size >= _MIN_SLICE else 1)
    return out


def paired_distances(first: Codes, second: Codes, n_threads: int) -> npt.NDArray[np.uint16]:
    out = np.empty(len(first), np.uint16)
    _pairs(_as_words(first), _as_words(second), out)
    return out


def _slices(n: int, n_queries: int, n_threads: int) -> tuple[list[tuple[int, int]], int]:
    """Cut the codes if there are fewer queries than threads; return how many threads pay."""
    if n * n_queries < _MIN_SLICE:
        n_threads = 1
    n_slices = 1 if n_queries >= n_threads else max(1, min(n_threads, n // _MIN_SLICE))
    edges = [n * i // n_slices for i in range(n_slices + 1)]
    return list(itertools.pairwise(edges)), n_threads


def _as_words(codes: Codes) -> npt.NDArray[Any]:
    """View rows as whole words of 8 or 4 bytes; other widths are padded with zeros."""
    n_bytes = codes.shape[1]
    if n_bytes % 4:
        padded = np.zeros((len(codes), -(-n_bytes // 8) * 8), dtype=np.uint8)
        padded[:, :n_bytes] = codes
        codes = padded
    word = np.uint32 if codes.shape[1] % 8 else np.uint64
    return np.require(codes.view(word), requirements="A")
