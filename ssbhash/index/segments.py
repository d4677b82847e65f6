"""Segments: the immutable parts of an index, and their layouts."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ssbhash.arrays import BoolArray, Codes, Ids, Int64Array, count_bits
from ssbhash.engines import native_module

Plane: TypeAlias = npt.NDArray[np.uint8]  # bit i % 8 of byte i // 8 stands for item i
Places: TypeAlias = npt.NDArray[np.uint32]
Table: TypeAlias = tuple[Places, Codes, Codes | None]  # starts, rows, and copies of codes
Layout: TypeAlias = Literal["auto", "flat", "distinct", "postings", "compact"]
LAYOUTS = ("auto", "flat", "distinct", "postings", "compact")

# Below this number of rows a scan is as fast as postings.
_MIN_TABLE_ROWS = 1 << 15
# Codes of at most 128 bits have at most seven tables. More would take over ten times the
# memory of the codes, and are no faster. Wider codes are rarely near enough for tables to serve.
_MAX_TABLES, _MAX_TABLE_BITS = 7, 128
# Grouping equal codes costs 4 bytes an item. It pays if at most this share is distinct.
_MOST_DISTINCT = 0.7
_SAMPLE = 1 << 17
# "auto" searches this many rows for _TRIAL_K neighbours. It keeps the postings if they serve half
# of these searches without a scan.
_TRIALS = 64
_TRIAL_K = 10
MAX_ITEMS = (1 << 32) - 2  # an item's number has 32 bits


@dataclass(frozen=True, eq=False)
class Segment:
    """Items with their ids and codes, in one of four layouts.

        flat       rows[i] is the code of item i
        distinct   rows are the distinct codes; `members` lists the items of each
        postings   as flat or distinct, with tables that find near rows without a scan
        compact    as postings; the tables hold no copies of the codes

    Attributes
    ----------
    rows : uint8 [n_rows, n_bytes]
        The code of each item; with `members`, the distinct codes.
    ids : int64 [n_items] or None
        None if the ids are consecutive from `first_id`.
    first_id : int
        Id of the first item, if `ids` is None.
    members : (uint32 [n_rows + 1], uint32 [n_items]) or None
        The items of row i are `members[1][members[0][i]:members[0][i + 1]]`.
    tables : tuple of tuples of arrays
        Postings (see `csrc/core/index/postings.hpp`); may be empty.
    ascending : bool
        Whether ids ascend. Only those of the growing part may not.
    native : _core.Segment or None
        The same for the native engine.
    """

    rows: Codes
    ids: Ids | None = None
    first_id: int = 0
    members: tuple[Places, Places] | None = None
    tables: tuple[Table, ...] = ()
    ascending: bool = True
    native: Any = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        core = native_module()
        if core is not None:
            made = core.Segment(
                self.rows,
                ids=self.ids,
                first_id=self.first_id,
                members=self.members,
                tables=list(self.tables),
                ascending=self.ascending,
            )
            object.__setattr__(self, "native", made)

    def __len__(self) -> int:
        return len(self.rows) if self.members is None else len(self.members[1])

    @property
    def layout(self) -> str:
        """Name of the layout."""
        if self.tables:
            return "compact" if self.tables[0][2] is None else "postings"
        return "flat" if self.members is None else "distinct"

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays, in memory or mapped."""
        tables = (array for table in self.tables for array in table)
        arrays = (self.rows, self.ids, *(self.members or ()), *tables)
        return sum(int(array.nbytes) for array in arrays if array is not None)

    @cached_property
    def _row_of_item(self) -> Places | None:
        if self.members is None:
            return None
        first, items = self.members
        row_of_item = np.empty(len(items), np.uint32)
        row_of_item[items] = np.repeat(np.arange(len(self.rows), dtype=np.uint32), np.diff(first))
        return row_of_item

    def codes_of(self, items: Int64Array | slice) -> Codes:
        """Return the codes of some items."""
        codes: Codes = self.rows[items if self.members is None else self._row_of_item[items]]  # type: ignore[index]
        return codes

    def ids_of(self, items: Int64Array) -> Ids:
        """Return the ids of some items."""
        ids: Ids = self.first_id + items if self.ids is None else self.ids[items]
        return ids

    def all_ids(self) -> Ids:
        """Return the ids of all items."""
        return self.ids_of(np.arange(len(self))) if self.ids is None else self.ids

    def masked(self, mask: BoolArray) -> BoolArray:
        """Return mask[id] of each item; False beyond its end."""
        end = self.first_id + len(self)
        if self.ids is None and end <= len(mask):
            return mask[self.first_id : end]
        ids = self.all_ids()
        are_masked = ids < len(mask)
        are_masked[are_masked] = mask[ids[are_masked]]
        return are_masked

    def find(self, ids: Ids) -> tuple[Int64Array, BoolArray]:
        """Return the item of each id, and whether the segment has that id."""
        n = len(self)
        if self.ids is None:
            items = ids - self.first_id
            return items, (ids >= self.first_id) & (items < n)
        order = self._order
        known = self.ids if order is None else self.ids[order]
        items = np.searchsorted(known, ids)
        is_here = items < n
        is_here[is_here] = known[items[is_here]] == ids[is_here]
        if order is not None and n:
            items = order[np.minimum(items, n - 1)]
        return items, is_here

    @cached_property
    def _order(self) -> Int64Array | None:
        """Order items by id, the newest of an id first; None if ids ascend."""
        if self.ascending or self.ids is None:
            return None
        return np.lexsort((-np.arange(len(self)), self.ids))


