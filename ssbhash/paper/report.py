"""Writes results of a grid: tables (Markdown, LaTeX, CSV), curves (PNG, SVG), an HTML page."""

from __future__ import annotations

import csv
import html
import io
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssbhash._version import __version__
from ssbhash.atomic import replacing
from ssbhash.paper.grid import CUTOFFS, Row, Summary, summarise, with_gaps

FIGURES = (
    *("P@100", "P@1000", "P@5000", "MAP@100", "MAP@1000", "MAP@5000"),
    *("asymmetric P@100", "asymmetric MAP@100"),
    *("P@10", "P@10 by class", "P@10 re-ranked", "neighbours@100", "distinct", "tied@100"),
    *("classifier accuracy", "classifier P@100", "accuracy gap", "code gap"),
)
IN_PAGE = ("P@100", "MAP@100", "P@10 by class", "P@10 re-ranked", "neighbours@100", "distinct")

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
th, td { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
.panels { display: flex; flex-wrap: wrap; gap: 1rem }
.panels svg { flex: 1 1 20rem; max-width: 27rem; height: auto }
.wide { overflow-x: auto }
"""
_NOTE = (
    "Mean over seeds ± its standard error; best of a column in bold. Expected over ties. "
    "Database: the training items. Queries: test items, unseen in training. A level of "
    "supervision and a seed hide the same labels for every method."
)


@dataclass(frozen=True)
class Table:
    """One figure for one data set and code length: methods by levels of supervision."""

    dataset: str
    n_bits: int
    figure: str
    methods: tuple[str, ...]
    levels: tuple[float, ...]
    cells: dict[tuple[str, float], Summary]

    @property
    def title(self) -> str:
        """Data set, number of bits and figure."""
        return f"{name_of(self.dataset)}, {self.n_bits} bits: {self.figure}"

    def is_best(self, method: str, level: float) -> bool:
        """Whether no method has a better mean at this level; of ties the fewest are best."""
        column = [self.cells[key].mean for key in self.cells if key[1] == level]
        best = min if self.figure.startswith("tied") else max
        return self.cells[method, level].mean == best(column)

    def rows(self, show: Callable[[Summary, bool], str], nothing: str) -> list[list[str]]:
        """Write the cells as text, a list for each method."""
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
    """Make a table for each figure, data set and code length, in the order of the rows."""
    made, rows = [], with_gaps(rows)
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
    """Draw P@100 by supervision, and P@k and precision-recall at its lowest level.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    # One below the other: readable on a phone too.
    figure = Figure(figsize=(4.8, 13.5), layout="constrained")
    here = [row for row in rows if (row["dataset"], row["n_bits"]) == (dataset, n_bits)]
    panels = figure.subplots(len(_PANELS), 1)
    for draw, axes in zip(_PANELS, panels, strict=True):
        draw(axes, here)
    figure.suptitle(f"{name_of(dataset)}, {n_bits} bits")
    _add_legend(figure, panels[0])
    return figure


def plot_panels(rows: Sequence[Row], dataset: str, n_bits: int) -> list[Any]:
    """Draw the same panels as separate figures, each as wide as a phone."""
    from matplotlib.figure import Figure

    here = [row for row in rows if (row["dataset"], row["n_bits"]) == (dataset, n_bits)]
    figures = []
    for draw in _PANELS:
        figure = Figure(figsize=(4.4, 4.8), layout="constrained")
        axes = figure.subplots()
        draw(axes, here)
        _add_legend(figure, axes)
        figures.append(figure)
    return figures


def name_of(dataset: str) -> str:
    """Name a data set in titles and file names; a path by its last part."""
    return Path(dataset).stem if dataset.endswith(".npz") else dataset


def _draw_by_level(axes: Any, rows: Sequence[Row]) -> None:
    for own, style in _methods(rows):
        found = sorted((key[3], cell) for key, cell in summarise(own, "P@100").items())
        errors = [
            0 if math.isnan(cell.standard_error) else cell.standard_error for _, cell in found
        ]
        levels, means = [level for level, _ in found], [cell.mean for _, cell in found]
        axes.errorbar(levels, means, errors, capsize=2, **style)
    yardsticks = [row["cosine P@100"] for row in rows if "cosine P@100" in row]
    if yardsticks:
        axes.axhline(yardsticks[0], color="#555555", linestyle=":", label="cosine, no codes")
    levels = sorted({row["supervision"] for row in rows})
    if levels[0] < 0.1:
        axes.set_xscale("log")
    if levels[0] < 0.1 or len(levels) < 6:
        axes.set_xticks(levels, [f"{100 * level:g}%" for level in levels])
        axes.minorticks_off()
    else:
        _in_percent(axes.xaxis)
    _in_percent(axes.yaxis)
    axes.set(xlabel="labels known", ylabel="P@100", title="precision by supervision")
    axes.grid(alpha=0.3)


def _draw_by_rank(axes: Any, rows: Sequence[Row]) -> None:
    lowest, least = _least(rows)
    for own, style in _methods(least):
        axes.plot(CUTOFFS, [np.mean([row[f"P@{k}"] for row in own]) for k in CUTOFFS], **style)
    axes.set(xlabel="k", ylabel="P@k", title=f"precision by rank, {lowest:.0%} labels")
    axes.set_xscale("log")
    _in_percent(axes.yaxis)
    axes.grid(alpha=0.3)


def _draw_by_radius(axes: Any, rows: Sequence[Row]) -> None:
    lowest, least = _least(rows)
    for own, style in _methods(least):
        recall, precision = (
            np.mean([row[f"{name}_by_radius"] for row in own], axis=0)
            for name in ("recall", "precision")
        )
        axes.plot(recall, precision, **{**style, "marker": "."})
    _in_percent(axes.xaxis, axes.yaxis)
    axes.set(xlabel="recall", ylabel="precision", title=f"by radius, {lowest:.0%} labels")
    axes.grid(alpha=0.3)


def _in_percent(*axes: Any) -> None:
    from matplotlib.ticker import PercentFormatter

    for axis in axes:
        axis.set_major_formatter(PercentFormatter(1, decimals=None))


_PANELS = _draw_by_level, _draw_by_rank, _draw_by_radius


def _least(rows: Sequence[Row]) -> tuple[float, list[Row]]:
    """Select the rows of the lowest level of supervision."""
    lowest = min(row["supervision"] for row in rows)
    return lowest, [row for row in rows if row["supervision"] == lowest]


def _methods(rows: Sequence[Row]) -> Iterator[tuple[list[Row], dict[str, Any]]]:
    """Return the rows of each method, and how it is drawn."""
    for number, method in enumerate(dict.fromkeys(row["method"] for row in rows)):
        style = {"color": f"C{number % 10}", "label": method, "marker": "osD^v"[number // 10 % 5]}
        yield [row for row in rows if row["method"] == method], style


def _add_legend(figure: Any, axes: Any) -> None:
    """Put the legend below the panels."""
    width = figure.get_size_inches()[0]
    figure.legend(
        *axes.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=max(2, int(width / 2.2)),
        fontsize="small",
        frameon=False,
    )


def write(rows: Sequence[Row], out: Path) -> list[Path]:
    """Write tables, curves and page into a folder.

    Parameters
    ----------
    rows : sequence of dict
        Results of `grid.run_grid`.
    out : path
        The folder, made if missing.

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
    for key in dict.fromkeys((table.dataset, table.n_bits) for table in made):
        figure = plot(rows, *key)
        name = f"curves_{name_of(key[0])}_{key[1]}"
        written[f"{name}.png"] = _saved(figure, "png")
        written[f"{name}.svg"] = _saved(figure, "svg")
        pictures[key] = [_saved(panel, "svg").decode() for panel in plot_panels(rows, *key)]
    written["report.html"] = _page(rows, made, pictures, list(written)).encode()
    for name, content in written.items():
        with replacing(out / name) as file:
            file.write(content)
    return [out / name for name in written]


def _page(
    rows: Sequence[Row],
    made: Sequence[Table],
    pictures: dict[tuple[str, int], list[str]],
    names: Sequence[str],
) -> str:
    parts = []
    for dataset in dict.fromkeys(dataset for dataset, _ in pictures):
        source = next(row["source"] for row in rows if row["dataset"] == dataset)
        parts.append(f"<h2>{html.escape(name_of(dataset))}</h2><p>{html.escape(source)}</p>")
        tables_of_it = [table for table in made if table.dataset == dataset]
        first, *others = (_one_table(tables_of_it, figure) for figure in IN_PAGE)
        parts.append(f"{first}<details><summary>More figures</summary>{''.join(others)}</details>")
        for (other, n_bits), panels in pictures.items():
            if other == dataset:
                parts.append(f"<h3>{n_bits} bits</h3><div class=panels>")
                parts += [panel[panel.index("<svg") :] for panel in panels]
                parts.append("</div>")
    seconds = sum(row["train_seconds"] for row in rows)
    about = f"{len(rows)} runs, {seconds / 3600:.2f} hours of training, ssbhash {__version__}."
    links = ", ".join(f'<a href="{html.escape(name)}">{html.escape(name)}</a>' for name in names)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width"><title>ssbhash: retrieval</title>'
        f"<style>{_STYLE}</style><h1>Retrieval by binary codes</h1><p>{about} {_NOTE}</p>"
        + "\n".join(parts)
        + f"<h2>Files</h2><p>All figures and curves: {links}.</p></html>\n"
    )


def _one_table(made: Sequence[Table], figure: str) -> str:
    """Write a figure of a data set as one HTML table: method and bits by supervision."""
    tables_of_it = [table for table in made if table.figure == figure]
    if not tables_of_it:
        return ""
    levels = sorted({level for table in tables_of_it for level in table.levels})
    lines = []
    for table in tables_of_it:
        for method in table.methods:
            texts = []
            for level in levels:
                cell = table.cells.get((method, level))
                text = "" if cell is None else f"{cell.mean:.3f}"
                if cell is not None and table.is_best(method, level):
                    text = f"<b>{text}</b>"
                texts.append(f"<td>{text}{'' if cell is None else _error(cell, ' ± ')}</td>")
            lines.append(
                f"<tr><td>{html.escape(method)}</td><td>{table.n_bits}</td>{''.join(texts)}</tr>"
            )
    head = "".join(f"<th>{level:.0%}</th>" for level in levels)
    return (
        f"<p>{figure} by share of labels that are known.</p><div class=wide><table>"
        f"<tr><th>method</th><th>bits</th>{head}</tr>{''.join(lines)}</table></div>"
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
