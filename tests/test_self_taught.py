"""The default SSB-VAE: its terms by their formulas, its teacher, its inputs."""

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

import scipy.sparse as sp

from ssbhash import SSBVAE
from ssbhash.inputs.lsa import fit_latent, fit_scale
from ssbhash.inputs.rows import row_source
from ssbhash.models import methods
from ssbhash.models.database_codes import Floats, hedged_threshold
from ssbhash.nn.autoencoder import Shape, TrainingBatch, Weights
from ssbhash.nn.self_taught import (
    CODEWORD_SCALE,
    COUNTS_SCALE,
    RAMP_STEPS,
    TRUST_POWER,
    SelfTaughtNetwork,
    separated_codewords,
)

WEIGHTS = Weights(beta=0.5, reconstruction=2, point=3, pair=5, codeword=7)


def network(n_classes: int = 3, multilabel: bool = False, **kwargs: Any) -> SelfTaughtNetwork:
    shape = Shape(6, 6, 16, n_classes, n_hidden_units=8, multilabel=multilabel)
    built = SelfTaughtNetwork(shape, WEIGHTS, torch.Generator().manual_seed(0))
    built.begin()
    return built


def batch(multilabel: bool = False) -> TrainingBatch:
    random = torch.Generator().manual_seed(1)
    x = torch.rand(5, 6, generator=random)
    labels = torch.tensor([[1, 0, 0], [0, 1, int(multilabel)], [0, 0, 0], [0, 0, 0], [0, 0, 0]])
    known = torch.tensor([True, True, False, False, False])
    return TrainingBatch(x, x / x.sum(1, keepdim=True), labels.float(), known)


@pytest.mark.parametrize(("n_bits", "excess"), [(16, 1), (32, 1), (64, 2)])
def test_more_bits_want_more_of_the_pairs_and_less_reconstruction(
    n_bits: int, excess: float
) -> None:
    shape = Shape(6, 6, n_bits, 3, n_hidden_units=8)
    built = SelfTaughtNetwork(shape, WEIGHTS, torch.Generator().manual_seed(0)).eval()
    built.begin()
    terms = built.terms(batch(), torch.Generator().manual_seed(2))
    weights = {"reconstruction": 2 / excess, "kl": 0.5, "point": 3, "pair": 5 * excess}
    expected = sum(weight * terms[name] for name, weight in weights.items()) + 7 * terms["codeword"]
    torch.testing.assert_close(terms["loss"], expected)


def test_a_nat_of_sparse_counts_weighs_more() -> None:
    items, losses = batch(), []
    sparse = row_source(sp.csr_array(items.target.numpy())).take(np.arange(5))
    for target in (items.target, sparse):
        built = network().eval()
        random = torch.Generator().manual_seed(2)
        terms = built.terms(dataclasses.replace(items, target=target), random)
        losses.append((terms["loss"].item(), 2 * terms["reconstruction"].item()))
    (dense, reconstruction), (counts, same) = losses
    assert same == pytest.approx(reconstruction)
    assert counts - dense == pytest.approx((COUNTS_SCALE - 1) * reconstruction, rel=1e-5)


@pytest.mark.parametrize("multilabel", [False, True])
def test_terms_follow_their_formulas(multilabel: bool) -> None:
    built, items = network(multilabel=multilabel).eval(), batch(multilabel)
    built.n_steps = RAMP_STEPS // 2 - 1
    terms = built.terms(items, torch.Generator().manual_seed(2))
    assert items.labels is not None
    scores = built.class_scores(items.x)
    p = torch.sigmoid(scores) if multilabel else torch.softmax(scores, 1)
    confidence = (2 * p - 1).abs().mean(1) if multilabel else p.amax(1)
    belief = torch.cat([items.labels[:2], p[2:]])
    trust = torch.cat([torch.ones(2), 0.5 * confidence[2:] ** TRUST_POWER])  # half of the ramp
    sign = torch.tanh(built.code_logits(items.x) / 2)

    pair, weight = 0.0, 0.0
    for i, j in itertools.permutations(range(5), 2):
        same = 1 - (1 - belief[i] * belief[j]).prod() if multilabel else belief[i] @ belief[j]
        distance = ((1 - sign[i] * sign[j]) / 2).mean()
        hinge = same * distance + (1 - same) * max(0.0, 0.5 - distance)
        pair, weight = pair + trust[i] * trust[j] * hinge, weight + trust[i] * trust[j]
    torch.testing.assert_close(terms["pair"], pair / weight)

    words = CODEWORD_SCALE * sign @ built.codewords.t() / 16
    q = torch.sigmoid(words) if multilabel else torch.softmax(words, 1)
    each = -(belief * q.log()).sum(1)
    if multilabel:
        each = each - ((1 - belief) * (1 - q).log()).sum(1)
    torch.testing.assert_close(terms["codeword"], (trust * each).sum() / trust.sum())

    right = p[:2].log() * items.labels[:2]
    if multilabel:
        right = right + (1 - p[:2]).log() * (1 - items.labels[:2])
    torch.testing.assert_close(terms["point"], -right.sum(1).mean())
    total = 2 * terms["reconstruction"] + 0.5 * terms["kl"] + 3 * terms["point"]
    torch.testing.assert_close(terms["loss"], total + 5 * terms["pair"] + 7 * terms["codeword"])


