"""What an engine is: the codes that it searches, and the functions that it has."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypedDict

import numpy as np
import numpy.typing as npt

from ssbhash.arrays import (
    AnyArray,
    Codes,
    Distances,
    Float32Array,
    Float64Array,
    Ids,
    Int64Array,
    Logits,
    count_bits,
)

if TYPE_CHECKING:
    from ssbhash._core import Planes

# Functions that take codes take prepared ones too.
CodesIn: TypeAlias = "AnyArray | PreparedCodes"
# Takes the share of a long call that is done, from 0 to 1.
Progress: TypeAlias = Callable[[float], None]
# Fills up rows of fewer than k neighbours.
MISSING_ID = -1
MISSING_DISTANCE = int(np.iinfo(np.int32).max)


class EngineOptions(TypedDict, total=False):
    """Keywords that choose the engine, as overloads share them."""

    backend: str
    n_threads: int | None


class CodeOptions(EngineOptions, total=False):
    """Keywords of the functions that take codes."""

    n_bits: int | None


class PreparedCodes:
    """Codes with what speeds up searching them, made by `ssbhash.prepare`.

    They can be passed in place of the codes to every function of ssbhash; `numpy.asarray`
    returns the codes. Copies and pickles hold the codes and prepare them again, so they may
    go to other processes and machines. An engine that did not prepare them searches the
    codes as they are, with the same results.

    Parameters
    ----------
    codes : uint8 [n, n_bytes]
        The packed codes. They must not change: if they do, results may be wrong.
    n_bits : int or None
        Bits in a code, if given to `prepare`. Queries are then checked against it.
    engine : str
        The engine that prepared them.
    planes
        What that engine made of them; None if it searches codes as they are.

    Examples
    --------
    >>> import copy
    >>> import numpy as np, ssbhash
    >>> prepared = ssbhash.prepare(np.array([[3], [1]], np.uint8), n_bits=2)
    >>> len(prepared), prepared.n_bits
    (2, 2)
    >>> np.asarray(copy.deepcopy(prepared)).tolist()
    [[3], [1]]
    """

    def __init__(
        self, codes: Codes, n_bits: int | None, engine: str, planes: Planes | None
    ) -> None:
        self.codes = codes
        self.n_bits = n_bits
        self.engine = engine
        self._planes = planes

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def nbytes(self) -> int:
        """Memory in bytes beside the codes: at most 1.9 times that of the codes."""
        return 0 if self._planes is None else self._planes.nbytes

    def planes_of(self, engine: str) -> Planes | None:
        """Return what `engine` made of the codes.

        Parameters
        ----------
        engine : str
            Name of an engine.

        Returns
        -------
        Planes or None
            None if another engine prepared the codes.
        """
        return self._planes if engine == self.engine else None

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        array = self.codes if dtype is None else self.codes.astype(dtype, copy=False)
        return array.copy() if copy else array

    def __reduce__(self) -> tuple[Any, ...]:
        return _prepare_again, (self.codes, self.n_bits, self.engine)

    def __repr__(self) -> str:
        n, n_bytes = self.codes.shape
        return f"PreparedCodes(n={n}, n_bytes={n_bytes}, nbytes={self.nbytes})"


def _prepare_again(codes: Codes, n_bits: int | None, engine: str) -> PreparedCodes:
    """Prepare codes in another process; without the engine they are searched as they are."""
    from ssbhash.engines import available, get
    from ssbhash.threads import resolve

    planes = get(engine).prepare(codes, resolve(None)) if engine in available() else None
    return PreparedCodes(codes, n_bits, engine, planes)


@dataclass(frozen=True, eq=False)
class Database:
    """Checked codes for an engine: all rows, or those that a filter allows.

    Attributes
    ----------
    codes : uint8 [n, n_bytes]
        C-contiguous.
    ids : int64, optional
        Ascending: only these rows are searched.
    allowed : uint8 [ceil(n / 8)], optional
        Only rows with a set bit are searched: bit i % 8 of byte i // 8. Bits from n on
        are zero. Not together with `ids`.
    planes
        What the engine's `prepare` made of `codes`.
    """

    codes: Codes
    ids: Ids | None = None
    allowed: npt.NDArray[np.uint8] | None = None
    planes: Planes | None = None

    def __len__(self) -> int:
        if self.allowed is not None:
            return count_bits(self.allowed)
        return len(self.codes) if self.ids is None else len(self.ids)

    @functools.cached_property
    def _ids(self) -> Ids | None:
        if self.allowed is None:
            return self.ids
        bits = np.unpackbits(self.allowed, count=len(self.codes), bitorder="little")
        return np.flatnonzero(bits).astype(np.int64)

    def rows(self) -> Codes:
        """Return the codes to be searched."""
        return self.codes if self._ids is None else self.codes[self._ids]

    def to_ids(self, positions: Ids) -> Ids:
        """Convert positions in `rows()` to ids; missing ones stay missing."""
        if self._ids is None or positions.size == 0:
            return positions
        return np.where(positions < 0, MISSING_ID, self._ids[positions])


class Engine(Protocol):
    """The functions of an engine, which is a module of this room.

    Arguments are checked by the caller. Arrays are numpy's and C-contiguous; logits may have
    any strides. All engines return the same bits, for any number of threads.
    """

    NAME: str

    def prepare(self, codes: Codes, n_threads: int) -> Planes | None:
        """Make what speeds up searches of these codes; None if the engine has nothing."""

    def search(
        self,
        database: Database,
        queries: Codes,
        k: int,
        n_threads: int,
        max_distance: int | None = None,
    ) -> tuple[Distances, Ids]:
        """Find the k smallest (distance, id) of each query, [n_queries, k], ascending.

        If there are fewer, rows end with MISSING_DISTANCE and MISSING_ID.
        """

    def within(
        self,
        database: Database,
        queries: Codes,
        radii: Ids,
        n_threads: int,
        max_results: int | None = None,
    ) -> tuple[Ids, Distances, Ids]:
        """Find all (distance, id) with distance <= radius: (lims, distances, ids) in CSR form.

        `radii` has one number for each query. If there are more than `max_results`,
        `TooManyResultsError` is raised before memory is taken for them.
        """

    def count_within(
        self, database: Database, queries: Codes, radii: Ids, n_threads: int
    ) -> Int64Array:
        """Count for each query the codes with distance <= radius."""

    def pairs_within(
        self,
        database: Database,
        radius: int,
        n_threads: int,
        max_results: int | None = None,
        progress: Progress | None = None,
    ) -> tuple[Ids, Ids, Distances]:
        """Find all pairs of rows i < j with distance <= radius: (i, j, distances), sorted.

        `progress` is called with the share that is done, now and then.
        """

    def distances(self, codes: Codes, queries: Codes, n_threads: int) -> npt.NDArray[np.uint16]:
        """Compute the full matrix of distances [n_queries, n]."""

    def paired_distances(
        self, first: Codes, second: Codes, n_threads: int
    ) -> npt.NDArray[np.uint16]:
        """Compute the distance of row i to row i, [n]."""

    def merge(
        self, parts: list[tuple[Distances, Ids]], k: int, n_threads: int
    ) -> tuple[Distances, Ids]:
        """Return the k smallest (distance, id) of all parts, as `search` would.

        A part has shape [n_queries, k_of_part]; negative ids are missing.
        """

    def sample(
        self, logits: Logits, seed: int, first_row: int, n_samples: int, n_threads: int
    ) -> npt.NDArray[np.uint8]:
        """Draw codes uint8 [n_samples, n, n_bytes], bit ~ Bernoulli(sigmoid(logit))."""

    def binarize(self, logits: Logits, thresholds: Float64Array, n_threads: int) -> Codes:
        """Make codes uint8 [n, n_bytes], bit = logit > threshold, compared exactly."""

    def sample_relaxed(
        self, logits: Logits, tau: float, seed: int, first_row: int, n_threads: int
    ) -> Float32Array:
        """Draw relaxed bits float32 [n, n_bits] from the binary Concrete distribution."""
