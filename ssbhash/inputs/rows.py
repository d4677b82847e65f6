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
from ssbhash.inputs.native import native_for
from ssbhash.inputs.shards import CsrShards

# Rows read at once where all of them are looked at.
BLOCK_ROWS = 65536

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
    """Rows of a dense matrix, in memory or memory-mapped; cast to float32 batch by batch."""

    sparse = False

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self.array = array
        self.n_columns = int(array.shape[1])

    def __len__(self) -> int:
        return int(self.array.shape[0])

    def take(self, ids: Ids) -> Tensor:
        """Rows `ids` as a float32 tensor."""
        return torch.from_numpy(np.asarray(self.array[ids], dtype=np.float32))

    def window_starts(self) -> Ids | None:
        """First rows of the windows to shuffle within; None if all is in memory."""
        if not isinstance(self.array, np.memmap):
            return None
        return np.arange(0, len(self), WINDOW_ROWS)

    def block(self, start: int, stop: int) -> Any:
        """Rows start ... stop as they are stored."""
        return self.array[start:stop]

    def normalised(self) -> NormalisedRows:
        """Rows divided by their sums."""
        return NormalisedRows(self.array)


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


class ShardRows:
    """Rows of CSR files that are opened as they are needed."""

    sparse = True

    def __init__(self, shards: CsrShards, normalise: bool = False) -> None:
        self.shards, self.normalise = shards, normalise
        self.n_columns = shards.shape[1]

    def __len__(self) -> int:
        return len(self.shards)

    def take(self, ids: Ids) -> SparseBatch:
        """Rows `ids` as a batch."""
        rows = row_source(self.shards.rows(ids))
        assert isinstance(rows, SparseRows)
        return (rows.normalised() if self.normalise else rows).take(np.arange(len(ids)))

    def window_starts(self) -> Ids | None:
        """First rows of every `n_open` files."""
        return np.asarray(self.shards.starts[: -1 : self.shards.n_open])

    def block(self, start: int, stop: int) -> Any:
        """Rows start ... stop as a scipy CSR matrix."""
        return self.shards.rows(np.arange(start, min(stop, len(self))))

    def normalised(self) -> ShardRows:
        """Rows divided by their sums."""
        return ShardRows(self.shards, normalise=True)


Raw: TypeAlias = DenseRows | SparseRows | ShardRows


def row_source(matrix: Any) -> Raw:
    """Wrap a dense array, a scipy CSR matrix or CSR shards, without a copy."""
    if isinstance(matrix, CsrShards):
        return ShardRows(matrix)
    if hasattr(matrix, "indptr"):
        return SparseRows(matrix.indptr, matrix.indices, matrix.data, int(matrix.shape[1]))
    return DenseRows(matrix)


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
    shift, scale = (torch.from_numpy(np.asarray(x, np.float32)) for x in (shift, 1 / scaler.scale_))
    return StandardisedRows(rows, shift, scale)
