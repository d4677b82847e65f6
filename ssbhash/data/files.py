"""Files in and out: one place that knows the accepted formats.

Read: `.npy` (dense features), `.npz` (dense `X` and labels `y`, or a scipy sparse
matrix), `.jsonl` and `.jsonl.gz` (one object a line: text and label), `.parquet`
where pyarrow is present. Codes are `.npy`, uint8 [n, n_bytes], so that any tool can
map them into memory. Nothing is ever unpickled, and every file is written beside
its final name and moved there whole.
"""

from __future__ import annotations

import gzip
import json
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ssbhash.arrays import Codes, as_codes
from ssbhash.atomic import replacing

Array = npt.NDArray[Any]
T = TypeVar("T")

_JSONL = (".jsonl", ".jsonl.gz")
_FORMATS = ".npy, .npz, .jsonl, .jsonl.gz, .parquet"
_SPARSE_KEYS = {"format", "shape", "data"}


@dataclass(frozen=True)
class Items:
    """What a data file holds; absent parts are None.

    `features` dense [n, D] or CSR; `texts` n strings; `labels` an array (class ids
    with -1 = unlabelled, or an indicator matrix) or a list (None = unlabelled, a
    class, or a list of classes).
    """

    features: Any = None
    texts: list[str] | None = None
    labels: Array | list[Any] | None = None

    def __len__(self) -> int:
        """Count the items."""
        if self.texts is not None:
            return len(self.texts)
        return 0 if self.features is None else int(self.features.shape[0])


def read_items(path: str | Path, *, text: str = "text", label: str = "label") -> Items:
    """Read a data file; its suffix tells the format.

    Parameters
    ----------
    path : path
        `.npy`, `.npz`, `.jsonl`, `.jsonl.gz` or `.parquet`.
    text, label : str
        Names of the field (or column) with the text and with the label or labels.

    Raises
    ------
    OSError
        If the file cannot be opened.
    ValueError
        If the suffix is unknown, or the file is truncated or holds something else.
    """
    path = Path(path)
    if path.name.endswith(_JSONL):
        return _read_jsonl(path, text, label)
    if path.suffix == ".parquet":
        return _read_parquet(path, text, label)
    if path.suffix == ".npy":
        return Items(features=_matrix(_load_npy(path), path))
    if path.suffix == ".npz":
        return _reading(path, _read_npz)
    raise ValueError(f"{path} is none of {_FORMATS}")


def read_labels(path: str | Path, *, label: str = "label") -> Array | list[Any]:
    """Read labels alone: a `.npy` array, `y` of an `.npz`, or a field of the others."""
    path = Path(path)
    if path.suffix == ".npy":
        return _load_npy(path)
    if path.suffix == ".npz":
        archive = _reading(path, _arrays_of)
        if "y" not in archive:
            raise ValueError(f"{path} has no labels: no array 'y' among {sorted(archive)}")
        return archive["y"]
    labels: list[Any] | None = None
    if path.name.endswith(_JSONL):
        labels = [row.get(label) for _, row in _json_rows(path)]
    elif path.suffix == ".parquet":
        table = _read_table(path)
        labels = table[label].to_pylist() if label in table.column_names else None
    else:
        raise ValueError(f"{path} is none of {_FORMATS}")
    if labels is None or all(one is None for one in labels):
        raise ValueError(f"{path} has no labels: no field {label!r}")
    return labels


def read_codes(path: str | Path) -> tuple[Codes, int]:
    """Map a code file into memory: codes uint8 [n, n_bytes] and n_bits.

    n_bits is 8 * n_bytes unless `PATH.json` beside it says less.
    """
    path = Path(path)
    if path.suffix != ".npy":
        raise ValueError(f"{path} is no code file: codes are .npy, uint8 [n, n_bytes]")
    codes = _load_npy(path)
    if codes.dtype != np.uint8 or codes.ndim != 2 or codes.shape[1] == 0:
        raise ValueError(
            f"{path} holds {codes.dtype} {list(codes.shape)}, not codes uint8 [n, n_bytes]"
        )
    n_bits = 8 * codes.shape[1]
    sidecar = _sidecar(path)
    if sidecar.exists():
        described = _reading(sidecar, lambda file: json.loads(file.read_text("utf-8")))
        n_bits = described.get("n_bits") if isinstance(described, dict) else None
        if not isinstance(n_bits, int):
            raise ValueError(f"{sidecar} must be an object with the number 'n_bits'")
    return as_codes(codes, str(path), n_bits), n_bits


