"""The index that is served: opened, followed while others change it, replaced by a new one."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ssbhash import HammingIndex
from ssbhash.serve import metrics

if TYPE_CHECKING:
    from ssbhash.cluster import ShardedIndex

log = logging.getLogger("uvicorn.error")


class Index(Protocol):
    """What the service needs of an index; `HammingIndex` documents it."""

    @property
    def n_bits(self) -> int:
        """Bits in a code."""

    def __len__(self) -> int: ...

    def __contains__(self, one: Any, /) -> bool: ...

    def search(self, query: Any, k: int = 10, *, max_distance: int | None = None) -> Any:
        """Find the k nearest codes of each query."""

    def within(self, query: Any, radius: int, *, ids: Any = None) -> Any:
        """Find all codes at most `radius` bits from each query."""

    def add(self, codes: Any, ids: Any = None) -> Any:
        """Add codes; return their ids."""

    def remove(self, ids: Any) -> None:
        """Remove items."""

    def commit(self) -> None:
        """Make changes safe from a power failure."""

    def get(self, ids: Any) -> Any:
        """Return the codes of ids."""

    def ids(self) -> Any:
        """Return all ids."""

    def stats(self) -> dict[str, Any]:
        """Count items, bytes and segments."""


class FolderSource:
    """The index in a folder. One process writes; the others see its changes after a `look`.

    Parameters
    ----------
    folder
        The index, or a symbolic link to it. When the link comes to point at another
        index, the next `look` opens that one. Searches that run keep the old one.
    writes
        Whether to write, as soon as no other process does.
    n_bits
        Bits that the index must have, where a model encodes its queries.
    """

    def __init__(self, folder: str | Path, *, writes: bool, n_bits: int | None = None) -> None:
        self._folder, self._writes, self._n_bits = Path(folder), writes, n_bits
        self.is_sound = True  # whether the last look could read the folder
        self.changing = threading.Lock()
        self._open()

    def _open(self) -> None:
        target = self._folder.resolve()
        identity = _identity(target)
        index = _for_writing(target) if self._writes else None
        is_writer = index is not None
        index = HammingIndex.open(target) if index is None else index
        try:
            _check_bits(index, self._n_bits)
        except ValueError:
            index.close()
            raise
        self._target, self._identity = target, identity
        self.index: HammingIndex = index
        self.is_writer = is_writer

    def look(self) -> None:
        """Take over what has changed: the items, the folder, or that nobody writes any more."""
        try:
            with self.changing:
                self._look()
            self.is_sound = True
        except (OSError, ValueError) as error:
            # The old state still answers. The next look may find a whole folder again.
            metrics.FAILED_LOOKS.inc()
            if self.is_sound:
                log.error("%s cannot be read anew: %s", self._folder, error)
            self.is_sound = False
        metrics.ITEMS.set(len(self.index))

    def _look(self) -> None:
        if _identity(self._folder) != self._identity:
            old = self.index
            self._open()
            old.close()
            log.info("%s is a new index of %d items", self._folder, len(self.index))
            return
        if self.is_writer:
            return
        index = _for_writing(self._target) if self._writes else None
        if index is None:
            self.index.refresh()
        else:
            old, self.index, self.is_writer = self.index, index, True
            old.close()

    def close(self) -> None:
        """Let another process write."""
        with self.changing:
            self.is_writer = self._writes = False
            self.index.close()


class FixedSource:
    """An index that somebody else opened: one in memory, or one that spans machines."""

    is_writer = is_sound = True

    def __init__(self, index: Index, n_bits: int | None = None) -> None:
        _check_bits(index, n_bits)
        self.index = index
        self.changing = threading.Lock()

    def look(self) -> None:
        """Count the items."""
        metrics.ITEMS.set(len(self.index))

    def close(self) -> None:
        """Do nothing: whoever opened the index closes it."""


class ShardedSource(FixedSource):
    """The sharded index in a folder, which this process owns.

    Parameters
    ----------
    folder
        The index.
    timeout_s
        Seconds that its shards may take.
    n_bits
        Bits that the index must have, where a model encodes its queries.
    """

    index: ShardedIndex

    def __init__(self, folder: str | Path, *, timeout_s: float, n_bits: int | None = None) -> None:
        from ssbhash.cluster import ShardedIndex

        index = ShardedIndex.open(folder, timeout_s=timeout_s)
        try:
            super().__init__(index, n_bits)
        except ValueError:
            index.close()
            raise

    def look(self) -> None:
        """Count the items, and see whether every shard has a replica that serves."""
        shards = self.index.stats()["shards"]
        metrics.ITEMS.set(sum(shard["n"] for shard in shards))
        self.is_sound = all(
            any(replica["is_serving"] for replica in shard["replicas"]) for shard in shards
        )

    def close(self) -> None:
        """Stop the replicas."""
        self.index.close()


def is_sharded(folder: str | Path) -> bool:
    """Tell whether a folder holds a sharded index."""
    return (Path(folder) / "cluster.json").exists()


def _for_writing(folder: Path) -> HammingIndex | None:
    try:
        return HammingIndex.open(folder, "a")
    except BlockingIOError:  # another process writes
        return None


def _check_bits(index: Index, n_bits: int | None) -> None:
    if n_bits not in (None, index.n_bits):
        raise ValueError(
            f"the index holds codes of {index.n_bits} bits, but the model makes codes of {n_bits}"
        )


def _identity(folder: Path) -> tuple[int, int]:
    about = os.stat(folder)
    return about.st_dev, about.st_ino
