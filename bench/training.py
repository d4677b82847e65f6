"""Training and encoding speed on Search Snippets, with a profile of the parts.

    python bench/training.py --bits 16 32 --threads 2

times the default SSB-VAE first: the whole of `fit`, its projection beside scikit-learn's
`TruncatedSVD` with the held-out variance of both, and a step and the encoding beside their
matrix products alone.

Then it trains SSB-VAE on the CSR features with the paper's settings (30 epochs, batches of 100,
500 units, weights for 10% labels). It prints:

1. CPU and wall seconds, seconds an epoch, items/s, peak memory and P@100;
2. the rate of encoding, beside that of its largest matrix product alone;
3. where the time of an epoch goes;
4. the time of a step beside that of dense rows in plain torch (`bench/dense_torch.py`), after
   a check of equality.
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
from dense_torch import check_equality, dense
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfTransformer

import ssbhash
from ssbhash import metrics
from ssbhash.inputs.labels import read_labels
from ssbhash.inputs.lsa import principal_directions
from ssbhash.inputs.rows import row_source
from ssbhash.models.fitted import ENCODE_ROWS
from ssbhash.nn.autoencoder import Shape, Weights
from ssbhash.nn.class_and_item import EMBEDDING_WIDTH
from ssbhash.nn.ssb_vae import SSBVAENetwork
from ssbhash.paper import datasets
from ssbhash.training.adam import FlatAdam, RowAdam
from ssbhash.training.loop import Data
from ssbhash.training.optimizer import Optimizer

WEIGHTS = {"alpha": 1e-4, "beta": 0.015625, "gamma": 1e4}
PARTS: list[tuple[str, Any, str]] = [
    ("cut batches from CSR", Data, "batch"),
    ("first layer: catch rows up", Optimizer, "catch_up"),
    ("terms of the loss, forward", SSBVAENetwork, "terms"),
    ("Adam, first layer", RowAdam, "step"),
    ("Adam, other layers", FlatAdam, "step"),
    ("make all rows current", Optimizer, "flush"),
]


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    given = os.environ.get("SSBHASH_DATA")
    parser.add_argument(
        "--data",
        type=Path,
        default=given,
        required=not given,
        help="folder of the data (SSBHASH_DATA)",
    )
    parser.add_argument("--bits", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--encode-rows", type=int, default=200_000)
    parser.add_argument("--only-default", action="store_true")
    options = parser.parse_args(arguments)
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
    print(f"    {'backward, bookkeeping':34} {1e3 * rest / n_batches:7.3f} ms  {rest / total:4.0%}")


def beside_dense_torch(hasher: Any, X: Any, y: Any, target: Any) -> None:
    """Print wall and CPU time of a step, all of `fit` counted, and of dense torch's."""
    labels = read_labels(y, X.shape[0], hasher.method)
    aim = row_source(X if target is None else target).normalised()
    shape = Shape(X.shape[1], aim.n_columns, hasher.n_bits, len(labels.classes))
    generator = torch.Generator().manual_seed(20)
    network = SSBVAENetwork(shape, Weights(**WEIGHTS), generator)
    data, cpu = Data(row_source(X), aim, labels), torch.device("cpu")
    batches = np.random.default_rng(0).permutation(len(data))[: 20 * hasher.batch_size]
    batches = batches.reshape(20, hasher.batch_size)
    peer = check_equality(network, data.batch(batches[0], cpu))
    adam = torch.optim.Adam(peer.parameters(), eps=1e-7)

    def train_peer() -> int:
        for ids in batches:
            adam.zero_grad()
            peer.loss(*dense(data.batch(ids, cpu))).backward()
            adam.step()
        return len(batches)

    def train_ours() -> int:
        hasher.set_params(n_epochs=1).fit(X, y, target=target)
        return -(-len(data) // hasher.batch_size)

    best = np.full((2, 2), np.inf)
    for _ in range(3):
        for i, train in enumerate((train_peer, train_ours)):
            started = np.array([time.perf_counter(), time.process_time()])
            n_steps = train()
            seconds = np.array([time.perf_counter(), time.process_time()]) - started
            best[i] = np.minimum(best[i], seconds / n_steps)
    (wall, cpu_time), (our_wall, our_cpu_time) = 1e3 * best
    print(
        f"{hasher.n_bits} bits, a step: dense torch {wall:.1f} ms, {cpu_time:.1f} CPU ms; "
        f"ours {our_wall:.1f} ms, {our_cpu_time:.1f} CPU ms: "
        f"{wall / our_wall:.1f} and {cpu_time / our_cpu_time:.1f} times"
    )


def encode_rate(hasher: Any, X: Any, n_rows: int) -> None:
    """Print rows/s of transform, and of its 500 x 500 product alone, interleaved."""
    many = scipy.sparse.vstack([X] * -(-n_rows // X.shape[0]), format="csr")[:n_rows]
    hidden = torch.rand(ENCODE_ROWS, hasher.n_hidden_units)
    weight = torch.rand(hasher.n_hidden_units, hasher.n_hidden_units)
    out = torch.empty_like(hidden)
    whole, product = [], []
    for _ in range(3):
        started = time.perf_counter()
        hasher.transform(many)
        whole.append(time.perf_counter() - started)
        started = time.perf_counter()
        for _ in range(-(-n_rows // ENCODE_ROWS)):
            torch.mm(hidden, weight, out=out)
        product.append(time.perf_counter() - started)
    print(
        f"  encode: {n_rows / min(whole):,.0f} rows/s; its largest matrix product alone "
        f"{n_rows / min(product):,.0f} rows/s, {min(product) / min(whole):.0%} of the time"
    )


def seconds_of(function: Callable[[], Any], n_times: int = 3) -> float:
    """CPU seconds of the fastest of some calls."""
    best = np.inf
    for _ in range(n_times):
        started = time.process_time()
        function()
        best = min(best, time.process_time() - started)
    return float(best)


def beside_products(shapes: list[tuple[int, int, int]]) -> Callable[[], None]:
    """Return what multiplies [m, k] by [k, n] for every (m, k, n)."""
    pairs = [(torch.rand(m, k), torch.rand(k, n)) for m, k, n in shapes]
    outs = [torch.empty(m, n) for m, _, n in shapes]

    def multiply() -> None:
        for (a, b), out in zip(pairs, outs, strict=True):
            torch.mm(a, b, out=out)

    return multiply


def default_form(data: datasets.Dataset, X: Any, y: Any, n_bits: int, n_rows: int) -> None:
    """Print what the default costs, and its parts beside what they cannot do without."""
    hasher = ssbhash.SSBVAE(n_bits, seed=20, verbose=False)
    ends: list[float] = []
    callbacks = [lambda row: ends.append(time.process_time())]
    cpu = seconds_of(lambda: hasher.fit(X, y, callbacks=callbacks), 1)
    epoch = float(np.median(np.diff(ends)))
    print(f"default, {n_bits} bits: {cpu:.1f} CPU s in all; peak memory {peak_megabytes():.0f} MB")

    tf_idf = TfidfTransformer().fit(X)
    items, queries = tf_idf.transform(X), tf_idf.transform(data.X_query)
    shape = hasher._model.network.shape
    width = shape.n_features
    theirs = TruncatedSVD(width, random_state=0)
    ours = seconds_of(lambda: principal_directions(items, width, 20))
    peer = seconds_of(lambda: theirs.fit(items))
    kept = [
        np.square(queries @ axes).sum()
        for axes in (principal_directions(items, width, 20), theirs.components_.T)
    ]
    print(
        f"  projection {ours:.2f} CPU s, TruncatedSVD {peer:.2f}: {ours / peer:.2f} of it; "
        f"variance of the queries {kept[0] / kept[1]:.4f} of its"
    )

    n, hidden, embedding = 200, shape.n_hidden_units, EMBEDDING_WIDTH
    m, pairs = 2 * n + hasher.n_labelled, 2 * n
    # Forward, gradients by weight, gradients by input; the first layer and `skip` need no last.
    with_input = [(m, hidden, hidden), (m, hidden, shape.n_classes), (pairs, hidden, embedding)]
    with_input += [(n, embedding, n)]
    without = [(m, width, hidden), (pairs, width, embedding)]
    products = [*with_input, *without]
    products += [(k, m, n) for m, k, n in (*with_input, *without)]
    products += [(m, n, k) for m, k, n in with_input]
    step = epoch / -(-len(data.y) // n)
    multiply = beside_products(products)
    alone = seconds_of(lambda: [multiply() for _ in range(20)]) / 20
    print(
        f"  a step {1e3 * step:.1f} ms, its matrix products {1e3 * alone:.1f}: {step / alone:.2f}"
    )

    many = scipy.sparse.vstack([X] * -(-n_rows // X.shape[0]), format="csr")[:n_rows]
    whole = seconds_of(lambda: hasher.transform(many))
    part = row_source(X).take(np.arange(ENCODE_ROWS))
    weight = torch.rand(X.shape[1], width)
    shapes = [(ENCODE_ROWS, k, n) for k, n in ((width, hidden), (hidden, hidden))]
    shapes += [(ENCODE_ROWS, k, embedding) for k in (width, hidden)]
    multiply_part, n_parts = beside_products(shapes), -(-n_rows // ENCODE_ROWS)

    def products_of_encoding() -> None:
        for _ in range(n_parts):
            part.product(weight)
            multiply_part()

    least = seconds_of(products_of_encoding)
    print(
        f"  encode: {n_rows / whole:,.0f} rows/s, {least / whole:.0%} of the rate of its products"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    options = read_arguments(arguments)
    torch.set_num_threads(options.threads)
    data = datasets.load("snippets", options.data)
    X, target = scipy.sparse.csr_array(data.X, dtype=np.float32), data.target
    y = data.hide_labels(0.1, seed=20)
    print(f"Search Snippets {X.shape[0]:,} x {X.shape[1]:,}, {X.nnz:,} non-zeros; {data.source}")
    print(f"torch {torch.__version__}, {options.threads} threads; engines {ssbhash.backends()}")
    default_form(data, X, y, options.bits[-1], options.encode_rows)
    hashers = []
    for n_bits in () if options.only_default else options.bits:
        hasher = ssbhash.SSBVAE(n_bits, preset="paper", n_epochs=options.epochs, **WEIGHTS, seed=20)
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
        hashers.append(hasher)
    for hasher in hashers:  # at the end, for the peer takes more memory than is told above
        beside_dense_torch(hasher, X, y, target)


if __name__ == "__main__":
    main()
