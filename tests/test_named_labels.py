"""Labels by name become class ids that agree between files."""

import numpy as np
import pytest

from ssbhash.data.named_labels import encode_labels


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
        ([True], TypeError),
        (np.array([0.5]), ValueError),
        (np.array(["a"]), ValueError),
        (np.zeros((1, 1, 1)), ValueError),
    ],
)
def test_bad_labels(label: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="label"):
        encode_labels(label)


def test_matrix_and_names_do_not_mix() -> None:
    with pytest.raises(ValueError, match="indicator matrix cannot"):
        encode_labels(np.zeros((2, 3)), ["a", "b"])
