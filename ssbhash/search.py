"""Exact search by Hamming distance: argument checks, then an engine.

Results are the k smallest pairs (distance, id): ties go to the smaller id, on
every engine and any number of threads, so results can be compared with `==`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ssbhash.arrays import Codes, as_codes, as_count, as_numpy, like
from ssbhash.backends import get
from ssbhash.threads import resolve


class SearchResult(NamedTuple):
    """Nearest neighbours: `distances` int32 and `ids` int64, [n_queries, k] (or [k])."""

    distances: Any
    ids: Any


class RangeResult(NamedTuple):
    """Neighbours within a radius, in CSR form.

    Query i owns `distances[lims[i]:lims[i + 1]]` and the same slice of `ids`,
    sorted by (distance, id). `lims` int64 [n_queries + 1], `distances` int32,
    `ids` int64.
    """

    lims: Any
    distances: Any
    ids: Any


def search(
    codes: Any,
    query: Any,
    k: int = 10,
    *,
    n_bits: int | None = None,
    backend: str = "auto",
    n_threads: int | None = None,
) -> SearchResult:
    """Find the k nearest codes of each query, exactly.

    Parameters
    ----------
    codes : uint8 [n, n_bytes]
        The database, packed.
    query : uint8 [n_queries, n_bytes] or [n_bytes]
        Packed queries; a single one gives 1-D results.
    k : int
        Neighbours for each query; k > n gives n of them.
    n_bits : int, optional
        Bits in a code; given, the padding bits of both arguments are checked.
    backend : {"auto", "native", "numba", "reference"}
        The engine; all give identical results.
    n_threads : int, optional
        Threads at most; by default all that the process may use.

    Returns
    -------
    SearchResult
        `distances` int32 and `ids` int64, both [n_queries, min(k, n)], ascending
        by (distance, id). torch queries give torch results on their device.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong dtype, shape or range.

    Examples
    --------
    >>> import numpy as np, ssbhash
    >>> codes = ssbhash.pack(np.array([[0, 0, 0], [1, 0, 0], [1, 1, 1]]))
    >>> distances, ids = ssbhash.search(codes, codes[1], k=2)
    >>> distances.tolist(), ids.tolist()
    ([0, 1], [1, 0])
    """
    database, queries, is_single = _checked(codes, query, n_bits)
    k = min(as_count(k, "k", 1), len(database))
    engine = get(backend)
    found = engine.search(database, queries, k, resolve(n_threads))
    if is_single:
        found = tuple(part[0] for part in found)
    return SearchResult(*(like(part, query) for part in found))


def within(
    codes: Any,
    query: Any,
    radius: int,
    *,
    n_bits: int | None = None,
    backend: str = "auto",
    n_threads: int | None = None,
) -> RangeResult:
    """Find all codes at most `radius` bits from each query (inclusive).

    Parameters are those of `search`. A single query gives `lims` of two entries.

    Examples
    --------
    >>> import numpy as np, ssbhash
    >>> codes = ssbhash.pack(np.array([[0, 0, 0], [1, 0, 0], [1, 1, 1]]))
    >>> lims, distances, ids = ssbhash.within(codes, codes[:2], radius=1)
    >>> lims.tolist(), distances.tolist(), ids.tolist()
    ([0, 2, 4], [0, 1, 0, 1], [0, 1, 1, 0])
    """
    database, queries, _ = _checked(codes, query, n_bits)
    radius = as_count(radius, "radius", 0)
    engine = get(backend)
    found = engine.within(database, queries, radius, resolve(n_threads))
    return RangeResult(*(like(part, query) for part in found))


def distances(
    codes: Any,
    query: Any,
    *,
    n_bits: int | None = None,
    backend: str = "auto",
    n_threads: int | None = None,
) -> Any:
    """All distances from each query to each code: uint16 [n_queries, n] (or [n]).

    For small problems: the whole matrix is returned. Codes of more than 65,535
    bits do not fit and raise a ValueError.

    Examples
    --------
    >>> import numpy as np, ssbhash
    >>> codes = ssbhash.pack(np.array([[0, 0, 0], [1, 0, 0], [1, 1, 1]]))
    >>> ssbhash.distances(codes, codes[0]).tolist()
    [0, 1, 3]
    """
    database, queries, is_single = _checked(codes, query, n_bits)
    if database.shape[1] * 8 > np.iinfo(np.uint16).max:
        raise ValueError(f"codes of {database.shape[1]} bytes have distances beyond uint16")
    found = get(backend).distances(database, queries, resolve(n_threads))
    return like(found[0] if is_single else found, query)


def _checked(codes: Any, query: Any, n_bits: int | None) -> tuple[Codes, Codes, bool]:
    if n_bits is not None:
        n_bits = as_count(n_bits, "n_bits", 1)
    database = as_codes(codes, "codes", n_bits)
    queries = as_numpy(query, "query")
    is_single = queries.ndim == 1
    queries = as_codes(queries[None] if is_single else queries, "query", n_bits)
    if queries.shape[1] != database.shape[1]:
        raise ValueError(
            f"query has {queries.shape[1]} bytes a code but codes has {database.shape[1]}"
        )
    return database, queries, is_single
