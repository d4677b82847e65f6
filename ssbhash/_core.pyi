"""The C++ extension: csrc/python, one file a room. Arrays are C-contiguous unless said otherwise."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

_Codes: TypeAlias = npt.NDArray[np.uint8]
_Ids: TypeAlias = npt.NDArray[np.int64]
_Places: TypeAlias = npt.NDArray[np.uint32]
_Distances: TypeAlias = npt.NDArray[np.int32]
_Floats: TypeAlias = npt.NDArray[np.float32]

compiler: str

# ---- search

class Planes:
    """Bit planes of codes, for many searches."""

    def __init__(self, codes: _Codes, *, n_threads: int) -> None: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def is_ordered(self) -> bool: ...

class Database:
    """The codes to be searched: all, those of `ids`, or those whose bit of `allowed` is set."""

    def __init__(
        self,
        codes: _Codes,
        *,
        ids: _Ids | None = None,
        allowed: _Codes | None = None,
        planes: Planes | None = None,
    ) -> None: ...

def search(
    database: Database, queries: _Codes, *, k: int, max_distance: int, n_threads: int
) -> tuple[_Distances, _Ids]: ...
def merge(
    parts: Sequence[tuple[_Distances, _Ids]], *, k: int, n_threads: int
) -> tuple[_Distances, _Ids]: ...
def within(
    database: Database, queries: _Codes, *, radii: _Ids, max_results: int, n_threads: int
) -> tuple[_Ids, _Distances, _Ids]: ...
def count_within(
    database: Database, queries: _Codes, *, radii: _Ids, n_threads: int
) -> npt.NDArray[np.int64]: ...
def pairs_within(
    database: Database, *, radius: int, max_results: int, n_threads: int
) -> tuple[_Ids, _Ids, _Distances]: ...
def distances(codes: _Codes, queries: _Codes, *, n_threads: int) -> npt.NDArray[np.uint16]: ...
def paired_distances(
    first: _Codes, second: _Codes, *, n_threads: int
) -> npt.NDArray[np.uint16]: ...

# ---- the index; see csrc/core/index

class Segment:
    """A part of an index that never changes."""

    def __init__(
        self,
        codes: _Codes,
        *,
        ids: _Ids | None = None,
        first_id: int = 0,
        members: tuple[_Places, _Places] | None = None,
        tables: Sequence[tuple[_Places, _Places, _Codes]] = ...,
        ascending: bool = True,
    ) -> None: ...

def group_equal(codes: _Codes, *, most: int) -> tuple[_Codes, _Places, _Places] | None: ...
def tables_for(*, n: int, n_bits: int) -> int: ...
def build_tables(
    codes: _Codes, *, n_tables: int, n_threads: int
) -> list[tuple[_Places, _Places, _Codes]]: ...
def share_probed(segment: Segment, queries: _Codes, *, k: int) -> float: ...
def index_search(
    segments: Sequence[tuple[Segment, _Codes | None]],
    queries: _Codes,
    *,
    k: int,
    max_distance: int,
    excluded: _Ids | None,
    n_threads: int,
) -> tuple[_Distances, _Ids]: ...
def index_within(
    segments: Sequence[tuple[Segment, _Codes | None]],
    queries: _Codes,
    *,
    radius: int,
    excluded: _Ids | None,
    n_threads: int,
) -> tuple[_Ids, _Distances, _Ids]: ...
def near_groups(codes: _Codes, *, radius: int, n_threads: int) -> _Ids: ...

# ---- the machine

def isa() -> str: ...
def isas() -> list[str]: ...
def set_isa(name: str) -> None: ...
def read_all(array: npt.NDArray[np.uint8]) -> int: ...
def run_logic(n: int) -> int: ...

# ---- sampling; logits of any strides

class Draw:
    """Which random numbers: of a seed, for rows counted from `first_row`."""

    def __init__(self, *, seed: int, first_row: int = 0, n_samples: int = 1) -> None: ...

def sample(logits: npt.NDArray[Any], draw: Draw, *, n_threads: int) -> tuple[_Codes, int]: ...
def binarize(
    logits: npt.NDArray[Any], thresholds: npt.NDArray[np.float64], *, n_threads: int
) -> tuple[_Codes, int]: ...
def sample_relaxed(
    logits: npt.NDArray[Any], draw: Draw, *, tau: float, n_threads: int
) -> tuple[_Floats, int]: ...
def philox(counter: Sequence[int], seed: int) -> list[int]: ...

# ---- training

class SparseRows:
    """Row i has `values` at `ids`, from starts[i] to the next start."""

    def __init__(self, ids: _Ids, values: _Floats, starts: _Ids) -> None: ...

class Norm:
    """Parameters of a batch normalisation; its running moments are written."""

    def __init__(
        self,
        *,
        scale: _Floats,
        shift: _Floats,
        running_mean: _Floats,
        running_variance: _Floats,
        eps: float,
        momentum: float,
    ) -> None: ...

class Rectified:
    """A rectified layer and its moments, kept for the backward pass."""

    def __init__(self, values: _Floats, mean: _Floats, inverse: _Floats) -> None: ...
    @property
    def values(self) -> _Floats: ...
    @property
    def mean(self) -> _Floats: ...
    @property
    def inverse(self) -> _Floats: ...

class ReluNormGradient:
    """Gradients of a normalised layer."""

    @property
    def product(self) -> _Floats: ...
    @property
    def bias(self) -> _Floats: ...
    @property
    def scale(self) -> _Floats: ...
    @property
    def shift(self) -> _Floats: ...

class Decoder:
    """A linear decoder."""

    def __init__(self, weight: _Floats, bias: _Floats) -> None: ...

class SoftmaxLoss:
    """A loss and its gradients."""

    @property
    def loss(self) -> float: ...
    @property
    def code(self) -> _Floats: ...
    @property
    def weight(self) -> _Floats: ...
    @property
    def bias(self) -> _Floats: ...

class Adam:
    """Parameters and their moments, which are written in place."""

    def __init__(self, weight: _Floats, mean: _Floats, square: _Floats, eps: float) -> None: ...
    def catch_up(
        self,
        rows: _Ids,
        step: _Floats,
        mean_decay: _Floats,
        square_decay: _Floats,
        n_threads: int,
    ) -> None: ...
    def step_rows(self, rows: _Ids, gradient: _Floats, step: float, n_threads: int) -> None: ...
    def step(self, gradients: Sequence[_Floats], step: float, n_threads: int) -> None: ...

def sum_rows(sums: SparseRows, matrix: _Floats, n_threads: int) -> _Floats: ...
def relu_norm(
    product: _Floats, bias: _Floats, norm: Norm, n_threads: int
) -> tuple[_Floats, Rectified]: ...
def relu_norm_backward(
    grad: _Floats, rectified: Rectified, scale: _Floats, n_threads: int
) -> ReluNormGradient: ...
def softmax_regression(
    code: _Floats, decoder: Decoder, target: SparseRows, log_floor: float, n_threads: int
) -> SoftmaxLoss: ...
