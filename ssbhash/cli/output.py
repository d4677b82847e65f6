"""What the commands print and write: reports, neighbours, progress."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import typer

from ssbhash.atomic import replacing
from ssbhash.engines import Progress


@dataclass(frozen=True)
class Neighbours:
    """The result of a search, with names for people.

    Parameters
    ----------
    arrays : dict of str to array
        Row numbers and distances, for programs: what `.npz` gets.
    rows : iterable of (distances, row numbers)
        The same, for each query.
    query_ids, ids : list, optional
        The user's own ids of queries and of database items; row numbers without.
    texts : list of str, optional
        Of the database items, to be shown.
    """

    arrays: dict[str, Any]
    rows: Iterable[tuple[list[int], list[int]]]
    query_ids: list[Any] | None = None
    ids: list[Any] | None = None
    texts: list[str] | None = None

    def write(self, out: Path) -> None:
        """Write `.npz`, `.jsonl` or `.csv`, whole or not at all."""
        with replacing(out) as file:
            if out.suffix == ".npz":
                np.savez(file, **self.arrays)
            else:
                lines = self.csv() if out.suffix == ".csv" else self.json_lines()
                file.writelines(line.encode(errors="backslashreplace") for line in lines)

    def json_lines(self) -> Iterator[str]:
        """Yield one JSON object for each query."""
        for query, distances, rows in self._found():
            line = {"query": query, "ids": self._named(rows), "distances": distances}
            if self.texts is not None:
                line["texts"] = [self.texts[row] for row in rows]
            yield json.dumps(line, ensure_ascii=False) + "\n"

    def csv(self) -> Iterator[str]:
        """Yield a line with the names of the columns, then one line for each neighbour."""
        has_texts = [] if self.texts is None else ["text"]
        yield _csv_line(["query", "rank", "id", "distance", *has_texts])
        for query, distances, rows in self._found():
            found = zip(self._named(rows), distances, rows, strict=True)
            for rank, (name, distance, row) in enumerate(found, 1):
                text = [] if self.texts is None else [self.texts[row]]
                yield _csv_line([query, rank, name, distance, *text])

    def plain(self) -> Iterator[str]:
        """Yield id:distance of neighbours, a line for each query; with texts, for each neighbour."""
        for query, distances, rows in self._found():
            pairs = [f"{a}:{b}" for a, b in zip(self._named(rows), distances, strict=True)]
            if self.texts is None:
                yield " ".join([str(query), *pairs]) + "\n"
                continue
            yield f"{query}\n"
            for pair, row in zip(pairs, rows, strict=True):
                yield f"  {pair:<12} {' '.join(self.texts[row].split())}\n"

    def _found(self) -> Iterator[tuple[Any, list[int], list[int]]]:
        for number, (distances, rows) in enumerate(self.rows):
            yield (number if self.query_ids is None else self.query_ids[number]), distances, rows

    def _named(self, rows: list[int]) -> list[Any]:
        return rows if self.ids is None else [self.ids[row] for row in rows]


def report(content: dict[str, Any], as_json: bool) -> None:
    """Print names and values."""
    if as_json:
        print(json.dumps(content))
        return
    width = max(map(len, content))
    for name, value in content.items():
        print(f"{name:<{width}} {value}")


def note(line: str, quiet: bool) -> None:
    """Print a remark on progress, if standard error is a terminal."""
    if not quiet and sys.stderr.isatty():
        print(line, file=sys.stderr, flush=True)


@contextmanager
def progress_bar(label: str) -> Iterator[Progress | None]:
    """Draw the share of the work that is done, if standard error is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    with typer.progressbar(length=1000, label=label, file=sys.stderr) as bar:
        yield lambda share: bar.update(int(1000 * share) - bar.pos)


def _csv_line(cells: list[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()
