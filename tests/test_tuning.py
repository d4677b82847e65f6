"""Tuning: folds of labels alone, the given estimator first, a search that can be resumed."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
optuna = pytest.importorskip("optuna")
from scipy import sparse
from sklearn.base import clone

from ssbhash import tune
from ssbhash.inputs.labels import read_labels
from ssbhash.models.methods import PHSGS, SSBVAE, VDSHS, BernoulliVAE
from ssbhash.tuning.cross_validation import deal
from ssbhash.tuning.hyperparameters import default_space
from ssbhash.tuning.journal import Journal

FEW = {"n_bits": 8, "n_epochs": 1, "n_hidden_units": 16, "verbose": False}
BUDGET: dict[str, Any] = {"n_trials": 2, "n_folds": 2, "verbose": False}


def items(n: int = 60, n_labelled: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Draw three clusters of non-negative features; every other item has no label."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % 3
    x = rng.poisson(0.3, (n, 9)).astype(np.float32)
    x[np.arange(n)[:, None], 3 * y[:, None] + np.arange(3)] += 5
    hidden = rng.permutation(n)[n_labelled:]
    y[hidden] = -1
    return x, y


def many_labels(y: np.ndarray) -> np.ndarray:
    """Make an indicator matrix: class 0 also has label 3."""
    known = np.eye(4, dtype=int)[np.maximum(y, 0)]
    known[y == 0, 3] = 1
    known[y < 0] = -1
    return known


@pytest.mark.parametrize(
    "hasher",
    [SSBVAE(**FEW), SSBVAE(preset="paper", **FEW), PHSGS(**FEW), VDSHS(**FEW), BernoulliVAE(**FEW)],
    ids=["default", "paper", "phs-gs", "vdsh-s", "bernoulli-vae"],
)
@pytest.mark.parametrize("make", [np.asarray, sparse.csr_array], ids=["dense", "csr"])
@pytest.mark.parametrize("multilabel", [False, True], ids=["classes", "multi-label"])
def test_every_method_and_kind_of_data(
    hasher: Any, make: Callable[[Any], Any], multilabel: bool
) -> None:
    x, y = items()
    found = tune(hasher, make(x), many_labels(y) if multilabel else y, **BUDGET)
    given = hasher.get_params()
    assert [trial.number for trial in found.trials] == [0, 1]
    assert found.default.parameters == {name: given[name] for name in default_space(hasher)}
    assert found.trials[1].parameters.keys() == default_space(hasher).keys()
    assert found.best_score == max(trial.score for trial in found.trials)
    assert all(len(trial.fold_scores) == 2 for trial in found.trials)
    assert found.hasher.get_params().items() >= {**found.best_parameters, "n_bits": 8}.items()
    assert "as given" in found.table()
    assert hasher.get_params() == given


def test_score_is_by_hand() -> None:
    x, y = items()
    hasher = SSBVAE(**FEW)
    found = tune(hasher, x, y, n_trials=1, n_folds=3, verbose=False)
    folds = deal(read_labels(y, len(y), "tune"), 3, 0)
    known = np.flatnonzero(y >= 0)
    for fold, score in zip(folds, found.default.fold_scores, strict=True):
        hidden = y.copy()
        hidden[fold] = -1
        database = np.setdiff1d(known, fold)
        codes = np.unpackbits(clone(hasher).fit(x, hidden).transform(x), axis=1)
        expected = []
        for query in fold:
            distance = (codes[query] != codes[database]).sum(1)
            # Expected over ties: the mean over many random orders of them.
            noise = np.random.default_rng(0).random((2000, len(database))) / 2
            nearest = np.argsort(distance + noise, axis=1)[:, : found.k]
            expected.append((y[database][nearest] == y[query]).mean())
        assert score == pytest.approx(np.mean(expected), abs=0.01)
    assert found.best_score == pytest.approx(np.mean(found.default.fold_scores))
    assert found.gain == 0 == found.gain_standard_error


def test_hidden_labels_change_nothing() -> None:
    """Only what y shows can be seen: more unlabelled items' classes are not an input."""
    x, y = items()
    found = [tune(SSBVAE(**FEW), x, labels, **BUDGET) for labels in (y, np.where(y < 0, -1, y + 7))]
    assert found[0].trials[1].fold_scores == found[1].trials[1].fold_scores


def test_depth() -> None:
    x, y = items(60, 60)
    labels = {"few": np.where(np.arange(60) < 6, y, -1), "many": y}
    found = {
        name: tune(SSBVAE(**FEW), x, of, n_trials=1, n_folds=2, verbose=False).k
        for name, of in labels.items()
    }
    # 2 items a class, half of them in the database; 20 a class, 10 relevant beside the query.
    assert found == {"few": 1, "many": 10}
    assert tune(SSBVAE(**FEW), x, y, n_trials=1, n_folds=2, k=3, verbose=False).k == 3


