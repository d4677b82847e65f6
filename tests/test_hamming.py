"""Search, within, distances: the contract, on every engine, against brute force and faiss."""

import hypothesis.extra.numpy as npst
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ssbhash

common = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def random_codes(rng: np.random.Generator, n: int, n_bits: int, p: float = 0.5) -> np.ndarray:
    return ssbhash.pack(rng.random((n, n_bits)) < p)


def all_distances(codes: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Brute force on unpacked bits, sharing nothing with any engine."""
    a, b = (np.unpackbits(c, axis=1).astype(np.int32) for c in (codes, queries))
    return (b[:, None, :] != a[None, :, :]).sum(axis=2)


@st.composite
def problems(draw: st.DrawFn) -> tuple[int, np.ndarray, np.ndarray]:
    """Odd widths and sizes; few distinct codes, so that ties and duplicates abound."""
    n_bits = draw(st.integers(1, 300))
    n = draw(st.one_of(st.integers(0, 40), st.integers(0, 1000)))
    n_queries = draw(st.integers(0, 20))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    p = draw(st.sampled_from([0.0, 0.05, 0.5, 0.9, 1.0]))
    codes = random_codes(rng, n, n_bits, p)
    if n and draw(st.booleans()):
        codes = codes[rng.integers(0, min(n, 7), size=n)]
    queries = random_codes(rng, n_queries, n_bits, p)
    if n and draw(st.booleans()):
        queries = codes[rng.integers(0, n, size=n_queries)] ^ (
            queries & draw(st.sampled_from([0, 1]))
        )
    return n_bits, codes, queries


@common
@given(problem=problems(), k=st.one_of(st.integers(1, 12), st.integers(1, 1100)))
def test_search_is_k_smallest_distance_id(backend: str, problem, k: int) -> None:
    n_bits, codes, queries = problem
    exact = all_distances(codes, queries)
    order = np.argsort(exact, axis=1, kind="stable")[:, :k]
    found = ssbhash.search(codes, queries, k, n_bits=n_bits, backend=backend, n_threads=2)
    assert found.ids.dtype == np.int64
    assert found.distances.dtype == np.int32
    np.testing.assert_array_equal(found.ids, order)
    np.testing.assert_array_equal(found.distances, np.take_along_axis(exact, order, axis=1))


@common
@given(problem=problems(), radius=st.integers(0, 310))
def test_within_is_all_of_the_radius(backend: str, problem, radius: int) -> None:
    n_bits, codes, queries = problem
    exact = all_distances(codes, queries)
    found = ssbhash.within(codes, queries, radius, n_bits=n_bits, backend=backend, n_threads=2)
    assert found.lims.dtype == found.ids.dtype == np.int64
    assert found.distances.dtype == np.int32
    assert found.lims[0] == 0
    assert found.lims[-1] == len(found.ids) == len(found.distances)
    for row, exact_row in enumerate(exact):
        order = np.argsort(exact_row, kind="stable")
        order = order[exact_row[order] <= radius]
        owned = slice(found.lims[row], found.lims[row + 1])
        np.testing.assert_array_equal(found.ids[owned], order)
        np.testing.assert_array_equal(found.distances[owned], exact_row[order])


@common
@given(problem=problems())
def test_distances_is_the_full_matrix(backend: str, problem) -> None:
    n_bits, codes, queries = problem
    found = ssbhash.distances(codes, queries, n_bits=n_bits, backend=backend, n_threads=2)
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, all_distances(codes, queries).reshape(found.shape))


@common
@given(problem=problems(), k=st.integers(1, 30))
def test_search_agrees_with_faiss(backend: str, problem, k: int) -> None:
    _, codes, queries = problem
    faiss = pytest.importorskip("faiss")
    index = faiss.IndexBinaryFlat(codes.shape[1] * 8)
    index.add(codes)
    k = min(k, len(codes))
    if k == 0 or len(queries) == 0:
        return
    distances, _ = index.search(queries, k)  # its ids are free to differ on ties
    found = ssbhash.search(codes, queries, k, backend=backend)
    np.testing.assert_array_equal(found.distances, distances)


@pytest.mark.parametrize("n_bits", [32, 64, 128, 256])
@pytest.mark.parametrize("case", ["equal", "all at the k-th", "opposite"])
def test_adversarial_thresholds(backend: str, n_bits: int, case: str) -> None:
    n = 2500
    codes = np.zeros((n, n_bits // 8), np.uint8)
    query = np.zeros(n_bits // 8, np.uint8)
    if case == "all at the k-th":  # one bit each: every distance is 1
        codes[np.arange(n), np.arange(n) % (n_bits // 8)] = 1 << (np.arange(n) % 8)
        codes[-3:] = 0  # and the nearest come last
    if case == "opposite":
        query[:] = 255
    exact = all_distances(codes, query[None])[0]
    for k in (1, 5, 1024, n):
        order = np.argsort(exact, kind="stable")[:k]
        found = ssbhash.search(codes, query, k, backend=backend)
        np.testing.assert_array_equal(found.ids, order)
        np.testing.assert_array_equal(found.distances, exact[order])


@pytest.mark.parametrize("n_threads", [1, 2, 3, 8])
def test_threads_do_not_change_results(backend: str, n_threads: int) -> None:
    rng = np.random.default_rng(0)
    codes = random_codes(rng, 200_000, 24)  # so short that ties abound
    for n_queries in (1, 3, 17):
        queries = random_codes(rng, n_queries, 24)
        one = ssbhash.search(codes, queries, 50, backend=backend, n_threads=1)
        many = ssbhash.search(codes, queries, 50, backend=backend, n_threads=n_threads)
        np.testing.assert_array_equal(one.ids, many.ids)
        one_range = ssbhash.within(codes, queries, 4, backend=backend, n_threads=1)
        many_range = ssbhash.within(codes, queries, 4, backend=backend, n_threads=n_threads)
        for a, b in zip(one_range, many_range, strict=True):
            np.testing.assert_array_equal(a, b)


@given(
    queries=npst.arrays(np.uint8, st.tuples(st.integers(1, 6), st.just(5))),
    mask=npst.arrays(np.uint8, 5),
)
@common
def test_flipping_the_same_bits_everywhere_changes_nothing(backend: str, queries, mask) -> None:
    codes = random_codes(np.random.default_rng(1), 300, 40)
    plain = ssbhash.search(codes, queries, 20, backend=backend)
    flipped = ssbhash.search(codes ^ mask, queries ^ mask, 20, backend=backend)
    np.testing.assert_array_equal(plain.ids, flipped.ids)


def test_smaller_k_is_a_prefix(backend: str) -> None:
    rng = np.random.default_rng(2)
    codes, queries = random_codes(rng, 3000, 20), random_codes(rng, 4, 20)
    large = ssbhash.search(codes, queries, 1500, backend=backend)
    for k in (1, 7, 100):
        small = ssbhash.search(codes, queries, k, backend=backend)
        np.testing.assert_array_equal(small.ids, large.ids[:, :k])


def test_single_query_gives_one_dimension(backend: str) -> None:
    codes = random_codes(np.random.default_rng(3), 50, 33)
    assert ssbhash.search(codes, codes[7], 4, backend=backend).ids.shape == (4,)
    assert ssbhash.search(codes, codes[7], 400, backend=backend).ids.shape == (50,)
    assert ssbhash.distances(codes, codes[7], backend=backend).shape == (50,)
    assert len(ssbhash.within(codes, codes[7], 0, backend=backend).lims) == 2


def test_empty_database_and_no_queries(backend: str) -> None:
    codes = random_codes(np.random.default_rng(4), 5, 16)
    empty = codes[:0]
    assert ssbhash.search(empty, codes, 3, backend=backend).ids.shape == (5, 0)
    assert ssbhash.search(codes, empty, 3, backend=backend).ids.shape == (0, 3)
    assert ssbhash.within(empty, codes, 3, backend=backend).lims.tolist() == [0] * 6
    assert ssbhash.within(codes, empty, 3, backend=backend).lims.tolist() == [0]
    assert ssbhash.distances(empty, codes, backend=backend).shape == (5, 0)


def test_any_array_goes_in(backend: str) -> None:
    wide = np.random.default_rng(5).integers(0, 256, (400, 16), dtype=np.uint8)
    strided = wide[::2, ::2]
    plain = np.ascontiguousarray(strided)
    expected = ssbhash.search(plain, plain[:9], 5, backend=backend)
    read_only = plain.copy()
    read_only.flags.writeable = False
    unaligned = np.frombuffer(b"x" + plain.tobytes(), np.uint8, offset=1).reshape(plain.shape)
    for codes in (strided, read_only, unaligned, np.asfortranarray(plain)):
        found = ssbhash.search(codes, plain[:9], 5, backend=backend)
        np.testing.assert_array_equal(found.ids, expected.ids)


def test_torch_goes_in_and_comes_out(backend: str) -> None:
    torch = pytest.importorskip("torch")
    plain = np.random.default_rng(5).integers(0, 256, (200, 8), dtype=np.uint8)
    expected = ssbhash.search(plain, plain[:9], 5, backend=backend)
    found = ssbhash.search(torch.from_numpy(plain), plain[:9], 5, backend=backend)
    np.testing.assert_array_equal(found.ids, expected.ids)
    found = ssbhash.search(plain, torch.from_numpy(plain[:9]), 5, backend=backend)
    assert isinstance(found.ids, torch.Tensor)
    np.testing.assert_array_equal(found.ids.numpy(), expected.ids)


@pytest.mark.parametrize("n_bytes", [4, 8, 12, 16, 17, 100, 512, 513])
def test_wide_codes(backend: str, n_bytes: int) -> None:
    rng = np.random.default_rng(n_bytes)
    codes = rng.integers(0, 256, (700, n_bytes), dtype=np.uint8)
    queries = np.vstack([codes[3], codes[5] ^ 255, rng.integers(0, 256, n_bytes, dtype=np.uint8)])
    exact = all_distances(codes, queries)
    np.testing.assert_array_equal(ssbhash.distances(codes, queries, backend=backend), exact)
    order = np.argsort(exact, axis=1, kind="stable")[:, :40]
    found = ssbhash.search(codes, queries, 40, backend=backend)
    np.testing.assert_array_equal(found.ids, order)


CODES = np.zeros((4, 2), np.uint8)
BAD = [
    ({"k": 0}, ValueError, "k must be at least 1, got 0"),
    ({"k": 2.5}, TypeError, "k must be an integer"),
    ({"query": np.zeros(3, np.uint8)}, ValueError, "query has 3 bytes a code but codes has 2"),
    ({"query": np.zeros(2, np.int64)}, TypeError, "query must be packed codes of dtype uint8"),
    ({"codes": np.zeros(4, np.uint8)}, ValueError, r"codes must have shape \[n, n_bytes\]"),
    ({"codes": CODES.astype(bool)}, TypeError, "codes must be packed codes of dtype uint8"),
    ({"n_bits": 8}, ValueError, "codes has 2 bytes a code, which does not fit n_bits=8"),
    ({"codes": CODES + 255, "n_bits": 12}, ValueError, "padding bits set beyond n_bits=12"),
    ({"n_threads": 0}, ValueError, "n_threads must be at least 1, got 0"),
    ({"backend": "gpu"}, ValueError, "backend must be one of auto, native, numba, reference"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD)
def test_bad_input_is_named(change: dict, error: type[Exception], message: str) -> None:
    arguments = {"codes": CODES, "query": CODES[0], "k": 1} | change
    with pytest.raises(error, match=message):
        ssbhash.search(**arguments)


def test_negative_radius_is_refused(backend: str) -> None:
    with pytest.raises(ValueError, match="radius must be at least 0, got -1"):
        ssbhash.within(CODES, CODES[0], -1, backend=backend)
