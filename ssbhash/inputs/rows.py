"""Rows of a feature matrix, cut into batches: dense, or sparse and kept sparse.

A batch of texts has some 14 non-zeros in each row of 10,000 columns. Cutting it
from CSR arrays and multiplying it as a weighted sum of weight rows costs what the
non-zeros cost; the dense product is three orders of magnitude dearer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional as F

from ssbhash.engines import native_module
from ssbhash.inputs.matrix import BLOCK_ROWS, as_float32
from ssbhash.inputs.native import native_for
from ssbhash.inputs.shards import CsrShards

# Below this share of non-zeros, rows are taken for sparse: term counts, one-hot features. Term
# counts of 20 Newsgroups have 0.7%, MNIST has 19%.
SPARSE_SHARE = 0.1

# Rows of a memory-mapped array that are shuffled together.
WINDOW_ROWS = 65536

# Of indptr, indices and values of a matrix that is cut natively.
NATIVE_TYPES = [(np.dtype(x), np.dtype(x), np.dtype(np.float32)) for x in (np.int32, np.int64)]

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SparseBatch:
    """Rows of a sparse matrix as torch tensors.

    Non-zero i lies in row `rows[i]` and column `columns[i]`; the non-zeros of a row lie
    together, from `starts[row]` on. Where `touched` is given, the gradient of a product
    goes there, for the touched rows of the weight alone.
    """

    columns: Tensor
    values: Tensor
    rows: Tensor
    starts: Tensor
    n_columns: int
    touched: Touched | None = None

    def __len__(self) -> int:
        return self.starts.shape[0]

    def to(self, device: torch.device) -> SparseBatch:
        """Move the batch to a device."""
        if device.type == "cpu":
            return self
        columns, values = self.columns.to(device), self.values.to(device)
        rows, starts = self.rows.to(device), self.starts.to(device)
        return SparseBatch(columns, values, rows, starts, self.n_columns)

    def dense(self) -> Tensor:
        """Give the batch as a dense matrix [m, n_columns]."""
        out = self.values.new_zeros(len(self), self.n_columns)
        out[self.rows, self.columns] = self.values
        return out

    def product(self, weight: Tensor) -> Tensor:
        """Multiply by `weight` [n_columns, width]."""
        if self.touched is None:
            return _bag_sum(self.columns, self.values, self.starts, weight)
        apply: Any = _Product.apply
        product: Tensor = apply(self.touched.anchor, weight.detach(), self)
        return product

    def scaled(self, scale: Tensor) -> SparseBatch:
        """Multiply each column by its entry in `scale` [n_columns]."""
        return replace(self, values=self.values * scale[self.columns])


class Touched:
    """Columns that a sparse batch has, and the gradient of their weights.

    Attributes
    ----------
    columns
        Those present, ascending.
    by_column
        Rows, values and starts of the batch's transpose, `columns` its rows: each
        gradient is one weighted sum, without scattered additions.
    gradient
        [m, width] of the product, after a backward pass; that of the weights is
        `by_column` times it.
    """

    def __init__(self, batch: SparseBatch) -> None:
        self.columns, *by_column = _transposed(batch)
        rows, values, starts = by_column
        self.by_column = rows, values, starts
        self.gradient: Tensor | None = None
        # What autograd differentiates by; the gradient is kept on the way, not handed on.
        self.anchor = torch.empty(0, requires_grad=True)

    def weight_gradient(self) -> Tensor:
        """Gradient [n, width] of the rows `columns` of the weight."""
        assert self.gradient is not None
        return _bag_sum(*self.by_column, self.gradient)


def _transposed(batch: SparseBatch) -> Iterable[Tensor]:
    """Columns present, ascending, and rows, values and starts of the batch by column."""
    native = native_for(batch.values)
    if native is not None:
        arrays = (x.numpy() for x in (batch.columns, batch.rows, batch.values))
        return map(torch.from_numpy, native.transpose(*arrays))
    columns, order = torch.sort(batch.columns, stable=True)
    columns, counts = torch.unique_consecutive(columns, return_counts=True)
    return columns, batch.rows[order], batch.values[order], torch.cumsum(counts, 0) - counts


Batch: TypeAlias = Tensor | SparseBatch


def padded(batch: Batch, multiple: int) -> Batch:
    """Append empty rows up to a multiple of `multiple`."""
    n_empty = -len(batch) % multiple
    if isinstance(batch, SparseBatch):
        ends = batch.starts.new_full((n_empty,), batch.columns.shape[0])
        return replace(batch, starts=torch.cat([batch.starts, ends]))
    return F.pad(batch, (0, 0, 0, n_empty))


def _bag_sum(ids: Tensor, values: Tensor, starts: Tensor, weight: Tensor) -> Tensor:
    """Weighted sums of the rows `ids` of weight, one for each entry of `starts`."""
    native = native_for(weight)
    if native is not None and weight.dtype == torch.float32:
        out = weight.new_empty(starts.shape[0], weight.shape[1])
        arrays = (x.numpy() for x in (ids, values, starts, weight.detach(), out))
        native.sparse_product(*arrays, torch.get_num_threads())
        return out
    if ids.shape[0] == 0:  # embedding_bag wants at least one index to infer its kernel
        return weight.new_zeros(starts.shape[0], weight.shape[1])
    return F.embedding_bag(ids, weight, starts, mode="sum", per_sample_weights=values)


class _Product(torch.autograd.Function):
    """Sparse batch times weight; both directions are weighted sums of rows."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, weight: Tensor, batch: SparseBatch) -> Tensor:
        ctx.touched = batch.touched
        return _bag_sum(batch.columns, batch.values, batch.starts, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, None]:
        ctx.touched.gradient = grads[0].contiguous()
        return None, None, None


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
        """Rows `ids` as a float32 tensor."""
        return torch.from_numpy(self._rows(ids))

    def _rows(self, ids: Any) -> npt.NDArray[np.float32]:
        rows: Any = self.matrix[ids]
        return as_float32(rows.toarray() if hasattr(rows, "toarray") else rows)

    def window_starts(self) -> Ids | None:
        """First rows of the windows to shuffle within; None if all is in memory."""
        return _window_starts(self.matrix)

    def block(self, start: int, stop: int) -> Any:
        """Rows start ... stop as a float32 array."""
        return self._rows(slice(start, stop))

    def normalised(self) -> NormalisedRows:
        """Rows divided by their sums."""
        return NormalisedRows(self.matrix)


