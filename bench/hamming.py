"""Exact Hamming search: ssbhash beside faiss and usearch, equality checked first.

    python bench/hamming.py                 # the whole table, one thread
    python bench/hamming.py --quick         # a minute
    python bench/hamming.py --bits 64 --n 10000000 --queries 1024 --codes uniform learned
    python bench/hamming.py --bits 64 --n 10000000 --queries 1024 --codes learned --masks 0.99 0.5 0.01
    python bench/hamming.py --device cuda --bits 64 --n 16777216 --queries 4096
    python bench/hamming.py --bits 64 256 --queries 1024 1 --threads 1 2 --json out.json --plot out.png

All contenders solve the same problem in the same process. Results are compared before
anything is timed; a mismatch ends the run with status 1. Machines are noisy, so repeats
of the contenders are interleaved, and the best of each is reported.

Learned codes are sampled from the posterior of an SSB-VAE (preset "paper", 10% of the
labels) trained on scikit-learn's digits, queries from that of its held-out digits. With its
small beta 231 of the 1,500 digits have a code of their own: 7% to 35% are usual.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import itertools
import json
import math
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import ssbhash
from ssbhash.config import config
from ssbhash.engines import native_module

Search = Callable[[], Any]
CORE = native_module()
# Weight of the prior. Of codes of 64 bits with the larger one, nearly all are distinct.
BETAS = {"learned": 0.003, "soft": 0.03}


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")


def best_seconds(run: Search, repeats: int) -> float:
    best = math.inf
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - begin)
    return best


def measured_peaks() -> tuple[float, float]:
    """Measure one core: bytes a second read from memory, bits a second of logic operations."""
    memory = np.ones((1 << 22, 64), np.uint8)
    reading = best_seconds(lambda: CORE.read_all(memory), 7)
    n_bits = CORE.run_logic(1)
    computing = best_seconds(lambda: CORE.run_logic(200_000), 7)
    return memory.nbytes / reading, n_bits * 200_000 / computing


def logic_limit(n_bits: int, bits_per_second: float) -> float:
    """Estimate codes a second if each of n_bits / 2 planes costs a full adder of 5 operations.

    The logic-operation limit of the design: the last adder of each weight is not needed.
    """
    picks = n_bits / 2
    return bits_per_second / (5 * (picks - math.log2(picks) + 1))


@functools.cache
def learned_logits(n_bits: int, beta: float = BETAS["learned"]) -> tuple[np.ndarray, np.ndarray]:
    """Compute logits of digits that a model was trained on, and of others."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    known = np.random.default_rng(0).random(1500) < 0.1
    # The logits of the default preset are no posterior.
    hasher = ssbhash.SSBVAE(n_bits, preset="paper", beta=beta, seed=0, verbose=False)
    hasher.fit(images[:1500], np.where(known, labels[:1500], -1))
    return hasher.logits(images[:1500]), hasher.logits(images[1500:])


