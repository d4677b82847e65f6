"""HammingIndex: whatever is done to it, it finds what `search` finds among the codes present."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

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

    device: str | None = None

    @initialize(
        n_bits=st.sampled_from([5, 16, 20, 64, 90]),
        layout=st.sampled_from(["auto", "flat", "distinct", "postings", "compact"]),
        seed=st.integers(0, 2**32 - 1),
    )
    def start(self, n_bits: int, layout: str, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.n_bits, self.layout = n_bits, layout
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "index"
        self.index = HammingIndex.open(
            self.path, "a", n_bits=n_bits, layout=layout, device=self.device
        )
        self.reader = HammingIndex.open(self.path, device=self.device)
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
    if backend == "cuda":
        from ssbhash.engines import cuda

        monkeypatch.setattr(Machine, "device", str(cuda._devices()[0]))
    case = Machine.TestCase
    case.settings = settings(
        deadline=None,
        max_examples=40 if backend == "native" else 6,
        stateful_step_count=25,
        suppress_health_check=list(HealthCheck),
    )
    case("runTest").runTest()


WRITER = """
import sys
import numpy as np
import ssbhash
from ssbhash.index import state, store
state.TAIL_ITEMS = store.TAIL_ITEMS = 64
index = ssbhash.HammingIndex.open(sys.argv[1], "a", n_bits=32)
rng = np.random.default_rng(int(sys.argv[2]))
print("ready", flush=True)
while True:  # each operation is told before it begins and when it has returned
    ids = rng.choice(500, rng.integers(1, 90), replace=False)
    kind = rng.choice(["update", "update", "update", "remove", "compact", "commit"])
    if kind == "remove":
        known = index.ids()
        ids = rng.choice(known, min(len(known), 40), replace=False)
    value = int(rng.integers(0, 2**31))
    print(kind, value, *ids, flush=True)
    if kind == "update":
        codes = np.repeat(np.array([[value]], np.uint32).view(np.uint8), len(ids), axis=0)
        index.update(codes, ids)
    elif kind == "remove":
        index.remove(ids)
    elif kind == "compact":
        index.compact()
    else:
        index.commit()
    print("done", flush=True)
