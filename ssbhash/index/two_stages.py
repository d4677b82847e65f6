"""Two stages: the nearest codes, then their order by vectors or by the query's posterior."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from ssbhash.arrays import (
    AnyArray,
    ArrayIn,
    Codes,
    Float64Array,
    Ids,
    as_codes,
    as_count,
    as_numpy,
    like,
)
from ssbhash.asymmetric import expected_distances
from ssbhash.engines import CodesIn, EngineOptions, PreparedCodes
from ssbhash.hamming import SearchResult, TorchSearch, search, within

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import Unpack

METRICS = ("cosine", "inner", "posterior")


@overload
def rerank(
    codes: CodesIn,
    query: Tensor,
    k: int = ...,
    *,
    vectors: AnyArray | None = ...,
    query_vectors: AnyArray,
    candidates: int = ...,
    metric: str = ...,
    **options: Unpack[EngineOptions],
) -> TorchSearch: ...
@overload
def rerank(
    codes: CodesIn,
    query: ArrayIn | PreparedCodes,
    k: int = ...,
    *,
    vectors: AnyArray | None = ...,
    query_vectors: AnyArray,
    candidates: int = ...,
    metric: str = ...,
    **options: Unpack[EngineOptions],
) -> SearchResult[Float64Array, Ids]: ...
def rerank(
    codes: CodesIn,
    query: CodesIn,
    k: int = 10,
    *,
    vectors: Any = None,
    query_vectors: AnyArray,
    candidates: int = 100,
    metric: str = "cosine",
    backend: str = "auto",
    n_threads: int | None = None,
) -> Any:
    """Find the nearest codes, then order them by vectors.

    The candidates of a query are whole tie groups: the `candidates` nearest codes and all
    that tie with the last of them. So no candidate is left out because of its id.

    Parameters
    ----------
    codes : uint8 [n, n_bytes] or PreparedCodes
        The database, packed.
    query : uint8 [n_queries, n_bytes] or [n_bytes]
        Packed queries.
    k : int
        Neighbours for each query.
    vectors : float [n, n_dimensions], optional
        A vector for each code. A memory-mapped array is read only at the candidates. Not
        needed for the posterior.
    query_vectors : float [n_queries, n_dimensions] or [n_dimensions]
        A vector for each query; for the posterior its logits [n_queries, n_bits].
    candidates : int
        Least number of codes that are ordered; at least `k`.
    metric : {"cosine", "inner", "posterior"}
        Distances are 1 - cosine, the negative inner product, or the expected Hamming
        distance to the posterior in bits.
    backend, n_threads
        As in `ssbhash.search`.

    Returns
    -------
    SearchResult
        `distances` float64 and `ids` int64, [n_queries, min(k, n)], ascending by
        (distance, id).

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong dtype, shape or range.

    Examples
    --------
    >>> import numpy as np, ssbhash
    >>> codes = ssbhash.pack(np.array([[0, 0], [0, 0], [1, 1]]))
    >>> vectors = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> found = ssbhash.rerank(
    ...     codes, codes[0], k=2, vectors=vectors, query_vectors=np.array([0.0, 2.0]), candidates=1
    ... )
    >>> found.ids.tolist(), found.distances.tolist()
    ([1, 0], [0.0, 1.0])
    """
    database = as_codes(codes, "codes")
    queries = as_numpy(query, "query")
    is_single = queries.ndim == 1
    queries = as_codes(queries[None] if is_single else queries, "query")
    engine: dict[str, Any] = {"backend": backend, "n_threads": n_threads}
    k = as_count(k, "k", 1)
    if metric != "posterior" and vectors is not None and len(vectors) != len(database):
        raise ValueError(f"there are {len(database)} codes but {len(vectors)} vectors")
    distances, ids = Reranker(vectors, query_vectors, metric, len(queries), database.__getitem__)(
        partial(search, database, **engine),
        lambda some, _, radius: within(database, some, radius, **engine),
        queries,
        min(k, len(database)),
        max(k, as_count(candidates, "candidates", 1)),
    )
    if is_single:
        distances, ids = distances[0], ids[0]
    return SearchResult(like(distances, query), like(ids, query))


class Reranker:
    """Orders candidates; checks the vectors once."""

    def __init__(
        self,
        vectors: Any,
        query_vectors: Any,
        metric: str,
        n_queries: int,
        codes_of: Callable[[Ids], Codes],
    ) -> None:
        if metric not in METRICS:
            raise ValueError(f"metric must be one of {', '.join(METRICS)}; got {metric!r}")
        asked = as_numpy(query_vectors, "query_vectors")
        asked = asked[None] if asked.ndim == 1 else asked
        if asked.ndim != 2 or len(asked) != n_queries:
            raise ValueError(
                f"query_vectors must have shape [{n_queries}, n_dimensions], got {asked.shape}"
            )
        self._metric, self._codes_of = metric, codes_of
        self._asked = asked.astype(np.float64)
        if metric == "posterior":
            return
        if vectors is None:
            raise ValueError(f"metric {metric!r} needs vectors")
        self._vectors = as_numpy(vectors, "vectors")
        if self._vectors.ndim != 2 or self._vectors.shape[1] != asked.shape[1]:
            raise ValueError(
                f"vectors must have shape [n, {asked.shape[1]}], as query_vectors, "
                f"got {self._vectors.shape}"
            )

    def __call__(
        self,
        nearest: Callable[[Codes, int], Any],
        within_radius: Callable[[Codes, Ids, int], Any],
        queries: Codes,
        k: int,
        candidates: int,
    ) -> tuple[Float64Array, Ids]:
        """Order the candidates of each query: [n_queries, k], padded by inf and -1."""
        distances = np.full((len(queries), k), np.inf)
        ids = np.full((len(queries), k), -1, np.int64)
        if k == 0 or len(queries) == 0:
            return distances, ids
        found = nearest(queries, candidates)[0]
        last = np.where(found < np.iinfo(np.int32).max, found, -1).max(axis=1)
        for radius in np.unique(last[last >= 0]):
            which = np.flatnonzero(last == radius)
            lims, _, near = within_radius(queries[which], which, int(radius))
            for i, query in enumerate(which):
                own = np.asarray(near[lims[i] : lims[i + 1]])
                exact = self._distances(int(query), own)
                order = np.lexsort((own, exact))[:k]
                distances[query, : len(order)] = exact[order]
                ids[query, : len(order)] = own[order]
        return distances, ids

    def _distances(self, query: int, ids: Ids) -> Float64Array:
        asked = self._asked[query]
        if self._metric == "posterior":
            exact: Float64Array = expected_distances(self._codes_of(ids), asked) / 256.0
            return exact
        if len(ids) and int(ids.max()) >= len(self._vectors):
            raise ValueError(f"there are {len(self._vectors)} vectors but id {ids.max()}")
        chosen = np.asarray(self._vectors[ids], np.float64)
        products: Float64Array = chosen @ asked
        if self._metric == "inner":
            return -products
        norms = np.linalg.norm(chosen, axis=1) * np.linalg.norm(asked)
        cosines: Float64Array = np.divide(
            products, norms, out=np.zeros_like(norms), where=norms > 0
        )
        return 1 - cosines
