"""One label means the same in `fit`, in the metrics and in files, in whatever form it comes."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssbhash.data import encode_labels, hide_labels, is_labelled, number_labels

NAMES = ["tea", "ant", "tea", "bee"]
IDS = [7, 3, 7, 30]
FLAGS = [True, False, True, False]
UNLABELLED = [None, float("nan"), np.float32("nan"), -1, np.int8(-1), -1.0, "", "-1", " -1 "]


def objects(labels: list[Any]) -> Any:
    array = np.empty(len(labels), object)
    array[:] = labels
    return array


@pytest.mark.parametrize("container", [list, tuple, objects])
@pytest.mark.parametrize("unlabelled", UNLABELLED, ids=repr)
@pytest.mark.parametrize("labels", [NAMES, IDS, FLAGS], ids=["text", "numbers", "truth values"])
def test_every_mark_of_unlabelled_in_every_kind(labels: Any, unlabelled: Any, container: Any):
    (numbers,), classes = number_labels(container([*labels, unlabelled]))
    assert classes.tolist() == sorted(set(labels))
    assert numbers.dtype == np.int64
    assert numbers.tolist() == [sorted(set(labels)).index(one) for one in labels] + [-1]
    assert is_labelled(numbers).tolist() == [True] * 4 + [False]


def forms() -> dict[str, Any]:
    found = {
        "text": np.array(["b", "-1", "a"]),
        "text, empty": np.array(["b", "", "a"]),
        "float ids with a gap": np.array([4, np.nan, 2]),
        "float16": np.array([4, -1, 2], np.float16),
        "int8": np.array([4, -1, 2], np.int8),
        "big-endian": np.array([4, -1, 2], ">i4"),
        "strided": np.array([4, 9, -1, 9, 2])[::2],
        "masked": np.ma.masked_equal([4, 0, 2], 0),
        "column": np.array([[4], [-1], [2]]),
    }
    if hasattr(np.dtypes, "StringDType"):
        for missing in (None, np.nan):
            text = np.dtypes.StringDType(na_object=missing)
            found[f"StringDType, {missing}"] = np.array(["b", missing, "a"], text)
    return found


@pytest.mark.parametrize("form", forms())
def test_arrays(form: str) -> None:
    (numbers,), _ = number_labels(forms()[form])
    assert numbers.tolist() == [1, -1, 0]


def test_pandas() -> None:
    pd = pytest.importorskip("pandas")
    for column in (
        pd.Series(["b", None, "a"]),
        pd.Series(["b", pd.NA, "a"], dtype="string"),
        pd.Series(["b", None, "a"], dtype="category"),
        pd.Categorical(["b", None, "a"], categories=["z", "b", "a"]),
        pd.Series([4, None, 2], dtype="Int64"),
        pd.Series([4, None, 2]),
        pd.Series([4, None, 2], dtype="category"),
        pd.Series([True, pd.NA, False], dtype="boolean"),
        pd.Series([4, -1, 2], index=[9, 8, 7]),
        pd.DataFrame({"class": [4, None, 2]}),
    ):
        (numbers,), _ = number_labels(column)
        assert numbers.tolist() == [1, -1, 0]
    frame = pd.DataFrame({"a": [1, None, 0], "b": [0, None, 1]}, dtype="Int8")
    assert number_labels(frame)[0][0].tolist() == [[1, 0], [-1, -1], [0, 1]]


def test_pyarrow() -> None:
    pa = pytest.importorskip("pyarrow")
    for column in (pa.array(["b", None, "a"]), pa.chunked_array([[4, None], [2]])):
        assert number_labels(column)[0][0].tolist() == [1, -1, 0]


def test_torch() -> None:
    torch = pytest.importorskip("torch")
    for dtype in (torch.int64, torch.bfloat16, torch.int8):
        (numbers,), classes = number_labels(torch.tensor([4, -1, 2], dtype=dtype))
        assert numbers.tolist() == [1, -1, 0]
        assert classes.tolist() == [2, 4]
    matrix = torch.tensor([[1, 0], [0, 1]])
    for form in (matrix, matrix.to_sparse()):
        assert number_labels(form)[0][0].tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("form", ["csr_matrix", "csc_array", "coo_matrix", "lil_matrix"])
def test_sparse_indicators(form: str) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    dense = np.array([[1, 0, 1], [0, 0, 0], [-1, -1, -1], [0, 1, 0]])
    (numbers,), classes = number_labels(getattr(sparse, form)(dense))
    assert numbers.tolist() == dense.tolist()
    assert classes.tolist() == [0, 1, 2]


def test_rows_of_an_indicator_matrix_may_be_unlabelled() -> None:
    (numbers,), _ = number_labels(np.array([[1.0, 0.0], [np.nan, np.nan], [-1, -1], [0, 0]]))
    assert numbers.tolist() == [[1, 0], [-1, -1], [-1, -1], [0, 0]]
    assert is_labelled(numbers).tolist() == [True, False, False, True]
    (numbers,), _ = number_labels([[True, False], [False, True]])
    assert numbers.tolist() == [[1, 0], [0, 1]]


labels_of_one_kind = st.one_of(
    st.lists(st.integers(-1, 9), min_size=1),
    st.lists(st.sampled_from([None, "x", "yy", "", "z"]), min_size=1),
    st.lists(st.sampled_from([None, True, False]), min_size=1),
)


@given(labels_of_one_kind)
def test_numbers_and_classes_give_the_labels_back(labels: list[Any]) -> None:
    (numbers,), classes = number_labels(labels)
    assert classes.tolist() == sorted({one for one in labels if one not in (None, -1, "")})
    back = [classes[number] if number >= 0 else None for number in numbers]
    assert back == [None if one in (None, -1, "") else one for one in labels]


@given(labels_of_one_kind, st.randoms())
def test_two_parts_agree(labels: list[Any], random: Any) -> None:
    other = random.sample(labels, len(labels))
    (first, second), _ = number_labels(labels, other)
    equal = [[one == two for two in other] for one in labels]
    is_known = np.outer(first >= 0, second >= 0)
    assert np.array_equal((first[:, None] == second) & is_known, np.array(equal) & is_known)


def test_text_that_was_a_missing_value_is_taken_for_a_class_with_a_word() -> None:
    with pytest.warns(UserWarning, match="2 labels 'nan', taken for a class"):
        (numbers,), classes = number_labels(np.array(["ant", np.nan, np.nan]))
    assert classes.tolist() == ["ant", "nan"]
    assert numbers.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("label", "error", "message"),
    [
        ([["a"], "b", 5], ValueError, "all text or all whole numbers"),
        (["a", 5], ValueError, "'a' and 5"),
        ([True, 2], ValueError, "all text"),
        ([["a", None]], TypeError, "a list of labels must name classes"),
        ([1.5], ValueError, "labels must hold whole numbers as class ids, got 1.5"),
        (np.array([0.5]), ValueError, "Unknown label type"),
        (np.array([np.inf]), ValueError, "labels contains infinity"),
        ([2**70], ValueError, "beyond 64 bits"),
        (np.array([2**63], np.uint64), ValueError, "beyond 64 bits"),
        ([object()], TypeError, "object"),
        (np.array([b"a"]), TypeError, "decode"),
        (np.array(["2020-01-01"], "M8[D]"), TypeError, "datetime64"),
        ("tea", TypeError, "one for each item, got str"),
        (None, TypeError, "NoneType"),
        (7, ValueError, r"shape \(\)"),
        (np.zeros((1, 1, 1)), ValueError, "one or two dimensions"),
        (np.array([["a", "b"]]), ValueError, "indicator matrix labels must be numeric"),
        (np.array([[1, 2]]), ValueError, "row 0 is"),
        (np.array([[1, -1]]), ValueError, "row 0 is"),
        (np.array([[1, np.nan]]), ValueError, "row 0 is"),
    ],
)
def test_bad_labels(label: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        encode_labels(label)


def test_a_ragged_list_is_no_indicator_matrix() -> None:
    with pytest.raises(ValueError, match="MultiLabelBinarizer"):
        number_labels([[0, 1], [2]])


def test_names_agree_between_files() -> None:
    (first, second), classes = encode_labels(["b", None, "a"], ["c", "a"])
    assert classes == ["a", "b", "c"]
    assert first.tolist() == [1, -1, 0]
    assert second.tolist() == [2, 0]


def test_columns_of_numbers_and_truth_values_in_files() -> None:
    """What pandas writes for ids and flags with gaps."""
    (ids,), classes = encode_labels([30.0, 10.0, None, float("nan")])
    assert ids.tolist() == [1, 0, -1, -1]
    assert classes == [10, 30]
    (ids,), classes = encode_labels([True, False, None])
    assert ids.tolist() == [1, 0, -1]
    assert classes == [False, True]


def test_lists_make_indicators() -> None:
    (first, second), classes = encode_labels([["a", "b"], [], None, "-1"], ["b", "", "a"])
    assert classes == ["a", "b"]
    assert first.tolist() == [[1, 1], [0, 0], [-1, -1], [-1, -1]]
    assert second.tolist() == [[0, 1], [-1, -1], [1, 0]]


def test_arrays_of_numbers_keep_them_unless_mixed_with_lists() -> None:
    (same,), classes = encode_labels(np.array([2, -1, 7]))
    assert same.tolist() == [2, -1, 7]
    assert classes == []
    (gaps,), _ = encode_labels(np.array([2, np.nan, 7]))
    assert gaps.tolist() == [2, -1, 7]
    (first, second), classes = encode_labels(np.array([7, -1, 2]), [2, 7])
    assert first.tolist() == [1, -1, 0]
    assert second.tolist() == [0, 1]
    assert classes == [2, 7]
    (matrix,), _ = encode_labels(np.array([[0.0, 1.0], [-1.0, -1.0]]))
    assert matrix.dtype == np.int8


def test_matrix_and_names_do_not_mix() -> None:
    for names in (["a", "b"], [["a"], ["b"]]):
        with pytest.raises(ValueError, match="indicator matrix cannot"):
            encode_labels(np.zeros((2, 3)), names)
    with pytest.raises(ValueError, match="indicators of the same labels"):
        number_labels(np.zeros((2, 3)), np.zeros((2, 4)))


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
