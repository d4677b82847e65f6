"""`ssbhash reproduce`: the grid of experiments from the command line."""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path
from typing import Annotated

import typer

_LEVELS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
_METHODS = ["ssb-vae", "ssb-vae:paper", "phs-gs:paper", "vdsh-s:paper"]
_METHODS += ["classifier", "classifier:tf-idf", "itq", "lsh", "sign"]


def reproduce(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for results and report.")] = Path(
        "ssbhash-results"
    ),
    data: Annotated[
        Path | None, typer.Option(help="Folder of the data sets.", envvar="SSBHASH_DATA")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="Folder of the paper's weights [default: beside the data].")
    ] = None,
    dataset: Annotated[
        list[str], typer.Option(help="Data set, or your own .npz; repeat for more.")
    ] = ["snippets"],  # noqa: B006
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="Method; NAME:paper has the paper's weights [default: all that the data allow]."
        ),
    ] = None,
    bits: Annotated[list[int], typer.Option(help="Length of the codes.", min=1)] = [16, 32],  # noqa: B006
    supervision: Annotated[
        list[float], typer.Option(help="Share of the labels that are known.")
    ] = _LEVELS,
    seeds: Annotated[int, typer.Option(help="Seeds of each setting.", min=1, max=5)] = 5,
    jobs: Annotated[int, typer.Option(help="Processes.", min=1)] = 1,
) -> None:
    """Run the paper's comparison and write its tables and curves.

    Each run has one result file in OUT/cells: after an interruption the same command
    goes on where it stopped. OUT gets tables (.md, .tex, .csv), curves (.png, .svg)
    and report.html.
    """
    from tqdm import tqdm

    from ssbhash.data import files
    from ssbhash.paper import grid, report

    own = [name for name in dataset if name.endswith(".npz")]
    if data is None and len(own) < len(dataset):
        raise ValueError("no data folder: give --data or set SSBHASH_DATA")
    files.check_folder(out)
    # The paper has no weights for other data, and they come without the texts' terms.
    methods = method or [name for name in _METHODS if not own or ":" not in name]
    settings = product(dataset, bits, supervision, methods, grid.SEEDS[:seeds])
    cells = [grid.Cell(d, m, b, p, seed) for d, b, p, m, seed in settings]
    for cell in cells:
        grid.check(cell)
    found = grid.run_grid(
        cells, data or ".", reference_dir=reference, results_dir=out / "cells", n_jobs=jobs
    )
    progress = tqdm(found, total=len(cells), unit="run", disable=None)
    order = {cell: number for number, cell in enumerate(cells)}
    rows = sorted(progress, key=lambda row: order[grid.Cell.of(row)])
    written = report.write(rows, out)
    print(os.linesep.join(map(str, written)))
