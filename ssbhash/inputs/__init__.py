"""What networks read: rows of features, shards on disk, labels as numbers, LSA."""

from ssbhash.inputs.labels import ClassLabels, read_labels
from ssbhash.inputs.lsa import LsaRows, fit_lsa
from ssbhash.inputs.matrix import BLOCK_ROWS, as_float32, as_matrix, canonical
from ssbhash.inputs.rows import (
    Batch,
    DenseRows,
    Raw,
    RowSource,
    SparseBatch,
    SparseRows,
    StandardisedRows,
    in_memory,
    is_mostly_zero,
    is_on_disk,
    moved,
    one_scale_and_each,
    padded,
    row_source,
    standardise,
)
from ssbhash.inputs.shards import CsrShards

__all__ = [
    "BLOCK_ROWS",
    "Batch",
    "ClassLabels",
    "CsrShards",
    "DenseRows",
    "LsaRows",
    "Raw",
    "RowSource",
    "SparseBatch",
    "SparseRows",
    "StandardisedRows",
    "as_float32",
    "as_matrix",
    "canonical",
    "fit_lsa",
    "in_memory",
    "is_mostly_zero",
    "is_on_disk",
    "moved",
    "one_scale_and_each",
    "padded",
    "read_labels",
    "row_source",
    "standardise",
]
