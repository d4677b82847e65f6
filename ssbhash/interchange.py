"""Converts a HammingIndex to and from faiss, usearch, Arrow and Parquet; answers faiss' calls.

The other packages are imported when a function needs them. docs/interchange.md shows how codes go
to and from sentence-transformers, pgvector and sqlite-vec.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ssbhash.arrays import Codes, Distances, Ids, as_count
from ssbhash.codes import from_layout, to_layout
from ssbhash.engines import MISSING_DISTANCE, MISSING_ID
from ssbhash.index import HammingIndex

__all__ = [
    "IndexBinary",
    "from_arrow",
    "from_faiss",
    "from_usearch",
    "to_arrow",
    "to_faiss",
    "to_usearch",
]

_N_BITS = b"n_bits"  # the key of the metadata of a column of codes


def from_faiss(source: Any) -> HammingIndex:
    """Make an index of a binary index of faiss.

    Parameters
    ----------
    source : faiss index, or path
        IndexBinaryFlat, IndexBinaryHNSW, or one of them in an IndexBinaryIDMap or
        IndexBinaryIDMap2; or the file that `faiss.write_index_binary` wrote.

    Returns
    -------
    HammingIndex
        With the ids that the index of faiss has.

    Raises
    ------
    ImportError
        If faiss is absent.
    TypeError
        If it is another kind of index.
    ValueError
        If the file is damaged, or an id is negative or occurs twice.

    Examples
    --------
    >>> import faiss, numpy as np
    >>> flat = faiss.IndexBinaryFlat(16)
    >>> flat.add(np.array([[1, 2], [3, 4]], np.uint8))
    >>> from_faiss(flat).get([1]).tolist()
    [[3, 4]]
    """
    faiss = _imported("faiss", "faiss-cpu")
    index = source
    if isinstance(source, str | Path):
        with open(source, "rb"):  # raises what Python raises if it cannot be read
            pass
        try:
            index = faiss.read_index_binary(str(source))
        except RuntimeError as error:
            raise ValueError(f"{source} is no binary index of faiss, or damaged") from error
    ids = None
    if isinstance(index, faiss.IndexBinaryIDMap):
        ids = faiss.vector_to_array(index.id_map)
        stored = faiss.downcast_IndexBinary(index.index)
    elif isinstance(index, faiss.IndexBinary):
        stored = faiss.downcast_IndexBinary(index)
    else:
        stored = index
    if isinstance(stored, faiss.IndexBinaryHNSW):
        stored = faiss.downcast_IndexBinary(stored.storage)
    if not isinstance(stored, faiss.IndexBinaryFlat):
        raise TypeError(
            "source must be an IndexBinaryFlat, an IndexBinaryHNSW, or one of them in an "
            f"IndexBinaryIDMap, got {type(stored).__name__}"
        )
    made = HammingIndex(stored.d)
    made.add(faiss.vector_to_array(stored.xb).reshape(-1, stored.code_size), ids)
    return made


def to_faiss(index: HammingIndex) -> Any:
    """Make a binary index of faiss; `faiss.write_index_binary` writes it into a file.

    Parameters
    ----------
    index : HammingIndex
        With integer ids.

    Returns
    -------
    faiss.IndexBinaryFlat or faiss.IndexBinaryIDMap2
        The former if the ids are 0, 1, 2, ... faiss counts bits in whole bytes: its `d` is
        8 * n_bytes.

    Raises
    ------
    ImportError
        If faiss is absent.
    TypeError
        If ids are strings.

    Examples
    --------
    >>> import numpy as np
    >>> index = HammingIndex(n_bits=8)
    >>> _ = index.add(np.array([[1], [2]], np.uint8))
    >>> to_faiss(index).ntotal
    2
    """
    faiss = _imported("faiss", "faiss-cpu")
    ids = _integer_ids(index, "faiss")
    flat = faiss.IndexBinaryFlat(8 * index.n_bytes)
    if np.array_equal(ids, np.arange(len(ids))):
        flat.add(index.get(ids))
        return flat
    mapped = faiss.IndexBinaryIDMap2(flat)
    mapped.add_with_ids(index.get(ids), ids)
    return mapped


def from_usearch(source: Any) -> HammingIndex:
    """Make an index of an index of usearch; its keys become the ids.

    Parameters
    ----------
    source : usearch.index.Index, or path
        Of dtype b1, with bits packed as by `numpy.packbits`; or the file that its `save`
        wrote.

    Returns
    -------
    HammingIndex

    Raises
    ------
    ImportError
        If usearch is absent.
    TypeError
        If `source` is no such index.
    ValueError
        If the file is damaged, or a key occurs twice.

    Examples
    --------
    >>> import numpy as np
    >>> index = HammingIndex(n_bits=8)
    >>> _ = index.add(np.array([[1], [2]], np.uint8), ids=[10, 20])
    >>> from_usearch(to_usearch(index)).get(20).tolist()
    [2]
    """
    usearch = _imported("usearch.index", "usearch")
    index = source
    if isinstance(source, str | Path):
        with open(source, "rb"):
            pass
        try:
            index = usearch.Index.restore(str(source))
        except Exception as error:  # usearch has no class of its own
            raise ValueError(f"{source} is no index of usearch, or damaged") from error
        if index is None:
            raise ValueError(f"{source} is no index of usearch, or damaged")
    if not isinstance(index, usearch.Index) or index.dtype != usearch.ScalarKind.B1:
        kind = getattr(index, "dtype", None) or type(index).__name__
        raise TypeError(f"source must be a usearch Index of dtype b1, got {kind}")
    made = HammingIndex(index.ndim)
    if len(index):
        keys = index.keys[: len(index)]
        packed = np.stack(list(index.get(keys))).reshape(len(keys), -1)
        made.add(from_layout(packed, "packbits", index.ndim), keys)
    return made


def to_usearch(index: HammingIndex, **options: Any) -> Any:
    """Make an index of usearch, for approximate search by a graph.

    Parameters
    ----------
    index : HammingIndex
        With integer ids.
    **options
        Of `usearch.index.Index`, such as `connectivity`.

    Returns
    -------
    usearch.index.Index
        Of dtype b1 and metric Hamming, with bits packed as by `numpy.packbits`.

    Raises
    ------
    ImportError
        If usearch is absent.
    TypeError
        If ids are strings.

    Examples
    --------
    >>> import numpy as np
    >>> index = HammingIndex(n_bits=8)
    >>> _ = index.add(np.array([[1], [2]], np.uint8))
    >>> len(to_usearch(index, connectivity=8))
    2
    """
    usearch = _imported("usearch.index", "usearch")
    ids = _integer_ids(index, "usearch")
    made = usearch.Index(
        ndim=index.n_bits,
        metric=usearch.MetricKind.Hamming,
        dtype=usearch.ScalarKind.B1,
        **options,
    )
    if len(ids):
        made.add(ids.astype(np.uint64), to_layout(index.get(ids), "packbits"))
    return made


def from_arrow(
    source: Any, *, code: str = "code", id: str | None = "id", n_bits: int | None = None
) -> HammingIndex:
    """Make an index of an Arrow table or a Parquet file.

    Parameters
    ----------
    source : pyarrow.Table, pyarrow.RecordBatch, or path
        A path is that of a Parquet file.
    code : str
        The column of codes: binary, all of one length, bits as `ssbhash.pack` has them.
    id : str or None
        The column of ids, integers or strings. Without it, ids count the rows.
    n_bits : int, optional
        Bits in a code. By default the number that `to_arrow` noted, else all bits of the
        bytes.

    Returns
    -------
    HammingIndex

    Raises
    ------
    ImportError
        If pyarrow is absent.
    TypeError, ValueError
        If a column does not exist, has another type or lacks values; if an id occurs
        twice; if the file is no Parquet file.

    Examples
    --------
    >>> import pyarrow
    >>> table = pyarrow.table({"id": ["ant", "bee"], "code": [b"a", b"b"]})
    >>> from_arrow(table).get("bee").tolist()
    [98]
    """
    arrow = _imported("pyarrow", "pyarrow")
    table = source
    if isinstance(source, str | Path):
        try:
            table = _imported("pyarrow.parquet", "pyarrow").read_table(source)
        except arrow.ArrowInvalid as error:
            raise ValueError(f"{source} is no Parquet file, or damaged: {error}") from error
    if not isinstance(table, arrow.Table | arrow.RecordBatch):
        raise TypeError(f"source must be a pyarrow Table or a path, got {type(table).__name__}")
    codes = _codes_of_column(arrow, _column(table, code), code)
    noted = (table.schema.field(code).metadata or {}).get(_N_BITS)
    if n_bits is None:
        n_bits = 8 * codes.shape[1] if noted is None else int(noted)
    made = HammingIndex(n_bits)
    if id is None or id not in table.column_names:
        made.add(codes)
        return made
    column = _column(table, id)
    is_text = arrow.types.is_string(column.type) or arrow.types.is_large_string(column.type)
    made.add(codes, column.to_pylist() if is_text else column.to_numpy())
    return made


def to_arrow(index: HammingIndex) -> Any:
    """Make an Arrow table; `pyarrow.parquet.write_table` writes it into a file.

    Parameters
    ----------
    index : HammingIndex
        With ids of any kind.

    Returns
    -------
    pyarrow.Table
        Columns `id` (int64 or string) and `code` (fixed-size binary). The metadata of
        `code` note `n_bits`.

    Raises
    ------
    ImportError
        If pyarrow is absent.

    Examples
    --------
    >>> import numpy as np
    >>> index = HammingIndex(n_bits=8)
    >>> _ = index.add(np.array([[97], [98]], np.uint8))
    >>> to_arrow(index).to_pydict()
    {'id': [0, 1], 'code': [b'a', b'b']}
    """
    arrow = _imported("pyarrow", "pyarrow")
    ids = index.ids()
    codes = np.ascontiguousarray(index.get(ids)) if len(ids) else _no_codes(index.n_bytes)
    column = arrow.FixedSizeBinaryArray.from_buffers(
        arrow.binary(index.n_bytes), len(ids), [None, arrow.py_buffer(codes)]
    )
    schema = arrow.schema(
        [
            arrow.field("id", arrow.string() if ids.dtype == object else arrow.int64()),
            arrow.field("code", column.type, metadata={_N_BITS: str(index.n_bits)}),
        ]
    )
    return arrow.Table.from_arrays([arrow.array(ids, schema.field(0).type), column], schema=schema)


class IndexBinary:
    """A HammingIndex that answers faiss' calls: those of IndexBinaryFlat and IndexBinaryIDMap2.

    Arguments, results, their dtypes and the padding by id -1 are those of faiss. Ties go to
    the smaller id; faiss leaves them open. Ids never change: after `remove_ids` an
    IndexBinaryFlat renumbers the other items, but this index does not.

    Parameters
    ----------
    index : int or HammingIndex
        Bits in a code, a multiple of 8; or an index, which may live in a folder.

    Attributes
    ----------
    index : HammingIndex
        The index that answers.

    Examples
    --------
    >>> import numpy as np
    >>> from ssbhash.interchange import IndexBinary
    >>> index = IndexBinary(8)
    >>> index.add_with_ids(np.array([[0], [7]], np.uint8), np.array([10, 20]))
    >>> D, I = index.search(np.array([[1]], np.uint8), 3)
    >>> D.tolist(), I.tolist()
    ([[1, 2, 2147483647]], [[10, 20, -1]])
    >>> index.remove_ids(np.array([10])), index.ntotal
    (1, 1)
    """

    is_trained = True

    def __init__(self, index: int | HammingIndex) -> None:
        self.index = index if isinstance(index, HammingIndex) else HammingIndex(index)
        if self.index.n_bits % 8:
            raise ValueError(f"d must be a multiple of 8, got {self.index.n_bits}")

    @property
    def d(self) -> int:
        """Bits in a code."""
        return self.index.n_bits

    @property
    def code_size(self) -> int:
        """Bytes of a code."""
        return self.index.n_bytes

    @property
    def ntotal(self) -> int:
        """Number of items."""
        return len(self.index)

    def train(self, x: Any) -> None:
        """Do nothing: there is nothing to learn.

        Parameters
        ----------
        x : uint8 [n, code_size]
            Ignored.
        """

    def add(self, x: Any) -> None:
        """Add codes under the next ids, from 0 if the index is empty.

        Parameters
        ----------
        x : uint8 [n, code_size]
            Packed codes.
        """
        rows = self._rows(x)
        self.index.add(rows, None if len(self.index) else np.arange(len(rows)))

    def add_with_ids(self, x: Any, ids: Any) -> None:
        """Add codes under given ids.

        Parameters
        ----------
        x : uint8 [n, code_size]
            Packed codes.
        ids : integers [n]
            An id for each, from 0, not yet in the index.
        """
        self.index.add(self._rows(x), ids)

    def search(self, x: Any, k: int) -> tuple[Distances, Ids]:
        """Find the k nearest codes of each query.

        Parameters
        ----------
        x : uint8 [n, code_size]
            Packed queries.
        k : int
            Neighbours for each.

        Returns
        -------
        distances : int32 [n, k]
            Ascending.
        ids : int64 [n, k]
            -1 where there are fewer than k.
        """
        k = as_count(k, "k", 1)
        distances, ids = self.index.search(self._rows(x), k)
        missing = ((0, 0), (0, k - ids.shape[1]))
        return (
            np.pad(distances, missing, constant_values=MISSING_DISTANCE),
            np.pad(ids, missing, constant_values=MISSING_ID),
        )

    def range_search(
        self, x: Any, thresh: int
    ) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.float32], Ids]:
        """Find all codes closer than `thresh`.

        Parameters
        ----------
        x : uint8 [n, code_size]
            Packed queries.
        thresh : int
            Distances are below it (exclusive).

        Returns
        -------
        lims : uint64 [n + 1]
            Query i owns the results from lims[i] to lims[i + 1].
        distances : float32
            Ascending for each query.
        ids : int64
            The ids.
        """
        rows = self._rows(x)
        if as_count(thresh, "thresh", 0) == 0:
            return (
                np.zeros(len(rows) + 1, np.uint64),
                np.empty(0, np.float32),
                np.empty(0, np.int64),
            )
        lims, distances, ids = self.index.within(rows, thresh - 1)
        return lims.astype(np.uint64), distances.astype(np.float32), ids

    def remove_ids(self, x: Any) -> int:
        """Remove items.

        Parameters
        ----------
        x : integers [n], or faiss.IDSelector
            Their ids.

        Returns
        -------
        int
            How many were there.
        """
        known = self.index.ids()
        if hasattr(x, "is_member"):
            gone = known[np.array([x.is_member(one) for one in known.tolist()], bool)]
        else:
            gone = np.intersect1d(x, known)
        self.index.remove(gone)
        return len(gone)

    def reconstruct(self, key: int) -> Codes:
        """Return the code of an item.

        Parameters
        ----------
        key : int
            Its id.

        Returns
        -------
        uint8 [code_size]
            The packed code.
        """
        return self.index.get(key)

    def reconstruct_n(self, n0: int, ni: int) -> Codes:
        """Return the codes of consecutive ids.

        Parameters
        ----------
        n0 : int
            The first id.
        ni : int
            How many.

        Returns
        -------
        uint8 [ni, code_size]
            The packed codes.
        """
        return self.index.get(np.arange(n0, n0 + ni))

    def reset(self) -> None:
        """Remove all."""
        self.index.remove(self.index.ids())

    def _rows(self, x: Any) -> Any:
        if np.ndim(x) != 2:
            raise ValueError(f"x must have shape [n, {self.code_size}], got {np.shape(x)}")
        return x


def _imported(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"this needs {package}, which is absent: pip install {package}"
        ) from error


def _integer_ids(index: HammingIndex, software: str) -> Ids:
    ids: Ids = index.ids()
    if ids.dtype == object:
        raise TypeError(f"{software} has integer ids alone; those of this index are strings")
    return ids


def _no_codes(n_bytes: int) -> Codes:
    return np.empty((0, n_bytes), np.uint8)


def _column(table: Any, name: str) -> Any:
    if name not in table.column_names:
        raise ValueError(f"there is no column {name!r}, but {', '.join(table.column_names)}")
    column = table.column(name)
    if column.null_count:
        raise ValueError(f"column {name!r} misses {column.null_count} values")
    return column


def _codes_of_column(arrow: Any, column: Any, name: str) -> Codes:
    kinds = arrow.types
    if kinds.is_binary(column.type) or kinds.is_large_binary(column.type):
        if len(column) == 0:
            raise ValueError(f"column {name!r} is empty and does not tell the bytes of a code")
        n_bytes = len(column[0].as_py())
        try:
            column = column.cast(arrow.binary(n_bytes))
        except arrow.ArrowInvalid as error:
            raise ValueError(f"column {name!r} must hold codes of one length: {error}") from error
    if not kinds.is_fixed_size_binary(column.type):
        raise TypeError(f"column {name!r} must be binary, got {column.type}")
    n_bytes = column.type.byte_width
    chunks = column.chunks if hasattr(column, "chunks") else [column]
    rows = [_no_codes(n_bytes)]
    for chunk in chunks:
        whole = np.frombuffer(chunk.buffers()[1] or b"", np.uint8)
        begin = chunk.offset * n_bytes
        rows.append(whole[begin : begin + len(chunk) * n_bytes].reshape(-1, n_bytes))
    return np.concatenate(rows)
