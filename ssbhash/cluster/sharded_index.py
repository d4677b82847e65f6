"""ShardedIndex: the calls of HammingIndex, over shards on several machines."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ssbhash.arrays import Codes, as_codes, as_count, as_numpy, like
from ssbhash.cluster.asking import Asked, ask_all, ask_every
from ssbhash.cluster.fleet import Fleet
from ssbhash.cluster.gate import Gate
from ssbhash.cluster.hashing import Ids, shards_of
from ssbhash.cluster.manifest import Manifest
from ssbhash.cluster.replica import How
from ssbhash.engines import MISSING_DISTANCE, MISSING_ID
from ssbhash.hamming import RangeResult, SearchResult, merge
from ssbhash.index import HammingIndex, Reranker, as_ids, check_one_for_each

if TYPE_CHECKING:
    from typing_extensions import Self

# Queries in one call to the shards, and calls at a time. While results are merged here, the shards
# work on the next queries. Smaller calls take longer for each query (docs/decisions.md).
_QUERIES_AT_ONCE = 4096
_CALLS_AT_ONCE = 2
# Items that are changed, or moved, in one step. A step must be done within the time-out.
_CHANGED_AT_ONCE = 1 << 22
_MOVED_AT_ONCE = 1 << 17


@dataclass
class _Filter:
    """What a search leaves out, and the shards that did not answer."""

    own: dict[int, dict[str, Any]]  # arguments of each shard
    shared: dict[str, Any]  # and of all
    excluded: Ids | None
    missing: set[int] = field(default_factory=set)


class ShardedIndex:
    """An exact index over the machines of a Ray cluster.

    Items are spread over shards by their ids. Results are those of one `HammingIndex` that
    holds them all. Each shard has replicas: reads are spread over them, and a change is
    confirmed when all of them have it on disk. A replica that dies is replaced; until it has
    caught up, the others answer. See docs/cluster.md.

    `ShardedIndex.open` opens an index, in one process, which may have any number of threads.
    Ids are integers.

    Parameters
    ----------
    fleet : Fleet
        The shards and their replicas, as `open` starts them.

    Examples
    --------
    >>> import numpy as np, ray, ssbhash, tempfile
    >>> from ssbhash.cluster import ShardedIndex
    >>> _ = ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    >>> index = ShardedIndex.open(tempfile.mkdtemp(), n_bits=3, n_shards=2)
    >>> codes = ssbhash.pack(np.array([[0, 0, 0], [1, 0, 0], [1, 1, 1]]))
    >>> index.add(codes, ids=[10, 20, 30]).tolist()
    [10, 20, 30]
    >>> index.search(codes[1], k=2).ids.tolist()
    [20, 10]
    >>> index.close()
    >>> ray.shutdown()
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._next_id = fleet.next_id
        self._writing = threading.RLock()
        self._gate = Gate()
        self._is_torn = False  # whether some items may be in two shards
        self._empty = HammingIndex(self.n_bits)  # checks arguments, as every index does

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        n_bits: int | None = None,
        n_shards: int | None = None,
        n_replicas: int | None = None,
        timeout_s: float = 60.0,
        n_cpus: float = 0.0,
    ) -> ShardedIndex:
        """Open a sharded index, or make one.

        Ray is started on this machine unless `ray.init` was called before or RAY_ADDRESS is set.

        Parameters
        ----------
        path : path
            A folder, absolute, under the same name on all machines. It may be storage that they
            share, or a local disk of each: a replica copies what it does not find.
        n_bits : int, optional
            Bits in a code. With it an index is made where there is none.
        n_shards : int, optional
            Shards of a new index, 1 by default. `rebalance` changes the number.
        n_replicas : int, optional
            Replicas of each shard; 1 for a new index by default. May be changed.
        timeout_s : float
            Seconds that the shards may take for 4,096 queries, or for a change of four million
            items.
        n_cpus : float
            Ray CPUs that each process of replicas reserves.

        Returns
        -------
        ShardedIndex
            Close it, or use it in a `with` statement.

        Raises
        ------
        FileNotFoundError
            If there is no index, and no `n_bits`.
        ValueError
            If the index has another number of bits or shards.
        BlockingIOError
            If another process owns the index.
        ShardsUnavailableError
            A TimeoutError; if a shard has no replica that can be opened.
        """
        folder = Path(path).absolute()
        is_new = n_bits is not None and not (folder / "cluster.json").exists()
        if is_new:
            shape = (
                as_count(n_shards or 1, "n_shards", 1),
                as_count(n_replicas or 1, "n_replicas", 1),
            )
            manifest = Manifest(as_count(n_bits, "n_bits", 1), shape[0])
            manifest.copies = [[0] * shape[1] for _ in range(shape[0])]
        else:
            manifest = Manifest.read(folder)
            for name, given in (("n_bits", n_bits), ("n_shards", n_shards)):
                if given is not None and given != getattr(manifest, name):
                    raise ValueError(f"{folder} has {name}={getattr(manifest, name)}, not {given}")
            if n_replicas is not None:
                n_replicas = as_count(n_replicas, "n_replicas", 1)
                manifest.copies = [(own + [0] * n_replicas)[:n_replicas] for own in manifest.copies]
        how: How = "make" if is_new else "open"
        index = cls(Fleet(folder, manifest, timeout_s, n_cpus, how))
        if manifest.moving_to is not None:
            index.rebalance()
        return index

    @property
    def n_bits(self) -> int:
        """Bits in a code."""
        return self._fleet.manifest.n_bits

    @property
    def n_bytes(self) -> int:
        """Bytes of a packed code."""
        return (self.n_bits + 7) // 8

    @property
    def n_shards(self) -> int:
        """Shards that items are spread over."""
        return self._fleet.manifest.n_shards

    @property
    def ray(self) -> Any:
        """The module of Ray, which is loaded by then."""
        return self._fleet.ray

    @property
    def path(self) -> Path:
        """The folder."""
        return self._fleet.folder

    def __len__(self) -> int:
        with self._reading():
            return sum(shard.n for shard in self._fleet.shards)

    def __contains__(self, one: Any) -> bool:
        return not isinstance(one, str) and bool(self.contains([one])[0])

    def __repr__(self) -> str:
        return (
            f"ShardedIndex(n_bits={self.n_bits}, n_shards={self.n_shards}, path={str(self.path)!r})"
        )

    # Changes

    def add(self, codes: Any, ids: Any = None) -> Any:
        """Add codes.

        Parameters
        ----------
        codes, ids
            As in `HammingIndex.add`, with integer ids.

        Returns
        -------
        int64 [n]
            The ids.

        Raises
        ------
        ShardsUnavailableError
            A TimeoutError: a replica did not confirm in time. Some of the items may be there
            then, and the others may come later. `update` with the same items is safe.
        """
        with self._changing():
            rows, numbers = self._checked(codes, ids)
            if ids is not None:
                is_present = self._contains(numbers)
                if is_present.any():
                    known = int(numbers[int(np.argmax(is_present))])
                    raise ValueError(f"id {known} is in the index already")
            self._apply(numbers, rows)
        return numbers

    def update(self, codes: Any, ids: Any) -> None:
        """Replace the codes of items; add those that are not in the index.

        Parameters
        ----------
        codes, ids
            As in `HammingIndex.update`, with integer ids.
        """
        with self._changing():
            rows, numbers = self._checked(codes, ids)
            self._apply(numbers, rows)

    def remove(self, ids: Any) -> None:
        """Remove items by their ids.

        Parameters
        ----------
        ids : integers [n]
            Ids of the items.

        Raises
        ------
        KeyError
            If an id is not in the index; nothing is removed then.
        ShardsUnavailableError
            As in `add`.
        """
        with self._changing():
            numbers = self._as_ids(ids)
            is_present = self._contains(numbers)
            if not is_present.all():
                raise KeyError(f"id {int(numbers[int(np.argmin(is_present))])} is not in the index")
            self._apply(np.unique(numbers), None)

    def commit(self, *, sync: bool = True) -> None:
        """Return at once: changes are on the disks of all replicas when they return.

        Parameters
        ----------
        sync : bool
            Ignored; `HammingIndex` has it.
        """

    def compact(self) -> None:
        """Merge the segments of every replica, and drop what was removed."""
        with self._changing():
            self._fleet.on_every_replica("compact")

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with self._writing:
            if self._fleet.manifest.moving_to is not None:
                raise RuntimeError("a rebalance was interrupted: call rebalance() again")
            yield

    def _as_ids(self, ids: Any, name: str = "ids") -> Ids:
        """Check ids; strings are refused."""
        if isinstance(ids, str) or np.asarray(ids).dtype.kind in "OUST":
            raise TypeError(
                f"{name} must be integers: a sharded index has no strings. Keep them in a table"
            )
        return as_ids(ids, name)

    def _checked(self, codes: Any, ids: Any) -> tuple[Codes, Ids]:
        rows = as_numpy(codes, "codes")
        rows = as_codes(rows[None] if rows.ndim == 1 else rows, "codes", self.n_bits)
        if ids is None:
            return rows, np.arange(self._next_id, self._next_id + len(rows), dtype=np.int64)
        numbers = self._as_ids(ids)
        check_one_for_each(numbers, len(rows))
        return rows, numbers

    def _apply(self, ids: Ids, codes: Codes | None) -> None:
        """Change the shards that own some items."""
        if codes is not None and len(ids):
            self._next_id = max(self._next_id, int(ids.max()) + 1)
        for first in range(0, len(ids), _CHANGED_AT_ONCE):
            some = slice(first, first + _CHANGED_AT_ONCE)
            rows = None if codes is None else codes[some]
            self._fleet.change(_dealt(ids[some], rows, self.n_shards), self._next_id)

    # Questions

    def search(
        self,
        query: Any,
        k: int = 10,
        *,
        mask: Any = None,
        ids: Any = None,
        exclude: Any = None,
        max_distance: int | None = None,
        rerank: tuple[Any, Any] | None = None,
        candidates: int = 100,
        metric: str = "cosine",
        allow_partial: bool = False,
        backend: str = "auto",
        n_threads: int | None = None,
    ) -> Any:
        """Find the k nearest codes of each query, exactly.

        Parameters
        ----------
        query, k, mask, ids, exclude, max_distance, rerank, candidates, metric
            As in `HammingIndex.search`. With `rerank`, the vectors stay in this process.
        allow_partial : bool
            If shards do not answer in time, return what the others found.
        backend, n_threads
            As in `HammingIndex.search`, for each process of the cluster.

        Returns
        -------
        SearchResult
            As one index over all items would find. With `allow_partial` a pair: the result,
            and the list of shards that are missing from it, mostly empty.

        Raises
        ------
        ShardsUnavailableError
            A TimeoutError: a shard did not answer in time, and `allow_partial` is not set.
        """
        queries, is_single = self._queries(query)
        n_wanted = k = as_count(k, "k", 1)
        engine: dict[str, Any] = {"backend": backend, "n_threads": n_threads}
        self._empty.search(queries, k, mask=mask, max_distance=max_distance, **engine)
        options = {**engine, "max_distance": max_distance}
        with self._reading():
            kept = self._filter(mask, ids, exclude, len(queries))
            if rerank is not None:
                n_wanted = max(k, as_count(candidates, "candidates", 1))
            found = first = self._nearest(queries, n_wanted, kept, options)
            if rerank is not None:
                ordered = Reranker(*rerank, metric, len(queries), self._get)(
                    lambda *_: first,
                    lambda some, which, radius: self._within(some, radius, kept, which, engine),
                    queries,
                    min(k, first.ids.shape[1]),
                    n_wanted,
                )
                found = SearchResult(*ordered)
        missing = self._missing(kept, allow_partial)
        distances, numbers = (part[0] for part in found) if is_single else found
        result = SearchResult(like(distances, query), like(numbers, query))
        return (result, missing) if allow_partial else result

    def within(
        self,
        query: Any,
        radius: int,
        *,
        mask: Any = None,
        ids: Any = None,
        exclude: Any = None,
        allow_partial: bool = False,
        backend: str = "auto",
        n_threads: int | None = None,
    ) -> Any:
        """Find all codes at most `radius` bits from each query (inclusive).

        Parameters
        ----------
        query, radius, mask, ids, exclude, backend, n_threads
            As in `HammingIndex.within`.
        allow_partial : bool
            As in `search`.

        Returns
        -------
        RangeResult
            As `HammingIndex.within`. With `allow_partial` a pair as in `search`.

        Raises
        ------
        ShardsUnavailableError
            As in `search`.
        """
        queries, _ = self._queries(query)
        engine: dict[str, Any] = {"backend": backend, "n_threads": n_threads}
        self._empty.within(queries, radius, mask=mask, **engine)
        with self._reading():
            kept = self._filter(mask, ids, exclude, len(queries))
            found = self._within(queries, radius, kept, None, engine)
        missing = self._missing(kept, allow_partial)
        result = RangeResult(*(like(part, query) for part in found))
        return (result, missing) if allow_partial else result

    def count_within(
        self,
        query: Any,
        radius: int,
        *,
        mask: Any = None,
        ids: Any = None,
        exclude: Any = None,
        backend: str = "auto",
        n_threads: int | None = None,
    ) -> Any:
        """Count the codes at most `radius` bits from each query (inclusive).

        Parameters
        ----------
        query, radius, mask, ids, exclude, backend, n_threads
            As in `HammingIndex.within`.

        Returns
        -------
        int64 [n_queries], or int for a single query
            The number of codes.
        """
        queries, is_single = self._queries(query)
        options: dict[str, Any] = {"radius": radius, "backend": backend, "n_threads": n_threads}
        self._empty.count_within(queries, mask=mask, **options)
        with self._reading():
            kept = self._filter(mask, ids, exclude, len(queries))
            counts = [
                np.sum([*answers.values(), np.zeros(len(some), np.int64)], axis=0)
                for some, answers in self._pipelined("count_within", queries, kept, None, options)
            ]
        self._missing(kept, False)
        joined = np.concatenate([np.empty(0, np.int64), *counts])
        return int(joined[0]) if is_single else like(joined, query)

    def get(self, ids: Any) -> Codes:
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
        numbers = self._as_ids(ids)
        with self._reading():
            codes = self._get(numbers)
        single: Codes = codes[0] if np.ndim(ids) == 0 else codes
        return single

    def contains(self, ids: Any) -> npt.NDArray[np.bool_]:
        """Tell which ids are in the index.

        Parameters
        ----------
        ids : integers [n]
            Ids.

        Returns
        -------
        bool [n]
            Whether each is there.
        """
        numbers = self._as_ids(ids)
        with self._reading():
            return self._contains(numbers)

    def ids(self) -> Ids:
        """Return all ids.

        Returns
        -------
        int64 [n]
            Ascending.
        """
        with self._reading():
            return np.sort(np.concatenate(ask_every(self._fleet, "ids")))

    def stats(self) -> dict[str, Any]:
        """Count items and bytes, and tell which replicas serve.

        Returns
        -------
        dict
            `n`, `n_bits`, `n_removed`, `nbytes`, `n_growing` as `HammingIndex.stats`, of one
            replica of each shard; `missing`, the shards that did not answer in time and are not
            counted; `n_replaced`, the replicas that were replaced since the index
            was opened; and `shards`, a dict for each: `n`, `version` (its number of changes),
            `is_changing` and `replicas`, a dict for each with `is_serving`, `node`, `process`
            and `trouble`, why it does not serve.
        """
        fleet = self._fleet
        with self._reading():
            asked = Asked(fleet, "stats", {shard.number: {} for shard in fleet.shards})
            answers, missing = asked.answers()
        names = ("n", "n_removed", "nbytes", "n_growing")
        total = {name: sum(one[name] for one in answers.values()) for name in names}
        return {**total, "n_bits": self.n_bits, "missing": missing, **fleet.stats()}

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._gate.reading(self._fleet.timeout_s):
            if self._is_torn:
                raise RuntimeError("a rebalance was interrupted: call rebalance() again")
            yield

    def _queries(self, query: Any) -> tuple[Codes, bool]:
        queries = as_numpy(query, "query")
        is_single = queries.ndim == 1
        return as_codes(queries[None] if is_single else queries, "query", self.n_bits), is_single

    def _filter(self, mask: Any, ids: Any, exclude: Any, n_queries: int) -> _Filter:
        """Prepare the options of each shard that select its items."""
        own: dict[int, dict[str, Any]] = {shard.number: {} for shard in self._fleet.shards}
        shared = {}
        if mask is not None and ids is not None:
            raise ValueError("give mask or ids, not both")
        if mask is not None:
            shared["mask"] = self._fleet.ray.put(as_numpy(mask, "mask"))
        if ids is not None:
            wanted = self._as_ids(ids)
            owned = self._owned(wanted)
            own = {number: {"ids": wanted[owned.get(number, [])]} for number in own}
        excluded = None
        if exclude is not None:
            excluded = self._as_ids(exclude, "exclude")
            if len(excluded) not in (1, n_queries):
                raise ValueError(
                    f"there are {n_queries} queries but {len(excluded)} ids to exclude"
                )
            excluded = np.broadcast_to(excluded, n_queries)
        return _Filter(own, shared, excluded)

    def _missing(self, kept: _Filter, allow_partial: bool) -> list[int]:
        missing = sorted(kept.missing)
        if missing and not allow_partial:
            raise self._fleet.unavailable(missing, "gave no answer")
        return missing

    def _pipelined(
        self,
        method: str,
        queries: Codes,
        kept: _Filter,
        which: npt.NDArray[np.int64] | None,
        options: Mapping[str, Any],
    ) -> Iterator[tuple[Codes, dict[int, Any]]]:
        """Ask all shards, some queries at a time; yield the queries and each shard's answer.

        `which` are the numbers of the queries in the search, if they are only a part of it.
        """
        waiting: deque[tuple[Codes, Asked]] = deque()
        excluded = kept.excluded
        if excluded is not None and which is not None:
            excluded = excluded[which]
        for first in range(0, max(1, len(queries)), _QUERIES_AT_ONCE):
            some = slice(first, first + _QUERIES_AT_ONCE)
            shared = {**options, **kept.shared, "query": queries[some]}
            if excluded is not None:
                shared["exclude"] = excluded[some]
            waiting.append((queries[some], Asked(self._fleet, method, kept.own, **shared)))
            if len(waiting) == _CALLS_AT_ONCE:
                yield self._answered(kept, *waiting.popleft())
        while waiting:
            yield self._answered(kept, *waiting.popleft())

    def _answered(self, kept: _Filter, some: Codes, asked: Asked) -> tuple[Codes, dict[int, Any]]:
        answers, missing = asked.answers()
        kept.missing.update(missing)
        return some, answers

    def _nearest(
        self, queries: Codes, k: int, kept: _Filter, options: Mapping[str, Any]
    ) -> SearchResult[Any, Any]:
        parts = []
        for some, answers in self._pipelined("search", queries, kept, None, {**options, "k": k}):
            nothing = self._empty.search(some, k)
            found = [(answers[number], 0) for number in sorted(answers)]
            parts.append(merge(found or [(nothing, 0)], k))
        # If shards change or are missing meanwhile, some queries may have found fewer.
        width = max(part.ids.shape[1] for part in parts)
        return SearchResult(
            np.concatenate([_widened(part.distances, width, MISSING_DISTANCE) for part in parts]),
            np.concatenate([_widened(part.ids, width, MISSING_ID) for part in parts]),
        )

    def _within(
        self,
        queries: Codes,
        radius: int,
        kept: _Filter,
        which: npt.NDArray[np.int64] | None,
        engine: Mapping[str, Any],
    ) -> tuple[Ids, npt.NDArray[np.int32], Ids]:
        counts, all_distances, all_ids = [], [np.empty(0, np.int32)], [np.empty(0, np.int64)]
        options = {**engine, "radius": radius}
        for some, answers in self._pipelined("within", queries, kept, which, options):
            found = list(answers.values()) or [self._empty.within(some, radius)]
            own = [np.repeat(np.arange(len(some)), np.diff(part.lims)) for part in found]
            query, distances, ids = (
                np.concatenate(parts)
                for parts in (own, [part.distances for part in found], [part.ids for part in found])
            )
            order = np.lexsort((ids, distances, query))
            counts.append(np.bincount(query, minlength=len(some)))
            all_distances.append(distances[order])
            all_ids.append(ids[order])
        lims = np.concatenate([np.zeros(1, np.int64), *counts]).cumsum()
        return lims, np.concatenate(all_distances), np.concatenate(all_ids)

    def _owned(self, ids: Ids) -> dict[int, npt.NDArray[np.int64]]:
        """Find for each shard the places of its items in `ids`."""
        if self._fleet.manifest.moving_to is None:
            owner = shards_of(ids, self.n_shards)
            return {number: np.flatnonzero(owner == number) for number in np.unique(owner).tolist()}
        found = ask_every(self._fleet, "contains", ids=ids)
        return {number: np.flatnonzero(is_here) for number, is_here in enumerate(found)}

    def _asked_of_owners(self, method: str, ids: Ids) -> Iterator[tuple[Any, Any]]:
        owned = self._owned(ids)
        asked = {number: {"ids": ids[places]} for number, places in owned.items()}
        return zip(owned.values(), ask_all(self._fleet, method, asked), strict=True)

    def _contains(self, ids: Ids) -> npt.NDArray[np.bool_]:
        is_present = np.zeros(len(ids), bool)
        for places, found in self._asked_of_owners("contains", ids):
            is_present[places] = found
        return is_present

    def _get(self, ids: Ids) -> Codes:
        codes = np.empty((len(ids), self.n_bytes), np.uint8)
        is_known = np.zeros(len(ids), bool)
        for places, found in self._asked_of_owners("get", ids):
            codes[places], is_known[places] = found, True
        if not is_known.all():
            raise KeyError(f"id {int(ids[int(np.argmin(is_known))])} is not in the index")
        return codes

    # Shape

    def rebalance(self, n_shards: int | None = None) -> None:
        """Spread items over `n_shards` shards, and replicas over all present nodes.

        Only items whose shard changes are moved: from n to n + 1 shards, one in n + 1. Searches
        go on, and are exact at every moment; changes wait. An interrupted move goes on when
        the index is opened, or with the next call.

        Parameters
        ----------
        n_shards : int, optional
            The new number of shards, more or fewer; unchanged by default.
        """
        manifest = self._fleet.manifest
        if n_shards is not None:
            n_shards = as_count(n_shards, "n_shards", 1)
        with self._writing:
            for target in (manifest.moving_to, n_shards):
                if target is not None and (target != self.n_shards or manifest.moving_to):
                    self._move_items(target)
            self._fleet.spread()

    def _move_items(self, n_shards: int) -> None:
        fleet = self._fleet
        fleet.manifest.moving_to = n_shards
        fleet.write_manifest()
        n_more = n_shards - len(fleet.shards)
        if n_more > 0:
            fleet.add_shards([[0] * len(fleet.shards[0].members)] * n_more, "replace")
        for number in range(len(fleet.shards)):
            ids = ask_all(fleet, "ids", {number: {}})[0]
            ids = ids[shards_of(ids, n_shards) != number]
            for first in range(0, len(ids), _MOVED_AT_ONCE):
                some = ids[first : first + _MOVED_AT_ONCE]
                codes = ask_all(fleet, "get", {number: {"ids": some}})[0]
                with self._gate.closed():
                    self._is_torn = True
                    fleet.change(_dealt(some, codes, n_shards), self._next_id)
                    fleet.change({number: (some, None)}, self._next_id)
                    self._is_torn = False
        with self._gate.closed():
            self._is_torn = False
            fleet.manifest.n_shards, fleet.manifest.moving_to = n_shards, None
            fleet.drop_shards(n_shards)

    def verify(self) -> None:
        """Check every byte of every replica against its checksums.

        Raises
        ------
        ValueError
            If something is damaged; the message names the file.
        """
        self._fleet.on_every_replica("verify")

    def close(self) -> None:
        """Stop the replicas."""
        with self._writing:
            self._fleet.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _dealt(ids: Ids, codes: Codes | None, n_shards: int) -> dict[int, tuple[Ids, Codes | None]]:
    """Divide items among their shards."""
    owner = shards_of(ids, n_shards)
    dealt = {}
    for number in np.unique(owner).tolist():
        mine = owner == number
        dealt[number] = ids[mine], None if codes is None else codes[mine]
    return dealt


def _widened(array: npt.NDArray[Any], width: int, missing: int) -> npt.NDArray[Any]:
    n_more = width - array.shape[1]
    return np.pad(array, ((0, 0), (0, n_more)), constant_values=missing) if n_more else array
