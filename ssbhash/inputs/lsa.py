"""Features for the default SSB-VAE: few, dense, of unit scale.

Sparse rows (term counts, tf-idf) are projected by a truncated SVD of their tf-idf weights:
latent semantic analysis (LSA). Dense rows are centred and divided by one number, which keeps
the angles of an embedding. Both are fitted on the training items, labelled or not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse
import torch
from scipy.linalg import blas, lapack
from sklearn.feature_extraction.text import TfidfTransformer
from torch import Tensor
from tqdm import tqdm

from ssbhash.arrays import Float32Array, Ids
from ssbhash.inputs.matrix import BLOCK_ROWS
from ssbhash.inputs.rows import (
    SparseRows,
    SparseRowsOnDisk,
)
from ssbhash.kernels import kernels_for

# Iterations of the subspace, and columns beyond those that are kept (docs/decisions.md).
N_ITERATIONS = 3
N_EXTRA = 40
# Components that 2,500 rows and more have by default.
MOST_COMPONENTS = 400
# Shorter rows stay short.
LEAST_LENGTH = 1e-12


class LsaRows:
    """Rows of a sparse matrix in the subspace `components` [n_features, n_components].

    Every row has length sqrt(n_components), so that its coordinates have unit scale. A row
    without a known feature stays zero.
    """

    sparse = False

    def __init__(self, rows: SparseRows | SparseRowsOnDisk, components: Tensor) -> None:
        self.rows, self.components = rows, components.cpu()
        self.n_columns = int(components.shape[1])

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, ids: Ids) -> Tensor:
        """Project and scale the rows `ids`: float32 [m, n_components]."""
        projected = self.rows.take(ids).product(self.components)
        length = torch.linalg.vector_norm(projected, dim=1, keepdim=True)
        return projected.mul_(math.sqrt(self.n_columns) / length.clamp_min_(LEAST_LENGTH))

    def window_starts(self) -> Ids | None:
        """Return the windows of the wrapped rows."""
        return self.rows.window_starts()

    @property
    def statistics(self) -> dict[str, Tensor]:
        """What was measured on the training items."""
        return {"components": self.components}


def fit_lsa(
    rows: SparseRows | SparseRowsOnDisk,
    n_components: int | None,
    seed: int,
    verbose: bool = False,
) -> LsaRows:
    """Find the subspace by a truncated SVD of the tf-idf weights.

    The inverse document frequencies are multiplied into the components, so that one product
    with the raw rows projects them. Of more than 65,536 rows an even sample is used. By default
    there are 8 sqrt(n) components for n rows, at most 400: few rows determine few.
    """
    if n_components is None:
        n_components = min(MOST_COMPONENTS, int(8 * math.sqrt(len(rows))))
    sample = np.linspace(0, len(rows) - 1, min(len(rows), BLOCK_ROWS)).astype(np.int64)
    n_components = min(int(n_components), len(sample), rows.n_columns)
    batch = rows.take(sample)
    matrix = scipy.sparse.csr_matrix(
        (batch.values.numpy(), (batch.rows.numpy(), batch.columns.numpy())),
        shape=(len(sample), rows.n_columns),
    )
    tf_idf = TfidfTransformer().fit(matrix)
    try:
        with np.errstate(over="raise"):
            weights = tf_idf.transform(matrix)
    except FloatingPointError as error:
        raise ValueError(
            f"X has values too large (up to {abs(matrix.data).max():.3g}): its tf-idf weights are "
            "beyond float32; scale the features"
        ) from error
    directions = principal_directions(weights, n_components, seed, verbose)
    directions *= tf_idf.idf_[:, None].astype(np.float32)
    return LsaRows(rows, torch.from_numpy(directions))


def principal_directions(
    matrix: Any, n_components: int, seed: int, verbose: bool = False
) -> Float32Array:
    """Find the leading right singular vectors [n_features, n_components] of a sparse matrix.

    Randomised subspace iteration (Halko, Martinsson and Tropp, SIAM Review 2011), shifted by half
    of the smallest eigenvalue found so far, which converges faster (Feng, Yu and Li, "Fast
    randomized PCA for sparse data", ACML 2018).

    Parameters
    ----------
    matrix
        scipy CSR, float32 [n, n_features].
    n_components
        At most the smaller side of the matrix.
    seed
        Of the random start.
    verbose
        Whether to show how far it is.
    """
    multiply, multiply_transposed = _product(matrix), _product(matrix.T.tocsr())
    rng = np.random.default_rng(seed)
    n = matrix.shape[0]
    width = min(n_components + N_EXTRA, *matrix.shape)
    # Random sums of rows are nearer to the subspace than random vectors are.
    signs = rng.choice(np.array([-1, 1], np.float32), n)
    group = np.arange(n) % width
    sums: Any = scipy.sparse.csr_matrix((signs, (rng.permutation(n), group)), shape=(n, width))
    columns = (matrix.T @ sums).toarray()
    shift = np.float32(0)
    bar = tqdm(range(N_ITERATIONS), "projection", disable=None if verbose else True)
    for iteration in bar:
        # The start need not be orthonormal, and says nothing about the eigenvalues.
        product = multiply_transposed(multiply(columns))
        columns *= shift
        product -= columns
        columns, smallest = _orthonormal(product)
        if iteration > 0:
            shift = max(shift, (shift + smallest) / 2)
    projected = multiply(columns)
    gram = blas.ssyrk(1, projected.T, lower=1).astype(np.float64)
    del projected
    vectors = np.linalg.eigh(gram)[1]  # which reads the lower triangle
    directions: Float32Array = columns @ vectors[:, : -n_components - 1 : -1].astype(np.float32)
    return directions


def _product(matrix: Any) -> Callable[[Float32Array], Float32Array]:
    """Return what multiplies a CSR matrix by columns; our kernel is twice as fast as scipy's."""
    columns_of = torch.from_numpy(matrix.indices.astype(np.int64))
    values = torch.from_numpy(matrix.data.astype(np.float32))
    starts = torch.from_numpy(matrix.indptr[:-1].astype(np.int64))

    def multiply(columns: Float32Array) -> Float32Array:
        weight = torch.from_numpy(np.ascontiguousarray(columns))
        return np.asarray(kernels_for(weight).sum_rows(columns_of, values, starts, weight).numpy())

    return multiply


def _orthonormal(columns: Float32Array) -> tuple[Float32Array, np.float32]:
    """Turn columns into an orthonormal basis, in place; also the least diagonal of the factor."""
    # Half of the products of `columns.T @ columns`: only the upper triangle is needed.
    gram = blas.ssyrk(1, columns.T).astype(np.float64)
    # The Gram matrix is singular if rows repeat, or are fewer than the columns.
    gram[np.diag_indices_from(gram)] += 1e-7 * max(np.trace(gram) / len(gram), 1e-30)
    try:
        factor = scipy.linalg.cholesky(gram)
    except np.linalg.LinAlgError:  # of low rank, and indefinite by rounding
        orthonormal, factor = np.linalg.qr(columns)
        return orthonormal, np.float32(abs(factor.diagonal()).min())
    # A product takes half the time of solving.
    inverse = lapack.dtrtri(factor)[0].astype(np.float32)
    basis: Float32Array = blas.strmm(1, inverse, columns.T, trans_a=1, overwrite_b=1).T
    return basis, np.float32(factor.diagonal().min())
