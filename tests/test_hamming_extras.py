"""Filters, prepared codes, pairs within a radius, sizes beyond 2^31 bytes."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ssbhash

common = settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@st.composite
def sets_of_codes(draw: st.DrawFn) -> np.ndarray:
    """Codes around a few centres, so that near pairs exist at every width."""
    n_bits = draw(st.integers(1, 200))
    n = draw(st.one_of(st.integers(0, 30), st.integers(0, 1500)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    centres = rng.random((5, n_bits)) < 0.5
    noise = rng.random((n, n_bits)) < draw(st.sampled_from([0.0, 0.02, 0.3]))
    return ssbhash.pack(centres[rng.integers(0, 5, n)] ^ noise)


@common
@given(codes=sets_of_codes(), data=st.data())
def test_filters_are_exact(backend: str, codes: np.ndarray, data: st.DataObject) -> None:
    n = len(codes)
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    mask = rng.random(n) < data.draw(st.sampled_from([0.0, 0.1, 0.9, 1.0]))
    allowed = np.flatnonzero(mask)
    queries = codes[: data.draw(st.sampled_from([1, 7, 40]))]
    plain = ssbhash.search(codes[mask], queries, 9, backend="reference")
    in_range = ssbhash.within(codes[mask], queries, 3, backend="reference")
    forms = {
        "mask": mask,
        "packed": np.packbits(mask, bitorder="little"),
        "ids": rng.permutation(np.concatenate([allowed, allowed])),
    }
    for database in (codes, ssbhash.prepare(codes, backend=backend)):
        for name, value in forms.items():
            given_as = {"ids" if name == "ids" else "mask": value}
            found = ssbhash.search(database, queries, 9, **given_as, backend=backend)
            np.testing.assert_array_equal(found.ids, allowed[plain.ids])
            np.testing.assert_array_equal(found.distances, plain.distances)
            found_range = ssbhash.within(database, queries, 3, **given_as, backend=backend)
            np.testing.assert_array_equal(found_range.ids, allowed[in_range.ids])


@common
@given(codes=sets_of_codes(), n_queries=st.sampled_from([1, 5, 40]), k=st.integers(1, 20))
def test_prepared_codes_give_the_same(backend: str, codes, n_queries: int, k: int) -> None:
    prepared = ssbhash.prepare(codes, backend=backend)
    assert len(prepared) == len(codes)
    assert prepared.nbytes <= 3 * codes.nbytes
    queries = codes[:n_queries] ^ 1
    for plain, found in (
        (ssbhash.search(codes, queries, k), ssbhash.search(prepared, queries, k, backend=backend)),
        (ssbhash.within(codes, queries, k), ssbhash.within(prepared, queries, k, backend=backend)),
    ):
        for a, b in zip(plain, found, strict=True):
            np.testing.assert_array_equal(a, b)


@st.composite
def large_clusters(draw: st.DrawFn) -> np.ndarray:
    """Enough codes to be put in an order of their own; duplicates and ties abound."""
    n_bits = draw(st.sampled_from([33, 40, 64, 100, 128, 256, 300]))
    n = draw(st.sampled_from([2048, 4096, 4097, 6000, 9999, 140_000]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_centres = draw(st.sampled_from([1, 2, 7, 40]))
    centres = rng.random((n_centres, n_bits)) < 0.5
    noise = rng.random((n, n_bits), np.float32) < draw(st.sampled_from([0.0, 0.003, 0.02, 0.1]))
    return ssbhash.pack(centres[rng.integers(0, n_centres, n)] ^ noise)


@settings(common, max_examples=25)
@given(codes=large_clusters(), data=st.data())
def test_codes_in_an_order_of_their_own_give_the_same(backend: str, codes, data) -> None:
    if backend == "cuda":
        pytest.skip("keeps the order of ids; slow under the emulator")
    n = len(codes)
    prepared = ssbhash.prepare(codes, backend=backend)
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    queries = codes[rng.integers(0, n, data.draw(st.sampled_from([1, 2, 3, 8, 40])))]
    queries = queries ^ np.uint8(data.draw(st.sampled_from([0, 1, 255])))
    n_threads = data.draw(st.sampled_from([1, 2, 3]))
    distances = ssbhash.distances(codes, queries[0], backend="reference")
    ties = int((distances == distances.min()).sum())  # k at and beside their end
    ks = [1, 10, max(1, ties - 1), ties, ties + 1, 200, *([n] if n < 5000 else [])]
    k = min(data.draw(st.sampled_from(ks)), 7000)
    kinds = {"backend": backend, "n_threads": n_threads}
    plain = ssbhash.search(codes, queries, k, backend="reference")
    found = ssbhash.search(prepared, queries, k, **kinds)
    np.testing.assert_array_equal(plain.distances, found.distances)
    np.testing.assert_array_equal(plain.ids, found.ids)
    radius = data.draw(st.sampled_from([0, 1, 5] if n > 10_000 else [0, 1, 5, 20, 300]))
    in_range = ssbhash.within(codes, queries, radius, backend="reference")
    for a, b in zip(in_range, ssbhash.within(prepared, queries, radius, **kinds), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("n", [20_000, 600_000])  # without and with the trial on a sample
def test_clustered_codes_get_an_order_and_uniform_ones_none(n: int) -> None:
    if "native" not in ssbhash.backends():
        pytest.skip("the native engine's own")
    rng = np.random.default_rng(0)
    uniform = rng.integers(0, 256, (n, 8), dtype=np.uint8)
    clustered = uniform[rng.integers(0, 40, n)].copy()
    clustered[np.arange(n), rng.integers(0, 8, n)] ^= 1
    assert ssbhash.prepare(uniform, backend="native").nbytes <= uniform.nbytes
    assert ssbhash.prepare(clustered, backend="native").nbytes > 1.4 * clustered.nbytes


@common
@given(codes=sets_of_codes(), radius=st.integers(0, 60))
def test_pairs_within_is_all_pairs(backend: str, codes: np.ndarray, radius: int) -> None:
    bits = np.unpackbits(codes, axis=1).astype(np.float32)
    inner = bits @ bits.T
    norms = np.diag(inner)
    exact = (norms[:, None] + norms[None, :] - 2 * inner).astype(np.int32)
    first, second = np.nonzero(np.triu(exact <= radius, 1))
    found = ssbhash.pairs_within(codes, radius, backend=backend, n_threads=2)
    np.testing.assert_array_equal(found.first, first)
    np.testing.assert_array_equal(found.second, second)
    np.testing.assert_array_equal(found.distances, exact[first, second])


CODES = np.arange(20, dtype=np.uint8).reshape(10, 2)


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"mask": np.ones(9, bool)}, r"mask must be bool \[10\]"),
        ({"mask": np.ones(10, np.int64)}, r"mask must be bool \[10\] or packed bits uint8 \[2\]"),
        ({"ids": [3, 10]}, r"ids must be in 0 ... 9, got 3 ... 10"),
        ({"ids": [-1]}, r"ids must be in 0 ... 9"),
        ({"ids": [0.5]}, "ids must be a list of integers"),
        ({"ids": [1], "mask": np.ones(10, bool)}, "mask or ids, not both"),
    ],
)
def test_bad_filters_are_named(filters: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ssbhash.search(CODES, CODES[0], 1, **filters)


def test_nothing_allowed_gives_nothing(backend: str) -> None:
    assert ssbhash.search(CODES, CODES, 3, ids=[], backend=backend).ids.shape == (10, 0)
    assert ssbhash.within(CODES, CODES[0], 3, ids=[], backend=backend).lims.tolist() == [0, 0]


@pytest.mark.slow
def test_sizes_beyond_two_gigabytes(tmp_path) -> None:
    """A sparse file of 2^31 + 2^20 bytes: ids and offsets beyond 32 bits of bytes."""
    if "native" not in ssbhash.backends():
        pytest.skip("too slow without the native engine")
    n_bytes, n = 64, (2**31 + 2**20) // 64
    codes = np.memmap(tmp_path / "codes.bin", np.uint8, "w+", shape=(n, n_bytes))
    codes[n - 5] = 255  # the rest is a hole of zeros
    codes[n - 3] = 255
    codes[n - 3, 0] = 254
    query = np.full(n_bytes, 255, np.uint8)
    found = ssbhash.search(codes, query, 3)
    assert found.ids.tolist() == [n - 5, n - 3, 0]
    assert found.distances.tolist() == [0, 1, 512]
    assert ssbhash.within(codes, query, 10).ids.tolist() == [n - 5, n - 3]
    many = ssbhash.search(codes, np.repeat(query[None], 12, 0), 2)  # through tables
    assert many.ids.tolist() == [[n - 5, n - 3]] * 12
