"""The commands that learn: train, tune.

Results go to standard output, progress and remarks to standard error.
"""

from __future__ import annotations

import inspect
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ssbhash.atomic import MANIFEST
from ssbhash.cli.items import labels_of, read, require_labels
from ssbhash.cli.options import (
    Analyzer,
    AnalyzerOption,
    Assignments,
    Bits,
    Data,
    Device,
    Epochs,
    Force,
    IdField,
    Json,
    LabelField,
    LabelsFile,
    MaxTerms,
    MethodOption,
    MinDf,
    Ngrams,
    Quiet,
    Seed,
    Storage,
    Supervision,
    TextField,
    TokenPattern,
    VectorField,
    Weighting,
    WeightingOption,
)
from ssbhash.cli.output import note, report
from ssbhash.data import Items, files
from ssbhash.registry import METHODS

if TYPE_CHECKING:
    from ssbhash.models import Pipeline


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
    id_field: IdField = None,
    vector_field: VectorField = None,
    weighting: WeightingOption = Weighting.log_tf,
    max_terms: MaxTerms = 10_000,
    min_df: MinDf = 2,
    ngrams: Ngrams = 1,
    analyzer: AnalyzerOption = Analyzer.word,
    token_pattern: TokenPattern = None,
    seed: Seed = 0,
    device: Device = "auto",
    force: Force = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Learn codes from items, a few of which have labels.

    A label that is missing, null or -1 is unlabelled. Ctrl-C stops the training and
    keeps the model of the last finished epoch.
    """
    _check_model_folder(out, force)
    note(f"reading {data}", quiet)
    items = read(data, labels, text=text_field, label=label_field, id=id_field, vector=vector_field)
    if hasattr(METHODS[method], "predict"):
        require_labels(items, data, label_field, "--labels", "vdsh")
    y, classes = labels_of(items, supervision, seed)
    common = {"n_bits": bits, "seed": seed, "device": device, "verbose": not quiet}
    hasher = _new_hasher(method, assignments or [], common, n_epochs=epochs, checkpoint=checkpoint)
    vocabulary = _vocabulary(weighting, max_terms, min_df, ngrams, analyzer, token_pattern)
    pipeline = _new_pipeline(hasher, items, classes, vocabulary)
    started = time.perf_counter()
    x, target = _features(pipeline, items, quiet)
    hasher.fit(x, y, target=target)
    seconds = time.perf_counter() - started
    pipeline.save(out)
    content = {
        "model": str(out),
        "method": method,
        "bits": bits,
        "items": len(items),
        "labelled": 0 if y is None else int((y.reshape(len(y), -1)[:, 0] >= 0).sum()),
        "epochs": len(hasher.history_),
        "seconds": round(seconds, 2),
        "interrupted": bool(hasher.interrupted_),
    }
    report(content, as_json)
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
    id_field: IdField = None,
    vector_field: VectorField = None,
    weighting: WeightingOption = Weighting.log_tf,
    max_terms: MaxTerms = 10_000,
    min_df: MinDf = 2,
    ngrams: Ngrams = 1,
    analyzer: AnalyzerOption = Analyzer.word,
    token_pattern: TokenPattern = None,
    seed: Seed = 0,
    device: Device = "auto",
    force: Force = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Choose a method's hyper-parameters by the labels of DATA alone.

    Each trial is cross-validated: labels of a fold are hidden, and its items are
    queries to the other labelled ones. The first trial is the method as given. Ctrl-C
    keeps what was found; with --storage the same command goes on.
    """
    from ssbhash.tuning import tune as search_parameters

    files.check_folder(out.parent)
    if model is not None:
        _check_model_folder(model, force)
    note(f"reading {data}", quiet)
    items = read(data, labels, text=text_field, label=label_field, id=id_field, vector=vector_field)
    require_labels(items, data, label_field, "--labels")
    y, classes = labels_of(items, supervision, seed)
    common = {"n_bits": bits, "seed": seed, "device": device, "verbose": False}
    hasher = _new_hasher(method, assignments or [], common, n_epochs=epochs)
    vocabulary = _vocabulary(weighting, max_terms, min_df, ngrams, analyzer, token_pattern)
    pipeline = _new_pipeline(hasher, items, classes, vocabulary)
    x, target = _features(pipeline, items, quiet)
    trials = 30 if trials is None and seconds is None else trials
    options: dict[str, Any] = {"n_trials": trials, "seconds": seconds, "n_folds": folds, "k": k}
    options |= {"storage": storage, "seed": seed, "verbose": not quiet, "refit": model is not None}
    found = search_parameters(hasher, x, y, target, **options)
    content = {"method": method, "bits": bits, **found.to_dict()}
    files.write_json(out, content)
    print(json.dumps(content) if as_json else found.table())
    if found.interrupted:
        print("ssbhash: interrupted; the finished trials are kept", file=sys.stderr)
        raise typer.Exit(130)
    if model is not None:
        pipeline.hasher = found.hasher
        pipeline.save(model)


def _new_hasher(
    method: str, assignments: list[str], common: dict[str, Any], **optional: Any
) -> Any:
    cls = METHODS[method]
    known = inspect.signature(cls).parameters
    parameters = {name: value for name, value in optional.items() if value is not None}
    for assignment in assignments:
        name, _, text = assignment.partition("=")
        if name not in known or name in (*common, "encoder"):  # a function is no text
            others = ", ".join(sorted(set(known) - {*common, "encoder"}))
            raise ValueError(f"--set {name} is no parameter of {method}, which has {others}")
        try:
            parameters[name] = json.loads(text)
        except ValueError:  # no number: a word
            parameters[name] = text
    return cls(**common, **parameters)


def _vocabulary(
    weighting: Weighting,
    max_terms: int,
    min_df: int,
    ngrams: int,
    analyzer: Analyzer,
    token_pattern: str | None,
) -> dict[str, Any]:
    """Return the keywords of `TextFeatures`."""
    return {
        "weighting": weighting.value,
        "max_terms": max_terms,
        "min_df": min_df,
        "ngrams": ngrams,
        "analyzer": analyzer.value,
        "token_pattern": token_pattern,
    }


def _new_pipeline(
    hasher: Any, items: Items, classes: list[Any], vocabulary: dict[str, Any]
) -> Pipeline:
    from ssbhash.data import TextFeatures
    from ssbhash.models import Pipeline

    text = TextFeatures(**vocabulary) if items.texts is not None else None
    return Pipeline(hasher, text, classes)


def _features(pipeline: Pipeline, items: Items, quiet: bool) -> tuple[Any, Any]:
    """Make features and target for `fit`; tell what takes time before its progress bar."""
    if items.texts is not None:
        note(f"vocabulary of {len(items):,} texts", quiet)
    x, target = pipeline.fit_text(items)
    is_projected = getattr(pipeline.hasher, "preset", "") == "default" and hasattr(x, "tocsr")
    if is_projected:
        note(f"projection of {x.shape[1]:,} features", quiet)
    return x, target


def _check_model_folder(folder: Path, force: bool) -> None:
    if (folder / MANIFEST).exists() and not force:
        raise ValueError(f"{folder} holds a model already: --force replaces it")
    files.check_folder(folder)
