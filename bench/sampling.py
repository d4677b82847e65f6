"""Fused sampling beside eager torch: equality and distribution first, then time.

    python bench/sampling.py [--n-bits 1000000000] [--repeats 15]
    python bench/sampling.py --device cuda

One thread. Every row is the best of N runs; both sides are interleaved in one process.
The exit status is 1 if engines disagree or a distribution is wrong.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy import stats

import ssbhash
from ssbhash.nn import torch_ops

BARS = {"sample": 8, "binarize": 3, "relaxed, forward + backward": 3}
ROWS_AT_ONCE = 1 << 17
POPCOUNT = np.array([byte.bit_count() for byte in range(256)], dtype=np.uint8)


def check_equality() -> None:
    rng = np.random.default_rng(0)
    for dtype in (np.float16, np.float32, np.float64):
        for n_bits in (1, 12, 64, 200):
            logits = (rng.standard_normal((500, n_bits)) * 4).astype(dtype)
            for function in (ssbhash.sample, ssbhash.binarize, ssbhash.sample_relaxed):
                found = [function(logits, backend=name) for name in ssbhash.backends()]
                assert all(np.array_equal(found[0], other) for other in found[1:]), function
    print(f"equality: {', '.join(ssbhash.backends())} agree to the last bit")


def report(name: str, p_value: float) -> bool:
    verdict = "ok" if p_value > 1e-5 else "OFF"
    print(f"  {name:<46} p = {p_value:.4f}  {verdict}")
    return p_value > 1e-5


def z_to_p(z: float) -> float:
    return float(2 * stats.norm.sf(abs(z)))


def check_distribution(n_bits: int) -> bool:
    """Test 16-bit words by chi-square, runs along and across rows, and biased frequencies."""
    zeros = np.zeros((ROWS_AT_ONCE, 64), dtype=np.float32)
    words = np.zeros(1 << 16, dtype=np.int64)
    n_rows = max(1, n_bits // 64 // ROWS_AT_ONCE) * ROWS_AT_ONCE
    along = across = 0
    for first_row in range(0, n_rows, ROWS_AT_ONCE):
        codes = ssbhash.sample(zeros, seed=1, first_row=first_row)
        words += np.bincount(codes.view(np.uint16).ravel(), minlength=1 << 16)
        row = codes.view(np.uint64).ravel()
        changes = (row ^ (row >> np.uint64(1))) & np.uint64(2**63 - 1)
        along += int(POPCOUNT[changes.view(np.uint8)].sum(dtype=np.int64))
        across += int(POPCOUNT[codes[1:] ^ codes[:-1]].sum(dtype=np.int64))
    n_across = n_rows // ROWS_AT_ONCE * (ROWS_AT_ONCE - 1) * 64
    print(f"distribution: {64 * n_rows:,} bits of probability 1/2")
    passed = report("chi-square, 65,536 words of 16 bits", stats.chisquare(words).pvalue)
    for name, count, n in (("along", along, 63 * n_rows), ("across", across, n_across)):
        z = (count - n / 2) / math.sqrt(n / 4)
        passed &= report(f"runs {name} rows", z_to_p(z))
    n = max(1, n_rows // 8)
    for logit in (-9.0, -3.0, 0.5, 4.0):
        logits = np.broadcast_to(np.float32(logit), (n, 64))
        ones = int(POPCOUNT[ssbhash.sample(logits, seed=2)].sum(dtype=np.int64))
        probability = 1 / (1 + math.exp(-logit))
        spread = math.sqrt(64 * n * probability * (1 - probability))
        z = (ones - 64 * n * probability) / spread
        passed &= report(f"frequency of {64 * n:,} bits, logit {logit:+.1f}", z_to_p(z))
    return passed


def best_of(functions: list[Callable[[], object]], repeats: int) -> list[float]:
    """Take `repeats` turns at least, and as many as 0.2 s hold: small ones are noisy."""
    best = [math.inf] * len(functions)
    end, turn = time.perf_counter() + 0.2, 0
    while turn < repeats or time.perf_counter() < end:
        turn += 1
        for i, function in enumerate(functions):
            start = time.perf_counter()
            function()
            best[i] = min(best[i], time.perf_counter() - start)
    return best


def eager_relaxed(leaf: torch.Tensor, grad: torch.Tensor) -> None:
    leaf.grad = None
    u = torch.rand_like(leaf)
    torch.sigmoid((leaf + torch.log(u) - torch.log1p(-u)) / (2 / 3)).backward(grad)


def fused_relaxed(leaf: torch.Tensor, grad: torch.Tensor) -> None:
    leaf.grad = None
    torch_ops.sample_relaxed(leaf, 1, 2 / 3).backward(grad)


def time_all(repeats: int) -> None:
    print("\n    n x bits, type       what                         torch ns   ours ns   ratio  bar")
    for shape, dtype in (
        ((1000, 32), torch.float32),
        ((4096, 64), torch.float32),
        ((65536, 16), torch.float32),
        ((65536, 64), torch.float32),
        ((20000, 50), torch.float32),
        ((16384, 64), torch.bfloat16),
        ((16384, 64), torch.float64),
    ):
        x = torch.randn(*shape).to(dtype)
        leaf, grad = x.clone().requires_grad_(), torch.ones_like(x)
        rows: dict[str, list[Callable[[], object]]] = {
            "sample": [
                lambda x=x: np.packbits((torch.rand_like(x) < torch.sigmoid(x)).numpy(), axis=1),
                lambda x=x: ssbhash.sample(x, 1),
            ],
            "binarize": [
                lambda x=x: np.packbits((x > 0).numpy(), axis=1),
                lambda x=x: ssbhash.binarize(x),
            ],
            "relaxed, forward + backward": [
                lambda leaf=leaf, grad=grad: eager_relaxed(leaf, grad),
                lambda leaf=leaf, grad=grad: fused_relaxed(leaf, grad),
            ],
        }
        label = f"{shape[0]:>7} x {shape[1]:<3} {str(dtype).removeprefix('torch.'):<8}"
        for name, functions in rows.items():
            theirs, ours = (1e9 * seconds / x.numel() for seconds in best_of(functions, repeats))
            print(
                f"{label} {name:<28} {theirs:9.2f} {ours:9.2f} {theirs / ours:7.1f}  {BARS[name]}"
            )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-bits", type=int, default=10**9, help="bits for the statistical tests")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    arguments = parser.parse_args()
    if arguments.device == "cuda":
        import on_gpu

        on_gpu.time_sampling()
        return 0
    torch.set_num_threads(1)
    ssbhash.set_num_threads(1)
    ssbhash.show_config()
    check_equality()
    passed = check_distribution(arguments.n_bits)
    time_all(arguments.repeats)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
