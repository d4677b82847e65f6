"""The default SSB-VAE: its loss by formula, its codes, what it does where labels say nothing."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

import scipy.sparse as sp
from torch.nn import functional as F

import ssbhash
from ssbhash import SSBVAE
from ssbhash.item_metrics import code_figures
from ssbhash.kernels import plain as kernels
from ssbhash.metrics import precision_at
from ssbhash.models import ClassifierCodes, Concatenated
from ssbhash.models.projections import class_and_item_bits
from ssbhash.nn import ClassAndItemNetwork, Shape, TrainingBatch, Weights
from ssbhash.nn.class_and_item import CONTRAST_SCALE, LEAST_LENGTH
from ssbhash.training.optimizer import Optimizer


def network(multilabel: bool = False) -> ClassAndItemNetwork:
    shape = Shape(6, 0, 16, 3, n_hidden_units=8, multilabel=multilabel)
    weights = Weights(contrast=2.0)
    return ClassAndItemNetwork(shape, weights, torch.Generator().manual_seed(0))


def batch(multilabel: bool = False) -> TrainingBatch:
    """Two items, a neighbour of each, and one labelled item."""
    random = torch.Generator().manual_seed(1)
    x = torch.randn(5, 6, generator=random)
    labels = torch.tensor([[1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 1, int(multilabel)]])
    known = torch.tensor([True, False, False, False, True])
    beliefs = torch.softmax(torch.randn(5, 3, generator=random), 1)
    return TrainingBatch(x, x, torch.where(known[:, None], labels, beliefs), known, n_pairs=2)


def clusters(n: int, n_classes: int, seed: int = 0) -> tuple[Any, Any]:
    """Classes of three clusters each, in 20 coordinates."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    centres = rng.normal(0, 2, (n_classes, 3, 20))
    X = centres[y, rng.integers(0, 3, n)] + rng.normal(0, 1, (n, 20))
    return X.astype(np.float32), y


@pytest.mark.parametrize("multilabel", [False, True])
def test_terms_follow_their_formulas(multilabel: bool) -> None:
    built, items = network(multilabel).eval(), batch(multilabel)
    assert items.labels is not None
    terms = built.terms(items, torch.Generator())
    scores = built.class_scores(items.x)
    target = items.labels
    if multilabel:
        p = torch.sigmoid(scores)
        each = -(target * p.log() + (1 - target) * (1 - p).log()).sum(1)
        doubtful = (2 * target[1] - 1).abs().mean() ** 2
    else:
        each = -(target * torch.softmax(scores, 1).log()).sum(1)
        doubtful = target[1].max() ** 2
    torch.testing.assert_close(terms["class"], (each[0] + doubtful * each[1]) / 2)
    torch.testing.assert_close(terms["labelled"], each[4])
    e = built.both(items.x)[:, 3:]
    found = 0.0
    for i, j in ((0, 2), (1, 3), (2, 0), (3, 1)):
        others = (2, 3) if i < 2 else (0, 1)
        own = torch.exp(CONTRAST_SCALE * e[i] @ e[j])
        found = found - torch.log(
            own / sum(torch.exp(CONTRAST_SCALE * e[i] @ e[k]) for k in others)
        )
    torch.testing.assert_close(terms["contrast"], found / 4)
    total = terms["class"] + terms["labelled"] + 2 * terms["contrast"]
    torch.testing.assert_close(terms["loss"], total)


def contrast(rows: Any) -> Any:
    return kernels.contrast(rows, CONTRAST_SCALE, LEAST_LENGTH)


def test_contrast_is_least_where_neighbours_are_equal_and_others_far() -> None:
    near, far = torch.eye(4), torch.eye(4).roll(1, 0)
    assert contrast(torch.cat([near, near]))[0] < 0.01
    assert contrast(torch.cat([near, far]))[0] > 6


