"""The commands that work with codes: encode, search, evaluate.

Each imports what it needs when it runs: `search` in codes never loads torch.
"""

from __future__ import annotations

import sys
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer

from ssbhash.cli import items as from_files
from ssbhash.cli.options import (
    Backend,
    Denominator,
    IdField,
    Json,
    LabelField,
    ModelOption,
    TextField,
    Threads,
    Ties,
    VectorField,
)
from ssbhash.cli.output import Neighbours, report
from ssbhash.data import Items, encode_labels, files, is_labelled

# A difference in precision that is pointed out.
NOTABLE = 0.02


class Show(str, Enum):
    """What results show of the found items."""

    text = "text"


def encode(
    model: Annotated[Path, typer.Argument(help="Folder of a trained model.")],
    data: Annotated[Path, typer.Argument(help="Items, in the form that the model was trained on.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Codes, .npy.")],
    text_field: TextField = "text",
    label_field: LabelField = "label",
    id_field: IdField = None,
    vector_field: VectorField = None,
    as_json: Json = False,
) -> None:
    """Turn items into codes: `.npy`, uint8 [n, n_bytes]."""
    items = files.read_items(
        data, text=text_field, label=label_field, id=id_field, vector=vector_field
    )
    codes, n_bits, seconds = from_files.encode(model, items)
    files.write_codes(out, codes, n_bits)
    content = {"codes": str(out), "items": len(codes), "bits": n_bits, "seconds": round(seconds, 3)}
    report(content, as_json)


