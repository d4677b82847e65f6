"""Results of a grid as tables (Markdown, LaTeX, CSV), curves (PNG, SVG) and one HTML page."""

from __future__ import annotations

import csv
import html
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssbhash._version import __version__
from ssbhash.atomic import replacing
from ssbhash.paper.grid import CUTOFFS, Row, Summary, summarise

FIGURES = (
    *("P@100", "P@1000", "P@5000", "MAP@100", "MAP@1000", "MAP@5000"),
    *("asymmetric P@100", "asymmetric MAP@100"),
    *("P@10", "P@10 by class", "P@10 re-ranked", "neighbours@100", "distinct", "tied@100"),
    *("classifier accuracy", "classifier P@100"),
)
IN_PAGE = ("P@100", "MAP@100", "P@10 by class", "P@10 re-ranked", "neighbours@100", "distinct")

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
th, td { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
svg { width: 100%; height: auto }
"""
_NOTE = (
    "Mean over seeds ± its standard error; best of a column in bold. Expected over ties. "
    "Database: the training items. Queries: test items, unseen in training. A level of "
    "supervision and a seed hide the same labels for every method."
)


@dataclass(frozen=True)
class Table:
    """One figure for one data set and width: methods by levels of supervision."""

    dataset: str
    n_bits: int
    figure: str
    methods: tuple[str, ...]
    levels: tuple[float, ...]
    cells: dict[tuple[str, float], Summary]

    @property
    def title(self) -> str:
        """What it shows."""
        return f"{self.dataset}, {self.n_bits} bits: {self.figure}"

    def is_best(self, method: str, level: float) -> bool:
        """Whether no method has a larger mean at this level."""
        column = [self.cells[key].mean for key in self.cells if key[1] == level]
        return self.cells[method, level].mean == max(column)

    def rows(self, show: Callable[[Summary, bool], str], nothing: str) -> list[list[str]]:
        """Texts of the cells, a list for each method."""
        return [
            [
                show(self.cells[method, level], self.is_best(method, level))
                if (method, level) in self.cells
                else nothing
                for level in self.levels
            ]
            for method in self.methods
        ]


def tables(rows: Sequence[Row], figures: Iterable[str] = FIGURES) -> list[Table]:
    """Make the tables of all figures, data sets and widths, in the order of the rows."""
    made = []
    for figure in figures:
        found = summarise(rows, figure)
        for dataset, n_bits in dict.fromkeys((key[0], key[2]) for key in found):
            here = [key for key in found if (key[0], key[2]) == (dataset, n_bits)]
            made.append(
                Table(
                    dataset,
                    n_bits,
                    figure,
                    tuple(dict.fromkeys(key[1] for key in here)),
                    tuple(sorted({key[3] for key in here})),
                    {(key[1], key[3]): found[key] for key in here},
                )
            )
    return made


def to_markdown(table: Table) -> str:
    """Write a table as Markdown."""

    def show(cell: Summary, best: bool) -> str:
        text = f"{cell.mean:.3f}"
        return (f"**{text}**" if best else text) + _error(cell, " ± ")

    lines = [
        f"### {table.title}",
        "",
        "| method | " + " | ".join(f"{level:.0%}" for level in table.levels) + " |",
        "| --- |" + " ---: |" * len(table.levels),
    ]
    body = zip(table.methods, table.rows(show, ""), strict=True)
    lines += [f"| {method} | " + " | ".join(row) + " |" for method, row in body]
    return "\n".join(lines) + "\n"


def to_latex(table: Table) -> str:
    """Write a table as LaTeX, for the booktabs package."""

    def show(cell: Summary, best: bool) -> str:
        text = f"{cell.mean:.3f}"
        text = rf"\textbf{{{text}}}" if best else text
        return text + _error(cell, r" {\scriptsize$\pm$", "}")

    lines = [
        r"\begin{table}",
        rf"\caption{{{_escaped(table.title)}}}",
        r"\begin{tabular}{l" + "r" * len(table.levels) + "}",
        r"\toprule",
        "method & " + " & ".join(rf"{100 * level:g}\%" for level in table.levels) + r" \\",
        r"\midrule",
    ]
    body = zip(table.methods, table.rows(show, ""), strict=True)
    lines += [f"{_escaped(method)} & " + " & ".join(row) + r" \\" for method, row in body]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def to_html(table: Table) -> str:
    """Write a table as HTML."""

    def show(cell: Summary, best: bool) -> str:
        text = f"{cell.mean:.3f}"
        return (f"<b>{text}</b>" if best else text) + _error(cell, " ± ")

    head = "".join(f"<th>{level:.0%}</th>" for level in table.levels)
    body = "".join(
        f"<tr><td>{html.escape(method)}</td>"
        + "".join(f"<td>{text}</td>" for text in row)
        + "</tr>"
        for method, row in zip(table.methods, table.rows(show, ""), strict=True)
    )
    title = html.escape(table.title)
    return f"<h3>{title}</h3><table><tr><th>method</th>{head}</tr>{body}</table>"


def to_csv(made: Iterable[Table]) -> str:
    """Write tables as one CSV, a line for each cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    fields = "mean", "standard_deviation", "standard_error", "n_seeds"
    writer.writerow(["dataset", "n_bits", "figure", "method", "supervision", *fields])
    for table in made:
        for (method, level), cell in table.cells.items():
            start = [table.dataset, table.n_bits, table.figure, method, level]
            writer.writerow([*start, *(getattr(cell, field) for field in fields)])
    return text.getvalue()


def plot(rows: Sequence[Row], dataset: str, n_bits: int) -> Any:
    """Draw P@100 against supervision; P@k and precision-recall at the lowest level.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    here = [row for row in rows if (row["dataset"], row["n_bits"]) == (dataset, n_bits)]
    lowest = min(row["supervision"] for row in here)
    figure = Figure(figsize=(15, 4.5), layout="constrained")
    by_level, by_rank, by_radius = figure.subplots(1, 3)
    for number, method in enumerate(dict.fromkeys(row["method"] for row in here)):
        own = [row for row in here if row["method"] == method]
        style = {"color": f"C{number % 10}", "label": method, "marker": "osD^v"[number // 10 % 5]}
        found = sorted((key[3], cell) for key, cell in summarise(own, "P@100").items())
        errors = [
            0 if math.isnan(cell.standard_error) else cell.standard_error for _, cell in found
        ]
        levels, means = [level for level, _ in found], [cell.mean for _, cell in found]
        by_level.errorbar(levels, means, errors, capsize=2, **style)
        least = [row for row in own if row["supervision"] == lowest]
        if not least:
            continue
        ranks = [np.mean([row[f"P@{k}"] for row in least]) for k in CUTOFFS]
        by_rank.plot(CUTOFFS, ranks, **style)
        recall, precision = (
            np.mean([row[f"{name}_by_radius"] for row in least], axis=0)
            for name in ("recall", "precision")
        )
        by_radius.plot(recall, precision, **{**style, "marker": "."})
    by_level.set(xlabel="supervision", ylabel="P@100", title=f"{dataset}, {n_bits} bits")
    by_rank.set(xlabel="k", ylabel="P@k", title=f"{lowest:.0%} labels", xscale="log")
    by_radius.set(xlabel="recall", ylabel="precision", title=f"by radius, {lowest:.0%} labels")
    if lowest < 0.1:
        by_level.set_xscale("log")
    by_level.legend(fontsize="small")
    for axes in (by_level, by_rank, by_radius):
        axes.grid(alpha=0.3)
    return figure


def write(rows: Sequence[Row], out: Path) -> list[Path]:
    """Write everything into a folder.

    Parameters
    ----------
    rows : sequence of dict
        Results of `experiments.run`.
    out : path
        The folder; made where missing.

    Returns
    -------
    list of path
        `tables.md`, `tables.tex`, `tables.csv`, `curves_<dataset>_<bits>.png` and
        `.svg`, and `report.html`, which needs no other file.
    """
    made = tables(rows)
    written = {
        "tables.md": "\n".join(map(to_markdown, made)).encode(),
        "tables.tex": "\n".join(map(to_latex, made)).encode(),
        "tables.csv": to_csv(made).encode(),
    }
    pictures = {}
    for table in made:
        key = table.dataset, table.n_bits
        if key not in pictures:
            figure = plot(rows, *key)
            name = f"curves_{table.dataset}_{table.n_bits}"
            written[f"{name}.png"] = _saved(figure, "png")
            written[f"{name}.svg"] = pictures[key] = _saved(figure, "svg")
    written["report.html"] = _page(rows, made, pictures).encode()
    for name, content in written.items():
        with replacing(out / name) as file:
            file.write(content)
    return [out / name for name in written]


def _page(
    rows: Sequence[Row], made: Sequence[Table], pictures: dict[tuple[str, int], bytes]
) -> str:
    parts = []
    for (dataset, n_bits), picture in pictures.items():
        source = next(row["source"] for row in rows if row["dataset"] == dataset)
        parts.append(f"<h2>{html.escape(dataset)}, {n_bits} bits</h2><p>{html.escape(source)}</p>")
        svg = picture.decode()
        parts.append(svg[svg.index("<svg") :])
        parts += [
            to_html(table)
            for table in made
            if (table.dataset, table.n_bits) == (dataset, n_bits) and table.figure in IN_PAGE
        ]
    seconds = sum(row["train_seconds"] for row in rows)
    about = f"{len(rows)} runs, {seconds / 3600:.2f} hours of training, ssbhash {__version__}."
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>ssbhash: retrieval</title>"
        f"<style>{_STYLE}</style><h1>Retrieval by binary codes</h1><p>{about} {_NOTE}</p>"
        + "\n".join(parts)
        + "</html>\n"
    )


def _saved(figure: Any, kind: str) -> bytes:
    import matplotlib as mpl

    content = io.BytesIO()
    # The same results give the same bytes: no date, no random identifiers.
    with mpl.rc_context({"svg.hashsalt": "ssbhash"}):
        figure.savefig(content, format=kind, metadata={"Date": None} if kind == "svg" else None)
    return content.getvalue()


def _error(cell: Summary, before: str, after: str = "") -> str:
    return "" if math.isnan(cell.standard_error) else f"{before}{cell.standard_error:.3f}{after}"


def _escaped(text: str) -> str:
    return text.replace("_", r"\_").replace("%", r"\%")
