"""Ablation of the default SSB-VAE, on held-out training items.

    python bench/ablation.py default n_lsa_components=200 COUNTS_SCALE=1,n_lsa_components=200 \
        --dataset snippets 20news --supervision 0.02 0.1 --bits 32 --seeds 5 --out ablation

For each data set, level of supervision, code length and seed, some training items are held
out as queries. A variant is trained on the others, and P@100 of the queries is measured
(`--figure NAME` shows another figure). The test split is never used.

A variant is "default", a baseline, or a list of settings: constructor parameters of SSBVAE,
and constants (upper case) of `ssbhash.nn.class_and_item`, `ssbhash.training.beliefs` and
`ssbhash.models.projections`. A seed has the same queries and labels for every variant, so the
second table, of differences to the first variant, has the smaller standard errors.

A finished run is one file in --out, so the same command goes on where it stopped. Delete the
folder after a change of the code.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssbhash import metrics
from ssbhash.data import files
from ssbhash.item_metrics import code_figures, neighbour_figures
from ssbhash.models import projections
from ssbhash.models.baselines import BASELINES
from ssbhash.models.methods import SSBVAE
from ssbhash.nn import class_and_item
from ssbhash.paper import datasets
from ssbhash.paper.datasets import Dataset
from ssbhash.training import beliefs
from ssbhash.tuning.study import standard_error

# What is measured.
FIGURES = (
    "P@100",
    "P@10",
    "P@10 by class",
    "P@10 re-ranked",
    "neighbours@100",
    "distinct",
    "tied@100",
    "accuracy",
)
# Where the constants are.
MODULES = (class_and_item, beliefs, projections)


@dataclass(frozen=True)
class Cell:
    """One run."""

    variant: str
    dataset: str
    supervision: float
    n_bits: int
    seed: int

    @property
    def name(self) -> str:
        """File name of its result."""
        variant = re.sub(r"[^\w.=,-]", "_", self.variant)
        return f"{self.dataset}_{variant}_{self.n_bits}_{self.supervision:g}_{self.seed}.json"


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "variants", nargs="+", help="default, itq, classifier, ..., NAME=VALUE[,...]"
    )
    given = os.environ.get("SSBHASH_DATA")
    parser.add_argument(
        "--data",
        type=Path,
        default=given,
        required=not given,
        help="folder of the data (SSBHASH_DATA)",
    )
    parser.add_argument("--dataset", nargs="+", default=["snippets"], choices=datasets.LOADERS)
    parser.add_argument("--supervision", type=float, nargs="+", default=[0.1])
    parser.add_argument("--bits", type=int, nargs="+", default=[32])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--queries", type=int, default=1000, help="items held out")
    parser.add_argument("--items", type=int, default=10_000, help="to train on, at most")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--figure", choices=FIGURES, default="P@100", help="what the tables show")
    parser.add_argument("--out", type=Path, default=Path("ssbhash-ablation"))
    options = parser.parse_args(arguments)
    for variant in options.variants:
        if variant not in BASELINES:
            parse(variant)
    return options


def parse(variant: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the parameters of the estimator, and the constants of its network.

    Raises
    ------
    ValueError
        If one does not exist.
    """
    found: tuple[dict[str, Any], dict[str, Any]] = {}, {}
    known = SSBVAE().get_params()
    for assignment in [] if variant == "default" else variant.split(","):
        name, _, text = assignment.partition("=")
        is_constant = name.isupper() and any(hasattr(module, name) for module in MODULES)
        if not is_constant and name not in known:
            raise ValueError(f"variant {variant!r}: SSBVAE has no {name!r}")
        found[is_constant][name] = json.loads(text)
    return found


@lru_cache(maxsize=1)
def load(name: str, data_dir: Path) -> Dataset:
    return datasets.load(name, data_dir)