def search(
    database: Annotated[Path, typer.Argument(help="Codes to search, .npy.")],
    queries: Annotated[str, typer.Argument(help="Codes, .npy; with --model, items, or one text.")],
    k: Annotated[int, typer.Option("--k", "-k", help="Neighbours of each query.", min=1)] = 10,
    radius: Annotated[
        int | None, typer.Option(help="All within this many bits, instead of k.", min=0)
    ] = None,
    model: ModelOption = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write .npz, .jsonl or .csv instead of printing."),
    ] = None,
    items: Annotated[
        Path | None, typer.Option(help="Items that the codes to search were made of.")
    ] = None,
    show: Annotated[
        Show | None, typer.Option(help="Show the text of each neighbour; needs --items.")
    ] = None,
    id_field: IdField = None,
    text_field: TextField = "text",
    label_field: LabelField = "label",
    vector_field: VectorField = None,
    backend: Backend = "auto",
    threads: Threads = None,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Find the nearest codes of each query, exactly; ties go to the smaller id.

    Prints one line a query: its number, then id:distance of each neighbour. An id is a row
    of DATABASE, or what --items and --id-field tell. `.npz` has distances and rows (with
    --radius also lims, where each query's part begins).
    """
    from ssbhash.hamming import search as nearest
    from ssbhash.hamming import within

    if out is not None and out.suffix not in (".npz", ".jsonl", ".csv"):
        raise ValueError(f"--out must be .npz, .jsonl or .csv, got {out}")
    if as_json and as_csv:
        raise ValueError("give --json or --csv, not both")
    if show is not None and items is None:
        raise ValueError("--show text needs --items, the file that the codes were made of")
    if id_field is not None and items is None and model is None:
        raise ValueError("--id-field needs --items, the file that the codes were made of")
    names: dict[str, Any] = {"text": text_field, "label": label_field, "vector": vector_field}
    codes, n_bits = files.read_codes(database)
    query_ids = None
    if model is None:
        if not queries.endswith(".npy"):
            raise ValueError(f"{queries!r} is no code file (.npy): items or a text need --model")
        asked, asked_bits = files.read_codes(queries)
    else:
        found = _query_items(queries, names | {"id": id_field})
        query_ids = found.ids
        asked, asked_bits, _ = from_files.encode(model, found)
    if asked_bits != n_bits:
        raise ValueError(f"{queries} has codes of {asked_bits} bits, {database} of {n_bits}")
    known = Items()
    if items is not None:
        known = files.read_items(items, **names, id=id_field)
        if len(known) != len(codes):
            raise ValueError(f"{items} has {len(known)} items, {database} has {len(codes)} codes")
        if show is not None and known.texts is None:
            raise ValueError(f"{items} holds no texts to show")
    if radius is None:
        distances, ids = nearest(codes, asked, k, backend=backend, n_threads=threads)
        arrays = {"distances": distances, "ids": ids}
        rows: Any = zip(distances.tolist(), ids.tolist(), strict=True)
    else:
        lims, distances, ids = within(codes, asked, radius, backend=backend, n_threads=threads)
        arrays = {"lims": lims, "distances": distances, "ids": ids}
        cuts = [slice(*pair) for pair in pairwise(lims)]
        rows = ((distances[cut].tolist(), ids[cut].tolist()) for cut in cuts)
    texts = known.texts if show is not None else None
    result = Neighbours(arrays, rows, query_ids, known.ids, texts)
    if out is not None:
        result.write(out)
        return
    lines = result.json_lines() if as_json else result.csv() if as_csv else result.plain()
    sys.stdout.writelines(lines)


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
    id_field: IdField = None,
    vector_field: VectorField = None,
    backend: Backend = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Measure retrieval: P@k, R@k and MAP@k, means over the queries.

    Give two code files with --labels and --query-labels, or --model with two data
    files (labels inside, or given). Items without a label are left out, and the report says
    how many have one. By default each figure is the expectation over all orders of items at
    equal distance; "P@k searched" is that of what `search` returns, smaller rows first.
    "distinct" is the share of distinct codes of DATABASE, "tied@k" the number of items at the
    distance of the k-th.
    """
    from ssbhash import metrics

    codes, bits, raw = [], [], []
    names: dict[str, Any] = {
        "text": text_field,
        "label": label_field,
        "id": id_field,
        "vector": vector_field,
    }
    sides = ((database, labels, "--labels"), (queries, query_labels, "--query-labels"))
    for path, label_path, option in sides:
        if model is None:
            found, n_bits = files.read_codes(path)
            items = Items()
            if label_path is not None:
                items = Items(labels=files.read_labels(label_path, label=label_field))
        else:
            items = from_files.read(path, label_path, **names)
            found, n_bits, _ = from_files.encode(model, items)
        from_files.require_labels(items, path, label_field, option)
        codes.append(found)
        bits.append(n_bits)
        raw.append(items.labels)
    if bits[0] != bits[1]:
        raise ValueError(f"{queries} has codes of {bits[1]} bits, {database} of {bits[0]}")
    encoded, _ = encode_labels(*raw)
    counts = {"bits": bits[0], "items": len(codes[0]), "queries": len(codes[1])}
    for side, name in enumerate(("items", "queries")):
        if len(encoded[side]) != len(codes[side]):
            raise ValueError(
                f"{sides[side][0]} has {len(codes[side])} codes, but {len(encoded[side])} labels"
            )
        known = is_labelled(encoded[side])
        if not known.any():
            raise ValueError(f"{sides[side][0]} has no item with a label")
        if not known.all():
            counts[f"labelled_{name}"] = int(known.sum())
            codes[side], encoded[side] = codes[side][known], encoded[side][known]
    ks = k or [100]
    engine: dict[str, Any] = {"n_bits": bits[0], "backend": backend, "n_threads": threads}
    sides_of = codes[0], encoded[0], codes[1], encoded[1]
    figures = metrics.evaluate(
        *sides_of, ks, ties=ties.value, denominator=denominator.value, **engine
    )
    figures |= _figures_of_ties(sides_of, ks, ties, engine)
    report({**counts, **{name: round(value, 6) for name, value in figures.items()}}, as_json)
    _warn_of_ties(figures, ks)


def _figures_of_ties(
    sides: tuple[Any, Any, Any, Any], ks: list[int], ties: Ties, engine: dict[str, Any]
) -> dict[str, float]:
    """Measure how much figures depend on the order of the items in the file, by ties."""
    from ssbhash import item_metrics, metrics

    figures = {}
    for name, order in (("expected", Ties.expected), ("searched", Ties.id)):
        if order is not ties:
            values = metrics.precision_at(*sides, k=ks, ties=order.value, **engine)
            figures = {f"P@{k} {name}": float(value) for k, value in zip(ks, values, strict=True)}
    depth = max(ks)
    ties_of = item_metrics.code_figures(*sides, k=depth, depth=depth, **engine)
    del ties_of[f"P@{depth} by class"]  # of another order of the items
    return figures | ties_of


def _warn_of_ties(figures: dict[str, float], ks: list[int]) -> None:
    for k in ks:
        other = figures.get(f"P@{k} searched", figures.get(f"P@{k} expected", 0.0))
        if abs(figures[f"P@{k}"] - other) > NOTABLE:
            print(
                f"ssbhash: P@{k} depends on the order of the items in the file: "
                f"{figures[f'P@{k}']:.3f} or {other:.3f}, over random orders of ties or as search "
                "returns them. Longer codes tie less",
                file=sys.stderr,
            )


def _query_items(queries: str, names: dict[str, Any]) -> Items:
    """Read items of a file; a string that names no file and has no data suffix is a text."""
    if not queries.strip():
        raise ValueError("the question is empty")
    path = Path(queries)
    is_file = queries == "-" or files.is_data_file(path) or (len(queries) < 256 and path.exists())
    return files.read_items(path, **names) if is_file else Items(texts=[queries])
