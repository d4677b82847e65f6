"""Expected Hamming distances: against the sum over bits, and as a ranking."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ssbhash
from ssbhash import asymmetric
from ssbhash.asymmetric import UNITS_PER_BIT, expected_distances, search_asymmetric


def sums(bits, logits):
    """The definition, in whole numbers."""
    ones = np.rint(UNITS_PER_BIT / (1 + np.exp(-logits))).astype(np.int64)
    agree = np.where(bits[None], UNITS_PER_BIT - ones[:, None], ones[:, None])
    return agree.sum(axis=2)


def problem(seed, n, n_queries, n_bits, spread=3.0):
    rng = np.random.default_rng(seed)
    bits = rng.random((n, n_bits)) < 0.5
    # Few values, so that distances tie.
    return bits, np.round(rng.normal(0, spread, (n_queries, n_bits)))


sizes = {
    "seed": st.integers(0, 99),
    "n": st.integers(0, 60),
    "n_queries": st.integers(0, 4),
    "n_bits": st.integers(1, 70),
}


@settings(deadline=None, max_examples=60)
@given(**sizes, k=st.integers(1, 70), block=st.sampled_from([1, 64, 1 << 22]))
def test_ranks_by_distance_then_id(seed, n, n_queries, n_bits, k, block):
    bits, logits = problem(seed, n, n_queries, n_bits)
    codes = ssbhash.pack(bits)
    expected = sums(bits, logits)
    order = np.argsort(expected, axis=1, kind="stable")[:, :k]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asymmetric, "_BLOCK", block)
        np.testing.assert_array_equal(expected_distances(codes, logits), expected)
        distances, ids = search_asymmetric(codes, logits, k)
    assert distances.dtype == np.int32
    assert ids.dtype == np.int64
    np.testing.assert_array_equal(ids, order)
    np.testing.assert_array_equal(distances, np.take_along_axis(expected, order, axis=1))


@settings(deadline=None, max_examples=30)
@given(**sizes, k=st.integers(1, 8), more=st.integers(0, 70))
def test_candidates_are_the_nearest_by_hamming_distance(seed, n, n_queries, n_bits, k, more):
    bits, logits = problem(seed, n, n_queries, n_bits)
    codes = ssbhash.pack(bits)
    near = ssbhash.search(codes, ssbhash.binarize(logits), k + more).ids
    expected = sums(bits, logits)
    for backend in ssbhash.backends():
        found = search_asymmetric(codes, logits, k, n_candidates=k + more, backend=backend)
        for row, ids in enumerate(near):
            best = sorted((expected[row, i], i) for i in ids.tolist())[:k]
            assert list(zip(*(part[row].tolist() for part in found), strict=True)) == best


def test_all_as_candidates_is_the_whole_search():
    bits, logits = problem(0, 300, 5, 16)
    codes = ssbhash.pack(bits)
    whole = search_asymmetric(codes, logits, 20)
    for found in (
        search_asymmetric(codes, logits, 20, n_candidates=300),
        search_asymmetric(codes, logits, 20, n_candidates=10_000),
    ):
        np.testing.assert_array_equal(found.ids, whole.ids)
        np.testing.assert_array_equal(found.distances, whole.distances)


def test_sure_queries_have_the_hamming_distance():
    bits, logits = problem(1, 100, 3, 33)
    codes, sure = ssbhash.pack(bits), np.where(logits > 0, 90.0, -90.0)
    hamming = ssbhash.distances(codes, ssbhash.binarize(sure))
    np.testing.assert_array_equal(expected_distances(codes, sure), UNITS_PER_BIT * hamming)


def test_many_bits_stay_exact():
    """Beyond 2^16 bits sums no longer fit float32."""
    bits, logits = problem(2, 3, 2, 70_000)
    np.testing.assert_array_equal(
        expected_distances(ssbhash.pack(bits), logits), sums(bits, logits)
    )


def test_one_query_gives_one_dimension():
    bits, logits = problem(3, 10, 1, 9)
    codes = ssbhash.pack(bits)
    assert expected_distances(codes, logits[0]).shape == (10,)
    for n_candidates in (None, 5):
        found = search_asymmetric(codes, logits[0], 4, n_candidates=n_candidates)
        assert [part.shape for part in found] == [(4,), (4,)]


def test_torch_logits_give_torch_results():
    torch = pytest.importorskip("torch")
    bits, logits = problem(4, 10, 2, 9)
    codes = ssbhash.pack(bits)
    expected = search_asymmetric(codes, logits, 3)
    for dtype in (torch.float32, torch.bfloat16):
        found = search_asymmetric(codes, torch.from_numpy(logits).to(dtype), 3)
        assert isinstance(found.ids, torch.Tensor)
        np.testing.assert_array_equal(found.ids.numpy(), expected.ids)
        assert isinstance(expected_distances(codes, torch.from_numpy(logits)), torch.Tensor)


CODES = ssbhash.pack(np.eye(4))


@pytest.mark.parametrize(
    ("codes", "logits", "more", "error", "message"),
    [
        (CODES, np.zeros((2, 9)), {}, ValueError, "does not fit n_bits=9"),
        (CODES | 16, np.zeros((2, 4)), {}, ValueError, "padding bits"),
        (CODES, np.full((2, 4), np.nan), {}, ValueError, "row 0"),
        (CODES, np.zeros((2, 2, 4)), {}, ValueError, "shape"),
        (CODES.astype(float), np.zeros((2, 4)), {}, TypeError, "uint8"),
        (CODES, np.zeros((2, 4)), {"k": 0}, ValueError, "k must be at least 1"),
        (CODES, np.zeros((2, 4)), {"n_candidates": 2}, ValueError, "n_candidates must be at least"),
        (CODES, np.zeros((2, 4)), {"n_candidates": 4, "backend": "x"}, ValueError, "backend"),
    ],
)
def test_bad_input(codes, logits, more, error, message):
    with pytest.raises(error, match=message):
        search_asymmetric(codes, logits, **{"k": 3} | more)


def test_needs_numpy_alone():
    code = "import sys, ssbhash.asymmetric; print({'torch', 'scipy', 'sklearn'} & set(sys.modules))"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "set()\n"


def test_one_query_of_another_library_gives_one_row():
    class Exporter:
        def __init__(self, array):
            self.__dlpack__, self.__dlpack_device__ = array.__dlpack__, array.__dlpack_device__

    bits, logits = problem(1, 5, 1, 9)
    codes = ssbhash.pack(bits)
    found = expected_distances(codes, Exporter(logits[0]))
    assert np.array_equal(found, expected_distances(codes, logits[0]))
    assert search_asymmetric(codes, Exporter(logits[0]), 2).ids.shape == (2,)
    assert ssbhash.binarize(Exporter(logits[0])).shape == (2,)
