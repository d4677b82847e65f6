"""What networks read: rows of features, shards on disk, labels as numbers, LSA."""

from ssbhash.inputs.labels import Labels, read_labels
from ssbhash.inputs.lsa import LatentRows, fit_latent, fit_scale
from ssbhash.inputs.rows import (
    BLOCK_ROWS,
    Batch,
    DenseRows,
    Ids,
    Raw,
    RowSource,
    SparseBatch,
    SparseRows,
    StandardisedRows,
    in_memory,
    padded,
    row_source,
    standardise,
)
from ssbhash.inputs.shards import CsrShards

__all__ = [
    "BLOCK_ROWS",
    "Batch",
    "CsrShards",
    "DenseRows",
    "Ids",
    "Labels",
    "LatentRows",
    "Raw",
    "RowSource",
    "SparseBatch",
    "SparseRows",
    "StandardisedRows",
    "fit_latent",
    "fit_scale",
    "in_memory",
    "padded",
    "read_labels",
    "row_source",
    "standardise",
]