def hold_out(data: Dataset, n_queries: int, n_items: int, seed: int) -> Dataset:
    """Split the training items into a database and queries."""
    order = np.random.default_rng((seed, 1)).permutation(len(data.y))
    n_queries = min(n_queries, len(order) // 5)
    queries, items = order[:n_queries], np.sort(order[n_queries : n_queries + n_items])
    return replace(
        data,
        X=data.X[items],
        y=data.y[items],
        X_query=data.X[queries],
        y_query=data.y[queries],
        target=None if data.target is None else data.target[items],
        parts=(),
        orders={},
    )


@contextmanager
def constants(values: dict[str, Any]) -> Iterator[None]:
    """Set constants of the network for a while."""
    homes = {name: next(m for m in MODULES if hasattr(m, name)) for name in values}
    before = {name: getattr(homes[name], name) for name in values}
    try:
        for name, value in values.items():
            setattr(homes[name], name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(homes[name], name, value)


def run(cell: Cell, data: Dataset) -> dict[str, Any]:
    """Train a variant, and measure it on the held-out queries."""
    labels = data.hide_labels(cell.supervision, cell.seed)
    started = time.perf_counter()
    if cell.variant in BASELINES:
        hasher: Any = BASELINES[cell.variant](n_bits=cell.n_bits, seed=cell.seed)
        hasher.fit(data.X, labels)
    else:
        parameters, own = parse(cell.variant)
        hasher = SSBVAE(n_bits=cell.n_bits, seed=cell.seed, verbose=False, **parameters)
        with constants(own):
            hasher.fit(data.X, labels, target=data.target if hasher.reconstructs else None)
        if hasher.interrupted_:
            raise KeyboardInterrupt
    seconds = time.perf_counter() - started
    codes, query_codes = hasher.transform(data.X), hasher.transform(data.X_query)
    labels_of = data.y, data.y_query
    sides = codes, data.y, query_codes, data.y_query
    row = {"seconds": seconds} | metrics.evaluate(*sides, [10, 100]) | code_figures(*sides)
    row |= neighbour_figures(codes, data.X, query_codes, data.X_query, labels_of)
    if data.y.ndim == 1 and hasattr(hasher, "predict"):
        row["accuracy"] = float((hasher.predict(data.X_query) == data.y_query).mean())
    return row


def table(rows: dict[Cell, float], options: argparse.Namespace, baseline: str | None) -> str:
    """Write mean and standard error over seeds; with `baseline`, those of the differences."""
    settings = list(product(options.dataset, options.supervision, options.bits))
    heads = [f"{name} {supervision:.0%} {bits}" for name, supervision, bits in settings]
    lines = [["variant", *heads]]
    for variant in options.variants:
        lines.append([variant])
        for setting in settings:
            cells = [Cell(variant, *setting, seed) for seed in range(options.seeds)]
            values = [rows[cell] for cell in cells if cell in rows]
            if baseline is not None:
                pairs = [(cell, replace(cell, variant=baseline)) for cell in cells]
                values = [rows[a] - rows[b] for a, b in pairs if a in rows and b in rows]
            sign = "" if baseline is None else "+"
            shown = f"{np.mean(values):{sign}.3f} ± {standard_error(values):.3f}" if values else ""
            lines[-1].append(shown)
    lines.insert(1, ["---"] + ["---:"] * len(settings))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    options = read_arguments(arguments)
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    settings = product(
        options.dataset, range(options.seeds), options.supervision, options.bits, options.variants
    )
    rows: dict[Cell, float] = {}
    for dataset, seed, supervision, n_bits, variant in settings:
        cell = Cell(variant, dataset, supervision, n_bits, seed)
        path = options.out / cell.name
        if not path.is_file():
            data = load(dataset, options.data)
            row = run(cell, hold_out(data, options.queries, options.items, seed))
            files.write_json(path, row)
            shown = " ".join(f"{key} {value:.4g}" for key, value in row.items())
            print(cell.name.removesuffix(".json"), shown, file=sys.stderr, flush=True)
        rows[cell] = json.loads(path.read_text()).get(options.figure, math.nan)
    print(f"{options.figure} of held-out training items,", end=" ")
    print(f"mean and standard error of {options.seeds} seeds")
    print(table(rows, options, None))
    if len(options.variants) > 1:
        print(f"\nDifference to {options.variants[0]}")
        print(table(rows, options, options.variants[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