def test_no_gradient_reaches_the_teacher_and_it_follows_the_student() -> None:
    built = network()
    built.terms(batch(), torch.Generator().manual_seed(0))["loss"].backward()
    assert built.teacher is not None
    assert all(parameter.grad is None for parameter in built.teacher.parameters())
    before = built.teacher.classifier.weight.clone()
    with torch.no_grad():
        built.classifier.weight += 1
    built.stepped()  # the first step: half of the way
    torch.testing.assert_close(built.teacher.classifier.weight, before + 0.5)
    built.finish()
    torch.testing.assert_close(built.classifier.weight, before + 0.5)  # the teacher stays
    assert not any(name.startswith("teacher") for name in built.state_dict())


@pytest.mark.parametrize(("n_classes", "n_bits"), [(2, 1), (2, 16), (10, 32), (20, 16)])
def test_codewords_are_apart(n_classes: int, n_bits: int) -> None:
    words = separated_codewords(n_classes, n_bits, torch.Generator().manual_seed(0))
    assert set(words.unique().tolist()) <= {-1.0, 1.0}
    distance = (n_bits - words @ words.t()) / 2
    apart = distance[~torch.eye(n_classes, dtype=torch.bool)].min()
    assert apart >= {1: 1, 16: 4 if n_classes == 20 else 12, 32: 11}[n_bits]


def test_sparse_rows_go_to_their_latent_subspace() -> None:
    random = np.random.default_rng(0)
    topics = np.repeat([0, 1], 50)
    counts = random.poisson(0.05 + (np.arange(40) % 2 == topics[:, None]), (100, 40))
    counts[7] = 0
    rows = row_source(sp.csr_array(counts.astype(np.float32)))
    latent = fit_latent(rows, 2, seed=0)
    taken = latent.take(np.arange(100))
    length = torch.linalg.norm(taken, dim=1)
    assert length[7] == 0
    torch.testing.assert_close(length[8:], torch.full((92,), 2**0.5))
    cosine = taken @ taken[0] / 2
    assert cosine[1:7].min() > cosine[50:].max()
    assert fit_latent(rows, 200, seed=0).n_columns == 40


def test_dense_rows_get_one_scale() -> None:
    x = np.random.default_rng(0).normal(3, [1, 2, 0], (500, 3)).astype(np.float32)
    scaled = fit_scale(row_source(x)).take(np.arange(500))
    torch.testing.assert_close(scaled.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    ratio = scaled.std(0) / scaled.std(0)[0]
    torch.testing.assert_close(ratio, torch.from_numpy(x.std(0) / x.std(0)[0]), atol=1e-3, rtol=0)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("multilabel", [False, True])
def test_saved_and_loaded(sparse: bool, multilabel: bool, tmp_path: Any) -> None:
    random = np.random.default_rng(0)
    X = random.poisson(0.5, (60, 30)).astype(np.float32)
    features = sp.csr_array(X) if sparse else X
    y = random.integers(0, 2, (60, 3)) if multilabel else random.integers(0, 3, 60)
    y[10:] = -1
    hasher = SSBVAE(16, n_epochs=2, n_hidden_units=8, n_lsa_components=5).fit(features, y)
    hasher.save(tmp_path)
    loaded = methods.load(tmp_path)
    assert loaded.n_features_in_ == 30
    np.testing.assert_array_equal(loaded.logits(features), hasher.logits(features))
    np.testing.assert_array_equal(loaded.predict(features), hasher.predict(features))


def test_database_codes_are_those_of_items_but_for_uncertain_bits(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def some_step_back(logits: Floats, probabilities: Floats) -> Floats:
        assert probabilities.shape == (300, 3)
        return hedged_threshold(logits, 0.2)

    monkeypatch.setattr(methods, "database_threshold", some_step_back)
    random = np.random.default_rng(0)
    X = random.normal(0, 1, (300, 20)).astype(np.float32)
    y = np.where(np.arange(300) < 30, np.arange(300) % 3, -1)
    hasher = SSBVAE(16, n_epochs=3, n_hidden_units=32).fit(X, y)
    one, own = (np.unpackbits(f(X), axis=1) for f in (hasher.transform, hasher.database_codes))
    assert 0.01 < (one != own).mean() < 0.3
    hasher.save(tmp_path)
    np.testing.assert_array_equal(
        methods.load(tmp_path).database_codes(X), hasher.database_codes(X)
    )
    several = np.where(y[:, None] < 0, -1, y[:, None] == np.arange(3))
    hasher.fit(X, several)
    np.testing.assert_array_equal(hasher.database_codes(X), hasher.transform(X))
    for paper in (SSBVAE(16, preset="paper", n_epochs=1), methods.VDSHS(16, n_epochs=1)):
        paper.fit(X - X.min(), y)
        codes = paper.transform(X - X.min())
        np.testing.assert_array_equal(paper.database_codes(X - X.min()), codes)


def test_teaches_itself_more_than_the_labels_alone() -> None:
    random = np.random.default_rng(0)
    y = np.arange(600) % 4
    X = random.normal(0, 1, (600, 20)).astype(np.float32)
    X[np.arange(600), y] += 4
    few = np.where(np.arange(600) < 12, y, -1)
    hasher = SSBVAE(16, n_hidden_units=200).fit(X, few)
    assert (hasher.predict(X) == y).mean() > 0.85
    codes = np.unpackbits(hasher.transform(X), axis=1)
    distance = (codes[:, None] != codes[None]).sum(2)
    same = y[:, None] == y[None]
    assert distance[same].mean() < 0.5 * distance[~same].mean()


@pytest.mark.parametrize(
    "wrong",
    [
        {"preset": "best"},
        {"dropout": 1},
        {"n_labelled": -1},
        {"n_lsa_components": 0},
        {"alpha": 1.0},
        {"pair_weight": -1},
    ],
)
def test_bad_parameters(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SSBVAE(**wrong).fit(np.eye(8), np.arange(8) % 2)
