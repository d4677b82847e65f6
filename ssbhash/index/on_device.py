"""The parts of an index on a device: copied there once, searched there.

A segment never changes, so its copy serves as long as the segment lives. Which of its items
count is a bit plane, which goes to the device with each search.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from ssbhash import hamming
from ssbhash.arrays import Ids, like
from ssbhash.engines import MISSING_DISTANCE, MISSING_ID, PreparedCodes, get
from ssbhash.index.segments import Part, Segment


class OnDevice:
    """Searches as `searching` does, for queries of the host or of the device."""

    def __init__(self, device: str) -> None:
        engine: Any = get("cuda")
        self._device: torch.device = engine.device_called(device)
        # A segment's items, and their ids or the first of these.
        self._copies: WeakKeyDictionary[Segment, tuple[PreparedCodes, Tensor | int]] = (
            WeakKeyDictionary()
        )

    def nearest(
        self, parts: Sequence[Part], queries: Any, k: int, max_distance: int, excluded: Ids | None
    ) -> tuple[Any, Any]:
        """K nearest of each query [n_queries, k], filled up with id -1 at the largest distance."""
        on_device = self._moved(queries)
        n_wanted = k + (excluded is not None)
        nothing = on_device.new_empty((len(on_device), 0), dtype=torch.int64)
        found: list[tuple[Any, Any]] = [((nothing.int(), nothing), 0)]
        for codes, mask, ids in self._held(parts):
            part: Any = hamming.search(
                codes,
                on_device,
                n_wanted,
                mask=mask,
                max_distance=max_distance,
                pad=True,
                backend="cuda",
            )
            found.append((part, ids))
        distances, numbers = hamming.merge(found, n_wanted, backend="cuda")
        if excluded is not None:
            is_lost = numbers == self._moved(excluded)[:, None]
            order = is_lost.int().argsort(dim=1, stable=True)
            distances = distances.masked_fill(is_lost, MISSING_DISTANCE).gather(1, order)
            numbers = numbers.masked_fill(is_lost, MISSING_ID).gather(1, order)
        n_more = max(0, k - numbers.shape[1])
        pad = torch.nn.functional.pad
        distances = pad(distances[:, :k], (0, n_more), value=MISSING_DISTANCE)
        numbers = pad(numbers[:, :k], (0, n_more), value=MISSING_ID)
        return like(distances, queries), like(numbers, queries)

    def within(
        self, parts: Sequence[Part], queries: Any, radius: int, excluded: Ids | None
    ) -> tuple[Any, Any, Any]:
        """All within a radius, in CSR form."""
        on_device = self._moved(queries)
        nothing = on_device.new_empty(0, dtype=torch.int64)
        owners, all_distances, all_ids = [nothing], [nothing.int()], [nothing]
        for codes, mask, ids in self._held(parts):
            lims, distances, rows = hamming.within(
                codes, on_device, radius, mask=mask, backend="cuda"
            )
            owners.append(torch.repeat_interleave(lims.diff()))
            all_distances.append(distances)
            all_ids.append(ids[rows] if isinstance(ids, Tensor) else ids + rows)
        owner, distance, item = map(torch.cat, (owners, all_distances, all_ids))
        if excluded is not None:
            kept = item != self._moved(excluded)[owner]
            owner, distance, item = owner[kept], distance[kept], item[kept]
        order = item.argsort()
        place = owner * (8 * on_device.shape[1] + 1) + distance
        order = order[place[order].argsort(stable=True)]
        counts = torch.bincount(owner, minlength=len(on_device))
        lims = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
        return like(lims, queries), like(distance[order], queries), like(item[order], queries)

    def _held(
        self, parts: Sequence[Part]
    ) -> Iterator[tuple[PreparedCodes, Tensor | None, Tensor | int]]:
        """Codes of each part, the bits of those that count, and their ids."""
        for part in parts:
            segment = part.segment
            if not segment.ascending:  # the growing part, after an update
                items = part.items()
                items = items[np.argsort(segment.ids_of(items))]
                codes, ids = self._copy(segment.codes_of(items), segment.ids_of(items))
                yield codes, None, ids
                continue
            if segment not in self._copies:
                own = segment.first_id if segment.ids is None else segment.ids
                self._copies[segment] = self._copy(segment.codes_of(slice(None)), own)
            codes, ids = self._copies[segment]
            yield codes, None if part.alive is None else self._moved(part.alive), ids

    def _copy(self, codes: Any, ids: Any) -> tuple[PreparedCodes, Tensor | int]:
        prepared = hamming.prepare(self._moved(codes), backend="cuda")
        known = ids if isinstance(ids, int) else self._moved(ids)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # other threads may search on other streams
        return prepared, known

    def _moved(self, array: Any) -> Tensor:
        if isinstance(array, Tensor):
            return array.to(self._device)
        return torch.tensor(array, device=self._device)
