"""The journal file of a study: one JSON object a line, each with its checksum.

Lines are only appended. The checksum covers the line's number, so lost, repeated and swapped
lines are noticed. Optuna's own journal can read the file, but it does not notice damaged lines,
and stops reading after a line that was cut off.
"""

from __future__ import annotations

import fcntl
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ssbhash.atomic import naming

VERSION = 1


class Journal:
    """A journal backend of optuna.

    Parameters
    ----------
    path : path
        Made if missing. A last line that was cut off (by a kill or a full disk) is dropped.

    Raises
    ------
    ValueError
        If another line is damaged or foreign.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Number of lines that were read, and where the next one begins.
        self._n_read, self._position = 0, 0
        with self._locked("ab"):
            pass
        self.read_logs(0)

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        """Return the lines from `log_number_from` on."""
        number, position = 0, 0
        if log_number_from >= self._n_read:
            number, position = self._n_read, self._position
        found = []
        with self._locked("rb") as file:
            file.seek(position)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                number, position = number + 1, position + len(line)
                if number > log_number_from:
                    found.append(self._parse(line, number))
        self._n_read, self._position = number, position
        return found

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append whole lines; they are on disk when this returns."""
        with self._locked("r+b") as file:
            content = file.read()
            file.seek(content.rfind(b"\n") + 1)
            file.truncate()
            first = content.count(b"\n") + 1
            file.write(b"".join(_line(log, number) for number, log in enumerate(logs, first)))
            file.flush()
            os.fsync(file.fileno())

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            log = json.loads(line)
            del log["checksum"]
            if _line(log, number) == line:
                return dict(log)
        except (ValueError, KeyError, TypeError, RecursionError):
            pass
        raise ValueError(
            f"{self._path} line {number} is no line of an ssbhash study of version {VERSION}; "
            "it is damaged or foreign"
        )

    @contextmanager
    def _locked(self, mode: str) -> Iterator[IO[bytes]]:
        with naming(self._path), self._path.open(mode) as file:
            fcntl.flock(file, fcntl.LOCK_SH if mode == "rb" else fcntl.LOCK_EX)
            yield file


def _line(log: dict[str, Any], number: int) -> bytes:
    checksum = zlib.crc32(f"{VERSION} {number} {json.dumps(log)}".encode())
    return (json.dumps({**log, "checksum": checksum}) + "\n").encode()