"""


def replayed(lines: list[str]) -> tuple[dict[int, int], dict[int, int]]:
    """What was confirmed, and that with the operation that was under way."""
    before: dict[int, int] = {}
    after: dict[int, int] = {}
    for line in lines:
        if line == "done":
            before = dict(after)
            continue
        kind, value, *ids = line.split()
        for one in map(int, ids):
            if kind == "update":
                after[one] = int(value)
            elif kind == "remove":
                after.pop(one, None)
    return before, after


@pytest.mark.slow
def test_kill_at_any_moment_loses_nothing(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path, confirmed = tmp_path / "index", []
    rng = random.Random(0)
    for seed in range(request.config.getoption("--kills")):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(seed)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(rng.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        told = process.stdout.read()
        process.stdout.close()
        process.wait()
        lines = told[: told.rfind("\n") + 1].splitlines()
        before, after = replayed(confirmed + lines)
        index = HammingIndex.open(path, "a")
        index.verify()
        codes = index.get(index.ids()).view(np.uint32)[:, 0]
        contents = dict(zip(index.ids().tolist(), codes.tolist(), strict=True))
        index.close()
        assert contents in (before, after), f"kill {seed}"
        confirmed = [f"update {value} {one}" for one, value in contents.items()] + ["done"]


@pytest.fixture
def folder(tmp_path: Path, small_parts: None) -> Path:
    """An index with segments, removed items, names of files of each kind, and a log."""
    rng = np.random.default_rng(0)
    path = tmp_path / "index"
    with HammingIndex.open(path, "a", n_bits=20, layout="postings") as index:
        index.add(random_codes(rng, 100, 20, 0.3))
        index.add(random_codes(rng, 20, 20, 0.3), ids=np.arange(500, 520))
        index.remove([3, 4, 99, 501])
        index.add(random_codes(rng, 30, 20, 0.3))
        index.remove([5])
    return path


def test_damage_is_an_error_or_changes_nothing(
    folder: Path, request: pytest.FixtureRequest
) -> None:
    rng = random.Random(0)
    queries = random_codes(np.random.default_rng(1), 5, 20)
    expected = HammingIndex.open(folder).search(queries, 20).ids.tolist()
    files = [path for path in folder.iterdir() if path.name != "lock"]
    assert {path.name.split("-")[0] for path in files} >= {"segment", "alive", "log"}
    refused = []
    for _ in range(request.config.getoption("--damaged") // 4):
        path = rng.choice(files)
        whole = path.read_bytes()
        damaged = bytearray(whole)
        kind = rng.choice(["flip", "cut", "zeros", "swap"])
        at = rng.randrange(len(whole))
        if kind == "flip":
            damaged[at] ^= 1 << rng.randrange(8)
        elif kind == "cut" and not path.name.startswith("log"):  # as a crash leaves a log
            del damaged[at:]
        elif kind == "zeros":
            damaged[at : at + 16] = bytes(len(damaged[at : at + 16]))
        else:
            damaged[at : at + 4] = rng.randbytes(len(damaged[at : at + 4]))
        path.write_bytes(damaged)
        try:
            found = HammingIndex.open(folder).search(queries, 20).ids.tolist()
        except ValueError as error:
            refused.append(str(error))
        else:
            assert found == expected, f"{kind} at {at} of {path.name}"
        path.write_bytes(whole)
    assert refused
    assert all(str(folder) in message for message in refused)


def test_foreign_folders_are_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="mode 'a' with n_bits"):
        HammingIndex.open(tmp_path / "absent")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("x")
    with pytest.raises(FileNotFoundError, match="holds no index"):
        HammingIndex.open(tmp_path / "other")
    with pytest.raises(ValueError, match="codes of 20 bits, not of 64"):
        HammingIndex.open(folder, "a", n_bits=64)
    with pytest.raises(ValueError, match="mode must be"):
        HammingIndex.open(folder, "w")
    with pytest.raises(FileExistsError, match="not empty"):
        HammingIndex(8).save(tmp_path / "other")
    next(folder.glob("segment-*")).unlink()
    with pytest.raises(ValueError, match="is missing from the index"):
        HammingIndex.open(folder)


def test_one_writer_and_any_readers(folder: Path) -> None:
    with HammingIndex.open(folder, "a") as writer:
        with pytest.raises(BlockingIOError, match="one writer at a time"):
            HammingIndex.open(folder, "a")
        reader = HammingIndex.open(folder)
        with pytest.raises(PermissionError, match="open it with mode='a'"):
            reader.remove([0])
        n = len(reader)
        writer.remove([0])
        assert len(reader) == n
        assert reader.refresh()
        assert 0 not in reader
    with pytest.raises(ValueError, match="is closed"):
        writer.remove([1])
    HammingIndex.open(folder, "a").close()


@pytest.mark.parametrize("layout", ["flat", "distinct", "postings", "compact"])
@pytest.mark.parametrize("share", [0.0, 0.002, 0.1, 1.0])
def test_masks_of_any_length_on_every_engine(layout: Any, share: float, backend: str) -> None:
    rng = np.random.default_rng(0)
    codes = random_codes(rng, 3000, 24, 0.3)
    index = HammingIndex(24, layout=layout)
    index.add(codes[:2900])
    index.compact()
    index.remove(np.arange(5, 900))
    index.add(codes[2900:])
    for n in (2000, 3000, 4000):
        mask = rng.random(n) < share
        wanted = np.zeros(3000, bool)
        wanted[: min(n, 3000)] = mask[:3000]
        wanted[5:900] = False
        expected = ssbhash.search(codes, codes[:4], 40, mask=wanted)
        found = index.search(codes[:4], 40, mask=mask, backend=backend)
        np.testing.assert_array_equal(found.ids, expected.ids)
        near = index.within(codes[:4], 6, mask=mask, backend=backend)
        np.testing.assert_array_equal(
            near.ids, ssbhash.within(codes, codes[:4], 6, mask=wanted).ids
        )
        options = {"mask": mask, "exclude": [1000], "max_distance": 4}
        np.testing.assert_array_equal(
            index.search(codes[:4], 40, backend=backend, **options).ids,
            index.search(codes[:4], 40, backend="reference", **options).ids,
        )


def test_refresh_reads_new_records_alone(folder: Path) -> None:
    with HammingIndex.open(folder, "a") as writer:
        writer.commit()
        writer.add(np.zeros((1, 3), np.uint8), ids=[10**6])
        reader = HammingIndex.open(folder)
        log = next(folder.glob("log-*"))
        whole = log.read_bytes()
        log.write_bytes(whole[:20] + bytes(len(whole) - 20))  # what was read already
        writer.add(np.zeros((1, 3), np.uint8), ids=[10**6 + 1])
        writer.remove([10**6])
        assert reader.refresh()
        assert not reader.refresh()
        assert 10**6 + 1 in reader
        assert 10**6 not in reader
        assert len(reader) == len(writer)


def test_a_full_disk_harms_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = random_codes(np.random.default_rng(2), 100, 20)
    with HammingIndex.open(folder, "a") as index:
        before = index.ids().tolist()

        def full(*_: object) -> int:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", full)
            with pytest.raises(OSError, match=r"No space left on device: '.*log-"):
                index.add(codes[:1])
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match=r"No space left on device: '.*segment-"):
                index.add(codes)
        assert index.ids().tolist() == before
        added = index.add(codes).tolist()
    assert HammingIndex.open(folder).ids().tolist() == sorted(before + added)


def test_searches_see_one_state_while_one_thread_writes(small_parts: None) -> None:
    """All items present at once have the code of one round."""
    index = HammingIndex(16)
    index.add(np.zeros((100, 2), np.uint8))
    failures, done = [], threading.Event()

    def search() -> None:
        while not done.is_set():
            distances = index.search(np.zeros(2, np.uint8), 100).distances
            if len(distances) != 100 or distances.min() != distances.max():
                failures.append(distances)

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    for turn in range(200):
        value = np.full((100, 2), 255 if turn % 2 else 1, np.uint8)
        index.update(value, np.arange(100))
        if turn % 50 == 0:
            index.compact()
    done.set()
    for thread in threads:
        thread.join()
    assert not failures


def _search_in_child(path: str, results: object) -> None:
    index = HammingIndex.open(path)
    results.put(index.search(np.zeros(3, np.uint8), 5).ids.tolist())  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_forked_children_search_and_may_not_write(folder: Path) -> None:
    with HammingIndex.open(folder, "a") as index:
        expected = index.search(np.zeros(3, np.uint8), 5, n_threads=2).ids.tolist()
        context = get_context("fork")
        results = context.Queue()
        child = context.Process(target=_search_in_child, args=(str(folder), results))
        child.start()
        assert results.get(timeout=60) == expected
        child.join()
        read, write = os.pipe()
        if (pid := os.fork()) == 0:
            try:
                index.remove([0])
                os.write(write, b"wrote")
            except PermissionError:
                os.write(write, b"refused")
            os._exit(0)
        os.waitpid(pid, 0)
        assert os.read(read, 16) == b"refused"
        os.close(read)
        os.close(write)
        assert index.search(np.zeros(3, np.uint8), 5, n_threads=2).ids.tolist() == expected


def test_string_ids(tmp_path: Path, small_parts: None) -> None:
    rng = np.random.default_rng(0)
    codes = random_codes(rng, 60, 16, 0.2)
    names = [f"item {i}" for i in rng.permutation(60)]
    with HammingIndex.open(tmp_path / "index", "a", n_bits=16) as index:
        assert index.add(codes[:50], ids=names[:50]) == names[:50]
        index.add(codes[50:], ids=np.array(names[50:]))
        expected = ssbhash.search(codes, codes[0], 60).ids
        assert index.search(codes[0], 60).ids.tolist() == [names[i] for i in expected]
        index.remove(names[:1])
        index.update(codes[5], [names[7]])
        assert names[0] not in index
        assert 7 not in index
        assert index.contains([names[0], names[7], "no name"]).tolist() == [False, True, False]
        with pytest.raises(TypeError, match="ids of this index are strings"):
            index.add(codes[:1], ids=[1])
        with pytest.raises(KeyError, match=names[0]):
            index.remove([names[0]])
    reopened = HammingIndex.open(tmp_path / "index")
    assert reopened.ids().tolist() == [*names[1:7], *names[8:], names[7]]
    np.testing.assert_array_equal(reopened.get(names[7]), codes[5])
    found = reopened.search(codes[5], 60, ids=[names[7]], max_distance=3, exclude=names[5])
    assert found.ids.tolist() == [names[7]]


def test_names_of_removed_items_are_dropped(tmp_path: Path, small_parts: None) -> None:
    codes = random_codes(np.random.default_rng(0), 400, 16)
    names = [f"item {i}" for i in range(400)]
    with HammingIndex.open(tmp_path / "index", "a", n_bits=16) as index:
        for first in range(0, 400, 20):
            index.add(codes[first : first + 20], ids=names[first : first + 20])
            index.remove(names[first : first + 19])
        index.update(codes[0], [names[19]])
        index.save(tmp_path / "copy")
        index.compact()
        kept = [*names[39::20], names[19]]
        for place in ("index", "copy"):
            (file,) = (tmp_path / place).glob("names-*")
            assert json.loads(file.read_bytes())[1] == kept
            assert HammingIndex.open(tmp_path / place).ids().tolist() == kept
        assert index.search(codes[0], 1).ids.tolist() == [names[19]]
        assert names[0] not in index


def test_an_older_state_keeps_its_names(small_parts: None) -> None:
    codes = random_codes(np.random.default_rng(0), 5, 16)
    index = HammingIndex(16)
    index.add(codes[:2], ids=["a", "b"])
    states = [index._store.state]
    for code in codes[2:]:
        index.update(code, ["a"])
        states.append(index._store.state)
    index.remove(["b"])
    index.compact()
    for state, code in zip(states, [codes[0], *codes[2:]], strict=True):
        numbers, is_present = index._store.present(["a", "b", "c"], state)
        assert is_present.tolist() == [True, True, False]
        assert state.shown(numbers[:2]).tolist() == ["a", "b"]
        np.testing.assert_array_equal(state.codes_of(numbers[:2]), [code, codes[1]])


def test_a_name_that_is_updated_is_always_there(small_parts: None) -> None:
    index = HammingIndex(16)
    codes = random_codes(np.random.default_rng(0), 500, 16)
    index.add(codes[0], ids=["a"])

    def update() -> None:
        for code in codes:
            index.update(code, ["a"])

    writer = threading.Thread(target=update)
    writer.start()
    while writer.is_alive():
        assert index.get(["a"]).shape == (1, 2)
        assert index.search(codes[0], 1).ids.tolist() == ["a"]
    writer.join()


def test_a_segment_of_format_1_is_scanned_until_compacted(tmp_path: Path) -> None:
    codes = np.random.default_rng(0).integers(0, 256, (200, 8), np.uint8)[
        np.random.default_rng(1).integers(0, 200, 5000)
    ]
    index = HammingIndex(64, layout="postings")
    index.add(codes)
    index.compact()
    index.save(tmp_path / "index")
    (segment,) = (tmp_path / "index").glob("segment-*")
    content = segment.read_bytes()
    segment.write_bytes(content.replace(b"SSBHSEG2", b"SSBHSEG1", 1))
    with HammingIndex.open(tmp_path / "index", mode="a") as old:
        expected = index.search(codes[:20], 30)
        np.testing.assert_equal(tuple(old.search(codes[:20], 30)), tuple(expected))
        assert old.stats()["segments"][0]["layout"] == "distinct"
        old.verify()
        old.remove([0])
        old.compact()
        index.remove([0])
        np.testing.assert_equal(
            tuple(old.search(codes[:20], 30)), tuple(index.search(codes[:20], 30))
        )


@pytest.mark.parametrize("layout", ["auto", "flat", "distinct", "postings", "compact"])
@pytest.mark.parametrize("n_bits", [32, 64, 128])
def test_large_segments_find_the_same(layout: str, n_bits: int) -> None:
    rng = np.random.default_rng(n_bits)
    centres = random_codes(rng, 300, n_bits)
    noise = random_codes(rng, 50_000, n_bits, 0.02)
    codes = centres[rng.integers(0, 300, 50_000)] ^ noise
    codes[:20_000] = centres[0]
    queries = np.concatenate([codes[::5000], random_codes(rng, 20, n_bits)])
    index = HammingIndex(n_bits, layout=layout)
    index.add(codes[:45_000])
    index.add(codes[45_000:])
    index.compact()
    gone = np.arange(0, 50_000, 3)
    for k in (1, 10, 3000):
        found, expected = index.search(queries, k), ssbhash.search(codes, queries, k)
        assert (found.ids == expected.ids).all()
        assert (found.distances == expected.distances).all()
    index.remove(gone)
    left = np.setdiff1d(np.arange(50_000), gone)
    for k in (1, 10):
        found, expected = index.search(queries, k), ssbhash.search(codes, queries, k, ids=left)
        assert (found.ids == expected.ids).all()
        assert (found.distances == expected.distances).all()


@pytest.mark.parametrize("layout", ["flat", "distinct", "postings", "compact"])
@pytest.mark.parametrize("n_queries", [1, 80])
def test_own_ids_and_far_items_are_left_out(layout: Any, n_queries: int, backend: str) -> None:
    rng = np.random.default_rng(0)
    codes = random_codes(rng, 300, 64, 0.1)[rng.integers(0, 300, 40_000)]
    codes[:30_000] ^= random_codes(rng, 30_000, 64, 0.05)
    index = HammingIndex(64, layout=layout)
    index.add(codes[:35_000], np.arange(35_000) * 2)
    index.add(codes[35_000:], np.arange(35_000, 40_000) * 2 + 1)  # another segment, with ties
    rows = rng.integers(0, 35_000, n_queries)
    for k, radius in ((1, 64), (10, 3), (200, 5)):
        found = index.search(codes[rows], k, exclude=rows * 2, max_distance=radius, backend=backend)
        expected = ssbhash.search(
            codes, codes[rows], k, exclude=rows, max_distance=radius, pad=True
        )
        np.testing.assert_array_equal(found.distances, expected.distances)
        ids = np.where(expected.ids < 35_000, expected.ids * 2, expected.ids * 2 + 1)
        np.testing.assert_array_equal(found.ids, np.where(expected.ids < 0, -1, ids))


@pytest.mark.parametrize("n_queries", [1, 100])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_filters_of_large_segments_find_the_same(n_queries: int, share: float) -> None:
    rng = np.random.default_rng(0)
    codes, queries = random_codes(rng, 40_000, 64), random_codes(rng, n_queries, 64)
    codes[::2] ^= queries[rng.integers(0, n_queries, 20_000)] & random_codes(rng, 20_000, 64, 0.9)
    for ids in (np.arange(40_000), np.arange(40_000) * 3 + 5):
        index = HammingIndex(64, layout="postings")
        index.add(codes, ids)
        mask = rng.random(40_000) < share
        mask[-10:] = False
        by_id = np.zeros(ids[-10], bool)  # the last ids lie beyond its end
        by_id[ids[:-10]] = mask[:-10]
        found = index.search(queries, 10, mask=by_id)
        expected = ssbhash.search(codes, queries, 10, mask=mask)
        assert (found.ids == ids[expected.ids]).all()
        assert (found.distances == expected.distances).all()


@pytest.mark.parametrize("layout", ["distinct", "postings", "compact"])
@pytest.mark.parametrize("n_queries", [1, 100, 600])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.9])
def test_filters_of_grouped_codes_find_the_same(layout: Any, n_queries: int, share: float) -> None:
    rng = np.random.default_rng(n_queries)
    codes = random_codes(rng, 3000, 64, 0.3)[rng.integers(0, 3000, 40_000)]
    queries = codes[:n_queries] ^ random_codes(rng, n_queries, 64, 0.05)
    index = HammingIndex(64, layout=layout)
    ids = np.arange(40_000) * 3 + 5
    index.add(codes, ids)
    gone = rng.random(40_000) < 0.1
    index.remove(ids[gone])
    wanted = (rng.random(40_000) < share) & ~gone
    by_id = np.zeros(ids[-1] + 1, bool)
    by_id[ids[wanted]] = True
    own = rng.integers(0, 40_000, n_queries)
    for exclude in (None, ids[own]):
        found = index.search(queries, 12, mask=by_id, exclude=exclude, max_distance=20)
        near = index.within(queries, 6, mask=by_id, exclude=exclude)
        for i, query in enumerate(queries):
            mask = wanted.copy()
            mask[own[i]] &= exclude is None
            expected = ssbhash.search(codes, query, 12, mask=mask, max_distance=20, pad=True)
            n = int((expected.ids >= 0).sum())
            assert found.ids[i, :n].tolist() == ids[expected.ids[:n]].tolist()
            assert found.distances[i, :n].tolist() == expected.distances[:n].tolist()
            assert (found.ids[i, n:] == -1).all()
            expected_near = ssbhash.within(codes, query, 6, mask=mask)
            some = slice(near.lims[i], near.lims[i + 1])
            assert near.ids[some].tolist() == ids[expected_near.ids].tolist()
            assert near.distances[some].tolist() == expected_near.distances.tolist()


def test_sparse_segments_are_made_anew(tmp_path: Path, small_parts: None) -> None:
    codes = random_codes(np.random.default_rng(0), 1000, 16)
    with HammingIndex.open(tmp_path / "index", "a", n_bits=16) as index:
        index.add(codes)
        index.remove(np.arange(499))
        assert index.stats()["n_removed"] == 499
        index.remove([499, 500])
        assert index.stats()["n_removed"] == 0
        index.remove(np.arange(501, 1000))
        assert (len(index), index.stats()["segments"]) == (0, [])
    assert len(HammingIndex.open(tmp_path / "index")) == 0


SHARER = """
import sys
import ssbhash
index = ssbhash.HammingIndex.open(sys.argv[1])
for part in index._store.state.parts:  # reads every byte
    for array in (part.segment.rows, *(array for table in part.segment.tables for array in table)):
        array.max()
