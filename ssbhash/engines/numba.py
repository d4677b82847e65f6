"""The numba engine: the fallback where no C++ extension could be built."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ssbhash.arrays import Codes
from ssbhash.engines.engine import Database
from ssbhash.engines.numba_sampling import binarize, sample, sample_relaxed
from ssbhash.engines.numba_threads import jit, run

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
def _nearest(words: Any, query: Any, k: int, begin: int, end: int) -> Any:
    """Find the k smallest (distance, id) of a slice by counting, in order of id."""
    limit = 64 * query.shape[0] + 1  # only distances < limit can still qualify
    counts = np.zeros(limit, np.int64)
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
def _within(words: Any, query: Any, radius: int, begin: int, end: int) -> Any:
    n_found = 0
    for row in range(begin, end):
        n_found += _distance(words, query, row) <= radius
    distances = np.empty(n_found, np.int32)
    ids = np.empty(n_found, np.int64)
    n_found = 0
    for row in range(begin, end):
        distance = _distance(words, query, row)
        if distance <= radius:
            distances[n_found] = distance
            ids[n_found] = row
            n_found += 1
    return distances, ids


@jit
def _all(words: Any, query: Any, out: Any) -> None:
    for row in range(words.shape[0]):
        out[row] = _distance(words, query, row)


def search(
    database: Database, queries: Codes, k: int, n_threads: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Find the k <= n smallest (distance, id) of each query."""
    out_distances = np.empty((len(queries), k), dtype=np.int32)
    out_ids = np.empty((len(queries), k), dtype=np.int64)
    if k > 0:
        parts = _scan(database.rows(), queries, n_threads, functools.partial(_nearest_of, k))
        for row, (distances, ids) in enumerate(parts):
            out_distances[row], out_ids[row] = distances[:k], ids[:k]
    return out_distances, database.to_ids(out_ids)


def within(
    database: Database, queries: Codes, radius: int, n_threads: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """All (distance, id) with distance <= radius, sorted for each query, in CSR form."""
    codes = database.rows()
    radius = min(radius, 8 * codes.shape[1])
    parts = _scan(codes, queries, n_threads, functools.partial(_within_of, radius))
    lims = np.cumsum([0] + [len(ids) for _, ids in parts], dtype=np.int64)
    distances = np.concatenate([np.empty(0, np.int32)] + [part[0] for part in parts])
    positions = np.concatenate([np.empty(0, np.int64)] + [part[1] for part in parts])
    return lims, distances, database.to_ids(positions)


def distances(database: Codes, queries: Codes, n_threads: int) -> npt.NDArray[np.uint16]:
    """Compute the full matrix of distances [n_queries, n]."""
    words, query_words = _as_words(database), _as_words(queries)
    out = np.empty((len(queries), len(database)), dtype=np.uint16)
    tasks = [
        functools.partial(_all, words, query, row)
        for query, row in zip(query_words, out, strict=True)
    ]
    run(tasks, n_threads if out.size >= _MIN_SLICE else 1)
    return out


def pairs_within(
    codes: Codes, radius: int, n_threads: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """All pairs i < j with distance <= radius, sorted: (first, second, distances)."""
    words = _as_words(codes)
    radius = min(radius, 8 * codes.shape[1])
    tasks = [
        functools.partial(_within, words, words[row], radius, row + 1, len(codes))
        for row in range(len(codes))
    ]
    found = run(tasks, n_threads if len(codes) ** 2 >= _MIN_SLICE else 1)
    counts = [len(ids) for _, ids in found]
    seconds = np.concatenate([np.empty(0, np.int64)] + [ids for _, ids in found])
    distances = np.concatenate([np.empty(0, np.int32)] + [part for part, _ in found])
    return np.repeat(np.arange(len(codes)), counts), seconds, distances


def prepare(codes: Codes, n_threads: int) -> None:
    """Prepare nothing: this engine searches codes as they are."""


def _nearest_of(k: int, words: Any, query: Any, begin: int, end: int) -> Any:
    return _nearest(words, query, k, begin, end)


def _within_of(radius: int, words: Any, query: Any, begin: int, end: int) -> Any:
    return _within(words, query, radius, begin, end)


def _scan(
    database: Codes, queries: Codes, n_threads: int, scan: Callable[..., Any]
) -> list[tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]]:
    """Scan slices of the codes for each query; found pairs sorted for each query."""
    words, query_words = _as_words(database), _as_words(queries)
    if len(database) * len(queries) < _MIN_SLICE:
        n_threads = 1
    n_slices = (
        1 if len(queries) >= n_threads else max(1, min(n_threads, len(database) // _MIN_SLICE))
    )
    edges = [len(database) * i // n_slices for i in range(n_slices + 1)]
    tasks = [
        functools.partial(scan, words, query, edges[i], edges[i + 1])
        for query in query_words
        for i in range(n_slices)
    ]
    found = run(tasks, n_threads)
    merged = []
    for first in range(0, len(found), n_slices):
        distances, ids = (
            np.concatenate(part) for part in zip(*found[first : first + n_slices], strict=True)
        )
        order = np.argsort(distances, kind="stable")  # slices are in order of id: ties keep it
        merged.append((distances[order], ids[order]))
    return merged


def _as_words(codes: Codes) -> npt.NDArray[Any]:
    """View rows as whole words of 8 or 4 bytes; other widths are padded with zeros."""
    n_bytes = codes.shape[1]
    if n_bytes % 4:
        padded = np.zeros((len(codes), -(-n_bytes // 8) * 8), dtype=np.uint8)
        padded[:, :n_bytes] = codes
        codes = padded
    word = np.uint32 if codes.shape[1] % 8 else np.uint64
    return np.require(codes.view(word), requirements="A")
