"""What all estimators share: labels in any form, scikit-learn's protocol."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

import torch

from ssbhash.metrics import precision_at
from ssbhash.models import METHODS, ClassifierCodes

# Networks this small are slower on several threads.
torch.set_num_threads(1)

SMALL: dict[str, Any] = {"n_bits": 9, "n_epochs": 2, "n_hidden_units": 8, "batch_size": 16}
CLASSIFIERS = ["ssb-vae", "phs-gs", "vdsh-s", "classifier"]


def small(method: str, **kwargs: Any) -> Any:
    """An estimator that trains in milliseconds."""
    if method == "classifier":
        return ClassifierCodes(n_bits=9, **kwargs)
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
