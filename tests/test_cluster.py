"""An index over shards: equal to one index, whatever dies."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssbhash import HammingIndex
from ssbhash.cluster import ShardedIndex, ShardsUnavailableError, build, data_files
from ssbhash.cluster.hashing import shards_of
from ssbhash.cluster.replica import NotCurrentError, Replica

# Ray's own warnings about files and sockets that it leaves open.
pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
N_BITS = 16
HEALTH = {
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}


class Nodes:
    """A Ray cluster of three nodes on this machine; the first is never killed."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(
            initialize_head=True,
            head_node_args={**self._size, "include_dashboard": False, "_system_config": HEALTH},
        )
        self.others = [self.cluster.add_node(**self._size) for _ in range(2)]

    _size = {"num_cpus": 1, "object_store_memory": 80 << 20}  # noqa: RUF012

    def kill_one(self) -> None:
        """Kill a node."""
        self.cluster.remove_node(self.others.pop(0), allow_graceful=False)

    def id_of_next(self) -> str:
        """Ray's id of the node that will be killed next."""
        import ray

        socket = self.others[0].plasma_store_socket_name
        found = [n["NodeID"] for n in ray.nodes() if n["ObjectStoreSocketName"] == socket]
        return str(found[0])

    def add_one(self) -> None:
        self.others.append(self.cluster.add_node(**self._size))


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.cluster_utils")
    made = Nodes()
    ray.init(address=made.cluster.address, log_to_driver=False, logging_level="CRITICAL")
    yield made
    ray.shutdown()
    made.cluster.shutdown()


