"""Neighbours part by part: the parts together are what one call returns."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ssbhash
from ssbhash import chunks

common = settings(
    deadline=None,
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def codes_of(seed: int, n: int) -> np.ndarray:
    """Few distinct values: the numbers of neighbours differ much."""
    return np.random.default_rng(seed).choice([0, 1, 3, 255], (n, 3)).astype(np.uint8)


def joined(parts: Iterator[Any], chunk_size: int) -> tuple[np.ndarray, ...]:
    """Join parts of `within_chunks`, after a look at their sizes."""
    counts, distances, ids = ([np.zeros(0, np.int64)] for _ in range(3))
    for part in parts:
        assert len(part.ids) <= chunk_size or len(part.lims) == 2
        counts.append(np.diff(part.lims))
        distances.append(part.distances)
        ids.append(part.ids)
    lims = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    return lims, np.concatenate(distances), np.concatenate(ids)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "BLOCK_QUERIES", 16)


@common
@given(
    seed=st.integers(0, 10_000),
    n=st.sampled_from([0, 1, 60, 700]),
    n_queries=st.sampled_from([0, 1, 15, 40]),
    chunk_size=st.sampled_from([1, 7, 100, 10_000]),
    share=st.sampled_from([None, 0.1, 0.9]),
    one_radius=st.booleans(),
    is_prepared=st.booleans(),
)
def test_parts_of_within_are_the_whole(
    backend: str,
    seed: int,
    n: int,
    n_queries: int,
    chunk_size: int,
    share: float | None,
    one_radius: bool,
    is_prepared: bool,
) -> None:
    codes, queries = codes_of(seed, n), codes_of(seed + 1, n_queries)
    rng = np.random.default_rng(seed)
    radii = 9 if one_radius else rng.integers(0, 25, n_queries)
    mask = None if share is None else rng.random(n) < share
    database = ssbhash.prepare(codes, backend=backend) if is_prepared else codes
    options: dict[str, Any] = {"mask": mask, "backend": backend, "n_threads": 2}
    whole = ssbhash.within(database, queries, radii, **options)
    parts = ssbhash.within_chunks(database, queries, radii, chunk_size, **options)
    for a, b in zip(joined(parts, chunk_size), whole, strict=True):
        np.testing.assert_array_equal(a, b)


@common
@given(
    seed=st.integers(0, 10_000),
    n=st.sampled_from([0, 1, 2, 17, 120]),
    radius=st.integers(0, 25),
    chunk_size=st.sampled_from([1, 7, 100, 10_000]),
)
def test_parts_of_pairs_within_are_the_whole(
    backend: str, seed: int, n: int, radius: int, chunk_size: int
) -> None:
    codes = codes_of(seed, n)
    whole = ssbhash.pairs_within(codes, radius, backend=backend)
    parts = list(ssbhash.pairs_within_chunks(codes, radius, chunk_size, backend=backend))
    for part in parts:
        assert 0 < len(part.first) <= chunk_size or len(set(part.first.tolist())) == 1
    for name, expected in whole._asdict().items():
        found = np.concatenate([expected[:0], *(getattr(part, name) for part in parts)])
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype


def test_forms_of_codes_and_queries(backend: str) -> None:
    codes = codes_of(0, 50)
    prepared = ssbhash.prepare(codes, backend=backend)
    one = list(ssbhash.within_chunks(codes, codes[3], 2**70, backend=backend))
    assert [part.lims.tolist() for part in one] == [[0, 50]]
    found = joined(ssbhash.within_chunks(prepared, prepared, 4, 60, backend=backend), 60)
    np.testing.assert_array_equal(found[2], ssbhash.within(codes, codes, 4).ids)
    torch = pytest.importorskip("torch")
    part = next(ssbhash.within_chunks(codes, torch.from_numpy(codes), 4, backend=backend))
    assert isinstance(part.ids, torch.Tensor)
    pairs = next(ssbhash.pairs_within_chunks(torch.from_numpy(codes), 4, backend=backend))
    assert isinstance(pairs.first, torch.Tensor)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((codes_of(0, 3), 1, 0), {}, "chunk_size must be at least 1"),
        ((codes_of(0, 3), -1), {}, "radius"),
        ((codes_of(0, 3), [1, 2]), {}, r"radius must be one integer or \[3\], got \[2\]"),
        ((codes_of(0, 3)[:, :2], 1), {}, "query has 2 bytes"),
        ((codes_of(0, 3), 1), {"mask": np.ones(4, bool)}, "mask must be"),
        ((codes_of(0, 3), 1), {"backend": "none"}, "backend must be"),
    ],
)
def test_bad_arguments_are_told_at_the_call(
    arguments: tuple[Any, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ssbhash.within_chunks(codes_of(0, 9), *arguments, **options)


def test_bad_arguments_of_pairs_are_told_at_the_call() -> None:
    with pytest.raises(ValueError, match="chunk_size"):
        ssbhash.pairs_within_chunks(codes_of(0, 9), 1, 0)
    with pytest.raises(ValueError, match="radius"):
        ssbhash.pairs_within_chunks(codes_of(0, 9), -1)
    with pytest.raises(TypeError, match="codes"):
        ssbhash.pairs_within_chunks(np.zeros((3, 2)), 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "call",
    ["within_chunks(codes, codes[:100], 8, 200_000)", "pairs_within_chunks(few, 8, 200_000)"],
)
def test_memory_is_that_of_a_part(call: str) -> None:
    """In a process of its own, whose peak is read; the results together take 120 MB and more."""
    if "native" not in ssbhash.backends():
        pytest.skip("the native engine's own")
    program = f"""
import resource, numpy as np, ssbhash
codes = np.random.default_rng(0).integers(0, 2, (100_000, 1), dtype=np.uint8)
few = codes[:4500]
next(ssbhash.within_chunks(codes, codes[:2], 1)); next(ssbhash.pairs_within_chunks(few[:9], 1))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
n_bytes = sum(sum(part.nbytes for part in found) for found in ssbhash.{call})
print(n_bytes, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    n_bytes, n_more_kilobytes = map(int, done.stdout.split())
    assert n_bytes > 110_000_000
    assert n_more_kilobytes < 30_000
