"""Tables, curves and the page of a grid of results; `ssbhash reproduce`."""

import csv
import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("matplotlib")
pytest.importorskip("typer")
from sklearn.datasets import load_digits
from typer.testing import CliRunner

from ssbhash.cli.app import application
from ssbhash.paper import datasets, grid, report


def row(method, supervision, seed, precision, n_bits=16):
    at = {f"{name}@{k}": precision for name in ("P", "R", "MAP") for k in grid.CUTOFFS}
    curves = {f"{name}_by_radius": [precision] * (n_bits + 1) for name in ("precision", "recall")}
    cell = grid.Cell("tmc_", method, n_bits, supervision, seed)
    fields = dict(
        zip(cell.__match_args__, ("tmc_", method, n_bits, supervision, seed), strict=True)
    )
    return {**fields, **at, **curves, "source": "a <b> & c", "train_seconds": 1800.0}


ROWS = [
    row("ssb-vae:paper", 0.1, 20, 0.5),
    row("ssb-vae:paper", 0.1, 144, 0.6),
    row("ssb-vae:paper", 1.0, 20, 0.7),
    row("lsh", 0.1, 20, 0.2),
    row("lsh", 1.0, 20, 0.8),
]


def test_markdown():
    (table,) = report.tables(ROWS, ["P@100"])
    assert report.to_markdown(table).splitlines() == [
        "### tmc_, 16 bits: P@100",
        "",
        "| method | 10% | 100% |",
        "| --- | ---: | ---: |",
        "| ssb-vae:paper | **0.550** ± 0.050 | 0.700 |",
        "| lsh | 0.200 | **0.800** |",
    ]


def test_fewest_ties_are_best():
    (table,) = report.tables([row | {"tied@100": row["P@100"]} for row in ROWS], ["tied@100"])
    assert "| lsh | **0.200** | 0.800 |" in report.to_markdown(table)


def test_latex():
    (table,) = report.tables(ROWS, ["P@100"])
    latex = report.to_latex(table)
    assert r"\caption{tmc\_, 16 bits: P@100}" in latex
    assert r"ssb-vae:paper & \textbf{0.550} {\scriptsize$\pm$0.050} & 0.700 \\" in latex
    assert latex.count("{") == latex.count("}")


def test_a_setting_that_was_not_run_is_an_empty_cell():
    (table,) = report.tables(ROWS[:4], ["MAP@100"])
    assert "| lsh | 0.200 |  |" in report.to_markdown(table)


def test_csv():
    made = report.tables([*ROWS, row("lsh", 0.1, 20, 0.4, n_bits=32)], ["P@100", "MAP@100"])
    lines = list(csv.DictReader(io.StringIO(report.to_csv(made))))
    assert len(lines) == 2 * (4 + 1)
    first = lines[0]
    assert (first["dataset"], first["n_bits"], first["figure"]) == ("tmc_", "16", "P@100")
    assert float(first["mean"]) == pytest.approx(0.55)
    assert float(first["standard_error"]) == pytest.approx(0.05)
    assert first["n_seeds"] == "2"


def test_files(tmp_path):
    written = report.write(ROWS, tmp_path / "out")
    names = {path.name for path in written}
    assert names == {path.name for path in (tmp_path / "out").iterdir()}
    assert {"curves_tmc__16.png", "curves_tmc__16.svg", "report.html"} < names
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<svg") == 3
    shown = page.split("<details>")[0]
    assert shown.count("<table") == 1, "one for each data set; the other figures are folded away"
    found = re.search("<table>.*?</table>", page)
    table = ElementTree.fromstring(found[0])
    cells = [["".join(c.itertext()) for c in line] for line in table.iter("tr")]
    assert cells[0] == ["method", "bits", "10%", "100%"]
    assert cells[1] == ["ssb-vae:paper", "16", "0.550 ± 0.050", "0.700"]
    assert [b.text for b in table.iter("b")] == ["0.550", "0.800"]
    for name in names - {"report.html"}:
        assert f'href="{name}"' in page
    assert "a &lt;b&gt; &amp; c" in page
    assert "2.50 hours" in page
    for outside in ("src=", 'href="http', "@import", "<script"):
        assert outside not in page
    first = {path.name: path.read_bytes() for path in written}
    report.write(ROWS, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in written} == first


@pytest.fixture
def digits(monkeypatch):
    X, y = load_digits(return_X_y=True)
    X = X.astype(np.float32)
    names = tuple("0123456789")
    small = datasets.Dataset("tmc", X[:500], y[:500], X[500:600], y[500:600], names, source="!")
    monkeypatch.setattr(datasets, "load", lambda *args, **kwargs: small)
    grid._load.cache_clear()
    yield small
    grid._load.cache_clear()


def arguments(folder, *more):
    setting = ["--dataset", "tmc", "--bits", "8", "--supervision", "0.5", "--seeds", "2"]
    methods = ["--method", "lsh", "--method", "classifier"]
    start = ["reproduce", "--data", str(folder), "--out", str(folder / "out")]
    return [*start, *setting, *methods, *more]


def test_reproduce(digits, tmp_path):
    done = CliRunner().invoke(application, arguments(tmp_path))
    assert done.exit_code == 0, done.output
    assert len(list((tmp_path / "out" / "cells").iterdir())) == 4
    table = (tmp_path / "out" / "tables.md").read_text()
    assert "### tmc, 8 bits: P@100" in table
    assert "| classifier | **" in table
    before = (tmp_path / "out" / "report.html").read_bytes()
    (tmp_path / "out" / "report.html").unlink()
    assert CliRunner().invoke(application, arguments(tmp_path)).exit_code == 0  # from the cells
    assert (tmp_path / "out" / "report.html").read_bytes() == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--method", "magic"], "method must be one of"),
        (["--dataset", "mnist"], "dataset must be one of"),
        (["--supervision", "1.5"], "supervision must be in"),
    ],
)
def test_reproduce_refuses_before_it_runs(more, message, tmp_path, capfd):
    done = CliRunner().invoke(application, arguments(tmp_path, *more))
    assert done.exit_code == 2
    assert message in done.output + capfd.readouterr().err
    assert not (tmp_path / "out" / "cells").exists()


def test_own_data(tmp_path):
    X, y = load_digits(return_X_y=True)
    path = tmp_path / "mine.npz"
    np.savez(path, X=X[:300], y=y[:300])
    start = ["reproduce", "--dataset", str(path), "--out", str(tmp_path / "out"), "--bits", "8"]
    more = ["--supervision", "0.5", "--seeds", "1", "--method", "lsh", "--method", "classifier"]
    done = CliRunner().invoke(application, [*start, *more])
    assert done.exit_code == 0, done.output
    assert "### mine, 8 bits: P@100" in (tmp_path / "out" / "tables.md").read_text()
    page = (tmp_path / "out" / "report.html").read_text()
    assert "cosine, no codes" in page
    assert "mine.npz, SHA-256 " in page
    np.savez(path, X=X[300:600], y=y[300:600])
    done = CliRunner().invoke(application, [*start, *more])
    assert done.exit_code == 2
    assert "is a result of other data" in done.stderr
    np.savez(path, X=X[:300], y=np.where(y[:300] > 4, -1, y[:300]))
    grid._load.cache_clear()
    done = CliRunner().invoke(application, [*start[:3], "--out", str(tmp_path / "b"), *more])
    assert "every item needs a label" in done.stderr
