"""HammingIndex: whatever is done to it, it finds what `search` finds among the codes present."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import ssbhash
from ssbhash import HammingIndex
from ssbhash.index import state as index_state
from ssbhash.index import store as index_store

NO_DISTANCE = np.iinfo(np.int32).max


def random_codes(rng: np.random.Generator, n: int, n_bits: int, p: float = 0.5) -> np.ndarray:
    return ssbhash.pack(rng.random((n, n_bits)) < p)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seal the growing part after a few items."""
    monkeypatch.setattr(index_store, "TAIL_ITEMS", 32)
    monkeypatch.setattr(index_state, "TAIL_ITEMS", 32)


def matrix(contents: dict[int, np.ndarray], n_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    ids = np.array(sorted(contents), np.int64)
    codes = np.array([contents[i] for i in ids.tolist()], np.uint8).reshape(len(ids), n_bytes)
    return ids, codes


def check_equal(
    index: HammingIndex, contents: dict[int, np.ndarray], queries: np.ndarray, k: int, radius: int
) -> None:
    ids, codes = matrix(contents, queries.shape[1])
    assert len(index) == len(ids)
    found, expected = index.search(queries, k), ssbhash.search(codes, queries, k)
    np.testing.assert_array_equal(found.distances, expected.distances)
    np.testing.assert_array_equal(found.ids, ids[expected.ids])
    near, expected_near = index.within(queries, radius), ssbhash.within(codes, queries, radius)
    np.testing.assert_array_equal(near.lims, expected_near.lims)
    np.testing.assert_array_equal(near.distances, expected_near.distances)
    np.testing.assert_array_equal(near.ids, ids[expected_near.ids])
    np.testing.assert_array_equal(index.count_within(queries, radius), np.diff(expected_near.lims))


class Machine(RuleBasedStateMachine):
    """An index in a folder beside a dictionary."""

    @initialize(
        n_bits=st.sampled_from([5, 16, 20, 64, 90]),
        layout=st.sampled_from(["auto", "flat", "distinct", "postings"]),
        seed=st.integers(0, 2**32 - 1),
    )
    def start(self, n_bits: int, layout: str, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.n_bits, self.layout = n_bits, layout
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "index"
        self.index = HammingIndex.open(self.path, "a", n_bits=n_bits, layout=layout)
        self.reader = HammingIndex.open(self.path)
        self.contents: dict[int, np.ndarray] = {}
        self.most = -1

    def codes(self, n: int) -> np.ndarray:
        some = random_codes(self.rng, n, self.n_bits, self.rng.choice([0.1, 0.5]))
        return some[self.rng.integers(0, n, n)] if n else some  # equal ones among them

    @rule(n=st.integers(0, 40))
    def add(self, n: int) -> None:
        codes = self.codes(n)
        ids = self.index.add(codes)
        assert ids.tolist() == list(range(self.most + 1, self.most + 1 + n))
        self.contents.update(zip(ids.tolist(), codes, strict=True))
        self.most += n

    @rule(n=st.integers(1, 40))
    def update(self, n: int) -> None:
        ids, codes = self.rng.choice(120, n, replace=False), self.codes(n)
        self.index.update(codes, ids)
        self.contents.update(zip(ids.tolist(), codes, strict=True))
        self.most = max(self.most, int(ids.max()))

    @precondition(lambda self: self.contents)
    @rule(share=st.floats(0, 1))
    def remove(self, share: float) -> None:
        known = sorted(self.contents)
        gone = self.rng.choice(known, max(1, int(share * len(known))), replace=False)
        self.index.remove(gone)
        for one in gone.tolist():
            del self.contents[one]

    @precondition(lambda self: self.contents)
    @rule()
    def add_twice(self) -> None:
        with pytest.raises(ValueError, match="is in the index already"):
            self.index.add(self.codes(1), ids=[next(iter(self.contents))])

    @rule()
    def remove_nothing(self) -> None:
        with pytest.raises(KeyError, match="is not in the index"):
            self.index.remove([*self.contents, 10**12])

    @rule()
    def compact(self) -> None:
        self.index.compact()
        assert self.index.stats()["n_removed"] == 0
        assert len(self.index.stats()["segments"]) <= 1

    @rule()
    def commit(self) -> None:
        self.index.commit()

    @rule()
    def reopen(self) -> None:
        self.index.close()
        self.index = HammingIndex.open(self.path, "a", layout=self.layout)

    @rule(torn=st.binary(max_size=30))
    def crash(self, torn: bytes) -> None:
        """A process that dies leaves its lock to nobody, and a record half-written."""
        self.index.close()
        log = next(self.path.glob("log-*"))
        record = log.read_bytes()[16:]  # of the first record, a part
        with log.open("ab") as file:
            file.write(record[: max(0, min(len(torn), len(record) - 1))])
        (self.path / "segment-999999.0").write_bytes(torn)
        self.index = HammingIndex.open(self.path, "a", layout=self.layout)
        self.index.verify()

    @precondition(lambda self: self.contents)
    @rule(k=st.integers(1, 60), share=st.floats(0, 1))
    def search_some(self, k: int, share: float) -> None:
        ids, codes = matrix(self.contents, (self.n_bits + 7) // 8)
        queries = self.codes(3)
        wanted = self.rng.random(len(ids)) < share
        expected = ssbhash.search(codes, queries, k, mask=wanted)
        by_id = self.index.search(queries, k, ids=[*ids[wanted].tolist(), 10**12])
        mask = np.zeros(int(ids[-1]) + 1, bool)
        mask[ids[wanted]] = True
        for found in (by_id, self.index.search(queries, k, mask=mask)):
            np.testing.assert_array_equal(found.distances, expected.distances)
            np.testing.assert_array_equal(found.ids, ids[expected.ids])

    @precondition(lambda self: self.contents)
    @rule(k=st.integers(1, 60), most=st.integers(0, 40))
    def search_others(self, k: int, most: int) -> None:
        ids, codes = matrix(self.contents, (self.n_bits + 7) // 8)
        own = self.rng.integers(0, len(ids), 3)
        found = self.index.search(codes[own], k, exclude=ids[own], max_distance=most)
        near = ssbhash.within(codes, codes[own], most)
        for i, row in enumerate(own):
            part = slice(near.lims[i], near.lims[i + 1])
            kept = near.ids[part] != row
            expected = ids[near.ids[part]][kept][:k]
            width = min(k, len(ids))
            assert found.ids[i].tolist() == [*expected, *[-1] * (width - len(expected))]
            assert found.distances[i, len(expected) :].tolist() == [NO_DISTANCE] * (
                width - len(expected)
            )

    @rule(k=st.integers(1, 60), radius=st.integers(0, 40))
    def search(self, k: int, radius: int) -> None:
        check_equal(self.index, self.contents, self.codes(2), k, radius)

    @rule()
    def refresh(self) -> None:
        self.reader.refresh()
        assert not self.reader.refresh()
        check_equal(self.reader, self.contents, self.codes(2), 5, 3)

    @invariant()
    def knows_its_items(self) -> None:
        if hasattr(self, "contents"):
            ids, codes = matrix(self.contents, (self.n_bits + 7) // 8)
            assert self.index.ids().tolist() == ids.tolist()
            np.testing.assert_array_equal(self.index.get(ids), codes)
            assert all(one in self.index for one in ids[:3].tolist())

    def teardown(self) -> None:
        if hasattr(self, "index"):
            self.index.close()
            self.folder.cleanup()


@pytest.mark.usefixtures("small_parts")
def test_any_sequence_of_operations(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    monkeypatch.setenv("SSBHASH_BACKEND", backend)
    case = Machine.TestCase
    case.settings = settings(
        deadline=None,
        max_examples=40 if backend == "native" else 6,
        stateful_step_count=25,
        suppress_health_check=list(HealthCheck),
    )
    case("runTest").runTest()
