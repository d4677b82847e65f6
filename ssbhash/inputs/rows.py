"""Rows of a feature matrix, cut into batches: dense, or sparse and kept sparse.

A batch of texts has some 14 non-zeros in each row of 10,000 columns. Cutting it
from CSR arrays and multiplying it as a weighted sum of weight rows costs what the
non-zeros cost; the dense product is three orders of magnitude dearer.
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

from ssbhash.inputs.shards import CsrShards
from ssbhash.kernels import Nonzeros, kernels_for

# Rows read at once where all of them are looked at.
BLOCK_ROWS = 65536

# Rows of a memory-mapped array that are shuffled together.
WINDOW_ROWS = 65536

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SparseBatch(Nonzeros):
    """Rows of a sparse matrix with `n_columns` columns."""

    n_columns: int

    def __len__(self) -> int:
        return self.starts.shape[0]

    def to(self, device: torch.device) -> SparseBatch:
        """Move the batch to a device."""
        columns, values = self.columns.to(device), self.values.to(device)
        rows, starts = self.rows.to(device), self.starts.to(device)
        return SparseBatch(columns, values, rows, starts, self.n_columns)

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

        The gradient by the weight is a sparse tensor: its rows are the columns of the batch.
        """
        apply: Any = _Product.apply
        product: Tensor = apply(weight, self)
        return product

    def scaled(self, scale: Tensor) -> SparseBatch:
        """Multiply each column by its entry in `scale` [n_columns]."""
        return replace(self, values=self.values * scale[self.columns])


class ByColumn(NamedTuple):
    """Non-zeros of a sparse batch by column.

    `columns` are those that have any, ascending; the non-zeros of column i begin at starts[i].
    """

    columns: Tensor
    rows: Tensor
    values: Tensor
    starts: Tensor


class _Product(torch.autograd.Function):
    """Sparse batch times weight; both directions are weighted sums of rows."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, batch: SparseBatch) -> Tensor:
        ctx.batch, ctx.shape = batch, weight.shape
        return kernels_for(weight).sum_rows(batch.columns, batch.values, batch.starts, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        columns, rows, values, starts = ctx.batch.by_column
        by_product = grads[0].contiguous()
        gradient = kernels_for(by_product).sum_rows(rows, values, starts, by_product)
        # Its rows are unique and ascend, which torch need not find out again.
        whole = torch.sparse_coo_tensor(
            columns[None], gradient, ctx.shape, is_coalesced=True, check_invariants=False
        )
        return whole, None


Batch: TypeAlias = Tensor | SparseBatch


def padded(batch: Batch, multiple: int) -> Batch:
    """Append empty rows up to a multiple of `multiple`."""
    n_empty = -len(batch) % multiple
    if isinstance(batch, SparseBatch):
        ends = batch.starts.new_full((n_empty,), batch.columns.shape[0])
        return replace(batch, starts=torch.cat([batch.starts, ends]))
    return F.pad(batch, (0, 0, 0, n_empty))


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

    def __len__(self) -> int:
        return int(self.indptr.shape[0]) - 1

    def take(self, ids: Ids) -> SparseBatch:
        """Rows `ids` as a batch, cut without a loop over rows."""
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


# Bytes of dense rows that are kept in memory, rather than made again for each batch.
MOST_IN_MEMORY = 1 << 28


def in_memory(rows: RowSource) -> RowSource:
    """Rows as they are, or all of them made once where they are dense and few enough."""
    if rows.sparse or rows.window_starts() is not None:
        return rows
    if 4 * len(rows) * rows.n_columns > MOST_IN_MEMORY:
        return rows
    array = np.empty((len(rows), rows.n_columns), np.float32)
    for start in range(0, len(rows), BLOCK_ROWS):
        ids = np.arange(start, min(start + BLOCK_ROWS, len(rows)))
        array[ids] = np.asarray(rows.take(ids))
    return DenseRows(array)


def standardise(rows: Raw) -> StandardisedRows:
    """Measure mean and standard deviation of each feature, block by block."""
    scaler = StandardScaler(with_mean=isinstance(rows, DenseRows))
    for start in range(0, len(rows), BLOCK_ROWS):
        scaler.partial_fit(rows.block(start, start + BLOCK_ROWS))
    shift = scaler.mean_ if isinstance(rows, DenseRows) else np.zeros(rows.n_columns)
    shift, scale = (torch.from_numpy(np.asarray(x, np.float32)) for x in (shift, 1 / scaler.scale_))
    return StandardisedRows(rows, shift, scale)
