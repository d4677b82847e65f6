"""Retrieval quality from codes and labels, exact in expectation over ties.

Short codes tie often, and the order within a tie is arbitrary. By default each metric is
its expectation over all orders of the tied items, in closed form (McSherry & Najork,
"Computing information retrieval performance measures efficiently in the presence of tied
scores", ECIR 2008). So it is reproducible, and any arbitrary order estimates it.
`ties="id"` ranks by (distance, id), as search does.

Every metric depends on the tie groups of a query alone (`tie_groups.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from ssbhash import tie_groups
from ssbhash.arrays import AnyArray, Float64Array, Int64Array, as_codes, as_count, as_numpy
from ssbhash.data import is_labelled, number_labels
from ssbhash.engines import CodeOptions, CodesIn
from ssbhash.tie_groups import NumberedLabels, TieGroups

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import Unpack

LabelsIn: TypeAlias = "Tensor | npt.NDArray[Any] | Sequence[Any]"
Ties: TypeAlias = Literal["expected", "id"]
Denominator: TypeAlias = Literal["hits", "min(k, relevant)"]


class _MetricOptions(CodeOptions, total=False):
    """Keywords of a metric, as its overloads share them."""

    ties: Ties


class PrecisionRecall(NamedTuple):
    """Precision and recall of the items within each radius, means over queries.

    Attributes
    ----------
    radius : int64 [n_bits + 1]
        0 ... n_bits.
    precision, recall : float64 [n_bits + 1]
        At each radius.
    n_retrieved : float64 [n_bits + 1]
        Items within the radius.

    Examples
    --------
    >>> codes = np.array([[0], [1]], np.uint8)
    >>> curve = precision_recall_by_radius(codes, [0, 1], codes, [0, 1], n_bits=1)
    >>> curve.n_retrieved.tolist()
    [1.0, 2.0]
    """

    radius: Int64Array
    precision: Float64Array
    recall: Float64Array
    n_retrieved: Float64Array


@overload
def precision_at(
    database_codes: CodesIn,
    database_labels: LabelsIn,
    query_codes: CodesIn,
    query_labels: LabelsIn,
    k: int = ...,
    *,
    per_query: Literal[False] = ...,
    **options: Unpack[_MetricOptions],
) -> float: ...
@overload
def precision_at(
    database_codes: CodesIn,
    database_labels: LabelsIn,
    query_codes: CodesIn,
    query_labels: LabelsIn,
    k: int = ...,
    *,
    per_query: Literal[True],
    **options: Unpack[_MetricOptions],
) -> Float64Array: ...
@overload
def precision_at(
    database_codes: CodesIn,
    database_labels: LabelsIn,
    query_codes: CodesIn,
    query_labels: LabelsIn,
    k: Sequence[int],
    *,
    per_query: bool = ...,
    **options: Unpack[_MetricOptions],
) -> Float64Array: ...
def precision_at(
    database_codes: CodesIn,
    database_labels: LabelsIn,
    query_codes: CodesIn,
    query_labels: LabelsIn,
    k: int | Sequence[int] = 100,
    *,
    ties: Ties = "expected",
    per_query: bool = False,
    n_bits: int | None = None,
    backend: str = "auto",
    n_threads: int | None = None,
) -> float | Float64Array:
    """Compute precision among the k nearest codes (P@k).

    An item is relevant to a query if both have the same class, or share at
    least one label.

    Parameters
    ----------
    database_codes : uint8 [n, n_bytes]
        The database, packed.
    database_labels : array-like [n] or 0/1 [n, n_labels]
        Whole numbers, text or truth values, as in `fit`; or an indicator matrix
        (multi-label). No label may be missing.
    query_codes : uint8 [n_queries, n_bytes]
        Packed queries.
    query_labels : array-like [n_queries] or 0/1 [n_queries, n_labels]
        Of the same kind as `database_labels`.
    k : int or sequence of int
        Neighbours looked at; several are computed in one pass. k > n stands for n.
    ties : {"expected", "id"}
        Expectation over random orders of equal distances, or smaller id first.
    per_query : bool
        Return the value of each query instead of the mean.
    n_bits : int, optional
        Bits in a code; given, padding bits are checked.
    backend : str
        The engine, as in `ssbhash.search`; all give the same result.
    n_threads : int, optional
        Threads at most.

    Returns
    -------
    float or float64 array
        The mean over queries; [n_k] for a sequence of k. With `per_query`
        [n_queries] or [n_queries, n_k]. A query without a relevant item has 0.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong dtype, shape or range, if a label is
        missing (-1), or if there are no items or no queries.

    Examples
    --------
    >>> import numpy as np, ssbhash
    >>> from ssbhash.metrics import precision_at
    >>> codes = ssbhash.pack(np.array([[0, 0], [0, 1], [1, 0], [1, 1]]))
    >>> precision_at(codes, [0, 0, 1, 1], codes[:1], [0], k=2)  # ids 1 and 2 tie
    0.75
    >>> precision_at(codes, [0, 0, 1, 1], codes[:1], [0], k=2, ties="id")
    1.0
    """
    ks = _as_ks(k)
    data = database_codes, database_labels, query_codes, query_labels
    groups = _groups(*data, max(ks), ties, n_bits, backend, n_threads)
    return _finish([tie_groups.precision(part, ks) for part in groups], k, per_query)


@overload
def recall_at(
    database_codes: CodesIn,
    database_labels: LabelsIn,
    query_codes: CodesIn,
    query_labels: LabelsIn,
    k: int = ...,
    *,
    per_query: Literal[False] = ...,
    **options: Unpack[_MetricOptions],
) -> float: ...
@overload
def recall_at(
    database_codes: CodesIn,
    database_labels: LabelsIn,
    query_codes: CodesIn,
    query_labels: LabelsIn,
    k: int = ...,
    *,
    per_query: Literal[True],
    **options: Unpack[_MetricOptions],
) -> Float64Array: ...
@overload
def recall_at(
    database_codes: CodesIn,
    database_labels: LabelsIn,
    query_codes: CodesIn,
    query_labels: LabelsIn,
    k: Sequence[int],
    *,
    per_query: bool = ...,
    **options: Unpack[_MetricOptions],
) -> Float64Array: ...
def recall_at(
    database_codes: CodesIn,
    database_labels: LabelsIn,
    query_codes: CodesIn,
    query_labels: LabelsIn,
    k: int | Sequence[int] = 100,
    *,
    ties: Ties = "expected",
    per_query: bool = False,
    n_bits: int | None = None,
    backend: str = "auto",
    n_threads: int | None = None,
) -> float | Float64Array:
    """Compute the share of the relevant items among the k nearest codes (R@k).

    Parameters
    ----------
    database_codes, database_labels, query_codes, query_labels, k, ties, per_query
        As in `precision_at`.
    n_bits, backend, n_threads
        As in `precision_at`.

    Returns
    -------
    float or float64 array
        As `precision_at`. A query without a relevant item has recall 0.

    Raises
    ------
    TypeError, ValueError
        As `precision_at`.

    Examples
    --------
    >>> import numpy as np, ssbhash
    >>> from ssbhash.metrics import recall_at
    >>> codes = ssbhash.pack(np.array([[0, 0], [0, 1], [1, 0], [1, 1]]))
    >>> recall_at(codes, [0, 0, 0, 1], codes[:1], [0], k=[1, 3]).round(3).tolist()
    [0.333, 1.0]
    """
    ks = _as_ks(k)
    data = database_codes, database_labels, query_codes, query_labels
    groups = _groups(*data, max(ks), ties, n_bits, backend, n_threads)
    return _finish([tie_groups.recall(part, ks) for part in groups], k, per_query)


@overload
def average_precision_at(
    database_codes: CodesIn,
    database_labels: LabelsIn,
    query_codes: CodesIn,
    query_labels: LabelsIn,
    k: int = ...,
    *,
    denominator: Denominator = ...,
    per_query: Literal[False] = ...,
    **options: Unpack[_MetricOptions],
) -> float: ...
@overload
def average_precision_at(
    database_codes: CodesIn,
    database_labels: LabelsIn,
    query_codes: CodesIn,
    query_labels: LabelsIn,
    k: int = ...,
    *,
    denominator: Denominator = ...,
    per_query: Literal[True],
    **options: Unpack[_MetricOptions],
) -> Float64Array: ...
@overload
def average_precision_at(
    database_codes: CodesIn,
    database_labels: LabelsIn,
    query_codes: CodesIn,
    query_labels: LabelsIn,
    k: Sequence[int],
    *,
    denominator: Denominator = ...,
    per_query: bool = ...,
    **options: Unpack[_MetricOptions],
) -> Float64Array: ...
def average_precision_at(
    database_codes: CodesIn,
    database_labels: LabelsIn,
    query_codes: CodesIn,
    query_labels: LabelsIn,
    k: int | Sequence[int] = 100,
    *,
    denominator: Denominator = "hits",
    ties: Ties = "expected",
    per_query: bool = False,
    n_bits: int | None = None,
    backend: str = "auto",
    n_threads: int | None = None,
) -> float | Float64Array:
    """Compute average precision of the k nearest codes; its mean over queries is MAP@k.

    AP@k is the sum of the precision at each relevant rank up to k, divided by
    `denominator`.

    Parameters
    ----------
    database_codes, database_labels, query_codes, query_labels, k, ties, per_query
        As in `precision_at`.
    denominator : {"hits", "min(k, relevant)"}
        "hits": the relevant items among the k; AP@k is 0 without any. So do the code of
        SSB-VAE and most papers on hashing. "min(k, relevant)": the most hits there can be,
        so that missed items lower the result.
    n_bits, backend, n_threads
        As in `precision_at`.

    Returns
    -------
    float or float64 array
        As `precision_at`.

    Raises
    ------
    TypeError, ValueError
        As `precision_at`, or if `denominator` is none of these.

    Notes
    -----
    Rank k may cut a tie. With "hits" AP@k is then a ratio of random variables. The number
    of hits h in the cut tie is hypergeometric. Given h, all positions are equally likely.
    So the expectation is the sum over h of P(h) E[sum | h] / (hits before + h). This is
    exact; it is not the ratio of two expectations.

    Examples
    --------
    >>> import numpy as np, ssbhash
    >>> from ssbhash.metrics import average_precision_at
    >>> codes = ssbhash.pack(np.array([[0, 0], [0, 1], [1, 1]]))
    >>> average_precision_at(codes, [1, 0, 0], codes[:1], [0], k=2)
    0.5
    >>> average_precision_at(codes, [1, 0, 0], codes[:1], [0], k=2, denominator="min(k, relevant)")
    0.25
    """
    ks = _as_ks(k)
    data = database_codes, database_labels, query_codes, query_labels
    denominator = _as_denominator(denominator)
    groups = _groups(*data, max(ks), ties, n_bits, backend, n_threads)
    return _finish(
        [tie_groups.average_precision(part, ks, denominator) for part in groups], k, per_query
    )


def precision_recall_by_radius(
    database_codes: CodesIn,
    database_labels: LabelsIn,
    query_codes: CodesIn,
    query_labels: LabelsIn,
    *,
    n_bits: int | None = None,
    backend: str = "auto",
    n_threads: int | None = None,
) -> PrecisionRecall:
    """Compute precision and recall of the items within each Hamming radius.

    This is the curve of lookup by radius. Whole tie groups are taken, so there is no tie
    to break. A query with nothing within the radius has precision 0: a failed lookup. A
    query without a relevant item has precision and recall 0.

    Parameters
    ----------
    database_codes, database_labels, query_codes, query_labels
        As in `precision_at`.
    n_bits, backend, n_threads
        As in `precision_at`.

    Returns
    -------
    PrecisionRecall
        `radius`, `precision`, `recall`, `n_retrieved`, each [n_bits + 1]
        (8 * n_bytes + 1 where `n_bits` is not given).

    Raises
    ------
    TypeError, ValueError
        As `precision_at`.

    Examples
    --------
    >>> import numpy as np, ssbhash
    >>> from ssbhash.metrics import precision_recall_by_radius
    >>> codes = ssbhash.pack(np.array([[0, 0], [0, 1], [1, 0], [1, 1]]))
    >>> curve = precision_recall_by_radius(codes, [0, 0, 1, 1], codes[:1], [0], n_bits=2)
    >>> curve.precision.round(3).tolist(), curve.recall.tolist()
    ([1.0, 0.667, 0.5], [0.5, 1.0, 1.0])
    """
    data = database_codes, database_labels, query_codes, query_labels
    rows = []
    for groups in _groups(*data, None, "expected", n_bits, backend, n_threads):
        retrieved, hits = groups.counts.cumsum(axis=1), groups.hits.cumsum(axis=1)
        precision = hits / np.maximum(retrieved, 1)
        recall = hits / np.maximum(groups.n_relevant, 1)[:, None]
        rows.append(np.stack([precision, recall, retrieved], axis=1))
    precision, recall, retrieved = np.concatenate(rows).mean(axis=0)
    return PrecisionRecall(np.arange(len(precision)), precision, recall, retrieved)


def evaluate(
    database_codes: CodesIn,
    database_labels: LabelsIn,
    query_codes: CodesIn,
    query_labels: LabelsIn,
    k: int | Sequence[int] = 100,
    *,
    denominator: Denominator = "hits",
    ties: Ties = "expected",
    n_bits: int | None = None,
    backend: str = "auto",
    n_threads: int | None = None,
) -> dict[str, float]:
    """Compute P@k, R@k and MAP@k in one pass.

    Parameters
    ----------
    database_codes, database_labels, query_codes, query_labels, k
        As in `precision_at`.
    denominator, ties
        As in `average_precision_at`.
    n_bits, backend, n_threads
        As in `precision_at`.

    Returns
    -------
    dict
        Means over queries by name, for each k: "P@k", "R@k", "MAP@k".

    Raises
    ------
    TypeError, ValueError
        As `average_precision_at`.

    Examples
    --------
    >>> import numpy as np, ssbhash
    >>> from ssbhash.metrics import evaluate
    >>> codes = ssbhash.pack(np.array([[0, 0], [0, 1], [1, 0], [1, 1]]))
    >>> evaluate(codes, [0, 0, 1, 1], codes, [0, 0, 1, 1], k=2)
    {'P@2': 0.75, 'R@2': 0.75, 'MAP@2': 1.0}
    """
    ks = _as_ks(k)
    data = database_codes, database_labels, query_codes, query_labels
    denominator = _as_denominator(denominator)
    return _evaluate(_groups(*data, max(ks), ties, n_bits, backend, n_threads), ks, denominator)


def evaluate_distances(
    distances: AnyArray | Callable[[slice], AnyArray],
    database_labels: LabelsIn,
    query_labels: LabelsIn,
    k: int | Sequence[int] = 100,
    *,
    denominator: Denominator = "hits",
    ties: Ties = "expected",
) -> dict[str, float]:
    """Compute P@k, R@k and MAP@k of any ranking, to compare codes with.

    Parameters
    ----------
    distances : real [n_queries, n], or a function
        Smaller is nearer: 1 - cosine on floats, an expected Hamming distance. A function
        takes a slice of queries and returns their distances, so that not all of them need
        fit in memory.
    database_labels, query_labels, k
        As in `precision_at`.
    denominator, ties
        As in `average_precision_at`.

    Returns
    -------
    dict
        As `evaluate`.

    Raises
    ------
    TypeError, ValueError
        As `average_precision_at`, or if a distance is NaN.

    Examples
    --------
    >>> from ssbhash.metrics import evaluate_distances
    >>> evaluate_distances([[0.1, 0.5, 0.2]], [0, 0, 1], [0], k=2)
    {'P@2': 0.5, 'R@2': 0.5, 'MAP@2': 1.0}
    """
    ks = _as_ks(k)
    n_items, n_queries = np.shape(database_labels)[0], np.shape(query_labels)[0]
    if callable(distances):
        of = distances
    else:
        matrix = _as_distances(distances, n_queries, n_items)
        of = matrix.__getitem__
    labels, queries = as_labels_of(database_labels, query_labels, n_items, n_queries)
    if 0 in (n_items, n_queries):
        raise ValueError("there must be items and queries: there is nothing to evaluate")

    def checked(part: slice) -> npt.NDArray[Any]:
        return _as_distances(of(part), len(queries[part]), n_items)

    denominator = _as_denominator(denominator)
    groups = tie_groups.of_distances(checked, labels, queries, max(ks), _as_ties(ties))
    return _evaluate(groups, ks, denominator)


def _evaluate(groups: Iterator[TieGroups], ks: list[int], denominator: str) -> dict[str, float]:
    rows = [
        np.stack(
            [
                tie_groups.precision(g, ks),
                tie_groups.recall(g, ks),
                tie_groups.average_precision(g, ks, denominator),
            ],
            1,
        )
        for g in groups
    ]
    means = np.concatenate(rows).mean(axis=0)
    names = ("P", "R", "MAP")
    return {
        f"{name}@{k}": float(means[i, j]) for j, k in enumerate(ks) for i, name in enumerate(names)
    }


def _finish(
    rows: list[Float64Array], k: int | Sequence[int], per_query: bool
) -> float | Float64Array:
    values = np.concatenate(rows)  # [n_queries, n_k]
    if not isinstance(k, Sequence | np.ndarray):
        values = values[:, 0]
    if per_query:
        return values
    mean = values.mean(axis=0)
    return mean if mean.ndim else float(mean)


def _groups(
    database_codes: CodesIn,
    database_labels: LabelsIn,
    query_codes: CodesIn,
    query_labels: LabelsIn,
    k: int | None,
    ties: str,
    n_bits: int | None,
    backend: str,
    n_threads: int | None,
) -> Iterator[TieGroups]:
    codes = as_codes(database_codes, "database_codes", n_bits)
    queries = as_codes(query_codes, "query_codes", n_bits)
    for name, array in (("database_codes", codes), ("query_codes", queries)):
        if len(array) == 0:
            raise ValueError(f"{name} is empty: there is nothing to evaluate")
    if codes.shape[1] != queries.shape[1]:
        raise ValueError(
            f"query_codes has {queries.shape[1]} bytes a code but database_codes {codes.shape[1]}"
        )
    labels, labels_of = as_labels_of(database_labels, query_labels, len(codes), len(queries))
    engine = {"n_bits": n_bits, "backend": backend, "n_threads": n_threads}
    return tie_groups.of_codes(codes, labels, queries, labels_of, k, _as_ties(ties), engine)


def _as_ks(k: int | Sequence[int]) -> list[int]:
    if not isinstance(k, Sequence | np.ndarray):
        return [as_count(k, "k", 1)]
    if len(k) == 0:
        raise ValueError("k must not be an empty sequence")
    return [as_count(one, "k", 1) for one in k]


def _as_distances(distances: Any, n_queries: int, n_items: int) -> npt.NDArray[Any]:
    matrix = as_numpy(distances, "distances")
    if matrix.shape != (n_queries, n_items):
        raise ValueError(
            f"distances must have shape [n_queries, n], here {(n_queries, n_items)}, "
            f"got {matrix.shape}"
        )
    if matrix.dtype.kind == "f" and np.isnan(matrix).any():
        raise ValueError("distances must not hold NaN")
    return matrix


def _as_ties(ties: str) -> str:
    if ties not in ("expected", "id"):
        raise ValueError(f'ties must be "expected" or "id", got {ties!r}')
    return ties


def _as_denominator(denominator: Any) -> Any:
    if denominator not in ("hits", "min(k, relevant)"):
        raise ValueError(f'denominator must be "hits" or "min(k, relevant)", got {denominator!r}')
    return denominator


def as_labels_of(
    database: Any, query: Any, n_items: int, n_queries: int
) -> tuple[NumberedLabels, NumberedLabels]:
    """Check the labels of database and queries, and number their classes alike.

    Parameters
    ----------
    database, query
        Labels, as in `precision_at`.
    n_items, n_queries : int
        How many there must be.

    Returns
    -------
    tuple of arrays
        Class ids, or float32 indicators of several labels.

    Raises
    ------
    TypeError, ValueError
        If they are malformed, hide a label, or differ in kind.

    Examples
    --------
    >>> as_labels_of(["ant", "bee"], ["bee"], 2, 1)
    (array([0, 1]), array([1]))
    """
    names = ("database_labels", "query_labels")
    numbered, _ = number_labels(database, query, names=names)
    for labels, name, n in zip(numbered, names, (n_items, n_queries), strict=True):
        if len(labels) != n:
            raise ValueError(f"{name} has {len(labels)} rows for {n} items")
        n_unlabelled = n - int(is_labelled(labels).sum())
        if n_unlabelled:
            raise ValueError(
                f"{name} has {n_unlabelled} unlabelled of {n} items (-1, None or NaN): a metric "
                "needs all labels; hand in the labelled items alone"
            )
    labels, queries = (x.astype(np.float32) if x.ndim == 2 else x for x in numbered)
    return labels, queries
