"""Asymmetric search: the query's posterior against the bits of the database.

Short codes tie often, and the bits of a query do not tell how certain each of them is.
Here bit j of a query is 1 with probability p_j. The expected Hamming distance of a code
is a sum over bits: 1 - p_j for a 1 in the code, p_j for a 0. Probabilities are rounded to
1/256, so distances are whole numbers, exact on every engine. The database stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from ssbhash.arrays import (
    AnyArray,
    ArrayIn,
    Codes,
    Distances,
    Float64Array,
    Ids,
    as_codes,
    as_count,
    as_logits,
    like,
    n_axes,
    widen,
)
from ssbhash.codes import unpack
from ssbhash.engines import CodesIn, EngineOptions
from ssbhash.hamming import NumpySearch, SearchResult, TorchSearch, search
from ssbhash.sampling import binarize

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import Unpack

# Distances are in units of 1/256 bit.
UNITS_PER_BIT = 256
# Distances that are computed at once: about 100 MB of temporaries.
_BLOCK = 1 << 22


@overload
def expected_distances(codes: CodesIn, logits: Tensor) -> Tensor: ...
@overload
def expected_distances(codes: CodesIn, logits: ArrayIn) -> Distances: ...
def expected_distances(codes: CodesIn, logits: AnyArray) -> Any:
    """Compute expected Hamming distances of codes to queries given by logits.

    Parameters
    ----------
    codes : uint8 [n, n_bytes]
        The database, packed.
    logits : float [n_queries, n_bits] or [n_bits]
        Log-odds of each bit of the queries; a single one gives 1-D results.

    Returns
    -------
    int32 [n_queries, n] or [n]
        In units of 1/256 bit, exact for posteriors rounded to 1/256. torch logits give
        a torch tensor on their device.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong dtype or shape, or a logit is NaN or infinite.

    Examples
    --------
    >>> import numpy as np, ssbhash
    >>> from ssbhash.asymmetric import expected_distances
    >>> codes = ssbhash.pack(np.array([[0, 0], [0, 1], [1, 1]]))
    >>> expected_distances(codes, np.array([100.0, 0.0])).tolist()  # (1, surely; 0 or 1)
    [384, 384, 128]
    """
    database, values = _checked(codes, logits)
    parts = [_distances(database[rows], values) for rows in _blocks(len(database), len(values))]
    found = np.concatenate(parts, axis=1) if parts else np.empty((len(values), 0), np.int32)
    return like(found[0] if n_axes(logits) == 1 else found, logits)


@overload
def search_asymmetric(
    codes: CodesIn,
    logits: Tensor,
    k: int = ...,
    *,
    n_candidates: int | None = ...,
    **options: Unpack[EngineOptions],
) -> TorchSearch: ...
@overload
def search_asymmetric(
    codes: CodesIn,
    logits: ArrayIn,
    k: int = ...,
    *,
    n_candidates: int | None = ...,
    **options: Unpack[EngineOptions],
) -> NumpySearch: ...
def search_asymmetric(
    codes: CodesIn,
    logits: AnyArray,
    k: int = 10,
    *,
    n_candidates: int | None = None,
    backend: str = "auto",
    n_threads: int | None = None,
) -> Any:
    """Find the k codes of smallest expected distance; ties go to the smaller id.

    Parameters
    ----------
    codes : uint8 [n, n_bytes]
        The database, packed.
    logits : float [n_queries, n_bits] or [n_bits]
        Log-odds of each bit of the queries.
    k : int
        Neighbours for each query; k > n gives n of them.
    n_candidates : int, optional
        Rank only this many codes (at least k), the nearest by Hamming distance to the
        thresholded query. This is much faster. By default the whole database is ranked.
    backend : str
        The engine that finds candidates, as in `ssbhash.search`.
    n_threads : int, optional
        Threads at most.

    Returns
    -------
    SearchResult
        `distances` int32 in units of 1/256 bit and `ids` int64, [n_queries, min(k, n)],
        ascending by (distance, id).

    Raises
    ------
    TypeError, ValueError
        As `expected_distances`, or if k or n_candidates is out of range.

    Examples
    --------
    >>> import numpy as np, ssbhash
    >>> from ssbhash.asymmetric import search_asymmetric
    >>> codes = ssbhash.pack(np.array([[0, 1], [1, 0], [1, 1]]))
    >>> found = search_asymmetric(codes, np.array([1.0, 2.0]), k=3)
    >>> found.ids.tolist(), found.distances.tolist()
    ([2, 0, 1], [100, 218, 294])
    """
    database, values = _checked(codes, logits)
    k = min(as_count(k, "k", 1), len(database))
    if n_candidates is None:
        distances, ids = _ranked(database, values, k)
    else:
        n_candidates = as_count(n_candidates, "n_candidates", k)
        query = binarize(values, backend=backend, n_threads=n_threads)
        near = search(database, query, n_candidates, backend=backend, n_threads=n_threads).ids
        own = [
            _distances(database[ids], value[None])[0]
            for ids, value in zip(near, values, strict=True)
        ]
        of_near = np.stack(own) if own else np.empty(near.shape, np.int32)
        order = np.lexsort((near, of_near))[:, :k]
        distances = np.take_along_axis(of_near, order, axis=1)
        ids = np.take_along_axis(near, order, axis=1)
    if n_axes(logits) == 1:
        distances, ids = distances[0], ids[0]
    return SearchResult(like(distances, logits), like(ids, logits))


def _checked(codes: CodesIn, logits: AnyArray) -> tuple[Codes, Float64Array]:
    values = widen(as_logits(logits))
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
        raise ValueError(f"logits must be finite, got NaN or infinity in row {row}")
    return as_codes(codes, "codes", values.shape[1]), values


def _distances(database: Codes, logits: Float64Array) -> Distances:
    n_bits = logits.shape[1]
    ones = np.rint(UNITS_PER_BIT / (1 + np.exp(-np.clip(logits, -100, 100))))
    # All partial sums are whole numbers that the type holds exactly, so BLAS is exact.
    exact = np.float32 if n_bits * UNITS_PER_BIT <= 1 << 24 else np.float64
    bits = unpack(database, n_bits).astype(exact)
    change = (UNITS_PER_BIT - 2 * ones).astype(exact)
    summed = change @ bits.T + ones.sum(axis=1, keepdims=True).astype(exact)
    distances: Distances = summed.astype(np.int32)
    return distances


def _ranked(database: Codes, logits: Float64Array, k: int) -> tuple[Distances, Ids]:
    """Rank all codes: the k smallest (distance, id), a block of codes at a time."""
    # One number for (distance, id), in the same order.
    best = np.empty((len(logits), 0), np.int64)
    for rows in _blocks(len(database), len(logits)):
        keys = _distances(database[rows], logits).astype(np.int64) << 32
        keys |= np.arange(rows.start, rows.start + keys.shape[1])
        best = np.concatenate([best, keys], axis=1)
        if best.shape[1] > k:
            best = np.partition(best, k - 1, axis=1)[:, :k]
    best.sort(axis=1)
    return (best >> 32).astype(np.int32), best & 0xFFFFFFFF


def _blocks(n: int, n_queries: int) -> Iterator[slice]:
    size = max(1, _BLOCK // max(1, n_queries))
    return (slice(start, start + size) for start in range(0, n, size))