def make_codes(n: int, n_bits: int, kind: str, queries: bool) -> np.ndarray:
    """Draw codes [n, n_bytes], uniform or from a trained model's posterior (a key of BETAS)."""
    rng = np.random.default_rng((n_bits, queries))
    if kind == "uniform":
        return rng.integers(0, 256, (n, n_bits // 8), dtype=np.uint8)
    logits = learned_logits(n_bits, BETAS[kind])[queries]
    codes = np.empty((n, n_bits // 8), np.uint8)
    for first in range(0, n, 1 << 18):
        some = logits[rng.integers(0, len(logits), min(1 << 18, n - first))]
        codes[first : first + len(some)] = ssbhash.sample(some, seed=int(queries), first_row=first)
    return codes


def contenders(
    codes: np.ndarray, queries: np.ndarray, k: int, n_threads: int, names: list[str]
) -> dict[str, Search]:
    """Return name -> a call that answers the problem with (distances, ids)."""
    runs: dict[str, Search] = {}
    prepared = ssbhash.prepare(codes) if "prepared" in names else None
    for name in names:
        if name in ssbhash.backends():
            runs[name] = lambda name=name: ssbhash.search(
                codes, queries, k, backend=name, n_threads=n_threads
            )
        elif name == "prepared":
            runs[name] = lambda: ssbhash.search(prepared, queries, k, n_threads=n_threads)
        elif name == "faiss" and importlib.util.find_spec("faiss"):
            import faiss

            faiss.omp_set_num_threads(n_threads)
            index = faiss.IndexBinaryFlat(codes.shape[1] * 8)
            index.add(codes)
            runs[name] = functools.partial(index.search, queries, k)
        elif name == "usearch" and importlib.util.find_spec("usearch"):
            from usearch.index import MetricKind
            from usearch.index import search as usearch_search

            def run() -> tuple[np.ndarray, np.ndarray]:
                found = usearch_search(
                    codes, queries, k, MetricKind.Hamming, exact=True, threads=n_threads
                )
                shape = (len(queries), -1)
                return found.distances.reshape(shape), found.keys.reshape(shape)

            runs[name] = run
    return runs


def check_equal(codes: np.ndarray, queries: np.ndarray, k: int, runs: dict[str, Search]) -> None:
    """Exit with status 1 unless all find the same distances, and our engines the same ids."""
    truth = ssbhash.search(codes, queries[:2], k, backend="reference")
    answers = {name: run() for name, run in runs.items()}
    first = next(iter(answers.values()))
    for name, (distances, ids) in answers.items():
        same = np.array_equal(np.asarray(distances, np.int64), np.asarray(first[0], np.int64))
        same &= np.array_equal(np.asarray(distances[:2], np.int64), truth.distances)
        if name not in ("faiss", "usearch"):  # their ids are free to differ on ties
            same &= np.array_equal(ids, first[1]) and np.array_equal(ids[:2], truth.ids)
        if not same:
            sys.exit(f"MISMATCH: {name} on {codes.shape} codes, {queries.shape} queries, k={k}")


# A run of fewer seconds is repeated at once: the others' codes would have driven its own out of
# the cache, for every contender alike.
SHORT = 0.05


def measure(runs: dict[str, Search], seconds: float) -> dict[str, float]:
    """Measure the best time of each, interleaved, until each had `seconds` (at least 2 runs)."""
    best = dict.fromkeys(runs, math.inf)
    spent = dict.fromkeys(runs, 0.0)
    for repeat in range(200):
        for name, run in runs.items():
            if repeat < 2 or spent[name] < seconds:
                n_runs = 3 if best[name] < SHORT else 1
                took = best_seconds(run, n_runs)
                best[name] = min(best[name], took)
                spent[name] += n_runs * took
    return best


def masked_times(
    codes: np.ndarray, queries: np.ndarray, k: int, options: argparse.Namespace, n_threads: int
) -> dict[str, float]:
    """Time of a filtered search over that of an unfiltered one, for each share of allowed codes.

    Checked first against a search of the allowed codes alone.
    """
    databases = {"native": codes, "prepared": ssbhash.prepare(codes)}
    rng = np.random.default_rng(0)
    runs: dict[str, Search] = {}
    for name, database in databases.items():
        for share in (1.0, *options.masks):
            mask = None if share == 1 else rng.random(len(codes)) < share
            runs[f"{name} {share}"] = functools.partial(
                ssbhash.search, database, queries, k, mask=mask, n_threads=n_threads
            )
            if mask is not None:
                allowed = np.flatnonzero(mask)
                alone = ssbhash.search(codes[allowed], queries[:32], k, n_threads=n_threads)
                found = ssbhash.search(database, queries[:32], k, mask=mask, n_threads=n_threads)
                if not np.array_equal(allowed[alone.ids], found.ids):
                    sys.exit(f"MISMATCH: mask of {share} on {name} codes")
    seconds = measure(runs, 0.2 if options.quick else options.seconds)
    return {
        name: took / seconds[f"{name.split()[0]} 1.0"]
        for name, took in seconds.items()
        if not name.endswith(" 1.0")
    }


class Problem(NamedTuple):
    """One row of the table."""

    codes: str
    threads: int
    bits: int
    n: int
    queries: int
    k: int


def problems(options: argparse.Namespace) -> list[Problem]:
    if options.quick:
        sizes = [(bits, 1 << 18, nq, 10) for bits in (32, 64, 128, 256) for nq in (256, 1)]
    elif options.queries:
        sizes = list(itertools.product(options.bits, [options.n], options.queries, options.k))
    else:
        cases = [(1024, 10), (1024, 100), (32, 10), (1, 10)]
        sizes = [(bits, options.n, *case) for bits in options.bits for case in cases]
        sizes.append((64, 1 << 24, 1, 10))
    return [
        Problem(codes, threads, *size)
        for size in sizes
        for codes in options.codes
        for threads in options.threads
    ]


def print_header(options: argparse.Namespace, bandwidth: float, logic: float) -> dict[str, Any]:
    header = {
        "cpu": cpu_name(),
        "isa": config()["isa"],
        "compiler": config()["compiler"],
        "ssbhash": ssbhash.__version__,
        "numpy": np.__version__,
        "faiss": config()["faiss"],
        "numba": config()["numba"],
        "read GB/s": round(bandwidth / 1e9, 1),
        "logic Gop/s": round(logic / 1e9 / (CORE.run_logic(1) / 12), 2),
    }
    for name, value in header.items():
        print(f"# {name:12} {value}")
    return header


def run_row(
    options: argparse.Namespace, problem: Problem, peaks: tuple[float, float]
) -> dict[str, Any]:
    kind, threads, n_bits, n, n_queries, k = problem
    codes = make_codes(n, n_bits, kind, queries=False)
    queries = make_codes(n_queries, n_bits, kind, queries=True)
    runs = contenders(codes, queries, k, threads, options.contenders)
    check_equal(codes, queries, k, runs)
    seconds = measure(runs, 0.2 if options.quick else options.seconds)
    row: dict[str, Any] = problem._asdict()
    row["gcodes"] = {name: n * n_queries / one / 1e9 for name, one in seconds.items()}
    row["queries_per_second"] = {name: n_queries / one for name, one in seconds.items()}
    if "faiss" in seconds:
        row["vs_faiss"] = seconds["faiss"] / seconds["native"]
    if options.masks:
        row["masked"] = masked_times(codes, queries, k, options, threads)
    if n_queries == 1:
        row["of_bandwidth"] = codes.nbytes / seconds["native"] / peaks[0]
    else:
        rate = n * n_queries / seconds["native"]
        row["of_logic"] = rate / threads / logic_limit(n_bits, peaks[1])
    return row


def print_row(row: dict[str, Any], names: list[str]) -> None:
    rates = " ".join(f"{row['gcodes'].get(name, math.nan):9.2f}" for name in names)
    share = "of_bandwidth" if "of_bandwidth" in row else "of_logic"
    print(
        f"{row['codes']:8}{row['threads']:3}{row['bits']:5}{row['n']:9} {row['queries']:7} "
        f"{row['k']:5} {rates} {row['queries_per_second']['native']:11.0f} "
        f"{row.get('vs_faiss', math.nan):8.2f} {100 * row[share]:4.0f}% {share}",
        flush=True,
    )
    for name, ratio in row.get("masked", {}).items():
        print(f"    mask: {name:14} allowed: {ratio:5.2f} times the unmasked", flush=True)


def plot(rows: list[dict[str, Any]], path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), constrained_layout=True)
    most = max(row["queries"] for row in rows)
    k = min(row["k"] for row in rows)
    first = rows[0]["codes"], rows[0]["threads"]
    chosen = [row for row in rows if (row["codes"], row["threads"]) == first]
    chosen = [row for row in chosen if row["queries"] == most and row["k"] == k]
    for name in chosen[0]["gcodes"]:
        points = [(row["bits"], row["gcodes"][name]) for row in chosen]
        axes.loglog(*zip(*points, strict=True), marker="o", label=name)
    axes.set_xticks([row["bits"] for row in chosen], [str(row["bits"]) for row in chosen])
    axes.set_xlabel("bits")
    axes.set_ylabel("billion codes compared a second")
    axes.set_title(f"Exact Hamming search, {most} queries, k = {k}")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bits", type=int, nargs="+", default=[32, 64, 128, 256, 512])
    parser.add_argument("--n", type=int, default=1 << 20, help="codes in the database")
    parser.add_argument("--queries", type=int, nargs="+", help="default: the whole table")
    parser.add_argument("--k", type=int, nargs="+", default=[10])
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--codes", choices=["uniform", "learned"], nargs="+", default=["uniform"])
    parser.add_argument(
        "--contenders",
        nargs="+",
        default=["native", "prepared", "numba", "faiss"],
        help="of native, prepared, numba, faiss, usearch",
    )
    parser.add_argument(
        "--masks", type=float, nargs="+", default=[], help="shares of codes allowed"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each contender and row")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", help="write the results here")
    parser.add_argument("--plot", help="write a picture here")
    options = parser.parse_args()
    if any(bits < 8 or bits % 8 for bits in options.bits):
        parser.error("--bits must be multiples of 8: faiss takes no others")
    if options.device == "cuda":
        return options
    if "native" not in options.contenders or "native" not in ssbhash.backends():
        parser.error("the native engine must be present and among the contenders")
    return options


def main() -> None:
    options = parse()
    if options.device == "cuda":
        import on_gpu

        on_gpu.time_search(options.bits, options.n, options.queries or [1, 32, 4096], options.k)
        return
    peaks = measured_peaks()
    header = print_header(options, *peaks)
    rates = " ".join(f"{name:>9}" for name in options.contenders)
    print(
        f"{'codes':8}{'t':>3}{'bits':>5}{'n':>9} {'queries':>7} {'k':>5} {rates} (G codes/s)"
        "  queries/s vs faiss"
    )
    rows = []
    for problem in problems(options):
        rows.append(run_row(options, problem, peaks))
        print_row(rows[-1], options.contenders)
    if options.json:
        Path(options.json).write_text(json.dumps({"header": header, "rows": rows}, indent=1))
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main()
