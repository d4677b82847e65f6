"""Rows of a feature matrix, cut into batches: dense, or sparse and kept sparse.

A batch of texts has about 14 non-zeros in each row of 10,000 columns. It is cut from CSR
arrays and multiplied as a weighted sum of weight rows, at the cost of its non-zeros. The
dense product would cost a thousand times as much.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional as F

from ssbhash.arrays import Ids
from ssbhash.inputs.matrix import BLOCK_ROWS, as_float32
from ssbhash.inputs.shards import CsrShards
from ssbhash.kernels import Nonzeros, kernels_for

# Rows with a smaller share of non-zeros are treated as sparse, such as term counts and one-hot
# features. Term counts of 20 Newsgroups have 0.7%, MNIST has 19%.
SPARSE_SHARE = 0.1

# Rows of a memory-mapped array that are shuffled within a window.
WINDOW_ROWS = 65536


@dataclass(frozen=True)
class SparseBatch(Nonzeros):
    """Rows of a sparse matrix with `n_columns` columns."""

    n_columns: int

    def __len__(self) -> int:
        return self.starts.shape[0]

    def to(self, device: torch.device) -> SparseBatch:
        """Move the batch to a device."""
        return SparseBatch(
            columns=moved(self.columns, device),
            values=moved(self.values, device),
            rows=moved(self.rows, device),
            starts=moved(self.starts, device),
            n_columns=self.n_columns,
        )

    def dense(self) -> Tensor:
        """Return the dense matrix [m, n_columns]."""
        out = self.values.new_zeros(len(self), self.n_columns)
        out[self.rows, self.columns] = self.values
        return out

    @cached_property
    def by_column(self) -> ByColumn:
        """The same non-zeros, column by column."""
        columns, order = torch.sort(self.columns, stable=True)
        present, counts = torch.unique_consecutive(columns, return_counts=True)
        starts = torch.cumsum(counts, 0) - counts
        return ByColumn(present, self.rows[order], self.values[order], starts)

    def product(self, weight: Tensor) -> Tensor:
        """Multiply by `weight` [n_columns, width].

        The gradient of the weight is a sparse tensor; its rows are the columns of the batch.
        """
        apply: Any = _Product.apply
        product: Tensor = apply(weight, self)
        return product

    def scaled(self, scale: Tensor) -> SparseBatch:
        """Multiply each column by its entry in `scale` [n_columns]."""
        return replace(self, values=self.values * scale[self.columns])


class ByColumn(NamedTuple):
    """Non-zeros of a sparse batch by column.

    `columns` are the columns that have non-zeros, ascending. Those of columns[i] begin at
    starts[i].
    """

    columns: Tensor
    rows: Tensor
    values: Tensor
    starts: Tensor


class _Product(torch.autograd.Function):
    """Sparse batch times weight; forward and backward are weighted sums of rows."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, batch: SparseBatch) -> Tensor:
        ctx.batch, ctx.shape = batch, weight.shape
        return kernels_for(weight).sum_rows(batch.columns, batch.values, batch.starts, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        columns, rows, values, starts = ctx.batch.by_column
        by_product = grads[0].contiguous()
        gradient = kernels_for(by_product).sum_rows(rows, values, starts, by_product)
        # Rows are unique and ascending, so torch need not sort them.
        whole = torch.sparse_coo_tensor(
            columns[None], gradient, ctx.shape, is_coalesced=True, check_invariants=False
        )
        return whole, None


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Move a tensor to a device; from pinned memory, so that the host need not wait for it."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


Batch: TypeAlias = Tensor | SparseBatch


def padded(batch: Batch, multiple: int) -> Batch:
    """Append empty rows up to a multiple of `multiple`."""
    n_empty = -len(batch) % multiple
    if isinstance(batch, SparseBatch):
        ends = batch.starts.new_full((n_empty,), batch.columns.shape[0])
        return replace(batch, starts=torch.cat([batch.starts, ends]))
    return F.pad(batch, (0, 0, 0, n_empty))


class DenseRows:
    """Dense rows of a matrix in any form; cast to float32 batch by batch.

    Parameters
    ----------
    matrix
        A numpy array, in memory or memory-mapped, canonical CSR, or `CsrShards`.
    """

    sparse = False

    def __init__(self, matrix: Any) -> None:
        self.matrix = matrix
        self.n_columns = int(matrix.shape[1])

    def __len__(self) -> int:
        return int(self.matrix.shape[0])

    def take(self, ids: Ids) -> Tensor:
        """Cut the rows `ids` as a float32 tensor."""
        return torch.from_numpy(self._rows(ids))

    def _rows(self, ids: Any) -> npt.NDArray[np.float32]:
        rows: Any = self.matrix[ids]
        return as_float32(rows.toarray() if hasattr(rows, "toarray") else rows)

    def window_starts(self) -> Ids | None:
        """Return the first row of each window to shuffle within; None if all is in memory."""
        return _window_starts(self.matrix)

    def block(self, start: int, stop: int) -> Any:
        """Read the rows from start to stop as a float32 array."""
        return self._rows(slice(start, stop))

    def normalised(self) -> NormalisedRows:
        """Return the rows divided by their sums."""
        return NormalisedRows(self.matrix)


class NormalisedRows(DenseRows):
    """Rows of a non-negative matrix, each divided by its sum; empty rows stay zero."""

    def take(self, ids: Ids) -> Tensor:
        """Cut the rows `ids` as a float32 tensor, each with sum 1."""
        rows = super().take(ids)
        return rows / rows.sum(1, keepdim=True).clamp_min(np.finfo(np.float32).tiny)


class SparseRows:
    """Rows of a CSR matrix in memory."""

    sparse = True

    def __init__(
        self, indptr: npt.NDArray[Any], indices: npt.NDArray[Any], values: Any, n_columns: int
    ) -> None:
        self.indptr, self.indices, self.values = indptr, indices, values
        self.n_columns = n_columns

    def __len__(self) -> int:
        return int(self.indptr.shape[0]) - 1

    def take(self, ids: Ids) -> SparseBatch:
        """Cut the rows `ids` as a batch, without a loop over rows."""
        first = self.indptr[ids].astype(np.int64)
        counts = self.indptr[ids + 1].astype(np.int64) - first
        starts = np.cumsum(counts) - counts
        where = np.repeat(first - starts, counts) + np.arange(int(counts.sum()))
        rows = np.repeat(np.arange(len(ids)), counts)
        return SparseBatch(
            torch.from_numpy(self.indices[where].astype(np.int64)),
            torch.from_numpy(self.values[where].astype(np.float32)),
            torch.from_numpy(rows),
            torch.from_numpy(starts),
            self.n_columns,
        )

    def window_starts(self) -> Ids | None:
        """Return None: all rows are in memory."""
        return None

    def block(self, start: int, stop: int) -> Any:
        """Read the rows from start to stop as a scipy CSR matrix."""
        indptr = self.indptr[start : stop + 1]
        inside = slice(indptr[0], indptr[-1])
        return scipy.sparse.csr_matrix(
            (self.values[inside], self.indices[inside], indptr - indptr[0]),
            shape=(len(indptr) - 1, self.n_columns),
        )

    def normalised(self) -> SparseRows:
        """Return the rows divided by their sums; empty rows stay empty."""
        counts = np.diff(self.indptr)
        rows = np.repeat(np.arange(len(self)), counts)
        sums = np.bincount(rows, weights=self.values, minlength=len(self))
        sums[sums == 0] = 1.0
        values = (self.values / sums[rows]).astype(np.float32)
        return SparseRows(self.indptr, self.indices, values, self.n_columns)


class SparseRowsOnDisk:
    """Sparse rows of CSR files, or of a memory-mapped array, read as they are needed."""

    sparse = True

    def __init__(self, matrix: CsrShards | np.memmap[Any, Any], normalise: bool = False) -> None:
        self.matrix, self.normalise = matrix, normalise
        self.n_columns = int(matrix.shape[1])

    def __len__(self) -> int:
        return int(self.matrix.shape[0])

    def take(self, ids: Ids) -> SparseBatch:
        """Cut the rows `ids` as a batch."""
        rows = _sparse_rows(self._csr(ids))
        return (rows.normalised() if self.normalise else rows).take(np.arange(len(rows)))

    def _csr(self, ids: Any) -> Any:
        rows = self.matrix[ids]
        return rows if scipy.sparse.issparse(rows) else scipy.sparse.csr_matrix(as_float32(rows))

    def window_starts(self) -> Ids | None:
        """Return the first rows of the windows to shuffle within."""
        return _window_starts(self.matrix)

    def block(self, start: int, stop: int) -> Any:
        """Read the rows from start to stop as a scipy CSR matrix."""
        return self._csr(slice(start, stop))

    def normalised(self) -> SparseRowsOnDisk:
        """Return the rows divided by their sums."""
        return SparseRowsOnDisk(self.matrix, normalise=True)


Raw: TypeAlias = DenseRows | SparseRows | SparseRowsOnDisk


def row_source(matrix: Any, sparse: bool | None = None) -> Raw:
    """Wrap a checked matrix of any form, as dense or as sparse rows.

    Parameters
    ----------
    matrix
        A float32 array or canonical CSR, a memory-mapped array, or `CsrShards`.
    sparse
        Whether batches are sparse; None keeps the form of the matrix.

    Returns
    -------
    Raw
        Rows without a copy of the matrix, unless an array in memory is made sparse.
    """
    if sparse is None:
        sparse = hasattr(matrix, "indptr") or isinstance(matrix, CsrShards)
    if not sparse:
        return DenseRows(matrix)
    return SparseRowsOnDisk(matrix) if is_on_disk(matrix) else _sparse_rows(matrix)


def is_on_disk(matrix: Any) -> bool:
    """Whether a feature matrix stays on disk: memory-mapped, or CSR shards."""
    return isinstance(matrix, np.memmap | CsrShards)


def is_mostly_zero(matrix: Any) -> bool:
    """Whether a checked matrix has few non-zeros.

    Its type does not matter: the same rows may come dense or sparse.
    """
    n_rows, n_columns = matrix.shape
    if isinstance(matrix, CsrShards):
        n_nonzero = matrix.n_nonzero
    elif hasattr(matrix, "indptr"):
        n_nonzero = matrix.nnz
    else:
        blocks = range(0, n_rows, BLOCK_ROWS)
        n_nonzero = sum(
            int(np.count_nonzero(as_float32(matrix[i : i + BLOCK_ROWS]))) for i in blocks
        )
    return bool(n_nonzero < SPARSE_SHARE * n_rows * n_columns)


def _sparse_rows(matrix: Any) -> SparseRows:
    csr = scipy.sparse.csr_matrix(matrix)
    return SparseRows(csr.indptr, csr.indices, csr.data, int(csr.shape[1]))


def _window_starts(matrix: Any) -> Ids | None:
    if isinstance(matrix, CsrShards):
        return np.asarray(matrix.starts[: -1 : matrix.n_open])
    return np.arange(0, len(matrix), WINDOW_ROWS) if isinstance(matrix, np.memmap) else None


class StandardisedRows:
    """Rows with each feature divided by its standard deviation; dense ones also centred."""

    def __init__(self, rows: Raw, shift: Tensor, scale: Tensor) -> None:
        self.rows, self.shift, self.scale = rows, shift.cpu(), scale.cpu()
        self.n_columns, self.sparse = rows.n_columns, rows.sparse

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, ids: Ids) -> Batch:
        """Cut the rows `ids`, standardised."""
        batch = self.rows.take(ids)
        if isinstance(batch, SparseBatch):
            return batch.scaled(self.scale)
        return (batch - self.shift) * self.scale

    def window_starts(self) -> Ids | None:
        """Return the windows of the wrapped rows."""
        return self.rows.window_starts()

    @property
    def statistics(self) -> dict[str, Tensor]:
        """What was measured on the training items, by name."""
        return {"shift": self.shift, "scale": self.scale}


