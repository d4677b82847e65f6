"""Exact search by Hamming distance: checks arguments, then calls an engine.

Results are the k smallest pairs (distance, id): ties go to the smaller id. Every engine and
any number of threads give the same results, so they can be compared with `==`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeAlias, TypeVar, overload

import numpy as np
import numpy.typing as npt

from ssbhash.arrays import (
    AnyArray,
    ArrayIn,
    Codes,
    Distances,
    Ids,
    Int64Array,
    as_array,
    as_codes,
    as_count,
    as_numpy,
    dtype_name,
    is_torch,
    like,
    n_axes,
    packed_tensor,
)
from ssbhash.engines import (
    MISSING_DISTANCE,
    MISSING_ID,
    CodeOptions,
    CodesIn,
    Database,
    EngineOptions,
    PreparedCodes,
    Progress,
    get,
)
from ssbhash.threads import resolve

D = TypeVar("D")
I = TypeVar("I")

# Generic named tuples need Python 3.11. Type checkers accept them for all versions.
if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import Unpack

    class SearchResult(NamedTuple, Generic[D, I]):
        """Nearest neighbours."""

        distances: D
        ids: I

    class RangeResult(NamedTuple, Generic[D, I]):
        """Neighbours within a radius."""

        lims: I
        distances: D
        ids: I

    class PairsResult(NamedTuple, Generic[D, I]):
        """Pairs of rows."""

        first: I
        second: I
        distances: D
else:

    class SearchResult(NamedTuple):
        """Nearest neighbours, ascending by (distance, id).

        Attributes
        ----------
        distances : int32 [n_queries, k], or [k] for a single query
            Their distances.
        ids : int64, of the same shape
            Their ids; -1 if there is no further neighbour.

        Examples
        --------
        >>> import numpy as np, ssbhash
        >>> codes = np.array([[0], [1]], np.uint8)
        >>> ssbhash.search(codes, codes[1], k=1)
        SearchResult(distances=array([0], dtype=int32), ids=array([1]))
        """

        distances: Any
        ids: Any

    class RangeResult(NamedTuple):
        """Neighbours within a radius, in CSR form.

        Query i owns `distances[lims[i]:lims[i + 1]]` and the same slice of `ids`:

            lims       0           3   4
            distances  d00 d01 d02 d10
            ids        i00 i01 i02 i10
                       query 0     query 1

        Attributes
        ----------
        lims : int64 [n_queries + 1]
            Where each query's results begin, and where the last ones end.
        distances : int32 [n_results]
            Ascending for each query.
        ids : int64 [n_results]
            Ascending among equal distances.

        Examples
        --------
        >>> import numpy as np, ssbhash
        >>> codes = np.array([[0], [1]], np.uint8)
        >>> ssbhash.within(codes, codes, radius=0)
        RangeResult(lims=array([0, 1, 2]), distances=array([0, 0], dtype=int32), ids=array([0, 1]))
        """

        lims: Any
        distances: Any
        ids: Any

    class PairsResult(NamedTuple):
        """Pairs of rows, sorted by (first, second).

        Attributes
        ----------
        first, second : int64 [n_pairs]
            Rows, `first` < `second`.
        distances : int32 [n_pairs]
            Their distance.

        Examples
        --------
        >>> import numpy as np, ssbhash
        >>> ssbhash.pairs_within(np.array([[0], [1]], np.uint8), radius=1)
        PairsResult(first=array([0]), second=array([1]), distances=array([1], dtype=int32))
        """

        first: Any
        second: Any
        distances: Any


NumpySearch: TypeAlias = "SearchResult[Distances, Ids]"
TorchSearch: TypeAlias = "SearchResult[Tensor, Tensor]"
NumpyRange: TypeAlias = "RangeResult[Distances, Ids]"
TorchRange: TypeAlias = "RangeResult[Tensor, Tensor]"
NumpyPairs: TypeAlias = "PairsResult[Distances, Ids]"
TorchPairs: TypeAlias = "PairsResult[Tensor, Tensor]"
# What `merge` takes beside a result.
Offset: TypeAlias = "int | AnyArray"


class FilterOptions(CodeOptions, total=False):
    """Keywords of a search, as its overloads share them."""

    mask: AnyArray | None
    ids: AnyArray | None


@overload
def search(
    codes: CodesIn,
    query: Tensor,
    k: int = ...,
    *,
    exclude: AnyArray | int | None = ...,
    max_distance: int | None = ...,
    pad: bool = ...,
    **options: Unpack[FilterOptions],
) -> TorchSearch: ...
@overload
def search(
    codes: CodesIn,
    query: ArrayIn | PreparedCodes,
    k: int = ...,
    *,
    exclude: AnyArray | int | None = ...,
    max_distance: int | None = ...,
    pad: bool = ...,
    **options: Unpack[FilterOptions],
) -> NumpySearch: ...
def search(
    codes: CodesIn,
    query: CodesIn,
    k: int = 10,
    *,
    mask: AnyArray | None = None,
    ids: AnyArray | None = None,
    exclude: AnyArray | int | None = None,
    max_distance: int | None = None,
    pad: bool = False,
    n_bits: int | None = None,
    backend: str = "auto",
    n_threads: int | None = None,
) -> Any:
    """Find the k nearest codes of each query, exactly.

    Parameters
    ----------
    codes : uint8 [n, n_bytes] or PreparedCodes
        The database, packed; see `prepare` for many searches of the same codes.
    query : uint8 [n_queries, n_bytes] or [n_bytes]
        Packed queries; a single one gives 1-D results.
    k : int
        Neighbours for each query; all codes if there are fewer.
    mask : bool [n] or packed bits uint8 [ceil(n / 8)], optional
        Search only the codes whose bit is set (bit i % 8 of byte i // 8).
    ids : integers, optional
        Search only these codes.
    exclude : integers [n_queries] or [n_queries, n_excluded], optional
        Ids that a query must not find, such as its own id if queries are rows of the
        database. -1 excludes nothing.
    max_distance : int, optional
        Find only codes at most this far away.
    pad : bool
        Return exactly k columns. By default there are as many as the query with the most
        neighbours needs.
    n_bits : int, optional
        Bits in a code. If given, the padding bits of both arguments are checked. By
        default that of prepared codes.
    backend : {"auto", "native", "numba", "reference", "cuda"}
        The engine; all give identical results.
    n_threads : int, optional
        Threads at most; by default all that the process may use.

    Returns
    -------
    SearchResult
        `distances` int32 and `ids` int64, both [n_queries, min(k, n allowed)], ascending
        by (distance, id). If a query has fewer neighbours (`exclude`, `max_distance`,
        `pad`), its row ends with id -1 at distance 2**31 - 1. torch queries give torch
        results on their device.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong dtype, shape or range.

    Notes
    -----
    A filter is fastest if it allows few codes, which are then gathered. If it allows
    most, all codes are scanned, and only those found are looked up in the filter.

    Examples
    --------
    >>> import numpy as np, ssbhash
    >>> codes = ssbhash.pack(np.array([[0, 0, 0], [1, 0, 0], [1, 1, 1]]))
    >>> distances, ids = ssbhash.search(codes, codes[1], k=2)
    >>> distances.tolist(), ids.tolist()
    ([0, 1], [1, 0])
    >>> ssbhash.search(codes, codes, k=1, exclude=range(3)).ids.tolist()
    [[1], [0], [1]]
    >>> ssbhash.search(codes, codes[2], k=2, max_distance=1, pad=True).ids.tolist()
    [2, -1]
    """
    engine = get(backend, codes, query)
    database, queries, is_single = _checked(codes, query, n_bits, engine.NAME, mask, ids)
    k = as_count(k, "k", 1)
    n_columns = k if pad else min(k, len(database))
    limit = None
    if max_distance is not None:
        limit = min(as_count(max_distance, "max_distance", 0), 8 * queries.shape[1])
    if exclude is None:
        n_wanted = min(k, len(database))
        distances, found = engine.search(database, queries, n_wanted, resolve(n_threads), limit)
    else:
        excluded = _excluded(exclude, len(queries), is_single)
        n_wanted = min(k + excluded.shape[1], len(database))
        distances, found = engine.search(database, queries, n_wanted, resolve(n_threads), limit)
        distances, found = _without(distances, found, excluded)
    if not pad and (exclude is not None or limit is not None):
        n_found = (found >= 0).sum(axis=1)
        n_columns = min(n_columns, int(n_found.max()) if len(n_found) else 0)
    if n_columns != n_wanted:
        distances = _fitted(distances, n_columns, MISSING_DISTANCE)
        found = _fitted(found, n_columns, MISSING_ID)
    return _ranked_like(distances, found, query, is_single)


def _excluded(exclude: AnyArray | int, n_queries: int, is_single: bool) -> Ids:
    """Read the ids [n_queries, n_excluded] that queries must not find."""
    ids = as_numpy(exclude, "exclude")
    given = list(ids.shape)
    if ids.dtype.kind not in "iu" and ids.size:
        raise TypeError(f"exclude must hold integers, got {ids.dtype}")
    if is_single and ids.ndim < 2:
        ids = ids.reshape(1, -1)
    elif ids.ndim == 1:
        ids = ids[:, None]
    if ids.ndim != 2 or len(ids) != n_queries:
        raise ValueError(
            f"exclude must have shape [{n_queries}] or [{n_queries}, n_excluded], got {given}"
        )
    return ids.astype(np.int64)


def _without(distances: Distances, ids: Ids, excluded: Ids) -> tuple[Distances, Ids]:
    """Move what is excluded to the end of each row, and mark it as missing."""
    if is_torch(ids):
        found: tuple[Distances, Ids] = _without_tensors(distances, ids, excluded)
        return found
    is_lost = ids < 0
    for column in excluded.T:
        is_lost |= ids == column[:, None]
    order = np.argsort(is_lost, axis=1, kind="stable")
    distances = np.where(is_lost, np.int32(MISSING_DISTANCE), distances)
    ids = np.where(is_lost, MISSING_ID, ids)
    return np.take_along_axis(distances, order, axis=1), np.take_along_axis(ids, order, axis=1)


def _without_tensors(distances: Any, ids: Any, excluded: Ids) -> Any:
    unwanted = sys.modules["torch"].from_numpy(excluded).to(ids.device)
    is_lost = (ids < 0) | (ids[:, :, None] == unwanted[:, None, :]).any(dim=2)
    order = is_lost.to(ids.dtype).argsort(dim=1, stable=True)
    distances = distances.masked_fill(is_lost, MISSING_DISTANCE)
    return distances.gather(1, order), ids.masked_fill(is_lost, MISSING_ID).gather(1, order)


def _fitted(array: npt.NDArray[Any], n_columns: int, missing: int) -> npt.NDArray[Any]:
    """Cut off columns, or add missing ones."""
    n_more = n_columns - array.shape[1]
    if n_more == 0:
        return array
    if is_torch(array) and n_more > 0:
        more = array.new_full((len(array), n_more), missing)  # type: ignore[attr-defined]
        joined: npt.NDArray[Any] = sys.modules["torch"].cat([array, more], dim=1)
        return joined
    if is_torch(array):
        return array[:, :n_columns]
    if n_more < 0:
        return np.ascontiguousarray(array[:, :n_columns])
    return np.pad(array, ((0, 0), (0, n_more)), constant_values=missing)


def _ranked_like(distances: Distances, ids: Ids, model: Any, is_single: bool) -> Any:
    if is_single:
        distances, ids = distances[0], ids[0]
    return SearchResult(like(distances, model), like(ids, model))


@overload
def within(
    codes: CodesIn,
    query: Tensor,
    radius: int | AnyArray,
    *,
    max_results: int | None = ...,
    **options: Unpack[FilterOptions],
) -> TorchRange: ...
@overload
def within(
    codes: CodesIn,
    query: ArrayIn | PreparedCodes,
    radius: int | AnyArray,
    *,
    max_results: int | None = ...,
    **options: Unpack[FilterOptions],
) -> NumpyRange: ...
def within(
    codes: CodesIn,
    query: CodesIn,
    radius: int | AnyArray,
    *,
    mask: AnyArray | None = None,
    ids: AnyArray | None = None,
    max_results: int | None = None,
    n_bits: int | None = None,
    backend: str = "auto",
    n_threads: int | None = None,
) -> Any:
    """Find all codes at most `radius` bits from each query (inclusive).

    Results are counted before memory is taken for them. From a million results on, one
    scan counts them and a second one writes them.

    Parameters
    ----------
    codes : uint8 [n, n_bytes] or PreparedCodes
        The database, packed.
    query : uint8 [n_queries, n_bytes] or [n_bytes]
        Packed queries.
    radius : int or integers [n_queries]
        One for all queries, or one for each.
    mask, ids
        Search only some codes, as in `search`.
    max_results : int, optional
        Refuse to return more than this many in all.
    n_bits, backend, n_threads
        As in `search`.

    Returns
    -------
    RangeResult
        In CSR form: query i owns `distances[lims[i]:lims[i + 1]]`, int32, and the same
        slice of `ids`, int64, ascending by (distance, id). `lims` int64 [n_queries + 1],
        of two entries for a single query. torch queries give torch results on their
        device.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong dtype, shape or range.
    TooManyResultsError
        A ValueError with the number of results, if it exceeds `max_results`.

    Examples
    --------
    >>> import numpy as np, ssbhash
    >>> codes = ssbhash.pack(np.array([[0, 0, 0], [1, 0, 0], [1, 1, 1]]))
    >>> lims, distances, ids = ssbhash.within(codes, codes[:2], radius=1)
    >>> lims.tolist(), distances.tolist(), ids.tolist()
    ([0, 2, 4], [0, 1, 0, 1], [0, 1, 1, 0])
    >>> ssbhash.within(codes, codes, radius=[0, 1, 3]).ids.tolist()
    [0, 1, 0, 2, 1, 0]
    """
    engine = get(backend)
    database, queries, _ = _checked(codes, query, n_bits, engine.NAME, mask, ids)
    radii = _radii(radius, queries)
    most = None if max_results is None else as_count(max_results, "max_results", 0)
    found = engine.within(database, queries, radii, resolve(n_threads), most)
    return RangeResult(*(like(part, query) for part in found))


@overload
def count_within(
    codes: CodesIn, query: Tensor, radius: int | AnyArray, **options: Unpack[FilterOptions]
) -> Tensor: ...
@overload
def count_within(
    codes: CodesIn,
    query: ArrayIn | PreparedCodes,
    radius: int | AnyArray,
    **options: Unpack[FilterOptions],
) -> Int64Array: ...
def count_within(
    codes: CodesIn,
    query: CodesIn,
    radius: int | AnyArray,
    *,
    mask: AnyArray | None = None,
    ids: AnyArray | None = None,
    n_bits: int | None = None,
    backend: str = "auto",
    n_threads: int | None = None,
) -> Any:
    """Count the codes at most `radius` bits from each query (inclusive).

    Parameters
    ----------
    codes, query, radius, mask, ids, n_bits, backend, n_threads
        As in `within`.

    Returns
    -------
    int64 [n_queries], or a scalar array for a single query
        torch queries give a torch tensor on their device.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong dtype, shape or range.

    Examples
    --------
    >>> import numpy as np, ssbhash
    >>> codes = ssbhash.pack(np.array([[0, 0, 0], [1, 0, 0], [1, 1, 1]]))
    >>> ssbhash.count_within(codes, codes, radius=1).tolist()
    [2, 2, 1]
    """
    engine = get(backend, codes, query)
    database, queries, is_single = _checked(codes, query, n_bits, engine.NAME, mask, ids)
    found = engine.count_within(database, queries, _radii(radius, queries), resolve(n_threads))
    return like(found.reshape(()) if is_single else found, query)


def _radii(radius: int | AnyArray, queries: Codes) -> Ids:
    """Check the radius of each query, and bound it by the number of bits."""
    n_bits = 8 * queries.shape[1]
    if hasattr(radius, "__index__") and n_axes(radius) == 0:
        return np.full(len(queries), min(as_count(radius, "radius", 0), n_bits), np.int64)
    radii = as_numpy(radius, "radius")
    if radii.dtype.kind not in "iu":
        raise TypeError(f"radius must be an integer or hold integers, got {radii.dtype}")
    if radii.shape != (len(queries),):
        raise ValueError(
            f"radius must be one integer or have shape [{len(queries)}], got {list(radii.shape)}"
        )
    if radii.size and radii.min() < 0:
        raise ValueError(f"radius must be at least 0, got {radii.min()}")
    clipped: Ids = np.minimum(radii, n_bits).astype(np.int64)
    return clipped


@overload
def distances(codes: CodesIn, query: Tensor, **options: Unpack[CodeOptions]) -> Tensor: ...
@overload
def distances(
    codes: CodesIn, query: ArrayIn | PreparedCodes, **options: Unpack[CodeOptions]
) -> npt.NDArray[np.uint16]: ...
def distances(
    codes: CodesIn,
    query: CodesIn,
    *,
    n_bits: int | None = None,
    backend: str = "auto",
    n_threads: int | None = None,
) -> Any:
    """Compute all distances from each query to each code.

    This is for small problems, as the whole matrix is returned.

    Parameters
    ----------
    codes, query, n_bits, backend, n_threads
        As in `search`.

    Returns
    -------
    uint16 [n_queries, n], or [n] for a single query
        torch queries give a torch tensor on their device.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong dtype or shape, or codes have more than 65,535
        bits: their distances do not fit.

    Examples
    --------
    >>> import numpy as np, ssbhash
    >>> codes = ssbhash.pack(np.array([[0, 0, 0], [1, 0, 0], [1, 1, 1]]))
    >>> ssbhash.distances(codes, codes[0]).tolist()
    [0, 1, 3]
    """
    engine = get(backend, codes, query)
    database, queries, is_single = _checked(codes, query, n_bits, engine.NAME)
    _check_width(queries)
    found = engine.distances(database.codes, queries, resolve(n_threads))
    return like(found[0] if is_single else found, query)


@overload
def paired_distances(first: CodesIn, second: Tensor, **options: Unpack[CodeOptions]) -> Tensor: ...
@overload
def paired_distances(
    first: CodesIn, second: ArrayIn | PreparedCodes, **options: Unpack[CodeOptions]
) -> npt.NDArray[np.uint16]: ...
def paired_distances(
    first: CodesIn,
    second: CodesIn,
    *,
    n_bits: int | None = None,
    backend: str = "auto",
    n_threads: int | None = None,
) -> Any:
    """Compute the distance of row i of `first` to row i of `second`.

    Parameters
    ----------
    first, second : uint8 [n, n_bytes] or PreparedCodes
        Packed codes.
    n_bits, backend, n_threads
        As in `search`.

    Returns
    -------
    uint16 [n]
        A torch tensor on the device of `second`, if that is one.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong dtype or shape, or codes have more than 65,535
        bits: their distances do not fit.

    Examples
    --------
    >>> import numpy as np, ssbhash
    >>> codes = ssbhash.pack(np.array([[0, 0, 0], [1, 0, 0], [1, 1, 1]]))
    >>> ssbhash.paired_distances(codes[:2], codes[1:]).tolist()
    [1, 2]
    """
    n_bits = _n_bits(first, n_bits)
    engine = get(backend, first, second)
    tensors = engine.NAME == "cuda"
    left = as_codes(first, "first", n_bits, tensors=tensors)
    right = as_codes(second, "second", n_bits, tensors=tensors)
    if left.shape != right.shape:
        raise ValueError(
            f"first and second must have one shape, got {list(left.shape)} and {list(right.shape)}"
        )
    _check_width(left)
    return like(engine.paired_distances(left, right, resolve(n_threads)), second)


def _check_width(codes: Codes) -> None:
    if codes.shape[1] * 8 > np.iinfo(np.uint16).max:
        raise ValueError(f"codes of {codes.shape[1]} bytes have distances beyond uint16")


@overload
def pairs_within(
    codes: Tensor,
    radius: int,
    *,
    max_results: int | None = ...,
    progress: Progress | None = ...,
    **options: Unpack[CodeOptions],
) -> TorchPairs: ...
@overload
def pairs_within(
    codes: ArrayIn | PreparedCodes,
    radius: int,
    *,
    max_results: int | None = ...,
    progress: Progress | None = ...,
    **options: Unpack[CodeOptions],
) -> NumpyPairs: ...
def pairs_within(
    codes: CodesIn,
    radius: int,
    *,
    max_results: int | None = None,
    progress: Progress | None = None,
    n_bits: int | None = None,
    backend: str = "auto",
    n_threads: int | None = None,
) -> Any:
    """Find all pairs of codes at most `radius` bits apart (inclusive): near-duplicates.

    Pairs are counted before memory is taken for them.

    Parameters
    ----------
    codes : uint8 [n, n_bytes] or PreparedCodes
        Packed codes.
    radius : int
        The largest distance.
    max_results : int, optional
        Refuse to return more pairs than this.
    progress : callable, optional
        Called now and then with the share of the work that is done, from 0 to 1.
    n_bits, backend, n_threads
        As in `search`.

    Returns
    -------
    PairsResult
        `first` < `second`, int64 [n_pairs], and `distances` int32, sorted by (first,
        second). torch codes give torch results on their device.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong dtype, shape or range.
    TooManyResultsError
        A ValueError with the number of pairs, if it exceeds `max_results`.

    Examples
    --------
    >>> import numpy as np, ssbhash
    >>> codes = ssbhash.pack(np.array([[0, 0, 0], [1, 0, 0], [1, 1, 1]]))
    >>> first, second, distances = ssbhash.pairs_within(codes, radius=2)
    >>> first.tolist(), second.tolist(), distances.tolist()
    ([0, 1], [1, 2], [1, 2])
    """
    engine = get(backend, codes)
    database = _as_database(codes, _n_bits(codes, n_bits), engine.NAME)
    radius = min(as_count(radius, "radius", 0), 8 * database.codes.shape[1])
    most = None if max_results is None else as_count(max_results, "max_results", 0)
    found = engine.pairs_within(database, radius, resolve(n_threads), most, progress)
    if progress is not None:
        progress(1.0)
    return PairsResult(*(like(part, codes) for part in found))


@overload
def merge(
    parts: Sequence[tuple[TorchSearch, Offset]], k: int, **options: Unpack[EngineOptions]
) -> TorchSearch: ...
@overload
def merge(
    parts: Sequence[tuple[NumpySearch, Offset]], k: int, **options: Unpack[EngineOptions]
) -> NumpySearch: ...
def merge(
    parts: Sequence[tuple[Any, Offset]],
    k: int,
    *,
    backend: str = "auto",
    n_threads: int | None = None,
) -> Any:
    """Merge the results of several parts of a database into those of the whole.

    Parameters
    ----------
    parts : sequence of (SearchResult, offset or ids)
        What `search` found in each part, for the same queries. The ids of a result are
        rows of its part. In the whole, row i has id `offset + i`, or `ids[i]`.
    k : int
        Neighbours for each query. Each part must have been searched for at least k, or
        for all of its codes.
    backend, n_threads
        As in `search`.

    Returns
    -------
    SearchResult
        The k smallest (distance, id), as one search of all parts would find them. Results
        of parts may differ in their number of columns, and rows may end with id -1. So does
        a row of the result if a query has fewer than k neighbours. Torch results give
        torch results, on the device of the first.

    Raises
    ------
    TypeError, ValueError
        If `parts` is empty, shapes or dtypes do not match, or an id is not a row of its
        part.

    Examples
    --------
    >>> import numpy as np, ssbhash
    >>> codes = ssbhash.pack(np.array([[0, 0, 0], [1, 0, 0], [1, 1, 1]]))
    >>> parts = [(ssbhash.search(codes[:2], codes[1], 2), 0),
    ...          (ssbhash.search(codes[2:], codes[1], 2), 2)]
    >>> ssbhash.merge(parts, k=3).ids.tolist()
    [1, 0, 2]
    """
    k = as_count(k, "k", 1)
    if len(parts) == 0:
        raise ValueError("parts must hold at least one result")
    engine = get(backend, *(result[1] for result, _ in parts))
    tensors = engine.NAME == "cuda"
    checked = [
        _part(number, result, offset, tensors) for number, (result, offset) in enumerate(parts)
    ]
    shapes = {(ids.ndim, *ids.shape[:-1]) for _, ids in checked}
    if len(shapes) > 1:
        raise ValueError(
            "the results of parts must be for the same queries, "
            f"got ids of shapes {[list(ids.shape) for _, ids in checked]}"
        )
    is_single = checked[0][1].ndim == 1
    ranked = [(part[0][None], part[1][None]) for part in checked] if is_single else checked
    k = min(k, sum(ids.shape[1] for _, ids in ranked))
    found = engine.merge(ranked, k, resolve(n_threads))
    return _ranked_like(*found, parts[0][0][1], is_single)


def _part(number: int, result: Any, offset: Offset, tensors: bool) -> tuple[Distances, Ids]:
    """Check a part's result and turn its rows into ids; with `tensors` they stay on their device."""
    name = f"parts[{number}]"
    tensors = tensors and is_torch(result[1])
    distances, rows = (
        as_array(found, f"{name} {what}", tensors)
        for found, what in zip(result, ("distances", "ids"), strict=True)
    )
    if not (_are_integers(distances) and _are_integers(rows)):
        raise TypeError(
            f"{name} must have integer distances and ids, got {distances.dtype} and {rows.dtype}"
        )
    if distances.shape != rows.shape or rows.ndim not in (1, 2):
        raise ValueError(
            f"{name} must have distances and ids of one shape, [n_queries, k] or [k], "
            f"got {list(distances.shape)} and {list(rows.shape)}"
        )
    if hasattr(offset, "__index__") and n_axes(offset) == 0:
        first, table = as_count(offset, f"the offset of {name}", 0), None
    else:
        first, table = 0, as_array(offset, f"the ids of {name}", tensors)
        if table.ndim != 1 or (not _are_integers(table) and len(table)):
            raise ValueError(f"the ids of {name} must be a list of integers, got {table.dtype}")
        if 0 not in rows.shape and rows.max() >= len(table):
            raise ValueError(f"{name} has id {rows.max()}, but there are {len(table)} ids for it")
    if is_torch(rows):
        on_device: tuple[Distances, Ids] = _tensor_part(distances, rows, first, table)
        return on_device
    rows = rows.astype(np.int64)
    ids = rows + first if table is None else table.astype(np.int64)[rows] if len(table) else rows
    ids = np.ascontiguousarray(np.where(rows < 0, MISSING_ID, ids))
    return np.ascontiguousarray(distances.astype(np.int32)), ids


def _tensor_part(distances: Any, rows: Any, first: int, table: Any) -> Any:
    ids = rows = rows.long()
    torch = sys.modules["torch"]
    if table is None:
        ids = rows + first
    elif len(table):
        ids = torch.as_tensor(table, device=rows.device).long()[rows.clamp(min=0)]
    found = torch.as_tensor(distances, device=rows.device).int()
    return found, ids.masked_fill(rows < 0, MISSING_ID)


def _are_integers(array: Any) -> bool:
    return dtype_name(array).startswith(("int", "uint"))


def prepare(
    codes: CodesIn,
    *,
    n_bits: int | None = None,
    backend: str = "auto",
    n_threads: int | None = None,
) -> PreparedCodes:
    """Prepare codes for many searches; results stay the same.

    The native engine keeps bit planes of the codes, which take as much memory as the codes.
    It also tries on the codes whether grouping pays; for codes of a trained model it mostly
    does. It then groups them around centres, so that a query skips groups that are too far
    away. This takes 4 more bytes a code, and about two seconds for ten million codes of 64
    bits on one thread. Batches of 7 or more queries gain.

    Parameters
    ----------
    codes : uint8 [n, n_bytes]
        Packed codes. They are not copied, and must not change: if they do, results may be
        wrong.
    n_bits : int, optional
        Bits in a code. If given, padding bits are checked, here and in queries later.
    backend, n_threads
        As in `search`. Any other engine then searches the codes without the planes.

    Returns
    -------
    PreparedCodes
        Can be passed in place of the codes to every function.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong dtype, shape or range.

    Examples
    --------
    >>> import numpy as np, ssbhash
    >>> codes = ssbhash.pack(np.array([[0, 0, 0], [1, 0, 0], [1, 1, 1]]))
    >>> prepared = ssbhash.prepare(codes)
    >>> ssbhash.search(prepared, codes[1], k=2).ids.tolist()
    [1, 0]
    """
    n_bits = _n_bits(codes, n_bits)
    engine = get(backend, codes)
    checked = as_codes(codes, "codes", n_bits, tensors=engine.NAME == "cuda")
    planes = engine.prepare(checked, resolve(n_threads))
    return PreparedCodes(checked, n_bits, engine.NAME, planes)


def _n_bits(codes: CodesIn, n_bits: int | None) -> int | None:
    """Return the number of bits as given, or as prepared codes know it."""
    if n_bits is not None:
        return as_count(n_bits, "n_bits", 1)
    return codes.n_bits if isinstance(codes, PreparedCodes) else None


def _as_database(
    codes: CodesIn,
    n_bits: int | None,
    engine: str,
    mask: AnyArray | None = None,
    ids: AnyArray | None = None,
) -> Database:
    if mask is not None and ids is not None:
        raise ValueError("give mask or ids, not both")
    planes = None
    if isinstance(codes, PreparedCodes):
        planes = codes.planes_of(engine)
        n_bits = None if n_bits == codes.n_bits else n_bits  # checked already
        codes = codes.codes
    tensors = engine == "cuda"  # tensors stay on their device
    checked = as_codes(codes, "codes", n_bits, tensors=tensors)
    n = len(checked)
    return Database(
        checked,
        None if ids is None else _as_ids(ids, n, tensors),
        None if mask is None else _as_bits(mask, n, tensors),
        planes,
    )


def _as_bits(mask: AnyArray, n: int, tensors: bool) -> npt.NDArray[np.uint8]:
    """Pack the bits of a mask, and clear those from n on."""
    bits = as_array(mask, "mask", tensors)
    if is_torch(bits) and dtype_name(bits) == "bool" and bits.shape == (n,):
        packed: npt.NDArray[np.uint8] = packed_tensor(bits)
        return packed
    if is_torch(bits) and dtype_name(bits) == "uint8" and bits.shape == ((n + 7) // 8,):
        cleared: npt.NDArray[np.uint8] = bits.clone()
        cleared[n // 8 :] &= (1 << n % 8) - 1
        return cleared
    bits = as_numpy(bits, "mask")
    n_bytes = (n + 7) // 8
    if bits.dtype == bool and bits.shape == (n,):
        return np.packbits(bits, bitorder="little")
    if bits.dtype != np.uint8 or bits.shape != (n_bytes,):
        raise ValueError(
            f"mask must be bool [{n}] or packed bits uint8 [{n_bytes}], "
            f"got {bits.dtype} {list(bits.shape)}"
        )
    if n % 8 and bits[-1] >> (n % 8):
        bits = bits.copy()
        bits[-1] &= (1 << n % 8) - 1
    return np.ascontiguousarray(bits)


def _as_ids(ids: AnyArray, n: int, tensors: bool) -> Ids:
    """Sort ids and drop duplicates."""
    allowed = as_array(ids, "ids", tensors)
    if 0 in allowed.shape:
        return np.empty(0, np.int64)
    if allowed.ndim != 1 or not _are_integers(allowed):
        raise ValueError(
            f"ids must be a list of integers, got {allowed.dtype} {tuple(allowed.shape)}"
        )
    allowed = allowed.long().unique() if is_torch(allowed) else np.unique(allowed)
    if allowed[0] < 0 or allowed[-1] >= n:
        raise ValueError(f"ids must be in 0 ... {n - 1}, got {allowed[0]} ... {allowed[-1]}")
    ascending: Ids = allowed if is_torch(allowed) else allowed.astype(np.int64)
    return ascending


def _checked(
    codes: CodesIn,
    query: CodesIn,
    n_bits: int | None,
    engine: str,
    mask: AnyArray | None = None,
    ids: AnyArray | None = None,
) -> tuple[Database, Codes, bool]:
    n_bits = _n_bits(codes, n_bits)
    database = _as_database(codes, n_bits, engine, mask, ids)
    tensors = engine == "cuda"
    rows = query.codes if isinstance(query, PreparedCodes) else query
    queries = as_array(rows, "query", tensors)
    is_single = queries.ndim == 1
    rows = queries[None] if is_single else queries
    queries = as_codes(rows, "query", n_bits, tensors=tensors)
    n_bytes = database.codes.shape[1]
    if queries.shape[1] != n_bytes:
        raise ValueError(f"query has {queries.shape[1]} bytes a code but codes has {n_bytes}")
    return database, queries, is_single