class NormalisedRows(DenseRows):
    """Rows of a non-negative matrix, each divided by its sum; empty rows stay zero."""

    def take(self, ids: Ids) -> Tensor:
        """Rows `ids` as a float32 tensor, each summing to one."""
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
        types = indptr.dtype, indices.dtype, values.dtype
        contiguous = all(x.flags.c_contiguous for x in (indptr, indices, values))
        self._native = contiguous and types in NATIVE_TYPES

    def __len__(self) -> int:
        return int(self.indptr.shape[0]) - 1

    def take(self, ids: Ids) -> SparseBatch:
        """Rows `ids` as a batch, cut without a loop over rows."""
        native = native_module() if self._native else None
        if native is not None:
            cut = native.cut_rows(self.indptr, self.indices, self.values, ids)
            columns, values, numbers, starts = map(torch.from_numpy, cut)
            return SparseBatch(columns, values, numbers, starts, self.n_columns)
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
        """All rows are in memory: no windows."""
        return None

    def block(self, start: int, stop: int) -> Any:
        """Rows start ... stop as a scipy CSR matrix."""
        indptr = self.indptr[start : stop + 1]
        inside = slice(indptr[0], indptr[-1])
        return scipy.sparse.csr_matrix(
            (self.values[inside], self.indices[inside], indptr - indptr[0]),
            shape=(len(indptr) - 1, self.n_columns),
        )

    def normalised(self) -> SparseRows:
        """Rows divided by their sums; empty rows stay empty."""
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
        """Rows `ids` as a batch."""
        rows = _sparse_rows(self._csr(ids))
        return (rows.normalised() if self.normalise else rows).take(np.arange(len(rows)))

    def _csr(self, ids: Any) -> Any:
        rows = self.matrix[ids]
        return rows if scipy.sparse.issparse(rows) else scipy.sparse.csr_matrix(as_float32(rows))

    def window_starts(self) -> Ids | None:
        """First rows of the windows to shuffle within."""
        return _window_starts(self.matrix)

    def block(self, start: int, stop: int) -> Any:
        """Rows start ... stop as a scipy CSR matrix."""
        return self._csr(slice(start, stop))

    def normalised(self) -> SparseRowsOnDisk:
        """Rows divided by their sums."""
        return SparseRowsOnDisk(self.matrix, normalise=True)


Raw: TypeAlias = DenseRows | SparseRows | SparseRowsOnDisk


def row_source(matrix: Any, sparse: bool | None = None) -> Raw:
    """Wrap a checked matrix, as dense or as sparse rows, whichever form it has.

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
    """Whether a checked matrix holds sparse data, in whatever form.

    The form does not count, for the same rows come dense and sparse.
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
    """Rows with each feature divided by its standard deviation; centred where dense."""

    def __init__(self, rows: Raw, shift: Tensor, scale: Tensor) -> None:
        self.rows, self.shift, self.scale = rows, shift.cpu(), scale.cpu()
        self.n_columns, self.sparse = rows.n_columns, rows.sparse

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, ids: Ids) -> Batch:
        """Rows `ids`, standardised."""
        batch = self.rows.take(ids)
        if isinstance(batch, SparseBatch):
            return batch.scaled(self.scale)
        return (batch - self.shift) * self.scale

    def window_starts(self) -> Ids | None:
        """Windows of the rows themselves."""
        return self.rows.window_starts()

    @property
    def statistics(self) -> dict[str, Tensor]:
        """What was measured on the training items."""
        return {"shift": self.shift, "scale": self.scale}


class RowSource(Protocol):
    """What training and encoding ask of rows, raw or measured."""

    n_columns: int
    sparse: bool

    def __len__(self) -> int: ...

    def take(self, ids: Ids) -> Batch:
        """Rows `ids` as one batch."""
        ...

    def window_starts(self) -> Ids | None:
        """First items of the windows to shuffle within, where rows lie on disk."""
        ...


def standardise(rows: Raw) -> StandardisedRows:
    """Measure mean and standard deviation of each feature, block by block."""
    scaler = StandardScaler(with_mean=isinstance(rows, DenseRows))
    for start in range(0, len(rows), BLOCK_ROWS):
        scaler.partial_fit(rows.block(start, start + BLOCK_ROWS))
    shift = scaler.mean_ if isinstance(rows, DenseRows) else np.zeros(rows.n_columns)
    scale = as_float32(1 / scaler.scale_)
    if not np.isfinite(scale).all():
        column = int(np.flatnonzero(~np.isfinite(scale))[0])
        raise ValueError(
            f"feature {column} has a standard deviation of {scaler.scale_[column]:.3g}, too small "
            "for float32: multiply the features by a larger unit"
        )
    return StandardisedRows(rows, *map(torch.from_numpy, (as_float32(shift), scale)))
