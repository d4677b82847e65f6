"""Reads and writes data files; the one place that knows their formats.

Codes are `.npy`, uint8 [n, n_bytes], so that any tool can map them into memory. Nothing is
ever unpickled. Every file is written under another name and then renamed as a whole.
"""

from __future__ import annotations

import io
import json
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ssbhash.arrays import Codes, as_codes
from ssbhash.atomic import make_folder, replacing
from ssbhash.data.items import Fields, Items
from ssbhash.data.matrices import (
    end_of_array,
    read_arrays,
    read_npy,
    read_npz,
    read_npz_labels,
)
from ssbhash.data.reading import STANDARD_INPUT, Malformed, display, parse_json, sound
from ssbhash.data.tables import read_csv, read_json_lines, read_parquet, read_stream

__all__ = [
    "FORMATS",
    "Items",
    "check_folder",
    "display",
    "is_data_file",
    "json_bytes",
    "parse_json",
    "read_arrays",
    "read_codes",
    "read_items",
    "read_labels",
    "write_codes",
    "write_json",
]

Array = npt.NDArray[Any]

_TABLES: dict[str, Callable[[Path, Fields], Items]] = {
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".csv": read_csv,
    ".tsv": lambda path, fields: read_csv(path, fields, "\t"),
    ".parquet": read_parquet,
}
FORMATS = ".npy, .npz, .parquet, .csv, .tsv, .jsonl, .ndjson, or one of the last four with .gz"
_SIDECAR_BYTES = 1 << 16
# Extra blanks in the header of our code files. By them, a file whose second array was cut off is
# told from a file of other software.
_MARK_BYTES = 64
_HEADER_BYTES = 1 << 16


def read_items(
    path: str | Path,
    *,
    text: str = "text",
    label: str = "label",
    id: str | None = None,
    vector: str | None = None,
) -> Items:
    r"""Read a data file; its suffix tells the format.

    Parameters
    ----------
    path : path
        One of `FORMATS`. "-" is standard input: JSON lines, CSV or TSV, packed or not.
    text, label : str
        Names of the field (or column) with the text and with the label or labels.
    id, vector : str, optional
        Names of the field with the user's own id of an item, and with a vector in place of
        a text.

    Returns
    -------
    Items
        Parts that the file does not have are None.

    Raises
    ------
    OSError
        If the file cannot be opened.
    ValueError
        If the suffix is unknown, or the file is truncated, damaged, or holds something else.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "notes.csv")
    >>> _ = path.write_text("id,text,label\n7,green tea,drink\n8,red ants,\n")
    >>> items = read_items(path, id="id")
    >>> items.texts, items.labels, items.ids
    (['green tea', 'red ants'], ['drink', None], ['7', '8'])
    """
    path, fields = Path(path), Fields(text, label, id, vector)
    kind = _suffix(path)
    if kind in _TABLES:
        return _TABLES[kind](path, fields)
    if kind == ".npy":
        features = read_npy(path)
        return Items(features=_matrix(features, path))
    if kind == ".npz":
        features, labels = read_npz(path)
        features = features if hasattr(features, "tocsr") else _matrix(features, path)
        return Items(features=features, labels=_as_many(labels, features.shape[0], path))
    if _is_stream(path):
        return read_stream(path, fields)
    raise ValueError(f"{path} is none of {FORMATS}")


def read_labels(path: str | Path, *, label: str = "label") -> Array | list[Any]:
    """Read labels alone: a `.npy` array, `y` of an `.npz`, or a field of the others."""
    path = Path(path)
    kind = _suffix(path)
    if kind in (".npy", ".npz"):
        labels = read_npy(path) if kind == ".npy" else read_npz_labels(path)
        if labels.ndim == 0:
            raise ValueError(f"{path} holds one value, not a label for each item")
        return labels
    if kind not in _TABLES and not _is_stream(path):
        raise ValueError(f"{path} is none of {FORMATS}")
    items = _TABLES.get(kind, read_stream)(path, Fields(text=None, label=label))
    if items.labels is None:
        raise ValueError(
            f"{display(path)} has no labels: no field {label!r} with a value "
            f"(fields: {', '.join(items.fields)}). Name it with --label-field"
        )
    return items.labels


def is_data_file(path: Path) -> bool:
    """Whether the name is that of a data file, present or not."""
    return _suffix(path) in (*_TABLES, ".npy", ".npz")


def _suffix(path: Path) -> str:
    """Return the suffix that tells the format: lower case, without `.gz`."""
    inner = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return inner.suffix.lower()


