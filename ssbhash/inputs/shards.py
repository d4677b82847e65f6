"""Sparse matrices larger than memory: several CSR files, opened when needed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from ssbhash.data import read_items
from ssbhash.inputs.matrix import canonical


class CsrShards:
    """Rows of several CSR files, as one matrix for `fit`, `transform` and `target`.

    Parameters
    ----------
    paths
        `.npz` files of `scipy.sparse.save_npz`, in order, with equal numbers of columns. Or
        a folder: its `.npz` files in order of their names.
    n_open
        Files kept in memory at once. Training shuffles within this many files.

    Attributes
    ----------
    shape
        (n_rows, n_columns) of all files together.

    Raises
    ------
    ValueError
        If there is no file, or one is no CSR file, has other columns than the first, or
        holds NaN or infinity.
    """

    def __init__(self, paths: str | Path | Iterable[str | Path], n_open: int = 4) -> None:
        if isinstance(paths, str | Path):
            found = sorted(Path(paths).glob("*.npz"))
        else:
            found = [Path(path) for path in paths]
        if not found:
            raise ValueError(f"no .npz shard in {paths}")
        self.paths, self.n_open = found, n_open
        self._open: OrderedDict[int, Any] = OrderedDict()
        n_rows, n_columns = [], set()
        self.minimum, self.n_nonzero = 0.0, 0
        for number, path in enumerate(found):
            shard = self.shard(number)
            if not np.isfinite(shard.data).all():
                raise ValueError(f"{path} contains NaN or infinity")
            self.minimum = min(self.minimum, float(shard.min()) if shard.nnz else 0.0)
            self.n_nonzero += shard.nnz
            n_rows.append(shard.shape[0])
            n_columns.add(shard.shape[1])
        if len(n_columns) > 1:
            raise ValueError(f"shards have different numbers of columns: {sorted(n_columns)}")
        self.starts = np.concatenate([[0], np.cumsum(n_rows)])
        self.shape = (int(self.starts[-1]), n_columns.pop())

    def __len__(self) -> int:
        return self.shape[0]

    def min(self) -> float:
        """Return the smallest value, at most 0."""
        return self.minimum

    def shard(self, number: int) -> Any:
        """Read file `number` as a float32 CSR matrix; the last `n_open` files are kept."""
        if number not in self._open:
            matrix: Any = read_items(self.paths[number]).features
            if not hasattr(matrix, "tocsr"):
                raise ValueError(f"{self.paths[number]} is no sparse matrix")
            with np.errstate(over="ignore", under="ignore"):  # infinities are refused
                self._open[number] = canonical(canonical(matrix).astype(np.float32))
        self._open.move_to_end(number)
        while len(self._open) > self.n_open:
            self._open.popitem(last=False)
        return self._open[number]

    def __getitem__(self, ids: Any) -> Any:
        """Read the rows `ids`, numbers or a slice, as one CSR matrix in that order."""
        if isinstance(ids, slice):
            ids = np.arange(*ids.indices(len(self)))
        numbers = np.searchsorted(self.starts, ids, side="right") - 1
        order = np.argsort(numbers, kind="stable")
        parts = [
            self.shard(int(number))[ids[numbers == number] - self.starts[number]]
            for number in np.unique(numbers)
        ]
        if not parts:
            return self.shard(0)[:0]
        return scipy.sparse.vstack(parts, format="csr")[np.argsort(order)]
