"""What labelled items tell of the others."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from sklearn.linear_model import LogisticRegression

from ssbhash.inputs import DenseRows, read_labels
from ssbhash.training import beliefs, believe
from ssbhash.training.beliefs import _Regression, _Space, _Spreading


def waves(n=1000, seed=0):
    """Two wavy bands around a cylinder, which no plane separates."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    angle = rng.uniform(0, 2 * np.pi, n)
    height = np.sin(2 * angle) + np.where(y, 0.4, -0.4) + rng.normal(0, 0.02, n)
    return np.stack([np.cos(angle), np.sin(angle), height], 1).astype(np.float32), y


def blobs(n=600, n_classes=4, n_noise=300, seed=0):
    """Classes apart in few coordinates, among many of smaller noise."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    X = rng.normal(0, 0.7, (n, n_classes + n_noise))
    X[np.arange(n), y] += 4
    return X.astype(np.float32), y


def few(y, n_known):
    return np.where(np.arange(len(y)) < n_known, y, -1)


def believed(X, y):
    return believe(DenseRows(X), read_labels(y, len(X), "it"), seed=0)


def test_the_regression_is_sklearns():
    X, y = blobs(n_noise=3)
    x = torch.from_numpy(X - X.mean(0))
    space = _Space(x, None, 10)
    known = np.arange(60)
    target = np.eye(4, dtype=np.float32)[y]
    ours = _Regression(space, 0.1, False).fit(target, known).predict(x, np.arange(len(X)))
    inputs = space.coordinates(space.anchors).numpy()
    theirs = LogisticRegression(C=0.1).fit(inputs[known], y[known]).predict_proba(inputs)
    np.testing.assert_allclose(ours, theirs, atol=5e-3)


def test_labels_spread_along_what_no_line_separates():
    X, y = waves()
    x = torch.from_numpy(X - X.mean(0))
    target, known = np.eye(2, dtype=np.float32)[y], np.arange(40)
    place = np.arange(len(X))
    space = _Space(x, None, 10)
    spread, straight = (
        (method.fit(target, known).predict(x, place).argmax(1) == y).mean()
        for method in (_Spreading(space, 0.95, False), _Regression(space, 1.0, False))
    )
    assert spread > 0.95 > straight
    found = believed(X, few(y, 40))
    assert "label spreading" in {c["method"] for c in found.report["chosen"]}
    np.testing.assert_allclose(found.probabilities.sum(1), 1, atol=1e-5)


def test_few_components_where_many_drown_the_classes():
    X, y = blobs()
    found = believed(X, few(y, 24))
    assert (found.probabilities.argmax(1) == y).mean() > 0.95
    assert found.informative
    assert found.report["neighbours_in_dimensions"] < 100
    same = y[found.neighbours] == y[:, None]
    assert same.mean() > 0.9
    assert not (found.neighbours == np.arange(len(y))[:, None]).any()


def test_labels_that_say_nothing_are_found_out():
    X, _ = blobs()
    y = np.random.default_rng(1).integers(0, 4, len(X))
    assert not believed(X, few(y, 100)).informative


def test_the_regression_says_of_features_alone_what_the_chosen_ones_say(monkeypatch):
    monkeypatch.setattr(beliefs, "N_CHOSEN", 1)
    rng = np.random.default_rng(0)
    X = rng.normal(5, 1, (900, 20)).astype(np.float32)
    y = (X[:, :3] + rng.normal(0, 0.1, (900, 3))).argmax(1)
    found = believed(X, few(y, 200))
    assert found.report["chosen"][0]["method"] == "logistic regression"
    assert found.report["log_loss_of_regressions"] == found.report["log_loss"]
    scores = torch.from_numpy(X) @ found.regression.weight + found.regression.bias
    np.testing.assert_allclose(torch.softmax(scores, 1), found.probabilities, atol=1e-4)
    assert found.regression.suffices
    X, y = waves()
    assert not believed(X, few(y, 40)).regression.suffices, "label spreading is better"


def test_several_labels_to_an_item():
    X, y = blobs()
    labels = np.eye(4, dtype=np.int64)[y]
    labels[:, 1] |= labels[:, 0]
    shown = labels.copy()
    shown[40:] = -1
    found = believed(X, shown)
    assert ((found.probabilities > 0.5) == labels).mean() > 0.95
    assert found.informative


def test_more_items_than_anchors(monkeypatch):
    monkeypatch.setattr(beliefs, "N_ANCHORS", 200)
    for X, y in (waves(), blobs()):
        found = believed(X, few(y, 40))
        assert (found.probabilities.argmax(1) == y).mean() > 0.75
        assert not (found.neighbours == np.arange(len(y))[:, None]).any()
        assert len(np.unique(found.neighbours)) <= 200


@pytest.mark.parametrize("n", [2, 3, 5, 12])
def test_a_handful_of_items(n):
    X = np.eye(n, dtype=np.float32)
    y = np.arange(n) % 2
    found = believed(X, y)
    assert found.probabilities.shape == (n, 2)
    assert np.isfinite(found.probabilities).all()
    assert found.neighbours.shape == (n, min(3, n - 1))


def test_equal_items_and_wide_ones():
    y = few(np.arange(40) % 2, 20)
    found = believed(np.ones((40, 3), np.float32), y)
    assert np.isfinite(found.probabilities).all()
    wide = np.random.default_rng(0).standard_normal((40, 1100)).astype(np.float32)
    wide[::2] += 1
    assert (believed(wide, y).probabilities.argmax(1) == np.arange(40) % 2).all()


def test_many_classes():
    X, y = blobs(1200, 120, 10)
    found = believed(X, few(y, 600))
    assert (found.probabilities.argmax(1) == y).mean() > 0.7
    assert len(found.report["candidates"]) <= 4