def read_codes(path: str | Path) -> tuple[Codes, int]:
    """Map a code file into memory: codes uint8 [n, n_bytes] and n_bits.

    Codes of `write_codes` are checked, all of them. For codes of other software n_bits is
    8 * n_bytes, unless `PATH.json` beside it tells less, as in `{"n_bits": 12}`.

    Raises
    ------
    OSError
        If the file cannot be opened.
    ValueError
        If the file is truncated, damaged, or holds something else.
    """
    path = Path(path)
    if path.suffix != ".npy":
        raise ValueError(f"{path} is no code file: codes are .npy, uint8 [n, n_bytes]")
    codes = read_npy(path, more=True)
    if codes.dtype != np.uint8 or codes.ndim != 2 or codes.shape[1] == 0:
        raise ValueError(
            f"{path} holds {codes.dtype} {list(codes.shape)}, not codes uint8 [n, n_bytes]"
        )
    n_bits = _written_bits(path, codes)
    sidecar = path.with_name(path.name + ".json")
    if n_bits is None and sidecar.exists():
        with sidecar.open("rb") as file:
            described = parse_json(file.read(_SIDECAR_BYTES), sidecar)
        n_bits = described.get("n_bits") if isinstance(described, dict) else None
        if not isinstance(n_bits, int):
            raise ValueError(f"{sidecar} must be an object with the number 'n_bits'")
    n_bits = 8 * codes.shape[1] if n_bits is None else n_bits
    return as_codes(codes, str(path), n_bits), n_bits


def write_codes(path: str | Path, codes: Codes, n_bits: int) -> None:
    """Write codes as `.npy`, whole or not at all.

    A second array after the codes, in the same file, has n_bits and the CRC-32 of the codes.
    `numpy.load` reads the codes and ignores it.
    """
    path = Path(path)
    if path.suffix != ".npy":
        raise ValueError(f"codes are written as .npy, got {path}")
    codes = as_codes(codes, "codes", n_bits)
    with replacing(path) as file:
        head = io.BytesIO()
        about = np.lib.format.header_data_from_array_1_0(codes)
        np.lib.format.write_array_header_1_0(head, about)
        text = head.getvalue()
        length = int.from_bytes(text[8:10], "little") + _MARK_BYTES
        file.write(text[:8] + length.to_bytes(2, "little") + text[10:-1])
        file.write(b" " * _MARK_BYTES + b"\n")
        file.write(codes.data)
        np.save(file, _end(codes, n_bits), allow_pickle=False)


def _end(codes: Codes, n_bits: int) -> npt.NDArray[np.int64]:
    return np.array([n_bits, zlib.crc32(codes.data)], np.int64)


def _written_bits(path: Path, codes: Codes) -> int | None:
    """Read n_bits after the codes, and check the codes; None if nothing follows them."""
    with sound(path), path.open("rb") as file:
        head = file.read(10 + _HEADER_BYTES)
        length = int.from_bytes(head[8:10], "little")
        is_ours = head[: 10 + length].endswith(b" " * _MARK_BYTES + b"\n")
        place = file.seek(end_of_array(path))
        if not is_ours and place == path.stat().st_size:
            return None
        end = np.load(file, allow_pickle=False)
        if end.shape != (2,) or not np.array_equal(end, _end(codes, int(end[0]))) or file.read(1):
            raise Malformed("was changed or damaged: its checksum differs")
        return int(end[0])


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` as JSON, whole or not at all."""
    with replacing(path) as file:
        file.write(json_bytes(content))


def json_bytes(content: Any) -> bytes:
    """Write `content` as JSON in UTF-8; halves of surrogates, which JSON may hold, pass."""
    text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
    return text.encode(errors="surrogatepass")


def check_folder(path: str | Path) -> None:
    """Make a folder, and fail now if nothing can be written there, not after hours."""
    make_folder(Path(path))
    with tempfile.TemporaryFile(dir=path):
        pass


def _is_stream(path: Path) -> bool:
    """Whether it is standard input, a pipe, or a device (/dev/stdin may stand for a file)."""
    if path == STANDARD_INPUT or path.parts[:2] == ("/", "dev"):
        return True
    return path.exists() and not path.is_file() and not path.is_dir()


def _matrix(array: Array, path: Path) -> Array:
    if array.ndim != 2 or array.dtype.kind not in "biuf":
        raise ValueError(
            f"{path} must hold a matrix of numbers [n, D], got {array.dtype} {list(array.shape)}"
        )
    return array


def _as_many(labels: Array | None, n_items: int, path: Path) -> Array | None:
    if labels is not None and (labels.ndim == 0 or len(labels) != n_items):
        raise ValueError(f"{path} has {n_items} items but labels {list(labels.shape)}")
    return labels
