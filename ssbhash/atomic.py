"""Files written whole or not at all, alone or several together.

`replacing` writes one file. `write_together` writes files of a folder that belong together:
a manifest with the checksum of each makes them valid, all at once. A writer that is killed
leaves the old files as they were. The next write into the folder removes its temporary
files.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

MANIFEST = "manifest.json"
VERSION = 1

_TEMPORARY = ".ssbhash-part"
_STAGED = re.compile(r"\.[^/]+\.[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
# A manifest of a few files takes some hundred bytes.
_MANIFEST_BYTES = 1 << 20


@contextmanager
def replacing(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a file that gets the name `path` only when all of it is written.

    The data are on disk before the name is. A symbolic link stays; its target is replaced.
    An existing file keeps its mode. A device or a pipe is written directly.

    Raises
    ------
    OSError
        If `path` cannot be written. The error names `path`, and the old file is intact.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "new", "figures.txt")
    >>> with replacing(path) as file:
    ...     _ = file.write(b"1 2 3")
    >>> path.read_bytes()
    b'1 2 3'
    """
    target = Path(os.path.realpath(path))
    make_folder(target.parent)
    old = target.stat() if target.exists() else None
    if old is not None and stat.S_ISDIR(old.st_mode):
        raise IsADirectoryError(21, "is a folder, not a file", str(path))
    if old is not None and not stat.S_ISREG(old.st_mode):
        with target.open("wb") as file:
            yield file
        return
    if old is not None and not os.access(target, os.W_OK):
        raise PermissionError(13, "Permission denied", str(path))
    temporary = ""
    try:
        temporary, handle = _create_temporary(target)
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            if old is not None:
                with suppress(OSError):  # only root may give a file away
                    os.chown(temporary, old.st_uid, old.st_gid)
                os.chmod(temporary, stat.S_IMODE(old.st_mode))
            os.fsync(file.fileno())
            os.replace(temporary, target)
        _sync_folder(target.parent)
    except BaseException as error:
        if temporary:
            with suppress(OSError):
                os.unlink(temporary)
        if isinstance(error, OSError) and (
            error.filename is None or str(error.filename).endswith(_TEMPORARY)
        ):
            raise _named(error, path) from error
        raise


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Name `path` in errors of the system.

    Examples
    --------
    >>> with naming("codes.npy"):
    ...     raise OSError(28, "No space left on device")
    Traceback (most recent call last):
    ...
    OSError: [Errno 28] No space left on device: 'codes.npy'
    """
    try:
        yield
    except OSError as error:
        raise _named(error, path) from error


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, if they are missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(20, "Not a directory", str(folder)) from error


def write_together(folder: str | Path, contents: Mapping[str, bytes]) -> None:
    """Write files into a folder so that all of them are valid, or the old ones still are.

    1. The new files are written under temporary names.
    2. The manifest is replaced. From here on the new files are the valid ones.
    3. The new files get their names.

    `read_together` finds the valid files at every moment.

    Parameters
    ----------
    folder : path
        Made if needed. Files of the last write are removed; other files in it stay.
    contents : mapping of str to bytes
        What each file holds, by its name.

    Raises
    ------
    OSError
        If a file cannot be written. The error names it, and the old files are valid.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> write_together(folder, {"weights": b"123", "names": b"ant"})
    >>> sorted(read_together(folder))
    ['names', 'weights']
    """
    folder = Path(os.path.realpath(folder))
    make_folder(folder)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    manifest = _manifest_text(sums)
    for name in [*sums, MANIFEST]:
        if (folder / name).is_dir():
            raise IsADirectoryError(21, "is a folder, not a file", str(folder / name))
        if (folder / name).exists() and not os.access(folder / name, os.W_OK):
            raise PermissionError(13, "Permission denied", str(folder / name))
    with _locked(folder, fcntl.LOCK_EX):
        old = _read_manifest(folder) if (folder / MANIFEST).exists() else {}
        _finish(folder, old)
        _remove_staged(folder)
        try:
            for name, content in contents.items():
                with naming(folder / name):
                    _stage(folder / name, folder / _staged(name, sums[name]), content)
            with replacing(folder / MANIFEST) as file:
                file.write(manifest)
        except BaseException:
            _remove_staged(folder)
            raise
        _finish(folder, sums)
        for name in old.keys() - sums.keys():
            (folder / name).unlink(missing_ok=True)
        _sync_folder(folder)


def read_together(folder: str | Path) -> dict[str, bytes]:
    """Read what `write_together` wrote.

    Raises
    ------
    FileNotFoundError
        If the folder, its manifest or a file of it is missing.
    ValueError
        If a file is truncated, damaged, foreign, or of another write.
    """
    folder = Path(folder)
    with _locked(folder, fcntl.LOCK_SH):
        return {
            name: _content(folder, name, wanted) for name, wanted in _read_manifest(folder).items()
        }


def _stage(target: Path, aside: Path, content: bytes) -> None:
    with replacing(aside) as file:
        file.write(content)
    if target.exists():
        os.chmod(aside, stat.S_IMODE(target.stat().st_mode))


def _content(folder: Path, name: str, wanted: str) -> bytes:
    """Read one file by its name; after a killed write, by its temporary name."""
    for path in (folder / name, folder / _staged(name, wanted)):
        with suppress(FileNotFoundError):
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() == wanted:
                return content
    if not (folder / name).exists():
        raise FileNotFoundError(2, "No such file or directory", str(folder / name))
    raise ValueError(
        f"{folder / name} is not the file that {MANIFEST} was saved with; "
        "it is truncated, damaged or foreign"
    )


def _read_manifest(folder: Path) -> dict[str, str]:
    path = folder / MANIFEST
    with path.open("rb") as file:
        text = file.read(_MANIFEST_BYTES)
    try:
        content: Any = json.loads(text)
        if content["version"] != VERSION:
            raise ValueError(f"it has version {content['version']!r}, this ssbhash reads {VERSION}")
        files: dict[str, str] = content["files"]
        # A manifest is valid to the last byte only: what was changed by hand is told.
        if _manifest_text(files) != text:
            raise ValueError("it was changed")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is truncated, damaged or foreign: {error}") from error
    return files


def _manifest_text(sums: Mapping[str, str]) -> bytes:
    for name, digest in sums.items():
        if not _NAME.fullmatch(name) or not re.fullmatch("[0-9a-f]{64}", digest):
            raise ValueError(f"{name!r} cannot be a file of a manifest")
    head = {"format": "ssbhash", "version": VERSION, "files": dict(sorted(sums.items()))}
    check = hashlib.sha256(json.dumps(head).encode()).hexdigest()
    return (json.dumps({**head, "check": check}, indent=1) + "\n").encode()


def _staged(name: str, digest: str) -> str:
    return f".{name}.{digest}"


def _finish(folder: Path, sums: Mapping[str, str]) -> None:
    """Give temporary files their names."""
    for name, digest in sums.items():
        aside = folder / _staged(name, digest)
        if aside.exists():
            os.replace(aside, folder / name)


def _remove_staged(folder: Path) -> None:
    for entry in folder.iterdir():
        if _STAGED.fullmatch(entry.name):
            entry.unlink(missing_ok=True)


def _create_temporary(target: Path) -> tuple[str, int]:
    """Create a locked file beside `target`; the lock shows that its writer lives."""
    _remove_dead(target.parent)
    while True:
        name = f".{target.name[:40]}.{secrets.token_hex(6)}{_TEMPORARY}"
        path = str(target.parent / name)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(handle).st_nlink:
            return path, handle
        os.close(handle)  # another writer removed it before the lock


def _remove_dead(folder: Path) -> None:
    """Remove the temporary files of writers that have died."""
    for path in folder.glob(f".*{_TEMPORARY}"):
        with suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def _sync_folder(folder: Path) -> None:
    """Make renames last through a power failure; some file systems cannot."""
    with suppress(OSError), _opened(folder) as handle:
        os.fsync(handle)


@contextmanager
def _locked(folder: Path, kind: int) -> Iterator[None]:
    with _opened(folder) as handle:
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(handle, kind)
        yield


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


def _named(error: OSError, path: str | Path) -> OSError:
    return OSError(error.errno, error.strerror or str(error), str(path))
