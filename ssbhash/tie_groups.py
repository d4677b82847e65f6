"""Tie groups: all that a rank metric needs to know of a ranking with ties.

For each query, by ascending distance: how many items lie at each distance, and how many
of them are relevant. The expectation of a metric over random orders within the groups is a
function of these counts, in closed form (McSherry & Najork, "Computing information
retrieval performance measures efficiently in the presence of tied scores", ECIR 2008). In
a ranking without ties every group has one item.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ssbhash.arrays import BoolArray, Codes, Float64Array, Int64Array
from ssbhash.hamming import distances as _distances
from ssbhash.hamming import search as _search

NumberedLabels: TypeAlias = npt.NDArray[Any]

# Pairs (query, item) that are processed at once: about 100 MB of temporaries.
_PAIRS_PER_CHUNK = 1 << 22


class TieGroups(NamedTuple):
    """Tie groups of some queries, by ascending distance.

    Attributes
    ----------
    counts : int64 [n_queries, n_groups]
        Items in each group; 0 if a query has no such group.
    hits : int64 [n_queries, n_groups]
        Relevant items in each group.
    n_relevant : int64 [n_queries]
        Relevant items in the whole database.
    n_items : int
        Items in the whole database.
    """

    counts: Int64Array
    hits: Int64Array
    n_relevant: Int64Array
    n_items: int


def of_codes(
    codes: Codes,
    labels: NumberedLabels,
    queries: Codes,
    query_labels: NumberedLabels,
    k: int | None,
    ties: str,
    engine: dict[str, Any],
) -> Iterator[TieGroups]:
    """Yield the tie groups that hold the first k ranks, for chunks of queries.

    Labels are class ids or float32 indicators. k = None keeps one group for each distance
    from 0. `engine` has keywords of `ssbhash.search`.
    """
    for part in chunks(len(queries), len(codes)):
        relevant = relevance(labels, query_labels[part])
        if ties == "id" and k is not None:
            yield _singletons(relevant, _search(codes, queries[part], k, **engine).ids)
        else:
            n_groups = (engine["n_bits"] or 8 * codes.shape[1]) + 1
            found = _distances(codes, queries[part], **engine)
            yield _trimmed(_histogram(found, relevant, n_groups), k)


def of_distances(
    distances: Callable[[slice], npt.NDArray[Any]],
    labels: NumberedLabels,
    queries: NumberedLabels,
    k: int,
    ties: str,
) -> Iterator[TieGroups]:
    """Yield tie groups of any distances without NaN; `distances` takes a slice of queries."""
    for part in chunks(len(queries), len(labels)):
        matrix, relevant = distances(part), relevance(labels, queries[part])
        order = np.argsort(matrix, axis=1, kind="stable")
        if ties == "id":
            yield _singletons(relevant, order[:, :k])
            continue
        ascending = np.take_along_axis(matrix, order, axis=1)
        group = np.zeros(matrix.shape, np.int64)
        np.cumsum(ascending[:, 1:] != ascending[:, :-1], axis=1, out=group[:, 1:])
        in_order = np.take_along_axis(relevant, order, axis=1)
        yield _trimmed(_histogram(group, in_order, matrix.shape[1]), k)


def _histogram(group: Any, relevant: BoolArray, n_groups: int) -> TieGroups:
    """Count the items and the relevant items of each group 0 ... n_groups - 1."""
    n_queries, n_items = relevant.shape
    cell = np.arange(n_queries)[:, None] * n_groups + group
    cell = 2 * cell + relevant
    both = np.bincount(cell.ravel(), minlength=2 * n_queries * n_groups)
    both = both.reshape(n_queries, n_groups, 2)
    return TieGroups(both.sum(axis=2), both[:, :, 1], relevant.sum(axis=1), n_items)


def _singletons(relevant: BoolArray, ids: Int64Array) -> TieGroups:
    """Make a group of each rank."""
    hits = np.take_along_axis(relevant, ids, axis=1).astype(np.int64)
    return TieGroups(np.ones_like(hits), hits, relevant.sum(axis=1), relevant.shape[1])


def _trimmed(groups: TieGroups, k: int | None) -> TieGroups:
    """Drop the groups that lie beyond rank k for every query."""
    if k is None:
        return groups
    reached = groups.counts.cumsum(axis=1) >= min(k, groups.n_items)
    n_groups = int(np.argmax(reached, axis=1).max()) + 1
    return groups._replace(counts=groups.counts[:, :n_groups], hits=groups.hits[:, :n_groups])


def chunks(n_queries: int, n_items: int) -> Iterator[slice]:
    """Cut queries into parts whose pairs with all items fit in memory."""
    n_rows = max(1, _PAIRS_PER_CHUNK // n_items)
    return (slice(start, start + n_rows) for start in range(0, n_queries, n_rows))


def relevance(labels: NumberedLabels, queries: NumberedLabels) -> BoolArray:
    """Mark the items that share a class with a query: [n_queries, n]."""
    if labels.ndim == 1:
        same: BoolArray = queries[:, None] == labels[None, :]
        return same
    shared: BoolArray = queries @ labels.T > 0
    return shared


def _hits_at(groups: TieGroups, k: int) -> Float64Array:
    """Compute the expected number of relevant items among the first k."""
    before = groups.counts.cumsum(axis=1) - groups.counts
    taken = np.clip(k - before, 0, groups.counts)
    hits: Float64Array = (taken * groups.hits / np.maximum(groups.counts, 1)).sum(axis=1)
    return hits


def precision(groups: TieGroups, ks: list[int]) -> Float64Array:
    """Compute the expected P@k of each query: [n_queries, n_k]."""
    at = [_hits_at(groups, k) / min(k, groups.n_items) for k in ks]
    return np.stack(at, axis=1)


def recall(groups: TieGroups, ks: list[int]) -> Float64Array:
    """Compute the expected R@k of each query; 0 without a relevant item."""
    at = [_hits_at(groups, k) / np.maximum(groups.n_relevant, 1) for k in ks]
    return np.stack(at, axis=1)


def average_precision(groups: TieGroups, ks: list[int], denominator: str) -> Float64Array:
    """Compute the expected AP@k of each query, over "hits" or over "min(k, relevant)"."""
    harmonic = np.zeros(min(max(ks), groups.n_items) + 1)
    harmonic[1:] = np.cumsum(1 / np.arange(1, len(harmonic)))
    at = []
    for k in (min(k, groups.n_items) for k in ks):
        if denominator == "hits":
            at.append(_by_hits(groups, k, harmonic))
        else:
            total = _precision_sums(groups, k, harmonic).sum(axis=1)
            at.append(total / np.maximum(np.minimum(groups.n_relevant, k), 1))
    return np.stack(at, axis=1)


def _slope_terms(
    before: Any, hits_before: Any, taken: Any, harmonic: Float64Array
) -> tuple[Any, Any]:
    """Sum the two parts of the precision over the places j = 1 ... taken of a tie group.

    A relevant item at place j has precision (hits_before + 1 + (j - 1) q) / (before + j).
    Here q is the chance that another item of the group is relevant. The sums of the
    constant part and of the factor of q follow from harmonic numbers.
    """
    inverse = harmonic[before + taken] - harmonic[before]
    return (hits_before + 1) * inverse, taken - (before + 1) * inverse


def _precision_sums(groups: TieGroups, k: int, harmonic: Float64Array) -> Float64Array:
    """Compute the expected sum of precisions at relevant ranks up to k, for each tie group."""
    counts, hits = groups.counts, groups.hits
    before = np.minimum(counts.cumsum(axis=1) - counts, k)
    hits_before = hits.cumsum(axis=1) - hits
    taken = np.minimum(counts, k - before)
    first, slope = _slope_terms(before, hits_before, taken, harmonic)
    chance = hits / np.maximum(counts, 1)
    chance_of_another = (hits - 1) / np.maximum(counts - 1, 1)
    sums: Float64Array = chance * (first + chance_of_another * slope)
    return sums


def _by_hits(groups: TieGroups, k: int, harmonic: Float64Array) -> Float64Array:
    """Compute the expected AP@k over the hits among the k."""
    rows = np.arange(len(groups.counts))
    ends = groups.counts.cumsum(axis=1)
    cut = np.argmax(ends >= k, axis=1)  # the group that holds rank k
    count, hits = groups.counts[rows, cut], groups.hits[rows, cut]
    before = ends[rows, cut] - count
    hits_before = groups.hits.cumsum(axis=1)[rows, cut] - hits
    taken = k - before
    sums = _precision_sums(groups, k, harmonic)
    is_before = np.arange(sums.shape[1]) < cut[:, None]
    sum_before = np.where(is_before, sums, 0).sum(axis=1)
    # Given h hits among the `taken` places of the cut group, the expected sum is
    # sum_before + a h + b h (h - 1). Divided by (hits_before + h) it is
    # b h + c + remainder / (hits_before + h).
    first, slope = _slope_terms(before, hits_before, taken, harmonic)
    a, b = first / taken, slope / (taken * np.maximum(taken - 1, 1))
    c = a - b * (hits_before + 1)
    mean_hits = taken * hits / count
    inverse, chance_of_none = _hypergeometric_inverse(count, hits, taken, hits_before)
    # Without hits before, the term of h = 0 is 0, not c.
    constant = c * np.where(hits_before == 0, 1 - chance_of_none, 1)
    expected: Float64Array = b * mean_hits + constant + (sum_before - hits_before * c) * inverse
    return expected


def _hypergeometric_inverse(
    count: Int64Array, hits: Int64Array, taken: Int64Array, offset: Int64Array
) -> tuple[Float64Array, Float64Array]:
    """Compute E[1 / (offset + h)], with 0 for 1/0, and P(h = 0).

    h is the number of hits among `taken` of `count` items, `hits` of which are relevant.
    Its probabilities come from ratios P(h + 1) / P(h), in logarithms, and are normalised:
    no factorials, no overflow.
    """
    low = np.maximum(0, taken - (count - hits))
    high = np.minimum(taken, hits)
    h = low[:, None] + np.arange(int((high - low).max()) + 1)
    step = h[:, :-1]
    up = np.maximum(hits[:, None] - step, 0.0) * np.maximum(taken[:, None] - step, 0.0)
    down = (step + 1.0) * ((count - hits - taken)[:, None] + step + 1.0)
    log_p = np.zeros(h.shape)
    with np.errstate(divide="ignore"):  # log 0 beyond the last possible h
        np.cumsum(np.log(up / down), axis=1, out=log_p[:, 1:])
    p = np.exp(log_p - log_p.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    total = offset[:, None] + h
    inverse = np.where(total > 0, p / np.maximum(total, 1), 0).sum(axis=1)
    return inverse, np.where(low == 0, p[:, 0], 0.0)
