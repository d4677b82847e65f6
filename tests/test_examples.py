"""Every example runs as it stands."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *args: str):
    monkeypatch.setattr(sys, "argv", [name, *args])
    names = runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    return names, capsys.readouterr().out


def test_near_duplicates(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names, out = run("near_duplicates", capsys, monkeypatch)
    assert names["found"] == names["true"]
    assert "100 of the 100 copies" in out


def test_embeddings(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    _, out = run("embeddings", capsys, monkeypatch)
    assert "159 labels" in out
    rng = np.random.default_rng(0)
    y = np.arange(400) % 4
    np.savez(tmp_path / "e.npz", X=rng.normal(size=(400, 6)) + 4 * np.eye(6)[y], y=y)
    _, out = run("embeddings", capsys, monkeypatch, str(tmp_path / "e.npz"))
    assert "20 labels" in out


def test_texts(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    names, out = run("texts", capsys, monkeypatch)
    assert len(out.split("\n\n")) == 6
    assert names["codes"].shape[1] == 8


def test_cluster(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    if ray.is_initialized():
        pytest.skip("another test has a Ray cluster open")
    names, out = run("cluster", capsys, monkeypatch)
    assert names["equal"]
    assert names["equal_after"]
    assert "replaced" in out


@pytest.mark.slow
def test_serve(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("torch", "fastapi", "typer"):
        pytest.importorskip(module)
    _, out = run("serve", capsys, monkeypatch)
    assert " tea" in out.splitlines()[0]
    assert "items now: 46" in out
