"""The immutable state of an index at one moment, so that a search sees no change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ssbhash.arrays import Codes, Ids
from ssbhash.index.names import Names
from ssbhash.index.segments import MAX_ITEMS, Layout, Part, Segment, build

# Most rows of the growing part. A scan of so many takes about 20 microseconds at 64 bits.
TAIL_ITEMS = 1 << 16
# This many segments of about one size are merged into one. So each of n items is written about
# log_4(n) times.
_FANOUT = 4


@dataclass(frozen=True, eq=False)
class State:
    """Sealed parts, the growing part, the smallest id that was never used, and string ids."""

    parts: tuple[Part, ...]
    tail: Part
    next_id: int = 0
    names: Names | None = None

    def all_parts(self) -> tuple[Part, ...]:
        """Return every part that holds items."""
        return (*self.parts, self.tail) if len(self.tail.segment) else self.parts

    def shown(self, numbers: Ids) -> npt.NDArray[Any]:
        """Return the numbers of items as ids."""
        return numbers if self.names is None else self.names.array(numbers)

    def advanced(self, ids: Ids) -> State:
        """Return the state with later automatic ids after these."""
        return replace(self, next_id=max(self.next_id, int(ids.max()) + 1 if len(ids) else 0))

    def __len__(self) -> int:
        return sum(part.n_alive for part in self.all_parts())

    def find(self, ids: Ids) -> Iterator[tuple[int, npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """Yield for each part its number, which of `ids` it has, and their items."""
        for number, part in enumerate((*self.parts, self.tail)):
            items, is_here = part.segment.find(ids)
            which = np.flatnonzero(is_here)
            which = which[part.are_alive(items[which])]
            yield number, which, items[which]

    def contains(self, ids: Ids) -> npt.NDArray[np.bool_]:
        """Whether each id is in the index."""
        found = np.zeros(len(ids), bool)
        for _, which, _ in self.find(ids):
            found[which] = True
        return found

    def codes_of(self, ids: Ids) -> Codes:
        """Return the codes of ids that are in the index."""
        codes = np.empty((len(ids), self.tail.segment.rows.shape[1]), np.uint8)
        every = (*self.parts, self.tail)
        for number, which, items in self.find(ids):
            codes[which] = every[number].segment.codes_of(items)
        return codes

    def without(self, ids: Ids) -> State:
        """Return the state without some ids, which are in the index."""
        every = [*self.parts, self.tail]
        for number, _, items in self.find(ids):
            every[number] = every[number].without(items)
        return replace(self, parts=tuple(every[:-1]), tail=every[-1])

    def only(self, ids: Ids) -> tuple[Part, ...]:
        """Return parts with only these items; few are gathered, many get a bit plane."""
        every = (*self.parts, self.tail)
        found = list(self.find(np.unique(ids)))
        n_found = sum(len(which) for _, which, _ in found)
        if n_found < len(self) // 50 + 64:
            own = np.concatenate([every[i].segment.ids_of(items) for i, _, items in found])
            codes = np.concatenate([every[i].segment.codes_of(items) for i, _, items in found])
            order = np.argsort(own)
            return (Part.whole(Segment(codes[order], own[order])),) if n_found else ()
        parts = []
        for number, _, items in found:
            counts = np.zeros(len(every[number].segment), bool)
            counts[items] = True
            parts.append(every[number].only(counts))
        return tuple(part for part in parts if part.n_alive)


def empty_tail(n_bytes: int) -> Part:
    """Return a growing part without items."""
    return Part.whole(Segment(np.empty((0, n_bytes), np.uint8), np.empty(0, np.int64)))


def ids_of(parts: Sequence[Part]) -> Ids:
    """Return the ids of the items that are alive in some parts, ascending."""
    own = [part.segment.ids_of(part.items()) for part in parts]
    return np.sort(np.concatenate([*own, np.empty(0, np.int64)]))


def join(parts: Sequence[Part], layout: Layout, n_threads: int) -> tuple[Part, ...]:
    """Make one part of the items that are alive in some parts; none if there are none."""
    if not any(part.n_alive for part in parts):
        return ()
    pairs = [(part.segment, part.items()) for part in parts]
    ids = np.concatenate([segment.ids_of(items) for segment, items in pairs])
    codes = np.concatenate([segment.codes_of(items) for segment, items in pairs])
    if np.any(ids[1:] < ids[:-1]):
        order = np.argsort(ids)
        ids, codes = ids[order], codes[order]
    return (Part.whole(build(np.ascontiguousarray(codes), ids, layout, n_threads)),)


def settle(parts: Sequence[Part], layout: Layout, n_threads: int) -> tuple[Part, ...]:
    """Make sparse parts anew; merge parts of about one size if there are many."""
    kept: list[Part] = []
    for part in parts:
        kept.extend(join([part], layout, n_threads) if part.is_sparse else [part])
    while True:
        kept.sort(key=lambda part: -part.n_alive)
        levels: dict[int, list[Part]] = {}
        for part in kept:
            levels.setdefault(_level(part.n_alive), []).append(part)
        many = [some for some in levels.values() if len(some) >= _FANOUT]
        if not many or sum(part.n_alive for part in many[-1]) > MAX_ITEMS:
            return tuple(kept)
        kept = [part for part in kept if not any(part is one for one in many[-1])]
        kept.extend(join(many[-1], layout, n_threads))


def _level(n: int) -> int:
    level = 0
    while n > _FANOUT * TAIL_ITEMS:
        n, level = n // _FANOUT, level + 1
    return level
