"""exclude, max_distance, pad, radii, counts and limits of results; merging."""

import itertools
import subprocess
import sys

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
MISSING = (np.iinfo(np.int32).max, -1)


def random_codes(seed: int, n: int, n_bytes: int) -> np.ndarray:
    """Few distinct values, so that ties and duplicates abound."""
    rng = np.random.default_rng(seed)
    return rng.choice([0, 1, 3, 255], (n, n_bytes)).astype(np.uint8)


def ranked(codes, query, allowed, limit: int) -> list[tuple[int, int]]:
    """All (distance, id), by the definition."""
    bits = np.unpackbits(codes ^ query, axis=1).sum(axis=1)
    distances = [(int(bits[i]), i) for i in range(len(codes)) if allowed(i) and bits[i] <= limit]
    return sorted(distances)


@common
@given(
    seed=st.integers(0, 10_000),
    n=st.sampled_from([0, 1, 5, 60, 700]),
    n_bytes=st.sampled_from([1, 4, 9]),
    n_queries=st.sampled_from([1, 3, 15]),
    k=st.integers(1, 40),
    limit=st.sampled_from([None, 0, 3, 9]),
    pad=st.booleans(),
    is_prepared=st.booleans(),
    data=st.data(),
)
def test_exclude_max_distance_and_pad(
    backend: str, seed, n, n_bytes, n_queries, k, limit, pad, is_prepared, data
) -> None:
    codes, queries = random_codes(seed, n, n_bytes), random_codes(seed + 1, n_queries, n_bytes)
    rng = np.random.default_rng(seed)
    share = data.draw(st.sampled_from([None, 0.05, 0.5, 0.95]))
    mask = None if share is None else rng.random(n) < share
    excluded = data.draw(st.sampled_from([None, 1, 3]))
    exclude = None if excluded is None else rng.integers(-1, n + 2, (n_queries, excluded))
    database = ssbhash.prepare(codes, backend=backend) if is_prepared else codes
    found = ssbhash.search(
        database,
        queries,
        k,
        mask=mask,
        exclude=exclude,
        max_distance=limit,
        pad=pad,
        backend=backend,
        n_threads=2,
    )
    expected = []
    for i, query in enumerate(queries):
        own = () if exclude is None else exclude[i]
        allowed = lambda j, own=own: j not in own and (mask is None or mask[j])
        expected.append(ranked(codes, query, allowed, 999 if limit is None else limit)[:k])
    width = k if pad else max(map(len, expected))
    rows = [row + [MISSING] * (width - len(row)) for row in expected]
    table = np.array(rows, np.int64).reshape(n_queries, width, 2)
    np.testing.assert_array_equal(found.distances, table[:, :, 0])
    np.testing.assert_array_equal(found.ids, table[:, :, 1])


def test_a_query_that_is_a_row_does_not_find_itself(backend: str) -> None:
    codes = np.array([[5], [5], [9]], np.uint8)
    found = ssbhash.search(codes, codes, k=2, exclude=np.arange(3), backend=backend)
    assert found.ids.tolist() == [[1, 2], [0, 2], [0, 1]]
    assert ssbhash.search(codes, codes[2], k=3, exclude=2, backend=backend).ids.tolist() == [0, 1]
    one = ssbhash.search(codes, codes[2], k=3, exclude=[2, 0], pad=True, backend=backend)
    assert one.ids.tolist() == [1, -1, -1]


