"""Retrieval metrics: against scikit-learn without ties, against all orders with ties."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ssbhash
from ssbhash import metrics

DENOMINATORS = ("hits", "min(k, relevant)")


def orders(distances, relevant):
    """All relevance sequences that sorting by distance may give."""
    groups = [np.flatnonzero(distances == d) for d in np.unique(distances)]
    for parts in itertools.product(*(itertools.permutations(group) for group in groups)):
        yield relevant[np.concatenate(parts)]


def average_precision(ranked, k, denominator):
    hits = ranked[:k].sum()
    total = {"hits": hits, "min(k, relevant)": min(k, ranked.sum())}[denominator]
    if total == 0:
        return 0.0
    precision = np.cumsum(ranked) / np.arange(1, len(ranked) + 1)
    return (precision * ranked)[:k].sum() / total


def by_enumeration(distances, relevant, k):
    """Mean of P@k, R@k and AP@k (both denominators) over all orders of the ties."""
    rows = [
        [
            ranked[:k].mean(),
            ranked[:k].sum() / max(ranked.sum(), 1),
            *(average_precision(ranked, k, denominator) for denominator in DENOMINATORS),
        ]
        for ranked in orders(distances, relevant)
    ]
    return np.mean(rows, axis=0)


def all_metrics(*data, **keywords):
    return [
        metrics.precision_at(*data, **keywords),
        metrics.recall_at(*data, **keywords),
        *(metrics.average_precision_at(*data, denominator=d, **keywords) for d in DENOMINATORS),
    ]


def unary(distances, n_bits):
    """Codes at the given distances from the zero code."""
    return ssbhash.pack(np.arange(n_bits) < np.asarray(distances)[:, None])


tied_ranking = st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=6)


@settings(deadline=None, max_examples=60)
@given(items=tied_ranking, k=st.integers(1, 8))
def test_expectation_is_the_mean_over_all_orders(items, k):
    distances, relevant = (np.array(column) for column in zip(*items, strict=True))
    data = unary(distances, 3), relevant.astype(int), unary([0], 3), [1]
    expected = by_enumeration(distances, relevant, k)
    np.testing.assert_allclose(all_metrics(*data, k=k, n_bits=3), expected, atol=1e-12)


def test_one_large_tie_cut_at_every_k(backend):
    relevant = np.array([0, 1, 1, 0, 0, 1, 0])
    data = unary([4] * 7, 4), relevant, unary([0], 4), [1]
    expected = [by_enumeration(np.full(7, 4), relevant, k) for k in range(1, 8)]
    got = np.transpose(all_metrics(*data, k=range(1, 8), backend=backend))
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_id_order_is_the_ranking_of_search(backend):
    rng = np.random.default_rng(0)
    codes, labels = ssbhash.pack(rng.random((50, 5)) < 0.5), rng.integers(0, 3, 50)
    queries, query_labels = ssbhash.pack(rng.random((9, 5)) < 0.5), rng.integers(0, 3, 9)
    ids = ssbhash.search(codes, queries, 50).ids
    ranked = labels[ids] == query_labels[:, None]
    for k in (1, 7, 50):
        rows = [
            [
                r[:k].mean(),
                r[:k].sum() / r.sum(),
                *(average_precision(r, k, d) for d in DENOMINATORS),
            ]
            for r in ranked
        ]
        data = codes, labels, queries, query_labels
        got = all_metrics(*data, k=k, ties="id", per_query=True, backend=backend)
        np.testing.assert_allclose(np.transpose(got), rows, atol=1e-12)


def test_agrees_with_sklearn_without_ties(backend):
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    n = 200
    distances, labels = rng.permutation(n), rng.integers(0, 4, n)
    data = unary(distances, n), labels, unary([0], n), [2]
    expected = sklearn_metrics.average_precision_score(labels == 2, -distances)
    for ties, denominator in itertools.product(("expected", "id"), DENOMINATORS):
        keywords = {"ties": ties, "denominator": denominator, "backend": backend}
        got = metrics.average_precision_at(*data, k=n, **keywords)
        assert got == pytest.approx(expected, abs=1e-12)


def test_long_ties_agree_with_sampled_orders():
    """Sizes beyond enumeration: the hypergeometric sum against 4,000 random orders."""
    rng = np.random.default_rng(2)
    distances, relevant = rng.integers(0, 2, 400), rng.random(400) < 0.3
    data = unary(distances, 1), relevant.astype(int), unary([0], 1), [1]
    ranked = [relevant[np.lexsort((rng.random(400), distances))] for _ in range(4000)]
    for k, denominator in itertools.product((20, 300), DENOMINATORS):
        sampled = np.array([average_precision(r, k, denominator) for r in ranked])
        got = metrics.average_precision_at(*data, k=k, denominator=denominator)
        assert abs(got - sampled.mean()) < 5 * sampled.std() / np.sqrt(len(sampled))


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 1000), n=st.integers(1, 40), n_bits=st.integers(1, 70), k=st.integers(1, 50)
)
def test_engines_and_chunks_agree(seed, n, n_bits, k):
    rng = np.random.default_rng(seed)
    data = (
        ssbhash.pack(rng.random((n, n_bits)) < 0.5),
        rng.random((n, 3)) < 0.4,
        ssbhash.pack(rng.random((4, n_bits)) < 0.5),
        rng.random((4, 3)) < 0.4,
    )
    keywords = {"k": k, "per_query": True, "n_bits": n_bits}
    expected = all_metrics(*data, backend="reference", **keywords)
    for backend in ssbhash.backends():
        np.testing.assert_array_equal(all_metrics(*data, backend=backend, **keywords), expected)
    for n_pairs in (1, 3 * n):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("ssbhash.tie_groups._PAIRS_PER_CHUNK", n_pairs)
            got = all_metrics(*data, **keywords)
        np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_indicator_labels_are_relevant_when_one_is_shared():
    codes = unary([0, 1, 2], 2)
    labels = np.array([[1, 1, 0], [0, 0, 1], [0, 1, 1]])
    query = codes[:1], np.array([[0, 1, 0]])
    assert metrics.precision_at(codes, labels, *query, k=[1, 2, 3]).tolist() == [1, 0.5, 2 / 3]
    one_hot = np.eye(3, dtype=int)[[0, 1, 1]]
    got = metrics.evaluate(codes, one_hot, codes, one_hot, k=2)
    assert got == metrics.evaluate(codes, [0, 1, 1], codes, [0, 1, 1], k=2)


def test_several_k_equal_single_ones_and_k_beyond_n_counts_as_n():
    rng = np.random.default_rng(3)
    codes, labels = ssbhash.pack(rng.random((30, 6)) < 0.5), rng.integers(0, 2, 30)
    data = codes, labels, codes[:5], labels[:5]
    together = np.transpose(all_metrics(*data, k=[3, 30, 99]))
    for row, k in zip(together, (3, 30, 30), strict=True):
        np.testing.assert_array_equal(row, all_metrics(*data, k=k))
    evaluated = metrics.evaluate(*data, k=[3, 30])
    assert list(evaluated) == ["P@3", "R@3", "MAP@3", "P@30", "R@30", "MAP@30"]
    assert list(evaluated.values())[:3] == all_metrics(*data, k=3)[:3]


def test_query_without_a_relevant_item_scores_zero():
    codes = unary([0, 1], 2)
    for ties in ("expected", "id"):
        assert all_metrics(codes, [0, 0], codes[:1], [7], k=2, ties=ties) == [0, 0, 0, 0]


def test_precision_recall_by_radius(backend):
    rng = np.random.default_rng(4)
    codes, labels = ssbhash.pack(rng.random((60, 9)) < 0.5), rng.integers(0, 3, 60)
    queries, query_labels = ssbhash.pack(rng.random((7, 9)) < 0.5), rng.integers(0, 4, 7)
    data = codes, labels, queries, query_labels
    curve = metrics.precision_recall_by_radius(*data, n_bits=9, backend=backend)
    near = ssbhash.distances(codes, queries) <= np.arange(10)[:, None, None]
    relevant = query_labels[:, None] == labels
    hits, found = (near & relevant).sum(2), near.sum(2)
    np.testing.assert_array_equal(curve.radius, np.arange(10))
    np.testing.assert_allclose(curve.precision, (hits / np.maximum(found, 1)).mean(1))
    np.testing.assert_allclose(curve.recall, (hits / np.maximum(relevant.sum(1), 1)).mean(1))
    np.testing.assert_allclose(curve.n_retrieved, found.mean(1))


@pytest.mark.parametrize("ties", ["expected", "id"])
def test_distances_of_any_kind_rank_as_codes_do(ties):
    rng = np.random.default_rng(5)
    codes, labels = ssbhash.pack(rng.random((40, 4)) < 0.5), rng.integers(0, 3, 40)
    distances = ssbhash.distances(codes, codes[:6])
    expected = metrics.evaluate(codes, labels, codes[:6], labels[:6], k=[5, 40, 60], ties=ties)
    for matrix in (distances, distances / 7 - 1):
        got = metrics.evaluate_distances(matrix, labels, labels[:6], k=[5, 40, 60], ties=ties)
        assert got == pytest.approx(expected, abs=1e-12)


CODES = ssbhash.pack(np.eye(4))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"k": 0}, ValueError, "k must be at least 1, got 0"),
        ({"k": [5, 0]}, ValueError, "k must be at least 1, got 0"),
        ({"k": []}, ValueError, "empty sequence"),
        ({"k": 2.5}, TypeError, "k must be an integer"),
        ({"ties": "random"}, ValueError, "ties must be"),
        ({"n_bits": 3}, ValueError, "padding bits"),
        ({"backend": "cobol"}, ValueError, "backend must be one of"),
        ({"database_codes": CODES[:0]}, ValueError, "database_codes is empty"),
        ({"query_codes": CODES[:0]}, ValueError, "query_codes is empty"),
        ({"database_codes": CODES.astype(float)}, TypeError, "dtype uint8"),
        ({"query_codes": np.zeros((4, 2), np.uint8)}, ValueError, "2 bytes a code"),
        ({"database_labels": [0, 1]}, ValueError, "database_labels has 2 rows for 4 items"),
        ({"query_labels": [0, 1, -1, 0]}, ValueError, "query_labels has 1 unlabelled of 4 items"),
        ({"query_labels": [0, None, np.nan, 0]}, ValueError, "query_labels has 2 unlabelled"),
        ({"query_labels": [0.5] * 4}, ValueError, "query_labels must hold whole numbers"),
        ({"query_labels": ["a"] * 4}, ValueError, "all text or all whole numbers"),
        ({"query_labels": [object()] * 4}, TypeError, "text, whole numbers or truth values"),
        ({"query_labels": np.ones((4, 2))}, ValueError, "indicators of the same labels"),
        ({"query_labels": np.full((4, 2), 2)}, ValueError, "query_labels must hold 0 and 1"),
        ({"query_labels": np.ones((4, 2, 1))}, ValueError, "shape"),
    ],
)
def test_bad_input(change, error, message):
    good = {
        "database_codes": CODES,
        "database_labels": [0, 1, 0, 1],
        "query_codes": CODES,
        "query_labels": [0, 1, 0, 1],
    }
    for function in (metrics.precision_at, metrics.recall_at, metrics.evaluate):
        with pytest.raises(error, match=message):
            function(**good | change)


def test_bad_denominator():
    with pytest.raises(ValueError, match="denominator must be"):
        metrics.average_precision_at(CODES, [0] * 4, CODES, [0] * 4, denominator="k")


@pytest.mark.parametrize(
    ("distances", "message"),
    [
        (np.zeros(4), r"shape \[n_queries, n\], here \(2, 4\), got \(4,\)"),
        (np.full((2, 4), np.nan), "NaN"),
        (np.zeros((2, 3)), r"here \(2, 4\), got \(2, 3\)"),
        (lambda part: np.zeros((9, 4)), r"here \(2, 4\), got \(9, 4\)"),
    ],
)
def test_bad_distances(distances, message):
    with pytest.raises(ValueError, match=message):
        metrics.evaluate_distances(distances, [0] * 4, [0, 1])


def test_no_items_or_queries_to_rank_by_distance():
    for labels, queries in (([], [0]), ([0], [])):
        shape = len(queries), len(labels)
        with pytest.raises((ValueError, TypeError), match=r"nothing to evaluate|integer class ids"):
            metrics.evaluate_distances(np.zeros(shape), labels, queries)


def test_distances_by_slices():
    rng = np.random.default_rng(6)
    matrix, labels = rng.random((30, 50)), rng.integers(0, 3, 50)
    whole = metrics.evaluate_distances(matrix, labels, labels[:30], k=7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ssbhash.tie_groups._PAIRS_PER_CHUNK", 200)
        parts = []
        sliced = metrics.evaluate_distances(
            lambda part: parts.append(part) or matrix[part], labels, labels[:30], k=7
        )
    assert len(parts) == 8
    assert sliced == pytest.approx(whole)


def test_metrics_need_numpy_alone():
    code = "import sys, ssbhash.metrics; print({'torch', 'scipy', 'sklearn'} & set(sys.modules))"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "set()\n"
