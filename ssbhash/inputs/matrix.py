"""Turns a feature matrix of any type into one of few forms: equal data gives equal results.

A sparse matrix may store zeros, or one entry in two parts. A cast to float32 may make zeros or
infinities. This module removes such differences, on copies: it never changes what a user hands
in.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse

from ssbhash.arrays import as_numpy, is_torch

# Rows that are read at a time from a whole matrix.
BLOCK_ROWS = 65536


def as_matrix(matrix: Any, name: str) -> Any:
    """Convert what scikit-learn cannot read; return all else as it is.

    Parameters
    ----------
    matrix
        Anything that a user may hand in as features.
    name
        What errors call it.

    Returns
    -------
    array or canonical CSR
        A numpy array for a torch tensor (also bfloat16, or on another device), CSR for any
        sparse matrix or tensor. Others pass as they are.

    Raises
    ------
    ValueError
        If entries of a masked array are masked, or a sparse matrix is malformed.
    """
    if is_torch(matrix):
        matrix = _of_torch(matrix, name)
    if isinstance(matrix, np.ma.MaskedArray):
        return as_numpy(matrix, name)
    return canonical(matrix, name) if scipy.sparse.issparse(matrix) else matrix


def _of_torch(tensor: Any, name: str) -> Any:
    import torch

    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:  # numpy has no bfloat16; float32 holds it exactly
        tensor = tensor.float()
    if tensor.layout is torch.strided:
        return as_numpy(tensor, name)
    if tensor.ndim != 2:
        raise ValueError(f"Expected 2D array, got {tensor.ndim}D {name} of shape {tensor.shape}")
    entries = tensor.to_sparse_coo().coalesce()
    rows, columns = entries.indices().numpy()
    shape = tuple(tensor.shape)
    return scipy.sparse.coo_matrix((entries.values().numpy(), (rows, columns)), shape=shape)


def canonical(matrix: Any, name: str = "X") -> Any:
    """Turn a sparse matrix into CSR without stored zeros and duplicates, columns ascending.

    Raises
    ------
    ValueError
        If the matrix is malformed, such as a column index out of range.
    """
    csr = matrix.tocsr()
    # A new object on the same memory: the user's may cache properties that no longer hold.
    csr = scipy.sparse.csr_matrix((csr.data, csr.indices, csr.indptr), csr.shape, copy=False)
    try:
        csr.check_format(full_check=True)
    except ValueError as error:
        raise ValueError(f"{name} is a malformed sparse matrix: {error}") from error
    if csr.has_canonical_format and csr.count_nonzero() == csr.nnz:
        return csr
    csr = csr.copy()
    csr.sum_duplicates()
    csr.eliminate_zeros()
    return csr


def as_float32(array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Cast to float32 in C order; too large values become infinity, without a warning."""
    with np.errstate(over="ignore", under="ignore"):
        return np.ascontiguousarray(array, np.float32)
