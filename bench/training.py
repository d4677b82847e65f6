"""Training and encoding speed on Search Snippets, with a profile by part.

    python bench/training.py --bits 16 32 --threads 2

trains SSB-VAE with the paper's settings (30 epochs, batches of 100, 500 units, weights
for 10% labels) on the CSR features, and prints CPU and wall seconds, seconds an epoch,
items/s, peak memory and P@100; then where the time of an epoch goes; then the rate of
encoding, beside that of its largest matrix product alone.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch

import ssbhash
from ssbhash import datasets, metrics
from ssbhash.model import ENCODE_SPARSE_ROWS
from ssbhash.nn.adam import FlatAdam, RowAdam
from ssbhash.nn.fused import FusedStep
from ssbhash.optimizer import Optimizer
from ssbhash.training import Data

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
WEIGHTS: dict[str, Any] = {"preset": "paper", "alpha": 1e-4, "beta": 0.015625, "gamma": 1e4}
PARTS: list[tuple[str, Any, str]] = [
    ("cut batches from CSR", Data, "items"),
    ("first layer: catch rows up", RowAdam, "catch_up"),
    ("encoder forward", FusedStep, "encode"),
    ("decoder and its gradient", FusedStep, "decode"),
    ("KL, point, pair and their gradient", FusedStep, "compare"),
    ("encoder backward", FusedStep, "propagate"),
    ("Adam, first layer and its gradient", RowAdam, "step_touched"),
    ("Adam, other layers", FlatAdam, "step"),
    ("make all rows current", Optimizer, "flush"),
]


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--data", type=Path, help="folder of the data (SSBHASH_DATA)")
    parser.add_argument("--bits", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--encode-rows", type=int, default=200_000)
    options = parser.parse_args(arguments)
    if options.data is None:
        options.data = Path(os.environ.get("SSBHASH_DATA", SHARED))
    return options


def peak_megabytes() -> float:
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e6


@contextmanager
def timed_parts() -> Iterator[dict[str, float]]:
    """Measure the wall time within each part; a part within another counts in both."""
    seconds: dict[str, float] = defaultdict(float)
    originals = [getattr(owner, name) for _, owner, name in PARTS]

    def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            result = function(*args, **kwargs)
            seconds[part] += time.perf_counter() - started
            return result

        return call

    for (part, owner, name), original in zip(PARTS, originals, strict=True):
        setattr(owner, name, timed(part, original))
    try:
        yield seconds
    finally:
        for (_, owner, name), original in zip(PARTS, originals, strict=True):
            setattr(owner, name, original)


def profile(hasher: Any, X: Any, y: Any, target: Any) -> None:
    """Print where the time of two epochs goes, in milliseconds a batch."""
    hasher.set_params(n_epochs=2)
    with timed_parts() as seconds:
        started = time.perf_counter()
        hasher.fit(X, y, target=target)
        total = time.perf_counter() - started
    n_batches = 2 * -(-X.shape[0] // hasher.batch_size)
    for part, _, _ in PARTS:
        print(
            f"    {part:34} {1e3 * seconds[part] / n_batches:7.3f} ms  {seconds[part] / total:4.0%}"
        )
    rest = total - sum(seconds.values())
    print(f"    {'sampling, bookkeeping':34} {1e3 * rest / n_batches:7.3f} ms  {rest / total:4.0%}")


def encode_rate(hasher: Any, X: Any, n_rows: int) -> None:
    """Print rows/s of transform, and of its 500 x 500 product alone, interleaved."""
    many = scipy.sparse.vstack([X] * -(-n_rows // X.shape[0]), format="csr")[:n_rows]
    hidden = torch.rand(ENCODE_SPARSE_ROWS, hasher.n_hidden_units)
    weight = torch.rand(hasher.n_hidden_units, hasher.n_hidden_units)
    out = torch.empty_like(hidden)
    whole, product = [], []
    for _ in range(3):
        started = time.perf_counter()
        hasher.transform(many)
        whole.append(time.perf_counter() - started)
        started = time.perf_counter()
        for _ in range(-(-n_rows // ENCODE_SPARSE_ROWS)):
            torch.mm(hidden, weight, out=out)
        product.append(time.perf_counter() - started)
    print(
        f"  encode: {n_rows / min(whole):,.0f} rows/s; its largest matrix product alone "
        f"{n_rows / min(product):,.0f} rows/s, {min(product) / min(whole):.0%} of the time"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    options = read_arguments(arguments)
    torch.set_num_threads(options.threads)
    data = datasets.load("snippets", options.data)
    X, target = scipy.sparse.csr_array(data.X, dtype=np.float32), data.target
    y = data.hide_labels(0.1, seed=20)
    print(f"Search Snippets {X.shape[0]:,} x {X.shape[1]:,}, {X.nnz:,} non-zeros; {data.source}")
    print(f"torch {torch.__version__}, {options.threads} threads; engines {ssbhash.backends()}")
    for n_bits in options.bits:
        hasher = ssbhash.SSBVAE(n_bits, n_epochs=options.epochs, **WEIGHTS, seed=20)
        before, cpu = time.perf_counter(), time.process_time()
        hasher.fit(X, y, target=target)
        wall, cpu = time.perf_counter() - before, time.process_time() - cpu
        precision = metrics.precision_at(
            hasher.transform(X), data.y, hasher.transform(data.X_query), data.y_query, 100
        )
        epoch = np.median([row["seconds"] for row in hasher.history_])
        print(
            f"{n_bits} bits: {cpu:.1f} CPU s, {wall:.1f} s for {options.epochs} epochs; "
            f"{epoch:.3f} s an epoch, {X.shape[0] / epoch:,.0f} items/s; "
            f"peak memory {peak_megabytes():.0f} MB; P@100 {precision:.3f}"
        )
        encode_rate(hasher, X, options.encode_rows)
        profile(hasher, X, y, target)


if __name__ == "__main__":
    main()
