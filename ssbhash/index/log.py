"""The log of changes that are not in a segment yet: one record each, with checksums."""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssbhash.arrays import Codes, Ids
from ssbhash.atomic import naming
from ssbhash.index.segment_file import checksum, sync_folder

_MAGIC = b"SSBHLOG1"
_HEAD = struct.Struct("<8sII")  # magic, bytes of a code, CRC-32 of both
_RECORD = struct.Struct("<QII")  # bytes of the content, its CRC-32, CRC-32 of these 12 bytes
_CONTENT = struct.Struct("<QQQ")  # removed ids, new ids, bytes of the new names (JSON)


@dataclass(frozen=True, eq=False)
class Change:
    """One change: removed ids, then new items; all of it or nothing."""

    removed: Ids
    ids: Ids
    codes: Codes
    names: list[str] | None


class Log:
    """A log open for appending."""

    def __init__(self, path: Path, end: int) -> None:
        self._path, self._file = path, os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self.size = end
        os.ftruncate(self._file, end)  # a record that a crash cut short

    @classmethod
    def create(cls, path: Path, n_bytes: int) -> Log:
        """Make an empty log."""
        start = struct.pack("<8sI", _MAGIC, n_bytes)
        with naming(path):
            path.write_bytes(start + struct.pack("<I", checksum(start)))
        log = cls(path, _HEAD.size)
        log.sync()
        sync_folder(path.parent)
        return log

    def append(self, change: Change) -> None:
        """Append a record; if this fails, the log is as before."""
        names = b"" if change.names is None else json.dumps(change.names).encode()
        content = b"".join(
            [
                _CONTENT.pack(len(change.removed), len(change.ids), len(names)),
                change.removed.astype("<i8").tobytes(),
                change.ids.astype("<i8").tobytes(),
                change.codes.tobytes(),
                names,
            ]
        )
        start = struct.pack("<QI", len(content), checksum(content))
        record = memoryview(start + struct.pack("<I", checksum(start)) + content)
        try:
            done = 0
            with naming(self._path):
                while done < len(record):
                    done += os.pwrite(self._file, record[done:], self.size + done)
        except BaseException:
            os.ftruncate(self._file, self.size)
            raise
        self.size += len(record)

    def sync(self) -> None:
        """Put the log on the disk."""
        with naming(self._path):
            os.fsync(self._file)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def read_log(path: Path, n_bytes: int, start: int = 0) -> tuple[list[Change], int]:
    """Read the whole records from a place on, and where they end.

    A record cut short ends the log.

    Raises
    ------
    ValueError
        If a record is damaged.
    """
    with path.open("rb") as file:
        head = struct.pack("<8sI", _MAGIC, n_bytes)
        if file.read(_HEAD.size) != head + struct.pack("<I", checksum(head)):
            raise ValueError(f"{path} is damaged, or no log of this index")
        start = max(start, _HEAD.size)
        file.seek(start)
        content = file.read()
    changes, at = [], 0
    while at + _RECORD.size <= len(content):
        length, crc, own = _RECORD.unpack_from(content, at)
        if checksum(content[at : at + _RECORD.size - 4]) != own:
            raise ValueError(f"{path} is damaged: the record at byte {start + at}")
        begin, end = at + _RECORD.size, at + _RECORD.size + length
        if end > len(content):
            break
        if checksum(content[begin:end]) != crc:
            raise ValueError(f"{path} is damaged: the record at byte {start + at}")
        changes.append(_parsed(content[begin:end], n_bytes))
        at = end
    return changes, start + at


def _parsed(content: bytes, n_bytes: int) -> Change:
    n_removed, n_new, n_names = _CONTENT.unpack_from(content)
    at = _CONTENT.size
    removed = np.frombuffer(content, "<i8", n_removed, at)
    ids = np.frombuffer(content, "<i8", n_new, at + removed.nbytes)
    at += removed.nbytes + ids.nbytes
    codes = np.frombuffer(content, np.uint8, n_new * n_bytes, at).reshape(n_new, n_bytes)
    names: Any = json.loads(content[len(content) - n_names :]) if n_names else None
    return Change(removed.astype(np.int64), ids.astype(np.int64), codes, names)
