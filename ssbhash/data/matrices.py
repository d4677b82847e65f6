"""numpy's files, checked before they are read: `.npy`, `.npz`, scipy's sparse matrices.

numpy takes memory for whatever the header of a file claims, and scipy's conversions read and
write wherever the indices of a matrix point. So sizes are first compared with the size of the
file, and indices with the shape.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ssbhash.data.reading import sound

Array = npt.NDArray[Any]

_SPARSE_KEYS = {"format", "shape", "data"}
_PARTS = {
    "csr": ("indices", "indptr"),
    "csc": ("indices", "indptr"),
    "bsr": ("indices", "indptr"),
    "coo": ("row", "col"),
    "dia": ("offsets",),
}
# More columns than this fit no network, and no 32-bit index.
_MAX_COLUMNS = 2**31 - 1
_CHUNK_BYTES = 1 << 24


def read_npy(path: Path, *, more: bool = False) -> Array:
    """Map an array into memory; with `more`, other arrays may follow it in the file."""
    with sound(path), path.open("rb") as file:
        size = path.stat().st_size
        shape, is_fortran, dtype = _read_header(file)
        n_bytes = math.prod(shape) * dtype.itemsize
        start = file.tell()
        if n_bytes > size - start or (n_bytes < size - start and not more):
            raise ValueError(
                f"its header tells of {n_bytes:,} bytes of data, but it has {size - start:,}"
            )
        if n_bytes == 0:
            return np.empty(shape, dtype)
        order: Any = "F" if is_fortran else "C"
        return np.memmap(path, dtype, "r", start, shape, order)


def end_of_array(path: Path) -> int:
    """Find where the first array of an `.npy` file ends."""
    with sound(path), path.open("rb") as file:
        shape, _, dtype = _read_header(file)
        return file.tell() + math.prod(shape) * dtype.itemsize


class Archive:
    """An opened `.npz` file; arrays are read when asked for."""

    def __init__(self, file: zipfile.ZipFile) -> None:
        self._file = file
        self._members = {
            info.filename.removesuffix(".npy"): info
            for info in file.infolist()
            if info.filename.endswith(".npy")
        }
        self.names = sorted(self._members)

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def read(self, name: str) -> Array:
        """Read an array whose header fits the size of its member; its CRC-32 is checked."""
        info = self._members[name]
        with self._file.open(info) as file:
            shape, is_fortran, dtype = _read_header(file)
            n_bytes = math.prod(shape) * dtype.itemsize
            if n_bytes != info.file_size - file.tell():
                raise ValueError(f"array {name!r} is not as large as its header tells")
            # Memory grows with the data that is there, not with what the header claims.
            content = bytearray()
            while chunk := file.read(_CHUNK_BYTES):
                content += chunk
        if len(content) != n_bytes:
            raise ValueError(f"array {name!r} is cut off")
        order: Any = "F" if is_fortran else "C"
        return np.frombuffer(content, dtype).reshape(shape, order=order)


def read_npz(path: Path) -> tuple[Any, Array | None]:
    """Read a matrix, dense or sparse (as CSR), and the labels `y` if there are any."""
    with sound(path), path.open("rb") as file, zipfile.ZipFile(file) as opened:
        archive = Archive(opened)
        labels = archive.read("y") if "y" in archive else None
        others = [name for name in archive.names if name != "y"]
        if set(others) >= _SPARSE_KEYS:
            return _read_sparse(archive), labels
        if "X" not in others and len(others) != 1:
            raise ValueError(
                f"it must hold 'X' (and labels 'y'), one array, or a scipy sparse matrix; "
                f"it holds {archive.names}"
            )
        return archive.read("X" if "X" in others else others[0]), labels


def read_arrays(path: Path) -> dict[str, Array]:
    """Read every array of an archive."""
    with sound(path), path.open("rb") as file, zipfile.ZipFile(file) as opened:
        archive = Archive(opened)
        return {name: archive.read(name) for name in archive.names}


def read_npz_labels(path: Path) -> Array:
    """Read `y` of an archive."""
    with sound(path), path.open("rb") as file, zipfile.ZipFile(file) as opened:
        archive = Archive(opened)
        if "y" not in archive:
            raise ValueError(f"{path} has no labels: no array 'y' among {archive.names}")
        return archive.read("y")


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, is_fortran, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"version {version} of the .npy format holds no plain array")
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are never loaded")
    if dtype.kind not in "biufUS" or dtype.itemsize == 0:
        raise ValueError(f"it holds {dtype}, neither numbers nor text")
    if any(length < 0 for length in shape):
        raise ValueError(f"its shape is {list(shape)}")
    return shape, is_fortran, dtype


def _read_sparse(archive: Archive) -> Any:
    """Make a CSR matrix; indices are checked before anything is converted."""
    from scipy import sparse

    kind = archive.read("format")
    name = kind.item().decode("ascii", "replace") if kind.dtype.kind == "S" else str(kind)
    if name not in _PARTS:
        raise ValueError(f"the sparse format {name!r} is not supported; save it as CSR")
    shape = archive.read("shape")
    if shape.shape != (2,) or shape.dtype.kind not in "iu":
        raise ValueError(f"the shape of the sparse matrix must be two numbers, got {shape}")
    n_rows, n_columns = map(int, shape)
    missing = [part for part in _PARTS[name] if part not in archive]
    if missing:
        raise ValueError(f"a {name} matrix needs {', '.join(missing)}")
    data, *parts = (archive.read(part) for part in ("data", *_PARTS[name]))
    if data.dtype.kind not in "biuf":
        raise ValueError(f"the sparse matrix holds {data.dtype}, not numbers")
    if any(part.dtype.kind not in "iu" or part.ndim != 1 for part in parts):
        raise ValueError("indices of a sparse matrix must be whole numbers")
    # CSR has an entry for each row. Other formats only claim their rows.
    claimed = 8 * n_rows if name != "csr" else 0
    stored = data.nbytes + sum(part.nbytes for part in parts)
    if min(n_rows, n_columns) < 0 or n_columns > _MAX_COLUMNS or claimed > 2**28 + 16 * stored:
        raise ValueError(f"a shape of {[n_rows, n_columns]} is absurd for {data.size} values")
    signed = [part.astype(np.int64) if part.dtype.kind == "u" else part for part in parts]
    given = (data, (signed[0], signed[1])) if name == "coo" else (data, *signed)
    matrix = getattr(sparse, f"{name}_array")(given, shape=(n_rows, n_columns))
    if name in ("csr", "csc", "bsr"):
        _check_pointers(matrix.indptr, matrix.indices)
        matrix.check_format(full_check=True)
    converted = sparse.csr_array(matrix)
    converted.check_format(full_check=True)
    return converted


def _check_pointers(indptr: Array, indices: Array) -> None:
    """Check what scipy's own check omits if the last pointer is 0."""
    if indptr[0] != 0 or (np.diff(indptr) < 0).any() or indptr[-1] > len(indices):
        raise ValueError("the row or column pointers of the sparse matrix are not ascending")