def test_folds_are_even_and_complete() -> None:
    y = np.array([0] * 7 + [1] * 3 + [2] + [-1] * 5)
    folds = deal(read_labels(y, len(y), "tune"), 3, seed=0)
    assert np.array_equal(np.sort(np.concatenate(folds)), np.arange(11))
    assert sorted(map(len, folds)) == [3, 4, 4]
    for fold in folds:
        assert (y[fold] == 0).sum() in (2, 3)
        assert (y[fold] == 1).sum() == 1


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_resumed_search_is_the_uninterrupted_one(tmp_path: Path, kind: str) -> None:
    x, y = items()
    storage = tmp_path / "trials.log" if kind == "journal" else f"sqlite:///{tmp_path}/trials.db"
    options: dict[str, Any] = {"n_folds": 2, "verbose": False, "storage": storage}
    first = tune(SSBVAE(**FEW), x, y, n_trials=1, **options)
    # A search that was killed leaves a trial behind that never ended.
    place = storage
    if kind == "journal":
        place = optuna.storages.JournalStorage(Journal(Path(str(storage))))
    optuna.load_study(study_name="ssbhash", storage=place).ask()
    resumed = tune(SSBVAE(**FEW), x, y, n_trials=3, **options)
    whole = tune(SSBVAE(**FEW), x, y, n_trials=3, n_folds=2, verbose=False)
    assert resumed.trials[0] == first.trials[0]
    for one, other in zip(resumed.trials, whole.trials, strict=True):
        assert one.parameters == other.parameters
        assert one.fold_scores == other.fold_scores
    again = tune(SSBVAE(**FEW), x, y, n_trials=3, **options)
    assert again.trials == resumed.trials
    with pytest.raises(ValueError, match="study 'ssbhash' of another search"):
        tune(SSBVAE(**FEW), x, y, n_trials=3, **{**options, "n_folds": 3})
    other = tune(SSBVAE(**FEW), x[:, :5], y, n_trials=1, study_name="other", **options)
    assert len(other.trials) == 1


def test_a_truncated_study_goes_on_from_its_last_whole_trial(tmp_path: Path) -> None:
    x, y = items()
    path = tmp_path / "trials.log"
    options: dict[str, Any] = {"n_folds": 2, "verbose": False}
    whole = tune(SSBVAE(**FEW), x, y, n_trials=3, storage=path, **options)
    content = path.read_bytes()
    path.write_bytes(content[:-40])  # within the end of the third trial
    again = tune(SSBVAE(**FEW), x, y, n_trials=3, storage=path, **options)
    for one, other in zip(again.trials, whole.trials, strict=True):
        assert (one.parameters, one.fold_scores) == (other.parameters, other.fold_scores)
    assert again.trials[:2] == whole.trials[:2], "seconds and all: not run again"


def test_a_full_disk_is_told_with_the_name_of_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    journal = Journal(tmp_path / "trials.log")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*trials\.log'"):
        journal.append_logs([{"op_code": 0}])


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_damaged_study_is_told(tmp_path: Path, share: float) -> None:
    path = tmp_path / "trials.log"
    journal = Journal(path)
    journal.append_logs([{"op_code": number, "value": 0.5} for number in range(9)])
    assert Journal(path).read_logs(7)[0]["op_code"] == 7
    content = path.read_bytes()
    place = int(share * len(content))
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    with pytest.raises(ValueError, match=r"trials\.log line \d+ is no line"):
        Journal(path)


def test_seconds_end_a_search() -> None:
    x, y = items()
    found = tune(SSBVAE(**FEW), x, y, n_trials=None, seconds=0, n_folds=2, verbose=False)
    assert len(found.trials) == 1


def test_own_space_and_refit() -> None:
    x, y = items()
    space = {"contrast_weight": optuna.distributions.FloatDistribution(1, 2)}
    found = tune(SSBVAE(**FEW), x, y, space=space, refit=True, **BUDGET)
    assert found.trials[1].parameters.keys() == {"contrast_weight"}
    assert found.hasher.transform(x).shape == (60, 1)
    best = clone(found.hasher).fit(x, y)
    assert np.array_equal(best.transform(x), found.hasher.transform(x))


