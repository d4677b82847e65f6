"""Single queries and batches of an index, beside the flat scan, faiss and usearch.

    python bench/index.py                              # 10 million codes of 64 bits, some minutes
    python bench/index.py --n 1000000 --codes learned uniform real --data DIR --k 1 10 100

One thread. Each exact contender must find what `ssbhash.search` finds before it is timed. For
approximate contenders the recall is printed. Learned codes are those of `bench/hamming.py`. Real
codes are the image hashes of `codes64_image_text.npz`; every 100th is a query.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import ssbhash

sys.path.insert(0, str(Path(__file__).parent))
from hamming import make_codes

Answer = tuple[np.ndarray, np.ndarray]


def codes_and_queries(kind: str, n: int, n_bits: int, data: str) -> tuple[np.ndarray, np.ndarray]:
    if kind != "real":
        return make_codes(n, n_bits, kind, False), make_codes(1000, n_bits, kind, True)
    with np.load(Path(data) / "codes64_image_text.npz") as sets:
        names = [name for name in sets if name.endswith("hash64") and "sim" not in name]
        codes = np.concatenate([sets[name] for name in names])[:n]
    is_query = np.arange(len(codes)) % 100 == 0
    return codes[~is_query], codes[is_query]


def faiss_contenders(codes: np.ndarray) -> dict[str, Callable[[np.ndarray, int], Answer]]:
    import faiss

    faiss.omp_set_num_threads(1)
    n_bits = 8 * codes.shape[1]
    flat = faiss.IndexBinaryFlat(n_bits)
    multi = faiss.IndexBinaryMultiHash(n_bits, 4, min(16, n_bits // 4))
    multi.nflip = 2
    hnsw = faiss.IndexBinaryHNSW(n_bits, 16)
    hnsw.hnsw.efSearch = 64
    made = {"faiss Flat": flat, "faiss MultiHash": multi}
    if len(codes) <= 1_000_000:  # building takes minutes a million
        made["faiss HNSW"] = hnsw
    for index in made.values():
        index.add(codes)
    return {name: index.search for name, index in made.items()}


def latencies(
    search: Callable[[np.ndarray, int], Answer], queries: np.ndarray, k: int
) -> np.ndarray:
    """Measure the microseconds of each query alone, for at most five seconds."""
    taken = []
    for query in queries:
        start = time.perf_counter()
        search(query[None], k)
        taken.append((time.perf_counter() - start) * 1e6)
        if sum(taken) > 5e6:
            break
    return np.array(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=10_000_000)
    parser.add_argument("--bits", type=int, default=64)
    parser.add_argument("--k", type=int, nargs="+", default=[10])
    parser.add_argument(
        "--codes", nargs="+", default=["learned", "uniform"], choices=["learned", "uniform", "real"]
    )
    parser.add_argument("--data", default=os.environ.get("SSBHASH_DATA", "."))
    options = parser.parse_args()
    ssbhash.set_num_threads(1)
    for kind in options.codes:
        codes, queries = codes_and_queries(kind, options.n, options.bits, options.data)
        start = time.perf_counter()
        index = ssbhash.HammingIndex(8 * codes.shape[1])
        index.add(codes)
        seconds = time.perf_counter() - start
        stats = index.stats()
        with tempfile.TemporaryDirectory() as folder:
            index.save(Path(folder) / "index")
            start = time.perf_counter()
            ssbhash.HammingIndex.open(Path(folder) / "index")
            opened = (time.perf_counter() - start) * 1e3
        print(
            f"\n{kind}: {len(codes):,} codes, {len(codes) / seconds / 1e6:.1f} M added a second, "
            f"{stats['nbytes'] / len(codes):.1f} bytes a code, opened in {opened:.1f} ms; "
            f"{stats['segments']}"
        )
        contenders = {
            "ssbhash index": index.search,
            "ssbhash flat": lambda query, k, codes=codes: ssbhash.search(codes, query, k),
            **faiss_contenders(codes),
        }
        for k in options.k:
            expected = ssbhash.search(codes, queries[:50], k)
            print(f"{'k':>4} {'contender':16} {'recall':>6} {'mean us':>9} {'p50':>9} {'p99':>9}")
            for name, search in contenders.items():
                distances = np.asarray(search(queries[:50], k)[0])
                recall = float((distances <= expected.distances[:, -1:]).mean())
                if name == "ssbhash index":
                    found = index.search(queries[:50], k)
                    assert (found.ids == expected.ids).all()
                    assert (found.distances == expected.distances).all()
                taken = latencies(search, queries, k)
                middle, late = np.percentile(taken, [50, 99])
                print(
                    f"{k:4} {name:16} {recall:6.3f} {taken.mean():9.1f} {middle:9.1f} {late:9.1f}"
                )


if __name__ == "__main__":
    main()
