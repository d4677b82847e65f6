"""A billion codes and more, from what one machine measures: memory, machines, latency, network.

    python bench/scale.py                              # measures for two minutes, then simulates
    python bench/scale.py --measured scale.json        # simulates again with the figures of before

Measured, for each number of bits and layout: bytes a code, and the time of batches of an index at two sizes, which gives
the time of a batch as a + b * codes. Codes are those of `bench/hamming.py`, under ids that
are spread as those of a shard are.

Simulated: queries arrive at random (Poisson). Those that wait become a batch, which goes to every shard;
its answer is there when the slowest shard has answered and the results are merged. The time of
a shard is the line above times a measured batch's time over the median one. Nothing below the
line "simulated" has run on more than one machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import ssbhash

sys.path.insert(0, str(Path(__file__).parent))
from hamming import make_codes

BITS = (64, 128, 256)
SIZES = (500_000, 2_000_000)
BATCHES = (1, 16, 128)
K = 10
# An answer holds an int32 and an int64 a neighbour; a message costs about so much beside.
NEIGHBOUR_BYTES, MESSAGE_BYTES = 12, 200


def measured(n_bits: int, layout: str) -> dict[str, Any]:
    """Bytes a code, seconds of batches at both sizes, and how much those vary."""
    codes = make_codes(max(SIZES), n_bits, "learned", False)
    queries = make_codes(2000, n_bits, "learned", True)
    found: dict[str, Any] = {"seconds": {}, "spread": []}
    for n in SIZES:
        index = ssbhash.HammingIndex(n_bits, layout=layout)
        index.add(codes[:n], ids=3 * np.arange(n))
        index.compact()
        found["bytes"] = index.stats()["nbytes"] / n
        for batch in BATCHES:
            taken = []
            started = time.perf_counter()
            while len(taken) < 8 or (time.perf_counter() - started < 0.7 and len(taken) < 300):
                first = batch * len(taken) % (len(queries) - batch)
                start = time.perf_counter()
                index.search(queries[first : first + batch], K)
                taken.append(time.perf_counter() - start)
            middle = float(np.median(taken))
            found["seconds"][f"{n}/{batch}"] = middle
            found["spread"] += (np.array(taken) / middle).tolist()
    parts = [(index.search(queries[:128], K), 0) for _ in range(16)]
    start = time.perf_counter()
    for _ in range(20):
        ssbhash.merge(parts, K)
    found["merge_seconds"] = (time.perf_counter() - start) / 20 / 128 / 16  # a query and shard
    return found


def seconds_of(figures: dict[str, Any], n: float, batch: float) -> float:
    """Seconds of a batch on a shard of n codes: linear in the codes, and between batches."""
    few, many = SIZES
    times = []
    for size in BATCHES:
        low, high = figures["seconds"][f"{few}/{size}"], figures["seconds"][f"{many}/{size}"]
        slope = max(0.0, (high - low) / (many - few))
        times.append(max(low, low + slope * (n - few)))
    if batch >= BATCHES[-1]:
        return times[-1] * batch / BATCHES[-1]
    return float(np.interp(batch, BATCHES, times))


def simulate(
    figures: dict[str, Any],
    n: float,
    n_shards: int,
    rate: float,
    *,
    round_trip: float,
    n_queries: int = 20_000,
) -> tuple[float, float, float]:
    """Return the median and the 99th percentile of the latency, and the mean batch."""
    rng = np.random.default_rng(0)
    arrivals = np.cumsum(rng.exponential(1 / rate, n_queries))
    spread = np.array(figures["spread"])
    latency = np.empty(n_queries)
    free, first, n_batches = 0.0, 0, 0
    while first < n_queries:
        begin = max(free, arrivals[first])
        last = int(np.searchsorted(arrivals, begin, side="right"))
        last = min(max(last, first + 1), first + 256)
        batch = last - first
        slowest = rng.choice(spread, n_shards).max()
        free = begin + seconds_of(figures, n / n_shards, batch) * slowest
        done = free + round_trip + figures["merge_seconds"] * n_shards * batch
        latency[first:last] = done - arrivals[first:last]
        first, n_batches = last, n_batches + 1
    later = latency[n_queries // 4 :]  # the queue has settled by then
    return float(np.median(later)), float(np.percentile(later, 99)), n_queries / n_batches


def most_queries(figures: dict[str, Any], n: float, n_shards: int) -> float:
    """Return the queries a second of full batches, each as slow as its slowest shard."""
    rng = np.random.default_rng(0)
    slowest = rng.choice(np.array(figures["spread"]), (200, n_shards)).max(1).mean()
    return 256 / (seconds_of(figures, n / n_shards, 256) * float(slowest))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measured", type=Path, help="File of figures: read, or written.")
    parser.add_argument("--memory-gb", type=float, default=256, help="For codes, a machine.")
    parser.add_argument(
        "--speed", type=float, default=16, help="Of a machine: times this one's, as by more cores."
    )
    parser.add_argument("--round-trip-us", type=float, default=300, help="To a shard and back.")
    options = parser.parse_args()
    if options.measured and options.measured.exists():
        figures = json.loads(options.measured.read_text())
    else:
        figures = {
            f"{n_bits} {layout}": measured(n_bits, layout)
            for n_bits in BITS
            for layout in ("flat", "auto")
        }
        if options.measured:
            options.measured.write_text(json.dumps(figures))
    print("measured:")
    print(f"{'bits, layout':>12} {'bytes a code':>12}  ms of a batch at {SIZES[1]:,} codes")
    for name, found in figures.items():
        times = [f"{found['seconds'][f'{SIZES[1]}/{b}'] * 1e3:8.2f} ({b})" for b in BATCHES]
        print(f"{name:>12} {found['bytes']:12.1f}  {' '.join(times)}")
    for found in figures.values():
        found["seconds"] = {name: s / options.speed for name, s in found["seconds"].items()}
    print(f"\nsimulated, machines {options.speed:g} times as fast:")
    print(f"{'codes':>6} {'bits, layout':>12} {'GB':>7} {'machines':>8} {'queries/s':>9} ", end="")
    print(f"at half of that: {'p50 ms':>8} {'p99 ms':>8} {'batch':>6} {'kB/query':>9}")
    for exponent in (8, 9, 10, 11):
        for name, found in figures.items():
            n = 10.0**exponent
            gigabytes = n * found["bytes"] / 1e9
            machines = int(np.ceil(gigabytes / options.memory_gb))
            most = most_queries(found, n, machines)
            middle, late, batch = simulate(
                found, n, machines, most / 2, round_trip=options.round_trip_us / 1e6
            )
            answer = K * NEIGHBOUR_BYTES + 2 * MESSAGE_BYTES / batch + int(name.split()[0]) / 8
            print(
                f"{f'10^{exponent}':>6} {name:>12} {gigabytes:7.0f} {machines:8} {most:9.1f} {'':16} "
                f"{middle * 1e3:8.1f} {late * 1e3:8.1f} {batch:6.0f} {machines * answer / 1e3:9.2f}"
            )
    print("\nmore machines than the memory needs, 10^9 codes of 64 bits, flat, 100 queries/s:")
    print(f"{'machines':>8} {'queries/s':>9} {'p50 ms':>8} {'p99 ms':>8}")
    for machines in (1, 2, 4, 8, 16, 32, 64):
        found = figures["64 flat"]
        most = most_queries(found, 1e9, machines)
        shown = f"{machines:8} {most:9.1f}"
        if most > 100:
            middle, late, _ = simulate(
                found, 1e9, machines, 100, round_trip=options.round_trip_us / 1e6
            )
            shown += f" {middle * 1e3:8.1f} {late * 1e3:8.1f}"
        print(shown)


if __name__ == "__main__":
    main()
