"""What codes keep of the items: against plain loops, and on cases that tell by hand."""

import itertools

import numpy as np
import pytest

import ssbhash
from ssbhash.item_metrics import code_figures, neighbour_figures

RNG = np.random.default_rng(0)
ITEMS = RNG.standard_normal((40, 6)).astype(np.float32)
QUERIES = RNG.standard_normal((9, 6)).astype(np.float32)
LABELS, QUERY_LABELS = RNG.integers(0, 3, 40), RNG.integers(0, 3, 9)
CODES, QUERY_CODES = ssbhash.pack(ITEMS[:, :4] > 0), ssbhash.pack(QUERIES[:, :4] > 0)


def test_items_of_one_code_come_in_the_order_of_their_classes():
    codes = np.zeros((6, 1), np.uint8)
    found = code_figures(codes, [1, 1, 1, 0, 0, 0], codes[:2], [0, 1], k=3, depth=2)
    assert found == {"P@3 by class": 0.5, "distinct": 1 / 6, "tied@2": 6.0}
    indicator = np.array([[0, 1]] * 3 + [[1, 0]] * 3)
    assert code_figures(codes, indicator, codes[:2], indicator[2:4], k=3, depth=2) == found


def test_code_figures_of_plain_loops(backend):
    order = np.argsort(LABELS, kind="stable")
    distances = ssbhash.distances(CODES, QUERY_CODES)
    hits, tied = [], []
    for row, label in zip(distances, QUERY_LABELS, strict=True):
        ranked = sorted(range(40), key=lambda place: (row[order[place]], place))
        hits.append(np.mean(LABELS[order[ranked[:10]]] == label))
        tied.append(np.sum(row == np.sort(row)[14]))
    found = code_figures(
        CODES, LABELS, QUERY_CODES, QUERY_LABELS, depth=15, n_bits=4, backend=backend
    )
    assert found["P@10 by class"] == pytest.approx(np.mean(hits))
    assert found["distinct"] == len({bytes(code) for code in CODES}) / 40
    assert found["tied@15"] == np.mean(tied)


def test_neighbours_are_expected_over_all_orders_of_the_ties():
    items = np.array([[1, 0.0], [1, 0.1], [1, 0.2], [1, 3], [0, 1]])
    codes = ssbhash.pack(np.array([[0], [0], [0], [0], [1]]))
    found = neighbour_figures(codes, items, codes[:1], items[:1], k=2, depth=3)
    drawn = [len({0, 1} & set(first)) / 2 for first in itertools.combinations(range(4), 3)]
    assert found == {"neighbours@3": pytest.approx(np.mean(drawn))}


@pytest.mark.parametrize("is_sparse", [False, True])
def test_neighbour_figures_of_plain_loops(is_sparse, backend):
    form = pytest.importorskip("scipy.sparse").csr_matrix if is_sparse else np.asarray
    cosine = (QUERIES @ ITEMS.T) / np.linalg.norm(ITEMS, axis=1)
    distances = ssbhash.distances(CODES, QUERY_CODES)
    reranked, exact = [], []
    for row, near, label in zip(distances, cosine, QUERY_LABELS, strict=True):
        kept = np.flatnonzero(row <= np.sort(row)[9])
        best = kept[np.argsort(-near[kept])[:5]]
        reranked.append(np.mean(LABELS[best] == label))
        exact.append(np.mean(LABELS[np.argsort(-near)[:5]] == label))
    sides = CODES, form(ITEMS), QUERY_CODES, form(QUERIES)
    found = neighbour_figures(
        *sides, (LABELS, QUERY_LABELS), k=5, depth=10, n_bits=4, backend=backend
    )
    assert found["P@5 re-ranked"] == pytest.approx(np.mean(reranked))
    assert found["P@5 cosine"] == pytest.approx(np.mean(exact))
    assert 0 < found["neighbours@10"] < 1
    everything = neighbour_figures(*sides, k=5, depth=1000)
    assert everything == {"neighbours@40": 1.0}


def test_malformed_input_is_named():
    with pytest.raises(ValueError, match="database_items has 39 rows for 40 codes"):
        neighbour_figures(CODES, ITEMS[:39], QUERY_CODES, QUERIES)
    with pytest.raises(ValueError, match="query_labels has 1 rows"):
        neighbour_figures(CODES, ITEMS, QUERY_CODES, QUERIES, (LABELS, [0]))
    with pytest.raises(ValueError, match="unlabelled"):
        code_figures(CODES, LABELS - 1, QUERY_CODES, QUERY_LABELS)