@common
@given(
    seed=st.integers(0, 10_000),
    n=st.sampled_from([0, 1, 60, 900]),
    n_queries=st.sampled_from([0, 1, 15]),
    share=st.sampled_from([None, 0.1, 0.9]),
)
def test_each_query_has_its_radius(backend: str, seed, n, n_queries, share) -> None:
    codes, queries = random_codes(seed, n, 5), random_codes(seed + 1, n_queries, 5)
    rng = np.random.default_rng(seed)
    radii = rng.integers(0, 45, n_queries)
    mask = None if share is None else rng.random(n) < share
    chosen = {"mask": mask, "backend": backend, "n_threads": 2}
    lims, distances, ids = ssbhash.within(codes, queries, radii, **chosen)
    for i, query in enumerate(queries):
        row = slice(lims[i], lims[i + 1])
        expected = ranked(codes, query, lambda j: mask is None or mask[j], radii[i])
        assert [*zip(distances[row].tolist(), ids[row].tolist(), strict=True)] == expected
    counts = ssbhash.count_within(codes, queries, radii, **chosen)
    np.testing.assert_array_equal(counts, np.diff(lims))
    total = int(lims[-1])
    assert len(ssbhash.within(codes, queries, radii, max_results=total, **chosen).ids) == total
    if total:
        with pytest.raises(ValueError, match=f"there are {total} results"):
            ssbhash.within(codes, queries, radii, max_results=total - 1, **chosen)


@pytest.mark.parametrize("radius", [2**31, 2**63, 2**70])
def test_a_radius_beyond_all_distances_finds_all(backend: str, radius: int) -> None:
    codes = np.zeros((3, 1), np.uint8)
    assert len(ssbhash.within(codes, codes, radius, backend=backend).ids) == 9
    assert len(ssbhash.pairs_within(codes, radius, backend=backend).first) == 3
    assert ssbhash.count_within(codes, codes[0], radius, backend=backend) == 3
    assert ssbhash.search(codes, codes, 2, max_distance=radius, backend=backend).ids.size == 6


