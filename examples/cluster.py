"""An index over shards, one of which dies: Ray on this machine, no training.

    python examples/cluster.py

A hundred thousand codes on three shards with two replicas each. A replica is killed, and the
searches go on.
"""

import os
import signal
import tempfile
import time

import numpy as np
import ray

from ssbhash import HammingIndex
from ssbhash.cluster import ShardedIndex

rng = np.random.default_rng(0)
codes = rng.integers(0, 256, (100_000, 8), dtype=np.uint8)
queries = codes[:1000] ^ (1 << rng.integers(0, 8, (1000, 8))).astype(np.uint8)  # 8 bits flipped
one = HammingIndex(n_bits=64)
one.add(codes)

ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
with (
    tempfile.TemporaryDirectory() as folder,
    ShardedIndex.open(folder, n_bits=64, n_shards=3, n_replicas=2) as index,
):
    index.add(codes)  # on the disks of both replicas now
    found = index.search(queries, k=5)
    equal = bool((found.ids == one.search(queries, k=5).ids).all())
    print(f"{len(index):,} codes on {index.n_shards} shards; as one index: {equal}")

    victim = index.stats()["shards"][0]["replicas"][0]
    os.kill(victim["process"], signal.SIGKILL)
    equal_after = bool((index.search(queries, k=5).ids == found.ids).all())
    while index.stats()["n_replaced"] < 1:
        time.sleep(0.05)
    print(f"one replica killed; the same answers: {equal_after}; it was replaced")
ray.shutdown()
