"""The grid: cells, the paper's weights, results that an interrupted run goes on from."""

import json

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")
from sklearn.datasets import load_digits

from ssbhash.paper import grid
from ssbhash.paper.datasets import Dataset
from ssbhash.paper.grid import Cell, PaperWeights, new_hasher, run, run_grid, summarise, with_gaps

WEIGHTS = """dataset,method,bits,supervision,alpha,beta,gamma
snippets,ssb-vae,16,0.1,0.25,0.5,8
snippets,ssb-vae,32,0.1,1,2,3
snippets,ssb-vae,32,1.0,4,5,6
snippets,vdsh-s,32,0.1,7,0.125,0
"""


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "hyperparameters.csv"
    path.write_text(WEIGHTS)
    return PaperWeights(path)


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    X, names = X.astype(np.float32), tuple("0123456789")
    return Dataset("digits", X[:600], y[:600], X[600:800], y[600:800], names)


@pytest.mark.parametrize(
    ("dataset", "method", "n_bits", "supervision", "expected"),
    [
        ("snippets", "ssb-vae:paper", 16, 0.1, {"alpha": 0.25, "beta": 0.5, "gamma": 8}),
        ("snippets", "ssb-vae:paper", 16, 1.0, {"alpha": 0.25, "beta": 0.5, "gamma": 8}),
        ("snippets_minilm", "ssb-vae:paper", 64, 0.01, {"alpha": 1, "beta": 2, "gamma": 3}),
        ("snippets", "ssb-vae:paper", 32, 0.9, {"alpha": 4, "beta": 5, "gamma": 6}),
        ("snippets", "vdsh-s:paper", 32, 0.1, {"alpha": 7, "beta": 0.125, "threshold": "median"}),
        ("snippets", "vdsh-s:paper", 32, 1.0, {"alpha": 7, "beta": 0.125, "threshold": "zero"}),
        ("snippets", "vdsh:paper", 32, 0.1, {"beta": 0.125}),
        ("snippets", "bernoulli-vae:paper", 16, 0.1, {"beta": 0.5}),
    ],
)
def test_paper_weights(weights, dataset, method, n_bits, supervision, expected):
    cell = Cell(dataset, method, n_bits, supervision, 20)
    assert weights.of(cell).items() <= expected.items()
    parameters = new_hasher(cell, weights).get_params()
    assert parameters.items() >= {**expected, "n_bits": n_bits, "seed": 20}.items()


def test_names_that_do_not_exist(weights):
    with pytest.raises(ValueError, match=r"method must be one of .*ssb-vae.*classifier"):
        new_hasher(Cell("snippets", "magic", 16, 0.1, 0))
    with pytest.raises(ValueError, match=r"needs the paper's weights: hyperparameters\.csv"):
        new_hasher(Cell("snippets", "ssb-vae:paper", 16, 0.1, 0))
    with pytest.raises(ValueError, match="no weights for 'phs-gs' on 'snippets'"):
        new_hasher(Cell("snippets", "phs-gs:paper", 16, 0.1, 0), weights)


@pytest.mark.parametrize(
    "method", ["ssb-vae", "vdsh-s:paper", "lsh", "classifier:tf-idf", "phs-gs"]
)
def test_run(method, digits, weights):
    cell = Cell("snippets", method, 12, 0.2, 20)
    row = run(cell, digits, weights)
    assert {name: row[name] for name in Cell.__match_args__} == {
        "dataset": "snippets",
        "method": method,
        "n_bits": 12,
        "supervision": 0.2,
        "seed": 20,
    }
    assert 0.1 < row["P@100"] <= 1
    assert 0.1 < row["MAP@1000"] <= 1
    assert row["R@1000"] == pytest.approx(1)  # there are 600
    assert 1 < row["distinct_codes"] <= 600
    assert ("asymmetric MAP@100" in row) == (method == "phs-gs")
    assert 0 < row["distinct"] == row["distinct_codes"] / 600
    assert 0 < row["neighbours@100"] <= 1
    assert row["P@10 re-ranked"] > 0.3
    assert ("classifier accuracy" in row) == (method != "lsh")
    assert row["train_seconds"] > 0
    json.dumps(row)


def test_gaps_are_to_the_best_classifier_and_to_the_own_one():
    cell = {"dataset": "snippets", "supervision": 0.1, "n_bits": 16, "P@100": 0.7}
    own = {"classifier accuracy": 0.8, "classifier P@100": 0.75}
    rows = [
        {**cell, "seed": 0, "method": "ssb-vae", **own},
        {**cell, "seed": 0, "method": "classifier", **own, "classifier accuracy": 0.7},
        {**cell, "seed": 0, "method": "spreading", **own, "classifier accuracy": 0.85},
        {**cell, "seed": 1, "method": "ssb-vae", **own},  # no baseline with these labels
        {**cell, "seed": 0, "method": "itq"},
    ]
    gaps = [(row.get("accuracy gap"), row.get("code gap")) for row in with_gaps(rows)]
    expected = [(-0.05, -0.05), (-0.15, -0.05), (0.0, -0.05), (None, -0.05), (None, None)]
    assert gaps == [
        tuple(None if g is None else pytest.approx(g) for g in pair) for pair in expected
    ]


def test_an_interrupted_grid_goes_on(digits, tmp_path, monkeypatch):
    loads = []

    def load(name, data_dir, reference_dir):
        loads.append(name)
        return digits

    monkeypatch.setattr(grid.datasets, "load", load)
    cells = [Cell("cifar10", "lsh", n_bits, 0.1, seed) for n_bits in (8, 16) for seed in (0, 1)]
    results = tmp_path / "results"
    rows = run_grid(cells, tmp_path / "d1", results_dir=results)
    first = [next(rows), next(rows)]
    rows.close()
    assert sorted(path.name for path in results.iterdir()) == [
        "cifar10_lsh_8_0.1_0.json",
        "cifar10_lsh_8_0.1_1.json",
    ]
    everything = list(run_grid(cells, tmp_path / "d1", results_dir=results))
    assert everything[:2] == first
    assert loads == ["cifar10"]  # once for all cells
    assert len(list(results.iterdir())) == 4
    # With processes: read in any order, nothing is run again.
    again = list(run_grid(cells, tmp_path / "d1", results_dir=results, n_jobs=2))
    assert sorted(again, key=str) == sorted(everything, key=str)


def test_errors_of_a_cell_are_raised(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        list(run_grid([Cell("tmc", "lsh", 8, 0.1, 0)], tmp_path))


def test_summary_of_seeds():
    rows = [
        {**dict(zip(Cell.__match_args__, ("tmc", "lsh", 8, 0.1, s), strict=True)), "P@100": p}
        for s, p in ((0, 0.1), (1, 0.2), (2, 0.6))
    ]
    summary = summarise(rows, "P@100")["tmc", "lsh", 8, 0.1]
    assert summary.mean == pytest.approx(0.3)
    assert summary.standard_deviation == pytest.approx(np.std([0.1, 0.2, 0.6], ddof=1))
    assert summary.standard_error == pytest.approx(summary.standard_deviation / 3**0.5)
    assert summarise(rows, "asymmetric P@100") == {}
    assert np.isnan(summarise(rows[:1], "P@100")["tmc", "lsh", 8, 0.1].standard_deviation)
