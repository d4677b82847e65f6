"""Items with named fields: JSON lines, CSV, TSV, Parquet."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ssbhash.data.items import Fields, Items
from ssbhash.data.reading import Malformed, opened, sound

Array = npt.NDArray[Any]

# A longer line is no item; it would be held in memory as a whole.
_MAX_LINE_BYTES = 1 << 27

Row = tuple[int, dict[str, Any]]


def read_json_lines(path: Path, fields: Fields) -> Items:
    """Read one JSON object a line."""
    with sound(path), opened(path) as file:
        return _items(_json_rows(file), fields)


def read_csv(path: Path, fields: Fields, delimiter: str = ",") -> Items:
    """Read a table of text whose first line has the names of the fields."""
    with sound(path), opened(path) as file, _csv_reader(file, delimiter) as rows:
        return _csv_items(rows, fields)


def read_stream(path: Path, fields: Fields) -> Items:
    """Read standard input or a pipe: JSON lines, CSV or TSV, by its first line."""
    with sound(path), opened(path) as file:
        first = file.readline(_MAX_LINE_BYTES)
        whole: Any = _Chained(first, file)
        if first.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
            return _items(_json_rows(whole), fields)
        with _csv_reader(whole, "\t" if b"\t" in first else ",") as rows:
            return _csv_items(rows, fields)


def read_parquet(path: Path, fields: Fields) -> Items:
    """Read a Parquet file: texts, vectors, or columns that are numbers."""
    try:
        from pyarrow import parquet
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError(
            f"reading {path} needs pyarrow: pip install pyarrow", name="pyarrow"
        ) from missing
    with sound(path), path.open("rb") as file:
        opened_file = parquet.ParquetFile(file, page_checksum_verification=True)
        schema = opened_file.schema_arrow
        names = [name for name in schema.names if name not in _pandas_index(schema)]
        duplicates = {name for name in schema.names if schema.names.count(name) > 1}
        if duplicates:
            raise Malformed(f"has two columns {min(duplicates)!r}")

        def read(*wanted: str) -> Any:
            table = opened_file.read(columns=list(wanted))
            if table.num_rows != opened_file.metadata.num_rows:
                raise ValueError("a column has other rows than the file tells of")
            return table

        def listed(name: str | None) -> list[Any] | None:
            return read(name)[name].to_pylist() if name and name in schema.names else None

        ids = listed(fields.id)
        if fields.id is not None and ids is None:
            raise _no_field(fields.id, schema.names, "--id-field")
        known: dict[str, Any] = {
            "labels": _checked_labels(enumerate(listed(fields.label) or (), 1), "row"),
            "ids": ids,
            "fields": tuple(names),
        }
        if fields.vector is None and fields.text is None:
            return Items(**known)
        if fields.vector is None and fields.text in names:
            texts = listed(fields.text) or []
            if not all(isinstance(one, str) for one in texts):
                raise Malformed(f"column {fields.text!r} must hold text in every row")
            return Items(texts=texts, **known)
        names = [name for name in names if name not in (fields.label, fields.id)]
        vector = fields.vector
        if vector is None:
            lists = [name for name in names if _is_list(schema.field(name).type)]
            vector = "X" if "X" in lists else lists[0] if lists and len(names) == 1 else None
        if vector is not None:
            if vector not in names:
                raise _no_field(vector, names, "--vector-field")
            return Items(features=_vectors_of_column(read(vector)[vector], vector), **known)
        table = read(*names)
        columns = [np.asarray(table[name]) for name in names]
        if not columns or any(column.dtype.kind not in "biuf" for column in columns):
            raise Malformed(
                f"must have a column of text, of vectors 'X', or only numbers; it has "
                f"{sorted(names)}. Name the one to read with --text-field or --vector-field, labels "
                "with --label-field, ids with --id-field"
            )
        return Items(features=np.column_stack(columns), columns=names, **known)


def _pandas_index(schema: Any) -> set[str]:
    """Name the columns that hold the index of a pandas frame; they are no features."""
    about = (schema.metadata or {}).get(b"pandas")
    kept = json.loads(about).get("index_columns", []) if about else []
    return {name for name in kept if isinstance(name, str)}


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _vectors_of_column(column: Any, name: str) -> Array:
    from pyarrow import compute

    array = column.combine_chunks()
    if not _is_list(array.type):
        raise Malformed(f"column {name!r} must hold text, or vectors of one length")
    lengths = set(compute.list_value_length(array).to_pylist()) if len(array) else {0}
    values = array.flatten()
    if len(lengths) != 1 or None in lengths or values.null_count:
        raise Malformed(f"column {name!r} must hold text, or vectors of one length")
    flat = values.to_numpy(zero_copy_only=False)
    if flat.dtype.kind not in "biuf":
        raise Malformed(f"column {name!r} must hold vectors of numbers")
    return np.asarray(flat.reshape(len(array), lengths.pop()), np.float32)


def _json_rows(file: IO[bytes]) -> Iterator[Row]:
    number = 0
    while line := file.readline(_MAX_LINE_BYTES):
        number += 1
        if len(line) == _MAX_LINE_BYTES:
            raise Malformed(f"line {number} is longer than {_MAX_LINE_BYTES:,} bytes")
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise Malformed(f"line {number}: not JSON lines: {error}") from error
        if not isinstance(row, dict):
            raise Malformed(f"line {number}: not JSON lines: not an object")
        yield number, row


class _Chained:
    """A first line that was read ahead, and the rest of its file."""

    def __init__(self, first: bytes, rest: IO[bytes]) -> None:
        self._first, self._rest = first, rest

    def readline(self, limit: int = -1) -> bytes:
        first, self._first = self._first, b""
        return first or self._rest.readline(limit)

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.readline(_MAX_LINE_BYTES), b"")


@contextmanager
def _csv_reader(file: Any, delimiter: str) -> Iterator[Any]:
    lines = (
        line.decode("utf-8-sig" if number == 0 else "utf-8")
        for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE_BYTES), b""))
    )
    # The limit is the process's, and 128 KiB are too few for a text.
    limit = csv.field_size_limit(_MAX_LINE_BYTES)
    try:
        yield csv.reader(lines, delimiter=delimiter, strict=True)
    finally:
        csv.field_size_limit(limit)


def _csv_items(reader: Any, fields: Fields) -> Items:
    header = next(reader, None)
    if header is None:
        raise Malformed("is empty; the first line must name the fields")
    names = [name.strip() for name in header]
    named = [name for name in names if name]  # pandas writes its index without a name
    if len(set(named)) != len(named):
        raise Malformed(f"line 1: a field is named twice: {', '.join(named)}")

    def rows() -> Iterator[Row]:
        for cells in reader:
            if len(cells) == len(names):
                row: dict[str, Any] = dict(zip(names, cells, strict=True))
                row.pop("", None)
                yield reader.line_num, row
            elif cells:
                raise Malformed(
                    f"line {reader.line_num} has {len(cells)} cells, line 1 has {len(names)}"
                )

    others = [name for name in named if name not in (fields.label, fields.id)]
    is_table = fields.vector is None and fields.text is not None and fields.text not in named
    return _items(rows(), fields, columns=others if is_table else None, header=named)


def _items(
    rows: Iterable[Row],
    fields: Fields,
    columns: list[str] | None = None,
    header: list[str] | None = None,
) -> Items:
    """Make items of rows: texts, vectors, or one number for each of `columns`.

    A CSV file has a `header`, and all its cells are text.
    """
    values: list[Any] = []
    labels: list[tuple[int, Any]] = []
    ids: list[Any] = []
    wanted = fields.vector or fields.text
    is_csv = header is not None
    for number, row in rows:
        if not labels:
            header = header or list(row)
            for name, option in ((fields.id, "--id-field"), (columns is None and wanted, "")):
                if name and name not in header:
                    raise _no_field(name, header, option)
        if columns is not None:
            values.append([_number(row[name], name, number) for name in columns])
        elif fields.vector is not None:
            values.append(_vector(row.get(fields.vector), fields.vector, number))
        elif wanted is not None and isinstance(row.get(wanted), str):
            values.append(row[wanted])
        elif wanted is not None:
            raise _bad_field(row, wanted, "text", number)
        labels.append((number, row.get(fields.label)))
        if fields.id is not None:
            if fields.id not in row:
                raise _bad_field(row, fields.id, "an id", number)
            ids.append(row[fields.id])
    if is_csv:
        are_numbers = all(_is_whole(cell) for _, cell in labels if cell)
        labels = [(number, _label_of_cell(cell or "", are_numbers)) for number, cell in labels]
    known: dict[str, Any] = {
        "labels": _checked_labels(labels, "line"),
        "ids": ids if fields.id is not None else None,
        "fields": tuple(header or ()),
    }
    if columns is None and fields.vector is None:
        return Items(texts=values if wanted is not None else None, **known)
    if columns is not None and not columns:
        raise Malformed("has no field but labels and ids")
    widths = {len(vector) for vector in values}
    if len(widths) > 1:
        raise Malformed(f"has vectors of different lengths {sorted(widths)} in {wanted!r}")
    with np.errstate(over="ignore"):  # infinity, which every reader of features refuses
        features = np.array(values, np.float32)
    width = len(columns) if columns is not None else len(values[0]) if values else 0
    return Items(features=features.reshape(len(values), width), columns=columns, **known)


def _number(cell: str, name: str, line: int) -> float:
    try:
        return float(cell)
    except ValueError:
        raise Malformed(
            f"line {line}: {name!r} is {cell[:40]!r}, no number. Name a column of labels with "
            "--label-field, of ids with --id-field, of texts with --text-field"
        ) from None


def _vector(value: Any, name: str, line: int) -> list[float]:
    if isinstance(value, str):  # a cell of a CSV file
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    if not isinstance(value, list) or not all(type(one) in (int, float) for one in value):
        raise Malformed(f"line {line}: field {name!r} is no vector, such as [0.5, 1, 2]")
    return value


def _bad_field(row: dict[str, Any], name: str, kind: str, line: int) -> Malformed:
    found = "is missing" if name not in row else f"is {type(row[name]).__name__}, not {kind}"
    return Malformed(f"line {line}: field {name!r} {found}")


def _no_field(name: str, found: list[str], option: str) -> Malformed:
    shown = ", ".join(found[:20]) + (", ..." if len(found) > 20 else "")
    hint = f"Name it with {option}"
    if not option:
        hint = "Name it with --text-field, or a field of vectors with --vector-field"
    return Malformed(f"has no field {name!r} (fields: {shown}). {hint}")


def _checked_labels(labels: Iterable[tuple[int, Any]], place: str) -> list[Any] | None:
    """Check that labels are of one kind; None if there is no label at all."""
    found = list(labels)
    first: tuple[int, Any] | None = None
    for number, label in found:
        for one in label if isinstance(label, list) else [label]:
            kind = _kind(one)
            if kind is None:
                continue
            if kind == "a number" and not _is_class_id(one):
                raise Malformed(
                    f"{place} {number}: label {one!r} is no class: text, a whole number of 64 bits "
                    "or a truth value, or a list of them"
                )
            first = first or (number, kind)
            if kind != first[1]:
                raise Malformed(
                    f"{place} {number}: label {one!r} is {kind}, {place} {first[0]}'s is {first[1]}"
                )
    return [label for _, label in found] if first else None


def _kind(label: Any) -> str | None:
    """Tell text, numbers and truth values apart; None for anything else."""
    if isinstance(label, bool):
        return "a truth value"
    if label is None or label in ("", -1) or (isinstance(label, float) and math.isnan(label)):
        return None
    return "text" if isinstance(label, str) else "a number"


def _is_class_id(label: Any) -> bool:
    return isinstance(label, int | float) and label == label // 1 and abs(label) < 2**63


def _label_of_cell(cell: str, are_numbers: bool) -> Any:
    if not cell:
        return None
    return int(cell) if are_numbers else cell


def _is_whole(cell: str) -> bool:
    try:
        return str(int(cell)) == cell
    except ValueError:
        return False
