"""The default SSB-VAE beside its ingredients, on test queries, over data sets and labels.

    python bench/default.py --dataset snippets cifar10 --supervision 0.01 0.1 --seeds 2 --out FOLDER

trains the default and three baselines (ITQ, classifier codes, half of the bits from each) and
prints P@100 and what the codes keep of the items, mean over seeds. Every cell is one file in
FOLDER, written as soon as it is measured: the same command goes on where it stopped, and
`--tables` prints what is there. All first seeds come first.

One training of the default serves all widths: the bits are found after it, and neither loss nor
initial weights depend on their number. `--check` compares with a training of each width.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssbhash import metrics
from ssbhash.data import files
from ssbhash.item_metrics import code_figures, neighbour_figures
from ssbhash.models import BASELINES
from ssbhash.models.methods import SSBVAE
from ssbhash.paper import datasets
from ssbhash.paper.datasets import Dataset
from ssbhash.paper.grid import SEEDS

DEFAULT = "ssb-vae"
METHODS = (DEFAULT, "concatenated", "classifier", "itq")
FIGURES = ("P@100", "P@10", "P@10 by class", "distinct", "neighbours@100", "P@10 re-ranked")
# What depends on the code's width alone, not on the labels that are known.
UNSUPERVISED = "itq"
# Widths that one training serves: the embedding is as wide for all of them.
MOST_BITS = 128


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    given = os.environ.get("SSBHASH_DATA")
    parser.add_argument("--data", type=Path, default=given, required=not given)
    parser.add_argument("--dataset", nargs="+", default=[*datasets.LOADERS])
    parser.add_argument("--supervision", type=float, nargs="+", default=[0.01, 0.02, 0.05, 0.1])
    parser.add_argument("--bits", type=int, nargs="+", default=[64, 32])
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--seeds", type=int, default=1, help="how many of 5")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--check", action="store_true", help="compare with trainings of each width")
    parser.add_argument("--tables", action="store_true", help="train nothing")
    options = parser.parse_args(arguments)
    if max(options.bits) > MOST_BITS:
        parser.error(f"--bits: at most {MOST_BITS}")
    return options


def name_of(dataset: str, supervision: float, n_bits: int, method: str, seed: int) -> str:
    """File of a cell; ITQ's is the same for all levels of supervision."""
    dataset = Path(dataset).stem
    level = "-" if method == UNSUPERVISED else format(supervision, "g")
    return f"{dataset}_{level}_{n_bits}_{method}_{seed}.json"


def narrowed(hasher: SSBVAE, n_bits: int, X: Any) -> SSBVAE:
    """Find other bits for a trained network."""
    other = SSBVAE(**hasher.get_params() | {"n_bits": n_bits})
    network = other._build(replace(hasher._model.network.shape, n_bits=n_bits))
    state = hasher._model.network.state_dict()
    trained = {k: v for k, v in state.items() if k != "projection"}
    network.load_state_dict(network.state_dict() | trained)
    other._model = replace(hasher._model, network=network.eval())
    other.report_ = hasher.report_
    other._find_bits(other._model, other._model.rows(X))
    other.n_features_in_, other.classes_ = hasher.n_features_in_, hasher.classes_
    return other


def measured(hasher: Any, data: Dataset, n_bits: int) -> dict[str, float]:
    codes, query_codes = hasher.transform(data.X), hasher.transform(data.X_query)
    sides = codes, data.y, query_codes, data.y_query
    row = metrics.evaluate(*sides, [10, 100], n_bits=n_bits) | code_figures(*sides, n_bits=n_bits)
    row |= neighbour_figures(codes, data.X, query_codes, data.X_query, (data.y, data.y_query))
    if data.y.ndim == 1 and hasattr(hasher, "predict"):
        row["accuracy"] = float((hasher.predict(data.X_query) == data.y_query).mean())
    return row


def cosine(data: Dataset) -> dict[str, float]:
    """P@k by cosine of the features."""
    from sklearn.metrics.pairwise import cosine_distances

    def distances(part: Any) -> Any:
        return cosine_distances(data.X_query[part], data.X)

    return {
        name: value
        for k in (10, 100)
        for name, value in metrics.evaluate_distances(distances, data.y, data.y_query, k).items()
        if name.startswith("P@")
    }


