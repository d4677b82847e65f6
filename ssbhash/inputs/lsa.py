"""Features as the default SSB-VAE wants them: few, dense, of unit scale.

Sparse rows (term counts, tf-idf) are projected onto the truncated SVD of their tf-idf
weights, latent semantic analysis; a dense row is centred and divided by one number, which
keeps the shape of an embedding. Both are measured on the training items, labelled or not.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.sparse
import torch
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfTransformer
from torch import Tensor
from torch.nn import functional as F

from ssbhash.inputs.matrix import BLOCK_ROWS
from ssbhash.inputs.rows import (
    DenseRows,
    Ids,
    SparseRows,
    SparseRowsOnDisk,
    StandardisedRows,
    standardise,
)


class LatentRows:
    """Rows of a sparse matrix in the subspace `components` [n_features, n_components].

    Every row has length sqrt(n_components), so that a coordinate has unit scale; a row
    without any known feature stays zero.
    """

    sparse = False

    def __init__(self, rows: SparseRows | SparseRowsOnDisk, components: Tensor) -> None:
        self.rows, self.components = rows, components.cpu()
        self.n_columns = int(components.shape[1])

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, ids: Ids) -> Tensor:
        """Rows `ids`, projected and scaled: float32 [m, n_components]."""
        projected = self.rows.take(ids).product(self.components)
        return F.normalize(projected, dim=1) * math.sqrt(self.n_columns)

    def window_starts(self) -> Ids | None:
        """Windows of the rows themselves."""
        return self.rows.window_starts()

    @property
    def statistics(self) -> dict[str, Tensor]:
        """What was measured on the training items."""
        return {"components": self.components}


def fit_latent(rows: SparseRows | SparseRowsOnDisk, n_components: int, seed: int) -> LatentRows:
    """Measure the subspace by a randomised SVD of the tf-idf weights.

    The inverse document frequencies are folded into the components: projecting is then
    one product with the raw rows. Of more than 65,536 rows an even sample is measured.
    """
    sample = np.linspace(0, len(rows) - 1, min(len(rows), BLOCK_ROWS)).astype(np.int64)
    n_components = min(n_components, len(sample), rows.n_columns)
    batch = rows.take(sample)
    matrix = scipy.sparse.csr_matrix(
        (batch.values.numpy(), (batch.rows.numpy(), batch.columns.numpy())),
        shape=(len(sample), rows.n_columns),
    )
    tf_idf = TfidfTransformer().fit(matrix)
    svd = TruncatedSVD(n_components, random_state=seed).fit(tf_idf.transform(matrix))
    components = svd.components_.T * tf_idf.idf_[:, None]
    return LatentRows(rows, torch.from_numpy(np.ascontiguousarray(components, np.float32)))


def fit_scale(rows: DenseRows) -> StandardisedRows:
    """Measure the mean of each feature, and one scale for all of them."""
    each = standardise(rows)
    variance = each.scale.double().pow(-2).mean()
    return StandardisedRows(rows, each.shift, torch.full_like(each.scale, float(variance**-0.5)))
