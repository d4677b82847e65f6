"""Shards on one machine beside one index: equality, overhead, recovery.

    python bench/cluster.py                                 # 10 million codes of 64 bits, 8 shards
    python bench/cluster.py --n 1000000 --shards 4 --codes uniform

"one index" holds all codes and uses `--threads` threads. "shards" is the search of the cluster
without the cluster: the same folders, opened in one process, searched by so many threads at a time.
What the cluster takes beyond that is its overhead: sending, waiting, merging. Run it on as many
CPUs as threads. Codes are those of `bench/hamming.py`.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import ssbhash
from ssbhash.cluster import ShardedIndex

sys.path.insert(0, str(Path(__file__).parent))
from hamming import make_codes


def seconds(call: Callable[[], Any]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def check(index: ShardedIndex, one: ssbhash.HammingIndex, queries: np.ndarray, n: int) -> None:
    """Compare all answers, without and with filters."""
    n_filtered = len(queries) // 10
    filters: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
        "all": (queries, {}),
        "mask": (queries[:n_filtered], {"mask": np.arange(n) % 3 == 0}),
        "ids": (queries[:n_filtered], {"ids": np.arange(0, n, 101)}),
        "exclude": (queries[:n_filtered], {"exclude": np.arange(n_filtered), "max_distance": 9}),
    }
    for name, (some, options) in filters.items():
        found, right = index.search(some, 10, **options), one.search(some, 10, **options)
        assert (found.ids == right.ids).all(), name
        assert (found.distances == right.distances).all(), name
        n_ties = int((right.distances[:, 1:] == right.distances[:, :-1]).sum())
        print(f"equal: {len(some):,} queries, {name}; {n_ties:,} ties among the neighbours")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=10_000_000)
    parser.add_argument("--bits", type=int, default=64)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--codes", nargs="+", default=["learned", "uniform"])
    parser.add_argument("--kills", type=int, default=5)
    options = parser.parse_args()
    import ray

    # Workers import from here too; the source folder's ssbhash may have no extension.
    os.chdir(Path(__file__).parent)
    ray.init(
        num_cpus=options.threads, include_dashboard=False, log_to_driver=False,
        object_store_memory=512 << 20,
    )  # fmt: skip
    for kind in options.codes:
        codes = make_codes(options.n, options.bits, kind, False)
        queries = make_codes(options.queries, options.bits, kind, True)
        print(f"\n{kind}: {options.n:,} codes of {options.bits} bits, {options.shards} shards")
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder) / "index", codes, queries, options)


def measure(
    folder: Path, codes: np.ndarray, queries: np.ndarray, options: argparse.Namespace
) -> None:
    n_bits = 8 * codes.shape[1]
    one = ssbhash.HammingIndex(n_bits)
    took = seconds(lambda: one.add(codes))
    print(
        f"one index: added in {took:.1f} s, layouts {[s['layout'] for s in one.stats()['segments']]}"
    )
    with ShardedIndex.open(folder, n_bits=n_bits, n_shards=options.shards, timeout_s=600) as index:
        took = seconds(lambda: index.add(codes))
        print(f"shards: added in {took:.1f} s, on disk")
        check(index, one, queries, len(codes))
        shards = [
            ssbhash.HammingIndex.open(path)
            for path in sorted(folder.glob("shard-*/replica-0/index"))
        ]
        pool = ThreadPoolExecutor(options.threads)
        print(f"{'batch':>6} {'one index':>12} {'shards':>12} {'cluster':>12} {'overhead':>9}")
        for n_queries in (n for n in (1, 64, 1024, 8192) if n <= len(queries)):
            some = queries[:n_queries]
            taken = np.empty((3, 15))
            for turn in range(taken.shape[1]):
                taken[0, turn] = seconds(lambda: one.search(some, n_threads=options.threads))  # noqa: B023
                taken[1, turn] = seconds(
                    lambda: list(pool.map(lambda one: one.search(some, n_threads=1), shards))  # noqa: B023
                )
                taken[2, turn] = seconds(
                    lambda: index.search(some, n_threads=options.threads)  # noqa: B023
                )
            alone, inside, whole = np.median(taken, axis=1) * 1e3
            print(
                f"{n_queries:6} {alone:9.2f} ms {inside:9.2f} ms {whole:9.2f} ms "
                f"{100 * (whole / inside - 1):7.1f} %"
            )
        del shards
    if not options.kills:
        return
    with ShardedIndex.open(folder, n_replicas=2, timeout_s=600) as index:
        taken = []
        for number in range(options.kills):
            before = index.stats()
            shards = before["shards"]
            victim = shards[number % len(shards)]["replicas"][0]["process"]
            start = time.perf_counter()
            os.kill(victim, signal.SIGKILL)
            index.search(queries[:64], 10)
            answered = time.perf_counter() - start
            while True:
                now = index.stats()
                if now["n_replaced"] > before["n_replaced"] and all(
                    one["is_serving"] for shard in now["shards"] for one in shard["replicas"]
                ):
                    break
                time.sleep(0.02)
            taken.append((answered, time.perf_counter() - start))
        middle = np.median(np.array(taken), axis=0)
        print(
            f"a replica killed, of 2 for each shard: a search of 64 queries meanwhile takes "
            f"{middle[0]:.2f} s, the replica serves again after {middle[1]:.2f} s (median of "
            f"{options.kills})"
        )


if __name__ == "__main__":
    main()
