"""Exact search by Hamming distance: argument checks, then an engine.

Results are the k smallest pairs (distance, id): ties go to the smaller id, on
every engine and any number of threads, so results can be compared with `==`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ssbhash.arrays import (
    Codes,
    as_array,
    as_codes,
    as_count,
    as_numpy,
    dtype_name,
    is_torch,
    like,
    unpacked_tensor,
)
from ssbhash.engines import Database, PreparedCodes, get, takes_tensors
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


class PairsResult(NamedTuple):
    """Pairs of rows first < second, sorted: int64, int64 and int32, [n_pairs] each."""

    first: Any
    second: Any
    distances: Any


def search(
    codes: Any,
    query: Any,
    k: int = 10,
    *,
    mask: Any = None,
    ids: Any = None,
    n_bits: int | None = None,
    backend: str = "auto",
    n_threads: int | None = None,
) -> SearchResult:
    """Find the k nearest codes of each query, exactly.

    Parameters
    ----------
    codes : uint8 [n, n_bytes] or PreparedCodes
        The database, packed; see `prepare` for many searches of the same codes.
    query : uint8 [n_queries, n_bytes] or [n_bytes]
        Packed queries; a single one gives 1-D results.
    k : int
        Neighbours for each query; where fewer codes exist, all of them are found.
    mask : bool [n] or packed bits uint8 [ceil(n / 8)], optional
        Search only the codes whose bit is set (bit i % 8 of byte i // 8).
    ids : integers, optional
        Search only these codes. The cost falls with the number of codes allowed.
    n_bits : int, optional
        Bits in a code; given, the padding bits of both arguments are checked.
    backend : {"auto", "native", "numba", "reference", "cuda"}
        The engine; all give identical results.
    n_threads : int, optional
        Threads at most; by default all that the process may use.

    Returns
    -------
    SearchResult
        `distances` int32 and `ids` int64, both [n_queries, min(k, n allowed)], ascending
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
    engine = get(backend, codes, query)
    tensors = takes_tensors(engine)
    database, queries, is_single = _checked(codes, query, n_bits, mask, ids, tensors=tensors)
    k = min(as_count(k, "k", 1), len(database))
    found = engine.search(database, queries, k, resolve(n_threads))
    if is_single:
        found = tuple(part[0] for part in found)
    return SearchResult(*(like(part, query) for part in found))


def within(
    codes: Any,
    query: Any,
    radius: int,
    *,
    mask: Any = None,
    ids: Any = None,
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
    engine = get(backend, codes, query)
    tensors = takes_tensors(engine)
    database, queries, _ = _checked(codes, query, n_bits, mask, ids, tensors=tensors)
    radius = as_count(radius, "radius", 0)
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
    engine = get(backend, codes, query)
    tensors = takes_tensors(engine)
    database, queries, is_single = _checked(codes, query, n_bits, tensors=tensors)
    if queries.shape[1] * 8 > np.iinfo(np.uint16).max:
        raise ValueError(f"codes of {queries.shape[1]} bytes have distances beyond uint16")
    found = engine.distances(database.codes, queries, resolve(n_threads))
    return like(found[0] if is_single else found, query)


def pairs_within(
    codes: Any,
    radius: int,
    *,
    n_bits: int | None = None,
    backend: str = "auto",
    n_threads: int | None = None,
) -> PairsResult:
    """Find all pairs of codes at most `radius` bits apart (inclusive): near-duplicates.

    Each pair is looked at once. Returns a `PairsResult`, sorted by (first, second).

    Examples
    --------
    >>> import numpy as np, ssbhash
    >>> codes = ssbhash.pack(np.array([[0, 0, 0], [1, 0, 0], [1, 1, 1]]))
    >>> first, second, distances = ssbhash.pairs_within(codes, radius=2)
    >>> first.tolist(), second.tolist(), distances.tolist()
    ([0, 1], [1, 2], [1, 2])
    """
    engine = get(backend, codes)
    database = _as_database(codes, n_bits, tensors=takes_tensors(engine))
    radius = as_count(radius, "radius", 0)
    found = engine.pairs_within(database.codes, radius, resolve(n_threads))
    return PairsResult(*(like(part, codes) for part in found))


def prepare(
    codes: Any, *, n_bits: int | None = None, backend: str = "auto", n_threads: int | None = None
) -> PreparedCodes:
    """Get codes ready for many searches, with the same results.

    The native engine keeps their bit planes, as much memory again as the codes. Where
    a trial on the codes says that it pays (codes of a trained model, as a rule), it
    also groups them around centres, so that a query skips the groups too far from it:
    4 bytes a code, less than the codes take. Batches of 7 queries and more gain.
    Ten million codes of 64 bits take about two seconds on one thread where that pays.
    The codes must not change any more.

    Examples
    --------
    >>> import numpy as np, ssbhash
    >>> codes = ssbhash.pack(np.array([[0, 0, 0], [1, 0, 0], [1, 1, 1]]))
    >>> prepared = ssbhash.prepare(codes)
    >>> ssbhash.search(prepared, codes[1], k=2).ids.tolist()
    [1, 0]
    """
    n_bits = None if n_bits is None else as_count(n_bits, "n_bits", 1)
    engine = get(backend, codes)
    checked = as_codes(codes, "codes", n_bits, tensors=takes_tensors(engine))
    return PreparedCodes(checked, n_bits, engine.prepare(checked, resolve(n_threads)))


def _as_database(
    codes: Any, n_bits: int | None, mask: Any = None, ids: Any = None, *, tensors: bool = False
) -> Database:
    prepared = codes if isinstance(codes, PreparedCodes) else None
    if prepared is not None and n_bits in (None, prepared.n_bits):
        checked = prepared.codes if tensors else as_codes(prepared.codes, "codes")
    else:
        rows = codes if prepared is None else prepared.codes
        checked = as_codes(rows, "codes", n_bits, tensors=tensors)
    allowed = (_allowed_tensor if tensors else _allowed)(len(checked), mask, ids)
    return Database(checked, allowed, None if prepared is None else prepared.planes)


def _allowed_tensor(n: int, mask: Any, ids: Any) -> Any:
    """Do the same as `_allowed`, without taking a tensor from its device."""
    if ids is None and is_torch(mask) and dtype_name(mask) in ("bool", "uint8"):
        bits = unpacked_tensor(mask, n) if dtype_name(mask) == "uint8" else mask
        if bits.shape == (n,):
            return bits.nonzero().squeeze(1)
    is_list = mask is None and is_torch(ids) and ids.ndim == 1 and len(ids) > 0
    if is_list and dtype_name(ids).removeprefix("u").startswith("int"):
        allowed = ids.long().unique()
        _require_in_range(int(allowed[0]), int(allowed[-1]), n)
        return allowed
    return _allowed(n, mask, ids)


def _require_in_range(first: int, last: int, n: int) -> None:
    if first < 0 or last >= n:
        raise ValueError(f"ids must be in 0 ... {n - 1}, got {first} ... {last}")


def _allowed(n: int, mask: Any, ids: Any) -> npt.NDArray[np.int64] | None:
    """Ascending ids that `mask` or `ids` allows; None for all."""
    if mask is not None and ids is not None:
        raise ValueError("give mask or ids, not both")
    if mask is not None:
        bits = as_numpy(mask, "mask")
        if bits.dtype == np.uint8 and bits.shape == ((n + 7) // 8,):
            bits = np.unpackbits(bits, count=n, bitorder="little").astype(bool)
        if bits.dtype != bool or bits.shape != (n,):
            raise ValueError(
                f"mask must be bool [{n}] or packed bits uint8 [{(n + 7) // 8}], "
                f"got {bits.dtype} {list(bits.shape)}"
            )
        return np.flatnonzero(bits).astype(np.int64)
    if ids is None:
        return None
    allowed = as_numpy(ids, "ids")
    if allowed.size == 0:
        return np.empty(0, np.int64)
    if allowed.ndim != 1 or allowed.dtype.kind not in "iu":
        raise ValueError(f"ids must be a list of integers, got {allowed.dtype} {allowed.shape}")
    allowed = np.unique(allowed)
    _require_in_range(int(allowed[0]), int(allowed[-1]), n)
    return allowed.astype(np.int64)


def _checked(
    codes: Any,
    query: Any,
    n_bits: int | None,
    mask: Any = None,
    ids: Any = None,
    *,
    tensors: bool,
) -> tuple[Database, Codes, bool]:
    if n_bits is not None:
        n_bits = as_count(n_bits, "n_bits", 1)
    database = _as_database(codes, n_bits, mask, ids, tensors=tensors)
    queries = as_array(query, "query", tensors)
    is_single = queries.ndim == 1
    queries = as_codes(queries[None] if is_single else queries, "query", n_bits, tensors=tensors)
    n_bytes = database.codes.shape[1]
    if queries.shape[1] != n_bytes:
        raise ValueError(f"query has {queries.shape[1]} bytes a code but codes has {n_bytes}")
    return database, queries, is_single
