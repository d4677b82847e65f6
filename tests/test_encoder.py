"""`encoder=`: a user's module in the place of the built-in encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.base import clone
from torch import nn

import ssbhash
from ssbhash.models import METHODS, Pipeline

RNG = np.random.default_rng(0)
Y = np.arange(61) % 3  # batches of 20: the last one has one item
X = np.abs(4 * np.eye(3, 8)[Y] + RNG.normal(size=(61, 8))).astype(np.float32)
FEW: dict[str, Any] = {"n_bits": 8, "n_epochs": 3, "batch_size": 20, "verbose": False}


def one_layer(n_features: int, n_hidden_units: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(n_features, n_hidden_units), nn.ReLU(), nn.BatchNorm1d(n_hidden_units)
    )


class Tied(nn.Module):
    """Weights that are used twice, one that is never used, and a layer without sizes."""

    def __init__(self, n_features: int, n_hidden_units: int) -> None:
        super().__init__()
        self.first = nn.LazyLinear(n_hidden_units)
        self.second = nn.Linear(n_hidden_units, n_hidden_units)
        self.third = self.second
        self.unused = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.third(torch.relu(self.second(torch.relu(self.first(x))))))


def new(method: str, encoder: Any = one_layer, **options: Any) -> Any:
    return METHODS[method](n_hidden_units=16, encoder=encoder, **{**FEW, **options})


@pytest.mark.parametrize("encoder", [one_layer, Tied])
@pytest.mark.parametrize("form", [np.asarray, scipy.sparse.csr_matrix])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_saves_and_loads_it(
    tmp_path: Path, method: str, form: Any, encoder: Any
) -> None:
    hasher = new(method, encoder).fit(form(X), Y)
    first = hasher._model.network.encoder.module
    assert isinstance(first, type(encoder(8, 16)))
    hasher.save(tmp_path)
    again = ssbhash.load(tmp_path, encoder=encoder)
    np.testing.assert_array_equal(again.transform(X), hasher.transform(form(X)))
    assert len(np.unique(hasher.transform(X), axis=0)) > 1
    again.save(tmp_path)  # and once more
    with pytest.raises(ValueError, match=rf"with the encoder {encoder.__name__}: give load\("):
        ssbhash.load(tmp_path)


def test_it_learns() -> None:
    hidden = np.where(np.arange(61) < 30, Y, -1)
    hasher = new("ssb-vae", n_epochs=150).fit(X, hidden)
    assert hasher.score(X, Y) > 0.9


def test_same_seed_same_weights_and_clones() -> None:
    hasher = new("vdsh-s")
    logits = hasher.fit(X, Y).logits(X)
    torch.manual_seed(5)
    np.testing.assert_array_equal(clone(hasher).fit(X, Y).logits(X), logits)
    other = clone(hasher).set_params(seed=1).fit(X, Y).logits(X)
    assert not np.array_equal(other, logits)


def test_a_training_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    whole = new("vdsh-s", n_epochs=4).fit(X, Y).logits(X)
    new("vdsh-s", n_epochs=2, checkpoint=tmp_path).fit(X, Y)
    resumed = new("vdsh-s", n_epochs=4, checkpoint=tmp_path).fit(X, Y).logits(X)
    np.testing.assert_array_equal(resumed, whole)
    with pytest.raises(ValueError, match="another training"):
        new("vdsh-s", Tied, n_epochs=4, checkpoint=tmp_path).fit(X, Y)


def test_a_study_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    options: dict[str, Any] = {"n_folds": 2, "storage": tmp_path / "trials.log", "verbose": False}
    for n_trials in (1, 2):
        found = ssbhash.tune(new("vdsh-s"), X, Y, n_trials=n_trials, refit=False, **options)
    assert len(found.trials) == 2


class Keeps(nn.Module):
    """A state that is no tensor."""

    def __init__(self, n_features: int, n_hidden_units: int) -> None:
        super().__init__()
        self.layer = nn.Linear(n_features, n_hidden_units)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layer(x)
        return found

    def get_extra_state(self) -> object:
        return {"words": 3}


@pytest.mark.parametrize(
    ("encoder", "error", "message"),
    [
        (5, TypeError, "encoder must be a function of n_features and n_hidden_units"),
        (nn.Linear(8, 16), TypeError, "encoder must be a function that makes a module"),
        (lambda n, m: 3, TypeError, "encoder must return a torch.nn.Module, got int"),
        (lambda n, m: nn.Linear(n, m + 1), ValueError, r"map \[2, 8\] to \[2, 16\].*\[2, 17\]"),
        (Keeps, TypeError, "which cannot be saved"),
    ],
)
def test_what_is_no_encoder_is_told_before_training(
    encoder: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        new("vdsh-s", encoder).fit(X, Y)


def test_encoders_that_do_not_fit_a_folder(tmp_path: Path) -> None:
    new("vdsh").fit(X).save(tmp_path / "own")
    new("vdsh", None).fit(X).save(tmp_path / "built-in")
    with pytest.raises(ValueError, match="does not fit the encoder"):
        ssbhash.load(tmp_path / "own", encoder=Tied)
    with pytest.raises(ValueError, match="no encoder of its own"):
        ssbhash.VDSH.load(tmp_path / "built-in", encoder=one_layer)
    with pytest.raises(ValueError, match="with the encoder one_layer"):
        Pipeline.load(tmp_path / "own")
    assert Pipeline.load(tmp_path / "own", encoder=one_layer).transform(X).shape == (61, 1)
