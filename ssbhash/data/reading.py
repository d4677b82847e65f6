"""Opens files that may be damaged, foreign, compressed, or standard input."""

from __future__ import annotations

import gzip
import io
import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

STANDARD_INPUT = Path("-")


def display(path: Path) -> str:
    """Name a file in messages."""
    return "standard input" if path == STANDARD_INPUT else str(path)


class Malformed(ValueError):
    """An error in a file that a person can mend; `sound` puts the file's name before it."""


@contextmanager
def sound(path: Path) -> Iterator[None]:
    """Turn any exception of a damaged or foreign file into one ValueError that names it.

    Errors of the system pass, such as a missing file or a full memory. So do errors that
    name the file already. Warnings of libraries are silenced; the error is enough.
    """
    name = display(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ModuleNotFoundError:
        raise
    except Malformed as error:
        raise ValueError(f"{name} {error}") from error
    # The readers of numpy, scipy, zipfile and pyarrow raise almost anything: SyntaxError,
    # struct.error, RecursionError, LZMAError, NotImplementedError, ...
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
            raise
        said = " ".join(str(error).split()) or type(error).__name__
        if said.startswith(name):
            raise
        if isinstance(error, UnicodeDecodeError):
            byte = error.object[error.start]
            said = f"it is not UTF-8 text (byte 0x{byte:02x}); save it as UTF-8"
        elif isinstance(error, MemoryError):
            said = f"it needs more memory than there is: {said}"
        elif "pickle" in said or "Python objects" in said:
            said = "it is another format, or holds Python objects, which are never loaded"
        raise ValueError(f"{name} cannot be read, truncated or foreign: {said[:300]}") from error


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file or standard input for reading; gzip is decompressed."""
    with _raw(path) as raw:
        buffered = raw if hasattr(raw, "peek") else io.BufferedReader(raw)
        head = buffered.peek(2)[:2]
        if head == b"\x1f\x8b":
            with gzip.open(buffered) as file:
                yield cast(IO[bytes], file)
        elif head and path.suffix.lower() == ".gz":
            raise ValueError("it is no gzip file")
        else:
            yield buffered


@contextmanager
def _raw(path: Path) -> Iterator[Any]:
    if path == STANDARD_INPUT:
        yield sys.stdin.buffer
    else:
        with path.open("rb") as file:
            yield file


def parse_json(content: bytes | str, path: Path) -> Any:
    """Read JSON; `path` is named in errors.

    Raises
    ------
    ValueError
        If it is none, or nested too deeply.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON; it is truncated or foreign: {error}") from error
