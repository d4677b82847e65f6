"""The C++ extension (csrc/python, one file for each room); arrays are C-contiguous by default."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ssbhash.arrays import BoolArray, Codes, Distances, Float32Array, Ids

_Places: TypeAlias = npt.NDArray[np.uint32]

compiler: str

# ---- search

class Planes:
    """Bit planes of codes, for many searches."""

    def __init__(self, codes: Codes, *, n_threads: int) -> None: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def is_ordered(self) -> bool: ...

class Database:
    """The codes to be searched: all, those of `ids`, or those whose bit of `allowed` is set."""

    def __init__(
        self,
        codes: Codes,
        *,
        ids: Ids | None = None,
        allowed: Codes | None = None,
        planes: Planes | None = None,
    ) -> None: ...

def search(
    database: Database, queries: Codes, *, k: int, max_distance: int, n_threads: int
) -> tuple[Distances, Ids]: ...
def merge(
    parts: Sequence[tuple[Distances, Ids]], *, k: int, n_threads: int
) -> tuple[Distances, Ids]: ...
def within(
    database: Database, queries: Codes, *, radii: Ids, max_results: int, n_threads: int
) -> tuple[Ids, Distances, Ids]: ...
def count_within(
    database: Database, queries: Codes, *, radii: Ids, n_threads: int
) -> npt.NDArray[np.int64]: ...
def pairs_within(
    database: Database,
    *,
    radius: int,
    max_results: int,
    n_threads: int,
    progress: Callable[[float], None] | None,
) -> tuple[Ids, Ids, Distances]: ...
def distances(codes: Codes, queries: Codes, *, n_threads: int) -> npt.NDArray[np.uint16]: ...
def paired_distances(first: Codes, second: Codes, *, n_threads: int) -> npt.NDArray[np.uint16]: ...

# ---- the index; see csrc/core/index

class Segment:
    """A part of an index that never changes."""

    def __init__(
        self,
        codes: Codes,
        *,
        ids: Ids | None = None,
        first_id: int = 0,
        members: tuple[_Places, _Places] | None = None,
        tables: Sequence[tuple[_Places, Codes, Codes | None]] = ...,
        ascending: bool = True,
    ) -> None: ...

def group_equal(codes: Codes, *, most: int) -> tuple[Codes, _Places, _Places] | None: ...
def tables_for(*, n: int, n_bits: int) -> int: ...
def build_tables(
    codes: Codes, *, n_tables: int, copies: bool, n_threads: int
) -> list[tuple[_Places, Codes, Codes | None]]: ...
def share_probed(segment: Segment, queries: Codes, *, k: int) -> float: ...
def index_search(
    segments: Sequence[tuple[Segment, Codes | None]],
    queries: Codes,
    *,
    k: int,
    max_distance: int,
    excluded: Ids | None,
    mask: BoolArray | None,
    n_threads: int,
) -> tuple[Distances, Ids]: ...
def index_within(
    segments: Sequence[tuple[Segment, Codes | None]],
    queries: Codes,
    *,
    radius: int,
    excluded: Ids | None,
    mask: BoolArray | None,
    n_threads: int,
) -> tuple[Ids, Distances, Ids]: ...
def near_groups(
    codes: Codes, *, radius: int, n_threads: int, progress: Callable[[float], None] | None
) -> Ids: ...

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

def sample(logits: npt.NDArray[Any], draw: Draw, *, n_threads: int) -> tuple[Codes, int]: ...
def binarize(
    logits: npt.NDArray[Any], thresholds: npt.NDArray[np.float64], *, n_threads: int
) -> tuple[Codes, int]: ...
def sample_relaxed(
    logits: npt.NDArray[Any], draw: Draw, *, tau: float, n_threads: int
) -> tuple[Float32Array, int]: ...
def philox(counter: Sequence[int], seed: int) -> list[int]: ...

# ---- training

class SparseRows:
    """Row i has `values` at `ids`, from starts[i] to the next start."""

    def __init__(self, ids: Ids, values: Float32Array, starts: Ids) -> None: ...

class Norm:
    """Parameters of a batch normalisation; its running moments are written."""

    def __init__(
        self,
        *,
        scale: Float32Array,
        shift: Float32Array,
        running_mean: Float32Array,
        running_variance: Float32Array,
        eps: float,
        momentum: float,
    ) -> None: ...

class Dropout:
    """Drops units whose byte is below the threshold, and scales the others."""

    def __init__(self, bytes: npt.NDArray[np.uint8], threshold: int, scale: float) -> None: ...

class Moments:
    """Means and inverse standard deviations of a rectified layer."""

    def __init__(self, mean: Float32Array, inverse: Float32Array) -> None: ...
    @property
    def mean(self) -> Float32Array: ...
    @property
    def inverse(self) -> Float32Array: ...

class ReluNormGradient:
    """Gradients of a normalised layer."""

    @property
    def product(self) -> Float32Array: ...
    @property
    def bias(self) -> Float32Array: ...
    @property
    def scale(self) -> Float32Array: ...
    @property
    def shift(self) -> Float32Array: ...

class Decoder:
    """A linear decoder."""

    def __init__(self, weight: Float32Array, bias: Float32Array) -> None: ...

class ClassAndItem:
    """The terms of a loss, and gradients."""

    @property
    def class_(self) -> float: ...
    @property
    def contrast(self) -> float: ...
    @property
    def labelled(self) -> float: ...
    @property
    def outputs(self) -> Float32Array: ...
    @property
    def slopes(self) -> Float32Array: ...

class SoftmaxLoss:
    """A loss and its gradients."""

    @property
    def loss(self) -> float: ...
    @property
    def code(self) -> Float32Array: ...
    @property
    def weight(self) -> Float32Array: ...
    @property
    def bias(self) -> Float32Array: ...

class Adam:
    """Parameters, their moments and an average over steps, which are written in place."""

    def __init__(
        self,
        weight: Float32Array,
        mean: Float32Array,
        square: Float32Array,
        eps: float,
        average: Float32Array | None = None,
    ) -> None: ...
    def catch_up(
        self,
        rows: Ids,
        step: Float32Array,
        mean_decay: Float32Array,
        square_decay: Float32Array,
        n_threads: int,
    ) -> None: ...
    def step_rows(self, rows: Ids, gradient: Float32Array, step: float, n_threads: int) -> None: ...
    def step(
        self, gradients: Sequence[Float32Array], step: float, share: float, n_threads: int
    ) -> None: ...

def sum_rows(sums: SparseRows, matrix: Float32Array, n_threads: int) -> Float32Array: ...
def dropped(x: Float32Array, dropout: Dropout, n_threads: int) -> Float32Array: ...
def class_and_item(
    outputs: Float32Array,
    products: Float32Array,
    target: Float32Array,
    share: Float32Array,
    *,
    multilabel: bool,
    scale: float,
    least: float,
    contrast_weight: float,
) -> ClassAndItem: ...
def relu_norm(
    product: Float32Array, bias: Float32Array, norm: Norm, dropout: Dropout | None, n_threads: int
) -> tuple[Float32Array, Moments]: ...
def relu_norm_backward(
    grad: Float32Array,
    product: Float32Array,
    bias: Float32Array,
    moments: Moments,
    scale: Float32Array,
    *,
    dropout: Dropout | None,
    n_threads: int,
) -> ReluNormGradient: ...
def softmax_regression(
    code: Float32Array, decoder: Decoder, target: SparseRows, log_floor: float, n_threads: int
) -> SoftmaxLoss: ...
