"""Threads: the default, forks, concurrent searches, interrupts."""

import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import ssbhash
from ssbhash.threads import _own_groups, _quota

RNG = np.random.default_rng(0)
CODES = RNG.integers(0, 256, (200_000, 8), dtype=np.uint8)
QUERIES = RNG.integers(0, 256, (16, 8), dtype=np.uint8)


def test_default_follows_affinity_environment_and_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSBHASH_NUM_THREADS", raising=False)
    if hasattr(os, "sched_getaffinity"):
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(allowed)})
        try:
            assert ssbhash.get_num_threads() == 1
        finally:
            os.sched_setaffinity(0, allowed)
    monkeypatch.setenv("SSBHASH_NUM_THREADS", "3")
    assert ssbhash.get_num_threads() == 3
    ssbhash.set_num_threads(5)
    assert ssbhash.get_num_threads() == 5
    ssbhash.set_num_threads(None)
    monkeypatch.setenv("SSBHASH_NUM_THREADS", "many")
    with pytest.raises(ValueError, match="SSBHASH_NUM_THREADS must be an integer"):
        ssbhash.get_num_threads()


@pytest.mark.parametrize(
    ("files", "granted"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "max 100000\n"}, 1 << 30),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 1 << 30),
        ({}, 1 << 30),
    ],
)
def test_control_group_quota(tmp_path, files: dict[str, str], granted: int) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert _quota(tmp_path) == granted


def test_quota_of_the_own_group_and_of_those_above(tmp_path) -> None:
    listing = tmp_path / "listing"
    listing.write_text("4:memory:/a\n3:cpu,cpuacct:/jobs/7\n0::/user/session\n")
    own = _own_groups(listing)
    assert own == ("user/session", "jobs/7")
    assert _own_groups(tmp_path / "absent") == ("", "")
    for folder, quota in (("user/session", "max"), ("user", "250000")):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "cpu.max").write_text(f"{quota} 100000\n")
    assert _quota(tmp_path, own) == 3
    (tmp_path / "cpu/jobs/7").mkdir(parents=True)
    (tmp_path / "cpu/jobs/7/cpu.cfs_quota_us").write_text("100000")
    (tmp_path / "cpu/jobs/7/cpu.cfs_period_us").write_text("100000")
    assert _quota(tmp_path, ("user/session", "jobs/7/absent")) == 1


@pytest.mark.parametrize(("asked", "threads"), [("1", 1), (" 1,4", 1), ("0", None), ("all", None)])
def test_openmp_s_limit_is_kept(
    asked: str, threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSBHASH_NUM_THREADS", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    allowed = ssbhash.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert ssbhash.get_num_threads() == (threads or allowed)
    monkeypatch.setenv("SSBHASH_NUM_THREADS", "3")
    assert ssbhash.get_num_threads() == 3


def test_workers_of_joblib_share_the_cpus() -> None:
    joblib = pytest.importorskip("joblib")
    call = joblib.delayed(ssbhash.get_num_threads)
    found = joblib.Parallel(2, inner_max_num_threads=1, backend="loky")(call() for _ in range(2))
    assert found == [1, 1]


def _search_in_child(queue) -> None:
    queue.put(ssbhash.search(CODES, QUERIES, 5, n_threads=2).ids)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_search_works_after_a_fork() -> None:
    expected = ssbhash.search(CODES, QUERIES, 5, n_threads=2).ids  # the pool runs now
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_search_in_child, args=(queue,))
    child.start()
    found = queue.get(timeout=60)
    child.join(60)
    assert child.exitcode == 0
    np.testing.assert_array_equal(found, expected)


class _Neighbours:
    """A torch dataset whose items are found by search, in worker processes."""

    def __len__(self) -> int:
        return len(QUERIES)

    def __getitem__(self, i: int):
        return ssbhash.search(CODES, QUERIES[i], 5, n_threads=2).ids


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_search_works_in_data_loader_workers() -> None:
    data = pytest.importorskip("torch.utils.data")
    expected = ssbhash.search(CODES, QUERIES, 5, n_threads=2).ids
    loader = data.DataLoader(_Neighbours(), batch_size=4, num_workers=2, timeout=60)
    np.testing.assert_array_equal(np.vstack([batch.numpy() for batch in loader]), expected)


def test_concurrent_searches_agree(backend: str) -> None:
    if backend == "reference":
        pytest.skip("one thread of numpy")
    expected = ssbhash.search(CODES, QUERIES, 5, backend=backend, n_threads=1).ids

    def search(_: int) -> np.ndarray:
        return ssbhash.search(CODES, QUERIES, 5, backend=backend, n_threads=3).ids

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(search, range(12)):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_ctrl_c_interrupts_a_long_search(n_threads: int) -> None:
    if "native" not in ssbhash.backends():
        pytest.skip("no native engine here")
    queries = RNG.integers(0, 256, (200_000, 8), dtype=np.uint8)  # minutes of work
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    begin = time.monotonic()
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        ssbhash.search(CODES, queries, 5, n_threads=n_threads)
    timer.join()
    assert time.monotonic() - begin < 20  # not a speed claim: it ended early
    assert ssbhash.search(CODES, QUERIES, 5, n_threads=n_threads).ids.shape == (16, 5)