def write_codes(path: str | Path, codes: Codes, n_bits: int) -> None:
    """Write codes as `.npy`, and n_bits to `PATH.json` where it is not 8 * n_bytes."""
    path = Path(path)
    if path.suffix != ".npy":
        raise ValueError(f"codes are written as .npy, got {path}")
    codes = as_codes(codes, "codes", n_bits)
    sidecar = _sidecar(path)
    # A sidecar of an older file must not describe the new one.
    sidecar.unlink(missing_ok=True)
    with replacing(path) as file:
        np.save(file, codes, allow_pickle=False)
    if n_bits != 8 * codes.shape[1]:
        write_json(sidecar, {"n_bits": n_bits})


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` as JSON, whole or not at all."""
    with replacing(path) as file:
        file.write((json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode())


def check_folder(path: str | Path) -> None:
    """Make a folder, and fail now if nothing can be written there, not after hours."""
    Path(path).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):
        pass


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _reading(path: Path, read: Callable[[Path], T]) -> T:
    """Run `read`, and say of any unreadable content which file it was."""
    try:
        return read(path)
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        said = str(error)
        if said.startswith(str(path)):
            raise
        if "pickle" in said or "Python objects" in said:
            said = "it is another format, or holds Python objects, which are never loaded"
        raise ValueError(f"{path} cannot be read, truncated or foreign: {said}") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise ValueError(f"{path} cannot be read, truncated or foreign: {error}") from error


def _load_npy(path: Path) -> Array:
    def load(path: Path) -> Array:
        with path.open("rb") as file:
            magic = file.read(6)
        if magic != b"\x93NUMPY":
            raise ValueError("it is no .npy file")
        try:
            return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
        except ValueError as error:
            if "empty file" not in str(error):  # mmap has no empty maps; load has
                raise
            return np.asarray(np.load(path, allow_pickle=False))

    return _reading(path, load)


def _arrays_of(path: Path) -> dict[str, Array]:
    # An opened file, for numpy leaves its own open when the archive is broken.
    with path.open("rb") as file:
        archive = np.load(file, allow_pickle=False)
        if not hasattr(archive, "files"):
            raise ValueError("it is no .npz archive")
        return {name: archive[name] for name in archive.files}


def _read_npz(path: Path) -> Items:
    arrays = _arrays_of(path)
    labels = arrays.pop("y", None)
    if arrays.keys() >= _SPARSE_KEYS:
        from scipy import sparse

        matrix = sparse.csr_array(sparse.load_npz(path))
        matrix.check_format(full_check=True)  # indices out of range would crash scipy
        return Items(features=matrix, labels=_as_many(labels, matrix.shape[0], path))
    if "X" not in arrays and len(arrays) != 1:
        raise ValueError(
            f"{path} must hold 'X' (and labels 'y'), one array, or a scipy sparse matrix; "
            f"it holds {sorted(arrays)}"
        )
    features = _matrix(arrays["X"] if "X" in arrays else next(iter(arrays.values())), path)
    return Items(features=features, labels=_as_many(labels, len(features), path))


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


def _json_rows(path: Path) -> Iterable[tuple[int, dict[str, Any]]]:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rb") as file:
        number = 0
        try:
            for number, line in enumerate(file, 1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise ValueError("not an object")
                    yield number, row
        except (ValueError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path} line {number}: not JSON lines: {error}") from error


def _read_jsonl(path: Path, text: str, label: str) -> Items:
    texts: list[str] = []
    labels: list[Any] = []
    for number, row in _json_rows(path):
        if type(row.get(text)) is not str:
            found = "is missing" if text not in row else f"is {type(row[text]).__name__}, not text"
            raise ValueError(f"{path} line {number}: field {text!r} {found}")
        texts.append(row[text])
        labels.append(row.get(label))
    is_labelled = any(one is not None for one in labels)
    return Items(texts=texts, labels=labels if is_labelled else None)


def _read_table(path: Path) -> Any:
    try:
        from pyarrow import ArrowException, parquet
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError(
            f"reading {path} needs pyarrow: pip install pyarrow", name="pyarrow"
        ) from missing
    with path.open("rb"):  # a missing file is an OSError, as for every format
        pass
    try:
        return parquet.read_table(path)
    except ArrowException as error:
        raise ValueError(f"{path} cannot be read, truncated or foreign: {error}") from error


def _read_parquet(path: Path, text: str, label: str) -> Items:
    table = _read_table(path)
    names = set(table.column_names)
    labels = table[label].to_pylist() if label in names else None
    if text in names:
        texts = table[text].to_pylist()
        if not all(isinstance(one, str) for one in texts):
            raise ValueError(f"{path}: column {text!r} must hold text in every row")
        return Items(texts=texts, labels=labels)
    return Items(features=_matrix(_features_of(table, names - {label}, path), path), labels=labels)


def _features_of(table: Any, names: set[str], path: Path) -> Array:
    """One column of vectors (`X`, or the only one), or every other column a number."""
    if "X" in names or len(names) == 1:
        rows = table["X" if "X" in names else next(iter(names))].to_pylist()
        try:
            return np.array(rows, np.float32)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} must hold text, or vectors of one length") from error
    columns = [np.asarray(table[name]) for name in table.column_names if name in names]
    if not columns or any(column.dtype.kind not in "biuf" for column in columns):
        raise ValueError(
            f"{path} must have a column of text, of vectors 'X', or only numbers; "
            f"it has {sorted(names)}"
        )
    return np.column_stack(columns)
