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
