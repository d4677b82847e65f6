"""The C++ extension: csrc/python, one file a room. Arrays are C-contiguous unless said otherwise."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

_Codes: TypeAlias = npt.NDArray[np.uint8]
_Ids: TypeAlias = npt.NDArray[np.int64]
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
