"""Baselines: scikit-learn's conventions, and that each does what its paper says."""

import numpy as np
import pytest

pytest.importorskip("sklearn")
import scipy.sparse as sp
from sklearn.base import is_classifier
from sklearn.datasets import load_digits
from sklearn.utils.estimator_checks import parametrize_with_checks

import ssbhash
from ssbhash import metrics
from ssbhash.models.baselines import BASELINES, ITQ, LSH, ClassifierCodes, Sign


def expected_failures(estimator):
    classes = {"check_classifiers_classes": "classes -1 and 1: -1 is unlabelled"}
    return classes if is_classifier(estimator) else {}


@parametrize_with_checks(
    [LSH(), Sign(), ITQ(), ClassifierCodes()], expected_failed_checks=expected_failures
)
def test_scikit_learn_conventions(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def digits():
    """Images, labels with one in ten shown, and queries apart."""
    X, y = load_digits(return_X_y=True)
    shown = np.where(np.arange(1400) % 10 == 0, y[:1400], -1)
    return X[:1400], y[:1400], shown, X[1400:], y[1400:]


# The classifier takes sparse features for text: another preprocessing.
@pytest.mark.parametrize("name", ["lsh", "sign", "itq"])
def test_sparse_input_gives_the_codes_of_dense_input(name, digits):
    X, _, shown, queries, _ = digits
    dense = BASELINES[name](n_bits=16).fit(X, shown)
    sparse = BASELINES[name](n_bits=16).fit(sp.csr_matrix(X), shown)
    got, expected = sparse.logits(sp.csr_array(queries)), dense.logits(queries)
    if name == "itq":  # components are known up to their sign: compare what ranks
        got, expected = (ssbhash.distances(*[ssbhash.pack(x > 0)] * 2) for x in (got, expected))
        assert np.corrcoef(got.ravel(), expected.ravel())[0, 1] > 0.5
        return
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("make", [np.asarray, sp.csr_matrix])
def test_codes_are_the_signs_of_logits_and_depend_on_the_seed_alone(name, make, digits):
    X, _, shown, queries, _ = digits
    X, queries = make(X), make(queries)
    hasher = BASELINES[name](n_bits=13, seed=3).fit(X, shown)
    codes, logits = hasher.transform(queries), hasher.logits(queries)
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(ssbhash.unpack(codes, 13), logits > 0)
    again = BASELINES[name](n_bits=13, seed=3).fit(X, shown)
    np.testing.assert_array_equal(again.transform(queries), codes)
    if name != "sign":
        other = BASELINES[name](n_bits=13, seed=4).fit(X, shown)
        assert (other.transform(queries) != codes).any()


def test_lsh_distance_grows_with_the_angle():
    angle = np.linspace(0, np.pi, 13)
    X = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    hasher = LSH(n_bits=4000).fit(np.concatenate([X, -X]))  # mean 0
    codes = hasher.transform(X)
    share = ssbhash.distances(codes, codes[0]) / 4000
    np.testing.assert_allclose(share, angle / np.pi, atol=0.04)


def test_sign_takes_the_features_of_largest_variance():
    X = np.array([[0.0, 0, 5], [1, 10, -5], [2, -10, 0]])
    assert Sign(n_bits=2).fit(X).features_.tolist() == [1, 2]
    assert Sign().fit(X).logits(X).tolist() == (X - [1, 0, 0]).tolist()


def test_itq_loses_less_by_signs_than_an_unrotated_projection(digits):
    X = digits[0]

    def loss(n_iterations):
        logits = ITQ(n_bits=16, n_iterations=n_iterations).fit(X).logits(X)
        return np.mean((np.sign(logits) - logits / np.abs(logits).mean()) ** 2)

    losses = [loss(n) for n in (0, 5, 50)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.95 * losses[0]


def test_itq_keeps_the_lengths_of_its_projection(digits):
    X = digits[0]
    hasher = ITQ(n_bits=8).fit(X)
    gram = hasher.weights_.T @ hasher.weights_  # orthonormal components, rotated
    np.testing.assert_allclose(gram, np.eye(8), atol=1e-10)


@pytest.mark.parametrize("n_features", [3, 1500])
def test_more_bits_than_components(n_features):
    X = np.random.default_rng(0).random((20, n_features))
    for x in (X, sp.csr_matrix(X)):
        codes = ITQ(n_bits=64).fit(x).transform(x)
        assert codes.shape == (20, 8)
        assert len(np.unique(codes, axis=0)) > 1


def test_more_labels_and_more_method_rank_better(digits):
    X, y, shown, queries, query_labels = digits

    def precision(hasher, labels):
        hasher.fit(X, labels)
        codes = hasher.transform(X), hasher.transform(queries)
        return metrics.precision_at(codes[0], y, codes[1], query_labels, k=100)

    lsh, itq = (precision(h(n_bits=32), shown) for h in (LSH, ITQ))
    few, all_labels = (precision(ClassifierCodes(n_bits=32), labels) for labels in (shown, y))
    assert 0.3 < lsh < itq < few < all_labels
    assert all_labels > 0.85


@pytest.mark.parametrize("make", [np.asarray, sp.csr_matrix])
def test_classifier_predicts(make, digits):
    X, _, shown, queries, query_labels = digits
    hasher = ClassifierCodes().fit(make(X), np.where(shown < 0, -1, shown + 5))
    assert hasher.classes_.tolist() == list(range(5, 15))
    probabilities = hasher.predict_proba(make(queries))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert np.mean(hasher.predict(make(queries)) == query_labels + 5) > 0.8


def test_multi_label(digits):
    X, y, shown, queries, query_labels = digits
    facts = np.stack([np.arange(10) % 2 == 0, np.arange(10) > 4, np.ones(10)], axis=1).astype(int)
    labels = np.where(shown[:, None] < 0, -1, facts[y])
    hasher = ClassifierCodes().fit(X, labels)
    predicted = hasher.predict(queries)
    assert predicted.shape == (len(queries), 3)
    assert (predicted == facts[query_labels]).mean(axis=0).min() > 0.75
    assert (predicted[:, 2] == 1).all()  # the constant one is not learned but known


def test_text_without_svd(digits):
    X, _, shown, queries, query_labels = digits
    hasher = ClassifierCodes(n_components=None).fit(sp.csr_matrix(X), shown)
    assert np.mean(hasher.predict(sp.csr_matrix(queries)) == query_labels) > 0.8


X_GOOD = np.random.default_rng(0).random((12, 4))
Y_GOOD = np.arange(12) % 3


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize(
    ("parameters", "X", "message"),
    [
        ({"n_bits": 0}, X_GOOD, "n_bits must be at least 1"),
        ({"seed": -1}, X_GOOD, "seed must be at least 0"),
        ({}, np.full((12, 4), np.nan), "NaN"),
        ({}, sp.csr_matrix(np.full((12, 4), np.inf)), "infinity"),
        ({}, np.zeros((0, 4)), "minimum of 1 is required"),
        ({}, np.zeros(4), "Expected 2D array"),
    ],
)
def test_bad_input(name, parameters, X, message):
    with pytest.raises(ValueError, match=message):
        BASELINES[name](**{"n_bits": 4} | parameters).fit(X, Y_GOOD)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "requires y to be passed"),
        (np.full(12, -1), "all 12 labels in y are hidden"),
        (np.where(Y_GOOD == 1, 1, -1), "one class only"),
        (Y_GOOD[:5], "y has 5 rows, X has 12"),
        (np.full((12, 2), 3), "indicator matrix y must hold 0 and 1"),
    ],
)
def test_bad_labels(y, message):
    with pytest.raises(ValueError, match=message):
        ClassifierCodes().fit(X_GOOD, y)


def test_other_bad_parameters():
    with pytest.raises(ValueError, match="n_bits=5 is more than the 4 features of X"):
        Sign(n_bits=5).fit(X_GOOD)
    with pytest.raises(ValueError, match="n_components must be at least 1"):
        ClassifierCodes(n_components=0).fit(X_GOOD, Y_GOOD)
    with pytest.raises(TypeError, match="n_iterations must be an integer"):
        ITQ(n_iterations=1.5).fit(X_GOOD)
    with pytest.raises(ValueError, match="X has 3 features, but LSH is expecting 4"):
        LSH().fit(X_GOOD).transform(X_GOOD[:, :3])
