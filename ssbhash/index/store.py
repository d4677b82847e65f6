"""The content of an index, in memory and in its folder, and its changes."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ssbhash.arrays import Ids
from ssbhash.index.folder import Folder
from ssbhash.index.log import Change
from ssbhash.index.names import MAX_ID, Names, are_names, as_ids, as_names, check_one_for_each
from ssbhash.index.segments import Layout, Part, Segment
from ssbhash.index.state import TAIL_ITEMS, State, empty_tail, ids_of, join, settle
from ssbhash.threads import resolve


class Store:
    """The state of an index. One thread changes it; others may take `state` at any time."""

    def __init__(self, n_bits: int, layout: Layout, folder: Folder | None) -> None:
        self.n_bits, self.layout, self.folder = n_bits, layout, folder
        self.n_bytes = (n_bits + 7) // 8
        self.no_codes = np.empty((0, self.n_bytes), np.uint8)
        self.state = State((), empty_tail(self.n_bytes))
        self.writing = threading.RLock()
        # The growing part's memory: rows beyond those of the state are free.
        self._tail_codes, self._tail_ids = self.no_codes, np.empty(0, np.int64)
        if folder is not None:
            self.load()

    @contextmanager
    def changing(self) -> Iterator[State]:
        """Hold other writers off."""
        with self.writing:
            if self.folder is not None:
                self.folder.require_writing()
            yield self.state

    def load(self) -> None:
        """Take over what the folder holds now."""
        assert self.folder is not None
        parts, next_id, names, changes = self.folder.load()
        fresh = Store(self.n_bits, self.layout, None)
        fresh.state = State(parts, empty_tail(self.n_bytes), next_id, names)
        for change in changes:
            fresh._replay(change)
        self._tail_codes, self._tail_ids = fresh._tail_codes, fresh._tail_ids
        self.state = fresh.state

    def refresh(self) -> bool:
        """Take over what a writer has changed since the folder was read."""
        assert self.folder is not None
        changes = self.folder.news()
        if changes is None:
            self.load()
            return True
        for change in changes:
            self._replay(change)
        return bool(changes)

    def apply(self, change: Change) -> None:
        """Change the state: on disk first, then in memory."""
        if len(change.ids) >= TAIL_ITEMS:
            rest = self.state.without(change.removed)
            names = rest.names
            if change.names is not None:
                names = Names() if names is None else names.copy()
                names.add(change.ids, change.names)
            new = Part.whole(Segment(change.codes, change.ids))
            added = join([rest.tail, new], self.layout, resolve(None))
            self._install(rest.advanced(change.ids).next_id, (*rest.parts, *added), names)
            return
        if len(self.state.tail.segment) + len(change.ids) > TAIL_ITEMS:
            self._install(self.state.next_id, self.sealed(), self.state.names)
        if self.folder is not None:
            self.folder.append(change)
        self._replay(change)
        if any(part.is_sparse for part in self.state.parts):
            self._install(self.state.next_id, self.sealed(), self.state.names)

    def sealed(self) -> tuple[Part, ...]:
        """Return all parts, the growing one laid out as a segment."""
        return (*self.state.parts, *join([self.state.tail], self.layout, resolve(None)))

    def compact(self) -> None:
        """Merge all parts into one."""
        whole = join(self.state.all_parts(), self.layout, resolve(None))
        self._install(self.state.next_id, whole, self.state.names)

    def _install(self, next_id: int, parts: Sequence[Part], names: Names | None) -> None:
        """Replace the parts, on disk and in memory; nothing grows then."""
        settled = settle(parts, self.layout, resolve(None))
        names = living(names, settled)
        if self.folder is not None:
            settled = self.folder.install(settled, next_id, names)
        self._tail_codes, self._tail_ids = self.no_codes, np.empty(0, np.int64)
        self.state = State(settled, empty_tail(self.n_bytes), next_id, names)

    def _replay(self, change: Change) -> None:
        rest = self.state.without(change.removed)
        if change.names is not None:
            names = Names() if rest.names is None else rest.names
            names.add(change.ids, change.names)
            rest = replace(rest, names=names)
        self.state = replace(rest, tail=self._grown(rest.tail, change)).advanced(change.ids)

    def _grown(self, tail: Part, change: Change) -> Part:
        """Put rows into free memory after the growing part, which no state reads yet."""
        n, end = len(tail.segment), len(tail.segment) + len(change.ids)
        if end == n:
            return tail
        ids = tail.segment.all_ids()
        if end > len(self._tail_ids):
            grown_codes = np.empty((max(1024, 2 * end), self.n_bytes), np.uint8)
            grown_ids = np.empty(max(1024, 2 * end), np.int64)
            grown_codes[:n], grown_ids[:n] = tail.segment.rows, ids
            self._tail_codes, self._tail_ids = grown_codes, grown_ids
        self._tail_codes[n:end], self._tail_ids[n:end] = change.codes, change.ids
        last = int(ids[-1]) if n else -1
        new = change.ids
        ascending = (
            tail.segment.ascending and int(new[0]) > last and bool((new[1:] > new[:-1]).all())
        )
        segment = Segment(self._tail_codes[:end], self._tail_ids[:end], ascending=ascending)
        alive = tail.alive
        if alive is not None:
            bits = np.unpackbits(alive, count=n, bitorder="little")
            alive = np.packbits(np.append(bits, np.ones(end - n, np.uint8)), bitorder="little")
        return Part(segment, alive, tail.n_alive + end - n)

    # Ids as users give them

    def new_ids(self, ids: Any, n: int) -> tuple[Ids, list[str] | None]:
        """Return the numbers of new items, and their names if they have some."""
        next_id = self.state.next_id
        names = as_names(ids) if ids is not None and are_names(ids) else None
        if next_id and n and (names is None) != (self.state.names is None):
            kind = "integers" if self.state.names is None else "strings"
            raise TypeError(f"the ids of this index are {kind}")
        given: Any = as_ids(ids) if ids is not None and names is None else names
        if given is not None:
            check_one_for_each(given, n)
        if isinstance(given, np.ndarray):
            return given, None
        if next_id + n - 1 > MAX_ID:
            raise ValueError("no ids are left after the largest one; give ids")
        return np.arange(next_id, next_id + n, dtype=np.int64), names

    def present(self, ids: Any, state: State) -> tuple[Ids, npt.NDArray[np.bool_]]:
        """Return the numbers of ids, and which of them a state has."""
        if are_names(ids):
            names = as_names(ids)
            numbers = np.full(len(names), -1)
            if state.names is not None:
                numbers = state.names.numbers(names, state.next_id)
        elif state.names is not None and np.size(ids):
            raise TypeError("the ids of this index are strings")
        else:
            numbers = as_ids(ids)
        return numbers, state.contains(numbers)

    def existing(self, ids: Any, state: State) -> Ids:
        """Return the numbers of ids that must be there."""
        numbers, is_present = self.present(ids, state)
        if not is_present.all():
            given = as_names(ids) if are_names(ids) else numbers.tolist()
            raise KeyError(f"id {given[int(np.argmin(is_present))]!r} is not in the index")
        return numbers


def living(names: Names | None, parts: Sequence[Part]) -> Names | None:
    """Return the names of the items in some parts; others were removed."""
    if names is None or len(names) == sum(part.n_alive for part in parts):
        return names
    return names.only(ids_of(parts))
