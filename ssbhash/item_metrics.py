"""Metrics of how well codes tell items apart, beside their classes.

If thousands of items share a code, a search returns those with the smallest ids, and nothing is
left to re-rank. Precision in expectation over ties does not show this; these figures do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ssbhash import metrics, tie_groups
from ssbhash.arrays import BoolArray, Float32Array, Float64Array, as_codes, as_count
from ssbhash.hamming import distances


def code_figures(
    database_codes: Any,
    database_labels: Any,
    query_codes: Any,
    query_labels: Any,
    *,
    k: int = 10,
    depth: int = 100,
    n_bits: int | None = None,
    backend: str = "auto",
    n_threads: int | None = None,
) -> dict[str, float]:
    """Measure how well codes tell items apart.

    Parameters
    ----------
    database_codes, database_labels, query_codes, query_labels
        As in `metrics.precision_at`.
    k : int
        Neighbours that a search returns.
    depth : int
        Neighbours that are kept for re-ranking.
    n_bits, backend, n_threads
        As in `metrics.precision_at`.

    Returns
    -------
    dict
        - "P@k by class": precision of what `search` returns if the database is in the order
          of its classes, as files often are. Ties go to the smaller id, so this is below
          the expectation over ties if many items share a code.
        - "distinct": number of distinct codes over number of items.
        - "tied@depth": number of items as far away as the one at rank `depth`, mean over
          queries.

    Raises
    ------
    TypeError, ValueError
        As `metrics.precision_at`.

    Examples
    --------
    >>> import numpy as np, ssbhash
    >>> from ssbhash.item_metrics import code_figures
    >>> codes = ssbhash.pack(np.array([[0, 0], [0, 0], [1, 1], [1, 1]]))
    >>> code_figures(codes, [1, 0, 2, 2], codes[:1], [1], k=1, depth=1)
    {'P@1 by class': 0.0, 'distinct': 0.5, 'tied@1': 2.0}
    """
    engine: dict[str, Any] = {"n_bits": n_bits, "backend": backend, "n_threads": n_threads}
    sides = database_codes, database_labels, query_codes, query_labels
    metrics.precision_at(*sides, k=1, **engine)  # checks all of them
    codes = as_codes(database_codes, "database_codes")
    queries = as_codes(query_codes, "query_codes")
    labels = np.asarray(database_labels)
    order = np.lexsort(labels.T) if labels.ndim == 2 else np.argsort(labels, kind="stable")
    by_class = codes[order], labels[order], queries, query_labels
    depth = min(as_count(depth, "depth", 1), len(codes))
    tied = [
        (found == _at_rank(found, depth)).sum(axis=1)
        for found in (
            distances(codes, queries[part], **engine)
            for part in tie_groups.chunks(len(queries), len(codes))
        )
    ]
    return {
        f"P@{k} by class": metrics.precision_at(*by_class, k=k, ties="id", **engine),
        "distinct": len(np.unique(codes, axis=0)) / len(codes),
        f"tied@{depth}": float(np.concatenate(tied).mean()),
    }


def neighbour_figures(
    database_codes: Any,
    database_items: Any,
    query_codes: Any,
    query_items: Any,
    labels: tuple[Any, Any] | None = None,
    *,
    k: int = 10,
    depth: int = 100,
    n_bits: int | None = None,
    backend: str = "auto",
    n_threads: int | None = None,
) -> dict[str, float]:
    """Measure how well codes find the items that are nearest by cosine.

    Parameters
    ----------
    database_codes, query_codes : uint8 [n, n_bytes], [n_queries, n_bytes]
        Packed codes.
    database_items, query_items : array or scipy sparse [n, n_features], [n_queries, n_features]
        What the codes were made from.
    labels : tuple, optional
        Labels of the database and of the queries, as in `metrics.precision_at`.
    k : int
        Nearest items by cosine, and items returned after re-ranking.
    depth : int
        Nearest items by code that are re-ranked.
    n_bits, backend, n_threads
        As in `metrics.precision_at`.

    Returns
    -------
    dict
        - "neighbours@depth": share of the k nearest by cosine that are among the first `depth`
          by code, in expectation over ties.
        - "P@k re-ranked", with `labels`: precision of the k nearest by cosine among the first
          `depth` by code and all that tie with the last of these.
        - "P@k cosine", with `labels`: precision of the k nearest by cosine among all items.

    Raises
    ------
    TypeError, ValueError
        If codes or labels are malformed, or items and codes differ in number.

    Examples
    --------
    >>> import numpy as np, ssbhash
    >>> from ssbhash.item_metrics import neighbour_figures
    >>> items = np.array([[1.0, 0.1], [0.2, 1.0], [1.0, 0.3], [-1.0, 0.0]])
    >>> codes = ssbhash.pack(items > 0.25)
    >>> neighbour_figures(codes, items, codes[:1], items[:1], k=2, depth=2)
    {'neighbours@2': 0.75}
    """
    engine: dict[str, Any] = {"n_bits": n_bits, "backend": backend, "n_threads": n_threads}
    codes = as_codes(database_codes, "database_codes")
    queries = as_codes(query_codes, "query_codes")
    for side, items, own in (
        ("database", database_items, codes),
        ("query", query_items, queries),
    ):
        if len(own) == 0 or items.shape[0] != len(own):
            raise ValueError(f"{side}_items has {items.shape[0]} rows for {len(own)} codes")
    if labels is not None:
        sides = metrics.as_labels_of(*labels, len(codes), len(queries))
    k, depth = min(as_count(k, "k", 1), len(codes)), min(as_count(depth, "depth", 1), len(codes))
    rows = []
    for part, similarity in _cosines(database_items, query_items):
        found = distances(codes, queries[part], **engine)
        last = _at_rank(found, depth)
        neighbours = _nearest(similarity, k)
        row = [_expected_hits(found, last, neighbours, depth) / k]
        if labels is not None:
            relevant = tie_groups.relevance(sides[0], sides[1][part])
            best = _nearest(np.where(found <= last, similarity, -np.inf), k)
            row += [(chosen & relevant).sum(axis=1) / k for chosen in (best, neighbours)]
        rows.append(np.stack(row))
    names = f"neighbours@{depth}", f"P@{k} re-ranked", f"P@{k} cosine"
    means = np.concatenate(rows, axis=1).mean(axis=1)
    return {name: float(mean) for name, mean in zip(names, means, strict=False)}


def _cosines(database: Any, queries: Any) -> Iterator[tuple[slice, Float32Array]]:
    """Compute the cosine of each query and item, for chunks of queries."""
    items, asked = _of_unit_length(database), _of_unit_length(queries)
    for part in tie_groups.chunks(asked.shape[0], items.shape[0]):
        product = asked[part] @ items.T
        yield part, product if isinstance(product, np.ndarray) else product.toarray()


def _of_unit_length(x: Any) -> Any:
    if isinstance(x, np.ndarray):
        x = x.astype(np.float32)
        return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    from sklearn.preprocessing import normalize

    return normalize(x)


def _at_rank(values: npt.NDArray[Any], k: int) -> npt.NDArray[Any]:
    """Find the k-th smallest of each row [m, 1]."""
    return np.partition(values, k - 1, axis=1)[:, k - 1 : k]


def _nearest(similarity: Float32Array, k: int) -> BoolArray:
    """Mark the k largest of each row, the first of equal ones."""
    last = -_at_rank(-similarity, k)
    above, tied = similarity > last, similarity == last
    wanted = k - above.sum(axis=1, keepdims=True)
    marked: BoolArray = above | (tied & (tied.cumsum(axis=1) <= wanted))
    return marked


def _expected_hits(
    found: npt.NDArray[Any], last: npt.NDArray[Any], wanted: BoolArray, depth: int
) -> Float64Array:
    """Count the wanted items among the first `depth`, in expectation over orders of ties."""
    before, tied = found < last, found == last
    share = (depth - before.sum(axis=1)) / tied.sum(axis=1)
    hits: Float64Array = (before & wanted).sum(axis=1)
    expected: Float64Array = hits + share * (tied & wanted).sum(axis=1)
    return expected
