"""Labels by name become class ids that agree between files."""

import numpy as np
import pytest

from ssbhash.data.named_labels import encode_labels, hide_labels


def test_names_agree_between_files() -> None:
    (first, second), classes = encode_labels(["b", None, "a"], ["c", "a"])
    assert classes == ["a", "b", "c"]
    assert first.tolist() == [1, -1, 0]
    assert second.tolist() == [2, 0]
    assert first.dtype == np.int64


def test_numbers_by_name_may_have_gaps() -> None:
    (ids,), classes = encode_labels([30, 10, -1])
    assert ids.tolist() == [1, 0, -1]
    assert classes == [10, 30]


def test_lists_make_indicators() -> None:
    (first, second), classes = encode_labels([["a", "b"], [], None], ["b"])
    assert classes == ["a", "b"]
    assert first.tolist() == [[1, 1], [0, 0], [-1, -1]]
    assert second.tolist() == [[0, 1]]


def test_arrays_pass_and_mix_with_lists() -> None:
    (same,), classes = encode_labels(np.array([2, -1, 7]))
    assert same.tolist() == [2, -1, 7]
    assert classes == []
    (first, second), classes = encode_labels(np.array([7, -1, 2]), [2, 7])
    assert first.tolist() == [1, -1, 0]
    assert second.tolist() == [0, 1]
    assert classes == [2, 7]
    (matrix,), _ = encode_labels(np.array([[0.0, 1.0], [-1.0, -1.0]]))
    assert matrix.dtype == np.int8


@pytest.mark.parametrize(
    ("label", "error"),
    [
        ([["a"], "b", 5], ValueError),
        ([1.5], TypeError),
        ([["a", None]], TypeError),
        (np.array([0.5]), ValueError),
        (np.array([np.inf]), ValueError),
        (np.zeros((1, 1, 1)), ValueError),
    ],
)
def test_bad_labels(label: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="label"):
        encode_labels(label)


def test_matrix_and_names_do_not_mix() -> None:
    with pytest.raises(ValueError, match="indicator matrix cannot"):
        encode_labels(np.zeros((2, 3)), ["a", "b"])


def test_labels_as_people_have_them() -> None:
    (ids,), classes = encode_labels([1.0, 0.0, None, float("nan")])
    assert (ids.tolist(), classes) == ([1, 0, -1, -1], [0, 1])
    (ids,), classes = encode_labels([True, False, None])
    assert (ids.tolist(), classes) == ([1, 0, -1], [False, True])
    (ids,), classes = encode_labels(["1", "0", "-1", ""])
    assert (ids.tolist(), classes) == ([1, 0, -1, -1], ["0", "1"])
    (ids,), classes = encode_labels(np.array(["ant", "bee", "ant"]))
    assert (ids.tolist(), classes) == ([0, 1, 0], ["ant", "bee"])
    (ids,), classes = encode_labels(np.array(["ant", None, -1], object))
    assert (ids.tolist(), classes) == ([0, -1, -1], ["ant"])
    (ids,), classes = encode_labels(np.array([3.0, np.nan]))
    assert (ids.tolist(), classes) == ([3, -1], [])


def test_missing_labels_of_pandas_are_unlabelled() -> None:
    pandas = pytest.importorskip("pandas")
    for series in (
        pandas.Series(["b", None, "a"], dtype="string"),
        pandas.Series(["b", None, "a"], dtype="category"),
    ):
        (ids,), classes = encode_labels(series)
        assert (ids.tolist(), classes) == ([1, -1, 0], ["a", "b"])
    (ids,), classes = encode_labels(pandas.Series([5, None, 2], dtype="Int64"))
    assert (ids.tolist(), classes) == ([1, -1, 0], [2, 5])


def test_supervision_counts_labels_not_items() -> None:
    labels = np.full(10_000, -1)
    labels[::10] = np.arange(1000) % 2
    for share, n_kept in ((0.5, 500), (0.29, 290), (1, 1000)):
        kept = hide_labels(labels, share, seed=0)
        assert (kept >= 0).sum() == n_kept
        assert (kept[kept >= 0] == labels[kept >= 0]).all()
    few, many = (hide_labels(labels, share, seed=3) >= 0 for share in (0.1, 0.4))
    assert (few <= many).all()
    with pytest.raises(ValueError, match=r"leaves none of 1,000 labels; use at least 0\.002"):
        hide_labels(labels, 0.0001, seed=0)
    assert (hide_labels(labels, 0.002, seed=0) >= 0).sum() == 2
