"""Neighbours within a radius, part by part: large results in little memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from ssbhash.arrays import AnyArray, ArrayIn, Int64Array, as_count, as_numpy, is_torch, like, n_axes
from ssbhash.engines import CodeOptions, CodesIn, PreparedCodes
from ssbhash.hamming import (
    FilterOptions,
    NumpyPairs,
    NumpyRange,
    PairsResult,
    TorchPairs,
    TorchRange,
    count_within,
    within,
)

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import Unpack

# Results of a part: 12 bytes each.
CHUNK_SIZE = 1 << 20
# Queries that are counted together.
BLOCK_QUERIES = 4096


@overload
def within_chunks(
    codes: CodesIn,
    query: Tensor,
    radius: int | AnyArray,
    chunk_size: int = ...,
    **options: Unpack[FilterOptions],
) -> Iterator[TorchRange]: ...
@overload
def within_chunks(
    codes: CodesIn,
    query: ArrayIn | PreparedCodes,
    radius: int | AnyArray,
    chunk_size: int = ...,
    **options: Unpack[FilterOptions],
) -> Iterator[NumpyRange]: ...
def within_chunks(
    codes: CodesIn,
    query: CodesIn,
    radius: int | AnyArray,
    chunk_size: int = CHUNK_SIZE,
    **options: Unpack[FilterOptions],
) -> Any:
    """Find all codes at most `radius` bits from each query, part by part.

    The parts together are what `within` returns. Memory is taken for one part at a time.
    Codes are scanned at least twice: results are counted first.

    Parameters
    ----------
    codes, query, radius
        As in `within`.
    chunk_size : int
        Results in a part at most. A query with more is a part of its own.
    **options
        `mask`, `ids`, `n_bits`, `backend` and `n_threads`, as in `within`.

    Yields
    ------
    RangeResult
        Of the next `len(lims) - 1` queries. torch queries give torch results.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong dtype, shape or range.

    Examples
    --------
    >>> import numpy as np, ssbhash
    >>> codes = ssbhash.pack(np.array([[0, 0, 0], [1, 0, 0], [1, 1, 1]]))
    >>> for lims, distances, ids in ssbhash.within_chunks(codes, codes, 1, chunk_size=4):
    ...     print(lims.tolist(), ids.tolist())
    [0, 2, 4] [0, 1, 1, 0]
    [0, 1] [2]
    """
    chunk_size = as_count(chunk_size, "chunk_size", 1)
    rows = _rows(query, "query")
    rows = rows[None] if rows.ndim == 1 else rows
    if n_axes(radius) == 0:
        # No distance is as large, and larger ones do not fit.
        radii: Any = np.full(len(rows), min(as_count(radius, "radius", 0), 2**31))
    else:
        radii = as_numpy(radius, "radius")
    if radii.shape != (len(rows),):
        raise ValueError(f"radius must be one integer or [{len(rows)}], got {list(radii.shape)}")
    # Check the arguments now, not when the first part is asked for.
    count_within(codes, rows[:0], radii[:0], **options)
    return _parts(codes, rows, radii, chunk_size, options)


def _parts(
    codes: CodesIn, rows: Any, radii: Any, chunk_size: int, options: FilterOptions
) -> Iterator[Any]:
    for start in range(0, len(rows), BLOCK_QUERIES):
        block = slice(start, start + BLOCK_QUERIES)
        counts = as_numpy(count_within(codes, rows[block], radii[block], **options), "counts")
        for first, last in _cuts(counts, chunk_size):
            part = slice(start + first, start + last)
            yield within(codes, rows[part], radii[part], **options)


def _cuts(counts: Int64Array, most: int) -> Iterator[tuple[int, int]]:
    """Cut into ranges whose counts sum to `most` at most, or that have one entry."""
    ends = np.cumsum(counts)
    first = 0
    while first < len(counts):
        before = ends[first] - counts[first]
        last = max(first + 1, int(np.searchsorted(ends, before + most, side="right")))
        yield first, last
        first = last


@overload
def pairs_within_chunks(
    codes: Tensor, radius: int, chunk_size: int = ..., **options: Unpack[CodeOptions]
) -> Iterator[TorchPairs]: ...
@overload
def pairs_within_chunks(
    codes: ArrayIn | PreparedCodes,
    radius: int,
    chunk_size: int = ...,
    **options: Unpack[CodeOptions],
) -> Iterator[NumpyPairs]: ...
def pairs_within_chunks(
    codes: CodesIn, radius: int, chunk_size: int = CHUNK_SIZE, **options: Unpack[CodeOptions]
) -> Any:
    """Find all pairs of codes at most `radius` bits apart, part by part.

    The parts together are what `pairs_within` returns.

    Parameters
    ----------
    codes, radius
        As in `pairs_within`.
    chunk_size : int
        Pairs in a part at most. A row with more pairs is a part of its own.
    **options
        `n_bits`, `backend` and `n_threads`, as in `pairs_within`.

    Yields
    ------
    PairsResult
        Never empty. torch codes give torch results.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong dtype, shape or range.

    Examples
    --------
    >>> import numpy as np, ssbhash
    >>> codes = ssbhash.pack(np.array([[0, 0, 0], [1, 0, 0], [1, 1, 1]]))
    >>> for first, second, distances in ssbhash.pairs_within_chunks(codes, 2, chunk_size=1):
    ...     print(first.tolist(), second.tolist(), distances.tolist())
    [0] [1] [1]
    [1] [2] [2]
    """
    chunk_size = as_count(chunk_size, "chunk_size", 1)
    rows = as_numpy(_rows(codes, "codes"), "codes")
    count_within(rows, rows[:0], radius, **options)
    return _pair_parts(codes, rows, radius, chunk_size, options)


def _pair_parts(
    codes: CodesIn, rows: Any, radius: int, chunk_size: int, options: CodeOptions
) -> Iterator[Any]:
    for start in range(0, len(rows), BLOCK_QUERIES):
        # A pair of two rows of the block is found twice, with any later row once.
        later, first_row = rows[start:], start
        block = later[:BLOCK_QUERIES]
        for lims, distances, ids in within_chunks(later, block, radius, chunk_size, **options):
            first = first_row + np.repeat(np.arange(len(lims) - 1), np.diff(lims))
            first_row += len(lims) - 1
            second = start + ids
            order = np.lexsort((second, first))
            order = order[second[order] > first[order]]
            if len(order):
                part = first[order], second[order], distances[order]
                yield PairsResult(*(like(array, codes) for array in part))


def _rows(codes: CodesIn, name: str) -> Any:
    if isinstance(codes, PreparedCodes):
        return codes.codes
    return codes if is_torch(codes) else as_numpy(codes, name)
