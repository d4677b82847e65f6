"""A segment in a file: a header, and arrays that are mapped into memory."""

from __future__ import annotations

import json
import mmap
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ssbhash.atomic import naming
from ssbhash.index.segments import Segment

_MAGIC = b"SSBHSEG2"
# Its tables had four bytes for each row. They are left out, and the segment is scanned.
_OLD_MAGIC = b"SSBHSEG1"
_FIXED = struct.Struct("<8sII")  # magic, bytes of the header, its CRC-32
_ALIGNMENT = 64
# Files up to this size are checked as a whole when opened (20 ms); larger ones by `verify`.
_CHECKED_BYTES = 1 << 24
_WRITE_BYTES = 1 << 24


def checksum(content: Any) -> int:
    """Compute the CRC-32, as zlib does."""
    return zlib.crc32(content)


def sync_folder(path: Path) -> None:
    """Put the names in a folder on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_new(path: Path, *parts: Any) -> None:
    """Write a file and put it on the disk; on any error no file is left."""
    try:
        with naming(path), open(path, "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _arrays(segment: Segment) -> list[tuple[str, npt.NDArray[Any]]]:
    named: list[tuple[str, npt.NDArray[Any]]] = [("rows", segment.rows)]
    if segment.ids is not None:
        named.append(("ids", segment.ids))
    if segment.members is not None:
        named += [("first_member", segment.members[0]), ("members", segment.members[1])]
    for number, table in enumerate(segment.tables):
        starts, rows, codes = table
        named += [
            (f"table{number}.starts", starts),
            (f"table{number}.rows", rows),
        ]
        if codes is not None:
            named.append((f"table{number}.codes", codes))
    return named


def write_segment(path: Path, segment: Segment) -> int:
    """Write a segment; return the checksum of its header, which has those of the arrays."""
    described, offset = [], 0
    named = _arrays(segment)
    for name, array in named:
        array = np.ascontiguousarray(array)
        described.append(
            {
                "name": name,
                "dtype": array.dtype.newbyteorder("<").str,
                "shape": list(array.shape),
                "offset": offset,  # from the end of the header
                "crc32": checksum(array.reshape(-1).view(np.uint8)),
            }
        )
        offset += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
    header = json.dumps(
        {"first_id": segment.first_id, "n_items": len(segment), "arrays": described}
    ).encode()
    header += b" " * (-(_FIXED.size + len(header)) % _ALIGNMENT)
    content: list[Any] = [_FIXED.pack(_MAGIC, len(header), checksum(header)), header]
    for _, array in named:
        content.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
        content.append(b"\0" * (-array.nbytes % _ALIGNMENT))
    write_new(path, *content)
    return checksum(header)


def read_segment(path: Path, n_bytes: int, crc32: int, *, check_all: bool = False) -> Segment:
    """Map a segment into memory.

    Raises
    ------
    ValueError
        If the header is damaged or does not match. If an array is damaged too, in files of up
        to 16 MiB or with `check_all`.
    """
    try:
        with open(path, "rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        magic, n_header, crc = _FIXED.unpack_from(content)
        header = content[_FIXED.size : _FIXED.size + n_header]
        if magic not in (_MAGIC, _OLD_MAGIC) or crc != crc32 or checksum(header) != crc32:
            raise ValueError("its header is not that of the segment")
        described = json.loads(header)
        start = _FIXED.size + n_header
        arrays = {}
        for one in described["arrays"]:
            array = np.frombuffer(
                content, one["dtype"], int(np.prod(one["shape"])), start + one["offset"]
            )
            if (check_all or len(content) <= _CHECKED_BYTES) and checksum(
                array.view(np.uint8)
            ) != one["crc32"]:
                raise ValueError(f"the checksum of {one['name']} does not fit")
            arrays[one["name"]] = array.reshape(one["shape"])
        if magic == _OLD_MAGIC:
            arrays = {name: one for name, one in arrays.items() if not name.startswith("table")}
        return _made(arrays, described, n_bytes)
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, TypeError, struct.error, RecursionError) as error:
        raise ValueError(f"{path} is damaged, or no segment of this index: {error}") from error


def _made(arrays: dict[str, Any], described: dict[str, Any], n_bytes: int) -> Segment:
    rows = arrays["rows"]
    if rows.ndim != 2 or rows.shape[1] != n_bytes:
        raise ValueError(f"its codes have shape {rows.shape}, not [n, {n_bytes}]")
    members = None
    if "members" in arrays:
        members = (arrays["first_member"], arrays["members"])
    n_tables = sum(name.endswith(".starts") for name in arrays)
    tables = tuple(
        (arrays[f"table{t}.starts"], arrays[f"table{t}.rows"], arrays.get(f"table{t}.codes"))
        for t in range(n_tables)
    )
    return Segment(rows, arrays.get("ids"), int(described["first_id"]), members, tables)
