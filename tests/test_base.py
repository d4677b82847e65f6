"""What all estimators share: labels in any form, scikit-learn's protocol."""

import pickle
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

import joblib
import torch
from sklearn import config_context
from sklearn.base import clone, is_classifier
from sklearn.ensemble import VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier

import ssbhash
from ssbhash.metrics import precision_at
from ssbhash.models import BASELINES, METHODS

# Networks this small are slower on several threads.
torch.set_num_threads(1)

SMALL: dict[str, Any] = {"n_bits": 9, "n_epochs": 2, "n_hidden_units": 8, "batch_size": 16}
CLASSIFIERS = [name for name, cls in {**METHODS, **BASELINES}.items() if hasattr(cls, "predict")]


def small(method: str, **kwargs: Any) -> Any:
    """An estimator that trains in milliseconds."""
    if method in BASELINES:
        return BASELINES[method](n_bits=9, **kwargs)
    return METHODS[method](**SMALL | {"verbose": False} | kwargs)


@pytest.fixture(scope="module")
def items() -> Any:
    """90 items of 6 features, 3 well separated classes; two thirds are unlabelled."""
    rng = np.random.default_rng(4)
    y = np.arange(90) % 3
    X = 4 * rng.normal(size=(3, 6))[y] + rng.normal(size=(90, 6))
    return X, y, np.arange(90) < 30


NAMES = np.array(["ant", "bee", "cat"])


def objects(labels: Any, known: Any, unlabelled: Any) -> Any:
    few = labels.astype(object)
    few[~known] = unlabelled
    return few


FORMS = {
    "text, None": lambda y, known: objects(NAMES[y], known, None),
    "text, NaN": lambda y, known: objects(NAMES[y], known, np.nan),
    "text, -1": lambda y, known: objects(NAMES[y], known, -1),
    "text, '-1'": lambda y, known: np.where(known, NAMES[y], "-1"),
    "text, ''": lambda y, known: np.where(known, NAMES[y], ""),
    "numbers": lambda y, known: np.where(known, 10 * y, -1),
    "float ids with gaps": lambda y, known: np.where(known, 10.0 * y, np.nan),
    "truth values": lambda y, known: objects(y == 1, known, None),
}


@pytest.mark.parametrize("method", CLASSIFIERS)
@pytest.mark.parametrize("form", FORMS)
def test_labels_in_any_form_train_the_same_model(method: str, form: str, items: Any) -> None:
    X, y, known = items
    plain = (y == 1) * 1 if form == "truth values" else y
    expected = small(method).fit(X, np.where(known, plain, -1))
    found = small(method).fit(X, FORMS[form](y, known))
    classes = np.unique(FORMS[form](y, known)[known].astype(expected_kind(form)))
    assert found.classes_.tolist() == classes.tolist()
    np.testing.assert_array_equal(found.transform(X), expected.transform(X))
    np.testing.assert_array_equal(found.predict(X), classes[expected.predict(X)])


def expected_kind(form: str) -> Any:
    return str if form.startswith("text") else bool if form == "truth values" else np.int64


@pytest.mark.parametrize("method", CLASSIFIERS)
def test_metrics_speak_the_labels_of_predict(method: str, items: Any) -> None:
    X, y, _ = items
    for labels in (NAMES[y], 10.0 * y, y == 1):
        hasher = small(method).fit(X, labels)
        codes, predicted = hasher.transform(X), hasher.predict(X)
        numbers, numbers_of = (np.searchsorted(hasher.classes_, x) for x in (labels, predicted))
        expected = precision_at(codes, numbers, codes, numbers_of)
        assert precision_at(codes, labels, codes, predicted) == expected