@pytest.mark.parametrize("n", [1, 2, 9])
def test_contrast_and_its_gradient(n: int) -> None:
    random = torch.Generator().manual_seed(n)
    rows = torch.randn(2 * n, 5, generator=random, dtype=torch.float64).requires_grad_()
    unit = F.normalize(rows, dim=1)
    scores, own = CONTRAST_SCALE * unit[:n] @ unit[n:].t(), torch.arange(n)
    plain = (F.cross_entropy(scores, own) + F.cross_entropy(scores.t(), own)) / 2
    expected = plain.detach(), *torch.autograd.grad(plain, rows)
    torch.testing.assert_close(contrast(rows.detach()), expected)


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("size", [1.0, 500.0])
def test_cross_entropy_and_its_gradient(multilabel: bool, size: float) -> None:
    random = torch.Generator().manual_seed(1)
    scores = size * torch.randn(7, 4, generator=random, dtype=torch.float64)
    scores.requires_grad_()
    belief = torch.softmax(torch.randn(7, 4, generator=random, dtype=torch.float64), 1)
    if multilabel:
        plain = F.binary_cross_entropy_with_logits(scores, belief, reduction="none").sum(1)
    else:
        plain = F.cross_entropy(scores, belief, reduction="none")
    expected = plain.detach(), *torch.autograd.grad(plain.sum(), scores)
    torch.testing.assert_close(kernels.cross_entropy(scores.detach(), belief, multilabel), expected)


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("n_items", [4, 5])
def test_gradient_of_the_loss(multilabel: bool, n_items: int) -> None:
    built, items = network(multilabel).double().eval(), batch(multilabel)
    assert items.labels is not None
    x, labels = (tensor[:n_items].double() for tensor in (items.x, items.labels))
    cut = TrainingBatch(x, x, labels, items.known[:n_items], n_pairs=2)

    def loss() -> Any:
        terms = built.terms(cut, torch.Generator())
        assert ("labelled" in terms) == (n_items > 4)
        return terms["loss"]

    random = torch.Generator().manual_seed(2)
    for parameter in built.parameters():
        gradient = torch.autograd.grad(loss(), parameter)[0]
        change = torch.randn(gradient.shape, generator=random, dtype=torch.float64)
        ends = []
        for step in (1e-3, -1e-3):
            with torch.no_grad():
                parameter += step * change
                ends.append(loss())
                parameter -= step * change
        slope = (ends[0] - ends[1]) / 2e-3
        torch.testing.assert_close(
            (gradient * change).sum(), slope, rtol=1e-3, atol=1e-3, check_dtype=False
        )


@pytest.mark.parametrize("multilabel", [False, True])
def test_a_share_of_the_class_probabilities_comes_from_the_regression(multilabel: bool) -> None:
    built, x = network(multilabel).eval(), batch().x
    normalised = torch.sigmoid if multilabel else partial(torch.softmax, dim=1)
    own = normalised(built.class_scores(x))
    built.regression_weight.normal_(generator=torch.Generator().manual_seed(2))
    built.regression_bias += torch.tensor([1.0, 2.0, 3.0])
    built.regression_share.fill_(0.25)
    other = normalised(x @ built.regression_weight + built.regression_bias)
    for found in (normalised(built.class_scores(x)), built.both(x)[:, :3]):
        torch.testing.assert_close(found, 0.75 * own + 0.25 * other)


def test_what_remains_is_the_average_of_the_weights() -> None:
    built = network()
    built.begin()
    optimizer = Optimizer(built, 0.1, sparse=False)
    names = [name for name in built.state_dict() if not name.startswith("average")]
    seen = [{name: built.state_dict()[name].clone() for name in names}]
    for _ in range(2):
        optimizer.step(built.terms(batch(), torch.Generator())["loss"], None)
        seen.append({name: built.state_dict()[name].clone() for name in names})
    built.finish()
    # The first step moves the average by half of the way, the second by a third.
    for name in names:
        if seen[0][name].is_floating_point():
            expected = torch.stack([state[name] for state in seen]).mean(0)
            torch.testing.assert_close(built.state_dict()[name], expected, msg=name)
    assert not any(name.startswith("average") for name in built.state_dict())


