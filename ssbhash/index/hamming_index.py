"""HammingIndex: items come and go under ids of their own; every search is exact."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from ssbhash.arrays import (
    AnyArray,
    ArrayIn,
    BoolArray,
    Codes,
    Distances,
    Float64Array,
    Ids,
    Int64Array,
    as_array,
    as_codes,
    as_count,
    as_numpy,
    like,
    n_axes,
)
from ssbhash.engines import MISSING_ID, EngineOptions, get
from ssbhash.hamming import RangeResult, SearchResult, TorchRange, TorchSearch
from ssbhash.index import searching
from ssbhash.index.folder import Folder
from ssbhash.index.log import Change
from ssbhash.index.names import MAX_ID
from ssbhash.index.segments import LAYOUTS, Layout, Part
from ssbhash.index.state import State, ids_of
from ssbhash.index.store import Store, living
from ssbhash.index.two_stages import Reranker
from ssbhash.threads import resolve

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import Self, Unpack

    from ssbhash.index.on_device import OnDevice

# Queries whose neighbours are held at once, to be counted.
_COUNTED_AT_ONCE = 64


# Integers, or strings; an index has ids of one kind.
OneOrMoreIds: TypeAlias = "int | str | AnyArray"
# int64, or strings as objects.
IdsOut: TypeAlias = npt.NDArray[Any]


class IndexOptions(EngineOptions, total=False):
    """Keywords of a search in an index, as overloads share them."""

    mask: AnyArray | None
    ids: AnyArray | None
    exclude: OneOrMoreIds | None


class SearchOptions(IndexOptions, total=False):
    """Keywords of `HammingIndex.search`, as its overloads share them."""

    max_distance: int | None
    candidates: int
    metric: str


class HammingIndex:
    """An exact index of binary codes that grows and shrinks.

    Results are those of `ssbhash.search` over the codes present: the k smallest
    (distance, id). Any number of threads may search while one changes the index. Each
    search sees the index as it was at one moment. `HammingIndex.open` keeps an index in a
    folder.

    Parameters
    ----------
    n_bits : int
        Bits in a code.
    layout : {"auto", "flat", "distinct", "postings", "compact"}
        Layout of the segments; "auto" chooses by measured speed. "compact" is "postings" in less
        than half of the memory, and slower. Results are the same.
    device : str, optional
        A CUDA device, such as "cuda" or "cuda:1". The parts are copied there at their first
        search, and searched there unless `backend` names another engine. Queries that are
        tensors there get such results.

    Examples
    --------
    >>> import numpy as np, ssbhash
    >>> index = ssbhash.HammingIndex(n_bits=3)
    >>> codes = ssbhash.pack(np.array([[0, 0, 0], [1, 0, 0], [1, 1, 1]]))
    >>> index.add(codes, ids=[10, 20, 30]).tolist()
    [10, 20, 30]
    >>> index.remove([10])
    >>> distances, ids = index.search(codes[0], k=2)
    >>> distances.tolist(), ids.tolist()
    ([1, 3], [20, 30])
    """

    def __init__(self, n_bits: int, *, layout: Layout = "auto", device: str | None = None) -> None:
        n_bits = as_count(n_bits, "n_bits", 1)
        self._device = _on_device(device)
        self._store = Store(n_bits, _checked_layout(layout), None)

    @classmethod
    def open(
        cls,
        path: str | Path,
        mode: str = "r",
        *,
        n_bits: int | None = None,
        layout: Layout = "auto",
        device: str | None = None,
    ) -> HammingIndex:
        """Open an index that lives in a folder.

        Segments are mapped into memory, so that processes share them and opening takes
        no time. A change survives the end of the process once `add`, `remove` or `update`
        has returned. After `commit` it survives a power failure too.

        Parameters
        ----------
        path : path
            The folder.
        mode : {"r", "a"}
            "r" reads, any number of processes at a time; "a" reads and writes, one process.
        n_bits : int, optional
            Bits in a code. With it, mode "a" makes a folder that does not exist.
        layout : str
            As in `HammingIndex`, for segments written from now on.
        device : str, optional
            As in `HammingIndex`.

        Returns
        -------
        HammingIndex
            Close it, or use it in a `with` statement.

        Raises
        ------
        FileNotFoundError
            If there is no index.
        BlockingIOError
            If another process writes.
        ValueError
            If a file is damaged, foreign, or of another number of bits.
        """
        if mode not in ("r", "a"):
            raise ValueError(f"mode must be 'r' or 'a', got {mode!r}")
        _checked_layout(layout)
        on_device = _on_device(device)
        folder = Folder(Path(path), writes=mode == "a", n_bits=n_bits)
        try:
            index = cls.__new__(cls)
            index._device = on_device
            index._store = Store(folder.n_bits, layout, folder)
        except BaseException:
            folder.close()
            raise
        return index

    @property
    def n_bits(self) -> int:
        """Bits in a code."""
        return self._store.n_bits

    @property
    def n_bytes(self) -> int:
        """Bytes of a packed code."""
        return self._store.n_bytes

    def __len__(self) -> int:
        return len(self._store.state)

    def __contains__(self, one: int | str) -> bool:
        state = self._store.state
        if isinstance(one, str) != (state.names is not None):
            return False
        if not isinstance(one, str) and not 0 <= one <= MAX_ID:
            return False
        return bool(self._store.present([one], state)[1][0])

    def __repr__(self) -> str:
        folder = self._store.folder
        where = "" if folder is None else f", path={str(folder.path)!r}"
        return f"HammingIndex(n_bits={self.n_bits}, n={len(self)}{where})"

    # Changes

    def add(self, codes: AnyArray, ids: AnyArray | None = None) -> Ids | list[str]:
        """Add codes.

        Parameters
        ----------
        codes : uint8 [n, n_bytes] or [n_bytes]
            Packed codes.
        ids : integers or strings [n], optional
            An id for each, not yet in the index; integers from 0. By default they
            continue after the largest id there ever was.

        Returns
        -------
        int64 [n] or list of str
            The ids.

        Raises
        ------
        ValueError, TypeError
            If codes do not fit n_bits, or an id is there already, repeated or out of range.

        Examples
        --------
        >>> import numpy as np, ssbhash
        >>> index = ssbhash.HammingIndex(n_bits=8)
        >>> index.add(np.array([[1], [2]], np.uint8)).tolist()
        [0, 1]
        """
        rows = self._rows(codes)
        with self._store.changing() as state:
            new, names = self._store.new_ids(ids, len(rows))
            if ids is not None:
                numbers, is_present = self._store.present(ids, state)
                if is_present.any():
                    one = int(np.argmax(is_present))
                    known = int(numbers[one]) if names is None else names[one]
                    raise ValueError(f"id {known!r} is in the index already")
            self._store.apply(Change(np.empty(0, np.int64), new, rows, names))
        return new if names is None else names

    def remove(self, ids: OneOrMoreIds) -> None:
        """Remove items by their ids.

        Parameters
        ----------
        ids : integers or strings [n]
            Ids of the items.

        Raises
        ------
        KeyError
            If an id is not in the index; nothing is removed then.
        """
        with self._store.changing() as state:
            gone = np.unique(self._store.existing(ids, state))
            self._store.apply(Change(gone, np.empty(0, np.int64), self._store.no_codes, None))

    def update(self, codes: AnyArray, ids: OneOrMoreIds) -> None:
        """Replace the codes of items; add those that are not in the index.

        All of it happens at once: no search sees a part.

        Parameters
        ----------
        codes : uint8 [n, n_bytes] or [n_bytes]
            Packed codes.
        ids : integers or strings [n]
            An id for each.

        Raises
        ------
        ValueError, TypeError
            If codes do not fit n_bits, or an id is repeated or out of range.
        """
        rows = self._rows(codes)
        with self._store.changing() as state:
            new, names = self._store.new_ids(ids, len(rows))
            old, is_present = self._store.present(ids, state)
            self._store.apply(Change(np.sort(old[is_present]), new, rows, names))

    def compact(self) -> None:
        """Merge all segments into one and drop what was removed."""
        with self._store.changing():
            self._store.compact()

    def commit(self, *, sync: bool = True) -> None:
        """Make changes survive a power failure.

        Changes are in the folder's log when `add`, `remove` and `update` return, so the
        end of the process loses none. Without a folder there is nothing to do.

        Parameters
        ----------
        sync : bool
            False leaves the writing to the operating system.
        """
        with self._store.writing:
            if self._store.folder is not None and sync:
                self._store.folder.sync()

    def refresh(self) -> bool:
        """Take over what a writer in another process has changed.

        Returns
        -------
        bool
            Whether there was a change.
        """
        folder = self._store.folder
        with self._store.writing:
            return folder is not None and not folder.writes and self._store.refresh()

    def save(self, path: str | Path) -> None:
        """Write a copy of the index as a folder.

        Parameters
        ----------
        path : path
            The folder; it must not exist yet, or be empty.
        """
        with self._store.writing:
            state, parts = self._store.state, self._store.sealed()
        with closing(Folder(Path(path), writes=True, n_bits=self.n_bits, is_new=True)) as folder:
            folder.install(parts, state.next_id, living(state.names, parts))

    def verify(self) -> None:
        """Check every byte of the folder against its checksums.

        Raises
        ------
        ValueError
            If something is damaged; the message names the file.
        """
        if self._store.folder is not None:
            self._store.folder.verify()

    def close(self) -> None:
        """Let go of the folder, so that another process may write."""
        with self._store.writing:
            if self._store.folder is not None:
                self._store.folder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Questions

    @overload
    def search(
        self,
        query: Tensor,
        k: int = ...,
        *,
        rerank: tuple[AnyArray, AnyArray] | None = ...,
        **options: Unpack[SearchOptions],
    ) -> TorchSearch: ...
    @overload
    def search(
        self,
        query: ArrayIn,
        k: int = ...,
        *,
        rerank: None = ...,
        **options: Unpack[SearchOptions],
    ) -> SearchResult[Distances, IdsOut]: ...
    @overload
    def search(
        self,
        query: ArrayIn,
        k: int = ...,
        *,
        rerank: tuple[AnyArray, AnyArray],
        **options: Unpack[SearchOptions],
    ) -> SearchResult[Float64Array, IdsOut]: ...
    def search(
        self,
        query: AnyArray,
        k: int = 10,
        *,
        mask: AnyArray | None = None,
        ids: AnyArray | None = None,
        exclude: OneOrMoreIds | None = None,
        max_distance: int | None = None,
        rerank: tuple[AnyArray, AnyArray] | None = None,
        candidates: int = 100,
        metric: str = "cosine",
        backend: str = "auto",
        n_threads: int | None = None,
    ) -> Any:
        """Find the k nearest codes of each query, exactly.

        Parameters
        ----------
        query : uint8 [n_queries, n_bytes] or [n_bytes]
            Packed queries; a single one gives 1-D results.
        k : int
            Neighbours for each query; all items if there are fewer.
        mask : bool [n], optional
            Search only items with mask[id]; for integer ids.
        ids : integers or strings, optional
            Search only these items; ids that are not in the index match nothing.
        exclude : id, or ids [n_queries], optional
            An id that each query must not find, such as its own.
        max_distance : int, optional
            Find only items at most this far away.
        rerank : (vectors, query_vectors), optional
            Order the nearest items by vectors: `vectors[id]` is the vector of an item. See
            `ssbhash.rerank`, also for `candidates` and `metric`.
        candidates : int
            With `rerank`: number of nearest items that are ordered. Items that tie with the
            last of them are ordered too.
        metric : {"cosine", "inner", "posterior"}
            With `rerank`: what orders them.
        backend : {"auto", "native", "numba", "reference"}
            The engine; all give identical results.
        n_threads : int, optional
            Threads at most.

        Returns
        -------
        SearchResult
            `distances` int32 and `ids` int64 (or str), [n_queries, min(k, n allowed)],
            ascending by (distance, id). With `exclude` or `max_distance` a query may find
            fewer. Its row then ends with id -1 (or None) at distance 2**31 - 1.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong dtype, shape or range.
        """
        queries, is_single = self._queries(query, tensors=rerank is None)
        k = as_count(k, "k", 1)
        n_candidates = max(k, as_count(candidates, "candidates", 1))
        state, parts, only = self._asked(mask, ids, exclude, len(queries))
        engine = self._engine(backend), resolve(n_threads)
        most = 8 * self.n_bytes
        if max_distance is not None:
            most = min(most, as_count(max_distance, "max_distance", 0))
        found: tuple[Any, Ids]
        if rerank is None:
            n = sum(part.n_alive for part in parts)
            found = searching.nearest(parts, queries, min(k, n), most, only, *engine)
            if only.mask is not None and bool((found[1][:, -1:] == MISSING_ID).any()):
                n = sum(part.n_alive for part in only.parts(parts))  # counted only if it matters
                found = found[0][:, :n], found[1][:, :n]
        else:
            n = sum(part.n_alive for part in only.parts(parts))
            found = Reranker(*rerank, metric, len(queries), state.codes_of)(
                lambda some, n_wanted: searching.nearest(
                    parts, some, n_wanted, most, only, *engine
                ),
                lambda some, which, radius: searching.within(
                    parts, some, radius, only.of(which), *engine
                ),
                queries,
                min(k, n),
                min(n_candidates, n),
            )
        distances, numbers = (part[0] for part in found) if is_single else found
        return SearchResult(like(distances, query), _shown(state, numbers, query))

    @overload
    def within(self, query: Tensor, radius: int, **options: Unpack[IndexOptions]) -> TorchRange: ...
    @overload
    def within(
        self, query: ArrayIn, radius: int, **options: Unpack[IndexOptions]
    ) -> RangeResult[Distances, IdsOut]: ...
    def within(
        self,
        query: AnyArray,
        radius: int,
        *,
        mask: AnyArray | None = None,
        ids: AnyArray | None = None,
        exclude: OneOrMoreIds | None = None,
        backend: str = "auto",
        n_threads: int | None = None,
    ) -> Any:
        """Find all codes at most `radius` bits from each query (inclusive).

        Parameters
        ----------
        query : uint8 [n_queries, n_bytes] or [n_bytes]
            Packed queries.
        radius : int
            The largest distance.
        mask, ids, exclude, backend, n_threads
            As in `search`.

        Returns
        -------
        RangeResult
            As `ssbhash.within`, with the ids of the index.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong dtype, shape or range.
        """
        queries, _ = self._queries(query, tensors=True)
        state, parts, only = self._asked(mask, ids, exclude, len(queries))
        lims, distances, numbers = searching.within(
            parts,
            queries,
            min(as_count(radius, "radius", 0), 8 * self.n_bytes),
            only,
            self._engine(backend),
            resolve(n_threads),
        )
        return RangeResult(like(lims, query), like(distances, query), _shown(state, numbers, query))

    @overload
    def count_within(
        self, query: Tensor, radius: int, **options: Unpack[IndexOptions]
    ) -> Tensor | int: ...
    @overload
    def count_within(
        self, query: ArrayIn, radius: int, **options: Unpack[IndexOptions]
    ) -> Int64Array | int: ...
    def count_within(
        self,
        query: AnyArray,
        radius: int,
        *,
        mask: AnyArray | None = None,
        ids: AnyArray | None = None,
        exclude: OneOrMoreIds | None = None,
        backend: str = "auto",
        n_threads: int | None = None,
    ) -> Any:
        """Count the codes at most `radius` bits from each query (inclusive).

        Parameters
        ----------
        query, radius, mask, ids, exclude, backend, n_threads
            As in `within`.

        Returns
        -------
        int64 [n_queries], or int for a single query
            The number of codes.

        Raises
        ------
        TypeError, ValueError
            If an argument has the wrong dtype, shape or range.
        """
        queries, is_single = self._queries(query)
        radius = min(as_count(radius, "radius", 0), 8 * self.n_bytes)
        _, parts, only = self._asked(mask, ids, exclude, len(queries))
        engine = self._engine(backend), resolve(n_threads)
        counts = np.zeros(len(queries), np.int64)
        for first in range(0, len(queries), _COUNTED_AT_ONCE):
            some = slice(first, first + _COUNTED_AT_ONCE)
            lims = searching.within(parts, queries[some], radius, only.of(some), *engine)[0]
            counts[some] = np.diff(lims)
        return int(counts[0]) if is_single else like(counts, query)

    def get(self, ids: OneOrMoreIds) -> Codes:
        """Return the codes of items.

        Parameters
        ----------
        ids : id, or ids [n]
            Ids of the items.

        Returns
        -------
        uint8 [n, n_bytes], or [n_bytes] for a single id
            Packed codes.

        Raises
        ------
        KeyError
            If an id is not in the index.
        """
        state = self._store.state
        is_single = isinstance(ids, (int, str)) or n_axes(ids) == 0
        codes = state.codes_of(self._store.existing([ids] if is_single else ids, state))
        single: Codes = codes[0] if is_single else codes
        return single

    def contains(self, ids: OneOrMoreIds) -> BoolArray:
        """Tell which ids are in the index.

        Parameters
        ----------
        ids : integers or strings [n]
            Ids.

        Returns
        -------
        bool [n]
            Whether each is there.
        """
        return self._store.present(ids, self._store.state)[1]

    def ids(self) -> IdsOut:
        """Return all ids.

        Returns
        -------
        int64 [n], or str [n] as objects
            Integers ascending; strings in the order of insertion.
        """
        state = self._store.state
        return state.shown(ids_of(state.all_parts()))

    def stats(self) -> dict[str, Any]:
        """Count items, bytes and segments.

        Returns
        -------
        dict
            `n`, `n_bits`, `n_removed` (not dropped yet), `nbytes` (arrays, mapped ones
            too), `n_growing` and `segments`: a dict for each, with `n`, `n_rows`
            (distinct codes, where equal ones are grouped), `layout` and `nbytes`.
        """
        state = self._store.state
        parts = state.all_parts()
        return {
            "n": len(state),
            "n_bits": self.n_bits,
            "n_removed": sum(len(part.segment) - part.n_alive for part in parts),
            "nbytes": sum(part.segment.nbytes for part in parts),
            "n_growing": len(state.tail.segment),
            "segments": [
                {
                    "n": part.n_alive,
                    "n_rows": len(part.segment.rows),
                    "layout": part.segment.layout,
                    "nbytes": part.segment.nbytes,
                }
                for part in state.parts
            ],
        }

    def _rows(self, codes: AnyArray) -> Codes:
        rows = as_numpy(codes, "codes")
        return as_codes(rows[None] if rows.ndim == 1 else rows, "codes", self.n_bits)

    def _queries(self, query: AnyArray, *, tensors: bool = False) -> tuple[Codes, bool]:
        """Check queries; with `tensors` those on a device stay there, where the index is on one."""
        tensors = tensors and self._device is not None
        queries = as_array(query, "query", tensors)
        is_single = queries.ndim == 1
        rows = queries[None] if is_single else queries
        return as_codes(rows, "query", self.n_bits, tensors=tensors), is_single

    def _engine(self, backend: str) -> str | OnDevice:
        return backend if self._device is None or backend != "auto" else self._device

    def _asked(
        self,
        mask: AnyArray | None,
        ids: AnyArray | None,
        exclude: OneOrMoreIds | None,
        n_queries: int,
    ) -> tuple[State, tuple[Part, ...], searching.Filter]:
        """Take the state, its items that count, and what each query leaves out."""
        state = self._store.state
        parts = state.all_parts()
        bits = None
        if mask is not None:
            if ids is not None:
                raise ValueError("give mask or ids, not both")
            bits = as_numpy(mask, "mask")
            if bits.dtype != bool or bits.ndim != 1 or state.names is not None:
                raise ValueError(
                    f"mask must be bool [n] over integer ids, got {bits.dtype} {list(bits.shape)}"
                )
            bits = np.ascontiguousarray(bits)
        elif ids is not None:
            numbers, is_present = self._store.present(ids, state)
            parts = state.only(numbers[is_present])
        if exclude is None:
            return state, parts, searching.Filter(None, bits)
        numbers, _ = self._store.present(exclude, state)
        if len(numbers) not in (1, n_queries):
            raise ValueError(f"there are {n_queries} queries but {len(numbers)} ids to exclude")
        excluded = np.ascontiguousarray(np.broadcast_to(numbers, n_queries))
        return state, parts, searching.Filter(excluded, bits)


def _shown(state: State, numbers: Ids, query: AnyArray) -> Any:
    """Return ids of the query's kind; strings are in numpy's arrays."""
    return like(numbers, query) if state.names is None else state.shown(numbers)


def _on_device(device: str | None) -> OnDevice | None:
    if device is None:
        return None
    get("cuda")  # raises one sentence if it cannot run
    from ssbhash.index.on_device import OnDevice

    return OnDevice(device)


def _checked_layout(layout: Layout) -> Layout:
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}; got {layout!r}")
    return layout