@pytest.mark.parametrize("method", CLASSIFIERS)
def test_classifiers_work_with_scikit_learn_s_tools(method: str, items: Any) -> None:
    X, y, _ = items
    kept = (
        {} if method in BASELINES else {"n_epochs": 15, "n_hidden_units": 32, "learning_rate": 0.01}
    )
    hasher = small(method, **kept)
    assert is_classifier(hasher)
    assert min(cross_val_score(hasher, X, y, cv=3)) > 0.8
    grid = GridSearchCV(hasher, {"n_bits": [8, 24]}, cv=2).fit(X, y)
    assert grid.best_estimator_.transform(X).shape == (90, grid.best_params_["n_bits"] // 8)
    voting = VotingClassifier([("a", hasher), ("b", LogisticRegression())], voting="soft")
    assert voting.fit(X, NAMES[y]).score(X, NAMES[y]) > 0.9
    pipeline = make_pipeline(StandardScaler(), hasher)
    assert pipeline.fit(X, y).score(X, y) > 0.8
    assert pipeline.transform(X).shape == (90, 2)


@pytest.mark.parametrize("method", CLASSIFIERS)
def test_self_training_takes_a_hasher(method: str, items: Any) -> None:
    X, y, known = items
    kept = (
        {} if method in BASELINES else {"n_epochs": 15, "n_hidden_units": 32, "learning_rate": 0.01}
    )
    teacher = SelfTrainingClassifier(small(method, **kept), max_iter=2)
    assert teacher.fit(X, np.where(known, y, -1)).score(X, y) > 0.8


@pytest.mark.parametrize("method", CLASSIFIERS)
def test_score_counts_labelled_items_alone(method: str, items: Any) -> None:
    X, y, known = items
    hasher = small(method).fit(X, NAMES[y])
    right = hasher.predict(X) == NAMES[y]
    assert hasher.score(X, NAMES[y]) == right.mean()
    assert hasher.score(X, np.where(known, NAMES[y], "")) == right[known].mean()
    weights = np.arange(90.0)
    expected = pytest.approx((right * weights)[known].sum() / weights[known].sum())
    assert hasher.score(X, objects(NAMES[y], known, None), weights) == expected
    with pytest.raises(ValueError, match="nothing to score"):
        hasher.score(X, [None] * 90)
    with pytest.raises(ValueError, match="y has 3 rows, X has 90"):
        hasher.score(X, NAMES)
    several = np.stack([y > 0, y > 1], 1)
    hasher = small(method).fit(X, several)
    assert hasher.score(X, several) == (hasher.predict(X) == several).all(axis=1).mean()


@pytest.mark.parametrize("method", CLASSIFIERS)
def test_transduction_keeps_the_known_labels_and_predicts_the_others(
    method: str, items: Any
) -> None:
    X, y, known = items
    hasher = small(method).fit(X, objects(NAMES[y], known, None))
    expected = np.where(known, NAMES[y], hasher.predict(X))
    assert hasher.transduction_.tolist() == expected.tolist()
    several = np.where(known[:, None], np.stack([y > 0, y > 1], 1), -1)
    hasher = small(method).fit(X, several)
    np.testing.assert_array_equal(
        hasher.transduction_, np.where(known[:, None], several, hasher.predict(X))
    )


def test_weights_of_items_are_refused(items: Any) -> None:
    X, y, _ = items
    with pytest.raises(TypeError, match="sample_weight"):
        small("ssb-vae").fit(X, y, sample_weight=np.ones(90))


EVERY = [*METHODS, *BASELINES]


@pytest.mark.parametrize("name", EVERY)
def test_estimators_are_cloned_pickled_and_dumped(name: str, items: Any, tmp_path: Path) -> None:
    X, y, _ = items
    hasher = estimator(name).fit(X, y)
    expected = hasher.transform(X)
    joblib.dump(hasher, tmp_path / "hasher")
    for copy in (
        joblib.load(tmp_path / "hasher"),
        pickle.loads(pickle.dumps(hasher)),
        deepcopy(hasher),
        clone(hasher).fit(X, y),
    ):
        np.testing.assert_array_equal(copy.transform(X), expected)
    with pytest.raises(NotFittedError):
        clone(hasher).transform(X)


def estimator(name: str) -> Any:
    return BASELINES[name](n_bits=6) if name in BASELINES else small(name, n_bits=6)


@pytest.mark.parametrize("name", EVERY)
def test_names_of_features_are_of_the_fitted_width(name: str, items: Any) -> None:
    X, y, _ = items
    hasher = estimator(name)
    with pytest.raises(NotFittedError):
        hasher.get_feature_names_out()
    hasher.fit(X, y).set_params(n_bits=64)
    prefix = type(hasher).__name__.lower()
    assert hasher.get_feature_names_out().tolist() == [f"{prefix}0"]
    assert hasher.transform(X).shape == (90, 1)
    assert hasher.logits(X).shape == (90, 6)


@pytest.mark.parametrize("name", METHODS)
def test_a_model_is_saved_as_it_was_fitted(name: str, items: Any, tmp_path: Path) -> None:
    X, y, _ = items
    hasher = small(name).fit(X, y)
    codes = hasher.transform(X)
    hasher.set_params(n_bits=64, n_hidden_units=3)
    if name == "ssb-vae":
        hasher.set_params(preset="paper")
    hasher.save(tmp_path)
    loaded = type(hasher).load(tmp_path)
    assert loaded.n_bits == 9
    for one in (hasher, loaded):
        np.testing.assert_array_equal(one.transform(X), codes)


@pytest.mark.parametrize("name", METHODS)
def test_a_fit_that_fails_leaves_the_older_model(name: str, items: Any) -> None:
    X, y, _ = items
    hasher = small(name).fit(X, y)
    expected = hasher.transform(X)
    with pytest.raises(ValueError, match="target"):
        hasher.fit(X[:, :3], y, target=X[:5])
    assert hasher.n_features_in_ == 6
    np.testing.assert_array_equal(hasher.transform(X), expected)


@pytest.mark.parametrize("name", EVERY)
def test_frames_come_out_of_transform_alone(name: str, items: Any) -> None:
    pd = pytest.importorskip("pandas")
    X, y, _ = items
    frame = pd.DataFrame(X, columns=list("abcdef"), index=np.arange(90) + 7)
    expected = estimator(name).fit(X, y).transform(X)
    with config_context(transform_output="pandas"):
        hasher = estimator(name).fit(frame, y)
        codes = hasher.transform(frame)
        assert isinstance(codes, pd.DataFrame)
        assert codes.index.tolist() == frame.index.tolist()
        np.testing.assert_array_equal(codes, expected)
        assert isinstance(hasher.logits(frame), np.ndarray)


def test_tune_works_where_frames_are_asked_for(items: Any) -> None:
    pytest.importorskip("optuna")
    pytest.importorskip("pandas")
    X, y, _ = items
    with config_context(transform_output="pandas"):
        found = ssbhash.tune(small("phs-gs"), X, y, n_trials=1, n_folds=2, verbose=False)
    assert len(found.trials) == 1
