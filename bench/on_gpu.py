"""Search, sampling and training on a GPU beside their peers: equality first, then device events.

    python bench/on_gpu.py index training

Search and sampling are called by `bench/hamming.py --device cuda` and `bench/sampling.py --device
cuda`. There are two ceilings: bytes copied on the card in a second, as measured here, and logic operations in a second,
by NVIDIA's table of rates (64 a clock and multiprocessor) at the card's highest clock. It also runs
under the emulator (SSBHASH_CUDA_LIBRARY), where times mean nothing.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.sparse
import torch

import ssbhash
from ssbhash import metrics
from ssbhash.engines import cuda

HAS_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if HAS_GPU else "cpu")
TABLE = torch.tensor([byte.bit_count() for byte in range(256)], dtype=torch.int32)


def seconds_of(run: Callable[[], Any], repeats: int = 7) -> float:
    """Time the best of several runs after one to warm up; after 2 seconds no other is begun."""
    run()
    best, started = math.inf, time.perf_counter()
    for _ in range(repeats if HAS_GPU else 1):
        if time.perf_counter() > started + 2 and best < math.inf:
            break
        if HAS_GPU:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            run()
            end.record()
            end.synchronize()
            best = min(best, begin.elapsed_time(end) / 1e3)
        else:
            start = time.perf_counter()
            run()
            best = min(best, time.perf_counter() - start)
    return best


def ceilings() -> tuple[float, float]:
    """Measure bytes a second of a copy, and take logic operations a second from the table."""
    n = 1 << (30 if HAS_GPU else 20)
    memory = torch.zeros(n, dtype=torch.uint8, device=DEVICE)
    bandwidth = 2 * n / seconds_of(memory.clone)
    if not HAS_GPU:
        return bandwidth, math.nan
    card = torch.cuda.get_device_properties(DEVICE)
    clock = 1e3 * getattr(card, "clock_rate", math.nan)
    print(f"# {card.name}, {card.multi_processor_count} multiprocessors, torch {torch.__version__}")
    return bandwidth, 64 * card.multi_processor_count * clock


@contextlib.contextmanager
def kernel_of(name: str) -> Iterator[None]:
    """Have every search take this kernel of ours."""
    os.environ["SSBHASH_CUDA_KERNEL"] = name
    try:
        yield
    finally:
        del os.environ["SSBHASH_CUDA_KERNEL"]


def by_kernel(name: str, codes: torch.Tensor, queries: torch.Tensor, k: int) -> Callable[[], Any]:
    """Search by one of our kernels, with what `prepare` makes for it."""
    with kernel_of(name):
        prepared = ssbhash.prepare(codes, backend="cuda")

    def run() -> Any:
        with kernel_of(name):
            return ssbhash.search(prepared, queries, k, backend="cuda")

    return run


def by_matrix_product(codes: torch.Tensor, queries: torch.Tensor, k: int) -> Any:
    """Search by torch's int8 matrix units: a dot product of -1 and 1 is n_bits - 2 distances."""
    signs = [2 * ssbhash.arrays.unpacked_tensor(part, 8 * part.shape[1]).to(torch.int8) - 1
             for part in (codes, queries)]  # fmt: skip
    best = None
    n_of_page = (1 << 28) // len(queries) // 8 * 8  # products of 1 GiB
    for begin in range(0, len(codes), n_of_page):
        page = signs[0][begin : begin + n_of_page]
        dots = torch._int_mm(signs[1], page.T)
        found = ((8 * codes.shape[1] - dots) // 2).topk(min(k, len(page)), largest=False).values
        best = found if best is None else torch.cat([best, found], 1).topk(k, largest=False).values
    return best, None


def by_table(codes: torch.Tensor, queries: torch.Tensor, k: int) -> Any:
    """Search by torch: xor, and bits counted by a table."""
    table = TABLE.to(codes.device)
    found = []
    for query in queries:
        distances = table[(codes ^ query).int()].sum(1)
        found.append(distances.topk(min(k, len(codes)), largest=False).values)
    return torch.stack(found), None


def faiss_gpu(codes: torch.Tensor, queries: torch.Tensor, k: int) -> Callable[[], Any] | None:
    if not importlib.util.find_spec("faiss"):
        return None
    import faiss

    if not hasattr(faiss, "GpuIndexBinaryFlat"):
        return None
    index = faiss.GpuIndexBinaryFlat(faiss.StandardGpuResources(), 8 * codes.shape[1])
    index.add(codes.cpu().numpy())
    rows = queries.cpu().numpy()
    return lambda: index.search(rows, k)


def cuvs(codes: torch.Tensor, queries: torch.Tensor, k: int) -> Callable[[], Any] | None:
    """Search by cuVS, which has no Hamming distance for bytes: the square of Euclid's of the bits."""
    if not importlib.util.find_spec("cuvs"):
        return None
    from cuvs.neighbors import brute_force

    bits = [ssbhash.arrays.unpacked_tensor(part, 8 * part.shape[1]).half()
            for part in (codes, queries)]  # fmt: skip
    index = brute_force.build(bits[0], metric="sqeuclidean")

    def run() -> Any:
        distances, ids = brute_force.search(index, bits[1], k)
        return torch.as_tensor(distances, device=DEVICE).round(), ids

    return run


def time_search(widths: list[int], n: int, batches: list[int], ks: list[int]) -> None:
    """Print billions of codes compared a second."""
    bandwidth, logic = ceilings()
    print(f"# copy {bandwidth / 1e9:.0f} GB/s; logic by the table {logic / 1e9:.0f} G operations/s")
    print(
        f"{'bits':>5}{'n':>10}{'queries':>8}{'k':>6}  contender      "
        f"G codes/s  of rows  of bytes  of logic"
    )
    for n_bits in widths:
        generator = torch.Generator().manual_seed(n_bits)
        size = (n, n_bits // 8)
        codes = torch.randint(256, size, dtype=torch.uint8, generator=generator).to(DEVICE)
        for n_queries in batches:
            size = (n_queries, n_bits // 8)
            queries = torch.randint(256, size, dtype=torch.uint8, generator=generator).to(DEVICE)
            for k in ks:
                time_problem(codes, queries, k, (bandwidth, logic))


def time_problem(
    codes: torch.Tensor, queries: torch.Tensor, k: int, peaks: tuple[float, float]
) -> None:
    """Check each contender, then time it; "ours" is the kernel that is chosen by itself."""
    facts = cuda._facts(codes)
    ours = ["rows", *["planes"] * facts.has_planes, *["matrix"] * facts.has_matrix]
    runs: dict[str, Callable[[], Any]] = {
        "ours": lambda: ssbhash.search(codes, queries, k, backend="cuda")
    }
    runs |= {name: by_kernel(name, codes, queries, k) for name in ours}
    is_small = len(codes) * codes.shape[1] <= 1 << 30
    if HAS_GPU and len(queries) > 16 and is_small:
        runs["torch int8"] = lambda: by_matrix_product(codes, queries, k)
    if len(queries) <= 32:
        runs["torch table"] = lambda: by_table(codes, queries, k)
    if run := faiss_gpu(codes, queries, k):
        runs["faiss-gpu"] = run
    if is_small and (run := cuvs(codes, queries, k)):
        runs["cuVS"] = run
    truth = runs["ours"]()
    for name, run in runs.items():
        found = run()
        distances = torch.as_tensor(found[0]).to(DEVICE).int()
        same = torch.equal(distances.sort(1).values, truth.distances)
        if name in ours:
            same &= torch.equal(found[1], truth.ids)
        if not same:
            sys.exit(f"MISMATCH: {name} on {tuple(codes.shape)} codes, k={k}")
    n_bits, n_compared = 8 * codes.shape[1], len(codes) * len(queries)
    seconds = {name: seconds_of(run) for name, run in runs.items()}
    chosen = cuda._kernel_for(facts, len(queries), k)
    for name, of_run in seconds.items():
        of_bytes = codes.nbytes / of_run / peaks[0]
        of_logic = n_compared * (n_bits / 32) / of_run / peaks[1]  # two operations an adder
        label = f"ours: {chosen}" if name == "ours" else name
        print(
            f"{n_bits:>5}{len(codes):>10}{len(queries):>8}{k:>6}  {label:<14}"
            f"{n_compared / of_run / 1e9:>10.1f}{seconds['rows'] / of_run:>8.1f}x"
            f"{100 * of_bytes:>9.1f}%{100 * of_logic:>9.1f}%",
            flush=True,
        )


def time_sampling() -> None:
    """Print what drawing, relaxing and thresholding reach of the card's bandwidth."""
    bandwidth, _ = ceilings()
    print(f"# copy {bandwidth / 1e9:.0f} GB/s")
    print(f"{'n x bits, type':<26}{'what':<12}{'torch ms':>10}{'ours ms':>10}{'of bytes':>10}")
    n = 1 << (22 if HAS_GPU else 9)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        logits = torch.randn(n, 64).to(dtype).to(DEVICE)
        host = logits[:64].cpu()
        for name, ours, theirs, written in (
            (
                "sample",
                lambda x: cuda.sample_unchecked(x, 1, 0)[0][0],
                lambda x: torch.rand_like(x) < x.sigmoid(),
                1 / 8,
            ),
            (
                "relaxed",
                lambda x: cuda.relaxed_unchecked(x, 2 / 3, 1, 0)[0],
                lambda x: ((x + torch.rand_like(x).logit()) * 1.5).sigmoid(),
                4,
            ),
        ):
            public = ssbhash.sample if name == "sample" else ssbhash.sample_relaxed
            if not torch.equal(ours(logits)[:64].cpu(), public(host, 1)):
                sys.exit(f"MISMATCH: {name} of {dtype} differs from the CPU's")
            times = [seconds_of(functools.partial(run, logits)) for run in (theirs, ours)]
            moved = logits.numel() * (logits.element_size() + written)
            print(
                f"{f'{n} x 64, {dtype}':<26}{name:<12}{1e3 * times[0]:>10.3f}"
                f"{1e3 * times[1]:>10.3f}{100 * moved / times[1] / bandwidth:>9.1f}%",
                flush=True,
            )


def time_index() -> None:
    """Print the microseconds of a search in an index on the device, beside one on the CPU."""
    n, k = (10_000_000, 10) if HAS_GPU else (10_000, 10)
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(256, (n, 8), dtype=torch.uint8, generator=generator)
    queries = codes[:1024].clone()
    queries[:, 0] ^= torch.randint(256, (1024,), dtype=torch.uint8, generator=generator)
    allowed = (torch.rand(n, generator=generator) < 0.1).numpy()
    here = ssbhash.HammingIndex(64)
    here.add(codes.numpy())
    there = ssbhash.HammingIndex(64, device=str(DEVICE) if HAS_GPU else None)
    there.add(codes.numpy())
    print(f"# index of {n} codes of 64 bits, k={k}; microseconds a query")
    print(f"{'queries':>8}{'filter':>8}{'CPU':>10}{'device':>10}")
    for n_queries in (1, 1024):
        some = queries[:n_queries]
        moved = some.to(DEVICE)
        for mask in (None, allowed):
            expected = here.search(some.numpy(), k, mask=mask)
            found = there.search(moved, k, mask=mask)
            if not np.array_equal(expected.ids, np.asarray(torch.as_tensor(found.ids).cpu())):
                sys.exit(f"MISMATCH: index on the device, {n_queries} queries")
            start = time.perf_counter()
            here.search(some.numpy(), k, mask=mask)
            on_cpu = time.perf_counter() - start
            on_device = seconds_of(lambda q=moved, m=mask: there.search(q, k, mask=m))  # type: ignore[misc]
            print(
                f"{n_queries:>8}{'10%' if mask is not None else '-':>8}"
                f"{1e6 * on_cpu / n_queries:>10.1f}{1e6 * on_device / n_queries:>10.1f}",
                flush=True,
            )


def time_training() -> None:
    """Print the seconds of `fit` by the default, and how good its codes are, on CPU and device."""
    n = 20_000 if HAS_GPU else 1_000
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 20, n)
    centres = rng.standard_normal((20, 512)).astype(np.float32)
    dense = centres[labels] + 3 * rng.standard_normal((n, 512)).astype(np.float32)
    words = scipy.sparse.csr_array(rng.poisson(0.02 * np.exp(centres[labels])).astype(np.float32))
    known = np.where(rng.random(n) < 0.1, labels, -1)
    n_items = n * 9 // 10
    print(f"{'features':>9}{'device':>8}{'fit s':>8}{'P@100':>8}{'encode rows/s':>15}")
    for name, rows in (("dense", dense), ("words", words)):
        for device in dict.fromkeys(("cpu", str(DEVICE))):
            hasher = ssbhash.SSBVAE(64, device=device, seed=0, verbose=False)
            start = time.perf_counter()
            hasher.fit(rows[:n_items], known[:n_items])
            of_fit = time.perf_counter() - start
            start = time.perf_counter()
            codes = hasher.transform(rows)
            of_encoding = time.perf_counter() - start
            precision = metrics.precision_at(
                codes[:n_items], labels[:n_items], codes[n_items:], labels[n_items:], 100
            )
            print(
                f"{name:>9}{device:>8}{of_fit:>8.1f}{precision:>8.3f}{n / of_encoding:>15,.0f}",
                flush=True,
            )


if __name__ == "__main__":
    parts = {"index": time_index, "training": time_training}
    for part in sys.argv[1:] or parts:
        parts[part]()