print("ready", flush=True)
sys.stdin.readline()
is_ours, kilobytes = False, 0
for line in open("/proc/self/smaps"):
    name, *rest = line.split()
    if not name.endswith(":"):
        is_ours = "segment-" in line
    elif is_ours and name == "Pss:":
        kilobytes += int(rest[0])
print(kilobytes, flush=True)
sys.stdin.readline()
"""


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux tells the shares")
def test_processes_share_one_copy(tmp_path: Path) -> None:
    index = HammingIndex(64)
    index.add(random_codes(np.random.default_rng(0), 400_000, 64))
    index.save(tmp_path / "index")
    size = max(path.stat().st_size for path in (tmp_path / "index").iterdir())
    command = [sys.executable, "-c", SHARER, str(tmp_path / "index")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(4)]  # type: ignore[call-overload]
    try:
        assert [process.stdout.readline() for process in processes] == ["ready\n"] * 4
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        shares = [1024 * int(process.stdout.readline()) for process in processes]
    finally:
        for process in processes:
            process.communicate("\n")
    assert all(0 < share < 0.4 * size for share in shares)
    assert sum(shares) <= 1.1 * size


def test_arguments_are_checked(small_parts: None) -> None:
    index = HammingIndex(12)
    codes = np.zeros((3, 2), np.uint8)
    for wrong, message in [
        ({"ids": [1, 2]}, "3 codes but 2 ids"),
        ({"ids": [1, 1, 2]}, "id 1 is given twice"),
        ({"ids": [-1, 1, 2]}, "in 0 ..."),
        ({"ids": ["a", "b", "a"]}, "id 'a' is given twice"),
    ]:
        with pytest.raises(ValueError, match=message):
            index.add(codes, **wrong)
    with pytest.raises(TypeError, match="list of integers"):
        index.add(codes, ids=[0.5, 1.0, 2.0])
    with pytest.raises(ValueError, match="padding bits"):
        index.add(codes | 128)
    with pytest.raises(ValueError, match="layout must be"):
        HammingIndex(8, layout="fast")  # type: ignore[arg-type]
    index.add(codes)
    assert [one in index for one in (0, 2, 3, -1, 1 << 63, "a")] == [True, True] + [False] * 4
    assert index.search(codes[0], 10).ids.tolist() == [0, 1, 2]
    assert index.search(codes, 1).ids.shape == (3, 1)
    assert HammingIndex(12).search(codes, 5).ids.shape == (3, 0)
    with pytest.raises(ValueError, match="mask or ids"):
        index.search(codes, mask=np.ones(3, bool), ids=[1])
    with pytest.raises(ValueError, match="mask must be bool"):
        index.search(codes, mask=np.ones(3))
    with pytest.raises(ValueError, match="3 queries but 2 ids"):
        index.search(codes, exclude=[0, 1])


def test_save_copies(tmp_path: Path, small_parts: None) -> None:
    codes = random_codes(np.random.default_rng(0), 70, 16)
    index = HammingIndex(16)
    index.add(codes)
    index.remove([0])
    index.save(tmp_path / "copy")
    shutil.copytree(tmp_path / "copy", tmp_path / "moved")
    moved = HammingIndex.open(tmp_path / "moved")
    assert moved.ids().tolist() == list(range(1, 70))
    moved.verify()


@pytest.mark.parametrize("metric", ["cosine", "inner", "posterior"])
def test_rerank_orders_whole_tie_groups(metric: str, small_parts: None) -> None:
    rng = np.random.default_rng(0)
    codes, queries = random_codes(rng, 200, 8), random_codes(rng, 4, 8)
    vectors = rng.normal(size=(200, 5)).astype(np.float32)
    asked = rng.normal(size=(4, 8 if metric == "posterior" else 5))
    index = HammingIndex(8)
    index.add(codes)
    options = {"candidates": 10, "metric": metric}
    one = ssbhash.rerank(codes, queries, 7, vectors=vectors, query_vectors=asked, **options)
    two = index.search(queries, 7, rerank=(vectors, asked), **options)
    distances = ssbhash.distances(codes, queries)
    for i in range(4):
        last = np.sort(distances[i])[9]
        group = np.flatnonzero(distances[i] <= last)
        assert len(group) >= 10
        if metric == "posterior":
            p = 1 / (1 + np.exp(-asked[i]))
            bits = ssbhash.unpack(codes[group], 8)
            exact = np.where(bits, 1 - p, p).sum(axis=1)
        else:
            exact = -(vectors[group].astype(float) @ asked[i])
            if metric == "cosine":
                norms = np.linalg.norm(vectors[group], axis=1) * np.linalg.norm(asked[i])
                exact = 1 + exact / norms
        np.testing.assert_allclose(one.distances[i], np.sort(exact)[:7], atol=0.02)
        assert set(one.ids[i]) <= set(group)
    np.testing.assert_array_equal(one.ids, two.ids)
    np.testing.assert_array_equal(one.distances, two.distances)


@pytest.mark.parametrize("n_bits", [8, 20, 64, 100])
@pytest.mark.parametrize("n", [0, 1, 2, 700, 6000])
def test_groups_and_pairs_are_those_of_all_pairs(n_bits: int, n: int, backend: str) -> None:
    if n > 700 and (backend == "reference" or n_bits == 8):
        pytest.skip("slow: with 8 bits nearly all pairs are near")
    rng = np.random.default_rng(n + n_bits)
    codes = random_codes(rng, n, n_bits, 0.2 if n_bits < 64 else 0.5)
    codes[n // 2 :] = codes[: n - n // 2] ^ random_codes(rng, n - n // 2, n_bits, 0.02)
    for radius in (0, 1, 3):
        lims, _, near = ssbhash.within(codes, codes, radius)
        first = np.repeat(np.arange(n), np.diff(lims))
        groups = np.arange(n)
        for _ in range(n):  # the smallest neighbour's group, until nothing changes
            before = groups.copy()
            np.minimum.at(groups, first, groups[near])
            if (groups == before).all():
                break
        found = ssbhash.groups_within(codes, radius, backend=backend, n_threads=2)
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, groups)
        pairs = ssbhash.pairs_within(codes, radius, backend=backend, n_threads=2)
        order = np.lexsort((near, first))
        order = order[first[order] < near[order]]
        np.testing.assert_array_equal(pairs.first, first[order])
        np.testing.assert_array_equal(pairs.second, near[order])
        if len(order) > 1:
            with pytest.raises(ValueError, match=str(len(order))):
                ssbhash.pairs_within(codes, radius, max_results=1, backend=backend)


@pytest.mark.parametrize("near", [ssbhash.groups_within, ssbhash.pairs_within])
def test_progress_ends_at_one(near: Any, backend: str) -> None:
    codes = random_codes(np.random.default_rng(0), 300, 64)
    shares: list[float] = []
    near(codes, 3, progress=shares.append, backend=backend)
    assert shares[-1] == 1.0
    assert shares == sorted(shares)


@pytest.mark.parametrize("near", [ssbhash.groups_within, ssbhash.pairs_within])
@pytest.mark.parametrize("radius", [3, 12])
def test_an_error_of_progress_ends_the_call(near: Any, radius: int) -> None:
    if "native" not in ssbhash.backends():
        pytest.skip("other engines call it at the end only")
    shares: list[float] = []

    def stop_at_the_second(share: float) -> None:
        shares.append(share)
        if len(shares) == 2:
            raise RuntimeError("enough")

    n = 4_000_000 if radius == 3 else 300_000  # a dozen calls or more
    codes = np.random.default_rng(0).integers(0, 256, (n, 8), np.uint8)
    with pytest.raises(RuntimeError, match="enough"):
        near(codes, radius, progress=stop_at_the_second, n_threads=1)
    assert len(shares) == 2
    assert 0 <= shares[0] <= shares[1] < 1


def test_groups_of_equal_codes_take_no_pairs() -> None:
    codes = np.zeros((200_000, 8), np.uint8)
    codes[::2] = 255
    assert np.unique(ssbhash.groups_within(codes, 4)).tolist() == [0, 1]


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    application = pytest.importorskip("ssbhash.cli").application

    def run(*args: object) -> int:
        with pytest.raises(SystemExit) as ended:
            application([str(arg) for arg in args])
        return int(ended.value.code or 0)

    rng = np.random.default_rng(0)
    codes = random_codes(rng, 300, 16)
    np.save(tmp_path / "codes.npy", codes)
    np.save(tmp_path / "more.npy", codes[:5])
    np.save(tmp_path / "ids.npy", np.arange(900, 905))
    np.save(tmp_path / "wide.npy", np.zeros((2, 4), np.uint8))
    folder, out = tmp_path / "index", tmp_path / "found.npz"
    assert run("index", "build", folder, tmp_path / "codes.npy") == 0
    assert run("index", "add", folder, tmp_path / "more.npy", "--ids", tmp_path / "ids.npy") == 0
    assert run("index", "add", folder, tmp_path / "more.npy", "--ids", tmp_path / "ids.npy") == 2
    assert "id 900 is in the index already" in capsys.readouterr().err
    assert run("index", "search", folder, tmp_path / "more.npy", "-o", out, "-k", 3) == 0
    both = np.concatenate([codes, codes[:5]])
    expected = ssbhash.search(both, codes[:5], 3)
    found = np.load(out)
    ids = np.r_[np.arange(300), np.arange(900, 905)]
    assert (found["ids"] == ids[expected.ids]).all()
    assert run("index", "search", folder, tmp_path / "wide.npy", "-o", out) == 2
    assert "codes of 32 bits, the index of 16" in capsys.readouterr().err
    assert run("index", "remove", folder, tmp_path / "ids.npy") == 0
    assert run("index", "remove", folder, tmp_path / "ids.npy") == 2
    assert run("index", "compact", folder) == run("index", "verify", folder) == 0
    capsys.readouterr()
    assert run("index", "stats", folder, "--json") == 0
    assert '"n": 300, "n_bits": 16, "n_removed": 0' in capsys.readouterr().out
    assert run("groups", tmp_path / "codes.npy", "-r", 1, "-o", out) == 0
    assert (np.load(out)["groups"] == ssbhash.groups_within(codes, 1)).all()
    assert run("pairs", tmp_path / "codes.npy", "-r", 1, "-o", out) == 0
    assert (np.load(out)["second"] == ssbhash.pairs_within(codes, 1).second).all()
