"""The demo, with short trainings and a small blow-up."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("matplotlib")
pytest.importorskip("typer")
from typer.testing import CliRunner

from ssbhash import HammingIndex, load
from ssbhash.cli import demo
from ssbhash.cli.app import application
from ssbhash.data.files import read_items


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict, str]:
    out = tmp_path_factory.mktemp("demo") / "out"
    command = ["demo", "-o", str(out), "--epochs", "2", "--codes", "5000", "--bits", "12", "--json"]
    result = CliRunner().invoke(application, command)
    assert result.exit_code == 0, result.output
    return out, json.loads(result.stdout), result.stderr


def test_queries_are_held_out_and_always_the_same() -> None:
    data, again = demo.digits(), demo.digits()
    assert (len(data.y), len(data.y_query)) == (1497, 300)
    np.testing.assert_array_equal(data.X_query, again.X_query)
    database = {x.tobytes() for x in data.X}
    # The set has no two equal images.
    assert not database & {x.tobytes() for x in data.X_query}
    hidden = data.hide_labels(demo.SUPERVISION, seed=0)
    assert (hidden >= 0).sum() == 149
    assert set(hidden) == set(range(-1, 10))


def test_report(ran: tuple[Path, dict, str]) -> None:
    _, report, table = ran
    rows = {row["method"]: row for row in report["methods"]}
    assert list(rows) == list(demo.TITLES)
    for name, row in rows.items():
        assert row["bits"] == 12
        assert 0.1 < row["P@100"] <= 1, "chance is 0.1"
        assert row["encode_items_per_second"] > 0
        assert demo.TITLES[name] in table
    assert report["search"]["codes"] == 5000
    assert report["search"]["P@100"] > 0.1
    assert report["pixels"]["P@100"] == pytest.approx(0.717, abs=0.001)
    assert all(rate > 0 for rate in report["search"]["queries_per_second"].values())


def test_files(ran: tuple[Path, dict, str]) -> None:
    out, report, _ = ran
    assert json.loads((out / "report.json").read_text()) == report
    assert (out / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert (
        len(HammingIndex.open(out / "index-12")) == len(list((out / "pictures").iterdir())) == 1497
    )
    queries = read_items(out / "queries.npz")
    codes = load(out / "model").transform(queries.features)
    assert codes.shape == (300, 2)
    evaluate = ["evaluate", f"{out}/database.npz", f"{out}/queries.npz", "--model", f"{out}/model"]
    result = CliRunner().invoke(application, [*evaluate, "--json"])
    assert json.loads(result.stdout)["P@100"] == pytest.approx(
        report["methods"][0]["P@100"], abs=1e-6
    )


def test_the_verdict_says_what_loses() -> None:
    row = demo.Trained("ssb-vae", None, np.zeros(0), np.zeros(0), 8, {"P@100": 0.5}, 0.0, 0.0)
    rival = row._replace(name="vdsh-s", figures={"P@100": 0.9})
    bars = [row._replace(name="lsh", figures={"P@100": 0.4}), row._replace(name="classifier")]
    bars[1] = bars[1]._replace(figures={"P@100": 0.6})
    assert demo._verdict([row, rival, *bars]) == (
        "On P@100: SSB-VAE does not beat classifier codes (-0.100); "
        "VDSH-S beats classifier codes (+0.300)."
    )


def test_engines_that_disagree_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    data = demo.digits()
    row = demo._train("lsh", data, data.y, 16, None, 0)
    engines = {"one": lambda queries: np.zeros(3), "other": lambda queries: np.ones(3)}
    monkeypatch.setattr(demo, "_engines", lambda codes: engines)
    with pytest.raises(RuntimeError, match="other and one disagree"):
        demo.search_speed(row, data, 100, 0, lambda line: None)