@pytest.mark.parametrize("n_bits", [1, 13, 40, 100])
@pytest.mark.parametrize("class_scale", [0.0, 0.5, 2.0])
def test_logits_are_a_rotation_of_probabilities_and_embedding(
    n_bits: int, class_scale: float
) -> None:
    X, y = clusters(90, 3)
    hasher = SSBVAE(n_bits, class_scale=class_scale, n_epochs=1, n_hidden_units=8).fit(X, y)
    assert hasher.report_["class_scale"] == class_scale
    logits = hasher.logits(X)
    assert logits.shape == (90, n_bits)
    assert hasher.transform(X).shape == (90, -(-n_bits // 8))
    np.testing.assert_allclose(logits.mean(0), 0, atol=1e-5)
    if n_bits == 100:  # no axis is left out, so distances are those before the rotation
        network = hasher._model.network
        rows = hasher._model.rows(X)
        both = hasher._model.encode(network.both, rows, len(network.mean))
        both[:, :3] *= class_scale
        found, expected = (((a[:, None] - a) ** 2).sum(2) for a in (logits, both))
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("n_bits", [8, 9, 31, 32, 64])
def test_the_class_gives_way_in_short_codes(n_bits: int) -> None:
    rng = np.random.default_rng(0)
    classes = np.eye(4)[rng.integers(0, 4, 500)]
    embedding = rng.normal(size=(500, 40)) * np.linspace(1, 0.1, 40)
    variances = np.sort(np.linalg.eigvalsh(np.cov(embedding.T)))[::-1]
    part = (variances[:n_bits].sum() / variances[:32].sum()) ** 0.5 if 8 < n_bits < 32 else 1.0
    both = np.hstack([classes, embedding])
    mean, projection = class_and_item_bits(both, 4, n_bits, 2.0, 0)
    # The bits keep the variance of the principal axes.
    both[:, :4] *= 2 * part
    expected = np.sort(np.linalg.eigvalsh(np.cov(both.T)))[::-1][:n_bits].sum()
    found = np.cov(((np.hstack([classes, embedding]) - mean) @ projection).T).trace()
    assert found == pytest.approx(expected)


def test_an_embedding_that_is_the_same_for_all_leaves_short_codes_to_the_class() -> None:
    classes = np.eye(4)[np.arange(40) % 4]
    both = np.hstack([classes, np.zeros((40, 20))])
    mean, projection = class_and_item_bits(both, 4, 16, 1.0, 0)
    codes = (both - mean) @ projection > 0
    assert len(np.unique(codes, axis=0)) == 4


@pytest.mark.parametrize(("n_bits", "n_classes"), [(5, 3), (37, 7), (64, 11)])
def test_logits_of_an_item_do_not_depend_on_the_others(n_bits: int, n_classes: int) -> None:
    X, y = clusters(130, n_classes)
    hasher = SSBVAE(n_bits, n_epochs=1, n_hidden_units=24).fit(X, y)
    together = hasher.logits(X)
    for rows in (slice(0, 1), slice(7, 9), slice(40, 130), slice(3, 120, 9)):
        np.testing.assert_array_equal(hasher.logits(X[rows]), together[rows])


def test_codes_know_the_class_and_the_cluster() -> None:
    X, y = clusters(900, 4)
    shown = np.where(np.arange(900) < 60, y, -1)
    hasher = SSBVAE(32).fit(X[:800], shown[:800])
    codes, queries = hasher.transform(X[:800]), hasher.transform(X[800:])
    assert (hasher.predict(X[800:]) == y[800:]).mean() > 0.8
    sides = codes, y[:800], queries, y[800:]
    plain = ClassifierCodes(32).fit(X[:800], shown[:800])
    theirs = plain.transform(X[:800]), y[:800], plain.transform(X[800:]), y[800:]
    assert precision_at(*sides) > precision_at(*theirs) - 0.01
    own = code_figures(*sides)
    assert own["distinct"] > 0.1  # of 12 clusters of equal items
    assert own["P@10 by class"] > precision_at(*sides, k=10) - 0.05


def test_many_classes_have_their_part_of_few_bits() -> None:
    X, y = clusters(1500, 60)
    shown = np.where(np.arange(1500) < 600, y, -1)
    precision = []
    for hasher in (SSBVAE(16), Concatenated(16)):
        codes = hasher.fit(X[:1200], shown[:1200]).transform(X)
        precision.append(precision_at(codes[:1200], y[:1200], codes[1200:], y[1200:], k=10))
    assert precision[0] > precision[1]


@pytest.mark.parametrize(("n_labels", "expected"), [(1, 1.0), (3, 3**-0.5)])
def test_probabilities_of_items_with_several_labels_are_as_long_as_of_one(
    n_labels: int, expected: float
) -> None:
    X, y = clusters(200, 4)
    labels = np.stack([(y + i) % 6 for i in range(n_labels)], 1)
    several = np.where(np.arange(6) == labels[..., None], 1, 0).max(1)
    several[120:] = -1
    hasher = SSBVAE(16, n_epochs=1, n_hidden_units=8).fit(X, several)
    assert hasher.report_["class_scale"] == pytest.approx(expected)


def test_items_with_fewer_labels_than_one_do_not_have_longer_probabilities() -> None:
    X, y = clusters(200, 4)
    hasher = SSBVAE(16, n_epochs=1, n_hidden_units=8)
    hasher.fit(X, (y[:, None] == np.arange(2)).astype(np.int64))  # classes 2 and 3: no label
    assert hasher.report_["class_scale"] == 1


def test_labels_without_meaning_have_no_weight(caplog: pytest.LogCaptureFixture) -> None:
    X, _ = clusters(300, 3)
    y = np.where(np.arange(300) < 60, np.random.default_rng(0).integers(0, 3, 300), -1)
    with caplog.at_level(logging.WARNING):
        hasher = SSBVAE(16, n_epochs=1, n_hidden_units=8).fit(X, y)
    assert hasher.report_["class_scale"] == 0
    assert "codes keep the item alone" in caplog.text
    assert hasher.logits(X).shape == (300, 16)


def planes(n: int) -> tuple[Any, Any]:
    """Classes that planes separate, in 20 coordinates, and that are no clusters."""
    rng = np.random.default_rng(0)
    X = rng.normal(0, 1, (n, 20)).astype(np.float32)
    return X, (X[:, :3] + rng.normal(0, 0.1, (n, 3))).argmax(1)


def test_half_of_the_class_comes_from_regressions_where_they_are_best(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    X, y = planes(900)
    shown = np.where(np.arange(900) < 200, y, -1)
    with caplog.at_level(logging.INFO):
        hasher = SSBVAE(16).fit(X, shown)
    assert hasher.report_["regression_share"] == 0.5
    assert "label spreading predicts held-out labels no better" in caplog.text
    hasher.save(tmp_path)
    loaded = ssbhash.load(tmp_path)
    for function in ("transform", "predict_proba"):
        together = getattr(hasher, function)(X)
        np.testing.assert_array_equal(getattr(loaded, function)(X), together)
        np.testing.assert_array_equal(getattr(loaded, function)(X[7:8]), together[7:8])
    np.testing.assert_array_equal(hasher.transduction_[200:], hasher.predict(X[200:]))
    np.testing.assert_array_equal(hasher.transduction_[:200], y[:200])


def test_label_spreading_leaves_the_class_to_the_network() -> None:
    X, y = clusters(900, 4)
    hasher = SSBVAE(16).fit(X, np.where(np.arange(900) < 60, y, -1))
    assert hasher.report_["log_loss"] < hasher.report_["log_loss_of_regressions"]
    assert hasher.report_["regression_share"] == 0


def test_half_of_the_class_comes_from_regressions_where_labels_are_too_few_to_tell(
    caplog: pytest.LogCaptureFixture,
) -> None:
    X, y = planes(200)
    with caplog.at_level(logging.INFO):
        hasher = SSBVAE(16, n_epochs=1).fit(X, np.where(np.arange(200) < 9, y, -1))
    assert hasher.report_["n_validated"] == 0
    assert hasher.report_["regression_share"] == 0.5
    assert "too few labels to hold some out" in caplog.text


def test_a_network_that_learned_nothing_leaves_the_class_to_regressions(
    caplog: pytest.LogCaptureFixture,
) -> None:
    X, y = planes(900)
    shown = np.where(np.arange(900) < 200, y, -1)
    with caplog.at_level(logging.WARNING):
        hasher = SSBVAE(16, n_epochs=1, learning_rate=1e-6).fit(X, shown)
    report = hasher.report_
    assert report["log_loss_of_network"] > report["log_loss_of_regressions"]
    assert report["regression_share"] == 1
    assert "class probabilities come from these" in caplog.text
    assert (hasher.predict(X[200:]) == y[200:]).mean() > 0.85


@pytest.mark.parametrize(
    ("n_items", "given", "width"), [(100, None, 80), (1000, None, 252), (100, 30, 30), (50, 99, 50)]
)
def test_few_items_have_few_components(n_items: int, given: int | None, width: int) -> None:
    words = sp.csr_array(np.random.default_rng(0).poisson(0.1, (n_items, 400)).astype(np.float32))
    hasher = SSBVAE(8, n_lsa_components=given, n_epochs=1, n_hidden_units=4, verbose=False)
    hasher.fit(words, np.arange(n_items) % 2)
    assert hasher._model.network.shape.n_features == width


@pytest.mark.parametrize(
    ("n_items", "batch_size", "n_epochs"),
    [(30, 10, 125), (90, 9, 50), (60, 2, 25), (100, 1, 13), (130, 1, 10)],
)
def test_more_items_need_fewer_epochs(n_items: int, batch_size: int, n_epochs: int) -> None:
    X, y = clusters(n_items, 3)
    hasher = SSBVAE(8, batch_size=batch_size, n_hidden_units=4, verbose=False).fit(X, y)
    assert hasher.n_epochs_ == n_epochs


def test_the_preset_chooses_the_learning_rate() -> None:
    X, y = clusters(60, 3)
    common = {"n_bits": 8, "n_epochs": 2, "n_hidden_units": 4, "verbose": False}
    for preset, rate in (("default", 2e-3), ("paper", 1e-3)):
        codes = [
            SSBVAE(**common, preset=preset, learning_rate=given).fit(X, y).logits(X)
            for given in (None, rate, 5e-3)
        ]
        np.testing.assert_array_equal(codes[0], codes[1])
        assert not np.array_equal(codes[0], codes[2])


def test_columns_in_large_units_do_not_hide_the_others() -> None:
    X, y = clusters(900, 4)
    shown = np.where(np.arange(900) < 60, y, -1)
    amounts = np.random.default_rng(1).lognormal(10, 1, (900, 1)).astype(np.float32)
    table = np.hstack([amounts, X])
    plain = SSBVAE(32).fit(X[:800], shown[:800])
    hasher = SSBVAE(32).fit(table[:800], shown[:800])
    assert hasher.report_["log_loss_own_scales"] < hasher.report_["log_loss_one_scale"]
    assert (hasher.predict(table[800:]) == y[800:]).mean() > (
        plain.predict(X[800:]) == y[800:]
    ).mean() - 0.1


def test_features_of_one_unit_keep_their_scale() -> None:
    # Only the first coordinates say anything; the small ones are noise.
    X, y = clusters(600, 4)
    noise = np.random.default_rng(1).normal(0, 0.1, (600, 60)).astype(np.float32)
    hasher = SSBVAE(16, n_epochs=1, n_hidden_units=8)
    hasher.fit(np.hstack([X, noise]), np.where(np.arange(600) < 60, y, -1))
    assert hasher.report_["log_loss_own_scales"] > hasher.report_["log_loss_one_scale"]
    scale = hasher._model.statistics["scale"]
    assert (scale == scale[0]).all()


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("multilabel", [False, True])
def test_saved_and_loaded(sparse: bool, multilabel: bool, tmp_path: Any) -> None:
    random = np.random.default_rng(0)
    X = random.poisson(0.5, (60, 30)).astype(np.float32)
    features = sp.csr_array(X) if sparse else X
    y = random.integers(0, 2, (60, 3)) if multilabel else random.integers(0, 3, 60)
    y[20:] = -1
    hasher = SSBVAE(16, n_epochs=2, n_hidden_units=8, n_lsa_components=5).fit(features, y)
    hasher.save(tmp_path / "model")
    loaded = ssbhash.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.logits(features), hasher.logits(features))
    np.testing.assert_array_equal(loaded.predict(features), hasher.predict(features))


def test_held_out_labels_are_not_believed() -> None:
    X, y = clusters(300, 3)
    settings = {"n_epochs": 2, "n_hidden_units": 8, "validation_fraction": 0.5}
    with_all = SSBVAE(16, **settings).fit(X, y)
    held_out = np.random.default_rng((0, 0)).permutation(300)[:150]
    wrong = y.copy()
    wrong[held_out] = (y[held_out] + 1) % 3
    without = SSBVAE(16, **settings).fit(X, wrong)
    np.testing.assert_array_equal(with_all.logits(X), without.logits(X))
    assert with_all.history_[-1]["val_accuracy"] > 2 * without.history_[-1]["val_accuracy"]


def test_more_rows_than_are_kept_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = clusters(120, 3)
    hasher = SSBVAE(16, n_epochs=1, n_hidden_units=8)
    codes = hasher.fit(X, y).transform(X)
    monkeypatch.setattr("ssbhash.inputs.rows.MOST_IN_MEMORY", 100)
    np.testing.assert_array_equal(hasher.fit(X, y).transform(X), codes)


@pytest.mark.parametrize("n", [2, 3, 7])
def test_a_handful_of_items(n: int) -> None:
    X = np.eye(n, 9, dtype=np.float32)
    hasher = SSBVAE(16, n_epochs=2, n_hidden_units=8).fit(X, np.arange(n) % 2)
    assert np.isfinite(hasher.logits(X)).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"preset": "best"},
        {"dropout": 1},
        {"class_scale": -1},
        {"n_labelled": -1},
        {"n_lsa_components": 0},
        {"batch_size": 0},
        {"alpha": 1.0},
        {"contrast_weight": -1},
    ],
)
def test_bad_parameters(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SSBVAE(**wrong).fit(np.eye(8), np.arange(8) % 2)
