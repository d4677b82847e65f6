"""The written-out step: the terms, gradients and running statistics that autograd has."""

import copy
from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

import numpy as np
import scipy.sparse as sp

from ssbhash import PHSGS, SSBVAE, BernoulliVAE
from ssbhash.engines import native_module
from ssbhash.inputs.rows import SparseBatch, row_source
from ssbhash.nn.bernoulli_vae import BernoulliVAENetwork, Items, Shape, Weights
from ssbhash.nn.phs_gs import PHSGSNetwork
from ssbhash.nn.ssb_vae import SSBVAENetwork
from ssbhash.training.fused import FusedStep
from ssbhash.training.optimizer import Optimizer

pytestmark = pytest.mark.skipif(native_module() is None, reason="the extension is not built")

torch.set_num_threads(1)

WEIGHTS = Weights(alpha=0.1, beta=0.3, gamma=2.0)


def batch(n_items: int, n_classes: int, seed: int = 0) -> Items:
    """Sparse items, a zero one among them, half of the labels hidden."""
    rng = np.random.default_rng(seed)
    counts = sp.csr_array(rng.poisson(0.2, (n_items, 70)).astype(np.float32))
    counts.data[: counts.indptr[1]] = 0
    x = row_source(counts).take(np.arange(n_items))
    target = row_source(counts).normalised().take(np.arange(n_items))
    if not n_classes:
        return Items(x, target)
    numbers = torch.from_numpy(rng.integers(0, n_classes, n_items))
    numbers[::2] = -1
    labels = (numbers[:, None] == torch.arange(n_classes)).float()
    return Items(x, target, labels, numbers >= 0)


def differentiated(network: Any, items: Items, factor: float, fused: bool) -> dict[str, Any]:
    """Terms, gradients and statistics of a copy of the network."""
    network = copy.deepcopy(network).train()
    optimizer = Optimizer(network, 1e-3, sparse=True)
    items = replace(items, x=optimizer.attach(items.x))
    generator = torch.Generator().manual_seed(3)
    if fused:
        step = FusedStep.of(network, optimizer.dense)
        assert step is not None
        assert step.fits(items)
        step(items, generator, 1.0)  # the memory of one batch serves the next
        for norm in (network.encoder.first_norm, network.encoder.second_norm):
            norm.reset_running_stats()
            norm.n_steps = 0
        terms = step(items, generator.manual_seed(3), factor)
        gradients = [optimizer.dense.gradient]
    else:
        terms = network.terms(items, generator)
        (terms["loss"] * factor).backward()
        gradients = optimizer.dense.gradients()
    statistics = dict(network.named_buffers())
    statistics.pop("encoder.first_norm.num_batches_tracked")
    statistics.pop("encoder.second_norm.num_batches_tracked")
    return {
        **{name: torch.as_tensor(value).float().detach() for name, value in terms.items()},
        **statistics,
        "gradient": torch.cat(gradients),
        "first": optimizer.touched.weight_gradient(),
    }


def assert_same(ours: Any, plain: Any) -> None:
    scale = max(float(plain.abs().max()), 1e-3)
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize("kind", [BernoulliVAENetwork, PHSGSNetwork, SSBVAENetwork])
@pytest.mark.parametrize(("n_items", "n_bits", "n_units"), [(2, 1, 3), (37, 32, 20), (100, 13, 70)])
def test_step_is_autograd_s(kind: Any, n_items: int, n_bits: int, n_units: int) -> None:
    n_classes = 0 if kind is BernoulliVAENetwork else 5
    generator = torch.Generator().manual_seed(1)
    shape = Shape(70, 70, n_bits, n_classes, n_hidden_units=n_units)
    network = kind(shape, WEIGHTS, generator)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    items = replace(batch(n_items, n_classes), n_in_batch=2 * n_items)
    ours, plain = (differentiated(network, items, 0.7, fused) for fused in (True, False))
    assert ours.keys() == plain.keys()
    for name, value in plain.items():
        assert_same(ours[name], value)


def test_saturated_logits_and_hopeless_labels() -> None:
    """Labels at the floor have no gradient, and a logit of +-60 no divergence to gain."""
    network = SSBVAENetwork(Shape(70, 70, 4, 3, 6), WEIGHTS, torch.Generator().manual_seed(1))
    with torch.no_grad():
        network.to_logits.bias.copy_(torch.tensor([60.0, -60.0, 0.0, 100.0]))
        network.classifier.bias.copy_(torch.tensor([40.0, 0.0, -40.0]))
    items = batch(30, 3)
    ours, plain = (differentiated(network, items, 1.0, fused) for fused in (True, False))
    for name, value in plain.items():
        assert_same(ours[name], value)


@pytest.mark.parametrize("method", [BernoulliVAE, PHSGS, SSBVAE])
def test_training_is_autograd_s(method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    X = sp.csr_array(rng.poisson(0.3, (205, 40)).astype(np.float32))
    y = np.where(rng.random(205) < 0.5, rng.integers(0, 3, 205), -1)
    options: dict[str, Any] = {"n_bits": 8, "n_epochs": 3, "n_hidden_units": 16, "batch_size": 51}
    if method is SSBVAE:
        options |= {"preset": "paper"}
    arguments = (X,) if method is BernoulliVAE else (X, y)
    ours = method(**options).fit(*arguments).history_
    monkeypatch.setattr(FusedStep, "fits", lambda *_: False)
    plain = method(**options).fit(*arguments).history_
    for left, right in zip(ours, plain, strict=True):
        assert list(left) == list(right)
        assert left["loss"] == pytest.approx(right["loss"], rel=1e-4)


def test_what_is_not_written_out_goes_by_autograd() -> None:
    generator = torch.Generator()
    shapes = [
        Shape(9, 9, 4, 2, 5, multilabel=True),
        Shape(9, 9, 4, 2, 5, reconstruction="gaussian"),
    ]
    for shape in shapes:
        network = PHSGSNetwork(shape, WEIGHTS, generator)
        optimizer = Optimizer(network, 1e-3, sparse=True)
        assert FusedStep.of(network, optimizer.dense) is None
    network = PHSGSNetwork(Shape(70, 70, 4, 2, 5), WEIGHTS, generator)
    step = FusedStep.of(network, Optimizer(network, 1e-3, sparse=True).dense)
    assert step is not None
    assert not step.fits(batch(1, 2))
    items = batch(3, 2)
    assert isinstance(items.x, SparseBatch)
    assert not step.fits(replace(items, target=items.x.dense()))


@pytest.mark.parametrize(("n_items", "n_units"), [(1, 1), (96, 32), (203, 37)])
def test_sparse_rows_are_encoded_as_dense_ones_are(n_items: int, n_units: int) -> None:
    generator = torch.Generator().manual_seed(1)
    network = SSBVAENetwork(Shape(70, 70, 4, 3, n_units), WEIGHTS, generator).eval()
    items = batch(n_items, 3)
    x = items.x
    assert isinstance(x, SparseBatch)
    with torch.inference_mode():
        for norm in (network.encoder.first_norm, network.encoder.second_norm):
            mean, variance = norm.running()
            mean.uniform_(-1, 1, generator=generator)
            variance.uniform_(0.1, 2, generator=generator)
        sparse, dense = network.code_logits(x), network.code_logits(x.dense())
    torch.testing.assert_close(sparse, dense, rtol=1e-4, atol=1e-4)