def test_large_results_are_scanned_twice_and_the_same(backend: str) -> None:
    """More than are kept in the first scan."""
    if backend in ("reference", "cuda"):
        pytest.skip("too slow")
    rng = np.random.default_rng(0)
    codes = random_codes(0, 30_000, 5)
    queries, radii = random_codes(1, 90, 5), rng.integers(0, 35, 90)
    expected = ssbhash.within(codes, queries, radii, backend="reference")
    assert len(expected.ids) > 1 << 20
    for database in (codes, ssbhash.prepare(codes, backend=backend)):
        for n_threads in (1, 3):
            found = ssbhash.within(database, queries, radii, backend=backend, n_threads=n_threads)
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_array_equal(a, b)
    few = codes[:3000]
    pairs = ssbhash.pairs_within(few, 19, backend=backend, n_threads=2)
    expected_pairs = ssbhash.pairs_within(few, 19, backend="reference")
    assert len(pairs.first) > 1 << 20
    for a, b in zip(pairs, expected_pairs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_too_many_pairs_are_counted_and_refused(backend: str) -> None:
    codes = np.zeros((50, 2), np.uint8)
    with pytest.raises(ValueError, match="there are 1225 results"):
        ssbhash.pairs_within(codes, 0, max_results=1224, backend=backend)
    assert len(ssbhash.pairs_within(codes, 0, max_results=1225, backend=backend).first) == 1225


@pytest.mark.slow
@pytest.mark.parametrize("call", ["within(codes, codes[:100], 8)", "pairs_within(codes[:4500], 8)"])
def test_memory_stays_near_that_of_the_result(call: str) -> None:
    """In a process of its own, whose peak is read: 1.3 times the result, and some for the scan."""
    if "native" not in ssbhash.backends():
        pytest.skip("the native engine's own")
    program = f"""
import resource, numpy as np, ssbhash
codes = np.random.default_rng(0).integers(0, 2, (100_000, 1), dtype=np.uint8)
ssbhash.within(codes, codes[:2], 1); ssbhash.pairs_within(codes[:9], 1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
found = ssbhash.{call}
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
print(peak / sum(part.nbytes for part in found))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 1.3


@common
@given(
    seed=st.integers(0, 10_000),
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=5),
    n_queries=st.sampled_from([0, 1, 4]),
    k=st.integers(1, 30),
    form=st.sampled_from(["offset", "ids", "padded"]),
)
def test_merged_parts_are_one_search(backend: str, seed, sizes, n_queries, k, form) -> None:
    rng = np.random.default_rng(seed)
    n = sum(sizes)
    codes, queries = random_codes(seed, n, 2), random_codes(seed + 1, n_queries, 2)
    edges = np.cumsum([0, *sizes])
    owners = rng.permutation(n) if form == "ids" else np.arange(n)
    parts = []
    for begin, end in itertools.pairwise(edges):
        ids = np.sort(owners[begin:end])  # in ascending order, as a database is searched
        found = ssbhash.search(codes[ids], queries, k, pad=form == "padded", backend=backend)
        parts.append((found, ids if form == "ids" else int(begin)))
    merged = ssbhash.merge(parts, k, backend=backend, n_threads=2)
    expected = ssbhash.search(codes, queries, k, pad=form == "padded", backend="reference")
    np.testing.assert_array_equal(merged.ids, expected.ids)
    np.testing.assert_array_equal(merged.distances, expected.distances)
    if n_queries:
        one = [(ssbhash.SearchResult(*(x[0] for x in found)), at) for found, at in parts]
        single = ssbhash.merge(one, k, backend=backend)
        np.testing.assert_array_equal(single.ids, expected.ids[0])


def test_merging_torch_results_gives_torch(backend: str) -> None:
    torch = pytest.importorskip("torch")
    codes = torch.from_numpy(random_codes(0, 20, 2))
    parts = [(ssbhash.search(codes[i : i + 10], codes[:3], 4), i) for i in (0, 10)]
    merged = ssbhash.merge(parts, 4, backend=backend)
    assert isinstance(merged.ids, torch.Tensor)
    expected = ssbhash.search(codes, codes[:3], 4, backend=backend)
    assert merged.ids.tolist() == expected.ids.tolist()


ONE = ssbhash.search(np.zeros((3, 1), np.uint8), np.zeros((2, 1), np.uint8), 2)


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        ([], ValueError, "parts must hold at least one result"),
        ([(ONE, [1])], ValueError, r"parts\[0\] has id 1, but there are 1 ids for it"),
        ([(ONE, -1)], ValueError, r"the offset of parts\[0\] must be at least 0"),
        ([(ONE, 0), ((ONE[0][0], ONE[1][0]), 3)], ValueError, "for the same queries"),
        ([((ONE[0], ONE[1][:, :1]), 0)], ValueError, "distances and ids of one shape"),
        ([((ONE[0], ONE[1] * 0.5), 0)], TypeError, "must have integer distances and ids"),
    ],
)
def test_bad_parts_are_named(parts, error, message: str) -> None:
    with pytest.raises(error, match=message):
        ssbhash.merge(parts, 2)


@common
@given(seed=st.integers(0, 10_000), n=st.integers(0, 200), n_bytes=st.sampled_from([1, 8, 33]))
def test_paired_distances_are_the_diagonal(backend: str, seed, n, n_bytes) -> None:
    first, second = random_codes(seed, n, n_bytes), random_codes(seed + 1, n, n_bytes)
    found = ssbhash.paired_distances(first, second, backend=backend)
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, np.unpackbits(first ^ second, axis=1).sum(axis=1))


CODES = np.zeros((4, 2), np.uint8)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ssbhash.search(CODES, CODES, exclude=[1]), ValueError, r"shape \[4\] or \[4, n"),
        (lambda: ssbhash.search(CODES, CODES, exclude=[0.5] * 4), TypeError, "exclude must hold"),
        (lambda: ssbhash.search(CODES, CODES, max_distance=-1), ValueError, "max_distance must be"),
        (
            lambda: ssbhash.within(CODES, CODES, [1, 2]),
            ValueError,
            r"or have shape \[4\], got \[2\]",
        ),
        (lambda: ssbhash.within(CODES, CODES, [1, 2, 3, -1]), ValueError, "at least 0, got -1"),
        (lambda: ssbhash.within(CODES, CODES, 0.5), TypeError, "radius must be an integer"),
        (lambda: ssbhash.within(CODES, CODES, 1, max_results=-1), ValueError, "max_results must"),
        (lambda: ssbhash.paired_distances(CODES, CODES[:2]), ValueError, "must have one shape"),
    ],
)
def test_bad_options_are_named(call, error, message: str) -> None:
    with pytest.raises(error, match=message):
        call()
