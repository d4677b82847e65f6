"""An index in a folder: segments that never change, a manifest, a log, a lock.

docs/index-format.md describes the format. A file is complete on the disk before the manifest
names it: segments and planes are written and synced, then the manifest is replaced in one
step. Between manifests, changes are appended to a log, one record each.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssbhash.index.log import Change, Log, read_log
from ssbhash.index.names import Names
from ssbhash.index.segment_file import checksum, read_segment, sync_folder, write_new, write_segment
from ssbhash.index.segments import Part, Plane, Segment

FORMAT = 2
_MANIFEST = "manifest.json"
_OWN = re.compile(r"(segment|alive|log|names)-\d{6}(\.\w+)?")
__all__ = ["Change", "Folder"]


class Folder:
    """A folder with an index, open for reading or, in one process at a time, for writing."""

    def __init__(
        self, path: Path, *, writes: bool, n_bits: int | None, is_new: bool = False
    ) -> None:
        self.path, self.writes = path, writes
        self._lock: int | None = None
        self._log: Log | None = None
        self._pid = os.getpid()
        self._files: dict[str, Segment] = {}  # those open, by name
        self._manifest: dict[str, Any] = {}
        self._seen: tuple[int, int] = (-1, -1)
        exists = (path / _MANIFEST).exists()
        if is_new and path.exists() and any(path.iterdir()):
            raise FileExistsError(17, "is there already and not empty", str(path))
        if not exists and not (writes and n_bits is not None):
            if path.is_dir() and any(path.iterdir()):
                raise FileNotFoundError(2, "holds no index (no manifest.json)", str(path))
            raise FileNotFoundError(2, "is no index; mode 'a' with n_bits makes one", str(path))
        try:
            if writes:
                path.mkdir(parents=True, exist_ok=True)
                self._take_lock()
            if not (path / _MANIFEST).exists():
                self.n_bits = int(n_bits or 0)
                self.install((), 0, None)
            self._read_manifest()
            if n_bits is not None and n_bits != self.n_bits:
                raise ValueError(f"{path} holds codes of {self.n_bits} bits, not of {n_bits}")
        except BaseException:
            self.close()
            raise

    def _take_lock(self) -> None:
        # The kernel lets go of the lock when the process ends, however it ends.
        self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(
                11, "is open for writing already; one writer at a time", str(self.path)
            ) from None

    def require_writing(self) -> None:
        """Raise unless this process may write."""
        if not self.writes:
            raise PermissionError(13, "is open for reading; open it with mode='a'", str(self.path))
        if self._lock is None:
            raise ValueError(f"{self.path} is closed")
        if os.getpid() != self._pid:
            raise PermissionError(
                13,
                "was opened for writing by the parent process, which alone may write",
                str(self.path),
            )

    def close(self) -> None:
        """Let go of the lock and the log."""
        if self._log is not None:
            self._log.close()
            self._log = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # Reading

    def _read_manifest(self) -> None:
        path = self.path / _MANIFEST
        try:
            outer = json.loads(path.read_bytes())
            body = outer["manifest"]
            if checksum(_canonical(body)) != outer["crc32"]:
                raise ValueError("its checksum does not fit")
            if body["format"] > FORMAT:
                raise ValueError(f"its format {body['format']} is newer than {FORMAT}")
            self.n_bits, self._manifest = int(body["n_bits"]), body
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"{path} is no manifest of an index, or damaged: {error}") from error

    def load(self) -> tuple[tuple[Part, ...], int, Names | None, list[Change]]:
        """Read what the folder holds; a writer cuts off an incomplete last record of the log."""
        for attempt in range(50):
            self._read_manifest()
            try:
                return self._load()
            except FileNotFoundError as error:
                # A writer has replaced the manifest, and removed what the old one named.
                generation = self._manifest["generation"]
                self._read_manifest()
                if generation == self._manifest["generation"] or attempt == 49:
                    raise ValueError(f"{error.filename} is missing from the index") from error
        raise AssertionError

    def _load(self) -> tuple[tuple[Part, ...], int, Names | None, list[Change]]:
        manifest, files, parts = self._manifest, {}, []
        for entry in manifest["segments"]:
            name = entry["file"]
            segment = self._files.get(name)
            if segment is None:
                segment = read_segment(self.path / name, (self.n_bits + 7) // 8, entry["crc32"])
            files[name] = segment
            parts.append(self._part(segment, entry["alive"]))
        names = None
        if manifest["names"] is not None:
            names = _read_names(self.path / manifest["names"]["file"], manifest["names"]["crc32"])
        log = self.path / manifest["log"]
        changes, end = read_log(log, (self.n_bits + 7) // 8)
        self._files = files
        self._seen = (manifest["generation"], end)
        if self.writes:
            if self._log is not None:
                self._log.close()
            self._log = Log(log, end)
        return tuple(parts), int(manifest["next_id"]), names, changes

    def _part(self, segment: Segment, alive: dict[str, Any] | None) -> Part:
        if alive is None:
            return Part.whole(segment)
        path, n = self.path / alive["file"], len(segment)
        plane = np.frombuffer(_checked(path, alive["crc32"]), np.uint8)
        if len(plane) != (n + 7) // 8:
            raise ValueError(f"{path} is damaged: it has {len(plane)} bytes for {n} items")
        n_alive = int(np.unpackbits(plane, count=n, bitorder="little").sum())
        return Part(segment, plane, n_alive)

    def news(self) -> list[Change] | None:
        """Read what a writer has appended to the log; None if the manifest is another one."""
        self._read_manifest()
        generation, end = self._seen
        if self._manifest["generation"] != generation:
            return None
        log = self.path / self._manifest["log"]
        try:
            changes, end = read_log(log, (self.n_bits + 7) // 8, end)
        except FileNotFoundError:  # replaced just now
            return None
        self._seen = (generation, end)
        return changes

    def verify(self) -> None:
        """Check every file against its checksums."""
        self._read_manifest()
        for entry in self._manifest["segments"]:
            path = self.path / entry["file"]
            segment = read_segment(path, (self.n_bits + 7) // 8, entry["crc32"], check_all=True)
            self._part(segment, entry["alive"])
        if self._manifest["names"] is not None:
            names = self._manifest["names"]
            _read_names(self.path / names["file"], names["crc32"])
        read_log(self.path / self._manifest["log"], (self.n_bits + 7) // 8)

    # Writing

    def append(self, change: Change) -> None:
        """Append a change to the log."""
        assert self._log is not None
        self._log.append(change)

    def sync(self) -> None:
        """Put the log on the disk."""
        if self._log is not None:
            self._log.sync()

    def install(self, parts: Sequence[Part], next_id: int, names: Names | None) -> tuple[Part, ...]:
        """Replace what the folder holds by these parts, and begin a new log."""
        generation = int(self._manifest.get("generation", 0)) + 1
        known = {id(segment): name for name, segment in self._files.items()}
        crcs = {entry["file"]: entry["crc32"] for entry in self._manifest.get("segments", ())}
        files: dict[str, Segment] = {}
        entries, kept = [], []
        for number, part in enumerate(parts):
            name = known.get(id(part.segment))
            segment = part.segment
            if name is None:
                name = f"segment-{generation:06d}.{number}"
                crcs[name] = write_segment(self.path / name, segment)
                segment = read_segment(
                    self.path / name, (self.n_bits + 7) // 8, crcs[name], check_all=False
                )
            alive = None
            if part.alive is not None:
                alive = self._write(f"alive-{generation:06d}.{number}", _plane_bytes(part))
            files[name] = segment
            entries.append({"file": name, "crc32": crcs[name], "alive": alive})
            kept.append(Part(segment, part.alive, part.n_alive))
        named = None
        if names is not None:
            named = self._write(f"names-{generation:06d}", names.to_bytes())
        log = f"log-{generation:06d}"
        fresh = Log.create(self.path / log, (self.n_bits + 7) // 8)
        body = {
            "format": FORMAT,
            "generation": generation,
            "n_bits": self.n_bits,
            "next_id": next_id,
            "segments": entries,
            "names": named,
            "log": log,
        }
        try:
            whole = {"manifest": body, "crc32": checksum(_canonical(body))}
            sync_folder(self.path)
            temporary = f"{_MANIFEST}.new"
            write_new(self.path / temporary, json.dumps(whole, indent=1).encode())
            os.replace(self.path / temporary, self.path / _MANIFEST)
            sync_folder(self.path)
        except BaseException:
            fresh.close()
            raise
        self._manifest, self._files = body, files
        if self._log is not None:
            self._log.close()
        self._log = fresh
        self._seen = (generation, fresh.size)
        self._drop_unnamed()
        return tuple(kept)

    def _write(self, name: str, content: bytes) -> dict[str, Any]:
        write_new(self.path / name, content)
        return {"file": name, "crc32": checksum(content)}

    def _drop_unnamed(self) -> None:
        """Remove files of earlier manifests, and of writers that died."""
        body = self._manifest
        named = {body["log"], *(entry["file"] for entry in body["segments"])}
        named |= {entry["alive"]["file"] for entry in body["segments"] if entry["alive"]}
        if body["names"] is not None:
            named.add(body["names"]["file"])
        for path in self.path.iterdir():
            if _OWN.fullmatch(path.name) and path.name not in named:
                path.unlink(missing_ok=True)


def _plane_bytes(part: Part) -> bytes:
    plane: Plane | None = part.alive
    return b"" if plane is None else plane.tobytes()


def _canonical(body: Any) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def _checked(path: Path, crc32: int) -> bytes:
    content = path.read_bytes()
    if checksum(content) != crc32:
        raise ValueError(f"{path} is damaged: its checksum does not fit")
    return content


def _read_names(path: Path, crc32: int) -> Names:
    try:
        return Names.from_bytes(_checked(path, crc32))
    except (KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
