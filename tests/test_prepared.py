"""Prepared codes: copies, other processes and engines, and codes that change under them."""

import copy
import pickle
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

import ssbhash
from ssbhash.asymmetric import expected_distances, search_asymmetric
from ssbhash.engines import PreparedCodes

RNG = np.random.default_rng(0)
CENTRES = RNG.integers(0, 256, (20, 8), dtype=np.uint8)
CODES = CENTRES[RNG.integers(0, 20, 6000)].copy()
CODES[np.arange(6000), RNG.integers(0, 8, 6000)] ^= np.uint8(1) << RNG.integers(0, 8, 6000).astype(
    np.uint8
)
QUERIES = CODES[:40]


def same(found: ssbhash.SearchResult, expected: ssbhash.SearchResult) -> None:
    np.testing.assert_array_equal(found.distances, expected.distances)
    np.testing.assert_array_equal(found.ids, expected.ids)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_are_prepared_again(backend: str, clone) -> None:
    prepared = ssbhash.prepare(CODES, n_bits=64, backend=backend)
    again = clone(prepared)
    assert isinstance(again, PreparedCodes)
    assert (again.n_bits, again.engine, again.nbytes) == (64, backend, prepared.nbytes)
    assert again.codes is not CODES
    same(ssbhash.search(again, QUERIES, 9, backend=backend), ssbhash.search(CODES, QUERIES, 9))


def test_prepared_codes_go_to_a_worker_process() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        found = pool.submit(ssbhash.search, ssbhash.prepare(CODES), QUERIES, 5).result()
    same(found, ssbhash.search(CODES, QUERIES, 5))


def test_another_engine_searches_without_the_planes(backend: str) -> None:
    for other in ssbhash.backends():
        prepared = ssbhash.prepare(CODES, backend=other)
        found = ssbhash.search(prepared, QUERIES, 5, backend=backend)
        same(found, ssbhash.search(CODES, QUERIES, 5))


def test_planes_serve_on_any_instruction_set(backend: str) -> None:
    if backend != "native":
        pytest.skip("the native engine's own")
    from ssbhash.engines import native_module

    prepared = ssbhash.prepare(CODES, backend="native")
    in_use = native_module().isa()
    for isa in native_module().isas():
        native_module().set_isa(isa)
        found = ssbhash.search(prepared, QUERIES, 5, backend="native")
        native_module().set_isa(in_use)
        same(found, ssbhash.search(CODES, QUERIES, 5, backend="reference"))


@pytest.mark.parametrize("share", [0.99, 0.6, 0.2])
def test_filtered_prepared_codes_are_those_allowed_alone(backend: str, share: float) -> None:
    """Clusters: many codes that a filter refuses lie closer than those that it allows."""
    mask = np.random.default_rng(1).random(len(CODES)) < share
    mask[:40] = False  # the queries themselves
    allowed = np.flatnonzero(mask)
    prepared = ssbhash.prepare(CODES, backend=backend)
    for k in (1, 30):
        found = ssbhash.search(prepared, QUERIES, k, mask=mask, backend=backend)
        alone = ssbhash.search(CODES[allowed], QUERIES, k, backend="reference")
        same(found, ssbhash.SearchResult(alone.distances, allowed[alone.ids]))
    found = ssbhash.within(prepared, QUERIES, 2, mask=mask, backend=backend)
    alone = ssbhash.within(CODES[allowed], QUERIES, 2, backend="reference")
    np.testing.assert_array_equal(found.ids, allowed[alone.ids])


def test_queries_are_checked_against_the_bits_of_prepared_codes(backend: str) -> None:
    prepared = ssbhash.prepare(CODES & 0x0F, n_bits=60, backend=backend)
    query = np.full(8, 255, np.uint8)
    for call in (
        lambda: ssbhash.search(prepared, query, 1, backend=backend),
        lambda: ssbhash.within(prepared, query, 1, backend=backend),
        lambda: ssbhash.distances(prepared, query, backend=backend),
    ):
        with pytest.raises(ValueError, match="query has padding bits set beyond n_bits=60"):
            call()
    with pytest.raises(ValueError, match="codes has padding bits set beyond n_bits=57"):
        ssbhash.search(prepared, query, 1, n_bits=57, backend=backend)


