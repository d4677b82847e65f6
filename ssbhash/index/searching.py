"""Searches the parts of an index: in C++ with the native engine, else by `Database`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ssbhash.arrays import BoolArray, Codes, Distances, Ids
from ssbhash.engines import (
    MISSING_ID,
    Database,
    get,
    native_module,
)
from ssbhash.index.segments import Part

if TYPE_CHECKING:
    from ssbhash.index.on_device import OnDevice


@dataclass(frozen=True, eq=False)
class Filter:
    """What a search leaves out besides the items that are not alive.

    Attributes
    ----------
    excluded : int64 [n_queries] or None
        An id that each query must not find.
    mask : bool [n] or None
        Only ids with mask[id] are found.
    """

    excluded: Ids | None = None
    mask: BoolArray | None = None

    def of(self, which: Any) -> Filter:
        """Return the filter of some of the queries."""
        return Filter(None if self.excluded is None else self.excluded[which], self.mask)

    def parts(self, parts: Sequence[Part]) -> Sequence[Part]:
        """Return parts with only the items of the mask alive."""
        if self.mask is None:
            return parts
        masked = [part.only(part.segment.masked(self.mask)) for part in parts]
        return [part for part in masked if part.n_alive]


def nearest(
    parts: Sequence[Part],
    queries: Codes,
    k: int,
    max_distance: int,
    only: Filter,
    backend: str | OnDevice,
    n_threads: int,
) -> tuple[Distances, Ids]:
    """Find the k nearest of each query [n_queries, k], padded by id -1 at the largest distance."""
    if k == 0:
        return np.empty((len(queries), 0), np.int32), np.empty((len(queries), 0), np.int64)
    if not isinstance(backend, str):
        return backend.nearest(only.parts(parts), queries, k, max_distance, only.excluded)
    if _is_native(backend):
        found: tuple[Distances, Ids] = native_module().index_search(
            _native(parts),
            queries,
            k=k,
            max_distance=max_distance,
            excluded=only.excluded,
            mask=only.mask,
            n_threads=n_threads,
        )
        return found
    engine, excluded = get(backend), only.excluded
    nothing = len(queries), 0
    rankings = [(np.empty(nothing, np.int32), np.empty(nothing, np.int64))]
    for part in only.parts(parts):
        database, part_ids = _database(part)
        n_wanted = min(k + (excluded is not None), len(database))
        distances, rows = engine.search(database, queries, n_wanted, n_threads, max_distance)
        ids = np.where(rows < 0, MISSING_ID, part_ids[rows])
        if excluded is not None:
            ids[ids == excluded[:, None]] = MISSING_ID
        rankings.append((distances, ids))
    return engine.merge(rankings, k, n_threads)


def within(
    parts: Sequence[Part],
    queries: Codes,
    radius: int,
    only: Filter,
    backend: str | OnDevice,
    n_threads: int,
) -> tuple[npt.NDArray[np.int64], Distances, Ids]:
    """Find all within a radius, in CSR form."""
    if not isinstance(backend, str):
        return backend.within(only.parts(parts), queries, radius, only.excluded)
    if _is_native(backend):
        found: tuple[npt.NDArray[np.int64], Distances, Ids] = native_module().index_within(
            _native(parts),
            queries,
            radius=radius,
            excluded=only.excluded,
            mask=only.mask,
            n_threads=n_threads,
        )
        return found
    rows, distances, ids = [np.empty(0, np.int64)], [np.empty(0, np.int32)], [np.empty(0, np.int64)]
    radii = np.full(len(queries), radius, np.int64)
    for part in only.parts(parts):
        database, part_ids = _database(part)
        lims, part_distances, found_rows = get(backend).within(database, queries, radii, n_threads)
        rows.append(np.repeat(np.arange(len(queries)), np.diff(lims)))
        distances.append(part_distances)
        ids.append(part_ids[found_rows])
    query, distance, item = np.concatenate(rows), np.concatenate(distances), np.concatenate(ids)
    if (excluded := only.excluded) is not None:
        kept = item != excluded[query]
        query, distance, item = query[kept], distance[kept], item[kept]
    order = np.lexsort((item, distance, query))
    lims = np.searchsorted(query[order], np.arange(len(queries) + 1)).astype(np.int64)
    return lims, distance[order], item[order]


def _is_native(backend: str) -> bool:
    return get(backend).NAME == "native"


def _native(parts: Sequence[Part]) -> list[tuple[Any, Any]]:
    return [(part.segment.native, part.alive) for part in parts]


def _database(part: Part) -> tuple[Database, Ids]:
    """Return the codes that are alive by ascending id, and the id of each row."""
    segment = part.segment
    if segment.members is None and segment.ascending:
        return Database(segment.rows, allowed=part.alive), segment.all_ids()
    items = part.items()
    ids = segment.ids_of(items)
    order = np.argsort(ids)
    codes = np.ascontiguousarray(segment.codes_of(items[order]))
    return Database(codes), ids[order]