def make_codes(n: int, seed: int) -> np.ndarray:
    """Codes with many ties."""
    return np.random.default_rng(seed).integers(0, 256, (n, N_BITS // 8), np.uint8)


def make_ids(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(20 * n)[:n]


def assert_same(index: Any, one: HammingIndex, queries: np.ndarray, **options: Any) -> None:
    found, expected = index.search(queries, 20, **options), one.search(queries, 20, **options)
    for mine, right in zip(found, expected, strict=True):
        assert mine.dtype == right.dtype
        assert mine.shape == right.shape
        assert (mine == right).all()


def wait_until(holds: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def members(index: ShardedIndex) -> list[Any]:
    return list(index._fleet.members())


def all_serve(index: ShardedIndex) -> bool:
    return all(member.is_serving for member in members(index))


def assert_replicas_agree(index: ShardedIndex) -> None:
    """Every replica of a shard holds the same, byte for byte."""
    wait_until(lambda: all_serve(index))
    for shard in index._fleet.shards:
        held = []
        for member in shard.members:
            ids = index.ray.get(member.replica.change("ask", shard.version, "ids", {}))
            getting = member.replica.change("ask", shard.version, "get", {"ids": ids})
            codes = index.ray.get(getting)
            held.append((ids.tolist(), codes.tolist()))
        assert all(one == held[0] for one in held)
    index.verify()


# Without Ray


def test_ids_move_to_new_shards_only_and_evenly() -> None:
    ids = np.arange(1 << 16) * 8 + 3
    for n in range(1, 12):
        before, after = shards_of(ids, n), shards_of(ids, n + 1)
        moved = before != after
        assert (after[moved] == n).all()
        assert moved.mean() == pytest.approx(1 / (n + 1), rel=0.1)
        counts = np.bincount(after)
        assert counts.min() > 0.9 * counts.mean()


def test_shards_of_ids_are_for_ever() -> None:
    # Another function would find nothing in the folders that there are.
    ids = np.array([0, 1, 2, 3, 10**9, 2**62, 2**63 - 2])
    assert shards_of(ids, 1000).tolist() == [0, 120, 141, 31, 451, 937, 653]


def test_a_change_is_applied_once(tmp_path: Path) -> None:
    replica = Replica(str(tmp_path), N_BITS)
    assert replica.open("make").copy == 1
    codes, ids = make_codes(5, 0), np.arange(5)
    for _ in range(2):
        assert replica.apply(1, 5, ids, codes).n == 5
    assert replica.apply(2, 5, np.array([1, 9]), None).n == 4
    with pytest.raises(NotCurrentError):
        replica.apply(4, 5, ids, codes)
    with pytest.raises(NotCurrentError):
        replica.ask(3, "ids", {})
    assert replica.ask(2, "ids", {}).tolist() == [0, 2, 3, 4]
    replica.close()
    again = Replica(str(tmp_path), N_BITS)
    assert again.open("open") == (1, 2, False, 5, 4)
    again.close()
    with pytest.raises(FileExistsError):
        Replica(str(tmp_path), N_BITS).open("make")


def test_a_change_that_fails_is_not_served_until_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = Replica(str(tmp_path), N_BITS)
    replica.open("make")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(HammingIndex, "commit", fail)
        with pytest.raises(OSError, match="No space"):
            replica.apply(1, 5, np.arange(5), make_codes(5, 0))
    with pytest.raises(NotCurrentError):
        replica.ask(0, "ids", {})
    replica.close()
    again = Replica(str(tmp_path), N_BITS)
    assert again.open("open").is_changing
    with pytest.raises(NotCurrentError):
        again.ask(0, "ids", {})
    again.apply(1, 5, np.arange(5), make_codes(5, 0))
    assert (again.ask(1, "get", {"ids": np.arange(5)}) == make_codes(5, 0)).all()
    again.close()


def test_two_processes_do_not_open_one_replica(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssbhash.cluster.replica._LOCK_WAIT_S", 0.1)
    first = Replica(str(tmp_path), N_BITS)
    first.open("make")
    with pytest.raises(BlockingIOError, match="one writer"):
        Replica(str(tmp_path), N_BITS).open("open")
    first.close()


# With Ray


def test_results_are_those_of_one_index(nodes: Nodes, tmp_path: Path) -> None:
    codes, ids, queries = make_codes(4000, 0), make_ids(4000, 1), make_codes(2500, 2)
    one = HammingIndex(N_BITS)
    with ShardedIndex.open(tmp_path / "index", n_bits=N_BITS, n_shards=3) as index:
        assert_same(index, one, queries[:3])
        assert index.add(codes, ids).tolist() == one.add(codes, ids).tolist()
        assert_same(index, one, queries)
        assert_same(index, one, queries[0])
        assert_same(index, one, queries[:0])
        assert_same(index, one, queries, mask=np.arange(60_000) % 3 == 0)
        assert_same(index, one, queries, ids=[*ids[:12].tolist(), 10**6])
        assert_same(index, one, queries, ids=[])
        assert_same(index, one, queries, exclude=ids[:2500])
        assert_same(index, one, queries, exclude=ids[0], max_distance=1)
        vectors = np.random.default_rng(3).normal(size=(80_000, 4))
        rerank = (vectors, vectors[:40])
        assert_same(index, one, queries[:40], rerank=rerank, candidates=30)
        asked = (None, vectors[:40].repeat(4, axis=1))
        assert_same(index, one, queries[:40], rerank=asked, metric="posterior")
        assert_same(index, one, queries[:5], backend="reference", n_threads=1)
        for options in ({}, {"exclude": ids[:2500]}, {"ids": ids[::7]}):
            found, right = index.within(queries, 2, **options), one.within(queries, 2, **options)
            assert all((a == b).all() for a, b in zip(found, right, strict=True))
            counts = index.count_within(queries, 2, **options)
            assert (counts == one.count_within(queries, 2, **options)).all()
        assert index.count_within(queries[0], 3) == one.count_within(queries[0], 3)
        asked_ids = ids[::-3]
        assert (index.get(asked_ids) == one.get(asked_ids)).all()
        assert (index.get(int(ids[5])) == codes[5]).all()
        assert int(ids[0]) in index
        assert 10**6 not in index
        index.remove(ids[:100])
        one.remove(ids[:100])
        index.update(codes[:150], ids[50:200])
        one.update(codes[:150], ids[50:200])
        assert index.add(codes[:2]).tolist() == one.add(codes[:2]).tolist()
        assert (index.ids() == one.ids()).all()
        assert len(index) == len(one) == index.stats()["n"]
        index.compact()
        assert index.stats()["n_removed"] == 0
        assert_same(index, one, queries)
        bad: list[Callable[[Any], Any]] = [
            lambda x: x.add(codes[:1], ids=ids[300:301]),
            lambda x: x.add(codes[:2], ids=[1_000_001, 1_000_001]),
            lambda x: x.add(codes[:2], ids=[1_000_001]),
            lambda x: x.add(codes[:1], ids=[-1]),
            lambda x: x.add(codes[:1], ids=[0.5]),
            lambda x: x.add(codes[:, :1]),
            lambda x: x.remove([int(ids[0])]),
            lambda x: x.get([10**6]),
            lambda x: x.search(queries, 0),
            lambda x: x.search(queries[:, :1]),
            lambda x: x.search(queries, mask=np.ones(3)),
            lambda x: x.search(queries, mask=np.ones(3, bool), ids=[1]),
            lambda x: x.search(queries, exclude=[1, 2]),
            lambda x: x.search(queries, max_distance=-1),
            lambda x: x.search(queries, backend="no such engine"),
            lambda x: x.within(queries, -1),
        ]
        for call in bad:
            with pytest.raises((ValueError, TypeError, KeyError)) as right_error:
                call(one)
            with pytest.raises(right_error.type) as error:
                call(index)
            assert str(error.value) == str(right_error.value)
        with pytest.raises(TypeError, match="must be integers"):
            index.add(codes[:1], ids=["a"])
        assert len(index) == len(one)
        with pytest.raises(BlockingIOError, match="one process owns it"):
            ShardedIndex.open(tmp_path / "index")
    with pytest.raises(ValueError, match="n_shards=3, not 4"):
        ShardedIndex.open(tmp_path / "index", n_shards=4)
    with ShardedIndex.open(tmp_path / "index", n_replicas=2) as index:
        assert_same(index, one, queries)
        assert index.add(codes[:2]).tolist() == one.add(codes[:2]).tolist()
        assert_replicas_agree(index)


def test_kills_lose_nothing_and_answers_are_whole(
    nodes: Nodes, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Long form: pytest tests/test_cluster.py -k kills --cluster-kills 200 -s."""
    n_kills = request.config.getoption("--cluster-kills")
    chance, queries = random.Random(n_kills), make_codes(300, 5)
    one = HammingIndex(N_BITS)
    index = ShardedIndex.open(tmp_path / "index", n_bits=N_BITS, n_shards=2, n_replicas=2)
    recoveries: dict[bool, list[float]] = {False: [], True: []}
    done = threading.Event()

    def work() -> int:
        n_rounds = 0
        while not done.is_set():
            codes, ids = make_codes(50, 100 + n_rounds), np.arange(50) + 50 * n_rounds
            index.add(codes, ids)
            one.add(codes, ids)
            assert_same(index, one, queries)
            gone = np.array(chance.sample(one.ids().tolist(), 10))
            index.remove(gone)
            one.remove(gone)
            assert_same(index, one, queries, exclude=one.ids()[0])
            changed = np.array(chance.sample(one.ids().tolist(), 10))
            index.update(codes[:10], changed)
            one.update(codes[:10], changed)
            assert (index.ids() == one.ids()).all()
            n_rounds += 1
        return n_rounds

    # One that is silent without being dead: the other replica answers.
    index.add(make_codes(50, 1), np.arange(10**6, 10**6 + 50))
    one.add(make_codes(50, 1), np.arange(10**6, 10**6 + 50))
    silent = members(index)[0]
    os.kill(silent.process.pid, signal.SIGSTOP)
    for _ in range(2):
        assert_same(index, one, queries)
    os.kill(silent.process.pid, signal.SIGCONT)

    working = ThreadPoolExecutor(1).submit(work)
    for number in range(n_kills):
        wait_until(lambda: all_serve(index))
        time.sleep(chance.random() / 2)
        is_node = number % 5 == 4
        victims = {chance.choice(members(index))}
        if is_node:
            victims = {m for m in members(index) if m.node == nodes.id_of_next()}
        dead, started = {member.process.pid for member in victims}, time.monotonic()
        if is_node:
            nodes.kill_one()
        else:
            os.kill(max(dead), signal.SIGKILL)
        wait_until(lambda: not dead & {m.process.pid for m in members(index) if m.process})  # noqa: B023
        wait_until(lambda: all_serve(index))
        recoveries[is_node].append(time.monotonic() - started)
        if is_node:
            nodes.add_one()
        assert not working.done(), working.result()
    done.set()
    n_rounds = working.result()
    assert sum(map(len, recoveries.values())) == n_kills
    assert_same(index, one, queries)
    assert_replicas_agree(index)
    index.close()
    print(f"\n{n_rounds} rounds of 3 changes and 3 searches")
    for name, taken in (("processes", recoveries[False]), ("nodes", recoveries[True])):
        middle, worst = np.percentile(taken or [0.0], [50, 100])
        print(
            f"{len(taken)} {name} killed: all replicas serve again after {middle:.1f} s "
            f"(median), {worst:.1f} s (most)"
        )


OWNER = """
import sys, numpy as np, ray
from ssbhash.cluster import ShardedIndex
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="CRITICAL")
index = ShardedIndex.open(sys.argv[2], n_bits=16, n_shards=2, n_replicas=2)
for first in range(len(index), 10**6, 20):
    codes = np.random.default_rng(first).integers(0, 256, (20, 2), np.uint8)
    index.update(codes, np.arange(first, first + 20))
    print(first + 20, flush=True)
"""


def test_the_owner_is_killed_while_it_writes(
    nodes: Nodes, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    confirmed = 0
    for _ in range(max(1, request.config.getoption("--cluster-kills") // 20)):
        command = [sys.executable, "-c", OWNER, nodes.cluster.address, str(tmp_path / "index")]
        owner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert owner.stdout is not None
        for _ in range(5):
            confirmed = int(owner.stdout.readline())
        owner.kill()
        rest = owner.stdout.read().split()
        confirmed = int(rest[-1]) if rest else confirmed
        owner.wait()
        with ShardedIndex.open(tmp_path / "index") as index:
            assert_replicas_agree(index)
            # What was confirmed, and for each shard all of the change under way or nothing.
            ids = index.ids()
            under_way = np.arange(confirmed, confirmed + 20)
            shard = shards_of(under_way, 2)
            extra = [under_way[shard == number] for number in (0, 1)]
            begun = [extra[n] for n in (0, 1) if np.isin(extra[n], ids).any()]
            expected = np.sort(np.concatenate([np.arange(confirmed), *begun]))
            assert (ids == expected).all()
            firsts = range(0, confirmed + 20, 20)
            codes = np.concatenate(
                [np.random.default_rng(f).integers(0, 256, (20, 2), np.uint8) for f in firsts]
            )
            one = HammingIndex(N_BITS)
            one.add(codes[ids], ids)
            assert_same(index, one, make_codes(50, 0))
            index.remove(ids[ids >= confirmed])


def test_a_silent_shard_is_told(nodes: Nodes, tmp_path: Path) -> None:
    codes, queries = make_codes(500, 0), make_codes(20, 1)
    with ShardedIndex.open(tmp_path / "i", n_bits=N_BITS, n_shards=2, timeout_s=2) as index:
        index.add(codes)
        stopped = members(index)[1]
        os.kill(stopped.process.pid, signal.SIGSTOP)
        with pytest.raises(ShardsUnavailableError, match=r"shard 1.*gave no answer") as error:
            index.search(queries)
        assert error.value.shards == [1]
        found, missing = index.search(queries, allow_partial=True)
        assert missing == [1]
        part = HammingIndex(N_BITS)
        own = np.flatnonzero(shards_of(np.arange(500), 2) == 0)
        part.add(codes[own], own)
        assert (found.ids == part.search(queries).ids).all()
        assert index.within(queries, 2, allow_partial=True)[1] == [1]
        with pytest.raises(ShardsUnavailableError):
            index.get(range(100))
        assert index.stats()["missing"] == [1]
        os.kill(stopped.process.pid, signal.SIGCONT)
        wait_until(lambda: index.search(queries, allow_partial=True)[1] == [])
        # A change that a stopped replica does not confirm is completed when it is replaced.
        os.kill(stopped.process.pid, signal.SIGSTOP)
        with pytest.raises(ShardsUnavailableError, match="did not confirm"):
            index.add(codes)
        wait_until(lambda: all_serve(index))
        assert index.stats()["missing"] == []
        one = HammingIndex(N_BITS)
        one.add(np.concatenate([codes, codes]))
        assert_same(index, one, queries)


def test_a_replica_that_missed_changes_copies_them(nodes: Nodes, tmp_path: Path) -> None:
    codes, queries = make_codes(500, 0), make_codes(20, 1)
    one = HammingIndex(N_BITS)
    folder = tmp_path / "index"
    with ShardedIndex.open(folder, n_bits=N_BITS, n_replicas=2) as index:
        index.add(codes[:200])
        one.add(codes[:200])
    first, second = (folder / "shard-000" / f"replica-{number}" for number in (0, 1))
    shutil.copytree(second, tmp_path / "old")
    with ShardedIndex.open(folder) as index:
        index.add(codes[200:400])
        one.add(codes[200:400])
        # One whose folder is gone, while the index is open.
        lost = members(index)[0]
        shutil.rmtree(first)
        os.kill(lost.process.pid, signal.SIGKILL)
        wait_until(lambda: index.stats()["n_replaced"] == 1 and all_serve(index))
        assert lost.copy == 2
        assert_same(index, one, queries)
        assert_replicas_agree(index)
    # One that is as it was before the last change, while the index is closed.
    shutil.rmtree(second)
    shutil.copytree(tmp_path / "old", second)
    with ShardedIndex.open(folder) as index:
        assert_replicas_agree(index)
        assert_same(index, one, queries)
    # One that had begun a change when it died; then both.
    for broken in ([first], [first, second]):
        for replica in broken:
            path = replica / "progress.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), "is_changing": True}))
        with ShardedIndex.open(folder) as index:
            assert_replicas_agree(index)
            assert_same(index, one, queries)
    # The copy that does not count is never served, even alone.
    shutil.rmtree(first)
    shutil.rmtree(second)
    shutil.copytree(tmp_path / "old", second)
    with pytest.raises(ShardsUnavailableError, match="can be opened"):
        ShardedIndex.open(folder)


def test_shards_of_a_node_share_a_process(nodes: Nodes, tmp_path: Path) -> None:
    codes, queries = make_codes(900, 0), make_codes(20, 1)
    one = HammingIndex(N_BITS)
    one.add(codes)
    with ShardedIndex.open(tmp_path / "index", n_bits=N_BITS, n_shards=6, n_replicas=2) as index:
        index.add(codes)
        for shard in index._fleet.shards:
            assert len({member.node for member in shard.members}) == 2
            assert len({member.process for member in shard.members}) == 2
        processes = index._fleet.processes()
        assert len({(process.node, process.number) for process in processes}) == len(processes) < 12
        # One replica goes wrong: it is opened again, and its neighbours go on.
        crowded = next(p for p in processes if sum(m.process is p for m in members(index)) > 1)
        first, *others = [m for m in members(index) if m.process is crowded]
        handle, handles = first.replica, [member.replica for member in others]
        index._fleet.lose(first, handle, "as if its disk had failed")
        assert_same(index, one, queries)
        wait_until(lambda: all_serve(index))
        assert first.replica != handle
        assert [member.replica for member in others] == handles
        # A question to the handle of before is refused, not answered by the replica of now.
        with pytest.raises(NotCurrentError):
            index.ray.get(handle.change("ask", 0, "ids", {}))
        assert_same(index, one, queries)
        # The process dies, and with it all of them.
        os.kill(crowded.pid, signal.SIGKILL)
        assert_same(index, one, queries)
        wait_until(lambda: index.stats()["n_replaced"] == 2 + len(others) and all_serve(index))
        assert_replicas_agree(index)
        assert_same(index, one, queries)


def test_rebalance_moves_what_must_while_searches_go_on(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssbhash.cluster.sharded_index._MOVED_AT_ONCE", 200)
    codes, ids, queries = make_codes(2000, 0), make_ids(2000, 1), make_codes(100, 2)
    one = HammingIndex(N_BITS)
    one.add(codes, ids)
    index = ShardedIndex.open(tmp_path / "index", n_bits=N_BITS, n_shards=2)
    index.add(codes, ids)
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            assert_same(index, one, queries)
            assert_same(index, one, queries, ids=ids[:50])
            assert (index.get(ids[::9]) == codes[::9]).all()
            assert len(index) == len(one)

    reading = ThreadPoolExecutor(1).submit(read)
    for n_shards in (3, 1):
        index.rebalance(n_shards)
        assert index.n_shards == len(index.stats()["shards"]) == n_shards
    done.set()
    reading.result()
    assert sorted(path.name for path in (tmp_path / "index").glob("shard-*/*")) == ["replica-0"]
    # Interrupted between the two halves of a move: items are in two shards.
    usual, n_calls = index._fleet.change, [0]

    def fail_second(*arguments: Any) -> None:
        n_calls[0] += 1
        if n_calls[0] == 2:
            raise ShardsUnavailableError("as if", [0])
        usual(*arguments)

    monkeypatch.setattr(index._fleet, "change", fail_second)
    with pytest.raises(ShardsUnavailableError):
        index.rebalance(2)
    monkeypatch.undo()
    for call in (lambda: index.search(queries), lambda: index.add(codes)):
        with pytest.raises(RuntimeError, match="rebalance was interrupted"):
            call()
    index.close()
    with ShardedIndex.open(tmp_path / "index") as index:
        assert index.n_shards == 2
        assert_same(index, one, queries)
        assert (index.ids() == one.ids()).all()


def test_build_from_files_goes_on_where_it_stopped(nodes: Nodes, tmp_path: Path) -> None:
    codes, data = make_codes(900, 0), tmp_path / "data"
    for number in range(3):
        (data / f"{number}").mkdir(parents=True)
        np.save(data / f"{number}" / "codes.npy", codes[300 * number : 300 * number + 300])
    paths = data_files([data])
    assert len(paths) == 3
    one = HammingIndex(N_BITS)
    one.add(codes)
    with ShardedIndex.open(tmp_path / "index", n_bits=N_BITS, n_shards=2) as index:
        paths[1].write_bytes(paths[1].read_bytes()[:-1])
        with pytest.raises(ValueError, match=r"codes\.npy"):
            build(index, paths)
        assert len(index) == 300
        np.save(paths[1], codes[300:600])
        # Killed after the items went in, before that was written down.
        index.update(codes[300:600], np.arange(300, 600))
        assert build(index, [*paths, paths[2]]) == 600
        assert build(index, paths) == 0
        assert_same(index, one, codes[:50])
    with pytest.raises(FileNotFoundError, match="no data file"):
        data_files([tmp_path / "index" / "shard-000"])


def test_the_commands(nodes: Nodes, tmp_path: Path) -> None:
    pytest.importorskip("typer")
    pytest.importorskip("torch")
    from ssbhash import SSBVAE
    from ssbhash.models import Pipeline

    vectors = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    model = Pipeline(SSBVAE(n_bits=12, n_epochs=1))
    model.hasher.fit(vectors, np.arange(60) % 3)
    model.save(tmp_path / "model")
    (tmp_path / "data").mkdir()
    lines = [json.dumps({"id": 7 * i, "x": row.tolist()}) for i, row in enumerate(vectors)]
    (tmp_path / "data" / "a.jsonl").write_text("\n".join(lines))
    codes = model.transform(vectors)
    np.save(tmp_path / "queries.npy", codes)
    (tmp_path / "queries.npy.json").write_text('{"n_bits": 12}')

    def run(line: str) -> str:
        env = {**os.environ, "RAY_ADDRESS": nodes.cluster.address}
        command = [sys.executable, "-m", "ssbhash", "cluster", *line.split()]
        done = subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    built = run("build index data --model model --shards 2 --id-field id --vector-field x --json")
    assert json.loads(built)["items"] == 60
    run("rebalance index --shards 1")
    run("search index queries.npy --out found.npz -k 3")
    one = HammingIndex(12)
    one.add(codes, 7 * np.arange(60))
    with np.load(tmp_path / "found.npz") as found:
        assert (found["ids"] == one.search(codes, 3).ids).all()
    assert json.loads(run("stats index --json"))["n"] == 60