def run(data: Dataset, supervision: float, seed: int, options: argparse.Namespace) -> None:
    """Measure the cells of one level of labels and one seed that have no file yet."""
    labels, trained = data.hide_labels(supervision, seed), None
    for n_bits, method in product(options.bits, options.methods):
        path = options.out / name_of(data.name, supervision, n_bits, method, seed)
        if path.is_file():
            continue
        started = time.process_time()
        if method != DEFAULT:
            hasher = BASELINES[method](n_bits=n_bits, seed=seed).fit(data.X, labels)
        elif trained is None:
            hasher = trained = SSBVAE(n_bits, seed=seed, verbose=False).fit(data.X, labels)
        else:
            hasher = narrowed(trained, n_bits, data.X)
            if options.check:
                check(hasher, n_bits, data, labels)
        seconds = time.process_time() - started
        row = measured(hasher, data, n_bits) | {"cpu_seconds": seconds}
        files.write_json(path, row)
        shown = " ".join(f"{name} {row[name]:.3f}" for name in FIGURES)
        print(f"{path.stem} {shown} {seconds:.1f} CPU s", flush=True)


def check(hasher: SSBVAE, n_bits: int, data: Dataset, labels: Any) -> None:
    """Compare with a training at this width."""
    own = SSBVAE(n_bits, seed=hasher.seed, verbose=False).fit(data.X, labels)
    if not np.array_equal(own.transform(data.X_query), hasher.transform(data.X_query)):
        raise AssertionError(f"a training at {n_bits} bits gives other codes")


def mean_of(
    options: argparse.Namespace, dataset: str, supervision: float, n_bits: int, method: str
) -> dict[str, float]:
    """Mean of each figure over the seeds that have run, and "deviation" of P@100 among them."""
    cell = dataset, supervision, n_bits, method
    paths = [options.out / name_of(*cell, seed) for seed in SEEDS[: options.seeds]]
    rows = [files.parse_json(p.read_bytes(), p) for p in paths if p.is_file()]
    found = {name: float(np.mean([row[name] for row in rows])) for name in FIGURES if rows}
    if len(rows) > 1:
        found["deviation"] = float(np.std([row["P@100"] for row in rows], ddof=1))
    return found | {"seeds": len(rows)}


def line(*cells: Any) -> str:
    shown = ("" if c is None else format(c, ".3f") if isinstance(c, float) else c for c in cells)
    return f"| {' | '.join(map(str, shown))} |"


def tables(options: argparse.Namespace) -> str:
    """P@100 of each method, then what the default's codes keep of the items."""
    lines: list[str] = []
    for n_bits in options.bits:
        precision = [line("P@100", "labels", *options.methods, "cosine", "seeds", "deviation")]
        precision.append(line("---", *["---:"] * (len(options.methods) + 4)))
        kept = [
            line("default", "labels", *FIGURES[1:], "ITQ: distinct", "neighbours", "cosine P@10")
        ]
        kept.append(line("---", *["---:"] * (len(FIGURES) + 3)))
        for dataset, level in product(options.dataset, options.supervision):
            found = {m: mean_of(options, dataset, level, n_bits, m) for m in options.methods}
            own, itq = found[DEFAULT], found.get(UNSUPERVISED, {})
            if not own["seeds"]:
                continue
            path = options.out / f"{Path(dataset).stem}_cosine.json"
            cosines = files.parse_json(path.read_bytes(), path)
            head = Path(dataset).stem, f"{level:.0%}"
            each = [row.get("P@100") for row in found.values()]
            precision.append(
                line(*head, *each, cosines["P@100"], int(own["seeds"]), own.get("deviation"))
            )
            kept.append(
                line(
                    *head,
                    *(own[name] for name in FIGURES[1:]),
                    *(itq.get(name) for name in ("distinct", "neighbours@100")),
                    cosines["P@10"],
                )
            )
        lines += [f"{n_bits} bits", "", *precision, "", *kept, ""]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    options = read_arguments(arguments)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    for seed in () if options.tables else SEEDS[: options.seeds]:
        for dataset in options.dataset:
            data = datasets.load(dataset, options.data)
            path = options.out / f"{Path(dataset).stem}_cosine.json"
            if not path.is_file():
                files.write_json(path, cosine(data))
            for supervision in options.supervision:
                run(data, supervision, seed, options)
    print(tables(options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