def test_prepared_codes_stand_for_codes(backend: str) -> None:
    prepared = ssbhash.prepare(CODES, n_bits=64, backend=backend)
    chosen = {"backend": backend}
    few = ssbhash.prepare(CODES[:300], backend=backend)
    logits = RNG.normal(size=(3, 64)).astype(np.float32)
    for with_prepared, plain in (
        (ssbhash.pairs_within(few, 3, **chosen), ssbhash.pairs_within(CODES[:300], 3, **chosen)),
        (ssbhash.search(few, few, 4, **chosen), ssbhash.search(CODES[:300], CODES[:300], 4)),
        (
            search_asymmetric(prepared, logits, 4, n_candidates=50, **chosen),
            search_asymmetric(CODES, logits, 4, n_candidates=50, **chosen),
        ),
    ):
        for a, b in zip(with_prepared, plain, strict=True):
            np.testing.assert_array_equal(a, b)
    for with_prepared, plain in (
        (ssbhash.distances(prepared, QUERIES), ssbhash.distances(CODES, QUERIES)),
        (ssbhash.paired_distances(prepared, CODES), np.zeros(len(CODES))),
        (ssbhash.unpack(prepared, 64), ssbhash.unpack(CODES, 64)),
        (expected_distances(prepared, logits), expected_distances(CODES, logits)),
    ):
        np.testing.assert_array_equal(with_prepared, plain)


def test_torch_queries_of_prepared_codes(backend: str) -> None:
    torch = pytest.importorskip("torch")
    prepared = ssbhash.prepare(torch.from_numpy(CODES), backend=backend)
    found = ssbhash.search(prepared, torch.from_numpy(QUERIES), 4, backend=backend)
    assert isinstance(found.ids, torch.Tensor)
    same(ssbhash.SearchResult(*(x.numpy() for x in found)), ssbhash.search(CODES, QUERIES, 4))


@pytest.mark.parametrize("becomes", [0, 255, "random"])
def test_codes_that_change_give_rows_or_nothing(backend: str, becomes) -> None:
    """Results may be wrong then; ids are rows, or missing."""
    codes = CODES.copy()
    prepared = ssbhash.prepare(codes, backend=backend)
    codes[:] = RNG.integers(0, 256, codes.shape) if becomes == "random" else becomes
    mask = np.arange(len(codes)) % 9 > 0
    for n_queries in (1, 40):
        for chosen in ({}, {"mask": mask}, {"mask": ~mask}):
            found = ssbhash.search(prepared, QUERIES[:n_queries], 30, backend=backend, **chosen)
            in_range = ssbhash.within(prepared, QUERIES[:n_queries], 30, backend=backend, **chosen)
            for ids in (found.ids, in_range.ids):
                assert ids.min(initial=0) >= -1
                assert ids.max(initial=0) < len(codes)


def test_rows_that_another_thread_changes_give_rows_or_nothing(backend: str) -> None:
    codes = CODES.copy()
    prepared = ssbhash.prepare(codes, backend=backend)
    stop = threading.Event()

    def change() -> None:
        rng = np.random.default_rng(1)
        while not stop.is_set():
            codes[rng.integers(0, len(codes), 500)] = rng.integers(0, 256, (500, 8))

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for database in (prepared, codes):
            for _ in range(5):
                found = ssbhash.search(database, QUERIES, 30, backend=backend, n_threads=2).ids
                near = ssbhash.within(database, QUERIES, 25, backend=backend, n_threads=2).ids
                assert min(found.min(), near.min(initial=0)) >= -1
                assert max(found.max(), near.max(initial=0)) < len(codes)
    finally:
        stop.set()
        thread.join()