def build(codes: Codes, ids: Ids, layout: Layout, n_threads: int) -> Segment:
    """Build a segment of items with ascending ids; "auto" chooses its layout."""
    consecutive = len(ids) == 0 or int(ids[-1]) - int(ids[0]) == len(ids) - 1
    kept = None if consecutive else np.ascontiguousarray(ids)
    first_id = int(ids[0]) if len(ids) else 0
    flat = Segment(codes, kept, first_id)
    core = native_module()
    if core is None or layout == "flat" or len(codes) == 0:
        return flat
    if layout == "auto" and len(codes) < _MIN_TABLE_ROWS:
        return flat
    rows, members = codes, None
    most = len(codes) if layout == "distinct" else int(_MOST_DISTINCT * len(codes))
    grouped = None
    if layout == "distinct" or not _seem_distinct(codes):
        grouped = core.group_equal(codes, most=most)
    if grouped is not None:
        rows, members = grouped[0], grouped[1:]
    distinct = flat if members is None else Segment(rows, kept, first_id, members)
    if layout == "distinct":
        return distinct
    n_bits = 8 * rows.shape[1]
    if layout == "auto" and (len(rows) < _MIN_TABLE_ROWS or n_bits > _MAX_TABLE_BITS):
        return distinct
    n_tables = core.tables_for(n=len(rows), n_bits=n_bits)
    if n_bits <= _MAX_TABLE_BITS:
        n_tables = min(n_tables, _MAX_TABLES)
    copies = layout != "compact"
    if not copies:  # reading a code costs more, so longer keys and shorter lists pay
        n_tables = max(1, n_tables - 1)
    made = core.build_tables(rows, n_tables=n_tables, copies=copies, n_threads=n_threads)
    tables = tuple(made)
    posted = Segment(rows, kept, first_id, members, tables)
    if layout == "auto":
        trials = rows[np.linspace(0, len(rows) - 1, _TRIALS).astype(np.int64)]
        if core.share_probed(posted.native, trials, k=_TRIAL_K) < 0.5:
            return distinct
    return posted


def _seem_distinct(codes: Codes) -> bool:
    """Tell by a sample whether too few codes are equal for grouping to pay."""
    n = len(codes)
    if n < 4 * _SAMPLE:
        return False
    sample = np.ascontiguousarray(codes[:: n // _SAMPLE])
    n_equal = len(sample) - len(native_module().group_equal(sample, most=len(sample))[0])
    # If each item that could be saved has one equal item, so many pairs fall into the sample.
    expected = (1 - _MOST_DISTINCT) * len(sample) ** 2 / n
    return n_equal < expected / 3


@dataclass(frozen=True, eq=False)
class Part:
    """A segment, and which of its items are alive: neither removed nor filtered out.

    Attributes
    ----------
    segment : Segment
        All items.
    alive : uint8 [ceil(n_items / 8)] or None
        A bit for each item; None if all are alive.
    n_alive : int
        How many are.
    """

    segment: Segment
    alive: Plane | None
    n_alive: int

    @classmethod
    def whole(cls, segment: Segment) -> Part:
        """Make a part with every item alive."""
        return cls(segment, None, len(segment))

    @property
    def is_sparse(self) -> bool:
        """Whether most items were removed, so that a new segment of the others pays."""
        return 2 * self.n_alive < len(self.segment)

    def are_alive(self, items: Int64Array) -> BoolArray:
        """Tell for each of some items whether it is alive."""
        if self.alive is None:
            return np.ones(len(items), bool)
        return (self.alive[items // 8] >> (items % 8).astype(np.uint8) & 1).astype(bool)

    def without(self, items: Int64Array) -> Part:
        """Return the part without these items, which must be alive."""
        if len(items) == 0:
            return self
        n = len(self.segment)
        if self.alive is None:
            alive = np.packbits(np.ones(n, bool), bitorder="little")
        else:
            alive = self.alive.copy()
        np.bitwise_and.at(alive, items // 8, ~(1 << (items % 8)).astype(np.uint8))
        return Part(self.segment, alive, self.n_alive - len(items))

    def only(self, counts: BoolArray) -> Part:
        """Return the part with only those items alive for which `counts` is true."""
        plane = np.packbits(counts, bitorder="little")
        if self.alive is not None:
            plane &= self.alive
        return Part(self.segment, plane, count_bits(plane))

    def items(self) -> Int64Array:
        """Return the items that are alive."""
        n = len(self.segment)
        if self.alive is None:
            return np.arange(n)
        return np.flatnonzero(np.unpackbits(self.alive, count=n, bitorder="little"))
