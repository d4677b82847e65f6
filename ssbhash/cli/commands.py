"""The commands that read items and codes: train, tune, encode, search, evaluate.

Results go to standard output, progress and remarks to standard error. Each command
imports what it needs when it runs: `search` never loads torch.
"""

from __future__ import annotations

import inspect
import json
import sys
import time
from dataclasses import replace
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from ssbhash.atomic import replacing
from ssbhash.data import encode_labels, files, hide_labels
from ssbhash.registry import METHODS

if TYPE_CHECKING:
    from ssbhash.arrays import Codes
    from ssbhash.models import Pipeline


class Weighting(str, Enum):
    """Inputs made of texts."""

    log_tf = "log-tf"
    tf_idf = "tf-idf"


class Ties(str, Enum):
    """Order of items at equal distance."""

    expected = "expected"
    id = "id"


class Denominator(str, Enum):
    """What average precision is divided by."""

    hits = "hits"
    relevant = "min(k, relevant)"


Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.", min=0)]
Backend = Annotated[str, typer.Option(help="Search engine: auto, native, numba, reference.")]
Threads = Annotated[int | None, typer.Option(help="Threads at most [default: all].", min=1)]
TextField = Annotated[str, typer.Option(help="Field with the text.")]
LabelField = Annotated[str, typer.Option(help="Field with the label, or a list of labels.")]
Data = Annotated[Path, typer.Argument(help="Items; texts or features.")]


def _known_method(name: str) -> str:
    if name not in METHODS:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(METHODS)}.")
    return name