class RowSource(Protocol):
    """What training and encoding need of rows, raw or transformed."""

    n_columns: int
    sparse: bool

    def __len__(self) -> int: ...

    def take(self, ids: Ids) -> Batch:
        """Cut the rows `ids` as one batch."""
        ...

    def window_starts(self) -> Ids | None:
        """Return the first row of each window to shuffle within; None if all is in memory."""
        ...


# Up to this many bytes, dense rows are kept in memory and not made again for each batch.
MOST_IN_MEMORY = 1 << 28
# Rows of them that are made together.
MADE_ROWS = 2048


def in_memory(rows: RowSource) -> RowSource:
    """Make all rows once if they are dense and few enough; return others as they are."""
    if rows.sparse or rows.window_starts() is not None:
        return rows
    if 4 * len(rows) * rows.n_columns > MOST_IN_MEMORY:
        return rows
    array = np.empty((len(rows), rows.n_columns), np.float32)
    for start in range(0, len(rows), MADE_ROWS):
        stop = min(start + MADE_ROWS, len(rows))
        array[start:stop] = np.asarray(rows.take(np.arange(start, stop)))
    return DenseRows(array)


def one_scale_and_each(rows: DenseRows) -> tuple[StandardisedRows, StandardisedRows]:
    """Centre features, and give all one scale (variance 1 on average), or each its own."""
    moments = _moments(rows)
    own = _standardised(rows, moments)
    scale = float(moments.var_.mean() or 1) ** -0.5
    return StandardisedRows(rows, own.shift, torch.full_like(own.scale, scale)), own


def standardise(rows: Raw) -> StandardisedRows:
    """Measure the mean and standard deviation of each feature, block by block."""
    return _standardised(rows, _moments(rows))


def _moments(rows: Raw) -> Any:
    scaler = StandardScaler(with_mean=isinstance(rows, DenseRows))
    for start in range(0, len(rows), BLOCK_ROWS):
        scaler.partial_fit(rows.block(start, start + BLOCK_ROWS))
    return scaler


def _standardised(rows: Raw, moments: Any) -> StandardisedRows:
    shift = moments.mean_ if isinstance(rows, DenseRows) else np.zeros(rows.n_columns)
    scale = as_float32(1 / moments.scale_)
    if not np.isfinite(scale).all():
        column = int(np.flatnonzero(~np.isfinite(scale))[0])
        raise ValueError(
            f"feature {column} has a standard deviation of {moments.scale_[column]:.3g}, too small "
            "for float32: multiply the features by a larger unit"
        )
    return StandardisedRows(rows, *map(torch.from_numpy, (as_float32(shift), scale)))