def test_diverging_trial_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = SSBVAE.fit

    def diverge(self: Any, *arguments: Any, **options: Any) -> Any:
        if self.contrast_weight != SSBVAE().contrast_weight:
            raise RuntimeError("the loss is no longer finite")
        return fit(self, *arguments, **options)

    monkeypatch.setattr(SSBVAE, "fit", diverge)
    found = tune(SSBVAE(**FEW), *items(), **BUDGET)
    assert [trial.state for trial in found.trials] == ["complete", "failed"]
    assert found.best is found.default
    assert math.isnan(found.trials[1].score)
    json.dumps(found.to_dict(), allow_nan=False)
    with pytest.raises(RuntimeError, match="no longer finite"):
        tune(SSBVAE(**FEW, contrast_weight=4), *items(), **BUDGET)


def test_interrupt_keeps_finished_trials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fit, n_fits = SSBVAE.fit, 0

    def interrupt(self: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal n_fits
        n_fits += 1
        if n_fits == 4:
            raise KeyboardInterrupt
        return fit(self, *arguments, **options)

    monkeypatch.setattr(SSBVAE, "fit", interrupt)
    options = {**BUDGET, "storage": tmp_path / "trials.log"}
    found = tune(SSBVAE(**FEW), *items(), refit=True, **options)
    assert found.interrupted
    assert [trial.state for trial in found.trials] == ["complete"]
    monkeypatch.undo()
    assert tune(SSBVAE(**FEW), *items(), **options).trials[1].state == "complete"


X, Y = items()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"y": np.where(np.arange(60) < 3, Y, -1)}, ValueError, r"n_folds=5 .*; y has \d"),
        ({"y": np.r_[0, 1, 2, 3, [-1] * 56], "n_folds": 2}, ValueError, "y needs two labelled"),
        ({"y": np.r_[0, 0, 0, 1, [-1] * 56], "n_folds": 2}, ValueError, "y has too few labels"),
        ({"y": None}, ValueError, "requires y"),
        ({"y": Y[:9]}, ValueError, "y has 9 rows, X has 60"),
        ({"n_folds": 1}, ValueError, "n_folds must be"),
        ({"n_trials": 0}, ValueError, "n_trials must be"),
        ({"n_trials": None}, ValueError, "n_trials and seconds are both None"),
        ({"seconds": -1}, ValueError, "seconds must be at least 0"),
        ({"k": 0}, ValueError, "k must be"),
        ({"hasher": SSBVAE}, TypeError, "hasher must be an estimator, .* got SSBVAE"),
        ({"hasher": SSBVAE(beta=-1)}, ValueError, "beta must be"),
        ({"space": {}}, ValueError, "space must be a dict"),
        ({"space": {"alhpa": None}}, ValueError, "space names 'alhpa', which SSBVAE"),
        ({"space": {"beta": (0, 1)}}, TypeError, r"space\['beta'\] must be an optuna"),
    ],
)
def test_bad_arguments(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"hasher": SSBVAE(**FEW), "X": X, "y": Y, "verbose": False} | change
    with pytest.raises(error, match=message):
        tune(**arguments)


def test_without_optuna(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'ssbhash\[tune\]'"):
        tune(SSBVAE(**FEW), X, Y)


@pytest.mark.parametrize("kind", ["features", "texts"])
def test_command(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("typer")
    from typer.testing import CliRunner

    from ssbhash.cli.app import application

    if kind == "features":
        data = tmp_path / "x.npz"
        np.savez(data, X=X, y=Y)
    else:
        data = tmp_path / "x.jsonl"
        words = ["tea cup", "red ants", "old stone"]
        texts = [f"{words[number % 3]} {number % 7}th" for number in range(60)]
        rows = [
            {"text": text, "label": None if label < 0 else f"class {label}"}
            for text, label in zip(texts, Y, strict=True)
        ]
        data.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    out, model = tmp_path / "found" / "best.json", tmp_path / "model"
    command = ["tune", data, "--out", out, "--model", model, "--trials", 2, "--folds", 2]
    command += ["--bits", 8, "--epochs", 1, "--set", "n_hidden_units=16", "-q"]
    command += ["--storage", tmp_path / "trials.log"]
    for extra in ([], ["--json", "--force"]):
        result = CliRunner().invoke(application, [str(one) for one in [*command, *extra]])
        assert result.exit_code == 0, result.output
        report = json.loads(out.read_text())
        assert [trial["number"] for trial in report["trials"]] == [0, 1]
        assert report["best"]["score"] >= report["default"]["score"]
        assert (model / "weights.safetensors").exists()
        assert json.loads(result.stdout) == report if extra else "as given" in result.stdout
    bad = CliRunner().invoke(
        application, [str(one) for one in [*command, "--force", "--folds", 31]]
    )
    assert bad.exit_code == 2
    assert "n_folds=31 needs as many labelled items; y has 30" in bad.stderr
