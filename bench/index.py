"""An index beside the flat scan, faiss and usearch: single queries, batches, changes, memory.

    python bench/index.py                              # 10 million codes of 64 bits, some minutes
    python bench/index.py --n 1000000 --bits 64 128 --codes learned uniform real --k 1 10 100
    python bench/index.py --codes learned --parts queries --peers hnsw multihash    # one cell

One thread. Each exact contender must find what `ssbhash.search` finds before it is timed. An
approximate one is timed with the first setting that reaches a recall of 0.95, else with its last;
a neighbour counts if it is as near as the true k-th. Graphs take minutes a million to build.
Learned codes are those of `bench/hamming.py`: sampled from a trained posterior, queries from that
of other items. Of soft ones nearly all are distinct. Real codes are the image hashes of
`codes64_image_text.npz` in --data; every 100th is a query.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import ssbhash

sys.path.insert(0, str(Path(__file__).parent))
from hamming import best_seconds, make_codes, measure

Search = Callable[[np.ndarray, int], Any]  # (queries, k) -> distances, ids
PEERS = ["multihash", "ivf", "hnsw", "usearch"]
SECONDS = 3.0  # of single queries, at most


def codes_and_queries(kind: str, n: int, n_bits: int, data: str) -> tuple[np.ndarray, np.ndarray]:
    if kind != "real":
        return make_codes(n, n_bits, kind, False), make_codes(1024, n_bits, kind, True)
    with np.load(Path(data) / "codes64_image_text.npz") as sets:
        codes = np.concatenate([sets[name] for name in sets if name.endswith("hash64")])[:n]
    is_query = np.arange(len(codes)) % 100 == 0
    return codes[~is_query], codes[is_query][:1024]


def approximate(codes: np.ndarray, peers: list[str]) -> Iterator[tuple[str, list[Search]]]:
    """Names of approximate indexes, each with searches from fast to thorough."""
    import faiss

    n_bits = 8 * codes.shape[1]

    def settings(index: Any, owner: Any, name: str, values: list[int]) -> list[Search]:
        def at(value: int) -> Search:
            def search(queries: np.ndarray, k: int) -> Any:
                setattr(owner, name, value)
                return index.search(queries, k)

            return search

        return [at(value) for value in values]

    if "multihash" in peers:
        for n_hashes, n_hash_bits in ((4, 16), (3, 20)):
            multi = faiss.IndexBinaryMultiHash(n_bits, n_hashes, n_hash_bits)
            multi.add(codes)
            name = f"MultiHash {n_hashes}x{n_hash_bits}"
            yield name, settings(multi, multi, "nflip", [0, 1, 2, 3])
    if "ivf" in peers:
        lists = faiss.IndexBinaryIVF(faiss.IndexBinaryFlat(n_bits), n_bits, 1024)
        lists.train(codes[:: max(1, len(codes) // 100_000)])
        lists.add(codes)
        yield "faiss IVF", settings(lists, lists, "nprobe", [1, 4, 16, 64, 256])
    if "hnsw" in peers:
        graph = faiss.IndexBinaryHNSW(n_bits, 32)
        graph.add(codes)
        yield "faiss HNSW", settings(graph, graph.hnsw, "efSearch", [16, 64, 256, 1024, 4096])
    if "usearch" in peers:
        from usearch.index import Index

        other = Index(ndim=n_bits, metric="hamming", dtype="b1", connectivity=32)
        other.add(np.arange(len(codes)), codes, threads=1)

        def expanded(queries: np.ndarray, k: int) -> Any:
            found = other.search(queries, k, threads=1)
            return found.distances.reshape(len(queries), -1), found.keys

        usearch = argparse.Namespace(search=expanded)
        yield "usearch", settings(usearch, other, "expansion_search", [16, 64, 256, 1024, 4096])


def recall(search: Search, queries: np.ndarray, k: int, expected: Any) -> float:
    distances = np.asarray(search(queries, k)[0])
    return float(((distances >= 0) & (distances <= expected.distances[:, -1:])).mean())


def check(found: Any, expected: Any) -> None:
    if found.ids.tolist() != expected.ids.tolist() or (found.distances != expected.distances).any():
        sys.exit("the index finds other neighbours than the flat scan")


def singles(search: Search, queries: np.ndarray, k: int) -> str:
    """Time each query alone: the mean, the median and the 99th percentile."""
    taken: list[float] = []
    while sum(taken) < SECONDS and len(taken) < 2 * len(queries):
        query = queries[len(taken) % len(queries)][None]
        start = time.perf_counter()
        search(query, k)
        taken.append(time.perf_counter() - start)
    mean, middle, late = np.mean(taken), *np.percentile(taken, [50, 99])
    return f"{mean * 1e6:11.1f} {middle * 1e6:11.1f} {late * 1e6:11.1f}"


def bench_queries(
    index: ssbhash.HammingIndex, codes: np.ndarray, queries: np.ndarray, options: Any
) -> None:
    import faiss

    flat = faiss.IndexBinaryFlat(8 * codes.shape[1])
    flat.add(codes)
    exact: dict[str, Search] = {
        "ssbhash index": index.search,
        "ssbhash flat": lambda some, k: ssbhash.search(codes, some, k),
        "faiss Flat": flat.search,
    }
    others = dict(approximate(codes, options.peers))
    for k in options.k:
        expected = ssbhash.search(codes, queries[:100], k)
        check(index.search(queries[:100], k), expected)
        print(f"{'k':>4} {'one query':16} {'recall':>7} {'mean us':>11} {'p50':>11} {'p99':>11}")
        for name, search in exact.items():
            print(f"{k:4} {name:16} {1:7.3f} {singles(search, queries, k)}", flush=True)
        for name, searches in others.items():
            for search in searches:
                reached = recall(search, queries[:100], k, expected)
                if reached >= 0.95:
                    break
            print(f"{k:4} {name:16} {reached:7.3f} {singles(search, queries, k)}", flush=True)


def bench_batches(index: ssbhash.HammingIndex, codes: np.ndarray, queries: np.ndarray) -> None:
    prepared = ssbhash.prepare(codes)
    check(index.search(queries, 10), ssbhash.search(prepared, queries, 10))
    runs = {
        "index": lambda: index.search(queries, 10),
        "prepared": lambda: ssbhash.search(prepared, queries, 10),
        "flat": lambda: ssbhash.search(codes, queries, 10),
    }
    seconds = measure(runs, 1.0)
    told = ", ".join(f"{name} {taken:.4f} s" for name, taken in seconds.items())
    print(f"{len(queries)} queries at once, k = 10: {told}", flush=True)


def bench_filters(index: ssbhash.HammingIndex, codes: np.ndarray, queries: np.ndarray) -> None:
    """90% filtered away, 1% removed, 90% removed: times of the whole batch, of the unfiltered."""
    whole = best_seconds(lambda: index.search(queries, 10), 3)
    alone = singles(index.search, queries, 10)
    print(f"{'':24} batch of {len(queries)} one query: mean us, p50, p99")
    print(f"{'all':24} {1:13.2f} {alone}")
    rng = np.random.default_rng(0)
    order = rng.permutation(len(codes))
    mask = np.zeros(len(codes), bool)
    mask[order[: len(codes) // 10]] = True
    expected = ssbhash.search(codes, queries[:50], 10, mask=mask)
    check(index.search(queries[:50], 10, mask=mask), expected)
    share = best_seconds(lambda: index.search(queries, 10, mask=mask), 3) / whole
    one = singles(lambda some, k: index.search(some, k, mask=mask), queries, 10)
    print(f"{'90% filtered away':24} {share:13.2f} {one}", flush=True)
    own = ssbhash.HammingIndex(8 * codes.shape[1])
    own.add(codes[mask], ids=np.flatnonzero(mask))
    check(own.search(queries[:50], 10), expected)
    share = best_seconds(lambda: own.search(queries, 10), 3) / whole
    print(
        f"{'index of these 10% alone':24} {share:13.2f} {singles(own.search, queries, 10)}",
        flush=True,
    )
    gone = 0
    for percent in (1, 90):
        stop = len(codes) * percent // 100
        index.remove(order[len(codes) - stop : len(codes) - gone])
        gone = stop
        mask = np.ones(len(codes), bool)
        mask[order[len(codes) - stop :]] = False
        expected = ssbhash.search(codes, queries[:50], 10, mask=mask)
        check(index.search(queries[:50], 10), expected)
        share = best_seconds(lambda: index.search(queries, 10), 3) / whole
        one = singles(index.search, queries, 10)
        print(f"{f'{percent}% removed':24} {share:13.2f} {one}", flush=True)


def bench_folder(index: ssbhash.HammingIndex, codes: np.ndarray) -> None:
    """Time to open, and of single adds that are confirmed, synced in groups of a thousand."""
    with tempfile.TemporaryDirectory() as folder:
        index.save(Path(folder) / "index")
        start = time.perf_counter()
        ssbhash.HammingIndex.open(Path(folder) / "index")
        opened = (time.perf_counter() - start) * 1e3
        with ssbhash.HammingIndex.open(Path(folder) / "index", "a") as writer:
            start = time.perf_counter()
            for i, code in enumerate(codes[:5000]):
                writer.add(code)
                if i % 1000 == 999:
                    writer.commit()
            rate = 5000 / (time.perf_counter() - start)
    print(f"opened in {opened:.1f} ms; {rate:,.0f} single adds/s, synced in groups of 1,000")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, nargs="+", default=[10_000_000])
    parser.add_argument("--bits", type=int, nargs="+", default=[64])
    parser.add_argument("--k", type=int, nargs="+", default=[10])
    parser.add_argument("--codes", nargs="+", default=["learned", "uniform"])
    parser.add_argument("--layout", default="auto")
    parser.add_argument("--parts", nargs="+", default=["queries", "batches", "filters", "folder"])
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=[], help="approximate ones")
    parser.add_argument("--data", default=os.environ.get("SSBHASH_DATA", "."))
    options = parser.parse_args()
    import faiss

    ssbhash.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    for kind, n, n_bits in (
        (kind, n, n_bits) for kind in options.codes for n in options.n for n_bits in options.bits
    ):
        codes, queries = codes_and_queries(kind, n, n_bits, options.data)
        start = time.perf_counter()
        index = ssbhash.HammingIndex(8 * codes.shape[1], layout=options.layout)
        index.add(codes)
        seconds = time.perf_counter() - start
        stats = index.stats()
        [segment] = stats["segments"]
        print(
            f"\n{kind}: {len(codes):,} codes of {n_bits} bits, {segment['layout']} of "
            f"{segment['n_rows']:,} rows; {len(codes) / seconds / 1e6:.1f} M added/s; "
            f"{stats['nbytes'] / len(codes):.1f} bytes a code, "
            f"{stats['nbytes'] / codes.nbytes:.2f} times the codes",
            flush=True,
        )
        if "folder" in options.parts:
            bench_folder(index, codes)
        if "queries" in options.parts:
            bench_queries(index, codes, queries, options)
        if "batches" in options.parts:
            bench_batches(index, codes, queries)
        if "filters" in options.parts:
            bench_filters(index, codes, queries)


if __name__ == "__main__":
    main()