MethodOption = Annotated[
    str,
    typer.Option(
        metavar=f"[{'|'.join(METHODS)}]",
        help="What to train.",
        callback=_known_method,
        autocompletion=lambda: list(METHODS),
    ),
]
Bits = Annotated[int, typer.Option(help="Length of the codes.", min=1)]
LabelsFile = Annotated[Path | None, typer.Option(help="Labels, if not in DATA.")]
Supervision = Annotated[
    float | None, typer.Option(help="Hide all labels but this share, at random.")
]
Epochs = Annotated[int | None, typer.Option(help="Passes over the items.", min=1)]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Any parameter of the method; repeat."),
]
WeightingOption = Annotated[Weighting, typer.Option(help="Texts: input.")]
MaxTerms = Annotated[int, typer.Option(help="Texts: size of the vocabulary.")]
MinDf = Annotated[int, typer.Option(help="Texts that a term must occur in.")]
Ngrams = Annotated[int, typer.Option(help="Texts: longest term in words, 1 to 3.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]
Storage = Annotated[str | None, typer.Option(help="File that keeps the trials; go on from it.")]
ModelOption = Annotated[Path | None, typer.Option(help="Model that encodes the data files.")]


def train(
    data: Data,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the model.")],
    method: MethodOption = "ssb-vae",
    bits: Bits = 32,
    labels: LabelsFile = None,
    supervision: Supervision = None,
    epochs: Epochs = None,
    assignments: Assignments = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Folder for the state after each epoch; go on from it.")
    ] = None,
    text_field: TextField = "text",
    label_field: LabelField = "label",
    weighting: WeightingOption = Weighting.log_tf,
    max_terms: MaxTerms = 10_000,
    min_df: MinDf = 2,
    ngrams: Ngrams = 1,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Learn codes from items of which a few have labels.

    A label that is missing, null or -1 is unlabelled. Ctrl-C stops the training and
    keeps the model of the last finished epoch.
    """
    items = _read(data, labels, text_field, label_field)
    y, classes = _labels_of(items, supervision, seed)
    files.check_folder(out)
    common = {"n_bits": bits, "seed": seed, "device": device, "verbose": not quiet}
    hasher = _new_hasher(method, assignments or [], common, n_epochs=epochs, checkpoint=checkpoint)
    vocabulary = {"max_terms": max_terms, "min_df": min_df, "ngrams": ngrams}
    pipeline = _new_pipeline(hasher, items, classes, weighting=weighting.value, **vocabulary)
    started = time.perf_counter()
    pipeline.fit(items, y)
    seconds = time.perf_counter() - started
    pipeline.save(out)
    report = {
        "model": str(out),
        "method": method,
        "bits": bits,
        "items": len(items),
        "labelled": 0 if y is None else int((y.reshape(len(y), -1)[:, 0] >= 0).sum()),
        "epochs": len(hasher.history_),
        "seconds": round(seconds, 2),
        "interrupted": bool(hasher.interrupted_),
    }
    _print(report, as_json)
    if hasher.interrupted_:
        print("ssbhash: interrupted; the last finished epoch is kept", file=sys.stderr)
        raise typer.Exit(130)


def tune(
    data: Data,
    out: Annotated[Path, typer.Option("--out", "-o", help="What was found, .json.")],
    model: Annotated[
        Path | None, typer.Option(help="Folder for a model of the best parameters.")
    ] = None,
    method: MethodOption = "ssb-vae",
    bits: Bits = 32,
    trials: Annotated[
        int | None, typer.Option(help="Trials in all [default: 30, or no limit].", min=1)
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="Start no trial after these.")] = None,
    folds: Annotated[int, typer.Option(help="Trainings of a trial.", min=2)] = 5,
    k: Annotated[int | None, typer.Option("--k", "-k", help="Neighbours looked at.")] = None,
    storage: Storage = None,
    labels: LabelsFile = None,
    supervision: Supervision = None,
    epochs: Epochs = None,
    assignments: Assignments = None,
    text_field: TextField = "text",
    label_field: LabelField = "label",
    weighting: WeightingOption = Weighting.log_tf,
    max_terms: MaxTerms = 10_000,
    min_df: MinDf = 2,
    ngrams: Ngrams = 1,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Choose a method's hyper-parameters by the labels of DATA alone.

    Each trial is cross-validated: labels of a fold are hidden, and its items are
    queries to the other labelled ones. The first trial is the method as given. Ctrl-C
    keeps what was found; with --storage the same command goes on.
    """
    from ssbhash.tuning import tune as search_parameters

    items = _read(data, labels, text_field, label_field)
    y, classes = _labels_of(items, supervision, seed)
    for folder in {out.parent, model or out.parent}:
        files.check_folder(folder)
    common = {"n_bits": bits, "seed": seed, "device": device, "verbose": False}
    hasher = _new_hasher(method, assignments or [], common, n_epochs=epochs)
    vocabulary = {"max_terms": max_terms, "min_df": min_df, "ngrams": ngrams}
    pipeline = _new_pipeline(hasher, items, classes, weighting=weighting.value, **vocabulary)
    x, target = pipeline.fit_text(items)
    trials = 30 if trials is None and seconds is None else trials
    options: dict[str, Any] = {"n_trials": trials, "seconds": seconds, "n_folds": folds, "k": k}
    options |= {"storage": storage, "seed": seed, "verbose": not quiet, "refit": model is not None}
    found = search_parameters(hasher, x, y, target, **options)
    report = {"method": method, "bits": bits, **found.to_dict()}
    files.write_json(out, report)
    print(json.dumps(report) if as_json else found.table())
    if found.interrupted:
        print("ssbhash: interrupted; the finished trials are kept", file=sys.stderr)
        raise typer.Exit(130)
    if model is not None:
        pipeline.hasher = found.hasher
        pipeline.save(model)


def encode(
    model: Annotated[Path, typer.Argument(help="Folder of a trained model.")],
    data: Annotated[Path, typer.Argument(help="Items, in the form that the model was trained on.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Codes, .npy.")],
    database: Annotated[
        bool, typer.Option("--database", help="Codes of items to be searched, not of queries.")
    ] = False,
    text_field: TextField = "text",
    as_json: Json = False,
) -> None:
    """Turn items into codes: `.npy`, uint8 [n, n_bytes].

    The default method has codes of their own for items to be searched: queries meet
    those of a certain class first.
    """
    items = files.read_items(data, text=text_field)
    codes, n_bits, seconds = _encode(model, items, database)
    files.write_codes(out, codes, n_bits)
    report = {"codes": str(out), "items": len(codes), "bits": n_bits, "seconds": round(seconds, 3)}
    _print(report, as_json)


def search(
    database: Annotated[Path, typer.Argument(help="Codes to search, .npy.")],
    queries: Annotated[Path, typer.Argument(help="Codes, .npy; with --model, items.")],
    k: Annotated[int, typer.Option("--k", "-k", help="Neighbours of each query.", min=1)] = 10,
    radius: Annotated[
        int | None, typer.Option(help="All within so many bits, instead of k.", min=0)
    ] = None,
    model: ModelOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write .npz or .jsonl instead of printing.")
    ] = None,
    text_field: TextField = "text",
    backend: Backend = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Find the nearest codes of each query, exactly; ties go to the smaller id.

    Prints one line a query: its number, then id:distance of each neighbour. `.npz`
    has distances and ids (with --radius also lims, where each query's part begins).
    """
    from ssbhash.hamming import search as nearest
    from ssbhash.hamming import within

    if out is not None and out.suffix not in (".npz", ".jsonl"):
        raise ValueError(f"--out must be .npz or .jsonl, got {out}")
    codes, n_bits = files.read_codes(database)
    if model is None:
        asked, asked_bits = files.read_codes(queries)
    else:
        asked, asked_bits, _ = _encode(model, files.read_items(queries, text=text_field))
    if asked_bits != n_bits:
        raise ValueError(f"{queries} has codes of {asked_bits} bits, {database} of {n_bits}")
    if radius is None:
        distances, ids = nearest(codes, asked, k, backend=backend, n_threads=threads)
        arrays = {"distances": distances, "ids": ids}
        rows: Any = zip(distances.tolist(), ids.tolist(), strict=True)
    else:
        lims, distances, ids = within(codes, asked, radius, backend=backend, n_threads=threads)
        arrays = {"lims": lims, "distances": distances, "ids": ids}
        cuts = [slice(*pair) for pair in pairwise(lims)]
        rows = ((distances[cut].tolist(), ids[cut].tolist()) for cut in cuts)
    _give_neighbours(rows, arrays, out, as_json)


def evaluate(
    database: Annotated[Path, typer.Argument(help="Codes, .npy; with --model, items.")],
    queries: Annotated[Path, typer.Argument(help="Codes, .npy; with --model, items.")],
    labels: Annotated[Path | None, typer.Option(help="Labels of DATABASE.")] = None,
    query_labels: Annotated[Path | None, typer.Option(help="Labels of QUERIES.")] = None,
    model: ModelOption = None,
    k: Annotated[list[int] | None, typer.Option("--k", "-k", help="Ranks [default: 100].")] = None,
    ties: Annotated[Ties, typer.Option(help="Order at equal distance.")] = Ties.expected,
    denominator: Annotated[
        Denominator, typer.Option(help="Of average precision.")
    ] = Denominator.hits,
    text_field: TextField = "text",
    label_field: LabelField = "label",
    backend: Backend = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure retrieval: P@k, R@k and MAP@k, means over the queries.

    Give two code files with --labels and --query-labels, or --model with two data
    files (labels inside, or given). By default each figure is the expectation over
    all orders of items at equal distance.
    """
    from ssbhash import metrics

    codes, bits, raw = [], [], []
    for path, label_path in ((database, labels), (queries, query_labels)):
        items = files.Items()
        if model is None:
            found, n_bits = files.read_codes(path)
        else:
            items = files.read_items(path, text=text_field, label=label_field)
            found, n_bits, _ = _encode(model, items, path is database)
        known = items.labels
        if label_path is not None:
            known = files.read_labels(label_path, label=label_field)
        if known is None:
            which = "--labels" if path is database else "--query-labels"
            raise ValueError(f"{path} has no labels: give them with {which}")
        codes.append(found)
        bits.append(n_bits)
        raw.append(known)
    if bits[0] != bits[1]:
        raise ValueError(f"{queries} has codes of {bits[1]} bits, {database} of {bits[0]}")
    encoded, _ = encode_labels(*raw)
    figures = metrics.evaluate(
        codes[0],
        encoded[0],
        codes[1],
        encoded[1],
        k or [100],
        ties=ties.value,
        denominator=denominator.value,
        n_bits=bits[0],
        backend=backend,
        n_threads=threads,
    )
    counts = {"bits": bits[0], "items": len(codes[0]), "queries": len(codes[1])}
    _print({**counts, **{name: round(value, 6) for name, value in figures.items()}}, as_json)


def _read(data: Path, labels: Path | None, text_field: str, label_field: str) -> files.Items:
    items = files.read_items(data, text=text_field, label=label_field)
    if labels is not None:
        items = replace(items, labels=files.read_labels(labels, label=label_field))
    return items


def _labels_of(items: files.Items, supervision: float | None, seed: int) -> tuple[Any, list[Any]]:
    if items.labels is None:
        return None, []
    (y,), classes = encode_labels(items.labels)
    return (y if supervision is None else hide_labels(y, supervision, seed)), classes


def _new_hasher(
    method: str, assignments: list[str], common: dict[str, Any], **optional: Any
) -> Any:
    cls = METHODS[method]
    known = inspect.signature(cls).parameters
    parameters = {name: value for name, value in optional.items() if value is not None}
    for assignment in assignments:
        name, _, text = assignment.partition("=")
        if name not in known or name in common:
            others = ", ".join(sorted(set(known) - set(common)))
            raise ValueError(f"--set {name} is no parameter of {method}, which has {others}")
        try:
            parameters[name] = json.loads(text)
        except ValueError:  # no number: a word
            parameters[name] = text
    return cls(**common, **parameters)


def _new_pipeline(
    hasher: Any, items: files.Items, classes: list[Any], **vocabulary: Any
) -> Pipeline:
    from ssbhash.data import TextFeatures
    from ssbhash.models import Pipeline

    text = TextFeatures(**vocabulary) if items.texts is not None else None
    return Pipeline(hasher, text, classes)


def _encode(model: Path, items: files.Items, database: bool = False) -> tuple[Codes, int, float]:
    """Codes, n_bits, and the seconds of encoding alone, without loading."""
    from ssbhash.models import Pipeline

    pipeline = Pipeline.load(model)
    started = time.perf_counter()
    codes = pipeline.encode(items, database=database)
    return codes, int(pipeline.hasher.n_bits), time.perf_counter() - started


def _give_neighbours(rows: Any, arrays: dict[str, Any], out: Path | None, as_json: bool) -> None:
    if out is not None and out.suffix == ".npz":
        with replacing(out) as file:
            np.savez(file, **arrays)
        return
    lines = (
        {"query": number, "ids": ids, "distances": distances}
        for number, (distances, ids) in enumerate(rows)
    )
    if out is not None:
        with replacing(out) as file:
            file.writelines(f"{json.dumps(line)}\n".encode() for line in lines)
        return
    for line in lines:
        pairs = zip(line["ids"], line["distances"], strict=True)
        plain = " ".join([str(line["query"]), *(f"{one}:{distance}" for one, distance in pairs)])
        print(json.dumps(line) if as_json else plain)


def _print(report: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(report))
        return
    width = max(map(len, report))
    for name, value in report.items():
        print(f"{name:<{width}} {value}")
