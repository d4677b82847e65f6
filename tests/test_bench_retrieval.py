"""The retrieval bench: what it prints, and that a missed bar fails."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")
import scipy.sparse as sp
from sklearn.datasets import load_digits

from ssbhash.paper import datasets, grid

PATH = Path(__file__).resolve().parents[1] / "bench" / "retrieval.py"
if not PATH.is_file():
    pytest.skip("bench/ is not in the package", allow_module_level=True)
_spec = importlib.util.spec_from_file_location("bench_retrieval", PATH)
retrieval = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(retrieval)

WEIGHTS = "dataset,method,bits,supervision,alpha,beta,gamma\nsnippets,vdsh-s,16,0.1,10,0.1,0\n"
RESULTS = (
    "method,bits,supervision,seed,p@100,map@100,distinct_codes,cpu_seconds\n"
    "vdsh-s,16,0.1,20,{0},0.5,100,9.5\nvdsh-s,16,0.1,144,{0},0.6,100,9.5\n"
)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A small data set in place of Search Snippets, and reference figures."""
    X, y = load_digits(return_X_y=True)
    X = sp.csr_matrix(X.astype(np.float32))
    small = datasets.Dataset("snippets", X[:500], y[:500], X[500:600], y[500:600], (), source="!")
    monkeypatch.setattr(datasets, "load", lambda name, *args, **kwargs: small)
    grid._load.cache_clear()
    grid._weights.cache_clear()
    reference = tmp_path / "reference"
    reference.mkdir()
    (reference / "hyperparameters.csv").write_text(WEIGHTS)
    (reference / "snippets_results.csv").write_text(RESULTS.format(0.1))
    yield tmp_path / "data", reference
    grid._load.cache_clear()
    grid._weights.cache_clear()


def command(folders, *more):
    setting = ["--bits", "16", "--supervision", "0.1", "--seeds", "2"]
    methods = ["--methods", "vdsh-s:paper", "lsh", "classifier"]
    return ["--data", str(folders[0]), *setting, *methods, *more]


def test_prints_our_figures_beside_the_reference(folders, capsys):
    assert retrieval.main(command(folders)) == 0
    lines = capsys.readouterr().out.splitlines()
    vdsh, lsh, classifier = (
        next(x for x in lines if f" {m}" in x) for m in ("vdsh-s:", "lsh", "classifier")
    )
    assert vdsh.endswith("0.080 reached")
    assert "0.550 ±0.071" in vdsh
    assert "|" not in lsh + classifier
    assert any("cosine of the features" in line for line in lines)


def test_a_missed_bar_fails(folders, capsys):
    (folders[1] / "snippets_results.csv").write_text(RESULTS.format(0.99))
    assert retrieval.main(command(folders)) == 1
    assert "0.970 MISSED" in capsys.readouterr().out


def test_json_and_resumed_results(folders, tmp_path, capsys):
    more = ["--json", "--results", str(tmp_path / "results")]
    assert retrieval.main(command(folders, *more)) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["method"] for row in rows[::2]] == ["vdsh-s:paper", "lsh", "classifier"]
    assert [row["seed"] for row in rows] == [20, 144] * 3
    assert retrieval.main(command(folders, *more)) == 0
    assert json.loads(capsys.readouterr().out) == rows  # seconds and all


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--methods", "magic"], "method must be one of"),
        (["--supervision", "2"], "supervision must be in"),
        (["--bits", "0"], "n_bits must be at least 1"),
        (["--methods", "phs-gs:paper"], "no weights for 'phs-gs'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(folders, more, message, capsys):
    assert retrieval.main(command(folders, *more)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("retrieval.py: error:")
    assert message in error


@pytest.mark.parametrize("more", [["--seeds", "6"], ["--dataset", "mnist"]])
def test_bad_options(more, capsys):
    with pytest.raises(SystemExit, match="2"):
        retrieval.main(more)
