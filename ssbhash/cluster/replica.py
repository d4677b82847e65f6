"""One copy of one shard: an index in a folder, and how far it has come."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from ssbhash.arrays import Codes
from ssbhash.atomic import replacing
from ssbhash.cluster.hashing import Ids
from ssbhash.index import HammingIndex

How: TypeAlias = Literal["open", "make", "replace"]

_CHUNK_BYTES = 1 << 24
# A killed process that had the folder open may take a moment to end.
_LOCK_WAIT_S = 10.0


class NotCurrentError(RuntimeError):
    """The replica lacks changes, so it must not answer."""


class Progress(NamedTuple):
    """How far a replica has come.

    `copy` numbers the folder's content: it grows each time that it is copied from another
    replica, and is 0 where there is none. `is_changing` says that the change after `version`
    had begun when the process ended, so that it may be there or not.
    """

    copy: int
    version: int
    is_changing: bool
    next_id: int
    n: int


class Replica:
    """A copy of a shard.

    Every change has a number, the version that it leads to. A change is on the disk before
    `apply` returns, and applying one twice does no harm.

    Parameters
    ----------
    folder : str
        Where it lives: `index`, a folder of the index format, and `progress.json`.
    n_bits : int
        Bits in a code.
    """

    def __init__(self, folder: str, n_bits: int) -> None:
        self._folder, self._n_bits = Path(folder), n_bits
        self._index: HammingIndex | None = None
        self._progress = Progress(0, 0, False, 0, 0)
        self._is_sound = False  # whether the index is what `_progress` says
        self._changing = threading.RLock()

    def open(self, how: How) -> Progress:
        """Open the folder, or "make" an empty index in it, or "replace" what is there by one."""
        with self._changing:
            if how == "replace":
                shutil.rmtree(self._folder, ignore_errors=True)
            self._progress = self._read()
            if how != "open":
                if self._progress.version:
                    raise FileExistsError(17, "holds a shard of an index", str(self._folder))
                self._index = self._opened(self._n_bits)
                self._write(Progress(1, 0, False, 0, 0))
            elif self._progress.copy:
                self._index = self._opened(None)
                self._progress = self._progress._replace(n=len(self._index))
            self._is_sound = self._index is not None and not self._progress.is_changing
            return self._progress

    def ask(self, version: int, method: str, arguments: dict[str, Any]) -> Any:
        """Call a method of the index, which must have come to `version` at least."""
        index = self._index
        if index is None or not self._is_sound or self._progress.version < version:
            raise NotCurrentError(f"{self._folder} is at {self._progress}, not at {version}")
        return getattr(index, method)(**arguments)

    def apply(self, version: int, next_id: int, ids: Ids, codes: Codes | None) -> Progress:
        """Give items codes, or remove them where `codes` is None."""
        with self._changing:
            if self._index is None or self._progress.version not in (version - 1, version):
                raise NotCurrentError(f"{self._folder} is at {self._progress}, not at {version}")
            if self._progress.version == version:
                return self._progress
            self._write(self._progress._replace(is_changing=True))
            try:
                if codes is None:
                    self._index.remove(ids[self._index.contains(ids)])
                else:
                    self._index.update(codes, ids)
                self._index.commit()
                n, next_id = len(self._index), max(next_id, self._progress.next_id)
                self._write(Progress(self._progress.copy, version, False, next_id, n))
            except BaseException:
                self._is_sound = False
                raise
            self._is_sound = True
            return self._progress

    def settle(self) -> Progress:
        """Take a change that had begun as done, whether it is there or not."""
        with self._changing:
            version = self._progress.version + 1
            self._write(self._progress._replace(version=version, is_changing=False))
            self._is_sound = True
            return self._progress

    def own(self, method: str) -> None:
        """Call a method of the index that changes no result."""
        with self._changing:
            if self._index is not None:
                getattr(self._index, method)()

    # Copying from one replica to another

    def snapshot(self) -> tuple[Progress, list[tuple[str, int]]]:
        """Write a copy beside the index; return its progress, and name and bytes of each file."""
        with self._changing:
            if self._index is None or not self._is_sound:
                raise NotCurrentError(f"{self._folder} is at {self._progress}")
            folder = self._snapshot_folder()
            shutil.rmtree(folder, ignore_errors=True)
            self._index.save(folder)
            files = [(path.name, path.stat().st_size) for path in sorted(folder.iterdir())]
            return self._progress, files

    def chunk(self, name: str, offset: int) -> bytes:
        """Read a part of a file of the snapshot."""
        with open(self._snapshot_folder() / name, "rb") as file:
            file.seek(offset)
            return file.read(_CHUNK_BYTES)

    def drop_snapshot(self) -> None:
        """Remove the snapshot."""
        shutil.rmtree(self._snapshot_folder(), ignore_errors=True)

    def receive(self, source: Any, copy: int) -> Progress:
        """Replace the content by that of another replica, a Handle; it becomes number `copy`."""
        import ray

        with self._changing:
            progress, files = ray.get(source.copy("snapshot"))
            arriving = self._folder / "arriving"
            shutil.rmtree(arriving, ignore_errors=True)
            arriving.mkdir(parents=True)
            for name, n_bytes in files:
                with open(arriving / name, "wb") as file:
                    offsets = range(0, n_bytes, _CHUNK_BYTES)
                    file.writelines(ray.get(source.copy("chunk", name, at)) for at in offsets)
                    file.flush()
                    os.fsync(file.fileno())
            source.copy("drop_snapshot")
            HammingIndex.open(arriving).verify()
            if self._index is not None:
                self._index.close()
                self._index = None
            # From here to the last line the folder counts as empty.
            (self._folder / "progress.json").unlink(missing_ok=True)
            shutil.rmtree(self._folder / "index", ignore_errors=True)
            os.rename(arriving, self._folder / "index")
            self._index, self._is_sound = self._opened(None), True
            self._write(progress._replace(copy=copy))
            return self._progress

    def _snapshot_folder(self) -> Path:
        return self._folder / "leaving"

    # The end

    def close(self) -> None:
        """Let go of the folder."""
        with self._changing:
            if self._index is not None:
                self._index.close()
                self._index = None

    def discard(self) -> None:
        """Remove the folder."""
        self.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    # Files

    def _opened(self, n_bits: int | None) -> HammingIndex:
        give_up = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                return HammingIndex.open(self._folder / "index", "a", n_bits=n_bits)
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.05)

    def _read(self) -> Progress:
        with suppress(FileNotFoundError):
            found = json.loads((self._folder / "progress.json").read_bytes())
            return Progress(**found)
        return Progress(0, 0, False, 0, 0)

    def _write(self, progress: Progress) -> None:
        with replacing(self._folder / "progress.json") as file:
            file.write(json.dumps(progress._asdict()).encode())
        self._progress = progress
