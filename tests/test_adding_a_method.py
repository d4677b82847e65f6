"""What a contributor needs to add a method: `toy_method.py` and one line of registration."""

import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

import scipy.sparse as sp
from sklearn.utils.estimator_checks import parametrize_with_checks
from toy_method import Toy

import ssbhash
import ssbhash.nn
from ssbhash.inputs import row_source
from ssbhash.models import METHODS, load
from ssbhash.nn import PHSGSNetwork, Shape, Weights
from ssbhash.training import Data, Options, Training

SMALL: dict[str, Any] = {"n_bits": 8, "n_epochs": 3, "n_hidden_units": 16, "batch_size": 16}
X = np.random.default_rng(0).poisson(0.5, (80, 12)).astype(np.float32)


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of an installed package that registers the method by one line."""
    package = tmp_path / "toy-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[ssbhash.methods]\ntoy = toy_method:Toy\n")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@parametrize_with_checks([Toy(**SMALL, verbose=False)])
def test_it_keeps_scikit_learn_s_contract(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
def test_it_trains_its_own_loss(form: Any) -> None:
    hasher = Toy(**SMALL, push=3.0).fit(form(X))
    assert set(hasher.history_[0]) == {"epoch", "reconstruction", "push", "loss", "seconds"}
    for row in hasher.history_:
        assert row["loss"] == pytest.approx(row["reconstruction"] + 3 * row["push"], rel=1e-4)
    first, last = hasher.history_[0], hasher.history_[-1]
    assert last["loss"] < first["loss"]


def test_it_is_saved_and_loaded(registered: Path, tmp_path: Path) -> None:
    assert METHODS["toy"] is Toy
    hasher = Toy(**SMALL, push=0.5).fit(X)
    hasher.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert isinstance(again, Toy)
    assert again.push == 0.5
    np.testing.assert_array_equal(again.transform(X), hasher.transform(X))


def test_it_is_unknown_where_it_is_not_registered(tmp_path: Path) -> None:
    Toy(**SMALL).fit(X).save(tmp_path / "model")
    with pytest.raises(ValueError, match="unknown method 'toy'; known are ssb-vae, phs-gs"):
        load(tmp_path / "model")


def test_the_command_line_trains_it(registered: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "X.npy", X)
    source = Path(__file__).parent
    folders = str(registered), str(source), os.environ.get("PYTHONPATH", "")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(folders)}
    run = partial(subprocess.run, capture_output=True, text=True, check=True, env=environment)
    command = [sys.executable, "-m", "ssbhash", "train"]
    options = ["--method", "toy", "--bits", "8", "--epochs", "1", "--set", "push=2", "--json"]
    ran = run([*command, str(tmp_path / "X.npy"), "-o", str(tmp_path / "model"), *options])
    assert json.loads(ran.stdout)
    assert json.loads((tmp_path / "model" / "config.json").read_text())["method"] == "toy"
    shown = run([*command, "--help"])
    assert "|toy]" in "".join(shown.stdout.split())


class Halved(PHSGSNetwork):
    """A network whose own loss is another than its parent's."""

    def terms(self, batch: Any, generator: Any) -> Any:
        terms = super().terms(batch, generator)
        return {"own": terms["kl"], "loss": terms["kl"]}


@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
def test_a_subclass_of_a_network_trains_its_own_terms(form: Any) -> None:
    from ssbhash.inputs import read_labels

    labels = read_labels(np.arange(80) % 2, 80, "Halved")
    rows = row_source(form(X), form is sp.csr_array)
    shape = Shape(12, 12, 8, n_classes=2, n_hidden_units=16)
    network = Halved(shape, Weights(alpha=1.0, gamma=1.0), torch.Generator().manual_seed(0))
    before = network.decoder.weight.detach().clone()
    data = Data(rows, rows.normalised(), labels)
    history = Training(network, data, Options(n_epochs=4, batch_size=16)).run().history
    assert set(history[0]) == {"epoch", "own", "loss", "seconds"}
    assert history[-1]["loss"] < history[0]["loss"]
    # The loss does not know the decoder.
    torch.testing.assert_close(network.decoder.weight.detach(), before)


BLOCKS = re.findall(
    r"```python\n(.*?)```",
    (Path(__file__).parent.parent / "docs" / "training.md").read_text(),
    re.DOTALL,
)


def test_the_example_of_another_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {"ssbhash": ssbhash, "X": X, "y": np.arange(len(X)) % 2}
    exec(BLOCKS[2], scope)  # noqa: S102
    np.testing.assert_array_equal(scope["again"].transform(X), scope["hasher"].transform(X))


@pytest.mark.parametrize("block", BLOCKS[:2])
def test_figures_go_to_their_viewers(block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples, with a stand-in for TensorBoard and for Weights & Biases."""
    viewer = MagicMock()
    for name in ("torch.utils.tensorboard", "wandb"):
        monkeypatch.setitem(sys.modules, name, viewer)
    exec(block, {"hasher": Toy(**SMALL), "X": X, "y": None})  # noqa: S102
    calls = viewer.SummaryWriter().add_scalar.mock_calls + viewer.init().log.mock_calls
    assert len(calls) in (3 * 5, 3)
